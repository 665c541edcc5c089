//! What the leader is asked about a Pod once it has come to the node: its sandbox, which takes the
//! runtime a while, then calls for an address that is only to be recorded.
//!
//! Owns: when that is asked. Never does: ask the API server, hold a call up for longer than it would
//! wait for its own question, or matter: a call that finds no answer here asks itself.

use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc::UnboundedReceiver;

use super::pods;
use super::reads::Reads;

/// Questions on their way at one time.
const AT_ONCE: usize = 32;

/// Asks about those that come, for ever; drop the future to stop.
pub(super) async fn run(reads: &Reads, mut came: UnboundedReceiver<Arc<Pod>>) {
    let came = stream::poll_fn(|context| came.poll_recv(context));
    came.for_each_concurrent(AT_ONCE, |pod| async move {
        if let Some(owner) = pods::intermediate(reads, &pod) {
            reads.foresee(&owner).await;
        }
    })
    .await;
}
