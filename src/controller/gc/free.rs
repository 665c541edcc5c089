//! Records that two looks found to have no owner: confirmed live, freed, and told of.

use std::collections::{BTreeMap, BTreeSet};

use ipam::collect::{self, Proof, Verdict};
use ipam::keep::Lineage;
use ipam::leak::Holding;
use ipam::name::{PoolName, Uid};
use ipam::record::{Records, RecordsError};
use kube::api::Api;

use super::Gc;
use super::survey::Survey;
use crate::api::SpiderIPPool;
use crate::error::ErrorChain;
use crate::kube_io::cache::Key;
use crate::kube_io::endpoint::{self, RemoveError};
use crate::kube_io::put::PutError;
use crate::kube_io::retry::Outcome;
use crate::kube_io::time;

/// How often a write follows a pool that allocations keep moving.
const TRIES: usize = 5;

/// Why records stay until the next look.
#[derive(Debug, thiserror::Error)]
enum FreeError {
    #[error("could not read once more")]
    Read(#[from] kube::Error),
    #[error(transparent)]
    Endpoint(#[from] RemoveError),
    #[error("IPPool was not written")]
    Put(#[from] PutError),
    #[error("IPPool can't be read")]
    Records(#[from] RecordsError),
}

/// A record that goes, by live reads.
struct Leaving {
    holding: Holding,
    proof: Proof,
    /// Who wants the address kept.
    keep_for: Option<Lineage>,
}

/// What became of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Released,
    Kept,
    /// The machine's other Pod has it.
    Shared,
}

impl Gc<'_> {
    /// Frees these as far as live reads say the same. What fails is found again.
    pub(super) async fn free(&self, due: Vec<Holding>) {
        let mut by_pool: BTreeMap<PoolName, Vec<Holding>> = BTreeMap::new();
        for holding in due {
            by_pool
                .entry(holding.pool.clone())
                .or_default()
                .push(holding);
        }
        let mut survey = self.survey();
        // All before any goes: a Pod has addresses in several pools, and one endpoint, which may be
        // the only one to tell its node. So where one of them could not be read, all of its stay.
        let (mut confirmed, mut unread) = (Vec::new(), BTreeSet::new());
        for (pool, holdings) in by_pool {
            let leaving = self.confirm_all(holdings, &mut survey, &mut unread).await;
            confirmed.push((pool, leaving));
        }
        for (pool, mut leaving) in confirmed {
            leaving.retain(|gone| !unread.contains(&gone.holding.uid));
            let count = leaving.len();
            if let Err(error) = self.free_in(&pool, leaving).await {
                self.not_freed(&pool, count, &error);
            }
        }
    }

    fn not_freed(&self, pool: &PoolName, count: usize, error: &FreeError) {
        self.metrics.not_collected(count);
        tracing::warn!(%pool, error = %ErrorChain(error), "addresses without an owner not freed; the next look does it");
    }

    /// Those that go, by live reads; Pods of which one could not be read are added to `unread`.
    async fn confirm_all(
        &self,
        holdings: Vec<Holding>,
        survey: &mut Survey,
        unread: &mut BTreeSet<Uid>,
    ) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        for holding in holdings {
            match self.confirm(&holding, survey).await {
                Ok(gone) => leaving.extend(gone),
                Err(error) => {
                    self.metrics.not_collected(1);
                    tracing::warn!(
                        pool = %holding.pool, address = %holding.address, pod = %holding.pod,
                        error = %ErrorChain(&error),
                        "an address without an owner could not be read once more; the next look does it"
                    );
                    unread.insert(holding.uid);
                }
            }
        }
        leaving
    }

    async fn free_in(&self, pool: &PoolName, leaving: Vec<Leaving>) -> Result<(), FreeError> {
        for gone in leaving.iter().filter(|leaving| leaving.keep_for.is_none()) {
            // Before the record: the endpoint is derived from it, and nobody looks for it after.
            let (namespace, name) = gone.holding.pod.parts();
            let uid = gone.holding.uid.as_str();
            endpoint::remove_of(&self.writer.client, namespace, name, uid).await?;
        }
        if let Some((object, left)) = self.write(pool, leaving).await? {
            self.metrics.collected(left.len());
            self.tell(&object, &left);
        }
        Ok(())
    }

    /// The record as live reads have it; `None` if it may not go, after all.
    async fn confirm(
        &self,
        holding: &Holding,
        survey: &mut Survey,
    ) -> Result<Option<Leaving>, kube::Error> {
        let fate = survey.fate(holding).await?;
        let seen = survey.see(holding.clone(), fate).await?;
        let verdict = collect::judge(&seen, &self.options.policy, time::now());
        let Verdict::Goes(proof) = verdict else {
            return Ok(None);
        };
        let keep_for = survey.keeper(&seen).await?;
        Ok(Some(Leaving {
            holding: seen.holding,
            proof,
            keep_for,
        }))
    }

    /// Writes the pool without those that are still recorded so; returns it, and what became of them.
    async fn write(
        &self,
        pool: &PoolName,
        leaving: Vec<Leaving>,
    ) -> Result<Option<(SpiderIPPool, Vec<(Leaving, Then)>)>, FreeError> {
        let key = Key::cluster(pool.as_str());
        let mut object = self.writer.pools.get(&key).map(|known| (*known).clone());
        let mut tries = 0;
        while let Some(known) = object {
            let text = known
                .status
                .as_ref()
                .and_then(|s| s.allocated_ips.as_deref());
            let mut records = Records::parse(text)?;
            let take = |leaving: &Leaving| take(&mut records, leaving);
            let then: Vec<Option<Then>> = leaving.iter().map(take).collect();
            if then.iter().all(Option::is_none) {
                return Ok(None);
            }
            match self.writer.put_records(&known, &records).await {
                Ok(()) => {
                    let left = leaving.into_iter().zip(then);
                    let left = left.filter_map(|(leaving, then)| Some((leaving, then?)));
                    return Ok(Some((known, left.collect())));
                }
                Err(error) if error.outcome() == Outcome::Conflict && tries < TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
            let api: Api<SpiderIPPool> = Api::all(self.clients.read.clone());
            object = api.get_opt(pool.as_str()).await?;
        }
        Ok(None)
    }

    /// One log line an address, one Event a proof.
    fn tell(&self, pool: &SpiderIPPool, left: &[(Leaving, Then)]) {
        for (leaving, then) in left {
            let Leaving { holding, proof, .. } = leaving;
            let what = match then {
                Then::Released => "address of a Pod that ended released",
                Then::Kept => "address of a Pod that ended kept for the next Pod of its identity",
                Then::Shared => {
                    "address of a Pod that ended left to the other Pod of the same virtual machine"
                }
            };
            tracing::info!(
                pool = %holding.pool, address = %holding.address, pod = %holding.pod, uid = %holding.uid,
                because = %proof, "{what}"
            );
        }
        let released = left.iter().map(|(leaving, then)| told(leaving, *then));
        self.reports.collected(pool, released);
    }
}

/// Takes the Pod out of the record, if it is still the one that was judged.
fn take(records: &mut Records, leaving: &Leaving) -> Option<Then> {
    let Holding {
        pool, address, uid, ..
    } = &leaving.holding;
    let record = records.get(*address)?;
    if !Holding::of(pool, *address, record).contains(&leaving.holding) {
        return None;
    }
    let left = if record.uid == *uid {
        record.let_go(leaving.keep_for.as_ref())
    } else {
        Some(record.without_next())
    };
    let Some(left) = left else {
        records.remove(*address);
        return Some(Then::Released);
    };
    let then = if left.kept { Then::Kept } else { Then::Shared };
    records.insert(*address, left);
    Some(then)
}

/// What an Event says: why it is free, and who had what.
fn told(leaving: &Leaving, then: Then) -> (String, String) {
    let Leaving { holding, proof, .. } = leaving;
    let Holding { address, pod, .. } = holding;
    let but = match then {
        Then::Released => "",
        Then::Kept => ", kept",
        Then::Shared => ", left to the machine's other Pod",
    };
    let why = format!("released, since {proof}, and the Pods are gone");
    (why, format!("{address} (Pod {pod}{but})"))
}
