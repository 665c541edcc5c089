//! The node's own object and its lease: how the cluster knows that the node is there.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::Kubelet;
use crate::Clock as _;
use crate::actors::nodes;
use crate::actors::runner::answered;

/// How often the lease is renewed and the node's own object looked at.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Namespace of the leases.
pub(crate) const LEASES: &str = "kube-node-lease";
/// Seconds that a lease holds.
const LEASE_SECONDS: i32 = 40;
/// Pods that a node takes.
const PODS: &str = "110";

impl Kubelet {
    /// Registers the node and keeps saying that it is there.
    pub(super) async fn register(self) {
        loop {
            let told = async {
                self.keep_node().await?;
                self.renew().await
            };
            let pause = match told.await {
                Ok(()) => HEARTBEAT,
                Err(error) => {
                    tracing::debug!(node = self.node.name, %error, "heartbeat failed");
                    HEARTBEAT / 10
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn keep_node(&self) -> Result<(), kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let name = &self.node.name;
        let node = match api.get_opt(name).await? {
            Some(node) => node,
            None => match api
                .create(&PostParams::default(), &self.node_object()?)
                .await
            {
                Ok(node) => node,
                Err(error) if answered(&error, 409) => api.get(name).await?,
                Err(error) => return Err(error),
            },
        };
        if !nodes::is_ready(&node) {
            let status = json!({ "status": self.node_status() });
            let patch = Patch::Strategic(status);
            api.patch_status(name, &PatchParams::default(), &patch)
                .await?;
        }
        Ok(())
    }

    async fn renew(&self) -> Result<(), kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let name = &self.node.name;
        let spec = json!({
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": MicroTime(self.clock.now()),
        });
        let patch = Patch::Merge(json!({ "spec": spec }));
        match api.patch(name, &PatchParams::default(), &patch).await {
            Err(error) if answered(&error, 404) => {
                let lease = json!({
                    "metadata": { "name": name, "namespace": LEASES },
                    "spec": spec,
                });
                let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
                api.create(&PostParams::default(), &lease).await.map(drop)
            }
            outcome => outcome.map(drop),
        }
    }

    fn node_object(&self) -> Result<Node, kube::Error> {
        let name = &self.node.name;
        let mut labels = self.node.labels.clone();
        for (label, value) in [
            ("kubernetes.io/hostname", name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", "amd64"),
        ] {
            labels.insert(label.to_owned(), value.to_owned());
        }
        let node = json!({
            "metadata": { "name": name, "labels": labels },
            "spec": {},
            "status": self.node_status(),
        });
        serde_json::from_value(node).map_err(kube::Error::SerdeError)
    }

    fn node_status(&self) -> Value {
        let addresses = self.node.addresses.iter();
        let addresses = addresses.map(|ip| json!({ "type": "InternalIP", "address": ip }));
        let name = json!({ "type": "Hostname", "address": self.node.name });
        let addresses: Vec<Value> = addresses.chain([name]).collect();
        let size = json!({ "pods": PODS, "cpu": "8", "memory": "16Gi" });
        let now = Time(self.clock.now());
        let fine = |of_type: &str, status: &str, reason: &str, message: &str| {
            json!({
                "type": of_type, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            })
        };
        json!({
            "addresses": addresses,
            "capacity": size,
            "allocatable": size,
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "bootID": "",
                "containerRuntimeVersion": "containerd://2.1.0", "kernelVersion": "6.12.0",
                "kubeProxyVersion": "", "kubeletVersion": "v1.34.0", "machineID": "",
                "osImage": "kubesim", "systemUUID": "",
            },
            "conditions": [
                fine("MemoryPressure", "False", "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available"),
                fine("DiskPressure", "False", "KubeletHasNoDiskPressure",
                    "kubelet has no disk pressure"),
                fine("PIDPressure", "False", "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available"),
                fine("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
        })
    }
}
