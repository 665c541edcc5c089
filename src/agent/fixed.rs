//! Fixed addresses on a node: what the core's rules ([`ipam::keep`]) want to know, seen here.
//!
//! Owns: who a Pod's StatefulSet is and what it wants, what an endpoint of the original says about
//! a former Pod, and whether a node is lost. Never does: pass an address on; the pool's writer
//! does, on the record it writes. Invariant: what can't be read counts as "still held" and "still
//! wanted".

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::TimeDelta;
use ipam::keep::{self, Former, Heir, Held, Heritage};
use ipam::name::{NodeName, PodName, PoolName, Uid, WorkloadId};
use ipam::release::{Owner, Release};
use k8s_openapi::Resource as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};

use super::Settings;
use super::candidates::{Asker, Found};
use super::memory::Trace;
use super::pods;
use super::reads::{POOL_AGE, ReadError, Reads};
use crate::api::node::{is_out_of_service, is_ready};
use crate::api::{SpiderEndpoint, convert, time};
use crate::kube_io::endpoint::{self, RemoveError};
use crate::kube_io::memo::Age;
use crate::pool_writer::Reading;

/// A record of the original names no sandbox whose end could be told. Its Pod is known to be gone;
/// its node is given this long, counted from the new Pod's creation, to have removed the sandbox.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(60);

/// True for a workload whose Pods keep their addresses.
pub(super) fn keeps(settings: &Settings, workload: &WorkloadId) -> bool {
    settings.stateful_sets && is_stateful_set(workload)
}

/// True for a `StatefulSet`, whether or not its Pods keep anything.
pub(super) fn is_stateful_set(workload: &WorkloadId) -> bool {
    workload.group == StatefulSet::GROUP && workload.kind == StatefulSet::KIND
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
            && let Some(set) = set_of(reads, &asker.workload).await?
            && endpoint.tells_of(&set)
            && let Some(status) = &endpoint.status
        {
            inheritance.heritage.former = Some(Former {
                uid: Uid::from(status.current.uid.as_str()),
                addresses: addresses(&endpoint, asker.nic.as_str()),
            });
            inheritance.former_node = Some(NodeName::from(status.current.node.as_str()));
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

/// The StatefulSet of this very uid.
async fn set_of(
    reads: &Reads,
    workload: &WorkloadId,
) -> Result<Option<Arc<StatefulSet>>, ReadError> {
    let found = reads
        .stateful_set(&workload.namespace, &workload.name, Age::live())
        .await?;
    Ok(found.filter(|set| set.uid().as_deref() == Some(workload.uid.as_str())))
}

/// What the interface had; an element without a name is of an interface whose call never came.
fn addresses(endpoint: &SpiderEndpoint, nic: &str) -> BTreeSet<IpAddr> {
    let elements = endpoint.status.iter().flat_map(|s| &s.current.ips);
    elements
        .filter(|element| element.interface == nic || element.interface.is_empty())
        .flat_map(|element| [&element.ipv4, &element.ipv6])
        .flatten()
        .filter_map(|text| text.split('/').next()?.parse().ok())
        .collect()
}

fn settled(pod: &Pod) -> bool {
    let made = pod.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| time::now() - time::from_wire(made) >= SETTLED_AFTER)
}

/// Says of Pods that end whether their addresses are kept.
#[derive(Clone)]
pub(super) struct Keepers {
    reads: Reads,
    writes: Client,
    /// False where nothing is kept.
    on: bool,
}

impl Keepers {
    pub(super) fn new(settings: &Settings, reads: Reads, writes: Client) -> Self {
        Self {
            reads,
            writes,
            on: settings.stateful_sets,
        }
    }

    /// The StatefulSet that wants the addresses of `pod`, which had `uid`, kept for the next Pod of
    /// the name. Its uid is `noted` from the Pod, else what a record in one of `pools` or the
    /// Pod's endpoint says.
    ///
    /// Errors: something could not be read, so nobody knows.
    pub(super) async fn of(
        &self,
        pod: &PodName,
        uid: &Uid,
        noted: Option<&Uid>,
        pools: &BTreeSet<PoolName>,
    ) -> Result<Option<Uid>, ReadError> {
        let Some((set, _)) = keep::ordinal(pod).filter(|_| self.on) else {
            return Ok(None);
        };
        let (namespace, _) = pod.parts();
        let found = self.reads.stateful_set(namespace, set, Age::live()).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let keeper = convert::keeper(&found);
        let owner = match noted {
            Some(noted) => Some(Some(noted.clone())),
            None => self.recorded(uid, pools).await?,
        };
        let is_of_set = match &owner {
            Some(owner) => owner.as_ref() == Some(&keeper.uid),
            None => self.is_told(pod, uid, &found).await?,
        };
        let wanted = is_of_set && keep::unwanted(pod, &keeper.uid, Some(&keeper)).is_none();
        Ok(wanted.then_some(keeper.uid))
    }

    /// What is read with.
    pub(super) fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Removes the endpoint of a Pod whose addresses went, if it outlives the Pod. That of any Pod
    /// an earlier agent served may, since the original's do.
    ///
    /// Errors: the endpoint may still be there.
    pub(super) async fn settle(
        &self,
        pod: &PodName,
        release: &Release,
        trace: &Trace,
    ) -> Result<(), RemoveError> {
        let may_outlive = keep::ordinal(pod).is_some() || !trace.whole;
        if release.keep_for.is_some() || release.owner == Owner::Served || !may_outlive {
            return Ok(());
        }
        let (namespace, name) = pod.parts();
        endpoint::remove_of(&self.writes, namespace, name, release.uid.as_str()).await
    }

    /// What the Pod's records say of its owner: that it is one, or, where an agent of ours made
    /// them, that it has none; `None` where they don't say.
    async fn recorded(
        &self,
        uid: &Uid,
        pools: &BTreeSet<PoolName>,
    ) -> Result<Option<Option<Uid>>, ReadError> {
        let mut is_ours = false;
        for pool in pools {
            let Some(reading) = self.reads.pool(pool, Age::Within(POOL_AGE)).await? else {
                continue;
            };
            let pool = reading.candidate.pool.iter();
            let records = pool.flat_map(|pool| pool.records.iter());
            for (_, record) in records.filter(|(_, record)| record.uid == *uid) {
                if record.owner.is_some() {
                    return Ok(Some(record.owner.clone()));
                }
                is_ours |= record.sandbox.is_some();
            }
        }
        Ok(is_ours.then_some(None))
    }

    /// Whether the Pod's endpoint names this very StatefulSet.
    async fn is_told(
        &self,
        pod: &PodName,
        uid: &Uid,
        set: &StatefulSet,
    ) -> Result<bool, ReadError> {
        let endpoint = self.reads.endpoint(pod).await?;
        Ok(endpoint.is_some_and(|endpoint| {
            let current = endpoint.status.as_ref().map(|s| s.current.uid.as_str());
            current == Some(uid.as_str()) && endpoint.tells_of(set)
        }))
    }
}
