//! Pods with two interfaces: a pool and a route for each, by names and in their order; of one network,
//! and of two.
//!
//! There is no Multus here. A plugin of a few lines in its place calls macvlan twice for each Pod,
//! for `eth0` and for `net1`, as Multus does; each call asks the product for addresses.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::cluster::node::Node;
use crate::cni;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, events};
use crate::tap;
use crate::wait::eventually;
use crate::workload::{
    Deployment, SETTLE, apply_example, delete, leaving_nothing, pool, retire, running,
};

/// The plugin in Multus' place.
const TWICE: &str = "e2e-twice";
/// The second interface has the first one's configuration, or that of the file beside this one, if it
/// is there; the first one's result is the Pod's.
const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")
config=$(cat)
other=$(cat "$0.json" 2>/dev/null || printf %s "$config")
eth0() { printf %s "$config" | CNI_IFNAME=eth0 "$here/macvlan"; }
net1() { printf %s "$other" | CNI_IFNAME=net1 "$here/macvlan"; }
case $CNI_COMMAND in
ADD)
    first=$(eth0) || { printf %s "$first"; exit 1; }
    second=$(net1) || { printf %s "$second"; exit 1; }
    printf %s "$first" ;;
DEL) net1 && eth0 ;;
*) eth0 ;;
esac
"#;

const IPPOOLS: &str = "ipam.spidernet.io/ippools";
const ROUTES: &str = "ipam.spidernet.io/routes";
/// Which networks Multus is to attach.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let plugin = node.path("opt/cni/bin").join(TWICE);
        fs::write(&plugin, SCRIPT)
            .and_then(|()| fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot install {}", plugin.display()))?;
    }
    cluster.install_conflist(&twice(&cni::product(tap::NAME)))?;
    let outcome = leaving_nothing(cluster, "multi-nic", |namespace| {
        a_pool_for_each_interface(cluster, namespace)?;
        one_pool_for_both(cluster, namespace)?;
        install_networks(cluster)?;
        a_network_for_each_interface(cluster, namespace)
    });
    // The judge's own is for one interface.
    let restored = cluster.install_conflist(&cni::macvlan(&cni::product(tap::NAME)));
    outcome.and(restored).and(remove_second_network(cluster))
}

/// Both interfaces by macvlan, with addresses from `ipam`.
fn twice(ipam: &Value) -> Value {
    let mut conflist = cni::macvlan(ipam);
    conflist["plugins"][0]["type"] = json!(TWICE);
    conflist
}

/// `subnets`, as in `examples/`: the second interface is in another network, without a gateway.
fn a_pool_for_each_interface(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    apply_example(cluster, "subnets.yaml", namespace)?;
    apply_example(cluster, "several-interfaces.yaml", namespace)?;
    let pods = running(kubectl, namespace, "twoface", 2)?;
    eventually(
        SETTLE,
        "a pool for each interface, three addresses each",
        || {
            let pools = Pool::of_workload(kubectl, "Deployment", namespace, "twoface")?;
            for nic in ["eth0", "net1"] {
                let begins = format!("auto4-twoface-{nic}-");
                let of_nic = pools.iter().find(|pool| pool.name.starts_with(&begins));
                let size = of_nic.map(|pool| (pool.addresses.len(), pool.records.len()));
                ensure!(
                    size == Some((3, 2)),
                    "{nic}: {size:?} of {} pools",
                    pools.len()
                );
            }
            Books::read(kubectl)?.ensure_agree()
        },
    )?;
    for pod in &pods {
        told(
            kubectl,
            pod,
            &[("eth0", "172.18.41."), ("net1", "172.18.42.")],
        )?;
        let routes = in_pod(kubectl, pod, "ip -4 route")?;
        let default = "default via 172.18.41.1 dev eth0";
        ensure!(routes.contains(default), "{}: {routes}", pod.name);
    }
    let [one, other] = pods.as_slice() else {
        anyhow::bail!("{} Pods", pods.len());
    };
    let second = address(kubectl, other, "net1")?;
    in_pod(kubectl, one, &format!("ping -c 1 -W 3 -I net1 {second}"))
        .with_context(|| format!("{} does not reach {second} by net1", one.name))?;
    retire(kubectl, namespace, "twoface")?;
    eventually(SETTLE, "its pools are gone", || {
        let pools = Pool::all(kubectl)?;
        ensure!(pools.is_empty(), "{} pools are there", pools.len());
        Ok(())
    })?;
    delete(kubectl, &["spidersubnet", "net4", "net6", "storage4"])
}

/// `ippools` without names, with a wildcard, and `routes`: two addresses of one pool, the default
/// route on the first interface alone.
fn one_pool_for_both(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    let ips = json!({ "ips": ["172.18.41.150-172.18.41.153"] });
    pool(kubectl, "both-a", &ips)?;
    let items = json!([{ "ipv4": ["both-*"] }, { "ipv4": ["both-?"], "cleangateway": true }]);
    let routes = json!([{ "dst": "10.50.0.0/16", "gw": "172.18.41.2" }]);
    let shared = Deployment::new("shared", 1)
        .annotated(IPPOOLS, items.to_string())
        .annotated(ROUTES, routes.to_string());
    shared.create(kubectl, namespace)?;
    let pods = running(kubectl, namespace, "shared", 1)?;
    let pod = &pods[0];
    told(
        kubectl,
        pod,
        &[("eth0", "172.18.41.15"), ("net1", "172.18.41.15")],
    )?;
    let (eth0, net1) = (
        address(kubectl, pod, "eth0")?,
        address(kubectl, pod, "net1")?,
    );
    ensure!(eth0 != net1, "both interfaces have {eth0}");
    let routes = in_pod(kubectl, pod, "ip -4 route")?;
    let defaults: Vec<&str> = routes
        .lines()
        .filter(|l| l.starts_with("default"))
        .collect();
    ensure!(
        defaults.len() == 1 && defaults[0].contains("dev eth0"),
        "default routes: {defaults:?}"
    );
    ensure!(
        routes.contains("10.50.0.0/16 via 172.18.41.2"),
        "routes: {routes}"
    );
    retire(kubectl, namespace, "shared")?;
    delete(kubectl, &["spiderippool", "both-a"])
}

/// Two networks of the nodes, each with default pools of its own.
fn install_networks(cluster: &Cluster) -> Result<()> {
    let of_pool = |pool: &str| {
        let mut ipam = cni::product(tap::NAME);
        ipam["default_ipv4_ippool"] = json!([pool]);
        ipam
    };
    let first = twice(&of_pool("first-*"));
    let mut second = cni::macvlan(&of_pool("second-*"))["plugins"][0].take();
    second["cniVersion"] = first["cniVersion"].clone();
    second["name"] = json!("second");
    for node in cluster.nodes() {
        let file = second_network(node);
        fs::write(&file, second.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    cluster.install_conflist(&first)
}

fn remove_second_network(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let file = second_network(node);
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    Ok(())
}

/// The configuration of the second interface.
fn second_network(node: &Node) -> PathBuf {
    node.path("opt/cni/bin").join(format!("{TWICE}.json"))
}

/// No annotation of ours: each network's configuration names pools, and of these `multusName` keeps
/// those for another network from serving.
fn a_network_for_each_interface(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    pool(
        kubectl,
        "first-a",
        &json!({ "ips": ["172.18.41.160-172.18.41.163"] }),
    )?;
    for (name, ips, network) in [
        ("second-a", "172.18.41.170-172.18.41.173", "net/other"),
        ("second-b", "172.18.41.180-172.18.41.183", "net/storage"),
    ] {
        pool(
            kubectl,
            name,
            &json!({ "ips": [ips], "multusName": [network] }),
        )?;
    }
    let wired = Deployment::new("wired", 2).annotated(NETWORKS, "net/storage");
    wired.create(kubectl, namespace)?;
    for pod in running(kubectl, namespace, "wired", 2)? {
        told(
            kubectl,
            &pod,
            &[("eth0", "172.18.41.16"), ("net1", "172.18.41.18")],
        )?;
    }
    let nowhere = Deployment::new("nowhere", 1).annotated(NETWORKS, "net/nowhere");
    nowhere.create(kubectl, namespace)?;
    eventually(SETTLE, "a Pod of a third network is told why", || {
        let pods = Pod::of_app(kubectl, namespace, "nowhere")?;
        let pod = pods.first().context("no Pod yet")?;
        let said = events(kubectl, namespace, &pod.name, "FailedCreatePodSandBox")?.join("\n");
        for word in ["second-a", "second-b", "net/storage", "net/nowhere", "net1"] {
            ensure!(said.contains(word), "no word of {word}: {said}");
        }
        Ok(())
    })?;
    for app in ["wired", "nowhere"] {
        retire(kubectl, namespace, app)?;
    }
    delete(
        kubectl,
        &["spiderippool", "first-a", "second-a", "second-b"],
    )
}

/// Its `SpiderEndpoint` tells of these interfaces, and the Pod has what it tells.
fn told(kubectl: &Kubectl, pod: &Pod, nics: &[(&str, &str)]) -> Result<()> {
    let what = format!(
        "the endpoint of {} tells of {} interfaces",
        pod.name,
        nics.len()
    );
    let elements = eventually(SETTLE, &what, || {
        let which = [
            "get",
            "spiderendpoint",
            &pod.name,
            "--namespace",
            &pod.namespace,
        ];
        let endpoint = kubectl.json(&which)?;
        let elements = endpoint
            .pointer("/status/current/ips")
            .and_then(Value::as_array);
        let elements = elements.cloned().unwrap_or_default();
        ensure!(
            elements.len() == nics.len(),
            "it tells of {}",
            elements.len()
        );
        Ok(elements)
    })?;
    for (element, (nic, begins)) in elements.iter().zip(nics) {
        let (name, ip) = (&element["interface"], element["ipv4"].as_str());
        ensure!(name == nic, "{name} is told where {nic} should be");
        let ip = ip.and_then(|ip| ip.split('/').next()).unwrap_or_default();
        ensure!(ip.starts_with(begins), "{nic} is told with {ip}");
        let has = address(kubectl, pod, nic)?;
        ensure!(has == ip, "{nic} has {has}, told is {ip}");
    }
    Ok(())
}

/// The IPv4 address on an interface of the Pod.
fn address(kubectl: &Kubectl, pod: &Pod, nic: &str) -> Result<String> {
    let text = in_pod(kubectl, pod, &format!("ip -4 addr show dev {nic}"))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "inet");
    let address = words.nth(1).and_then(|address| address.split('/').next());
    let address = address.with_context(|| format!("{nic} of {} has none: {text}", pod.name))?;
    Ok(address.to_owned())
}

fn in_pod(kubectl: &Kubectl, pod: &Pod, words: &str) -> Result<String> {
    let own = ["exec", "--namespace", &pod.namespace, &pod.name, "--"];
    let words: Vec<&str> = own.into_iter().chain(words.split(' ')).collect();
    kubectl.run(&words)
}
