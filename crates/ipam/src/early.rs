//! Early binding: an address for a Pod that has a node and no sandbox yet, so that its sandbox finds
//! it recorded.
//!
//! Owns: which Pods, and which pool for each of their interfaces. Never does: choose an address, or
//! know a rule of its own: [`select::admit`] says who may serve, as it does when the sandbox asks.
//! Invariants: only pools that the controller made for the Pod's workload are chosen, and no answer
//! rests on what only the node knows; where one would, the node's agent gives the address, as it
//! does for every Pod that is left out here. So an error is no news to anybody: the agent says it.

use crate::addr::Family;
use crate::annotation::SubnetItem;
use crate::attachment::{Attachment, Networks};
use crate::keep;
use crate::name::{Nic, PoolName, Uid};
use crate::pool::Pool;
use crate::release::Life;
use crate::select::{self, PodFacts, Refusal};

/// Which network a Pod is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// One of its own.
    Own,
    /// Its node's.
    Node,
}

/// A Pod that was given a node.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// What pools ask of it; their labels of node and Namespace are not read.
    pub facts: PodFacts,
    /// Its uid.
    pub uid: Uid,
    /// How near its end it is.
    pub life: Life,
    /// Which network it is on.
    pub network: Network,
}

/// Why nothing is bound early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbound {
    /// It needs no address any more.
    #[error("the Pod ends")]
    Ends,
    /// It needs none at all.
    #[error("the Pod is on its node's network")]
    OnHost,
    /// What its former Pod had is its own, and whether that one let go is its node's to say.
    #[error("the addresses of the Pods of {0} are fixed")]
    Keeps(String),
    /// There is no pool of its workload for the interface yet.
    #[error("there is no pool of the workload for {0}")]
    NoPool(Nic),
    /// It has an address already.
    #[error("IPPool {0} has a record of it")]
    Recorded(PoolName),
    /// The pool asks for what is not known here.
    #[error("IPPool {0} asks for labels of nodes or Namespaces, or for Multus networks")]
    Restricted(PoolName),
    /// No pool may serve it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What becomes of one interface and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The interface.
    pub nic: Nic,
    /// The family.
    pub family: Family,
    /// The pool that is asked for an address, or why none is.
    pub pool: Result<PoolName, Unbound>,
}

/// The pools in which `pod` is to be recorded, whose workload asks for `items` and has `pools`; of
/// `families` only.
///
/// Errors: the Pod is none for which anything is bound early. Cost: O(items · pools + records).
pub fn choose(
    pod: &Newcomer,
    items: &[SubnetItem],
    families: &[Family],
    pools: &[&Pool],
) -> Result<Vec<Choice>, Unbound> {
    may_be_bound(pod)?;
    let mut choices = Vec::new();
    for item in items {
        for family in families {
            if let Some(subnet) = item.subnet(*family) {
                let is_its = |pool: &&&Pool| {
                    let owner = pool.owner.as_ref();
                    let workload = &pod.facts.workload;
                    pool.family() == *family
                        && owner.is_some_and(|owner| owner.is(workload, &item.nic, subnet))
                };
                let its = pools.iter().filter(is_its).copied().collect();
                choices.push(Choice {
                    nic: item.nic.clone(),
                    family: *family,
                    pool: choose_pool(pod, &item.nic, *family, its),
                });
            }
        }
    }
    Ok(choices)
}

fn may_be_bound(pod: &Newcomer) -> Result<(), Unbound> {
    let workload = &pod.facts.workload;
    if pod.life != Life::Alive {
        return Err(Unbound::Ends);
    }
    if pod.network == Network::Node {
        return Err(Unbound::OnHost);
    }
    if keep::may_keep(workload) || keep::is_launcher(&pod.facts.pod) {
        return Err(Unbound::Keeps(workload.to_string()));
    }
    Ok(())
}

/// The first of the interface's own pools that may serve; an agent tries them in this order.
fn choose_pool(
    pod: &Newcomer,
    nic: &Nic,
    family: Family,
    mut pools: Vec<&Pool>,
) -> Result<PoolName, Unbound> {
    let recorded = |pool: &&&Pool| pool.records.find(&pod.uid, nic).is_some();
    if let Some(pool) = pools.iter().find(recorded) {
        return Err(Unbound::Recorded(pool.name.clone()));
    }
    pools.sort_by_key(|pool| (pool.terminating, &pool.name));
    let mut unbound = Unbound::NoPool(nic.clone());
    let facts = facts_of(pod, nic);
    for (nth, pool) in pools.into_iter().enumerate() {
        if asks_for_more(pool) {
            // Whether it or the next one serves, its agent finds out.
            return Err(Unbound::Restricted(pool.name.clone()));
        }
        match select::admit(pool, family, &facts) {
            Ok(()) => return Ok(pool.name.clone()),
            Err(refusal) if nth == 0 => unbound = refusal.into(),
            Err(_) => {}
        }
    }
    Err(unbound)
}

/// The Pod's facts for one interface. A pool of its workload's own asks for no network behind it.
pub fn facts_of(pod: &Newcomer, nic: &Nic) -> PodFacts {
    PodFacts {
        attachment: Attachment::of(nic, &Networks::default()),
        ..pod.facts.clone()
    }
}

/// True where a pool asks for what is known on a node, or is not kept here.
fn asks_for_more(pool: &Pool) -> bool {
    let limits = &pool.restrictions;
    limits.node_affinity.is_some()
        || !limits.node_names.is_empty()
        || limits.namespace_affinity.is_some()
        || !limits.networks.is_empty()
}

#[cfg(test)]
mod tests;
