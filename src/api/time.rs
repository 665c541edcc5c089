//! The two libraries' clocks, and the one reading of the wall clock.
//!
//! Owns: conversion between `jiff`, which `kube` and `k8s-openapi` speak, and `chrono`, which the
//! core speaks. Never does: arithmetic. Invariants: no other file of this package names both, and
//! none reads the wall clock.

use std::cell::RefCell;

use chrono::{DateTime, Utc};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

type Wall = Box<dyn Fn() -> Timestamp>;

thread_local! {
    static WALL: RefCell<Wall> = RefCell::new(Box::new(Timestamp::now));
}

/// The wall clock now. The core takes time as a parameter; this is where it comes from.
pub fn now() -> DateTime<Utc> {
    from_timestamp(WALL.with_borrow(|wall| wall()))
}

/// Hangs another clock on this thread's wall: that of a simulation, whose time is tokio's.
pub fn read_from(wall: impl Fn() -> Timestamp + 'static) {
    WALL.set(Box::new(wall));
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

    #[test]
    fn the_wall_clock_is_the_one_that_hangs_on_this_thread() {
        read_from(|| Timestamp::UNIX_EPOCH);
        assert_eq!(now(), DateTime::UNIX_EPOCH);
        let elsewhere = std::thread::spawn(now).join().unwrap();
        assert!(elsewhere > DateTime::UNIX_EPOCH);
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
