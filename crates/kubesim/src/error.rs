//! What a refused request is answered with: the server's own codes, reasons and messages.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;

/// A refusal, as the API server words it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    /// A token to go on with in spite of it.
    next: Option<String>,
}

/// One complaint about one field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
}

impl Cause {
    /// `Invalid value`, with the value as the server prints it.
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {why}", printed(value)),
            field: field.into(),
        }
    }

    /// `Required value`.
    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let rest = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        Self {
            reason: "FieldValueRequired",
            message: format!("Required value{rest}"),
            field: field.into(),
        }
    }

    /// What stands last when a schema complained: its rules were not asked.
    pub(crate) fn rules_not_checked() -> Self {
        Self::invalid(
            "<nil>",
            &Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        )
    }

    /// A complaint of another reason.
    pub(crate) fn of(reason: &'static str, field: impl Into<String>, message: String) -> Self {
        Self {
            reason,
            message,
            field: field.into(),
        }
    }

    /// `Too long`.
    pub(crate) fn too_long(field: impl Into<String>, most: usize) -> Self {
        Self {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {most} bytes"),
            field: field.into(),
        }
    }

    /// `Forbidden`.
    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {why}"),
            field: field.into(),
        }
    }

    /// `Unsupported value`, with those that are supported.
    pub(crate) fn unsupported(
        field: impl Into<String>,
        value: &Value,
        supported: &[String],
    ) -> Self {
        let known: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        Self {
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {}: supported values: {}",
                printed(value),
                known.join(", ")
            ),
            field: field.into(),
        }
    }

    fn text(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }
}

/// A value as it stands in the server's messages.
fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            next: None,
        }
    }

    fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// The same, with a token to go on with.
    pub(crate) fn offering(mut self, next: String) -> Self {
        self.next = Some(next);
        self
    }

    /// HTTP's code of it.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The one word for programs, such as `Conflict`; may be empty.
    pub fn reason(&self) -> &str {
        self.reason
    }

    /// 404: no such object.
    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} {name:?} not found", kind.resource()),
        )
        .with_details(kind.details(name, &kind.plural))
    }

    /// 404: the path leads nowhere.
    pub(crate) fn no_such_resource() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
        .with_details(json!({}))
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", text).with_details(json!({}))
    }

    /// 415: a patch or an object in a form that is not served.
    pub(crate) fn unsupported_media_type(supported: &str) -> Self {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {supported}"
        );
        Self::new(415, "UnsupportedMediaType", text)
    }

    /// 409: the name is taken.
    pub(crate) fn already_exists(kind: &Kind, name: &str, going: bool) -> Self {
        let prefix = if going {
            "object is being deleted: "
        } else {
            ""
        };
        let text = format!("{prefix}{} {name:?} already exists", kind.resource());
        Self::new(409, "AlreadyExists", text).with_details(kind.details(name, &kind.plural))
    }

    /// 409: another version is stored.
    pub(crate) fn conflict(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict_because(kind, name, why)
    }

    /// 409 with a reason of its own.
    pub(crate) fn conflict_because(kind: &Kind, name: &str, why: &str) -> Self {
        let text = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            kind.resource()
        );
        Self::new(409, "Conflict", text).with_details(kind.details(name, &kind.plural))
    }

    /// 409 of a DELETE, which names the kind where others name the resource.
    pub(crate) fn delete_conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let resource = if kind.group.is_empty() {
            kind.kind.clone()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let text = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", text).with_details(kind.details(name, &kind.kind))
    }

    /// 409 of a server-side apply: others own fields.
    pub(crate) fn apply_conflict(message: String, causes: &[Cause]) -> Self {
        let causes: Vec<Value> = causes.iter().map(cause_json).collect();
        Self::new(409, "Conflict", message).with_details(json!({ "causes": causes }))
    }

    /// 422: fields are wrong.
    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_of(&kind.group, &kind.kind, name, causes)
    }

    /// 422 about an object that is not stored, such as options.
    pub(crate) fn invalid_of(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes.iter().map(Cause::text).collect();
        let told = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".to_owned(), json!(name));
        }
        if !group.is_empty() {
            details.insert("group".to_owned(), json!(group));
        }
        details.insert("kind".to_owned(), json!(kind));
        let causes: Vec<Value> = causes.iter().map(cause_json).collect();
        details.insert("causes".to_owned(), Value::Array(causes));
        Self::new(
            422,
            "Invalid",
            format!("{qualified} {name:?} is invalid: {told}"),
        )
        .with_details(Value::Object(details))
    }

    /// 422 about the parameters of a list or a watch, if there are complaints.
    pub(crate) fn unless_none(causes: &[Cause]) -> Result<(), Self> {
        if causes.is_empty() {
            return Ok(());
        }
        Err(Self::invalid_of("meta.k8s.io", "ListOptions", "", causes))
    }

    /// 422 of a patch that cannot be applied.
    pub(crate) fn patch_refused() -> Self {
        let text = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", text).with_details(json!({}))
    }

    /// 404 of the namespace that an object was to be made in.
    pub(crate) fn namespace_not_found(name: &str) -> Self {
        Self::new(404, "NotFound", format!("namespaces {name:?} not found"))
            .with_details(json!({ "name": name, "kind": "namespaces" }))
    }

    /// 409 of a Pod that cannot be bound.
    pub(crate) fn binding_conflict(name: &str, why: &str) -> Self {
        let text = format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}");
        Self::new(409, "Conflict", text)
            .with_details(json!({ "name": name, "kind": "pods/binding" }))
    }

    /// 422 of an update without a version, which names the resource where others name the kind.
    pub(crate) fn version_required(kind: &Kind, name: &str) -> Self {
        let cause = Cause::invalid(
            "metadata.resourceVersion",
            &json!(0),
            "must be specified for an update",
        );
        Self::invalid_of(&kind.group, &kind.plural, name, &[cause])
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 403.
    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let text = format!("{} {name:?} is forbidden: {why}", kind.resource());
        Self::new(403, "Forbidden", text).with_details(kind.details(name, &kind.plural))
    }

    /// 403 in a namespace that is going.
    pub(crate) fn namespace_terminating(kind: &Kind, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut error = Self::forbidden(kind, name, &why);
        if let Some(Value::Object(details)) = &mut error.details {
            let cause = json!({
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            });
            details.insert("causes".to_owned(), json!([cause]));
        }
        error
    }

    /// 410: the version asked for is no longer kept.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: bigger than a request may be.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 429: a disruption budget says no.
    pub(crate) fn too_many_requests(message: &str, details: Value) -> Self {
        Self::new(429, "TooManyRequests", message).with_details(details)
    }

    /// 504: a version that is not there yet.
    pub(crate) fn version_too_large(wanted: u64, current: u64) -> Self {
        let text = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        Self::new(504, "Timeout", text).with_details(json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1,
        }))
    }

    /// 500 without a reason, as the server answers what it did not foresee.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// The `Status` object on the wire.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if let Some(object) = status.as_object_mut() {
            if !self.reason.is_empty() {
                object.insert("reason".to_owned(), json!(self.reason));
            }
            if let Some(details) = &self.details {
                object.insert("details".to_owned(), details.clone());
            }
            if let Some(next) = &self.next {
                object.insert("metadata".to_owned(), json!({ "continue": next }));
            }
        }
        status
    }
}

fn cause_json(cause: &Cause) -> Value {
    json!({ "reason": cause.reason, "message": cause.message, "field": cause.field })
}
