//! Server-side apply.

use std::sync::Arc;

use serde_json::Value;

use crate::error::ApiError;
use crate::object;
use crate::store::Key;

use super::{Answer, Turn};

impl Turn<'_> {
    /// An apply of what is not there yet.
    pub(super) fn apply_new(&mut self) -> Result<Answer, ApiError> {
        let taken = self.taken()?;
        let mut object = taken.object;
        let name = self.call.name.clone();
        object::metadata(&mut object).insert("name".to_owned(), Value::String(name));
        Ok(Answer::created(self.store_new(object)?).warning(taken.warnings))
    }

    /// An apply of what is there.
    pub(super) fn apply_changed(&mut self, key: Key, old: &Arc<Value>) -> Result<Answer, ApiError> {
        let body = self.call.json()?.unwrap_or_default();
        let mut merged = crate::read::present(&self.call.kind, old);
        json_patch::merge(&mut merged, &body);
        let taken = self.read_into(merged)?;
        let changed = self.store_changed(key, old, taken.object)?;
        Ok(Answer::ok(changed).warning(taken.warnings))
    }

    /// Notes who owns which field.
    #[expect(
        clippy::unused_self,
        reason = "ownership is noted from the next step on"
    )]
    pub(super) fn manage(&self, old: Option<&Value>, object: &mut Value) {
        match old {
            Some(old) => object::keep_meta(old, object, "managedFields"),
            None => {
                object::metadata(object).remove("managedFields");
            }
        }
    }
}
