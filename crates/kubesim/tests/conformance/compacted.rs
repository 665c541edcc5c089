//! Pages and versions that etcd has compacted away.

use kubesim::Server;
use serde_json::Value;

use super::real::RealServer;
use super::script::Op;
use super::side::Side;

/// What is paged through: there are two of them at least, whatever the script did.
const PATH: &str = "/api/v1/namespaces";

/// A first page of each server, and its version.
pub(crate) struct Pages {
    theirs: (String, String),
    mine: (String, String),
}

/// Begins to page on both servers, then has the real one lose the history so far.
pub(crate) async fn begin(real: &Side, ours: &Side, running: &RealServer) -> Pages {
    let (theirs, mine) = (page(real).await, page(ours).await);
    // A later revision, so that the page's own is lost too.
    let touch = Op {
        method: "PATCH",
        content_type: super::script::MERGE,
        body: Some(serde_json::json!({ "metadata": { "labels": { "compacted": "yes" } } })),
        ..Op::get("/api/v1/namespaces/other")
    };
    let mut newest = String::new();
    for side in [ours, real] {
        let (code, body) = side.send(&touch).await;
        assert_eq!(code, 200, "{body}");
        newest = text(&body, "/metadata/resourceVersion");
    }
    running.compact(&newest).await;
    Pages { theirs, mine }
}

async fn page(side: &Side) -> (String, String) {
    let (_, body) = side.send(&Op::get(PATH).with(&[("limit", "1")])).await;
    (
        text(&body, "/metadata/continue"),
        text(&body, "/metadata/resourceVersion"),
    )
}

fn text(body: &Value, at: &str) -> String {
    body.pointer(at)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Goes on with both, once the real server's cache has lost the history as well.
pub(crate) async fn compare(
    pages: Pages,
    server: &Server,
    real: &mut Side,
    ours: &mut Side,
    differences: &mut Vec<String>,
) {
    server.compact(server.revision());
    let exact = |version: &str| {
        Op::get(PATH).with(&[
            ("resourceVersion", version),
            ("resourceVersionMatch", "Exact"),
        ])
    };
    let on = |token: &str| Op::get(PATH).with(&[("limit", "1"), ("continue", token)]);
    for _ in 0..60 {
        if real.send(&exact(&pages.theirs.1)).await.0 == 410 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let continued = (
        real.send(&on(&pages.theirs.0)).await,
        ours.send(&on(&pages.mine.0)).await,
    );
    let next = (token(&continued.0.1), token(&continued.1.1));
    let offered = (real.send(&on(&next.0)).await, ours.send(&on(&next.1)).await);
    let past = (
        real.send(&exact(&pages.theirs.1)).await,
        ours.send(&exact(&pages.mine.1)).await,
    );
    for (what, (theirs, mine)) in [
        ("the old token", continued),
        ("the offered token", offered),
        ("the old version", past),
    ] {
        let (theirs, mine) = (clean(real, theirs), clean(ours, mine));
        if theirs != mine {
            let answers = format!("  real {theirs:?}\n  ours {mine:?}");
            differences.push(format!("{what} after a compaction\n{answers}"));
        }
    }
}

fn token(body: &Value) -> String {
    text(body, "/metadata/continue")
}

/// Of a token, no more than that there is one.
fn clean(side: &mut Side, (code, mut body): (u16, Value)) -> (u16, Value) {
    if let Some(token) = body.pointer_mut("/metadata/continue") {
        *token = Value::String("a token".to_owned());
    }
    (code, side.comparable(body))
}
