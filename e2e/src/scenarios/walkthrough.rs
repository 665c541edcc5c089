//! The static pool: the right Deployment gets its addresses, the wrong one is refused with the
//! reason.
//!
//! Applies the files of `examples/` as they are, so what a reader copies is what is tried.

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::product::addresses::{addresses, told};
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, events};
use crate::wait::eventually;
use crate::workload::{SETTLE, apply_example, delete, gone, ips, leaving_nothing, running};

/// What the kubelet's event says from here on is the product's.
const MARK: &str = "spiderpool IP allocation error:";
/// The whole of it, as users of the original know it.
const REFUSAL: &str = "spiderpool IP allocation error: [POST /ipam/ip][500] postIpamIpFailure  \
    failed to allocate IP addresses in standard mode: no IPPool available, all IPv4 IPPools \
    [static-ipv4-ippool] of eth0 filtered out: unmatched Pod affinity of IPPool static-ipv4-ippool";

const POOL: &str = "static-ipv4-ippool";
const RIGHT: &str = "static-ippool-deploy";
const WRONG: &str = "wrong-static-ippool-deploy";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    leaving_nothing(cluster, "walkthrough", |namespace| {
        apply_example(cluster, "static-pool.yaml", namespace)?;
        the_right_ones_run(cluster, namespace)?;
        apply_example(cluster, "static-pool-refused.yaml", namespace)?;
        the_wrong_ones_are_refused(cluster, namespace)?;
        eventually(SETTLE, "the books agree", || {
            Books::read(kubectl)?.ensure_agree()
        })?;

        for deployment in [WRONG, RIGHT] {
            delete(
                kubectl,
                &["deployment", deployment, "--namespace", namespace],
            )?;
        }
        gone(kubectl, namespace, "static")?;
        gone(kubectl, namespace, "wrong")?;
        delete(kubectl, &["spiderippool", POOL])?;
        Ok(())
    })
}

/// Both Pods run, and `kubectl get pod -o wide` shows addresses of the pool.
fn the_right_ones_run(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    let pods = running(kubectl, namespace, "static", 2)?;
    let (given, allowed) = (ips(&pods)?, addresses(["172.18.41.40-172.18.41.43"])?);
    ensure!(given.is_subset(&allowed), "the Pods have {}", told(&given));
    let shown = kubectl.run(&["get", "pods", "--namespace", namespace, "--output", "wide"])?;
    for ip in &given {
        let there = shown.split_whitespace().any(|word| word == ip.to_string());
        ensure!(there, "kubectl does not show {ip}:\n{shown}");
    }
    eventually(SETTLE, "every Pod has its SpiderEndpoint", || {
        for pod in &pods {
            let endpoint = ["get", "spiderendpoint", &pod.name, "--namespace", namespace];
            let column = ["--output", "jsonpath={.status.current.ips[0].ipv4}"];
            let (told, has) = (kubectl.run(&[&endpoint[..], &column].concat())?, pod.ip()?);
            ensure!(
                told == format!("{has}/24"),
                "{} has {has}, not {told}",
                pod.name
            );
        }
        Ok(())
    })
}

/// Neither Pod runs, each is told why in the words of the original, and the pool stays as it was.
fn the_wrong_ones_are_refused(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    let before = Pool::all(kubectl)?.first().map(|pool| pool.records.clone());
    let pods = eventually(SETTLE, "two wrong Pods with a node", || {
        let pods = Pod::of_app(kubectl, namespace, "wrong")?;
        let bound = pods.iter().filter(|pod| !pod.node.is_empty()).count();
        ensure!((bound, pods.len()) == (2, 2), "{bound} of {}", pods.len());
        Ok(pods)
    })?;
    for pod in &pods {
        let said = eventually(SETTLE, &format!("{} is told why", pod.name), || {
            let told = events(kubectl, namespace, &pod.name, "FailedCreatePodSandBox")?;
            told.into_iter().next().context("no event yet")
        })?;
        let ours = said.find(MARK).map(|at| &said[at..]);
        ensure!(ours == Some(REFUSAL), "the event is: {said}");
    }
    let pods = Pod::of_app(kubectl, namespace, "wrong")?;
    ensure!(
        pods.iter().all(|pod| !pod.ready && pod.ips.is_empty()),
        "a wrong Pod runs: {pods:?}"
    );
    let after = Pool::all(kubectl)?.first().map(|pool| pool.records.clone());
    ensure!(before == after, "the pool was {before:?} and is {after:?}");
    Ok(())
}
