use std::convert::Infallible;
use std::sync::Mutex;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::api::SpiderIPPool;

fn pool(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
        "metadata": {
            "name": name, "uid": name, "resourceVersion": version.to_string(),
            "managedFields": [{"manager": "kubectl"}]
        },
        "spec": {"subnet": "10.6.0.0/16"}
    })
}

/// An API server with pool `a` and one that has no spec, on which a watch shows `a` change.
fn server() -> Client {
    let service = tower::service_fn(|request: Request<Body>| async move {
        let body = if request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("watch=true")
        {
            let event = json!({"type": "MODIFIED", "object": pool("a", 5)});
            format!("{event}\n")
        } else {
            let mut broken = pool("broken", 2);
            broken.as_object_mut().unwrap().remove("spec");
            json!({
                "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPoolList",
                "metadata": {"resourceVersion": "3"}, "items": [pool("a", 1), broken]
            })
            .to_string()
        };
        Ok::<_, Infallible>(Response::new(Body::from(body.into_bytes())))
    });
    Client::new(service, "default")
}

fn version(cache: &Cache<SpiderIPPool>, name: &str) -> Option<String> {
    cache
        .get(&Key::cluster(name))?
        .metadata
        .resource_version
        .clone()
}

#[tokio::test(start_paused = true)]
async fn a_cache_lists_watches_and_tells() {
    let cache = Cache::<SpiderIPPool>::new();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    cache.on_change(move |change| {
        let version = |o: &Arc<SpiderIPPool>| o.metadata.resource_version.clone().unwrap();
        told.send((
            change.key.to_string(),
            change.old.object().map(version),
            change.new.object().map(version),
        ))
        .unwrap();
    });
    assert!(!cache.is_synced());

    let fed = tokio::spawn(cache.clone().run(
        Api::all(server()),
        watcher::Config::default(),
        |_| {},
    ));
    cache.synced().await;
    assert_eq!(
        heard.recv().await.unwrap(),
        ("a".to_owned(), None, Some("1".to_owned()))
    );
    // It is there, and can't be read.
    let (key, _, new) = heard.recv().await.unwrap();
    assert_eq!((key.as_str(), new), ("broken", None));
    assert_eq!(
        heard.recv().await.unwrap(),
        ("a".to_owned(), Some("1".to_owned()), Some("5".to_owned()))
    );
    assert_eq!(version(&cache, "a").as_deref(), Some("5"));
    assert!(cache.list()[0].metadata.managed_fields.is_none());
    let unreadable = cache.unreadable();
    assert!(
        unreadable[&Key::cluster("broken")].reason.contains("spec"),
        "{unreadable:?}"
    );
    fed.abort();
}

#[test]
fn a_reader_sees_its_own_write_at_once() {
    let cache = Cache::<SpiderIPPool>::new();
    let told = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&told);
    cache.on_change(move |_| *counted.lock().unwrap() += 1);

    let read = |version| serde_json::from_value::<SpiderIPPool>(pool("a", version)).unwrap();
    cache.apply_written(read(4));
    cache.apply_written(read(3));
    assert_eq!(version(&cache, "a").as_deref(), Some("4"));
    cache.apply_gone(&Key::cluster("a"), "another");
    cache.apply_gone(&Key::cluster("a"), "a");
    assert_eq!(version(&cache, "a"), None);
    assert_eq!(*told.lock().unwrap(), 2);
    assert_eq!(cache.look(BTreeMap::len), 0);
}
