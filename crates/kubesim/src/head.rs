//! The newest revision, and waiting for a later one.
//!
//! Owns: who is woken when, in the order in which they began to wait. Not tokio's `watch`, which
//! wakes its receivers in an order drawn anew in each process: equal seeds would have unequal
//! histories.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The newest revision.
#[derive(Debug, Default)]
pub(crate) struct Head {
    revision: AtomicU64,
    moved: Notify,
}

impl Head {
    /// What it is now.
    pub(crate) fn get(&self) -> u64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// Moves it, and wakes who waits.
    pub(crate) fn set(&self, revision: u64) {
        self.revision.store(revision, Ordering::SeqCst);
        self.moved.notify_waiters();
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
    async fn who_waited_first_is_woken_first() {
        let (head, woken) = (Arc::new(Head::default()), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = tokio::task::JoinSet::new();
        for nth in 0..40 {
            let (head, woken) = (Arc::clone(&head), Arc::clone(&woken));
            tasks.spawn(async move {
                head.past(0).await;
                woken.lock().unwrap().push(nth);
            });
            tokio::task::yield_now().await;
        }
        assert!(woken.lock().unwrap().is_empty());
        head.set(1);
        tasks.join_all().await;
        assert_eq!(*woken.lock().unwrap(), (0..40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_has_passed_is_not_waited_for() {
        let head = Head::default();
        head.set(7);
        head.past(6).await;
        assert_eq!(head.get(), 7);
    }
}
