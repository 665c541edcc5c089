//! DEL and what follows: an address returns to its pool only with the proof that it is let go.
//!
//! Owns: the sandboxes that let go and whose addresses are still recorded. Never does: free
//! anything on one half of the proof. The proof has two halves:
//!
//! 1. **The node has let go**: the runtime called DEL for the sandbox that the record names. A DEL
//!    of an older sandbox frees nothing; the ledger compares.
//! 2. **The Pod has let go**: its uid is absent, finished or terminating by a live read.
//!
//! A DEL is kept in the [`Journal`] before it is answered. If the Pod lives, it stays there until
//! the Pod ends or an ADD for a new sandbox takes the addresses over. The record stays for
//! [`HOLD_OFF`] after the DEL, because plugins such as macvlan call IPAM before they remove the
//! link; it is the record itself that holds the address back, so a restart shortens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::ledger::Release;
use ipam::name::{PodName, PoolName, Sandbox, Uid};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use super::commit::CommitError;
use super::endpoint;
use super::journal::{Entry, Journal};
use super::locked;
use super::memo::Age;
use super::memory::{Memory, Trace};
use super::pods;
use super::reads::{ReadError, Reading, Reads};
use super::turn::{Attachment, Turns};
use super::writers::Writers;
use crate::error::ErrorChain;
use crate::kube_io::retry::Backoff;

/// From the DEL to the write that frees the address.
pub(super) const HOLD_OFF: Duration = Duration::from_secs(2);
/// Releases that may ask the API server at once.
const AT_ONCE: usize = 32;
/// Longest wait for a pool's writer; then the release is tried again.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// First and longest cap of the pause after a release that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// Sandboxes remembered for one interface: a record names the last that was *served*, and a Pod
/// that is refused for a day leaves thousands after that.
const SANDBOXES: usize = 4096;

/// Why a release has to be tried again.
#[derive(Debug, thiserror::Error)]
enum ReleaseError {
    /// Something could not be read.
    #[error("could not find out who holds what")]
    Read(#[from] ReadError),
    /// A pool could not be read.
    #[error("IPPool {0} is unreadable, so its records cannot be changed")]
    Unreadable(PoolName),
    /// A pool could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The journal could not be changed.
    #[error("could not change the journal")]
    Journal(#[from] io::Error),
}

/// What a try came to.
enum Verdict {
    /// Nothing is recorded any more, or nothing is to be released.
    Over,
    /// The Pod lives.
    Kept,
}

/// An interface whose sandboxes let go.
struct Ack {
    entry: Entry,
    since: Instant,
    work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nobody looks after it until the Pod ends.
    Idle,
    /// A task does.
    Running,
    /// A task does, and must look again: something changed meanwhile.
    Again,
}

/// The interfaces that let go.
#[derive(Clone)]
pub(super) struct Releases {
    shared: Arc<Shared>,
}

struct Shared {
    acks: Mutex<BTreeMap<Attachment, Ack>>,
    journal: Journal,
    reads: Reads,
    writers: Arc<Writers>,
    memory: Arc<Memory>,
    turns: Turns,
    permits: Semaphore,
}

impl Releases {
    pub(super) fn new(
        journal: Journal,
        reads: Reads,
        writers: Arc<Writers>,
        memory: Arc<Memory>,
        turns: Turns,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                acks: Mutex::default(),
                journal,
                reads,
                writers,
                memory,
                turns,
                permits: Semaphore::new(AT_ONCE),
            }),
        }
    }

    /// Takes up what an earlier agent left in the journal.
    ///
    /// Errors: the journal cannot be read.
    pub(super) fn replay(&self) -> io::Result<()> {
        for entry in self.shared.journal.entries()? {
            let of = entry.attachment();
            tracing::info!(pod = %entry.pod, nic = %entry.nic, "release taken up again after a restart");
            self.insert(entry);
            self.kick(&of);
        }
        Ok(())
    }

    /// The runtime tore `sandbox` down. When this returns it will not be forgotten.
    ///
    /// Errors: it could not be kept; the DEL has to be repeated.
    pub(super) async fn acknowledge(
        &self,
        of: Attachment,
        pod: PodName,
        sandbox: Sandbox,
    ) -> io::Result<()> {
        // On its own, so that a caller who hangs up leaves nothing half done.
        let this = self.clone();
        let kept = tokio::spawn(async move { this.keep(&of, &pod, sandbox).await });
        kept.await
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
    }

    async fn keep(&self, of: &Attachment, pod: &PodName, sandbox: Sandbox) -> io::Result<()> {
        let _turn = self.shared.turns.wait(of).await;
        let trace = self.shared.memory.trace(of);
        if trace.whole && trace.pools.is_empty() {
            return Ok(()); // it was never given anything
        }
        let known = locked(&self.shared.acks)
            .get(of)
            .map(|ack| ack.entry.clone());
        let mut entry = known.unwrap_or_else(|| Entry {
            pod: pod.clone(),
            uid: of.uid.clone(),
            nic: of.nic.clone(),
            sandboxes: Vec::new(),
            pools: None,
        });
        if let Some(pools) = self.shared.homes(of, pod, &trace).await {
            entry.pools.get_or_insert_default().extend(pools);
        }
        entry.sandboxes.retain(|kept| *kept != sandbox);
        entry.sandboxes.push(sandbox);
        let surplus = entry.sandboxes.len().saturating_sub(SANDBOXES);
        entry.sandboxes.drain(..surplus);
        self.shared.journal.write(entry.clone()).await?;
        self.insert(entry);
        self.kick(of);
        Ok(())
    }

    /// A new sandbox took the interface's addresses over: the DELs of earlier ones mean nothing.
    /// The caller has the interface's turn.
    pub(super) async fn supersede(&self, of: &Attachment) {
        if locked(&self.shared.acks).remove(of).is_some()
            && let Err(error) = self.shared.journal.remove(of).await
        {
            // Its sandboxes are not the one recorded, so it would free nothing.
            tracing::warn!(%error, "superseded entry of the journal could not be removed");
        }
    }

    /// The Pod was seen to end.
    pub(super) fn pod_ended(&self, uid: &Uid) {
        for of in self.interfaces(|of| of.uid == *uid) {
            self.kick(&of);
        }
    }

    /// Looks after every interface whose Pod is not `alive`: for what the watch did not tell.
    pub(super) fn sweep(&self, alive: impl Fn(&Uid) -> bool) {
        for of in self.interfaces(|of| !alive(&of.uid)) {
            self.kick(&of);
        }
    }

    fn interfaces(&self, wanted: impl Fn(&Attachment) -> bool) -> Vec<Attachment> {
        let acks = locked(&self.shared.acks);
        acks.keys().filter(|of| wanted(of)).cloned().collect()
    }

    fn insert(&self, entry: Entry) {
        let mut acks = locked(&self.shared.acks);
        let of = entry.attachment();
        let work = acks.get(&of).map_or(Work::Idle, |ack| ack.work);
        let since = Instant::now();
        acks.insert(of, Ack { entry, since, work });
    }

    fn kick(&self, of: &Attachment) {
        let mut acks = locked(&self.shared.acks);
        let Some(ack) = acks.get_mut(of) else {
            return;
        };
        if ack.work != Work::Idle {
            ack.work = Work::Again;
            return;
        }
        ack.work = Work::Running;
        let (shared, of) = (Arc::clone(&self.shared), of.clone());
        tokio::spawn(async move { shared.look_after(&of).await });
    }
}

impl Shared {
    /// Until the interface's addresses are released, taken over, or its Pod turns out to live.
    async fn look_after(&self, of: &Attachment) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            self.rest(of).await;
            match self.release(of).await {
                Ok(Verdict::Over) => return,
                Ok(Verdict::Kept) => backoff.reset(),
                Err(error) => {
                    tracing::warn!(uid = %of.uid, nic = %of.nic, error = %ErrorChain(&error), "release failed; trying again");
                    sleep(backoff.next_delay()).await;
                    continue;
                }
            }
            let mut acks = locked(&self.acks);
            match acks.get_mut(of) {
                None => return,
                Some(ack) if ack.work == Work::Again => ack.work = Work::Running,
                Some(ack) => {
                    ack.work = Work::Idle;
                    return;
                }
            }
        }
    }

    /// Waits until the hold-off of the last DEL is over.
    async fn rest(&self, of: &Attachment) {
        let since = || locked(&self.acks).get(of).map(|ack| ack.since);
        while let Some(since) = since().filter(|since| since.elapsed() < HOLD_OFF) {
            sleep_until(since + HOLD_OFF).await;
        }
    }

    /// The pools that may hold a record of the interface, if that can be told now; the Pod's
    /// endpoint, which says so for an earlier agent, is gone soon.
    async fn homes(
        &self,
        of: &Attachment,
        pod: &PodName,
        trace: &Trace,
    ) -> Option<BTreeSet<PoolName>> {
        let mut pools = trace.pools.clone();
        if trace.whole || trace.settled {
            return Some(pools);
        }
        let endpoint = self.reads.endpoint(pod).await.ok()?;
        let named = endpoint::pools_of(endpoint.as_ref(), of);
        let is_told = !named.is_empty();
        pools.extend(named.into_values());
        is_told.then_some(pools)
    }

    async fn release(&self, of: &Attachment) -> Result<Verdict, ReleaseError> {
        // Fails only if the semaphore is closed, which nobody does.
        let _permit = self.permits.acquire().await;
        let Some(pod) = locked(&self.acks).get(of).map(|ack| ack.entry.pod.clone()) else {
            return Ok(Verdict::Over);
        };
        if pods::is_alive_now(&self.reads, &pod, &of.uid).await? {
            return Ok(Verdict::Kept);
        }
        let _turn = self.turns.wait(of).await;
        // An ADD may have had its turn meanwhile.
        let ack = locked(&self.acks)
            .get(of)
            .map(|ack| (ack.entry.clone(), ack.since));
        let Some((entry, since)) = ack else {
            return Ok(Verdict::Over);
        };
        if since.elapsed() < HOLD_OFF {
            return Ok(Verdict::Kept); // another DEL came, and with it another look
        }
        let mut is_free = true;
        for (pool, addresses) in self.recorded(&entry, since).await? {
            for address in addresses {
                is_free &= self.free(&pool, address, &entry).await?;
            }
        }
        self.journal.remove(of).await?;
        locked(&self.acks).remove(of);
        if is_free {
            self.memory.released(of);
        } // else a later sandbox has it, whose DEL is to come
        Ok(Verdict::Over)
    }

    /// Releases what one of the sandboxes had; true where it is known to be free now.
    async fn free(
        &self,
        pool: &PoolName,
        address: IpAddr,
        entry: &Entry,
    ) -> Result<bool, ReleaseError> {
        let Some(sandbox) = self.let_go(pool, address, entry).await? else {
            return Ok(false);
        };
        let release = Release {
            address,
            uid: entry.uid.clone(),
            sandbox: Some(sandbox.clone()),
        };
        let deadline = Instant::now() + WRITE_MAX;
        match self.writers.release(pool, release, deadline).await {
            Ok(true) => {
                tracing::info!(pod = %entry.pod, nic = %entry.nic, %sandbox, %pool, %address, "address released");
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(CommitError::Gone(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The sandbox that the record names, if it is one of those that let go; the ledger compares
    /// again.
    async fn let_go(
        &self,
        pool: &PoolName,
        address: IpAddr,
        entry: &Entry,
    ) -> Result<Option<Sandbox>, ReleaseError> {
        let last = entry.sandboxes.last().cloned();
        if entry.sandboxes.len() < 2 {
            return Ok(last);
        }
        let Some(reading) = self.reads.pool(pool, Age::live()).await? else {
            return Ok(None);
        };
        let Ok(found) = &reading.candidate.pool else {
            return Err(ReleaseError::Unreadable(pool.clone()));
        };
        let recorded = found.records.get(address).map(|record| &record.sandbox);
        Ok(match recorded {
            None => None,
            Some(None) => last,
            Some(Some(named)) => entry.sandboxes.contains(named).then(|| named.clone()),
        })
    }

    /// Where the interface has records: what this agent remembers, and what was known at the DEL,
    /// else a look into every pool.
    async fn recorded(
        &self,
        entry: &Entry,
        since: Instant,
    ) -> Result<BTreeMap<PoolName, BTreeSet<IpAddr>>, ReleaseError> {
        let of = entry.attachment();
        let trace = self.memory.trace(&of);
        let mut named = trace.pools;
        if let Some(pools) = &entry.pools {
            named.extend(pools.iter().cloned());
        } else {
            // A uid that is dead gets no new records, so one list serves all DELs before it.
            let all = self.reads.pools("", Age::Since(since)).await?;
            let holders = all.pools.iter().filter(|r| !records(r, &of).is_empty());
            named.extend(holders.map(|reading| reading.candidate.name.clone()));
        }
        let mut found = BTreeMap::new();
        for grant in trace.granted.into_values() {
            named.remove(&grant.pool);
            found.insert(grant.pool, BTreeSet::from([grant.address]));
        }
        for pool in named {
            let Some(reading) = self.reads.pool(&pool, Age::Since(since)).await? else {
                continue;
            };
            if reading.candidate.pool.is_err() {
                return Err(ReleaseError::Unreadable(pool));
            }
            found.insert(pool, records(&reading, &of));
        }
        Ok(found)
    }
}

/// The addresses that a pool has recorded for an interface.
fn records(reading: &Reading, of: &Attachment) -> BTreeSet<IpAddr> {
    let pool = reading.candidate.pool.iter();
    pool.flat_map(|pool| pool.records.iter())
        .filter(|(_, record)| record.is_of(&of.uid, &of.nic))
        .map(|(address, _)| address)
        .collect()
}
