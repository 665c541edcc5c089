//! Events, told as Kubernetes' components tell them.
//!
//! Owns: their form, and that the same thing told again counts up instead of being told anew. Never
//! does: fail its caller; an Event that can't be written is lost, as it is with the real ones.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::plan::Note;
use super::world::Key;

/// Most Events that are remembered to be counted up.
const KNOWN_MAX: usize = 4096;

/// What makes two Events the same.
type Same = (Option<String>, Option<String>, &'static str, String);

/// Writes the Events of one component.
pub(crate) struct Events {
    client: Client,
    component: &'static str,
    host: Option<String>,
    state: Mutex<State>,
}

struct State {
    rng: ChaCha8Rng,
    known: BTreeMap<Same, (String, i32)>,
}

impl Events {
    /// Events of `component`, on node `host` if it is part of one.
    pub(crate) fn new(
        client: Client,
        component: &'static str,
        host: Option<String>,
        rng: ChaCha8Rng,
    ) -> Self {
        let known = BTreeMap::new();
        Self {
            client,
            component,
            host,
            state: Mutex::new(State { rng, known }),
        }
    }

    /// Tells `note`.
    pub(crate) async fn tell(&self, note: Note, now: Timestamp) {
        let namespace = note.about.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let (name, count) = self.name(&note);
        if count > 1 {
            let patch = json!({ "count": count, "lastTimestamp": Time(now) });
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            if api.patch(&name, &params, &patch).await.is_ok() {
                return;
            }
        }
        let event = self.event(note, Key::new(&namespace, &name), count, now);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, component = self.component, "an Event is lost");
        }
    }

    /// Name of the Event and how often it happened, this time included.
    fn name(&self, note: &Note) -> (String, i32) {
        let ObjectReference {
            uid, field_path, ..
        } = note.about.clone();
        let same = (uid, field_path, note.reason, note.message.clone());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, count)) = state.known.get_mut(&same) {
            *count += 1;
            return (name.clone(), *count);
        }
        let digits: u64 = state.rng.random();
        let object = note.about.name.as_deref().unwrap_or_default();
        let name = format!("{object}.{digits:016x}");
        if state.known.len() >= KNOWN_MAX {
            state.known.clear();
        }
        state.known.insert(same, (name.clone(), 1));
        (name, 1)
    }

    fn event(&self, note: Note, key: Key, count: i32, now: Timestamp) -> Event {
        let kind = if note.warning { "Warning" } else { "Normal" };
        Event {
            metadata: ObjectMeta {
                name: Some(key.name),
                namespace: Some(key.namespace),
                ..ObjectMeta::default()
            },
            involved_object: note.about,
            reason: Some(note.reason.to_owned()),
            message: Some(note.message),
            type_: Some(kind.to_owned()),
            source: Some(EventSource {
                component: Some(self.component.to_owned()),
                host: self.host.clone(),
            }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: self.host.clone(),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(count),
            ..Event::default()
        }
    }
}
