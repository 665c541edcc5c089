//! Records without a living owner that no agent will release: found, confirmed, freed.
//!
//! Owns: when to look, the caches' half of a look, and carrying out what looks give. Never does:
//! decide ([`ipam::collect`] does), or free what an agent can: it marks the pools where agents should
//! look ([`label::LEAK`]). Invariants: only the leader acts; nothing is freed on a cache's word: Pod
//! and node are read once more before; a write replaces just the records that were judged, at the
//! version that has them.
//!
//! ```text
//! caches: records whose Pod is gone or ends ─ survey: nodes, endpoints ─ collect::judge
//!   ─ Suspects (two looks, brake) ─ free: live Pod and node, judge again ─ one PUT a pool
//!                                └ mark: pools for the agents of nodes that are well
//! ```
//!
//! Where nothing is suspicious, a look reads the endpoints' metadata (`stray`) and writes nothing.

mod free;
mod stray;
pub mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use ipam::collect::{self, Fate, Found, LostNodes, Policy, Suspects, Verdict};
use ipam::keep::{self, Keeps};
use ipam::leak::Holding;
use ipam::name::{PoolName, Uid};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::apply::{Writer, together};
use super::index::Switch;
use super::leads;
use super::metrics::{GcState, Metrics};
use super::report::Reports;
use crate::api::names::label;
use crate::api::{SpiderIPPool, pod};
use crate::error::ErrorChain;
use crate::kube_io::cache::{Cache, Key};
use crate::kube_io::clients::Clients;
use crate::kube_io::lease::Leadership;
use crate::kube_io::put::{Part, Reply};
use crate::kube_io::time;
use survey::{Ask, Survey};

/// What an operator chose.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Off: nothing is freed, and no agent is asked to look.
    pub on: Switch,
    /// From one look to the next.
    pub interval: Duration,
    /// When a record may go.
    pub policy: Policy,
    /// Whether machines of nodes that are not ready are asked for a sign of life; where they are not,
    /// none of them counts as lost by time alone.
    pub ask: Ask,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            on: Switch::On,
            interval: Duration::from_mins(10),
            policy: Policy {
                lost_nodes: LostNodes::ByTime,
                delay: TimeDelta::zero(),
            },
            ask: Ask::Machines,
        }
    }
}

/// What a look works with.
pub(super) struct Gc<'a> {
    pub(super) options: &'a Options,
    /// Whose Pods keep their addresses.
    pub(super) keeps: Keeps,
    pub(super) pods: &'a Cache<Pod>,
    pub(super) clients: &'a Clients,
    pub(super) writer: &'a Writer,
    pub(super) reports: &'a Reports,
    pub(super) metrics: &'a Metrics,
}

impl Gc<'_> {
    /// Looks for ever while this replica leads; ends if the election does. All caches are complete.
    pub(super) async fn run(&self, mut leadership: watch::Receiver<Leadership>) {
        loop {
            if !leads(&mut leadership).await {
                return;
            }
            // What another leader found, or this one long ago, is not known any more.
            let mut suspects = Suspects::default();
            let mut due = interval(self.options.interval);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    changed = leadership.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                    _ = due.tick() => self.look(&mut suspects).await,
                }
            }
            self.metrics.collectable(&[]);
        }
    }

    async fn look(&self, suspects: &mut Suspects) {
        let found = match self.options.on {
            Switch::Off => BTreeSet::new(),
            Switch::On => {
                let found = self.found(suspects).await;
                self.free(found.free.now).await;
                self.let_stray_go().await;
                found.for_agents
            }
        };
        self.mark(&found).await;
    }

    fn survey(&self) -> Survey {
        Survey::new(self.clients.read.clone(), self.options.ask, self.keeps)
    }

    /// What this look and those before give.
    async fn found(&self, suspects: &mut Suspects) -> Found {
        let now = time::now();
        let mut survey = self.survey();
        let (ends, total) = self.ends();
        let mut judged = Vec::new();
        for (holding, fate) in ends {
            let (pod, address) = (holding.pod.clone(), holding.address);
            match survey.see(holding, fate).await {
                Ok(seen) => {
                    let verdict = collect::judge(&seen, &self.options.policy, now);
                    judged.push((seen.holding, verdict));
                }
                Err(error) => {
                    tracing::warn!(%pod, %address, error = %ErrorChain(&error), "a record could not be judged; the next look does it");
                }
            }
        }
        let found = suspects.look(&judged, total, now);
        if found.free.braked > 0 {
            tracing::warn!(
                braked = found.free.braked,
                "many addresses seem to have no owner at once; they are freed only as further looks find the same"
            );
        }
        self.metrics
            .collectable(&states(&judged, found.free.braked));
        found
    }

    /// The records whose Pod does not live by the cache, and how many there are in all.
    fn ends(&self) -> (Vec<(Holding, Fate)>, usize) {
        let (mut ends, mut total) = (Vec::new(), 0);
        let mut launchers: Option<BTreeMap<Uid, Arc<Pod>>> = None;
        for pool in self.writer.pools.list() {
            for holding in survey::holdings(&pool) {
                total += 1;
                let (namespace, name) = holding.pod.parts();
                let mut found = self.pods.get(&Key::namespaced(namespace, name));
                if found.is_none() && survey::may_be_machine_s(&holding) {
                    let all = launchers.get_or_insert_with(|| self.launchers());
                    found = all.get(&holding.uid).cloned();
                }
                match pod::fate(found.as_deref(), &holding.uid) {
                    Fate::Lives => {}
                    fate @ (Fate::Ends { .. } | Fate::Gone) => ends.push((holding, fate)),
                }
            }
        }
        (ends, total)
    }

    /// The Pods that run virtual machines, by uid: records of the original name the machine.
    fn launchers(&self) -> BTreeMap<Uid, Arc<Pod>> {
        let pods = self.pods.list().into_iter();
        pods.filter(|found| keep::is_launcher(&pod::name(found)))
            .map(|found| (pod::uid(&found), found))
            .collect()
    }

    /// Marks just these pools for the agents to look at. Who is refused is marked at the next look.
    async fn mark(&self, wanted: &BTreeSet<PoolName>) {
        let pools = self.writer.pools.list();
        let others = pools.iter().filter(|pool| {
            let name = PoolName::new(pool.name_any());
            pool.labels().contains_key(label::LEAK) != wanted.contains(&name)
        });
        let work = others.map(|pool| self.toggle((**pool).clone())).collect();
        together(work).await;
    }

    async fn toggle(&self, mut pool: SpiderIPPool) {
        let labels = pool.labels_mut();
        if labels.remove(label::LEAK).is_none() {
            labels.insert(label::LEAK.to_owned(), label::SUSPECTED.to_owned());
        }
        let name = pool.name_any();
        let writes = &self.writer.pool_writes;
        if let Err(error) = writes.replace(Part::Main, &mut pool, Reply::Full).await {
            tracing::debug!(pool = name, error = %ErrorChain(&error), "mark for agents not written");
        }
    }
}

/// How many records are in which state.
fn states(judged: &[(Holding, Verdict)], braked: usize) -> Vec<(GcState, usize)> {
    let count = |of: fn(&Verdict) -> bool| judged.iter().filter(|(_, v)| of(v)).count();
    vec![
        (GcState::Agent, count(|v| matches!(v, Verdict::Agent(_)))),
        (GcState::Waiting, count(|v| matches!(v, Verdict::Waits(_)))),
        (GcState::Due, count(|v| matches!(v, Verdict::Goes(_)))),
        (GcState::Braked, braked),
    ]
}

#[cfg(test)]
mod tests;
