//! `orbweaver ipam who ADDRESS`: whose is it.

use std::net::IpAddr;
use std::process::ExitCode;

use ipam::census::{self, State, Whereabouts};
use ipam::quarantine::Quarantine;
use ipam::record::Record;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use super::sight::Sight;
use crate::api::time;
use crate::cli::connection::{ClusterError, Connection};
use crate::cli::render::{Output, Report, fields};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// An IPv4 or IPv6 address.
    address: IpAddr,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Who {
    address: IpAddr,
    /// One word for programs.
    state: &'static str,
    /// The same in a sentence.
    meaning: String,
    /// Who has it: one, or several where something is inconsistent.
    holders: Vec<Holder>,
    /// The pools that own it.
    pools: Vec<String>,
    subnet: Option<String>,
    /// Reservations that keep it.
    reserved_by: Vec<String>,
    /// Pods that have it by their own status, while no pool has recorded it.
    unrecorded: Vec<String>,
}

/// A record, and what became of its Pod.
#[derive(Debug, Serialize)]
struct Holder {
    pool: String,
    pod: String,
    uid: String,
    /// What the Pod is now.
    phase: String,
    /// When the Pod was made.
    since: Option<String>,
    workload: Option<String>,
    nic: Option<String>,
    node: Option<String>,
    sandbox: Option<String>,
}

pub(super) async fn run(
    arguments: &Arguments,
    connection: &Connection,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let Arguments { address } = arguments;
    let sight = Sight::of(connection).await?;
    let found = census::whose(&sight.world, &sight.reserved, *address);
    let mut pods = vec![];
    for (_, record) in &found.holders {
        let (namespace, name) = record.pod.parts();
        let api: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
        pods.push(connection.answer::<Pod, _>(api.get_opt(name).await)?);
    }
    let unrecorded = if found.holders.is_empty() {
        with_address(connection, *address).await?
    } else {
        vec![]
    };
    output.print(&answer(*address, &sight, &found, &pods, unrecorded))?;
    Ok(ExitCode::SUCCESS)
}

/// The Pods whose first address it is.
async fn with_address(
    connection: &Connection,
    address: IpAddr,
) -> Result<Vec<String>, ClusterError> {
    let api: Api<Pod> = Api::all(connection.client.clone());
    let params = ListParams::default().fields(&format!("status.podIP={address}"));
    let pods = connection.answer::<Pod, _>(api.list(&params).await)?;
    let named = pods.items.iter().map(|pod| {
        let namespace = pod.namespace().unwrap_or_default();
        format!("{namespace}/{}", pod.name_any())
    });
    Ok(named.collect())
}

/// The answer from what was read; `pods` are those of the holders, in order. Pure.
fn answer(
    address: IpAddr,
    sight: &Sight,
    found: &Whereabouts<'_>,
    pods: &[Option<Pod>],
    unrecorded: Vec<String>,
) -> Who {
    let holders = found.holders.iter().zip(pods);
    let holders = holders.map(|((pool, record), pod)| {
        let owner = pool.owner.as_ref();
        let own = owner.map(|o| format!("{} {}/{}", o.kind, o.namespace, o.name));
        let same = pod.as_ref().filter(|pod| is_of(pod, record));
        Holder {
            pool: pool.name.to_string(),
            pod: record.pod.to_string(),
            uid: record.uid.to_string(),
            phase: phase(pod.as_ref(), record),
            since: same.and_then(|pod| {
                let made = pod.metadata.creation_timestamp.as_ref()?;
                Some(time::from_wire(made).to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
            }),
            workload: own.or_else(|| same.and_then(controller)),
            nic: record.nic.as_ref().map(ToString::to_string),
            node: record.node.as_ref().map(ToString::to_string),
            sandbox: record.sandbox.as_ref().map(ToString::to_string),
        }
    });
    let holders = holders.collect();
    let reserved = sight.reservations.iter();
    let reserved = reserved.filter(|(_, set)| set.contains(address));
    Who {
        address,
        state: word(found.state),
        meaning: meaning(found),
        holders,
        pools: found.pools.iter().map(|p| p.name.to_string()).collect(),
        subnet: found.subnet.map(|s| s.name.to_string()),
        reserved_by: reserved.map(|(name, _)| name.clone()).collect(),
        unrecorded,
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Used => "Used",
        State::Quarantined => "Quarantined",
        State::Gateway => "Gateway",
        State::Reserved => "Reserved",
        State::Excluded => "Excluded",
        State::Free => "Free",
        State::Withheld => "Withheld",
        State::Moving => "Moving",
        State::Unassigned => "Unassigned",
        State::NotListed => "NotListed",
        State::Outside => "Outside",
    }
}

fn meaning(found: &Whereabouts<'_>) -> String {
    match found.state {
        State::Used if found.holders.len() > 1 => {
            "several pools have given it away: see `orbweaver ipam check`"
        }
        State::Used => "a Pod has it",
        State::Quarantined => "a host outside of the pools uses it: no Pod gets it for now",
        State::Gateway | State::Reserved => "no Pod gets it",
        State::Excluded => "by excludeIPs: no Pod gets it",
        State::Free => "the pool may give it to its next Pod",
        State::Withheld => {
            "nobody has it, and its pool gives nothing: it is disabled, being deleted, or not admitted"
        }
        State::Moving => "the ledger keeps it for a pool that does not have it yet, or any more",
        State::Unassigned => "free: no pool has it, and the subnet may give it to one",
        State::NotListed => "in the CIDR, and in no range of spec.ips: nobody gives it",
        State::Outside => "in no subnet and no pool",
    }
    .to_owned()
}

fn is_of(pod: &Pod, record: &Record) -> bool {
    pod.uid().as_deref() == Some(record.uid.as_str())
}

/// What became of the Pod that a record names.
fn phase(pod: Option<&Pod>, record: &Record) -> String {
    if let Some(Quarantine { mac, until }) = &record.quarantine {
        let until = until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        return format!("found it used by {mac}; no Pod gets it until {until}");
    }
    let Some(pod) = pod else {
        return "gone, and its address not yet released".to_owned();
    };
    // The uid of a static Pod is its node's; the copy that the API server has carries it apart.
    let mirror = pod
        .annotations()
        .contains_key("kubernetes.io/config.mirror");
    if !is_of(pod, record) && !mirror {
        return "gone, and another Pod has its name".to_owned();
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.clone());
    phase.unwrap_or_else(|| "Unknown".to_owned())
}

/// The Pod's own controller: that is the ReplicaSet where there is a Deployment.
fn controller(pod: &Pod) -> Option<String> {
    let mut owners = pod.owner_references().iter();
    let owner = owners.find(|o| o.controller == Some(true))?;
    let namespace = pod.namespace().unwrap_or_default();
    Some(format!("{} {namespace}/{}", owner.kind, owner.name))
}

impl Report for Who {
    fn text(&self, width: Option<usize>) -> String {
        let head = [
            ("Address", self.address.to_string()),
            ("State", format!("{}, {}", self.state, self.meaning)),
        ];
        let place = [
            ("Reserved by", self.reserved_by.join(" ")),
            ("Pool", self.pools.join(" ")),
            ("Subnet", self.subnet.clone().unwrap_or_default()),
            ("Unrecorded", self.unrecorded.join(" ")),
        ];
        let rest = place.iter();
        let mut shown: Vec<(&str, String)> = head.to_vec();
        for holder in &self.holders {
            let of = |text: &Option<String>| text.clone().unwrap_or_default();
            shown.extend([
                ("Pod", format!("{} ({})", holder.pod, holder.phase)),
                ("Since", of(&holder.since)),
                ("Workload", of(&holder.workload)),
                ("Interface", of(&holder.nic)),
                ("Node", of(&holder.node)),
                ("Sandbox", of(&holder.sandbox)),
            ]);
            if self.holders.len() > 1 {
                shown.push(("Recorded in", holder.pool.clone()));
            }
        }
        shown.extend(rest.cloned());
        fields(&shown, width)
    }
}

#[cfg(test)]
mod tests;
