//! The garbage collector: what nobody owns any more goes.
//!
//! Owns: the deletion of objects all of whose owners are gone, and the two finalizers by which an
//! owner waits for its dependents (`foregroundDeletion`, `orphan`; of workloads only). Looks at the
//! kinds of [`World`]; an owner may be of any. Invariant: nothing is deleted on the word of a copy: the
//! owner is asked for by a live call first.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use kube::api::ApiResource;

use super::plan::{Pass, Plan, Write};
use super::runner::Actor;
use super::world::{Change, Key, Object, World};

/// Waits until dependents that block it are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Waits until no dependent names it any more.
const ORPHAN: &str = "orphan";

/// The actor. Its keys have the kind before the name.
pub(crate) const ACTOR: Actor = Actor {
    name: "garbage-collector-controller",
    concerns,
    plan,
};

fn key(kind: &str, namespace: &str, name: &str) -> Key {
    Key::new(namespace, &format!("{kind}/{name}"))
}

fn concerns(_: &World, change: &Change) -> Vec<Key> {
    let namespace = &change.key.namespace;
    let own = key(&change.kind, namespace, &change.key.name);
    let owner = change.controller.as_ref();
    let owner = owner.map(|(kind, name)| key(kind, namespace, name));
    [own].into_iter().chain(owner).collect()
}

fn plan(world: &World, key: &Key, _: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some((kind, name)) = key.name.split_once('/') else {
        return plan;
    };
    let ours = world.objects(&key.namespace);
    let others = world
        .others
        .iter()
        .filter(|((_, other), _)| other.namespace == key.namespace);
    let members = ours
        .iter()
        .map(|o| (o.kind().to_owned(), o.resource(), o.meta()));
    let others = others.map(|((kind, _), o)| (kind.clone(), o.resource.clone(), &o.meta));
    let members: Vec<(String, ApiResource, &ObjectMeta)> = members.chain(others).collect();
    let is_it = |(of, _, meta): &&(String, ApiResource, &ObjectMeta)| {
        of == kind && meta.name.as_deref() == Some(name)
    };
    if let Some((_, resource, meta)) = members.iter().find(is_it) {
        collect(resource, meta, &members, &mut plan);
        if let Some(owner) = ours.iter().find(|o| o.meta().uid == meta.uid) {
            settle(owner, &ours, &mut plan);
        }
        return plan;
    }
    let named = |owner: &OwnerReference| owner.kind == kind && owner.name == name;
    for (_, resource, meta) in &members {
        if owners(meta).iter().any(named) {
            collect(resource, meta, &members, &mut plan);
        }
    }
    plan
}

fn owners(meta: &ObjectMeta) -> &[OwnerReference] {
    meta.owner_references.as_deref().unwrap_or_default()
}

fn depends_on(object: &Object, owner: &Object) -> bool {
    let uid = owner.meta().uid.as_deref();
    owners(object.meta())
        .iter()
        .any(|o| Some(o.uid.as_str()) == uid)
}

/// Deletes the object if it has owners and none of them is among those seen.
fn collect(
    resource: &ApiResource,
    meta: &ObjectMeta,
    within: &[(String, ApiResource, &ObjectMeta)],
    plan: &mut Plan,
) {
    let is_there = |owner: &OwnerReference| {
        within
            .iter()
            .any(|(_, _, meta)| meta.uid.as_deref() == Some(owner.uid.as_str()))
    };
    let owners = owners(meta);
    let going = meta.deletion_timestamp.is_some();
    if !going && !owners.is_empty() && !owners.iter().any(is_there) {
        plan.then(Write::Collect {
            resource: resource.clone(),
            meta: Box::new(meta.clone()),
        });
    }
}

/// Does what an owner that is being deleted waits for, then lets it go.
fn settle(owner: &Object, within: &[Object], plan: &mut Plan) {
    let waits = |name: &str| owner.meta().finalizers.iter().flatten().any(|f| f == name);
    if owner.meta().deletion_timestamp.is_none() {
        return;
    }
    let dependents: Vec<&Object> = within.iter().filter(|o| depends_on(o, owner)).collect();
    if waits(ORPHAN) {
        for dependent in dependents {
            let mut free = dependent.clone();
            let uid = owner.meta().uid.clone().unwrap_or_default();
            free.meta_mut()
                .owner_references
                .get_or_insert_default()
                .retain(|o| o.uid != uid);
            plan.then(Write::Replace(free));
        }
        return plan.then(Write::Replace(without(owner, ORPHAN)));
    }
    if !waits(FOREGROUND) {
        return;
    }
    for dependent in dependents
        .iter()
        .filter(|d| d.meta().deletion_timestamp.is_none())
    {
        let has_dependents = within.iter().any(|o| depends_on(o, dependent));
        plan.then(match (*dependent).clone() {
            owner if has_dependents => Write::DeleteForeground(owner),
            last => Write::Delete(last),
        });
    }
    let uid = owner.meta().uid.as_deref();
    let blocks = |dependent: &&&Object| {
        let mut owners = owners(dependent.meta()).iter();
        owners.any(|o| Some(o.uid.as_str()) == uid && o.block_owner_deletion == Some(true))
    };
    if dependents.iter().find(blocks).is_none() {
        plan.then(Write::Replace(without(owner, FOREGROUND)));
    }
}

fn without(object: &Object, finalizer: &str) -> Object {
    let mut free = object.clone();
    free.meta_mut()
        .finalizers
        .get_or_insert_default()
        .retain(|f| f != finalizer);
    free
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::super::pods;
    use super::super::pods::tests::{owner, pod};
    use super::super::runner::stream;
    use super::*;

    fn planned(world: &World, kind: &str, name: &str) -> Vec<String> {
        let mut pass = Pass {
            now: Timestamp::UNIX_EPOCH,
            rng: &mut stream(1, "gc"),
            refused: None,
        };
        let plan = plan(world, &key(kind, "ns", name), &mut pass);
        let told = plan.writes().into_iter().map(|write| match write {
            Write::Collect { resource, .. } => format!("collect {}", resource.kind),
            Write::Delete(o) => format!("delete {}", o.kind()),
            Write::DeleteForeground(o) => format!("delete {} in the foreground", o.kind()),
            Write::Replace(o) => {
                let (owners, finalizers) = (owners(o.meta()).len(), o.meta().finalizers.clone());
                format!(
                    "{}: {owners} {:?}",
                    o.kind(),
                    finalizers.unwrap_or_default()
                )
            }
            other => format!("{other:?}"),
        });
        told.collect()
    }

    fn family() -> (Deployment, ReplicaSet) {
        let deployment: Deployment = owner("web");
        let mut set: ReplicaSet = owner("web-1");
        set.metadata.owner_references = Some(vec![pods::controlled_by(&deployment)]);
        (deployment, set)
    }

    #[test]
    fn what_lost_its_owner_goes_and_nothing_else() {
        let (deployment, set) = family();
        let world = World::default().with(pod(&set, "p", "Running")).with(set);
        assert_eq!(planned(&world, "Deployment", "web"), ["collect ReplicaSet"]);
        assert_eq!(
            planned(&world, "ReplicaSet", "web-1"),
            ["collect ReplicaSet"]
        );
        assert_eq!(planned(&world, "Pod", "p"), Vec::<String>::new());
        let world = world.with(deployment);
        assert_eq!(planned(&world, "ReplicaSet", "web-1"), Vec::<String>::new());
    }

    #[test]
    fn an_owner_in_the_foreground_waits_for_what_blocks_it() {
        let (mut deployment, set) = family();
        deployment.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        deployment.metadata.finalizers = Some(vec![FOREGROUND.into()]);
        let world = World::default().with(deployment.clone()).with(set.clone());
        assert_eq!(planned(&world, "Deployment", "web"), ["delete ReplicaSet"]);
        let world = world.with(pod(&set, "p", "Running"));
        assert_eq!(
            planned(&world, "Deployment", "web"),
            ["delete ReplicaSet in the foreground"]
        );
        let alone = World::default().with(deployment);
        assert_eq!(planned(&alone, "Deployment", "web"), ["Deployment: 0 []"]);
    }

    #[test]
    fn orphans_stay() {
        let (mut deployment, set) = family();
        deployment.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        deployment.metadata.finalizers = Some(vec![ORPHAN.into()]);
        let world = World::default().with(deployment).with(set);
        assert_eq!(
            planned(&world, "Deployment", "web"),
            ["ReplicaSet: 0 []", "Deployment: 0 []"]
        );
    }
}
