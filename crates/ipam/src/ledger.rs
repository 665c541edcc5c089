//! A pool's batch: claims and releases go in, one write comes out, replies only once it is durable.
//!
//! The host (an agent, or later the allocator) owns time and IO and does no more than this:
//!
//! ```text
//! queue(ask)…  →  batch() : what to PUT  →  host writes it at the pool's version
//!     stored?        committed(batch, version)  →  replies may leave
//!     conflict?      refresh(pool read live), then batch() again: nothing was promised
//!     unknown?       the same: the live pool shows whether it was stored
//! ```
//!
//! Invariants: a grant is durable before it is replied ([`Grant`] only leaves through
//! [`PoolLedger::committed`]); K asks cost one write; a batch that changes nothing costs none; a
//! Pod's interface has at most one address of a pool, so a repeated claim gets the same one.
//!
//! Choice of address: addresses that this ledger has not seen in use, lowest first, so that a fresh
//! pool is used in order; after them the ones released longest ago. So an address rests for as long
//! as any other is free, and no clock is asked. A choice costs the same in a /28 as in a /8. What this ledger has not seen
//! released, such as an address that another host freed before this ledger was made, is as new to it:
//! only the hold-off before the release holds for every host.

mod draft;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use self::draft::Draft;
use crate::addr::AddrSet;
use crate::keep::{Held, Heritage};
use crate::name::{Nic, NodeName, Sandbox, Uid, Version};
use crate::pool::Pool;
use crate::quarantine::{Conflict, Ruling};
use crate::record::Records;
use crate::release::{Release, Released};
use crate::select::{Exhausted, PodFacts, Refusal};

/// Most bytes of a pool's records: etcd refuses objects of 1.5 MiB, the rest is the pool's spec.
pub const RECORD_BYTES_MAX: usize = 1_000_000;

/// Names an ask until it is answered; chosen by the host, unique among those queued.
pub type AskId = u64;

/// A Pod's interface wants an address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claim {
    /// The Pod and what is known of it: the pool's rules are asked again on the very object that is
    /// written.
    pub pod: PodFacts,
    /// Uid of the Pod.
    pub uid: Uid,
    /// Interface.
    pub nic: Nic,
    /// Sandbox of the call; `None` where there is no call yet ([`crate::early`]).
    pub sandbox: Option<Sandbox>,
    /// True where no other sandbox of the interface ever asked for an address: what was recorded
    /// before there was one may then stay as it is. False where that is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// For a Pod that has the addresses of the one before it.
    pub heritage: Option<Heritage>,
}

/// What a host asks of a pool.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Give an address.
    Claim(Box<Claim>),
    /// Take back what an interface has.
    Release(Release),
    /// Keep Pods from an address that another host uses.
    Quarantine(Box<Conflict>),
}

/// A durable answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The address.
    pub address: IpAddr,
    /// The node recorded, which must acknowledge the release.
    pub node: NodeName,
    /// True where it was bound before there was a sandbox, and nothing had to be written for this
    /// one.
    pub early: bool,
}

/// Why a claim gets no address of this pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The pool may not serve this Pod, judged on the object just read.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may, but has nothing to give.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The Pod has an address here, of which its former Pod has not let go.
    #[error(transparent)]
    Held(#[from] Box<Held>),
}

/// The answer to an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a claim.
    Claim(Result<Grant, ClaimError>),
    /// To a release.
    Release(Released),
    /// To an address in conflict.
    Quarantine(Ruling),
}

/// One write for everything queued when it was made.
#[derive(Debug, Clone)]
pub struct Batch {
    records: Records,
    answers: Vec<(AskId, Answer)>,
    freed: Vec<IpAddr>,
    changed: bool,
}

impl Batch {
    /// The records to write, at the version of the ledger's pool.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// False where the pool already is as the batch wants it: no write is due.
    pub fn changed(&self) -> bool {
        self.changed
    }
}

/// One pool as last committed, and what waits for the next write.
#[derive(Debug, Clone)]
pub struct PoolLedger {
    pool: Pool,
    queued: VecDeque<(AskId, Ask)>,
    released: VecDeque<IpAddr>,
}

impl PoolLedger {
    /// A ledger on `pool` as read.
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            queued: VecDeque::new(),
            released: VecDeque::new(),
        }
    }

    /// The pool as last committed or read.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Takes `ask` into the next batch.
    pub fn queue(&mut self, id: AskId, ask: Ask) {
        self.queued.push_back((id, ask));
    }

    /// How many asks wait.
    pub fn waiting(&self) -> usize {
        self.queued.len()
    }

    /// Replaces the pool by a later reading; what others released meanwhile cools down too.
    pub fn refresh(&mut self, pool: Pool) {
        let gone: Vec<IpAddr> = self
            .pool
            .records
            .iter()
            .map(|(address, _)| address)
            .filter(|address| pool.records.get(*address).is_none())
            .collect();
        self.pool = pool;
        self.cool(&gone);
    }

    /// What to write for everything queued; `None` where nothing is. The queue keeps its asks until
    /// [`Self::committed`], so a batch that was not stored is simply made anew.
    ///
    /// Releases come first, so that their addresses serve this batch's claims only if nothing else
    /// is free; then conflicts, so that whoever had the address gets another one. Cost: O(records + ranges) once, O(log n) an ask after that.
    pub fn batch(&self, reserved: &AddrSet) -> Option<Batch> {
        if self.queued.is_empty() {
            return None;
        }
        let mut draft = Draft::new(self, reserved);
        let mut answers = vec![];
        for (id, ask) in &self.queued {
            if let Ask::Release(release) = ask {
                answers.push((*id, Answer::Release(draft.release(release))));
            }
        }
        for (id, ask) in &self.queued {
            if let Ask::Quarantine(conflict) = ask {
                answers.push((*id, Answer::Quarantine(draft.quarantine(conflict))));
            }
        }
        for (id, ask) in &self.queued {
            if let Ask::Claim(claim) = ask {
                answers.push((*id, Answer::Claim(draft.claim(claim))));
            }
        }
        Some(Batch {
            // What is released and claimed again by its owner is as it was.
            changed: draft.changed && draft.records != self.pool.records,
            records: draft.records,
            answers,
            freed: draft.freed,
        })
    }

    /// The batch is stored as `version` (or needed no write): its answers may leave.
    pub fn committed(&mut self, batch: Batch, version: Version) -> Vec<(AskId, Answer)> {
        self.pool.version = version;
        self.pool.records = batch.records;
        self.cool(&batch.freed);
        let answered: BTreeSet<AskId> = batch.answers.iter().map(|(id, _)| *id).collect();
        self.queued.retain(|(id, _)| !answered.contains(id));
        batch.answers
    }

    /// Takes an ask out that nobody waits for any more.
    pub fn forget(&mut self, id: AskId) {
        self.queued.retain(|(queued, _)| *queued != id);
    }

    fn cool(&mut self, freed: &[IpAddr]) {
        let again: BTreeSet<&IpAddr> = freed.iter().collect();
        self.released.retain(|cooling| !again.contains(cooling));
        self.released.extend(freed);
        let (pool, total) = (&self.pool, self.pool.total());
        self.released
            .retain(|a| total.contains(*a) && pool.records.get(*a).is_none());
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may fail by panic"
)]
mod tests;
