//! When an address may leave its record: the proof, record by record.
//!
//! Owns: what a host must have seen before a record goes. Never does: see it; the host reads Pods
//! and hears of sandboxes. The proof has two halves, the owner's ([`Life`]) and its node's (the
//! sandboxes that let go), and this is the table of both:
//!
//! | the record names | its owner is `Gone` | `Ending` or `Served` |
//! |---|---|---|
//! | this interface and a sandbox that let go | goes | goes |
//! | another sandbox | stays: that one's DEL is to come | stays |
//! | no sandbox, or no interface | goes | stays until the owner is gone |
//!
//! Where the owner's StatefulSet or virtual machine wants the address kept ([`crate::keep`]),
//! "goes" reads "is kept"; where the machine is being moved, and its other Pod has the address as
//! well, "is left to that one". Which of the two lets go makes no difference to this table.
//! The last line is for records of the original, and of ours after a foreign writer dropped what it
//! does not know: they can't be held against a sandbox, so a DEL of any may be that of an old one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::keep::Lineage;
use crate::name::{Nic, NodeName, Sandbox, Uid};
use crate::quarantine::is_quarantined;
use crate::record::Record;

/// A Pod's life, by a live read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// It runs, or will.
    Alive,
    /// It is being deleted; its containers may still run.
    Ending,
    /// There is no such uid any more, or it has finished for good.
    Gone,
}

/// The owner's half of the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// [`Life::Gone`].
    Gone,
    /// [`Life::Ending`].
    Ending,
    /// It lives, and was since given addresses of other pools: those of this pool are surplus.
    Served,
}

/// What may go: the addresses of one interface, as far as the proof reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The owner; a record of another is not touched.
    pub uid: Uid,
    /// Its interface.
    pub nic: Nic,
    /// The node that says so; a record that names another is not touched.
    pub node: Option<NodeName>,
    /// The owner's half of the proof.
    pub owner: Owner,
    /// The node's half: the sandboxes that let go.
    pub sandboxes: BTreeSet<Sandbox>,
    /// Who wants the Pod's addresses kept, by a live read.
    pub keep_for: Option<Lineage>,
}

/// What a release does to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'r> {
    /// The record is not of this interface, or of another node, or of nobody.
    NotIts,
    /// It goes.
    Goes,
    /// It stays for the next Pod of its identity.
    IsKeptFor(&'r Lineage),
    /// The holder leaves it to its next.
    Passes,
    /// Its next leaves it to the holder.
    Stays,
    /// It names a sandbox that has not let go.
    InUse,
    /// It names no sandbox or no interface: it goes once the owner is gone.
    UntilGone,
}

impl Release {
    /// What becomes of `record`; see the table at the head of this module.
    pub fn judge(&self, record: &Record) -> Verdict<'_> {
        let next = record.next.as_ref().filter(|next| next.uid == self.uid);
        let (node, sandbox) = match next {
            Some(next) => (Some(&next.node), Some(&next.sandbox)),
            None => (record.node.as_ref(), record.sandbox.as_ref()),
        };
        let elsewhere = |own| node.is_some_and(|recorded| recorded != own);
        let is_its = !is_quarantined(record) && record.is_of(&self.uid, &self.nic);
        if !is_its || self.node.as_ref().is_some_and(elsewhere) {
            return Verdict::NotIts;
        }
        let let_go = match (next, &record.next, self.owner, &self.keep_for) {
            (Some(_), ..) => Verdict::Stays,
            (None, Some(_), ..) => Verdict::Passes,
            (None, None, Owner::Gone | Owner::Ending, Some(lineage)) => Verdict::IsKeptFor(lineage),
            (None, None, Owner::Gone | Owner::Ending, None) | (None, None, Owner::Served, _) => {
                Verdict::Goes
            }
        };
        if record.kept {
            return let_go;
        }
        match (sandbox, &record.nic, self.owner) {
            (Some(sandbox), _, _) if !self.sandboxes.contains(sandbox) => Verdict::InUse,
            (Some(_), Some(_), _) | (_, _, Owner::Gone) => let_go,
            (None, _, _) | (_, None, _) => Verdict::UntilGone,
        }
    }
}

/// What a release came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The addresses that went, in ascending order.
    pub freed: Vec<IpAddr>,
    /// The addresses that are kept now, in ascending order.
    pub kept: Vec<IpAddr>,
    /// The addresses that are left to the other Pod of the same machine, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<IpAddr>,
    /// Records that stay for a sandbox which has not let go.
    pub in_use: usize,
    /// Records that stay until the owner is gone.
    pub until_gone: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::Next;
    use crate::name::PodName;
    use crate::testing::record;

    #[test]
    fn every_line_of_the_table() {
        let cases = [
            // sandbox, nic, owner, verdict
            (Some("s1"), Some("eth0"), Owner::Ending, Verdict::Goes),
            (Some("s1"), Some("eth0"), Owner::Served, Verdict::Goes),
            (Some("s1"), Some("eth0"), Owner::Gone, Verdict::Goes),
            (Some("s3"), Some("eth0"), Owner::Ending, Verdict::InUse),
            (Some("s3"), Some("eth0"), Owner::Served, Verdict::InUse),
            (Some("s3"), Some("eth0"), Owner::Gone, Verdict::InUse),
            (Some("s3"), None, Owner::Gone, Verdict::InUse),
            (None, Some("eth0"), Owner::Ending, Verdict::UntilGone),
            (None, None, Owner::Served, Verdict::UntilGone),
            (Some("s1"), None, Owner::Ending, Verdict::UntilGone),
            (None, Some("eth0"), Owner::Gone, Verdict::Goes),
            (Some("s1"), None, Owner::Gone, Verdict::Goes),
            (None, None, Owner::Gone, Verdict::Goes),
            (Some("s1"), Some("net1"), Owner::Gone, Verdict::NotIts),
        ];
        for (sandbox, nic, owner, verdict) in cases {
            let kept = Record {
                sandbox: sandbox.map(Sandbox::from),
                nic: nic.map(Nic::from),
                ..record("x")
            };
            let mut release = Release {
                node: None,
                uid: Uid::from("x"),
                nic: Nic::from("eth0"),
                owner,
                sandboxes: ["s1", "s2"].map(Sandbox::from).into(),
                keep_for: None,
            };
            assert_eq!(
                release.judge(&kept),
                verdict,
                "{sandbox:?} {nic:?} {owner:?}"
            );
            // A StatefulSet keeps what else would go, but for what a living Pod left behind.
            let set = Lineage::of_set(Uid::from("set"));
            release.keep_for = Some(set.clone());
            let then = match (verdict, owner) {
                (Verdict::Goes, Owner::Gone | Owner::Ending) => Verdict::IsKeptFor(&set),
                _ => verdict,
            };
            assert_eq!(release.judge(&kept), then);
            // Its own node has the say, and no other.
            release.node = Some(NodeName::from("n1"));
            let at = |node: Option<&str>| Record {
                node: node.map(NodeName::from),
                ..kept.clone()
            };
            assert_eq!(release.judge(&at(Some("n1"))), then);
            assert_eq!(release.judge(&at(None)), then);
            assert_eq!(release.judge(&at(Some("n2"))), Verdict::NotIts);
            release.uid = Uid::from("y");
            assert_eq!(release.judge(&kept), Verdict::NotIts);
        }
    }

    #[test]
    fn of_a_machine_s_two_pods_each_lets_go_by_its_own_sandbox_and_node() {
        let next = Next {
            pod: PodName::new("shop", "target"),
            uid: Uid::from("t"),
            node: NodeName::from("n2"),
            sandbox: Sandbox::from("ts"),
        };
        let shared = Record {
            nic: Some(Nic::from("eth0")),
            node: Some(NodeName::from("n1")),
            sandbox: Some(Sandbox::from("hs")),
            next: Some(next),
            ..record("h")
        };
        let lineage = Lineage::of_set(Uid::from("vm"));
        let table = [
            ("h", "hs", "n1", Verdict::Passes),
            ("h", "ts", "n1", Verdict::InUse),
            ("h", "hs", "n2", Verdict::NotIts),
            ("t", "ts", "n2", Verdict::Stays),
            ("t", "hs", "n2", Verdict::InUse),
            ("t", "ts", "n1", Verdict::NotIts),
            ("x", "ts", "n1", Verdict::NotIts),
        ];
        for (uid, sandbox, node, verdict) in table {
            for owner in [Owner::Gone, Owner::Ending, Owner::Served] {
                for keep_for in [None, Some(lineage.clone())] {
                    let release = Release {
                        uid: Uid::from(uid),
                        nic: Nic::from("eth0"),
                        node: Some(NodeName::from(node)),
                        owner,
                        sandboxes: [Sandbox::from(sandbox)].into(),
                        keep_for,
                    };
                    assert_eq!(release.judge(&shared), verdict, "{uid} {sandbox} {node}");
                }
            }
        }
    }

    #[test]
    fn a_kept_record_is_kept_by_a_repeated_del_until_nobody_wants_it() {
        let set = Lineage::of_set(Uid::from("set"));
        let kept = Record {
            nic: Some(Nic::from("eth0")),
            ..record("x").keep_for(&set)
        };
        for owner in [Owner::Gone, Owner::Ending] {
            let mut release = Release {
                node: None,
                uid: Uid::from("x"),
                nic: Nic::from("eth0"),
                owner,
                sandboxes: BTreeSet::new(),
                keep_for: Some(set.clone()),
            };
            assert_eq!(release.judge(&kept), Verdict::IsKeptFor(&set));
            release.keep_for = None;
            assert_eq!(release.judge(&kept), Verdict::Goes);
        }
    }

    /// Whoever calls itself by the uid that stands for nobody.
    #[test]
    fn an_address_in_quarantine_is_nobodys_to_release() {
        let quarantined = record(crate::quarantine::HOLDER);
        let release = Release {
            node: None,
            uid: quarantined.uid.clone(),
            nic: Nic::from("eth0"),
            owner: Owner::Gone,
            sandboxes: BTreeSet::new(),
            keep_for: None,
        };
        assert_eq!(release.judge(&quarantined), Verdict::NotIts);
    }
}
