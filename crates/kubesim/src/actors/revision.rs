//! The templates a `StatefulSet` or `DaemonSet` has had, as `ControllerRevision`s.
//!
//! Owns: finding the revision of the present template, and making or renumbering it. Never does:
//! decide which Pod has which. Invariant: the present template's revision has the highest number.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Resource;
use serde_json::{Value, json};

use super::plan::{Plan, Write};
use super::pods;
use super::world::{Key, World};

/// The label that says which revision a Pod is of.
pub(crate) const LABEL: &str = "controller-revision-hash";
/// Revisions that are kept beside those in use, where the owner doesn't say.
const HISTORY: i32 = 10;

/// The revisions of an owner.
pub(crate) struct Revisions {
    /// That of the present template.
    pub(crate) update: ControllerRevision,
    /// The others, oldest first.
    pub(crate) old: Vec<ControllerRevision>,
}

/// The name of a revision.
pub(crate) fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The short word in it, by which a `DaemonSet` labels its Pods.
pub(crate) fn hash(revision: &ControllerRevision) -> &str {
    pods::label_of(&revision.metadata, LABEL).unwrap_or_default()
}

/// The template of a revision.
pub(crate) fn template(revision: &ControllerRevision) -> PodTemplateSpec {
    let template = revision
        .data
        .as_ref()
        .and_then(|data| data.0.pointer("/spec/template"));
    let template = template.map(|value| serde_json::from_value(value.clone()));
    template.and_then(Result::ok).unwrap_or_default()
}

impl Revisions {
    /// The revisions of `owner`, whose template is `template`; what has to be written goes to `plan`.
    pub(crate) fn of<K: Resource<DynamicType = ()>>(
        world: &World,
        owner: &K,
        template: &PodTemplateSpec,
        plan: &mut Plan,
    ) -> Self {
        let mut old: Vec<ControllerRevision> = world.revisions.owned_by(owner).cloned().collect();
        old.sort_by_key(|revision| (revision.revision, Key::of(revision)));
        let data = data(template);
        let next = old.last().map_or(0, |newest| newest.revision) + 1;
        let same = |r: &ControllerRevision| r.data.as_ref().is_some_and(|d| d.0 == data);
        let Some(at) = old.iter().rposition(same) else {
            let update = make(world, owner, data, next);
            plan.then(Write::Create(update.clone().into()));
            return Self { update, old };
        };
        let mut update = old.remove(at);
        if old
            .last()
            .is_some_and(|newest| newest.revision > update.revision)
        {
            // A template of before is the present one again.
            update.revision = next;
            plan.then(Write::Replace(update.clone().into()));
        }
        Self { update, old }
    }

    /// The revision of this name, if there is one.
    pub(crate) fn named(&self, wanted: &str) -> Option<&ControllerRevision> {
        let mut all = self.old.iter().chain([&self.update]);
        all.find(|revision| name(revision) == wanted)
    }

    /// Deletes the oldest that nobody uses.
    pub(crate) fn forget(
        &self,
        limit: Option<i32>,
        in_use: impl Fn(&ControllerRevision) -> bool,
        plan: &mut Plan,
    ) {
        let limit = usize::try_from(limit.unwrap_or(HISTORY)).unwrap_or_default();
        let idle: Vec<_> = self.old.iter().filter(|r| !in_use(r)).collect();
        let surplus = idle.len().saturating_sub(limit);
        for revision in idle.into_iter().take(surplus) {
            plan.then(Write::Delete(revision.clone().into()));
        }
    }
}

fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({ "spec": { "template": template } })
}

fn make<K: Resource<DynamicType = ()>>(
    world: &World,
    owner: &K,
    data: Value,
    number: i64,
) -> ControllerRevision {
    let meta = owner.meta();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let owner_name = meta.name.clone().unwrap_or_default();
    let bytes = data.to_string().into_bytes();
    let names = (0..i32::MAX).map(|collisions| pods::hash(&bytes, collisions));
    let is_free = |hash: &String| {
        let key = Key::new(&namespace, &format!("{owner_name}-{hash}"));
        world.revisions.get(&key).is_none()
    };
    let hash = names.into_iter().find(is_free).unwrap_or_default();
    let mut made = ObjectMeta {
        name: Some(format!("{owner_name}-{hash}")),
        namespace: meta.namespace.clone(),
        owner_references: Some(vec![pods::controlled_by(owner)]),
        ..ObjectMeta::default()
    };
    pods::label(&mut made, LABEL, &hash);
    ControllerRevision {
        metadata: made,
        data: Some(RawExtension(data)),
        revision: number,
    }
}
