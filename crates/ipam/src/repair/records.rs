//! Records: doubled, missing, of others, and of whole pools that can't be read.

use std::net::IpAddr;

use super::{Bench, Remedy, delete_one};
use crate::addr::AddrSet;
use crate::audit::{Life, Resident};
use crate::name::{PodName, PoolName};
use crate::pool::Pool;
use crate::record::{Record, Records, Salvage};

impl Bench<'_> {
    /// Two pools have a record of one address: one that nobody can need goes.
    pub(super) fn held_twice(
        &mut self,
        address: IpAddr,
        first: &PoolName,
        second: &PoolName,
    ) -> Remedy {
        let (Some(a), Some(b)) = (self.record(first, address), self.record(second, address)) else {
            return settled();
        };
        let second_goes = match (self.may_live(&a), self.may_live(&b)) {
            (true, true) if a.uid != b.uid => return delete_one(&a.pod, &b.pod),
            (first_lives, second_lives) if first_lives != second_lives => first_lives,
            (_, _) => self.ranks_first(address, first, second),
        };
        let (keeper, loser) = if second_goes {
            (first, second)
        } else {
            (second, first)
        };
        self.revoke(loser);
        let what = format!("drops the record of {address}, which IPPool {keeper} keeps");
        self.change(loser, what, |records| drop(records.remove(address)));
        Remedy::Repair(format!("leaves the record in IPPool {keeper} alone"))
    }

    /// A Pod has an address that its pool may give away.
    pub(super) fn not_recorded(
        &mut self,
        address: IpAddr,
        pool: &PoolName,
        pod: &PodName,
    ) -> Remedy {
        let Some(resident) = self.resident(address, pod) else {
            return settled();
        };
        let what = format!("records {address} for Pod {pod}");
        self.change(pool, what.clone(), |records| {
            if records.get(address).is_none() {
                records.insert(address, resident.record(address));
            }
        });
        Remedy::Repair(what)
    }

    /// A Pod has an address that is recorded for another one: if that is gone, it is this one's.
    pub(super) fn held_for_another(
        &mut self,
        address: IpAddr,
        pool: &PoolName,
        pod: &PodName,
    ) -> Remedy {
        let recorded = self.record(pool, address);
        let (Some(recorded), Some(resident)) = (recorded, self.resident(address, pod)) else {
            return settled();
        };
        if self.may_live(&recorded) {
            return delete_one(pod, &recorded.pod);
        }
        let what = format!("records {address} for Pod {pod}, not for {}", recorded.pod);
        self.change(pool, what.clone(), |records| {
            records.insert(address, resident.record(address));
        });
        Remedy::Repair(what)
    }

    /// The records of a pool that can't be read: what of the text can be, and what Pods and endpoints
    /// say they have of it.
    pub(super) fn restore(&mut self, pool: &Pool, salvage: &Salvage) -> Remedy {
        let Some(residents) = &self.world.residents else {
            return Remedy::Person("look at the Pods as well".to_owned());
        };
        if let Some(silent) = residents.iter().find(|r| r.life == Life::Silent) {
            return Remedy::Person(format!(
                "run this again once Pod {} runs or is gone: it may have an address and has not \
                 told it",
                silent.pod
            ));
        }
        if salvage.cut {
            return Remedy::Person(format!(
                "end the text after its last whole record (`kubectl edit --subresource=status \
                 spiderippool {}`): what it recorded behind that is lost, so make sure first that no \
                 node runs a Pod of this pool that the cluster no longer has",
                pool.name
            ));
        }
        let restored = self.restored(pool, salvage, residents);
        let records = match restored {
            Ok(records) => records,
            Err(remedy) => return remedy,
        };
        let what = format!(
            "records {} addresses by what is left of the text, Pods and SpiderEndpoints",
            records.count()
        );
        let changes = self.changes.entry(pool.name.clone()).or_default();
        changes.push(what.clone());
        self.revoke(&pool.name);
        self.records.insert(pool.name.clone(), records);
        Remedy::Repair(what)
    }

    fn restored(
        &self,
        pool: &Pool,
        salvage: &Salvage,
        residents: &[Resident],
    ) -> Result<Records, Remedy> {
        let mut records = salvage.records.clone();
        let own = pool.total().union(&self.entry(pool));
        let own = own.union(&salvage.addresses());
        let elsewhere = self.recorded_by_others(&pool.name);
        // Whoever runs comes first, whom only an endpoint remembers last.
        let mut all: Vec<&Resident> = residents.iter().collect();
        all.sort_by_key(|r| match r.life {
            Life::Running => 0,
            Life::Silent | Life::Leaving => 1,
            Life::Gone => 2,
        });
        for resident in all {
            let mine = resident.addresses.keys().filter(|a| own.contains(**a));
            for address in mine.filter(|a| !elsewhere.contains(**a)) {
                let is_new = match records.get(*address) {
                    None => true,
                    Some(record) if record.is_held_by(&resident.uid) => false,
                    Some(record) if self.may_live(record) => {
                        if resident.life == Life::Running {
                            return Err(delete_one(&record.pod, &resident.pod));
                        }
                        false
                    }
                    Some(_) => resident.life != Life::Gone,
                };
                if is_new {
                    records.insert(*address, resident.record(*address));
                }
            }
        }
        let lost = salvage.unknown.iter().find(|a| records.get(*a).is_none());
        lost.map_or(Ok(records), |address| {
            Err(Remedy::Person(format!(
                "say for whom {address} is recorded, or take it out: `kubectl edit \
                 --subresource=status spiderippool {}`",
                pool.name
            )))
        })
    }

    fn recorded_by_others(&self, pool: &PoolName) -> AddrSet {
        let others = self.world.pools.iter().filter(|other| other.name != *pool);
        others
            .flat_map(|other| other.records.iter().map(|(address, _)| address))
            .collect()
    }

    /// What ledgers give to `pool`.
    pub(super) fn entry(&self, pool: &Pool) -> AddrSet {
        let subnets = self.world.subnets.iter().filter(|s| s.cidr == pool.cidr);
        let entries = subnets.filter_map(|s| s.ledger.as_ref()?.get(&pool.name));
        entries.fold(AddrSet::new(), |all, entry| all.union(&entry.ips))
    }

    /// A record as it will be.
    fn record(&self, pool: &PoolName, address: IpAddr) -> Option<Record> {
        self.records_of(pool)?.get(address).cloned()
    }

    /// The records of a pool as they will be.
    pub(super) fn records_of(&self, pool: &PoolName) -> Option<&Records> {
        let read = || self.pools.get(pool).map(|p| &p.records);
        self.records.get(pool).or_else(read)
    }

    /// True unless it is known that no Pod has what is recorded.
    fn may_live(&self, record: &Record) -> bool {
        self.world.residents.as_ref().is_none_or(|residents| {
            let mut living = residents.iter().filter(|r| r.life != Life::Gone);
            living.any(|r| record.is_held_by(&r.uid))
        })
    }

    /// The Pod that runs with this address.
    fn resident(&self, address: IpAddr, pod: &PodName) -> Option<Resident> {
        let residents = self.world.residents.iter().flatten();
        let mut running = residents.filter(|r| r.life == Life::Running && r.pod == *pod);
        let found = running.find(|r| r.addresses.contains_key(&address));
        found.cloned()
    }

    /// Which of two pools keeps an address: the one whose entry has it, one that is admitted, the
    /// elder, by name.
    fn ranks_first(&self, address: IpAddr, a: &PoolName, b: &PoolName) -> bool {
        let rank = |name: &PoolName| {
            let pool = self.pools.get(name).copied();
            let is_entered = pool.is_some_and(|p| self.entry(p).contains(address));
            (!is_entered, super::standing(pool))
        };
        rank(a) <= rank(b)
    }

    fn change(&mut self, pool: &PoolName, what: String, change: impl FnOnce(&mut Records)) {
        let Some(mut records) = self.records_of(pool).cloned() else {
            return;
        };
        change(&mut records);
        self.records.insert(pool.clone(), records);
        self.changes.entry(pool.clone()).or_default().push(what);
    }
}

/// Another finding has settled this one.
fn settled() -> Remedy {
    Remedy::Repair("settles it with another finding".to_owned())
}
