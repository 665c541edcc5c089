//! GET of one object, and lists: whole, selected, in pages, at a version.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::body::ResponseBody;
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::request::{Call, Part, Shape, Verb};
use crate::selector::Selector;
use crate::server::{State, reply};
use crate::store::Key;
use crate::{events, object, scale, table};

/// The version that must be there before a read is answered; 0 for none.
///
/// Errors: 400 if it is no number.
pub(crate) fn wanted_version(call: &Call) -> Result<u64, ApiError> {
    let text = call.query.get("resourceVersion");
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
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

fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata"),
    })
}

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
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(format!("continue key is not valid: {error}")))?;
        let token: Self = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("continue key is not valid: {error}")))?;
        if token.v != TOKEN_VERSION {
            let why = format!(
                "continue key is not valid: server does not recognize this encoded version {}",
                token.v
            );
            return Err(invalid(why));
        }
        Ok(token)
    }

    fn write(revision: u64, last: &Key) -> String {
        let token = json!({ "v": TOKEN_VERSION, "rv": revision, "start": format!("{}/{}", last.namespace, last.name) });
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
            "items": objects.map(|object| metadata_only(&object)).collect::<Vec<_>>(),
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

fn page(state: &State, call: &Call) -> Result<Page, ApiError> {
    let query = &call.query;
    let selector = Selector::of(call)?;
    let token = match query.get("continue") {
        "" => None,
        text => Some(Token::read(text)?),
    };
    let version = query.get("resourceVersion");
    check_match(call, token.is_some())?;
    if token.is_some() && !version.is_empty() && version != "0" {
        return Err(ApiError::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let limit = query
        .number("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or_default();
    // From any version, the server answers from its cache, and its cache knows no pages.
    let limit = if version == "0" && query.get("resourceVersionMatch").is_empty() {
        0
    } else {
        limit
    };
    let exact = query.get("resourceVersionMatch") == "Exact"
        || (limit > 0
            && !version.is_empty()
            && version != "0"
            && query.get("resourceVersionMatch").is_empty());
    let at = match &token {
        Some(token) => u64::try_from(token.rv)
            .ok()
            .filter(|revision| *revision > 0),
        None => exact.then(|| version.parse().ok()).flatten(),
    };
    if let Some(at) = at
        && at < state.store.compacted()
    {
        return Err(too_old(token.is_some()));
    }
    let revision = at.unwrap_or_else(|| state.store.revision());
    let all = objects_at(state, call, at);
    let fits = |(key, object): &(Key, Arc<Value>)| {
        token.as_ref().is_none_or(|token| token.is_before(key))
            && selector.matches(&call.kind, &shown(&call.kind, object))
    };
    let mut items: Vec<(Key, Arc<Value>)> = all.into_iter().filter(fits).collect();
    let (mut next, mut remaining) = (None, None);
    if limit > 0 && items.len() > limit {
        remaining = selector.is_empty().then_some(items.len() - limit);
        items.truncate(limit);
        next = items.last().map(|(key, _)| Token::write(revision, key));
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

fn too_old(of_token: bool) -> ApiError {
    ApiError::expired(if of_token {
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
    } else {
        "The resourceVersion for the provided list is too old."
    })
}

/// `resourceVersionMatch` in places where it means nothing.
fn check_match(call: &Call, continued: bool) -> Result<(), ApiError> {
    let given = call.query.get("resourceVersionMatch");
    if given.is_empty() {
        return Ok(());
    }
    let why = if call.query.get("resourceVersion").is_empty() && !continued {
        "resourceVersionMatch is forbidden unless resourceVersion is provided"
    } else if continued {
        "resourceVersionMatch is forbidden when continue is provided"
    } else if !matches!(given, "Exact" | "NotOlderThan") {
        let cause = crate::error::Cause::unsupported(
            "resourceVersionMatch",
            &json!(given),
            &["Exact".to_owned(), "NotOlderThan".to_owned(), String::new()],
        );
        return Err(ApiError::invalid_of(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[cause],
        ));
    } else if given == "Exact" && call.query.get("resourceVersion") == "0" {
        "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""
    } else {
        return Ok(());
    };
    let cause = crate::error::Cause::forbidden("resourceVersionMatch", why);
    Err(ApiError::invalid_of(
        "meta.k8s.io",
        "ListOptions",
        "",
        &[cause],
    ))
}
