//! The namespaces of the whole cluster, and how a program gets into them.

use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, Result};

use crate::command::{run, start_logged};
use crate::process::Process;

/// A set of namespaces, known by its first process: the cluster's, or one node's.
#[derive(Clone, Copy, Debug)]
pub struct Lab {
    init: Process,
}

impl Lab {
    /// The namespaces of this process.
    pub fn of(init: Process) -> Self {
        Self { init }
    }

    /// The first process.
    pub fn init(self) -> Process {
        self.init
    }

    /// A command that runs inside: network, mounts, names and processes are the lab's.
    pub fn enter(self, program: impl AsRef<Path>) -> Command {
        self.entered(
            &["--net", "--mount", "--uts", "--ipc", "--pid", "--cgroup"],
            program.as_ref(),
        )
    }

    /// A command that runs on the lab's network, with the host's files and process numbers.
    pub fn enter_network(self, program: impl AsRef<Path>) -> Command {
        self.entered(&["--net"], program.as_ref())
    }

    /// Runs `ip` with these words on the lab's network.
    pub fn ip(self, words: &str) -> Result<String> {
        run(self.enter_network("ip").args(words.split(' ')))
    }

    /// Starts a program that stays, its output in `log`.
    pub fn start(self, program: &Path, args: &[String], log: &Path) -> Result<Started> {
        let nsenter = start_logged(self.enter(program).args(args), log)?;
        let pid = i32::try_from(nsenter.id()).context("a process number out of range")?;
        Ok(Started {
            process: Process::of(pid)?.only_child()?,
            _nsenter: nsenter,
        })
    }

    fn entered(self, namespaces: &[&str], program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.pid().to_string());
        command.args(namespaces).arg("--").arg(program);
        command
    }
}

/// A program that runs in a lab.
#[derive(Debug)]
pub struct Started {
    /// The program itself, with its number on the host.
    pub process: Process,
    /// Waits for the program on the host's side; ends when it does.
    _nsenter: Child,
}
