//! GET of one object, and lists: whole, selected, in pages, at a version.

use std::sync::Arc;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
use http::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::body::ResponseBody;
use crate::error::{ApiError, Cause};
use crate::kinds::Kind;
use crate::request::{Call, Part, Shape, Verb};
use crate::selector::Selector;
use crate::server::{State, reply};
use crate::store::Key;
use crate::write::TEMPLATE_GENERATION;
use crate::{events, object, scale, table};

/// The version that must be there before a read is answered; 0 for none.
///
/// Errors: 422 for parameters that don't go together; 400 for a version that is no number, of one
/// object 500.
pub(crate) fn wanted_version(call: &Call) -> Result<u64, ApiError> {
    let version = call.query.get("resourceVersion");
    if call.verb == Verb::Get {
        return version_of(version).map_err(ApiError::internal);
    }
    check_match(call)?;
    if token_of(call)?.is_none() {
        return version_of(version)
            .map_err(|why| ApiError::bad_request(format!("invalid resource version: {why}")));
    }
    if !matches!(version, "" | "0") {
        return Err(ApiError::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    Ok(0)
}

/// A version as a number; 0 for none. Errors: what the server says of it.
pub(crate) fn version_of(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let why = if !text.bytes().all(|c| c.is_ascii_digit()) {
        "invalid syntax"
    } else if let Ok(version) = text.parse() {
        return Ok(version);
    } else {
        "value out of range"
    };
    Err(format!(
        "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"
    ))
}

/// Answers a GET or a list.
pub(crate) fn answer(
    state: &State,
    now: Timestamp,
    call: &Call,
) -> Result<Response<ResponseBody>, ApiError> {
    let body = match call.verb {
        Verb::Get => get(state, now, call)?,
        _ => list(state, now, call)?,
    };
    table::check(call)?;
    Ok(reply(200, &body, &[]))
}

/// Where the call's object is stored.
pub(crate) fn key_of(call: &Call, name: &str) -> Key {
    Key {
        resource: Arc::clone(&call.kind.storage),
        namespace: call.namespace.clone(),
        name: name.to_owned(),
    }
}

fn get(state: &State, now: Timestamp, call: &Call) -> Result<Value, ApiError> {
    let found = state.store.get(&key_of(call, &call.name));
    let object = found.ok_or_else(|| ApiError::not_found(&call.kind, &call.name))?;
    match call.part {
        Part::Scale => scale::of(&call.kind, object),
        Part::Log => Err(ApiError::bad_request(
            "logs are not kept: containers do not run here",
        )),
        _ => Ok(match call.shape {
            Shape::Object => present(&call.kind, object),
            Shape::Table => table::of(
                &call.kind,
                now,
                &[present(&call.kind, object)],
                &one_meta(object),
                &call.query,
                true,
            ),
            Shape::MetadataOnly => metadata_only(object),
        }),
    }
}

fn one_meta(object: &Value) -> Value {
    json!({ "resourceVersion": object::meta(object, "resourceVersion").unwrap_or_default() })
}

/// A stored object as the call's kind shows it.
pub(crate) fn present(kind: &Kind, stored: &Value) -> Value {
    let mut object = if kind.group == "events.k8s.io" {
        events::to_new(stored)
    } else {
        stored.clone()
    };
    let top = object::as_map(&mut object);
    top.insert("apiVersion".to_owned(), json!(kind.api_version()));
    top.insert("kind".to_owned(), json!(kind.kind));
    object
}

/// An object's metadata alone.
pub(crate) fn metadata_only(object: &Value) -> Value {
    let mut metadata = object.get("metadata").cloned();
    // What the server only adds when it shows a DaemonSet as one.
    if let Some(Value::Object(meta)) = &mut metadata
        && let Some(Value::Object(annotations)) = meta.get_mut("annotations")
        && annotations.remove(TEMPLATE_GENERATION).is_some()
        && annotations.is_empty()
    {
        meta.remove("annotations");
    }
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
    })
}

/// The parameter that says how a list's version is meant.
pub(crate) const MATCH: &str = "resourceVersionMatch";
/// The form of tokens.
const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Where a paged list goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

impl Token {
    fn read(text: &str) -> Result<Self, ApiError> {
        let invalid = |why: String| ApiError::bad_request(format!("invalid continue token: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| {
            let why = match error {
                DecodeError::InvalidByte(at, _) => {
                    format!("illegal base64 data at input byte {at}")
                }
                other => other.to_string(),
            };
            invalid(format!("continue key is not valid: {why}"))
        })?;
        let token: Self = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("continue key is not valid: {error}")))?;
        if token.v != TOKEN_VERSION {
            let why = format!(
                "continue key is not valid: server does not recognize this encoded version {}",
                token.v
            );
            return Err(invalid(why));
        }
        let lacks = match (token.rv, token.start.as_str()) {
            (0, _) => "incorrect encoded start resourceVersion",
            (_, "") => "encoded start key empty",
            _ => return Ok(token),
        };
        let why = format!("continue key is not valid: {lacks} (version {TOKEN_VERSION})");
        Err(invalid(why))
    }

    fn write(revision: u64, last: &Key) -> String {
        let start = format!("{}/{}", last.namespace, last.name);
        Self::encode(&json!(revision), &start)
    }

    /// The same place, at the newest version.
    fn at_newest(&self) -> String {
        Self::encode(&json!(-1), &self.start)
    }

    fn encode(revision: &Value, start: &str) -> String {
        let token = json!({ "v": TOKEN_VERSION, "rv": revision, "start": start });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn is_before(&self, key: &Key) -> bool {
        let (namespace, name) = self.start.split_once('/').unwrap_or(("", &self.start));
        (namespace, name) < (key.namespace.as_str(), key.name.as_str())
    }
}

/// The objects of a list, and how it is to be told.
struct Page {
    items: Vec<(Key, Arc<Value>)>,
    revision: u64,
    next: Option<String>,
    remaining: Option<usize>,
}

fn list(state: &State, now: Timestamp, call: &Call) -> Result<Value, ApiError> {
    let page = page(state, call)?;
    let mut metadata = Map::new();
    metadata.insert(
        "resourceVersion".to_owned(),
        json!(page.revision.to_string()),
    );
    if let Some(next) = page.next {
        metadata.insert("continue".to_owned(), json!(next));
    }
    if let Some(remaining) = page.remaining.filter(|remaining| *remaining > 0) {
        metadata.insert("remainingItemCount".to_owned(), json!(remaining));
    }
    let metadata = Value::Object(metadata);
    let objects = page
        .items
        .iter()
        .map(|(_, object)| present(&call.kind, object));
    Ok(match call.shape {
        Shape::Table => {
            let objects: Vec<Value> = objects.collect();
            table::of(&call.kind, now, &objects, &metadata, &call.query, true)
        }
        Shape::MetadataOnly => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": if page.items.is_empty() {
                // As the real server has it.
                Value::Null
            } else {
                objects.map(|object| metadata_only(&object)).collect()
            },
        }),
        Shape::Object => json!({
            "kind": call.kind.list_kind,
            "apiVersion": call.kind.api_version(),
            "metadata": metadata,
            "items": objects.map(|object| as_item(&call.kind, object)).collect::<Vec<_>>(),
        }),
    })
}

/// Items of built-in lists don't say what they are; the list does.
fn as_item(kind: &Kind, mut object: Value) -> Value {
    if kind.builtin().is_some() {
        let top = object::as_map(&mut object);
        top.remove("apiVersion");
        top.remove("kind");
    }
    object
}

/// The one name of a list of which no more than one object can be.
fn one_name<'a>(call: &Call, selector: &'a Selector) -> Option<&'a str> {
    let knows_place = !call.kind.namespaced || !call.namespace.is_empty();
    let begins = call.query.get("continue").is_empty();
    selector.name().filter(|_| knows_place && begins)
}

/// Where a list goes on.
fn token_of(call: &Call) -> Result<Option<Token>, ApiError> {
    match call.query.get("continue") {
        "" => Ok(None),
        text => Token::read(text).map(Some),
    }
}

fn page(state: &State, call: &Call) -> Result<Page, ApiError> {
    let query = &call.query;
    let selector = Selector::of(call)?;
    let token = token_of(call)?;
    let one = one_name(call, &selector);
    let version = query.get("resourceVersion");
    let limit = query
        .number("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or_default();
    // From any version, the server answers from its cache, and its cache knows no pages.
    let limit = if version == "0" { 0 } else { limit };
    let exact = query.get(MATCH) == "Exact"
        || (limit > 0 && one.is_none() && version != "0" && query.get(MATCH).is_empty());
    let at = match &token {
        Some(token) => u64::try_from(token.rv)
            .ok()
            .filter(|revision| *revision > 0),
        None => exact.then(|| version.parse().ok()).flatten(),
    };
    if let Some(at) = at
        && at < state.store.compacted()
    {
        return Err(too_old(token.as_ref()));
    }
    let revision = at.unwrap_or_else(|| state.store.revision());
    let mut all = objects_at(state, call, at);
    all.retain(|(key, _)| {
        token.as_ref().is_none_or(|token| token.is_before(key))
            && one.is_none_or(|name| key.name == name)
    });
    let total = all.len();
    let mut items = Vec::new();
    let (mut next, mut remaining) = (None, None);
    for (index, (key, object)) in all.into_iter().enumerate() {
        if selector.matches(&call.kind, &shown(&call.kind, &object)) {
            items.push((key, object));
        }
        if limit > 0 && items.len() >= limit {
            // What is left may fit or not: the next page tells.
            if index + 1 < total {
                next = items.last().map(|(key, _)| Token::write(revision, key));
                remaining = selector.is_empty().then_some(total - limit);
            }
            break;
        }
    }
    Ok(Page {
        items,
        revision,
        next,
        remaining,
    })
}

/// Field selectors of events name fields of the view they ask for.
pub(crate) fn shown<'a>(kind: &Kind, object: &'a Arc<Value>) -> std::borrow::Cow<'a, Value> {
    if kind.group == "events.k8s.io" {
        std::borrow::Cow::Owned(events::to_new(object))
    } else {
        std::borrow::Cow::Borrowed(object)
    }
}

fn objects_at(state: &State, call: &Call, at: Option<u64>) -> Vec<(Key, Arc<Value>)> {
    let namespace = (!call.namespace.is_empty()).then_some(call.namespace.as_str());
    match at {
        None => {
            let found = state.store.list(&call.kind.storage, namespace);
            found
                .map(|(key, object)| (key.clone(), Arc::clone(object)))
                .collect()
        }
        Some(at) => {
            let then = state.store.list_at(&call.kind.storage, at);
            then.into_iter()
                .filter(|(key, _)| namespace.is_none_or(|one| key.namespace == one))
                .collect()
        }
    }
}

fn too_old(token: Option<&Token>) -> ApiError {
    match token {
        Some(token) => ApiError::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
            .offering(token.at_newest()),
        None => ApiError::expired("The resourceVersion for the provided list is too old."),
    }
}

/// Parameters of a list that don't go together.
fn check_match(call: &Call) -> Result<(), ApiError> {
    let query = &call.query;
    let given = query.get(MATCH);
    let version = query.get("resourceVersion");
    let mut causes = Vec::new();
    let mut forbid = |is: bool, field: &str, why: &str| {
        if is {
            causes.push(Cause::forbidden(field, why));
        }
    };
    if !given.is_empty() {
        forbid(
            version.is_empty(),
            MATCH,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        );
        forbid(
            !query.get("continue").is_empty(),
            MATCH,
            "resourceVersionMatch is forbidden when continue is provided",
        );
        forbid(
            given == "Exact" && version == "0",
            MATCH,
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        );
    }
    forbid(
        query.has("sendInitialEvents"),
        "sendInitialEvents",
        "sendInitialEvents is forbidden for list",
    );
    if !matches!(given, "" | "Exact" | "NotOlderThan") {
        let known = ["Exact".to_owned(), "NotOlderThan".to_owned(), String::new()];
        causes.push(Cause::unsupported(MATCH, &json!(given), &known));
    }
    ApiError::unless_none(&causes)
}
