//! A small cluster to look at: subnet `net4` with an auto pool of two Pods, a pool made by hand that
//! is switched off, a reservation.

use serde_json::{Value, json};

use super::sight::Sight;
use crate::api::convert;
use crate::cli::connection::Listing;

/// Objects of a kind as an API server has them.
pub(super) fn listing<K: serde::de::DeserializeOwned>(kind: &str, objects: &[Value]) -> Listing<K> {
    let typed = objects.iter().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = json!("spiderpool.spidernet.io/v2beta1");
        object["kind"] = json!(kind);
        serde_json::from_value(object).unwrap()
    });
    Listing {
        objects: typed.collect(),
        malformed: vec![],
    }
}

/// The pool with the mark of a controller that admitted it as it stands.
pub(super) fn admitted(mut pool: Value) -> Value {
    let parsed = listing("SpiderIPPool", &[pool.clone()]).objects.remove(0);
    let hash = convert::pool(&parsed).unwrap().admission_hash();
    pool["metadata"]["annotations"] = json!({"orbweaver.io/admitted": hash});
    pool
}

pub(super) fn subnets() -> Vec<Value> {
    vec![json!({
        "metadata": {"name": "net4", "uid": "s", "resourceVersion": "1"},
        "spec": {"subnet": "10.6.0.0/24", "gateway": "10.6.0.1", "ips": ["10.6.0.10-10.6.0.29"]},
        "status": {"controlledIPPools": r#"{"auto4-web-eth0-c0ffe":{"ips":["10.6.0.10-10.6.0.12"]},"shop":{"ips":["10.6.0.20-10.6.0.21"]}}"#,
            "conditions": [{"type": "Exhausted", "status": "False", "reason": "Sufficient", "message": "",
                "lastTransitionTime": "2026-11-22T17:41:24Z"}]}
    })]
}

pub(super) fn pools() -> Vec<Value> {
    let records = json!({
        "10.6.0.10": {"pod": "shop/web-a", "podUid": "a", "nic": "eth0", "node": "n1", "sandbox": "3fb1"},
        "10.6.0.11": {"pod": "shop/web-b", "podUid": "b"}
    });
    let web = json!({
        "metadata": {"name": "auto4-web-eth0-c0ffe", "uid": "p", "labels": {
            "ipam.spidernet.io/owner-application-gv": "apps_v1",
            "ipam.spidernet.io/owner-application-kind": "Deployment",
            "ipam.spidernet.io/owner-application-namespace": "shop",
            "ipam.spidernet.io/owner-application-name": "web",
            "ipam.spidernet.io/owner-application-uid": "w",
            "ipam.spidernet.io/owner-spider-subnet": "net4",
            "ipam.spidernet.io/interface": "eth0"}},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.12"], "gateway": "10.6.0.1"},
        "status": {"allocatedIPs": records.to_string(),
            "conditions": [{"type": "Exhausted", "status": "True", "reason": "SubnetExhausted",
                "message": "Deployment shop/web wants 9 addresses, IPPool auto4-web-eth0-c0ffe has 3",
                "lastTransitionTime": "2026-11-22T17:41:24Z"}]}
    });
    let shop = json!({
        "metadata": {"name": "shop", "uid": "q"},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.20-10.6.0.21"], "disable": true}
    });
    vec![admitted(web), admitted(shop)]
}

/// The pools of [`pools`], where a host outside of them uses 10.6.0.12.
pub(super) fn pools_in_conflict() -> Vec<Value> {
    let mut pools = pools();
    let text = pools[0]["status"]["allocatedIPs"].as_str().unwrap();
    let mut records: Value = serde_json::from_str(text).unwrap();
    records["10.6.0.12"] = json!({"pod": "shop/web-c", "podUid": "quarantined",
        "quarantine": {"mac": "02:00:00:00:00:09", "until": "2026-11-22T18:41:24Z"}});
    pools[0]["status"]["allocatedIPs"] = json!(records.to_string());
    pools
}

/// Subnets, pools and a reservation of 10.6.0.29.
pub(super) fn sight(subnets: &[Value], pools: &[Value]) -> Sight {
    let keeps = json!({"metadata": {"name": "printer"}, "spec": {"ips": ["10.6.0.29"]}});
    Sight::parsed(
        listing("SpiderSubnet", subnets),
        listing("SpiderIPPool", pools),
        listing("SpiderReservedIP", &[keeps]),
    )
}
