//! The agents: one process a node, in the cluster's network, each under an account of its own.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cni::client::Client;
use cni::socket::SocketTransport;
use rustix::process::Signal;

use super::stage::{Stage, node};
use crate::cluster::Cluster;
use crate::process::Process;
use crate::product;
use crate::wait::eventually;

/// The first agent's port for probes; in the cluster's network all are free.
const PROBES: usize = 15_710;
/// How many agents start at once: on one machine, each that starts makes the others wait.
const STARTING: usize = 50;
/// How long agents may take to serve.
const START: Duration = Duration::from_secs(60);
/// How long agents may take to end.
const END: Duration = Duration::from_secs(20);

/// Whose agents do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The product's, which ask the acting controller.
    Product,
    /// The same, and it records Pods as they get a node; to be done in [`bound_early`].
    Early,
    /// The product's, each of which writes pools itself.
    Alone,
    /// The baseline's, which record one address at a time.
    OneByOne,
}

/// Does a piece of work while the product records Pods as they get a node.
pub fn bound_early<T>(cluster: &Cluster, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let switch = |on: bool| {
        let flag = format!("ipam.allocator.earlyBinding={on}");
        product::upgrade(cluster, &["--reuse-values", "--set", &flag])
    };
    switch(true)?;
    let done = work()?;
    switch(false)?;
    Ok(done)
}

/// The agent of one node.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    socket: PathBuf,
}

/// What a process used of the machine since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Seconds of one CPU.
    pub cpu_s: f64,
    /// Largest resident memory, in MiB.
    pub peak_mib: f64,
}

impl Way {
    /// Whose calls to the API server are this way's.
    pub fn users(self) -> fn(&str) -> bool {
        match self {
            Self::Product | Self::Early | Self::Alone => {
                |user| Stage::is_agent(user) || Stage::is_controller(user)
            }
            Self::OneByOne => Stage::is_agent,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Product => "orbweaver",
            Self::Early => "orbweaver, bound early",
            Self::Alone => "orbweaver, agents alone",
            Self::OneByOne => "one by one",
        })
    }
}

impl Agent {
    /// Starts the agent of a node; its kubeconfig is there.
    pub fn start(stage: &Stage<'_>, way: Way, index: usize) -> Result<Self> {
        let name = node(index);
        let socket = stage.file(&format!("{index}.sock"));
        let _ = fs::remove_file(&socket);
        let mut words = vec![format!("KUBECONFIG={}", stage.kubeconfig(index).display())];
        match way {
            Way::Product | Way::Early | Way::Alone => {
                let config = stage.file(&format!("{index}.yml"));
                fs::write(
                    &config,
                    format!(
                        "ipamUnixSocketPath: {}\nearlyBinding: {}\n",
                        socket.display(),
                        way == Way::Early
                    ),
                )
                .with_context(|| format!("cannot write {}", config.display()))?;
                words.extend([
                    format!("SPIDERPOOL_NODE_NAME={name}"),
                    format!("SPIDERPOOL_POD_NAME=agent-{index}"),
                    format!("SPIDERPOOL_HEALTH_PORT={}", PROBES + index),
                ]);
                if way != Way::Alone {
                    let token = stage.write_allocator_token(index)?;
                    words.push(format!("ORBWEAVER_ALLOCATOR_TOKEN={}", token.display()));
                }
                words.extend([
                    stage.programs.orbweaver.display().to_string(),
                    "agent".to_owned(),
                    format!("--config-path={}", config.display()),
                ]);
            }
            Way::OneByOne => words.extend([
                stage.one_by_one.display().to_string(),
                format!("--node={name}"),
                format!("--socket={}", socket.display()),
            ]),
        }
        let log = stage.cluster.file(&format!("log/{name}.log"));
        let process = stage.cluster.lab().start(Path::new("env"), &words, &log);
        let process = process.with_context(|| format!("cannot start the agent of {name}"))?;
        Ok(Self { process, socket })
    }

    /// Waits until it serves.
    pub fn wait_until_it_serves(&self) -> Result<()> {
        eventually(START, "the agent serves", || {
            ensure!(self.process.is_alive(), "it ended; see its log");
            let client = Client::new(&SocketTransport, &self.socket);
            Ok(client.healthy(Duration::from_secs(5))?)
        })
    }

    /// Ends it and waits until it is gone.
    pub fn end(&self) -> Result<()> {
        self.process.signal(Signal::TERM);
        self.process
            .wait_gone(END)
            .context("an agent does not end when asked to")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.signal(Signal::KILL);
    }
}

/// The agents of all nodes.
#[derive(Debug)]
pub struct Fleet(Vec<Agent>);

impl Fleet {
    /// Starts an agent on each node that Pods go to; all serve when this returns.
    pub fn start(stage: &Stage<'_>, way: Way) -> Result<Self> {
        let mut agents: Vec<Agent> = Vec::with_capacity(stage.nodes);
        for index in 0..stage.nodes {
            if let Some(before) = index.checked_sub(STARTING) {
                agents
                    .get(before)
                    .map_or(Ok(()), Agent::wait_until_it_serves)?;
            }
            agents.push(Agent::start(stage, way, index)?);
        }
        agents.iter().try_for_each(Agent::wait_until_it_serves)?;
        Ok(Self(agents))
    }

    /// Their sockets, by node.
    pub fn sockets(&self) -> Vec<PathBuf> {
        self.0.iter().map(|agent| agent.socket.clone()).collect()
    }

    /// Their processes.
    pub fn processes(&self) -> Vec<Process> {
        self.0.iter().map(|agent| agent.process).collect()
    }

    /// Ends them all.
    pub fn end(self) -> Result<()> {
        self.0.iter().try_for_each(Agent::end)
    }
}

impl Usage {
    /// What a process used so far.
    pub fn of(process: Process) -> Result<Self> {
        let read = |name: &str| {
            let file = format!("/proc/{}/{name}", process.pid());
            fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let used = parse(&stat, &status, rustix::param::clock_ticks_per_second());
        used.context("/proc is not as we know it")
    }
}

/// Reads CPU time from `stat` and peak memory from `status` of a process' folder in `/proc`.
fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<Usage> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u32>);
    let ticks = ticks.sum::<Result<u32, _>>().ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak: u32 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Usage {
        cpu_s: f64::from(ticks) / f64::from(u32::try_from(ticks_per_second).ok()?),
        peak_mib: f64::from(peak) / 1024.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_user_and_system_is_added_up() {
        let stat = "7 (a b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 9 9 20 0 1 0 4242 0 0";
        let status = "Name:\ta\nVmHWM:\t    2048 kB\n";
        let used = parse(stat, status, 100).unwrap();
        assert_eq!(
            used,
            Usage {
                cpu_s: 3.0,
                peak_mib: 2.0
            }
        );
    }

    #[test]
    fn the_kernels_own_files_are_understood() {
        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(Usage::of(me).unwrap().peak_mib > 1.0);
    }
}
