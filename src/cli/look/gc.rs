//! `orbweaver ipam gc --dry-run`: which addresses have no living Pod, and what becomes of each.
//!
//! The controller collects; this says what it sees, by the same survey and the same rule. There is
//! no way to collect from here: a person who knows that a node is lost says so on the Node.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;
use ipam::collect::{self, Fate, Policy, Seen, Verdict};
use ipam::keep::Lineage;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Serialize;

use crate::api::{SpiderIPPool, pod, time};
use crate::cli::connection::Connection;
use crate::cli::controller::PolicyArguments;
use crate::cli::render::{Output, Report, Table, counted};
use crate::controller::gc::survey::{self, Ask, Survey};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Show what the controller would release. Required: releasing is the controller's alone.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    policy: PolicyArguments,
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Collectable {
    /// Addresses looked at: all that are recorded, but for those kept for a Pod to come.
    records: usize,
    /// Those of them whose Pod does not live.
    findings: Vec<Finding>,
}

/// An address whose Pod does not live.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    address: String,
    pool: String,
    pod: String,
    uid: String,
    node: Option<String>,
    /// `Release`, `Keep` (for the next Pod of the name), `Agent` or `Wait`.
    verdict: &'static str,
    why: String,
}

pub(super) async fn run(
    arguments: &Arguments,
    connection: &Connection,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let Arguments { dry_run, policy } = arguments;
    if !dry_run {
        bail!(
            "the controller releases addresses, nobody else: `orbweaver ipam gc --dry-run` shows which; \
             it waits for your word on nodes that are lost: delete the Node, or taint it \
             node.kubernetes.io/out-of-service"
        );
    }
    // Pods after pools: a Pod is there before it has an address.
    let pools = connection.list::<SpiderIPPool>().await?.objects;
    let pods = connection.list::<Pod>().await?.objects;
    let pods = pods.into_iter().map(|pod| (pod::uid(&pod), pod));
    let pods: BTreeMap<_, Pod> = pods.collect();
    let mut survey = Survey::new(connection.client.clone(), Ask::Nobody);
    let mut collectable = Collectable {
        records: 0,
        findings: vec![],
    };
    for holding in pools.iter().flat_map(survey::holdings) {
        collectable.records += 1;
        let fate = pod::fate(pods.get(&holding.uid), &holding.uid);
        if fate == Fate::Lives || holding.is_static() {
            continue;
        }
        let seen = connection.answer::<Node, _>(survey.see(holding, fate).await)?;
        let keeper = connection.answer::<Node, _>(survey.keeper(&seen).await)?;
        let finding = finding(&seen, keeper, &policy.policy());
        collectable.findings.push(finding);
    }
    collectable.findings.sort_by(|a, b| a.pool.cmp(&b.pool));
    output.print(&collectable)?;
    Ok(ExitCode::SUCCESS)
}

/// What becomes of a record, now.
fn finding(seen: &Seen, keeper: Option<Lineage>, policy: &Policy) -> Finding {
    let verdict = collect::judge(seen, policy, time::now());
    let holding = &seen.holding;
    Finding {
        address: holding.address.to_string(),
        pool: holding.pool.to_string(),
        pod: holding.pod.to_string(),
        uid: holding.uid.to_string(),
        node: holding.node.as_ref().map(ToString::to_string),
        verdict: match (&verdict, keeper) {
            (Verdict::InUse, _) => "InUse",
            (Verdict::Agent(_), _) => "Agent",
            (Verdict::Waits(_), _) => "Wait",
            (Verdict::Goes(_), Some(_)) => "Keep",
            (Verdict::Goes(_), None) => "Release",
        },
        why: verdict.to_string(),
    }
}

impl Report for Collectable {
    fn text(&self, width: Option<usize>) -> String {
        let records = counted(self.records, "record");
        if self.findings.is_empty() {
            return format!("nothing to release: {records}, each of a Pod that lives\n");
        }
        let mut table = Table::new(&["ADDRESS", "POOL", "POD", "VERDICT", "WHY"]);
        for finding in &self.findings {
            table.row([
                finding.address.clone(),
                finding.pool.clone(),
                finding.pod.clone(),
                finding.verdict.to_owned(),
                finding.why.clone(),
            ]);
        }
        let of = |verdict| {
            self.findings
                .iter()
                .filter(|f| f.verdict == verdict)
                .count()
        };
        format!(
            "{}\n{} of {records} have no living Pod: {} to release, {} to keep for the next Pod, \
             {} for agents, {} waiting. The controller acts when two looks agree.\n",
            table.text(width),
            self.findings.len(),
            of("Release"),
            of("Keep"),
            of("Agent"),
            of("Wait"),
        )
    }
}

#[cfg(test)]
mod tests;
