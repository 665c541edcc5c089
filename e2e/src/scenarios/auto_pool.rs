//! A pool for an annotated Deployment: made, followed up and down, gone with it.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::product::addresses::{Addresses, told};
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, Subnet};
use crate::wait::eventually;
use crate::workload::{
    Deployment, RECLAIM, SETTLE, SUBNET, apply_example, delete, gone, ips, leaving_nothing,
    ping_each_other, retire, running, scale,
};

/// Once with the annotation on the Pod template, as in `examples/`; once put on a Deployment that
/// exists, by `kubectl annotate`.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "auto-pool", |namespace| {
        let kubectl = cluster.kubectl();
        apply_example(cluster, "subnets.yaml", namespace)?;

        apply_example(cluster, "auto-pool.yaml", namespace)?;
        follow(cluster, namespace)?;

        Deployment::new("web", 2).create(kubectl, namespace)?;
        let subnet = format!("{SUBNET}={}", json!({ "ipv4": ["net4"] }));
        kubectl.run(&[
            "annotate",
            "deployment",
            "web",
            "--namespace",
            namespace,
            &subnet,
        ])?;
        follow(cluster, namespace)?;

        a_namesake_inherits(cluster, namespace)?;
        delete(kubectl, &["spidersubnet", "net4", "net6"])?;
        Ok(())
    })
}

/// From two replicas to ten to three, with one address more each time, to none.
fn follow(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    let pods = settled(cluster, namespace, 2, 3)?;
    the_pool_is_for_web(cluster, namespace)?;
    ping_each_other(kubectl, &pods)?;

    scale(kubectl, namespace, "web", 10)?;
    let more = settled(cluster, namespace, 10, 11)?;
    ping_each_other(kubectl, &more)?;
    let (before, now) = (ips(&pods)?, ips(&more)?);
    ensure!(
        before.is_subset(&now),
        "{} had {}",
        told(&now),
        told(&before)
    );

    scale(kubectl, namespace, "web", 3)?;
    settled(cluster, namespace, 3, 4)?;

    retire(kubectl, namespace, "web")?;
    eventually(SETTLE, "the subnet is empty", || {
        let net4 = Subnet::named(kubectl, "net4")?;
        ensure!(net4.ledger.is_empty(), "its ledger is {:?}", net4.ledger);
        ensure!(
            net4.counts.allocated == 0,
            "it tells {} given",
            net4.counts.allocated
        );
        Ok(())
    })
}

/// A pool that is not to go with its workload waits for the next one of the name, addresses and all.
fn a_namesake_inherits(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    let web = Deployment::new("web", 2).with_subnet("net4");
    let web = web.annotated(RECLAIM, "false");
    let mut left: Option<Pool> = None;
    for _ in 0..2 {
        web.create(kubectl, namespace)?;
        settled(cluster, namespace, 2, 3)?;
        let pool = Pool::of_deployment(kubectl, namespace, "web")?;
        if let Some(left) = &left {
            let (was, is) = (&left.addresses, &pool.addresses);
            let same = left.name == pool.name && was == is;
            ensure!(same, "{} with {} was left", left.name, told(was));
        }
        delete(kubectl, &["deployment", "web", "--namespace", namespace])?;
        gone(kubectl, namespace, "web")?;
        eventually(SETTLE, "the pool is there, without a record", || {
            let waits = Pool::of_deployment(kubectl, namespace, "web")?;
            let (was, is) = (&pool.addresses, &waits.addresses);
            ensure!(was == is, "it had {} and has {}", told(was), told(is));
            let records = waits.records.len();
            ensure!(records == 0, "{records} addresses are recorded");
            Ok(())
        })?;
        left = Some(pool);
    }
    let left = left.context("no pool")?;
    delete(kubectl, &["spiderippool", &left.name])
}

/// Waits until `replicas` Pods run and the pool has `size` addresses, and ledger, records and
/// counts say just that.
fn settled(cluster: &Cluster, namespace: &str, replicas: usize, size: usize) -> Result<Vec<Pod>> {
    let kubectl = cluster.kubectl();
    let pods = running(kubectl, namespace, "web", replicas)?;
    let has = ips(&pods)?;
    let what = format!("a pool of {size} addresses for {replicas} replicas");
    eventually(SETTLE, &what, || {
        let pool = Pool::of_deployment(kubectl, namespace, "web")?;
        ensure!(
            pool.addresses.len() == size,
            "it has {}",
            told(&pool.addresses)
        );
        let recorded: Addresses = pool.records.keys().copied().collect();
        ensure!(
            recorded == has,
            "the Pods have {}, recorded are {}",
            told(&has),
            told(&recorded)
        );
        let net4 = Subnet::named(kubectl, "net4")?;
        ensure!(
            net4.counts.allocated == size,
            "the subnet tells {} given",
            net4.counts.allocated
        );
        let ready = pool.condition("Ready")?;
        ensure!(
            ready.status == "True",
            "Ready is {}: {}",
            ready.status,
            ready.message
        );
        Books::read(kubectl)?.ensure_agree()
    })?;
    Ok(pods)
}

/// The pool carries the Deployment's own selector, and the keys that the original knows it by.
fn the_pool_is_for_web(cluster: &Cluster, namespace: &str) -> Result<()> {
    let pool = Pool::of_deployment(cluster.kubectl(), namespace, "web")?;
    let named = pool.name.starts_with("auto4-web-eth0-");
    ensure!(named, "the pool is called {}", pool.name);
    let key = |key: &str| format!("ipam.spidernet.io/app-{key}");
    let wanted = [
        ("app".to_owned(), "web"),
        (key("api-group"), "apps"),
        (key("api-version"), "v1"),
        (key("kind"), "Deployment"),
        (key("name"), "web"),
        (key("namespace"), namespace),
    ];
    for (key, value) in wanted {
        let is = pool.affinity.get(&key).map(String::as_str);
        ensure!(
            is == Some(value),
            "podAffinity {key} is {is:?}, not {value}"
        );
    }
    Ok(())
}
