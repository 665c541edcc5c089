//! The Pods of this node, watched, and what a Pod's object says about its owner.
//!
//! Owns: the one watch of the agent, and the difference between a Pod that was here before the
//! agent and one that came after. Never does: look at Pods of other nodes, or decide what a Pod's
//! end frees ([`ipam::release`]). Invariant: a life only gets nearer its end: a uid that was ever
//! seen ending or gone here is never alive again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ipam::keep::{MachineKind, is_launcher};
use ipam::kind::group_version;
use ipam::name::{PodName, Uid, WorkloadId};
use ipam::release::Life;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, ResourceExt};
use kube_runtime::watcher;
use tokio::sync::mpsc::UnboundedSender;

use super::Wakes;
use super::locked;
use super::reads::{ReadError, Reads};
use crate::api::names::{annotation, kubevirt};
use crate::api::pod::{controller, controller_of, has_own_network};
pub(super) use crate::api::pod::{life, name, uid};
use crate::kube_io::cache::{Cache, Change, Key};

/// A Pod that ended, and that no earlier agent can have served.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) pod: PodName,
    pub(super) uid: Uid,
    /// How many interfaces its annotation asks pools for; one where it has none.
    pub(super) interfaces: usize,
}

/// Who hears of the node's Pods.
pub(super) struct Listeners {
    /// The uids of those that end.
    pub(super) ended: Wakes,
    /// Those that came and ended while this agent watched, to find out whether they started.
    pub(super) unstarted: Option<UnboundedSender<Ended>>,
    /// Those that came while this agent watched.
    pub(super) came: Option<UnboundedSender<Arc<Pod>>>,
}

/// The Pods of this node.
#[derive(Clone)]
pub(super) struct NodePods {
    cache: Cache<Pod>,
    /// Pods of the first list that are still there: an earlier agent may have served them.
    elders: Arc<Mutex<BTreeSet<Uid>>>,
    /// True once `elders` are known.
    listed: Arc<AtomicBool>,
}

impl NodePods {
    /// The Pods of a node.
    pub(super) fn new(listeners: Listeners) -> Self {
        let Listeners {
            ended,
            unstarted,
            came,
        } = listeners;
        let elders: Arc<Mutex<BTreeSet<Uid>>> = Arc::default();
        let listed: Arc<AtomicBool> = Arc::default();
        let cache = Cache::new();
        let (gone, has_listed) = (Arc::clone(&elders), Arc::clone(&listed));
        cache.on_change(move |change| {
            if let Some(unstarted) = &unstarted
                && has_listed.load(Ordering::Acquire)
                && let Some(pod) = ended_with(change)
                && !locked(&gone).contains(&uid(pod))
            {
                let _ = unstarted.send(Ended::of(pod));
            }
            if let Some(came) = &came
                && has_listed.load(Ordering::Acquire)
                && let Some(pod) = come_with(change)
            {
                let _ = came.send(Arc::clone(pod));
            }
            // A Pod that can't be read any more is still there.
            if let Some(before) = change.old.uid()
                && change.new.uid() != Some(before)
            {
                let before = Uid::from(before);
                locked(&gone).remove(&before);
                // Nobody listens any more only while the agent stops.
                let _ = ended.send(before);
            }
            if let Some(pod) = change.new.object()
                && !is_alive(pod)
            {
                let _ = ended.send(uid(pod));
            }
        });
        Self {
            cache,
            elders,
            listed,
        }
    }

    /// Watches for ever; drop the future to stop.
    pub(super) async fn run(self, client: Client, node: String) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        self.cache.run(Api::all(client), config, |_| {}).await;
    }

    /// Waits for the first list.
    pub(super) async fn synced(&self) {
        self.cache.synced().await;
        let first = self.cache.list();
        // Under the lock: whoever comes second finds the elders complete.
        let mut elders = locked(&self.elders);
        if !self.listed.swap(true, Ordering::AcqRel) {
            elders.extend(first.iter().map(|pod| uid(pod)));
        }
    }

    /// The Pod as last seen.
    pub(super) fn get(&self, pod: &PodName) -> Option<Arc<Pod>> {
        let (namespace, name) = pod.parts();
        self.cache.get(&Key::namespaced(namespace, name))
    }

    /// True where an earlier agent may have given addresses to this Pod.
    pub(super) fn is_elder(&self, uid: &Uid) -> bool {
        locked(&self.elders).contains(uid)
    }

    /// The Pods that an earlier agent may have given addresses to.
    pub(super) fn elders(&self) -> Vec<Arc<Pod>> {
        let mut pods = self.cache.list();
        pods.retain(|pod| self.is_elder(&uid(pod)));
        pods
    }

    /// The uids of all Pods seen and of their controllers.
    pub(super) fn uids(&self) -> BTreeSet<Uid> {
        let mut uids = BTreeSet::new();
        for pod in self.cache.list() {
            uids.insert(uid(&pod));
            uids.extend(controller(&pod).map(|owner| Uid::from(owner.uid.as_str())));
        }
        uids
    }
}

impl Ended {
    fn of(pod: &Pod) -> Self {
        let get = |key: &str| pod.annotations().get(key).map(String::as_str);
        let items = ipam::annotation::subnets(&get).ok().flatten();
        Self {
            pod: name(pod),
            uid: uid(pod),
            interfaces: items.map_or(1, |items| items.len()),
        }
    }
}

/// The Pod that ended by this change, if it had a network of its own.
fn ended_with(change: &Change<Pod>) -> Option<&Pod> {
    let has_ended = |pod: &&Arc<Pod>| life(pod) == Life::Gone;
    let old = change.old.object().filter(|old| !has_ended(old));
    let same = change.old.uid() == change.new.uid();
    let ended = match change.new.object().filter(has_ended) {
        // It had ended before this change, if it was there.
        Some(new) if !same || old.is_some() => Some(new),
        _ => old.filter(|_| !same),
    };
    ended.map(|pod| &**pod).filter(|pod| has_own_network(pod))
}

/// The Pod that came by this change, if it may ask for addresses.
fn come_with(change: &Change<Pod>) -> Option<&Arc<Pod>> {
    let new = change.new.object()?;
    let is_new = change.old.uid() != change.new.uid();
    (is_new && is_alive(new) && has_own_network(new)).then_some(new)
}

/// True where the Pod may start and use addresses.
pub(super) fn is_alive(pod: &Pod) -> bool {
    life(pod) == Life::Alive
}

/// The life of the Pod of this uid, by a live read.
pub(super) async fn life_now(reads: &Reads, pod: &PodName, of: &Uid) -> Result<Life, ReadError> {
    let found = reads.pod(pod).await?.filter(|pod| uid(pod) == *of);
    Ok(found.as_ref().map_or(Life::Gone, life))
}

/// True for the Pod that a virtual machine is being moved to: the address is its source's until then.
pub(super) fn is_migration_target(pod: &Pod) -> bool {
    pod.annotations().contains_key(annotation::MIGRATION_JOB)
}

/// Uid of the `StatefulSet` that the Pod belongs to.
pub(super) fn stateful_set(pod: &Pod) -> Option<Uid> {
    controller(pod)
        .filter(|owner| owner.api_version == "apps/v1" && owner.kind == "StatefulSet")
        .map(|owner| Uid::from(owner.uid.as_str()))
}

/// The run of a virtual machine that the Pod is of: its `VirtualMachineInstance`.
pub(super) fn machine_instance(pod: &Pod) -> Option<&OwnerReference> {
    controller(pod).filter(|owner| {
        is_machine(owner, MachineKind::VirtualMachineInstance) && is_launcher(&name(pod))
    })
}

/// True for a reference to a virtual machine of this kind, in whichever version.
pub(super) fn is_machine(owner: &OwnerReference, kind: MachineKind) -> bool {
    let (group, _) = group_version(&owner.api_version);
    group == kubevirt::GROUP && owner.kind == kind.as_str()
}

/// True where the Pod's addresses are fixed, if that is switched on.
pub(super) fn is_fixed(pod: &Pod) -> bool {
    stateful_set(pod).is_some() || machine_instance(pod).is_some()
}

/// The Pod's top controller, at most two levels up, or the Pod itself.
///
/// Errors: what the API server said about the level that could not be read.
pub(super) async fn workload(reads: &Reads, pod: &Pod) -> Result<WorkloadId, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let Some(owner) = controller(pod) else {
        return Ok(WorkloadId {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.name_any(),
            uid: uid(pod),
            namespace,
        });
    };
    let kinds = reads.kinds();
    let Some(own) = intermediate(reads, pod) else {
        return Ok(kinds.as_pools_name(workload_id(owner, &namespace)));
    };
    let meta = reads.owner(&own).await?;
    let top = controller_of(meta.owner_references.as_deref())
        .filter(|top| kinds.is_below(&own, &top.api_version, &top.kind));
    Ok(top.map_or(own, |top| kinds.as_pools_name(workload_id(top, &namespace))))
}

/// Whose object must be read to tell the Pod's top controller, if it is another's.
pub(super) fn intermediate(reads: &Reads, pod: &Pod) -> Option<WorkloadId> {
    let own = workload_id(controller(pod)?, &pod.namespace().unwrap_or_default());
    reads.kinds().may_be_below(&own).then_some(own)
}

fn workload_id(owner: &OwnerReference, namespace: &str) -> WorkloadId {
    let (group, version) = group_version(&owner.api_version);
    WorkloadId {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: owner.kind.clone(),
        namespace: namespace.to_owned(),
        name: owner.name.clone(),
        uid: Uid::from(owner.uid.as_str()),
    }
}
