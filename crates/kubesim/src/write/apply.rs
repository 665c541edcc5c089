//! Server-side apply, and what other writes mean for it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::managed::{Books, Writer};
use crate::object;
use crate::request::Part;
use crate::store::Key;

use super::{Answer, Turn};

impl Turn<'_> {
    /// An apply of what is not there yet.
    pub(super) fn apply_new(&mut self) -> Result<Answer, ApiError> {
        let taken = self.taken()?;
        let mut object = taken.object;
        let name = self.call.name.clone();
        object::metadata(&mut object).insert("name".to_owned(), Value::String(name));
        self.merged(Books::default(), &json!({}))?;
        Ok(Answer::created(self.store_new(object)?).warning(taken.warnings))
    }

    /// An apply of what is there.
    ///
    /// Errors: 409 for fields of others.
    pub(super) fn apply_changed(&mut self, key: Key, old: &Arc<Value>) -> Result<Answer, ApiError> {
        let warnings = self.taken()?.warnings;
        let shown = crate::read::present(&self.call.kind, old);
        let books = Books::of(old).unwrap_or_default();
        let merged = self.merged(books, &shown)?;
        let object = self.read_into(merged)?.object;
        let changed = self.store_changed(key, old, object)?;
        Ok(Answer::ok(changed).warning(warnings))
    }

    /// The object with what is applied; who owns what then is entered when it is stored.
    fn merged(&mut self, mut books: Books, object: &Value) -> Result<Value, ApiError> {
        let given = self.call.json()?.unwrap_or_default();
        let force = self.call.query.get("force") == "true";
        let (manager, schema) = (self.call.manager(), self.schema());
        let writer = self.writer(&manager);
        let mut merged = books.apply(schema, &writer, object, given.clone(), force)?;
        // What is applied may name the object that it is for.
        for name in ["uid", "resourceVersion"] {
            if object::meta(&given, name).is_some() {
                object::keep_meta(&given, &mut merged, name);
            }
        }
        self.books = Some(books);
        Ok(merged)
    }

    /// Enters who owns which field: as an apply has it, else the writer what it changes.
    pub(super) fn manage(&mut self, old: Option<&Value>, object: &mut Value) {
        // One empty entry ends the books, until the next apply.
        let ends = object.pointer("/metadata/managedFields") == Some(&json!([{}]));
        let known = old.and_then(Books::of);
        let known = known.filter(|_| !ends || self.call.part == Part::Status);
        match (self.books.take(), known, old) {
            (Some(books), _, _) => books.enter(object),
            (None, Some(mut books), Some(old)) => {
                if self.call.part != Part::Status {
                    let manager = self.call.manager();
                    books.update(self.schema(), &self.writer(&manager), old, object);
                }
                books.enter(object);
            }
            _ => {
                object::metadata(object).remove("managedFields");
            }
        }
    }

    /// The built-in type's name; none of a custom kind.
    fn schema(&self) -> &'static str {
        self.call.kind.builtin().map_or("", |row| row.schema)
    }

    fn writer<'w>(&'w self, manager: &'w str) -> Writer<'w> {
        Writer {
            manager,
            api_version: self.call.kind.api_version(),
            subresource: match self.call.part {
                Part::Status => "status",
                Part::Scale => "scale",
                _ => "",
            },
            now: self.now,
        }
    }
}
