//! Two controllers, one of which acts; agents that need neither; and an upgrade of both roles while
//! Pods come and go.
//!
//! The runtime's calls are the witness: through all of it none may fail, since a Pod whose call
//! fails starts late, or not at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool};
use crate::product::{self, CONTROLLERS, NAMESPACE, acting_controller};
use crate::progress::say;
use crate::tap;
use crate::wait::eventually;
use crate::workload::{
    Deployment, NUMBER, SETTLE, delete, gone, leaving_nothing, pool, retire, running, scale,
    subnet, template,
};

/// The Pods that come and go.
const REPLICAS: usize = 4;
/// Pods that are replaced while roles are upgraded, at least.
const CHURNED: usize = 4;

/// The pool of Pods that ask for none, and whose workload doesn't either.
const BY_HAND: &str = "by-hand";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "availability", |namespace| {
        let kubectl = cluster.kubectl();
        let since = tap::now();
        subnet(kubectl, "available", &["172.18.41.100-172.18.41.129"])?;
        let spec = json!({ "ips": ["172.18.41.120-172.18.41.129"], "default": true });
        pool(kubectl, BY_HAND, &spec)?;
        let web = Deployment::new("web", u32::try_from(REPLICAS)?).with_subnet("available");
        web.annotated(NUMBER, "+1").create(kubectl, namespace)?;
        let stage = Stage {
            cluster,
            kubectl,
            namespace,
        };
        stage.follows(REPLICAS)?;
        stage.leader_is_killed()?;
        stage.leader_is_stopped()?;
        stage.none_is_there()?;
        stage.both_are_upgraded()?;
        stage.no_call_failed(since)?;
        retire(kubectl, namespace, "web")?;
        delete(kubectl, &["spiderippool", BY_HAND])?;
        delete(kubectl, &["spidersubnet", "available"])
    })
}

struct Stage<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
}

impl Stage<'_> {
    fn leader_is_killed(&self) -> Result<()> {
        say("the acting controller killed");
        acting_controller(self.cluster)?.1.kill()?;
        scale(self.kubectl, self.namespace, "web", REPLICAS + 2)?;
        self.follows(REPLICAS + 2)
    }

    /// One that is told to stop gives the Lease back, and the other one acts.
    fn leader_is_stopped(&self) -> Result<()> {
        say("the acting controller stopped");
        let leader = product::leader(self.cluster)?;
        let args = ["delete", "pod", &leader, "--wait=false"];
        self.kubectl
            .run(&[&args[..], &["--namespace", NAMESPACE]].concat())?;
        eventually(SETTLE, "another controller leads", || {
            let now = product::leader(self.cluster)?;
            ensure!(now != leader, "{now} leads");
            Ok(())
        })?;
        scale(self.kubectl, self.namespace, "web", REPLICAS)?;
        self.follows(REPLICAS)?;
        product::ensure_working(self.cluster)
    }

    /// Without any controller, Pods are replaced: each finds an address in its pool.
    fn none_is_there(&self) -> Result<()> {
        say("no controller at all, and all Pods replaced");
        product::scale_controllers(self.cluster, 0)?;
        let before = uids(&running(self.kubectl, self.namespace, "web", REPLICAS)?);
        let args = ["delete", "pods", "--selector=app=web"];
        self.kubectl
            .run(&[&args[..], &["--namespace", self.namespace]].concat())?;
        let after = uids(&running(self.kubectl, self.namespace, "web", REPLICAS)?);
        let stayed = after.iter().filter(|uid| before.contains(uid)).count();
        ensure!(stayed == 0, "{stayed} Pods are the same");
        self.every_other_kind_starts()?;
        product::scale_controllers(self.cluster, CONTROLLERS)
    }

    /// Agents find out themselves whose the Pods are, and what those ask for: of a `DaemonSet`, and of
    /// a `CronJob`'s Job.
    fn every_other_kind_starts(&self) -> Result<()> {
        let mut once = template("hourly", &json!({}));
        once["spec"]["restartPolicy"] = json!("Never");
        let everywhere = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "each" },
            "spec": {
                "selector": { "matchLabels": { "app": "each" } },
                "template": template("each", &json!({})),
            },
        });
        let hourly = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "hourly" },
            "spec": {
                "schedule": "0 * * * *", "suspend": true,
                "jobTemplate": { "spec": { "template": once } },
            },
        });
        let here = ["--namespace", self.namespace];
        for object in [everywhere, hourly] {
            self.kubectl.apply(&object.to_string(), &here)?;
        }
        let now = ["create", "job", "now", "--from=cronjob/hourly"];
        self.kubectl.run(&[&now[..], &here].concat())?;
        running(
            self.kubectl,
            self.namespace,
            "each",
            self.cluster.nodes().len(),
        )?;
        running(self.kubectl, self.namespace, "hourly", 1)?;
        for object in ["daemonset/each", "cronjob/hourly"] {
            delete(self.kubectl, &[&[object][..], &here].concat())?;
        }
        gone(self.kubectl, self.namespace, "each")?;
        gone(self.kubectl, self.namespace, "hourly")
    }

    /// All Pods of both roles are replaced while Pods come and go.
    fn both_are_upgraded(&self) -> Result<()> {
        say("helm upgrade of both roles, while Pods come and go");
        let is_over = AtomicBool::new(false);
        let upgrade = || {
            let roles = ["spiderpoolAgent", "spiderpoolController"];
            let marks = roles.map(|role| format!("{role}.podAnnotations.upgraded=again"));
            let args = ["--reuse-values", "--set", &marks[0], "--set", &marks[1]];
            product::upgrade(self.cluster, &args)
        };
        let churned = thread::scope(|scope| {
            let churn = scope.spawn(|| self.churn(&is_over));
            let upgraded = upgrade();
            is_over.store(true, Ordering::Relaxed);
            let churned = churn.join().map_err(|_| anyhow!("the churn broke off"))?;
            upgraded.and(churned)
        })?;
        ensure!(churned >= CHURNED, "only {churned} Pods were replaced");
        self.follows(REPLICAS)
    }

    /// Replaces one Pod after the other until it is over, and at least a few; returns how many.
    fn churn(&self, is_over: &AtomicBool) -> Result<usize> {
        let mut churned = 0;
        while churned < CHURNED || !is_over.load(Ordering::Relaxed) {
            let pods = running(self.kubectl, self.namespace, "web", REPLICAS)?;
            let pod = pods.get(churned % REPLICAS).context("no Pod")?;
            let args = ["delete", "pod", &pod.name, "--namespace", self.namespace];
            self.kubectl.run(&args)?;
            churned += 1;
        }
        Ok(churned)
    }

    /// Waits until so many Pods run, and their pool has one address more.
    fn follows(&self, replicas: usize) -> Result<()> {
        running(self.kubectl, self.namespace, "web", replicas)?;
        eventually(SETTLE, "the pool has followed, and the books agree", || {
            let pool = Pool::of_deployment(self.kubectl, self.namespace, "web")?;
            let size = pool.addresses.len();
            ensure!(size == replicas + 1, "it has {size} addresses");
            Books::read(self.kubectl)?.ensure_agree()
        })
    }

    fn no_call_failed(&self, since: Duration) -> Result<()> {
        for node in self.cluster.nodes() {
            let calls = tap::calls(node, since)?;
            let failed: Vec<String> = calls
                .iter()
                .filter(|call| !call.succeeded)
                .map(|call| format!("{} of {}: {}", call.command, call.pod, call.error))
                .collect();
            let (name, all) = (node.name(), calls.len());
            ensure!(
                failed.is_empty(),
                "of {all} calls on {name} failed: {}",
                failed.join("; ")
            );
            say(format_args!("{all} calls on {name}, none failed"));
        }
        Ok(())
    }
}

fn uids(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(|pod| pod.uid.clone()).collect()
}
