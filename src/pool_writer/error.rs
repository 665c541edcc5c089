//! Why a pool's writer gives nothing.
//!
//! As in replies to the plugin, a text contains its cause: it has no second line there.

use ipam::keep::Held;
use ipam::name::{PoolName, Version};
use ipam::select::{Exhausted, Refusal};
use serde::{Deserialize, Serialize};

/// Why a pool's writer gives no address, or takes none back.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum CommitError {
    /// The pool may not serve this Pod.
    #[error(transparent)]
    Refused(Refusal),
    /// It has nothing to give; this was so at `version`.
    #[error("{why}")]
    Exhausted {
        /// Why.
        why: Exhausted,
        /// The pool's version when it was so.
        version: Version,
    },
    /// The Pod has an address there, of which its former Pod has not let go; so at `version`.
    #[error("{held}")]
    Held {
        /// Which.
        held: Box<Held>,
        /// The pool's version when it was so.
        version: Version,
    },
    /// There is no such pool any more.
    #[error("IPPool {0} is gone")]
    Gone(PoolName),
    /// An earlier write may still arrive, so it can't be told what is recorded.
    #[error("an earlier write of IPPool {0} may still arrive; asking again later")]
    Doubt(PoolName),
    /// It could not be stored in time, or not at all.
    #[error("IPPool {pool} could not be written, the call may be repeated: {reason}")]
    Write {
        /// Name.
        pool: PoolName,
        /// What went wrong last.
        reason: String,
    },
}
