//! What conditions say of subnets and pools once a plan is carried out.
//!
//! Never does: decide. Invariant: no text names a number that changes with each Pod, so a condition
//! is not written for each Pod.

use std::collections::BTreeSet;

use super::{Condition, ConditionKind, Shortfall, Unwanted};
use crate::addr::{AddrCount, AddrSet};
use crate::name::SubnetName;
use crate::subnet::Subnet;

fn condition(
    kind: ConditionKind,
    holds: bool,
    reason: &'static str,
    message: impl Into<String>,
) -> Condition {
    let message = message.into();
    Condition {
        kind,
        holds,
        reason,
        message,
    }
}

fn no_overlap() -> Condition {
    let message = "no other pool has these addresses";
    condition(ConditionKind::Conflicting, false, "NoOverlap", message)
}

/// Conditions of a pool that is in order.
pub(super) fn in_order(reason: &'static str, message: &str) -> Vec<Condition> {
    vec![
        condition(ConditionKind::Ready, true, reason, message),
        no_overlap(),
    ]
}

/// Conditions of a pool that has all that its workload wants.
pub(super) fn sized(workload: &str) -> Vec<Condition> {
    let mut said = in_order("Sized", &format!("serves {workload}"));
    let message = "the workload has what it wants";
    said.push(condition(
        ConditionKind::Exhausted,
        false,
        "Sufficient",
        message,
    ));
    said
}

/// Conditions of a pool that lacks addresses.
pub(super) fn lacking(reason: &'static str, message: &str) -> Vec<Condition> {
    vec![
        condition(ConditionKind::Ready, false, reason, message),
        no_overlap(),
        condition(ConditionKind::Exhausted, true, reason, message),
    ]
}

/// Conditions of an auto pool that nobody asks for any more.
pub(super) fn retiring(unwanted: Unwanted) -> Vec<Condition> {
    let message =
        format!("{unwanted}: no address is given out any more, and it goes with its last Pod");
    vec![
        condition(ConditionKind::Ready, false, "Retiring", message),
        no_overlap(),
    ]
}

/// Conditions of a pool made by hand with addresses that are not its subnet's.
pub(super) fn outside(subnet: &SubnetName, outside: &AddrSet) -> Vec<Condition> {
    let message = format!(
        "SpiderSubnet {subnet} does not have {outside} (its spec.ips without its spec.excludeIPs): \
         no address is given out until they are taken out of spec.ips here or added there"
    );
    vec![
        condition(ConditionKind::Ready, false, "OutsideSubnet", message),
        no_overlap(),
    ]
}

/// Conditions of the subnet.
pub(super) fn of_subnet(subnet: &Subnet, shortfalls: &[Shortfall]) -> Vec<Condition> {
    let ready = if subnet.terminating {
        let message = "being deleted: no pool gets more addresses";
        condition(ConditionKind::Ready, false, "Terminating", message)
    } else {
        let message = "pools are carved from this subnet";
        condition(ConditionKind::Ready, true, "Serving", message)
    };
    let exhausted = match shortfalls {
        [] => {
            let message = "every workload has what it wants";
            condition(ConditionKind::Exhausted, false, "Sufficient", message)
        }
        [only] => {
            let message = only.message.clone();
            condition(ConditionKind::Exhausted, true, "SubnetExhausted", message)
        }
        [first, ..] => {
            let message = sum(subnet, first, shortfalls);
            condition(ConditionKind::Exhausted, true, "SubnetExhausted", message)
        }
    };
    vec![ready, exhausted]
}

/// What would mend all shortfalls at once.
fn sum(subnet: &Subnet, first: &Shortfall, all: &[Shortfall]) -> String {
    let workloads: BTreeSet<_> = all.iter().map(|short| &short.workload).collect();
    let missing: AddrCount = all.iter().map(|short| short.missing).sum();
    let who = match workloads.len() {
        1 => format!("{} lacks", first.workload),
        2 => format!("{} and 1 other workload lack", first.workload),
        n => format!(
            "{} and {} other workloads lack",
            first.workload,
            n.saturating_sub(1)
        ),
    };
    let remedy = if subnet.terminating {
        "it is being deleted: name another one".to_owned()
    } else {
        format!("add {} to its spec.ips", missing.in_words())
    };
    format!(
        "{who} {} of SpiderSubnet {}: {remedy}",
        missing.in_words(),
        subnet.name
    )
}
