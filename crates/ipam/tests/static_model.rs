//! StatefulSet Pods over two nodes: they come and go, nodes are lost, the set is scaled and made
//! anew, writes conflict and are lost. At every durable grant: nobody else still uses the address,
//! and an identity whose address was never let go for good has it again.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may fail by panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipam::addr::AddrSet;
use ipam::attachment::{Attachment, Networks};
use ipam::keep::{self, Heritage, Keeper, Ordinals};
use ipam::ledger::{Answer, Ask, Claim, PoolLedger};
use ipam::name::{Nic, NodeName, PodName, PoolName, Sandbox, Uid, Version, WorkloadId};
use ipam::pool::{Pool, Restrictions};
use ipam::record::Records;
use ipam::release::{Owner, Release};
use ipam::select::PodFacts;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const NODES: usize = 2;
const PODS: u8 = 3;

#[derive(Debug, Clone)]
enum Op {
    /// A new Pod of this ordinal on a node, in place of the one there, which is deleted by force.
    Start {
        ordinal: u8,
        node: bool,
    },
    /// The runtime calls ADD for the Pod of this ordinal, if its node works.
    Add {
        ordinal: u8,
    },
    /// Some sandbox of a Pod that is gone ends, and its node's agent is told.
    End {
        nth: u8,
    },
    /// A node is lost and so declared: all on it has ended.
    Lose {
        node: bool,
    },
    /// It is back, empty.
    Return {
        node: bool,
    },
    Scale {
        count: u8,
    },
    /// Another StatefulSet of the same name.
    Anew,
    /// An agent writes its batch; whether the write arrives.
    Commit {
        agent: bool,
        arrives: bool,
    },
    /// An agent looks at the pool anew.
    Refresh {
        agent: bool,
    },
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..PODS, any::<bool>()).prop_map(|(ordinal, node)| Op::Start { ordinal, node }),
        8 => (0..PODS).prop_map(|ordinal| Op::Add { ordinal }),
        6 => any::<u8>().prop_map(|nth| Op::End { nth }),
        1 => any::<bool>().prop_map(|node| Op::Lose { node }),
        1 => any::<bool>().prop_map(|node| Op::Return { node }),
        1 => (0..=PODS).prop_map(|count| Op::Scale { count }),
        1 => Just(Op::Anew),
        9 => (any::<bool>(), prop::bool::weighted(0.85))
            .prop_map(|(agent, arrives)| Op::Commit { agent, arrives }),
        2 => any::<bool>().prop_map(|agent| Op::Refresh { agent }),
    ]
}

/// A Pod that is there, or whose sandbox is.
#[derive(Debug, Clone)]
struct Instance {
    uid: Uid,
    set: Uid,
    ordinal: u8,
    node: usize,
    /// Its object is there.
    is_there: bool,
    /// Its sandbox is; from the first ADD on it may use what it was given.
    runs: bool,
    /// What it was durably given.
    address: Option<IpAddr>,
}

struct Cluster {
    server: Pool,
    agents: [PoolLedger; NODES],
    /// What each agent was asked and has not answered.
    asked: [BTreeMap<u64, Ask>; NODES],
    lost: [bool; NODES],
    instances: Vec<Instance>,
    set: Keeper,
    next: u64,
}

fn start() -> Pool {
    let pool = Pool {
        name: PoolName::from("a"),
        uid: Uid::from("u"),
        version: Version::from("0"),
        created: None,
        cidr: "10.0.0.0/24".parse().unwrap(),
        ips: (1..=4).map(address).collect(),
        excluded: AddrSet::new(),
        gateway: None,
        routes: vec![],
        restrictions: Restrictions::default(),
        default: false,
        disabled: false,
        terminating: false,
        finalizer: true,
        owner: None,
        adopted_by: None,
        admitted: None,
        rule: None,
        epoch: 0,
        records: Records::default(),
    };
    Pool {
        admitted: Some(pool.admission_hash()),
        ..pool
    }
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

fn name(ordinal: u8) -> PodName {
    PodName::new("shop", &format!("web-{ordinal}"))
}

impl Cluster {
    fn new() -> Self {
        Self {
            server: start(),
            agents: [PoolLedger::new(start()), PoolLedger::new(start())],
            asked: [BTreeMap::new(), BTreeMap::new()],
            lost: [false; NODES],
            instances: vec![],
            set: Keeper {
                uid: Uid::from("set-0"),
                terminating: false,
                ordinals: Ordinals {
                    start: 0,
                    count: PODS.into(),
                },
            },
            next: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn happen(&mut self, op: &Op) {
        match *op {
            Op::Start { ordinal, node } => {
                let wanted = self.set.ordinals.contains(ordinal.into());
                self.delete(|pod| pod.ordinal == ordinal);
                if wanted && !self.lost[usize::from(node)] {
                    let uid = Uid::new(format!("pod-{}", self.number()));
                    self.instances.push(Instance {
                        uid,
                        set: self.set.uid.clone(),
                        ordinal,
                        node: usize::from(node),
                        is_there: true,
                        runs: false,
                        address: None,
                    });
                }
            }
            Op::Add { ordinal } => self.add(ordinal),
            Op::End { nth } => self.end(nth),
            Op::Lose { node } => {
                let node = usize::from(node);
                self.lost[node] = true;
                self.asked[node].clear();
                self.delete(|pod| pod.node == node);
                for pod in self.instances.iter_mut().filter(|pod| pod.node == node) {
                    pod.runs = false;
                }
            }
            Op::Return { node } => {
                self.lost[usize::from(node)] = false;
                self.agents[usize::from(node)] = PoolLedger::new(self.server.clone());
            }
            Op::Scale { count } => {
                self.set.ordinals.count = count.into();
                self.delete(|pod| pod.ordinal >= count);
            }
            Op::Anew => {
                self.set.uid = Uid::new(format!("set-{}", self.number()));
                self.delete(|_| true);
            }
            Op::Commit { agent, arrives } => self.commit(usize::from(agent), arrives),
            Op::Refresh { agent } => {
                self.agents[usize::from(agent)].refresh(self.server.clone());
            }
        }
    }

    /// The objects go; the sandboxes go on until their nodes hear of it.
    fn delete(&mut self, which: impl Fn(&Instance) -> bool) {
        for pod in self.instances.iter_mut().filter(|pod| which(pod)) {
            pod.is_there = false;
        }
    }

    fn add(&mut self, ordinal: u8) {
        let lost = self.lost;
        let found = self
            .instances
            .iter_mut()
            .find(|pod| pod.is_there && pod.ordinal == ordinal && !lost[pod.node]);
        let Some(pod) = found else { return };
        pod.runs = true;
        let pod = pod.clone();
        let workload = WorkloadId {
            group: "apps".into(),
            version: "v1".into(),
            kind: "StatefulSet".into(),
            namespace: "shop".into(),
            name: "web".into(),
            uid: pod.set.clone(),
        };
        // What the shell has seen: former Pods on nodes that are lost.
        let let_go = self.instances.iter().filter(|p| lost[p.node]);
        let claim = Claim {
            pod: PodFacts {
                pod: name(ordinal),
                labels: BTreeMap::new(),
                node: NodeName::new(format!("n{}", pod.node)),
                node_labels: Ok(BTreeMap::new()),
                namespace_labels: Ok(BTreeMap::new()),
                workload,
                attachment: Attachment::of(&"eth0".into(), &Networks::default()),
            },
            uid: pod.uid.clone(),
            nic: Nic::from("eth0"),
            sandbox: Sandbox::new(format!("s-{}", pod.uid)),
            heritage: Some(Heritage {
                owner: pod.set.clone(),
                former: None,
                let_go: let_go.map(|p| p.uid.clone()).collect(),
            }),
        };
        self.ask(pod.node, Ask::Claim(Box::new(claim)));
    }

    fn end(&mut self, nth: u8) {
        let lost = self.lost;
        let mut ending: Vec<&mut Instance> = self
            .instances
            .iter_mut()
            .filter(|pod| !pod.is_there && pod.runs && !lost[pod.node])
            .collect();
        if ending.is_empty() {
            return;
        }
        let nth = usize::from(nth) % ending.len();
        ending[nth].runs = false;
        let pod = ending[nth].clone();
        let wanted = keep::unwanted(&name(pod.ordinal), &pod.set, Some(&self.set)).is_none();
        let release = Release {
            node: None,
            uid: pod.uid.clone(),
            nic: Nic::from("eth0"),
            owner: Owner::Gone,
            sandboxes: [Sandbox::new(format!("s-{}", pod.uid))].into(),
            keep_for: wanted.then_some(pod.set),
        };
        self.ask(pod.node, Ask::Release(release));
    }

    fn ask(&mut self, agent: usize, ask: Ask) {
        let id = self.number();
        self.asked[agent].insert(id, ask.clone());
        self.agents[agent].queue(id, ask);
    }

    fn commit(&mut self, agent: usize, arrives: bool) {
        if self.lost[agent] {
            return;
        }
        let Some(batch) = self.agents[agent].batch(&AddrSet::new()) else {
            return;
        };
        let is_current = self.agents[agent].pool().version == self.server.version;
        if !is_current || !arrives {
            self.agents[agent].refresh(self.server.clone());
            return;
        }
        // What goes for good in this very batch is nobody's any more.
        let going: BTreeSet<Uid> = self.asked[agent]
            .values()
            .filter_map(|ask| match ask {
                Ask::Release(release) if release.keep_for.is_none() => Some(release.uid.clone()),
                Ask::Release(_) | Ask::Claim(_) | Ask::Quarantine(_) => None,
            })
            .collect();
        let mut before = self.server.records.clone();
        for (address, record) in self.server.records.iter() {
            if going.contains(&record.uid) {
                before.remove(address);
            }
        }
        if batch.changed() {
            let version: u64 = self.server.version.as_str().parse().unwrap();
            self.server.version = Version::new((version + 1).to_string());
            self.server.records = batch.records().clone();
        }
        let version = self.server.version.clone();
        for (id, answer) in self.agents[agent].committed(batch, version) {
            let asked = self.asked[agent].remove(&id);
            if let (Some(Ask::Claim(claim)), Answer::Claim(Ok(grant))) = (asked, answer) {
                self.granted(&before, &claim, grant.address);
            }
        }
    }

    fn granted(&mut self, before: &Records, claim: &Claim, address: IpAddr) {
        let users: BTreeSet<&Uid> = self
            .instances
            .iter()
            .filter(|pod| pod.runs && pod.address == Some(address) && pod.uid != claim.uid)
            .map(|pod| &pod.uid)
            .collect();
        assert!(
            users.is_empty(),
            "{address} of {users:?} was given to {}",
            claim.uid
        );
        let heritage = claim.heritage.as_ref().unwrap();
        let own = before.iter().filter(|(_, record)| {
            record.pod == claim.pod.pod && record.owner.as_ref() == Some(&heritage.owner)
        });
        for (was, _) in own {
            assert_eq!(was, address, "{} has another address", claim.pod.pod);
        }
        for pod in self.instances.iter_mut().filter(|pod| pod.uid == claim.uid) {
            pod.address = Some(address);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(
            FileFailurePersistence::Direct("tests/static_model.proptest-regressions"),
        )),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_address_has_two_users_and_no_identity_two_addresses(
        ops in prop::collection::vec(ops(), 1..150),
    ) {
        let mut cluster = Cluster::new();
        for op in &ops {
            cluster.happen(op);
        }
    }
}
