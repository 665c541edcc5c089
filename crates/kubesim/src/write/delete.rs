//! DELETE: at once, after a grace period, or when the last finalizer goes.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::builtin::Deletion;
use crate::clock;
use crate::error::{ApiError, Cause};
use crate::object::{self, as_map, metadata};
use crate::read::present;
use crate::selector::Selector;
use crate::store::Key;

use super::{Answer, Turn};

/// Dependents lose their owner before it goes.
pub(crate) const ORPHAN: &str = "orphan";
/// Dependents go before their owner.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
const POLICIES: &[&str] = &["Background", "Foreground", "Orphan"];

/// How to delete, from the body and the query.
#[derive(Debug)]
struct Options {
    grace: Option<i64>,
    uid: Option<String>,
    version: Option<String>,
    policy: Option<String>,
    orphan: Option<bool>,
}

/// What came of a DELETE.
enum Outcome {
    Gone(Value),
    Going(Value),
}

impl Turn<'_> {
    /// DELETE of one object.
    pub(super) fn delete(&mut self) -> Result<Answer, ApiError> {
        let options = self.options()?;
        let key = self.key(&self.call.name);
        let old = self.stored(&key)?;
        let accepted = options.orphan == Some(false);
        let outcome = self.delete_one(key, &old, &options)?;
        Ok(match outcome {
            Outcome::Going(object) => Answer {
                code: if accepted { 202 } else { 200 },
                ..Answer::ok(object)
            },
            Outcome::Gone(object) if self.call.kind.returns_deleted() => Answer::ok(object),
            Outcome::Gone(object) => {
                let kind = self.call.kind.as_ref();
                let mut details = kind.details(object::name(&object), &kind.plural);
                as_map(&mut details).insert("uid".to_owned(), json!(object::uid(&object)));
                Answer::ok(json!({
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Success",
                    "details": details,
                }))
            }
        })
    }

    /// DELETE of all that the selectors name.
    pub(super) fn delete_collection(&mut self) -> Result<Answer, ApiError> {
        let options = self.options()?;
        let kind = Arc::clone(&self.call.kind);
        let selector = Selector::of(self.call)?;
        let namespace = (!self.call.namespace.is_empty()).then_some(self.call.namespace.as_str());
        let found: Vec<(Key, Arc<Value>)> = self
            .state
            .store
            .list(&kind.storage, namespace)
            .filter(|(_, object)| selector.matches(&kind, object))
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        let revision = self.state.store.revision();
        let mut items = Vec::new();
        for (key, object) in found {
            self.delete_one(key, &object, &options)?;
            let mut item = present(&kind, &object);
            if kind.builtin().is_some() {
                as_map(&mut item).remove("kind");
                as_map(&mut item).remove("apiVersion");
            }
            items.push(item);
        }
        Ok(Answer::ok(json!({
            "kind": kind.list_kind,
            "apiVersion": kind.api_version(),
            "metadata": { "resourceVersion": revision.to_string() },
            "items": items,
        })))
    }

    fn options(&self) -> Result<Options, ApiError> {
        let body = self.call.json()?.unwrap_or_default();
        let owned = |at: &str| body.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let query = &self.call.query;
        let named = query.get("propagationPolicy");
        let options = Options {
            grace: match body.get("gracePeriodSeconds").and_then(Value::as_i64) {
                Some(grace) => Some(grace),
                None => query.number("gracePeriodSeconds")?,
            },
            uid: owned("/preconditions/uid"),
            version: owned("/preconditions/resourceVersion"),
            policy: owned("/propagationPolicy")
                .or_else(|| (!named.is_empty()).then(|| named.to_owned())),
            orphan: body
                .get("orphanDependents")
                .and_then(Value::as_bool)
                .or_else(|| {
                    query
                        .has("orphanDependents")
                        .then(|| query.flag("orphanDependents"))
                }),
        };
        let cause = match (&options.policy, options.orphan) {
            (Some(policy), Some(_)) => Cause::invalid(
                "propagationPolicy",
                &json!(policy),
                "orphanDependents and deletionPropagation cannot be both set",
            ),
            (Some(policy), None) if !POLICIES.contains(&policy.as_str()) => Cause::unsupported(
                "propagationPolicy",
                &json!(policy),
                &[
                    "Foreground".to_owned(),
                    "Background".to_owned(),
                    "Orphan".to_owned(),
                    "nil".to_owned(),
                ],
            ),
            _ => return Ok(options),
        };
        Err(ApiError::invalid_of(
            "meta.k8s.io",
            "DeleteOptions",
            "",
            &[cause],
        ))
    }

    fn delete_one(
        &mut self,
        key: Key,
        old: &Arc<Value>,
        options: &Options,
    ) -> Result<Outcome, ApiError> {
        self.check_preconditions(old, options)?;
        let kind = Arc::clone(&self.call.kind);
        if kind.is_core("namespaces") {
            return self.delete_namespace(key, old);
        }
        let mut object = old.as_ref().clone();
        let Some(grace) = self.graceful(&mut object, options.grace) else {
            return Ok(Outcome::Going(present(&kind, old)));
        };
        let finalizers = finalizers_after(&object, options, kind.deletion());
        let waits = !finalizers.is_empty();
        if object::finalizers(&object) != finalizers.iter().map(String::as_str).collect::<Vec<_>>()
        {
            if waits {
                metadata(&mut object).insert("finalizers".to_owned(), json!(finalizers));
            } else {
                metadata(&mut object).remove("finalizers");
            }
        }
        if waits && grace == Grace::None {
            self.mark(&mut object);
        }
        let stays = waits || matches!(grace, Grace::Seconds(seconds) if seconds > 0);
        if object != **old && (stays || grace != Grace::None) && !self.call.is_dry_run() {
            let commit = self.state.store.put(key.clone(), object, &self.call.actor);
            object = commit.new.as_ref().clone();
        }
        if stays {
            return Ok(Outcome::Going(present(&kind, &object)));
        }
        Ok(Outcome::Gone(self.remove(key)))
    }

    fn check_preconditions(&self, old: &Value, options: &Options) -> Result<(), ApiError> {
        let (kind, name) = (self.call.kind.as_ref(), object::name(old));
        if let Some(wanted) = &options.uid
            && wanted != object::uid(old)
        {
            let why = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                object::uid(old)
            );
            return Err(ApiError::delete_conflict(kind, name, &why));
        }
        let version = object::meta(old, "resourceVersion").unwrap_or_default();
        if let Some(wanted) = &options.version
            && wanted != version
        {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
            );
            return Err(ApiError::delete_conflict(kind, name, &why));
        }
        Ok(())
    }

    /// Sets what a graceful deletion sets. `None`: one is under way, and this one changes nothing.
    fn graceful(&self, object: &mut Value, asked: Option<i64>) -> Option<Grace> {
        if !self.call.kind.is_core("pods") {
            return Some(Grace::None);
        }
        let asked = asked.map(|seconds| if seconds < 0 { 1 } else { seconds });
        if object::is_going(object) {
            let under_way = object
                .pointer("/metadata/deletionGracePeriodSeconds")
                .and_then(Value::as_i64);
            let Some(under_way) = under_way.filter(|seconds| *seconds > 0) else {
                return Some(Grace::None);
            };
            let asked = asked.filter(|asked| *asked < under_way)?;
            return Some(self.shorten(object, under_way, asked));
        }
        let own = object
            .pointer("/spec/terminationGracePeriodSeconds")
            .and_then(Value::as_i64);
        let is_over = matches!(
            object::text(object, "/status/phase"),
            "Failed" | "Succeeded"
        );
        let is_placed = !object::text(object, "/spec/nodeName").is_empty();
        let wanted = asked.or(own).unwrap_or_default();
        let wanted = if wanted < 0 { 1 } else { wanted };
        let seconds = if is_over || !is_placed { 0 } else { wanted };
        set_deletion(object, self.now, seconds);
        bump(object);
        Some(Grace::Seconds(seconds))
    }

    fn shorten(&self, object: &mut Value, under_way: i64, asked: i64) -> Grace {
        let began = object::meta(object, "deletionTimestamp")
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .unwrap_or(self.now);
        let shift = SignedDuration::from_secs(asked - under_way);
        let until = began.saturating_add(shift).unwrap_or(self.now);
        let (until, seconds) = match (until < self.now, asked) {
            (false, _) => (until, asked),
            (true, 0) => (self.now, 0),
            (true, _) => (self.now, 1),
        };
        let meta = metadata(object);
        meta.insert("deletionTimestamp".to_owned(), json!(clock::seconds(until)));
        meta.insert("deletionGracePeriodSeconds".to_owned(), json!(seconds));
        Grace::Seconds(seconds)
    }

    /// Marks an object that goes when its finalizers are gone.
    fn mark(&self, object: &mut Value) {
        if object::is_going(object) {
            metadata(object).insert("deletionGracePeriodSeconds".to_owned(), json!(0));
            return;
        }
        set_deletion(object, self.now, 0);
        bump(object);
    }

    fn delete_namespace(&mut self, key: Key, old: &Arc<Value>) -> Result<Outcome, ApiError> {
        let kind = Arc::clone(&self.call.kind);
        if matches!(key.name.as_str(), "default" | "kube-public" | "kube-system") {
            return Err(ApiError::forbidden(
                &kind,
                &key.name,
                "this namespace may not be deleted",
            ));
        }
        let own = old
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty());
        if !own && object::finalizers(old).is_empty() {
            return Ok(Outcome::Gone(self.remove(key)));
        }
        let mut object = old.as_ref().clone();
        if !object::is_going(&object) {
            let meta = metadata(&mut object);
            meta.insert(
                "deletionTimestamp".to_owned(),
                json!(clock::seconds(self.now)),
            );
            object::map_at(&mut object, "status").insert("phase".to_owned(), json!("Terminating"));
        }
        if object == **old {
            return Ok(Outcome::Going(present(&kind, old)));
        }
        Ok(Outcome::Going(self.commit(key, object)?))
    }

    /// Removes an object for good, and of a definition every object it defines.
    pub(super) fn remove(&mut self, key: Key) -> Value {
        let kind = Arc::clone(&self.call.kind);
        if self.call.is_dry_run() {
            let stored = self.state.store.get(&key);
            return stored
                .map(|stored| present(&kind, stored))
                .unwrap_or_default();
        }
        if &*key.resource == crate::custom::DEFINITIONS {
            let resource: Arc<str> = Arc::from(key.name.as_str());
            let all: Vec<Key> = self
                .state
                .store
                .list(&resource, None)
                .map(|(key, _)| key.clone())
                .collect();
            for key in all {
                self.state.store.remove(key, &self.call.actor);
            }
        }
        let commit = self.state.store.remove(key, &self.call.actor);
        commit
            .map(|commit| present(&kind, &commit.new))
            .unwrap_or_default()
    }
}

/// Whether an object gets time to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grace {
    /// Its kind knows nothing of it.
    None,
    /// So much.
    Seconds(i64),
}

/// Sets when an object is to be gone.
fn set_deletion(object: &mut Value, from: jiff::Timestamp, seconds: i64) {
    let until = from
        .saturating_add(SignedDuration::from_secs(seconds))
        .unwrap_or(from);
    let meta = metadata(object);
    meta.insert("deletionTimestamp".to_owned(), json!(clock::seconds(until)));
    meta.insert("deletionGracePeriodSeconds".to_owned(), json!(seconds));
}

fn bump(object: &mut Value) {
    let generation = object::generation(object);
    if generation > 0 {
        metadata(object).insert("generation".to_owned(), json!(generation + 1));
    }
}

/// The finalizers after a DELETE with these options.
fn finalizers_after(object: &Value, options: &Options, usual: Deletion) -> Vec<String> {
    let now = object::finalizers(object);
    let has = |name: &str| now.contains(&name);
    let policy = options.policy.as_deref();
    let orphan = match (options.orphan, policy) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == "Orphan",
        (None, None) if has(ORPHAN) => true,
        (None, None) if has(FOREGROUND) => false,
        (None, None) => usual == Deletion::Orphan,
    };
    let foreground = match (options.orphan, policy) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == "Foreground",
        (None, None) => has(FOREGROUND) && !has(ORPHAN),
    };
    let mut after: Vec<String> = now
        .iter()
        .filter(|name| **name != ORPHAN && **name != FOREGROUND)
        .map(|name| (*name).to_owned())
        .collect();
    if orphan {
        after.push(ORPHAN.to_owned());
    }
    if foreground {
        after.push(FOREGROUND.to_owned());
    }
    let same = after.len() == now.len() && after.iter().all(|name| now.contains(&name.as_str()));
    if same {
        now.iter().map(|name| (*name).to_owned()).collect()
    } else {
        after
    }
}
