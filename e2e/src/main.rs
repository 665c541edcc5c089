//! `e2e`: brings a real cluster up and down, and runs scenarios on it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::cluster::{Cluster, guard, inside};
use e2e::load::work::Work;
use e2e::paths::Paths;
use e2e::product::{self, Admission};
use e2e::progress::{say, show};
use e2e::scenario::Scenario;
use e2e::tools::Tools;
use e2e::{bench, demo, logs, scenario, scenarios, tap, wait};

/// A real Kubernetes on this machine, and the scenarios that run on it.
#[derive(Debug, Parser)]
#[command(name = "e2e", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the cluster's binaries, if they are not there yet
    Tools,
    /// Bring the cluster up
    Up {
        /// Leave it up and return; without this, it stays until Ctrl-C
        #[arg(long)]
        keep: bool,
        /// Install the product, as it is in the source tree
        #[arg(long)]
        product: bool,
    },
    /// Remove the cluster, whoever left it
    Down,
    /// Name the scenarios
    List,
    /// Run scenarios on the cluster: those named, or all
    Run {
        /// Names, as `e2e list` has them
        names: Vec<String>,
        #[command(flatten)]
        options: scenario::Options,
    },
    /// Measure, on a cluster that runs the product as it is shipped
    Bench {
        /// Which work, all by default
        #[arg(long, value_delimiter = ',', value_enum, default_values_t = Work::ALL)]
        work: Vec<Work>,
        /// How often what is compared with the baseline; of each row the run in the middle counts
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
    },
    /// Show the product at work, as `kubectl` shows it
    Demo,
    /// Write the product's image as a docker archive
    Image {
        /// The archive; by default one in the cache folder
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// What the cluster's own processes run
    #[command(subcommand, hide = true)]
    Inside(Inside),
}

#[derive(Debug, Subcommand)]
enum Inside {
    /// Start the namespaces, and remove everything in the end
    Guard {
        /// The cluster's folder
        run: PathBuf,
    },
    /// Be the first process of a PID namespace
    Init(inside::Setup),
}

fn main() -> ExitCode {
    // As a CNI plugin, it is known by its name and has no arguments.
    let name = std::env::args_os().next().map(PathBuf::from);
    if name.is_some_and(|name| name.ends_with(tap::NAME)) {
        return tap::live();
    }
    match act(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn act(command: Command) -> Result<()> {
    match command {
        Command::Inside(Inside::Guard { run }) => guard::live(&run),
        Command::Inside(Inside::Init(setup)) => inside::live(&setup),
        Command::Tools => Tools::ensure(&Paths::find()?).map(|_| ()),
        Command::Up { keep, product } => up(keep, product),
        Command::List => {
            for Scenario { name, about, .. } in scenarios::ALL {
                show(format_args!("{name:<16} {about}"));
            }
            Ok(())
        }
        Command::Run { names, options } => {
            wait::catch_signals()?;
            let chosen = scenario::chosen(scenarios::ALL, &names)?;
            scenario::run(&Paths::find()?, &chosen, options)
        }
        Command::Bench { mut work, runs } => {
            work.sort_unstable();
            work.dedup();
            measure(&work, runs.into())
        }
        Command::Demo => {
            wait::catch_signals()?;
            demo::run(&Paths::find()?)
        }
        Command::Image { out } => {
            let paths = Paths::find()?;
            let out = out.unwrap_or_else(|| paths.cache().join("orbweaver.image.tar"));
            let digest = product::build_image(&paths, &out)?;
            say(format_args!("{}: {digest}", out.display()));
            Ok(())
        }
        Command::Down => {
            let was = Cluster::down(&Paths::find()?)?;
            say(if was {
                "the cluster is gone"
            } else {
                "there is no cluster"
            });
            Ok(())
        }
    }
}

fn measure(work: &[Work], runs: usize) -> Result<()> {
    wait::catch_signals()?;
    let paths = Paths::find()?;
    let cluster = Cluster::open(&paths)?;
    let measured = bench::run(&cluster, work, runs);
    if measured.is_err() {
        let to = paths.failure("bench");
        logs::keep(&cluster, &to);
        say(format_args!("logs are in {}", to.display()));
    }
    measured.and(cluster.end())
}

fn up(keep: bool, with_product: bool) -> Result<()> {
    wait::catch_signals()?;
    let cluster = Cluster::open(&Paths::find()?)?;
    if with_product {
        product::ensure(&cluster, Admission::On)?;
    }
    show(format_args!(
        "export KUBECONFIG={}",
        cluster.kubectl().config().display()
    ));
    if keep {
        return cluster.keep();
    }
    say("up until Ctrl-C");
    while !wait::interrupted() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    cluster.end()
}
