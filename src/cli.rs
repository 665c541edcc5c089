//! The command line: one binary, a role a sub-command.
//!
//! Owns: arguments, environment, signals, and the wiring of a role. Never does: a role's work.
//! Arguments are destructured in full, so a new one does not compile until it is used.

mod admission;
mod agent;
mod connection;
mod controller;
mod crds;
#[cfg(feature = "demo")]
mod demo;
mod install_cni;
mod look;
mod named;
mod plan;
mod render;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;

use crate::api::names::env;
use crate::error::ErrorChain;
use crate::ports::{self, PortError};

/// Exit codes of who ended by a signal, as shells have them.
const SIGINT: u8 = 128 + 2;
const SIGPIPE: u8 = 128 + 13;

/// Kubernetes IP address management: an IP pool of its own for every workload.
#[derive(Debug, Parser)]
#[command(name = "orbweaver", version)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Make pools follow workloads.
    Controller(controller::Arguments),
    /// Serve the CNI plugin of this node.
    Agent(agent::Arguments),
    /// Write the custom resource definitions.
    Crds(crds::Arguments),
    /// What Orbweaver would do, on manifests or a cluster, and what if; changes nothing.
    Plan(plan::Arguments),
    /// Look at a cluster's subnets, pools and addresses, and mend what is inconsistent.
    Ipam(look::Arguments),
    /// See it at work: a Kubernetes in memory, the real controller, agents and CNI plugin.
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
    /// Put a file (the CNI plugin, a network configuration) on the host by an atomic rename.
    InstallCni(install_cni::Arguments),
}

/// What both roles are told.
#[derive(Debug, Clone, Args)]
struct Common {
    /// File of the ConfigMap; every key has its default without it.
    #[arg(long, env = env::CONFIG)]
    config_path: Option<PathBuf>,
    /// Namespace of this Pod.
    #[arg(long, env = env::POD_NAMESPACE, default_value = "kube-system")]
    pod_namespace: String,
    /// Name of this Pod.
    #[arg(long, env = env::POD_NAME)]
    pod_name: Option<String>,
}

/// Runs the role that the arguments name; the process's exit code.
pub fn main() -> ExitCode {
    let role = match Cli::try_parse() {
        Ok(Cli { role }) => role,
        Err(error) => return refused(&error),
    };
    let done = |()| ExitCode::SUCCESS;
    match role {
        Role::Controller(arguments) => served(controller::run, arguments),
        Role::Agent(arguments) => served(agent::run, arguments),
        Role::InstallCni(arguments) => served(|a| install_cni::run(&a), arguments),
        Role::Crds(arguments) => told(crds::run(&arguments).map(done)),
        Role::Plan(arguments) => told(plan::run(arguments)),
        #[cfg(feature = "demo")]
        Role::Demo(arguments) => told(demo::run(&arguments)),
        Role::Ipam(arguments) => told(look::run(arguments)),
    }
}

/// Arguments that can't be meant exit with 1: 2 is an answer of `plan` and `ipam`.
fn refused(error: &clap::Error) -> ExitCode {
    // Where nothing can be printed nobody reads it.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs a role of the cluster: its log says what becomes of it.
fn served<A>(run: impl FnOnce(A) -> anyhow::Result<()>, arguments: A) -> ExitCode {
    crate::telemetry::init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %ErrorChain(error.as_ref()), "stopped");
            ExitCode::FAILURE
        }
    }
}

/// Whether and where a role serves its metrics.
#[derive(Debug, Clone, Args)]
struct MetricArguments {
    /// Whether metrics are served.
    #[arg(long, env = env::ENABLED_METRIC, default_value_t = false, action = ArgAction::Set)]
    enabled_metric: bool,
    /// Port of the metrics: 5711 of an agent, 5721 of a controller, unless it is given.
    #[arg(long, env = env::METRIC_PORT)]
    metric_port: Option<u16>,
}

impl MetricArguments {
    /// Serves `registry` in `tasks` if it is wanted.
    ///
    /// Errors: the port is taken or forbidden.
    async fn serve(
        self,
        usual_port: u16,
        registry: Registry,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), PortError> {
        let Self {
            enabled_metric,
            metric_port,
        } = self;
        if enabled_metric {
            let port = metric_port.unwrap_or(usual_port);
            tasks.spawn(ports::metrics(port, registry).await?);
        }
        Ok(())
    }
}

/// The end of a command that answers a person.
fn told(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        let is_unread = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        if error.downcast_ref().is_some_and(is_unread) {
            // Who reads, as `head` does, has read enough.
            return ExitCode::from(SIGPIPE);
        }
        // Where nothing can be printed nobody reads it.
        let _ = writeln!(io::stderr(), "error: {}", ErrorChain(error.as_ref()));
        ExitCode::FAILURE
    })
}

/// A future that ends at SIGTERM or SIGINT.
///
/// Errors: the process can't have signal handlers.
fn shutdown() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The runtime of a role.
///
/// Errors: the process can't have the threads.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
}
