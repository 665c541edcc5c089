//! An in-memory Kubernetes: for simulation, and for the demo that needs no cluster.
//!
//! It knows nothing of addresses or pools, and nothing but tests and the demo depends on it.

pub mod actors;
