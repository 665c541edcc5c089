//! Records that no DEL will ever release, and when they may go.
//!
//! Owns: the rule by which a node's agent finds what leaked on its own node: the runtime's state
//! was wiped, the node rebooted between a DEL and the release, a DEL named no uid, a write arrived
//! after the release. Never does: read anything; the host looks, at long intervals, and carries out
//! what a look gives. Records of other nodes, or of none, are not judged here.
//!
//! A record goes where, in [`LOOKS`] looks running,
//!
//! * its Pod was gone or finished by a live read ([`Life::Gone`]),
//! * the agent knew of no sandbox for it ([`Here::Unknown`]), so no DEL is due or under way,
//! * the kubelet of the node was well, and so had stopped what has no Pod;
//!
//! and if many would go at once, only a further look lets them: [`MANY`], or more than half of what
//! the node has, is what a mistake looks like. A static Pod's record never goes this way: its copy
//! at the API server says nothing of whether it runs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::name::{Nic, NodeName, PodName, PoolName, Sandbox, Uid};
use crate::pool::Pool;
use crate::release::Life;

/// Looks running that must find a record leaked.
pub const LOOKS: u32 = 2;

/// So many at one look, or more than half of the node's records, wait for a further look.
pub const MANY: usize = 16;

/// A record of the node in question.
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
    /// The sandbox that last had the address, if the record says.
    pub sandbox: Option<Sandbox>,
}

/// The records of `pool` that name `node`, but for addresses that wait for the next Pod of their
/// identity ([`crate::keep`]). Cost: O(n).
pub fn holdings(pool: &Pool, node: &NodeName) -> Vec<Holding> {
    let of_node = pool.records.iter();
    of_node
        .filter(|(_, record)| record.node.as_ref() == Some(node) && !record.kept)
        .map(|(address, record)| Holding {
            pool: pool.name.clone(),
            address,
            pod: record.pod.clone(),
            uid: record.uid.clone(),
            nic: record.nic.clone(),
            sandbox: record.sandbox.clone(),
        })
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

/// What a look lets go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// These may go now.
    pub leaked: Vec<Holding>,
    /// So many wait for a further look, because they are many.
    pub braked: usize,
}

/// What the looks so far found.
#[derive(Debug, Clone, Default)]
pub struct Suspects {
    looks: BTreeMap<Holding, u32>,
}

impl Suspects {
    /// True where the last look found something that the next may confirm, or show to be freed.
    pub fn is_any(&self) -> bool {
        !self.looks.is_empty()
    }

    /// Takes in a look at all records of the node. A record that is not leaked at one look starts
    /// anew at the next. Cost: O(n log n).
    pub fn look(&mut self, seen: Vec<(Holding, Life, Here)>, kubelet: Kubelet) -> Found {
        let total = seen.len();
        let mut looks = BTreeMap::new();
        for (holding, life, here) in seen {
            let is_leaked = (life, here, kubelet) == (Life::Gone, Here::Unknown, Kubelet::Ready);
            if is_leaked && !is_static(&holding.uid) {
                let before = self.looks.get(&holding).copied().unwrap_or_default();
                looks.insert(holding, before.saturating_add(1));
            }
        }
        self.looks = looks;
        let after = |least: u32| {
            let enough = self.looks.iter().filter(move |(_, looks)| **looks >= least);
            enough
                .map(|(holding, _)| holding.clone())
                .collect::<Vec<_>>()
        };
        let due = after(LOOKS);
        let are_many = due.len() >= MANY || due.len().saturating_mul(2) > total;
        if !are_many {
            return Found {
                leaked: due,
                braked: 0,
            };
        }
        let leaked = after(LOOKS.saturating_add(1));
        Found {
            braked: due.len().saturating_sub(leaked.len()),
            leaked,
        }
    }
}

/// True for the uid that a kubelet gives its static Pods: a hash, unlike those of the API server.
fn is_static(uid: &Uid) -> bool {
    !uid.as_str().contains('-')
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::testing::{in_use, ip, pool, record};

    fn held(n: u8) -> Holding {
        Holding {
            pool: PoolName::from("a"),
            address: ip(n),
            pod: PodName::new("shop", &format!("p{n}")),
            uid: Uid::new(format!("u-{n}")),
            nic: Some(Nic::from("eth0")),
            sandbox: Some(Sandbox::from("s1")),
        }
    }

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
            assert_eq!(
                suspects.look(seen.clone(), Kubelet::Ready),
                Found::default()
            );
            seen[0].1 = life;
            seen[0].2 = here;
            assert_eq!(suspects.look(seen, kubelet), Found::default());
            let first = suspects.look(node(9, 1), Kubelet::Ready);
            assert_eq!(first, Found::default(), "{life:?} {here:?} {kubelet:?}");
            let second = suspects.look(node(9, 1), Kubelet::Ready);
            assert_eq!(second.leaked, [held(1)]);
        }
    }

    #[test]
    fn a_record_that_changed_hands_starts_anew() {
        let mut suspects = Suspects::default();
        suspects.look(node(9, 1), Kubelet::Ready);
        let mut seen = node(9, 1);
        seen[0].0.sandbox = Some(Sandbox::from("s2"));
        assert_eq!(suspects.look(seen, Kubelet::Ready), Found::default());
    }

    #[test]
    fn many_at_once_wait_for_a_third_look() {
        let many = u8::try_from(MANY).unwrap();
        for (total, gone) in [(9, 5), (200, many), (1, 1)] {
            let mut suspects = Suspects::default();
            suspects.look(node(total, gone), Kubelet::Ready);
            let second = suspects.look(node(total, gone), Kubelet::Ready);
            assert_eq!((second.leaked.len(), second.braked), (0, usize::from(gone)));
            let third = suspects.look(node(total, gone), Kubelet::Ready);
            assert_eq!((third.leaked.len(), third.braked), (usize::from(gone), 0));
        }
        let mut suspects = Suspects::default();
        suspects.look(node(200, many - 1), Kubelet::Ready);
        let second = suspects.look(node(200, many - 1), Kubelet::Ready);
        assert_eq!((second.leaked.len(), second.braked), (MANY - 1, 0));
    }

    #[test]
    fn a_static_pod_s_record_stays() {
        let mut seen = node(9, 1);
        seen[0].0.uid = Uid::from("0a1b2c3d");
        let mut suspects = Suspects::default();
        for _ in 0..4 {
            assert_eq!(
                suspects.look(seen.clone(), Kubelet::Ready),
                Found::default()
            );
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
}
