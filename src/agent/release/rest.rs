//! The time between a DEL and the write that frees the address.
//!
//! Owns: how long an address rests. Never does: write. Plugins such as macvlan call IPAM before they
//! remove the link, and may be killed between the two: the address rests while the sandbox's network
//! namespace is there. While the Pod is `Ending` its kubelet is not done with the sandbox and has the
//! runtime try again, however late, so that is waited for. The namespace of a Pod that is gone is
//! waited for [`NAMESPACE_MAX`]: a runtime may keep it as long as what is left of a finished Pod.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use ipam::release::Life;
use tokio::time::{sleep, sleep_until};

use super::Shared;
use crate::agent::locked;
use crate::agent::namespaces::is_visible;
use crate::agent::pods;
use crate::pool_writer::Attachment;

/// From the DEL to the write that frees the address.
pub(super) const HOLD_OFF: Duration = Duration::from_secs(2);
/// Longest wait for the network namespace of a sandbox to go, from its DEL, once its Pod is gone.
const NAMESPACE_MAX: Duration = Duration::from_mins(1);
/// Pause between two looks at it; and after [`NAMESPACE_MAX`], when each asks for the Pod too.
const NAMESPACE_LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

impl Shared {
    /// Waits until the hold-off of the last DEL is over and its sandbox's namespace gone, or nobody
    /// works on it any more.
    pub(super) async fn rest(&self, of: &Attachment) {
        let last = || {
            let acks = locked(&self.acks);
            acks.get(of).map(|ack| (ack.since, ack.entry.clone()))
        };
        let mut is_told = false;
        while let Some((since, entry)) = last() {
            let waited = since.elapsed();
            if waited < HOLD_OFF {
                sleep_until(since + HOLD_OFF).await;
                continue;
            }
            if self.those_there(entry.namespaces).await.is_empty() {
                return;
            }
            if waited < NAMESPACE_MAX {
                sleep(NAMESPACE_LOOK.0).await;
                continue;
            }
            let life = pods::life_now(&self.reads, &entry.pod, &of.uid).await;
            if matches!(life, Ok(Life::Gone | Life::Alive)) {
                tracing::warn!(pod = %entry.pod, uid = %of.uid, nic = %of.nic, "a network namespace outlives its DEL and its Pod; no longer waiting for it");
                return;
            }
            if !is_told {
                tracing::warn!(pod = %entry.pod, uid = %of.uid, nic = %of.nic, "the Pod's network namespace outlives its DEL: the address stays recorded until the kubelet is done with the Pod");
                is_told = true;
            }
            sleep(NAMESPACE_LOOK.1).await;
        }
    }

    /// Those of the namespaces that are still there, as far as the agent can see.
    pub(super) async fn those_there(&self, mut namespaces: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        namespaces.retain(|path| is_visible(path));
        if namespaces.is_empty() {
            return namespaces;
        }
        self.disk.present(namespaces).await
    }
}
