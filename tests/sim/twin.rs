//! The same runs in a second process: a seed has one history, wherever it is run.
//!
//! Owns: that process and what it prints. What differs from process to process (the keys of hash
//! maps, addresses, the order in which tokio wakes the receivers of a `watch`) would show here and
//! in no second run within one process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// What makes a process a twin, which prints its histories and nothing else.
pub(crate) const FLAG: &str = "--twin";

/// The other process.
pub(crate) struct Twin {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Twin {
    /// Starts it, with the arguments of this process.
    pub(crate) fn start() -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg(FLAG)
            .stdout(Stdio::piped())
            .spawn()?;
        let told = child.stdout.take().map(BufReader::new);
        let told = told.ok_or_else(|| std::io::Error::other("it has no output"))?;
        Ok(Self { child, told })
    }

    /// Waits for its end: the hash of each run, by the run's number.
    pub(crate) fn histories(mut self) -> std::io::Result<BTreeMap<usize, u64>> {
        let mut histories = BTreeMap::new();
        for line in self.told.lines() {
            let line = line?;
            let (run, hash) = read(&line)
                .ok_or_else(|| std::io::Error::other(format!("'{line}' is no history")))?;
            histories.insert(run, hash);
        }
        self.child.wait()?;
        Ok(histories)
    }
}

/// As a twin tells it.
pub(crate) fn line(run: usize, hash: u64) -> String {
    format!("{run} {hash:016x}")
}

fn read(line: &str) -> Option<(usize, u64)> {
    let (run, hash) = line.split_once(' ')?;
    Some((run.parse().ok()?, u64::from_str_radix(hash, 16).ok()?))
}
