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
mod tests {
    use super::super::addresses::addresses;
    use super::super::objects::{Counts, Record};
    use super::*;

    fn pool(name: &str, ips: &str, records: &[(&str, &str)]) -> Pool {
        let addresses = addresses([ips]).unwrap();
        let record = |uid: &str| Record {
            pod: format!("ns/{uid}"),
            uid: uid.to_owned(),
            sandbox: None,
        };
        Pool {
            name: name.to_owned(),
            cidr: "10.0.0.0/24".to_owned(),
            counts: Counts {
                allocated: records.len(),
                total: addresses.len(),
            },
            addresses,
            records: records
                .iter()
                .map(|(ip, uid)| (ip.parse().unwrap(), record(uid)))
                .collect(),
            conditions: Vec::new(),
            affinity: BTreeMap::new(),
            terminating: false,
        }
    }

    fn pod(uid: &str, ip: &str) -> Pod {
        Pod {
            namespace: "ns".to_owned(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
            node: "n".to_owned(),
            ips: vec![ip.parse().unwrap()],
            ready: true,
            terminating: false,
            on_host: false,
        }
    }

    /// Two pools of a subnet, one Pod in each.
    fn books() -> Books {
        let pools = vec![
            pool("a", "10.0.0.1-10.0.0.2", &[("10.0.0.1", "u1")]),
            pool("b", "10.0.0.3-10.0.0.4", &[("10.0.0.3", "u2")]),
        ];
        let ledger = pools
            .iter()
            .map(|pool| (pool.name.clone(), claimed(pool)))
            .collect();
        let subnet = Subnet {
            name: "s".to_owned(),
            cidr: "10.0.0.0/24".to_owned(),
            addresses: addresses(["10.0.0.1-10.0.0.9"]).unwrap(),
            ledger,
            counts: Counts {
                allocated: 4,
                total: 9,
            },
            conditions: Vec::new(),
        };
        let pods = vec![pod("u1", "10.0.0.1"), pod("u2", "10.0.0.3")];
        Books {
            subnets: vec![subnet],
            pools,
            pods,
            endpoints: Vec::new(),
        }
    }

    /// What is found after one change of books that agree.
    fn found_after(change: impl FnOnce(&mut Books)) -> String {
        let mut books = books();
        books.ensure_agree().unwrap();
        change(&mut books);
        books.disagreements().join("; ")
    }

    #[test]
    fn an_address_in_two_pools_is_found() {
        let found = found_after(|books| {
            let record = books.pools[0].records[&"10.0.0.1".parse::<IpAddr>().unwrap()].clone();
            books.pools[1]
                .records
                .insert("10.0.0.1".parse().unwrap(), record);
        });
        assert!(
            found.contains("10.0.0.1 is recorded in pools a and b"),
            "{found}"
        );
        assert!(
            found.contains("10.0.0.1 is recorded in pool b, which lacks it"),
            "{found}"
        );
    }

    #[test]
    fn a_ledger_that_has_more_than_the_pool_is_found() {
        let found = found_after(|books| {
            let entry = books.subnets[0].ledger.get_mut("a").unwrap();
            entry.insert("10.0.0.9".parse().unwrap());
            books.subnets[0].counts.allocated = 5;
        });
        assert_eq!(
            found,
            "subnet s gives pool a {10.0.0.1 10.0.0.2 10.0.0.9}, it has {10.0.0.1 10.0.0.2}"
        );
    }

    #[test]
    fn a_pool_that_the_ledger_does_not_know_is_found() {
        let found = found_after(|books| {
            books.subnets[0].ledger.remove("b");
            books.subnets[0].counts.allocated = 2;
        });
        assert_eq!(
            found,
            "subnet s gives pool b {}, it has {10.0.0.3 10.0.0.4}"
        );
    }

    #[test]
    fn a_pod_with_an_address_that_nobody_recorded_for_it_is_found() {
        let found = found_after(|books| books.pods[1].ips = vec!["10.0.0.1".parse().unwrap()]);
        assert_eq!(
            found,
            r#"Pod ns/u2 has 10.0.0.1, recorded for ["u1"] and not for u2"#
        );
    }

    #[test]
    fn an_address_held_for_a_pod_that_is_gone_is_found() {
        let found = found_after(|books| drop(books.pods.pop()));
        assert_eq!(
            found,
            "10.0.0.3 in pool b is held for Pod ns/u2, which is gone"
        );
    }

    #[test]
    fn counts_that_do_not_add_up_are_found() {
        let found = found_after(|books| {
            books.pools[0].counts.allocated = 2;
            books.subnets[0].counts.total = 8;
        });
        assert_eq!(
            found,
            "pool a tells 2 of 2, it has 1 of 2; subnet s tells 4 of 8, it has given 4 of 9"
        );
    }
}
