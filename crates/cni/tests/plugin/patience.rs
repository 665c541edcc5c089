//! An agent that is away, restarts or is slow, on a clock that is made up.

use std::cell::Cell;
use std::iter::repeat_n;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use cni::plugin::{AGENT_WAIT, CALL_LIMIT, Invocation, run};
use cni::socket::SocketTransport;
use cni::transport::{CallError, Reply, Request, Transport};

use crate::support::{
    Answer, DUAL, FakeAgent, FakeHost, SocketAgent, config, http, invocation, ok,
};

const HEALTH: &str = "GET /v1/ipam/healthy";
const POST: &str = "POST /v1/ipam/ip";

fn add() -> Invocation {
    invocation("ADD", &config("1.0.0", Path::new("/run/agent.sock"), ""))
}

#[test]
fn an_agent_that_comes_back_in_time_is_waited_for() {
    let host = FakeHost::default();
    let away = repeat_n(Answer::Refused, 8);
    let agent = FakeAgent::new(away.chain([ok(""), ok(DUAL)]));
    let outcome = run(&add(), &host, &agent);
    assert!(outcome.succeeded, "{}", outcome.stdout);
    let millis: Vec<_> = host
        .pauses
        .borrow()
        .iter()
        .map(Duration::as_millis)
        .collect();
    assert_eq!(millis, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
    let warnings = host
        .lines
        .borrow()
        .iter()
        .filter(|line| line.starts_with("WARN"))
        .count();
    assert_eq!(warnings, 1, "one line, however long it takes");
}

#[test]
fn an_agent_that_stays_away_is_given_up() {
    let host = FakeHost::default();
    let outcome = run(&add(), &host, &FakeAgent::new([Answer::Refused]));
    assert!(!outcome.succeeded);
    let waited = host.now.get();
    assert!(
        waited < AGENT_WAIT && waited + Duration::from_secs(2) > AGENT_WAIT,
        "{waited:?}"
    );
}

#[test]
fn without_the_sockets_directory_nothing_is_waited_for() {
    let host = FakeHost::default();
    assert!(!run(&add(), &host, &FakeAgent::new([Answer::NoDirectory])).succeeded);
    assert_eq!(host.now.get(), Duration::ZERO);
}

#[test]
fn a_request_whose_agent_dies_under_it_is_sent_again() {
    for lost in [Answer::Closed, Answer::Reset] {
        let agent = FakeAgent::new([ok(""), lost, Answer::Refused, ok(DUAL)]);
        assert!(run(&add(), &FakeHost::default(), &agent).succeeded);
        assert_eq!(agent.calls(), [HEALTH, POST, POST, POST]);
        let seen = agent.seen.borrow();
        assert!(
            seen.iter()
                .skip(1)
                .all(|request| Some(request) == seen.get(1))
        );
    }
}

#[test]
fn an_agent_that_is_up_but_not_ready_is_waited_for() {
    let starting = Answer::Reply(500, String::new());
    let agent = FakeAgent::new([starting.clone(), starting, ok(""), ok(DUAL)]);
    assert!(run(&add(), &FakeHost::default(), &agent).succeeded);
}

#[test]
fn a_refusal_a_silent_agent_and_nonsense_are_not_asked_again() {
    for answer in [
        Answer::Reply(500, "\"no\"\n".into()),
        Answer::Reply(422, "{}".into()),
        Answer::Timeout,
        ok("nonsense"),
    ] {
        let agent = FakeAgent::new([ok(""), answer]);
        assert!(!run(&add(), &FakeHost::default(), &agent).succeeded);
        assert_eq!(agent.calls(), [HEALTH, POST]);
    }
}

#[test]
fn every_try_gets_what_is_left_of_the_whole() {
    let host = FakeHost::default();
    let agent = FakeAgent::new([Answer::Refused, Answer::Refused, ok(""), ok(DUAL)]);
    assert!(run(&add(), &host, &agent).succeeded);
    let limits = agent.limits.borrow();
    let spent: Vec<_> = limits
        .iter()
        .map(|limit| CALL_LIMIT.saturating_sub(*limit).as_millis())
        .collect();
    assert_eq!(spent, [0, 50, 150, 150]);
}

#[test]
fn status_asks_once_and_not_for_long() {
    let host = FakeHost::default();
    let agent = FakeAgent::new([Answer::Refused]);
    let status = invocation("STATUS", &config("1.1.0", Path::new("/run/agent.sock"), ""));
    assert!(!run(&status, &host, &agent).succeeded);
    assert_eq!(*agent.limits.borrow(), [Duration::from_secs(5)]);
    assert_eq!(host.now.get(), Duration::ZERO);
}

/// The real transport; the first reply ages the call so that little is left.
struct Aging(Rc<Cell<Duration>>);

impl Transport for Aging {
    fn call(&self, socket: &Path, request: &Request, limit: Duration) -> Result<Reply, CallError> {
        let reply = SocketTransport.call(socket, request, limit);
        self.0
            .set(CALL_LIMIT.saturating_sub(Duration::from_millis(50)));
        reply
    }
}

#[test]
fn a_slow_agent_is_left_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let (hold, until_dropped) = std::sync::mpsc::channel::<()>();
    let agent = SocketAgent::start(&socket, move |request| {
        if request.line.starts_with("POST") {
            // Keeps the connection open until the test is through.
            let _ = until_dropped.recv();
        }
        Some(http("200 OK", ""))
    });
    // Dropped before the agent, whose thread may wait for it.
    let _hold = hold;
    let host = FakeHost::default();
    let transport = Aging(Rc::clone(&host.now));
    let call = invocation("ADD", &config("1.0.0", &socket, ""));
    let outcome = run(&call, &host, &transport);
    let tail = "Post \\\"http://";
    assert!(outcome.stdout.contains(tail), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("context deadline exceeded"),
        "{}",
        outcome.stdout
    );
    assert_eq!(agent.seen().len(), 2);
}
