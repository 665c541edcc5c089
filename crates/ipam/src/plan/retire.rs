//! Pools that go: their workload is gone or asks for another pool, a person deleted them, or they
//! are gone already and only the ledger remembers them.
//!
//! A retiring pool first gives up what is free; the object is deleted when the last Pod has let go
//! of its address, so that nothing in use is ever forgotten.

use super::pass::{Pass, application};
use super::standing::Standing;
use super::{Needs, PoolEdit, Reason, Unwanted, admit, say};
use crate::addr::AddrSet;
use crate::name::PoolName;
use crate::pool::Pool;

/// An auto pool that no workload asks for.
///
/// One that outlives its workload is kept as it is, unless the workload lives and has another pool.
pub(super) fn without_demand(pass: &mut Pass<'_>, pool: &Pool, standing: &Standing<'_>) {
    let owner = pool.owner.as_ref();
    let unwanted = match owner {
        Some(o) if pass.asking.contains(&(&o.uid, &o.nic)) => Unwanted::HasAnother,
        Some(o) if pass.snapshot.living.contains(&o.uid) => Unwanted::NotAsked,
        Some(_) | None => Unwanted::WorkloadGone,
    };
    let is_kept = owner.is_some_and(|o| !o.reclaim) && unwanted != Unwanted::HasAnother;
    if pool.terminating || is_kept {
        admit::pool_made_by_hand(pass, pool, standing);
        return;
    }
    pass.say(&pool.name, say::retiring(unwanted));
    let because = Reason::Retire(unwanted);
    if !drain(pass, pool, standing, because.clone()) && pool.records.is_unused() {
        pass.delete(pool, because);
    }
}

/// A pool with a deletion timestamp: drained, and let go once nobody holds an address.
///
/// One that its workload will have anew keeps its entry in the ledger, and so its addresses.
pub(super) fn terminating(pass: &mut Pass<'_>, pool: &Pool, standing: &Standing<'_>) {
    let owner = pool.owner.as_ref();
    let comes_back = owner.is_some_and(|o| pass.asking.contains(&(&o.uid, &o.nic)));
    let stays =
        !(comes_back && goes_at_once(pool)) && drain(pass, pool, standing, Reason::TakeBack);
    if !stays && goes_at_once(pool) {
        let edit = PoolEdit {
            finalizer: Some(false),
            ..PoolEdit::default()
        };
        pass.before(pool, edit, Reason::LastHolderGone);
    }
}

/// True where nothing but our finalizer holds a pool that is being deleted.
pub(super) fn goes_at_once(pool: &Pool) -> bool {
    pool.terminating && pool.finalizer && pool.records.is_unused()
}

/// Leaves the pool with what is in use, in its spec and in the ledger; true where that needed a
/// write. An address in use that is another's by rights does not join the ledger, and one that a
/// Pod still has, although no pool has recorded it, does not leave it.
fn drain(pass: &mut Pass<'_>, pool: &Pool, standing: &Standing<'_>, because: Reason) -> bool {
    let recorded = pool.records.addresses();
    let ips = pool.ips.intersection(recorded);
    let on_pods = standing.entry.intersection(&pass.snapshot.on_pods);
    let keep = recorded.difference(&standing.foreign).union(&on_pods);
    if ips != pool.ips || !standing.entry.is_subset(&keep) {
        let edit = PoolEdit {
            ips: Some(ips),
            ..PoolEdit::default()
        };
        pass.take_back(pool, &keep, edit, because);
        return true;
    }
    if keep != *standing.entry {
        pass.edit(
            &pool.name,
            keep,
            application(pool.owner.as_ref()),
            Needs::Nothing,
        );
        return true;
    }
    false
}

/// Ledger entries of pools that no longer exist return to the subnet, but for addresses that a Pod
/// still has: somebody forced such a pool away under it.
///
/// The entry of a pool that this pass makes anew under the same name is left to it.
pub(super) fn vanished(pass: &mut Pass<'_>) {
    let snapshot = pass.snapshot;
    let gone: Vec<(PoolName, AddrSet, Option<String>)> = pass
        .ledger
        .iter()
        .filter(|(name, _)| !snapshot.pools.contains_key(*name))
        .filter(|(name, _)| !snapshot.unreadable.contains_key(*name))
        .filter(|(name, _)| !pass.born.contains(*name))
        .map(|(name, entry)| {
            (
                name.clone(),
                entry.ips.intersection(&snapshot.on_pods),
                entry.application.clone(),
            )
        })
        .filter(|(name, keep, _)| keep != pass.entry(name))
        .collect();
    for (name, keep, application) in gone {
        pass.edit(&name, keep, application, Needs::Absent);
    }
}
