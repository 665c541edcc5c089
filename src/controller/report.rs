//! What users are told: conditions and counts on pools and subnets, Events on workloads and pools.
//!
//! Never does: decide; every text comes from the plan and from what became of it. A report that
//! can't be written is tried again by the next pass and never holds one up for long: statuses are
//! written side by side, Events by a task of their own.
//!
//! Where to read next: `report/conditions.rs` for what is said of an object, `report/notices.rs`
//! for what is worth an Event, `report/events.rs` for how it is told once.

mod conditions;
mod events;
mod notices;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipam::addr::AddrCount;
use ipam::name::{PoolName, Uid};
use ipam::plan::{Condition, Plan, SubnetSeen};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource, ResourceExt};

use super::apply::{self, Done, Writer};
use super::edit;
use super::index::{Observed, Stray};
use super::workload::Seen;
use crate::api::{SpiderIPPool, SpiderSubnet, convert};
use crate::error::ErrorChain;
use crate::kube_io::put::{self, Part, Reply};
use crate::kube_io::time;

pub use conditions::subnet_conflict;
pub use events::Publisher;
use events::Teller;

/// Most Events that one pass writes: a change that touches every pool must not flood the API.
const EVENTS_PER_PASS: usize = 50;

/// Tells what happened.
pub struct Reports {
    teller: Teller,
}

impl Reports {
    /// Reports under the name of the controller's Pod, and the task that writes the Events.
    /// `client` should never repeat a write by itself: an Event that failed is told again.
    pub fn new(client: Client, pod_name: Option<String>) -> (Self, Publisher) {
        let (teller, publisher) = Teller::new(client, pod_name);
        (Self { teller }, publisher)
    }

    /// Conditions, counts and Events of a pass.
    pub async fn report(&self, writer: &Writer, seen: &Observed, plan: &Plan, done: &Done) {
        let said = conditions::of_pools(&seen.snapshot, plan, done);
        notices::heal(&mut self.teller.said(), seen, plan, done);
        let notices = notices::notices(seen, plan, done, &said);
        self.teller.tell(notices, EVENTS_PER_PASS);
        let now = time::to_wire(time::now());
        let work = said.iter().filter_map(|(name, conditions)| {
            let raw = done.pools.get(name)?;
            // Most pools are as the pass read them, and parsed then.
            let as_read = seen
                .pools
                .get(name)
                .is_some_and(|seen| Arc::ptr_eq(seen, raw));
            let parsed = seen.snapshot.pools.get(name).filter(|_| as_read);
            let parsed = parsed
                .cloned()
                .or_else(|| convert::pool(raw).ok().map(Arc::new));
            let pool = edit::pool_status(raw, parsed.as_deref(), conditions, &now)?;
            Some(put_pool_status(writer, name, pool))
        });
        apply::together(work.collect()).await;
        subnet_status(writer, seen, plan, done).await;
        for twin in &seen.twins {
            let conditions = conditions::of_twin(seen);
            put_subnet_status(writer, twin, Some(AddrCount::ZERO), &conditions).await;
        }
    }

    /// A workload whose annotations can't be used, or that names a subnet that is not there.
    pub fn complain(&self, seen: &Seen, reason: &'static str, note: String) {
        let notice = notices::complaint(&seen.id, reason, note);
        self.teller.tell(vec![notice], 1);
    }

    /// A pool or subnet that nobody can place, and what is wrong with it.
    pub async fn stray(&self, writer: &Writer, stray: &Stray) {
        let (about, fault) = match stray {
            Stray::Pool(pool, fault) => (pool.object_ref(&()), fault),
            Stray::Subnet(subnet, fault) => (subnet.object_ref(&()), fault),
            Stray::Unreadable(pool) => (notices::pool_reference(&pool.meta), &pool.reason),
        };
        self.teller.tell(vec![notices::unreadable(about, fault)], 1);
        let said = conditions::unreadable(fault);
        match stray {
            Stray::Pool(pool, _) => {
                let (parsed, now) = (convert::pool(pool).ok(), time::to_wire(time::now()));
                if let Some(new) = edit::pool_status(pool, parsed.as_ref(), &said, &now) {
                    put_pool_status(writer, &PoolName::new(pool.name_any()), new).await;
                }
            }
            Stray::Subnet(subnet, _) => put_subnet_status(writer, subnet, None, &said).await,
            // Its status can't be written without losing what can't be read.
            Stray::Unreadable(_) => {}
        }
    }

    /// Addresses of a pool that were released since nobody has or wants them: for each why, and which
    /// it is and whose it was. For each why as many Events as that takes, up to a bound.
    pub(super) fn collected(
        &self,
        pool: &SpiderIPPool,
        released: impl IntoIterator<Item = (String, String)>,
    ) {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (why, which) in released {
            all.entry(why).or_default().push(which);
        }
        let pool = pool.object_ref(&());
        let notes = all.iter();
        let notes = notes.flat_map(|(why, which)| notices::released(why, which));
        let notices = notes.map(|note| notices::collected(&pool, note));
        self.teller.tell(notices.collect(), EVENTS_PER_PASS);
    }

    /// Workloads of the kind with this definition are not watched, and why.
    pub fn kind_not_watched(&self, definition: ObjectReference, why: &str) {
        let notice = notices::kind_not_watched(definition, why);
        self.teller.tell(vec![notice], 1);
    }

    /// They are.
    pub fn kind_watched(&self, definition: &ObjectReference) {
        let uid = Uid::new(definition.uid.clone().unwrap_or_default());
        self.teller.said().settle(&uid);
    }

    /// A workload of which there is nothing to complain any more.
    pub fn settle(&self, seen: &Seen) {
        self.teller.said().settle(&seen.id.uid);
    }
}

async fn put_pool_status(writer: &Writer, name: &PoolName, mut pool: SpiderIPPool) {
    let pools = &writer.pool_writes;
    match pools.replace(Part::Status, &mut pool, Reply::Full).await {
        Ok(()) => {}
        // An allocation was faster: its write wakes the next pass, which says it again.
        Err(error) => {
            tracing::debug!(pool = %name, error = %ErrorChain(&error), "status not written");
        }
    }
}

async fn subnet_status(writer: &Writer, seen: &Observed, plan: &Plan, done: &Done) {
    let Some(raw) = &done.subnet else { return };
    let total = match &seen.snapshot.subnet {
        SubnetSeen::Readable(subnet) => Some(subnet.total().count()),
        SubnetSeen::None | SubnetSeen::Unreadable { .. } => None,
    };
    let conditions = conditions::of_subnet(&seen.snapshot, plan, done);
    put_subnet_status(writer, raw, total, &conditions).await;
}

async fn put_subnet_status(
    writer: &Writer,
    raw: &SpiderSubnet,
    total: Option<AddrCount>,
    conditions: &[Condition],
) {
    let now = time::to_wire(time::now());
    let Some(mut subnet) = edit::subnet_status(raw, total, conditions, &now) else {
        return;
    };
    match put::replace(&writer.client, Part::Status, &mut subnet, Reply::Full).await {
        Ok(()) => writer.subnets.apply_written(subnet),
        Err(error) => {
            tracing::debug!(subnet = %raw.name_any(), error = %ErrorChain(&error), "status not written");
        }
    }
}
