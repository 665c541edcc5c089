//! The log of a role: set up once, at its start.
//!
//! Owns: format and level. Never does: say anything itself. Fields that log lines share:
//! `subnet pool workload pod sandbox nic family because attempt`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::api::names::env;

const DEFAULT: &str = "info";

/// Sets the process's log up: level from `SPIDERPOOL_LOG_LEVEL` (`info` where it is absent or can't
/// be read), text or JSON by `ORBWEAVER_LOG_FORMAT`. A second call changes nothing.
pub fn init() {
    let level = std::env::var(env::LOG_LEVEL).unwrap_or_default();
    let chosen = EnvFilter::try_new(directives(&level));
    let unknown = chosen.as_ref().err().map(ToString::to_string);
    let filter = chosen.unwrap_or_else(|_| EnvFilter::new(directives(DEFAULT)));
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

/// What a level means by module: the library logs each failed watch, and so do we, with what we do
/// about it, so of it only errors are told where nobody asks for more than the usual.
fn directives(level: &str) -> String {
    match level {
        "" => directives(DEFAULT),
        "info" | "warn" => format!("{level},kube_runtime=error"),
        chosen => chosen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_watches_are_told_once_unless_more_is_asked_for() {
        for (level, expected) in [
            ("", "info,kube_runtime=error"),
            ("info", "info,kube_runtime=error"),
            ("debug", "debug"),
            ("error", "error"),
            ("warn,orbweaver=debug", "warn,orbweaver=debug"),
        ] {
            assert_eq!(directives(level), expected);
            assert!(EnvFilter::try_new(directives(level)).is_ok());
        }
    }
}
