use super::*;
use crate::api::SpiderReservedIP as Object;
use kube::core::error_boundary::InvalidObject;
use proptest::prelude::*;

fn object(name: &str, uid: u64, version: u64) -> Object {
    Object {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            uid: Some(uid.to_string()),
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        },
        ..Object::default()
    }
}

fn good(name: &str, version: u64) -> DeserializeGuard<Object> {
    DeserializeGuard(Ok(object(name, 1, version)))
}

fn bad(name: &str, version: u64) -> DeserializeGuard<Object> {
    DeserializeGuard(Err(InvalidObject {
        error: "missing field spec".to_owned(),
        metadata: object(name, 1, version).metadata,
    }))
}

fn list(store: &mut Store<Object>, objects: Vec<DeserializeGuard<Object>>) -> Vec<Change<Object>> {
    assert!(store.watched(Event::Init).is_empty());
    for guard in objects {
        assert!(store.watched(Event::InitApply(guard)).is_empty());
    }
    store.watched(Event::InitDone)
}

fn content(store: &Store<Object>) -> Vec<(String, u64)> {
    let version = |o: &Arc<Object>| version_of(&o.metadata).unwrap();
    let each = |(key, o): (&Key, &Arc<Object>)| (key.to_string(), version(o));
    store.objects().iter().map(each).collect()
}

fn is(content: &[(&str, u64)]) -> Vec<(String, u64)> {
    content.iter().map(|&(k, v)| (k.to_owned(), v)).collect()
}

#[test]
fn a_list_shows_only_when_it_is_complete() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1), good("b", 2)]);
    store.watched(Event::Init);
    store.watched(Event::InitApply(good("b", 5)));
    assert_eq!(content(&store), is(&[("a", 1), ("b", 2)]));
    let changes = store.watched(Event::InitDone);
    assert_eq!(content(&store), is(&[("b", 5)]));
    let keys: Vec<_> = changes.iter().map(|c| c.key.to_string()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(changes[0].new.object().is_none() && changes[1].old.object().is_some());
}

#[test]
fn a_list_without_news_tells_of_nothing() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1)]);
    let before = Arc::clone(&store.objects()[&Key::cluster("a")]);
    assert!(list(&mut store, vec![good("a", 1)]).is_empty());
    assert!(Arc::ptr_eq(&before, &store.objects()[&Key::cluster("a")]));
}

#[test]
fn an_older_version_never_wins() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1)]);
    assert!(store.written(object("a", 1, 5)).is_some());
    assert!(store.watched(Event::Apply(good("a", 4))).is_empty());
    assert!(store.written(object("a", 1, 3)).is_none());
    assert!(store.watched(Event::Apply(good("a", 5))).is_empty());
    assert_eq!(content(&store), is(&[("a", 5)]));
}

#[test]
fn the_late_answer_to_a_write_brings_nothing_back() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1)]);
    store.watched(Event::Delete(good("a", 6)));
    assert!(store.written(object("a", 1, 5)).is_none());
    assert!(content(&store).is_empty());
}

#[test]
fn the_late_deletion_of_a_namesake_takes_nothing_away() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1)]);
    store.written(object("a", 2, 9));
    assert!(store.watched(Event::Delete(good("a", 6))).is_empty());
    assert_eq!(content(&store), is(&[("a", 9)]));
}

#[test]
fn a_write_answered_during_a_list_outlives_it() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1)]);
    store.watched(Event::Init);
    store.watched(Event::InitApply(good("a", 1)));
    store.written(object("a", 1, 7));
    store.written(object("b", 2, 8));
    assert!(store.watched(Event::InitDone).is_empty());
    assert_eq!(content(&store), is(&[("a", 7), ("b", 8)]));
}

#[test]
fn a_write_the_watch_passes_without_a_word_is_of_an_object_that_is_gone() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1)]);
    store.written(object("b", 2, 8));
    let changes = store.watched(Event::Apply(good("a", 10)));
    assert_eq!(changes.len(), 2);
    assert_eq!(content(&store), is(&[("a", 10)]));
}

#[test]
fn a_live_call_that_finds_nothing_removes_only_what_it_looked_for() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1)]);
    assert!(store.gone(&Key::cluster("a"), "2").is_none());
    assert!(store.gone(&Key::cluster("b"), "1").is_none());
    assert!(store.gone(&Key::cluster("a"), "1").is_some());
    assert!(content(&store).is_empty());
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_the_rest_goes_on() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1), bad("b", 2)]);
    assert_eq!(content(&store), is(&[("a", 1)]));
    assert_eq!(
        store.unreadable()[&Key::cluster("b")].reason,
        "missing field spec"
    );

    let changes = store.watched(Event::Apply(bad("a", 3)));
    assert!(matches!(
        &changes[..],
        [Change {
            old: Held::Object(_),
            new: Held::Unreadable(_),
            ..
        }]
    ));
    assert_eq!(store.watched(Event::Apply(good("b", 4))).len(), 1);
    assert_eq!(content(&store), is(&[("b", 4)]));
    let unreadable: Vec<_> = store.unreadable().keys().map(Key::to_string).collect();
    assert_eq!(unreadable, ["a"]);

    // A list that shows it as it was has no news; one without it tells that it is gone.
    assert!(list(&mut store, vec![bad("a", 3), good("b", 4)]).is_empty());
    let changes = list(&mut store, vec![good("b", 4)]);
    assert!(matches!(
        &changes[..],
        [Change {
            old: Held::Unreadable(_),
            new: Held::Nothing,
            ..
        }]
    ));

    store.watched(Event::Apply(bad("a", 6)));
    let changes = store.watched(Event::Delete(bad("a", 7)));
    assert_eq!(changes[0].old.uid(), Some("1"));
    assert!(store.unreadable().is_empty());
}

#[test]
fn versions_that_start_again_are_taken_from_the_list() {
    let mut store = Store::default();
    list(&mut store, vec![good("a", 1000)]);
    store.watched(Event::Apply(good("a", 1001)));
    list(&mut store, vec![good("a", 3)]);
    assert_eq!(content(&store), is(&[("a", 3)]));
    assert!(store.written(object("b", 2, 4)).is_some());
}

/// What can happen, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Another program writes an object, and makes it if it isn't there.
    Write(usize),
    /// We write one; the answer is on its way.
    WriteOurs(usize),
    /// Someone deletes one.
    Delete(usize),
    /// The next event of the watch arrives.
    Deliver,
    /// One of the answers on their way arrives.
    Answer(usize),
    /// The connection is lost; a new list begins.
    List,
    /// The API server takes the moment the list will show.
    Snapshot,
    /// The list arrives.
    Listed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3_usize).prop_map(Step::Write),
        4 => (0..3_usize).prop_map(Step::WriteOurs),
        2 => (0..3_usize).prop_map(Step::Delete),
        6 => Just(Step::Deliver),
        4 => (0..8_usize).prop_map(Step::Answer),
        1 => Just(Step::List),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Listed),
    ];
    prop::collection::vec(step, 0..60)
}

#[derive(Clone)]
struct Logged {
    version: u64,
    name: &'static str,
    /// The object after it, none for a deletion.
    object: Option<Object>,
}

/// How far a list has come.
#[derive(Clone, Copy, Default, PartialEq)]
enum List {
    #[default]
    None,
    Begun,
    /// It shows this many events of the log.
    Taken(usize),
}

/// An API server that keeps every event, and one client of it.
#[derive(Default)]
struct World {
    log: Vec<Logged>,
    live: BTreeMap<&'static str, Object>,
    /// How many events of the log the watch has delivered.
    delivered: usize,
    answers: Vec<Object>,
    /// The newest version of each object that we were told as the answer to a write.
    answered: BTreeMap<&'static str, u64>,
    /// The answers since the last list began.
    answered_since: BTreeMap<Key, u64>,
    /// How many events of the log the last list showed.
    shown: usize,
    list: List,
    store: Store<Object>,
    /// What someone knows who heard of every change.
    mirror: BTreeMap<Key, u64>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.step(Step::List);
        world.step(Step::Snapshot);
        world.step(Step::Listed);
        world
    }

    fn write(&mut self, name: &'static str) -> Object {
        let version = self.log.len() as u64 + 1;
        let uid = self.live.get(name).map_or(version, |o| {
            o.metadata.uid.as_ref().unwrap().parse().unwrap()
        });
        let object = object(name, uid, version);
        self.live.insert(name, object.clone());
        self.log.push(Logged {
            version,
            name,
            object: Some(object.clone()),
        });
        object
    }

    fn step(&mut self, step: Step) {
        let changes = match step {
            Step::Write(i) => {
                self.write(NAMES[i]);
                Vec::new()
            }
            Step::WriteOurs(i) => {
                let answer = self.write(NAMES[i]);
                self.answers.push(answer);
                Vec::new()
            }
            Step::Delete(i) => {
                if self.live.remove(NAMES[i]).is_some() {
                    let version = self.log.len() as u64 + 1;
                    self.log.push(Logged {
                        version,
                        name: NAMES[i],
                        object: None,
                    });
                }
                Vec::new()
            }
            Step::Deliver => self.deliver(),
            Step::Answer(which) => self.answer(which),
            Step::List if self.list == List::None => {
                self.list = List::Begun;
                self.answered_since.clear();
                self.store.watched(Event::Init)
            }
            Step::Snapshot if self.list == List::Begun => {
                self.list = List::Taken(self.log.len());
                Vec::new()
            }
            Step::Listed => self.listed(),
            Step::List | Step::Snapshot => Vec::new(),
        };
        self.check(changes);
    }

    fn deliver(&mut self) -> Vec<Change<Object>> {
        if self.list != List::None || self.delivered == self.log.len() {
            return Vec::new();
        }
        let event = self.log[self.delivered].clone();
        self.delivered += 1;
        self.store.watched(match event.object {
            Some(object) => Event::Apply(DeserializeGuard(Ok(object))),
            None => Event::Delete(good(event.name, event.version)),
        })
    }

    fn answer(&mut self, which: usize) -> Vec<Change<Object>> {
        if self.answers.is_empty() {
            return Vec::new();
        }
        let answer = self.answers.swap_remove(which % self.answers.len());
        let (key, written) = (Key::of(&answer), version_of(&answer.metadata).unwrap());
        let name = NAMES.into_iter().find(|n| *n == key.name).unwrap();
        let newest = self.answered.entry(name).or_default();
        *newest = written.max(*newest);
        self.answered_since.insert(key, written);
        self.store.written(answer).into_iter().collect()
    }

    fn listed(&mut self) -> Vec<Change<Object>> {
        let List::Taken(shown) = self.list else {
            return Vec::new();
        };
        let mut objects = BTreeMap::new();
        for event in &self.log[..shown] {
            match &event.object {
                Some(object) => objects.insert(event.name, object.clone()),
                None => objects.remove(event.name),
            };
        }
        self.list = List::None;
        (self.delivered, self.shown) = (shown, shown);
        for object in objects.values().cloned() {
            let guard = DeserializeGuard(Ok(object));
            assert!(self.store.watched(Event::InitApply(guard)).is_empty());
        }
        let changes = self.store.watched(Event::InitDone);
        for key in self.store.objects().keys() {
            let listed = objects.contains_key(key.name.as_str());
            assert!(
                listed || self.answered_since.contains_key(key),
                "{key} outlives the list without a reason"
            );
        }
        changes
    }

    /// What holds after every step, whatever came before.
    fn check(&mut self, changes: Vec<Change<Object>>) {
        for Change { key, old, new } in changes {
            let version = |o: &Arc<Object>| version_of(&o.metadata).unwrap();
            assert_eq!(self.mirror.remove(&key), old.object().map(version));
            if let Some(new) = new.object() {
                let before = old.object().map_or(0, version);
                assert!(version(new) > before, "{key} went back");
                self.mirror.insert(key, version(new));
            }
        }
        let held = content(&self.store).into_iter();
        let held: BTreeMap<Key, u64> = held.map(|(k, v)| (Key::cluster(&k), v)).collect();
        assert_eq!(self.mirror, held, "whoever hears of every change knows all");
        for (&name, &written) in &self.answered {
            let deleted = |e: &Logged| e.name == name && e.object.is_none() && e.version > written;
            let known = held.get(&Key::cluster(name)).copied().unwrap_or(0);
            assert!(
                known >= written || self.log.iter().any(deleted),
                "{name}: own write at {written} not seen"
            );
        }
        for event in &self.log[self.shown.min(self.delivered)..self.delivered] {
            if let Some(&known) = held.get(&Key::cluster(event.name)) {
                assert!(known >= event.version, "{} is behind the watch", event.name);
            }
        }
    }

    /// Lets everything arrive, and one write more, which shows the watch has passed all others.
    fn settle(&mut self) {
        self.step(Step::Snapshot);
        self.step(Step::Listed);
        while !self.answers.is_empty() {
            self.step(Step::Answer(0));
        }
        self.step(Step::Write(0));
        while self.delivered < self.log.len() {
            self.step(Step::Deliver);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn in_the_end_the_cache_is_the_server_and_on_the_way_it_never_goes_back(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        let live: Vec<_> = world.live.iter()
            .map(|(name, o)| ((*name).to_owned(), version_of(&o.metadata).unwrap()))
            .collect();
        prop_assert_eq!(content(&world.store), live);
    }
}
