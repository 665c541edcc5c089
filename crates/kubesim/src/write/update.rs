//! PUT and PATCH: changes of what is stored.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::object::{self, metadata};
use crate::patch;
use crate::request::Part;
use crate::store::Key;
use crate::{defaults, scale};

use super::{Answer, Turn, prepare};

impl Turn<'_> {
    /// PUT.
    pub(super) fn put(&mut self) -> Result<Answer, ApiError> {
        if self.call.part == Part::Scale {
            return self.put_scale();
        }
        let taken = self.taken()?;
        let mut object = taken.object;
        self.check_name(&object)?;
        let key = self.key(&self.call.name);
        let Some(old) = self.state.store.get(&key).cloned() else {
            let creates = self.call.part == Part::Main
                && self.call.kind.builtin().is_some_and(|row| row.put_creates);
            if !creates {
                return Err(ApiError::not_found(&self.call.kind, &key.name));
            }
            if !object::uid(&object).is_empty() {
                return Err(self.wrong_uid(&key, object::uid(&object), ""));
            }
            metadata(&mut object).remove("resourceVersion");
            return Ok(Answer::created(self.store_new(object)?));
        };
        let changed = self.store_changed(key, &old, object)?;
        Ok(Answer::ok(changed).warning(taken.warnings))
    }

    fn put_scale(&mut self) -> Result<Answer, ApiError> {
        let body = self.call.json()?.unwrap_or_default();
        self.check_name(&body)?;
        let key = self.key(&self.call.name);
        let old = self.stored(&key)?;
        self.store_scale(key, &old, &body)
    }

    fn store_scale(
        &mut self,
        key: Key,
        old: &Arc<Value>,
        scaled: &Value,
    ) -> Result<Answer, ApiError> {
        let object = scale::into_object(&self.call.kind, scaled, old)?;
        let changed = self.store_changed(key, old, object)?;
        Ok(Answer::ok(scale::of(&self.call.kind, &changed)?))
    }

    /// PATCH, in any of the four forms.
    pub(super) fn patch(&mut self) -> Result<Answer, ApiError> {
        let form = patch::Form::read(self.call)?;
        let key = self.key(&self.call.name);
        let found = self.state.store.get(&key).cloned();
        let Some(old) = found else {
            if form == patch::Form::Apply && self.call.part == Part::Main {
                return self.apply_new();
            }
            return Err(ApiError::not_found(&self.call.kind, &key.name));
        };
        let kind = Arc::clone(&self.call.kind);
        if self.call.part == Part::Scale {
            let before = scale::of(&kind, &old)?;
            let after = patch::apply(form, self.call, &before)?;
            return self.store_scale(key, &old, &after);
        }
        if form == patch::Form::Apply {
            return self.apply_changed(key, &old);
        }
        let shown = crate::read::present(&kind, &old);
        let patched = patch::apply(form, self.call, &shown)?;
        let taken = self.read_into(patched)?;
        self.check_name(&taken.object)?;
        let changed = self.store_changed(key, &old, taken.object)?;
        Ok(Answer::ok(changed).warning(taken.warnings))
    }

    fn check_name(&self, object: &Value) -> Result<(), ApiError> {
        let name = object::name(object);
        if name.is_empty() && self.call.part == Part::Main {
            return Err(ApiError::bad_request(
                "the name of the object ( based on URL) was undeterminable: name must be provided",
            ));
        }
        if !name.is_empty() && name != self.call.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.call.name
            )));
        }
        Ok(())
    }

    /// Checks and stores what an object is to be; deletes it if that was all it waited for.
    ///
    /// Errors: 409 for another version or uid, 422 for wrong fields.
    pub(super) fn store_changed(
        &mut self,
        key: Key,
        old: &Arc<Value>,
        mut object: Value,
    ) -> Result<Value, ApiError> {
        self.check_versions(&key, old, &object)?;
        self.check_namespace(&mut object)?;
        object::keep_meta(old, &mut object, "resourceVersion");
        for name in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
            "selfLink",
        ] {
            object::keep_meta(old, &mut object, name);
        }
        match self.call.part {
            Part::Status => object = self.with_status_of(old, &object),
            _ => self.prepare_changed(old, &mut object),
        }
        self.validate(&object, Some(old))?;
        let is_done = object::is_going(&object)
            && object::finalizers(&object).is_empty()
            && object
                .pointer("/metadata/deletionGracePeriodSeconds")
                .and_then(Value::as_i64)
                .unwrap_or_default()
                == 0
            && !(self.call.kind.is_core("namespaces")
                && object
                    .pointer("/spec/finalizers")
                    .and_then(Value::as_array)
                    .is_some_and(|list| !list.is_empty()));
        self.manage(Some(old), &mut object);
        if is_done {
            // Told as it would be now, at the version it had.
            let last = crate::read::present(&self.call.kind, &object);
            self.remove(key);
            return Ok(last);
        }
        if object == **old {
            return Ok(crate::read::present(&self.call.kind, old));
        }
        self.commit(key, object)
    }

    fn check_versions(&self, key: &Key, old: &Value, object: &Value) -> Result<(), ApiError> {
        let kind = self.call.kind.as_ref();
        let uid = object::uid(object);
        if !uid.is_empty() && uid != object::uid(old) {
            return Err(self.wrong_uid(key, uid, object::uid(old)));
        }
        let text = object::meta(object, "resourceVersion").unwrap_or_default();
        if text.is_empty() || text == "0" {
            if kind.custom().is_some() || kind.needs_version() {
                return Err(ApiError::version_required(kind, &key.name));
            }
            return Ok(());
        }
        let version: u64 = text.parse().map_err(|_| {
            ApiError::internal(format!(
                "strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })?;
        if version == object::version(old) {
            return Ok(());
        }
        Err(ApiError::conflict(kind, &key.name))
    }

    fn wrong_uid(&self, key: &Key, wanted: &str, stored: &str) -> ApiError {
        let kind = self.call.kind.as_ref();
        let path = if kind.namespaced {
            format!("{}/{}", key.namespace, key.name)
        } else {
            key.name.clone()
        };
        let folder = kind.storage_folder();
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{folder}/{path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {stored}"
        );
        ApiError::conflict_because(kind, &key.name, &why)
    }

    /// The stored object with the body's status, and what else a kind lets through.
    fn with_status_of(&self, old: &Value, object: &Value) -> Value {
        let kind = self.call.kind.as_ref();
        let mut out = old.clone();
        object::keep_field(object, &mut out, "status");
        if kind.builtin().is_some() {
            // Built-in kinds take the metadata too, but for what these two keep.
            let mut meta =
                json!({ "metadata": object.get("metadata").cloned().unwrap_or_default() });
            object::keep_meta(old, &mut meta, "generation");
            match kind.plural.as_str() {
                "deployments" => object::keep_meta(old, &mut meta, "labels"),
                "pods" => object::keep_meta(old, &mut meta, "ownerReferences"),
                _ => {}
            }
            metadata(&mut out).clone_from(metadata(&mut meta));
            prepare::keep_derived(kind, old, &mut out);
            defaults::fill(kind, &mut out);
        }
        out
    }
}
