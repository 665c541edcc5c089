//! Pods' own endpoints: the scheduler's binding and evictions.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock;
use crate::error::ApiError;
use crate::object::{self, as_map, map_at};
use crate::request::Call;

use super::{Answer, Turn};

const BUDGETS: &str = "poddisruptionbudgets.policy";

impl Turn<'_> {
    /// Puts a Pod on a node, once.
    pub(super) fn bind(&mut self) -> Result<Answer, ApiError> {
        let binding = self.call.json()?.unwrap_or_default();
        let key = self.key(&self.call.name);
        let old = self.stored(&key)?;
        let kind = Arc::clone(&self.call.kind);
        let node = object::text(&binding, "/target/name").to_owned();
        let uid = object::uid(&binding);
        if !uid.is_empty() && uid != object::uid(&old) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(&old)
            );
            return Err(ApiError::conflict_because(&kind, &key.name, &why));
        }
        if object::is_going(&old) {
            let why = format!(
                "pod {} is being deleted, cannot be assigned to a host",
                key.name
            );
            return Err(binding_conflict(&key.name, &why));
        }
        let host = object::text(&old, "/spec/nodeName");
        if !host.is_empty() {
            let why = format!("pod {} is already assigned to node {host:?}", key.name);
            return Err(binding_conflict(&key.name, &why));
        }
        let mut object = old.as_ref().clone();
        map_at(&mut object, "spec").insert("nodeName".to_owned(), json!(node));
        let annotations = binding
            .pointer("/metadata/annotations")
            .and_then(Value::as_object);
        if let Some(given) = annotations {
            let own = object::metadata(&mut object)
                .entry("annotations")
                .or_insert_with(|| json!({}));
            as_map(own).extend(given.clone());
        }
        set_condition(
            &mut object,
            json!({
                "type": "PodScheduled",
                "status": "True",
                "lastProbeTime": null,
                "lastTransitionTime": clock::seconds(self.now),
            }),
        );
        self.commit(key, object)?;
        Ok(Answer::created(success()))
    }

    /// Deletes a Pod if every budget that covers it allows that.
    pub(super) fn evict(&mut self) -> Result<Answer, ApiError> {
        let body = self.call.json()?.unwrap_or_default();
        let key = self.key(&self.call.name);
        let pod = self.stored(&key)?;
        if let Some(refusal) = self.refusing_budget(&pod) {
            return Err(refusal);
        }
        let mut call: Call = self.call.clone();
        let options = body
            .get("deleteOptions")
            .cloned()
            .unwrap_or_else(|| json!({}));
        call.body = options.to_string().into();
        call.content_type = String::new();
        Turn {
            state: &mut *self.state,
            now: self.now,
            call: &call,
            books: None,
        }
        .delete()?;
        Ok(Answer::created(success()))
    }

    fn refusing_budget(&self, pod: &Value) -> Option<ApiError> {
        if matches!(
            object::text(pod, "/status/phase"),
            "Pending" | "Failed" | "Succeeded"
        ) || object::is_going(pod)
        {
            return None;
        }
        let budgets = self
            .state
            .store
            .list(&Arc::from(BUDGETS), Some(&self.call.namespace))
            .map(|(_, budget)| budget);
        let mut covering = budgets.filter(|budget| covers(budget, pod));
        let tight = covering.find(|budget| {
            budget
                .pointer("/status/disruptionsAllowed")
                .and_then(Value::as_i64)
                .unwrap_or_default()
                < 1
        })?;
        let name = object::name(tight);
        let count = |at: &str| {
            tight
                .pointer(at)
                .and_then(Value::as_i64)
                .unwrap_or_default()
        };
        let message = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("/status/desiredHealthy"),
            count("/status/currentHealthy")
        );
        Some(ApiError::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            json!({ "causes": [{ "reason": "DisruptionBudget", "message": message }] }),
        ))
    }
}

fn covers(budget: &Value, pod: &Value) -> bool {
    let wanted = budget
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    wanted.is_some_and(|wanted| {
        let labels = pod.pointer("/metadata/labels");
        wanted
            .iter()
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}

fn binding_conflict(name: &str, why: &str) -> ApiError {
    ApiError::binding_conflict(name, why)
}

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}

/// Sets a condition of a Pod's status, by its type.
fn set_condition(pod: &mut Value, condition: Value) {
    let conditions = map_at(pod, "status")
        .entry("conditions")
        .or_insert_with(|| json!([]));
    let Value::Array(list) = conditions else {
        return;
    };
    list.retain(|one| one.get("type") != condition.get("type"));
    list.push(condition);
}
