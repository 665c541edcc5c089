//! `orbweaver agent`.

use super::Common;
use crate::api::names::env;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Name of this node.
    #[arg(long, env = env::NODE_NAME)]
    node_name: String,
    /// Port of the probes.
    #[arg(long, env = env::HEALTH_PORT, default_value_t = 5710)]
    health_port: u16,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        common,
        node_name,
        health_port,
    } = arguments;
    let _ = (common, node_name, health_port);
    anyhow::bail!("the agent's role is not wired yet")
}
