//! What the server fills in where a built-in object says nothing.
//!
//! A table of paths and values; a path through a list has `[]`, and nothing is made but the last
//! step. What a table cannot say is code below it.

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::object::{self, as_map};

/// Values, as text, by path.
type Table = &'static [(&'static str, &'static str)];

const POD_SPEC: Table = &[
    ("restartPolicy", "\"Always\""),
    ("dnsPolicy", "\"ClusterFirst\""),
    ("schedulerName", "\"default-scheduler\""),
    ("terminationGracePeriodSeconds", "30"),
    ("securityContext", "{}"),
    ("volumes[].configMap.defaultMode", "420"),
    ("volumes[].secret.defaultMode", "420"),
    ("volumes[].projected.defaultMode", "420"),
    ("volumes[].downwardAPI.defaultMode", "420"),
    (
        "volumes[].downwardAPI.items[].fieldRef.apiVersion",
        "\"v1\"",
    ),
    ("volumes[].hostPath.type", "\"\""),
    (
        "volumes[].projected.sources[].serviceAccountToken.expirationSeconds",
        "3600",
    ),
    (
        "volumes[].projected.sources[].downwardAPI.items[].fieldRef.apiVersion",
        "\"v1\"",
    ),
];

const CONTAINER: Table = &[
    ("terminationMessagePath", "\"/dev/termination-log\""),
    ("terminationMessagePolicy", "\"File\""),
    ("ports[].protocol", "\"TCP\""),
    ("env[].valueFrom.fieldRef.apiVersion", "\"v1\""),
];

const PROBES: &[&str] = &["livenessProbe", "readinessProbe", "startupProbe"];

const PROBE: Table = &[
    ("timeoutSeconds", "1"),
    ("periodSeconds", "10"),
    ("successThreshold", "1"),
    ("failureThreshold", "3"),
    ("httpGet.path", "\"/\""),
    ("httpGet.scheme", "\"HTTP\""),
];

const DEPLOYMENT: Table = &[
    ("spec.replicas", "1"),
    ("spec.revisionHistoryLimit", "10"),
    ("spec.progressDeadlineSeconds", "600"),
    ("spec.strategy.type", "\"RollingUpdate\""),
];

const STATEFUL_SET: Table = &[
    ("spec.replicas", "1"),
    ("spec.revisionHistoryLimit", "10"),
    ("spec.podManagementPolicy", "\"OrderedReady\""),
    ("spec.updateStrategy.type", "\"RollingUpdate\""),
    ("spec.persistentVolumeClaimRetentionPolicy", "{}"),
    (
        "spec.persistentVolumeClaimRetentionPolicy.whenDeleted",
        "\"Retain\"",
    ),
    (
        "spec.persistentVolumeClaimRetentionPolicy.whenScaled",
        "\"Retain\"",
    ),
];

const DAEMON_SET: Table = &[
    ("spec.revisionHistoryLimit", "10"),
    ("spec.updateStrategy.type", "\"RollingUpdate\""),
];

const JOB: Table = &[
    ("spec.backoffLimit", "6"),
    ("spec.completionMode", "\"NonIndexed\""),
    ("spec.suspend", "false"),
    ("spec.podReplacementPolicy", "\"TerminatingOrFailed\""),
];

const CRON_JOB: Table = &[
    ("spec.concurrencyPolicy", "\"Allow\""),
    ("spec.suspend", "false"),
    ("spec.successfulJobsHistoryLimit", "3"),
    ("spec.failedJobsHistoryLimit", "1"),
];

const SERVICE: Table = &[
    ("spec.sessionAffinity", "\"None\""),
    ("spec.type", "\"ClusterIP\""),
    ("spec.internalTrafficPolicy", "\"Cluster\""),
    ("spec.ports[].protocol", "\"TCP\""),
];

const WEBHOOKS: Table = &[
    ("webhooks[].failurePolicy", "\"Fail\""),
    ("webhooks[].matchPolicy", "\"Equivalent\""),
    ("webhooks[].namespaceSelector", "{}"),
    ("webhooks[].objectSelector", "{}"),
    ("webhooks[].timeoutSeconds", "10"),
    ("webhooks[].rules[].scope", "\"*\""),
    ("webhooks[].clientConfig.service.port", "443"),
];

const POLICY: Table = &[
    ("spec.failurePolicy", "\"Fail\""),
    ("spec.matchConstraints.matchPolicy", "\"Equivalent\""),
    ("spec.matchConstraints.namespaceSelector", "{}"),
    ("spec.matchConstraints.objectSelector", "{}"),
    ("spec.matchConstraints.resourceRules[].scope", "\"*\""),
];

/// Fills in what a built-in kind fills in at every read of an object.
pub(crate) fn fill(kind: &Kind, object: &mut Value) {
    let table: Table = match kind.plural.as_str() {
        "deployments" => DEPLOYMENT,
        "replicasets" => &[("spec.replicas", "1")],
        "statefulsets" => STATEFUL_SET,
        "daemonsets" => DAEMON_SET,
        "jobs" => JOB,
        "cronjobs" => CRON_JOB,
        "services" => SERVICE,
        "secrets" => &[("type", "\"Opaque\"")],
        "namespaces" => &[("status.phase", "\"Active\"")],
        "priorityclasses" => &[("preemptionPolicy", "\"PreemptLowerPriority\"")],
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => WEBHOOKS,
        "validatingadmissionpolicies" => POLICY,
        "pods" => &[
            ("status.phase", "\"Pending\""),
            ("spec.enableServiceLinks", "true"),
        ],
        _ => &[],
    };
    apply(object, table);
    if kind.plural == "jobs" {
        labels_of_template(object);
    }
    strategies(kind, object);
    let pod_spec = match kind.plural.as_str() {
        "pods" => "/spec",
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" | "jobs" => {
            "/spec/template/spec"
        }
        "cronjobs" => "/spec/jobTemplate/spec/template/spec",
        _ => "/none",
    };
    if let Some(spec) = object.pointer_mut(pod_spec) {
        fill_pod_spec(spec);
        if kind.is_core("pods") {
            requests_from_limits(spec);
        }
    }
    if kind.is_core("pods")
        && let Some(status) = object.get_mut("status").map(as_map)
        && let Some(ip) = status.get("podIP").cloned()
    {
        status
            .entry("podIPs")
            .or_insert_with(|| json!([{ "ip": ip }]));
    }
    if kind.is_core("nodes") {
        fill_node(object);
    }
    if kind.is_core("namespaces") {
        let name = object::name(object).to_owned();
        let labels = object::metadata(object)
            .entry("labels")
            .or_insert_with(|| json!({}));
        as_map(labels).insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    }
}

/// What a Pod is limited to and does not ask for, it asks for.
fn requests_from_limits(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let limits = container.pointer("/resources/limits").cloned();
            if let Some(Value::Object(limits)) = limits
                && let Some(resources) = container.get_mut("resources")
            {
                let requests = object::map_at(resources, "requests");
                for (name, amount) in limits {
                    requests.entry(name).or_insert(amount);
                }
            }
        }
    }
}

/// A node's old and new fields for one thing, and what it can give if it doesn't say.
fn fill_node(node: &mut Value) {
    if let Some(spec) = node.get_mut("spec").map(as_map)
        && let Some(range) = spec.get("podCIDR").cloned()
    {
        spec.entry("podCIDRs").or_insert_with(|| json!([range]));
    }
    if let Some(status) = node.get_mut("status").map(as_map)
        && let Some(capacity) = status.get("capacity").cloned()
    {
        status.entry("allocatable").or_insert(capacity);
    }
}

/// A Job without labels has those of its Pods.
fn labels_of_template(job: &mut Value) {
    let labels = job.pointer("/spec/template/metadata/labels").cloned();
    if let Some(labels) = labels {
        object::metadata(job).entry("labels").or_insert(labels);
    }
}

/// What a strategy of one type needs, and numbers that depend on others.
fn strategies(kind: &Kind, object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    match kind.plural.as_str() {
        "deployments" if object::text(spec, "/strategy/type") == "RollingUpdate" => {
            apply(
                spec,
                &[
                    ("strategy.rollingUpdate", "{}"),
                    ("strategy.rollingUpdate.maxUnavailable", "\"25%\""),
                    ("strategy.rollingUpdate.maxSurge", "\"25%\""),
                ],
            );
        }
        "statefulsets" if object::text(spec, "/updateStrategy/type") == "RollingUpdate" => {
            apply(
                spec,
                &[
                    ("updateStrategy.rollingUpdate", "{}"),
                    ("updateStrategy.rollingUpdate.partition", "0"),
                ],
            );
        }
        "daemonsets" if object::text(spec, "/updateStrategy/type") == "RollingUpdate" => {
            apply(
                spec,
                &[
                    ("updateStrategy.rollingUpdate", "{}"),
                    ("updateStrategy.rollingUpdate.maxUnavailable", "1"),
                    ("updateStrategy.rollingUpdate.maxSurge", "0"),
                ],
            );
        }
        "jobs" => {
            if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
                apply(spec, &[("completions", "1")]);
            }
            apply(spec, &[("parallelism", "1")]);
        }
        "services" => {
            for port in spec
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let number = port.get("port").cloned().unwrap_or_default();
                let target = as_map(port).entry("targetPort").or_insert(Value::Null);
                if matches!(target, Value::Null) || *target == json!(0) || *target == json!("") {
                    *target = number;
                }
            }
        }
        _ => {}
    }
}

fn fill_pod_spec(spec: &mut Value) {
    apply(spec, POD_SPEC);
    let network = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            fill_container(container, network);
        }
    }
    for volume in spec
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let volume = as_map(volume);
        if volume.keys().all(|key| key == "name") {
            volume.insert("emptyDir".to_owned(), json!({}));
        }
    }
}

fn fill_container(container: &mut Value, host_network: bool) {
    apply(container, CONTAINER);
    for probe in PROBES {
        if let Some(probe) = container.get_mut(probe) {
            apply(probe, PROBE);
        }
    }
    let image = object::text(container, "/image");
    let tag = image
        .rsplit('/')
        .next()
        .and_then(|name| name.split_once(':'));
    let is_latest = !image.contains('@') && tag.is_none_or(|(_, tag)| tag == "latest");
    let policy = if is_latest { "Always" } else { "IfNotPresent" };
    as_map(container)
        .entry("imagePullPolicy")
        .or_insert(json!(policy));
    if host_network {
        for port in container
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            as_map(port).entry("hostPort").or_insert(number);
        }
    }
}

fn apply(object: &mut Value, table: Table) {
    for (path, text) in table {
        let value = serde_json::from_str(text).unwrap_or_default();
        if value != Value::Null {
            set(object, path, &value);
        }
    }
}

/// Sets what is absent at a path whose way is there.
fn set(object: &mut Value, path: &str, value: &Value) {
    let Some((first, rest)) = path.split_once('.') else {
        if let Value::Object(map) = object {
            map.entry(path.to_owned()).or_insert_with(|| value.clone());
        }
        return;
    };
    match first.strip_suffix("[]") {
        Some(list) => {
            for one in object
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                set(one, rest, value);
            }
        }
        None => {
            if let Some(inner) = object.get_mut(first) {
                set(inner, rest, value);
            }
        }
    }
}
