//! Tables, as `kubectl get` prints them.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;
use crate::read::metadata_only;
use crate::request::{Call, Query, Shape};
use crate::watch::INITIAL_EVENTS_END;

mod builtin;
mod path;
mod workloads;

/// What the server says of the column of names.
const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
/// What it says of the column of ages.
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// A cell of an object at a moment.
type Cell = Box<dyn Fn(&Value, Timestamp) -> Value>;

/// A column and how its cell comes from an object.
struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    cell: Cell,
}

/// Errors: 400 if the answer is to be a table with rows of an unknown form.
pub(crate) fn check(call: &Call) -> Result<(), ApiError> {
    let wanted = call.query.get("includeObject");
    if call.shape != Shape::Table || matches!(wanted, "" | "None" | "Metadata" | "Object") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Unable to convert to Table as requested: includeObject: Invalid value: {wanted:?}: must be 'Metadata', 'Object', 'None', or empty"
    )))
}

/// The table of some objects.
///
/// `with_columns` is false for a watch's later events: clients have them by then.
pub(crate) fn of(
    kind: &Kind,
    now: Timestamp,
    objects: &[Value],
    metadata: &Value,
    query: &Query,
    with_columns: bool,
) -> Value {
    let columns = columns(kind);
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns
                .iter()
                .map(|column| (column.cell)(object, now))
                .collect();
            let ends = object
                .pointer("/metadata/annotations")
                .is_some_and(|all| all.get(INITIAL_EVENTS_END).is_some());
            let shown = match query.get("includeObject") {
                "Object" => object.clone(),
                "None" if !ends => Value::Null,
                _ => metadata_only(object),
            };
            let mut row = json!({ "cells": cells, "object": shown });
            if let Some(conditions) = workloads::conditions(kind, object) {
                object::as_map(&mut row).insert("conditions".to_owned(), conditions);
            }
            row
        })
        .collect();
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": if with_columns { Value::Array(definitions) } else { Value::Null },
        "rows": rows,
    })
}

fn columns(kind: &Kind) -> Vec<Column> {
    let mut columns = vec![Column {
        format: "name".to_owned(),
        description: NAME.to_owned(),
        ..plain("Name", "string", 0, |object, _| json!(object::name(object)))
    }];
    match kind.custom() {
        Some(custom) if !custom.columns.is_empty() => {
            columns.extend(custom.columns.iter().map(|column| {
                let (path, wanted) = (column.path.clone(), column.kind.clone());
                Column {
                    name: column.name.clone(),
                    kind: column.kind.clone(),
                    format: column.format.clone(),
                    description: match column.description.as_str() {
                        "" => format!(
                            "Custom resource definition column (in JSONPath format): {}",
                            column.path
                        ),
                        given => given.to_owned(),
                    },
                    priority: column.priority,
                    cell: Box::new(move |object, now| custom_cell(object, now, &path, &wanted)),
                }
            }));
        }
        Some(_) => columns.push(Column {
            kind: "date".to_owned(),
            ..age()
        }),
        // Their own name is the last of what is told of events.
        None if kind.plural == "events" => return builtin::columns(kind),
        None => columns.extend(builtin::columns(kind)),
    }
    columns
}

fn custom_cell(object: &Value, now: Timestamp, path: &str, wanted: &str) -> Value {
    let Some(found) = path::find(object, path) else {
        return Value::Null;
    };
    match wanted {
        "date" => found.as_str().map_or(Value::Null, |at| {
            let is_moment = at.parse::<Timestamp>().is_ok();
            json!(if is_moment {
                since(at, now)
            } else {
                "<invalid>".to_owned()
            })
        }),
        "string" => match found {
            Value::String(text) => json!(text),
            Value::Null => Value::Null,
            other => json!(other.to_string()),
        },
        "integer" if found.is_i64() || found.is_u64() => found.clone(),
        "integer" => found
            .as_f64()
            .map_or(Value::Null, |number| json!(number.trunc())),
        "number" if found.is_number() => found.clone(),
        "boolean" if found.is_boolean() => found.clone(),
        _ => Value::Null,
    }
}

fn plain(
    name: &str,
    kind: &str,
    priority: i64,
    cell: impl Fn(&Value, Timestamp) -> Value + 'static,
) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: String::new(),
        description: String::new(),
        priority,
        cell: Box::new(cell),
    }
}

/// The column that most kinds end with.
fn age() -> Column {
    Column {
        description: CREATED.to_owned(),
        ..plain("Age", "string", 0, |object, now| {
            json!(since(
                object::meta(object, "creationTimestamp").unwrap_or_default(),
                now
            ))
        })
    }
}

/// How long ago a moment was, in a few letters: `45s`, `3m12s`, `5h`, `12d`.
fn since(moment: &str, now: Timestamp) -> String {
    let Ok(then) = moment.parse::<Timestamp>() else {
        return "<unknown>".to_owned();
    };
    duration(now.duration_since(then).as_secs())
}

/// A number of seconds, in a few letters.
fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let with_rest = |big: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => with_rest(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with_rest(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with_rest(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => with_rest(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}
