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
use std::sync::Arc;

use super::pass::{Pass, application, fence};
use super::standing::{Standing, Standings};
use super::{
    Demand, Needs, NewPool, PoolEdit, Reason, SHRINK_AFTER, Shortfall, Snapshot, admit, say,
};
use crate::addr::{AddrCount, AddrSet};
use crate::demand;
use crate::name::{PoolName, Uid, label_value, pool_name};
use crate::pool::{Owner, Pool};
use crate::subnet::Subnet;

/// Which pool serves which demand, in the order of the demands. A demand's own pool (same uid)
/// comes first, then a kept pool of a former namesake if it can serve; among equals the first by
/// name.
pub(super) fn match_pools<'s>(
    snapshot: &'s Snapshot,
    subnet: &Subnet,
    standings: &Standings<'_>,
) -> Vec<(&'s Demand, Option<&'s Pool>)> {
    let living: BTreeSet<&Uid> = snapshot.demands.iter().map(|d| &d.workload.uid).collect();
    let mut by_key: BTreeMap<_, Vec<&Pool>> = BTreeMap::new();
    for pool in snapshot.pools.values().filter(|p| !p.terminating) {
        if let Some(o) = &pool.owner {
            let key = (o.name.as_str(), o.namespace.as_str(), &o.nic);
            by_key.entry(key).or_default().push(pool);
        }
    }
    let is_clear = |pool: &Pool| standings.get(&pool.name).is_some_and(Standing::is_clear);
    let mut matched = BTreeSet::new();
    let mut serving = vec![];
    for demand in snapshot.demands.iter().map(Arc::as_ref) {
        let (workload, nic) = (&demand.workload, &demand.nic);
        let (name, namespace) = (
            label_value(&workload.name),
            label_value(&workload.namespace),
        );
        let key = (&*name, &*namespace, nic);
        let candidates = by_key.get(&key).into_iter().flatten().filter(|pool| {
            pool.owner.as_ref().is_some_and(|o| {
                let heir = || !o.reclaim && !living.contains(&o.uid) && is_clear(pool);
                o.is_of_namesake(workload, nic, &subnet.name) && (o.uid == workload.uid || heir())
            }) && !matched.contains(&pool.name)
        });
        let own_first = |pool: &&&Pool| pool.owner.as_ref().map(|o| o.uid != workload.uid);
        let pool = candidates.min_by_key(own_first).copied();
        matched.extend(pool.map(|p| &p.name));
        serving.push((demand, pool));
    }
    serving
}

fn owner(demand: &Demand, subnet: &Subnet) -> Owner {
    Owner::of(&demand.workload, &demand.nic, &subnet.name, demand.reclaim)
}

/// Makes the pool of a demand that has none, and gives it its addresses in the same pass.
pub(super) fn create(pass: &mut Pass<'_>, demand: &Demand) {
    let subnet = pass.subnet;
    // Its own pool was deleted while nobody held an address: that one is gone in a moment, and is
    // then made anew under its name with the addresses that the ledger keeps for it.
    if pass.leaving.contains(&(&demand.workload.uid, &demand.nic)) {
        return;
    }
    let name = free_name(pass, demand);
    let wanted = demand::wanted(demand.rule, &demand.pods, &BTreeSet::new());
    if subnet.terminating {
        report(pass, demand, &name, wanted, AddrCount::ZERO);
        return;
    }
    let owner = owner(demand, subnet);
    let entry = pass.entry(&name);
    let held = held(pass, entry);
    let lack = wanted.saturating_sub(held.count());
    let added = pick(pass, entry, &AddrSet::new(), lack).union(&held);
    let size = added.count();
    report(pass, demand, &name, wanted, size);
    if !added.is_empty() {
        let entry = entry.union(&added);
        pass.edit(&name, entry, application(Some(&owner)), Needs::Nothing);
    }
    let because = Reason::Grow { added: size, size };
    let edit = PoolEdit {
        ips: Some(added),
        // Who has what of it is recorded before anybody is given anything.
        admit: held.is_empty(),
        ..PoolEdit::default()
    };
    pass.after(&name, None, edit, because);
    pass.create(NewPool {
        name,
        cidr: subnet.cidr,
        owner,
        workload: demand.workload.clone(),
        pod_affinity: demand.selector.for_workload(&demand.workload),
        gateway: subnet.gateway,
        routes: subnet.routes.clone(),
        subnet: (subnet.name.clone(), subnet.uid.clone()),
        rule: demand.rule,
    });
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
            || pass.born.contains(name)
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

/// What Pods have of a pool's entry although no pool has recorded it: the pool was forced away under
/// them. Nobody else has had them from there, since the entry was the pool's.
fn held(pass: &Pass<'_>, entry: &AddrSet) -> AddrSet {
    let snapshot = pass.snapshot;
    let holders = snapshot.holders.keys().copied();
    let told: AddrSet = holders.filter(|address| entry.contains(*address)).collect();
    if told.is_empty() {
        return told;
    }
    let recorded = |pool: &Arc<Pool>| pool.records.addresses().intersection(&told);
    let recorded = snapshot.pools.values().map(recorded);
    let others = recorded.fold(snapshot.elsewhere.clone(), |all, more| all.union(&more));
    told.intersection(&pass.offered).difference(&others)
}

/// Up to `lack` addresses for a pool: first what the ledger gives it already although the pool does
/// not have it, left by a pass that was cut short; then what nobody has. None of them in `avoid`.
fn pick(pass: &mut Pass<'_>, leftover: &AddrSet, avoid: &AddrSet, lack: AddrCount) -> AddrSet {
    // A Pod may still use an address whose pool was forced away: it is not given again.
    let again = if leftover.is_empty() {
        AddrSet::new()
    } else {
        let not = pass.in_use().union(&pass.snapshot.elsewhere).union(avoid);
        leftover
            .intersection(&pass.offered)
            .difference(&not)
            .lowest(lack)
    };
    let carved = pass.carve(lack.saturating_sub(again.count()), avoid);
    again.union(&carved)
}

/// Brings the pool of `demand` to its size.
pub(super) fn serve(pass: &mut Pass<'_>, pool: &Pool, standing: &Standing<'_>, demand: &Demand) {
    if !standing.is_clear() {
        admit::refused(pass, pool, standing);
        return;
    }
    let edit = upkeep(pass, pool, standing, demand);
    let recorded = pool.records.addresses();
    let spare = pool.total().difference(recorded);
    // Reserved meanwhile, or no longer the subnet's: nobody may have them from here.
    let misplaced = spare.difference(&pass.offered);
    if !misplaced.is_empty() {
        shrink(pass, pool, &misplaced, edit);
        return;
    }
    let usable = pool.usable(&pass.snapshot.reserved);
    let quarantined = pool.records.quarantined();
    let capacity = usable.union(recorded).difference(&quarantined).count();
    let holders = demand::holders(&pool.records, &demand.workload.uid, &demand.pods);
    let wanted = demand::wanted(demand.rule, &demand.pods, &holders);
    if capacity < wanted {
        grow(pass, pool, standing, demand, (capacity, wanted), edit);
        return;
    }
    report(pass, demand, &pool.name, wanted, capacity);
    let spare = spare.intersection(&usable);
    let surplus = capacity.saturating_sub(wanted);
    if surplus > AddrCount::ZERO && !spare.is_empty() {
        pass.said.surplus.insert(pool.name.clone());
        let since = pass
            .snapshot
            .surplus_since
            .get(&pool.name)
            .copied()
            .unwrap_or(pass.now)
            // A clock that was set back since makes nobody wait for it.
            .min(pass.now);
        let due = since.checked_add_signed(SHRINK_AFTER).unwrap_or(since);
        if due <= pass.now {
            shrink(pass, pool, &spare.highest(surplus), edit);
            return;
        }
        pass.wake_at(due);
    }
    keep(pass, pool, standing, demand, edit);
}

/// A pool that has its size, or as much as there is.
fn keep(
    pass: &mut Pass<'_>,
    pool: &Pool,
    standing: &Standing<'_>,
    demand: &Demand,
    edit: PoolEdit,
) {
    let because = match (&edit.owner, edit.admit) {
        (Some(_), _) => Reason::Continue {
            workload: demand.workload.clone(),
        },
        (None, true) => Reason::Admit,
        (None, false) => Reason::Protect,
    };
    admit::enter(pass, pool, standing, edit, because);
}

/// What is due on a pool beside its size: another workload's uid, the rule it is told, adoption.
fn upkeep(pass: &Pass<'_>, pool: &Pool, standing: &Standing<'_>, demand: &Demand) -> PoolEdit {
    let subnet = pass.subnet;
    let wish = || {
        let affinity = demand.selector.for_workload(&demand.workload);
        (owner(demand, subnet), affinity)
    };
    PoolEdit {
        owner: (!serves(pool, demand, subnet)).then(wish),
        rule: (pool.rule != Some(demand.rule)).then_some(demand.rule),
        adopt: (!pool.is_adopted_by(subnet)).then(|| (subnet.name.clone(), subnet.uid.clone())),
        finalizer: (!pool.finalizer).then_some(true),
        admit: !standing.admitted,
        ..PoolEdit::default()
    }
}

/// True where the pool's labels and podAffinity are those of the demand's own pool.
fn serves(pool: &Pool, demand: &Demand, subnet: &Subnet) -> bool {
    let affinity = pool.restrictions.pod_affinity.as_ref();
    let workload = &demand.workload;
    let owner = pool.owner.as_ref();
    owner.is_some_and(|owner| {
        owner.reclaim == demand.reclaim && owner.is(workload, &demand.nic, &subnet.name)
    }) && matches!(affinity, Some(Ok(affinity)) if affinity.is_narrowed(&demand.selector, workload))
}

fn grow(
    pass: &mut Pass<'_>,
    pool: &Pool,
    standing: &Standing<'_>,
    demand: &Demand,
    (capacity, wanted): (AddrCount, AddrCount),
    edit: PoolEdit,
) {
    let mut held = AddrSet::new();
    let added = if pass.subnet.terminating {
        AddrSet::new()
    } else {
        let leftover = standing.entry.difference(&standing.claimed);
        // As at its creation, if that was cut short.
        if !standing.admitted {
            held = self::held(pass, &leftover);
        }
        let mut avoid = pool.excluded.clone();
        if let Some(gateway) = pool.gateway {
            avoid.insert(gateway);
        }
        let had = capacity.saturating_add(held.count());
        pick(pass, &leftover, &avoid, wanted.saturating_sub(had)).union(&held)
    };
    let size = capacity.saturating_add(added.count());
    report(pass, demand, &pool.name, wanted, size);
    if added.is_empty() {
        keep(pass, pool, standing, demand, edit);
        return;
    }
    // The entry keeps everything it had: what an abandoned pass left there returns when the pool is
    // next taken back from, behind the fence that this needs.
    let entry = standing.entry.union(&standing.claimed).union(&added);
    let because = Reason::Grow {
        added: added.count(),
        size,
    };
    pass.edit(
        &pool.name,
        entry,
        application(pool.owner.as_ref()),
        Needs::Nothing,
    );
    let edit = PoolEdit {
        ips: Some(pool.ips.union(&added)),
        admit: held.is_empty(),
        ..edit
    };
    pass.after(&pool.name, Some(fence(pool)), edit, because);
}

/// Says how the pool of `demand` stands with `size` of the addresses it wants.
fn report(
    pass: &mut Pass<'_>,
    demand: &Demand,
    pool: &PoolName,
    wanted: AddrCount,
    size: AddrCount,
) {
    let missing = wanted.saturating_sub(size);
    if missing == AddrCount::ZERO {
        pass.say(pool, say::sized(&demand.workload.to_string()));
        return;
    }
    let subnet = &pass.subnet.name;
    let (reason, remedy) = if pass.subnet.terminating {
        (
            "SubnetTerminating",
            format!("SpiderSubnet {subnet} is being deleted: name another one"),
        )
    } else {
        let remedy = format!(
            "SpiderSubnet {subnet} has no more to give, {missing} missing; add {} to spec.ips of \
             SpiderSubnet {subnet}",
            missing.in_words()
        );
        ("SubnetExhausted", remedy)
    };
    let message = format!(
        "{} wants {wanted} addresses, IPPool {pool} has {size}: {remedy}",
        demand.workload
    );
    pass.say(pool, say::lacking(reason, &message));
    pass.short(Shortfall {
        workload: demand.workload.clone(),
        pool: pool.clone(),
        missing,
        message,
    });
}

/// Takes `victims`, which are free, from the pool.
fn shrink(pass: &mut Pass<'_>, pool: &Pool, victims: &AddrSet, edit: PoolEdit) {
    let ips = pool.ips.difference(victims);
    let size = ips.difference(&pool.excluded).count();
    let keep = pool.claimed().difference(victims);
    let because = Reason::Shrink {
        removed: victims.count(),
        size,
    };
    pass.take_back(
        pool,
        &keep,
        PoolEdit {
            ips: Some(ips),
            ..edit
        },
        because,
    );
}
