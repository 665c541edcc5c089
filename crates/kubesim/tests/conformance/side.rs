//! One of the two servers under the same script: what it was asked, what it answered, made
//! comparable.

use std::collections::BTreeMap;

use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Map, Value, json};

use super::script::Op;

/// An answer, made comparable.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

/// A server, and what was seen of it.
pub(crate) struct Side {
    /// Versions are compared by rank; after a difference, they would only repeat it.
    pub(crate) ranks: bool,
    client: kube::Client,
    /// Uids and versions by order of appearance.
    uids: BTreeMap<String, usize>,
    versions: BTreeMap<String, usize>,
    patterns: Patterns,
    /// Of each path: the uid and the versions seen.
    objects: BTreeMap<String, (String, Vec<String>)>,
    /// The last continue token of each list.
    next: BTreeMap<String, String>,
}

impl Side {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self {
            ranks: true,
            client,
            uids: BTreeMap::new(),
            versions: BTreeMap::new(),
            patterns: Patterns::new(),
            objects: BTreeMap::new(),
            next: BTreeMap::new(),
        }
    }

    /// Sends a request, its blanks filled, and returns the code and the body as they came.
    pub(crate) async fn send(&mut self, op: &Op) -> (u16, Value) {
        let key = object_path(&op.path);
        let (uid, versions) = self.objects.get(&key).cloned().unwrap_or_default();
        let newest = versions.last().cloned().unwrap_or_else(|| "1".to_owned());
        let stale = versions
            .iter()
            .rev()
            .nth(1)
            .cloned()
            .unwrap_or_else(|| "1".to_owned());
        let next = self
            .next
            .get(&op.path)
            .cloned()
            .unwrap_or_else(|| "e30".to_owned());
        let fill = |text: String| {
            text.replace("$uid", &uid)
                .replace("$rv", &newest)
                .replace("$stale", &stale)
                .replace("$next", &next)
        };
        let query: String = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(
                op.query
                    .iter()
                    .map(|(name, value)| (*name, fill(value.clone()))),
            )
            .finish();
        let body = op
            .body
            .as_ref()
            .map(|body| fill(body.to_string()).into_bytes())
            .unwrap_or_default();
        let request = http::Request::builder()
            .method(op.method)
            .uri(format!("{}?{query}", op.path))
            .header("content-type", op.content_type)
            .header("accept", "application/json")
            .header("user-agent", "conformance")
            .body(Body::from(body))
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (code, body)
    }

    /// Sends a request and remembers what it tells.
    pub(crate) async fn ask(&mut self, op: &Op) -> Answer {
        let (code, body) = self.send(op).await;
        self.remember(op, &body);
        Answer {
            code,
            body: self.comparable(body),
        }
    }

    fn remember(&mut self, op: &Op, body: &Value) {
        let text = |at: &str| {
            body.pointer(at)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        if body.get("items").is_some() {
            match text("/metadata/continue") {
                token if token.is_empty() => self.next.remove(&op.path),
                token => self.next.insert(op.path.clone(), token),
            };
            return;
        }
        let (uid, version) = (text("/metadata/uid"), text("/metadata/resourceVersion"));
        if uid.is_empty() || version.is_empty() {
            return;
        }
        let mut key = object_path(&op.path);
        if op.method == "POST" && !op.path.ends_with("/binding") {
            key = format!("{key}/{}", text("/metadata/name"));
        }
        let seen = self.objects.entry(key).or_default();
        seen.0 = uid;
        if seen.1.last() != Some(&version) {
            seen.1.push(version);
        }
    }

    /// The same for both servers if they did the same.
    pub(crate) fn comparable(&mut self, mut body: Value) -> Value {
        self.collect(&body);
        self.rewrite(&mut body);
        body
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let lists = map.contains_key("items");
                if let Some(Value::Object(meta)) = map.get("metadata") {
                    let text = |key: &str| {
                        meta.get(key)
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                            .to_owned()
                    };
                    let (uid, version) = (text("uid"), text("resourceVersion"));
                    if !uid.is_empty() {
                        let rank = self.uids.len();
                        self.uids.entry(uid).or_insert(rank);
                    }
                    if !lists && !version.is_empty() {
                        let rank = self.versions.len();
                        self.versions.entry(version).or_insert(rank);
                    }
                }
                for inner in map.values() {
                    self.collect(inner);
                }
            }
            Value::Array(list) => list.iter().for_each(|inner| self.collect(inner)),
            _ => {}
        }
    }

    fn rewrite(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                if map.contains_key("items")
                    && let Some(Value::Object(meta)) = map.get_mut("metadata")
                {
                    list_meta(meta);
                }
                map.remove("managedFields");
                if let Some(Value::Array(causes)) = map.get_mut("causes") {
                    // The real server repeats some, and has no order.
                    causes.sort_by_key(ToString::to_string);
                    causes.dedup();
                }
                if let Some(Value::String(message)) = map.get("message").cloned() {
                    map.insert("message".to_owned(), json!(sorted_message(&message)));
                }
                for (key, inner) in map.iter_mut() {
                    if key == "resourceVersion" {
                        let rank = inner
                            .as_str()
                            .and_then(|version| self.versions.get(version));
                        if let Some(rank) = rank {
                            *inner = json!(if self.ranks {
                                format!("version {rank}")
                            } else {
                                "a version".to_owned()
                            });
                        }
                    }
                    self.rewrite(inner);
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|inner| self.rewrite(inner)),
            Value::String(text) => *text = self.rewritten(text),
            _ => {}
        }
    }

    fn rewritten(&self, text: &str) -> String {
        if text.parse::<jiff::Timestamp>().is_ok() && !text.contains('.') {
            return "a moment".to_owned();
        }
        let mut text = self
            .patterns
            .uid
            .replace_all(text, |found: &regex::Captures<'_>| {
                let rank = self.uids.get(&found[0]);
                match rank.filter(|_| self.ranks) {
                    Some(rank) => format!("uid {rank}"),
                    None => "a uid".to_owned(),
                }
            })
            .into_owned();
        if let Some(at) = text.find("ResourceVersion in ") {
            let (head, tail) = text.split_at(at);
            let tail: String = tail.chars().filter(|c| !c.is_ascii_digit()).collect();
            text = format!("{head}{tail}");
        }
        if let Some(rest) = text.strip_prefix("g-")
            && rest.len() == 5
        {
            return "g-*".to_owned();
        }
        // How a Pod differs is told as a diff of Go's structs.
        if let Some((head, _)) = text.split_once("\n@@") {
            text = head.to_owned();
        }
        self.patterns.blank(&text)
    }
}

/// What is looked for in every text.
struct Patterns {
    uid: regex::Regex,
    generated: regex::Regex,
    immutable: regex::Regex,
}

impl Patterns {
    fn new() -> Self {
        let pattern = |text: &str| regex::Regex::new(text).unwrap();
        Self {
            uid: pattern("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"),
            generated: pattern("g-[bcdfghjklmnpqrstvwxz2456789]{5}"),
            // What is immutable is told as Go's struct.
            immutable: pattern(r"Invalid value: (\{.*\}|null): field is immutable"),
        }
    }

    fn blank(&self, text: &str) -> String {
        let text = self.generated.replace_all(text, "g-*");
        self.immutable
            .replace_all(&text, "Invalid value: {…}: field is immutable")
            .into_owned()
    }
}

/// Lists of complaints have no order on the real server.
fn sorted_message(message: &str) -> String {
    let Some((head, rest)) = message.split_once(" is invalid: ") else {
        return message.to_owned();
    };
    let rest = rest.strip_prefix('[').unwrap_or(rest);
    let mut parts: Vec<&str> = rest.trim_end_matches(']').split(", ").collect();
    parts.sort_unstable();
    parts.dedup();
    format!("{head} is invalid: {}", parts.join(", "))
}

/// The version of a list is the server's; a token's text too.
fn list_meta(meta: &mut Map<String, Value>) {
    meta.remove("resourceVersion");
    match meta.get("continue").and_then(Value::as_str) {
        Some("") => {
            meta.remove("continue");
        }
        Some(_) => {
            meta.insert("continue".to_owned(), json!("a token"));
        }
        None => {}
    }
}

/// The path of the object, whichever of its parts is asked for.
fn object_path(path: &str) -> String {
    for part in ["/status", "/scale", "/binding"] {
        if let Some(object) = path.strip_suffix(part) {
            return object.to_owned();
        }
    }
    path.to_owned()
}
