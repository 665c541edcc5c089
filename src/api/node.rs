//! What a Node's object says about the machine.
//!
//! Owns: the reading of it, the same for all who ask whether a node has let go of its Pods. Never
//! does: decide ([`ipam::collect`]).

use std::net::{IpAddr, SocketAddr};

use ipam::collect::{Sign, Standing};
use k8s_openapi::api::core::v1::{Node, NodeCondition};

use super::time;

/// By which a person says that a node is down and none of its Pods runs any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Where a kubelet listens unless its Node says otherwise.
const KUBELET_PORT: u16 = 10_250;

/// True where its kubelet reports and is ready.
pub fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|condition| condition.status == "True")
}

/// True where a person says that nothing runs there, and the kubelet does not say otherwise:
/// Kubernetes itself takes a node for lost by these two together.
pub fn is_out_of_service(node: &Node) -> bool {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE) && !is_ready(node)
}

/// How a node stands that nobody asked.
pub fn standing(node: Option<&Node>) -> Standing {
    let Some(node) = node else {
        return Standing::Gone;
    };
    let since = ready(node).and_then(|condition| condition.last_transition_time.as_ref());
    let since = since.map(time::from_wire);
    if is_ready(node) {
        Standing::Ready { since }
    } else if is_out_of_service(node) {
        Standing::OutOfService
    } else {
        let sign = Sign::NotAsked;
        Standing::Unready { since, sign }
    }
}

/// Where its kubelet listens.
pub fn kubelet(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let mut addresses = status.addresses.iter().flatten();
    let address: IpAddr = addresses
        .find(|address| address.type_ == "InternalIP")?
        .address
        .parse()
        .ok()?;
    let told = status.daemon_endpoints.as_ref();
    let told = told.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref());
    let port = told.and_then(|endpoint| u16::try_from(endpoint.port).ok());
    Some(SocketAddr::new(address, port.unwrap_or(KUBELET_PORT)))
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(status: &str, taints: &Value) -> Node {
        let object = json!({
            "metadata": {"name": "n1"},
            "spec": {"taints": taints},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "10.0.0.7"},
                ],
                "conditions": [
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "Ready", "status": status, "lastTransitionTime": "2026-11-22T17:41:24Z"},
                ],
            },
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_node_stands_as_its_condition_and_its_taint_say_together() {
        let since = Some("2026-11-22T17:41:24Z".parse().unwrap());
        let lost = json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]);
        let sign = Sign::NotAsked;
        let table = [
            ("True", json!([]), Standing::Ready { since }),
            ("True", lost.clone(), Standing::Ready { since }),
            ("False", json!([]), Standing::Unready { since, sign }),
            ("Unknown", json!([]), Standing::Unready { since, sign }),
            ("Unknown", lost, Standing::OutOfService),
        ];
        for (status, taints, expected) in table {
            let found = standing(Some(&node(status, &taints)));
            assert_eq!(found, expected, "{status} {taints}");
        }
        assert_eq!(standing(None), Standing::Gone);
        let new = Standing::Unready { since: None, sign };
        assert_eq!(standing(Some(&Node::default())), new);
    }

    #[test]
    fn a_kubelet_listens_at_the_internal_address() {
        let mut node = node("True", &json!([]));
        assert_eq!(kubelet(&node), Some("10.0.0.7:10250".parse().unwrap()));
        let port = json!({"kubeletEndpoint": {"Port": 20_250}});
        let status = node.status.as_mut().unwrap();
        status.daemon_endpoints = Some(serde_json::from_value(port).unwrap());
        assert_eq!(kubelet(&node), Some("10.0.0.7:20250".parse().unwrap()));
        assert_eq!(kubelet(&Node::default()), None);
    }
}
