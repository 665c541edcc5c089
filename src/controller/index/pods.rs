//! Pods, as far as the index reads them, and what it knows of a workload's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipam::annotation as asked;
use ipam::name::{Nic, NodeName, PodName, Uid};
use ipam::plan::Holder;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use kube::{Resource, ResourceExt};

use super::state::{State, remove};
use crate::api::names::annotation;
use crate::api::pod;

/// A Pod as far as sizes and addresses depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodSeen {
    pub(super) owner: Option<Uid>,
    pub(super) living: bool,
    pub(super) addresses: BTreeMap<IpAddr, Option<Nic>>,
    /// Whom a record would name; none for a Pod on its node's network.
    pub(super) holder: Option<Identity>,
}

/// Who a Pod is, to its node: a static Pod's uid there is not that of its copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    name: PodName,
    uid: Uid,
    node: Option<NodeName>,
}

impl State {
    pub(super) fn remember_pod(&mut self, uid: &Uid, seen: &PodSeen) {
        if let Some(owner) = &seen.owner {
            self.pods_changed(owner);
            self.pods_of_owner
                .entry(owner.clone())
                .or_default()
                .insert(uid.clone());
        }
        for address in seen.addresses.keys() {
            self.on_pods
                .entry(*address)
                .or_default()
                .insert(uid.clone());
        }
    }

    pub(super) fn forget_pod(&mut self, uid: &Uid, seen: &PodSeen) {
        if let Some(owner) = &seen.owner {
            self.pods_changed(owner);
            remove(&mut self.pods_of_owner, owner, uid);
        }
        for address in seen.addresses.keys() {
            remove(&mut self.on_pods, address, uid);
        }
    }

    pub(super) fn living(&self, workload: &Uid) -> BTreeSet<Uid> {
        let living = self.living_pods(workload);
        living.map(|(uid, _)| uid.clone()).collect()
    }

    /// The Pods of a workload, and of those below it, that live.
    pub(super) fn living_pods<'s>(
        &'s self,
        workload: &'s Uid,
    ) -> impl Iterator<Item = (&'s Uid, &'s PodSeen)> {
        let children = self.children.get(workload).into_iter().flatten();
        let owners = children.chain(std::iter::once(workload));
        let pods = owners.flat_map(|owner| self.pods_of_owner.get(owner).into_iter().flatten());
        pods.filter_map(|uid| Some((uid, self.pods.get(uid).filter(|p| p.living)?)))
    }

    /// The Pod with this uid as the holder of one of its addresses.
    pub(super) fn holder(&self, uid: &Uid, address: &IpAddr) -> Option<Holder> {
        let seen = self.pods.get(uid)?;
        let Identity { name, uid, node } = seen.holder.clone()?;
        Some(Holder {
            pod: name,
            uid,
            node,
            nic: seen.addresses.get(address).cloned().flatten(),
        })
    }
}

impl PodSeen {
    /// The name of a Pod that has a node and no address yet.
    pub(super) fn waits(&self) -> Option<&PodName> {
        let holder = self.holder.as_ref().filter(|holder| holder.node.is_some());
        holder
            .filter(|_| self.addresses.is_empty())
            .map(|holder| &holder.name)
    }
}

/// Annotations of a Pod that say which pools it wants.
const ASKS: [&str; 6] = [
    asked::SUBNETS,
    asked::SUBNET,
    asked::IP_NUMBER,
    asked::RECLAIM,
    asked::IPPOOLS,
    asked::IPPOOL,
];

/// Leaves of a Pod what the index reads of it, and until it has an address what says which it may
/// have: a cluster has very many.
pub fn trim_pod(pod: &mut Pod) {
    let waits = pod::waits_for_network(pod);
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        node_name: spec.node_name,
        host_network: spec.host_network,
        ..PodSpec::default()
    });
    pod.metadata.annotations = pod.metadata.annotations.take().map(|mut annotations| {
        let is_ours = |key: &str| waits && ASKS.contains(&key);
        annotations.retain(|key, _| {
            key == annotation::NETWORK_STATUS || key == pod::MIRROR || is_ours(key)
        });
        annotations
    });
    pod.metadata.labels.take_if(|_| !waits);
    pod.status = pod.status.take().map(|status| PodStatus {
        phase: status.phase,
        pod_ips: status.pod_ips,
        ..PodStatus::default()
    });
}

pub(super) fn pod_seen(pod: &Pod) -> PodSeen {
    let finished = pod::has_finished(pod);
    let controller = pod
        .owner_references()
        .iter()
        .find(|r| r.controller == Some(true));
    PodSeen {
        owner: controller.map(|r| Uid::from(r.uid.as_str())),
        living: !finished && pod.meta().deletion_timestamp.is_none(),
        addresses: if finished {
            BTreeMap::new()
        } else {
            pod::addresses(pod)
        },
        holder: (!pod::is_on_host(pod)).then(|| Identity {
            name: PodName::new(&pod.namespace().unwrap_or_default(), &pod.name_any()),
            uid: pod::uid(pod),
            node: pod::node(pod),
        }),
    }
}
