//! Watches: every kind's history, and what stands before it.

use futures::future::join_all;
use serde_json::{Map, Value};

use super::reads::{FAR, Query, Question, TABLE};
use super::script::{Op, PLAIN, SUBJECTS, Subject};
use super::side::Side;

/// Of how many kinds the watches run at a time: each lasts until its timeout.
const AT_ONCE: usize = 2;
const ANNOTATION: &str = "k8s.io/initial-events-end";
const INITIAL_EVENTS_END: &str = "/metadata/annotations/k8s.io~1initial-events-end";

const VERSION: &str = "resourceVersion";
const MATCH: &str = "resourceVersionMatch";
const BOOKMARKS: (&str, &str) = ("allowWatchBookmarks", "true");
const INITIAL: (&str, &str) = ("sendInitialEvents", "true");
const NO_INITIAL: (&str, &str) = ("sendInitialEvents", "false");
const AT_LEAST: (&str, &str) = (MATCH, "NotOlderThan");
/// Longer than the real server waits for a version.
const LONG: (&str, &str) = ("timeoutSeconds", "5");

/// Of every kind. `$start` is the version before the last requests of the script.
const WATCHES: &[Query] = &[
    &[(VERSION, "$start")],
    &[(VERSION, "$start"), ("labelSelector", "tier=x")],
    &[(VERSION, "$start"), ("labelSelector", "tier in (y,s)")],
    &[(VERSION, "$start"), BOOKMARKS],
    &[],
    &[(VERSION, "0")],
    &[(VERSION, "0"), ("labelSelector", "tier=x")],
    &[BOOKMARKS],
    &[(VERSION, "0"), BOOKMARKS],
    &[
        (VERSION, "0"),
        BOOKMARKS,
        ("labelSelector", "tier in (y,s)"),
    ],
    &[INITIAL, AT_LEAST, BOOKMARKS],
    &[INITIAL, AT_LEAST, BOOKMARKS, (VERSION, "")],
    &[INITIAL, AT_LEAST, BOOKMARKS, (VERSION, "0")],
    &[INITIAL, AT_LEAST, BOOKMARKS, (VERSION, "$start")],
    &[INITIAL, AT_LEAST, (VERSION, "$start")],
    &[INITIAL, AT_LEAST, ("allowWatchBookmarks", "false")],
    &[NO_INITIAL, AT_LEAST, BOOKMARKS],
    &[NO_INITIAL, AT_LEAST, (VERSION, "0")],
    &[NO_INITIAL, AT_LEAST, (VERSION, "$start")],
    &[INITIAL, AT_LEAST, BOOKMARKS, (VERSION, "1")],
    &[(VERSION, FAR)],
];

/// From a version that is gone; of the built-in kinds the real server has had the history since it
/// began.
const GONE: &[Query] = &[
    &[(VERSION, "1")],
    &[(VERSION, "1"), BOOKMARKS],
    &[NO_INITIAL, AT_LEAST, (VERSION, "1")],
];

/// Of a few kinds: what is refused is refused of all of them.
const ODD: &[Query] = &[
    &[INITIAL, AT_LEAST, BOOKMARKS, (VERSION, FAR), LONG],
    &[INITIAL],
    &[NO_INITIAL],
    &[INITIAL, BOOKMARKS, (VERSION, "0")],
    &[AT_LEAST],
    &[(MATCH, "Exact"), (VERSION, "0")],
    &[INITIAL, (MATCH, "Exact"), BOOKMARKS],
    &[INITIAL, (MATCH, "Nearly"), BOOKMARKS],
    &[INITIAL, AT_LEAST, BOOKMARKS, ("continue", "e30")],
    &[(MATCH, "Nearly")],
    &[("sendInitialEvents", "perhaps"), AT_LEAST],
    &[("sendInitialEvents", ""), AT_LEAST],
    &[("allowWatchBookmarks", "perhaps"), (VERSION, "0")],
    &[(VERSION, "x")],
    &[(VERSION, "-1")],
    &[INITIAL, AT_LEAST, BOOKMARKS, (VERSION, "x")],
    &[(VERSION, "0"), ("limit", "1")],
    &[("labelSelector", "a==")],
    &[("fieldSelector", "nope=1")],
];

/// Asks both servers all of it. `starts` are the versions at `$start`.
pub(crate) async fn compare(
    real: &mut Side,
    ours: &mut Side,
    starts: &(String, String),
    differences: &mut Vec<String>,
) {
    for subjects in SUBJECTS.chunks(AT_ONCE) {
        let asked: Vec<Question> = subjects.iter().flat_map(questions).collect();
        let sides: (&Side, &Side) = (real, ours);
        let (theirs, mine) = tokio::join!(
            join_all(asked.iter().map(|one| answered(sides.0, one, &starts.0))),
            join_all(asked.iter().map(|one| answered(sides.1, one, &starts.1)))
        );
        for (one, (theirs, mine)) in asked.iter().zip(theirs.into_iter().zip(mine)) {
            if theirs.0 != mine.0 {
                let codes = format!("real {} {}, ours {} {}", theirs.0, theirs.1, mine.0, mine.1);
                differences.push(format!("{}: {codes}", told(one)));
            }
            let (theirs, mine) = (events(real, theirs.1), events(ours, mine.1));
            differences.extend(difference(one, &theirs, &mine));
        }
    }
}

fn questions(subject: &Subject) -> Vec<Question> {
    // What the real server does for itself is not compared.
    let others = if subject.namespaced {
        "metadata.namespace!=kube-system"
    } else {
        ""
    };
    let op = Op::get(&subject.everywhere()).with(&[("watch", "true")]);
    let complete = |query: Query| {
        let mut op = op.clone().with(query);
        let has = |op: &Op, name: &str| op.query.iter().any(|(one, _)| *one == name);
        if !has(&op, "timeoutSeconds") {
            op = op.with(&[("timeoutSeconds", "1")]);
        }
        if !has(&op, "fieldSelector") {
            op.query.push(("fieldSelector", others.to_owned()));
        }
        op
    };
    let mut asked: Vec<Question> = WATCHES
        .iter()
        .map(|query| Question::plain(complete(query)))
        .collect();
    if matches!(subject.plural, "configmaps" | "spiderippools") {
        asked.extend(ODD.iter().map(|query| Question::plain(complete(query))));
    }
    if subject.custom {
        asked.extend(GONE.iter().map(|query| Question::plain(complete(query))));
    }
    let tables: &[Query] = &[
        &[(VERSION, "$start"), ("includeObject", "None")],
        &[(VERSION, "0"), BOOKMARKS],
        &[(VERSION, "0"), ("includeObject", "Object")],
    ];
    asked.extend(tables.iter().map(|query| Question {
        op: complete(query),
        accept: TABLE,
    }));
    if subject.namespaced {
        let query: Query = &[
            (VERSION, "0"),
            ("fieldSelector", "metadata.name=b"),
            BOOKMARKS,
        ];
        let mut one = complete(query);
        one.path = subject.collection("other");
        asked.push(Question::plain(one));
    }
    asked
}

async fn answered(side: &Side, question: &Question, start: &str) -> (u16, Value) {
    let mut op = question.op.clone();
    for (_, value) in &mut op.query {
        *value = value.replace("$start", start);
    }
    side.send_for(&op, question.accept).await
}

fn told(question: &Question) -> String {
    let form = if question.accept == PLAIN {
        ""
    } else {
        " as a table"
    };
    format!(
        "watch of {} {:?}{form}",
        question.op.path, question.op.query
    )
}

fn difference(question: &Question, theirs: &[Value], mine: &[Value]) -> Option<String> {
    let same = theirs
        .iter()
        .zip(mine)
        .take_while(|(theirs, mine)| theirs == mine)
        .count();
    (same < theirs.len().max(mine.len())).then(|| {
        format!(
            "{}: event {same} of {} and {}\n  real: {}\n  ours: {}",
            told(question),
            theirs.len(),
            mine.len(),
            theirs.get(same).cloned().unwrap_or_default(),
            mine.get(same).cloned().unwrap_or_default()
        )
    })
}

/// The lines of a watch; a stream of one line is one object, of several it is text.
fn events(side: &mut Side, body: Value) -> Vec<Value> {
    let lines: Vec<Value> = match body {
        Value::String(text) => text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        one => vec![one],
    };
    lines
        .into_iter()
        .filter_map(bookmark)
        .map(|line| side.comparable(line))
        .collect()
}

/// Of a bookmark no more than its type and its annotation, and nothing of one that the server sends
/// when it likes.
fn bookmark(mut line: Value) -> Option<Value> {
    if line.get("type").and_then(Value::as_str) != Some("BOOKMARK") {
        return Some(line);
    }
    let in_table = line.pointer("/object/rows/0/object");
    let ends = |object: &Value| object.pointer(INITIAL_EVENTS_END).is_some();
    if !ends(&line["object"]) && !in_table.is_some_and(ends) {
        return None;
    }
    if let Some(Value::Object(object)) = line.get_mut("object") {
        object.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
        if let Some(Value::Object(meta)) = object.get_mut("metadata") {
            let annotation = meta.get_mut("annotations").map(Value::take);
            *meta = Map::from_iter(annotation.map(|all| {
                let ends = all.get(ANNOTATION).cloned().unwrap_or_default();
                (ANNOTATION.to_owned(), ends)
            }));
        }
    }
    Some(line)
}
