//! A subnet: the range a user owns, and the ledger of what each pool has of it.
//!
//! The ledger is `status.controlledIPPools`, a JSON text keyed by pool. Invariant:
//! entries are pairwise disjoint, and an address leaves an entry only after it has left its pool.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr::{AddrCount, AddrSet, Family, RangeTextError, parse_list};
use crate::name::{PoolName, SubnetName, Uid, Version};
use crate::pool::Route;

/// What one pool has of the subnet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Its addresses, in use or not.
    pub ips: AddrSet,
    /// `group_version_Kind_namespace_name` of the workload; `None` for a pool made by hand.
    pub application: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct WireEntry {
    ips: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

/// Why the text of `controlledIPPools` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The text is not the JSON object it should be.
    #[error("controlledIPPools is not a JSON object of entries")]
    Json(#[source] serde_json::Error),
    /// An entry's range is none.
    #[error("controlledIPPools: entry of pool {0} is unreadable")]
    Range(PoolName, #[source] RangeTextError),
}

/// Which pool has which addresses of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubnetLedger {
    entries: BTreeMap<PoolName, Entry>,
    /// `status.ledgerEpoch`: raised by every write, so that no two writes are byte-equal.
    pub epoch: u64,
}

impl SubnetLedger {
    /// Reads the text of `status.controlledIPPools`.
    ///
    /// Errors: [`LedgerError`]; such a ledger is never overwritten. Cost: O(n log n).
    pub fn parse(text: &str, family: Family, epoch: u64) -> Result<Self, LedgerError> {
        let raw: Option<BTreeMap<PoolName, WireEntry>> =
            serde_json::from_str(text).map_err(LedgerError::Json)?;
        let mut entries = BTreeMap::new();
        for (pool, wire) in raw.unwrap_or_default() {
            let ips =
                parse_list(&wire.ips, family).map_err(|e| LedgerError::Range(pool.clone(), e))?;
            entries.insert(
                pool,
                Entry {
                    ips,
                    application: wire.application,
                },
            );
        }
        Ok(Self { entries, epoch })
    }

    /// The text to write; `None` where no pool has anything.
    pub fn to_text(&self) -> Option<String> {
        if self.entries.is_empty() {
            return None;
        }
        let wire: BTreeMap<&PoolName, WireEntry> = self
            .entries
            .iter()
            .map(|(pool, entry)| {
                let wire = WireEntry {
                    ips: entry.ips.to_texts(),
                    application: entry.application.clone(),
                    other: BTreeMap::new(),
                };
                (pool, wire)
            })
            .collect();
        // Entries are plain data: writing them as JSON cannot fail.
        serde_json::to_string(&wire).ok()
    }

    /// The entry of `pool`.
    pub fn get(&self, pool: &PoolName) -> Option<&Entry> {
        self.entries.get(pool)
    }

    /// All entries by pool name.
    pub fn iter(&self) -> impl Iterator<Item = (&PoolName, &Entry)> {
        self.entries.iter()
    }

    /// Sets the entry of `pool`; an entry without addresses goes.
    pub fn set(&mut self, pool: &PoolName, entry: Entry) {
        if entry.ips.is_empty() {
            self.entries.remove(pool);
        } else {
            self.entries.insert(pool.clone(), entry);
        }
    }

    /// Everything that some pool has. Cost: O(total ranges · log pools).
    pub fn taken(&self) -> AddrSet {
        self.entries
            .values()
            .flat_map(|e| e.ips.ranges().iter().copied())
            .collect()
    }

    /// Sum over all entries: `status.allocatedIPCount`.
    pub fn count(&self) -> AddrCount {
        self.entries.values().map(|e| e.ips.count()).sum()
    }
}

/// A SpiderSubnet that parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Subnet {
    /// Name.
    pub name: SubnetName,
    /// Uid of this very object.
    pub uid: Uid,
    /// Version that was read: the fence of the next write.
    pub version: Version,
    /// CIDR; its family is the subnet's.
    pub cidr: IpNet,
    /// `spec.ips`.
    pub ips: AddrSet,
    /// `spec.excludeIPs`.
    pub excluded: AddrSet,
    /// `spec.gateway`, inherited by pools.
    pub gateway: Option<IpAddr>,
    /// `spec.routes`, inherited by pools.
    pub routes: Vec<Route>,
    /// A deletion timestamp is set.
    pub terminating: bool,
    /// Our finalizer is set.
    pub finalizer: bool,
    /// The ledger; `None` where the status has none, which says nothing: it is rebuilt from a live
    /// list of pools.
    pub ledger: Option<SubnetLedger>,
}

impl Subnet {
    /// The subnet's family.
    pub fn family(&self) -> Family {
        Family::of(self.cidr.addr())
    }

    /// `ips` − `excludeIPs`: `status.totalIPCount` counts it.
    pub fn total(&self) -> AddrSet {
        self.ips.difference(&self.excluded)
    }

    /// What may be carved for auto pools: never the gateway, never a reserved address, never one
    /// in `taken`.
    pub fn free(&self, reserved: &AddrSet, taken: &AddrSet) -> AddrSet {
        let mut free = self.total().difference(reserved).difference(taken);
        if let Some(gateway) = self.gateway {
            free.remove(gateway);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = r#"{"auto4-web-eth0-a5bd3":{"ips":["10.6.168.121-10.6.168.123"],"application":"apps_v1_Deployment_shop_web"},"shop-v4":{"ips":["10.6.168.101-10.6.168.109","10.6.168.113"]}}"#;

    #[test]
    fn a_ledger_is_written_back_as_it_was_read() {
        let ledger = SubnetLedger::parse(LEDGER, Family::V4, 3).unwrap();
        assert_eq!(ledger.to_text().unwrap(), LEDGER);
        assert_eq!(ledger.count(), AddrCount::new(13));
    }

    #[test]
    fn an_empty_entry_goes_and_an_empty_ledger_has_no_text() {
        let mut ledger = SubnetLedger::parse(LEDGER, Family::V4, 3).unwrap();
        for pool in ["auto4-web-eth0-a5bd3", "shop-v4"] {
            ledger.set(&PoolName::from(pool), Entry::default());
        }
        assert_eq!(ledger.to_text(), None);
    }

    #[test]
    fn an_unreadable_ledger_is_an_error_that_names_the_pool() {
        let text = r#"{"p":{"ips":["10.0.0.9-10.0.0.1"]}}"#;
        let error = SubnetLedger::parse(text, Family::V4, 0).unwrap_err();
        assert!(error.to_string().contains("pool p"));
        SubnetLedger::parse("[]", Family::V4, 0).unwrap_err();
    }
}
