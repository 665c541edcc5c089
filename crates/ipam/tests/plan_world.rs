//! Plans in a world that never stands still: workloads come, scale, roll, go and come back, people
//! edit and delete what they please, agents allocate between any two writes, and two controllers
//! with caches that lag behind carry out their plans one write at a time, stop anywhere, or come
//! back to a plan made long ago.
//!
//! After every single write `audit` is silent, no address is used by two Pods, and the ledger frees
//! nothing that a pool still has. When it is quiet one controller comes to rest, with every
//! workload served as far as the subnet reaches; when all is deleted, all returns.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail by panic"
)]

mod world;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use chrono::{DateTime, TimeDelta, Utc};
use ipam::addr::{AddrCount, AddrSet};
use ipam::annotation::SizeRule;
use ipam::demand;
use ipam::name::PoolName;
use ipam::plan::ConditionKind;
use ipam::pool::Pool;
use proptest::prelude::*;

use world::{Lag, Pass, Workload, World, settle};

/// Bits 0 to 15 stand for 10.0.0.0 to 10.0.0.15.
type Mask = u16;

#[derive(Debug, Clone)]
enum Event {
    // What users of workloads do.
    Deploy {
        slot: u8,
        replicas: u8,
        rule: Rule,
        reclaim: bool,
    },
    Roll {
        slot: u8,
        surge: u8,
    },
    Annotate {
        slot: u8,
        asks: bool,
    },
    Remove {
        slot: u8,
    },
    // What kubelets and agents do.
    Start {
        slot: u8,
    },
    StartBare {
        pool: u8,
    },
    Ask {
        pod: u8,
    },
    Stop {
        pod: u8,
    },
    End {
        pod: u8,
    },
    // What people do to pools, with or without knowing what they do.
    Pool {
        slot: u8,
        ips: Mask,
        excluded: Mask,
    },
    Edit {
        pool: u8,
        add: Mask,
        remove: Mask,
    },
    Exclude {
        pool: u8,
        excluded: Mask,
    },
    Revert {
        pool: u8,
        ago: u8,
    },
    Copy {
        pool: u8,
        to: u8,
    },
    Delete {
        pool: u8,
    },
    Force {
        pool: u8,
    },
    Break {
        pool: u8,
        broken: bool,
    },
    // What people do to the subnet.
    Subnet {
        ips: Mask,
        gateway: Option<u8>,
    },
    Narrow {
        excluded: Mask,
    },
    DeleteSubnet,
    Wipe,
    Reserve {
        ips: Mask,
    },
    // What controllers do.
    Wait {
        seconds: u8,
    },
    Look {
        who: u8,
        pools: u8,
        subnet: u8,
        workloads: u8,
    },
    Write {
        who: u8,
        pick: u8,
        times: u8,
    },
    Crash {
        who: u8,
    },
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    Fixed(u8),
    Flexible(u8),
}

/// What a history is mostly about. Each mix reaches corners that a history of everything at once
/// comes to once in a million.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mix {
    /// Everything at once.
    All,
    /// Pools made by hand, which people edit and agents use; no subnet for most of the time.
    Alone,
    /// Subnets come and go, ledgers are lost, over pools that are in use.
    Begin,
    /// Workloads that scale and roll, in a subnet that is too small.
    Auto,
    /// Pools of workloads that people edit, delete and force away.
    Meddled,
}

/// Where a history starts.
#[derive(Debug, Clone)]
struct Start {
    subnet: Option<(Mask, Option<u8>)>,
    /// Pools as another program left them, with addresses in use and no admission.
    taken_over: Vec<(Mask, Mask)>,
    ledger_too: bool,
}

/// How many addresses there are to quarrel about.
fn width(mix: Mix) -> u32 {
    match mix {
        Mix::All => 16,
        Mix::Auto => 8,
        Mix::Alone | Mix::Begin | Mix::Meddled => 5,
    }
}

fn starts() -> impl Strategy<Value = (Start, Vec<Event>)> {
    let mixes = [Mix::All, Mix::Alone, Mix::Begin, Mix::Auto, Mix::Meddled];
    prop::sample::select(mixes.to_vec()).prop_flat_map(|mix| {
        let with_subnet = match mix {
            Mix::Alone => 0.05,
            Mix::Begin => 0.3,
            Mix::All => 0.85,
            Mix::Auto | Mix::Meddled => 0.95,
        };
        let subnet = (
            prop_oneof![2 => Just(0x7ffe), 1 => masks(mix)],
            prop::option::of(0_u8..16),
        );
        let taken_over = prop::collection::vec((masks(mix), masks(mix)), 0..3);
        let taken_over = (prop::bool::weighted(0.3), taken_over)
            .prop_map(|(some, pools)| if some { pools } else { vec![] });
        let start = (
            prop::option::weighted(with_subnet, subnet),
            taken_over,
            any::<bool>(),
        );
        let start = start.prop_map(move |(subnet, taken_over, ledger_too)| Start {
            subnet,
            taken_over,
            ledger_too,
        });
        (start, prop::collection::vec(events(mix), 1..130))
    })
}

fn masks(mix: Mix) -> BoxedStrategy<Mask> {
    let bits = (1_u32 << width(mix)) - 1;
    let run = (0..width(mix), 1_u32..7).prop_map(move |(first, len)| {
        Mask::try_from((((1_u32 << len) - 1) << first) & bits).unwrap()
    });
    prop_oneof![
        4 => run.clone(),
        1 => (run.clone(), run).prop_map(|(a, b)| a | b),
        1 => any::<Mask>().prop_map(move |m| m & Mask::try_from(bits).unwrap()),
    ]
    .boxed()
}

fn some_or_none(mix: Mix) -> BoxedStrategy<Mask> {
    prop_oneof![Just(0), masks(mix)].boxed()
}

fn rules() -> impl Strategy<Value = Rule> {
    prop_oneof![3 => (0_u8..3).prop_map(Rule::Flexible), 1 => (0_u8..4).prop_map(Rule::Fixed)]
}

fn user_events() -> BoxedStrategy<Event> {
    let slot = 0_u8..3;
    prop_oneof![
        6 => (slot.clone(), 0_u8..5, rules(), prop::bool::weighted(0.8))
            .prop_map(|(slot, replicas, rule, reclaim)| Event::Deploy { slot, replicas, rule, reclaim }),
        2 => (slot.clone(), 0_u8..3).prop_map(|(slot, surge)| Event::Roll { slot, surge }),
        1 => (slot.clone(), any::<bool>()).prop_map(|(slot, asks)| Event::Annotate { slot, asks }),
        2 => slot.prop_map(|slot| Event::Remove { slot }),
    ]
    .boxed()
}

fn node_events() -> BoxedStrategy<Event> {
    prop_oneof![
        4 => (0_u8..3).prop_map(|slot| Event::Start { slot }),
        3 => any::<u8>().prop_map(|pool| Event::StartBare { pool }),
        3 => any::<u8>().prop_map(|pod| Event::Ask { pod }),
        1 => any::<u8>().prop_map(|pod| Event::Stop { pod }),
        3 => any::<u8>().prop_map(|pod| Event::End { pod }),
    ]
    .boxed()
}

fn pool_events(mix: Mix) -> BoxedStrategy<Event> {
    let pool = any::<u8>;
    let forced = if mix == Mix::Meddled { 4 } else { 1 };
    prop_oneof![
        4 => (0_u8..4, masks(mix), prop_oneof![3 => Just(0), 1 => masks(mix)])
            .prop_map(|(slot, ips, excluded)| Event::Pool { slot, ips, excluded }),
        5 => (pool(), some_or_none(mix), some_or_none(mix))
            .prop_map(|(pool, add, remove)| Event::Edit { pool, add, remove }),
        1 => (pool(), some_or_none(mix)).prop_map(|(pool, excluded)| Event::Exclude { pool, excluded }),
        4 => (pool(), 0_u8..20).prop_map(|(pool, ago)| Event::Revert { pool, ago }),
        1 => (pool(), 0_u8..4).prop_map(|(pool, to)| Event::Copy { pool, to }),
        2 => pool().prop_map(|pool| Event::Delete { pool }),
        forced => pool().prop_map(|pool| Event::Force { pool }),
        1 => (pool(), any::<bool>()).prop_map(|(pool, broken)| Event::Break { pool, broken }),
    ]
    .boxed()
}

fn subnet_events(mix: Mix) -> BoxedStrategy<Event> {
    prop_oneof![
        4 => (masks(mix), prop::option::of(0_u8..16))
            .prop_map(|(ips, gateway)| Event::Subnet { ips, gateway }),
        1 => some_or_none(mix).prop_map(|excluded| Event::Narrow { excluded }),
        2 => Just(Event::DeleteSubnet),
        2 => Just(Event::Wipe),
        1 => some_or_none(mix).prop_map(|ips| Event::Reserve { ips }),
    ]
    .boxed()
}

fn controller_events() -> BoxedStrategy<Event> {
    let lag = || prop_oneof![2 => Just(0_u8), 1 => 0_u8..6, 1 => 0_u8..15];
    prop_oneof![
        7 => (0_u8..2, lag(), lag(), lag())
            .prop_map(|(who, pools, subnet, workloads)| Event::Look { who, pools, subnet, workloads }),
        6 => (0_u8..2, any::<u8>()).prop_map(|(who, pick)| Event::Write { who, pick, times: 1 }),
        3 => (0_u8..2, any::<u8>(), 2_u8..30)
            .prop_map(|(who, pick, times)| Event::Write { who, pick, times }),
        1 => (0_u8..2).prop_map(|who| Event::Crash { who }),
        1 => (0_u8..8).prop_map(|seconds| Event::Wait { seconds }),
    ]
    .boxed()
}

fn events(mix: Mix) -> BoxedStrategy<Event> {
    let [users, nodes, pools, subnets] = match mix {
        Mix::All => [2, 4, 3, 1],
        Mix::Alone => [0, 3, 5, 0],
        Mix::Begin => [1, 3, 4, 2],
        Mix::Auto => [3, 5, 0, 1],
        Mix::Meddled => [2, 4, 5, 0],
    };
    let kinds = vec![
        (users, user_events()),
        (nodes, node_events()),
        (pools, pool_events(mix)),
        (subnets, subnet_events(mix)),
        (8, controller_events()),
    ];
    let kinds = kinds
        .into_iter()
        .filter(|(weight, _)| *weight > 0)
        .collect();
    prop::strategy::Union::new_weighted(kinds).boxed()
}

fn set(mask: Mask) -> AddrSet {
    (0..16_u8)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(address)
        .collect()
}

fn address(bit: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, bit % 16).into()
}

/// The world, and the two controllers that work on it.
struct History {
    world: World,
    passes: [Option<Pass>; 2],
    surplus: [BTreeMap<PoolName, DateTime<Utc>>; 2],
}

impl History {
    fn new(start: &Start) -> Self {
        let mut world = World::new("10.0.0.0/28");
        world.log(format!("{start:?}"));
        for (number, (ips, in_use)) in start.taken_over.iter().enumerate() {
            let name = PoolName::new(format!("old{number}"));
            let in_use = set(*in_use).difference(&world.on_pods());
            let mut pool = world.new_pool(&name, &set(*ips));
            pool.finalizer = true;
            for address in in_use.intersection(&pool.ips).iter() {
                let pod = world.start_pod(None);
                let record = world.old_record(pod);
                world.pods[pod].address = Some(address);
                pool.records.insert(address, record);
            }
            world.create_pool(pool);
        }
        if let Some((ips, gateway)) = start.subnet {
            world.create_subnet("net4", &set(ips), gateway.map(address));
        }
        if start.ledger_too {
            world.take_over_ledger();
        }
        Self {
            world,
            passes: [None, None],
            surplus: [BTreeMap::new(), BTreeMap::new()],
        }
    }

    fn pool(&self, pick: u8) -> Option<PoolName> {
        let count = self.world.pools.len().max(1);
        self.world
            .pools
            .keys()
            .nth(usize::from(pick) % count)
            .cloned()
    }

    fn pod(&self, pick: u8) -> Option<usize> {
        let count = self.world.pods.len();
        (count > 0).then(|| usize::from(pick) % count)
    }

    /// True while no controller is about to write: some things that people do override every
    /// protection, and are safe only then.
    fn is_quiet(&self) -> bool {
        self.passes.iter().all(Option::is_none)
    }

    fn happen(&mut self, event: &Event) {
        self.world.log(format!("{event:?}"));
        match event {
            Event::Deploy { .. }
            | Event::Roll { .. }
            | Event::Annotate { .. }
            | Event::Remove { .. } => {
                self.user(event);
            }
            Event::Start { .. }
            | Event::StartBare { .. }
            | Event::Ask { .. }
            | Event::Stop { .. }
            | Event::End { .. } => self.node(event),
            Event::Pool { .. }
            | Event::Edit { .. }
            | Event::Exclude { .. }
            | Event::Revert { .. }
            | Event::Copy { .. }
            | Event::Delete { .. }
            | Event::Force { .. }
            | Event::Break { .. } => self.person(event),
            Event::Subnet { .. }
            | Event::Narrow { .. }
            | Event::DeleteSubnet
            | Event::Wipe
            | Event::Reserve { .. } => self.admin(event),
            Event::Wait { .. } | Event::Look { .. } | Event::Write { .. } | Event::Crash { .. } => {
                self.controller(event);
            }
        }
    }

    fn user(&mut self, event: &Event) {
        let uid = format!("w-{:05}", self.world.next());
        let workloads = &mut self.world.workloads;
        match *event {
            Event::Deploy {
                slot,
                replicas,
                rule,
                reclaim,
            } => {
                let name = format!("w{slot}");
                let workload = workloads
                    .entry(name.clone())
                    .or_insert_with(|| Workload::new(&name, &uid));
                workload.replicas = replicas.into();
                workload.reclaim = reclaim;
                workload.rule = match rule {
                    Rule::Fixed(n) => SizeRule::Fixed(n.into()),
                    Rule::Flexible(n) => SizeRule::Flexible(n.into()),
                };
            }
            Event::Roll { slot, surge } => {
                if let Some(workload) = workloads.get_mut(&format!("w{slot}")) {
                    workload.surge = surge.into();
                }
            }
            Event::Annotate { slot, asks } => {
                if let Some(workload) = workloads.get_mut(&format!("w{slot}")) {
                    workload.asks = asks;
                }
            }
            Event::Remove { slot } => {
                workloads.remove(&format!("w{slot}"));
            }
            _ => unreachable!("no such event of users"),
        }
        self.world.revision();
    }

    fn node(&mut self, event: &Event) {
        match *event {
            Event::Start { slot } => {
                let Some(workload) = self.world.workloads.get(&format!("w{slot}")).cloned() else {
                    return;
                };
                let pod = self.world.start_pod(Some(&workload.id));
                self.ask(pod);
            }
            Event::StartBare { pool } => {
                let Some(pool) = self.pool(pool) else { return };
                let pod = self.world.start_pod(None);
                if !self.world.ask(pod, &pool) {
                    self.world.end_pod(pod);
                }
            }
            Event::Ask { pod } => {
                if let Some(pod) = self.pod(pod) {
                    self.ask(pod);
                }
            }
            Event::Stop { pod } => {
                if let Some(pod) = self.pod(pod) {
                    self.world.stop_pod(pod);
                }
            }
            Event::End { pod } => {
                if let Some(pod) = self.pod(pod) {
                    self.world.end_pod(pod);
                }
            }
            _ => unreachable!("no such event of nodes"),
        }
    }

    /// A Pod without an address tries the pools of its workload.
    fn ask(&mut self, pod: usize) {
        let asking = self.world.pods[pod].clone();
        let Some(workload) = asking.workload.filter(|_| asking.address.is_none()) else {
            return;
        };
        for pool in self.world.pools_of(&workload) {
            if self.world.ask(pod, &pool) {
                return;
            }
        }
    }

    fn person(&mut self, event: &Event) {
        // Nobody knows of an address whose pool was forced away under its Pod, but the ledger, as
        // long as it is not overruled by hand once more.
        let orphans = self.world.orphans();
        match *event {
            Event::Pool {
                slot,
                ips,
                excluded,
            } => {
                let name = PoolName::new(format!("hand{slot}"));
                let ips = set(ips).difference(&orphans);
                if !self.world.pools.contains_key(&name) {
                    let pool = self.world.new_pool(&name, &ips);
                    self.world.create_pool(Pool {
                        excluded: set(excluded),
                        ..pool
                    });
                }
            }
            Event::Edit { pool, add, remove } => {
                let Some(name) = self.pool(pool) else { return };
                let add = set(add).difference(&orphans);
                self.world.edit_pool(&name, |p| {
                    p.ips = p.ips.union(&add).difference(&set(remove))
                });
            }
            Event::Exclude { pool, excluded } => {
                let Some(name) = self.pool(pool) else { return };
                let excluded = set(excluded).union(&orphans);
                self.world
                    .edit_pool(&name, |p| p.excluded = excluded.clone());
            }
            Event::Revert { pool, ago } => {
                let Some(name) = self.pool(pool) else { return };
                let Some((ips, excluded)) = self.world.spec_of(&name, ago.into()) else {
                    return;
                };
                if ips.difference(&excluded).is_disjoint(&orphans) {
                    self.world
                        .edit_pool(&name, |p| (p.ips, p.excluded) = (ips, excluded));
                }
            }
            Event::Copy { pool, to } => {
                let Some(old) = self
                    .pool(pool)
                    .and_then(|n| self.world.pools.get(&n))
                    .cloned()
                else {
                    return;
                };
                let name = PoolName::new(format!("copy{to}"));
                let new = self.world.new_pool(&name, &old.ips.difference(&orphans));
                let copy = Pool {
                    uid: new.uid,
                    created: new.created,
                    ..(*old).clone()
                };
                let copy = Pool {
                    name,
                    ips: new.ips,
                    records: new.records,
                    terminating: false,
                    ..copy
                };
                self.world.create_pool(copy);
            }
            Event::Delete { pool } => {
                if let Some(name) = self.pool(pool) {
                    self.world.delete_pool(&name);
                }
            }
            Event::Force { pool } => {
                let Some(name) = self.pool(pool) else { return };
                let unused = self.world.pools[&name].records.is_empty();
                let known = self
                    .world
                    .subnet
                    .as_ref()
                    .is_some_and(|s| s.ledger.is_some());
                if unused || (known && self.is_quiet()) {
                    self.world.force_pool_away(&name);
                }
            }
            Event::Break { pool, broken } => {
                if let Some(name) = self.pool(pool) {
                    self.world.set_broken(&name, broken);
                }
            }
            _ => unreachable!("no such event of people"),
        }
    }

    fn admin(&mut self, event: &Event) {
        let world = &mut self.world;
        match *event {
            Event::Subnet { ips, gateway } => {
                let gateway = gateway.map(address);
                if world.subnet.is_none() {
                    world.create_subnet("net4", &set(ips), gateway);
                } else {
                    world.edit_subnet(|s| (s.ips, s.gateway) = (set(ips), gateway));
                }
            }
            Event::Narrow { excluded } => world.edit_subnet(|s| s.excluded = set(excluded)),
            Event::DeleteSubnet => world.edit_subnet(|s| s.terminating = true),
            Event::Wipe => {
                if self.is_quiet() && self.world.orphans().is_empty() {
                    self.world.edit_subnet(|s| s.ledger = None);
                }
            }
            Event::Reserve { ips } => {
                world.reserved = set(ips);
                world.revision();
            }
            _ => unreachable!("no such event of administrators"),
        }
    }

    fn controller(&mut self, event: &Event) {
        match *event {
            Event::Wait { seconds } => self.world.now += TimeDelta::seconds(seconds.into()),
            Event::Look {
                who,
                pools,
                subnet,
                workloads,
            } => {
                let who = usize::from(who);
                if self.passes[who].is_none() {
                    let lag = Lag {
                        pools: pools.into(),
                        subnet: subnet.into(),
                        workloads: workloads.into(),
                    };
                    let pass = Pass::begin(&mut self.world, who, lag, &mut self.surplus[who]);
                    self.passes[who] = (!pass.is_done()).then_some(pass);
                }
            }
            Event::Write { who, pick, times } => {
                let who = usize::from(who);
                for _ in 0..times {
                    let Some(pass) = &mut self.passes[who] else {
                        return;
                    };
                    pass.step(&mut self.world, pick.into());
                    if pass.is_done() {
                        self.passes[who] = None;
                    }
                }
            }
            Event::Crash { who } => {
                self.passes[usize::from(who)] = None;
                self.surplus[usize::from(who)].clear();
            }
            _ => unreachable!("no such event of controllers"),
        }
    }

    /// Nothing happens any more: one controller comes to rest, and all is as it should be.
    fn rest(&mut self) {
        self.passes = [None, None];
        for name in self.world.broken.clone() {
            self.world.set_broken(&name, false);
        }
        self.world.log("everybody rests");
        settle(&mut self.world);
        self.check_sizes();
        self.check_ledger();
    }

    /// Every workload is served, or told why not.
    fn check_sizes(&mut self) {
        let plan = Pass::begin(&mut self.world, 9, Lag::default(), &mut BTreeMap::new()).plan;
        let Some(subnet) = self.world.subnet.clone() else {
            return;
        };
        let offered = subnet.free(&self.world.reserved, &AddrSet::new());
        let snapshot = self.world.snapshot(Lag::default(), true, &BTreeMap::new());
        for demand in &snapshot.demands {
            let uid = &demand.workload.uid;
            let short = plan.shortfalls.iter().any(|s| s.workload.uid == *uid);
            let mut pools = snapshot.pools.values().filter(|pool| {
                !pool.terminating && pool.owner.as_ref().is_some_and(|o| o.uid == *uid)
            });
            let (pool, more) = (pools.next(), pools.next());
            let Some(pool) = pool else {
                if !subnet.terminating {
                    self.world.fail(&format!("{} has no pool", demand.workload));
                }
                continue;
            };
            if let Some(more) = more {
                // A pool that a person made a copy of, and that still has Pods.
                if more.records.is_empty() && pool.records.is_empty() {
                    self.world
                        .fail(&format!("{} has two pools", demand.workload));
                }
                continue;
            }
            let conflicts = plan
                .pools
                .get(&pool.name)
                .into_iter()
                .flatten()
                .any(|c| c.kind == ConditionKind::Conflicting && c.holds);
            let recorded = pool.records.addresses();
            let capacity = pool.usable(&self.world.reserved).union(&recorded);
            let spare = pool.total().difference(&recorded);
            let holders = pool.records.iter().map(|(_, r)| r.uid.clone()).collect();
            let wanted = demand::wanted(demand.rule, &demand.pods, &holders);
            let too_small = capacity.count() < wanted;
            let too_large = capacity.count() > wanted && !spare.is_empty();
            if !conflicts && (too_small != short || too_large || !spare.is_subset(&offered)) {
                self.world
                    .fail(&format!("{pool:?} for {wanted}, {capacity}, short {short}"));
            }
            if !conflicts && !pool.is_admitted() {
                self.world
                    .fail(&format!("IPPool {} is not admitted", pool.name));
            }
            let free = offered.difference(&self.world.ledger().taken());
            let free = free
                .difference(&self.world.on_pods())
                .difference(&pool.excluded);
            let claimed = snapshot
                .pools
                .values()
                .fold(free, |f, p| f.difference(&p.claimed()));
            if short && !subnet.terminating && claimed.count() > AddrCount::from(1) {
                self.world
                    .fail(&format!("{} lacks addresses, {claimed} is free", pool.name));
            }
        }
    }

    /// The ledger shows what the pools have, and nothing else.
    fn check_ledger(&mut self) {
        let plan = Pass::begin(&mut self.world, 9, Lag::default(), &mut BTreeMap::new()).plan;
        if self.world.subnet.is_none() {
            return;
        }
        let (ledger, on_pods) = (self.world.ledger(), self.world.on_pods());
        for (name, entry) in ledger.iter() {
            let claimed = self
                .world
                .pools
                .get(name)
                .map(|p| p.claimed())
                .unwrap_or_default();
            if !entry.ips.is_subset(&claimed.union(&on_pods)) {
                self.world
                    .fail(&format!("the ledger still gives {} to {name}", entry.ips));
            }
        }
        for pool in self.world.pools.values() {
            let conflicts = plan
                .pools
                .get(&pool.name)
                .into_iter()
                .flatten()
                .any(|c| c.kind == ConditionKind::Conflicting && c.holds);
            let entry = ledger
                .get(&pool.name)
                .map(|e| e.ips.clone())
                .unwrap_or_default();
            let clear = pool.claimed().is_subset(&entry);
            if !clear && !conflicts && !pool.terminating {
                self.world.fail(&format!(
                    "IPPool {} is neither entered nor told why",
                    pool.name
                ));
            }
            if pool.is_admitted() == conflicts && !pool.terminating && pool.owner.is_none() {
                self.world
                    .fail(&format!("IPPool {} is admitted and conflicts", pool.name));
            }
        }
    }

    /// Everything is deleted, and everything returns.
    fn clean_up(&mut self) {
        self.world.log("everything is deleted");
        self.world.workloads.clear();
        self.world.revision();
        while !self.world.pods.is_empty() {
            assert!(self.world.end_pod(0));
        }
        let kept = self
            .world
            .pools
            .values()
            .filter(|p| p.owner.as_ref().is_none_or(|o| !o.reclaim));
        for name in kept.map(|p| p.name.clone()).collect::<Vec<_>>() {
            self.world.delete_pool(&name);
        }
        settle(&mut self.world);
        if self.world.subnet.is_some() {
            if !self.world.pools.is_empty() || self.world.ledger().iter().next().is_some() {
                self.world.fail("something is left");
            }
            self.world.edit_subnet(|s| s.terminating = true);
            settle(&mut self.world);
            if self.world.subnet.is_some() {
                self.world.fail("the subnet is left");
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(512)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_history_breaks_an_invariant(
        (start, history) in starts(),
    ) {
        let mut world = History::new(&start);
        for event in &history {
            world.happen(event);
        }
        world.rest();
        world.clean_up();
    }
}
