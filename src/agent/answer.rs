//! What an ADD is answered with: addresses, and the ways out of the interface.
//!
//! Owns: the reply, and whom else it is told to: the Pod's endpoint, and the Pod where a route it
//! asks for leads nowhere. Never does: decide which routes an interface has; [`ipam::route`] does.

use std::fmt;

use cni::{IpConfig, IpVersion, IpamAddResponse, Route};
use ipam::addr::Family;
use ipam::name::Nic;
use ipam::route;

use super::Agent;
use super::candidates::Asker;
use super::endpoint::Ways;
use super::pods;
use super::wishes::Wishes;
use crate::pool_writer::Granted;

/// What a call comes to.
pub(super) struct Given {
    /// Addresses, durably recorded.
    pub(super) granted: Vec<Granted>,
    /// What the Pod says of the interface.
    pub(super) wishes: Wishes,
}

impl Given {
    /// The routes of the interface.
    pub(super) fn table(&self) -> route::Table {
        let each = self.granted.iter().map(|grant| route::Way {
            cidr: grant.cidr,
            gateway: grant.gateway,
            routes: &grant.routes,
        });
        let ways: Vec<route::Way<'_>> = each.collect();
        route::table(&ways, &self.wishes.routes, self.wishes.clean_gateway)
    }
}

/// As the log tells it.
impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self
            .granted
            .iter()
            .map(|grant| format!("{} of {}", grant.text(), grant.pool))
            .collect();
        f.write_str(&texts.join(", "))
    }
}

impl Agent {
    /// The answer for what was granted; the endpoint and, where a route leads nowhere, the Pod are
    /// told of it too.
    pub(super) fn answer(&self, asker: &Asker, given: &Given) -> IpamAddResponse {
        let table = given.table();
        if !table.unused.is_empty() {
            self.unreached.note(&asker.pod, table.unused);
        }
        self.note(asker, given, table.kept);
        self.looked_into(asker, reply(&given.granted, &asker.nic, &table.all))
    }

    /// Has the Pod's endpoint tell what was given, with these routes.
    pub(super) fn note(&self, asker: &Asker, given: &Given, routes: Vec<ipam::pool::Route>) {
        let ways = Ways {
            clean_gateway: given.wishes.clean_gateway,
            routes,
        };
        let (endpoints, settings) = (&self.endpoints, &self.settings);
        endpoints.note(asker, settings, &given.granted, &ways);
    }

    /// The reply with what the plugin is to look into before it uses the addresses.
    ///
    /// The target of a virtual machine's live migration has the address that its source still uses.
    fn looked_into(&self, asker: &Asker, mut reply: IpamAddResponse) -> IpamAddResponse {
        let settings = &self.settings;
        let conflicts = settings.conflict_detection && !pods::is_migration_target(&asker.pod);
        for ip in reply.ips.iter_mut().flatten() {
            ip.enable_ip_conflict_detection = conflicts;
            ip.enable_gateway_detection = settings.gateway_detection && ip.gateway.is_some();
        }
        reply
    }
}

/// The answer.
fn reply(granted: &[Granted], nic: &Nic, routes: &[ipam::pool::Route]) -> IpamAddResponse {
    let if_name = || nic.as_str().to_owned();
    let ips = granted.iter().map(|grant| IpConfig {
        address: grant.text(),
        enable_gateway_detection: false,
        enable_ip_conflict_detection: false,
        gateway: grant.gateway.map(|gateway| gateway.to_string()),
        ip_pool: Some(grant.pool.as_str().to_owned()),
        mac: None,
        nic: if_name(),
        version: match grant.family() {
            Family::V4 => IpVersion::V4,
            Family::V6 => IpVersion::V6,
        },
        vlan: 0,
    });
    let routes = routes.iter().map(|route| Route {
        dst: route.dst.clone(),
        gw: route.gw.clone(),
        if_name: if_name(),
    });
    let routes: Vec<Route> = routes.collect();
    IpamAddResponse {
        dns: None,
        ips: Some(ips.collect()),
        routes: (!routes.is_empty()).then_some(routes),
    }
}
