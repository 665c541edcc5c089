//! Calls to the API server as it counted them itself: the audit log, one line a finished call.
//!
//! Kubernetes' own components are left out of the log by its policy; what remains are the product's
//! roles, scenarios and a person's `kubectl`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::Value;

/// The log of the cluster in `run`.
pub fn log_of(run: &Path) -> PathBuf {
    run.join("log/audit.log")
}

/// A kind of call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// What was done: `get`, `list`, `watch`, `create`, `update`, …
    pub verb: String,
    /// To what: the resource, with its subresource after a slash.
    pub resource: String,
    /// How it ended, as an HTTP status.
    pub code: u64,
}

/// Calls by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(BTreeMap<Call, u64>);

impl Calls {
    /// Calls of any kind.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Calls that satisfy a condition.
    pub fn count(&self, wanted: impl Fn(&Call) -> bool) -> u64 {
        self.0
            .iter()
            .filter(|(call, _)| wanted(call))
            .map(|(_, count)| count)
            .sum()
    }

    /// Each kind, with how many there were.
    pub fn iter(&self) -> impl Iterator<Item = (&Call, u64)> {
        self.0.iter().map(|(call, count)| (call, *count))
    }

    fn add(&mut self, call: Call) {
        *self.0.entry(call).or_default() += 1;
    }
}

impl Call {
    /// Whether it may change what is stored. Questions that Kubernetes has one `create` do not.
    pub fn is_write(&self) -> bool {
        let changes = ["create", "update", "patch", "delete", "deletecollection"];
        changes.contains(&self.verb.as_str())
            && !self.resource.ends_with("reviews")
            && self.resource != "serviceaccounts/token"
    }

    /// Whether it ended well.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.resource, self.code)
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            Call {
                verb,
                resource,
                code,
            },
            count,
        ) in &self.0
        {
            writeln!(f, "{count:>8}  {verb:<8} {code}  {resource}")?;
        }
        write!(f, "{:>8}  in all", self.total())
    }
}

/// A place in the log, from which to count.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// The log as a source of counts.
#[derive(Clone, Debug)]
pub struct AuditLog {
    file: PathBuf,
}

impl AuditLog {
    /// The log in this file.
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// The end of the log now.
    pub fn mark(&self) -> Result<Mark> {
        let metadata = self.file.metadata();
        metadata
            .map(|it| Mark(it.len()))
            .with_context(|| format!("no log {}", self.file.display()))
    }

    /// Calls since a mark by the users that `who` accepts.
    pub fn calls_since(&self, mark: Mark, who: impl Fn(&str) -> bool) -> Result<Calls> {
        let mut calls = Calls::default();
        self.each_since(mark, |user, event| {
            if who(user) {
                calls.add(call_of(event));
            }
        })?;
        Ok(calls)
    }

    /// The rights that each of these users made use of, as `verb resource.group/subresource`.
    pub fn rights_used(&self, users: &[String]) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut used = BTreeMap::<String, BTreeSet<String>>::new();
        self.each_since(Mark(0), |user, event| {
            if users.iter().any(|known| known == user)
                && let Some(right) = right_of(event)
            {
                used.entry(user.to_owned()).or_default().insert(right);
            }
        })?;
        Ok(used)
    }

    /// When the last call since a mark ended that `wanted` accepts, with its user; by the API
    /// server's clock.
    pub fn last_since(
        &self,
        mark: Mark,
        wanted: impl Fn(&str, &Call) -> bool,
    ) -> Result<Option<Timestamp>> {
        let mut last = None;
        self.each_since(mark, |user, event| {
            if wanted(user, &call_of(event)) {
                let at = text(event, "/stageTimestamp").and_then(|at| at.parse().ok());
                last = last.max(at);
            }
        })?;
        Ok(last)
    }

    fn each_since(&self, mark: Mark, mut each: impl FnMut(&str, &Value)) -> Result<()> {
        let mut log = File::open(&self.file)
            .with_context(|| format!("cannot open {}", self.file.display()))?;
        log.seek(SeekFrom::Start(mark.0))
            .context("cannot find the mark in the audit log")?;
        for line in BufReader::new(log).lines() {
            let line = line.context("cannot read the audit log")?;
            // The last line may not be whole yet.
            let Ok(event) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if let Some(user) = text(&event, "/user/username") {
                each(user, &event);
            }
        }
        Ok(())
    }
}

/// The right that a call asked for; none if it was refused, or was about no resource.
fn right_of(event: &Value) -> Option<String> {
    let text = |at: &str| text(event, at);
    let code = event
        .pointer("/responseStatus/code")
        .and_then(Value::as_u64);
    if code == Some(403) {
        return None;
    }
    let group = text("/objectRef/apiGroup").map(|group| format!(".{group}"));
    let sub = text("/objectRef/subresource").map(|sub| format!("/{sub}"));
    Some(format!(
        "{} {}{}{}",
        text("/verb")?,
        text("/objectRef/resource")?,
        group.unwrap_or_default(),
        sub.unwrap_or_default()
    ))
}

/// The name of a service account, as the API server calls its user.
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

fn text<'a>(event: &'a Value, at: &str) -> Option<&'a str> {
    event.pointer(at).and_then(Value::as_str)
}

fn call_of(event: &Value) -> Call {
    let text = |at: &str| text(event, at).unwrap_or_default();
    let (resource, sub) = (text("/objectRef/resource"), text("/objectRef/subresource"));
    let resource = match (resource, sub) {
        ("", _) => text("/requestURI")
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned(),
        (resource, "") => resource.to_owned(),
        (resource, sub) => format!("{resource}/{sub}"),
    };
    Call {
        verb: text("/verb").to_owned(),
        resource,
        code: event
            .pointer("/responseStatus/code")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn event(user: &str, verb: &str, sub: &str, code: u64) -> String {
        json!({
            "user": { "username": user }, "verb": verb, "responseStatus": { "code": code },
            "objectRef": { "resource": "spiderippools", "subresource": sub },
            "stageTimestamp": format!("2026-11-28T22:41:00.{code}000Z"),
        })
        .to_string()
    }

    #[test]
    fn a_right_is_used_by_a_call_that_was_not_refused() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::new(folder.path().join("audit.log"));
        let status = |verb: &str, code: u64| {
            json!({
                "user": { "username": "agent" }, "verb": verb, "responseStatus": { "code": code },
                "objectRef": {
                    "resource": "pools", "subresource": "status", "apiGroup": "a.example",
                },
            })
        };
        let lines = [status("update", 409), status("patch", 403), json!({})];
        fs::write(&log.file, lines.map(|line| line.to_string()).join("\n")).unwrap();
        let used = log.rights_used(&["agent".to_owned()]).unwrap();
        let own = used["agent"].iter().collect::<Vec<_>>();
        assert_eq!(own, ["update pools.a.example/status"]);
    }

    #[test]
    fn calls_are_counted_by_user_and_kind_from_a_mark_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::new(folder.path().join("audit.log"));
        let mut lines = vec![event("agent", "update", "status", 200)];
        fs::write(&log.file, lines.join("\n") + "\n").unwrap();
        let mark = log.mark().unwrap();
        lines.extend([
            event("agent", "update", "status", 409),
            event("agent", "update", "status", 409),
            event("somebody", "get", "", 200),
            "{\"user\": {\"username\": \"ag".to_owned(),
        ]);
        fs::write(&log.file, lines.join("\n")).unwrap();
        let calls = log.calls_since(mark, |user| user == "agent").unwrap();
        assert_eq!(calls.total(), 2);
        let conflicts = calls.count(|call| call.code == 409);
        assert_eq!(conflicts, 2);
        assert!(
            calls
                .to_string()
                .starts_with("       2  update   409  spiderippools/status\n")
        );
    }

    #[test]
    fn the_last_call_is_told_by_the_servers_clock() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::new(folder.path().join("audit.log"));
        let codes = [200, 409, 201].map(|code| event("agent", "update", "", code));
        fs::write(&log.file, codes.join("\n") + "\n").unwrap();
        let last = log.last_since(Mark(0), |_, call| call.succeeded()).unwrap();
        assert_eq!(last.unwrap().to_string(), "2026-11-28T22:41:00.201Z");
        let none = log.last_since(Mark(0), |user, _| user == "nobody");
        assert_eq!(none.unwrap(), None);
    }

    #[test]
    fn a_review_is_a_question_and_no_write() {
        let call = |verb: &str, resource: &str| Call {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            code: 201,
        };
        assert!(call("create", "spiderendpoints").is_write());
        assert!(call("patch", "events").is_write());
        assert!(!call("create", "tokenreviews").is_write());
        assert!(!call("create", "serviceaccounts/token").is_write());
        assert!(!call("watch", "spiderippools").is_write());
    }
}
