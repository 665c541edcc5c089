//! A small API server at the client's HTTP seam: objects, versions, watches, and faults on order.
//!
//! Owns: just enough of the API server's rules that a wrong write is refused here too: versions and
//! uids are compared, `/status` changes the status and nothing else, a list and a watch honour
//! their selectors. `crates/kubesim` is to take its place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::locked;
use crate::api::{SpiderIPPool, convert, names};

/// Plural, namespace (empty for cluster-scoped kinds) and name.
type Key = (String, String, String);

/// What happens to the next write of a pool's status.
pub(super) enum Fault {
    /// It is carried out, and its answer lost.
    LoseAnswer,
    /// It does not arrive, and its sender is not told.
    LoseRequest,
    /// Its sender is not told, and it arrives so much later.
    Late(Duration),
    /// It takes so long.
    Slow(Duration),
    /// Somebody else writes first.
    WriteFirst(Box<dyn FnOnce(&mut Value) + Send>),
}

struct Event {
    version: u64,
    key: Key,
    kind: &'static str,
    object: Value,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    history: Vec<Event>,
    faults: VecDeque<Fault>,
    calls: Vec<String>,
    uids: u64,
    /// Kinds of which no call is answered.
    away: BTreeSet<String>,
    /// What every answer takes in addition.
    latency: Duration,
}

/// The cluster.
#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::default(),
            version: Arc::new(watch::Sender::new(1)),
        }
    }

    /// A client whose every call fails once `alive` is false, as those of a dead process do.
    pub(super) fn client(&self, alive: &Arc<AtomicBool>) -> Client {
        let (world, alive) = (self.clone(), Arc::clone(alive));
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (world, alive) = (world.clone(), Arc::clone(&alive));
            async move {
                if !alive.load(Ordering::SeqCst) {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                }
                // An answer takes a moment, in which other requests come.
                let latency = Duration::from_millis(2) + locked(&world.state).latency;
                tokio::time::sleep(latency).await;
                let (head, body) = request.into_parts();
                if let Some(delay) = world.slowness(&head) {
                    tokio::time::sleep(delay).await;
                }
                let body = body.collect_bytes().await.map_err(std::io::Error::other)?;
                world.answer(&head, &body)
            }
        });
        Client::new(service, "default")
    }

    /// Puts an object there, as somebody else's write; a pool is admitted on the way.
    pub(super) fn put(&self, plural: &str, mut object: Value) -> String {
        let mut state = locked(&self.state);
        let meta = &object["metadata"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let key = (
            plural.to_owned(),
            text(&meta["namespace"]),
            text(&meta["name"]),
        );
        if meta["uid"].is_null() {
            state.uids += 1;
            object["metadata"]["uid"] = json!(format!("uid-{}", state.uids));
        }
        let uid = text(&object["metadata"]["uid"]);
        if plural == "spiderippools" && object["metadata"]["annotations"].is_null() {
            let pool: SpiderIPPool = serde_json::from_value(typed(plural, object.clone())).unwrap();
            if let Ok(pool) = convert::pool(&pool) {
                object["metadata"]["annotations"] =
                    json!({names::annotation::ADMITTED: pool.admission_hash()});
            }
        }
        self.store(&mut state, &key, object);
        uid
    }

    /// Changes an object, as somebody else's write.
    pub(super) fn edit(&self, plural: &str, ns: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let key = (plural.to_owned(), ns.to_owned(), name.to_owned());
        let mut state = locked(&self.state);
        let mut object = state.objects[&key].clone();
        edit(&mut object);
        self.store(&mut state, &key, object);
    }

    pub(super) fn get(&self, plural: &str, ns: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), ns.to_owned(), name.to_owned());
        locked(&self.state).objects.get(&key).cloned()
    }

    pub(super) fn delete(&self, plural: &str, ns: &str, name: &str) {
        let key = (plural.to_owned(), ns.to_owned(), name.to_owned());
        self.drop_object(&mut locked(&self.state), &key);
    }

    /// Has the next writes of a pool's status go wrong.
    pub(super) fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        locked(&self.state).faults.extend(faults);
    }

    /// Calls about objects of this kind fail until [`Self::heal`].
    pub(super) fn lose(&self, plural: &str) {
        locked(&self.state).away.insert(plural.to_owned());
    }

    /// Every answer takes so much longer until [`Self::heal`].
    pub(super) fn slow_down(&self, latency: Duration) {
        locked(&self.state).latency = latency;
    }

    /// What was to go wrong no longer does.
    pub(super) fn heal(&self) {
        let mut state = locked(&self.state);
        state.faults.clear();
        state.away.clear();
        state.latency = Duration::ZERO;
    }

    fn slowness(&self, head: &http::request::Parts) -> Option<Duration> {
        let is_fated = head.method == Method::PUT && Call::parse(head.uri.path()).status;
        let mut state = locked(&self.state);
        match state.faults.front() {
            Some(Fault::Slow(delay)) if is_fated => {
                let delay = *delay;
                state.faults.pop_front();
                Some(delay)
            }
            _ => None,
        }
    }

    /// The calls so far that begin with `text`, such as `PUT /apis`.
    pub(super) fn calls(&self, text: &str) -> Vec<String> {
        let calls = &locked(&self.state).calls;
        calls
            .iter()
            .filter(|c| c.starts_with(text))
            .cloned()
            .collect()
    }

    /// The objects of a kind, as they are.
    pub(super) fn all(&self, plural: &str) -> Vec<Value> {
        let objects = &locked(&self.state).objects;
        let of_kind = objects.iter().filter(|((kind, ..), _)| kind == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    fn store(&self, state: &mut State, key: &Key, mut object: Value) {
        let version = *self.version.borrow() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let object = typed(&key.0, object);
        let kind = match state.objects.insert(key.clone(), object.clone()) {
            None => "ADDED",
            Some(_) => "MODIFIED",
        };
        state.history.push(Event {
            version,
            key: key.clone(),
            kind,
            object,
        });
        self.version.send_replace(version);
    }

    fn drop_object(&self, state: &mut State, key: &Key) {
        if let Some(mut object) = state.objects.remove(key) {
            let version = *self.version.borrow() + 1;
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            let kind = "DELETED";
            state.history.push(Event {
                version,
                key: key.clone(),
                kind,
                object,
            });
            self.version.send_replace(version);
        }
    }

    fn answer(&self, head: &http::request::Parts, body: &[u8]) -> std::io::Result<Response<Body>> {
        let uri = head.uri.to_string();
        let query: BTreeMap<String, String> = axum::extract::Query::try_from_uri(&head.uri)
            .map(|q| q.0)
            .unwrap_or_default();
        let call = Call::parse(head.uri.path());
        let mut state = locked(&self.state);
        let watching = query.get("watch").is_some_and(|w| w == "true" || w == "1");
        let verb = if watching {
            "WATCH"
        } else {
            head.method.as_str()
        };
        state.calls.push(format!("{verb} {uri}"));
        if state.away.contains(&call.key.0) {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        if watching {
            drop(state);
            return Ok(self.watch(&call.key.0, query));
        }
        let input = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        Ok(match (&head.method, call.named) {
            (&Method::GET, true) => found(state.objects.get(&call.key), &call.key),
            (&Method::GET, false) => list(&state, &call, &query, *self.version.borrow()),
            (&Method::POST, _) => self.create(&mut state, call, input()),
            (&Method::PUT, _) => {
                let accept = head.headers.get(http::header::ACCEPT);
                let bare = accept.is_some_and(|a| {
                    String::from_utf8_lossy(a.as_bytes()).contains("PartialObjectMetadata")
                });
                self.put_call(&mut state, &call, input(), bare)?
            }
            (&Method::DELETE, _) => self.delete_call(&mut state, &call, &input()),
            _ => ok(&input()),
        })
    }

    fn create(&self, state: &mut State, call: Call, mut object: Value) -> Response<Body> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let key = (call.key.0, call.key.1, name.to_owned());
        if state.objects.contains_key(&key) {
            return refused(409, "AlreadyExists", "it exists");
        }
        state.uids += 1;
        object["metadata"]["uid"] = json!(format!("uid-{}", state.uids));
        self.store(state, &key, object);
        found(state.objects.get(&key), &key)
    }

    fn put_call(
        &self,
        state: &mut State,
        call: &Call,
        input: Value,
        bare: bool,
    ) -> std::io::Result<Response<Body>> {
        let fault = (call.status).then(|| state.faults.pop_front()).flatten();
        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        match fault {
            Some(Fault::LoseRequest) => return Err(lost),
            Some(Fault::WriteFirst(edit)) => {
                let mut object = state.objects[&call.key].clone();
                edit(&mut object);
                self.store(state, &call.key, object);
            }
            Some(Fault::LoseAnswer) => {
                self.replace(state, call, input);
                return Err(lost);
            }
            Some(Fault::Late(delay)) => {
                let (world, call) = (self.clone(), call.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    world.replace(&mut locked(&world.state), &call, input);
                });
                return Err(lost);
            }
            Some(Fault::Slow(_)) | None => {}
        }
        if let Some(refusal) = self.replace(state, call, input) {
            return Ok(refusal);
        }
        let object = &state.objects[&call.key];
        Ok(ok(&if bare {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
        } else {
            object.clone()
        }))
    }

    fn delete_call(&self, state: &mut State, call: &Call, options: &Value) -> Response<Body> {
        let wanted = &options["preconditions"]["uid"];
        let Some(object) = state.objects.get(&call.key) else {
            return found(None, &call.key);
        };
        if !wanted.is_null() && object["metadata"]["uid"] != *wanted {
            return refused(409, "Conflict", "another uid");
        }
        self.drop_object(state, &call.key);
        ok(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    fn replace(&self, state: &mut State, call: &Call, input: Value) -> Option<Response<Body>> {
        let Some(there) = state.objects.get(&call.key) else {
            return Some(found(None, &call.key));
        };
        for fence in ["uid", "resourceVersion"] {
            if there["metadata"][fence] != input["metadata"][fence] {
                return Some(refused(409, "Conflict", "the object has been modified"));
            }
        }
        let object = if call.status {
            let mut object = there.clone();
            object["status"] = input["status"].clone();
            object
        } else {
            input
        };
        self.store(state, &call.key, object);
        None
    }

    fn watch(&self, plural: &str, query: BTreeMap<String, String>) -> Response<Body> {
        let after = query
            .get("resourceVersion")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        let (world, plural) = (self.clone(), plural.to_owned());
        let changes = self.version.subscribe();
        let events = stream::unfold((after, changes), move |(after, mut changes)| {
            let (world, plural, query) = (world.clone(), plural.clone(), query.clone());
            async move {
                loop {
                    changes.borrow_and_update();
                    let next = world.next_event(after, &plural, &query);
                    if let Some((version, line)) = next {
                        return Some((Ok::<_, Infallible>(line), (version, changes)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Response::new(Body::from_stream(events))
    }

    fn next_event(
        &self,
        after: u64,
        plural: &str,
        query: &BTreeMap<String, String>,
    ) -> Option<(u64, Bytes)> {
        let state = locked(&self.state);
        let event = state.history.iter().find(|event| {
            event.version > after && event.key.0 == plural && selected(&event.object, query)
        })?;
        let line = json!({"type": event.kind, "object": event.object});
        Some((event.version, Bytes::from(format!("{line}\n"))))
    }
}

/// What a path names.
#[derive(Clone)]
struct Call {
    key: Key,
    named: bool,
    status: bool,
}

impl Call {
    /// `/api/v1/…` or `/apis/group/version/…`.
    fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let rest = if parts[0] == "api" {
            &parts[2..]
        } else {
            &parts[3..]
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let name = rest.get(1).copied().unwrap_or_default();
        Self {
            key: (rest[0].to_owned(), namespace.to_owned(), name.to_owned()),
            named: !name.is_empty(),
            status: rest.get(2) == Some(&"status"),
        }
    }
}

fn list(
    state: &State,
    call: &Call,
    query: &BTreeMap<String, String>,
    version: u64,
) -> Response<Body> {
    let items: Vec<&Value> = state
        .objects
        .iter()
        .filter(|(key, object)| {
            let here = call.key.1.is_empty() || key.1 == call.key.1;
            key.0 == call.key.0 && here && selected(object, query)
        })
        .map(|(_, object)| object)
        .collect();
    let meta = json!({"resourceVersion": version.to_string()});
    ok(&json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items}))
}

/// True where the object answers `a=b,…` of labels and of the two fields the agent selects by.
fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let all = |selector: Option<&String>, value: &dyn Fn(&str) -> Value| {
        let pairs = selector.map(String::as_str).unwrap_or_default().split(',');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .all(|(k, v)| value(k) == json!(v))
    };
    let label = |key: &str| object["metadata"]["labels"][key].clone();
    let field = |key: &str| match key {
        "metadata.name" => object["metadata"]["name"].clone(),
        "spec.nodeName" => object["spec"]["nodeName"].clone(),
        other => panic!("field selector by {other}"),
    };
    all(query.get("labelSelector"), &label) && all(query.get("fieldSelector"), &field)
}

/// The object with the kind that a typed client wants to see.
fn typed(plural: &str, mut object: Value) -> Value {
    let (api, kind) = match plural {
        "pods" => ("v1", "Pod"),
        "namespaces" => ("v1", "Namespace"),
        "nodes" => ("v1", "Node"),
        "replicasets" => ("apps/v1", "ReplicaSet"),
        "deployments" => ("apps/v1", "Deployment"),
        "statefulsets" => ("apps/v1", "StatefulSet"),
        "jobs" => ("batch/v1", "Job"),
        "rollouts" => ("argoproj.io/v1alpha1", "Rollout"),
        "virtualmachines" => ("kubevirt.io/v1", "VirtualMachine"),
        "virtualmachineinstances" => ("kubevirt.io/v1", "VirtualMachineInstance"),
        "events" => ("events.k8s.io/v1", "Event"),
        "spiderippools" => (names::API_VERSION, names::KIND_POOL),
        "spiderendpoints" => (names::API_VERSION, names::KIND_ENDPOINT),
        "spiderreservedips" => (names::API_VERSION, names::KIND_RESERVED_IP),
        other => panic!("no kind for {other}"),
    };
    object["apiVersion"] = json!(api);
    object["kind"] = json!(kind);
    object
}

fn found(object: Option<&Value>, key: &Key) -> Response<Body> {
    match object {
        Some(object) => ok(object),
        None => refused(
            404,
            "NotFound",
            &format!("{} \"{}\" not found", key.0, key.2),
        ),
    }
}

fn ok(object: &Value) -> Response<Body> {
    Response::new(Body::from(object.to_string()))
}

fn refused(code: u16, reason: &str, message: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
