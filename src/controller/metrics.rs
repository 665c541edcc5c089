//! What the controller counts, for Prometheus.
//!
//! Owns: the names and meanings of the controller's series. Never does: serve them
//! ([`crate::ports`]). Names that begin with `spiderpool_` are the ones Spiderpool documents, here
//! as gauges where it has counters that add totals up. Pools and subnets are looked at in the
//! caches when somebody scrapes; nothing is counted along. Series of single pools exist only on
//! request, since their number grows with the cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ipam::plan::ConditionKind;
use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::conditions::ConditionStatus;
use crate::api::names::label;
use crate::api::{SpiderIPPool, SpiderSubnet};
use crate::kube_io::cache::Cache;
use crate::pool_writer::Tally;

/// Upper bounds of the time of a pass, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];
/// Conditions whose pools are counted.
const CONDITIONS: [ConditionKind; 3] = [
    ConditionKind::Ready,
    ConditionKind::Exhausted,
    ConditionKind::Conflicting,
];
/// Label of series of one pool.
const POOL: &str = "SpiderIPPool";
/// Label of series of one subnet.
const SUBNET: &str = "SpiderSubnet";

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum PassOutcome {
    /// All it planned is written.
    Done,
    /// Another write was faster; it is repeated.
    Conflict,
    /// Something could not be read or written; it is repeated.
    Failed,
}

impl PassOutcome {
    const ALL: [Self; 3] = [Self::Done, Self::Conflict, Self::Failed];
}

/// What became of an interface for which an address was asked before its sandbox was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Bind {
    /// It is recorded.
    Bound,
    /// It is not: the node's agent asks.
    Refused,
}

impl Bind {
    const ALL: [Self; 2] = [Self::Bound, Self::Refused];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BindLabels {
    outcome: Bind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    outcome: PassOutcome,
}

/// What a record without a living owner waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum GcState {
    /// The agent of its node, which is well.
    Agent,
    /// A sign that its node has let go.
    Waiting,
    /// The look that confirms it.
    Due,
    /// A further look, because many are due.
    Braked,
}

impl GcState {
    const ALL: [Self; 4] = [Self::Agent, Self::Waiting, Self::Due, Self::Braked];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GcLabels {
    state: GcState,
}

/// The controller's series. Cheap to clone: clones count into the same ones.
#[derive(Debug, Clone)]
pub struct Metrics {
    passes: Family<PassLabels, Counter>,
    seconds: Histogram,
    leads: Gauge,
    binds: Family<BindLabels, Counter>,
    collected: Counter,
    not_collected: Counter,
    collectable: Family<GcLabels, Gauge>,
    pub(super) pools: Tally,
    world: Arc<OnceLock<World>>,
}

impl Metrics {
    /// All series, in `registry`; with two of each pool if `of_each_pool`.
    pub fn register(registry: &mut Registry, of_each_pool: bool) -> Self {
        let ours = registry.sub_registry_with_prefix("orbweaver_controller");
        let metrics = Self {
            pools: Tally::register(ours),
            passes: Family::default(),
            seconds: Histogram::new(SECONDS),
            leads: Gauge::default(),
            binds: Family::default(),
            collected: Counter::default(),
            not_collected: Counter::default(),
            collectable: Family::default(),
            world: Arc::default(),
        };
        ours.register(
            "passes",
            "Looks at one CIDR and all its pools",
            metrics.passes.clone(),
        );
        ours.register_with_unit(
            "pass_duration",
            "Time of a look at one CIDR, with what it wrote",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        ours.register(
            "leads",
            "1 if this replica holds the Lease and acts, else 0",
            metrics.leads.clone(),
        );
        ours.register(
            "early_binds",
            "Addresses asked for Pods that have a node and no sandbox yet",
            metrics.binds.clone(),
        );
        registry.register(
            "spiderpool_ip_gc_counts",
            "Addresses of Pods that ended, released by the controller",
            metrics.collected.clone(),
        );
        registry.register(
            "spiderpool_ip_gc_failure_counts",
            "Addresses of Pods that ended, which the controller failed to release",
            metrics.not_collected.clone(),
        );
        registry.register(
            "orbweaver_gc_records",
            "Addresses of Pods that ended, and what their release waits for",
            metrics.collectable.clone(),
        );
        registry.register_collector(Box::new(Books {
            world: Arc::clone(&metrics.world),
            of_each_pool,
        }));
        // A rate sees the first of something only where there was a zero before.
        for outcome in PassOutcome::ALL {
            metrics
                .passes
                .get_or_create(&PassLabels { outcome })
                .inc_by(0);
        }
        for outcome in Bind::ALL {
            metrics
                .binds
                .get_or_create(&BindLabels { outcome })
                .inc_by(0);
        }
        metrics.collectable(&[]);
        metrics
    }

    /// Has pools and subnets looked at in these caches from now on.
    pub(super) fn look_at(&self, pools: Cache<SpiderIPPool>, subnets: Cache<SpiderSubnet>) {
        // A role starts once; whoever came first is asked.
        let _ = self.world.set(World { pools, subnets });
    }

    /// Counts a pass.
    pub(super) fn passed(&self, outcome: PassOutcome, took: Duration) {
        self.passes.get_or_create(&PassLabels { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts an address asked for before there was a sandbox.
    pub(super) fn asked_early(&self, outcome: Bind) {
        self.binds.get_or_create(&BindLabels { outcome }).inc();
    }

    /// Counts addresses released without an agent.
    pub(super) fn collected(&self, count: usize) {
        self.collected.inc_by(u64::try_from(count).unwrap_or(0));
    }

    /// Counts addresses that should have been.
    pub(super) fn not_collected(&self, count: usize) {
        self.not_collected.inc_by(u64::try_from(count).unwrap_or(0));
    }

    /// Notes what a look found; of the states not among these there are none.
    pub(super) fn collectable(&self, found: &[(GcState, usize)]) {
        for state in GcState::ALL {
            let of_state = found.iter().filter(|(found, _)| *found == state);
            let count = of_state.map(|(_, count)| count).sum::<usize>();
            let gauge = self.collectable.get_or_create(&GcLabels { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Notes whether this replica acts.
    pub(super) fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
    }
}

struct World {
    pools: Cache<SpiderIPPool>,
    subnets: Cache<SpiderSubnet>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

/// Pools and subnets as they are at the moment of a scrape.
#[derive(Debug)]
struct Books {
    world: Arc<OnceLock<World>>,
    of_each_pool: bool,
}

/// One gauge of one object.
type Sample = (String, i64);

impl Collector for Books {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(World { pools, subnets }) = self.world.get() else {
            return Ok(());
        };
        let (pools, subnets) = (pools.list(), subnets.list());
        let pools: Vec<PoolFacts> = pools.iter().map(|pool| PoolFacts::of(pool)).collect();
        let mut of_subnet: BTreeMap<&str, PoolsOf> = BTreeMap::new();
        for pool in &pools {
            if let Some(subnet) = pool.subnet.as_deref() {
                of_subnet.entry(subnet).or_default().add(pool);
            }
        }
        let subnets: Vec<SubnetFacts> = subnets
            .iter()
            .map(|subnet| SubnetFacts::of(subnet, &of_subnet))
            .collect();
        totals(&mut encoder, &pools, &subnets)?;
        let by = |of: fn(&SubnetFacts) -> i64| -> Vec<Sample> {
            let each = subnets.iter().map(|s| (s.name.clone(), of(s)));
            each.collect()
        };
        let each = [
            (
                "total_ip_counts",
                "Addresses of a SpiderSubnet",
                by(|s| s.total),
            ),
            (
                "available_ip_counts",
                "Addresses of a SpiderSubnet that no pool has",
                by(|s| s.total - s.used),
            ),
            (
                "ippool_counts",
                "Pools that have addresses of a SpiderSubnet",
                by(|s| s.pools),
            ),
        ];
        for (name, help, samples) in each {
            let name = format!("spiderpool_debug_subnet_{name}");
            gauges(&mut encoder, &name, help, SUBNET, &samples)?;
        }
        gauges(
            &mut encoder,
            "orbweaver_subnet_free_addresses",
            "Addresses of a SpiderSubnet that no pool has, and those that no Pod has of pools made \
             by hand that serve",
            SUBNET,
            &by(|s| s.total - s.used + s.free_by_hand),
        )?;
        if !self.of_each_pool {
            return Ok(());
        }
        let by = |of: fn(&PoolFacts) -> i64| -> Vec<Sample> {
            pools.iter().map(|p| (p.name.clone(), of(p))).collect()
        };
        let each = [
            (
                "total_ip_counts",
                "Addresses of a SpiderIPPool",
                by(|p| p.total),
            ),
            (
                "available_ip_counts",
                "Addresses of a SpiderIPPool that no Pod has",
                by(|p| p.total - p.used),
            ),
        ];
        for (name, help, samples) in each {
            let name = format!("spiderpool_debug_ippool_{name}");
            gauges(&mut encoder, &name, help, POOL, &samples)?;
        }
        Ok(())
    }
}

fn totals(
    encoder: &mut DescriptorEncoder,
    pools: &[PoolFacts],
    subnets: &[SubnetFacts],
) -> Result<(), fmt::Error> {
    for (name, help, count) in [
        (
            "spiderpool_total_ippool_counts",
            "SpiderIPPools",
            pools.len(),
        ),
        (
            "spiderpool_total_subnet_counts",
            "SpiderSubnets",
            subnets.len(),
        ),
    ] {
        let value = i64::try_from(count).unwrap_or(i64::MAX);
        let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(gauge)?;
    }
    let samples = [
        ("pooled", pools.iter().map(|pool| pool.total).sum()),
        ("recorded", pools.iter().map(|pool| pool.used).sum()),
    ]
    .map(|(state, count): (&str, i64)| (state.to_owned(), count));
    gauges(
        encoder,
        "orbweaver_addresses",
        "Addresses of all pools, and those of them that Pods have",
        "state",
        &samples,
    )?;
    let samples = CONDITIONS.map(|kind| {
        let with = pools.iter().filter(|pool| pool.conditions.contains(&kind));
        let count = i64::try_from(with.count()).unwrap_or(i64::MAX);
        (kind.as_str().to_owned(), count)
    });
    gauges(
        encoder,
        "orbweaver_ippools",
        "SpiderIPPools whose condition is true",
        "condition",
        &samples,
    )
}

fn gauges(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    samples: &[Sample],
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in samples {
        let labels = [(label, value.as_str())];
        ConstGauge::new(*count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

struct PoolFacts {
    name: String,
    subnet: Option<String>,
    /// Whether a person made it.
    is_by_hand: bool,
    total: i64,
    used: i64,
    /// Those that are true.
    conditions: Vec<ConditionKind>,
}

impl PoolFacts {
    fn of(pool: &SpiderIPPool) -> Self {
        // Not cloned: it has the text of every record.
        let status = pool.status.as_ref();
        let is_true = |kind: &ConditionKind| {
            status
                .iter()
                .flat_map(|status| &status.conditions)
                .any(|c| c.type_ == kind.as_str() && c.status == ConditionStatus::True)
        };
        Self {
            name: pool.name_any(),
            subnet: pool.labels().get(label::OWNER_SUBNET).cloned(),
            is_by_hand: !pool.labels().contains_key(label::OWNER_NAME),
            total: status.and_then(|s| s.total_ip_count).unwrap_or_default(),
            used: status
                .and_then(|s| s.allocated_ip_count)
                .unwrap_or_default(),
            conditions: CONDITIONS.into_iter().filter(is_true).collect(),
        }
    }
}

/// The pools of one subnet.
#[derive(Debug, Clone, Copy, Default)]
struct PoolsOf {
    count: i64,
    /// Addresses that no Pod has of pools that a person made and that serve.
    free_by_hand: i64,
}

impl PoolsOf {
    fn add(&mut self, pool: &PoolFacts) {
        self.count += 1;
        // One that does not serve has nothing for anybody.
        if pool.is_by_hand && pool.conditions.contains(&ConditionKind::Ready) {
            self.free_by_hand += (pool.total - pool.used).max(0);
        }
    }
}

struct SubnetFacts {
    name: String,
    total: i64,
    used: i64,
    pools: i64,
    free_by_hand: i64,
}

impl SubnetFacts {
    fn of(subnet: &SpiderSubnet, pools: &BTreeMap<&str, PoolsOf>) -> Self {
        let name = subnet.name_any();
        let pools = pools.get(name.as_str()).copied().unwrap_or_default();
        let status = subnet.status.as_ref();
        Self {
            name,
            total: status.and_then(|s| s.total_ip_count).unwrap_or_default(),
            used: status
                .and_then(|s| s.allocated_ip_count)
                .unwrap_or_default(),
            pools: pools.count,
            free_by_hand: pools.free_by_hand,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn scraped(of_each_pool: bool, pools: &[Value], subnets: &[Value]) -> String {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, of_each_pool);
        let (pool_cache, subnet_cache) = (Cache::new(), Cache::new());
        for pool in pools {
            pool_cache.apply_written(serde_json::from_value(pool.clone()).unwrap());
        }
        for subnet in subnets {
            subnet_cache.apply_written(serde_json::from_value(subnet.clone()).unwrap());
        }
        metrics.look_at(pool_cache, subnet_cache);
        metrics.passed(PassOutcome::Done, Duration::from_millis(7));
        metrics.leads(true);
        metrics.collected(3);
        metrics.not_collected(1);
        metrics.collectable(&[(GcState::Due, 9)]);
        metrics.collectable(&[(GcState::Waiting, 2)]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn what_is_collected_is_counted_and_what_waits_is_as_the_last_look_found_it() {
        let text = scraped(false, &[], &[]);
        for line in [
            "spiderpool_ip_gc_counts_total 3",
            "spiderpool_ip_gc_failure_counts_total 1",
            "orbweaver_gc_records{state=\"Waiting\"} 2",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        assert_has(&text, "orbweaver_gc_records{state=\"Due\"} 0");
    }

    #[test]
    fn what_alerts_ask_for_is_there_before_it_happens() {
        let text = scraped(false, &[], &[]);
        for line in [
            "orbweaver_controller_passes_total{outcome=\"Failed\"} 0",
            "orbweaver_controller_passes_total{outcome=\"Conflict\"} 0",
            "orbweaver_controller_early_binds_total{outcome=\"Refused\"} 0",
            "orbweaver_controller_pool_writes_total{outcome=\"Failed\"} 0",
            "orbweaver_gc_records{state=\"Braked\"} 0",
        ] {
            assert_has(&text, line);
        }
    }

    fn pool(name: &str, total: i64, used: i64, exhausted: bool) -> Value {
        let condition = |kind: &str, holds: bool| {
            json!({
                "type": kind, "status": if holds { "True" } else { "False" },
                "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "R", "message": "",
            })
        };
        let conditions = [
            condition("Ready", total > 0),
            condition("Exhausted", exhausted),
        ];
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {
                "name": name, "uid": name, "resourceVersion": "1",
                "labels": {"ipam.spidernet.io/owner-spider-subnet": "net4"},
            },
            "spec": {"subnet": "10.0.0.0/24"},
            "status": {
                "totalIPCount": total, "allocatedIPCount": used, "conditions": conditions,
            },
        })
    }

    fn subnet() -> Value {
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
            "metadata": {"name": "net4", "uid": "net4", "resourceVersion": "1"},
            "spec": {"subnet": "10.0.0.0/24"},
            "status": {"totalIPCount": 200, "allocatedIPCount": 8},
        })
    }

    #[track_caller]
    fn assert_has(text: &str, line: &str) {
        assert!(
            text.lines().any(|one| one == line),
            "{line} is not in\n{text}"
        );
    }

    #[test]
    fn totals_and_subnets_are_told_without_being_asked_for() {
        let mut auto = pool("b", 3, 2, true);
        auto["metadata"]["labels"]["ipam.spidernet.io/owner-application-name"] = json!("web");
        let mut idle = pool("c", 9, 0, false);
        idle["status"]["conditions"][0]["status"] = json!("False");
        let pools = [pool("a", 5, 2, false), auto, idle];
        let text = scraped(false, &pools, &[subnet()]);
        for line in [
            "spiderpool_total_ippool_counts 3",
            "spiderpool_total_subnet_counts 1",
            "orbweaver_addresses{state=\"pooled\"} 17",
            "orbweaver_addresses{state=\"recorded\"} 4",
            "orbweaver_ippools{condition=\"Exhausted\"} 1",
            "orbweaver_ippools{condition=\"Ready\"} 2",
            "spiderpool_debug_subnet_total_ip_counts{SpiderSubnet=\"net4\"} 200",
            "spiderpool_debug_subnet_available_ip_counts{SpiderSubnet=\"net4\"} 192",
            "spiderpool_debug_subnet_ippool_counts{SpiderSubnet=\"net4\"} 3",
            "orbweaver_subnet_free_addresses{SpiderSubnet=\"net4\"} 195",
            "orbweaver_controller_passes_total{outcome=\"Done\"} 1",
            "orbweaver_controller_leads 1",
        ] {
            assert_has(&text, line);
        }
        assert!(!text.contains("debug_ippool"), "{text}");
    }

    #[test]
    fn single_pools_are_told_on_request() {
        let text = scraped(true, &[pool("a", 5, 2, false)], &[]);
        let series = "spiderpool_debug_ippool";
        assert_has(
            &text,
            &format!("{series}_total_ip_counts{{SpiderIPPool=\"a\"}} 5"),
        );
        assert_has(
            &text,
            &format!("{series}_available_ip_counts{{SpiderIPPool=\"a\"}} 3"),
        );
    }

    #[test]
    fn before_there_are_caches_a_scrape_has_no_objects() {
        let mut registry = Registry::default();
        let _metrics = Metrics::register(&mut registry, true);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(!text.contains("ippool_counts"), "{text}");
    }
}
