//! Waiting for a pool: until it changes, or a moment where nothing can be watched.
//!
//! Owns: the watches that are open while Pods wait, one for all who wait for the same, and the
//! Events that tell the Pod. Never does: decide whether waiting helps. A wake-up says only "look
//! again".

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, Shared, WeakShared, select_all};
use futures::{FutureExt, StreamExt};
use ipam::addr::AddrSet;
use ipam::keep::Held;
use ipam::name::{PoolName, Version};
use ipam::plan::ConditionKind;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource};
use kube_runtime::events::{Event, EventType, Recorder};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::locked;
use super::reads::{POOL_AGE, Reads};
use crate::api::conditions::ConditionStatus;
use crate::api::{SpiderIPPool, convert};
use crate::error::ErrorChain;
use crate::kube_io::memo::Age;
use crate::kube_io::tasks::Tasks;

/// Watches open at once; who finds none free looks again after a [`MOMENT`].
const WATCHES: usize = 64;
/// Pause before a new look where nothing is watched.
const MOMENT: Duration = Duration::from_millis(500);
/// A Pod that has waited this long is told of it.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Most characters of an Event's text: the API server takes 1,024 bytes.
const NOTE_MAX: usize = 900;

/// What may end the want of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wait {
    /// A pool gets a free address, or is admitted.
    Pool {
        name: PoolName,
        /// As it was when it could not serve.
        version: Version,
    },
    /// A Pod lets go of the address that the next one of its identity is to have.
    LetGo {
        held: Box<Held>,
        /// Of its pool when it was held.
        version: Version,
    },
    /// A pool with these labels is made.
    Pools {
        selector: String,
        /// Of the list that was empty.
        version: Version,
    },
    /// Something that moved just now and settles by itself.
    Moment,
    /// The API server answers again.
    Server,
}

/// The wait of one call for room in a pool. Its Pod is told when it lasts: where a pool is about to
/// follow its workload, nobody has to look.
pub(super) struct Room {
    /// Its end.
    pub(super) until: Instant,
    tell_at: Option<Instant>,
}

impl Room {
    /// From now on.
    pub(super) fn until(until: Instant) -> Self {
        Self {
            until,
            tell_at: Some(until.min(Instant::now() + TELL_AFTER)),
        }
    }

    /// Once, when it has lasted.
    pub(super) fn is_to_be_told(&mut self) -> bool {
        let told = self.tell_at.take_if(|at| *at <= Instant::now());
        told.is_some()
    }

    /// When something is to be done at the latest.
    pub(super) fn next(&self) -> Instant {
        self.tell_at.unwrap_or(self.until)
    }
}

/// A watch that several may wait for; it is open while one of them does.
type Watch = Shared<BoxFuture<'static, ()>>;

/// Waits for pools.
pub(super) struct Waits {
    client: Client,
    recorder: Recorder,
    tasks: Tasks,
    free: Arc<Semaphore>,
    /// By what is watched: a field or a label selector.
    open: Mutex<BTreeMap<String, WeakShared<BoxFuture<'static, ()>>>>,
}

impl Waits {
    pub(super) fn new(client: Client, recorder: Recorder, tasks: Tasks) -> Self {
        Self {
            client,
            recorder,
            tasks,
            free: Arc::new(Semaphore::new(WATCHES)),
            open: Mutex::default(),
        }
    }

    /// Returns when it is worth looking again.
    pub(super) async fn for_any(&self, waits: &[Wait]) {
        let each = waits.iter().map(|wait| self.one(wait).boxed());
        if !waits.is_empty() {
            select_all(each).await;
        }
    }

    async fn one(&self, wait: &Wait) {
        let by_name = |name| WatchParams::default().fields(&format!("metadata.name={name}"));
        let (key, params, version) = match wait {
            Wait::Pool { name, version } => (name.to_string(), by_name(name), version),
            Wait::LetGo { held, version } => {
                let key = format!("{} {} {}", held.pool, held.address, held.uid);
                (key, by_name(&held.pool), version)
            }
            Wait::Pools { selector, version } => {
                let params = WatchParams::default().labels(selector);
                (selector.clone(), params, version)
            }
            Wait::Moment | Wait::Server => return tokio::time::sleep(MOMENT).await,
        };
        self.shared(key, wait, params, version).await;
    }

    /// The watch that is open for the same `key`, else a new one from `version` on. One that began
    /// at an earlier version ends at an earlier event too: that costs a look.
    fn shared(&self, key: String, wait: &Wait, params: WatchParams, version: &Version) -> Watch {
        let mut open = locked(&self.open);
        open.retain(|_, watch| watch.upgrade().is_some_and(|watch| watch.peek().is_none()));
        if let Some(watch) = open.get(&key).and_then(WeakShared::upgrade) {
            return watch;
        }
        let (client, free) = (self.client.clone(), Arc::clone(&self.free));
        let (wait, version) = (wait.clone(), version.clone());
        let until = async move {
            let Ok(_permit) = free.try_acquire() else {
                return tokio::time::sleep(MOMENT).await;
            };
            if let Err(error) = watch(client, &wait, &params, &version).await {
                tracing::debug!(error = %ErrorChain(&error), "watch of an awaited IPPool ended");
                tokio::time::sleep(MOMENT).await;
            }
        };
        let watch = until.boxed().shared();
        if let Some(weak) = watch.downgrade() {
            open.insert(key, weak);
        }
        watch
    }

    /// Tells the Pod that it waits and for what; whether it could be told does not matter.
    pub(super) fn tell(&self, pod: &Pod, why: &str, longest: Duration) {
        let note = format!(
            "waiting up to {} s for an address: {why}",
            longest.as_secs()
        );
        self.warn(pod, "WaitingForIP", &note);
    }

    /// Tells the Pod what a person may want to mend.
    pub(super) fn warn(&self, pod: &Pod, reason: &str, note: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE_MAX).collect()),
            action: "AllocateIP".to_owned(),
            secondary: None,
        };
        let (recorder, about) = (self.recorder.clone(), pod.object_ref(&()));
        self.tasks.spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                tracing::warn!(error = %ErrorChain(&error), "Event could not be published");
            }
        });
    }
}

/// Returns at the first event that may help. An error too says that one should look again: the
/// version may be too old to go on from.
async fn watch(
    client: Client,
    wait: &Wait,
    params: &WatchParams,
    version: &Version,
) -> kube::Result<()> {
    let pools: Api<DeserializeGuard<SpiderIPPool>> = Api::all(client);
    let mut events = pin!(pools.watch(params, version.as_str()).await?);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(pool) | WatchEvent::Modified(pool) => {
                if may_help(wait, &pool) {
                    return Ok(());
                }
            }
            WatchEvent::Deleted(_) => return Ok(()),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    tokio::time::sleep(MOMENT).await;
    Ok(())
}

/// What the controller says of awaited pools that its subnet cannot fill: how many addresses are
/// missing, and what would mend it. Empty where it says nothing, or can't be asked.
pub(super) async fn shortfalls(reads: &Reads, waits: &[Wait]) -> Vec<String> {
    let mut said = Vec::new();
    for wait in waits {
        let Wait::Pool { name, .. } = wait else {
            continue;
        };
        let Ok(Some(reading)) = reads.pool(name, Age::Within(POOL_AGE)).await else {
            continue;
        };
        let status = reading.object.status.iter();
        let exhausted = status
            .flat_map(|status| &status.conditions)
            .find(|condition| {
                condition.type_ == ConditionKind::Exhausted.as_str()
                    && condition.status == ConditionStatus::True
            });
        said.extend(exhausted.map(|condition| condition.message.clone()));
    }
    said
}

/// False for the changes that others cause by taking the last addresses themselves.
fn may_help(wait: &Wait, pool: &DeserializeGuard<SpiderIPPool>) -> bool {
    let Ok(object) = &pool.0 else {
        return false;
    };
    let Ok(pool) = convert::pool(object) else {
        return true;
    };
    match wait {
        Wait::LetGo { held, .. } => {
            let record = pool.records.get(held.address);
            record.is_none_or(|record| record.kept || !record.is_held_by(&held.uid))
        }
        Wait::Pool { .. } | Wait::Pools { .. } | Wait::Moment | Wait::Server => {
            pool.terminating || (pool.is_admitted() && !pool.free(&AddrSet::new()).is_empty())
        }
    }
}
