//! CNI configurations for nodes: the product as the address manager of stock plugins.

use serde_json::{Value, json};

/// The name of the product's plugin.
pub const PRODUCT: &str = "spiderpool";

/// The default: Pods sit on the underlay by macvlan, with addresses from `ipam`.
pub fn macvlan(ipam: &Value) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "macvlan-cni-default",
        "plugins": [{ "type": "macvlan", "master": "e2e0", "mode": "bridge", "ipam": ipam }],
    })
}

/// Pods on a bridge of the node's own.
pub fn bridge(ipam: &Value) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "bridge-cni",
        "plugins": [{ "type": "bridge", "bridge": "e2ebr0", "ipam": ipam }],
    })
}

/// Each Pod with a link of its own to the node.
pub fn ptp(ipam: &Value) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "ptp-cni",
        "plugins": [{ "type": "ptp", "ipam": ipam }],
    })
}

/// Addresses from the product, or from what stands before it (see [`crate::tap`]).
pub fn product(kind: &str) -> Value {
    json!({ "type": kind })
}

/// Addresses from a stock plugin with a range on the node's disk: for a cluster without the product.
pub fn host_local(subnet: &str, first: &str, last: &str) -> Value {
    json!({
        "type": "host-local",
        "ranges": [[{ "subnet": subnet, "rangeStart": first, "rangeEnd": last }]],
    })
}
