//! Repairs of worlds in which anything may be wrong: records doubled, missing or of others, entries
//! that overlap, ledgers and records that can't be read.
//!
//! After every prefix of a repair no Pod that runs has lost the record of an address that it has,
//! and no pool gives out what it did not before. After the whole repair nothing is left that a
//! repair could mend, and once the controller has come to rest, nothing that it should.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may fail by panic"
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipam::addr::AddrSet;
use ipam::audit::{Life, Resident, World as Seen};
use ipam::name::{NodeName, PodName, PoolName, Uid};
use ipam::pool::Pool;
use ipam::record::{Records, Salvage};
use ipam::repair::{self, Remedy, Repair, Step, Unread};
use ipam::subnet::{Entry, SubnetLedger};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use world::events::{Mask, address, set};
use world::{Lag, Pass, World};

const POOLS: usize = 3;
const PODS: usize = 4;

/// A corrupted world in numbers.
#[derive(Debug, Clone)]
struct Corrupt {
    /// Of each pool: spec, entry in the ledger, admitted, terminating.
    pools: Vec<(Mask, Mask, bool, bool)>,
    /// Of each pool: addresses and the Pods that they are recorded for.
    records: Vec<Vec<(u8, usize)>>,
    /// Of each Pod: what it has, and how it is.
    pods: Vec<(Option<u8>, u8)>,
    /// The pool whose records can't be read, and what can.
    broken: Option<usize>,
    ledger_is_broken: bool,
}

fn corrupt() -> impl Strategy<Value = Corrupt> {
    let mask =
        || (0_u32..6, 1_u32..5).prop_map(|(at, n)| Mask::try_from(((1 << n) - 1) << at).unwrap());
    let pool = (mask(), mask(), any::<bool>(), prop::bool::weighted(0.1));
    let records = prop::collection::vec((0_u8..10, 0..PODS), 0..3);
    (
        prop::collection::vec(pool, POOLS),
        prop::collection::vec(records, POOLS),
        prop::collection::vec((prop::option::of(0_u8..10), 0_u8..8), PODS),
        prop::option::weighted(0.3, 0..POOLS),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(pools, records, pods, broken, ledger_is_broken)| Corrupt {
            pools,
            records,
            pods,
            broken,
            ledger_is_broken,
        })
}

struct Ward {
    world: World,
    residents: Vec<Resident>,
    broken: Option<(PoolName, Salvage)>,
    ledger_is_broken: bool,
}

impl Ward {
    fn new(corrupt: &Corrupt) -> Self {
        let mut world = World::new("10.0.0.0/28");
        world.lenient = true;
        let residents: Vec<Resident> = (0..PODS).map(|n| resident(n, corrupt.pods[n])).collect();
        world.create_subnet("net4", &set(0xffff), None);
        let mut ledger = SubnetLedger::default();
        for (number, (ips, entry, admitted, terminating)) in corrupt.pools.iter().enumerate() {
            let name = PoolName::new(format!("p{number}"));
            let mut pool = world.new_pool(&name, &set(*ips));
            (pool.finalizer, pool.terminating) = (true, *terminating);
            for (at, pod) in &corrupt.records[number] {
                let record = Resident {
                    addresses: BTreeMap::new(),
                    node: None,
                    ..residents[*pod].clone()
                };
                pool.records
                    .insert(address(*at), record.record(address(*at)));
            }
            if *admitted {
                pool.admitted = Some(pool.admission_hash());
            }
            world.create_pool(pool);
            let ips = set(*entry);
            ledger.set(
                &name,
                Entry {
                    ips,
                    application: None,
                },
            );
        }
        world.edit_subnet(|s| {
            s.finalizer = true;
            s.ledger = (!corrupt.ledger_is_broken).then_some(ledger);
        });
        let broken = corrupt.broken.map(|number| {
            let name = PoolName::new(format!("p{number}"));
            let pool = (*world.pools[&name]).clone();
            let salvage = Salvage {
                records: pool.records.clone(),
                unknown: AddrSet::new(),
                cut: false,
            };
            (name, salvage)
        });
        Self {
            world,
            residents,
            broken,
            ledger_is_broken: corrupt.ledger_is_broken,
        }
    }

    fn repair(&self) -> Repair {
        let is_broken = |pool: &Pool| self.broken.as_ref().is_some_and(|(b, _)| *b == pool.name);
        let subnet = self.world.subnet.as_deref().unwrap().clone();
        let mut unread = vec![];
        let mut subnets = vec![];
        if self.ledger_is_broken {
            let (subnet, reason) = (Box::new(subnet), "x".to_owned());
            unread.push(Unread::Ledger { subnet, reason });
        } else {
            subnets.push(subnet);
        }
        if let Some((name, salvage)) = &self.broken {
            let pool = (*self.world.pools[name]).clone();
            unread.push(Unread::Records {
                pool: Box::new(Pool {
                    records: Records::default(),
                    ..pool
                }),
                salvage: salvage.clone(),
                reason: "x".to_owned(),
            });
        }
        let pools = self.world.pools.values().filter(|p| !is_broken(p));
        let seen = Seen {
            subnets,
            pools: pools.map(|p| (**p).clone()).collect(),
            residents: Some(self.residents.clone()),
        };
        repair::plan(&seen, &unread)
    }

    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Revoke { pool, fence } => {
                assert_eq!(self.world.pools[pool].version, fence.version);
                self.world.edit_pool(pool, |pool| {
                    pool.admitted = None;
                    pool.epoch += 1;
                });
            }
            Step::Records {
                pool,
                fence,
                records,
                ..
            } => {
                let live = &self.world.pools[pool];
                assert!(fence.as_ref().is_none_or(|f| f.version == live.version));
                self.broken.take_if(|(name, _)| name == pool);
                self.world.edit_pool(pool, |p| p.records = records.clone());
            }
            Step::Ledger { fence, ledger, .. } => {
                let subnet = self.world.subnet.as_ref().unwrap();
                assert_eq!(subnet.version, fence.version);
                self.ledger_is_broken = false;
                self.world.edit_subnet(|s| s.ledger.clone_from(ledger));
            }
        }
    }

    /// Addresses of Pods that run and that are recorded for them.
    fn held(&self) -> BTreeSet<(Uid, IpAddr)> {
        let pools = self.world.pools.values();
        let records = pools.flat_map(|p| p.records.iter().map(|(a, r)| (r.uid.clone(), a)));
        let lives = |uid: &Uid| {
            self.residents
                .iter()
                .any(|r| r.uid == *uid && r.life != Life::Gone)
        };
        records.filter(|(uid, _)| lives(uid)).collect()
    }

    /// What agents may give out now.
    fn given(&self) -> AddrSet {
        let readable = self
            .world
            .pools
            .values()
            .filter(|p| self.broken.as_ref().is_none_or(|(name, _)| *name != p.name));
        let serving = readable.filter(|p| p.is_admitted() && !p.terminating);
        serving.fold(AddrSet::new(), |all, p| all.union(&p.free(&AddrSet::new())))
    }
}

fn resident(number: usize, (at, life): (Option<u8>, u8)) -> Resident {
    let life = match life {
        0 => Life::Gone,
        1 => Life::Leaving,
        _ => Life::Running,
    };
    Resident {
        pod: PodName::new("shop", &format!("pod{number}")),
        uid: Uid::new(format!("u{number}")),
        node: (number > 0).then(|| NodeName::from("n1")),
        life,
        addresses: at.map(|at| (address(at), None)).into_iter().collect(),
    }
}

fn is_person(remedy: &Remedy) -> bool {
    matches!(remedy, Remedy::Person(_))
}

/// Records without an owner are left to the collector, which is no part of this world.
fn is_collector_s(finding: &repair::Finding) -> bool {
    finding.reason == "Orphan"
}

fn mend(corrupt: &Corrupt) {
    let mut ward = Ward::new(corrupt);
    for round in 0.. {
        let repair = ward.repair();
        assert_eq!(repair, ward.repair(), "two plans on one world differ");
        if repair.steps.is_empty() {
            let mends = |f: &&repair::Finding| matches!(f.remedy, Remedy::Repair(_));
            let idle: Vec<_> = repair.findings.iter().filter(mends).collect();
            assert!(idle.is_empty(), "no step mends {idle:?}");
            break;
        }
        assert!(round < 3, "never mended: {repair:?}");
        let (held, given) = (ward.held(), ward.given());
        for step in &repair.steps {
            ward.carry_out(step);
            assert!(
                ward.given().is_subset(&given),
                "{step} lets {} be given out",
                ward.given().difference(&given)
            );
            assert!(
                held.is_subset(&ward.held()),
                "{step} takes an address from a Pod"
            );
        }
    }
    controller_rests(&mut ward);
    let left = ward.repair();
    let open: Vec<_> = left
        .findings
        .iter()
        .filter(|f| !is_person(&f.remedy) && !is_collector_s(f))
        .collect();
    let person = left.findings.iter().any(|f| is_person(&f.remedy));
    // Where a person has to decide, the controller rightly waits.
    assert!(open.is_empty() || person, "left: {open:?}");
}

/// Lets the controller work until it rests, if all can be read.
fn controller_rests(ward: &mut Ward) {
    if ward.ledger_is_broken {
        return;
    }
    ward.world.pods.clear();
    for resident in &ward.residents {
        let at = ward.world.start_pod(None);
        let pod = &mut ward.world.pods[at];
        (pod.name, pod.uid) = (resident.pod.clone(), resident.uid.clone());
        if resident.life == Life::Running {
            pod.address = resident.addresses.keys().next().copied();
        }
    }
    if let Some((name, _)) = &ward.broken {
        ward.world.set_broken(&name.clone(), true);
    }
    for _ in 0..40 {
        let mut pass = Pass::begin(&mut ward.world, 0, Lag::default(), &mut BTreeMap::new());
        if pass.is_done() {
            return;
        }
        while pass.step(&mut ward.world, 0).is_some() {}
    }
    ward.world.fail("the controller never rests");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.saturating_mul(2),
        rng_seed: match ProptestConfig::default().rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            fixed @ RngSeed::Fixed(_) => fixed,
        },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_repair_takes_no_address_from_a_pod_and_leaves_only_what_a_person_decides(corrupt in corrupt()) {
        mend(&corrupt);
    }
}
