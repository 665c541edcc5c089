//! The stage: a Kubernetes in memory, and the product on it.
//!
//! Owns: what runs, and where. Never does: anything the product does; controller and agents are
//! the roles of this binary, told what their Pods would be told, and reach the API server over HTTP.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, PostParams};
use kube::{Api, Client};
use kubesim::actors::{self, Kubelet, Machine, NodeSettings, Timings};
use kubesim::{Server, TokioClock};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::network::Plugin;
use crate::agent::{self, State};
use crate::api::{self, SpiderEndpoint, SpiderIPPool, names};
use crate::config::Config;
use crate::controller::{self, Signals};
use crate::kube_io::clients::Clients;
use crate::kube_io::lease::{Durations, LeaderElector};

/// The nodes.
pub(super) const NODES: [&str; 2] = ["spider-worker-1", "spider-worker-2"];
/// Where every random choice of the cluster comes from: two demos make the same choices.
const SEED: u64 = 41;
/// Longest wait for a part to come up.
const START_MAX: Duration = Duration::from_secs(20);
/// How long things take on the nodes: a real kubelet's pauses, shortened so that nobody waits.
const TIMINGS: Timings = Timings {
    start: Duration::from_millis(150),
    stop: Duration::from_millis(100),
    retry: Duration::from_secs(2),
    collect: Duration::from_secs(5),
    restart: Duration::from_secs(2),
};

/// What runs. Dropping it ends everything and removes the folder.
pub(super) struct Lab {
    client: Client,
    /// Where the API server listens.
    pub(super) url: String,
    _cluster: JoinSet<()>,
    _folder: TempDir,
}

/// The product's parts, none of which should end.
pub(super) struct Parts(JoinSet<anyhow::Error>);

impl Parts {
    /// Waits until a part ends: which, and why.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(error)) => anyhow!(error).context("a part of the product broke"),
            None => std::future::pending().await,
        }
    }
}

impl Lab {
    /// Brings everything up; the parts are the caller's to watch.
    ///
    /// Errors: the port is taken, or a part does not start.
    pub(super) async fn start(port: u16) -> anyhow::Result<(Self, Parts)> {
        let clock = TokioClock::starting_at(Timestamp::now());
        let server = Server::with_clock(SEED, clock);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("port {port} can't be opened"))?;
        let url = format!("http://{}", listener.local_addr()?);
        let folder = tempfile::Builder::new()
            .prefix("orbweaver-demo-")
            .tempdir()?;
        let mut cluster = JoinSet::new();
        let api_server = server.clone();
        cluster.spawn(async move {
            if let Err(error) = api_server.serve(listener).await {
                tracing::error!(%error, "the API server ended");
            }
        });
        let client = server.client("demo");
        define(&client).await?;
        let control = server.client("kube-controller-manager");
        let owned = [
            ApiResource::erase::<SpiderEndpoint>(&()),
            ApiResource::erase::<SpiderIPPool>(&()),
        ];
        actors::control_plane(&control, clock, SEED, &owned, &mut cluster);
        let clients = Clients::new(kube::Config::new(url.parse()?))?;
        let mut product = JoinSet::new();
        start_controller(clients.clone(), &mut product).await?;
        for (node, number) in NODES.into_iter().zip(1..) {
            let home = folder.path().join(node);
            std::fs::create_dir_all(&home)?;
            start_agent(clients.clone(), node, &home, &mut product).await?;
            let settings = NodeSettings {
                name: node.to_owned(),
                addresses: vec![IpAddr::from([172, 18, 0, number])],
                labels: std::collections::BTreeMap::new(),
                timings: TIMINGS,
            };
            let client = server.client(node);
            let network = Arc::new(Plugin::new(&home, client.clone())?);
            let machine = Machine::default();
            let kubelet = Kubelet::new(client, clock, settings, machine, network, SEED);
            cluster.spawn(kubelet.run());
        }
        let lab = Self {
            client,
            url,
            _cluster: cluster,
            _folder: folder,
        };
        Ok((lab, Parts(product)))
    }

    /// A client for the story.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }
}

/// Installs our kinds.
pub(super) async fn define(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in api::crd::definitions()? {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let created = api.create(&PostParams::default(), &definition).await;
        created.with_context(|| format!("{name} could not be installed"))?;
    }
    Ok(())
}

/// The configuration of the roles: every key its default, the socket in a folder of ours.
fn config(socket: &Path) -> Config {
    Config {
        ipam_unix_socket_path: socket.to_owned(),
        ..Config::default()
    }
}

async fn start_controller(
    clients: Clients,
    product: &mut JoinSet<anyhow::Error>,
) -> anyhow::Result<()> {
    let seconds = Duration::from_secs;
    let durations = Durations::new(seconds(15), seconds(10), seconds(2))?;
    let elector = LeaderElector::new(
        clients.write.clone(),
        "kube-system",
        names::CONTROLLER_LEASE,
        "demo-controller",
        durations,
    );
    let leadership = elector.leadership();
    let (ready, is_ready) = watch::channel(false);
    let options = super::super::controller::options(&config(Path::new("")), None);
    let metrics = controller::Metrics::register(&mut Registry::default(), false);
    product.spawn(async move {
        let (_stop, stopped) = watch::channel(false);
        elector.run(stopped).await;
        anyhow!("the election ended")
    });
    product.spawn(async move {
        let (_stop, stopped) = watch::channel(false);
        let signals = Signals {
            leadership,
            ready,
            stop: stopped,
        };
        controller::run(options, clients, metrics, signals, None).await;
        anyhow!("the controller ended")
    });
    comes_up("the controller", is_ready).await
}

async fn start_agent(
    clients: Clients,
    node: &'static str,
    home: &Path,
    product: &mut JoinSet<anyhow::Error>,
) -> anyhow::Result<()> {
    let config = config(&super::network::socket(home));
    let settings = super::super::agent::settings(config, node.to_owned(), None);
    let metrics = agent::Metrics::register(&mut Registry::default());
    let (started, has_started) = watch::channel(false);
    let state = State {
        started,
        ready: watch::channel(false).0,
    };
    product.spawn(async move {
        let run = agent::run(settings, clients, metrics, state, std::future::pending());
        match run.await {
            Ok(()) => anyhow!("the agent of {node} ended"),
            Err(error) => anyhow!(error).context(format!("the agent of {node} ended")),
        }
    });
    comes_up(&format!("the agent of {node}"), has_started).await
}

async fn comes_up(what: &str, mut is_up: watch::Receiver<bool>) -> anyhow::Result<()> {
    let up = timeout(START_MAX, is_up.wait_for(|up| *up)).await;
    up.with_context(|| format!("{what} did not start within {} s", START_MAX.as_secs()))?
        .with_context(|| format!("{what} ended at its start"))?;
    Ok(())
}
