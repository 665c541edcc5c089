//! What a Pod's object says: who it is, whose, where, and which addresses it has.
//!
//! Owns: the reading of Pods that both roles and the command line need. Never does: decide what
//! follows from it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::attachment::addresses_told;
use ipam::name::{Nic, NodeName, Uid};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::names::annotation;

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
