//! What the controller knows: every object it watches, parsed once, found by what asks for it.
//!
//! Owns: the mapping from a change to the CIDRs that need a pass, and the snapshot of one CIDR.
//! Never does: IO, or decide. Invariants: an object is parsed when it changes, not when a pass
//! runs; a change that can't alter a plan wakes nobody.

mod complaints;
mod known;
mod lent;
mod observe;
mod pods;
mod state;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use ipam::addr::{AddrSet, Family};
use ipam::annotation::SubnetItem;
use ipam::kind::{Kinds, OtherKind};
use ipam::name::{PodName, PoolName, Uid, WorkloadId};
use ipam::pool::Pool;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;

use super::workload::Seen;
use crate::api::convert::{self, FieldError};
use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet};
use crate::kube_io::cache::Unreadable;
pub use observe::Observed;
pub use pods::trim_pod;
use pods::{PodSeen, pod_seen};
pub use state::Stray;
use state::{PoolEntry, State, SubnetEntry, UnreadPool};

/// Which features act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// IPv4 is on.
    pub ipv4: bool,
    /// IPv6 is on.
    pub ipv6: bool,
    /// Subnets control pools.
    pub subnets: Switch,
    /// Workloads get pools of their own.
    pub auto_pools: Switch,
}

/// A feature that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

impl Features {
    /// True where `family` is on.
    pub fn serves(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

/// A workload as the Pods see it that it serves.
#[derive(Debug, Clone)]
pub struct Served {
    /// Who.
    pub workload: WorkloadId,
    /// What it asks of subnets for Pods that say nothing of them; none where its template says it,
    /// so that a Pod which says nothing is none of that template.
    pub own: Option<Vec<SubnetItem>>,
    /// Its pools, of every interface and subnet.
    pub pools: Vec<Arc<Pool>>,
}

/// The index. Cheap to share; every method locks it for a short, await-free moment.
pub struct Index {
    features: Features,
    state: Mutex<State>,
}

/// The CIDRs that a change concerns.
pub type Dirty = BTreeSet<IpNet>;

impl Index {
    /// An empty index.
    pub fn new(features: Features) -> Self {
        Self::of_kinds(features, Kinds::default())
    }

    /// An empty index in which workloads of these kinds count.
    pub fn of_kinds(features: Features, kinds: Kinds) -> Self {
        Self {
            features,
            state: Mutex::new(State::of_kinds(kinds)),
        }
    }

    /// All workloads of a kind that an operator names have been told: who is not among them is gone.
    pub fn listed(&self, kind: &OtherKind) -> Dirty {
        let mut state = self.state();
        if !state.unlisted.remove(kind) {
            return Dirty::new();
        }
        state.cidrs().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each method leaves the maps consistent before it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subnet appeared, changed or went. Those with an overlapping CIDR are concerned too.
    pub fn subnet(&self, name: &str, new: Option<&Arc<SpiderSubnet>>) -> Dirty {
        let mut state = self.state();
        let old = match new {
            None => state.subnets.remove(name),
            Some(raw) => {
                let parsed = convert::subnet(raw).map(Arc::new);
                let cidr = convert::cidr(&raw.spec.subnet, raw.spec.ip_version).ok();
                state.subnets.insert(
                    name.to_owned(),
                    SubnetEntry {
                        raw: raw.clone(),
                        parsed,
                        cidr,
                    },
                )
            }
        };
        let now = state.subnets.get(name).and_then(|e| e.cidr);
        let touched: Vec<IpNet> = [old.and_then(|e| e.cidr), now]
            .into_iter()
            .flatten()
            .collect();
        state.with_overlapping(&touched)
    }

    /// A pool appeared, changed or went. Pools with an overlapping CIDR are concerned too.
    pub fn pool(&self, name: &str, new: Option<&Arc<SpiderIPPool>>) -> Dirty {
        let mut state = self.state();
        let name = PoolName::from(name);
        let unread = state.unread.remove(&name);
        let unread = unread.map(|entry| state.touched_by_unread(&entry));
        let old = match new {
            None => {
                state.surplus.remove(&name);
                state.set_pool(&name, None)
            }
            Some(raw) => {
                let parsed = convert::pool(raw).map(Arc::new);
                let cidr = convert::cidr(&raw.spec.subnet, raw.spec.ip_version).ok();
                let entry = PoolEntry {
                    raw: raw.clone(),
                    parsed,
                    cidr,
                };
                state.set_pool(&name, Some(entry))
            }
        };
        let now = state.pools.get(&name).and_then(|e| e.cidr);
        let was = old.and_then(|e| e.cidr);
        if was != now {
            if let Some(pools) = was.and_then(|cidr| state.pools_of.get_mut(&cidr)) {
                pools.remove(&name);
            }
            if let Some(cidr) = now {
                state.pools_of.entry(cidr).or_default().insert(name);
            }
        }
        let mut touched: Vec<IpNet> = [was, now].into_iter().flatten().collect();
        touched.extend(unread.into_iter().flatten());
        state.with_overlapping(&touched)
    }

    /// A pool is there that not even its kind's schema can read. It keeps what the ledger gives it
    /// in the CIDR that it was last known in, or that its label names.
    pub fn unreadable_pool(&self, unreadable: &Arc<Unreadable>) -> Dirty {
        let mut state = self.state();
        let name = PoolName::new(unreadable.meta.name.clone().unwrap_or_default());
        let was = state.set_pool(&name, None).and_then(|entry| entry.cidr);
        if let Some(pools) = was.and_then(|cidr| state.pools_of.get_mut(&cidr)) {
            pools.remove(&name);
        }
        let was = was.or_else(|| state.unread.get(&name).and_then(|entry| entry.was));
        let entry = UnreadPool {
            object: unreadable.clone(),
            was,
        };
        let touched = state.touched_by_unread(&entry);
        state.unread.insert(name, entry);
        state.with_overlapping(&touched)
    }

    /// A workload is there that can't be read: its pools stay as they are.
    pub fn unreadable_workload(&self, uid: &Uid) -> Dirty {
        let mut state = self.state();
        state.frozen.insert(uid.clone());
        let known = state.workloads.get(uid);
        known.map(|seen| state.asked(seen)).unwrap_or_default()
    }

    /// Pools and subnets that no pass looks at.
    pub fn strays(&self) -> Vec<Stray> {
        self.state().strays()
    }

    /// A reservation appeared, changed or went. Returns what can't be read of it, too.
    pub fn reserved(
        &self,
        name: &str,
        new: Option<&Arc<SpiderReservedIP>>,
    ) -> (Dirty, Vec<FieldError>) {
        let mut state = self.state();
        let (set, errors) = new.map(|raw| convert::reserved(raw)).unwrap_or_default();
        state.reserved.insert(name.to_owned(), set);
        state.reserved.retain(|_, set| !set.is_empty());
        (state.cidrs().collect(), errors)
    }

    /// Every reserved address. Cost: O(ranges).
    pub fn all_reserved(&self) -> Arc<AddrSet> {
        let sets = &self.state().reserved;
        Arc::new(
            sets.values()
                .fold(AddrSet::new(), |all, set| all.union(set)),
        )
    }

    /// A workload appeared, changed or went.
    pub fn workload(&self, uid: &Uid, new: Option<Seen>) -> Dirty {
        let mut state = self.state();
        let frozen = state.frozen.remove(uid);
        let old = state.workloads.get(uid).cloned();
        if old == new && !frozen {
            return Dirty::new();
        }
        if let Some(seen) = &old {
            state.unlink(uid, seen);
        }
        let mut dirty = Dirty::new();
        if frozen {
            // What it asked for, if it was ever known, nobody can say.
            dirty.extend(state.cidrs());
        }
        for seen in [&old, &new].into_iter().flatten() {
            dirty.extend(state.asked(seen));
        }
        match new {
            None => drop(state.workloads.remove(uid)),
            Some(seen) => {
                state.link(uid, &seen);
                state.workloads.insert(uid.clone(), seen);
            }
        }
        dirty
    }

    /// A Pod appeared, changed or went: of concern to the CIDRs that its workload asks for, and to
    /// those of addresses that came or went with it, whoever gave them.
    pub fn pod(&self, uid: &Uid, new: Option<&Arc<Pod>>) -> Dirty {
        let mut state = self.state();
        let new = new.map(|pod| pod_seen(pod));
        let old = state.pods.get(uid).cloned();
        if old == new {
            return Dirty::new();
        }
        let mut dirty = Dirty::new();
        for seen in [&old, &new].into_iter().flatten() {
            dirty.extend(
                seen.owner
                    .iter()
                    .flat_map(|owner| state.asked_by_owner(owner)),
            );
        }
        let addresses = |seen: &Option<PodSeen>| -> BTreeSet<IpAddr> {
            let seen = seen.iter().flat_map(|seen| seen.addresses.keys());
            seen.copied().collect()
        };
        let moved = &addresses(&old) ^ &addresses(&new);
        dirty.extend(state.cidrs_with(&moved));
        if let Some(seen) = &old {
            state.forget_pod(uid, seen);
        }
        match new {
            None => drop(state.pods.remove(uid)),
            Some(seen) => {
                state.remember_pod(uid, &seen);
                state.pods.insert(uid.clone(), seen);
            }
        }
        dirty
    }

    /// The workload whose pools serve the Pods that `owner` controls; none where it asks for no
    /// pools, or can't be read. Cost: O(pools of the workload · log).
    pub fn served(&self, owner: &Uid) -> Option<Served> {
        let state = self.state();
        let mut seen = state.workloads.get(owner)?;
        if state.is_below_another(seen) {
            let above = Uid::from(seen.controller.as_ref()?.uid.as_str());
            seen = state.workloads.get(&above)?;
        }
        let is_read = [owner, &seen.id.uid]
            .iter()
            .all(|uid| !state.frozen.contains(uid));
        if !is_read || !self.asks() {
            return None;
        }
        let wish = state.wish(seen)?;
        let wish = wish.as_ref().as_ref().ok()?;
        let pools = state.owned.get(&seen.id.uid).into_iter().flatten();
        let pools = pools.filter_map(|name| state.pools.get(name)?.parsed.clone().ok());
        Some(Served {
            workload: seen.id.clone(),
            own: (!wish.is_of_pods).then(|| wish.items.clone()),
            pools: pools.collect(),
        })
    }

    /// The pools made for a workload, of those that can be read. Cost: O(their number · log).
    pub fn made_for(&self, workload: &Uid) -> Vec<PoolName> {
        let state = self.state();
        let names = state.owned.get(workload).into_iter().flatten();
        names.cloned().collect()
    }

    /// The Pods of a workload that have a node and no address yet.
    pub fn waiting(&self, workload: &Uid) -> Vec<PodName> {
        let state = self.state();
        let living = state.living_pods(workload);
        living.filter_map(|(_, pod)| pod.waits().cloned()).collect()
    }

    /// The families that Pods get.
    pub fn families(&self) -> Vec<Family> {
        let both = [Family::V4, Family::V6].into_iter();
        both.filter(|family| self.features.serves(*family))
            .collect()
    }

    /// Every CIDR known.
    pub fn all(&self) -> Dirty {
        self.state().cidrs().collect()
    }

    /// What a workload must be told before it can be served: event reason and text.
    ///
    /// Only true once all subnets are known.
    pub fn complaint(&self, seen: &Seen) -> Option<(&'static str, String)> {
        self.state().complaint(seen, self.asks())
    }

    /// The workload above, if it has no Pod template and that of `seen` may be its.
    pub fn shown_to(&self, seen: &Seen) -> Option<Seen> {
        let state = self.state();
        let above = state.workloads.get(&state.shown_to(seen)?)?;
        above.elsewhere.as_ref()?;
        Some(above.clone())
    }

    /// Every workload that must be told something.
    pub fn complaints(&self) -> Vec<(Seen, &'static str, String)> {
        let (state, asks) = (self.state(), self.asks());
        let told = |seen: &Seen| {
            state
                .complaint(seen, asks)
                .map(|(reason, note)| (seen.clone(), reason, note))
        };
        state.workloads.values().filter_map(told).collect()
    }

    /// True while annotations for auto pools are heard at all.
    fn asks(&self) -> bool {
        self.features.subnets == Switch::On && self.features.auto_pools == Switch::On
    }

    /// Remembers which pools of `cidr` have more than they need, and since when; never since a time
    /// to come, as it would be where the clock was set back.
    pub fn remember_surplus(&self, cidr: &IpNet, surplus: &BTreeSet<PoolName>, now: DateTime<Utc>) {
        let mut state = self.state();
        let State {
            pools,
            pools_of,
            surplus: since,
            ..
        } = &mut *state;
        let here = pools_of.get(cidr).cloned().unwrap_or_default();
        since.retain(|pool, _| {
            surplus.contains(pool) || (pools.contains_key(pool) && !here.contains(pool))
        });
        for pool in surplus {
            let since = state.surplus.entry(pool.clone()).or_insert(now);
            *since = now.min(*since);
        }
    }
}

#[cfg(test)]
mod tests;
