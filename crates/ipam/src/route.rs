//! The routes of an interface: those of its pools, those its Pod asks for, the default route.
//!
//! Invariant: a route stands with the address whose CIDR has its next hop, so the kernel takes each
//! one; the order is the original's: per address the pool's, the asked ones, the default route.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::Family;
use crate::pool::Route;

/// A route that a Pod asks for in its annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Destination, without host bits: the kernel takes none with them.
    pub dst: IpNet,
    /// Next hop, of the same family.
    pub gw: IpAddr,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.dst, self.gw)
    }
}

/// What the pool of an address says about ways out.
#[derive(Debug, Clone, Copy)]
pub struct Way<'p> {
    /// The pool's CIDR.
    pub cidr: IpNet,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
    /// Its routes.
    pub routes: &'p [Route],
}

/// The routes of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// All, in the order of the reply.
    pub all: Vec<Route>,
    /// Those that an endpoint keeps: without the default routes.
    pub kept: Vec<Route>,
    /// Those asked for whose next hop is in the CIDR of none of the addresses.
    pub unused: Vec<Wanted>,
}

/// The table of an interface with addresses of these pools; `clean` leaves the default routes out.
///
/// Cost: O(ways · wanted).
pub fn table(ways: &[Way<'_>], wanted: &[Wanted], clean: bool) -> Table {
    let mut table = Table {
        unused: wanted.to_vec(),
        ..Table::default()
    };
    for way in ways {
        let mut kept = way.routes.to_vec();
        let asked = table.unused.iter().filter(|w| way.cidr.contains(&w.gw));
        kept.extend(asked.map(|w| Route {
            dst: w.dst.to_string(),
            gw: w.gw.to_string(),
        }));
        table.unused.retain(|w| !way.cidr.contains(&w.gw));
        table.kept.extend(kept.iter().cloned());
        table.all.extend(kept);
        if let Some(gateway) = way.gateway.filter(|_| !clean) {
            let dst = match Family::of(way.cidr.addr()) {
                Family::V4 => "0.0.0.0/0",
                Family::V6 => "::/0",
            };
            table.all.push(Route {
                dst: dst.to_owned(),
                gw: gateway.to_string(),
            });
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(dst: &str, gw: &str) -> Route {
        let (dst, gw) = (dst.to_owned(), gw.to_owned());
        Route { dst, gw }
    }

    fn wanted(dst: &str, gw: &str) -> Wanted {
        Wanted {
            dst: dst.parse().unwrap(),
            gw: gw.parse().unwrap(),
        }
    }

    fn ways(routes: &[Route]) -> [Way<'_>; 2] {
        let way = |cidr: &str, gateway: &str, routes| Way {
            cidr: cidr.parse().unwrap(),
            gateway: gateway.parse().ok(),
            routes,
        };
        [
            way("172.18.41.0/24", "172.18.41.1", routes),
            way("fd00:41::/112", "fd00:41::1", &[]),
        ]
    }

    /// As the original's agent answered (its reply to a dual-stack Pod), and its rule for `routes`.
    #[test]
    fn per_address_the_pool_s_then_the_asked_then_the_default_route() {
        let of_pool = [route("10.50.0.0/16", "172.18.41.2")];
        let asked = [
            wanted("fd00:9::/64", "fd00:41::3"),
            wanted("10.9.0.0/16", "172.18.41.3"),
            wanted("10.8.0.0/16", "192.168.1.1"),
        ];
        let table = table(&ways(&of_pool), &asked, false);
        let all = [
            route("10.50.0.0/16", "172.18.41.2"),
            route("10.9.0.0/16", "172.18.41.3"),
            route("0.0.0.0/0", "172.18.41.1"),
            route("fd00:9::/64", "fd00:41::3"),
            route("::/0", "fd00:41::1"),
        ];
        assert_eq!(table.all, all);
        let [pool, v4, _, v6, _] = all;
        assert_eq!(table.kept, [pool, v4, v6]);
        assert_eq!(table.unused, [asked[2]]);
    }

    #[test]
    fn a_clean_interface_has_every_route_but_the_default_ones() {
        let of_pool = [route("10.50.0.0/16", "172.18.41.2")];
        let table = table(&ways(&of_pool), &[], true);
        assert_eq!(table.all, of_pool);
        assert_eq!(table.kept, of_pool);
    }
}
