//! The controller on an API server in memory, for tests of what it does in the end.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use kubesim::Server;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::index::{Features, Switch};
use super::{Endpoint, Metrics, Options, Signals, gc};
use crate::api::{self, SpiderIPPool};
use crate::kube_io::clients::Clients;
use crate::kube_io::lease::Leadership;
use ipam::annotation::SizeRule;
use ipam::keep::Keeps;
use ipam::kind::Kinds;
use ipam::record::Records;

/// In a test's own time: it passes as soon as nobody has anything to do.
const WAIT_MAX: Duration = Duration::from_mins(30);

/// A server, and what runs on it.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) client: Client,
    running: JoinSet<()>,
}

/// Every feature on, looks every minute.
pub(super) fn options() -> Options {
    Options {
        features: Features {
            ipv4: true,
            ipv6: true,
            subnets: Switch::On,
            auto_pools: Switch::On,
        },
        default_rule: SizeRule::Flexible(0),
        keeps: Keeps::ALL,
        gc: gc::Options {
            interval: Duration::from_mins(1),
            ..gc::Options::default()
        },
        kinds: Kinds::default(),
        early_binding: Switch::Off,
        pod_name: None,
    }
}

pub(super) fn clients(client: &Client) -> Clients {
    Clients {
        read: client.clone(),
        write: client.clone(),
    }
}

/// A client of the controller that gets 403 for what is `forbidden`.
pub(super) fn forbidding(
    server: &Server,
    forbidden: impl Fn(&Request<kube::client::Body>) -> bool + Send + Sync + 'static,
) -> Client {
    let (service, forbidden) = (server.service("controller"), Arc::new(forbidden));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (service, forbidden) = (service.clone(), Arc::clone(&forbidden));
        async move {
            if !forbidden(&request) {
                let answer = service.oneshot(request).await;
                return answer.map(|response| response.map(Body::new));
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": format!("{} is forbidden", request.uri().path()),
            });
            let mut response = Response::new(Body::from(status.to_string()));
            *response.status_mut() = StatusCode::FORBIDDEN;
            Ok(response)
        }
    });
    Client::new(service, "default")
}

impl Stage {
    /// A server with our kinds, and nobody on it.
    pub(super) async fn new() -> Self {
        let server = Server::new(7);
        let client = server.client("test");
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in api::crd::definitions().unwrap() {
            api.create(&PostParams::default(), &definition)
                .await
                .unwrap();
        }
        let stage = Self {
            server,
            client,
            running: JoinSet::new(),
        };
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        stage.put(namespace).await;
        stage
    }

    /// Has the controller, as the leader, see and do what there is to do.
    pub(super) async fn start(&mut self, options: Options) {
        self.start_as(Leadership::Leader, options, None).await;
    }

    /// The same with a client of its own.
    pub(super) async fn start_with(&mut self, client: &Client, options: Options) {
        self.run(clients(client), Leadership::Leader, options, None)
            .await;
    }

    /// Has one more replica see that, and do it while it is told that it leads; with an allocator,
    /// maybe.
    pub(super) async fn start_as(
        &mut self,
        what: Leadership,
        options: Options,
        allocator: Option<Endpoint>,
    ) -> watch::Sender<Leadership> {
        let clients = clients(&self.server.client("controller"));
        self.run(clients, what, options, allocator).await
    }

    async fn run(
        &mut self,
        clients: Clients,
        what: Leadership,
        options: Options,
        allocator: Option<Endpoint>,
    ) -> watch::Sender<Leadership> {
        let metrics = Metrics::register(&mut Registry::default(), false);
        let (ready, mut is_ready) = watch::channel(false);
        let leads = watch::Sender::new(what);
        let (leadership, kept) = (leads.subscribe(), leads.clone());
        self.running.spawn(async move {
            let _kept = kept;
            let (_stop, stopped) = watch::channel(false);
            let signals = Signals {
                leadership,
                ready,
                stop: stopped,
            };
            super::run(options, clients, metrics, signals, allocator).await;
        });
        is_ready.wait_for(|ready| *ready).await.unwrap();
        leads
    }

    /// Creates an object with its status, or replaces what it had there.
    pub(super) async fn put(&self, object: Value) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let types = object.types.clone().unwrap();
        let (group, version) = types
            .api_version
            .split_once('/')
            .unwrap_or(("", &types.api_version));
        let kind = kube::core::GroupVersionKind::gvk(group, version, &types.kind);
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let name = object.metadata.name.clone().unwrap();
        if api.get_opt(&name).await.unwrap().is_none() {
            api.create(&PostParams::default(), &object).await.unwrap();
        }
        let patch = Patch::Merge(object.clone());
        let params = PatchParams::default();
        api.patch(&name, &params, &patch).await.unwrap();
        if object.data.get("status").is_some() && types.kind != "SpiderEndpoint" {
            api.patch_status(&name, &params, &patch).await.unwrap();
        }
        api.get(&name).await.unwrap()
    }

    /// A pool of 10.6.0.0/24 made by hand with these records.
    pub(super) async fn pool(&self, name: &str, ips: &str, records: &Value) {
        self.put(json!({
            "apiVersion": api::names::API_VERSION, "kind": "SpiderIPPool",
            "metadata": {"name": name},
            "spec": {"subnet": "10.6.0.0/24", "ips": [ips]},
            "status": {"allocatedIPs": records.to_string()},
        }))
        .await;
    }

    /// Pod `shop/<name>` on node n1; returns its uid.
    pub(super) async fn pod(&self, name: &str) -> String {
        let container = json!({"name": "main", "image": "main"});
        let pod = self
            .put(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"nodeName": "n1", "containers": [container]},
                "status": {"phase": "Running"},
            }))
            .await;
        pod.metadata.uid.unwrap()
    }

    /// StatefulSet `shop/<name>`; returns its uid.
    pub(super) async fn stateful_set(&self, name: &str, replicas: u32) -> String {
        let labels = json!({"app": name});
        let container = json!({"name": "main", "image": "main"});
        let set = self
            .put(json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet",
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {
                    "replicas": replicas, "serviceName": name,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            }))
            .await;
        set.metadata.uid.unwrap()
    }

    /// Virtual machine `shop/<name>`, and the kinds of such; returns its uid.
    pub(super) async fn machine(&self, name: &str) -> String {
        for kind in ["VirtualMachine", "VirtualMachineInstance"] {
            let (singular, open) = (kind.to_lowercase(), "x-kubernetes-preserve-unknown-fields");
            let plural = format!("{singular}s");
            let schema = json!({"openAPIV3Schema": {"type": "object", open: true}});
            let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
            self.put(json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.kubevirt.io")},
                "spec": {
                    "group": "kubevirt.io", "scope": "Namespaced", "versions": [version],
                    "names": {"kind": kind, "plural": plural, "singular": singular},
                },
            }))
            .await;
        }
        let machine = self
            .put(json!({
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
                "metadata": {"name": name, "namespace": "shop"},
            }))
            .await;
        machine.metadata.uid.unwrap()
    }

    /// SpiderEndpoint `shop/<name>` of a Pod with this uid and node, which had a workload of this kind
    /// and name.
    pub(super) async fn endpoint(
        &self,
        name: &str,
        [uid, node]: [&str; 2],
        [kind, workload]: [&str; 2],
        finalizers: &[&str],
    ) {
        self.put(json!({
            "apiVersion": api::names::API_VERSION, "kind": "SpiderEndpoint",
            "metadata": {"name": name, "namespace": "shop", "finalizers": finalizers},
            "status": {
                "current": {"uid": uid, "node": node, "ips": []},
                "ownerControllerType": kind, "ownerControllerName": workload,
            },
        }))
        .await;
    }

    pub(super) async fn get<K>(&self, api: Api<K>, name: &str) -> Option<K>
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Serialize,
    {
        api.get_opt(name).await.unwrap()
    }

    /// The last bytes of the addresses recorded in a pool; kept ones are negative.
    pub(super) async fn recorded(&self, pool: &str) -> Vec<i16> {
        let found = self.get::<SpiderIPPool>(Api::all(self.client.clone()), pool);
        let status = found.await.unwrap().status.unwrap_or_default();
        let records = Records::parse(status.allocated_ips.as_deref()).unwrap();
        let each = records.iter().map(|(address, record)| {
            let text = address.to_string();
            let last: i16 = text.rsplit('.').next().unwrap().parse().unwrap();
            if record.kept { -last } else { last }
        });
        each.collect()
    }

    /// Waits until just these are recorded.
    pub(super) async fn comes_to(&self, pool: &str, expected: &[i16]) {
        let until = async {
            while self.recorded(pool).await != expected {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        if tokio::time::timeout(WAIT_MAX, until).await.is_err() {
            assert_eq!(self.recorded(pool).await, expected, "in pool {pool}");
        }
    }

    /// What the Events with this reason say.
    pub(super) async fn events(&self, reason: &str) -> Vec<String> {
        let api: Api<Event> = Api::all(self.client.clone());
        let all = api.list(&ListParams::default()).await.unwrap();
        let of = all
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some(reason));
        of.filter_map(|event| event.note).collect()
    }

    /// What is recorded after as long as any look could take.
    pub(super) async fn stays(&self, pool: &str) -> Vec<i16> {
        tokio::time::sleep(WAIT_MAX).await;
        self.recorded(pool).await
    }
}
