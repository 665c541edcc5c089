//! The lines between agents and the allocators of the controllers, and what may be wrong with them.
//!
//! Owns: which controller an agent asks (the holder of the Lease, as the product's own discovery
//! finds it), the way of each request and its answer, and the word of whose token it is. The
//! requests and answers are the product's, as JSON through its own router; TLS and HTTP/2 are left
//! out: they have tests of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use orbweaver::agent::{Connect, Link, LinkError};
use orbweaver::allocator::announce::AUDIENCE;
use orbweaver::allocator::wire::{self, Ask, Look, Reply};
use orbweaver::api::names;
use orbweaver::controller::Serve;
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::fault::Kind;
use crate::judge::{Judge, Sight};
use crate::net::Spell;
use crate::node::{self, Socket};

/// Whom the controllers take for agents.
pub(crate) const AGENTS: &str = "system:serviceaccount:kube-system:orbweaver-agent";

/// All lines. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Lines {
    judge: Judge,
    seed: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Where each controller listens.
    sockets: BTreeMap<String, Socket>,
    /// What is wrong with the line of each agent.
    agents: BTreeMap<String, Line>,
    /// Agents find one controller each, whoever has the Lease.
    divided: bool,
}

struct Line {
    rng: StdRng,
    cut: Spell,
    silent: Spell,
    loses_reply: bool,
}

impl Lines {
    pub(crate) fn new(judge: Judge, seed: u64) -> Self {
        Self {
            judge,
            seed,
            state: Arc::default(),
        }
    }

    /// Where a controller's allocator is asked.
    pub(crate) fn listener(&self, controller: &str) -> Box<dyn Serve> {
        let mut state = self.state();
        let socket = state.sockets.entry(controller.to_owned()).or_default();
        Box::new(Listens(socket.clone()))
    }

    /// How an agent finds one.
    pub(crate) fn dial(&self, agent: &str, client: Client) -> Box<dyn Connect> {
        Box::new(Dial {
            lines: self.clone(),
            agent: agent.to_owned(),
            client,
        })
    }

    /// Has a fault meet an agent's line.
    pub(crate) fn inflict(&self, agent: &str, kind: Kind, lasting: Duration) {
        let (mut state, until) = (self.state(), Instant::now() + lasting);
        let line = line(&mut state, self.seed, agent);
        match kind {
            Kind::LineCut => line.cut = Spell::new(kind, until),
            Kind::LineSilent => line.silent = Spell::new(kind, until),
            _ => line.loses_reply = true,
        }
    }

    /// Whether agents find one controller each, whoever has the Lease.
    pub(crate) fn divide(&self, divided: bool) {
        self.state().divided = divided;
    }

    /// Ends whatever is wrong.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.divided = false;
        for line in state.agents.values_mut() {
            line.cut.end();
            line.silent.end();
            line.loses_reply = false;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is asked by an agent that finds this holder of the Lease.
    fn found(&self, agent: &str, holder: String) -> String {
        let state = self.state();
        let nth = agent.bytes().fold(0_usize, |sum, b| sum + usize::from(b));
        match nth.checked_rem(state.sockets.len()) {
            Some(at) if state.divided => state.sockets.keys().nth(at).cloned().unwrap_or(holder),
            _ => holder,
        }
    }

    async fn send(
        &self,
        agent: &str,
        to: &str,
        request: Request<Body>,
    ) -> Result<Reply, LinkError> {
        let (socket, before, after, cut, silent_until) = {
            let mut state = self.state();
            let socket = state.sockets.get(to).cloned();
            let line = line(&mut state, self.seed, agent);
            let mut delay = || Duration::from_micros(line.rng.random_range(300..2_000));
            let (before, after) = (delay(), delay());
            let cut = line.cut.meets(&self.judge);
            line.silent.meets(&self.judge);
            (socket, before, after, cut, line.silent.until())
        };
        self.judge
            .note(&format!("{agent} asks {to} {}", request.uri().path()));
        sleep(before).await;
        if cut {
            return std::future::pending().await; // whoever asks has a limit
        }
        let socket = socket.ok_or_else(|| LinkError(format!("{to} does not listen")))?;
        sleep_until(silent_until).await;
        let asks = request.uri().path() == wire::ASK;
        let (_, body) = socket.call(request).await.map_err(LinkError)?;
        if asks {
            self.judge.saw(Sight::AllocatorGave);
        }
        sleep(after).await;
        if self.loses_reply(agent) {
            return Err(LinkError("connection reset".to_owned()));
        }
        serde_json::from_slice(&body).map_err(|error| LinkError(error.to_string()))
    }

    fn loses_reply(&self, agent: &str) -> bool {
        let mut state = self.state();
        let lost = std::mem::take(&mut line(&mut state, self.seed, agent).loses_reply);
        drop(state);
        if lost {
            self.judge.happened(Kind::LineReplyLost);
        }
        lost
    }
}

fn line<'s>(state: &'s mut State, seed: u64, agent: &str) -> &'s mut Line {
    state
        .agents
        .entry(agent.to_owned())
        .or_insert_with(|| Line {
            rng: crate::stream(seed, &format!("line {agent}")),
            cut: Spell::new(Kind::LineCut, Instant::now()),
            silent: Spell::new(Kind::LineSilent, Instant::now()),
            loses_reply: false,
        })
}

/// A controller's end.
struct Listens(Socket);

impl Serve for Listens {
    fn serve(self: Box<Self>, app: Router) -> BoxFuture<'static, ()> {
        node::answer(app, self.0).boxed()
    }
}

/// An agent's end, not connected.
struct Dial {
    lines: Lines,
    agent: String,
    client: Client,
}

impl Connect for Dial {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, LinkError>> {
        let connect = async {
            let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-system");
            let lease = leases.get(names::CONTROLLER_LEASE).await;
            let lease = lease.map_err(|error| LinkError(error.to_string()))?;
            let holder = lease.spec.and_then(|spec| spec.holder_identity);
            let holder = holder.ok_or_else(|| LinkError("nobody leads".to_owned()))?;
            let call = Connected {
                to: self.lines.found(&self.agent, holder),
                lines: self.lines.clone(),
                agent: self.agent.clone(),
            };
            match call.send(Method::GET, wire::READY, String::new()).await? {
                Reply::Ready => Ok(Arc::new(call) as Arc<dyn Link>),
                other => Err(LinkError(format!("not accepted: {other:?}"))),
            }
        };
        connect.boxed()
    }
}

/// An agent's end.
struct Connected {
    lines: Lines,
    agent: String,
    to: String,
}

impl Connected {
    async fn send(&self, method: Method, path: &str, body: String) -> Result<Reply, LinkError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {}", self.agent))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(|error| LinkError(error.to_string()))?;
        self.lines.send(&self.agent, &self.to, request).await
    }
}

impl Link for Connected {
    fn ask(&self, ask: Ask) -> BoxFuture<'_, Result<Reply, LinkError>> {
        let answer = async move {
            let body = serde_json::to_string(&ask).map_err(|e| LinkError(e.to_string()))?;
            self.send(Method::POST, wire::ASK, body).await
        };
        answer.boxed()
    }

    fn look(&self, look: Look) -> BoxFuture<'_, Result<Reply, LinkError>> {
        let answer = async move {
            let body = serde_json::to_string(&look).map_err(|e| LinkError(e.to_string()))?;
            self.send(Method::POST, wire::LOOK, body).await
        };
        answer.boxed()
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        let answer = self.send(Method::GET, wire::READY, String::new());
        answer
            .map(|answer| matches!(answer, Ok(Reply::Ready)))
            .boxed()
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// The API server's word on a token, where a request asks for it: an agent's token is its name.
pub(crate) fn review(path: &str, body: &[u8]) -> Option<Value> {
    if !path.ends_with("/tokenreviews") {
        return None;
    }
    let asked: TokenReview = serde_json::from_slice(body).ok()?;
    let token = asked.spec.token.unwrap_or_default();
    let node = token.strip_prefix("agent-")?;
    Some(json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": {
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {
                "username": AGENTS,
                "extra": {"authentication.kubernetes.io/node-name": [node]},
            },
        },
    }))
}
