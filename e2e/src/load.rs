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
use round::{Clock, Round, Trouble};
use shape::Shape;
use stage::{Ceiling, Stage};

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

/// How much is done of each shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What the product can fail at, in minutes: of the shape with one pool only the harder round,
    /// and no baseline, which takes longer there than everything else together.
    Gate,
    /// All of it.
    Full,
}

/// What all rounds gave.
#[derive(Clone, Debug)]
pub struct Report {
    /// A row a shape.
    pub works: Vec<Work>,
    /// What the machine can do at most; if that was measured.
    pub ceiling: Option<Ceiling>,
    /// What an agent hears of Pods elsewhere; measured with the first shape.
    pub watch: Option<WatchBytes>,
}

/// The scenario: the rounds, their figures, and the verdict.
///
/// Its programs are full of checks, so its figures are rough; `e2e bench` has better ones.
pub fn run(cluster: &Cluster) -> Result<()> {
    let report = measure(cluster, Profile::Checked, &Shape::ALL, Extent::Gate)?;
    report.print();
    report.ensure_sound()
}

/// Runs every round of these shapes.
///
/// Errors: a duplicate, a call that found no answer at all, or something left over. Failed calls
/// that were repeated with success are in the report.
pub fn measure(
    cluster: &Cluster,
    profile: Profile,
    shapes: &[Shape],
    extent: Extent,
) -> Result<Report> {
    Stage::with(cluster, profile, |stage| {
        let ceiling = (extent == Extent::Full).then(|| stage.ceiling());
        let (mut works, mut watch) = (Vec::new(), None);
        for shape in shapes {
            let (work, heard) = measure_shape(stage, *shape, extent)?;
            works.push(work);
            watch = watch.or(heard);
        }
        Ok(Report {
            works,
            ceiling: ceiling.transpose()?,
            watch,
        })
    })
}

/// The rounds of one shape; an agent without Pods listens to the first where all is in motion.
fn measure_shape(
    stage: &Stage<'_>,
    shape: Shape,
    extent: Extent,
) -> Result<(Work, Option<WatchBytes>)> {
    let round = |way, clock| add_and_delete(stage, shape, way, clock);
    let is_whole = extent == Extent::Full || shape == Shape::AutoPools;
    let wanted = |way, clock| is_whole.then(|| round(way, clock)).transpose();
    let (live, watch) = match shape {
        Shape::AutoPools => {
            let mut quiet = Quiet::start(stage)?;
            let idle = quiet.idle()?;
            let round = quiet.during(|| Round::add(stage, shape, Way::Product, Clock::Live))?;
            let watch = quiet.compare(idle)?;
            (Some(round.delete()?), Some(watch))
        }
        Shape::OnePool => (wanted(Way::Product, Clock::Live)?, None),
    };
    let trouble = |trouble| {
        let figures = round(Way::Product, Clock::Troubled(trouble))?;
        Ok((trouble, figures))
    };
    let ours = round(Way::Product, Clock::Bound)?;
    let alone = wanted(Way::Alone, Clock::Bound)?;
    let troubled: Result<Vec<_>> = match (shape, extent) {
        (Shape::AutoPools, _) | (_, Extent::Gate) => Ok(vec![]),
        (Shape::OnePool, Extent::Full) => Trouble::ALL.into_iter().map(trouble).collect(),
    };
    let work = Work {
        shape,
        ours,
        live,
        alone,
        troubled: troubled?,
        baseline: wanted(Way::OneByOne, Clock::Bound)?,
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
        self.ceiling.iter().for_each(show);
        self.watch.iter().for_each(show);
    }

    /// Errors: a call of the product did not succeed at its first try, or its agents hear of Pods
    /// elsewhere.
    pub fn ensure_sound(&self) -> Result<()> {
        for Work {
            shape,
            ours,
            live,
            alone,
            troubled,
            baseline: _,
        } in &self.works
        {
            let live = live.iter().map(|figures| (figures, Clock::Live));
            let troubled = troubled.iter();
            let troubled = troubled.map(|(it, figures)| (figures, Clock::Troubled(*it)));
            let bound = alone.iter().chain([ours]).map(|it| (it, Clock::Bound));
            let all = live.chain(bound).chain(troubled);
            for (figures, clock) in all {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ours: Figures, live: Figures) -> Report {
        let work = Work {
            shape: Shape::OnePool,
            ours,
            live: Some(live),
            alone: None,
            troubled: vec![],
            baseline: Some(Figures {
                failed_calls: 83,
                ..Figures::default()
            }),
        };
        Report {
            works: vec![work],
            ceiling: None,
            watch: None,
        }
    }

    #[test]
    fn a_failed_call_of_the_product_fails_the_run_and_one_of_the_baseline_does_not() {
        let fine = Figures::default();
        assert!(report(fine.clone(), fine.clone()).ensure_sound().is_ok());
        let add = Figures {
            failed_calls: 1,
            first_failure: Some("no time".to_owned()),
            ..Figures::default()
        };
        let error = report(add, fine.clone()).ensure_sound().unwrap_err();
        assert_eq!(
            error.to_string(),
            "100 Deployments × 10, one pool of 2,304, all Pods bound before the first call: 1 calls \
             failed at their first try, the first by: no time"
        );
        let del = Figures {
            failed_dels: 2,
            ..Figures::default()
        };
        let error = report(fine, del).ensure_sound().unwrap_err().to_string();
        assert!(
            error.contains("each call as its Pod is bound: 2 calls"),
            "{error}"
        );
    }
}
