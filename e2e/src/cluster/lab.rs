//! The namespaces of the whole cluster, and how a program gets into them.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::command::{append, run};
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
    ///
    /// It becomes a child of the lab's first process: on the host's side nothing waits for it.
    pub fn start(self, program: &Path, args: &[String], log: &Path) -> Result<Process> {
        let log = append(log)?;
        // The shell tells the program's number, as the lab counts, and ends.
        let mut shell = self.enter("sh");
        shell
            .args(["-c", r#""$@" >&2 & echo $!"#, "start"])
            .arg(program)
            .args(args);
        let told = shell
            .stdin(Stdio::null())
            .stderr(log)
            .process_group(0)
            .output();
        let told = told
            .with_context(|| format!("cannot start {}", program.display()))?
            .stdout;
        let told = String::from_utf8_lossy(&told);
        let number = told
            .trim()
            .parse()
            .with_context(|| format!("cannot enter: {told:?}"))?;
        Process::inside(self.init, number)
    }

    fn entered(self, namespaces: &[&str], program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.pid().to_string());
        command.args(namespaces).arg("--").arg(program);
        command
    }
}
