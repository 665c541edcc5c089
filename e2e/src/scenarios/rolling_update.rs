//! A rolling update with not one address to spare.
//!
//! With three replicas the default strategy starts a new Pod before it stops an old one, so a pool
//! of exactly three would never see the roll-out end.

use anyhow::{Result, ensure};
use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::product::addresses::told;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool};
use crate::wait::eventually;
use crate::workload::{
    Deployment, NUMBER, SETTLE, delete, leaving_nothing, retire, running, subnet,
};

const REPLICAS: usize = 3;

/// Two roll-outs, one after the other: what the first took is there for the second.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "rolling-update", |namespace| {
        let kubectl = cluster.kubectl();
        subnet(kubectl, "rolling", &["172.18.41.100-172.18.41.119"])?;
        let web = Deployment::new("web", 3)
            .with_subnet("rolling")
            .annotated(NUMBER, "+0");
        web.create(kubectl, namespace)?;
        let mut before = exact(cluster, namespace)?;
        for _ in 0..2 {
            kubectl.run(&[
                "rollout",
                "restart",
                "deployment",
                "web",
                "--namespace",
                namespace,
            ])?;
            let status = ["rollout", "status", "deployment", "web", "--timeout=90s"];
            kubectl.run(&[&status[..], &["--namespace", namespace]].concat())?;
            let after = exact(cluster, namespace)?;
            let stayed: Vec<&String> = before.intersection(&after).collect();
            ensure!(
                stayed.is_empty(),
                "the roll-out left Pods in place: {stayed:?}"
            );
            before = after;
        }
        retire(kubectl, namespace, "web")?;
        delete(kubectl, &["spidersubnet", "rolling"])?;
        Ok(())
    })
}

/// Waits until all run and the pool has exactly as many addresses. Returns the Pods' uids.
fn exact(cluster: &Cluster, namespace: &str) -> Result<BTreeSet<String>> {
    let kubectl = cluster.kubectl();
    let pods: Vec<Pod> = running(kubectl, namespace, "web", REPLICAS)?;
    eventually(SETTLE, "a pool of exactly the replicas", || {
        let pool = Pool::of_deployment(kubectl, namespace, "web")?;
        let (size, used) = (pool.addresses.len(), pool.records.len());
        ensure!(
            (size, used) == (REPLICAS, REPLICAS),
            "it has {}",
            told(&pool.addresses)
        );
        Books::read(kubectl)?.ensure_agree()
    })?;
    Ok(pods.into_iter().map(|pod| pod.uid).collect())
}
