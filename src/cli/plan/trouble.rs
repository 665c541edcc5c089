//! What does not fit, in the words of the controller and of the objects themselves.
//!
//! Owns: which of those words a person should read. Never does: find anything wrong by itself.

use std::collections::BTreeMap;

use ipam::audit::World;
use ipam::census;
use ipam::name::Uid;
use ipam::plan::ConditionKind;
use ipam::pool::Pool;
use ipam::subnet::Subnet;
use kube::ResourceExt;

use super::room::Served;
use crate::api::{SpiderIPPool, SpiderSubnet, convert};
use crate::controller::rehearsal::Rehearsal;

/// What the controller tells each workload: that it can't be served, or lacks addresses.
pub(super) fn told(stage: &Rehearsal) -> BTreeMap<Uid, Vec<String>> {
    let mut told: BTreeMap<Uid, Vec<String>> = BTreeMap::new();
    for (seen, _, text) in stage.complaints() {
        let text = format!("{}: {text}", seen.id);
        told.entry(seen.id.uid).or_default().push(text);
    }
    for short in stage.said().flat_map(|said| &said.plan.shortfalls) {
        let texts = told.entry(short.workload.uid.clone()).or_default();
        texts.push(short.message.clone());
    }
    told
}

/// What is wrong with subnets and pools themselves.
pub(super) fn problems(
    stage: &Rehearsal,
    subnets: &[SpiderSubnet],
    pools: &[SpiderIPPool],
) -> Vec<String> {
    let subnets = subnets.iter().filter_map(|raw| {
        let error = convert::subnet(raw).err()?;
        Some(format!(
            "SpiderSubnet {} can't be read: {error}",
            raw.name_any()
        ))
    });
    let pools = pools.iter().filter_map(|raw| {
        let fault = convert::pool(raw).err()?;
        Some(fault.to_string())
    });
    let said = stage.said().flat_map(|said| {
        let of_pools = said.plan.pools.values().flatten();
        let of_pools = of_pools.filter(|c| c.kind == ConditionKind::Conflicting && c.holds);
        let of_subnet = said.plan.subnet.iter();
        let of_subnet = of_subnet.filter(|c| c.kind == ConditionKind::Ready && !c.holds);
        of_pools
            .chain(of_subnet)
            .chain(&said.overlap)
            .map(|c| c.message.clone())
    });
    subnets.chain(pools).chain(said).collect()
}

/// What Pods have outside of a subnet that was made smaller.
pub(super) fn outside(was: &World, will: &World) -> Vec<String> {
    let mut said = vec![];
    for subnet in &will.subnets {
        let same = |old: &&Subnet| old.name == subnet.name && old.ips == subnet.ips;
        if was.subnets.iter().any(|old| same(&old)) {
            continue;
        }
        let here: Vec<Pool> = will
            .pools
            .iter()
            .filter(|p| p.cidr == subnet.cidr)
            .cloned()
            .collect();
        for (pool, used) in census::in_use_outside(&here, &subnet.total()) {
            said.push(format!(
                "{used} of IPPool {} are in use and lie outside of what is left of SpiderSubnet {}: they \
                 stay taken until their Pods are gone",
                pool.name, subnet.name
            ));
        }
    }
    said
}

/// Workloads some of whose Pods start only when the Pods that leave have let go.
pub(super) fn waits(meanwhile: &[Served], after: &[Served]) -> Vec<String> {
    let each = meanwhile.iter().filter_map(|first| {
        let last = after.iter().find(|s| s.workload == first.workload)?;
        let late = last
            .start
            .checked_sub(first.start)
            .filter(|late| *late > 0)?;
        Some(format!(
            "{}: {} only when those that leave have let go of their addresses",
            first.workload,
            if late == 1 {
                "1 Pod starts".to_owned()
            } else {
                format!("{late} Pods start")
            }
        ))
    });
    each.collect()
}
