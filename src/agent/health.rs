//! Whether the agent can be reached: it asks its own socket, as the plugin does.
//!
//! Owns: that question, asked every few seconds. Never does: answer the kubelet; that is
//! `crate::probes`. A socket that was removed under the agent can't be had back by waiting, so
//! after a few silent rounds the agent gives up and is started anew.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use cni::Operation;
use http::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Pause between two questions.
const EVERY: Duration = Duration::from_secs(5);
/// Longest wait for the answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Silent rounds after which the socket is taken as lost.
const SILENT_MAX: u32 = 3;

/// Tells `ready` whether the socket answers; returns when it is lost.
pub(super) async fn watch_over(socket: &Path, ready: &watch::Sender<bool>) {
    let mut silent = 0;
    while silent < SILENT_MAX {
        let answer = timeout(ANSWER_MAX, ask(socket)).await;
        let is_well = matches!(answer, Ok(Ok(true)));
        if let Ok(Err(error)) = answer {
            tracing::warn!(socket = %socket.display(), %error, "own socket gives no answer");
        }
        silent = if is_well { 0 } else { silent + 1 };
        ready.send_if_modified(|told| std::mem::replace(told, is_well) != is_well);
        sleep(EVERY).await;
    }
}

/// Any error only means "no answer"; its text goes to the log.
async fn ask(socket: &Path) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let request = Request::get(Operation::GetIpamHealthy.full_path())
        .header(header::HOST, "")
        .body(Body::empty())?;
    tokio::select! {
        biased;
        answer = sender.send_request(request) => Ok(answer?.status().is_success()),
        ended = connection => Err(match ended {
            Ok(()) => "the connection was closed".into(),
            Err(error) => error.into(),
        }),
    }
}
