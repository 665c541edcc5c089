//! The columns of built-in kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, age, plain, since};
use crate::kinds::Kind;
use crate::object::text;

/// The columns behind the name.
pub(super) fn columns(kind: &Kind) -> Vec<Column> {
    let mut columns = match kind.plural.as_str() {
        "pods" => return pods(),
        "deployments" => deployments(),
        "replicasets" => replica_sets(),
        "statefulsets" => stateful_sets(),
        "daemonsets" => daemon_sets(),
        "jobs" => jobs(),
        "cronjobs" => cron_jobs(),
        "namespaces" => vec![at("Status", "/status/phase")],
        "nodes" => return nodes(),
        "events" => return events(),
        "configmaps" => vec![count("Data", &["/data", "/binaryData"])],
        "secrets" => vec![at("Type", "/type"), count("Data", &["/data"])],
        "serviceaccounts" => vec![count("Secrets", &["/secrets"])],
        "services" => services(),
        "leases" => vec![at("Holder", "/spec/holderIdentity")],
        "controllerrevisions" => vec![
            plain("Controller", "string", 0, |o, _| json!(controller(o))),
            at("Revision", "/revision"),
        ],
        "priorityclasses" => vec![
            at("Value", "/value"),
            plain("Global-Default", "boolean", 0, |o, _| {
                json!(o.get("globalDefault") == Some(&json!(true)))
            }),
        ],
        "customresourcedefinitions" => {
            return vec![plain("Created At", "date", 0, |o, _| {
                json!(text(o, "/metadata/creationTimestamp"))
            })];
        }
        "poddisruptionbudgets" => vec![
            or("Min Available", "/spec/minAvailable", "N/A"),
            or("Max Unavailable", "/spec/maxUnavailable", "N/A"),
            number("Allowed Disruptions", "/status/disruptionsAllowed"),
        ],
        _ => Vec::new(),
    };
    let wide = columns
        .iter()
        .position(|column| column.priority > 0)
        .unwrap_or(columns.len());
    columns.insert(wide, age());
    columns
}

/// A value as it stands there.
fn at(name: &str, pointer: &'static str) -> Column {
    plain(name, "string", 0, move |object, _| {
        object
            .pointer(pointer)
            .cloned()
            .unwrap_or_else(|| json!(""))
    })
}

fn or(name: &str, pointer: &'static str, other: &'static str) -> Column {
    plain(name, "string", 0, move |object, _| {
        object
            .pointer(pointer)
            .map_or_else(|| json!(other), |value| json!(shown(value)))
    })
}

fn number(name: &str, pointer: &'static str) -> Column {
    plain(name, "integer", 0, move |object, _| {
        json!(amount(object, pointer))
    })
}

fn amount(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// How many entries some lists and maps have.
fn count(name: &str, pointers: &'static [&'static str]) -> Column {
    plain(name, "string", 0, move |object, _| {
        let sizes = pointers
            .iter()
            .filter_map(|pointer| object.pointer(pointer));
        let total: usize = sizes
            .map(|value| match value {
                Value::Object(map) => map.len(),
                Value::Array(list) => list.len(),
                _ => 0,
            })
            .sum();
        json!(total)
    })
}

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
            terms(object, "/spec/selector/matchLabels")
        }),
    ]
}

/// The labels at `pointer` as a selector is written.
fn terms(object: &Value, pointer: &str) -> Value {
    let labels = object.pointer(pointer).and_then(Value::as_object);
    let terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", shown(value)))
        .collect();
    json!(if terms.is_empty() {
        "<none>".to_owned()
    } else {
        terms.join(",")
    })
}

fn deployments() -> Vec<Column> {
    let mut columns = vec![
        ready("Ready", "/status/readyReplicas", "/spec/replicas"),
        number("Up-to-date", "/status/updatedReplicas"),
        number("Available", "/status/availableReplicas"),
    ];
    columns.extend(wide("/spec/template/spec"));
    columns
}

fn replica_sets() -> Vec<Column> {
    let mut columns = vec![
        number("Desired", "/spec/replicas"),
        number("Current", "/status/replicas"),
        number("Ready", "/status/readyReplicas"),
    ];
    columns.extend(wide("/spec/template/spec"));
    columns
}

fn stateful_sets() -> Vec<Column> {
    let mut columns = vec![ready("Ready", "/status/readyReplicas", "/spec/replicas")];
    let mut rest = wide("/spec/template/spec");
    rest.pop();
    columns.extend(rest);
    columns
}

fn daemon_sets() -> Vec<Column> {
    let mut columns = vec![
        number("Desired", "/status/desiredNumberScheduled"),
        number("Current", "/status/currentNumberScheduled"),
        number("Ready", "/status/numberReady"),
        number("Up-to-date", "/status/updatedNumberScheduled"),
        number("Available", "/status/numberAvailable"),
        plain("Node Selector", "string", 0, |object, _| {
            terms(object, "/spec/template/spec/nodeSelector")
        }),
    ];
    columns.extend(wide("/spec/template/spec"));
    columns
}

fn jobs() -> Vec<Column> {
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
                () => "Running",
            })
        }),
        plain("Completions", "string", 0, |object, _| {
            let done = amount(object, "/status/succeeded");
            let wanted = object.pointer("/spec/completions").and_then(Value::as_i64);
            json!(wanted.map_or_else(|| format!("{done}/1"), |wanted| format!("{done}/{wanted}")))
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

fn cron_jobs() -> Vec<Column> {
    let mut columns = vec![
        at("Schedule", "/spec/schedule"),
        or("Timezone", "/spec/timeZone", "<none>"),
        plain("Suspend", "string", 0, |object, _| {
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
    columns.extend(wide("/spec/jobTemplate/spec/template/spec"));
    columns
}

fn services() -> Vec<Column> {
    vec![
        at("Type", "/spec/type"),
        or("Cluster-IP", "/spec/clusterIP", "<none>"),
        plain("External-IP", "string", 0, |_, _| json!("<none>")),
        plain("Port(s)", "string", 0, |object, _| {
            let ports = object.pointer("/spec/ports").and_then(Value::as_array);
            let words: Vec<String> = ports
                .into_iter()
                .flatten()
                .map(|port| format!("{}/{}", amount(port, "/port"), text(port, "/protocol")))
                .collect();
            json!(if words.is_empty() {
                "<none>".to_owned()
            } else {
                words.join(",")
            })
        }),
    ]
}

fn controller(object: &Value) -> String {
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let owner = owners
        .into_iter()
        .flatten()
        .find(|owner| owner.get("controller") == Some(&json!(true)));
    owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = text(owner, "/apiVersion")
                .split_once('/')
                .map_or("", |(group, _)| group);
            let resource = format!("{}.{group}", text(owner, "/kind").to_lowercase());
            format!(
                "{}/{}",
                resource.trim_end_matches('.'),
                text(owner, "/name")
            )
        },
    )
}

fn nodes() -> Vec<Column> {
    vec![
        plain("Status", "string", 0, |object, _| {
            let conditions = object
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            let ready = conditions
                .into_iter()
                .flatten()
                .find(|one| text(one, "/type") == "Ready");
            let mut words = vec![match ready.map(|one| text(one, "/status")) {
                Some("True") => "Ready",
                Some(_) => "NotReady",
                None => "Unknown",
            }];
            if object.pointer("/spec/unschedulable") == Some(&json!(true)) {
                words.push("SchedulingDisabled");
            }
            json!(words.join(","))
        }),
        plain("Roles", "string", 0, |object, _| {
            let labels = object
                .pointer("/metadata/labels")
                .and_then(Value::as_object);
            let roles: Vec<&str> = labels
                .into_iter()
                .flatten()
                .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
                .collect();
            json!(if roles.is_empty() {
                "<none>".to_owned()
            } else {
                roles.join(",")
            })
        }),
        age(),
        at("Version", "/status/nodeInfo/kubeletVersion"),
        plain("Internal-IP", "string", 1, |object, _| {
            let addresses = object
                .pointer("/status/addresses")
                .and_then(Value::as_array);
            let internal = addresses
                .into_iter()
                .flatten()
                .find(|one| text(one, "/type") == "InternalIP");
            json!(internal.map_or("<none>", |one| text(one, "/address")))
        }),
    ]
}

fn events() -> Vec<Column> {
    // Both views of an event are printed alike, by whichever names it has.
    let either = |object: &Value, old: &str, new: &str| {
        let found = text(object, old);
        if found.is_empty() {
            text(object, new).to_owned()
        } else {
            found.to_owned()
        }
    };
    let mut columns = vec![
        plain("Last Seen", "string", 0, move |object, now| {
            let last = either(object, "/lastTimestamp", "/deprecatedLastTimestamp");
            let moment = if last.is_empty() {
                either(object, "/series/lastObservedTime", "/eventTime")
            } else {
                last
            };
            json!(since(&moment, now))
        }),
        at("Type", "/type"),
        at("Reason", "/reason"),
        plain("Object", "string", 0, move |object, _| {
            let kind = either(object, "/involvedObject/kind", "/regarding/kind").to_lowercase();
            json!(format!(
                "{kind}/{}",
                either(object, "/involvedObject/name", "/regarding/name")
            ))
        }),
        plain("Message", "string", 0, move |object, _| {
            json!(either(object, "/message", "/note").trim())
        }),
    ];
    columns.push(plain("Name", "string", 1, |object, _| {
        json!(text(object, "/metadata/name"))
    }));
    columns
}

fn pods() -> Vec<Column> {
    vec![
        plain("Ready", "string", 0, |object, _| {
            let statuses = object
                .pointer("/status/containerStatuses")
                .and_then(Value::as_array);
            let ready = statuses
                .into_iter()
                .flatten()
                .filter(|one| one.get("ready") == Some(&json!(true)))
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
        wide_text("IP", "/status/podIP"),
        wide_text("Node", "/spec/nodeName"),
        wide_text("Nominated Node", "/status/nominatedNodeName"),
        plain("Readiness Gates", "string", 1, |_, _| json!("<none>")),
    ]
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
    for container in statuses.into_iter().flatten().rev() {
        let waiting = text(container, "/state/waiting/reason");
        let ended = text(container, "/state/terminated/reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut status);
        } else if !ended.is_empty() {
            ended.clone_into(&mut status);
        }
    }
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return if reason == "NodeLost" {
            "Unknown"
        } else {
            "Terminating"
        }
        .to_owned();
    }
    status
}
