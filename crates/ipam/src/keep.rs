//! Fixed addresses: who keeps one over the end of a Pod, who takes it over, and when it goes.
//!
//! Owns: the rules. Never does: see whether a sandbox let go or an owner is there; hosts do.
//!
//! An address belongs to an *identity*, which outlives each Pod that has it. A StatefulSet's Pods
//! come and go under the same names: theirs is the set's uid, the Pod's name (which is the set's
//! name and an ordinal) and the interface. A virtual machine of KubeVirt is one thing whose Pods
//! have names of their own: the machine's uid and the interface. A record carries that as `owner`,
//! `machine`, `pod` and `nic`, and goes through two states:
//!
//! ```text
//!            claim                     the sandbox let go, and the owner wants it kept
//!   free ───────────▶ held by a uid ──────────────────────────────────────▶ kept
//!    ▲                  │      ▲                                             │  │
//!    │   not wanted     │      └──── claim of the next Pod of the identity ──┘  │
//!    └──────────────────┴───────────── the owner no longer wants it ────────────┘
//! ```
//!
//! A machine that is migrated runs in two Pods for a while. The second one's claim is written
//! beside the holder, as [`Next`]: it holds the address too, and leaves or becomes the holder:
//!
//! ```text
//!                  claim of the migration's target
//!   held by a uid ────────────────────────────────▶ held by a uid, and by its next
//!    ▲       ▲      the next one's sandbox let go           │           │
//!    │       └──────────────────────────────────────────────┘           │
//!    └───────────────── the holder's sandbox let go: its next holds ────┘
//! ```
//!
//! Invariant: a record passes to another uid only from `kept`, from a holder that let go to its
//! next, or where the host has shown that the nodes of all who have it are lost for good
//! ([`Heritage::let_go`]). So at no time do two Pods use it but the two of one running machine. A
//! foreign writer that drops our keys makes an heir wait and nothing else.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Family;
use crate::name::{Nic, NodeName, PodName, PoolName, Sandbox, Uid, WorkloadId};
use crate::record::Record;

/// The ordinals that a StatefulSet wants Pods of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordinals {
    /// `spec.ordinals.start`.
    pub start: u32,
    /// `spec.replicas`.
    pub count: u32,
}

impl Ordinals {
    /// True for an ordinal in `start .. start + count`.
    pub fn contains(self, ordinal: u32) -> bool {
        ordinal
            .checked_sub(self.start)
            .is_some_and(|nth| nth < self.count)
    }
}

/// Name of the set and ordinal of a StatefulSet's Pod: `web` and 3 for `shop/web-3`; `None` for a
/// name that no StatefulSet gives.
pub fn ordinal(pod: &PodName) -> Option<(&str, u32)> {
    let (_, name) = pod.parts();
    let (set, number) = name.rsplit_once('-')?;
    let ordinal: u32 = number.parse().ok()?;
    (!set.is_empty() && ordinal.to_string() == number).then_some((set, ordinal))
}

/// A virtual machine of KubeVirt, whose Pods keep its addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Machine {
    /// What it is.
    pub kind: MachineKind,
    /// Its name, in the Pod's namespace.
    pub name: String,
}

/// The kinds of virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MachineKind {
    /// One that is started and stopped; each run of it is an instance.
    VirtualMachine,
    /// An instance that nothing starts again.
    VirtualMachineInstance,
}

impl MachineKind {
    /// As owner references name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VirtualMachine => "VirtualMachine",
            Self::VirtualMachineInstance => "VirtualMachineInstance",
        }
    }
}

/// Begins the names of the Pods that KubeVirt makes for machines.
const LAUNCHER: &str = "virt-launcher-";

/// True for the name of a machine's Pod.
pub fn is_launcher(pod: &PodName) -> bool {
    let (_, name) = pod.parts();
    name.starts_with(LAUNCHER)
}

/// True for a workload of a kind whose Pods may have the addresses of the ones before them.
pub fn may_keep(workload: &WorkloadId) -> bool {
    let (group, kind) = (workload.group.as_str(), workload.kind.as_str());
    (group, kind) == ("apps", "StatefulSet") || group == "kubevirt.io"
}

/// Whose Pods have the same addresses, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lineage {
    /// Uid of the StatefulSet, or of the machine.
    pub owner: Uid,
    /// The machine, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

impl Lineage {
    /// That of a StatefulSet's Pods of one name.
    pub fn of_set(uid: Uid) -> Self {
        Self {
            owner: uid,
            machine: None,
        }
    }
}

/// Whose addresses are kept, as an operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeps {
    /// Those of the Pods of a StatefulSet.
    pub stateful_sets: bool,
    /// Those of virtual machines.
    pub machines: bool,
}

impl Keeps {
    /// Everybody's.
    pub const ALL: Self = Self {
        stateful_sets: true,
        machines: true,
    };

    /// True where addresses of `lineage` are kept.
    pub fn includes(self, lineage: &Lineage) -> bool {
        match &lineage.machine {
            Some(_) => self.machines,
            None => self.stateful_sets,
        }
    }
}

/// An owner as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// Its uid.
    pub uid: Uid,
    /// It is being deleted.
    pub terminating: bool,
    /// Which Pods a StatefulSet wants; `None` for a machine, which wants its addresses while it is
    /// there, running or not.
    pub ordinals: Option<Ordinals>,
}

/// Why an address need not be kept any longer. Log lines and Events render this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwanted {
    /// Its StatefulSet or virtual machine is gone.
    OwnerGone,
    /// Another one has the name now.
    OwnerReplaced,
    /// It is being deleted.
    OwnerEnds,
    /// The StatefulSet was scaled below the ordinal.
    OrdinalBeyond(Ordinals),
    /// The Pod was given an address of another pool since.
    Moved(PoolName),
    /// Fixed addresses are switched off.
    SwitchedOff,
}

impl fmt::Display for Unwanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerGone => f.write_str("its StatefulSet or virtual machine is gone"),
            Self::OwnerReplaced => {
                f.write_str("its StatefulSet or virtual machine was made anew under its name")
            }
            Self::OwnerEnds => f.write_str("its StatefulSet or virtual machine is being deleted"),
            Self::OrdinalBeyond(Ordinals { start, count }) => write!(
                f,
                "its StatefulSet wants {count} Pods from ordinal {start} on"
            ),
            Self::Moved(pool) => write!(f, "its Pod has an address of IPPool {pool} now"),
            Self::SwitchedOff => f.write_str("addresses of its kind are not kept any more"),
        }
    }
}

/// Why the StatefulSet or machine `owner` no longer wants an address for `pod`; `None` where it
/// does.
///
/// `keeper` is what has the owner's name now, or nothing if nothing has.
pub fn unwanted(pod: &PodName, owner: &Uid, keeper: Option<&Keeper>) -> Option<Unwanted> {
    let Some(keeper) = keeper else {
        return Some(Unwanted::OwnerGone);
    };
    if keeper.uid != *owner {
        return Some(Unwanted::OwnerReplaced);
    }
    if keeper.terminating {
        return Some(Unwanted::OwnerEnds);
    }
    let ordinals = keeper.ordinals?;
    let wanted = ordinal(pod).is_some_and(|(_, ordinal)| ordinals.contains(ordinal));
    (!wanted).then_some(Unwanted::OrdinalBeyond(ordinals))
}

/// True where `other` shows that the identity of `kept` has moved on: a Pod of it holds an address
/// of the same family there.
///
/// A record that names no interface may be of any, so nothing supersedes it.
pub fn is_superseded((at, kept): (IpAddr, &Record), (other_at, other): (IpAddr, &Record)) -> bool {
    Family::of(at) == Family::of(other_at)
        && kept.kept
        && !other.kept
        && kept.owner.is_some()
        && kept.owner == other.owner
        && (kept.pod == other.pod || kept.machine.is_some())
        && kept.nic.is_some()
        && kept.nic == other.nic
}

/// What a Pod may inherit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heritage {
    /// From whom.
    pub lineage: Lineage,
    /// For a machine: which run of it the Pod is of.
    pub instance: Option<Instance>,
    /// What its endpoint says of a former Pod, for records that name no owner.
    pub former: Option<Former>,
    /// Former Pods whose node is lost for good: gone by a live read, or tainted out of service.
    pub let_go: BTreeSet<Uid>,
}

/// A run of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Uid of its `VirtualMachineInstance`.
    pub uid: Uid,
    /// What the Pod is to it.
    pub role: Role,
}

/// What a Pod is to a run of a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It is started there.
    Start,
    /// It is moved there, from a Pod that runs it meanwhile.
    MigrationTarget,
}

/// The Pod to which a virtual machine is being moved: it holds the machine's address as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// `namespace/name` of the Pod.
    pub pod: PodName,
    /// Its uid.
    #[serde(rename = "podUid")]
    pub uid: Uid,
    /// Its node, whose agent must acknowledge its release.
    pub node: NodeName,
    /// Its sandbox that last asked for the address.
    pub sandbox: Sandbox,
}

/// A former Pod of an identity, known by a `SpiderEndpoint` of the same owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Its uid.
    pub uid: Uid,
    /// The addresses that the interface had.
    pub addresses: BTreeSet<IpAddr>,
    /// For a machine: the run of it that the Pod is of, if it still is.
    pub instance: Option<Uid>,
}

/// What a record of another uid is to a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heir {
    /// Nothing: it is of another identity.
    Stranger,
    /// The Pod's own once the former Pod lets go.
    Waits,
    /// The Pod's own, and for now also that of the Pod which the machine is moved from.
    Joins,
    /// The Pod's own.
    Takes,
}

impl Heritage {
    /// What `record` of `address` is to interface `nic` of the Pod named `pod`, which has another
    /// uid than the record.
    pub fn heir(&self, address: IpAddr, record: &Record, pod: &PodName, nic: &Nic) -> Heir {
        let own_run = self.instance.as_ref().map(|of| &of.uid);
        let told = self
            .former
            .as_ref()
            .filter(|former| former.uid == record.uid && former.addresses.contains(&address));
        let (of_owner, run) = match &record.owner {
            Some(owner) => (*owner == self.lineage.owner, record.instance.as_ref()),
            None => (told.is_some(), told.and_then(|of| of.instance.as_ref())),
        };
        let of_run = own_run.is_some() && own_run == run;
        let of_identity = of_owner || of_run;
        let of_name = record.pod == *pod || self.lineage.machine.is_some();
        let of_nic = record.nic.as_ref().is_none_or(|recorded| recorded == nic);
        if !of_identity || !of_name || !of_nic {
            return Heir::Stranger;
        }
        let next = record.next.as_ref();
        let next_is_free = next.is_none_or(|next| self.let_go.contains(&next.uid));
        let holder_is_free = record.kept || self.let_go.contains(&record.uid);
        let is_target = self
            .instance
            .as_ref()
            .is_some_and(|of| of.role == Role::MigrationTarget);
        match (holder_is_free, next_is_free) {
            (true, true) => Heir::Takes,
            (false, true) if of_run && is_target => Heir::Joins,
            (_, _) => Heir::Waits,
        }
    }

    /// By which uids records of a machine are found: its own, and that of its run.
    pub fn machine(&self) -> impl Iterator<Item = &Uid> {
        let own = self.lineage.machine.iter().map(|_| &self.lineage.owner);
        own.chain(self.instance.iter().map(|of| &of.uid))
    }

    /// Who of those that have `record`'s address has not let go: its holder before its next.
    pub fn blocker<'r>(&self, record: &'r Record) -> Option<(&'r Uid, Option<&'r NodeName>)> {
        let holder = (!record.kept).then_some((&record.uid, record.node.as_ref()));
        let next = record.next.as_ref().map(|n| (&n.uid, Some(&n.node)));
        let mut all = holder.into_iter().chain(next);
        all.find(|(uid, _)| !self.let_go.contains(*uid))
    }
}

/// A Pod's own address, which its former Pod has not let go of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub struct Held {
    /// Address.
    pub address: IpAddr,
    /// Its pool.
    pub pool: PoolName,
    /// `namespace/name` of both Pods.
    pub pod: PodName,
    /// Uid of the former one.
    pub uid: Uid,
    /// Where it ran, as far as the record says.
    pub node: Option<NodeName>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            pool,
            pod,
            uid,
            node,
        } = self;
        write!(
            f,
            "address {address} of IPPool {pool} is kept for Pod {pod}, and its former Pod {uid} has not let go"
        )?;
        match node {
            Some(node) => write!(
                f,
                " on node {node}: it is given again once the agent there has seen the old sandbox removed; \
                 if the node is lost for good, delete Node {node} or taint it node.kubernetes.io/out-of-service"
            ),
            None => write!(
                f,
                ": it is given again once that Pod's agent has seen the old sandbox removed, \
                 or after the record is removed by a person"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
