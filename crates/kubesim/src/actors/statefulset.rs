//! The `StatefulSet` controller: Pods with ordinals, one after the other.
//!
//! Owns: which ordinals there are, in which order they come and go, and the walk to a new template
//! from the last ordinal to the first. Never does: volume claims; adoption. Invariants: a name is
//! used again only when the Pod that had it is gone; with `OrderedReady` nothing is done to a Pod
//! while one before it isn't ready.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::plan::{Note, Pass, Plan, Write};
use super::pods;
use super::revision::{self, Revisions};
use super::runner::Actor;
use super::world::{Key, World};

/// The label with a Pod's own name, for services of one Pod.
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The label with its ordinal.
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The actor.
pub(crate) const ACTOR: Actor = Actor {
    name: "statefulset-controller",
    concerns: |_, change| change.concerns("StatefulSet").into_iter().collect(),
    plan,
};

/// A set at one moment.
struct Seen<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    revisions: Revisions,
    /// Name of the revision that Pods below the partition keep.
    current: String,
    /// Every Pod of the set, by ordinal.
    pods: BTreeMap<i32, &'a Pod>,
}

fn plan(world: &World, key: &Key, pass: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = world.stateful_sets.get(key) else {
        return plan;
    };
    let Some(spec) = &set.spec else { return plan };
    let revisions = Revisions::of(world, set, &spec.template, &mut plan);
    let current = set.status.as_ref().and_then(|s| s.current_revision.clone());
    let current = current.filter(|name| revisions.named(name).is_some());
    let pods = world
        .pods
        .owned_by(set)
        .filter_map(|pod| Some((ordinal(set, pod)?, pod)));
    let seen = Seen {
        set,
        spec,
        current: current.unwrap_or_else(|| revision::name(&revisions.update).to_owned()),
        pods: pods.collect(),
        revisions,
    };
    if set.metadata.deletion_timestamp.is_none() {
        seen.step(&mut plan);
    }
    seen.status(pass, &mut plan);
    let in_use = |r: &k8s_openapi::api::apps::v1::ControllerRevision| {
        let mut used = seen.pods.values().filter_map(|pod| revision_of(pod));
        revision::name(r) == seen.current || used.any(|name| name == revision::name(r))
    };
    seen.revisions
        .forget(spec.revision_history_limit, in_use, &mut plan);
    plan
}

fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let rest = name.strip_prefix(set.metadata.name.as_deref()?)?;
    rest.strip_prefix('-')?.parse().ok()
}

/// The name of the revision that the Pod is of.
fn revision_of(pod: &Pod) -> Option<&str> {
    pods::label_of(&pod.metadata, revision::LABEL)
}

/// Whether the Pod runs and serves.
fn healthy(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::ready(pod) && !pods::terminating(pod)
}

impl Seen<'_> {
    fn start(&self) -> i32 {
        self.spec
            .ordinals
            .as_ref()
            .and_then(|o| o.start)
            .unwrap_or_default()
    }

    /// The ordinals there should be.
    fn wanted(&self) -> std::ops::Range<i32> {
        let start = self.start();
        start..start + self.spec.replicas.unwrap_or(1)
    }

    fn is_parallel(&self) -> bool {
        self.spec.pod_management_policy.as_deref() == Some("Parallel")
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        revision_of(pod) == Some(revision::name(&self.revisions.update))
    }

    /// Ordinals below this keep the current revision.
    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        rolling.and_then(|r| r.partition).unwrap_or_default()
    }

    fn step(&self, plan: &mut Plan) {
        if self.make(plan) && self.condemn(plan) {
            self.update(plan);
        }
    }

    /// Makes what is missing and replaces what ended. Whether to go on.
    fn make(&self, plan: &mut Plan) -> bool {
        for ordinal in self.wanted() {
            match self.pods.get(&ordinal) {
                None => self.create(ordinal, plan),
                Some(pod) if pods::finished(pod) && !pods::terminating(pod) => {
                    self.delete(pod, plan);
                }
                Some(pod) if healthy(pod) => continue,
                Some(_) => {}
            }
            if !self.is_parallel() {
                return false;
            }
        }
        true
    }

    /// Deletes the Pods that are too many, the last first. Whether to go on.
    fn condemn(&self, plan: &mut Plan) -> bool {
        let surplus = self
            .pods
            .iter()
            .rev()
            .filter(|(at, _)| !self.wanted().contains(at));
        for (_, pod) in surplus {
            if !pods::terminating(pod) {
                self.delete(pod, plan);
            }
            if !self.is_parallel() {
                return false;
            }
        }
        true
    }

    /// Deletes the last Pod that isn't of the present template, so that it is made anew.
    fn update(&self, plan: &mut Plan) {
        let strategy = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|s| s.type_.as_deref());
        if strategy == Some("OnDelete") {
            return;
        }
        for ordinal in self.wanted().rev() {
            if ordinal < self.start() + self.partition() {
                return;
            }
            match self.pods.get(&ordinal) {
                Some(pod) if pods::terminating(pod) => return,
                Some(pod) if !self.is_updated(pod) => return self.delete(pod, plan),
                Some(pod) if healthy(pod) => {}
                Some(_) | None => return,
            }
        }
    }

    fn create(&self, ordinal: i32, plan: &mut Plan) {
        let name = format!(
            "{}-{ordinal}",
            self.set.metadata.name.as_deref().unwrap_or_default()
        );
        let keeps = ordinal < self.start() + self.partition();
        let rest = self.set.status.as_ref().and_then(|s| s.current_replicas);
        let rest = rest.unwrap_or_default();
        // Without a partition the Pods that weren't reached yet keep the current revision too.
        let unreached = self.partition() == 0 && ordinal < self.start() + rest;
        let current = self
            .revisions
            .named(&self.current)
            .filter(|_| keeps || unreached);
        let revision = current.unwrap_or(&self.revisions.update);
        let mut pod = pods::from_template(self.set, &revision::template(revision));
        pods::label(&mut pod.metadata, NAME_LABEL, &name);
        pods::label(&mut pod.metadata, INDEX_LABEL, &ordinal.to_string());
        pods::label(&mut pod.metadata, revision::LABEL, revision::name(revision));
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(name.clone());
            spec.subdomain.clone_from(&self.spec.service_name);
        }
        pod.metadata.name = Some(name.clone());
        plan.then(Write::Create(pod.into()));
        plan.note(self.told("SuccessfulCreate", "create", &name));
    }

    fn delete(&self, pod: &Pod, plan: &mut Plan) {
        plan.then(Write::Delete(pod.clone().into()));
        plan.note(self.told("SuccessfulDelete", "delete", &Key::of(pod).name));
    }

    fn told(&self, reason: &'static str, verb: &str, pod: &str) -> Note {
        let set = self.set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("{verb} Pod {pod} in StatefulSet {set} successful");
        Note::normal(self.set, reason, message)
    }

    fn status(&self, pass: &Pass<'_>, plan: &mut Plan) {
        let pods: Vec<&Pod> = self.pods.values().copied().collect();
        let update = revision::name(&self.revisions.update).to_owned();
        let min_ready = self.spec.min_ready_seconds.unwrap_or_default();
        let live = pods.iter().copied().filter(|pod| healthy(pod));
        let (available, next) = pods::count_available(live, min_ready, pass.now);
        if let Some(next) = next {
            plan.again_in(next);
        }
        let stays = |pod: &&Pod| !pods::terminating(pod);
        let of = |name: &str| {
            let of = |pod: &&Pod| stays(pod) && revision_of(pod) == Some(name);
            pods::count(&pods, of)
        };
        let replicas = pods::count(&pods, |_| true);
        let ready = pods::count(&pods, |pod| healthy(pod));
        let (mut current, updated) = (self.current.clone(), of(&update));
        let wanted = self.spec.replicas.unwrap_or(1);
        if updated == wanted && ready == wanted && replicas == wanted {
            current.clone_from(&update);
        }
        let some = |count: i32| (count > 0).then_some(count);
        let before = self.set.status.clone().unwrap_or_default();
        let mut after = self.set.clone();
        after.status = Some(StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas,
            ready_replicas: some(ready),
            available_replicas: Some(available),
            current_replicas: some(of(&current)),
            updated_replicas: some(updated),
            current_revision: Some(current),
            update_revision: Some(update),
            collision_count: before.collision_count.or(Some(0)),
            conditions: before.conditions,
        });
        plan.status(self.set, after);
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read best in place")]
mod tests;
