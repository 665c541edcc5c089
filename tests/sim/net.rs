//! The network between every process and the API server, where most faults are.
//!
//! Owns: the way of each request and its answer, and the noting of all of them. A request that left
//! its process may be carried out even if the process is dead by then. Streams of answers are in
//! `tap`; what a request of the product may be like is in `crate::discipline`.

mod answers;
mod tap;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body as StreamBody;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kubesim::{ResponseBody, Server};
use orbweaver::kube_io::clients::Clients;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{BoxError, Service, ServiceExt as _};

use self::answers::{broken, json_reply, overload};
use crate::fault::Kind;
use crate::judge::{Judge, Sight};

/// How long a request that is lost in a partition takes to fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Nobody loses so many writes in a row, whatever storm there is.
const LOST_MAX: u32 = 300;
/// The kind that holds addresses.
const POOLS: &str = "spiderippools";
/// Kinds whose changes webhooks review.
pub(crate) const REVIEWED: [&str; 3] = ["spiderippools", "spidersubnets", "spiderreservedips"];
/// How much longer a request takes at most that is slow.
const SLOW: Duration = Duration::from_millis(700);
/// So many revisions a list is old that comes from memory.
const BEHIND: u64 = 20;
/// What the query of a list says that may be answered from memory.
const FROM_MEMORY: &str = "resourceVersion=0&resourceVersionMatch=NotOlderThan";

/// The network. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Net {
    server: Server,
    judge: Judge,
    links: Arc<Mutex<BTreeMap<String, Link>>>,
    doom: Arc<Mutex<Doom>>,
    seed: u64,
}

/// Who is to die after a write.
#[derive(Default)]
struct Doom {
    /// Which write, and whether its sender dies before it hears the answer.
    at: Option<(usize, bool)>,
    /// Who dies when it next wants something.
    next: Option<String>,
    tell: Option<mpsc::UnboundedSender<String>>,
}

/// One process's connection.
struct Link {
    rng: StdRng,
    /// Faults that meet the next request they fit.
    armed: VecDeque<(Kind, Duration)>,
    /// Its requests take longer.
    slow: Spell,
    /// Its requests are lost.
    cut: Spell,
    /// Its lists from memory are old.
    stale: Spell,
    /// Its writes of what webhooks review fail.
    unreviewed: Spell,
    /// Its watches say nothing.
    stall: Spell,
    /// Writes since the last that did not lose against another.
    lost: u32,
    /// Dropped to close every open watch, in the order in which they were opened: not tokio's `watch`,
    /// which wakes its receivers in an order drawn anew in each process.
    open: Vec<oneshot::Sender<()>>,
}

/// A fault that lasts, and is counted when it meets something first.
#[derive(Clone, Copy)]
pub(crate) struct Spell {
    kind: Kind,
    until: Instant,
    has_met: bool,
}

impl Spell {
    pub(crate) fn new(kind: Kind, until: Instant) -> Self {
        Self {
            kind,
            until,
            has_met: false,
        }
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.until = Instant::now();
    }

    /// When it is over.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Whether it meets what happens now.
    pub(crate) fn meets(&mut self, judge: &Judge) -> bool {
        let is_on = Instant::now() < self.until;
        if is_on && !self.has_met {
            self.has_met = true;
            judge.happened(self.kind);
        }
        is_on
    }
}

/// What becomes of a request.
#[derive(Default)]
struct Fate {
    before: Duration,
    after: Duration,
    lost: bool,
    reply_lost: bool,
    /// Carried out once more, so much later.
    again: Option<Duration>,
    /// The caller is told at once, and the request arrives so much later.
    late: Option<Duration>,
    /// Answered by an overload filter, or a proxy; `true`: after it was carried out.
    answer: Option<(u16, bool)>,
    stale: bool,
}

impl Net {
    pub(crate) fn new(server: Server, judge: Judge, seed: u64) -> Self {
        Self {
            server,
            judge,
            links: Arc::default(),
            doom: Arc::default(),
            seed,
        }
    }

    /// Has the process that makes this write of the product die right after it.
    pub(crate) fn crash_at(&self, write: usize, answer_lost: bool) {
        self.doom().at = Some((write, answer_lost));
    }

    /// Hears of those that are to die now.
    pub(crate) fn dooms(&self) -> mpsc::UnboundedReceiver<String> {
        let (tell, told) = mpsc::unbounded_channel();
        self.doom().tell = Some(tell);
        told
    }

    fn doom(&self) -> MutexGuard<'_, Doom> {
        self.doom.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clients of a role. Neither repeats a request: the product must stand that.
    pub(crate) fn clients(&self, process: &str) -> Clients {
        Clients {
            read: self.client(process),
            write: self.client(process),
        }
    }

    pub(crate) fn client(&self, process: &str) -> Client {
        let wire = Wire {
            net: self.clone(),
            process: Arc::from(process),
        };
        Client::new(wire, "default")
    }

    /// Has a fault meet the requests of a process.
    pub(crate) fn inflict(&self, process: &str, kind: Kind, lasting: Duration) {
        let mut links = self.links();
        let link = link(&mut links, self.seed, process);
        let until = Instant::now() + lasting;
        match kind {
            Kind::Slow => link.slow = Spell::new(kind, until),
            Kind::Cut | Kind::NodeCut | Kind::Outage => {
                link.cut = Spell::new(kind, until);
                link.stall = Spell::new(kind, until);
            }
            Kind::StaleList => link.stale = Spell::new(kind, until),
            Kind::WebhookDown => link.unreviewed = Spell::new(kind, until),
            Kind::WatchStall => link.stall = Spell::new(kind, until),
            Kind::WatchClose => {
                if link.open.iter().any(|open| !open.is_closed()) {
                    self.judge.happened(kind);
                }
                link.open.clear();
            }
            kind => link.armed.push_back((kind, lasting)),
        }
    }

    /// Whether what `process` would write of what webhooks review is turned away now.
    pub(crate) fn turns_away(&self, process: &str) -> bool {
        let mut links = self.links();
        let link = link(&mut links, self.seed, process);
        link.unreviewed.meets(&self.judge)
    }

    /// Ends every fault that lasts, and forgets those that met nothing. Old lists stay: nobody has a
    /// right to others.
    pub(crate) fn heal(&self) {
        for link in self.links().values_mut() {
            link.armed.clear();
            for spell in [
                &mut link.slow,
                &mut link.cut,
                &mut link.unreviewed,
                &mut link.stall,
            ] {
                spell.end();
            }
        }
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, process: &str, head: &Parts) -> Fate {
        let mut links = self.links();
        let link = link(&mut links, self.seed, process);
        let mut fate = Fate {
            before: Duration::from_micros(link.rng.random_range(500..3_000)),
            after: Duration::from_micros(link.rng.random_range(500..3_000)),
            ..Fate::default()
        };
        if link.slow.meets(&self.judge) {
            let part = link.rng.random_range(0.0..1.0);
            fate.before += SLOW.mul_f64(part);
            fate.after += SLOW.mul_f64(1.0 - part);
        }
        if link.cut.meets(&self.judge) {
            fate.lost = true;
            return fate;
        }
        fate.stale = is_from_memory(head) && link.stale.meets(&self.judge);
        let is_write = head.method != Method::GET;
        if is_reviewed(head) && link.unreviewed.meets(&self.judge) {
            fate.answer = Some((500, false));
            return fate;
        }
        // The election is disturbed by faults of its own.
        if head.uri.path().contains("/leases") || head.uri.path().contains("/events") {
            return fate;
        }
        let meets = |kind: Kind| kind.meets_write() == is_write;
        if let Some(at) = link.armed.iter().position(|(kind, _)| meets(*kind))
            && let Some((kind, lasting)) = link.armed.remove(at)
        {
            fate.suffer(kind, lasting);
            self.judge.happened(kind);
        }
        fate
    }

    async fn send(&self, process: &Arc<str>, request: Request<Body>) -> Result<Reply, BoxError> {
        let (mut head, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let wrote = self.judge.request(process, &head, &body);
        if !crate::judge::is_foreign(process)
            && let Some((rule, fault)) = crate::discipline::breach(process, &head, &body)
        {
            self.judge.violation(rule, &format!("{process}: {fault}"));
        }
        if self.doom().next.as_deref() == Some(process) {
            self.doom().kill(process);
            return std::future::pending().await;
        }
        let dies = self
            .doom()
            .strikes(process, wrote.then(|| self.judge.writes()));
        let fate = self.fate(process, &head);
        if fate.stale {
            self.look_back(&mut head);
        }
        if fate.lost {
            sleep(CONNECT_TIMEOUT).await;
            return Err(broken("no route to host"));
        }
        if let Some((code, false)) = fate.answer {
            sleep(fate.before).await;
            return Ok(overload(code));
        }
        if let Some(word) = crate::lines::review(head.uri.path(), &body) {
            sleep(fate.before + fate.after).await;
            return Ok(json_reply(StatusCode::CREATED, &word));
        }
        let path = head.uri.path().to_owned();
        let (tell, told) = oneshot::channel();
        let (server, actor, net) = (self.server.clone(), Arc::clone(process), self.clone());
        let delay = fate.before + fate.late.unwrap_or_default();
        // A task of nobody's: what is on its way arrives, whoever dies.
        tokio::spawn(async move {
            sleep(delay).await;
            let answer = carry_out(&server, &actor, &head, body.clone()).await;
            if dies {
                net.doom().kill(&actor);
                return;
            }
            let _ = tell.send(answer);
            if let Some(pause) = fate.again {
                sleep(pause).await;
                let _ = carry_out(&server, &actor, &head, body).await;
            }
        });
        if fate.late.is_some() {
            sleep(fate.before).await;
            return Err(broken("connection reset by peer"));
        }
        let answer = told.await?;
        sleep(fate.after).await;
        if let Some(sight) = sight(process, wrote, &path, answer.status()) {
            self.judge.saw(sight);
        }
        if wrote {
            self.count_lost(process, answer.status());
        }
        if fate.reply_lost {
            return Err(broken("connection closed before message completed"));
        }
        if let Some((code, true)) = fate.answer {
            return Ok(overload(code));
        }
        Ok(self.tapped(process, answer))
    }

    /// Who loses again and again does not learn from it (L5).
    fn count_lost(&self, process: &str, code: StatusCode) {
        let mut links = self.links();
        let link = link(&mut links, self.seed, process);
        let is_lost = code == StatusCode::CONFLICT;
        link.lost = if is_lost { link.lost + 1 } else { 0 };
        if link.lost == LOST_MAX {
            let what = format!("{process} lost {LOST_MAX} writes, one after the other");
            self.judge.violation("L5", &what);
        }
    }

    /// A list that may be served from memory is served as it was a while ago.
    fn look_back(&self, head: &mut Parts) {
        let then = self.server.revision().saturating_sub(BEHIND).max(1);
        let exact = format!("resourceVersion={then}&resourceVersionMatch=Exact");
        let text = head.uri.to_string().replace(FROM_MEMORY, &exact);
        if let Ok(uri) = text.parse() {
            head.uri = uri;
        }
    }
}

type Reply = Response<StreamBody>;

impl Doom {
    /// Whether the sender of this write dies before it hears of it.
    fn strikes(&mut self, process: &str, write: Option<usize>) -> bool {
        match self.at.filter(|(at, _)| write == Some(*at)) {
            Some((_, true)) => true,
            Some((_, false)) => {
                self.next = Some(process.to_owned());
                false
            }
            None => false,
        }
    }

    fn kill(&mut self, process: &str) {
        self.next = None;
        if let Some(tell) = &self.tell {
            let _ = tell.send(process.to_owned());
        }
    }
}

impl Fate {
    fn suffer(&mut self, kind: Kind, lasting: Duration) {
        match kind {
            Kind::LoseRequest => self.lost = true,
            Kind::LoseReply => self.reply_lost = true,
            Kind::Late => self.late = Some(lasting),
            Kind::Twice => self.again = Some(lasting),
            Kind::Answer429 => self.answer = Some((429, false)),
            Kind::Answer500 | Kind::ReadFails => self.answer = Some((500, false)),
            Kind::Commit504 => self.answer = Some((504, true)),
            _ => {}
        }
    }
}

fn link<'l>(links: &'l mut BTreeMap<String, Link>, seed: u64, process: &str) -> &'l mut Link {
    links.entry(process.to_owned()).or_insert_with(|| {
        let never = |kind| Spell::new(kind, Instant::now());
        Link {
            rng: StdRng::seed_from_u64(crate::seed_of(seed, process)),
            armed: VecDeque::new(),
            slow: never(Kind::Slow),
            cut: never(Kind::Cut),
            stale: never(Kind::StaleList),
            unreviewed: never(Kind::WebhookDown),
            stall: never(Kind::WatchStall),
            lost: 0,
            open: Vec::new(),
        }
    })
}

async fn carry_out(
    server: &Server,
    actor: &str,
    head: &Parts,
    body: bytes::Bytes,
) -> Response<ResponseBody> {
    let mut request = Request::new(http_body_util::Full::new(body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = head.headers.clone();
    let answer: Result<_, Infallible> = server.service(actor).oneshot(request).await;
    match answer {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// What is worth counting of an answer.
fn sight(process: &str, wrote: bool, path: &str, code: StatusCode) -> Option<Sight> {
    match code {
        StatusCode::CONFLICT if wrote => Some(Sight::Conflict),
        StatusCode::OK if wrote && process.starts_with("agent") && path.contains(POOLS) => {
            Some(Sight::AgentWrote)
        }
        _ => None,
    }
}

/// Whether it is a list that the API server may answer from memory.
fn is_from_memory(head: &Parts) -> bool {
    let query = head.uri.query().unwrap_or_default();
    head.method == Method::GET && query.contains(FROM_MEMORY) && !query.contains("watch=")
}

/// Whether a webhook is asked about it: what people write of pools, subnets and reservations.
fn is_reviewed(head: &Parts) -> bool {
    let path = head.uri.path();
    let is_change = head.method == Method::POST || head.method == Method::PUT;
    is_change && REVIEWED.iter().any(|kind| path.contains(kind)) && !path.ends_with("/status")
}

/// One process's way to the API server.
#[derive(Clone)]
struct Wire {
    net: Net,
    process: Arc<str>,
}

impl Service<Request<Body>> for Wire {
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { net, process } = self.clone();
        let sent: Pin<Box<_>> = Box::pin(async move { net.send(&process, request).await });
        sent
    }
}
