//! The defaults, put into an object: what a person need not write.
//!
//! Never does: decide; [`ipam::admit`] says what follows from what, and what a pool inherits is the
//! controller's own function. Invariant: what is there already stays, but for the order of ranges.

use ipam::addr::cidr_label;
use ipam::admit::{fields, reserved};
use kube::ResourceExt as _;
use kube::core::ObjectMeta;

use crate::api::names::{self, label};
use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, draft};

/// Fills in a pool; a new one inherits of `subnet`, the one with its CIDR.
pub(super) fn pool(pool: &mut SpiderIPPool, subnet: Option<&SpiderSubnet>) {
    protect(&mut pool.metadata);
    let Some(defaults) = fields::defaults(&draft::pool(pool).fields) else {
        return;
    };
    pool.labels_mut()
        .insert(label::POOL_CIDR.to_owned(), cidr_label(&defaults.cidr));
    let spec = &mut pool.spec;
    spec.ip_version = Some(defaults.ip_version);
    spec.ips = defaults.ips.or_else(|| spec.ips.take());
    spec.exclude_ips = defaults.excluded.or_else(|| spec.exclude_ips.take());
    if let Some(subnet) = subnet {
        spec.inherit(&subnet.spec);
    }
}

/// Fills in a subnet.
pub(super) fn subnet(subnet: &mut SpiderSubnet) {
    protect(&mut subnet.metadata);
    let Some(defaults) = fields::defaults(&draft::subnet(subnet)) else {
        return;
    };
    subnet
        .labels_mut()
        .insert(label::SUBNET_CIDR.to_owned(), cidr_label(&defaults.cidr));
    let spec = &mut subnet.spec;
    spec.ip_version = Some(defaults.ip_version);
    spec.ips = defaults.ips.or_else(|| spec.ips.take());
    spec.exclude_ips = defaults.excluded.or_else(|| spec.exclude_ips.take());
}

/// Fills in a reservation.
pub(super) fn reserved(object: &mut SpiderReservedIP) {
    if let Some(defaults) = reserved::defaults(draft::reserved(object)) {
        object.spec.ip_version = Some(defaults.ip_version);
        object.spec.ips = defaults.ips.or_else(|| object.spec.ips.take());
    }
}

/// Our finalizer, on what is not going already.
fn protect(meta: &mut ObjectMeta) {
    let has_it = meta
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == names::FINALIZER);
    if meta.deletion_timestamp.is_none() && !has_it {
        let finalizers = meta.finalizers.get_or_insert_default();
        finalizers.push(names::FINALIZER.to_owned());
    }
}
