//! The two ways in which an address comes into a pool's record, and leaves it.
//!
//! Owns: which way a claim or a release goes. *Path 1*: the leader's allocator, where the claims of
//! all nodes meet in one write. *Path 2*: this agent's own writers, where it gives no answer. Never
//! does: choose an address, or hold back a call for a way that is not there.
//!
//! **Why two ways are as safe as one.** Both write a pool only at the version they read
//! ([`crate::pool_writer`]), so of two that write one pool one loses and reads again, and the pool's
//! records stay the truth (invariants 1 and 2 of ARCHITECTURE.md). Both reply after the write only
//! (5). What is asked of either is for a (uid, nic): who asks again, here or there, finds the record
//! that the first request left, or makes the only one. What remains is a request whose answer never
//! came, which may be carried out late:
//!
//! * *A claim.* Its pool is noted before it is sent ([`Memory::asks`]), so a record that it leaves
//!   is found and released like any other. Until the allocator can no longer write it, a release that
//!   finds nothing is told [`CommitError::Doubt`], and asks again (6). The allocator drops a request
//!   whose caller has gone or has waited long enough, which it is told with each.
//! * *A release.* It names the sandboxes that let go, and is judged by the record that is there when
//!   it is written: one that comes late takes nothing from a later sandbox, and nothing from another
//!   uid or node.
//!
//! A restart forgets what was in doubt, as it does for the agent's own writes; what that can leave
//! behind, `super::leaks` finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::ledger::Claim;
use ipam::name::{NodeName, PodName, PoolName};
use ipam::quarantine::{Conflict, Ruling};
use ipam::release::{Release, Released};
use tokio::time::Instant;

use super::allocator::{Allocator, Answered, Time};
use super::host::Host;
use super::memory::Memory;
use crate::allocator::wire::{Reply, What};
use crate::kube_io::locked;
use crate::kube_io::tasks::Tasks;
use crate::pool_writer::{Attachment, CommitError, DOUBT_MAX, Granted, Reading, Writers};

/// Before a caller's time is up it is told why, where there is no other way.
const TO_SAY_SO: Duration = Duration::from_secs(1);

/// Said where nobody may write a pool, which the configuration refuses.
const NO_WAY: &str = "there is no way to write it";

/// The ways there are.
pub(super) struct Paths {
    node: NodeName,
    allocator: Option<Allocator>,
    own: Option<Writers<Host>>,
    memory: Arc<Memory>,
    tasks: Tasks,
    doubts: Doubts,
}

impl Paths {
    /// Of the agent of `node`. Without an allocator everything is written here, without writers of
    /// its own everything waits for the allocator.
    pub(super) fn new(
        node: NodeName,
        allocator: Option<Allocator>,
        own: Option<Writers<Host>>,
        memory: Arc<Memory>,
        tasks: Tasks,
    ) -> Self {
        Self {
            node,
            allocator,
            own,
            memory,
            tasks,
            doubts: Doubts::default(),
        }
    }

    /// An address of `pool`, durably recorded; `reading` is the pool as the caller saw it.
    ///
    /// Errors: [`CommitError`].
    pub(super) async fn claim(
        &self,
        pool: &PoolName,
        claim: Claim,
        reading: Option<Arc<Reading>>,
        deadline: Instant,
    ) -> Result<Granted, CommitError> {
        let of = Attachment {
            uid: claim.uid.clone(),
            nic: claim.nic.clone(),
        };
        // Before it is asked: whoever wants to know what may be recorded is told of this pool.
        self.memory.asks(&of, pool);
        let Some(allocator) = &self.allocator else {
            // Its own writers know what they may have written.
            let why = || unwritten(pool, NO_WAY.to_owned());
            let own = self.own.as_ref().ok_or_else(why)?;
            return own.claim(pool, claim, reading, deadline).await;
        };
        // Kept in mind until it is settled, also where this call is given up: whichever way took it,
        // the release may go the other one.
        let sent = self.doubts.sent(&of, pool, self.time(deadline));
        let what = What::Claim(Box::new(claim.clone()));
        let answered = allocator.ask(pool, &what, self.time(deadline)).await;
        let is_open = is_open(&answered);
        let granted = match answered {
            Answered::Reply(Reply::Granted(granted)) => {
                self.memory.granted(&of, granted.clone());
                Ok(granted)
            }
            Answered::Reply(Reply::Failed(error)) if is_final(&error) => Err(error),
            other => {
                let why = self.fall_back(pool, &other);
                match &self.own {
                    Some(own) => own.claim(pool, claim, reading, deadline).await,
                    None => Err(unwritten(pool, why)),
                }
            }
        };
        // What its own writers could not write they may have written all the same.
        let own_is_settled = self.own.is_none() || granted.as_ref().err().is_none_or(is_final);
        if !is_open && own_is_settled {
            sent.settled();
        }
        granted
    }

    /// Takes back what an interface of `pod` has of `pool`, behind every claim that was asked before.
    ///
    /// Errors: [`CommitError`].
    pub(super) async fn release(
        &self,
        pool: &PoolName,
        pod: &PodName,
        mut release: Release,
        deadline: Instant,
    ) -> Result<Released, CommitError> {
        release.node = Some(self.node.clone());
        let of = Attachment {
            uid: release.uid.clone(),
            nic: release.nic.clone(),
        };
        let released = self.release_somewhere(pool, pod, release, deadline).await?;
        if released == Released::default() && self.doubts.is_open(&of, pool) {
            return Err(CommitError::Doubt(pool.clone()));
        }
        Ok(released)
    }

    async fn release_somewhere(
        &self,
        pool: &PoolName,
        pod: &PodName,
        release: Release,
        deadline: Instant,
    ) -> Result<Released, CommitError> {
        let mut why = NO_WAY.to_owned();
        if let Some(allocator) = &self.allocator {
            let what = What::Release {
                pod: pod.clone(),
                release: release.clone(),
            };
            match allocator.ask(pool, &what, self.time(deadline)).await {
                Answered::Reply(Reply::Released(released)) => return Ok(released),
                Answered::Reply(Reply::Failed(error)) if is_final(&error) => return Err(error),
                other => why = self.fall_back(pool, &other),
            }
        }
        match &self.own {
            Some(writers) => writers.release(pool, release, deadline).await,
            None => Err(unwritten(pool, why)),
        }
    }

    /// Keeps Pods of `pool` from an address that another host uses. It is seldom, and always written
    /// here, beside the allocator.
    ///
    /// Errors: [`CommitError`]; always where this agent may not write pools.
    pub(super) async fn quarantine(
        &self,
        pool: &PoolName,
        conflict: Conflict,
        deadline: Instant,
    ) -> Result<Ruling, CommitError> {
        match &self.own {
            Some(writers) => writers.quarantine(pool, conflict, deadline).await,
            None => Err(unwritten(
                pool,
                "agents may not write pools here".to_owned(),
            )),
        }
    }

    /// What is remembered of what was asked for.
    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Where everything runs that is written here.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn time(&self, deadline: Instant) -> Time {
        let has_other_way = self.own.is_some();
        let deadline = if has_other_way {
            deadline
        } else {
            deadline.checked_sub(TO_SAY_SO).unwrap_or(deadline)
        };
        Time {
            deadline,
            has_other_way,
        }
    }

    /// Says why path 1 came to nothing.
    fn fall_back(&self, pool: &PoolName, answered: &Answered) -> String {
        let why = match answered {
            Answered::NotAsked => "the allocator is not to be reached".to_owned(),
            Answered::Unknown(why) => format!("the allocator gave no answer: {why}"),
            Answered::Reply(Reply::Failed(error)) => error.to_string(),
            Answered::Reply(reply) => format!("the allocator refuses: {reply:?}"),
        };
        match (answered, &self.own) {
            (Answered::NotAsked, Some(_)) => {}
            (_, Some(_)) => tracing::warn!(%pool, because = why, "writing the pool itself"),
            (_, None) => tracing::warn!(%pool, because = why, "IPPool not written"),
        }
        why
    }

    /// Forgets writers that have ended and doubts that are over.
    pub(super) fn prune(&self) {
        if let Some(writers) = &self.own {
            writers.prune();
        }
        self.doubts.prune();
    }
}

/// Whether the request may be carried out still.
fn is_open(answered: &Answered) -> bool {
    match answered {
        Answered::Unknown(_) => true,
        Answered::Reply(Reply::Failed(error)) => !is_final(error),
        Answered::Reply(_) | Answered::NotAsked => false,
    }
}

/// Whether the pool itself says so; else another way may have more luck.
fn is_final(error: &CommitError) -> bool {
    match error {
        CommitError::Refused(_)
        | CommitError::Exhausted { .. }
        | CommitError::Held { .. }
        | CommitError::Gone(_) => true,
        CommitError::Doubt(_) | CommitError::Write { .. } => false,
    }
}

fn unwritten(pool: &PoolName, reason: String) -> CommitError {
    let pool = pool.clone();
    CommitError::Write { pool, reason }
}

/// Claims that may be carried out still, by the allocator or a write of this agent's: until when.
#[derive(Default)]
struct Doubts {
    open: Mutex<BTreeMap<(Attachment, PoolName), Instant>>,
}

impl Doubts {
    /// A claim is about to be sent.
    fn sent(&self, of: &Attachment, pool: &PoolName, time: Time) -> Sent<'_> {
        Sent {
            doubts: self,
            of: Some((of.clone(), pool.clone())),
            time,
        }
    }

    fn is_open(&self, of: &Attachment, pool: &PoolName) -> bool {
        let open = locked(&self.open);
        let until = open.get(&(of.clone(), pool.clone()));
        until.is_some_and(|until| Instant::now() < *until)
    }

    fn prune(&self) {
        let now = Instant::now();
        locked(&self.open).retain(|_, until| now < *until);
    }
}

/// A claim on its way. If it is dropped before it is settled, nobody knows what became of it.
struct Sent<'d> {
    doubts: &'d Doubts,
    of: Option<(Attachment, PoolName)>,
    time: Time,
}

impl Sent<'_> {
    fn settled(mut self) {
        self.of = None;
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            // A write for it is not begun after its caller's patience, and over when the API server
            // gives up on it.
            let until = self.time.patience() + DOUBT_MAX;
            locked(&self.doubts.open).insert(of, until);
        }
    }
}
