//! What the controller does next for one CIDR: its subnet, if there is one, and all its pools.
//!
//! [`plan`] is a total function of what was seen. It never fails: what cannot be done is a
//! condition with a reason. Planned and applied again and again a world comes to rest in a few
//! passes, and then a plan has no steps. After any prefix of the steps every address still has one
//! owner, because they come in three stages, each a set of fenced writes:
//!
//! ```text
//!  1 Before   pools are made (empty), and give up free addresses      pool's version read
//!  2 Ledger   the subnet's record of who has what, one write           subnet's version read
//!  3 After    pools receive what the ledger now says is theirs         pool's version read
//! ```
//!
//! An address thus leaves the ledger after it left its pool and enters a pool after the ledger has
//! it; a crash in between wastes an address until the next pass and never shares one. A ledger edit
//! that takes addresses back names the pool write that must have landed first ([`Needs`]), and such
//! a pool write raises the pool's epoch, so that a delayed write of an abandoned pass fails.
//!
//! Where to read next: `plan/resize.rs` for sizes, `plan/admit.rs` for pools made by hand,
//! `plan/retire.rs` for pools that go, `plan/say.rs` for what conditions say, `plan/standing.rs` for who has an address that several
//! claim, `plan/rebuild.rs` for ledgers that are lost, `plan/found.rs` for records that are.

mod admit;
mod carve;
mod found;
mod pass;
mod rebuild;
mod resize;
mod retire;
mod say;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;

use crate::addr::{AddrCount, AddrSet};
use crate::affinity::Selector;
use crate::annotation::SizeRule;
use crate::demand::PodCount;
use crate::name::{Nic, NodeName, PodName, PoolName, SubnetName, Uid, Version, WorkloadId};
use crate::pool::{Owner, Pool, Route, admission_hash};
use crate::subnet::{Entry, Subnet};

/// How long a pool must have had more than it needs before it shrinks: an autoscaler that goes down
/// and up again then costs no write.
pub const SHRINK_AFTER: TimeDelta = TimeDelta::seconds(5);

/// One interface of a workload that wants addresses of this CIDR's subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Who.
    pub workload: WorkloadId,
    /// On which interface.
    pub nic: Nic,
    /// The workload's own selector; for a kind without one, its template's labels.
    pub selector: Selector,
    /// How the pool's size follows the workload's.
    pub rule: SizeRule,
    /// The workload's Pods.
    pub pods: PodCount,
    /// Whether the pool goes with the workload.
    pub reclaim: bool,
}

/// The subnet of the CIDR.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum SubnetSeen {
    /// There is none, or subnets are switched off: pools stand alone.
    #[default]
    None,
    /// It parsed.
    Readable(Arc<Subnet>),
    /// It did not: nothing is changed until a person mends it.
    Unreadable {
        /// Name.
        name: SubnetName,
        /// Field, value and what is wrong.
        reason: String,
    },
}

/// A Pod that has an address, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Name.
    pub pod: PodName,
    /// Uid.
    pub uid: Uid,
    /// Its node.
    pub node: Option<NodeName>,
    /// The interface with the address, where that is known.
    pub nic: Option<Nic>,
}

/// Everything one pass looks at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// The subnet.
    pub subnet: SubnetSeen,
    /// All pools with the CIDR that parsed; shared with the host, which knows them from pass to pass.
    pub pools: BTreeMap<PoolName, Arc<Pool>>,
    /// Pools with the CIDR that did not parse, with the reason: they keep what the ledger gives
    /// them and are otherwise left alone.
    pub unreadable: BTreeMap<PoolName, String>,
    /// True where the pools are a live, consistent list and not a cache; and where there is no
    /// subnet, that was read live too, after the pools.
    pub live: bool,
    /// Reserved addresses.
    pub reserved: AddrSet,
    /// Addresses of pools and subnets with another, overlapping CIDR.
    pub elsewhere: AddrSet,
    /// Addresses that Pods of the cluster have, as their status says, whoever gave them.
    pub on_pods: AddrSet,
    /// Whose these are, without Pods on their node's network; where several Pods say that they have
    /// one address, one of them.
    pub holders: BTreeMap<IpAddr, Holder>,
    /// Names of pools with another CIDR.
    pub names_elsewhere: BTreeSet<PoolName>,
    /// Who wants addresses, in the order in which they are served.
    pub demands: Vec<Arc<Demand>>,
    /// Of the workloads that pools of the CIDR were made for, those that live, whatever they ask.
    pub living: BTreeSet<Uid>,
    /// Since when a pool has had more than it needs, as far as the host remembers.
    pub surplus_since: BTreeMap<PoolName, DateTime<Utc>>,
}

/// What a write must find: an object that changed since makes the write fail, not the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Uid of the object.
    pub uid: Uid,
    /// Version it was read at.
    pub version: Version,
}

/// Why nobody asks for an auto pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwanted {
    /// Its workload is gone.
    WorkloadGone,
    /// Its workload lives and asks for no address of this subnet on this interface: annotations
    /// changed, or a Job ended.
    NotAsked,
    /// Its workload has another pool for the same.
    HasAnother,
}

impl fmt::Display for Unwanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkloadGone => "its workload is gone",
            Self::NotAsked => "its workload no longer asks for it",
            Self::HasAnother => "its workload has another pool",
        })
    }
}

/// Why a step is taken: log line, Event and condition all render this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A workload has no pool yet.
    WorkloadWantsPool {
        /// Who.
        workload: WorkloadId,
    },
    /// The pool is smaller than its workload needs.
    Grow {
        /// Addresses added.
        added: AddrCount,
        /// Size afterwards.
        size: AddrCount,
    },
    /// The pool is larger than its workload needs.
    Shrink {
        /// Addresses taken back.
        removed: AddrCount,
        /// Size afterwards.
        size: AddrCount,
    },
    /// Nobody asks for the pool any more.
    Retire(Unwanted),
    /// A pool made by hand, or edited, gets its entry in the ledger.
    Admit,
    /// Addresses that no pool has any more return to the subnet.
    TakeBack,
    /// The pool must not serve before it is settled whose its addresses are.
    Revoke,
    /// A new workload of the same name continues with a kept pool.
    Continue {
        /// Who.
        workload: WorkloadId,
    },
    /// An object is being deleted and nothing holds it any more.
    LastHolderGone,
    /// Finalizer, labels or the told size are put right.
    Protect,
    /// Pods have addresses of the pool that it has no record of.
    Found {
        /// How many addresses.
        count: AddrCount,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkloadWantsPool { workload } => write!(f, "{workload} wants a pool"),
            Self::Grow { added, size } => write!(f, "grown by {added} to {size} addresses"),
            Self::Shrink { removed, size } => write!(f, "shrunk by {removed} to {size} addresses"),
            Self::Retire(unwanted) => unwanted.fmt(f),
            Self::Admit => f.write_str("admitted as it stands"),
            Self::TakeBack => f.write_str("addresses no pool has any more return to the subnet"),
            Self::Revoke => f.write_str("not admitted until it is settled whose its addresses are"),
            Self::Continue { workload } => write!(f, "{workload} continues with this pool"),
            Self::LastHolderGone => f.write_str("deleted, and nothing holds it any more"),
            Self::Protect => f.write_str("finalizer, labels and told size put right"),
            Self::Found { count } => {
                write!(
                    f,
                    "{count} addresses recorded again for Pods that have them"
                )
            }
        }
    }
}

/// A pool to make, without addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPool {
    /// Name.
    pub name: PoolName,
    /// CIDR.
    pub cidr: IpNet,
    /// For whom.
    pub owner: Owner,
    /// The workload it serves.
    pub workload: WorkloadId,
    /// podAffinity: the workload's selector and the five keys.
    pub pod_affinity: Selector,
    /// Gateway of the subnet.
    pub gateway: Option<IpAddr>,
    /// Routes of the subnet.
    pub routes: Vec<Route>,
    /// The subnet, which becomes its owner.
    pub subnet: (SubnetName, Uid),
    /// Size rule, told in annotation `ippool-ip-number`.
    pub rule: SizeRule,
}

/// What changes in a pool; everything else stays as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolEdit {
    /// `spec.ips`.
    pub ips: Option<AddrSet>,
    /// Admit the result: see [`PoolEdit::mark`].
    pub admit: bool,
    /// Raise the epoch: the write takes addresses away, or takes back an admission.
    pub raise_epoch: bool,
    /// Label and owner reference of the subnet; gateway and routes where the pool has none.
    pub adopt: Option<(SubnetName, Uid)>,
    /// Another workload continues with the pool.
    pub owner: Option<(Owner, Selector)>,
    /// Size rule, told in annotation `ippool-ip-number`.
    pub rule: Option<SizeRule>,
    /// Set (`true`) or remove (`false`) our finalizer.
    pub finalizer: Option<bool>,
}

impl PoolEdit {
    /// True where nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the edit does to annotation `admitted` of `pool`.
    ///
    /// A write that takes something away and does not admit the result removes the mark. Left
    /// there, it would admit the pool again once a person puts the old spec back, although its
    /// addresses are another's by then.
    pub fn mark(&self, pool: &Pool) -> Mark {
        if self.admit {
            let ips = self.ips.as_ref().unwrap_or(&pool.ips);
            Mark::Set(admission_hash(&pool.uid, ips, &pool.excluded))
        } else if self.raise_epoch {
            Mark::Remove
        } else {
            Mark::Keep
        }
    }
}

/// What becomes of annotation `admitted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// It stays as it is.
    Keep,
    /// It gets this value.
    Set(String),
    /// It goes.
    Remove,
}

/// May a [`Step::After`] that was decided on `read` be written to `live`, a later version, in a pass
/// whose ledger write has landed?
///
/// Only if nothing but allocations happened in between: those move the version and take nothing
/// that the write adds. Taking back moves the epoch, and what a person edits shows in the spec; an
/// edit that was put back does not, but then the ledger still shows the addresses as this pool's.
/// Where the plan has no ledger step nothing shows that, so the write must find its very version.
pub fn only_allocations_between(read: &Pool, live: &Pool) -> bool {
    read.uid == live.uid
        && read.epoch == live.epoch
        && read.ips == live.ips
        && read.excluded == live.excluded
        && read.terminating == live.terminating
}

/// A fenced write of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolWrite {
    /// Name.
    pub pool: PoolName,
    /// As read; `None` for a pool that this plan makes: then what its creation returned.
    pub fence: Option<Fence>,
    /// The change.
    pub edit: PoolEdit,
    /// Why.
    pub because: Reason,
}

/// What must hold before a ledger edit may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: the edit only adds.
    Nothing,
    /// The pool's write of the first stage has landed in this pass.
    Written,
    /// A live read says that no pool of this name with this CIDR exists.
    Absent,
}

/// A pool's new entry in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEdit {
    /// Name.
    pub pool: PoolName,
    /// The whole entry; an empty one removes it.
    pub entry: Entry,
    /// On what condition.
    pub needs: Needs,
}

/// One step; steps are executed in the order of the plan, those of one stage in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Set or remove the subnet's finalizer and label.
    ProtectSubnet {
        /// As read.
        fence: Fence,
        /// Finalizer there or not.
        finalizer: bool,
    },
    /// Record addresses of a pool for the Pods that have them, a write of its status.
    Record {
        /// Name.
        pool: PoolName,
        /// As read.
        fence: Fence,
        /// Whose they are.
        found: BTreeMap<IpAddr, Holder>,
        /// Why.
        because: Reason,
    },
    /// Make an empty pool.
    Create(Box<NewPool>),
    /// Write a pool before the ledger.
    Before(Box<PoolWrite>),
    /// Go on only if everything above has landed in this very pass.
    Barrier,
    /// Write the ledger, leaving out edits whose need is not met.
    Ledger {
        /// As read.
        fence: Fence,
        /// Edits by pool.
        edits: Vec<LedgerEdit>,
    },
    /// Write a pool after the ledger; skipped where a ledger edit of this pool was left out, or the
    /// ledger was not written. It may follow the pool to a later version by the rule of
    /// [`only_allocations_between`].
    After(Box<PoolWrite>),
    /// Delete a pool without records at the version read.
    Delete {
        /// Name.
        pool: PoolName,
        /// As read.
        fence: Fence,
        /// Why.
        because: Reason,
    },
}

/// The condition types of subnets and pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    /// The object does what it is for.
    Ready,
    /// Somebody wants more addresses than there are.
    Exhausted,
    /// The object overlaps another one.
    Conflicting,
}

impl ConditionKind {
    /// The `type` of the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Exhausted => "Exhausted",
            Self::Conflicting => "Conflicting",
        }
    }
}

/// One condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Type.
    pub kind: ConditionKind,
    /// Status.
    pub holds: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// What, how much, and what would mend it. It names no number that changes with each Pod.
    pub message: String,
}

/// A workload that did not get all it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Who.
    pub workload: WorkloadId,
    /// Its pool.
    pub pool: PoolName,
    /// How many addresses are missing.
    pub missing: AddrCount,
    /// What is missing, in words.
    pub message: String,
}

/// What to do, what to say, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Conditions of pools.
    pub pools: BTreeMap<PoolName, Vec<Condition>>,
    /// Conditions of the subnet.
    pub subnet: Vec<Condition>,
    /// Workloads to tell.
    pub shortfalls: Vec<Shortfall>,
    /// Pools that have more than they need and will shrink once they had it long enough.
    pub surplus: BTreeSet<PoolName>,
    /// When to plan again if nothing happens before.
    pub wake_at: Option<DateTime<Utc>>,
    /// Nothing was decided: the pass must be repeated with a live list of pools.
    pub needs_live: bool,
}

/// Plans one pass.
///
/// Pure, total and deterministic. Cost: O(pools of the CIDR · their ranges), never the number of
/// addresses.
pub fn plan(snapshot: &Snapshot, now: DateTime<Utc>) -> Plan {
    match &snapshot.subnet {
        SubnetSeen::None => admit::without_subnet(snapshot),
        SubnetSeen::Unreadable { name, reason } => Plan {
            subnet: vec![Condition {
                kind: ConditionKind::Ready,
                holds: false,
                reason: "Unreadable",
                message: format!("SpiderSubnet {name} is left alone until it is mended: {reason}"),
            }],
            ..Plan::default()
        },
        SubnetSeen::Readable(subnet) => pass::run(snapshot, subnet, now),
    }
}

#[cfg(test)]
mod tests;
