//! What to look at next: a set of keys, each handed out to one pass at a time.
//!
//! Owns: coalescing, exclusion, order and wake-ups. Never does: drop a key. Invariants: a key added
//! while its pass runs is handed out again afterwards; two keys that exclude each other, and so one
//! key, are never with two passes at once; of those that may be handed out, the one that was added
//! first is, so that busy keys keep no others waiting but such as exclude them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::kube_io::locked;

/// A key that may not be worked on together with certain others.
pub trait Key: Ord + Clone {
    /// True where passes over `self` and `other` must not run at once; always true of itself.
    fn excludes(&self, other: &Self) -> bool;
}

/// A work queue of keys. Bounded by the number of distinct keys.
#[derive(Debug, Default)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    /// Keys to be handed out, by when they were added.
    ready: BTreeMap<K, u64>,
    /// Keys added so far.
    added: u64,
    running: BTreeSet<K>,
    later: BTreeMap<K, Instant>,
    /// Keys that rest, since their last pass failed or to gather what is asked, and until when.
    resting: BTreeMap<K, Instant>,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            ready: BTreeMap::new(),
            added: 0,
            running: BTreeSet::new(),
            later: BTreeMap::new(),
            resting: BTreeMap::new(),
        }
    }
}

impl<K: Key> Queue<K> {
    /// Asks for a pass over `key` as soon as none runs.
    pub fn add(&self, key: K) {
        self.state().add(key);
        self.changed.notify_one();
    }

    /// Asks for a pass over `key` at `at`, or earlier if one was asked for earlier.
    pub fn add_at(&self, key: K, at: Instant) {
        let mut state = self.state();
        let due = state.later.entry(key).or_insert(at);
        *due = at.min(*due);
        drop(state);
        self.changed.notify_one();
    }

    /// The next key that is due; waits for one. Give it back with [`Self::done`].
    pub async fn next(&self) -> K {
        loop {
            let due = {
                let mut state = self.state();
                if let Some(key) = state.take(Instant::now()) {
                    return key;
                }
                state
                    .later
                    .values()
                    .chain(state.resting.values())
                    .min()
                    .copied()
            };
            match due {
                None => self.changed.notified().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    /// The pass over `key` failed: another one is due at `until` and none before, however often
    /// one is asked for. Its own writes ask, and would drive it round for ever.
    pub fn rest(&self, key: K, until: Instant) {
        let mut state = self.state();
        state.add(key.clone());
        state.resting.insert(key, until);
    }

    /// A pass over `key` that is asked for waits until `until`, for what else will be asked by then.
    pub fn gather(&self, key: K, until: Instant) {
        self.state().resting.insert(key, until);
    }

    /// The pass over `key` ended.
    pub fn done(&self, key: &K) {
        self.state().running.remove(key);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // A panic while the lock was held can't leave the sets half changed.
        locked(&self.state)
    }
}

impl<K: Key> State<K> {
    /// Keeps its place where it waits already.
    fn add(&mut self, key: K) {
        self.added = self.added.wrapping_add(1);
        self.ready.entry(key).or_insert(self.added);
    }

    fn take(&mut self, now: Instant) -> Option<K> {
        let due: Vec<K> = self
            .later
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(k, _)| k.clone())
            .collect();
        for key in due {
            self.later.remove(&key);
            self.add(key);
        }
        self.resting.retain(|_, until| *until > now);
        let key = self
            .ready
            .iter()
            .filter(|(key, _)| !self.resting.contains_key(*key))
            .filter(|(key, _)| !self.running.iter().any(|other| key.excludes(other)))
            .min_by_key(|(_, added)| **added)
            .map(|(key, _)| key.clone())?;
        self.ready.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Numbers exclude those of the same tens.
    impl Key for u32 {
        fn excludes(&self, other: &Self) -> bool {
            self / 10 == other / 10
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_exclude_each_other_follow_each_other() {
        let queue = Queue::default();
        for key in [11, 12, 21] {
            queue.add(key);
        }
        assert_eq!(queue.next().await, 11);
        assert_eq!(queue.next().await, 21);
        let waited = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(waited.is_err(), "handed out beside one that excludes it");
        queue.done(&11);
        assert_eq!(queue.next().await, 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_runs_comes_again_and_never_twice_at_once() {
        let queue = Queue::default();
        queue.add(1);
        queue.add(1);
        assert_eq!(queue.next().await, 1);
        queue.add(1);
        let waited = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(waited.is_err(), "handed out while it ran");
        queue.done(&1);
        assert_eq!(queue.next().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_key_comes_behind_those_that_wait() {
        let queue = Queue::default();
        for key in [11, 21, 31] {
            queue.add(key);
        }
        for expected in [11, 21, 31, 11, 21] {
            let key = queue.next().await;
            assert_eq!(key, expected);
            queue.add(key);
            queue.done(&key);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_rests_comes_when_its_rest_is_over_and_not_when_asked_for() {
        let queue = Queue::default();
        queue.add(1);
        assert_eq!(queue.next().await, 1);
        let start = Instant::now();
        queue.rest(1, start + Duration::from_secs(3));
        queue.done(&1);
        queue.add(1);
        assert_eq!(queue.next().await, 1);
        assert_eq!(start.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_gathers_comes_later_and_only_if_it_is_asked_for() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.gather(1, start + Duration::from_secs(3));
        queue.gather(2, start + Duration::from_secs(3));
        queue.add(1);
        assert_eq!(queue.next().await, 1);
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        let waited = tokio::time::timeout(Duration::from_secs(9), queue.next()).await;
        assert!(waited.is_err(), "handed out unasked");
    }

    /// As one does of which something is refused for good.
    #[tokio::test(start_paused = true)]
    async fn a_key_that_gathers_and_comes_later_comes_earlier_where_it_is_asked_for() {
        let queue = Queue::default();
        for (asked, expected) in [(false, 30), (true, 2)] {
            let start = Instant::now();
            queue.gather(1, start + Duration::from_secs(2));
            queue.add_at(1, start + Duration::from_secs(30));
            if asked {
                queue.add(1);
            }
            assert_eq!(queue.next().await, 1);
            assert_eq!(start.elapsed(), Duration::from_secs(expected));
            queue.done(&1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_key_comes_when_it_is_due() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_at(1, start + Duration::from_secs(5));
        queue.add_at(1, start + Duration::from_secs(9));
        assert_eq!(queue.next().await, 1);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
