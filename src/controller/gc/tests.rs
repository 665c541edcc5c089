use std::sync::{Arc, Mutex};

use kube::Client;
use kube::api::{Api, DeleteParams, ListParams};
use kube::client::Body;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::api::SpiderEndpoint;
use crate::api::names::FINALIZER;
use crate::controller::testing::{Stage, clients, forbidding, options};
use crate::kube_io::locked;

/// A record of a Pod that never was here, as our agents write it.
fn record(pod: &str, node: &str) -> Value {
    json!({
        "pod": format!("shop/{pod}"), "podUid": format!("gone-{pod}"),
        "nic": "eth0", "node": node, "sandbox": "s1",
    })
}

/// A node whose kubelet is ready or not, and that says nowhere where it is.
async fn node(stage: &Stage, name: &str, ready: &str, taints: Value) {
    stage
        .put(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"taints": taints},
            "status": {"conditions": [{
                "type": "Ready", "status": ready, "lastTransitionTime": "2020-01-01T00:00:00Z",
            }]},
        }))
        .await;
}

async fn nodes(stage: &Stage) {
    let lost = json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
    node(stage, "n1", "True", json!([])).await;
    node(stage, "n2", "Unknown", json!([])).await;
    node(stage, "n3", "Unknown", lost).await;
}

#[tokio::test(start_paused = true)]
async fn addresses_go_where_the_node_is_gone_or_out_of_service_and_stay_where_it_may_run() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let living = stage.pod("lives").await;
    let records = json!({
        "10.6.0.10": {"pod": "shop/lives", "podUid": living, "nic": "eth0", "node": "gone", "sandbox": "s"},
        "10.6.0.11": record("a", "n1"),
        "10.6.0.12": record("b", "n2"),
        "10.6.0.13": record("c", "n3"),
        "10.6.0.14": record("d", "gone"),
        "10.6.0.15": record("e", "gone"),
        "10.6.0.16": {"pod": "kube-system/static", "podUid": "0a1b2c", "nic": "eth0", "node": "gone"},
        "10.6.0.17": {"pod": "kube-system/static", "podUid": "0a1b2d", "nic": "eth0", "node": "n1"},
        "10.6.0.18": {"pod": "kube-system/static", "podUid": "0a1b2e", "nic": "eth0", "node": "n3"},
    });
    stage.pool("net", "10.6.0.10-10.6.0.29", &records).await;
    stage.start(options()).await;
    stage.comes_to("net", &[10, 11, 12, 17, 18]).await;
    let mut told = stage.events("AddressesReleased").await;
    told.sort();
    assert_eq!(
        told,
        [
            "released, since Node gone is deleted, and the Pods are gone: 10.6.0.14 (Pod shop/d) \
             10.6.0.15 (Pod shop/e) 10.6.0.16 (Pod kube-system/static)",
            "released, since Node n3 is tainted out of service and not ready, and the Pods are gone: \
             10.6.0.13 (Pod shop/c)",
        ]
    );
    assert_eq!(stage.stays("net").await, [10, 11, 12, 17, 18]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_lead_frees_and_marks_nothing_until_it_does() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let records = json!({"10.6.0.11": record("a", "n1"), "10.6.0.14": record("d", "gone")});
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    let leads = stage.start_as(Leadership::Follower, options(), None).await;
    assert_eq!(stage.stays("net").await, [11, 14]);
    assert!(!is_marked(&stage, "net").await);
    leads.send_replace(Leadership::Leader);
    assert_eq!(stage.stays("net").await, [11]);
    assert!(is_marked(&stage, "net").await);
}

#[tokio::test(start_paused = true)]
async fn while_the_pods_are_not_all_listed_no_look_is_made_and_no_pool_is_marked() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let living = stage.pod("lives").await;
    let records = json!({
        "10.6.0.10": {"pod": "shop/lives", "podUid": living, "nic": "eth0", "node": "n1", "sandbox": "s"},
        "10.6.0.14": record("d", "gone"),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    let (listed, is_listed) = tokio::sync::watch::channel(false);
    let service = stage.server.service("controller");
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (service, mut is_listed) = (service.clone(), is_listed.clone());
        async move {
            if request.uri().path() == "/api/v1/pods" {
                is_listed.wait_for(|is_listed| *is_listed).await.unwrap();
            }
            service.oneshot(request).await
        }
    });
    let client = Client::new(service, "default");
    // It is not ready before it has seen everything, so that is not waited for.
    let until_ready = stage.start_with(&client, options());
    let waited = tokio::time::timeout(Duration::from_mins(30), until_ready).await;
    assert!(waited.is_err());
    assert_eq!(stage.recorded("net").await, [10, 14]);
    assert!(!is_marked(&stage, "net").await);
    listed.send_replace(true);
    stage.comes_to("net", &[10]).await;
    assert_eq!(stage.stays("net").await, [10]);
    assert!(!is_marked(&stage, "net").await);
}

async fn is_marked(stage: &Stage, pool: &str) -> bool {
    let api: Api<SpiderIPPool> = Api::all(stage.client.clone());
    let pool = stage.get(api, pool).await.unwrap();
    pool.labels().contains_key(label::LEAK)
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_marked_for_agents_until_they_have_released_what_is_theirs() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let leaked = json!({"10.6.0.11": record("a", "n1"), "10.6.0.12": record("b", "n2")});
    stage.pool("net", "10.6.0.10-10.6.0.19", &leaked).await;
    stage
        .pool(
            "other",
            "10.6.0.20-10.6.0.29",
            &json!({"10.6.0.20": record("c", "n2")}),
        )
        .await;
    stage.start(options()).await;
    let marked = async || {
        let api: Api<SpiderIPPool> = Api::all(stage.client.clone());
        let found = api.list(&ListParams::default().labels(label::LEAK)).await;
        let names = found.unwrap().into_iter().map(|pool| pool.name_any());
        names.collect::<Vec<_>>()
    };
    assert_eq!(stage.stays("net").await, [11, 12]);
    assert_eq!(marked().await, ["net"]);
    stage
        .pool(
            "net",
            "10.6.0.10-10.6.0.19",
            &json!({"10.6.0.12": record("b", "n2")}),
        )
        .await;
    assert_eq!(stage.stays("net").await, [12]);
    assert!(marked().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn switched_off_nothing_goes_and_no_agent_is_asked() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let records = json!({"10.6.0.11": record("a", "n1"), "10.6.0.14": record("d", "gone")});
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    let mut off = options();
    off.gc.on = Switch::Off;
    stage.start(off).await;
    assert_eq!(stage.stays("net").await, [11, 14]);
    assert!(!is_marked(&stage, "net").await);
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_s_address_on_a_deleted_node_is_kept_and_a_former_set_s_is_freed() {
    let mut stage = Stage::new().await;
    let set = stage.stateful_set("db", 2).await;
    let of = |ordinal: u8, owner: &str| {
        let mut of = record(&format!("db-{ordinal}"), "gone");
        of["owner"] = json!(owner);
        of
    };
    let records = json!({
        "10.6.0.10": of(0, &set),
        "10.6.0.11": of(1, "a-former-set"),
        "10.6.0.12": of(2, &set),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    stage.start(options()).await;
    stage.comes_to("net", &[-10]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_another_kind_called_statefulset_leaves_nothing() {
    let mut stage = Stage::new().await;
    stage.stateful_set("db", 2).await;
    let owner = ["StatefulSet", "db"];
    stage
        .endpoint("db-0", ["gone-db-0", "gone"], owner, &[])
        .await;
    let records = json!({"10.6.0.10": record("db-0", "gone")});
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    stage.start(options()).await;
    stage.comes_to("net", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn an_original_s_pod_of_both_families_gives_up_both_addresses_by_its_one_endpoint() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let former = |uid: &str| json!({"pod": "shop/a", "podUid": uid});
    let four = json!({"10.6.0.10": former("gone-a")});
    stage.pool("four", "10.6.0.10-10.6.0.19", &four).await;
    let other = json!({"10.6.0.20": former("gone-a")});
    stage.pool("other", "10.6.0.20-10.6.0.29", &other).await;
    let (pod, owner) = (["gone-a", "gone"], ["Deployment", "a"]);
    stage.endpoint("a", pod, owner, &[FINALIZER]).await;
    stage.start(options()).await;
    stage.comes_to("four", &[]).await;
    stage.comes_to("other", &[]).await;
    let endpoints: Api<SpiderEndpoint> = Api::namespaced(stage.client.clone(), "shop");
    assert!(stage.get(endpoints, "a").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_original_s_record_is_of_the_node_that_its_endpoint_names() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let original =
        |pod: &str| json!({"pod": format!("shop/{pod}"), "podUid": format!("gone-{pod}")});
    for (pod, node) in [("a", "gone"), ("b", "n2")] {
        let (uid, owner) = (format!("gone-{pod}"), ["ReplicaSet", "web"]);
        stage.endpoint(pod, [&uid, node], owner, &[FINALIZER]).await;
    }
    // Of c nobody knows a node, and one of the nodes is in doubt.
    let records = json!({
        "10.6.0.10": original("a"), "10.6.0.11": original("b"), "10.6.0.12": original("c"),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    stage.start(options()).await;
    stage.comes_to("net", &[11, 12]).await;
    let endpoints: Api<SpiderEndpoint> = Api::namespaced(stage.client.clone(), "shop");
    assert!(stage.get(endpoints.clone(), "a").await.is_none());
    assert!(stage.get(endpoints, "b").await.is_some());
    assert_eq!(stage.stays("net").await, [11, 12]);
}

/// An address of machine `shop/db` whose Pod ran on `node`, while it is moved to another Pod.
fn moving(uid: &str, node: &str, next: &Value) -> Value {
    let mut of = record("virt-launcher-db-a", node);
    of["podUid"] = json!(uid);
    of["owner"] = json!("db");
    of["machine"] = json!({"kind": "VirtualMachine", "name": "db"});
    of["next"] = next.clone();
    of
}

#[tokio::test(start_paused = true)]
async fn of_a_machine_s_two_pods_the_one_on_a_deleted_node_leaves_the_address_to_the_other() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let source = stage.pod("virt-launcher-db-a").await;
    let target = stage.pod("virt-launcher-db-b").await;
    let next = |uid: &str, node: &str| json!({"pod": "shop/virt-launcher-db-b", "podUid": uid, "node": node, "sandbox": "s2"});
    let records = json!({
        "10.6.0.10": moving("gone-0", "gone", &next(&target, "n1")),
        "10.6.0.11": moving(&source, "n1", &next("gone-1", "gone")),
        "10.6.0.12": moving("gone-3", "n1", &next("gone-2", "n2")),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    stage.start(options()).await;
    assert_eq!(stage.stays("net").await, [10, 11, 12]);
    let api: Api<SpiderIPPool> = Api::all(stage.client.clone());
    let pool = stage.get(api, "net").await.unwrap();
    let text = pool.status.unwrap().allocated_ips.unwrap();
    let after: Value = serde_json::from_str(&text).unwrap();
    let holders: Vec<_> = after.as_object().unwrap().values().collect();
    assert_eq!(holders[0]["podUid"], json!(target));
    assert_eq!(holders[0]["sandbox"], json!("s2"));
    assert_eq!(holders[0]["next"], Value::Null);
    assert_eq!(holders[1]["podUid"], json!(source));
    assert_eq!(holders[1]["next"], Value::Null);
    let told = stage.events("AddressesReleased").await.concat();
    let left = "10.6.0.10 (Pod shop/virt-launcher-db-a, left to the machine's other Pod)";
    assert!(told.contains(left), "{told}");
    // Of nodes that may let go, each agent says so itself.
    assert_eq!(holders[2]["next"]["podUid"], json!("gone-2"));
}

#[tokio::test(start_paused = true)]
async fn an_original_s_record_that_names_a_machine_is_its_running_pod_s() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    stage.machine("db").await;
    let pod = stage
        .put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "virt-launcher-db-x2x9k", "namespace": "shop",
                "labels": {"kubevirt.io": "virt-launcher"},
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "main"}]},
            "status": {"phase": "Running"},
        }))
        .await;
    let uid = pod.metadata.uid.unwrap();
    let owner = ["VirtualMachineInstance", "db"];
    stage.endpoint("db", [&uid, "gone"], owner, &[]).await;
    let records = json!({"10.6.0.10": {"pod": "shop/db", "podUid": uid}});
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    stage.start(options()).await;
    assert_eq!(stage.stays("net").await, [10]);
    // Nor by a live read alone.
    let bench = Bench::on(stage);
    bench.free_all_of(&bench.read("net").await).await;
    assert_eq!(bench.stage.recorded("net").await, [10]);
    // Once the Pod is gone, it is kept for the machine.
    let pods: Api<Pod> = Api::namespaced(bench.stage.client.clone(), "shop");
    let now = DeleteParams::default().grace_period(0);
    pods.delete("virt-launcher-db-x2x9k", &now).await.unwrap();
    bench.free_all_of(&bench.read("net").await).await;
    assert_eq!(bench.stage.recorded("net").await, [-10]);
}

/// What a release works with, its caches empty.
struct Bench {
    stage: Stage,
    clients: Clients,
    writer: Writer,
    pods: Cache<Pod>,
    reports: Reports,
    metrics: Metrics,
    options: Options,
}

impl Bench {
    async fn new() -> Self {
        Self::on(Stage::new().await)
    }

    fn on(stage: Stage) -> Self {
        let clients = clients(&stage.client);
        let (reports, _events) = Reports::new(stage.client.clone(), None);
        Self {
            writer: Writer::new(stage.client.clone()),
            stage,
            clients,
            pods: Cache::new(),
            reports,
            metrics: Metrics::register(&mut Registry::default(), false),
            options: Options::default(),
        }
    }

    /// Takes the pool as it is into the cache, and releases all that it has.
    async fn free_all_of(&self, pool: &Arc<SpiderIPPool>) {
        self.writer.pools.apply_written((**pool).clone());
        self.gc().free(survey::holdings(pool)).await;
    }

    fn gc(&self) -> Gc<'_> {
        Gc {
            options: &self.options,
            keeps: Keeps::ALL,
            pods: &self.pods,
            clients: &self.clients,
            writer: &self.writer,
            reports: &self.reports,
            metrics: &self.metrics,
        }
    }

    async fn read(&self, pool: &str) -> Arc<SpiderIPPool> {
        let api: Api<SpiderIPPool> = Api::all(self.stage.client.clone());
        Arc::new(self.stage.get(api, pool).await.unwrap())
    }
}

#[tokio::test]
async fn a_look_asks_for_nothing_of_pods_that_live() {
    let mut bench = Bench::new().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let service = bench.stage.server.service("gc");
    let service = service.map_request(move |request: http::Request<Body>| {
        locked(&log).push(request.uri().path().to_owned());
        request
    });
    bench.clients.read = Client::new(service, "default");
    let api: Api<Pod> = Api::namespaced(bench.stage.client.clone(), "shop");
    let mut records = json!({});
    for n in 10..13 {
        let pod = format!("web-{n}");
        let uid = bench.stage.pod(&pod).await;
        bench.pods.apply_written(api.get(&pod).await.unwrap());
        records[format!("10.6.0.{n}")] = json!({
            "pod": format!("shop/{pod}"), "podUid": uid, "nic": "eth0", "node": "n1", "sandbox": "s",
        });
    }
    let stage = &bench.stage;
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    let pool = bench.read("net").await;
    bench.writer.pools.apply_written((*pool).clone());
    let mut suspects = Suspects::default();
    for _ in 0..3 {
        bench.gc().look(&mut suspects).await;
    }
    let endpoints = "/apis/spiderpool.spidernet.io/v2beta1/spiderendpoints";
    assert_eq!(*locked(&asked), [endpoints; 3]);
    // The one whose Pod is not there is looked up.
    let mut pool = (*pool).clone();
    records["10.6.0.13"] = record("a", "gone");
    let status = pool.status.as_mut().unwrap();
    status.allocated_ips = Some(records.to_string());
    pool.metadata.resource_version = Some("1000000".to_owned());
    bench.writer.pools.apply_written(pool);
    locked(&asked).clear();
    bench.gc().look(&mut suspects).await;
    let asked = locked(&asked).clone();
    assert!(
        asked.iter().any(|path| path.ends_with("/nodes/gone")),
        "{asked:?}"
    );
    assert!(!asked.iter().any(|path| path.contains("web-")), "{asked:?}");
}

#[tokio::test]
async fn nothing_goes_that_a_live_read_shows_to_be_in_use() {
    let bench = Bench::new().await;
    let uid = bench.stage.pod("late").await;
    let records = json!({
        "10.6.0.10": {"pod": "shop/late", "podUid": uid, "nic": "eth0", "node": "gone", "sandbox": "s"},
        "10.6.0.11": record("a", "gone"),
        "10.6.0.12": record("b", "n2"),
    });
    bench
        .stage
        .pool("net", "10.6.0.10-10.6.0.19", &records)
        .await;
    node(&bench.stage, "n2", "Unknown", json!([])).await;
    bench.free_all_of(&bench.read("net").await).await;
    assert_eq!(bench.stage.recorded("net").await, [10, 12]);
    // Ended since, but by the name of another.
    let pods: Api<Pod> = Api::namespaced(bench.stage.client.clone(), "shop");
    let now = DeleteParams::default().grace_period(0);
    pods.delete("late", &now).await.unwrap();
    bench.stage.pod("late").await;
    bench.free_all_of(&bench.read("net").await).await;
    assert_eq!(bench.stage.recorded("net").await, [12]);
}

#[tokio::test]
async fn a_write_follows_a_pool_that_agents_moved_and_leaves_what_they_wrote() {
    let bench = Bench::new().await;
    let before = json!({"10.6.0.10": record("a", "gone"), "10.6.0.11": record("b", "gone")});
    bench
        .stage
        .pool("net", "10.6.0.10-10.6.0.19", &before)
        .await;
    let behind = bench.read("net").await;
    // Given to another sandbox since, and a new one beside it.
    let mut again = record("b", "gone");
    again["sandbox"] = json!("s2");
    let since = json!({
        "10.6.0.10": record("a", "gone"), "10.6.0.11": again, "10.6.0.12": record("c", "n1"),
    });
    bench.stage.pool("net", "10.6.0.10-10.6.0.19", &since).await;
    bench.free_all_of(&behind).await;
    assert_eq!(bench.stage.recorded("net").await, [11, 12]);
}

#[tokio::test(start_paused = true)]
async fn where_machines_keep_nothing_theirs_go_as_anybody_s_and_no_machine_is_read() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let db = stage.machine("db").await;
    let mut of_machine = record("virt-launcher-db-a", "gone");
    of_machine["owner"] = json!(db);
    of_machine["machine"] = json!({"kind": "VirtualMachine", "name": "db"});
    let owner = ["VirtualMachineInstance", "web"];
    stage
        .endpoint("web", ["gone-web", "gone"], owner, &[])
        .await;
    let records = json!({
        "10.6.0.10": of_machine,
        "10.6.0.11": {"pod": "shop/web", "podUid": "gone-web"},
        "10.6.0.12": record("c", "gone"),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    let mut off = options();
    off.keeps.machines = false;
    let client = forbidding(&stage.server, |request| {
        request.uri().path().contains("/kubevirt.io/")
    });
    stage.start_with(&client, off).await;
    stage.comes_to("net", &[]).await;
}

#[tokio::test]
async fn a_record_that_can_t_be_read_once_more_holds_up_its_own_pod_s_and_nobody_else_s() {
    let mut bench = Bench::new().await;
    // The second time it is asked for this Pod, the API server gives no answer.
    let asked = Mutex::new(0);
    bench.clients.read = forbidding(&bench.stage.server, move |request| {
        let is_of_both = request.uri().path().ends_with("/pods/both");
        *locked(&asked) += u32::from(is_of_both);
        is_of_both && *locked(&asked) == 2
    });
    let both = json!({"pod": "shop/both", "podUid": "gone-both"});
    let four = json!({"10.6.0.10": both, "10.6.0.11": record("a", "gone")});
    let other = json!({"10.6.0.20": both, "10.6.0.21": record("b", "gone")});
    bench.stage.pool("four", "10.6.0.10-10.6.0.19", &four).await;
    bench
        .stage
        .pool("other", "10.6.0.20-10.6.0.29", &other)
        .await;
    let (pod, owner) = (["gone-both", "gone"], ["Deployment", "a"]);
    bench.stage.endpoint("both", pod, owner, &[FINALIZER]).await;
    let mut due = Vec::new();
    for name in ["four", "other"] {
        let pool = bench.read(name).await;
        bench.writer.pools.apply_written((*pool).clone());
        due.extend(survey::holdings(&pool));
    }
    bench.gc().free(due.clone()).await;
    assert_eq!(bench.stage.recorded("four").await, [10]);
    assert_eq!(bench.stage.recorded("other").await, [20]);
    for name in ["four", "other"] {
        bench
            .writer
            .pools
            .apply_written((*bench.read(name).await).clone());
    }
    bench.gc().free(due).await;
    assert!(bench.stage.recorded("four").await.is_empty());
    assert!(bench.stage.recorded("other").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_deleted_goes_once_neither_pod_nor_record_is_there() {
    let mut stage = Stage::new().await;
    nodes(&stage).await;
    let living = stage.pod("lives").await;
    let records = json!({
        "10.6.0.10": {"pod": "shop/lives", "podUid": living},
        "10.6.0.11": record("recorded", "n2"),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    for name in [
        "stray",
        "recorded",
        "lives",
        "asked-of-nobody",
        "kept-by-others",
    ] {
        let mut finalizers = vec![FINALIZER];
        if name == "kept-by-others" {
            finalizers.push("example.org/keep");
        }
        let (uid, owner) = (format!("gone-{name}"), ["Deployment", "web"]);
        stage.endpoint(name, [&uid, "n1"], owner, &finalizers).await;
    }
    let api: Api<SpiderEndpoint> = Api::namespaced(stage.client.clone(), "shop");
    for name in ["stray", "recorded", "lives", "kept-by-others"] {
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
    stage.start(options()).await;
    stage.stays("net").await;
    let left = api.list(&ListParams::default()).await.unwrap();
    let left: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
    assert_eq!(
        left,
        ["asked-of-nobody", "kept-by-others", "lives", "recorded"]
    );
}
