//! Watches of the kinds of workloads that an operator names.
//!
//! Owns: for each such kind, its definition, its objects, and when they can be had. Never does:
//! read an object ([`super::workload::other`] does), or hold anything else up: a kind that is not
//! installed, or that the controller may not read, is told of and tried again, and the pools of its
//! workloads stay as they are. Invariant: its workloads count as gone only if the watch said so, or
//! if neither the kind nor its definition is there.
//!
//! ```text
//! definition unknown ─▶ there ───▶ try a list ─▶ watch objects for ever
//!                  └─▶ absent ──▶ try a list ─▶ (another API server has it) watch
//!                                          └─▶ 404: there are none; wait for the definition
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipam::kind::OtherKind;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams};
use kube::core::DeserializeGuard;
use kube::{Api, Resource, ResourceExt};
use kube_runtime::watcher;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Context;
use super::watches;
use super::workload::other::{self, Layout, Other};
use super::workload::{self, Seen};
use crate::error::ErrorChain;
use crate::kube_io::cache::{Cache, Held, Key};
use crate::kube_io::retry::Backoff;
use crate::kube_io::tasks::start;

/// First and longest cap of the pause after a try that failed.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Tries after which a kind whose definition is there and that is not served is told of: its API
/// server takes a moment to serve a new one.
const PATIENCE: u32 = 8;
/// How often a kind without a definition is looked for: an API server of its own may serve it.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Starts the watches. They never end, and nobody waits for them.
pub(super) fn watch_all(ctx: &Arc<Context>, tasks: &mut JoinSet<()>) {
    for kind in ctx.kinds.others() {
        let follower = Arc::new(Follower {
            ctx: ctx.clone(),
            kind: kind.clone(),
            definition: watch::Sender::new(Definition::Unknown),
            objects: Cache::new(),
            told: Mutex::default(),
        });
        start(tasks, follower.run());
    }
}

/// What is known of the kind's definition.
#[derive(Debug, Clone, PartialEq)]
enum Definition {
    /// Nothing yet, or it is not in force yet.
    Unknown,
    /// There is none.
    Absent,
    /// It does not serve the version.
    Unserved(ObjectReference),
    /// It is there.
    There(ObjectReference, Layout),
}

impl Definition {
    fn of(definition: &CustomResourceDefinition, version: &str) -> Self {
        let status = definition.status.iter();
        let mut conditions = status.flat_map(|s| s.conditions.iter().flatten());
        if !conditions.any(|c| c.type_ == "Established" && c.status == "True") {
            return Self::Unknown;
        }
        let about = definition.object_ref(&());
        match Layout::of(definition, version) {
            Some(layout) => Self::There(about, layout),
            None => Self::Unserved(about),
        }
    }

    fn object(&self) -> Option<&ObjectReference> {
        match self {
            Self::Unknown | Self::Absent => None,
            Self::Unserved(about) | Self::There(about, _) => Some(about),
        }
    }
}

/// Follows one kind.
struct Follower {
    ctx: Arc<Context>,
    kind: OtherKind,
    definition: watch::Sender<Definition>,
    objects: Cache<DynamicObject>,
    /// Why it could not be followed at the last try.
    told: Mutex<Option<String>>,
}

impl Follower {
    async fn run(self: Arc<Self>) {
        let this = self.clone();
        self.objects.on_change(move |change| {
            watches::workload(&this.ctx, change, |object| this.seen(object));
        });
        tokio::join!(self.follow_definition(), self.follow_objects());
    }

    async fn follow_definition(self: &Arc<Self>) {
        let (name, client) = (self.kind.definition(), self.ctx.clients.read.clone());
        let field = format!("metadata.name={name}");
        let tried: Api<CustomResourceDefinition> = Api::all(client.clone());
        let mut backoff = Backoff::new(AGAIN_AFTER.0, AGAIN_AFTER.1);
        let one = ListParams::default().fields(&field).limit(1);
        while let Err(error) = tried.list_metadata(&one).await {
            self.tell(
                None,
                &format!("its definition can't be read: {}", said(&error)),
            );
            sleep(backoff.next_delay()).await;
        }
        let definitions: Cache<CustomResourceDefinition> = Cache::new();
        let this = self.clone();
        definitions.on_change(move |change| match &change.new {
            Held::Nothing => this.learn(Definition::Absent),
            Held::Object(found) => this.learn(Definition::of(found, &this.kind.version)),
            Held::Unreadable(_) => {}
        });
        let nothing_listed = async {
            definitions.synced().await;
            if definitions.look(BTreeMap::is_empty) {
                self.learn(Definition::Absent);
            }
        };
        let api: Api<DeserializeGuard<CustomResourceDefinition>> = Api::all(client);
        let config = watcher::Config::default().fields(&field);
        let run = definitions.clone().run(api, config, trim_definition);
        tokio::join!(run, nothing_listed);
    }

    fn learn(&self, definition: Definition) {
        self.definition.send_if_modified(|known| {
            let is_news = *known != definition;
            *known = definition;
            is_news
        });
    }

    async fn follow_objects(&self) {
        let mut definition = self.definition.subscribe();
        loop {
            let now = definition.borrow_and_update().clone();
            tokio::select! {
                biased;
                changed = definition.changed() => if changed.is_err() { return },
                () = self.follow(&now) => {}
            }
        }
    }

    /// Watches the objects for as long as the definition is `now`.
    async fn follow(&self, now: &Definition) {
        match now {
            Definition::Absent | Definition::There(..) => {}
            Definition::Unknown => return std::future::pending().await,
            Definition::Unserved(_) => {
                let version = &self.kind.version;
                self.tell(now.object(), &format!("version {version} is not served"));
                return std::future::pending().await;
            }
        }
        let resource = other::resource(&self.kind);
        let client = self.ctx.clients.read.clone();
        self.can_be_listed(&Api::all_with(client.clone(), &resource), now)
            .await;
        self.settle(now.object());
        // What is known already was read by another layout.
        for object in self.objects.list() {
            let seen = self.seen(&object);
            watches::took(&self.ctx, seen);
        }
        let all_listed = async {
            self.objects.synced().await;
            self.ctx.wake(self.ctx.index.listed(&self.kind));
        };
        let api: Api<DeserializeGuard<DynamicObject>> = Api::all_with(client, &resource);
        let objects = self.objects.clone();
        let run = objects.run(api, watcher::Config::default(), other::trim);
        tokio::join!(run, all_listed);
    }

    /// Waits until the objects can be listed.
    async fn can_be_listed(&self, api: &Api<DynamicObject>, now: &Definition) {
        let mut backoff = Backoff::new(AGAIN_AFTER.0, AGAIN_AFTER.1);
        let mut missing: u32 = 0;
        while let Err(error) = api.list_metadata(&ListParams::default().limit(1)).await {
            if !matches!(&error, kube::Error::Api(status) if status.code == 404) {
                self.tell(now.object(), &said(&error));
            } else if *now == Definition::Absent {
                self.none_there();
                sleep(LOOK_AGAIN).await;
                continue;
            } else {
                missing = missing.saturating_add(1);
                if missing > PATIENCE {
                    self.tell(now.object(), &said(&error));
                }
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// The kind is not there, so none of its workloads is.
    fn none_there(&self) {
        tracing::info!(kind = %self.kind.definition(), "not installed: it is watched once it is");
        for gone in self.objects.list() {
            let uid = gone.uid().unwrap_or_default();
            self.objects.apply_gone(&Key::of(&*gone), &uid);
        }
        self.ctx.wake(self.ctx.index.listed(&self.kind));
    }

    fn seen(&self, object: &DynamicObject) -> Seen {
        let layout = match &*self.definition.borrow() {
            Definition::There(_, layout) => layout.clone(),
            Definition::Unknown | Definition::Absent | Definition::Unserved(_) => {
                Layout::conventional()
            }
        };
        let workload = Other::read(object, &layout);
        let id = other::id(object, &self.kind);
        workload::seen_as(id, &object.metadata, &workload, self.ctx.default_rule)
    }

    /// Says, once, why workloads of the kind are not watched. In an Event at each try, of which only
    /// the leader's first is told: this replica may not have led at the last.
    fn tell(&self, definition: Option<&ObjectReference>, why: &str) {
        if let Some(definition) = definition {
            self.ctx.reports.kind_not_watched(definition.clone(), why);
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_deref() == Some(why) {
            return;
        }
        let kind = self.kind.definition();
        tracing::warn!(%kind, because = why, "workloads of this kind are not watched; trying again");
        *told = Some(why.to_owned());
    }

    fn settle(&self, definition: Option<&ObjectReference>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = None;
        tracing::info!(kind = %self.kind.definition(), "workloads of this kind are watched");
        if let Some(definition) = definition {
            self.ctx.reports.kind_watched(definition);
        }
    }
}

/// What the API server said, as users know it from `kubectl`.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => ErrorChain(error).to_string(),
    }
}

/// Leaves of a definition what [`Definition::of`] reads.
fn trim_definition(definition: &mut CustomResourceDefinition) {
    definition.metadata.annotations = None;
    for version in &mut definition.spec.versions {
        version.schema = None;
        version.additional_printer_columns = None;
    }
}

#[cfg(test)]
mod tests;
