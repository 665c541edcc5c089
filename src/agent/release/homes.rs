//! Where an interface may have records.
//!
//! Never does: leave out a pool by a reading older than the DEL.

use std::collections::BTreeSet;

use ipam::name::{PodName, PoolName};
use tokio::time::Instant;

use super::Shared;
use crate::agent::endpoint;
use crate::agent::journal::Entry;
use crate::agent::memory::Trace;
use crate::agent::reads::ReadError;
use crate::kube_io::memo::Age;
use crate::pool_writer::Attachment;

impl Shared {
    /// The pools that may hold a record of the interface, if that can be told now; the Pod's
    /// endpoint, which says so for an earlier agent, is gone soon.
    pub(super) async fn homes(
        &self,
        of: &Attachment,
        pod: &PodName,
        trace: &Trace,
    ) -> Option<BTreeSet<PoolName>> {
        let mut pools = trace.pools.clone();
        if trace.whole || trace.settled.is_some() {
            return Some(pools);
        }
        let endpoint = self.reads.endpoint(pod).await.ok()?;
        let named = endpoint::pools_of(endpoint.as_ref(), of);
        let is_told = !named.is_empty();
        pools.extend(named.into_values());
        is_told.then_some(pools)
    }

    /// Where the interface may have records: what this agent remembers, and what was known at the
    /// DEL, else a look into every pool.
    pub(super) async fn recorded(
        &self,
        entry: &Entry,
        since: Instant,
    ) -> Result<BTreeSet<PoolName>, ReadError> {
        let of = entry.attachment();
        let mut pools = self.memory.trace(&of).pools;
        if let Some(known) = &entry.pools {
            pools.extend(known.iter().cloned());
            return Ok(pools);
        }
        // A uid that is dead gets no new records, so one list serves all DELs before it.
        let all = self.reads.pools("", Age::Since(since)).await?;
        for reading in &all.pools {
            // Where it can't be told, its writer says why.
            let may_hold = reading
                .candidate
                .pool
                .as_ref()
                .map_or(true, |pool| pool.records.find(&of.uid, &of.nic).is_some());
            if may_hold {
                pools.insert(reading.candidate.name.clone());
            }
        }
        Ok(pools)
    }
}
