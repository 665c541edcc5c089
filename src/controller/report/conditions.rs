//! What the conditions of pools and subnets say after a pass.
//!
//! The core says how things stand once its plan is carried out; this adds what it can't know: what
//! was not written, and why, and objects that it does not plan for. Never does: IO. Invariants:
//! nothing is said of a pool whose step failed that the step would have made true; what is said
//! names all three types, so that none is left over from another time.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::SecondsFormat;
use ipam::name::{PoolName, SubnetName};
use ipam::plan::{Condition, ConditionKind, Plan, Snapshot, SubnetSeen};
use ipam::pool::Pool;
use ipam::subnet::Subnet;
use kube::ResourceExt;

use crate::controller::apply::{Done, Unwritten};
use crate::controller::index::Observed;

/// The reason of an object that can't be read, in its condition and its Event.
pub(super) const UNREADABLE: &str = "Unreadable";
/// The reason of a pool with addresses that other hosts use, in its condition and its Event.
pub(super) const ADDRESS_IN_USE: &str = "AddressInUse";
/// Most objects that a text names; the others are counted.
const NAMED_MAX: usize = 3;

/// The conditions of every pool that something is known of.
pub(super) fn of_pools(
    snapshot: &Snapshot,
    plan: &Plan,
    done: &Done,
) -> BTreeMap<PoolName, Vec<Condition>> {
    let mut all = BTreeMap::new();
    for name in done.pools.keys() {
        let planned = plan.pools.get(name).cloned();
        let said = if let Some(fault) = snapshot.unreadable.get(name) {
            unreadable(fault)
        } else if let Some(pool) = snapshot.pools.get(name).filter(|pool| pool.terminating) {
            filled(vec![not_ready("Terminating", holders(pool))])
        } else {
            let disabled = snapshot.pools.get(name).is_some_and(|pool| pool.disabled);
            match (planned, done.unwritten.get(name)) {
                (planned, Some(why)) if why.is_lasting() => refused(planned, why),
                (Some(planned), None) => filled(with_switch(planned, disabled)),
                (None, _) | (_, Some(_)) => continue,
            }
        };
        let quarantined = snapshot
            .pools
            .get(name)
            .and_then(|pool| in_quarantine(pool));
        all.insert(name.clone(), with_quarantine(said, quarantined));
    }
    all
}

/// What other hosts use of the pool's addresses.
pub(super) fn in_quarantine(pool: &Pool) -> Option<String> {
    let quarantined = pool.records.iter().filter_map(|(address, record)| {
        let quarantine = record.quarantine.as_ref()?;
        let until = quarantine.until.to_rfc3339_opts(SecondsFormat::Secs, true);
        Some(format!(
            "{address} by the host at {} (until {until})",
            quarantine.mac
        ))
    });
    let all: Vec<String> = quarantined.collect();
    (!all.is_empty()).then(|| {
        format!(
            "used outside of the pool, so no Pod gets it: {}; take it from that host, or the pool",
            some_of(&all)
        )
    })
}

/// Addresses that other hosts use are a conflict, if nothing worse is.
fn with_quarantine(mut said: Vec<Condition>, quarantined: Option<String>) -> Vec<Condition> {
    let conflicting = said
        .iter_mut()
        .find(|c| c.kind == ConditionKind::Conflicting);
    if let (Some(message), Some(conflicting)) = (quarantined, conflicting.filter(|c| !c.holds)) {
        *conflicting = Condition {
            kind: ConditionKind::Conflicting,
            holds: true,
            reason: ADDRESS_IN_USE,
            message,
        };
    }
    said
}

/// The conditions of the subnet; none where nothing certain can be said.
pub(super) fn of_subnet(snapshot: &Snapshot, plan: &Plan, done: &Done) -> Vec<Condition> {
    let mut said = plan.subnet.clone();
    match &done.subnet_unwritten {
        Some(why) if why.is_lasting() => {
            said.retain(|c| c.kind == ConditionKind::Conflicting);
            said.insert(0, not_ready("LedgerNotWritten", why.message.clone()));
            return said;
        }
        Some(_) => return vec![],
        None => {}
    }
    if said.is_empty() {
        return said;
    }
    if let SubnetSeen::Readable(subnet) = &snapshot.subnet
        && subnet.terminating
        && let Some(ready) = said.iter_mut().find(|c| c.kind == ConditionKind::Ready)
    {
        ready.message.push_str(&waits_for(snapshot, subnet));
    }
    filled(said)
}

/// Whether the subnet of the pass overlaps an elder one.
pub fn subnet_conflict(seen: &Observed) -> Option<Condition> {
    seen.subnet.as_ref()?;
    let elders: Vec<&str> = seen.elders.iter().map(SubnetName::as_str).collect();
    let (holds, reason, message) = if elders.is_empty() {
        let message = "no elder subnet has these addresses".to_owned();
        (false, "NoOverlap", message)
    } else {
        let message = format!(
            "spec.subnet overlaps that of the elder SpiderSubnet {}: no address of theirs is given \
             out here; give this subnet a CIDR of its own",
            elders.join(", ")
        );
        (true, "Overlap", message)
    };
    Some(Condition {
        kind: ConditionKind::Conflicting,
        holds,
        reason,
        message,
    })
}

/// What a subnet is told whose CIDR another one has.
pub(super) fn of_twin(seen: &Observed) -> Vec<Condition> {
    let elder = seen
        .subnet
        .as_ref()
        .map(|s| s.name_any())
        .unwrap_or_default();
    let message = format!(
        "SpiderSubnet {elder} is older and has the same CIDR: this one serves nobody; delete it, and \
         add its addresses to spec.ips of {elder}"
    );
    let conflicting = Condition {
        kind: ConditionKind::Conflicting,
        holds: true,
        reason: "SameCidr",
        message: message.clone(),
    };
    filled(vec![not_ready("SameCidr", message), conflicting])
}

/// What is said of an object that can't be read.
pub(super) fn unreadable(fault: &str) -> Vec<Condition> {
    let message = format!("left alone until it is mended: {fault}");
    filled(vec![not_ready(UNREADABLE, message)])
}

fn not_ready(reason: &'static str, message: String) -> Condition {
    Condition {
        kind: ConditionKind::Ready,
        holds: false,
        reason,
        message,
    }
}

/// What of the plan is true although the API server refused a write of it.
fn refused(planned: Option<Vec<Condition>>, why: &Unwritten) -> Vec<Condition> {
    let mut said = planned.unwrap_or_default();
    said.retain(|c| c.kind == ConditionKind::Conflicting || c.holds);
    said.retain(|c| c.kind != ConditionKind::Ready);
    said.insert(0, not_ready("WriteRefused", why.message.clone()));
    said
}

/// A pool that its owner switched off is not ready, whatever else it is.
fn with_switch(mut said: Vec<Condition>, disabled: bool) -> Vec<Condition> {
    let ready = said.iter_mut().find(|c| c.kind == ConditionKind::Ready);
    if let (true, Some(ready)) = (disabled, ready.filter(|c| c.holds)) {
        let message = "spec.disable is true: no address is given out".to_owned();
        *ready = not_ready("Disabled", message);
    }
    said
}

/// `said`, with a word for each type that it leaves out.
fn filled(mut said: Vec<Condition>) -> Vec<Condition> {
    let ready = said
        .iter()
        .any(|c| c.kind == ConditionKind::Ready && c.holds);
    for kind in [ConditionKind::Exhausted, ConditionKind::Conflicting] {
        if said.iter().any(|c| c.kind == kind) {
            continue;
        }
        let (reason, message) = if ready {
            ("NotAsked", "nobody asks it for more addresses")
        } else {
            ("NotJudged", "not looked at: see condition Ready")
        };
        said.push(Condition {
            kind,
            holds: false,
            reason,
            message: message.to_owned(),
        });
    }
    said
}

/// What keeps a pool that is being deleted.
fn holders(pool: &Pool) -> String {
    let mut pods: Vec<String> = pool
        .records
        .iter()
        .map(|(_, r)| r.pod.to_string())
        .collect();
    if pods.is_empty() {
        return "being deleted: no address is in use any more".to_owned();
    }
    let used = pods.len();
    pods.sort();
    pods.dedup();
    let noun = if used == 1 { "address" } else { "addresses" };
    format!(
        "being deleted: {used} {noun} still in use by {}",
        some_of(&pods)
    )
}

/// What keeps a subnet that is being deleted.
fn waits_for(snapshot: &Snapshot, subnet: &Subnet) -> String {
    let adopted = |pool: &&Arc<Pool>| pool.is_adopted_by(subnet);
    let pools: Vec<String> = snapshot
        .pools
        .values()
        .filter(adopted)
        .map(|pool| pool.name.to_string())
        .collect();
    if pools.is_empty() {
        return String::new();
    }
    format!("; waits for IPPool {}", some_of(&pools))
}

fn some_of(names: &[String]) -> String {
    let shown = names.get(..NAMED_MAX).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{SpiderIPPool, convert};
    use crate::kube_io::retry::Outcome;
    use serde_json::json;

    fn pool(status: &serde_json::Value, deleted: bool) -> Arc<SpiderIPPool> {
        let mut meta = json!({"name": "p", "uid": "u", "resourceVersion": "1",
            "finalizers": ["spiderpool.spidernet.io"]});
        if deleted {
            meta["deletionTimestamp"] = json!("2026-11-22T17:41:24Z");
        }
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
                "metadata": meta,
                "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.12"]},
                "status": status
            }))
            .unwrap(),
        )
    }

    fn world(raw: &Arc<SpiderIPPool>) -> (Snapshot, Done) {
        let (mut snapshot, mut done) = (Snapshot::default(), Done::default());
        match convert::pool(raw) {
            Ok(pool) => drop(snapshot.pools.insert("p".into(), Arc::new(pool))),
            Err(fault) => drop(snapshot.unreadable.insert("p".into(), fault.to_string())),
        }
        done.pools.insert("p".into(), raw.clone());
        (snapshot, done)
    }

    fn sized() -> Plan {
        let ready = Condition {
            kind: ConditionKind::Ready,
            holds: true,
            reason: "Sized",
            message: "serves web".to_owned(),
        };
        let mut plan = Plan::default();
        plan.pools.insert("p".into(), vec![ready.clone()]);
        plan.subnet.push(ready);
        plan
    }

    fn short(said: &[Condition]) -> Vec<(&'static str, bool, &'static str)> {
        said.iter()
            .map(|c| (c.kind.as_str(), c.holds, c.reason))
            .collect()
    }

    fn unwritten(outcome: Outcome) -> Unwritten {
        let message = "ledger of net4 was not written: forbidden".to_owned();
        Unwritten { outcome, message }
    }

    #[test]
    fn a_pool_in_order_says_all_three_types() {
        let (snapshot, done) = world(&pool(&json!({}), false));
        let said = of_pools(&snapshot, &sized(), &done);
        assert_eq!(
            short(&said[&"p".into()]),
            [
                ("Ready", true, "Sized"),
                ("Exhausted", false, "NotAsked"),
                ("Conflicting", false, "NotAsked")
            ]
        );
    }

    #[test]
    fn what_was_refused_for_good_is_said_and_nothing_else() {
        let (snapshot, mut done) = world(&pool(&json!({}), false));
        done.unwritten.insert("p".into(), unwritten(Outcome::Fatal));
        done.subnet_unwritten = Some(unwritten(Outcome::Fatal));
        let said = of_pools(&snapshot, &sized(), &done);
        let said = &said[&"p".into()];
        assert_eq!(short(said), [("Ready", false, "WriteRefused")]);
        assert!(said[0].message.contains("forbidden"));
        let subnet = of_subnet(&snapshot, &sized(), &done);
        assert_eq!(short(&subnet), [("Ready", false, "LedgerNotWritten")]);
    }

    #[test]
    fn where_another_was_faster_the_next_pass_says_it() {
        let (snapshot, mut done) = world(&pool(&json!({}), false));
        done.unwritten
            .insert("p".into(), unwritten(Outcome::Conflict));
        done.subnet_unwritten = Some(unwritten(Outcome::Unknown));
        assert!(of_pools(&snapshot, &sized(), &done).is_empty());
        assert!(of_subnet(&snapshot, &sized(), &done).is_empty());
    }

    #[test]
    fn a_pool_that_goes_says_who_holds_it() {
        let records = r#"{"10.6.0.10":{"pod":"shop/web-0","podUid":"1"}}"#;
        let (snapshot, done) = world(&pool(&json!({"allocatedIPs": records}), true));
        let said = of_pools(&snapshot, &Plan::default(), &done);
        let ready = &said[&"p".into()][0];
        assert_eq!((ready.reason, ready.holds), ("Terminating", false));
        assert_eq!(
            ready.message,
            "being deleted: 1 address still in use by shop/web-0"
        );
    }

    #[test]
    fn a_pool_that_cannot_be_read_says_why() {
        let (snapshot, done) = world(&pool(&json!({"allocatedIPs": "{"}), false));
        let said = of_pools(&snapshot, &Plan::default(), &done);
        let ready = &said[&"p".into()][0];
        assert_eq!((ready.reason, ready.holds), ("Unreadable", false));
        assert!(ready.message.contains("allocatedIPs"), "{}", ready.message);
    }

    #[test]
    fn addresses_that_other_hosts_use_are_a_conflict_of_the_pool() {
        let records = r#"{"10.6.0.10":{"pod":"shop/web-0","podUid":"quarantined",
            "quarantine":{"mac":"02:00:00:00:00:09","until":"2026-11-22T17:41:24Z"}}}"#;
        let (snapshot, done) = world(&pool(&json!({"allocatedIPs": records}), false));
        let said = of_pools(&snapshot, &sized(), &done);
        let conflicting = &said[&"p".into()][2];
        assert_eq!(conflicting.kind, ConditionKind::Conflicting);
        assert_eq!(
            (conflicting.holds, conflicting.reason),
            (true, "AddressInUse")
        );
        assert_eq!(
            conflicting.message,
            "used outside of the pool, so no Pod gets it: 10.6.0.10 by the host at 02:00:00:00:00:09 \
             (until 2026-11-22T17:41:24Z); take it from that host, or the pool"
        );
    }

    #[test]
    fn a_pool_switched_off_is_not_ready() {
        let (mut snapshot, done) = world(&pool(&json!({}), false));
        let pool = snapshot.pools.get_mut(&"p".into()).unwrap();
        Arc::make_mut(pool).disabled = true;
        let said = of_pools(&snapshot, &sized(), &done);
        assert_eq!(said[&"p".into()][0].reason, "Disabled");
    }

    #[test]
    fn long_lists_are_counted() {
        let names: Vec<String> = (1..=5).map(|n| format!("p{n}")).collect();
        assert_eq!(some_of(&names), "p1, p2, p3 and 2 more");
        assert_eq!(some_of(&names[..2]), "p1, p2");
    }
}
