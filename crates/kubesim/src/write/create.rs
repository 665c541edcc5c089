//! POST: new objects.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::object::{self, metadata, text};
use crate::store::Key;

use super::{Answer, Turn, prepare};

/// How often a generated name that is taken is drawn anew.
const NAME_TRIES: usize = 8;

impl Turn<'_> {
    /// Makes an object of the body.
    pub(super) fn create(&mut self) -> Result<Answer, ApiError> {
        let taken = self.taken()?;
        let object = self.store_new(taken.object)?;
        Ok(Answer::created(object).warning(taken.warnings))
    }

    /// Checks and stores a new object.
    ///
    /// Errors: 400 for a namespace that is not the path's, 404 for one that does not exist, 403
    /// for one that is going, 409 for a name that is taken, 422 for wrong fields.
    pub(super) fn store_new(&mut self, mut object: Value) -> Result<Value, ApiError> {
        self.check_namespace(&mut object)?;
        let named = [
            object::name(&object),
            text(&object, "/metadata/generateName"),
        ];
        self.check_namespace_is_there(named.into_iter().find(|name| !name.is_empty()))?;
        let key = self.new_key(&mut object);
        self.prepare_new(&mut object);
        self.validate(&object, None)?;
        if object::meta(&object, "resourceVersion").is_some() {
            return Err(ApiError::internal(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        if let Some(found) = self.state.store.get(&key) {
            return Err(ApiError::already_exists(
                &self.call.kind,
                &key.name,
                object::is_going(found),
            ));
        }
        self.manage(None, &mut object);
        self.commit(key, object)
    }

    fn new_key(&mut self, object: &mut Value) -> Key {
        let name = object::name(object).to_owned();
        if !name.is_empty() {
            return self.key(&name);
        }
        let mut key = self.key("");
        let prefix = object::meta(object, "generateName")
            .unwrap_or_default()
            .to_owned();
        if prefix.is_empty() {
            return key; // Validation complains.
        }
        for _ in 0..NAME_TRIES {
            key.name = prepare::generated_name(&mut self.state.rng, &prefix);
            if self.state.store.get(&key).is_none() {
                break;
            }
        }
        metadata(object).insert("name".to_owned(), json!(key.name));
        key
    }

    /// The namespace of the body is that of the path, or none.
    pub(super) fn check_namespace(&self, object: &mut Value) -> Result<(), ApiError> {
        let given = object::namespace(object);
        if given == self.call.namespace {
            return Ok(());
        }
        if self.call.namespace.is_empty() {
            metadata(object).remove("namespace");
            return Ok(());
        }
        if given.is_empty() {
            metadata(object).insert("namespace".to_owned(), json!(self.call.namespace));
            return Ok(());
        }
        Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ))
    }

    fn check_namespace_is_there(&self, name: Option<&str>) -> Result<(), ApiError> {
        let kind = self.call.kind.as_ref();
        if !kind.namespaced {
            return Ok(());
        }
        let namespace = self.state.store.get(&Key {
            resource: std::sync::Arc::from("namespaces"),
            namespace: String::new(),
            name: self.call.namespace.clone(),
        });
        match namespace {
            None => Err(ApiError::namespace_not_found(&self.call.namespace)),
            Some(found) if object::is_going(found) => Err(ApiError::namespace_terminating(
                kind,
                name.unwrap_or("Unknown"),
                &self.call.namespace,
            )),
            Some(_) => Ok(()),
        }
    }
}
