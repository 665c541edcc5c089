//! The guard: a process of its own that starts the cluster's namespaces and, whatever happens to
//! the run that asked for them, removes everything in the end.
//!
//! ```text
//! e2e run ── guard ── unshare (holder) ── init ─┬─ etcd, kube-apiserver, …
//!    │         │                                └─ a node's init ── containerd, kubelet, Pods
//!    └── pipe ─┘
//! ```
//!
//! The run holds a pipe to the guard. When it closes, because the run ended, failed, or was killed
//! with no chance to say so, the guard kills the holder; the kernel then ends every process of the
//! cluster's PID namespace, and with the last of them go its mounts, links and network namespaces.
//! The word `keep` on the pipe lets the cluster outlive the run, until the guard gets SIGTERM.
//! Invariant: only [`destroy`] removes a cluster, and it may be repeated at any time.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Signal, setsid};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use super::cgroups;
use super::inside::READY;
use super::network::API_SERVER;
use super::state::State;
use crate::command;
use crate::host;
use crate::paths::Paths;
use crate::process::{Process, all_pids, command_line};
use crate::wait::patiently;

/// What lets the cluster outlive the run.
const KEEP: &str = "keep";

/// The name of the machine that the control plane runs on, as its processes see it.
const HOSTNAME: &str = "orbweaver-e2e";

/// How long the end of all processes may take.
const END_LIMIT: Duration = Duration::from_secs(30);

/// The run's side of a guard.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    pipe: Option<ChildStdin>,
    log: PathBuf,
}

impl Guard {
    /// Starts a guard with fresh namespaces; their state is on disk when this returns.
    pub fn start(paths: &Paths, exe: &Path) -> Result<Self> {
        let (run, log) = (paths.cluster(), paths.guard_log());
        let _ = fs::remove_file(&log);
        let mut child = Command::new(exe)
            .args(["inside", "guard"])
            .arg(&run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(command::append(&log)?)
            .spawn()
            .context("cannot start the cluster's guard")?;
        let pipe = child.stdin.take();
        let out = child.stdout.take().context("the guard has no output")?;
        let guard = Self { child, pipe, log };
        let mut line = String::new();
        let _ = BufReader::new(out).read_line(&mut line);
        ensure!(
            line.trim() == READY,
            "the cluster's guard did not start: {}",
            guard.last_words()
        );
        Ok(guard)
    }

    /// Lets the cluster outlive this run.
    pub fn keep(mut self) -> Result<()> {
        let mut pipe = self.pipe.take().context("the guard's pipe is closed")?;
        writeln!(pipe, "{KEEP}").context("the cluster's guard is gone")
    }

    /// Has everything removed, and waits for it.
    pub fn end(mut self) -> Result<()> {
        drop(self.pipe.take());
        let status = self
            .child
            .wait()
            .context("cannot wait for the cluster's guard")?;
        ensure!(
            status.success(),
            "the cluster was not removed cleanly: {}",
            self.last_words()
        );
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        format!("{} (log: {})", text.trim(), self.log.display())
    }
}

/// Why the guard stops waiting.
enum End {
    /// The run is over and did not say to keep the cluster.
    RunOver,
    /// Somebody asked for the cluster's end.
    Asked,
    /// The namespaces ended by themselves.
    Gone,
}

/// The guard's own life; `run` is the cluster's folder.
pub fn live(run: &Path) -> Result<()> {
    // Ctrl-C in the terminal is for the run, which then closes the pipe.
    setsid().context("cannot leave the terminal")?;
    let (ends, end) = mpsc::channel();
    watch_signals(ends.clone())?;
    let started = start_namespaces(run, ends.clone());
    if started.is_ok() {
        watch_pipe(ends);
        let mut out = std::io::stdout();
        writeln!(out, "{READY}")
            .and_then(|()| out.flush())
            .context("the run is gone")?;
        let _: Result<End, _> = end.recv();
    }
    started.and(destroy(run))
}

/// Removes the cluster in `run`: its processes and with them its mounts, links and namespaces,
/// then its control groups and its folder; puts the machine's settings back.
///
/// Errors name what is left. Nothing to remove is no error.
pub fn destroy(run: &Path) -> Result<()> {
    if let Some(state) = State::load(run)? {
        state.holder.signal(Signal::KILL);
        state.init.signal(Signal::KILL);
        state
            .init
            .wait_gone(END_LIMIT)
            .context("the cluster's processes do not end")?;
        state.holder.wait_gone(END_LIMIT)?;
        host::restore_kernel_settings(&state.kernel_settings);
    }
    let groups = cgroups::remove_all();
    remove_folder(run)?;
    groups?;
    ensure_nothing_left(run)
}

/// Asks a guard to remove its cluster and waits until it did.
pub fn ask_to_end(guard: Process) -> Result<()> {
    guard.signal(Signal::TERM);
    guard
        .wait_gone(END_LIMIT * 2)
        .context("the cluster's guard does not end")
}

fn start_namespaces(run: &Path, ends: Sender<End>) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on loopback")?;
    let port = listener
        .local_addr()
        .context("the listener has no address")?
        .port();
    let mut holder = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .arg("--mount-proc")
        .arg(std::env::current_exe().context("cannot find our own binary")?)
        .args([
            "inside",
            "init",
            "--hostname",
            HOSTNAME,
            "--forward",
            API_SERVER,
        ])
        // The listening socket stays the host's, whoever accepts from it.
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start unshare")?;
    if let Err(error) = record(run, port, &mut holder) {
        let _ = holder.kill();
        return Err(error);
    }
    thread::spawn(move || {
        let _ = holder.wait();
        ends.send(End::Gone)
    });
    Ok(())
}

/// Waits until the namespaces are there and writes down what is needed to remove them.
fn record(run: &Path, port: u16, holder: &mut Child) -> Result<()> {
    let out = holder.stdout.take().context("unshare has no output")?;
    let mut line = String::new();
    let _ = BufReader::new(out).read_line(&mut line);
    ensure!(
        line.trim() == READY,
        "cannot make namespaces (is this root?)"
    );
    let holder = Process::of(i32::try_from(holder.id()).context("a process number")?)?;
    let state = State {
        guard: Process::of(i32::try_from(std::process::id()).context("our own number")?)?,
        holder,
        init: holder.only_child()?,
        port,
        kernel_settings: host::kernel_settings(),
        nodes: BTreeMap::new(),
        kept: false,
    };
    state.save(run)
}

fn watch_signals(ends: Sender<End>) -> Result<()> {
    let mut signals = Signals::new([SIGTERM]).context("cannot catch SIGTERM")?;
    thread::spawn(move || signals.forever().try_for_each(|_| ends.send(End::Asked)));
    Ok(())
}

fn watch_pipe(ends: Sender<End>) {
    thread::spawn(move || {
        let mut said = String::new();
        let _ = std::io::stdin().read_to_string(&mut said);
        if said.trim() == KEEP {
            Ok(())
        } else {
            ends.send(End::RunOver)
        }
    });
}

fn remove_folder(run: &Path) -> Result<()> {
    if !run.exists() {
        return Ok(());
    }
    patiently(|| fs::remove_dir_all(run))
        .with_context(|| format!("cannot remove {}", run.display()))
}

/// Looks for what a removed cluster may have left: processes, mounts and control groups.
fn ensure_nothing_left(run: &Path) -> Result<()> {
    for _ in 0..50 {
        if leftovers(run).is_empty() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let left = leftovers(run);
    if left.is_empty() {
        Ok(())
    } else {
        bail!("left behind: {}", left.join("; "))
    }
}

fn leftovers(run: &Path) -> Vec<String> {
    let processes = all_pids().into_iter().filter_map(|pid| {
        let words = command_line(pid);
        // Those that led into the namespaces; what ran in them is gone with the first process.
        let leads_in = words
            .first()
            .is_some_and(|name| name == "nsenter" || name == "unshare");
        let ours = words.iter().any(|word| Path::new(word).starts_with(run));
        (leads_in && ours).then(|| format!("process {pid} ({})", words.join(" ")))
    });
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mounts = mounts
        .filter(|at| Path::new(at).starts_with(run))
        .map(|at| format!("mount {at}"));
    let groups = cgroups::left();
    let groups = groups
        .iter()
        .map(|group| format!("control group {}", group.display()));
    processes.chain(mounts).chain(groups).collect()
}
