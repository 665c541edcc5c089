//! Bodies of writes: is it an object of this kind, and which of its fields exist?

use serde_json::{Value, json};

use crate::builtin::BUILTINS;
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object::as_map;
use crate::{custom, events, typed};

use super::Turn;

/// A body that has been read.
pub(super) struct Taken {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

impl Turn<'_> {
    /// The object of the body.
    ///
    /// Errors: 400 if there is none, or none of this kind, or with unknown fields where the
    /// request wants to be told.
    pub(super) fn taken(&self) -> Result<Taken, ApiError> {
        let kind = self.call.kind.as_ref();
        let body = self.call.json()?.unwrap_or_else(|| json!({}));
        check_type(kind, &body)?;
        self.read_into(body)
    }

    /// Reads JSON into the kind's type.
    pub(super) fn read_into(&self, mut body: Value) -> Result<Taken, ApiError> {
        let kind = self.call.kind.as_ref();
        let top = as_map(&mut body);
        top.insert("apiVersion".to_owned(), json!(kind.api_version()));
        if kind.builtin().is_some() {
            top.insert("kind".to_owned(), json!(kind.kind));
        }
        let (object, unknown) = match (kind.builtin(), kind.custom()) {
            (Some(row), _) => {
                let decoded =
                    typed::decode(row.schema, &body).map_err(|why| unreadable(kind, &why))?;
                (decoded.object, decoded.unknown)
            }
            (None, Some(custom)) => {
                custom::read(custom, &body).map_err(|why| unreadable(kind, &why))?
            }
            (None, None) => (body, Vec::new()),
        };
        let warnings = self.judge_unknown(&unknown)?;
        let object = if kind.group == "events.k8s.io" {
            events::to_old(&object)
        } else {
            object
        };
        Ok(Taken { object, warnings })
    }

    fn judge_unknown(&self, unknown: &[String]) -> Result<Vec<String>, ApiError> {
        let texts: Vec<String> = unknown
            .iter()
            .map(|path| format!("unknown field {path:?}"))
            .collect();
        match self.call.query.get("fieldValidation") {
            "Ignore" => Ok(Vec::new()),
            "Strict" if !texts.is_empty() => {
                let why = format!("strict decoding error: {}", texts.join(", "));
                Err(unreadable(&self.call.kind, &why))
            }
            _ => Ok(texts),
        }
    }
}

fn unreadable(kind: &Kind, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: {why}",
        kind.kind, kind.version, kind.kind
    ))
}

fn check_type(kind: &Kind, body: &Value) -> Result<(), ApiError> {
    let told = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, name) = (told("apiVersion"), told("kind"));
    if kind.custom().is_some() {
        let missing =
            |what: &str| ApiError::bad_request(format!("Object '{what}' is missing in '{body}'"));
        if name.is_empty() {
            return Err(missing("Kind"));
        }
        if api_version.is_empty() {
            return Err(missing("apiVersion"));
        }
    }
    let is_other = (!name.is_empty() && name != kind.kind)
        || (!api_version.is_empty() && api_version != kind.api_version());
    if !is_other {
        return Ok(());
    }
    if kind.custom().is_some() && api_version == kind.api_version() {
        return Ok(()); // Validation complains.
    }
    Err(ApiError::bad_request(
        if kind.custom().is_some() && api_version != kind.api_version() {
            format!(
                "the API version in the data ({api_version}) does not match the expected API version ({})",
                kind.api_version()
            )
        } else {
            let given = if api_version.is_empty() {
                kind.api_version()
            } else {
                api_version.to_owned()
            };
            let name = if name.is_empty() { &kind.kind } else { name };
            let why = if is_builtin(&given, name) {
                format!(
                    "converting (v1.{name}) to (core.{}): unknown conversion",
                    kind.kind
                )
            } else {
                format!(
                    "no kind {name:?} is registered for version {given:?} in scheme \"pkg/runtime/scheme.go:110\""
                )
            };
            format!(
                "{name} in version {:?} cannot be handled as a {}: {why}",
                version_of(&given),
                kind.kind
            )
        },
    ))
}

/// Whether there is a built-in kind of this name and version.
fn is_builtin(api_version: &str, name: &str) -> bool {
    BUILTINS.iter().any(|row| {
        let own = if row.group.is_empty() {
            row.version.to_owned()
        } else {
            format!("{}/{}", row.group, row.version)
        };
        row.kind == name && own == api_version
    })
}

fn version_of(api_version: &str) -> &str {
    api_version.rsplit('/').next().unwrap_or(api_version)
}
