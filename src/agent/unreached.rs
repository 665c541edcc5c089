//! Routes that a Pod asks for and that none of its interfaces takes: the Pod is told.
//!
//! Owns: when it is told: once none of its interfaces has asked for a while. How many will, nobody
//! can say: another plugin may serve the rest. Never does: decide which interface takes a route
//! ([`ipam::route`] does).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::annotation;
use ipam::name::Uid;
use ipam::route::Wanted;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::{Instant, sleep_until};

use super::locked;
use super::memory::Memory;
use super::pods;
use super::wait::Waits;
use crate::kube_io::tasks::Tasks;

/// Reason of the Event.
const ROUTE_IGNORED: &str = "RouteIgnored";
/// From an interface's address to the Event, unless another interface asks meanwhile: runtimes add
/// one right after the other.
const QUIET: Duration = Duration::from_secs(10);

/// What a Pod is to be told.
struct Due {
    at: Instant,
    pod: Arc<Pod>,
    unused: Vec<Wanted>,
}

/// Who is to be told.
pub(super) struct Unreached {
    memory: Arc<Memory>,
    waits: Arc<Waits>,
    tasks: Tasks,
    due: Mutex<BTreeMap<Uid, Due>>,
}

impl Unreached {
    pub(super) fn new(memory: Arc<Memory>, waits: Arc<Waits>, tasks: Tasks) -> Self {
        Self {
            memory,
            waits,
            tasks,
            due: Mutex::default(),
        }
    }

    /// An interface of `pod` has its addresses, and reaches none of these next hops.
    pub(super) fn note(self: &Arc<Self>, pod: &Arc<Pod>, unused: Vec<Wanted>) {
        let uid = pods::uid(pod);
        let due = Due {
            at: Instant::now() + QUIET,
            pod: Arc::clone(pod),
            unused,
        };
        let is_awaited = locked(&self.due).insert(uid.clone(), due).is_some();
        if is_awaited {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Some(due) = this.when_due(&uid).await {
                this.tell(&uid, &due);
            }
        });
    }

    async fn when_due(&self, uid: &Uid) -> Option<Due> {
        loop {
            let at = {
                let mut all = locked(&self.due);
                match all.get(uid) {
                    Some(due) if due.at > Instant::now() => due.at,
                    _ => return all.remove(uid),
                }
            };
            sleep_until(at).await;
        }
    }

    /// Tells the Pod, unless one of its interfaces takes them, or may yet: one that still waits for
    /// an address is noted with what it does not reach, once it has that.
    fn tell(&self, uid: &Uid, due: &Due) {
        let Some(networks) = self.memory.networks(uid) else {
            return;
        };
        let is_used = |route: &Wanted| networks.iter().any(|net| net.contains(&route.gw));
        let unused = due.unused.iter().filter(|route| !is_used(route));
        let unused: Vec<String> = unused.map(ToString::to_string).collect();
        if unused.is_empty() {
            return;
        }
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let note = format!(
            "annotation '{}': no interface takes the routes [{}], whose next hops are in none of the Pod's networks [{}]: \
             use a next hop there, or take them out",
            annotation::ROUTES,
            unused.join(", "),
            networks.join(" ")
        );
        tracing::warn!(pod = %pods::name(&due.pod), because = note, "routes left out");
        self.waits.warn(&due.pod, ROUTE_IGNORED, &note);
    }
}
