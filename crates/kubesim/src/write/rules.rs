//! Rules of built-in kinds, as far as controllers and people run into them.

use serde_json::{Value, json};

use crate::error::Cause;
use crate::kinds::Kind;
use crate::object::{as_map, keep_field, text};

/// Fields that can't change once an object is there: kind, and fields of its spec.
const IMMUTABLE: &[(&str, &[&str])] = &[
    ("deployments", &["selector"]),
    ("replicasets", &["selector"]),
    ("daemonsets", &["selector"]),
    (
        "jobs",
        &["completions", "selector", "completionMode", "template"],
    ),
];
/// What of a StatefulSet may change.
const STATEFUL_SET_MAY_CHANGE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const STATEFUL_SET_CHANGED: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

const POD_CHANGED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Complains of a built-in object.
pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if let Some(old) = old {
        check_change(kind, old, object, causes);
    }
    match kind.plural.as_str() {
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" => {
            check_workload(kind, object, causes);
        }
        "jobs" => {
            check_selector(object.get("spec").unwrap_or(&Value::Null), true, causes);
            let labels = object.pointer("/spec/template/metadata/labels");
            super::validate::labels(labels, "spec.template.labels", causes);
        }
        "pods" => check_containers(object.get("spec").unwrap_or(&Value::Null), "spec", causes),
        "leases" => check_lease(object, causes),
        _ => {}
    }
}

fn check_change(kind: &Kind, old: &Value, object: &Value, causes: &mut Vec<Cause>) {
    let spec = |object: &Value, key: &str| object.pointer(&format!("/spec/{key}")).cloned();
    let fixed = IMMUTABLE
        .iter()
        .find(|(plural, _)| *plural == kind.plural)
        .map_or(&[][..], |(_, keys)| keys);
    for key in fixed {
        let now = spec(object, key);
        if spec(old, key) != now {
            let value = now.unwrap_or_default();
            causes.push(Cause::invalid(
                format!("spec.{key}"),
                &value,
                "field is immutable",
            ));
        }
    }
    match kind.plural.as_str() {
        "statefulsets" => {
            let rest = |object: &Value| {
                let mut spec = object
                    .get("spec")
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default();
                spec.retain(|key, _| !STATEFUL_SET_MAY_CHANGE.contains(&key.as_str()));
                spec
            };
            if rest(old) != rest(object) {
                causes.push(Cause::forbidden("spec", STATEFUL_SET_CHANGED));
            }
        }
        "configmaps" | "secrets" if old.get("immutable") == Some(&json!(true)) => {
            for field in ["immutable", "data", "binaryData"] {
                if old.get(field) != object.get(field) {
                    causes.push(Cause::forbidden(
                        field,
                        "field is immutable when `immutable` is set",
                    ));
                }
            }
        }
        "secrets" if old.get("type") != object.get("type") => {
            let value = object.get("type").cloned().unwrap_or_default();
            causes.push(Cause::invalid("type", &value, "field is immutable"));
        }
        "pods" => check_pod_change(old, object, causes),
        "nodes" => {
            let ranges = |node: &Value| node.pointer("/spec/podCIDRs").cloned();
            if ranges(old).is_some() && ranges(old) != ranges(object) {
                let why = "node updates may not change podCIDR except from \"\" to valid";
                causes.push(Cause::forbidden("spec.podCIDRs", why));
            }
        }
        "priorityclasses" if old.get("value") != object.get("value") => {
            causes.push(Cause::forbidden(
                "value",
                "may not be changed in an update.",
            ));
        }
        _ => {}
    }
}

/// What of a Pod may change: images, and few numbers.
fn check_pod_change(old: &Value, object: &Value, causes: &mut Vec<Cause>) {
    let spec = |pod: &Value| pod.get("spec").cloned().unwrap_or_default();
    let (before, mut after) = (spec(old), spec(object));
    for list in ["containers", "initContainers"] {
        let count = |spec: &Value| spec.get(list).and_then(Value::as_array).map_or(0, Vec::len);
        if count(&before) != count(&after) {
            causes.push(Cause::forbidden(
                format!("spec.{list}"),
                "pod updates may not add or remove containers",
            ));
            return;
        }
        let images: Vec<Value> = before
            .get(list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|container| container.get("image").cloned().unwrap_or_default())
            .collect();
        let containers = after.get_mut(list).and_then(Value::as_array_mut);
        for (container, image) in containers.into_iter().flatten().zip(images) {
            as_map(container).insert("image".to_owned(), image);
        }
    }
    let number = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (number(&before), number(&after)) {
        (Some(before), Some(after)) if after > before => {
            let why = "must be less than or equal to previous value";
            causes.push(Cause::invalid(
                "spec.activeDeadlineSeconds",
                &json!(after),
                why,
            ));
            return;
        }
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            causes.push(Cause::invalid(
                "spec.activeDeadlineSeconds",
                &Value::Null,
                why,
            ));
        }
        _ => {}
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        keep_field(&before, &mut after, field);
    }
    if before != after {
        causes.push(Cause::forbidden("spec", POD_CHANGED));
    }
}

fn check_workload(kind: &Kind, object: &Value, causes: &mut Vec<Cause>) {
    let Some(spec) = object.get("spec") else {
        return;
    };
    if let Some(replicas) = spec.get("replicas").and_then(Value::as_i64)
        && replicas < 0
    {
        causes.push(Cause::invalid(
            "spec.replicas",
            &json!(replicas),
            "must be greater than or equal to 0",
        ));
    }
    check_selector(spec, kind.plural != "daemonsets", causes);
    check_containers(
        spec.pointer("/template/spec").unwrap_or(&Value::Null),
        "spec.template.spec",
        causes,
    );
}

/// A workload's selector is there and fits its own Pods.
fn check_selector(spec: &Value, required: bool, causes: &mut Vec<Cause>) {
    let selector = spec.get("selector").filter(|selector| !selector.is_null());
    let labels = spec.pointer("/template/metadata/labels");
    let wanted = selector
        .and_then(|selector| selector.get("matchLabels"))
        .and_then(Value::as_object);
    match selector {
        None if required => causes.push(Cause::required("spec.selector", "")),
        Some(selector)
            if wanted.is_none_or(serde_json::Map::is_empty)
                && selector.get("matchExpressions").is_none() =>
        {
            let why = "empty selector is invalid for deployment";
            causes.push(Cause::invalid("spec.selector", selector, why));
        }
        _ => {}
    }
    let has =
        |(key, value): (&String, &Value)| labels.and_then(|labels| labels.get(key)) == Some(value);
    if selector.is_none() || !wanted.into_iter().flatten().all(has) {
        let why = "`selector` does not match template `labels`";
        let labels = labels.cloned().unwrap_or_default();
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &labels,
            why,
        ));
    }
}

fn check_containers(spec: &Value, at: &str, causes: &mut Vec<Cause>) {
    let containers = spec
        .get("containers")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{at}.containers"), ""));
    }
    for (index, container) in containers.iter().enumerate() {
        let field = |name: &str| format!("{at}.containers[{index}].{name}");
        if text(container, "/name").is_empty() {
            causes.push(Cause::required(field("name"), ""));
        }
        if text(container, "/image").is_empty() {
            causes.push(Cause::required(field("image"), ""));
        }
    }
}

fn check_lease(object: &Value, causes: &mut Vec<Cause>) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    for field in ["leaseDurationSeconds", "leaseTransitions"] {
        let Some(number) = spec.get(field).and_then(Value::as_i64) else {
            continue;
        };
        let (wrong, why) = match field {
            "leaseDurationSeconds" => (number <= 0, "must be greater than 0"),
            _ => (number < 0, "must be greater than or equal to 0"),
        };
        if wrong {
            causes.push(Cause::invalid(format!("spec.{field}"), &json!(number), why));
        }
    }
}
