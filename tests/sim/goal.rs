//! What a cluster should come to, once nothing disturbs it any more.
//!
//! Owns: the looks at all objects that say what is lacking (L1, L3, L4, L9). Never does: wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipam::addr::AddrSet;
use ipam::record::Records;
use kubesim::Server;
use orbweaver::api::names::label;
use orbweaver::api::{SpiderIPPool, convert};
use serde_json::Value;

use crate::cluster::Cluster;

/// What is looked for: one of the functions below.
pub(crate) type Goal = fn(&Server) -> Vec<String>;

/// A look that is taken anew only where something has moved that it looks at.
pub(crate) struct Gaze {
    goal: Goal,
    moves: Option<u64>,
    lacking: Vec<String>,
}

impl Gaze {
    pub(crate) fn at(goal: Goal) -> Self {
        Self {
            goal,
            moves: None,
            lacking: Vec::new(),
        }
    }

    /// What is lacking now.
    pub(crate) fn lacking(&mut self, cluster: &Cluster) -> &[String] {
        let moves = Some(cluster.judge.moves());
        if self.moves != moves {
            self.moves = moves;
            self.lacking = (self.goal)(&cluster.server);
        }
        &self.lacking
    }
}

/// What is lacking to the state that the workloads ask for; empty where nothing is.
pub(crate) fn lacks(server: &Server) -> Vec<String> {
    let mut lacks = unserved(server);
    lacks.append(&mut unreleased(server));
    lacks.append(&mut untold(server));
    let mut replicas = BTreeMap::new();
    for resource in ["deployments.apps", "statefulsets.apps"] {
        for workload in server.objects(resource) {
            let wanted = workload
                .pointer("/spec/replicas")
                .and_then(Value::as_i64)
                .unwrap_or(1);
            let name = text(&workload, "/metadata/name");
            replicas.insert(text(&workload, "/metadata/uid"), wanted);
            if workload.pointer("/status/observedGeneration")
                != workload.pointer("/metadata/generation")
            {
                lacks.push(format!("{name} is not looked at as it is now"));
            }
            for field in ["readyReplicas", "replicas", "updatedReplicas"] {
                let has = workload.pointer(&format!("/status/{field}"));
                let has = has.and_then(Value::as_i64).unwrap_or(0);
                if has != wanted {
                    lacks.push(format!("{name} has {field} {has} of {wanted}"));
                }
            }
        }
    }
    let pools = server.objects("spiderippools.spiderpool.spidernet.io");
    let living = living(server);
    for pool in &pools {
        pool_lacks(pool, &pools, &living, &replicas, &mut lacks);
    }
    lacks
}

/// Pods that wait, for an address or for their end (L9).
pub(crate) fn unserved(server: &Server) -> Vec<String> {
    let pods = server.objects("pods");
    let waits = pods.iter().filter_map(|pod| {
        let (name, phase) = (text(pod, "/metadata/name"), text(pod, "/status/phase"));
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            Some(format!("Pod {name} still terminates"))
        } else {
            (phase != "Running").then(|| format!("Pod {name} is {phase}"))
        }
    });
    waits.collect()
}

/// Addresses of Pods that are gone (L3).
pub(crate) fn unreleased(server: &Server) -> Vec<String> {
    let living = living(server);
    let mut held = Vec::new();
    for pool in server.objects("spiderippools.spiderpool.spidernet.io") {
        let (name, records) = (text(&pool, "/metadata/name"), records(&pool));
        let gone = records
            .iter()
            .filter(|(_, record)| !record.kept && !living.contains(record.uid.as_str()));
        held.extend(gone.map(|(address, record)| {
            format!(
                "{address} of {name} is recorded for {}, which is gone",
                record.pod
            )
        }));
    }
    held
}

/// Addresses that no endpoint tells of, though their Pods run: a Pod without a network may have got a
/// part of what it asks for.
fn untold(server: &Server) -> Vec<String> {
    let running = running(server);
    let mut told = BTreeSet::new();
    for endpoint in server.objects("spiderendpoints.spiderpool.spidernet.io") {
        let uid = text(&endpoint, "/status/current/uid");
        let nics = endpoint.pointer("/status/current/ips");
        for nic in nics.and_then(Value::as_array).into_iter().flatten() {
            for family in ["/ipv4", "/ipv6"] {
                let address = text(nic, family);
                let address = address.split('/').next().unwrap_or_default();
                told.insert((uid.clone(), address.to_owned()));
            }
        }
    }
    let mut untold = Vec::new();
    for pool in server.objects("spiderippools.spiderpool.spidernet.io") {
        for (address, record) in records(&pool).iter() {
            let uid = record.uid.as_str().to_owned();
            let is_told = told.contains(&(uid.clone(), address.to_string()));
            if !record.kept && running.contains(&uid) && !is_told {
                untold.push(format!(
                    "no endpoint tells that {} has {address}",
                    record.pod
                ));
            }
        }
    }
    untold
}

/// The uids of all Pods there are.
fn living(server: &Server) -> BTreeSet<String> {
    let pods = server.objects("pods");
    pods.iter().map(|pod| text(pod, "/metadata/uid")).collect()
}

/// The uids of those that have a network.
fn running(server: &Server) -> BTreeSet<String> {
    let pods = server.objects("pods");
    let has_network = |pod: &&Arc<Value>| pod.pointer("/status/podIPs/0").is_some();
    let running = pods.iter().filter(has_network);
    running.map(|pod| text(pod, "/metadata/uid")).collect()
}

fn records(pool: &Value) -> Records {
    let text = pool.pointer("/status/allocatedIPs").and_then(Value::as_str);
    Records::parse(text).unwrap_or_default()
}

/// How many addresses the pool's workload still has in pools that are on their way out, as one is
/// that somebody deleted under its Pods.
fn left_elsewhere(pool: &Value, pools: &[Arc<Value>], living: &BTreeSet<String>) -> i64 {
    let of = |pool: &Value| {
        let label = |name: &str| pool["metadata"]["labels"][name].clone();
        [label::OWNER_UID, label::INTERFACE, label::IP_VERSION].map(label)
    };
    let others = pools.iter().filter(|other| {
        other.pointer("/metadata/deletionTimestamp").is_some() && of(other) == of(pool)
    });
    let held = others.map(|other| {
        let records = records(other);
        let held = records
            .iter()
            .filter(|(_, record)| living.contains(record.uid.as_str()));
        held.count()
    });
    i64::try_from(held.sum::<usize>()).unwrap_or(i64::MAX)
}

fn pool_lacks(
    pool: &Value,
    pools: &[Arc<Value>],
    living: &BTreeSet<String>,
    replicas: &BTreeMap<String, i64>,
    lacks: &mut Vec<String>,
) {
    let name = text(pool, "/metadata/name");
    let read = serde_json::from_value::<SpiderIPPool>(pool.clone()).ok();
    let read = read.and_then(|pool| convert::pool(&pool).ok());
    let count = |addresses: &AddrSet| i64::try_from(addresses.count().get()).ok();
    let told = pool.pointer("/status/totalIPCount").and_then(Value::as_i64);
    if let Some(read) = &read
        && told != count(&read.total())
    {
        lacks.push(format!("pool {name} says that it has {told:?} addresses"));
    }
    let goes = pool.pointer("/metadata/deletionTimestamp").is_some();
    if goes && records(pool).iter().next().is_none() {
        lacks.push(format!(
            "pool {name} does not go, and nobody holds an address of it"
        ));
    }
    let labels = pool.pointer("/metadata/labels");
    let label = |name: &str| {
        labels
            .and_then(|l| l.get(name)?.as_str())
            .unwrap_or_default()
    };
    if goes || label("ipam.spidernet.io/owner-application-name").is_empty() {
        return;
    }
    // What a person took out of it while in use serves on: it is the workload's as before.
    let total = read.and_then(|pool| count(&pool.claimed()));
    // Its subnet may have no more for it while Pods have what a deleted pool had.
    let left = left_elsewhere(pool, pools, living);
    let is_right = |total: i64, wanted: i64| {
        total == wanted || (left > 0 && (total..=total + left).contains(&wanted))
    };
    match replicas.get(label("ipam.spidernet.io/owner-application-uid")) {
        Some(replicas) if !total.is_some_and(|total| is_right(total, replicas + 1)) => {
            lacks.push(format!(
                "pool {name} has {total:?} addresses for {replicas} replicas, {left} are left in others"
            ));
        }
        None if label("ipam.spidernet.io/ippool-reclaim") == "true" => {
            lacks.push(format!("pool {name} outlives its workload"));
        }
        Some(_) | None => {}
    }
}

/// Pools that agents are asked to look at for what nobody will release: the controller's next look
/// takes that back, and is a write in a cluster at rest.
pub(crate) fn asked_about(server: &Server) -> Vec<String> {
    let pools = server.objects("spiderippools.spiderpool.spidernet.io");
    let asked = pools
        .iter()
        .filter(|pool| pool["metadata"]["labels"].get(label::LEAK).is_some());
    asked
        .map(|pool| format!("agents are asked about {}", text(pool, "/metadata/name")))
        .collect()
}

/// What is left of a cluster whose workloads were all deleted, and should not be (L4).
pub(crate) fn left_over(server: &Server) -> Vec<String> {
    let mut left = lacks(server);
    for endpoint in server.objects("spiderendpoints.spiderpool.spidernet.io") {
        left.push(format!(
            "SpiderEndpoint {} is left",
            text(&endpoint, "/metadata/name")
        ));
    }
    let mut pools = BTreeSet::new();
    for pool in server.objects("spiderippools.spiderpool.spidernet.io") {
        let name = text(&pool, "/metadata/name");
        if pool
            .pointer("/status/allocatedIPCount")
            .and_then(Value::as_i64)
            .unwrap_or(0)
            != 0
        {
            left.push(format!("pool {name} holds addresses"));
        }
        pools.insert(name);
    }
    for subnet in server.objects("spidersubnets.spiderpool.spidernet.io") {
        let ledger = text(&subnet, "/status/controlledIPPools");
        let ledger: BTreeMap<String, Value> = serde_json::from_str(&ledger).unwrap_or_default();
        for pool in ledger.keys().filter(|pool| !pools.contains(*pool)) {
            let name = text(&subnet, "/metadata/name");
            left.push(format!(
                "the ledger of {name} has an entry of {pool}, which is gone"
            ));
        }
    }
    left
}

fn text(object: &Value, path: &str) -> String {
    object
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
