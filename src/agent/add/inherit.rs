//! A fixed address whose next Pod has annotations that can't be read.
//!
//! Owns: where it is looked for. Never does: give an address that was not left to the Pod, which
//! would be one that nobody asked for. A living Pod keeps its address whatever becomes of its
//! annotations; here the next Pod of its identity does.

use futures::future::join_all;

use super::{Call, Plan, all_or_nothing};
use crate::agent::answer::Given;
use crate::agent::candidates::{self, Asked};
use crate::agent::error::Failure;
use crate::agent::fixed;
use crate::agent::wishes::Wishes;
use crate::kube_io::memo::Age;

impl Call<'_> {
    /// The pools that the Pod asks for, if what it wishes can be read.
    pub(super) async fn asked(
        &self,
        wishes: Result<Wishes, Failure>,
        age: Age,
    ) -> Result<(Wishes, Vec<Asked>), Failure> {
        let (settings, reads) = (&self.agent.settings, &self.agent.reads);
        let wishes = wishes?;
        let asked =
            candidates::asked(settings, reads, &self.asker, &wishes, self.args, age).await?;
        Ok((wishes, asked))
    }

    /// What a former Pod left to this one, in whichever pools that is.
    ///
    /// Errors: `failure`, if it is not about what can't be read, or if nothing was left.
    pub(super) async fn inherit(&self, failure: Failure) -> Result<Given, Failure> {
        let (settings, reads) = (&self.agent.settings, &self.agent.reads);
        if !failure.error.is_unreadable() || !fixed::keeps(settings, &self.asker) {
            return Err(failure);
        }
        let age = Age::live();
        let everywhere = candidates::everywhere(settings, reads, age).await?;
        let claimant = self.claimant(&everywhere, age).await?;
        let Some(inherits) = &claimant.inherits else {
            return Err(failure);
        };
        let plans: Vec<Plan> = everywhere
            .iter()
            .filter_map(|found| {
                let mut readings = found.readings.iter();
                let home = readings.find(|reading| inherits.is_of(reading, &self.asker))?;
                Some(Plan {
                    family: found.family,
                    pools: vec![(home.candidate.name.clone(), Some(home.clone()))],
                })
            })
            .collect();
        if plans.is_empty() {
            return Err(failure);
        }
        let tries = plans.iter().map(|plan| self.take_one(plan, &claimant));
        let granted = all_or_nothing(join_all(tries).await)?;
        let wishes = self.no_wishes(&failure);
        Ok(Given { granted, wishes })
    }
}
