//! Which Pods may run on a node: selectors, affinity and taints.
//!
//! Owns: the rules that the scheduler, the `DaemonSet` controller and the node lifecycle share, pure.
//! Never does: choose. Not modelled: preferences, resources other than the number of Pods.

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// Whether the node's kubelet says it works.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .filter(|c| c.type_ == "Ready")
        .any(|c| c.status == "True")
}

/// The node's taints; a cordoned node has one more.
pub(crate) fn taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.clone().unwrap_or_default();
    let mut taints = spec.taints.unwrap_or_default();
    let cordon = "node.kubernetes.io/unschedulable";
    if spec.unschedulable == Some(true) && !taints.iter().any(|t| t.key == cordon) {
        taints.push(taint(cordon, "NoSchedule"));
    }
    taints
}

/// A taint without a value.
pub(crate) fn taint(key: &str, effect: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: effect.to_owned(),
        ..Taint::default()
    }
}

/// The toleration of `taint` among `tolerations`, if there is one.
pub(crate) fn toleration<'a>(
    tolerations: impl IntoIterator<Item = &'a Toleration>,
    taint: &Taint,
) -> Option<&'a Toleration> {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    tolerations.into_iter().find(|t| {
        let effect = empty(&t.effect) || t.effect.as_deref() == Some(taint.effect.as_str());
        let exists = t.operator.as_deref() == Some("Exists");
        let key = t.key.as_deref() == Some(taint.key.as_str()) || (exists && empty(&t.key));
        let value = taint.value.as_deref().unwrap_or_default();
        effect && key && (exists || t.value.as_deref().unwrap_or_default() == value)
    })
}

/// The first taint that keeps new Pods of `spec` away.
pub(crate) fn repelled(spec: &PodSpec, node: &Node) -> Option<Taint> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let hard = |taint: &Taint| taint.effect != "PreferNoSchedule";
    let mut taints = taints(node).into_iter().filter(hard);
    taints.find(|taint| toleration(tolerations, taint).is_none())
}

/// Whether `nodeSelector` and the required node affinity admit the node.
pub(crate) fn selected(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let mut wanted = spec.node_selector.iter().flatten();
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    wanted.all(|(name, value)| labels.get(name) == Some(value))
        && required.is_none_or(|r| {
            r.node_selector_terms
                .iter()
                .any(|term| term_holds(term, node))
        })
}

fn term_holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let label = |r: &NodeSelectorRequirement| {
        let value = node
            .metadata
            .labels
            .as_ref()
            .and_then(|all| all.get(&r.key));
        requirement_holds(r, value.map(String::as_str))
    };
    let field = |r: &NodeSelectorRequirement| {
        requirement_holds(
            r,
            node.metadata
                .name
                .as_deref()
                .filter(|_| r.key == "metadata.name"),
        )
    };
    term.match_expressions.iter().flatten().all(label)
        && term.match_fields.iter().flatten().all(field)
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    let limit = number(values.first().map(String::as_str));
    let both = number(value).zip(limit);
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => both.is_some_and(|(value, limit)| value > limit),
        "Lt" => both.is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read best in place")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(labels: Value, spec: Value) -> Node {
        let node = json!({
            "metadata": {"name": "n1", "labels": labels}, "spec": spec,
        });
        serde_json::from_value(node).unwrap()
    }

    fn spec(mut spec: Value) -> PodSpec {
        spec["containers"] = json!([]);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_selector_and_an_affinity_must_both_hold() {
        let node = node(json!({"disk": "ssd"}), json!({}));
        let affinity = |operator: &str, values: Value| {
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]}
            ]}}})
        };
        let pod =
            |affinity: Value| spec(json!({"nodeSelector": {"disk": "ssd"}, "affinity": affinity}));
        assert!(selected(
            &pod(affinity("In", json!(["ssd", "nvme"]))),
            &node
        ));
        assert!(!selected(&pod(affinity("NotIn", json!(["ssd"]))), &node));
        assert!(selected(&pod(affinity("Exists", json!([]))), &node));
        assert!(!selected(
            &spec(json!({"nodeSelector": {"disk": "hdd"}})),
            &node
        ));
    }

    #[test]
    fn a_taint_keeps_away_who_does_not_tolerate_it() {
        let tainted = node(
            json!({}),
            json!({"taints": [
            {"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}),
        );
        assert!(repelled(&spec(json!({})), &tainted).is_some());
        let equal = json!({"tolerations": [{"key": "gpu", "value": "yes"}]});
        assert_eq!(repelled(&spec(equal), &tainted), None);
        let other = json!({"tolerations": [{"key": "gpu", "value": "no"}]});
        assert!(repelled(&spec(other), &tainted).is_some());
        let all = json!({"tolerations": [{"operator": "Exists"}]});
        assert_eq!(repelled(&spec(all), &tainted), None);
        let cordoned = node(json!({}), json!({"unschedulable": true}));
        assert!(repelled(&spec(json!({})), &cordoned).is_some());
    }
}
