//! What came of carrying out a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipam::name::PoolName;
use ipam::plan::Reason;

use crate::api::{SpiderIPPool, SpiderSubnet};
use crate::error::ErrorChain;
use crate::kube_io::put::PutError;
use crate::kube_io::retry::{self, Outcome};

/// A step that could not be carried out. The pass is repeated; nothing is half done that the next
/// plan does not finish.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A pool or subnet could not be replaced.
    #[error("{step} was not written")]
    Put {
        /// Which step.
        step: String,
        /// Why.
        #[source]
        source: Box<PutError>,
    },
    /// Another call failed.
    #[error("{step} failed")]
    Call {
        /// Which step.
        step: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object is not what the plan was made on.
    #[error("{step}: the object has changed since it was read")]
    Moved {
        /// Which step.
        step: String,
    },
    /// A step of the same pool before it was not carried out.
    #[error("{step} was left out: a step before it was not carried out")]
    LeftOut {
        /// Which step.
        step: String,
        /// What is known of the step before it.
        outcome: Outcome,
    },
}

impl ApplyError {
    pub(super) fn call(step: String, source: kube::Error) -> Self {
        Self::Call {
            step,
            source: Box::new(source),
        }
    }

    pub(super) fn put(step: String, source: PutError) -> Self {
        Self::Put {
            step,
            source: Box::new(source),
        }
    }

    /// What is known about the object now.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Put { source, .. } => source.outcome(),
            Self::Call { source, .. } => retry::classify(source),
            Self::Moved { .. } => Outcome::Conflict,
            Self::LeftOut { outcome, .. } => *outcome,
        }
    }
}

/// What was carried out.
#[derive(Debug, Default)]
pub struct Done {
    /// Pools as they are after the writes of this pass, without those that are gone.
    pub pools: BTreeMap<PoolName, Arc<SpiderIPPool>>,
    /// The subnet as it is after the writes of this pass.
    pub subnet: Option<Arc<SpiderSubnet>>,
    /// Pools written, and why.
    pub wrote: Vec<(PoolName, Reason)>,
    /// Pools that lack a step of the plan: what the plan says of them has not come true.
    pub unwritten: BTreeMap<PoolName, Unwritten>,
    /// The ledger was written.
    pub ledger_written: bool,
    /// The first write of the subnet that the plan wanted and that failed.
    pub subnet_unwritten: Option<Unwritten>,
    /// What went wrong, in the order of the steps.
    pub errors: Vec<ApplyError>,
}

/// Why a step of the plan was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// What is known about the object.
    pub outcome: Outcome,
    /// What was wanted and what the API server said.
    pub message: String,
}

impl Unwritten {
    pub(super) fn of(error: &ApplyError) -> Self {
        Self {
            outcome: error.outcome(),
            message: ErrorChain(error).to_string(),
        }
    }

    /// Left out because a step before it was: the next pass plans it again.
    pub(super) fn left_out() -> Self {
        Self {
            outcome: Outcome::Conflict,
            message: "a step before it was not carried out".to_owned(),
        }
    }

    /// True where the same write would be refused again, so that somebody must be told.
    pub fn is_lasting(&self) -> bool {
        self.outcome == Outcome::Fatal
    }
}
