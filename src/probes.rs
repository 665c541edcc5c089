//! The kubelet's probes of both roles: `/v1/runtime/{startup,readiness,liveness}` on a TCP port.
//!
//! Owns: the port and the three answers (200 or 500, empty). Never does: work of its own; a role
//! says what it is through [`Health`].

use std::net::{Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What a role tells its probes. `false` until the role says otherwise.
#[derive(Debug, Clone)]
pub struct Health {
    /// The role has started.
    pub started: watch::Receiver<bool>,
    /// The role can do its work now.
    pub ready: watch::Receiver<bool>,
}

/// Why the probes can't be served.
#[derive(Debug, thiserror::Error)]
#[error("health port {port} can't be opened: is another replica on this node?")]
pub struct ProbeError {
    port: u16,
    source: std::io::Error,
}

/// All addresses, of both families where the node has both.
async fn bind(port: u16) -> Result<TcpListener, ProbeError> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match TcpListener::bind(both).await {
        Ok(listener) => Ok(listener),
        // A node without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)))
            .await
            .map_err(|source| ProbeError { port, source }),
    }
}

/// Opens `port` and gives the future that answers its probes until it is dropped.
///
/// Errors: the port is taken or forbidden.
pub async fn open(
    port: u16,
    health: Health,
) -> Result<impl Future<Output = ()> + Send, ProbeError> {
    let listener = bind(port).await?;
    Ok(serve(listener, health))
}

async fn serve(listener: TcpListener, health: Health) {
    let (started, ready) = (health.started, health.ready);
    let app = Router::new()
        .route(
            "/v1/runtime/startup",
            get(move || std::future::ready(answer(&started))),
        )
        .route(
            "/v1/runtime/readiness",
            get(move || std::future::ready(answer(&ready))),
        )
        .route("/v1/runtime/liveness", get(|| async { StatusCode::OK }));
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "probes are no longer served");
    }
}

fn answer(state: &watch::Receiver<bool>) -> StatusCode {
    if *state.borrow() {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}
