//! What passes between a node's agent and the CNI IPAM plugin.
//!
//! * [`contract`]: the JSON of the agent's socket as types, its paths and its
//!   error bodies. The agent serves it, the plugin speaks it.
//!
//! The crate is synchronous and small: the plugin is executed once for every
//! interface of every Pod, so nothing here may pull in an async runtime, a
//! Kubernetes client or a TLS library.

pub mod contract;

pub use contract::{
    BASE_PATH, DEFAULT_SOCKET, Dns, EndpointInterface, EndpointQuery, FrameworkError, IpConfig,
    IpVersion, IpamAddArgs, IpamAddResponse, IpamBatchDelArgs, IpamDelArgs, Method, Operation,
    Route, WorkloadEndpointStatus, error_body, parse_body,
};
