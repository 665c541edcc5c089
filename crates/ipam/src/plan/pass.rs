//! One pass over a subnet: the working state that the rules of sizes, admission and retirement
//! share, and the order in which their steps come out.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::carve::Carve;
use super::standing::{self, Standings, beside};
use super::{
    Condition, ConditionKind, Fence, LedgerEdit, Needs, NewPool, Plan, PoolEdit, PoolWrite, Reason,
    Shortfall, Snapshot, Step, admit, found, rebuild, resize, retire, say,
};
use crate::addr::{AddrCount, AddrSet};
use crate::name::{Nic, PoolName, Uid};
use crate::pool::{Owner, Pool};
use crate::subnet::{Entry, LEDGER_BYTES_MAX, Subnet, SubnetLedger};

/// Plans for a readable subnet.
pub(super) fn run(snapshot: &Snapshot, subnet: &Subnet, now: DateTime<Utc>) -> Plan {
    let none = SubnetLedger::default();
    let ledger = subnet.ledger.as_ref().unwrap_or(&none);
    let standings = standing::judge(&snapshot.pools, ledger, &snapshot.elsewhere);
    if let Some(plan) = rebuild::first_of_all(snapshot, subnet, ledger, &standings) {
        return plan;
    }
    let found = found::unrecorded(snapshot, &standings);
    let withheld: BTreeSet<&PoolName> = found.iter().map(|f| &f.pool.name).collect();
    if let Some(plan) = found::plan(snapshot, found) {
        return plan;
    }
    let mut pass = Pass::new(snapshot, subnet, now, ledger, &standings);
    for pool in &withheld {
        admit::wait(&mut pass, pool);
    }
    let matched = resize::match_pools(snapshot, subnet, &standings);
    let serving: BTreeSet<&PoolName> = matched
        .iter()
        .filter_map(|(_, pool)| pool.map(|p| &p.name))
        .collect();
    let idle = beside(snapshot, &standings).filter(|(pool, _)| !serving.contains(&pool.name));
    for (pool, standing) in idle.filter(|(pool, _)| !withheld.contains(&pool.name)) {
        match pool.owner {
            None => admit::pool_made_by_hand(&mut pass, pool, standing),
            Some(_) => retire::without_demand(&mut pass, pool, standing),
        }
    }
    for (demand, pool) in matched {
        match pool.and_then(|pool| Some((pool, standings.get(&pool.name)?))) {
            Some((pool, _)) if withheld.contains(&pool.name) => {}
            Some((pool, standing)) => resize::serve(&mut pass, pool, standing, demand),
            None => resize::create(&mut pass, demand),
        }
    }
    retire::vanished(&mut pass);
    pass.finish()
}

/// The working state of a pass.
pub(super) struct Pass<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) subnet: &'s Subnet,
    pub(super) now: DateTime<Utc>,
    /// The ledger as read.
    pub(super) ledger: &'s SubnetLedger,
    /// What the subnet gives to auto pools at all: neither reserved nor its gateway.
    pub(super) offered: AddrSet,
    in_use: OnceCell<AddrSet>,
    /// What of that no pool has, may have, or gets in this pass.
    free: Carve,
    /// Which workloads ask for addresses, and on which interface.
    pub(super) asking: BTreeSet<(&'s Uid, &'s Nic)>,
    /// Whose pool was deleted while nobody held an address of it.
    pub(super) leaving: BTreeSet<(&'s Uid, &'s Nic)>,
    /// Names of pools that this pass makes.
    pub(super) born: BTreeSet<PoolName>,
    creates: Vec<Step>,
    before: Vec<PoolWrite>,
    edits: BTreeMap<PoolName, LedgerEdit>,
    after: Vec<PoolWrite>,
    deletes: Vec<Step>,
    pub(super) said: Plan,
}

impl<'s> Pass<'s> {
    fn new(
        snapshot: &'s Snapshot,
        subnet: &'s Subnet,
        now: DateTime<Utc>,
        ledger: &'s SubnetLedger,
        standings: &Standings<'_>,
    ) -> Self {
        let unknown = standings.values().filter(|s| !s.is_entered());
        let entries = ledger.iter().map(|(_, entry)| &entry.ips);
        let others = [&snapshot.elsewhere, &snapshot.on_pods];
        let taken: AddrSet = entries
            .chain(unknown.map(|s| &*s.claimed))
            .chain(others)
            .flat_map(|set| set.ranges().iter().copied())
            .collect();
        let offered = subnet.free(&snapshot.reserved, &AddrSet::new());
        Self {
            snapshot,
            subnet,
            now,
            ledger,
            free: Carve::new(&offered.difference(&taken)),
            offered,
            in_use: OnceCell::new(),
            leaving: snapshot
                .pools
                .values()
                .filter(|pool| retire::goes_at_once(pool))
                .filter_map(|pool| pool.owner.as_ref().map(|o| (&o.uid, &o.nic)))
                .collect(),
            asking: snapshot
                .demands
                .iter()
                .map(|d| (&d.workload.uid, &d.nic))
                .collect(),
            born: BTreeSet::new(),
            creates: vec![],
            before: vec![],
            edits: BTreeMap::new(),
            after: vec![],
            deletes: vec![],
            said: Plan::default(),
        }
    }

    /// The entry of `pool` in the ledger as read; empty where it has none.
    pub(super) fn entry(&self, pool: &PoolName) -> &'s AddrSet {
        standing::entry_of(self.ledger, pool)
    }

    /// What some Pod has, as a pool's record or the Pod itself says; gathered when first asked for.
    pub(super) fn in_use(&self) -> &AddrSet {
        self.in_use.get_or_init(|| {
            let pools = self.snapshot.pools.values();
            let recorded = pools.flat_map(|pool| pool.records.iter().map(|(a, _)| a));
            recorded.collect::<AddrSet>().union(&self.snapshot.on_pods)
        })
    }

    /// Takes up to `n` addresses that nobody has, lowest first, none of them in `avoid`.
    pub(super) fn carve(&mut self, n: AddrCount, avoid: &AddrSet) -> AddrSet {
        self.free.lowest(n, avoid)
    }

    pub(super) fn create(&mut self, pool: NewPool) {
        self.born.insert(pool.name.clone());
        self.creates.push(Step::Create(Box::new(pool)));
    }

    pub(super) fn delete(&mut self, pool: &Pool, because: Reason) {
        let (pool, fence) = (pool.name.clone(), fence(pool));
        self.deletes.push(Step::Delete {
            pool,
            fence,
            because,
        });
    }

    pub(super) fn before(&mut self, pool: &Pool, edit: PoolEdit, because: Reason) {
        let (pool, fence) = (pool.name.clone(), Some(fence(pool)));
        self.before.push(PoolWrite {
            pool,
            fence,
            edit,
            because,
        });
    }

    pub(super) fn after(
        &mut self,
        pool: &PoolName,
        fence: Option<Fence>,
        edit: PoolEdit,
        because: Reason,
    ) {
        let pool = pool.clone();
        self.after.push(PoolWrite {
            pool,
            fence,
            edit,
            because,
        });
    }

    pub(super) fn edit(
        &mut self,
        pool: &PoolName,
        ips: AddrSet,
        application: Option<String>,
        needs: Needs,
    ) {
        let entry = Entry { ips, application };
        self.edits.insert(
            pool.clone(),
            LedgerEdit {
                pool: pool.clone(),
                entry,
                needs,
            },
        );
    }

    /// Leaves a pool with `keep`: `edit` takes the rest away from it and fences it, and what the
    /// ledger shows beyond `keep` returns to the subnet behind that.
    ///
    /// The pool stays admitted where it was and where the ledger shows all that it has left.
    /// It is never newly admitted here: that needs a ledger write first.
    pub(super) fn take_back(
        &mut self,
        pool: &Pool,
        keep: &AddrSet,
        edit: PoolEdit,
        because: Reason,
    ) {
        let entry = self.entry(&pool.name);
        let left = edit
            .ips
            .as_ref()
            .unwrap_or(&pool.ips)
            .difference(&pool.excluded);
        let left = left.union(pool.records.addresses());
        let admit = pool.is_admitted() && left.is_subset(entry) && left.is_subset(keep);
        self.before(
            pool,
            PoolEdit {
                raise_epoch: true,
                admit,
                ..edit
            },
            because,
        );
        if keep != entry {
            let application = application(pool.owner.as_ref());
            self.edit(&pool.name, keep.clone(), application, Needs::Written);
        }
    }

    pub(super) fn say(&mut self, pool: &PoolName, conditions: Vec<Condition>) {
        self.said.pools.insert(pool.clone(), conditions);
    }

    pub(super) fn short(&mut self, shortfall: Shortfall) {
        self.said.shortfalls.push(shortfall);
    }

    pub(super) fn wake_at(&mut self, at: DateTime<Utc>) {
        self.said.wake_at = Some(self.said.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Leaves pools out that would make the ledger too long to be written; those that are in it may
    /// still grow and shrink.
    fn keep_to_length(&mut self) {
        if self.edits.is_empty() {
            return;
        }
        let mut next = self.ledger.clone();
        for edit in self.edits.values() {
            next.set(&edit.pool, edit.entry.clone());
        }
        let fits = |ledger: &SubnetLedger| {
            ledger.bytes_at_most() <= LEDGER_BYTES_MAX
                || ledger
                    .to_text()
                    .is_none_or(|text| text.len() <= LEDGER_BYTES_MAX)
        };
        if fits(&next) {
            return;
        }
        let ledger = self.ledger;
        let known = |pool: &PoolName| ledger.get(pool).is_some();
        self.edits.retain(|pool, _| known(pool));
        self.after.retain(|write| known(&write.pool));
        self.creates.clear();
        let message = format!(
            "status.controlledIPPools would pass {LEDGER_BYTES_MAX} bytes: no more IPPools are \
             admitted or made; use several SpiderSubnets"
        );
        let (kind, reason) = (ConditionKind::Ready, "LedgerFull");
        self.said.subnet = vec![Condition {
            kind,
            holds: false,
            reason,
            message,
        }];
    }

    /// True where a pool is to be admitted that claims something already: that nobody else has
    /// recorded it is known from all pools as they are now, and not from a cache that may lack one.
    ///
    /// What is carved for a pool in this pass is nobody's, as the ledger's version proves.
    fn admits_what_it_found(&self) -> bool {
        let pools = &self.snapshot.pools;
        self.after.iter().any(|write| {
            let pool = pools.get(&write.pool).filter(|_| write.edit.admit);
            pool.is_some_and(|pool| !pool.is_admitted() && !pool.claimed().is_empty())
        })
    }

    fn finish(mut self) -> Plan {
        self.keep_to_length();
        if !self.snapshot.live && self.admits_what_it_found() {
            return Plan {
                needs_live: true,
                ..Plan::default()
            };
        }
        let subnet = self.subnet;
        let mut pools = self.snapshot.pools.values();
        let empty =
            self.ledger.iter().next().is_none() && !pools.any(|pool| pool.is_adopted_by(subnet));
        let mut steps = self.creates;
        steps.extend(
            self.before
                .into_iter()
                .map(|write| Step::Before(Box::new(write))),
        );
        if !self.edits.is_empty() {
            let edits = self.edits.into_values().collect();
            steps.push(Step::Ledger {
                fence: fence_of(subnet),
                edits,
            });
        } else if subnet.terminating && subnet.finalizer && empty {
            steps.push(Step::ProtectSubnet {
                fence: fence_of(subnet),
                finalizer: false,
            });
        }
        steps.extend(
            self.after
                .into_iter()
                .map(|write| Step::After(Box::new(write))),
        );
        steps.extend(self.deletes);
        let full = std::mem::take(&mut self.said.subnet);
        self.said.subnet = say::of_subnet(subnet, &self.said.shortfalls);
        if !full.is_empty() {
            self.said.subnet.retain(|c| c.kind != ConditionKind::Ready);
            self.said.subnet.extend(full);
        }
        Plan { steps, ..self.said }
    }
}

/// The fence of the subnet as read.
pub(super) fn fence_of(subnet: &Subnet) -> Fence {
    Fence {
        uid: subnet.uid.clone(),
        version: subnet.version.clone(),
    }
}

/// The fence of `pool` as read.
pub(super) fn fence(pool: &Pool) -> Fence {
    Fence {
        uid: pool.uid.clone(),
        version: pool.version.clone(),
    }
}

/// `application` of the ledger entry of a pool with this owner.
pub(super) fn application(owner: Option<&Owner>) -> Option<String> {
    owner.map(|o| format!("{}_{}_{}_{}", o.gv, o.kind, o.namespace, o.name))
}
