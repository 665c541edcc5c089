//! JSON as Go's decoder reads it: keys whatever their case, the last of two alike, `null` for none.

use serde_json::Value;

pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Err("unexpected end of JSON input".to_owned());
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// The value of `name` in an object, whatever the case of its key; the last one wins.
pub(super) fn field<'v>(object: &'v Value, name: &str) -> Result<Option<&'v Value>, String> {
    if object.is_null() {
        return Ok(None);
    }
    let map = object
        .as_object()
        .ok_or_else(|| unexpected("an object", object))?;
    let named = map.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    Ok(named.map(|(_, value)| value).next_back())
}

/// The text of `name`; `None` where there is none.
pub(super) fn text(object: &Value, name: &str) -> Result<Option<String>, String> {
    match field(object, name)?.filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(format!("{name}: {}", unexpected("a string", value))),
        },
    }
}

/// The switch of `name`; `None` where there is none.
pub(super) fn boolean(object: &Value, name: &str) -> Result<Option<bool>, String> {
    match field(object, name)?.filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => match value.as_bool() {
            Some(switch) => Ok(Some(switch)),
            None => Err(format!("{name}: {}", unexpected("true or false", value))),
        },
    }
}

pub(super) fn strings(object: &Value, name: &str) -> Result<Vec<String>, String> {
    match field(object, name)? {
        None => Ok(Vec::new()),
        Some(list) => string_list(list).map_err(|reason| format!("{name}: {reason}")),
    }
}

pub(super) fn string_list(list: &Value) -> Result<Vec<String>, String> {
    let text = |item: &Value| {
        item.as_str()
            .map(str::to_owned)
            .ok_or_else(|| unexpected("a string", item))
    };
    array(list)?.iter().map(text).collect()
}

/// The items of an array; none for `null`.
pub(super) fn array(value: &Value) -> Result<&[Value], String> {
    if value.is_null() {
        return Ok(&[]);
    }
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| unexpected("an array", value))
}

pub(super) fn unexpected(wanted: &str, found: &Value) -> String {
    format!("expected {wanted}, found {}", kind(found))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
