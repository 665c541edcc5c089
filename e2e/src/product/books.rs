//! The product's books: pools, the subnets' ledgers and the Pods, laid side by side.
//!
//! Owns: the rules of agreement, as an outsider states them. Never does: reads the product's own
//! check. The objects are read one list after the other, so while things move they disagree for a
//! moment; callers wait until they agree.
//!
//! ```text
//! subnet's ledger   entry of a pool = the pool's addresses and what it has recorded
//! pool              each record lies in the pool, is in no other pool, names a Pod that is there
//! Pod               each address is recorded under its uid, once
//! counts            tell what one counts oneself
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::addresses::{Addresses, told};
use super::objects::{Pod, Pool, Subnet, names};
use crate::cluster::kubectl::Kubectl;

/// Everything that says who has which address.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// All subnets.
    pub subnets: Vec<Subnet>,
    /// All pools.
    pub pools: Vec<Pool>,
    /// All Pods.
    pub pods: Vec<Pod>,
    /// Names of all endpoints.
    pub endpoints: Vec<String>,
}

impl Books {
    /// Reads all of them.
    pub fn read(kubectl: &Kubectl) -> Result<Self> {
        Ok(Self {
            subnets: Subnet::all(kubectl)?,
            pools: Pool::all(kubectl)?,
            pods: Pod::all(kubectl)?,
            endpoints: names(kubectl, "spiderendpoints")?,
        })
    }

    /// Errors: they disagree; every disagreement is told.
    pub fn ensure_agree(&self) -> Result<()> {
        let found = self.disagreements();
        ensure!(found.is_empty(), "the books disagree: {}", found.join("; "));
        Ok(())
    }

    /// Errors: there is a pool, a subnet or an endpoint, or a Pod that is not on its node's network.
    pub fn ensure_empty(&self) -> Result<()> {
        let pools = self.pools.iter().map(|pool| format!("pool {}", pool.name));
        let subnets = self
            .subnets
            .iter()
            .map(|subnet| format!("subnet {}", subnet.name));
        let pods = self.pods.iter().filter(|pod| !pod.on_host);
        let pods = pods.map(|pod| format!("Pod {}/{}", pod.namespace, pod.name));
        let endpoints = self.endpoints.iter().map(|name| format!("endpoint {name}"));
        let left: Vec<String> = pools.chain(subnets).chain(pods).chain(endpoints).collect();
        ensure!(left.is_empty(), "left over: {}", left.join(", "));
        Ok(())
    }

    fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.check_pools(&mut found);
        self.check_ledgers(&mut found);
        self.check_pods(&mut found);
        found
    }

    fn check_pools(&self, found: &mut Vec<String>) {
        let uids: BTreeSet<&str> = self.pods.iter().map(|pod| pod.uid.as_str()).collect();
        let mut holders: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for pool in &self.pools {
            for (ip, record) in &pool.records {
                if let Some(other) = holders.insert(*ip, &pool.name) {
                    found.push(format!(
                        "{ip} is recorded in pools {other} and {}",
                        pool.name
                    ));
                }
                if !pool.addresses.contains(ip) {
                    found.push(format!(
                        "{ip} is recorded in pool {}, which lacks it",
                        pool.name
                    ));
                }
                if !uids.contains(record.uid.as_str()) {
                    let held = format!("{ip} in pool {} is held for Pod {}", pool.name, record.pod);
                    found.push(format!("{held}, which is gone"));
                }
            }
            let (counts, size) = (pool.counts, pool.addresses.len());
            if counts.allocated != pool.records.len() || counts.total != size {
                found.push(format!(
                    "pool {} tells {} of {}, it has {} of {size}",
                    pool.name,
                    counts.allocated,
                    counts.total,
                    pool.records.len(),
                ));
            }
        }
    }

    fn check_ledgers(&self, found: &mut Vec<String>) {
        for subnet in &self.subnets {
            let pools = self.pools.iter().filter(|pool| pool.cidr == subnet.cidr);
            let mut expected: BTreeMap<&str, Addresses> = pools
                .map(|pool| (pool.name.as_str(), claimed(pool)))
                .collect();
            expected.retain(|_, claimed| !claimed.is_empty());
            let none = Addresses::new();
            let names = expected
                .keys()
                .copied()
                .chain(subnet.ledger.keys().map(String::as_str));
            for name in names.collect::<BTreeSet<_>>() {
                let claimed = expected.get(name).unwrap_or(&none);
                let entry = subnet.ledger.get(name).unwrap_or(&none);
                if claimed != entry {
                    let (entry, claimed) = (told(entry), told(claimed));
                    found.push(format!(
                        "subnet {} gives pool {name} {entry}, it has {claimed}",
                        subnet.name
                    ));
                }
            }
            let given: usize = subnet.ledger.values().map(Addresses::len).sum();
            let distinct: Addresses = subnet.ledger.values().flatten().copied().collect();
            if distinct.len() != given {
                found.push(format!(
                    "subnet {} gives an address to two pools",
                    subnet.name
                ));
            }
            let (counts, size) = (subnet.counts, subnet.addresses.len());
            if counts.allocated != given || counts.total != size {
                let (name, allocated, total) = (&subnet.name, counts.allocated, counts.total);
                found.push(format!(
                    "subnet {name} tells {allocated} of {total}, it has given {given} of {size}"
                ));
            }
        }
    }

    fn check_pods(&self, found: &mut Vec<String>) {
        for pod in self
            .pods
            .iter()
            .filter(|pod| !pod.on_host && !pod.terminating)
        {
            for ip in &pod.ips {
                let records = self.pools.iter().filter_map(|pool| pool.records.get(ip));
                let owners: Vec<&str> = records.map(|record| record.uid.as_str()).collect();
                if owners != [pod.uid.as_str()] {
                    found.push(format!(
                        "Pod {}/{} has {ip}, recorded for {owners:?} and not for {}",
                        pod.namespace, pod.name, pod.uid
                    ));
                }
            }
        }
    }
}

fn claimed(pool: &Pool) -> Addresses {
    pool.addresses
        .iter()
        .chain(pool.records.keys())
        .copied()
        .collect()
}

#[cfg(test)]
mod tests;
