//! What writers of pools count, for Prometheus: the same series for each role.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::kube_io::retry::Outcome;

/// Upper bounds of the number of claims and releases that one write carries.
const ASKS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];

/// How a write of a pool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Wrote {
    Done,
    Conflict,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    outcome: Wrote,
}

/// The series of a role's writers. Cheap to clone: clones count into the same ones.
#[derive(Debug, Clone)]
pub struct Tally {
    writes: Family<WriteLabels, Counter>,
    asks: Histogram,
}

impl Wrote {
    const ALL: [Self; 3] = [Self::Done, Self::Conflict, Self::Failed];
}

impl Tally {
    /// All series at zero, in the `registry` of a role.
    pub fn register(registry: &mut Registry) -> Self {
        let tally = Self {
            writes: Family::default(),
            asks: Histogram::new(ASKS),
        };
        registry.register(
            "pool_writes",
            "Writes of IPPools for claims and releases",
            tally.writes.clone(),
        );
        registry.register(
            "pool_write_asks",
            "Claims and releases that one write of an IPPool carried",
            tally.asks.clone(),
        );
        // A rate sees the first of something only where there was a zero before.
        for outcome in Wrote::ALL {
            tally
                .writes
                .get_or_create(&WriteLabels { outcome })
                .inc_by(0);
        }
        tally
    }

    /// Counts a write that was carried out, and what it carried.
    pub fn written(&self, asks: usize) {
        self.count(Wrote::Done);
        // More than 2^52 asks fit into no write.
        self.asks
            .observe(u32::try_from(asks).unwrap_or(u32::MAX).into());
    }

    /// Counts a write that was not carried out.
    pub fn not_written(&self, outcome: Outcome) {
        self.count(match outcome {
            Outcome::Conflict => Wrote::Conflict,
            Outcome::AlreadyExists
            | Outcome::Gone
            | Outcome::Unknown
            | Outcome::Retryable { .. }
            | Outcome::Fatal => Wrote::Failed,
        });
    }

    fn count(&self, outcome: Wrote) {
        self.writes.get_or_create(&WriteLabels { outcome }).inc();
    }
}
