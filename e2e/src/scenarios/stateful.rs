//! A StatefulSet's Pods keep their addresses, whatever happens to Pods, agents and the controller,
//! and for as long as the set wants them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, names};
use crate::product::{Role, acting_controller};
use crate::progress::say;
use crate::wait::eventually;
use crate::workload::{
    Deployment, NUMBER, SETTLE, delete, gone, leaving_nothing, ping_each_other, running, subnet,
};

const REPLICAS: usize = 3;
const FIRST: &str = "stateful-a";
const SECOND: &str = "stateful-b";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "stateful", |namespace| {
        let kubectl = cluster.kubectl();
        // No address to spare: a Pod that is given another than its own finds none.
        subnet(kubectl, FIRST, &["172.18.41.100-172.18.41.102"])?;
        on_the_second_network(kubectl)?;
        let set = Set {
            cluster,
            kubectl,
            namespace,
        };
        set.apply(FIRST)?;
        let pods = set.all_run()?;
        ping_each_other(kubectl, &pods)?;
        set.pods_come_and_go()?;
        set.programs_come_and_go()?;
        set.is_scaled()?;
        set.is_made_anew()?;
        set.moves_to_another_subnet()?;
        set.delete()?;
        delete(kubectl, &["spidersubnet", FIRST, SECOND])
    })
}

/// Two subnets cannot have one CIDR, so the second one's is of its own; nobody is pinged there.
fn on_the_second_network(kubectl: &Kubectl) -> Result<()> {
    let object = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderSubnet",
        "metadata": { "name": SECOND },
        "spec": { "subnet": "172.18.42.0/24", "ips": ["172.18.42.10-172.18.42.19"] },
    });
    kubectl.apply(&object.to_string(), &[]).map(drop)
}

/// StatefulSet `db`.
struct Set<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
}

impl Set<'_> {
    /// Pods that are replaced one by one have the addresses of those before them.
    fn pods_come_and_go(&self) -> Result<()> {
        self.keeps_addresses("a Pod deleted", |_| self.pod(&["delete", "pod", "db-1"]))?;
        self.keeps_addresses("a Pod deleted by force", |_| {
            self.pod(&["delete", "pod", "db-2", "--force", "--grace-period=0"])
        })?;
        let moved = self.keeps_addresses("a Pod moved to the other node", |pods| {
            let node = &pod(pods, "db-0")?.node;
            self.kubectl.run(&["cordon", node])?;
            self.pod(&["delete", "pod", "db-0"])
        });
        for node in self.cluster.nodes() {
            self.kubectl.run(&["uncordon", node.name()])?;
        }
        let (before, after) = moved?;
        let (from, to) = (&pod(&before, "db-0")?.node, &pod(&after, "db-0")?.node);
        ensure!(from != to, "db-0 is on {to} again");
        Ok(())
    }

    /// Neither an agent nor the controller has to be there for that.
    fn programs_come_and_go(&self) -> Result<()> {
        self.keeps_addresses("an agent killed while its Pod goes", |pods| {
            let on = &pod(pods, "db-1")?.node;
            let nodes = self.cluster.nodes().iter();
            let node = nodes.clone().find(|node| node.name() == on.as_str());
            let agent = node.and_then(|node| Role::Agent.process_on(node));
            self.pod(&["delete", "pod", "db-1", "--wait=false"])?;
            agent
                .with_context(|| format!("no agent runs on {on}"))?
                .kill()
        })?;
        self.keeps_addresses("the controller killed, and all Pods deleted", |_| {
            acting_controller(self.cluster)?.1.kill()?;
            self.pod(&["delete", "pods", "--selector=app=db"])
        })?;
        Ok(())
    }

    /// What is scaled away is free; what stays is as it was.
    fn is_scaled(&self) -> Result<()> {
        let before = self.all_run()?;
        self.scale(1)?;
        running(self.kubectl, self.namespace, "db", 1)?;
        eventually(SETTLE, "one address and one endpoint", || {
            let used: usize = self.pools()?.iter().map(|pool| pool.records.len()).sum();
            ensure!(used == 1, "{used} addresses are recorded");
            let endpoints = names(self.kubectl, "spiderendpoints")?;
            ensure!(endpoints.len() == 1, "endpoints: {}", endpoints.join(", "));
            Books::read(self.kubectl)?.ensure_agree()
        })?;
        self.scale(REPLICAS)?;
        let after = self.all_run()?;
        let (had, has) = (pod(&before, "db-0")?.ip()?, pod(&after, "db-0")?.ip()?);
        ensure!(had == has, "db-0 had {had} and has {has}");
        Ok(())
    }

    /// A set of the same name is another one: its pool is its own, and the old one's addresses are
    /// free again.
    fn is_made_anew(&self) -> Result<()> {
        say(format_args!("the StatefulSet deleted and made anew"));
        let [old] = self
            .pools()?
            .try_into()
            .map_err(|_| anyhow::anyhow!("not one pool"))?;
        let args = ["delete", "statefulset", "db", "--cascade=background"];
        self.pod(&args)?;
        self.apply(FIRST)?;
        self.all_run()?;
        eventually(SETTLE, "the new set's pool and no other", || {
            let pools = self.pools()?;
            let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
            ensure!(
                names.len() == 1 && names[0] != old.name,
                "pools: {}",
                names.join(" ")
            );
            Books::read(self.kubectl)?.ensure_agree()
        })
    }

    /// Pods that ask for another subnet have an address of it; the old pool goes with the last.
    fn moves_to_another_subnet(&self) -> Result<()> {
        say(format_args!("another subnet in the Pod template"));
        self.apply(SECOND)?;
        eventually(
            2 * SETTLE,
            "all Pods have the new subnet's addresses",
            || {
                let pods = Pod::of_app(self.kubectl, self.namespace, "db")?;
                let moved = |pod: &Pod| {
                    let of_second = pod
                        .ips
                        .iter()
                        .all(|ip| ip.to_string().starts_with("172.18.42."));
                    pod.ready && !pod.terminating && !pod.ips.is_empty() && of_second
                };
                let count = pods.iter().filter(|pod| moved(pod)).count();
                ensure!(count == REPLICAS, "{count} have moved");
                let pools = self.pools()?;
                ensure!(pools.len() == 1, "{} pools", pools.len());
                Books::read(self.kubectl)?.ensure_agree()
            },
        )
    }

    fn delete(&self) -> Result<()> {
        self.pod(&["delete", "statefulset", "db"])?;
        gone(self.kubectl, self.namespace, "db")?;
        eventually(SETTLE, "its pool is gone", || {
            let pools = self.pools()?;
            ensure!(pools.is_empty(), "pool {} is there", pools[0].name);
            Ok(())
        })
    }

    /// Has `happen` happen; then all Pods run again, each with the address it had. Returns the Pods
    /// before and after.
    fn keeps_addresses(
        &self,
        what: &str,
        happen: impl FnOnce(&[Pod]) -> Result<()>,
    ) -> Result<(Vec<Pod>, Vec<Pod>)> {
        say(format_args!("{what}"));
        let before = self.all_run()?;
        happen(&before)?;
        let after = eventually(2 * SETTLE, &format!("after {what}, all run"), || {
            let after = self.all_run()?;
            ensure!(uids(&before) != uids(&after), "the Pods are the same");
            Ok(after)
        })?;
        let (had, has) = (addresses(&before)?, addresses(&after)?);
        ensure!(had == has, "{what}: the Pods had {had:?} and have {has:?}");
        Ok((before, after))
    }

    fn all_run(&self) -> Result<Vec<Pod>> {
        let pods = running(self.kubectl, self.namespace, "db", REPLICAS)?;
        eventually(SETTLE, "the books agree", || {
            Books::read(self.kubectl)?.ensure_agree()
        })?;
        Ok(pods)
    }

    fn pools(&self) -> Result<Vec<Pool>> {
        Pool::of_workload(self.kubectl, "StatefulSet", self.namespace, "db")
    }

    fn scale(&self, replicas: usize) -> Result<()> {
        self.pod(&[
            "scale",
            "statefulset",
            "db",
            &format!("--replicas={replicas}"),
        ])
    }

    /// A `kubectl` command in the namespace.
    fn pod(&self, args: &[&str]) -> Result<()> {
        let args = [args, &["--namespace", self.namespace]].concat();
        self.kubectl.run(&args).map(drop)
    }

    fn apply(&self, subnet: &str) -> Result<()> {
        Deployment::new("db", u32::try_from(REPLICAS)?)
            .as_stateful_set()
            .with_subnet(subnet)
            .annotated(NUMBER, "+0")
            .create(self.kubectl, self.namespace)
    }
}

fn pod<'p>(pods: &'p [Pod], name: &str) -> Result<&'p Pod> {
    let found = pods.iter().find(|pod| pod.name == name);
    found.with_context(|| format!("no Pod {name}"))
}

fn uids(pods: &[Pod]) -> Vec<&str> {
    pods.iter().map(|pod| pod.uid.as_str()).collect()
}

fn addresses(pods: &[Pod]) -> Result<BTreeMap<String, IpAddr>> {
    let each = pods.iter().map(|pod| Ok((pod.name.clone(), pod.ip()?)));
    each.collect()
}
