//! Pods as a plan counts them: whose they are, and whether they still want an address.

use std::collections::BTreeMap;

use ipam::name::Uid;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::objects::Load;

/// Which workload is above which.
#[derive(Debug)]
pub(super) struct Families {
    /// Of each workload the one at its top; itself where nothing is above.
    tops: BTreeMap<Uid, Uid>,
}

/// The families of `workloads`: a ReplicaSet's Pods are its Deployment's, a Job's its CronJob's.
pub(super) fn families(workloads: &[Load]) -> Families {
    let known: BTreeMap<&str, &Load> = workloads
        .iter()
        .map(|load| (load.seen.id.uid.as_str(), load))
        .collect();
    let top = |load: &Load| {
        let above = load.seen.controller.as_ref();
        let above = above.and_then(|owner| known.get(owner.uid.as_str()));
        above.map_or_else(
            || load.seen.id.uid.clone(),
            |above| above.seen.id.uid.clone(),
        )
    };
    let tops = workloads
        .iter()
        .map(|load| (load.seen.id.uid.clone(), top(load)));
    Families {
        tops: tops.collect(),
    }
}

impl Families {
    /// The workload that `pod` is of in the end.
    pub(super) fn top(&self, pod: &Pod) -> Option<Uid> {
        let owner = pod
            .owner_references()
            .iter()
            .find(|o| o.controller == Some(true))?;
        self.tops.get(&Uid::from(owner.uid.as_str())).cloned()
    }

    /// True for a workload that no other one stands above.
    pub(super) fn is_top(&self, load: &Load) -> bool {
        self.tops.get(&load.seen.id.uid) == Some(&load.seen.id.uid)
    }
}

/// False for a Pod that has finished or is being deleted.
pub(super) fn is_living(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

pub(super) fn uid(pod: &Pod) -> Uid {
    Uid::new(pod.uid().unwrap_or_default())
}

/// `namespace/name`.
pub(super) fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// True where the Pod has an address by its own status, whoever gave it.
pub(super) fn has_address(pod: &Pod) -> bool {
    let ips = pod.status.as_ref().and_then(|s| s.pod_ips.as_ref());
    ips.is_some_and(|ips| !ips.is_empty())
}
