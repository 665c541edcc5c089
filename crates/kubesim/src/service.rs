//! Ways in: a tower service for clients in the same process, and HTTP for everybody else.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tower::Service;

use crate::body::ResponseBody;
use crate::error::ApiError;
use crate::request::MAX_BODY;
use crate::server::{Server, reply};

/// A server as one client sees it. Wrap it to put faults between the two.
#[derive(Clone, Debug)]
pub struct Api {
    server: Server,
    actor: Option<Arc<str>>,
}

impl Server {
    /// The tower service of a client in this process; `actor` is its name in commits.
    pub fn service(&self, actor: &str) -> Api {
        Api {
            server: self.clone(),
            actor: Some(Arc::from(actor)),
        }
    }

    /// A `kube` client on [`Server::service`], without retries between.
    ///
    /// `kube` runs one worker task a client on the current runtime; it ends with the last clone.
    pub fn client(&self, actor: &str) -> kube::Client {
        kube::Client::new(self.service(actor), "default")
    }

    /// Serves HTTP/1 on a listener until the future is dropped.
    ///
    /// Errors: those of the listener.
    pub async fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        let api = Api {
            server: self.clone(),
            actor: None,
        };
        axum::serve(listener, axum::Router::new().fallback_service(api)).await
    }
}

impl<B> Service<Request<B>> for Api
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, actor) = (self.server.clone(), self.actor.clone());
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let answer = match whole(body).await {
                Ok(body) => server.answer(head, body, actor).await,
                Err(error) => reply(error.code(), &error.to_status(), &[]),
            };
            Ok(answer)
        })
    }
}

/// The whole body. Errors: 413 if it is longer than a request may be, 400 if it breaks off.
async fn whole<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limited = http_body_util::Limited::new(Box::pin(body), MAX_BODY + 1);
    match limited.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(
            format!("Request entity too large: limit is {MAX_BODY}"),
        )),
        Err(error) => Err(ApiError::bad_request(error.to_string())),
    }
}
