//! What the controller would do, and nothing done: its own index, plans and edits, over objects in
//! memory.
//!
//! Owns: the world in memory, its clock, and when it has come to rest. Never does: IO, or decide:
//! what is seen comes from [`super::index`], what is done from [`ipam::plan`], and each object is
//! written by the functions of [`super::edit`] that the real writes use. So what comes out is what
//! applying would do, had nobody interfered. Invariant: the same objects give the same outcome.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipam::kind::{Kinds, OtherKind};
use ipam::name::{PoolName, Uid};
use ipam::plan::{
    self, Condition, Holder, LedgerEdit, Needs, NewPool, Plan, PoolWrite, Reason, Step,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::DeserializeGuard;

use super::edit;
use super::index::{Dirty, Features, Index, Observed};
use super::report;
use super::workload::Seen;
use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, convert, time};
use crate::kube_io::serial::is_gone;

/// Passes a CIDR may take to come to rest: a shrink takes four, and what is under way in a cluster
/// a few more.
const PASSES_MAX: usize = 64;

/// The world, and what was done to it.
pub struct Rehearsal {
    index: Index,
    kinds: Kinds,
    subnets: BTreeMap<String, Arc<SpiderSubnet>>,
    pools: BTreeMap<PoolName, Arc<SpiderIPPool>>,
    now: DateTime<Utc>,
    /// When each CIDR is looked at next.
    due: BTreeMap<IpNet, DateTime<Utc>>,
    /// Versions and uids given out.
    written: u64,
    deeds: Vec<(PoolName, Reason)>,
    said: BTreeMap<IpNet, Said>,
}

/// What the last pass over a CIDR says.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// The plan, whose steps are none where the CIDR has come to rest.
    pub plan: Plan,
    /// Whether the subnet overlaps an elder one.
    pub overlap: Option<Condition>,
}

/// The world does not come to rest; that is a defect of the planner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the plan of {cidr} does not come to rest after {PASSES_MAX} passes: please report it with the objects"
)]
pub struct Restless {
    /// Where.
    pub cidr: IpNet,
}

impl Rehearsal {
    /// An empty world at `now`.
    pub fn new(features: Features, kinds: &Kinds, now: DateTime<Utc>) -> Self {
        Self {
            index: Index::of_kinds(features, kinds.clone()),
            kinds: kinds.clone(),
            subnets: BTreeMap::new(),
            pools: BTreeMap::new(),
            now,
            due: BTreeMap::new(),
            written: 0,
            deeds: vec![],
            said: BTreeMap::new(),
        }
    }

    /// Puts a subnet there, or in its former self's place.
    pub fn subnet(&mut self, object: SpiderSubnet) {
        let (name, object) = (object.name_any(), Arc::new(object));
        let dirty = self.index.subnet(&name, Some(&object));
        self.subnets.insert(name, object);
        self.wake(dirty);
    }

    /// Puts a pool there, or in its former self's place.
    pub fn pool(&mut self, object: SpiderIPPool) {
        let (name, object) = (PoolName::new(object.name_any()), Arc::new(object));
        let dirty = self.index.pool(name.as_str(), Some(&object));
        self.pools.insert(name, object);
        self.wake(dirty);
    }

    /// Puts a reservation there. What can't be read of it reserves nothing.
    pub fn reserved(&mut self, object: SpiderReservedIP) {
        let (name, object) = (object.name_any(), Arc::new(object));
        let (dirty, _) = self.index.reserved(&name, Some(&object));
        self.wake(dirty);
    }

    /// Puts a workload there, or in its former self's place.
    pub fn workload(&mut self, seen: Seen) {
        let uid = seen.id.uid.clone();
        let dirty = self.index.workload(&uid, Some(seen));
        self.wake(dirty);
    }

    /// All workloads are there, but those of the kinds `unlisted`.
    pub fn listed_but(&mut self, unlisted: &[OtherKind]) {
        let listed = self.kinds.others().iter();
        let listed: Vec<Dirty> = listed
            .filter(|kind| !unlisted.contains(kind))
            .map(|kind| self.index.listed(kind))
            .collect();
        for dirty in listed {
            self.wake(dirty);
        }
    }

    /// A Pod as it is now; `None` where it is gone.
    pub fn pod(&mut self, uid: &Uid, pod: Option<&Arc<Pod>>) {
        let dirty = self.index.pod(uid, pod);
        self.wake(dirty);
    }

    /// The time there.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// The subnets as they are.
    pub fn subnets(&self) -> impl Iterator<Item = &SpiderSubnet> {
        self.subnets.values().map(AsRef::as_ref)
    }

    /// The pools as they are.
    pub fn pools(&self) -> impl Iterator<Item = &SpiderIPPool> {
        self.pools.values().map(AsRef::as_ref)
    }

    /// The writes of pools so far, in order, and why.
    pub fn deeds(&self) -> &[(PoolName, Reason)] {
        &self.deeds
    }

    /// What the last pass over each CIDR says.
    pub fn said(&self) -> impl Iterator<Item = &Said> {
        self.said.values()
    }

    /// Workloads that must be told something before they can be served: reason and text.
    pub fn complaints(&self) -> Vec<(Seen, &'static str, String)> {
        self.index.complaints()
    }

    /// Has the controller look and write until nothing is left to do; what has to wait for its time
    /// gets it.
    ///
    /// Errors: [`Restless`]. Cost: that of a few passes a CIDR.
    pub fn settle(&mut self) -> Result<(), Restless> {
        self.wake(self.index.all());
        let mut passes: BTreeMap<IpNet, usize> = BTreeMap::new();
        while let Some((cidr, at)) = self.next_due() {
            let count = passes.entry(cidr).or_default();
            *count += 1;
            if *count > PASSES_MAX {
                return Err(Restless { cidr });
            }
            self.due.remove(&cidr);
            self.now = self.now.max(at);
            self.pass(cidr);
        }
        Ok(())
    }

    fn next_due(&self) -> Option<(IpNet, DateTime<Utc>)> {
        let due = self.due.iter().map(|(cidr, at)| (*cidr, *at));
        due.min_by_key(|(cidr, at)| (*at, *cidr))
    }

    fn wake(&mut self, dirty: Dirty) {
        for cidr in dirty {
            self.due.insert(cidr, self.now);
        }
    }

    fn pass(&mut self, cidr: IpNet) {
        let mut seen = self.index.observe(&cidr);
        let mut plan = plan::plan(&seen.snapshot, self.now);
        if plan.needs_live {
            let pools = self
                .pools
                .values()
                .map(|pool| DeserializeGuard(Ok((**pool).clone())));
            seen = self.index.observe_live(&cidr, pools.collect());
            plan = plan::plan(&seen.snapshot, self.now);
        }
        self.index.remember_surplus(&cidr, &plan.surplus, self.now);
        for step in &plan.steps {
            self.carry_out(step, &cidr, &seen);
        }
        let gone = seen
            .idle
            .iter()
            .filter(|s| s.metadata.deletion_timestamp.is_some());
        for subnet in gone.filter_map(|s| edit::without_finalizer(s)) {
            self.write_subnet(subnet);
        }
        if let Some(at) = plan.wake_at {
            let due = self.due.entry(cidr).or_insert(at);
            *due = at.min(*due);
        }
        let overlap = report::subnet_conflict(&seen).filter(|c| c.holds);
        self.said.insert(cidr, Said { plan, overlap });
    }

    fn carry_out(&mut self, step: &Step, cidr: &IpNet, seen: &Observed) {
        match step {
            Step::Record {
                pool,
                fence: _,
                found,
                because,
            } => self.record(pool, found, because),
            Step::Create(new) => self.create(new),
            Step::Before(write) | Step::After(write) => self.write(write, seen),
            // Nothing fails here, so everything above has landed.
            Step::Barrier => {}
            Step::Ledger { fence: _, edits } => self.ledger(edits, cidr, seen),
            Step::ProtectSubnet {
                fence: _,
                finalizer,
            } => {
                if let Some(raw) = self.subnet_of(seen) {
                    self.write_subnet(edit::protected_subnet(&raw, cidr, *finalizer));
                }
            }
            Step::Delete {
                pool,
                fence: _,
                because,
            } => self.delete(pool, because),
        }
    }

    fn create(&mut self, new: &NewPool) {
        let mut pool = edit::new_pool(new);
        let number = self.next_number();
        pool.metadata.uid = Some(format!("new-{number}"));
        pool.metadata.creation_timestamp = Some(time::to_wire(self.now));
        let workload = new.workload.clone();
        self.deeds
            .push((new.name.clone(), Reason::WorkloadWantsPool { workload }));
        self.write_pool(pool);
    }

    fn write(&mut self, write: &PoolWrite, seen: &Observed) {
        let Some(raw) = self.pools.get(&write.pool).cloned() else {
            return;
        };
        if let Ok(parsed) = convert::pool(&raw) {
            let subnet = self.subnet_of(seen);
            let pool = edit::edited_pool(&raw, &parsed, &write.edit, subnet.as_deref());
            self.deeds.push((write.pool.clone(), write.because.clone()));
            self.write_pool(pool);
        }
    }

    fn record(&mut self, name: &PoolName, found: &BTreeMap<IpAddr, Holder>, because: &Reason) {
        let Some(raw) = self.pools.get(name).cloned() else {
            return;
        };
        if let Ok(parsed) = convert::pool(&raw) {
            self.deeds.push((name.clone(), because.clone()));
            self.write_pool(edit::with_records(&raw, &parsed, found));
        }
    }

    fn ledger(&mut self, edits: &[LedgerEdit], cidr: &IpNet, seen: &Observed) {
        let Some(raw) = self.subnet_of(seen) else {
            return;
        };
        let is_here = |name: &PoolName| {
            let spec = self.pools.get(name).map(|pool| &pool.spec);
            spec.is_some_and(|s| convert::cidr(&s.subnet, s.ip_version).is_ok_and(|c| c == *cidr))
        };
        let due = edits.iter().filter(|edit| match edit.needs {
            Needs::Nothing | Needs::Written => true,
            Needs::Absent => !is_here(&edit.pool),
        });
        if let Ok(parsed) = convert::subnet(&raw) {
            let subnet = edit::with_ledger(&raw, &parsed, due);
            self.write_subnet(subnet);
        }
    }

    fn delete(&mut self, name: &PoolName, because: &Reason) {
        let Some(pool) = self.pools.get(name) else {
            return;
        };
        let mut pool = (**pool).clone();
        let now = time::to_wire(self.now);
        pool.metadata.deletion_timestamp.get_or_insert(now);
        self.deeds.push((name.clone(), because.clone()));
        self.write_pool(pool);
    }

    /// The subnet of a pass as this pass has left it.
    fn subnet_of(&self, seen: &Observed) -> Option<Arc<SpiderSubnet>> {
        self.subnets.get(&seen.subnet.as_ref()?.name_any()).cloned()
    }

    fn next_number(&mut self) -> u64 {
        self.written += 1;
        self.written
    }

    fn write_pool(&mut self, mut pool: SpiderIPPool) {
        let number = self.next_number();
        pool.metadata.resource_version = Some(format!("new-{number}"));
        if !is_gone(&pool) {
            return self.pool(pool);
        }
        let name = PoolName::new(pool.name_any());
        let dirty = self.index.pool(name.as_str(), None);
        self.pools.remove(&name);
        self.wake(dirty);
    }

    fn write_subnet(&mut self, mut subnet: SpiderSubnet) {
        let number = self.next_number();
        subnet.metadata.resource_version = Some(format!("new-{number}"));
        if !is_gone(&subnet) {
            return self.subnet(subnet);
        }
        let name = subnet.name_any();
        let dirty = self.index.subnet(&name, None);
        self.subnets.remove(&name);
        self.wake(dirty);
    }
}

#[cfg(test)]
mod tests {
    use ipam::annotation::SizeRule;
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;
    use crate::controller::index::Switch;
    use crate::controller::workload;

    fn read<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
        serde_json::from_value(json).unwrap()
    }

    fn web(replicas: u32) -> Seen {
        let deployment: Deployment = read(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "w"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"annotations": {"ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#}},
                "spec": {"containers": []}}}
        }));
        workload::seen(&deployment, SizeRule::Flexible(1))
    }

    fn stage() -> Rehearsal {
        let features = Features {
            ipv4: true,
            ipv6: true,
            subnets: Switch::On,
            auto_pools: Switch::On,
        };
        let mut stage = Rehearsal::new(features, &Kinds::default(), DateTime::UNIX_EPOCH);
        stage.subnet(read(json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
            "metadata": {"name": "net4", "uid": "s", "resourceVersion": "1"},
            "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.19"]}
        })));
        stage
    }

    fn ips(stage: &Rehearsal) -> Vec<String> {
        stage
            .pools()
            .flat_map(|p| p.spec.ips.clone().unwrap_or_default())
            .collect()
    }

    #[test]
    fn a_world_comes_to_rest_grown_shrunk_and_retired_as_the_controller_leaves_it() {
        let mut stage = stage();
        stage.workload(web(2));
        stage.settle().unwrap();
        assert_eq!(ips(&stage), ["10.6.0.10-10.6.0.12"]);
        let pool = stage.pools().next().unwrap().clone();
        assert!(convert::pool(&pool).unwrap().is_admitted());
        stage.workload(web(5));
        stage.settle().unwrap();
        assert_eq!(ips(&stage), ["10.6.0.10-10.6.0.15"]);
        // A surplus waits for its time, and gets it.
        stage.workload(web(1));
        stage.settle().unwrap();
        assert_eq!(ips(&stage), ["10.6.0.10-10.6.0.11"]);
        assert!(stage.said().all(|said| said.plan.steps.is_empty()));
        let mut idle = web(1);
        idle.wish = None;
        stage.workload(idle);
        stage.settle().unwrap();
        assert_eq!(stage.pools().count(), 0);
        let subnet = convert::subnet(stage.subnets().next().unwrap()).unwrap();
        assert_eq!(
            subnet.ledger.map(|l| l.count().get()).unwrap_or_default(),
            0
        );
    }

    #[test]
    fn what_does_not_fit_is_said_by_the_plan_itself() {
        let mut stage = stage();
        stage.workload(web(20));
        stage.settle().unwrap();
        let short: Vec<_> = stage.said().flat_map(|s| &s.plan.shortfalls).collect();
        assert_eq!(short.len(), 1);
        assert!(
            short[0].message.contains("wants 21 addresses"),
            "{}",
            short[0].message
        );
        assert_eq!(ips(&stage), ["10.6.0.10-10.6.0.19"]);
    }
}
