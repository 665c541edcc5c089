//! The same random scripts against this server and against etcd with kube-apiserver: same codes,
//! reasons, messages, objects, versions by rank, tables, and the same events of watches. Then, what
//! needs no chance: discovery, columns, `OpenAPI`, versions to come and versions that are gone.
//!
//! `CONFORMANCE_SEED` and `CONFORMANCE_OPS` choose another script. Not compared: `managedFields`,
//! the text of continue tokens, a list's own version, times and uids but by their rank, the digits of
//! versions in messages, what is told as a Go struct, the order of complaints and how often one is
//! made (neither is certain on the real server); how long ago something was, and how built-in kinds
//! describe their columns; bookmarks that the server sends when it likes, and of the others all but
//! their type and annotation; what the real server serves beyond this one.
//!
//! Known to differ, none of which the product meets: a Pod's deletion that is a dry run has a grace
//! period in the real answer; and, which no script draws, a Job whose labels a PUT of its status
//! empties, a finalizer that is no name in such a PUT, and rules over values of the wrong type in an
//! object of the wrong kind.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers")]

#[path = "conformance/compacted.rs"]
mod compacted;
#[path = "conformance/discovery.rs"]
mod discovery;
#[path = "conformance/reads.rs"]
mod reads;
#[path = "conformance/real.rs"]
mod real;
#[path = "conformance/script.rs"]
mod script;
#[path = "conformance/side.rs"]
mod side;
#[path = "conformance/subnets.rs"]
mod subnets;
#[path = "conformance/watches.rs"]
mod watches;

use std::fmt::Write as _;

use futures::future::join_all;
use kubesim::{Server, TokioClock};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reads::{METADATA, Question};
use script::{Op, PLAIN, SUBJECTS};
use serde_json::{Value, json};
use side::Side;

/// How many requests a run makes, if it isn't told.
const OPERATIONS: usize = 3_400;
/// How many of the last requests watches tell of. The real server remembers a hundred events of a
/// kind, and more only if they came within a minute or so: these make fewer, or a slow machine finds
/// its history gone.
const HISTORY: usize = 1_500;
/// One of so many is a server-side apply.
const APPLY_EVERY: usize = 8;
/// After one of so many, there is one about a subnet or a reserved address.
const SUBNET_EVERY: usize = 8;
/// After one of so many, there are questions that change nothing.
const QUESTION_EVERY: usize = 12;
/// One of so many requests about subnets wants the metadata alone in its answer.
const METADATA_EVERY: u32 = 4;
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
#[ignore = "asks a real server: make conformance"]
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
    let server = Server::with_clock(7, TokioClock::starting_at(jiff::Timestamp::now()));
    let mut real = Side::new(running.client().await);
    let mut ours = Side::new(server.client("conformance"));
    set_up(&real, &ours).await;
    server.compact(list_version(&ours).await.parse().unwrap());
    let seed = number("CONFORMANCE_SEED", 1) as u64;
    let mut differences: Vec<String> = Vec::new();
    let starts = run_script(seed, &mut real, &mut ours, &mut differences).await;
    if differences.is_empty() {
        discovery::compare(&real, &ours, &mut differences).await;
        compare_too_early(&mut real, &mut ours, &mut differences).await;
        let pages = compacted::begin(&real, &ours, &running).await;
        watches::compare(&mut real, &mut ours, &starts, &mut differences).await;
        compacted::compare(pages, &server, &mut real, &mut ours, &mut differences).await;
    }
    assert!(
        differences.is_empty(),
        "seed {seed}: {} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// The random requests, each kind of them from a stream of its own: more of one shifts no other.
/// Returns each server's version before the last [`HISTORY`] of them.
async fn run_script(
    seed: u64,
    real: &mut Side,
    ours: &mut Side,
    differences: &mut Vec<String>,
) -> (String, String) {
    let operations = number("CONFORMANCE_OPS", OPERATIONS);
    let mut starts = (String::new(), String::new());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut applies = StdRng::seed_from_u64(!seed);
    let mut subnets = StdRng::seed_from_u64(seed.wrapping_add(1 << 32));
    let mut questions = StdRng::seed_from_u64(seed.wrapping_add(1 << 33));
    let mut before: Vec<Op> = Vec::new();
    for step in 0..operations {
        if step == operations.saturating_sub(HISTORY) {
            starts = (list_version(real).await, list_version(ours).await);
        }
        let mut asked = vec![Question::plain(if step % APPLY_EVERY == 0 {
            script::apply(&mut applies)
        } else {
            script::next(&mut rng)
        })];
        if step % SUBNET_EVERY == 0 {
            let op = script::next_pool(&mut subnets);
            let alone = subnets.random_range(0..METADATA_EVERY) == 0;
            let writes = matches!(op.method, "POST" | "PUT" | "PATCH");
            let accept = if alone && writes { METADATA } else { PLAIN };
            asked.push(Question { op, accept });
        }
        let changes = asked.len();
        if step % QUESTION_EVERY == 0 {
            asked.extend(reads::next(&mut questions));
        }
        for (at, Question { op, accept }) in asked.into_iter().enumerate() {
            let (theirs, mine) = if at < changes {
                (real.ask(&op, accept).await, ours.ask(&op, accept).await)
            } else {
                (real.look(&op, accept).await, ours.look(&op, accept).await)
            };
            if theirs != mine {
                differences.push(told(step, &op, &theirs, &mine) + &history(&before, &op));
                (real.ranks, ours.ranks) = (false, false);
            }
            before.push(op);
        }
        if differences.len() >= TOLD {
            break;
        }
    }
    starts
}

/// Reads of a version that is not there yet.
async fn compare_too_early(real: &mut Side, ours: &mut Side, differences: &mut Vec<String>) {
    let asked = reads::too_early();
    let sides: (&Side, &Side) = (real, ours);
    let (theirs, mine) = tokio::join!(
        join_all(asked.iter().map(|one| sides.0.send(&one.op))),
        join_all(asked.iter().map(|one| sides.1.send(&one.op)))
    );
    for (one, (theirs, mine)) in asked.iter().zip(theirs.into_iter().zip(mine)) {
        let theirs = side::Answer {
            code: theirs.0,
            body: real.comparable(theirs.1),
        };
        let mine = side::Answer {
            code: mine.0,
            body: ours.comparable(mine.1),
        };
        if theirs != mine {
            differences.push(told(0, &one.op, &theirs, &mine));
        }
    }
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
async fn set_up(real: &Side, ours: &Side) {
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
        for side in [real, ours] {
            let (code, body) = side.send(op).await;
            assert_eq!(code, 201, "{body}");
        }
    }
    // The real server serves a new kind a moment after it has taken the definition.
    for subject in SUBJECTS.iter().filter(|subject| subject.custom) {
        let op = Op::get(&subject.everywhere());
        for _ in 0..100 {
            if real.send(&op).await.0 == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
}

async fn list_version(side: &Side) -> String {
    let (_, body) = side.send(&Op::get("/api/v1/configmaps")).await;
    body.pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .unwrap()
        .to_owned()
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
