//! A small API server with a subnet, its pools, workloads and Pods: what the tests of plans run in.
//!
//! Objects have uids and versions as real ones do: every write that changes something moves the
//! version, one that changes nothing does not; a spec write leaves the status alone and the other
//! way round; finalizers hold deletion up. [`Pass`] carries out a plan one write at a time, so
//! that anything may happen in between. Whatever breaks an invariant panics with the whole history.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "shared by several tests, none of which uses all of it; a test may fail by panic"
)]

pub mod events;
mod pass;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ipam::addr::AddrSet;
use ipam::affinity::Selector;
use ipam::annotation::SizeRule;
use ipam::audit::{self, audit};
use ipam::demand::PodCount;
use ipam::ledger::{Answer, Ask, Claim, PoolLedger};
use ipam::name::{Nic, NodeName, PodName, PoolName, Sandbox, SubnetName, Uid, Version, WorkloadId};
use ipam::plan::{Demand, Holder, Snapshot, SubnetSeen};
use ipam::pool::{Pool, Restrictions};
use ipam::record::{Record, Records};
use ipam::select::PodFacts;
use ipam::subnet::{Entry, Subnet, SubnetLedger};
use ipnet::IpNet;

pub use pass::{Pass, describe, settle};

/// A workload that asks for addresses of the subnet.
#[derive(Debug, Clone)]
pub struct Workload {
    pub id: WorkloadId,
    pub nic: Nic,
    pub rule: SizeRule,
    pub replicas: u32,
    pub surge: u32,
    pub reclaim: bool,
    /// Whether its annotation names the subnet.
    pub asks: bool,
}

impl Workload {
    pub fn new(name: &str, uid: &str) -> Self {
        let id = WorkloadId {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: name.into(),
            uid: Uid::from(uid),
        };
        Self {
            id,
            nic: Nic::from("eth0"),
            rule: SizeRule::Flexible(1),
            replicas: 1,
            surge: 0,
            reclaim: true,
            asks: true,
        }
    }

    pub fn selector(&self) -> Selector {
        let labels = [("app".to_owned(), self.id.name.clone())];
        Selector {
            match_labels: labels.into(),
            ..Selector::default()
        }
    }
}

/// A Pod; `workload` is `None` for one that names a pool.
#[derive(Debug, Clone)]
pub struct Pod {
    pub name: PodName,
    pub uid: Uid,
    pub workload: Option<WorkloadId>,
    pub stopping: bool,
    pub address: Option<IpAddr>,
}

/// The objects that controllers watch, as they were at some time.
#[derive(Debug, Clone, Default)]
struct Moment {
    subnet: Option<Arc<Subnet>>,
    pools: BTreeMap<PoolName, Arc<Pool>>,
    broken: BTreeSet<PoolName>,
    demands: Vec<Demand>,
    reserved: AddrSet,
}

/// How far a controller's caches lag behind, in writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lag {
    pub pools: usize,
    pub subnet: usize,
    pub workloads: usize,
}

#[derive(Debug)]
pub struct World {
    pub cidr: IpNet,
    pub now: DateTime<Utc>,
    pub subnet: Option<Arc<Subnet>>,
    pub pools: BTreeMap<PoolName, Arc<Pool>>,
    /// Pools whose text does not parse.
    pub broken: BTreeSet<PoolName>,
    pub workloads: BTreeMap<String, Workload>,
    pub pods: Vec<Pod>,
    pub reserved: AddrSet,
    pub elsewhere: AddrSet,
    pub names_elsewhere: BTreeSet<PoolName>,
    /// It begins corrupted: nothing need hold at every revision.
    pub lenient: bool,
    clock: u64,
    past: Vec<Moment>,
    log: Vec<String>,
}

impl World {
    pub fn new(cidr: &str) -> Self {
        Self {
            cidr: cidr.parse().unwrap(),
            now: DateTime::UNIX_EPOCH + TimeDelta::days(20_000),
            subnet: None,
            pools: BTreeMap::new(),
            broken: BTreeSet::new(),
            workloads: BTreeMap::new(),
            pods: vec![],
            reserved: AddrSet::new(),
            elsewhere: AddrSet::new(),
            names_elsewhere: BTreeSet::new(),
            lenient: false,
            clock: 0,
            past: vec![],
            log: vec![],
        }
    }

    /// A number never given out before.
    pub fn next(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn version(&mut self) -> Version {
        Version::new(self.next().to_string())
    }

    pub fn log(&mut self, line: impl Into<String>) {
        self.log.push(line.into());
    }

    /// Fails the test with the history.
    pub fn fail(&self, what: &str) -> ! {
        panic!("{what}\nhistory:\n  {}\n{self}", self.log.join("\n  "))
    }

    /// Ends the test where anything that must hold at every revision does not, and remembers the
    /// revision for caches that lag behind.
    pub fn revision(&mut self) {
        if self.lenient {
            self.past.push(self.moment());
            return;
        }
        let seen = audit::World {
            subnets: self.subnet.iter().map(|s| (**s).clone()).collect(),
            pools: self.pools.values().map(|p| (**p).clone()).collect(),
            ..audit::World::default()
        };
        if let Some(violation) = audit(&seen).first() {
            self.fail(&violation.to_string());
        }
        let mut held: BTreeMap<IpAddr, &PodName> = BTreeMap::new();
        for pod in &self.pods {
            let Some(address) = pod.address else { continue };
            if let Some(other) = held.insert(address, &pod.name) {
                self.fail(&format!("{address} is used by {other} and {}", pod.name));
            }
        }
        self.past.push(self.moment());
    }

    fn moment(&self) -> Moment {
        Moment {
            subnet: self.subnet.clone(),
            pools: self.pools.clone(),
            broken: self.broken.clone(),
            demands: self.demands(),
            reserved: self.reserved.clone(),
        }
    }

    fn ago(&self, writes: usize) -> Moment {
        match self.past.len().checked_sub(writes + 1) {
            Some(at) => self.past[at].clone(),
            None => self.past.first().cloned().unwrap_or_else(|| self.moment()),
        }
    }

    fn demands(&self) -> Vec<Demand> {
        let asking = self.workloads.values().filter(|w| w.asks);
        asking
            .map(|w| {
                let living = self.pods.iter().filter(|pod| {
                    !pod.stopping && pod.workload.as_ref().is_some_and(|id| id.uid == w.id.uid)
                });
                Demand {
                    workload: w.id.clone(),
                    nic: w.nic.clone(),
                    selector: w.selector(),
                    rule: w.rule,
                    pods: PodCount {
                        replicas: w.replicas,
                        surge: w.surge,
                        living: living.map(|pod| pod.uid.clone()).collect(),
                        ordinals: None,
                    },
                    reclaim: w.reclaim,
                }
            })
            .collect()
    }

    /// Addresses that Pods have, whatever any record says.
    pub fn on_pods(&self) -> AddrSet {
        self.pods.iter().filter_map(|pod| pod.address).collect()
    }

    /// Whose these are.
    fn holders(&self) -> BTreeMap<IpAddr, Holder> {
        let holding = self.pods.iter().filter_map(|pod| {
            let holder = Holder {
                pod: pod.name.clone(),
                uid: pod.uid.clone(),
                node: None,
                nic: None,
            };
            Some((pod.address?, holder))
        });
        holding.collect()
    }

    /// Addresses of Pods that no pool has a record of: somebody forced the pool away.
    pub fn orphans(&self) -> AddrSet {
        let recorded = self
            .pools
            .values()
            .flat_map(|p| p.records.addresses().ranges().to_vec());
        self.on_pods().difference(&recorded.collect())
    }

    /// What a controller sees whose caches lag behind, or that lists the pools live.
    pub fn snapshot(
        &self,
        lag: Lag,
        live: bool,
        surplus_since: &BTreeMap<PoolName, DateTime<Utc>>,
    ) -> Snapshot {
        let at = self.ago(if live { 0 } else { lag.pools });
        // With a live list of pools, that there is no subnet is looked up live, too.
        let mut subnet = self.ago(lag.subnet).subnet;
        if live && subnet.is_none() {
            subnet.clone_from(&self.subnet);
        }
        let readable = |name: &PoolName| !at.broken.contains(name);
        let others = self.ago(lag.workloads);
        Snapshot {
            subnet: subnet.map_or(SubnetSeen::None, |s| {
                SubnetSeen::Readable(Arc::new((*s).clone()))
            }),
            pools: at
                .pools
                .iter()
                .filter(|(name, _)| readable(name))
                .map(|(name, pool)| (name.clone(), Arc::clone(pool)))
                .collect(),
            unreadable: at
                .broken
                .iter()
                .filter(|name| at.pools.contains_key(*name))
                .map(|name| (name.clone(), "spec.excludeIPs has 'x', no range".to_owned()))
                .collect(),
            live,
            reserved: others.reserved,
            elsewhere: self.elsewhere.clone(),
            on_pods: self.on_pods(),
            holders: self.holders(),
            names_elsewhere: self.names_elsewhere.clone(),
            living: self.workloads.values().map(|w| w.id.uid.clone()).collect(),
            demands: others.demands.into_iter().map(Arc::new).collect(),
            surplus_since: surplus_since.clone(),
        }
    }
}

/// What people do to subnets and pools.
impl World {
    pub fn create_subnet(&mut self, name: &str, ips: &AddrSet, gateway: Option<IpAddr>) {
        let subnet = Subnet {
            name: SubnetName::from(name),
            uid: Uid::new(format!("subnet-{}", self.next())),
            version: self.version(),
            cidr: self.cidr,
            ips: ips.clone(),
            excluded: AddrSet::new(),
            gateway,
            routes: vec![],
            terminating: false,
            finalizer: false,
            ledger: None,
        };
        self.subnet = Some(Arc::new(subnet));
        self.revision();
    }

    /// Changes the subnet; a change that changes nothing is no write.
    pub fn edit_subnet(&mut self, change: impl FnOnce(&mut Subnet)) {
        let Some(old) = self.subnet.clone() else {
            return;
        };
        let mut new = (*old).clone();
        change(&mut new);
        if new != *old {
            new.version = self.version();
            let gone = new.terminating && !new.finalizer;
            self.subnet = (!gone).then(|| Arc::new(new));
            if gone {
                self.collect_garbage();
            }
            self.revision();
        }
    }

    /// What the cluster's garbage collector does when a subnet is gone: its pools are deleted.
    fn collect_garbage(&mut self) {
        let adopted = self.pools.values().filter(|p| p.adopted_by.is_some());
        for name in adopted.map(|p| p.name.clone()).collect::<Vec<_>>() {
            self.delete_pool(&name);
        }
    }

    pub fn new_pool(&mut self, name: &PoolName, ips: &AddrSet) -> Pool {
        Pool {
            name: name.clone(),
            uid: Uid::new(format!("pool-{}", self.next())),
            version: Version::default(),
            // A clock of whole seconds that few pools share.
            created: Some(
                DateTime::UNIX_EPOCH + TimeDelta::seconds((self.clock / 8).cast_signed()),
            ),
            cidr: self.cidr,
            ips: ips.clone(),
            excluded: AddrSet::new(),
            gateway: None,
            routes: vec![],
            restrictions: Restrictions::default(),
            default: false,
            disabled: false,
            terminating: false,
            finalizer: false,
            owner: None,
            adopted_by: None,
            admitted: None,
            rule: None,
            epoch: 0,
            records: Records::default(),
        }
    }

    /// Puts a new object; false where the name is taken.
    pub fn create_pool(&mut self, mut pool: Pool) -> bool {
        if self.pools.contains_key(&pool.name) {
            return false;
        }
        pool.version = self.version();
        self.pools.insert(pool.name.clone(), Arc::new(pool));
        self.revision();
        true
    }

    /// Changes a pool; a change that changes nothing is no write.
    pub fn edit_pool(&mut self, name: &PoolName, change: impl FnOnce(&mut Pool)) {
        let Some(old) = self.pools.get(name).cloned() else {
            return;
        };
        let mut new = (*old).clone();
        change(&mut new);
        if new == *old {
            return;
        }
        new.version = self.version();
        if new.terminating && !new.finalizer {
            if !new.records.is_empty() {
                self.fail(&format!("IPPool {name} went with Pods recorded"));
            }
            self.vanish(name);
        } else {
            self.pools.insert(name.clone(), Arc::new(new));
        }
        self.revision();
    }

    fn vanish(&mut self, name: &PoolName) {
        self.pools.remove(name);
        self.broken.remove(name);
    }

    pub fn delete_pool(&mut self, name: &PoolName) {
        match self.pools.get(name) {
            // Without our finalizer nothing holds it: a person deleted it before we knew it.
            Some(pool) if !pool.finalizer => {
                self.vanish(name);
                self.revision();
            }
            _ => self.edit_pool(name, |pool| pool.terminating = true),
        }
    }

    /// Somebody removes the finalizer by hand.
    pub fn force_pool_away(&mut self, name: &PoolName) {
        self.vanish(name);
        self.revision();
    }

    /// Breaks or mends the text of a pool.
    pub fn set_broken(&mut self, name: &PoolName, broken: bool) {
        let Some(pool) = self.pools.get(name).cloned() else {
            return;
        };
        let changed = if broken {
            self.broken.insert(name.clone())
        } else {
            self.broken.remove(name)
        };
        if changed {
            let version = self.version();
            self.pools.insert(
                name.clone(),
                Arc::new(Pool {
                    version,
                    ..(*pool).clone()
                }),
            );
            self.revision();
        }
    }

    /// What `ips` and `excludeIPs` of this very pool once were.
    pub fn spec_of(&self, name: &PoolName, writes_ago: usize) -> Option<(AddrSet, AddrSet)> {
        let (then, now) = (self.ago(writes_ago), self.pools.get(name)?);
        let old = then.pools.get(name).filter(|old| old.uid == now.uid)?;
        Some((old.ips.clone(), old.excluded.clone()))
    }

    pub fn ledger(&self) -> SubnetLedger {
        self.subnet
            .as_ref()
            .and_then(|s| s.ledger.clone())
            .unwrap_or_default()
    }
}

/// What kubelets and agents do.
impl World {
    /// Starts a Pod; its address comes with [`Self::ask`].
    pub fn start_pod(&mut self, workload: Option<&WorkloadId>) -> usize {
        let number = self.next();
        let name = workload.map_or("bare", |w| w.name.as_str());
        self.pods.push(Pod {
            name: PodName::new("shop", &format!("{name}-{number}")),
            uid: Uid::new(format!("pod-{number}")),
            workload: workload.cloned(),
            stopping: false,
            address: None,
        });
        self.revision();
        self.pods.len() - 1
    }

    /// A record as another program wrote it, with nothing that is ours.
    pub fn old_record(&self, pod: usize) -> Record {
        Record {
            pod: self.pods[pod].name.clone(),
            uid: self.pods[pod].uid.clone(),
            nic: None,
            node: None,
            sandbox: None,
            owner: None,
            machine: None,
            instance: None,
            next: None,
            kept: false,
            quarantine: None,
            other: BTreeMap::new(),
        }
    }

    /// The subnet gets the ledger that another program kept, as far as its pools do not overlap.
    pub fn take_over_ledger(&mut self) {
        let mut ledger = SubnetLedger::default();
        for pool in self.pools.values() {
            if pool.claimed().is_disjoint(&ledger.taken()) {
                ledger.set(
                    &pool.name,
                    Entry {
                        ips: pool.claimed().into_owned(),
                        application: None,
                    },
                );
            }
        }
        let ledger = Some(ledger).filter(|l| l.to_text().is_some());
        self.edit_subnet(|subnet| subnet.ledger = ledger);
    }

    /// The pools that the agent tries for a workload's Pod.
    pub fn pools_of(&self, workload: &WorkloadId) -> Vec<PoolName> {
        let own = self.pools.values().filter(|pool| {
            pool.owner.as_ref().is_some_and(|o| o.uid == workload.uid)
                && !self.broken.contains(&pool.name)
        });
        own.map(|pool| pool.name.clone()).collect()
    }

    /// The Pod's agent asks `pool` for an address, by the code it really uses.
    pub fn ask(&mut self, pod: usize, pool: &PoolName) -> bool {
        let Some(object) = self.pools.get(pool).cloned() else {
            return false;
        };
        let Some(asking) = self.pods.get(pod).cloned() else {
            return false;
        };
        if self.broken.contains(pool) || asking.stopping {
            return false;
        }
        let nothing = WorkloadId {
            group: String::new(),
            version: "v1".into(),
            kind: "Pod".into(),
            namespace: "shop".into(),
            name: asking.name.parts().1.to_owned(),
            uid: asking.uid.clone(),
        };
        let workload = asking.workload.clone().unwrap_or(nothing);
        let labels = [("app".to_owned(), workload.name.clone())].into();
        let facts = PodFacts {
            pod: asking.name.clone(),
            labels,
            node: NodeName::from("n1"),
            node_labels: Ok(BTreeMap::new()),
            namespace_labels: Ok(BTreeMap::new()),
            workload,
            attachment: ipam::attachment::Attachment::of(
                &"eth0".into(),
                &ipam::attachment::Networks::default(),
            ),
        };
        let claim = Claim {
            pod: facts,
            uid: asking.uid.clone(),
            nic: Nic::from("eth0"),
            sandbox: Some(Sandbox::from("s")),
            first: false,
            heritage: None,
        };
        let mut ledger = PoolLedger::new((*object).clone());
        ledger.queue(1, Ask::Claim(Box::new(claim)));
        let batch = ledger.batch(&self.reserved).unwrap();
        let records = batch.records().clone();
        let answers = ledger.committed(batch, Version::default());
        let [(1, Answer::Claim(Ok(grant)))] = answers.as_slice() else {
            return false;
        };
        let address = grant.address;
        let new = object.records.get(address).is_none();
        if new && (!object.usable(&self.reserved).contains(address) || asking.address.is_some()) {
            self.fail(&format!(
                "IPPool {pool} gave {address}, which is not its to give"
            ));
        }
        self.log(format!("{} got {address} of {pool}", asking.name));
        self.pods[pod].address = Some(address);
        self.edit_pool(pool, |p| p.records = records);
        true
    }

    pub fn stop_pod(&mut self, pod: usize) {
        if let Some(pod) = self.pods.get_mut(pod) {
            pod.stopping = true;
            self.revision();
        }
    }

    /// The Pod is gone and its address released; false where its pool cannot be read.
    pub fn end_pod(&mut self, pod: usize) -> bool {
        let Some(gone) = self.pods.get(pod).cloned() else {
            return false;
        };
        let holds = |pool: &Pool| pool.records.iter().any(|(_, r)| r.uid == gone.uid);
        let pools: Vec<PoolName> = self
            .pools
            .values()
            .filter(|p| holds(p))
            .map(|p| p.name.clone())
            .collect();
        if pools.iter().any(|pool| self.broken.contains(pool)) {
            return false;
        }
        self.pods.remove(pod);
        for name in pools {
            self.edit_pool(&name, |pool| {
                let of_pod = pool.records.iter().filter(|(_, r)| r.uid == gone.uid);
                for address in of_pod.map(|(a, _)| a).collect::<Vec<_>>() {
                    pool.records.remove(address);
                }
            });
        }
        self.revision();
        true
    }
}

/// For people who read a failure.
impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(subnet) = &self.subnet {
            writeln!(
                f,
                "subnet {} v{} has {} −{} {}",
                subnet.name,
                subnet.version,
                subnet.ips,
                subnet.excluded,
                if subnet.terminating {
                    "terminating"
                } else {
                    ""
                }
            )?;
            match &subnet.ledger {
                None => writeln!(f, "  no ledger")?,
                Some(ledger) => {
                    for (pool, entry) in ledger.iter() {
                        writeln!(f, "  ledger: {pool} has {}", entry.ips)?;
                    }
                }
            }
        }
        for pool in self.pools.values() {
            let mark = match (&pool.admitted, pool.is_admitted()) {
                (_, true) => "admitted",
                (Some(_), false) => "stale mark",
                (None, false) => "not admitted",
            };
            write!(
                f,
                "pool {} v{} epoch {} has {} −{}, in use {}, {mark}",
                pool.name,
                pool.version,
                pool.epoch,
                pool.ips,
                pool.excluded,
                pool.records.addresses()
            )?;
            writeln!(
                f,
                "{}{}",
                if pool.terminating {
                    ", terminating"
                } else {
                    ""
                },
                if self.broken.contains(&pool.name) {
                    ", unreadable"
                } else {
                    ""
                }
            )?;
        }
        for pod in &self.pods {
            writeln!(f, "pod {} has {:?}", pod.name, pod.address)?;
        }
        writeln!(
            f,
            "reserved {}, elsewhere {}",
            self.reserved, self.elsewhere
        )
    }
}
