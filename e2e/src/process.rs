//! Processes of this machine as `/proc` shows them: who is whose child, who is still the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::wait::{eventually_some, patient};

/// A process that can't be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pid: i32,
    started: u64,
}

/// What one line of `/proc/<pid>/stat` tells.
struct Stat {
    parent: i32,
    started: u64,
    ended: bool,
}

impl Process {
    /// The process with this number now.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = stat(pid).with_context(|| format!("process {pid} is not there"))?;
        Ok(Self {
            pid,
            started: stat.started,
        })
    }

    /// The process with this number in the PID namespace whose first process is `init`.
    pub fn inside(init: Self, number: i32) -> Result<Self> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let wanted = namespace(init.pid);
        let is_it = |pid: &i32| number_inside(*pid) == Some(number) && namespace(*pid) == wanted;
        let found = all_pids().into_iter().find(is_it);
        Self::of(found.with_context(|| format!("process {number} of the namespace is gone"))?)
    }

    /// The one child of this process; waits a moment for it to be there.
    pub fn only_child(self) -> Result<Self> {
        eventually_some(
            Duration::from_secs(10),
            &format!("a child of {}", self.pid),
            || {
                self.ensure_alive()?;
                children()
                    .get(&self.pid)
                    .and_then(|all| all.first())
                    .map(|pid| Self::of(*pid))
                    .transpose()
            },
        )
    }

    /// Its number, as the machine sees it.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs: neither gone, nor ended and not yet waited for.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.ended)
    }

    /// Sends a signal; a process that is gone already gets none.
    pub fn signal(self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::KILL);
        self.wait_gone(Duration::from_secs(20))
    }

    /// Waits until it is gone, heedless of an interruption: this is how we stop.
    pub fn wait_gone(self, limit: Duration) -> Result<()> {
        let limit = patient(limit);
        let end = std::time::Instant::now() + limit;
        while self.is_alive() {
            if std::time::Instant::now() > end {
                bail!(
                    "process {} is still there after {} s",
                    self.pid,
                    limit.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Every process below this one whose command line has `words` one after the other.
    pub fn descendants_running(self, words: &[&str]) -> Vec<Self> {
        let runs = |pid: &i32| {
            let words_of = command_line(*pid);
            words_of.windows(words.len()).any(|run| {
                run.iter()
                    .zip(words)
                    .all(|(is, wanted)| is == wanted || is.rsplit('/').next() == Some(*wanted))
            })
        };
        self.descendants()
            .into_iter()
            .filter(runs)
            .filter_map(|pid| Self::of(pid).ok())
            .collect()
    }

    fn descendants(self) -> Vec<i32> {
        let children = children();
        let mut all = Vec::new();
        let mut next = vec![self.pid];
        while let Some(pid) = next.pop() {
            for child in children.get(&pid).into_iter().flatten() {
                all.push(*child);
                next.push(*child);
            }
        }
        all
    }

    fn ensure_alive(self) -> Result<()> {
        if self.is_alive() {
            Ok(())
        } else {
            bail!("process {} is gone", self.pid)
        }
    }
}

/// Numbers of all processes.
pub fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The words of a process' command line; none if it is gone or a kernel thread.
pub fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    let bytes = bytes.unwrap_or_default();
    let words = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// Children by parent.
fn children() -> BTreeMap<i32, Vec<i32>> {
    let mut children = BTreeMap::<i32, Vec<i32>>::new();
    for pid in all_pids() {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    children
}

/// A process' number in its own PID namespace.
fn number_inside(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().next_back()?.parse().ok()
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field, the name in brackets, may itself hold blanks and brackets.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let threads: u32 = fields.get(17)?.parse().ok()?;
    Some(Stat {
        // Its other threads may take a moment longer, and until then its sockets are there.
        ended: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse_the_fields() {
        let line = "7 (a) S 9 (b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.started, stat.ended), (3, 4242, false));
    }

    #[test]
    fn a_process_has_ended_when_all_its_threads_have() {
        let line = |state: &str, threads: u32| {
            format!("7 (a) {state} 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 4242 0 0")
        };
        for (state, threads, ended) in [("S", 5, false), ("Z", 5, false), ("Z", 1, true)] {
            let stat = parse_stat(&line(state, threads)).unwrap();
            assert_eq!(stat.ended, ended, "{state} {threads}");
        }
    }

    #[test]
    fn a_child_is_found_by_its_words_and_killed() {
        let mut child = Command::new("sleep").arg("987").spawn().unwrap();
        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let found = eventually_some(Duration::from_secs(5), "the sleep", || {
            Ok(me.descendants_running(&["sleep", "987"]).first().copied())
        });
        let found = found.unwrap();
        assert_eq!(u32::try_from(found.pid()).unwrap(), child.id());
        found.kill().unwrap();
        child.wait().unwrap();
        assert!(!found.is_alive());
    }
}
