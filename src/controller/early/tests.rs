//! The whole controller, and Pods that get a node: who is recorded before it starts, and who is not.

use axum::Router;
use futures::future::{BoxFuture, pending};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::super::index::Switch;
use super::super::testing::{Stage, options};
use super::super::{Endpoint, Options, Serve};
use super::*;

/// Nobody asks it anything.
struct Unasked;

impl Serve for Unasked {
    fn serve(self: Box<Self>, _: Router) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        serve: Box::new(Unasked),
        agents: "system:serviceaccount:kube-system:agent".to_owned(),
    }
}

fn binding(on: Switch) -> Options {
    Options {
        early_binding: on,
        ..options()
    }
}

const SUBNET: &str = r#"{"ipv4":["net"]}"#;

/// Deployment `shop/web` of three Pods with a ReplicaSet; the owner of its Pods.
async fn web(stage: &Stage, on_template: bool) -> Value {
    stage
        .put(json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
            "metadata": {"name": "net"},
            "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.40"]},
        }))
        .await;
    let annotations = json!({annotation::SUBNET: SUBNET});
    let (own, of_pods) = if on_template {
        (json!({}), annotations)
    } else {
        (annotations, json!({}))
    };
    let container = json!({"name": "main", "image": "main"});
    let labels = json!({"app": "web"});
    let template = json!({
        "metadata": {"labels": labels, "annotations": of_pods}, "spec": {"containers": [container]},
    });
    let spec = json!({"replicas": 3, "selector": {"matchLabels": labels}, "template": template});
    let deployment = stage
        .put(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "annotations": own}, "spec": spec,
        }))
        .await;
    let owner = owner("Deployment", "web", &deployment.metadata.uid.unwrap());
    let set = stage
        .put(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web-1", "namespace": "shop", "ownerReferences": [owner]},
            "spec": spec,
        }))
        .await;
    self::owner("ReplicaSet", "web-1", &set.metadata.uid.unwrap())
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true})
}

/// What is done to a Pod before it is made.
type Edit = fn(&mut Value);

/// A Pod of `web`, changed a little; its uid.
async fn pod(stage: &Stage, name: &str, owner: &Value, change: Edit) -> String {
    let container = json!({"name": "main", "image": "main"});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "labels": {"app": "web"}, "ownerReferences": [owner],
            "annotations": {annotation::SUBNET: SUBNET},
        },
        "spec": {"nodeName": "n1", "containers": [container]},
    });
    change(&mut pod);
    stage.put(pod).await.metadata.uid.unwrap()
}

/// The records of all pools, by the names of their Pods.
fn records(stage: &Stage) -> Vec<(String, Value)> {
    let pools = stage
        .server
        .objects("spiderippools.spiderpool.spidernet.io");
    let texts = pools
        .iter()
        .filter_map(|pool| pool["status"]["allocatedIPs"].as_str());
    let mut all: Vec<(String, Value)> = texts
        .flat_map(|text| serde_json::from_str::<serde_json::Map<String, Value>>(text).unwrap())
        .map(|(_, record)| (record["pod"].as_str().unwrap().to_owned(), record))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The names of the Pods that are recorded, once nothing happens any more.
async fn recorded(stage: &Stage) -> Vec<String> {
    sleep(Duration::from_secs(5)).await;
    records(stage).into_iter().map(|(pod, _)| pod).collect()
}

async fn started(on: Switch) -> Stage {
    let mut stage = Stage::new().await;
    stage
        .start_as(Leadership::Leader, binding(on), Some(endpoint()))
        .await;
    stage
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_gets_a_node_is_recorded_without_a_sandbox() {
    for on_template in [true, false] {
        let stage = started(Switch::On).await;
        let owner = web(&stage, on_template).await;
        sleep(Duration::from_secs(5)).await;
        let unannotated = |pod: &mut Value| pod["metadata"]["annotations"] = json!({});
        let change = if on_template {
            |_: &mut Value| {}
        } else {
            unannotated
        };
        let uid = pod(&stage, "web-1-a", &owner, change).await;
        let found = async {
            while records(&stage).is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
            records(&stage)
        };
        let found = timeout(Duration::from_secs(5), found).await.unwrap();
        let record = json!({"pod": "shop/web-1-a", "podUid": uid, "nic": "eth0", "node": "n1"});
        assert_eq!(found, [("shop/web-1-a".to_owned(), record)]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_pool_is_recorded_once_that_is_there() {
    let mut stage = Stage::new().await;
    let owner = web(&stage, true).await;
    pod(&stage, "web-1-a", &owner, |_| {}).await;
    let lead = stage
        .start_as(Leadership::Follower, binding(Switch::On), Some(endpoint()))
        .await;
    assert_eq!(recorded(&stage).await, Vec::<String>::new(), "nobody acts");
    pod(&stage, "web-1-b", &owner, |_| {}).await;
    lead.send_replace(Leadership::Leader);
    assert_eq!(recorded(&stage).await, ["shop/web-1-a", "shop/web-1-b"]);
    // Another takes over, and there is nothing left to do.
    let writes = || stage.server.revision();
    let before = writes();
    lead.send_replace(Leadership::Follower);
    lead.send_replace(Leadership::Leader);
    assert_eq!(recorded(&stage).await.len(), 2);
    assert_eq!(writes(), before);
}

#[tokio::test(start_paused = true)]
async fn who_got_a_node_while_nobody_acted_is_recorded_by_the_next_who_does() {
    let mut stage = Stage::new().await;
    let lead = stage
        .start_as(Leadership::Leader, binding(Switch::On), Some(endpoint()))
        .await;
    let owner = web(&stage, true).await;
    assert_eq!(recorded(&stage).await, Vec::<String>::new());
    lead.send_replace(Leadership::Follower);
    sleep(Duration::from_secs(1)).await;
    pod(&stage, "web-1-a", &owner, |_| {}).await;
    assert_eq!(recorded(&stage).await, Vec::<String>::new(), "nobody acts");
    lead.send_replace(Leadership::Leader);
    assert_eq!(recorded(&stage).await, ["shop/web-1-a"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_recorded_who_asks_otherwise_or_needs_nothing() {
    let stage = started(Switch::On).await;
    let owner = web(&stage, true).await;
    sleep(Duration::from_secs(5)).await;
    let changes: [(&str, Edit); 5] = [
        ("no-node", |pod| pod["spec"]["nodeName"] = Value::Null),
        ("on-host", |pod| pod["spec"]["hostNetwork"] = json!(true)),
        ("other-labels", |pod| {
            pod["metadata"]["labels"]["app"] = json!("db");
        }),
        ("names-a-pool", |pod| {
            pod["metadata"]["annotations"] = json!({annotation::IPPOOL: r#"{"ipv4":["p"]}"#});
        }),
        ("unreadable", |pod| {
            pod["metadata"]["annotations"][annotation::RECLAIM] = json!("?");
        }),
    ];
    for (name, change) in changes {
        pod(&stage, name, &owner, change).await;
    }
    assert_eq!(recorded(&stage).await, Vec::<String>::new());
    pod(&stage, "web-1-a", &owner, |_| {}).await;
    assert_eq!(recorded(&stage).await, ["shop/web-1-a"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_recorded_early_where_it_is_off() {
    let stage = started(Switch::Off).await;
    let owner = web(&stage, true).await;
    pod(&stage, "web-1-a", &owner, |_| {}).await;
    assert_eq!(recorded(&stage).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn of_two_that_believe_to_lead_one_records_and_the_other_finds_it() {
    let mut stage = Stage::new().await;
    for _ in 0..2 {
        stage
            .start_as(Leadership::Leader, binding(Switch::On), Some(endpoint()))
            .await;
    }
    let owner = web(&stage, true).await;
    sleep(Duration::from_secs(5)).await;
    for name in ["web-1-a", "web-1-b", "web-1-c"] {
        pod(&stage, name, &owner, |_| {}).await;
    }
    let found = recorded(&stage).await;
    assert_eq!(found, ["shop/web-1-a", "shop/web-1-b", "shop/web-1-c"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_went_while_its_pool_was_made_is_not_recorded() {
    let mut stage = Stage::new().await;
    let owner = web(&stage, true).await;
    pod(&stage, "web-1-a", &owner, |_| {}).await;
    pod(&stage, "web-1-b", &owner, |_| {}).await;
    let lead = stage
        .start_as(Leadership::Follower, binding(Switch::On), Some(endpoint()))
        .await;
    lead.send_replace(Leadership::Leader);
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), "shop");
    let now = DeleteParams::default().grace_period(0);
    pods.delete("web-1-a", &now).await.unwrap();
    assert_eq!(recorded(&stage).await, ["shop/web-1-b"]);
}
