//! Pools that go: their workload is gone or asks for another pool, a person deleted them, or they
//! are gone already and only the ledger remembers them.
//!
//! A retiring pool first gives up what is free; the object is deleted when the last Pod has let go
//! of its address, so that nothing in use is ever forgotten.

use super::pass::{Pass, in_order};
use super::{Needs, PoolEdit, Reason};
use crate::addr::AddrSet;
use crate::name::PoolName;
use crate::pool::Pool;

/// An auto pool that no workload asks for.
pub(super) fn without_demand(pass: &mut Pass<'_>, pool: &Pool) {
    if pool.terminating {
        terminating(pass, pool);
        return;
    }
    if pool.owner.as_ref().is_some_and(|o| !o.reclaim) {
        super::admit::pool_made_by_hand(pass, pool);
        return;
    }
    pass.say(
        &pool.name,
        in_order("Retiring", "its workload is gone or asks for another pool"),
    );
    if drain(pass, pool, Reason::Retire) || !pool.records.is_empty() {
        return;
    }
    pass.delete(pool, Reason::Retire);
}

/// A pool with a deletion timestamp: drained, and let go once nobody holds an address.
pub(super) fn terminating(pass: &mut Pass<'_>, pool: &Pool) {
    if drain(pass, pool, Reason::Retire) {
        return;
    }
    if pool.records.is_empty() && pool.finalizer {
        let edit = PoolEdit {
            finalizer: Some(false),
            ..PoolEdit::default()
        };
        pass.before(pool, edit, Reason::LastHolderGone);
    }
}

/// Takes back what is free; true where that needed a write.
fn drain(pass: &mut Pass<'_>, pool: &Pool, because: Reason) -> bool {
    let recorded = pool.records.addresses();
    let keep = pool.ips.intersection(&recorded);
    let entry = pass.entry(&pool.name);
    if keep == pool.ips && entry.is_subset(&recorded) {
        return false;
    }
    let edit = PoolEdit {
        ips: Some(keep),
        admit: pool.is_admitted(),
        ..PoolEdit::default()
    };
    pass.take_back(pool, recorded, edit, because);
    true
}

/// Ledger entries of pools that no longer exist return to the subnet, but for addresses that a Pod
/// still has: somebody forced such a pool away under it.
///
/// An entry that this pass gives to a pool made anew under the same name is left to it.
pub(super) fn vanished(pass: &mut Pass<'_>) {
    let snapshot = pass.snapshot;
    let gone: Vec<(PoolName, AddrSet, Option<String>)> = pass
        .ledger
        .iter()
        .filter(|(name, _)| !snapshot.pools.contains_key(*name))
        .filter(|(name, _)| !snapshot.unreadable.contains_key(*name))
        .filter(|(name, _)| !pass.edits(name))
        .map(|(name, entry)| {
            (
                name.clone(),
                entry.ips.intersection(&snapshot.on_pods),
                entry.application.clone(),
            )
        })
        .filter(|(name, keep, _)| *keep != pass.entry(name))
        .collect();
    for (name, keep, application) in gone {
        pass.edit(&name, keep, application, Needs::Absent);
    }
}
