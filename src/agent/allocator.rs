//! The way to the leader's allocator: one connection, found when there is something to ask.
//!
//! Owns: whether there is a connection, who makes it and when it is tried again. Never does: write,
//! or decide what follows from no answer ([`super::paths`] does). Invariants: an idle agent asks
//! nobody; of many calls one connects; once the allocator has kept a call waiting in vain no call
//! waits for it again until somebody was answered.
//!
//! ```text
//! idle ── a call ──▶ connecting ──────────▶ up ── lost ─▶ idle
//!                      ▲     └─ failed ─▶ down ◀─ silent ─┘
//!                      └── a call, after the pause ──┘      which does not wait if it may write itself
//! ```

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use ipam::name::PoolName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::allocator::wire::{Ask, Look, Reply, Seen, What};
use crate::kube_io::locked;
use crate::kube_io::retry::Backoff;
use crate::kube_io::tasks::Tasks;

mod link;

pub(super) use self::link::Discovery;

/// How long an answer, or a sign of life, is waited for by a call that may write itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long an allocator that lives is waited for: where the API server is slow, nodes that write
/// beside it would only make more work.
const ALIVE_MAX: Duration = Duration::from_secs(10);
/// How long the leader's word on what it knows is waited for: the API server knows too.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// Longest time to find the allocator and connect.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// First and longest cap of the pause after the allocator was silent or not to be found; the pause
/// is never shorter than [`PATIENCE`].
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Connections that one request is tried on: the first may have broken since it was last used.
const TRIES: usize = 2;

/// Why there is no connection, or no answer on it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(pub String);

/// Finds the allocator and connects to it.
pub trait Connect: Send + Sync + 'static {
    /// A connection on which the allocator has said that it acts and knows this agent.
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, LinkError>>;
}

/// A connection.
pub trait Link: Send + Sync {
    /// Sends a request and waits for its answer. Dropping the future tells the other side.
    fn ask(&self, ask: Ask) -> BoxFuture<'_, Result<Reply, LinkError>>;

    /// Asks what the leader knows.
    fn look(&self, look: Look) -> BoxFuture<'_, Result<Reply, LinkError>>;

    /// Whether the allocator says at once that it acts.
    fn is_alive(&self) -> BoxFuture<'_, bool>;

    /// Whether requests can be sent.
    fn is_open(&self) -> bool;
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Answered {
    /// It was answered.
    Reply(Reply),
    /// Nothing was or will be done about it.
    NotAsked,
    /// It may be carried out still.
    Unknown(String),
}

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    /// When the answer is of no use any more.
    pub(super) deadline: Instant,
    /// Whether there is another way, so that a connection is waited for no longer than
    /// [`PATIENCE`], and an answer no longer than [`ALIVE_MAX`].
    pub(super) has_other_way: bool,
}

impl Time {
    /// Until when an answer to a request sent now is waited for.
    pub(super) fn patience(self) -> Instant {
        self.within(ALIVE_MAX)
    }

    /// Waits for the pause and up to as much again, so that those who were told at one moment don't
    /// come at one; false where the answer is of no use by then.
    async fn has_left(self, pause: Duration) -> bool {
        let jitter = Backoff::new(pause, pause).next_delay();
        let waited = timeout_at(self.deadline, sleep(pause + jitter)).await;
        waited.is_ok()
    }

    fn within(self, limit: Duration) -> Instant {
        if self.has_other_way {
            self.deadline.min(Instant::now() + limit)
        } else {
            self.deadline
        }
    }
}

/// The allocator, as the agent sees it. Clones share the connection.
#[derive(Clone)]
pub(super) struct Allocator {
    shared: Arc<Shared>,
}

struct Shared {
    connect: Box<dyn Connect>,
    tasks: Tasks,
    state: Mutex<State>,
    /// Wakes who waits for a connection, in the order in which they came.
    changed: Notify,
    backoff: Mutex<Backoff>,
}

enum State {
    Idle,
    Connecting {
        /// Whether it is tried again after a failure.
        again: bool,
    },
    Up(Arc<dyn Link>),
    Down {
        until: Instant,
    },
}

/// What a call that wants the connection does.
enum Step {
    Use(Arc<dyn Link>),
    /// Until the state changes.
    Wait,
    WaitUntil(Instant),
    GoOtherWay,
}

impl Allocator {
    /// Reached by `connect`; it is looked for in `tasks`.
    pub(super) fn new(connect: Box<dyn Connect>, tasks: Tasks) -> Self {
        Self {
            shared: Arc::new(Shared {
                connect,
                tasks,
                state: Mutex::new(State::Idle),
                changed: Notify::new(),
                backoff: Mutex::new(Backoff::new(BACKOFF.0, BACKOFF.1)),
            }),
        }
    }

    /// The allocator's answer, if there is one in time. It may be sent more than once: the same
    /// request twice is as good as once.
    pub(super) async fn ask(&self, pool: &PoolName, what: &What, time: Time) -> Answered {
        let mut unknown = None;
        let mut tries = TRIES;
        while let Some(link) = self.link(time.within(PATIENCE), time).await {
            let until = time.patience();
            let wait = until.saturating_duration_since(Instant::now());
            let ask = Ask {
                pool: pool.clone(),
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                what: what.clone(),
            };
            match answer_of(&*link, ask, until).await {
                Some(Ok(Reply::Busy { after_ms })) => {
                    // It lives, and has more to do than others could do faster.
                    if !time.has_left(Duration::from_millis(after_ms)).await {
                        break;
                    }
                    continue;
                }
                // Another replica may act by now. Where that one says the same, it is about this Pod:
                // others' calls go on, and this one comes again after a while if it has no other way.
                Some(Ok(Reply::NotLeading)) => {
                    self.lost(&link, "it does not act, or can't tell whose the Pod is");
                    let is_first = tries == TRIES;
                    if !is_first && !time.has_other_way && !time.has_left(PATIENCE).await {
                        break;
                    }
                }
                Some(Ok(Reply::Stranger(why))) => self.lost(&link, &why),
                Some(Ok(reply)) => {
                    locked(&self.shared.backoff).reset();
                    return Answered::Reply(reply);
                }
                Some(Err(error)) => {
                    self.lost(&link, &error.0);
                    unknown = Some(error.0);
                }
                None => {
                    self.shared.pause("no answer in time", Some(&link));
                    unknown = Some("no answer in time".to_owned());
                }
            }
            tries = tries.saturating_sub(1);
            if tries == 0 && time.has_other_way {
                break;
            }
        }
        unknown.map_or(Answered::NotAsked, Answered::Unknown)
    }

    /// What the leader knows, if it says so at once. No answer says nothing about the allocator.
    pub(super) async fn look(&self, look: &Look) -> Option<Seen> {
        let time = Time {
            deadline: Instant::now() + LOOK_MAX,
            has_other_way: true,
        };
        let link = self.link(time.deadline, time).await?;
        match timeout_at(time.deadline, link.look(look.clone())).await {
            Ok(Ok(Reply::Seen(seen))) => Some(seen),
            _ => None,
        }
    }

    /// The connection, once it is there; none where the call had better not wait for it.
    async fn link(&self, until: Instant, time: Time) -> Option<Arc<dyn Link>> {
        while Instant::now() < until {
            // Waits from here on, so that no change between the look and the wait is missed.
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            match self.step(time.has_other_way) {
                Step::Use(link) => return Some(link),
                Step::GoOtherWay => return None,
                Step::Wait => {
                    let _ = timeout_at(until, changed).await;
                }
                Step::WaitUntil(again) => sleep_until(again.min(until)).await,
            }
        }
        None
    }

    fn step(&self, has_other_way: bool) -> Step {
        let mut step = Step::Wait;
        self.shared.change(|state| {
            let again = match state {
                State::Up(link) if link.is_open() => {
                    step = Step::Use(Arc::clone(link));
                    return false;
                }
                State::Connecting { again } => {
                    if *again && has_other_way {
                        step = Step::GoOtherWay;
                    }
                    return false;
                }
                State::Down { until } if Instant::now() < *until => {
                    step = if has_other_way {
                        Step::GoOtherWay
                    } else {
                        Step::WaitUntil(*until)
                    };
                    return false;
                }
                State::Down { .. } => true,
                State::Up(_) | State::Idle => false,
            };
            if again && has_other_way {
                step = Step::GoOtherWay;
            }
            *state = State::Connecting { again };
            self.shared.tasks.spawn(Arc::clone(&self.shared).connect());
            true
        });
        step
    }

    /// The connection is of no use any more; the next call makes another.
    fn lost(&self, link: &Arc<dyn Link>, because: &str) {
        self.shared.change(|state| {
            let is_this = matches!(state, State::Up(known) if Arc::ptr_eq(known, link));
            if is_this {
                tracing::info!(because, "connection to the allocator lost");
                *state = State::Idle;
            }
            is_this
        });
    }
}

/// The answer, while the other side gives signs of life; none after [`PATIENCE`] without one, or at
/// `until`.
async fn answer_of(link: &dyn Link, ask: Ask, until: Instant) -> Option<Result<Reply, LinkError>> {
    let mut answer = link.ask(ask);
    while Instant::now() < until {
        let half = until.min(Instant::now() + PATIENCE / 2);
        if let Ok(answer) = timeout_at(half, &mut answer).await {
            return Some(answer);
        }
        tokio::select! {
            biased;
            answer = &mut answer => return Some(answer),
            alive = timeout(PATIENCE / 2, link.is_alive()) => if !alive.unwrap_or(false) {
                return None;
            }
        }
    }
    None
}

impl Shared {
    /// Tells those who wait if `change` says that it is another state now.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let changed = change(&mut locked(&self.state));
        if changed {
            self.changed.notify_waiters();
        }
    }

    async fn connect(self: Arc<Self>) {
        let connected = timeout(CONNECT_MAX, self.connect.connect()).await;
        let connected =
            connected.unwrap_or_else(|_| Err(LinkError("it did not answer in time".to_owned())));
        match connected {
            Ok(link) => {
                tracing::info!("connected to the allocator");
                self.change(|state| {
                    *state = State::Up(link);
                    true
                });
            }
            Err(error) => self.pause(&error.0, None),
        }
    }

    /// Leaves the allocator alone for a while; `link` is the connection that has failed, which may
    /// be another than there is now.
    fn pause(&self, because: &str, link: Option<&Arc<dyn Link>>) {
        let pause = locked(&self.backoff).next_delay().max(PATIENCE);
        let until = Instant::now() + pause;
        self.change(|state| {
            let applies = match (&*state, link) {
                (State::Up(known), Some(link)) => Arc::ptr_eq(known, link),
                (State::Connecting { .. }, None) => true,
                _ => false,
            };
            if applies {
                tracing::warn!(because, ?pause, "the allocator gives no answer");
                *state = State::Down { until };
            }
            applies
        });
    }
}
