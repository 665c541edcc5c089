//! Patches: how a body changes an object.

use serde_json::Value;

use crate::error::{ApiError, Cause};
use crate::request::Call;

pub(crate) mod strategic;

/// The forms of a patch, by content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Form {
    /// The form of a call's body, and whether its options fit.
    ///
    /// Errors: 415 for a form the kind does not take, 422 for options of another form.
    pub(crate) fn read(call: &Call) -> Result<Self, ApiError> {
        let builtin = call.kind.builtin().is_some();
        let form = match call
            .content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
        {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" if builtin => Self::Strategic,
            "application/apply-patch+yaml" => Self::Apply,
            _ => {
                return Err(ApiError::unsupported_media_type(if builtin {
                    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
                } else {
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                }));
            }
        };
        let cause = if form == Self::Apply && call.query.get("fieldManager").is_empty() {
            Cause::required("fieldManager", "is required for apply patch")
        } else if form != Self::Apply && call.query.has("force") {
            Cause::forbidden("force", "may not be specified for non-apply patch")
        } else {
            return Ok(form);
        };
        Err(ApiError::invalid_of(
            "meta.k8s.io",
            "PatchOptions",
            "",
            &[cause],
        ))
    }
}

/// The object after a patch of one of the first three forms.
///
/// Errors: 400 for a patch that is none, 422 for one that does not fit the object.
pub(crate) fn apply(form: Form, call: &Call, object: &Value) -> Result<Value, ApiError> {
    let undecodable =
        |why: &dyn std::fmt::Display| ApiError::bad_request(format!("error decoding patch: {why}"));
    let patch: Value = serde_json::from_slice(&call.body).map_err(|error| {
        if error.is_eof() {
            undecodable(&"unexpected end of JSON input")
        } else {
            undecodable(&error)
        }
    })?;
    let mut out = object.clone();
    match form {
        Form::Json => {
            if !patch.is_array() {
                let why =
                    "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";
                return Err(undecodable(&why));
            }
            let patch: json_patch::Patch =
                serde_json::from_value(patch).map_err(|error| undecodable(&error))?;
            json_patch::patch(&mut out, &patch).map_err(|_| ApiError::patch_refused())?;
        }
        _ if !patch.is_object() => {
            let why = "json: cannot unmarshal array into Go value of type map[string]interface {}";
            return Err(undecodable(&why));
        }
        Form::Strategic => {
            let schema = call.kind.builtin().map_or("", |row| row.schema);
            strategic::merge(schema, &mut out, &patch).map_err(ApiError::bad_request)?;
        }
        Form::Merge | Form::Apply => json_patch::merge(&mut out, &patch),
    }
    Ok(out)
}
