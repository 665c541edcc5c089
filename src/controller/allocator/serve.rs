//! How requests reach the allocator: HTTP/2 over TLS, a connection an agent.
//!
//! Owns: the listener and its connections, and how many there are. Never does: read a request.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use futures::future::BoxFuture;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::BUSY;
use crate::allocator::announce::Identity;
use crate::kube_io::tasks::start;

/// Most connections: one an agent.
const CONNECTIONS: usize = 10_000;
/// Most requests of one connection at once: a node starts fewer Pods than that.
const STREAMS: u32 = 256;
/// Longest wait for a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// An agent that is silent for this long is asked whether it is there, and has as long to say so.
const PING: Duration = Duration::from_secs(20);

/// How requests come in: by a [`Listener`], or from whoever stands in for the network.
pub trait Serve: Send {
    /// Hands every request to `app`, for ever; drop the future to stop.
    fn serve(self: Box<Self>, app: Router) -> BoxFuture<'static, ()>;
}

/// An open port.
pub struct Listener {
    /// Open, and not yet answering.
    pub listener: TcpListener,
    /// What agents verify.
    pub identity: Identity,
}

impl Serve for Listener {
    fn serve(self: Box<Self>, app: Router) -> BoxFuture<'static, ()> {
        Box::pin(self.accept(app))
    }
}

impl Listener {
    async fn accept(self: Box<Self>, app: Router) {
        let acceptor = TlsAcceptor::from(self.identity.server);
        let mut connections = JoinSet::new();
        tracing::info!(address = ?self.listener.local_addr().ok(), "the allocator listens");
        loop {
            tokio::select! {
                biased;
                _ = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, from)) => {
                        let one = connection(acceptor.clone(), stream, from, app.clone());
                        start(&mut connections, one);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(BUSY).await;
                    }
                },
            }
        }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, from: SocketAddr, app: Router) {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%from, "handshake took too long"),
    };
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    if let Err(error) = served.await {
        tracing::debug!(%from, %error, "connection broke");
    }
}
