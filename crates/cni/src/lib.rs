//! What passes between a node's agent and the CNI IPAM plugin, and the plugin.
//!
//! * [`contract`]: the JSON of the agent's socket as types, its paths and its
//!   error bodies. The agent serves it, the plugin speaks it.
//! * [`transport`]: one request and one reply as bytes; the seam where a
//!   simulation takes the place of the socket. [`socket`] is the real one.
//! * [`client`]: the operations as functions, failures in the words users know.
//! * [`plugin`]: what `spiderpool` does, as one function of its environment,
//!   its standard input, a [`plugin::Host`] and a [`transport::Transport`].
//!
//! Each may use what stands above it, never what stands below.
//!
//! The crate is synchronous and small: the plugin is executed once for every
//! interface of every Pod, so nothing here may pull in an async runtime, a
//! Kubernetes client or a TLS library.

pub mod client;
pub mod contract;
pub mod plugin;
pub mod socket;
pub mod transport;

pub use contract::{
    AddressConflict, BASE_PATH, DEFAULT_SOCKET, Dns, EndpointInterface, EndpointQuery,
    FrameworkError, IpConfig, IpVersion, IpamAddArgs, IpamAddResponse, IpamBatchDelArgs,
    IpamDelArgs, Method, Operation, Route, WorkloadEndpointStatus, error_body, parse_body,
};
