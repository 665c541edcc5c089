//! Endpoints that an earlier agent did not write: it ended between its answer and the endpoint.
//!
//! Owns: a look after a start at each Pod that was here before this agent, once it has its network,
//! and what its endpoint should say, as the records have it: before, it may have got a part of what
//! it asks for. Never does: write one ([`super::endpoint`] does, as for any call), or look at a Pod
//! twice of which it knows what it wanted. What the CNI configuration said to the earlier agent
//! (`cleanGateway`) is not known any more, and told as false.
//!
//! Cost: one GET for each Pod of the node; a list of all pools only where an endpoint tells of fewer
//! interfaces than its Pod has: it lacks some, or another plugin serves them, which the records tell.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ipam::name::Nic;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::{Instant, sleep};

use super::Agent;
use super::answer::Given;
use super::candidates::Asker;
use super::pods;
use super::reads::{Listing, ReadError};
use super::wishes;
use super::{endpoint, former};
use crate::api::pod::{has_own_network, waits_for_network};
use crate::error::ErrorChain;
use crate::kube_io::memo::Age;
use crate::kube_io::retry::Backoff;
use crate::pool_writer::Attachment;

/// The look is put off by up to this, at random: agents of all nodes may start at once.
const SPREAD: Duration = Duration::from_secs(20);
/// First and longest cap of the pause after a look that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How long it is looked again: a Pod may be one of a workload that is gone, or that may not be read.
const LOOKS_FOR: Duration = Duration::from_mins(10);

/// Why a Pod has to be looked at again.
#[derive(Debug, thiserror::Error)]
enum UntoldError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("whose Pod it is could not be found out: {0}")]
    Owner(String),
}

/// A Pod whose endpoint lacks interfaces.
struct Untold {
    pod: Arc<Pod>,
    told: Vec<Nic>,
}

/// Looks at each Pod once; again at those of which something could not be read, and at those that
/// have no network yet.
pub(super) async fn run(agent: &Agent) {
    sleep(Backoff::new(SPREAD, SPREAD).next_delay()).await;
    let mut left = agent.pods.elders();
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let until = Instant::now() + LOOKS_FOR;
    while Instant::now() < until {
        left = look(agent, left).await;
        if left.is_empty() {
            return;
        }
        sleep(backoff.next_delay()).await;
    }
}

/// Returns the Pods that have to be looked at again.
async fn look(agent: &Agent, pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    let (mut again, mut lacking) = (Vec::new(), Vec::new());
    for pod in pods {
        let now = agent.pods.get(&pods::name(&pod));
        let Some(pod) = now.filter(|now| pods::uid(now) == pods::uid(&pod)) else {
            continue;
        };
        if !is_to_have_one(agent, &pod) {
            continue;
        }
        // What is recorded may not be all that it gets. When its sandbox asks, this agent tells.
        if waits_for_network(&pod) {
            again.push(pod);
            continue;
        }
        match told(agent, &pod).await {
            Ok(told) if told.len() >= wishes::interfaces(&agent.settings, &pod) => {}
            Ok(told) => lacking.push(Untold { pod, told }),
            Err(error) => {
                say_failed(pods::name(&pod), &error.into());
                again.push(pod);
            }
        }
    }
    if lacking.is_empty() {
        return again;
    }
    let listing = match agent.reads.pools("", Age::Since(agent.began)).await {
        Ok(listing) => listing,
        Err(error) => {
            say_failed("all IPPools", &error.into());
            again.extend(lacking.into_iter().map(|untold| untold.pod));
            return again;
        }
    };
    for untold in lacking {
        if let Err(error) = tell(agent, &untold, &listing).await {
            say_failed(pods::name(&untold.pod), &error);
            again.push(untold.pod);
        }
    }
    again
}

fn say_failed(at: impl Display, error: &UntoldError) {
    tracing::warn!(%at, error = %ErrorChain(error), "look for SpiderEndpoints that an earlier agent did not write failed");
}

fn is_to_have_one(agent: &Agent, pod: &Pod) -> bool {
    let is_of_set = pods::stateful_set(pod).is_some();
    endpoint::is_written(&agent.settings, is_of_set) && pods::is_alive(pod) && has_own_network(pod)
}

/// The interfaces that the Pod's endpoint tells of, or is about to.
async fn told(agent: &Agent, pod: &Pod) -> Result<Vec<Nic>, ReadError> {
    let name = pods::name(pod);
    let there = agent.reads.endpoint(&name).await?;
    let there = agent.endpoints.overlay(&name, there);
    Ok(endpoint::interfaces_of(there.as_ref(), &pods::uid(pod)))
}

/// Has the endpoint tell what is recorded for the Pod and it does not tell yet.
async fn tell(agent: &Agent, untold: &Untold, listing: &Listing) -> Result<(), UntoldError> {
    let Untold { pod, told } = untold;
    let (name, uid) = (pods::name(pod), pods::uid(pod));
    let networks = wishes::networks(&agent.settings, pod);
    let nics = former::recorded(listing, &uid, &networks);
    let lacking: Vec<&Nic> = nics.iter().filter(|nic| !told.contains(nic)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let workload = pods::workload(&agent.reads, pod).await;
    let workload = workload.map_err(UntoldError::Owner)?;
    for nic in lacking {
        let of = Attachment {
            uid: uid.clone(),
            nic: nic.clone(),
        };
        let _turn = agent.turns.wait(&of).await;
        // Who calls this agent is told of by it, with what it gives now.
        if agent.memory.trace(&of).settled.is_some() {
            continue;
        }
        let wishes = wishes::read(&agent.settings, pod, nic, &nics, false);
        let given = Given {
            granted: former::granted(listing, &of),
            wishes: wishes.unwrap_or_default(),
        };
        let asker = Asker {
            pod: Arc::clone(pod),
            workload: workload.clone(),
            nic: nic.clone(),
        };
        tracing::info!(pod = %name, %nic, addresses = %given, "SpiderEndpoint tells what an earlier agent gave");
        agent.note(&asker, &given, given.table().kept);
    }
    Ok(())
}
