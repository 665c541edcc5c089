use k8s_openapi::api::apps::v1::{Deployment, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::super::pods::tests::{owner, pod};
use super::super::runner::stream;
use super::super::world::Object;
use super::*;

fn set(replicas: i32) -> ReplicaSet {
    let mut set: ReplicaSet = owner("web");
    set.spec = Some(ReplicaSetSpec {
        replicas: Some(replicas),
        template: Some(PodTemplateSpec::default()),
        ..ReplicaSetSpec::default()
    });
    set
}

fn planned(world: &World, refused: Option<&str>) -> Plan {
    let mut rng = stream(1, "test");
    let mut pass = Pass {
        now: Timestamp::from_second(1000).unwrap(),
        rng: &mut rng,
        refused,
    };
    plan(world, &Key::new("ns", "web"), &mut pass)
}

fn creates(step: &[Write]) -> usize {
    step.iter()
        .filter(|w| matches!(w, Write::Create(_)))
        .count()
}

fn deleted_names(plan: &Plan) -> Vec<String> {
    let names = plan.writes().into_iter().filter_map(|write| match write {
        Write::Delete(Object::Pod(pod)) => Some(Key::of(pod.as_ref()).name),
        _ => None,
    });
    names.collect()
}

#[test]
fn pods_are_made_in_batches_that_double() {
    let plan = planned(&World::default().with(set(9)), None);
    let sizes: Vec<usize> = plan
        .steps
        .iter()
        .map(|s| creates(s))
        .filter(|n| *n > 0)
        .collect();
    assert_eq!(sizes, [1, 2, 4, 2]);
}

#[test]
fn finished_and_going_pods_are_replaced() {
    let set = set(2);
    let mut going = pod(&set, "b", "Running");
    going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let failed = pod(&set, "a", "Failed");
    let world = World::default().with(failed).with(going).with(set);
    let plan = planned(&world, None);
    assert_eq!(plan.steps.iter().map(|s| creates(s)).sum::<usize>(), 2);
}

#[test]
fn the_pods_that_are_missed_least_go_first() {
    let mut set = set(1);
    let deployment: Deployment = owner("web");
    set.metadata.owner_references = Some(vec![pods::controlled_by(&deployment)]);
    let on_node = |name: &str, node: &str, phase: &str| {
        let mut pod = pod(&set, name, phase);
        pod.spec = Some(k8s_openapi::api::core::v1::PodSpec::default());
        if let Some(spec) = &mut pod.spec {
            spec.node_name = (!node.is_empty()).then(|| node.to_owned());
        }
        pod
    };
    let world = World::default()
        .with(on_node("crowded-1", "n1", "Running"))
        .with(on_node("crowded-2", "n1", "Running"))
        .with(on_node("lonely", "n2", "Running"))
        .with(on_node("pending", "n3", "Pending"))
        .with(on_node("unbound", "", "Pending"));
    let names = deleted_names(&planned(&world.with(set), None));
    assert_eq!(names[..2], ["unbound", "pending"]);
    assert!(
        names[2].starts_with("crowded") && names[3].starts_with("crowded"),
        "{names:?}"
    );
}

#[test]
fn a_refusal_stands_in_the_status_before_the_next_try() {
    let plan = planned(&World::default().with(set(1)), Some("no such thing"));
    let Some(Write::ReplaceStatus(Object::ReplicaSet(set))) = plan.writes().first().copied() else {
        panic!("{plan:?}");
    };
    let conditions = set.status.clone().unwrap().conditions.unwrap();
    assert_eq!(conditions[0].message.as_deref(), Some("no such thing"));
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    let mut set = set(1);
    let running = pod(&set, "a", "Running");
    let first = planned(
        &World::default().with(running.clone()).with(set.clone()),
        None,
    );
    let Some(Write::ReplaceStatus(Object::ReplicaSet(counted))) = first.writes().first().copied()
    else {
        panic!("{first:?}");
    };
    set = (**counted).clone();
    assert_eq!(set.status.as_ref().unwrap().ready_replicas, Some(1));
    let second = planned(&World::default().with(running).with(set), None);
    assert_eq!(second, Plan::default());
}
