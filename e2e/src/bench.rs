//! `e2e bench`: sizes, the plugin's start, and the figures of [`load`], on a cluster that runs the
//! product as it is shipped.
//!
//! Printed for people, and written to `target/bench/latest.json` for programs. No figure is a
//! verdict; a failed call, a duplicate or something left over is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::load::shape::Shape;
use crate::load::{self, Extent, Report};
use crate::paths::Paths;
use crate::product;
use crate::product::build::{Profile, Programs};
use crate::progress::{say, show};

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

/// Measures programs and shapes, prints the figures and writes them down.
pub fn run(cluster: &Cluster, shapes: &[Shape]) -> Result<()> {
    product::ensure_built(cluster, Profile::Release)?;
    let programs = measure_programs(&Programs::build(cluster.paths(), Profile::Release)?)?;
    programs.print();
    let report = load::measure(cluster, Profile::Release, shapes, Extent::Full)?;
    report.print();
    let file = write(cluster.paths(), &programs, &report)?;
    say(format_args!("figures are in {}", file.display()));
    report.ensure_sound()
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

fn write(paths: &Paths, programs: &ProgramFigures, report: &Report) -> Result<PathBuf> {
    let work = report.works.iter().map(|work| {
        let figures = json!({
            "ours": work.ours,
            "ours_live": work.live,
            "ours_alone": work.alone,
            "baseline": work.baseline,
            "ratio": work.ratio(),
        });
        (work.shape.key().to_owned(), figures)
    });
    let all = json!({
        "machine": machine(),
        "ceiling": report.ceiling,
        "programs": programs,
        "work": work.collect::<Map<String, Value>>(),
        "watch_bytes": report.watch,
    });
    let file = paths.source().join("target/bench/latest.json");
    let folder = file.parent().context("a file without folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(&file, format!("{all:#}\n"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
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
