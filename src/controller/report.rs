//! What users are told: conditions and counts on pools and subnets, Events on workloads and pools.
//!
//! Owns: when a thing is said again. Never does: decide; every text comes from the plan. A report
//! that can't be written is tried again by the next pass and never holds one up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ipam::addr::AddrCount;
use ipam::name::{PoolName, SubnetName, Uid, WorkloadId};
use ipam::plan::{Condition, ConditionKind, Plan, Reason, SubnetSeen};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource, ResourceExt};
use kube_runtime::events::{Event, EventType, Recorder, Reporter};

use super::apply::{Done, Writer};
use super::edit;
use super::index::Observed;
use super::workload::Seen;
use crate::api::{SpiderIPPool, SpiderSubnet, convert, names};
use crate::error::ErrorChain;
use crate::kube_io::put::{self, Part, Reply};
use crate::kube_io::time;

/// Most Events that one pass writes: a change that touches every pool must not flood the API.
const EVENTS_PER_PASS: usize = 50;

/// Most texts that are remembered as said; beyond it all are forgotten, and some are said twice.
const SAID_MAX: usize = 20_000;
/// Event reason of a workload that wants more than its subnet has.
const INSUFFICIENT: &str = "InsufficientAddresses";

/// Tells what happened.
pub struct Reports {
    recorder: Recorder,
    /// What was last said of an object under a reason, so that it is said once.
    said: Mutex<BTreeMap<(Uid, &'static str), String>>,
}

/// One thing to tell.
struct Notice {
    about: ObjectReference,
    uid: Uid,
    kind: EventType,
    reason: &'static str,
    note: String,
}

impl Reports {
    /// Reports under the name of the controller's Pod.
    pub fn new(client: Client, pod_name: Option<String>) -> Self {
        let reporter = Reporter {
            controller: "orbweaver-controller".to_owned(),
            instance: pod_name,
        };
        Self {
            recorder: Recorder::new(client, reporter),
            said: Mutex::default(),
        }
    }

    /// Conditions, counts and Events of a pass.
    pub async fn report(&self, writer: &Writer, seen: &Observed, plan: &Plan, done: &Done) {
        pool_statuses(writer, plan, done).await;
        subnet_status(writer, seen, plan, done).await;
        for twin in &seen.twins {
            let conditions = twin_conditions(seen);
            put_subnet_status(writer, twin, AddrCount::ZERO, &conditions).await;
        }
        self.forget_healed(seen, plan);
        let notices = notices(seen, plan, done);
        for notice in notices.into_iter().take(EVENTS_PER_PASS) {
            self.tell(notice).await;
        }
    }

    /// A workload whose annotations can't be used, or that names a subnet that is not there.
    pub async fn complain(&self, seen: &Seen, reason: &'static str, note: String) {
        self.tell(Notice {
            about: workload_reference(&seen.id),
            uid: seen.id.uid.clone(),
            kind: EventType::Warning,
            reason,
            note,
        })
        .await;
    }

    /// A workload that has what it wants is told again should it lack addresses once more.
    fn forget_healed(&self, seen: &Observed, plan: &Plan) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for demand in &seen.snapshot.demands {
            let uid = &demand.workload.uid;
            if !plan
                .shortfalls
                .iter()
                .any(|short| short.workload.uid == *uid)
            {
                said.remove(&(uid.clone(), INSUFFICIENT));
            }
        }
    }

    async fn tell(&self, notice: Notice) {
        let Notice {
            about,
            uid,
            kind,
            reason,
            note,
        } = notice;
        {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() >= SAID_MAX {
                said.clear();
            }
            if said.insert((uid, reason), note.clone()).as_ref() == Some(&note) {
                return;
            }
        }
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &about).await {
            tracing::warn!(because = reason, error = %ErrorChain(&error), "event not written");
        }
    }
}

async fn pool_statuses(writer: &Writer, plan: &Plan, done: &Done) {
    let now = time::to_wire(time::now());
    for (name, conditions) in &plan.pools {
        let Some(raw) = done.pools.get(name) else {
            continue;
        };
        let Ok(parsed) = convert::pool(raw) else {
            continue;
        };
        let Some(mut pool) = edit::pool_status(raw, &parsed, conditions, &now) else {
            continue;
        };
        match put::replace(&writer.client, Part::Status, &mut pool, Reply::Full).await {
            Ok(()) => writer.pools.apply_written(pool),
            // An agent was faster: its write wakes the next pass, which says it again.
            Err(error) => {
                tracing::debug!(pool = %name, error = %ErrorChain(&error), "status not written");
            }
        }
    }
}

async fn subnet_status(writer: &Writer, seen: &Observed, plan: &Plan, done: &Done) {
    let Some(raw) = &done.subnet else { return };
    let total = match &seen.snapshot.subnet {
        SubnetSeen::Readable(subnet) => subnet.total().count(),
        SubnetSeen::None | SubnetSeen::Unreadable { .. } => AddrCount::ZERO,
    };
    put_subnet_status(writer, raw, total, &plan.subnet).await;
}

async fn put_subnet_status(
    writer: &Writer,
    raw: &SpiderSubnet,
    total: AddrCount,
    conditions: &[Condition],
) {
    let now = time::to_wire(time::now());
    let Some(mut subnet) = edit::subnet_status(raw, total, conditions, &now) else {
        return;
    };
    match put::replace(&writer.client, Part::Status, &mut subnet, Reply::Full).await {
        Ok(()) => writer.subnets.apply_written(subnet),
        Err(error) => {
            tracing::debug!(subnet = %raw.name_any(), error = %ErrorChain(&error), "status not written");
        }
    }
}

/// Whether the subnet of the pass overlaps an elder one.
pub fn subnet_conflict(seen: &Observed) -> Option<Condition> {
    seen.subnet.as_ref()?;
    let elders: Vec<&str> = seen.elders.iter().map(SubnetName::as_str).collect();
    Some(if elders.is_empty() {
        Condition {
            kind: ConditionKind::Conflicting,
            holds: false,
            reason: "NoOverlap",
            message: "no elder subnet has these addresses".to_owned(),
        }
    } else {
        let message = format!(
            "spec.subnet overlaps that of the elder SpiderSubnet {}: no address of theirs is given \
             out here; give this subnet a CIDR of its own",
            elders.join(", ")
        );
        Condition {
            kind: ConditionKind::Conflicting,
            holds: true,
            reason: "Overlap",
            message,
        }
    })
}

/// What a subnet is told whose CIDR another one has.
fn twin_conditions(seen: &Observed) -> Vec<Condition> {
    let elder = seen
        .subnet
        .as_ref()
        .map(|s| s.name_any())
        .unwrap_or_default();
    let message = format!(
        "SpiderSubnet {elder} is older and has the same CIDR: this one serves nobody; delete it, and \
         add its addresses to spec.ips of {elder}"
    );
    [
        (ConditionKind::Ready, false),
        (ConditionKind::Conflicting, true),
    ]
    .map(|(kind, holds)| Condition {
        kind,
        holds,
        reason: "SameCidr",
        message: message.clone(),
    })
    .into()
}

fn notices(seen: &Observed, plan: &Plan, done: &Done) -> Vec<Notice> {
    let mut notices = vec![];
    for (name, because) in &done.wrote {
        let Some(pool) = done.pools.get(name) else {
            continue;
        };
        let Some((kind, reason)) = event_of(because) else {
            continue;
        };
        let ranges = pool.spec.ips.as_deref().unwrap_or_default().join(" ");
        let note = format!("IPPool {name} [{ranges}]: {because}");
        notices.push(Notice {
            about: pool.object_ref(&()),
            uid: Uid::new(pool.uid().unwrap_or_default()),
            kind,
            reason,
            note: note.clone(),
        });
        notices.extend(workload_of(seen, name, pool).map(|id| Notice {
            about: workload_reference(&id),
            uid: id.uid.clone(),
            kind,
            reason,
            note,
        }));
    }
    notices.extend(plan.shortfalls.iter().map(|short| Notice {
        about: workload_reference(&short.workload),
        uid: short.workload.uid.clone(),
        kind: EventType::Warning,
        reason: INSUFFICIENT,
        note: short.message.clone(),
    }));
    notices.extend(plan.pools.iter().filter_map(|(name, conditions)| {
        let pool = done.pools.get(name);
        let bad = conditions.iter().find(|c| c.reason == "Overlap");
        pool.zip(bad).map(|(pool, condition)| Notice {
            about: pool.object_ref(&()),
            uid: Uid::new(pool.uid().unwrap_or_default()),
            kind: EventType::Warning,
            reason: "Overlap",
            note: condition.message.clone(),
        })
    }));
    notices
}

fn event_of(because: &Reason) -> Option<(EventType, &'static str)> {
    let reason = match because {
        Reason::Grow { .. } => "IPPoolGrown",
        Reason::Shrink { .. } => "IPPoolShrunk",
        Reason::Retire => "IPPoolRetired",
        Reason::Admit => "IPPoolAdmitted",
        Reason::Revoke => return Some((EventType::Warning, "IPPoolRevoked")),
        Reason::Continue { .. } => "IPPoolContinued",
        Reason::WorkloadWantsPool { .. }
        | Reason::TakeBack
        | Reason::LastHolderGone
        | Reason::Protect => return None,
    };
    Some((EventType::Normal, reason))
}

/// The workload that the pool serves, if it is still there.
fn workload_of(seen: &Observed, name: &PoolName, pool: &Arc<SpiderIPPool>) -> Option<WorkloadId> {
    let known = seen
        .snapshot
        .pools
        .get(name)
        .and_then(|p| p.owner.as_ref())
        .map(|o| o.uid.clone());
    let uid = known.or_else(|| {
        pool.labels()
            .get(names::label::OWNER_UID)
            .map(|u| Uid::from(u.as_str()))
    })?;
    seen.snapshot
        .demands
        .iter()
        .find(|d| d.workload.uid == uid)
        .map(|d| d.workload.clone())
}

fn workload_reference(id: &WorkloadId) -> ObjectReference {
    let api_version = if id.group.is_empty() {
        id.version.clone()
    } else {
        format!("{}/{}", id.group, id.version)
    };
    ObjectReference {
        api_version: Some(api_version),
        kind: Some(id.kind.clone()),
        namespace: Some(id.namespace.clone()),
        name: Some(id.name.clone()),
        uid: Some(id.uid.to_string()),
        ..ObjectReference::default()
    }
}
