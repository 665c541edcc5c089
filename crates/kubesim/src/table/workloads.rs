//! The columns of workloads and their Pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::builtin::{amount, at, number, or, or_none, pairs, terms};
use super::{Column, age, plain, since};
use crate::kinds::Kind;
use crate::object::text;

/// `2/3`.
fn ready(name: &str, of: &'static str, wanted: &'static str) -> Column {
    plain(name, "string", 0, move |object, _| {
        json!(format!("{}/{}", amount(object, of), amount(object, wanted)))
    })
}

/// Names and images of a template's containers, and the selector: the wide columns of workloads.
fn wide(pod_spec: &'static str) -> Vec<Column> {
    let listed = move |key: &'static str| {
        move |object: &Value, _: Timestamp| {
            let containers = object
                .pointer(pod_spec)
                .and_then(|spec| spec.get("containers"))
                .and_then(Value::as_array);
            let words: Vec<&str> = containers
                .into_iter()
                .flatten()
                .filter_map(|one| one.get(key)?.as_str())
                .collect();
            json!(words.join(","))
        }
    };
    vec![
        plain("Containers", "string", 1, listed("name")),
        plain("Images", "string", 1, listed("image")),
        plain("Selector", "string", 1, |object, _| {
            json!(selector(object, "/spec/selector"))
        }),
    ]
}

/// A label selector as text, its terms in order.
fn selector(object: &Value, pointer: &str) -> String {
    let labels = pairs(object, &format!("{pointer}/matchLabels"));
    let mut terms: Vec<(String, String)> = labels
        .into_iter()
        .map(|(key, value)| (key.clone(), format!("{key}={value}")))
        .collect();
    let expressions = object
        .pointer(&format!("{pointer}/matchExpressions"))
        .and_then(Value::as_array);
    terms.extend(expressions.into_iter().flatten().map(|one| {
        let key = text(one, "/key");
        let list = one.get("values").and_then(Value::as_array);
        let mut values: Vec<&str> = list
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match text(one, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        (key.to_owned(), term)
    }));
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    let terms: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    or_none(terms.join(","))
}

pub(super) fn deployments() -> Vec<Column> {
    let mut columns = vec![
        ready("Ready", "/status/readyReplicas", "/spec/replicas"),
        // Numbers, and yet said to be strings.
        Column {
            kind: "string".to_owned(),
            ..number("Up-to-date", "/status/updatedReplicas")
        },
        Column {
            kind: "string".to_owned(),
            ..number("Available", "/status/availableReplicas")
        },
    ];
    columns.extend(wide("/spec/template/spec"));
    columns
}

pub(super) fn replica_sets() -> Vec<Column> {
    let mut columns = vec![
        number("Desired", "/spec/replicas"),
        number("Current", "/status/replicas"),
        number("Ready", "/status/readyReplicas"),
    ];
    columns.extend(wide("/spec/template/spec"));
    columns
}

pub(super) fn stateful_sets() -> Vec<Column> {
    let mut columns = vec![ready("Ready", "/status/readyReplicas", "/spec/replicas")];
    let mut rest = wide("/spec/template/spec");
    rest.pop();
    columns.extend(rest);
    columns
}

pub(super) fn daemon_sets() -> Vec<Column> {
    let mut columns = vec![
        number("Desired", "/status/desiredNumberScheduled"),
        number("Current", "/status/currentNumberScheduled"),
        number("Ready", "/status/numberReady"),
        number("Up-to-date", "/status/updatedNumberScheduled"),
        number("Available", "/status/numberAvailable"),
        plain("Node Selector", "string", 0, |object, _| {
            json!(terms(object, "/spec/template/spec/nodeSelector"))
        }),
    ];
    columns.extend(wide("/spec/template/spec"));
    columns
}

pub(super) fn jobs() -> Vec<Column> {
    let mut columns = vec![
        plain("Status", "string", 0, |object, _| {
            let is = |kind: &str| {
                let conditions = object
                    .pointer("/status/conditions")
                    .and_then(Value::as_array);
                conditions
                    .into_iter()
                    .flatten()
                    .any(|one| text(one, "/type") == kind && text(one, "/status") == "True")
            };
            json!(match () {
                () if is("Complete") => "Complete",
                () if is("Failed") => "Failed",
                () if object.pointer("/metadata/deletionTimestamp").is_some() => "Terminating",
                () if is("Suspended") => "Suspended",
                () if is("FailureTarget") => "FailureTarget",
                () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
                () => "Running",
            })
        }),
        plain("Completions", "string", 0, |object, _| {
            let done = amount(object, "/status/succeeded");
            let wanted = object.pointer("/spec/completions").and_then(Value::as_i64);
            let at_once = amount(object, "/spec/parallelism");
            json!(match wanted {
                Some(wanted) => format!("{done}/{wanted}"),
                None if at_once > 1 => format!("{done}/1 of {at_once}"),
                None => format!("{done}/1"),
            })
        }),
        plain("Duration", "string", 0, |object, now| {
            let start = text(object, "/status/startTime");
            let end = text(object, "/status/completionTime")
                .parse()
                .unwrap_or(now);
            json!(if start.is_empty() {
                String::new()
            } else {
                since(start, end)
            })
        }),
    ];
    columns.extend(wide("/spec/template/spec"));
    columns
}

pub(super) fn cron_jobs() -> Vec<Column> {
    let mut columns = vec![
        at("Schedule", "/spec/schedule"),
        or("Timezone", "/spec/timeZone", "<none>"),
        plain("Suspend", "boolean", 0, |object, _| {
            json!(if object.pointer("/spec/suspend") == Some(&json!(true)) {
                "True"
            } else {
                "False"
            })
        }),
        plain("Active", "integer", 0, |object, _| {
            json!(
                object
                    .pointer("/status/active")
                    .and_then(Value::as_array)
                    .map_or(0, Vec::len)
            )
        }),
        plain("Last Schedule", "string", 0, |object, now| {
            let last = text(object, "/status/lastScheduleTime");
            json!(if last.is_empty() {
                "<none>".to_owned()
            } else {
                since(last, now)
            })
        }),
    ];
    let mut rest = wide("/spec/jobTemplate/spec/template/spec");
    rest.pop();
    columns.extend(rest);
    columns.push(plain("Selector", "string", 1, |object, _| {
        json!(selector(object, "/spec/jobTemplate/spec/selector"))
    }));
    columns
}

pub(super) fn pods() -> Vec<Column> {
    vec![
        plain("Ready", "string", 0, |object, _| {
            let statuses = object
                .pointer("/status/containerStatuses")
                .and_then(Value::as_array);
            let ready = statuses
                .into_iter()
                .flatten()
                .filter(|one| is_running(one))
                .count();
            let all = object
                .pointer("/spec/containers")
                .and_then(Value::as_array)
                .map_or(0, Vec::len);
            json!(format!("{ready}/{all}"))
        }),
        plain("Status", "string", 0, |object, _| json!(pod_status(object))),
        plain("Restarts", "string", 0, |object, _| {
            let statuses = object
                .pointer("/status/containerStatuses")
                .and_then(Value::as_array);
            let restarts: i64 = statuses
                .into_iter()
                .flatten()
                .map(|one| amount(one, "/restartCount"))
                .sum();
            json!(restarts.to_string())
        }),
        age(),
        wide_text("IP", "/status/podIPs/0/ip"),
        wide_text("Node", "/spec/nodeName"),
        wide_text("Nominated Node", "/status/nominatedNodeName"),
        plain("Readiness Gates", "string", 1, |_, _| json!("<none>")),
    ]
}

fn is_running(container: &Value) -> bool {
    container.get("ready") == Some(&json!(true)) && container.pointer("/state/running").is_some()
}

/// What is said of a row as a whole: of a Pod, that it is done.
pub(super) fn conditions(kind: &Kind, object: &Value) -> Option<Value> {
    if !kind.is_core("pods") {
        return None;
    }
    let phase = text(object, "/status/phase");
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!([{ "type": "Completed", "status": "True", "reason": phase, "message": message }]))
}

fn wide_text(name: &str, pointer: &'static str) -> Column {
    plain(name, "string", 1, move |object, _| {
        let found = text(object, pointer);
        json!(if found.is_empty() { "<none>" } else { found })
    })
}

/// What a person is told a Pod is doing.
fn pod_status(pod: &Value) -> String {
    let reason = text(pod, "/status/reason");
    let mut status = if reason.is_empty() {
        text(pod, "/status/phase")
    } else {
        reason
    }
    .to_owned();
    let statuses = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array);
    let mut runs = false;
    for container in statuses.into_iter().flatten().rev() {
        let waiting = text(container, "/state/waiting/reason");
        let ended = text(container, "/state/terminated/reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut status);
        } else if !ended.is_empty() {
            ended.clone_into(&mut status);
        } else if let Some(end) = container.pointer("/state/terminated") {
            status = match amount(end, "/signal") {
                0 => format!("ExitCode:{}", amount(end, "/exitCode")),
                signal => format!("Signal:{signal}"),
            };
        } else if is_running(container) {
            runs = true;
        }
    }
    if status == "Completed" && runs {
        let shown = if is_ready(pod) { "Running" } else { "NotReady" };
        shown.clone_into(&mut status);
    }
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    match pod.pointer("/metadata/deletionTimestamp") {
        Some(_) if reason == "NodeLost" => "Unknown".to_owned(),
        Some(_) if !ended => "Terminating".to_owned(),
        _ => status,
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| text(one, "/type") == "Ready" && text(one, "/status") == "True")
}
