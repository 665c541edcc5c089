//! What is known of workloads, kind by kind: whose pool serves, and whether one may be gone.
//!
//! Invariant: a workload is gone only where every workload of its kind would be known.

use ipam::kind;
use ipam::pool::Owner;

use super::state::State;
use crate::controller::workload::Seen;

impl State {
    /// True for a workload that can't be read, or whose annotations can't, or that may be there
    /// unseen: nobody knows what it wants, so its pool stays as it is.
    pub(super) fn is_undecided(&self, owner: &Owner) -> bool {
        match self.workloads.get(&owner.uid) {
            _ if self.frozen.contains(&owner.uid) => true,
            Some(seen) => self.wish(seen).is_some_and(|wish| wish.is_err()),
            None => !self.knows_all_of(owner),
        }
    }

    /// True where every workload of the owner's kind is known.
    fn knows_all_of(&self, owner: &Owner) -> bool {
        match self.kinds.other_of_labels(&owner.gv, &owner.kind) {
            Some(other) => !self.unlisted.contains(other),
            None => kind::is_own_of_labels(&owner.gv, &owner.kind),
        }
    }

    /// A ReplicaSet of a Deployment and a Job of a CronJob take their addresses from the pool above,
    /// as those of a kind do that an operator names.
    pub(super) fn is_below_another(&self, seen: &Seen) -> bool {
        let owner = seen.controller.as_ref();
        owner.is_some_and(|o| self.kinds.is_below(&seen.id, &o.api_version, &o.kind))
    }
}
