//! `orbweaver ipam explain pod`: why may this Pod use its pools, or why not.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use ipam::addr::Family as AddrFamily;
use ipam::name::{Nic, Uid};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::Serialize;

use crate::agent::Settings;
use crate::agent::explain::{Explainer, Explanation, Question, Unserved};
use crate::cli::agent::settings;
use crate::cli::connection::Connection;
use crate::cli::render::{Output, Report, Table, fields, paragraph};

use super::sight::Sight;

/// Exit code where some family has no pool that could give the Pod an address.
const NO_POOL: u8 = 2;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The Pod: pod NAME, pod NAMESPACE/NAME, pod/NAME or NAMESPACE/pod/NAME.
    #[arg(num_args = 1..=2, required = true)]
    pod: Vec<String>,
    /// Its interface.
    #[arg(long, default_value = "eth0")]
    nic: String,
    /// The agent's configuration file; the cluster's ConfigMap without it.
    #[arg(long, value_name = "FILE")]
    config_path: Option<PathBuf>,
    /// Namespace of the agents: that of Multus networks that name none.
    #[arg(long, default_value = "kube-system")]
    agent_namespace: String,
    /// Multus network behind the first NIC of Pods that name none, as the agents are told.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    cluster_network: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    pod: String,
    node: Option<String>,
    workload: Option<String>,
    nic: String,
    /// What the interface has already.
    addresses: Vec<String>,
    families: Vec<Family>,
    /// Why there is no candidate at all, as the CNI call says it.
    failure: Option<String>,
    notes: Vec<String>,
    /// Whether there is an address, or a pool that could give one, in every family that is asked for.
    #[serde(skip)]
    is_served: bool,
}

#[derive(Debug, Serialize)]
struct Family {
    /// `IPv4` or `IPv6`.
    #[serde(rename = "family")]
    version: String,
    /// Who says which pools.
    rule: String,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Serialize)]
struct Candidate {
    pool: String,
    /// Whether it may serve the Pod.
    serves: bool,
    /// Addresses it could give now; absent where it may not serve.
    free: Option<u128>,
    /// Why it may not serve, or has nothing to give.
    reason: Option<String>,
}

pub(super) async fn run(
    arguments: Arguments,
    connection: &Connection,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let Arguments {
        pod,
        nic,
        config_path,
        agent_namespace,
        cluster_network,
    } = arguments;
    let (namespace, name) = named(&pod).with_context(|| {
        let words = pod.join(" ");
        format!("'{words}' names no Pod: write pod/NAME or NAMESPACE/pod/NAME")
    })?;
    let namespace = namespace.unwrap_or(&connection.namespace);
    let api: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let Some(object) = connection.answer::<Pod, _>(api.get_opt(name).await)? else {
        bail!("no Pod {namespace}/{name}: see `kubectl get pods --namespace {namespace}`");
    };
    let sight = Sight::of(connection).await?;
    let (config, note) = connection.config(config_path.as_deref()).await?;
    let settings = Settings {
        namespace: agent_namespace,
        cluster_network,
        ..settings(config, String::new(), None)
    };
    let explainer = Explainer::new(settings, connection.client.clone());
    let question = Question {
        pod: Arc::new(object.clone()),
        workload: None,
        nic: Nic::from(nic.as_str()),
    };
    let found = explainer.explain(question).await;
    let answer = answer(&object, &nic, &sight, found, note.into_iter().collect());
    output.print(&answer)?;
    Ok(if answer.is_served {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NO_POOL)
    })
}

/// The Pod's namespace and name, as a person writes them. Pure.
fn named(words: &[String]) -> Option<(Option<&str>, &str)> {
    let is_pod = |word: &str| ["pod", "pods", "po"].contains(&word);
    let parts: Vec<&str> = words.iter().flat_map(|word| word.split('/')).collect();
    match parts.as_slice() {
        parts if parts.iter().any(|part| part.is_empty()) => None,
        [kind, name] if is_pod(kind) => Some((None, name)),
        [kind, namespace, name] if is_pod(kind) && words.len() == 2 => {
            Some((Some(namespace), name))
        }
        [namespace, kind, name] if is_pod(kind) => Some((Some(namespace), name)),
        _ => None,
    }
}

/// The answer from what was found. Pure.
fn answer(
    pod: &Pod,
    nic: &str,
    sight: &Sight,
    explained: Result<Explanation, Unserved>,
    mut notes: Vec<String>,
) -> Explained {
    let meta = &pod.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.host_network) == Some(true) {
        notes.push("the Pod is on its host's network and asks for no address".to_owned());
    }
    let uid = Uid::from(meta.uid.as_deref().unwrap_or_default());
    let of = Nic::from(nic);
    let records = sight.world.pools.iter().flat_map(|pool| {
        let own = pool.records.iter().filter(|(_, r)| r.is_of(&uid, &of));
        own.map(|(address, _)| (address, &pool.name))
    });
    let records: Vec<_> = records.collect();
    let has = |family| records.iter().any(|(a, _)| AddrFamily::of(*a) == family);
    let gives = |family: &Family| family.candidates.iter().any(|c| c.free.unwrap_or(0) > 0);
    let (workload, families, failure, is_served) = match explained {
        Ok(explanation) => {
            let asked = explanation.families.iter();
            let (served, families): (Vec<bool>, Vec<Family>) = asked
                .map(|ranking| {
                    let family = family(ranking, sight);
                    (has(ranking.family) || gives(&family), family)
                })
                .unzip();
            let served = served.into_iter().all(|served| served);
            let workload = explanation.workload.to_string();
            (Some(workload), families, None, served)
        }
        Err(unserved) => {
            let failure = unserved.to_string();
            (None, vec![], Some(failure), !records.is_empty())
        }
    };
    if failure.is_some()
        || families
            .iter()
            .any(|f: &Family| f.rule.starts_with("spec.default"))
    {
        notes.push(
            "the node's CNI configuration may name pools too (default_ipv4_ippool, \
             default_ipv6_ippool); it can't be seen from here"
                .to_owned(),
        );
    }
    Explained {
        pod: format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default()),
        node: spec.and_then(|s| s.node_name.clone()),
        workload,
        nic: nic.to_owned(),
        addresses: records
            .iter()
            .map(|(address, pool)| format!("{address} of {pool}"))
            .collect(),
        families,
        failure,
        notes,
        is_served,
    }
}

fn family(ranking: &crate::agent::explain::Ranking, sight: &Sight) -> Family {
    let candidates = ranking.candidates.iter().map(|candidate| {
        let pool = candidate.name.to_string();
        match &candidate.verdict {
            Err(refusal) => Candidate {
                pool,
                serves: false,
                free: None,
                reason: Some(refusal.to_string()),
            },
            Ok(found) => {
                let free = found.free(&sight.reserved).count().get();
                let empty = free == 0;
                let full = || ipam::select::Exhausted::UsedOut.to_string();
                Candidate {
                    pool,
                    serves: true,
                    free: Some(free),
                    reason: empty.then(full),
                }
            }
        }
    });
    Family {
        version: ranking.family.to_string(),
        rule: ranking.rule.clone(),
        candidates: candidates.collect(),
    }
}

impl Report for Explained {
    fn text(&self, width: Option<usize>) -> String {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let shown = [
            ("Pod", self.pod.clone()),
            ("Workload", of(&self.workload)),
            ("Node", of(&self.node)),
            ("Interface", self.nic.clone()),
            ("Has", self.addresses.join(", ")),
            ("Refused", of(&self.failure)),
        ];
        let mut text = fields(&shown, width);
        for family in &self.families {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n{} by {}:", family.version, family.rule);
            let mut table = Table::new(&["POOL", "SERVES", "FREE", "WHY NOT"]);
            for candidate in &family.candidates {
                let serves = if candidate.serves { "yes" } else { "no" };
                let free = candidate.free.map(|free| free.to_string());
                table.row([
                    candidate.pool.clone(),
                    serves.to_owned(),
                    free.unwrap_or_default(),
                    of(&candidate.reason),
                ]);
            }
            text.push_str(&table.text(width));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&paragraph("note: ", note, width));
        }
        text
    }
}

#[cfg(test)]
mod tests;
