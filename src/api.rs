//! The four kinds on the wire, and every name a foreign program sees.
//!
//! Owns: the Rust form of the objects, the schemas made from it, and [`names`]. Never does: IO,
//! nor decide what a value means: `convert` parses into the core's types, and inside of it a value
//! can't be wrong. Invariants:
//!
//! * An object read and written back is the same object. Each type keeps the keys it doesn't know
//!   (`unknown`), since a write by `PUT` removes what it leaves out, and a newer version or another
//!   program may have put them there. `metadata` needs no such care: the API server itself drops
//!   keys it doesn't know there.
//! * An absent optional stays absent; an empty list stays an empty list.
//!
//! Read next: [`ippool`], then [`subnet`]; [`crd`] for how the schemas are made.

#![expect(
    unreachable_pub,
    reason = "the derive KubeSchema copies each struct, visibility included, into a function"
)]

use std::collections::BTreeMap;

pub mod conditions;
pub mod convert;
pub mod crd;
pub mod draft;
pub mod endpoint;
pub mod ippool;
pub mod names;
pub mod node;
pub mod pod;
pub mod reserved_ip;
pub mod route;
mod rules;
pub mod selector;
pub mod subnet;
pub mod time;

pub use conditions::{Condition, ConditionStatus};
pub use endpoint::{EndpointCurrent, EndpointNic, SpiderEndpoint, SpiderEndpointStatus};
pub use ippool::{SpiderIPPool, SpiderIPPoolSpec, SpiderIPPoolStatus};
pub use reserved_ip::{SpiderReservedIP, SpiderReservedIPSpec};
pub use route::Route;
pub use selector::{LabelSelector, LabelSelectorRequirement};
pub use subnet::{SpiderSubnet, SpiderSubnetSpec, SpiderSubnetStatus};

/// Keys of an object that its type doesn't name, by key.
pub type Unknown = BTreeMap<String, serde_json::Value>;
