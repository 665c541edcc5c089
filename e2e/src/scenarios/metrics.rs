//! Metrics of both roles as a real Prometheus scrapes them: every query of the chart's dashboard
//! finds series, and its alerts see a subnet and Pods in trouble.
//!
//! That each alert fires, after the time it gives, is promtool's to show (`tests/helm`); here their
//! expressions meet the series that there really are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::command::run as run_command;
use crate::process::Process;
use crate::product;
use crate::product::objects::Pool;
use crate::wait::eventually;
use crate::workload::{
    Deployment, NUMBER, SETTLE, delete, gone, leaving_nothing, pool, running, subnet,
};

/// Where Prometheus listens, on the cluster's network.
const SERVER: &str = "127.0.0.1:19090";
/// Ports of the metrics, as the chart has them.
const PORTS: [(&str, u16); 2] = [("spiderpoolAgent", 5711), ("spiderpoolController", 5721)];
/// How long Prometheus may take to start, to end, and to see what happened.
const LIMIT: Duration = Duration::from_secs(60);
/// Which of the product's ports answer.
const ROLES: &str = "up{job=\"orbweaver\"}";
/// Alerts that what happens here must raise.
const RAISED: [&str; 3] = [
    "OrbweaverNoPool",
    "OrbweaverPoolsExhausted",
    "OrbweaverSubnetNearlyFull",
];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "metrics", |namespace| {
        switch(cluster, true)?;
        let prometheus = Prometheus::start(cluster)?;
        let kubectl = cluster.kubectl();
        // All targets are there before anything is counted: an increase is seen from then on.
        prometheus.finds(&format!("sum({ROLES}) == {}", prometheus.targets))?;

        // Two of the subnet's six addresses are in pools made by hand; more are wanted than the four left.
        subnet(kubectl, "narrow", &["172.18.41.130-172.18.41.135"])?;
        let apart = json!({
            "ips": ["172.18.41.134"],
            "podAffinity": { "matchLabels": { "app": "other" } },
        });
        pool(kubectl, "not-for-you", &apart)?;
        pool(kubectl, "served", &json!({ "ips": ["172.18.41.135"] }))?;
        let web = Deployment::new("web", 1).with_pool("served");
        web.create(kubectl, namespace)?;
        running(kubectl, namespace, "web", 1)?;
        let wrong = Deployment::new("wrong", 1).with_pool("not-for-you");
        wrong.create(kubectl, namespace)?;
        let full = Deployment::new("full", 5)
            .with_subnet("narrow")
            .annotated(NUMBER, "+0");
        full.create(kubectl, namespace)?;

        for name in RAISED {
            prometheus.finds(&format!("ALERTS{{alertname=\"{name}\"}}"))?;
        }
        for name in ["full", "wrong", "web"] {
            delete(kubectl, &["deployment", name, "--namespace", namespace])?;
            gone(kubectl, namespace, name)?;
        }
        for query in dashboard(cluster)? {
            prometheus.finds(&query)?;
        }
        let failures = "sum(prometheus_rule_evaluation_failures_total) > 0";
        ensure!(
            prometheus.ask(failures)?.is_empty(),
            "a rule can't be evaluated"
        );

        eventually(SETTLE, "the pool of its own is gone", || {
            let pools = Pool::of_workload(kubectl, "Deployment", namespace, "full")?;
            ensure!(pools.is_empty(), "there are {}", pools.len());
            Ok(())
        })?;
        delete(kubectl, &["spiderippool", "not-for-you", "served"])?;
        delete(kubectl, &["spidersubnet", "narrow"])?;
        switch(cluster, false)?;
        prometheus.finds(&format!("sum({ROLES}) == 0"))
    })
}

/// Switches the metrics of both roles, those of single pools included.
fn switch(cluster: &Cluster, on: bool) -> Result<()> {
    let mut flags: Vec<String> = PORTS
        .iter()
        .map(|(role, _)| format!("{role}.prometheus.enabled={on}"))
        .collect();
    flags.push(format!(
        "spiderpoolController.prometheus.enabledDebugMetric={on}"
    ));
    product::upgrade(cluster, &["--reuse-values", "--set", &flags.join(",")])
}

/// Every query of the chart's dashboard.
fn dashboard(cluster: &Cluster) -> Result<Vec<String>> {
    let path = chart(cluster).join("files/dashboard.json");
    let text = std::fs::read_to_string(&path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let board: Value = serde_json::from_str(&text)?;
    let panels = board["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let queries = targets.flatten().map(|target| {
        let query = target["expr"].as_str();
        query.map(str::to_owned).context("a target without a query")
    });
    queries.collect()
}

fn chart(cluster: &Cluster) -> PathBuf {
    cluster.paths().source().join("helm/orbweaver")
}

/// A Prometheus on the cluster's network.
struct Prometheus<'a> {
    cluster: &'a Cluster,
    process: Process,
    /// How many ports of the product it scrapes.
    targets: usize,
}

impl<'a> Prometheus<'a> {
    /// Starts one that scrapes both roles on every node, and itself, each second.
    fn start(cluster: &'a Cluster) -> Result<Self> {
        let config = cluster.file("prometheus.json");
        let targets = Self::targets(cluster)?;
        std::fs::write(&config, Self::config(cluster, &targets).to_string())
            .with_context(|| format!("cannot write {}", config.display()))?;
        let args = [
            format!("--config.file={}", config.display()),
            format!(
                "--storage.tsdb.path={}",
                cluster.file("prometheus").display()
            ),
            format!("--web.listen-address={SERVER}"),
        ];
        let log = cluster.file("log/prometheus.log");
        let process = cluster
            .lab()
            .start(&tool(cluster, "prometheus"), &args, &log)?;
        let started = Self {
            cluster,
            process,
            targets: targets.len(),
        };
        eventually(LIMIT, "Prometheus answers", || {
            started.ask("vector(1)").map(|_| ())
        })?;
        Ok(started)
    }

    /// Every agent and every controller.
    fn targets(cluster: &Cluster) -> Result<BTreeSet<String>> {
        let pods = ["pods", "--all-namespaces"];
        let label = ["--selector", "app.kubernetes.io/name=orbweaver"];
        let mut targets = BTreeSet::new();
        for pod in cluster.kubectl().list(&[&pods[..], &label].concat())? {
            let component = pod.pointer("/metadata/labels/app.kubernetes.io~1component");
            let [(_, agent), (_, controller)] = PORTS;
            let port = if component.is_some_and(|c| c == "agent") {
                agent
            } else {
                controller
            };
            let host = pod.pointer("/status/hostIP").and_then(Value::as_str);
            targets.insert(format!("{}:{port}", host.context("a Pod without a node")?));
        }
        Ok(targets)
    }

    /// Both roles, and Prometheus itself.
    fn config(cluster: &Cluster, targets: &BTreeSet<String>) -> Value {
        let rules = ["agent", "controller"]
            .map(|role| chart(cluster).join(format!("files/{role}-rules.yaml")));
        json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": rules,
            "scrape_configs": [
                { "job_name": "orbweaver", "static_configs": [{ "targets": targets }] },
                { "job_name": "prometheus", "static_configs": [{ "targets": [SERVER] }] },
            ],
        })
    }

    /// The samples that a query finds now.
    fn ask(&self, query: &str) -> Result<Vec<Value>> {
        let lab = self.cluster.lab();
        let mut promtool = lab.enter_network(tool(self.cluster, "promtool"));
        promtool.args([
            "query",
            "--format=json",
            "instant",
            &format!("http://{SERVER}"),
            query,
        ]);
        let said = run_command(&mut promtool)?;
        match serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))? {
            Value::Array(samples) => Ok(samples),
            other => bail!("no list of samples: {other}"),
        }
    }

    /// Waits until a query finds something that is a number.
    fn finds(&self, query: &str) -> Result<()> {
        eventually(LIMIT, &format!("Prometheus finds {query}"), || {
            let samples = self.ask(query)?;
            let value = |sample: &Value| sample["value"][1].as_str().map(str::to_owned);
            let real = samples
                .iter()
                .filter_map(value)
                .find(|value| value != "NaN");
            ensure!(real.is_some(), "it finds {samples:?}");
            Ok(())
        })
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        if self.process.wait_gone(LIMIT).is_err() {
            self.process.signal(Signal::KILL);
        }
    }
}

fn tool(cluster: &Cluster, name: &str) -> PathBuf {
    Path::new(&cluster.paths().tools_bin()).join(name)
}
