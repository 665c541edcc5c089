//! Pools and subnets on a small universe: every set, every number, against bit arithmetic.
//!
//! What a pool owns, may give out and must show; what a subnet may carve; and what one pass takes
//! from a subnet for a pool or gives back to it, for every way in which addresses can be free,
//! in the pool, or in use.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail by panic"
)]

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipam::addr::AddrSet;
use ipam::affinity::Selector;
use ipam::annotation::SizeRule;
use ipam::demand::PodCount;
use ipam::name::{Nic, PodName, PoolName, SubnetName, Uid, Version, WorkloadId};
use ipam::plan::{Demand, Snapshot, Step, SubnetSeen, plan};
use ipam::pool::{Owner, Pool, Restrictions};
use ipam::record::{Record, Records};
use ipam::subnet::{Entry, Subnet, SubnetLedger};

fn address(bit: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + bit))
}

fn set(mask: u32) -> AddrSet {
    (0..16)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(address)
        .collect()
}

fn mask(set: &AddrSet) -> u32 {
    (0..16)
        .filter(|bit| set.contains(address(*bit)))
        .map(|bit| 1 << bit)
        .sum()
}

/// The `n` lowest bits of `mask`, or all.
fn lowest(mask: u32, n: u32) -> u32 {
    let mut rest = mask;
    for _ in 0..n {
        rest &= rest.saturating_sub(1);
    }
    mask & !rest
}

/// The `n` highest bits of `mask`, or all.
fn highest(mask: u32, n: u32) -> u32 {
    lowest(mask.reverse_bits(), n).reverse_bits()
}

fn records(in_use: u32) -> Records {
    let mut records = Records::default();
    for address in set(in_use).iter() {
        let record = Record {
            pod: PodName::new("shop", &address.to_string()),
            uid: Uid::new(address.to_string()),
            nic: None,
            node: None,
            sandbox: None,
            owner: None,
            machine: None,
            instance: None,
            next: None,
            kept: false,
            quarantine: None,
            other: BTreeMap::new(),
        };
        records.insert(address, record);
    }
    records
}

fn workload() -> WorkloadId {
    WorkloadId {
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: "web".into(),
        uid: Uid::from("w"),
    }
}

fn pool(ips: u32, in_use: u32) -> Pool {
    let (nic, subnet) = (Nic::from("eth0"), SubnetName::from("net4"));
    common::admitted(Pool {
        name: PoolName::from("web"),
        version: Version::from("1"),
        cidr: "10.0.0.0/28".parse().unwrap(),
        restrictions: Restrictions {
            pod_affinity: Some(Ok(Selector::default().for_workload(&workload()))),
            ..Restrictions::default()
        },
        owner: Some(Owner::of(&workload(), &nic, &subnet, true)),
        adopted_by: Some((subnet, Uid::from("s"))),
        rule: Some(SizeRule::Flexible(0)),
        records: records(in_use),
        ..common::pool(set(ips))
    })
}

fn subnet(ips: u32, entry: u32) -> Subnet {
    let mut ledger = SubnetLedger::default();
    ledger.set(
        &PoolName::from("web"),
        Entry {
            ips: set(entry),
            application: None,
        },
    );
    Subnet {
        name: SubnetName::from("net4"),
        uid: Uid::from("s"),
        version: Version::from("1"),
        cidr: "10.0.0.0/28".parse().unwrap(),
        ips: set(ips),
        excluded: AddrSet::new(),
        gateway: None,
        routes: vec![],
        terminating: false,
        finalizer: true,
        ledger: Some(ledger),
    }
}

/// What a pass makes of pool and ledger, if it writes them.
fn resized(subnet: Subnet, pool: Pool, wanted: u32) -> (Option<u32>, Option<u32>) {
    let long_ago: DateTime<Utc> = DateTime::UNIX_EPOCH;
    let demand = Demand {
        workload: workload(),
        nic: Nic::from("eth0"),
        selector: Selector::default(),
        rule: SizeRule::Fixed(wanted),
        pods: PodCount::default(),
        reclaim: true,
    };
    let snapshot = Snapshot {
        subnet: SubnetSeen::Readable(Arc::new(subnet)),
        surplus_since: [(pool.name.clone(), long_ago)].into(),
        pools: [(
            pool.name.clone(),
            Arc::new(Pool {
                rule: Some(demand.rule),
                ..pool
            }),
        )]
        .into(),
        demands: vec![Arc::new(demand)],
        live: true,
        ..Snapshot::default()
    };
    let mut result = (None, None);
    for step in plan(&snapshot, long_ago + chrono::TimeDelta::days(1)).steps {
        match step {
            Step::Before(write) | Step::After(write) => {
                assert!(write.edit.admit);
                result.0 = write.edit.ips.as_ref().map(mask);
            }
            Step::Ledger { edits, .. } => {
                result.1 = edits.first().map(|edit| mask(&edit.entry.ips));
            }
            other @ (Step::ProtectSubnet { .. }
            | Step::Record { .. }
            | Step::Create(_)
            | Step::Barrier
            | Step::Delete { .. }) => panic!("{other:?}"),
        }
    }
    result
}

/// Every way to sort seven addresses into free, in the pool, and in use; every number wanted.
#[test]
fn a_pool_takes_the_lowest_and_gives_back_the_highest_and_never_what_is_in_use() {
    let all = 0b111_1111_u32;
    for own in 0..=all {
        // All subsets of `own`.
        let mut in_use = own;
        loop {
            for wanted in 0..=8 {
                let found = resized(subnet(all, own), pool(own, in_use), wanted);
                let size = own.count_ones();
                let expected = if wanted > size {
                    own | lowest(all & !own, wanted - size)
                } else {
                    own & !highest(own & !in_use, size - wanted)
                };
                let wanted_write = (expected != own).then_some(expected);
                assert_eq!(
                    found,
                    (wanted_write, wanted_write),
                    "{own:b} {in_use:b} {wanted}"
                );
            }
            if in_use == 0 {
                break;
            }
            in_use = (in_use - 1) & own;
        }
    }
}

/// Every ledger entry that has more than the pool: what an interrupted pass left is taken first
/// when the pool grows, and returns when it does not.
#[test]
fn what_the_ledger_has_beyond_the_pool_is_used_or_returned() {
    let all = 0b11_1111_u32;
    for entry in 0..=all {
        let mut own = entry;
        loop {
            for wanted in 0..=6 {
                let found = resized(subnet(all, entry), pool(own, 0), wanted);
                let size = own.count_ones();
                let expected = if wanted > size && own != all {
                    let again = lowest(entry & !own, wanted - size);
                    let more = wanted - size - again.count_ones();
                    let grown = own | again | lowest(all & !entry, more);
                    (Some(grown), Some(entry | grown))
                } else {
                    let kept = own & !highest(own, size.saturating_sub(wanted));
                    (
                        (kept != own).then_some(kept),
                        (kept != entry).then_some(kept),
                    )
                };
                assert_eq!(found, expected, "{entry:b} {own:b} {wanted}");
            }
            if own == 0 {
                break;
            }
            own = (own - 1) & entry;
        }
    }
}

/// Every pool of four fields over six addresses, each field any set.
#[test]
fn a_pool_owns_gives_and_shows_what_its_fields_say() {
    let all = 0b1_1111_u32;
    for ips in 0..=all {
        for excluded in 0..=all {
            for in_use in 0..=all {
                let pool = Pool {
                    excluded: set(excluded),
                    ..pool(ips, in_use)
                };
                let owned = ips & !excluded;
                assert_eq!(mask(&pool.total()), owned);
                assert_eq!(mask(&pool.claimed()), owned | in_use);
                for (reserved, gateway) in [(0, None), (0b110, None), (0b1, Some(4))] {
                    let pool = Pool {
                        gateway: gateway.map(address),
                        ..pool.clone()
                    };
                    let not = reserved | gateway.map_or(0, |bit| 1 << bit);
                    assert_eq!(mask(&pool.usable(&set(reserved))), owned & !not);
                    assert_eq!(mask(&pool.free(&set(reserved))), owned & !not & !in_use);
                }
                let going = Pool {
                    terminating: true,
                    ..pool
                };
                assert_eq!(mask(&going.claimed()), in_use);
            }
        }
    }
}

/// Every subnet over six addresses, whatever is excluded, taken, reserved, or the gateway.
#[test]
fn a_subnet_gives_what_nothing_speaks_against() {
    let all = 0b1_1111_u32;
    for ips in 0..=all {
        for excluded in 0..=all {
            for taken in 0..=all {
                for (reserved, gateway) in [(0, None), (0b101, Some(3)), (0b10, Some(0))] {
                    let subnet = Subnet {
                        excluded: set(excluded),
                        gateway: gateway.map(address),
                        ..subnet(ips, 0)
                    };
                    let not = excluded | taken | reserved | gateway.map_or(0, |bit| 1 << bit);
                    let free = subnet.free(&set(reserved), &set(taken));
                    assert_eq!(mask(&free), ips & !not);
                }
            }
        }
    }
}
