use std::collections::BTreeSet;

use ipam::attachment::{Attachment, NoNetwork};
use ipam::keep::{Heritage, Lineage};
use ipam::name::{Nic, NodeName, Sandbox, Uid, Version, WorkloadId};
use ipam::release::Owner;
use ipam::select::{Exhausted, PodFacts, Refusal};
use serde_json::{Value, json};

use super::*;

/// Written and read again, it says the same.
#[track_caller]
fn assert_form<T: Serialize + for<'t> Deserialize<'t>>(it: &T, form: &Value) {
    let text = serde_json::to_string(it).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), *form);
    let read: T = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
}

fn claim() -> Claim {
    Claim {
        pod: PodFacts {
            pod: PodName::new("shop", "web-0"),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            node: NodeName::new("n1"),
            node_labels: Ok([("zone".to_owned(), "a".to_owned())].into()),
            namespace_labels: Err("not read".to_owned()),
            workload: WorkloadId {
                group: "apps".to_owned(),
                version: "v1".to_owned(),
                kind: "StatefulSet".to_owned(),
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                uid: Uid::from("w1"),
            },
            attachment: Attachment {
                nic: Nic::from("eth0"),
                own_namespace: "kube-system".to_owned(),
                network: Err(NoNetwork::NoneForFirst),
            },
        },
        uid: Uid::from("u1"),
        nic: Nic::from("eth0"),
        sandbox: Some(Sandbox::from("s1")),
        first: false,
        heritage: Some(Heritage {
            lineage: Lineage::of_set(Uid::from("w1")),
            instance: None,
            former: None,
            let_go: BTreeSet::from([Uid::from("u0")]),
        }),
    }
}

#[test]
fn the_form_of_a_claim() {
    let ask = Ask {
        pool: PoolName::new("p1"),
        wait_ms: 900,
        what: What::Claim(Box::new(claim())),
    };
    let pod = json!({
        "pod": "shop/web-0", "labels": {"app": "web"}, "node": "n1",
        "node_labels": {"Ok": {"zone": "a"}}, "namespace_labels": {"Err": "not read"},
        "workload": {"group": "apps", "version": "v1", "kind": "StatefulSet",
            "namespace": "shop", "name": "web", "uid": "w1"},
        "attachment": {"nic": "eth0", "own_namespace": "kube-system",
            "network": {"Err": "NoneForFirst"}},
    });
    let form = json!({"pool": "p1", "wait_ms": 900, "what": {"claim": {
        "pod": pod, "uid": "u1", "nic": "eth0", "sandbox": "s1",
        "heritage": {"lineage": {"owner": "w1"}, "instance": null, "former": null, "let_go": ["u0"]},
    }}});
    assert_form(&ask, &form);
    let first = Claim {
        first: true,
        ..claim()
    };
    let form = serde_json::to_value(&first).unwrap();
    assert_eq!(form["first"], json!(true));
    assert_form(&first, &form);
}

#[test]
fn the_form_of_a_release() {
    let release = Release {
        uid: Uid::from("u1"),
        nic: Nic::from("eth0"),
        node: None,
        owner: Owner::Ending,
        sandboxes: BTreeSet::from([Sandbox::from("s1")]),
        keep_for: None,
    };
    let ask = Ask {
        pool: PoolName::new("p1"),
        wait_ms: 1000,
        what: What::Release {
            pod: PodName::new("shop", "web-0"),
            release,
        },
    };
    let form = json!({"pool": "p1", "wait_ms": 1000, "what": {"release": {"pod": "shop/web-0",
        "release": {"uid": "u1", "nic": "eth0", "node": null, "owner": "Ending",
            "sandboxes": ["s1"], "keep_for": null}}}});
    assert_form(&ask, &form);
}

#[test]
fn the_forms_of_replies() {
    let granted = Granted {
        pool: PoolName::new("p1"),
        address: "10.0.0.7".parse().unwrap(),
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway: None,
        routes: vec![],
        early: false,
    };
    let bound_early = Granted {
        early: true,
        ..granted.clone()
    };
    let released = Released {
        freed: vec!["fd00::7".parse().unwrap()],
        ..Released::default()
    };
    let refused = CommitError::Refused(Refusal::Disabled(PoolName::new("p1")));
    let exhausted = CommitError::Exhausted {
        why: Exhausted::UsedOut,
        version: Version::new("41"),
    };
    let table = [
        (Reply::Ready, json!("ready")),
        (
            Reply::Granted(granted),
            json!({"granted": {"pool": "p1", "address": "10.0.0.7", "cidr": "10.0.0.0/24",
                "gateway": null, "routes": []}}),
        ),
        (
            Reply::Granted(bound_early),
            json!({"granted": {"pool": "p1", "address": "10.0.0.7", "cidr": "10.0.0.0/24",
                "gateway": null, "routes": [], "early": true}}),
        ),
        (
            Reply::Released(released),
            json!({"released": {"freed": ["fd00::7"], "kept": [], "in_use": 0, "until_gone": 0}}),
        ),
        (
            Reply::Failed(refused),
            json!({"failed": {"Refused": {"Disabled": "p1"}}}),
        ),
        (
            Reply::Failed(exhausted),
            json!({"failed": {"Exhausted": {"why": "UsedOut", "version": "41"}}}),
        ),
        (Reply::Unseen, json!("unseen")),
        (
            Reply::Seen(Seen::OwnerAndPools {
                meta: Box::new(ObjectMeta {
                    name: Some("web-1".to_owned()),
                    ..ObjectMeta::default()
                }),
                pools: vec![],
            }),
            json!({"seen": {"ownerAndPools": {"meta": {"name": "web-1"}, "pools": []}}}),
        ),
        (
            Reply::Seen(Seen::Pools(vec![])),
            json!({"seen": {"pools": []}}),
        ),
        (
            Reply::Busy { after_ms: 100 },
            json!({"busy": {"afterMs": 100}}),
        ),
        (Reply::NotLeading, json!("notLeading")),
        (
            Reply::Stranger("who?".to_owned()),
            json!({"stranger": "who?"}),
        ),
    ];
    for (reply, form) in table {
        assert_form(&reply, &form);
    }
}

#[test]
fn the_forms_of_looks() {
    let labels = [("app".to_owned(), "web".to_owned())].into();
    assert_form(&Look::Pool(PoolName::new("p1")), &json!({"pool": "p1"}));
    assert_form(&Look::Pools(labels), &json!({"pools": {"app": "web"}}));
    let owner = json!({"owner": {"group": "apps", "version": "v1", "kind": "StatefulSet",
        "namespace": "shop", "name": "web", "uid": "w1"}});
    assert_form(&Look::Owner(claim().pod.workload), &owner);
}
