//! The whole controller on an API server in memory, with kinds that come, go and are forbidden.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::annotation::SizeRule;
use ipam::kind::{Kinds, OtherKind};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kubesim::Server;
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::api::{SpiderIPPool, SpiderSubnet, crd};
use crate::controller::{Metrics, Options, Signals, testing};
use crate::kube_io::lease::Leadership;

/// Of paused time, in which nothing shrinks: that waits by the wall clock.
const SOON: Duration = Duration::from_secs(120);
const SUBNET: &str = "ipam.spidernet.io/subnet";

fn kind(group: &str, version: &str, kind: &str, resource: &str) -> OtherKind {
    OtherKind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        resource: resource.to_owned(),
    }
}

fn rollout() -> OtherKind {
    kind("argoproj.io", "v1alpha1", "Rollout", "rollouts")
}

fn clone_set() -> OtherKind {
    kind("apps.kruise.io", "v1alpha1", "CloneSet", "clonesets")
}

/// A definition of the kind's real shape, as far as it is about Pods.
fn definition(kind: &OtherKind, selector_path: &str) -> CustomResourceDefinition {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    read(json!({
        "metadata": {"name": kind.definition()},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {"kind": kind.kind, "plural": kind.resource, "singular": kind.kind.to_lowercase()},
            "versions": [{
                "name": kind.version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": open, "status": open}}},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": selector_path,
                }},
            }],
        },
    }))
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn spec(app: &str, replicas: u32) -> Value {
    let labels = json!({"app": app});
    json!({
        "replicas": replicas,
        "size": 6,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels, "annotations": {SUBNET: r#"{"ipv4":["net4"]}"#}},
            "spec": {"containers": [{"name": "main", "image": "i"}]},
        },
    })
}

struct Cluster {
    server: Server,
    client: Client,
    /// Parts of paths that the controller may not use.
    forbidden: Arc<Mutex<BTreeSet<String>>>,
}

impl Cluster {
    async fn new() -> Self {
        let server = Server::new(7);
        let cluster = Self {
            client: server.client("test"),
            server,
            forbidden: Arc::default(),
        };
        for definition in crd::definitions().unwrap() {
            cluster
                .create(&Api::all(cluster.client.clone()), definition)
                .await;
        }
        let subnet: SpiderSubnet = read(json!({
            "metadata": {"name": "net4"},
            "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.39"]},
        }));
        cluster
            .create(&Api::all(cluster.client.clone()), subnet)
            .await;
        cluster
    }

    async fn create<K>(&self, api: &Api<K>, object: K)
    where
        K: Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
    {
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    async fn define(&self, definition: CustomResourceDefinition) {
        self.create(&Api::all(self.client.clone()), definition)
            .await;
    }

    fn api(&self, kind: &OtherKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), "default", &other::resource(kind))
    }

    /// Makes an object, once its kind is served.
    async fn workload(&self, kind: &OtherKind, name: &str, replicas: u32) {
        let object: DynamicObject = read(json!({
            "apiVersion": kind.api_version(), "kind": kind.kind,
            "metadata": {"name": name}, "spec": spec(name, replicas),
        }));
        self.create(&self.api(kind), object).await;
    }

    async fn deployment(&self, name: &str, replicas: u32) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), "default");
        let object = read(json!({"metadata": {"name": name}, "spec": spec(name, replicas)}));
        self.create(&api, object).await;
    }

    fn forbid(&self, part: &str) {
        self.forbidden.lock().unwrap().insert(part.to_owned());
    }

    fn permit_all(&self) {
        self.forbidden.lock().unwrap().clear();
    }

    /// A client that gets 403 for what is forbidden.
    fn of_controller(&self) -> Client {
        let forbidden = self.forbidden.clone();
        testing::forbidding(&self.server, move |request| {
            let forbidden = forbidden.lock().unwrap();
            forbidden
                .iter()
                .any(|part| request.uri().path().contains(part))
        })
    }

    /// A controller that acts, until it is dropped.
    fn start(&self, kinds: Vec<OtherKind>) -> JoinSet<()> {
        self.start_and_lead(kinds, Duration::ZERO)
    }

    /// A controller that acts after a while, until it is dropped.
    fn start_and_lead(&self, kinds: Vec<OtherKind>, after: Duration) -> JoinSet<()> {
        let client = self.of_controller();
        let options = Options {
            default_rule: SizeRule::Flexible(1),
            kinds: Kinds::with(kinds),
            ..testing::options()
        };
        let clients = testing::clients(&client);
        let metrics = Metrics::register(&mut Registry::default(), false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (leads, leadership) = watch::channel(Leadership::Follower);
            let (_stop, stopped) = watch::channel(false);
            let ready = watch::Sender::new(false);
            let signals = Signals {
                leadership,
                ready,
                stop: stopped,
            };
            let led = async {
                sleep(after).await;
                leads.send_replace(Leadership::Leader);
                std::future::pending::<()>().await;
            };
            let run = crate::controller::run(options, clients, metrics, signals, None);
            tokio::join!(led, run);
        });
        tasks
    }

    /// Waits until the workload's pool has so many addresses; `None`: until it has no pool.
    async fn pool_has(&self, kind: &str, name: &str, addresses: Option<usize>) {
        let mut seen = None;
        let waited = timeout(SOON, async {
            loop {
                seen = self.pool(kind, name);
                if seen == addresses {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        let waited = waited.await;
        assert!(waited.is_ok(), "{kind} {name}: {seen:?}, not {addresses:?}");
    }

    fn pool(&self, kind: &str, name: &str) -> Option<usize> {
        let pools = self.server.objects("spiderippools.spiderpool.spidernet.io");
        let mut own = pools
            .iter()
            .map(|pool| read::<SpiderIPPool>((**pool).clone()))
            .filter(|pool| {
                let label = |key: &str| pool.labels().get(key).map(String::as_str);
                label("ipam.spidernet.io/owner-application-kind") == Some(kind)
                    && label("ipam.spidernet.io/owner-application-name") == Some(name)
            });
        let pool = own.next()?;
        let pool = crate::api::convert::pool(&pool).unwrap();
        Some(usize::try_from(pool.total().count().get()).unwrap())
    }

    async fn scale(&self, kind: &OtherKind, name: &str, replicas: u32) {
        let patch = json!({"spec": {"replicas": replicas}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.api(kind)
            .patch_scale(name, &params, &patch)
            .await
            .unwrap();
    }

    async fn delete(&self, kind: &OtherKind, name: &str) {
        let params = DeleteParams::default();
        self.api(kind).delete(name, &params).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_installed_later_is_followed_then_and_holds_nobody_up() {
    let cluster = Cluster::new().await;
    let _controller = cluster.start(vec![clone_set(), rollout()]);
    cluster.deployment("plain", 2).await;
    cluster.pool_has("Deployment", "plain", Some(3)).await;

    cluster
        .define(definition(&rollout(), ".status.selector"))
        .await;
    cluster.workload(&rollout(), "web", 2).await;
    cluster.pool_has("Rollout", "web", Some(3)).await;
    cluster.scale(&rollout(), "web", 4).await;
    cluster.pool_has("Rollout", "web", Some(5)).await;
    cluster.delete(&rollout(), "web").await;
    cluster.pool_has("Rollout", "web", None).await;

    // Objects go with their kind, and come with it again.
    cluster.workload(&rollout(), "web", 2).await;
    cluster.pool_has("Rollout", "web", Some(3)).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    cluster.delete(&rollout(), "web").await;
    let name = rollout().definition();
    definitions
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    cluster.pool_has("Rollout", "web", None).await;
    cluster
        .define(definition(&rollout(), ".status.selector"))
        .await;
    cluster.workload(&rollout(), "web", 3).await;
    cluster.pool_has("Rollout", "web", Some(4)).await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_rights_costs_an_event_and_its_pools_stay_until_its_workloads_are_known() {
    let cluster = Cluster::new().await;
    cluster
        .define(definition(&rollout(), ".status.selector"))
        .await;
    cluster
        .define(definition(&clone_set(), ".status.labelSelector"))
        .await;
    let kinds = vec![clone_set(), rollout()];
    let controller = cluster.start(kinds.clone());
    cluster.workload(&clone_set(), "a", 2).await;
    cluster.pool_has("CloneSet", "a", Some(3)).await;
    drop(controller);

    cluster.delete(&clone_set(), "a").await;
    cluster.forbid("/clonesets");
    // It knows before it leads, when nobody would hear of it.
    let _controller = cluster.start_and_lead(kinds, Duration::from_secs(1));
    cluster.workload(&rollout(), "web", 2).await;
    cluster.pool_has("Rollout", "web", Some(3)).await;
    let told = timeout(SOON, async {
        loop {
            let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
            let events = events.list(&ListParams::default()).await.unwrap();
            let mut told = events.items.into_iter().filter(|event| {
                let about = event.regarding.as_ref().and_then(|r| r.name.clone());
                about == Some(clone_set().definition())
            });
            if let Some(event) = told.next() {
                return event.note.unwrap_or_default();
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    let told = told.await.unwrap();
    assert!(
        told.contains("forbidden") && told.contains("list and watch"),
        "{told}"
    );
    assert_eq!(
        cluster.pool("CloneSet", "a"),
        Some(3),
        "nobody knows that it is gone"
    );

    cluster.permit_all();
    cluster.pool_has("CloneSet", "a", None).await;
    cluster.workload(&clone_set(), "b", 1).await;
    cluster.pool_has("CloneSet", "b", Some(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_moves_the_number_of_pods_is_followed_at_once() {
    let cluster = Cluster::new().await;
    cluster
        .define(definition(&rollout(), ".status.selector"))
        .await;
    let _controller = cluster.start(vec![rollout()]);
    cluster.workload(&rollout(), "web", 2).await;
    cluster.pool_has("Rollout", "web", Some(3)).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let patch = json!([{
        "op": "replace",
        "path": "/spec/versions/0/subresources/scale/specReplicasPath",
        "value": ".spec.size",
    }]);
    let patch: Patch<()> = Patch::Json(read(patch));
    let name = rollout().definition();
    definitions
        .patch(&name, &PatchParams::default(), &patch)
        .await
        .unwrap();
    cluster.pool_has("Rollout", "web", Some(7)).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollout_whose_template_is_a_deployment_s_has_the_pool_that_template_asks_for_or_is_told()
{
    let cluster = Cluster::new().await;
    cluster
        .define(definition(&rollout(), ".status.selector"))
        .await;
    let _controller = cluster.start(vec![rollout()]);
    for (name, asks) in [("web", r#"{"ipv4":["net4"]}"#), ("shop", "net4")] {
        let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        let object: DynamicObject = read(json!({
            "apiVersion": rollout().api_version(), "kind": "Rollout", "metadata": {"name": name},
            "spec": {"replicas": 2, "workloadRef": reference},
        }));
        cluster.create(&cluster.api(&rollout()), object).await;
        let above = cluster.api(&rollout()).get(name).await.unwrap();
        let mut set = spec(name, 2);
        set["template"]["metadata"]["annotations"][SUBNET] = json!(asks);
        let sets: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), "default");
        let set = read(json!({
            "metadata": {"name": format!("{name}-1"), "ownerReferences": [{
                "apiVersion": rollout().api_version(), "kind": "Rollout", "name": name,
                "uid": above.uid(), "controller": true,
            }]},
            "spec": set,
        }));
        cluster.create(&sets, set).await;
    }
    cluster.pool_has("Rollout", "web", Some(3)).await;
    cluster.scale(&rollout(), "web", 4).await;
    cluster.pool_has("Rollout", "web", Some(5)).await;
    sleep(Duration::from_secs(1)).await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let events = events.list(&ListParams::default()).await.unwrap();
    let mut told = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("InvalidAnnotation"));
    let about = told.next().unwrap().regarding.clone().unwrap();
    assert_eq!(about.kind.as_deref(), Some("Rollout"));
    assert_eq!(about.name.as_deref(), Some("shop"));
    assert!(told.next().is_none());
}
