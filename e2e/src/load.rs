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
    /// What an agent hears of Pods elsewhere; measured with the first shape.
    pub watch: Option<WatchBytes>,
}

/// The scenario: the rounds, their figures, and the verdict.
///
/// Its programs are not optimised, so its figures are rough; `e2e bench` has better ones.
pub fn run(cluster: &Cluster) -> Result<()> {
    let report = measure(cluster, Profile::Checked, &Shape::ALL)?;
    report.print();
    report.ensure_sound()
}

/// Runs every round of these shapes.
///
/// Errors: a duplicate, a call that found no answer at all, or something left over. Failed calls
/// that were repeated with success are in the report.
pub fn measure(cluster: &Cluster, profile: Profile, shapes: &[Shape]) -> Result<Report> {
    Stage::with(cluster, profile, |stage| {
        let (mut works, mut watch) = (Vec::new(), None);
        for shape in shapes {
            let (work, heard) = measure_shape(stage, *shape)?;
            works.push(work);
            watch = watch.or(heard);
        }
        Ok(Report { works, watch })
    })
}

/// The rounds of one shape; an agent without Pods listens to the first where all is in motion.
fn measure_shape(stage: &Stage<'_>, shape: Shape) -> Result<(Work, Option<WatchBytes>)> {
    let (live, watch) = match shape {
        Shape::AutoPools => {
            let mut quiet = Quiet::start(stage)?;
            let idle = quiet.idle()?;
            let round = quiet.during(|| Round::add(stage, shape, Way::Product, Clock::Live))?;
            let watch = quiet.compare(idle)?;
            (round.delete()?, Some(watch))
        }
        Shape::OnePool => (
            add_and_delete(stage, shape, Way::Product, Clock::Live)?,
            None,
        ),
    };
    let work = Work {
        shape,
        ours: add_and_delete(stage, shape, Way::Product, Clock::Bound)?,
        live,
        baseline: add_and_delete(stage, shape, Way::OneByOne, Clock::Bound)?,
    };
    Ok((work, watch))
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
        self.watch.iter().for_each(show);
    }

    /// Errors: a call of the product did not succeed at its first try, or its agents hear of Pods
    /// elsewhere.
    pub fn ensure_sound(&self) -> Result<()> {
        for Work {
            shape, ours, live, ..
        } in &self.works
        {
            for (figures, clock) in [(ours, Clock::Bound), (live, Clock::Live)] {
                let failed = figures.failed_calls + figures.failed_dels;
                ensure!(
                    failed == 0,
                    "{shape}, {clock}: {failed} calls failed at their first try, the first by: {}",
                    figures.first_failure.as_deref().unwrap_or("?"),
                );
            }
        }
        self.watch.iter().try_for_each(WatchBytes::ensure_flat)
    }
}
