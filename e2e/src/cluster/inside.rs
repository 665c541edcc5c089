//! The first process of a PID namespace: mounts what is its own, then waits for orphans for ever.
//!
//! The same code serves the whole cluster and each node. It starts nothing else: programs are
//! brought in from outside ([`super::lab::Lab::enter`]), so a component can be killed and started
//! again without its first process knowing.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{WaitOptions, wait};

use super::cgroups;
use crate::command::{program, run};
use crate::paths::NODE_OWN;

/// What a first process says on its output once everything is in place.
pub const READY: &str = "ready";

/// What a first process is to set up.
#[derive(Debug, clap::Args)]
pub struct Setup {
    /// Name of the machine, as its processes see it.
    #[arg(long)]
    hostname: String,
    /// Set once the process has joined its control group.
    #[arg(long, requires = "own")]
    joined: bool,
    /// Folder whose `etc`, `opt`, `run` and `var` take the place of the host's.
    #[arg(long)]
    own: Option<PathBuf>,
    /// Address to forward connections to that arrive at the socket on standard input.
    #[arg(long)]
    forward: Option<SocketAddr>,
}

/// Sets up the namespaces and stays.
pub fn live(setup: &Setup) -> Result<()> {
    if setup.own.is_some() && !setup.joined {
        return join_and_start_again(&setup.hostname);
    }
    run(&mut program("hostname", [setup.hostname.as_str()]))?;
    if let Some(own) = &setup.own {
        mount_own(own, &setup.hostname)?;
    }
    if let Some(to) = setup.forward {
        let socket = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("no socket to serve")?;
        thread::spawn(move || forward(&TcpListener::from(socket), to));
    }
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")
        .and_then(|()| out.flush())
        .context("nobody waits for us")?;
    loop {
        reap();
        thread::sleep(Duration::from_millis(200));
    }
}

/// Takes a control group namespace, which needs a fresh start of the program.
fn join_and_start_again(node: &str) -> Result<()> {
    cgroups::join(node)?;
    let own = std::env::current_exe().context("cannot find our own binary")?;
    let mut unshare = Command::new("unshare");
    unshare
        .arg("--cgroup")
        .arg(own)
        .args(std::env::args_os().skip(1))
        .arg("--joined");
    Err(unshare.exec()).context("cannot start unshare")
}

/// Puts the node's own folders over the host's, and lets mounts of containers propagate.
fn mount_own(own: &Path, node: &str) -> Result<()> {
    for name in NODE_OWN {
        let (from, to) = (own.join(name), Path::new("/").join(name));
        let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
        run(&mut program("mount", ["--bind", &from, &to]))?;
    }
    cgroups::enter(node)?;
    run(&mut program("mount", ["--make-rshared", "/"]))?;
    fs::write("/run/e2e-ready", "").context("cannot write to the node's own /run")
}

/// Takes the status of every orphan that ended.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

fn forward(listener: &TcpListener, to: SocketAddr) {
    for near in listener.incoming().flatten() {
        thread::spawn(move || carry(&near, to));
    }
}

/// Carries bytes both ways until either side is done.
fn carry(near: &TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let far = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    for stream in [near, &far] {
        stream.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        scope.spawn(|| pour(near, &far));
        pour(&far, near);
    });
    Ok(())
}

fn pour(mut from: &TcpStream, mut into: &TcpStream) {
    let _ = std::io::copy(&mut from, &mut into);
    let _ = into.shutdown(std::net::Shutdown::Write);
}
