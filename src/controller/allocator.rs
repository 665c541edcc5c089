//! The allocator: the claims and releases of all nodes on one pool become one write.
//!
//! Owns: who may ask for what, and how much at once. Never does: choose an address
//! (the core's ledger does), write (the pool's writer does), or matter for safety. Invariants:
//!
//! * It answers only while this replica leads. One that leads no longer and does not know it yet can
//!   lose a race for a pool's version and do nothing else: its writer is the agents' own.
//! * A caller is an agent by its token, and its node is the token's; it asks for Pods of that node
//!   and gives back what is recorded for that node. What a claim says of labels is the agent's
//!   reading; node and name of the Pod are not.
//! * Nothing is written for a caller that has gone or whose time is up: the writer sees its end of
//!   the answer dropped.
//!
//! ```text
//! connection ─ callers (TokenReview, kept) ─ bound (whose Pod?) ─ pool_writer ─ Serial ─▶ API server
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ipam::name::NodeName;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval, timeout};

use crate::allocator::wire::{self, Ask, Look, Reply, What};
use crate::kube_io::lease::Leadership;
use crate::pool_writer::{CommitError, Writers};

mod bound;
mod callers;
mod host;
mod serve;
mod sight;

pub(super) use self::bound::Bound;
use self::bound::NotBound;
pub(super) use self::callers::Callers;
pub(super) use self::host::Host;
pub use self::serve::{Listener, Serve};
pub(super) use self::sight::Sight;

/// Most requests that are worked on at once; others are told to come later.
const IN_FLIGHT: u16 = 4096;
/// When to ask again where too much is asked.
const BUSY: Duration = Duration::from_millis(100);
/// Longest time that a caller may have its request worked on.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often what is remembered is looked through.
const SWEEP: Duration = Duration::from_secs(30);

/// Where the allocator is asked, and whom it serves.
pub struct Endpoint {
    /// How requests come in.
    pub serve: Box<dyn Serve>,
    /// The agents' account, as the API server spells it.
    pub agents: String,
}

/// The allocator of one replica.
pub(super) struct Allocator {
    leadership: watch::Receiver<Leadership>,
    callers: Callers,
    bound: Bound,
    sight: Sight,
    writers: Arc<Writers<Host>>,
    room: Semaphore,
}

impl Allocator {
    pub(super) fn new(
        callers: Callers,
        leadership: watch::Receiver<Leadership>,
        bound: Bound,
        sight: Sight,
        writers: Arc<Writers<Host>>,
    ) -> Self {
        Self {
            leadership,
            callers,
            bound,
            sight,
            writers,
            room: Semaphore::new(IN_FLIGHT.into()),
        }
    }

    /// Answers for ever; drop the future to stop. Every cache is complete.
    pub(super) async fn run(self: Arc<Self>, serve: Box<dyn Serve>) {
        let app = Router::new()
            .route(wire::READY, get(ready))
            .route(wire::ASK, post(ask))
            .route(wire::LOOK, post(look))
            .layer(DefaultBodyLimit::max(wire::BODY_MAX))
            .with_state(Arc::clone(&self));
        let mut served = serve.serve(app);
        let mut sweep = interval(SWEEP);
        loop {
            tokio::select! {
                biased;
                () = &mut served => return,
                _ = sweep.tick() => {
                    self.callers.sweep();
                    self.writers.prune();
                }
            }
        }
    }

    /// Takes no more requests, and waits for those under way; for `limit` at most.
    pub(super) async fn finish(&self, limit: Duration) {
        let all = self.room.acquire_many(IN_FLIGHT.into());
        if let Ok(Ok(all)) = timeout(limit, all).await {
            all.forget();
        }
        self.room.close();
    }

    async fn caller(&self, headers: &HeaderMap) -> Result<NodeName, Reply> {
        if self.room.is_closed() || *self.leadership.borrow() != Leadership::Leader {
            return Err(Reply::NotLeading);
        }
        let shown = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = shown.and_then(|text| text.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Reply::Stranger("no bearer token".to_owned()))?;
        self.callers.node_of(token).await.map_err(Reply::Stranger)
    }

    async fn answer(&self, headers: &HeaderMap, body: &[u8]) -> Result<Reply, Reply> {
        let node = self.caller(headers).await?;
        let busy = |_| Reply::Busy {
            after_ms: u64::try_from(BUSY.as_millis()).unwrap_or(u64::MAX),
        };
        let _place = self.room.try_acquire().map_err(busy)?;
        let ask: Ask = read(body)?;
        let deadline = Instant::now() + ask.wait().min(WAIT_MAX);
        let Ask { pool, what, .. } = ask;
        let failed = |error: CommitError| Reply::Failed(error);
        match what {
            What::Claim(mut claim) => {
                let bound = self.bound.claims(&claim.pod.pod, &claim.uid, &node);
                bound.await.map_err(|e| not_bound(&e))?;
                claim.pod.node = node;
                let granted = self.writers.claim(&pool, *claim, None, deadline).await;
                granted.map(Reply::Granted).map_err(failed)
            }
            What::Release { pod, mut release } => {
                let bound = self.bound.releases(&pod, &release.uid, &node);
                bound.await.map_err(|e| not_bound(&e))?;
                release.node = Some(node);
                let released = self.writers.release(&pool, release, deadline).await;
                released.map(Reply::Released).map_err(failed)
            }
        }
    }

    async fn look(&self, headers: &HeaderMap, body: &[u8]) -> Result<Reply, Reply> {
        self.caller(headers).await?;
        let look: Look = read(body)?;
        Ok(self.sight.look(&look).map_or(Reply::Unseen, Reply::Seen))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|e| Reply::Unreadable(e.to_string()))
}

fn not_bound(why: &NotBound) -> Reply {
    match why {
        NotBound::Elsewhere(_) => Reply::NotYours(why.to_string()),
        // Nobody's fault: the agent asks somebody else, or again.
        NotBound::Unknown(_) => Reply::NotLeading,
    }
}

async fn ready(State(allocator): State<Arc<Allocator>>, headers: HeaderMap) -> Response {
    let caller = allocator.caller(&headers).await;
    response(&caller.map_or_else(|refusal| refusal, |_| Reply::Ready))
}

async fn ask(State(allocator): State<Arc<Allocator>>, headers: HeaderMap, body: Bytes) -> Response {
    let reply = allocator.answer(&headers, &body).await;
    response(&reply.unwrap_or_else(|refusal| refusal))
}

async fn look(
    State(allocator): State<Arc<Allocator>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = allocator.look(&headers, &body).await;
    response(&reply.unwrap_or_else(|refusal| refusal))
}

fn response(reply: &Reply) -> Response {
    match serde_json::to_vec(reply) {
        Ok(body) => {
            let json = [(CONTENT_TYPE, "application/json")];
            (reply.status(), json, body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a reply has no form; its caller looks for itself");
            axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
