//! An ordered copy of one kind's objects, kept current by a watch and by our own writes.
//!
//! Owns: the feeding of a [`Cache`] and who is told of changes. Never does: decide what a change
//! means, or write. Invariants are those of its rules, which stand in `cache/store.rs` without IO;
//! above all *read your writes*: after [`Cache::apply_written`] no reader sees an older version, so
//! a pass never plans on a world its own last write has left behind.
//!
//! Why not `kube-runtime`'s reflector: it knows only the watch, so a reader can be behind its own
//! write, and its map has no order, which a deterministic simulation needs.
//!
//! **An object that is not here is not proven gone.** One that can't be read (stored under another
//! schema) is kept out and named by [`Cache::unreadable`], and a [`Change`] to it says so: whoever
//! frees what an object holds must tell the two apart.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::core::{DeserializeGuard, Resource};
use kube_runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tokio::sync::SetOnce;

mod store;

use self::store::Store;
pub use self::store::{Change, Held, Key, Unreadable};
use super::retry::Backoff;
use crate::error::ErrorChain;

/// First and longest cap of the pause after a failed list or watch.
const WATCH_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// A shared, ordered copy of one kind's objects. Clones are handles to the same copy.
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

type Listener<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Shared<K> {
    state: RwLock<State<K>>,
    synced: SetOnce<()>,
}

struct State<K> {
    store: Store<K>,
    listeners: Vec<Listener<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let state = State {
            store: Store::default(),
            listeners: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                state: RwLock::new(state),
                synced: SetOnce::new(),
            }),
        }
    }
}

impl<K> Cache<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// An empty cache, which [`Cache::run`] fills.
    pub fn new() -> Self {
        Self::default()
    }

    /// The object, if it is there. Cost: O(log n).
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().store.objects().get(key).cloned()
    }

    /// All objects, by namespace and name, as of one moment. Cost: O(n) reference counts.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().store.objects().values().cloned().collect()
    }

    /// Looks at all objects of one moment in place. `look` must not use this cache: it would wait
    /// for itself.
    pub fn look<R>(&self, look: impl FnOnce(&BTreeMap<Key, Arc<K>>) -> R) -> R {
        look(self.read().store.objects())
    }

    /// Objects that exist but can't be read. They are in no other answer but in [`Change`].
    pub fn unreadable(&self) -> BTreeMap<Key, Arc<Unreadable>> {
        self.read().store.unreadable().clone()
    }

    /// Has `listener` told of every change from now on, in their order, once readers can see it.
    ///
    /// It is called while the cache is locked: it should note the key and return, and must not use
    /// this cache. The change carries the object before and after.
    pub fn on_change(&self, listener: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.write().listeners.push(Box::new(listener));
    }

    /// Takes in what the API server answered to a write of ours, so that readers see it at once.
    ///
    /// Answers may come late and in any order; what is older than what is known changes nothing.
    pub fn apply_written(&self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let mut state = self.write();
        let change = state.store.written(object);
        state.tell(change);
    }

    /// Takes in that a live call found no object of this name and uid.
    pub fn apply_gone(&self, key: &Key, uid: &str) {
        let mut state = self.write();
        let change = state.store.gone(key, uid);
        state.tell(change);
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        self.shared.synced.initialized()
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        self.shared.synced.wait().await;
    }

    /// Lists and watches for ever, healing what fails. Drop the future to stop.
    ///
    /// `managedFields` are left out: they are half of a small object, and a PUT without them keeps
    /// the stored ones. `trim` takes out what no reader needs, of objects that are never written.
    pub async fn run(
        self,
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
        trim: fn(&mut K),
    ) {
        let resource = api.resource_url().to_owned();
        let mut events = pin!(watcher::watcher(api, config));
        let mut backoff = Backoff::new(WATCH_BACKOFF.0, WATCH_BACKOFF.1);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // The start of a list is no success yet.
                    if !matches!(event, Event::Init) {
                        backoff.reset();
                    }
                    let event = event.modify(|guard| {
                        guard.meta_mut().managed_fields = None;
                        if let Ok(object) = &mut guard.0 {
                            trim(object);
                        }
                    });
                    log_unreadable(&resource, &event);
                    self.watched(event);
                }
                Err(error) => {
                    let pause = backoff.next_delay();
                    tracing::warn!(
                        resource,
                        error = %ErrorChain(&error),
                        ?pause,
                        "watch failed; trying again"
                    );
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn watched(&self, event: Event<DeserializeGuard<K>>) {
        let done = matches!(event, Event::InitDone);
        let mut state = self.write();
        let changes = state.store.watched(event);
        state.tell(changes);
        drop(state);
        if done {
            // A later list changes nothing of it.
            let _ = self.shared.synced.set(());
        }
    }

    // A listener that panics leaves the store whole: changes are told after they are made.
    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        let state = self.shared.state.read();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        let state = self.shared.state.write();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_unreadable<K: Resource>(resource: &str, event: &Event<DeserializeGuard<K>>) {
    if let Event::Apply(guard) | Event::InitApply(guard) = event
        && let Err(invalid) = &guard.0
    {
        tracing::error!(
            resource,
            object = %Key::of(guard),
            error = invalid.error,
            "object can't be read; it is left alone until it is mended"
        );
    }
}

impl<K> State<K> {
    fn tell(&self, changes: impl IntoIterator<Item = Change<K>>) {
        for change in changes {
            for listener in &self.listeners {
                listener(&change);
            }
        }
    }
}

#[cfg(test)]
mod tests;
