//! The writers of all pools that this agent has work for, one task a pool.
//!
//! Owns: starting them. They end by themselves when idle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ipam::ledger::{Ask, Claim};
use ipam::name::PoolName;
use ipam::quarantine::{Conflict, Ruling};
use ipam::release::{Release, Released};
use kube::Client;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::commit::{Done, Job, QUEUE, Writer};
use super::error::CommitError;
use super::memory::{Granted, Memory};
use super::metrics::Metrics;
use super::reads::{Reading, Reads};
use super::tasks::Tasks;
use super::turn::Attachment;
use super::{Wakes, locked};

/// Access to every pool's writer.
pub(super) struct Writers {
    reads: Reads,
    writes: Client,
    memory: Arc<Memory>,
    wakes: Wakes,
    metrics: Metrics,
    tasks: Tasks,
    queues: Mutex<BTreeMap<PoolName, mpsc::Sender<Job>>>,
}

impl Writers {
    pub(super) fn new(
        reads: Reads,
        writes: Client,
        memory: Arc<Memory>,
        wakes: Wakes,
        metrics: Metrics,
        tasks: Tasks,
    ) -> Self {
        Self {
            reads,
            writes,
            memory,
            wakes,
            metrics,
            tasks,
            queues: Mutex::default(),
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
        // Before it is queued: whoever asks now what may be recorded is told of this pool.
        self.memory.asks(&of, pool);
        let ask = Ask::Claim(Box::new(claim));
        match self.ask(pool, ask, reading, deadline).await? {
            Done::Granted(granted) => Ok(granted),
            Done::Released(_) | Done::Ruled(_) => Err(stopped(pool)),
        }
    }

    /// Takes back what an interface has of `pool`, behind every claim that was queued before.
    ///
    /// Errors: [`CommitError`].
    pub(super) async fn release(
        &self,
        pool: &PoolName,
        release: Release,
        deadline: Instant,
    ) -> Result<Released, CommitError> {
        match self
            .ask(pool, Ask::Release(release), None, deadline)
            .await?
        {
            Done::Released(released) => Ok(released),
            Done::Granted(_) | Done::Ruled(_) => Err(stopped(pool)),
        }
    }

    /// Keeps Pods of `pool` from an address that another host uses.
    ///
    /// Errors: [`CommitError`].
    pub(super) async fn quarantine(
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
            locked(&self.queues).retain(|_, queue| !queue.is_closed());
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
            reads: self.reads.clone(),
            writes: self.writes.clone(),
            memory: Arc::clone(&self.memory),
            wakes: self.wakes.clone(),
            metrics: self.metrics.clone(),
            inbox,
        };
        self.tasks.spawn(writer.run());
        queues.insert(pool.clone(), queue.clone());
        queue
    }

    /// Where the writers run.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Forgets writers that have ended.
    pub(super) fn prune(&self) {
        locked(&self.queues).retain(|_, queue| !queue.is_closed());
    }
}

fn stopped(pool: &PoolName) -> CommitError {
    CommitError::Write {
        pool: pool.clone(),
        reason: "its writer stopped".to_owned(),
    }
}
