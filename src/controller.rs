//! The controller: watches subnets, pools, workloads and Pods, and makes pools follow workloads.
//!
//! One pass looks at one CIDR: `observe` (from the [`index`]) → [`ipam::plan::plan`] → [`apply`] →
//! [`report`]. Only the plan decides. Every replica watches; the one that holds the Lease applies.
//! Invariants: no pass before every cache is complete; one pass a CIDR at a time; a change, however
//! small, is never dropped, only coalesced.
//!
//! Where to read next: `watches.rs` and `others.rs` for what is watched, [`workload`] for kinds, [`index`] for what
//! wakes a pass.

mod allocator;
pub mod apply;
mod early;
pub mod edit;
pub mod gc;
pub mod index;
mod kept;
mod metrics;
mod others;
pub mod queue;
pub mod rehearsal;
pub mod report;
#[cfg(test)]
mod testing;
mod watches;
pub mod workload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipam::annotation::SizeRule;
use ipam::keep::Keeps;
use ipam::kind::Kinds;
use ipam::plan::{self, Plan, Step};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{SpiderIPPool, SpiderSubnet};
use crate::error::ErrorChain;
use crate::kube_io::cache::Cache;
use crate::kube_io::clients::Clients;
use crate::kube_io::lease::Leadership;
use crate::kube_io::retry::{Backoff, Outcome};
use crate::kube_io::tasks::{Tasks, start};
use crate::kube_io::time;
use crate::pool_writer::Writers;

use allocator::{Allocator, Bound, Callers, Host, Sight};
pub use allocator::{Endpoint, Listener, Serve};
use apply::{ApplyError, Done, Writer};
use early::Early;
use gc::Gc;
use index::{Dirty, Features, Index, Observed, Switch};
use kept::Kept;
pub use metrics::Metrics;
use metrics::PassOutcome;
use queue::Queue;
use report::Reports;
use workload::Seen;

/// First and longest cap of the pause after a pass that failed.
const PASS_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(30));
/// Longest rest after a pass of which something was refused for good: where it wrote no ledger, and
/// where it did.
const REFUSED_REST: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
/// After a pass that wrote a ledger the next one waits this long: of a burst of workloads the first
/// is served at once and the others together, by a few writes of the ledger.
const LEDGER_PAUSE: Duration = Duration::from_millis(400);
/// A pass rests this many times as long as it computed, so that passes over a CIDR take a fifth of one
/// CPU, and [`REST_MAX`] at most: Pods wait ten seconds for a pool.
const REST: u32 = 4;
/// The longest such rest.
const REST_MAX: Duration = Duration::from_millis(500);
/// Most passes that run at once.
const PASSES_AT_ONCE: usize = 16;
/// How long passes may take to end when the process stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Every CIDR is looked at this often even if nothing seems to have happened.
const RESYNC: Duration = Duration::from_secs(300);

/// What the controller is told at start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which features act.
    pub features: Features,
    /// Size rule of workloads without an annotation for it.
    pub default_rule: SizeRule,
    /// Whose Pods keep their addresses.
    pub keeps: Keeps,
    /// When records without a living owner are freed.
    pub gc: gc::Options,
    /// The kinds of workloads that get pools.
    pub kinds: Kinds,
    /// Whether addresses are recorded for Pods that have a node and no sandbox yet, if there is an
    /// allocator.
    pub early_binding: Switch,
    /// Name of this replica's Pod, for Events.
    pub pod_name: Option<String>,
}

struct Context {
    index: Arc<Index>,
    queue: Queue<IpNet>,
    clients: Clients,
    writer: Writer,
    reports: Reports,
    backoffs: Mutex<BTreeMap<IpNet, Backoff>>,
    default_rule: SizeRule,
    kinds: Kinds,
    metrics: Metrics,
    /// Some object may have become one that no pass looks at.
    strays: Notify,
    pods: Cache<Pod>,
    sight: Sight,
    kept: Kept,
    /// None where nothing is bound early.
    early: Option<Early>,
}

/// What a controller hears from the process around it, and says to it.
#[derive(Debug)]
pub struct Signals {
    /// Whether this replica acts.
    pub leadership: watch::Receiver<Leadership>,
    /// Turns true when every cache is complete.
    pub ready: watch::Sender<bool>,
    /// Turns true when it is to end.
    pub stop: watch::Receiver<bool>,
}

/// Runs until `stop` turns true; then the passes under way end first, for `STOP_WITHIN` at most.
///
/// Otherwise it returns only if a part of it ended that never should, which the caller must not
/// survive: the Lease would be held by a process that does nothing. Calls that fail are logged and
/// tried again.
pub async fn run(
    options: Options,
    clients: Clients,
    metrics: Metrics,
    signals: Signals,
    allocator: Option<Endpoint>,
) {
    let Signals {
        leadership,
        ready,
        stop,
    } = signals;
    // The claims of all nodes meet in the allocator's writers; without it each agent has its own.
    let binds_early = options.early_binding == Switch::On && allocator.is_some();
    let (reports, events) = Reports::new(clients.write.clone(), options.pod_name);
    let writer = Writer::new(clients.write.clone());
    let index = Arc::new(Index::of_kinds(options.features, options.kinds.clone()));
    let sight = Sight {
        index: Arc::clone(&index),
        pools: writer.pools.clone(),
        replica_sets: Cache::new(),
        jobs: Cache::new(),
    };
    let ctx = Arc::new(Context {
        index,
        queue: Queue::default(),
        reports,
        clients,
        writer,
        backoffs: Mutex::default(),
        default_rule: options.default_rule,
        kinds: options.kinds,
        metrics,
        strays: Notify::new(),
        pods: Cache::new(),
        sight,
        kept: Kept::new(options.keeps),
        early: binds_early.then(|| Early::new(leadership.clone())),
    });
    ctx.metrics
        .look_at(ctx.writer.pools.clone(), ctx.writer.subnets.clone());
    let mut tasks = JoinSet::new();
    let writers = Arc::new(ctx.writers());
    let allocator =
        allocator.map(|endpoint| ctx.allocator(endpoint, leadership.clone(), Arc::clone(&writers)));
    let synced = watches::watch_all(&ctx, &mut tasks);
    others::watch_all(&ctx, &mut tasks);
    start(&mut tasks, events.run(leadership.clone()));
    let gc = Gc {
        options: &options.gc,
        keeps: options.keeps,
        pods: &ctx.pods,
        clients: &ctx.clients,
        writer: &ctx.writer,
        reports: &ctx.reports,
        metrics: &ctx.metrics,
    };
    let work = async {
        let mut stopped = stop.clone();
        tokio::select! {
            biased;
            () = told(&mut stopped) => return,
            _ = futures::future::join_all(synced) => {}
        }
        ready.send_replace(true);
        tracing::info!("all caches are complete");
        let serving = allocator
            .as_ref()
            .map(|(allocator, _)| Arc::clone(allocator));
        let served = async {
            match allocator {
                Some((allocator, serve)) => allocator.run(serve).await,
                None => std::future::pending().await,
            }
        };
        let acted = async {
            passes(ctx.clone(), leadership.clone(), stop).await;
            if let Some(allocator) = serving {
                allocator.finish(STOP_WITHIN).await;
            }
        };
        tokio::select! {
            biased;
            () = resync(ctx.clone(), leadership.clone()) => {}
            () = strays(ctx.clone(), leadership.clone()) => {}
            () = ctx.kept.run(&ctx.clients, &ctx.writer, &ctx.reports, leadership.clone()) => {}
            () = Box::pin(gc.run(leadership.clone())) => {}
            () = early::run(&ctx, &writers, leadership.clone()) => {}
            () = acted => {}
            () = served => {}
        }
    };
    tokio::select! {
        biased;
        () = work => {}
        Some(ended) = tasks.join_next() => {
            tracing::error!(panicked = ended.is_err(), "a watch ended");
        }
    }
}

impl Context {
    /// What writes pools for all nodes.
    fn writers(&self) -> Writers<Host> {
        let host = Host {
            client: self.clients.read.clone(),
            pools: self.writer.pool_writes.clone(),
            index: Arc::clone(&self.index),
            pods: self.pods.clone(),
            tally: self.metrics.pools.clone(),
        };
        Writers::new(host, Tasks::default())
    }

    fn allocator(
        &self,
        endpoint: Endpoint,
        leadership: watch::Receiver<Leadership>,
        writers: Arc<Writers<Host>>,
    ) -> (Arc<Allocator>, Box<dyn Serve>) {
        let client = &self.clients.read;
        let callers = Callers::new(client.clone(), endpoint.agents);
        let bound = Bound::new(self.pods.clone(), client.clone());
        let sight = self.sight.clone();
        let allocator = Allocator::new(callers, leadership, bound, sight, writers);
        (Arc::new(allocator), endpoint.serve)
    }

    fn wake(&self, dirty: Dirty) {
        for cidr in dirty {
            self.queue.add(cidr);
        }
    }

    /// Has a workload told why it can't be served. Until all subnets are known nothing is said:
    /// [`resync`] says it then.
    fn complain(&self, seen: &Seen) {
        if !self.writer.subnets.is_synced() {
            return;
        }
        match self.index.complaint(seen) {
            Some((reason, note)) => self.reports.complain(seen, reason, note),
            None => self.reports.settle(seen),
        }
    }
}

/// Looks at everything when leadership is won, and every [`RESYNC`] after that.
async fn resync(ctx: Arc<Context>, mut leadership: watch::Receiver<Leadership>) {
    loop {
        ctx.wake(ctx.index.all());
        for (seen, reason, note) in ctx.index.complaints() {
            ctx.reports.complain(&seen, reason, note);
        }
        tokio::select! {
            biased;
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RESYNC) => {}
        }
    }
}

/// Says of pools and subnets that no pass looks at, since nobody knows their CIDR, what is wrong
/// with them. Ends if the election does.
async fn strays(ctx: Arc<Context>, mut leadership: watch::Receiver<Leadership>) {
    loop {
        if !leads(&mut leadership).await {
            return;
        }
        for stray in ctx.index.strays() {
            ctx.reports.stray(&ctx.writer, &stray).await;
        }
        ctx.strays.notified().await;
    }
}

impl queue::Key for IpNet {
    /// CIDRs that share an address: a pass sees what the other one carved.
    fn excludes(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }
}

/// Hands keys to passes for as long as this replica leads. Ends if the election does, or when told
/// to stop.
async fn passes(
    ctx: Arc<Context>,
    mut leadership: watch::Receiver<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = told(&mut stop) => return finish(running).await,
            leads = leads(&mut leadership) => if !leads { return },
        }
        ctx.metrics.leads(true);
        tokio::select! {
            biased;
            () = told(&mut stop) => return finish(running).await,
            changed = leadership.changed() => {
                ctx.metrics.leads(false);
                if changed.is_err() {
                    return;
                }
            }
            Some(ended) = running.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a pass broke off; it is repeated");
            },
            key = ctx.queue.next(), if running.len() < PASSES_AT_ONCE => {
                start(&mut running, guarded_pass(ctx.clone(), key));
            }
        }
    }
}

/// Waits to be told to stop; nobody left to tell is told, too.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits until this replica leads; false if it never will.
async fn leads(leadership: &mut watch::Receiver<Leadership>) -> bool {
    let leads = leadership.wait_for(|l| *l == Leadership::Leader).await;
    leads.is_ok()
}

/// Lets passes end, so that no write is on its way when the Lease is given back: the next leader's
/// first pass then meets no conflict. One that hangs is broken off, and fences make that safe.
async fn finish(mut running: JoinSet<()>) {
    let all = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_WITHIN, all).await.is_err() {
        tracing::warn!(
            passes = running.len(),
            "passes broken off: they took too long to end"
        );
        running.shutdown().await;
    }
}

/// When a CIDR is looked at again.
#[derive(Debug, PartialEq, Eq)]
enum Again {
    /// When something changes.
    OnChange,
    /// After this long, or when something changes.
    Within(Duration),
    /// After this long and not before: the pass failed.
    After(Duration),
    /// After this long, or once it has rested and something changes: what could not be written will be
    /// refused again, and keeps nobody else waiting for long.
    Refused { after: Duration, rest: Duration },
}

/// Gives a key back to the queue when its pass ends, however it ends.
struct Running {
    ctx: Arc<Context>,
    cidr: IpNet,
    again: Again,
    /// How long the next pass waits at least.
    pause: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ctx
            .queue
            .gather(self.cidr, Instant::now() + self.pause);
        match self.again {
            Again::OnChange => {}
            Again::Within(delay) => self.ctx.queue.add_at(self.cidr, Instant::now() + delay),
            Again::After(delay) => self.ctx.queue.rest(self.cidr, Instant::now() + delay),
            Again::Refused { after, rest } => {
                let rest = self.pause.max(rest);
                self.ctx.queue.gather(self.cidr, Instant::now() + rest);
                self.ctx.queue.add_at(self.cidr, Instant::now() + after);
            }
        }
        self.ctx.queue.done(&self.cidr);
    }
}

async fn guarded_pass(ctx: Arc<Context>, cidr: IpNet) {
    // A pass that breaks off is repeated after the longest pause.
    let mut running = Running {
        ctx: ctx.clone(),
        cidr,
        again: Again::After(PASS_BACKOFF.1),
        pause: Duration::ZERO,
    };
    running.again = pass(&ctx, &cidr, &mut running.pause).await;
}

/// One pass over `cidr`; when to come again, and after what pause at least.
#[tracing::instrument(name = "pass", skip_all, fields(cidr = %cidr))]
async fn pass(ctx: &Context, cidr: &IpNet, pause: &mut Duration) -> Again {
    let (now, began) = (time::now(), Instant::now());
    let (seen, mut plan) = match observe(ctx, cidr, now).await {
        Ok(both) => {
            *pause = pause_after(&both.1, began.elapsed());
            both
        }
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "pools could not be listed; trying again");
            ctx.metrics.passed(PassOutcome::Failed, began.elapsed());
            return Again::After(ctx.next_delay(cidr, Outcome::Unknown));
        }
    };
    ctx.index.remember_surplus(cidr, &plan.surplus, now);
    plan.subnet.extend(report::subnet_conflict(&seen));
    let done = apply::apply(&ctx.writer, &seen, &plan).await;
    for subnet in seen
        .idle
        .iter()
        .filter(|s| s.metadata.deletion_timestamp.is_some())
    {
        apply::let_go(&ctx.writer, subnet).await;
    }
    log(&done);
    ctx.reports.report(&ctx.writer, &seen, &plan, &done).await;
    ctx.metrics.passed(outcome_of(&done), began.elapsed());
    if let Some(error) = done.errors.first() {
        return after_errors(&done, ctx.next_delay(cidr, error.outcome()));
    }
    ctx.backoffs
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(cidr);
    match plan.wake_at {
        None => Again::OnChange,
        Some(at) => Again::Within((at - now).to_std().unwrap_or_default()),
    }
}

/// When a pass comes again that met errors, the backoff of which is `delay`.
fn after_errors(done: &Done, delay: Duration) -> Again {
    let is_refused = |error: &ApplyError| error.outcome() == Outcome::Fatal;
    if !done.errors.iter().all(is_refused) {
        return Again::After(delay);
    }
    let [without_ledger, with_ledger] = REFUSED_REST;
    // Its own write of the ledger asks for the next pass, which may be refused the same again.
    let longest = if done.ledger_written {
        with_ledger
    } else {
        without_ledger
    };
    Again::Refused {
        after: delay,
        rest: delay.min(longest),
    }
}

/// What there is and what to do about it; with a live list of pools where the plan needs one.
async fn observe(
    ctx: &Context,
    cidr: &IpNet,
    now: DateTime<Utc>,
) -> Result<(Observed, Plan), kube::Error> {
    let seen = ctx.index.observe(cidr);
    let plan = plan::plan(&seen.snapshot, now);
    if !plan.needs_live {
        return Ok((seen, plan));
    }
    let api: Api<DeserializeGuard<SpiderIPPool>> = Api::all(ctx.clients.read.clone());
    let pools = api.list(&ListParams::default()).await?;
    if seen.subnet.is_none() {
        // Read after the pools: a pool is not admitted beside a ledger that was just begun.
        let api: Api<DeserializeGuard<SpiderSubnet>> = Api::all(ctx.clients.read.clone());
        for subnet in api.list(&ListParams::default()).await? {
            // One that can't be read is the cache's to tell of.
            if let Ok(subnet) = subnet.0 {
                ctx.writer.subnets.apply_written(subnet);
            }
        }
    }
    let seen = ctx.index.observe_live(cidr, pools.items);
    let plan = plan::plan(&seen.snapshot, now);
    Ok((seen, plan))
}

/// How long the next pass waits that follows `plan`, which took so long to make.
fn pause_after(plan: &Plan, took: Duration) -> Duration {
    let writes_ledger = |step: &Step| matches!(step, Step::Ledger { .. });
    let gathers = plan.steps.iter().any(writes_ledger);
    let gather = if gathers {
        LEDGER_PAUSE
    } else {
        Duration::ZERO
    };
    gather.max((took * REST).min(REST_MAX))
}

fn outcome_of(done: &Done) -> PassOutcome {
    let lost = |outcome| {
        matches!(
            outcome,
            Outcome::Conflict | Outcome::AlreadyExists | Outcome::Gone
        )
    };
    match done.errors.first() {
        None => PassOutcome::Done,
        Some(error) if lost(error.outcome()) => PassOutcome::Conflict,
        Some(_) => PassOutcome::Failed,
    }
}

fn log(done: &Done) {
    for (pool, because) in &done.wrote {
        tracing::info!(pool = %pool, because = %because, "pool written");
    }
    for error in &done.errors {
        match error.outcome() {
            Outcome::Conflict | Outcome::AlreadyExists | Outcome::Gone => {
                tracing::debug!(error = %ErrorChain(error), "another write was faster; planning again");
            }
            Outcome::Unknown | Outcome::Retryable { .. } | Outcome::Fatal => {
                tracing::warn!(error = %ErrorChain(error), "step failed; planning again");
            }
        }
    }
}

impl Context {
    fn next_delay(&self, cidr: &IpNet, outcome: Outcome) -> Duration {
        let mut backoffs = self.backoffs.lock().unwrap_or_else(PoisonError::into_inner);
        backoffs
            .entry(*cidr)
            .or_insert_with(|| Backoff::new(PASS_BACKOFF.0, PASS_BACKOFF.1))
            .next_delay_for(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn passes_end_before_the_controller_does_but_one_that_hangs_is_broken_off() {
        let (ended, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut running = JoinSet::new();
        let told = ended.clone();
        running.spawn(async move {
            tokio::time::sleep(STOP_WITHIN / 2).await;
            told.send("written").unwrap();
        });
        let start = Instant::now();
        finish(running).await;
        assert_eq!(heard.try_recv(), Ok("written"));
        assert_eq!(start.elapsed(), STOP_WITHIN / 2);

        let mut running = JoinSet::new();
        running.spawn(async move {
            let _held = ended;
            std::future::pending::<()>().await;
        });
        finish(running).await;
        assert_eq!(heard.recv().await, None, "broken off and dropped");
        assert_eq!(start.elapsed(), STOP_WITHIN / 2 + STOP_WITHIN);
    }

    #[test]
    fn what_is_refused_for_good_keeps_others_waiting_for_seconds_at_most() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(30));
        let error = |outcome| ApplyError::LeftOut {
            step: String::new(),
            outcome,
        };
        let again = |outcomes: &[Outcome], ledger_written, delay| {
            let done = Done {
                errors: outcomes.iter().copied().map(error).collect(),
                ledger_written,
                ..Done::default()
            };
            after_errors(&done, delay)
        };
        let refused = |after, rest| Again::Refused { after, rest };
        let fatal = [Outcome::Fatal; 2];
        assert_eq!(again(&fatal, false, short), refused(short, short));
        assert_eq!(again(&fatal, false, long), refused(long, REFUSED_REST[0]));
        assert_eq!(again(&fatal, true, long), refused(long, REFUSED_REST[1]));
        let mixed = [Outcome::Fatal, Outcome::Conflict];
        assert_eq!(again(&mixed, false, long), Again::After(long));
    }
}
