//! Records that no DEL will ever release, and when they may go.
//!
//! Owns: the rule by which a node's agent finds what leaked on its own node: the runtime's state
//! was wiped, the node rebooted between a DEL and the release, a DEL named no uid, a write arrived
//! after the release. Never does: read anything; the host looks, at long intervals, and carries out
//! what a look gives. Records of other nodes, or of none, are not judged here: see
//! [`crate::collect`].
//!
//! A record goes where, in [`crate::looks::LOOKS`] looks running,
//!
//! * its Pod was gone or finished by a live read ([`Life::Gone`]),
//! * the agent knew of no sandbox for it ([`Here::Unknown`]), so no DEL is due or under way,
//! * the kubelet of the node was well, and so had stopped what has no Pod;
//!
//! and if many would go at once, only a further look lets them ([`BRAKE`]). A static Pod's record
//! never goes this way: its copy at the API server says nothing of whether it runs.

use std::net::IpAddr;

use crate::keep::Lineage;
use crate::looks::{Brake, Due, Looks};
use crate::name::{Nic, NodeName, PodName, PoolName, Sandbox, Uid};
use crate::pool::Pool;
use crate::quarantine::is_quarantined;
use crate::record::Record;
use crate::release::Life;

/// How many records of one node may go at once.
pub const BRAKE: Brake = Brake {
    many: 16,
    most: 256,
};

/// A record that is judged, with its place: another holder, or another sandbox of the same, is
/// another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// Pool.
    pub pool: PoolName,
    /// Address.
    pub address: IpAddr,
    /// The Pod's name.
    pub pod: PodName,
    /// The Pod.
    pub uid: Uid,
    /// Its interface, if the record says.
    pub nic: Option<Nic>,
    /// Its node, if the record says.
    pub node: Option<NodeName>,
    /// The sandbox that last had the address, if the record says.
    pub sandbox: Option<Sandbox>,
    /// Whose Pods keep their addresses, if the record says.
    pub lineage: Option<Lineage>,
}

impl Holding {
    /// The record of `address` in `pool`, once for each Pod that has the address: two of a virtual
    /// machine that is being moved; none of an address that nobody holds: it waits for the next Pod
    /// of its identity ([`crate::keep`]), or is in quarantine.
    pub fn of(pool: &PoolName, address: IpAddr, record: &Record) -> Vec<Self> {
        if record.kept || is_quarantined(record) {
            return vec![];
        }
        let holder = Self {
            pool: pool.clone(),
            address,
            pod: record.pod.clone(),
            uid: record.uid.clone(),
            nic: record.nic.clone(),
            node: record.node.clone(),
            sandbox: record.sandbox.clone(),
            lineage: record.lineage(),
        };
        let next = record.next.as_ref().map(|next| Self {
            pod: next.pod.clone(),
            uid: next.uid.clone(),
            node: Some(next.node.clone()),
            sandbox: Some(next.sandbox.clone()),
            ..holder.clone()
        });
        std::iter::once(holder).chain(next).collect()
    }

    /// True for a static Pod's: its uid is a hash of its kubelet's, unlike those of the API server.
    pub fn is_static(&self) -> bool {
        !self.uid.as_str().contains('-')
    }
}

/// The records of `pool` that name `node`. Cost: O(n).
pub fn holdings(pool: &Pool, node: &NodeName) -> Vec<Holding> {
    let records = pool.records.iter();
    let held = records.flat_map(|(address, record)| Holding::of(&pool.name, address, record));
    held.filter(|holding| holding.node.as_ref() == Some(node))
        .collect()
}

/// What the agent knows of the interface that a record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// A sandbox that it served was not torn down yet, or a DEL is being carried out.
    Followed,
    /// Nothing.
    Unknown,
}

/// The node's kubelet, as its Node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kubelet {
    /// It reports and is ready.
    Ready,
    /// It is not, or that can't be told.
    Unknown,
}

/// What the looks so far found.
#[derive(Debug, Clone)]
pub struct Suspects(Looks<Holding>);

impl Default for Suspects {
    fn default() -> Self {
        Self(Looks::new(BRAKE))
    }
}

impl Suspects {
    /// Takes in a look at records of the node. A record that is not leaked at one look starts anew
    /// at the next. Cost: O(n log n).
    pub fn look(&mut self, seen: Vec<(Holding, Life, Here)>, kubelet: Kubelet) -> Due<Holding> {
        let total = seen.len();
        let leaked = seen.into_iter().filter_map(|(holding, life, here)| {
            let is_leaked = (life, here, kubelet) == (Life::Gone, Here::Unknown, Kubelet::Ready);
            (is_leaked && !holding.is_static()).then_some(holding)
        });
        self.0.look(leaked, total)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;
    use crate::keep::Next;
    use crate::testing::{in_use, ip, pool, record};

    fn held(n: u8) -> Holding {
        Holding {
            pool: PoolName::from("a"),
            address: ip(n),
            pod: PodName::new("shop", &format!("p{n}")),
            uid: Uid::new(format!("u-{n}")),
            nic: Some(Nic::from("eth0")),
            node: Some(NodeName::from("n1")),
            sandbox: Some(Sandbox::from("s1")),
            lineage: None,
        }
    }

    #[test]
    fn two_pods_hold_the_address_of_a_machine_that_is_being_moved() {
        let next = Next {
            pod: PodName::new("shop", "next"),
            uid: Uid::from("u-next"),
            node: NodeName::from("n2"),
            sandbox: Sandbox::from("s2"),
        };
        let moving = Record {
            uid: Uid::from("u-1"),
            nic: Some(Nic::from("eth0")),
            node: Some(NodeName::from("n1")),
            sandbox: Some(Sandbox::from("s1")),
            next: Some(next.clone()),
            ..record("p1")
        };
        let of_next = Holding {
            pod: next.pod,
            uid: next.uid,
            node: Some(next.node),
            sandbox: Some(next.sandbox),
            ..held(1)
        };
        let found = Holding::of(&"a".into(), ip(1), &moving);
        assert_eq!(found, [held(1), of_next]);
    }

    const NONE: Due<Holding> = Due {
        now: vec![],
        braked: 0,
    };
    const GONE: (Life, Here) = (Life::Gone, Here::Unknown);

    /// A node with records 1 to `total`, the first `gone` of which look leaked.
    fn node(total: u8, gone: u8) -> Vec<(Holding, Life, Here)> {
        let seen = |n| {
            let (life, here) = if n <= gone {
                GONE
            } else {
                (Life::Alive, Here::Followed)
            };
            (held(n), life, here)
        };
        (1..=total).map(seen).collect()
    }

    #[test]
    fn the_second_look_lets_go_and_a_doubt_between_starts_anew() {
        let doubts = [
            ((Life::Alive, Here::Unknown), Kubelet::Ready),
            ((Life::Ending, Here::Unknown), Kubelet::Ready),
            ((Life::Gone, Here::Followed), Kubelet::Ready),
            (GONE, Kubelet::Unknown),
        ];
        for ((life, here), kubelet) in doubts {
            let mut suspects = Suspects::default();
            let mut seen = node(9, 1);
            assert_eq!(suspects.look(seen.clone(), Kubelet::Ready), NONE);
            seen[0].1 = life;
            seen[0].2 = here;
            assert_eq!(suspects.look(seen, kubelet), NONE);
            let first = suspects.look(node(9, 1), Kubelet::Ready);
            assert_eq!(first, NONE, "{life:?} {here:?} {kubelet:?}");
            let second = suspects.look(node(9, 1), Kubelet::Ready);
            assert_eq!(second.now, [held(1)]);
        }
    }

    #[test]
    fn a_record_that_changed_hands_starts_anew() {
        let mut suspects = Suspects::default();
        suspects.look(node(9, 1), Kubelet::Ready);
        let mut seen = node(9, 1);
        seen[0].0.sandbox = Some(Sandbox::from("s2"));
        assert_eq!(suspects.look(seen, Kubelet::Ready), NONE);
    }

    #[test]
    fn many_of_a_node_at_once_wait_for_a_third_look() {
        let many = u8::try_from(BRAKE.many).unwrap();
        let mut suspects = Suspects::default();
        suspects.look(node(200, many), Kubelet::Ready);
        let second = suspects.look(node(200, many), Kubelet::Ready);
        assert_eq!((second.now.len(), second.braked), (0, BRAKE.many));
        let third = suspects.look(node(200, many), Kubelet::Ready);
        assert_eq!((third.now.len(), third.braked), (BRAKE.many, 0));
    }

    #[test]
    fn a_static_pod_s_record_stays() {
        let mut seen = node(9, 1);
        seen[0].0.uid = Uid::from("0a1b2c3d");
        let mut suspects = Suspects::default();
        for _ in 0..4 {
            assert_eq!(suspects.look(seen.clone(), Kubelet::Ready), NONE);
        }
    }

    #[test]
    fn only_the_node_s_own_records_are_looked_at() {
        let mut pool = in_use("1-4", pool("a", "1-9"));
        for (n, node, kept) in [(1, "n1", false), (2, "n2", false), (3, "n1", true)] {
            let of_node = Record {
                node: Some(NodeName::from(node)),
                kept,
                ..record("x-1")
            };
            pool.records.insert(ip(n), of_node);
        }
        let found = holdings(&pool, &NodeName::from("n1"));
        assert_eq!(found.iter().map(|h| h.address).collect::<Vec<_>>(), [ip(1)]);
    }

    #[test]
    fn an_address_in_quarantine_is_nobodys_to_leak() {
        let text = r#"{"10.0.0.1":{"pod":"a/b","podUid":"quarantined"},"10.0.0.2":{"pod":"a/b","podUid":"u"}}"#;
        let records = crate::record::Records::parse(Some(text)).unwrap();
        let pool = PoolName::from("p");
        let held: Vec<_> = records
            .iter()
            .flat_map(|(address, record)| Holding::of(&pool, address, record))
            .map(|holding| holding.address.to_string())
            .collect();
        assert_eq!(held, ["10.0.0.2"]);
    }
}
