//! A static route, as pools, subnets and endpoints write it.
//!
//! Owns: the wire form only; parsing is `convert`'s.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{Unknown, rules};

/// A static route handed to Pods beside the default route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Destination, a CIDR of the pool's family.
    #[schemars(length(max = rules::MAX_ADDRESS_LEN))]
    #[x_kube(validation = rules::cidr())]
    pub dst: String,
    /// Next hop, an address of the pool's family.
    #[schemars(length(max = rules::MAX_ADDRESS_LEN))]
    #[x_kube(validation = rules::address())]
    pub gw: String,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}
