//! All writes that one process makes of one kind's objects, each object's after each other.
//!
//! Owns: that no two writes of this process meet at one object. Never does: decide what to do when
//! another was faster; the caller looks again. Invariant: a write that was computed from an older
//! version than this process knows is not sent, so that its parts never make the API server refuse
//! each other. This is for speed alone: what other processes write is fenced by [`put`].

use std::fmt::Debug;

use kube::core::{Resource, ResourceExt};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cache::{Cache, Key};
use super::put::{self, Part, PutError, Reply};
use super::turn::{Turn, Turns};

/// Access to one kind's objects, for everything in this process that writes them. Clones share it.
pub struct Serial<K> {
    client: Client,
    cache: Cache<K>,
    turns: Turns<Key>,
}

impl<K> Clone for Serial<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            cache: self.cache.clone(),
            turns: self.turns.clone(),
        }
    }
}

impl<K> Serial<K>
where
    K: Resource<DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
{
    /// Writes by `client`, which must not repeat them by itself; `cache` is told of each.
    pub fn new(client: Client, cache: Cache<K>) -> Self {
        Self {
            client,
            cache,
            turns: Turns::default(),
        }
    }

    /// What is known of the objects.
    pub fn cache(&self) -> &Cache<K> {
        &self.cache
    }

    /// [`put::replace`], behind every earlier write of this object; the cache knows the outcome
    /// before the next begins.
    ///
    /// Errors: [`PutError`]; [`PutError::Behind`] where this process knows a newer version.
    pub async fn replace(&self, part: Part, object: &mut K, reply: Reply) -> Result<(), PutError> {
        let _turn = self.turn_at(object).await?;
        put::replace(&self.client, part, object, reply).await?;
        if is_gone(object) {
            let uid = object.uid().unwrap_or_default();
            self.cache.apply_gone(&Key::of(object), &uid);
        } else {
            self.cache.apply_written(object.clone());
        }
        Ok(())
    }

    /// Waits until nothing of this process is about to write the object; nothing will be while the
    /// turn is held.
    ///
    /// Errors: [`PutError::Behind`] where this process knows a newer version.
    pub async fn turn_at(&self, object: &K) -> Result<Turn<Key>, PutError> {
        let key = Key::of(object);
        let turn = self.turns.wait(&key).await;
        let known = self.cache.get(&key);
        match known.filter(|known| is_newer(&**known, object)) {
            None => Ok(turn),
            Some(known) => Err(PutError::Behind {
                kind: K::kind(&()).into_owned(),
                name: key.to_string(),
                known: known.resource_version().unwrap_or_default(),
            }),
        }
    }

    /// The object as it is: what this process knows if that is newer than `than`, else by a live
    /// read.
    ///
    /// Errors: what the API server said; that it is gone, too.
    pub async fn after(&self, than: &K) -> Result<K, kube::Error>
    where
        K: Resource<Scope = kube::core::ClusterResourceScope>,
    {
        let known = self.cache.get(&Key::of(than));
        match known.filter(|known| is_newer(&**known, than)) {
            Some(known) => Ok((*known).clone()),
            None => Api::all(self.client.clone()).get(&than.name_any()).await,
        }
    }
}

/// True for what the API server returns of an object that its last finalizer has left.
pub fn is_gone(object: &impl ResourceExt) -> bool {
    object.meta().deletion_timestamp.is_some() && object.finalizers().is_empty()
}

/// Whether the version of `a` comes after that of `b`; the cache compares them alike.
pub fn is_newer(a: &impl ResourceExt, b: &impl ResourceExt) -> bool {
    let number = |version: Option<String>| version.and_then(|text| text.parse::<u64>().ok());
    let (a, b) = (number(a.resource_version()), number(b.resource_version()));
    a.zip(b).is_some_and(|(a, b)| a > b)
}
