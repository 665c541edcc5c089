//! `SpiderEndpoint`s: what a Pod has, for people and for programs that look there.
//!
//! Owns: their writing, after the reply, one at a time and not too fast, as long as the Pod is here,
//! and behind the claims that are under way: what nobody waits for leaves the API server to what
//! Pods wait for. Never does: serve as the truth: an endpoint is derived from what was granted and
//! never a reason for a failed ADD. Invariants: an endpoint is of the Pod whose uid it names; that of an earlier
//! Pod of the same name is replaced whole, unless it is of a `StatefulSet`: that one outlives its
//! Pods, without an owner and with a finalizer, and goes with the address. Who asks this agent is
//! told what is still to be written, and what is not to be, as long as its Pod is here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipam::addr::Family;
use ipam::name::{Nic, PodName, PoolName, Uid, WorkloadId};
use ipam::pool::Route;
use ipam::release::Life;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::Settings;
use super::candidates::Asker;
use super::fixed;
use super::locked;
use super::pods::{self, NodePods};
use super::reads::{ReadError, Reads};
use crate::api::{
    EndpointCurrent, EndpointNic, SpiderEndpoint, SpiderEndpointStatus, convert, names,
};
use crate::config::EndpointMode;
use crate::error::ErrorChain;
use crate::kube_io::endpoint::{self, RemoveError};
use crate::kube_io::put::{self, Part, PutError, Reply};
use crate::kube_io::retry::{Backoff, Outcome, classify};
use crate::pool_writer::{Attachment, Granted};

/// At most one endpoint is written in this time.
const PACE: Duration = Duration::from_millis(20);
/// Longest time that claims which are under way hold an endpoint back.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// First and longest cap of the pause after a write that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Why an endpoint was not written.
#[derive(Debug, thiserror::Error)]
enum EndpointError {
    /// It could not be read.
    #[error("could not read it")]
    Read(#[from] ReadError),
    /// The API server did not create it.
    #[error("could not create it")]
    Call(#[from] kube::Error),
    /// That of an earlier Pod could not be removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// It could not be written.
    #[error("could not replace it")]
    Put(#[from] PutError),
}

/// The ways out of an interface, as an endpoint tells them.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    /// Whether it has no default route.
    pub(super) clean_gateway: bool,
    /// Its other routes.
    pub(super) routes: Vec<Route>,
}

/// What a Pod's endpoint should say.
#[derive(Debug)]
struct Wanted {
    endpoint: Arc<Content>,
    /// Not before this.
    due: Instant,
    backoff: Backoff,
}

/// What it should say; never changed, so that what was noted while it was written is seen.
#[derive(Debug, Clone)]
struct Content {
    uid: Uid,
    /// Uid of the Pod's object, which a static Pod's own differs from; `None` where the endpoint
    /// outlives the Pod.
    owner: Option<String>,
    node: String,
    workload: WorkloadId,
    /// In the order in which they were served first.
    nics: Vec<EndpointNic>,
}

/// The endpoints to write.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    wanted: Mutex<BTreeMap<PodName, Wanted>>,
    /// Those that are told and not written ([`EndpointMode`]).
    told: Mutex<BTreeMap<PodName, Arc<Content>>>,
    more: Notify,
    /// How many hold writing back.
    holds: watch::Sender<usize>,
}

/// Holds the writing of endpoints back, for a while.
pub(super) struct Hold<'e>(&'e watch::Sender<usize>);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|holds| *holds -= 1);
    }
}

impl Endpoints {
    /// Something more urgent is under way, until the answer is dropped.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.holds.send_modify(|holds| *holds += 1);
        Hold(&self.holds)
    }

    /// Notes what an interface was granted; it is written soon, with whatever comes until then.
    ///
    /// Also for a Pod whose addresses are fixed this can wait: what they depend on is recorded.
    pub(super) fn note(
        &self,
        asker: &Asker,
        settings: &Settings,
        granted: &[Granted],
        ways: &Ways,
    ) {
        let outlives = fixed::is_kept_set(settings, &asker.workload);
        let is_written = is_written(settings, fixed::is_stateful_set(&asker.workload));
        let (mut all, mut told) = (locked(&self.wanted), locked(&self.told));
        let (name, uid) = (pods::name(&asker.pod), pods::uid(&asker.pod));
        let wanted = all.get(&name).map(|wanted| &wanted.endpoint);
        let noted = wanted.or_else(|| told.get(&name));
        let mut content = match noted.filter(|noted| noted.uid == uid) {
            Some(noted) => Content::clone(noted),
            None => Content {
                uid,
                owner: (!outlives).then(|| asker.pod.uid().unwrap_or_default()),
                node: settings.node.clone(),
                workload: asker.workload.clone(),
                nics: Vec::new(),
            },
        };
        enter(&mut content.nics, &endpoint_nic(&asker.nic, granted, ways));
        if !is_written {
            told.insert(name, Arc::new(content));
            return;
        }
        let wanted = Wanted {
            endpoint: Arc::new(content),
            due: Instant::now(),
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
        };
        all.insert(name, wanted);
        self.more.notify_one();
    }

    /// What there will be: an endpoint as read, with what is still to be written.
    pub(super) fn overlay(
        &self,
        name: &PodName,
        there: Option<SpiderEndpoint>,
    ) -> Option<SpiderEndpoint> {
        let wanted = locked(&self.wanted)
            .get(name)
            .map(|w| Arc::clone(&w.endpoint));
        let wanted = wanted.or_else(|| locked(&self.told).get(name).cloned());
        let Some(wanted) = wanted else {
            return there;
        };
        match there {
            Some(mut there)
                if endpoint::pod_uid(&there) == Some(wanted.uid.as_str())
                    || is_inherited(&there, &wanted) =>
            {
                merge(&mut there, &wanted);
                Some(there)
            }
            Some(_) | None => {
                let (namespace, short) = name.parts();
                Some(new(namespace, short, &wanted))
            }
        }
    }

    /// Forgets what is told of Pods that are not here.
    pub(super) fn prune(&self, is_here: impl Fn(&Uid) -> bool) {
        locked(&self.told).retain(|_, content| is_here(&content.uid));
    }

    /// Writes for ever; drop the future to stop.
    pub(super) async fn run(self: Arc<Self>, reads: Reads, writes: Client, pods: NodePods) {
        let mut holds = self.holds.subscribe();
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let Some((name, due, endpoint)) = self.next() else {
                self.more.notified().await;
                continue;
            };
            if due > Instant::now() {
                // Something may be noted meanwhile that is due at once.
                let _ = timeout_at(due, self.more.notified()).await;
                continue;
            }
            if *holds.borrow() > 0 && due.elapsed() < HOLD_MAX {
                // More may be noted meanwhile, and written with it.
                let _ = timeout_at(due + HOLD_MAX, holds.wait_for(|holds| *holds == 0)).await;
                continue;
            }
            let written = write(&reads, &writes, &pods, &name, &endpoint).await;
            self.settle(&name, &endpoint, written);
        }
    }

    /// What is due first.
    fn next(&self) -> Option<(PodName, Instant, Arc<Content>)> {
        let all = locked(&self.wanted);
        let (name, wanted) = all.iter().min_by_key(|(_, wanted)| wanted.due)?;
        Some((name.clone(), wanted.due, Arc::clone(&wanted.endpoint)))
    }

    /// Drops what is written, unless more was noted meanwhile; puts off what is not.
    fn settle(&self, name: &PodName, tried: &Arc<Content>, written: Result<(), EndpointError>) {
        let mut all = locked(&self.wanted);
        let Some(wanted) = all.get_mut(name) else {
            return;
        };
        match written {
            Ok(()) if Arc::ptr_eq(&wanted.endpoint, tried) => {
                all.remove(name);
            }
            Ok(()) => {}
            Err(error) => {
                let pause = wanted.backoff.next_delay();
                wanted.due = Instant::now() + pause;
                tracing::warn!(pod = %name, error = %ErrorChain(&error), "SpiderEndpoint not written; trying again");
            }
        }
    }
}

/// Whether the endpoint of a Pod is written, which is a `StatefulSet`'s or not.
pub(super) fn is_written(settings: &Settings, is_of_set: bool) -> bool {
    match settings.endpoints {
        EndpointMode::Always => true,
        EndpointMode::Stateful => is_of_set,
        EndpointMode::Never => false,
    }
}

async fn write(
    reads: &Reads,
    writes: &Client,
    pods: &NodePods,
    name: &PodName,
    wanted: &Content,
) -> Result<(), EndpointError> {
    let is_here = match pods.get(name) {
        Some(pod) => pods::uid(&pod) == wanted.uid && pods::is_alive(&pod),
        None => pods::life_now(reads, name, &wanted.uid).await? == Life::Alive,
    };
    if !is_here {
        return Ok(());
    }
    let (namespace, short) = name.parts();
    let api: Api<SpiderEndpoint> = Api::namespaced(writes.clone(), namespace);
    let created = api
        .create(&PostParams::default(), &new(namespace, short, wanted))
        .await;
    match created {
        Ok(_) => return Ok(()),
        Err(error) if classify(&error) == Outcome::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    let Some(mut there) = reads.endpoint(name).await? else {
        return Ok(api
            .create(&PostParams::default(), &new(namespace, short, wanted))
            .await
            .map(drop)?);
    };
    if endpoint::pod_uid(&there) == Some(wanted.uid.as_str()) || is_inherited(&there, wanted) {
        if merge(&mut there, wanted) {
            put::replace(writes, Part::Main, &mut there, Reply::MetadataOnly).await?;
        }
        return Ok(());
    }
    endpoint::remove(writes, there).await?;
    let replaced = new(namespace, short, wanted);
    api.create(&PostParams::default(), &replaced).await?;
    Ok(())
}

/// True for the endpoint of the former Pod of the same name and `StatefulSet`.
fn is_inherited(there: &SpiderEndpoint, wanted: &Content) -> bool {
    let of_set = there.status.as_ref().is_some_and(|status| {
        status.owner_controller_type == wanted.workload.kind
            && status.owner_controller_name == wanted.workload.name
    });
    wanted.owner.is_none() && there.owner_references().is_empty() && of_set
}

fn new(namespace: &str, name: &str, wanted: &Content) -> SpiderEndpoint {
    let status = SpiderEndpointStatus {
        current: EndpointCurrent {
            uid: wanted.uid.as_str().to_owned(),
            node: wanted.node.clone(),
            ips: wanted.nics.clone(),
            ..EndpointCurrent::default()
        },
        owner_controller_type: wanted.workload.kind.clone(),
        owner_controller_name: wanted.workload.name.clone(),
        ..SpiderEndpointStatus::default()
    };
    let mut endpoint = SpiderEndpoint::new(namespace, name, status);
    tie(&mut endpoint, wanted);
    endpoint
}

/// To its Pod, or to the finalizer that has it outlive the Pod.
fn tie(endpoint: &mut SpiderEndpoint, wanted: &Content) {
    let Some(uid) = &wanted.owner else {
        endpoint.metadata.owner_references = None;
        if !endpoint.finalizers().iter().any(|f| f == names::FINALIZER) {
            let finalizer = names::FINALIZER.to_owned();
            endpoint.finalizers_mut().push(finalizer);
        }
        return;
    };
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: endpoint.name_any(),
        uid: uid.clone(),
        ..OwnerReference::default()
    };
    let owners = endpoint.owner_references_mut();
    if owners.iter().all(|there| there.uid != owner.uid) {
        owners.push(owner);
    }
}

/// Enters the interfaces; true if that changed anything. Interfaces of others stay.
fn merge(endpoint: &mut SpiderEndpoint, wanted: &Content) -> bool {
    let before = endpoint.clone();
    tie(endpoint, wanted);
    let status = endpoint.status.get_or_insert_default();
    for nic in &wanted.nics {
        enter(&mut status.current.ips, nic);
    }
    status.current.node.clone_from(&wanted.node);
    wanted.uid.as_str().clone_into(&mut status.current.uid);
    *endpoint != before
}

/// Enters an interface: in its place if it has one, else at the end. What others noted stays.
fn enter(all: &mut Vec<EndpointNic>, new: &EndpointNic) {
    let is_it = |old: &EndpointNic| {
        // The original notes all addresses at once, and an interface's name when its call comes.
        let is_kept_for_it = (&old.ipv4, &old.ipv6) == (&new.ipv4, &new.ipv6);
        old.interface == new.interface || (old.interface.is_empty() && is_kept_for_it)
    };
    match all.iter().position(is_it).and_then(|at| all.get_mut(at)) {
        Some(old) => {
            let unknown = std::mem::take(&mut old.unknown);
            *old = EndpointNic {
                unknown,
                vlan: old.vlan,
                mac: old.mac.take(),
                ..new.clone()
            };
        }
        None => all.push(new.clone()),
    }
}

fn endpoint_nic(nic: &Nic, granted: &[Granted], ways: &Ways) -> EndpointNic {
    let mut element = EndpointNic {
        interface: nic.as_str().to_owned(),
        ..EndpointNic::default()
    };
    for grant in granted {
        let (address, pool) = (Some(grant.text()), Some(grant.pool.as_str().to_owned()));
        let gateway = grant.gateway.map(|gateway| gateway.to_string());
        if gateway.is_some() {
            element.clean_gateway = Some(ways.clean_gateway);
        }
        match grant.family() {
            Family::V4 => {
                element.ipv4 = address;
                element.ipv4_pool = pool;
                element.ipv4_gateway = gateway;
            }
            Family::V6 => {
                element.ipv6 = address;
                element.ipv6_pool = pool;
                element.ipv6_gateway = gateway;
            }
        }
    }
    element.routes = convert::wire_routes(&ways.routes);
    element
}

/// The interfaces that an endpoint tells of, in their order, if it is the Pod's.
pub(super) fn interfaces_of(endpoint: Option<&SpiderEndpoint>, uid: &Uid) -> Vec<Nic> {
    let status = endpoint.and_then(|endpoint| endpoint.status.as_ref());
    let current = status.map(|status| &status.current);
    let elements = current
        .filter(|current| current.uid == uid.as_str())
        .into_iter()
        .flat_map(|current| &current.ips);
    let names = elements.map(|nic| nic.interface.as_str());
    names
        .filter(|name| !name.is_empty())
        .map(Nic::from)
        .collect()
}

/// The pools that an endpoint names for an interface, if it is the interface's Pod's.
pub(super) fn pools_of(
    endpoint: Option<&SpiderEndpoint>,
    of: &Attachment,
) -> BTreeMap<Family, PoolName> {
    let mut pools = BTreeMap::new();
    let Some(status) = endpoint.and_then(|endpoint| endpoint.status.as_ref()) else {
        return pools;
    };
    if status.current.uid != of.uid.as_str() {
        return pools;
    }
    let elements = status.current.ips.iter();
    for nic in elements.filter(|nic| nic.interface == of.nic.as_str()) {
        let named = [(Family::V4, &nic.ipv4_pool), (Family::V6, &nic.ipv6_pool)];
        for (family, pool) in named {
            if let Some(pool) = pool.as_deref().filter(|pool| !pool.is_empty()) {
                pools.insert(family, PoolName::from(pool));
            }
        }
    }
    pools
}

/// An endpoint as the socket's API tells it.
pub(super) fn told(name: &PodName, endpoint: &SpiderEndpoint) -> cni::WorkloadEndpointStatus {
    let status = endpoint.status.clone().unwrap_or_default();
    let (namespace, short) = name.parts();
    let interfaces = status.current.ips.into_iter().map(|nic| {
        let routes = nic.routes.unwrap_or_default().into_iter();
        let name = nic.interface;
        cni::EndpointInterface {
            interface: name.clone(),
            ipv4: nic.ipv4,
            ipv4_gateway: nic.ipv4_gateway,
            ipv4_pool: nic.ipv4_pool,
            ipv6: nic.ipv6,
            ipv6_gateway: nic.ipv6_gateway,
            ipv6_pool: nic.ipv6_pool,
            mac: nic.mac,
            vlan: nic.vlan.and_then(|v| u16::try_from(v).ok()).unwrap_or(0),
            routes: routes
                .map(|route| cni::Route {
                    dst: route.dst,
                    gw: route.gw,
                    if_name: name.clone(),
                })
                .collect(),
        }
    });
    cni::WorkloadEndpointStatus {
        interfaces: interfaces.collect(),
        node: status.current.node,
        pod_name: short.to_owned(),
        pod_namespace: namespace.to_owned(),
        pod_uid: status.current.uid,
    }
}
