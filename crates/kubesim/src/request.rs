//! What a request asks for: its path, its query and its body, taken apart.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, header};
use serde_json::Value;

use crate::error::ApiError;
use crate::kinds::{Kind, Kinds};

/// The biggest body a request may have.
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

/// A part of an object with an endpoint of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    Scale,
    Binding,
    Eviction,
    Finalize,
    Log,
}

/// How answers are to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Table,
    MetadataOnly,
}

/// A request for a resource.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) kind: Arc<Kind>,
    /// Empty: all namespaces, or a kind without.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) part: Part,
    pub(crate) query: Query,
    pub(crate) body: Bytes,
    pub(crate) content_type: String,
    pub(crate) shape: Shape,
    pub(crate) user_agent: String,
    pub(crate) actor: Arc<str>,
}

/// The query, by name; the first of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part of a URL behind the question mark.
    pub(crate) fn parse(text: &str) -> Self {
        Self(
            form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// A parameter, empty if absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// Whether a parameter is there, empty or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A yes or no; as the server reads it, everything but `false`, `0` and nothing is a yes.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.get(name).to_lowercase().as_str(), "false" | "0")
    }

    /// A number. Errors: 400, as Go's parser words it.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))
        })
    }
}

/// A path below `/api` or `/apis`, cut at its slashes.
#[derive(Debug, PartialEq, Eq)]
struct Path<'a> {
    group: &'a str,
    version: &'a str,
    namespace: &'a str,
    plural: &'a str,
    name: &'a str,
    part: Option<&'a str>,
}

impl<'a> Path<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let at = |namespace, plural, name, part| Self {
            group,
            version,
            namespace,
            plural,
            name,
            part,
        };
        Some(match *rest {
            ["namespaces", name, part @ ("status" | "finalize")] if group.is_empty() => {
                at("", "namespaces", name, Some(part))
            }
            ["namespaces", namespace, plural] => at(namespace, plural, "", None),
            ["namespaces", namespace, plural, name] => at(namespace, plural, name, None),
            ["namespaces", namespace, plural, name, part] => {
                at(namespace, plural, name, Some(part))
            }
            [plural] => at("", plural, "", None),
            [plural, name] => at("", plural, name, None),
            [plural, name, part] => at("", plural, name, Some(part)),
            _ => return None,
        })
    }
}

impl Call {
    /// Takes a request apart.
    ///
    /// Errors: 404 for a path that leads nowhere, 405 for a verb that is not served there.
    pub(crate) fn read(
        kinds: &Kinds,
        head: &http::request::Parts,
        body: Bytes,
        actor: Option<&Arc<str>>,
    ) -> Result<Self, ApiError> {
        let path = Path::parse(head.uri.path()).ok_or_else(ApiError::no_such_resource)?;
        let kind = kinds
            .find(path.group, path.version, path.plural)
            .ok_or_else(ApiError::no_such_resource)?;
        if body.len() > MAX_BODY {
            return Err(ApiError::too_large(format!(
                "Request entity too large: limit is {MAX_BODY}"
            )));
        }
        let part = part_of(kind, path.part)?;
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let verb = verb_of(&head.method, !path.name.is_empty(), part, &query)?;
        let needs_namespace = kind.namespaced && (!path.name.is_empty() || verb == Verb::Create);
        if needs_namespace && path.namespace.is_empty() {
            return Err(ApiError::method_not_allowed());
        }
        if !kind.namespaced && !path.namespace.is_empty() {
            return Err(ApiError::no_such_resource());
        }
        let text = |name: header::HeaderName| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let user_agent = text(header::USER_AGENT);
        let actor = actor.map_or_else(|| Arc::from(manager_of(&user_agent)), Arc::clone);
        Ok(Self {
            verb,
            kind: Arc::clone(kind),
            namespace: path.namespace.to_owned(),
            name: path.name.to_owned(),
            part,
            query,
            body,
            content_type: text(header::CONTENT_TYPE),
            shape: shape_of(&text(header::ACCEPT)),
            user_agent,
            actor,
        })
    }

    /// Who is said to own the fields that this call writes.
    pub(crate) fn manager(&self) -> String {
        let named = self.query.get("fieldManager");
        if named.is_empty() {
            manager_of(&self.user_agent).to_owned()
        } else {
            named.to_owned()
        }
    }

    /// Whether nothing is to be stored, by the query or, of a DELETE, by the body.
    pub(crate) fn is_dry_run(&self) -> bool {
        let in_body = || {
            let body: Option<Value> = serde_json::from_slice(&self.body).ok();
            body.is_some_and(|body| body.pointer("/dryRun/0").is_some())
        };
        let deletes = matches!(self.verb, Verb::Delete | Verb::DeleteCollection);
        !self.query.get("dryRun").is_empty() || (deletes && in_body())
    }

    /// The body as JSON; YAML is taken too. `None`: there is no body.
    ///
    /// Errors: 400 if it is neither, 415 for another form.
    pub(crate) fn json(&self) -> Result<Option<Value>, ApiError> {
        if self.body.is_empty() {
            return Ok(None);
        }
        let form = self
            .content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        let broken = |why: &dyn std::fmt::Display| {
            let text = String::from_utf8_lossy(&self.body);
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({})",
                self.kind.kind,
                text.chars().take(100).collect::<String>()
            ))
        };
        match form {
            "" | "application/json" | "*/*" => serde_json::from_slice(&self.body)
                .map(Some)
                .map_err(|error| broken(&error)),
            "application/yaml" | "application/apply-patch+yaml" => {
                let text = std::str::from_utf8(&self.body).map_err(|error| broken(&error))?;
                serde_saphyr::from_str(text)
                    .map(Some)
                    .map_err(|error| broken(&error))
            }
            _ => Err(ApiError::unsupported_media_type(
                "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            )),
        }
    }
}

/// The name a client is known by: its user agent up to the first slash.
fn manager_of(user_agent: &str) -> &str {
    let name = user_agent.split('/').next().unwrap_or_default();
    if name.is_empty() { "unknown" } else { name }
}

fn part_of(kind: &Kind, part: Option<&str>) -> Result<Part, ApiError> {
    Ok(match part {
        None => Part::Main,
        Some("status") if kind.has_status => Part::Status,
        Some("scale") if kind.scale.is_some() => Part::Scale,
        Some("binding") if kind.is_core("pods") => Part::Binding,
        Some("eviction") if kind.is_core("pods") => Part::Eviction,
        Some("log") if kind.is_core("pods") => Part::Log,
        Some("finalize") if kind.is_core("namespaces") => Part::Finalize,
        Some(_) => return Err(ApiError::no_such_resource()),
    })
}

fn verb_of(method: &Method, named: bool, part: Part, query: &Query) -> Result<Verb, ApiError> {
    let posted = matches!(part, Part::Binding | Part::Eviction);
    Ok(match (method.as_str(), named) {
        ("POST", true) if posted => Verb::Create,
        ("PUT", true) if part == Part::Finalize => Verb::Update,
        _ if posted || part == Part::Finalize => return Err(ApiError::method_not_allowed()),
        ("GET", true) => Verb::Get,
        ("GET", false) if query.flag("watch") => Verb::Watch,
        ("GET", false) => Verb::List,
        ("POST", false) => Verb::Create,
        ("PUT", true) => Verb::Update,
        ("PATCH", true) => Verb::Patch,
        ("DELETE", true) if part == Part::Main => Verb::Delete,
        ("DELETE", false) => Verb::DeleteCollection,
        _ => return Err(ApiError::method_not_allowed()),
    })
}

/// The first of the accepted forms that is served; plain JSON if none is named.
fn shape_of(accept: &str) -> Shape {
    for form in accept.split(',') {
        let form = form.trim();
        if !form.starts_with("application/json") {
            continue;
        }
        let has = |word: &str| form.split(';').any(|one| one.trim() == word);
        if has("as=Table") {
            return Shape::Table;
        }
        if has("as=PartialObjectMetadata") || has("as=PartialObjectMetadataList") {
            return Shape::MetadataOnly;
        }
        return Shape::Object;
    }
    Shape::Object
}
