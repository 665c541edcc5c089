//! Wire to draft: an object as admission looks at it, with its texts unread.
//!
//! Owns: which field is which; every field is destructured, so a new one does not compile until
//! somebody says whether admission looks at it. Never does: read a text; [`ipam::admit`] does, and
//! says what is wrong with it. What is in order is read by [`convert`].

use ipam::admit::fields::{Draft, Kind};
use ipam::admit::pool::PoolDraft;
use ipam::admit::reserved;
use ipam::pool::Restrictions;
use kube::ResourceExt as _;

use super::names::label;
use super::{
    SpiderIPPool, SpiderIPPoolSpec, SpiderReservedIP, SpiderReservedIPSpec, SpiderSubnet,
    SpiderSubnetSpec, convert,
};

/// A pool as it was written.
pub fn pool(object: &SpiderIPPool) -> PoolDraft<'_> {
    let SpiderIPPoolSpec {
        ip_version,
        subnet,
        ips,
        exclude_ips,
        gateway,
        routes,
        pod_affinity,
        namespace_affinity,
        namespace_name,
        node_affinity,
        node_name,
        multus_name,
        default: _,
        disable: _,
        unknown: _,
    } = &object.spec;
    PoolDraft {
        fields: Draft {
            kind: Kind::Pool,
            ip_version: *ip_version,
            subnet,
            ips: ips.as_deref().unwrap_or_default(),
            excluded: exclude_ips.as_deref().unwrap_or_default(),
            gateway: gateway.as_deref(),
            routes: convert::core_routes(routes.as_deref()),
        },
        restrictions: Restrictions {
            node_names: node_name.clone().unwrap_or_default(),
            node_affinity: convert::affinity(node_affinity.as_ref()),
            namespace_names: namespace_name.clone().unwrap_or_default(),
            namespace_affinity: convert::affinity(namespace_affinity.as_ref()),
            pod_affinity: convert::affinity(pod_affinity.as_ref()),
            networks: multus_name.clone().unwrap_or_default(),
        },
        auto: object.labels().contains_key(label::OWNER_NAME),
    }
}

/// A subnet as it was written.
pub fn subnet(object: &SpiderSubnet) -> Draft<'_> {
    let SpiderSubnetSpec {
        ip_version,
        subnet,
        ips,
        exclude_ips,
        gateway,
        routes,
        unknown: _,
    } = &object.spec;
    Draft {
        kind: Kind::Subnet,
        ip_version: *ip_version,
        subnet,
        ips: ips.as_deref().unwrap_or_default(),
        excluded: exclude_ips.as_deref().unwrap_or_default(),
        gateway: gateway.as_deref(),
        routes: convert::core_routes(routes.as_deref()),
    }
}

/// A reservation as it was written.
pub fn reserved(object: &SpiderReservedIP) -> reserved::Draft<'_> {
    let SpiderReservedIPSpec {
        ip_version,
        ips,
        unknown: _,
    } = &object.spec;
    reserved::Draft {
        ip_version: *ip_version,
        ips: ips.as_deref().unwrap_or_default(),
    }
}
