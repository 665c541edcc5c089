//! The cluster as the original left it: its objects for Pods that run, its release, its webhooks.
//!
//! The objects are those that it wrote (`tests/golden`), told again for these Pods: names, uids and
//! nodes are other, addresses and everything else are the same. The Pods have their addresses from
//! a plugin of a few lines, which knows the golden objects' and no others.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::super::golden_objects::{leave_out, objects, store};
use super::served::{webhooks, without_ours};
use crate::cluster::Cluster;
use crate::cluster::network::{API_ADDRESS, API_PORT};
use crate::cluster::node::Node;
use crate::cni;
use crate::image::BUSYBOX;
use crate::product::objects::Pod;
use crate::product::{CHART, NAMESPACE};
use crate::workload::{NUMBER, POOL, RECLAIM, SUBNET, running, template};

/// Its name in helm, and the first part of everything else's.
pub(super) const RELEASE: &str = "spiderpool";
/// Its controller, which its webhooks are called after.
pub(super) const CONTROLLER: &str = "spiderpool-controller";
/// Its ConfigMap has the name that ours has.
pub(super) const CONFIG: &str = "spiderpool-conf";
/// The namespace of the golden objects.
const DEFAULT: &str = "default";
const SUBNET_KIND: &str = "SpiderSubnet";
/// The kinds that its webhooks judge and its hook deletes.
pub(super) const KINDS: [&str; 3] = ["spidersubnets", "spiderippools", "spiderreservedips"];

/// In the place of its plugin: an address that the golden objects have for a Pod of the name.
const PLUGIN: &str = r#"#!/bin/sh
cat >/dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
name=${CNI_ARGS##*K8S_POD_NAME=}
for list in FOLDER/*.list; do
    prefix=${list##*/}
    case $name in "${prefix%.list}"*) ;; *) continue ;; esac
    while read -r address ips; do
        mkdir "FOLDER/$address" 2>/dev/null || continue
        echo "{\"cniVersion\":\"0.4.0\",\"ips\":$ips}"
        exit
    done <"$list"
done
echo '{"cniVersion":"0.4.0","code":999,"msg":"none is left"}'
exit 1
"#;

/// The workloads of the golden objects, with how many Pods they have.
pub(super) const APPS: [(&str, usize); 6] = [
    ("db", 2),
    ("ds", 1),
    ("job", 2),
    ("rs", 1),
    ("static", 2),
    ("web", 3),
];

/// What the original left, to be put there.
pub(super) struct Original<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    objects: Vec<Value>,
}

impl<'a> Original<'a> {
    pub(super) fn of(cluster: &'a Cluster, namespace: &'a str) -> Result<Self> {
        let objects = objects(cluster, "objects.yaml")?;
        Ok(Self {
            cluster,
            namespace,
            objects,
        })
    }

    /// The kinds as it defines them: ours without what is ours.
    pub(super) fn apply_definitions(&self) -> Result<()> {
        let folder = self.cluster.paths().source().join(CHART).join("crds");
        for entry in fs::read_dir(&folder).context("no CRDs")?.flatten() {
            let read = format!("--filename={}", entry.path().display());
            let args = ["create", "--dry-run=client", "--output=json", &read];
            let text = self.cluster.kubectl().run(&args)?;
            let mut definition: Value = serde_json::from_str(&text).context("no JSON")?;
            without_ours(&mut definition);
            let server = ["--server-side", "--force-conflicts"];
            self.cluster
                .kubectl()
                .apply(&definition.to_string(), &server)?;
        }
        Ok(())
    }

    /// Its plugin on each node, and the workloads, all of whose Pods run.
    pub(super) fn run_workloads(&self) -> Result<Vec<Pod>> {
        let shared = self.cluster.file("original");
        let _ = fs::remove_dir_all(&shared);
        fs::create_dir_all(&shared).context("cannot make the plugin's folder")?;
        for (prefix, lines) in self.addresses()? {
            fs::write(shared.join(format!("{prefix}.list")), lines).context("a list")?;
        }
        let script = PLUGIN.replace("FOLDER", &shared.display().to_string());
        for node in self.cluster.nodes() {
            let plugin = node.path("opt/cni/bin").join(cni::PRODUCT);
            // The product's agent may have it open; a new file in its place is another one.
            let _ = fs::remove_file(&plugin);
            fs::write(&plugin, &script)
                .and_then(|()| fs::set_permissions(&plugin, Permissions::from_mode(0o755)))
                .with_context(|| format!("cannot install {}", plugin.display()))?;
        }
        let kubectl = self.cluster.kubectl();
        let workloads = json!({ "apiVersion": "v1", "kind": "List", "items": self.workloads() });
        kubectl.apply(&workloads.to_string(), &["--namespace", self.namespace])?;
        let mut pods = Vec::new();
        for (app, count) in APPS {
            pods.extend(running(kubectl, self.namespace, app, count)?);
        }
        Ok(pods)
    }

    /// For each beginning of a Pod's name: addresses that Pods so called have, a line each.
    fn addresses(&self) -> Result<BTreeMap<String, String>> {
        let mut lists = BTreeMap::<String, String>::new();
        for endpoint in self.of_kind("SpiderEndpoint") {
            let text = |at: &str| endpoint.pointer(at).and_then(Value::as_str);
            let owner = text("/status/ownerControllerName").context("no owner")?;
            let prefix = match text("/status/ownerControllerType") {
                Some("StatefulSet") => text("/metadata/name").context("no name")?.to_owned(),
                _ => format!("{owner}-"),
            };
            let ips = [("4", "ipv4"), ("6", "ipv6")]
                .into_iter()
                .filter_map(|(version, key)| {
                    let address = text(&format!("/status/current/ips/0/{key}"))?;
                    Some(json!({ "version": version, "address": address }))
                });
            let ips: Value = ips.collect();
            let line = format!("{} {ips}\n", ipv4(endpoint)?);
            lists.entry(prefix).or_default().push_str(&line);
        }
        Ok(lists)
    }

    /// The workloads whose pools the golden objects have; `cron` is gone, and left a record.
    fn workloads(&self) -> Vec<Value> {
        let both = json!({ "ipv4": ["net4"], "ipv6": ["net6"] }).to_string();
        let pool = json!({ "ipv4": ["static-ipv4-ippool"] }).to_string();
        let node = self.cluster.nodes().first().map(Node::name);
        let make = |kind: &str, name: &str, app: &str, spec: Value| {
            let annotations = match app {
                "static" => json!({ POOL: pool }),
                "web" => json!({ SUBNET: both, NUMBER: "+2" }),
                "db" => json!({ SUBNET: both, NUMBER: "4", RECLAIM: "false" }),
                _ => json!({ SUBNET: both, NUMBER: "+0" }),
            };
            let group = if kind == "Job" { "batch" } else { "apps" };
            let mut object = json!({
                "apiVersion": format!("{group}/v1"), "kind": kind,
                "metadata": { "name": name }, "spec": spec,
            });
            object["spec"]["template"] = template(app, &annotations);
            match kind {
                "Job" => object["spec"]["template"]["spec"]["restartPolicy"] = json!("Never"),
                _ => object["spec"]["selector"] = json!({ "matchLabels": { "app": app } }),
            }
            if kind == "DaemonSet" {
                let only = json!({ "kubernetes.io/hostname": node });
                object["spec"]["template"]["spec"]["nodeSelector"] = only;
            }
            object
        };
        let ordered =
            json!({ "replicas": 2, "serviceName": "db", "podManagementPolicy": "Parallel" });
        vec![
            make("Deployment", "web", "web", json!({ "replicas": 3 })),
            make("StatefulSet", "db", "db", ordered),
            make("DaemonSet", "ds", "ds", json!({})),
            make("ReplicaSet", "rs", "rs", json!({ "replicas": 1 })),
            make(
                "Job",
                "job",
                "job",
                json!({ "parallelism": 2, "completions": 2 }),
            ),
            make(
                "Deployment",
                "static-ippool-deploy",
                "static",
                json!({ "replicas": 2 }),
            ),
        ]
    }

    /// Its objects, for these Pods, after `spoil`.
    pub(super) fn store_objects(
        &self,
        pods: &[Pod],
        spoil: impl FnOnce(&mut Vec<Value>) -> Result<()>,
    ) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        let mut all = Vec::new();
        for kind in [
            SUBNET_KIND,
            "SpiderIPPool",
            "SpiderReservedIP",
            "SpiderEndpoint",
        ] {
            for object in self.of_kind(kind) {
                all.push(self.retold(object, pods)?);
            }
        }
        spoil(&mut all)?;
        let (subnets, mut rest): (Vec<Value>, Vec<Value>) = all
            .into_iter()
            .partition(|object| object["kind"] == SUBNET_KIND);
        store(kubectl, &subnets)?;
        for object in &mut rest {
            self.owned(object)?;
        }
        store(kubectl, &rest)
    }

    fn retold(&self, object: &Value, pods: &[Pod]) -> Result<Value> {
        let mut object = object.clone();
        let finalizers = object["metadata"]["finalizers"].take();
        leave_out(&mut object);
        if finalizers.is_array() {
            object["metadata"]["finalizers"] = finalizers;
        }
        self.for_pods(&mut object, pods)?;
        Ok(object)
    }

    /// Puts these Pods in the place of those that had the addresses.
    fn for_pods(&self, object: &mut Value, pods: &[Pod]) -> Result<()> {
        match object["kind"].as_str() {
            Some("SpiderIPPool") => self.pool_for_pods(object, pods),
            Some("SpiderEndpoint") => self.endpoint_for_pod(object, pods),
            Some(SUBNET_KIND) => {
                let ledger = object.pointer("/status/controlledIPPools");
                let ledger = ledger.and_then(Value::as_str).context("no ledger")?;
                let own = format!("_{}_", self.namespace);
                object["status"]["controlledIPPools"] = json!(ledger.replace("_default_", &own));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn pool_for_pods(&self, pool: &mut Value, pods: &[Pod]) -> Result<()> {
        let key = "ipam.spidernet.io/owner-application";
        if let Some(labels) = pool["metadata"]["labels"].as_object_mut()
            && let Some(name) = labels.get(&format!("{key}-name")).cloned()
        {
            labels.insert(format!("{key}-namespace"), json!(self.namespace));
            let kind = labels[&format!("{key}-kind")].clone();
            if let (Some(kind), Some(name)) = (kind.as_str(), name.as_str())
                && let Some(uid) = self.uid_of(kind, name)?
            {
                labels.insert(format!("{key}-uid"), json!(uid));
            }
        }
        let selector = "/spec/podAffinity/matchLabels/ipam.spidernet.io~1app-namespace";
        if let Some(namespace) = pool.pointer_mut(selector) {
            *namespace = json!(self.namespace);
        }
        let Some(records) = pool.pointer("/status/allocatedIPs").and_then(Value::as_str) else {
            return Ok(());
        };
        let mut records: Map<String, Value> = serde_json::from_str(records).context("records")?;
        for (address, record) in &mut records {
            let said = record["pod"].as_str().unwrap_or_default();
            *record = match holder(pods, address)? {
                Some(pod) => {
                    json!({ "pod": format!("{}/{}", pod.namespace, pod.name), "podUid": pod.uid })
                }
                None => json!({
                    "pod": said.replace(DEFAULT, self.namespace), "podUid": record["podUid"],
                }),
            };
        }
        pool["status"]["allocatedIPs"] = json!(Value::Object(records).to_string());
        Ok(())
    }

    fn endpoint_for_pod(&self, endpoint: &mut Value, pods: &[Pod]) -> Result<()> {
        endpoint["metadata"]["namespace"] = json!(self.namespace);
        let Some(pod) = holder(pods, &ipv4(endpoint)?)? else {
            return Ok(());
        };
        endpoint["metadata"]["name"] = json!(pod.name);
        endpoint["status"]["current"]["uid"] = json!(pod.uid);
        endpoint["status"]["current"]["node"] = json!(pod.node);
        Ok(())
    }

    /// Pools belong to their subnets, endpoints to their Pods; but for those of a StatefulSet.
    fn owned(&self, object: &mut Value) -> Result<()> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let owner = match object["kind"].as_str() {
            Some("SpiderIPPool") => {
                let label = "/metadata/labels/ipam.spidernet.io~1owner-spider-subnet";
                let subnet = object.pointer(label).and_then(Value::as_str);
                let subnet = subnet.context("a pool of no subnet")?;
                let found = self
                    .cluster
                    .kubectl()
                    .json(&["get", "spidersubnet", subnet])?;
                json!({
                    "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": SUBNET_KIND,
                    "name": subnet, "uid": found["metadata"]["uid"],
                    "controller": true, "blockOwnerDeletion": true,
                })
            }
            Some("SpiderEndpoint") if object["status"]["ownerControllerType"] != "StatefulSet" => {
                // One that is gone is an owner, too: Kubernetes takes what it left.
                let uid = &object["status"]["current"]["uid"];
                json!({
                    "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid,
                    "controller": true, "blockOwnerDeletion": true,
                })
            }
            _ => return Ok(()),
        };
        object["metadata"]["ownerReferences"] = json!([owner]);
        Ok(())
    }

    fn uid_of(&self, kind: &str, name: &str) -> Result<Option<String>> {
        let which = [kind, name, "--namespace", self.namespace];
        let found = self.cluster.kubectl().find(&which)?;
        let uid = found
            .as_ref()
            .and_then(|it| it.pointer("/metadata/uid")?.as_str());
        Ok(uid.map(str::to_owned))
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects
            .iter()
            .filter(move |object| object["kind"] == kind)
    }

    /// Its release, which has a hook that deletes everything; its webhooks, which helm does not
    /// know; the Lease of a controller that just ended.
    pub(super) fn install_release(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        let chart = self.cluster.file("original-chart");
        fs::create_dir_all(chart.join("templates")).context("cannot make its chart")?;
        let about = json!({ "apiVersion": "v2", "name": RELEASE, "version": "1.2.2" });
        fs::write(chart.join("Chart.yaml"), about.to_string()).context("Chart.yaml")?;
        for (nth, object) in self.charted().iter().enumerate() {
            let file = chart.join(format!("templates/{nth}.yaml"));
            fs::write(file, object.to_string()).context("a template")?;
        }
        let chart = chart.display().to_string();
        let install = [
            "install",
            RELEASE,
            &chart,
            "--namespace",
            NAMESPACE,
            "--wait",
        ];
        self.cluster.helm().run(&install)?;
        for object in webhooks() {
            kubectl.apply(&object.to_string(), &[])?;
        }
        let held = json!({ "spec": {
            "holderIdentity": format!("{CONTROLLER}-7d9c"), "leaseDurationSeconds": 15,
        } });
        let held = held.to_string();
        let lease = [
            "patch",
            "lease",
            "spiderpool-controller-leases",
            "--type=merge",
        ];
        let how = ["--namespace", NAMESPACE, "--patch", &held];
        kubectl.run(&[&lease[..], &how].concat()).map(drop)
    }

    fn charted(&self) -> Vec<Value> {
        let meta = |name: &str| json!({ "name": name, "namespace": NAMESPACE });
        let labels = json!({ "app": CONTROLLER });
        let pod = json!({
            "hostNetwork": true, "serviceAccountName": CONTROLLER, "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"],
            }],
        });
        let controller = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(CONTROLLER),
            "spec": {
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        });
        let subject =
            json!({ "kind": "ServiceAccount", "name": CONTROLLER, "namespace": NAMESPACE });
        let everything = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "spiderpool-admin" }, "subjects": [subject],
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin",
            },
        });
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(CONTROLLER),
        });
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(CONFIG),
            "data": { "conf.yml": "enableIPv4: true\n" },
        });
        vec![account, everything, config, controller, self.hook(pod)]
    }

    /// The Job that helm runs before an uninstallation.
    fn hook(&self, mut pod: Value) -> Value {
        let tools = self.cluster.tool("kubectl");
        let folder = tools.parent().unwrap_or(&tools).display().to_string();
        let kinds = KINDS.join(",");
        pod["restartPolicy"] = json!("Never");
        pod["volumes"] = json!([{ "name": "tools", "hostPath": { "path": folder } }]);
        let container = &mut pod["containers"][0];
        container["volumeMounts"] = json!([{ "name": "tools", "mountPath": "/tools" }]);
        container["env"] = json!([
            { "name": "KUBERNETES_SERVICE_HOST", "value": API_ADDRESS },
            { "name": "KUBERNETES_SERVICE_PORT", "value": API_PORT.to_string() },
        ]);
        let words = ["/tools/kubectl", "delete", &kinds, "--all", "--wait=false"];
        container["command"] = json!(words);
        let annotations = json!({ "helm.sh/hook": "pre-delete" });
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": "spiderpool-hook-pre-delete", "namespace": NAMESPACE,
                "annotations": annotations,
            },
            "spec": { "backoffLimit": 0, "template": { "spec": pod } },
        })
    }
}

/// Who has an IPv4 or IPv6 address.
fn holder<'p>(pods: &'p [Pod], address: &str) -> Result<Option<&'p Pod>> {
    let address = address.parse().with_context(|| address.to_owned())?;
    Ok(pods.iter().find(|pod| pod.ips.contains(&address)))
}

/// The IPv4 address that an endpoint tells of.
fn ipv4(endpoint: &Value) -> Result<String> {
    let address = endpoint.pointer("/status/current/ips/0/ipv4");
    let address = address.and_then(Value::as_str).context("no IPv4 address")?;
    let (address, _) = address.split_once('/').context("no prefix")?;
    Ok(address.to_owned())
}
