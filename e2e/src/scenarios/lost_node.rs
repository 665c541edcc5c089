//! A node that stops, is tainted out of service, and is deleted, with Pods on it.
//!
//! Addresses stay with Pods that may still run, however their objects ended, and come back when a
//! person has said that the node is lost; those of a StatefulSet go to the next Pod of the name. The
//! judge watches: a kubelet that stops takes nothing from its containers.
//!
//! "Lost" is made so: the kubelet is paused, and what a power cut takes of its Pods is taken. What
//! the node's controller would find out in minutes is written on the Node at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::cluster::node::Node;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, events};
use crate::product::{self, NAMESPACE};
use crate::progress::say;
use crate::tap;
use crate::wait::{eventually, patient};
use crate::workload::{
    Deployment, NUMBER, SETTLE, START, delete, gone, leaving_nothing, pool, running, scale, subnet,
};

const TAINT: &str = "node.kubernetes.io/out-of-service";
/// A pool of one address, recorded for a Pod on a node that never was: it is free as soon as the
/// controller has looked for such addresses twice.
const PLANTED: &str = "planted";
/// Before any time that the product waits.
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "lost-node", |namespace| {
        let often = [
            "--reuse-values",
            "--set",
            "ipam.gc.gcAll.intervalInSecond=1",
        ];
        product::upgrade(cluster, &often)?;
        let kubectl = cluster.kubectl();
        subnet(kubectl, "lost", &["172.18.41.100-172.18.41.129"])?;
        let web = Deployment::new("web", 4).with_subnet("lost");
        web.annotated(NUMBER, "+4").create(kubectl, namespace)?;
        let db = Deployment::new("db", 2)
            .as_stateful_set()
            .with_subnet("lost");
        db.annotated(NUMBER, "+0").create(kubectl, namespace)?;
        let node = cluster.nodes().last().context("no node")?;
        let stage = Stage {
            kubectl,
            namespace,
            node,
        };
        stage.all_run(4)?;
        stage.is_paused()?;
        stage.is_out_of_service()?;
        stage.is_deleted()?;
        for workload in ["deployment/web", "statefulset/db"] {
            delete(kubectl, &[workload, "--namespace", namespace])?;
        }
        gone(kubectl, namespace, "web")?;
        gone(kubectl, namespace, "db")?;
        delete(kubectl, &["spidersubnet", "lost"])?;
        product::ensure_working(cluster)
    })
}

struct Stage<'a> {
    kubectl: &'a Kubectl,
    namespace: &'a str,
    /// The node that is lost.
    node: &'a Node,
}

impl Stage<'_> {
    /// A kubelet stops, and two Pods of its node are deleted by force: their containers run on, so
    /// their addresses stay until the kubelet is back and has stopped them. The next Pod of the
    /// StatefulSet waits for its own so long.
    fn is_paused(&self) -> Result<()> {
        say("a kubelet paused, and a Pod of each workload there deleted by force");
        let mut pods = Vec::new();
        for app in ["web", "db"] {
            let of_app = self.of_node(app)?.into_iter().next();
            pods.push(of_app.with_context(|| format!("no Pod of {app} is there"))?);
        }
        let before = self.addresses("db")?;
        let lost = Lost::paused(self)?;
        self.delete_by_force(&pods)?;
        self.collects_a_planted_one()?;
        for pod in &pods {
            let ip = pod.ip()?;
            let holder = self.holder(ip)?;
            ensure!(
                holder == pod.uid,
                "{ip} was taken from {}, which runs",
                pod.name
            );
            let verdict = self.verdict_of(ip)?;
            ensure!(verdict == "Wait", "the dry run says of {ip}: {verdict}");
        }
        let [_, db] = pods.as_slice() else {
            bail!("{} Pods", pods.len());
        };
        eventually(
            SETTLE,
            "the next Pod of the name is told what it waits for",
            || {
                let told = events(
                    self.kubectl,
                    self.namespace,
                    &db.name,
                    "FailedCreatePodSandBox",
                )?;
                let ip = db.ip()?.to_string();
                ensure!(told.iter().any(|text| text.contains(&ip)), "told: {told:?}");
                Ok(())
            },
        )?;
        lost.returns()?;
        self.all_run(4)?;
        let after = self.addresses("db")?;
        ensure!(
            before == after,
            "Pods of db had {before:?} and have {after:?}"
        );
        Ok(())
    }

    /// A node loses its power, and a person taints it.
    fn is_out_of_service(&self) -> Result<()> {
        say("a node without power, tainted out of service");
        let (before, were_there) = (self.addresses("db")?, self.uids_of_node()?);
        let lost = Lost::without_power(self)?;
        self.collects_a_planted_one()?;
        let held = self.recorded()?;
        let are_held = were_there.is_subset(&held);
        ensure!(
            are_held,
            "addresses of {were_there:?} were taken on no one's word"
        );
        let taint = format!("{TAINT}=nodeshutdown:NoExecute");
        self.kubectl
            .run(&["taint", "node", self.node.name(), &taint])?;
        self.all_run_elsewhere(4, &were_there, &before)?;
        let pool = Pool::of_deployment(self.kubectl, self.namespace, "web")?.name;
        eventually(SETTLE, "an Event tells why addresses are free", || {
            let told = events(self.kubectl, "default", &pool, "AddressesReleased")?;
            let why = format!("{} is tainted out of service", self.node.name());
            ensure!(
                told.iter().any(|text| text.contains(&why)),
                "told: {told:?}"
            );
            Ok(())
        })?;
        lost.returns()
    }

    /// A node loses its power, and a person deletes it and its Pods, as Kubernetes itself would
    /// after a minute.
    fn is_deleted(&self) -> Result<()> {
        say("a node without power, deleted");
        // Some have to be there again.
        scale(self.kubectl, self.namespace, "web", 6)?;
        let args = ["delete", "pod", "db-1", "--namespace", self.namespace];
        self.kubectl.run(&args)?;
        self.all_run(6)?;
        let (before, were_there) = (self.addresses("db")?, self.uids_of_node()?);
        let lost = Lost::without_power(self)?;
        let pods = [self.of_node("web")?, self.of_node("db")?].concat();
        let saved = self.kubectl.json(&["get", "node", self.node.name()])?;
        self.kubectl.run(&["delete", "node", self.node.name()])?;
        let lost = lost.with_object(&saved);
        self.delete_by_force(&pods)?;
        self.all_run_elsewhere(6, &were_there, &before)?;
        lost.returns()
    }

    /// Waits until so many Pods of web and two of db run, and the books agree.
    fn all_run(&self, web: usize) -> Result<()> {
        running(self.kubectl, self.namespace, "web", web)?;
        running(self.kubectl, self.namespace, "db", 2)?;
        eventually(SETTLE, "the books agree", || {
            Books::read(self.kubectl)?.ensure_agree()
        })
    }

    /// Waits until all run on other nodes, those of db with the addresses of `before`, and nothing
    /// is recorded for Pods that `were_there`.
    fn all_run_elsewhere(
        &self,
        web: usize,
        were_there: &BTreeSet<String>,
        before: &BTreeMap<String, IpAddr>,
    ) -> Result<()> {
        self.all_run(web)?;
        ensure!(self.uids_of_node()?.is_empty(), "Pods are on the lost node");
        let after = self.addresses("db")?;
        ensure!(
            *before == after,
            "Pods of db had {before:?} and have {after:?}"
        );
        let recorded = self.recorded()?;
        let held: Vec<_> = recorded.intersection(were_there).collect();
        ensure!(held.is_empty(), "addresses are still held for {held:?}");
        Ok(())
    }

    /// Waits until the controller has taken back an address that is surely nobody's: so it has
    /// looked at all others, too.
    fn collects_a_planted_one(&self) -> Result<()> {
        pool(self.kubectl, PLANTED, &json!({ "ips": ["172.18.41.190"] }))?;
        let record = json!({
            "172.18.41.190": {
                "pod": "nowhere/nobody-x", "podUid": "00000000-dead", "nic": "eth0",
                "node": "never-was", "sandbox": "none",
            }
        });
        let status = json!({ "status": {
            "allocatedIPs": record.to_string(), "allocatedIPCount": 1, "totalIPCount": 1,
        } });
        self.patch_status("spiderippool", PLANTED, &status)?;
        eventually(SETTLE, "the planted address is free", || {
            let pools = Pool::all(self.kubectl)?;
            let planted = pools.into_iter().find(|pool| pool.name == PLANTED);
            let planted = planted.context("no planted pool")?;
            ensure!(planted.records.is_empty(), "it is recorded");
            Ok(())
        })?;
        delete(self.kubectl, &["spiderippool", PLANTED])
    }

    /// What `orbweaver ipam gc --dry-run` says of an address, on the node that works.
    fn verdict_of(&self, ip: IpAddr) -> Result<String> {
        let selector = "app.kubernetes.io/component=controller";
        let args = ["pods", "--namespace", NAMESPACE, "--selector", selector];
        let controllers = self.kubectl.list(&args)?;
        let name = |pod: &Value| pod.pointer("/metadata/name")?.as_str().map(str::to_owned);
        let works = |pod: &&Value| {
            let node = pod.pointer("/spec/nodeName").and_then(Value::as_str);
            node != Some(self.node.name())
        };
        let controller = controllers.iter().find(works).and_then(name);
        let controller = controller.context("no controller on another node")?;
        let told = self.kubectl.run(&[
            "exec",
            "--namespace",
            NAMESPACE,
            &controller,
            "--",
            "/usr/bin/orbweaver",
            "ipam",
            "gc",
            "--dry-run",
            "--output=json",
        ])?;
        let told: Value = serde_json::from_str(&told).context("no JSON")?;
        let mut findings = told["findings"].as_array().into_iter().flatten();
        let finding = findings.find(|finding| finding["address"] == ip.to_string());
        let finding = finding.with_context(|| format!("{ip} is not told of: {told}"))?;
        Ok(finding["verdict"].as_str().unwrap_or_default().to_owned())
    }

    fn patch_status(&self, kind: &str, name: &str, status: &Value) -> Result<()> {
        let how = if kind == "node" { "strategic" } else { "merge" };
        let text = status.to_string();
        let kind_of = format!("--type={how}");
        let args = ["patch", kind, name, "--subresource=status", &kind_of];
        self.kubectl
            .run(&[&args[..], &["--patch", &text]].concat())
            .map(drop)
    }

    fn delete_by_force(&self, pods: &[Pod]) -> Result<()> {
        let mut args = vec!["delete", "pod", "--force", "--grace-period=0"];
        args.extend(["--namespace", self.namespace]);
        args.extend(pods.iter().map(|pod| pod.name.as_str()));
        self.kubectl.run(&args).map(drop)
    }

    fn of_node(&self, app: &str) -> Result<Vec<Pod>> {
        let mut pods = Pod::of_app(self.kubectl, self.namespace, app)?;
        pods.retain(|pod| pod.node == self.node.name());
        Ok(pods)
    }

    fn uids_of_node(&self) -> Result<BTreeSet<String>> {
        let pods = [self.of_node("web")?, self.of_node("db")?].concat();
        Ok(pods.into_iter().map(|pod| pod.uid).collect())
    }

    fn addresses(&self, app: &str) -> Result<BTreeMap<String, IpAddr>> {
        let pods = Pod::of_app(self.kubectl, self.namespace, app)?;
        let each = pods.iter().map(|pod| Ok((pod.name.clone(), pod.ip()?)));
        each.collect()
    }

    /// The uids that addresses are recorded for.
    fn recorded(&self) -> Result<BTreeSet<String>> {
        let pools = Pool::all(self.kubectl)?;
        let records = pools
            .into_iter()
            .flat_map(|pool| pool.records.into_values());
        Ok(records.map(|record| record.uid).collect())
    }

    fn holder(&self, ip: IpAddr) -> Result<String> {
        let pools = Pool::all(self.kubectl)?;
        let mut records = pools.iter().filter_map(|pool| pool.records.get(&ip));
        let record = records.next().with_context(|| format!("nobody has {ip}"))?;
        Ok(record.uid.clone())
    }
}

/// A node whose kubelet is paused; it goes on when this is dropped.
struct Lost<'a> {
    stage: &'a Stage<'a>,
    /// The Node to make again.
    object: Option<Value>,
}

impl<'a> Lost<'a> {
    fn paused(stage: &'a Stage<'a>) -> Result<Self> {
        let (kubectl, name) = (stage.kubectl, stage.node.name());
        // Nothing new is to wait for a kubelet that does nothing.
        kubectl.run(&["cordon", name])?;
        let lost = Self {
            stage,
            object: None,
        };
        stage.node.kubelet()?.signal(Signal::STOP);
        let ready = json!({
            "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
            "lastHeartbeatTime": LONG_AGO, "lastTransitionTime": LONG_AGO,
        });
        stage.patch_status(
            "node",
            name,
            &json!({ "status": { "conditions": [ready] } }),
        )?;
        Ok(lost)
    }

    fn without_power(stage: &'a Stage<'a>) -> Result<Self> {
        let lost = Self::paused(stage)?;
        stage.node.cut_off_pods()?;
        tap::note_power_cut(stage.node)?;
        Ok(lost)
    }

    /// With the Node to make again in place of the one that was deleted.
    fn with_object(mut self, saved: &Value) -> Self {
        let metadata = json!({
            "name": saved["metadata"]["name"],
            "labels": saved["metadata"]["labels"],
            "annotations": saved["metadata"]["annotations"],
        });
        self.object = Some(json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata }));
        self
    }

    /// The node is back, and as it should be.
    fn returns(mut self) -> Result<()> {
        let (kubectl, name) = (self.stage.kubectl, self.stage.node.name());
        if let Some(object) = self.object.take() {
            kubectl.create(&object.to_string(), &[])?;
        }
        drop(self);
        let limit = format!("--timeout={}s", patient(START).as_secs());
        kubectl
            .run(&["wait", "--for=condition=Ready", "node", name, &limit])
            .map(drop)
    }
}

impl Drop for Lost<'_> {
    /// The next scenario wants two nodes, also after a failure.
    fn drop(&mut self) {
        let (kubectl, name) = (self.stage.kubectl, self.stage.node.name());
        if let Some(object) = self.object.take() {
            let _ = kubectl.create(&object.to_string(), &[]);
        }
        let _ = kubectl.run(&["taint", "node", name, &format!("{TAINT}-")]);
        let _ = kubectl.run(&["uncordon", name]);
        if let Ok(kubelet) = self.stage.node.kubelet() {
            kubelet.signal(Signal::CONT);
        }
    }
}
