//! The scale subresource: replicas as an object of their own.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;

/// An object's scale.
///
/// Errors: 404 if the kind has none.
pub(crate) fn of(kind: &Kind, object: &Value) -> Result<Value, ApiError> {
    let paths = kind.scale.as_ref().ok_or_else(ApiError::no_such_resource)?;
    let number = |at: &str| {
        object
            .pointer(at)
            .and_then(Value::as_i64)
            .unwrap_or_default()
    };
    let selector = match &paths.selector {
        Some(at) => object::text(object, at).to_owned(),
        None => selector_text(object.pointer("/spec/selector")),
    };
    let mut metadata = json!({});
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        object::as_map(&mut metadata).insert(key.to_owned(), json!(object::meta(object, key)));
    }
    object::as_map(&mut metadata).retain(|_, value| !value.is_null());
    let mut spec = json!({ "replicas": number(&paths.spec) });
    if number(&paths.spec) == 0 {
        spec = json!({});
    }
    let mut status = json!({ "replicas": number(&paths.status) });
    if !selector.is_empty() {
        object::as_map(&mut status).insert("selector".to_owned(), json!(selector));
    }
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }))
}

/// Takes the replicas of a scale into the object.
///
/// Errors: 400 for a scale that is none, 422 for a negative number.
pub(crate) fn into_object(kind: &Kind, scale: &Value, object: &Value) -> Result<Value, ApiError> {
    let paths = kind.scale.as_ref().ok_or_else(ApiError::no_such_resource)?;
    let replicas = scale
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    if replicas < 0 {
        let cause = crate::error::Cause::invalid(
            "spec.replicas",
            &json!(replicas),
            "must be greater than or equal to 0",
        );
        let name = object::name(object);
        return Err(ApiError::invalid_of("autoscaling", "Scale", name, &[cause]));
    }
    let mut changed = object.clone();
    set(&mut changed, &paths.spec, json!(replicas));
    let version = object::meta(scale, "resourceVersion").unwrap_or_default();
    object::metadata(&mut changed).insert("resourceVersion".to_owned(), json!(version));
    Ok(changed)
}

/// Sets a value at a pointer, making the maps on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let steps: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
    let Some((last, way)) = steps.split_last() else {
        return;
    };
    let mut at = object;
    for step in way {
        at = object::as_map(at)
            .entry((*step).to_owned())
            .or_insert_with(|| json!({}));
    }
    object::as_map(at).insert((*last).to_owned(), value);
}

/// A label selector in the form of queries: `a=b,c in (d,e),!f`.
fn selector_text(selector: Option<&Value>) -> String {
    let Some(selector) = selector else {
        return String::new();
    };
    let mut terms: Vec<String> = Vec::new();
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for one in expressions.into_iter().flatten() {
        let key = object::text(one, "/key");
        let values: Vec<&str> = one
            .get("values")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        terms.push(match object::text(one, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    terms.sort();
    terms.join(",")
}
