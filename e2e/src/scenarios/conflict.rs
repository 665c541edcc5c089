//! A host that is not the cluster's has addresses of its pools, and a gateway does not answer: what
//! the network says before a Pod uses an address.
//!
//! The host is the underlay's bridge itself, in the cluster's own network namespace.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::product;
use crate::product::objects::{Pod, Pool, events};
use crate::wait::eventually;
use crate::workload::{Deployment, POOL, SETTLE, delete, gone, leaving_nothing, pool, running};

/// What the host has, of each family.
const TAKEN: [&str; 2] = ["172.18.41.150", "fd00:172:18:41::150"];
/// What nobody has, of each family: the pools' next.
const NEXT: [&str; 2] = ["172.18.41.151", "fd00:172:18:41::151"];
/// The bridge of the underlay.
const BRIDGE: &str = "e2e0";
/// A gateway that no host is.
const NOBODY: &str = "172.18.41.250";
/// The only address of the fixed Pod.
const FIXED: &str = "172.18.41.160";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "conflict", |namespace| {
        let kubectl = cluster.kubectl();
        let stage = Stage {
            cluster,
            kubectl,
            namespace,
        };
        let ends = json!({ "ips": ["172.18.41.170"], "gateway": NOBODY });
        pool(kubectl, "silent", &ends)?;
        stage.nothing_is_asked_by_default()?;
        stage.detect()?;
        stage.a_silent_gateway_is_told()?;
        stage.an_address_in_use_is_passed_over()?;
        stage.a_fixed_address_stays()
    })
}

struct Stage<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
}

impl Stage<'_> {
    fn detect(&self) -> Result<()> {
        let flags = "ipam.enableIPConflictDetection=true,ipam.enableGatewayDetection=true";
        product::upgrade(self.cluster, &["--reuse-values", "--set", flags])
    }

    fn nothing_is_asked_by_default(&self) -> Result<()> {
        let trusting = Deployment::new("trusting", 1).with_pool("silent");
        trusting.create(self.kubectl, self.namespace)?;
        running(self.kubectl, self.namespace, "trusting", 1)?;
        self.remove("deployment", "trusting")
    }

    /// The Pod waits and its Events name gateway and pool; once the gateway answers, it runs.
    fn a_silent_gateway_is_told(&self) -> Result<()> {
        let waiting = Deployment::new("waiting", 1).with_pool("silent");
        waiting.create(self.kubectl, self.namespace)?;
        let said = format!("gateway {NOBODY} is unreachable");
        let told = self.is_told("waiting", "FailedCreatePodSandBox", &said)?;
        ensure!(told.contains("IPPool silent"), "it is told: {told}");
        self.with_host(&[NOBODY], || {
            running(self.kubectl, self.namespace, "waiting", 1)
        })?;
        self.remove("deployment", "waiting")?;
        delete(self.kubectl, &["spiderippool", "silent"])
    }

    /// Both families: the Pod runs at once with the next addresses, and the others are told of.
    fn an_address_in_use_is_passed_over(&self) -> Result<()> {
        pool(
            self.kubectl,
            "taken4",
            &json!({ "ips": ["172.18.41.150-172.18.41.152"] }),
        )?;
        let six = json!({
            "subnet": "fd00:172:18:41::/64", "gateway": null, "ipVersion": 6,
            "ips": ["fd00:172:18:41::150-fd00:172:18:41::152"],
        });
        pool(self.kubectl, "taken6", &six)?;
        let both = json!({ "ipv4": ["taken4"], "ipv6": ["taken6"] }).to_string();
        self.with_host(&TAKEN, || {
            let web = Deployment::new("web", 1).annotated(POOL, both.as_str());
            web.create(self.kubectl, self.namespace)?;
            let pods = running(self.kubectl, self.namespace, "web", 1)?;
            let next = NEXT.map(str::parse::<IpAddr>);
            for ip in next {
                let ip = ip?;
                ensure!(pods[0].ips.contains(&ip), "the Pod has {:?}", pods[0].ips);
            }
            self.is_told("web", "AddressInUse", "is used by the host at")?;
            for (name, taken) in ["taken4", "taken6"].into_iter().zip(TAKEN) {
                self.keeps_quarantine(name, taken)?;
            }
            Ok(())
        })?;
        self.remove("deployment", "web")?;
        // What is in quarantine keeps no pool.
        delete(self.kubectl, &["spiderippool", "taken4", "taken6"])
    }

    fn keeps_quarantine(&self, name: &str, taken: &str) -> Result<()> {
        eventually(SETTLE, &format!("pool {name} tells of {taken}"), || {
            let pools = Pool::all(self.kubectl)?;
            let pool = pools.iter().find(|pool| pool.name == name);
            let pool = pool.context("no pool")?;
            let record = pool.records.get(&taken.parse()?).context("no record")?;
            ensure!(record.uid == "quarantined", "it is of {}", record.uid);
            let said = pool.condition("Conflicting")?;
            let tells = said.status == "True" && said.message.contains(taken);
            ensure!(tells, "Conflicting is {}: {}", said.status, said.message);
            let told = events(self.kubectl, "default", name, "AddressInUse")?;
            ensure!(!told.is_empty(), "no Event of the pool");
            Ok(())
        })
    }

    /// A Pod of a `StatefulSet` whose address another host took meanwhile waits for it.
    fn a_fixed_address_stays(&self) -> Result<()> {
        let range = format!("{FIXED}-172.18.41.165");
        pool(self.kubectl, "fixed", &json!({ "ips": [range] }))?;
        let set = Deployment::new("db", 1)
            .as_stateful_set()
            .with_pool("fixed");
        set.create(self.kubectl, self.namespace)?;
        self.db_runs()?;
        self.with_host(&[FIXED], || {
            delete(
                self.kubectl,
                &["pod", "db-0", "--namespace", self.namespace, "--wait=false"],
            )?;
            let refused = "forbid releasing IPs for stateful workload";
            let told = self.is_told("db", "FailedCreatePodSandBox", refused)?;
            ensure!(told.contains(FIXED), "it is told: {told}");
            Ok(())
        })?;
        self.db_runs()?;
        self.remove("statefulset", "db")?;
        delete(self.kubectl, &["spiderippool", "fixed"])
    }

    fn db_runs(&self) -> Result<()> {
        let pods = running(self.kubectl, self.namespace, "db", 1)?;
        let ip = pods[0].ip()?.to_string();
        ensure!(ip == FIXED, "db-0 has {ip}");
        Ok(())
    }

    /// Waits for an Event of the app's Pod, and gives its text.
    fn is_told(&self, app: &str, reason: &str, part: &str) -> Result<String> {
        eventually(SETTLE, &format!("a Pod of {app} is told: {part}"), || {
            let mut told = Vec::new();
            for pod in Pod::of_app(self.kubectl, self.namespace, app)? {
                told.extend(events(self.kubectl, self.namespace, &pod.name, reason)?);
            }
            let found = told.iter().find(|text| text.contains(part));
            found.cloned().with_context(|| format!("so far: {told:?}"))
        })
    }

    /// Has `work` happen while the host has these addresses.
    fn with_host<T>(&self, addresses: &[&str], work: impl FnOnce() -> Result<T>) -> Result<T> {
        let lab = self.cluster.lab();
        let each = |verb: &str| -> Result<()> {
            for address in addresses {
                let (length, more) = match address.contains(':') {
                    true if verb == "add" => (64, " nodad"),
                    true => (64, ""),
                    false => (32, ""),
                };
                lab.ip(&format!(
                    "addr {verb} {address}/{length} dev {BRIDGE}{more}"
                ))?;
            }
            Ok(())
        };
        each("add")?;
        let done = work();
        each("del")?;
        done
    }

    fn remove(&self, kind: &str, name: &str) -> Result<()> {
        delete(self.kubectl, &[kind, name, "--namespace", self.namespace])?;
        gone(self.kubectl, self.namespace, name)
    }
}
