//! An in-memory Kubernetes API server with the real one's semantics.
//!
//! A [`Server`] is a tower service ([`Server::service`]), a `kube` client ([`Server::client`]) and,
//! with [`Server::serve`], an HTTP server that `kubectl` works against. It is deterministic: one
//! seed, one clock, one order of everything. It knows nothing of addresses or pools; nothing but
//! tests and the demo depends on it.
//!
//! Where to read: `store` (objects, history), `kinds`, `builtin`, `custom` (what is served),
//! `request` → `read`, `watch`, `write` (what a request does), `patch` (how bodies change objects),
//! `discovery`, `openapi`, `table` (what `kubectl` asks besides). [`actors`] are the clients that
//! make a cluster of it: workload controllers, scheduler, kubelets.

pub mod actors;
mod body;
mod builtin;
mod clock;
mod custom;
mod defaults;
mod discovery;
mod error;
mod events;
mod head;
mod kinds;
mod managed;
mod object;
mod openapi;
mod patch;
mod quantity;
mod read;
mod request;
mod scale;
mod selector;
mod server;
mod service;
mod store;
mod structural;
mod table;
mod typed;
mod watch;
mod write;

pub use body::ResponseBody;
pub use clock::{Clock, TokioClock};
pub use error::ApiError;
pub use server::{Observer, Server};
pub use service::Api;
pub use store::{Change, Commit, Key};
