//! The one home of everything that talks to the API server in a way of its own.
//!
//! Owns: [`clients`] (one for reads, one for writes), [`retry`] (what an answer means for the caller, and how long to wait), [`put`] (writes
//! that fail where the object moved), [`serial`] (those of one process after each other), [`cache`] (ordered, read-your-writes), [`lease`] (who acts), [`endpoint`] (one taken away), [`machine`] (virtual machines by name),
//! [`memo`] (answers kept for a moment), [`page`] (long lists in parts), [`turn`] (one at a time), [`tasks`] (what ends with a role), [`chance`] (what spreads callers out)
//! and [`time`] (two libraries' clocks). Never does: know what our objects mean; that is the
//! controller's and the agent's. Invariant: nothing here is needed for safety but [`put`]'s fence:
//! caches may be stale and leaders may be two, and still no address is given twice.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod cache;
pub mod chance;
pub mod clients;
pub mod endpoint;
pub mod lease;
pub mod machine;
pub mod memo;
pub mod page;
pub mod put;
pub mod retry;
pub mod serial;
pub mod tasks;
pub mod turn;
pub use crate::api::time;

/// The lock, whole even after a panic: no holder leaves what it guards half changed.
pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
