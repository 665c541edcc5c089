//! The server as a `kube` client sees it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kubesim::Server;
use serde_json::{Value, json};

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str, data: &str) -> ConfigMap {
    from(json!({ "metadata": { "name": name }, "data": { "a": data } }))
}

fn code(error: &kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_put_is_a_conflict_and_an_equal_one_is_no_revision() {
    let server = Server::new(1);
    let maps: Api<ConfigMap> = Api::namespaced(server.client("test"), "default");
    let first = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let mut next = first.clone();
    next.data
        .get_or_insert_default()
        .insert("a".to_owned(), "2".to_owned());
    let second = maps
        .replace("a", &PostParams::default(), &next)
        .await
        .unwrap();
    assert_ne!(
        first.metadata.resource_version,
        second.metadata.resource_version
    );
    let stale = maps
        .replace("a", &PostParams::default(), &next)
        .await
        .unwrap_err();
    assert_eq!(code(&stale), (409, "Conflict".to_owned()));
    let before = server.revision();
    maps.replace("a", &PostParams::default(), &second)
        .await
        .unwrap();
    assert_eq!(server.revision(), before);
    let taken = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(code(&taken), (409, "AlreadyExists".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_each_change_once_and_selectors_turn_changes_into_arrivals_and_departures() {
    let server = Server::new(1);
    let maps: Api<ConfigMap> = Api::namespaced(server.client("test"), "default");
    let params = WatchParams::default().labels("on=yes").timeout(60);
    let stream = maps
        .watch(&params, &server.revision().to_string())
        .await
        .unwrap();
    pin_mut!(stream);
    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let label = |value: Value| Patch::Merge(json!({ "metadata": { "labels": { "on": value } } }));
    for value in [json!("yes"), json!("no"), json!("yes")] {
        maps.patch("a", &PatchParams::default(), &label(value))
            .await
            .unwrap();
    }
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = stream.next().await {
        seen.push(match event.unwrap() {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) => "bookmark",
            WatchEvent::Error(_) => "error",
        });
    }
    assert_eq!(seen, ["added", "deleted", "added", "deleted"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_before_the_kept_history_is_told_410() {
    let server = Server::new(1);
    let maps: Api<ConfigMap> = Api::namespaced(server.client("test"), "default");
    let from = server.revision().to_string();
    maps.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    server.compact(server.revision());
    let stream = maps.watch(&WatchParams::default(), &from).await.unwrap();
    pin_mut!(stream);
    match stream.next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        }
        other => panic!("{other:?}"),
    }
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_an_object_until_the_last_goes() {
    let server = Server::new(1);
    let maps: Api<ConfigMap> = Api::namespaced(server.client("test"), "default");
    let map = from(json!({ "metadata": { "name": "a", "finalizers": ["x.io/y"] } }));
    maps.create(&PostParams::default(), &map).await.unwrap();
    let going = maps
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(going.metadata.deletion_timestamp.is_some());
    assert!(maps.get_opt("a").await.unwrap().is_some());
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("a", &PatchParams::default(), &free)
        .await
        .unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn pages_are_of_one_version_and_cover_everything() {
    let server = Server::new(1);
    let maps: Api<ConfigMap> = Api::namespaced(server.client("test"), "default");
    for at in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("m{at}"), "1"))
            .await
            .unwrap();
    }
    let mut params = ListParams::default().limit(2);
    let mut names = Vec::new();
    loop {
        let page = maps.list(&params).await.unwrap();
        names.extend(page.items.into_iter().filter_map(|map| map.metadata.name));
        maps.delete("m4", &DeleteParams::default()).await.ok();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_gets_its_defaults_and_counts_what_it_asks_for() {
    let server = Server::new(1);
    let deployments: Api<Deployment> = Api::namespaced(server.client("test"), "default");
    let deployment = from(json!({
        "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
        "status": { "replicas": 7 },
    }));
    let made = deployments
        .create(&PostParams::default(), &deployment)
        .await
        .unwrap();
    let spec = made.spec.unwrap();
    assert_eq!(
        (spec.replicas, spec.revision_history_limit),
        (Some(1), Some(10))
    );
    assert_eq!(
        (made.metadata.generation, made.status.unwrap().replicas),
        (Some(1), None)
    );
    let status = Patch::Merge(json!({ "status": { "replicas": 1 }, "spec": { "replicas": 9 } }));
    let after = deployments
        .patch_status("web", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(
        (after.metadata.generation, after.spec.unwrap().replicas),
        (Some(1), Some(1))
    );
    let scaled = deployments
        .patch_scale(
            "web",
            &PatchParams::default(),
            &Patch::Merge(json!({ "spec": { "replicas": 3 } })),
        )
        .await
        .unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(3));
    assert_eq!(
        deployments.get("web").await.unwrap().metadata.generation,
        Some(2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_running_pod_ends_in_two_steps_and_a_waiting_one_at_once() {
    let server = Server::new(1);
    let pods: Api<Pod> = Api::namespaced(server.client("test"), "default");
    let pod = |name: &str, node: Value| {
        from(json!({
            "metadata": { "name": name },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
        }))
    };
    pods.create(&PostParams::default(), &pod("waiting", Value::Null))
        .await
        .unwrap();
    pods.delete("waiting", &DeleteParams::default())
        .await
        .unwrap();
    assert!(pods.get_opt("waiting").await.unwrap().is_none());
    pods.create(&PostParams::default(), &pod("placed", json!("n")))
        .await
        .unwrap();
    pods.delete("placed", &DeleteParams::default())
        .await
        .unwrap();
    let going = pods.get("placed").await.unwrap();
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("placed", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("placed").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_in_a_namespace_that_is_not_there() {
    let server = Server::new(1);
    let maps: Api<ConfigMap> = Api::namespaced(server.client("test"), "nowhere");
    let missing = maps
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(code(&missing), (404, "NotFound".to_owned()));
    let all: Api<Namespace> = Api::all(server.client("test"));
    assert_eq!(
        all.list(&ListParams::default()).await.unwrap().items.len(),
        4
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_version_to_come_waits_and_then_gives_up() {
    let server = Server::new(1);
    let maps: Api<ConfigMap> = Api::namespaced(server.client("test"), "default");
    let start = tokio::time::Instant::now();
    let params = ListParams::default()
        .at("9999")
        .matching(kube::api::VersionMatch::NotOlderThan);
    let error = maps.list(&params).await.unwrap_err();
    assert_eq!(code(&error), (504, "Timeout".to_owned()));
    assert_eq!(start.elapsed().as_secs(), Duration::from_secs(3).as_secs());
}
