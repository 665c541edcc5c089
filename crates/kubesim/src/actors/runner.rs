//! The one loop of every actor: a key, a plan, its writes.
//!
//! Owns: the calls to the API server and what a failed one leads to. Never does: decide. Invariants:
//! an actor works on one key at a time, on the world of one moment; a step that failed ends the
//! plan, and the key comes again after a pause that doubles.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Binding, ObjectReference};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GetParams, GroupVersionKind, ObjectMeta,
    PartialObjectMeta, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::request::Request;
use kube::{Client, Resource};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::events::Events;
use super::plan::{Pass, Plan, Write};
use super::world::{Concerns, Key, Kind, Shared, World, with_object};
use crate::{Clock as _, TokioClock};

/// First and longest pause after a plan that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(30));
/// How often an actor asks whether the first lists are complete.
const SYNC_POLL: Duration = Duration::from_millis(10);

/// An actor: what wakes it and what it wants.
#[derive(Clone, Copy)]
pub(crate) struct Actor {
    /// Its name, as the source of Events.
    pub(crate) name: &'static str,
    /// Which keys a change concerns.
    pub(crate) concerns: Concerns,
    /// What is to be written for a key.
    pub(crate) plan: fn(&World, &Key, &mut Pass<'_>) -> Plan,
}

/// A random stream of its own for `name`: a draw more in one shifts no other.
pub(crate) fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let digits = name.bytes().fold(0_u64, |hash, byte| {
        hash.wrapping_mul(1_099_511_628_211) ^ u64::from(byte)
    });
    rng.set_stream(digits);
    rng
}

/// Keeps `actor` at work. Drop the future to stop it, at any of its awaits.
pub(crate) async fn run(actor: Actor, client: Client, clock: TokioClock, world: Shared, seed: u64) {
    let queue = super::queue::Queue::default();
    world.wake(actor.concerns, queue.clone());
    while !world.look(World::is_synced) {
        tokio::time::sleep(SYNC_POLL).await;
    }
    let mut rng = stream(seed, actor.name);
    let events = Events::new(
        client.clone(),
        actor.name,
        None,
        stream(seed ^ 1, actor.name),
    );
    let hand = Hand {
        client,
        clock,
        world: world.clone(),
        events,
    };
    let mut failures: BTreeMap<Key, (u32, Option<String>)> = BTreeMap::new();
    loop {
        let key = queue.next().await;
        let (times, refused) = failures.remove(&key).unwrap_or_default();
        let plan = world.look(|world| {
            let mut pass = Pass {
                now: clock.now(),
                rng: &mut rng,
                refused: refused.as_deref(),
            };
            (actor.plan)(world, &key, &mut pass)
        });
        if let Some(delay) = plan.again {
            queue.add_at(key.clone(), Instant::now() + delay);
        }
        if let Err(error) = hand.carry_out(plan).await {
            tracing::debug!(actor = actor.name, %key, %error, "not done; trying again");
            let pause = PAUSE.0.saturating_mul(1 << times.min(16)).min(PAUSE.1);
            queue.add_at(key.clone(), Instant::now() + pause);
            failures.insert(key, (times + 1, refusal(&error)));
        }
    }
}

/// What the server said, where it refused a request for what is in it.
fn refusal(error: &kube::Error) -> Option<String> {
    match error {
        kube::Error::Api(status) if status.code == 403 || status.code == 422 => {
            Some(status.message.clone())
        }
        _ => None,
    }
}

/// Whether the server answered with this HTTP code.
pub(crate) fn answered(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// What carries out plans.
struct Hand {
    client: Client,
    clock: TokioClock,
    world: Shared,
    events: Events,
}

impl Hand {
    /// Errors: the first of the step that failed.
    async fn carry_out(&self, plan: Plan) -> Result<(), kube::Error> {
        for step in plan.steps {
            let calls = step.into_iter().map(|write| self.write(write));
            for outcome in join_all(calls).await {
                outcome?;
            }
        }
        Ok(())
    }

    async fn write(&self, write: Write) -> Result<(), kube::Error> {
        match write {
            Write::Create(object) => with_object!(object, o => self.create(&*o).await),
            Write::Replace(object) => with_object!(object, o => self.replace(&*o, None).await),
            Write::ReplaceStatus(object) => {
                with_object!(object, o => self.replace(&*o, Some("status")).await)
            }
            Write::Delete(object) => {
                with_object!(object, o => self.delete(&*o, PropagationPolicy::Background).await)
            }
            Write::DeleteForeground(object) => {
                with_object!(object, o => self.delete(&*o, PropagationPolicy::Foreground).await)
            }
            Write::Collect { resource, meta } => self.collect(&resource, &meta).await,
            Write::Bind { pod, uid, node } => self.bind(&pod, &uid, &node).await,
            Write::Note(note) => {
                self.events.tell(note, self.clock.now()).await;
                Ok(())
            }
        }
    }

    async fn create<K: Kind>(&self, object: &K) -> Result<(), kube::Error> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = path(object).create(&PostParams::default(), body);
        let request = request.map_err(kube::Error::BuildRequest)?;
        self.world.written(self.client.request::<K>(request).await?);
        Ok(())
    }

    async fn replace<K: Kind>(&self, object: &K, part: Option<&str>) -> Result<(), kube::Error> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let key = Key::of(object);
        let (path, params) = (path(object), PostParams::default());
        let request = match part {
            None => path.replace(&key.name, &params, body),
            Some(part) => path.replace_subresource(part, &key.name, &params, body),
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        match self.client.request::<K>(request).await {
            Ok(written) => self.world.written(written),
            Err(error) if answered(&error, 404) => {
                let uid = object.meta().uid.clone().unwrap_or_default();
                self.world.gone::<K>(&key, &uid);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn delete<K: Kind>(
        &self,
        object: &K,
        policy: PropagationPolicy,
    ) -> Result<(), kube::Error> {
        let (key, uid) = (
            Key::of(object),
            object.meta().uid.clone().unwrap_or_default(),
        );
        let params = of_uid(Some(uid.clone()), policy);
        let request = path(object).delete(&key.name, &params);
        let request = request.map_err(kube::Error::BuildRequest)?;
        match self.client.request_status::<K>(request).await {
            // What has a grace period or finalizers is answered as it is now.
            Ok(answer) => match answer.left() {
                Some(object) if object.meta().deletion_timestamp.is_some() => {
                    self.world.written(object);
                }
                _ => self.world.gone::<K>(&key, &uid),
            },
            // Gone, or another one of that name.
            Err(error) if answered(&error, 404) || answered(&error, 409) => {
                self.world.gone::<K>(&key, &uid);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes an object of any kind unless one of its owners is there. The watch tells the rest.
    async fn collect(&self, resource: &ApiResource, meta: &ObjectMeta) -> Result<(), kube::Error> {
        if self.has_owner(meta).await? {
            return Ok(());
        }
        let name = meta.name.as_deref().unwrap_or_default();
        let path = DynamicObject::url_path(resource, meta.namespace.as_deref());
        let request = Request::new(path).delete(
            name,
            &of_uid(meta.uid.clone(), PropagationPolicy::Background),
        );
        let request = request.map_err(kube::Error::BuildRequest)?;
        match self.client.request_text(request).await {
            Err(error) if answered(&error, 404) || answered(&error, 409) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Whether any of the owners is there, by live calls.
    async fn has_owner(&self, meta: &ObjectMeta) -> Result<bool, kube::Error> {
        for owner in meta.owner_references.iter().flatten() {
            let (group, version) = owner
                .api_version
                .split_once('/')
                .unwrap_or(("", &owner.api_version));
            let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &owner.kind));
            let namespace = meta.namespace.as_deref();
            let path = Request::new(DynamicObject::url_path(&kind, namespace));
            let request = path.get_metadata(&owner.name, &GetParams::default());
            let request = request.map_err(kube::Error::BuildRequest)?;
            match self
                .client
                .request::<PartialObjectMeta<DynamicObject>>(request)
                .await
            {
                Ok(found) if found.metadata.uid.as_deref() == Some(owner.uid.as_str()) => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if answered(&error, 404) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn bind(&self, pod: &Key, uid: &str, node: &str) -> Result<(), kube::Error> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(uid.to_owned()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let body = serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?;
        let path = format!("/api/v1/namespaces/{}/pods", pod.namespace);
        let request = Request::new(path);
        let request =
            request.create_subresource("binding", &pod.name, &PostParams::default(), body);
        let request = request.map_err(kube::Error::BuildRequest)?;
        match self.client.request_text(request).await {
            // Bound already, by a call whose answer was lost: the watch tells.
            Err(error) if answered(&error, 404) || answered(&error, 409) => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// A delete of the object with this uid, whose dependents are collected afterwards.
fn of_uid(uid: Option<String>, policy: PropagationPolicy) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    }
}

fn path<K: Kind>(object: &K) -> Request {
    Request::new(K::url_path(&(), object.meta().namespace.as_deref()))
}
