//! One pool's writer: what is asked of the pool while a write is under way goes out in the next.
//!
//! Owns: the writing of one pool's records. Never does: choose an address or judge a Pod: that is
//! the core's [`PoolLedger`], around which this is the loop of time and IO. Invariants:
//!
//! * An answer leaves only after the records that it speaks of are stored, or were read as stored
//!   after the question was asked. A refusal too: one that was computed on an old reading of the
//!   pool is checked on a live one, unless the write that went out with it proves it current.
//! * Every write carries the version it was computed from. After a conflict, or an outcome nobody
//!   knows, the pool is read live and everything is computed anew; nothing was promised yet.
//! * Who no longer waits for an answer is left out of the next write. If the write was under way,
//!   whoever releases is told to look again. Left out, too, is what is claimed for a Pod that has no
//!   sandbox yet and has ended: nobody may ever release it.
//! * A release is answered behind everything that was asked before it. A write whose outcome nobody
//!   knows may still arrive while the pool has the version it was computed from: until then, or
//!   [`DOUBT_MAX`], "nothing is recorded" is not said.
//! * A pool whose records cannot be read is never written.
//! * Between two writes there is a pause (`pace.rs`): where other nodes write the pool, so that none
//!   keeps it to itself; where all nodes' claims meet, so that more of them share a write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipam::ledger::{Answer, Ask, AskId, Batch, ClaimError, PoolLedger};
use ipam::name::{PodName, PoolName, Version};
use ipam::pool::Pool;
use ipam::quarantine::Ruling;
use ipam::release::Released;
use ipam::select::Refusal;
use kube::ResourceExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::CommitError;
use super::pace::{Pace, Scene};
use super::seen::{Attachment, Granted, Reading};
use super::{Busy, Host, Turns};
use crate::api::SpiderIPPool;
use crate::error::ErrorChain;
use crate::kube_io::put::PutError;
use crate::kube_io::retry::Outcome;

/// How many questions may wait for one pool's writer.
pub(super) const QUEUE: usize = 1024;
/// A writer without work ends after this long.
const IDLE: Duration = Duration::from_secs(60);
/// The API server gives up on a request after this long, so that what was sent before no longer
/// arrives.
pub const DOUBT_MAX: Duration = Duration::from_secs(60);
/// Releases alone are in no hurry: they wait this long for company.
const LINGER: Duration = Duration::from_millis(200);

/// A question to a pool's writer.
pub(super) struct Job {
    pub(super) ask: Ask,
    /// When nobody waits for the answer any more.
    pub(super) deadline: Instant,
    /// The pool as the caller read it, which saves the writer a read of its own.
    pub(super) reading: Option<Arc<Reading>>,
    pub(super) reply: oneshot::Sender<Result<Done, CommitError>>,
}

/// What a pool's writer did.
#[derive(Debug)]
pub(super) enum Done {
    /// The address is recorded.
    Granted(Granted),
    /// What went, and what stays and why.
    Released(Released),
    /// What became of an address in conflict.
    Ruled(Ruling),
}

struct Waiter {
    /// Until the ledger has it.
    ask: Option<Ask>,
    /// Whom a claim is for.
    attachment: Option<Attachment>,
    /// The Pod of a claim that no sandbox made.
    early: Option<PodName>,
    deadline: Instant,
    reply: oneshot::Sender<Result<Done, CommitError>>,
}

/// The pool as last read or written.
struct Seen {
    object: SpiderIPPool,
    ledger: PoolLedger,
    /// The pool was so at this moment or later.
    at: Instant,
}

/// A write of unknown outcome.
struct Doubt {
    /// What it was computed from: it can only arrive while the pool has this version.
    version: Version,
    since: Instant,
}

/// The writer of one pool.
pub(super) struct Writer<H> {
    pub(super) pool: PoolName,
    pub(super) host: Arc<H>,
    pub(super) turns: Arc<Turns>,
    /// How many pools are asked of now.
    pub(super) busy: Arc<Busy>,
    pub(super) inbox: mpsc::Receiver<Job>,
}

/// What a pass came to.
enum Pass {
    /// There was nothing to write.
    Nothing,
    /// A write was carried out; whether others wrote since the one before.
    Written { contested: bool },
    /// Try again after a pause; what went wrong, for those whose time is up.
    Again(Outcome, String),
}

impl<H: Host> Writer<H> {
    /// Serves until nobody has asked anything for a while.
    pub(super) async fn run(mut self) {
        let mut desk = Desk::new(&self);
        while let Some(job) = self.next_job().await {
            desk.take(job);
            let busy = Arc::clone(&self.busy);
            let _asked = busy.enter();
            self.gather(&mut desk).await;
            let mut failed: Option<String> = None;
            let mut again = false;
            loop {
                sleep_until(desk.pace.next()).await;
                let turn = self.turns.wait(again).await;
                again = true;
                while let Ok(job) = self.inbox.try_recv() {
                    desk.take(job);
                }
                desk.leave_out_abandoned();
                if let Some(reason) = failed.take() {
                    desk.give_up_late(&reason);
                }
                if desk.waiting.is_empty() {
                    break;
                }
                let began = Instant::now();
                let pass = desk.pass().await;
                drop(turn);
                match pass {
                    Pass::Nothing => {}
                    Pass::Written { contested } => {
                        let scene = match contested {
                            true => Scene::Contested,
                            false if self.inbox.is_empty() => Scene::Quiet,
                            false => Scene::Busy,
                        };
                        desk.pace.won(began.elapsed(), scene);
                    }
                    Pass::Again(outcome, reason) => {
                        desk.pace.lost(began.elapsed(), outcome);
                        failed = Some(reason);
                    }
                }
            }
        }
    }

    /// Waits for more releases to write at once, until somebody waits for an answer; then for more
    /// claims, where all nodes' meet here.
    async fn gather(&mut self, desk: &mut Desk<H>) {
        let until = Instant::now() + LINGER;
        while !desk.is_waited_for() {
            match timeout_at(until, self.inbox.recv()).await {
                Ok(Some(job)) => desk.take(job),
                Ok(None) | Err(_) => return,
            }
        }
        let since = Instant::now();
        loop {
            let until = desk.pace.gathered(since, self.busy.count());
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// The next question; `None` once the writer may end. Who sends after that finds the queue
    /// closed and starts another writer.
    async fn next_job(&mut self) -> Option<Job> {
        if let Ok(job) = tokio::time::timeout(IDLE, self.inbox.recv()).await {
            return job;
        }
        self.inbox.close();
        self.inbox.recv().await
    }
}

/// What a writer works on.
struct Desk<H> {
    pool: PoolName,
    host: Arc<H>,
    waiting: BTreeMap<AskId, Waiter>,
    next_id: AskId,
    seen: Option<Seen>,
    /// True where `seen` is known to be behind.
    stale: bool,
    doubt: Option<Doubt>,
    /// Whether others wrote the pool since we did.
    contested: bool,
    pace: Pace,
}

impl<H: Host> Desk<H> {
    fn new(writer: &Writer<H>) -> Self {
        Self {
            pool: writer.pool.clone(),
            host: Arc::clone(&writer.host),
            waiting: BTreeMap::new(),
            next_id: 0,
            seen: None,
            stale: false,
            doubt: None,
            contested: false,
            pace: Pace::new(H::RIVALS),
        }
    }

    fn take(&mut self, job: Job) {
        if let Some(reading) = &job.reading {
            self.learn(reading);
        }
        let (attachment, early) = match &job.ask {
            Ask::Claim(claim) => {
                let attachment = Attachment {
                    uid: claim.uid.clone(),
                    nic: claim.nic.clone(),
                };
                let is_early = claim.sandbox.is_none();
                (Some(attachment), is_early.then(|| claim.pod.pod.clone()))
            }
            Ask::Release(_) | Ask::Quarantine(_) => (None, None),
        };
        let waiter = Waiter {
            ask: Some(job.ask),
            attachment,
            early,
            deadline: job.deadline,
            reply: job.reply,
        };
        self.waiting.insert(self.next_id, waiter);
        self.next_id = self.next_id.wrapping_add(1);
    }

    /// True where an answer is waited for: nobody waits for a release.
    fn is_waited_for(&self) -> bool {
        let mut waiting = self.waiting.values();
        waiting.any(|waiter| !matches!(waiter.ask, Some(Ask::Release(_))))
    }

    /// Takes in a reading of a caller, if it is newer than what is known.
    fn learn(&mut self, reading: &Reading) {
        let is_news = self.seen.as_ref().is_none_or(|s| reading.began > s.at);
        if is_news && let Ok(pool) = &reading.candidate.pool {
            self.adopt(reading, pool);
        }
    }

    fn adopt(&mut self, reading: &Reading, pool: &Pool) {
        let object = reading.object.clone();
        match &mut self.seen {
            Some(seen) => {
                if seen.ledger.pool().version != pool.version {
                    self.contested = true;
                }
                seen.ledger.refresh(pool.clone());
                seen.object = object;
                seen.at = reading.began;
            }
            None => {
                self.seen = Some(Seen {
                    object,
                    ledger: PoolLedger::new(pool.clone()),
                    at: reading.began,
                });
            }
        }
        self.stale = false;
    }

    async fn pass(&mut self) -> Pass {
        if !self.stale {
            self.catch_up();
        }
        // What is asked now was taken in before this.
        let looks = self.stale || self.seen.is_none();
        if looks {
            match self.host.read(&self.pool).await {
                Err(reason) => return Pass::Again(Outcome::Unknown, reason),
                Ok(found) => self.look_at(found),
            }
        }
        let Some(seen) = &mut self.seen else {
            return Pass::Nothing; // everyone was told why
        };
        for (id, waiter) in &mut self.waiting {
            if let Some(ask) = waiter.ask.take() {
                seen.ledger.queue(*id, ask);
            }
        }
        let reserved = match self.host.reserved().await {
            Ok(reserved) => reserved,
            Err(reason) => return Pass::Again(Outcome::Unknown, reason),
        };
        let Some(batch) = seen.ledger.batch(&reserved) else {
            return Pass::Nothing;
        };
        if batch.changed() {
            return self.write(batch).await;
        }
        if looks {
            let version = seen.ledger.pool().version.clone();
            self.answer(batch, version);
        } else {
            // No write will prove that this is still so: a look must.
            self.stale = true;
        }
        Pass::Nothing
    }

    /// Takes in what this process knows without asking. It may be behind, as what this writer wrote
    /// last may be: the write will tell.
    fn catch_up(&mut self) {
        let than = self.seen.as_ref().map(|seen| &seen.object);
        let Some(known) = self.host.known(&self.pool, than) else {
            return;
        };
        match &known.candidate.pool {
            Ok(pool) => {
                let contested = self.contested;
                self.adopt(&known, pool);
                self.contested = contested; // a part of this process is no rival
            }
            Err(_) => self.stale = true,
        }
    }

    /// Takes in a live reading; where there is no usable pool, everyone is told.
    fn look_at(&mut self, found: Option<Arc<Reading>>) {
        let error = match found {
            None => CommitError::Gone(self.pool.clone()),
            Some(reading) => match &reading.candidate.pool {
                Ok(pool) => return self.adopt(&reading, pool),
                Err(fault) => CommitError::Refused(Refusal::Fault(fault.clone())),
            },
        };
        self.seen = None;
        self.answer_all(&error);
    }

    async fn write(&mut self, batch: Batch) -> Pass {
        let Some(seen) = &mut self.seen else {
            return Pass::Nothing;
        };
        let status = seen.object.status.get_or_insert_default();
        status.allocated_ips = batch.records().to_text();
        status.allocated_ip_count = Some(batch.records().count().to_wire());
        status.total_ip_count = Some(seen.ledger.pool().total().count().to_wire());
        match self.host.write(&mut seen.object).await {
            Ok(()) => {
                seen.object.managed_fields_mut().clear();
                let version = Version::new(seen.object.resource_version().unwrap_or_default());
                seen.at = Instant::now();
                self.host.written(self.waiting.len());
                self.answer(batch, version);
                let contested = std::mem::take(&mut self.contested);
                // They write while this one pauses, so a write without a look would be in vain.
                self.stale |= contested;
                Pass::Written { contested }
            }
            Err(error) => self.not_written(&error),
        }
    }

    fn not_written(&mut self, error: &PutError) -> Pass {
        if let PutError::Behind { .. } = error {
            return Pass::Nothing; // another part of this process wrote: the next pass catches up
        }
        self.stale = true;
        if let Some(seen) = &mut self.seen {
            // What was read before this is as old.
            seen.at = Instant::now();
        }
        let outcome = error.outcome();
        let allocates = self.waiting.values().any(|w| w.attachment.is_some());
        self.host.not_written(outcome, allocates);
        if outcome == Outcome::Unknown {
            self.doubt = self.seen.as_ref().map(|seen| Doubt {
                version: seen.ledger.pool().version.clone(),
                since: Instant::now(),
            });
        }
        if outcome == Outcome::Conflict {
            self.contested = true;
        }
        let reason = ErrorChain(error).to_string();
        match outcome {
            Outcome::Fatal => {
                tracing::error!(pool = %self.pool, error = reason, "IPPool cannot be written");
                let pool = self.pool.clone();
                self.answer_all(&CommitError::Write { pool, reason });
                Pass::Nothing
            }
            Outcome::Conflict | Outcome::Gone | Outcome::AlreadyExists => {
                tracing::debug!(pool = %self.pool, because = reason, "IPPool moved; reading it again");
                Pass::Again(outcome, reason)
            }
            Outcome::Unknown | Outcome::Retryable { .. } => {
                tracing::warn!(pool = %self.pool, because = reason, "IPPool may not be written; reading it again");
                Pass::Again(outcome, reason)
            }
        }
    }

    fn answer(&mut self, batch: Batch, version: Version) {
        let Some(seen) = &mut self.seen else {
            return;
        };
        let written = batch.changed();
        // The write that is in doubt can't arrive after another.
        let in_doubt = !written
            && self
                .doubt
                .as_ref()
                .is_some_and(|doubt| doubt.version == version && doubt.since.elapsed() < DOUBT_MAX);
        let answers = seen.ledger.committed(batch, version);
        let pool = seen.ledger.pool();
        let (mut given, mut freed) = (0_u32, 0_usize);
        for (id, answer) in answers {
            let Some(waiter) = self.waiting.remove(&id) else {
                continue;
            };
            let done = match answer {
                Answer::Claim(Ok(grant)) => {
                    given += 1;
                    let granted = Granted::new(pool, &grant);
                    if let Some(attachment) = &waiter.attachment
                        && !waiter.reply.is_closed()
                    {
                        self.host.granted(attachment, &granted);
                    }
                    Ok(Done::Granted(granted))
                }
                Answer::Claim(Err(ClaimError::Refused(why))) => Err(CommitError::Refused(why)),
                Answer::Claim(Err(ClaimError::Exhausted(why))) => Err(CommitError::Exhausted {
                    why,
                    version: pool.version.clone(),
                }),
                Answer::Claim(Err(ClaimError::Held(held))) => Err(CommitError::Held {
                    held,
                    version: pool.version.clone(),
                }),
                Answer::Quarantine(ruling) => Ok(Done::Ruled(ruling)),
                Answer::Release(_) if in_doubt => Err(CommitError::Doubt(pool.name.clone())),
                Answer::Release(released) => {
                    freed += released.freed.len();
                    Ok(Done::Released(released))
                }
            };
            // Whoever asked may have left: their next call finds what was stored, or nobody calls
            // again and it is to be released.
            if let Err(Ok(Done::Granted(_))) = waiter.reply.send(done)
                && let Some(of) = waiter.attachment
            {
                self.host.untaken(&of);
            }
        }
        if written {
            tracing::info!(pool = %pool.name, given, freed, used = %pool.used(), "IPPool written");
        }
    }

    fn answer_all(&mut self, error: &CommitError) {
        for id in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.fail(id, error.clone());
        }
    }

    fn leave_out_abandoned(&mut self) {
        let waiting = self.waiting.iter();
        let abandoned = waiting.filter(|(_, waiter)| {
            let of = waiter.early.as_ref().zip(waiter.attachment.as_ref());
            waiter.reply.is_closed() || of.is_some_and(|(pod, of)| self.host.ended(pod, &of.uid))
        });
        for id in abandoned.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    fn give_up_late(&mut self, reason: &str) {
        let now = Instant::now();
        let late = self.waiting.iter().filter(|(_, w)| w.deadline <= now);
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            let (pool, reason) = (self.pool.clone(), reason.to_owned());
            self.fail(id, CommitError::Write { pool, reason });
        }
    }

    fn fail(&mut self, id: AskId, error: CommitError) {
        if let Some(waiter) = self.remove(id) {
            let _ = waiter.reply.send(Err(error));
        }
    }

    fn remove(&mut self, id: AskId) -> Option<Waiter> {
        if let Some(seen) = &mut self.seen {
            seen.ledger.forget(id);
        }
        self.waiting.remove(&id)
    }
}
