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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::AddrSet;
use crate::keep::{Heir, Held, Heritage};
use crate::name::{Nic, NodeName, PodName, Sandbox, Uid, Version};
use crate::pool::Pool;
use crate::quarantine::{Conflict, Ruling};
use crate::record::{Record, Records};
use crate::release::{Release, Released, Verdict};
use crate::select::{self, Exhausted, PodFacts, Refusal};

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
    /// Sandbox of the call.
    pub sandbox: Sandbox,
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

/// A batch in the making.
struct Draft<'l> {
    pool: &'l Pool,
    records: Records,
    /// Where each Pod has, or had, an address.
    held: BTreeMap<&'l Uid, Vec<IpAddr>>,
    /// What Pods of a StatefulSet have, or had, by their names.
    named: BTreeMap<&'l PodName, Vec<IpAddr>>,
    /// What may be given out at all.
    usable: AddrSet,
    /// Free and not seen in use by this ledger.
    fresh: AddrSet,
    /// Free, oldest release first.
    cooling: VecDeque<IpAddr>,
    freed: Vec<IpAddr>,
    changed: bool,
    bytes: usize,
}

impl<'l> Draft<'l> {
    fn new(ledger: &'l PoolLedger, reserved: &AddrSet) -> Self {
        let pool = &ledger.pool;
        let usable = pool.usable(reserved);
        let free = usable.difference(pool.records.addresses());
        let cooling: VecDeque<IpAddr> = ledger
            .released
            .iter()
            .copied()
            .filter(|a| free.contains(*a))
            .collect();
        let mut held: BTreeMap<&Uid, Vec<IpAddr>> = BTreeMap::new();
        let mut named: BTreeMap<&PodName, Vec<IpAddr>> = BTreeMap::new();
        for (address, record) in pool.records.iter() {
            held.entry(&record.uid).or_default().push(address);
            named.entry(&record.pod).or_default().push(address);
        }
        Self {
            pool,
            records: pool.records.clone(),
            held,
            named,
            usable,
            fresh: free.difference(&cooling.iter().copied().collect()),
            cooling,
            freed: vec![],
            changed: false,
            bytes: pool.records.to_text().map_or(0, |text| text.len()),
        }
    }

    fn release(&mut self, release: &Release) -> Released {
        let mut released = Released::default();
        let held = self.held.get(&release.uid).cloned().unwrap_or_default();
        for address in held {
            let Some(record) = self.records.get(address) else {
                continue;
            };
            match release.judge(record) {
                Verdict::NotIts => {}
                Verdict::InUse => released.in_use = released.in_use.saturating_add(1),
                Verdict::UntilGone => released.until_gone = released.until_gone.saturating_add(1),
                Verdict::Goes => {
                    self.bytes = self.bytes.saturating_sub(bytes_of(record));
                    self.free(address);
                    released.freed.push(address);
                }
                Verdict::IsKeptFor(set) => {
                    let record = record.keep_for(set);
                    self.replace(address, record);
                    released.kept.push(address);
                }
            }
        }
        released
    }

    fn quarantine(&mut self, conflict: &Conflict) -> Ruling {
        let held = self.records.get(conflict.address);
        let ruling = conflict.judge(held);
        if let (Ruling::Quarantined, Some(held)) = (ruling, held) {
            let record = conflict.record(held);
            self.replace(conflict.address, record);
        }
        ruling
    }

    fn free(&mut self, address: IpAddr) {
        self.records.remove(address);
        self.freed.push(address);
        if self.usable.contains(address) {
            self.cooling.push_back(address);
        }
        self.changed = true;
    }

    fn claim(&mut self, claim: &'l Claim) -> Result<Grant, ClaimError> {
        if let Some(address) = self.held_by(&claim.uid, &claim.nic) {
            return Ok(self.record(address, claim));
        }
        if let Some(address) = self.inherited(claim)? {
            self.held.entry(&claim.uid).or_default().push(address);
            return Ok(self.record(address, claim));
        }
        select::admit(self.pool, self.pool.family(), &claim.pod)?;
        let bytes = self
            .bytes
            .saturating_add(bytes_of(&claim.record(BTreeMap::new())));
        if bytes > RECORD_BYTES_MAX {
            return Err(ClaimError::Exhausted(Exhausted::TooLarge {
                pool: self.pool.name.clone(),
                limit: RECORD_BYTES_MAX,
            }));
        }
        let address = self
            .take()
            .ok_or(ClaimError::Exhausted(Exhausted::UsedOut))?;
        self.held.entry(&claim.uid).or_default().push(address);
        let named = self.named.entry(&claim.pod.pod).or_default();
        named.push(address);
        Ok(self.record(address, claim))
    }

    /// As [`Records::find`], at the cost of a look-up.
    fn held_by(&self, uid: &Uid, nic: &Nic) -> Option<IpAddr> {
        let held = self.held.get(uid).into_iter().flatten();
        let of_nic = held.filter_map(|address| Some((address, self.records.get(*address)?)));
        of_nic
            .filter(|(_, record)| record.is_of(uid, nic))
            .min_by_key(|(address, record)| (record.nic.is_none(), *address))
            .map(|(address, _)| *address)
    }

    /// The address that the Pod takes over from the one before it; the pool's rules are not asked
    /// again, as for any address that a Pod has.
    fn inherited(&self, claim: &Claim) -> Result<Option<IpAddr>, ClaimError> {
        let Some(heritage) = &claim.heritage else {
            return Ok(None);
        };
        let named = self.named.get(&claim.pod.pod).into_iter().flatten();
        let mut held = None;
        for address in named.copied() {
            let Some(record) = self.records.get(address) else {
                continue;
            };
            match heritage.heir(address, record, &claim.pod.pod, &claim.nic) {
                Heir::Takes => return Ok(Some(address)),
                Heir::Waits => held = held.or(Some((address, record))),
                Heir::Stranger => {}
            }
        }
        match held {
            None => Ok(None),
            Some((address, record)) => Err(ClaimError::Held(Box::new(Held {
                address,
                pool: self.pool.name.clone(),
                pod: record.pod.clone(),
                uid: record.uid.clone(),
                node: record.node.clone(),
            }))),
        }
    }

    fn take(&mut self) -> Option<IpAddr> {
        if let Some(address) = self.fresh.first() {
            self.fresh.remove(address);
            return Some(address);
        }
        self.cooling.pop_front()
    }

    fn record(&mut self, address: IpAddr, claim: &Claim) -> Grant {
        let other = self.records.get(address).map(|old| old.other.clone());
        self.replace(address, claim.record(other.unwrap_or_default()));
        Grant {
            address,
            node: claim.pod.node.clone(),
        }
    }

    fn replace(&mut self, address: IpAddr, record: Record) {
        let old = self.records.get(address);
        if old == Some(&record) {
            return;
        }
        let freed = old.map(bytes_of).unwrap_or_default();
        self.bytes = self
            .bytes
            .saturating_sub(freed)
            .saturating_add(bytes_of(&record));
        self.changed = true;
        self.records.insert(address, record);
    }
}

impl Claim {
    fn record(&self, other: BTreeMap<String, serde_json::Value>) -> Record {
        Record {
            pod: self.pod.pod.clone(),
            uid: self.uid.clone(),
            nic: Some(self.nic.clone()),
            node: Some(self.pod.node.clone()),
            sandbox: Some(self.sandbox.clone()),
            owner: self.heritage.as_ref().map(|of| of.owner.clone()),
            kept: false,
            quarantine: None,
            other,
        }
    }
}

/// What a record adds to the text, with the longest address as its key, two quotes, colon, comma.
fn bytes_of(record: &Record) -> usize {
    const LONGEST_KEY: usize = 39 + 4;
    // A record is plain data: writing it as JSON cannot fail.
    serde_json::to_string(record)
        .map_or(0, |text| text.len())
        .saturating_add(LONGEST_KEY)
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may fail by panic"
)]
mod tests;
