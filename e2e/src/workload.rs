//! Deployments of scenarios, and their Pods: made, waited for, made to talk to each other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::cluster::network::{GATEWAY, UNDERLAY};
use crate::image::BUSYBOX;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool};
use crate::wait::eventually;

/// How long Pods may take to run; a node under load starts a few a second.
pub const START: Duration = Duration::from_mins(2);

/// How long what follows from Pods may take: pools, ledgers, Events; released addresses rest first.
pub const SETTLE: Duration = Duration::from_mins(1);

/// The annotation that names a pool.
pub const POOL: &str = "ipam.spidernet.io/ippool";
/// The annotation that gives a workload a pool of a subnet.
pub const SUBNET: &str = "ipam.spidernet.io/subnet";
/// The annotation that sizes the pool.
pub const NUMBER: &str = "ipam.spidernet.io/ippool-ip-number";

/// The annotation that tells whether the pool goes with its workload.
pub const RECLAIM: &str = "ipam.spidernet.io/ippool-reclaim";

/// Runs `work` in a namespace of this name, between an empty cluster and an empty cluster.
///
/// Errors: those of `work`; pools, subnets, endpoints or Pods were there before, or stay.
pub fn leaving_nothing(
    cluster: &Cluster,
    name: &str,
    work: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    let ensure_empty = || Books::read(cluster.kubectl())?.ensure_empty();
    ensure_empty().context("something was here before: `e2e down` ends a cluster that was kept")?;
    cluster.with_namespace(name, work)?;
    eventually(SETTLE, "nothing is left", ensure_empty)
}

/// A Deployment to be, whose Pods do nothing and stop at once.
#[derive(Clone, Debug)]
pub struct Deployment {
    kind: &'static str,
    name: String,
    replicas: u32,
    template_annotations: Map<String, Value>,
}

impl Deployment {
    /// A Deployment whose Pods carry the label `app` with its name, spread over the nodes.
    pub fn new(name: &str, replicas: u32) -> Self {
        Self {
            kind: "Deployment",
            name: name.to_owned(),
            replicas,
            template_annotations: Map::new(),
        }
    }

    /// The same Pods of a StatefulSet, all at once.
    #[must_use]
    pub fn as_stateful_set(self) -> Self {
        Self {
            kind: "StatefulSet",
            ..self
        }
    }

    /// With an annotation on its Pods.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: impl Into<String>) -> Self {
        self.template_annotations
            .insert(key.to_owned(), Value::String(value.into()));
        self
    }

    /// With addresses of this IPv4 pool.
    #[must_use]
    pub fn with_pool(self, pool: &str) -> Self {
        self.annotated(POOL, json!({ "ipv4": [pool] }).to_string())
    }

    /// With a pool of its own out of this IPv4 subnet.
    #[must_use]
    pub fn with_subnet(self, subnet: &str) -> Self {
        self.annotated(SUBNET, json!({ "ipv4": [subnet] }).to_string())
    }

    /// Makes it.
    pub fn create(&self, kubectl: &Kubectl, namespace: &str) -> Result<()> {
        let text = self.manifest().to_string();
        kubectl
            .apply(&text, &["--namespace", namespace])
            .map(|_| ())
    }

    fn manifest(&self) -> Value {
        let labels = json!({ "app": self.name });
        let mut template = template(&self.name, &json!(self.template_annotations));
        template["spec"]["topologySpreadConstraints"] = json!([{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": labels },
        }]);
        let mut object = json!({
            "apiVersion": "apps/v1",
            "kind": self.kind,
            "metadata": { "name": self.name },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": labels },
                "template": template,
            },
        });
        if self.kind == "StatefulSet" {
            object["spec"]["serviceName"] = json!(self.name);
            object["spec"]["podManagementPolicy"] = json!("Parallel");
        }
        object
    }
}

/// A template of Pods of an app that do nothing and stop at once.
pub fn template(app: &str, annotations: &Value) -> Value {
    json!({
        "metadata": { "labels": { "app": app }, "annotations": annotations },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": BUSYBOX,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"],
            }],
        },
    })
}

/// A `SpiderSubnet` of the Pods' underlay with these addresses.
pub fn subnet(kubectl: &Kubectl, name: &str, ips: &[&str]) -> Result<()> {
    on_underlay(kubectl, "SpiderSubnet", name, &json!({ "ips": ips }))
}

/// A `SpiderIPPool` of the Pods' underlay, made by hand, with these fields beside the usual ones.
pub fn pool(kubectl: &Kubectl, name: &str, spec: &Value) -> Result<()> {
    on_underlay(kubectl, "SpiderIPPool", name, spec)
}

fn on_underlay(kubectl: &Kubectl, kind: &str, name: &str, more: &Value) -> Result<()> {
    let object = underlay_object(kind, name, more);
    kubectl.apply(&object.to_string(), &[]).map(|_| ())
}

/// An object of a kind with addresses of the Pods' underlay, with these fields beside the usual ones.
pub fn underlay_object(kind: &str, name: &str, more: &Value) -> Value {
    let mut spec = json!({ "subnet": UNDERLAY, "gateway": GATEWAY });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// Applies a file of `examples/` as it is.
pub fn apply_example(cluster: &Cluster, file: &str, namespace: &str) -> Result<()> {
    let path = cluster
        .paths()
        .source()
        .join("examples")
        .join(file)
        .display()
        .to_string();
    let args = ["apply", "--filename", &path, "--namespace", namespace];
    cluster.kubectl().run(&args).map(|_| ())
}

/// Scales a Deployment, as a person does.
pub fn scale(kubectl: &Kubectl, namespace: &str, name: &str, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    kubectl
        .run(&[
            "scale",
            "deployment",
            name,
            "--namespace",
            namespace,
            &replicas,
        ])
        .map(|_| ())
}

/// Applies the definition of a kind and waits until it is served.
pub fn define(kubectl: &Kubectl, definition: &Value) -> Result<()> {
    kubectl.apply(&definition.to_string(), &[])?;
    let name = definition.pointer("/metadata/name").and_then(Value::as_str);
    let name = format!("crd/{}", name.context("a definition without name")?);
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        &name,
    ];
    kubectl.run(&wait).map(drop)
}

/// Deletes an object and waits until it is gone.
pub fn delete(kubectl: &Kubectl, what: &[&str]) -> Result<()> {
    let args = [
        &["delete", "--wait", "--ignore-not-found", "--timeout=120s"],
        what,
    ]
    .concat();
    kubectl.run(&args).map(|_| ())
}

/// Waits until an app has exactly this many Pods, all ready and none on its way out.
pub fn running(kubectl: &Kubectl, namespace: &str, app: &str, count: usize) -> Result<Vec<Pod>> {
    eventually(START, &format!("{count} Pods of {app} run"), || {
        let pods = Pod::of_app(kubectl, namespace, app)?;
        let ready = pods
            .iter()
            .filter(|pod| pod.ready && !pod.terminating)
            .count();
        ensure!(
            (ready, pods.len()) == (count, count),
            "{ready} of {} Pods are ready",
            pods.len()
        );
        Ok(pods)
    })
}

/// Deletes a Deployment and waits until its Pods, named as it is, and the pools made for it are gone.
///
/// A subnet whose addresses are in a pool is not deleted where the deletion policy is on.
pub fn retire(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<()> {
    delete(kubectl, &["deployment", name, "--namespace", namespace])?;
    gone(kubectl, namespace, name)?;
    eventually(SETTLE, &format!("{name} has no pool any more"), || {
        let pools = Pool::of_workload(kubectl, "Deployment", namespace, name)?;
        ensure!(pools.is_empty(), "there are {}", pools.len());
        Ok(())
    })
}

/// Waits until an app has no Pod any more.
pub fn gone(kubectl: &Kubectl, namespace: &str, app: &str) -> Result<()> {
    running(kubectl, namespace, app, 0).map(|_| ())
}

/// The Pods' addresses, one each.
///
/// Errors: a Pod has none, or two have the same.
pub fn ips(pods: &[Pod]) -> Result<BTreeSet<IpAddr>> {
    let ips: BTreeSet<IpAddr> = pods.iter().map(Pod::ip).collect::<Result<_>>()?;
    ensure!(
        ips.len() == pods.len(),
        "{} Pods have {} addresses",
        pods.len(),
        ips.len()
    );
    Ok(ips)
}

/// Has every Pod ping every Pod, and makes sure that two nodes took part.
///
/// `ping` runs in the Pods' containers, so packets leave and arrive where a Pod's do.
pub fn ping_each_other(kubectl: &Kubectl, pods: &[Pod]) -> Result<()> {
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    ensure!(nodes.len() > 1, "all Pods are on one node: {nodes:?}");
    let ips = ips(pods)?;
    let all: Vec<String> = ips.iter().map(ToString::to_string).collect();
    let script = format!(
        "for ip in {}; do ping -c 1 -W 3 $ip >/dev/null || echo $ip; done",
        all.join(" ")
    );
    for pod in pods {
        let words = [
            "exec",
            "--namespace",
            &pod.namespace,
            &pod.name,
            "--",
            "sh",
            "-c",
            &script,
        ];
        let unheard = kubectl
            .run(&words)
            .with_context(|| format!("pinging from {}", pod.name))?;
        let unheard: Vec<&str> = unheard.split_whitespace().collect();
        ensure!(
            unheard.is_empty(),
            "{} gets no answer from {}",
            pod.name,
            unheard.join(" ")
        );
    }
    Ok(())
}
