//! What a pool's writer works on: who waits, the pool as it was last seen, and one pass over both.
//!
//! Owns: what is known of the pool, and whether it is still so. Never does: wait for its turn or
//! for more questions: that is the loop's, in `commit.rs`, where the invariants stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipam::ledger::{Answer, Ask, AskId, Batch, ClaimError, PoolLedger};
use ipam::name::{PodName, PoolName, Version};
use ipam::pool::Pool;
use ipam::select::Refusal;
use kube::ResourceExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{DOUBT_MAX, Done, Job, Writer};
use crate::api::SpiderIPPool;
use crate::error::ErrorChain;
use crate::kube_io::put::PutError;
use crate::kube_io::retry::Outcome;
use crate::pool_writer::Host;
use crate::pool_writer::error::CommitError;
use crate::pool_writer::pace::Pace;
use crate::pool_writer::seen::{Attachment, Granted, Reading};

/// Somebody who asked.
pub(super) struct Waiter {
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

/// What a pass came to.
pub(super) enum Pass {
    /// There was nothing to write.
    Nothing,
    /// A write was carried out; whether others wrote since the one before.
    Written { contested: bool },
    /// Try again after a pause; what went wrong, for those whose time is up.
    Again(Outcome, String),
}

/// What a writer works on.
pub(super) struct Desk<H> {
    pool: PoolName,
    host: Arc<H>,
    pub(super) waiting: BTreeMap<AskId, Waiter>,
    next_id: AskId,
    seen: Option<Seen>,
    /// True where `seen` is known to be behind.
    stale: bool,
    doubt: Option<Doubt>,
    /// Whether others wrote the pool since we did.
    contested: bool,
    pub(super) pace: Pace,
}

impl<H: Host> Desk<H> {
    pub(super) fn new(writer: &Writer<H>) -> Self {
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

    pub(super) fn take(&mut self, job: Job) {
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
    pub(super) fn is_waited_for(&self) -> bool {
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

    pub(super) async fn pass(&mut self) -> Pass {
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

    pub(super) fn leave_out_abandoned(&mut self) {
        let waiting = self.waiting.iter();
        let abandoned = waiting.filter(|(_, waiter)| {
            let of = waiter.early.as_ref().zip(waiter.attachment.as_ref());
            waiter.reply.is_closed() || of.is_some_and(|(pod, of)| self.host.ended(pod, &of.uid))
        });
        for id in abandoned.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    pub(super) fn give_up_late(&mut self, reason: &str) {
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
