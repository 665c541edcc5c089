//! What the original has the API server do: the kinds as it defines them, and its webhooks.

use serde_json::{Value, json};

use super::original::{CONTROLLER, KINDS};
use crate::product::NAMESPACE;

/// What its definitions of the kinds lack.
const OURS: [&str; 2] = ["conditions", "ledgerEpoch"];

/// Its webhooks, fail-closed; nobody serves them.
pub(super) fn webhooks() -> [Value; 2] {
    let hook = |kind: &str| {
        let path = format!("/{kind}");
        let rule = json!({
            "apiGroups": ["spiderpool.spidernet.io"], "apiVersions": ["v2beta1"],
            "operations": ["CREATE", "UPDATE"], "resources": [kind],
        });
        json!({
            "name": format!("{}.spiderpool.spidernet.io", kind.trim_end_matches('s')),
            "clientConfig": {
                "service": { "name": CONTROLLER, "namespace": NAMESPACE, "path": path },
            },
            "rules": [rule], "failurePolicy": "Fail", "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        })
    };
    [
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ]
    .map(|kind| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": { "name": CONTROLLER }, "webhooks": KINDS.map(hook),
        })
    })
}

/// Takes away what the original's definitions lack; what they lack, the API server drops.
pub(super) fn without_ours(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut)
                && let Some(known) = status.get_mut("properties").and_then(Value::as_object_mut)
            {
                known.retain(|key, _| !OURS.contains(&key.as_str()));
                status.remove("x-kubernetes-preserve-unknown-fields");
            }
            fields.values_mut().for_each(without_ours);
        }
        Value::Array(items) => items.iter_mut().for_each(without_ours),
        _ => {}
    }
}
