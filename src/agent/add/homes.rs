//! Where an interface may have addresses already, by what this agent gave it, or an earlier one.

use std::collections::BTreeMap;

use ipam::addr::Family;
use ipam::name::PoolName;

use super::Call;
use crate::agent::error::Failure;
use crate::agent::{endpoint, former, pods};
use crate::kube_io::memo::Age;
use crate::pool_writer::Reading;

/// Where an interface may have addresses already.
pub(super) struct Homes {
    /// True where these are all it was given.
    pub(super) settled: bool,
    pub(super) pools: BTreeMap<Family, PoolName>,
}

impl Call<'_> {
    /// Where this interface may already have addresses.
    pub(super) async fn homes(&self) -> Result<Homes, Failure> {
        let trace = self.agent.memory.trace(&self.of);
        if trace.whole || !trace.granted.is_empty() {
            let granted = trace.granted.into_iter();
            return Ok(Homes {
                settled: trace.settled.is_some(),
                pools: granted.map(|(family, g)| (family, g.pool)).collect(),
            });
        }
        // An earlier agent may have served this Pod: its endpoint says where, its pools whether.
        let name = pods::name(&self.asker.pod);
        let endpoint = self.agent.reads.endpoint(&name).await?;
        let named = endpoint::pools_of(endpoint.as_ref(), &self.of);
        if named.is_empty() {
            // Records say where it has addresses, but not whether these are all it was given.
            let since = Age::Since(self.agent.began);
            let pools = former::pools_with(&self.agent.reads, &self.of, since).await?;
            let settled = false;
            return Ok(Homes { settled, pools });
        }
        let mut pools = BTreeMap::new();
        for (family, pool) in &named {
            let reading = self.agent.reads.pool(pool, Age::live()).await?;
            if reading.is_some_and(|reading| self.has_record(&reading)) {
                pools.insert(*family, pool.clone());
            }
        }
        Ok(Homes {
            settled: pools.len() == named.len(),
            pools,
        })
    }

    pub(super) fn has_record(&self, reading: &Reading) -> bool {
        let pool = reading.candidate.pool.as_ref();
        pool.is_ok_and(|pool| pool.records.find(&self.of.uid, &self.of.nic).is_some())
    }
}
