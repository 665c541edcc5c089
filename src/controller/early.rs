//! Early binding (path 0): Pods that were given a node are recorded in the next batch of their pool,
//! so that the call of their first sandbox finds an address and writes nothing.
//!
//! Owns: which Pods are looked at, and when. Never does: decide ([`ipam::early`] does), choose an
//! address or write (the pool's writer does, with all nodes' claims), or matter: what it does not
//! bind, or binds too late, the node's agent asks for as ever. So nothing here is tried again.
//! Invariants: only the leader asks; nothing is asked for a Pod that is known to have ended; what is
//! recorded for one that ended before it started is its agent's to give back, and where that one
//! can't know, what the looks find ([`ipam::leak`], [`ipam::collect`]).

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ipam::annotation::{self, SubnetItem};
use ipam::attachment::{Attachment, Networks};
use ipam::early::{self, Choice, Network, Newcomer};
use ipam::ledger::Claim;
use ipam::name::{Nic, PoolName, Uid, WorkloadId};
use ipam::pool::Pool;
use ipam::select::PodFacts;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::allocator::Host;
use super::index::{Index, Served};
use super::metrics::Bind;
use super::queue::{self, Queue};
use super::{Context, leads};
use crate::api::names::{annotation as own, label};
use crate::api::{SpiderIPPool, pod};
use crate::kube_io::cache::{Change, Key};
use crate::kube_io::lease::Leadership;
use crate::pool_writer::Writers;

/// Most claims that wait for pools' writers at once; other Pods wait before them.
const AT_ONCE: usize = 1024;
/// Longest wait for an answer: by then a Pod's own call has come.
const CLAIM_MAX: Duration = Duration::from_secs(10);

/// The Pods that are to be looked at.
pub(super) struct Early {
    queue: Queue<Key>,
    leadership: watch::Receiver<Leadership>,
}

impl queue::Key for Key {
    fn excludes(&self, other: &Self) -> bool {
        self == other
    }
}

impl Early {
    /// Of a replica that acts when this says so.
    pub(super) fn new(leadership: watch::Receiver<Leadership>) -> Self {
        Self {
            queue: Queue::default(),
            leadership,
        }
    }

    /// A Pod came or changed.
    pub(super) fn pod(&self, new: &Pod) {
        if pod::waits_for_network(new) && pod::controller(new).is_some() {
            self.add(Key::of(new));
        }
    }

    /// A pool came or changed: who waits for it is looked at again where it has other addresses to
    /// give than before.
    pub(super) fn pool(&self, index: &Index, change: &Change<SpiderIPPool>) {
        let gives = |pool: &SpiderIPPool| {
            let admitted = pool.annotations().get(own::ADMITTED).cloned();
            (pool.meta().generation, admitted)
        };
        let (old, new) = (change.old.object(), change.new.object());
        let Some(new) = new.filter(|new| old.map(|old| gives(old)) != Some(gives(new))) else {
            return;
        };
        if let Some(owner) = new.labels().get(label::OWNER_UID) {
            for pod in index.waiting(&Uid::from(owner.as_str())) {
                let (namespace, name) = pod.parts();
                self.add(Key::namespaced(namespace, name));
            }
        }
    }

    /// Another replica looks at its own.
    fn add(&self, key: Key) {
        if *self.leadership.borrow() == Leadership::Leader {
            self.queue.add(key);
        }
    }
}

/// Binds for ever while this replica leads; ends if the election does, and not at all where nothing
/// is bound early. All caches are complete.
pub(super) async fn run(
    ctx: &Context,
    writers: &Writers<Host>,
    mut leadership: watch::Receiver<Leadership>,
) {
    let Some(early) = &ctx.early else {
        return std::future::pending().await;
    };
    while leads(&mut leadership).await {
        // Who got a node while another replica led, or nobody did.
        ctx.pods.list().iter().for_each(|pod| early.pod(pod));
        let mut claims = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                Some(()) = claims.next(), if !claims.is_empty() => {}
                key = early.queue.next(), if claims.len() < AT_ONCE => {
                    early.queue.done(&key);
                    let asks = asks(ctx, &key);
                    claims.extend(asks.into_iter().map(|ask| claim(ctx, writers, ask)));
                }
            }
        }
    }
}

/// An address to ask for.
type Ask = (PoolName, Claim);

/// What to ask for the Pod under `key`.
fn asks(ctx: &Context, key: &Key) -> Vec<Ask> {
    let Some(found) = ctx.pods.get(key).filter(|pod| pod::waits_for_network(pod)) else {
        return vec![];
    };
    let owner = pod::controller(&found).map(|owner| Uid::from(owner.uid.as_str()));
    let Some(served) = owner.and_then(|owner| ctx.index.served(&owner)) else {
        return vec![];
    };
    let newcomer = newcomer(&found, served.workload.clone());
    let Some((newcomer, items)) = newcomer.zip(items(&found, &served)) else {
        return vec![];
    };
    let pools: Vec<&Pool> = served.pools.iter().map(|pool| &**pool).collect();
    let families = ctx.index.families();
    let pod = &newcomer.facts.pod;
    let choices = early::choose(&newcomer, &items, &families, &pools);
    let choices = choices.unwrap_or_else(|why| {
        tracing::debug!(%pod, because = %why, "not bound early");
        vec![]
    });
    let asks = choices.into_iter().filter_map(|choice| {
        let Choice { nic, family, pool } = choice;
        match pool {
            Ok(pool) => Some((pool, claim_of(&newcomer, nic))),
            Err(why) => {
                tracing::debug!(%pod, %nic, %family, because = %why, "not bound early");
                None
            }
        }
    });
    asks.collect()
}

/// What the Pod asks of subnets: as its agent reads it, by its own annotations, else its workload's.
fn items(found: &Pod, served: &Served) -> Option<Vec<SubnetItem>> {
    let get = |key: &str| found.annotations().get(key).map(String::as_str);
    match annotation::asked_of_subnets(&get) {
        Ok(Some(items)) => Some(items),
        Ok(None) if !annotation::names_pools(&get) => served.own.clone(),
        Ok(None) | Err(_) => None,
    }
}

fn newcomer(found: &Pod, workload: WorkloadId) -> Option<Newcomer> {
    let not_read = || Err("not read before there is a sandbox".to_owned());
    Some(Newcomer {
        facts: PodFacts {
            pod: pod::name(found),
            labels: found.labels().clone(),
            node: pod::node(found)?,
            node_labels: not_read(),
            namespace_labels: not_read(),
            workload,
            attachment: Attachment::of(&Nic::default(), &Networks::default()),
        },
        uid: pod::uid(found),
        life: pod::life(found),
        network: if pod::is_on_host(found) {
            Network::Node
        } else {
            Network::Own
        },
    })
}

fn claim_of(newcomer: &Newcomer, nic: Nic) -> Claim {
    Claim {
        pod: early::facts_of(newcomer, &nic),
        uid: newcomer.uid.clone(),
        nic,
        sandbox: None,
        first: false,
        heritage: None,
    }
}

async fn claim(ctx: &Context, writers: &Writers<Host>, (pool, claim): Ask) {
    let (pod, nic) = (claim.pod.pod.clone(), claim.nic.clone());
    let deadline = Instant::now() + CLAIM_MAX;
    match writers.claim(&pool, claim, None, deadline).await {
        Ok(granted) => {
            ctx.metrics.asked_early(Bind::Bound);
            tracing::debug!(%pod, %nic, %pool, address = %granted.address, "bound early");
        }
        Err(error) => {
            ctx.metrics.asked_early(Bind::Refused);
            tracing::debug!(%pod, %nic, %pool, because = %error, "not bound early");
        }
    }
}

#[cfg(test)]
mod tests;
