//! What must be in order before a pass decides anything: the ledger readable and complete, the
//! subnet protected.
//!
//! A ledger is complete when it shows all that pools in service claim. One that is absent, or that
//! somebody overwrote, is completed from a live list of pools in a pass of its own, and what was
//! decided without it is fenced first.

use super::pass::{application, fence_of};
use super::standing::{Standings, beside};
use super::{Condition, ConditionKind, LedgerEdit, Needs, Plan, Snapshot, Step, admit};
use crate::overlap;
use crate::subnet::{Entry, Subnet, SubnetLedger};

/// The plan for what must be in order before anything else is decided; `None` where all is.
pub(super) fn first_of_all(
    snapshot: &Snapshot,
    subnet: &Subnet,
    ledger: &SubnetLedger,
    standings: &Standings<'_>,
) -> Option<Plan> {
    // Before a live list, which would tell no more, at each change of one of the pools.
    if subnet.ledger.is_none()
        && let Some((name, reason)) = snapshot.unreadable.first_key_value()
    {
        let message = format!(
            "status.controlledIPPools is absent and cannot be rebuilt, since nobody knows what \
             IPPool {name} has until it is mended: {reason}"
        );
        return Some(idle("PoolUnreadable", message));
    }
    // Of a subnet that nobody has asked for anything there is nothing to complete.
    let is_idle = snapshot.pools.is_empty() && snapshot.demands.is_empty() && !subnet.terminating;
    let incomplete = (subnet.ledger.is_none() && !is_idle)
        || beside(snapshot, standings).any(|(_, s)| !s.is_entered() && s.admitted);
    if incomplete && !snapshot.live {
        return Some(Plan {
            needs_live: true,
            ..Plan::default()
        });
    }
    let twice = overlap::shared(ledger.iter().map(|(_, entry)| &entry.ips));
    if !twice.is_empty() {
        let message = format!(
            "status.controlledIPPools gives {twice} to more than one IPPool: nothing is changed \
             until each address stands in one entry; `orbweaver ipam check --repair` sees to it"
        );
        return Some(idle("LedgerOverlap", message));
    }
    if !subnet.terminating && !subnet.finalizer {
        let step = Step::ProtectSubnet {
            fence: fence_of(subnet),
            finalizer: true,
        };
        return Some(Plan {
            steps: vec![step],
            ..Plan::default()
        });
    }
    if incomplete {
        complete(snapshot, subnet, standings)
    } else {
        None
    }
}

/// Completes a ledger that does not know every pool: all that is claimed rightly or in use enters
/// it in one write, and nothing else is decided before that. `None` where it lacks nothing.
///
/// What was decided without this ledger must not land beside it: pools that lose are fenced first.
fn complete(snapshot: &Snapshot, subnet: &Subnet, standings: &Standings<'_>) -> Option<Plan> {
    // Such a mark vouches for addresses that nobody may know of any more.
    let stale = snapshot
        .pools
        .values()
        .filter(|pool| admit::has_stale_mark(pool));
    let mut steps: Vec<Step> = stale.map(|pool| admit::revocation(pool)).collect();
    if !steps.is_empty() {
        return Some(Plan {
            steps,
            ..Plan::default()
        });
    }
    let mut edits = vec![];
    for (pool, standing) in beside(snapshot, standings) {
        let in_use = pool.records.addresses();
        let wanted = if standing.is_clear() {
            &standing.claimed
        } else {
            in_use
        };
        let ips = standing.entry.union(&wanted.difference(&standing.foreign));
        if ips != *standing.entry {
            let entry = Entry {
                ips,
                application: application(pool.owner.as_ref()),
            };
            edits.push(LedgerEdit {
                pool: pool.name.clone(),
                entry,
                needs: Needs::Nothing,
            });
        }
    }
    let losers = beside(snapshot, standings).filter(|(_, standing)| !standing.is_clear());
    let fenced = losers.filter(|(p, s)| s.admitted || !(edits.is_empty() || p.terminating));
    steps.extend(fenced.map(|(pool, _)| admit::revocation(pool)));
    if !steps.is_empty() {
        steps.push(Step::Barrier);
    }
    if !edits.is_empty() {
        steps.push(Step::Ledger {
            fence: fence_of(subnet),
            edits,
        });
    }
    (!steps.is_empty()).then(|| Plan {
        steps,
        ..Plan::default()
    })
}

fn idle(reason: &'static str, message: String) -> Plan {
    let ready = Condition {
        kind: ConditionKind::Ready,
        holds: false,
        reason,
        message,
    };
    Plan {
        subnet: vec![ready],
        ..Plan::default()
    }
}
