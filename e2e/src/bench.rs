//! `e2e bench`: sizes, the plugin's start, and the figures of all [`work`], on a cluster that runs
//! the product as it is shipped.
//!
//! Printed for people, written to `target/bench/latest.json` for programs, and drawn. No figure is a
//! verdict; a failed call, a duplicate, something left over, or a write while nothing is asked is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::load::quiet::WatchBytes;
use crate::load::section::Section;
use crate::load::stage::{Ceiling, Stage};
use crate::load::work::{self, Extent, Work};
use crate::load::{self, real};
use crate::product::build::{Profile, Programs};
use crate::product::{self, Admission};
use crate::progress::{say, show};

pub mod plot;

/// A stock plugin of the same kind, to compare with.
const HOST_LOCAL: &str = "/usr/lib/cni/host-local";
/// How often a plugin is started; the median counts.
const STARTS: usize = 50;

/// What the programs weigh, and how fast the plugin starts.
#[derive(Clone, Debug, Serialize)]
struct ProgramFigures {
    orbweaver_bytes: u64,
    spiderpool_bytes: u64,
    host_local_bytes: u64,
    spiderpool_start_ms: f64,
    host_local_start_ms: f64,
}

/// What was measured so far.
#[derive(Debug)]
struct Report<'a> {
    cluster: &'a Cluster,
    runs: usize,
    programs: ProgramFigures,
    ceiling: Option<Ceiling>,
    watch: Option<WatchBytes>,
    sections: Vec<Section>,
}

/// Measures programs and work, what is compared so many times, prints the figures and writes them
/// down.
pub fn run(cluster: &Cluster, works: &[Work], runs: usize) -> Result<()> {
    product::ensure_built(cluster, Admission::On, Profile::Release)?;
    let programs = measure_programs(&Programs::build(cluster.paths(), Profile::Release)?)?;
    programs.print();
    let mut report = Report {
        cluster,
        runs,
        programs,
        ceiling: None,
        watch: None,
        sections: vec![],
    };
    load::introduce();
    for same in works.chunk_by(|one, other| one.nodes() == other.nodes()) {
        match same.first().and_then(|work| work.nodes()) {
            Some(nodes) => Stage::with(cluster, Profile::Release, nodes, |stage| {
                report.measure_ceiling(stage)?;
                let mut all = same.iter();
                all.try_for_each(|work| {
                    let first = report.measure(*work, stage)?;
                    report.add(first, || work::compared(*work, stage))
                })
            })?,
            None => report.add(real::kubelets(cluster)?, || Ok(None))?,
        }
    }
    if let Some(missing) = plot::lacks(&report.as_json()) {
        say(format_args!(
            "{} stays as it was: there is no ({missing})",
            plot::FILE
        ));
    }
    Ok(())
}

impl Report<'_> {
    /// Has what is compared of a piece of work measured again as often as is wanted, shows what came
    /// of it all, and writes it down.
    fn add(
        &mut self,
        first: Section,
        mut again: impl FnMut() -> Result<Option<Section>>,
    ) -> Result<()> {
        let mut runs = vec![first];
        while runs.len() < self.runs
            && let Some(more) = again()?
        {
            runs.push(more);
        }
        let section = Section::middle(&runs).context("at least one run is needed")?;
        show(&section);
        self.sections.push(section);
        let file = self.write()?;
        say(format_args!("figures are in {}", file.display()));
        // Not before: what failed is to be looked at.
        runs.iter().try_for_each(Section::ensure_sound)?;
        let report = self.as_json();
        // Also if what comes later fails.
        match plot::lacks(&report) {
            None => plot::draw(self.cluster.paths(), &report),
            Some(_) => Ok(()),
        }
    }

    fn measure(&mut self, work: Work, stage: &Stage<'_>) -> Result<Section> {
        match work {
            Work::AutoPools => {
                let (section, watch) = work::auto_pools(stage, Extent::Full)?;
                show(watch);
                self.watch = Some(watch);
                watch.ensure_flat()?;
                Ok(section)
            }
            Work::OnePool => work::one_pool(stage, Extent::Full),
            Work::Churn => work::churn(stage),
            Work::PoolsMade => work::pools_made(stage),
            Work::Scaled => work::scaled(stage),
            Work::Rest => work::rest(stage),
            Work::Crowd => work::crowd(stage),
            Work::Kubelets => real::kubelets(stage.cluster),
        }
    }

    /// What the machine can do at most; once.
    fn measure_ceiling(&mut self, stage: &Stage<'_>) -> Result<()> {
        if self.ceiling.is_none() {
            let ceiling = stage.ceiling()?;
            show(ceiling);
            self.ceiling = Some(ceiling);
        }
        Ok(())
    }

    fn as_json(&self) -> Value {
        let work = self.sections.iter();
        let work: Map<_, _> = work
            .map(|section| (section.key.to_owned(), section.as_json()))
            .collect();
        json!({
            "machine": machine(),
            "runs": self.runs,
            "ceiling": self.ceiling,
            "programs": self.programs,
            "work": work,
            "watch_bytes": self.watch,
        })
    }

    fn write(&self) -> Result<PathBuf> {
        let file = self
            .cluster
            .paths()
            .source()
            .join("target/bench/latest.json");
        let folder = file.parent().context("a file without folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&file, format!("{:#}\n", self.as_json()))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

fn measure_programs(programs: &Programs) -> Result<ProgramFigures> {
    let size = |path: &Path| {
        let metadata = fs::metadata(path);
        metadata
            .map(|it| it.len())
            .with_context(|| format!("no program {}", path.display()))
    };
    let (ours, host_local) = (programs.spiderpool.as_path(), Path::new(HOST_LOCAL));
    let mut starts = [Vec::new(), Vec::new()];
    for _ in 0..STARTS {
        // In turns, so that what else the machine does falls on both.
        for (plugin, times) in [ours, host_local].into_iter().zip(&mut starts) {
            times.push(start(plugin)?);
        }
    }
    let [ours_ms, host_local_ms] = starts.map(median_ms);
    Ok(ProgramFigures {
        orbweaver_bytes: size(&programs.orbweaver)?,
        spiderpool_bytes: size(ours)?,
        host_local_bytes: size(host_local)?,
        spiderpool_start_ms: ours_ms,
        host_local_start_ms: host_local_ms,
    })
}

/// Has a plugin tell its versions; from its start to its end.
fn start(plugin: &Path) -> Result<Duration> {
    let began = Instant::now();
    let status = Command::new(plugin)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", plugin.display()))?;
    let took = began.elapsed();
    ensure!(status.success(), "{} VERSION: {status}", plugin.display());
    Ok(took)
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .copied()
        .unwrap_or_default()
        .as_secs_f64()
        * 1_000.0
}

impl ProgramFigures {
    fn print(&self) {
        let mib = |bytes: u64| f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0;
        let (ours, stock) = (self.spiderpool_start_ms, self.host_local_start_ms);
        show(format_args!(
            "Programs, static, as shipped\n\
             {:12}{:6.1} MiB\n\
             {:12}{:6.1} MiB   starts in {ours:.2} ms (VERSION, median of {STARTS})\n\
             {:12}{:6.1} MiB   starts in {stock:.2} ms, {:.1} × ours",
            "orbweaver",
            mib(self.orbweaver_bytes),
            "spiderpool",
            mib(self.spiderpool_bytes),
            "host-local",
            mib(self.host_local_bytes),
            stock / ours,
        ));
    }
}

/// What the figures were measured on.
fn machine() -> Value {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    json!({
        "cpu": value(&cpus, "model name"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": value(&memory, "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_time_that_was_measured() {
        let times = [9, 1, 5].map(Duration::from_millis).to_vec();
        assert!((median_ms(times) - 5.0).abs() < 1e-9);
        assert!(median_ms(Vec::new()).abs() < 1e-9);
    }
}
