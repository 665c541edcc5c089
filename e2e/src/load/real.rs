//! Sixty Pods with real kubelets and containers on the cluster's two nodes: up, churned, down, and
//! the same once more with their addresses recorded as they get a node.
//!
//! Calls are those of the runtimes, seen by the [`tap`] before the product's plugin, so with the
//! plugin's start. The agents and the controller are those that the chart installed.

use std::fmt;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::figures::{Figures, Meter, Span};
use super::fleet::bound_early;
use super::section::{OURS, Row, Section};
use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::judge::Judge;
use crate::product::objects::{Pod, Pool};
use crate::product::{Role, accounts};
use crate::progress::say;
use crate::tap;
use crate::wait::eventually;
use crate::workload::{
    Deployment, NUMBER, START, delete, gone, leaving_nothing, retire, running, scale, subnet,
};

/// How many.
const PODS: usize = 60;
/// The Deployment, its namespace, and its subnet.
const NAME: &str = "bench";

/// Keys of the rounds' rows: up, churned, down.
const KEYS: [&str; 3] = [OURS, "churned", "down"];
/// The same, with path 0.
const EARLY: [&str; 3] = ["ours_early", "churned_early", "down_early"];

/// (h): three rounds of the same Pods, and three with path 0.
pub fn kubelets(cluster: &Cluster) -> Result<Section> {
    let judge = Judge::start(cluster)?;
    let (mut rows, mut early) = (Vec::new(), Early::default());
    leaving_nothing(cluster, NAME, |namespace| {
        (rows, _) = rounds(cluster, namespace, KEYS, "orbweaver")?;
        Ok(())
    })?;
    bound_early(cluster, || {
        leaving_nothing(cluster, NAME, |namespace| {
            let (more, counted) = rounds(cluster, namespace, EARLY, "bound early")?;
            rows.extend(more);
            early = counted;
            Ok(())
        })
    })?;
    judge.end(&[])?;
    Ok(Section {
        key: "h",
        title: format!("{PODS} Pods with real kubelets on two nodes"),
        rows,
        notes: vec![
            "Seconds until the last Pod is ready, or gone; most of them are the kubelets' and the \
             runtimes'. The baseline has no agent there"
                .to_owned(),
            early.to_string(),
        ],
        is_rest: false,
    })
}

/// How many Pods' calls wrote nothing: their records name no sandbox, as a call that writes does.
#[derive(Clone, Copy, Debug, Default)]
struct Early {
    wrote_nothing: usize,
    pods: usize,
}

impl Early {
    /// Adds the Pods that have addresses now.
    fn count(&mut self, kubectl: &Kubectl) -> Result<()> {
        for record in Pool::all(kubectl)?
            .iter()
            .flat_map(|it| it.records.values())
        {
            self.pods += 1;
            self.wrote_nothing += usize::from(record.sandbox.is_none());
        }
        Ok(())
    }
}

impl fmt::Display for Early {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wrote_nothing,
            pods,
        } = self;
        write!(
            f,
            "Bound early: the calls of {wrote_nothing} of {pods} Pods wrote nothing"
        )
    }
}

fn rounds(
    cluster: &Cluster,
    namespace: &str,
    keys: [&'static str; 3],
    who: &str,
) -> Result<(Vec<Row>, Early)> {
    let (kubectl, mut early) = (cluster.kubectl(), Early::default());
    // As many again as there are Pods: a new one need not wait for an old one.
    subnet(kubectl, NAME, &["172.18.41.60-172.18.41.179"])?;
    let up = measure(cluster, "up", || {
        Deployment::new(NAME, u32::try_from(PODS)?)
            .with_subnet(NAME)
            .annotated(NUMBER, format!("+{PODS}"))
            .create(kubectl, namespace)?;
        running(kubectl, namespace, NAME, PODS).map(drop)
    })?;
    early.count(kubectl)?;
    let churned = measure(cluster, "churned", || churn(cluster, namespace))?;
    early.count(kubectl)?;
    let down = measure(cluster, "down", || {
        scale(kubectl, namespace, NAME, 0)?;
        gone(kubectl, namespace, NAME)
    })?;
    retire(kubectl, namespace, NAME)?;
    delete(kubectl, &["spidersubnet", NAME])?;
    let rounds = [("up", up), ("churned", churned), ("down", down)];
    let rows = keys.into_iter().zip(rounds);
    let row = |(key, (what, figures))| Row::new(key, format!("{who}, {what}"), figures);
    Ok((rows.map(row).collect(), early))
}

/// All Pods deleted, until as many others are ready.
fn churn(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    let all = [
        "delete",
        "pods",
        "--namespace",
        namespace,
        "--all",
        "--wait=false",
    ];
    kubectl.run(&all)?;
    eventually(2 * START, "others are ready", || {
        let pods = Pod::of_app(kubectl, namespace, NAME)?;
        let ready = pods.iter().filter(|pod| pod.ready && !pod.terminating);
        anyhow::ensure!(
            (ready.clone().count(), pods.len()) == (PODS, PODS),
            "{} of {} are",
            ready.count(),
            pods.len()
        );
        Ok(())
    })
}

fn measure(cluster: &Cluster, what: &str, work: impl FnOnce() -> Result<()>) -> Result<Figures> {
    say(format_args!("{PODS} Pods with real kubelets: {what}"));
    let agents = cluster.nodes().iter().map(|node| {
        let agent = Role::Agent.process_on(node);
        agent.with_context(|| format!("no agent runs on node {}", node.name()))
    });
    let meter = Meter::start(cluster, agents.collect::<Result<_>>()?, |user| {
        accounts().iter().any(|account| account == user)
    })?;
    let (since, began) = (tap::now(), Instant::now());
    work()?;
    let seconds = began.elapsed().as_secs_f64();
    let mut calls = Vec::new();
    for node in cluster.nodes() {
        calls.extend(tap::calls(node, since)?);
    }
    let adds = calls
        .iter()
        .filter(|call| call.command == "ADD" && call.succeeded);
    let spans: Vec<Span> = adds
        .map(|call| Span {
            began: call.began.saturating_sub(since),
            took: call.ended.saturating_sub(call.began),
        })
        .collect();
    let cost = meter.read()?;
    let figures = match spans.as_slice() {
        [] => Figures {
            cost,
            ..Figures::default()
        },
        some => Figures::of_spans(some, cost)?,
    };
    let failed = calls.iter().filter(|call| !call.succeeded);
    Ok(Figures {
        seconds,
        from_create_s: 0.0,
        failed_calls: failed.clone().filter(|call| call.command == "ADD").count(),
        failed_dels: failed.clone().filter(|call| call.command == "DEL").count(),
        first_failure: failed.clone().next().map(|call| call.error.clone()),
        ..figures
    })
}
