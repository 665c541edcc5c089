//! Fixed addresses: who keeps one over the end of a Pod, who takes it over, and when it goes.
//!
//! Owns: the rules. Never does: see whether a sandbox let go or a StatefulSet is there; hosts do.
//!
//! A StatefulSet's Pods come and go under the same names, so an address belongs to an *identity*:
//! the StatefulSet's uid, the Pod's name (which is the set's name and an ordinal) and the
//! interface. A record carries it as `owner`, `pod` and `nic`, and goes through two states:
//!
//! ```text
//!            claim                      the sandbox let go, and the set wants the ordinal
//!   free ───────────▶ held by a uid ──────────────────────────────────────▶ kept
//!    ▲                  │      ▲                                             │  │
//!    │   not wanted     │      └──── claim of the next Pod of the identity ──┘  │
//!    └──────────────────┴────────────── the set no longer wants it ─────────────┘
//! ```
//!
//! Invariant: a record passes to another uid only from `kept`, or where the host has shown that the
//! former Pod's node is lost for good ([`Heritage::let_go`]). So at no time do two Pods use it. A
//! foreign writer that drops `owner` and `kept` makes an heir wait and nothing else.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Family;
use crate::name::{Nic, NodeName, PodName, PoolName, Uid};
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

/// A StatefulSet as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// Its uid.
    pub uid: Uid,
    /// It is being deleted.
    pub terminating: bool,
    /// Which Pods it wants.
    pub ordinals: Ordinals,
}

/// Why an address need not be kept any longer. Log lines and Events render this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwanted {
    /// Its StatefulSet is gone.
    OwnerGone,
    /// Another StatefulSet has the name now.
    OwnerReplaced,
    /// Its StatefulSet is being deleted.
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
            Self::OwnerGone => f.write_str("its StatefulSet is gone"),
            Self::OwnerReplaced => f.write_str("another StatefulSet has its name now"),
            Self::OwnerEnds => f.write_str("its StatefulSet is being deleted"),
            Self::OrdinalBeyond(Ordinals { start, count }) => write!(
                f,
                "its StatefulSet wants {count} Pods from ordinal {start} on"
            ),
            Self::Moved(pool) => write!(f, "its Pod has an address of IPPool {pool} now"),
            Self::SwitchedOff => f.write_str("addresses of StatefulSets are not kept any more"),
        }
    }
}

/// Why the StatefulSet `owner` no longer wants an address for `pod`; `None` where it does.
///
/// `set` is the StatefulSet that has the name now, or nothing if none has.
pub fn unwanted(pod: &PodName, owner: &Uid, set: Option<&Keeper>) -> Option<Unwanted> {
    let Some(set) = set else {
        return Some(Unwanted::OwnerGone);
    };
    if set.uid != *owner {
        return Some(Unwanted::OwnerReplaced);
    }
    if set.terminating {
        return Some(Unwanted::OwnerEnds);
    }
    let wanted = ordinal(pod).is_some_and(|(_, ordinal)| set.ordinals.contains(ordinal));
    (!wanted).then_some(Unwanted::OrdinalBeyond(set.ordinals))
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
        && kept.pod == other.pod
        && kept.nic.is_some()
        && kept.nic == other.nic
}

/// What a Pod may inherit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heritage {
    /// Uid of its StatefulSet.
    pub owner: Uid,
    /// What its endpoint says of a former Pod, for records that name no owner.
    pub former: Option<Former>,
    /// Former Pods whose node is lost for good: gone by a live read, or tainted out of service.
    pub let_go: BTreeSet<Uid>,
}

/// A former Pod of an identity, known by a `SpiderEndpoint` of the same StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Its uid.
    pub uid: Uid,
    /// The addresses that the interface had.
    pub addresses: BTreeSet<IpAddr>,
}

/// What a record of another uid is to a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heir {
    /// Nothing: it is of another identity.
    Stranger,
    /// The Pod's own once the former Pod lets go.
    Waits,
    /// The Pod's own.
    Takes,
}

impl Heritage {
    /// What `record` of `address` is to interface `nic` of the Pod named `pod`, which has another
    /// uid than the record.
    pub fn heir(&self, address: IpAddr, record: &Record, pod: &PodName, nic: &Nic) -> Heir {
        let of_identity = match &record.owner {
            Some(owner) => *owner == self.owner,
            None => self.former.as_ref().is_some_and(|former| {
                former.uid == record.uid && former.addresses.contains(&address)
            }),
        };
        let of_nic = record.nic.as_ref().is_none_or(|recorded| recorded == nic);
        if record.pod != *pod || !of_identity || !of_nic {
            Heir::Stranger
        } else if record.kept || self.let_go.contains(&record.uid) {
            Heir::Takes
        } else {
            Heir::Waits
        }
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
mod tests {
    use super::*;
    use crate::testing::{ip, record};

    fn web(n: &str) -> PodName {
        PodName::new("shop", n)
    }

    #[test]
    fn ordinals_are_read_as_the_statefulset_writes_them() {
        let table = [
            ("web-0", Some(("web", 0))),
            ("web-10", Some(("web", 10))),
            ("a-b-3", Some(("a-b", 3))),
            ("web-03", None),
            ("web-+3", None),
            ("web", None),
            ("-3", None),
            ("web-99999999999", None),
            ("web-x2x9k", None),
        ];
        for (name, expected) in table {
            assert_eq!(ordinal(&web(name)), expected, "{name}");
        }
    }

    #[test]
    fn an_address_is_wanted_while_just_this_set_wants_the_ordinal() {
        let set = |uid: &str, start, count| Keeper {
            uid: Uid::from(uid),
            terminating: false,
            ordinals: Ordinals { start, count },
        };
        let owner = Uid::from("set");
        let beyond = |start, count| Some(Unwanted::OrdinalBeyond(Ordinals { start, count }));
        let table = [
            ("web-0", Some(set("set", 0, 3)), None),
            ("web-2", Some(set("set", 0, 3)), None),
            ("web-3", Some(set("set", 0, 3)), beyond(0, 3)),
            ("web-0", Some(set("set", 0, 0)), beyond(0, 0)),
            ("web-4", Some(set("set", 5, 2)), beyond(5, 2)),
            ("web-5", Some(set("set", 5, 2)), None),
            ("web-7", Some(set("set", 5, 2)), beyond(5, 2)),
            ("web", Some(set("set", 0, 3)), beyond(0, 3)),
            (
                "web-0",
                Some(set("new", 0, 3)),
                Some(Unwanted::OwnerReplaced),
            ),
            ("web-0", None, Some(Unwanted::OwnerGone)),
        ];
        for (pod, set, expected) in table {
            assert_eq!(unwanted(&web(pod), &owner, set.as_ref()), expected, "{pod}");
        }
        let ends = Keeper {
            terminating: true,
            ..set("set", 0, 3)
        };
        let verdict = unwanted(&web("web-0"), &owner, Some(&ends));
        assert_eq!(verdict, Some(Unwanted::OwnerEnds));
    }

    fn of_set(owner: Option<&str>, kept: bool) -> Record {
        Record {
            pod: web("web-0"),
            nic: Some(Nic::from("eth0")),
            owner: owner.map(Uid::from),
            kept,
            ..record("old")
        }
    }

    #[test]
    fn a_record_passes_on_within_its_identity_and_only_when_let_go() {
        let (eth0, name) = (Nic::from("eth0"), web("web-0"));
        let heritage = Heritage {
            owner: Uid::from("set"),
            former: None,
            let_go: BTreeSet::new(),
        };
        let heir = |record: &Record| heritage.heir(ip(1), record, &name, &eth0);
        assert_eq!(heir(&of_set(Some("set"), true)), Heir::Takes);
        assert_eq!(heir(&of_set(Some("set"), false)), Heir::Waits);
        assert_eq!(heir(&of_set(Some("other"), true)), Heir::Stranger);
        assert_eq!(heir(&of_set(None, true)), Heir::Stranger);
        let other_pod = Record {
            pod: web("web-1"),
            ..of_set(Some("set"), true)
        };
        assert_eq!(heir(&other_pod), Heir::Stranger);
        let other_nic = Record {
            nic: Some(Nic::from("net1")),
            ..of_set(Some("set"), true)
        };
        assert_eq!(heir(&other_nic), Heir::Stranger);
        let lost = Heritage {
            let_go: [Uid::from("old")].into(),
            ..heritage.clone()
        };
        let held = of_set(Some("set"), false);
        assert_eq!(lost.heir(ip(1), &held, &name, &eth0), Heir::Takes);
    }

    #[test]
    fn a_record_without_owner_passes_on_by_what_the_endpoint_says() {
        let (eth0, name) = (Nic::from("eth0"), web("web-0"));
        let of_original = Record {
            nic: None,
            ..of_set(None, false)
        };
        let known = |uid: &str, address| Heritage {
            owner: Uid::from("set"),
            former: Some(Former {
                uid: Uid::from(uid),
                addresses: [ip(address)].into(),
            }),
            let_go: [Uid::from("old")].into(),
        };
        let heir = |of: &Heritage| of.heir(ip(1), &of_original, &name, &eth0);
        assert_eq!(heir(&known("old", 1)), Heir::Takes);
        assert_eq!(heir(&known("older", 1)), Heir::Stranger);
        assert_eq!(heir(&known("old", 2)), Heir::Stranger);
        let waiting = Heritage {
            let_go: BTreeSet::new(),
            ..known("old", 1)
        };
        assert_eq!(heir(&waiting), Heir::Waits);
    }

    #[test]
    fn only_a_record_in_use_of_the_same_identity_supersedes_a_kept_one() {
        let kept = of_set(Some("set"), true);
        let held = of_set(Some("set"), false);
        let superseded =
            |kept: &Record, other: &Record| is_superseded((ip(1), kept), (ip(2), other));
        assert!(superseded(&kept, &held));
        assert!(!superseded(&kept, &kept));
        assert!(!superseded(&held, &held));
        assert!(!superseded(&kept, &of_set(Some("other"), false)));
        // The other half of a Pod with both families.
        let six: IpAddr = "fd00::1".parse().unwrap();
        assert!(!is_superseded((ip(1), &kept), (six, &held)));
        let other_pod = Record {
            pod: web("web-1"),
            ..held.clone()
        };
        let other_nic = Record {
            nic: Some(Nic::from("net1")),
            ..held.clone()
        };
        let nobodys = (of_set(None, true), of_set(None, false));
        assert!(!superseded(&kept, &other_pod) && !superseded(&kept, &other_nic));
        assert!(!superseded(&nobodys.0, &nobodys.1));
        let unnamed = Record { nic: None, ..kept };
        let both_unnamed = Record {
            nic: None,
            ..held.clone()
        };
        assert!(!superseded(&unnamed, &held) && !superseded(&unnamed, &both_unnamed));
    }

    #[test]
    fn why_an_address_goes_or_is_waited_for_is_told() {
        let reasons = [
            Unwanted::OwnerGone,
            Unwanted::OwnerReplaced,
            Unwanted::OwnerEnds,
            Unwanted::OrdinalBeyond(Ordinals { start: 5, count: 2 }),
            Unwanted::Moved(PoolName::from("q")),
            Unwanted::SwitchedOff,
        ];
        assert_eq!(
            reasons.map(|reason| reason.to_string()),
            [
                "its StatefulSet is gone",
                "another StatefulSet has its name now",
                "its StatefulSet is being deleted",
                "its StatefulSet wants 2 Pods from ordinal 5 on",
                "its Pod has an address of IPPool q now",
                "addresses of StatefulSets are not kept any more",
            ]
        );
        let mut held = Held {
            address: ip(1),
            pool: PoolName::from("p"),
            pod: web("web-0"),
            uid: Uid::from("old"),
            node: Some(NodeName::from("n1")),
        };
        let told = held.to_string();
        let begins = "address 10.0.0.1 of IPPool p is kept for Pod shop/web-0, and its former Pod old has not let go";
        assert!(told.starts_with(begins), "{told}");
        assert!(told.contains("on node n1") && told.ends_with("out-of-service"));
        held.node = None;
        let told = held.to_string();
        assert!(told.starts_with(begins) && told.ends_with("removed by a person"));
    }
}
