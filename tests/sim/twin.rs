//! The same runs in a second process: a seed has one history, wherever it is run.
//!
//! Owns: that process and what it prints. What differs from process to process (the keys of hash
//! maps, addresses, the order in which tokio wakes the receivers of a `watch`) would show here and
//! in no second run within one process.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

/// The hash of each run, by the run's number.
type Histories = BTreeMap<usize, u64>;

/// What makes a process a twin, which prints its histories and nothing else.
pub(crate) const FLAG: &str = "--twin";

/// The other process.
pub(crate) struct Twin {
    child: Child,
    /// Reads what it prints while it prints: a pipe holds little.
    told: JoinHandle<io::Result<Histories>>,
}

impl Twin {
    /// Starts it, with the arguments of this process.
    pub(crate) fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg(FLAG)
            .stdout(Stdio::piped())
            .spawn()?;
        let told = child.stdout.take();
        let told = told.ok_or_else(|| io::Error::other("it has no output"))?;
        let told = thread::spawn(|| histories(told));
        Ok(Self { child, told })
    }

    /// Waits for its end.
    pub(crate) fn histories(mut self) -> io::Result<Histories> {
        let told = self.told.join();
        self.child.wait()?;
        told.unwrap_or_else(|_| Err(io::Error::other("what it prints can't be read")))
    }
}

fn histories(told: ChildStdout) -> io::Result<Histories> {
    let lines = BufReader::new(told).lines();
    let histories = lines.map(|line| {
        let line = line?;
        read(&line).ok_or_else(|| io::Error::other(format!("'{line}' is no history")))
    });
    histories.collect()
}

/// As a twin tells it.
pub(crate) fn line(run: usize, hash: u64) -> String {
    format!("{run} {hash:016x}")
}

fn read(line: &str) -> Option<(usize, u64)> {
    let (run, hash) = line.split_once(' ')?;
    Some((run.parse().ok()?, u64::from_str_radix(hash, 16).ok()?))
}
