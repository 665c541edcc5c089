//! Fixed addresses on a node: what the core's rules ([`ipam::keep`]) want to know, seen here.
//!
//! Owns: who a Pod's StatefulSet or virtual machine is and what it wants, what an endpoint of the
//! original says about a former Pod, and whether a node is lost. Never does: pass an address on;
//! the pool's writer does, on the record it writes. Invariant: what can't be read counts as "still
//! held" and "still wanted".

use std::collections::BTreeSet;
use std::net::IpAddr;

use chrono::TimeDelta;
use ipam::keep::{
    self, Former, Heir, Held, Heritage, Instance, Keeps, Lineage, Machine, MachineKind, Role,
};
use ipam::name::{NodeName, PodName, PoolName, Uid, WorkloadId};
use ipam::record::Record;
use ipam::release::{Owner, Release};
use k8s_openapi::Resource as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Client, ResourceExt};

use super::Settings;
use super::candidates::{Asker, Found};
use super::memory::Trace;
use super::pods;
use super::reads::{OBJECT_AGE, POOL_AGE, ReadError, Reads};
use crate::api::node::{is_out_of_service, is_ready};
use crate::api::pod::controller_of;
use crate::api::{SpiderEndpoint, convert, time};
use crate::kube_io::endpoint::{self, RemoveError};
use crate::kube_io::memo::Age;
use crate::pool_writer::Reading;

/// A record of the original names no sandbox whose end could be told. Its Pod is known to be gone;
/// its node is given this long beyond the Pod's grace period, counted from the new Pod's creation, to
/// have removed the sandbox.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(60);
/// The grace period of a Pod that names none (Kubernetes, `PodSpec`).
const GRACE: i64 = 30;

/// True for a `StatefulSet` whose Pods keep their addresses.
pub(super) fn is_kept_set(settings: &Settings, workload: &WorkloadId) -> bool {
    settings.keeps.stateful_sets && is_stateful_set(workload)
}

/// True for a Pod whose addresses are fixed: of such a set, or of a virtual machine.
pub(super) fn keeps(settings: &Settings, asker: &Asker) -> bool {
    let is_machine_s = pods::machine_instance(&asker.pod).is_some();
    is_kept_set(settings, &asker.workload) || (settings.keeps.machines && is_machine_s)
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
    /// What `asker` may inherit from a former Pod of its identity; `None` where its addresses are
    /// not fixed. The endpoint is looked at only where a pool has a record without owner for a Pod
    /// of this name.
    ///
    /// Errors: the endpoint or the owner could not be read.
    pub(super) async fn of(
        settings: &Settings,
        reads: &Reads,
        asker: &Asker,
        found: &[Found],
    ) -> Result<Option<Self>, ReadError> {
        let Some(line) = Line::of(settings, reads, asker).await? else {
            return Ok(None);
        };
        let uid = pods::uid(&asker.pod);
        let mut inheritance = Self {
            heritage: Heritage {
                lineage: line.lineage,
                instance: line.instance,
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
            record.owner.is_none() && record.pod == line.told_as && record.uid != uid
        };
        if records.any(nameless)
            && let Some(endpoint) = reads.endpoint(&line.told_as).await?
            && tells_of(reads, &endpoint, asker, &inheritance.heritage.lineage).await?
            && let Some(status) = &endpoint.status
        {
            let former = Uid::from(status.current.uid.as_str());
            let mut runs_in = BTreeSet::new();
            if let Some(own) = &inheritance.heritage.instance {
                let (namespace, name) = line.told_as.parts();
                runs_in = reads.active_pods(namespace, name, &own.uid).await?;
            }
            let instance = inheritance.heritage.instance.as_ref();
            inheritance.heritage.former = Some(Former {
                instance: instance
                    .filter(|_| runs_in.contains(&former))
                    .map(|own| own.uid.clone()),
                uid: former,
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

/// Of which identity a Pod is.
struct Line {
    lineage: Lineage,
    instance: Option<Instance>,
    /// What the original calls it, in endpoints and records: the Pod's name, or its machine's.
    told_as: PodName,
}

impl Line {
    async fn of(
        settings: &Settings,
        reads: &Reads,
        asker: &Asker,
    ) -> Result<Option<Self>, ReadError> {
        if is_kept_set(settings, &asker.workload) {
            return Ok(Some(Self {
                lineage: Lineage::of_set(asker.workload.uid.clone()),
                instance: None,
                told_as: pods::name(&asker.pod),
            }));
        }
        let run = pods::machine_instance(&asker.pod).filter(|_| settings.keeps.machines);
        let Some(run) = run else {
            return Ok(None);
        };
        let uid = Uid::from(run.uid.as_str());
        let role = if pods::is_migration_target(&asker.pod) {
            Role::MigrationTarget
        } else {
            Role::Start
        };
        let namespace = asker.pod.namespace().unwrap_or_default();
        Ok(Some(Self {
            told_as: PodName::new(&namespace, &run.name),
            lineage: machine_of(reads, &namespace, run).await?,
            instance: Some(Instance { uid, role }),
        }))
    }
}

/// The machine that `run` is a run of: the one that controls it, or it alone.
async fn machine_of(
    reads: &Reads,
    namespace: &str,
    run: &OwnerReference,
) -> Result<Lineage, ReadError> {
    let alone = Machine {
        kind: MachineKind::VirtualMachineInstance,
        name: run.name.clone(),
    };
    let found = reads
        .machine(namespace, &alone, Age::Within(OBJECT_AGE))
        .await?;
    let this = found.filter(|found| found.uid.as_ref() == Some(&run.uid));
    let owners = this.as_ref().and_then(|m| m.owner_references.as_deref());
    let machine = controller_of(owners)
        .filter(|owner| pods::is_machine(owner, MachineKind::VirtualMachine))
        .map(|owner| Lineage {
            owner: Uid::from(owner.uid.as_str()),
            machine: Some(Machine {
                kind: MachineKind::VirtualMachine,
                name: owner.name.clone(),
            }),
        });
    Ok(machine.unwrap_or_else(|| Lineage {
        owner: Uid::from(run.uid.as_str()),
        machine: Some(alone),
    }))
}

/// True where the endpoint was written for the very owner that `lineage` names.
async fn tells_of(
    reads: &Reads,
    endpoint: &SpiderEndpoint,
    asker: &Asker,
    lineage: &Lineage,
) -> Result<bool, ReadError> {
    let WorkloadId {
        namespace, name, ..
    } = &asker.workload;
    let is_it = |uid: Option<&String>| uid.map(String::as_str) == Some(lineage.owner.as_str());
    if let Some(machine) = &lineage.machine {
        let found = reads.machine(namespace, machine, Age::live()).await?;
        let found = found.filter(|found| is_it(found.uid.as_ref()));
        return Ok(found.is_some_and(|found| endpoint.tells_of_machine(&found)));
    }
    let found = reads.stateful_set(namespace, name, Age::live()).await?;
    let found = found.filter(|found| is_it(found.metadata.uid.as_ref()));
    Ok(found.is_some_and(|found| endpoint.tells_of(&found)))
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

/// Whether the Pod before `pod` must have ended by now. A kubelet grants a Pod that was deleted by force
/// its whole grace period; as a rule it is that of the next Pod, which is made from the same template.
fn settled(pod: &Pod) -> bool {
    let made = pod.metadata.creation_timestamp.as_ref();
    let grace = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    let wait = TimeDelta::try_seconds(grace.unwrap_or(GRACE));
    let wait = wait.and_then(|grace| SETTLED_AFTER.checked_add(&grace));
    made.zip(wait)
        .is_some_and(|(made, wait)| time::now() - time::from_wire(made) >= wait)
}

/// Says of Pods that end whether their addresses are kept.
#[derive(Clone)]
pub(super) struct Keepers {
    reads: Reads,
    writes: Client,
    keeps: Keeps,
}

impl Keepers {
    pub(super) fn new(settings: &Settings, reads: Reads, writes: Client) -> Self {
        Self {
            reads,
            writes,
            keeps: settings.keeps,
        }
    }

    /// Who wants the addresses of `pod`, which had `uid`, kept for the next Pod of its identity. A
    /// StatefulSet's uid is `noted` from the Pod, else what a record in one of `pools` or the Pod's
    /// endpoint says; a machine is what the record or the endpoint says.
    ///
    /// Errors: something could not be read, so nobody knows.
    pub(super) async fn of(
        &self,
        pod: &PodName,
        uid: &Uid,
        noted: Option<&Uid>,
        pools: &BTreeSet<PoolName>,
    ) -> Result<Option<Lineage>, ReadError> {
        if self.keeps.machines
            && keep::is_launcher(pod)
            && let Some(record) = self.recorded(uid, pools).await?
            && let Some(lineage) = self.machine(uid, &record).await?
        {
            return self.wanted(pod, lineage).await;
        }
        let is_kept = |_: &_| self.keeps.stateful_sets;
        let Some((set, _)) = keep::ordinal(pod).filter(is_kept) else {
            return Ok(None);
        };
        let (namespace, _) = pod.parts();
        let found = self.reads.stateful_set(namespace, set, Age::live()).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let keeper = convert::keeper(&found);
        let owner = if let Some(noted) = noted {
            Some(Some(noted.clone()))
        } else {
            let record = self.recorded(uid, pools).await?;
            // One of ours names the owner, or the Pod has none.
            let says = record.filter(|record| record.owner.is_some() || record.sandbox.is_some());
            says.map(|record| record.owner)
        };
        let is_of_set = match &owner {
            Some(owner) => owner.as_ref() == Some(&keeper.uid),
            None => self.is_told(pod, uid, &found).await?,
        };
        let wanted = is_of_set && keep::unwanted(pod, &keeper.uid, Some(&keeper)).is_none();
        Ok(wanted.then(|| Lineage::of_set(keeper.uid)))
    }

    /// Which machine's address it is, as the record says, or an endpoint of the original, which
    /// calls both by the machine's name.
    async fn machine(&self, uid: &Uid, record: &Record) -> Result<Option<Lineage>, ReadError> {
        if record.owner.is_some() {
            return Ok(record.lineage().filter(|of| of.machine.is_some()));
        }
        let endpoint = self.reads.endpoint(&record.pod).await?;
        let Some(endpoint) = endpoint.filter(|told| endpoint::pod_uid(told) == Some(uid.as_str()))
        else {
            return Ok(None);
        };
        let (namespace, _) = record.pod.parts();
        for machine in convert::machines_of(&endpoint) {
            let found = self.reads.machine(namespace, &machine, Age::live()).await?;
            let found = found.filter(|found| endpoint.tells_of_machine(found));
            if let Some(found) = found {
                let owner = convert::machine_keeper(&found).uid;
                let machine = Some(machine);
                return Ok(Some(Lineage { owner, machine }));
            }
        }
        Ok(None)
    }

    /// The lineage, where its machine still wants its addresses.
    async fn wanted(&self, pod: &PodName, of: Lineage) -> Result<Option<Lineage>, ReadError> {
        let Some(machine) = &of.machine else {
            return Ok(None);
        };
        let (namespace, _) = pod.parts();
        let found = self.reads.machine(namespace, machine, Age::live()).await?;
        let keeper = found.map(|found| convert::machine_keeper(&found));
        let is_wanted = keep::unwanted(pod, &of.owner, keeper.as_ref()).is_none();
        Ok(is_wanted.then_some(of))
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

    /// A record of the Pod: one that names an owner before others, and one of ours before one of
    /// the original's, which says nothing of it.
    async fn recorded(
        &self,
        uid: &Uid,
        pools: &BTreeSet<PoolName>,
    ) -> Result<Option<Record>, ReadError> {
        let mut found: Option<Record> = None;
        for pool in pools {
            let Some(reading) = self.reads.pool(pool, Age::Within(POOL_AGE)).await? else {
                continue;
            };
            let pool = reading.candidate.pool.iter();
            let records = pool.flat_map(|pool| pool.records.iter());
            for (_, record) in records.filter(|(_, record)| record.is_held_by(uid)) {
                if record.owner.is_some() {
                    return Ok(Some(record.clone()));
                }
                let ours = found.filter(|found| found.sandbox.is_some());
                found = ours.or_else(|| Some(record.clone()));
            }
        }
        Ok(found)
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
