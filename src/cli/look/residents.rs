//! Every Pod of a cluster and what it has, by its own word and its endpoint's.
//!
//! Owns: what counts as running and as told. Never does: judge who is right. Invariant: a Pod that may
//! have an address nobody told of is [`Life::Silent`], not one without addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipam::audit::{Life, Resident};
use ipam::name::{Nic, NodeName, PodName, Uid};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use crate::api::{SpiderEndpoint, pod};
use crate::cli::connection::{ClusterError, Connection};

/// Pods that have told no address at an earlier look: what their kubelet was about to tell then, it
/// has told by now.
pub(super) type Quiet = BTreeSet<Uid>;

/// Reads Pods, endpoints and nodes; the residents, and who has told nothing so far.
pub(super) async fn read(
    connection: &Connection,
    before: Option<&Quiet>,
) -> Result<(Vec<Resident>, Quiet), ClusterError> {
    let endpoints = connection.list::<SpiderEndpoint>().await?.objects;
    let nodes = connection.list::<Node>().await?.objects;
    // Pods last: one that came meanwhile is seen.
    let pods = connection.list::<Pod>().await?.objects;
    Ok(of(&pods, &endpoints, &nodes, before))
}

/// What the objects say. Pure.
fn of(
    pods: &[Pod],
    endpoints: &[SpiderEndpoint],
    nodes: &[Node],
    before: Option<&Quiet>,
) -> (Vec<Resident>, Quiet) {
    let ready: BTreeSet<String> = nodes
        .iter()
        .filter(|n| is_ready(n))
        .map(ResourceExt::name_any)
        .collect();
    let mut by_uid: BTreeMap<Uid, Resident> = BTreeMap::new();
    for object in pods.iter().filter(|pod| !pod::is_on_host(pod)) {
        let resident = resident(object);
        by_uid.insert(resident.uid.clone(), resident);
    }
    for endpoint in endpoints {
        let Some(status) = &endpoint.status else {
            continue;
        };
        let uid = Uid::from(status.current.uid.as_str());
        let namespace = endpoint.namespace().unwrap_or_default();
        let known = by_uid.entry(uid.clone()).or_insert_with(|| Resident {
            pod: PodName::new(&namespace, &endpoint.name_any()),
            uid,
            node: Some(NodeName::from(status.current.node.as_str())),
            life: Life::Gone,
            addresses: BTreeMap::new(),
        });
        for (address, nic) in addresses(endpoint) {
            // What the Pod itself says of an address may lack the interface.
            known.addresses.insert(address, nic);
        }
    }
    let mut quiet = Quiet::new();
    for resident in by_uid.values_mut() {
        let told = !resident.addresses.is_empty() || resident.node.is_none();
        if resident.life != Life::Running || told {
            continue;
        }
        quiet.insert(resident.uid.clone());
        let heard = resident
            .node
            .as_ref()
            .is_some_and(|n| ready.contains(n.as_str()));
        let was_quiet = before.is_some_and(|before| before.contains(&resident.uid));
        if !(heard && was_quiet) {
            resident.life = Life::Silent;
        }
    }
    (by_uid.into_values().collect(), quiet)
}

fn resident(object: &Pod) -> Resident {
    let ends = pod::has_finished(object) || object.metadata.deletion_timestamp.is_some();
    Resident {
        pod: PodName::new(&object.namespace().unwrap_or_default(), &object.name_any()),
        uid: pod::uid(object),
        node: pod::node(object),
        life: if ends { Life::Leaving } else { Life::Running },
        addresses: if pod::has_finished(object) {
            BTreeMap::new()
        } else {
            pod::addresses(object)
        },
    }
}

fn addresses(endpoint: &SpiderEndpoint) -> Vec<(IpAddr, Option<Nic>)> {
    let nics = endpoint.status.iter().flat_map(|s| &s.current.ips);
    let of = |nic: &crate::api::EndpointNic| {
        let name = (!nic.interface.is_empty()).then(|| Nic::from(nic.interface.as_str()));
        let texts = [nic.ipv4.clone(), nic.ipv6.clone()].into_iter().flatten();
        let parsed = texts.filter_map(|t| t.split('/').next()?.parse().ok());
        parsed
            .map(|address| (address, name.clone()))
            .collect::<Vec<_>>()
    };
    nics.flat_map(of).collect()
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .filter(|c| c.type_ == "Ready")
        .any(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).unwrap()
    }

    fn pod(name: &str, ips: &[&str]) -> Pod {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        read(
            json!({"metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "podIPs": ips}}),
        )
    }

    fn node(ready: &str) -> Node {
        read(json!({"metadata": {"name": "n1"},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
    }

    fn endpoint(name: &str, uid: &str, ipv4: &str) -> SpiderEndpoint {
        read(
            json!({"metadata": {"name": name, "namespace": "shop"}, "status": {
            "current": {"uid": uid, "node": "n2", "ips": [{"interface": "eth0", "ipv4": ipv4}]},
            "ownerControllerType": "Pod", "ownerControllerName": name}}),
        )
    }

    #[test]
    fn an_endpoint_adds_what_the_pod_does_not_say_and_remembers_one_that_is_gone() {
        let endpoints = [
            endpoint("a", "a", "10.6.0.10/24"),
            endpoint("b", "old", "10.6.0.11/24"),
        ];
        let (all, _) = of(
            &[pod("a", &["10.6.0.10"])],
            &endpoints,
            &[node("True")],
            None,
        );
        let told: Vec<_> = all
            .iter()
            .map(|r| (r.uid.as_str(), r.life, r.addresses.len()))
            .collect();
        assert_eq!(told, [("a", Life::Running, 1), ("old", Life::Gone, 1)]);
        assert!(all[0].addresses.values().all(Option::is_some));
        assert_eq!(all[1].node, Some(NodeName::from("n2")));
    }

    #[test]
    fn a_pod_is_silent_until_a_node_that_reports_has_had_the_time_to_tell() {
        let life = |ready: &str, before: Option<&Quiet>| {
            let (all, quiet) = of(&[pod("a", &[])], &[], &[node(ready)], before);
            (all[0].life, quiet)
        };
        let (first, quiet) = life("True", None);
        assert_eq!(first, Life::Silent);
        assert_eq!(life("True", Some(&quiet)).0, Life::Running);
        assert_eq!(life("Unknown", Some(&quiet)).0, Life::Silent);
    }
}
