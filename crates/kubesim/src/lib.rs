//! The place of an in-memory Kubernetes API server with the real one's semantics.
//!
//! Nothing is here yet: simulation and the cluster-free demo build on it later. It will know
//! nothing of addresses or pools, and nothing but tests and the demo will depend on it.
