//! Events: one store, two views. Stored as the core group has them.

use serde_json::{Value, json};

use crate::object::as_map;

/// Fields with two names: in the core group, and in `events.k8s.io`.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An event of the core group as `events.k8s.io` shows it.
pub(crate) fn to_new(stored: &Value) -> Value {
    renamed(stored, |old, new| (old, new), "events.k8s.io/v1")
}

/// An event of `events.k8s.io` as it is stored.
pub(crate) fn to_old(shown: &Value) -> Value {
    renamed(shown, |old, new| (new, old), "v1")
}

fn renamed(
    event: &Value,
    direction: fn(&'static str, &'static str) -> (&'static str, &'static str),
    api_version: &str,
) -> Value {
    let mut event = event.clone();
    let top = as_map(&mut event);
    for (old, new) in RENAMED {
        let (from, to) = direction(old, new);
        if let Some(value) = top.remove(from) {
            top.insert(to.to_owned(), value);
        }
    }
    top.insert("apiVersion".to_owned(), json!(api_version));
    event
}
