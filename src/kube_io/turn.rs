//! One thing at a time for each key.
//!
//! Owns: the queue of those who want to act on one key. Never does: know what they do. Invariant:
//! while a [`Turn`] is held nobody else holds one of an equal key, so of two that act on one thing
//! each sees the other's whole effect or none of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::OwnedMutexGuard;

use super::locked;

type Queue = Arc<tokio::sync::Mutex<()>>;

/// The queues of all keys that somebody acts on.
#[derive(Debug)]
pub struct Turns<K> {
    queues: Arc<Mutex<BTreeMap<K, Queue>>>,
}

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self {
            queues: Arc::clone(&self.queues),
        }
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self {
            queues: Arc::default(),
        }
    }
}

impl<K: Ord + Clone> Turns<K> {
    /// Waits until everyone who came earlier about this key is through. Callers come in their order.
    pub async fn wait(&self, of: &K) -> Turn<K> {
        let queue = Arc::clone(locked(&self.queues).entry(of.clone()).or_default());
        Turn {
            guard: Some(queue.lock_owned().await),
            turns: self.clone(),
            of: of.clone(),
        }
    }
}

/// The right to act on a key; given up when dropped.
#[derive(Debug)]
pub struct Turn<K: Ord> {
    guard: Option<OwnedMutexGuard<()>>,
    turns: Turns<K>,
    of: K,
}

impl<K: Ord> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut queues = locked(&self.turns.queues);
        self.guard.take();
        // Whoever waits holds the queue too; nobody can join it while `queues` is locked.
        if queues
            .get(&self.of)
            .is_some_and(|queue| Arc::strong_count(queue) == 1)
        {
            queues.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_want_one_key_follow_each_other_and_leave_no_queue() {
        let turns = Turns::default();
        let first = turns.wait(&"a").await;
        let other = turns.wait(&"b").await;
        let mut second = Box::pin(turns.wait(&"a"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        drop(other);
        assert!(locked(&turns.queues).is_empty());
    }
}
