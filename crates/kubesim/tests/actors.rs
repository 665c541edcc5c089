//! The actors on the server: a cluster in one thread, on paused time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use kubesim::actors::{self, Kubelet, Machine, Network, NodeSettings, PodId, Timings};
use kubesim::{Commit, Server, TokioClock};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Longest wait of a test, in virtual time.
const LIMIT: Duration = Duration::from_secs(1200);

/// Gives each sandbox the next address, except to Pods that are refused.
#[derive(Default)]
struct Addresses {
    next: Mutex<u8>,
    calls: Mutex<Vec<String>>,
    refused: Mutex<BTreeSet<String>>,
}

impl Network for Addresses {
    fn add<'a>(
        &'a self,
        pod: &'a PodId,
        sandbox: &'a str,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            assert_eq!(sandbox.len(), 64);
            self.calls.lock().unwrap().push(format!("ADD {}", pod.name));
            tokio::time::sleep(Duration::from_millis(50)).await;
            let app = pod.name.split('-').next().unwrap_or_default();
            if self.refused.lock().unwrap().contains(app) {
                return Err(r#"plugin type="macvlan" failed (add): no address"#.to_owned());
            }
            let mut next = self.next.lock().unwrap();
            *next += 1;
            Ok(vec![Ipv4Addr::new(10, 0, 0, *next).into()])
        })
    }

    fn del<'a>(&'a self, pod: &'a PodId, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        self.calls.lock().unwrap().push(format!("DEL {}", pod.name));
        Box::pin(async { Ok(()) })
    }
}

struct Cluster {
    server: Server,
    client: Client,
    clock: TokioClock,
    network: Arc<Addresses>,
    _control: JoinSet<()>,
    kubelets: Vec<(JoinSet<()>, Machine)>,
}

impl Cluster {
    async fn new(nodes: u8, seed: u64) -> Self {
        let clock = TokioClock::starting_at(Timestamp::from_second(1_767_225_600).unwrap());
        let server = Server::with_clock(seed, clock);
        let client = server.client("actors");
        let mut control = JoinSet::new();
        actors::control_plane(&client, clock, seed, &[], &mut control);
        let mut cluster = Self {
            server,
            client,
            clock,
            network: Arc::default(),
            _control: control,
            kubelets: Vec::new(),
        };
        for number in 1..=nodes {
            let machine = Machine::default();
            cluster
                .kubelets
                .push((cluster.kubelet(number, &machine), machine));
        }
        let nodes_api: Api<Node> = Api::all(cluster.client.clone());
        cluster
            .until("nodes", || async {
                usize::from(nodes)
                    == nodes_api
                        .list(&ListParams::default())
                        .await
                        .unwrap()
                        .items
                        .len()
            })
            .await;
        cluster
    }

    fn kubelet(&self, number: u8, machine: &Machine) -> JoinSet<()> {
        let node = NodeSettings {
            name: format!("node-{number}"),
            addresses: vec![Ipv4Addr::new(192, 168, 0, number).into()],
            labels: [("role".to_owned(), "worker".to_owned())].into(),
            timings: Timings::default(),
        };
        let client = self.server.client(&node.name);
        let network = self.network.clone();
        let kubelet = Kubelet::new(client, self.clock, node, machine.clone(), network, 7);
        let mut tasks = JoinSet::new();
        tasks.spawn(kubelet.run());
        tasks
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::default_namespaced(self.client.clone())
    }

    async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let params = PatchParams::default();
        self.api::<K>()
            .patch(name, &params, &Patch::Merge(patch))
            .await
            .unwrap();
    }

    async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let all = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(LIMIT, all).await.is_err() {
            let pods: Vec<_> = self
                .pods("")
                .await
                .iter()
                .map(|p| (p.name_any(), p.status.clone()))
                .collect();
            panic!("never: {what}; {pods:#?}");
        }
    }

    async fn pods(&self, app: &str) -> Vec<Pod> {
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let of_app = |pod: &Pod| pod.name_any().starts_with(app);
        pods.items.into_iter().filter(of_app).collect()
    }

    async fn running(&self, app: &str, count: usize) {
        self.until(&format!("{count} Pods of {app}"), || async {
            let pods = self.pods(app).await;
            pods.len() == count && pods.iter().all(is_ready)
        })
        .await;
    }

    async fn events(&self, reason: &str) -> Vec<Event> {
        let params = ListParams::default().fields(&format!("reason={reason}"));
        self.api::<Event>().list(&params).await.unwrap().items
    }
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    status.pod_ip.is_some()
        && conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn template(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "a"}]},
    })
}

fn workload(app: &str, replicas: i32) -> Value {
    json!({
        "metadata": {"name": app},
        "spec": {"replicas": replicas, "serviceName": app,
            "selector": {"matchLabels": {"app": app}}, "template": template(app)},
    })
}

#[tokio::test(start_paused = true)]
async fn a_deployment_runs_scales_rolls_and_goes() {
    let cluster = Cluster::new(2, 1).await;
    cluster.create::<Deployment>(workload("web", 4)).await;
    cluster.running("web", 4).await;
    let nodes: BTreeSet<_> = cluster
        .pods("web")
        .await
        .into_iter()
        .map(|p| p.spec.unwrap().node_name)
        .collect();
    assert_eq!(nodes.len(), 2, "spread");
    cluster
        .patch::<Deployment>("web", json!({"spec": {"replicas": 2}}))
        .await;
    cluster.running("web", 2).await;
    let before: BTreeSet<String> = cluster
        .pods("web")
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let image = json!({"spec": {"template": {"metadata": {"annotations": {"new": "yes"}}}}});
    cluster.patch::<Deployment>("web", image).await;
    cluster
        .until("rolled out", || async {
            let pods = cluster.pods("web").await;
            pods.len() == 2
                && pods
                    .iter()
                    .all(|p| is_ready(p) && !before.contains(&p.name_any()))
        })
        .await;
    cluster
        .until("said to be done", || async {
            let status = cluster
                .api::<Deployment>()
                .get("web")
                .await
                .unwrap()
                .status
                .unwrap();
            let mut conditions = status.conditions.unwrap().into_iter();
            status.updated_replicas == Some(2)
                && conditions.any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"))
        })
        .await;
    cluster
        .api::<Deployment>()
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    cluster
        .until("all gone", || async {
            let sets = cluster
                .api::<ReplicaSet>()
                .list(&ListParams::default())
                .await
                .unwrap();
            sets.items.is_empty() && cluster.pods("web").await.is_empty()
        })
        .await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    let calls = cluster.network.calls.lock().unwrap().clone();
    for pod in before {
        let dels = calls
            .iter()
            .filter(|call| **call == format!("DEL {pod}"))
            .count();
        assert_eq!(
            dels, 2,
            "{pod}: one when it stops, one when the runtime forgets it"
        );
    }
    assert!(
        cluster
            .kubelets
            .iter()
            .all(|(_, machine)| machine.sandboxes().is_empty())
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_an_address_says_so_in_the_kubelets_words_until_it_gets_one() {
    let cluster = Cluster::new(1, 2).await;
    cluster.network.refused.lock().unwrap().insert("web".into());
    cluster.create::<Deployment>(workload("web", 1)).await;
    cluster
        .until("told twice", || async {
            cluster.events("FailedCreatePodSandBox").await.len() >= 2
        })
        .await;
    let told = cluster.events("FailedCreatePodSandBox").await[0]
        .message
        .clone()
        .unwrap();
    assert!(told.starts_with("Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \""), "{told}");
    assert!(
        told.ends_with(r#"": plugin type="macvlan" failed (add): no address"#),
        "{told}"
    );
    cluster.network.refused.lock().unwrap().clear();
    cluster.running("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_crashes_finds_what_its_runtime_kept() {
    let mut cluster = Cluster::new(1, 3).await;
    cluster.create::<Deployment>(workload("web", 2)).await;
    cluster.running("web", 2).await;
    let (mut tasks, machine) = cluster.kubelets.remove(0);
    tasks.shutdown().await;
    let sandboxes = machine.sandboxes();
    cluster
        .patch::<Deployment>("web", json!({"spec": {"replicas": 1}}))
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        cluster.pods("web").await.len(),
        2,
        "nobody lets a Pod go but its kubelet"
    );
    let tasks = cluster.kubelet(1, &machine);
    cluster.kubelets.push((tasks, machine.clone()));
    cluster
        .until("one left", || async {
            cluster.pods("web").await.len() == 1
        })
        .await;
    let left = machine.sandboxes();
    assert!(
        left.iter()
            .all(|(uid, sandbox)| sandboxes.get(uid) == Some(sandbox))
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_somebody_says_is_not_ready_is_told_to_be_by_its_kubelet() {
    let cluster = Cluster::new(1, 7).await;
    cluster.create::<Deployment>(workload("web", 1)).await;
    cluster.running("web", 1).await;
    let name = cluster.pods("web").await[0].name_any();
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let patched = cluster
        .api::<Pod>()
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(unready))
        .await;
    assert!(!is_ready(&patched.unwrap()));
    cluster.running("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_a_silent_node_are_evicted_and_made_elsewhere() {
    let mut cluster = Cluster::new(2, 4).await;
    cluster.create::<Deployment>(workload("web", 2)).await;
    cluster.running("web", 2).await;
    let (mut tasks, _machine) = cluster.kubelets.remove(0);
    tasks.shutdown().await;
    cluster
        .until("two run on the other node", || async {
            let pods = cluster.pods("web").await;
            let there = |p: &&Pod| p.spec.as_ref().unwrap().node_name.as_deref() == Some("node-2");
            pods.iter().filter(there).filter(|p| is_ready(p)).count() == 2
        })
        .await;
    assert_eq!(
        cluster.pods("web").await.len(),
        3,
        "the third waits for its kubelet"
    );
}

#[tokio::test(start_paused = true)]
async fn stateful_pods_come_in_order_and_daemons_on_every_node() {
    let cluster = Cluster::new(3, 5).await;
    cluster.create::<StatefulSet>(workload("db", 3)).await;
    cluster.running("db", 3).await;
    let mut pods = cluster.pods("db").await;
    pods.sort_by_key(ResourceExt::name_any);
    let started: Vec<_> = pods.iter().map(ResourceExt::creation_timestamp).collect();
    assert!(started.is_sorted(), "{started:?}");
    let daemon = json!({"metadata": {"name": "ds"}, "spec": {
        "selector": {"matchLabels": {"app": "ds"}}, "template": template("ds")}});
    cluster.create::<DaemonSet>(daemon).await;
    cluster.running("ds", 3).await;
    let status = || async {
        cluster
            .api::<DaemonSet>()
            .get("ds")
            .await
            .unwrap()
            .status
            .unwrap_or_default()
    };
    cluster
        .until("counted", || async {
            status().await.number_available == Some(3)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_makes_jobs_that_complete_and_forgets_old_ones() {
    let cluster = Cluster::new(1, 6).await;
    let mut pod = template("tick");
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["metadata"]["annotations"] = json!({"kubesim/run-seconds": "3"});
    let cron = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "* * * * *",
        "successfulJobsHistoryLimit": 2, "jobTemplate": {"spec": {"completions": 2, "template": pod}}}});
    cluster.create::<CronJob>(cron).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let jobs = cluster
        .api::<Job>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    let done = jobs.iter().filter(|job| {
        let status = job.status.clone().unwrap_or_default();
        status.completion_time.is_some() && status.succeeded == Some(2)
    });
    assert_eq!(done.count(), 2, "{jobs:#?}");
    assert!(jobs.len() <= 3);
}

/// Every revision of a run, in a runtime of its own.
fn history(seed: u64) -> Vec<String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::new(3, seed).await;
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&log);
        let note = move |commit: &Commit| kept.lock().unwrap().push(format!("{commit:?}"));
        cluster.server.observe(note);
        cluster.create::<Deployment>(workload("web", 7)).await;
        cluster.running("web", 7).await;
        let fewer = json!({"spec": {"replicas": 2}});
        cluster.patch::<Deployment>("web", fewer).await;
        cluster.running("web", 2).await;
        log.lock().unwrap().clone()
    })
}

#[test]
fn the_same_seed_has_the_same_history_and_another_has_not() {
    let (first, second, other) = (history(9), history(9), history(10));
    assert!(first.len() > 50, "{}", first.len());
    for (one, two) in first.iter().zip(&second) {
        assert_eq!(one, two);
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(first, other);
}
