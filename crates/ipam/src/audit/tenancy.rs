//! What Pods have, beside what pools have recorded for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Life, Resident, Violation};
use crate::name::{PodName, PoolName, Uid};
use crate::pool::Pool;
use crate::quarantine::is_quarantined;
use crate::record::Record;

/// Adds what is wrong. Cost: O(n log n) over records and addresses of Pods, and for each address of
/// a Pod that no pool has recorded O(pools).
pub(super) fn check(by_name: &[&Pool], residents: &[Resident], found: &mut Vec<Violation>) {
    let mut records: BTreeMap<IpAddr, Vec<(&PoolName, &Record)>> = BTreeMap::new();
    for pool in by_name {
        for (address, record) in pool.records.iter() {
            records
                .entry(address)
                .or_default()
                .push((&pool.name, record));
        }
    }
    let mut users: BTreeMap<IpAddr, &Resident> = BTreeMap::new();
    for resident in residents.iter().filter(|r| r.life == Life::Running) {
        for address in resident.addresses.keys() {
            let recorded = records.get(address).map_or(&[][..], Vec::as_slice);
            let pool = owning(by_name, *address);
            if recorded.is_empty() && pool.is_none() {
                continue;
            }
            if let Some(other) = users.insert(*address, resident)
                && !are_one_machine(recorded, other, resident)
            {
                found.push(on_two(*address, other, resident));
            }
            found.extend(unrecorded(*address, resident, recorded, pool));
        }
    }
    let known: BTreeSet<&Uid> = residents
        .iter()
        .filter(|r| r.life != Life::Gone)
        .map(|r| &r.uid)
        .collect();
    let orphans = records.iter().flat_map(|(address, recorded)| {
        let left = recorded.iter().filter(|(_, record)| {
            let is_nobodys = record.kept || is_quarantined(record);
            !is_nobodys && record.node.is_none() && !known.contains(&record.uid)
        });
        left.map(|(pool, record)| Violation::Orphan {
            pool: (*pool).clone(),
            address: *address,
            pod: record.pod.clone(),
        })
    });
    found.extend(orphans);
}

/// The pool that could give `address` away: an admitted one before others.
fn owning<'p>(by_name: &[&'p Pool], address: IpAddr) -> Option<&'p PoolName> {
    let owning = by_name
        .iter()
        .filter(|p| !p.terminating && p.ips.contains(address) && !p.excluded.contains(address));
    owning.min_by_key(|p| !p.is_admitted()).map(|p| &p.name)
}

/// True for the two Pods of a virtual machine that is being moved.
fn are_one_machine(recorded: &[(&PoolName, &Record)], one: &Resident, other: &Resident) -> bool {
    let mut records = recorded.iter().map(|(_, record)| record);
    records.any(|record| record.is_held_by(&one.uid) && record.is_held_by(&other.uid))
}

fn on_two(address: IpAddr, one: &Resident, other: &Resident) -> Violation {
    let mut names: [PodName; 2] = [one.pod.clone(), other.pod.clone()];
    names.sort();
    let [first, second] = names;
    Violation::OnTwoPods {
        address,
        first,
        second,
    }
}

fn unrecorded(
    address: IpAddr,
    resident: &Resident,
    recorded: &[(&PoolName, &Record)],
    pool: Option<&PoolName>,
) -> Option<Violation> {
    let pod = resident.pod.clone();
    match recorded {
        [] => pool.map(|pool| Violation::NotRecorded {
            pool: pool.clone(),
            address,
            pod,
        }),
        all if all
            .iter()
            .any(|(_, record)| record.is_held_by(&resident.uid)) =>
        {
            None
        }
        [(pool, record), ..] => Some(Violation::HeldForAnother {
            pool: (*pool).clone(),
            address,
            pod,
            recorded: record.pod.clone(),
        }),
    }
}

#[cfg(test)]
mod tests;
