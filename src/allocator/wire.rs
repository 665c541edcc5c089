//! The requests and replies, as JSON.
//!
//! Owns: their form. The core's types are written as they are, so a change of theirs is a change
//! here: the texts in the tests below say when. A form that the other side does not read is
//! [`Reply::Unreadable`], after which the agent writes itself; so versions may be mixed. A change
//! that the other side would misread needs a new [`PREFIX`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipam::ledger::Claim;
use ipam::name::{PodName, PoolName, WorkloadId};
use ipam::release::{Release, Released};
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::api::SpiderIPPool;
use crate::pool_writer::{CommitError, Granted};

/// Version of the protocol, and first part of every path.
pub const PREFIX: &str = "/v1";
/// Whether the allocator acts and knows the caller: [`Reply::Ready`].
pub const READY: &str = "/v1/ready";
/// Takes an [`Ask`].
pub const ASK: &str = "/v1/ask";
/// Takes a [`Look`].
pub const LOOK: &str = "/v1/look";
/// Most bytes of a request or an answer: a release may name thousands of sandboxes.
pub const BODY_MAX: usize = 1024 * 1024;

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// The pool.
    pub pool: PoolName,
    /// How long the caller waits for the answer: nothing is written for it after that.
    pub wait_ms: u64,
    /// What is wanted.
    pub what: What,
}

/// What is wanted of a pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// An address. The Pod must be on the caller's node.
    Claim(Box<Claim>),
    /// To take back. The Pod must be, or have been, on the caller's node.
    Release {
        /// The Pod's name; its uid is the release's.
        pod: PodName,
        /// What may go.
        release: Release,
    },
}

/// A question about what the leader knows without asking anybody, so at the cost of no call to the
/// API server. What it says may be a moment old: it serves to choose, as every cache does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Look {
    /// This pool.
    Pool(PoolName),
    /// The pools of one workload with all of these labels, among which is its uid.
    Pools(BTreeMap<String, String>),
    /// What a ReplicaSet or a Job says of itself, and the pools of the workload it is of: who asks
    /// for the one asks for the others next.
    Owner(WorkloadId),
}

/// What the leader knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seen {
    /// Pools, one at least.
    Pools(Vec<Arc<SpiderIPPool>>),
    /// The answer to a [`Look::Owner`].
    OwnerAndPools {
        /// Metadata of the very object.
        meta: Box<ObjectMeta>,
        /// Pools made for the workload it is of; none where that would be too much to send.
        pools: Vec<Arc<SpiderIPPool>>,
    },
}

impl Ask {
    /// How long the caller waits.
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// The allocator acts, and takes requests of the caller.
    Ready,
    /// The address is recorded.
    Granted(Granted),
    /// What went, and what stays.
    Released(Released),
    /// What a [`Look`] found.
    Seen(Seen),
    /// It found nothing, or too much to send: the API server knows.
    Unseen,
    /// Why there is nothing to give, or why nothing could be written.
    Failed(CommitError),
    /// Not looked at: too much is asked at once. The same may be asked again.
    #[serde(rename_all = "camelCase")]
    Busy {
        /// After this long.
        after_ms: u64,
    },
    /// Not looked at: another replica acts, or this one is about to end.
    NotLeading,
    /// Not looked at: the caller's token is not an agent's.
    Stranger(String),
    /// Not looked at: the Pod is not on the caller's node.
    NotYours(String),
    /// Not looked at: the request is of another version, or no request.
    Unreadable(String),
}

impl Reply {
    /// The code of HTTP that says the same, for who reads traffic.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Ready
            | Self::Granted(_)
            | Self::Released(_)
            | Self::Seen(_)
            | Self::Failed(_) => http::StatusCode::OK,
            Self::Unseen => http::StatusCode::NOT_FOUND,
            Self::Busy { .. } => http::StatusCode::TOO_MANY_REQUESTS,
            Self::NotLeading => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::Stranger(_) => http::StatusCode::UNAUTHORIZED,
            Self::NotYours(_) => http::StatusCode::FORBIDDEN,
            Self::Unreadable(_) => http::StatusCode::BAD_REQUEST,
        }
    }
}

#[cfg(test)]
mod tests;
