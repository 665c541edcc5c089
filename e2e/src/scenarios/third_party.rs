//! Workloads of kinds that are not Kubernetes' own: their pools are made, sized by `/scale` or by a
//! fixed number, followed and retired; a kind that the controller may not read costs an Event.
//!
//! The kinds have the real ones' shapes, and nobody who runs them: the scenario makes their Pods,
//! with the owner references that the real ones give.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool};
use crate::product::{self, CONTROLLERS, NAMESPACE};
use crate::progress::say;
use crate::wait::eventually;
use crate::workload::{
    NUMBER, SETTLE, SUBNET, define, delete, gone, leaving_nothing, running, subnet, template,
};

/// The subnet's name.
const OWN: &str = "third-party";
/// The controller's rights.
const ROLE: &str = "clusterrole/orbweaver-controller";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "third-party", |namespace| {
        let kubectl = cluster.kubectl();
        subnet(kubectl, OWN, &["172.18.41.100-172.18.41.119"])?;
        let stage = Stage {
            cluster,
            kubectl,
            namespace,
        };
        let outcome = stage.play();
        let definitions = KINDS.map(Kind::definition);
        let [rollouts, clone_sets, sets] = &definitions;
        delete(kubectl, &["crd", rollouts, clone_sets, sets])?;
        outcome?;
        delete(kubectl, &["spidersubnet", OWN])
    })
}

/// A kind of somebody else's.
struct Kind {
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
    /// Where `scale` finds the selector.
    selector: &'static str,
}

const ROLLOUT: Kind = Kind {
    group: "argoproj.io",
    version: "v1alpha1",
    name: "Rollout",
    plural: "rollouts",
    selector: ".status.selector",
};

const CLONE_SET: Kind = Kind {
    group: "apps.kruise.io",
    version: "v1alpha1",
    name: "CloneSet",
    plural: "clonesets",
    selector: ".status.labelSelector",
};

/// Not Kubernetes' own, whose name it has.
const ADVANCED_SET: Kind = Kind {
    group: "apps.kruise.io",
    version: "v1beta1",
    name: "StatefulSet",
    plural: "statefulsets",
    selector: ".status.labelSelector",
};

const KINDS: [&Kind; 3] = [&ROLLOUT, &CLONE_SET, &ADVANCED_SET];

impl Kind {
    fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    fn definition(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    fn install(&self, kubectl: &Kubectl) -> Result<()> {
        let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let object = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": self.definition() },
            "spec": {
                "group": self.group,
                "scope": "Namespaced",
                "names": {
                    "kind": self.name, "plural": self.plural, "singular": self.name.to_lowercase(),
                },
                "versions": [{
                    "name": self.version, "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": {
                        "type": "object", "properties": { "spec": open, "status": open },
                    } },
                    "subresources": { "status": {}, "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": self.selector,
                    } },
                }],
            },
        });
        define(kubectl, &object)
    }
}

struct Stage<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
}

impl Stage<'_> {
    fn play(&self) -> Result<()> {
        for kind in KINDS {
            kind.install(self.kubectl)?;
        }
        self.a_rollout_is_followed()?;
        self.a_clone_set_has_a_fixed_number()?;
        self.rights_are_missing()?;
        self.no_controller_is_there()?;
        say(format_args!("the Rollout deleted"));
        delete(
            self.kubectl,
            &["rollout", "front", "--namespace", self.namespace],
        )?;
        gone(self.kubectl, self.namespace, "front")?;
        self.pool_has(&ROLLOUT, "front", None)
    }

    /// The Pods are its ReplicaSet's; the pool is its own.
    fn a_rollout_is_followed(&self) -> Result<()> {
        say(format_args!(
            "a Rollout of two Pods, scaled by kubectl scale"
        ));
        let annotations = json!({ SUBNET: json!({ "ipv4": [OWN] }).to_string() });
        let template = template("front", &json!({}));
        let selector = json!({ "matchLabels": { "app": "front" } });
        let spec = json!({ "replicas": 2, "selector": selector, "template": template });
        let uid = self.create(&ROLLOUT, "front", &annotations, &spec)?;
        self.pool_has(&ROLLOUT, "front", Some(3))?;
        let set = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": { "name": "front-1", "ownerReferences": [owner(&ROLLOUT, "front", &uid)] },
            "spec": spec,
        });
        self.apply(&set)?;
        self.all_run("front", 2)?;
        for (replicas, addresses) in [(4, 5), (1, 2)] {
            let number = format!("--replicas={replicas}");
            for object in ["rollout/front", "replicaset/front-1"] {
                self.run(&["scale", object, &number])?;
            }
            self.all_run("front", replicas)?;
            self.pool_has(&ROLLOUT, "front", Some(addresses))?;
        }
        let of_set = Pool::of_workload(self.kubectl, "ReplicaSet", self.namespace, "front-1")?;
        ensure!(
            of_set.is_empty(),
            "its ReplicaSet has pool {}",
            of_set[0].name
        );
        Ok(())
    }

    /// The annotations are on the object alone, and the Pods its own.
    fn a_clone_set_has_a_fixed_number(&self) -> Result<()> {
        say(format_args!(
            "a CloneSet with a fixed number, annotated itself"
        ));
        let annotations = json!({ SUBNET: json!({ "ipv4": [OWN] }).to_string(), NUMBER: "2" });
        let template = template("back", &json!({}));
        let selector = json!({ "matchLabels": { "app": "back" } });
        let spec = json!({ "replicas": 1, "selector": selector, "template": template });
        let uid = self.create(&CLONE_SET, "back", &annotations, &spec)?;
        self.pool_has(&CLONE_SET, "back", Some(2))?;
        for name in ["back-x7f2k", "back-p9d4m"] {
            self.pod(name, &template, &owner(&CLONE_SET, "back", &uid))?;
        }
        self.all_run("back", 2)
    }

    /// Nobody else is held up, and what the controller cannot see it does not take for gone.
    fn rights_are_missing(&self) -> Result<()> {
        say(format_args!(
            "no right to read CloneSets, and a controller started anew"
        ));
        let role = self.kubectl.json(&["get", ROLE])?;
        let rules = role["rules"]
            .as_array()
            .context("a ClusterRole without rules")?;
        let about_others = |rule: &&Value| rule["resources"] != json!([CLONE_SET.plural]);
        let less: Vec<&Value> = rules.iter().filter(about_others).collect();
        ensure!(less.len() < rules.len(), "there was no such right");
        self.grant(&json!(less))?;
        let outcome = self.without_rights();
        self.grant(&role["rules"])?;
        outcome?;
        say(format_args!("the right given back"));
        self.pool_has(&CLONE_SET, "back", None)
    }

    /// Agents find out themselves whose Pods these are.
    fn no_controller_is_there(&self) -> Result<()> {
        say(format_args!(
            "no controller at all, and Pods of a Rollout and of a kruise StatefulSet"
        ));
        let annotations = json!({ SUBNET: json!({ "ipv4": [OWN] }).to_string() });
        let template = template("shard", &json!({}));
        let selector = json!({ "matchLabels": { "app": "shard" } });
        let spec = json!({ "replicas": 1, "selector": selector, "template": template });
        let uid = self.create(&ADVANCED_SET, "shard", &annotations, &spec)?;
        self.pool_has(&ADVANCED_SET, "shard", Some(2))?;
        product::scale_controllers(self.cluster, 0)?;
        self.run(&["delete", "pods", "--selector=app=front"])?;
        self.all_run("front", 3)?;
        self.pod("shard-0", &template, &owner(&ADVANCED_SET, "shard", &uid))?;
        self.all_run("shard", 1)?;
        product::scale_controllers(self.cluster, CONTROLLERS)?;
        let set = format!("{}/shard", ADVANCED_SET.definition());
        delete(self.kubectl, &[&set, "--namespace", self.namespace])?;
        gone(self.kubectl, self.namespace, "shard")?;
        self.pool_has(&ADVANCED_SET, "shard", None)
    }

    /// Gives the controller these rights and no others.
    fn grant(&self, rules: &Value) -> Result<()> {
        let patch = json!({ "rules": rules }).to_string();
        let args = ["patch", ROLE, "--type=merge", "--patch", &patch];
        self.kubectl.run(&args).map(drop)
    }

    fn without_rights(&self) -> Result<()> {
        let controller = "deployment/orbweaver-controller";
        let args = ["rollout", "restart", controller, "--namespace", NAMESPACE];
        self.kubectl.run(&args)?;
        product::ensure_working(self.cluster)?;
        for object in ["rollout/front", "replicaset/front-1"] {
            self.run(&["scale", object, "--replicas=3"])?;
        }
        self.pool_has(&ROLLOUT, "front", Some(4))?;
        self.all_run("front", 3)?;
        let definition = CLONE_SET.definition();
        eventually(SETTLE, "an Event of the definition tells it", || {
            let about = format!("--field-selector=involvedObject.name={definition}");
            let events = self
                .kubectl
                .list(&["events", "--namespace=default", &about])?;
            let notes = events.iter().filter_map(|event| event["message"].as_str());
            let told = notes.filter(|note| note.contains("forbidden")).count();
            ensure!(told > 0, "{} Events, none of them", events.len());
            Ok(())
        })?;
        delete(
            self.kubectl,
            &["cloneset", "back", "--namespace", self.namespace],
        )?;
        gone(self.kubectl, self.namespace, "back")?;
        eventually(SETTLE, "its pool is there, without a record", || {
            let pools = Pool::of_workload(self.kubectl, CLONE_SET.name, self.namespace, "back")?;
            ensure!(pools.len() == 1, "{} pools", pools.len());
            let records = pools[0].records.len();
            ensure!(records == 0, "{records} addresses are recorded");
            Ok(())
        })
    }

    /// Makes an object; its uid.
    fn create(&self, kind: &Kind, name: &str, annotations: &Value, spec: &Value) -> Result<String> {
        self.apply(&json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name,
            "metadata": { "name": name, "annotations": annotations },
            "spec": spec,
        }))?;
        let args = [
            "get",
            &kind.definition(),
            name,
            "--namespace",
            self.namespace,
        ];
        let made = self.kubectl.json(&args)?;
        let uid = made.pointer("/metadata/uid").and_then(Value::as_str);
        uid.map(str::to_owned).context("an object without uid")
    }

    /// Makes a Pod of a template, as its owner would.
    fn pod(&self, name: &str, template: &Value, owner: &Value) -> Result<()> {
        let mut pod = template.clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["ownerReferences"] = json!([owner]);
        self.apply(&pod)
    }

    /// Waits until the pool has so many addresses; `None`: until there is none.
    fn pool_has(&self, kind: &Kind, name: &str, addresses: Option<usize>) -> Result<()> {
        let what = format!(
            "the pool of {} {name} has {addresses:?} addresses",
            kind.name
        );
        eventually(SETTLE, &what, || {
            let pools = Pool::of_workload(self.kubectl, kind.name, self.namespace, name)?;
            let sizes: Vec<usize> = pools.iter().map(|pool| pool.addresses.len()).collect();
            ensure!(sizes == Vec::from_iter(addresses), "pools of {sizes:?}");
            Books::read(self.kubectl)?.ensure_agree()
        })
    }

    fn all_run(&self, app: &str, count: usize) -> Result<()> {
        let pods: Vec<Pod> = running(self.kubectl, self.namespace, app, count)?;
        crate::workload::ips(&pods).map(drop)
    }

    fn apply(&self, object: &Value) -> Result<()> {
        let args = ["--namespace", self.namespace];
        self.kubectl.apply(&object.to_string(), &args).map(drop)
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        let args = [args, &["--namespace", self.namespace]].concat();
        self.kubectl.run(&args).map(drop)
    }
}

fn owner(kind: &Kind, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": kind.api_version(), "kind": kind.name, "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}
