//! Which of two versions of an object is the current one: the cache's rules, without IO.
//!
//! Owns: the merging of two streams that know nothing of each other, the watch and our own writes.
//! Never does: wait, lock, or call the API server. Invariants, once listed:
//!
//! * An object never goes back to an older version.
//! * What was written is there at once, and stays until the watch says otherwise.
//! * An object that the watch has seen deleted doesn't come back by the late answer to a write.
//! * A new list replaces the content in one step.
//!
//! **Versions are compared as numbers.** They are revisions of one etcd, which grow with every
//! write; Kubernetes promises the order for objects of one resource (KEP-5504). Equality alone could
//! not say whether the answer to a write or an event of the watch is the newer.
//!
//! **No tombstones.** A watch delivers one resource's events in the order of their versions, so the
//! newest version it has delivered, `seen`, says it all: a write's answer about an object that isn't
//! here, with a version the watch has already passed, is about an object that is gone; and an
//! object of ours that the watch passed without mentioning it was gone before the list.
//!
//! ```text
//! watch    … 10 A   11 B   13 A deleted   14 C …         seen = 14
//! answer   A at 12, late                                 12 ≤ 14, no A here  → gone, not added
//! answer   D at 15                                       15 > 14             → added, unconfirmed
//! watch    16 B                                          passed 15, no D     → D is gone
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kube::core::{DeserializeGuard, ObjectMeta, Resource};
use kube_runtime::watcher::Event;

/// Namespace and name of an object; the order of a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of a cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        Self::namespaced("", name)
    }

    /// The key of a namespaced object.
    pub fn namespaced(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of this object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::of_meta(object.meta())
    }

    fn of_meta(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// An object that is there and can't be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Its metadata, which every object has.
    pub meta: ObjectMeta,
    /// What is wrong with it.
    pub reason: String,
}

/// What is under a key.
#[derive(Debug)]
pub enum Held<K> {
    /// Nothing.
    Nothing,
    /// An object.
    Object(Arc<K>),
    /// An object that can't be read: nobody may take it for one that is gone.
    Unreadable(Arc<Unreadable>),
}

impl<K: Resource> Held<K> {
    /// The object, if it is there and can be read.
    pub fn object(&self) -> Option<&Arc<K>> {
        match self {
            Self::Object(object) => Some(object),
            Self::Nothing | Self::Unreadable(_) => None,
        }
    }

    /// The uid of what is there, readable or not.
    pub fn uid(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Object(object) => object.meta().uid.as_deref(),
            Self::Unreadable(unreadable) => unreadable.meta.uid.as_deref(),
        }
    }
}

/// An object came, changed or went.
#[derive(Debug)]
pub struct Change<K> {
    /// Which.
    pub key: Key,
    /// What was there.
    pub old: Held<K>,
    /// What is there now.
    pub new: Held<K>,
}

/// The content of a cache.
#[derive(Debug)]
pub(super) struct Store<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Objects that are there and can't be read; disjoint from `objects`.
    unreadable: BTreeMap<Key, Arc<Unreadable>>,
    /// Versions of `objects` that only the answer to a write has told us, since the last list
    /// began.
    unconfirmed: BTreeMap<Key, u64>,
    /// The newest version the watch has delivered; never above what it really has passed.
    seen: u64,
    /// The list being received, if any.
    listing: Option<Listing<K>>,
}

#[derive(Debug)]
struct Listing<K> {
    objects: BTreeMap<Key, Arc<K>>,
    unreadable: BTreeMap<Key, Arc<Unreadable>>,
    newest: u64,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            seen: 0,
            listing: None,
        }
    }
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            newest: 0,
        }
    }
}

impl<K: Resource> Store<K> {
    pub(super) fn objects(&self) -> &BTreeMap<Key, Arc<K>> {
        &self.objects
    }

    pub(super) fn unreadable(&self) -> &BTreeMap<Key, Arc<Unreadable>> {
        &self.unreadable
    }

    /// Takes an event of the watch in; what changed, by key. Cost: O(log n), O(n) for the end of a
    /// list.
    pub(super) fn watched(&mut self, event: Event<DeserializeGuard<K>>) -> Vec<Change<K>> {
        match event {
            Event::Init => {
                // A write answered before the list began is in the list, or undone before it.
                self.unconfirmed.clear();
                self.listing = Some(Listing::default());
                Vec::new()
            }
            Event::InitApply(guard) => {
                self.listing.get_or_insert_default().add(guard);
                Vec::new()
            }
            Event::InitDone => {
                let listing = self.listing.take().unwrap_or_default();
                self.listed(listing)
            }
            Event::Apply(guard) => {
                let version = version_of(guard.meta());
                let mut changes = self.passed(&guard, version);
                changes.extend(self.applied(guard, version));
                changes
            }
            Event::Delete(guard) => {
                let version = version_of(guard.meta());
                let mut changes = self.passed(&guard, version);
                changes.extend(self.deleted(&guard, version));
                changes
            }
        }
    }

    /// Takes in what the API server answered to a write of ours.
    pub(super) fn written(&mut self, object: K) -> Option<Change<K>> {
        let version = version_of(object.meta())?;
        let key = Key::of(&object);
        let known = self.objects.get(&key).and_then(|o| version_of(o.meta()));
        if version <= known.unwrap_or(self.seen) {
            return None;
        }
        self.unconfirmed.insert(key.clone(), version);
        Some(self.set(key, Held::Object(Arc::new(object))))
    }

    /// Takes in that a live read, or a write, found no object of this uid.
    pub(super) fn gone(&mut self, key: &Key, uid: &str) -> Option<Change<K>> {
        let cached = self.objects.get(key)?;
        if cached.meta().uid.as_deref() != Some(uid) {
            return None;
        }
        self.unconfirmed.remove(key);
        Some(self.set(key.clone(), Held::Nothing))
    }

    fn applied(&mut self, guard: DeserializeGuard<K>, version: Option<u64>) -> Option<Change<K>> {
        let key = Key::of(&guard);
        if let (Some(known), Some(version)) = (self.version(&key), version)
            && version <= known
        {
            return None;
        }
        Some(self.set(key, held(guard)))
    }

    /// A deletion older than what is here is about an earlier object of this name.
    fn deleted(&mut self, guard: &DeserializeGuard<K>, version: Option<u64>) -> Option<Change<K>> {
        let key = Key::of(guard);
        if let (Some(known), Some(version)) = (self.version(&key), version)
            && version < known
        {
            return None;
        }
        let here = self.objects.contains_key(&key) || self.unreadable.contains_key(&key);
        here.then(|| self.set(key, Held::Nothing))
    }

    /// Notes that the watch has come to `version`, at the object of `guard`. Writes of ours that it
    /// passed without a word are of objects that were gone before the list.
    fn passed(&mut self, guard: &DeserializeGuard<K>, version: Option<u64>) -> Vec<Change<K>> {
        let Some(version) = version else {
            return Vec::new();
        };
        self.seen = self.seen.max(version);
        let here = Key::of(guard);
        let passed: Vec<Key> = self
            .unconfirmed
            .iter()
            .filter(|&(_, &written)| written <= version)
            .map(|(key, _)| key.clone())
            .collect();
        let mut changes = Vec::new();
        for key in passed {
            self.unconfirmed.remove(&key);
            if key != here {
                changes.push(self.set(key, Held::Nothing));
            }
        }
        changes
    }

    /// Replaces the content by a complete list.
    fn listed(&mut self, listing: Listing<K>) -> Vec<Change<K>> {
        let Listing {
            objects: mut listed,
            unreadable,
            newest,
        } = listing;
        // The list is at least as new as its newest object. That may be less than `seen` where the
        // store was restored from a backup; then what was seen means nothing any more.
        self.seen = newest;
        let objects = &self.objects;
        self.unconfirmed.retain(|key, &mut written| {
            let Some(mine) = objects.get(key) else {
                return false;
            };
            let theirs = listed.get(key).and_then(|o| version_of(o.meta()));
            let newer = written > theirs.unwrap_or(newest);
            if newer {
                listed.insert(key.clone(), Arc::clone(mine));
            }
            newer
        });
        let old = std::mem::replace(&mut self.objects, listed);
        let unread = std::mem::replace(&mut self.unreadable, unreadable);
        self.differences(old, unread)
    }

    fn differences(
        &mut self,
        mut old: BTreeMap<Key, Arc<K>>,
        mut unread: BTreeMap<Key, Arc<Unreadable>>,
    ) -> Vec<Change<K>> {
        let mut changes = Vec::new();
        for (key, new) in &mut self.unreadable {
            match unread.remove(key) {
                Some(same) if same.meta.resource_version == new.meta.resource_version => {
                    *new = same;
                }
                before => changes.push(Change {
                    key: key.clone(),
                    old: former(old.remove(key), before),
                    new: Held::Unreadable(Arc::clone(new)),
                }),
            }
        }
        for (key, new) in &mut self.objects {
            match old.remove(key) {
                // The same version: keep the one that others hold already.
                Some(same) if same_version(&same, new) => *new = same,
                before => changes.push(Change {
                    key: key.clone(),
                    old: former(before, unread.remove(key)),
                    new: Held::Object(Arc::clone(new)),
                }),
            }
        }
        let old = old.into_iter().map(|(key, gone)| (key, Held::Object(gone)));
        let unread = unread
            .into_iter()
            .map(|(key, gone)| (key, Held::Unreadable(gone)));
        changes.extend(old.chain(unread).map(|(key, old)| Change {
            key,
            old,
            new: Held::Nothing,
        }));
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    }

    fn set(&mut self, key: Key, new: Held<K>) -> Change<K> {
        let old = former(self.objects.remove(&key), self.unreadable.remove(&key));
        match &new {
            Held::Nothing => {}
            Held::Object(object) => drop(self.objects.insert(key.clone(), Arc::clone(object))),
            Held::Unreadable(object) => {
                drop(self.unreadable.insert(key.clone(), Arc::clone(object)));
            }
        }
        Change { key, old, new }
    }

    fn version(&self, key: &Key) -> Option<u64> {
        version_of(self.objects.get(key)?.meta())
    }
}

impl<K: Resource> Listing<K> {
    fn add(&mut self, guard: DeserializeGuard<K>) {
        self.newest = self.newest.max(version_of(guard.meta()).unwrap_or(0));
        let key = Key::of(&guard);
        match held(guard) {
            Held::Nothing => {}
            Held::Object(object) => drop(self.objects.insert(key, object)),
            Held::Unreadable(object) => drop(self.unreadable.insert(key, object)),
        }
    }
}

fn held<K>(guard: DeserializeGuard<K>) -> Held<K> {
    match guard.0 {
        Ok(object) => Held::Object(Arc::new(object)),
        Err(invalid) => Held::Unreadable(Arc::new(Unreadable {
            meta: invalid.metadata,
            reason: invalid.error,
        })),
    }
}

/// What was under a key of two disjoint maps.
fn former<K>(object: Option<Arc<K>>, unreadable: Option<Arc<Unreadable>>) -> Held<K> {
    match (object, unreadable) {
        (Some(object), _) => Held::Object(object),
        (None, Some(unreadable)) => Held::Unreadable(unreadable),
        (None, None) => Held::Nothing,
    }
}

/// The version as a number; none if the API server isn't one that counts.
fn version_of(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

fn same_version<K: Resource>(a: &Arc<K>, b: &Arc<K>) -> bool {
    let identity = |o: &Arc<K>| {
        let meta = o.meta();
        (meta.uid.clone(), meta.resource_version.clone())
    };
    identity(a) == identity(b)
}

#[cfg(test)]
mod tests;
