//! The server: all state behind one lock, and a request at a time.
//!
//! Nothing runs by itself: no task, no thread, no timer beyond those of a request that waits. The
//! lock is never held across an await.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use jiff::Timestamp;
use kube_cel::Validator;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::body::ResponseBody;
use crate::clock::{Clock, TokioClock};
use crate::error::ApiError;
use crate::head::Head;
use crate::kinds::Kinds;
use crate::request::{Call, Verb};
use crate::store::{Commit, Store};
use crate::{custom, discovery, openapi, read, watch as watches, write};

/// How long a read waits for a version that is not there yet.
const FUTURE_VERSION_WAIT: Duration = Duration::from_secs(3);
/// The default epoch: the clock of a server that was given none starts here.
const EPOCH: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// Called with each revision, in order, while the server is locked: it must not call the server.
pub type Observer = Box<dyn FnMut(&Commit) + Send>;

/// An API server in memory. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The newest revision, for those that wait for one.
    head: Head,
    clock: Box<dyn Clock>,
}

/// Everything that changes.
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) kinds: Kinds,
    pub(crate) rng: StdRng,
    pub(crate) validator: Validator,
    observers: Vec<Observer>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server with the namespaces a new cluster has. Every random choice follows from `seed`.
    ///
    /// Its clock is tokio's, from the first of January 2026: pause it, and it stands. Must be
    /// called in a tokio runtime.
    pub fn new(seed: u64) -> Self {
        Self::with_clock(seed, TokioClock::starting_at(EPOCH))
    }

    /// [`Server::new`] with a clock of the caller's.
    pub fn with_clock(seed: u64, clock: impl Clock + 'static) -> Self {
        let state = State {
            store: Store::default(),
            kinds: Kinds::default(),
            rng: StdRng::seed_from_u64(seed),
            validator: Validator::new(),
            observers: Vec::new(),
        };
        let server = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                head: Head::default(),
                clock: Box::new(clock),
            }),
        };
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            server.turn(|state, now| write::seed_namespace(state, now, namespace));
        }
        server
    }

    /// Calls `observer` with each revision from now on.
    pub fn observe(&self, observer: impl FnMut(&Commit) + Send + 'static) {
        self.lock().observers.push(Box::new(observer));
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.lock().store.revision()
    }

    /// Forgets the history up to a revision: watches and pages from before get 410.
    pub fn compact(&self, to: u64) {
        self.lock().store.compact(to);
    }

    /// Every stored object, for those that judge from outside.
    pub fn objects(&self, resource: &str) -> Vec<Arc<Value>> {
        let state = self.lock();
        state
            .store
            .list(&Arc::from(resource), None)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn head(&self) -> &Head {
        &self.shared.head
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Runs `work` under the lock, and tells those that wait of what it committed.
    pub(crate) fn turn<T>(&self, work: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        let before = state.store.revision();
        let done = work(&mut state, now);
        let after = state.store.revision();
        if after != before {
            let resources = state.tell(before);
            drop(state);
            self.shared.head.set(after, &resources);
        }
        done
    }

    /// Answers a request whose body is there.
    pub(crate) async fn answer(
        &self,
        head: http::request::Parts,
        body: Bytes,
        actor: Option<Arc<str>>,
    ) -> Response<ResponseBody> {
        match self.try_answer(&head, body, actor.as_ref()).await {
            Ok(response) => response,
            Err(error) => reply(error.code(), &error.to_status(), &[]),
        }
    }

    async fn try_answer(
        &self,
        head: &http::request::Parts,
        body: Bytes,
        actor: Option<&Arc<str>>,
    ) -> Result<Response<ResponseBody>, ApiError> {
        let kinds = self.lock().kinds.clone();
        if let Some(response) =
            discovery::answer(&kinds, head).or_else(|| openapi::answer(&kinds, head))
        {
            return Ok(response);
        }
        let known = head.uri.path().starts_with("/api/") || head.uri.path().starts_with("/apis/");
        if !known {
            return Ok(plain(404, "404 page not found\n"));
        }
        let call = Call::read(&kinds, head, body, actor)?;
        match call.verb {
            Verb::Watch => watches::start(self, call).await,
            Verb::Get | Verb::List => {
                self.wait_for(read::wanted_version(&call)?).await?;
                self.turn(|state, now| read::answer(state, now, &call))
            }
            _ => self.turn(|state, now| write::answer(state, now, &call)),
        }
    }

    /// Waits until a revision is there. Errors: 504 if it isn't after three seconds.
    pub(crate) async fn wait_for(&self, wanted: u64) -> Result<(), ApiError> {
        let there = self.head().past(wanted.saturating_sub(1));
        if wanted > self.revision()
            && tokio::time::timeout(FUTURE_VERSION_WAIT, there)
                .await
                .is_err()
        {
            return Err(ApiError::version_too_large(wanted, self.revision()));
        }
        Ok(())
    }
}

impl State {
    /// Follows changes of definitions, and calls the observers. Returns whose resources moved.
    fn tell(&mut self, since: u64) -> Vec<Arc<str>> {
        let commits: Vec<Arc<Commit>> = self.store.since(since).cloned().collect();
        let mut resources: Vec<Arc<str>> = Vec::new();
        for commit in commits {
            if !resources.contains(&commit.key.resource) {
                resources.push(Arc::clone(&commit.key.resource));
            }
            if &*commit.key.resource == custom::DEFINITIONS {
                custom::follow(&mut self.kinds, &commit);
            }
            for observer in &mut self.observers {
                observer(&commit);
            }
        }
        resources
    }
}

/// A JSON answer, with warnings if there are any.
pub(crate) fn reply(code: u16, body: &Value, warnings: &[String]) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    for warning in warnings {
        if let Ok(value) = header::HeaderValue::from_str(&format!("299 - {warning:?}")) {
            headers.append(header::WARNING, value);
        }
    }
    response
}

/// A text answer.
pub(crate) fn plain(code: u16, text: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(text.to_owned()));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
