//! Writes: what a request changes, checked and committed in one turn.

use std::sync::Arc;

use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::body::ResponseBody;
use crate::clock;
use crate::error::ApiError;
use crate::managed::Books;
use crate::object;
use crate::read::{metadata_only, present};
use crate::request::{Call, Part, Shape, Verb};
use crate::server::{State, reply};
use crate::store::Key;
use crate::table;

mod apply;
mod create;
mod delete;
mod intake;
mod pods;
mod prepare;
mod rules;
mod update;
mod validate;

pub(crate) use prepare::TEMPLATE_GENERATION;

/// The biggest object that is stored, as etcd's default has it.
const MAX_OBJECT: usize = 1_572_864;

/// What a write answers.
#[derive(Debug)]
pub(crate) struct Answer {
    code: u16,
    body: Value,
    warnings: Vec<String>,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self {
            code: 200,
            body,
            warnings: Vec::new(),
        }
    }

    fn created(body: Value) -> Self {
        Self {
            code: 201,
            ..Self::ok(body)
        }
    }

    fn warning(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }
}

/// One write: the state it changes, when, and what was asked.
pub(crate) struct Turn<'a> {
    state: &'a mut State,
    now: Timestamp,
    call: &'a Call,
    /// Who owns which field after an apply, until it is entered.
    books: Option<Books>,
}

/// Carries out a write.
pub(crate) fn answer(
    state: &mut State,
    now: Timestamp,
    call: &Call,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut turn = Turn {
        state,
        now,
        call,
        books: None,
    };
    let answer = match (call.verb, call.part) {
        (Verb::Create, Part::Binding) => turn.bind(),
        (Verb::Create, Part::Eviction) => turn.evict(),
        (Verb::Create, _) => turn.create(),
        (Verb::Update, _) => turn.put(),
        (Verb::Patch, _) => turn.patch(),
        (Verb::Delete, _) => turn.delete(),
        (Verb::DeleteCollection, _) => turn.delete_collection(),
        (Verb::Get | Verb::List | Verb::Watch, _) => Err(ApiError::method_not_allowed()),
    }?;
    let is_object = answer.body.get("metadata").is_some()
        && answer.body.get("status") != Some(&json!("Success"));
    let body = match call.shape {
        Shape::Table if is_object && call.part == Part::Main => {
            let meta = json!({ "resourceVersion": object::meta(&answer.body, "resourceVersion") });
            table::of(
                &call.kind,
                now,
                std::slice::from_ref(&answer.body),
                &meta,
                &call.query,
                true,
            )
        }
        Shape::MetadataOnly if is_object => metadata_only(&answer.body),
        _ => answer.body,
    };
    Ok(reply(answer.code, &body, &answer.warnings))
}

/// A namespace that is there from the start.
pub(crate) fn seed_namespace(state: &mut State, now: Timestamp, name: &str) {
    let key = Key {
        resource: Arc::from("namespaces"),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": prepare::new_uid(&mut state.rng),
            "creationTimestamp": clock::seconds(now),
            "labels": { "kubernetes.io/metadata.name": name },
        },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    });
    state.store.put(key, namespace, &Arc::from("kubesim"));
}

impl Turn<'_> {
    fn key(&self, name: &str) -> Key {
        Key {
            resource: Arc::clone(&self.call.kind.storage),
            namespace: self.call.namespace.clone(),
            name: name.to_owned(),
        }
    }

    /// The stored object. Errors: 404.
    fn stored(&self, key: &Key) -> Result<Arc<Value>, ApiError> {
        let found = self.state.store.get(key).cloned();
        found.ok_or_else(|| ApiError::not_found(&self.call.kind, &key.name))
    }

    /// Stores an object unless nothing is to be stored, and shows it.
    ///
    /// Errors: 500 if it is bigger than etcd takes.
    fn commit(&mut self, key: Key, object: Value) -> Result<Value, ApiError> {
        if object.to_string().len() > MAX_OBJECT {
            return Err(ApiError::internal("etcdserver: request is too large"));
        }
        if self.call.is_dry_run() {
            return Ok(present(&self.call.kind, &object));
        }
        let commit = self.state.store.put(key, object, &self.call.actor);
        Ok(present(&self.call.kind, &commit.new))
    }
}
