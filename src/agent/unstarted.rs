//! Addresses that the leader recorded for Pods of this node which ended before they started: no
//! sandbox was given them, so no DEL may ever come.
//!
//! Owns: when to look for what is recorded for such a Pod. Never does: judge by the record alone:
//! what names no sandbox may be in use, and only this agent knows that it never gave it to one.
//! So Pods that were here before it are none of these: theirs `super::leaks` finds, and the
//! controller those of nodes that are lost. Releases go through the pools' writers, with a live look
//! at the Pod under the interface's turn.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ipam::leak::{Holding, holdings};
use ipam::name::{NodeName, label_value};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::Agent;
use super::error::LabelMap;
use super::leaks::{self, Because, LeakError};
use super::pods::Ended;
use crate::api::names::label;
use crate::error::ErrorChain;
use crate::kube_io::memo::Age;
use crate::kube_io::retry::Backoff;
use crate::pool_writer::DOUBT_MAX;

/// From a Pod's end to the first look: what the leader was about to write is written by then.
const FIRST: Duration = Duration::from_secs(1);
/// From the first look to the last: a write on its way has arrived by then, or never will, and the
/// leader knows of the Pod's end.
const LAST: Duration = DOUBT_MAX.saturating_add(Duration::from_secs(15));
/// First and longest cap of the pause after a look that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Tries of one look; what is left then, the looks of `super::leaks` find.
const TRIES: usize = 8;
/// Pods that are looked after at once; others wait.
const AT_ONCE: usize = 512;

/// Looks after those that ended, for ever; drop the future to stop.
pub(super) async fn run(agent: &Agent, mut ended: UnboundedReceiver<Ended>) {
    let mut looks = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = looks.next(), if !looks.is_empty() => {}
            Some(pod) = ended.recv(), if looks.len() < AT_ONCE => {
                if agent.memory.count_started(&pod.uid) < pod.interfaces {
                    looks.push(look_after(agent, pod));
                }
            }
            else => return,
        }
    }
}

async fn look_after(agent: &Agent, ended: Ended) {
    for pause in [FIRST, LAST] {
        sleep(pause).await;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        for _ in 0..TRIES {
            let Err(error) = look(agent, &ended).await else {
                break;
            };
            tracing::warn!(pod = %ended.pod, uid = %ended.uid, error = %ErrorChain(&error), "look for what is recorded for a Pod that never started failed; trying again");
            sleep(backoff.next_delay()).await;
        }
    }
}

async fn look(agent: &Agent, ended: &Ended) -> Result<(), LeakError> {
    let held = held(agent, ended).await?;
    leaks::free_all(agent, &held, Because::NeverStarted).await
}

/// What is recorded for the Pod, and names no sandbox: in pools of workloads of its Namespace, since
/// the leader binds in no other.
async fn held(agent: &Agent, ended: &Ended) -> Result<Vec<Holding>, LeakError> {
    let (namespace, _) = ended.pod.parts();
    let of_namespace = (
        label::OWNER_NAMESPACE.to_owned(),
        label_value(namespace).into_owned(),
    );
    let selector = LabelMap([of_namespace].into()).selector();
    let listing = agent.reads.pools(&selector, Age::live()).await?;
    let node = NodeName::new(&agent.settings.node);
    let pools = listing.pools.iter();
    let readable = pools.filter_map(|reading| reading.candidate.pool.as_ref().ok());
    let held = readable.flat_map(|pool| holdings(pool, &node));
    Ok(held
        .filter(|holding| holding.uid == ended.uid && holding.sandbox.is_none())
        .collect())
}
