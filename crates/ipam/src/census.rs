//! What there is and who has it: figures of subnets and pools, and whose one address is.
//!
//! For people who ask. Owns: what counts as taken, used and free, and the one answer to "whose is
//! it". Never does: decide; what a pass or a claim does with an address is [`crate::plan`]'s and
//! [`crate::ledger`]'s. The figures use the same sets as those, so that what is called free here is
//! what would be given there.

use std::net::IpAddr;

use crate::addr::{AddrCount, AddrSet};
use crate::audit::World;
use crate::pool::Pool;
use crate::quarantine::is_quarantined;
use crate::record::Record;
use crate::subnet::{Subnet, SubnetLedger};

/// How many addresses of a subnet are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetFigures {
    /// `ips` − `excludeIPs`.
    pub total: AddrCount,
    /// Of pools, in use or not, as the ledger and the pools themselves say.
    pub taken: AddrCount,
    /// Recorded for Pods.
    pub used: AddrCount,
    /// What more may be carved for pools: neither taken, reserved nor the gateway.
    pub free: AddrCount,
}

/// How many addresses of a pool are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolFigures {
    /// `ips` − `excludeIPs`.
    pub total: AddrCount,
    /// Recorded for Pods.
    pub used: AddrCount,
    /// Recorded for nobody: other hosts use them.
    pub quarantined: AddrCount,
    /// What Pods may still get: neither of those, nor reserved or the gateway.
    pub free: AddrCount,
}

/// The figures of `subnet` among the pools of `world`. Cost: O(n log n) over all ranges.
pub fn of_subnet(subnet: &Subnet, world: &World, reserved: &AddrSet) -> SubnetFigures {
    let pools = || world.pools.iter().filter(|pool| pool.cidr == subnet.cidr);
    let entered = subnet.ledger.iter().map(SubnetLedger::taken);
    let claimed = pools().map(|pool| pool.claimed().into_owned());
    let taken: AddrSet = entered
        .chain(claimed)
        .flat_map(|set| set.ranges().to_vec())
        .collect();
    SubnetFigures {
        total: subnet.total().count(),
        taken: taken.count(),
        used: pools().map(Pool::used).sum(),
        free: subnet.free(reserved, &taken).count(),
    }
}

/// The figures of `pool`. Cost: O(n log n) over its ranges and records.
pub fn of_pool(pool: &Pool, reserved: &AddrSet) -> PoolFigures {
    PoolFigures {
        total: pool.total().count(),
        used: pool.used(),
        quarantined: pool.records.quarantined().count(),
        free: pool.free(reserved).count(),
    }
}

/// Everything that is known about one address.
#[derive(Debug)]
pub struct Whereabouts<'w> {
    /// What it comes to.
    pub state: State,
    /// Who holds it: one pool's record, more only where the world is inconsistent.
    pub holders: Vec<(&'w Pool, &'w Record)>,
    /// The pools that own it, by name.
    pub pools: Vec<&'w Pool>,
    /// The subnet in whose CIDR it lies; one that lists it before one that does not.
    pub subnet: Option<&'w Subnet>,
}

/// What one address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A Pod has it.
    Used,
    /// Nobody has it and nobody gets it: a host outside of the pools uses it.
    Quarantined,
    /// It is the gateway of its pool or subnet.
    Gateway,
    /// A SpiderReservedIP keeps it from Pods.
    Reserved,
    /// `excludeIPs` of its pool or subnet names it.
    Excluded,
    /// A pool may give it to the next Pod.
    Free,
    /// A pool has it, and gives nothing: it is not admitted, disabled or being deleted.
    Withheld,
    /// The ledger keeps it for a pool that does not have it: a change is under way.
    Moving,
    /// A subnet may give it to the next pool.
    Unassigned,
    /// In the CIDR of a subnet or pool, and in no range of theirs.
    NotListed,
    /// In no subnet and no pool.
    Outside,
}

/// Where `address` is in `world`. Cost: O(pools · log of their ranges).
///
/// A record decides before everything else; then what nobody may have; then who may give it.
pub fn whose<'w>(world: &'w World, reserved: &AddrSet, address: IpAddr) -> Whereabouts<'w> {
    let of = |pool: &'w Pool| Some((pool, pool.records.get(address)?));
    let near: Vec<&Pool> = world
        .pools
        .iter()
        .filter(|p| p.cidr.contains(&address))
        .collect();
    let mut holders: Vec<_> = world.pools.iter().filter_map(of).collect();
    holders.sort_by_key(|(pool, _)| &pool.name);
    let mut pools: Vec<&Pool> = near
        .iter()
        .copied()
        .filter(|p| p.ips.contains(address))
        .collect();
    pools.sort_by_key(|pool| &pool.name);
    let around = world.subnets.iter().filter(|s| s.cidr.contains(&address));
    let subnet = around.min_by_key(|s| (!s.ips.contains(address), &s.name));
    let state = if holders.is_empty() {
        unheld(address, reserved, &near, &pools, subnet)
    } else if holders.iter().all(|(_, record)| is_quarantined(record)) {
        State::Quarantined
    } else {
        State::Used
    };
    Whereabouts {
        state,
        holders,
        pools,
        subnet,
    }
}

fn unheld(
    address: IpAddr,
    reserved: &AddrSet,
    near: &[&Pool],
    pools: &[&Pool],
    subnet: Option<&Subnet>,
) -> State {
    let gateways = pools
        .iter()
        .map(|p| p.gateway)
        .chain(subnet.map(|s| s.gateway));
    if gateways.flatten().any(|gateway| gateway == address) {
        return State::Gateway;
    }
    if reserved.contains(address) {
        return State::Reserved;
    }
    let owning = || pools.iter().filter(|p| !p.excluded.contains(address));
    if owning().next().is_some() {
        let gives = |p: &&&Pool| p.is_admitted() && !p.disabled && !p.terminating;
        return if owning().any(|p| gives(&p)) {
            State::Free
        } else {
            State::Withheld
        };
    }
    let kept = |s: &Subnet| {
        s.ledger
            .as_ref()
            .is_some_and(|l| l.taken().contains(address))
    };
    match subnet {
        _ if !pools.is_empty() => State::Excluded,
        Some(s) if kept(s) => State::Moving,
        Some(s) if s.excluded.contains(address) => State::Excluded,
        Some(s) if s.ips.contains(address) => State::Unassigned,
        None if near.is_empty() => State::Outside,
        Some(_) | None => State::NotListed,
    }
}

/// What Pods hold outside of `left`, by pool: it stays taken until they let go.
///
/// Cost: O(n log n) over the ranges and records of the pools.
pub fn in_use_outside<'w>(pools: &'w [Pool], left: &AddrSet) -> Vec<(&'w Pool, AddrSet)> {
    let outside = pools.iter().map(|pool| {
        let used = pool.records.addresses();
        (pool, used.difference(left))
    });
    outside.filter(|(_, used)| !used.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{admitted, in_quarantine, in_use, ip, ips, pool, subnet};

    fn world() -> World {
        let web = in_quarantine("15", in_use("10-11", pool("web", "10-13 15")));
        let off = Pool {
            disabled: true,
            ..pool("off", "20-21")
        };
        let net = Subnet {
            gateway: Some(ip(1)),
            excluded: ips("99"),
            ..subnet("10-99", &[("web", "10-15"), ("off", "20-21")])
        };
        let holed = Pool {
            excluded: ips("31"),
            ..pool("holed", "30-32")
        };
        World {
            subnets: vec![net],
            pools: vec![web, off, admitted(holed)],
            ..World::default()
        }
    }

    fn state(address: u8) -> State {
        whose(&world(), &ips("12 50"), ip(address)).state
    }

    #[test]
    fn each_address_is_one_thing() {
        let table = [
            (10, State::Used),
            (15, State::Quarantined),
            (1, State::Gateway),
            (12, State::Reserved),
            (50, State::Reserved),
            (13, State::Free),
            (14, State::Moving),
            (20, State::Withheld),
            (31, State::Excluded),
            (99, State::Excluded),
            (40, State::Unassigned),
            (200, State::NotListed),
        ];
        for (address, expected) in table {
            assert_eq!(state(address), expected, "10.0.0.{address}");
        }
        let far = whose(&world(), &AddrSet::new(), [10, 0, 1, 1].into()).state;
        assert_eq!(far, State::Outside);
    }

    #[test]
    fn without_a_subnet_an_address_near_a_pool_is_one_that_nobody_lists() {
        let world = World {
            subnets: vec![],
            ..world()
        };
        let state = |address| whose(&world, &AddrSet::new(), address).state;
        assert_eq!(state(ip(40)), State::NotListed);
        assert_eq!(state([10, 0, 1, 1].into()), State::Outside);
    }

    #[test]
    fn of_two_subnets_that_one_is_named_which_lists_the_address() {
        let named = |name: &str, own: &str| Subnet {
            name: name.into(),
            ..subnet(own, &[])
        };
        let world = World {
            subnets: vec![named("a", "1-9"), named("b", "10-19"), named("c", "10-19")],
            ..World::default()
        };
        for (address, name) in [(5, "a"), (15, "b"), (25, "a")] {
            let found = whose(&world, &AddrSet::new(), ip(address));
            assert_eq!(found.subnet.unwrap().name.as_str(), name);
        }
    }

    #[test]
    fn a_record_says_who_even_where_the_address_is_reserved_meanwhile() {
        let world = world();
        let found = whose(&world, &ips("10"), ip(10));
        assert_eq!(found.state, State::Used);
        let [(pool, record)] = found.holders.as_slice() else {
            unreachable!("one pool has it")
        };
        assert_eq!(
            (pool.name.as_str(), record.pod.as_str()),
            ("web", "shop/p10")
        );
        assert_eq!(found.subnet.unwrap().name.as_str(), "net4");
    }

    #[test]
    fn figures_add_up_and_reserved_addresses_are_not_free() {
        let world = world();
        let reserved = ips("12 50");
        let figures = of_subnet(world.subnets.first().unwrap(), &world, &reserved);
        let count = |n| AddrCount::new(n);
        // 10-15, 20-21 by the ledger, 30 and 32 only by the pool itself.
        let expected = SubnetFigures {
            total: count(89),
            taken: count(10),
            used: count(2),
            free: count(89 - 10 - 1),
        };
        assert_eq!(figures, expected);
        let web = of_pool(world.pools.first().unwrap(), &reserved);
        let expected = PoolFigures {
            total: count(5),
            used: count(2),
            quarantined: count(1),
            free: count(1),
        };
        assert_eq!(web, expected);
    }

    #[test]
    fn what_is_in_use_outside_of_a_narrower_subnet_is_named_by_pool() {
        let world = world();
        let outside = in_use_outside(&world.pools, &ips("11-99"));
        let said: Vec<_> = outside
            .iter()
            .map(|(p, used)| (p.name.as_str(), used))
            .collect();
        assert_eq!(said, [("web", &ips("10"))]);
        assert!(in_use_outside(&world.pools, &ips("10-99")).is_empty());
    }
}
