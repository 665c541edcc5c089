//! A real node: containerd and kubelet in namespaces of their own, with their own `/etc`, `/opt`,
//! `/run` and `/var`, so that no `hostPath` of a Pod reaches the host's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::REAL_NODE;
use super::access::{Access, node_user};
use super::cgroups;
use super::lab::Lab;
use super::network::{link_node, node_address};
use super::state::NodeState;
use crate::command::{program, run};
use crate::paths::NODE_OWN;
use crate::process::Process;
use crate::tools::Tools;
use crate::wait::eventually;

/// The nodes of the cluster.
pub const NODES: [&str; 2] = ["spider-control-plane", "spider-worker"];

/// What a node takes over of the host's `/etc`: names, links to programs, the linker's cache.
const ETC: [&str; 9] = [
    "alternatives",
    "group",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "passwd",
    "protocols",
];

/// Where Debian keeps the stock CNI plugins.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// A node that runs.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
    lab: Lab,
}

/// What booting nodes needs.
#[derive(Clone, Copy, Debug)]
pub struct Yard<'a> {
    /// The cluster's namespaces.
    pub lab: Lab,
    /// The cluster's folder.
    pub run: &'a Path,
    /// Our own binary, where nodes see it.
    pub exe: &'a Path,
    /// Kubernetes' binaries.
    pub tools: &'a Tools,
    /// Kubeconfigs.
    pub access: &'a Access,
    /// Archives of images for every node.
    pub images: &'a [PathBuf],
}

impl Yard<'_> {
    /// Boots a node: a new one, or one that lost its power, with what it had on its disk.
    pub fn boot(&self, name: &str, index: u8) -> Result<(Node, NodeState)> {
        let folder = node_folder(self.run, name);
        self.prepare(&folder, name, index)
            .with_context(|| format!("cannot prepare the folders of node {name}"))?;
        let log = |what: &str| self.run.join("log").join(format!("{what}-{name}.log"));
        let own = folder.join("fs");
        let exe = self.exe.display().to_string();
        let own_text = own.display().to_string();
        let words = "--net --mount --uts --ipc --pid --fork --kill-child --mount-proc";
        let words = words.split(' ').chain([
            exe.as_str(),
            "inside",
            "init",
            "--hostname",
            name,
            "--own",
            &own_text,
        ]);
        let words: Vec<String> = words.map(str::to_owned).collect();
        let holder = self.lab.start(Path::new("unshare"), &words, &log("init"))?;
        let lab = Lab::of(holder.only_child()?);
        eventually(
            Duration::from_secs(10),
            &format!("node {name} has its folders"),
            || {
                ensure!(
                    own.join("run/e2e-ready").exists(),
                    "see {}",
                    log("init").display()
                );
                Ok(())
            },
        )?;
        link_node(self.lab, lab, index)?;
        let node = Node {
            name: name.to_owned(),
            folder,
            lab,
        };
        node.start_runtime(&log("containerd"))?;
        for image in self.images {
            node.import_image(image)?;
        }
        node.start_kubelet(self.tools, &node_address(index), &log("kubelet"))?;
        Ok((
            node,
            NodeState {
                index,
                init: lab.init(),
            },
        ))
    }

    fn prepare(&self, folder: &Path, name: &str, index: u8) -> Result<()> {
        let own = folder.join("fs");
        // What a power cut takes: `/run`, and the control groups of containers that were.
        let _ = fs::remove_dir_all(own.join("run"));
        cgroups::make(name)?;
        for below in [
            "run/netns",
            "run/lock",
            "var/lib",
            "var/log",
            "var/tmp",
            "opt/cni/bin",
        ] {
            fs::create_dir_all(own.join(below))?;
        }
        if !own.join("etc").exists() {
            prepare_disk(&own)?;
        }
        for tool in fs::read_dir(CNI_PLUGINS)?.flatten() {
            fs::copy(tool.path(), own.join("opt/cni/bin").join(tool.file_name()))?;
        }
        let kubelet = kubelet_config(&node_address(index));
        fs::write(folder.join("kubelet.yaml"), kubelet.to_string())?;
        fs::write(folder.join("containerd.toml"), containerd_config())?;
        fs::copy(
            self.access.kubeconfig(&node_user(name)),
            folder.join("kubeconfig"),
        )?;
        Ok(())
    }
}

/// The disk of a node that never ran.
fn prepare_disk(own: &Path) -> Result<()> {
    fs::create_dir_all(own.join("etc/cni/net.d"))?;
    std::os::unix::fs::symlink("/run", own.join("var/run"))?;
    let etc = own.join("etc").display().to_string();
    for name in ETC
        .iter()
        .filter(|name| Path::new("/etc").join(name).exists())
    {
        let from = format!("/etc/{name}");
        run(&mut program("cp", ["-a", "--", &from, &etc]))?;
    }
    // No name server: nothing leads out of a node.
    fs::write(own.join("etc/resolv.conf"), "options timeout:1\n")?;
    Ok(())
}

impl Node {
    /// A node that was booted earlier.
    pub fn attach(run: &Path, name: &str, state: NodeState) -> Self {
        Self {
            name: name.to_owned(),
            folder: node_folder(run, name),
            lab: Lab::of(state.init),
        }
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespaces.
    pub fn lab(&self) -> Lab {
        self.lab
    }

    /// A path of the node (below `/etc`, `/opt`, `/run`, `/var`) as the host sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        let inside = inside.trim_start_matches('/');
        debug_assert!(
            NODE_OWN.iter().any(|own| inside.starts_with(own)),
            "{inside}"
        );
        self.folder.join("fs").join(inside)
    }

    /// Brings an image's archive into the node.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let mut ctr = self.lab.enter("ctr");
        run(ctr
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(archive))
        .with_context(|| format!("cannot bring an image to node {}", self.name))?;
        Ok(())
    }

    /// Makes this the node's only CNI configuration; containerd follows by itself.
    pub fn install_conflist(&self, conflist: &serde_json::Value) -> Result<()> {
        let folder = self.path("etc/cni/net.d");
        let (part, file) = (folder.join("e2e.part"), folder.join("10-e2e.conflist"));
        fs::write(&part, conflist.to_string())
            .and_then(|()| fs::rename(&part, &file))
            .with_context(|| format!("cannot install the CNI configuration {}", file.display()))
    }

    /// Its kubelet.
    pub fn kubelet(&self) -> Result<Process> {
        let config = format!("--config={}", self.folder.join("kubelet.yaml").display());
        let found = self.lab.init().descendants_running(&["kubelet", &config]);
        let kubelet = found.first().copied();
        kubelet.with_context(|| format!("no kubelet runs on node {}", self.name))
    }

    /// Takes away what a power cut takes of Pods that are not on the node's own network: their
    /// processes, and their network namespaces with all links. The kubelet should not see it.
    pub fn cut_off_pods(&self) -> Result<()> {
        let script = r#"
            for namespace in $(ip netns list | cut -d' ' -f1); do
                ip netns pids "$namespace" | xargs --no-run-if-empty kill -9
                ip netns delete "$namespace" || exit
            done"#;
        run(self.lab.enter("sh").args(["-c", script])).map(drop)
    }

    fn start_runtime(&self, log: &Path) -> Result<()> {
        let config = self.folder.join("containerd.toml").display().to_string();
        let args = ["--config".to_owned(), config];
        self.lab.start(Path::new("containerd"), &args, log)?;
        let what = format!(
            "containerd of node {} answers; log: {}",
            self.name,
            log.display()
        );
        eventually(Duration::from_secs(30), &what, || {
            run(self.lab.enter("ctr").arg("version"))
        })?;
        Ok(())
    }

    fn start_kubelet(&self, tools: &Tools, address: &str, log: &Path) -> Result<()> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let args = [
            format!("--config={}", file("kubelet.yaml")),
            format!("--kubeconfig={}", file("kubeconfig")),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={address}"),
            format!("--node-labels={REAL_NODE}=true"),
            "--cert-dir=/var/lib/kubelet/pki".to_owned(),
        ];
        self.lab.start(&tools.path("kubelet"), &args, log)?;
        Ok(())
    }
}

fn node_folder(run: &Path, name: &str) -> PathBuf {
    run.join("nodes").join(name)
}

/// Default paths throughout: all of them are the node's own.
fn containerd_config() -> String {
    format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  disable_apparmor = true
  restrict_oom_score_adj = true
"#,
        crate::image::PAUSE
    )
}

fn kubelet_config(address: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "readOnlyPort": 0,
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "maxPods": 500,
        // A full disk of the host is no business of ours.
        "evictionHard": { "imagefs.available": "0%", "nodefs.available": "0%" },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        // Scenarios kill containers on purpose, many times.
        "featureGates": { "KubeletCrashLoopBackOffMax": true },
        "crashLoopBackOff": { "maxContainerRestartPeriod": "1s" },
        // Nothing answers there; without an address each Pod would get a warning.
        "clusterDNS": ["10.96.0.10"],
    })
}
