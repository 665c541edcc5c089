//! Faults: what goes wrong when, as a list that can be printed, replayed and shrunk.
//!
//! Owns: the kinds, the making of a list from a seed, its text form and its shrinking. Never does:
//! anything to the cluster; that is `nemesis`. Invariant: a run knows no fault that is not on its
//! list.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom as _;

/// What goes wrong, with its name, whom it befalls and the longest it lasts in milliseconds.
macro_rules! kinds {
    ($($kind:ident $name:literal $whom:ident $longest:literal $doc:literal;)*) => {
        /// What goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind { $(#[doc = $doc] $kind,)* }

        impl Kind {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// As it is printed.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            fn whom(self) -> Whom {
                match self { $(Self::$kind => Whom::$whom,)* }
            }

            fn longest(self) -> u64 {
                match self { $(Self::$kind => $longest,)* }
            }
        }
    };
}

kinds! {
    Crash "crash" Product 8_000 "A process dies at whatever it waits for, and is started anew later.";
    CrashWiped "crash-wiped" Agent 8_000 "The same, and the node's disk loses the journal.";
    KubeletCrash "kubelet-crash" Node 5_000 "A kubelet dies; its sandboxes stay.";
    LoseRequest "lose-request" Product 0 "A write does not arrive, and nobody says so.";
    LoseReply "lose-reply" Product 0 "A write is carried out, and its answer lost.";
    Late "late" Product 20_000 "A write is given up by its sender, and arrives later.";
    Twice "twice" Product 3_000 "A write arrives twice.";
    Answer429 "answer-429" Product 0 "A write is turned away.";
    Answer500 "answer-500" Product 0 "A write fails with 500, not carried out.";
    Commit504 "commit-504" Product 0 "A write is carried out and answered with 504.";
    ReadFails "read-fails" Product 0 "A read fails with 500.";
    Slow "slow" Product 9_000 "Every request takes up to 0.7 s more.";
    Cut "cut" Product 30_000 "A process can't reach the API server.";
    NodeCut "node-cut" Node 30_000 "Neither kubelet nor agent of a node can.";
    Outage "outage" Cluster 8_000 "No controller, agent or kubelet can; people and the cluster's own controllers go on.";
    WatchStall "watch-stall" Product 15_000 "Watches say nothing, and then all at once.";
    WatchClose "watch-close" Product 0 "Every watch breaks off.";
    Compact "compact" Cluster 0 "History is forgotten and every watch breaks off: 410.";
    StaleList "stale-list" Agent 3_600_000 "Lists from the API server's memory are old, as they may be at any time; a controller asks for none (O2).";
    WebhookDown "webhook-down" Cluster 20_000 "Nobody changes a pool, subnet or reservation: another's webhook fails closed; people try again.";
    Storm "storm" Cluster 1_500 "Somebody else writes every pool again and again.";
    StealLease "steal-lease" Cluster 0 "Another holds the Lease now.";
    TwoLeaders "two-leaders" Cluster 20_000 "Both replicas believe that they lead.";
    ClockStep "clock-step" Cluster 3_600_000 "The wall clock of a controller's or agent's machine is set off the others'.";
    AddReplyLost "add-reply-lost" Node 0 "An ADD is done, and the runtime hears an error.";
    AddGivenUp "add-given-up" Node 0 "The runtime gives an ADD up at once; the agent goes on.";
    DelReplyLost "del-reply-lost" Node 0 "A DEL is done, and the runtime hears an error.";
    DelLate "del-late" Node 20_000 "A DEL comes once more, much later.";
    LinkStays "link-stays" Node 20_000 "After a DEL the link and its network namespace go only later.";
    LineCut "line-cut" Agent 20_000 "An agent can't reach any allocator.";
    LineSilent "line-silent" Agent 15_000 "Allocators don't answer an agent, and carry out what it asked later.";
    LineReplyLost "line-reply-lost" Agent 0 "An allocator does what an agent asks, and its answer is lost.";
    PowerOff "power-off" Node 20_000 "A node loses all that runs on it, and comes back.";
    ForceDelete "force-delete" Cluster 0 "A Pod's object goes while its containers run.";
    DeletePod "delete-pod" Cluster 0 "Somebody deletes a Pod.";
    ShrinkPool "shrink-pool" Cluster 0 "A person takes addresses in use out of a pool.";
    DeletePool "delete-pool" Cluster 0 "A person deletes a pool in use.";
}

/// Whom a kind befalls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// A controller or an agent.
    Product,
    Agent,
    Node,
    /// Everybody, or an object that is chosen when the time comes.
    Cluster,
}

impl Kind {
    /// Whether it meets writes; else reads.
    pub(crate) fn meets_write(self) -> bool {
        self != Self::ReadFails
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Milliseconds after the script began.
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    /// A process, a node, or a number by which an object is chosen.
    pub(crate) target: String,
    /// How long it lasts, in milliseconds.
    pub(crate) lasts: u64,
}

impl Fault {
    pub(crate) fn lasting(&self) -> Duration {
        Duration::from_millis(self.lasts)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, target) = (self.kind.name(), &self.target);
        write!(f, "{} {kind} {target} {}", self.at, self.lasts)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [at, kind, target, lasts] = parts[..] else {
            return Err(format!("'{text}' is not: at kind target lasts"));
        };
        let known = Kind::ALL.iter().find(|known| known.name() == kind);
        Ok(Self {
            at: at.parse().map_err(|_| format!("'{at}' is no time"))?,
            kind: *known.ok_or_else(|| format!("there is no fault '{kind}'"))?,
            target: target.to_owned(),
            lasts: lasts.parse().map_err(|_| format!("'{lasts}' is no time"))?,
        })
    }
}

/// Who is there to be hit.
pub(crate) struct Cast<'a> {
    pub(crate) controllers: usize,
    pub(crate) nodes: &'a [String],
}

/// A list for a run of this length, in the order of its times.
pub(crate) fn make(
    rng: &mut impl Rng,
    cast: &Cast<'_>,
    over: Duration,
    kinds: &[Kind],
) -> Vec<Fault> {
    let span = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
    let number = rng.random_range(4..=14);
    let mut faults: Vec<Fault> = (0..number)
        .filter_map(|_| {
            let kind = *kinds.choose(rng)?;
            let lasts = rng.random_range(0..=kind.longest());
            let at = rng.random_range(0..span);
            let target = target(rng, cast, kind.whom())?;
            Some(Fault {
                at,
                kind,
                target,
                lasts,
            })
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn target(rng: &mut impl Rng, cast: &Cast<'_>, whom: Whom) -> Option<String> {
    let node = cast.nodes.choose(rng)?;
    Some(match whom {
        Whom::Product if rng.random_ratio(1, 2) => {
            format!("controller-{}", rng.random_range(0..cast.controllers))
        }
        Whom::Product | Whom::Agent => format!("agent-{node}"),
        Whom::Node => node.clone(),
        Whom::Cluster => rng.random_range(0..100_u32).to_string(),
    })
}

/// The smallest part of the list found that still `fails`: ddmin, which tries ever smaller parts
/// and their complements. Bounded by `tries`.
pub(crate) fn shrink(
    mut faults: Vec<Fault>,
    mut tries: u32,
    mut fails: impl FnMut(&[Fault]) -> bool,
) -> Vec<Fault> {
    let mut parts = 2;
    while faults.len() >= 2 && parts <= faults.len() {
        let size = faults.len().div_ceil(parts);
        let mut smaller = None;
        for start in (0..faults.len()).step_by(size) {
            if tries == 0 {
                return faults;
            }
            tries -= 1;
            let end = (start + size).min(faults.len());
            let without: Vec<Fault> = [&faults[..start], &faults[end..]].concat();
            if fails(&without) {
                smaller = Some(without);
                break;
            }
        }
        match smaller {
            Some(without) => {
                faults = without;
                parts = 2.max(parts - 1);
            }
            None if parts == faults.len() => break,
            None => parts = (parts * 2).min(faults.len()),
        }
    }
    if faults.len() == 1 && tries > 0 && fails(&[]) {
        faults.clear();
    }
    faults
}
