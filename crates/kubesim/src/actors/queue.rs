//! Keys to look at, in the order they came, each once.
//!
//! Owns: what waits, and until when. Never does: run anything. Invariants: a key that is added
//! while it waits is not added twice; of two times for a key the earlier holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::world::Key;

/// The queue of one actor. Clones are handles to the same.
#[derive(Clone, Default)]
pub(crate) struct Queue {
    waiting: Arc<Mutex<Waiting>>,
    more: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    ready: VecDeque<Key>,
    queued: BTreeSet<Key>,
    later: BTreeMap<Key, Instant>,
}

impl Queue {
    /// Has `key` looked at.
    pub(crate) fn add(&self, key: Key) {
        self.lock().ready(key);
        self.more.notify_one();
    }

    /// Has `key` looked at when `at` has come.
    pub(crate) fn add_at(&self, key: Key, at: Instant) {
        let mut waiting = self.lock();
        let known = waiting.later.entry(key).or_insert(at);
        *known = at.min(*known);
        drop(waiting);
        self.more.notify_one();
    }

    /// The next key; waits for one. Only one task may call this.
    pub(crate) async fn next(&self) -> Key {
        loop {
            let first = {
                let mut waiting = self.lock();
                waiting.come(Instant::now());
                if let Some(key) = waiting.take() {
                    return key;
                }
                waiting.later.values().min().copied()
            };
            let due = async {
                match first {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.more.notified() => {}
                () = due => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn ready(&mut self, key: Key) {
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn come(&mut self, now: Instant) {
        let due = self.later.iter().filter(|(_, at)| **at <= now);
        let due: Vec<Key> = due.map(|(key, _)| key.clone()).collect();
        for key in due {
            self.later.remove(&key);
            self.ready(key);
        }
    }

    fn take(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_come_once_in_order_and_late_ones_at_their_time() {
        let queue = Queue::default();
        let (a, b) = (Key::new("", "a"), Key::new("", "b"));
        let start = Instant::now();
        queue.add_at(a.clone(), start + Duration::from_secs(9));
        queue.add_at(a.clone(), start + Duration::from_secs(5));
        queue.add(b.clone());
        queue.add(a.clone());
        queue.add(b.clone());
        assert_eq!((queue.next().await, queue.next().await), (b, a.clone()));
        assert_eq!(queue.next().await, a);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
