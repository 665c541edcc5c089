//! Objects by key, and the history that led to them.
//!
//! One revision counter for everything, as etcd has. The history is append-only and bounded: what
//! falls out of it is compacted, and watches and pages that need it are told so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::object;

/// How many commits are kept for watches and pages.
pub(crate) const HISTORY: usize = 100_000;

/// Where an object is stored. The order is that of lists: by namespace, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The resource, with its group if it has one: `pods`, `deployments.apps`.
    pub resource: Arc<str>,
    /// The namespace; empty for what has none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// What a commit did to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Created,
    /// It is another now.
    Updated,
    /// It is gone.
    Deleted,
}

/// One revision.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its number; the object's `resourceVersion` from now on.
    pub revision: u64,
    /// What was done.
    pub change: Change,
    /// To whom.
    pub key: Key,
    /// The object before; absent for a creation.
    pub old: Option<Arc<Value>>,
    /// The object after. Of a deletion: as it was last, at this revision.
    pub new: Arc<Value>,
    /// Who asked for it: a name given with the service, or the client's user agent.
    pub actor: Arc<str>,
}

/// All objects of a server.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Arc<Commit>>,
    revision: u64,
    compacted: u64,
    /// The newest revision of each resource that is lost to the history.
    lost: BTreeMap<Arc<str>, u64>,
}

impl Store {
    /// The newest revision.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The newest revision whose history is lost.
    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Forgets the history up to a revision.
    pub(crate) fn compact(&mut self, to: u64) {
        self.compacted = self.compacted.max(to.min(self.revision));
        while self
            .history
            .front()
            .is_some_and(|first| first.revision <= self.compacted)
        {
            self.lose_first();
        }
    }

    /// The newest revision of a resource that its watches can't be told any more; 0 for none.
    pub(crate) fn lost(&self, resource: &Arc<str>) -> u64 {
        self.lost.get(resource).copied().unwrap_or_default()
    }

    fn lose_first(&mut self) {
        if let Some(first) = self.history.pop_front() {
            self.compacted = self.compacted.max(first.revision);
            self.lost
                .insert(Arc::clone(&first.key.resource), first.revision);
        }
    }

    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a resource, of one namespace or of all, in order.
    pub(crate) fn list<'a>(
        &'a self,
        resource: &Arc<str>,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + use<'a> {
        let first = Key {
            resource: Arc::clone(resource),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: String::new(),
        };
        let resource = Arc::clone(resource);
        self.objects.range(first..).take_while(move |(key, _)| {
            key.resource == resource && namespace.is_none_or(|wanted| key.namespace == wanted)
        })
    }

    /// The objects of a resource as they were at a revision that is still known.
    ///
    /// Cost: all objects of the resource, and the history since then.
    pub(crate) fn list_at(&self, resource: &Arc<str>, revision: u64) -> BTreeMap<Key, Arc<Value>> {
        let now = self.list(resource, None);
        let mut then: BTreeMap<Key, Arc<Value>> = now
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        for commit in self.history.iter().rev() {
            if commit.revision <= revision {
                break;
            }
            if commit.key.resource != *resource {
                continue;
            }
            match &commit.old {
                Some(old) => then.insert(commit.key.clone(), Arc::clone(old)),
                None => then.remove(&commit.key),
            };
        }
        then
    }

    /// The commits after a revision, in order.
    pub(crate) fn since(&self, revision: u64) -> impl Iterator<Item = &Arc<Commit>> {
        let from = self
            .history
            .partition_point(|commit| commit.revision <= revision);
        self.history.range(from..)
    }

    /// Stores an object, made or changed.
    pub(crate) fn put(&mut self, key: Key, mut object: Value, actor: &Arc<str>) -> Arc<Commit> {
        self.stamp(&mut object);
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), Arc::clone(&new));
        let change = if old.is_some() {
            Change::Updated
        } else {
            Change::Created
        };
        self.record(change, key, old, new, actor)
    }

    /// Removes an object. It is told of as it was stored, at the version of its removal.
    pub(crate) fn remove(&mut self, key: Key, actor: &Arc<str>) -> Option<Arc<Commit>> {
        let old = self.objects.remove(&key)?;
        let mut gone = old.as_ref().clone();
        self.stamp(&mut gone);
        Some(self.record(Change::Deleted, key, Some(old), Arc::new(gone), actor))
    }

    fn stamp(&mut self, object: &mut Value) {
        self.revision += 1;
        let version = json!(self.revision.to_string());
        object::metadata(object).insert("resourceVersion".to_owned(), version);
    }

    fn record(
        &mut self,
        change: Change,
        key: Key,
        old: Option<Arc<Value>>,
        new: Arc<Value>,
        actor: &Arc<str>,
    ) -> Arc<Commit> {
        let commit = Arc::new(Commit {
            revision: self.revision,
            change,
            key,
            old,
            new,
            actor: Arc::clone(actor),
        });
        self.history.push_back(Arc::clone(&commit));
        if self.history.len() > HISTORY {
            self.lose_first();
        }
        commit
    }
}
