//! What the server decides of an object, whatever the body says.

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::kinds::Kind;
use crate::object::{self, as_map, metadata, text};
use crate::{custom, defaults};

use super::Turn;

/// Where a `DaemonSet` counts the changes of its template.
pub(crate) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const TEMPLATE_GENERATION_AT: &str =
    "/metadata/annotations/deprecated.daemonset.template.generation";
/// Letters of generated names: no vowels, nothing that looks like another.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many of them a generated name ends with.
const SUFFIX_LENGTH: usize = 5;
/// The longest prefix that is kept of `generateName`.
const MAX_PREFIX: usize = 58;

/// A random uid.
pub(crate) fn new_uid(rng: &mut StdRng) -> String {
    let bits = (rng.random::<u128>() & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}

/// A name that begins with `prefix`.
pub(crate) fn generated_name(rng: &mut StdRng, prefix: &str) -> String {
    let mut name: String = prefix.chars().take(MAX_PREFIX).collect();
    for _ in 0..SUFFIX_LENGTH {
        let at = rng.random_range(0..SUFFIX_LETTERS.len());
        name.push(SUFFIX_LETTERS.get(at).copied().map_or('x', char::from));
    }
    name
}

impl Turn<'_> {
    /// The metadata and status of a new object.
    pub(super) fn prepare_new(&mut self, object: &mut Value) {
        let kind = self.call.kind.as_ref();
        let uid = new_uid(&mut self.state.rng);
        let meta = metadata(object);
        for key in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
        ] {
            meta.remove(key);
        }
        meta.insert("uid".to_owned(), json!(uid));
        meta.insert(
            "creationTimestamp".to_owned(),
            json!(clock::seconds(self.now)),
        );
        if kind.has_generation() {
            meta.insert("generation".to_owned(), json!(1));
        }
        if kind.namespaced {
            meta.insert("namespace".to_owned(), json!(self.call.namespace));
        }
        if kind.has_status && drops_status(kind) {
            let empty = empty_status(kind);
            match empty {
                Some(status) => as_map(object).insert("status".to_owned(), status),
                None => as_map(object).remove("status"),
            };
        }
        self.prepare_new_builtin(object);
    }

    fn prepare_new_builtin(&mut self, object: &mut Value) {
        let kind = self.call.kind.as_ref();
        if kind.builtin().is_none() {
            return;
        }
        match kind.plural.as_str() {
            "pods" => new_pod(object, &self.state.store, self.now),
            "namespaces" => {
                object::map_at(object, "spec")
                    .insert("finalizers".to_owned(), json!(["kubernetes"]));
            }
            "daemonsets" => {
                let annotations = metadata(object)
                    .entry("annotations")
                    .or_insert_with(|| json!({}));
                as_map(annotations).insert(TEMPLATE_GENERATION.to_owned(), json!("1"));
            }
            "jobs" => new_job(object),
            "secrets" => take_string_data(object),
            "customresourcedefinitions" => custom::establish(object, self.now),
            _ => {}
        }
        defaults::fill(kind, object);
    }

    /// What an update of the main object can't change.
    pub(super) fn prepare_changed(&self, old: &Value, object: &mut Value) {
        let kind = self.call.kind.as_ref();
        if kind.has_status {
            object::keep_field(old, object, "status");
        }
        if kind.builtin().is_some() {
            match kind.plural.as_str() {
                "secrets" => take_string_data(object),
                "pods" => changed_pod(old, object),
                "namespaces" => {
                    if let (Some(spec), Value::Object(map)) = (old.get("spec"), &mut *object) {
                        map.insert("spec".to_owned(), spec.clone());
                    }
                }
                "customresourcedefinitions" => custom::establish(object, self.now),
                _ => {}
            }
            defaults::fill(kind, object);
        }
        self.count_generation(old, object);
        keep_derived(kind, old, object);
    }

    /// The generation after a change: one more if anything is asked for otherwise.
    pub(super) fn count_generation(&self, old: &Value, object: &mut Value) {
        let kind = self.call.kind.as_ref();
        object::keep_meta(old, object, "generation");
        if !kind.has_generation() || object::generation(old) == 0 {
            return;
        }
        let status_counts = kind.custom().is_some() && !kind.has_status;
        let asks = |object: &Value| {
            let mut object = object.clone();
            let top = as_map(&mut object);
            for key in ["metadata", "apiVersion", "kind"] {
                top.remove(key);
            }
            if !status_counts {
                top.remove("status");
            }
            object
        };
        // Deployments count their annotations too.
        let annotations = |object: &Value| object.pointer("/metadata/annotations").cloned();
        let counts = kind.builtin().is_some()
            && kind.plural == "deployments"
            && annotations(old) != annotations(object);
        if counts || asks(old) != asks(object) {
            let next = object::generation(old) + 1;
            metadata(object).insert("generation".to_owned(), json!(next));
        }
    }
}

/// What an object says only because of another of its fields, whatever the body says.
pub(super) fn keep_derived(kind: &Kind, old: &Value, object: &mut Value) {
    if kind.builtin().is_none() {
        return;
    }
    match kind.plural.as_str() {
        "daemonsets" => {
            let before: i64 = text(old, TEMPLATE_GENERATION_AT).parse().unwrap_or(1);
            let changed = old.pointer("/spec/template") != object.pointer("/spec/template");
            let now = before + i64::from(changed);
            let annotations = metadata(object)
                .entry("annotations")
                .or_insert_with(|| json!({}));
            as_map(annotations).insert(TEMPLATE_GENERATION.to_owned(), json!(now.to_string()));
        }
        "pods" => {
            let class = old.pointer("/status/qosClass").cloned().unwrap_or_default();
            object::map_at(object, "status")
                .entry("qosClass")
                .or_insert(class);
        }
        _ => {}
    }
}

/// Whether a new object begins without the status of its body.
fn drops_status(kind: &Kind) -> bool {
    // Nodes bring theirs: a kubelet registers with it.
    !kind.is_core("nodes") && !kind.is_core("services")
}

/// The status that Go's types have when nothing is in it.
fn empty_status(kind: &Kind) -> Option<Value> {
    let row = kind.builtin()?;
    let decoded = crate::typed::decode(row.schema, &json!({})).ok()?;
    decoded.object.get("status").cloned()
}

fn new_job(object: &mut Value) {
    let (name, uid) = (
        object::name(object).to_owned(),
        object::uid(object).to_owned(),
    );
    if object.pointer("/spec/manualSelector") == Some(&json!(true)) {
        return;
    }
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    let labels = json!({
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    });
    if let Some(template) = spec.get_mut("template") {
        let given = metadata(template)
            .entry("labels")
            .or_insert_with(|| json!({}));
        for (key, value) in labels.as_object().into_iter().flatten() {
            as_map(given).insert(key.clone(), value.clone());
        }
    }
    let selector = json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } });
    as_map(spec).entry("selector").or_insert(selector);
    as_map(spec).insert("manualSelector".to_owned(), json!(false));
}

/// What admission adds to a changed Pod: the priority that it had, unless the change has one, and
/// tolerations.
fn changed_pod(old: &Value, object: &mut Value) {
    let Some(Value::Object(spec)) = object.get_mut("spec") else {
        return;
    };
    for key in ["priority", "preemptionPolicy"] {
        if let Some(had) = old.pointer(&format!("/spec/{key}")) {
            spec.entry(key).or_insert_with(|| had.clone());
        }
    }
    tolerate_silent_nodes(spec);
}

fn take_string_data(object: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(texts)) = as_map(object).remove("stringData") else {
        return;
    };
    let data = object::map_at(object, "data");
    for (key, text) in texts {
        let bytes = text.as_str().unwrap_or_default().as_bytes();
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        data.insert(key, json!(encoded));
    }
}

/// A new Pod: its phase, its class, and what admission adds.
fn new_pod(object: &mut Value, store: &crate::store::Store, _now: jiff::Timestamp) {
    let class = quality(object.get("spec").unwrap_or(&Value::Null));
    as_map(object).insert(
        "status".to_owned(),
        json!({ "phase": "Pending", "qosClass": class }),
    );
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    let spec = as_map(spec);
    let class_name = spec
        .get("priorityClassName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let (priority, preemption) = match class_name {
        "system-node-critical" => (2_000_001_000, "PreemptLowerPriority".to_owned()),
        "system-cluster-critical" => (2_000_000_000, "PreemptLowerPriority".to_owned()),
        _ => {
            let class = store.get(&crate::store::Key {
                resource: std::sync::Arc::from("priorityclasses.scheduling.k8s.io"),
                namespace: String::new(),
                name: class_name.to_owned(),
            });
            let value = class
                .and_then(|class| class.get("value"))
                .and_then(Value::as_i64);
            let policy = class.map(|class| text(class, "/preemptionPolicy").to_owned());
            (
                value.unwrap_or_default(),
                policy.unwrap_or_else(|| "PreemptLowerPriority".to_owned()),
            )
        }
    };
    spec.insert("priority".to_owned(), json!(priority));
    spec.insert("preemptionPolicy".to_owned(), json!(preemption));
    tolerate_silent_nodes(spec);
}

/// What every Pod tolerates for five minutes, unless it says something about it.
fn tolerate_silent_nodes(spec: &mut Map<String, Value>) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Value::Array(tolerations) = tolerations else {
        return;
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = tolerations.iter().any(|one| {
            let (has, effect) = (text(one, "/key"), text(one, "/effect"));
            (has == key || has.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }));
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by what the containers ask for.
fn quality(spec: &Value) -> &'static str {
    let containers = ["containers", "initContainers"]
        .iter()
        .filter_map(|list| spec.get(list).and_then(Value::as_array))
        .flatten();
    let (mut any, mut all) = (false, true);
    for container in containers {
        let amount = |kind: &str, resource: &str| {
            container
                .pointer(&format!("/resources/{kind}/{resource}"))
                .filter(|value| **value != json!("0"))
        };
        for resource in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", resource), amount("limits", resource));
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
