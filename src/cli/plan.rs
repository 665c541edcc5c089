//! `orbweaver plan`: what Orbweaver would do and why, on manifests or on a cluster, and what if.
//!
//! Owns: the command. Never does: write to a cluster, or decide: [`outlook`] rehearses the
//! controller and asks the agent's own search, [`view`] prints what comes of it.

mod change;
mod objects;
mod outlook;
mod pods;
mod room;
mod shelf;
mod trouble;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::connection::Target;
use super::render::Output;
use crate::api::time;
use crate::config::Config;
use change::{Changes, Scale, Shrink};
use objects::{Defaults, Objects};
use view::PlanView;

/// Exit code where something would not fit.
const DOES_NOT_FIT: u8 = 2;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exits with 0 where everything fits, 2 where something does not, 1 on errors."
)]
pub(super) struct Arguments {
    /// Manifests instead of a cluster: a file, a folder, or - for standard input.
    #[arg(long, short, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// What if a workload had so many replicas? [NAMESPACE/]KIND/NAME=REPLICAS
    #[arg(long, value_name = "WORKLOAD=REPLICAS")]
    scale: Vec<Scale>,
    /// What if a node were drained?
    #[arg(long, value_name = "NODE")]
    drain: Vec<String>,
    /// What if a subnet had only these addresses left? SUBNET=FIRST-LAST[,…]
    #[arg(long, value_name = "SUBNET=RANGE")]
    shrink: Vec<Shrink>,
    /// Orbweaver's configuration file; the cluster's ConfigMap without it, the defaults with -f.
    #[arg(long, value_name = "FILE")]
    config_path: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

/// Plans and prints; the exit code says whether everything fits.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(plan(arguments))
}

async fn plan(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments {
        filename,
        scale,
        drain,
        shrink,
        config_path,
        target,
        output,
    } = arguments;
    let changes = Changes {
        scale,
        drain,
        shrink,
    };
    let (objects, config, namespace) = if filename.is_empty() {
        let connection = target.open().await?;
        let (config, note) = connection.config(config_path.as_deref()).await?;
        let rule = super::controller::options(&config, None).default_rule;
        let mut objects = Objects::of_cluster(&connection, rule, &config.kinds()).await?;
        objects.notes.extend(note);
        (objects, config, connection.namespace.clone())
    } else {
        let config = Config::load(config_path.as_deref())?;
        let namespace = target.namespace.unwrap_or_else(|| "default".to_owned());
        let mut texts = vec![];
        for path in &filename {
            texts.extend(objects::texts(path)?);
        }
        let defaults = Defaults {
            namespace: &namespace,
            rule: super::controller::options(&config, None).default_rule,
            kinds: &config.kinds(),
        };
        let objects = Objects::of_manifests(&texts, defaults)?.with_namespaces();
        (objects, config, namespace)
    };
    if objects.is_empty() {
        bail!("there is nothing to plan: no subnet, no pool and no workload");
    }
    let view = foreseen(objects, &changes, &config, &namespace).await?;
    output.print(&view)?;
    Ok(if view.fits {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DOES_NOT_FIT)
    })
}

/// What would be after `changes`, in words.
async fn foreseen(
    mut objects: Objects,
    changes: &Changes,
    config: &Config,
    namespace: &str,
) -> anyhow::Result<PlanView> {
    let before = objects.clone();
    let effects = changes.apply(&mut objects, namespace)?;
    let options = super::controller::options(config, None);
    let settings = super::agent::settings(config.clone(), String::new(), None);
    let now = time::now();
    let outlook = outlook::foresee(&before, objects, effects, &options, &settings, now);
    // On the heap: the agent's whole choice of addresses is in there.
    Ok(PlanView::of(&Box::pin(outlook).await?))
}

#[cfg(test)]
mod tests;
