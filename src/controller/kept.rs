//! Records that no Pod has, and that nothing speaks for any more: addresses kept for Pods of a
//! `StatefulSet` or a virtual machine that nobody wants, and quarantines whose time is over.
//!
//! Owns: finding them in the caches, the live look that confirms it, and the write that frees them.
//! Never does: decide ([`ipam::keep`] and [`ipam::quarantine`] do), or touch an address that a Pod
//! may have: a kept one's sandbox is gone. An agent frees at a DEL what is not wanted then; what is
//! not wanted later, has no DEL. Without a controller such addresses stay, and nothing else happens.
//!
//! A look is at one pool. It comes when the pool changes, a `StatefulSet` of its records, another
//! pool that has records of that set, or a quarantine is over; and at each change of the leader.
//! Virtual machines are not watched: while addresses are kept for stopped ones, all machines are
//! listed every [`MACHINES_EVERY`], and elsewhere nobody asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::keep::{self, Keeper, Keeps, Lineage, Machine, MachineKind, Unwanted};
use ipam::name::{PodName, PoolName, Uid};
use ipam::quarantine;
use ipam::record::{Record, Records};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::Api;
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::apply::Writer;
use super::queue::{self, Queue};
use super::report::Reports;
use crate::api::{SpiderIPPool, convert, time};
use crate::error::ErrorChain;
use crate::kube_io::cache::{Cache, Change, Key};
use crate::kube_io::clients::Clients;
use crate::kube_io::endpoint::{self, RemoveError};
use crate::kube_io::lease::Leadership;
use crate::kube_io::locked;
use crate::kube_io::machine;
use crate::kube_io::put::PutError;

/// Pause after a look that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// From one list of the virtual machines to the next.
const MACHINES_EVERY: Duration = Duration::from_mins(1);
/// So long must addresses of a kind have been switched off, under one leader, before those of Pods
/// that are gone are freed: the switch is for the whole cluster, and may have been a mistake.
const SWITCHED_OFF_FOR: Duration = Duration::from_mins(10);
/// What a record of a fixed address has in its text, and no other.
const OWNER: &str = "\"owner\":";
/// What a record of a machine has in its text.
const MACHINE: &str = "\"machine\":";
/// What a record in quarantine has in its text.
const NOBODY: &str = quarantine::HOLDER;

/// Why a look has to be repeated.
#[derive(Debug, thiserror::Error)]
enum KeptError {
    #[error("could not find out what is wanted")]
    Read(#[from] kube::Error),
    #[error(transparent)]
    Endpoint(#[from] RemoveError),
    #[error("IPPool was not written")]
    Put(#[from] PutError),
}

/// When to look at a pool again.
enum Next {
    /// Where something changes, or after so long.
    Later(Option<Duration>),
    /// Soon: some of its addresses could not be judged.
    Again,
}

/// The pools to look at.
pub(super) struct Kept {
    keeps: Keeps,
    pub(super) sets: Cache<StatefulSet>,
    queue: Queue<PoolName>,
    /// Where each `StatefulSet` and machine has records.
    pools: Mutex<BTreeMap<Uid, BTreeSet<PoolName>>>,
    /// The machines as last listed, by namespace; `None` before that.
    machines: Mutex<Option<BTreeMap<(String, Machine), Keeper>>>,
}

impl queue::Key for PoolName {
    fn excludes(&self, other: &Self) -> bool {
        self == other
    }
}

impl Kept {
    pub(super) fn new(keeps: Keeps) -> Self {
        Self {
            keeps,
            sets: Cache::new(),
            queue: Queue::default(),
            pools: Mutex::default(),
            machines: Mutex::default(),
        }
    }

    /// A pool appeared, changed or went.
    pub(super) fn pool(&self, change: &Change<SpiderIPPool>) {
        let name = PoolName::from(change.key.name.as_str());
        let of = |pool: Option<&Arc<SpiderIPPool>>| pool.map(|pool| owners(pool));
        if change.new.object().is_some_and(|pool| has(pool, NOBODY)) {
            self.queue.add(name.clone());
        }
        let old = of(change.old.object()).unwrap_or_default();
        let new = of(change.new.object()).unwrap_or_default();
        if old.is_empty() && new.is_empty() {
            return;
        }
        let mut pools = locked(&self.pools);
        for gone in old.difference(&new) {
            if let Some(of_set) = pools.get_mut(gone) {
                of_set.remove(&name);
                if of_set.is_empty() {
                    pools.remove(gone);
                }
            }
        }
        for owner in &new {
            let of_set = pools.entry(owner.clone()).or_default();
            of_set.insert(name.clone());
            for pool in of_set.iter() {
                self.queue.add(pool.clone());
            }
        }
    }

    /// A `StatefulSet` changed or went.
    pub(super) fn set(&self, change: &Change<StatefulSet>) {
        let pools = locked(&self.pools);
        let sets = [change.old.object(), change.new.object()];
        for set in sets.into_iter().flatten() {
            let uid = Uid::new(set.uid().unwrap_or_default());
            for pool in pools.get(&uid).into_iter().flatten() {
                self.queue.add(pool.clone());
            }
        }
    }

    fn all(&self, known: &Cache<SpiderIPPool>) {
        for pool in known.list().iter().filter(|pool| has(pool, NOBODY)) {
            self.queue.add(PoolName::from(pool.name_any().as_str()));
        }
        let pools = locked(&self.pools);
        for pool in pools.values().flatten() {
            self.queue.add(pool.clone());
        }
    }

    /// Says what will be freed since its kind is switched off.
    fn warn_of_switch(&self, known: &Cache<SpiderIPPool>) {
        let pools = known.list();
        let kept = pools.iter().flat_map(|pool| {
            let records = records(pool);
            let kept = records.iter().filter(|(_, record)| record.kept);
            let lineages = kept.filter_map(|(_, record)| record.lineage());
            lineages.collect::<Vec<_>>()
        });
        let addresses = kept.filter(|of| !self.keeps.includes(of)).count();
        if addresses > 0 {
            tracing::warn!(
                addresses,
                minutes = SWITCHED_OFF_FOR.as_secs() / 60,
                "addresses are kept for Pods of a kind that is switched off now; they are freed in so many minutes, unless it is switched on again (enableStatefulSet, enableKubevirtStaticIP)"
            );
        }
    }

    /// The pools that have records of `owner`.
    fn pools_of(&self, owner: &Uid) -> BTreeSet<PoolName> {
        let pools = locked(&self.pools);
        pools.get(owner).cloned().unwrap_or_default()
    }

    /// Lists the machines, if addresses are kept for any, and has the pools of these looked at.
    async fn list_machines(&self, client: &Client, known: &Cache<SpiderIPPool>) {
        if !self.keeps.machines {
            return;
        }
        let (mut kinds, mut pools) = (BTreeSet::new(), BTreeSet::new());
        for pool in known.list().iter().filter(|pool| has(pool, MACHINE)) {
            for (_, record) in records(pool).iter().filter(|(_, record)| record.kept) {
                kinds.extend(record.machine.as_ref().map(|machine| machine.kind));
                pools.insert(PoolName::from(pool.name_any().as_str()));
            }
        }
        match machines(client, kinds).await {
            Ok(all) => *locked(&self.machines) = Some(all),
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "virtual machines that addresses are kept for could not be listed; trying again");
                return;
            }
        }
        for pool in pools {
            self.queue.add(pool);
        }
    }

    /// Looks for ever while this replica leads; ends if the election does. All caches are complete.
    pub(super) async fn run(
        &self,
        clients: &Clients,
        writer: &Writer,
        reports: &Reports,
        mut leadership: watch::Receiver<Leadership>,
    ) {
        loop {
            if leadership
                .wait_for(|l| *l == Leadership::Leader)
                .await
                .is_err()
            {
                return;
            }
            self.all(&writer.pools);
            self.warn_of_switch(&writer.pools);
            let switched_off_due = Instant::now() + SWITCHED_OFF_FOR;
            let mut is_due = false;
            let mut machines_due = interval(MACHINES_EVERY);
            machines_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let pool = tokio::select! {
                    biased;
                    changed = leadership.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                    _ = machines_due.tick() => {
                        self.list_machines(&clients.read, &writer.pools).await;
                        continue;
                    }
                    () = sleep_until(switched_off_due), if !is_due => {
                        is_due = true;
                        self.all(&writer.pools);
                        continue;
                    }
                    pool = self.queue.next() => pool,
                };
                let look = Look {
                    kept: self,
                    clients,
                    writer,
                    reports,
                    pool: &pool,
                    frees_switched_off: is_due,
                };
                match look.free_unwanted().await {
                    Ok(Next::Later(None)) => {}
                    Ok(Next::Later(Some(later))) => {
                        self.queue.add_at(pool.clone(), Instant::now() + later);
                    }
                    Ok(Next::Again) => self.queue.rest(pool.clone(), Instant::now() + AGAIN_AFTER),
                    Err(error) => {
                        tracing::warn!(%pool, error = %ErrorChain(&error), "addresses that no Pod has not freed; trying again");
                        self.queue.rest(pool.clone(), Instant::now() + AGAIN_AFTER);
                    }
                }
                self.queue.done(&pool);
            }
        }
    }
}

/// All machines of these kinds.
async fn machines(
    client: &Client,
    kinds: BTreeSet<MachineKind>,
) -> kube::Result<BTreeMap<(String, Machine), Keeper>> {
    let mut all = BTreeMap::new();
    for kind in kinds {
        for found in machine::all_as_remembered(client, kind).await? {
            let keeper = convert::machine_keeper(&found);
            let name = found.name.unwrap_or_default();
            let namespace = found.namespace.unwrap_or_default();
            all.insert((namespace, Machine { kind, name }), keeper);
        }
    }
    Ok(all)
}

/// The owners that a pool has records of.
fn owners(pool: &SpiderIPPool) -> BTreeSet<Uid> {
    records(pool)
        .iter()
        .filter_map(|(_, record)| record.owner.clone())
        .collect()
}

/// The records of a pool that has fixed addresses or a quarantine; none of any other, which is not
/// parsed for it.
fn records(pool: &SpiderIPPool) -> Records {
    let text = text(pool).filter(|_| has(pool, OWNER) || has(pool, NOBODY));
    // What can't be read is left alone; the pass over the pool's CIDR says why.
    Records::parse(text).unwrap_or_default()
}

fn has(pool: &SpiderIPPool, mark: &str) -> bool {
    text(pool).is_some_and(|text| text.contains(mark))
}

fn text(pool: &SpiderIPPool) -> Option<&str> {
    pool.status.as_ref()?.allocated_ips.as_deref()
}

fn set_name(pod: &PodName) -> Option<Key> {
    let (namespace, _) = pod.parts();
    keep::ordinal(pod).map(|(set, _)| Key::namespaced(namespace, set))
}

/// A look at one pool.
struct Look<'a> {
    kept: &'a Kept,
    clients: &'a Clients,
    writer: &'a Writer,
    reports: &'a Reports,
    pool: &'a PoolName,
    /// Whether being switched off is reason enough by now.
    frees_switched_off: bool,
}

impl Look<'_> {
    /// Frees what is kept in the pool and wanted by nobody, and quarantines that are over. Who wants
    /// an address and can't be read holds up that one, and nothing else of the pool.
    async fn free_unwanted(&self) -> Result<Next, KeptError> {
        let Some(object) = self.writer.pools.get(&Key::cluster(self.pool.as_str())) else {
            return Ok(Next::Later(None));
        };
        let mut records = records(&object);
        let now = time::now();
        let over = quarantine::over(&mut records, now);
        let suspects: Vec<(IpAddr, Record)> = records
            .iter()
            .filter(|kept| kept.1.kept && self.suspicion(*kept).is_some())
            .map(|(address, record)| (address, record.clone()))
            .collect();
        let later =
            quarantine::next_over(&records).map(|until| (until - now).to_std().unwrap_or_default());
        let (mut freed, mut next) = (Vec::new(), Next::Later(later));
        for (address, record) in suspects {
            match self.let_go((address, &record)).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    records.remove(address);
                    freed.push((address, record, why));
                }
                Err(error) => {
                    tracing::warn!(pool = %self.pool, %address, pod = %record.pod, error = %ErrorChain(&error), "kept address not freed; trying again");
                    next = Next::Again;
                }
            }
        }
        if freed.is_empty() && over.is_empty() {
            return Ok(next);
        }
        self.writer.put_records(&object, &records).await?;
        self.tell(&object, &freed);
        for address in over {
            tracing::info!(pool = %self.pool, %address, "quarantine is over: the next Pod that gets the address probes it");
        }
        Ok(next)
    }

    /// Why the address is wanted no more, by live reads; its endpoint is gone then.
    async fn let_go(&self, kept: (IpAddr, &Record)) -> Result<Option<Unwanted>, KeptError> {
        let why = self.unwanted_live(kept).await?;
        if why.is_some() {
            // Before the record: the endpoint is derived from it, and nobody looks for it after.
            self.remove_endpoint(kept.1).await?;
        }
        Ok(why)
    }

    /// One log line an address, one Event a reason.
    fn tell(&self, pool: &SpiderIPPool, freed: &[(IpAddr, Record, Unwanted)]) {
        for (address, Record { pod, .. }, why) in freed {
            tracing::info!(pool = %self.pool, %address, %pod, because = %why, "kept address freed");
        }
        let released = freed.iter().map(|(address, Record { pod, .. }, why)| {
            let why = format!("no longer kept, since {why}");
            (why, format!("{address} (Pod {pod})"))
        });
        self.reports.collected(pool, released);
    }

    /// Why a kept record seems to be wanted no more, by the caches.
    fn suspicion(&self, kept: (IpAddr, &Record)) -> Option<Unwanted> {
        let (_, record) = kept;
        let lineage = record.lineage()?;
        let (owner, pod) = (&lineage.owner, &record.pod);
        let unwanted = if let Some(machine) = &lineage.machine {
            let (namespace, _) = pod.parts();
            let listed = locked(&self.kept.machines);
            listed.as_ref().and_then(|all| {
                let found = all.get(&(namespace.to_owned(), machine.clone()));
                keep::unwanted(pod, owner, found)
            })
        } else {
            let set = set_name(pod).and_then(|key| self.kept.sets.get(&key));
            let set = set.map(|set| convert::keeper(&set));
            keep::unwanted(pod, owner, set.as_ref())
        };
        let moved = || {
            let successor = self.successor(owner, kept);
            successor.map(Unwanted::Moved)
        };
        unwanted
            .or_else(moved)
            .or_else(|| self.switched_off(&lineage))
    }

    fn switched_off(&self, lineage: &Lineage) -> Option<Unwanted> {
        let goes = self.frees_switched_off && !self.kept.keeps.includes(lineage);
        goes.then_some(Unwanted::SwitchedOff)
    }

    /// The pool where a Pod of the record's identity has an address now.
    fn successor(&self, owner: &Uid, kept: (IpAddr, &Record)) -> Option<PoolName> {
        let pools = self.kept.pools_of(owner).into_iter();
        let mut others = pools.filter(|pool| {
            let object = self.writer.pools.get(&Key::cluster(pool.as_str()));
            object.is_some_and(|object| supersedes(&object, kept))
        });
        others.next()
    }

    /// Why it is wanted no more, by live reads; `None` if it is, after all.
    async fn unwanted_live(&self, kept: (IpAddr, &Record)) -> Result<Option<Unwanted>, KeptError> {
        let (_, record) = kept;
        let Some(lineage) = record.lineage() else {
            return Ok(None);
        };
        if let Some(why) = self.switched_off(&lineage) {
            return Ok(Some(why));
        }
        if let Some(why) = self.unwanted_by_owner(&record.pod, &lineage).await? {
            return Ok(Some(why));
        }
        if let Some(pool) = self.successor(&lineage.owner, kept) {
            let api: Api<SpiderIPPool> = Api::all(self.clients.read.clone());
            let now = api.get_opt(pool.as_str()).await?;
            if now.is_some_and(|now| supersedes(&now, kept)) {
                return Ok(Some(Unwanted::Moved(pool)));
            }
        }
        Ok(None)
    }

    async fn unwanted_by_owner(
        &self,
        pod: &PodName,
        lineage: &Lineage,
    ) -> Result<Option<Unwanted>, kube::Error> {
        let keeper = match (&lineage.machine, set_name(pod)) {
            // The right to read machines goes with their switch.
            (Some(_), _) if !self.kept.keeps.machines => return Ok(None),
            (Some(machine), _) => self.machine_now(pod, machine).await?,
            (None, Some(name)) => self.set_now(&name).await?,
            (None, None) => None,
        };
        Ok(keep::unwanted(pod, &lineage.owner, keeper.as_ref()))
    }

    async fn machine_now(
        &self,
        pod: &PodName,
        machine: &Machine,
    ) -> Result<Option<Keeper>, kube::Error> {
        let (namespace, _) = pod.parts();
        let found = machine::metadata(&self.clients.read, namespace, machine).await?;
        Ok(found.map(|found| convert::machine_keeper(&found)))
    }

    async fn set_now(&self, name: &Key) -> Result<Option<Keeper>, kube::Error> {
        let api: Api<StatefulSet> = Api::namespaced(self.clients.read.clone(), &name.namespace);
        let found = api.get_opt(&name.name).await?;
        Ok(found.map(|set| convert::keeper(&set)))
    }

    async fn remove_endpoint(&self, record: &Record) -> Result<(), RemoveError> {
        let (namespace, name) = record.pod.parts();
        endpoint::remove_of(&self.writer.client, namespace, name, record.uid.as_str()).await
    }
}

/// True where `pool` has the address that the identity of `kept` has now.
fn supersedes(pool: &SpiderIPPool, kept: (IpAddr, &Record)) -> bool {
    let records = records(pool);
    let mut others = records.iter();
    others.any(|other| keep::is_superseded(kept, other))
}

#[cfg(test)]
mod tests;
