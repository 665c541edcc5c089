//! Load: 1,000 Pods on ten nodes that are only objects, through ten agents, and beside it the same
//! work done one address at a time.
//!
//! | module | what |
//! |---|---|
//! | [`stage`] | nodes, accounts and folders that all rounds share |
//! | [`shape`] | the work: Deployments, and the pools their Pods have addresses from |
//! | [`fleet`] | ten agent processes, the product's or those of the baseline |
//! | [`bindings`] | which Pod the scheduler put on which node, as it happens |
//! | [`kubelets`] | calls to the agents, so many at once on each node |
//! | [`round`] | one try of one shape: up, checked, down |
//! | [`figures`] | what came of it, in numbers |
//! | [`counter`], [`quiet`] | bytes that an agent hears of Pods elsewhere |
//!
//! The harness plays the kubelets; API server, scheduler and controllers are real. Calls to the API
//! server are taken from its audit log, never from what a client says of itself. Figures are
//! printed and judge nothing: a run fails on a failed call, a duplicate, or something left over.

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::product::build::Profile;
use crate::progress::{say, show};

pub mod bindings;
pub mod counter;
pub mod figures;
pub mod fleet;
pub mod kubelets;
pub mod quiet;
pub mod round;
pub mod shape;
pub mod stage;

use figures::{Figures, Work};
use fleet::Way;
use quiet::{Quiet, WatchBytes};
use round::{Clock, Round};
use shape::Shape;
use stage::Stage;

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

/// What all rounds gave.
#[derive(Clone, Debug)]
pub struct Report {
    /// A row a shape.
    pub works: Vec<Work>,
    /// What an agent hears of Pods elsewhere.
    pub watch: WatchBytes,
}

/// The scenario: the rounds, their figures, and the verdict.
///
/// Its programs are not optimised, so its figures are rough; `e2e bench` has better ones.
pub fn run(cluster: &Cluster) -> Result<()> {
    let report = measure(cluster, Profile::Checked)?;
    report.print();
    report.ensure_sound()
}

/// Runs every round of every shape.
///
/// Errors: a duplicate, a call that found no answer at all, or something left over. Failed calls
/// that were repeated with success are in the report.
pub fn measure(cluster: &Cluster, profile: Profile) -> Result<Report> {
    Stage::with(cluster, profile, |stage| {
        let (watch, live) = measure_watch(stage)?;
        let first = measure_shape(stage, Shape::AutoPools, live)?;
        let live = add_and_delete(stage, Shape::OnePool, Way::Product, Clock::Live)?;
        let second = measure_shape(stage, Shape::OnePool, live)?;
        Ok(Report {
            works: vec![first, second],
            watch,
        })
    })
}

/// A live round of the first shape, with an agent beside it that has no Pod.
fn measure_watch(stage: &Stage<'_>) -> Result<(WatchBytes, Figures)> {
    let mut quiet = Quiet::start(stage)?;
    let idle = quiet.idle()?;
    let round = quiet.during(|| Round::add(stage, Shape::AutoPools, Way::Product, Clock::Live))?;
    let watch = quiet.compare(idle)?;
    Ok((watch, round.delete()?))
}

fn measure_shape(stage: &Stage<'_>, shape: Shape, live: Figures) -> Result<Work> {
    let bound = |way| add_and_delete(stage, shape, way, Clock::Bound);
    Ok(Work {
        shape,
        ours: bound(Way::Product)?,
        live,
        baseline: bound(Way::OneByOne)?,
    })
}

fn add_and_delete(stage: &Stage<'_>, shape: Shape, way: Way, clock: Clock) -> Result<Figures> {
    Round::add(stage, shape, way, clock)?.delete()
}

impl Report {
    /// Prints everything, for people.
    pub fn print(&self) {
        say(format_args!(
            "{PODS} Pods on {NODES} nodes that are only objects, {IN_FLIGHT} calls in flight at \
             each agent; the API server counted its own calls"
        ));
        self.works.iter().for_each(show);
        show(self.watch);
    }

    /// Errors: a call of the product did not succeed at its first try, or its agents hear of Pods
    /// elsewhere.
    pub fn ensure_sound(&self) -> Result<()> {
        for Work {
            shape, ours, live, ..
        } in &self.works
        {
            for (figures, clock) in [(ours, Clock::Bound), (live, Clock::Live)] {
                ensure!(
                    figures.failed_calls == 0,
                    "{shape}, {clock}: {} calls failed at their first try, the first by: {}",
                    figures.failed_calls,
                    figures.first_failure.as_deref().unwrap_or("?"),
                );
            }
        }
        self.watch.ensure_flat()
    }
}
