//! `SpiderSubnet`: a range of addresses out of which workloads get pools of their own.
//!
//! Owns: the wire form, its schema and its printer columns. Never does: read the JSON text inside
//! `status.controlledIPPools`, nor judge values beyond what the schema says: that is `convert`'s
//! and the core's. Invariant: an object read and written back is the same object, unknown keys
//! included.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Condition, Route, Unknown, rules};

/// What a subnet may hand out, and what its pools inherit.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderSubnet",
    plural = "spidersubnets",
    shortname = "ss",
    category = "spiderpool",
    status = "SpiderSubnetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A range of routable addresses. Workloads that ask for it each get a SpiderIPPool of their own out of it.",
    printcolumn = r#"{"name":"VERSION","type":"string","jsonPath":".spec.ipVersion","description":"ipVersion"}"#,
    printcolumn = r#"{"name":"SUBNET","type":"string","jsonPath":".spec.subnet","description":"subnet"}"#,
    printcolumn = r#"{"name":"ALLOCATED-IP-COUNT","type":"integer","jsonPath":".status.allocatedIPCount","description":"allocatedIPCount"}"#,
    printcolumn = r#"{"name":"TOTAL-IP-COUNT","type":"integer","jsonPath":".status.totalIPCount","description":"totalIPCount"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::version_fits_subnet())]
#[x_kube(validation = rules::gateway_fits_subnet())]
pub struct SpiderSubnetSpec {
    /// Family of the addresses, 4 or 6. Follows from `subnet` if absent. Can't be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [4, 6]))]
    #[x_kube(validation = rules::immutable())]
    pub ip_version: Option<i64>,
    /// The network, a CIDR in canonical form; overlaps no other SpiderSubnet. Can't be changed.
    #[schemars(length(max = rules::MAX_ADDRESS_LEN))]
    #[x_kube(validation = rules::cidr())]
    #[x_kube(validation = rules::immutable())]
    pub subnet: String,
    /// Addresses the subnet can hand to pools: `a` or `first-last`, inside `subnet`.
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
    /// Default gateway of Pods in pools that don't set their own. Inside `subnet`, not in `ips`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_ADDRESS_LEN))]
    #[x_kube(validation = rules::address())]
    pub gateway: Option<String>,
    /// Static routes of Pods in pools that don't set their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_ROUTES))]
    #[x_kube(validation = rules::routes())]
    pub routes: Option<Vec<Route>>,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What the controller has handed to pools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpiderSubnetStatus {
    /// The ledger: JSON text, addresses by pool name. Absent: unknown or none.
    #[serde(
        rename = "controlledIPPools",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub controlled_ip_pools: Option<String>,
    /// Raised by every write of `controlledIPPools`, so that a delayed write fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ledger_epoch: Option<i64>,
    /// Number of addresses in `ips` without `excludeIPs`, at most 2^63-1.
    #[serde(
        rename = "totalIPCount",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0))]
    pub total_ip_count: Option<i64>,
    /// Number of addresses handed to pools, at most 2^63-1.
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
