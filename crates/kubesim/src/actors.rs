//! Actors: what a cluster's own programs do, against any API server.
//!
//! Owns: the controllers of workloads, the scheduler, the node lifecycle, and nodes with a kubelet
//! each. They speak to the API server through a [`kube::Client`] like everybody else, so they run on
//! this crate's server and on a real one. Never does: anything of addresses; a node's [`Network`]
//! is its caller's.
//!
//! Each controller is a pure function from the world and a key to a `Plan`; one runner
//! carries plans out. Invariants, on a current-thread runtime with paused time: the same seed and the
//! same answers give the same calls in the same order (ordered maps, `tokio::time` only, a random
//! stream for each actor, `biased` selects); every task is in the caller's [`JoinSet`], so that
//! aborting it is a crash.
//!
//! Not modelled: adoption of objects without a controller, volume claims, preemption.

use kube::Client;
use kube::api::ApiResource;
use tokio::task::JoinSet;

mod collector;
mod cronjob;
mod daemonset;
mod deployment;
mod events;
mod job;
pub mod kubelet;
mod lifecycle;
mod nodes;
mod plan;
mod pods;
mod queue;
mod replicaset;
mod revision;
mod runner;
mod scheduler;
mod statefulset;
mod world;

pub use self::kubelet::{Kubelet, Machine, Network, NodeSettings, PodId, Sandbox, Timings};

use self::runner::Actor;
use self::world::Shared;
use crate::TokioClock;

/// Every controller, and the scheduler.
const ACTORS: [Actor; 9] = [
    deployment::ACTOR,
    replicaset::ACTOR,
    statefulset::ACTOR,
    daemonset::ACTOR,
    job::ACTOR,
    cronjob::ACTOR,
    lifecycle::ACTOR,
    collector::ACTOR,
    scheduler::ACTOR,
];

/// Starts the controllers and the scheduler: what runs beside an API server on a control plane.
///
/// The same `seed` gives the same choices.
///
/// `owned` are kinds beside workloads whose objects have owners: the garbage collector sees to them.
pub fn control_plane(
    client: &Client,
    clock: TokioClock,
    seed: u64,
    owned: &[ApiResource],
    tasks: &mut JoinSet<()>,
) {
    let world = Shared::default();
    for actor in ACTORS {
        tasks.spawn(runner::run(
            actor,
            client.clone(),
            clock,
            world.clone(),
            seed,
        ));
    }
    world.watch_all(client, tasks);
    for resource in owned {
        tasks.spawn(world.clone().watch_other(client.clone(), resource.clone()));
    }
}
