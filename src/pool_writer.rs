//! The writing of pools' records: everything that waits for one pool becomes one write.
//!
//! Owns: the writers, one task a pool with work, started here and ended by themselves. Never does:
//! choose an address or judge a Pod (the core's ledger does), or know which role it works for: what
//! differs between an agent and the controller is a [`Host`].
//!
//! Where to read next: `commit.rs` for what holds at all times, `pace.rs` for when is written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use ipam::addr::AddrSet;
use ipam::ledger::{Ask, Claim};
use ipam::name::{PodName, PoolName, Uid};
use ipam::quarantine::{Conflict, Ruling};
use ipam::release::{Release, Released};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

mod commit;
mod error;
mod pace;
mod seen;
mod tally;

pub use self::commit::DOUBT_MAX;
use self::commit::{Done, Job, QUEUE, Writer};
pub use self::error::CommitError;
pub use self::seen::{Attachment, Granted, Reading};
pub use self::tally::Tally;
use crate::api::SpiderIPPool;
use crate::kube_io::locked;
use crate::kube_io::put::PutError;
use crate::kube_io::retry::Outcome;
use crate::kube_io::tasks::Tasks;

/// Who else writes the pools of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rivals {
    /// Other nodes, as fast as this one: room is made for them.
    Others,
    /// Nobody, as a rule: everyone asks here, and each write waits a moment for more.
    None,
}

/// What a role brings to the writers of its pools.
pub trait Host: Send + Sync + 'static {
    /// Who else is to be expected to write the same pools.
    const RIVALS: Rivals;

    /// The pool, by a reading that begins with this call; `None` if there is none.
    ///
    /// Errors: what the API server said.
    fn read(
        &self,
        pool: &PoolName,
    ) -> impl Future<Output = Result<Option<Arc<Reading>>, String>> + Send;

    /// The pool as this process knows it without asking, if that is newer than `than`.
    fn known(&self, pool: &PoolName, than: Option<&SpiderIPPool>) -> Option<Arc<Reading>>;

    /// All reserved addresses, of both families.
    ///
    /// Errors: what the API server said.
    fn reserved(&self) -> impl Future<Output = Result<Arc<AddrSet>, String>> + Send;

    /// Writes the pool's status at the version that `pool` carries, and brings its metadata up to
    /// date; never twice.
    ///
    /// Errors: [`PutError`].
    fn write(&self, pool: &mut SpiderIPPool) -> impl Future<Output = Result<(), PutError>> + Send;

    /// Whether a Pod that has no sandbox yet is known to have ended.
    fn ended(&self, pod: &PodName, uid: &Uid) -> bool;

    /// An address is recorded, and who asked still waits for it.
    fn granted(&self, of: &Attachment, granted: &Granted);

    /// An address is recorded, and who asked has gone.
    fn untaken(&self, of: &Attachment);

    /// A write was carried out, with so many claims and releases.
    fn written(&self, asks: usize);

    /// A write was not carried out. `allocates` tells whether a claim waited for it.
    fn not_written(&self, outcome: Outcome, allocates: bool);
}

/// Most pools that are written at one time where the claims of all nodes meet. Enough for any API
/// server's latency; a pool whose turn has not come takes in what is asked meanwhile, so the busier
/// the API server is, the more a write carries.
const WRITES_AT_ONCE: usize = 8;
/// Most pools that are written in addition, since a write of theirs has just ended: who came too late
/// for it has waited for one write, and would wait again behind all other pools.
const WRITES_AGAIN: usize = 4;

/// Whose turn it is to write; first come, first served.
struct Turns {
    first: Semaphore,
    again: Semaphore,
}

impl Turns {
    fn new(rivals: Rivals) -> Self {
        let (first, again) = match rivals {
            Rivals::None => (WRITES_AT_ONCE, WRITES_AGAIN),
            Rivals::Others => (Semaphore::MAX_PERMITS, Semaphore::MAX_PERMITS),
        };
        Self {
            first: Semaphore::new(first),
            again: Semaphore::new(again),
        }
    }

    /// Waits for a turn, which lasts until what this gives is dropped.
    async fn wait(&self, again: bool) -> Option<SemaphorePermit<'_>> {
        let turns = if again { &self.again } else { &self.first };
        // It is never closed.
        turns.acquire().await.ok()
    }
}

/// How many pools are asked of at this moment.
#[derive(Default)]
struct Busy(AtomicU32);

/// A pool that is asked of, until this is dropped.
struct Asked<'b>(&'b Busy);

impl Busy {
    fn enter(&self) -> Asked<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Asked(self)
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Access to every pool's writer.
pub struct Writers<H> {
    host: Arc<H>,
    tasks: Tasks,
    turns: Arc<Turns>,
    busy: Arc<Busy>,
    queues: Mutex<BTreeMap<PoolName, mpsc::Sender<Job>>>,
}

impl<H: Host> Writers<H> {
    /// Without any writer yet; they will run in `tasks`.
    pub fn new(host: H, tasks: Tasks) -> Self {
        Self {
            host: Arc::new(host),
            tasks,
            turns: Arc::new(Turns::new(H::RIVALS)),
            busy: Arc::default(),
            queues: Mutex::default(),
        }
    }

    /// An address of `pool`, durably recorded; `reading` is the pool as the caller saw it.
    ///
    /// Errors: [`CommitError`].
    pub async fn claim(
        &self,
        pool: &PoolName,
        claim: Claim,
        reading: Option<Arc<Reading>>,
        deadline: Instant,
    ) -> Result<Granted, CommitError> {
        let ask = Ask::Claim(Box::new(claim));
        match self.ask(pool, ask, reading, deadline).await? {
            Done::Granted(granted) => Ok(granted),
            Done::Released(_) | Done::Ruled(_) => Err(stopped(pool)),
        }
    }

    /// Takes back what an interface has of `pool`, behind every claim that was queued before.
    ///
    /// Errors: [`CommitError`].
    pub async fn release(
        &self,
        pool: &PoolName,
        release: Release,
        deadline: Instant,
    ) -> Result<Released, CommitError> {
        let ask = Ask::Release(release);
        match self.ask(pool, ask, None, deadline).await? {
            Done::Released(released) => Ok(released),
            Done::Granted(_) | Done::Ruled(_) => Err(stopped(pool)),
        }
    }

    /// Keeps Pods of `pool` from an address that another host uses.
    ///
    /// Errors: [`CommitError`].
    pub async fn quarantine(
        &self,
        pool: &PoolName,
        conflict: Conflict,
        deadline: Instant,
    ) -> Result<Ruling, CommitError> {
        let ask = Ask::Quarantine(Box::new(conflict));
        match self.ask(pool, ask, None, deadline).await? {
            Done::Ruled(ruling) => Ok(ruling),
            Done::Granted(_) | Done::Released(_) => Err(stopped(pool)),
        }
    }

    async fn ask(
        &self,
        pool: &PoolName,
        ask: Ask,
        reading: Option<Arc<Reading>>,
        deadline: Instant,
    ) -> Result<Done, CommitError> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            ask,
            deadline,
            reading,
            reply,
        };
        match timeout_at(deadline, self.deliver(pool, job, answer)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CommitError::Write {
                pool: pool.clone(),
                reason: "its writer did not get to it in time".to_owned(),
            }),
        }
    }

    async fn deliver(
        &self,
        pool: &PoolName,
        mut job: Job,
        answer: oneshot::Receiver<Result<Done, CommitError>>,
    ) -> Result<Done, CommitError> {
        // A queue that is closed belongs to a writer that is about to end.
        while let Err(mpsc::error::SendError(back)) = self.queue(pool).send(job).await {
            job = back;
            self.prune();
        }
        answer.await.unwrap_or_else(|_| Err(stopped(pool)))
    }

    fn queue(&self, pool: &PoolName) -> mpsc::Sender<Job> {
        let mut queues = locked(&self.queues);
        if let Some(queue) = queues.get(pool) {
            return queue.clone();
        }
        let (queue, inbox) = mpsc::channel(QUEUE);
        let writer = Writer {
            pool: pool.clone(),
            host: Arc::clone(&self.host),
            turns: Arc::clone(&self.turns),
            busy: Arc::clone(&self.busy),
            inbox,
        };
        self.tasks.spawn(writer.run());
        queues.insert(pool.clone(), queue.clone());
        queue
    }

    /// Forgets writers that have ended.
    pub fn prune(&self) {
        locked(&self.queues).retain(|_, queue| !queue.is_closed());
    }
}

fn stopped(pool: &PoolName) -> CommitError {
    CommitError::Write {
        pool: pool.clone(),
        reason: "its writer stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests;
