//! What a pass has to tell, to whom.
//!
//! Owns: which steps and states are worth an Event. Never does: IO, or remember. Invariant: a
//! workload is told about its pools by their names, since it can have several.

use std::collections::{BTreeMap, BTreeSet};

use ipam::addr::AddrCount;
use ipam::name::{PoolName, Uid, WorkloadId};
use ipam::plan::{Condition, ConditionKind, Plan, Reason, Step, SubnetSeen};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::conditions::{ADDRESS_IN_USE, UNREADABLE, in_quarantine};
use super::events::{NOTE_MAX, Notice, Said, Severity, Telling};
use crate::api::{SpiderIPPool, names};
use crate::controller::apply::Done;
use crate::controller::index::Observed;

/// A workload wants more than its subnet has.
const INSUFFICIENT: &str = "InsufficientAddresses";
/// The API server refuses a write that the workload needs.
const WRITE_REFUSED: &str = "WriteRefused";
/// The subnet that the workload asks serves nobody until it is mended.
const SUBNET_NOT_READY: &str = "SubnetNotReady";
/// Addresses were taken back from nodes that have let go.
const ADDRESSES_RELEASED: &str = "AddressesReleased";
/// Most Events that tell which addresses of a pool were released for one reason, of the thousand that
/// a look may release.
const RELEASED_NOTES: usize = 10;
/// Room in the last of them for how many more there are.
const REST_MAX: usize = 64;
/// A pool has what is another's.
const OVERLAP: &str = "Overlap";

/// Everything that the pass has to tell. `said` are the conditions as they are reported.
pub(super) fn notices(
    seen: &Observed,
    plan: &Plan,
    done: &Done,
    said: &BTreeMap<PoolName, Vec<Condition>>,
) -> Vec<Notice> {
    let mut all = steps(seen, done);
    all.extend(plan.shortfalls.iter().map(|short| Notice {
        about: workload_reference(&short.workload),
        severity: Severity::Warning,
        telling: Telling::Once,
        reason: INSUFFICIENT,
        subject: short.pool.to_string(),
        note: short.message.clone(),
    }));
    all.extend(refusals(seen, plan, done));
    all.extend(unreadable_pools(seen));
    all.extend(conflicts(done, said));
    all.extend(idle_subnet(seen, plan));
    all
}

/// Forgets what was said and is no longer so.
pub(super) fn heal(said: &mut Said, seen: &Observed, plan: &Plan, done: &Done) {
    let here = |pool: &PoolName| seen.pools.contains_key(pool) || plan.pools.contains_key(pool);
    let idle = idle_reason(seen, plan).is_some();
    let lacking = plan.shortfalls.iter().map(|s| (&s.workload.uid, &s.pool));
    let lacking: BTreeSet<_> = lacking.collect();
    for demand in &seen.snapshot.demands {
        let uid = &demand.workload.uid;
        let short = |pool: &PoolName| lacking.contains(&(uid, pool));
        said.heal(uid, INSUFFICIENT, |pool| {
            let pool = PoolName::from(pool);
            !here(&pool) || short(&pool)
        });
        said.heal(uid, WRITE_REFUSED, |pool| {
            let pool = PoolName::from(pool);
            !here(&pool) || done.unwritten.contains_key(&pool)
        });
        said.heal(uid, SUBNET_NOT_READY, |subnet| {
            idle || Some(subnet) != subnet_name(seen).as_deref()
        });
    }
    for (name, pool) in &done.pools {
        let conflicts = plan
            .pools
            .get(name)
            .is_some_and(|all| all.iter().any(|c| c.reason == OVERLAP));
        if !seen.snapshot.unreadable.contains_key(name) {
            said.heal(&uid_of(pool), UNREADABLE, |_| false);
        }
        if !conflicts {
            said.heal(&uid_of(pool), OVERLAP, |_| false);
        }
        let parsed = seen.snapshot.pools.get(name);
        if parsed.is_some_and(|pool| in_quarantine(pool).is_none()) {
            said.heal(&uid_of(pool), ADDRESS_IN_USE, |_| false);
        }
    }
}

/// A workload whose annotations can't be used, or that names a subnet that is not there.
pub(super) fn complaint(workload: &WorkloadId, reason: &'static str, note: String) -> Notice {
    Notice {
        about: workload_reference(workload),
        severity: Severity::Warning,
        telling: Telling::Once,
        reason,
        // A workload has one complaint a time, and its text names what is wrong.
        subject: String::new(),
        note,
    }
}

/// Addresses that no Pod has any more, taken back from nodes that have let go.
/// The texts that tell which addresses were released, and `why`, each as long as an Event's may be.
/// What they have no room for is in the log: the last one says how many that are.
pub(super) fn released(why: &str, which: &[String]) -> Vec<String> {
    let begin = || format!("{why}:");
    let (mut notes, mut note) = (Vec::new(), begin());
    for (nth, one) in which.iter().enumerate() {
        let is_last = notes.len() + 1 == RELEASED_NOTES;
        let room = if is_last {
            NOTE_MAX - REST_MAX
        } else {
            NOTE_MAX
        };
        if note.len() + 1 + one.len() > room {
            if is_last {
                let rest = which.len() - nth;
                note = format!("{note} and {rest} more, which the controller's log names");
                break;
            }
            notes.push(std::mem::replace(&mut note, begin()));
        }
        note.push(' ');
        note.push_str(one);
    }
    notes.push(note);
    notes
}

pub(super) fn collected(pool: &ObjectReference, note: String) -> Notice {
    Notice {
        about: pool.clone(),
        severity: Severity::Normal,
        telling: Telling::Each,
        reason: ADDRESSES_RELEASED,
        subject: String::new(),
        note,
    }
}

fn steps(seen: &Observed, done: &Done) -> Vec<Notice> {
    let mut all = vec![];
    for (name, because) in &done.wrote {
        // A pool is retired when it is deleted; until then a condition says that it will be.
        let left = done.pools.get(name);
        let is_there = left.is_some_and(|pool| pool.metadata.deletion_timestamp.is_none());
        if is_there && matches!(because, Reason::Retire(_)) {
            continue;
        }
        // What is gone is told of as it last was.
        let pool = done.pools.get(name).or_else(|| seen.pools.get(name));
        let (Some(pool), Some((severity, reason))) = (pool, event_of(because)) else {
            continue;
        };
        let ranges = pool.spec.ips.as_deref().unwrap_or_default().join(" ");
        let note = format!("IPPool {name} {because}: [{ranges}]");
        let to = |about| Notice {
            about,
            severity,
            telling: Telling::Each,
            reason,
            subject: name.to_string(),
            note: note.clone(),
        };
        all.push(to(pool.object_ref(&())));
        all.extend(workload_of(seen, name, pool).map(|id| to(workload_reference(id))));
    }
    all
}

/// Workloads that lack something because the API server refuses a write, for good.
fn refusals(seen: &Observed, plan: &Plan, done: &Done) -> Vec<Notice> {
    let lasting = done.unwritten.iter().filter(|(_, why)| why.is_lasting());
    let told = lasting.filter_map(|(name, why)| {
        let made = plan.steps.iter().find_map(|step| match step {
            Step::Create(new) if new.name == *name => Some(&new.workload),
            _ => None,
        });
        let known = || workload_of(seen, name, seen.pools.get(name)?);
        Some(Notice {
            about: workload_reference(made.or_else(known)?),
            severity: Severity::Warning,
            telling: Telling::Once,
            reason: WRITE_REFUSED,
            subject: name.to_string(),
            note: format!("IPPool {name} is not as it should be: {}", why.message),
        })
    });
    told.collect()
}

/// A pool or subnet that can't be read.
pub(super) fn unreadable(about: ObjectReference, fault: &str) -> Notice {
    Notice {
        about,
        severity: Severity::Warning,
        telling: Telling::Once,
        reason: UNREADABLE,
        subject: String::new(),
        note: format!("left alone until it is mended: {fault}"),
    }
}

/// Workloads of a kind that an operator names get no pools.
pub(super) fn kind_not_watched(definition: ObjectReference, why: &str) -> Notice {
    Notice {
        about: definition,
        severity: Severity::Warning,
        telling: Telling::Once,
        reason: "WorkloadsNotWatched",
        subject: String::new(),
        note: format!(
            "no workload of this kind gets a pool, and pools that such have stay as they are: {why}; \
             grant the controller list and watch, or take the kind out of thirdPartyControllers"
        ),
    }
}

/// The pool with this metadata.
pub(super) fn pool_reference(meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(names::API_VERSION.to_owned()),
        kind: Some(SpiderIPPool::kind(&()).into_owned()),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Pools of the CIDR that can't be read; one that is readable again is told of anew.
fn unreadable_pools(seen: &Observed) -> impl Iterator<Item = Notice> {
    let all = seen.snapshot.unreadable.iter();
    all.filter_map(|(name, fault)| {
        let pool = seen.pools.get(name)?;
        Some(unreadable(pool.object_ref(&()), fault))
    })
}

fn conflicts(done: &Done, said: &BTreeMap<PoolName, Vec<Condition>>) -> Vec<Notice> {
    let told = said.iter().filter_map(|(name, conditions)| {
        let is_told = |c: &&Condition| [OVERLAP, ADDRESS_IN_USE].contains(&c.reason);
        let bad = conditions.iter().find(is_told)?;
        Some(Notice {
            about: done.pools.get(name)?.object_ref(&()),
            severity: Severity::Warning,
            telling: Telling::Once,
            reason: bad.reason,
            subject: name.to_string(),
            note: bad.message.clone(),
        })
    });
    told.collect()
}

/// Workloads that ask a subnet which does nothing until somebody mends it.
fn idle_subnet(seen: &Observed, plan: &Plan) -> Vec<Notice> {
    let (Some(why), Some(subnet)) = (idle_reason(seen, plan), subnet_name(seen)) else {
        return vec![];
    };
    let told = seen.snapshot.demands.iter().map(|demand| Notice {
        about: workload_reference(&demand.workload),
        severity: Severity::Warning,
        telling: Telling::Once,
        reason: SUBNET_NOT_READY,
        subject: subnet.clone(),
        note: format!("SpiderSubnet {subnet} serves nobody now: {}", why.message),
    });
    told.collect()
}

/// Why the plan does nothing for anybody; a subnet that is being deleted tells by its shortfalls.
fn idle_reason<'p>(seen: &Observed, plan: &'p Plan) -> Option<&'p Condition> {
    let terminating =
        matches!(&seen.snapshot.subnet, SubnetSeen::Readable(subnet) if subnet.terminating);
    let mut all = plan.subnet.iter();
    all.find(|c| c.kind == ConditionKind::Ready && !c.holds && !terminating)
}

fn subnet_name(seen: &Observed) -> Option<String> {
    seen.subnet.as_ref().map(|subnet| subnet.name_any())
}

fn event_of(because: &Reason) -> Option<(Severity, &'static str)> {
    let reason = match because {
        Reason::Grow { added, .. } if *added == AddrCount::ZERO => return None,
        Reason::Grow { .. } => "IPPoolGrown",
        Reason::Shrink { .. } => "IPPoolShrunk",
        Reason::Retire(_) => "IPPoolRetired",
        Reason::Admit => "IPPoolAdmitted",
        Reason::Revoke => return Some((Severity::Warning, "IPPoolRevoked")),
        Reason::Continue { .. } => "IPPoolContinued",
        Reason::Found { .. } => return Some((Severity::Warning, "PodsFound")),
        Reason::WorkloadWantsPool { .. }
        | Reason::TakeBack
        | Reason::LastHolderGone
        | Reason::Protect => return None,
    };
    Some((Severity::Normal, reason))
}

/// The workload that the pool serves, if it is still there.
fn workload_of<'s>(
    seen: &'s Observed,
    name: &PoolName,
    pool: &SpiderIPPool,
) -> Option<&'s WorkloadId> {
    let owner = seen
        .snapshot
        .pools
        .get(name)
        .and_then(|p| p.owner.as_ref())
        .map(|o| o.uid.clone());
    let label = || pool.labels().get(names::label::OWNER_UID).cloned();
    let uid = owner.or_else(|| label().map(Uid::new))?;
    let mut demands = seen.snapshot.demands.iter();
    demands.find(|d| d.workload.uid == uid).map(|d| &d.workload)
}

fn uid_of(pool: &SpiderIPPool) -> Uid {
    Uid::new(pool.uid().unwrap_or_default())
}

fn workload_reference(id: &WorkloadId) -> ObjectReference {
    ObjectReference {
        api_version: Some(id.api_version()),
        kind: Some(id.kind.clone()),
        namespace: Some(id.namespace.clone()),
        name: Some(id.name.clone()),
        uid: Some(id.uid.to_string()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ipam::affinity::Selector;
    use ipam::annotation::SizeRule;
    use ipam::demand::PodCount;
    use ipam::plan::{Demand, Shortfall, Unwanted};
    use serde_json::json;

    use super::*;
    use crate::controller::apply::Unwritten;
    use crate::kube_io::retry::Outcome;

    fn web() -> WorkloadId {
        WorkloadId {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: "web".into(),
            uid: "d".into(),
        }
    }

    fn pool() -> Arc<SpiderIPPool> {
        let pool = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "1",
                "labels": {(names::label::OWNER_UID): "d"}},
            "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.12"]}
        });
        Arc::new(serde_json::from_value(pool).unwrap())
    }

    fn world() -> (Observed, Plan, Done) {
        let (mut seen, mut done) = (Observed::default(), Done::default());
        seen.pools.insert("p".into(), pool());
        seen.snapshot.demands.push(Arc::new(Demand {
            workload: web(),
            nic: "eth0".into(),
            selector: Selector::default(),
            rule: SizeRule::Flexible(1),
            pods: PodCount::default(),
            reclaim: true,
        }));
        done.pools.clone_from(&seen.pools);
        (seen, Plan::default(), done)
    }

    fn told(seen: &Observed, plan: &Plan, done: &Done) -> Vec<(Option<String>, &'static str)> {
        let all = notices(seen, plan, done, &BTreeMap::new());
        all.into_iter().map(|n| (n.about.kind, n.reason)).collect()
    }

    fn grow(added: u128) -> Reason {
        Reason::Grow {
            added: AddrCount::new(added),
            size: AddrCount::new(3),
        }
    }

    #[test]
    fn a_pool_and_its_workload_hear_of_growth_but_not_of_growth_by_nothing() {
        let (seen, plan, mut done) = world();
        done.wrote.push(("p".into(), grow(0)));
        assert!(told(&seen, &plan, &done).is_empty());
        done.wrote.push(("p".into(), grow(3)));
        assert_eq!(
            told(&seen, &plan, &done),
            [
                (Some("SpiderIPPool".to_owned()), "IPPoolGrown"),
                (Some("Deployment".to_owned()), "IPPoolGrown")
            ]
        );
    }

    #[test]
    fn a_pool_that_is_gone_is_still_told_of() {
        let (seen, plan, mut done) = world();
        done.pools.clear();
        done.wrote
            .push(("p".into(), Reason::Retire(Unwanted::WorkloadGone)));
        assert_eq!(told(&seen, &plan, &done)[0].1, "IPPoolRetired");
    }

    #[test]
    fn a_pool_that_gives_back_what_its_last_pods_leave_is_not_yet_retired() {
        let (seen, plan, mut done) = world();
        let retire = Reason::Retire(Unwanted::WorkloadGone);
        done.wrote.push(("p".into(), retire));
        assert!(told(&seen, &plan, &done).is_empty());
        let mut deleted = serde_json::to_value(&*pool()).unwrap();
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let deleted = serde_json::from_value(deleted).unwrap();
        done.pools.insert("p".into(), Arc::new(deleted));
        assert_eq!(told(&seen, &plan, &done)[0].1, "IPPoolRetired");
    }

    #[test]
    fn only_a_lasting_refusal_is_told_to_the_workload() {
        let (seen, plan, mut done) = world();
        for (outcome, told_of) in [(Outcome::Conflict, 0), (Outcome::Fatal, 1)] {
            let message = "forbidden".to_owned();
            done.unwritten
                .insert("p".into(), Unwritten { outcome, message });
            assert_eq!(told(&seen, &plan, &done).len(), told_of);
        }
    }

    #[test]
    fn a_shortfall_is_remembered_for_its_pool_alone() {
        let (seen, mut plan, done) = world();
        plan.shortfalls.push(Shortfall {
            workload: web(),
            pool: "p".into(),
            missing: AddrCount::new(3),
            message: "3 missing".to_owned(),
        });
        let first = notices(&seen, &plan, &done, &BTreeMap::new()).remove(0);
        let mut other = first.clone();
        other.subject = "of-another-cidr".to_owned();
        let mut said = Said::default();
        assert!(said.is_news(&first) && said.is_news(&other));
        heal(&mut said, &seen, &plan, &done);
        assert!(!said.is_news(&first));
        plan.shortfalls.clear();
        heal(&mut said, &seen, &plan, &done);
        assert!(said.is_news(&first) && !said.is_news(&other));
    }

    #[test]
    fn what_was_released_is_told_in_as_many_texts_as_it_takes_and_the_rest_is_counted() {
        let which = |count: usize| -> Vec<String> {
            (0..count)
                .map(|n| {
                    format!(
                        "10.6.{}.{} (Pod shop/web-74f49bbb59-{n:05})",
                        n / 256,
                        n % 256
                    )
                })
                .collect()
        };
        assert_eq!(
            released("gone", &which(1)),
            [format!("gone: {}", which(1)[0])]
        );
        let some = released("gone", &which(100));
        assert!((2..RELEASED_NOTES).contains(&some.len()), "{}", some.len());
        let many = released("gone", &which(1_000));
        assert_eq!(many.len(), RELEASED_NOTES);
        for (notes, all) in [(some, 100), (many, 1_000)] {
            assert!(notes.iter().all(|note| note.len() <= NOTE_MAX));
            assert!(notes.iter().all(|note| note.starts_with("gone: 10.6.")));
            let told: usize = notes.iter().map(|note| note.matches("(Pod ").count()).sum();
            let named = notes.concat().replace("gone: ", " ");
            for one in which(all).iter().take(told) {
                assert!(named.contains(one.as_str()), "{one}");
            }
            let rest = format!(" and {} more, which the controller's log names", all - told);
            assert_eq!(notes.last().unwrap().ends_with(&rest), told < all);
            assert!(told == all || all == 1_000);
        }
    }
}
