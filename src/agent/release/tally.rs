//! What is told of releases that are due and do not happen.
//!
//! Owns: the class of a failure, and what the series say of interfaces that let go. Never does: try
//! again. A DEL is answered once it is kept, so a release that fails later is no call's failure.

use std::time::Duration;

use tokio::time::Instant;

use super::{ReleaseError, Releases, Shared};
use crate::agent::locked;
use crate::pool_writer::Attachment;

/// The classes of failed releases that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Unreleasable {
    /// Something could not be read, or written beside the pools.
    Internal,
    /// A pool could not be written in time.
    RetriesExhausted,
}

impl ReleaseError {
    fn class(&self) -> Unreleasable {
        match self {
            Self::Read(_) | Self::Endpoint(_) | Self::Journal(_) => Unreleasable::Internal,
            Self::Commit(_) => Unreleasable::RetriesExhausted,
        }
    }
}

impl Shared {
    /// Counts a try that failed, and notes since when all of them have.
    pub(super) fn failed(&self, of: &Attachment, error: &ReleaseError) {
        self.metrics.not_released(error.class());
        if let Some(ack) = locked(&self.acks).get_mut(of) {
            ack.failing.get_or_insert_with(Instant::now);
        }
    }
}

impl Releases {
    /// Tells the series what is not released yet.
    pub(in crate::agent) fn tell(&self) {
        let acks = locked(&self.shared.acks);
        let failing: Vec<Instant> = acks.values().filter_map(|ack| ack.failing).collect();
        let oldest = failing
            .iter()
            .min()
            .map_or(Duration::ZERO, Instant::elapsed);
        let metrics = &self.shared.metrics;
        metrics.unreleased(acks.len(), failing.len(), oldest);
    }
}
