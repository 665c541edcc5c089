//! Conditions on pools and subnets: what the controller last saw, for people and for `kubectl wait`.
//!
//! Owns: the wire form and the one way to change a list of them. Never does: read a clock; `now`
//! is a parameter. Invariants: one condition a type; `lastTransitionTime` moves only when `status`
//! does; conditions of other writers stay as and where they are.

use ipam::plan::ConditionKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Unknown;

/// A condition of the standard form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is observed, in CamelCase.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// `metadata.generation` of the object when it was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// Why, one word in CamelCase for programs.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Why, in words and numbers for people.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Whether a condition holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It doesn't hold.
    False,
    /// It can't be told.
    Unknown,
}

/// What was observed in one pass about one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Which condition.
    pub type_: ConditionKind,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, one word in CamelCase.
    pub reason: String,
    /// Why, in words and numbers.
    pub message: String,
    /// `metadata.generation` of the object the observation is about.
    pub generation: Option<i64>,
}

/// Enters what was observed; true if that changed the list, so that a status without news is not
/// written.
///
/// `now` counts only where `status` flips or the condition is new. A new condition goes last: the
/// order of a list that others read should not move. Cost: O(n).
pub fn upsert(conditions: &mut Vec<Condition>, seen: Observed, now: &Time) -> bool {
    let Observed {
        type_,
        status,
        reason,
        message,
        generation,
    } = seen;
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == type_.as_str()) else {
        conditions.push(Condition {
            type_: type_.as_str().to_owned(),
            status,
            observed_generation: generation,
            last_transition_time: now.clone(),
            reason,
            message,
            unknown: Unknown::new(),
        });
        return true;
    };
    let before = old.clone();
    if old.status != status {
        old.last_transition_time = now.clone();
    }
    old.status = status;
    old.reason = reason;
    old.message = message;
    old.observed_generation = generation;
    *old != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn ready(status: ConditionStatus, message: &str) -> Observed {
        Observed {
            type_: ConditionKind::Ready,
            status,
            reason: "Admitted".to_owned(),
            message: message.to_owned(),
            generation: Some(7),
        }
    }

    #[test]
    fn a_new_condition_goes_last_and_starts_now() {
        let mut list = Vec::new();
        assert!(upsert(
            &mut list,
            ready(ConditionStatus::True, "ok"),
            &at(10)
        ));
        let exhausted = Observed {
            type_: ConditionKind::Exhausted,
            ..ready(ConditionStatus::False, "3 of 5 free")
        };
        assert!(upsert(&mut list, exhausted, &at(20)));
        let seen: Vec<_> = list
            .iter()
            .map(|c| (c.type_.as_str(), c.last_transition_time.clone()))
            .collect();
        assert_eq!(seen, [("Ready", at(10)), ("Exhausted", at(20))]);
        assert_eq!(list[0].observed_generation, Some(7));
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut list = Vec::new();
        upsert(&mut list, ready(ConditionStatus::True, "ok"), &at(10));
        assert!(upsert(
            &mut list,
            ready(ConditionStatus::True, "still"),
            &at(20)
        ));
        assert_eq!(list[0].last_transition_time, at(10));
        assert_eq!(list[0].message, "still");
        assert!(upsert(
            &mut list,
            ready(ConditionStatus::False, "no"),
            &at(30)
        ));
        assert_eq!(list[0].last_transition_time, at(30));
    }

    #[test]
    fn the_same_observation_changes_nothing() {
        let mut list = Vec::new();
        upsert(&mut list, ready(ConditionStatus::True, "ok"), &at(10));
        let before = list.clone();
        assert!(!upsert(
            &mut list,
            ready(ConditionStatus::True, "ok"),
            &at(20)
        ));
        assert_eq!(list, before);
    }

    #[test]
    fn conditions_of_other_writers_stay() {
        let mut list: Vec<Condition> = serde_json::from_value(serde_json::json!([{
            "type": "example.com/Audited", "status": "True", "reason": "Scan", "message": "",
            "lastTransitionTime": "2026-11-22T17:41:24Z", "by": "someone"
        }]))
        .unwrap();
        let other = list[0].clone();
        upsert(&mut list, ready(ConditionStatus::True, "ok"), &at(10));
        assert_eq!(list[0], other);
        assert_eq!(list[0].unknown["by"], "someone");
    }
}
