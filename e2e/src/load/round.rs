//! One try: a shape's Pods get addresses from one kind of agents, which is checked, and give them
//! back, which is checked too.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use super::PODS;
use super::bindings::{Bindings, Pod};
use super::figures::{Figures, Meter};
use super::fleet::{Fleet, Way};
use super::kubelets::{Ask, Served, serve, serve_noting};
use super::shape::Shape;
use super::stage::{NAMESPACE, Stage};
use crate::cluster::kubectl::Kubectl;
use crate::process::Process;
use crate::product::acting_controller;
use crate::product::objects::Pool;
use crate::progress::say;
use crate::wait::eventually;

/// How long objects may take to follow.
const LIMIT: Duration = Duration::from_secs(240);

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
        let fleet = Fleet::start(stage, way)?;
        let bindings = Bindings::watch(stage.kubectl())?;
        let created = Instant::now();
        let (meter, served) = match clock {
            Clock::Bound => Self::serve_bound(stage, shape, way, &fleet, bindings)?,
            Clock::Live => Self::serve_live(stage, shape, way, &fleet, bindings)?,
            Clock::Troubled(trouble) => {
                Self::serve_troubled(stage, shape, &fleet, bindings, trouble)?
            }
        };
        ensure_no_duplicate(&served)?;
        ensure_recorded(&Pool::all(stage.kubectl())?, &served)?;
        wait_for_endpoints(stage)?;
        let figures = Figures::of(&served, created, meter.read(stage, &fleet)?)?;
        say(format_args!("… {}", figures.in_short()));
        let pods = served.into_iter().map(|served| served.pod).collect();
        Ok(Self {
            stage,
            shape,
            fleet,
            pods,
            figures,
        })
    }

    fn serve_bound(
        stage: &Stage<'_>,
        shape: Shape,
        way: Way,
        fleet: &Fleet,
        bindings: Bindings,
    ) -> Result<(Meter, Vec<Served>)> {
        stage.kubectl().create(&shape.deployments(), &[])?;
        let pods = bindings.take(PODS).collect::<Result<Vec<_>>>()?;
        let pools = shape.pools(stage)?;
        let ask = match way {
            Way::Product | Way::Alone => Ask::Add,
            Way::OneByOne => Ask::AddFrom(&pools),
        };
        let meter = Meter::start(stage, fleet, way)?;
        let served = serve(ask, &fleet.sockets(), pods.into_iter().map(Ok))?;
        Ok((meter, served))
    }

    /// As [`Self::serve_bound`], of the product; the controller's fate befalls it when a third of
    /// the Pods is served.
    fn serve_troubled(
        stage: &Stage<'_>,
        shape: Shape,
        fleet: &Fleet,
        bindings: Bindings,
        trouble: Trouble,
    ) -> Result<(Meter, Vec<Served>)> {
        stage.kubectl().create(&shape.deployments(), &[])?;
        let pods = bindings.take(PODS).collect::<Result<Vec<_>>>()?;
        shape.pools(stage)?;
        let meter = Meter::start(stage, fleet, Way::Product)?;
        let (_, leader) = acting_controller(stage.cluster)?;
        let mut troubled = None;
        let pods = pods.into_iter().map(Ok);
        let served = serve_noting(Ask::Add, &fleet.sockets(), pods, |before| {
            if before == PODS / 3 {
                troubled = Some(trouble.befall(leader));
            }
            Ok(())
        })?;
        drop(troubled);
        eventually(LIMIT, "a controller acts", || {
            acting_controller(stage.cluster).map(drop)
        })?;
        Ok((meter, served))
    }

    fn serve_live(
        stage: &Stage<'_>,
        shape: Shape,
        way: Way,
        fleet: &Fleet,
        bindings: Bindings,
    ) -> Result<(Meter, Vec<Served>)> {
        ensure!(way != Way::OneByOne, "the baseline does not wait for pools");
        let meter = Meter::start(stage, fleet, way)?;
        let served = thread::scope(|scope| {
            let create = scope.spawn(|| stage.kubectl().create(&shape.deployments(), &[]));
            let served = serve(Ask::Add, &fleet.sockets(), bindings.take(PODS));
            let created = create
                .join()
                .unwrap_or_else(|_| Err(anyhow!("kubectl create")));
            created.and(served)
        })?;
        Ok((meter, served))
    }

    /// Has all Pods deleted and released, and waits until nothing is left; the figures of it all.
    pub fn delete(mut self) -> Result<Figures> {
        let kubectl = self.stage.kubectl();
        delete_all(
            kubectl,
            "/apis/apps/v1",
            "deployments?propagationPolicy=Background",
        )?;
        eventually(LIMIT, "every Pod is being deleted", || {
            let (all, terminating) = count_pods(kubectl)?;
            ensure!(
                (all, terminating) == (PODS, PODS),
                "{terminating} of {all} are"
            );
            Ok(())
        })?;
        let pods = self.pods.drain(..).map(Ok);
        let released = serve(Ask::Del, &self.fleet.sockets(), pods)?;
        self.figures.add_releases(&released)?;
        delete_all(kubectl, "/api/v1", "pods?gracePeriodSeconds=0")?;
        self.shape.remove(self.stage)?;
        self.fleet.end()?;
        Ok(self.figures)
    }
}

/// No two Pods were given the same address, and none more than one.
fn ensure_no_duplicate(served: &[Served]) -> Result<()> {
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
        holders.len() == PODS,
        "{} of {PODS} Pods were served",
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

/// Endpoints may follow the answers; they are part of the work.
fn wait_for_endpoints(stage: &Stage<'_>) -> Result<()> {
    eventually(LIMIT, "every Pod has its endpoint", || {
        let args = [
            "get",
            "spiderendpoints",
            "--namespace",
            NAMESPACE,
            "--output",
            "name",
        ];
        let count = stage.kubectl().run(&args)?.lines().count();
        ensure!(count == PODS, "{count} of {PODS} have");
        Ok(())
    })
}

/// All objects of a kind in the namespace, in one call; in several where the API server, which
/// gives a call a minute, does not get to all of them.
fn delete_all(kubectl: &Kubectl, group: &str, which: &str) -> Result<()> {
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
        let error = ensure_no_duplicate(&twice).unwrap_err().to_string();
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
