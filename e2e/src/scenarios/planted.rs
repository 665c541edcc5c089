//! The judge judged: a product that gives one address to every Pod is found out, by both witnesses.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::bare::with_a_pod_on_each_node;
use crate::cluster::Cluster;
use crate::judge::Judge;
use crate::{cni, wait};

/// A plugin in the product's place that knows one address only.
const LIAR: &str = r#"#!/bin/sh
cat >/dev/null
if [ "$CNI_COMMAND" = ADD ]; then
  echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"172.18.41.77/24"}]}'
fi
"#;

/// Installs the liar, starts a Pod on each node, and wants the judge to convict.
pub fn run(cluster: &Cluster) -> Result<()> {
    let liars: Vec<PathBuf> = cluster
        .nodes()
        .iter()
        .map(|node| node.path("opt/cni/bin").join(cni::PRODUCT))
        .collect();
    ensure!(
        !liars.iter().any(|liar| liar.exists()),
        "the product is installed already"
    );
    for liar in &liars {
        fs::write(liar, LIAR)
            .and_then(|()| fs::set_permissions(liar, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot plant {}", liar.display()))?;
    }
    let judged = convict(cluster);
    for liar in &liars {
        fs::remove_file(liar).with_context(|| format!("cannot remove {}", liar.display()))?;
    }
    judged
}

fn convict(cluster: &Cluster) -> Result<()> {
    let judge = Judge::start(cluster)?;
    let mut uids = Vec::new();
    with_a_pod_on_each_node(cluster, "planted", |pods| {
        uids.extend(pods.iter().map(|pod| pod.uid.clone()));
        // Seen once is not seen for any time.
        wait::eventually(
            Duration::from_secs(20),
            "three walks through each node",
            || {
                let walks = judge.walks();
                ensure!(walks.iter().all(|walks| *walks >= 3), "walks: {walks:?}");
                Ok(())
            },
        )
    })?;
    let Err(verdict) = judge.end(&[]) else {
        bail!("two Pods with one address, and the judge saw nothing");
    };
    let verdict = verdict.to_string();
    let nodes = cluster
        .nodes()
        .iter()
        .map(|node| format!("{}/cni-", node.name()));
    for witness in nodes.chain(uids) {
        ensure!(
            verdict.contains(&witness),
            "nothing about {witness} in: {verdict}"
        );
    }
    Ok(())
}
