//! Built-in types: what a body becomes when the server has read it into its own types and written
//! it out again.
//!
//! The shapes are data (`kinds/types.json`, made by `kinds/extract.py`). Unknown fields go and are
//! told of; nulls go; what is empty goes where the type says so, and comes where it must be.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::quantity;

const REFERENCE: &str = "#/components/schemas/";
/// The type of every object's metadata.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// All definitions, by name.
pub(crate) fn types() -> &'static Map<String, Value> {
    static TYPES: OnceLock<Map<String, Value>> = OnceLock::new();
    TYPES.get_or_init(|| {
        serde_json::from_str(include_str!("../kinds/types.json")).unwrap_or_default()
    })
}

/// A definition; null if there is none.
pub(crate) fn definition(name: &str) -> &'static Value {
    types().get(name).unwrap_or(&Value::Null)
}

/// A schema, or what it refers to, with the name of the latter.
pub(crate) fn resolve(schema: &'static Value) -> (&'static Value, &'static str) {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let name = reference.trim_start_matches(REFERENCE);
            (definition(name), name)
        }
        None => (schema, ""),
    }
}

/// A body as the server's types hold it.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) object: Value,
    /// Paths of fields that the type does not have, such as `spec.template.foo`.
    pub(crate) unknown: Vec<String>,
}

/// Reads a body into a type.
///
/// Errors: a field of another JSON type, as Go's decoder words it.
pub(crate) fn decode(type_name: &str, body: &Value) -> Result<Decoded, String> {
    let mut reader = Reader::default();
    let object = reader.object(definition_of(type_name), type_name, body)?;
    Ok(Decoded {
        object,
        unknown: reader.unknown,
    })
}

fn definition_of(name: &str) -> &'static Value {
    definition(name)
}

#[derive(Default)]
struct Reader {
    /// Field names on the way, for Go's messages.
    fields: Vec<String>,
    /// The way with indexes and keys, for unknown fields.
    path: Vec<String>,
    unknown: Vec<String>,
}

impl Reader {
    fn object(
        &mut self,
        schema: &'static Value,
        type_name: &str,
        body: &Value,
    ) -> Result<Value, String> {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return Ok(body.clone());
        };
        let Some(given) = body.as_object() else {
            return Err(self.mismatch(body, type_name, &format!("v1.{}", last(type_name))));
        };
        let mut out = Map::new();
        for (key, value) in given {
            let Some(field) = properties.get(key) else {
                self.unknown.push(self.path_to(key));
                continue;
            };
            if value.is_null() {
                continue;
            }
            self.fields.push(key.clone());
            self.path.push(key.clone());
            let value = self.value(field, type_name, value)?;
            self.fields.pop();
            self.path.pop();
            if !is_dropped(field, &value) {
                out.insert(key.clone(), value);
            }
        }
        for (key, field) in properties {
            if !out.contains_key(key)
                && let Some(value) = absent(field)
            {
                out.insert(key.clone(), value);
            }
        }
        Ok(Value::Object(out))
    }

    fn value(
        &mut self,
        field: &'static Value,
        holder: &str,
        value: &Value,
    ) -> Result<Value, String> {
        let (schema, name) = resolve(field);
        let kind = schema
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if schema.get("x-kubernetes-int-or-string").is_some() {
            return Ok(if name.ends_with(".Quantity") {
                quantity::canonical(value)
            } else {
                value.clone()
            });
        }
        match kind {
            "object" if schema.get("properties").is_some() => self.object(schema, name, value),
            "object" => self.map(schema, holder, value),
            "array" => self.array(schema, holder, value),
            "string" if value.is_string() => Ok(if name.is_empty() {
                value.clone()
            } else {
                moment(name, value)
            }),
            "integer" if value.is_i64() || value.is_u64() => Ok(value.clone()),
            "number" if value.is_number() => Ok(value.clone()),
            "boolean" if value.is_boolean() => Ok(value.clone()),
            "" => Ok(value.clone()),
            _ => Err(self.mismatch(value, holder, &go_type(schema, name))),
        }
    }

    fn map(
        &mut self,
        schema: &'static Value,
        holder: &str,
        value: &Value,
    ) -> Result<Value, String> {
        let Some(of) = schema
            .get("additionalProperties")
            .filter(|of| of.is_object())
        else {
            return Ok(value.clone());
        };
        let Some(given) = value.as_object() else {
            return Err(self.mismatch(value, holder, &go_type(schema, "")));
        };
        let mut out = Map::new();
        for (key, value) in given {
            self.path.push(key.clone());
            let read = if value.is_null() {
                zero(of)
            } else {
                self.value(of, holder, value)?
            };
            self.path.pop();
            out.insert(key.clone(), read);
        }
        Ok(Value::Object(out))
    }

    fn array(
        &mut self,
        schema: &'static Value,
        holder: &str,
        value: &Value,
    ) -> Result<Value, String> {
        let of = schema.get("items").unwrap_or(&Value::Null);
        let Some(given) = value.as_array() else {
            // Bytes are a text in base64.
            return Err(self.mismatch(value, holder, &go_type(schema, "")));
        };
        let mut out = Vec::with_capacity(given.len());
        for (index, value) in given.iter().enumerate() {
            let last = self.path.pop().unwrap_or_default();
            self.path.push(format!("{last}[{index}]"));
            let read = if value.is_null() {
                zero(of)
            } else {
                self.value(of, holder, value)?
            };
            self.path.pop();
            self.path.push(last);
            out.push(read);
        }
        Ok(Value::Array(out))
    }

    fn path_to(&self, key: &str) -> String {
        let way = self.path.join(".");
        if way.is_empty() {
            key.to_owned()
        } else {
            format!("{way}.{key}")
        }
    }

    fn mismatch(&self, value: &Value, holder: &str, wanted: &str) -> String {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if self.fields.is_empty() {
            return format!("json: cannot unmarshal {kind} into Go value of type {wanted}");
        }
        format!(
            "json: cannot unmarshal {kind} into Go struct field {}.{} of type {wanted}",
            last(holder),
            self.fields.join(".")
        )
    }
}

/// `Pod` of `io.k8s.api.core.v1.Pod`.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn go_type(schema: &'static Value, name: &str) -> String {
    let format = schema
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match schema
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        "string" => "string".to_owned(),
        "boolean" => "bool".to_owned(),
        "integer" if format.is_empty() => "int".to_owned(),
        "integer" => format.to_owned(),
        "array" => format!(
            "[]{}",
            schema.get("items").map(element_type).unwrap_or_default()
        ),
        "object" if schema.get("additionalProperties").is_some() => {
            format!(
                "map[string]{}",
                schema
                    .get("additionalProperties")
                    .map(element_type)
                    .unwrap_or_default()
            )
        }
        _ => format!("v1.{}", last(name)),
    }
}

fn element_type(schema: &'static Value) -> String {
    let (schema, name) = resolve(schema);
    go_type(schema, name)
}

/// What stands for null in a list or a map.
fn zero(schema: &'static Value) -> Value {
    let (schema, _) = resolve(schema);
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => json!(""),
        Some("integer") => json!(0),
        Some("boolean") => json!(false),
        Some("object") if schema.get("properties").is_some() => json!({}),
        _ => Value::Null,
    }
}

/// Whether Go leaves a value out: it is empty, and its field is neither a pointer nor kept always.
fn is_dropped(field: &'static Value, value: &Value) -> bool {
    let is = |key: &str| field.get(key).is_some();
    if is("x-always") {
        return false;
    }
    let (schema, _) = resolve(field);
    let is_struct = schema.get("properties").is_some();
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => {
            map.is_empty() && !is_struct && schema.get("additionalProperties").is_some()
        }
        Value::String(text) => text.is_empty() && !is("x-pointer"),
        Value::Bool(flag) => !flag && !is("x-pointer"),
        Value::Number(number) => number.as_f64() == Some(0.0) && !is("x-pointer"),
        Value::Null => true,
    }
}

/// What Go writes for a field that was not there; `None` where it writes nothing.
fn absent(field: &'static Value) -> Option<Value> {
    let default = field.get("default");
    let (schema, name) = resolve(field);
    if default.is_some_and(Value::is_object)
        && schema.get("properties").is_some()
        && field.get("x-pointer").is_none()
    {
        // A struct in a struct is always there, with what is always in it.
        return Reader::default().object(schema, name, &json!({})).ok();
    }
    let declared =
        default.filter(|value| !value.is_object() && **value != json!("") && **value != json!(0));
    if let Some(declared) = declared.filter(|value| **value != json!(false)) {
        return Some(declared.clone());
    }
    field.get("x-always")?;
    Some(
        default
            .filter(|value| !value.is_object())
            .cloned()
            .unwrap_or(Value::Null),
    )
}

/// Moments are written in UTC, with as many digits as their type has.
fn moment(type_name: &str, value: &Value) -> Value {
    let parsed = value
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let form = match last(type_name) {
        "Time" => "%Y-%m-%dT%H:%M:%SZ",
        "MicroTime" => "%Y-%m-%dT%H:%M:%S.%6fZ",
        _ => return value.clone(),
    };
    parsed.map_or_else(|| value.clone(), |at| json!(at.strftime(form).to_string()))
}
