//! Label and field selectors: parsing, and whether an object fits.

use serde_json::Value;

use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;
use crate::request::Call;

/// What a request wants to see of a resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
    Greater,
    Less,
}

#[derive(Clone, Debug)]
struct FieldTerm {
    field: String,
    equal: bool,
    value: String,
}

impl Selector {
    /// Both selectors of a request.
    ///
    /// Errors: as [`Selector::parse`].
    pub(crate) fn of(call: &Call) -> Result<Self, ApiError> {
        let query = &call.query;
        Self::parse(
            &call.kind,
            query.get("labelSelector"),
            query.get("fieldSelector"),
        )
    }

    /// Reads both selectors of a request.
    ///
    /// Errors: 400 for what cannot be parsed, and for fields that the kind can't be selected by.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = Tokens::new(labels)
            .requirements()
            .map_err(ApiError::bad_request)?;
        let fields = field_terms(fields)?;
        for term in &fields {
            if !is_selectable(kind, &term.field) {
                return Err(unsupported_field(kind, &term.field));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Whether everything fits.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that fits, if the fields say it.
    pub(crate) fn name(&self) -> Option<&str> {
        let mut terms = self.fields.iter();
        let found = terms.find(|term| term.equal && term.field == "metadata.name")?;
        Some(&found.value)
    }

    /// Whether an object fits.
    pub(crate) fn matches(&self, kind: &Kind, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| {
            labels
                .and_then(|labels| labels.get(key))
                .and_then(Value::as_str)
        };
        self.labels.iter().all(|one| one.matches(label(&one.key)))
            && self
                .fields
                .iter()
                .all(|one| (field_value(kind, object, &one.field) == one.value) == one.equal)
    }
}

impl Requirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let is_one = |label: &str| self.values.iter().any(|value| value == label);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = self.values.first().and_then(|value| number(value));
        let compare = |wanted: fn(&i64, &i64) -> bool| {
            label
                .and_then(number)
                .zip(bound)
                .is_some_and(|(have, bound)| wanted(&have, &bound))
        };
        match self.operator {
            Operator::In => label.is_some_and(is_one),
            Operator::NotIn => !label.is_some_and(is_one),
            Operator::Exists => label.is_some(),
            Operator::Absent => label.is_none(),
            Operator::Greater => compare(i64::gt),
            Operator::Less => compare(i64::lt),
        }
    }
}

fn is_selectable(kind: &Kind, field: &str) -> bool {
    match field {
        "metadata.name" => true,
        "metadata.namespace" => {
            // Of the kinds that are in no Namespace, those that select by fields of their own refuse it.
            kind.namespaced || kind.builtin().is_some_and(|row| row.selectable.is_empty())
        }
        _ => match (kind.builtin(), kind.custom()) {
            (Some(row), _) => row.selectable.contains(&field),
            (None, Some(custom)) => custom.selectable.iter().any(|one| one == field),
            (None, None) => false,
        },
    }
}

fn unsupported_field(kind: &Kind, field: &str) -> ApiError {
    // Kinds with a conversion function of their own word it otherwise than the rest.
    let plain = kind.custom().is_some()
        || kind.is_core("pods")
        || kind.builtin().is_some_and(|row| !row.selectable.is_empty());
    if kind.plural == "jobs" && kind.group == "batch" {
        return ApiError::bad_request(format!("field label {field:?} not supported for Job"));
    }
    ApiError::bad_request(if plain {
        format!("field label not supported: {field}")
    } else {
        format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )
    })
}

fn field_value(kind: &Kind, object: &Value, field: &str) -> String {
    let found = match field {
        "source" if kind.is_core("events") => {
            let component = object::text(object, "/source/component");
            let reporter = object::text(object, "/reportingComponent");
            return if component.is_empty() {
                reporter
            } else {
                component
            }
            .to_owned();
        }
        "status.successful" => object.pointer("/status/succeeded"),
        _ => field.split('.').try_fold(object, |at, step| at.get(step)),
    };
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => match field {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.successful" => "0".to_owned(),
            _ => String::new(),
        },
    }
}

fn field_terms(text: &str) -> Result<Vec<FieldTerm>, ApiError> {
    let terms = text
        .split(',')
        .map(str::trim)
        .filter(|term| !term.is_empty());
    terms
        .map(|term| {
            let (field, equal, value) = if let Some((field, value)) = term.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = term.split_once("==") {
                (field, true, value)
            } else if let Some((field, value)) = term.split_once('=') {
                (field, true, value)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            Ok(FieldTerm {
                field: field.to_owned(),
                equal,
                value: value.to_owned(),
            })
        })
        .collect()
}

/// A label selector, word by word.
struct Tokens {
    words: Vec<String>,
    at: usize,
}

impl Tokens {
    fn new(text: &str) -> Self {
        let mut words = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '=' if rest.starts_with("==") => 2,
                '!' if rest.starts_with("!=") => 2,
                '(' | ')' | ',' | '=' | '!' | '<' | '>' => 1,
                _ => rest
                    .find(|c: char| "(),=!<>".contains(c) || c.is_whitespace())
                    .unwrap_or(rest.len()),
            };
            let (word, after) = rest.split_at(length);
            words.push(word.to_owned());
            rest = after.trim_start();
        }
        Self { words, at: 0 }
    }

    fn peek(&self) -> &str {
        self.words.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        let word = self.peek().to_owned();
        self.at += 1;
        word
    }

    fn requirements(mut self) -> Result<Vec<Requirement>, String> {
        let mut found = Vec::new();
        if self.words.is_empty() {
            return Ok(found);
        }
        loop {
            found.push(
                self.requirement()
                    .map_err(|why| format!("unable to parse requirement: {why}"))?,
            );
            match self.next().as_str() {
                "" => break,
                "," => {
                    let next = self.peek();
                    if is_symbol(next) && next != "!" {
                        return Err(format!("found '{next}', expected: identifier after ','"));
                    }
                }
                other => {
                    return Err(format!(
                        "unable to parse requirement: found '{other}', expected: ',' or 'end of string'"
                    ));
                }
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek() == "!";
        if absent {
            self.next();
        }
        let key = self.identifier()?;
        let one = |operator, values| Requirement {
            key: key.clone(),
            operator,
            values,
        };
        if absent {
            return Ok(one(Operator::Absent, Vec::new()));
        }
        let operator = match self.peek() {
            "" | "," => return Ok(one(Operator::Exists, Vec::new())),
            "=" | "==" | "in" => Operator::In,
            "!=" | "notin" => Operator::NotIn,
            ">" => Operator::Greater,
            "<" => Operator::Less,
            other => {
                return Err(format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        if matches!(self.next().as_str(), "in" | "notin") {
            return Ok(one(operator, self.values()?));
        }
        let value = match self.peek() {
            "" | "," => String::new(),
            _ => self.identifier()?,
        };
        Ok(one(operator, vec![value]))
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        let mut values = Vec::new();
        loop {
            match self.next().as_str() {
                ")" => return Ok(values),
                "," => {}
                "" => return Err("found '', expected: ',', or ')'".to_owned()),
                value => values.push(value.to_owned()),
            }
        }
    }

    fn identifier(&mut self) -> Result<String, String> {
        let word = self.next();
        if is_symbol(&word) {
            return Err(format!("found '{word}', expected: identifier"));
        }
        Ok(word)
    }
}

/// Whether a word is none that a person chose; the end is no word either.
fn is_symbol(word: &str) -> bool {
    word.is_empty() || word.starts_with(['(', ')', ',', '=', '!', '<', '>'])
}
