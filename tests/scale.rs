//! The controller on a Kubernetes in memory, and what it costs the API server: its writes and lists
//! are counted from outside.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::annotation::SizeRule;
use ipam::keep::Keeps;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use kubesim::{Server, TokioClock};
use orbweaver::api::{SpiderIPPool, SpiderSubnet, crd};
use orbweaver::config::Config;
use orbweaver::controller::index::{Features, Switch};
use orbweaver::controller::{self, Options, Signals, gc};
use orbweaver::kube_io::clients::Clients;
use orbweaver::kube_io::lease::Leadership;
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Deployments of the burst.
const BURST: usize = 100;
/// Most writes of the ledger that it may cost: about one a pause of the passes, and a first one.
const LEDGER_WRITES_MAX: usize = 5;
/// Longest wait, in virtual time.
const LIMIT: Duration = Duration::from_secs(30);

/// Requests by path, without those that go on with a list or watch.
type Lists = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

struct World {
    server: Server,
    client: Client,
    /// Writes by actor and resource.
    writes: Arc<Mutex<BTreeMap<(String, String), usize>>>,
}

fn read<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

impl World {
    async fn new() -> Self {
        let epoch = Timestamp::from_second(1_767_225_600).unwrap();
        let server = Server::with_clock(1, TokioClock::starting_at(epoch));
        let client = server.client("person");
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in crd::definitions().unwrap() {
            api.create(&PostParams::default(), &definition)
                .await
                .unwrap();
        }
        let writes: Arc<Mutex<BTreeMap<_, usize>>> = Arc::default();
        let count = writes.clone();
        server.observe(move |commit| {
            let of = (commit.actor.to_string(), commit.key.resource.to_string());
            *count.lock().unwrap().entry(of).or_default() += 1;
        });
        Self {
            server,
            client,
            writes,
        }
    }

    fn writes_of(&self, actor: &str, resource: &str) -> usize {
        let writes = self.writes.lock().unwrap();
        let of = |(by, to): &(String, String)| by == actor && to.starts_with(resource);
        writes
            .iter()
            .filter(|(key, _)| of(key))
            .map(|(_, n)| n)
            .sum()
    }

    /// Starts a controller that leads; its first lists go into the map returned.
    fn controller(&self, actor: &str, tasks: &mut JoinSet<()>) -> Lists {
        let lists = Lists::default();
        let heard = lists.clone();
        let service = self.server.service(actor);
        let service = service.map_request(move |request: http::Request<Body>| {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
            let goes_on = query.contains("watch=") || query.contains("continue=");
            if request.method() == http::Method::GET && !goes_on {
                let mut lists = heard.lock().unwrap();
                lists
                    .entry(path.to_owned())
                    .or_default()
                    .push(query.to_owned());
            }
            request
        });
        let clients = Clients {
            read: Client::new(service.clone(), "default"),
            write: Client::new(service, "default"),
        };
        let options = Options {
            features: Features {
                ipv4: true,
                ipv6: true,
                subnets: Switch::On,
                auto_pools: Switch::On,
            },
            default_rule: SizeRule::Flexible(1),
            keeps: Keeps::ALL,
            gc: gc::Options::default(),
            kinds: Config::default().kinds(),
            early_binding: Switch::Off,
            pod_name: None,
        };
        let metrics = controller::Metrics::register(&mut Registry::default(), false);
        tasks.spawn(async move {
            let (_leads, leadership) = watch::channel(Leadership::Leader);
            let (_stop, stop) = watch::channel(false);
            let ready = watch::channel(false).0;
            let signals = Signals {
                leadership,
                ready,
                stop,
            };
            controller::run(options, clients, metrics, signals, None).await;
        });
        lists
    }

    /// Makes every Deployment of the burst at once.
    async fn burst(&self) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), "default");
        let make = |number| {
            let (api, name) = (api.clone(), format!("web-{number}"));
            async move {
                let deployment = read(json!({
                    "metadata": {"name": name},
                    "spec": {"replicas": 10, "selector": {"matchLabels": {"app": name}}, "template": {
                        "metadata": {"labels": {"app": name}, "annotations": {
                            "ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#}},
                        "spec": {"containers": [{"name": "c", "image": "i"}]}}}
                }));
                api.create(&PostParams::default(), &deployment)
                    .await
                    .unwrap();
            }
        };
        futures::future::join_all((0..BURST).map(make)).await;
    }

    /// Waits until every Deployment has a pool of its size.
    async fn served(&self) {
        let pools: Api<SpiderIPPool> = Api::all(self.client.clone());
        let all_there = async {
            loop {
                let all = pools.list(&ListParams::default()).await.unwrap();
                let sized = |pool: &&SpiderIPPool| {
                    let status = pool.status.as_ref();
                    status.and_then(|status| status.total_ip_count) == Some(11)
                };
                if all.iter().filter(sized).count() == BURST {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, all_there).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_costs_few_ledger_writes_and_a_restart_one_list_of_each_kind_and_no_write() {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    world.controller("first", &mut tasks);
    let subnet: SpiderSubnet = read(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": "net4"},
        "spec": {"subnet": "10.64.0.0/16", "ips": ["10.64.1.0-10.64.20.255"]}
    }));
    let subnets: Api<SpiderSubnet> = Api::all(world.client.clone());
    subnets
        .create(&PostParams::default(), &subnet)
        .await
        .unwrap();
    // Ranges that nobody asks for yet, as there are many in a data centre.
    for n in 0..20 {
        let idle: SpiderSubnet = read(json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
            "metadata": {"name": format!("idle-{n}")},
            "spec": {"subnet": format!("10.65.{n}.0/24"), "ips": [format!("10.65.{n}.10")]},
        }));
        let made = subnets.create(&PostParams::default(), &idle).await;
        made.unwrap();
    }
    tokio::time::sleep(LIMIT).await;
    let before = world.writes_of("first", "spidersubnets");
    world.burst().await;
    world.served().await;
    let writes = world.writes_of("first", "spidersubnets") - before;
    assert!(
        (1..=LEDGER_WRITES_MAX).contains(&writes),
        "{writes} writes of the subnet for {BURST} Deployments"
    );
    tokio::time::sleep(LIMIT).await;
    tasks.shutdown().await;

    let mut tasks = JoinSet::new();
    let lists = world.controller("second", &mut tasks);
    tokio::time::sleep(LIMIT).await;
    let wrote = world.writes_of("second", "");
    assert_eq!(wrote, 0, "writes of a controller that was restarted");
    let lists = lists.lock().unwrap();
    assert!(lists.keys().any(|path| path.ends_with("/spiderippools")));
    for (path, queries) in &*lists {
        // Kinds of an operator's are looked for by name: a try, and the list that a watch begins with.
        let once = if path.ends_with("/customresourcedefinitions") {
            2 * Config::default().third_party_controllers.len()
        } else {
            1
        };
        assert_eq!(queries.len(), once, "lists of {path}: {queries:?}");
        let stale = queries
            .iter()
            .any(|query| query.contains("resourceVersion="));
        assert!(!stale, "{path}: a list that may be old: {queries:?}");
    }
}
