//! `orbweaver ipam gc --dry-run`: which addresses have no living Pod, and what becomes of each; those
//! kept for a Pod to come are among them where nobody wants that Pod any more.
//!
//! The controller collects; this says what it sees, by the same survey and the same rule. There is
//! no way to collect from here: a person who knows that a node is lost says so on the Node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use ipam::collect::{self, Fate, Policy, Seen, Verdict};
use ipam::keep::{self, Keeps, Lineage, Unwanted};
use ipam::name::PoolName;
use ipam::record::Record;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde::Serialize;

use crate::api::{SpiderIPPool, pod, time};
use crate::cli::connection::Connection;
use crate::cli::controller::PolicyArguments;
use crate::cli::render::{Output, Report, Table, counted, paragraph};
use crate::controller::gc::survey::{self, Ask, Survey};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Show what the controller would release. Required: releasing is the controller's alone.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    policy: PolicyArguments,
    /// The controller's configuration file; the cluster's ConfigMap without it.
    #[arg(long, value_name = "FILE")]
    config_path: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Collectable {
    /// Addresses looked at: all that are recorded.
    records: usize,
    /// Those of them that are kept for a Pod to come, which somebody wants.
    kept: usize,
    /// Those whose Pod does not live, or does not come.
    findings: Vec<Finding>,
    /// What the reader should know besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// An address whose Pod does not live.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
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
    let Arguments {
        dry_run,
        policy,
        config_path,
    } = arguments;
    if !dry_run {
        bail!(
            "the controller releases addresses, nobody else: `orbweaver ipam gc --dry-run` shows which; \
             it waits for your word on nodes that are lost: delete the Node, or taint it \
             node.kubernetes.io/out-of-service"
        );
    }
    let (config, note) = connection.config(config_path.as_deref()).await?;
    let mut collectable = look(connection, &policy.policy(), config.keeps()).await?;
    collectable.notes.extend(note);
    if !collectable.findings.is_empty() {
        collectable.notes.push(policy.note());
    }
    output.print(&collectable)?;
    Ok(ExitCode::SUCCESS)
}

/// What a look at the cluster finds.
pub(super) async fn look(
    connection: &Connection,
    policy: &Policy,
    keeps: Keeps,
) -> anyhow::Result<Collectable> {
    // Pods after pools: a Pod is there before it has an address.
    let pools = connection.list::<SpiderIPPool>().await?.objects;
    let pods = connection.list::<Pod>().await?.objects;
    let pods = pods.into_iter().map(|pod| (pod::uid(&pod), pod));
    let pods: BTreeMap<_, Pod> = pods.collect();
    let mut survey = Survey::new(connection.client.clone(), Ask::Nobody, keeps);
    let mut collectable = Collectable {
        records: 0,
        kept: 0,
        findings: vec![],
        notes: vec![],
    };
    let fixed = Fixed::of(&pools);
    for (owner, entry) in fixed.kept() {
        collectable.records += 1;
        let pod = &entry.record.pod;
        let unwanted = connection.answer::<StatefulSet, _>(survey.unwanted(pod, owner).await)?;
        let switched_off = || (!keeps.includes(owner)).then_some(Unwanted::SwitchedOff);
        let unwanted = unwanted.or_else(|| fixed.moved(owner, entry));
        match unwanted.or_else(switched_off) {
            Some(why) => collectable.findings.push(entry.unwanted(&why)),
            None => collectable.kept += 1,
        }
    }
    for holding in pools.iter().flat_map(survey::holdings) {
        collectable.records += 1;
        let fate = pod::fate(pods.get(&holding.uid), &holding.uid);
        if fate == Fate::Lives {
            continue;
        }
        let seen = connection.answer::<Node, _>(survey.see(holding, fate).await)?;
        let verdict = collect::judge(&seen, policy, time::now());
        if verdict == Verdict::InUse {
            continue;
        }
        let keeper = connection.answer::<Node, _>(survey.keeper(&seen).await)?;
        collectable.findings.push(finding(&seen, &verdict, keeper));
    }
    collectable.findings.sort_by(|a, b| a.pool.cmp(&b.pool));
    Ok(collectable)
}

/// The records that are of a StatefulSet or a virtual machine.
struct Fixed(BTreeMap<Lineage, Vec<Entry>>);

/// A record, and where it is.
struct Entry {
    pool: PoolName,
    address: IpAddr,
    record: Record,
}

impl Fixed {
    fn of(pools: &[SpiderIPPool]) -> Self {
        let mut all: BTreeMap<Lineage, Vec<Entry>> = BTreeMap::new();
        for object in pools {
            let pool = PoolName::new(object.name_any());
            for (address, record) in survey::records(object).iter() {
                if let Some(owner) = record.lineage() {
                    all.entry(owner).or_default().push(Entry {
                        pool: pool.clone(),
                        address,
                        record: record.clone(),
                    });
                }
            }
        }
        Self(all)
    }

    /// What no Pod has.
    fn kept(&self) -> impl Iterator<Item = (&Lineage, &Entry)> {
        let all = self.0.iter();
        let all = all.flat_map(|(owner, entries)| entries.iter().map(move |entry| (owner, entry)));
        all.filter(|(_, entry)| entry.record.kept)
    }

    /// A Pod of the identity that `kept` is for has an address elsewhere.
    fn moved(&self, owner: &Lineage, kept: &Entry) -> Option<Unwanted> {
        let mut others = self.0.get(owner).into_iter().flatten();
        let successor = others.find(|other| {
            let (kept, other) = ((kept.address, &kept.record), (other.address, &other.record));
            keep::is_superseded(kept, other)
        });
        successor.map(|other| Unwanted::Moved(other.pool.clone()))
    }
}

impl Entry {
    fn unwanted(&self, why: &Unwanted) -> Finding {
        let Record { pod, uid, node, .. } = &self.record;
        Finding {
            address: self.address.to_string(),
            pool: self.pool.to_string(),
            pod: pod.to_string(),
            uid: uid.to_string(),
            node: node.as_ref().map(ToString::to_string),
            verdict: "Release",
            why: format!("no longer kept, since {why}"),
        }
    }
}

/// What becomes of a record, now.
fn finding(seen: &Seen, verdict: &Verdict, keeper: Option<Lineage>) -> Finding {
    let holding = &seen.holding;
    Finding {
        address: holding.address.to_string(),
        pool: holding.pool.to_string(),
        pod: holding.pod.to_string(),
        uid: holding.uid.to_string(),
        node: holding.node.as_ref().map(ToString::to_string),
        verdict: match (verdict, keeper) {
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
        let mut notes = String::new();
        for note in &self.notes {
            notes.push_str(&paragraph("note: ", note, width));
        }
        let records = counted(self.records, "record");
        let kept = match self.kept {
            0 => String::new(),
            kept => format!(" or kept for a Pod to come ({kept})"),
        };
        if self.findings.is_empty() {
            return format!(
                "nothing to release: {records}, each of a Pod that lives{kept}\n{notes}"
            );
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
             {} for agents, {} waiting. The others are of a Pod that lives{kept}. \
             The controller acts when two looks agree.\n{notes}",
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
