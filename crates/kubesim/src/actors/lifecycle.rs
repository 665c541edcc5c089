//! The node lifecycle controller: what becomes of a node that is silent.
//!
//! Owns: the word that a node's state is unknown, its taints, and the eviction of Pods that don't
//! bear them. Never does: delete a node, or a Pod by force: one that is evicted stays until its
//! kubelet is back, as on a real cluster.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::kubelet::LEASES;
use super::plan::{Note, Pass, Plan, Write};
use super::runner::Actor;
use super::world::{Change, Key, World};
use super::{nodes, pods};

/// A node that neither renewed its lease nor said how it is for this long is silent.
const GRACE: Duration = Duration::from_secs(40);
/// How long a Pod that says nothing bears a silent node: what admission writes into every Pod.
const BORNE: Duration = Duration::from_secs(300);
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The actor.
pub(crate) const ACTOR: Actor = Actor {
    name: "node-controller",
    concerns,
    plan,
};

fn concerns(world: &World, change: &Change) -> Vec<Key> {
    match change.kind.as_str() {
        "Node" => vec![change.key.clone()],
        "Lease" if change.key.namespace == LEASES => vec![Key::new("", &change.key.name)],
        "Pod" => {
            let node = world.pods.get(&change.key).and_then(pods::node);
            node.map(|node| Key::new("", node)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn plan(world: &World, key: &Key, pass: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = world.nodes.get(key) else {
        return plan;
    };
    let mut after = node.clone();
    match silence(world, node, pass.now) {
        Some(Duration::ZERO) if silent(&mut after, pass.now) => {
            plan.then(Write::ReplaceStatus(after.into()));
            let message = format!("Node {} status is now: NodeNotReady", key.name);
            plan.note(Note::normal(node, "NodeNotReady", message));
            unready_pods(world, key, pass.now, &mut plan);
            return plan; // the taints follow from the condition, at the next look
        }
        Some(Duration::ZERO) | None => {}
        Some(left) => plan.again_in(left),
    }
    taint(&mut after, pass.now);
    if after != *node {
        plan.then(Write::Replace(after.into()));
        return plan;
    }
    evict(world, node, pass.now, &mut plan);
    plan
}

/// What is left until the node counts as silent; `None` before its first sign of life.
fn silence(world: &World, node: &Node, now: Timestamp) -> Option<Duration> {
    let lease = world
        .leases
        .get(&Key::new(LEASES, node.metadata.name.as_deref()?));
    let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref());
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let said = conditions.filter_map(|c| c.last_heartbeat_time.as_ref());
    let signs = said.map(|t| t.0).chain(renewed.map(|t| t.0));
    let made = node.metadata.creation_timestamp.as_ref();
    let since = signs.max().or_else(|| made.map(|t| t.0))?;
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(GRACE.saturating_sub(passed))
}

/// Says that nothing is known of the node any more. Whether that is news.
fn silent(node: &mut Node, now: Timestamp) -> bool {
    let conditions = node
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let mut news = false;
    for condition in conditions.iter_mut().filter(|c| c.status != "Unknown") {
        news = true;
        "Unknown".clone_into(&mut condition.status);
        condition.reason = Some("NodeStatusUnknown".to_owned());
        condition.message = Some("Kubelet stopped posting node status.".to_owned());
        condition.last_transition_time = Some(Time(now));
    }
    news
}

/// The Pods of a silent node don't serve, as far as anybody knows.
fn unready_pods(world: &World, node: &Key, now: Timestamp, plan: &mut Plan) {
    for pod in world
        .pods
        .all()
        .filter(|pod| pods::node(pod) == Some(&node.name))
    {
        let mut after = pod.clone();
        let conditions = after
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        for ready in conditions
            .iter_mut()
            .filter(|c| c.type_ == "Ready" && c.status == "True")
        {
            "False".clone_into(&mut ready.status);
            ready.last_transition_time = Some(Time(now));
        }
        if after != *pod {
            plan.then(Write::ReplaceStatus(after.into()));
        }
    }
}

/// Gives the node the taints that its condition asks for, and takes the others away.
fn taint(node: &mut Node, now: Timestamp) {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions
        .filter(|c| c.type_ == "Ready")
        .map(|c| c.status.as_str())
        .next();
    let wanted = match ready {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let ours = |taint: &Taint| matches!(taint.key.as_str(), UNREACHABLE | NOT_READY);
    let mut taints = node
        .spec
        .clone()
        .unwrap_or_default()
        .taints
        .unwrap_or_default();
    taints.retain(|taint| !ours(taint) || Some(taint.key.as_str()) == wanted);
    for (key, effect) in wanted
        .iter()
        .flat_map(|key| [(key, "NoSchedule"), (key, "NoExecute")])
    {
        if !taints.iter().any(|t| t.key == **key && t.effect == effect) {
            let mut taint = nodes::taint(key, effect);
            taint.time_added = Some(Time(now));
            taints.push(taint);
        }
    }
    if node
        .spec
        .clone()
        .unwrap_or_default()
        .taints
        .unwrap_or_default()
        != taints
    {
        node.spec.get_or_insert_default().taints = Some(taints).filter(|all| !all.is_empty());
    }
}

/// Deletes the Pods whose patience with the node's taints is over.
fn evict(world: &World, node: &Node, now: Timestamp, plan: &mut Plan) {
    let taints = nodes::taints(node);
    let here = world
        .pods
        .all()
        .filter(|pod| pods::node(pod) == node.metadata.name.as_deref());
    for pod in here.filter(|pod| !pods::terminating(pod)) {
        let patience = taints
            .iter()
            .filter(|taint| taint.effect == "NoExecute")
            .filter_map(|taint| left(pod, taint, now));
        match patience.min() {
            Some(Duration::ZERO) => {
                plan.then(Write::Delete(pod.clone().into()));
                let message = format!("Marking for deletion Pod {}", Key::of(pod));
                plan.note(Note::normal(pod, "TaintManagerEviction", message));
            }
            Some(left) => plan.again_in(left),
            None => {}
        }
    }
}

/// How long the Pod still bears the taint; `None` for ever.
fn left(pod: &Pod, taint: &Taint, now: Timestamp) -> Option<Duration> {
    let tolerations = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten());
    let borne = match nodes::toleration(tolerations, taint) {
        Some(toleration) => {
            let seconds = toleration.toleration_seconds?;
            Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        }
        None if matches!(taint.key.as_str(), UNREACHABLE | NOT_READY) => BORNE,
        None => Duration::ZERO,
    };
    let since = taint.time_added.as_ref().map_or(now, |t| t.0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(borne.saturating_sub(passed))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::coordination::v1::Lease;
    use serde_json::json;

    use super::super::pods::tests::{owner, pod};
    use super::super::runner::stream;
    use super::super::world::Object;
    use super::*;

    fn world() -> World {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        let lease: Lease = serde_json::from_value(json!({
            "metadata": {"name": "n1", "namespace": LEASES},
            "spec": {"renewTime": "1970-01-01T00:00:00.000000Z"},
        }))
        .unwrap();
        let mut pod = pod(&owner::<ReplicaSet>("web"), "p", "Running");
        pod.spec.get_or_insert_default().node_name = Some("n1".into());
        World::default().with(node).with(lease).with(pod)
    }

    fn planned(world: &World, second: i64) -> Plan {
        let mut pass = Pass {
            now: Timestamp::from_second(second).unwrap(),
            rng: &mut stream(1, "node"),
            refused: None,
        };
        plan(world, &Key::new("", "n1"), &mut pass)
    }

    fn carried_out(mut world: World, plan: &Plan) -> World {
        for write in plan.writes() {
            world = match write.clone() {
                Write::Replace(Object::Node(node)) | Write::ReplaceStatus(Object::Node(node)) => {
                    world.with(*node)
                }
                Write::ReplaceStatus(Object::Pod(pod)) => world.with(*pod),
                _ => world,
            };
        }
        world
    }

    #[test]
    fn a_node_that_says_nothing_is_tainted_and_its_pods_go_after_their_time() {
        let world = world();
        let calm = planned(&world, 10);
        assert_eq!(
            (calm.writes().len(), calm.again),
            (0, Some(Duration::from_secs(30)))
        );
        let plan = planned(&world, 40);
        let world = carried_out(world, &plan);
        assert!(!world.pods.all().any(pods::ready));
        let plan = planned(&world, 41);
        let world = carried_out(world, &plan);
        let node = world.nodes.all().next().unwrap();
        let effects: Vec<String> = nodes::taints(node).into_iter().map(|t| t.effect).collect();
        assert_eq!(effects, ["NoSchedule", "NoExecute"]);
        assert_eq!(planned(&world, 42).writes().len(), 0);
        let gone = planned(&world, 341);
        assert!(matches!(gone.writes()[0], Write::Delete(Object::Pod(_))));
    }

    #[test]
    fn a_node_that_is_back_is_not_silent_before_its_lease_is_renewed() {
        let mut world = world();
        let mut node = world.nodes.all().next().unwrap().clone();
        let heartbeat = Time(Timestamp::from_second(50).unwrap());
        for condition in node
            .status
            .get_or_insert_default()
            .conditions
            .iter_mut()
            .flatten()
        {
            condition.last_heartbeat_time = Some(heartbeat.clone());
        }
        world = world.with(node);
        let calm = planned(&world, 60);
        assert_eq!(
            (calm.writes().len(), calm.again),
            (0, Some(Duration::from_secs(30)))
        );
    }

    #[test]
    fn a_node_that_is_back_loses_its_taints() {
        let mut world = world();
        let mut node = world.nodes.all().next().unwrap().clone();
        node.spec.get_or_insert_default().taints =
            Some(vec![nodes::taint(UNREACHABLE, "NoExecute")]);
        world = world.with(node);
        let plan = planned(&world, 1);
        let world = carried_out(world, &plan);
        assert_eq!(nodes::taints(world.nodes.all().next().unwrap()), []);
    }
}
