//! Events: what people see with `kubectl describe` and `kubectl events`.
//!
//! Owns: when a thing is said again, and the objects that say it. Never does: hold a pass up; what
//! is to be told waits in a bounded queue that one task drains. Invariants: only the leader tells;
//! what could not be told is not remembered as told.
//!
//! `kube-runtime`'s recorder counts an Event with the same object and reason as a repetition and
//! keeps the first text, so that "grown by 3" would stand for every later size. Each of ours says
//! something new, since what has been said is not said again, so each is an object of its own.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use ipam::name::Uid;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::{mpsc, watch};

use crate::error::ErrorChain;
use crate::kube_io::lease::Leadership;
use crate::kube_io::time;

/// Most Events that wait to be written; beyond it they are dropped, the next pass repeats them.
const WAITING_MAX: usize = 1_000;
/// Most texts that are remembered as said; beyond it all are forgotten, and some are said twice.
const SAID_MAX: usize = 20_000;
/// Longest text, in bytes. The API server refuses an Event with more than 1,024.
pub(super) const NOTE_MAX: usize = 1_000;
/// Longest part of an object's name in the name of an Event, which is that, a dot and a hash.
const NAME_MAX: usize = 253 - 17;
/// Longest name of a reporting instance that the API server takes.
const INSTANCE_MAX: usize = 128;
/// Where the Events of objects without a namespace go.
const DEFAULT_NAMESPACE: &str = "default";
/// Who tells.
const REPORTER: &str = "orbweaver-controller";

/// How urgent a notice is; in this order they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Somebody must do something.
    Warning,
    /// Good to know.
    Normal,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "Warning",
            Self::Normal => "Normal",
        }
    }
}

/// How often a notice is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// It happened: each time.
    Each,
    /// It is so: once, until it changes or heals.
    Once,
}

/// One thing to tell.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    pub(super) about: ObjectReference,
    pub(super) severity: Severity,
    pub(super) telling: Telling,
    pub(super) reason: &'static str,
    /// The pool or subnet that it is about; a workload can lack addresses in several.
    pub(super) subject: String,
    pub(super) note: String,
}

/// What a notice is remembered by: of whom, reason, subject.
type Key = (Uid, &'static str, String);

impl Notice {
    fn key(&self) -> Key {
        let uid = Uid::new(self.about.uid.clone().unwrap_or_default());
        (uid, self.reason, self.subject.clone())
    }
}

/// What has been said and not healed since.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<Key, String>);

impl Said {
    /// Whether `notice` says something new; from now on it does not.
    pub(super) fn is_news(&mut self, notice: &Notice) -> bool {
        if notice.telling == Telling::Each {
            return true;
        }
        if self.0.len() >= SAID_MAX {
            self.0.clear();
        }
        self.0.insert(notice.key(), notice.note.clone()).as_ref() != Some(&notice.note)
    }

    /// `notice` was not told after all.
    fn unsay(&mut self, notice: &Notice) {
        let key = notice.key();
        if self.0.get(&key) == Some(&notice.note) {
            self.0.remove(&key);
        }
    }

    /// What was said to `uid` under `reason` holds only for the subjects that `still` is true of.
    pub(super) fn heal(&mut self, uid: &Uid, reason: &'static str, still: impl Fn(&str) -> bool) {
        let from = (uid.clone(), reason, String::new());
        let told = self.0.range(from..).map(|(key, _)| key);
        let healed: Vec<Key> = told
            .take_while(|(of, why, _)| of == uid && *why == reason)
            .filter(|(_, _, subject)| !still(subject))
            .cloned()
            .collect();
        for key in healed {
            self.0.remove(&key);
        }
    }

    /// What was said to `uid` itself, not of one of its pools, is no longer so.
    pub(super) fn settle(&mut self, uid: &Uid) {
        self.0
            .retain(|(of, _, subject), _| of != uid || !subject.is_empty());
    }
}

/// Where notices are handed in.
pub(super) struct Teller {
    said: Arc<Mutex<Said>>,
    waiting: mpsc::Sender<Notice>,
}

impl Teller {
    /// A teller, and the other end of its queue.
    pub(super) fn new(client: Client, pod_name: Option<String>) -> (Self, Publisher) {
        let (waiting, notices) = mpsc::channel(WAITING_MAX);
        let said = Arc::<Mutex<Said>>::default();
        let instance = pod_name.unwrap_or_else(|| REPORTER.to_owned());
        let publisher = Publisher {
            client,
            instance: cut(&instance, INSTANCE_MAX).to_owned(),
            said: said.clone(),
            notices,
        };
        (Self { said, waiting }, publisher)
    }

    /// What has been said, to heal it.
    pub(super) fn said(&self) -> MutexGuard<'_, Said> {
        lock(&self.said)
    }

    /// Has `notices` told, the urgent ones first, as far as they are news and at most `most`.
    pub(super) fn tell(&self, mut notices: Vec<Notice>, most: usize) {
        notices.sort_by_key(|notice| notice.severity);
        let mut said = self.said();
        let mut told = 0;
        for notice in notices {
            if told == most {
                tracing::info!(
                    most,
                    "more Events than one pass writes: the rest is not told"
                );
                return;
            }
            if said.is_news(&notice) {
                told += 1;
                if let Err(full) = self.waiting.try_send(notice) {
                    let notice = full.into_inner();
                    said.unsay(&notice);
                    tracing::warn!(because = notice.reason, "too many Events wait: not told");
                }
            }
        }
    }
}

/// Writes the Events.
pub struct Publisher {
    client: Client,
    instance: String,
    said: Arc<Mutex<Said>>,
    notices: mpsc::Receiver<Notice>,
}

impl Publisher {
    /// Writes what is handed in for as long as this replica leads; ends with its [`super::Reports`].
    pub async fn run(mut self, leadership: watch::Receiver<Leadership>) {
        while let Some(notice) = self.notices.recv().await {
            // The one who leads says it as well.
            let told = *leadership.borrow() == Leadership::Leader && self.publish(&notice).await;
            if !told {
                lock(&self.said).unsay(&notice);
            }
        }
    }

    async fn publish(&self, notice: &Notice) -> bool {
        let event = event(notice, &self.instance, time::now());
        let namespace = event.metadata.namespace.as_deref();
        let api: Api<Event> =
            Api::namespaced(self.client.clone(), namespace.unwrap_or(DEFAULT_NAMESPACE));
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(
                    because = notice.reason,
                    error = %ErrorChain(&error),
                    "event not written"
                );
                false
            }
        }
    }
}

fn event(notice: &Notice, instance: &str, now: DateTime<Utc>) -> Event {
    let about = &notice.about;
    let mut hasher = DefaultHasher::new();
    (notice.key(), &notice.note, instance, now).hash(&mut hasher);
    let name = cut(about.name.as_deref().unwrap_or(REPORTER), NAME_MAX);
    let name = name.trim_end_matches(['-', '.']);
    let namespace = about.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:016x}", hasher.finish())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".to_owned()),
        event_time: Some(time::to_micro(now)),
        note: Some(cut(&notice.note, NOTE_MAX).to_owned()),
        reason: Some(notice.reason.to_owned()),
        regarding: Some(about.clone()),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(notice.severity.as_str().to_owned()),
        ..Event::default()
    }
}

/// The longest start of `text` with at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let fits = |(at, c): (usize, char)| Some(at + c.len_utf8()).filter(|end| *end <= most);
    let end = text.char_indices().map_while(fits).last();
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    // One insertion or removal a time: the map is whole whatever panicked.
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(uid: &str, reason: &'static str, subject: &str, note: &str) -> Notice {
        Notice {
            about: ObjectReference {
                name: Some("web".to_owned()),
                namespace: Some("shop".to_owned()),
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            telling: Telling::Once,
            reason,
            subject: subject.to_owned(),
            note: note.to_owned(),
        }
    }

    #[test]
    fn a_state_is_told_once_for_each_pool_until_its_text_changes() {
        let mut said = Said::default();
        let (v4, v6) = (
            notice("d", "Short", "p4", "4 missing"),
            notice("d", "Short", "p6", "6 missing"),
        );
        assert!(said.is_news(&v4) && said.is_news(&v6));
        assert!(!said.is_news(&v4) && !said.is_news(&v6));
        assert!(said.is_news(&notice("d", "Short", "p4", "5 missing")));
        assert!(!said.is_news(&v6));
    }

    #[test]
    fn what_happened_is_told_each_time() {
        let mut said = Said::default();
        let grown = Notice {
            telling: Telling::Each,
            ..notice("d", "Grown", "p", "grown by 3")
        };
        assert!(said.is_news(&grown) && said.is_news(&grown));
    }

    #[test]
    fn healing_forgets_just_the_subjects_that_healed() {
        let mut said = Said::default();
        let all = [
            notice("d", "Short", "p4", "x"),
            notice("d", "Short", "p6", "x"),
            notice("d", "Shorter", "p4", "x"),
            notice("e", "Short", "p4", "x"),
        ];
        for notice in &all {
            assert!(said.is_news(notice));
        }
        said.heal(&Uid::from("d"), "Short", |pool| pool == "p6");
        assert_eq!(
            all.each_ref().map(|n| said.is_news(n)),
            [true, false, false, false]
        );
    }

    #[test]
    fn what_was_not_told_is_news_again_but_a_later_text_stays_said() {
        let mut said = Said::default();
        let (first, second) = (notice("d", "S", "p", "1"), notice("d", "S", "p", "2"));
        assert!(said.is_news(&first));
        said.unsay(&first);
        assert!(said.is_news(&first));
        assert!(said.is_news(&second));
        said.unsay(&first);
        assert!(!said.is_news(&second));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 5), "abc");
        assert_eq!(cut("aéé", 2), "a");
        assert_eq!(cut("aéé", 3), "aé");
        let long = notice("d", "S", "p", &"é".repeat(900));
        let event = event(&long, "c", DateTime::UNIX_EPOCH);
        assert_eq!(event.note.unwrap().len(), NOTE_MAX);
    }

    #[test]
    fn each_event_has_a_name_and_a_place_that_the_server_takes() {
        let mut long = notice("d", "S", "p", "x");
        long.about.name = Some(format!("{}-{}", "a".repeat(235), "b".repeat(17)));
        let one = event(&long, "c", DateTime::UNIX_EPOCH);
        let name = one.metadata.name.unwrap();
        assert!(name.len() <= 253 && name.contains("a."), "{name}");
        assert_eq!(one.metadata.namespace.as_deref(), Some("shop"));
        long.about.namespace = None;
        let later = event(
            &long,
            "c",
            DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(1),
        );
        assert_ne!(later.metadata.name.unwrap(), name);
        assert_eq!(later.metadata.namespace.as_deref(), Some("default"));
    }
}
