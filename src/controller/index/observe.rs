//! What one pass plans on, put together from the maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipam::addr::Family;
use ipam::name::{PoolName, SubnetName};
use ipam::plan::{Snapshot, SubnetSeen};
use ipam::pool::Pool;
use ipam::select::PoolFault;
use ipnet::IpNet;
use kube::ResourceExt;
use kube::core::DeserializeGuard;

use super::state::{State, claimed, is_unread_of, overlap, unread_elsewhere};
use super::{Index, Switch};
use crate::api::{SpiderIPPool, SpiderSubnet, convert};

/// Everything a pass needs: the core's snapshot and the objects it was made from.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What the core plans on.
    pub snapshot: Snapshot,
    /// The subnet's object.
    pub subnet: Option<Arc<SpiderSubnet>>,
    /// The pools' objects.
    pub pools: BTreeMap<PoolName, Arc<SpiderIPPool>>,
    /// Subnets with the CIDR that serve nobody: younger ones, or all while subnets are off.
    pub idle: Vec<Arc<SpiderSubnet>>,
    /// Younger subnets with the same CIDR.
    pub twins: Vec<Arc<SpiderSubnet>>,
    /// Elder subnets whose CIDR overlaps this one: what they have is theirs.
    pub elders: Vec<SubnetName>,
}

impl Index {
    /// What there is to plan for `cidr`. Cost: O(pools of the CIDR + workloads that ask for it).
    pub fn observe(&self, cidr: &IpNet) -> Observed {
        let mut state = self.state();
        let mut seen = Observed::default();
        let family = Family::of(cidr.addr());
        let mut subnets = state.subnets_with(cidr).into_iter();
        let serving = match self.features.subnets {
            Switch::On => subnets.next(),
            Switch::Off => None,
        };
        let mut asked = None;
        if let Some((name, entry)) = serving {
            seen.subnet = Some(entry.raw.clone());
            seen.snapshot.subnet = match &entry.parsed {
                Ok(subnet) => SubnetSeen::Readable(subnet.clone()),
                Err(error) => SubnetSeen::Unreadable {
                    name: name.as_str().into(),
                    reason: error.to_string(),
                },
            };
            asked = Some(name.clone());
        }
        seen.idle = subnets.map(|(_, entry)| entry.raw.clone()).collect();
        if seen.subnet.is_some() {
            seen.twins.clone_from(&seen.idle);
        }
        let auto = self.features.auto_pools == Switch::On && self.features.serves(family);
        if let Some(name) = asked.filter(|_| auto) {
            seen.snapshot.demands = state.demands(&name, family);
        }
        for name in state.pools_of.get(cidr).into_iter().flatten() {
            if let Some(entry) = state.pools.get(name) {
                self.add_pool(&state, &mut seen, name, &entry.raw, &entry.parsed);
            }
        }
        for (name, entry) in state.unread_in(cidr) {
            let reason = entry.object.reason.clone();
            seen.snapshot.unreadable.insert(name.clone(), reason);
        }
        seen.elders = state.surroundings(cidr, &mut seen.snapshot);
        seen
    }

    /// The same with pools just read from the API server in place of those known.
    pub fn observe_live(
        &self,
        cidr: &IpNet,
        pools: Vec<DeserializeGuard<SpiderIPPool>>,
    ) -> Observed {
        let mut seen = self.observe(cidr);
        seen.pools.clear();
        seen.snapshot.pools.clear();
        seen.snapshot.unreadable.clear();
        let state = self.state();
        for guard in pools {
            let raw = match guard.0 {
                Ok(raw) => raw,
                Err(invalid) => {
                    let name = PoolName::new(invalid.metadata.name.clone().unwrap_or_default());
                    let (meta, was) = (&invalid.metadata, state.last_cidr(&name));
                    if let Some(claimed) = unread_elsewhere(meta, was, cidr) {
                        seen.snapshot.elsewhere = seen.snapshot.elsewhere.union(&claimed);
                    }
                    if is_unread_of(meta, was, cidr) {
                        seen.snapshot.unreadable.insert(name, invalid.error);
                    }
                    continue;
                }
            };
            let Ok(other) = convert::cidr(&raw.spec.subnet, raw.spec.ip_version) else {
                continue;
            };
            let (name, parsed) = (
                PoolName::new(raw.name_any()),
                convert::pool(&raw).map(Arc::new),
            );
            if other == *cidr {
                self.add_pool(&state, &mut seen, &name, &Arc::new(raw), &parsed);
            } else if overlap(&other, cidr) {
                let claimed = claimed(&raw, &parsed, &other);
                seen.snapshot.elsewhere = seen.snapshot.elsewhere.union(&claimed);
            }
        }
        seen.snapshot.live = true;
        seen
    }

    fn add_pool(
        &self,
        state: &State,
        seen: &mut Observed,
        name: &PoolName,
        raw: &Arc<SpiderIPPool>,
        parsed: &Result<Arc<Pool>, PoolFault>,
    ) {
        seen.pools.insert(name.clone(), raw.clone());
        match parsed {
            Err(fault) => {
                seen.snapshot
                    .unreadable
                    .insert(name.clone(), fault.to_string());
            }
            Ok(pool) => {
                let (mut pool, family) = (Arc::clone(pool), pool.family());
                if let Some(owner) = &pool.owner {
                    if state.workloads.contains_key(&owner.uid) {
                        seen.snapshot.living.insert(owner.uid.clone());
                    }
                    // Nobody asks for the pool, but not because nobody wants it: it is kept.
                    let off =
                        self.features.auto_pools == Switch::Off || !self.features.serves(family);
                    let kept = off || state.is_undecided(owner);
                    if kept && owner.reclaim {
                        let pool = Arc::make_mut(&mut pool);
                        pool.owner
                            .iter_mut()
                            .for_each(|owner| owner.reclaim = false);
                    }
                }
                seen.snapshot.pools.insert(name.clone(), pool);
            }
        }
    }
}
