//! The `DaemonSet` controller: a Pod on every node that takes it.
//!
//! Owns: which nodes those are, and the walk to a new template, `maxUnavailable` at a time. Never
//! does: bind; the scheduler follows the node that the Pod's affinity names. Not modelled: `maxSurge`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::deployment::{Round, resolve};
use super::plan::{Pass, Plan, Write};
use super::replicaset::{created, deleted};
use super::revision::{self, Revisions};
use super::runner::Actor;
use super::world::{Change, Key, World};
use super::{nodes, pods};

/// The field of a node that the Pod's affinity names.
const NODE_FIELD: &str = "metadata.name";
/// Taints that never keep a daemon away, with their effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The actor.
pub(crate) const ACTOR: Actor = Actor {
    name: "daemonset-controller",
    concerns,
    plan,
};

fn concerns(world: &World, change: &Change) -> Vec<Key> {
    if change.kind == "Node" {
        return world.daemon_sets.all().map(Key::of).collect();
    }
    change.concerns("DaemonSet").into_iter().collect()
}

/// A set at one moment.
struct Seen<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    revisions: Revisions,
    /// Nodes that take a Pod, and those that keep one they have.
    wanted: BTreeMap<String, Wish>,
    /// Pods by the node they are meant for, the oldest first.
    pods: BTreeMap<String, Vec<&'a Pod>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Keep,
}

fn plan(world: &World, key: &Key, pass: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = world.daemon_sets.get(key) else {
        return plan;
    };
    let Some(spec) = &set.spec else { return plan };
    let revisions = Revisions::of(world, set, &spec.template, &mut plan);
    let mut by_node: BTreeMap<String, Vec<&Pod>> = BTreeMap::new();
    for pod in world.pods.owned_by(set) {
        by_node.entry(target(pod)).or_default().push(pod);
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
    }
    let template = tolerant(spec.template.spec.clone().unwrap_or_default());
    let wishes = world.nodes.all().filter_map(|node| {
        let name = node.metadata.name.clone()?;
        Some((name, wish(&template, node)?))
    });
    let seen = Seen {
        set,
        spec,
        revisions,
        wanted: wishes.collect(),
        pods: by_node,
    };
    if set.metadata.deletion_timestamp.is_none() {
        seen.manage(pass, &mut plan);
        if plan.steps.is_empty() {
            seen.roll(pass, &mut plan);
        }
    }
    seen.status(pass, &mut plan);
    let in_use = |revision: &_| {
        let mut pods = seen.pods.values().flatten();
        pods.any(|pod| {
            pods::label_of(&pod.metadata, revision::LABEL) == Some(revision::hash(revision))
        })
    };
    seen.revisions
        .forget(spec.revision_history_limit, in_use, &mut plan);
    plan
}

/// Whether a Pod is to be there: made, or only not sent away.
fn wish(template: &PodSpec, node: &Node) -> Option<Wish> {
    if !nodes::selected(template, node) {
        return None;
    }
    match nodes::repelled(template, node) {
        None => Some(Wish::Run),
        Some(taint) if taint.effect == "NoSchedule" => Some(Wish::Keep),
        Some(_) => None,
    }
}

fn tolerant(mut spec: PodSpec) -> PodSpec {
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED {
        if !tolerations.iter().any(|t| t.key.as_deref() == Some(key)) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(effect.to_owned()),
                ..Toleration::default()
            });
        }
    }
    spec
}

/// The node a Pod runs on or is meant for.
fn target(pod: &Pod) -> String {
    if let Some(node) = pods::node(pod) {
        return node.to_owned();
    }
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
    let required = affinity
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let terms = required.iter().flat_map(|r| &r.node_selector_terms);
    let mut fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.find(|field| field.key == NODE_FIELD);
    let values = named.and_then(|field| field.values.as_ref());
    values.and_then(|v| v.first().cloned()).unwrap_or_default()
}

impl Seen<'_> {
    fn is_updated(&self, pod: &Pod) -> bool {
        let hash = revision::hash(&self.revisions.update);
        pods::label_of(&pod.metadata, revision::LABEL) == Some(hash)
    }

    /// Makes what is missing, deletes what is too much or has failed.
    fn manage(&self, pass: &mut Pass<'_>, plan: &mut Plan) {
        let mut gone: Vec<&Pod> = Vec::new();
        for (node, pods) in &self.pods {
            let keep = usize::from(self.wanted.contains_key(node));
            let (ended, live): (Vec<&Pod>, Vec<&Pod>) =
                pods.iter().partition(|p| pods::finished(p));
            gone.extend(ended);
            gone.extend(live.into_iter().skip(keep));
        }
        let missing = self.wanted.iter().filter(|(node, wish)| {
            let there = self.pods.get(*node).is_some_and(|pods| !pods.is_empty());
            **wish == Wish::Run && !there
        });
        let made: Vec<Pod> = missing.map(|(node, _)| self.pod_for(node, pass)).collect();
        let told: Vec<_> = made.iter().map(|pod| created(self.set, pod)).collect();
        plan.steps
            .extend(made.into_iter().map(|pod| vec![Write::Create(pod.into())]));
        for note in told {
            plan.note(note);
        }
        for pod in gone.into_iter().filter(|pod| !pods::terminating(pod)) {
            plan.then(Write::Delete(pod.clone().into()));
            plan.note(deleted(self.set, pod));
        }
    }

    /// Deletes Pods of former templates: those that don't serve, then as many more as may be away.
    fn roll(&self, pass: &Pass<'_>, plan: &mut Plan) {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let one = IntOrString::Int(1);
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let limit = rolling
            .and_then(|r| r.max_unavailable.as_ref())
            .unwrap_or(&one);
        let nodes = self
            .wanted
            .values()
            .filter(|wish| **wish == Wish::Run)
            .count();
        let total = i32::try_from(nodes).unwrap_or(i32::MAX);
        let limit = resolve(limit, total, Round::Up).max(1);
        let (available, _) = pods::count_available(self.live(), self.min_ready(), pass.now);
        let mut may_go = limit - (total - available);
        let old = self.live().filter(|pod| !self.is_updated(pod));
        for pod in old {
            let (serves, _) = pods::count_available([pod], self.min_ready(), pass.now);
            if serves == 0 || may_go > 0 {
                may_go -= serves;
                plan.then(Write::Delete(pod.clone().into()));
                plan.note(deleted(self.set, pod));
            }
        }
    }

    fn live(&self) -> impl Iterator<Item = &Pod> {
        self.pods
            .values()
            .flatten()
            .copied()
            .filter(|pod| pods::active(pod))
    }

    fn min_ready(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or_default()
    }

    fn pod_for(&self, node: &str, pass: &mut Pass<'_>) -> Pod {
        let prefix = self.set.metadata.name.as_deref().unwrap_or_default();
        let mut pod = pods::generated(self.set, &self.spec.template, prefix, pass.rng);
        let hash = revision::hash(&self.revisions.update);
        pods::label(&mut pod.metadata, revision::LABEL, hash);
        let mut spec = tolerant(pod.spec.take().unwrap_or_default());
        let affinity = spec
            .affinity
            .get_or_insert_default()
            .node_affinity
            .get_or_insert_default();
        let here = NodeSelectorRequirement {
            key: NODE_FIELD.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        };
        // The node was chosen by the template's own terms: the field alone says it all.
        affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_fields: Some(vec![here]),
                ..NodeSelectorTerm::default()
            }],
        });
        pod.spec = Some(spec);
        pod
    }

    fn status(&self, pass: &Pass<'_>, plan: &mut Plan) {
        let runs = |node: &String| self.wanted.get(node) == Some(&Wish::Run);
        let on = |wanted: bool| {
            let nodes = self
                .pods
                .iter()
                .filter(move |(node, _)| runs(node) == wanted);
            nodes.filter_map(|(_, pods)| pods.iter().copied().find(|pod| pods::active(pod)))
        };
        let here: Vec<&Pod> = on(true).collect();
        let desired = pods::count(self.wanted.values(), |wish| *wish == Wish::Run);
        let live = here.iter().copied();
        let (available, next) = pods::count_available(live, self.min_ready(), pass.now);
        if let Some(next) = next {
            plan.again_in(next);
        }
        let some = |count: i32| (count > 0).then_some(count);
        let before = self.set.status.clone().unwrap_or_default();
        let mut after = self.set.clone();
        after.status = Some(DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            desired_number_scheduled: desired,
            current_number_scheduled: pods::count(&here, |_| true),
            number_misscheduled: pods::count(on(false), |_| true),
            number_ready: pods::count(&here, |pod| pods::ready(pod)),
            updated_number_scheduled: some(pods::count(&here, |pod| self.is_updated(pod))),
            number_available: some(available),
            number_unavailable: some(desired - available),
            collision_count: before.collision_count,
            conditions: before.conditions,
        });
        plan.status(self.set, after);
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read best in place")]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::super::pods::tests::owner;
    use super::super::runner::stream;
    use super::super::world::Object;
    use super::*;

    fn set(image: &str) -> DaemonSet {
        let mut set: DaemonSet = owner("ds");
        let spec = json!({"selector": {}, "template": {"spec": {
            "containers": [{"name": "main", "image": image}], "nodeSelector": {"role": "work"}}}});
        set.spec = Some(serde_json::from_value(spec).unwrap());
        set
    }

    fn node(name: &str, role: &str, taints: Value) -> Node {
        let node = json!({
            "metadata": {"name": name, "labels": {"role": role}}, "spec": {"taints": taints},
        });
        serde_json::from_value(node).unwrap()
    }

    /// Plans and carries out until nothing changes; every Pod that is made serves, and one that is
    /// deleted is gone. The most that were away at once, and the targets in the end.
    fn walk(mut world: World, seed: u64) -> (World, usize) {
        let mut rng = stream(seed, "ds");
        let mut away = 0;
        for _ in 0..20 {
            let mut pass = Pass {
                now: Timestamp::UNIX_EPOCH,
                rng: &mut rng,
                refused: None,
            };
            let plan = plan(&world, &Key::new("ns", "ds"), &mut pass);
            if plan.steps.is_empty() {
                return (world, away);
            }
            let mut gone = Vec::new();
            for write in plan.writes() {
                match write.clone() {
                    Write::Create(Object::Pod(pod)) => {
                        let mut made = super::super::pods::tests::pod(
                            world.daemon_sets.all().next().unwrap(),
                            "x",
                            "Running",
                        );
                        made.metadata = pod.metadata;
                        made.spec = pod.spec;
                        world = world.with(made);
                    }
                    Write::Create(Object::ControllerRevision(r)) => world = world.with(*r),
                    Write::ReplaceStatus(Object::DaemonSet(set)) => world = world.with(*set),
                    Write::Delete(Object::Pod(pod)) => gone.push(Key::of(pod.as_ref())),
                    _ => {}
                }
            }
            away = away.max(gone.len());
            for key in gone {
                world = world.without_pod(&key);
            }
        }
        panic!("it never ends");
    }

    fn targets(world: &World) -> Vec<String> {
        let mut all: Vec<String> = world.pods.all().map(target).collect();
        all.sort();
        all
    }

    #[test]
    fn every_node_that_takes_it_has_one_and_a_new_template_goes_node_by_node() {
        let tainted = json!([{"key": "k", "effect": "NoExecute"}]);
        let cordoned = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
        let world = World::default()
            .with(node("n1", "work", json!([])))
            .with(node("n2", "work", cordoned))
            .with(node("n3", "work", tainted))
            .with(node("n4", "rest", json!([])))
            .with(set("a"));
        let (world, _) = walk(world, 1);
        assert_eq!(targets(&world), ["n1", "n2"]);
        let before: Vec<Key> = world.pods.all().map(Key::of).collect();
        let mut edited = world.daemon_sets.all().next().unwrap().clone();
        edited.spec = set("b").spec;
        let (world, away) = walk(world.with(edited), 2);
        assert_eq!((targets(&world).len(), away), (2, 1));
        assert!(before.iter().all(|key| world.pods.get(key).is_none()));
        let status = world
            .daemon_sets
            .all()
            .next()
            .unwrap()
            .status
            .clone()
            .unwrap();
        assert_eq!(status.updated_number_scheduled, Some(2));
    }
}
