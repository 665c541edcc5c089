//! Subnets, pools and reservations of a cluster, read once and parsed.

use ipam::addr::AddrSet;
use ipam::audit::World;
use ipam::record::Salvage;
use ipam::repair::Unread;
use ipam::select::PoolFault;
use kube::ResourceExt;
use serde::Serialize;

use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, convert, names};
use crate::cli::connection::{ClusterError, Connection, Listing};

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// What could be read.
    pub(super) world: World,
    /// Every reserved address.
    pub(super) reserved: AddrSet,
    /// The reservations by name.
    pub(super) reservations: Vec<(String, AddrSet)>,
    /// What could not be read.
    pub(super) unreadable: Vec<Unreadable>,
    /// The same, as a repair looks at it.
    pub(super) unread: Vec<Unread>,
    /// What the controller says is wrong, on the objects themselves.
    pub(super) said: Vec<Said>,
}

/// An object that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Unreadable {
    /// Its kind.
    pub(super) kind: &'static str,
    /// Its name.
    pub(super) name: String,
    /// Field, value and what is wrong.
    pub(super) reason: String,
}

/// A condition that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Said {
    /// Kind of the object.
    pub(super) kind: &'static str,
    /// Its name.
    pub(super) name: String,
    /// Why, in one word.
    pub(super) reason: String,
    /// What, how much, and what would mend it.
    pub(super) message: String,
}

impl Sight {
    /// Reads the cluster.
    pub(super) async fn of(connection: &Connection) -> Result<Self, ClusterError> {
        // Pools before ledgers: what a pool receives meanwhile was in the ledger first.
        let pools = connection.list::<SpiderIPPool>().await?;
        let subnets = connection.list::<SpiderSubnet>().await?;
        let reservations = connection.list::<SpiderReservedIP>().await?;
        Ok(Self::parsed(subnets, pools, reservations))
    }

    /// What the objects say. Pure.
    pub(super) fn parsed(
        subnets: Listing<SpiderSubnet>,
        pools: Listing<SpiderIPPool>,
        reservations: Listing<SpiderReservedIP>,
    ) -> Self {
        let mut sight = Self::default();
        sight.malformed(names::KIND_SUBNET, subnets.malformed);
        sight.malformed(names::KIND_POOL, pools.malformed);
        sight.malformed(names::KIND_RESERVED_IP, reservations.malformed);
        for raw in subnets.objects {
            let conditions = raw.status.iter().flat_map(|s| &s.conditions);
            sight.note(names::KIND_SUBNET, &raw.name_any(), conditions);
            match convert::subnet(&raw) {
                Ok(subnet) => sight.world.subnets.push(subnet),
                Err(error) => sight.refuse_subnet(&raw, error.to_string()),
            }
        }
        for raw in pools.objects {
            let conditions = raw.status.iter().flat_map(|s| &s.conditions);
            sight.note(names::KIND_POOL, &raw.name_any(), conditions);
            match convert::pool(&raw) {
                Ok(pool) => sight.world.pools.push(pool),
                Err(PoolFault::Unreadable { pool: _, reason }) => sight.refuse_pool(&raw, reason),
                Err(fault @ PoolFault::NoFamily) => {
                    sight.refuse(names::KIND_POOL, raw.name_any(), fault.to_string());
                }
            }
        }
        for raw in reservations.objects {
            let (set, errors) = convert::reserved(&raw);
            for error in errors {
                sight.refuse(names::KIND_RESERVED_IP, raw.name_any(), error.to_string());
            }
            sight.reserved = sight.reserved.union(&set);
            sight.reservations.push((raw.name_any(), set));
        }
        sight.world.subnets.sort_by(|a, b| a.name.cmp(&b.name));
        sight.world.pools.sort_by(|a, b| a.name.cmp(&b.name));
        sight
    }

    fn malformed(&mut self, kind: &'static str, objects: Vec<(String, String)>) {
        for (name, reason) in objects {
            self.refuse(kind, name, reason);
        }
    }

    fn refuse(&mut self, kind: &'static str, name: String, reason: impl Into<String>) {
        let reason = reason.into();
        let (object, why) = (name.clone(), reason.clone());
        self.unreadable.push(Unreadable { kind, name, reason });
        self.unread.push(Unread::Object {
            kind,
            name: object,
            reason: why,
        });
    }

    /// A subnet that can't be read; without its ledger it may be.
    fn refuse_subnet(&mut self, raw: &SpiderSubnet, reason: String) {
        let mut rest = raw.clone();
        if let Some(status) = &mut rest.status {
            status.controlled_ip_pools = None;
        }
        self.refuse(names::KIND_SUBNET, raw.name_any(), reason.clone());
        if let Ok(subnet) = convert::subnet(&rest) {
            self.unread.pop();
            let subnet = Box::new(subnet);
            self.unread.push(Unread::Ledger { subnet, reason });
        }
    }

    /// A pool that can't be read; without its records it may be.
    fn refuse_pool(&mut self, raw: &SpiderIPPool, reason: String) {
        let mut rest = raw.clone();
        let records = rest
            .status
            .as_mut()
            .and_then(|status| status.allocated_ips.take());
        self.refuse(names::KIND_POOL, raw.name_any(), reason.clone());
        if let Ok(pool) = convert::pool(&rest) {
            self.unread.pop();
            self.unread.push(Unread::Records {
                pool: Box::new(pool),
                salvage: Salvage::of(&records.unwrap_or_default()),
                reason,
            });
        }
    }

    fn note<'c>(
        &mut self,
        kind: &'static str,
        name: &str,
        conditions: impl Iterator<Item = &'c crate::api::Condition>,
    ) {
        use crate::api::ConditionStatus::{False, True};
        use ipam::plan::ConditionKind::{Conflicting, Exhausted, Ready};
        let bad = conditions.filter(|c| {
            let bad = [(Ready, False), (Exhausted, True), (Conflicting, True)];
            bad.iter()
                .any(|(kind, status)| c.type_ == kind.as_str() && c.status == *status)
        });
        for condition in bad {
            let said = Said {
                kind,
                name: name.to_owned(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            };
            // Two conditions often say one thing.
            if self.said.last() != Some(&said) {
                self.said.push(said);
            }
        }
    }
}
