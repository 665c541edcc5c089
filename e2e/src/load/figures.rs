//! What came of a round, in numbers, and how a person reads them.
//!
//! Time is the harness's; calls and conflicts are the API server's count; bytes are etcd's.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::PODS;
use super::fleet::{Fleet, Usage, Way};
use super::kubelets::Served;
use super::round::Trouble;
use super::shape::Shape;
use super::stage::Stage;
use crate::audit::{Call, Calls, Mark};
use crate::cluster::Cluster;
use crate::command::run;
use crate::product;

/// Where etcd tells of itself, in the cluster's network.
const ETCD_METRICS: &str = "http://127.0.0.1:2379/metrics";
/// Its count of bytes that clients sent.
const ETCD_RECEIVED: &str = "etcd_network_client_grpc_received_bytes_total ";

/// Figures of one round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Addresses given in a second, from the first call to the last answer.
    pub adds_per_s: f64,
    /// From the first call to the last answer.
    pub seconds: f64,
    /// From `kubectl create` of the Deployments to the last answer.
    pub from_create_s: f64,
    /// Calls that failed, and were repeated.
    pub failed_calls: usize,
    /// Why the first of them failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
    /// From a Pod's first call to its address: what half of the Pods stay below.
    pub p50_ms: f64,
    /// What 99 of 100 stay below.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Writes of pools that succeeded, for each Pod.
    pub pool_writes_per_pod: f64,
    /// Writes that the API server refused because another was faster.
    pub conflicts: u64,
    /// Calls of agents and controller to the API server: by verb, resource and status.
    pub api_requests: BTreeMap<String, u64>,
    /// Bytes that etcd received from all its clients.
    pub etcd_bytes: u64,
    /// CPU seconds of all agents together, and of the controller where it has a part.
    pub cpu_s: f64,
    /// Peak memory of the largest agent, in MiB.
    pub rss_mb: f64,
    /// Addresses given back in a second, from the first call to the last answer.
    pub dels_per_s: f64,
    /// Calls to give back that failed, and were repeated.
    pub failed_dels: usize,
}

/// The rounds of one shape.
#[derive(Clone, Debug)]
pub struct Work {
    /// The shape.
    pub shape: Shape,
    /// The product's agents, all Pods bound before.
    pub ours: Figures,
    /// The product's agents, calls as Pods are bound; if that was measured.
    pub live: Option<Figures>,
    /// The product's agents without the controller's help, all Pods bound before; if that was
    /// measured.
    pub alone: Option<Figures>,
    /// The product's agents while something happens to the controller; where that was tried.
    pub troubled: Vec<(Trouble, Figures)>,
    /// The baseline's agents, all Pods bound before; if that was measured.
    pub baseline: Option<Figures>,
}

/// Counters as they were before.
#[derive(Debug)]
pub struct Meter {
    way: Way,
    mark: Mark,
    etcd: u64,
    cpu_s: f64,
}

/// What the counters say since.
#[derive(Clone, Debug)]
pub struct Counted {
    calls: Calls,
    etcd_bytes: u64,
    cpu_s: f64,
    peak_mib: f64,
}

impl Meter {
    /// Reads all counters.
    pub fn start(stage: &Stage<'_>, fleet: &Fleet, way: Way) -> Result<Self> {
        Ok(Self {
            way,
            mark: stage.cluster.audit().mark()?,
            etcd: etcd_received(stage.cluster)?,
            cpu_s: usage(stage, fleet, way)?.cpu_s,
        })
    }

    /// Reads them again.
    pub fn read(self, stage: &Stage<'_>, fleet: &Fleet) -> Result<Counted> {
        let used = usage(stage, fleet, self.way)?;
        let ours = self.way != Way::OneByOne;
        let counts = |user: &str| Stage::is_agent(user) || (ours && Stage::is_controller(user));
        Ok(Counted {
            calls: stage.cluster.audit().calls_since(self.mark, counts)?,
            etcd_bytes: etcd_received(stage.cluster)? - self.etcd,
            // Where another controller acts now its time began anew.
            cpu_s: (used.cpu_s - self.cpu_s).max(0.0),
            peak_mib: used.peak_mib,
        })
    }
}

impl Figures {
    /// The figures of a round whose Deployments were `created`.
    pub fn of(served: &[Served], created: Instant, counted: Counted) -> Result<Self> {
        let Counted {
            calls,
            etcd_bytes,
            cpu_s,
            peak_mib,
        } = counted;
        let span = Span::of(served)?;
        let mut waits: Vec<_> = served.iter().map(|it| it.ended - it.began).collect();
        waits.sort_unstable();
        let failures = || served.iter().flat_map(|it| &it.failures);
        let changed = |it: &Call| it.verb == "update" || it.verb == "patch";
        let pool = |it: &Call| it.resource.starts_with("spiderippools");
        let written = calls.count(|it| changed(it) && pool(it) && it.code < 300);
        Ok(Self {
            adds_per_s: span.per_second(served.len()),
            seconds: span.seconds(),
            from_create_s: (span.ended - created).as_secs_f64(),
            failed_calls: failures().count(),
            first_failure: failures().next().cloned(),
            p50_ms: milliseconds(percentile(&waits, 50)),
            p99_ms: milliseconds(percentile(&waits, 99)),
            max_ms: milliseconds(percentile(&waits, 100)),
            pool_writes_per_pod: ratio(float(written), float(served.len())),
            conflicts: calls.count(|it| changed(it) && it.code == 409),
            api_requests: calls
                .iter()
                .map(|(call, count)| (call.to_string(), count))
                .collect(),
            etcd_bytes,
            cpu_s,
            rss_mb: peak_mib,
            dels_per_s: 0.0,
            failed_dels: 0,
        })
    }

    /// What matters most, while one waits for the rest.
    pub fn in_short(&self) -> String {
        format!(
            "{:.1} adds/s, p99 {:.0} ms, {} failed calls, {} conflicts; {:.1} s from kubectl create",
            self.adds_per_s, self.p99_ms, self.failed_calls, self.conflicts, self.from_create_s
        )
    }

    /// Adds what giving back took.
    pub fn add_releases(&mut self, released: &[Served]) -> Result<()> {
        self.dels_per_s = Span::of(released)?.per_second(released.len());
        let mut failures = released.iter().flat_map(|it| &it.failures);
        self.failed_dels = failures.clone().count();
        self.first_failure = self.first_failure.take().or(failures.next().cloned());
        Ok(())
    }
}

/// From the first call to the last answer.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: Instant,
    ended: Instant,
}

impl Span {
    fn of(served: &[Served]) -> Result<Self> {
        let began = served.iter().map(|it| it.began).min();
        let ended = served.iter().map(|it| it.ended).max();
        let (began, ended) = began.zip(ended).context("nobody was served")?;
        Ok(Self { began, ended })
    }

    fn seconds(self) -> f64 {
        (self.ended - self.began).as_secs_f64()
    }

    fn per_second(self, count: usize) -> f64 {
        ratio(float(count), self.seconds())
    }
}

/// The smallest value that so many of a hundred do not exceed; `sorted` is.
fn percentile(sorted: &[Duration], of_hundred: usize) -> Duration {
    let rank = (sorted.len() * of_hundred).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Counts here stay far below what a float holds exactly.
fn float(count: impl TryInto<u32>) -> f64 {
    f64::from(count.try_into().unwrap_or(u32::MAX))
}

fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
}

/// What the agents used so far, and the controller where it has a part.
fn usage(stage: &Stage<'_>, fleet: &Fleet, way: Way) -> Result<Usage> {
    let agents = fleet.usage()?;
    if way == Way::OneByOne {
        return Ok(agents);
    }
    let (_, controller) = product::acting_controller(stage.cluster)?;
    Ok(Usage {
        cpu_s: agents.cpu_s + Usage::of(controller)?.cpu_s,
        ..agents
    })
}

/// Bytes that etcd received from clients since it started.
fn etcd_received(cluster: &Cluster) -> Result<u64> {
    let mut get = cluster.lab().enter_network("busybox");
    let text = run(get.args(["wget", "-q", "-O", "-", ETCD_METRICS]))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(ETCD_RECEIVED));
    let value: f64 = line
        .context("etcd does not tell")?
        .trim()
        .parse()
        .context("not a count")?;
    // Large counts are written with an exponent.
    format!("{value:.0}")
        .parse()
        .context("etcd's count of bytes")
}

impl Work {
    /// How many times the baseline's addresses a second the product's are.
    pub fn ratio(&self) -> Option<f64> {
        let baseline = self.baseline.as_ref()?;
        Some(ratio(self.ours.adds_per_s, baseline.adds_per_s))
    }

    /// Who called the API server how often while addresses were given: ours, then the baseline.
    fn requests(&self) -> BTreeMap<&str, [u64; 2]> {
        let mut all = BTreeMap::<&str, [u64; 2]>::new();
        let columns = [Some(&self.ours), self.baseline.as_ref()];
        for (column, figures) in columns.into_iter().enumerate() {
            for (call, count) in figures.iter().flat_map(|it| &it.api_requests) {
                if let Some(cell) = all.entry(call).or_default().get_mut(column) {
                    *cell = *count;
                }
            }
        }
        all
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n({}) {}", self.shape.key(), self.shape)?;
        writeln!(
            f,
            "{:34}{:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>9} {:>9} {:>7} {:>8} {:>7}",
            "",
            "adds/s",
            "seconds",
            "p50 ms",
            "p99 ms",
            "max ms",
            "failed",
            "conflicts",
            "writes/Pod",
            "CPU s",
            "peak MiB",
            "dels/s"
        )?;
        let mut rows = vec![
            ("orbweaver".to_owned(), Some(&self.ours)),
            (
                "orbweaver, calls as Pods are bound".to_owned(),
                self.live.as_ref(),
            ),
            ("orbweaver, agents alone".to_owned(), self.alone.as_ref()),
        ];
        let troubled = self.troubled.iter();
        rows.extend(
            troubled.map(|(trouble, it)| (format!("orbweaver, leader {trouble}"), Some(it))),
        );
        rows.push(("one by one".to_owned(), self.baseline.as_ref()));
        for (name, it) in rows {
            let Some(it) = it else {
                writeln!(f, "{name:34} not measured here: `make bench` does")?;
                continue;
            };
            writeln!(
                f,
                "{name:34}{:>8.1} {:>8.1} {:>8.0} {:>8.0} {:>8.0} {:>6} {:>9} {:>10.2} {:>7.1} {:>8.0} {:>7.1}",
                it.adds_per_s,
                it.seconds,
                it.p50_ms,
                it.p99_ms,
                it.max_ms,
                it.failed_calls,
                it.conflicts,
                it.pool_writes_per_pod,
                it.cpu_s,
                it.rss_mb,
                it.dels_per_s,
            )?;
        }
        if let Some(ratio) = self.ratio() {
            writeln!(f, "{ratio:.1} × the baseline's adds/s")?;
        }
        if let Some(live) = &self.live {
            writeln!(
                f,
                "From kubectl create to the last answer: {:.1} s, {:.1} adds/s, most of it the \
                 scheduler's",
                live.from_create_s,
                ratio(float(PODS), live.from_create_s)
            )?;
        }
        write!(
            f,
            "API calls while addresses were given: orbweaver, one by one"
        )?;
        for (call, [ours, baseline]) in self.requests() {
            write!(f, "\n{ours:>8} {baseline:>8}  {call}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let waits: Vec<_> = (1..=10).map(Duration::from_millis).collect();
        let percentile = |of| percentile(&waits, of).as_millis();
        assert_eq!(
            [percentile(50), percentile(99), percentile(100)],
            [5, 10, 10]
        );
        assert_eq!(super::percentile(&waits[..1], 50).as_millis(), 1);
    }
}
