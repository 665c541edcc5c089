//! Pools made by hand, and every pool's entry in the ledger.
//!
//! A pool lies within its subnet: one with addresses that the subnet does not have, or excludes, is
//! not admitted. It is admitted when the ledger shows all it owns and all that is in use, and nothing of that
//! belongs to another. Agents allocate only from admitted pools, so of two pools that overlap one
//! serves and the other says why it does not.
//!
//! Admission always follows a ledger write of the same pass. The ledger may show the pool's claims
//! already, but only a write at the version read proves that nobody is about to take them back.
//! And it is decided on a live list of pools: a ledger taken over may give a pool what another one,
//! that a cache does not show yet, has recorded for a Pod.

use super::pass::{Pass, application, fence};
use super::say::{self, in_order};
use super::standing::{self, Standing};
use super::{
    Condition, ConditionKind, Needs, Plan, PoolEdit, PoolWrite, Reason, Snapshot, Step, found,
    retire,
};
use crate::addr::AddrSet;
use crate::name::PoolName;
use crate::pool::Pool;
use crate::subnet::SubnetLedger;

/// A pool without a workload: adopted by the subnet and admitted, or told why not.
pub(super) fn pool_made_by_hand(pass: &mut Pass<'_>, pool: &Pool, standing: &Standing<'_>) {
    if pool.terminating {
        retire::terminating(pass, pool, standing);
        return;
    }
    if !standing.is_clear() {
        refused(pass, pool, standing);
        return;
    }
    let subnet = pass.subnet;
    let outside = subnet.lacks(&pool.total());
    if pool.owner.is_none() && !outside.is_empty() {
        not_of_the_subnet(pass, pool, standing, &outside);
        return;
    }
    // A subnet that goes would take along what it has adopted.
    let adopt = !subnet.terminating && !pool.is_adopted_by(subnet);
    let edit = PoolEdit {
        adopt: adopt.then(|| (subnet.name.clone(), subnet.uid.clone())),
        finalizer: (!pool.finalizer).then_some(true),
        admit: !standing.admitted,
        ..PoolEdit::default()
    };
    pass.say(
        &pool.name,
        in_order("Admitted", "addresses may be given out"),
    );
    let because = if edit.admit {
        Reason::Admit
    } else {
        Reason::Protect
    };
    enter(pass, pool, standing, edit, because);
}

/// A pool made by hand with addresses that its subnet does not have, or excludes: it loses its
/// admission before anything else, and then keeps what it has in use.
fn not_of_the_subnet(pass: &mut Pass<'_>, pool: &Pool, standing: &Standing<'_>, outside: &AddrSet) {
    if pool.is_admitted() {
        let edit = PoolEdit {
            raise_epoch: true,
            ..PoolEdit::default()
        };
        pass.before(pool, edit, Reason::Revoke);
    } else {
        refused(pass, pool, standing);
    }
    pass.say(&pool.name, say::outside(&pass.subnet.name, outside));
}

/// A pool that claims what is another's: not admitted, but what it has in use stays its own, and
/// what it no longer claims returns, so that two pools cannot wait for each other.
pub(super) fn refused(pass: &mut Pass<'_>, pool: &Pool, standing: &Standing<'_>) {
    pass.say(&pool.name, standing.conditions());
    let in_use = pool.records.addresses().union(&pass.snapshot.on_pods);
    let keep = standing
        .entry
        .intersection(&standing.claimed.union(&in_use));
    let keep = keep.union(&pool.records.addresses().difference(&standing.foreign));
    let edit = PoolEdit {
        finalizer: (!pool.finalizer).then_some(true),
        ..PoolEdit::default()
    };
    if !standing.entry.is_subset(&keep) {
        pass.take_back(pool, &keep, edit, Reason::TakeBack);
        return;
    }
    if keep != *standing.entry {
        pass.edit(
            &pool.name,
            keep,
            application(pool.owner.as_ref()),
            Needs::Nothing,
        );
    }
    if !edit.is_empty() {
        pass.after(&pool.name, Some(fence(pool)), edit, Reason::Protect);
    }
}

/// Makes the pool's entry equal to what it claims, and writes `edit` on the pool: what joins the
/// entry goes to the ledger first, what leaves it leaves behind a write that fences the pool.
///
/// An address that some Pod still has stays in the entry even where the pool lost its record.
pub(super) fn enter(
    pass: &mut Pass<'_>,
    pool: &Pool,
    standing: &Standing<'_>,
    edit: PoolEdit,
    because: Reason,
) {
    let (claimed, entry) = (&standing.claimed, standing.entry);
    if **claimed == *entry && edit.is_empty() {
        return; // as it should be, like most pools at most times
    }
    let keep = claimed.union(&entry.intersection(&pass.snapshot.on_pods));
    if !entry.is_subset(&keep) {
        // Should the pool also have gained something, that joins with the same ledger write and is
        // admitted by the next pass.
        pass.take_back(pool, &keep, edit, Reason::TakeBack);
        return;
    }
    if keep != *entry || (edit.admit && !claimed.is_empty()) {
        pass.edit(
            &pool.name,
            keep,
            application(pool.owner.as_ref()),
            Needs::Nothing,
        );
    }
    if !edit.is_empty() {
        pass.after(&pool.name, Some(fence(pool)), edit, because);
    }
}

/// True where the pool carries an admission of another time: should its spec be put back to what
/// it was then, agents would take it as admitted.
pub(super) fn has_stale_mark(pool: &Pool) -> bool {
    pool.admitted.is_some() && !pool.is_admitted() && !pool.terminating
}

/// Removes the mark of admission, and fences the pool against any write decided on before.
pub(super) fn revocation(pool: &Pool) -> Step {
    let edit = PoolEdit {
        raise_epoch: true,
        ..PoolEdit::default()
    };
    Step::Before(write(pool, edit, Reason::Revoke))
}

/// Plans for a CIDR that no subnet has: pools stand alone, the older of two that overlap serves.
///
/// There is no ledger to tell two controllers apart, so the pools themselves are the fence: before
/// a pool is admitted, every pool that could still be admitted beside it by a delayed write, or by
/// a person who takes an edit back, is written.
pub(super) fn without_subnet(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let pools = &snapshot.pools;
    let none = SubnetLedger::default();
    let standings = standing::judge(pools, &none, &snapshot.elsewhere);
    // Where a pool is unreadable, none is admitted below.
    if let Some(plan) = found::plan(snapshot, found::unrecorded(snapshot, &standings)) {
        return plan;
    }
    let (mut winners, mut losers) = (vec![], vec![]);
    for (name, pool) in pools.iter().map(|(name, pool)| (name, &**pool)) {
        let Some(standing) = standings.get(name) else {
            continue;
        };
        if pool.terminating {
            if pool.finalizer && pool.records.is_unused() {
                let edit = PoolEdit {
                    finalizer: Some(false),
                    ..PoolEdit::default()
                };
                plan.steps
                    .push(Step::Before(write(pool, edit, Reason::LastHolderGone)));
            }
        } else if !standing.is_clear() {
            plan.pools.insert(name.clone(), standing.conditions());
            losers.push(pool);
        } else if pool.is_admitted() {
            let said = in_order("Admitted", "addresses may be given out");
            plan.pools.insert(name.clone(), said);
            if !pool.finalizer {
                let edit = PoolEdit {
                    finalizer: Some(true),
                    ..PoolEdit::default()
                };
                plan.steps
                    .push(Step::Before(write(pool, edit, Reason::Protect)));
            }
        } else {
            winners.push(pool);
        }
    }
    // Also before the live look: it would tell no more, at each change of one of them.
    if let Some((unreadable, reason)) = snapshot.unreadable.first_key_value() {
        for pool in winners.drain(..) {
            plan.pools
                .insert(pool.name.clone(), waits_for(unreadable.as_str(), reason));
        }
    }
    let two_serve = losers.iter().any(|pool| pool.is_admitted());
    if (two_serve || !winners.is_empty()) && !snapshot.live {
        return Plan {
            needs_live: true,
            ..Plan::default()
        };
    }
    admit_alone(&mut plan, &winners, &losers);
    plan
}

fn admit_alone(plan: &mut Plan, winners: &[&Pool], losers: &[&Pool]) {
    let stale = winners.iter().filter(|pool| has_stale_mark(pool)).count();
    // Its own mark harms nobody where the pool is the only one to be admitted.
    let settled = |pool: &Pool| !has_stale_mark(pool) || (stale == 1 && winners.len() == 1);
    let mut fenced: Vec<&Pool> = winners
        .iter()
        .copied()
        .filter(|pool| !settled(pool))
        .collect();
    let any = winners.iter().any(|pool| settled(pool)) || !fenced.is_empty();
    fenced.extend(
        losers
            .iter()
            .copied()
            .filter(|pool| any || pool.is_admitted()),
    );
    plan.steps
        .extend(fenced.iter().map(|pool| revocation(pool)));
    if !fenced.is_empty() {
        plan.steps.push(Step::Barrier);
    }
    for pool in winners {
        if settled(pool) {
            let said = in_order("Admitted", "addresses may be given out");
            plan.pools.insert(pool.name.clone(), said);
            let finalizer = (!pool.finalizer).then_some(true);
            let edit = PoolEdit {
                admit: true,
                finalizer,
                ..PoolEdit::default()
            };
            plan.steps
                .push(Step::After(write(pool, edit, Reason::Admit)));
        }
    }
}

/// Leaves a pool as it is until every pool of the CIDR can be read.
pub(super) fn wait(pass: &mut Pass<'_>, pool: &PoolName) {
    if let Some((unreadable, reason)) = pass.snapshot.unreadable.first_key_value() {
        pass.say(pool, waits_for(unreadable.as_str(), reason));
    }
}

fn waits_for(unreadable: &str, reason: &str) -> Vec<Condition> {
    vec![Condition {
        kind: ConditionKind::Ready,
        holds: false,
        reason: "PoolUnreadable",
        message: format!(
            "no address is given out, since nobody knows what IPPool {unreadable} of the same \
             CIDR has until it is mended: {reason}"
        ),
    }]
}

fn write(pool: &Pool, edit: PoolEdit, because: Reason) -> Box<PoolWrite> {
    Box::new(PoolWrite {
        pool: pool.name.clone(),
        fence: Some(fence(pool)),
        edit,
        because,
    })
}
