//! Records whose Pods have let go, and that no agent will release: when the controller may.
//!
//! Owns: the proof that a node has let go where its agent can't say so, and the limits of a
//! collection. Never does: read anything, or release; the host looks at all records, and carries
//! out what a look gives after it has read Pod and node once more. An address of a StatefulSet's Pod
//! or a virtual machine is then kept, not freed, where that still wants it ([`crate::keep`]).
//!
//! The owner's half of the proof is that its Pod is gone, finished or ending. The node's half:
//!
//! | the node that the record names | the record |
//! |---|---|
//! | is ready | is its agent's: a DEL is due, or the agent's own look ([`crate::leak`]) |
//! | is deleted | goes |
//! | is tainted out of service, and not ready | goes |
//! | has been unready for [`LOST_AFTER`], and gives no sign of life | goes, if the policy has it and the address is not fixed |
//! | is unready otherwise | stays: containers run on without a kubelet |
//!
//! Of a static Pod the API server knows no uid, so that its Pod seems gone while it runs: its record
//! stays, whatever its node, until that is deleted.
//!
//! A record without a node, as the original writes it, may be of the node that its Pod's endpoint
//! names, or of any: then each of them must have let go. There a node that has been ready for
//! [`SETTLED`] has, if the Pod has been gone as long: its kubelet stops what has no Pod.
//!
//! What may go so, goes after [`LOOKS`](crate::looks::LOOKS) looks running, and never many at once
//! without a further one ([`BRAKE`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use crate::keep::Lineage;
use crate::leak::Holding;
use crate::looks::{Brake, Due, Looks};
use crate::name::{NodeName, PoolName};

/// How long a node is unready before it is taken for lost. Kubernetes itself gives a node as long
/// before it takes away the volumes of Pods that ought to have stopped there.
pub const LOST_AFTER: TimeDelta = TimeDelta::minutes(6);

/// How long a Pod must be gone and a kubelet ready to show that it has stopped the Pod.
pub const SETTLED: TimeDelta = TimeDelta::minutes(10);

/// No cache is behind for this long.
const BEHIND_MAX: TimeDelta = TimeDelta::minutes(2);

/// How many records may go at once: a node's worth, and not a cluster's.
pub const BRAKE: Brake = Brake {
    many: 128,
    most: 1_000,
};

/// Agents free what they find by themselves, under a brake of their own.
const UNBRAKED: Brake = Brake {
    many: usize::MAX,
    most: usize::MAX,
};

/// What became of the Pod that a record names; one of another uid is not it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It runs, or will.
    Lives,
    /// It is being deleted, and has until then to stop.
    Ends {
        /// Its deletion's time, which includes the grace period.
        by: DateTime<Utc>,
    },
    /// It is not there, or has finished for good.
    Gone,
}

/// Whether a machine gives a sign of life, when its node does not report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answers: it runs, and maybe its containers.
    Answers,
    /// It does not.
    Silent,
    /// Nobody asked it.
    NotAsked,
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its kubelet reports and is ready.
    Ready {
        /// Since when, if that is known.
        since: Option<DateTime<Utc>>,
    },
    /// It is not.
    Unready {
        /// Since when, if that is known.
        since: Option<DateTime<Utc>>,
        /// Whether the machine answers.
        sign: Sign,
    },
    /// It is not ready, and a person says by a taint that nothing runs there.
    OutOfService,
    /// There is no such node any more.
    Gone,
}

/// Where the Pod of a record ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// The record says it.
    Recorded(NodeName, Standing),
    /// The Pod's endpoint does.
    Told(NodeName, Standing),
    /// On any of these.
    Any(BTreeMap<NodeName, Standing>),
}

impl Home {
    /// True where it is one node, and that is deleted.
    fn is_deleted(&self) -> bool {
        matches!(
            self,
            Self::Recorded(_, Standing::Gone) | Self::Told(_, Standing::Gone)
        )
    }
}

/// A record, and all that is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The record.
    pub holding: Holding,
    /// Its Pod.
    pub fate: Fate,
    /// Its node.
    pub home: Home,
    /// Whose Pods keep their addresses, by the record or the Pod's endpoint.
    pub lineage: Option<Lineage>,
}

/// What becomes of records on nodes that are lost and not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostNodes {
    /// They go after a time.
    ByTime,
    /// They wait until a person says that the node is lost.
    ByWord,
}

/// What an operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Nodes that neither report nor answer.
    pub lost_nodes: LostNodes,
    /// Added to every grace period.
    pub delay: TimeDelta,
}

/// Why a node has surely let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It was deleted.
    Deleted(NodeName),
    /// It is out of service.
    OutOfService(NodeName),
    /// It is lost, by the policy.
    Lost(NodeName, DateTime<Utc>),
    /// The record names no node, and each that it may be of has let go.
    Settled,
}

/// Why a node may not have let go, and what would show that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The Pod may still take its time to stop.
    Ending,
    /// The node is unready, and the address fixed: time proves nothing.
    Fixed(NodeName),
    /// The node is unready, and the policy waits for a person.
    ByWord(NodeName),
    /// The node has not been unready for long.
    Recent(NodeName),
    /// The record names no node, and this one has not been ready for long.
    Settling(NodeName),
    /// The machine answers.
    Answers(NodeName),
    /// The node has been unready for long; whether the machine answers, the controller asks.
    NotAsked(NodeName),
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its Pod lives.
    InUse,
    /// Its Pod is gone, and its node well: it is that node's agent's.
    Agent(NodeName),
    /// Nobody may free it yet.
    Waits(Doubt),
    /// It may go.
    Goes(Proof),
}

/// What becomes of a record; see the table at the head of this module.
pub fn judge(seen: &Seen, policy: &Policy, now: DateTime<Utc>) -> Verdict {
    if seen.fate == Fate::Lives || (seen.holding.is_static() && !seen.home.is_deleted()) {
        return Verdict::InUse;
    }
    match &seen.home {
        Home::Recorded(node, Standing::Ready { .. }) if seen.fate == Fate::Gone => {
            Verdict::Agent(node.clone())
        }
        Home::Recorded(node, standing) | Home::Told(node, standing) => {
            match let_go(seen, node, standing, policy, now) {
                Ok(proof) => Verdict::Goes(proof),
                Err(doubt) => Verdict::Waits(doubt),
            }
        }
        Home::Any(nodes) => {
            let mut each = nodes
                .iter()
                .map(|(node, standing)| let_go(seen, node, standing, policy, now));
            match each.find_map(Result::err) {
                Some(doubt) => Verdict::Waits(doubt),
                None if seen.fate == Fate::Gone => Verdict::Goes(Proof::Settled),
                None => Verdict::Waits(Doubt::Ending),
            }
        }
    }
}

/// Whether one node has let go.
fn let_go(
    seen: &Seen,
    node: &NodeName,
    standing: &Standing,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Result<Proof, Doubt> {
    let node = node.clone();
    match standing {
        Standing::Gone => Ok(Proof::Deleted(node)),
        Standing::OutOfService => Ok(Proof::OutOfService(node)),
        Standing::Ready { .. } if seen.fate != Fate::Gone => Err(Doubt::Ending),
        Standing::Ready { since } if has_passed(*since, SETTLED, now) => Ok(Proof::Settled),
        Standing::Ready { .. } => Err(Doubt::Settling(node)),
        Standing::Unready { .. } if seen.lineage.is_some() => Err(Doubt::Fixed(node)),
        Standing::Unready { .. } if policy.lost_nodes == LostNodes::ByWord => {
            Err(Doubt::ByWord(node))
        }
        Standing::Unready { since, sign } => {
            if let Fate::Ends { by } = seen.fate
                && !has_passed(Some(by), policy.delay, now)
            {
                return Err(Doubt::Ending);
            }
            let wait = LOST_AFTER.checked_add(&policy.delay);
            let is_long = wait.is_some_and(|wait| has_passed(*since, wait, now));
            match (sign, since) {
                (Sign::Answers, _) => Err(Doubt::Answers(node)),
                (Sign::Silent, Some(since)) if is_long => Ok(Proof::Lost(node, *since)),
                (Sign::NotAsked, _) if is_long => Err(Doubt::NotAsked(node)),
                (Sign::Silent | Sign::NotAsked, _) => Err(Doubt::Recent(node)),
            }
        }
    }
}

/// True where `wait` has passed since then; false where nobody knows when that was.
fn has_passed(since: Option<DateTime<Utc>>, wait: TimeDelta, now: DateTime<Utc>) -> bool {
    let due = since.and_then(|since| since.checked_add_signed(wait));
    due.is_some_and(|due| due <= now)
}

/// What a look gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// These may go now, if a live read says the same.
    pub free: Due<Holding>,
    /// Pools with records that agents of nodes in order should have released by now.
    pub for_agents: BTreeSet<PoolName>,
}

/// What the looks so far found.
#[derive(Debug, Clone)]
pub struct Suspects {
    free: Looks<Holding>,
    for_agents: Looks<Holding>,
    /// Records without a node that have seemed free at every look lately.
    settling: BTreeMap<Holding, Settling>,
}

/// Since when a Pod has surely been gone. A single look may be behind, and nothing is known of the
/// time until the next: what counts begins with a look that no cache can be behind at any more.
#[derive(Debug, Clone, Copy)]
struct Settling {
    /// The first look that found the Pod gone.
    first: DateTime<Utc>,
    /// The first after it that is sure.
    sure: Option<DateTime<Utc>>,
}

impl Settling {
    /// A look finds the Pod gone, once more or for the first time.
    fn look(before: Option<&Self>, now: DateTime<Utc>) -> Self {
        let first = before.map_or(now, |before| before.first);
        let is_sure = now.signed_duration_since(first) >= BEHIND_MAX;
        let sure = before.and_then(|before| before.sure);
        Self {
            first,
            sure: sure.or(is_sure.then_some(now)),
        }
    }

    fn is_settled(&self, now: DateTime<Utc>) -> bool {
        let for_long = |since| now.signed_duration_since(since) >= SETTLED;
        self.sure.is_some_and(for_long)
    }
}

impl Default for Suspects {
    fn default() -> Self {
        Self {
            free: Looks::new(BRAKE),
            for_agents: Looks::new(UNBRAKED),
            settling: BTreeMap::new(),
        }
    }
}

impl Suspects {
    /// Takes in a look that judged these among `total` records; those of living Pods may be left
    /// out. Cost: O(n log n).
    pub fn look(
        &mut self,
        judged: &[(Holding, Verdict)],
        total: usize,
        now: DateTime<Utc>,
    ) -> Found {
        let (mut free, mut for_agents, mut settling) = (vec![], vec![], BTreeMap::new());
        for (holding, verdict) in judged {
            match verdict {
                Verdict::InUse | Verdict::Waits(_) => {}
                Verdict::Agent(_) => for_agents.push(holding.clone()),
                Verdict::Goes(Proof::Settled) => {
                    let seen = Settling::look(self.settling.get(holding), now);
                    if seen.is_settled(now) {
                        free.push(holding.clone());
                    }
                    settling.insert(holding.clone(), seen);
                }
                Verdict::Goes(Proof::Deleted(_) | Proof::OutOfService(_) | Proof::Lost(..)) => {
                    free.push(holding.clone());
                }
            }
        }
        self.settling = settling;
        let for_agents = self.for_agents.look(for_agents, usize::MAX).now;
        Found {
            free: self.free.look(free, total),
            for_agents: for_agents.into_iter().map(|h| h.pool).collect(),
        }
    }
}

impl Verdict {
    /// What it is, one word in CamelCase for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::InUse => "InUse",
            Self::Agent(_) => "Agent",
            Self::Waits(_) => "Waits",
            Self::Goes(_) => "Goes",
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleted(node) => write!(f, "Node {node} is deleted"),
            Self::OutOfService(node) => {
                write!(f, "Node {node} is tainted out of service and not ready")
            }
            Self::Lost(node, since) => write!(
                f,
                "Node {node} has not been ready since {} and gives no sign of life",
                since.format("%FT%TZ")
            ),
            Self::Settled => f.write_str(
                "the record names no node, and the kubelets of all that it may be of are ready",
            ),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |node| {
            format!(
                "if nothing runs there any more, delete Node {node} or taint it \
                 node.kubernetes.io/out-of-service"
            )
        };
        match self {
            Self::Ending => f.write_str("its Pod is being deleted and may still run"),
            Self::Fixed(node) => write!(
                f,
                "Node {node} is not ready, and a fixed address waits for more than time: {}",
                word(node)
            ),
            Self::ByWord(node) => write!(
                f,
                "Node {node} is not ready, and zombieOnNotReadyNode is off: {}",
                word(node)
            ),
            Self::Recent(node) => write!(
                f,
                "Node {node} is not ready, but has not been so for {} minutes: {}",
                LOST_AFTER.num_minutes(),
                word(node)
            ),
            Self::Settling(node) => write!(
                f,
                "the record names no node, and Node {node} has not been ready for {} minutes",
                SETTLED.num_minutes()
            ),
            Self::Answers(node) => write!(
                f,
                "Node {node} is not ready, but the machine answers, so its containers may run: {}",
                word(node)
            ),
            Self::NotAsked(node) => write!(
                f,
                "Node {node} is not ready; it goes unless the machine answers the controller"
            ),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("its Pod lives"),
            Self::Agent(node) => write!(
                f,
                "its Pod is gone, and Node {node} is ready: the agent there frees it"
            ),
            Self::Waits(doubt) => doubt.fmt(f),
            Self::Goes(proof) => write!(f, "its Pod is gone or ends, and {proof}"),
        }
    }
}

#[cfg(test)]
mod tests;
