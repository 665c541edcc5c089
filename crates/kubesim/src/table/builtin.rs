//! The columns of built-in kinds.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::workloads::{
    cron_jobs, daemon_sets, deployments, jobs, pods, replica_sets, stateful_sets,
};
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
        "services" => return services(),
        "endpoints" => vec![plain("Endpoints", "string", 0, |o, _| json!(addresses(o)))],
        "endpointslices" => vec![
            at("AddressType", "/addressType"),
            plain("Ports", "string", 0, |o, _| json!(slice_ports(o))),
            plain("Endpoints", "string", 0, |o, _| json!(slice_addresses(o))),
        ],
        "validatingwebhookconfigurations" | "mutatingwebhookconfigurations" => {
            vec![length("Webhooks", "/webhooks")]
        }
        "validatingadmissionpolicies" => vec![
            length("Validations", "/spec/validations"),
            plain("ParamKind", "string", 0, |o, _| {
                let kind = o.pointer("/spec/paramKind");
                json!(kind.map_or_else(
                    || "<unset>".to_owned(),
                    |kind| format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind"))
                ))
            }),
        ],
        "validatingadmissionpolicybindings" => vec![
            at("PolicyName", "/spec/policyName"),
            or("ParamRef", "/spec/paramRef/name", "<unset>"),
        ],
        "leases" => vec![at("Holder", "/spec/holderIdentity")],
        "controllerrevisions" => vec![
            plain("Controller", "string", 0, |o, _| json!(controller(o))),
            at("Revision", "/revision"),
        ],
        "priorityclasses" => {
            return vec![
                number("Value", "/value"),
                plain("Global-Default", "boolean", 0, |o, _| {
                    json!(o.get("globalDefault") == Some(&json!(true)))
                }),
                age(),
                at("PreemptionPolicy", "/preemptionPolicy"),
            ];
        }
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
pub(super) fn at(name: &str, pointer: &'static str) -> Column {
    plain(name, "string", 0, move |object, _| {
        object
            .pointer(pointer)
            .cloned()
            .unwrap_or_else(|| json!(""))
    })
}

pub(super) fn or(name: &str, pointer: &'static str, other: &'static str) -> Column {
    plain(name, "string", 0, move |object, _| {
        object
            .pointer(pointer)
            .map_or_else(|| json!(other), |value| json!(shown(value)))
    })
}

pub(super) fn number(name: &str, pointer: &'static str) -> Column {
    plain(name, "integer", 0, move |object, _| {
        json!(amount(object, pointer))
    })
}

pub(super) fn amount(object: &Value, pointer: &str) -> i64 {
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

/// How long a list is.
fn length(name: &str, pointer: &'static str) -> Column {
    plain(name, "integer", 0, move |object, _| {
        json!(list(object, pointer).count())
    })
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() {
        "<none>".to_owned()
    } else {
        text
    }
}

pub(super) fn pairs(object: &Value, pointer: &str) -> Vec<(String, String)> {
    let map = object.pointer(pointer).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), shown(value)))
        .collect()
}

/// The labels at `pointer` as a selector is written.
pub(super) fn terms(object: &Value, pointer: &str) -> String {
    let pairs = pairs(object, pointer).into_iter();
    let terms: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    or_none(terms.join(","))
}

fn services() -> Vec<Column> {
    vec![
        at("Type", "/spec/type"),
        or("Cluster-IP", "/spec/clusterIP", "<none>"),
        plain("External-IP", "string", 0, |_, _| json!("<none>")),
        plain("Port(s)", "string", 0, |object, _| {
            let words: Vec<String> = list(object, "/spec/ports")
                .map(|port| format!("{}/{}", amount(port, "/port"), text(port, "/protocol")))
                .collect();
            json!(or_none(words.join(",")))
        }),
        age(),
        plain("Selector", "string", 1, |object, _| {
            json!(terms(object, "/spec/selector"))
        }),
    ]
}

/// Up to three of some words, and how many more there are.
fn first_three(words: &[String]) -> String {
    let shown = words.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    match words.len().saturating_sub(3) {
        0 => or_none(shown),
        more => format!("{shown} + {more} more..."),
    }
}

/// The entries of a list; none where there is no list.
pub(super) fn list<'a>(
    object: &'a Value,
    pointer: &str,
) -> impl DoubleEndedIterator<Item = &'a Value> {
    let found = object.pointer(pointer).and_then(Value::as_array);
    found.into_iter().flatten()
}

/// The condition of this type.
pub(super) fn condition<'a>(object: &'a Value, of_type: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").find(|one| text(one, "/type") == of_type)
}

/// The addresses of an Endpoints object, with their ports.
fn addresses(object: &Value) -> String {
    let mut found = Vec::new();
    for subset in list(object, "/subsets") {
        let addresses = || list(subset, "/addresses").map(|one| text(one, "/ip"));
        if subset.get("ports").is_none() {
            found.extend(addresses().map(str::to_owned));
        }
        for port in list(subset, "/ports") {
            let number = amount(port, "/port");
            found.extend(addresses().map(|address| format!("{address}:{number}")));
        }
    }
    first_three(&found)
}

fn slice_ports(object: &Value) -> String {
    let ports: Vec<String> = list(object, "/ports")
        .map(|port| port.get("port").map_or_else(|| "*".to_owned(), shown))
        .collect();
    if ports.is_empty() {
        return "<unset>".to_owned();
    }
    first_three(&ports)
}

fn slice_addresses(object: &Value) -> String {
    let addresses: Vec<String> = list(object, "/endpoints")
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .map(shown)
        .collect();
    if addresses.is_empty() {
        return "<unset>".to_owned();
    }
    first_three(&addresses)
}

fn controller(object: &Value) -> String {
    let owner = list(object, "/metadata/ownerReferences")
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
            let ready = condition(object, "Ready");
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
            let roles: BTreeSet<&str> = labels
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| match key.as_str() {
                    "kubernetes.io/role" => value.as_str(),
                    key => key.strip_prefix("node-role.kubernetes.io/"),
                })
                .filter(|role| !role.is_empty())
                .collect();
            json!(or_none(roles.into_iter().collect::<Vec<_>>().join(",")))
        }),
        age(),
        at("Version", "/status/nodeInfo/kubeletVersion"),
        node_address("Internal-IP", "InternalIP"),
        node_address("External-IP", "ExternalIP"),
        node_info("OS-Image", "/status/nodeInfo/osImage"),
        node_info("Kernel-Version", "/status/nodeInfo/kernelVersion"),
        node_info(
            "Container-Runtime",
            "/status/nodeInfo/containerRuntimeVersion",
        ),
    ]
}

fn node_address(name: &str, wanted: &'static str) -> Column {
    plain(name, "string", 1, move |object, _| {
        let found = list(object, "/status/addresses").find(|one| text(one, "/type") == wanted);
        json!(found.map_or("<none>", |one| text(one, "/address")))
    })
}

fn node_info(name: &str, pointer: &'static str) -> Column {
    plain(name, "string", 1, move |object, _| {
        let found = text(object, pointer);
        json!(if found.is_empty() { "<unknown>" } else { found })
    })
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
        plain("Subobject", "string", 1, move |object, _| {
            json!(either(
                object,
                "/involvedObject/fieldPath",
                "/regarding/fieldPath"
            ))
        }),
        plain("Source", "string", 1, move |object, _| {
            let component = either(object, "/source/component", "/deprecatedSource/component");
            let host = either(object, "/source/host", "/deprecatedSource/host");
            let component = if component.is_empty() {
                either(object, "/reportingComponent", "/reportingController")
            } else {
                component
            };
            json!(if host.is_empty() {
                component
            } else {
                format!("{component}, {host}")
            })
        }),
        plain("Message", "string", 0, move |object, _| {
            json!(either(object, "/message", "/note").trim())
        }),
        plain("First Seen", "string", 1, move |object, now| {
            let first = either(object, "/firstTimestamp", "/deprecatedFirstTimestamp");
            let moment = if first.is_empty() {
                text(object, "/eventTime").to_owned()
            } else {
                first
            };
            json!(since(&moment, now))
        }),
        plain("Count", "string", 1, |object, _| {
            let counts =
                ["/series/count", "/count", "/deprecatedCount"].map(|at| amount(object, at));
            json!(counts.into_iter().find(|count| *count > 0).unwrap_or(1))
        }),
    ];
    columns.push(Column {
        format: "name".to_owned(),
        ..plain("Name", "string", 1, |object, _| {
            json!(text(object, "/metadata/name"))
        })
    });
    columns
}
