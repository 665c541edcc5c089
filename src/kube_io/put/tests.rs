use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::Response;
use serde_json::json;

use super::*;
use crate::api::SpiderIPPool;

/// A client whose every request is noted and answered by `answer`.
fn client(answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static) -> (Client, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, noted) = (answer.clone(), noted.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            noted.0.lock().unwrap().push((head, body.to_vec()));
            Ok::<_, Infallible>(answer())
        }
    });
    (Client::new(service, "default"), seen)
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Noted>>>);

type Noted = (http::request::Parts, Vec<u8>);

impl Seen {
    fn only(&self) -> Noted {
        let mut all = self.0.lock().unwrap();
        assert_eq!(all.len(), 1, "one request, never a second try");
        all.remove(0)
    }
}

fn pool() -> SpiderIPPool {
    serde_json::from_value(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
        "metadata": {"name": "p4", "uid": "u-1", "resourceVersion": "7"},
        "spec": {"subnet": "10.6.0.0/16", "newer": {"kept": true}},
        "status": {"allocatedIPCount": 1, "allocatedIPs": "{}"}
    }))
    .unwrap()
}

fn yes(body: &serde_json::Value) -> Response<Body> {
    Response::new(Body::from(serde_json::to_vec(body).unwrap()))
}

#[tokio::test]
async fn a_status_write_sends_the_whole_object_and_takes_the_new_metadata() {
    let (client, seen) = client(|| {
        yes(&json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"name": "p4", "uid": "u-1", "resourceVersion": "8", "generation": 2}
        }))
    });
    let mut object = pool();
    replace(&client, Part::Status, &mut object, Reply::MetadataOnly)
        .await
        .unwrap();

    let (head, body) = seen.only();
    assert_eq!(head.method, Method::PUT);
    assert_eq!(
        head.uri,
        "/apis/spiderpool.spidernet.io/v2beta1/spiderippools/p4/status"
    );
    assert_eq!(
        head.headers[ACCEPT],
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    );
    let sent: SpiderIPPool = serde_json::from_slice(&body).unwrap();
    assert_eq!(sent, pool());

    let mut expected = pool();
    expected.metadata.resource_version = Some("8".to_owned());
    expected.metadata.generation = Some(2);
    assert_eq!(object, expected);
}

#[tokio::test]
async fn a_full_answer_replaces_the_object() {
    let (client, seen) = client(|| {
        let mut stored = pool();
        stored.spec.default = Some(false);
        stored.metadata.resource_version = Some("8".to_owned());
        yes(&serde_json::to_value(stored).unwrap())
    });
    let mut object = pool();
    replace(&client, Part::Main, &mut object, Reply::Full)
        .await
        .unwrap();
    let (head, _) = seen.only();
    assert!(head.uri.path().ends_with("/spiderippools/p4"));
    assert_eq!(object.spec.default, Some(false));
    assert_eq!(object.metadata.resource_version.as_deref(), Some("8"));
}

#[tokio::test]
async fn a_write_without_a_fence_is_not_sent() {
    let (client, seen) = client(|| yes(&json!({})));
    for missing in ["name", "uid", "resourceVersion"] {
        let mut object = serde_json::to_value(pool()).unwrap();
        object["metadata"].as_object_mut().unwrap().remove(missing);
        let mut object: SpiderIPPool = serde_json::from_value(object).unwrap();
        let error = replace(&client, Part::Main, &mut object, Reply::Full)
            .await
            .unwrap_err();
        assert_eq!(error.outcome(), Outcome::Fatal);
        assert!(
            error.to_string().contains(&format!("metadata.{missing}")),
            "{error}"
        );
    }
    assert!(seen.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_conflict_leaves_the_object_as_it_was() {
    let (client, seen) = client(|| {
        let mut response = yes(&json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409,
            "reason": "Conflict", "message": "the object has been modified"
        }));
        *response.status_mut() = StatusCode::CONFLICT;
        response
    });
    let mut object = pool();
    let error = replace(&client, Part::Status, &mut object, Reply::MetadataOnly)
        .await
        .unwrap_err();
    seen.only();
    assert_eq!(error.outcome(), Outcome::Conflict);
    assert_eq!(
        error.to_string(),
        "SpiderIPPool p4 was not replaced: the API server answered 409 Conflict: the object has been modified"
    );
    assert_eq!(object, pool());
}

#[tokio::test]
async fn an_overloaded_server_is_heard_and_asked_once() {
    let (client, seen) = client(|| {
        Response::builder()
            .status(StatusCode::TOO_MANY_REQUESTS)
            .header(RETRY_AFTER, "3")
            .body(Body::from(
                b"Too many requests, please try again later.\n".to_vec(),
            ))
            .unwrap()
    });
    let error = replace(&client, Part::Main, &mut pool(), Reply::Full)
        .await
        .unwrap_err();
    seen.only();
    let after = Some(Duration::from_secs(3));
    assert_eq!(error.outcome(), Outcome::Retryable { after });
    assert!(
        error.to_string().ends_with("please try again later."),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_leaves_the_outcome_open() {
    let (client, _) = client(|| Response::new(Body::from(b"<html>".to_vec())));
    let mut object = pool();
    let error = replace(&client, Part::Main, &mut object, Reply::Full)
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(object, pool());
}

#[tokio::test]
async fn a_lost_connection_leaves_the_outcome_open() {
    let service = tower::service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    let client = Client::new(service, "default");
    let error = replace(&client, Part::Main, &mut pool(), Reply::Full)
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
}
