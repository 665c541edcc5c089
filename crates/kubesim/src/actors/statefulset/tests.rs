use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::super::pods::tests::{owner, pod};
use super::super::runner::stream;
use super::super::world::Object;
use super::*;

fn set(replicas: i32, more: serde_json::Value) -> StatefulSet {
    let mut set: StatefulSet = owner("db");
    let mut spec = json!({
        "replicas": replicas, "serviceName": "db", "selector": {},
        "template": {"spec": {"containers": []}},
    });
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    set.spec = Some(serde_json::from_value(spec).unwrap());
    set
}

/// A world with the set and its revision, and the revision's name.
fn world(set: &StatefulSet) -> (World, String) {
    let mut plan = Plan::default();
    let template = &set.spec.as_ref().unwrap().template;
    let revisions = Revisions::of(&World::default(), set, template, &mut plan);
    let name = revision::name(&revisions.update).to_owned();
    let mut set = set.clone();
    set.status
        .get_or_insert_default()
        .current_revision
        .get_or_insert(name.clone());
    (World::default().with(revisions.update).with(set), name)
}

fn member(set: &StatefulSet, ordinal: i32, phase: &str, revision: &str) -> Pod {
    let mut pod = pod(set, &format!("db-{ordinal}"), phase);
    pods::label(&mut pod.metadata, revision::LABEL, revision);
    pod
}

/// Names of the Pods that are made (`+`) and deleted (`-`).
fn changes(world: &World) -> Vec<String> {
    let mut rng = stream(1, "sts");
    let mut pass = Pass {
        now: Timestamp::UNIX_EPOCH,
        rng: &mut rng,
        refused: None,
    };
    let plan = plan(world, &Key::new("ns", "db"), &mut pass);
    let changes = plan.writes().into_iter().filter_map(|write| match write {
        Write::Create(Object::Pod(pod)) => Some(format!("+{}", Key::of(pod.as_ref()).name)),
        Write::Delete(Object::Pod(pod)) => Some(format!("-{}", Key::of(pod.as_ref()).name)),
        _ => None,
    });
    changes.collect()
}

#[test]
fn in_order_one_is_made_when_the_one_before_serves() {
    let set = set(3, json!({}));
    let (world, name) = world(&set);
    assert_eq!(changes(&world), ["+db-0"]);
    let world = world.with(member(&set, 0, "Pending", &name));
    assert_eq!(changes(&world), Vec::<String>::new());
    let world = world.with(member(&set, 0, "Running", &name));
    assert_eq!(changes(&world), ["+db-1"]);
}

#[test]
fn in_parallel_all_are_made_and_all_surplus_goes() {
    let set = set(
        2,
        json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}),
    );
    let (world, name) = world(&set);
    let world = world
        .with(member(&set, 0, "Running", &name))
        .with(member(&set, 7, "Pending", &name));
    assert_eq!(changes(&world), ["+db-5", "+db-6", "-db-7", "-db-0"]);
}

#[test]
fn surplus_goes_from_the_end_one_at_a_time() {
    let set = set(1, json!({}));
    let (world, name) = world(&set);
    let mut world = world;
    for ordinal in 0..3 {
        world = world.with(member(&set, ordinal, "Running", &name));
    }
    assert_eq!(changes(&world), ["-db-2"]);
    let mut going = member(&set, 2, "Running", &name);
    going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(changes(&world.with(going)), Vec::<String>::new());
}

#[test]
fn a_name_is_not_used_again_before_its_pod_is_gone() {
    let set = set(1, json!({"podManagementPolicy": "Parallel"}));
    let (world, name) = world(&set);
    let failed = member(&set, 0, "Failed", &name);
    assert_eq!(changes(&world.with(failed)), ["-db-0"]);
}

#[test]
fn a_new_template_goes_from_the_last_ordinal_to_the_partition() {
    let set = set(
        3,
        json!({"updateStrategy": {
        "type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}),
    );
    let (world, name) = world(&set);
    let mut world = world;
    for ordinal in 0..2 {
        world = world.with(member(&set, ordinal, "Running", "before"));
    }
    let last = world.with(member(&set, 2, "Running", "before"));
    assert_eq!(changes(&last), ["-db-2"]);
    let next = last.with(member(&set, 2, "Running", &name));
    assert_eq!(changes(&next), ["-db-1"]);
    let done = next.with(member(&set, 1, "Running", &name));
    assert_eq!(changes(&done), Vec::<String>::new());
}
