//! The agent's HTTP contract on the unix socket: operations, objects, errors.
//!
//! Owns the JSON names and the difference between an absent key, `null` and an
//! empty value. It never opens a socket and knows nothing of pools.
//!
//! Invariants:
//! * Objects are written with their keys in alphabetical order, and a key is
//!   left out, or is `null`, exactly where the plugin and the agent of
//!   Spiderpool v1.2 do so; either side can be exchanged for theirs.
//! * Keys nobody knows are ignored, so a newer peer can add some.
//! * An optional string is never `Some("")`: reading turns `""` into `None`.
//!
//! Requests are read with [`parse_body`], which words a missing or malformed
//! field as the framework of the original does.

mod error;
mod objects;
mod operation;

pub use error::{FrameworkError, error_body};
pub use objects::{
    AddressConflict, Body, Dns, EndpointInterface, EndpointQuery, IpConfig, IpVersion, IpamAddArgs,
    IpamAddResponse, IpamBatchDelArgs, IpamDelArgs, Route, WorkloadEndpointStatus, parse_body,
};
pub use operation::{Method, Operation};

/// First part of every path on the socket.
pub const BASE_PATH: &str = "/v1";

/// Where the agent listens unless it is configured otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/spidernet/spiderpool.sock";

/// Media type of every body, in both directions.
pub const MEDIA_TYPE: &str = "application/json";
