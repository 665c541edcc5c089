//! Reading and writing the metadata of objects as JSON.

use serde_json::{Map, Value, json};

/// The metadata; an empty map if there is none.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    map_at(object, "metadata")
}

/// A map below `object`, made if it isn't there.
pub(crate) fn map_at<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let slot = match object {
        Value::Object(map) => map.entry(key.to_owned()).or_insert(Value::Null),
        other => other,
    };
    as_map(slot)
}

/// A value as a map; one that is none becomes an empty one.
pub(crate) fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made a map above"),
    }
}

/// A text of the metadata.
pub(crate) fn meta<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get(key)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// `metadata.name`, empty if absent.
pub(crate) fn name(object: &Value) -> &str {
    meta(object, "name").unwrap_or_default()
}

/// `metadata.namespace`, empty if absent.
pub(crate) fn namespace(object: &Value) -> &str {
    meta(object, "namespace").unwrap_or_default()
}

/// `metadata.uid`, empty if absent.
pub(crate) fn uid(object: &Value) -> &str {
    meta(object, "uid").unwrap_or_default()
}

/// `metadata.resourceVersion`, 0 if absent.
pub(crate) fn version(object: &Value) -> u64 {
    meta(object, "resourceVersion")
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// `metadata.generation`, 0 if absent.
pub(crate) fn generation(object: &Value) -> i64 {
    object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether deletion has begun.
pub(crate) fn is_going(object: &Value) -> bool {
    meta(object, "deletionTimestamp").is_some()
}

/// A text anywhere in the object, by JSON pointer.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Copies `key` of the metadata from one object to another: as it is there, absent if absent.
pub(crate) fn keep_meta(from: &Value, to: &mut Value, key: &str) {
    let value = from.get("metadata").and_then(|meta| meta.get(key)).cloned();
    let target = metadata(to);
    match value {
        Some(value) => target.insert(key.to_owned(), value),
        None => target.remove(key),
    };
}

/// Copies a field of the top from one object to another: as it is there, absent if absent.
pub(crate) fn keep_field(from: &Value, to: &mut Value, key: &str) {
    let value = from.get(key).cloned();
    let target = as_map(to);
    match value {
        Some(value) => target.insert(key.to_owned(), value),
        None => target.remove(key),
    };
}
