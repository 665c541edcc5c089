//! Addresses that somebody outside of the pools uses: how long Pods are kept from them.
//!
//! Owns: who may put an address into quarantine, the form it has in a pool's records, and when it is
//! over. Never does: probe; a Pod's plugin does, before it configures what it was given.
//!
//! ```text
//!   free ──claim──▶ held by a Pod ──the Pod's sandbox hears another host──▶ in quarantine
//!    ▲                                                                          │
//!    └────────── PERIOD is over, or a person says so; the next Pod probes ──────┘
//! ```
//!
//! A quarantine is a record whose holder is nobody ([`HOLDER`]), so for every reader, of the original
//! too, the address is taken. Invariants: only the sandbox that holds an address puts it there, and
//! never one of a StatefulSet's Pods or a virtual machine, which would lose it; no claim gets it. A foreign
//! writer that drops our key leaves a record of nobody: it is over at once, and the next Pod probes.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use crate::name::{Nic, Sandbox, Uid};
use crate::record::{Record, Records};

/// How long an address in conflict is not given out. After that a Pod may get it and probes again.
pub const PERIOD: TimeDelta = TimeDelta::hours(1);

/// The uid of a record in quarantine: that of no Pod.
pub const HOLDER: &str = "quarantined";

/// What a record in quarantine says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Hardware address of the host that answered for the address.
    pub mac: String,
    /// When it is over.
    pub until: DateTime<Utc>,
}

/// An address that a Pod was given, and for which another host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The Pod that holds it.
    pub uid: Uid,
    /// Its interface.
    pub nic: Nic,
    /// The sandbox that probed, and has not configured it.
    pub sandbox: Sandbox,
    /// What the record is to say.
    pub quarantine: Quarantine,
}

/// What became of an address in conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// It is in quarantine, and the Pod's no more.
    Quarantined,
    /// It stays the Pod's: it is fixed.
    Fixed,
    /// Nothing: that sandbox does not hold it, so somebody else's word would count.
    NotIts,
}

impl Conflict {
    /// What becomes of the address, given its record.
    pub fn judge(&self, record: Option<&Record>) -> Ruling {
        let Some(record) = record.filter(|r| r.uid == self.uid) else {
            return Ruling::NotIts;
        };
        if record.owner.is_some() {
            return Ruling::Fixed;
        }
        let holds = record.nic.as_ref() == Some(&self.nic)
            && record.sandbox.as_ref() == Some(&self.sandbox);
        if holds {
            Ruling::Quarantined
        } else {
            Ruling::NotIts
        }
    }

    /// The record in quarantine that `held` becomes; it names the Pod that found out.
    #[must_use]
    pub fn record(&self, held: &Record) -> Record {
        Record {
            pod: held.pod.clone(),
            uid: Uid::from(HOLDER),
            nic: None,
            node: None,
            sandbox: None,
            owner: None,
            machine: None,
            instance: None,
            next: None,
            kept: false,
            quarantine: Some(self.quarantine.clone()),
            other: held.other.clone(),
        }
    }
}

/// True where nobody holds `record`'s address, and nobody gets it.
pub fn is_quarantined(record: &Record) -> bool {
    record.uid.as_str() == HOLDER
}

/// True for a record in quarantine whose time is over.
fn is_over(record: &Record, now: DateTime<Utc>) -> bool {
    is_quarantined(record) && record.quarantine.as_ref().is_none_or(|q| q.until <= now)
}

/// Takes the records out whose time is over; their addresses, in ascending order. Cost: O(n).
pub fn over(records: &mut Records, now: DateTime<Utc>) -> Vec<IpAddr> {
    let done: Vec<IpAddr> = records
        .iter()
        .filter(|(_, record)| is_over(record, now))
        .map(|(address, _)| address)
        .collect();
    for address in &done {
        records.remove(*address);
    }
    done
}

/// When the next of the records in quarantine is over. Cost: O(n).
pub fn next_over(records: &Records) -> Option<DateTime<Utc>> {
    let quarantines = records.iter().filter_map(|(_, r)| r.quarantine.as_ref());
    quarantines.map(|quarantine| quarantine.until).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ip, now, record};

    fn conflict() -> Conflict {
        Conflict {
            address: ip(5),
            uid: Uid::from("x"),
            nic: Nic::from("eth0"),
            sandbox: Sandbox::from("s1"),
            quarantine: Quarantine {
                mac: "02:00:00:00:00:01".to_owned(),
                until: now(),
            },
        }
    }

    fn held() -> Record {
        Record {
            nic: Some(Nic::from("eth0")),
            sandbox: Some(Sandbox::from("s1")),
            ..record("x")
        }
    }

    #[test]
    fn only_the_sandbox_that_holds_it_quarantines_an_address_that_is_not_fixed() {
        let of = |change: fn(&mut Record)| {
            let mut held = held();
            change(&mut held);
            conflict().judge(Some(&held))
        };
        assert_eq!(of(|_| ()), Ruling::Quarantined);
        assert_eq!(of(|r| r.owner = Some(Uid::from("set"))), Ruling::Fixed);
        assert_eq!(of(|r| r.uid = Uid::from("y")), Ruling::NotIts);
        assert_eq!(of(|r| r.nic = Some(Nic::from("net1"))), Ruling::NotIts);
        assert_eq!(
            of(|r| r.sandbox = Some(Sandbox::from("s2"))),
            Ruling::NotIts
        );
        // A foreign writer dropped what it does not know: it may be another sandbox's.
        assert_eq!(of(|r| r.sandbox = None), Ruling::NotIts);
        assert_eq!(of(|r| r.nic = None), Ruling::NotIts);
        assert_eq!(conflict().judge(None), Ruling::NotIts);
    }

    #[test]
    fn it_is_over_with_its_time_and_where_a_foreign_writer_dropped_it() {
        let quarantined = conflict().record(&held());
        assert!(is_quarantined(&quarantined) && !is_quarantined(&held()));
        let before = now().checked_sub_signed(TimeDelta::seconds(1)).unwrap();
        assert!(!is_over(&quarantined, before) && is_over(&quarantined, now()));
        let stripped = Record {
            quarantine: None,
            ..quarantined
        };
        assert!(is_over(&stripped, before));
        assert!(!is_over(&held(), now()));
        let mut records = Records::default();
        let later = now().checked_add_signed(PERIOD).unwrap();
        for (n, until) in [(1, later), (2, now())] {
            let mut conflict = conflict();
            conflict.quarantine.until = until;
            records.insert(ip(n), conflict.record(&held()));
        }
        records.insert(ip(3), held());
        assert_eq!(next_over(&records), Some(now()));
        assert_eq!(over(&mut records, now()), [ip(2)]);
        assert_eq!(next_over(&records), Some(later));
        assert_eq!(records.addresses().count().get(), 2);
    }
}
