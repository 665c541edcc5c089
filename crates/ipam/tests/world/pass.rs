//! A plan being carried out, one write at a time, by the rules that `ipam::plan` states.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipam::addr::AddrSet;
use ipam::name::PoolName;
use ipam::plan::{
    self, Fence, Holder, LedgerEdit, Mark, Needs, NewPool, Plan, PoolEdit, PoolWrite, Snapshot,
    Step, SubnetSeen, only_allocations_between,
};
use ipam::pool::Pool;

use super::{Lag, World};

/// What a controller does between two looks at the world.
#[derive(Debug)]
pub struct Pass {
    who: usize,
    seen: Snapshot,
    pub plan: Plan,
    left: VecDeque<Step>,
    /// Pools as their creation returned them.
    created: BTreeMap<PoolName, Pool>,
    written: BTreeSet<PoolName>,
    refused: BTreeSet<PoolName>,
    ledger_written: bool,
    failed: bool,
}

impl Pass {
    /// Looks and plans; looks live where the plan asks for it.
    pub fn begin(
        world: &mut World,
        who: usize,
        lag: Lag,
        surplus_since: &mut BTreeMap<PoolName, DateTime<Utc>>,
    ) -> Self {
        let mut seen = world.snapshot(lag, false, surplus_since);
        let mut plan = plan::plan(&seen, world.now);
        if plan.needs_live {
            seen = world.snapshot(lag, true, surplus_since);
            plan = plan::plan(&seen, world.now);
        }
        if plan.needs_live {
            world.fail("a plan on a live list asks for a live list");
        }
        if plan != plan::plan(&seen, world.now) {
            world.fail("two plans on one snapshot differ");
        }
        surplus_since.retain(|pool, _| plan.surplus.contains(pool));
        for pool in &plan.surplus {
            surplus_since.entry(pool.clone()).or_insert(world.now);
        }
        world.log(format!("controller {who} plans {} steps", plan.steps.len()));
        Self {
            who,
            seen,
            left: plan.steps.clone().into(),
            plan,
            created: BTreeMap::new(),
            written: BTreeSet::new(),
            refused: BTreeSet::new(),
            ledger_written: false,
            failed: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// True where every step so far landed.
    pub fn all_landed(&self) -> bool {
        !self.failed
    }

    /// Takes the next step, any of those of its stage; what it was, and whether it landed.
    pub fn step(&mut self, world: &mut World, pick: usize) -> Option<(Step, bool)> {
        let first = std::mem::discriminant(self.left.front()?);
        let stage = self
            .left
            .iter()
            .take_while(|s| std::mem::discriminant(*s) == first)
            .count();
        let step = self.left.remove(pick % stage)?;
        let line = describe(&step);
        let landed = match &step {
            Step::ProtectSubnet { fence, finalizer } => Self::protect(world, fence, *finalizer),
            Step::Record {
                pool, fence, found, ..
            } => Self::record(world, pool, fence, found),
            Step::Create(new) => self.create(world, new),
            Step::Before(write) => self.before(world, write),
            Step::Barrier => !self.failed,
            Step::Ledger { fence, edits } => self.ledger(world, fence, edits),
            Step::After(write) => self.after(world, write),
            Step::Delete { pool, fence, .. } => delete(world, pool, fence),
        };
        self.failed |= !landed;
        if !landed && step == Step::Barrier {
            self.left.clear();
        }
        let outcome = if landed { "" } else { ": too late" };
        world.log(format!("controller {} {line}{outcome}", self.who));
        Some((step, landed))
    }

    fn protect(world: &mut World, fence: &Fence, finalizer: bool) -> bool {
        let fits = world
            .subnet
            .as_ref()
            .is_some_and(|s| s.uid == fence.uid && s.version == fence.version);
        if fits {
            world.edit_subnet(|subnet| subnet.finalizer = finalizer);
        }
        fits
    }

    fn record(
        world: &mut World,
        pool: &PoolName,
        fence: &Fence,
        found: &BTreeMap<IpAddr, Holder>,
    ) -> bool {
        let live = world.pools.get(pool);
        let fits = live.is_some_and(|p| p.uid == fence.uid && p.version == fence.version)
            && !world.broken.contains(pool);
        if fits {
            world.edit_pool(pool, |pool| {
                for (address, holder) in found {
                    assert!(pool.records.insert(*address, holder.record()).is_none());
                }
            });
        }
        fits
    }

    fn create(&mut self, world: &mut World, new: &NewPool) -> bool {
        let pool = Pool {
            gateway: new.gateway,
            routes: new.routes.clone(),
            owner: Some(new.owner.clone()),
            rule: Some(new.rule),
            finalizer: true,
            adopted_by: Some(new.subnet.clone()),
            restrictions: ipam::pool::Restrictions {
                pod_affinity: Some(Ok(new.pod_affinity.clone())),
                ..ipam::pool::Restrictions::default()
            },
            ..world.new_pool(&new.name, &AddrSet::new())
        };
        if !world.create_pool(pool) {
            self.refused.insert(new.name.clone());
            return false;
        }
        self.created
            .insert(new.name.clone(), (*world.pools[&new.name]).clone());
        if world.subnet.as_ref().is_none_or(|s| s.uid != new.subnet.1) {
            // The garbage collector finds an owner that is not there.
            world.delete_pool(&new.name);
        }
        true
    }

    fn before(&mut self, world: &mut World, write: &PoolWrite) -> bool {
        let landed = write.fence.as_ref().is_some_and(|fence| {
            !world.broken.contains(&write.pool)
                && world
                    .pools
                    .get(&write.pool)
                    .is_some_and(|p| p.uid == fence.uid && p.version == fence.version)
        });
        if landed {
            Self::put(world, write);
            self.written.insert(write.pool.clone());
        } else {
            self.refused.insert(write.pool.clone());
        }
        landed
    }

    fn after(&mut self, world: &mut World, write: &PoolWrite) -> bool {
        let read = self
            .seen
            .pools
            .get(&write.pool)
            .map(|pool| &**pool)
            .or_else(|| self.created.get(&write.pool));
        let live = world.pools.get(&write.pool);
        let fits = match (read, live) {
            (Some(read), Some(live)) => {
                let same = write.fence.as_ref().is_none_or(|f| f.uid == live.uid);
                let at_version = read.version == live.version;
                same && (at_version || self.ledger_written && only_allocations_between(read, live))
            }
            _ => false,
        };
        let landed =
            fits && !self.refused.contains(&write.pool) && !world.broken.contains(&write.pool);
        if landed {
            self.check_added(world, write);
            Self::put(world, write);
        }
        landed
    }

    /// An auto pool only ever gets what the subnet, as the plan saw it, may give; what a Pod has, only
    /// if the pool's entry has it, and before the pool gives anything.
    fn check_added(&self, world: &World, write: &PoolWrite) {
        let (Some(ips), SubnetSeen::Readable(subnet)) = (&write.edit.ips, &self.seen.subnet) else {
            return;
        };
        let added = ips.difference(&world.pools[&write.pool].ips);
        let offered = subnet.free(&self.seen.reserved, &AddrSet::new());
        let entry = subnet.ledger.as_ref().and_then(|l| l.get(&write.pool));
        let again = entry
            .filter(|_| !write.edit.admit)
            .map(|entry| entry.ips.clone());
        let not = self.seen.on_pods.difference(&again.unwrap_or_default());
        if !added.is_subset(&offered) || !added.is_disjoint(&not) {
            world.fail(&format!(
                "IPPool {} got {added}, which was not to give",
                write.pool
            ));
        }
    }

    fn put(world: &mut World, write: &PoolWrite) {
        world.edit_pool(&write.pool, |pool| apply(pool, &write.edit));
    }

    fn ledger(&mut self, world: &mut World, fence: &Fence, edits: &[LedgerEdit]) -> bool {
        let due: Vec<&LedgerEdit> = edits
            .iter()
            .filter(|edit| match edit.needs {
                Needs::Nothing => !self.refused.contains(&edit.pool),
                Needs::Written => self.written.contains(&edit.pool),
                Needs::Absent => !world.pools.contains_key(&edit.pool),
            })
            .collect();
        let left_out = edits
            .iter()
            .filter(|e| !due.contains(e))
            .map(|e| e.pool.clone());
        self.refused.extend(left_out.collect::<Vec<_>>());
        let Some(subnet) = world
            .subnet
            .clone()
            .filter(|s| s.uid == fence.uid && s.version == fence.version)
        else {
            self.refused
                .extend(edits.iter().map(|edit| edit.pool.clone()));
            return false;
        };
        if due.is_empty() {
            return false;
        }
        let mut ledger = subnet.ledger.clone().unwrap_or_default();
        ledger.epoch += 1;
        for edit in &due {
            let old = ledger
                .get(&edit.pool)
                .map(|e| e.ips.clone())
                .unwrap_or_default();
            let freed = old.difference(&edit.entry.ips);
            check_freed(world, &edit.pool, &freed);
            ledger.set(&edit.pool, edit.entry.clone());
        }
        // An empty ledger has no text, and no text says nothing.
        let ledger = Some(ledger).filter(|l| l.to_text().is_some());
        world.edit_subnet(|subnet| subnet.ledger = ledger);
        self.ledger_written = true;
        due.len() == edits.len()
    }
}

/// S6: the ledger never frees what is still in the pool.
fn check_freed(world: &World, pool: &PoolName, freed: &AddrSet) {
    if world.lenient {
        return;
    }
    if !freed.is_disjoint(&world.orphans()) {
        world.fail(&format!(
            "the ledger frees {freed}, some of which Pods still have"
        ));
    }
    let Some(object) = world.pools.get(pool) else {
        return;
    };
    let in_use = object.records.addresses().intersection(freed);
    let serving = object.total().intersection(freed);
    if !in_use.is_empty() || (object.is_admitted() && !serving.is_empty()) {
        world.fail(&format!(
            "the ledger frees {freed} of IPPool {pool}, which has them"
        ));
    }
}

fn delete(world: &mut World, pool: &PoolName, fence: &Fence) -> bool {
    let fits = world
        .pools
        .get(pool)
        .is_some_and(|p| p.uid == fence.uid && p.version == fence.version);
    if fits {
        if !world.pools[pool].records.is_empty() {
            world.fail(&format!("IPPool {pool} is deleted with Pods recorded"));
        }
        world.delete_pool(pool);
    }
    fits
}

/// The pool with the edit, as the controller writes it.
pub fn apply(pool: &mut Pool, edit: &PoolEdit) {
    match edit.mark(pool) {
        Mark::Keep => {}
        Mark::Set(hash) => pool.admitted = Some(hash),
        Mark::Remove => pool.admitted = None,
    }
    let PoolEdit {
        ips,
        admit: _,
        raise_epoch,
        adopt,
        owner,
        rule,
        finalizer,
    } = edit.clone();
    if let Some(ips) = ips {
        pool.ips = ips;
    }
    if raise_epoch {
        pool.epoch += 1;
    }
    pool.adopted_by = adopt.or(pool.adopted_by.take());
    if let Some((owner, affinity)) = owner {
        pool.owner = Some(owner);
        pool.restrictions.pod_affinity = Some(Ok(affinity));
    }
    pool.rule = rule.or(pool.rule);
    pool.finalizer = finalizer.unwrap_or(pool.finalizer);
}

/// The step in one line.
pub fn describe(step: &Step) -> String {
    let write = |write: &PoolWrite| {
        let ips = write
            .edit
            .ips
            .as_ref()
            .map(|ips| format!(" to {ips}"))
            .unwrap_or_default();
        let version = write.fence.as_ref().map_or("new", |f| f.version.as_str());
        let (admit, epoch) = (write.edit.admit, write.edit.raise_epoch);
        format!(
            "{} v{version}{ips} admit {admit} epoch {epoch} ({})",
            write.pool, write.because
        )
    };
    match step {
        Step::ProtectSubnet { finalizer, .. } => format!("finalizer of the subnet: {finalizer}"),
        Step::Record {
            pool, fence, found, ..
        } => format!("record v{} {pool} {found:?}", fence.version),
        Step::Create(new) => format!("create {}", new.name),
        Step::Before(w) => format!("before {}", write(w)),
        Step::Barrier => "barrier".to_owned(),
        Step::Ledger { fence, edits } => {
            let edits = edits
                .iter()
                .map(|e| format!("{} {} {:?}", e.pool, e.entry.ips, e.needs));
            format!(
                "ledger v{}: {}",
                fence.version,
                edits.collect::<Vec<_>>().join(", ")
            )
        }
        Step::After(w) => format!("after {}", write(w)),
        Step::Delete { pool, fence, .. } => format!("delete {pool} v{}", fence.version),
    }
}

/// Lets one controller work undisturbed until it has nothing to do; the passes it took.
pub fn settle(world: &mut World) -> usize {
    let mut surplus = BTreeMap::new();
    for passes in 0..MOST_PASSES {
        let mut pass = Pass::begin(world, 9, Lag::default(), &mut surplus);
        if pass.is_done() {
            match pass.plan.wake_at {
                Some(at) if at > world.now => world.now = at,
                Some(_) => world.fail("a plan wants to be woken at once"),
                None => return passes,
            }
        }
        while let Some((step, landed)) = pass.step(world, 0) {
            if !landed {
                world.fail(&format!("a step fails undisturbed: {}", describe(&step)));
            }
        }
    }
    world.fail("the controller never comes to rest")
}

const MOST_PASSES: usize = 16;
