//! Structural schemas: does a custom object fit the definition's?

use serde_json::{Value, json};

use crate::error::Cause;

/// Where in an object one is, as the server writes it: `spec.ips[0]`, `metadata.labels[a]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    text: String,
    /// Where the part begins that is checked: sentences name the rest of the path.
    from: usize,
}

impl Path {
    /// A field of the object, to be checked by itself.
    pub(crate) fn part(name: &str) -> Self {
        Self {
            text: name.to_owned(),
            from: name.len() + 1,
        }
    }

    fn field(&self, name: &str) -> Self {
        let text = if self.text.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.text)
        };
        let from = self.from;
        Self { text, from }
    }

    fn index(&self, index: usize) -> Self {
        let (text, from) = (format!("{}[{index}]", self.text), self.from);
        Self { text, from }
    }

    /// As a sentence names it.
    fn told(&self) -> &str {
        self.text.get(self.from..).unwrap_or_default()
    }
}

/// Complains of everything that does not fit.
pub(crate) fn check(schema: &Value, value: &Value, path: &mut Path, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.get("nullable") == Some(&json!(true)) {
        return;
    }
    if !has_type(schema, value) {
        let (found, wanted) = (
            type_name(value),
            schema
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        );
        let message = format!(
            "Invalid value: \"{found}\": {} in body must be of type {wanted}: \"{found}\"",
            path.told()
        );
        causes.push(Cause::of(
            "FieldValueTypeInvalid",
            path.text.clone(),
            message,
        ));
        check_enum(schema, value, path, causes);
        return;
    }
    check_enum(schema, value, path, causes);
    match value {
        Value::Object(_) => check_object(schema, value, path, causes),
        Value::Array(list) => check_array(schema, list, path, causes),
        Value::String(text) => check_text(schema, text, path, causes),
        Value::Number(_) => check_number(schema, value, path, causes),
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_enum(schema: &Value, value: &Value, path: &Path, causes: &mut Vec<Cause>) {
    if let Some(Value::Array(allowed)) = schema.get("enum")
        && !allowed.contains(value)
    {
        let texts: Vec<String> = allowed
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect();
        causes.push(Cause::unsupported(path.text.clone(), value, &texts));
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if schema.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => {
            value.is_i64()
                || value.is_u64()
                || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        Some("number") => value.is_number(),
        _ => true,
    }
}

/// A value's type as messages name it.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_object(schema: &Value, value: &Value, path: &Path, causes: &mut Vec<Cause>) {
    let Some(map) = value.as_object() else { return };
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !map.contains_key(name) {
            causes.push(Cause::required(path.field(name).text, ""));
        }
    }
    let count = |key: &str| {
        schema
            .get(key)
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
    };
    if let Some(most) = count("maxProperties")
        && map.len() > most
    {
        let message = format!("Too many: {}: must have at most {most} items", map.len());
        causes.push(Cause::of("FieldValueTooMany", path.text.clone(), message));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema
        .get("additionalProperties")
        .filter(|one| one.is_object());
    for (key, inner) in map {
        let of = properties
            .and_then(|properties| properties.get(key))
            .or(additional);
        if let Some(of) = of {
            check(of, inner, &mut path.field(key), causes);
        }
    }
}

fn check_array(schema: &Value, list: &[Value], path: &Path, causes: &mut Vec<Cause>) {
    let count = |key: &str| {
        schema
            .get(key)
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
    };
    if let Some(most) = count("maxItems")
        && list.len() > most
    {
        let message = format!("Too many: {}: must have at most {most} items", list.len());
        causes.push(Cause::of("FieldValueTooMany", path.text.clone(), message));
    }
    if let Some(least) = count("minItems")
        && list.len() < least
    {
        let why = format!("{} in body should have at least {least} items", path.told());
        causes.push(Cause::invalid(path.text.clone(), &json!(list.len()), &why));
    }
    let of = schema.get("items").unwrap_or(&Value::Null);
    for (index, inner) in list.iter().enumerate() {
        check(of, inner, &mut path.index(index), causes);
    }
    check_unique(schema, list, path, causes);
}

fn check_unique(schema: &Value, list: &[Value], path: &Path, causes: &mut Vec<Cause>) {
    let kind = schema
        .get("x-kubernetes-list-type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let identity = |one: &Value| match kind {
        "map" => {
            let pairs = keys
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), one.get(key)?.clone())));
            Some(Value::Object(pairs.collect()))
        }
        "set" => Some(one.clone()),
        _ => None,
    };
    let mut seen: Vec<Value> = Vec::new();
    for (index, one) in list.iter().enumerate() {
        let Some(identity) = identity(one) else {
            return;
        };
        if seen.contains(&identity) {
            let message = format!("Duplicate value: {identity}");
            causes.push(Cause::of(
                "FieldValueDuplicate",
                path.index(index).text,
                message,
            ));
        }
        seen.push(identity);
    }
}

fn check_text(schema: &Value, text: &str, path: &Path, causes: &mut Vec<Cause>) {
    let count = |key: &str| {
        schema
            .get(key)
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
    };
    let length = text.chars().count();
    if let Some(most) = count("maxLength")
        && length > most
    {
        causes.push(Cause::too_long(path.text.clone(), most));
    }
    if let Some(least) = count("minLength")
        && length < least
    {
        let why = format!(
            "{} in body should be at least {least} chars long",
            path.told()
        );
        causes.push(Cause::invalid(path.text.clone(), &json!(text), &why));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
    {
        let why = format!("{} in body should match '{pattern}'", path.told());
        causes.push(Cause::invalid(path.text.clone(), &json!(text), &why));
    }
    if schema.get("format").and_then(Value::as_str) == Some("date-time")
        && text.parse::<jiff::Timestamp>().is_err()
    {
        let why = format!(
            "{} in body must be of type date-time: {text:?}",
            path.told()
        );
        causes.push(Cause::of(
            "FieldValueInvalid",
            path.text.clone(),
            format!("Invalid value: {text:?}: {why}"),
        ));
    }
}

fn check_number(schema: &Value, value: &Value, path: &Path, causes: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    if let Some(least) = bound("minimum")
        && number < least
    {
        let why = format!(
            "{} in body should be greater than or equal to {least}",
            path.told()
        );
        causes.push(Cause::invalid(path.text.clone(), value, &why));
    }
    if let Some(most) = bound("maximum")
        && number > most
    {
        let why = format!(
            "{} in body should be less than or equal to {most}",
            path.told()
        );
        causes.push(Cause::invalid(path.text.clone(), value, &why));
    }
}

/// The value at a path such as `spec.ips[0]`.
pub(crate) fn value_at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let steps = path.split(['.', '[']).filter(|step| !step.is_empty());
    steps
        .into_iter()
        .try_fold(object, |at, step| match step.strip_suffix(']') {
            Some(index) => at.get(index.parse::<usize>().ok()?),
            None => at.get(step),
        })
}
