//! What is inconsistent in a world of pools and subnets: one checker for tests, simulation, garbage
//! collection and the command line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::addr::AddrSet;
use crate::name::{Nic, PoolName, SubnetName, Uid};
use crate::overlap;
use crate::pool::Pool;
use crate::subnet::Subnet;

/// The objects to check, all read at one moment.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Subnets.
    pub subnets: Vec<Subnet>,
    /// Pools.
    pub pools: Vec<Pool>,
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
        }
    }
}

/// Every broken invariant, sorted. Cost: O(n log n) over all ranges and records.
pub fn audit(world: &World) -> Vec<Violation> {
    let mut found = vec![];
    records(world, &mut found);
    pools(world, &mut found);
    for subnet in &world.subnets {
        ledger(world, subnet, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn records(world: &World, found: &mut Vec<Violation>) {
    let mut holder: BTreeMap<IpAddr, &PoolName> = BTreeMap::new();
    for pool in &world.pools {
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
            if let Some(nic) = &record.nic
                && nics.insert((&record.uid, nic), address).is_some()
            {
                found.push(Violation::TwoForOneNic {
                    pool: pool.name.clone(),
                    uid: record.uid.clone(),
                    nic: nic.clone(),
                });
            }
        }
    }
}

fn pools(world: &World, found: &mut Vec<Violation>) {
    let admitted: Vec<(&PoolName, AddrSet)> = world
        .pools
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

fn ledger(world: &World, subnet: &Subnet, found: &mut Vec<Violation>) {
    let Some(ledger) = &subnet.ledger else { return };
    let entries: Vec<(&PoolName, AddrSet)> = ledger
        .iter()
        .map(|(name, entry)| (name, entry.ips.clone()))
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
    for pool in world
        .pools
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

fn for_pairs(sets: &[(&PoolName, AddrSet)], mut on: impl FnMut(PoolName, PoolName, AddrSet)) {
    for ((a, b), overlap) in overlap::pairs(sets.iter().map(|(_, set)| set)) {
        if let (Some((first, _)), Some((second, _))) = (sets.get(a), sets.get(b)) {
            on((*first).clone(), (*second).clone(), overlap);
        }
    }
}
