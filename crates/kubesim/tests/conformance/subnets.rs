//! Subnets and reserved addresses: bodies that meet the rules of their definitions, and bodies that
//! don't.

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::script::{one_in, pick};

fn ranges(rng: &mut StdRng) -> Value {
    let lists: &[&[&str]] = &[
        &["10.6.0.1-10.6.0.9"],
        &["10.6.0.1", "10.6.0.7"],
        &["fd00::1-fd00::f"],
        &[],
        &["10.6.0.0/24"],
        &["10.6.0.1 "],
        &["10.6.0.1-"],
    ];
    match rng.random_range(0..14) {
        0 => json!(["x".repeat(97)]),
        1 => json!("10.6.0.1"),
        2 => json!([4]),
        3 => Value::Null,
        _ => json!(*pick(rng, lists)),
    }
}

fn version(rng: &mut StdRng) -> Value {
    pick(
        rng,
        &[
            json!(4),
            json!(4),
            json!(6),
            json!(5),
            json!("4"),
            Value::Null,
        ],
    )
    .clone()
}

fn routes(rng: &mut StdRng) -> Value {
    pick(
        rng,
        &[
            json!([{ "dst": "10.0.0.0/8", "gw": "10.6.0.254" }]),
            json!([{ "dst": "10.0.0.0/8", "gw": "10.6.0.254" }, { "dst": "fd00::/8", "gw": "fd00::1", "more": 1 }]),
            json!([{ "dst": "10.0.0.0", "gw": "10.6.0.254" }]),
            json!([{ "dst": "10.0.0.0/8", "gw": "10.6.0.254/24" }]),
            json!([{ "dst": "10.0.0.0/8" }]),
            json!([]),
            json!({}),
        ],
    )
    .clone()
}

/// A subnet.
pub(super) fn subnet(rng: &mut StdRng) -> Value {
    let networks = [
        "10.6.0.0/16",
        "10.6.0.0/16",
        "10.6.0.0/16",
        "fd00::/64",
        "10.6.0.0",
    ];
    let mut spec = json!({ "subnet": *pick(rng, &networks) });
    if one_in(rng, 2) {
        spec["ips"] = ranges(rng);
    }
    if one_in(rng, 4) {
        spec["excludeIPs"] = ranges(rng);
    }
    if one_in(rng, 3) {
        spec["ipVersion"] = version(rng);
    }
    if one_in(rng, 3) {
        let gateways = ["10.6.0.254", "10.6.0.254", "fd00::1", "10.6.0.254/16"];
        spec["gateway"] = json!(*pick(rng, &gateways));
    }
    if one_in(rng, 4) {
        spec["routes"] = routes(rng);
    }
    match rng.random_range(0..30) {
        0 => spec = json!({}),
        1 => spec["unknown"] = json!({ "a": 1 }),
        2 => spec["subnet"] = json!(4),
        3 => return json!({}),
        4 => return json!({ "spec": null }),
        _ => {}
    }
    json!({ "spec": spec })
}

/// A change of a subnet.
pub(super) fn change(rng: &mut StdRng) -> Value {
    let spec = match rng.random_range(0..6) {
        0 => json!({ "subnet": "10.7.0.0/16" }),
        1 => json!({ "ipVersion": version(rng) }),
        2 => json!({ "gateway": null, "routes": routes(rng) }),
        3 => json!({ "excludeIPs": ranges(rng) }),
        _ => json!({ "ips": ranges(rng) }),
    };
    json!({ "spec": spec })
}

/// What its controller says of it.
pub(super) fn status(rng: &mut StdRng) -> Value {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Seen", "message": "", "more": 1,
            "lastTransitionTime": "2026-11-22T10:00:00Z",
        })
    };
    let mut status = json!({
        "totalIPCount": *pick(rng, &[9, 10, -1]),
        "allocatedIPCount": rng.random_range(0..3),
        "controlledIPPools": *pick(rng, &["{}", "{\"a\":[]}"]),
        "conditions": [condition("Ready", "True"), condition("Exhausted", "False")],
    });
    match rng.random_range(0..12) {
        0 => status["conditions"][1]["type"] = json!("Ready"),
        1 => status["conditions"][0]["status"] = json!("Yes"),
        2 => status["conditions"][0]["lastTransitionTime"] = json!("yesterday"),
        3 => status["conditions"][0]["reason"] = json!(""),
        4 => status["conditions"][0] = json!({ "type": "Ready" }),
        5 => status["conditions"][0]["observedGeneration"] = json!(-1),
        6 => status["totalIPCount"] = json!("9"),
        7 => status["ledgerEpoch"] = json!(1.5),
        8 => status["extra"] = json!({ "x": [1] }),
        _ => {}
    }
    status
}

/// Reserved addresses.
pub(super) fn reserved(rng: &mut StdRng) -> Value {
    let mut spec = json!({ "ips": ranges(rng) });
    if one_in(rng, 2) {
        spec["ipVersion"] = version(rng);
    }
    match rng.random_range(0..20) {
        0 => return json!({}),
        1 => spec["unknown"] = json!(1),
        _ => {}
    }
    json!({ "spec": spec })
}

/// A change of reserved addresses.
pub(super) fn change_reserved(rng: &mut StdRng) -> Value {
    if one_in(rng, 3) {
        json!({ "spec": { "ipVersion": version(rng) } })
    } else {
        json!({ "spec": { "ips": ranges(rng) } })
    }
}

/// Whether the rules of a pool's, a subnet's or reserved addresses' definition can be evaluated.
pub(super) fn has_right_types(body: &Value) -> bool {
    let spec = &body["spec"];
    let texts = |list: &Value| match list {
        Value::Array(list) => list.iter().all(Value::is_string),
        other => other.is_null(),
    };
    let family = !spec["gateway"].is_null() || !spec["ipVersion"].is_null();
    texts(&spec["ips"])
        && texts(&spec["excludeIPs"])
        && spec["routes"].is_null()
        && (spec["gateway"].is_null() || spec["gateway"].is_string())
        && !spec["ipVersion"].is_string()
        && (spec["subnet"].is_string() || (spec["subnet"].is_null() && !family))
}
