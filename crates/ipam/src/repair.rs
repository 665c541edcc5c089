//! What is inconsistent and how it is mended: by a repair, by the controller, or by a person.
//!
//! Owns: the judgement of everything that [`crate::audit`] finds and that can't be read, and the
//! writes that mend what can be mended without a doubt. Never does: free an address that a Pod may
//! have; decide between two Pods; anything that the controller does by itself. Invariants: a record
//! is dropped only where another pool keeps one of the same address, and replaced only where its
//! Pod is gone and another has the address. After any prefix of the steps no address is given out
//! that was not before, since a pool that loses something stops serving first:
//!
//! ```text
//!  1 Revoke    pools that lose a record or an entry stop giving      pool's version read
//!  2 Records   of pools, each as a whole                             the version read, or of 1
//!  3 Ledger    of the subnet: entries made disjoint, or forgotten    subnet's version read
//! ```
//!
//! A ledger that is forgotten is rebuilt by the controller from a live list of pools, and a pool that
//! was revoked is ordered with the others and admitted anew.

mod ledgers;
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::audit::{Violation, World, audit};
use crate::name::{PodName, PoolName, SubnetName};
use crate::plan::Fence;
use crate::pool::Pool;
use crate::record::{Records, Salvage};
use crate::subnet::{Subnet, SubnetLedger};

/// An object that can't be read.
#[derive(Debug, Clone, PartialEq)]
pub enum Unread {
    /// A pool of which only the records can't be read.
    Records {
        /// The rest of it, without records.
        pool: Box<Pool>,
        /// What of the text can be read.
        salvage: Salvage,
        /// Field, value and what is wrong.
        reason: String,
    },
    /// A subnet of which only the ledger can't be read.
    Ledger {
        /// The rest of it, without a ledger.
        subnet: Box<Subnet>,
        /// Field, value and what is wrong.
        reason: String,
    },
    /// Anything else.
    Object {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Field, value and what is wrong.
        reason: String,
    },
}

impl Unread {
    /// What it is, one word in CamelCase for programs.
    fn word(&self) -> &'static str {
        match self {
            Self::Records { .. } => "RecordsUnreadable",
            Self::Ledger { .. } => "LedgerUnreadable",
            Self::Object { .. } => "Unreadable",
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records { pool, reason, .. } => {
                write!(f, "IPPool {} can't be read: {reason}", pool.name)
            }
            Self::Ledger { subnet, reason } => {
                write!(f, "SpiderSubnet {} can't be read: {reason}", subnet.name)
            }
            Self::Object { kind, name, reason } => {
                write!(f, "{kind} {name} can't be read and is left alone: {reason}")
            }
        }
    }
}

/// Kind of an [`Unread::Object`] that may hold addresses.
pub const POOL: &str = "SpiderIPPool";

/// Who mends it, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// The repair, with its steps.
    Repair(String),
    /// The controller, by itself.
    Controller(String),
    /// A person.
    Person(String),
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repair(what) => write!(f, "--repair {what}"),
            Self::Controller(what) => write!(f, "the controller {what}: does it run?"),
            Self::Person(what) => f.write_str(what),
        }
    }
}

/// One thing that must not be, and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What it is, one word in CamelCase for programs.
    pub reason: &'static str,
    /// Which objects, which addresses.
    pub message: String,
    /// Who mends it.
    pub remedy: Remedy,
}

/// A write that mends something.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Take back a pool's admission and raise its epoch.
    Revoke {
        /// Name.
        pool: PoolName,
        /// As read.
        fence: Fence,
    },
    /// Replace a pool's records.
    Records {
        /// Name.
        pool: PoolName,
        /// As read; `None` where it was revoked before: then what that returned.
        fence: Option<Fence>,
        /// All of them.
        records: Records,
        /// What changes.
        what: String,
    },
    /// Replace a subnet's ledger.
    Ledger {
        /// Name.
        subnet: SubnetName,
        /// As read.
        fence: Fence,
        /// The new one; `None` forgets it.
        ledger: Option<SubnetLedger>,
        /// What changes.
        what: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoke { pool, .. } => {
                write!(
                    f,
                    "IPPool {pool}: gives out nothing until it is admitted anew"
                )
            }
            Self::Records { pool, what, .. } => write!(f, "IPPool {pool}: {what}"),
            Self::Ledger { subnet, what, .. } => write!(f, "SpiderSubnet {subnet}: {what}"),
        }
    }
}

/// What was found and what mends it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Repair {
    /// Everything that must not be, sorted.
    pub findings: Vec<Finding>,
    /// The writes, in order.
    pub steps: Vec<Step>,
}

/// Judges `world` and what of it can't be read.
///
/// Pure, total and deterministic. Cost: that of [`audit`], and O(n log n) for what is mended.
pub fn plan(world: &World, unread: &[Unread]) -> Repair {
    plan_what(world, unread, |_, _| true)
}

/// The same, but only of what was found `before` too: of lists that are not of one moment, what is in
/// both is no write that was under way.
///
/// Cost: as [`plan`], and O(findings) for each finding.
pub fn plan_again(world: &World, unread: &[Unread], before: &[Finding]) -> Repair {
    plan_what(world, unread, |reason, message| {
        let mut known = before.iter();
        known.any(|found| found.reason == reason && found.message == message)
    })
}

fn plan_what(
    world: &World,
    unread: &[Unread],
    counts: impl Fn(&'static str, &str) -> bool,
) -> Repair {
    let mut bench = Bench::new(world, unread);
    // A ledger is judged by what becomes of its pools.
    let (ledgers, pools): (Vec<_>, Vec<_>) = unread
        .iter()
        .partition(|what| matches!(what, Unread::Ledger { .. }));
    let mut findings = vec![];
    for what in pools.into_iter().chain(ledgers) {
        let (reason, message) = (what.word(), what.to_string());
        if counts(reason, &message) {
            findings.push(Finding {
                reason,
                message,
                remedy: bench.unread(what),
            });
        }
    }
    let (first, then): (Vec<_>, Vec<_>) = audit(world)
        .into_iter()
        .partition(|v| !matches!(v, Violation::EntriesOverlap { .. }));
    // Ledgers follow records.
    for violation in first.into_iter().chain(then) {
        let (reason, message) = (violation.reason(), violation.to_string());
        if counts(reason, &message) {
            findings.push(Finding {
                reason,
                message,
                remedy: bench.mend(&violation),
            });
        }
    }
    findings.sort();
    findings.dedup();
    Repair {
        findings,
        steps: bench.steps(),
    }
}

/// The objects while they are mended.
struct Bench<'w> {
    world: &'w World,
    unread: &'w [Unread],
    pools: BTreeMap<&'w PoolName, &'w Pool>,
    /// Records as they will be, of pools whose records change.
    records: BTreeMap<PoolName, Records>,
    /// What changes in them.
    changes: BTreeMap<PoolName, Vec<String>>,
    revoked: BTreeSet<PoolName>,
    /// Ledgers as they will be, of subnets whose ledger changes, and what changes in them.
    ledgers: BTreeMap<SubnetName, (Option<SubnetLedger>, Vec<String>)>,
}

impl<'w> Bench<'w> {
    fn new(world: &'w World, unread: &'w [Unread]) -> Self {
        let broken = unread.iter().filter_map(|what| match what {
            Unread::Records { pool, .. } => Some(&**pool),
            Unread::Ledger { .. } | Unread::Object { .. } => None,
        });
        let pools = world.pools.iter().chain(broken);
        Self {
            world,
            unread,
            pools: pools.map(|pool| (&pool.name, pool)).collect(),
            records: BTreeMap::new(),
            changes: BTreeMap::new(),
            revoked: BTreeSet::new(),
            ledgers: BTreeMap::new(),
        }
    }

    fn unread(&mut self, what: &Unread) -> Remedy {
        match what {
            Unread::Records { pool, salvage, .. } => self.restore(pool, salvage),
            Unread::Ledger { subnet, .. } => self.forget(subnet),
            Unread::Object { kind, name, .. } => Remedy::Person(format!(
                "mend the field: `kubectl edit {} {name}`",
                kind.to_lowercase()
            )),
        }
    }

    fn mend(&mut self, violation: &Violation) -> Remedy {
        match violation {
            Violation::HeldTwice {
                address,
                first,
                second,
            } => self.held_twice(*address, first, second),
            Violation::NotRecorded { pool, address, pod } => self.not_recorded(*address, pool, pod),
            Violation::HeldForAnother {
                pool,
                address,
                pod,
                recorded: _,
            } => self.held_for_another(*address, pool, pod),
            // Only who looks at owners and endpoints again and again knows whether it is free, or
            // waits for the next Pod of an identity; a node named in it would say that it is free.
            Violation::Orphan { .. } => Remedy::Controller(
                "frees it once that is proven, or keeps it for the next Pod of its identity \
                 (`ipam gc --dry-run` says what it waits for)"
                    .to_owned(),
            ),
            Violation::EntriesOverlap {
                subnet,
                first,
                second,
                overlap,
            } => self.entries_overlap(subnet, [first, second], overlap),
            Violation::PoolsOverlap { .. } => {
                Remedy::Controller("lets one of them serve".to_owned())
            }
            Violation::NotInLedger { .. } => Remedy::Controller("completes the ledger".to_owned()),
            Violation::OnTwoPods { first, second, .. } => delete_one(first, second),
            Violation::TwoForOneNic { .. } => Remedy::Person(
                "delete the Pod: both addresses are freed, and the next one gets one".to_owned(),
            ),
        }
    }

    /// Notes that `pool` gives out nothing before the controller has ordered it anew.
    fn revoke(&mut self, pool: &PoolName) {
        if self.pools.get(pool).is_some_and(|p| p.admitted.is_some()) {
            self.revoked.insert(pool.clone());
        }
    }

    fn steps(self) -> Vec<Step> {
        let fence = |pool: &Pool| Fence {
            uid: pool.uid.clone(),
            version: pool.version.clone(),
        };
        let pools = &self.pools;
        let mut steps: Vec<Step> = self
            .revoked
            .iter()
            .filter_map(|name| pools.get(name))
            .map(|pool| Step::Revoke {
                pool: pool.name.clone(),
                fence: fence(pool),
            })
            .collect();
        for (name, records) in self.records {
            let Some(pool) = pools.get(&name) else {
                continue;
            };
            let changes = self.changes.get(&name).map(Vec::as_slice);
            steps.push(Step::Records {
                fence: (!self.revoked.contains(&name)).then(|| fence(pool)),
                pool: name,
                records,
                what: changes.unwrap_or_default().join(", "),
            });
        }
        let subnets = self.world.subnets.iter();
        let broken = self.unread.iter().filter_map(|what| match what {
            Unread::Ledger { subnet, .. } => Some(&**subnet),
            Unread::Records { .. } | Unread::Object { .. } => None,
        });
        let mut ledgers = self.ledgers;
        for subnet in subnets.chain(broken) {
            if let Some((ledger, what)) = ledgers.remove(&subnet.name) {
                steps.push(Step::Ledger {
                    subnet: subnet.name.clone(),
                    fence: Fence {
                        uid: subnet.uid.clone(),
                        version: subnet.version.clone(),
                    },
                    ledger,
                    what: what.join(", "),
                });
            }
        }
        steps
    }
}

/// Which of two pools comes first where nothing else tells them apart.
fn standing(pool: Option<&Pool>) -> impl Ord + use<> {
    (
        pool.is_none_or(|p| !p.is_admitted()),
        pool.and_then(|p| p.created),
        pool.map(|p| p.name.clone()),
    )
}

fn delete_one(first: &PodName, second: &PodName) -> Remedy {
    Remedy::Person(format!(
        "delete Pod {first} or Pod {second}: the next one gets another address"
    ))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests;
