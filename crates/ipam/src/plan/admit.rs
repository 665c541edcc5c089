//! Pools made by hand, and every pool's entry in the ledger.
//!
//! A pool is admitted when the ledger shows all it owns and all that is in use, and nothing of that
//! belongs to another. Agents allocate only from admitted pools, so of two pools that overlap one
//! serves and the other says why it does not.

use super::pass::{Pass, application, fence, in_order};
use super::{Condition, ConditionKind, Needs, Plan, PoolEdit, PoolWrite, Reason, Snapshot, Step};
use crate::addr::AddrSet;
use crate::name::PoolName;
use crate::pool::Pool;

/// How a pool stands beside the others.
pub(super) enum Standing {
    /// What it owns is its own.
    Own,
    /// Something belongs to another: the conditions say what and to whom.
    Conflicts(Vec<Condition>),
}

/// Does all that `pool` claims belong to it alone? Only what the ledger does not give it already
/// is compared with the others. Cost: O(1) for a pool in order, else O(pools of the CIDR).
pub(super) fn standing(
    pass: &Pass<'_>,
    pool: &Pool,
    claimed: &AddrSet,
    entry: &AddrSet,
) -> Standing {
    let new = claimed.difference(entry);
    if new.is_empty() {
        return Standing::Own;
    }
    let of_ledger = pass.ledger.iter().filter(|(name, _)| **name != pool.name);
    let in_ledger = of_ledger
        .map(|(name, e)| (name, e.ips.intersection(&new)))
        .find(|(_, overlap)| !overlap.is_empty());
    let older = pass
        .snapshot
        .pools
        .values()
        .filter(|other| precedes(other, pool))
        .map(|other| (&other.name, other.claimed().intersection(&new)))
        .find(|(_, overlap)| !overlap.is_empty());
    if let Some((other, overlap)) = in_ledger.or(older) {
        return Standing::Conflicts(conflict(&format!("IPPool {other}"), &overlap));
    }
    let elsewhere = pass.snapshot.elsewhere.intersection(&new);
    if !elsewhere.is_empty() {
        return Standing::Conflicts(conflict("an object with another CIDR", &elsewhere));
    }
    Standing::Own
}

/// Is `a` served before `b` where both want the same address and the ledger names neither?
fn precedes(a: &Pool, b: &Pool) -> bool {
    let key = |p: &Pool| (!p.is_admitted(), p.created, p.name.clone());
    a.name != b.name && key(a) < key(b)
}

fn conflict(with: &str, overlap: &AddrSet) -> Vec<Condition> {
    let message = format!(
        "{overlap} belongs to {with}: no address is given out until spec.ips or spec.excludeIPs of \
         one of them leaves it out"
    );
    [
        (ConditionKind::Ready, false),
        (ConditionKind::Conflicting, true),
    ]
    .into_iter()
    .map(|(kind, holds)| Condition {
        kind,
        holds,
        reason: "Overlap",
        message: message.clone(),
    })
    .collect()
}

/// A pool without a workload: adopted by the subnet and admitted, or told why not.
pub(super) fn pool_made_by_hand(pass: &mut Pass<'_>, pool: &Pool) {
    if pool.terminating {
        super::retire::terminating(pass, pool);
        return;
    }
    let (claimed, entry) = (pool.claimed(), pass.entry(&pool.name));
    let subnet = pass.subnet;
    match standing(pass, pool, &claimed, &entry) {
        Standing::Conflicts(conditions) => pass.say(&pool.name, conditions),
        Standing::Own => {
            let edit = PoolEdit {
                adopt: (pool.adopted_by.as_ref() != Some(&subnet.name))
                    .then(|| (subnet.name.clone(), subnet.uid.clone())),
                finalizer: (!pool.finalizer).then_some(true),
                admit: !pool.is_admitted(),
                ..PoolEdit::default()
            };
            pass.say(
                &pool.name,
                in_order("Admitted", "addresses may be given out"),
            );
            enter(pass, pool, &claimed, &entry, edit, Reason::Admit);
        }
    }
}

/// Makes the pool's entry equal to what it claims, and writes `edit` on the pool: what joins the
/// entry goes to the ledger first, what leaves it leaves behind a write that fences the pool.
pub(super) fn enter(
    pass: &mut Pass<'_>,
    pool: &Pool,
    claimed: &AddrSet,
    entry: &AddrSet,
    edit: PoolEdit,
    because: Reason,
) {
    if !entry.is_subset(claimed) {
        // What the pool no longer has returns; should it also have gained something, that joins
        // with the same ledger write and is admitted by the next pass.
        let admit = edit.admit && claimed.is_subset(entry);
        let edit = PoolEdit { admit, ..edit };
        pass.take_back(pool, claimed.clone(), edit, Reason::TakeBack);
        return;
    }
    if claimed != entry {
        let application = application(pool.owner.as_ref());
        pass.edit(&pool.name, claimed.clone(), application, Needs::Nothing);
    }
    if !edit.is_empty() {
        pass.after(&pool.name, Some(fence(pool)), edit, because);
    }
}

/// Plans for a CIDR that no subnet has: pools stand alone, the older of two that overlap serves.
///
/// An unadmitted pool is judged against a live list only.
pub(super) fn without_subnet(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let mut held = snapshot.elsewhere.clone();
    let mut owners: Vec<(PoolName, AddrSet)> = vec![];
    let mut pools: Vec<&Pool> = snapshot.pools.values().collect();
    pools.sort_by_key(|p| (!p.is_admitted(), p.created, p.name.clone()));
    for pool in pools {
        let claimed = pool.claimed();
        let overlap = claimed.intersection(&held);
        let edit = PoolEdit {
            finalizer: (!pool.finalizer && !pool.terminating).then_some(true),
            admit: !pool.is_admitted() && !pool.terminating,
            ..PoolEdit::default()
        };
        if pool.terminating {
            if pool.finalizer && pool.records.is_empty() {
                let edit = PoolEdit {
                    finalizer: Some(false),
                    ..PoolEdit::default()
                };
                plan.steps.push(write(pool, edit, Reason::LastHolderGone));
            }
        } else if overlap.is_empty() || pool.is_admitted() {
            let message = "addresses may be given out";
            plan.pools
                .insert(pool.name.clone(), in_order("Admitted", message));
            if edit.admit && !snapshot.live {
                return Plan {
                    needs_live: true,
                    ..Plan::default()
                };
            }
            if !edit.is_empty() {
                plan.steps.push(write(pool, edit, Reason::Admit));
            }
        } else {
            let with = owners
                .iter()
                .find(|(_, set)| !set.is_disjoint(&claimed))
                .map_or("an object with another CIDR".to_owned(), |(p, _)| {
                    format!("IPPool {p}")
                });
            plan.pools
                .insert(pool.name.clone(), conflict(&with, &overlap));
        }
        held = held.union(&claimed);
        owners.push((pool.name.clone(), claimed));
    }
    plan
}

fn write(pool: &Pool, edit: PoolEdit, because: Reason) -> Step {
    Step::Before(Box::new(PoolWrite {
        pool: pool.name.clone(),
        fence: Some(fence(pool)),
        edit,
        because,
    }))
}
