//! What an earlier agent gave a Pod: as its endpoint tells, or where that is none, as the records of
//! the pools do.
//!
//! Never does: remember; its callers do. Invariant: an endpoint saves reads and is never needed:
//! what a Pod has is found without one, whichever `SpiderEndpoint`s are written.

use std::collections::BTreeMap;

use ipam::addr::Family;
use ipam::attachment::Networks;
use ipam::name::{Nic, PodName, PoolName, Uid};
use ipam::pool::Pool;

use super::endpoint;
use super::reads::{Listing, ReadError, Reads};
use crate::kube_io::memo::Age;
use crate::pool_writer::{Attachment, Granted};

/// The Pod's interfaces that have addresses, in the order in which each asked first. Records don't
/// tell that order: then as the Pod's networks are listed, and for interfaces that are not listed
/// as they are named, `net2` before `net10`.
pub(super) async fn interfaces(
    reads: &Reads,
    (pod, uid): (&PodName, &Uid),
    networks: &Networks<'_>,
    age: Age,
) -> Result<Vec<Nic>, ReadError> {
    let endpoint = reads.endpoint(pod).await?;
    let told = endpoint::interfaces_of(endpoint.as_ref(), uid);
    if !told.is_empty() {
        return Ok(told);
    }
    Ok(recorded(&*reads.pools("", age).await?, uid, networks))
}

/// The Pod's interfaces that have addresses, as records tell them.
pub(super) fn recorded(all: &Listing, uid: &Uid, networks: &Networks<'_>) -> Vec<Nic> {
    let records = readable(all).flat_map(|pool| pool.records.iter());
    let its = records.filter(|(_, record)| record.is_held_by(uid));
    let mut nics: Vec<Nic> = its.filter_map(|(_, record)| record.nic.clone()).collect();
    sort(&mut nics, networks);
    nics.dedup();
    nics
}

/// What is recorded for the interface, by name; also what was bound early, since a sandbox that
/// found it there wrote nothing.
pub(super) fn granted(all: &Listing, of: &Attachment) -> Vec<Granted> {
    let its = readable(all).filter_map(|pool| {
        let found = pool.records.find(&of.uid, &of.nic);
        let found = found.filter(|(_, record)| record.nic.is_some());
        found.map(|(address, _)| Granted::of(pool, address))
    });
    its.collect()
}

/// The pools that have a record of the interface, by family.
pub(super) async fn pools_with(
    reads: &Reads,
    of: &Attachment,
    age: Age,
) -> Result<BTreeMap<Family, PoolName>, ReadError> {
    let all = reads.pools("", age).await?;
    let its = readable(&all).filter(|pool| pool.records.find(&of.uid, &of.nic).is_some());
    Ok(its.map(|pool| (pool.family(), pool.name.clone())).collect())
}

fn readable(listing: &Listing) -> impl Iterator<Item = &Pool> {
    let pools = listing.pools.iter();
    pools.filter_map(|reading| reading.candidate.pool.as_ref().ok())
}

fn sort(nics: &mut [Nic], networks: &Networks<'_>) {
    let unlisted = |nic: &Nic| networks.place(nic).unwrap_or(usize::MAX);
    nics.sort_by(|a, b| (unlisted(a), in_order(a)).cmp(&(unlisted(b), in_order(b))));
}

/// A name and the number behind it.
fn in_order(nic: &Nic) -> (&str, u64) {
    let name = nic.as_str().trim_end_matches(|c: char| c.is_ascii_digit());
    let number = nic.as_str().strip_prefix(name).unwrap_or_default();
    (name, number.parse().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_follow_each_other_as_listed_and_else_by_their_numbers() {
        let networks = Networks {
            others: Some("a@zero,b@any"),
            pod_namespace: "shop",
            ..Networks::default()
        };
        let mut nics = ["net10", "any", "net2", "zero", "eth0"].map(Nic::from);
        sort(&mut nics, &networks);
        assert_eq!(
            nics,
            ["eth0", "zero", "any", "net2", "net10"].map(Nic::from)
        );
    }
}
