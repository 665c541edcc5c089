//! `SpiderIPPool`: addresses, whom they may serve, and who holds them.
//!
//! Owns: the wire form, its schema and its printer columns. Never does: read the JSON text inside
//! `status.allocatedIPs`, nor judge values beyond what the schema says: that is `convert`'s and
//! the core's. Invariant: an object read and written back is the same object, unknown keys
//! included.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Condition, LabelSelector, Route, SpiderSubnetSpec, Unknown, rules};

/// The addresses of a pool, and which Pods may have them.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderIPPool",
    plural = "spiderippools",
    shortname = "sp",
    category = "spiderpool",
    status = "SpiderIPPoolStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A pool of addresses, whom they may serve, and who holds them.",
    printcolumn = r#"{"name":"VERSION","type":"string","jsonPath":".spec.ipVersion","description":"ipVersion"}"#,
    printcolumn = r#"{"name":"SUBNET","type":"string","jsonPath":".spec.subnet","description":"subnet"}"#,
    printcolumn = r#"{"name":"ALLOCATED-IP-COUNT","type":"integer","jsonPath":".status.allocatedIPCount","description":"allocatedIPCount"}"#,
    printcolumn = r#"{"name":"TOTAL-IP-COUNT","type":"integer","jsonPath":".status.totalIPCount","description":"totalIPCount"}"#,
    printcolumn = r#"{"name":"DEFAULT","type":"boolean","jsonPath":".spec.default","description":"default"}"#,
    printcolumn = r#"{"name":"DISABLE","type":"boolean","jsonPath":".spec.disable","description":"disable","priority":10}"#,
    printcolumn = r#"{"name":"NodeName","type":"string","jsonPath":".spec.nodeName","description":"nodeName","priority":10}"#,
    printcolumn = r#"{"name":"MultusName","type":"string","jsonPath":".spec.multusName","description":"multusName","priority":10}"#,
    printcolumn = r#"{"name":"APP-NAMESPACE","type":"string","jsonPath":".spec.podAffinity.matchLabels['ipam\\.spidernet\\.io/app\\-namespace']","description":"AppNamespace","priority":10}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::version_fits_subnet())]
#[x_kube(validation = rules::gateway_fits_subnet())]
pub struct SpiderIPPoolSpec {
    /// Family of the addresses, 4 or 6. Follows from `subnet` if absent. Can't be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [4, 6]))]
    #[x_kube(validation = rules::immutable())]
    pub ip_version: Option<i64>,
    /// The network, a CIDR in canonical form. Can't be changed.
    #[schemars(length(max = rules::MAX_ADDRESS_LEN))]
    #[x_kube(validation = rules::cidr())]
    #[x_kube(validation = rules::immutable())]
    pub subnet: String,
    /// Addresses of the pool: `a` or `first-last`, inside `subnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_RANGES), inner(length(max = rules::MAX_RANGE_LEN)))]
    #[x_kube(validation = rules::ranges())]
    pub ips: Option<Vec<String>>,
    /// Addresses taken out of `ips`, written alike.
    #[serde(
        rename = "excludeIPs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = rules::MAX_RANGES), inner(length(max = rules::MAX_RANGE_LEN)))]
    #[x_kube(validation = rules::ranges())]
    pub exclude_ips: Option<Vec<String>>,
    /// Default gateway of the Pods. Inherited from the SpiderSubnet with the same CIDR if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_ADDRESS_LEN))]
    #[x_kube(validation = rules::address())]
    pub gateway: Option<String>,
    /// Static routes of the Pods. Inherited from the SpiderSubnet with the same CIDR if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_ROUTES))]
    #[x_kube(validation = rules::routes())]
    pub routes: Option<Vec<Route>>,
    /// Which Pods the pool serves, by their labels; all of them if absent. On an auto pool the
    /// `ipam.spidernet.io/app-*` keys name the one workload it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_affinity: Option<LabelSelector>,
    /// Which Namespaces the pool serves, by their labels. Ignored if `namespaceName` isn't empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_affinity: Option<LabelSelector>,
    /// Which Namespaces the pool serves, by name; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_name: Option<Vec<String>>,
    /// Which Nodes the pool serves, by their labels. Ignored if `nodeName` isn't empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<LabelSelector>,
    /// Which Nodes the pool serves, by name; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<Vec<String>>,
    /// Which `NetworkAttachmentDefinition`s may use the pool, `name` or `namespace/name`; all of them
    /// if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multus_name: Option<Vec<String>>,
    /// Whether Pods that name no pool at all may have its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub default: Option<bool>,
    /// Whether it gives no further address. Those given stay, and can be released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub disable: Option<bool>,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl SpiderIPPoolSpec {
    /// Takes gateway and routes of the subnet around it where it has none of its own; an empty list
    /// of routes is one.
    pub fn inherit(&mut self, subnet: &SpiderSubnetSpec) {
        self.gateway = self.gateway.take().or_else(|| subnet.gateway.clone());
        self.routes = self.routes.take().or_else(|| subnet.routes.clone());
    }
}

/// Who holds the pool's addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpiderIPPoolStatus {
    /// The record of allocations: JSON text, the holding Pod by address. Absent: none.
    #[serde(
        rename = "allocatedIPs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub allocated_ips: Option<String>,
    /// Number of addresses in `ips` without `excludeIPs`, at most 2^63-1.
    #[serde(
        rename = "totalIPCount",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0))]
    pub total_ip_count: Option<i64>,
    /// Number of records in `allocatedIPs`.
    #[serde(
        rename = "allocatedIPCount",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0))]
    pub allocated_ip_count: Option<i64>,
    /// What the controller last saw: `Ready`, `Exhausted`, `Conflicting`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = rules::MAX_CONDITIONS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}
