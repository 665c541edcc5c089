//! The harness: a real Kubernetes on one machine, and the scenarios that judge the product on it.
//!
//! | module | what |
//! |---|---|
//! | [`tools`], [`host`], [`paths`] | the cluster's binaries, what the machine must offer, folders |
//! | [`cluster`] | control plane and nodes: up, in use, down |
//! | [`image`], [`cni`] | images without a builder, CNI configurations |
//! | [`product`] | the product as an operator has it: image, chart, objects |
//! | [`workload`] | Deployments of scenarios, and their Pods |
//! | [`scenario`], [`scenarios`] | what is tried, and how a list of it is run |
//! | [`load`], [`bench`](mod@bench) | 1,000 Pods at once, and figures |
//! | [`demo`] | what `make demo-cluster` shows |
//! | [`judge`], [`tap`] | "no address twice", seen from outside the product |
//! | [`audit`], [`logs`] | calls to the API server, counted; what is kept of a failure |
//! | [`command`], [`digest`], [`process`], [`progress`], [`wait`] | helpers |
//!
//! It knows the product by its chart, its binaries and what `kubectl` shows, never by its code; only
//! [`load`] makes the plugin's calls by the plugin's own library.

pub mod audit;
pub mod bench;
pub mod cluster;
pub mod cni;
pub mod command;
pub mod demo;
pub mod digest;
pub mod host;
pub mod image;
pub mod judge;
pub mod load;
pub mod logs;
pub mod paths;
pub mod process;
pub mod product;
pub mod progress;
pub mod scenario;
pub mod scenarios;
pub mod tap;
pub mod tools;
pub mod wait;
pub mod workload;
