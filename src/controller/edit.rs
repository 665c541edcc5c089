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
mod tests;
