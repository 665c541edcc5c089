//! Sixty Pods come and go for three minutes while everything that they need is killed and paused:
//! controller, agents, kubelets, API server, etcd. In the end all of them run, nobody lost an address
//! that was fixed, none is there twice, the books agree, and once the workloads go nothing is left.
//!
//! A blow falls after Pods that were deleted since the last one run again, so blows meet Pods on
//! their way. What nobody starts again after SIGKILL is started as it was, by its own command line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::cluster::lab::Lab;
use crate::command::run as run_command;
use crate::process::{Process, command_line};
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, names};
use crate::product::{self, Role, acting_controller};
use crate::progress::say;
use crate::wait::{ensure_going_on, eventually, eventually_some};
use crate::workload::{
    Deployment, NUMBER, SETTLE, START, delete, gone, leaving_nothing, running, subnet,
};

/// How long it lasts, at least.
const LASTS: Duration = Duration::from_mins(3);
/// Pods of the Deployment, and of the StatefulSet.
const APPS: [(&str, usize); 2] = [("web", 40), ("db", 20)];
/// How many Pods of each are deleted at once.
const DELETED: usize = 4;
/// How many must run before more are deleted.
const MOST: usize = 50;
/// How long what is paused stays so: the others notice, and give up some calls.
const PAUSE: Duration = Duration::from_secs(6);
/// The same for a controller: its Lease runs out, and another one acts when it goes on.
const LONG_PAUSE: Duration = Duration::from_secs(20);

/// Whom a blow strikes.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The controller that acts.
    Controller,
    /// The agent of the nth node.
    Agent(usize),
    /// The kubelet of the nth node.
    Kubelet(usize),
    /// `kube-apiserver` or `etcd`.
    Plane(&'static str),
}

/// How.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT so much later.
    Pause(Duration),
}

const BLOWS: [(Blow, Victim); 14] = [
    (Blow::Kill, Victim::Controller),
    (Blow::Pause(PAUSE), Victim::Agent(0)),
    (Blow::Kill, Victim::Kubelet(1)),
    (Blow::Pause(PAUSE), Victim::Plane("kube-apiserver")),
    (Blow::Kill, Victim::Agent(1)),
    (Blow::Pause(LONG_PAUSE), Victim::Controller),
    (Blow::Kill, Victim::Plane("etcd")),
    (Blow::Pause(PAUSE), Victim::Kubelet(0)),
    (Blow::Kill, Victim::Plane("kube-apiserver")),
    (Blow::Pause(PAUSE), Victim::Plane("etcd")),
    (Blow::Kill, Victim::Agent(0)),
    (Blow::Pause(PAUSE), Victim::Agent(1)),
    (Blow::Kill, Victim::Kubelet(0)),
    (Blow::Pause(PAUSE), Victim::Kubelet(1)),
];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "churn", |namespace| {
        let kubectl = cluster.kubectl();
        subnet(kubectl, "churn", &["172.18.41.100-172.18.41.179"])?;
        for (app, count) in APPS {
            let workload = Deployment::new(app, u32::try_from(count)?).with_subnet("churn");
            let (workload, spare) = match app {
                "db" => (workload.as_stateful_set(), "+0"),
                _ => (workload, "+4"),
            };
            workload
                .annotated(NUMBER, spare)
                .create(kubectl, namespace)?;
        }
        let stage = Stage {
            cluster,
            kubectl,
            namespace,
            rounds: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        };
        let before = fixed(&stage.all_run()?)?;
        thread::scope(|scope| {
            let churn = scope.spawn(|| stage.churn());
            let struck = stage.strike_all();
            stage.is_over.store(true, Ordering::Relaxed);
            let churned = churn.join().map_err(|_| anyhow!("the churn broke off"))?;
            struck.and(churned)
        })?;
        product::ensure_working(cluster)?;
        let pods = stage.all_run()?;
        let after = fixed(&pods)?;
        ensure!(
            before == after,
            "Pods of db had {before:?} and have {after:?}"
        );
        stage.pools_follow()?;
        stage.one_host_answers(&pods)?;
        stage.nothing_is_left()
    })
}

struct Stage<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
    /// How often Pods were deleted, and most ran again.
    rounds: AtomicUsize,
    is_over: AtomicBool,
}

impl Stage<'_> {
    /// Deletes a few Pods of each app again and again, those that were there longest first.
    fn churn(&self) -> Result<()> {
        let mut known = BTreeMap::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let round = self.rounds.load(Ordering::Relaxed);
            // Nobody answers while the API server is struck: that is no failure.
            eventually(START, "Pods are deleted", || {
                self.delete_some(round, &mut known)
            })?;
            eventually(START, "most Pods run again", || {
                let ready = self.ready()?.len();
                ensure!(ready >= MOST, "{ready} run");
                Ok(())
            })?;
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// `known` has the round in which each Pod was seen first.
    fn delete_some(&self, round: usize, known: &mut BTreeMap<String, usize>) -> Result<()> {
        let mut pods = self.ready()?;
        pods.sort_by_key(|pod| *known.entry(pod.uid.clone()).or_insert(round));
        let mut args = vec!["delete", "pod", "--wait=false", "--ignore-not-found"];
        args.extend(["--namespace", self.namespace]);
        for (app, _) in APPS {
            let prefix = format!("{app}-");
            let of_app = pods.iter().filter(|pod| pod.name.starts_with(&prefix));
            args.extend(of_app.take(DELETED).map(|pod| pod.name.as_str()));
        }
        self.kubectl.run(&args).map(drop)
    }

    fn ready(&self) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for (app, _) in APPS {
            pods.extend(Pod::of_app(self.kubectl, self.namespace, app)?);
        }
        pods.retain(|pod| pod.ready && !pod.terminating);
        Ok(pods)
    }

    /// One blow after the other, each at least once, until it has lasted long enough.
    fn strike_all(&self) -> Result<()> {
        let end = Instant::now() + LASTS;
        for (nth, (blow, victim)) in BLOWS.into_iter().cycle().enumerate() {
            if nth >= BLOWS.len() && Instant::now() >= end {
                break;
            }
            let round = self.rounds.load(Ordering::Relaxed);
            say(format_args!(
                "{blow:?} {victim:?}, {round} rounds of deletions so far"
            ));
            let context = || format!("{blow:?} {victim:?}");
            self.strike(blow, victim).with_context(context)?;
            eventually(2 * START, "Pods were deleted and ran again", || {
                let now = self.rounds.load(Ordering::Relaxed);
                ensure!(now > round, "none since {round} rounds");
                Ok(())
            })
            .with_context(context)?;
        }
        Ok(())
    }

    fn strike(&self, blow: Blow, victim: Victim) -> Result<()> {
        let (lab, process) = eventually(SETTLE, "it runs", || self.find(victim))?;
        match blow {
            Blow::Pause(length) => {
                let _goes_on = Paused::new(process);
                let end = Instant::now() + length;
                // Nothing tells that others gave up on it but time.
                eventually_some(2 * length, "the pause is over", || {
                    Ok((Instant::now() >= end).then_some(()))
                })
            }
            Blow::Kill => {
                let words = command_line(process.pid());
                process.kill()?;
                match victim {
                    Victim::Agent(_) | Victim::Controller => Ok(()),
                    Victim::Kubelet(_) | Victim::Plane(_) => self.start_again(lab, &words),
                }
            }
        }
    }

    /// Where it runs, and the process itself.
    fn find(&self, victim: Victim) -> Result<(Lab, Process)> {
        let node = |nth: usize| self.cluster.nodes().get(nth).context("no such node");
        match victim {
            Victim::Controller => {
                let (node, process) = acting_controller(self.cluster)?;
                Ok((node.lab(), process))
            }
            Victim::Agent(nth) => {
                let agent = Role::Agent.process_on(node(nth)?);
                Ok((node(nth)?.lab(), agent.context("no agent runs")?))
            }
            Victim::Kubelet(nth) => Ok((node(nth)?.lab(), node(nth)?.kubelet()?)),
            Victim::Plane(name) => Ok((self.cluster.lab(), self.cluster.component(name)?)),
        }
    }

    /// Starts what was killed, as it was.
    fn start_again(&self, lab: Lab, words: &[String]) -> Result<()> {
        let (program, args) = words.split_first().context("a process without a name")?;
        let log = self.cluster.file("log/struck.log");
        lab.start(program.as_ref(), args, &log).map(drop)
    }

    fn all_run(&self) -> Result<Vec<Pod>> {
        ensure_going_on()?;
        let mut pods = Vec::new();
        for (app, count) in APPS {
            let all = eventually(2 * START, "all Pods run", || {
                running(self.kubectl, self.namespace, app, count)
            })?;
            pods.extend(all);
        }
        eventually(SETTLE, "the books agree", || {
            Books::read(self.kubectl)?.ensure_agree()
        })?;
        Ok(pods)
    }

    fn pools_follow(&self) -> Result<()> {
        eventually(SETTLE, "pools are as large as they should be", || {
            for (kind, name, size) in [("Deployment", "web", 44), ("StatefulSet", "db", 20)] {
                let pools = Pool::of_workload(self.kubectl, kind, self.namespace, name)?;
                let sizes: Vec<usize> = pools.iter().map(|pool| pool.addresses.len()).collect();
                ensure!(sizes == [size], "{name} has pools of {sizes:?}");
            }
            Ok(())
        })
    }

    /// Another witness than namespaces: each address is asked for by ARP, and one host answers.
    fn one_host_answers(&self, pods: &[Pod]) -> Result<()> {
        let ips: Vec<String> = pods
            .iter()
            .map(|pod| pod.ip().map(|ip| ip.to_string()))
            .collect::<Result<_>>()?;
        let script = format!(
            "for ip in {}; do busybox arping -b -c 2 -w 3 -I e2e0 $ip & done; wait",
            ips.join(" ")
        );
        let said = run_command(self.cluster.lab().enter_network("sh").args(["-c", &script]))?;
        let answers = answers(&said);
        for ip in &ips {
            let macs = answers.get(ip.as_str()).map_or(0, BTreeSet::len);
            ensure!(
                macs == 1,
                "{macs} hosts answer for {ip}: {:?}",
                answers.get(ip.as_str())
            );
        }
        say(format_args!(
            "one host each answers for {} addresses",
            ips.len()
        ));
        Ok(())
    }

    fn nothing_is_left(&self) -> Result<()> {
        for what in ["deployment/web", "statefulset/db"] {
            delete(self.kubectl, &[what, "--namespace", self.namespace])?;
        }
        for (app, _) in APPS {
            gone(self.kubectl, self.namespace, app)?;
        }
        eventually(2 * SETTLE, "no pool and no endpoint is left", || {
            let books = Books::read(self.kubectl)?;
            let pools: Vec<&String> = books.pools.iter().map(|pool| &pool.name).collect();
            ensure!(pools.is_empty(), "pools {pools:?}");
            let endpoints = names(self.kubectl, "spiderendpoints")?;
            ensure!(endpoints.is_empty(), "endpoints {endpoints:?}");
            books.ensure_agree()
        })?;
        delete(self.kubectl, &["spidersubnet", "churn"])
    }
}

/// A process that goes on when this is dropped.
struct Paused(Process);

impl Paused {
    fn new(process: Process) -> Self {
        process.signal(Signal::STOP);
        Self(process)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// The addresses of the StatefulSet's Pods.
fn fixed(pods: &[Pod]) -> Result<BTreeMap<String, IpAddr>> {
    let of_set = pods.iter().filter(|pod| pod.name.starts_with("db-"));
    of_set
        .map(|pod| Ok((pod.name.clone(), pod.ip()?)))
        .collect()
}

/// Who answered for which address, by `arping`'s lines: `Unicast reply from 10.0.0.1 [02:…] 0.1ms`.
fn answers(said: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut found = BTreeMap::<&str, BTreeSet<&str>>::new();
    for line in said.lines().filter(|line| line.contains("reply from")) {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word != "from")
            .skip(1);
        if let (Some(ip), Some(mac)) = (words.next(), words.next()) {
            found.entry(ip).or_default().insert(mac);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hosts_that_answer_for_one_address_are_told_apart() {
        let said = "ARPING 10.0.0.1 from 10.0.0.9 e2e0\n\
                    Unicast reply from 10.0.0.1 [02:00:00:00:00:01] 0.012ms\n\
                    Unicast reply from 10.0.0.2 [02:00:00:00:00:02] 0.012ms\n\
                    Unicast reply from 10.0.0.1 [02:00:00:00:00:03] 0.020ms\n";
        let counts = answers(said).into_iter().map(|(ip, macs)| (ip, macs.len()));
        assert_eq!(
            counts.collect::<Vec<_>>(),
            [("10.0.0.1", 2), ("10.0.0.2", 1)]
        );
    }
}
