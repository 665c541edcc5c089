//! What is inconsistent in a world of pools and subnets: one checker for tests, simulation, garbage
//! collection and the command line.

mod tenancy;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::addr::AddrSet;
use crate::name::{Nic, NodeName, PodName, PoolName, SubnetName, Uid};
use crate::overlap;
use crate::pool::Pool;
use crate::record::Record;
use crate::subnet::Subnet;

/// The objects to check, all read at one moment.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Subnets.
    pub subnets: Vec<Subnet>,
    /// Pools.
    pub pools: Vec<Pool>,
    /// Every Pod, and those that only an endpoint remembers; `None` where nobody looked, and then
    /// nothing is said of them.
    pub residents: Option<Vec<Resident>>,
}

/// A Pod and what it has, by its own word and its endpoint's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// Name.
    pub pod: PodName,
    /// Uid, as records have it.
    pub uid: Uid,
    /// Its node.
    pub node: Option<NodeName>,
    /// How it is.
    pub life: Life,
    /// Its addresses, and on which interface where that is known.
    pub addresses: BTreeMap<IpAddr, Option<Nic>>,
}

/// How a Pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is to run, and so are the addresses that it tells its own.
    Running,
    /// It is to run and has told nothing that one could rely on.
    Silent,
    /// It is being deleted or has ended: what it tells may be another's already.
    Leaving,
    /// There is no such Pod; its endpoint is left.
    Gone,
}

impl Resident {
    /// The record of an address of this Pod.
    pub fn record(&self, address: IpAddr) -> Record {
        Record {
            pod: self.pod.clone(),
            uid: self.uid.clone(),
            nic: self.addresses.get(&address).cloned().flatten(),
            node: self.node.clone(),
            sandbox: None,
            owner: None,
            machine: None,
            instance: None,
            next: None,
            kept: false,
            quarantine: None,
            other: BTreeMap::new(),
        }
    }
}

/// One broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Two pools have a record of one address.
    HeldTwice {
        /// Address.
        address: IpAddr,
        /// First pool by name.
        first: PoolName,
        /// Second.
        second: PoolName,
    },
    /// Two admitted pools own the same addresses.
    PoolsOverlap {
        /// First pool by name.
        first: PoolName,
        /// Second.
        second: PoolName,
        /// What both have.
        overlap: AddrSet,
    },
    /// Two entries of a ledger have the same addresses.
    EntriesOverlap {
        /// Subnet.
        subnet: SubnetName,
        /// First pool by name.
        first: PoolName,
        /// Second.
        second: PoolName,
        /// What both have.
        overlap: AddrSet,
    },
    /// An admitted pool of the subnet has addresses that the ledger does not give it.
    NotInLedger {
        /// Subnet.
        subnet: SubnetName,
        /// Pool.
        pool: PoolName,
        /// What is missing.
        missing: AddrSet,
    },
    /// One interface of a Pod has two addresses of one pool.
    TwoForOneNic {
        /// Pool.
        pool: PoolName,
        /// The Pod's uid.
        uid: Uid,
        /// Its interface.
        nic: Nic,
    },
    /// A Pod has an address of a pool that has no record of it, and may give it to another Pod.
    NotRecorded {
        /// Pool.
        pool: PoolName,
        /// Address.
        address: IpAddr,
        /// The Pod.
        pod: PodName,
    },
    /// A Pod has an address that is recorded for another one.
    HeldForAnother {
        /// Pool.
        pool: PoolName,
        /// Address.
        address: IpAddr,
        /// Who has it.
        pod: PodName,
        /// For whom it is recorded.
        recorded: PodName,
    },
    /// Two Pods have one address.
    OnTwoPods {
        /// Address.
        address: IpAddr,
        /// First Pod by name.
        first: PodName,
        /// Second.
        second: PodName,
    },
    /// A record of a Pod that is gone, which names no node whose agent would free it.
    Orphan {
        /// Pool.
        pool: PoolName,
        /// Address.
        address: IpAddr,
        /// The Pod.
        pod: PodName,
    },
}

impl Violation {
    /// What it is, one word in CamelCase for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::HeldTwice { .. } => "HeldTwice",
            Self::PoolsOverlap { .. } => "PoolsOverlap",
            Self::EntriesOverlap { .. } => "EntriesOverlap",
            Self::NotInLedger { .. } => "NotInLedger",
            Self::TwoForOneNic { .. } => "TwoForOneNic",
            Self::NotRecorded { .. } => "NotRecorded",
            Self::HeldForAnother { .. } => "HeldForAnother",
            Self::OnTwoPods { .. } => "OnTwoPods",
            Self::Orphan { .. } => "Orphan",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldTwice {
                address,
                first,
                second,
            } => {
                write!(
                    f,
                    "address {address} is recorded in IPPool {first} and in IPPool {second}"
                )
            }
            Self::PoolsOverlap {
                first,
                second,
                overlap,
            } => {
                write!(f, "IPPools {first} and {second} both own {overlap}")
            }
            Self::EntriesOverlap {
                subnet,
                first,
                second,
                overlap,
            } => write!(
                f,
                "the ledger of SpiderSubnet {subnet} gives {overlap} to IPPool {first} and to {second}"
            ),
            Self::NotInLedger {
                subnet,
                pool,
                missing,
            } => write!(
                f,
                "IPPool {pool} has {missing}, which the ledger of SpiderSubnet {subnet} does not give it"
            ),
            Self::TwoForOneNic { pool, uid, nic } => {
                write!(
                    f,
                    "IPPool {pool} has two addresses for interface {nic} of Pod uid {uid}"
                )
            }
            Self::NotRecorded { pool, address, pod } => write!(
                f,
                "Pod {pod} has address {address}, which IPPool {pool} has not recorded and may give \
                 to another Pod"
            ),
            Self::HeldForAnother {
                pool,
                address,
                pod,
                recorded,
            } => write!(
                f,
                "Pod {pod} has address {address}, which IPPool {pool} has recorded for Pod {recorded}"
            ),
            Self::OnTwoPods {
                address,
                first,
                second,
            } => write!(f, "Pods {first} and {second} both have address {address}"),
            Self::Orphan { pool, address, pod } => write!(
                f,
                "IPPool {pool} has recorded {address} for Pod {pod}, which is gone, and names no \
                 node whose agent would free it"
            ),
        }
    }
}

/// Every broken invariant, sorted. Cost: O(n log n) over all ranges and records.
pub fn audit(world: &World) -> Vec<Violation> {
    let mut found = vec![];
    let mut by_name: Vec<&Pool> = world.pools.iter().collect();
    by_name.sort_by_key(|pool| &pool.name);
    records(&by_name, &mut found);
    pools(&by_name, &mut found);
    for subnet in &world.subnets {
        ledger(&by_name, subnet, &mut found);
    }
    if let Some(residents) = &world.residents {
        tenancy::check(&by_name, residents, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn records(by_name: &[&Pool], found: &mut Vec<Violation>) {
    let mut holder: BTreeMap<IpAddr, &PoolName> = BTreeMap::new();
    for pool in by_name {
        let mut nics: BTreeMap<(&Uid, &Nic), IpAddr> = BTreeMap::new();
        for (address, record) in pool.records.iter() {
            if let Some(first) = holder.insert(address, &pool.name) {
                let second = pool.name.clone();
                found.push(Violation::HeldTwice {
                    address,
                    first: first.clone(),
                    second,
                });
            }
            let Some(nic) = &record.nic else { continue };
            for uid in record.holders() {
                if nics.insert((uid, nic), address).is_some() {
                    found.push(Violation::TwoForOneNic {
                        pool: pool.name.clone(),
                        uid: uid.clone(),
                        nic: nic.clone(),
                    });
                }
            }
        }
    }
}

fn pools(by_name: &[&Pool], found: &mut Vec<Violation>) {
    let admitted: Vec<(&PoolName, Cow<'_, AddrSet>)> = by_name
        .iter()
        .filter(|p| p.is_admitted())
        .map(|p| (&p.name, p.claimed()))
        .collect();
    for_pairs(&admitted, |first, second, overlap| {
        found.push(Violation::PoolsOverlap {
            first,
            second,
            overlap,
        });
    });
}

fn ledger(by_name: &[&Pool], subnet: &Subnet, found: &mut Vec<Violation>) {
    let Some(ledger) = &subnet.ledger else { return };
    let entries: Vec<(&PoolName, Cow<'_, AddrSet>)> = ledger
        .iter()
        .map(|(name, entry)| (name, Cow::Borrowed(&entry.ips)))
        .collect();
    for_pairs(&entries, |first, second, overlap| {
        let subnet = subnet.name.clone();
        found.push(Violation::EntriesOverlap {
            subnet,
            first,
            second,
            overlap,
        });
    });
    for pool in by_name
        .iter()
        .filter(|p| p.cidr == subnet.cidr && p.is_admitted())
    {
        let entry = ledger
            .get(&pool.name)
            .map(|e| e.ips.clone())
            .unwrap_or_default();
        let missing = pool.claimed().difference(&entry);
        if !missing.is_empty() {
            let (subnet, pool) = (subnet.name.clone(), pool.name.clone());
            found.push(Violation::NotInLedger {
                subnet,
                pool,
                missing,
            });
        }
    }
}

fn for_pairs(
    sets: &[(&PoolName, Cow<'_, AddrSet>)],
    mut on: impl FnMut(PoolName, PoolName, AddrSet),
) {
    for ((a, b), overlap) in overlap::pairs(sets.iter().map(|(_, set)| &**set)) {
        if let (Some((first, _)), Some((second, _))) = (sets.get(a), sets.get(b)) {
            on((*first).clone(), (*second).clone(), overlap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::testing::{in_use, ip, ips, pool, record, subnet};

    fn told(pools: Vec<Pool>, entries: &[(&str, &str)]) -> Vec<String> {
        let world = World {
            subnets: vec![subnet("1-9", entries)],
            pools,
            ..World::default()
        };
        audit(&world).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_world_in_order_has_no_violation() {
        let pools = vec![in_use("1", pool("a", "1-3")), pool("b", "4")];
        assert_eq!(
            told(pools, &[("a", "1-3"), ("b", "4-5")]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_address_recorded_in_two_pools_is_found_whatever_their_order() {
        let a = Pool {
            admitted: None,
            ..in_use("3", pool("a", "1-3"))
        };
        let b = in_use("3", pool("b", "3-4"));
        let text = "address 10.0.0.3 is recorded in IPPool a and in IPPool b";
        assert_eq!(told(vec![b.clone(), a.clone()], &[("b", "3-4")]), [text]);
        assert_eq!(told(vec![a, b], &[("b", "3-4")]), [text]);
    }

    #[test]
    fn admitted_pools_that_overlap_are_found() {
        let (a, b) = (pool("a", "1-4"), pool("b", "3-9"));
        let found = told(vec![b.clone(), a.clone()], &[("a", "1-4"), ("b", "5-9")]);
        assert!(found.contains(&"IPPools a and b both own [10.0.0.3-10.0.0.4]".to_owned()));
        // One that gives out nothing harms nobody.
        for idle in [
            Pool {
                admitted: None,
                ..b.clone()
            },
            Pool {
                terminating: true,
                ..b
            },
        ] {
            assert_eq!(
                told(vec![a.clone(), idle], &[("a", "1-4")]),
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn entries_that_overlap_are_found() {
        assert_eq!(
            told(vec![], &[("a", "1-4"), ("b", "4-5")]),
            ["the ledger of SpiderSubnet net4 gives [10.0.0.4] to IPPool a and to b"]
        );
    }

    #[test]
    fn what_a_pool_has_without_the_ledger_is_found() {
        let edited = in_use("9", pool("a", "1-3"));
        assert_eq!(
            told(vec![edited], &[("a", "1-2")]),
            [
                "IPPool a has [10.0.0.3 10.0.0.9], which the ledger of SpiderSubnet net4 does not give it"
            ]
        );
    }

    #[test]
    fn a_ledger_that_is_absent_says_nothing() {
        let world = World {
            subnets: vec![Subnet {
                ledger: None,
                ..subnet("1-9", &[])
            }],
            pools: vec![pool("a", "1-3")],
            ..World::default()
        };
        assert_eq!(audit(&world), vec![]);
    }

    #[test]
    fn pools_of_another_cidr_are_not_held_against_the_ledger() {
        let elsewhere = Pool {
            cidr: "10.0.0.0/16".parse().unwrap(),
            ..pool("a", "1-3")
        };
        assert_eq!(told(vec![elsewhere], &[]), Vec::<String>::new());
    }

    #[test]
    fn two_addresses_for_one_interface_are_found() {
        let mut pool = pool("a", "1-3");
        for n in [1, 2] {
            pool.records.insert(
                ip(n),
                Record {
                    nic: Some(Nic::from("eth0")),
                    ..record("p")
                },
            );
        }
        // Without a nic nobody can tell.
        pool.records.insert(ip(3), record("p"));
        assert_eq!(
            told(vec![pool], &[("a", "1-3")]),
            ["IPPool a has two addresses for interface eth0 of Pod uid p"]
        );
    }

    #[test]
    fn all_that_is_broken_is_told_once_in_order() {
        let worst = |name: &str| in_use("1", pool(name, "1-2"));
        let world = World {
            subnets: vec![subnet("1-9", &[("a", "1"), ("b", "1")])],
            pools: vec![worst("b"), worst("a")],
            ..World::default()
        };
        let found = audit(&world);
        assert_eq!(found.len(), 5);
        assert!(found.is_sorted());
        let reasons: Vec<_> = found.iter().map(Violation::reason).collect();
        assert_eq!(
            reasons,
            [
                "HeldTwice",
                "PoolsOverlap",
                "EntriesOverlap",
                "NotInLedger",
                "NotInLedger"
            ]
        );
        assert!(found.contains(&Violation::PoolsOverlap {
            first: PoolName::from("a"),
            second: PoolName::from("b"),
            overlap: ips("1-2"),
        }));
    }
}
