//! How many Pods get an address: what is left in each pool, given out Pod by Pod.
//!
//! Owns: counting. Never does: choose a pool; which may serve, and in which order, comes from the
//! agent's own search. Invariant: a Pod gets an address of every family on every interface, or none.

use std::collections::BTreeMap;

use ipam::addr::{AddrCount, AddrSet};
use ipam::annotation::SizeRule;
use ipam::name::{Nic, PoolName, WorkloadId};
use ipam::pool::Pool;
use ipam::select::{Exhausted, Miss, NoAddress, NoPool};
use ipnet::IpNet;

use super::objects::Load;
use crate::agent::explain::Ranking;
use crate::api::names::annotation;

/// What becomes of a workload's Pods.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) workload: WorkloadId,
    /// Pods that it runs.
    pub(super) pods: u32,
    /// Those of them that have an address, or would get one.
    pub(super) start: u32,
    /// How many more would get one, were there no others.
    pub(super) more: AddrCount,
    /// The pools that may serve them: a list for each interface and family.
    pub(super) choices: Vec<Vec<PoolName>>,
    /// Whether its pools grow with it.
    grows: bool,
    /// Why some would not start.
    pub(super) because: Option<String>,
}

/// The rankings of an interface, or why there are none.
pub(super) type Found = (Nic, Result<Vec<Ranking>, String>);

/// What is left to give in each pool.
pub(super) struct Room {
    left: BTreeMap<PoolName, u128>,
    cidrs: BTreeMap<PoolName, IpNet>,
}

impl Room {
    pub(super) fn new(pools: &[Pool], reserved: &AddrSet) -> Self {
        let left = pools
            .iter()
            .map(|p| (p.name.clone(), p.free(reserved).count().get()));
        Self {
            left: left.collect(),
            cidrs: pools.iter().map(|p| (p.name.clone(), p.cidr)).collect(),
        }
    }

    fn left(&self, pools: &[PoolName]) -> u128 {
        let each = pools.iter().filter_map(|pool| self.left.get(pool));
        each.fold(0, |sum: u128, left| sum.saturating_add(*left))
    }

    /// Gives each Pod that has none an address of every family on every interface, or nothing.
    pub(super) fn serve(
        &mut self,
        load: &Load,
        holding: u32,
        found: Vec<Found>,
        told: Option<&String>,
    ) -> Served {
        let holding = holding.min(load.pods);
        let need = load.pods - holding;
        let mut choices = vec![];
        let mut because = None;
        for (nic, found) in found {
            match found {
                Err(unserved) => because = because.or(Some(unserved)),
                Ok(rankings) => {
                    for ranking in rankings {
                        let pools: Vec<PoolName> =
                            ranking.serving().map(|pool| pool.name.clone()).collect();
                        if self.left(&pools) < u128::from(need) {
                            because = because.or_else(|| Some(refusal(&nic, &ranking, &pools)));
                        }
                        choices.push(pools);
                    }
                }
            }
        }
        let room = choices.iter().map(|pools| self.left(pools)).min();
        let room = room
            .filter(|_| !choices.iter().any(Vec::is_empty))
            .unwrap_or(0);
        let failed = because.is_some() && choices.is_empty();
        let given = if failed {
            0
        } else {
            need.min(u32::try_from(room).unwrap_or(u32::MAX))
        };
        for pools in &choices {
            self.take(pools, u128::from(given));
        }
        let rule = load.seen.wish.iter().flatten().map(|wish| wish.rule).next();
        let why = |text: String| match (told, rule) {
            (Some(told), _) => told.clone(),
            (None, Some(SizeRule::Fixed(size))) => {
                format!(
                    "{text}; annotation {} fixes the pool's size at {size}",
                    annotation::IP_NUMBER
                )
            }
            (None, Some(SizeRule::Flexible(_)) | None) => text,
        };
        Served {
            workload: load.seen.id.clone(),
            pods: load.pods,
            start: holding + given,
            more: AddrCount::ZERO,
            choices,
            grows: matches!(rule, Some(SizeRule::Flexible(_))),
            because: because.filter(|_| given < need).map(why),
        }
    }

    fn take(&mut self, pools: &[PoolName], mut count: u128) {
        for pool in pools {
            if let Some(left) = self.left.get_mut(pool) {
                let taken = count.min(*left);
                *left -= taken;
                count -= taken;
            }
        }
    }

    /// How many more Pods would start, were there no others; `free` is what each subnet may still
    /// give to pools that grow.
    pub(super) fn more(&self, served: &Served, free: &BTreeMap<IpNet, u128>) -> AddrCount {
        if served.start < served.pods {
            return AddrCount::ZERO;
        }
        let each = served.choices.iter().map(|pools| {
            let mut cidrs: Vec<&IpNet> = pools.iter().filter_map(|p| self.cidrs.get(p)).collect();
            cidrs.dedup();
            let spare = cidrs
                .into_iter()
                .filter_map(|cidr| free.get(cidr))
                .filter(|_| served.grows);
            spare.fold(self.left(pools), |sum, more| sum.saturating_add(*more))
        });
        AddrCount::new(each.min().unwrap_or(0))
    }
}

/// What the CNI call would say where these pools have too little.
fn refusal(nic: &Nic, ranking: &Ranking, serving: &[PoolName]) -> String {
    let (family, nic) = (ranking.family, nic.clone());
    if serving.is_empty() {
        let each = ranking.candidates.iter();
        let refused = NoPool {
            family,
            nic,
            pools: each.clone().map(|c| c.name.clone()).collect(),
            refusals: each
                .filter_map(|c| c.verdict.as_ref().err().cloned())
                .collect(),
        };
        return refused.to_string();
    }
    let full = NoAddress {
        family,
        nic,
        pools: serving.to_vec(),
        refusals: serving
            .iter()
            .map(|_| Miss::Exhausted(Exhausted::UsedOut))
            .collect(),
    };
    full.to_string()
}
