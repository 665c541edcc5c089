//! Pods of a StatefulSet and of a virtual machine over two nodes: they come and go, the machine is
//! moved, nodes are lost, the set is scaled, both are made anew, writes conflict and are lost. At
//! every durable grant: nobody else still uses the address, but the other Pod of the same run of the
//! machine, and an identity whose address was never let go for good has it again. At every write:
//! whoever runs with an address is recorded for it.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may fail by panic"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipam::addr::AddrSet;
use ipam::attachment::{Attachment, Networks};
use ipam::keep::{self, Heritage, Keeper, Lineage, Machine, MachineKind, Ordinals, Role};
use ipam::ledger::{Answer, Ask, Claim, PoolLedger};
use ipam::name::{Nic, NodeName, PodName, Sandbox, Uid, Version, WorkloadId};
use ipam::pool::Pool;
use ipam::record::Records;
use ipam::release::{Owner, Release};
use ipam::select::PodFacts;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const NODES: usize = 2;
const PODS: u8 = 3;
/// The machine, among the ordinals.
const MACHINE: u8 = PODS;

#[derive(Debug, Clone)]
enum Op {
    /// A new Pod of this ordinal on a node, in place of the one there, which is deleted by force.
    Start {
        ordinal: u8,
        node: bool,
    },
    /// The machine is stopped, and started in a new Pod on a node.
    Boot {
        node: bool,
    },
    /// A Pod for the machine to move to, on a node, if it runs and is not being moved.
    Migrate {
        node: bool,
    },
    /// It has moved, or the move failed: the other Pod is deleted.
    Migrated {
        succeeded: bool,
    },
    /// The runtime calls ADD for the first or last Pod of this ordinal, if its node works.
    Add {
        ordinal: u8,
        newest: bool,
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
    /// Another machine of the same name.
    MachineAnew,
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
        4 => any::<bool>().prop_map(|node| Op::Boot { node }),
        6 => any::<bool>().prop_map(|node| Op::Migrate { node }),
        2 => any::<bool>().prop_map(|succeeded| Op::Migrated { succeeded }),
        14 => (0..=MACHINE, any::<bool>()).prop_map(|(ordinal, newest)| Op::Add { ordinal, newest }),
        6 => any::<u8>().prop_map(|nth| Op::End { nth }),
        1 => any::<bool>().prop_map(|node| Op::Lose { node }),
        1 => any::<bool>().prop_map(|node| Op::Return { node }),
        1 => (0..=PODS).prop_map(|count| Op::Scale { count }),
        1 => Just(Op::Anew),
        1 => Just(Op::MachineAnew),
        9 => (any::<bool>(), prop::bool::weighted(0.85))
            .prop_map(|(agent, arrives)| Op::Commit { agent, arrives }),
        2 => any::<bool>().prop_map(|agent| Op::Refresh { agent }),
    ]
}

/// A Pod that is there, or whose sandbox is.
#[derive(Debug, Clone)]
struct Instance {
    uid: Uid,
    name: PodName,
    lineage: Lineage,
    run: Option<keep::Instance>,
    /// Its ordinal, or [`MACHINE`].
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
    machine: Keeper,
    next: u64,
}

fn start() -> Pool {
    common::pool((1..=5).map(address).collect())
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

fn ordinals(count: u8) -> Ordinals {
    Ordinals {
        start: 0,
        count: count.into(),
    }
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
                ordinals: Some(ordinals(PODS)),
            },
            machine: Keeper {
                uid: Uid::from("vm-0"),
                terminating: false,
                ordinals: None,
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
                let ordinals = self.set.ordinals;
                let wanted = ordinals.is_some_and(|all| all.contains(ordinal.into()));
                self.delete(|pod| pod.ordinal == ordinal);
                if wanted {
                    let lineage = Lineage::of_set(self.set.uid.clone());
                    self.start(ordinal, node, lineage, None);
                }
            }
            Op::Boot { node } => {
                self.delete(|pod| pod.ordinal == MACHINE);
                let run = Uid::new(format!("run-{}", self.number()));
                self.launch(node, run, Role::Start);
            }
            Op::Migrate { node } => {
                let of_machine: Vec<&Instance> = self.machine_s_pods().collect();
                if let [source] = of_machine.as_slice()
                    && let Some(run) = source.run.clone()
                {
                    self.launch(node, run.uid, Role::MigrationTarget);
                }
            }
            Op::Migrated { succeeded } => {
                let of_machine: Vec<Uid> = self.machine_s_pods().map(|p| p.uid.clone()).collect();
                if let [source, target] = of_machine.as_slice() {
                    let ends = if succeeded { source } else { target };
                    self.delete(|pod| pod.uid == *ends);
                }
            }
            Op::Add { ordinal, newest } => self.add(ordinal, newest),
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
                self.set.ordinals = Some(ordinals(count));
                self.delete(|pod| (count..PODS).contains(&pod.ordinal));
            }
            Op::Anew => {
                self.set.uid = Uid::new(format!("set-{}", self.number()));
                self.delete(|pod| pod.ordinal < PODS);
            }
            Op::MachineAnew => {
                self.machine.uid = Uid::new(format!("vm-{}", self.number()));
                self.delete(|pod| pod.ordinal == MACHINE);
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

    /// The machine's Pods that are there: where it runs, and where it is moved to.
    fn machine_s_pods(&self) -> impl Iterator<Item = &Instance> {
        let pods = self.instances.iter();
        pods.filter(|pod| pod.is_there && pod.ordinal == MACHINE)
    }

    fn launch(&mut self, node: bool, uid: Uid, role: Role) {
        let lineage = Lineage {
            owner: self.machine.uid.clone(),
            machine: Some(Machine {
                kind: MachineKind::VirtualMachine,
                name: "db".to_owned(),
            }),
        };
        let run = keep::Instance { uid, role };
        self.start(MACHINE, node, lineage, Some(run));
    }

    fn start(&mut self, ordinal: u8, node: bool, lineage: Lineage, run: Option<keep::Instance>) {
        let node = usize::from(node);
        if self.lost[node] {
            return;
        }
        let number = self.number();
        let name = match run {
            Some(_) => PodName::new("shop", &format!("virt-launcher-db-{number}")),
            None => PodName::new("shop", &format!("web-{ordinal}")),
        };
        self.instances.push(Instance {
            uid: Uid::new(format!("pod-{number}")),
            name,
            lineage,
            run,
            ordinal,
            node,
            is_there: true,
            runs: false,
            address: None,
        });
    }

    fn add(&mut self, ordinal: u8, newest: bool) {
        let lost = self.lost;
        let pods = self.instances.iter_mut();
        let mut found =
            pods.filter(|pod| pod.is_there && pod.ordinal == ordinal && !lost[pod.node]);
        let found = if newest {
            found.next_back()
        } else {
            found.next()
        };
        let Some(pod) = found else { return };
        pod.runs = true;
        let pod = pod.clone();
        let workload = WorkloadId {
            group: "apps".into(),
            version: "v1".into(),
            kind: "StatefulSet".into(),
            namespace: "shop".into(),
            name: "web".into(),
            uid: pod.lineage.owner.clone(),
        };
        // What the shell has seen: former Pods on nodes that are lost.
        let let_go = self.instances.iter().filter(|p| lost[p.node]);
        let claim = Claim {
            pod: PodFacts {
                pod: pod.name.clone(),
                labels: BTreeMap::new(),
                node: NodeName::new(format!("n{}", pod.node)),
                node_labels: Ok(BTreeMap::new()),
                namespace_labels: Ok(BTreeMap::new()),
                workload,
                attachment: Attachment::of(&"eth0".into(), &Networks::default()),
            },
            uid: pod.uid.clone(),
            nic: Nic::from("eth0"),
            sandbox: Some(Sandbox::new(format!("s-{}", pod.uid))),
            first: false,
            heritage: Some(Heritage {
                lineage: pod.lineage.clone(),
                instance: pod.run.clone(),
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
        let keeper = match pod.lineage.machine {
            Some(_) => &self.machine,
            None => &self.set,
        };
        let wanted = keep::unwanted(&pod.name, &pod.lineage.owner, Some(keeper)).is_none();
        let release = Release {
            node: None,
            uid: pod.uid.clone(),
            nic: Nic::from("eth0"),
            owner: Owner::Gone,
            sandboxes: [Sandbox::new(format!("s-{}", pod.uid))].into(),
            keep_for: wanted.then_some(pod.lineage),
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
        for pod in self.instances.iter().filter(|pod| pod.runs) {
            let Some(address) = pod.address else { continue };
            let record = self.server.records.get(address);
            let is_recorded = record.is_some_and(|record| record.is_held_by(&pod.uid));
            assert!(is_recorded, "{} runs with {address}: {record:?}", pod.uid);
        }
    }

    fn granted(&mut self, before: &Records, claim: &Claim, address: IpAddr) {
        let heritage = claim.heritage.as_ref().unwrap();
        let run = |of: Option<&keep::Instance>| of.map(|of| of.uid.clone());
        let own_run = run(heritage.instance.as_ref());
        let is_shared = |pod: &Instance| own_run.is_some() && run(pod.run.as_ref()) == own_run;
        let users: BTreeSet<&Uid> = self
            .instances
            .iter()
            .filter(|pod| pod.runs && pod.address == Some(address) && pod.uid != claim.uid)
            .filter(|pod| !is_shared(pod))
            .map(|pod| &pod.uid)
            .collect();
        assert!(
            users.is_empty(),
            "{address} of {users:?} was given to {}",
            claim.uid
        );
        let own = before.iter().filter(|(_, record)| {
            let is_named = record.pod == claim.pod.pod || own_run.is_some();
            is_named && record.owner.as_ref() == Some(&heritage.lineage.owner)
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
