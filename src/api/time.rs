//! The two clocks' types: the Kubernetes client speaks jiff, the core speaks chrono. This file is
//! the only one that knows both.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The moment of an API object's time; `None` outside of chrono's years (±262,000).
pub fn to_chrono(time: &Time) -> Option<DateTime<Utc>> {
    let nanoseconds = u32::try_from(time.0.subsec_nanosecond()).unwrap_or_default();
    DateTime::from_timestamp(time.0.as_second(), nanoseconds)
}

/// `moment` as an API object's time, in whole seconds as the API server keeps it; moments outside
/// of jiff's years (±9999) become the epoch.
pub fn from_chrono(moment: DateTime<Utc>) -> Time {
    Time(jiff::Timestamp::from_second(moment.timestamp()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_both_ways() {
        let moment = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        assert_eq!(to_chrono(&from_chrono(moment)), Some(moment));
    }
}
