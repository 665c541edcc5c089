//! The node's agent: it answers the CNI plugin on a unix socket and records addresses in pools.
//!
//! Owns: the role's tasks, and what they share. Never does: decide who may have which address: the
//! core does (`ipam`), and the agent is its host for time and IO. Invariants:
//!
//! * An address is in the reply only after it is in the pool's record, and leaves the record only
//!   with the proof that it is let go (`agent/release.rs`).
//! * All that the agent keeps in memory can be lost at any moment; what may not be lost is in the
//!   pools, or in the journal beside the socket.
//! * It watches the Pods of its own node, and a pool while a Pod waits for it; nothing else.
//!
//! ```text
//! server ─ ADD ─ add ── wishes, candidates, reads    which pools, who asks
//!        │        ├──── paths ── allocator           the leader's, where all nodes' claims meet; or
//!        │        │        └─── host (pool_writer)    one task a pool: claims and releases, one write
//!        │        ├──── wait                         while nothing is free
//!        │        ├──── endpoint                     after the reply
//!        │        └──── unreached                    once the Pod's last interface has asked
//!        └ DEL ─ release ─ journal                   acknowledged; freed once the Pod has ended
//! conflict ─ paths                                   another host has what was given: quarantine
//! untold ─ endpoint                               what an earlier agent answered and did not write
//! unstarted ─ leaks                                  what was recorded for a Pod that never started
//! leaks ── paths                                     what no DEL will release, where the controller says
//! explain ─ candidates                               the same look, for a person, and nothing given
//! foresight: whose a Pod is, asked before its sandbox calls
//! fixed: addresses that outlive their Pod        former: what an earlier agent gave
//! turns: one call at a time for an interface     memory: what was given
//! disk: the journal's, or a simulation's
//! ```

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use ipam::addr::Family;
use ipam::keep::Keeps;
use ipam::kind::Kinds;
use ipam::name::{NodeName, Uid};
use k8s_openapi::api::core::v1::Pod;
use kube_runtime::events::{Recorder, Reporter};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

mod add;
mod allocator;
mod answer;
mod batch;
mod candidates;
mod conflict;
mod disk;
mod endpoint;
mod error;
pub mod explain;
mod fixed;
mod foresight;
mod former;
mod health;
mod host;
mod journal;
mod leaks;
mod memory;
mod metrics;
mod namespaces;
mod paths;
mod pods;
mod reads;
mod release;
mod server;
mod unreached;
mod unstarted;
mod untold;
mod wait;
mod wishes;

use self::allocator::{Allocator, Discovery};
pub use self::allocator::{Connect, Link, LinkError};
pub use self::disk::Disk;
use self::disk::Folder;
use self::endpoint::Endpoints;
use self::fixed::Keepers;
use self::host::Host;
use self::memory::Memory;
pub use self::metrics::Metrics;
use self::namespaces::Namespaces;
use self::paths::Paths;
use self::pods::{Ended, Listeners, NodePods};
use self::reads::Reads;
use self::release::Releases;
use self::unreached::Unreached;
use self::wait::Waits;
use crate::config::EndpointMode;
use crate::kube_io::clients::Clients;
use crate::kube_io::locked;
use crate::kube_io::tasks::{Tasks, start};
use crate::kube_io::turn::Turns;
use crate::pool_writer::{Attachment, Writers};

/// How often everything that is remembered is looked through.
const SWEEP: Duration = Duration::from_secs(30);
/// Calls in flight get this long to finish when the agent is asked to stop.
const STOP_MAX: Duration = Duration::from_secs(12);

/// What an operator may set.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the configuration, independent of the others"
)]
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node this agent serves.
    pub node: String,
    /// The agent's own namespace: that of Multus networks that name none.
    pub namespace: String,
    /// The Multus network behind the first interface of Pods that name none, `namespace/name`.
    pub cluster_network: Option<String>,
    /// Name of the agent's own Pod, which signs its Events.
    pub instance: String,
    /// Where the plugin finds the agent.
    pub socket: PathBuf,
    /// Whether Pods get IPv4 addresses.
    pub ipv4: bool,
    /// Whether Pods get IPv6 addresses.
    pub ipv6: bool,
    /// Whether the annotations `subnet` and `subnets` mean anything.
    pub subnets: bool,
    /// Whether workloads have pools of their own.
    pub auto_pools: bool,
    /// Whose Pods keep their addresses.
    pub keeps: Keeps,
    /// Whose `SpiderEndpoint`s are written.
    pub endpoints: EndpointMode,
    /// Whether the plugin is to ask if another host has an address before it is used.
    pub conflict_detection: bool,
    /// Whether the plugin is to ask if the gateway answers before an address is used.
    pub gateway_detection: bool,
    /// Whether the leader records addresses for Pods that have a node and no sandbox yet.
    pub early_binding: bool,
    /// The kinds of workloads that have pools of their own.
    pub kinds: Kinds,
    /// The file with the token for the leader's allocator, if that is asked.
    pub allocator_token: Option<PathBuf>,
    /// Whether the agent writes pools itself where the allocator does not answer.
    pub direct_writes: bool,
}

impl Settings {
    fn families(&self) -> impl Iterator<Item = Family> {
        let (ipv4, ipv6) = (self.ipv4, self.ipv6);
        [(Family::V4, ipv4), (Family::V6, ipv6)]
            .into_iter()
            .filter_map(|(family, enabled)| enabled.then_some(family))
    }
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The socket, or the journal beside it, cannot be had.
    #[error("could not listen on {}", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// One of its tasks came to an end, which none should: the log has its panic.
    #[error("a task of the agent ended")]
    Stopped,
    /// The socket was removed, or gives no answer.
    #[error("{} no longer leads to this agent", .path.display())]
    Lost {
        /// Where.
        path: PathBuf,
    },
}

/// Whoever may have let go of addresses, or been given some that nobody took: look again.
type Wakes = UnboundedSender<Uid>;

/// Who is to be looked at.
struct Woken {
    /// Whose DELs.
    releases: UnboundedReceiver<Uid>,
    /// Pods that may have ended before they started.
    unstarted: UnboundedReceiver<Ended>,
    /// Pods that came.
    came: UnboundedReceiver<Arc<Pod>>,
}

/// What the agent's tasks share.
struct Agent {
    settings: Settings,
    /// An earlier agent gave nothing after this.
    began: Instant,
    reads: Reads,
    pods: NodePods,
    memory: Arc<Memory>,
    turns: Turns<Attachment>,
    paths: Arc<Paths>,
    releases: Releases,
    keepers: Keepers,
    endpoints: Arc<Endpoints>,
    namespaces: Namespaces,
    waits: Arc<Waits>,
    unreached: Arc<Unreached>,
    metrics: Metrics,
}

impl Agent {
    fn new(
        settings: Settings,
        clients: &Clients,
        disk: Arc<dyn Disk>,
        metrics: Metrics,
        allocator: Option<Box<dyn Connect>>,
    ) -> (Arc<Self>, Woken) {
        let (wakes, woken) = unbounded_channel();
        let (unstarted, may_have_not_started) = unbounded_channel();
        let (came, have_come) = unbounded_channel();
        let tasks = Tasks::default();
        let pods = NodePods::new(Listeners {
            ended: wakes.clone(),
            unstarted: settings.early_binding.then_some(unstarted),
            came: allocator.is_some().then_some(came),
        });
        let memory = Arc::new(Memory::default());
        let turns = Turns::default();
        let reporter = Reporter {
            controller: "orbweaver-agent".to_owned(),
            instance: Some(settings.instance.clone()),
        };
        let recorder = Recorder::new(clients.write.clone(), reporter);
        let waits = Waits::new(clients.read.clone(), recorder, tasks.clone());
        let waits = Arc::new(waits);
        let unreached = Unreached::new(Arc::clone(&memory), Arc::clone(&waits), tasks.clone());
        let allocator = allocator.map(|connect| Allocator::new(connect, tasks.clone()));
        let mut reads = Reads::new(clients.read.clone(), settings.kinds.clone());
        if let Some(allocator) = &allocator {
            reads = reads.beside(allocator.clone());
        }
        let own = settings.direct_writes.then(|| {
            let host = Host {
                reads: reads.clone(),
                writes: clients.write.clone(),
                memory: Arc::clone(&memory),
                wakes,
                metrics: metrics.clone(),
            };
            Writers::new(host, tasks.clone())
        });
        let node = NodeName::new(&settings.node);
        let paths = Arc::new(Paths::new(node, allocator, own, Arc::clone(&memory), tasks));
        let keepers = Keepers::new(&settings, reads.clone(), clients.write.clone());
        let releases = Releases::new(
            Arc::clone(&disk),
            Arc::clone(&paths),
            turns.clone(),
            keepers.clone(),
            metrics.clone(),
        );
        let agent = Self {
            settings,
            began: Instant::now(),
            reads,
            pods,
            memory,
            turns,
            paths,
            releases,
            keepers,
            endpoints: Arc::default(),
            namespaces: Namespaces::new(disk),
            waits,
            unreached: Arc::new(unreached),
            metrics,
        };
        let woken = Woken {
            releases: woken,
            unstarted: may_have_not_started,
            came: have_come,
        };
        (Arc::new(agent), woken)
    }

    /// What goes on beside the calls, for ever; drop the future to stop.
    async fn background(self: Arc<Self>, clients: Clients, woken: Woken) {
        let Woken {
            releases: mut woken,
            unstarted,
            came,
        } = woken;
        let watch = self
            .pods
            .clone()
            .run(clients.read, self.settings.node.clone());
        let endpoints = Arc::clone(&self.endpoints);
        let endpoints = endpoints.run(self.reads.clone(), clients.write, self.pods.clone());
        let releases = async {
            while let Some(uid) = woken.recv().await {
                self.releases.look_again(&uid);
            }
        };
        let leaks = async {
            self.pods.synced().await;
            leaks::run(&self).await;
        };
        let untold = async {
            self.pods.synced().await;
            untold::run(&self).await;
        };
        let unstarted = unstarted::run(&self, unstarted);
        let foresight = foresight::run(&self.reads, came);
        tokio::join!(
            watch,
            endpoints,
            releases,
            leaks,
            untold,
            unstarted,
            foresight,
            self.sweep()
        );
    }

    async fn sweep(&self) {
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.pods.synced().await;
        loop {
            tick.tick().await;
            let here = self.pods.uids();
            self.releases.sweep(|uid| here.contains(uid));
            self.releases.tell();
            self.memory.prune(|uid| here.contains(uid));
            self.endpoints.prune(|uid| here.contains(uid));
            self.reads.prune(|uid| here.contains(uid));
            self.paths.prune();
            self.namespaces.prune().await;
        }
    }
}

/// An agent at work, without its socket. Dropping it ends all that it does, wherever that is.
pub struct Work {
    agent: Arc<Agent>,
    background: JoinSet<()>,
}

impl Work {
    /// Begins; must be called in a tokio runtime.
    pub fn start(
        settings: Settings,
        clients: Clients,
        disk: Arc<dyn Disk>,
        metrics: Metrics,
    ) -> Self {
        let allocator = settings.allocator_token.clone().map(|token| {
            let discovery = Discovery {
                client: clients.read.clone(),
                namespace: settings.namespace.clone(),
                token,
            };
            Box::new(discovery) as Box<dyn Connect>
        });
        Self::start_beside(settings, clients, disk, metrics, allocator)
    }

    /// Begins, with a way of the caller's to the allocator, if there is one.
    pub fn start_beside(
        settings: Settings,
        clients: Clients,
        disk: Arc<dyn Disk>,
        metrics: Metrics,
        allocator: Option<Box<dyn Connect>>,
    ) -> Self {
        let (agent, woken) = Agent::new(settings, &clients, disk, metrics, allocator);
        let mut background = JoinSet::new();
        start(
            &mut background,
            Arc::clone(&agent).background(clients, woken),
        );
        Self { agent, background }
    }

    /// What answers to the socket's calls, once the node's Pods are listed and what an earlier
    /// agent left undone is taken up.
    ///
    /// Errors: the disk cannot be read.
    pub async fn calls(&self) -> io::Result<Router> {
        self.agent.pods.synced().await;
        self.agent.releases.replay()?;
        self.agent.namespaces.replay()?;
        Ok(server::router(Arc::clone(&self.agent)))
    }

    /// Waits until a part of it ends, which none should.
    async fn ended(&mut self) {
        self.background.join_next().await;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.agent.paths.tasks().abort();
    }
}

/// What the agent tells its probes.
#[derive(Debug)]
pub struct State {
    /// Turns true once the node's Pods are listed and the socket is open.
    pub started: watch::Sender<bool>,
    /// Whether the socket answers.
    pub ready: watch::Sender<bool>,
}

/// Serves until `shutdown`; then finishes the calls in flight.
///
/// # Errors
///
/// [`AgentError`]; what else goes wrong is healed, or answered to the call it concerns.
pub async fn run(
    settings: Settings,
    clients: Clients,
    metrics: Metrics,
    state: State,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AgentError> {
    let (path, node) = (settings.socket.clone(), settings.node.clone());
    let failed = |source| AgentError::Socket {
        path: path.clone(),
        source,
    };
    let disk = Arc::new(Folder::beside(&path).map_err(failed)?);
    let mut work = Work::start(settings, clients, disk, metrics);
    let mut shutdown = std::pin::pin!(shutdown);
    let calls = tokio::select! {
        biased;
        () = &mut shutdown => return Ok(()),
        calls = work.calls() => calls.map_err(failed)?,
    };
    let listener = server::bind(&path).map_err(failed)?;
    tracing::info!(socket = %path.display(), node, "agent serves");
    let (stop, stopping) = watch::channel(false);
    let mut served = tokio::spawn(server::serve(listener, calls, stopping));
    state.started.send_replace(true);
    let outcome = tokio::select! {
        biased;
        () = &mut shutdown => Ok(()),
        () = health::watch_over(&path, &state.ready) => Err(AgentError::Lost { path: path.clone() }),
        () = work.ended() => Err(AgentError::Stopped),
        _ = &mut served => Err(AgentError::Stopped),
    };
    stop.send_replace(true);
    if !served.is_finished() && timeout(STOP_MAX, &mut served).await.is_err() {
        tracing::warn!("calls still in flight are given up");
        served.abort();
    }
    outcome
}

#[cfg(test)]
mod tests;
