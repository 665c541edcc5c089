use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use crate::api::{SpiderEndpoint, names};
use crate::controller::testing::{Stage, options};

/// An address kept for Pod `shop/<pod>` of this StatefulSet.
fn kept(pod: &str, owner: &str) -> Value {
    json!({
        "pod": format!("shop/{pod}"), "podUid": format!("former-{pod}"), "nic": "eth0",
        "owner": owner, "kept": true,
    })
}

/// StatefulSet `db` of two, and addresses kept for three ordinals of it and one of a namesake.
async fn stage() -> (Stage, String) {
    let stage = Stage::new().await;
    let set = stage.stateful_set("db", 2).await;
    let records = json!({
        "10.6.0.10": kept("db-0", &set),
        "10.6.0.11": kept("db-1", &set),
        "10.6.0.12": kept("db-2", &set),
        "10.6.0.13": kept("db-0", "a-former-set"),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    (stage, set)
}

#[tokio::test(start_paused = true)]
async fn only_what_this_very_set_wants_stays_kept() {
    let (mut stage, _) = stage().await;
    stage.start(options()).await;
    stage.comes_to("net", &[-10, -11]).await;
    assert_eq!(stage.stays("net").await, [-10, -11]);
    stage.stateful_set("db", 1).await;
    stage.comes_to("net", &[-10]).await;
    let sets: Api<StatefulSet> = Api::namespaced(stage.client.clone(), "shop");
    sets.delete("db", &DeleteParams::default()).await.unwrap();
    stage.comes_to("net", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn switched_off_nothing_is_kept() {
    let (mut stage, _) = stage().await;
    let mut off = options();
    off.stateful_sets = false;
    stage.start(off).await;
    stage.comes_to("net", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_goes_once_the_next_pod_has_one_of_another_pool() {
    let (mut stage, set) = stage().await;
    stage.pool("next", "10.6.0.20-10.6.0.29", &json!({})).await;
    stage.start(options()).await;
    stage.comes_to("net", &[-10, -11]).await;
    let uid = stage.pod("db-0").await;
    let moved = json!({
        "pod": "shop/db-0", "podUid": uid, "nic": "eth0", "node": "n1", "sandbox": "s", "owner": set,
    });
    // Another interface's address supersedes nothing.
    let mut other = moved.clone();
    other["nic"] = json!("net1");
    stage
        .pool("next", "10.6.0.20-10.6.0.29", &json!({"10.6.0.21": other}))
        .await;
    assert_eq!(stage.stays("net").await, [-10, -11]);
    let both = json!({"10.6.0.20": moved, "10.6.0.21": other});
    stage.pool("next", "10.6.0.20-10.6.0.29", &both).await;
    stage.comes_to("net", &[-11]).await;
    assert_eq!(stage.recorded("next").await, [20, 21]);
}

#[tokio::test(start_paused = true)]
async fn the_former_pod_s_endpoint_goes_with_its_address_and_the_next_one_s_stays() {
    let (mut stage, _) = stage().await;
    for (pod, uid) in [("db-1", "next-db-1"), ("db-2", "former-db-2")] {
        let status = json!({
            "current": {"uid": uid, "node": "n1", "ips": []},
            "ownerControllerType": "StatefulSet", "ownerControllerName": "db",
        });
        stage
            .put(json!({
                "apiVersion": names::API_VERSION, "kind": "SpiderEndpoint",
                "metadata": {"name": pod, "namespace": "shop", "finalizers": [names::FINALIZER]},
                "status": status,
            }))
            .await;
    }
    stage.stateful_set("db", 1).await;
    stage.start(options()).await;
    stage.comes_to("net", &[-10]).await;
    let endpoints: Api<SpiderEndpoint> = Api::namespaced(stage.client.clone(), "shop");
    assert!(stage.get(endpoints.clone(), "db-2").await.is_none());
    assert!(stage.get(endpoints, "db-1").await.is_some());
}
