//! The columns of workloads and their Pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::builtin::{amount, at, condition, list, number, or, or_none, pairs, terms};
use super::{Column, age, plain, since};
use crate::kinds::Kind;
use crate::object::text;

/// The containers of a workload's Pods.
const CONTAINERS: &str = "/spec/template/spec/containers";
/// What is told of a Pod's containers.
const STATUSES: &str = "/status/containerStatuses";

/// `2/3`.
fn ready(name: &str, of: &'static str, wanted: &'static str) -> Column {
    plain(name, "string", 0, move |object, _| {
        json!(format!("{}/{}", amount(object, of), amount(object, wanted)))
    })
}

/// Names and images of the containers there.
fn containers(pointer: &'static str) -> [Column; 2] {
    let listed = move |key: &'static str| {
        move |object: &Value, _: Timestamp| {
            let words: Vec<&str> = list(object, pointer)
                .filter_map(|one| one.get(key)?.as_str())
                .collect();
            json!(words.join(","))
        }
    };
    [
        plain("Containers", "string", 1, listed("name")),
        plain("Images", "string", 1, listed("image")),
    ]
}

/// The selector there.
fn selected(pointer: &'static str) -> Column {
    plain("Selector", "string", 1, move |object, _| {
        json!(selector(object, pointer))
    })
}

/// The wide columns of most workloads.
fn wide() -> impl Iterator<Item = Column> {
    let selected = selected("/spec/selector");
    containers(CONTAINERS).into_iter().chain([selected])
}

/// A label selector as text, its terms in order.
fn selector(object: &Value, pointer: &str) -> String {
    let labels = pairs(object, &format!("{pointer}/matchLabels"));
    let mut terms: Vec<(String, String)> = labels
        .into_iter()
        .map(|(key, value)| (key.clone(), format!("{key}={value}")))
        .collect();
    let expressions = format!("{pointer}/matchExpressions");
    terms.extend(list(object, &expressions).map(|one| {
        let key = text(one, "/key");
        let mut values: Vec<&str> = list(one, "/values").filter_map(Value::as_str).collect();
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
    columns.extend(wide());
    columns
}

pub(super) fn replica_sets() -> Vec<Column> {
    let mut columns = vec![
        number("Desired", "/spec/replicas"),
        number("Current", "/status/replicas"),
        number("Ready", "/status/readyReplicas"),
    ];
    columns.extend(wide());
    columns
}

pub(super) fn stateful_sets() -> Vec<Column> {
    let mut columns = vec![ready("Ready", "/status/readyReplicas", "/spec/replicas")];
    columns.extend(containers(CONTAINERS));
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
    columns.extend(wide());
    columns
}

pub(super) fn jobs() -> Vec<Column> {
    let mut columns = vec![
        plain("Status", "string", 0, |object, _| {
            let is = |of_type: &str| is_true(object, of_type);
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
    columns.extend(wide());
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
            json!(list(object, "/status/active").count())
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
    columns.extend(containers(
        "/spec/jobTemplate/spec/template/spec/containers",
    ));
    columns.push(selected("/spec/jobTemplate/spec/selector"));
    columns
}

pub(super) fn pods() -> Vec<Column> {
    vec![
        plain("Ready", "string", 0, |object, _| {
            let statuses = list(object, STATUSES);
            let ready = statuses.filter(|one| is_running(one)).count();
            let all = list(object, "/spec/containers").count();
            json!(format!("{ready}/{all}"))
        }),
        plain("Status", "string", 0, |object, _| json!(pod_status(object))),
        plain("Restarts", "string", 0, |object, _| {
            let restarts = list(object, STATUSES).map(|one| amount(one, "/restartCount"));
            json!(restarts.sum::<i64>().to_string())
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
    let mut runs = false;
    for container in list(pod, STATUSES).rev() {
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
        let is_ready = is_true(pod, "Ready");
        let shown = if is_ready { "Running" } else { "NotReady" };
        shown.clone_into(&mut status);
    }
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    match pod.pointer("/metadata/deletionTimestamp") {
        Some(_) if reason == "NodeLost" => "Unknown".to_owned(),
        Some(_) if !ended => "Terminating".to_owned(),
        _ => status,
    }
}

/// Whether the condition of this type is true.
fn is_true(object: &Value, of_type: &str) -> bool {
    condition(object, of_type).is_some_and(|one| text(one, "/status") == "True")
}
