//! Objects as the original has them: pure functions from an object as read to the object to put.
//!
//! Owns: what of an object only Orbweaver understands, and what the original's webhooks insist on.
//! Never does: IO, or take an address from anybody: records keep address, Pod and uid, and a pool
//! gains what Pods have of it. Invariant: applied to its own result a function changes nothing.

use std::collections::BTreeMap;

use ipam::addr::{AddrSet, Family};
use ipam::admit::reserved;
use ipam::name::PoolName;
use ipam::pool::Pool;
use ipam::record::{Record, Records};
use ipam::subnet::{Subnet, SubnetLedger};

use crate::api::names::{self, APP_KEYS};
use crate::api::{
    LabelSelector, SpiderEndpoint, SpiderIPPool, SpiderReservedIP, SpiderSubnet, draft,
};

/// Prefix of the annotations and labels that are ours.
const OURS: &str = "orbweaver.io/";

/// What the original must find in a pool: its addresses, and everything that Pods have of it. It
/// refuses each later write of a pool that lacks an address in use.
pub(super) fn total(pool: &Pool) -> AddrSet {
    pool.total().union(&in_use(pool))
}

/// What is recorded in a pool. An address in quarantine is nobody's: one that a person took out of
/// the pool stays out.
fn in_use(pool: &Pool) -> AddrSet {
    let left = pool.records.quarantined().difference(&pool.total());
    pool.records.addresses().difference(&left)
}

/// The pool's metadata and spec.
pub(super) fn pool(raw: &SpiderIPPool, parsed: &Pool) -> SpiderIPPool {
    let mut pool = raw.clone();
    take_ours(&mut pool.metadata.annotations);
    take_ours(&mut pool.metadata.labels);
    keep_finalizer(&mut pool.metadata.finalizers);
    let version = parsed.family().version().into();
    pool.spec.ip_version = pool.spec.ip_version.or(Some(version));
    let in_use = in_use(parsed);
    if !in_use.is_subset(&parsed.total()) {
        pool.spec.ips = Some(parsed.ips.union(&in_use).to_texts());
        let excluded = parsed.excluded.difference(&in_use);
        pool.spec.exclude_ips = (!excluded.is_empty()).then(|| excluded.to_texts());
    }
    if parsed.owner.is_some() {
        pool.spec.pod_affinity = pool.spec.pod_affinity.as_ref().map(five_keys);
    }
    pool
}

/// The selector with the five keys that name a workload, and nothing else: with more, the original's
/// webhook refuses every write of the pool.
fn five_keys(selector: &LabelSelector) -> LabelSelector {
    let labels = selector.match_labels.iter().flatten();
    let five: BTreeMap<String, String> = labels
        .filter(|(key, _)| APP_KEYS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    LabelSelector {
        match_labels: Some(five),
        ..LabelSelector::default()
    }
}

/// The pool's status.
pub(super) fn pool_status(raw: &SpiderIPPool, parsed: &Pool) -> SpiderIPPool {
    let mut pool = raw.clone();
    let status = pool.status.get_or_insert_default();
    let (mut records, in_use) = (Records::default(), in_use(parsed));
    let kept = parsed.records.iter();
    for (address, record) in kept.filter(|(address, _)| in_use.contains(*address)) {
        records.insert(address, two_keys(record));
    }
    status.allocated_ips = records.to_text();
    status.allocated_ip_count = Some(records.count().to_wire());
    status.total_ip_count = Some(total(parsed).count().to_wire());
    status.conditions.clear();
    pool
}

fn two_keys(record: &Record) -> Record {
    Record {
        nic: None,
        node: None,
        sandbox: None,
        owner: None,
        machine: None,
        instance: None,
        next: None,
        kept: false,
        quarantine: None,
        other: BTreeMap::new(),
        ..record.clone()
    }
}

/// The subnet with its family, which the original does not look up in the CIDR; each pool has in the ledger just what it owns: the original refuses writes
/// of a workload's pool of which that is not so.
pub(super) fn subnet(
    raw: &SpiderSubnet,
    parsed: &Subnet,
    pools: &BTreeMap<PoolName, AddrSet>,
) -> SpiderSubnet {
    let mut ledger: SubnetLedger = parsed.ledger.clone().unwrap_or_default();
    for (name, entry) in parsed.ledger.iter().flat_map(SubnetLedger::iter) {
        if let Some(ips) = pools.get(name) {
            let entry = ipam::subnet::Entry {
                ips: ips.clone(),
                ..entry.clone()
            };
            ledger.set(name, entry);
        }
    }
    let mut subnet = raw.clone();
    let version = Family::of(parsed.cidr.addr()).version().into();
    subnet.spec.ip_version = subnet.spec.ip_version.or(Some(version));
    let status = subnet.status.get_or_insert_default();
    status.controlled_ip_pools = ledger.to_text();
    status.allocated_ip_count = Some(ledger.count().to_wire());
    status.total_ip_count = Some(parsed.total().count().to_wire());
    status.ledger_epoch = None;
    status.conditions.clear();
    subnet
}

/// The reservation with its family, without which the original may crash.
pub(super) fn reservation(raw: &SpiderReservedIP) -> SpiderReservedIP {
    let mut reservation = raw.clone();
    let defaults = reserved::defaults(draft::reserved(raw));
    reservation.spec.ip_version = defaults.map(|d| d.ip_version).or(raw.spec.ip_version);
    reservation
}

/// The endpoint with the finalizer by which the original frees a Pod's addresses.
pub(super) fn endpoint(raw: &SpiderEndpoint) -> SpiderEndpoint {
    let mut endpoint = raw.clone();
    keep_finalizer(&mut endpoint.metadata.finalizers);
    endpoint
}

/// Leaves none that only we read, and nothing where there is no other.
fn take_ours(pairs: &mut Option<BTreeMap<String, String>>) {
    if let Some(all) = pairs {
        all.retain(|key, _| !key.starts_with(OURS));
    }
    *pairs = pairs.take().filter(|all| !all.is_empty());
}

fn keep_finalizer(finalizers: &mut Option<Vec<String>>) {
    let finalizers = finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == names::FINALIZER) {
        finalizers.push(names::FINALIZER.to_owned());
    }
}
