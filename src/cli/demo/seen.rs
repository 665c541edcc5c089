//! The cluster at one moment, as far as the demo shows it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::record::Records;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::api::{SpiderIPPool, SpiderSubnet};

/// Holders of addresses that a row of the table names.
const HOLDERS: usize = 4;
/// Events that a person wants to see; the others are a cluster's everyday.
const TOLD: [&str; 10] = [
    "ScalingReplicaSet",
    "FailedCreatePodSandBox",
    "FailedScheduling",
    "InsufficientAddresses",
    "WaitingForIP",
    "IPPoolAdmitted",
    "IPPoolGrown",
    "IPPoolShrunk",
    "IPPoolRetired",
    "IPPoolRevoked",
];

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Pods, by name.
    pub(super) pods: BTreeMap<String, SeenPod>,
    /// Pools, by name.
    pub(super) pools: BTreeMap<String, SeenPool>,
    /// Subnets, by name, with used and all addresses.
    pub(super) subnets: BTreeMap<String, (i64, i64)>,
    /// Events worth telling.
    pub(super) events: Vec<SeenEvent>,
}

/// A Pod.
#[derive(Debug)]
pub(super) struct SeenPod {
    /// Its label `app`.
    pub(super) app: String,
    /// Whether it serves.
    pub(super) ready: bool,
    /// Whether somebody deletes it.
    pub(super) going: bool,
    /// Its addresses.
    pub(super) addresses: Vec<IpAddr>,
}

/// A pool.
#[derive(Debug)]
pub(super) struct SeenPool {
    /// Addresses that Pods hold.
    pub(super) used: i64,
    /// All its addresses.
    pub(super) size: i64,
    /// The same as ranges.
    pub(super) ranges: Vec<String>,
    /// Who holds what.
    pub(super) holders: BTreeMap<IpAddr, String>,
}

/// An Event.
#[derive(Debug, Clone)]
pub(super) struct SeenEvent {
    /// Grows from one to the next.
    order: u64,
    /// Tells it from others; a repetition is another.
    pub(super) id: (String, i32),
    /// Kind and name of what it is about.
    pub(super) about: String,
    /// Its reason.
    pub(super) reason: String,
    /// Its text.
    pub(super) message: String,
    /// `Normal` or `Warning`.
    pub(super) severity: String,
}

impl Seen {
    /// Looks.
    ///
    /// Errors: the API server doesn't answer.
    pub(super) async fn now(client: &Client) -> Result<Self, kube::Error> {
        let all = ListParams::default();
        let pods = Api::<Pod>::default_namespaced(client.clone())
            .list(&all)
            .await?;
        let pools = Api::<SpiderIPPool>::all(client.clone()).list(&all).await?;
        let subnets = Api::<SpiderSubnet>::all(client.clone()).list(&all).await?;
        let events = Api::<Event>::all(client.clone()).list(&all).await?;
        let mut events: Vec<SeenEvent> = events.items.into_iter().filter_map(event).collect();
        events.sort_by_key(|event| event.order);
        let subnet = |subnet: SpiderSubnet| {
            let status = subnet.status.clone().unwrap_or_default();
            let used = status.allocated_ip_count.unwrap_or_default();
            (
                subnet.name_any(),
                (used, status.total_ip_count.unwrap_or_default()),
            )
        };
        Ok(Self {
            pods: pods.items.iter().map(pod).collect(),
            pools: pools.items.iter().map(pool).collect(),
            subnets: subnets.items.into_iter().map(subnet).collect(),
            events,
        })
    }

    /// The Pods of an application.
    pub(super) fn of_app<'s>(
        &'s self,
        app: &'s str,
    ) -> impl Iterator<Item = (&'s str, &'s SeenPod)> {
        let pods = self.pods.iter().filter(move |(_, pod)| pod.app == app);
        pods.map(|(name, pod)| (name.as_str(), pod))
    }

    /// The pool whose name begins so.
    pub(super) fn pool(&self, prefix: &str) -> Option<(&str, &SeenPool)> {
        let mut pools = self.pools.iter();
        let found = pools.find(|(name, _)| name.starts_with(prefix));
        found.map(|(name, pool)| (name.as_str(), pool))
    }

    /// The table: subnets, pools, and who has which address.
    pub(super) fn table(&self) -> Vec<String> {
        let mut rows = vec![format!(
            "{:<24} {:>9}  {}",
            "SUBNET OR POOL", "USED/SIZE", "ADDRESSES"
        )];
        for (name, (used, size)) in &self.subnets {
            rows.push(format!("{name:<24} {:>9}", format!("{used}/{size}")));
        }
        for (name, pool) in &self.pools {
            let figures = format!("{}/{}", pool.used, pool.size);
            rows.push(format!(
                "{name:<24} {figures:>9}  {}",
                pool.ranges.join(" ")
            ));
            let holders: Vec<String> = pool
                .holders
                .iter()
                .take(HOLDERS)
                .map(|(ip, pod)| format!("{ip} {pod}"))
                .collect();
            let more = pool.holders.len().saturating_sub(HOLDERS);
            let more = if more > 0 {
                format!(", and {more} more")
            } else {
                String::new()
            };
            if !holders.is_empty() {
                rows.push(format!("    {}{more}", holders.join(", ")));
            }
        }
        rows
    }
}

fn pod(pod: &Pod) -> (String, SeenPod) {
    let status = pod.status.clone().unwrap_or_default();
    let ready = status.conditions.unwrap_or_default();
    let ips = status.pod_ips.unwrap_or_default();
    let seen = SeenPod {
        app: pod.labels().get("app").cloned().unwrap_or_default(),
        ready: ready
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True"),
        going: pod.metadata.deletion_timestamp.is_some(),
        addresses: ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect(),
    };
    (pod.name_any(), seen)
}

fn pool(pool: &SpiderIPPool) -> (String, SeenPool) {
    let status = pool.status.clone().unwrap_or_default();
    let records = Records::parse(status.allocated_ips.as_deref()).unwrap_or_default();
    let holders = records
        .iter()
        .map(|(ip, record)| (ip, record.pod.to_string()));
    let seen = SeenPool {
        used: status.allocated_ip_count.unwrap_or_default(),
        size: status.total_ip_count.unwrap_or_default(),
        ranges: pool.spec.ips.clone().unwrap_or_default(),
        holders: holders.collect(),
    };
    (pool.name_any(), seen)
}

fn event(event: Event) -> Option<SeenEvent> {
    let reason = event
        .reason
        .clone()
        .filter(|reason| TOLD.contains(&reason.as_str()))?;
    let about = event.involved_object.clone();
    let kind = about.kind.unwrap_or_default().to_lowercase();
    // What a pool is told of its size, its workload is told too.
    if kind == "spiderippool" && matches!(reason.as_str(), "IPPoolGrown" | "IPPoolShrunk") {
        return None;
    }
    let version = event.metadata.resource_version.as_deref();
    let series = event.series.as_ref().and_then(|series| series.count);
    // A pool goes in several steps, of which one is worth a line.
    let id = if reason == "IPPoolRetired" {
        (
            format!("{reason} {}", about.name.as_deref().unwrap_or_default()),
            1,
        )
    } else {
        (event.name_any(), series.or(event.count).unwrap_or(1))
    };
    Some(SeenEvent {
        order: version.and_then(|v| v.parse().ok()).unwrap_or_default(),
        id,
        about: format!("{kind}/{}", about.name.unwrap_or_default()),
        reason,
        message: event.message.unwrap_or_default(),
        severity: event.type_.unwrap_or_default(),
    })
}
