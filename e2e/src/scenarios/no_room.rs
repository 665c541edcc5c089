//! More replicas than the subnet has addresses: everybody concerned is told what is missing, and
//! once the subnet is widened everything runs by itself.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, Subnet, events};
use crate::wait::eventually;
use crate::workload::{
    Deployment, NUMBER, SETTLE, delete, leaving_nothing, retire, running, subnet,
};

/// What is said of six replicas and four addresses, wherever it is said.
const MISSING: &str = "2 missing";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "no-room", |namespace| {
        let kubectl = cluster.kubectl();
        subnet(kubectl, "narrow", &["172.18.41.120-172.18.41.123"])?;
        let web = Deployment::new("web", 6)
            .with_subnet("narrow")
            .annotated(NUMBER, "+0");
        web.create(kubectl, namespace)?;
        four_run_and_two_wait(cluster, namespace)?;
        objects_say_what_is_missing(cluster, namespace)?;
        pods_say_what_is_missing(cluster, namespace)?;

        let wider = json!({ "spec": { "ips": ["172.18.41.120-172.18.41.129"] } }).to_string();
        kubectl.run(&[
            "patch",
            "spidersubnet",
            "narrow",
            "--type=merge",
            "--patch",
            &wider,
        ])?;
        running(kubectl, namespace, "web", 6)?;
        nothing_is_missing(cluster, namespace)?;

        retire(kubectl, namespace, "web")?;
        delete(kubectl, &["spidersubnet", "narrow"])?;
        Ok(())
    })
}

fn four_run_and_two_wait(cluster: &Cluster, namespace: &str) -> Result<()> {
    eventually(SETTLE, "four Pods run and two wait", || {
        let pods = Pod::of_app(cluster.kubectl(), namespace, "web")?;
        let ready = pods.iter().filter(|pod| pod.ready).count();
        ensure!(
            (ready, pods.len()) == (4, 6),
            "{ready} of {} Pods run",
            pods.len()
        );
        Ok(())
    })
}

/// The conditions of pool and subnet and an Event of the Deployment.
fn objects_say_what_is_missing(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    eventually(SETTLE, "pool and subnet are exhausted", || {
        let pool = Pool::of_deployment(kubectl, namespace, "web")?;
        let subnet = Subnet::named(kubectl, "narrow")?;
        for condition in [pool.condition("Exhausted")?, subnet.condition("Exhausted")?] {
            let says = condition.status == "True" && names_all(&condition.message, &pool.name);
            ensure!(
                says,
                "Exhausted is {}: {}",
                condition.status,
                condition.message
            );
        }
        Ok(())
    })?;
    let told = eventually(SETTLE, "the Deployment is told", || {
        let told = events(kubectl, namespace, "web", "InsufficientAddresses")?;
        told.into_iter().next_back().context("no Event yet")
    })?;
    let pool = Pool::of_deployment(kubectl, namespace, "web")?;
    ensure!(
        names_all(&told, &pool.name),
        "the Deployment is told: {told}"
    );
    Ok(())
}

/// An Event of each Pod that waits.
fn pods_say_what_is_missing(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    let pool = Pool::of_deployment(kubectl, namespace, "web")?;
    let pods = Pod::of_app(kubectl, namespace, "web")?;
    for pod in pods.iter().filter(|pod| !pod.ready) {
        eventually(SETTLE, &format!("Pod {} is told", pod.name), || {
            let mut told = events(kubectl, namespace, &pod.name, "WaitingForIP")?;
            told.extend(events(
                kubectl,
                namespace,
                &pod.name,
                "FailedCreatePodSandBox",
            )?);
            ensure!(
                told.iter().any(|text| names_all(text, &pool.name)),
                "it is told: {told:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// Whether a text names the pool, the subnet and how many addresses are missing.
fn names_all(text: &str, pool: &str) -> bool {
    [pool, "SpiderSubnet narrow", MISSING]
        .iter()
        .all(|word| text.contains(word))
}

fn nothing_is_missing(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    eventually(SETTLE, "pool and subnet have room again", || {
        let pool = Pool::of_deployment(kubectl, namespace, "web")?;
        let subnet = Subnet::named(kubectl, "narrow")?;
        for condition in [pool.condition("Exhausted")?, subnet.condition("Exhausted")?] {
            ensure!(
                condition.status == "False",
                "still exhausted: {}",
                condition.message
            );
        }
        Books::read(kubectl)?.ensure_agree()
    })
}
