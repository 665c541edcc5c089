//! Custom kinds: from a `CustomResourceDefinition` to kinds that are served, and what its schema
//! says of their objects.

use std::sync::Arc;

use kube_cel::{CompiledSchema, Validator};
use serde_json::{Map, Value, json};

use crate::error::Cause;

use crate::kinds::{Form, Kind, Kinds, ScalePaths, qualified};
use crate::object::{as_map, text};
use crate::request::Part;
use crate::store::{Change, Commit};
use crate::structural::Path;
use crate::{structural, typed};

/// A column of `kubectl get`.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// One version of a `CustomResourceDefinition`, ready for use.
#[derive(Debug)]
pub(crate) struct Custom {
    /// The structural schema as the definition has it.
    pub(crate) schema: Value,
    /// Its CEL rules.
    pub(crate) rules: CompiledSchema,
    pub(crate) columns: Vec<Column>,
    /// Field paths without the leading dot.
    pub(crate) selectable: Vec<String>,
}

/// The kinds of a definition: its served versions.
pub(crate) fn kinds_of(definition: &Value) -> Vec<Kind> {
    let spec = definition.get("spec").unwrap_or(&Value::Null);
    let versions = list(spec, "versions");
    let served = versions
        .iter()
        .filter(|version| version.get("served") == Some(&json!(true)));
    served.map(|version| kind_of(spec, version)).collect()
}

fn kind_of(spec: &Value, version: &Value) -> Kind {
    let owned = |at: &str| text(spec, at).to_owned();
    let words = |at: &str| texts(spec.pointer(at));
    let schema = version
        .pointer("/schema/openAPIV3Schema")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let (group, plural) = (owned("/group"), owned("/names/plural"));
    let or = |given: String, other: String| if given.is_empty() { other } else { given };
    let scale = version
        .pointer("/subresources/scale")
        .map(|scale| ScalePaths {
            spec: pointer_of(text(scale, "/specReplicasPath")),
            status: pointer_of(text(scale, "/statusReplicasPath")),
            selector: scale
                .get("labelSelectorPath")
                .and_then(Value::as_str)
                .map(pointer_of),
        });
    Kind {
        version: text(version, "/name").to_owned(),
        kind: owned("/names/kind"),
        list_kind: or(
            owned("/names/listKind"),
            format!("{}List", owned("/names/kind")),
        ),
        singular: or(
            owned("/names/singular"),
            owned("/names/kind").to_lowercase(),
        ),
        short_names: words("/names/shortNames"),
        categories: words("/names/categories"),
        namespaced: text(spec, "/scope") == "Namespaced",
        has_status: version.pointer("/subresources/status").is_some(),
        scale,
        storage: Arc::from(qualified(&plural, &group)),
        form: Form::Custom(Box::new(Custom {
            rules: kube_cel::compile_schema(&schema),
            columns: list(version, "additionalPrinterColumns")
                .iter()
                .map(column)
                .collect(),
            selectable: list(version, "selectableFields")
                .iter()
                .map(|field| text(field, "/jsonPath").trim_start_matches('.').to_owned())
                .collect(),
            schema,
        })),
        group,
        plural,
    }
}

fn column(from: &Value) -> Column {
    let owned = |at: &str| text(from, at).to_owned();
    Column {
        name: owned("/name"),
        kind: owned("/type"),
        format: owned("/format"),
        description: owned("/description"),
        priority: from
            .get("priority")
            .and_then(Value::as_i64)
            .unwrap_or_default(),
        path: owned("/jsonPath"),
    }
}

/// `.spec.replicas` as a JSON pointer.
fn pointer_of(path: &str) -> String {
    path.replace('.', "/")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// The resource of definitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Serves what a changed definition says.
pub(crate) fn follow(kinds: &mut Kinds, commit: &Commit) {
    let definition = &commit.new;
    let (group, plural) = (
        text(definition, "/spec/group"),
        text(definition, "/spec/names/plural"),
    );
    let served = match commit.change {
        Change::Deleted => Vec::new(),
        Change::Created | Change::Updated => kinds_of(definition),
    };
    kinds.replace_custom(group, plural, served);
}

/// A body as the definition's schema has it, and the paths of what was not in it.
///
/// Errors: metadata of another JSON type.
pub(crate) fn read(custom: &Custom, body: &Value) -> Result<(Value, Vec<String>), String> {
    let mut unknown = Vec::new();
    let mut object = prune_root(&custom.schema, body, &mut unknown);
    let given = body.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let decoded = typed::decode(typed::OBJECT_META, &given)?;
    unknown.extend(
        decoded
            .unknown
            .into_iter()
            .map(|path| format!("metadata.{path}")),
    );
    as_map(&mut object).insert("metadata".to_owned(), decoded.object);
    Ok((kube_cel::apply_defaults(&custom.schema, &object), unknown))
}

fn prune_root(schema: &Value, body: &Value, unknown: &mut Vec<String>) -> Value {
    let Some(given) = body.as_object() else {
        return body.clone();
    };
    let mut rest = given.clone();
    let own: Vec<(String, Value)> = ["apiVersion", "kind", "metadata"]
        .iter()
        .filter_map(|key| rest.remove(*key).map(|value| ((*key).to_owned(), value)))
        .collect();
    let mut object = prune(schema, &Value::Object(rest), "", unknown);
    as_map(&mut object).extend(own);
    object
}

/// A value without what its schema does not know, and without nulls of fields that can't be null.
fn prune(schema: &Value, value: &Value, path: &str, unknown: &mut Vec<String>) -> Value {
    let keeps = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            let mut out = Map::new();
            for (key, inner) in map {
                let at = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let known = properties.and_then(|properties| properties.get(key));
                match known.or(additional.filter(|one| one.is_object())) {
                    Some(of) if inner.is_null() && of.get("nullable") != Some(&json!(true)) => {}
                    Some(of) => {
                        out.insert(key.clone(), prune(of, inner, &at, unknown));
                    }
                    None if keeps || additional == Some(&json!(true)) => {
                        out.insert(key.clone(), inner.clone());
                    }
                    None => unknown.push(at),
                }
            }
            Value::Object(out)
        }
        Value::Array(list) => {
            let of = schema.get("items").unwrap_or(&Value::Null);
            let each = list
                .iter()
                .enumerate()
                .map(|(index, one)| prune(of, one, &format!("{path}[{index}]"), unknown));
            Value::Array(each.collect())
        }
        _ => value.clone(),
    }
}

/// Complaints after which the server does not ask the rules, by reason.
const BLOCKING: &[&str] = &[
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];

/// Complaints of the schema, and of its rules unless a complaint stands in their way.
///
/// What else is stored is not looked at again when the status is written.
pub(crate) fn validate(
    custom: &Custom,
    validator: &Validator,
    object: &Value,
    old: Option<&Value>,
    part: Part,
    causes: &mut Vec<Cause>,
) {
    if part == Part::Status {
        if let Some(status) = object.get("status")
            && let Some(schema) = custom.schema.pointer("/properties/status")
        {
            structural::check(schema, status, &mut Path::part("status"), causes);
        }
    } else {
        structural::check(&custom.schema, object, &mut Path::default(), causes);
    }
    if !has_rules(&custom.schema) {
        return;
    }
    if causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
        causes.push(Cause::rules_not_checked());
    } else {
        check_rules(custom, validator, object, old, causes);
    }
}

/// Complaints of the schema's rules.
pub(crate) fn check_rules(
    custom: &Custom,
    validator: &Validator,
    object: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
) {
    let Err(failures) = validator.validate_compiled(&custom.rules, object, old) else {
        return;
    };
    let mut failures = failures.into_vec();
    failures.sort_by(|a, b| (&a.field_path, &a.message).cmp(&(&b.field_path, &b.message)));
    for failure in failures {
        let at = structural::value_at(object, &failure.field_path);
        let value = json!(structural::type_name(at.unwrap_or(&Value::Null)));
        causes.push(Cause::invalid(failure.field_path, &value, &failure.message));
    }
}

/// Whether any part of a schema has a rule.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.contains_key("x-kubernetes-validations") || map.values().any(has_rules)
        }
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

/// What the server writes into the status of a definition: its names are taken, it is served.
pub(crate) fn establish(definition: &mut Value, now: jiff::Timestamp) {
    let spec = definition.get("spec").cloned().unwrap_or_default();
    let mut names = spec.get("names").cloned().unwrap_or_default();
    let kind = text(&names, "/kind").to_owned();
    let own = as_map(&mut names);
    own.entry("listKind")
        .or_insert_with(|| json!(format!("{kind}List")));
    own.entry("singular")
        .or_insert_with(|| json!(kind.to_lowercase()));
    let since = definition
        .pointer("/status/conditions/0/lastTransitionTime")
        .cloned()
        .unwrap_or_else(|| json!(crate::clock::seconds(now)));
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": "True",
            "lastTransitionTime": since,
            "reason": reason,
            "message": message,
        })
    };
    let stored: Vec<Value> = list(&spec, "versions")
        .iter()
        .filter(|version| version.get("storage") == Some(&json!(true)))
        .filter_map(|version| version.get("name").cloned())
        .collect();
    let status = json!({
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": names,
        "storedVersions": stored,
    });
    as_map(definition).insert("status".to_owned(), status);
    let spec = crate::object::map_at(definition, "spec");
    spec.insert("names".to_owned(), names);
    spec.entry("conversion")
        .or_insert_with(|| json!({ "strategy": "None" }));
}
