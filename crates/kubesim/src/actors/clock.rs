//! Time of day that follows the runtime's clock, so that it stands still and jumps with it.

use jiff::Timestamp;
use tokio::time::Instant;

/// A clock: a time of day at a moment of the runtime.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Timestamp,
    start: Instant,
}

impl Clock {
    /// A clock that shows `epoch` now. Needs a tokio runtime.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self {
            epoch,
            start: Instant::now(),
        }
    }

    /// What it shows now, in whole microseconds: Kubernetes keeps no more.
    pub fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX);
        let micros = self.epoch.as_microsecond().saturating_add(passed);
        Timestamp::from_microsecond(micros).unwrap_or(self.epoch)
    }
}
