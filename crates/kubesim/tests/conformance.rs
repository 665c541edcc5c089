//! The same random scripts against this server and against etcd with kube-apiserver: same codes,
//! reasons, messages, objects, versions by rank, and the same events of watches.
//!
//! `CONFORMANCE_SEED` and `CONFORMANCE_OPS` choose another script. Not compared: `managedFields`,
//! the text of continue tokens, a list's own version, times and uids but by their rank, the digits of
//! versions in messages, what is told as a Go struct, the order of complaints and how often one is
//! made (neither is certain on the real server).
//!
//! Known to differ, none of which the product meets: a Pod's deletion that is a dry run has a grace
//! period in the real answer; and, which no script draws, a Job whose labels a PUT of its status
//! empties, a finalizer that is no name in such a PUT, and rules over values of the wrong type in an
//! object of the wrong kind.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

#[path = "conformance/real.rs"]
mod real;
#[path = "conformance/script.rs"]
mod script;
#[path = "conformance/side.rs"]
mod side;

use std::fmt::Write as _;

use kubesim::Server;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use script::{Op, PLAIN, SUBJECTS};
use serde_json::{Value, json};
use side::Side;

/// How many requests a run makes, if it isn't told.
const OPERATIONS: usize = 3_400;
/// One of so many is a server-side apply.
const APPLY_EVERY: usize = 8;
/// How many earlier requests for the object of a difference are told.
const TOLD_BEFORE: usize = 6;
/// How many differences are told of, before it is enough.
const TOLD: usize = 40;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::test]
async fn both_servers_answer_the_same() {
    let Some(bin) = real::tools() else {
        assert!(
            std::env::var_os("ORBWEAVER_REQUIRE_TOOLS").is_none(),
            "etcd and kube-apiserver are missing: make tools"
        );
        eprintln!("SKIPPED: etcd and kube-apiserver are not there; `make tools` builds them");
        return;
    };
    let running = real::RealServer::start(&bin);
    let server = Server::new(7);
    let mut real = Side::new(running.client().await);
    let mut ours = Side::new(server.client("conformance"));
    set_up(&mut real, &mut ours).await;
    let starts = (list_version(&mut real).await, list_version(&mut ours).await);
    let seed = number("CONFORMANCE_SEED", 1) as u64;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut applies = StdRng::seed_from_u64(!seed);
    let mut differences: Vec<String> = Vec::new();
    let operations = number("CONFORMANCE_OPS", OPERATIONS);
    let mut before: Vec<Op> = Vec::new();
    for step in 0..operations {
        // Of a stream of their own: more of them shift no other request.
        let op = if step % APPLY_EVERY == 0 {
            script::apply(&mut applies)
        } else {
            script::next(&mut rng)
        };
        let (theirs, mine) = (real.ask(&op).await, ours.ask(&op).await);
        if theirs != mine {
            differences.push(told(step, &op, &theirs, &mine) + &history(&before, &op));
            (real.ranks, ours.ranks) = (false, false);
            if differences.len() >= TOLD {
                break;
            }
        }
        before.push(op);
    }
    if differences.is_empty() {
        compare_watches(&mut real, &mut ours, &starts, &mut differences).await;
    }
    assert!(
        differences.is_empty(),
        "seed {seed}: {} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// What was asked before of the same object.
fn history(before: &[Op], op: &Op) -> String {
    let same = |one: &&Op| one.path.starts_with(&op.path) || op.path.starts_with(&one.path);
    let last = before.iter().rev().filter(same).take(TOLD_BEFORE);
    let mut text = String::new();
    for op in last {
        let body = op.body.as_ref().map(Value::to_string).unwrap_or_default();
        writeln!(text, "  before: {} {} {body}", op.method, op.path).unwrap();
    }
    text
}

/// What a script needs: namespaces, and the custom kinds of this repository.
async fn set_up(real: &mut Side, ours: &mut Side) {
    let post = |path: &str, body: Value| Op {
        method: "POST",
        path: path.to_owned(),
        query: Vec::new(),
        content_type: PLAIN,
        body: Some(body),
    };
    let mut ops: Vec<Op> = ["other", "doomed"]
        .iter()
        .map(|name| {
            post(
                "/api/v1/namespaces",
                json!({ "metadata": { "name": name } }),
            )
        })
        .collect();
    let crds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let mut files: Vec<_> = std::fs::read_dir(crds)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let definition: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        ops.push(post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            definition,
        ));
    }
    for op in &ops {
        for side in [&mut *real, &mut *ours] {
            let (code, body) = side.send(op).await;
            assert_eq!(code, 201, "{body}");
        }
    }
    // The real server serves a new kind a moment after it has taken the definition.
    for subject in SUBJECTS.iter().filter(|subject| subject.custom) {
        let op = Op {
            method: "GET",
            path: subject.everywhere(),
            query: Vec::new(),
            content_type: PLAIN,
            body: None,
        };
        for _ in 0..100 {
            if real.send(&op).await.0 == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
}

async fn list_version(side: &mut Side) -> String {
    let op = Op {
        method: "GET",
        path: "/api/v1/configmaps".to_owned(),
        query: Vec::new(),
        content_type: PLAIN,
        body: None,
    };
    let (_, body) = side.send(&op).await;
    body.pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .unwrap()
        .to_owned()
}

/// Every kind's history since the start, whole and through selectors.
async fn compare_watches(
    real: &mut Side,
    ours: &mut Side,
    starts: &(String, String),
    differences: &mut Vec<String>,
) {
    for subject in SUBJECTS {
        for selector in ["", "tier=x", "tier in (y,s)"] {
            let op = |start: &str| Op {
                method: "GET",
                path: subject.everywhere(),
                query: vec![
                    ("watch", "true".to_owned()),
                    ("resourceVersion", start.to_owned()),
                    ("timeoutSeconds", "1".to_owned()),
                    ("labelSelector", selector.to_owned()),
                    (
                        "fieldSelector",
                        if subject.namespaced {
                            "metadata.namespace!=kube-system"
                        } else {
                            ""
                        }
                        .to_owned(),
                    ),
                ],
                content_type: PLAIN,
                body: None,
            };
            let (theirs, mine) = (op(&starts.0), op(&starts.1));
            let (theirs, mine) = tokio::join!(real.send(&theirs), ours.send(&mine));
            let (theirs, mine) = (events(real, theirs.1), events(ours, mine.1));
            let same = theirs
                .iter()
                .zip(&mine)
                .take_while(|(theirs, mine)| theirs == mine)
                .count();
            if same < theirs.len().max(mine.len()) {
                differences.push(format!(
                    "watch of {} {selector:?}: event {same} of {} and {}\n  real: {}\n  ours: {}",
                    subject.plural,
                    theirs.len(),
                    mine.len(),
                    theirs.get(same).cloned().unwrap_or_default(),
                    mine.get(same).cloned().unwrap_or_default()
                ));
            }
        }
    }
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
        .map(|line| side.comparable(line))
        .collect()
}

fn told(step: usize, op: &Op, theirs: &side::Answer, mine: &side::Answer) -> String {
    let mut text = format!(
        "{step}: {} {} {:?} {}\n",
        op.method, op.path, op.query, op.content_type
    );
    let body = op.body.as_ref().map(Value::to_string).unwrap_or_default();
    writeln!(text, "  sent: {body}").unwrap();
    writeln!(text, "  code: real {}, ours {}", theirs.code, mine.code).unwrap();
    tell_difference("", &theirs.body, &mine.body, &mut text);
    text
}

fn tell_difference(at: &str, theirs: &Value, mine: &Value, text: &mut String) {
    match (theirs, mine) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let none = Value::String("(absent)".to_owned());
                let (a, b) = (a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none));
                tell_difference(&format!("{at}.{key}"), a, b, text);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                tell_difference(&format!("{at}[{index}]"), a, b, text);
            }
        }
        _ if theirs == mine => {}
        _ => writeln!(text, "  {at}:\n    real {theirs}\n    ours {mine}").unwrap(),
    }
}
