//! The network of a demo's node: the real plugin against the real agent, and no interfaces.
//!
//! Owns: what a container runtime hands to the plugin, once for each interface, and reading what it
//! says. A network namespace is a file here, which is there as long as the real one would be, and says
//! which interfaces are in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni::plugin::{
    Host, Invocation, LogConfig, LogSink, NetnsError, Outcome, Segment, SegmentError, System, run,
};
use cni::socket::SocketTransport;
use futures::future::BoxFuture;
use ipam::attachment::{NETWORKS, Networks};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use kubesim::actors::{Network, PodId};
use serde_json::{Value, json};

/// The plugin that has ours as its `ipam`, as it stands in the messages.
const PLUGIN: &str = "macvlan";
/// The interface of every Pod; its addresses are the Pod's.
const FIRST: &str = "eth0";

/// The agent's socket on the node whose files are in `home`.
pub(super) fn socket(home: &Path) -> PathBuf {
    home.join("spiderpool.sock")
}

/// Executes the plugin for the sandboxes of one node.
pub(super) struct Plugin {
    client: Client,
    socket: PathBuf,
    namespaces: PathBuf,
}

impl Plugin {
    /// The plugin of the node whose files are in `home`; it reads Pods through `client`.
    ///
    /// Errors: the folder of the namespaces can't be made.
    pub(super) fn new(home: &Path, client: Client) -> io::Result<Self> {
        let namespaces = home.join("netns");
        std::fs::create_dir_all(&namespaces)?;
        Ok(Self {
            client,
            socket: socket(home),
            namespaces,
        })
    }

    /// The interfaces that a Pod asks for: `net1` and so on for networks besides the cluster's, as
    /// Multus names them.
    async fn interfaces(&self, pod: &PodId) -> Result<Vec<String>, String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let found = pods.get(&pod.name).await.map_err(|e| e.to_string())?;
        let networks = Networks {
            others: found.annotations().get(NETWORKS).map(String::as_str),
            pod_namespace: &pod.namespace,
            ..Networks::default()
        };
        let others = (1..=networks.more()).map(|number| format!("net{number}"));
        Ok([FIRST.to_owned()].into_iter().chain(others).collect())
    }

    fn invocation(&self, command: &str, pod: &PodId, sandbox: &str, nic: &str) -> Invocation {
        let PodId {
            namespace,
            name,
            uid,
        } = pod;
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
             K8S_POD_INFRA_CONTAINER_ID={sandbox};K8S_POD_UID={uid}"
        );
        let env: [(&str, OsString); 6] = [
            ("CNI_COMMAND", command.into()),
            ("CNI_CONTAINERID", sandbox.into()),
            ("CNI_NETNS", self.namespaces.join(sandbox).into()),
            ("CNI_IFNAME", nic.into()),
            ("CNI_PATH", "/opt/cni/bin".into()),
            ("CNI_ARGS", arguments.into()),
        ];
        let config = json!({
            "cniVersion": "1.0.0", "name": "demo", "type": PLUGIN, "master": FIRST,
            "ipam": {"type": "spiderpool", "ipam_unix_socket_path": self.socket},
        });
        let env: BTreeMap<OsString, OsString> = env
            .into_iter()
            .map(|(name, value)| (name.into(), value))
            .collect();
        Invocation {
            env,
            stdin: config.to_string().into_bytes(),
        }
    }
}

impl Network for Plugin {
    fn add<'a>(
        &'a self,
        pod: &'a PodId,
        sandbox: &'a str,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let interfaces = self.interfaces(pod).await?;
            std::fs::write(self.namespaces.join(sandbox), interfaces.join("\n"))
                .map_err(|error| error.to_string())?;
            let mut of_pod = Vec::new();
            for nic in &interfaces {
                let invocation = self.invocation("ADD", pod, sandbox, nic);
                let mut of_nic = addresses(&execute(invocation).await?)?;
                if nic == FIRST {
                    of_pod.append(&mut of_nic);
                }
            }
            Ok(of_pod)
        })
    }

    fn del<'a>(&'a self, pod: &'a PodId, sandbox: &'a str) -> BoxFuture<'a, Result<(), String>> {
        let namespace = self.namespaces.join(sandbox);
        Box::pin(async move {
            let interfaces = std::fs::read_to_string(&namespace);
            let interfaces = interfaces.unwrap_or_else(|_| FIRST.to_owned());
            for nic in interfaces.lines().rev() {
                let outcome = execute(self.invocation("DEL", pod, sandbox, nic)).await?;
                if !outcome.succeeded {
                    return Err(format!(
                        "plugin type={PLUGIN:?} failed (delete): {}",
                        message(&outcome)
                    ));
                }
            }
            // The second DEL finds it gone, as a real one does.
            let _ = std::fs::remove_file(namespace);
            Ok(())
        })
    }
}

/// Runs the plugin as its process would run, beside the runtime's own threads.
async fn execute(invocation: Invocation) -> Result<Outcome, String> {
    let run = move || run(&invocation, &Node(System::new()), &SocketTransport);
    let outcome = tokio::task::spawn_blocking(run).await;
    outcome.map_err(|error| error.to_string())
}

fn addresses(outcome: &Outcome) -> Result<Vec<IpAddr>, String> {
    if !outcome.succeeded {
        return Err(format!(
            "plugin type={PLUGIN:?} failed (add): {}",
            message(outcome)
        ));
    }
    let result: Value = serde_json::from_str(&outcome.stdout).map_err(|e| e.to_string())?;
    let ips = result["ips"].as_array().cloned().unwrap_or_default();
    let addresses = ips.iter().filter_map(|ip| {
        let (address, _) = ip["address"].as_str()?.split_once('/')?;
        address.parse().ok()
    });
    Ok(addresses.collect())
}

/// The text of a CNI error as `libcni` joins it.
fn message(outcome: &Outcome) -> String {
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    let text = error["msg"].as_str().unwrap_or(&outcome.stdout);
    match error["details"].as_str() {
        None | Some("") => text.to_owned(),
        Some(details) => format!("{text}; {details}"),
    }
}

/// A machine whose network namespaces are files.
struct Node(System);

impl Host for Node {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, pause: Duration) {
        self.0.sleep(pause);
    }

    fn check_netns(&self, path: &Path) -> Result<(), NetnsError> {
        match std::fs::metadata(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(NetnsError::Unreadable {
                path: path.to_owned(),
                source: error.into(),
            }),
        }
    }

    fn open_segment(&self, _: &Path, nic: &str) -> Result<Box<dyn Segment>, SegmentError> {
        let nic = nic.to_owned();
        Err(SegmentError::Absent { nic })
    }

    fn open_log(&self, _: &LogConfig) -> Box<dyn LogSink> {
        Box::new(())
    }
}
