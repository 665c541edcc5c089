//! Nodes whose kubelets are paused, that lose their power and are declared lost or repaired, and
//! Pods on them that end in every way. Looks come whenever they like, with caches that are behind.
//! At every release: the Pod's sandbox is gone. When people have said what is lost: everything that
//! no agent looks after is free.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail by panic"
)]

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use ipam::collect::{
    Fate, Home, LostNodes, Policy, Seen, Sign, Standing, Suspects, Verdict, judge,
};
use ipam::keep::Lineage;
use ipam::leak::Holding;
use ipam::name::{Nic, NodeName, PodName, PoolName, Sandbox, Uid};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const NODES: u8 = 3;

/// What a record says of its Pod's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Node,
    /// Nothing, but the Pod's endpoint does.
    Endpoint,
    Nothing,
}

#[derive(Debug, Clone)]
enum Op {
    Start {
        node: u8,
        says: Says,
        fixed: bool,
    },
    Delete {
        nth: u8,
        by_force: bool,
        leaks: bool,
    },
    Pause {
        node: u8,
    },
    Resume {
        node: u8,
    },
    PowerOff {
        node: u8,
    },
    /// Boots it, as a machine that holds nothing.
    Repair {
        node: u8,
    },
    /// A person says that a machine without power is lost.
    Declare {
        node: u8,
        by_taint: bool,
    },
    Pass {
        minutes: i64,
    },
    /// A look, with the Pods as they were at the last but one moment, or as they are.
    Look {
        is_behind: bool,
    },
}

fn ops() -> impl Strategy<Value = Op> {
    let says = prop_oneof![
        4 => Just(Says::Node),
        1 => Just(Says::Endpoint),
        1 => Just(Says::Nothing)
    ];
    prop_oneof![
        6 => (0..NODES, says, prop::bool::weighted(0.3))
            .prop_map(|(node, says, fixed)| Op::Start { node, says, fixed }),
        5 => (any::<u8>(), any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(nth, by_force, leaks)| Op::Delete { nth, by_force, leaks }),
        2 => (0..NODES).prop_map(|node| Op::Pause { node }),
        1 => (0..NODES).prop_map(|node| Op::Resume { node }),
        2 => (0..NODES).prop_map(|node| Op::PowerOff { node }),
        1 => (0..NODES).prop_map(|node| Op::Repair { node }),
        2 => (0..NODES, any::<bool>()).prop_map(|(node, by_taint)| Op::Declare { node, by_taint }),
        5 => (1..8_i64).prop_map(|minutes| Op::Pass { minutes }),
        9 => prop::bool::weighted(0.3).prop_map(|is_behind| Op::Look { is_behind }),
    ]
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is on or off by itself")]
struct Machine {
    has_power: bool,
    is_paused: bool,
    /// Its Node object is there.
    is_known: bool,
    is_tainted: bool,
    is_ready: bool,
    since: i64,
}

#[derive(Debug, Clone)]
struct Pod {
    holding: Holding,
    node: u8,
    says: Says,
    fate: Fate,
    /// Its sandbox is there, with the address.
    runs: bool,
    /// Its DEL will be lost.
    leaks: bool,
}

struct World {
    minute: i64,
    machines: Vec<Machine>,
    /// Those that are recorded.
    pods: Vec<Pod>,
    started: u64,
    /// The fates as caches have them that are behind.
    before: BTreeMap<Uid, Fate>,
    suspects: Suspects,
    policy: Policy,
    asked: BTreeSet<PoolName>,
}

fn at(minute: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
}

fn name(node: u8) -> NodeName {
    NodeName::new(format!("n{node}"))
}

impl World {
    fn new(policy: Policy) -> Self {
        let machine = Machine {
            has_power: true,
            is_paused: false,
            is_known: true,
            is_tainted: false,
            is_ready: true,
            since: 0,
        };
        Self {
            minute: 0,
            machines: vec![machine; usize::from(NODES)],
            pods: vec![],
            started: 0,
            before: BTreeMap::new(),
            suspects: Suspects::default(),
            policy,
            asked: BTreeSet::new(),
        }
    }

    fn machine(&mut self, node: u8) -> &mut Machine {
        &mut self.machines[usize::from(node)]
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Start { node, says, fixed } => self.start(node, says, fixed),
            Op::Delete {
                nth,
                by_force,
                leaks,
            } => {
                let count = self.pods.len();
                if let Some(pod) = self.pods.get_mut(usize::from(nth) % count.max(1)) {
                    pod.leaks = leaks;
                    pod.fate = match pod.fate {
                        Fate::Lives if !by_force => Fate::Ends {
                            by: at(self.minute + 1),
                        },
                        Fate::Lives | Fate::Ends { .. } | Fate::Gone => Fate::Gone,
                    };
                }
            }
            Op::Pause { node } => self.machine(node).is_paused = true,
            Op::Resume { node } => self.machine(node).is_paused = false,
            Op::PowerOff { node } => {
                self.machine(node).has_power = false;
                for pod in self.pods.iter_mut().filter(|pod| pod.node == node) {
                    pod.runs = false;
                }
            }
            Op::Repair { node } if !self.machine(node).has_power => {
                let was_known = self.machine(node).is_known;
                let since = self.minute;
                let machine = self.machine(node);
                machine.has_power = true;
                machine.is_paused = false;
                machine.is_tainted = false;
                machine.is_known = true;
                if !was_known || !machine.is_ready {
                    machine.is_ready = true;
                    machine.since = since;
                }
            }
            Op::Declare { node, by_taint } if !self.machine(node).has_power => {
                if by_taint {
                    self.machine(node).is_tainted = true;
                } else {
                    self.machine(node).is_known = false;
                }
            }
            Op::Repair { .. } | Op::Declare { .. } => {}
            Op::Pass { minutes } => (0..minutes).for_each(|_| self.pass()),
            Op::Look { is_behind } => self.look(is_behind),
        }
    }

    fn start(&mut self, node: u8, says: Says, fixed: bool) {
        let machine = self.machine(node);
        if !machine.has_power || machine.is_paused || !machine.is_known || machine.is_tainted {
            return;
        }
        self.started += 1;
        let uid = Uid::new(format!("u-{}", self.started));
        self.pods.push(Pod {
            holding: Holding {
                pool: PoolName::from("a"),
                address: [10, 0, 0, u8::try_from(self.started % 250).unwrap()].into(),
                pod: PodName::new("shop", uid.as_str()),
                uid,
                nic: Some(Nic::from("eth0")),
                node: (says == Says::Node).then(|| name(node)),
                sandbox: Some(Sandbox::from("s")),
                lineage: fixed.then(|| Lineage::of_set(Uid::from("set-1"))),
            },
            node,
            says,
            fate: Fate::Lives,
            runs: true,
            leaks: false,
        });
    }

    /// A minute: kubelets that run stop what has no Pod, and their agents release it; nodes that
    /// don't report are unready; Pods of nodes that are declared lost are deleted.
    fn pass(&mut self) {
        self.before = self.fates();
        self.minute += 1;
        let minute = self.minute;
        for machine in &mut self.machines {
            let reports = machine.has_power && !machine.is_paused;
            if machine.is_ready != reports {
                machine.is_ready = reports;
                machine.since = minute;
            }
        }
        for pod in &mut self.pods {
            let machine = &self.machines[usize::from(pod.node)];
            if !machine.is_known || (machine.is_tainted && !machine.is_ready) {
                pod.fate = Fate::Gone;
            }
            if machine.has_power && !machine.is_paused {
                // One that lives is started again after a boot.
                pod.runs = pod.fate == Fate::Lives;
                if !pod.runs {
                    pod.fate = Fate::Gone;
                }
            }
        }
        let machines = &self.machines;
        self.pods.retain(|pod| {
            let machine = &machines[usize::from(pod.node)];
            let is_released = pod.fate == Fate::Gone
                && !pod.leaks
                && machine.has_power
                && !machine.is_paused
                && machine.is_known;
            !is_released
        });
    }

    fn fates(&self) -> BTreeMap<Uid, Fate> {
        let each = self.pods.iter();
        each.map(|pod| (pod.holding.uid.clone(), pod.fate))
            .collect()
    }

    fn standing(&self, node: u8) -> Standing {
        let machine = &self.machines[usize::from(node)];
        let since = Some(at(machine.since));
        match machine {
            Machine {
                is_known: false, ..
            } => Standing::Gone,
            Machine { is_ready: true, .. } => Standing::Ready { since },
            Machine {
                is_tainted: true, ..
            } => Standing::OutOfService,
            Machine { has_power, .. } => Standing::Unready {
                since,
                sign: if *has_power {
                    Sign::Answers
                } else {
                    Sign::Silent
                },
            },
        }
    }

    fn judged(&self, pod: &Pod, fate: Fate) -> Verdict {
        let standing = self.standing(pod.node);
        let home = match pod.says {
            Says::Node => Home::Recorded(name(pod.node), standing),
            Says::Endpoint => Home::Told(name(pod.node), standing),
            Says::Nothing => {
                let all = (0..NODES).map(|node| (name(node), self.standing(node)));
                Home::Any(all.filter(|(_, s)| *s != Standing::Gone).collect())
            }
        };
        let seen = Seen {
            holding: pod.holding.clone(),
            fate,
            home,
            lineage: pod.holding.lineage.clone(),
        };
        judge(&seen, &self.policy, at(self.minute))
    }

    fn look(&mut self, is_behind: bool) {
        let judged: Vec<(Holding, Verdict)> = self
            .pods
            .iter()
            .map(|pod| {
                // A cache that is behind has not heard of the youngest Pods.
                let behind = || self.before.get(&pod.holding.uid).copied();
                let fate = if is_behind {
                    behind().unwrap_or(Fate::Gone)
                } else {
                    pod.fate
                };
                (pod.holding.clone(), self.judged(pod, fate))
            })
            .collect();
        let found = self
            .suspects
            .look(&judged, self.pods.len(), at(self.minute));
        self.asked = found.for_agents;
        for holding in found.free.now {
            let nth = self.pods.iter().position(|pod| pod.holding == holding);
            let pod = &self.pods[nth.unwrap()];
            // The live read.
            if let Verdict::Goes(proof) = self.judged(pod, pod.fate) {
                assert!(!pod.runs, "{pod:?} still runs: {proof}");
                assert_ne!(pod.fate, Fate::Lives, "{pod:?}: {proof}");
                self.pods.remove(nth.unwrap());
            }
        }
    }

    /// People have said what is lost and let kubelets run again; time passes.
    fn settle(&mut self) {
        for node in 0..NODES {
            self.run(&Op::Resume { node });
            self.run(&Op::Declare {
                node,
                by_taint: node == 0,
            });
        }
        for _ in 0..25 {
            self.pass();
            self.look(false);
        }
        for pod in &self.pods {
            let verdict = self.judged(pod, pod.fate);
            match verdict {
                Verdict::InUse => assert_eq!(pod.fate, Fate::Lives, "{pod:?}"),
                // The agents' own looks find these, and are asked to.
                Verdict::Agent(_) => assert!(!self.asked.is_empty(), "{pod:?}"),
                Verdict::Waits(_) | Verdict::Goes(_) => panic!("{pod:?} is left: {verdict}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_that_runs_loses_its_address_and_all_that_is_proven_gone_is_freed(
        ops in prop::collection::vec(ops(), 1..60),
        by_time in any::<bool>(),
    ) {
        let policy = Policy {
            lost_nodes: if by_time { LostNodes::ByTime } else { LostNodes::ByWord },
            delay: TimeDelta::zero(),
        };
        let mut world = World::new(policy);
        for op in &ops {
            world.run(op);
        }
        world.settle();
    }
}
