use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn spec(value: &Value) -> LeaseSpec {
    serde_json::from_value(value.clone()).unwrap()
}

fn at(second: i64) -> MicroTime {
    MicroTime(jiff::Timestamp::from_second(second).unwrap())
}

#[test]
fn a_lease_is_taken_if_nobody_holds_it_or_it_was_seen_to_run_out() {
    let held = json!({"holderIdentity": "b", "leaseDurationSeconds": 7});
    let table = [
        (None, 0, Decision::Take),
        (Some(json!({})), 0, Decision::Take),
        (Some(json!({"holderIdentity": ""})), 0, Decision::Take),
        (Some(json!({"holderIdentity": "a"})), 0, Decision::Take),
        (Some(held.clone()), 0, Decision::Wait),
        (Some(held.clone()), 6, Decision::Wait),
        (Some(held), 7, Decision::Take),
        (Some(json!({"holderIdentity": "b"})), 14, Decision::Wait),
        (Some(json!({"holderIdentity": "b"})), 15, Decision::Take),
    ];
    for (found, seconds, decision) in table {
        let found = found.as_ref().map(spec);
        assert_eq!(
            decide(found.as_ref(), "a", SECOND * seconds),
            decision,
            "{found:?} unchanged for {seconds} s"
        );
    }
}

#[test]
fn taking_counts_a_transition_and_renewing_does_not() {
    let first = claim(None, "a", SECOND * 15, at(1));
    assert_eq!(first.lease_transitions, Some(0));
    assert_eq!(first.lease_duration_seconds, Some(15));

    let renewed = claim(Some(&first), "a", SECOND * 15, at(3));
    assert_eq!(renewed.lease_transitions, Some(0));
    assert_eq!(renewed.acquire_time, Some(at(1)));
    assert_eq!(renewed.renew_time, Some(at(3)));

    let mut left = renewed;
    release(&mut left, at(4));
    assert_eq!(left.holder_identity.as_deref(), Some(""));

    let taken = claim(Some(&left), "b", SECOND * 15, at(5));
    assert_eq!(taken.lease_transitions, Some(1));
    assert_eq!(taken.acquire_time, Some(at(5)));
    assert_eq!(taken.holder_identity.as_deref(), Some("b"));
}

#[test]
fn times_that_could_make_two_leaders_are_refused() {
    let new = |lease: u32, renew: u32, retry: u32| {
        Durations::new(SECOND * lease, SECOND * renew, SECOND * retry)
    };
    assert_eq!(new(15, 10, 2).unwrap(), Durations::default());
    for (lease, renew, retry) in [(10, 10, 2), (15, 4, 2), (15, 10, 0)] {
        new(lease, renew, retry).unwrap_err();
    }
}

/// An API server with one Lease.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    /// Who is cut off: gets no answer.
    cut_off: Option<&'static str>,
    writes: usize,
}

impl Server {
    fn client(&self, of: &'static str) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                if server.0.lock().unwrap().cut_off == Some(of) {
                    std::future::pending::<()>().await;
                }
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                Ok::<_, Infallible>(server.answer(&head.method, &body))
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, body: &[u8]) -> Response<Body> {
        let mut state = self.0.lock().unwrap();
        let found = state.lease.clone();
        let (code, answer) = match (method, found) {
            (&Method::GET, Some(lease)) => (StatusCode::OK, lease),
            (&Method::GET | &Method::PUT, None) => refuse(404, "NotFound"),
            (&Method::POST, Some(_)) => refuse(409, "AlreadyExists"),
            (_, found) => {
                let mut lease: Value = serde_json::from_slice(body).unwrap();
                let moved_on = found.is_some_and(|found| {
                    found["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]
                });
                if moved_on {
                    refuse(409, "Conflict")
                } else {
                    state.version += 1;
                    state.writes += 1;
                    lease["metadata"]["resourceVersion"] = state.version.to_string().into();
                    lease["metadata"]["uid"] = "u".into();
                    state.lease = Some(lease.clone());
                    (StatusCode::OK, lease)
                }
            }
        };
        Response::builder()
            .status(code)
            .body(Body::from(serde_json::to_vec(&answer).unwrap()))
            .unwrap()
    }

    fn start(&self, identity: &'static str) -> Replica {
        let elector = LeaderElector::new(
            self.client(identity),
            "kube-system",
            "l",
            identity,
            Durations::default(),
        );
        // Of two that differ in this one announces what the other takes away.
        let (mine, other) = if identity == "b" {
            ("y", "x")
        } else {
            ("x", "y")
        };
        let announced = [(mine, Some(identity.to_owned())), (other, None)];
        let elector = elector.announcing(announced.into());
        let leadership = elector.leadership();
        let (stop, stopped) = watch::channel(false);
        Replica {
            leadership,
            stop,
            task: tokio::spawn(elector.run(stopped)),
        }
    }

    fn holder(&self) -> String {
        let state = self.0.lock().unwrap();
        let spec = &state.lease.as_ref().unwrap()["spec"];
        spec["holderIdentity"].as_str().unwrap().to_owned()
    }
}

fn refuse(code: u16, reason: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason
    });
    (StatusCode::from_u16(code).unwrap(), status)
}

struct Replica {
    leadership: watch::Receiver<Leadership>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Replica {
    /// Waits for it, and says how long that took.
    async fn becomes(&mut self, leadership: Leadership) -> Duration {
        let begun = Instant::now();
        let waited = self.leadership.wait_for(|now| *now == leadership);
        timeout(SECOND * 60, waited).await.unwrap().unwrap();
        begun.elapsed()
    }

    fn leads(&self) -> bool {
        *self.leadership.borrow() == Leadership::Leader
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_takes_over_when_it_is_released() {
    let server = Server::default();
    let mut a = server.start("a");
    a.becomes(Leadership::Leader).await;
    let mut b = server.start("b");
    sleep(SECOND * 60).await;
    assert!(a.leads() && !b.leads());

    a.stop.send_replace(true);
    a.task.await.unwrap();
    assert!(*a.leadership.borrow() == Leadership::Follower);
    assert!(b.becomes(Leadership::Leader).await <= SECOND * 4);
    assert_eq!(server.holder(), "b");
}

#[tokio::test(start_paused = true)]
async fn the_lease_carries_what_its_holder_announces_and_nothing_of_the_last() {
    let server = Server::default();
    let announced = || {
        let state = server.0.lock().unwrap();
        state.lease.as_ref().unwrap()["metadata"]["annotations"].clone()
    };
    let mut a = server.start("a");
    a.becomes(Leadership::Leader).await;
    assert_eq!(announced(), json!({"x": "a"}));
    let mut b = server.start("b");
    a.stop.send_replace(true);
    b.becomes(Leadership::Leader).await;
    assert_eq!(announced(), json!({"y": "b"}));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_steps_down_before_another_leads() {
    let server = Server::default();
    let mut a = server.start("a");
    a.becomes(Leadership::Leader).await;
    let mut b = server.start("b");
    sleep(SECOND * 60).await;

    server.0.lock().unwrap().cut_off = Some("a");
    let begun = Instant::now();
    a.becomes(Leadership::Follower).await;
    assert!(begun.elapsed() <= SECOND * 10, "{:?}", begun.elapsed());
    assert!(!b.leads());
    b.becomes(Leadership::Leader).await;
    let after = begun.elapsed();
    assert!((SECOND * 11..=SECOND * 19).contains(&after), "{after:?}");

    // Back again, it finds the lease with another.
    server.0.lock().unwrap().cut_off = None;
    sleep(SECOND * 60).await;
    assert!(!a.leads() && b.leads());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_taken_follows_at_its_next_try() {
    let server = Server::default();
    let mut a = server.start("a");
    a.becomes(Leadership::Leader).await;
    {
        let mut state = server.0.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        let lease = state.lease.as_mut().unwrap();
        lease["metadata"]["resourceVersion"] = version.into();
        lease["spec"]["holderIdentity"] = "somebody".into();
    }
    assert!(a.becomes(Leadership::Follower).await <= SECOND * 2);
    assert!(a.becomes(Leadership::Leader).await >= SECOND * 15);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_deleted_is_made_again_by_its_holder() {
    let server = Server::default();
    let mut a = server.start("a");
    a.becomes(Leadership::Leader).await;
    server.0.lock().unwrap().lease = None;
    sleep(SECOND * 5).await;
    assert!(a.leads());
    assert_eq!(server.holder(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_one_call() {
    let server = Server::default();
    let mut a = server.start("a");
    a.becomes(Leadership::Leader).await;
    let before = server.0.lock().unwrap().writes;
    sleep(SECOND * 20).await;
    let renewals = server.0.lock().unwrap().writes - before;
    assert!((9..=11).contains(&renewals), "{renewals} in 20 s");
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_stops_leaves_the_lease_alone() {
    let server = Server::default();
    let mut a = server.start("a");
    a.becomes(Leadership::Leader).await;
    let b = server.start("b");
    sleep(SECOND * 5).await;
    b.stop.send_replace(true);
    b.task.await.unwrap();
    assert_eq!(server.holder(), "a");
    assert!(a.leads());
}
