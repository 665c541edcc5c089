//! The connection itself: the leader's Lease, TLS, HTTP/2, and the agent's token.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::{Connect, Link, LinkError};
use crate::allocator::announce::Announced;
use crate::allocator::wire::{self, Ask, Look, Reply};
use crate::api::names::CONTROLLER_LEASE;
use crate::error::ErrorChain;

/// A connection serves this long: then the token is read again, which the kubelet replaces well
/// before it expires.
const RENEW_AFTER: Duration = Duration::from_secs(300);
/// A leader that is silent for this long is asked whether it is there.
const PING: Duration = Duration::from_secs(10);
/// First part of every address; nothing is looked up by it.
const ORIGIN: &str = "https://allocator.orbweaver.io";

/// Finds the allocator by the leader's Lease.
pub(crate) struct Discovery {
    /// For the Lease.
    pub(crate) client: Client,
    /// Its namespace.
    pub(crate) namespace: String,
    /// The file with this agent's token.
    pub(crate) token: PathBuf,
}

impl Connect for Discovery {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, LinkError>> {
        Box::pin(async {
            let link = self.open().await?;
            match link.send(Method::GET, wire::READY, Bytes::new()).await? {
                Reply::Ready => Ok(Arc::new(link) as Arc<dyn Link>),
                Reply::NotLeading => failed("the controller at that address does not act"),
                other => failed(&format!("not accepted: {other:?}")),
            }
        })
    }
}

impl Discovery {
    async fn open(&self) -> Result<Http, LinkError> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let lease = leases.get(CONTROLLER_LEASE).await.map_err(of)?;
        let Announced {
            address,
            client,
            name,
        } = Announced::read(&lease).map_err(of)?;
        let path = self.token.clone();
        let token = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
        let token = token.await.map_err(of)?.map_err(of)?;
        let token = format!("Bearer {}", token.trim());
        let stream = TcpStream::connect(address).await.map_err(of)?;
        stream.set_nodelay(true).map_err(of)?;
        let stream = TlsConnector::from(client).connect(name, stream).await;
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(TokioIo::new(stream.map_err(of)?))
            .await
            .map_err(of)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to the allocator broke");
            }
        });
        Ok(Http {
            send,
            token: HeaderValue::from_str(&token).map_err(of)?,
            since: Instant::now(),
        })
    }
}

struct Http {
    send: SendRequest<Full<Bytes>>,
    token: HeaderValue,
    since: Instant,
}

impl Link for Http {
    fn ask(&self, ask: Ask) -> BoxFuture<'_, Result<Reply, LinkError>> {
        Box::pin(async move {
            let body = serde_json::to_vec(&ask).map_err(of)?;
            self.send(Method::POST, wire::ASK, body.into()).await
        })
    }

    fn look(&self, look: Look) -> BoxFuture<'_, Result<Reply, LinkError>> {
        Box::pin(async move {
            let body = serde_json::to_vec(&look).map_err(of)?;
            self.send(Method::POST, wire::LOOK, body.into()).await
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let answer = self.send(Method::GET, wire::READY, Bytes::new()).await;
            matches!(answer, Ok(Reply::Ready))
        })
    }

    fn is_open(&self) -> bool {
        !self.send.is_closed() && self.since.elapsed() < RENEW_AFTER
    }
}

impl Http {
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Reply, LinkError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{ORIGIN}{path}"))
            .header(AUTHORIZATION, self.token.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(body))
            .map_err(of)?;
        let mut send = self.send.clone();
        send.ready().await.map_err(of)?;
        let answer = send.send_request(request).await.map_err(of)?;
        let body = Limited::new(answer.into_body(), wire::BODY_MAX);
        let body = body
            .collect()
            .await
            .map_err(|error| LinkError(error.to_string()))?;
        serde_json::from_slice(&body.to_bytes()).map_err(of)
    }
}

fn of(error: impl std::error::Error + 'static) -> LinkError {
    LinkError(ErrorChain(&error).to_string())
}

fn failed<T>(why: &str) -> Result<T, LinkError> {
    Err(LinkError(why.to_owned()))
}
