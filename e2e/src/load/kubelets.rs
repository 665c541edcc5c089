//! Kubelets as far as the agents can tell: calls for the Pods of each node, so many at once.
//!
//! The calls are the CNI plugin's own, made by its library, without starting a process for each. A
//! call that fails is repeated after a pause, as a kubelet does (it waits longer), by the same
//! worker; so the Pod keeps its place among those in flight.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cni::client::{Client, ClientError};
use cni::socket::SocketTransport;
use cni::{IpamAddArgs, IpamDelArgs};

use super::bindings::Pod;
use super::shape::PoolOf;
use super::stage::NAMESPACE;
use super::{IN_FLIGHT, PODS};
use crate::digest::sha256;
use crate::wait::ensure_going_on;

/// How long one call may take: as the plugin has it.
const CALL: Duration = Duration::from_secs(100);
/// Pause before a failed call is repeated.
const PAUSE: Duration = Duration::from_millis(200);
/// When a Pod's calls are given up.
const GIVE_UP: Duration = Duration::from_secs(300);
/// The interface of every Pod.
const NIC: &str = "eth0";

/// What is asked of the agents.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// Addresses, from the pools that the Pods' annotations name.
    Add,
    /// Addresses, from the pool that the request names.
    AddFrom(&'a PoolOf),
    /// To give them back.
    Del,
}

/// One Pod's calls, down to the one that succeeded.
#[derive(Clone, Debug)]
pub struct Served {
    /// The Pod.
    pub pod: Pod,
    /// When the first call began.
    pub began: Instant,
    /// When the last was answered.
    pub ended: Instant,
    /// Why the calls before it failed.
    pub failures: Vec<String>,
    /// Addresses with prefix lengths; none where they were given back.
    pub addresses: Vec<String>,
}

/// Serves every Pod that comes; returns once all have their answer.
///
/// `sockets` are the agents', by node. Errors: `pods` failed, or a Pod's calls were given up.
pub fn serve(
    ask: Ask<'_>,
    sockets: &[PathBuf],
    pods: impl IntoIterator<Item = Result<Pod>>,
) -> Result<Vec<Served>> {
    serve_noting(ask, sockets, pods, |_| Ok(()))
}

/// [`serve`], which has `note` look on as each is answered: how many were before it.
///
/// Errors: those of [`serve`], and of `note`.
pub fn serve_noting(
    ask: Ask<'_>,
    sockets: &[PathBuf],
    pods: impl IntoIterator<Item = Result<Pod>>,
    mut note: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Served>> {
    let (done, all) = mpsc::channel();
    let in_flight = in_flight(sockets.len());
    thread::scope(|scope| {
        let mut queues = Vec::new();
        for socket in sockets {
            let (queue, pods) = mpsc::channel::<Pod>();
            queues.push(queue);
            let pods = std::sync::Arc::new(Mutex::new(pods));
            for _ in 0..in_flight {
                let (pods, done) = (std::sync::Arc::clone(&pods), done.clone());
                scope.spawn(move || work(ask, socket, &pods, &done));
            }
        }
        drop(done);
        for pod in pods {
            let pod = pod?;
            let queue = queues
                .get(pod.node)
                .context("a Pod on a node without agent")?;
            queue.send(pod).context("nobody serves the node any more")?;
        }
        drop(queues);
        let noted = all.iter().enumerate().map(|(before, served)| {
            note(before)?;
            served
        });
        noted.collect()
    })
}

/// Calls in flight at each of so many agents: with many of them fewer, as each has fewer Pods.
pub fn in_flight(agents: usize) -> usize {
    IN_FLIGHT.min(PODS.div_ceil(agents.max(1)))
}

/// One of a node's workers.
fn work(ask: Ask<'_>, socket: &Path, pods: &Mutex<Receiver<Pod>>, done: &Sender<Result<Served>>) {
    let next = || pods.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(pod) = next() {
        let served = until_answered(ask, socket, pod);
        if served.is_err() | done.send(served).is_err() {
            return;
        }
    }
}

fn until_answered(ask: Ask<'_>, socket: &Path, pod: Pod) -> Result<Served> {
    let began = Instant::now();
    let mut failures = Vec::new();
    loop {
        ensure_going_on()?;
        match call(ask, socket, &pod) {
            Ok(addresses) => {
                let ended = Instant::now();
                return Ok(Served {
                    pod,
                    began,
                    ended,
                    failures,
                    addresses,
                });
            }
            Err(error) if began.elapsed() > GIVE_UP => {
                let tried = failures.len() + 1;
                return Err(error).with_context(|| format!("Pod {}: {tried} calls", pod.name));
            }
            Err(error) => failures.push(format!("{:#}", anyhow::Error::new(error))),
        }
        thread::sleep(PAUSE);
    }
}

fn call(ask: Ask<'_>, socket: &Path, pod: &Pod) -> Result<Vec<String>, ClientError> {
    let client = Client::new(&SocketTransport, socket);
    let pool = match ask {
        Ask::Del => return client.release(&del(pod), CALL).map(|()| Vec::new()),
        Ask::Add => None,
        Ask::AddFrom(pools) => pools.get(&pod.app).map(|pool| vec![pool.clone()]),
    };
    let given = client.allocate(&add(pod, pool), CALL)?;
    Ok(given
        .ips
        .into_iter()
        .flatten()
        .map(|ip| ip.address)
        .collect())
}

fn add(pod: &Pod, pool: Option<Vec<String>>) -> IpamAddArgs {
    IpamAddArgs {
        container_id: sandbox(pod),
        default_ipv4_ip_pool: pool,
        if_name: NIC.to_owned(),
        net_namespace: net_namespace(pod),
        pod_name: pod.name.clone(),
        pod_namespace: NAMESPACE.to_owned(),
        pod_uid: pod.uid.clone(),
        ..IpamAddArgs::default()
    }
}

fn del(pod: &Pod) -> IpamDelArgs {
    IpamDelArgs {
        container_id: sandbox(pod),
        if_name: NIC.to_owned(),
        net_namespace: Some(net_namespace(pod)),
        pod_name: pod.name.clone(),
        pod_namespace: NAMESPACE.to_owned(),
        pod_uid: pod.uid.clone(),
    }
}

/// As a runtime names sandboxes: 64 hexadecimal digits.
fn sandbox(pod: &Pod) -> String {
    sha256([pod.uid.as_bytes()])
}

fn net_namespace(pod: &Pod) -> String {
    format!("/var/run/netns/cni-{}", pod.uid)
}
