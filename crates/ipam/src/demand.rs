//! How many addresses a workload needs.
//!
//! ```text
//! flexible +N:  max( replicas + N,  Pods that live or hold an address,
//!                    while a roll-out runs: replicas + surge + holders that no longer live )
//! fixed N:      N
//! ```
//!
//! A StatefulSet's Pods take their former ones' addresses over, so those of wanted ordinals are in
//! `replicas` and not counted again ([`holders`]). The middle term lets a Pod start while its predecessor is still stopping; the last one is the
//! headroom without which a rolling update with `maxSurge` on an exactly sized pool never ends.
//! Both fall back by themselves once the Pods are gone.

use std::collections::BTreeSet;

use crate::addr::AddrCount;
use crate::annotation::SizeRule;
use crate::keep::{self, Ordinals};
use crate::name::Uid;
use crate::quarantine::is_quarantined;
use crate::record::{Record, Records};

/// What is known of a workload's Pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodCount {
    /// Pods the workload asks for when nothing changes.
    pub replicas: u32,
    /// Pods beyond that which a running roll-out may start; 0 where none runs.
    pub surge: u32,
    /// Uids of Pods that want an address: neither finished nor being deleted.
    pub living: BTreeSet<Uid>,
    /// For a StatefulSet: the Pods it wants.
    pub ordinals: Option<Ordinals>,
}

/// Whose addresses `records` hold beside those that `replicas` counts already: an address that a
/// StatefulSet's Pod of a wanted ordinal has, or had, serves the next Pod of that ordinal and
/// nobody else. Cost: O(records).
pub fn holders<'r>(records: &'r Records, workload: &Uid, pods: &PodCount) -> BTreeSet<&'r Uid> {
    let is_counted = |record: &Record| {
        let ordinal = keep::ordinal(&record.pod).map(|(_, ordinal)| ordinal);
        let wanted = pods.ordinals.zip(ordinal);
        record.owner.as_ref() == Some(workload)
            && wanted.is_some_and(|(ordinals, ordinal)| ordinals.contains(ordinal))
    };
    let records = records.iter().map(|(_, record)| record);
    let others = records.filter(|record| !is_counted(record) && !is_quarantined(record));
    others.flat_map(Record::holders).collect()
}

/// How many addresses the pool of such a workload should have, given who holds one now.
///
/// Pure and total; never less than the rule's own number. Cost: O(living + holders).
///
/// ```
/// use ipam::annotation::SizeRule;
/// use ipam::demand::{PodCount, wanted};
///
/// let pods = PodCount { replicas: 3, surge: 1, ..PodCount::default() };
/// let holders = ["old-1", "old-2", "old-3"].map(Into::into);
/// // Three to be, one more while the roll-out runs, and three that have not let go yet.
/// assert_eq!(wanted(SizeRule::Flexible(0), &pods, &holders.iter().collect()).get(), 7);
/// ```
pub fn wanted(rule: SizeRule, pods: &PodCount, holders: &BTreeSet<&Uid>) -> AddrCount {
    let spare = match rule {
        SizeRule::Fixed(number) => return AddrCount::from(number),
        SizeRule::Flexible(spare) => spare,
    };
    let replicas = AddrCount::from(pods.replicas);
    let leaving = holders.iter().filter(|uid| !pods.living.contains(**uid));
    let leaving = count(leaving.count());
    let present = count(pods.living.len()).saturating_add(leaving);
    let rolling = if pods.surge == 0 {
        AddrCount::ZERO
    } else {
        replicas
            .saturating_add(AddrCount::from(pods.surge))
            .saturating_add(leaving)
    };
    replicas
        .saturating_add(AddrCount::from(spare))
        .max(present)
        .max(rolling)
}

fn count(n: usize) -> AddrCount {
    AddrCount::new(u128::try_from(n).unwrap_or(u128::MAX))
}

/// `maxSurge` as a count: `percent` of `replicas`, rounded up, as Kubernetes does (KEP-free rule of
/// apps/v1 `RollingUpdateDeployment`).
pub fn surge_of_percent(replicas: u32, percent: u32) -> u32 {
    let product = u64::from(replicas).saturating_mul(u64::from(percent));
    u32::try_from(product.div_ceil(100)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_quarantine, ip, pool, record};

    fn uids(names: &[&str]) -> BTreeSet<Uid> {
        names.iter().map(|n| Uid::from(*n)).collect()
    }

    fn size(rule: SizeRule, replicas: u32, surge: u32, living: &[&str], holders: &[&str]) -> u128 {
        let pods = PodCount {
            replicas,
            surge,
            living: uids(living),
            ordinals: None,
        };
        wanted(rule, &pods, &uids(holders).iter().collect()).get()
    }

    #[test]
    fn a_fixed_number_stays_whatever_the_pods_do() {
        assert_eq!(
            size(SizeRule::Fixed(4), 2, 1, &["a", "b", "c", "d", "e"], &[]),
            4
        );
    }

    #[test]
    fn a_flexible_number_is_added_to_the_replicas() {
        assert_eq!(size(SizeRule::Flexible(1), 2, 0, &[], &[]), 3);
        assert_eq!(size(SizeRule::Flexible(1), 10, 0, &["a"], &["a"]), 11);
    }

    #[test]
    fn a_roll_out_gets_its_surge_and_what_stopping_pods_still_hold() {
        assert_eq!(
            size(
                SizeRule::Flexible(0),
                3,
                1,
                &["a", "b", "c"],
                &["a", "b", "c"]
            ),
            4
        );
        assert_eq!(
            size(
                SizeRule::Flexible(0),
                3,
                1,
                &["b", "c", "d"],
                &["a", "b", "c", "d"]
            ),
            5
        );
        assert_eq!(
            size(
                SizeRule::Flexible(0),
                3,
                0,
                &["d", "e", "f"],
                &["d", "e", "f"]
            ),
            3
        );
    }

    #[test]
    fn a_pod_that_waits_behind_one_that_stops_is_counted() {
        assert_eq!(size(SizeRule::Flexible(0), 1, 0, &["new"], &["old"]), 2);
    }

    #[test]
    fn what_a_wanted_ordinal_has_or_had_needs_no_address_beside_it() {
        let of = |n: u8, pod: &str, owner: Option<&str>, kept: bool| Record {
            uid: Uid::new(format!("uid-{n}")),
            owner: owner.map(Uid::from),
            kept,
            ..record(pod)
        };
        let mut records = in_quarantine("6", pool("a", "1-6")).records;
        for (n, pod, owner, kept) in [
            (1, "web-0", Some("set"), true),
            (2, "web-1", Some("set"), false),
            (3, "web-2", Some("set"), false),
            (4, "web-0", Some("former"), true),
            (5, "web-1", None, false),
        ] {
            records.insert(ip(n), of(n, pod, owner, kept));
        }
        let mut pods = PodCount {
            replicas: 2,
            ordinals: Some(Ordinals { start: 0, count: 2 }),
            ..PodCount::default()
        };
        // A third Pod that still stops, one of a former set, one that no record ties to the set.
        let beside = uids(&["uid-3", "uid-4", "uid-5"]);
        let set = Uid::from("set");
        assert_eq!(
            holders(&records, &set, &pods),
            beside.iter().collect::<BTreeSet<_>>()
        );
        pods.ordinals = None;
        assert_eq!(holders(&records, &set, &pods).len(), 5);
    }

    #[test]
    fn surge_is_rounded_up() {
        assert_eq!(surge_of_percent(3, 25), 1);
        assert_eq!(surge_of_percent(10, 25), 3);
        assert_eq!(surge_of_percent(0, 25), 0);
    }
}
