//! Time, handed in: the server reads no clock of the machine.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// What time it is.
pub trait Clock: Send + Sync {
    /// The moment that goes into timestamps of objects.
    fn now(&self) -> Timestamp;
}

/// A start in wall time, and from there what tokio's clock says: paused where tokio is paused.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    epoch: Timestamp,
    start: Instant,
}

impl TokioClock {
    /// A clock that shows `epoch` now.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self {
            epoch,
            start: Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.start.elapsed()).unwrap_or(SignedDuration::MAX);
        self.epoch.saturating_add(elapsed).unwrap_or(self.epoch)
    }
}

/// A moment as objects carry it, to the second.
pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
