//! The whole agent against a small API server: what it answers, what it writes, and what it does
//! when something goes wrong in between. Time is paused: a wait costs nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use cni::Operation;
use futures::future::join_all;
use http::{Request, StatusCode, header};
use ipam::keep::Keeps;
use ipam::kind::{Kinds, OtherKind};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use tower::ServiceExt;

use self::fake::{Fault, World};
use super::allocator::Connect;
use super::disk::Folder;
use super::{Metrics, Settings, Work};
use crate::config::EndpointMode;
use crate::kube_io::clients::Clients;

mod adds;
mod conflict;
mod early;
mod explain;
mod fake;
mod fixed;
mod http_api;
mod leaks;
mod machines;
mod paths;
mod releases;
mod several;
mod socket;
mod untold;

/// An agent on node `n1`, without the socket: its router is called directly.
struct Node {
    world: World,
    router: Router,
    alive: Arc<AtomicBool>,
    registry: Registry,
    _work: Work,
}

impl Node {
    async fn start(world: &World, dir: &Path) -> Self {
        Self::start_with(world, dir, |_| {}).await
    }

    async fn start_with(world: &World, dir: &Path, set: impl FnOnce(&mut Settings)) -> Self {
        Self::start_beside(world, dir, set, None).await
    }

    /// With a way to an allocator.
    async fn start_beside(
        world: &World,
        dir: &Path,
        set: impl FnOnce(&mut Settings),
        allocator: Option<Box<dyn Connect>>,
    ) -> Self {
        let mut settings = settings(dir);
        set(&mut settings);
        let alive = Arc::new(AtomicBool::new(true));
        let clients = Clients {
            read: world.client(&alive),
            write: world.client(&alive),
        };
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let disk = Arc::new(Folder::beside(&settings.socket).unwrap());
        let work = Work::start_beside(settings, clients, disk, metrics, allocator);
        Self {
            world: world.clone(),
            router: work.calls().await.unwrap(),
            alive,
            registry,
            _work: work,
        }
    }

    /// An agent that writes these endpoints.
    async fn writing(endpoints: EndpointMode, world: &World, dir: &Path) -> Self {
        Self::start_with(world, dir, |settings| settings.endpoints = endpoints).await
    }

    /// The process is gone: none of its calls arrives any more.
    fn kill(self) {
        self.alive.store(false, Ordering::SeqCst);
    }

    /// What a scrape finds of a series that has no labels.
    fn series(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = pairs.find(|(known, _)| *known == name).unwrap();
        value.parse().unwrap()
    }

    async fn call(&self, operation: Operation, body: &Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(operation.method().as_str())
            .uri(operation.full_path())
            .header(header::HOST, "")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let body = body.unwrap();
        let value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).unwrap()
        };
        (status, value)
    }

    async fn add(&self, pod: &str, uid: &str, sandbox: &str) -> (StatusCode, Value) {
        let args = args(pod, uid, "eth0", sandbox);
        self.call(Operation::PostIpamIp, &args).await
    }

    /// The first address given to `eth0`.
    async fn address(&self, pod: &str, uid: &str, sandbox: &str) -> String {
        let (status, reply) = self.add(pod, uid, sandbox).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        reply["ips"][0]["address"].as_str().unwrap().to_owned()
    }

    /// The text of the refusal.
    async fn refusal(&self, pod: &str, uid: &str) -> String {
        let (status, text) = self.add(pod, uid, "s1").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{text}");
        text.as_str().unwrap().to_owned()
    }

    async fn del(&self, pod: &str, uid: &str, sandbox: &str) {
        let args = args(pod, uid, "eth0", sandbox);
        let (status, body) = self.call(Operation::DeleteIpamIp, &args).await;
        assert_eq!((status, body), (StatusCode::OK, Value::Null));
    }
}

/// Whichever endpoints are written, addresses are the same.
const EACH_MODE: [EndpointMode; 3] = [
    EndpointMode::Always,
    EndpointMode::Stateful,
    EndpointMode::Never,
];

fn settings(dir: &Path) -> Settings {
    Settings {
        node: "n1".to_owned(),
        namespace: "kube-system".to_owned(),
        cluster_network: None,
        instance: "agent-1".to_owned(),
        socket: dir.join("agent.sock"),
        ipv4: true,
        ipv6: true,
        subnets: true,
        auto_pools: true,
        keeps: Keeps::ALL,
        endpoints: EndpointMode::Always,
        conflict_detection: false,
        gateway_detection: false,
        early_binding: false,
        kinds: Kinds::with(vec![OtherKind {
            group: "argoproj.io".to_owned(),
            version: "v1alpha1".to_owned(),
            kind: "Rollout".to_owned(),
            resource: "rollouts".to_owned(),
        }]),
        allocator_token: None,
        direct_writes: true,
    }
}

fn args(pod: &str, uid: &str, nic: &str, sandbox: &str) -> Value {
    json!({"containerID": sandbox, "ifName": nic, "netNamespace": "/var/run/netns/x",
        "podName": pod, "podNamespace": "shop", "podUID": uid,
        "defaultIPv4IPPool": null, "defaultIPv6IPPool": null})
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Lets everything that is due happen, and `seconds` pass.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

impl World {
    /// A cluster with Namespace `shop` and node `n1`.
    fn with_shop() -> Self {
        let world = Self::new();
        world.put("namespaces", json!({"metadata": {"name": "shop"}}));
        world.put(
            "nodes",
            json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}}),
        );
        world
    }

    /// A bare Pod on `n1` with the annotations given; its uid.
    fn pod(&self, name: &str, annotations: &Value) -> String {
        self.pod_of(name, annotations, &Value::Null)
    }

    fn pod_of(&self, name: &str, annotations: &Value, owner: &Value) -> String {
        let owners: Vec<&Value> = std::iter::once(owner).filter(|o| !o.is_null()).collect();
        let meta = json!({"name": name, "namespace": "shop", "labels": {"app": name},
            "annotations": annotations, "ownerReferences": owners});
        let spec = json!({"nodeName": "n1", "containers": []});
        self.put("pods", json!({"metadata": meta, "spec": spec}))
    }

    /// A pool of `172.18.41.0/24`, admitted.
    fn pool(&self, name: &str, ips: &str) {
        let spec = json!({"subnet": "172.18.41.0/24", "ips": [ips], "ipVersion": 4});
        self.put(
            "spiderippools",
            json!({"metadata": {"name": name}, "spec": spec}),
        );
    }

    /// The records of a pool, by address.
    fn records(&self, pool: &str) -> Value {
        let pool = self.get("spiderippools", "", pool).unwrap();
        match pool["status"]["allocatedIPs"].as_str() {
            Some(text) => serde_json::from_str(text).unwrap(),
            None => json!({}),
        }
    }

    fn puts(&self, pool: &str) -> usize {
        let path = "/apis/spiderpool.spidernet.io/v2beta1/spiderippools";
        self.calls(&format!("PUT {path}/{pool}/status")).len()
    }

    /// The Pod begins to go: it stays there, with a deletion timestamp.
    /// The kubelet says that the Pod has its network.
    fn runs(&self, pod: &str) {
        self.edit("pods", "shop", pod, |pod| {
            pod["status"]["podIPs"] = json!([{"ip": "192.0.2.1"}]);
        });
    }

    fn terminate(&self, pod: &str) {
        self.edit("pods", "shop", pod, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-22T17:41:24Z");
        });
    }
}

/// Annotation `ippool` with these IPv4 pools.
fn uses(pools: &[&str]) -> Value {
    json!({"ipam.spidernet.io/ippool": json!({"ipv4": pools}).to_string()})
}
