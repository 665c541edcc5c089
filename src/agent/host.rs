//! What an agent brings to the writers of the pools it has work for ([`crate::pool_writer`]).

use std::sync::Arc;

use ipam::addr::AddrSet;
use ipam::name::{PodName, PoolName, Uid};
use kube::Client;

use super::Wakes;
use super::memory::Memory;
use super::metrics::Metrics;
use super::reads::{RESERVED_AGE, Reads};
use crate::api::SpiderIPPool;
use crate::kube_io::memo::Age;
use crate::kube_io::put::{self, Part, PutError, Reply};
use crate::kube_io::retry::Outcome;
use crate::pool_writer::{self, Attachment, Granted, Reading, Rivals};

/// The agent, as its pools' writers see it.
pub(super) struct Host {
    pub(super) reads: Reads,
    pub(super) writes: Client,
    pub(super) memory: Arc<Memory>,
    pub(super) wakes: Wakes,
    pub(super) metrics: Metrics,
}

impl pool_writer::Host for Host {
    const RIVALS: Rivals = Rivals::Others;

    async fn read(&self, pool: &PoolName) -> Result<Option<Arc<Reading>>, String> {
        self.reads
            .pool(pool, Age::live())
            .await
            .map_err(|e| e.said())
    }

    fn known(&self, _: &PoolName, _: Option<&SpiderIPPool>) -> Option<Arc<Reading>> {
        None
    }

    async fn reserved(&self) -> Result<Arc<AddrSet>, String> {
        let reserved = self.reads.reserved(Age::Within(RESERVED_AGE)).await;
        reserved.map_err(|e| e.said())
    }

    async fn write(&self, pool: &mut SpiderIPPool) -> Result<(), PutError> {
        put::replace(&self.writes, Part::Status, pool, Reply::MetadataOnly).await
    }

    /// Only the leader claims for such Pods.
    fn ended(&self, _: &PodName, _: &Uid) -> bool {
        false
    }

    fn granted(&self, of: &Attachment, granted: &Granted) {
        self.memory.granted(of, granted.clone());
    }

    fn untaken(&self, of: &Attachment) {
        let _ = self.wakes.send(of.uid.clone());
    }

    fn written(&self, asks: usize) {
        self.metrics.written(asks);
    }

    fn not_written(&self, outcome: Outcome, allocates: bool) {
        self.metrics.not_written(outcome, allocates);
    }
}
