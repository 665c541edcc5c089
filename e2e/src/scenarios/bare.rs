//! The ground that other scenarios stand on: if this fails, the product is not to blame.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::network::UNDERLAY;
use crate::{cni, image};

/// One Pod a node, with addresses from a stock plugin; every Pod pings every other.
pub fn run(cluster: &Cluster) -> Result<()> {
    for (node, tens) in cluster.nodes().iter().zip(4..) {
        let range = |end: u8| format!("172.18.41.{tens}{end}");
        let ipam = cni::host_local(UNDERLAY, &range(0), &range(9));
        node.install_conflist(&cni::macvlan(&ipam))?;
    }
    cluster.with_namespace("bare", |namespace| {
        let kubectl = cluster.kubectl();
        kubectl.apply(&daemon_set().to_string(), &["-n", namespace])?;
        let patience = format!("--timeout={}s", Duration::from_secs(90).as_secs());
        kubectl.run(&[
            "-n",
            namespace,
            "rollout",
            "status",
            "daemonset/bare",
            &patience,
        ])?;
        let pods = kubectl.list(&["-n", namespace, "pods"])?;
        let text =
            |pod: &Value, at: &str| pod.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let pods: Option<Vec<(String, String)>> = pods
            .iter()
            .map(|pod| Some((text(pod, "/metadata/name")?, text(pod, "/status/podIP")?)))
            .collect();
        let pods = pods.context("a Pod without an address")?;
        let addresses: BTreeSet<&String> = pods.iter().map(|(_, address)| address).collect();
        ensure!(
            addresses.len() == cluster.nodes().len(),
            "addresses: {addresses:?}"
        );
        for (name, _) in &pods {
            for address in &addresses {
                kubectl.run(&[
                    "-n", namespace, "exec", name, "--", "ping", "-c1", "-W5", address,
                ])?;
            }
        }
        Ok(())
    })
}

fn daemon_set() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "bare" },
        "spec": {
            "selector": { "matchLabels": { "app": "bare" } },
            "template": {
                "metadata": { "labels": { "app": "bare" } },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "main", "image": image::BUSYBOX, "command": ["sleep", "infinity"],
                    }],
                },
            },
        },
    })
}
