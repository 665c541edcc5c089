//! Every object that the original wrote is taken by a real API server under our definitions, and
//! given back as it was.
//!
//! Without the product: a controller would set to work on pools of workloads that do not exist.
//! How our types treat the same files, `tests/golden.rs` shows.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::command::run_with_input;
use crate::product;
use crate::product::books::Books;
use crate::progress::say;
use crate::wait::eventually;
use crate::workload::SETTLE;

/// Files below `tests/golden`: what the original wrote, and an object of each kind with every field.
const FILES: [&str; 2] = ["objects.yaml", "full.yaml"];
/// Kinds whose status has an endpoint of its own.
const WITH_STATUS: [&str; 2] = ["SpiderIPPool", "SpiderSubnet"];
/// A key that no definition has, with a value of some depth.
const UNKNOWN: &str = "keyOfANewerVersion";
/// What a server decides by itself; owners and keepers of objects that are not there.
const LEFT_OUT: [&str; 6] = [
    "creationTimestamp",
    "finalizers",
    "generation",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    product::uninstall(cluster)?;
    product::apply_crds(cluster)?;
    Books::read(kubectl)?.ensure_empty()?;
    let mut count = 0;
    for file in FILES {
        let objects = read(cluster, file)?;
        let tried = is_kept(kubectl, &objects).with_context(|| file.to_owned());
        remove(kubectl, &objects)?;
        tried?;
        count += objects.len();
    }
    say(format_args!(
        "{count} objects were stored and read back as they were"
    ));
    eventually(SETTLE, "nothing is left", || {
        Books::read(kubectl)?.ensure_empty()
    })
}

/// The objects of a file as a cluster gets them first, each status with a key that no definition
/// has. (A spec with such a key is refused: a misspelt field must not be ignored.)
fn read(cluster: &Cluster, file: &str) -> Result<Vec<Value>> {
    let objects = objects(cluster, file)?;
    Ok(objects.into_iter().map(as_made).collect())
}

/// The objects of a file below `tests/golden`.
pub(super) fn objects(cluster: &Cluster, file: &str) -> Result<Vec<Value>> {
    let path = cluster.paths().source().join("tests/golden").join(file);
    let path = path.display().to_string();
    let args = [
        "create",
        "--dry-run=client",
        "--validate=false",
        "--output=json",
        "--filename",
    ];
    let text = cluster.kubectl().run(&[&args[..], &[&path]].concat())?;
    let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    objects.collect::<Result<_, _>>().context(path)
}

fn as_made(mut object: Value) -> Value {
    leave_out(&mut object);
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.insert(UNKNOWN.to_owned(), json!({ "list": [1, { "deep": true }] }));
    }
    object
}

/// Leaves out what refers to the cluster that the object was on.
pub(super) fn leave_out(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in LEFT_OUT {
            metadata.remove(key);
        }
    }
}

fn is_kept(kubectl: &Kubectl, objects: &[Value]) -> Result<()> {
    store(kubectl, objects)?;
    for object in objects {
        let stored = kubectl.json(&[&["get"][..], &reference(object)].concat())?;
        for part in [
            "/spec",
            "/status",
            "/metadata/labels",
            "/metadata/annotations",
        ] {
            let (sent, kept) = (object.pointer(part), stored.pointer(part));
            ensure!(
                sent == kept,
                "{:?} {part} was {sent:?} and is {kept:?}",
                reference(object)
            );
        }
    }
    Ok(())
}

/// Makes objects with the status they have.
pub(super) fn store(kubectl: &Kubectl, objects: &[Value]) -> Result<()> {
    kubectl.create(&list(objects), &[])?;
    let with_status = objects.iter().filter(|it| has_status(it));
    let with_status: Vec<Value> = with_status.cloned().collect();
    let mut replace = kubectl.command(&["replace", "--subresource=status", "--filename=-"]);
    run_with_input(&mut replace, list(&with_status).as_bytes()).map(drop)
}

fn remove(kubectl: &Kubectl, objects: &[Value]) -> Result<()> {
    let mut delete = kubectl.command(&["delete", "--ignore-not-found", "--filename=-"]);
    run_with_input(&mut delete, list(objects).as_bytes()).map(|_| ())
}

/// What to call an object on a command line.
fn reference(object: &Value) -> Vec<&str> {
    let text = |at: &str| {
        object
            .pointer(at)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let mut words = vec![text("/kind"), text("/metadata/name")];
    if object.pointer("/metadata/namespace").is_some() {
        words.extend(["--namespace", text("/metadata/namespace")]);
    }
    words
}

fn has_status(object: &Value) -> bool {
    WITH_STATUS.iter().any(|kind| object["kind"] == *kind)
}

fn list(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects }).to_string()
}
