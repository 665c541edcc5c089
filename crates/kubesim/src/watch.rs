//! Watches: the history from a version on, as a stream of JSON lines.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode, header};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::body::ResponseBody;
use crate::error::{ApiError, Cause};
use crate::read::{MATCH, metadata_only, present, shown, version_of};
use crate::request::{Call, Shape};
use crate::selector::Selector;
use crate::server::Server;
use crate::store::{Change, Commit};
use crate::{object, table};

/// How often a watch that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts at least if it doesn't say; at most twice as long.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1_800);
/// The one way in which a watch's version may be meant.
const NOT_OLDER_THAN: &str = "NotOlderThan";
/// The annotation of the bookmark that ends the initial events.
pub(crate) const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Begins a watch.
///
/// Errors: 422 for parameters that don't go together, 400 and 500 for others that are wrong; a
/// version that is gone, or not there yet, is told in the stream.
pub(crate) async fn start(server: &Server, call: Call) -> Result<Response<ResponseBody>, ApiError> {
    let query = &call.query;
    let selector = Selector::of(&call)?;
    table::check(&call)?;
    let initial = initial_events(&call)?;
    let from = version_of(query.get("resourceVersion")).map_err(ApiError::internal)?;
    let timeout = match query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        _ => DEFAULT_TIMEOUT.mul_f64(1.0 + server.lock().rng.random::<f64>()),
    };
    let too_early = if initial == Some(true) {
        server.wait_for(from).await.err()
    } else {
        None
    };
    let now = Instant::now();
    let mut watch = Watch {
        server: server.clone(),
        selector,
        cursor: from,
        ready: VecDeque::new(),
        deadline: now + timeout,
        bookmark_at: query
            .flag("allowWatchBookmarks")
            .then_some(now + BOOKMARK_EVERY),
        first: true,
        over: false,
        call,
    };
    match too_early {
        Some(error) => watch.end_with(&error),
        None => watch.begin(initial, from),
    }
    let events = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    });
    let mut response = Response::new(ResponseBody::stream(events));
    *response.status_mut() = StatusCode::OK;
    let form = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, form);
    Ok(response)
}

/// Whether the present objects are told first; `None`: the query names a version and no more.
fn initial_events(call: &Call) -> Result<Option<bool>, ApiError> {
    let query = &call.query;
    let matching = query.get(MATCH);
    let asked = query
        .has("sendInitialEvents")
        .then(|| query.flag("sendInitialEvents"));
    if asked.is_none() && matching.is_empty() {
        let anywhere = matches!(query.get("resourceVersion"), "" | "0");
        return Ok(anywhere.then_some(true));
    }
    let mut causes = Vec::new();
    if asked.is_some() && matching != NOT_OLDER_THAN {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        causes.push(Cause::forbidden(MATCH, why));
    }
    if asked.is_none() {
        let why =
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        causes.push(Cause::forbidden(MATCH, why));
    }
    if !matches!(matching, "" | NOT_OLDER_THAN) {
        let known = [NOT_OLDER_THAN.to_owned()];
        causes.push(Cause::unsupported(MATCH, &json!(matching), &known));
    }
    if !matching.is_empty() && !query.get("continue").is_empty() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        causes.push(Cause::forbidden(MATCH, why));
    }
    ApiError::unless_none(&causes)?;
    Ok(asked)
}

struct Watch {
    server: Server,
    call: Call,
    selector: Selector,
    /// Everything up to here has been told.
    cursor: u64,
    ready: VecDeque<Bytes>,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    /// No event was told yet: a table's columns come with the first.
    first: bool,
    over: bool,
}

impl Watch {
    /// Lines up what stands before the history: present objects, or that the version is gone.
    fn begin(&mut self, initial: Option<bool>, from: u64) {
        let server = self.server.clone();
        let state = server.lock();
        if initial != Some(true) {
            if initial.is_some() && from == 0 {
                self.cursor = state.store.revision();
            } else if from < state.store.compacted() {
                self.end_with(&too_old(from, state.store.compacted()));
            }
            return;
        }
        let namespace = (!self.call.namespace.is_empty()).then_some(self.call.namespace.clone());
        let objects: Vec<Arc<Value>> = state
            .store
            .list(&self.call.kind.storage, namespace.as_deref())
            .map(|(_, object)| Arc::clone(object))
            .collect();
        self.cursor = state.store.revision();
        drop(state);
        for object in objects {
            if self.fits(&object) {
                self.push("ADDED", &object);
            }
        }
        if self.bookmark_at.is_some() {
            let annotations = json!({ INITIAL_EVENTS_END: "true" });
            self.push_bookmark(Some(annotations));
        }
    }

    /// Tells of an error, and ends.
    fn end_with(&mut self, error: &ApiError) {
        self.ready.push_back(line("ERROR", &error.to_status()));
        self.over = true;
    }

    fn fits(&self, object: &Arc<Value>) -> bool {
        self.selector
            .matches(&self.call.kind, &shown(&self.call.kind, object))
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            let head = self.server.head().of(&self.call.kind.storage);
            // Waits from here on, so that nothing between the look and the wait is missed.
            let mut moved = pin!(head.notified());
            moved.as_mut().enable();
            if self.collect() {
                continue;
            }
            let now = Instant::now();
            if now >= self.deadline {
                self.over = true;
            } else if self.bookmark_at.is_some_and(|at| at <= now) {
                self.bookmark_at = Some(now + BOOKMARK_EVERY);
                self.push_bookmark(None);
            } else {
                let wake = self
                    .bookmark_at
                    .map_or(self.deadline, |at| at.min(self.deadline));
                // Late or not, there is something to look at now.
                let _ = tokio::time::timeout_at(wake, moved).await;
            }
        }
    }

    /// Lines up what was committed since; false if that is nothing.
    fn collect(&mut self) -> bool {
        let state = self.server.lock();
        if self.cursor < state.store.lost(&self.call.kind.storage) {
            let error = too_old(self.cursor, state.store.compacted());
            drop(state);
            self.end_with(&error);
            return true;
        }
        let head = state.store.revision();
        let commits: Vec<Arc<Commit>> = state
            .store
            .since(self.cursor)
            .filter(|commit| self.concerns(commit))
            .cloned()
            .collect();
        drop(state);
        self.cursor = self.cursor.max(head);
        for commit in commits {
            self.tell(&commit);
        }
        !self.ready.is_empty()
    }

    fn concerns(&self, commit: &Commit) -> bool {
        commit.key.resource == self.call.kind.storage
            && (self.call.namespace.is_empty() || self.call.namespace == commit.key.namespace)
    }

    /// A change as this watch sees it: what begins to fit is added, what no longer does is deleted.
    fn tell(&mut self, commit: &Commit) {
        let before = commit.old.as_ref().is_some_and(|old| self.fits(old));
        let after = commit.change != Change::Deleted && self.fits(&commit.new);
        match (before, after) {
            (false, false) => {}
            (false, true) => self.push("ADDED", &commit.new),
            (true, true) => self.push("MODIFIED", &commit.new),
            (true, false) => {
                let mut last = match (&commit.old, commit.change) {
                    (Some(old), Change::Updated) => old.as_ref().clone(),
                    _ => commit.new.as_ref().clone(),
                };
                let version = json!(commit.revision.to_string());
                object::metadata(&mut last).insert("resourceVersion".to_owned(), version);
                self.push("DELETED", &last);
            }
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let object = present(&self.call.kind, object);
        self.push_shown(kind, object);
    }

    /// Lines up an event, its object in the form that was asked for.
    fn push_shown(&mut self, event: &str, object: Value) {
        let shown = match self.call.shape {
            Shape::Object => object,
            Shape::Table => {
                let meta = json!({ "resourceVersion": object::meta(&object, "resourceVersion") });
                let (kind, query) = (&self.call.kind, &self.call.query);
                table::of(kind, self.server.now(), &[object], &meta, query, self.first)
            }
            Shape::MetadataOnly => metadata_only(&object),
        };
        self.first = false;
        self.ready.push_back(line(event, &shown));
    }

    fn push_bookmark(&mut self, annotations: Option<Value>) {
        let mut metadata = json!({ "resourceVersion": self.cursor.to_string() });
        if let Some(annotations) = annotations {
            object::as_map(&mut metadata).insert("annotations".to_owned(), annotations);
        }
        let kind = &self.call.kind;
        let object =
            json!({ "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata });
        self.push_shown("BOOKMARK", object);
    }
}

fn too_old(wanted: u64, compacted: u64) -> ApiError {
    let oldest = compacted + 1;
    ApiError::expired(format!("too old resource version: {wanted} ({oldest})"))
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = json!({ "type": kind, "object": object }).to_string();
    text.push('\n');
    Bytes::from(text)
}
