//! Virtual machines of KubeVirt, as far as anybody here reads them: their metadata, and which Pods
//! run one.
//!
//! Owns: how they are asked for. Never does: watch them; a cluster may have none, and then nothing
//! of this is ever read. Invariant: one whose kind is not installed is not there.

use std::collections::BTreeSet;

use ipam::keep::{Machine, MachineKind};
use ipam::name::Uid;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};

use crate::api::names::kubevirt;

fn resource(kind: MachineKind) -> ApiResource {
    let plural = match kind {
        MachineKind::VirtualMachine => "virtualmachines",
        MachineKind::VirtualMachineInstance => "virtualmachineinstances",
    };
    let kind = GroupVersionKind::gvk(kubevirt::GROUP, kubevirt::VERSION, kind.as_str());
    ApiResource::from_gvk_with_plural(&kind, plural)
}

/// The metadata of a machine, live.
///
/// Errors: it could not be read.
pub async fn metadata(
    client: &Client,
    namespace: &str,
    machine: &Machine,
) -> kube::Result<Option<ObjectMeta>> {
    let client = client.clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource(machine.kind));
    let found = api.get_metadata_opt(&machine.name).await?;
    Ok(found.map(|object| object.metadata))
}

/// The uids of the Pods that run an instance, live: of this very one, and none of a namesake.
///
/// Errors: it could not be read.
pub async fn active_pods(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &Uid,
) -> kube::Result<BTreeSet<Uid>> {
    let resource = resource(MachineKind::VirtualMachineInstance);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = api.get_opt(name).await?;
    let found = found.filter(|found| found.metadata.uid.as_deref() == Some(uid.as_str()));
    let pods = found
        .as_ref()
        .and_then(|found| found.data.pointer("/status/activePods")?.as_object());
    Ok(pods
        .into_iter()
        .flat_map(|pods| pods.keys().map(|uid| Uid::from(uid.as_str())))
        .collect())
}

/// The metadata of all machines of a kind as the API server remembers them, which costs no read of
/// its store.
///
/// Errors: they could not be read.
pub async fn all_as_remembered(
    client: &Client,
    kind: MachineKind,
) -> kube::Result<Vec<ObjectMeta>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind));
    match api.list_metadata(&ListParams::default().match_any()).await {
        Ok(found) => Ok(found.into_iter().map(|object| object.metadata).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
