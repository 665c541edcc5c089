//! Waiting by condition, never by time alone, and giving up at once when the person does.
//!
//! Limits end what hangs, and say nothing of speed: they are for a machine as developers have it, and
//! longer on one that is found to be slower ([`see_machine`]).

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::progress::say;

/// Shortest pause between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Processes that are started to see how fast the machine is, and how long that usually takes.
const PROBES: u32 = 20;
const PROBE: Duration = Duration::from_millis(3);
/// Longest that limits get, as a multiple.
const PATIENCE_MAX: u32 = 10;

/// By how much limits are longer.
static PATIENCE: AtomicU32 = AtomicU32::new(1);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Makes Ctrl-C, SIGTERM and SIGHUP end the current wait instead of the process, so that the
/// cluster is taken down on the way out.
pub fn catch_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .with_context(|| format!("cannot catch signal {signal}"))?;
    }
    Ok(())
}

/// Whether a person asked us to stop.
pub fn interrupted() -> bool {
    INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Fails once a person asked us to stop.
pub fn ensure_going_on() -> Result<()> {
    ensure!(!interrupted(), "interrupted");
    Ok(())
}

/// Sees how fast the machine is now, and says so where limits get longer by it.
pub fn see_machine() {
    let start = Instant::now();
    for _ in 0..PROBES {
        // Where there is no such program, limits are as they are.
        let _ = Command::new("true").stdin(Stdio::null()).status();
    }
    let usual = PROBES * PROBE;
    let times = start.elapsed().as_millis() / usual.as_millis().max(1);
    let times = u32::try_from(times).unwrap_or(PATIENCE_MAX);
    let patience = times.clamp(1, PATIENCE_MAX);
    PATIENCE.store(patience, Ordering::Relaxed);
    if patience > 1 {
        say(format_args!(
            "this machine starts processes {times} times slower than usual: limits are {patience} times as long"
        ));
    }
}

/// A limit on this machine.
pub fn patient(limit: Duration) -> Duration {
    limit * PATIENCE.load(Ordering::Relaxed)
}

/// Looks until `look` gives a value; its errors count as "not yet", and the last is reported.
///
/// `look` returns `Ok(None)` for "not yet". Errors: `limit`, made [`patient`], passed, or we were
/// interrupted.
pub fn eventually_some<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let limit = patient(limit);
    let end = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        ensure_going_on()?;
        let seen = look();
        if let Ok(Some(value)) = seen {
            return Ok(value);
        }
        if Instant::now() >= end {
            let timed_out = format!("not within {} s: {what}", limit.as_secs());
            return match seen {
                Err(error) => Err(error.context(timed_out)),
                Ok(_) => bail!(timed_out),
            };
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Looks until `look` is satisfied: its error says what is still missing, and is reported at the
/// end of `limit`.
pub fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    eventually_some(limit, what, || look().map(Some))
}

/// Lets time pass, where nothing but time tells that something does not happen.
///
/// Errors: a person asked us to stop.
pub fn pass(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        ensure_going_on()?;
        thread::sleep(LONGEST_PAUSE.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// Tries again for a few seconds, heedless of an interruption: the kernel ends mounts, links and
/// control groups a moment after their last user.
pub fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    for _ in 0..50 {
        if let Ok(value) = attempt() {
            return Ok(value);
        }
        thread::sleep(Duration::from_millis(100));
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_is_told_when_time_is_up() {
        let mut looks = 0;
        let error = eventually(Duration::from_millis(120), "a pool of 3", || {
            looks += 1;
            ensure!(false, "look {looks}: 2 addresses");
            Ok(())
        })
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.starts_with("not within 0 s: a pool of 3: look "),
            "{text}"
        );
        assert!(looks >= 2);
    }

    #[test]
    fn the_first_value_ends_the_wait() {
        let mut looks = 0;
        let value = eventually_some(Duration::from_secs(5), "third look", || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(value.unwrap(), 3);
    }
}
