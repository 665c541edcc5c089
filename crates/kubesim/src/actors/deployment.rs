//! The `Deployment` controller: a `ReplicaSet` for each template, and the walk from one to the next.
//!
//! Owns: which sets there are and how large each is. Never does: touch Pods. Invariants: one step a
//! pass (a set made, or some sets resized), the next when its effect is seen; no more Pods than
//! `replicas` + `maxSurge`, no fewer available ones than `replicas` − `maxUnavailable`.
//!
//! Where to read next: `deployment/sizes.rs` for the arithmetic, `deployment/status.rs` for what
//! `kubectl rollout status` reads.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::{Note, Pass, Plan, Write};
use super::pods;
use super::runner::Actor;
use super::world::{Change, Key, World};

mod sizes;
mod status;

pub(crate) use self::sizes::{Round, resolve};

/// The label by which the Pods of two templates are told apart.
const HASH: &str = "pod-template-hash";
/// Which roll-out a set was last.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The Deployment's size when the set was last looked at.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with `maxSurge`.
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// What `kubectl` keeps for itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Sets of former templates that are kept, where the Deployment doesn't say.
const HISTORY: i32 = 10;

/// The actor.
pub(crate) const ACTOR: Actor = Actor {
    name: "deployment-controller",
    concerns,
    plan,
};

fn concerns(world: &World, change: &Change) -> Vec<Key> {
    if change.kind == "Pod" {
        // A Pod of an old set that is gone lets `Recreate` go on.
        let set = change.concerns("ReplicaSet");
        let set = set.and_then(|set| world.replica_sets.get(&set));
        let owners = set
            .into_iter()
            .flat_map(|s| s.metadata.owner_references.iter().flatten());
        return owners
            .filter(|owner| owner.kind == "Deployment")
            .map(|owner| Key::new(&change.key.namespace, &owner.name))
            .collect();
    }
    change.concerns("Deployment").into_iter().collect()
}

/// A Deployment and its sets.
pub(crate) struct Rollout<'a> {
    deployment: &'a Deployment,
    /// The set of the present template.
    new: Option<ReplicaSet>,
    /// The others, oldest first.
    old: Vec<ReplicaSet>,
}

fn plan(world: &World, key: &Key, pass: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(deployment) = world.deployments.get(key) else {
        return plan;
    };
    let mut rollout = Rollout::of(world, deployment);
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.status(pass, &mut plan);
        return plan;
    }
    let paused = deployment
        .spec
        .as_ref()
        .and_then(|s| s.paused)
        .unwrap_or_default();
    if !paused {
        rollout.number(&mut plan);
    }
    if paused || rollout.is_resized() {
        rollout.resize(&mut plan);
    } else if rollout.recreates() {
        rollout.recreate(world, &mut plan);
    } else {
        rollout.roll(world, &mut plan);
    }
    if plan.steps.is_empty() && status::complete(&rollout) {
        rollout.forget(&mut plan);
    }
    rollout.status(pass, &mut plan);
    plan
}

/// The replicas a set is asked for.
fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status
        .and_then(|s| s.available_replicas)
        .unwrap_or_default()
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

fn annotate(meta: &mut ObjectMeta, name: &str, value: String) {
    let annotations = meta.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(name.to_owned(), value);
}

fn revision(meta: &ObjectMeta) -> i64 {
    let text = annotation(meta, REVISION);
    text.and_then(|t| t.parse().ok()).unwrap_or_default()
}

/// A template without the label that tells templates apart.
fn plain(template: Option<&PodTemplateSpec>) -> PodTemplateSpec {
    let mut template = template.cloned().unwrap_or_default();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH);
    }
    template
}

impl<'a> Rollout<'a> {
    fn of(world: &World, deployment: &'a Deployment) -> Self {
        let wanted = plain(deployment.spec.as_ref().map(|s| &s.template));
        let mut old: Vec<ReplicaSet> = world.replica_sets.owned_by(deployment).cloned().collect();
        old.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), Key::of(set)));
        let is_new =
            |set: &ReplicaSet| plain(set.spec.as_ref().and_then(|s| s.template.as_ref())) == wanted;
        // Of several equal ones the oldest, so that all passes choose the same.
        let new = old.iter().position(is_new).map(|at| old.remove(at));
        Self {
            deployment,
            new,
            old,
        }
    }

    fn wanted(&self) -> i32 {
        let spec = self.deployment.spec.as_ref();
        spec.and_then(|s| s.replicas).unwrap_or(1)
    }

    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    fn recreates(&self) -> bool {
        let strategy = self
            .deployment
            .spec
            .as_ref()
            .and_then(|s| s.strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }

    /// Gives the present set, and the Deployment, the number of this roll-out.
    fn number(&mut self, plan: &mut Plan) {
        let Some(mut new) = self.new.clone() else {
            return;
        };
        let number = self.next_revision().max(revision(&new.metadata));
        self.describe(&mut new.metadata, number);
        if self.new.as_ref() != Some(&new) {
            plan.then(Write::Replace(new.into()));
        }
        self.number_deployment(number, plan);
    }

    fn next_revision(&self) -> i64 {
        let newest = self.old.iter().map(|set| revision(&set.metadata)).max();
        newest.unwrap_or_default() + 1
    }

    fn number_deployment(&self, number: i64, plan: &mut Plan) {
        if revision(&self.deployment.metadata) != number {
            let mut deployment = self.deployment.clone();
            annotate(&mut deployment.metadata, REVISION, number.to_string());
            plan.then(Write::Replace(deployment.into()));
        }
    }

    /// The annotations of the present set.
    fn describe(&self, meta: &mut ObjectMeta, number: i64) {
        for (name, value) in self.deployment.metadata.annotations.iter().flatten() {
            if ![REVISION, DESIRED, MAXIMUM, LAST_APPLIED].contains(&name.as_str()) {
                annotate(meta, name, value.clone());
            }
        }
        annotate(meta, REVISION, number.to_string());
    }

    /// Adds the step of making a set `replicas` large, whatever its annotations say.
    fn set_size(&self, set: &ReplicaSet, replicas: i32, plan: &mut Plan) {
        let mut sized = set.clone();
        if let Some(spec) = &mut sized.spec {
            spec.replicas = Some(replicas);
        }
        annotate(&mut sized.metadata, DESIRED, self.wanted().to_string());
        annotate(
            &mut sized.metadata,
            MAXIMUM,
            (self.wanted() + self.surge()).to_string(),
        );
        if sized == *set {
            return;
        }
        plan.then(Write::Replace(sized.into()));
        let before = size(set);
        if before != replicas {
            plan.note(self.scaled(&Key::of(set).name, before, replicas));
        }
    }

    fn scaled(&self, set: &str, before: i32, now: i32) -> Note {
        let way = if before < now { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {set} from {before} to {now}");
        Note::normal(self.deployment, "ScalingReplicaSet", message)
    }

    /// Goes on to the present template a few Pods at a time.
    fn roll(&mut self, world: &World, plan: &mut Plan) {
        let Some(new) = &self.new else {
            return self.make(world, plan);
        };
        let wanted = sizes::of_new(self, size(new));
        if wanted != size(new) || annotation(&new.metadata, DESIRED).is_none() {
            return self.set_size(new, wanted, plan);
        }
        for (set, replicas) in sizes::of_old(self, size(new), available(new)) {
            self.set_size(&set, replicas, plan);
        }
    }

    /// Goes on to the present template once every Pod of the others is gone.
    fn recreate(&mut self, world: &World, plan: &mut Plan) {
        for set in self.old.iter().filter(|set| size(set) > 0) {
            self.set_size(set, 0, plan);
        }
        let running = |set: &ReplicaSet| {
            let mut pods = world.pods.owned_by(set);
            pods.any(|pod: &Pod| !pods::finished(pod))
        };
        if !plan.steps.is_empty() || self.old.iter().any(running) {
            return;
        }
        match &self.new {
            None => self.make(world, plan),
            Some(new) if size(new) != self.wanted() => self.set_size(new, self.wanted(), plan),
            Some(_) => {}
        }
    }

    /// Makes the set of the present template.
    fn make(&mut self, world: &World, plan: &mut Plan) {
        let Some(spec) = &self.deployment.spec else {
            return;
        };
        let bytes = serde_json::to_vec(&spec.template).unwrap_or_default();
        let known = self
            .deployment
            .status
            .as_ref()
            .and_then(|s| s.collision_count);
        let namespace = self
            .deployment
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default();
        let name = self.deployment.metadata.name.as_deref().unwrap_or_default();
        // A name that is taken is another template's, or a stranger's.
        let free = (known.unwrap_or_default()..i32::MAX)
            .map(|collisions| pods::hash(&bytes, collisions))
            .map(|hash| (format!("{name}-{hash}"), hash))
            .find(|(name, _)| world.replica_sets.get(&Key::new(namespace, name)).is_none());
        let Some((name, hash)) = free else { return };
        let mut template = spec.template.clone();
        let meta = template.metadata.get_or_insert_with(ObjectMeta::default);
        pods::label(meta, HASH, &hash);
        let labels = meta.labels.clone();
        let mut selector = spec.selector.clone();
        let matched = selector.match_labels.get_or_insert_with(BTreeMap::new);
        matched.insert(HASH.to_owned(), hash);
        let number = self.next_revision();
        let replicas = if self.recreates() {
            self.wanted()
        } else {
            sizes::of_new(self, 0)
        };
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: self.deployment.metadata.namespace.clone(),
                labels,
                owner_references: Some(vec![pods::controlled_by(self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        self.describe(&mut set.metadata, number);
        annotate(&mut set.metadata, DESIRED, self.wanted().to_string());
        annotate(
            &mut set.metadata,
            MAXIMUM,
            (self.wanted() + self.surge()).to_string(),
        );
        plan.then(Write::Create(set.into()));
        self.number_deployment(number, plan);
        if replicas > 0 {
            plan.note(self.scaled(&name, 0, replicas));
        }
    }

    /// Whether the Deployment's size changed since its sets were last sized.
    fn is_resized(&self) -> bool {
        let active = self.all().filter(|set| size(set) > 0);
        active
            .filter_map(|set| annotation(&set.metadata, DESIRED))
            .any(|desired| desired.parse() != Ok(self.wanted()))
    }

    /// Sizes the sets for a Deployment whose size changed, each by its share.
    fn resize(&self, plan: &mut Plan) {
        for (set, replicas) in sizes::shares(self) {
            self.set_size(&set, replicas, plan);
        }
    }

    /// Deletes the oldest of the sets that nobody needs any more.
    fn forget(&self, plan: &mut Plan) {
        let limit = self
            .deployment
            .spec
            .as_ref()
            .and_then(|s| s.revision_history_limit);
        let limit = usize::try_from(limit.unwrap_or(HISTORY)).unwrap_or_default();
        let idle = |set: &&ReplicaSet| {
            let pods = set.status.as_ref().map_or(0, |s| s.replicas);
            size(set) == 0 && pods == 0 && set.metadata.deletion_timestamp.is_none()
        };
        let idle: Vec<&ReplicaSet> = self.old.iter().filter(idle).collect();
        let surplus = idle.len().saturating_sub(limit);
        for set in idle.into_iter().take(surplus) {
            plan.then(Write::Delete(set.clone().into()));
        }
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read best in place")]
mod tests;
