//! Auto pools of workloads that want them: made, grown, shrunk.
//!
//! A pool's *capacity* is what its Pods can use: its addresses without the reserved ones and the
//! gateway, and whatever is in use anyway. It is compared with what [`demand::wanted`] says:
//!
//! ```text
//! capacity < wanted   grow by the difference, or by what the subnet has left and say what lacks
//! capacity > wanted   after SHRINK_AFTER give up free addresses, highest first, never one in use
//! ```
//!
//! Highest first keeps the addresses of a pool in few ranges that start where it was born.

use std::collections::{BTreeMap, BTreeSet};

use super::admit::{self, Standing};
use super::pass::{Pass, application, fence, in_order};
use super::{
    Condition, ConditionKind, Demand, Fence, Needs, NewPool, PoolEdit, Reason, SHRINK_AFTER,
    Snapshot, Step,
};
use crate::addr::{AddrCount, AddrSet};
use crate::demand;
use crate::name::{PoolName, Uid, pool_name};
use crate::pool::{Owner, Pool};
use crate::subnet::Subnet;

/// Which pool serves which demand. A demand's own pool (same uid) comes first, then a kept pool of
/// a former namesake; among equals the first by name.
pub(super) fn match_pools<'s>(
    snapshot: &'s Snapshot,
    subnet: &Subnet,
) -> BTreeMap<PoolName, &'s Demand> {
    let living: BTreeSet<&Uid> = snapshot.demands.iter().map(|d| &d.workload.uid).collect();
    let mut by_key: BTreeMap<_, Vec<&Pool>> = BTreeMap::new();
    for pool in snapshot.pools.values().filter(|p| !p.terminating) {
        if let Some(o) = &pool.owner {
            by_key
                .entry((&o.gv, &o.kind, &o.namespace, &o.name, &o.nic))
                .or_default()
                .push(pool);
        }
    }
    let mut served = BTreeMap::new();
    for demand in &snapshot.demands {
        let wish = owner(demand, subnet);
        let key = (&wish.gv, &wish.kind, &wish.namespace, &wish.name, &wish.nic);
        let candidates = by_key.get(&key).into_iter().flatten().filter(|pool| {
            pool.owner.as_ref().is_some_and(|o| {
                o.is_namesake(&wish)
                    && (o.uid == wish.uid || (!o.reclaim && !living.contains(&o.uid)))
            })
        });
        let own_first = |pool: &&&Pool| pool.owner.as_ref().map(|o| o.uid != wish.uid);
        if let Some(pool) = candidates.min_by_key(own_first) {
            served.insert(pool.name.clone(), demand);
        }
    }
    served
}

fn owner(demand: &Demand, subnet: &Subnet) -> Owner {
    Owner::of(&demand.workload, &demand.nic, &subnet.name, demand.reclaim)
}

/// Makes the pool of a demand that has none, and gives it its addresses in the same pass.
pub(super) fn create(pass: &mut Pass<'_>, demand: &Demand) {
    let subnet = pass.subnet;
    if subnet.terminating {
        return;
    }
    let name = free_name(pass, demand);
    let owner = owner(demand, subnet);
    let wanted = demand::wanted(demand.rule, &demand.pods, &BTreeSet::new());
    let leftover = pass.entry(&name);
    pass.create(Step::Create(Box::new(NewPool {
        name: name.clone(),
        cidr: subnet.cidr,
        owner: owner.clone(),
        workload: demand.workload.clone(),
        pod_affinity: demand.selector.for_workload(&demand.workload),
        gateway: subnet.gateway,
        routes: subnet.routes.clone(),
        subnet: (subnet.name.clone(), subnet.uid.clone()),
        rule: demand.rule,
    })));
    let shape = Shape {
        name: &name,
        fence: None,
        ips: AddrSet::new(),
        capacity: AddrCount::ZERO,
        leftover,
        owner: &owner,
    };
    grow(
        pass,
        demand,
        &shape,
        wanted,
        PoolEdit {
            admit: true,
            ..PoolEdit::default()
        },
    );
}

/// The name of a new pool: another one where the usual one is taken, for instance by the workload's
/// former pool that still drains.
fn free_name(pass: &Pass<'_>, demand: &Demand) -> PoolName {
    let family = pass.subnet.family();
    let plain = pool_name(family, &demand.workload, &demand.nic, None);
    let taken = |name: &PoolName| {
        pass.snapshot.pools.contains_key(name)
            || pass.snapshot.unreadable.contains_key(name)
            || pass.snapshot.names_elsewhere.contains(name)
    };
    if !taken(&plain) {
        return plain;
    }
    // A pool that stands under the usual name now may do so for long: the salt is its uid.
    let mut salt = format!("{}/{}", pass.subnet.name, pass.subnet.uid);
    if let Some(pool) = pass.snapshot.pools.get(&plain) {
        salt = format!("{salt}/{}", pool.uid);
    }
    let mut name = pool_name(family, &demand.workload, &demand.nic, Some(&salt));
    while taken(&name) {
        salt.push('+');
        name = pool_name(family, &demand.workload, &demand.nic, Some(&salt));
    }
    name
}

/// What growing needs to know of a pool that may not exist yet.
struct Shape<'a> {
    name: &'a PoolName,
    fence: Option<Fence>,
    ips: AddrSet,
    capacity: AddrCount,
    /// What the ledger already gives the pool although the pool does not have it.
    leftover: AddrSet,
    owner: &'a Owner,
}

/// Brings the pool of `demand` to its size.
pub(super) fn serve(pass: &mut Pass<'_>, pool: &Pool, demand: &Demand) {
    let entry = pass.entry(&pool.name);
    let claimed = pool.claimed();
    if let Standing::Conflicts(conditions) = admit::standing(pass, pool, &claimed, &entry) {
        pass.say(&pool.name, conditions);
        return;
    }
    let recorded = pool.records.addresses();
    let capacity = pool.usable(&pass.snapshot.reserved).union(&recorded);
    let holders: BTreeSet<Uid> = pool.records.iter().map(|(_, r)| r.uid.clone()).collect();
    let wanted = demand::wanted(demand.rule, &demand.pods, &holders);
    let edit = upkeep(pass, pool, demand);
    let owner = owner(demand, pass.subnet);
    if capacity.count() < wanted && !pass.subnet.terminating {
        let shape = Shape {
            name: &pool.name,
            fence: Some(fence(pool)),
            ips: pool.ips.clone(),
            capacity: capacity.count(),
            leftover: entry.difference(&claimed).difference(&pool.excluded),
            owner: &owner,
        };
        grow(pass, demand, &shape, wanted, edit);
        return;
    }
    pass.say(
        &pool.name,
        in_order("Sized", &format!("serves {}", demand.workload)),
    );
    let spare = pool.total().difference(&recorded);
    let surplus = capacity.count().saturating_sub(wanted);
    if surplus > AddrCount::ZERO && !spare.is_empty() {
        pass.said.surplus.insert(pool.name.clone());
        let since = pass
            .snapshot
            .surplus_since
            .get(&pool.name)
            .copied()
            .unwrap_or(pass.now);
        let due = since.checked_add_signed(SHRINK_AFTER).unwrap_or(since);
        if due <= pass.now {
            shrink(pass, pool, surplus, &spare, edit);
            return;
        }
        pass.wake_at(due);
    }
    let because = match &edit.owner {
        Some(_) => Reason::Continue {
            workload: demand.workload.clone(),
        },
        None => Reason::Admit,
    };
    admit::enter(pass, pool, &claimed, &entry, edit, because);
}

/// What is due on a pool beside its size: another workload's uid, the rule it is told, adoption.
fn upkeep(pass: &Pass<'_>, pool: &Pool, demand: &Demand) -> PoolEdit {
    let subnet = pass.subnet;
    let wish = owner(demand, subnet);
    let affinity = demand.selector.for_workload(&demand.workload);
    let same = pool.owner.as_ref() == Some(&wish)
        && pool.restrictions.pod_affinity.as_ref() == Some(&Ok(affinity.clone()));
    PoolEdit {
        owner: (!same).then_some((wish, affinity)),
        rule: (pool.rule != Some(demand.rule)).then_some(demand.rule),
        adopt: (pool.adopted_by.as_ref() != Some(&subnet.name))
            .then(|| (subnet.name.clone(), subnet.uid.clone())),
        finalizer: (!pool.finalizer).then_some(true),
        admit: !pool.is_admitted(),
        ..PoolEdit::default()
    }
}

fn grow(
    pass: &mut Pass<'_>,
    demand: &Demand,
    shape: &Shape<'_>,
    wanted: AddrCount,
    edit: PoolEdit,
) {
    let subnet = pass.subnet;
    let lack = wanted.saturating_sub(shape.capacity);
    let usable = |set: &AddrSet| {
        let mut set = set.difference(&pass.snapshot.reserved);
        if let Some(gateway) = subnet.gateway {
            set.remove(gateway);
        }
        set
    };
    // A Pod that lives may still use an address whose pool was forced away: it is not offered again.
    let again = usable(&shape.leftover.difference(&pass.snapshot.on_pods)).lowest(lack);
    let more = lack.saturating_sub(again.count());
    let carved = subnet
        .free(&pass.snapshot.reserved, &pass.taken)
        .lowest(more);
    let added = again.union(&carved);
    pass.taken = pass.taken.union(&added);
    let missing = lack.saturating_sub(added.count());
    let size = shape.capacity.saturating_add(added.count());
    report(pass, demand, shape.name, wanted, size, missing);
    if added.is_empty() && edit.is_empty() {
        return;
    }
    let ips = shape.ips.union(&added);
    let recorded = pass
        .snapshot
        .pools
        .get(shape.name)
        .map(|p| p.records.addresses());
    let excluded = pass
        .snapshot
        .pools
        .get(shape.name)
        .map(|p| p.excluded.clone());
    // The entry keeps everything it had: what an abandoned pass left there returns when the pool is
    // next taken back from, behind the fence that this needs.
    let entry = pass
        .entry(shape.name)
        .union(&ips.difference(&excluded.unwrap_or_default()))
        .union(&recorded.unwrap_or_default());
    pass.edit(
        shape.name,
        entry,
        application(Some(shape.owner)),
        Needs::Nothing,
    );
    let edit = PoolEdit {
        ips: Some(ips),
        admit: true,
        ..edit
    };
    let because = Reason::Grow {
        added: added.count(),
        size,
    };
    pass.after(shape.name, shape.fence.clone(), edit, because);
}

fn report(
    pass: &mut Pass<'_>,
    demand: &Demand,
    pool: &PoolName,
    wanted: AddrCount,
    size: AddrCount,
    missing: AddrCount,
) {
    if missing == AddrCount::ZERO {
        pass.say(
            pool,
            in_order("Sized", &format!("serves {}", demand.workload)),
        );
        return;
    }
    let subnet = &pass.subnet.name;
    let message = format!(
        "{} wants {wanted} addresses, IPPool {pool} has {size}: SpiderSubnet {subnet} has no more \
         to give, {missing} missing; add {missing} addresses to spec.ips of SpiderSubnet {subnet}",
        demand.workload
    );
    let mut conditions = in_order("Sized", "");
    conditions.retain(|c| c.kind != ConditionKind::Ready);
    for (kind, holds) in [
        (ConditionKind::Ready, false),
        (ConditionKind::Exhausted, true),
    ] {
        let message = message.clone();
        conditions.push(Condition {
            kind,
            holds,
            reason: "SubnetExhausted",
            message,
        });
    }
    pass.say(pool, conditions);
    pass.short(demand, pool, message);
}

fn shrink(pass: &mut Pass<'_>, pool: &Pool, surplus: AddrCount, spare: &AddrSet, edit: PoolEdit) {
    let victims = spare.highest(surplus);
    let ips = pool.ips.difference(&victims);
    let size = ips.difference(&pool.excluded).count();
    let keep = pool.claimed().difference(&victims);
    let because = Reason::Shrink {
        removed: victims.count(),
        size,
    };
    pass.take_back(
        pool,
        keep,
        PoolEdit {
            ips: Some(ips),
            admit: true,
            ..edit
        },
        because,
    );
}
