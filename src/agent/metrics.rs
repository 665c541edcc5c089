//! What the agent counts, for Prometheus.
//!
//! Owns: the names and meanings of the agent's series. Never does: serve them ([`crate::ports`]).
//! Names that begin with `spiderpool_ipam_` are the ones Spiderpool documents. Labels are enums:
//! no series is named after a Pod or a pool, so their number is fixed.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::error::Reason;
use super::release::Unreleasable;
use crate::kube_io::retry::Outcome;
use crate::pool_writer::Tally;

/// Upper bounds of the times of calls, in seconds.
const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 0.5, 1.0, 3.0, 5.0, 10.0, 15.0,
];

/// Calls of one kind: ADDs or DELs.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    total: Counter,
    failed: Counter,
    /// Those where something could not be read, or is not what it should be.
    internal: Counter,
    /// Those where a pool could not be written in time.
    late: Counter,
    /// From the request to the answer.
    seconds: Histogram,
    /// Spent waiting for a free place among the calls that are worked on at once.
    queued_seconds: Histogram,
    /// Writes of pools that another writer was faster with.
    pub(super) conflicts: Counter,
}

impl Calls {
    fn register(registry: &mut Registry, what: &str, verb: &str) -> Self {
        let calls = Self {
            total: Counter::default(),
            failed: Counter::default(),
            internal: Counter::default(),
            late: Counter::default(),
            seconds: Histogram::new(SECONDS),
            queued_seconds: Histogram::new(SECONDS),
            conflicts: Counter::default(),
        };
        registry.register(
            format!("ipam_{what}_counts"),
            format!("Calls to {verb} addresses"),
            calls.total.clone(),
        );
        registry.register(
            format!("ipam_{what}_failure_counts"),
            format!("Calls to {verb} addresses that failed, or what was tried for them later"),
            calls.failed.clone(),
        );
        registry.register(
            format!("ipam_{what}_err_internal_counts"),
            format!("Failures to {verb} addresses: something could not be read or written"),
            calls.internal.clone(),
        );
        registry.register(
            format!("ipam_{what}_err_retries_exhausted_counts"),
            format!("Failures to {verb} addresses: an IPPool could not be written in time"),
            calls.late.clone(),
        );
        registry.register(
            format!("ipam_{what}_update_ippool_conflict_counts"),
            format!("Writes of IPPools to {verb} addresses that another writer was faster with"),
            calls.conflicts.clone(),
        );
        registry.register_with_unit(
            format!("ipam_{what}_duration"),
            format!("Time of a call to {verb} addresses"),
            Unit::Seconds,
            calls.seconds.clone(),
        );
        registry.register_with_unit(
            format!("ipam_{what}_limit_duration"),
            format!("Time that a call to {verb} addresses waited for its turn"),
            Unit::Seconds,
            calls.queued_seconds.clone(),
        );
        calls
    }

    /// Counts a call that ended.
    pub(super) fn ended(&self, succeeded: bool, took: Duration) {
        self.total.inc();
        if !succeeded {
            self.failed.inc();
        }
        self.seconds.observe(took.as_secs_f64());
    }

    /// Notes what a call waited before it was worked on.
    pub(super) fn queued(&self, waited: Duration) {
        self.queued_seconds.observe(waited.as_secs_f64());
    }
}

/// The agent's series. Cheap to clone: clones count into the same ones.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) adds: Calls,
    pub(super) dels: Calls,
    no_pool: Counter,
    used_out: Counter,
    wrong_input: Counter,
    pools: Tally,
    waiting: Gauge,
    unreleased: Unreleased,
    in_conflict: Counter,
    bound_early: Counter,
}

/// What is not released yet, though its DEL was answered.
#[derive(Debug, Clone, Default)]
struct Unreleased {
    interfaces: Gauge,
    failing: Gauge,
    oldest_failing: Gauge,
}

impl Unreleased {
    fn register(registry: &mut Registry) -> Self {
        let unreleased = Self::default();
        registry.register(
            "pending_releases",
            "Interfaces whose DEL was answered and whose addresses are still recorded; also while their Pods live",
            unreleased.interfaces.clone(),
        );
        registry.register(
            "failing_releases",
            "Interfaces whose addresses the last try could not release",
            unreleased.failing.clone(),
        );
        registry.register_with_unit(
            "oldest_failing_release",
            "For how long each try to release an interface's addresses has failed, of the longest",
            Unit::Seconds,
            unreleased.oldest_failing.clone(),
        );
        unreleased
    }
}

impl Metrics {
    /// All series at zero, in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let theirs = registry.sub_registry_with_prefix("spiderpool");
        let adds = Calls::register(theirs, "allocation", "allocate");
        let dels = Calls::register(theirs, "release", "release");
        let mut failures = |why: &str, help: &str| {
            let counter = Counter::default();
            theirs.register(
                format!("ipam_allocation_err_{why}_counts"),
                help,
                counter.clone(),
            );
            counter
        };
        let no_pool = failures(
            "no_available_pool",
            "Failed ADDs: no IPPool may serve the Pod",
        );
        let used_out = failures("ip_used_out", "Failed ADDs: no IPPool has a free address");
        let wrong_input = failures(
            "wrong_input",
            "Failed ADDs: an annotation, the CNI configuration or the call itself is wrong",
        );
        let ours = registry.sub_registry_with_prefix("orbweaver_agent");
        let pools = Tally::register(ours);
        let waiting = Gauge::default();
        ours.register(
            "waiting_adds",
            "ADDs that wait for a free address now",
            waiting.clone(),
        );
        let unreleased = Unreleased::register(ours);
        let in_conflict = Counter::default();
        ours.register(
            "address_conflicts",
            "Addresses that a Pod was given and another host had",
            in_conflict.clone(),
        );
        let bound_early = Counter::default();
        ours.register(
            "early_bound_adds",
            "ADDs whose addresses were recorded before them, so that they wrote nothing",
            bound_early.clone(),
        );
        Self {
            adds,
            dels,
            no_pool,
            used_out,
            wrong_input,
            pools,
            waiting,
            unreleased,
            in_conflict,
            bound_early,
        }
    }

    /// Counts why an ADD failed.
    pub(super) fn refused(&self, why: Reason) {
        let counter = match why {
            Reason::Internal => &self.adds.internal,
            Reason::NoAvailablePool => &self.no_pool,
            Reason::RetriesExhausted => &self.adds.late,
            Reason::UsedOut => &self.used_out,
            Reason::WrongInput => &self.wrong_input,
        };
        counter.inc();
    }

    /// Counts a DEL that was refused, since it could not be kept.
    pub(super) fn del_not_kept(&self) {
        self.dels.internal.inc();
    }

    /// Counts a try to release that failed, long after its DEL was answered.
    pub(super) fn not_released(&self, why: Unreleasable) {
        self.dels.failed.inc();
        let counter = match why {
            Unreleasable::Internal => &self.dels.internal,
            Unreleasable::RetriesExhausted => &self.dels.late,
        };
        counter.inc();
    }

    /// Tells of how many interfaces addresses are to be released, how many of them the last try
    /// failed for, and since when it has of the first.
    pub(super) fn unreleased(&self, interfaces: usize, failing: usize, oldest: Duration) {
        let count = |many: usize| i64::try_from(many).unwrap_or(i64::MAX);
        self.unreleased.interfaces.set(count(interfaces));
        self.unreleased.failing.set(count(failing));
        let seconds = i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX);
        self.unreleased.oldest_failing.set(seconds);
    }

    /// Counts an address that another host has.
    pub(super) fn in_conflict(&self) {
        self.in_conflict.inc();
    }

    /// Counts an ADD that found its addresses recorded.
    pub(super) fn bound_early(&self) {
        self.bound_early.inc();
    }

    /// Counts a write of a pool that was carried out, and what it carried.
    pub(super) fn written(&self, asks: usize) {
        self.pools.written(asks);
    }

    /// Counts a write of a pool that was not carried out. `allocates` tells whether a Pod waited.
    pub(super) fn not_written(&self, outcome: Outcome, allocates: bool) {
        self.pools.not_written(outcome);
        if outcome == Outcome::Conflict {
            let calls = if allocates { &self.adds } else { &self.dels };
            calls.conflicts.inc();
        }
    }

    /// Counts a waiting ADD for as long as the answer is kept.
    pub(super) fn wait(&self) -> Waiting {
        self.waiting.inc();
        Waiting(self.waiting.clone())
    }
}

/// An ADD that waits.
#[derive(Debug)]
pub(super) struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(change: impl FnOnce(&Metrics)) -> String {
        let mut registry = Registry::default();
        change(&Metrics::register(&mut registry));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[track_caller]
    fn assert_has(text: &str, line: &str) {
        assert!(
            text.lines().any(|one| one == line),
            "{line} is not in\n{text}"
        );
    }

    #[test]
    fn series_have_the_names_that_spiderpool_documents() {
        let text = text_of(|metrics| {
            metrics.adds.ended(true, Duration::from_millis(20));
            metrics.adds.ended(false, Duration::from_secs(20));
            metrics.dels.ended(true, Duration::ZERO);
            metrics.del_not_kept();
            metrics.not_released(Unreleasable::RetriesExhausted);
        });
        let calls = ["allocation", "release"].map(|what| {
            let all = [
                "counts_total",
                "failure_counts_total",
                "update_ippool_conflict_counts_total",
                "err_internal_counts_total",
                "err_retries_exhausted_counts_total",
                "duration_seconds_sum",
                "limit_duration_seconds_sum",
            ];
            all.map(|name| format!("spiderpool_ipam_{what}_{name}"))
        });
        let further = ["no_available_pool", "ip_used_out"];
        let further =
            further.map(|why| format!("spiderpool_ipam_allocation_err_{why}_counts_total"));
        for name in calls.as_flattened().iter().chain(&further) {
            let start = format!("{name} ");
            assert!(text.lines().any(|line| line.starts_with(&start)), "{name}");
        }
        assert_has(&text, "spiderpool_ipam_allocation_counts_total 2");
        assert_has(&text, "spiderpool_ipam_allocation_failure_counts_total 1");
        assert_has(
            &text,
            "spiderpool_ipam_allocation_duration_seconds_bucket{le=\"0.025\"} 1",
        );
        assert_has(&text, "spiderpool_ipam_allocation_duration_seconds_count 2");
        assert_has(&text, "spiderpool_ipam_release_counts_total 1");
        assert_has(&text, "spiderpool_ipam_release_failure_counts_total 1");
        assert_has(&text, "spiderpool_ipam_release_err_internal_counts_total 1");
        assert_has(
            &text,
            "spiderpool_ipam_release_err_retries_exhausted_counts_total 1",
        );
    }

    #[test]
    fn each_reason_has_its_own_counter() {
        for (reason, name) in [
            (Reason::Internal, "internal"),
            (Reason::NoAvailablePool, "no_available_pool"),
            (Reason::RetriesExhausted, "retries_exhausted"),
            (Reason::UsedOut, "ip_used_out"),
            (Reason::WrongInput, "wrong_input"),
        ] {
            let text = text_of(|metrics| metrics.refused(reason));
            let lines = text.lines().filter(|line| line.contains("_err_"));
            let counted: Vec<_> = lines.filter(|line| line.ends_with(" 1")).collect();
            let expected = format!("spiderpool_ipam_allocation_err_{name}_counts_total 1");
            assert_eq!(counted, [expected.as_str()]);
        }
    }

    #[test]
    fn a_conflict_is_counted_by_whom_it_holds_up() {
        let text = text_of(|metrics| {
            metrics.not_written(Outcome::Conflict, true);
            metrics.not_written(Outcome::Conflict, false);
            metrics.not_written(Outcome::Conflict, false);
            metrics.not_written(Outcome::Unknown, true);
            metrics.written(3);
        });
        assert_has(
            &text,
            "spiderpool_ipam_allocation_update_ippool_conflict_counts_total 1",
        );
        assert_has(
            &text,
            "spiderpool_ipam_release_update_ippool_conflict_counts_total 2",
        );
        assert_has(
            &text,
            "orbweaver_agent_pool_writes_total{outcome=\"Conflict\"} 3",
        );
        assert_has(
            &text,
            "orbweaver_agent_pool_writes_total{outcome=\"Failed\"} 1",
        );
        assert_has(&text, "orbweaver_agent_pool_write_asks_sum 3.0");
    }

    #[test]
    fn who_waits_is_counted_until_the_wait_ends() {
        let text = text_of(|metrics| {
            let first = metrics.wait();
            let _second = metrics.wait();
            drop(first);
            assert_eq!(metrics.waiting.get(), 1);
        });
        assert_has(&text, "orbweaver_agent_waiting_adds 0");
    }
}
