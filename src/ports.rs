//! The two TCP ports of a role: the kubelet's probes, and what Prometheus scrapes.
//!
//! Owns: the ports and their answers. Never does: work of its own; a role says what it is through
//! [`Health`] and counts in its [`Registry`].

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The media type of what [`text::encode`] writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a role tells its probes. `false` until the role says otherwise.
#[derive(Debug, Clone)]
pub struct Health {
    /// The role has started.
    pub started: watch::Receiver<bool>,
    /// The role can do its work now.
    pub ready: watch::Receiver<bool>,
}

/// Why a port can't be served.
#[derive(Debug, thiserror::Error)]
#[error("port {port} for {what} can't be opened: is another replica on this node?")]
pub struct PortError {
    port: u16,
    what: &'static str,
    source: std::io::Error,
}

/// All addresses, of both families where the node has both. `what` is for the error.
///
/// Errors: the port is taken or forbidden.
pub async fn bind(port: u16, what: &'static str) -> Result<TcpListener, PortError> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match TcpListener::bind(both).await {
        Ok(listener) => Ok(listener),
        // A node without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)))
            .await
            .map_err(|source| PortError { port, what, source }),
    }
}

/// Opens `port` and gives the future that answers the probes
/// `/v1/runtime/{startup,readiness,liveness}` (200 or 500, empty) until it is dropped.
///
/// Errors: the port is taken or forbidden.
pub async fn probes(
    port: u16,
    health: Health,
) -> Result<impl Future<Output = ()> + Send, PortError> {
    let listener = bind(port, "the probes").await?;
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
    Ok(serve(listener, app, "probes"))
}

/// Opens `port` and gives the future that answers every GET on it with the metrics of `registry`,
/// in the `OpenMetrics` text form, until it is dropped.
///
/// Errors: the port is taken or forbidden.
pub async fn metrics(
    port: u16,
    registry: Registry,
) -> Result<impl Future<Output = ()> + Send, PortError> {
    let listener = bind(port, "the metrics").await?;
    let registry = Arc::new(registry);
    let app = Router::new().fallback(get(move || std::future::ready(scrape(&registry))));
    Ok(serve(listener, app, "metrics"))
}

async fn serve(listener: TcpListener, app: Router, what: &'static str) {
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "{what} are no longer served");
    }
}

fn answer(state: &watch::Receiver<bool>) -> StatusCode {
    if *state.borrow() {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

fn scrape(registry: &Registry) -> (StatusCode, [(HeaderName, &'static str); 1], String) {
    let mut body = String::new();
    match text::encode(&mut body, registry) {
        Ok(()) => (StatusCode::OK, [(CONTENT_TYPE, OPEN_METRICS)], body),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}
