//! The newest revision, and waiting for a later one: of everything, or of one resource.
//!
//! Owns: who is woken when, in the order in which they began to wait. Not tokio's `watch`, which
//! wakes its receivers in an order drawn anew in each process: equal seeds would have unequal
//! histories. A watch is woken by what is of its resource alone: most revisions are heartbeats of
//! nodes, which concern hardly anybody.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The newest revision.
#[derive(Debug, Default)]
pub(crate) struct Head {
    revision: AtomicU64,
    moved: Notify,
    of: Mutex<BTreeMap<Arc<str>, Arc<Notify>>>,
}

impl Head {
    /// What it is now.
    pub(crate) fn get(&self) -> u64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// Moves it, and wakes who waits for anything or for one of these resources.
    pub(crate) fn set(&self, revision: u64, resources: &[Arc<str>]) {
        self.revision.store(revision, Ordering::SeqCst);
        self.moved.notify_waiters();
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in resources {
            if let Some(waiters) = of.get(resource) {
                waiters.notify_waiters();
            }
        }
    }

    /// Wakes its waiters at each revision of `resource`.
    pub(crate) fn of(&self, resource: &Arc<str>) -> Arc<Notify> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(of.entry(Arc::clone(resource)).or_default())
    }

    /// Waits until it is past `seen`.
    pub(crate) async fn past(&self, seen: u64) {
        loop {
            // Waits from here on, so that no move between the look and the wait is missed.
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.get() > seen {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn who_waited_first_is_woken_first_and_others_are_not() {
        let (head, woken) = (Arc::new(Head::default()), Arc::new(Mutex::new(Vec::new())));
        let (pods, leases): (Arc<str>, Arc<str>) = (Arc::from("pods"), Arc::from("leases"));
        let mut tasks = tokio::task::JoinSet::new();
        for nth in 0..40 {
            let (moved, woken) = (head.of(&pods), Arc::clone(&woken));
            tasks.spawn(async move {
                moved.notified().await;
                woken.lock().unwrap().push(nth);
            });
            tokio::task::yield_now().await;
        }
        head.set(1, &[leases]);
        tokio::task::yield_now().await;
        assert!(woken.lock().unwrap().is_empty());
        head.set(2, &[pods]);
        tasks.join_all().await;
        assert_eq!(*woken.lock().unwrap(), (0..40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_has_passed_is_not_waited_for() {
        let head = Head::default();
        head.set(7, &[]);
        head.past(6).await;
        assert_eq!(head.get(), 7);
    }
}
