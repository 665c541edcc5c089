//! Ledgers: two entries with one address, and texts that can't be read.

use super::{Bench, Remedy, Unread, standing};
use crate::addr::AddrSet;
use crate::name::{PoolName, SubnetName};
use crate::record::Records;
use crate::subnet::{Entry, Subnet, SubnetLedger};

impl Bench<'_> {
    /// A ledger that can't be read: the controller rebuilds it from the pools, once all of those can
    /// be read.
    pub(super) fn forget(&mut self, subnet: &Subnet) -> Remedy {
        let of_subnet = |what: &&Unread| match what {
            Unread::Records { pool, .. } => pool.cidr == subnet.cidr,
            Unread::Object { .. } => true,
            Unread::Ledger { .. } => false,
        };
        let mut unread = self.unread.iter().filter(of_subnet);
        if let Some(name) = unread.find_map(|what| self.still_unread(what)) {
            return Remedy::Person(format!(
                "mend IPPool {name} first: it may have what only this ledger names"
            ));
        }
        let what = "forgets the ledger, which the controller rebuilds from all pools";
        let changes = vec![what.to_owned()];
        self.ledgers.insert(subnet.name.clone(), (None, changes));
        Remedy::Repair(what.to_owned())
    }

    /// The name of a pool that this repair leaves unreadable.
    fn still_unread(&self, what: &Unread) -> Option<String> {
        match what {
            Unread::Records { pool, .. } => {
                (!self.records.contains_key(&pool.name)).then(|| pool.name.to_string())
            }
            Unread::Object { kind, name, .. } => (*kind == super::POOL).then(|| name.clone()),
            Unread::Ledger { .. } => None,
        }
    }

    /// Each address that two entries have stays in one: that of the pool that recorded it, else of
    /// the pool that has it in its spec, else in none.
    pub(super) fn entries_overlap(
        &mut self,
        subnet: &SubnetName,
        [first, second]: [&PoolName; 2],
        overlap: &AddrSet,
    ) -> Remedy {
        let subnets = self.world.subnets.iter();
        let Some(read) = subnets.clone().find(|s| s.name == *subnet) else {
            return Remedy::Person("look again".to_owned());
        };
        let mut unread = self.unread.iter().filter_map(|u| self.still_unread(u));
        if let Some(name) = unread.find(|n| [first.as_str(), second.as_str()].contains(&&**n)) {
            return Remedy::Person(format!("mend IPPool {name} first: it can't be read"));
        }
        let [in_first, in_second] = [first, second].map(|name| {
            let records = self.records_of(name).map(Records::addresses);
            records
                .map(|of| of.intersection(overlap))
                .unwrap_or_default()
        });
        let both = in_first.intersection(&in_second);
        if !both.is_empty() {
            return Remedy::Person(format!("settle first for whom {both} is recorded"));
        }
        let rest = overlap.difference(&in_first.union(&in_second));
        let [has_first, has_second] =
            [first, second].map(|name| self.owned(name, read).intersection(&rest));
        let first_is_first = {
            let pool = |name| self.pools.get(name).copied();
            standing(pool(first)) <= standing(pool(second))
        };
        let (of_first, of_second) = if first_is_first {
            (has_first.clone(), has_second.difference(&has_first))
        } else {
            (has_first.difference(&has_second), has_second)
        };
        let of_first = in_first.union(&of_first);
        let of_second = in_second.union(&of_second);
        self.take(read, first, &overlap.difference(&of_first));
        self.take(read, second, &overlap.difference(&of_second));
        Remedy::Repair(format!(
            "leaves {of_first} to {first} and {of_second} to {second}"
        ))
    }

    /// Takes `lost` from an entry, and has its pool ordered anew if it could give that out.
    fn take(&mut self, subnet: &Subnet, pool: &PoolName, lost: &AddrSet) {
        if lost.is_empty() {
            return;
        }
        if !self.owned(pool, subnet).is_disjoint(lost) {
            self.revoke(pool);
        }
        let begun = self.ledgers.entry(subnet.name.clone());
        let (ledger, changes) = begun.or_insert_with(|| (subnet.ledger.clone(), vec![]));
        let ledger = ledger.get_or_insert_with(SubnetLedger::default);
        let old = ledger.get(pool).cloned().unwrap_or_default();
        let ips = old.ips.difference(lost);
        ledger.set(pool, Entry { ips, ..old });
        changes.push(format!("takes {lost} from the entry of {pool}"));
    }

    /// What a pool of the subnet could give out.
    fn owned(&self, pool: &PoolName, subnet: &Subnet) -> AddrSet {
        let pool = self.pools.get(pool).filter(|p| p.cidr == subnet.cidr);
        let serving = pool.filter(|p| !p.terminating);
        serving.map(|p| p.total().into_owned()).unwrap_or_default()
    }
}
