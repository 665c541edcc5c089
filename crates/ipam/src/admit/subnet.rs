//! A subnet that a person makes or changes.

use super::fields::{self, Draft, Fields};
use super::{Families, JOINTLY, REFUSALS_MAX, Refusal, immutable, made_worse};
use crate::addr::AddrSet;
use crate::name::{PoolName, SubnetName};
use crate::pool::Pool;
use crate::subnet::{Subnet, SubnetLedger};

/// A subnet before a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Before<'w> {
    /// As it was written.
    pub draft: Draft<'w>,
    /// As it was read; `None` where it could not be.
    pub subnet: Option<Subnet>,
}

/// What a subnet that is in order by itself owns and gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// CIDR and addresses.
    pub fields: Fields,
    /// The addresses that it had before and has no more.
    pub lost: AddrSet,
    /// It was not there before.
    pub is_new: bool,
}

impl Claim {
    /// Whether others have a say: the subnet is new, or gives up addresses.
    pub fn concerns_others(&self) -> bool {
        self.is_new || !self.lost.is_empty()
    }
}

/// Judges `draft` by itself and by what it was.
///
/// Errors: all that is wrong, at most [`REFUSALS_MAX`]; nothing where the CIDR can't be read, as it
/// could not before, so that there is no claim. Cost: O(k log k) in ranges.
pub fn alone(
    draft: &Draft<'_>,
    before: Option<&Before<'_>>,
    families: Families,
) -> Result<Claim, Vec<Refusal>> {
    let (fields, mut refused) = fields::read(draft, families);
    let mut claim = fields.map(|fields| Claim {
        lost: AddrSet::new(),
        is_new: before.is_none(),
        fields,
    });
    if let Some(before) = before {
        let old = &before.draft;
        refused = made_worse(refused, &fields::read(old, families).1);
        if old.ip_version.is_some() {
            refused.extend(immutable(
                "spec.ipVersion",
                &old.ip_version,
                &draft.ip_version,
            ));
        }
        refused.extend(immutable("spec.subnet", &old.subnet, &draft.subnet));
        if let (Some(claim), Some(subnet)) = (&mut claim, &before.subnet) {
            claim.lost = subnet.total().difference(&claim.fields.total);
            refused.extend(taken_from_pools(subnet, &claim.lost));
        }
    }
    refused.truncate(REFUSALS_MAX);
    match claim {
        Some(claim) if refused.is_empty() => Ok(claim),
        Some(_) | None => Err(refused),
    }
}

/// Addresses that leave the subnet while its ledger shows them as a pool's.
fn taken_from_pools(before: &Subnet, lost: &AddrSet) -> Vec<Refusal> {
    let entries = before.ledger.iter().flat_map(SubnetLedger::iter);
    entries
        .filter_map(|(pool, entry)| in_use(pool, &entry.ips.intersection(lost)))
        .take(REFUSALS_MAX)
        .collect()
}

fn in_use(pool: &PoolName, ranges: &AddrSet) -> Option<Refusal> {
    let detail = format!(
        "remove some IP ranges {ranges} that is being used by IPPool {pool}, total IP addresses of \
         an Subnet are {JOINTLY}"
    );
    (!ranges.is_empty()).then(|| Refusal::forbidden("spec.ips", detail))
}

/// Judges a claim of subnet `name` beside all other subnets and all pools.
///
/// Errors: all that is wrong, at most [`REFUSALS_MAX`]. Cost: O(all ranges).
pub fn among<'p>(
    name: &SubnetName,
    claim: &Claim,
    pools: impl IntoIterator<Item = &'p Pool>,
    subnets: &[Subnet],
) -> Result<(), Vec<Refusal>> {
    let Fields { cidr, total } = &claim.fields;
    let meets = |other: &ipnet::IpNet| other.contains(cidr) || cidr.contains(other);
    let mut refused = vec![];
    if claim.is_new {
        let others = subnets.iter().filter(|other| other.name != *name);
        refused.extend(others.filter(|other| meets(&other.cidr)).map(|other| {
            let detail = format!(
                "overlap with Subnet {} which 'spec.subnet' is {}",
                other.name, other.cidr
            );
            Refusal::invalid("spec.subnet", &cidr.to_string(), detail)
        }));
    }
    for pool in pools.into_iter().filter(|pool| meets(&pool.cidr)) {
        if pool.cidr != *cidr {
            let detail = format!(
                "overlap with SpiderIPPool '{}' resource 'spec.subnet' {}",
                pool.name, pool.cidr
            );
            let refusal = Refusal::invalid("spec.subnet", &cidr.to_string(), detail);
            refused.extend(claim.is_new.then_some(refusal));
        } else if claim.is_new {
            let stray = pool.claimed().difference(total);
            if !stray.is_empty() {
                let detail = format!(
                    "SpiderIPPool '{}' owns some IP addresses that SpiderSubnet '{name}' can't \
                     control: add {stray}",
                    pool.name
                );
                refused.push(Refusal::shown("spec.ips", list(total), detail));
            }
        } else {
            refused.extend(in_use(
                &pool.name,
                &pool.claimed().intersection(&claim.lost),
            ));
        }
    }
    refused.truncate(REFUSALS_MAX);
    if refused.is_empty() {
        Ok(())
    } else {
        Err(refused)
    }
}

/// The first few ranges as Kubernetes shows a list.
fn list(set: &AddrSet) -> String {
    let texts = set.to_texts();
    let shown: Vec<String> = texts
        .iter()
        .take(4)
        .map(|text| format!("{text:?}"))
        .collect();
    let more = if texts.len() > shown.len() {
        ",…"
    } else {
        ""
    };
    format!("[{}{more}]", shown.join(","))
}
