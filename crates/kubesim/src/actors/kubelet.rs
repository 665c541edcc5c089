//! A node: its kubelet, and what a container runtime keeps.
//!
//! Owns: the node's object and its lease, and the life of each Pod bound to it, from the sandbox to
//! the last delete; the texts are those of a real kubelet over containerd. Never does: configure an
//! interface; [`Network`] is asked for addresses, as the runtime asks a CNI plugin.
//! Invariants: a Pod has one live sandbox at most; a sandbox that was begun is torn down at least
//! once, and often twice; what the runtime knows outlives the kubelet ([`Machine`]).
//!
//! Where to read next: `kubelet/worker.rs` for a Pod's life, `kubelet/status.rs` for what it tells.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use kube_runtime::watcher::{self, Event};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::events::Events;
use super::runner::stream;
use crate::TokioClock;

mod registration;
mod status;
mod worker;

pub(crate) use self::registration::LEASES;

/// Pause after a list or watch that failed.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// Which Pod, and which of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

impl PodId {
    fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What gives a sandbox its addresses: a CNI plugin, seen from the runtime.
///
/// A call may be dropped at any time, as a runtime kills a plugin; it is followed by [`Network::del`].
pub trait Network: Send + Sync {
    /// ADD. Errors: what the runtime says after `failed to setup network for sandbox "…": `.
    fn add<'a>(
        &'a self,
        pod: &'a PodId,
        sandbox: &'a str,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;

    /// DEL; may come more than once, and for a sandbox that never was added. Errors: what the
    /// runtime says after `failed to destroy network for sandbox "…": `.
    fn del<'a>(&'a self, pod: &'a PodId, sandbox: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// How long things take.
#[derive(Debug, Clone)]
pub struct Timings {
    /// From the sandbox to a container that is ready.
    pub start: Duration,
    /// From the signal to a container's end, unless its grace period is shorter.
    pub stop: Duration,
    /// Least pause after a sandbox that failed; up to half as long again is added.
    pub retry: Duration,
    /// A sandbox of a Pod that is gone is torn down a last time within this.
    pub collect: Duration,
    /// First pause before a container that ended is started again; doubles up to five minutes.
    pub restart: Duration,
}

impl Default for Timings {
    /// A real kubelet's, with containers that start and stop quickly.
    fn default() -> Self {
        Self {
            start: Duration::from_millis(200),
            stop: Duration::from_millis(100),
            retry: Duration::from_secs(10),
            collect: Duration::from_secs(60),
            restart: Duration::from_secs(10),
        }
    }
}

/// Which node this is.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Its name.
    pub name: String,
    /// Its addresses, the first one first.
    pub addresses: Vec<IpAddr>,
    /// Labels beside those that every node has.
    pub labels: BTreeMap<String, String>,
    /// How long things take on it.
    pub timings: Timings,
}

/// What the runtime of a node keeps while its kubelet is away. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    sandboxes: Arc<Mutex<BTreeMap<String, Sandbox>>>,
}

/// A sandbox of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Whose it is.
    pub pod: PodId,
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its addresses; empty until ADD came back.
    pub addresses: Vec<IpAddr>,
}

impl Machine {
    /// Every sandbox there is, by the uid of its Pod.
    pub fn sandboxes(&self) -> BTreeMap<String, Sandbox> {
        self.lock().clone()
    }

    fn get(&self, uid: &str) -> Option<Sandbox> {
        self.lock().get(uid).cloned()
    }

    fn keep(&self, sandbox: Sandbox) {
        self.lock().insert(sandbox.pod.uid.clone(), sandbox);
    }

    fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Sandbox>> {
        self.sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kubelet to be run.
#[derive(Clone)]
pub struct Kubelet {
    client: Client,
    clock: TokioClock,
    node: Arc<NodeSettings>,
    machine: Machine,
    network: Arc<dyn Network>,
    events: Arc<Events>,
    rng: Arc<Mutex<ChaCha8Rng>>,
}

/// What a worker is told of its Pod.
type Told = watch::Receiver<Option<Arc<Pod>>>;

impl Kubelet {
    /// A kubelet of `node` on `machine`. The same `seed` gives the same choices.
    pub fn new(
        client: Client,
        clock: TokioClock,
        node: NodeSettings,
        machine: Machine,
        network: Arc<dyn Network>,
        seed: u64,
    ) -> Self {
        let host = Some(node.name.clone());
        let events = Events::new(
            client.clone(),
            "kubelet",
            host,
            stream(seed ^ 1, &node.name),
        );
        let rng = Arc::new(Mutex::new(stream(seed, &node.name)));
        Self {
            client,
            clock,
            node: Arc::new(node),
            machine,
            network,
            events: Arc::new(events),
            rng,
        }
    }

    /// Runs for ever. Drop the future to crash the kubelet; its [`Machine`] stays.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().register());
        let mut workers: BTreeMap<String, watch::Sender<Option<Arc<Pod>>>> = BTreeMap::new();
        let pods: Api<Pod> = Api::all(self.client.clone());
        let config =
            watcher::Config::default().fields(&format!("spec.nodeName={}", self.node.name));
        let mut events = pin!(watcher::watcher(pods, config));
        let mut listed: Option<BTreeMap<String, Arc<Pod>>> = None;
        loop {
            let event = tokio::select! {
                biased;
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                event = events.next() => event,
            };
            workers.retain(|_, told| !told.is_closed());
            match event {
                Some(Ok(Event::Init)) => listed = Some(BTreeMap::new()),
                Some(Ok(Event::InitApply(pod))) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(PodId::of(&pod).uid, Arc::new(pod));
                    }
                }
                Some(Ok(Event::InitDone)) => {
                    let listed = listed.take().unwrap_or_default();
                    self.adopt(&listed, &mut workers, &mut tasks);
                    for pod in listed.into_values() {
                        self.tell(pod, &mut workers, &mut tasks);
                    }
                }
                Some(Ok(Event::Apply(pod))) => self.tell(Arc::new(pod), &mut workers, &mut tasks),
                Some(Ok(Event::Delete(pod))) => {
                    if let Some(told) = workers.get(&PodId::of(&pod).uid) {
                        told.send_replace(None);
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(node = self.node.name, %error, "watch failed; trying again");
                    tokio::time::sleep(WATCH_PAUSE).await;
                }
                None => return,
            }
        }
    }

    fn tell(
        &self,
        pod: Arc<Pod>,
        workers: &mut BTreeMap<String, watch::Sender<Option<Arc<Pod>>>>,
        tasks: &mut JoinSet<()>,
    ) {
        let id = PodId::of(&pod);
        if let Some(told) = workers.get(&id.uid) {
            told.send_replace(Some(pod));
            return;
        }
        let (tell, told) = watch::channel(Some(pod));
        workers.insert(id.uid.clone(), tell);
        tasks.spawn(self.clone().work(id, told));
    }

    /// After a list: who isn't on it is gone, be it known from before or only to the runtime.
    fn adopt(
        &self,
        listed: &BTreeMap<String, Arc<Pod>>,
        workers: &mut BTreeMap<String, watch::Sender<Option<Arc<Pod>>>>,
        tasks: &mut JoinSet<()>,
    ) {
        for (uid, told) in workers.iter() {
            if !listed.contains_key(uid) {
                told.send_replace(None);
            }
        }
        for (uid, sandbox) in self.machine.sandboxes() {
            if !listed.contains_key(&uid) && !workers.contains_key(&uid) {
                let (tell, told) = watch::channel(None);
                workers.insert(uid, tell);
                tasks.spawn(self.clone().work(sandbox.pod, told));
            }
        }
    }

    /// A number below `limit`, 0 if that is 0.
    fn chance(&self, limit: Duration) -> Duration {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(rng.random_range(0..=millis))
    }

    fn sandbox_id(&self) -> String {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let words: [u64; 4] = rng.random();
        words.map(|word| format!("{word:016x}")).concat()
    }
}
