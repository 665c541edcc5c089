//! Connections over TLS, handed to a router.
//!
//! Owns: the handshake, and how many connections there are. Never does: answer a request.
//! Invariant: a slow or silent client holds its own place and nobody else's, and not for long.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Most handshakes at once; more wait in the kernel.
const HANDSHAKES: usize = 64;
/// The pause after a connection that could not be taken: too many open files, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why nothing is served any more.
#[derive(Debug, thiserror::Error)]
#[error("connections are no longer served")]
pub struct ServeError(#[from] io::Error);

/// Serves `router` on `listener` with the certificate of `config`, until `stop` turns true; then the
/// requests under way end first.
///
/// Errors: the listener broke. A handshake that fails is logged and harms nobody.
pub async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    let (ready, connections) = mpsc::channel(HANDSHAKES);
    let mut accepting = JoinSet::new();
    accepting.spawn(accept(listener, TlsAcceptor::from(config), ready));
    let stopped = async move {
        // Fails only if the sender is gone, which says so too.
        let _ = stop.wait_for(|stop| *stop).await;
        accepting.shutdown().await;
    };
    let over_tls = OverTls {
        connections,
        address,
    };
    let served = axum::serve(over_tls, router).with_graceful_shutdown(stopped);
    Ok(served.await?)
}

/// Connections whose handshake is done.
struct OverTls {
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Listener for OverTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // Nobody accepts any more: the server is told to stop at the same time.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        // Fails only if the semaphore is closed, which nobody does.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        while handshakes.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                handshakes.spawn(handshake(
                    acceptor.clone(),
                    (stream, peer),
                    ready.clone(),
                    place,
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    (stream, peer): (TcpStream, SocketAddr),
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    _place: OwnedSemaphorePermit,
) {
    match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        // Nobody to hand it to: the server stops.
        Ok(Ok(stream)) => drop(ready.send((stream, peer)).await),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake failed"),
        Err(_) => tracing::debug!(%peer, "a handshake took too long"),
    }
}
