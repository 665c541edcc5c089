//! A pool that a person makes or changes.
//!
//! First [`alone`]: what needs nothing but the object and its former self. Only what passes is
//! judged [`among`] the pools and subnets of the cluster, so that a misspelt object costs no list.

use super::fields::{self, Draft, Fields};
use super::{Families, JOINTLY, REFUSALS_MAX, Refusal, immutable, made_worse};
use crate::addr::{AddrCount, AddrSet};
use crate::name::PoolName;
use crate::pool::{Affinity, Pool, Restrictions};
use crate::subnet::Subnet;

/// A pool as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolDraft<'w> {
    /// What it has in common with subnets.
    pub fields: Draft<'w>,
    /// Whom it may serve.
    pub restrictions: Restrictions,
    /// It was made for a workload, by its labels.
    pub auto: bool,
}

/// A pool before a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Before<'w> {
    /// As it was written.
    pub draft: PoolDraft<'w>,
    /// As it was read; `None` where it could not be.
    pub pool: Option<Pool>,
}

/// What a pool that is in order by itself owns and gains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// CIDR and addresses.
    pub fields: Fields,
    /// The addresses that it did not have before.
    pub gained: AddrSet,
    /// It was not there before.
    pub is_new: bool,
    /// It was made for a workload, whose controller alone decides what it has, and has other
    /// addresses than before.
    pub resized: bool,
}

impl Claim {
    /// Whether others have a say: the pool is new, or has addresses that it did not have.
    pub fn concerns_others(&self) -> bool {
        self.is_new || self.resized || !self.gained.is_empty()
    }
}

/// Judges `draft` by itself and by what it was.
///
/// Errors: all that is wrong, at most [`REFUSALS_MAX`]; nothing where the CIDR can't be read, as it
/// could not before, so that there is no claim. Cost: O(k log k) in ranges and records.
pub fn alone(
    draft: &PoolDraft<'_>,
    before: Option<&Before<'_>>,
    families: Families,
) -> Result<Claim, Vec<Refusal>> {
    let (fields, mut refused) = said(draft, families);
    let mut claim = fields.map(|fields| Claim {
        gained: fields.total.clone(),
        is_new: before.is_none(),
        resized: draft.auto,
        fields,
    });
    if let Some(before) = before {
        let old = &before.draft;
        refused = made_worse(refused, &said(old, families).1);
        let version = |draft: &PoolDraft<'_>| draft.fields.ip_version;
        if version(old).is_some() {
            refused.extend(immutable("spec.ipVersion", &version(old), &version(draft)));
        }
        refused.extend(immutable(
            "spec.subnet",
            &old.fields.subnet,
            &draft.fields.subnet,
        ));
        if old.auto && old.restrictions.pod_affinity != draft.restrictions.pod_affinity {
            let detail = "it's invalid to change podAffinity of an auto-created SpiderIPPool: the \
                          controller keeps it equal to its workload's selector";
            refused.push(Refusal::forbidden("spec.podAffinity", detail));
        }
        if let (Some(claim), Some(pool)) = (&mut claim, &before.pool) {
            let total = pool.total();
            claim.resized = (draft.auto || old.auto) && claim.fields.total != *total;
            claim.gained = claim.gained.difference(&total);
            refused.extend(taken_from_pods(pool, &claim.fields.total));
        }
    }
    refused.truncate(REFUSALS_MAX);
    match claim {
        Some(claim) if refused.is_empty() => Ok(claim),
        Some(_) | None => Err(refused),
    }
}

/// All that a draft says wrongly, whatever it was.
fn said(draft: &PoolDraft<'_>, families: Families) -> (Option<Fields>, Vec<Refusal>) {
    let (fields, mut refused) = fields::read(&draft.fields, families);
    let Restrictions {
        node_names,
        node_affinity,
        namespace_names,
        namespace_affinity,
        pod_affinity,
        networks,
    } = &draft.restrictions;
    for (field, affinity) in [
        ("spec.podAffinity", pod_affinity),
        ("spec.namespaceAffinity", namespace_affinity),
        ("spec.nodeAffinity", node_affinity),
    ] {
        refused.extend(selector(field, affinity));
    }
    if matches!(pod_affinity, Some(Ok(selector)) if selector.is_empty()) {
        let detail =
            "empty podAffinity is invalid for SpiderIPPool: leave it out to serve all Pods";
        refused.push(Refusal::shown("spec.podAffinity", "{}".to_owned(), detail));
    }
    for (field, names, parts) in [
        ("spec.nodeName", node_names, 1),
        ("spec.namespaceName", namespace_names, 1),
        ("spec.multusName", networks, 2),
    ] {
        refused.extend(misspelt(field, names, parts));
    }
    (fields, refused)
}

fn selector(field: &str, affinity: &Affinity) -> Option<Refusal> {
    let error = match affinity.as_ref()? {
        Ok(selector) => selector.check().err()?,
        Err(error) => error.clone(),
    };
    Some(Refusal::forbidden(field, &error))
}

/// Names that no object can have: at most `parts` parts with a `/` between them.
fn misspelt(field: &str, names: &[String], parts: usize) -> Vec<Refusal> {
    let wrong = names.iter().enumerate().filter(|(_, name)| {
        let each: Vec<&str> = name.split('/').collect();
        each.len() > parts || !each.iter().all(|part| is_name(part))
    });
    let refusal = |(place, name): (usize, &String)| {
        let form = if parts > 1 {
            "name or namespace/name"
        } else {
            "name"
        };
        let detail = format!(
            "no object can have this name, so the pool would serve nobody: write {form}, of lower \
             case letters, digits, '-' and '.'"
        );
        Refusal::invalid(format!("{field}[{place}]"), name, detail)
    };
    wrong.map(refusal).collect()
}

/// A name by RFC 1123, as Kubernetes wants it.
fn is_name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    ends(text.chars().next()) && ends(text.chars().next_back()) && text.chars().all(inner)
}

/// Addresses that leave the pool while a Pod has them. One in quarantine is nobody's: to take it out of
/// the pool is what a person is told to do about it.
fn taken_from_pods(before: &Pool, total: &AddrSet) -> Option<Refusal> {
    let leaving = before.total().difference(total);
    let in_use = leaving.intersection(before.records.addresses());
    let in_use = in_use.difference(&before.records.quarantined());
    let first = in_use.first()?;
    let holder = before.records.get(first)?;
    let mut detail = format!(
        "remove an IP address {first} that is being used by Pod {}, total IP addresses of an \
         IPPool are {JOINTLY}",
        holder.pod
    );
    let more = in_use.count().saturating_sub(AddrCount::from(1));
    if more > AddrCount::ZERO {
        detail = format!("{detail}; {more} more addresses in use would go with it");
    }
    Some(Refusal::forbidden("spec.ips", detail))
}

/// Judges a claim of pool `name` beside all other pools, and the subnets (none where they are
/// switched off). `spec.subnet` as written is shown.
///
/// Errors: all that is wrong, at most [`REFUSALS_MAX`]. Cost: O(all ranges).
pub fn among<'p>(
    name: &PoolName,
    claim: &Claim,
    pools: impl IntoIterator<Item = &'p Pool>,
    subnets: &[Subnet],
) -> Result<(), Vec<Refusal>> {
    let Fields { cidr, total } = &claim.fields;
    let mut refused = vec![];
    for other in pools.into_iter().filter(|other| other.name != *name) {
        if other.cidr != *cidr {
            let meets = other.cidr.contains(cidr) || cidr.contains(&other.cidr);
            if claim.is_new && meets {
                let detail = format!(
                    "overlap with IPPool {} which 'spec.subnet' is {}",
                    other.name, other.cidr
                );
                refused.push(Refusal::invalid("spec.subnet", &cidr.to_string(), detail));
            }
            continue;
        }
        let shared = claim.gained.intersection(&other.claimed());
        if !shared.is_empty() {
            let detail = format!(
                "overlap with IPPool {} in IP ranges {shared}, total IP addresses of an IPPool are \
                 {JOINTLY}",
                other.name
            );
            refused.push(Refusal::forbidden("spec.ips", detail));
        }
    }
    if let Some(subnet) = subnets.iter().find(|subnet| subnet.cidr == *cidr)
        && !total.is_empty()
    {
        refused.extend(of_the_subnet(name, claim, subnet));
    }
    refused.truncate(REFUSALS_MAX);
    if refused.is_empty() {
        Ok(())
    } else {
        Err(refused)
    }
}

/// What the subnet around the pool has against it.
fn of_the_subnet(name: &PoolName, claim: &Claim, subnet: &Subnet) -> Option<Refusal> {
    let stray = subnet.lacks(&claim.gained);
    if !stray.is_empty() {
        let detail = format!(
            "add some IP ranges {stray} that are not contained in controller Subnet {}, total IP \
             addresses of an IPPool are {JOINTLY}",
            subnet.name
        );
        return Some(Refusal::forbidden("spec.ips", detail));
    }
    let ledger = subnet.ledger.as_ref().filter(|_| claim.resized)?;
    let entry = ledger.get(name).map(|entry| entry.ips.clone());
    let differs = claim.fields.total != entry.unwrap_or_default();
    differs.then(|| {
        let detail = "it's illegal to update AutoPool.Spec.IPs that are different from \
                      corresponding SpiderSubnet.Status.ControlledIPPools: scale its workload, or \
                      set ipam.spidernet.io/ippool-ip-number there";
        Refusal::forbidden("spec.ips", detail)
    })
}
