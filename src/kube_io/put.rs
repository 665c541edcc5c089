//! Writing an object that others write too.
//!
//! Owns: the one way to replace a pool, a subnet or an endpoint: a PUT that the API server refuses
//! if the object is not the one that was read. Never does: try again; the caller must look first.
//! Invariant: what leaves here carries the `resourceVersion` and the `uid` it was computed from, so
//! a write that comes late, from a stale cache or from a leader that lost its lease, loses.
//!
//! The uid is in the body, where the API server compares it: a version alone can't tell an object
//! from its namesake made after it, once a store was restored from a backup.

use std::fmt::Debug;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::core::{ObjectMeta, PartialObjectMeta, Resource, ResourceExt, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::retry::{self, Outcome};

/// Which part of the object a write changes. The API server ignores changes of the other part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Metadata and spec; the whole object for kinds without a status subresource.
    Main,
    /// The status, by the subresource; the API server leaves all else of a custom resource as it is.
    Status,
}

/// How much of the object the answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The metadata alone: 0.7 kB instead of 600 for a pool with 5,000 records. Right where the
    /// schema has no default for what was sent, and no other program changes it on the way.
    MetadataOnly,
    /// The object as it was stored.
    Full,
}

/// Why an object was not replaced, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The object lacks what the write is fenced by: a mistake in this program.
    #[error(
        "{kind} {name} has no metadata.{missing}, so a write of it could overwrite another's; write only what was read"
    )]
    Unfenced {
        /// Kind of the object.
        kind: String,
        /// Namespace and name.
        name: String,
        /// The missing field.
        missing: &'static str,
    },
    /// This process knows that the object has moved on, so nothing was sent.
    #[error("{kind} {name} was not replaced: it has the newer version {known}")]
    Behind {
        /// Kind of the object.
        kind: String,
        /// Namespace and name.
        name: String,
        /// The version it has.
        known: String,
    },
    /// The object has no JSON form: a mistake in this program.
    #[error("{kind} {name} could not be put into a request")]
    Encode {
        /// Kind of the object.
        kind: String,
        /// Namespace and name.
        name: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server answered, and said no.
    #[error("{kind} {name} was not replaced: the API server answered {} {}: {}", status.code, status.reason, status.message)]
    Refused {
        /// Kind of the object.
        kind: String,
        /// Namespace and name.
        name: String,
        /// What it said.
        status: Box<Status>,
        /// When it wants to hear from us again.
        retry_after: Option<Duration>,
    },
    /// There was no answer.
    #[error("no answer to the replacement of {kind} {name}")]
    NoAnswer {
        /// Kind of the object.
        kind: String,
        /// Namespace and name.
        name: String,
        /// What happened to the connection.
        source: kube::Error,
    },
    /// The API server said yes in a form we can't read. The object is replaced.
    #[error("{kind} {name} was replaced, but the answer can't be read")]
    Answer {
        /// Kind of the object.
        kind: String,
        /// Namespace and name.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl PutError {
    /// What is known about the object now.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unfenced { .. } | Self::Encode { .. } => Outcome::Fatal,
            Self::Behind { .. } => Outcome::Conflict,
            Self::Refused {
                status,
                retry_after,
                ..
            } => retry::classify_status(status, *retry_after),
            Self::NoAnswer { source, .. } => retry::classify(source),
            Self::Answer { .. } => Outcome::Unknown,
        }
    }
}

/// Replaces the object, if it is still the one that was read, and brings `object` up to date:
/// `resourceVersion` and the other metadata the server keeps, or all of it by [`Reply::Full`].
///
/// `client` should be a [`retry::write_client`]. On an error `object` is as it was.
///
/// # Errors
///
/// [`PutError`]; [`PutError::outcome`] says whether the write may have happened.
pub async fn replace<K>(
    client: &Client,
    part: Part,
    object: &mut K,
    reply: Reply,
) -> Result<(), PutError>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let (kind, name) = (K::kind(&()).into_owned(), name_of(object));
    let request = request(part, object, reply)?;
    let no_answer = |source| PutError::NoAnswer {
        kind: kind.clone(),
        name: name.clone(),
        source,
    };
    let response = client.send(request).await.map_err(no_answer)?;
    let (head, body) = response.into_parts();
    let body = body.collect_bytes().await.map_err(no_answer)?;
    if !head.status.is_success() {
        return Err(PutError::Refused {
            kind,
            name,
            status: Box::new(read_status(head.status, &body)),
            retry_after: read_retry_after(&head.headers),
        });
    }
    let unreadable = |source| PutError::Answer { kind, name, source };
    match reply {
        Reply::Full => *object = serde_json::from_slice(&body).map_err(unreadable)?,
        Reply::MetadataOnly => {
            let answer: PartialObjectMeta<K> = serde_json::from_slice(&body).map_err(unreadable)?;
            *object.meta_mut() = answer.metadata;
        }
    }
    Ok(())
}

fn request<K>(part: Part, object: &K, reply: Reply) -> Result<Request<Body>, PutError>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let (kind, name) = (K::kind(&()).into_owned(), name_of(object));
    if let Some(missing) = missing_fence(object.meta()) {
        return Err(PutError::Unfenced {
            kind,
            name,
            missing,
        });
    }
    let encode = |source| PutError::Encode { kind, name, source };
    let accept = match reply {
        Reply::MetadataOnly => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        Reply::Full => "application/json",
    };
    let collection = K::url_path(&(), object.meta().namespace.as_deref());
    let suffix = match part {
        Part::Main => "",
        Part::Status => "/status",
    };
    let built = serde_json::to_vec(object)
        .map_err(Into::into)
        .and_then(|body| {
            Request::builder()
                .method(Method::PUT)
                .uri(format!("{collection}/{}{suffix}", object.name_any()))
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .header(ACCEPT, HeaderValue::from_static(accept))
                .body(Body::from(body))
                .map_err(Into::into)
        });
    built.map_err(encode)
}

fn missing_fence(meta: &ObjectMeta) -> Option<&'static str> {
    let empty = |field: &Option<String>| field.as_deref().is_none_or(str::is_empty);
    if empty(&meta.name) {
        Some("name")
    } else if empty(&meta.uid) {
        Some("uid")
    } else if empty(&meta.resource_version) {
        Some("resourceVersion")
    } else {
        None
    }
}

fn name_of<K: Resource>(object: &K) -> String {
    match &object.meta().namespace {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

/// The server's words, or the bare code where a proxy or an overload filter answered.
fn read_status(code: StatusCode, body: &[u8]) -> Status {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        Status::failure(
            String::from_utf8_lossy(body).trim(),
            code.canonical_reason().unwrap_or_default(),
        )
        .with_code(code.as_u16())
    })
}

fn read_retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
