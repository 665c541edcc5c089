//! What came of a round, in numbers, and how a person reads them.
//!
//! Time is the harness's; calls and conflicts are the API server's count; bytes are etcd's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::fleet::Usage;
use super::kubelets::Served;
use crate::audit::{Call, Mark};
use crate::cluster::Cluster;
use crate::command::run;
use crate::process::Process;
use crate::product;

/// Names of the product's processes among those that use the machine.
const OURS: [&str; 2] = ["agents", "controller"];
/// Programs of the control plane.
const PLANE: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];
/// Where etcd tells of itself, in the cluster's network.
const ETCD_METRICS: &str = "http://127.0.0.1:2379/metrics";
/// Its count of bytes that clients sent.
const ETCD_RECEIVED: &str = "etcd_network_client_grpc_received_bytes_total ";

/// Figures of one round. What it does not have is zero, and not written down.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Addresses given in a second, from the first call to the last answer.
    #[serde(skip_serializing_if = "is_nothing")]
    pub adds_per_s: f64,
    /// From the first call to the last answer; in a round without calls, how long it took.
    pub seconds: f64,
    /// From what a person did, as `kubectl create` of the Deployments, to the last answer.
    #[serde(skip_serializing_if = "is_nothing")]
    pub from_create_s: f64,
    /// Calls that failed, and were repeated.
    pub failed_calls: usize,
    /// Why the first of them failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
    /// From a Pod's first call to its address: what half of the Pods stay below.
    #[serde(skip_serializing_if = "is_nothing")]
    pub p50_ms: f64,
    /// What 99 of 100 stay below.
    #[serde(skip_serializing_if = "is_nothing")]
    pub p99_ms: f64,
    /// The longest.
    #[serde(skip_serializing_if = "is_nothing")]
    pub max_ms: f64,
    /// Writes of pools that succeeded, for each Pod.
    #[serde(skip_serializing_if = "is_nothing")]
    pub pool_writes_per_pod: f64,
    /// What it cost.
    #[serde(flatten)]
    pub cost: Cost,
    /// Addresses given back in a second, from the first call to the last answer.
    #[serde(skip_serializing_if = "is_nothing")]
    pub dels_per_s: f64,
    /// Calls to give back that failed, and were repeated.
    pub failed_dels: usize,
}

/// What a round cost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// Writes of pools that succeeded.
    pub pool_writes: u64,
    /// Writes of subnets, where the ledger is, that succeeded.
    pub ledger_writes: u64,
    /// Writes of anything but Leases, however they ended.
    pub writes: u64,
    /// Writes that the API server refused because another was faster.
    pub conflicts: u64,
    /// Calls of agents and controller to the API server: by verb, resource and status.
    pub api_requests: BTreeMap<String, u64>,
    /// Bytes that etcd received from all its clients.
    pub etcd_bytes: u64,
    /// CPU seconds of all agents together, and of the controller where it has a part.
    pub cpu_s: f64,
    /// Seconds over which all this was counted: until the last endpoint is there, too.
    pub counted_s: f64,
    /// CPU seconds by who used them: also the control plane, and those who ask.
    pub cpu_s_of: BTreeMap<&'static str, f64>,
    /// Peak memory of the largest agent since it started, in MiB.
    pub rss_mb: f64,
    /// The same of the controller that acts, where it has a part.
    pub controller_rss_mb: f64,
}

/// Counters as they were before, and whose they are.
#[derive(Debug)]
pub struct Meter<'a> {
    cluster: &'a Cluster,
    agents: Vec<Process>,
    users: fn(&str) -> bool,
    began: Instant,
    mark: Mark,
    etcd: u64,
    used: Used,
}

/// What processes used of the machine.
#[derive(Clone, Debug, Default)]
struct Used {
    cpu_s_of: BTreeMap<&'static str, f64>,
    agent_mib: f64,
    controller_mib: f64,
}

impl<'a> Meter<'a> {
    /// Reads all counters: of these agents, and of the API server's calls by these users. The
    /// controller that acts counts if it is one of the users.
    pub fn start(
        cluster: &'a Cluster,
        agents: Vec<Process>,
        users: fn(&str) -> bool,
    ) -> Result<Self> {
        Ok(Self {
            cluster,
            began: Instant::now(),
            mark: cluster.audit().mark()?,
            etcd: etcd_received(cluster)?,
            used: used(cluster, &agents, users)?,
            agents,
            users,
        })
    }

    /// Where the API server's log was.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Reads them again.
    pub fn read(&self) -> Result<Cost> {
        let used = used(self.cluster, &self.agents, self.users)?;
        let cpu_s_of = used.since(&self.used);
        let calls = self.cluster.audit().calls_since(self.mark, self.users)?;
        let changed = |it: &Call| it.verb == "update" || it.verb == "patch";
        let written = |kind: &str| {
            calls.count(|it| changed(it) && it.succeeded() && it.resource.starts_with(kind))
        };
        Ok(Cost {
            pool_writes: written("spiderippools"),
            ledger_writes: written("spidersubnets"),
            writes: calls.count(|it| it.is_write() && it.resource != "leases"),
            conflicts: calls.count(|it| changed(it) && it.code == 409),
            api_requests: calls
                .iter()
                .map(|(call, count)| (call.to_string(), count))
                .collect(),
            etcd_bytes: etcd_received(self.cluster)? - self.etcd,
            counted_s: self.began.elapsed().as_secs_f64(),
            cpu_s: OURS.iter().filter_map(|who| cpu_s_of.get(who)).sum(),
            cpu_s_of,
            rss_mb: used.agent_mib,
            controller_rss_mb: used.controller_mib,
        })
    }
}

/// A Pod's calls, down to the one that succeeded; times since some moment of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When the first call began.
    pub began: Duration,
    /// From there to the last answer.
    pub took: Duration,
}

impl Figures {
    /// The figures of a round that a person `began` so.
    pub fn of(served: &[Served], began: Instant, cost: Cost) -> Result<Self> {
        let failures = served.iter().flat_map(|it| &it.failures);
        let mut figures = Self::of_spans(&spans(served, began), cost)?;
        figures.failed_calls = failures.clone().count();
        figures.first_failure = failures.clone().next().cloned();
        Ok(figures)
    }

    /// The figures of calls of which none is told to have failed.
    pub fn of_spans(spans: &[Span], cost: Cost) -> Result<Self> {
        let mut waits: Vec<_> = spans.iter().map(|it| it.took).collect();
        waits.sort_unstable();
        let all = Span::around(spans)?;
        Ok(Self {
            adds_per_s: all.per_second(spans.len()),
            seconds: all.seconds(),
            from_create_s: (all.began + all.took).as_secs_f64(),
            p50_ms: milliseconds(percentile(&waits, 50)),
            p99_ms: milliseconds(percentile(&waits, 99)),
            max_ms: milliseconds(percentile(&waits, 100)),
            pool_writes_per_pod: ratio(float(cost.pool_writes), float(spans.len())),
            cost,
            ..Self::default()
        })
    }

    /// What matters most, while one waits for the rest.
    pub fn in_short(&self) -> String {
        format!(
            "{:.1} adds/s, p99 {:.0} ms, {} failed calls, {} conflicts; {:.1} s from the first \
             object",
            self.adds_per_s,
            self.p99_ms,
            self.failed_calls,
            self.cost.conflicts,
            self.from_create_s
        )
    }

    /// Adds what giving back took.
    pub fn add_releases(&mut self, released: &[Served]) -> Result<()> {
        let began = released.iter().map(|it| it.began).min();
        let spans = spans(released, began.context("nobody was released")?);
        self.dels_per_s = Span::around(&spans)?.per_second(released.len());
        let mut failures = released.iter().flat_map(|it| &it.failures);
        self.failed_dels = failures.clone().count();
        self.first_failure = self.first_failure.take().or(failures.next().cloned());
        Ok(())
    }
}

impl Span {
    /// From the first call to the last answer.
    fn around(spans: &[Self]) -> Result<Self> {
        let began = spans.iter().map(|it| it.began).min();
        let ended = spans.iter().map(|it| it.began + it.took).max();
        let (began, ended) = began.zip(ended).context("nobody was served")?;
        let took = ended.saturating_sub(began);
        Ok(Self { began, took })
    }

    fn seconds(self) -> f64 {
        self.took.as_secs_f64()
    }

    fn per_second(self, count: usize) -> f64 {
        ratio(float(count), self.seconds())
    }
}

fn spans(served: &[Served], since: Instant) -> Vec<Span> {
    let span = |it: &Served| Span {
        began: it.began - since,
        took: it.ended - it.began,
    };
    served.iter().map(span).collect()
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
pub fn float(count: impl TryInto<u32>) -> f64 {
    f64::from(count.try_into().unwrap_or(u32::MAX))
}

/// One of the other; nothing of nothing.
pub fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
}

fn is_nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What agents and control plane used so far, those who ask, and the controller that acts if it is
/// one of the users.
fn used(cluster: &Cluster, agents: &[Process], users: fn(&str) -> bool) -> Result<Used> {
    let mut all = Used::default();
    let [as_agents, as_controller] = OURS;
    for agent in agents {
        all.agent_mib = all.agent_mib.max(all.add(as_agents, *agent)?);
    }
    let [_, controller] = product::accounts();
    if users(&controller) {
        all.controller_mib = all.add(as_controller, product::acting_controller(cluster)?.1)?;
    }
    for name in PLANE {
        all.add(name, cluster.component(name)?)?;
    }
    all.add("who asks", Process::of(std::process::id().try_into()?)?)?;
    Ok(all)
}

impl Used {
    /// Adds a process under a name, and tells its peak memory.
    fn add(&mut self, name: &'static str, process: Process) -> Result<f64> {
        let own = Usage::of(process)?;
        *self.cpu_s_of.entry(name).or_default() += own.cpu_s;
        Ok(own.peak_mib)
    }

    /// CPU seconds since. Where another process acts now its time began anew.
    fn since(&self, before: &Self) -> BTreeMap<&'static str, f64> {
        let since = |(name, now): (&&'static str, &f64)| {
            let before = before.cpu_s_of.get(name).copied().unwrap_or_default();
            (*name, (now - before).max(0.0))
        };
        self.cpu_s_of.iter().map(since).collect()
    }
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
