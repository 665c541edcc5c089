//! The maps behind the index, and the look-ups that follow their links.
//!
//! Invariant: every map is what the objects in the others say; [`State::link`] and
//! [`State::remember_pod`] are undone by [`State::unlink`] and [`State::forget_pod`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipam::addr::{AddrSet, Family, Range};
use ipam::annotation::{AnnotationError, SubnetItem};
use ipam::demand::PodCount;
use ipam::kind::{Kinds, OtherKind};
use ipam::name::{PoolName, SubnetName, Uid};
use ipam::plan::{Demand, Snapshot};
use ipam::pool::Pool;
use ipam::select::PoolFault;
use ipam::subnet::{Subnet, SubnetLedger};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use super::Dirty;
use super::pods::PodSeen;
use crate::api::convert::{self, FieldError};
use crate::api::{SpiderIPPool, SpiderSubnet};
use crate::controller::workload::{Seen, Wish};
use crate::kube_io::cache::Unreadable;

pub(super) struct SubnetEntry {
    pub(super) raw: Arc<SpiderSubnet>,
    pub(super) parsed: Result<Arc<Subnet>, FieldError>,
    pub(super) cidr: Option<IpNet>,
}

pub(super) struct PoolEntry {
    pub(super) raw: Arc<SpiderIPPool>,
    pub(super) parsed: Result<Arc<Pool>, PoolFault>,
    pub(super) cidr: Option<IpNet>,
}

impl PoolEntry {
    /// Uid of the workload that it was made for.
    fn owner(&self) -> Option<Uid> {
        let owner = self.parsed.as_ref().ok()?.owner.as_ref();
        owner.map(|owner| owner.uid.clone())
    }
}

/// A pool that not even its kind's schema can read.
pub(super) struct UnreadPool {
    pub(super) object: Arc<Unreadable>,
    /// The CIDR that it was last known in.
    pub(super) was: Option<IpNet>,
}

/// An object that no pass looks at, since nobody knows its CIDR, and what is wrong with it.
#[derive(Debug, Clone)]
pub enum Stray {
    /// A pool.
    Pool(Arc<SpiderIPPool>, String),
    /// A subnet.
    Subnet(Arc<SpiderSubnet>, String),
    /// A pool of which only the metadata can be read.
    Unreadable(Arc<Unreadable>),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) subnets: BTreeMap<String, SubnetEntry>,
    pub(super) pools: BTreeMap<PoolName, PoolEntry>,
    pub(super) pools_of: BTreeMap<IpNet, BTreeSet<PoolName>>,
    /// The pools of each workload that has some.
    pub(super) owned: BTreeMap<Uid, BTreeSet<PoolName>>,
    pub(super) unread: BTreeMap<PoolName, UnreadPool>,
    pub(super) reserved: BTreeMap<String, AddrSet>,
    pub(super) kinds: Kinds,
    /// Kinds whose workloads may be there without being known.
    pub(super) unlisted: BTreeSet<OtherKind>,
    pub(super) workloads: BTreeMap<Uid, Seen>,
    /// Workloads that are there and can't be read.
    pub(super) frozen: BTreeSet<Uid>,
    pub(super) asking: BTreeMap<String, BTreeSet<Uid>>,
    /// Whom a template that another workload shows has ask for a subnet, and who shows it.
    pub(super) lent: BTreeMap<String, BTreeSet<(Uid, Uid)>>,
    pub(super) children: BTreeMap<Uid, BTreeSet<Uid>>,
    pub(super) pods: BTreeMap<Uid, PodSeen>,
    pub(super) pods_of_owner: BTreeMap<Uid, BTreeSet<Uid>>,
    pub(super) on_pods: BTreeMap<IpAddr, BTreeSet<Uid>>,
    pub(super) surplus: BTreeMap<PoolName, DateTime<Utc>>,
    /// What workloads want, as far as that was asked since they or their Pods last changed.
    wants: BTreeMap<Uid, Vec<Want>>,
}

/// What a workload wants of one subnet on one interface.
struct Want {
    subnet: SubnetName,
    family: Family,
    demand: Arc<Demand>,
}

impl State {
    /// Knows nothing yet; workloads of these kinds count.
    pub(super) fn of_kinds(kinds: Kinds) -> Self {
        Self {
            unlisted: kinds.others().iter().cloned().collect(),
            kinds,
            ..Self::default()
        }
    }

    pub(super) fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        let of_subnets = self.subnets.values().filter_map(|e| e.cidr);
        of_subnets.chain(
            self.pools_of
                .iter()
                .filter(|(_, p)| !p.is_empty())
                .map(|(c, _)| *c),
        )
    }

    /// Remembers what a pool is now, or that it is not there or can't be read; what it was.
    pub(super) fn set_pool(
        &mut self,
        name: &PoolName,
        new: Option<PoolEntry>,
    ) -> Option<PoolEntry> {
        let owner = new.as_ref().and_then(PoolEntry::owner);
        let old = match new {
            Some(entry) => self.pools.insert(name.clone(), entry),
            None => self.pools.remove(name),
        };
        let was = old.as_ref().and_then(PoolEntry::owner);
        if was != owner {
            if let Some(was) = &was {
                remove(&mut self.owned, was, name);
            }
            if let Some(owner) = owner {
                self.owned.entry(owner).or_default().insert(name.clone());
            }
        }
        old
    }

    /// The CIDR that a pool, readable or not, was last known in.
    pub(super) fn last_cidr(&self, name: &PoolName) -> Option<IpNet> {
        let readable = self.pools.get(name).and_then(|entry| entry.cidr);
        readable.or_else(|| self.unread.get(name)?.was)
    }

    /// The unreadable pools that count for `cidr`.
    pub(super) fn unread_in(&self, cidr: &IpNet) -> impl Iterator<Item = (&PoolName, &UnreadPool)> {
        let all = self.unread.iter();
        all.filter(|(_, entry)| is_unread_of(&entry.object.meta, entry.was, cidr))
    }

    /// The CIDRs that an unreadable pool counts for, and the one that it was last known in.
    pub(super) fn touched_by_unread(&self, entry: &UnreadPool) -> Vec<IpNet> {
        let counts = self
            .cidrs()
            .filter(|cidr| is_unread_of(&entry.object.meta, entry.was, cidr));
        let known = cidr_of_unread(&entry.object.meta, entry.was);
        counts.chain(known).collect()
    }

    /// See [`super::Index::strays`].
    pub(super) fn strays(&self) -> Vec<Stray> {
        let pools = self.pools.values().filter(|entry| entry.cidr.is_none());
        let pools = pools.filter_map(|entry| {
            let spec = &entry.raw.spec;
            let fault = convert::cidr(&spec.subnet, spec.ip_version).err()?;
            Some(Stray::Pool(entry.raw.clone(), fault.to_string()))
        });
        let subnets = self.subnets.values().filter(|entry| entry.cidr.is_none());
        let subnets = subnets.filter_map(|entry| {
            let fault = entry.parsed.as_ref().err()?;
            Some(Stray::Subnet(entry.raw.clone(), fault.to_string()))
        });
        let unread = self.unread.values();
        let unread = unread.map(|entry| Stray::Unreadable(entry.object.clone()));
        pools.chain(subnets).chain(unread).collect()
    }

    /// The CIDRs known that contain one of `addresses`. Cost: O(CIDRs), nothing without addresses.
    pub(super) fn cidrs_with(&self, addresses: &BTreeSet<IpAddr>) -> Dirty {
        if addresses.is_empty() {
            return Dirty::new();
        }
        self.cidrs()
            .filter(|cidr| addresses.iter().any(|address| cidr.contains(address)))
            .collect()
    }

    /// The CIDRs known that share an address with one of `touched`, and `touched` themselves.
    pub(super) fn with_overlapping(&self, touched: &[IpNet]) -> Dirty {
        let near = self
            .cidrs()
            .filter(|c| touched.iter().any(|t| overlap(t, c)));
        near.chain(touched.iter().copied()).collect()
    }

    /// The subnets with just this CIDR, the one that counts first: the elder of namesakes.
    pub(super) fn subnets_with(&self, cidr: &IpNet) -> Vec<(&String, &SubnetEntry)> {
        let mut all: Vec<_> = self
            .subnets
            .iter()
            .filter(|(_, entry)| entry.cidr == Some(*cidr))
            .collect();
        all.sort_by_key(|(name, entry)| rank(name, entry));
        all
    }

    /// What the pools and subnets with another, overlapping CIDR have: all of an elder subnet, what
    /// a younger one has handed out. Returns the names of the elders, too.
    fn rivals(&self, cidr: &IpNet) -> (AddrSet, Vec<SubnetName>) {
        let own = self
            .subnets_with(cidr)
            .first()
            .map(|(name, entry)| rank(name, entry));
        let (mut has, mut elders) = (AddrSet::new(), vec![]);
        for (name, entry) in &self.subnets {
            let Some(other) = entry.cidr.filter(|c| c != cidr && overlap(c, cidr)) else {
                continue;
            };
            let is_elder = own.as_ref().is_some_and(|own| rank(name, entry) < *own);
            if is_elder {
                elders.push(SubnetName::from(name.as_str()));
            }
            has = has.union(&match &entry.parsed {
                Ok(subnet) if is_elder => subnet.total(),
                Ok(subnet) => subnet
                    .ledger
                    .as_ref()
                    .map(SubnetLedger::taken)
                    .unwrap_or_default(),
                Err(_) => Range::of_net(&other).into(),
            });
        }
        (has, elders)
    }

    pub(super) fn link(&mut self, uid: &Uid, seen: &Seen) {
        let shown_to = self.shown_to(seen);
        for name in own_subnets(seen.wish.as_ref()) {
            if let Some(owner) = &shown_to {
                let lent = self.lent.entry(name.clone()).or_default();
                lent.insert((owner.clone(), uid.clone()));
            }
            self.asking.entry(name).or_default().insert(uid.clone());
        }
        if let Some(owner) = &seen.controller {
            let owner = Uid::from(owner.uid.as_str());
            self.wants.remove(&owner);
            self.children.entry(owner).or_default().insert(uid.clone());
        }
        self.wants.remove(uid);
    }

    pub(super) fn unlink(&mut self, uid: &Uid, seen: &Seen) {
        let shown_to = self.shown_to(seen);
        for name in own_subnets(seen.wish.as_ref()) {
            if let Some(owner) = &shown_to {
                remove(&mut self.lent, &name, &(owner.clone(), uid.clone()));
            }
            remove(&mut self.asking, &name, uid);
        }
        if let Some(owner) = &seen.controller {
            let owner = Uid::from(owner.uid.as_str());
            self.wants.remove(&owner);
            remove(&mut self.children, &owner, uid);
        }
        self.wants.remove(uid);
    }

    /// CIDRs of the subnets that a workload, or the workload above it, asks for.
    pub(super) fn asked(&self, seen: &Seen) -> Dirty {
        let own = self.subnets_of(seen);
        let above = seen
            .controller
            .as_ref()
            .and_then(|o| self.workloads.get(&Uid::from(o.uid.as_str())));
        let names = own
            .into_iter()
            .chain(above.into_iter().flat_map(|above| self.subnets_of(above)));
        names
            .filter_map(|name| self.subnets.get(&name).and_then(|e| e.cidr))
            .collect()
    }

    pub(super) fn asked_by_owner(&self, owner: &Uid) -> Dirty {
        self.workloads
            .get(owner)
            .map(|seen| self.asked(seen))
            .unwrap_or_default()
    }

    /// Who asks for the subnet `name`, a workload below another one left out.
    ///
    /// Cost: O(workloads that ask) reference counts, and what changed since the last time.
    pub(super) fn demands(&mut self, name: &str, family: Family) -> Vec<Arc<Demand>> {
        let unknown = self
            .asking_for(name)
            .filter(|uid| !self.wants.contains_key(*uid));
        for uid in unknown.cloned().collect::<Vec<_>>() {
            let wants = self.wants_of(&uid);
            self.wants.insert(uid, wants);
        }
        let asking = self.asking_for(name);
        let wants = asking.filter_map(|uid| self.wants.get(uid)).flatten();
        let here = wants.filter(|want| want.family == family && want.subnet.as_str() == name);
        here.map(|want| want.demand.clone()).collect()
    }

    /// What a workload wants, of every subnet.
    fn wants_of(&self, uid: &Uid) -> Vec<Want> {
        let seen = self
            .workloads
            .get(uid)
            .filter(|s| !self.is_below_another(s));
        let Some((seen, wish)) = seen.and_then(|seen| Some((seen, self.wish(seen)?))) else {
            return vec![];
        };
        let Ok(wish) = wish.as_ref() else {
            return vec![];
        };
        let pods = PodCount {
            replicas: seen.replicas,
            surge: seen.surge,
            living: self.living(uid),
            ordinals: seen.ordinals,
        };
        let of_item = |item: &SubnetItem| {
            let demand = Arc::new(Demand {
                workload: seen.id.clone(),
                nic: item.nic.clone(),
                selector: wish.selector.clone(),
                rule: wish.rule,
                pods: pods.clone(),
                reclaim: wish.reclaim,
            });
            let families = [Family::V4, Family::V6].into_iter();
            let wants = families.filter_map(|family| {
                Some(Want {
                    subnet: item.subnet(family)?.clone(),
                    family,
                    demand: demand.clone(),
                })
            });
            wants.collect::<Vec<_>>()
        };
        wish.items.iter().flat_map(of_item).collect()
    }

    /// Pods of `owner`, or of the workload above it, appeared, changed or went.
    pub(super) fn pods_changed(&mut self, owner: &Uid) {
        self.wants.remove(owner);
        let above = self.workloads.get(owner);
        if let Some(above) = above.and_then(|seen| seen.controller.as_ref()) {
            self.wants.remove(&Uid::from(above.uid.as_str()));
        }
    }

    /// What is around the CIDR; returns the elder subnets that it overlaps.
    pub(super) fn surroundings(&self, cidr: &IpNet, snapshot: &mut Snapshot) -> Vec<SubnetName> {
        snapshot.reserved = self
            .reserved
            .values()
            .fold(AddrSet::new(), |all, set| all.union(set));
        snapshot.surplus_since = self.surplus.clone();
        let on_pods = || self.on_pods.range(cidr.network()..=cidr.broadcast());
        snapshot.on_pods = on_pods().map(|(address, _)| *address).collect();
        let holders = on_pods().filter_map(|(address, uids)| {
            let holder = uids.iter().find_map(|uid| self.holder(uid, address));
            Some((*address, holder?))
        });
        snapshot.holders = holders.collect();
        let (mut elsewhere, elders) = self.rivals(cidr);
        for (other, names) in self.pools_of.iter().filter(|(other, _)| *other != cidr) {
            snapshot.names_elsewhere.extend(names.iter().cloned());
            if overlap(other, cidr) {
                let pools = names.iter().filter_map(|name| self.pools.get(name));
                // Put together once, not pool by pool: there may be thousands.
                let claimed: AddrSet = pools
                    .flat_map(|entry| claimed(&entry.raw, &entry.parsed, other).ranges().to_vec())
                    .collect();
                elsewhere = elsewhere.union(&claimed);
            }
        }
        let unread = self.unread.values();
        let unread =
            unread.filter_map(|entry| unread_elsewhere(&entry.object.meta, entry.was, cidr));
        snapshot.elsewhere = unread.fold(elsewhere, |all, claimed| all.union(&claimed));
        elders
    }
}

/// True where an unreadable pool with this metadata, last known in `was`, counts for `cidr`.
pub(super) fn is_unread_of(meta: &ObjectMeta, was: Option<IpNet>, cidr: &IpNet) -> bool {
    [was, convert::labelled_cidr(meta)].contains(&Some(*cidr))
}

/// Where an unreadable pool with this metadata was last known, else what it is labelled with.
fn cidr_of_unread(meta: &ObjectMeta, was: Option<IpNet>) -> Option<IpNet> {
    was.or_else(|| convert::labelled_cidr(meta))
}

/// What a pool of this CIDR claims, also one that can't be read.
pub(super) fn claimed<'a>(
    raw: &SpiderIPPool,
    parsed: &'a Result<Arc<Pool>, PoolFault>,
    of: &IpNet,
) -> Cow<'a, AddrSet> {
    match parsed {
        Ok(pool) => pool.claimed(),
        Err(_) => Cow::Owned(convert::claimed_unread(raw, of)),
    }
}

/// What a pool with this metadata, last known in `was` or labelled with another CIDR that overlaps
/// `cidr`, claims.
pub(super) fn unread_elsewhere(
    meta: &ObjectMeta,
    was: Option<IpNet>,
    cidr: &IpNet,
) -> Option<AddrSet> {
    let other = cidr_of_unread(meta, was)?;
    let is_near = other != *cidr && overlap(&other, cidr);
    is_near.then(|| convert::claimed_unknown(meta, &other))
}

/// Elder first; among subnets of one second, by name.
fn rank(name: &str, entry: &SubnetEntry) -> (Option<DateTime<Utc>>, String) {
    let created = entry.raw.meta().creation_timestamp.as_ref();
    (created.map(crate::api::time::from_wire), name.to_owned())
}

pub(super) fn remove<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

pub(super) fn own_subnets(wish: Option<&Result<Wish, AnnotationError>>) -> Vec<String> {
    let asked = wish.into_iter().flatten().flat_map(families_of);
    asked.map(|(name, _)| name.as_str().to_owned()).collect()
}

/// The subnets that somebody asks for, and for addresses of which family.
pub(super) fn families_of(wish: &Wish) -> impl Iterator<Item = (&SubnetName, Family)> {
    wish.items.iter().flat_map(|item| {
        [Family::V4, Family::V6]
            .into_iter()
            .filter_map(|family| Some((item.subnet(family)?, family)))
    })
}
