//! ADD: addresses for one interface of a Pod.
//!
//! Owns: the steps of the call and its time. Never does: choose a pool or an address: pools are
//! [`super::candidates`]', the judgement is [`ipam::select`]'s and the address the ledger's.
//! Invariants:
//!
//! * What a living Pod was given stays its own: a repeated call finds it and gets it again, also
//!   if only one family could be served, the pool has been switched off, or the agent was
//!   restarted in between. What it left to the next Pod of a StatefulSet is looked for in
//!   [`inherit`] where that one's annotations can't be read.
//! * A refusal is said only after a live look; what may pass by itself is waited for, watched, up
//!   to [`ROOM_MAX`]. Recording an address that is free has longer, [`ADD_MAX`]: it ends well, only
//!   later, when many nodes write one pool.

mod homes;
mod inherit;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cni::{IpamAddArgs, IpamAddResponse};
use futures::future::{join_all, try_join_all};
use ipam::addr::Family;
use ipam::ledger::Claim;
use ipam::name::{Nic, PodName, PoolName, Sandbox, Uid};
use ipam::select::{self, Denied, Miss, NoPool, PodFacts};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::{Instant, timeout_at};

use super::Agent;
use super::answer::Given;
use super::candidates::{self, Asked, Asker, FIRST_AGE, Found, Pools};
use super::error::{AddError, Failure, StandardError};
use super::fixed::Inheritance;
use super::former;
use super::pods;
use super::reads::{ReadError, not_found};
use super::wait::{self, Room, Wait};
use super::wishes::{self, Wishes};
use crate::error::ErrorChain;
use crate::kube_io::memo::Age;
use crate::pool_writer::{Attachment, CommitError, Granted, Reading};

/// Longest wait for an address to become free, or for a pool to be made; not for the API server.
const ROOM_MAX: Duration = Duration::from_secs(10);
/// Longest time from the call's turn to its answer; the plugin waits twice as long.
pub(super) const ADD_MAX: Duration = Duration::from_secs(45);

/// One ADD on its way.
struct Call<'a> {
    agent: &'a Agent,
    args: &'a IpamAddArgs,
    asker: Asker,
    of: Attachment,
    /// True where no other sandbox of the interface ever called; only asked where it matters.
    first: bool,
    deadline: Instant,
}

/// What a claim says of the Pod.
struct Claimant {
    facts: PodFacts,
    inherits: Option<Inheritance>,
}

/// Pools to try for one family, in order.
struct Plan {
    family: Family,
    pools: Vec<(PoolName, Option<Arc<Reading>>)>,
}

impl Agent {
    /// Addresses for the interface that `args` names: those it has, or new ones.
    ///
    /// Errors: [`AddError`]; each may be answered by repeating the call.
    pub(super) async fn add(&self, args: &IpamAddArgs) -> Result<IpamAddResponse, AddError> {
        let name = PodName::new(&args.pod_namespace, &args.pod_name);
        let pod = self.pod_to_serve(&name, &args.pod_uid).await?;
        let of = Attachment {
            uid: pods::uid(&pod),
            nic: Nic::from(args.if_name.as_str()),
        };
        let _turn = self.turns.wait(&of).await;
        let pod = self.pod_to_serve(&name, of.uid.as_str()).await?;
        let sandbox = Sandbox::from(args.container_id.as_str());
        let whole = !self.pods.is_elder(&of.uid);
        let first = self.memory.called(&of, &sandbox, whole) && self.settings.early_binding;
        let workload = pods::workload(&self.reads, &pod).await;
        let workload = workload.map_err(|reason| AddError::Owner { pod: name, reason })?;
        let nic = of.nic.clone();
        let call = Call {
            agent: self,
            args,
            asker: Asker { pod, workload, nic },
            of,
            first,
            deadline: Instant::now() + ADD_MAX,
        };
        let given = call.allocate().await?;
        if given.granted.iter().all(|granted| granted.early) {
            self.metrics.bound_early();
        }
        self.namespaces
            .note(&call.of, Path::new(&args.net_namespace))
            .await;
        self.memory
            .settle(&call.of, sandbox.clone(), &given.granted);
        self.releases.supersede(&call.of, &sandbox).await;
        tracing::info!(addresses = %given, "addresses given");
        Ok(self.answer(&call.asker, &given))
    }

    /// The Pod the call is for: it lives, and it is the one the sandbox was made for.
    async fn pod_to_serve(&self, name: &PodName, asked: &str) -> Result<Arc<Pod>, AddError> {
        let is_asked = |pod: &Pod| pods::uid(pod).as_str() == asked;
        let cached = self.pods.get(name).filter(|pod| is_asked(pod));
        let pod = if let Some(cached) = cached {
            cached
        } else {
            let gone = |reason| AddError::Pod {
                pod: name.clone(),
                reason,
            };
            let found = self.reads.pod(name).await.map_err(|e| gone(e.said()))?;
            let (_, short) = name.parts();
            Arc::new(found.ok_or_else(|| gone(not_found("Pod", short)))?)
        };
        if !asked.is_empty() && !is_asked(&pod) {
            return Err(AddError::Replaced {
                pod: name.clone(),
                found: pods::uid(&pod),
                asked: Uid::from(asked),
            });
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if node != Some(self.settings.node.as_str()) {
            return Err(AddError::OtherNode {
                pod: name.clone(),
                found: node.unwrap_or("none yet").to_owned(),
                own: self.settings.node.clone(),
            });
        }
        if pods::is_alive(&pod) {
            Ok(pod)
        } else {
            Err(AddError::Dead(name.clone()))
        }
    }
}

impl Call<'_> {
    /// Addresses, up to the deadline; then the reason why there were none.
    async fn allocate(&self) -> Result<Given, StandardError> {
        let mut why = StandardError::Late(ADD_MAX);
        let tried = timeout_at(self.deadline, self.insist(&mut why)).await;
        tried.unwrap_or(Err(why))
    }

    /// Tries until there are addresses, or nothing to wait for; `last` is why there were none so far.
    async fn insist(&self, last: &mut StandardError) -> Result<Given, StandardError> {
        let mut age = FIRST_AGE;
        let mut room = None;
        loop {
            let hold = self.agent.endpoints.hold();
            let failure = match self.attempt(age).await {
                Ok(given) => return Ok(given),
                Err(failure) => failure,
            };
            drop(hold);
            if age == FIRST_AGE {
                // What was read a moment ago may have changed since.
                age = Age::live();
                continue;
            }
            if failure.waits.is_empty() {
                return Err(failure.error);
            }
            let (until, next) = if failure.is_silence() {
                (self.deadline, self.deadline)
            } else {
                let room = room.get_or_insert_with(|| {
                    Room::until(self.deadline.min(Instant::now() + ROOM_MAX))
                });
                if room.is_to_be_told() {
                    self.tell(&failure).await;
                }
                (room.until, room.next())
            };
            *last = failure.error;
            let _waiting = self.agent.metrics.wait();
            let moved = self.agent.waits.for_any(&failure.waits);
            if timeout_at(next, moved).await.is_err() && next == until {
                return Err(std::mem::replace(last, StandardError::Late(ADD_MAX)));
            }
            age = Age::live();
        }
    }

    /// Tells the Pod that it waits and for what.
    async fn tell(&self, failure: &Failure) {
        let mut why = vec![failure.error.to_string()];
        why.extend(wait::shortfalls(&self.agent.reads, &failure.waits).await);
        let why = why.join("; ");
        self.agent.waits.tell(&self.asker.pod, &why, ROOM_MAX);
        tracing::info!(because = why, "waiting for an address");
    }

    /// One try: the addresses it has already, else those its rules give it.
    async fn attempt(&self, age: Age) -> Result<Given, Failure> {
        let homes = self.homes().await?;
        let wishes = self.wishes().await;
        if homes.settled
            && let Some(granted) = self.reuse(&homes.pools).await
        {
            let wishes = wishes.unwrap_or_else(|failure| self.no_wishes(&failure));
            return Ok(Given { granted, wishes });
        }
        let (wishes, asked) = match self.asked(wishes, age).await {
            Ok(asked) => asked,
            Err(failure) => return self.inherit(failure).await,
        };
        let mut found = Vec::new();
        for asked in &asked {
            let pools = candidates::find(&self.agent.reads, asked, age).await?;
            self.note_own(asked, &pools);
            // Only "the default pools" may be none; then the family is not served.
            if !pools.readings.is_empty() {
                found.push(pools);
            }
        }
        if found.is_empty() {
            return Err(StandardError::NoRule.into());
        }
        let claimant = self.claimant(&found, age).await?;
        let mut plans = Vec::new();
        for found in &found {
            plans.push(self.plan(found, homes.pools.get(&found.family), &claimant)?);
        }
        let tries = plans.iter().map(|plan| self.take_one(plan, &claimant));
        let granted = all_or_nothing(join_all(tries).await)?;
        Ok(Given { granted, wishes })
    }

    /// Notes the pools in which the leader may have bound addresses before this call.
    fn note_own(&self, asked: &Asked, found: &Found) {
        let is_own = matches!(asked.pools, Pools::Auto(_));
        if is_own && self.agent.settings.early_binding {
            for reading in &found.readings {
                self.agent.memory.asks(&self.of, &reading.candidate.name);
            }
        }
    }

    /// What the Pod's annotations say of the interface.
    async fn wishes(&self) -> Result<Wishes, Failure> {
        let pod = &self.asker.pod;
        let called = if wishes::counts_interfaces(pod) {
            self.interfaces().await?
        } else {
            Vec::new()
        };
        let (settings, clean) = (&self.agent.settings, self.args.clean_gateway);
        Ok(wishes::read(settings, pod, &self.of.nic, &called, clean)?)
    }

    /// An interface keeps its addresses whatever became of its Pod's annotations.
    fn no_wishes(&self, failure: &Failure) -> Wishes {
        let why = failure.error.to_string();
        tracing::warn!(
            because = why,
            "its addresses stay, its annotations don't count"
        );
        Wishes {
            clean_gateway: self.args.clean_gateway,
            ..Wishes::default()
        }
    }

    /// The Pod's interfaces in the order in which each asked first; an earlier agent may have seen
    /// the first of them.
    async fn interfaces(&self) -> Result<Vec<Nic>, ReadError> {
        let (agent, uid) = (self.agent, &self.of.uid);
        let mut called = Vec::new();
        if agent.pods.is_elder(uid) {
            let pod = &self.asker.pod;
            let (of, since) = ((&pods::name(pod), uid), Age::Since(agent.began));
            let networks = wishes::networks(&agent.settings, pod);
            called = former::interfaces(&agent.reads, of, &networks, since).await?;
        }
        for nic in agent.memory.interfaces(uid) {
            if !called.contains(&nic) {
                called.push(nic);
            }
        }
        Ok(called)
    }

    async fn claimant(&self, found: &[Found], age: Age) -> Result<Claimant, Failure> {
        let (settings, reads) = (&self.agent.settings, &self.agent.reads);
        Ok(Claimant {
            facts: candidates::facts(settings, reads, &self.asker, found, age).await,
            inherits: Inheritance::of(settings, reads, &self.asker, found).await?,
        })
    }

    /// The addresses that the interface has, recorded anew for this sandbox.
    ///
    /// `None` where they are not to be had any more: then the call is as any other.
    async fn reuse(&self, homes: &BTreeMap<Family, PoolName>) -> Option<Vec<Granted>> {
        let claimant = self.claimant(&[], FIRST_AGE).await.ok()?;
        let each = homes.values().map(|pool| self.claim(pool, &claimant, None));
        match try_join_all(each).await {
            Ok(granted) => Some(granted),
            Err(error) => {
                tracing::warn!(because = %error, "addresses given before are not to be had again");
                None
            }
        }
    }

    /// The pools to try: one that has the interface's record already, then those the core selects.
    fn plan(
        &self,
        found: &Found,
        home: Option<&PoolName>,
        claimant: &Claimant,
    ) -> Result<Plan, Failure> {
        let Claimant { facts, inherits } = claimant;
        let recorded = found.readings.iter().find(|reading| {
            self.has_record(reading)
                || inherits
                    .as_ref()
                    .is_some_and(|i| i.is_of(reading, &self.asker))
        });
        let home = home.or(recorded.map(|reading| &reading.candidate.name));
        let (candidates, family) = (found.candidates(), found.family);
        let selected = select::select(&candidates, &self.of.nic, family, facts, found.order);
        let pools = select::with_home(home, selected).map_err(|refused| no_pool(refused, found))?;
        let pools = pools
            .into_iter()
            .map(|pool| (pool.clone(), found.reading(&pool).cloned()));
        Ok(Plan {
            family,
            pools: pools.collect(),
        })
    }

    /// An address of the first pool that gives one.
    async fn take_one(&self, plan: &Plan, claimant: &Claimant) -> Result<Granted, Failure> {
        let (mut tried, mut waits) = (vec![], vec![]);
        for (pool, reading) in &plan.pools {
            let (miss, wait) = match self.claim(pool, claimant, reading.clone()).await {
                Ok(granted) => return Ok(granted),
                // It has an address here, so it gets no other.
                Err(CommitError::Held { held, version }) => {
                    let waits = vec![Wait::LetGo {
                        held: held.clone(),
                        version,
                    }];
                    let error = StandardError::Held(held);
                    return Err(Failure { error, waits });
                }
                Err(CommitError::Exhausted { why, version }) => {
                    let name = pool.clone();
                    (Miss::Exhausted(why), Wait::Pool { name, version })
                }
                // It was selected a moment ago, so it has just changed.
                Err(CommitError::Refused(why)) => (Miss::Refused(why), Wait::Moment),
                Err(CommitError::Gone(pool)) => (Miss::Gone(pool), Wait::Moment),
                Err(error @ (CommitError::Write { .. } | CommitError::Doubt(_))) => {
                    return Err(error.into());
                }
            };
            tried.push((pool.clone(), miss));
            waits.push(wait);
        }
        let error = match select::deny(plan.family, &self.of.nic, tried) {
            Denied::NoPool(error) => error.into(),
            Denied::NoAddress(error) => error.into(),
        };
        Err(Failure { error, waits })
    }

    /// An address of `pool`. One that a former Pod still has is asked for again if it can be known
    /// to have let go.
    async fn claim(
        &self,
        pool: &PoolName,
        claimant: &Claimant,
        reading: Option<Arc<Reading>>,
    ) -> Result<Granted, CommitError> {
        let (settings, reads) = (&self.agent.settings, &self.agent.reads);
        let mut inherits = claimant.inherits.clone();
        let first = self.claim_as(pool, claimant, inherits.as_ref(), reading);
        let first = first.await;
        let (Err(CommitError::Held { held, .. }), Some(inherits)) = (&first, &mut inherits) else {
            return first;
        };
        match inherits.learn(settings, reads, &self.asker, held).await {
            Ok(true) => self.claim_as(pool, claimant, Some(inherits), None).await,
            Ok(false) => first,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "nobody knows whether the former Pod's node is lost");
                first
            }
        }
    }

    async fn claim_as(
        &self,
        pool: &PoolName,
        claimant: &Claimant,
        inherits: Option<&Inheritance>,
        reading: Option<Arc<Reading>>,
    ) -> Result<Granted, CommitError> {
        let claim = Claim {
            pod: claimant.facts.clone(),
            uid: self.of.uid.clone(),
            nic: self.of.nic.clone(),
            sandbox: Some(Sandbox::from(self.args.container_id.as_str())),
            first: self.first,
            heritage: inherits.map(|inherits| inherits.heritage.clone()),
        };
        let paths = &self.agent.paths;
        paths.claim(pool, claim, reading, self.deadline).await
    }
}

fn no_pool(refused: NoPool, found: &Found) -> Failure {
    let mut waits = Vec::new();
    if refused.may_pass() {
        waits.extend(found.readings.iter().map(|reading| Wait::Pool {
            name: reading.candidate.name.clone(),
            version: candidates::version(reading),
        }));
    }
    Failure {
        error: refused.into(),
        waits,
    }
}

/// Both families, or why not. What one of them got stays recorded for the next call.
fn all_or_nothing(tries: Vec<Result<Granted, Failure>>) -> Result<Vec<Granted>, Failure> {
    let (mut granted, mut failures) = (Vec::new(), Vec::new());
    for one in tries {
        match one {
            Ok(grant) => granted.push(grant),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        return Ok(granted);
    }
    let hopeless = failures.iter().any(|failure| failure.waits.is_empty());
    let mut waits: Vec<Wait> = failures
        .iter()
        .flat_map(|failure| failure.waits.iter().cloned())
        .collect();
    if hopeless {
        waits.clear();
    }
    let mut errors: Vec<StandardError> = failures.into_iter().map(|f| f.error).collect();
    let error = match (errors.pop(), errors.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            errors.extend(last);
            StandardError::Both(errors)
        }
    };
    Err(Failure { error, waits })
}
