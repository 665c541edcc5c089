//! Metrics of both roles as a real Prometheus scrapes them: every query of the chart's dashboard
//! finds series, and its alerts see a subnet and Pods in trouble.
//!
//! That each alert fires, after the time it gives, is promtool's to show (`tests/helm`); here their
//! expressions meet the series that there really are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::command::run as run_command;
use crate::process::Process;
use crate::product;
use crate::wait::eventually;
use crate::workload::{Deployment, NUMBER, delete, leaving_nothing, pool, retire, running, subnet};

/// Where Prometheus listens, on the cluster's network.
const SERVER: &str = "127.0.0.1:19090";
/// The roles as values and objects are named, and the ports of their metrics, as the chart has them.
const ROLE_PORTS: [(&str, &str, u16); 2] = [
    ("spiderpoolAgent", "agent", 5711),
    ("spiderpoolController", "controller", 5721),
];
/// How long Prometheus may take to start, to end, and to see what happened.
const LIMIT: Duration = Duration::from_secs(60);
/// Which of the product's ports answer.
const ROLES: &str = "up{job=~\"orbweaver-.*\"}";
/// Alerts that what happens here must raise.
const RAISED: [&str; 3] = [
    "OrbweaverNoPool",
    "OrbweaverPoolsExhausted",
    "OrbweaverSubnetNearlyFull",
];
/// Who leads, by those who tell.
const LEADERS: &str = "sum(orbweaver_controller_leads)";
/// Alerts that nothing here may raise.
const FALSE_ALARMS: &str = "ALERTS{alertname=~\"OrbweaverAgentDown|OrbweaverAgentFails|OrbweaverReleasesFail|OrbweaverNoLeader|\
     OrbweaverPoolsConflicting|OrbweaverPassesFail\"}";
/// How names of our metrics begin.
const PREFIXES: [&str; 2] = ["orbweaver_", "spiderpool_"];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "metrics", |namespace| {
        switch(cluster, true)?;
        let prometheus = Prometheus::start(cluster)?;
        let kubectl = cluster.kubectl();
        // All targets are there before anything is counted: an increase is seen from then on.
        prometheus.finds(&format!("sum({ROLES}) == {}", prometheus.targets))?;
        // While controllers were replaced to have metrics, nobody led for a moment, rightly.
        prometheus.finds(&format!("absent({FALSE_ALARMS}) and on() {LEADERS} == 1"))?;
        let calm = Instant::now();

        // Two of the subnet's six addresses are used from pools made by hand; more are wanted than the four left.
        subnet(kubectl, "narrow", &["172.18.41.130-172.18.41.135"])?;
        let apart = json!({
            "ips": ["172.18.41.134"],
            "podAffinity": { "matchLabels": { "app": "other" } },
        });
        pool(kubectl, "not-for-you", &apart)?;
        pool(kubectl, "served", &json!({ "ips": ["172.18.41.135"] }))?;
        for (name, from) in [("web", "served"), ("other", "not-for-you")] {
            let served = Deployment::new(name, 1).with_pool(from);
            served.create(kubectl, namespace)?;
            running(kubectl, namespace, name, 1)?;
        }
        let wrong = Deployment::new("wrong", 1).with_pool("not-for-you");
        wrong.create(kubectl, namespace)?;
        let full = Deployment::new("full", 5)
            .with_subnet("narrow")
            .annotated(NUMBER, "+0");
        full.create(kubectl, namespace)?;

        for name in RAISED {
            prometheus.finds(&format!("ALERTS{{alertname=\"{name}\"}}"))?;
        }
        for name in ["full", "wrong", "other", "web"] {
            retire(kubectl, namespace, name)?;
        }
        for query in dashboard(cluster)?.into_iter().chain(alerts(cluster)?) {
            prometheus.finds(&query)?;
        }
        let since = calm.elapsed().as_secs();
        let raised = format!("count_over_time({FALSE_ALARMS}[{since}s])");
        let raised = prometheus.ask(&raised)?;
        ensure!(raised.is_empty(), "raised for nothing: {raised:?}");
        let failures = "sum(prometheus_rule_evaluation_failures_total) > 0";
        ensure!(
            prometheus.ask(failures)?.is_empty(),
            "a rule can't be evaluated"
        );

        delete(kubectl, &["spiderippool", "not-for-you", "served"])?;
        delete(kubectl, &["spidersubnet", "narrow"])?;
        switch(cluster, false)?;
        prometheus.finds(&format!("sum({ROLES}) == 0"))
    })
}

/// Switches the metrics of both roles, those of single pools included.
fn switch(cluster: &Cluster, on: bool) -> Result<()> {
    let mut flags: Vec<String> = ROLE_PORTS
        .iter()
        .map(|(role, ..)| format!("{role}.prometheus.enabled={on}"))
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

/// What the chart's alerts look at. An alert whose series is not there before something happens is
/// blind to the first time.
fn alerts(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut selectors = BTreeSet::new();
    for file in rules(cluster) {
        let text = std::fs::read_to_string(&file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        let expressions = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("expr: "));
        selectors.extend(expressions.flat_map(selectors_of));
    }
    ensure!(!selectors.is_empty(), "the chart has no alerts");
    Ok(selectors)
}

/// The selectors of an expression: our metrics, with the labels that are asked for.
fn selectors_of(expression: &str) -> Vec<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut selectors = Vec::new();
    let mut rest = expression;
    while let Some(at) = PREFIXES.iter().filter_map(|prefix| rest.find(prefix)).min() {
        let (_, found) = rest.split_at(at);
        let name = found.find(|c| !is_of_name(c)).unwrap_or(found.len());
        let labels = found
            .get(name..)
            .filter(|after| after.starts_with('{'))
            .and_then(|after| after.find('}'))
            .map_or(0, |end| end + 1);
        let (selector, after) = found.split_at(name + labels);
        selectors.push(selector.to_owned());
        rest = after;
    }
    selectors
}

/// The files with the chart's rules.
fn rules(cluster: &Cluster) -> [PathBuf; 2] {
    ROLE_PORTS.map(|(_, role, _)| chart(cluster).join(format!("files/{role}-rules.yaml")))
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
            targets: targets.values().map(BTreeSet::len).sum(),
        };
        eventually(LIMIT, "Prometheus answers", || {
            started.ask("vector(1)").map(|_| ())
        })?;
        Ok(started)
    }

    /// Every agent and every controller, by the job that the chart's monitors make of them.
    fn targets(cluster: &Cluster) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let pods = ["pods", "--all-namespaces"];
        let label = ["--selector", "app.kubernetes.io/name=orbweaver"];
        let mut targets = BTreeMap::<_, BTreeSet<_>>::new();
        for pod in cluster.kubectl().list(&[&pods[..], &label].concat())? {
            let component = pod.pointer("/metadata/labels/app.kubernetes.io~1component");
            let is_it = |(_, role, _): &&(_, &str, _)| component.is_some_and(|c| c == role);
            let (_, role, port) = ROLE_PORTS.iter().find(is_it).context("a Pod of no role")?;
            let host = pod.pointer("/status/hostIP").and_then(Value::as_str);
            let target = format!("{}:{port}", host.context("a Pod without a node")?);
            let job = format!("orbweaver-{role}-metrics");
            targets.entry(job).or_default().insert(target);
        }
        Ok(targets)
    }

    /// Both roles, and Prometheus itself.
    fn config(cluster: &Cluster, targets: &BTreeMap<String, BTreeSet<String>>) -> Value {
        let itself = ("prometheus".to_owned(), BTreeSet::from([SERVER.to_owned()]));
        let jobs = targets.clone().into_iter().chain([itself]);
        let jobs = jobs.map(
            |(job, targets)| json!({ "job_name": job, "static_configs": [{ "targets": targets }] }),
        );
        json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": rules(cluster),
            "scrape_configs": jobs.collect::<Vec<_>>(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_metrics_with_their_labels() {
        let expression =
            r#"max(orbweaver_a{state=~"X|Y"}) > 0 or rate(spiderpool_b_total[5m]) / orbweaver_c"#;
        let expected = [
            r#"orbweaver_a{state=~"X|Y"}"#,
            "spiderpool_b_total",
            "orbweaver_c",
        ];
        assert_eq!(selectors_of(expression), expected);
        assert!(selectors_of("absent(up)").is_empty());
    }
}
