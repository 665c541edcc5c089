//! All that can be measured, by letter: which rounds it takes, and what is said of them.
//!
//! A row of the baseline is where the baseline can do the work at all: it makes no pools, so it
//! waits for those of the product before it is called.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::figures::{Figures, Meter};
use super::fleet::{Way, bound_early};
use super::kubelets::in_flight;
use super::quiet::{Quiet, WatchBytes};
use super::round::{Clock, Round, Trouble, end_pods, take_away};
use super::section::{BASELINE, OURS, Row, Section};
use super::shape::Shape;
use super::stage::Stage;
use super::{NODES, PODS};
use crate::progress::say;

/// How long nothing is asked of anybody.
const REST: Duration = Duration::from_secs(300);
/// Nodes that share one pool: each has an agent, and an agent is a process.
pub const CROWD: usize = 1_000;

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Work {
    /// 1,000 Pods from 100 pools, each made for a Deployment
    #[value(name = "a")]
    AutoPools,
    /// 1,000 Pods from one pool that a person made
    #[value(name = "b")]
    OnePool,
    /// All Pods deleted, until all are back
    #[value(name = "c")]
    Churn,
    /// 100 Deployments at once, until each has its pool
    #[value(name = "d")]
    PoolsMade,
    /// One Deployment from nothing to 2,000 and to nothing
    #[value(name = "e")]
    Scaled,
    /// Five minutes in which nothing is asked
    #[value(name = "f")]
    Rest,
    /// Many nodes on one pool
    #[value(name = "g")]
    Crowd,
    /// 60 Pods with real kubelets: up, churned, down
    #[value(name = "h")]
    Kubelets,
}

/// How much is done of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What the product can fail at, in minutes: of (b) only the harder round, and no baseline,
    /// which takes longer there than everything else together.
    Gate,
    /// All of it.
    Full,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 8] = [
        Self::AutoPools,
        Self::OnePool,
        Self::Churn,
        Self::PoolsMade,
        Self::Scaled,
        Self::Rest,
        Self::Crowd,
        Self::Kubelets,
    ];

    /// How many nodes that are only objects it is for; none if it is for real ones.
    pub fn nodes(self) -> Option<usize> {
        match self {
            Self::Crowd => Some(CROWD),
            Self::Kubelets => None,
            _ => Some(NODES),
        }
    }
}

/// Only the rows that are compared with the baseline, in a run of their own; `None` where none is.
pub fn compared(work: Work, stage: &Stage<'_>) -> Result<Option<Section>> {
    let (key, shape) = match work {
        Work::AutoPools => ("a", Shape::AutoPools),
        Work::OnePool => ("b", Shape::OnePool),
        Work::Churn => return churn(stage).map(Some),
        Work::PoolsMade | Work::Scaled | Work::Rest | Work::Crowd | Work::Kubelets => {
            return Ok(None);
        }
    };
    let rows = [Way::Product, Way::OneByOne].map(|way| bound(stage, shape, way));
    let rows = rows.into_iter().collect::<Result<_>>()?;
    Ok(Some(section(key, shape.to_string(), rows, [])))
}

/// (a): beside it an agent without Pods listens to the round where all is in motion.
pub fn auto_pools(stage: &Stage<'_>, extent: Extent) -> Result<(Section, WatchBytes)> {
    let shape = Shape::AutoPools;
    let mut quiet = Quiet::start(stage)?;
    let idle = quiet.idle()?;
    let live = quiet.during(|| Round::add(stage, shape, Way::Product, Clock::Live))?;
    let watch = quiet.compare(idle)?;
    let live = live.delete()?;
    let mut rows = vec![
        bound(stage, shape, Way::Product)?,
        Row::new("ours_live", LIVE, live.clone()),
    ];
    if extent == Extent::Full {
        rows.push(early(stage, shape)?);
    }
    rows.push(bound(stage, shape, Way::Alone)?);
    rows.push(bound(stage, shape, Way::OneByOne)?);
    let section = section("a", shape.to_string(), rows, [said_of_live(&live)]);
    Ok((section, watch))
}

/// (b)
pub fn one_pool(stage: &Stage<'_>, extent: Extent) -> Result<Section> {
    let shape = Shape::OnePool;
    let mut rows = vec![bound(stage, shape, Way::Product)?];
    let mut notes = vec![];
    if extent == Extent::Gate {
        notes.push("The other rounds, and one by one, are not measured here: `make bench` does");
    } else {
        let live = add_and_delete(stage, shape, Way::Product, Clock::Live)?;
        rows.push(Row::new("ours_live", LIVE, live));
        rows.push(bound(stage, shape, Way::Alone)?);
        for trouble in Trouble::ALL {
            let figures = add_and_delete(stage, shape, Way::Product, Clock::Troubled(trouble))?;
            let who = format!("orbweaver, leader {trouble}");
            rows.push(Row::new(trouble.key(), who, figures));
        }
        rows.push(bound(stage, shape, Way::OneByOne)?);
    }
    let notes = notes.into_iter().map(str::to_owned);
    Ok(section("b", shape.to_string(), rows, notes))
}

/// (c): a pool has one address to spare, so most who come wait for one who goes.
pub fn churn(stage: &Stage<'_>) -> Result<Section> {
    let shape = Shape::AutoPools;
    let rows = [Way::Product, Way::OneByOne].map(|way| {
        let mut round = Round::add(stage, shape, way, Clock::Bound)?;
        round.churn()?;
        // Releases of the end would take the place of those that were measured.
        let figures = round.figures().clone();
        round.delete()?;
        Ok(row(way, figures))
    });
    let title = format!("all Pods deleted, until all are back: {shape}");
    let rows = rows.into_iter().collect::<Result<_>>()?;
    let note = "As many are asked for as are given back, at the same time; a pool has one to spare";
    Ok(section("c", title, rows, [note.to_owned()]))
}

/// (d): from the answer to the last Deployment's creation to that of the last write of a pool.
pub fn pools_made(stage: &Stage<'_>) -> Result<Section> {
    let shape = Shape::AutoPools;
    let title = "100 Deployments × 10 at once, until the last has its pool, filled";
    say(title);
    shape.prepare(stage)?;
    let meter = Meter::start(stage.cluster, vec![], Stage::is_controller)?;
    shape.fill(stage.kubectl())?;
    shape.pools(stage)?;
    let cost = meter.read()?;
    let last = |kind: &str| {
        let found = stage.cluster.audit().last_since(meter.mark(), |_, call| {
            call.resource == kind && call.is_write() && call.succeeded()
        })?;
        found.with_context(|| format!("the API server tells of no write of {kind}"))
    };
    let (asked, filled) = (last("deployments")?, last("spiderippools")?);
    let note = format!(
        "{} writes of the subnet, where the ledger is; the baseline makes no pools",
        cost.ledger_writes
    );
    let figures = Figures {
        seconds: filled.duration_since(asked).as_secs_f64(),
        cost,
        ..Figures::default()
    };
    end_pods(stage, shape)?;
    take_away(stage, shape)?;
    Ok(section(
        "d",
        title.to_owned(),
        vec![row(Way::Product, figures)],
        [note],
    ))
}

/// (e)
pub fn scaled(stage: &Stage<'_>) -> Result<Section> {
    let shape = Shape::Scaled;
    let figures = add_and_delete(stage, shape, Way::Product, Clock::Live)?;
    let notes = [
        said_of_live(&figures),
        "The baseline makes no pools".to_owned(),
    ];
    let rows = vec![Row::new(OURS, LIVE, figures), early(stage, shape)?];
    Ok(section("e", shape.to_string(), rows, notes))
}

/// (f)
pub fn rest(stage: &Stage<'_>) -> Result<Section> {
    let round = Round::add(stage, Shape::AutoPools, Way::Product, Clock::Bound)?;
    let figures = round.rest(REST)?;
    round.delete()?;
    let title = format!(
        "{} s in which nothing is asked, {PODS} Pods",
        REST.as_secs()
    );
    let note = format!(
        "{} writes of other than Leases; the baseline never does anything by itself",
        figures.cost.writes
    );
    let rows = vec![row(Way::Product, figures)];
    Ok(Section {
        is_rest: true,
        ..section("f", title, rows, [note])
    })
}

/// (g)
pub fn crowd(stage: &Stage<'_>) -> Result<Section> {
    let title = format!(
        "{PODS} Pods on {} nodes, one pool: as many agents, each a process of its own, {} calls in \
         flight at each",
        stage.nodes,
        in_flight(stage.nodes)
    );
    let rows = vec![bound(stage, Shape::OnePool, Way::Product)?];
    let note = "The baseline is not tried here: (b) tells what conflicts of ten agents do to it";
    Ok(section("g", title, rows, [note.to_owned()]))
}

/// How a round is named whose calls are made as Pods are bound.
const LIVE: &str = "orbweaver, calls as Pods are bound";

fn bound(stage: &Stage<'_>, shape: Shape, way: Way) -> Result<Row> {
    let figures = add_and_delete(stage, shape, way, Clock::Bound)?;
    Ok(row(way, figures))
}

/// As [`LIVE`], with path 0.
fn early(stage: &Stage<'_>, shape: Shape) -> Result<Row> {
    let figures = bound_early(stage.cluster, || {
        add_and_delete(stage, shape, Way::Early, Clock::Live)
    })?;
    Ok(Row::new("ours_early", format!("{LIVE}, early"), figures))
}

fn row(way: Way, figures: Figures) -> Row {
    let key = match way {
        Way::Product => OURS,
        Way::Early => "ours_early",
        Way::Alone => "ours_alone",
        Way::OneByOne => BASELINE,
    };
    Row::new(key, way.to_string(), figures)
}

fn add_and_delete(stage: &Stage<'_>, shape: Shape, way: Way, clock: Clock) -> Result<Figures> {
    Round::add(stage, shape, way, clock)?.delete()
}

fn said_of_live(live: &Figures) -> String {
    format!(
        "As Pods are bound: {:.1} s from the first object to the last answer, most of it the \
         scheduler's",
        live.from_create_s
    )
}

fn section(
    key: &'static str,
    title: String,
    rows: Vec<Row>,
    notes: impl IntoIterator<Item = String>,
) -> Section {
    Section {
        key,
        title,
        rows,
        notes: notes.into_iter().collect(),
        is_rest: false,
    }
}
