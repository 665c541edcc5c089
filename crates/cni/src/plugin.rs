//! The CNI IPAM plugin: one function of what the runtime hands over.
//!
//! Owns the commands of the CNI protocol (ADD, DEL, CHECK, VERSION, STATUS,
//! GC) from the environment and standard input to what goes to standard
//! output. It never decides which address a Pod gets or whether one may be
//! released: that is the agent's part.
//!
//! Invariants:
//! * [`run`] does not panic, whatever it is handed.
//! * Standard output carries a result or an error object, never both.
//! * It ends within [`CALL_LIMIT`] of its start.
//! * An agent that restarts is waited for; every request may be sent twice.
//!
//! Where to read next: [`run`] for the commands, [`Host`] for what a
//! simulation has to provide, [`PluginError`] for every text a user may see.

mod agent;
mod command;
mod config;
mod detect;
mod env;
mod error;
mod file_log;
mod link;
mod log;
mod probe;
mod result;
mod system;

pub use agent::{AGENT_WAIT, CALL_LIMIT};
pub use command::run;
pub use config::{CniVersion, LogConfig, LogLevel};
pub use env::Invocation;
pub use error::{
    AllocateError, CheckError, ConfigError, EnvError, NetnsError, PluginError, SegmentError,
};
pub use log::LogSink;
pub use probe::{Mac, Segment};
pub use system::System;

use std::path::Path;
use std::time::Duration;

/// What goes back to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// All of standard output.
    pub stdout: String,
    /// Whether `stdout` is that of a success; if not, the process exits 1.
    pub succeeded: bool,
}

/// What the plugin needs of the machine it runs on.
pub trait Host {
    /// Time on a clock that never goes back; only differences count.
    fn now(&self) -> Duration;

    /// Waits for `pause`.
    fn sleep(&self, pause: Duration);

    /// Makes sure that there is a network namespace at `path`.
    ///
    /// # Errors
    /// [`NetnsError`] when there is not.
    fn check_netns(&self, path: &Path) -> Result<(), NetnsError>;

    /// Opens interface `nic` of the namespace at `netns` for frames, and brings
    /// it up: asked for only where addresses are to be looked into.
    ///
    /// # Errors
    /// [`SegmentError`] where nobody can be asked there.
    fn open_segment(&self, netns: &Path, nic: &str) -> Result<Box<dyn Segment>, SegmentError>;

    /// Opens the log. A log that cannot be written must not fail a call, so
    /// this gives one that drops its lines instead of an error.
    fn open_log(&self, config: &LogConfig) -> Box<dyn LogSink>;
}
