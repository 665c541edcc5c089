//! `orbweaver ipam give-back`: leaves a cluster's objects as the original's controller and webhooks
//! accept them, every Pod with its address.
//!
//! Owns: that nothing of ours works meanwhile, and the order of the writes. Never does: decide about
//! addresses; what an object becomes is `original`'s. Each write is a PUT at the version read, and
//! safe by itself: a pool loses its admission first, so nothing is given out any more.

mod original;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipam::addr::AddrSet;
use ipam::admit::{Families, reserved};
use ipam::name::{PodName, PoolName};
use ipam::overlap;
use ipam::pool::Pool;
use ipam::quarantine;
use ipam::subnet::Subnet;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Client, ResourceExt};
use serde::Serialize;

use crate::api::{
    SpiderEndpoint, SpiderIPPool, SpiderReservedIP, SpiderSubnet, convert, draft, names,
};
use crate::cli::connection::{ClusterError, Connection};
use crate::cli::render::{Output, Report, counted, paragraph};
use crate::kube_io::put::{self, Part, Reply};

/// How long a Lease must stay as it is before its holder counts as gone, where it does not say.
const LEASE: Duration = Duration::from_secs(15);

/// Which families are on is a matter of the original's values, and not of the objects.
const ANY_FAMILY: Families = Families {
    ipv4: true,
    ipv6: true,
};

/// Exit code where something stands in the way, or is still to be written.
const NOT_YET: u8 = 2;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Write what was shown.
    #[arg(long)]
    yes: bool,
    /// Write although a controller holds the Lease: it will undo it.
    #[arg(long, requires = "yes")]
    even_while_a_controller_runs: bool,
}

/// What is to be written, and what stands in the way.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Given {
    /// True where the objects are as the original has them.
    pub(super) done: bool,
    /// What a person has to do first.
    obstacles: Vec<String>,
    /// Objects that are to be written.
    writes: Vec<String>,
    /// What will be otherwise under the original, whatever is written.
    notes: Vec<String>,
}

/// The objects that are not yet as the original has them.
#[derive(Debug, Default)]
struct Work {
    pools: Vec<(SpiderIPPool, Pool)>,
    subnets: Vec<SpiderSubnet>,
    reservations: Vec<SpiderReservedIP>,
    endpoints: Vec<SpiderEndpoint>,
    obstacles: Vec<String>,
    notes: Vec<String>,
}

pub(super) async fn run(
    arguments: &Arguments,
    connection: &Connection,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let Arguments {
        yes,
        even_while_a_controller_runs,
    } = *arguments;
    if !even_while_a_controller_runs && let Some(holder) = acting(connection).await? {
        bail!(
            "controller {holder} holds Lease {}: uninstall it first (`helm uninstall`), or it \
             undoes what is written here",
            names::CONTROLLER_LEASE
        );
    }
    let given = if yes {
        write(connection).await?
    } else {
        Work::read(connection).await?.told()
    };
    output.print(&given)?;
    Ok(if given.done {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_YET)
    })
}

/// Writes what is to be written, unless something stands in the way; what is left.
pub(super) async fn write(connection: &Connection) -> anyhow::Result<Given> {
    let work = Work::read(connection).await?;
    if !work.obstacles.is_empty() {
        return Ok(work.told());
    }
    work.carry_out(&connection.writer).await?;
    Ok(Work::read(connection).await?.told())
}

/// Who holds the Lease and renews it. Clocks differ, so it is looked at twice.
async fn acting(connection: &Connection) -> Result<Option<String>, ClusterError> {
    let first = leases(connection).await?;
    let lasts = first.iter().filter_map(|lease| {
        let spec = lease.spec.as_ref()?;
        u64::try_from(spec.lease_duration_seconds?).ok()
    });
    let Some(lasts) = lasts.max() else {
        return Ok(None);
    };
    tokio::time::sleep(Duration::from_secs(lasts).max(LEASE)).await;
    let renewed = leases(connection).await?.into_iter().find(|now| {
        let known = first.iter().find(|then| then.uid() == now.uid());
        known.is_none_or(|then| then.resource_version() != now.resource_version())
    });
    Ok(renewed.and_then(|lease| lease.spec?.holder_identity))
}

/// The Leases of controllers that somebody holds, in whichever namespace.
async fn leases(connection: &Connection) -> Result<Vec<Lease>, ClusterError> {
    let all = connection.list::<Lease>().await?.objects;
    let held = |lease: &Lease| {
        let spec = lease.spec.as_ref();
        spec.is_some_and(|s| s.holder_identity.as_ref().is_some_and(|h| !h.is_empty()))
    };
    let ours = |lease: &Lease| lease.name_any() == names::CONTROLLER_LEASE && held(lease);
    Ok(all.into_iter().filter(ours).collect())
}

impl Work {
    async fn read(connection: &Connection) -> Result<Self, ClusterError> {
        let pools = connection.list::<SpiderIPPool>().await?;
        let subnets = connection.list::<SpiderSubnet>().await?;
        let reservations = connection.list::<SpiderReservedIP>().await?;
        let endpoints = connection.list::<SpiderEndpoint>().await?;
        let malformed = pools.malformed.iter().chain(&subnets.malformed);
        let malformed = malformed.chain(&reservations.malformed);
        let malformed = malformed.map(|(name, why)| format!("{name} can't be read: {why}"));
        let malformed: Vec<String> = malformed.collect();
        let mut work = Self::of(
            &subnets.objects,
            &pools.objects,
            &reservations.objects,
            &endpoints.objects,
        );
        work.obstacles.extend(malformed);
        Ok(work)
    }

    /// What the objects say. Pure.
    fn of(
        subnets: &[SpiderSubnet],
        pools: &[SpiderIPPool],
        reservations: &[SpiderReservedIP],
        endpoints: &[SpiderEndpoint],
    ) -> Self {
        let mut work = Self::default();
        let mut totals: BTreeMap<PoolName, AddrSet> = BTreeMap::new();
        let mut parsed_pools = vec![];
        for raw in pools {
            match convert::pool(raw) {
                Ok(parsed) => {
                    let total = original::total(&parsed);
                    totals.insert(parsed.name.clone(), total);
                    parsed_pools.push(parsed.clone());
                    work.add_pool(raw, parsed);
                }
                Err(fault) => work.cannot_read(&raw.name_any(), &fault.to_string()),
            }
        }
        for raw in subnets {
            match convert::subnet(raw) {
                Ok(parsed) => {
                    let new = original::subnet(raw, &parsed, &totals);
                    if new != *raw {
                        work.subnets.push(new);
                    }
                    work.obstacles.extend(outside(&parsed, &parsed_pools));
                }
                Err(fault) => work.cannot_read(&raw.name_any(), &fault.to_string()),
            }
        }
        work.obstacles.extend(shared(&parsed_pools));
        work.obstacles
            .extend(parsed_pools.iter().flat_map(being_moved));
        for raw in reservations {
            work.add_reservation(raw);
        }
        work.notes
            .extend(without_endpoint(&parsed_pools, endpoints));
        let endpoints = endpoints
            .iter()
            .filter(|e| e.metadata.deletion_timestamp.is_none());
        let changed = endpoints.map(|raw| (raw, original::endpoint(raw)));
        let changed = changed.filter(|(raw, new)| new != *raw).map(|(_, new)| new);
        work.endpoints.extend(changed);
        work
    }

    fn add_pool(&mut self, raw: &SpiderIPPool, parsed: Pool) {
        let main = original::pool(raw, &parsed);
        if main != *raw || original::pool_status(raw, &parsed) != *raw {
            self.pools.push((main, parsed));
        }
    }

    fn add_reservation(&mut self, raw: &SpiderReservedIP) {
        let new = original::reservation(raw);
        let refused = reserved::judge(draft::reserved(&new), None, ANY_FAMILY);
        for refusal in refused.err().into_iter().flatten() {
            self.obstacles.push(format!(
                "{} {} can't be read by the original, {refusal}: mend the field, or write two \
                 objects, one for each family",
                names::KIND_RESERVED_IP,
                raw.name_any()
            ));
        }
        if new != *raw {
            self.reservations.push(new);
        }
    }

    fn cannot_read(&mut self, name: &str, why: &str) {
        self.obstacles.push(format!("{name} can't be read: {why}"));
    }

    fn told(&self) -> Given {
        let pools = self.pools.iter().map(|(pool, _)| {
            format!(
                "{} {}: without what only Orbweaver reads",
                names::KIND_POOL,
                pool.name_any()
            )
        });
        let subnets = self.subnets.iter().map(|subnet| {
            let name = subnet.name_any();
            format!(
                "{} {name}: a ledger that shows just what its pools have",
                names::KIND_SUBNET
            )
        });
        let reservations = self.reservations.iter().map(|reservation| {
            format!(
                "{} {}: with spec.ipVersion, without which the original may crash",
                names::KIND_RESERVED_IP,
                reservation.name_any()
            )
        });
        let endpoints = (!self.endpoints.is_empty()).then(|| {
            let count = counted(self.endpoints.len(), names::KIND_ENDPOINT);
            format!("{count}: with the finalizer by which the original frees addresses")
        });
        let writes: Vec<String> = pools
            .chain(subnets)
            .chain(reservations)
            .chain(endpoints)
            .collect();
        Given {
            done: writes.is_empty() && self.obstacles.is_empty(),
            obstacles: self.obstacles.clone(),
            writes,
            notes: self.notes.clone(),
        }
    }

    /// Pools first: one whose admission is gone gives out nothing while the rest is written.
    async fn carry_out(&self, client: &Client) -> anyhow::Result<()> {
        for (main, parsed) in &self.pools {
            let mut pool = main.clone();
            let name = pool.name_any();
            let what = || format!("IPPool {name} was not written; run this again");
            put::replace(client, Part::Main, &mut pool, Reply::MetadataOnly)
                .await
                .with_context(what)?;
            let mut pool = original::pool_status(&pool, parsed);
            put::replace(client, Part::Status, &mut pool, Reply::MetadataOnly)
                .await
                .with_context(what)?;
        }
        for subnet in &self.subnets {
            let mut subnet = subnet.clone();
            put::replace(client, Part::Main, &mut subnet, Reply::MetadataOnly).await?;
            put::replace(client, Part::Status, &mut subnet, Reply::MetadataOnly).await?;
        }
        for reservation in &self.reservations {
            let mut reservation = reservation.clone();
            put::replace(client, Part::Main, &mut reservation, Reply::MetadataOnly).await?;
        }
        for endpoint in &self.endpoints {
            let mut endpoint = endpoint.clone();
            put::replace(client, Part::Main, &mut endpoint, Reply::MetadataOnly).await?;
        }
        Ok(())
    }
}

/// Pods with addresses and no endpoint, by which alone the original knows what a Pod has: with
/// [`crate::config::EndpointMode`] other than `Always` nobody wrote one.
fn without_endpoint(pools: &[Pool], endpoints: &[SpiderEndpoint]) -> Option<String> {
    let with: BTreeSet<PodName> = endpoints
        .iter()
        .map(|e| PodName::new(&e.namespace().unwrap_or_default(), &e.name_any()))
        .collect();
    let records = pools.iter().flat_map(|pool| pool.records.iter());
    let of_pods = records.filter(|(_, record)| !quarantine::is_quarantined(record));
    let without: BTreeSet<&PodName> = of_pods
        .map(|(_, record)| &record.pod)
        .filter(|pod| !with.contains(*pod))
        .collect();
    let first = without.first()?;
    let count = counted(without.len(), "Pod");
    Some(format!(
        "{count} with addresses and without {}, {first} for one: under the original they run on, their \
         addresses come back only by its scan, and a StatefulSet's among them get others at their next \
         start",
        names::KIND_ENDPOINT
    ))
}

/// Pools with addresses in common, in whichever CIDRs. Of these [`ipam::plan`] lets one serve; the
/// original knows of no such order once they are stored.
fn shared(pools: &[Pool]) -> Vec<String> {
    let totals: Vec<AddrSet> = pools.iter().map(original::total).collect();
    let pairs = overlap::pairs(&totals).into_iter();
    let told = pairs.filter_map(|((a, b), both)| {
        let (a, b) = (&pools.get(a)?.name, &pools.get(b)?.name);
        Some(format!(
            "IPPools {a} and {b} both have {both}: under the original both serve, so that one \
             address goes to two Pods, and it refuses every later change of either. Take it out of \
             the one whose Pods have none of it (spec.ips, spec.excludeIPs)"
        ))
    });
    told.collect()
}

/// Addresses that two Pods have, since a virtual machine moves from one to the other: a record of the
/// original has room for one.
fn being_moved(pool: &Pool) -> impl Iterator<Item = String> {
    let name = &pool.name;
    pool.records.iter().filter_map(move |(address, record)| {
        let next = record.next.as_ref()?;
        Some(format!(
            "{address} of IPPool {name} is that of Pod {} and of Pod {}, to which the virtual machine \
             moves: the original frees it when the first one ends, while the other has it. Let \
             Orbweaver run until the move is over: nobody else ends it in the record",
            record.pod, next.pod
        ))
    })
}

/// Pools of the subnet that the original would refuse: with addresses that the subnet lacks.
fn outside(subnet: &Subnet, pools: &[Pool]) -> Vec<String> {
    let of_subnet = pools.iter().filter(|pool| pool.cidr == subnet.cidr);
    let beyond = of_subnet.map(|pool| (pool, original::total(pool).difference(&subnet.total())));
    let beyond = beyond.filter(|(_, beyond)| !beyond.is_empty());
    beyond
        .map(|(pool, beyond)| {
            format!(
                "IPPool {} has {beyond}, which SpiderSubnet {} lacks, and the original refuses such \
                 a pool: add them to spec.ips of the subnet, or take what is free out of the pool",
                pool.name, subnet.name
            )
        })
        .collect()
}

impl Report for Given {
    fn text(&self, width: Option<usize>) -> String {
        let mut text = String::new();
        for note in &self.notes {
            text.push_str(&paragraph("? ", note, width));
        }
        if self.done {
            return text + "everything is as the original has it\n";
        }
        for obstacle in &self.obstacles {
            text.push_str(&paragraph("! ", obstacle, width));
        }
        for write in &self.writes {
            text.push_str(&paragraph("- ", write, width));
        }
        let end = if self.obstacles.is_empty() {
            "nothing is written without --yes\n"
        } else {
            "nothing is written before what is marked with ! is mended\n"
        };
        text + end
    }
}

#[cfg(test)]
mod tests;
