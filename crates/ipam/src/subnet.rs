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
use crate::once::Once;
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
    other: OtherKeys,
}

type OtherKeys = BTreeMap<String, serde_json::Value>;

/// Most bytes of a ledger's text: etcd refuses objects of 1.5 MiB, the rest is for what others put
/// on the subnet.
pub const LEDGER_BYTES_MAX: usize = 1_000_000;

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
///
/// ```
/// use ipam::addr::Family;
/// use ipam::subnet::{Entry, SubnetLedger};
///
/// let text = r#"{"web":{"ips":["10.0.0.1-10.0.0.3"]}}"#;
/// let mut ledger = SubnetLedger::parse(text, Family::V4, 7)?;
/// assert_eq!(ledger.count().get(), 3);
/// ledger.set(&"web".into(), Entry::default());
/// assert_eq!(ledger.to_text(), None);
/// # Ok::<(), ipam::subnet::LedgerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubnetLedger {
    entries: BTreeMap<PoolName, Entry>,
    /// Keys of others in an entry, written back as they are for as long as there is an entry.
    other: BTreeMap<PoolName, OtherKeys>,
    /// `status.ledgerEpoch`: raised by every write, so that no two writes are byte-equal.
    pub epoch: u64,
}

impl SubnetLedger {
    /// Reads the text of `status.controlledIPPools`.
    ///
    /// Errors: [`LedgerError`]; such a ledger is never overwritten. Cost: O(n log n).
    pub fn parse(text: &str, family: Family, epoch: u64) -> Result<Self, LedgerError> {
        let raw: Option<Once<PoolName, WireEntry>> =
            serde_json::from_str(text).map_err(LedgerError::Json)?;
        let (mut entries, mut other) = (BTreeMap::new(), BTreeMap::new());
        for (pool, wire) in raw.map(|Once(all)| all).unwrap_or_default() {
            let ips =
                parse_list(&wire.ips, family).map_err(|e| LedgerError::Range(pool.clone(), e))?;
            if !wire.other.is_empty() {
                other.insert(pool.clone(), wire.other);
            }
            entries.insert(
                pool,
                Entry {
                    ips,
                    application: wire.application,
                },
            );
        }
        Ok(Self {
            entries,
            other,
            epoch,
        })
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
                    other: self.other.get(pool).cloned().unwrap_or_default(),
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
            self.other.remove(pool);
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

    /// Length of the text, or a little more: a bound that is cheap to compare with
    /// [`LEDGER_BYTES_MAX`]. Cost: O(entries).
    pub fn bytes_at_most(&self) -> usize {
        // Two addresses of at most 39 characters, '-', quotes and comma; the keys of an entry.
        const RANGE: usize = 2 * 39 + 4;
        const KEYS: usize = 40;
        let entries = self.entries.iter().map(|(pool, entry)| {
            let other = self
                .other
                .get(pool)
                .and_then(|o| serde_json::to_string(o).ok());
            let texts = [
                pool.as_str().len(),
                entry.application.as_ref().map_or(0, String::len),
                other.map_or(0, |text| text.len()),
                entry.ips.ranges().len().saturating_mul(RANGE),
                KEYS,
            ];
            texts.iter().fold(0, |sum: usize, n| sum.saturating_add(*n))
        });
        entries.fold(2, usize::saturating_add)
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

    /// The addresses of `set` that are not the subnet's to give: not in `ips`, or excluded.
    pub fn lacks(&self, set: &AddrSet) -> AddrSet {
        set.difference(&self.total())
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
    fn keys_of_others_stay_in_an_entry_for_as_long_as_it_is_there() {
        let text = r#"{"p":{"ips":["10.0.0.1"],"theirs":{"x":1}}}"#;
        let mut ledger = SubnetLedger::parse(text, Family::V4, 0).unwrap();
        let ips = parse_list(&["10.0.0.1-10.0.0.2"], Family::V4).unwrap();
        let pool = PoolName::from("p");
        ledger.set(
            &pool,
            Entry {
                ips: ips.clone(),
                application: None,
            },
        );
        let grown = text.replace("10.0.0.1", "10.0.0.1-10.0.0.2");
        assert_eq!(ledger.to_text(), Some(grown));
        ledger.set(&pool, Entry::default());
        ledger.set(
            &pool,
            Entry {
                ips,
                application: None,
            },
        );
        assert!(!ledger.to_text().unwrap().contains("theirs"));
    }

    #[test]
    fn the_bound_of_the_length_is_none_too_low() {
        let mut ledger = SubnetLedger::parse(LEDGER, Family::V4, 3).unwrap();
        assert!(ledger.bytes_at_most() >= LEDGER.len());
        let long =
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let ips = parse_list(&[long], Family::V6).unwrap();
        ledger.set(
            &PoolName::from("six"),
            Entry {
                ips,
                application: Some(String::new()),
            },
        );
        assert!(ledger.bytes_at_most() >= ledger.to_text().unwrap().len());
    }

    #[test]
    fn the_bound_of_the_length_is_not_much_too_high_for_the_longest_ranges() {
        let whole = "f".repeat(4);
        let address = |n: u16| format!("fd00:{}:{n:04x}", [whole.as_str(); 6].join(":"));
        let ranges =
            (0..200).map(|n| format!("{}-{}", address(0x1000 + 4 * n), address(0x1001 + 4 * n)));
        let ranges: Vec<String> = ranges.collect();
        let mut ledger = SubnetLedger::default();
        let entry = Entry {
            ips: crate::addr::parse_list(&ranges, Family::V6).unwrap(),
            application: None,
        };
        ledger.set(&PoolName::from("p"), entry);
        let (bound, length) = (ledger.bytes_at_most(), ledger.to_text().unwrap().len());
        assert!(
            (length..length + 100).contains(&bound),
            "{bound} for {length}"
        );
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
