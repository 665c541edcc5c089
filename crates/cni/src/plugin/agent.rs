//! Patience with the agent: how long it is waited for, and how often asked.
//!
//! An agent is away for a few seconds when its Pod is replaced. A call that
//! fails then makes the runtime take the sandbox down and start over, so it
//! waits instead.
//!
//! ```text
//! start                                                        CALL_LIMIT
//! |--- tries ---x...x.....x........x  AGENT_WAIT after the first x: give up
//!               ^ first failure that may heal
//! ```

use std::time::Duration;

use super::Host;
use super::log::Log;
use crate::client::{Client, ClientError};
use crate::transport::{Retry, chain};

/// Longest time a command takes, all its requests together. The original
/// gives its longest request as much.
pub const CALL_LIMIT: Duration = Duration::from_secs(100);

/// Longest time an agent that is away is waited for before a command fails.
/// The original's limit for its health check, which it spends on one try.
pub const AGENT_WAIT: Duration = Duration::from_secs(30);

/// Longest time of the one try of STATUS: runtimes ask often, and an agent
/// that is away for a moment is an answer.
pub(super) const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// First pause between tries; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause between tries. Calls begin at moments of their own, so their
/// tries are spread without random pauses.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The agent during one command.
pub(super) struct Agent<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) log: &'a Log,
    pub(super) client: Client<'a>,
    /// When the command began.
    pub(super) started: Duration,
}

impl<'a> Agent<'a> {
    /// Carries out `operation`, again and again while the agent is away.
    pub(super) fn insist<T>(
        &self,
        operation: impl Fn(&Client<'a>, Duration) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = self.started + CALL_LIMIT;
        let mut give_up = deadline;
        let mut pause = PAUSE_MIN;
        let mut away = false;
        loop {
            let error = match operation(&self.client, deadline.saturating_sub(self.host.now())) {
                Err(error) if error.retry() == Retry::Soon => error,
                done => return done,
            };
            let now = self.host.now();
            if !away {
                away = true;
                give_up = deadline.min(now + AGENT_WAIT);
                self.log
                    .warn(format_args!("waiting for the agent: {}", chain(&error)));
            }
            if now + pause >= give_up {
                return Err(error);
            }
            self.host.sleep(pause);
            pause = PAUSE_MAX.min(pause * 2);
        }
    }
}
