//! Two agents, a person, the original's agent and an API server fight over one pool.
//!
//! Each agent owns half of the Pods and speaks to the server through a [`PoolLedger`]; writes
//! conflict, replies are lost, agents restart. At every stored write the records before and after
//! are held against what was asked, address by address, with maps and loops and nothing of the
//! code under test.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail by panic"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use chrono::DateTime;
use ipam::addr::AddrSet;
use ipam::ledger::{Answer, Ask, AskId, Claim, ClaimError, PoolLedger};
use ipam::name::{Nic, NodeName, PodName, Sandbox, Uid, Version, WorkloadId};
use ipam::pool::Pool;
use ipam::quarantine::{Conflict, Quarantine, Ruling};
use ipam::record::{Record, Records};
use ipam::release::{Owner, Release};
use ipam::select::{Exhausted, PodFacts};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const AGENTS: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    /// A CNI ADD at the agent of the Pod.
    Claim {
        pod: u8,
        nic: bool,
        sandbox: u8,
        /// Whether the agent says that it is the first of the interface.
        first: bool,
    },
    /// The Pod was given a node; either of the two may say so, as the leader does.
    Early {
        agent: bool,
        pod: u8,
        nic: bool,
    },
    /// A CNI DEL or the collector, for whatever uid.
    Release {
        agent: bool,
        pod: u8,
        nic: bool,
        /// A bit for each.
        sandboxes: u8,
        owner: u8,
    },
    /// A Pod's sandbox says that another host has an address; often it is not the sandbox's.
    Conflict {
        pod: u8,
        nic: bool,
        sandbox: u8,
        address: u8,
    },
    /// The controller lets quarantined addresses go whose time is over.
    Over,
    Commit {
        agent: bool,
        fate: Fate,
    },
    /// Nobody waits any more for the oldest ask.
    Forget {
        agent: bool,
    },
    Restart {
        agent: bool,
    },
    /// The original's agent allocates: it knows Pods and uids only.
    Foreign {
        pod: u8,
    },
    /// The original writes the pool and drops what it does not know.
    Strip,
    /// A person edits the pool, and the controller admits it or not.
    Edit {
        ips: u16,
        excluded: u16,
        gateway: Option<u8>,
        admit: bool,
    },
    Reserve {
        ips: u16,
    },
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Stored,
    /// It was stored, but the agent hears nothing.
    Unheard,
    /// It never arrived.
    Lost,
}

fn ops() -> impl Strategy<Value = Op> {
    let fates =
        prop_oneof![6 => Just(Fate::Stored), 1 => Just(Fate::Unheard), 1 => Just(Fate::Lost)];
    prop_oneof![
        8 => (0_u8..6, prop::bool::weighted(0.2), 0_u8..3, any::<bool>())
            .prop_map(|(pod, nic, sandbox, first)| Op::Claim { pod, nic, sandbox, first }),
        3 => (any::<bool>(), 0_u8..6, prop::bool::weighted(0.2))
            .prop_map(|(agent, pod, nic)| Op::Early { agent, pod, nic }),
        6 => (any::<bool>(), 0_u8..9, prop::bool::weighted(0.2), 0_u8..8, 0_u8..3)
            .prop_map(|(agent, pod, nic, sandboxes, owner)| {
                Op::Release { agent, pod, nic, sandboxes, owner }
            }),
        4 => (0_u8..6, prop::bool::weighted(0.1), 0_u8..3, 0_u8..8)
            .prop_map(|(pod, nic, sandbox, address)| Op::Conflict { pod, nic, sandbox, address }),
        1 => Just(Op::Over),
        8 => (any::<bool>(), fates).prop_map(|(agent, fate)| Op::Commit { agent, fate }),
        1 => any::<bool>().prop_map(|agent| Op::Forget { agent }),
        1 => any::<bool>().prop_map(|agent| Op::Restart { agent }),
        1 => (6_u8..9).prop_map(|pod| Op::Foreign { pod }),
        1 => Just(Op::Strip),
        2 => (any::<u16>(), any::<u16>(), prop::option::of(0_u8..8), prop::bool::weighted(0.8))
            .prop_map(|(ips, few, gateway, admit)| {
                Op::Edit { ips: ips & 0xff, excluded: few & 0x11, gateway, admit }
            }),
        1 => any::<u16>().prop_map(|ips| Op::Reserve { ips: ips & 0x24 }),
    ]
}

fn address(bit: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, bit).into()
}

fn set(mask: u16) -> AddrSet {
    (0..16_u8)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(address)
        .collect()
}

fn uid(pod: u8) -> Uid {
    Uid::new(format!("uid-{pod}"))
}

fn claim(pod: u8, nic: bool, sandbox: u8) -> Claim {
    let name = PodName::new("shop", &format!("p{pod}"));
    Claim {
        pod: PodFacts {
            pod: name,
            labels: BTreeMap::new(),
            node: NodeName::new(format!("n{}", pod % 2)),
            node_labels: Ok(BTreeMap::new()),
            namespace_labels: Ok(BTreeMap::new()),
            workload: WorkloadId {
                group: String::new(),
                version: "v1".into(),
                kind: "Pod".into(),
                namespace: "shop".into(),
                name: format!("p{pod}"),
                uid: uid(pod),
            },
            attachment: ipam::attachment::Attachment::of(
                &"eth0".into(),
                &ipam::attachment::Networks::default(),
            ),
        },
        uid: uid(pod),
        nic: interface(nic),
        sandbox: Some(Sandbox::new(format!("s{sandbox}"))),
        first: false,
        heritage: None,
    }
}

fn interface(second: bool) -> Nic {
    Nic::from(if second { "net1" } else { "eth0" })
}

fn is_nobodys(record: &Record) -> bool {
    record.uid.as_str() == "quarantined"
}

/// What a person would say: does this sandbox hold the address?
fn may_quarantine(conflict: &Conflict, address: IpAddr, old: &Record) -> bool {
    conflict.address == address
        && old.uid == conflict.uid
        && old.nic.as_ref() == Some(&conflict.nic)
        && old.sandbox.as_ref() == Some(&conflict.sandbox)
}

/// What a person would say: may this record go by this release?
fn may_go(release: &Release, old: &Record) -> bool {
    let whose =
        old.uid == release.uid && (old.nic.is_none() || old.nic == Some(release.nic.clone()));
    let is_gone = release.owner == Owner::Gone;
    let let_go = match &old.sandbox {
        Some(sandbox) => release.sandboxes.contains(sandbox) && (old.nic.is_some() || is_gone),
        None => is_gone,
    };
    whose && let_go
}

fn start() -> Pool {
    common::pool(set(0x3e))
}

type Naive = BTreeMap<IpAddr, Record>;

fn naive(records: &Records) -> Naive {
    records
        .iter()
        .map(|(address, record)| (address, record.clone()))
        .collect()
}

struct Fight {
    server: Pool,
    reserved: AddrSet,
    agents: [PoolLedger; AGENTS],
    asked: [BTreeMap<AskId, Ask>; AGENTS],
    next: AskId,
}

impl Fight {
    fn new() -> Self {
        Self {
            server: start(),
            reserved: AddrSet::new(),
            agents: [PoolLedger::new(start()), PoolLedger::new(start())],
            asked: [BTreeMap::new(), BTreeMap::new()],
            next: 0,
        }
    }

    fn happen(&mut self, op: &Op) {
        match op.clone() {
            Op::Claim {
                pod,
                nic,
                sandbox,
                first,
            } => {
                let claim = Claim {
                    first,
                    ..claim(pod, nic, sandbox)
                };
                self.ask(usize::from(pod) % 2, Ask::Claim(Box::new(claim)));
            }
            Op::Early { agent, pod, nic } => {
                let claim = Claim {
                    sandbox: None,
                    ..claim(pod, nic, 0)
                };
                self.ask(usize::from(agent), Ask::Claim(Box::new(claim)));
            }
            Op::Release {
                agent,
                pod,
                nic,
                sandboxes,
                owner,
            } => {
                let named = (0..3).filter(|bit| sandboxes & (1 << bit) != 0);
                let release = Release {
                    node: None,
                    uid: uid(pod),
                    nic: interface(nic),
                    owner: [Owner::Gone, Owner::Ending, Owner::Served][usize::from(owner)],
                    sandboxes: named.map(|s| Sandbox::new(format!("s{s}"))).collect(),
                    keep_for: None,
                };
                self.ask(usize::from(agent), Ask::Release(release));
            }
            Op::Conflict {
                pod,
                nic,
                sandbox,
                address: bit,
            } => {
                let conflict = Conflict {
                    address: address(bit),
                    uid: uid(pod),
                    nic: interface(nic),
                    sandbox: Sandbox::new(format!("s{sandbox}")),
                    quarantine: Quarantine {
                        mac: "02:00:00:00:00:01".to_owned(),
                        until: DateTime::UNIX_EPOCH,
                    },
                };
                self.ask(usize::from(pod) % 2, Ask::Quarantine(Box::new(conflict)));
            }
            Op::Over => {
                let mut records = self.server.records.clone();
                for (address, record) in naive(&self.server.records) {
                    if is_nobodys(&record) {
                        records.remove(address);
                    }
                }
                self.write(records);
            }
            Op::Commit { agent, fate } => self.commit(usize::from(agent), fate),
            Op::Forget { agent } => {
                let agent = usize::from(agent);
                if let Some((id, _)) = self.asked[agent].pop_first() {
                    self.agents[agent].forget(id);
                }
            }
            Op::Restart { agent } => {
                self.asked[usize::from(agent)].clear();
                self.agents[usize::from(agent)] = PoolLedger::new(self.server.clone());
            }
            Op::Foreign { pod } => self.foreign(pod),
            Op::Strip => self.strip(),
            Op::Edit {
                ips,
                excluded,
                gateway,
                admit,
            } => {
                self.server.ips = set(ips);
                self.server.excluded = set(excluded);
                self.server.gateway = gateway.map(address);
                if admit {
                    self.server.admitted = Some(self.server.admission_hash());
                }
                self.bump();
            }
            Op::Reserve { ips } => self.reserved = set(ips),
        }
    }

    fn strip(&mut self) {
        let mut records = Records::default();
        for (address, old) in naive(&self.server.records) {
            let other = BTreeMap::new();
            let record = Record {
                nic: None,
                node: None,
                sandbox: None,
                owner: None,
                kept: false,
                quarantine: None,
                other,
                ..old
            };
            records.insert(address, record);
        }
        self.write(records);
    }

    fn ask(&mut self, agent: usize, ask: Ask) {
        self.next += 1;
        self.asked[agent].insert(self.next, ask.clone());
        self.agents[agent].queue(self.next, ask);
    }

    fn bump(&mut self) {
        let version: u64 = self.server.version.as_str().parse().unwrap();
        self.server.version = Version::new((version + 1).to_string());
    }

    fn write(&mut self, records: Records) {
        self.server.records = records;
        self.bump();
    }

    fn foreign(&mut self, pod: u8) {
        let taken = naive(&self.server.records);
        let mut free = self
            .server
            .total()
            .iter()
            .filter(|a| !taken.contains_key(a))
            .collect::<Vec<_>>();
        free.retain(|a| !self.reserved.contains(*a));
        let Some(address) = free.first() else { return };
        let mut records = self.server.records.clone();
        records.insert(
            *address,
            Record {
                pod: PodName::new("shop", &format!("p{pod}")),
                uid: uid(pod),
                nic: None,
                node: None,
                sandbox: None,
                owner: None,
                machine: None,
                instance: None,
                next: None,
                kept: false,
                quarantine: None,
                other: [("theirs".to_owned(), serde_json::json!(true))].into(),
            },
        );
        self.write(records);
    }

    fn commit(&mut self, agent: usize, fate: Fate) {
        let Some(batch) = self.agents[agent].batch(&self.reserved) else {
            assert_eq!(self.agents[agent].waiting(), 0);
            return;
        };
        let seen = self.agents[agent].pool().clone();
        let (before, after) = (naive(&seen.records), naive(batch.records()));
        assert_eq!(
            batch.changed(),
            before != after,
            "a batch changes just what it says"
        );
        if !batch.changed() {
            let answers = self.agents[agent].committed(batch, seen.version.clone());
            self.check(agent, &seen, &before, &after, answers);
            return;
        }
        let arrives = !matches!(fate, Fate::Lost) && seen.version == self.server.version;
        if arrives {
            self.write(batch.records().clone());
        }
        if arrives && matches!(fate, Fate::Stored) {
            let version = self.server.version.clone();
            let answers = self.agents[agent].committed(batch, version);
            self.check(agent, &seen, &before, &after, answers);
        } else {
            // Conflict or unknown: look live. Nothing was promised.
            self.check_changes(agent, &seen, &before, &after);
            self.agents[agent].refresh(self.server.clone());
        }
    }

    /// Every change has an ask that wants it; nothing else is touched.
    fn check_changes(&self, agent: usize, pool: &Pool, before: &Naive, after: &Naive) {
        let asks: Vec<&Ask> = self.asked[agent].values().collect();
        let addresses: BTreeSet<IpAddr> = before.keys().chain(after.keys()).copied().collect();
        for address in addresses {
            let (old, new) = (before.get(&address), after.get(&address));
            if old == new {
                continue;
            }
            let freed = |old: &Record| {
                asks.iter().any(|ask| match ask {
                    Ask::Release(r) => may_go(r, old),
                    Ask::Claim(_) | Ask::Quarantine(_) => false,
                })
            };
            let quarantined = |old: &Record| {
                asks.iter().any(|ask| match ask {
                    Ask::Quarantine(c) => may_quarantine(c, address, old),
                    Ask::Claim(_) | Ask::Release(_) => false,
                })
            };
            let claimed = |new: &Record| {
                asks.iter().any(|ask| match ask {
                    Ask::Claim(c) => {
                        c.uid == new.uid
                            && Some(&c.nic) == new.nic.as_ref()
                            && c.sandbox == new.sandbox
                            && (c.sandbox.is_some()
                                || old.is_none_or(|old| old.uid != c.uid || freed(old)))
                    }
                    Ask::Release(_) | Ask::Quarantine(_) => false,
                })
            };
            match (old, new) {
                (Some(old), _) if is_nobodys(old) => panic!("{address} left quarantine: {new:?}"),
                (Some(old), Some(new)) if is_nobodys(new) => {
                    assert!(quarantined(old) && old.other == new.other && old.pod == new.pod);
                    assert!(new.nic.is_none() && new.sandbox.is_none() && new.node.is_none());
                }
                (Some(old), None) => assert!(freed(old), "{address} of {old:?} went unasked"),
                (Some(old), Some(new)) if old.uid == new.uid && old.nic.is_none() => {
                    assert!(claimed(new) && old.other == new.other);
                }
                (Some(old), Some(new)) => {
                    let taken_over =
                        old.uid == new.uid && old.nic == new.nic && old.other == new.other;
                    assert!(
                        claimed(new) && (taken_over || freed(old)),
                        "{old:?} became {new:?}"
                    );
                    assert!(taken_over || self.may_give(pool, address));
                }
                (None, Some(new)) => {
                    assert!(claimed(new), "{new:?} was not asked for");
                    assert!(self.may_give(pool, address), "{address} was not to give");
                }
                (None, None) => {}
            }
        }
    }

    fn may_give(&self, pool: &Pool, address: IpAddr) -> bool {
        pool.ips.contains(address)
            && !pool.excluded.contains(address)
            && !self.reserved.contains(address)
            && pool.gateway != Some(address)
            && pool.is_admitted()
    }

    /// Every ask is answered, and every answer is what is stored.
    fn check(
        &mut self,
        agent: usize,
        pool: &Pool,
        before: &Naive,
        after: &Naive,
        answers: Vec<(AskId, Answer)>,
    ) {
        self.check_changes(agent, pool, before, after);
        let answered: Vec<AskId> = answers.iter().map(|(id, _)| *id).collect();
        assert_eq!(
            answered.iter().collect::<BTreeSet<_>>().len(),
            answered.len()
        );
        let asked = std::mem::take(&mut self.asked[agent]);
        assert_eq!(
            asked.keys().copied().collect::<BTreeSet<_>>(),
            answered.into_iter().collect()
        );
        let went = |old: &Record| {
            asked.values().any(|ask| match ask {
                Ask::Release(r) => may_go(r, old),
                Ask::Claim(_) | Ask::Quarantine(_) => false,
            })
        };
        let mut freed = BTreeMap::new();
        for (id, answer) in answers {
            match (&asked[&id], answer) {
                (Ask::Claim(claim), Answer::Claim(Ok(grant))) => {
                    let stored = &after[&grant.address];
                    assert_eq!(stored.uid, claim.uid);
                    if claim.sandbox.is_some() {
                        assert_eq!(Some(&claim.nic), stored.nic.as_ref());
                        assert_eq!(Some(&grant.node), stored.node.as_ref());
                        assert!(!grant.early || claim.first, "it may be a later one");
                    }
                    let own = before.iter().filter(|(_, r)| {
                        r.uid == claim.uid && r.nic.as_ref() == Some(&claim.nic) && !went(r)
                    });
                    let own = own.filter(|(address, _)| !is_nobodys(&after[*address]));
                    for (address, _) in own {
                        assert_eq!(*address, grant.address, "a Pod keeps its address");
                    }
                }
                (Ask::Claim(_), Answer::Claim(Err(ClaimError::Exhausted(Exhausted::UsedOut)))) => {
                    let free = (0..16).map(address).filter(|a| !after.contains_key(a));
                    assert!(
                        free.into_iter().all(|a| !self.may_give(pool, a)),
                        "some are free"
                    );
                }
                (Ask::Claim(_), Answer::Claim(Err(ClaimError::Refused(_)))) => {
                    assert!(!pool.is_admitted());
                }
                (Ask::Release(release), Answer::Release(released)) => {
                    for address in released.freed {
                        assert!(may_go(release, &before[&address]));
                        assert!(freed.insert(address, id).is_none(), "freed twice");
                    }
                    let left = before.iter().filter(|(_, old)| {
                        let whose = old.nic.is_none() || old.nic.as_ref() == Some(&release.nic);
                        old.uid == release.uid && whose && !went(old)
                    });
                    let told = released.in_use + released.until_gone;
                    assert!(told >= left.count(), "a record was passed over in silence");
                }
                (Ask::Quarantine(conflict), Answer::Quarantine(ruling)) => {
                    let old = before.get(&conflict.address);
                    let its = old.is_some_and(|old| {
                        may_quarantine(conflict, conflict.address, old) && !went(old)
                    });
                    let now = after.get(&conflict.address);
                    match ruling {
                        Ruling::Quarantined => assert!(now.is_some_and(is_nobodys)),
                        // Of two that say the same the second finds it done.
                        Ruling::NotIts => assert!(
                            !its || now.is_some_and(is_nobodys),
                            "a conflict was passed over in silence"
                        ),
                        Ruling::Fixed => panic!("nothing is fixed here"),
                    }
                }
                (ask, answer) => panic!("{ask:?} got {answer:?}"),
            }
        }
        for (address, old) in before {
            assert_eq!(
                freed.contains_key(address),
                went(old),
                "{address} of {old:?}"
            );
        }
        let mut of_nic = BTreeSet::new();
        for record in after.values() {
            let named = record.nic.clone().map(|nic| (record.uid.clone(), nic));
            assert!(
                named.is_none_or(|key| of_nic.insert(key)),
                "two addresses for one interface"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.saturating_mul(2),
        failure_persistence: Some(Box::new(
            FileFailurePersistence::Direct("tests/ledger_model.proptest-regressions"),
        )),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_fight_breaks_a_pool(ops in prop::collection::vec(ops(), 1..120)) {
        let mut fight = Fight::new();
        for op in &ops {
            fight.happen(op);
        }
        // In the end everybody is answered.
        for agent in 0..AGENTS {
            fight.commit(agent, Fate::Lost);
            fight.commit(agent, Fate::Stored);
            prop_assert_eq!(fight.agents[agent].waiting(), 0);
        }
    }
}
