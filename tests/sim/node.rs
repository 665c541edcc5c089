//! A node: its disk, its runtime's way to the agent, and the agent's process.
//!
//! Owns: what outlives a crash of the agent, and the CNI calls, by the types of the contract and the
//! agent's own router. Never does: speak to the API server. The unix socket and the plugin's process
//! are left out: they have tests of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use cni::{IpamAddArgs, IpamAddResponse, IpamDelArgs, Operation, Route as Way};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, StatusCode, header};
use ipam::pool::Route;
use kubesim::actors::{Network, PodId};
use orbweaver::agent::{Connect, Disk, Metrics, Settings, Work};
use orbweaver::api::time;
use orbweaver::kube_io::clients::Clients;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::fault::Kind;
use crate::judge::{Judge, Told};

/// How long a runtime waits for the plugin.
const PLUGIN_MAX: Duration = Duration::from_secs(90);
/// The runtime gives an ADD up after this, where a fault says so.
const IMPATIENCE: Duration = Duration::from_millis(40);

/// Files, and the network namespaces that are there. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    files: BTreeMap<String, Vec<u8>>,
    namespaces: BTreeSet<PathBuf>,
}

impl MemoryDisk {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses the files.
    pub(crate) fn wipe(&self) {
        self.content().files.clear();
    }

    /// Loses the network namespaces too.
    pub(crate) fn reboot(&self) {
        *self.content() = Content::default();
    }
}

impl Disk for MemoryDisk {
    fn files(&self, ending: &str) -> io::Result<Vec<(String, io::Result<Vec<u8>>)>> {
        let files = self.content().files.clone();
        Ok(files
            .into_iter()
            .filter(|(name, _)| name.ends_with(ending))
            .map(|(name, file)| (name, Ok(file)))
            .collect())
    }

    fn write(&self, name: String, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        let write = async move {
            sleep(Duration::from_millis(1)).await;
            self.content().files.insert(name, content);
            sleep(Duration::from_millis(1)).await;
            Ok(())
        };
        write.boxed()
    }

    fn note(&self, name: String, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        self.write(name, content)
    }

    fn remove(&self, name: String) -> BoxFuture<'_, io::Result<()>> {
        let remove = async move {
            sleep(Duration::from_millis(1)).await;
            self.content().files.remove(&name);
            Ok(())
        };
        remove.boxed()
    }

    fn present(&self, mut paths: BTreeSet<PathBuf>) -> BoxFuture<'_, BTreeSet<PathBuf>> {
        let present = async move {
            paths.retain(|path| self.content().namespaces.contains(path));
            paths
        };
        present.boxed()
    }
}

type Call = (Request<Body>, oneshot::Sender<(StatusCode, Vec<u8>)>);

/// Where a process listens, if it does.
#[derive(Clone, Default)]
pub(crate) struct Socket(Arc<Mutex<Option<mpsc::UnboundedSender<Call>>>>);

impl Socket {
    fn open(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Call>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its answer. Errors: nobody listens, or it died meanwhile.
    pub(crate) async fn call(
        &self,
        request: Request<Body>,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let (tell, told) = oneshot::channel();
        let there = self
            .open()
            .as_ref()
            .is_some_and(|s| s.send((request, tell)).is_ok());
        if !there {
            return Err("connection refused".to_owned());
        }
        told.await.map_err(|_| "EOF".to_owned())
    }
}

/// An agent's process: drop the future and nothing of it goes on.
pub(crate) async fn agent(
    settings: Settings,
    clients: Clients,
    disk: MemoryDisk,
    socket: Socket,
    allocator: Option<Box<dyn Connect>>,
) {
    let metrics = Metrics::register(&mut Registry::default());
    let work = Work::start_beside(settings, clients, Arc::new(disk), metrics, allocator);
    match work.calls().await {
        Ok(calls) => answer(calls, socket).await,
        Err(never) => unreachable!("a disk in memory can be read: {never}"),
    }
}

/// Answers what is asked at `socket`: drop the future and nothing of it goes on.
pub(crate) async fn answer(calls: Router, socket: Socket) {
    let (tell, mut told) = mpsc::unbounded_channel::<Call>();
    *socket.open() = Some(tell);
    let mut running = JoinSet::new();
    while let Some((request, mut reply)) = told.recv().await {
        while running.try_join_next().is_some() {}
        let calls = calls.clone();
        running.spawn(time::on_same_machine(async move {
            // A call whose connection closes is dropped, as the HTTP server does.
            let response = tokio::select! {
                biased;
                () = reply.closed() => return,
                Ok(response) = calls.oneshot(request) => response,
            };
            let code = response.status();
            let body = to_bytes(response.into_body(), 1 << 20).await;
            let _ = reply.send((code, body.unwrap_or_default().to_vec()));
        }));
    }
}

/// The plugin, seen from the runtime of one node.
pub(crate) struct Plugin {
    pub(crate) node: String,
    pub(crate) socket: Socket,
    pub(crate) disk: MemoryDisk,
    pub(crate) judge: Judge,
    /// Faults that meet the next call they fit.
    pub(crate) armed: Mutex<Vec<(Kind, Duration)>>,
}

impl Plugin {
    /// Has a fault meet the next call that it fits.
    pub(crate) fn arm(&self, kind: Kind, lasting: Duration) {
        self.armed().push((kind, lasting));
    }

    pub(crate) fn heal(&self) {
        self.armed().clear();
    }

    fn armed(&self) -> MutexGuard<'_, Vec<(Kind, Duration)>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strikes(&self, kinds: &[Kind]) -> Option<(Kind, Duration)> {
        let mut armed = self.armed();
        let at = armed.iter().position(|(kind, _)| kinds.contains(kind))?;
        let struck = armed.remove(at);
        self.judge.happened(struck.0);
        Some(struck)
    }

    async fn call(&self, of: Operation, body: &impl Serialize) -> Result<Vec<u8>, String> {
        let body = serde_json::to_string(body).map_err(|error| error.to_string())?;
        let request = Request::builder()
            .method(of.method().as_str())
            .uri(of.full_path())
            .header(header::HOST, "")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(|error| error.to_string())?;
        let answer = timeout(PLUGIN_MAX, self.socket.call(request)).await;
        let answer = answer.map_err(|_| {
            let what = format!("the agent of {} lives, and does not answer", self.node);
            self.judge.violation("L2", &what);
            "the agent gave no answer".to_owned()
        });
        let (code, body) = answer??;
        if code.is_success() {
            return Ok(body);
        }
        Err(format!("{code}: {}", String::from_utf8_lossy(&body)))
    }

    async fn added(&self, pod: &PodId, sandbox: &str) -> Result<Vec<IpAddr>, String> {
        let args = IpamAddArgs {
            container_id: sandbox.to_owned(),
            if_name: "eth0".to_owned(),
            net_namespace: namespace(sandbox).display().to_string(),
            pod_name: pod.name.clone(),
            pod_namespace: pod.namespace.clone(),
            pod_uid: pod.uid.clone(),
            ..IpamAddArgs::default()
        };
        self.disk.content().namespaces.insert(namespace(sandbox));
        let call = self.call(Operation::PostIpamIp, &args);
        let body = match self.strikes(&[Kind::AddReplyLost, Kind::AddGivenUp]) {
            Some((Kind::AddGivenUp, _)) => {
                let given_up = timeout(IMPATIENCE, call).await;
                given_up.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
            }
            Some(_) => call.await.and(Err("connection reset".to_owned())),
            None => call.await,
        };
        let body = body.inspect_err(|why| self.judge.refused(&self.node, &pod.uid, why))?;
        let told = told(&body)?;
        self.judge.given(&self.node, &pod.uid, sandbox, &told);
        Ok(told.into_iter().map(|told| told.address).collect())
    }

    async fn deleted(&self, pod: &PodId, sandbox: &str) -> Result<(), String> {
        self.judge.going(sandbox);
        let path = namespace(sandbox);
        let is_there = self.disk.content().namespaces.contains(&path);
        let args = IpamDelArgs {
            container_id: sandbox.to_owned(),
            if_name: "eth0".to_owned(),
            net_namespace: is_there.then(|| path.display().to_string()),
            pod_name: pod.name.clone(),
            pod_namespace: pod.namespace.clone(),
            pod_uid: pod.uid.clone(),
        };
        let done = self.call(Operation::DeleteIpamIp, &args).await;
        let struck = self.strikes(&[Kind::DelReplyLost, Kind::DelLate, Kind::LinkStays]);
        if let Some((Kind::DelReplyLost, _)) = struck {
            return Err("connection reset".to_owned());
        }
        done?;
        if let Some((Kind::LinkStays, lasting)) = struck {
            sleep(lasting).await;
        }
        self.disk.content().namespaces.remove(&path);
        self.judge.gone(sandbox);
        if let Some((Kind::DelLate, late)) = struck {
            sleep(late).await;
            // Nobody waits for this one.
            let _ = self.call(Operation::DeleteIpamIp, &args).await;
        }
        Ok(())
    }
}

impl Network for Plugin {
    fn add<'a>(
        &'a self,
        pod: &'a PodId,
        sandbox: &'a str,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        self.added(pod, sandbox).boxed()
    }

    fn del<'a>(&'a self, pod: &'a PodId, sandbox: &'a str) -> BoxFuture<'a, Result<(), String>> {
        self.deleted(pod, sandbox).boxed()
    }
}

fn namespace(sandbox: &str) -> PathBuf {
    PathBuf::from("/var/run/netns").join(sandbox)
}

fn told(body: &[u8]) -> Result<Vec<Told>, String> {
    let response: IpamAddResponse = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let routes = response.routes.unwrap_or_default().into_iter();
    let routes: Vec<Route> = routes
        .map(|Way { dst, gw, .. }| Route { dst, gw })
        .collect();
    let ips = response.ips.unwrap_or_default().into_iter().map(|ip| {
        let (address, prefix) = ip.address.split_once('/').ok_or("no prefix")?;
        Ok(Told {
            address: address.parse().map_err(|_| "no address")?,
            prefix: prefix.parse().map_err(|_| "no prefix length")?,
            gateway: ip.gateway.and_then(|gateway| gateway.parse().ok()),
            routes: routes.clone(),
            pool: ip.ip_pool.unwrap_or_default(),
        })
    });
    ips.collect::<Result<_, &str>>().map_err(ToOwned::to_owned)
}
