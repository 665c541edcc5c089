//! The product as an operator has it: image, chart, processes, and its objects as `kubectl` shows
//! them.
//!
//! Owns: how it is built, installed, upgraded, removed, and found among a node's processes. Never
//! does: judge. Helm works as for anybody, so RBAC, probes and mounts are the chart's own; nothing
//! is set but what differs between clusters (the API server's address, the nodes that are real).

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::audit::service_account;
use crate::cluster::network::{API_ADDRESS, API_PORT};
use crate::cluster::node::Node;
use crate::cluster::{Cluster, REAL_NODE};
use crate::paths::Paths;
use crate::process::Process;
use crate::progress::long;
use crate::wait::{eventually, patient};

pub mod addresses;
pub mod books;
pub mod build;
pub mod objects;
pub mod watch;

pub use build::build_image;
use build::{Profile, Programs};

/// Where the product lives.
pub const NAMESPACE: &str = "kube-system";
/// The name of its release.
pub const RELEASE: &str = "orbweaver";
/// The chart, seen from the source tree.
pub const CHART: &str = "helm/orbweaver";
/// The workloads that the chart makes.
const ROLES: [&str; 2] = [
    "daemonset/orbweaver-agent",
    "deployment/orbweaver-controller",
];
/// The names of its accounts: the agents', the controllers'.
pub const ACCOUNTS: [&str; 2] = ["orbweaver-agent", "orbweaver-controller"];
/// How many controllers there are: one acts, one waits.
pub const CONTROLLERS: u64 = 2;
/// The lease whose holder acts.
const LEASE: &str = "spiderpool-controller-leases";
/// On the product's Pods: the image they run, so that a new one under the old name rolls out.
const IMAGE_ANNOTATION: &str = "e2e.orbweaver.io/image";
/// How long helm and roll-outs may take.
const ROLL_OUT: Duration = Duration::from_mins(2);

/// A role of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process of a node that gives addresses to its Pods.
    Agent,
    /// The process that makes pools follow workloads.
    Controller,
}

impl Role {
    /// The command of this role.
    pub fn command(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Controller => "controller",
        }
    }

    /// Its process on a node, if one runs there.
    pub fn process_on(self, node: &Node) -> Option<Process> {
        let words = ["orbweaver", self.command()];
        let found = node.lab().init().descendants_running(&words);
        found.into_iter().find(|process| process.is_alive())
    }
}

/// Whether the API server asks the product before it stores or deletes an object of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As the chart has it: webhooks, and the policy for what is in use.
    On,
    /// Nobody asks: what a scenario shows holds without.
    Off,
}

/// Its accounts, as the API server calls their users.
pub fn accounts() -> [String; 2] {
    ACCOUNTS.map(|name| service_account(NAMESPACE, name))
}

/// Sees to it that the cluster runs the product as it is in the source tree, with the defaults but
/// for `admission`.
///
/// Cheap where that is so already. Errors: it does not build, helm refuses, a roll-out does not end.
pub fn ensure(cluster: &Cluster, admission: Admission) -> Result<()> {
    ensure_built(cluster, admission, Profile::Checked)
}

/// [`ensure()`], with programs of this build.
pub fn ensure_built(cluster: &Cluster, admission: Admission, profile: Profile) -> Result<()> {
    let (archive, digest) = image(cluster.paths(), profile)?;
    if installed_image(cluster)?.as_deref() != Some(digest) {
        long("bringing the product's image to the nodes", || {
            cluster.import_image(&archive)
        })?;
    }
    write_values(cluster, admission, digest)?;
    let known = cluster
        .helm()
        .run(&["list", "--namespace", NAMESPACE, "--short", "--all"])?;
    if known.lines().any(|release| release == RELEASE) {
        apply_crds(cluster)?;
        upgrade(
            cluster,
            &["--reset-values", "--values", &values_file(cluster)],
        )
    } else {
        install(cluster)
    }
}

/// The image and its digest. It is built once a run: sources that somebody edits meanwhile are for
/// the next.
fn image(paths: &Paths, profile: Profile) -> Result<(PathBuf, &'static str)> {
    static CHECKED: OnceLock<String> = OnceLock::new();
    static SHIPPED: OnceLock<String> = OnceLock::new();
    let (digest, file) = match profile {
        Profile::Checked => (&CHECKED, "orbweaver.checked.tar"),
        Profile::Release => (&SHIPPED, "orbweaver.shipped.tar"),
    };
    let archive = paths.cache().join(file);
    if let Some(digest) = digest.get() {
        return Ok((archive, digest));
    }
    let built = Programs::build(paths, profile)?.pack(&archive)?;
    Ok((archive, digest.get_or_init(|| built)))
}

/// Installs the chart, and waits until everything of it runs.
pub fn install(cluster: &Cluster) -> Result<()> {
    let values = values_file(cluster);
    long("helm install orbweaver", || {
        helm(cluster, "install", &["--values", &values])
    })?;
    ensure_working(cluster)
}

/// Upgrades the release, and waits until everything of it runs with the new values.
pub fn upgrade(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let what = format!("helm upgrade orbweaver {}", args.join(" "));
    long(&what, || helm(cluster, "upgrade", args))?;
    ensure_working(cluster)
}

/// Takes the programs away, if they are there, and waits until none of them runs.
pub fn uninstall(cluster: &Cluster) -> Result<()> {
    let limit = roll_out_limit();
    let args = [
        "uninstall",
        RELEASE,
        "--ignore-not-found",
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        &limit,
    ];
    long("helm uninstall orbweaver", || cluster.helm().run(&args))?;
    none_runs(cluster, Role::Agent)?;
    none_runs(cluster, Role::Controller)
}

/// Scales the controllers, and waits until none of them runs, or one acts and all are ready.
pub fn scale_controllers(cluster: &Cluster, replicas: u64) -> Result<()> {
    let [_, controller] = ROLES;
    let number = format!("--replicas={replicas}");
    let args = ["scale", controller, "--namespace", NAMESPACE, &number];
    cluster.kubectl().run(&args)?;
    match replicas {
        0 => none_runs(cluster, Role::Controller),
        _ => ensure_working(cluster),
    }
}

fn none_runs(cluster: &Cluster, role: Role) -> Result<()> {
    let what = format!("no {} runs", role.command());
    eventually(ROLL_OUT, &what, || {
        for node in cluster.nodes() {
            let runs = role.process_on(node).is_some();
            ensure!(!runs, "one runs on node {}", node.name());
        }
        Ok(())
    })
}

/// The values of the installation, as a file for helm: what differs between clusters.
pub fn values_file(cluster: &Cluster) -> String {
    cluster.file("orbweaver-values.json").display().to_string()
}

/// Waits until every Pod of the product is ready and one controller acts.
pub fn ensure_working(cluster: &Cluster) -> Result<()> {
    let limit = format!("--timeout={}", roll_out_limit());
    for role in ROLES {
        cluster
            .kubectl()
            .run(&["rollout", "status", role, "--namespace", NAMESPACE, &limit])?;
    }
    eventually(ROLL_OUT, "a controller acts", || {
        acting_controller(cluster).map(|_| ())
    })
}

/// The name of the controller's Pod that holds the lease.
pub fn leader(cluster: &Cluster) -> Result<String> {
    let lease = ["get", "lease", LEASE, "--namespace", NAMESPACE];
    let lease = cluster.kubectl().json(&lease)?;
    let holder = lease
        .pointer("/spec/holderIdentity")
        .and_then(Value::as_str);
    let holder = holder.unwrap_or_default();
    ensure!(!holder.is_empty(), "nobody holds lease {LEASE}");
    Ok(holder.to_owned())
}

/// The controller that acts: who holds the lease, on which node, and that it lives.
pub fn acting_controller(cluster: &Cluster) -> Result<(&Node, Process)> {
    let holder = &leader(cluster)?;
    let pod = cluster
        .kubectl()
        .json(&["get", "pod", holder, "--namespace", NAMESPACE])?;
    let name = pod
        .pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let node = cluster.nodes().iter().find(|node| node.name() == name);
    let node =
        node.with_context(|| format!("controller {holder} runs on no node of ours: {name}"))?;
    match Role::Controller.process_on(node) {
        Some(process) => Ok((node, process)),
        None => bail!("controller {holder} is not running on node {name}"),
    }
}

/// [`ROLL_OUT`] on this machine, as helm and `kubectl` read it.
fn roll_out_limit() -> String {
    format!("{}s", patient(ROLL_OUT).as_secs())
}

fn helm(cluster: &Cluster, verb: &str, args: &[&str]) -> Result<String> {
    let chart = cluster.paths().source().join(CHART).display().to_string();
    let limit = roll_out_limit();
    let fixed = [
        verb,
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        &limit,
    ];
    cluster.helm().run(&[&fixed[..], args].concat())
}

/// What an operator does before an upgrade: helm installs CRDs and never changes them. Waits until
/// the API server serves them.
pub fn apply_crds(cluster: &Cluster) -> Result<()> {
    let crds = cluster
        .paths()
        .source()
        .join(CHART)
        .join("crds")
        .display()
        .to_string();
    let args = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename",
        &crds,
    ];
    cluster.kubectl().run(&args)?;
    let served = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "--filename",
        &crds,
    ];
    cluster.kubectl().run(&served).map(|_| ())
}

/// The digest of the image that the agents run; none where there are no agents.
fn installed_image(cluster: &Cluster) -> Result<Option<String>> {
    let agents = ["daemonset", "orbweaver-agent", "--namespace", NAMESPACE];
    let found = cluster.kubectl().find(&agents)?;
    let annotations = found
        .as_ref()
        .and_then(|set| set.pointer("/spec/template/metadata/annotations"));
    let digest = annotations
        .and_then(|all| all.get(IMAGE_ANNOTATION))
        .and_then(Value::as_str);
    Ok(digest.map(str::to_owned))
}

fn write_values(cluster: &Cluster, admission: Admission, digest: &str) -> Result<()> {
    let (nodes, image) = (
        json!({ REAL_NODE: "true" }),
        json!({ IMAGE_ANNOTATION: digest }),
    );
    let mut values = json!({
        "apiServer": { "host": API_ADDRESS, "port": API_PORT },
        "spiderpoolAgent": { "nodeSelector": nodes, "podAnnotations": image },
        "spiderpoolController": {
            "nodeSelector": nodes, "podAnnotations": image, "replicas": CONTROLLERS,
        },
    });
    if admission == Admission::Off {
        let controller = &mut values["spiderpoolController"];
        controller["webhook"] = json!({ "enabled": false });
        controller["enableValidatingResourcesDeletedWebhook"] = json!(false);
    }
    let file = values_file(cluster);
    fs::write(&file, values.to_string()).with_context(|| format!("cannot write {file}"))
}
