use insta::assert_snapshot;
use serde_json::json;

use super::*;
use crate::cli::look::testing::{pools, pools_in_conflict, sight, subnets};

fn pod(uid: &str, extra: &serde_json::Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "web-a", "namespace": "shop", "uid": uid,
            "creationTimestamp": "2026-11-22T17:41:24Z"},
        "status": {"phase": "Running"}
    });
    let meta = pod["metadata"].as_object_mut().unwrap();
    meta.extend(extra.as_object().unwrap().clone());
    serde_json::from_value(pod).unwrap()
}

fn who(address: &str, pod: Option<Pod>, unrecorded: &[&str]) -> Who {
    let sight = sight(&subnets(), &pools());
    let address = address.parse().unwrap();
    let found = census::whose(&sight.world, &sight.reserved, address);
    let unrecorded = unrecorded.iter().map(|p| (*p).to_owned()).collect();
    answer(address, &sight, &found, &[pod], unrecorded)
}

#[test]
fn the_address_of_a_pod_is_told_with_everything_that_is_known() {
    let running = who("10.6.0.10", Some(pod("a", &json!({}))), &[]);
    assert_snapshot!(running.text(Some(100)), @r#"
        Address:     10.6.0.10
        State:       Used, a Pod has it
        Pod:         shop/web-a (Running)
        Since:       2026-11-22T17:41:24Z
        Workload:    Deployment shop/web
        Interface:   eth0
        Node:        n1
        Sandbox:     3fb1
        Pool:        auto4-web-eth0-c0ffe
        Subnet:      net4
        "#);
}

#[test]
fn an_address_in_quarantine_is_told_with_the_host_that_uses_it() {
    let sight = sight(&subnets(), &pools_in_conflict());
    let address = "10.6.0.12".parse().unwrap();
    let found = census::whose(&sight.world, &sight.reserved, address);
    let who = answer(address, &sight, &found, &[None], vec![]);
    assert_snapshot!(who.text(Some(120)), @r#"
        Address:    10.6.0.12
        State:      Quarantined, a host outside of the pools uses it: no Pod gets it for now
        Pod:        shop/web-c (found it used by 02:00:00:00:00:09; no Pod gets it until 2026-11-22T18:41:24Z)
        Workload:   Deployment shop/web
        Pool:       auto4-web-eth0-c0ffe
        Subnet:     net4
        "#);
}

#[test]
fn a_record_outlives_its_pod_and_that_is_said() {
    let phase = |pod| who("10.6.0.10", pod, &[]).holders.remove(0).phase;
    assert_eq!(phase(None), "gone, and its address not yet released");
    assert_eq!(
        phase(Some(pod("z", &json!({})))),
        "gone, and another Pod has its name"
    );
    let going = json!({"deletionTimestamp": "2026-11-22T17:51:24Z"});
    assert_eq!(phase(Some(pod("a", &going))), "Terminating");
    let copy = json!({"annotations": {"kubernetes.io/config.mirror": "a"}});
    assert_eq!(phase(Some(pod("z", &copy))), "Running");
}

#[test]
fn an_address_that_nobody_has_is_one_of_nine_things() {
    let said = |address: &str| {
        let who = who(address, None, &[]);
        format!("{address} {}: {}", who.state, who.meaning)
    };
    let all = [
        "10.6.0.1",
        "10.6.0.29",
        "10.6.0.12",
        "10.6.0.20",
        "10.6.0.15",
        "10.6.0.99",
        "192.0.2.1",
    ];
    assert_snapshot!(all.map(said).join("\n"), @r#"
        10.6.0.1 Gateway: no Pod gets it
        10.6.0.29 Reserved: no Pod gets it
        10.6.0.12 Free: the pool may give it to its next Pod
        10.6.0.20 Withheld: nobody has it, and its pool gives nothing: it is disabled, being deleted, or not admitted
        10.6.0.15 Unassigned: free: no pool has it, and the subnet may give it to one
        10.6.0.99 NotListed: in the CIDR, and in no range of spec.ips: nobody gives it
        192.0.2.1 Outside: in no subnet and no pool
        "#);
}

#[test]
fn a_pod_that_has_it_without_a_record_is_named() {
    let who = who("10.6.0.15", None, &["shop/stray"]);
    assert_snapshot!(who.text(Some(100)), @r#"
        Address:      10.6.0.15
        State:        Unassigned, free: no pool has it, and the subnet may give it to one
        Subnet:       net4
        Unrecorded:   shop/stray
        "#);
}
