//! Orbweaver: Kubernetes IP address management, an IP pool of its own for every workload.
//!
//! This crate is the daemon: one binary, a role a sub-command. Its modules depend one way only:
//! [`api`] (objects on the wire) ← `kube_io` (caches, writes, leader election) ← `tls`
//! (certificates), `pool_writer` (claims and releases, many a write) ← `allocator` (what the roles say
//! to each other) ← `webhook`, `controller` and `agent`, which never see each other ← `cli`. What is decided is decided in the crate `ipam`,
//! which does no IO.

pub mod agent;
pub mod allocator;
pub mod api;
pub mod cli;
pub mod config;
pub mod controller;
pub mod error;
pub mod kube_io;
pub mod pool_writer;
pub mod ports;
pub mod telemetry;
pub mod tls;
pub mod webhook;
