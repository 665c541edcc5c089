//! Admission: what a person writes is filled in and judged before it is stored.
//!
//! Owns: the HTTP side of `AdmissionReview`, the live reads that a judgement needs, and the two
//! webhook configurations. Never does: have a rule of its own ([`ipam::admit`] has them), or keep
//! anything safe: without it, pools are ordered by the controller and agents serve only what is in order.
//! Every replica serves. Invariants:
//!
//! * what overlaps is looked for in a list read for this very request, never in a cache;
//! * a request that can't be judged in time gets no verdict but an error, so the configured failure
//!   policy decides;
//! * what was read, held and answered for a request has a bound.
//!
//! Read next: `review.rs` for a request's way, `judge.rs` for what is asked of the core,
//! [`publish`] for who is asked at all.

mod fill;
mod judge;
pub mod publish;
mod review;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use ipam::admit::Families;
use kube::Client;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::error::ErrorChain;
use judge::Judge;
use review::{Kind, Question, Task};

/// Longest body: an object and its former self, each of what etcd takes at most, and some room.
const BODY_MAX: usize = 8 * 1024 * 1024;
/// Requests that are judged at once; more wait for their turn.
const AT_ONCE: usize = 8;
/// Longest wait and judgement: the API server hangs up after [`publish::TIMEOUT_SECONDS`].
const JUDGE_WITHIN: Duration = Duration::from_secs(4);

/// What the rules depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Families that are on.
    pub families: Families,
    /// Whether subnets control pools.
    pub subnets: bool,
}

struct Server {
    judge: Judge,
    places: Semaphore,
}

/// The router of the webhooks: six paths, as the original names them.
pub fn router(client: Client, rules: Rules) -> Router {
    let server = Arc::new(Server {
        judge: Judge::new(client, rules),
        places: Semaphore::new(AT_ONCE),
    });
    let mut router = Router::new();
    for task in [Task::Fill, Task::Judge] {
        for kind in Kind::ALL {
            let handle = move |State(server): State<Arc<Server>>, request: Request| async move {
                answer(&server, Question { task, kind }, request.into_body()).await
            };
            router = router.route(&task.path(kind), post(handle));
        }
    }
    router.with_state(server)
}

/// The answer to one request: a review, or an error that leaves it to the failure policy.
async fn answer(server: &Server, question: Question, body: Body) -> Response {
    match timeout(JUDGE_WITHIN, verdict(server, question, body)).await {
        Ok(Ok(review)) => ([(CONTENT_TYPE, "application/json")], review).into_response(),
        Ok(Err((code, why))) => {
            tracing::warn!(%code, %why, "a request was not judged");
            (code, why).into_response()
        }
        Err(_) => {
            let why = format!(
                "the request could not be judged within {} s: the API server or this controller \
                 is too busy; try again",
                JUDGE_WITHIN.as_secs()
            );
            tracing::warn!(%why);
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
}

async fn verdict(
    server: &Server,
    question: Question,
    body: Body,
) -> Result<Vec<u8>, (StatusCode, String)> {
    // Fails only if the semaphore is closed, which nobody does.
    let _place = server.places.acquire().await;
    let body = to_bytes(body, BODY_MAX).await.map_err(|_| {
        let why = format!("the body has more than {BODY_MAX} bytes, or broke off");
        (StatusCode::PAYLOAD_TOO_LARGE, why)
    })?;
    let request = review::read(&body, question.kind)
        .map_err(|error| (StatusCode::BAD_REQUEST, ErrorChain(&error).to_string()))?;
    let response = match question.task {
        Task::Fill => server.judge.fill(&request).await,
        Task::Judge => server.judge.judge(&request).await,
    };
    let response = response.map_err(|error| {
        let why = format!("the request could not be judged: {}", ErrorChain(&error));
        (StatusCode::SERVICE_UNAVAILABLE, why)
    })?;
    // A review is plain data: writing it as JSON cannot fail.
    serde_json::to_vec(&response.into_review())
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

#[cfg(test)]
mod tests;
