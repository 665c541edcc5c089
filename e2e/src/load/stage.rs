//! What all rounds share: nodes that are only objects, an account for each agent, programs.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::audit;
use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::cluster::network::API_SERVER;
use crate::command::run;
use crate::product;
use crate::product::build::{Profile, Programs, cargo_build};
use crate::product::objects::{Pool, Subnet};
use crate::progress::long;
use crate::wait::eventually;

/// Where accounts and Pods are.
pub const NAMESPACE: &str = "load";
/// A label of the nodes that Pods go to.
pub const NODE_LABEL: &str = "e2e.orbweaver.io/load";
/// A label of all nodes that are only objects.
const OBJECT_LABEL: &str = "e2e.orbweaver.io/object";
/// What an agent's account is named before its node's number.
const ACCOUNT: &str = "agent-";
/// The number of the node that no Pod goes to, far from the others'.
pub const QUIET_NODE: usize = 9_999;

/// The shared part of a load test.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The cluster, with the product installed.
    pub cluster: &'a Cluster,
    /// How many nodes Pods go to.
    pub nodes: usize,
    /// The product's programs.
    pub programs: Programs,
    /// The baseline's agent.
    pub one_by_one: PathBuf,
    ceiling: PathBuf,
}

/// Calls that the machine gets done in a second, 40 in flight.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ceiling {
    /// Creates of a small object.
    pub creates_per_s: f64,
    /// Updates of the status of pools with ten records each.
    pub updates_per_s: f64,
}

impl<'a> Stage<'a> {
    /// Sets the stage with so many nodes, has `work` done on it, and clears it.
    ///
    /// All agents are built alike, and as the controller that is installed should be.
    pub fn with<T>(
        cluster: &'a Cluster,
        profile: Profile,
        nodes: usize,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let programs = Programs::build(cluster.paths(), profile)?;
        let examples = build_examples(cluster, profile)?;
        let stage = Self {
            cluster,
            nodes,
            programs,
            one_by_one: examples.join("one_by_one"),
            ceiling: examples.join("ceiling"),
        };
        stage.clear()?;
        fs::create_dir_all(stage.folder()).context("cannot make the folder of the load test")?;
        let done = cluster.with_namespace(NAMESPACE, |_| {
            stage.make_nodes()?;
            stage.make_accounts()?;
            work(&stage)
        })?;
        stage.clear()?;
        Ok(done)
    }

    /// What the machine can do at most, whatever is written.
    pub fn ceiling(&self) -> Result<Ceiling> {
        let config = self.cluster.access().kubeconfig("admin");
        let mut program = self.cluster.lab().enter_network("env");
        program
            .arg(format!("KUBECONFIG={}", config.display()))
            .arg(&self.ceiling)
            .arg(format!("--namespace={NAMESPACE}"));
        // It would look at the pools, too.
        product::scale_controllers(self.cluster, 0)?;
        let told = long("measuring what the machine can do", || run(&mut program));
        product::scale_controllers(self.cluster, product::CONTROLLERS)?;
        let told = told?;
        let ceiling = serde_json::from_str(&told);
        ceiling.with_context(|| format!("the ceiling is not told: {told}"))
    }

    /// The admin's client.
    pub fn kubectl(&self) -> &'a Kubectl {
        self.cluster.kubectl()
    }

    /// A file of the load test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Whether the API server's user is an agent on a node that is only an object.
    pub fn is_agent(user: &str) -> bool {
        let name = user.strip_prefix(&audit::service_account(NAMESPACE, ACCOUNT));
        let node = name.and_then(|name| name.parse().ok());
        node.is_some_and(|node: usize| node != QUIET_NODE)
    }

    /// Whether the API server's user is the product's controller.
    pub fn is_controller(user: &str) -> bool {
        let [_, controller] = product::accounts();
        user == controller
    }

    /// Writes a kubeconfig for the agent of a node, whose way to the API server is `server`.
    pub fn write_kubeconfig(&self, node: usize, server: &str) -> Result<PathBuf> {
        let account = account(node);
        let args = [
            "create",
            "token",
            &account,
            "--namespace",
            NAMESPACE,
            "--duration=12h",
        ];
        let token = self.kubectl().run(&args)?;
        let authority = self.cluster.access().file("ca.crt");
        let cluster = json!({
            "server": format!("https://{server}"), "certificate-authority": authority,
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "e2e", "cluster": cluster }],
            "users": [{ "name": account, "user": { "token": token.trim() } }],
            "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": account } }],
            "current-context": "e2e",
        });
        let file = self.file(&format!("{account}.kubeconfig"));
        fs::write(&file, config.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Writes the token that the agent of a node shows the allocator: of the product's own account,
    /// bound to the node as the kubelet would bind it.
    pub fn write_allocator_token(&self, index: usize) -> Result<PathBuf> {
        let name = node(index);
        let args = [
            "create",
            "token",
            product::ACCOUNTS[0],
            "--namespace",
            product::NAMESPACE,
            "--audience=allocator.orbweaver.io",
            "--bound-object-kind=Node",
            "--bound-object-name",
            &name,
            "--duration=12h",
        ];
        let token = self.kubectl().run(&args)?;
        let file = self.file(&format!("{name}.token"));
        fs::write(&file, token).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// The file that an agent's way to the API server is in, once it was written.
    pub fn kubeconfig(&self, node: usize) -> PathBuf {
        self.file(&format!("{}.kubeconfig", account(node)))
    }

    fn folder(&self) -> PathBuf {
        self.cluster.file("load")
    }

    fn all_nodes(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes).chain([QUIET_NODE])
    }

    fn make_nodes(&self) -> Result<()> {
        let nodes: Vec<Value> = self.all_nodes().map(node_object).collect();
        self.kubectl().create(&list(&nodes), &[])?;
        eventually(Duration::from_secs(60), "no node is tainted", || {
            let selector = format!("{OBJECT_LABEL}=true");
            let nodes = self.kubectl().list(&["nodes", "--selector", &selector])?;
            let tainted = |node: &&Value| node.pointer("/spec/taints").is_some();
            let tainted = nodes.iter().filter(tainted).count();
            ensure!(tainted == 0, "{tainted} of {} nodes are", nodes.len());
            Ok(())
        })
    }

    fn make_accounts(&self) -> Result<()> {
        let mut objects: Vec<Value> = self.all_nodes().map(account_object).collect();
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": NAMESPACE },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "orbweaver-agent",
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Group",
                "name": format!("system:serviceaccounts:{NAMESPACE}"),
            }],
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": { "name": NAMESPACE, "namespace": product::NAMESPACE },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": "orbweaver-agent",
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Group",
                "name": format!("system:serviceaccounts:{NAMESPACE}"),
            }],
        }));
        self.kubectl().apply(&list(&objects), &[])?;
        (0..self.nodes).try_for_each(|node| self.write_kubeconfig(node, API_SERVER).map(drop))
    }

    /// Takes away what lies outside the namespace, also that of a run that failed.
    fn clear(&self) -> Result<()> {
        let selector = format!("{OBJECT_LABEL}=true");
        let nodes = ["delete", "nodes", "--selector", &selector];
        self.kubectl().run(&nodes)?;
        let binding = [
            "delete",
            "clusterrolebinding",
            NAMESPACE,
            "--ignore-not-found",
        ];
        self.kubectl().run(&binding)?;
        let binding = [
            "delete",
            "rolebinding",
            NAMESPACE,
            "--namespace",
            product::NAMESPACE,
            "--ignore-not-found",
        ];
        self.kubectl().run(&binding).map(drop)
    }

    /// Errors: there are pools, subnets, endpoints or Pods of an earlier round.
    pub fn ensure_clear(&self) -> Result<()> {
        let pods = self
            .kubectl()
            .list(&["pods", "--namespace", NAMESPACE])?
            .len();
        let endpoints = self
            .kubectl()
            .list(&["spiderendpoints", "--all-namespaces"])?
            .len();
        let (pools, subnets) = (Pool::all(self.kubectl())?, Subnet::all(self.kubectl())?);
        let held: usize = pools.iter().map(|pool| pool.records.len()).sum();
        ensure!(
            pods == 0 && endpoints == 0 && pools.is_empty() && subnets.is_empty(),
            "left over: {pods} Pods, {endpoints} endpoints, {held} addresses in {} pools, {} subnets",
            pools.len(),
            subnets.len(),
        );
        Ok(())
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\nThe machine's own limit: {:.0} creates/s of a small object, {:.0} updates/s of pools with \
             ten records",
            self.creates_per_s, self.updates_per_s
        )
    }
}

/// The name of a node that is only an object.
pub fn node(index: usize) -> String {
    format!("load-{index}")
}

/// The number of the node of this name.
pub fn node_index(name: &str) -> Option<usize> {
    name.strip_prefix("load-")?.parse().ok()
}

/// Several objects in one text.
pub fn list(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

fn build_examples(cluster: &Cluster, profile: Profile) -> Result<PathBuf> {
    let what = "--package orbweaver-e2e --examples";
    let folder = long("building what the product is compared with", || {
        cargo_build(cluster.paths(), profile, what)
    })?;
    Ok(folder.join("examples"))
}

fn account(node: usize) -> String {
    format!("{ACCOUNT}{node}")
}

fn account_object(node: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": account(node), "namespace": NAMESPACE },
    })
}

fn node_object(index: usize) -> Value {
    let name = node(index);
    let mut labels = json!({ "kubernetes.io/hostname": name, OBJECT_LABEL: "true" });
    if index != QUIET_NODE {
        labels[NODE_LABEL] = "true".into();
    }
    let resources = json!({ "cpu": "64", "memory": "256Gi", "pods": "250" });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": labels },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "OnlyAnObject",
                "message": "there is no kubelet",
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_known_by_its_account_and_the_quiet_one_is_none_of_them() {
        let user = |node| audit::service_account(NAMESPACE, &account(node));
        assert!(Stage::is_agent(&user(0)) && Stage::is_agent(&user(249)));
        assert!(!Stage::is_agent(&user(QUIET_NODE)));
        assert!(!Stage::is_agent("system:serviceaccount:load:default"));
        let [agents, _] = product::accounts();
        assert!(!Stage::is_agent(&agents), "those of real nodes");
    }
}
