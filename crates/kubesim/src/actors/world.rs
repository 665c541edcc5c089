//! What the actors know: an ordered copy of each kind they look at.
//!
//! Owns: the copies, the feeding of them by watches and by the answers to our own writes, and the
//! waking of actors. Never does: decide what a change means, or call the API server except to list
//! and watch. Invariants: iteration is by namespace and name, so a run can be repeated; an actor
//! sees its own writes at once (the real controllers' "expectations"); a version never goes back.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
use kube_runtime::watcher::{self, Event};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::queue::Queue;

/// Pause after a list or watch that failed.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// Namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Namespace, empty for cluster-scoped kinds.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    /// The key of an object in a namespace; `""` for none.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of this object.
    pub(crate) fn of(object: &impl Resource) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// An object came, changed or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Its kind, as in manifests.
    pub(crate) kind: String,
    /// Which.
    pub(crate) key: Key,
    /// Kind and name of its controller, before or after the change.
    pub(crate) controller: Option<(String, String)>,
}

impl Change {
    fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let owners = object.meta().owner_references.iter().flatten();
        let controller = owners
            .filter(|owner| owner.controller == Some(true))
            .map(|owner| (owner.kind.clone(), owner.name.clone()))
            .next();
        Self {
            kind: K::kind(&()).into_owned(),
            key: Key::of(object),
            controller,
        }
    }

    /// The object's own key where it is of `kind`, its controller's key where that is.
    pub(crate) fn concerns(&self, kind: &str) -> Option<Key> {
        if self.kind == kind {
            return Some(self.key.clone());
        }
        let (controller, name) = self.controller.as_ref()?;
        (controller == kind).then(|| Key::new(&self.key.namespace, name))
    }
}

/// The copy of one kind.
#[derive(Debug)]
pub(crate) struct Store<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Newest version that the watch has delivered: what it passed it would have told.
    seen: u64,
    listing: Option<BTreeMap<Key, Arc<K>>>,
    synced: bool,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            seen: 0,
            listing: None,
            synced: false,
        }
    }
}

fn version(object: &impl Resource) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version.and_then(|v| v.parse().ok()).unwrap_or_default()
}

impl<K: Resource<DynamicType = ()>> Store<K> {
    /// The object, if it is there.
    pub(crate) fn get(&self, key: &Key) -> Option<&K> {
        self.objects.get(key).map(AsRef::as_ref)
    }

    /// All objects, by namespace and name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &K> {
        self.objects.values().map(AsRef::as_ref)
    }

    /// The objects of a namespace, by name.
    pub(crate) fn within(&self, namespace: &str) -> impl Iterator<Item = &K> {
        self.objects
            .range(Key::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.as_ref())
    }

    /// The objects whose controller is `owner`, by name.
    pub(crate) fn owned_by(&self, owner: &impl Resource) -> impl Iterator<Item = &K> {
        let uid = owner.meta().uid.clone().unwrap_or_default();
        let namespace = owner.meta().namespace.clone().unwrap_or_default();
        let from = Key::new(&namespace, "");
        self.objects
            .range(from..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.as_ref())
            .filter(move |object| {
                let mut owners = object.meta().owner_references.iter().flatten();
                owners.any(|o| o.controller == Some(true) && o.uid == uid)
            })
    }

    fn watched(&mut self, event: Event<K>) -> Vec<Change> {
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                self.seen = self.seen.max(version(&object));
                if let Some(listing) = &mut self.listing {
                    listing.insert(Key::of(&object), Arc::new(object));
                }
            }
            Event::InitDone => return self.replace(),
            Event::Apply(object) => {
                self.seen = self.seen.max(version(&object));
                return self.put(object).into_iter().collect();
            }
            Event::Delete(object) => {
                self.seen = self.seen.max(version(&object));
                let newer = |known: &Arc<K>| version(known.as_ref()) > version(&object);
                if !self.objects.get(&Key::of(&object)).is_some_and(newer) {
                    self.objects.remove(&Key::of(&object));
                }
                return vec![Change::of(&object)];
            }
        }
        Vec::new()
    }

    /// Takes a complete list in place of everything. What only our own writes told is dropped too:
    /// the watch tells it again if it is still there, and a ghost would stay for ever.
    fn replace(&mut self) -> Vec<Change> {
        self.synced = true;
        let listed = self.listing.take().unwrap_or_default();
        let before = std::mem::replace(&mut self.objects, listed);
        let both = before.values().chain(self.objects.values());
        both.map(|object| Change::of(object.as_ref())).collect()
    }

    fn put(&mut self, object: K) -> Option<Change> {
        let key = Key::of(&object);
        let known = self.objects.get(&key).map(|o| version(o.as_ref()));
        if known.is_some_and(|known| known >= version(&object)) {
            return None;
        }
        let change = Change::of(&object);
        self.objects.insert(key, Arc::new(object));
        Some(change)
    }

    /// Takes in the answer to a write, unless the watch has passed it.
    fn written(&mut self, object: K) -> Option<Change> {
        if version(&object) <= self.seen {
            return None;
        }
        self.put(object)
    }

    /// Takes in that a call found the object gone.
    fn gone(&mut self, key: &Key, uid: &str) -> Option<Change> {
        let known = self.objects.get(key)?;
        if known.meta().uid.as_deref() != Some(uid) {
            return None;
        }
        self.objects.remove(key).map(|o| Change::of(o.as_ref()))
    }
}

/// An object of a kind that is no workload.
#[derive(Debug, Clone)]
pub(crate) struct Other {
    /// Where its kind is served.
    pub(crate) resource: ApiResource,
    /// What it has in common with all others.
    pub(crate) meta: ObjectMeta,
}

/// A kind that the world holds.
pub(crate) trait Kind:
    Resource<DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + PartialEq
    + Send
    + Sync
    + 'static
{
    /// Where the world keeps it.
    fn store(world: &mut World) -> &mut Store<Self>;
}

macro_rules! kinds {
    ($($field:ident: $kind:ident),* $(,)?) => {
        /// Everything the actors know.
        #[derive(Debug, Default)]
        pub(crate) struct World {
            /// Objects of other kinds, of which only owners matter, by kind and key.
            pub(crate) others: BTreeMap<(String, Key), Other>,
            $(pub(crate) $field: Store<$kind>,)*
        }

        impl World {
            /// Whether every kind was listed.
            pub(crate) fn is_synced(&self) -> bool {
                $(self.$field.synced)&&*
            }
        }

        $(impl Kind for $kind {
            fn store(world: &mut World) -> &mut Store<Self> {
                &mut world.$field
            }
        })*

        /// An object of any kind that the actors write.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum Object {
            $($kind(Box<$kind>),)*
        }

        impl Object {
            /// Its kind, as in manifests.
            pub(crate) fn kind(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => stringify!($kind),)*
                }
            }

            /// Where its kind is served.
            pub(crate) fn resource(&self) -> ApiResource {
                match self {
                    $(Self::$kind(_) => ApiResource::erase::<$kind>(&()),)*
                }
            }

            /// What it has in common with all others.
            pub(crate) fn meta(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                }
            }

            /// The same, to be changed.
            pub(crate) fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $(Self::$kind(object) => &mut object.metadata,)*
                }
            }
        }

        impl World {
            /// Copies of all objects of a namespace.
            pub(crate) fn objects(&self, namespace: &str) -> Vec<Object> {
                let mut all: Vec<Object> = Vec::new();
                $(all.extend(self.$field.within(namespace).cloned().map(Object::from));)*
                all
            }
        }

        $(impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Box::new(object))
            }
        })*

        /// Runs `$body` with `$object` bound to the typed object.
        macro_rules! with_object {
            ($any:expr, $object:ident => $body:expr) => {
                match $any {
                    $($crate::actors::world::Object::$kind($object) => $body,)*
                }
            };
        }
        pub(crate) use with_object;

        impl Shared {
            /// The watches of every kind.
            pub(crate) fn watch_all(&self, client: &Client, tasks: &mut tokio::task::JoinSet<()>) {
                $(tasks.spawn(self.clone().watch::<$kind>(client.clone()));)*
            }
        }
    };
}

kinds! {
    cron_jobs: CronJob,
    daemon_sets: DaemonSet,
    deployments: Deployment,
    jobs: Job,
    leases: Lease,
    nodes: Node,
    pods: Pod,
    replica_sets: ReplicaSet,
    revisions: ControllerRevision,
    stateful_sets: StatefulSet,
}

#[cfg(test)]
impl World {
    /// Puts an object there, as a list would.
    pub(crate) fn with<K: Kind>(mut self, object: K) -> Self {
        let store = K::store(&mut self);
        store.objects.insert(Key::of(&object), Arc::new(object));
        self
    }

    /// Takes a Pod out.
    pub(crate) fn without_pod(mut self, key: &Key) -> Self {
        self.pods.objects.remove(key);
        self
    }
}

/// Which keys of an actor a change concerns.
pub(crate) type Concerns = fn(&World, &Change) -> Vec<Key>;

/// The world as all actors share it. Clones are handles to the same.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    world: World,
    actors: Vec<(Concerns, Queue)>,
}

impl Shared {
    /// Adds to `queue` whatever `concerns` says of a change, from now on.
    pub(crate) fn wake(&self, concerns: Concerns, queue: Queue) {
        self.lock().actors.push((concerns, queue));
    }

    /// Looks at the world of one moment.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&World) -> R) -> R {
        look(&self.lock().world)
    }

    /// Takes in the answer to a write.
    pub(crate) fn written<K: Kind>(&self, object: K) {
        let mut inner = self.lock();
        let change = K::store(&mut inner.world).written(object);
        inner.tell(change);
    }

    /// Takes in that a call found the object gone.
    pub(crate) fn gone<K: Kind>(&self, key: &Key, uid: &str) {
        let mut inner = self.lock();
        let change = K::store(&mut inner.world).gone(key, uid);
        inner.tell(change);
    }

    async fn watch<K: Kind>(self, client: Client) {
        let mut events = pin!(watcher::watcher(
            Api::<K>::all(client),
            watcher::Config::default()
        ));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let mut inner = self.lock();
                    let changes = K::store(&mut inner.world).watched(event);
                    inner.tell(changes);
                }
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "watch failed; trying again");
                    tokio::time::sleep(WATCH_PAUSE).await;
                }
            }
        }
    }

    /// Watches a kind of which only owners matter.
    pub(crate) async fn watch_other(self, client: Client, resource: ApiResource) {
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let mut events = pin!(watcher::watcher(api, watcher::Config::default()));
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            let gone = matches!(event, Ok(Event::Delete(_)));
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.push(object),
                Ok(Event::InitDone) => {
                    let mut inner = self.lock();
                    inner
                        .world
                        .others
                        .retain(|(kind, _), _| *kind != resource.kind);
                    for object in listed.drain(..) {
                        inner.other(&resource, object, false);
                    }
                }
                Ok(Event::Apply(object) | Event::Delete(object)) => {
                    self.lock().other(&resource, object, gone);
                }
                Err(error) => {
                    tracing::debug!(kind = resource.kind, %error, "watch failed; trying again");
                    tokio::time::sleep(WATCH_PAUSE).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn other(&mut self, resource: &ApiResource, object: DynamicObject, gone: bool) {
        let key = Key {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let entry = (resource.kind.clone(), key.clone());
        if gone {
            self.world.others.remove(&entry);
        } else {
            let meta = object.metadata;
            let resource = resource.clone();
            self.world.others.insert(entry, Other { resource, meta });
        }
        let change = Change {
            kind: resource.kind.clone(),
            key,
            controller: None,
        };
        self.tell([change]);
    }

    fn tell(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            for (concerns, queue) in &self.actors {
                for key in concerns(&self.world, &change) {
                    queue.add(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, version: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        node.metadata.uid = Some(format!("uid-{name}"));
        node.metadata.resource_version = Some(version.into());
        node
    }

    fn names(store: &Store<Node>) -> Vec<(String, u64)> {
        let all = store.all();
        all.map(|n| (Key::of(n).name, version(n))).collect()
    }

    #[test]
    fn a_write_is_seen_at_once_and_an_older_event_does_not_undo_it() {
        let mut store = Store::default();
        store.watched(Event::Apply(node("a", "5")));
        assert!(store.written(node("a", "7")).is_some());
        assert!(store.watched(Event::Apply(node("a", "6"))).is_empty());
        assert_eq!(names(&store), [("a".into(), 7)]);
    }

    #[test]
    fn the_late_answer_about_an_object_that_is_gone_does_not_bring_it_back() {
        let mut store = Store::default();
        store.watched(Event::Apply(node("a", "5")));
        store.watched(Event::Delete(node("a", "9")));
        assert!(store.written(node("a", "7")).is_none());
        assert_eq!(names(&store), []);
    }

    #[test]
    fn a_list_takes_the_place_of_everything() {
        let mut store = Store::default();
        store.watched(Event::Apply(node("a", "5")));
        store.watched(Event::Init);
        store.watched(Event::InitApply(node("b", "3")));
        assert_eq!(names(&store), [("a".into(), 5)]);
        let told = store.watched(Event::InitDone);
        assert_eq!(told.len(), 2);
        assert_eq!(names(&store), [("b".into(), 3)]);
    }

    #[test]
    fn what_another_object_of_that_name_did_says_nothing_of_this_one() {
        let mut store = Store::default();
        store.watched(Event::Apply(node("a", "5")));
        assert!(store.gone(&Key::new("", "a"), "another").is_none());
        assert!(store.gone(&Key::new("", "a"), "uid-a").is_some());
    }
}
