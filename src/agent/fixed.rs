//! Fixed addresses on a node: what the core's rules ([`ipam::keep`]) want to know, seen here.
//!
//! Owns: who a Pod's StatefulSet is and what it wants, what an endpoint of the original says about
//! a former Pod, and whether a node is lost. Never does: pass an address on; the pool's writer
//! does, on the record it writes. Invariant: what can't be read counts as "still held" and "still
//! wanted".

use std::collections::BTreeSet;
use std::net::IpAddr;

use chrono::TimeDelta;
use ipam::keep::{Former, Heir, Held, Heritage};
use ipam::name::{NodeName, Uid, WorkloadId};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use super::Settings;
use super::candidates::{Asker, Found};
use super::memo::Age;
use super::pods;
use super::reads::{ReadError, Reading, Reads};
use crate::api::{SpiderEndpoint, time};

/// By which a person says that a node is down and none of its Pods runs any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// A record of the original names no sandbox whose end could be told. Its Pod is known to be gone;
/// its node is given this long, counted from the new Pod's creation, to have removed the sandbox.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(60);

/// True for a workload whose Pods keep their addresses.
pub(super) fn keeps(settings: &Settings, workload: &WorkloadId) -> bool {
    settings.stateful_sets && is_stateful_set(workload)
}

fn is_stateful_set(workload: &WorkloadId) -> bool {
    workload.group == "apps" && workload.kind == "StatefulSet"
}

/// What a Pod may inherit, and who is asked about it.
#[derive(Debug, Clone)]
pub(super) struct Inheritance {
    pub(super) heritage: Heritage,
    /// Node of a former Pod that an endpoint tells of.
    former_node: Option<NodeName>,
}

impl Inheritance {
    /// What `asker` may inherit from a former Pod of its StatefulSet; `None` where its addresses
    /// are not fixed. The endpoint is looked at only where a pool has a record without owner for a
    /// Pod of this name.
    ///
    /// Errors: the endpoint or the StatefulSet could not be read.
    pub(super) async fn of(
        settings: &Settings,
        reads: &Reads,
        asker: &Asker,
        found: &[Found],
    ) -> Result<Option<Self>, ReadError> {
        if !keeps(settings, &asker.workload) {
            return Ok(None);
        }
        let (pod, uid) = (pods::name(&asker.pod), pods::uid(&asker.pod));
        let mut inheritance = Self {
            heritage: Heritage {
                owner: asker.workload.uid.clone(),
                former: None,
                let_go: BTreeSet::new(),
            },
            former_node: None,
        };
        let pools = found.iter().flat_map(|found| &found.readings);
        let mut records = pools
            .filter_map(|reading| reading.candidate.pool.as_ref().ok())
            .flat_map(|pool| pool.records.iter());
        let nameless = |(_, record): (IpAddr, &ipam::record::Record)| {
            record.owner.is_none() && record.pod == pod && record.uid != uid
        };
        if records.any(nameless)
            && let Some(endpoint) = reads.endpoint(&pod).await?
            && is_of_set(reads, &endpoint, asker).await?
        {
            let current = endpoint.status.iter().map(|status| &status.current);
            for current in current {
                inheritance.heritage.former = Some(Former {
                    uid: Uid::from(current.uid.as_str()),
                    addresses: addresses(&endpoint, asker.nic.as_str()),
                });
                inheritance.former_node = Some(NodeName::from(current.node.as_str()));
            }
        }
        Ok(Some(inheritance))
    }

    /// True where the pool, as it was read, has an address that the Pod inherits or waits for.
    pub(super) fn is_of(&self, reading: &Reading, asker: &Asker) -> bool {
        let (pod, uid) = (pods::name(&asker.pod), pods::uid(&asker.pod));
        let pool = reading.candidate.pool.iter();
        let mut others = pool
            .flat_map(|pool| pool.records.iter())
            .filter(|(_, record)| record.uid != uid);
        others.any(|(address, record)| {
            self.heritage.heir(address, record, &pod, &asker.nic) != Heir::Stranger
        })
    }

    /// Whether the former Pod of `held` can be known to have let go, although nobody saw its
    /// sandbox end; then the address may be asked for once more.
    ///
    /// Errors: the node could not be read.
    pub(super) async fn learn(
        &mut self,
        settings: &Settings,
        reads: &Reads,
        asker: &Asker,
        held: &Held,
    ) -> Result<bool, ReadError> {
        let Some(node) = held.node.as_ref().or(self.former_node.as_ref()) else {
            return Ok(false);
        };
        let is_own = node.as_str() == settings.node;
        let found = reads.node(node.as_str(), Age::live()).await?;
        let has_let_go = match &found {
            None => !is_own,
            Some(found) if held.node.is_some() => !is_own && is_out_of_service(found),
            Some(found) => is_out_of_service(found) || (is_ready(found) && settled(&asker.pod)),
        };
        if has_let_go {
            tracing::warn!(address = %held.address, pool = %held.pool, former = %held.uid, %node, "address taken over from a Pod that nobody saw end");
            self.heritage.let_go.insert(held.uid.clone());
        }
        Ok(has_let_go)
    }
}

/// True where the endpoint was written for a Pod of the very StatefulSet of `asker`: of its name,
/// and not of a former one, which then is older than the set.
async fn is_of_set(
    reads: &Reads,
    endpoint: &SpiderEndpoint,
    asker: &Asker,
) -> Result<bool, ReadError> {
    let set = &asker.workload;
    let named = endpoint.status.as_ref().is_some_and(|status| {
        status.owner_controller_type == set.kind && status.owner_controller_name == set.name
    });
    if !named {
        return Ok(false);
    }
    let found = reads
        .stateful_set(&set.namespace, &set.name, Age::live())
        .await?;
    Ok(found.is_some_and(|found| {
        let (set_made, told) = (
            found.metadata.creation_timestamp.as_ref(),
            endpoint.metadata.creation_timestamp.as_ref(),
        );
        found.uid().as_deref() == Some(set.uid.as_str())
            && set_made
                .zip(told)
                .is_some_and(|(set, told)| set.0 <= told.0)
    }))
}

fn addresses(endpoint: &SpiderEndpoint, nic: &str) -> BTreeSet<IpAddr> {
    let elements = endpoint.status.iter().flat_map(|s| &s.current.ips);
    elements
        .filter(|element| element.interface == nic)
        .flat_map(|element| [&element.ipv4, &element.ipv6])
        .flatten()
        .filter_map(|text| text.split('/').next()?.parse().ok())
        .collect()
}

/// Kubernetes itself takes a node for lost by these two together.
fn is_out_of_service(node: &Node) -> bool {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE) && !is_ready(node)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn settled(pod: &Pod) -> bool {
    let made = pod.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| time::now() - time::from_wire(made) >= SETTLED_AFTER)
}
