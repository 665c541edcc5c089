//! DEL and what follows: an address returns to its pool only with the proof that it is let go.
//!
//! Owns: the sandboxes that let go and whose addresses are still recorded. Never does: free
//! anything on one half of the proof. The proof has two halves ([`ipam::release`]):
//!
//! 1. **The node has let go**: the runtime called DEL for the sandbox that the record names. A DEL
//!    of an older sandbox frees nothing; the ledger compares.
//! 2. **The Pod has let go**: its uid is absent, finished or terminating by a live read. A record
//!    that names no sandbox needs more: absent or finished.
//!
//! A DEL is kept in the [`Journal`] before it is answered. If the Pod lives, it stays there until
//! the Pod ends or an ADD for a new sandbox takes the addresses over; what that ADD did not take
//! over is surplus, and goes while the Pod lives. The record stays for a while after the DEL
//! ([`rest`]). It is the record itself that holds the address back, so a restart shortens nothing.
//! Releases go through the pools' writers, behind every claim that is under way. What no DEL will
//! ever release is `super::leaks`'.

mod homes;
mod rest;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::keep::Lineage;
use ipam::name::{Nic, PodName, PoolName, Sandbox, Uid};
use ipam::release::{Life, Owner, Release, Released};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use self::rest::HOLD_OFF;
pub(super) use self::tally::Unreleasable;

use super::disk::Disk;
use super::fixed::Keepers;
use super::journal::{Entry, Journal};
use super::locked;
use super::memory::Memory;
use super::metrics::Metrics;
use super::paths::Paths;
use super::pods;
use super::reads::{ReadError, Reads};
use crate::error::ErrorChain;
use crate::kube_io::endpoint::RemoveError;
use crate::kube_io::retry::Backoff;
use crate::kube_io::tasks::Tasks;
use crate::kube_io::turn::Turns;
use crate::pool_writer::{Attachment, CommitError};

/// Releases that may ask the API server at once.
const AT_ONCE: usize = 32;
/// Longest wait for a pool's writer; then the release is tried again.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(30);
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
    /// A pool could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The endpoint could not be removed.
    #[error(transparent)]
    Endpoint(#[from] RemoveError),
    /// The journal could not be changed.
    #[error("could not change the journal")]
    Journal(#[from] io::Error),
}

/// What a try came to.
enum Verdict {
    /// Nothing is recorded any more, or nothing is to be released.
    Over,
    /// The Pod lives, or has records that only its end frees.
    Kept,
}

/// What the runtime says of a sandbox that it tore down.
pub(super) struct TornDown {
    pub(super) pod: PodName,
    pub(super) sandbox: Sandbox,
    /// The Pod's `StatefulSet`, if the Pod is there and has one.
    pub(super) owner: Option<Uid>,
    /// Its network namespace, if it may still be there.
    pub(super) namespace: Option<PathBuf>,
}

/// An interface whose sandboxes let go.
struct Ack {
    entry: Entry,
    since: Instant,
    work: Work,
    /// The first of the tries that failed, since the last that did not.
    failing: Option<Instant>,
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
    disk: Arc<dyn Disk>,
    tasks: Tasks,
    reads: Reads,
    paths: Arc<Paths>,
    memory: Arc<Memory>,
    turns: Turns<Attachment>,
    keepers: Keepers,
    metrics: Metrics,
    permits: Semaphore,
}

impl Releases {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        paths: Arc<Paths>,
        turns: Turns<Attachment>,
        keepers: Keepers,
        metrics: Metrics,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                acks: Mutex::default(),
                journal: Journal::new(Arc::clone(&disk)),
                disk,
                tasks: paths.tasks().clone(),
                reads: keepers.reads().clone(),
                memory: Arc::clone(paths.memory()),
                paths,
                turns,
                keepers,
                metrics,
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
    pub(super) async fn acknowledge(&self, of: Attachment, torn_down: TornDown) -> io::Result<()> {
        // On its own, so that a caller who hangs up leaves nothing half done.
        let this = self.clone();
        let kept = async move { this.keep(&of, torn_down).await };
        let kept = self.shared.tasks.finish(kept).await;
        kept.unwrap_or_else(|| Err(io::Error::other("the call was broken off")))
    }

    async fn keep(&self, of: &Attachment, torn_down: TornDown) -> io::Result<()> {
        let TornDown {
            pod,
            sandbox,
            owner,
            namespace,
        } = torn_down;
        let _turn = self.shared.turns.wait(of).await;
        let trace = self.shared.memory.trace(of);
        if trace.whole && trace.pools.is_empty() {
            return Ok(()); // it was never given anything
        }
        let known = self.shared.entry(of);
        let mut entry = known.unwrap_or_else(|| Entry::new(&pod, of));
        if let Some(pools) = self.shared.homes(of, &pod, &trace).await {
            entry.pools.get_or_insert_default().extend(pools);
        }
        entry.owner = owner.or(entry.owner);
        entry.sandboxes.retain(|kept| *kept != sandbox);
        entry.sandboxes.push(sandbox);
        let surplus = entry.sandboxes.len().saturating_sub(SANDBOXES);
        entry.sandboxes.drain(..surplus);
        entry.namespaces.extend(namespace);
        entry.namespaces = self.shared.those_there(entry.namespaces).await;
        self.shared.journal.write(entry.clone()).await?;
        self.insert(entry);
        self.kick(of);
        Ok(())
    }

    /// A new sandbox took the interface's addresses over: the DELs of earlier ones mean nothing but
    /// for the addresses that it left behind. The caller has the interface's turn.
    pub(super) async fn supersede(&self, of: &Attachment, served: &Sandbox) {
        let Some(mut entry) = self.shared.entry(of) else {
            return;
        };
        entry.sandboxes.retain(|sandbox| sandbox != served);
        let surplus = self.shared.memory.trace(of).surplus();
        let is_over = entry.sandboxes.is_empty() || surplus.is_empty();
        let changed = if is_over {
            locked(&self.shared.acks).remove(of);
            self.shared.journal.remove(of).await
        } else {
            self.insert(entry.clone());
            self.kick(of);
            self.shared.journal.write(entry).await
        };
        if let Err(error) = changed {
            // The record names the sandbox served now, whose DEL would be that of an earlier life.
            tracing::warn!(%error, "superseded entry of the journal could not be changed");
        }
    }

    /// The Pod was seen to end, or something was recorded for it that nobody took.
    pub(super) fn look_again(&self, uid: &Uid) {
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

    /// The interface whose sandbox this is, for a runtime that names no uid.
    pub(super) fn interface_of(&self, sandbox: &Sandbox, nic: &Nic) -> Option<Attachment> {
        let acks = locked(&self.shared.acks);
        let mut known = acks
            .iter()
            .filter(|(of, ack)| of.nic == *nic && ack.entry.sandboxes.contains(sandbox));
        let known = known.next().map(|(of, _)| of.clone());
        known.or_else(|| self.shared.memory.served_in(sandbox, nic))
    }

    /// Whether a DEL of such an interface is being carried out, or waits for its Pod's end.
    pub(super) fn is_any_kept(&self, wanted: impl Fn(&Attachment) -> bool) -> bool {
        locked(&self.shared.acks).keys().any(wanted)
    }

    fn interfaces(&self, wanted: impl Fn(&Attachment) -> bool) -> Vec<Attachment> {
        let acks = locked(&self.shared.acks);
        acks.keys().filter(|of| wanted(of)).cloned().collect()
    }

    fn insert(&self, entry: Entry) {
        let mut acks = locked(&self.shared.acks);
        let of = entry.attachment();
        let known = acks.get(&of);
        let ack = Ack {
            entry,
            since: Instant::now(),
            work: known.map_or(Work::Idle, |ack| ack.work),
            failing: known.and_then(|ack| ack.failing),
        };
        acks.insert(of, ack);
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
        self.shared.tasks.spawn(async move {
            let _idle = IdleAfterPanic(&shared, &of);
            shared.look_after(&of).await;
        });
    }
}

/// Lets the next sweep look after an interface whose task panicked.
struct IdleAfterPanic<'a>(&'a Shared, &'a Attachment);

impl Drop for IdleAfterPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(ack) = locked(&self.0.acks).get_mut(self.1)
        {
            ack.work = Work::Idle;
        }
    }
}

impl Shared {
    fn entry(&self, of: &Attachment) -> Option<Entry> {
        locked(&self.acks).get(of).map(|ack| ack.entry.clone())
    }

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
                    self.failed(of, &error);
                    sleep(backoff.next_delay()).await;
                    continue;
                }
            }
            let mut acks = locked(&self.acks);
            let Some(ack) = acks.get_mut(of) else {
                return;
            };
            ack.failing = None;
            if ack.work != Work::Again {
                ack.work = Work::Idle;
                return;
            }
            ack.work = Work::Running;
        }
    }

    async fn release(&self, of: &Attachment) -> Result<Verdict, ReleaseError> {
        // Fails only if the semaphore is closed, which nobody does.
        let permit = self.permits.acquire().await;
        let Some(pod) = self.entry(of).map(|entry| entry.pod) else {
            return Ok(Verdict::Over);
        };
        let life = pods::life_now(&self.reads, &pod, &of.uid).await?;
        // Not while it waits: an ADD's turn can last long, and others' releases are what it waits for.
        drop(permit);
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
        let trace = self.memory.trace(of);
        let is_in_another = |sandbox: &Sandbox| !entry.sandboxes.contains(sandbox);
        if life == Life::Alive && !trace.settled.as_ref().is_some_and(is_in_another) {
            return Ok(Verdict::Kept);
        }
        let _permit = self.permits.acquire().await;
        let (owner, pools) = match life {
            Life::Gone => (Owner::Gone, self.recorded(&entry, since).await?),
            Life::Ending => (Owner::Ending, self.recorded(&entry, since).await?),
            Life::Alive => (Owner::Served, trace.surplus()),
        };
        let release = Release {
            uid: of.uid.clone(),
            nic: of.nic.clone(),
            node: None,
            owner,
            sandboxes: entry.sandboxes.iter().cloned().collect(),
            keep_for: self.keep_for(&entry, owner, &pools).await?,
        };
        let left = self.free_all(of, &entry, &pools, &release).await?;
        if left.until_gone > 0 {
            return Ok(Verdict::Kept);
        }
        let trace = self.memory.trace(of);
        self.keepers.settle(&entry.pod, &release, &trace).await?;
        self.journal.remove(of).await?;
        locked(&self.acks).remove(of);
        if left.in_use == 0 && owner != Owner::Served {
            self.memory.released(of);
        } // else a later sandbox has addresses, whose DEL is to come
        Ok(Verdict::Over)
    }

    /// Who wants the addresses kept, if anybody does.
    async fn keep_for(
        &self,
        entry: &Entry,
        owner: Owner,
        pools: &BTreeSet<PoolName>,
    ) -> Result<Option<Lineage>, ReadError> {
        let noted = entry.owner.as_ref();
        match owner {
            Owner::Served => Ok(None),
            Owner::Gone | Owner::Ending => {
                self.keepers.of(&entry.pod, &entry.uid, noted, pools).await
            }
        }
    }

    /// Releases in every pool; what stays recorded there, and why. One that can't be read or written
    /// keeps no other from it.
    ///
    /// Errors: the first one's.
    async fn free_all(
        &self,
        of: &Attachment,
        entry: &Entry,
        pools: &BTreeSet<PoolName>,
        release: &Release,
    ) -> Result<Released, ReleaseError> {
        let mut left = Released::default();
        let mut outcome = Ok(());
        for pool in pools {
            let deadline = Instant::now() + WRITE_MAX;
            let released = self
                .paths
                .release(pool, &entry.pod, release.clone(), deadline)
                .await;
            let released = match released {
                Ok(released) => released,
                Err(CommitError::Gone(_)) => Released::default(),
                Err(error) => {
                    outcome = outcome.and(Err(error));
                    continue;
                }
            };
            for address in &released.freed {
                tracing::info!(pod = %entry.pod, nic = %of.nic, %pool, %address, because = ?release.owner, "address released");
            }
            for address in &released.kept {
                tracing::info!(pod = %entry.pod, nic = %of.nic, %pool, %address, "address kept for the next Pod of its identity");
            }
            for address in &released.left {
                tracing::info!(pod = %entry.pod, nic = %of.nic, %pool, %address, "address left to the other Pod of the same virtual machine");
            }
            left.freed.extend(released.freed);
            left.kept.extend(released.kept);
            left.in_use += released.in_use;
            left.until_gone += released.until_gone;
            if released.in_use + released.until_gone == 0 {
                self.memory.left(of, pool);
            }
        }
        outcome?;
        Ok(left)
    }
}
