//! A virtual machine of KubeVirt keeps its address: stopped and started, moved to the other node
//! with and without success; it gives it back when it is deleted, and a namesake has nothing of it.
//! So does an instance that no machine starts, while it is there.
//!
//! The kinds have the real ones' shapes, and nobody who runs them: the scenario makes instances and
//! Pods, with the names, owner references and annotations that KubeVirt gives them.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::image::BUSYBOX;
use crate::product::books::Books;
use crate::product::objects::Pod;
use crate::progress::say;
use crate::wait::eventually;
use crate::workload::{SETTLE, START, define, delete, leaving_nothing, pool};

/// The machine's address, which both its Pods have while it is moved.
pub const ADDRESS: &str = "172.18.41.100";
/// The pool's name.
const POOL: &str = "virtual-machines";
/// The machine's name, and its instances'.
const MACHINE: &str = "db";
/// The name of an instance of no machine.
const ALONE: &str = "alone";
const API_VERSION: &str = "kubevirt.io/v1";
const DEFINITIONS: [&str; 2] = [
    "virtualmachines.kubevirt.io",
    "virtualmachineinstances.kubevirt.io",
];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "virtual-machine", |namespace| {
        let kubectl = cluster.kubectl();
        // One address to spare: whoever is not the machine gets that one.
        pool(
            kubectl,
            POOL,
            &json!({ "ips": ["172.18.41.100-172.18.41.101"] }),
        )?;
        let [first, second] = cluster.nodes() else {
            anyhow::bail!("not two nodes");
        };
        let stage = Stage {
            kubectl,
            namespace,
            nodes: [first.name(), second.name()],
        };
        let outcome = stage.play();
        let [machines, instances] = DEFINITIONS;
        delete(kubectl, &["crd", machines, instances])?;
        outcome?;
        delete(kubectl, &["spiderippool", POOL])
    })
}

fn install(kubectl: &Kubectl, kind: &str, short: &str) -> Result<()> {
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let singular = kind.to_lowercase();
    let definition = format!("{singular}s.kubevirt.io");
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": definition },
        "spec": {
            "group": "kubevirt.io",
            "scope": "Namespaced",
            "names": {
                "kind": kind, "plural": format!("{singular}s"), "singular": singular,
                "shortNames": [short], "categories": ["all"],
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object", "required": ["spec"],
                    "properties": { "spec": open, "status": open },
                } },
                "subresources": { "status": {} },
            }],
        },
    });
    define(kubectl, &object)
}

/// An instance.
struct Run {
    name: &'static str,
    uid: String,
}

struct Stage<'a> {
    kubectl: &'a Kubectl,
    namespace: &'a str,
    nodes: [&'a str; 2],
}

impl Stage<'_> {
    fn play(&self) -> Result<()> {
        install(self.kubectl, "VirtualMachine", "vm")?;
        install(self.kubectl, "VirtualMachineInstance", "vmi")?;
        let [first, second] = self.nodes;
        let machine = self.machine()?;
        let run = self.start(MACHINE, Some(&machine))?;
        let source = self.launch("aaaaa", Some(&run), first, &json!({}))?;
        let address = source.ip()?;
        ensure!(address.to_string() == ADDRESS, "the machine has {address}");
        self.recorded("the machine's Pod", &[(address, &source, None)])?;

        say(format_args!("moved live to the other node, in vain"));
        let target = self.moved("bbbbb", &run, second, address)?;
        self.recorded("both Pods", &[(address, &source, Some(&target))])?;
        self.remove(&target)?;
        self.recorded("the source", &[(address, &source, None)])?;

        say(format_args!("moved live to the other node"));
        let target = self.moved("ccccc", &run, second, address)?;
        self.recorded("both Pods", &[(address, &source, Some(&target))])?;
        self.remove(&source)?;
        self.recorded("the target", &[(address, &target, None)])?;

        say(format_args!("stopped, and started on the first node"));
        self.stop(address)?;
        let other = self.launch("other", None, second, &json!({}))?;
        ensure!(other.ip()? != address, "another Pod has {address}");
        let run = self.start(MACHINE, Some(&machine))?;
        let again = self.launch("ddddd", Some(&run), first, &json!({}))?;
        ensure!(again.ip()? == address, "it has {} now", again.ip()?);
        Books::read(self.kubectl)?.ensure_agree()?;
        self.remove(&other)?;

        say(format_args!(
            "deleted while it is stopped; and an instance of no machine, whose Pod ended"
        ));
        let alone = self.start(ALONE, None)?;
        let of_alone = self.launch("fffff", Some(&alone), second, &json!({}))?;
        self.remove(&of_alone)?;
        self.kept(of_alone.ip()?)?;
        self.stop(address)?;
        self.delete("virtualmachine", MACHINE)?;
        self.delete("virtualmachineinstance", ALONE)?;
        self.recorded("nobody", &[])?;

        say(format_args!("made anew under its name"));
        let machine = self.machine()?;
        let run = self.start(MACHINE, Some(&machine))?;
        let namesake = self.launch("eeeee", Some(&run), first, &json!({}))?;
        self.recorded("the namesake", &[(namesake.ip()?, &namesake, None)])?;
        self.delete("virtualmachine", MACHINE)?;
        // Before the kinds go: nobody would collect its Pod without them.
        self.recorded("nobody", &[])
    }

    /// The machine; its uid.
    fn machine(&self) -> Result<String> {
        self.create(&json!({
            "apiVersion": API_VERSION,
            "kind": "VirtualMachine",
            "metadata": { "name": MACHINE },
            "spec": { "runStrategy": "Manual", "template": { "spec": { "domain": { "devices": {} } } } },
        }))
    }

    /// An instance, of the machine of this uid or of none.
    fn start(&self, name: &'static str, machine: Option<&str>) -> Result<Run> {
        let owners: Vec<Value> = machine
            .map(|uid| owner("VirtualMachine", MACHINE, uid))
            .into_iter()
            .collect();
        let uid = self.create(&json!({
            "apiVersion": API_VERSION,
            "kind": "VirtualMachineInstance",
            "metadata": { "name": name, "ownerReferences": owners },
            "spec": { "domain": { "devices": {} } },
        }))?;
        Ok(Run { name, uid })
    }

    /// The instance goes, and its Pods with it; the address is kept.
    fn stop(&self, address: IpAddr) -> Result<()> {
        self.delete("virtualmachineinstance", MACHINE)?;
        self.kept(address)
    }

    fn kept(&self, address: IpAddr) -> Result<()> {
        eventually(START, "the address is kept", || {
            let records = self.records()?;
            let kept = records.pointer(&format!("/{address}/kept"));
            ensure!(kept == Some(&json!(true)), "recorded: {records}");
            Ok(())
        })
    }

    fn moved(&self, name: &str, run: &Run, node: &str, address: IpAddr) -> Result<Pod> {
        let job = json!({ "kubevirt.io/migrationJobName": format!("move-{name}") });
        let target = self.launch(name, Some(run), node, &job)?;
        ensure!(target.ip()? == address, "the target has {}", target.ip()?);
        Ok(target)
    }

    /// A Pod that runs the instance on a node, once it runs. A Pod of no instance is nobody's.
    fn launch(&self, name: &str, run: Option<&Run>, node: &str, more: &Value) -> Result<Pod> {
        let mut annotations = json!({
            "ipam.spidernet.io/ippool": json!({ "ipv4": [POOL] }).to_string(),
        });
        if let (Some(all), Some(more)) = (annotations.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        let owners: Vec<Value> = run
            .map(|run| owner("VirtualMachineInstance", run.name, &run.uid))
            .into_iter()
            .collect();
        let machine = run.map_or(MACHINE, |run| run.name);
        let name = format!("virt-launcher-{machine}-{name}");
        let labels = json!({ "app": name, "kubevirt.io": "virt-launcher" });
        self.create(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name, "labels": labels, "annotations": annotations,
                "ownerReferences": owners,
            },
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "compute",
                    "image": BUSYBOX,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                }],
            },
        }))?;
        let pods = crate::workload::running(self.kubectl, self.namespace, &name, 1)?;
        pods.into_iter().next().context("a Pod that was there")
    }

    fn remove(&self, pod: &Pod) -> Result<()> {
        delete(
            self.kubectl,
            &["pod", &pod.name, "--namespace", self.namespace],
        )
    }

    fn delete(&self, kind: &str, name: &str) -> Result<()> {
        delete(self.kubectl, &[kind, name, "--namespace", self.namespace])
    }

    /// Waits until just these are recorded: an address, who has it, and to whom it is moved.
    fn recorded(&self, whose: &str, expected: &[(IpAddr, &Pod, Option<&Pod>)]) -> Result<()> {
        let expected: Vec<_> = expected
            .iter()
            .map(|(address, holder, next)| {
                (
                    address.to_string(),
                    json!(holder.uid),
                    json!(next.map(|next| &next.uid)),
                )
            })
            .collect();
        let what = format!("what is recorded is {whose}'s");
        eventually(2 * SETTLE, &what, || {
            let records = self.records()?;
            let all = records.as_object().into_iter().flatten();
            let found: Vec<_> = all
                .map(|(address, record)| {
                    let next = record.pointer("/next/podUid").cloned();
                    (address.clone(), record["podUid"].clone(), json!(next))
                })
                .collect();
            ensure!(found == expected, "recorded: {records}");
            Ok(())
        })
    }

    /// The pool's records, by address.
    fn records(&self) -> Result<Value> {
        let pool = self.kubectl.json(&["get", "spiderippool", POOL])?;
        match pool.pointer("/status/allocatedIPs").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(serde_json::from_str(text)?),
            Some(_) | None => Ok(json!({})),
        }
    }

    /// Makes an object; its uid.
    fn create(&self, object: &Value) -> Result<String> {
        let args = ["--namespace", self.namespace];
        self.kubectl.create(&object.to_string(), &args)?;
        let (kind, name) = (&object["kind"], object.pointer("/metadata/name"));
        let kind = kind.as_str().context("an object without kind")?;
        let name = name
            .and_then(Value::as_str)
            .context("an object without name")?;
        let args = ["get", kind, name, "--namespace", self.namespace];
        let made = self.kubectl.json(&args)?;
        let uid = made.pointer("/metadata/uid").and_then(Value::as_str);
        uid.map(str::to_owned).context("an object without uid")
    }
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": kind, "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}
