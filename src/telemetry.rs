//! The log of a role: set up once, at its start.
//!
//! Owns: format and level. Never does: say anything itself. Fields that log lines share:
//! `subnet pool workload pod sandbox nic family because attempt`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::api::names::env;

/// The library logs each failed watch, and so do we, with what we do about it.
const DEFAULT: &str = "info,kube_runtime=error";

/// Sets the process's log up: level from `SPIDERPOOL_LOG_LEVEL` (`info` where it is absent or can't
/// be read), text or JSON by `ORBWEAVER_LOG_FORMAT`. A second call changes nothing.
pub fn init() {
    let level = std::env::var(env::LOG_LEVEL).unwrap_or_default();
    let chosen = EnvFilter::try_new(if level.is_empty() { DEFAULT } else { &level });
    let unknown = chosen.as_ref().err().map(ToString::to_string);
    let filter = chosen.unwrap_or_else(|_| EnvFilter::new(DEFAULT));
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
    if let Some(error) = unknown {
        let name = env::LOG_LEVEL;
        tracing::warn!(%level, %error, "{name} is no level: info, debug or one by module");
    }
}
