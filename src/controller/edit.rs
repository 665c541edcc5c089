//! What the core decided, as the objects should be written: pure functions from an object as read
//! to the object to put.
//!
//! Never does: IO, or decide. Invariant: what a step does not name stays as it was read, keys of
//! other programs included.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::addr::{AddrCount, Family, cidr_label};
use ipam::name::{SubnetName, Uid, label_value};
use ipam::plan::{Condition, Holder, LedgerEdit, Mark, NewPool, PoolEdit};
use ipam::pool::Pool;
use ipam::record::Records;
use ipam::subnet::{Subnet, SubnetLedger};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ManagedFieldsEntry, ObjectMeta, OwnerReference, Time,
};
use kube::{Resource, ResourceExt};

use crate::api::conditions::{Observed, upsert};
use crate::api::convert;
use crate::api::names::{self, annotation, label};
use crate::api::{ConditionStatus, SpiderIPPool, SpiderIPPoolSpec, SpiderSubnet};

/// A pool to create.
pub fn new_pool(new: &NewPool) -> SpiderIPPool {
    let family = Family::of(new.cidr.addr());
    let mut labels = convert::owner_labels(&new.owner, family);
    labels.insert(label::POOL_CIDR.to_owned(), cidr_label(&new.cidr));
    let told = (annotation::IP_NUMBER.to_owned(), new.rule.to_string());
    SpiderIPPool {
        metadata: ObjectMeta {
            name: Some(new.name.to_string()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([told])),
            finalizers: Some(vec![names::FINALIZER.to_owned()]),
            owner_references: Some(vec![subnet_reference(&new.subnet.0, &new.subnet.1)]),
            ..ObjectMeta::default()
        },
        spec: SpiderIPPoolSpec {
            ip_version: Some(family.version().into()),
            subnet: new.cidr.to_string(),
            ips: Some(vec![]),
            gateway: new.gateway.map(|g| g.to_string()),
            routes: convert::wire_routes(&new.routes),
            pod_affinity: Some(convert::wire_selector(&new.pod_affinity)),
            ..SpiderIPPoolSpec::default()
        },
        status: None,
    }
}

/// `raw` with `edit`; `parsed` is the same object read, `subnet` what an adopted pool inherits from.
pub fn edited_pool(
    raw: &SpiderIPPool,
    parsed: &Pool,
    edit: &PoolEdit,
    subnet: Option<&SpiderSubnet>,
) -> SpiderIPPool {
    let mut pool = raw.clone();
    if parsed.owner.is_some() || edit.owner.is_some() {
        // What is ours alone is not tracked field by field, in which the API server would put a third of
        // its work on each record: an empty entry ends that, until somebody applies.
        pool.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
    }
    pool.spec.ip_version = pool
        .spec
        .ip_version
        .or(Some(parsed.family().version().into()));
    pool.labels_mut()
        .insert(label::POOL_CIDR.to_owned(), cidr_label(&parsed.cidr));
    let ips = edit.ips.as_ref().unwrap_or(&parsed.ips);
    if edit.ips.is_some() {
        pool.spec.ips = Some(ips.to_texts());
    }
    if let Some((name, uid)) = &edit.adopt {
        adopt(&mut pool, name, uid, subnet);
    }
    if let Some((owner, affinity)) = &edit.owner {
        pool.labels_mut()
            .extend(convert::owner_labels(owner, parsed.family()));
        pool.spec.pod_affinity = Some(convert::wire_selector(affinity));
    }
    let annotations = pool.annotations_mut();
    if let Some(rule) = edit.rule {
        annotations.insert(annotation::IP_NUMBER.to_owned(), rule.to_string());
    }
    match edit.mark(parsed) {
        Mark::Keep => {}
        Mark::Set(hash) => drop(annotations.insert(annotation::ADMITTED.to_owned(), hash)),
        Mark::Remove => drop(annotations.remove(annotation::ADMITTED)),
    }
    if edit.raise_epoch {
        let epoch = parsed.epoch.saturating_add(1);
        annotations.insert(annotation::EPOCH.to_owned(), epoch.to_string());
    }
    if let Some(present) = edit.finalizer {
        set_finalizer(&mut pool.metadata, present);
    }
    pool
}

fn adopt(pool: &mut SpiderIPPool, name: &SubnetName, uid: &Uid, subnet: Option<&SpiderSubnet>) {
    pool.labels_mut().insert(
        label::OWNER_SUBNET.to_owned(),
        label_value(name.as_str()).into_owned(),
    );
    let references = pool.owner_references_mut();
    // What a subnet of another uid left behind goes; what another controller has stays its own, and
    // then ours is a plain owner beside it: two controllers would replace each other for ever.
    references.retain(|r| !(r.kind == names::KIND_SUBNET && r.api_version == names::API_VERSION));
    let controlled = references.iter().any(|r| r.controller == Some(true));
    references.push(OwnerReference {
        controller: (!controlled).then_some(true),
        ..subnet_reference(name, uid)
    });
    if let Some(subnet) = subnet {
        pool.spec.inherit(&subnet.spec);
    }
}

fn subnet_reference(name: &SubnetName, uid: &Uid) -> OwnerReference {
    OwnerReference {
        api_version: names::API_VERSION.to_owned(),
        kind: names::KIND_SUBNET.to_owned(),
        name: name.to_string(),
        uid: uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// `raw` with further records; `parsed` is the same object read. An address that is recorded keeps
/// its record.
pub fn with_records(
    raw: &SpiderIPPool,
    parsed: &Pool,
    found: &BTreeMap<IpAddr, Holder>,
) -> SpiderIPPool {
    let mut records = parsed.records.clone();
    for (address, holder) in found {
        if records.get(*address).is_none() {
            records.insert(*address, holder.record());
        }
    }
    recorded(raw, &records)
}

/// `raw` with these records.
pub fn recorded(raw: &SpiderIPPool, records: &Records) -> SpiderIPPool {
    let mut pool = raw.clone();
    let status = pool.status.get_or_insert_default();
    status.allocated_ips = records.to_text();
    status.allocated_ip_count = Some(records.count().to_wire());
    pool
}

/// `raw` with our finalizer set or removed, and with the label of its CIDR.
pub fn protected_subnet(raw: &SpiderSubnet, cidr: &IpNet, finalizer: bool) -> SpiderSubnet {
    let mut subnet = raw.clone();
    let version = Family::of(cidr.addr()).version();
    subnet.spec.ip_version = subnet.spec.ip_version.or(Some(version.into()));
    subnet
        .labels_mut()
        .insert(label::SUBNET_CIDR.to_owned(), cidr_label(cidr));
    set_finalizer(&mut subnet.metadata, finalizer);
    subnet
}

/// `raw` without our finalizer; `None` where it has none.
pub fn without_finalizer(raw: &SpiderSubnet) -> Option<SpiderSubnet> {
    let mut subnet = raw.clone();
    set_finalizer(&mut subnet.metadata, false);
    (subnet.finalizers() != raw.finalizers()).then_some(subnet)
}

fn set_finalizer(meta: &mut ObjectMeta, present: bool) {
    let finalizers = meta.finalizers.get_or_insert_default();
    finalizers.retain(|f| f != names::FINALIZER);
    if present {
        finalizers.push(names::FINALIZER.to_owned());
    }
}

/// `raw` with the edits in its ledger. Every such write raises the epoch: no two are byte-equal.
pub fn with_ledger<'e>(
    raw: &SpiderSubnet,
    parsed: &Subnet,
    edits: impl IntoIterator<Item = &'e LedgerEdit>,
) -> SpiderSubnet {
    let mut ledger: SubnetLedger = parsed.ledger.clone().unwrap_or_default();
    for edit in edits {
        ledger.set(&edit.pool, edit.entry.clone());
    }
    ledger_replaced(raw, Some(&ledger))
}

/// `raw` with this ledger, or with none, which says that it is not known; the epoch is raised.
pub fn ledger_replaced(raw: &SpiderSubnet, ledger: Option<&SubnetLedger>) -> SpiderSubnet {
    let mut subnet = raw.clone();
    let status = subnet.status.get_or_insert_default();
    let epoch = status.ledger_epoch.unwrap_or_default();
    status.ledger_epoch = Some(epoch.saturating_add(1));
    status.controlled_ip_pools = ledger.and_then(SubnetLedger::to_text);
    status.allocated_ip_count = ledger.map(|ledger| ledger.count().to_wire());
    subnet
}

/// `raw` with its counts, as far as they are known, and conditions; `None` where they are as they
/// should be.
pub fn subnet_status(
    raw: &SpiderSubnet,
    total: Option<AddrCount>,
    conditions: &[Condition],
    now: &Time,
) -> Option<SpiderSubnet> {
    let mut subnet = raw.clone();
    let status = subnet.status.get_or_insert_default();
    if let Some(total) = total {
        status.total_ip_count = Some(total.to_wire());
        status.allocated_ip_count.get_or_insert(0);
    }
    observe(
        &mut status.conditions,
        conditions,
        raw.meta().generation,
        now,
    );
    (subnet.status != raw.status).then_some(subnet)
}

/// `raw` with its counts, if it can be read, and conditions; `None` where they are as they should
/// be.
pub fn pool_status(
    raw: &SpiderIPPool,
    parsed: Option<&Pool>,
    conditions: &[Condition],
    now: &Time,
) -> Option<SpiderIPPool> {
    let mut status = raw.status.clone().unwrap_or_default();
    if let Some(parsed) = parsed {
        status.total_ip_count = Some(parsed.total().count().to_wire());
        status.allocated_ip_count = Some(parsed.records.count().to_wire());
    }
    observe(
        &mut status.conditions,
        conditions,
        raw.meta().generation,
        now,
    );
    (Some(&status) != raw.status.as_ref()).then(|| SpiderIPPool {
        status: Some(status),
        ..raw.clone()
    })
}

fn observe(
    list: &mut Vec<crate::api::Condition>,
    conditions: &[Condition],
    generation: Option<i64>,
    now: &Time,
) {
    for condition in conditions {
        let status = if condition.holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        let seen = Observed {
            type_: condition.kind,
            status,
            reason: condition.reason.to_owned(),
            message: condition.message.clone(),
            generation,
        };
        upsert(list, seen, now);
    }
}

#[cfg(test)]
mod tests {
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
}
