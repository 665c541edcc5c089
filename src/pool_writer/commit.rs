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

mod desk;

use std::sync::Arc;
use std::time::Duration;

use ipam::ledger::Ask;
use ipam::name::PoolName;
use ipam::quarantine::Ruling;
use ipam::release::Released;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::desk::{Desk, Pass};
use super::error::CommitError;
use super::pace::Scene;
use super::seen::{Granted, Reading};
use super::{Busy, Host, Turns};

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

/// The writer of one pool.
pub(super) struct Writer<H> {
    pub(super) pool: PoolName,
    pub(super) host: Arc<H>,
    pub(super) turns: Arc<Turns>,
    /// How many pools are asked of now.
    pub(super) busy: Arc<Busy>,
    pub(super) inbox: mpsc::Receiver<Job>,
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
