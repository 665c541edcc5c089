//! What is kept of a failure: logs of components and Pods, and the objects as they are.
//!
//! Keeping logs must not hide the failure itself, so nothing here returns an error; what can't be
//! kept is said.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;
use crate::progress::say;
use crate::tap;

/// Copies the components' logs of the cluster in `run` into the folder `to`, replacing it.
pub fn copy(run: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    if let Err(error) = copy_folder(&run.join("log"), to) {
        say(format_args!("cannot keep all logs: {error:#}"));
    }
}

/// What `kubectl` is asked for, and the file that keeps the answer.
const QUESTIONS: [(&str, &str); 6] = [
    (
        "overview.txt",
        "get nodes,pods,deployments,daemonsets,statefulsets,jobs -A -o wide",
    ),
    ("events.txt", "get events -A --sort-by=.lastTimestamp"),
    ("pods.txt", "describe pods -A"),
    (
        "product.yaml",
        "get spidersubnets,spiderippools,spiderreservedips,spiderendpoints -A -o yaml",
    ),
    (
        "workloads.yaml",
        "get deployments,replicasets,pods -A -o yaml",
    ),
    ("leases.yaml", "get leases -A -o yaml"),
];

/// Keeps all that is known of a cluster in the folder `to`, replacing it: logs of components and
/// Pods, calls of the plugin, objects, events.
pub fn keep(cluster: &Cluster, to: &Path) {
    copy(&cluster.paths().cluster(), to);
    for (file, question) in QUESTIONS {
        let words: Vec<&str> = question.split(' ').collect();
        let answer = cluster
            .kubectl()
            .run(&words)
            .unwrap_or_else(|error| format!("{error:#}\n"));
        if let Err(error) = fs::write(to.join(file), answer) {
            say(format_args!("cannot keep {file}: {error}"));
        }
    }
    for node in cluster.nodes() {
        let to = to.join(node.name());
        let kept = copy_folder(&node.path("var/log/pods"), &to.join("pods")).and_then(|()| {
            let calls = node.path(tap::FILE);
            if calls.exists() {
                fs::copy(calls, to.join("calls.jsonl")).context("cannot copy the tap's calls")?;
            }
            Ok(())
        });
        if let Err(error) = kept {
            say(format_args!(
                "cannot keep all logs of node {}: {error:#}",
                node.name()
            ));
        }
    }
}

/// Copies a folder and what is below it, links followed.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make folder {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("no folder {}", from.display()))?;
    for entry in entries.flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &to)?;
        } else {
            fs::copy(&path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
