//! What this agent remembers of the addresses it gave.
//!
//! Owns: for each interface, the pools that may hold a record of it and what they granted. Never
//! does: serve as the truth, which is in the pools: losing all of it costs reads, never an address.
//! Invariant: a pool is noted *before* the first write that may record the interface there, so for
//! an interface that is [`Trace::whole`] no other pool can have a record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use ipam::addr::Family;
use ipam::name::{Nic, PoolName, Sandbox, Uid};
use ipnet::IpNet;
use tokio::time::Instant;

use super::locked;
use crate::pool_writer::{Attachment, Granted};

/// How long it is remembered that an interface let go: a DEL repeated in this time costs nothing.
const REMEMBER: Duration = Duration::from_mins(10);

impl Trace {
    /// The pools that may have a record which the interface does not use.
    pub(super) fn surplus(&self) -> BTreeSet<PoolName> {
        let mut pools = self.pools.clone();
        for grant in self.granted.values() {
            pools.remove(&grant.pool);
        }
        pools
    }
}

/// What is remembered of one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trace {
    /// True where no earlier agent can have given this Pod an address.
    pub(super) whole: bool,
    /// The first sandbox of the interface, where no earlier agent can have seen one.
    first: Option<Sandbox>,
    /// True once a sandbox was given all it asked for, whatever became of it.
    given: bool,
    /// The sandbox that was given all it asked for: then `granted` is all that it uses.
    pub(super) settled: Option<Sandbox>,
    /// Pools that may hold a record.
    pub(super) pools: BTreeSet<PoolName>,
    /// Addresses known to be recorded.
    pub(super) granted: BTreeMap<Family, Granted>,
    /// How many interfaces of the Pod had asked when this one asked first.
    order: usize,
    /// When its last record was released: runtimes repeat a DEL long after that.
    released: Option<Instant>,
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    traces: Mutex<BTreeMap<Attachment, Trace>>,
}

impl Memory {
    /// Notes that a call for a sandbox of this interface came, `whole` if no earlier agent can have
    /// served the Pod. True where no other sandbox of the interface ever called.
    pub(super) fn called(&self, of: &Attachment, sandbox: &Sandbox, whole: bool) -> bool {
        let mut traces = locked(&self.traces);
        let order = of_pod(&traces, &of.uid).count();
        let trace = traces.entry(of.clone()).or_insert_with(|| Trace {
            whole,
            order,
            first: whole.then(|| sandbox.clone()),
            ..Trace::default()
        });
        trace.whole &= whole;
        trace.whole && trace.first.as_ref() == Some(sandbox)
    }

    /// Whether a sandbox of the interface was given addresses, also if they were released since.
    pub(super) fn started(&self, of: &Attachment) -> bool {
        let traces = locked(&self.traces);
        traces.get(of).is_some_and(|trace| trace.given)
    }

    /// How many of a Pod's interfaces were given addresses.
    pub(super) fn count_started(&self, uid: &Uid) -> usize {
        let traces = locked(&self.traces);
        let started = of_pod(&traces, uid).filter(|(_, trace)| trace.given);
        started.count()
    }

    /// The interfaces of a Pod that asked so far, in the order in which each asked first.
    pub(super) fn interfaces(&self, uid: &Uid) -> Vec<Nic> {
        let traces = locked(&self.traces);
        let mut all: Vec<_> = of_pod(&traces, uid).collect();
        all.sort_by_key(|(_, trace)| trace.order);
        all.into_iter().map(|(of, _)| of.nic.clone()).collect()
    }

    /// The networks in which a Pod's interfaces have addresses; `None` while one has not all that
    /// it asked for.
    pub(super) fn networks(&self, uid: &Uid) -> Option<BTreeSet<IpNet>> {
        let traces = locked(&self.traces);
        if of_pod(&traces, uid).any(|(_, trace)| trace.settled.is_none()) {
            return None;
        }
        let grants = of_pod(&traces, uid).flat_map(|(_, trace)| trace.granted.values());
        Some(grants.map(|grant| grant.cidr).collect())
    }

    /// Notes that `pool` is about to be asked for an address.
    pub(super) fn asks(&self, of: &Attachment, pool: &PoolName) {
        let mut traces = locked(&self.traces);
        let trace = traces.entry(of.clone()).or_default();
        trace.pools.insert(pool.clone());
    }

    /// Notes a durable grant.
    pub(super) fn granted(&self, of: &Attachment, grant: Granted) {
        let mut traces = locked(&self.traces);
        let trace = traces.entry(of.clone()).or_default();
        trace.pools.insert(grant.pool.clone());
        trace.granted.insert(grant.family(), grant);
    }

    /// Notes that `sandbox` was given all it asked for: just `grants`.
    pub(super) fn settle(&self, of: &Attachment, sandbox: Sandbox, grants: &[Granted]) {
        let mut traces = locked(&self.traces);
        let trace = traces.entry(of.clone()).or_default();
        trace.settled = Some(sandbox);
        trace.given = true;
        trace.granted = grants.iter().map(|g| (g.family(), g.clone())).collect();
    }

    /// Notes that the interface lost an address: what it has left is not all that it asked for.
    pub(super) fn lost(&self, of: &Attachment, address: IpAddr) {
        if let Some(trace) = locked(&self.traces).get_mut(of) {
            trace.settled = None;
            trace.granted.retain(|_, grant| grant.address != address);
        }
    }

    /// Notes that `pool` has no record of the interface any more.
    pub(super) fn left(&self, of: &Attachment, pool: &PoolName) {
        if let Some(trace) = locked(&self.traces).get_mut(of) {
            trace.pools.remove(pool);
            trace.granted.retain(|_, grant| grant.pool != *pool);
        }
    }

    /// The interface that was served in `sandbox`, for a runtime that names no uid.
    pub(super) fn served_in(&self, sandbox: &Sandbox, nic: &Nic) -> Option<Attachment> {
        let traces = locked(&self.traces);
        let mut served = traces
            .iter()
            .filter(|(of, trace)| of.nic == *nic && trace.settled.as_ref() == Some(sandbox));
        served.next().map(|(of, _)| of.clone())
    }

    /// What is known of the interface.
    pub(super) fn trace(&self, of: &Attachment) -> Trace {
        locked(&self.traces).get(of).cloned().unwrap_or_default()
    }

    /// Whether a sandbox of such an interface was served and has not let go.
    pub(super) fn is_any_served(&self, wanted: impl Fn(&Attachment) -> bool) -> bool {
        let traces = locked(&self.traces);
        let mut served = traces.iter().filter(|(_, trace)| trace.settled.is_some());
        served.any(|(of, _)| wanted(of))
    }

    /// Notes that the interface, whose Pod has ended, holds nothing any more.
    pub(super) fn released(&self, of: &Attachment) {
        let mut traces = locked(&self.traces);
        let trace = Trace {
            whole: true,
            given: traces.get(of).is_some_and(|trace| trace.given),
            released: Some(Instant::now()),
            ..Trace::default()
        };
        traces.insert(of.clone(), trace);
    }

    /// Forgets interfaces of Pods that are gone and were given nothing, or let go long ago.
    pub(super) fn prune(&self, is_here: impl Fn(&Uid) -> bool) {
        locked(&self.traces).retain(|of, trace| {
            let recent = |at: Instant| at.elapsed() < REMEMBER;
            !trace.pools.is_empty() || is_here(&of.uid) || trace.released.is_some_and(recent)
        });
    }
}

/// What is remembered of a Pod's interfaces.
fn of_pod<'t>(
    traces: &'t BTreeMap<Attachment, Trace>,
    uid: &'t Uid,
) -> impl Iterator<Item = (&'t Attachment, &'t Trace)> {
    let first = Attachment {
        uid: uid.clone(),
        nic: Nic::default(),
    };
    traces
        .range(first..)
        .take_while(move |(of, _)| of.uid == *uid)
}
