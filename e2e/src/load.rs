//! Load: 1,000 Pods on ten nodes that are only objects, through ten agents, and beside it the same
//! work done one address at a time; and for figures of everything else a cluster asks for, the same
//! Pods deleted, scaled, left alone, on many nodes, and some with real kubelets.
//!
//! | module | what |
//! |---|---|
//! | [`stage`] | nodes, accounts and folders that all rounds share |
//! | [`work`] | all that can be measured, by letter |
//! | [`shape`] | Deployments, and the pools their Pods have addresses from |
//! | [`fleet`] | ten agent processes, the product's or those of the baseline |
//! | [`bindings`] | which Pod the scheduler put on which node, as it happens |
//! | [`kubelets`] | calls to the agents, so many at once on each node |
//! | [`round`] | one try of one shape: up, checked, down |
//! | [`real`] | a Deployment on the cluster's real nodes: up, churned, down |
//! | [`figures`], [`section`] | what came of it, in numbers; side by side, for a person or a file |
//! | [`counter`], [`quiet`] | bytes that an agent hears of Pods elsewhere |
//!
//! The harness plays the kubelets; API server, scheduler and controllers are real. Calls to the API
//! server are taken from its audit log, never from what a client says of itself. Figures are
//! printed and judge nothing: a run fails on a failed call, a duplicate, or something left over.

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;
use crate::product::build::Profile;
use crate::progress::{say, show};

pub mod bindings;
pub mod counter;
pub mod figures;
pub mod fleet;
pub mod kubelets;
pub mod quiet;
pub mod real;
pub mod round;
pub mod section;
pub mod shape;
pub mod stage;
pub mod work;

use section::Section;
use stage::Stage;
use work::Extent;

/// Nodes, each with an agent of its own.
pub const NODES: usize = 10;
/// Calls in flight at each agent.
pub const IN_FLIGHT: usize = 20;
/// Deployments in a shape.
pub const DEPLOYMENTS: usize = 100;
/// Pods of each.
pub const REPLICAS: usize = 10;
/// Pods in all.
pub const PODS: usize = DEPLOYMENTS * REPLICAS;

/// The scenario: the rounds, their figures, and the verdict.
///
/// Its programs are full of checks, so its figures are rough; `e2e bench` has better ones.
pub fn run(cluster: &Cluster) -> Result<()> {
    Stage::with(cluster, Profile::Checked, NODES, |stage| {
        let (auto_pools, watch) = work::auto_pools(stage, Extent::Gate)?;
        let one_pool = work::one_pool(stage, Extent::Gate)?;
        let sections = [auto_pools, one_pool];
        introduce();
        sections.iter().for_each(show);
        show(watch);
        sections.iter().try_for_each(Section::ensure_sound)?;
        watch.ensure_flat()
    })
    .context("load")
}

/// Says what the figures are of.
pub fn introduce() {
    say(format_args!(
        "{PODS} Pods on {NODES} nodes that are only objects, {IN_FLIGHT} calls in flight at each \
         agent; the API server counted its own calls"
    ));
}
