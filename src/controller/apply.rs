//! A plan, carried out: one arm a step, no decision.
//!
//! Owns: the order of the stages and what a step does when another was faster. Never does: choose
//! an address. Invariants: every write carries the uid and version its decision was made on; a
//! ledger edit is written only if what it needs has happened in this very pass; a pool receives
//! addresses only after the ledger write that names them was accepted.

mod ledger;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt;
use ipam::name::PoolName;
use ipam::plan::{self, Fence, Holder, LedgerEdit, NewPool, Plan, PoolWrite, Reason, Step};
use ipam::pool::Pool;
use ipam::record::Records;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};

pub use self::outcome::{ApplyError, Done, Unwritten};
use super::edit;
use super::index::Observed;
use crate::api::{SpiderIPPool, SpiderSubnet, convert};
use crate::kube_io::cache::{Cache, Key};
use crate::kube_io::put::{self, Part, PutError, Reply};
use crate::kube_io::retry::{self, Outcome};
use crate::kube_io::serial::{Serial, is_gone};

/// Most pool writes of one stage that are under way at once.
const PARALLEL_WRITES: usize = 16;
/// How often a write that adds addresses follows a pool that allocations keep moving.
const FOLLOW_TRIES: usize = 5;

/// The clients and caches that writes go through.
#[derive(Clone)]
pub struct Writer {
    /// Never repeats a write by itself.
    pub client: Client,
    /// Pools.
    pub pools: Cache<SpiderIPPool>,
    /// The way to write them, which passes and the allocator share.
    pub pool_writes: Serial<SpiderIPPool>,
    /// Subnets.
    pub subnets: Cache<SpiderSubnet>,
}

impl Writer {
    /// With empty caches.
    pub fn new(client: Client) -> Self {
        let pools = Cache::new();
        Self {
            pool_writes: Serial::new(client.clone(), pools.clone()),
            client,
            pools,
            subnets: Cache::new(),
        }
    }

    /// Writes `records` in place of those of `pool`, at the version that was read.
    ///
    /// Errors: what became of the write; the pool as known here is as it was.
    pub async fn put_records(
        &self,
        pool: &SpiderIPPool,
        records: &Records,
    ) -> Result<(), PutError> {
        let mut pool = pool.clone();
        let status = pool.status.get_or_insert_default();
        status.allocated_ips = records.to_text();
        status.allocated_ip_count = Some(records.count().to_wire());
        let writes = &self.pool_writes;
        writes.replace(Part::Status, &mut pool, Reply::Full).await
    }
}

/// Carries out the steps of `plan`, made on `seen`. Returns what is known afterwards.
pub async fn apply(writer: &Writer, seen: &Observed, plan: &Plan) -> Done {
    let mut pass = Pass {
        writer,
        seen,
        written: BTreeSet::new(),
        done: Done {
            subnet: seen.subnet.clone(),
            pools: seen.pools.clone(),
            ..Done::default()
        },
    };
    let mut stages = Stages::default();
    for step in &plan.steps {
        match step {
            Step::Record {
                pool,
                fence,
                found,
                because,
            } => stages.records.push(Recording {
                pool,
                fence,
                found,
                because,
            }),
            Step::Create(new) => stages.creates.push(new),
            Step::Before(write) => stages.before.push(write),
            Step::Barrier => stages.barrier = true,
            Step::Ledger { fence, edits } => stages.ledger = Some((fence, edits)),
            Step::ProtectSubnet { fence, finalizer } => stages.protect = Some((fence, *finalizer)),
            Step::After(write) => stages.after.push(write),
            Step::Delete {
                pool,
                fence,
                because,
            } => stages.deletes.push((pool, fence, because)),
        }
    }
    pass.record_all(&stages.records).await;
    pass.create_all(&stages.creates).await;
    pass.write_before(&stages.before).await;
    if stages.barrier && !pass.done.errors.is_empty() {
        pass.leave_out(&stages);
        return pass.done;
    }
    if let Some((fence, edits)) = stages.ledger {
        pass.ledger(fence, edits).await;
    }
    if let Some((fence, finalizer)) = stages.protect {
        pass.protect(fence, finalizer).await;
    }
    pass.write_after(stages.after).await;
    pass.delete_all(stages.deletes).await;
    pass.done
}

/// The steps of a plan by stage.
#[derive(Default)]
struct Stages<'p> {
    records: Vec<Recording<'p>>,
    creates: Vec<&'p NewPool>,
    before: Vec<&'p PoolWrite>,
    /// All of the above must have landed, or the pass ends there.
    barrier: bool,
    ledger: Option<(&'p Fence, &'p [LedgerEdit])>,
    protect: Option<(&'p Fence, bool)>,
    after: Vec<&'p PoolWrite>,
    deletes: Vec<(&'p PoolName, &'p Fence, &'p Reason)>,
}

/// Pods whose addresses a pool gets to know again.
struct Recording<'p> {
    pool: &'p PoolName,
    fence: &'p Fence,
    found: &'p BTreeMap<IpAddr, Holder>,
    because: &'p Reason,
}

/// Takes our finalizer off a subnet that is being deleted and serves nobody.
pub async fn let_go(writer: &Writer, raw: &SpiderSubnet) {
    let Some(mut subnet) = edit::without_finalizer(raw) else {
        return;
    };
    match put::replace(&writer.client, Part::Main, &mut subnet, Reply::Full).await {
        Ok(()) => writer.subnets.apply_gone(
            &Key::cluster(&subnet.name_any()),
            &subnet.uid().unwrap_or_default(),
        ),
        // The next change of the subnet, or the next look at everything, tries again.
        Err(error) => {
            let error = crate::error::ErrorChain(&error);
            tracing::warn!(subnet = %subnet.name_any(), %error, "finalizer not removed");
        }
    }
}

struct Pass<'a> {
    writer: &'a Writer,
    seen: &'a Observed,
    /// Pools whose write of the first stage was accepted.
    written: BTreeSet<PoolName>,
    done: Done,
}

impl Pass<'_> {
    async fn record_all(&mut self, all: &[Recording<'_>]) {
        let this = &*self;
        let work: Vec<_> = all
            .iter()
            .map(|found| async move { (found, this.record(found).await) })
            .collect();
        for (found, result) in together(work).await {
            match result {
                Ok(pool) => self.note(found.pool, found.because, Some(pool)),
                Err(error) => self.refuse(found.pool, error),
            }
        }
    }

    async fn record(&self, found: &Recording<'_>) -> Result<Arc<SpiderIPPool>, ApplyError> {
        let step = || format!("IPPool {} ({})", found.pool, found.because);
        let (raw, parsed) = self.pool_at(found.pool, Some(found.fence), &step)?;
        let mut pool = edit::with_records(raw, &parsed, found.found);
        let writes = &self.writer.pool_writes;
        let put = writes.replace(Part::Status, &mut pool, Reply::Full).await;
        put.map_err(|e| ApplyError::Put {
            step: step(),
            source: Box::new(e),
        })?;
        Ok(Arc::new(pool))
    }

    /// A pool as read, if that is the version that a step was decided on.
    fn pool_at(
        &self,
        name: &PoolName,
        fence: Option<&Fence>,
        step: &impl Fn() -> String,
    ) -> Result<(&Arc<SpiderIPPool>, Pool), ApplyError> {
        let moved = || ApplyError::Moved { step: step() };
        let raw = self.done.pools.get(name).ok_or_else(moved)?;
        let parsed = convert::pool(raw).map_err(|_| moved())?;
        let fits = |f: &Fence| f.uid == parsed.uid && f.version == parsed.version;
        if fence.is_none_or(fits) {
            Ok((raw, parsed))
        } else {
            Err(moved())
        }
    }

    async fn create_all(&mut self, creates: &[&NewPool]) {
        let this = &*self;
        let work: Vec<_> = creates
            .iter()
            .map(|new| async { (&new.name, this.create(new).await) })
            .collect();
        for (name, result) in together(work).await {
            match result {
                Ok(pool) => drop(self.done.pools.insert(name.clone(), pool)),
                Err(error) => self.refuse(name, error),
            }
        }
    }

    async fn write_before(&mut self, writes: &[&PoolWrite]) {
        let this = &*self;
        let work: Vec<_> = writes
            .iter()
            .map(|w| async { (*w, this.write_at_version(w).await) })
            .collect();
        for (write, result) in together(work).await {
            match result {
                Ok(pool) => {
                    self.written.insert(write.pool.clone());
                    self.wrote(write, pool);
                }
                Err(error) => self.refuse(&write.pool, error),
            }
        }
    }

    async fn write_after(&mut self, writes: Vec<&PoolWrite>) {
        let this = &*self;
        let work: Vec<_> = writes
            .iter()
            .map(|w| async { (*w, this.follow(w).await) })
            .collect();
        for (write, result) in together(work).await {
            match result {
                Ok(pool) => self.wrote(write, pool),
                Err(error) => self.refuse(&write.pool, error),
            }
        }
    }

    async fn delete_all(&mut self, deletes: Vec<(&PoolName, &Fence, &Reason)>) {
        let this = &*self;
        let work: Vec<_> = deletes
            .iter()
            .map(|(pool, fence, because)| async {
                (*pool, *because, this.delete(pool, fence).await)
            })
            .collect();
        for (pool, because, result) in together(work).await {
            match result {
                Ok(left) => self.note(pool, because, left),
                Err(error) => self.refuse(pool, error),
            }
        }
    }

    fn wrote(&mut self, write: &PoolWrite, pool: Arc<SpiderIPPool>) {
        let left = (!is_gone(&*pool)).then_some(pool);
        self.note(&write.pool, &write.because, left);
    }

    /// A pool was written, and this is what is left of it.
    fn note(&mut self, name: &PoolName, because: &Reason, left: Option<Arc<SpiderIPPool>>) {
        self.done.wrote.push((name.clone(), because.clone()));
        match left {
            Some(pool) => drop(self.done.pools.insert(name.clone(), pool)),
            None => drop(self.done.pools.remove(name)),
        }
    }

    fn refuse(&mut self, pool: &PoolName, error: ApplyError) {
        self.miss(pool, Unwritten::of(&error));
        self.done.errors.push(error);
    }

    /// The first reason counts: later ones follow from it.
    fn miss(&mut self, pool: &PoolName, why: Unwritten) {
        self.done.unwritten.entry(pool.clone()).or_insert(why);
    }

    /// The pass ends before the ledger: nothing that comes after happens to any pool.
    fn leave_out(&mut self, stages: &Stages<'_>) {
        let edited = stages.ledger.iter().flat_map(|(_, edits)| *edits);
        let edited = edited.map(|edit| &edit.pool);
        let after = stages.after.iter().map(|write| &write.pool);
        let deleted = stages.deletes.iter().map(|(pool, ..)| *pool);
        for pool in edited.chain(after).chain(deleted) {
            self.miss(pool, Unwritten::left_out());
        }
    }

    async fn create(&self, new: &NewPool) -> Result<Arc<SpiderIPPool>, ApplyError> {
        let api: Api<SpiderIPPool> = Api::all(self.writer.client.clone());
        let created = api
            .create(&PostParams::default(), &edit::new_pool(new))
            .await;
        let pool =
            created.map_err(|e| ApplyError::call(format!("creation of IPPool {}", new.name), e))?;
        self.writer.pools.apply_written(pool.clone());
        tracing::info!(pool = %new.name, workload = %new.workload, "pool made");
        Ok(Arc::new(pool))
    }

    /// A write that is right only for the very version it was decided on.
    async fn write_at_version(&self, write: &PoolWrite) -> Result<Arc<SpiderIPPool>, ApplyError> {
        let step = || format!("IPPool {} ({})", write.pool, write.because);
        let (raw, parsed) = self.pool_at(&write.pool, write.fence.as_ref(), &step)?;
        self.put(raw, &parsed, write, step()).await
    }

    async fn put(
        &self,
        raw: &SpiderIPPool,
        parsed: &Pool,
        write: &PoolWrite,
        step: String,
    ) -> Result<Arc<SpiderIPPool>, ApplyError> {
        let mut pool = edit::edited_pool(raw, parsed, &write.edit, self.seen.subnet.as_deref());
        let writes = &self.writer.pool_writes;
        writes
            .replace(Part::Main, &mut pool, Reply::Full)
            .await
            .map_err(|e| ApplyError::put(step, e))?;
        Ok(Arc::new(pool))
    }

    /// A write that adds addresses: right for any later version to which nothing but allocations
    /// happened, since only taking addresses away moves the epoch.
    async fn follow(&self, write: &PoolWrite) -> Result<Arc<SpiderIPPool>, ApplyError> {
        let step = || format!("IPPool {} ({})", write.pool, write.because);
        let moved = || ApplyError::Moved { step: step() };
        if let Some(before) = self.done.unwritten.get(&write.pool) {
            return Err(ApplyError::LeftOut {
                step: step(),
                outcome: before.outcome,
            });
        }
        let mut raw = self.done.pools.get(&write.pool).ok_or_else(moved)?.clone();
        let read = convert::pool(&raw).map_err(|_| moved())?;
        let mut parsed = read.clone();
        for _ in 0..FOLLOW_TRIES {
            match self.put(&raw, &parsed, write, step()).await {
                // Without a ledger write in this pass nothing proves that the world stood still.
                Err(error) if error.outcome() == Outcome::Conflict && self.done.ledger_written => {}
                other => return other,
            }
            let live = self.writer.pool_writes.after(&raw).await;
            let live = live.map_err(|e| ApplyError::call(step(), e))?;
            parsed = convert::pool(&live).map_err(|_| moved())?;
            if !plan::only_allocations_between(&read, &parsed) {
                return Err(moved());
            }
            raw = Arc::new(live);
        }
        Err(moved())
    }

    /// What is left of the pool: something, where another program's finalizer holds it.
    async fn delete(
        &self,
        pool: &PoolName,
        fence: &Fence,
    ) -> Result<Option<Arc<SpiderIPPool>>, ApplyError> {
        let _turn = match self.done.pools.get(pool) {
            None => None,
            Some(raw) => {
                let turn = self.writer.pool_writes.turn_at(raw).await;
                Some(turn.map_err(|e| ApplyError::put(format!("deletion of IPPool {pool}"), e))?)
            }
        };
        let api: Api<SpiderIPPool> = Api::all(self.writer.client.clone());
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(fence.uid.to_string()),
                resource_version: Some(fence.version.to_string()),
            }),
            ..DeleteParams::default()
        };
        let deleted = match api.delete(pool.as_str(), &params).await {
            Ok(answer) => answer.left(),
            Err(error) if retry::classify(&error) == Outcome::Gone => None,
            Err(error) => {
                return Err(ApplyError::call(
                    format!("deletion of IPPool {pool}"),
                    error,
                ));
            }
        };
        let Some(terminating) = deleted else {
            let key = Key::cluster(pool.as_str());
            self.writer.pools.apply_gone(&key, fence.uid.as_str());
            return Ok(None);
        };
        self.writer.pools.apply_written(terminating.clone());
        Ok(Some(Arc::new(terminating)))
    }
}

/// Runs the calls of one stage, [`PARALLEL_WRITES`] at a time.
pub(super) async fn together<T>(work: Vec<impl Future<Output = T>>) -> Vec<T> {
    futures::stream::iter(work)
        .buffer_unordered(PARALLEL_WRITES)
        .collect()
        .await
}

#[cfg(test)]
mod tests;
