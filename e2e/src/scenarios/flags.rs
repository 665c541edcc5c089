//! The chart's flags, changed on a running cluster by `helm upgrade --reuse-values`: each has its
//! effect, and no running Pod loses an address.
//!
//! Every upgrade is also an upgrade on the hostNetwork: the new Pods of the product need the ports
//! that the old ones hold, on every node there is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::product;
use crate::product::addresses::{Addresses, addresses, told};
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, Record, Subnet};
use crate::wait::eventually;
use crate::workload::{
    Deployment, NUMBER, SETTLE, SUBNET, apply_example, delete, leaving_nothing, pool, retire,
    running, scale,
};

const IPV4: &str = "ipam.enableIPv4";
const IPV6: &str = "ipam.enableIPv6";
const SUBNETS: &str = "ipam.spiderSubnet.enable";
const AUTO_POOLS: &str = "ipam.spiderSubnet.autoPool.enable";
const EARLY: &str = "ipam.allocator.earlyBinding";
const SPARE: &str = "ipam.spiderSubnet.autoPool.defaultRedundantIPNumber";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "flags", |namespace| {
        let stage = Stage { cluster, namespace };
        apply_example(cluster, "subnets.yaml", namespace)?;
        both_families("dual").create(cluster.kubectl(), namespace)?;
        let dual = stage.families_of("dual", 1, 1)?;

        stage.families_are_switched()?;
        stage.spare_addresses_are_counted()?;
        stage.auto_pools_are_switched()?;
        stage.subnets_are_switched()?;
        stage.early_binding_is_switched()?;

        let still = stage.families_of("dual", 1, 1)?;
        ensure!(
            still == dual,
            "a Pod that ran all the time was {dual:?} and is {still:?}"
        );
        for name in ["dual", "spare", "own"] {
            stage.remove(name)?;
        }
        delete(cluster.kubectl(), &["spidersubnet", "net4", "net6"])
    })
}

struct Stage<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

impl Stage<'_> {
    /// A Pod whose annotation asks for both families gets those that are on.
    fn families_are_switched(&self) -> Result<()> {
        self.upgrade(&[(IPV6, "false")])?;
        both_families("only4").create(self.cluster.kubectl(), self.namespace)?;
        self.families_of("only4", 1, 0)?;

        self.upgrade(&[(IPV6, "true"), (IPV4, "false")])?;
        both_families("only6").create(self.cluster.kubectl(), self.namespace)?;
        self.families_of("only6", 0, 1)?;

        self.upgrade(&[(IPV4, "true")])?;
        self.remove("only4")?;
        self.remove("only6")
    }

    /// Pools of workloads that do not say how many they want to spare follow the default.
    fn spare_addresses_are_counted(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        let spare = Deployment::new("spare", 1).with_subnet("net4");
        spare.create(kubectl, self.namespace)?;
        self.pool_has("spare", 2)?;
        for (number, size) in [("3", 4), ("0", 1)] {
            self.upgrade(&[(SPARE, number)])?;
            self.pool_has("spare", size)?;
        }
        running(kubectl, self.namespace, "spare", 1).map(|_| ())
    }

    /// Without auto pools a subnet still keeps the books of pools made by hand, and no workload
    /// gets one of its own; with them, one that waited does.
    fn auto_pools_are_switched(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        self.upgrade(&[(SPARE, "1"), (AUTO_POOLS, "false")])?;
        Deployment::new("own", 1)
            .with_subnet("net4")
            .create(kubectl, self.namespace)?;
        pool(
            kubectl,
            "by-hand",
            &json!({ "ips": ["172.18.41.230-172.18.41.231"] }),
        )?;
        eventually(SETTLE, "the subnet knows the pool made by hand", || {
            let ledger = Subnet::named(kubectl, "net4")?.ledger;
            let entry = ledger.get("by-hand").context("no entry")?;
            ensure!(entry.len() == 2, "it has {}", told(entry));
            Ok(())
        })?;
        self.is_refused("own")?;
        ensure!(
            self.pools_of("own")?.is_empty(),
            "a workload has a pool of its own"
        );

        self.upgrade(&[(AUTO_POOLS, "true")])?;
        running(kubectl, self.namespace, "own", 1)?;
        self.pool_has("own", 2)?;
        delete(kubectl, &["spiderippool", "by-hand"])
    }

    /// Without subnets the annotation means nothing, so the default pool serves; with them again,
    /// the pools of before go on as they were.
    fn subnets_are_switched(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        self.upgrade(&[(SUBNETS, "false")])?;
        let spec = json!({ "ips": ["172.18.41.240-172.18.41.243"], "default": true });
        pool(kubectl, "for-all", &spec)?;
        Deployment::new("plain", 1)
            .with_subnet("net4")
            .create(kubectl, self.namespace)?;
        let plain = running(kubectl, self.namespace, "plain", 1)?;
        let (has, of_pool) = (all_ips(&plain), addresses(["172.18.41.240-172.18.41.243"])?);
        ensure!(has.is_subset(&of_pool), "the Pod has {}", told(&has));
        ensure!(
            self.pools_of("plain")?.is_empty(),
            "a workload has a pool of its own"
        );
        self.remove("plain")?;
        delete(kubectl, &["spiderippool", "for-all"])?;

        self.upgrade(&[(SUBNETS, "true")])?;
        scale(kubectl, self.namespace, "own", 2)?;
        running(kubectl, self.namespace, "own", 2)?;
        self.pool_has("own", 3)
    }

    /// What is recorded names no sandbox, unless one asked for it: Pods that come while there is room
    /// have their address before their sandboxes ask, where that is wanted.
    fn early_binding_is_switched(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        self.upgrade(&[(SPARE, "1"), (EARLY, "true")])?;
        Deployment::new("soon", 1)
            .with_subnet("net4")
            .annotated(NUMBER, "+2")
            .create(kubectl, self.namespace)?;
        running(kubectl, self.namespace, "soon", 1)?;
        self.pool_has("soon", 3)?;
        let former: BTreeSet<_> = self.records_of("soon")?.into_keys().collect();
        scale(kubectl, self.namespace, "soon", 3)?;
        let pods = running(kubectl, self.namespace, "soon", 3)?;
        let records = self.records_of("soon")?;
        let asked: Vec<_> = records
            .iter()
            .filter(|(ip, record)| !former.contains(ip) && record.sandbox.is_some())
            .collect();
        ensure!(asked.is_empty(), "sandboxes had to ask: {asked:?}");
        let (has, recorded) = (all_ips(&pods), records.into_keys().collect());
        ensure!(
            has == recorded,
            "the Pods have {}, recorded are {}",
            told(&has),
            told(&recorded)
        );

        self.upgrade(&[(EARLY, "false")])?;
        scale(kubectl, self.namespace, "soon", 4)?;
        running(kubectl, self.namespace, "soon", 4)?;
        let asked = self.records_of("soon")?;
        let asked = asked.iter().filter(|(ip, _)| !has.contains(ip));
        let all: Vec<_> = asked.map(|(_, record)| record.sandbox.is_some()).collect();
        ensure!(all == [true], "no sandbox asked for the last: {all:?}");
        self.remove("soon")
    }

    fn records_of(&self, name: &str) -> Result<BTreeMap<IpAddr, Record>> {
        Ok(Pool::of_deployment(self.cluster.kubectl(), self.namespace, name)?.records)
    }

    fn upgrade(&self, flags: &[(&str, &str)]) -> Result<()> {
        let flags: Vec<String> = flags
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        product::upgrade(self.cluster, &["--reuse-values", "--set", &flags.join(",")])
    }

    /// Waits until the one Pod runs, and has just so many addresses of each family.
    fn families_of(&self, name: &str, v4: usize, v6: usize) -> Result<Pod> {
        let pods = running(self.cluster.kubectl(), self.namespace, name, 1)?;
        let pod = pods.into_iter().next().context("no Pod")?;
        let count = |of: fn(&IpAddr) -> bool| pod.ips.iter().filter(|ip| of(ip)).count();
        let has = (count(IpAddr::is_ipv4), count(IpAddr::is_ipv6));
        ensure!(has == (v4, v6), "{name} has {:?}", pod.ips);
        let pools = self.pools_of(name)?.len();
        ensure!(pools == v4 + v6, "{name} has {pools} pools");
        Ok(pod)
    }

    fn pools_of(&self, name: &str) -> Result<Vec<Pool>> {
        Pool::of_workload(self.cluster.kubectl(), "Deployment", self.namespace, name)
    }

    fn pool_has(&self, name: &str, size: usize) -> Result<()> {
        eventually(
            SETTLE,
            &format!("{name} has a pool of {size} addresses"),
            || {
                let pool = Pool::of_deployment(self.cluster.kubectl(), self.namespace, name)?;
                ensure!(
                    pool.addresses.len() == size,
                    "it has {}",
                    told(&pool.addresses)
                );
                Books::read(self.cluster.kubectl())?.ensure_agree()
            },
        )
    }

    /// Waits until the plugin refused an address to the Deployment's Pod.
    fn is_refused(&self, name: &str) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        eventually(SETTLE, &format!("{name} is refused an address"), || {
            let list = ["events", "--namespace", self.namespace];
            let reason = ["--field-selector", "reason=FailedCreatePodSandBox"];
            for event in kubectl.list(&[&list[..], &reason].concat())? {
                let about = event
                    .pointer("/involvedObject/name")
                    .and_then(|name| name.as_str());
                if about.is_some_and(|about| about.starts_with(&format!("{name}-"))) {
                    return Ok(());
                }
            }
            bail!("no event says so")
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        retire(self.cluster.kubectl(), self.namespace, name)
    }
}

fn all_ips(pods: &[Pod]) -> Addresses {
    pods.iter()
        .flat_map(|pod| pod.ips.iter().copied())
        .collect()
}

/// A Deployment of one Pod that asks for an address of each family.
fn both_families(name: &str) -> Deployment {
    let subnets = json!({ "ipv4": ["net4"], "ipv6": ["net6"] });
    Deployment::new(name, 1).annotated(SUBNET, subnets.to_string())
}
