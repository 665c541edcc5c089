//! What a person sees while the harness works: one line a step, with the time since the start.
//!
//! Standard output is only for people here; nothing is parsed from it but the names of the scenarios
//! that passed (`tests/compatibility.rs`). A closed output (a pipe to
//! `head`, say) is no reason to fail, so write errors are ignored.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two signs of life of a long step.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

static START: OnceLock<Instant> = OnceLock::new();

/// Prints a step, with the time since the first call.
pub fn say(text: impl Display) {
    let at = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    show(format_args!("[{at:7.1} s] {text}"));
}

/// Prints text as it is, with a line end.
pub fn show(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Runs a long step and says every now and then that it still goes on.
pub fn long<T>(what: &str, work: impl FnOnce() -> T) -> T {
    say(format_args!("{what} …"));
    let start = Instant::now();
    let (done, is_done) = mpsc::channel::<()>();
    let out = thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
                say(format_args!(
                    "… {what}: {} s so far",
                    start.elapsed().as_secs()
                ));
            }
        });
        let out = work();
        drop(done);
        out
    });
    say(format_args!(
        "{what}: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    out
}
