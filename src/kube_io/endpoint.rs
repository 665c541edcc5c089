//! Endpoints that outlive their Pods, taken away.
//!
//! Owns: the one way to delete a `SpiderEndpoint` that our finalizer, or the original's, keeps. Never does:
//! decide that it may go. Invariant: only the very object that was read goes.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use super::put::{self, Part, PutError, Reply};
use super::retry::{Outcome, classify};
use crate::api::{SpiderEndpoint, names};

/// Why an endpoint may still be there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The API server did not read or delete it.
    #[error("could not read or delete the SpiderEndpoint")]
    Call(#[from] kube::Error),
    /// Its finalizer was not removed.
    #[error("could not take the finalizer off the SpiderEndpoint")]
    Put(#[from] PutError),
}

/// Uid of the Pod that the endpoint tells of.
pub fn pod_uid(endpoint: &SpiderEndpoint) -> Option<&str> {
    Some(endpoint.status.as_ref()?.current.uid.as_str())
}

/// True where a finalizer has the endpoint outlive its Pod.
pub fn outlives(endpoint: &SpiderEndpoint) -> bool {
    endpoint.finalizers().iter().any(|f| f == names::FINALIZER)
}

/// Deletes the endpoint, and the finalizer that would keep it.
///
/// `client` must repeat no write by itself. Errors: [`RemoveError`]; one that is gone is none.
pub async fn remove(client: &Client, mut old: SpiderEndpoint) -> Result<(), RemoveError> {
    if outlives(&old) {
        old.finalizers_mut().retain(|f| f != names::FINALIZER);
        match put::replace(client, Part::Main, &mut old, Reply::MetadataOnly).await {
            Err(error) if error.outcome() == Outcome::Gone => return Ok(()),
            replaced => replaced?,
        }
    }
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: old.uid(),
        ..Preconditions::default()
    });
    let namespace = old.namespace().unwrap_or_default();
    let api: Api<SpiderEndpoint> = Api::namespaced(client.clone(), &namespace);
    match api.delete(&old.name_any(), &params).await {
        Err(error) if classify(&error) != Outcome::Gone => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Removes the endpoint of this name if it would outlive Pod `uid`, whose addresses nobody wants any
/// more: also one that tells of a former Pod of the name still, where its writer died before it told
/// of `uid`; but none that tells of the Pod that has the name now.
///
/// Errors: [`RemoveError`].
pub async fn remove_of(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), RemoveError> {
    let api: Api<SpiderEndpoint> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await? {
        Some(there) if outlives(&there) => {
            if pod_uid(&there) == Some(uid) || !tells_of_now(client, &there).await? {
                remove(client, there).await?;
            }
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether it tells of the Pod that has its name now, by a live read.
async fn tells_of_now(client: &Client, there: &SpiderEndpoint) -> Result<bool, kube::Error> {
    let namespace = there.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let now = pods.get_metadata_opt(&there.name_any()).await?;
    Ok(now.is_some_and(|pod| pod.metadata.uid.as_deref() == pod_uid(there)))
}
