//! The look at this node's own records, for those that no DEL will ever release.
//!
//! Owns: when to look, and carrying out what a look gives. Never does: decide what leaked: that is
//! [`ipam::leak`], to which it brings what the records, the Pods, the Node and the agent's memory
//! say. It is the net below `super::release`, not a way of its own: what it finds goes through the
//! pools' writers, with a live look at the Pod under the interface's turn. Nodes that are lost or
//! deleted have no agent, so theirs is the controller's.
//!
//! The controller, which knows all records and all Pods anyway, marks the pools where something
//! should have been released by an agent ([`label::LEAK`]). A look is one list of those, from the
//! API server's memory, which most often is empty: what a node receives does not grow with the
//! cluster. Without a controller nobody looks, and leaked addresses wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipam::leak::{Here, Holding, Kubelet, Suspects, holdings};
use ipam::name::{Nic, NodeName};
use ipam::release::{Life, Owner, Release};
use k8s_openapi::api::core::v1::Node;
use tokio::time::{Instant, sleep};

use super::Agent;
use super::pods;
use super::reads::ReadError;
use super::release::WRITE_MAX;
use crate::api::names::label;
use crate::api::node::is_ready;
use crate::error::ErrorChain;
use crate::kube_io::memo::Age;
use crate::kube_io::retry::Backoff;
use crate::pool_writer::{Attachment, CommitError};

/// From one look to the next; also before the first, so that who calls again after a restart was
/// heard.
const EVERY: Duration = Duration::from_mins(10);
/// The first look is put off by up to this, at random: agents of all nodes may start at once.
const SPREAD: Duration = Duration::from_mins(10);

/// Why a look or a release of it failed; the next look does it again.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeakError {
    #[error("could not look at the records of this node")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why an address is released that no DEL releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    /// Looks agree.
    Looks,
    /// This agent saw the Pod come and go, and gave it nothing.
    NeverStarted,
}

impl Because {
    fn text(self) -> &'static str {
        match self {
            Self::Looks => {
                "its Pod was gone and no sandbox nor network namespace of it known here, in two looks and live; the kubelet is ready"
            }
            Self::NeverStarted => "its Pod came and went here without a sandbox that was given it",
        }
    }
}

/// Looks for ever; drop the future to stop.
pub(super) async fn run(agent: &Agent) {
    let mut suspects = Suspects::default();
    sleep(EVERY + Backoff::new(SPREAD, SPREAD).next_delay()).await;
    loop {
        if let Err(error) = look(agent, &mut suspects).await {
            tracing::warn!(error = %ErrorChain(&error), "look for leaked addresses failed; the next does it again");
        }
        sleep(EVERY).await;
    }
}

async fn look(agent: &Agent, suspects: &mut Suspects) -> Result<(), LeakError> {
    let node = NodeName::new(&agent.settings.node);
    let held = held(agent, &node).await?;
    let mut seen = Vec::new();
    for holding in held {
        let life = life(agent, &holding).await?;
        let known = known(agent, &holding).await;
        seen.push((holding, life, known));
    }
    let is_any_gone = seen.iter().any(|(_, life, _)| *life == Life::Gone);
    let kubelet = if is_any_gone {
        kubelet(agent.reads.node(node.as_str(), Age::live()).await?)
    } else {
        Kubelet::Unknown
    };
    let found = suspects.look(seen, kubelet);
    if found.braked > 0 {
        tracing::warn!(
            braked = found.braked,
            "many addresses of this node look leaked at once; they are freed only if the next look finds the same"
        );
    }
    free_all(agent, &found.now, Because::Looks).await
}

/// The records of this node in the pools that the controller marked.
async fn held(agent: &Agent, node: &NodeName) -> Result<Vec<Holding>, ReadError> {
    let marked = format!("{}={}", label::LEAK, label::SUSPECTED);
    let listing = agent.reads.pools_as_remembered(&marked).await?;
    let pools = listing.pools.iter();
    let readable = pools.filter_map(|reading| reading.candidate.pool.as_ref().ok());
    Ok(readable.flat_map(|pool| holdings(pool, node)).collect())
}

/// By the watch while it says that the Pod is there, else by a live read.
async fn life(agent: &Agent, holding: &Holding) -> Result<Life, ReadError> {
    let cached = agent.pods.get(&holding.pod);
    let cached = cached.filter(|pod| pods::uid(pod) == holding.uid);
    match cached.map(|pod| pods::life(&pod)) {
        Some(life @ (Life::Alive | Life::Ending)) => Ok(life),
        Some(Life::Gone) | None => pods::life_now(&agent.reads, &holding.pod, &holding.uid).await,
    }
}

/// What this agent has to do with the interface; with any of the Pod's if the record names none.
async fn known(agent: &Agent, holding: &Holding) -> Here {
    let is_its = |of: &Attachment| {
        of.uid == holding.uid && holding.nic.as_ref().is_none_or(|nic| of.nic == *nic)
    };
    let is_followed = agent.memory.is_any_served(is_its) || agent.releases.is_any_kept(is_its);
    // One that an earlier agent served says nothing of itself but by its namespace.
    if is_followed || agent.namespaces.is_any_there(is_its).await {
        Here::Followed
    } else {
        Here::Unknown
    }
}

fn kubelet(node: Option<Arc<Node>>) -> Kubelet {
    if node.is_some_and(|node| is_ready(&node)) {
        Kubelet::Ready
    } else {
        Kubelet::Unknown
    }
}

/// [`free`], each; one that fails keeps no other from it.
///
/// Errors: the first one's.
pub(super) async fn free_all(
    agent: &Agent,
    leaked: &[Holding],
    because: Because,
) -> Result<(), LeakError> {
    let mut outcome = Ok(());
    for leaked in leaked {
        outcome = outcome.and(free(agent, leaked, because).await);
    }
    outcome
}

/// Frees what is recorded so, if its Pod is gone by a live look and this agent has nothing to do with
/// it.
///
/// Errors: it may be recorded still.
async fn free(agent: &Agent, leaked: &Holding, because: Because) -> Result<(), LeakError> {
    let of = Attachment {
        uid: leaked.uid.clone(),
        nic: leaked.nic.clone().unwrap_or_else(|| Nic::new("")),
    };
    let _turn = agent.turns.wait(&of).await;
    // A call may have come since the look.
    if known(agent, leaked).await == Here::Followed
        || (because == Because::NeverStarted && agent.memory.started(&of))
        || pods::life_now(&agent.reads, &leaked.pod, &leaked.uid).await? != Life::Gone
    {
        return Ok(());
    }
    let pools = BTreeSet::from([leaked.pool.clone()]);
    let keep_for = agent.keepers.of(&leaked.pod, &leaked.uid, None, &pools);
    let release = Release {
        uid: of.uid.clone(),
        nic: of.nic.clone(),
        node: None,
        owner: Owner::Gone,
        sandboxes: leaked.sandbox.iter().cloned().collect(),
        keep_for: keep_for.await?,
    };
    let deadline = Instant::now() + WRITE_MAX;
    match agent
        .paths
        .release(&leaked.pool, &leaked.pod, release, deadline)
        .await
    {
        Ok(released) => {
            for address in released.freed {
                tracing::info!(
                    pod = %leaked.pod, uid = %leaked.uid, pool = %leaked.pool, %address,
                    because = because.text(), "address released without a DEL"
                );
            }
            agent.memory.left(&of, &leaked.pool);
            Ok(())
        }
        Err(CommitError::Gone(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
