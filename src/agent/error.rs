//! Why an ADD fails, in the words users of Spiderpool know.
//!
//! The text of an error is the body of the reply, so unlike elsewhere it contains its cause: the
//! reply has no second line. Typing errors are the original's; people and scripts match them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ipam::addr::Family;
use ipam::annotation::{self, AnnotationError};
use ipam::keep::Held;
use ipam::listed::ListError;
use ipam::name::{Nic, PodName, PoolName, SubnetName, Uid, WorkloadId};
use ipam::select::{NoAddress, NoPool, aggregate};

use super::reads::ReadError;
use super::wait::Wait;
use crate::pool_writer::CommitError;

/// Why an ADD fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddError {
    /// The Pod is not there, or could not be read.
    #[error("failed to get Pod {pod}: {reason}")]
    Pod {
        /// Which.
        pod: PodName,
        /// What the API server said.
        reason: String,
    },
    /// The sandbox is of an earlier Pod of this name.
    #[error(
        "Pod {pod} now has the uid {found}, and this sandbox was made for {asked}: the call may be repeated for the new Pod"
    )]
    Replaced {
        /// Which.
        pod: PodName,
        /// Uid of the Pod that is there.
        found: Uid,
        /// Uid of the call.
        asked: Uid,
    },
    /// The Pod runs elsewhere: its addresses are that node's to give, and to take back.
    #[error("Pod {pod} is on node {found}, and this is the agent of node {own}")]
    OtherNode {
        /// Which.
        pod: PodName,
        /// Its node.
        found: String,
        /// This one.
        own: String,
    },
    /// The Pod is being deleted or has finished.
    #[error("dead Pod {0}, we cannot allocate IP addresees to it")]
    Dead(PodName),
    /// Its controller could not be read.
    #[error(
        "failed to get the top controller of the Pod {pod}: failed to get pod '{pod}' owner: {reason}"
    )]
    Owner {
        /// Which.
        pod: PodName,
        /// What the API server said.
        reason: String,
    },
    /// There is no address for it.
    #[error("failed to allocate IP addresses in standard mode: {0}")]
    Standard(#[from] StandardError),
}

/// The classes of failed ADDs that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Something could not be read, or is not what it should be.
    Internal,
    /// No pool may serve the Pod.
    NoAvailablePool,
    /// A pool could not be written in time.
    RetriesExhausted,
    /// The pools that may serve it are full.
    UsedOut,
    /// What was asked for makes no sense.
    WrongInput,
}

impl AddError {
    /// The class of the failure; of two families that failed, the first one's.
    pub(super) fn class(&self) -> Reason {
        match self {
            Self::Pod { .. } | Self::Owner { .. } => Reason::Internal,
            Self::Replaced { .. } | Self::OtherNode { .. } | Self::Dead(_) => Reason::WrongInput,
            Self::Standard(error) => error.class(),
        }
    }
}

impl StandardError {
    /// True where nobody can tell what is asked for.
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(
            self,
            Self::Annotation(_) | Self::List { .. } | Self::Subnet(SubnetError::Annotation(_))
        )
    }

    fn class(&self) -> Reason {
        match self {
            Self::Subnet(SubnetError::NoPool { .. })
            | Self::NoRule
            | Self::Empty { .. }
            | Self::NoMatch { .. }
            | Self::Pool { .. }
            | Self::NoPool(_) => Reason::NoAvailablePool,
            Self::Subnet(_)
            | Self::AutoPoolOff { .. }
            | Self::MasterSubnet
            | Self::Annotation(_)
            | Self::List { .. } => Reason::WrongInput,
            Self::Read(_) | Self::Late(_) => Reason::Internal,
            Self::NoAddress(_) | Self::Held(_) => Reason::UsedOut,
            Self::Commit(_) => Reason::RetriesExhausted,
            Self::Both(errors) => errors.first().map_or(Reason::Internal, Self::class),
        }
    }
}

/// Why no address can be given by the rules that hold for the Pod.
#[derive(Debug, thiserror::Error)]
pub(super) enum StandardError {
    /// An auto pool is asked for, and there is none.
    #[error("failed to get IPPool candidates from Subnet: {0}")]
    Subnet(#[from] SubnetError),
    /// Auto pools are switched off.
    #[error(
        "it's invalid to use '{}' or '{}' annotation when Auto-Pool feature is disabled: '{key}' is '{value}', remove it and name an IPPool by annotation '{}', or set ipam.spiderSubnet.autoPool.enable",
        annotation::SUBNETS,
        annotation::SUBNET,
        annotation::IPPOOL
    )]
    AutoPoolOff {
        /// Annotation key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// The CNI configuration asks for a filter that is not there.
    #[error(
        "wrong input, match_master_subnet of the CNI configuration is not supported yet: remove it"
    )]
    MasterSubnet,
    /// A list of pools cannot be used.
    #[error("{error}: mend {rule}")]
    List {
        /// What is wrong.
        error: ListError,
        /// Annotation or configuration.
        rule: String,
    },
    /// No pool has a name that a list of patterns takes.
    #[error(
        "no IPPool available, no {family} IPPool matches [{}] of {rule}: name one that is there, or leave the family out",
        .list.join(" ")
    )]
    NoMatch {
        /// Family.
        family: Family,
        /// The list, as written.
        list: Vec<String>,
        /// Annotation or configuration.
        rule: String,
    },
    /// An annotation cannot be read.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// Nobody says which pools to use.
    #[error(
        "no IPPool available, no pool selection rules of any type are specified: name an IPPool by annotation '{}' of the Pod, by '{}' or '{}' of its Namespace, or in the CNI configuration, or set spec.default of one",
        annotation::IPPOOL,
        annotation::NAMESPACE_IPV4,
        annotation::NAMESPACE_IPV6
    )]
    NoRule,
    /// The rule that holds names no pool.
    #[error(
        "no IPPool available, {rule} names none for interface {nic} in an IP family that is enabled: its value is '{value}', name one there, or remove it"
    )]
    Empty {
        /// Annotation or configuration.
        rule: String,
        /// What it says.
        value: String,
        /// Interface.
        nic: Nic,
    },
    /// A pool that is named is not there.
    #[error("failed to get original IPPool {pool}: {reason}: make it, or correct {rule}")]
    Pool {
        /// Name.
        pool: PoolName,
        /// What the API server said.
        reason: String,
        /// Annotation or configuration.
        rule: String,
    },
    /// Something else could not be read.
    #[error("failed to look for IPPools: {0}")]
    Read(String),
    /// No candidate may serve the Pod.
    #[error(transparent)]
    NoPool(#[from] NoPool),
    /// No candidate has a free address.
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
    /// Its own address is not free yet.
    #[error("{0}")]
    Held(Box<Held>),
    /// A pool could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Nothing came of it in time.
    #[error("the API server did not answer within {} s, the call may be repeated", .0.as_secs())]
    Late(Duration),
    /// Both families failed.
    #[error("{}", aggregate(.0))]
    Both(Vec<StandardError>),
}

/// Why a try gave nothing, and what may change that; a refusal that stands has nothing to wait for.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StandardError,
    pub(super) waits: Vec<Wait>,
}

impl From<ReadError> for Failure {
    /// What could not be read is asked for again where the API server may answer soon.
    fn from(why: ReadError) -> Self {
        let waits = why.may_pass().then_some(Wait::Server);
        Self {
            error: StandardError::Read(why.said()),
            waits: waits.into_iter().collect(),
        }
    }
}

impl Failure {
    /// True where nothing is known to be missing: the API server has not answered.
    pub(super) fn is_silence(&self) -> bool {
        self.waits.iter().all(|wait| *wait == Wait::Server)
    }
}

impl<E: Into<StandardError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            waits: Vec::new(),
        }
    }
}

/// Why an auto pool cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubnetError {
    /// The annotation cannot be read.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A bare Pod has no workload to make a pool for.
    #[error(
        "SpiderSubnet feature doesn't support no-controller pod: annotation '{key}' is '{value}', remove it and name an IPPool by annotation '{}', or run the Pod by a workload, as a Deployment",
        annotation::IPPOOL
    )]
    NoController {
        /// Annotation key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Nobody makes pools for workloads of this kind.
    #[error(
        "auto-created IPPools are not made for {0}: add its kind to thirdPartyControllers of the configuration, or name an IPPool by annotation '{key}'",
        key = annotation::IPPOOL
    )]
    OtherKind(String),
    /// A virtual machine keeps its addresses, whichever pool they are from.
    #[error(
        "auto-created IPPools are not made for virtual machines, as {0} is one: name an IPPool by annotation '{key}', from which it keeps its addresses",
        key = annotation::IPPOOL
    )]
    Machine(String),
    /// There is no pool yet.
    #[error(
        "no matching auto-created IPPool candidate with matchLables '{}': {rule} asks for an IPPool of SpiderSubnet {} for {}, and there is none yet: look at the Events of {}, and whether there is a SpiderSubnet of this name",
        .of.labels,
        .of.subnet,
        .of.workload,
        .of.workload
    )]
    NoPool {
        /// Which.
        of: Box<AutoPool>,
        /// The annotation.
        rule: String,
    },
}

/// The pools that a workload has of its own, of one family in one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AutoPool {
    /// What they are found by.
    pub(super) labels: LabelMap,
    /// The subnet, as it is asked for.
    pub(super) subnet: SubnetName,
    /// Whose they are.
    pub(super) workload: WorkloadId,
}

/// Labels, printed as the original prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabelMap(pub(super) BTreeMap<String, String>);

impl LabelMap {
    /// As a selector of the API.
    pub(super) fn selector(&self) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(",")
    }
}

impl fmt::Display for LabelMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(k, v)| format!("{k}:{v}")).collect();
        write!(f, "map[{}]", pairs.join(" "))
    }
}
