use ipam::addr::parse_list;
use ipam::name::{Nic, WorkloadId};
use ipam::pool::Owner;
use ipam::subnet::Entry;
use serde_json::json;

use super::*;

fn pool() -> SpiderIPPool {
    serde_json::from_value(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
        "metadata": {"name": "p", "uid": "u", "resourceVersion": "7",
            "annotations": {"team": "net", "orbweaver.io/epoch": "4"}},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.12"], "later": {"x": 1}},
        "status": {"allocatedIPs": "{\"10.6.0.10\":{\"pod\":\"a/b\",\"podUid\":\"1\"}}"}
    }))
    .unwrap()
}

fn edited(edit: &PoolEdit) -> SpiderIPPool {
    let raw = pool();
    let parsed = convert::pool(&raw).unwrap();
    edited_pool(&raw, &parsed, edit, None)
}

#[test]
fn a_subnet_has_its_label_also_where_no_webhook_filled_it_in() {
    let raw: SpiderSubnet = serde_json::from_value(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": "net4", "labels": {"mine": "yes", label::SUBNET_CIDR: "10-9-0-0-16"}},
        "spec": {"subnet": "10.6.0.0/24", "later": 1},
    }))
    .unwrap();
    let cidr = "10.6.0.0/24".parse().unwrap();
    let subnet = protected_subnet(&raw, &cidr, true);
    assert_eq!(subnet.labels()[label::SUBNET_CIDR], "10-6-0-0-24");
    assert_eq!(subnet.labels()["mine"], "yes");
    assert_eq!(subnet.spec.ip_version, Some(4));
    assert_eq!(subnet.finalizers(), [names::FINALIZER]);
    assert_eq!(without_finalizer(&subnet).unwrap().finalizers().len(), 0);
}

#[test]
fn an_edit_leaves_what_it_does_not_name() {
    let ips = parse_list(&["10.6.0.10-10.6.0.11"], Family::V4).unwrap();
    let edit = PoolEdit {
        ips: Some(ips),
        raise_epoch: true,
        admit: true,
        ..PoolEdit::default()
    };
    let pool = edited(&edit);
    assert_eq!(pool.spec.ips.as_ref().unwrap(), &["10.6.0.10-10.6.0.11"]);
    assert_eq!(pool.spec.unknown["later"], json!({"x": 1}));
    assert_eq!(pool.annotations()["team"], "net");
    assert_eq!(pool.annotations()[annotation::EPOCH], "5");
    assert!(convert::pool(&pool).unwrap().is_admitted());
}

#[test]
fn only_a_pool_that_is_made_for_a_workload_is_not_tracked_field_by_field() {
    assert_eq!(edited(&PoolEdit::default()).metadata.managed_fields, None);
    let workload = WorkloadId {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: "a".to_owned(),
        name: "b".to_owned(),
        uid: Uid::from("w"),
    };
    let owner = Owner::of(
        &workload,
        &Nic::from("eth0"),
        &SubnetName::from("net4"),
        true,
    );
    let mut raw = pool();
    raw.labels_mut()
        .extend(convert::owner_labels(&owner, Family::V4));
    let parsed = convert::pool(&raw).unwrap();
    let edited = edited_pool(&raw, &parsed, &PoolEdit::default(), None);
    let sent = serde_json::to_value(&edited.metadata).unwrap();
    assert_eq!(sent["managedFields"], json!([{}]));
}

#[test]
fn adoption_inherits_only_what_the_pool_does_not_say() {
    let subnet: SpiderSubnet = serde_json::from_value(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": "net4"},
        "spec": {"subnet": "10.6.0.0/24", "gateway": "10.6.0.1", "routes": [{"dst": "10.7.0.0/16", "gw": "10.6.0.2"}]}
    }))
    .unwrap();
    let mut raw = pool();
    raw.spec.routes = Some(vec![]);
    let parsed = convert::pool(&raw).unwrap();
    let adopt = Some((SubnetName::from("net4"), Uid::from("s")));
    let edit = PoolEdit {
        adopt,
        finalizer: Some(true),
        ..PoolEdit::default()
    };
    let pool = edited_pool(&raw, &parsed, &edit, Some(&subnet));
    assert_eq!(pool.spec.gateway.as_deref(), Some("10.6.0.1"));
    assert_eq!(pool.spec.routes, Some(vec![]));
    assert_eq!(
        convert::pool(&pool).unwrap().adopted_by,
        Some((SubnetName::from("net4"), Uid::from("s")))
    );
    assert_eq!(pool.finalizers(), [names::FINALIZER]);
}

#[test]
fn adoption_leaves_another_controller_its_pool_and_replaces_a_subnet_that_is_gone() {
    let mut raw = pool();
    let owner = |kind: &str, uid: &str| -> OwnerReference {
        serde_json::from_value(json!({"apiVersion": names::API_VERSION, "kind": kind,
            "name": "net4", "uid": uid, "controller": kind != names::KIND_SUBNET}))
        .unwrap()
    };
    raw.metadata.owner_references =
        Some(vec![owner("Other", "o"), owner(names::KIND_SUBNET, "old")]);
    let adopt = (SubnetName::from("net4"), Uid::from("new"));
    let edit = PoolEdit {
        adopt: Some(adopt.clone()),
        ..PoolEdit::default()
    };
    let parsed = convert::pool(&raw).unwrap();
    let adopted = edited_pool(&raw, &parsed, &edit, None);
    let owners = adopted.owner_references().iter();
    let owners: Vec<_> = owners.map(|r| (r.uid.as_str(), r.controller)).collect();
    assert_eq!(owners, [("o", Some(true)), ("new", None)]);
    assert_eq!(convert::pool(&adopted).unwrap().adopted_by, Some(adopt));
}

#[test]
fn each_ledger_write_raises_the_epoch_and_counts() {
    let raw: SpiderSubnet = serde_json::from_value(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": "net4"}, "spec": {"subnet": "10.6.0.0/24"},
        "status": {"ledgerEpoch": 3, "controlledIPPools": "{\"q\":{\"ips\":[\"10.6.0.20\"]}}"}
    }))
    .unwrap();
    let parsed = convert::subnet(&raw).unwrap();
    let ips = parse_list(&["10.6.0.10-10.6.0.12"], Family::V4).unwrap();
    let entry = Entry {
        ips,
        application: None,
    };
    let needs = ipam::plan::Needs::Nothing;
    let edit = LedgerEdit {
        pool: "p".into(),
        entry,
        needs,
    };
    let status = with_ledger(&raw, &parsed, [&edit]).status.unwrap();
    assert_eq!(
        (status.ledger_epoch, status.allocated_ip_count),
        (Some(4), Some(4))
    );
    assert_eq!(
        status.controlled_ip_pools.unwrap(),
        r#"{"p":{"ips":["10.6.0.10-10.6.0.12"]},"q":{"ips":["10.6.0.20"]}}"#
    );
}

#[test]
fn a_status_without_news_is_not_written() {
    let raw = pool();
    let parsed = convert::pool(&raw).unwrap();
    let now = Time(jiff::Timestamp::UNIX_EPOCH);
    let first = pool_status(&raw, Some(&parsed), &[], &now).unwrap();
    assert_eq!(first.status.as_ref().unwrap().total_ip_count, Some(3));
    assert_eq!(pool_status(&first, Some(&parsed), &[], &now), None);
}
