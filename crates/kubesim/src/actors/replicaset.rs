//! The `ReplicaSet` controller: as many Pods as are asked for.
//!
//! Owns: how many are made at once, which go first, and the status. Never does: adopt Pods that
//! have no controller. Invariants: batches of 1, 2, 4, … so that a template that is refused costs few
//! calls; the Pods that would be missed least are deleted first.

use std::cmp::Reverse;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Note, Pass, Plan, Write};
use super::pods;
use super::runner::Actor;
use super::world::{Key, Kind, World};

/// Most Pods that one pass makes or deletes.
const BURST: usize = 500;
/// Pods with a lower number go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The actor.
pub(crate) const ACTOR: Actor = Actor {
    name: "replicaset-controller",
    concerns: |_, change| change.concerns("ReplicaSet").into_iter().collect(),
    plan,
};

fn plan(world: &World, key: &Key, pass: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = world.replica_sets.get(key) else {
        return plan;
    };
    let Some(spec) = &set.spec else { return plan };
    let pods: Vec<&Pod> = world
        .pods
        .owned_by(set)
        .filter(|p| pods::active(p))
        .collect();
    let status = status(set, &pods, pass, &mut plan);
    // What was refused is told before it is tried again.
    if let Some(refused) = pass.refused {
        plan.status(set, status.clone());
        let message = format!("Error creating: {refused}");
        plan.note(Note::warning(set, "FailedCreate", message));
    }
    if set.metadata.deletion_timestamp.is_none() {
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
        if wanted > pods.len() {
            create(set, (wanted - pods.len()).min(BURST), pass, &mut plan);
        } else {
            delete(
                world,
                set,
                &pods,
                (pods.len() - wanted).min(BURST),
                pass.now,
                &mut plan,
            );
        }
    }
    if pass.refused.is_none() {
        plan.status(set, status);
    }
    plan
}

fn create(set: &ReplicaSet, missing: usize, pass: &mut Pass<'_>, plan: &mut Plan) {
    let template = set
        .spec
        .as_ref()
        .and_then(|s| s.template.clone())
        .unwrap_or_default();
    let prefix = set.metadata.name.as_deref().unwrap_or_default();
    let (mut left, mut batch) = (missing, 1);
    while left > 0 {
        let pods: Vec<Pod> = (0..left.min(batch))
            .map(|_| pods::generated(set, &template, prefix, pass.rng))
            .collect();
        left -= pods.len();
        batch *= 2;
        let told: Vec<Note> = pods.iter().map(|pod| created(set, pod)).collect();
        plan.steps.push(
            pods.into_iter()
                .map(|pod| Write::Create(pod.into()))
                .collect(),
        );
        plan.steps.push(told.into_iter().map(Write::Note).collect());
    }
}

/// The Event that every controller of Pods tells of a new one.
pub(crate) fn created<K: Kind>(owner: &K, pod: &Pod) -> Note {
    let message = format!("Created pod: {}", Key::of(pod).name);
    Note::normal(owner, "SuccessfulCreate", message)
}

/// The Event that every controller of Pods tells of one it deleted.
pub(crate) fn deleted<K: Kind>(owner: &K, pod: &Pod) -> Note {
    let message = format!("Deleted pod: {}", Key::of(pod).name);
    Note::normal(owner, "SuccessfulDelete", message)
}

fn delete(
    world: &World,
    set: &ReplicaSet,
    pods: &[&Pod],
    surplus: usize,
    now: Timestamp,
    plan: &mut Plan,
) {
    if surplus == 0 {
        return;
    }
    let mut ranked = pods.to_vec();
    ranked.sort_by_cached_key(|pod| rank(pod, neighbours(world, set, pod), now));
    ranked.truncate(surplus);
    let deletes = ranked
        .iter()
        .map(|pod| Write::Delete((*pod).clone().into()));
    plan.steps.push(deletes.collect());
    for pod in ranked {
        plan.note(deleted(set, pod));
    }
}

/// Active Pods of the same controller on this Pod's node; all sets of one Deployment count.
fn neighbours(world: &World, set: &ReplicaSet, pod: &Pod) -> usize {
    let owner = set.metadata.owner_references.iter().flatten();
    let owner = owner
        .filter(|o| o.controller == Some(true))
        .map(|o| &o.uid)
        .next();
    let Some(owner) = owner else { return 0 };
    let related = |other: &ReplicaSet| {
        let mut owners = other.metadata.owner_references.iter().flatten();
        owners.any(|o| o.controller == Some(true) && o.uid == *owner)
    };
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let sets = world.replica_sets.within(namespace).filter(|s| related(s));
    sets.flat_map(|set| world.pods.owned_by(set))
        .filter(|other| pods::active(other) && pods::node(other) == pods::node(pod))
        .count()
}

/// Least first is deleted first.
fn rank(pod: &Pod, neighbours: usize, now: Timestamp) -> impl Ord + use<> {
    let phase = match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = pod.metadata.annotations.iter().flatten();
    let cost = cost.filter(|(name, _)| *name == DELETION_COST);
    let mut cost = cost.filter_map(|(_, value)| value.parse::<i32>().ok());
    let cost = cost.next().unwrap_or_default();
    let since = |time: Option<Timestamp>| {
        // Ages are told apart by powers of two, so that no node's Pods are always the youngest.
        let age = time.map_or(0, |t| now.duration_since(t).as_secs());
        u64::try_from(age)
            .unwrap_or_default()
            .checked_ilog2()
            .map_or(0, |log| log + 1)
    };
    let ready = pods::condition(pod, "Ready").filter(|c| c.status == "True");
    let ready_since = ready
        .and_then(|c| c.last_transition_time.as_ref())
        .map(|t| t.0);
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let restarts = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    let restarts = restarts.map(|c| c.restart_count).max().unwrap_or_default();
    (
        pods::node(pod).is_some(),
        phase,
        ready.is_some(),
        cost,
        Reverse(neighbours),
        since(ready_since),
        Reverse(restarts),
        since(created),
        Reverse(pod.metadata.uid.clone()),
    )
}

fn status(set: &ReplicaSet, pods: &[&Pod], pass: &Pass<'_>, plan: &mut Plan) -> ReplicaSet {
    let spec = set.spec.clone().unwrap_or_default();
    let labels = spec
        .template
        .and_then(|t| t.metadata)
        .and_then(|m| m.labels);
    let labels = labels.unwrap_or_default();
    let fully = |pod: &&Pod| {
        let value = |name: &String| pod.metadata.labels.as_ref().and_then(|all| all.get(name));
        labels
            .iter()
            .all(|(name, wanted)| value(name) == Some(wanted))
    };
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    let (available, next) = pods::count_available(pods.iter().copied(), min_ready, pass.now);
    if let Some(next) = next {
        plan.again_in(next);
    }
    let mut set = set.clone();
    let before = set.status.clone().unwrap_or_default();
    let conditions = conditions(before.conditions.unwrap_or_default(), pass);
    // A count of zero is left out of the wire's form, but for `replicas`.
    let some = |count: i32| (count > 0).then_some(count);
    set.status = Some(ReplicaSetStatus {
        replicas: pods::count(pods, |_| true),
        fully_labeled_replicas: some(pods::count(pods, fully)),
        ready_replicas: some(pods::count(pods, |p| pods::ready(p))),
        available_replicas: some(available),
        terminating_replicas: before.terminating_replicas,
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|c| !c.is_empty()),
    });
    set
}

fn conditions(mut known: Vec<ReplicaSetCondition>, pass: &Pass<'_>) -> Vec<ReplicaSetCondition> {
    let failing = known.iter().any(|c| c.type_ == "ReplicaFailure");
    match pass.refused {
        Some(message) if !failing => known.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some("FailedCreate".into()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(pass.now)),
        }),
        Some(_) => {}
        None => known.retain(|c| c.type_ != "ReplicaFailure"),
    }
    known
}

#[cfg(test)]
mod tests;
