use std::cell::RefCell;

use super::*;
use crate::transport::chain;

/// Answers everything in the same way.
struct Fixed {
    status: u16,
    body: &'static str,
    seen: RefCell<Option<Request>>,
}

impl Transport for Fixed {
    fn call(&self, _: &Path, request: &Request, _: Duration) -> Result<Reply, CallError> {
        self.seen.replace(Some(request.clone()));
        Ok(Reply {
            status: self.status,
            body: self.body.into(),
        })
    }
}

const LIMIT: Duration = Duration::from_secs(1);

fn answering(status: u16, body: &'static str) -> Fixed {
    Fixed {
        status,
        body,
        seen: RefCell::new(None),
    }
}

fn text(error: &ClientError) -> String {
    chain(error)
}

#[test]
fn failures_read_as_the_generated_client_prints_them() {
    let said = answering(500, "\"why\"\n");
    let client = Client::new(&said, Path::new("/s"));
    let add = client.allocate(&IpamAddArgs::default(), LIMIT).unwrap_err();
    assert_eq!(text(&add), "[POST /ipam/ip][500] postIpamIpFailure  why");
    let del = client.release(&IpamDelArgs::default(), LIMIT).unwrap_err();
    assert_eq!(
        text(&del),
        "[DELETE /ipam/ip][500] deleteIpamIpFailure  why"
    );
    let get = client.endpoint("ns", "p", LIMIT).unwrap_err();
    assert_eq!(
        text(&get),
        "[GET /workloadendpoint][500] getWorkloadendpointFailure  why"
    );

    let silent = answering(500, "");
    let health = Client::new(&silent, Path::new("/s"))
        .healthy(LIMIT)
        .unwrap_err();
    assert_eq!(
        text(&health),
        "[GET /ipam/healthy][500] getIpamHealthyInternalServerError "
    );
    assert_eq!((health.retry(), add.retry()), (Retry::Soon, Retry::Never));

    let unknown = answering(404, "\"SpiderEndpoint not found for pod ns/p\"\n");
    let get = Client::new(&unknown, Path::new("/s"))
        .endpoint("ns", "p", LIMIT)
        .unwrap_err();
    assert_eq!(
        text(&get),
        "[GET /workloadendpoint][404] getWorkloadendpointNotFound  SpiderEndpoint not found for \
         pod ns/p"
    );
    assert_eq!(get.status(), Some(404));
}

#[test]
fn an_error_body_of_another_form_is_shown_as_it_is_but_not_in_full() {
    let odd = answering(500, "{\"code\":1}\n");
    let error = Client::new(&odd, Path::new("/s")).allocate(&IpamAddArgs::default(), LIMIT);
    assert_eq!(
        text(&error.unwrap_err()),
        "[POST /ipam/ip][500] postIpamIpFailure  {\"code\":1}"
    );
    assert_eq!(words("é".repeat(600).as_bytes()).chars().count(), EXCERPT);
}

#[test]
fn a_query_is_escaped_and_sorted() {
    let agent = answering(
        200,
        r#"{"interfaces":null,"node":"n","podName":"p","podNamespace":"n","podUID":"u"}"#,
    );
    Client::new(&agent, Path::new("/s"))
        .endpoint("n&s", "p d", LIMIT)
        .unwrap();
    let seen = agent.seen.take().unwrap();
    assert_eq!(
        seen.target,
        "/v1/workloadendpoint?podName=p%20d&podNamespace=n%26s"
    );
    assert_eq!((seen.method, seen.body), (Method::Get, None));
}

#[test]
fn a_sockets_path_is_escaped_as_the_host_of_a_url() {
    let agent = answering(200, "");
    let url = |socket: &str| Client::new(&agent, Path::new(socket)).url("/v1/x");
    assert_eq!(
        url("/var/run/spidernet/spiderpool.sock"),
        "http://%2Fvar%2Frun%2Fspidernet%2Fspiderpool.sock/v1/x"
    );
    assert_eq!(url("/a b/%[x]:é"), "http://%2Fa%20b%2F%25[x]:%C3%A9/v1/x");
}
