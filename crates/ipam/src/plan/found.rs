//! Pods that have addresses of a pool which knows nothing of them.
//!
//! Somebody forced a pool away under its Pods and made it again, or its records were lost. Such Pods
//! are found by what they say themselves, and recorded before the pool is admitted: an agent then
//! gives their addresses to nobody else. A record made so names no sandbox, so it is released as
//! those of the original are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::pass::fence;
use super::standing::{Standing, beside};
use super::{Holder, Plan, Reason, Snapshot, Step};
use crate::addr::{AddrCount, AddrSet};
use crate::name::PoolName;
use crate::pool::Pool;
use crate::record::Record;

/// What Pods have of pools that wait to be admitted, by pool, where no pool has recorded it.
///
/// Cost: O(Pods of the CIDR · log) for each pool that is not admitted.
pub(super) fn unrecorded<'s>(
    snapshot: &'s Snapshot,
    standings: &'s BTreeMap<&PoolName, Standing>,
) -> Vec<Found<'s>> {
    if snapshot.holders.is_empty() {
        return vec![];
    }
    let waits = |pool: &Pool| !(pool.is_admitted() || pool.terminating);
    let mut waiting = beside(snapshot, standings)
        .filter(|(pool, standing)| waits(pool) && standing.is_clear())
        .peekable();
    if waiting.peek().is_none() {
        return vec![];
    }
    let pools = snapshot.pools.values();
    let recorded: AddrSet = pools
        .flat_map(|pool| pool.records.iter().map(|(address, _)| address))
        .collect();
    waiting
        .filter_map(|(pool, _)| Found::of(pool, snapshot, &recorded))
        .collect()
}

/// What Pods have of one pool.
pub(super) struct Found<'s> {
    pub(super) pool: &'s Pool,
    holders: BTreeMap<IpAddr, Holder>,
}

impl<'s> Found<'s> {
    fn of(pool: &'s Pool, snapshot: &Snapshot, recorded: &AddrSet) -> Option<Self> {
        let total = pool.total().difference(recorded);
        let holders: BTreeMap<IpAddr, Holder> = snapshot
            .holders
            .iter()
            .filter(|(address, _)| total.contains(**address))
            .map(|(address, holder)| (*address, holder.clone()))
            .collect();
        (!holders.is_empty()).then_some(Self { pool, holders })
    }

    fn step(self) -> Step {
        let count = u128::try_from(self.holders.len()).unwrap_or(u128::MAX);
        Step::Record {
            pool: self.pool.name.clone(),
            fence: fence(self.pool),
            found: self.holders,
            because: Reason::Found {
                count: AddrCount::new(count),
            },
        }
    }
}

/// The plan that records what was found, and decides nothing else; `None` where there is nothing,
/// or where a pool is unreadable: it may have recorded these very addresses, so those that wait go
/// on waiting.
pub(super) fn plan(snapshot: &Snapshot, found: Vec<Found<'_>>) -> Option<Plan> {
    if found.is_empty() || !snapshot.unreadable.is_empty() {
        return None;
    }
    if !snapshot.live {
        return Some(Plan {
            needs_live: true,
            ..Plan::default()
        });
    }
    Some(Plan {
        steps: found.into_iter().map(Found::step).collect(),
        ..Plan::default()
    })
}

impl Holder {
    /// The record of an address that this Pod has.
    pub fn record(&self) -> Record {
        Record {
            pod: self.pod.clone(),
            uid: self.uid.clone(),
            nic: self.nic.clone(),
            node: self.node.clone(),
            sandbox: None,
            owner: None,
            machine: None,
            instance: None,
            next: None,
            kept: false,
            quarantine: None,
            other: BTreeMap::new(),
        }
    }
}
