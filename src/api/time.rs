//! The two libraries' clocks, and the one reading of the wall clock.
//!
//! Owns: conversion between `jiff`, which `kube` and `k8s-openapi` speak, and `chrono`, which the
//! core speaks. Never does: arithmetic. Invariants: no other file of this package names both, and
//! no other of a role reads the wall clock; the demo does, which is a cluster of its own.

use std::future::Future;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// What shows the time on a machine.
pub type Wall = Arc<dyn Fn() -> Timestamp + Send + Sync>;

tokio::task_local! {
    /// The clock of the machine that this task runs on, where that is not this one.
    static WALL: Option<Wall>;
}

/// The wall clock now. The core takes time as a parameter; this is where it comes from.
pub fn now() -> DateTime<Utc> {
    from_timestamp(wall().map_or_else(Timestamp::now, |wall| wall()))
}

fn wall() -> Option<Wall> {
    WALL.try_with(Clone::clone).ok().flatten()
}

/// `task` as on a machine with this clock: in a simulation each has its own, and one thread them all.
pub fn on_machine<F: Future>(wall: Wall, task: F) -> impl Future<Output = F::Output> {
    WALL.scope(Some(wall), task)
}

/// `task` as on the machine of whoever starts it: tokio's tasks inherit nothing by themselves.
pub fn on_same_machine<F: Future>(task: F) -> impl Future<Output = F::Output> {
    WALL.scope(wall(), task)
}

/// A time on an object, for the core.
pub fn from_wire(time: &Time) -> DateTime<Utc> {
    from_timestamp(time.0)
}

/// The core's time, for a field of an object, to the second.
pub fn to_wire(time: DateTime<Utc>) -> Time {
    Time(to_timestamp(time))
}

/// The core's time, for a field of an object, to the microsecond.
pub fn to_micro(time: DateTime<Utc>) -> MicroTime {
    MicroTime(to_timestamp(time))
}

/// `chrono` reaches further than `jiff` (the years -9999 to 9999) on both sides, so nothing is cut.
fn from_timestamp(time: Timestamp) -> DateTime<Utc> {
    // The parts of a timestamp before 1970 are both negative; chrono wants positive nanoseconds.
    let nanos = time.as_nanosecond();
    let second = nanos.div_euclid(1_000_000_000);
    let rest = nanos.rem_euclid(1_000_000_000);
    let (Ok(second), Ok(rest)) = (i64::try_from(second), u32::try_from(rest)) else {
        return DateTime::UNIX_EPOCH;
    };
    DateTime::from_timestamp(second, rest).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Times beyond `jiff`'s reach become its first or last; a leap second its second's last instant.
fn to_timestamp(time: DateTime<Utc>) -> Timestamp {
    let nanos = time.timestamp_subsec_nanos().min(999_999_999);
    let whole = i128::from(time.timestamp()) * 1_000_000_000 + i128::from(nanos);
    Timestamp::from_nanosecond(whole).unwrap_or(if whole < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_reads_the_same_in_both() {
        let wire: Time = serde_json::from_str("\"2026-11-22T17:41:24Z\"").unwrap();
        let core = from_wire(&wire);
        assert_eq!(core.to_rfc3339(), "2026-11-22T17:41:24+00:00");
        assert_eq!(to_wire(core), wire);
    }

    #[tokio::test]
    async fn each_machine_has_its_clock_and_tasks_stay_on_theirs() {
        let wall: Wall = Arc::new(|| Timestamp::UNIX_EPOCH);
        let there = on_machine(wall, async {
            let task = tokio::spawn(on_same_machine(async { now() }));
            (
                now(),
                task.await.unwrap(),
                tokio::spawn(async { now() }).await.unwrap(),
            )
        });
        let (own, of_task, of_stray) = there.await;
        assert_eq!((own, of_task), (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH));
        assert!(of_stray > DateTime::UNIX_EPOCH, "this machine's");
        assert!(now() > DateTime::UNIX_EPOCH);
    }

    #[test]
    fn the_ends_of_each_reach_stay_ends() {
        assert_eq!(to_timestamp(DateTime::<Utc>::MIN_UTC), Timestamp::MIN);
        assert_eq!(to_timestamp(DateTime::<Utc>::MAX_UTC), Timestamp::MAX);
        for end in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(to_timestamp(from_timestamp(end)), end);
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same(second in -300_000_000_000_i64..250_000_000_000, nanos in 0_i32..1_000_000_000) {
            let time = Timestamp::new(second, 0).unwrap()
                .checked_add(jiff::SignedDuration::from_nanos(nanos.into())).unwrap();
            prop_assert_eq!(to_timestamp(from_timestamp(time)), time);
        }
    }
}
