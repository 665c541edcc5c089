//! The log of a role: set up once, at its start.
//!
//! Owns: format and level. Never does: say anything itself. Fields that log lines share:
//! `subnet pool workload pod sandbox nic family because attempt`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::api::names::env;

/// Sets the process's log up: level from `SPIDERPOOL_LOG_LEVEL` (`info` where it is absent or can't
/// be read), text or JSON by `ORBWEAVER_LOG_FORMAT`. A second call changes nothing.
pub fn init() {
    let level = std::env::var(env::LOG_LEVEL).unwrap_or_default();
    let filter = EnvFilter::try_new(if level.is_empty() { "info" } else { &level })
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let json = std::env::var(env::LOG_FORMAT).is_ok_and(|format| format == "json");
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only if a log is set up already.
    let _ = if json {
        log.json().try_init()
    } else {
        log.with_target(false).try_init()
    };
}
