//! What a plan is made on: the objects of a cluster, or of manifests.
//!
//! Owns: reading both, and what the API server would add to a manifest. Never does: change them;
//! that is [`super::change`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};
use ipam::annotation::SizeRule;
use ipam::kind::{Kinds, OtherKind};
use ipam::name::stable_hash;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::DynamicObject;
use kube::core::ObjectMeta;
use kube::{Resource as _, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, names};
use crate::cli::connection::{ClusterError, Connection, Listing};
use crate::controller::workload::other::{self, Layout, Other};
use crate::controller::workload::{self, Seen, Workload};

/// End of the uid of an object that is not made yet: the API server will give it another, and with
/// it five other characters to the name of its pool.
const UNKNOWN_UID: &str = "xxxxx";

/// Everything that a plan looks at.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    pub(super) subnets: Vec<SpiderSubnet>,
    pub(super) pools: Vec<SpiderIPPool>,
    pub(super) reserved: Vec<SpiderReservedIP>,
    pub(super) workloads: Vec<Load>,
    pub(super) pods: Vec<Pod>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) nodes: Vec<Node>,
    /// Kinds of workloads of which there may be more than is known.
    pub(super) unlisted: Vec<OtherKind>,
    /// What could not be read, or says nothing to a plan: sentences for people.
    pub(super) notes: Vec<String>,
}

/// A workload of any kind.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// As the controller sees it.
    pub(super) seen: Seen,
    /// Path of the object at the API server.
    pub(super) path: String,
    /// Its metadata.
    pub(super) meta: ObjectMeta,
    /// Metadata of its Pods.
    pub(super) template: ObjectMeta,
    /// Whether its Pods ask for addresses at all.
    pub(super) asks: bool,
    /// How many Pods it runs.
    pub(super) pods: u32,
}

impl Load {
    fn of<W>(object: &W, rule: SizeRule) -> Self
    where
        W: Workload + kube::Resource<DynamicType = ()>,
    {
        let folder = W::url_path(&(), object.meta().namespace.as_deref());
        let seen = workload::seen(object, rule);
        Self::new(seen, &folder, object, object.meta())
    }

    fn of_other(object: &DynamicObject, kind: &OtherKind, rule: SizeRule) -> Self {
        let folder =
            DynamicObject::url_path(&other::resource(kind), object.metadata.namespace.as_deref());
        let (id, meta) = (other::id(object, kind), &object.metadata);
        // Where a definition says something else, nobody reads it here.
        let workload = Other::read(object, &Layout::conventional());
        let seen = workload::seen_as(id, meta, &workload, rule);
        Self::new(seen, &folder, &workload, meta)
    }

    fn new<W: Workload>(seen: Seen, folder: &str, object: &W, meta: &ObjectMeta) -> Self {
        let template = object.template();
        let spec = template.and_then(|t| t.spec.as_ref());
        let on_host = spec.and_then(|s| s.host_network) == Some(true);
        Self {
            path: format!("{folder}/{}", seen.id.name),
            meta: meta.clone(),
            template: template
                .and_then(|t| t.metadata.clone())
                .unwrap_or_default(),
            asks: !on_host && !object.has_ended(),
            pods: seen.replicas,
            seen,
        }
    }
}

/// What the manifests had until here.
#[derive(Default)]
struct ReadSoFar {
    /// Kinds that do not matter.
    others: BTreeSet<String>,
    /// Where each object is.
    places: BTreeMap<String, String>,
}

impl ReadSoFar {
    /// Errors: the object was there before; which of both would be meant?
    fn note(&mut self, place: &str, object: &Value, group: &str) -> anyhow::Result<()> {
        let kind = text_at(object, "/kind");
        let namespace = text_at(object, "/metadata/namespace");
        let name = text_at(object, "/metadata/name");
        let full = format!("{kind}.{group} {namespace}/{name}");
        match self.places.insert(full, place.to_owned()) {
            Some(before) => {
                bail!("{kind} {name} is twice in the manifests: in {before} and {place}")
            }
            None => Ok(()),
        }
    }
}

/// Where objects come from, besides themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults<'a> {
    /// Namespace of objects that name none.
    pub(super) namespace: &'a str,
    /// Size rule of workloads that name none.
    pub(super) rule: SizeRule,
    /// The kinds of workloads that get pools.
    pub(super) kinds: &'a Kinds,
}

impl Objects {
    /// The objects of a cluster.
    ///
    /// Errors: what the API server refuses, with its remedy.
    pub(super) async fn of_cluster(
        connection: &Connection,
        rule: SizeRule,
        kinds: &Kinds,
    ) -> Result<Self, ClusterError> {
        let mut objects = Self::default();
        // Pools before ledgers: what a pool receives meanwhile was in the ledger first.
        objects.pools = objects.listed(connection.list().await?);
        objects.subnets = objects.listed(connection.list().await?);
        objects.reserved = objects.listed(connection.list().await?);
        objects.load::<Deployment>(connection, rule).await?;
        objects.load::<ReplicaSet>(connection, rule).await?;
        objects.load::<StatefulSet>(connection, rule).await?;
        objects.load::<DaemonSet>(connection, rule).await?;
        objects.load::<Job>(connection, rule).await?;
        objects.load::<CronJob>(connection, rule).await?;
        for kind in kinds.others() {
            objects.load_others(connection, kind, rule).await?;
        }
        objects.pods = objects.listed(connection.list().await?);
        objects.namespaces = objects.listed(connection.list().await?);
        objects.nodes = objects.listed(connection.list().await?);
        Ok(objects)
    }

    async fn load<W>(&mut self, connection: &Connection, rule: SizeRule) -> Result<(), ClusterError>
    where
        W: Workload + kube::Resource<DynamicType = ()>,
        W: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let found = self.listed::<W>(connection.list().await?);
        self.workloads
            .extend(found.iter().map(|object| Load::of(object, rule)));
        Ok(())
    }

    /// Workloads of a kind that may not be installed, or not be this person's to read.
    async fn load_others(
        &mut self,
        connection: &Connection,
        kind: &OtherKind,
        rule: SizeRule,
    ) -> Result<(), ClusterError> {
        let resource = other::resource(kind);
        let found = match connection.list_of::<DynamicObject>(&resource).await {
            Ok(listing) => listing.objects,
            Err(ClusterError::NoKind { .. }) => vec![],
            Err(error @ ClusterError::Forbidden { .. }) => {
                let kind_name = kind.definition();
                self.notes.push(format!(
                    "{kind_name} are left out, and their pools stay as they are: {error}"
                ));
                self.unlisted.push(kind.clone());
                vec![]
            }
            Err(error) => return Err(error),
        };
        let loads = found
            .iter()
            .map(|object| Load::of_other(object, kind, rule));
        self.workloads.extend(loads);
        Ok(())
    }

    fn listed<K: kube::Resource<DynamicType = ()>>(&mut self, listing: Listing<K>) -> Vec<K> {
        for (name, error) in listing.malformed {
            let kind = K::kind(&());
            self.notes.push(format!(
                "{kind} {name} is left out, it can't be read: {error}"
            ));
        }
        listing.objects
    }

    /// The objects of manifests: YAML or JSON, several in a text, lists too.
    ///
    /// Errors: a text that is none, or an object that is not of its kind; with its place.
    pub(super) fn of_manifests(
        texts: &[(String, String)],
        defaults: Defaults<'_>,
    ) -> anyhow::Result<Self> {
        let mut objects = Self::default();
        let mut read_so_far = ReadSoFar::default();
        let mut later = vec![];
        for (place, text) in texts {
            let read: Vec<Value> = serde_saphyr::from_multiple(text)
                .map_err(|e| anyhow::anyhow!("{place} is no YAML: {e}"))?;
            for object in read.into_iter().flat_map(items) {
                let kind = text_at(&object, "/kind");
                if kind == "DaemonSet" {
                    // How many Pods it has depends on how many Nodes there are.
                    later.push((place, object));
                } else {
                    objects.add(place, object, defaults, &mut read_so_far)?;
                }
            }
        }
        for (place, object) in later {
            objects.add(place, object, defaults, &mut read_so_far)?;
        }
        if !read_so_far.others.is_empty() {
            let others: Vec<String> = read_so_far.others.into_iter().collect();
            objects.notes.push(format!(
                "left out, no addresses depend on them: {}",
                others.join(", ")
            ));
        }
        Ok(objects)
    }

    fn add(
        &mut self,
        place: &str,
        mut object: Value,
        defaults: Defaults<'_>,
        so_far: &mut ReadSoFar,
    ) -> anyhow::Result<()> {
        let kind = text_at(&object, "/kind");
        let (group, version) = match text_at(&object, "/apiVersion").split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), text_at(&object, "/apiVersion")),
        };
        let name = text_at(&object, "/metadata/name");
        if kind.is_empty() || name.is_empty() {
            bail!("{place}: an object without kind or metadata.name");
        }
        let here = (place, name.as_str());
        let namespaced = group != names::GROUP && kind != "Namespace" && kind != "Node";
        complete(
            &mut object,
            &kind,
            &name,
            namespaced.then_some(defaults.namespace),
        );
        so_far.note(place, &object, &group)?;
        let rule = defaults.rule;
        match (group.as_str(), version.as_str(), kind.as_str()) {
            (names::GROUP, names::VERSION, names::KIND_SUBNET) => {
                self.subnets.push(typed(object, here, &mut self.notes)?);
            }
            (names::GROUP, names::VERSION, names::KIND_POOL) => {
                self.pools.push(typed(object, here, &mut self.notes)?);
            }
            (names::GROUP, names::VERSION, names::KIND_RESERVED_IP) => {
                self.reserved.push(typed(object, here, &mut self.notes)?);
            }
            ("apps", "v1", "Deployment") => self.manifest::<Deployment>(object, here, rule)?,
            ("apps", "v1", "ReplicaSet") => self.manifest::<ReplicaSet>(object, here, rule)?,
            ("apps", "v1", "StatefulSet") => self.manifest::<StatefulSet>(object, here, rule)?,
            ("apps", "v1", "DaemonSet") => {
                if object.pointer("/status/desiredNumberScheduled").is_none() {
                    object["status"]["desiredNumberScheduled"] = json!(self.nodes.len());
                    let counted = self.nodes.len();
                    self.notes.push(format!(
                        "DaemonSet {name} is counted with a Pod on each Node of the manifests: {counted}"
                    ));
                }
                self.manifest::<DaemonSet>(daemon_set(object), here, rule)?;
            }
            ("batch", "v1", "Job") => self.manifest::<Job>(object, here, rule)?,
            ("batch", "v1", "CronJob") => self.manifest::<CronJob>(object, here, rule)?,
            ("", "v1", "Pod") => {
                self.pods.push(typed(object, here, &mut self.notes)?);
            }
            ("", "v1", "Namespace") => {
                self.namespaces.push(typed(object, here, &mut self.notes)?);
            }
            ("", "v1", "Node") => {
                self.nodes.push(typed(object, here, &mut self.notes)?);
            }
            _ => match defaults.kinds.other(&group, &kind) {
                Some(other) => {
                    let object: DynamicObject = typed(object, here, &mut self.notes)?;
                    self.workloads.push(Load::of_other(&object, other, rule));
                }
                None => {
                    so_far.others.insert(kind);
                }
            },
        }
        Ok(())
    }

    fn manifest<W: Workload + kube::Resource<DynamicType = ()> + DeserializeOwned>(
        &mut self,
        object: Value,
        here: (&str, &str),
        rule: SizeRule,
    ) -> anyhow::Result<()> {
        let object: W = typed(object, here, &mut self.notes)?;
        self.workloads.push(Load::of(&object, rule));
        Ok(())
    }

    /// True where there is nothing to plan.
    pub(super) fn is_empty(&self) -> bool {
        self.subnets.is_empty() && self.pools.is_empty() && self.workloads.is_empty()
    }

    /// A Namespace for each that objects name and manifests do not have: it will be there.
    pub(super) fn with_namespaces(mut self) -> Self {
        let have: Vec<String> = self.namespaces.iter().map(ResourceExt::name_any).collect();
        let mut named: Vec<&str> = self
            .workloads
            .iter()
            .map(|load| load.seen.id.namespace.as_str())
            .filter(|namespace| !have.iter().any(|h| h == namespace))
            .collect();
        named.sort_unstable();
        named.dedup();
        let new: Vec<Namespace> = named
            .into_iter()
            .map(|name| Namespace {
                metadata: ObjectMeta {
                    name: Some(name.to_owned()),
                    ..ObjectMeta::default()
                },
                ..Namespace::default()
            })
            .collect();
        self.namespaces.extend(new);
        self
    }
}

/// The texts at `path`: a file, every manifest of a folder, or standard input for `-`.
///
/// Errors: what can't be read.
pub(super) fn texts(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    if path.as_os_str() == "-" {
        let text =
            std::io::read_to_string(std::io::stdin()).context("standard input can't be read")?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let unreadable = || format!("{} can't be read", path.display());
    let mut files = vec![path.to_owned()];
    if std::fs::metadata(path).with_context(unreadable)?.is_dir() {
        let entries = std::fs::read_dir(path).with_context(unreadable)?;
        files = entries
            .map(|e| e.map(|e| e.path()))
            .collect::<Result<_, _>>()
            .with_context(unreadable)?;
        files.retain(|file| {
            let ending = file.extension().and_then(|e| e.to_str());
            ending.is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
        });
        files.sort();
        if files.is_empty() {
            bail!(
                "{} has no file that ends in .yaml, .yml or .json",
                path.display()
            );
        }
    }
    let read = files.into_iter().map(|file| {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("{} can't be read", file.display()))?;
        Ok((file.display().to_string(), text))
    });
    read.collect()
}

/// The objects of a list, or the object.
fn items(mut object: Value) -> Vec<Value> {
    if object.is_null() {
        return vec![];
    }
    let is_list = text_at(&object, "/kind").ends_with("List");
    match object.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        _ => vec![object],
    }
}

/// What the API server would add: namespace, uid, version.
fn complete(object: &mut Value, kind: &str, name: &str, namespace: Option<&str>) {
    if let Some(namespace) = namespace
        && text_at(object, "/metadata/namespace").is_empty()
    {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let namespace = text_at(object, "/metadata/namespace");
    if text_at(object, "/metadata/uid").is_empty() {
        let hash = stable_hash(&format!("{kind}/{namespace}/{name}"));
        object["metadata"]["uid"] = json!(format!("{hash}-{UNKNOWN_UID}"));
    }
    if text_at(object, "/metadata/resourceVersion").is_empty() {
        object["metadata"]["resourceVersion"] = json!("1");
    }
}

/// The rest of its status, which has required fields.
fn daemon_set(mut object: Value) -> Value {
    for field in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "numberReady",
    ] {
        let field = &mut object["status"][field];
        if field.is_null() {
            *field = json!(0);
        }
    }
    object
}

fn text_at(object: &Value, pointer: &str) -> String {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

/// An object of its kind; fields that the kind does not have are noted: `kubectl` refuses them.
fn typed<T: DeserializeOwned>(
    object: Value,
    (place, name): (&str, &str),
    notes: &mut Vec<String>,
) -> anyhow::Result<T> {
    let kind = text_at(&object, "/kind");
    let mut unknown = |path: serde_ignored::Path<'_>| {
        // Optional parents are marked by question marks.
        let path = path.to_string().replace(".?", "");
        if path == "apiVersion" || path == "kind" {
            return; // types of our own know theirs without
        }
        notes.push(format!(
            "{place}: {kind} {name} has no field {path}: it is ignored"
        ));
    };
    serde_ignored::deserialize(object, &mut unknown)
        .map_err(|e| anyhow::anyhow!("{place}: {kind} {name}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Objects> {
        let defaults = Defaults {
            namespace: "default",
            rule: SizeRule::Flexible(1),
            kinds: &Kinds::default(),
        };
        Objects::of_manifests(&[("here.yaml".to_owned(), text.to_owned())], defaults)
    }

    #[test]
    fn several_objects_lists_and_kinds_that_do_not_matter_are_read() {
        let text = "
kind: List
apiVersion: v1
items:
- {kind: Node, apiVersion: v1, metadata: {name: n1}}
- {kind: Service, apiVersion: v1, metadata: {name: s}}
---
# nothing
---
kind: DaemonSet
apiVersion: apps/v1
metadata: {name: d, namespace: shop}
spec: {selector: {}, template: {spec: {containers: []}}}
";
        let objects = read(text).unwrap().with_namespaces();
        assert_eq!((objects.nodes.len(), objects.workloads.len()), (1, 1));
        assert_eq!(objects.workloads[0].pods, 1);
        assert_eq!(objects.namespaces[0].name_any(), "shop");
        assert!(
            objects.notes.iter().any(|n| n.ends_with("Service")),
            "{:?}",
            objects.notes
        );
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_told_with_its_place() {
        let refused = |text: &str| read(text).unwrap_err().to_string();
        let text = "{kind: SpiderSubnet, apiVersion: spiderpool.spidernet.io/v2beta1, metadata: {name: net}, spec: {subnet: 4}}";
        assert!(
            refused(text).starts_with("here.yaml: SpiderSubnet net: "),
            "{}",
            refused(text)
        );
        assert!(refused("a: [").starts_with("here.yaml is no YAML"));
        assert!(refused("{kind: Pod}").contains("without kind or metadata.name"));
        let twice = "{kind: Pod, apiVersion: v1, metadata: {name: p}}";
        assert_eq!(
            refused(&format!("{twice}\n---\n{twice}")),
            "Pod p is twice in the manifests: in here.yaml and here.yaml"
        );
    }

    #[test]
    fn a_field_that_the_kind_does_not_have_is_told_of() {
        let text = "{kind: Deployment, apiVersion: apps/v1, metadata: {name: web}, spec: {replcas: 3, selector: {}, template: {spec: {containers: [{name: c, imag: i}]}}}}";
        let notes = read(text).unwrap().notes;
        let said = "here.yaml: Deployment web has no field";
        let fields = ["spec.replcas", "spec.template.spec.containers.0.imag"];
        let expected = fields.map(|field| format!("{said} {field}: it is ignored"));
        assert_eq!(notes, expected);
    }

    #[test]
    fn an_object_that_is_not_made_yet_has_a_uid_that_shows_it() {
        let text = "{kind: Deployment, apiVersion: apps/v1, metadata: {name: web}, spec: {selector: {}, template: {}}}";
        let objects = read(text).unwrap();
        let id = &objects.workloads[0].seen.id;
        assert!(id.uid.as_str().ends_with("-xxxxx"), "{}", id.uid);
        assert_eq!(id.namespace, "default");
    }
}
