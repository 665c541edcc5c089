//! A batch in the making: what each ask makes of the pool's records.
//!
//! Owns: the indexes by which a record is found, the choice of a free address, and what is written
//! of it. Never does: decide who may have what; that is [`crate::select`]'s, [`crate::keep`]'s,
//! [`crate::release`]'s and [`crate::quarantine`]'s. Invariant: an address that was free for one
//! claim is free for no other.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use super::{Claim, ClaimError, Grant, PoolLedger, RECORD_BYTES_MAX};
use crate::addr::AddrSet;
use crate::keep::{Heir, Held, Heritage, Next};
use crate::name::{Nic, PodName, Uid};
use crate::pool::Pool;
use crate::quarantine::{Conflict, Ruling};
use crate::record::{Record, Records};
use crate::release::{Release, Released, Verdict};
use crate::select::{self, Exhausted};

/// A batch in the making.
pub(super) struct Draft<'l> {
    pool: &'l Pool,
    pub(super) records: Records,
    /// Where each Pod has, or had, an address.
    held: BTreeMap<&'l Uid, Vec<IpAddr>>,
    /// What Pods of a StatefulSet have, or had, by their names.
    named: BTreeMap<&'l PodName, Vec<IpAddr>>,
    /// What machines have, or had, by their uids and those of their runs.
    machines: BTreeMap<&'l Uid, Vec<IpAddr>>,
    /// What may be given out at all.
    usable: AddrSet,
    /// Free and not seen in use by this ledger.
    fresh: AddrSet,
    /// Free, oldest release first.
    cooling: VecDeque<IpAddr>,
    pub(super) freed: Vec<IpAddr>,
    pub(super) changed: bool,
    bytes: usize,
}

impl<'l> Draft<'l> {
    pub(super) fn new(ledger: &'l PoolLedger, reserved: &AddrSet) -> Self {
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
        let mut machines: BTreeMap<&Uid, Vec<IpAddr>> = BTreeMap::new();
        let mut bytes = pool.records.to_text().map_or(0, |text| text.len());
        for (address, record) in pool.records.iter() {
            bytes = bytes.saturating_add(room_for_sandbox(record));
            for holder in record.holders() {
                held.entry(holder).or_default().push(address);
            }
            named.entry(&record.pod).or_default().push(address);
            if record.machine.is_some() {
                for uid in [&record.owner, &record.instance].into_iter().flatten() {
                    machines.entry(uid).or_default().push(address);
                }
            }
        }
        Self {
            pool,
            records: pool.records.clone(),
            held,
            named,
            machines,
            usable,
            fresh: free.difference(&cooling.iter().copied().collect()),
            cooling,
            freed: vec![],
            changed: false,
            bytes,
        }
    }

    pub(super) fn release(&mut self, release: &Release) -> Released {
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
                Verdict::IsKeptFor(lineage) => {
                    let record = record.keep_for(lineage);
                    self.replace(address, record);
                    released.kept.push(address);
                }
                Verdict::Passes => {
                    if let Some(record) = record.let_go(None) {
                        self.replace(address, record);
                        released.left.push(address);
                    }
                }
                Verdict::Stays => {
                    let record = record.without_next();
                    self.replace(address, record);
                    released.left.push(address);
                }
            }
        }
        released
    }

    pub(super) fn quarantine(&mut self, conflict: &Conflict) -> Ruling {
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

    pub(super) fn claim(&mut self, claim: &'l Claim) -> Result<Grant, ClaimError> {
        if let Some(address) = self.held_by(&claim.uid, &claim.nic) {
            return Ok(self.again(address, claim));
        }
        if let Some((address, heir)) = self.inherited(claim)? {
            self.held.entry(&claim.uid).or_default().push(address);
            return Ok(match heir {
                Heir::Joins => self.join(address, claim),
                Heir::Takes | Heir::Waits | Heir::Stranger => self.record(address, claim),
            });
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
        for uid in claim.heritage.iter().flat_map(Heritage::machine) {
            self.machines.entry(uid).or_default().push(address);
        }
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

    /// The address that the Pod takes over from the one before it, or shares with it; the pool's
    /// rules are not asked again, as for any address that a Pod has.
    fn inherited(&self, claim: &Claim) -> Result<Option<(IpAddr, Heir)>, ClaimError> {
        let Some(heritage) = &claim.heritage else {
            return Ok(None);
        };
        let named = self.named.get(&claim.pod.pod).into_iter().flatten();
        let of_machine = heritage.machine().filter_map(|uid| self.machines.get(uid));
        let told = heritage.former.iter().flat_map(|former| &former.addresses);
        let mut held = None;
        for address in named.chain(of_machine.flatten()).chain(told).copied() {
            let Some(record) = self.records.get(address) else {
                continue;
            };
            match heritage.heir(address, record, &claim.pod.pod, &claim.nic) {
                heir @ (Heir::Takes | Heir::Joins) => return Ok(Some((address, heir))),
                Heir::Waits => held = held.or(Some((address, record))),
                Heir::Stranger => {}
            }
        }
        let Some((address, record)) = held else {
            return Ok(None);
        };
        let holder = (&record.uid, record.node.as_ref());
        let (uid, node) = heritage.blocker(record).unwrap_or(holder);
        Err(ClaimError::Held(Box::new(Held {
            address,
            pool: self.pool.name.clone(),
            pod: claim.pod.pod.clone(),
            uid: uid.clone(),
            node: node.cloned(),
        })))
    }

    fn take(&mut self) -> Option<IpAddr> {
        if let Some(address) = self.fresh.first() {
            self.fresh.remove(address);
            return Some(address);
        }
        self.cooling.pop_front()
    }

    /// The address that the interface has already.
    fn again(&mut self, address: IpAddr, claim: &Claim) -> Grant {
        let held = self.records.get(address);
        if held.is_some_and(|record| claim.leaves(record)) {
            return claim.grant(address, true);
        }
        self.record(address, claim)
    }

    /// Records the Pod as the holder of `address`, or anew as what it is already.
    fn record(&mut self, address: IpAddr, claim: &Claim) -> Grant {
        let old = self.records.get(address);
        let mut next = old.and_then(|old| old.next.clone());
        if next.as_ref().is_some_and(|next| next.uid == claim.uid) {
            return self.join(address, claim);
        }
        let other = old.map(|old| old.other.clone()).unwrap_or_default();
        // Who takes an address over does so once all who had it let go.
        next = next.filter(|_| old.is_some_and(|old| old.uid == claim.uid));
        let record = Record {
            next,
            ..claim.record(other)
        };
        self.replace(address, record);
        claim.grant(address, false)
    }

    /// Records the Pod beside the holder of `address`, as the one that its machine is moved to.
    fn join(&mut self, address: IpAddr, claim: &Claim) -> Grant {
        if let Some(old) = self.records.get(address) {
            let (old, own) = (old.clone(), claim.record(BTreeMap::new()));
            // The original's record does not say whose it is; the claim knows.
            let record = Record {
                nic: old.nic.or(own.nic),
                owner: old.owner.or(own.owner),
                machine: old.machine.or(own.machine),
                instance: old.instance.or(own.instance),
                next: claim.next().or(old.next),
                ..old
            };
            self.replace(address, record);
        }
        claim.grant(address, false)
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
    pub(super) fn record(&self, other: BTreeMap<String, serde_json::Value>) -> Record {
        let heritage = self.heritage.as_ref();
        Record {
            pod: self.pod.pod.clone(),
            uid: self.uid.clone(),
            nic: Some(self.nic.clone()),
            node: Some(self.pod.node.clone()),
            sandbox: self.sandbox.clone(),
            owner: heritage.map(|of| of.lineage.owner.clone()),
            machine: heritage.and_then(|of| of.lineage.machine.clone()),
            instance: heritage.and_then(|of| Some(of.instance.as_ref()?.uid.clone())),
            next: None,
            kept: false,
            quarantine: None,
            other,
        }
    }

    /// Who has no sandbox yet joins nobody.
    fn next(&self) -> Option<Next> {
        Some(Next {
            pod: self.pod.pod.clone(),
            uid: self.uid.clone(),
            node: self.pod.node.clone(),
            sandbox: self.sandbox.clone()?,
        })
    }

    /// True where `record`, which is of this interface, stays as it is: a claim that was made before
    /// there was a sandbox comes too late, or the first sandbox finds what that claim left.
    ///
    /// Any later sandbox is recorded, so that the DEL of an earlier one can't free its address; and
    /// where it is not known to be the first, it is taken for a later one.
    fn leaves(&self, record: &Record) -> bool {
        if self.sandbox.is_none() {
            return true;
        }
        self.first
            && record.is_bound_early()
            && record.uid == self.uid
            && record.node.as_ref() == Some(&self.pod.node)
    }

    fn grant(&self, address: IpAddr, early: bool) -> Grant {
        Grant {
            address,
            node: self.pod.node.clone(),
            early,
        }
    }
}

/// What a record adds to the text, with the longest address as its key, two quotes, colon, comma.
pub(super) fn bytes_of(record: &Record) -> usize {
    const LONGEST_KEY: usize = 39 + 4;
    // A record is plain data: writing it as JSON cannot fail.
    serde_json::to_string(record)
        .map_or(0, |text| text.len())
        .saturating_add(LONGEST_KEY)
        .saturating_add(room_for_sandbox(record))
}

/// What a record may grow by that names no sandbox yet: a container id with its key.
fn room_for_sandbox(record: &Record) -> usize {
    const SANDBOX: usize = 64 + 13;
    if record.is_bound_early() { SANDBOX } else { 0 }
}
