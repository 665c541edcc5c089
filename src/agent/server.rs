//! The API on the unix socket: requests in, the agent's answers out.
//!
//! Owns: HTTP: paths, methods, media types, bodies, the answers of the framework, and the
//! socket itself. Never does: decide anything about an address. A body is read on
//! every method, and an empty `Host` is as good as any: the clients send both.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use cni::contract::MEDIA_TYPE;
use cni::{
    EndpointQuery, FrameworkError, IpamAddArgs, IpamBatchDelArgs, IpamDelArgs, Method, Operation,
    error_body, parse_body,
};
use futures::FutureExt;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, Uri};
use ipam::name::{Nic, PodName, Sandbox, Uid};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::Agent;
use super::batch::BatchError;
use super::endpoint;
use super::pods;
use super::release::TornDown;
use crate::pool_writer::Attachment;

/// Longest body that is read.
const BODY_MAX: usize = 64 * 1024;
/// The contract's code for a refused release of a Pod without a fixed address.
const FORBIDDEN_STATELESS: u16 = 521;
/// The same of a Pod with one.
const FORBIDDEN_STATEFUL: u16 = 522;
/// ADDs that are worked on at once; more wait for their turn.
const ADDS: usize = 256;
/// Every other call that is worked on at once: DELs must not wait behind waiting ADDs.
const OTHERS: usize = 256;

/// What the socket's router needs.
struct Server {
    agent: Arc<Agent>,
    adds: Semaphore,
    others: Semaphore,
}

/// The router of the socket.
pub(super) fn router(agent: Arc<Agent>) -> Router {
    let server = Arc::new(Server {
        agent,
        adds: Semaphore::new(ADDS),
        others: Semaphore::new(OTHERS),
    });
    // Unknown paths and methods have answers of their own, so routing is `Operation`'s.
    Router::new().fallback(handle).with_state(server)
}

/// Listens on `path`, which nobody finds before it is ready; a stale socket is replaced.
///
/// Errors: the directory or the socket cannot be made.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = Path::new(&aside);
    match std::fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(aside)?;
    std::fs::set_permissions(aside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(aside, path)?;
    Ok(listener)
}

/// Serves until `stopping`, then finishes the calls in flight.
pub(super) async fn serve(
    listener: UnixListener,
    calls: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let stopped = async move {
        // Fails only if the sender is gone, which says so too.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, calls).with_graceful_shutdown(stopped);
    if let Err(error) = served.await {
        tracing::error!(%error, "the socket is no longer served");
    }
}

async fn handle(State(server): State<Arc<Server>>, request: Request) -> Response {
    match answer(&server, request).await {
        Ok(response) => response,
        Err(error) => framework(&error),
    }
}

async fn answer(server: &Server, request: Request) -> Result<Response, FrameworkError> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if let Some(unserved) = runtime_operation(path) {
        let text = format!("operation runtime.{unserved} has not yet been implemented");
        return Ok(string(StatusCode::NOT_IMPLEMENTED, &text));
    }
    let here: Vec<Operation> = Operation::ALL
        .into_iter()
        .filter(|operation| operation.full_path() == path)
        .collect();
    let Some(operation) = here
        .iter()
        .find(|operation| operation.method().as_str() == head.method.as_str())
    else {
        return Err(no_operation(path, head.method.as_str(), &here));
    };
    let body = to_bytes(body, BODY_MAX).await.map_err(|_| FrameworkError {
        code: 413,
        message: format!("the body has more than {BODY_MAX} bytes, or could not be read"),
    })?;
    if !body.is_empty() {
        check_media_type(&head.headers)?;
    }
    let limit = match operation {
        // Whether there is an agent does not depend on how much it has to do.
        Operation::GetIpamHealthy => None,
        Operation::PostIpamIp => Some(&server.adds),
        _ => Some(&server.others),
    };
    let came = Instant::now();
    // Fails only if the semaphore is closed, which nobody does.
    let _permit = match limit {
        Some(limit) => limit.acquire().await.ok(),
        None => None,
    };
    let counted = match operation {
        Operation::PostIpamIp => Some(&server.agent.metrics.adds),
        Operation::DeleteIpamIp => Some(&server.agent.metrics.dels),
        _ => None,
    };
    if let Some(calls) = counted {
        calls.queued(came.elapsed());
    }
    let answer = operate(&server.agent, *operation, &head.uri, &body).await;
    if let Some(calls) = counted {
        let succeeded = answer.as_ref().is_ok_and(|a| a.status().is_success());
        calls.ended(succeeded, came.elapsed());
    }
    answer
}

async fn operate(
    agent: &Agent,
    operation: Operation,
    uri: &Uri,
    body: &[u8],
) -> Result<Response, FrameworkError> {
    match operation {
        Operation::GetIpamHealthy | Operation::PostIpamIps => Ok(empty(StatusCode::OK)),
        Operation::PostIpamIp => {
            let args: IpamAddArgs = parse_body(body)?;
            let span = call_span("add", &args.pod_namespace, &args.pod_name);
            Ok(add(agent, &args).instrument(span).await)
        }
        Operation::DeleteIpamIp => {
            let args: IpamDelArgs = parse_body(body)?;
            let span = call_span("del", &args.pod_namespace, &args.pod_name);
            Ok(del(agent, &args).instrument(span).await)
        }
        Operation::DeleteIpamIps => {
            let args: IpamBatchDelArgs = parse_body(body)?;
            let span = call_span("del-all", &args.pod_namespace, &args.pod_name);
            Ok(del_all(agent, &args).instrument(span).await)
        }
        Operation::GetWorkloadendpoint => {
            let query = endpoint_query(uri, body)?;
            Ok(workload_endpoint(agent, &query).await)
        }
        Operation::GetCoordinatorConfig => Ok(failure(
            "coordinator config not found: there is no coordinator",
        )),
    }
}

/// The span of a call; nic and sandbox are entered once they are known to be whole.
fn call_span(call: &'static str, namespace: &str, name: &str) -> tracing::Span {
    let pod = PodName::new(namespace, name);
    tracing::info_span!(
        "cni",
        call,
        %pod,
        nic = tracing::field::Empty,
        sandbox = tracing::field::Empty
    )
}

fn enter_interface(nic: &str, sandbox: &str) {
    let span = tracing::Span::current();
    span.record("nic", nic);
    span.record("sandbox", sandbox);
}

async fn add(agent: &Agent, args: &IpamAddArgs) -> Response {
    enter_interface(&args.if_name, &args.container_id);
    // Most of what an agent does is in there: on the heap, it does not make its callers' futures large.
    match agent.add(args).boxed().await {
        Ok(reply) => json(StatusCode::OK, &reply),
        Err(error) => {
            agent.metrics.refused(error.class());
            let text = error.to_string();
            tracing::info!(because = text, "no addresses given");
            failure(&text)
        }
    }
}

async fn del(agent: &Agent, args: &IpamDelArgs) -> Response {
    enter_interface(&args.if_name, &args.container_id);
    let pod = PodName::new(&args.pod_namespace, &args.pod_name);
    let nic = Nic::from(args.if_name.as_str());
    let sandbox = Sandbox::from(args.container_id.as_str());
    let of = match args.pod_uid.as_str() {
        // The Pod of this name may be another by now; the sandbox is not.
        "" => agent.releases.interface_of(&sandbox, &nic).or_else(|| {
            let uid = pods::uid(&*agent.pods.get(&pod)?);
            Some(Attachment { uid, nic })
        }),
        uid => Some(Attachment {
            uid: Uid::from(uid),
            nic,
        }),
    };
    let Some(of) = of else {
        tracing::debug!("DEL without a uid for a Pod that is gone and a sandbox not known");
        return empty(StatusCode::OK);
    };
    let torn_down = TornDown {
        pod: pod.clone(),
        sandbox,
        owner: owner(agent, &pod, &of.uid),
        namespace: args.net_namespace.as_ref().map(PathBuf::from),
    };
    match agent.releases.acknowledge(of, torn_down).await {
        Ok(()) => empty(StatusCode::OK),
        Err(error) => {
            agent.metrics.del_not_kept();
            tracing::error!(%error, "DEL could not be kept");
            failure(&format!(
                "the release of {pod} could not be kept on disk, the call may be repeated: {error}"
            ))
        }
    }
}

async fn del_all(agent: &Agent, args: &IpamBatchDelArgs) -> Response {
    let Err(error) = agent.del_batch(args).boxed().await else {
        return empty(StatusCode::OK);
    };
    let text = error.to_string();
    tracing::warn!(because = text, "addresses not released");
    match error {
        BatchError::Stateless => forbidden(FORBIDDEN_STATELESS, &text),
        BatchError::Stateful | BatchError::Fixed { .. } => forbidden(FORBIDDEN_STATEFUL, &text),
        BatchError::Lives(_)
        | BatchError::Unreadable { .. }
        | BatchError::Commit(_)
        | BatchError::Read { .. }
        | BatchError::Kept { .. } => failure(&text),
    }
}

/// The `StatefulSet` of the Pod, while the Pod is there to tell.
fn owner(agent: &Agent, pod: &PodName, uid: &Uid) -> Option<Uid> {
    let there = agent.pods.get(pod).filter(|pod| pods::uid(pod) == *uid)?;
    pods::stateful_set(&there)
}

async fn workload_endpoint(agent: &Agent, query: &EndpointQuery) -> Response {
    let pod = PodName::new(&query.pod_namespace, &query.pod_name);
    let found = agent.reads.endpoint(&pod).await;
    match found.map(|found| agent.endpoints.overlay(&pod, found)) {
        Ok(Some(found)) => json(StatusCode::OK, &endpoint::told(&pod, &found)),
        Ok(None) => {
            let text = format!("SpiderEndpoint not found for pod {pod}");
            string(StatusCode::NOT_FOUND, &text)
        }
        Err(error) => failure(&error.said()),
    }
}

/// The two parameters, from the query or, where a client sends one, from the body.
fn endpoint_query(uri: &Uri, body: &[u8]) -> Result<EndpointQuery, FrameworkError> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Parts {
        pod_name: Option<String>,
        pod_namespace: Option<String>,
    }
    let from_query: Parts = axum::extract::Query::try_from_uri(uri)
        .map(|query| query.0)
        .unwrap_or_default();
    let from_body: Parts = if body.is_empty() {
        Parts::default()
    } else {
        serde_json::from_slice(body)
            .map_err(|error| FrameworkError::unparsable_body("workloadendpoint", &error))?
    };
    let pod_name = from_query.pod_name.or(from_body.pod_name);
    let pod_namespace = from_query.pod_namespace.or(from_body.pod_namespace);
    let missing: Vec<&str> = [("podName", &pod_name), ("podNamespace", &pod_namespace)]
        .into_iter()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| name)
        .collect();
    match FrameworkError::missing_query(&missing) {
        Some(error) => Err(error),
        None => Ok(EndpointQuery {
            pod_name: pod_name.unwrap_or_default(),
            pod_namespace: pod_namespace.unwrap_or_default(),
        }),
    }
}

/// The operations that the contract has on this socket and serves on the TCP port only.
fn runtime_operation(path: &str) -> Option<&'static str> {
    match path {
        "/v1/runtime/startup" => Some("GetRuntimeStartup"),
        "/v1/runtime/readiness" => Some("GetRuntimeReadiness"),
        "/v1/runtime/liveness" => Some("GetRuntimeLiveness"),
        _ => None,
    }
}

fn no_operation(path: &str, method: &str, here: &[Operation]) -> FrameworkError {
    let allowed: Vec<Method> = here.iter().map(|operation| operation.method()).collect();
    if allowed.is_empty() {
        FrameworkError::path_not_found(path)
    } else {
        FrameworkError::method_not_allowed(method, &allowed)
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), FrameworkError> {
    let Some(given) = headers.get(CONTENT_TYPE) else {
        return Ok(()); // a body without a name is taken for what every body is
    };
    let given = String::from_utf8_lossy(given.as_bytes());
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        Ok(())
    } else {
        Err(FrameworkError::unsupported_media_type(media_type))
    }
}

fn framework(error: &FrameworkError) -> Response {
    let code = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, error);
    // The methods stand in the text between the brackets, sorted as the header wants them.
    if code == StatusCode::METHOD_NOT_ALLOWED
        && let Some(methods) = between(&error.message, '[', ']')
        && let Ok(value) = methods.parse()
    {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    Some(text.split_once(open)?.1.split_once(close)?.0)
}

/// The failure of an operation: its text as a bare JSON string.
fn failure(text: &str) -> Response {
    string(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// A refusal with a code of the contract's own.
fn forbidden(code: u16, text: &str) -> Response {
    string(
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        text,
    )
}

fn string(code: StatusCode, text: &str) -> Response {
    respond(code, error_body(text))
}

fn json(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => respond(code, text + "\n"),
        Err(error) => failure(&format!("the answer could not be written: {error}")),
    }
}

fn respond(code: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let json = http::HeaderValue::from_static(MEDIA_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn empty(code: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}
