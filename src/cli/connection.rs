//! The way to the API server.
//!
//! Owns: where the API server is. Never does: use it.

use anyhow::Context as _;
use kube::config::Config;

use crate::kube_io::clients::Clients;

/// The clients of a role: the Pod's service account, or a kubeconfig where there is one.
pub(super) async fn of_role() -> anyhow::Result<Clients> {
    let config = Config::infer()
        .await
        .context("no API server is configured")?;
    Ok(Clients::new(config)?)
}
