//! Is an object one that may be stored? Metadata of every kind, schemas and rules of custom ones,
//! and what of the built-in ones their clients rely on.

use serde_json::{Value, json};

use crate::custom;
use crate::error::{ApiError, Cause};
use crate::object;

use super::Turn;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
/// The longest name of an object.
const MAX_NAME: usize = 253;
/// The longest label value, and the longest name that is a DNS label.
const MAX_LABEL: usize = 63;
/// How many bytes all annotations may have.
const MAX_ANNOTATIONS: usize = 256 * 1024;

impl Turn<'_> {
    /// Errors: 422 with every complaint.
    pub(super) fn validate(&self, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        let kind = self.call.kind.as_ref();
        let mut causes = Vec::new();
        if let Some(custom) = kind.custom()
            && object::text(object, "/kind") != kind.kind
        {
            // Who names another kind is told that, and what the rules say.
            let told = object::text(object, "/kind");
            let why = format!("must be {}", kind.kind);
            causes.push(Cause::invalid("kind", &json!(told), &why));
            custom::check_rules(custom, &self.state.validator, object, old, &mut causes);
            let name = object::name(object);
            return Err(ApiError::invalid_of(&kind.group, told, name, &causes));
        }
        self.check_metadata(object, old, &mut causes);
        match kind.custom() {
            Some(custom) => {
                let validator = &self.state.validator;
                custom::validate(custom, validator, object, old, self.call.part, &mut causes);
            }
            None => super::rules::check(kind, object, old, &mut causes),
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(kind, object::name(object), &causes))
    }

    fn check_metadata(&self, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
        let kind = self.call.kind.as_ref();
        self.check_name_form(object, causes);
        check_labels(object, causes);
        check_annotations(object, causes);
        check_owners(object, causes);
        let known_only = kind.builtin().is_some() && kind.group != "coordination.k8s.io";
        check_finalizers(object, known_only, causes);
        if let Some(old) = old {
            check_no_new_finalizers(old, object, causes);
        }
    }

    fn check_name_form(&self, object: &Value, causes: &mut Vec<Cause>) {
        let name = object::name(object);
        let kind = self.call.kind.as_ref();
        let is_label = kind.is_core("namespaces")
            || kind.is_core("services")
            || (kind.builtin().is_some() && kind.plural == "statefulsets");
        let (longest, why, dots) = if is_label {
            (MAX_LABEL, LABEL, false)
        } else {
            (MAX_NAME, SUBDOMAIN, true)
        };
        if name.is_empty() {
            causes.push(Cause::required(
                "metadata.name",
                "name or generateName is required",
            ));
            return;
        }
        if name.len() > longest {
            let why = format!("must be no more than {longest} characters");
            causes.push(Cause::invalid("metadata.name", &json!(name), &why));
        }
        if !is_dns_name(name, dots) {
            causes.push(Cause::invalid("metadata.name", &json!(name), why));
        }
    }
}

fn is_dns_name(name: &str, dots: bool) -> bool {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if dots {
        name.split('.').all(is_label)
    } else {
        is_label(name)
    }
}

/// Letters, digits, `-`, `_` and `.`, beginning and ending with one of the first two.
fn is_word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && edge(text.chars().next())
        && edge(text.chars().last())
}

/// What is wrong with `name` or `domain/name`.
fn qualified_name_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else if !is_dns_name(prefix, true) {
                faults.push(format!("prefix part {SUBDOMAIN}"));
            }
            name
        }
        None => text,
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > MAX_LABEL {
        faults.push(format!(
            "name part must be no more than {MAX_LABEL} characters"
        ));
    }
    if !is_word(name) {
        faults.push(QUALIFIED.to_owned());
    }
    faults
}

fn check_labels(object: &Value, causes: &mut Vec<Cause>) {
    labels(
        object.pointer("/metadata/labels"),
        "metadata.labels",
        causes,
    );
}

/// Complains of labels at some field.
pub(super) fn labels(labels: Option<&Value>, field: &str, causes: &mut Vec<Cause>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        for fault in qualified_name_faults(key) {
            causes.push(Cause::invalid(field, &json!(key), &fault));
        }
        let value = value.as_str().unwrap_or_default();
        if value.len() > MAX_LABEL {
            let why = format!("must be no more than {MAX_LABEL} bytes");
            causes.push(Cause::invalid(field, &json!(value), &why));
        }
        if !value.is_empty() && !is_word(value) {
            causes.push(Cause::invalid(field, &json!(value), LABEL_VALUE));
        }
    }
}

fn check_annotations(object: &Value, causes: &mut Vec<Cause>) {
    let annotations = object
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        for fault in qualified_name_faults(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), &fault));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        causes.push(Cause::too_long("metadata.annotations", MAX_ANNOTATIONS));
    }
}

fn check_owners(object: &Value, causes: &mut Vec<Cause>) {
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let mut controllers = 0;
    for owner in owners.into_iter().flatten() {
        let field = |name: &str| format!("metadata.ownerReferences.{name}");
        for name in ["apiVersion", "kind", "name", "uid"] {
            let given = object::text(owner, &format!("/{name}"));
            if given.is_empty() {
                let why = if name == "apiVersion" {
                    "version must not be empty"
                } else {
                    "must not be empty"
                };
                causes.push(Cause::invalid(field(name), &json!(given), why));
            }
        }
        controllers += usize::from(owner.get("controller") == Some(&json!(true)));
    }
    if controllers > 1 {
        let names: Vec<&Value> = owners.into_iter().flatten().collect();
        let why = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid(
            "metadata.ownerReferences",
            &json!(names),
            why,
        ));
    }
}

fn check_finalizers(object: &Value, builtin: bool, causes: &mut Vec<Cause>) {
    for (index, name) in object::finalizers(object).into_iter().enumerate() {
        for fault in qualified_name_faults(name) {
            causes.push(Cause::invalid("metadata.finalizers", &json!(name), &fault));
        }
        let is_known =
            name.contains('/') || matches!(name, "orphan" | "foregroundDeletion" | "kubernetes");
        if builtin && !is_known {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(
                format!("metadata.finalizers[{index}]"),
                &json!(name),
                why,
            ));
        }
    }
}

fn check_no_new_finalizers(old: &Value, object: &Value, causes: &mut Vec<Cause>) {
    if !object::is_going(old) {
        return;
    }
    let before = object::finalizers(old);
    let new: Vec<String> = object::finalizers(object)
        .into_iter()
        .filter(|name| !before.contains(name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !new.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            new.join(", ")
        );
        causes.push(Cause::forbidden("metadata.finalizers", &why));
    }
}
