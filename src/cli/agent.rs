//! `orbweaver agent`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::ArgAction;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Common, MetricArguments, connection};
use crate::agent::{self, Settings, State};
use crate::api::names::env;
use crate::config::Config;
use crate::ports::{self, Health};

/// Where metrics are served unless a port is given.
const METRIC_PORT: u16 = 5711;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    metrics: MetricArguments,
    /// Name of this node.
    #[arg(long, env = env::NODE_NAME)]
    node_name: String,
    /// Multus network behind the first NIC of Pods that name none, namespace/name.
    #[arg(long, env = env::CLUSTER_NETWORK)]
    cluster_network: Option<String>,
    /// File with the token that this agent shows the leader's allocator. Without it the agent writes
    /// pools itself.
    #[arg(long, env = env::ALLOCATOR_TOKEN)]
    allocator_token: Option<PathBuf>,
    /// Whether the agent writes pools itself where the allocator does not answer.
    #[arg(long, env = env::DIRECT_WRITES, default_value_t = true, action = ArgAction::Set)]
    direct_writes: bool,
    /// Port of the probes.
    #[arg(long, env = env::HEALTH_PORT, default_value_t = 5710)]
    health_port: u16,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    super::runtime()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        common,
        metrics: served,
        node_name,
        cluster_network,
        allocator_token,
        direct_writes,
        health_port,
    } = arguments;
    ensure!(
        direct_writes || allocator_token.is_some(),
        "there is no way to write a pool: pass --allocator-token, or --direct-writes true"
    );
    let Common {
        config_path,
        pod_namespace,
        pod_name,
    } = common;
    let config = Config::load(config_path.as_deref())?;
    let shutdown = super::shutdown()?;
    let clients = connection::of_role().await?;
    let (started, has_started) = watch::channel(false);
    let (ready, is_ready) = watch::channel(false);
    let health = Health {
        started: has_started,
        ready: is_ready,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(ports::probes(health_port, health).await?);
    let mut registry = Registry::default();
    let metrics = agent::Metrics::register(&mut registry);
    served.serve(METRIC_PORT, registry, &mut tasks).await?;
    let settings = Settings {
        namespace: pod_namespace,
        cluster_network,
        allocator_token,
        direct_writes,
        ..settings(config, node_name, pod_name)
    };
    agent::run(
        settings,
        clients,
        metrics,
        State { started, ready },
        shutdown,
    )
    .await?;
    tracing::info!("stopped; DELs that were answered are kept beside the socket");
    Ok(())
}

/// What an agent is told at start.
pub(super) fn settings(config: Config, node: String, pod_name: Option<String>) -> Settings {
    let (kinds, keeps, early_binding) = (config.kinds(), config.keeps(), config.binds_early());
    let Config {
        ipam_unix_socket_path,
        enable_ipv4,
        enable_ipv6,
        enable_spider_subnet,
        enable_auto_pool_for_application,
        enable_stateful_set: _,
        enable_kubevirt_static_ip: _,
        spider_endpoints,
        enable_ip_conflict_detection,
        enable_gateway_detection,
        early_binding: _,
        default_redundant_ip_number: _,
        third_party_controllers: _,
    } = config;
    Settings {
        namespace: String::new(),
        cluster_network: None,
        instance: pod_name.unwrap_or_else(|| node.clone()),
        node,
        socket: ipam_unix_socket_path,
        ipv4: enable_ipv4,
        ipv6: enable_ipv6,
        subnets: enable_spider_subnet,
        auto_pools: enable_auto_pool_for_application,
        keeps,
        endpoints: spider_endpoints,
        conflict_detection: enable_ip_conflict_detection,
        gateway_detection: enable_gateway_detection,
        early_binding,
        kinds,
        allocator_token: None,
        direct_writes: true,
    }
}
