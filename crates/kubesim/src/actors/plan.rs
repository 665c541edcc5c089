//! What an actor wants written: the answer of every pure `plan` function.
//!
//! Owns: the types of a plan. Never does: carry one out; that is `runner.rs`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::api::{ApiResource, ObjectMeta};
use rand_chacha::ChaCha8Rng;

use super::world::{Key, Kind, Object};

/// What a `plan` function may know beside the world.
pub(crate) struct Pass<'a> {
    /// The time.
    pub(crate) now: Timestamp,
    /// This actor's own randomness.
    pub(crate) rng: &'a mut ChaCha8Rng,
    /// What the API server said to the last plan for this key, if it refused.
    pub(crate) refused: Option<&'a str>,
}

/// One call to the API server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    /// POST.
    Create(Object),
    /// PUT at the version that was seen.
    Replace(Object),
    /// PUT of the status at the version that was seen.
    ReplaceStatus(Object),
    /// DELETE of the object with this uid.
    Delete(Object),
    /// DELETE of the object with this uid, which stays until its dependents are gone.
    DeleteForeground(Object),
    /// DELETE of the object if live calls find none of its owners.
    Collect {
        /// Where its kind is served.
        resource: ApiResource,
        /// Its name, its uid and its owners.
        meta: Box<ObjectMeta>,
    },
    /// POST of a binding of this Pod.
    Bind {
        /// The Pod.
        pod: Key,
        /// Its uid.
        uid: String,
        /// Where it goes.
        node: String,
    },
    /// An Event.
    Note(Note),
}

/// An Event to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Note {
    /// What it is about.
    pub(crate) about: ObjectReference,
    /// Whether it is a warning.
    pub(crate) warning: bool,
    /// A word in camel case.
    pub(crate) reason: &'static str,
    /// A sentence.
    pub(crate) message: String,
}

impl Note {
    /// An Event of type Normal about `object`.
    pub(crate) fn normal<K: Kind>(object: &K, reason: &'static str, message: String) -> Self {
        Self {
            about: reference(object),
            warning: false,
            reason,
            message,
        }
    }

    /// An Event of type Warning about `object`.
    pub(crate) fn warning<K: Kind>(object: &K, reason: &'static str, message: String) -> Self {
        Self {
            warning: true,
            ..Self::normal(object, reason, message)
        }
    }
}

/// How Events and others name an object.
pub(crate) fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// What is to be written, and when to look again.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Steps, one after the other; the writes of a step go out together. A step of which one fails
    /// is the last that is done.
    pub(crate) steps: Vec<Vec<Write>>,
    /// When to look even if nothing changes.
    pub(crate) again: Option<Duration>,
}

impl Plan {
    /// Adds a step of one write.
    pub(crate) fn then(&mut self, write: Write) {
        self.steps.push(vec![write]);
    }

    /// Adds a step of an Event.
    pub(crate) fn note(&mut self, note: Note) {
        self.then(Write::Note(note));
    }

    /// Adds the step of writing `status` where it differs from what is there.
    pub(crate) fn status<K: Kind>(&mut self, seen: &K, now: K)
    where
        Object: From<K>,
    {
        if *seen != now {
            self.then(Write::ReplaceStatus(now.into()));
        }
    }

    /// Looks again after `delay` at the latest.
    pub(crate) fn again_in(&mut self, delay: Duration) {
        self.again = Some(self.again.map_or(delay, |known| known.min(delay)));
    }

    /// All writes in their order, for tests.
    #[cfg(test)]
    pub(crate) fn writes(&self) -> Vec<&Write> {
        self.steps.iter().flatten().collect()
    }
}
