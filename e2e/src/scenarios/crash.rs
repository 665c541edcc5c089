//! Processes killed in the middle of a scale-up: nothing is lost, nothing is given twice.
//!
//! Ten times a Deployment is scaled to thirty Pods, and each time SIGKILL ends the acting
//! controller or an agent at another point of the way. The judge watches all along.
//!
//! Two of the points lie between the ledger's write and the pool's, which are milliseconds apart.
//! There an admission policy refuses the pool's write, so that it surely has not happened when the
//! kill comes, as soon as a watch shows the ledger's.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::product::addresses::Addresses;
use crate::product::books::Books;
use crate::product::objects::{Pool, Subnet};
use crate::product::watch::Watch;
use crate::product::{self, Role, acting_controller};
use crate::progress::say;
use crate::wait::eventually;
use crate::workload::{
    Deployment, NUMBER, SETTLE, delete, gone, leaving_nothing, retire, running, scale, subnet,
};

const REPLICAS: usize = 30;
/// How often a point is tried that the cluster was too fast for.
const TRIES: u32 = 5;
/// The policy that holds the pool's write back, and its binding.
const HOLD: &str = "e2e-hold-pools";

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The controller that acts.
    Controller,
    /// The agent of the nth node.
    Agent(usize),
}

/// When.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as so many addresses are recorded, and not yet all.
    Recorded(usize),
    /// With so many recorded, and the others in the ledger but not yet in the pool.
    BetweenWrites(usize),
}

const POINTS: [(Moment, Victim); 10] = [
    (Moment::Recorded(1), Victim::Agent(0)),
    (Moment::Recorded(2), Victim::Controller),
    (Moment::Recorded(5), Victim::Agent(1)),
    (Moment::BetweenWrites(8), Victim::Controller),
    (Moment::Recorded(11), Victim::Controller),
    (Moment::Recorded(14), Victim::Agent(0)),
    (Moment::Recorded(16), Victim::Controller),
    (Moment::BetweenWrites(20), Victim::Controller),
    (Moment::Recorded(18), Victim::Agent(1)),
    (Moment::Recorded(20), Victim::Agent(0)),
];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "crash", |namespace| {
        let kubectl = cluster.kubectl();
        subnet(kubectl, "crash", &["172.18.41.100-172.18.41.179"])?;
        let web = Deployment::new("web", 0)
            .with_subnet("crash")
            .annotated(NUMBER, "+0");
        web.create(kubectl, namespace)?;
        let stage = Stage {
            cluster,
            namespace,
            pool: empty_pool(cluster, namespace)?,
        };
        for (nth, (moment, victim)) in (1..).zip(POINTS) {
            stage
                .point(moment, victim)
                .with_context(|| format!("point {nth}: {victim:?} at {moment:?}"))?;
        }
        retire(kubectl, namespace, "web")?;
        delete(kubectl, &["spidersubnet", "crash"])?;
        Ok(())
    })
}

/// What all points have in common.
struct Stage<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    pool: String,
}

impl Stage<'_> {
    /// One scale-up with a kill on the way. In the end all run, and the books agree.
    fn point(&self, moment: Moment, victim: Victim) -> Result<()> {
        let at = match moment {
            Moment::Recorded(least) => self.kill_on_the_way(least, victim)?,
            Moment::BetweenWrites(before) => self.kill_between_writes(before, victim)?,
        };
        say(format_args!(
            "killed: {victim:?}, {moment:?}, at {at} of {REPLICAS} recorded"
        ));
        self.all_run()?;
        self.none_runs()?;
        product::ensure_working(self.cluster)
    }

    /// Kills when at least so many addresses are recorded, and returns how many were.
    fn kill_on_the_way(&self, least: usize, victim: Victim) -> Result<usize> {
        for _ in 0..TRIES {
            let process = self.find(victim)?;
            let recorded = self.watch_recorded()?;
            scale(self.cluster.kubectl(), self.namespace, "web", REPLICAS)?;
            let what = format!("{least} addresses recorded");
            let at = recorded.first(SETTLE, &what, |value| at_least(value, least))?;
            if at < REPLICAS {
                process.kill()?;
                return Ok(at);
            }
            say(format_args!(
                "all were recorded before {least} were seen: once more"
            ));
            self.all_run()?;
            self.none_runs()?;
        }
        anyhow::bail!("the scale-up was too fast for {least} addresses, {TRIES} times")
    }

    /// Kills when the ledger has all addresses, and the pool only those of the first Pods.
    fn kill_between_writes(&self, before: usize, victim: Victim) -> Result<usize> {
        let kubectl = self.cluster.kubectl();
        scale(kubectl, self.namespace, "web", before)?;
        running(kubectl, self.namespace, "web", before)?;
        eventually(SETTLE, "the first Pods have their pool", || {
            self.sizes_are(before, before)
        })?;
        self.hold_pools()?;
        let process = self.find(victim)?;
        let given = Watch::of(kubectl, "spidersubnet", "crash", ".status.allocatedIPCount")?;
        scale(kubectl, self.namespace, "web", REPLICAS)?;
        given.first(SETTLE, "a ledger with all addresses", |value| {
            at_least(value, REPLICAS)
        })?;
        process.kill()?;
        self.sizes_are(REPLICAS, before)
            .context("not between the writes")?;
        let at = Pool::of_deployment(kubectl, self.namespace, "web")?
            .records
            .len();
        self.let_pools_go()?;
        Ok(at)
    }

    fn find(&self, victim: Victim) -> Result<Process> {
        match victim {
            Victim::Controller => acting_controller(self.cluster).map(|(_, process)| process),
            Victim::Agent(nth) => {
                let node = self.cluster.nodes().get(nth).context("no such node")?;
                let agent = Role::Agent.process_on(node);
                agent.with_context(|| format!("no agent runs on node {}", node.name()))
            }
        }
    }

    fn watch_recorded(&self) -> Result<Watch> {
        let field = ".status.allocatedIPCount";
        Watch::of(self.cluster.kubectl(), "spiderippool", &self.pool, field)
    }

    fn all_run(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        running(kubectl, self.namespace, "web", REPLICAS)?;
        eventually(SETTLE, "ledger, pool and Pods agree", || {
            self.sizes_are(REPLICAS, REPLICAS)?;
            Books::read(kubectl)?.ensure_agree()
        })
    }

    fn none_runs(&self) -> Result<()> {
        scale(self.cluster.kubectl(), self.namespace, "web", 0)?;
        gone(self.cluster.kubectl(), self.namespace, "web")?;
        let pool = empty_pool(self.cluster, self.namespace)?;
        ensure!(pool == self.pool, "pool {} became pool {pool}", self.pool);
        eventually(SETTLE, "an empty ledger", || self.sizes_are(0, 0))
    }

    /// Errors: the ledger or the pool has another number of addresses.
    fn sizes_are(&self, ledger: usize, pool: usize) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        let has = Pool::of_deployment(kubectl, self.namespace, "web")?
            .addresses
            .len();
        let subnet = Subnet::named(kubectl, "crash")?;
        let given = subnet.ledger.get(&self.pool).map_or(0, Addresses::len);
        ensure!(
            (given, has) == (ledger, pool),
            "the ledger has {given}, the pool {has}"
        );
        Ok(())
    }

    /// Has the API server refuse every change of a pool's addresses, and waits until it does.
    fn hold_pools(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        let group = "spiderpool.spidernet.io";
        let rule = json!({
            "apiGroups": [group],
            "apiVersions": ["*"],
            "operations": ["UPDATE"],
            "resources": ["spiderippools"],
        });
        let same = "object.spec.?ips.orValue([]) == oldObject.spec.?ips.orValue([])";
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": HOLD },
            "spec": {
                "matchConstraints": { "resourceRules": [rule] },
                "validations": [{ "expression": same, "message": "held back" }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": HOLD },
            "spec": { "policyName": HOLD, "validationActions": ["Deny"] },
        });
        for object in [policy, binding] {
            kubectl.apply(&object.to_string(), &[])?;
        }
        eventually(SETTLE, "pools are held", || {
            ensure!(self.is_held(), "a pool's addresses can be changed");
            Ok(())
        })
    }

    fn let_pools_go(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        for kind in [
            "validatingadmissionpolicybinding",
            "validatingadmissionpolicy",
        ] {
            delete(kubectl, &[kind, HOLD])?;
        }
        Ok(())
    }

    fn is_held(&self) -> bool {
        let change = json!({ "spec": { "ips": ["172.18.41.180"] } }).to_string();
        let patch = [
            "patch",
            "spiderippool",
            &self.pool,
            "--dry-run=server",
            "--type=merge",
        ];
        let tried = self
            .cluster
            .kubectl()
            .run(&[&patch[..], &["--patch", &change]].concat());
        tried.is_err_and(|error| format!("{error:#}").contains("held back"))
    }
}

impl Drop for Stage<'_> {
    /// A policy left behind would hold up everything after a failure.
    fn drop(&mut self) {
        let _ = self.let_pools_go();
    }
}

/// Waits until the Deployment's pool has no address and no record, and returns its name.
fn empty_pool(cluster: &Cluster, namespace: &str) -> Result<String> {
    eventually(SETTLE, "an empty pool", || {
        let pool = Pool::of_deployment(cluster.kubectl(), namespace, "web")?;
        let (size, used) = (pool.addresses.len(), pool.records.len());
        ensure!(
            (size, used) == (0, 0),
            "{used} of {size} addresses are in use"
        );
        Ok(pool.name)
    })
}

fn at_least(value: &str, least: usize) -> Option<usize> {
    value.parse().ok().filter(|count| *count >= least)
}
