//! A static route, as pools, subnets and endpoints write it.
//!
//! Owns: the wire form only; parsing is `convert`'s. The rules on its text stand at the lists of
//! pools and subnets, which people write: an endpoint must never be refused for a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Unknown, rules};

/// A static route handed to Pods beside the default route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Destination, a CIDR of the pool's family.
    #[schemars(length(max = rules::MAX_ADDRESS_LEN))]
    pub dst: String,
    /// Next hop, an address of the pool's family.
    #[schemars(length(max = rules::MAX_ADDRESS_LEN))]
    pub gw: String,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}
