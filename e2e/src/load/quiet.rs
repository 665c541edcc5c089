//! What an agent hears of Pods elsewhere: an agent on a node without Pods, behind a counter.
//!
//! It must hear nothing: neither while 1,000 Pods appear on other nodes, nor when it starts beside
//! them. Bookmarks, which the API server sends on every watch about once a minute, are no news of
//! Pods, nor are versions with more digits.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::PODS;
use super::counter::Counter;
use super::fleet::{Agent, Way};
use super::stage::{QUIET_NODE, Stage};
use crate::cluster::network::API_SERVER;
use crate::progress::say;
use crate::wait::{eventually, pass};

/// Bytes allowed in a minute, begun ones counted as whole. One Pod's event alone is as large.
const ALLOWED_A_MINUTE: u64 = 4 << 10;
/// Bytes that a later start may receive more than the first.
const ALLOWED_A_START: u64 = 2 << 10;
/// How long to listen while nothing happens.
const IDLE: Duration = Duration::from_secs(20);
/// An agent has started when it has heard nothing for this long.
const SILENCE: Duration = Duration::from_secs(3);

/// Bytes over some time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Heard {
    /// Bytes.
    pub bytes: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Bytes that an agent without Pods received.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WatchBytes {
    /// From its start, with no Pod on other nodes.
    pub start_without_pods: u64,
    /// From its start, with all Pods on other nodes.
    pub start_with_pods: u64,
    /// While nothing happened.
    pub idle: Heard,
    /// While all Pods appeared on other nodes and got their addresses.
    pub busy: Heard,
}

/// An agent on a node without Pods.
#[derive(Debug)]
pub struct Quiet<'a> {
    stage: &'a Stage<'a>,
    counter: Counter,
    agent: Agent,
    start_without_pods: u64,
    busy: Option<Heard>,
}

impl<'a> Quiet<'a> {
    /// Starts it; there is no Pod yet.
    pub fn start(stage: &'a Stage<'a>) -> Result<Self> {
        let server = API_SERVER.parse().context("the API server's address")?;
        let counter = Counter::open(stage.cluster.lab(), server)?;
        stage.write_kubeconfig(QUIET_NODE, &counter.address().to_string())?;
        let (agent, start_without_pods) = start(stage, &counter)?;
        Ok(Self {
            stage,
            counter,
            agent,
            start_without_pods,
            busy: None,
        })
    }

    /// Listens while nothing happens.
    pub fn idle(&mut self) -> Result<Heard> {
        say(format_args!(
            "listening to an idle agent for {} s",
            IDLE.as_secs()
        ));
        self.listen(|| pass(IDLE)).map(|((), heard)| heard)
    }

    /// Listens while `work` puts all Pods on other nodes.
    pub fn during<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (done, heard) = self.listen(work)?;
        self.busy = Some(heard);
        Ok(done)
    }

    /// Starts the agent anew beside the Pods, and puts the figures together.
    pub fn compare(self, idle: Heard) -> Result<WatchBytes> {
        self.agent.end()?;
        let (agent, start_with_pods) = start(self.stage, &self.counter)?;
        agent.end()?;
        Ok(WatchBytes {
            start_without_pods: self.start_without_pods,
            start_with_pods,
            idle,
            busy: self.busy.context("nothing happened meanwhile")?,
        })
    }

    fn listen<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Heard)> {
        let (before, began) = (self.counter.received(), Instant::now());
        let done = work()?;
        let bytes = self.counter.received() - before;
        Ok((
            done,
            Heard {
                bytes,
                seconds: began.elapsed().as_secs_f64(),
            },
        ))
    }
}

/// Starts the agent; returns it with what it received until it was silent.
fn start(stage: &Stage<'_>, counter: &Counter) -> Result<(Agent, u64)> {
    let before = counter.received();
    let agent = Agent::start(stage, Way::Product, QUIET_NODE)?;
    agent.wait_until_it_serves()?;
    let mut last = (counter.received(), Instant::now());
    eventually(Duration::from_secs(60), "the agent has started", || {
        let received = counter.received();
        if received != last.0 {
            last = (received, Instant::now());
        }
        ensure!(
            last.1.elapsed() >= SILENCE,
            "{} bytes so far",
            received - before
        );
        Ok(())
    })?;
    Ok((agent, last.0 - before))
}

impl WatchBytes {
    /// Errors: the agent heard of Pods that are none of its own.
    pub fn ensure_flat(&self) -> Result<()> {
        let Self {
            start_without_pods,
            start_with_pods,
            idle: _,
            busy,
        } = self;
        ensure!(
            *start_with_pods <= start_without_pods + ALLOWED_A_START,
            "an agent without Pods receives {start_with_pods} bytes when it starts beside {PODS} \
             Pods on other nodes, and {start_without_pods} without them"
        );
        let allowed = allowed(busy.seconds);
        ensure!(
            busy.bytes <= allowed,
            "an agent without Pods received {} bytes in the {:.0} s in which {PODS} Pods appeared \
             on other nodes; {allowed} are allowed for bookmarks",
            busy.bytes,
            busy.seconds,
        );
        Ok(())
    }
}

/// What bookmarks may cost in so many seconds.
fn allowed(seconds: f64) -> u64 {
    let minutes = Duration::from_secs_f64(seconds).as_secs() / 60 + 1;
    minutes * ALLOWED_A_MINUTE
}

impl fmt::Display for WatchBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            start_without_pods,
            start_with_pods,
            idle,
            busy,
        } = self;
        writeln!(f, "Bytes received by an agent without Pods (TLS included):")?;
        writeln!(
            f,
            "{start_without_pods:>8}  at its start, no Pod on other nodes"
        )?;
        writeln!(
            f,
            "{start_with_pods:>8}  at its start, {PODS} Pods on other nodes"
        )?;
        writeln!(
            f,
            "{:>8}  in {:.0} s in which nothing happened",
            idle.bytes, idle.seconds
        )?;
        write!(
            f,
            "{:>8}  in {:.0} s in which {PODS} Pods appeared on other nodes (allowed: {})",
            busy.bytes,
            busy.seconds,
            allowed(busy.seconds)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(start_with_pods: u64, bytes: u64) -> WatchBytes {
        let idle = Heard {
            bytes: 0,
            seconds: 20.0,
        };
        let busy = Heard {
            bytes,
            seconds: 61.0,
        };
        WatchBytes {
            start_without_pods: 20_000,
            start_with_pods,
            idle,
            busy,
        }
    }

    #[test]
    fn bookmarks_pass_and_pods_do_not() {
        assert!(heard(20_100, 900).ensure_flat().is_ok());
        let error = heard(20_100, 3_000_000)
            .ensure_flat()
            .unwrap_err()
            .to_string();
        assert!(error.contains("8192 are allowed"), "{error}");
        let error = heard(3_000_000, 900).ensure_flat().unwrap_err().to_string();
        assert!(error.contains("beside 1000 Pods"), "{error}");
    }
}
