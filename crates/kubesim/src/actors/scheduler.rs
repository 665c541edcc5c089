//! The scheduler: a node for every Pod that has none.
//!
//! Owns: the choice of the node, and the word that there is none. Never does: move a Pod, or make
//! room for one. Pods of one controller are spread: the node with the fewest of them is taken, then
//! the one with the fewest Pods at all, then one by chance.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::Rng;

use super::plan::{Note, Pass, Plan, Write};
use super::runner::Actor;
use super::world::{Change, Key, World};
use super::{nodes, pods};

/// The name that Pods without one ask for.
const NAME: &str = "default-scheduler";
/// Pods that fit on a node which doesn't say.
const PODS: usize = 110;

/// The actor.
pub(crate) const ACTOR: Actor = Actor {
    name: NAME,
    concerns,
    plan,
};

fn concerns(world: &World, change: &Change) -> Vec<Key> {
    match change.kind.as_str() {
        "Pod" if world.pods.get(&change.key).is_some_and(is_ours) => vec![change.key.clone()],
        // A Pod that is gone makes room for any other.
        "Pod" if world.pods.get(&change.key).is_some_and(pods::active) => Vec::new(),
        "Pod" | "Node" => world
            .pods
            .all()
            .filter(|p| is_ours(p))
            .map(Key::of)
            .collect(),
        _ => Vec::new(),
    }
}

fn is_ours(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
    pods::node(pod).is_none() && pods::active(pod) && scheduler.is_none_or(|name| name == NAME)
}

fn plan(world: &World, key: &Key, pass: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = world.pods.get(key).filter(|pod| is_ours(pod)) else {
        return plan;
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut fit: Vec<&str> = Vec::new();
    for node in world.nodes.all() {
        match misfit(world, &spec, node) {
            Some(reason) => *reasons.entry(reason).or_default() += 1,
            None => fit.extend(node.metadata.name.as_deref()),
        }
    }
    // Chance last: the same draw for equal nodes must not depend on how many there are.
    let chance: u64 = pass.rng.random();
    let best = fit.iter().enumerate().min_by_key(|(at, name)| {
        let (same, all) = load(world, pod, name);
        (
            same,
            all,
            chance.rotate_left(u32::try_from(*at).unwrap_or_default()),
        )
    });
    match best {
        Some((_, node)) => {
            plan.then(Write::Bind {
                pod: key.clone(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                node: (*node).to_owned(),
            });
            let message = format!("Successfully assigned {key} to {node}");
            plan.note(Note::normal(pod, "Scheduled", message));
        }
        None => refuse(pod, &reasons, world.nodes.all().count(), pass, &mut plan),
    }
    plan
}

/// Why the Pod can't run on the node.
fn misfit(world: &World, spec: &PodSpec, node: &Node) -> Option<String> {
    if let Some(taint) = nodes::repelled(spec, node) {
        let value = taint.value.unwrap_or_default();
        return Some(format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        ));
    }
    if !nodes::selected(spec, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    let room = allocatable
        .and_then(|a| a.get("pods"))
        .and_then(|q| q.0.parse().ok());
    let name = node.metadata.name.as_deref();
    let here = world
        .pods
        .all()
        .filter(|pod| pods::node(pod) == name && !pods::finished(pod));
    (here.count() >= room.unwrap_or(PODS)).then(|| "Too many pods".to_owned())
}

/// Pods on the node: of the same controller, and all.
fn load(world: &World, pod: &Pod, node: &str) -> (usize, usize) {
    let owner = |pod: &Pod| {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        owners
            .find(|o| o.controller == Some(true))
            .map(|o| o.uid.clone())
    };
    let ours = owner(pod);
    let here = world
        .pods
        .all()
        .filter(|p| pods::node(p) == Some(node) && !pods::finished(p));
    here.fold((0, 0), |(same, all), other| {
        let is_same = ours.is_some() && owner(other) == ours;
        (same + usize::from(is_same), all + 1)
    })
}

fn refuse(
    pod: &Pod,
    reasons: &BTreeMap<String, usize>,
    count: usize,
    pass: &Pass<'_>,
    plan: &mut Plan,
) {
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(why, n)| format!("{n} {why}"))
        .collect();
    let message = if count == 0 {
        "no nodes available to schedule pods".to_owned()
    } else {
        format!("0/{count} nodes are available: {}.", reasons.join(", "))
    };
    let known = pods::condition(pod, "PodScheduled");
    if known.is_some_and(|c| c.status == "False" && c.message.as_ref() == Some(&message)) {
        return;
    }
    let since = known
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time.clone());
    let mut told = pod.clone();
    let status = told.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(message.clone()),
        last_transition_time: since.or(Some(Time(pass.now))),
        ..PodCondition::default()
    });
    plan.then(Write::ReplaceStatus(told.into()));
    plan.note(Note::warning(pod, "FailedScheduling", message));
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read best in place")]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::{Value, json};

    use super::super::pods::tests::{owner, pod};
    use super::super::runner::stream;
    use super::super::world::Object;
    use super::*;

    fn node(name: &str, spec: Value) -> Node {
        let node = json!({"metadata": {"name": name}, "spec": spec});
        serde_json::from_value(node).unwrap()
    }

    fn planned(world: &World, name: &str) -> Plan {
        let mut pass = Pass {
            now: Timestamp::UNIX_EPOCH,
            rng: &mut stream(7, "scheduler"),
            refused: None,
        };
        plan(world, &Key::new("ns", name), &mut pass)
    }

    fn on(name: &str, node: Option<&str>) -> Pod {
        let mut pod = pod(&owner::<ReplicaSet>("web"), name, "Pending");
        pod.spec.get_or_insert_default().node_name = node.map(str::to_owned);
        pod
    }

    #[test]
    fn pods_of_a_controller_are_spread() {
        let world = World::default()
            .with(node("n1", json!({})))
            .with(node("n2", json!({})))
            .with(on("a", Some("n1")))
            .with(on("b", None));
        let plan = planned(&world, "b");
        let Some(Write::Bind { node, .. }) = plan.writes().first().copied() else {
            panic!("{plan:?}");
        };
        assert_eq!(node, "n2");
    }

    #[test]
    fn a_pod_that_fits_nowhere_is_told_why_once() {
        let taint = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        let world = World::default().with(node("n1", taint)).with(on("b", None));
        let plan = planned(&world, "b");
        let Some(Write::ReplaceStatus(Object::Pod(told))) = plan.writes().first().copied() else {
            panic!("{plan:?}");
        };
        let message = "0/1 nodes are available: 1 node(s) had untolerated taint {k: }.";
        let condition = pods::condition(told, "PodScheduled").unwrap();
        assert_eq!(condition.message.as_deref(), Some(message));
        let again = planned(&world.with((**told).clone()), "b");
        assert_eq!(again, Plan::default());
    }

    #[test]
    fn a_bound_pod_is_left_alone() {
        let world = World::default()
            .with(node("n1", json!({})))
            .with(on("a", Some("n1")));
        assert_eq!(planned(&world, "a"), Plan::default());
    }
}
