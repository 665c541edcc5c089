//! One try: a shape's Pods get addresses from one kind of agents, which is checked, and give them
//! back, which is checked too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::bindings::{Bindings, Pod};
use super::figures::{Cost, Figures, Meter};
use super::fleet::{Fleet, Way};
use super::kubelets::{Ask, Served, serve, serve_noting};
use super::shape::{PoolOf, Shape};
use super::stage::{NAMESPACE, Stage};
use crate::cluster::kubectl::Kubectl;
use crate::process::Process;
use crate::product::acting_controller;
use crate::product::objects::Pool;
use crate::progress::{long, say};
use crate::wait::{eventually, pass};

/// How long objects may take to follow.
const LIMIT: Duration = Duration::from_secs(240);

/// Who has written nothing for this long has come to rest.
const SILENCE: Duration = Duration::from_secs(5);

/// When the calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// All at once, when every Pod has its node and every pool is there.
    Bound,
    /// Each as soon as its Pod has a node.
    Live,
    /// All at once; in their midst something happens to the controller that acts.
    Troubled(Trouble),
}

/// A try whose Pods have their addresses.
#[derive(Debug)]
pub struct Round<'a> {
    stage: &'a Stage<'a>,
    shape: Shape,
    way: Way,
    fleet: Fleet,
    pods: Vec<Pod>,
    figures: Figures,
}

impl<'a> Round<'a> {
    /// Has all Pods made and served.
    ///
    /// Errors: a duplicate, a pool that tells otherwise than the replies, calls given up.
    pub fn add(stage: &'a Stage<'a>, shape: Shape, way: Way, clock: Clock) -> Result<Self> {
        say(format_args!("{shape}: {way}, {clock}"));
        shape.prepare(stage)?;
        let mut round = Self {
            stage,
            shape,
            way,
            fleet: Fleet::start(stage, way)?,
            pods: vec![],
            figures: Figures::default(),
        };
        let bindings = Bindings::watch(stage.kubectl(), [])?;
        let began = Instant::now();
        let (cost, served) = match clock {
            Clock::Bound => round.serve_bound(bindings)?,
            Clock::Live => round.serve_live(bindings)?,
            Clock::Troubled(trouble) => round.serve_troubled(bindings, trouble)?,
        };
        round.are_served(served, began, cost)?;
        Ok(round)
    }

    /// Has every Pod deleted and released, and those that come in their place served: all at once,
    /// when each of them has its node. The figures are those of this from here on.
    ///
    /// Errors: those of [`Round::add`].
    pub fn churn(&mut self) -> Result<()> {
        say("… all Pods deleted, until all are back");
        let kubectl = self.stage.kubectl();
        let bindings = Bindings::watch(kubectl, &self.pods)?;
        let began = Instant::now();
        // In one call, and once: a second would strike those that come.
        let all = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        kubectl.run(&["delete", "--raw", &all])?;
        let next = self.take(bindings)?;
        let pools = self.shape.pools(self.stage)?;
        let meter = self.meter()?;
        let (sockets, gone) = (self.fleet.sockets(), std::mem::take(&mut self.pods));
        let (released, served) = thread::scope(|scope| {
            let released = scope.spawn(|| serve(Ask::Del, &sockets, gone.into_iter().map(Ok)));
            let served = serve(self.ask(&pools), &sockets, next.into_iter().map(Ok));
            let released = released.join();
            (released.unwrap_or_else(|_| Err(anyhow!("DEL"))), served)
        });
        let served = served?;
        let cost = self.cost(&meter, &served)?;
        self.are_served(served, began, cost)?;
        self.figures.add_releases(&released?)
    }

    /// What the product's agents and the controller do in this time though nothing is asked of them.
    ///
    /// Begins once they have come to rest: they write nothing for a while.
    pub fn rest(&self, how_long: Duration) -> Result<Figures> {
        eventually(LIMIT, "nothing is written any more", || {
            let meter = self.meter()?;
            pass(SILENCE)?;
            let writes = meter.read()?.writes;
            ensure!(writes == 0, "{writes} writes in {} s", SILENCE.as_secs());
            Ok(())
        })?;
        let meter = self.meter()?;
        long("nothing is asked of anybody", || pass(how_long))?;
        Ok(Figures {
            seconds: how_long.as_secs_f64(),
            cost: meter.read()?,
            ..Figures::default()
        })
    }

    /// Takes in what came of the calls, and checks it.
    fn are_served(&mut self, served: Vec<Served>, began: Instant, cost: Cost) -> Result<()> {
        let (kubectl, count) = (self.stage.kubectl(), self.shape.pods());
        ensure_no_duplicate(&served, count)?;
        // What is given back meanwhile may be recorded a moment longer.
        eventually(LIMIT, "the pools record what was replied", || {
            ensure_recorded(&Pool::all(kubectl)?, &served)
        })?;
        self.figures = Figures::of(&served, began, cost)?;
        say(format_args!("… {}", self.figures.in_short()));
        self.pods = served.into_iter().map(|served| served.pod).collect();
        Ok(())
    }

    fn take(&self, bindings: Bindings) -> Result<Vec<Pod>> {
        bindings.take(self.shape.pods()).collect()
    }

    fn ask<'p>(&self, pools: &'p PoolOf) -> Ask<'p> {
        match self.way {
            Way::Product | Way::Early | Way::Alone => Ask::Add,
            Way::OneByOne => Ask::AddFrom(pools),
        }
    }

    fn meter(&self) -> Result<Meter<'a>> {
        let (agents, users) = (self.fleet.processes(), self.way.users());
        Meter::start(self.stage.cluster, agents, users)
    }

    /// What it cost, endpoints included: they may follow the answers, and are part of the work.
    fn cost(&self, meter: &Meter<'_>, served: &[Served]) -> Result<Cost> {
        wait_for_endpoints(self.stage.kubectl(), served)?;
        meter.read()
    }

    fn serve_bound(&self, bindings: Bindings) -> Result<(Cost, Vec<Served>)> {
        self.shape.fill(self.stage.kubectl())?;
        let pods = self.take(bindings)?;
        let pools = self.shape.pools(self.stage)?;
        if self.way == Way::OneByOne {
            track(self.stage.kubectl())?;
        }
        let meter = self.meter()?;
        let pods = pods.into_iter().map(Ok);
        let served = serve(self.ask(&pools), &self.fleet.sockets(), pods)?;
        Ok((self.cost(&meter, &served)?, served))
    }

    /// As [`Self::serve_bound`], of the product; the controller's fate befalls it when a third of
    /// the Pods is served.
    fn serve_troubled(&self, bindings: Bindings, trouble: Trouble) -> Result<(Cost, Vec<Served>)> {
        self.shape.fill(self.stage.kubectl())?;
        let pods = self.take(bindings)?;
        self.shape.pools(self.stage)?;
        let meter = self.meter()?;
        let (_, leader) = acting_controller(self.stage.cluster)?;
        let (mut troubled, third) = (None, self.shape.pods() / 3);
        let pods = pods.into_iter().map(Ok);
        let served = serve_noting(Ask::Add, &self.fleet.sockets(), pods, |before| {
            if before == third {
                troubled = Some(trouble.befall(leader));
            }
            Ok(())
        })?;
        drop(troubled);
        eventually(LIMIT, "a controller acts", || {
            acting_controller(self.stage.cluster).map(drop)
        })?;
        Ok((self.cost(&meter, &served)?, served))
    }

    fn serve_live(&self, bindings: Bindings) -> Result<(Cost, Vec<Served>)> {
        ensure!(
            self.way != Way::OneByOne,
            "the baseline does not wait for pools"
        );
        let meter = self.meter()?;
        let bound = bindings.take(self.shape.pods());
        let served = thread::scope(|scope| {
            let filled = scope.spawn(|| self.shape.fill(self.stage.kubectl()));
            let served = serve(Ask::Add, &self.fleet.sockets(), bound);
            let filled = filled
                .join()
                .unwrap_or_else(|_| Err(anyhow!("what makes the Pods broke off")));
            filled.and(served)
        })?;
        Ok((self.cost(&meter, &served)?, served))
    }

    /// What came of the calls so far.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Has all Pods deleted and released, and waits until nothing is left; the figures of it all.
    pub fn delete(mut self) -> Result<Figures> {
        let pods = self.pods.drain(..).map(Ok);
        end_pods(self.stage, self.shape)?;
        let released = serve(Ask::Del, &self.fleet.sockets(), pods)?;
        self.figures.add_releases(&released)?;
        take_away(self.stage, self.shape)?;
        self.fleet.end()?;
        Ok(self.figures)
    }
}

/// Has the API server keep `managedFields` of the pools, as of any object: the product's controller
/// ends that for those it makes, of which the baseline is to have nothing.
fn track(kubectl: &Kubectl) -> Result<()> {
    let pools = Pool::all(kubectl)?.into_iter().map(|pool| {
        let metadata = json!({"name": pool.name, "annotations": {"example.org/tracked": "yes"}});
        json!({"apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": metadata})
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pools.collect::<Vec<_>>()});
    kubectl.apply(&list.to_string(), &["--server-side"])?;
    Ok(())
}

/// Does what makes a shape's Pods go, and waits until each is on its way.
pub fn end_pods(stage: &Stage<'_>, shape: Shape) -> Result<()> {
    shape.empty(stage.kubectl())?;
    eventually(LIMIT, "every Pod is being deleted", || {
        let (all, terminating) = count_pods(stage.kubectl())?;
        ensure!(all == terminating, "{terminating} of {all} are");
        Ok(())
    })
}

/// Has Pods that are on their way gone, as no kubelet sees to it, and all that a shape brought.
pub fn take_away(stage: &Stage<'_>, shape: Shape) -> Result<()> {
    delete_all(stage.kubectl(), "/api/v1", "pods?gracePeriodSeconds=0")?;
    shape.remove(stage)
}

/// No two Pods were given the same address, and none more than one.
fn ensure_no_duplicate(served: &[Served], count: usize) -> Result<()> {
    let mut holders = BTreeMap::new();
    for Served { pod, addresses, .. } in served {
        let [address] = addresses.as_slice() else {
            bail!(
                "Pod {} was given {} addresses: {addresses:?}",
                pod.name,
                addresses.len()
            );
        };
        if let Some(other) = holders.insert(plain(address)?, pod) {
            bail!(
                "{address} was given to two Pods: {} and {}",
                other.name,
                pod.name
            );
        }
    }
    ensure!(
        holders.len() == count,
        "{} of {count} Pods were served",
        holders.len()
    );
    Ok(())
}

/// The pools record what was replied, and nothing else.
fn ensure_recorded(pools: &[Pool], served: &[Served]) -> Result<()> {
    let mut recorded = BTreeMap::new();
    for (address, record) in pools.iter().flat_map(|pool| &pool.records) {
        if let Some(other) = recorded.insert(*address, record) {
            bail!(
                "{address} is recorded twice, for {} and {}",
                other.pod,
                record.pod
            );
        }
    }
    for Served { pod, addresses, .. } in served {
        let address = addresses.first().context("a Pod without address")?;
        let record = recorded.remove(&plain(address)?);
        let uid = record.map(|record| record.uid.as_str());
        ensure!(
            uid == Some(pod.uid.as_str()),
            "{address} was given to Pod {} (uid {}), the pools record uid {}",
            pod.name,
            pod.uid,
            uid.unwrap_or("none"),
        );
    }
    let surplus: Vec<_> = recorded
        .values()
        .map(|record| record.pod.as_str())
        .collect();
    ensure!(
        surplus.is_empty(),
        "recorded, but never given: {}",
        surplus.join(" ")
    );
    Ok(())
}

fn plain(address: &str) -> Result<IpAddr> {
    let (address, _) = address
        .split_once('/')
        .context("an address without prefix length")?;
    address
        .parse()
        .with_context(|| format!("not an address: {address}"))
}

/// Waits until each Pod that was served has its endpoint.
fn wait_for_endpoints(kubectl: &Kubectl, served: &[Served]) -> Result<()> {
    let namespace = ["--namespace", NAMESPACE];
    let columns = ["--output", "custom-columns=:.metadata.name", "--no-headers"];
    let args = [&["get", "spiderendpoints"], &namespace[..], &columns[..]].concat();
    eventually(LIMIT, "every Pod has its endpoint", || {
        let text = kubectl.run(&args)?;
        let names: BTreeSet<&str> = text.lines().map(str::trim).collect();
        let has = |it: &&Served| names.contains(it.pod.name.as_str());
        let count = served.iter().filter(has).count();
        ensure!(count == served.len(), "{count} of {} have", served.len());
        Ok(())
    })
}

/// All objects of a kind in the namespace, in one call; in several where the API server, which
/// gives a call a minute, does not get to all of them.
pub fn delete_all(kubectl: &Kubectl, group: &str, which: &str) -> Result<()> {
    let path = format!("{group}/namespaces/{NAMESPACE}/{which}");
    eventually(LIMIT, "everything is deleted", || {
        kubectl.run(&["delete", "--raw", &path]).map(drop)
    })
}

/// How many Pods there are, and how many of them are being deleted.
fn count_pods(kubectl: &Kubectl) -> Result<(usize, usize)> {
    let columns = "jsonpath={range .items[*]}-{.metadata.deletionTimestamp}{\"\\n\"}{end}";
    let lines = kubectl.run(&["get", "pods", "--namespace", NAMESPACE, "--output", columns])?;
    let terminating = lines.lines().filter(|line| line.len() > 1).count();
    Ok((lines.lines().count(), terminating))
}

/// What happens to the controller that acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// SIGSTOP, until all Pods are served.
    Stopped,
    /// SIGKILL.
    Killed,
}

impl Trouble {
    /// One after the other.
    pub const ALL: [Self; 2] = [Self::Stopped, Self::Killed];

    /// Its row's key in a file of figures.
    pub fn key(self) -> &'static str {
        match self {
            Self::Stopped => "ours_stopped",
            Self::Killed => "ours_killed",
        }
    }

    fn befall(self, leader: Process) -> Befallen {
        say(format_args!("… the controller that acts is {self}"));
        leader.signal(match self {
            Self::Stopped => Signal::STOP,
            Self::Killed => Signal::KILL,
        });
        Befallen(leader)
    }
}

/// A controller in trouble; it goes on when this is dropped, if it can.
struct Befallen(Process);

impl Drop for Befallen {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Killed => "killed",
        })
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound => f.write_str("all Pods bound before the first call"),
            Self::Live => f.write_str("each call as its Pod is bound"),
            Self::Troubled(trouble) => write!(f, "the acting controller {trouble} in the midst"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::objects::{Counts, Record};

    fn served(name: &str, address: &str) -> Served {
        let pod = Pod {
            name: name.into(),
            uid: format!("uid-{name}"),
            app: "a".into(),
            node: 0,
        };
        let now = Instant::now();
        Served {
            pod,
            began: now,
            ended: now,
            failures: vec![],
            addresses: vec![address.into()],
        }
    }

    fn pool(records: &[(&str, &str)]) -> Pool {
        let record = |(address, pod): &(&str, &str)| {
            let record = Record {
                pod: format!("load/{pod}"),
                uid: format!("uid-{pod}"),
                sandbox: None,
            };
            (address.parse().unwrap(), record)
        };
        Pool {
            name: "p".into(),
            cidr: "10.0.0.0/24".into(),
            addresses: records
                .iter()
                .map(|(address, _)| address.parse().unwrap())
                .collect(),
            records: records.iter().map(record).collect(),
            counts: Counts::default(),
            conditions: vec![],
            affinity: BTreeMap::new(),
            terminating: false,
        }
    }

    #[test]
    fn a_planted_duplicate_is_found() {
        let twice = [served("a", "10.0.0.1/24"), served("b", "10.0.0.1/24")];
        let error = ensure_no_duplicate(&twice, 2).unwrap_err().to_string();
        assert_eq!(error, "10.0.0.1/24 was given to two Pods: a and b");
    }

    #[test]
    fn records_are_the_replies_and_nothing_else() {
        let replies = [served("a", "10.0.0.1/24"), served("b", "10.0.0.2/24")];
        let both = pool(&[("10.0.0.1", "a"), ("10.0.0.2", "b")]);
        assert!(ensure_recorded(std::slice::from_ref(&both), &replies).is_ok());
        let error = |pools: &[Pool]| ensure_recorded(pools, &replies).unwrap_err().to_string();
        assert!(error(&[pool(&[("10.0.0.1", "a")])]).contains("record uid none"));
        assert!(error(&[pool(&[("10.0.0.1", "b"), ("10.0.0.2", "b")])]).contains("uid-b"));
        let more = pool(&[("10.0.0.3", "c")]);
        assert_eq!(
            error(&[both.clone(), more]),
            "recorded, but never given: load/c"
        );
        assert!(error(&[both.clone(), both]).contains("is recorded twice"));
    }
}
