//! OpenAPI v3, as `kubectl` reads it: types for `explain`, and parameters that tell it what the
//! server checks itself.

use http::{Method, Response};
use serde_json::{Map, Value, json};

use crate::body::ResponseBody;
use crate::kinds::{Kind, Kinds};
use crate::server::reply;
use crate::typed;

const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// What the server says of the fields that every custom kind has.
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The answer, if the path is one of OpenAPI.
pub(crate) fn answer(kinds: &Kinds, head: &http::request::Parts) -> Option<Response<ResponseBody>> {
    if head.method != Method::GET {
        return None;
    }
    let path = head.uri.path().strip_prefix("/openapi/v3")?;
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Some(reply(200, &index(kinds), &[]));
    }
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", (*version).to_owned()),
        ["apis", group, version] => (*group, (*version).to_owned()),
        _ => return None,
    };
    let here: Vec<&Kind> = kinds
        .all()
        .filter(|kind| kind.group == group && kind.version == version)
        .map(AsRef::as_ref)
        .collect();
    if here.is_empty() {
        return None;
    }
    Some(reply(200, &document(&here), &[]))
}

/// Where a group version is served.
fn root(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn index(kinds: &Kinds) -> Value {
    let mut paths = Map::new();
    for kind in kinds.all() {
        let root = root(kind);
        let url = format!("/openapi/v3/{root}");
        paths.insert(root, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

fn document(kinds: &[&Kind]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in kinds {
        let name = schema_name(kind);
        match kind.custom() {
            Some(custom) => {
                let mut schema = custom.schema.clone();
                if let Value::Object(map) = &mut schema {
                    map.insert(
                        "x-kubernetes-group-version-kind".to_owned(),
                        json!([type_of(kind)]),
                    );
                    let properties = map.entry("properties").or_insert_with(|| json!({}));
                    if let Value::Object(properties) = properties {
                        for (name, text) in [("apiVersion", API_VERSION), ("kind", KIND)] {
                            let schema = json!({ "type": "string", "description": text });
                            properties.insert(name.to_owned(), schema);
                        }
                        let meta = json!({
                            "description": METADATA,
                            "allOf": [{ "$ref": reference(typed::OBJECT_META) }],
                        });
                        properties.insert("metadata".to_owned(), meta);
                    }
                }
                schemas.insert(name.clone(), schema);
                collect(typed::OBJECT_META, &mut schemas);
            }
            None => collect(&name, &mut schemas),
        }
        let space = if kind.namespaced {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let collection = format!("/{}/{space}{}", root(kind), kind.plural);
        paths.insert(
            collection.clone(),
            json!({ "post": operation(kind, "post", &[]) }),
        );
        let mut patches = PATCHES.to_vec();
        if kind.builtin().is_some() {
            patches.push(STRATEGIC);
        }
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "get": operation(kind, "get", &[]),
                "put": operation(kind, "put", &[]),
                "patch": operation(kind, "patch", &patches),
                "delete": operation(kind, "delete", &[]),
            }),
        );
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.34.4" },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn type_of(kind: &Kind) -> Value {
    json!({ "group": kind.group, "version": kind.version, "kind": kind.kind })
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

fn schema_name(kind: &Kind) -> String {
    if let Some(row) = kind.builtin() {
        return row.schema.to_owned();
    }
    let group: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
}

fn operation(kind: &Kind, verb: &str, patches: &[&str]) -> Value {
    let names: &[&str] = match verb {
        "get" => &["pretty"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" => &[
            "dryRun",
            "gracePeriodSeconds",
            "orphanDependents",
            "propagationPolicy",
        ],
        _ => &["dryRun", "fieldManager", "fieldValidation"],
    };
    let parameters: Vec<Value> = names
        .iter()
        .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } }))
        .collect();
    let schema = json!({ "$ref": reference(&schema_name(kind)) });
    let mut operation = json!({
        "parameters": parameters,
        "responses": { "200": { "description": "OK", "content": { "application/json": { "schema": schema } } } },
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": type_of(kind),
    });
    let content: Map<String, Value> = match verb {
        "patch" => patches
            .iter()
            .map(|form| {
                (
                    (*form).to_owned(),
                    json!({ "schema": { "type": "object" } }),
                )
            })
            .collect(),
        "post" | "put" => {
            Map::from_iter([("application/json".to_owned(), json!({ "schema": schema }))])
        }
        _ => return operation,
    };
    if let Value::Object(map) = &mut operation {
        map.insert(
            "requestBody".to_owned(),
            json!({ "content": content, "required": true }),
        );
    }
    operation
}

/// A definition and all it refers to, without the marks of ours.
fn collect(name: &str, into: &mut Map<String, Value>) {
    if into.contains_key(name) {
        return;
    }
    let mut schema = typed::definition(name).clone();
    into.insert(name.to_owned(), Value::Null);
    let mut found = Vec::new();
    clean(&mut schema, &mut found);
    into.insert(name.to_owned(), schema);
    for name in found {
        collect(&name, into);
    }
}

fn clean(schema: &mut Value, references: &mut Vec<String>) {
    let Value::Object(map) = schema else { return };
    map.remove("x-pointer");
    map.remove("x-always");
    if let Some(Value::String(target)) = map.get("$ref").cloned() {
        references.push(target.rsplit('/').next().unwrap_or_default().to_owned());
        map.remove("$ref");
        map.insert("allOf".to_owned(), json!([{ "$ref": target }]));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            clean(inner, references);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for inner in properties.values_mut() {
            clean(inner, references);
        }
    }
}
