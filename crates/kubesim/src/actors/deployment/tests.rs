use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, ReplicaSetStatus};
use serde_json::{Value, json};

use super::super::pods::tests::owner;
use super::super::runner::stream;
use super::super::world::Object;
use super::*;

fn deployment(replicas: i32, image: &str, strategy: Value) -> Deployment {
    let mut deployment: Deployment = owner("web");
    let spec = json!({
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": image}]},
        },
    });
    deployment.spec = Some(serde_json::from_value(spec).unwrap());
    deployment
}

fn planned(world: &World, second: i64) -> Plan {
    let mut pass = Pass {
        now: Timestamp::from_second(second).unwrap(),
        rng: &mut stream(1, "deployment"),
        refused: None,
    };
    plan(world, &Key::new("ns", "web"), &mut pass)
}

/// Sizes that the plan gives to sets, new or not, by name.
fn sizes(plan: &Plan) -> Vec<(String, i32)> {
    let sets = plan.writes().into_iter().filter_map(|write| match write {
        Write::Create(Object::ReplicaSet(set)) | Write::Replace(Object::ReplicaSet(set)) => {
            Some((Key::of(set.as_ref()).name, size(set)))
        }
        _ => None,
    });
    sets.collect()
}

/// Applies the plan and lets every Pod that is asked for be there and serve.
fn settle(mut world: World, plan: &Plan) -> World {
    for write in plan.writes() {
        match write.clone() {
            Write::Create(Object::ReplicaSet(set)) | Write::Replace(Object::ReplicaSet(set)) => {
                let mut set = *set;
                set.metadata
                    .uid
                    .get_or_insert_with(|| format!("uid-{}", Key::of(write_name(write)).name));
                let all = size(&set);
                set.status = Some(ReplicaSetStatus {
                    replicas: all,
                    ready_replicas: Some(all),
                    available_replicas: Some(all),
                    ..ReplicaSetStatus::default()
                });
                world = world.with(set);
            }
            Write::Replace(Object::Deployment(after)) => {
                let mut known = world
                    .deployments
                    .get(&Key::of(after.as_ref()))
                    .unwrap()
                    .clone();
                known.metadata = after.metadata;
                world = world.with(known);
            }
            Write::ReplaceStatus(Object::Deployment(after)) => {
                let mut known = world
                    .deployments
                    .get(&Key::of(after.as_ref()))
                    .unwrap()
                    .clone();
                known.status = after.status;
                world = world.with(known);
            }
            _ => {}
        }
    }
    world
}

fn write_name(write: &Write) -> &ReplicaSet {
    match write {
        Write::Create(Object::ReplicaSet(set)) | Write::Replace(Object::ReplicaSet(set)) => set,
        other => panic!("{other:?}"),
    }
}

/// Plans and settles until nothing more is planned; the totals of all sets on the way.
fn walk(mut world: World) -> (World, Vec<i32>) {
    let mut totals = Vec::new();
    for second in 0..100 {
        let plan = planned(&world, second);
        if plan.steps.is_empty() {
            return (world, totals);
        }
        world = settle(world, &plan);
        totals.push(world.replica_sets.all().map(size).sum());
    }
    panic!("it never ends");
}

fn progressing(world: &World) -> DeploymentCondition {
    let deployment = world.deployments.all().next().unwrap();
    let conditions = deployment.status.clone().unwrap().conditions.unwrap();
    conditions
        .into_iter()
        .find(|c| c.type_ == "Progressing")
        .unwrap()
}

/// As a user would change the template: status and annotations stay.
fn edit(world: World, edited: Deployment) -> World {
    let mut known = world.deployments.all().next().unwrap().clone();
    known.spec = edited.spec;
    world.with(known)
}

#[test]
fn a_roll_out_stays_between_its_limits_and_ends_with_the_new_set_alone() {
    let limits = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let (world, _) = walk(World::default().with(deployment(3, "a", limits.clone())));
    let (world, totals) = walk(edit(world, deployment(3, "b", limits)));
    assert!(
        totals.iter().all(|total| (3..=4).contains(total)),
        "{totals:?}"
    );
    let sizes: Vec<i32> = world
        .replica_sets
        .all()
        .map(size)
        .filter(|s| *s > 0)
        .collect();
    assert_eq!((world.replica_sets.all().count(), sizes), (2, vec![3]));
    assert_eq!(
        progressing(&world).reason.as_deref(),
        Some("NewReplicaSetAvailable")
    );
    let revisions: Vec<i64> = world
        .replica_sets
        .all()
        .map(|s| revision(&s.metadata))
        .collect();
    assert_eq!(revisions.iter().max(), Some(&2));
}

#[test]
fn going_back_uses_the_old_set_under_a_new_number() {
    let (world, _) = walk(World::default().with(deployment(2, "a", json!({}))));
    let first = world
        .replica_sets
        .all()
        .next()
        .unwrap()
        .metadata
        .name
        .clone();
    let (world, _) = walk(edit(world, deployment(2, "b", json!({}))));
    let (world, _) = walk(edit(world, deployment(2, "a", json!({}))));
    let active = world.replica_sets.all().find(|set| size(set) > 0).unwrap();
    assert_eq!(
        (active.metadata.name.clone(), revision(&active.metadata)),
        (first, 3)
    );
}

#[test]
fn a_deployment_that_is_scaled_in_the_middle_shares_the_change() {
    let limits = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    let (world, _) = walk(World::default().with(deployment(10, "a", limits.clone())));
    let plan = planned(&edit(world, deployment(10, "b", limits.clone())), 5);
    assert_eq!(sizes(&plan).last().map(|s| s.1), Some(3));
    let (world, _) = walk(World::default().with(deployment(10, "a", limits.clone())));
    let world = edit(world, deployment(10, "b", limits.clone()));
    let plan = planned(&world, 5);
    let world = settle(world, &plan);
    let grown = planned(&edit(world, deployment(30, "b", limits)), 6);
    let total: i32 = sizes(&grown).iter().map(|s| s.1).sum();
    assert_eq!((sizes(&grown).len(), total), (2, 33), "{:?}", sizes(&grown));
}

#[test]
fn recreate_waits_until_every_old_pod_is_gone() {
    let strategy = json!({"type": "Recreate"});
    let (world, _) = walk(World::default().with(deployment(2, "a", strategy.clone())));
    let old = world.replica_sets.all().next().unwrap().clone();
    let world = edit(world, deployment(2, "b", strategy));
    let world = settle(
        world.with(super::super::pods::tests::pod(&old, "p", "Running")),
        &planned(&World::default(), 0),
    );
    let first = planned(&world, 1);
    assert_eq!(sizes(&first), [(Key::of(&old).name, 0)]);
    let waiting = planned(&settle(world, &first), 2);
    assert_eq!(sizes(&waiting), []);
}

#[test]
fn a_roll_out_that_stands_still_is_said_to_have_timed_out() {
    let mut deployment = deployment(1, "a", json!({}));
    deployment.spec.as_mut().unwrap().progress_deadline_seconds = Some(60);
    let world = World::default().with(deployment);
    let first = planned(&world, 0);
    let mut world = settle(world, &first);
    // The Pod never serves.
    let mut set = world.replica_sets.all().next().unwrap().clone();
    set.status = Some(ReplicaSetStatus {
        replicas: 1,
        ..ReplicaSetStatus::default()
    });
    world = world.with(set);
    for second in 1..10 {
        let plan = planned(&world, second);
        let stands = plan.steps.is_empty();
        for write in plan.writes() {
            if let Write::ReplaceStatus(Object::Deployment(after)) = write {
                world = world.with((**after).clone());
            }
        }
        if stands {
            break;
        }
    }
    assert_eq!(progressing(&world).status, "True");
    let late = planned(&world, 100);
    let Some(Write::ReplaceStatus(Object::Deployment(after))) = late.writes().last().copied()
    else {
        panic!("{late:?}");
    };
    let world = world.with((**after).clone());
    assert_eq!(
        progressing(&world).reason.as_deref(),
        Some("ProgressDeadlineExceeded")
    );
}

#[test]
fn a_paused_one_is_scaled_but_not_rolled() {
    let (world, _) = walk(World::default().with(deployment(2, "a", json!({}))));
    let mut paused = deployment(4, "b", json!({}));
    paused.spec.as_mut().unwrap().paused = Some(true);
    let (world, _) = walk(edit(world, paused));
    let sizes: Vec<i32> = world.replica_sets.all().map(size).collect();
    assert_eq!(sizes, [4]);
}
