//! Objects in memory, read as from an API server: what the agent's own search reads in a plan.
//!
//! Owns: GET of an object and LIST by labels. Never does: write, watch, or anything else.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Query;
use http::{Method, Request, Response, StatusCode, Uri};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

/// Objects by their path.
#[derive(Debug, Default)]
pub(super) struct Shelf(BTreeMap<String, Value>);

impl Shelf {
    /// Puts an object there.
    ///
    /// Errors: it can't be written as JSON.
    pub(super) fn put<K>(&mut self, object: &K) -> serde_json::Result<()>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let folder = K::url_path(&(), object.namespace().as_deref());
        let path = format!("{folder}/{}", object.name_any());
        self.put_at(path, serde_json::to_value(object)?);
        Ok(())
    }

    /// Puts an object at a path.
    pub(super) fn put_at(&mut self, path: String, object: Value) {
        self.0.insert(path, object);
    }

    /// A client whose cluster this is.
    pub(super) fn client(self) -> Client {
        let objects = Arc::new(self);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let objects = Arc::clone(&objects);
            async move { Ok::<_, Infallible>(objects.answer(&request)) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let path = request.uri().path();
        let (status, body) = if request.method() != Method::GET {
            (StatusCode::METHOD_NOT_ALLOWED, failure(405, path))
        } else if let Some(object) = self.0.get(path) {
            (StatusCode::OK, object.clone())
        } else if is_folder(path) {
            (StatusCode::OK, self.list(path, request.uri()))
        } else {
            (StatusCode::NOT_FOUND, failure(404, path))
        };
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        response
    }

    fn list(&self, folder: &str, uri: &Uri) -> Value {
        let wanted = labels(uri);
        let folder = format!("{folder}/");
        let here = self
            .0
            .range(folder.clone()..)
            .take_while(|(path, _)| path.starts_with(&folder));
        let found = here.filter(|(_, object)| {
            let has = |key: &str| object["metadata"]["labels"][key].as_str();
            wanted.iter().all(|(key, value)| has(key) == Some(value))
        });
        let items: Vec<&Value> = found.map(|(_, object)| object).collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
    }
}

/// True for the path of all objects of a cluster-scoped kind: that is all the agent lists.
fn is_folder(path: &str) -> bool {
    path.trim_start_matches('/').split('/').count() == 4 && path.starts_with("/apis/")
}

/// The label selector of a query: equalities only, which is all the agent sends.
fn labels(uri: &Uri) -> Vec<(String, String)> {
    let query = Query::<BTreeMap<String, String>>::try_from_uri(uri);
    let selector = query
        .ok()
        .and_then(|mut query| query.0.remove("labelSelector"));
    let selector = selector.unwrap_or_default();
    let equal = selector.split(',').filter_map(|part| part.split_once('='));
    equal
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn failure(code: u16, path: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": "NotFound", "message": format!("{path} not found")})
}
