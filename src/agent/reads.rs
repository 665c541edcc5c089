//! What the agent reads by name or selector, when it needs it, and how long it may keep it.
//!
//! Owns: every GET and LIST of the agent but those of its writers. Never does: watch (the node's
//! Pods are [`super::pods`]', a pool that is waited for is [`super::wait`]'s), or decide. What is
//! read here serves to choose; what is given out is settled by the fenced write in
//! [`crate::pool_writer`], so an old answer costs a second look and nothing else. Default pools have no
//! label to select by: who names no pool costs a list of all, with their records, at most once in
//! [`POOL_AGE`] a node.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ipam::addr::AddrSet;
use ipam::keep::Machine;
use ipam::kind::Kinds;
use ipam::name::{PodName, PoolName, Uid, Version, WorkloadId};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use self::leader::Leader;
use super::allocator::Allocator;
use super::error::LabelMap;
use crate::allocator::wire::Look;
use crate::api::{SpiderEndpoint, SpiderIPPool, SpiderReservedIP, convert};
use crate::error::ErrorChain;
use crate::kube_io::machine;
use crate::kube_io::memo::{Age, Memo};
use crate::kube_io::retry::{self, Outcome};
use crate::pool_writer::Reading;

mod leader;

/// How long a pool, found by name, selector or `spec.default`, serves to choose from.
pub(super) const POOL_AGE: Duration = Duration::from_secs(1);
/// How long the pools of a workload, told with its owner, serve to choose from: as a rule there is one
/// for each family, and what it can give, its writer says. A Pod's sandbox is made meanwhile, also
/// where many are made at once.
const OWN_POOL_AGE: Age = Age::Within(FORGET_AFTER);
/// How long reserved addresses are taken as read.
pub(super) const RESERVED_AGE: Duration = Duration::from_secs(1);
/// How long labels and annotations of Namespaces, Nodes and workloads are taken as read.
pub(super) const OBJECT_AGE: Duration = Duration::from_secs(2);
/// How long a ReplicaSet's or a Job's owner is taken as read: one that lost its own can be taken up by
/// another.
const OWNER_AGE: Age = Age::Within(FORGET_AFTER);
/// Answers older than this are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// Longest wait for an answer to a read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// There was no answer.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// There was one.
    #[error("the API server could not be asked")]
    Api(#[source] kube::Error),
}

impl ReadError {
    /// What the API server said, as users know it from `kubectl`.
    pub(super) fn said(&self) -> String {
        match self {
            Self::Api(kube::Error::Api(status)) => status.message.clone(),
            Self::Api(error) => ErrorChain(error).to_string(),
            Self::Timeout(_) => self.to_string(),
        }
    }

    /// True where the API server was not there, or had no time, so that it may answer soon.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Timeout(_) => true,
            Self::Api(error) => match retry::classify(error) {
                Outcome::Unknown | Outcome::Retryable { .. } => true,
                Outcome::Conflict | Outcome::AlreadyExists | Outcome::Gone | Outcome::Fatal => {
                    false
                }
            },
        }
    }
}

/// What a client of the original sees when it looks for an object that is not there.
pub(super) fn not_found(kind: &str, name: &str) -> String {
    format!("{kind} \"{name}\" not found")
}

/// Pools of one selector, and the version of the list, from which a watch goes on.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) version: Version,
    pub(super) pools: Vec<Arc<Reading>>,
}

/// Reads of the API server.
#[derive(Clone)]
pub(super) struct Reads {
    client: Client,
    kinds: Kinds,
    kept: Arc<Kept>,
    leader: Option<Arc<Leader>>,
}

#[derive(Default)]
struct Kept {
    pools: Memo<PoolName, Option<Arc<Reading>>>,
    listings: Memo<String, Arc<Listing>>,
    reserved: Memo<(), Arc<AddrSet>>,
    namespaces: Memo<String, Option<Arc<Namespace>>>,
    nodes: Memo<String, Option<Arc<Node>>>,
    stateful_sets: Memo<String, Option<Arc<StatefulSet>>>,
    machines: Memo<(String, Machine), Option<Arc<ObjectMeta>>>,
    annotations: Memo<Uid, Arc<BTreeMap<String, String>>>,
    owners: Memo<Uid, Arc<ObjectMeta>>,
}

impl Reads {
    pub(super) fn new(client: Client, kinds: Kinds) -> Self {
        Self {
            client,
            kinds,
            kept: Arc::default(),
            leader: None,
        }
    }

    /// With the leader to ask first, where it is as good.
    pub(super) fn beside(self, allocator: Allocator) -> Self {
        Self {
            leader: Some(Arc::new(Leader::new(allocator))),
            ..self
        }
    }

    /// The pools with all of these labels, to choose from; where `age` allows, as the leader knows
    /// them. Who finds none to serve looks again, live.
    pub(super) async fn pools_to_try(
        &self,
        labels: &LabelMap,
        age: Age,
    ) -> Result<Arc<Listing>, ReadError> {
        let told = self.told(Look::Pools(labels.0.clone()), age).await;
        match told {
            // The version is of no use: nobody waits for pools that are there.
            Some(pools) => Ok(Arc::new(Listing {
                version: Version::new(String::new()),
                pools: pools.to_vec(),
            })),
            None => self.pools(&labels.selector(), age).await,
        }
    }

    /// A pool by name, to choose it; where `age` allows, as the leader knows it.
    pub(super) async fn pool_to_try(
        &self,
        name: &PoolName,
        age: Age,
    ) -> Result<Option<Arc<Reading>>, ReadError> {
        let told = self.told(Look::Pool(name.clone()), age).await;
        match told.and_then(|pools| pools.first().cloned()) {
            Some(pool) => Ok(Some(pool)),
            None => self.pool(name, age).await,
        }
    }

    async fn told(&self, look: Look, age: Age) -> Option<leader::Pools> {
        self.leader.as_ref()?.pools(look, age).await
    }

    /// A pool by name.
    pub(super) async fn pool(
        &self,
        name: &PoolName,
        age: Age,
    ) -> Result<Option<Arc<Reading>>, ReadError> {
        let read = async {
            let began = Instant::now();
            let pools: Api<SpiderIPPool> = Api::all(self.client.clone());
            let found = answered(pools.get_opt(name.as_str())).await?;
            Ok(found.map(|object| Arc::new(Reading::new(object, began))))
        };
        self.kept.pools.get(name, age, read).await
    }

    /// The pools with all of these labels; every pool for an empty selector.
    pub(super) async fn pools(&self, selector: &str, age: Age) -> Result<Arc<Listing>, ReadError> {
        let read = async {
            let params = ListParams::default().labels(selector);
            Ok(Arc::new(self.list(&params).await?))
        };
        let key = selector.to_owned();
        self.kept.listings.get(&key, age, read).await
    }

    /// The pools of this selector as the API server remembers them, which costs no read of its
    /// store; not kept.
    pub(super) async fn pools_as_remembered(&self, selector: &str) -> Result<Listing, ReadError> {
        self.list(&ListParams::default().labels(selector).match_any())
            .await
    }

    async fn list(&self, params: &ListParams) -> Result<Listing, ReadError> {
        let began = Instant::now();
        let pools: Api<DeserializeGuard<SpiderIPPool>> = Api::all(self.client.clone());
        let list = answered(pools.list(params)).await?;
        let readable = list.items.into_iter().filter_map(|guard| match guard.0 {
            Ok(object) => Some(Arc::new(Reading::new(object, began))),
            Err(invalid) => {
                let pool = invalid.metadata.name.unwrap_or_default();
                tracing::warn!(pool, error = invalid.error, "IPPool left out of a list");
                None
            }
        });
        Ok(Listing {
            pools: readable.collect(),
            version: Version::new(list.metadata.resource_version.unwrap_or_default()),
        })
    }

    /// All reserved addresses, of both families.
    pub(super) async fn reserved(&self, age: Age) -> Result<Arc<AddrSet>, ReadError> {
        let read = async {
            let reservations: Api<DeserializeGuard<SpiderReservedIP>> =
                Api::all(self.client.clone());
            let list = answered(reservations.list(&ListParams::default())).await?;
            let mut all = AddrSet::new();
            for guard in list.items {
                let (name, addresses) = reserved_by(guard);
                match addresses {
                    Ok(addresses) => all = all.union(&addresses),
                    Err(error) => {
                        tracing::warn!(reserved = name, error, "SpiderReservedIP left out");
                    }
                }
            }
            Ok(Arc::new(all))
        };
        self.kept.reserved.get(&(), age, read).await
    }

    /// A Namespace.
    pub(super) async fn namespace(
        &self,
        name: &str,
        age: Age,
    ) -> Result<Option<Arc<Namespace>>, ReadError> {
        let read = async {
            let namespaces: Api<Namespace> = Api::all(self.client.clone());
            Ok(answered(namespaces.get_opt(name)).await?.map(Arc::new))
        };
        self.kept.namespaces.get(&name.to_owned(), age, read).await
    }

    /// A Node.
    pub(super) async fn node(&self, name: &str, age: Age) -> Result<Option<Arc<Node>>, ReadError> {
        let read = async {
            let nodes: Api<Node> = Api::all(self.client.clone());
            Ok(answered(nodes.get_opt(name)).await?.map(Arc::new))
        };
        self.kept.nodes.get(&name.to_owned(), age, read).await
    }

    /// A StatefulSet.
    pub(super) async fn stateful_set(
        &self,
        namespace: &str,
        name: &str,
        age: Age,
    ) -> Result<Option<Arc<StatefulSet>>, ReadError> {
        let read = async {
            let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
            Ok(answered(sets.get_opt(name)).await?.map(Arc::new))
        };
        let key = format!("{namespace}/{name}");
        self.kept.stateful_sets.get(&key, age, read).await
    }

    /// The metadata of a virtual machine.
    pub(super) async fn machine(
        &self,
        namespace: &str,
        machine: &Machine,
        age: Age,
    ) -> Result<Option<Arc<ObjectMeta>>, ReadError> {
        let read = async {
            let found = answered(machine::metadata(&self.client, namespace, machine)).await?;
            Ok(found.map(Arc::new))
        };
        let key = (namespace.to_owned(), machine.clone());
        self.kept.machines.get(&key, age, read).await
    }

    /// The uids of the Pods that run an instance of a virtual machine, live.
    pub(super) async fn active_pods(
        &self,
        namespace: &str,
        name: &str,
        uid: &Uid,
    ) -> Result<BTreeSet<Uid>, ReadError> {
        answered(machine::active_pods(&self.client, namespace, name, uid)).await
    }

    /// A Pod, live.
    pub(super) async fn pod(&self, pod: &PodName) -> Result<Option<Pod>, ReadError> {
        let (namespace, name) = pod.parts();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        answered(pods.get_opt(name)).await
    }

    /// A Pod's endpoint, live.
    pub(super) async fn endpoint(
        &self,
        pod: &PodName,
    ) -> Result<Option<SpiderEndpoint>, ReadError> {
        let (namespace, name) = pod.parts();
        let endpoints: Api<SpiderEndpoint> = Api::namespaced(self.client.clone(), namespace);
        answered(endpoints.get_opt(name)).await
    }

    /// The metadata of a ReplicaSet or a Job, not older than [`OWNER_AGE`].
    ///
    /// Errors: what the API server said, or that this very object is gone.
    pub(super) async fn owner(&self, of: &WorkloadId) -> Result<Arc<ObjectMeta>, String> {
        let read = async {
            if let Some(leader) = &self.leader
                && let Some(meta) = leader.owner(of).await
            {
                return Ok(Arc::new(meta));
            }
            let found = self.meta(of).await;
            found
                .map_err(|e| e.said())?
                .filter(|meta| meta.uid.as_deref() == Some(of.uid.as_str()))
                .map(Arc::new)
                .ok_or_else(|| not_found(&of.group_kind(), &of.name))
        };
        self.kept.owners.get(&of.uid, OWNER_AGE, read).await
    }

    /// Has the leader tell what [`Reads::owner`] and [`Reads::pools_to_try`] will be asked soon.
    pub(super) async fn foresee(&self, of: &WorkloadId) {
        let Some(leader) = &self.leader else {
            return;
        };
        let read = async { leader.owner(of).await.map(Arc::new).ok_or(()) };
        // Who needs to know, and is not told, asks the API server.
        let _ = self.kept.owners.get(&of.uid, OWNER_AGE, read).await;
    }

    /// The annotations of a workload; none where it is gone or of a kind we do not know.
    pub(super) async fn annotations(
        &self,
        workload: &WorkloadId,
        age: Age,
    ) -> Result<Arc<BTreeMap<String, String>>, ReadError> {
        let read = async {
            let meta = self.meta(workload).await?;
            let same = meta.filter(|meta| meta.uid.as_deref() == Some(workload.uid.as_str()));
            Ok(Arc::new(
                same.and_then(|meta| meta.annotations).unwrap_or_default(),
            ))
        };
        self.kept.annotations.get(&workload.uid, age, read).await
    }

    async fn meta(&self, of: &WorkloadId) -> Result<Option<ObjectMeta>, ReadError> {
        let Some(resource) = self.kinds.resource(of) else {
            return Ok(None);
        };
        let kind = GroupVersionKind::gvk(&of.group, &of.version, &of.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, resource);
        let client = self.client.clone();
        let api: Api<DynamicObject> = Api::namespaced_with(client, &of.namespace, &resource);
        let found = answered(api.get_metadata_opt(&of.name)).await?;
        Ok(found.map(|object| object.metadata))
    }

    /// The kinds that have pools of their own.
    pub(super) fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Forgets what nobody asked for lately, and the owners that no Pod of this node
    /// has any more.
    pub(super) fn prune(&self, is_owner: impl Fn(&Uid) -> bool) {
        let recent = Age::Within(FORGET_AFTER);
        self.kept.pools.prune(recent);
        self.kept.listings.prune(recent);
        self.kept.namespaces.prune(recent);
        self.kept.nodes.prune(recent);
        self.kept.stateful_sets.prune(recent);
        self.kept.machines.prune(recent);
        self.kept.annotations.prune(recent);
        self.kept.owners.retain(is_owner);
        if let Some(leader) = &self.leader {
            leader.prune(recent);
        }
    }
}

/// The name of a reservation and what it reserves: what can be read of its ranges. An object that
/// can't be read at all must not stop every Pod from starting.
fn reserved_by(guard: DeserializeGuard<SpiderReservedIP>) -> (String, Result<AddrSet, String>) {
    match guard.0 {
        Ok(reservation) => {
            let name = reservation.name_any();
            let (addresses, errors) = convert::reserved(&reservation);
            for error in errors {
                tracing::warn!(reserved = name, %error, "range of a SpiderReservedIP left out");
            }
            (name, Ok(addresses))
        }
        Err(invalid) => (
            invalid.metadata.name.unwrap_or_default(),
            Err(invalid.error),
        ),
    }
}

async fn answered<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, ReadError> {
    match tokio::time::timeout(READ_TIMEOUT, call).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(ReadError::Api(error)),
        Err(_) => Err(ReadError::Timeout(READ_TIMEOUT)),
    }
}
