//! Endpoints on their way out that nobody will let go: no pool records their Pod any more, and their
//! finalizer stays.
//!
//! Owns: finding them, and taking their finalizer off. The original's agent leaves one where it dies
//! between its two writes of a release; its Namespace then never ends. Never does: free an address
//! (where a pool records the Pod, the record's release takes the endpoint along), or touch one whose
//! deletion nobody asked for. Invariant: goes only what had no Pod of its name by a live read.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipam::name::PodName;
use ipam::record::{Records, RecordsError};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;

use super::Gc;
use crate::api::{SpiderEndpoint, SpiderIPPool, names};
use crate::error::ErrorChain;
use crate::kube_io::cache::Key;
use crate::kube_io::endpoint::{self, RemoveError};
use crate::kube_io::page;

impl Gc<'_> {
    /// Lets such endpoints go. What fails is found again by the next look.
    ///
    /// Cost: the metadata of all endpoints, a page at a time.
    pub(super) async fn let_stray_go(&self) {
        let found = match self.stray().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "SpiderEndpoints could not be listed; the next look does it");
                return;
            }
        };
        for pod in found {
            match self.let_go(&pod).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(%pod, "SpiderEndpoint let go: it was deleted, its Pod is gone, and no IPPool records it");
                }
                Err(error) => {
                    tracing::warn!(%pod, error = %ErrorChain(&error), "SpiderEndpoint of a Pod that is gone not let go; the next look does it");
                }
            }
        }
    }

    /// The names of those that seem to be such, by a list and the caches. The list comes first: a
    /// Pod is recorded before it has an endpoint.
    async fn stray(&self) -> Result<Vec<PodName>, kube::Error> {
        let api: Api<SpiderEndpoint> = Api::all(self.clients.read.clone());
        let mut goes = Vec::new();
        let mut next = Some(page::first());
        while let Some(params) = next {
            let list = api.list_metadata(&params).await?;
            goes.extend(list.items.iter().filter_map(|found| going(&found.metadata)));
            next = page::after(&list.metadata);
        }
        if goes.is_empty() {
            return Ok(goes);
        }
        let Ok(recorded) = recorded(&self.writer.pools.list()) else {
            return Ok(vec![]); // who has what is not known; the pool itself is complained of elsewhere
        };
        goes.retain(|pod| {
            let (namespace, name) = pod.parts();
            let lives = self.pods.get(&Key::namespaced(namespace, name)).is_some();
            !lives && !recorded.contains(pod)
        });
        Ok(goes)
    }

    /// Lets one go, unless there is a Pod of its name after all; whether it did.
    async fn let_go(&self, pod: &PodName) -> Result<bool, RemoveError> {
        let (namespace, name) = pod.parts();
        let pods: Api<Pod> = Api::namespaced(self.clients.read.clone(), namespace);
        if pods.get_metadata_opt(name).await?.is_some() {
            return Ok(false);
        }
        let endpoints: Api<SpiderEndpoint> = Api::namespaced(self.clients.read.clone(), namespace);
        let Some(there) = endpoints.get_opt(name).await? else {
            return Ok(false);
        };
        if going(&there.metadata).is_none() {
            return Ok(false);
        }
        endpoint::remove(&self.writer.client, there).await?;
        Ok(true)
    }
}

/// The names under which endpoints of recorded Pods stand: the Pods', or their machines'.
fn recorded(pools: &[Arc<SpiderIPPool>]) -> Result<BTreeSet<PodName>, RecordsError> {
    let mut names = BTreeSet::new();
    for pool in pools {
        let status = pool.status.as_ref();
        let records = Records::parse(status.and_then(|s| s.allocated_ips.as_deref()))?;
        for (_, record) in records.iter() {
            let machine = record.machine.as_ref();
            names.extend(machine.map(|machine| PodName::new(record.pod.parts().0, &machine.name)));
            names.insert(record.pod.clone());
        }
    }
    Ok(names)
}

/// The name of an endpoint that was deleted and that only our finalizer keeps.
fn going(endpoint: &ObjectMeta) -> Option<PodName> {
    endpoint.deletion_timestamp.as_ref()?;
    let ours = [names::FINALIZER.to_owned()];
    let is_ours_alone = endpoint.finalizers.as_deref() == Some(&ours);
    let name = PodName::new(endpoint.namespace.as_deref()?, endpoint.name.as_deref()?);
    is_ours_alone.then_some(name)
}
