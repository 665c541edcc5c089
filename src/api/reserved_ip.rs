//! `SpiderReservedIP`: addresses that are never handed out.
//!
//! Owns: the wire form, its schema and its printer column. Never does: judge values beyond what
//! the schema says: that is `convert`'s and the core's. Invariant: an object read and written back
//! is the same object, unknown keys included.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Unknown, rules};

/// Addresses no pool gives to a Pod, and no subnet to an auto pool.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderReservedIP",
    plural = "spiderreservedips",
    shortname = "sr",
    category = "spiderpool",
    derive = "PartialEq",
    derive = "Default",
    doc = "Addresses that are never handed out, whichever pool has them. Those in use stay in use.",
    printcolumn = r#"{"name":"VERSION","type":"string","jsonPath":".spec.ipVersion","description":"ipVersion"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SpiderReservedIPSpec {
    /// Family of the addresses, 4 or 6. Follows from `ips` if absent. Can't be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [4, 6]))]
    #[x_kube(validation = rules::immutable())]
    pub ip_version: Option<i64>,
    /// The reserved addresses: `a` or `first-last`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_RANGES), inner(length(max = rules::MAX_RANGE_LEN)))]
    #[x_kube(validation = rules::ranges())]
    pub ips: Option<Vec<String>>,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}
