//! One of the two servers under the same script: what it was asked, what it answered, made
//! comparable.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Map, Value, json};

use super::script::{Op, PLAIN};

/// Within what an answer has ended, be it a watch.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How many lists ago `$then` is.
const THEN: usize = 12;

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
    /// The versions of the lists that were looked at last.
    heads: VecDeque<String>,
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
            heads: VecDeque::new(),
        }
    }

    /// Sends a request, its blanks filled, and returns the code and the body as they came.
    pub(crate) async fn send(&self, op: &Op) -> (u16, Value) {
        self.send_for(op, PLAIN).await
    }

    /// The same, for an answer in another form.
    pub(crate) async fn send_for(&self, op: &Op, accept: &str) -> (u16, Value) {
        let query: String = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(
                op.query
                    .iter()
                    .map(|(name, value)| (*name, self.filled(op, value.clone()))),
            )
            .finish();
        let body = op
            .body
            .as_ref()
            .map(|body| self.filled(op, body.to_string()).into_bytes())
            .unwrap_or_default();
        let request = http::Request::builder()
            .method(op.method)
            .uri(format!("{}?{query}", op.path))
            .header("content-type", op.content_type)
            .header("accept", accept)
            .header("user-agent", "conformance")
            .body(Body::from(body))
            .unwrap();
        let answer = async {
            let response = self.client.send(request).await.unwrap();
            let code = response.status().as_u16();
            (
                code,
                response.into_body().collect().await.unwrap().to_bytes(),
            )
        };
        let (code, bytes) = tokio::time::timeout(ANSWER_WITHIN, answer)
            .await
            .unwrap_or_else(|_| panic!("no end of the answer to {op:?}"));
        let body: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (code, body)
    }

    /// A text of a request without its blanks.
    fn filled(&self, op: &Op, text: String) -> String {
        if !text.contains('$') {
            return text;
        }
        let none = (String::new(), Vec::new());
        let (uid, versions) = self.objects.get(&object_path(&op.path)).unwrap_or(&none);
        let or_first = |version: Option<&String>| version.map_or("1", String::as_str).to_owned();
        let next = self.next.get(&op.path).map_or("e30", String::as_str);
        text.replace("$uid", uid)
            .replace("$rv", &or_first(versions.last()))
            .replace("$stale", &or_first(versions.iter().rev().nth(1)))
            .replace("$next", next)
            .replace("$head", &or_first(self.heads.back()))
            .replace("$then", &or_first(self.heads.front()))
    }

    /// Sends a question that changes nothing, and remembers no more than the version of a list.
    pub(crate) async fn look(&mut self, op: &Op, accept: &str) -> Answer {
        let (code, body) = self.send_for(op, accept).await;
        let version = body.pointer("/metadata/resourceVersion");
        if let Some(version) = version.and_then(Value::as_str)
            && op.query.is_empty()
            && body.get("items").is_some()
        {
            self.heads.push_back(version.to_owned());
            if self.heads.len() > THEN {
                self.heads.pop_front();
            }
        }
        Answer {
            code,
            body: self.comparable(body),
        }
    }

    /// Sends a request and remembers what it tells.
    pub(crate) async fn ask(&mut self, op: &Op, accept: &str) -> Answer {
        let (code, body) = self.send_for(op, accept).await;
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
                let lists = is_list(map);
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
                if is_list(map)
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
                if let Some(Value::Array(cells)) = map.get_mut("cells") {
                    for cell in cells {
                        self.patterns.blank_age(cell);
                    }
                }
                if let Some(Value::Array(columns)) = map.get_mut("columnDefinitions") {
                    let columns = columns.iter_mut().filter_map(Value::as_object_mut);
                    columns.for_each(|column| drop(column.remove("description")));
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
        let versions = ["ResourceVersion in ", "resource version: "];
        if let Some(at) = versions.iter().find_map(|words| text.find(words)) {
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
    age: regex::Regex,
}

impl Patterns {
    fn new() -> Self {
        let pattern = |text: &str| regex::Regex::new(text).unwrap();
        Self {
            uid: pattern("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"),
            generated: pattern("g-[bcdfghjklmnpqrstvwxz2456789]{5}"),
            // What is immutable is told as Go's struct.
            immutable: pattern(r"Invalid value: (\{.*\}|null): field is immutable"),
            age: pattern(r"(^|\()\d+[smhdy](\d+[smhd])?($| ago\))"),
        }
    }

    /// How long ago something was, in a cell of a table.
    fn blank_age(&self, cell: &mut Value) {
        if let Value::String(text) = cell {
            *text = self.age.replace_all(text, "${1}an age$3").into_owned();
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

/// A list, or a table of one.
fn is_list(map: &Map<String, Value>) -> bool {
    map.contains_key("items") || map.contains_key("rows")
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
