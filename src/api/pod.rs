//! What a Pod's object says: who it is, whose, where, how near its end, and which addresses it has.
//!
//! Owns: the reading of Pods that both roles and the command line need. Never does: decide what
//! follows from it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::attachment::addresses_told;
use ipam::collect::Fate;
use ipam::name::{Nic, NodeName, PodName, Uid};
use ipam::release::Life;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::names::annotation;
use super::time;

/// On the API server's copy of a static Pod: the uid by which its node, and so the runtime, knows it.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// The node's uid of a static Pod, if this is the copy of one. A Pod that merely has the annotation
/// is not: its controller would be the Node.
pub fn static_uid(pod: &Pod) -> Option<&str> {
    let owner = controller(pod)?;
    let is_node = (owner.api_version.as_str(), owner.kind.as_str()) == ("v1", "Node");
    let uid = pod.annotations().get(MIRROR)?;
    is_node.then_some(uid)
}

/// The Pod's uid, as its sandbox carries it. That of a static Pod is its node's, not its copy's:
/// the copy may be deleted and made again while the Pod runs.
pub fn uid(pod: &Pod) -> Uid {
    let own = || pod.metadata.uid.as_deref().unwrap_or_default();
    Uid::from(static_uid(pod).unwrap_or_else(own))
}

/// The controlling one of an object's owners.
pub fn controller_of(references: Option<&[OwnerReference]>) -> Option<&OwnerReference> {
    references?.iter().find(|r| r.controller == Some(true))
}

/// The Pod's controlling owner.
pub fn controller(pod: &Pod) -> Option<&OwnerReference> {
    controller_of(pod.metadata.owner_references.as_deref())
}

/// The addresses that a Pod says it has, and on which interface where it says that too: its status,
/// and what Multus told of its further interfaces.
pub fn addresses(pod: &Pod) -> BTreeMap<IpAddr, Option<Nic>> {
    let ips = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten());
    let own = ips.filter_map(|ip| Some((ip.ip.parse().ok()?, None)));
    let told = pod.annotations().get(annotation::NETWORK_STATUS);
    let told = told.map(|text| addresses_told(text));
    // Later ones replace earlier ones: what Multus tells says more.
    own.chain(told.unwrap_or_default()).collect()
}

/// True for a Pod that has ended: it has no address any more, whatever it says.
pub fn has_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// True for a Pod on its node's network: its addresses are the node's.
pub fn is_on_host(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.host_network).unwrap_or_default()
}

/// The node of a Pod that has one.
pub fn node(pod: &Pod) -> Option<NodeName> {
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    (!node.is_empty()).then(|| NodeName::from(node))
}

/// True for a Pod that gets addresses here: it has a network of its own, and its uid is the API
/// server's.
pub fn has_own_network(pod: &Pod) -> bool {
    !is_on_host(pod) && static_uid(pod).is_none()
}

/// True for a Pod that has a node, is to have a network of its own, and says of no address yet.
pub fn waits_for_network(pod: &Pod) -> bool {
    let ips = pod.status.as_ref().and_then(|s| s.pod_ips.as_ref());
    let has_none = ips.is_none_or(Vec::is_empty);
    life(pod) == Life::Alive && node(pod).is_some() && has_own_network(pod) && has_none
}

/// `namespace/name`.
pub fn name(pod: &Pod) -> PodName {
    PodName::new(&pod.namespace().unwrap_or_default(), &pod.name_any())
}

/// How near its end the Pod is.
///
/// A phase `Succeeded` or `Failed` is final: the kubelet never starts a container of such a Pod
/// again, whatever its restart policy. A static Pod's copy says less: its node may run the same uid
/// again.
pub fn life(pod: &Pod) -> Life {
    if has_finished(pod) && static_uid(pod).is_none() {
        Life::Gone
    } else if pod.metadata.deletion_timestamp.is_some() {
        Life::Ending
    } else {
        Life::Alive
    }
}

/// What became of the Pod of uid `of`, by the object that has its name now.
pub fn fate(found: Option<&Pod>, of: &Uid) -> Fate {
    let Some(pod) = found.filter(|pod| uid(pod) == *of) else {
        return Fate::Gone;
    };
    match (life(pod), &pod.metadata.deletion_timestamp) {
        (Life::Gone, _) => Fate::Gone,
        (Life::Alive | Life::Ending, None) => Fate::Lives,
        (Life::Alive | Life::Ending, Some(by)) => Fate::Ends {
            by: time::from_wire(by),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn pod(spec: &serde_json::Value, status: &serde_json::Value) -> Pod {
        let meta = json!({"name": "web-0", "namespace": "shop", "uid": "u"});
        serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn a_life_follows_phase_and_deletion_and_no_restart_policy() {
        let table = [
            ("Running", false, Life::Alive),
            ("Pending", false, Life::Alive),
            ("Unknown", false, Life::Alive),
            ("Running", true, Life::Ending),
            ("Succeeded", false, Life::Gone),
            ("Failed", false, Life::Gone),
            ("Failed", true, Life::Gone),
        ];
        for policy in ["Always", "OnFailure", "Never"] {
            for (phase, deleted, expected) in table {
                let spec = json!({"containers": [], "restartPolicy": policy});
                let mut pod = pod(&spec, &json!({"phase": phase}));
                pod.metadata.deletion_timestamp = deleted.then(a_moment);
                assert_eq!(life(&pod), expected, "{phase} {policy} {deleted}");
            }
        }
    }

    #[test]
    fn a_static_pod_s_node_may_run_it_again() {
        let mut pod = pod(&json!({"containers": []}), &json!({"phase": "Failed"}));
        pod.annotations_mut()
            .insert(MIRROR.to_owned(), "0a".to_owned());
        assert_eq!(life(&pod), Life::Gone, "it is not of a node");
        pod.owner_references_mut().push(of_node());
        assert_eq!(life(&pod), Life::Alive);
    }

    fn of_node() -> OwnerReference {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n", "controller": true});
        serde_json::from_value(owner).unwrap()
    }

    fn a_moment() -> Time {
        serde_json::from_value(json!("2026-11-22T17:41:24Z")).unwrap()
    }

    #[test]
    fn a_static_pod_is_known_by_the_uid_of_its_node() {
        let mut pod = pod(&json!({"containers": []}), &json!({}));
        assert_eq!(uid(&pod), Uid::from("u"));
        let hash = "0a1b2c3d".to_owned();
        pod.annotations_mut().insert(MIRROR.to_owned(), hash);
        assert_eq!(uid(&pod), Uid::from("u"), "anyone may write an annotation");
        pod.owner_references_mut().push(of_node());
        assert_eq!(uid(&pod), Uid::from("0a1b2c3d"));
    }

    #[test]
    fn a_namesake_of_another_uid_is_not_the_pod() {
        let mut there = pod(&json!({"containers": []}), &json!({"phase": "Running"}));
        let of = Uid::from("u");
        assert_eq!(fate(Some(&there), &of), Fate::Lives);
        assert_eq!(fate(Some(&there), &Uid::from("v")), Fate::Gone);
        assert_eq!(fate(None, &of), Fate::Gone);
        there.metadata.deletion_timestamp = Some(a_moment());
        let by = time::from_wire(&a_moment());
        assert_eq!(fate(Some(&there), &of), Fate::Ends { by });
    }
}
