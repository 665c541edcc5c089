//! What a Pod's own annotations say of the interface being added.
//!
//! Owns: which of the keys speak for this interface. Never does: look at pools or ask anybody; the
//! annotations are read by [`ipam::annotation`].

use ipam::annotation::{self, AnnotationError, PoolNames};
use ipam::attachment::{self, Networks};
use ipam::name::Nic;
use ipam::route::Wanted;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Settings;

/// What the Pod wants for one interface.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes {
    /// The pools it names, and the key by which.
    pub(super) pools: Option<(&'static str, PoolNames)>,
    /// Whether the interface gets no default route.
    pub(super) clean_gateway: bool,
    /// Routes for whichever interface reaches their next hops.
    pub(super) routes: Vec<Wanted>,
}

/// The wishes of `pod` for `nic`; `called` are its interfaces that asked so far, in their order,
/// and `clean_gateway` is what the CNI configuration says.
///
/// Errors: an annotation that counts here can't be used.
pub(super) fn read(
    settings: &Settings,
    pod: &Pod,
    nic: &Nic,
    called: &[Nic],
    clean_gateway: bool,
) -> Result<Wishes, AnnotationError> {
    let annotations = pod.annotations();
    let get = |key: &str| annotations.get(key).map(String::as_str);
    let mut wishes = Wishes {
        routes: annotation::routes(&get)?,
        clean_gateway,
        ..Wishes::default()
    };
    if settings.subnets && annotation::subnet_key(&get).is_some() {
        annotation::subnets(&get)?;
    } else if let Some(items) = annotation::ippools(&get)? {
        let item = items.serving(nic, called)?;
        wishes.pools = Some((annotation::IPPOOLS, item.pools.clone()));
        wishes.clean_gateway = item.clean_gateway;
    } else if let Some(pools) = annotation::ippool(&get)? {
        wishes.pools = Some((annotation::IPPOOL, pools));
    }
    Ok(wishes)
}

/// How many interfaces the Pod will have at least, as far as it says: so many as an annotation
/// lists, and as there are networks. Another plugin may serve some of them.
pub(super) fn interfaces(settings: &Settings, pod: &Pod) -> usize {
    let get = |key: &str| pod.annotations().get(key).map(String::as_str);
    let listed = if settings.subnets && annotation::subnet_key(&get).is_some() {
        let items = annotation::subnets(&get).ok().flatten();
        items.map(|items| items.len())
    } else {
        let items = annotation::ippools(&get).ok().flatten();
        items.map(|items| items.len())
    };
    let asked = networks(settings, pod).more().saturating_add(1);
    listed.unwrap_or(1).max(asked)
}

/// What is said of the Multus networks of `pod`.
pub(super) fn networks<'p>(settings: &'p Settings, pod: &'p Pod) -> Networks<'p> {
    let get = |key: &str| pod.annotations().get(key).map(String::as_str);
    Networks {
        default: get(attachment::DEFAULT_NETWORK),
        others: get(attachment::NETWORKS),
        cluster: settings.cluster_network.as_deref(),
        pod_namespace: pod.metadata.namespace.as_deref().unwrap_or_default(),
        own_namespace: &settings.namespace,
    }
}

/// True where which pools the Pod names depends on the order of its interfaces.
pub(super) fn counts_interfaces(pod: &Pod) -> bool {
    let get = |key: &str| pod.annotations().get(key).map(String::as_str);
    let items = annotation::ippools(&get).ok().flatten();
    items.is_some_and(|items| items.is_nameless())
}
