//! One call at a time for each interface of a Pod.
//!
//! Owns: the queue of calls about one (uid, nic). Never does: know what a call does. Invariant:
//! while a [`Turn`] is held nobody else holds one of the same [`Attachment`], so an ADD, a DEL and
//! the release that follows a DEL see each other's whole effect or none of it; a repeated ADD waits
//! for the one in flight and then finds what it was given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ipam::name::{Nic, Uid};
use tokio::sync::OwnedMutexGuard;

use super::locked;

/// An interface of a Pod: what addresses are given to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attachment {
    /// The Pod.
    pub(super) uid: Uid,
    /// Its interface.
    pub(super) nic: Nic,
}

type Queue = Arc<tokio::sync::Mutex<()>>;

/// The queues of all interfaces that have a call in flight.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    queues: Arc<Mutex<BTreeMap<Attachment, Queue>>>,
}

impl Turns {
    /// Waits until every earlier call about this interface is over. Callers come in their order.
    pub(super) async fn wait(&self, of: &Attachment) -> Turn {
        let queue = Arc::clone(locked(&self.queues).entry(of.clone()).or_default());
        Turn {
            guard: Some(queue.lock_owned().await),
            turns: self.clone(),
            of: of.clone(),
        }
    }
}

/// The right to act on an interface; given up when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    guard: Option<OwnedMutexGuard<()>>,
    turns: Turns,
    of: Attachment,
}

impl Drop for Turn {
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

    fn eth0(uid: &str) -> Attachment {
        Attachment {
            uid: Uid::from(uid),
            nic: Nic::from("eth0"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_about_one_interface_follow_each_other_and_leave_no_queue() {
        let turns = Turns::default();
        let (a, b) = (eth0("a"), eth0("b"));
        let first = turns.wait(&a).await;
        let other = turns.wait(&b).await;
        let mut second = Box::pin(turns.wait(&a));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        drop(other);
        assert!(locked(&turns.queues).is_empty());
    }
}
