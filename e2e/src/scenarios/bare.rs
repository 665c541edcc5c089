//! The ground that other scenarios stand on: if this fails, the product is not to blame.

use std::collections::BTreeSet;

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
    with_a_pod_on_each_node(cluster, "bare", |pods| {
        let addresses: BTreeSet<&String> = pods.iter().map(|pod| &pod.address).collect();
        ensure!(
            addresses.len() == cluster.nodes().len(),
            "addresses: {addresses:?}"
        );
        for pod in pods {
            for address in &addresses {
                let ping = ["ping", "-c1", "-W5", address];
                let exec = [&["-n", "bare", "exec", &pod.name, "--"], ping.as_slice()].concat();
                cluster.kubectl().run(&exec)?;
            }
        }
        Ok(())
    })
}

/// A Pod as far as these scenarios look.
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) address: String,
}

/// Runs `work` while each node runs one Pod, in a namespace of this name.
pub(super) fn with_a_pod_on_each_node(
    cluster: &Cluster,
    namespace: &str,
    work: impl FnOnce(&[Pod]) -> Result<()>,
) -> Result<()> {
    cluster.with_namespace(namespace, |namespace| {
        let kubectl = cluster.kubectl();
        kubectl.apply(&daemon_set().to_string(), &["-n", namespace])?;
        let roll_out = ["rollout", "status", "daemonset/bare", "--timeout=90s"];
        kubectl.run(&[&["-n", namespace], roll_out.as_slice()].concat())?;
        let pods = kubectl.list(&["-n", namespace, "pods"])?;
        let pods: Option<Vec<Pod>> = pods.iter().map(pod_of).collect();
        work(&pods.context("a Pod without an address")?)
    })
}

fn pod_of(pod: &Value) -> Option<Pod> {
    let text = |at: &str| pod.pointer(at)?.as_str().map(str::to_owned);
    Some(Pod {
        name: text("/metadata/name")?,
        uid: text("/metadata/uid")?,
        address: text("/status/podIP")?,
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
