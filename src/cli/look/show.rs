//! `orbweaver ipam show`: how much is free and used, by subnet, pool and workload.

use std::process::ExitCode;

use anyhow::bail;
use ipam::census;
use ipam::pool::Pool;
use ipam::quarantine::Quarantine;
use ipam::subnet::Subnet;
use serde::Serialize;

use super::sight::{Said, Sight};
use crate::api::names;
use crate::cli::connection::Connection;
use crate::cli::named::Named;
use crate::cli::render::{Output, Report, Table, counted, fields, paragraph};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// A subnet, a pool, or a workload as [NAMESPACE/]KIND/NAME; everything without it.
    #[arg(value_name = "SUBNET|POOL|WORKLOAD")]
    what: Option<String>,
}

/// The answer.
#[derive(Debug, Default, Serialize)]
struct Shown {
    subnets: Vec<ShownSubnet>,
    pools: Vec<ShownPool>,
    /// What the controller says is wrong with these objects.
    problems: Vec<Said>,
    /// Print each object in full.
    #[serde(skip)]
    detail: Detail,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Detail {
    #[default]
    All,
    Subnet,
    Pool,
    Workload,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownSubnet {
    name: String,
    cidr: String,
    ips: Vec<String>,
    gateway: Option<String>,
    /// `ips` without `excludeIPs`.
    total: u128,
    /// Of pools, in use or not.
    taken: u128,
    used: u128,
    /// What pools may still get.
    free: u128,
    pools: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownPool {
    name: String,
    subnet: Option<String>,
    cidr: String,
    workload: Option<String>,
    interface: Option<String>,
    ips: Vec<String>,
    gateway: Option<String>,
    total: u128,
    used: u128,
    /// Kept from Pods, since other hosts use them.
    quarantined: u128,
    free: u128,
    state: &'static str,
    /// Left out where all pools are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    allocations: Option<Vec<Allocation>>,
}

#[derive(Debug, Serialize)]
struct Allocation {
    address: String,
    pod: String,
    uid: String,
    nic: Option<String>,
    node: Option<String>,
    sandbox: Option<String>,
    /// For an address that nobody has, since another host uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantine: Option<Quarantine>,
}

pub(super) async fn run(
    arguments: Arguments,
    connection: &Connection,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let Arguments { what } = arguments;
    let sight = Sight::of(connection).await?;
    output.print(&show(&sight, what.as_deref(), &connection.namespace)?)?;
    Ok(ExitCode::SUCCESS)
}

/// What is known about `what`. Pure.
///
/// Errors: nothing has that name.
fn show(sight: &Sight, what: Option<&str>, namespace: &str) -> anyhow::Result<Shown> {
    let Sight { world, said, .. } = sight;
    let Some(what) = what else {
        return Ok(Shown {
            subnets: world.subnets.iter().map(|s| subnet(s, sight)).collect(),
            pools: world.pools.iter().map(|p| pool(p, sight, false)).collect(),
            problems: said.clone(),
            detail: Detail::All,
        });
    };
    let about = |kind: &str, name: &str| {
        let own = said.iter().filter(|s| s.kind == kind && s.name == name);
        own.cloned().collect::<Vec<_>>()
    };
    let bare = |kind: &str| what.strip_prefix(kind).and_then(|w| w.strip_prefix('/'));
    let (as_subnet, as_pool) = (bare("subnet"), bare("pool"));
    let (is_subnet, is_pool) = (as_pool.is_none(), as_subnet.is_none());
    let name = as_subnet.or(as_pool).unwrap_or(what);
    let found = world.subnets.iter().find(|s| s.name.as_str() == name);
    if let Some(found) = found.filter(|_| is_subnet) {
        let pools = world.pools.iter().filter(|p| p.cidr == found.cidr);
        return Ok(Shown {
            subnets: vec![subnet(found, sight)],
            pools: pools.map(|p| pool(p, sight, false)).collect(),
            problems: about(names::KIND_SUBNET, name),
            detail: Detail::Subnet,
        });
    }
    let found = world.pools.iter().find(|p| p.name.as_str() == name);
    if let Some(found) = found.filter(|_| is_pool) {
        return Ok(Shown {
            pools: vec![pool(found, sight, true)],
            problems: about(names::KIND_POOL, name),
            detail: Detail::Pool,
            ..Shown::default()
        });
    }
    if let Some(broken) = sight.unreadable.iter().find(|o| o.name == name) {
        bail!("{} {name} can't be read: {}", broken.kind, broken.reason);
    }
    let Ok(named) = what.parse::<Named>() else {
        bail!(
            "no SpiderSubnet and no SpiderIPPool is called '{name}', and a workload is named \
             [NAMESPACE/]KIND/NAME, such as deploy/web"
        );
    };
    let named = named.within(namespace);
    let own = |pool: &&Pool| pool.owner.as_ref().is_some_and(|o| named.owns(o));
    let own: Vec<&Pool> = world.pools.iter().filter(own).collect();
    if own.is_empty() {
        bail!(
            "{named} has no pool of its own: see its events, or `orbweaver ipam explain` one of its Pods"
        );
    }
    let problems = own
        .iter()
        .flat_map(|p| about(names::KIND_POOL, p.name.as_str()));
    Ok(Shown {
        problems: problems.collect(),
        pools: own.iter().map(|p| pool(p, sight, true)).collect(),
        detail: Detail::Workload,
        ..Shown::default()
    })
}

fn subnet(subnet: &Subnet, sight: &Sight) -> ShownSubnet {
    let figures = census::of_subnet(subnet, &sight.world, &sight.reserved);
    let pools = sight.world.pools.iter();
    ShownSubnet {
        name: subnet.name.to_string(),
        cidr: subnet.cidr.to_string(),
        ips: subnet.ips.to_texts(),
        gateway: subnet.gateway.map(|g| g.to_string()),
        total: figures.total.get(),
        taken: figures.taken.get(),
        used: figures.used.get(),
        free: figures.free.get(),
        pools: pools.filter(|p| p.cidr == subnet.cidr).count(),
    }
}

fn pool(pool: &Pool, sight: &Sight, detail: bool) -> ShownPool {
    let figures = census::of_pool(pool, &sight.reserved);
    let subnets = &mut sight.world.subnets.iter();
    let owner = pool.owner.as_ref();
    let allocations = || {
        let each = pool.records.iter().map(|(address, record)| Allocation {
            address: address.to_string(),
            pod: record.pod.to_string(),
            uid: record.uid.to_string(),
            nic: record.nic.as_ref().map(ToString::to_string),
            node: record.node.as_ref().map(ToString::to_string),
            sandbox: record.sandbox.as_ref().map(ToString::to_string),
            quarantine: record.quarantine.clone(),
        });
        each.collect()
    };
    ShownPool {
        name: pool.name.to_string(),
        subnet: subnets
            .find(|s| s.cidr == pool.cidr)
            .map(|s| s.name.to_string()),
        cidr: pool.cidr.to_string(),
        workload: owner.map(|o| format!("{} {}/{}", o.kind, o.namespace, o.name)),
        interface: owner.map(|o| o.nic.to_string()),
        ips: pool.ips.to_texts(),
        gateway: pool.gateway.map(|g| g.to_string()),
        total: figures.total.get(),
        used: figures.used.get(),
        quarantined: figures.quarantined.get(),
        free: figures.free.get(),
        state: state(pool, figures),
        allocations: detail.then(allocations),
    }
}

/// What hinders the pool from giving an address, in one word.
fn state(pool: &Pool, figures: census::PoolFigures) -> &'static str {
    if pool.terminating {
        "Terminating"
    } else if pool.disabled {
        "Disabled"
    } else if !pool.is_admitted() {
        "NotAdmitted"
    } else if figures.free.get() == 0 {
        "Full"
    } else {
        "Ready"
    }
}

impl Report for Shown {
    fn text(&self, width: Option<usize>) -> String {
        let mut parts = vec![];
        match self.detail {
            Detail::All => parts.extend([self.subnets(width), self.pools(width)]),
            Detail::Subnet => {
                parts.extend(self.subnets.iter().map(|s| s.text(width)));
                parts.push(self.pools(width));
            }
            Detail::Pool => parts.extend(self.pools.iter().map(|p| p.text(width))),
            Detail::Workload => {
                parts.push(self.pools(width));
                parts.extend(self.pools.iter().map(|p| p.allocations(width)));
            }
        }
        let problems = self.problems.iter().map(|said| {
            let Said {
                kind,
                name,
                reason,
                message,
            } = said;
            paragraph("! ", &format!("{kind} {name}: {reason}: {message}"), width)
        });
        parts.push(problems.collect());
        parts.retain(|part| !part.is_empty());
        if parts.is_empty() {
            return "no SpiderSubnet and no SpiderIPPool\n".to_owned();
        }
        parts.join("\n")
    }
}

impl Shown {
    fn subnets(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["SUBNET", "CIDR", "TOTAL", "POOLS", "TAKEN", "USED", "FREE"]);
        for subnet in &self.subnets {
            table.row([
                subnet.name.clone(),
                subnet.cidr.clone(),
                subnet.total.to_string(),
                subnet.pools.to_string(),
                subnet.taken.to_string(),
                subnet.used.to_string(),
                subnet.free.to_string(),
            ]);
        }
        printed(&table, width)
    }

    fn pools(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            "POOL", "SUBNET", "WORKLOAD", "TOTAL", "USED", "FREE", "STATE",
        ]);
        for pool in &self.pools {
            table.row([
                pool.name.clone(),
                pool.subnet.clone().unwrap_or_default(),
                pool.workload.clone().unwrap_or_default(),
                pool.total.to_string(),
                pool.used.to_string(),
                pool.free.to_string(),
                pool.state.to_owned(),
            ]);
        }
        printed(&table, width)
    }
}

fn printed(table: &Table, width: Option<usize>) -> String {
    if table.is_empty() {
        String::new()
    } else {
        table.text(width)
    }
}

impl ShownSubnet {
    fn text(&self, width: Option<usize>) -> String {
        let figures = format!(
            "{} in all, {} with {}, {} in use, {} free",
            self.total,
            self.taken,
            counted(self.pools, "pool"),
            self.used,
            self.free
        );
        let shown = [
            ("Subnet", self.name.clone()),
            ("CIDR", self.cidr.clone()),
            ("Gateway", self.gateway.clone().unwrap_or_default()),
            ("Ranges", self.ips.join(" ")),
            ("Addresses", figures),
        ];
        fields(&shown, width)
    }
}

impl ShownPool {
    fn text(&self, width: Option<usize>) -> String {
        let figures = format!(
            "{} in all, {} in use, {}{} free",
            self.total,
            self.used,
            match self.quarantined {
                0 => String::new(),
                some => format!("{some} in quarantine, "),
            },
            self.free
        );
        let subnet = self.subnet.as_ref();
        let place = subnet.map_or(self.cidr.clone(), |name| format!("{name} ({})", self.cidr));
        let shown = [
            ("Pool", self.name.clone()),
            ("Subnet", place),
            ("Workload", self.workload.clone().unwrap_or_default()),
            ("Interface", self.interface.clone().unwrap_or_default()),
            ("Gateway", self.gateway.clone().unwrap_or_default()),
            ("Ranges", self.ips.join(" ")),
            ("Addresses", figures),
            ("State", self.state.to_owned()),
        ];
        let records = self.allocations(width);
        let gap = if records.is_empty() { "" } else { "\n" };
        format!("{}{gap}{records}", fields(&shown, width))
    }

    fn allocations(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["ADDRESS", "POD", "NIC", "NODE"]);
        for record in self.allocations.iter().flatten() {
            table.row([
                record.address.clone(),
                match &record.quarantine {
                    None => record.pod.clone(),
                    Some(of) => format!("(in quarantine, {} uses it)", of.mac),
                },
                record.nic.clone().unwrap_or_default(),
                record.node.clone().unwrap_or_default(),
            ]);
        }
        printed(&table, width)
    }
}

#[cfg(test)]
mod tests;
