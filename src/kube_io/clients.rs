//! The clients of a role.
//!
//! Owns: that there are two, and how they differ. Never does: find the API server; that is the
//! command line's.
//!
//! **No rate limit of our own.** A client that lets so many requests a second through is a wall that
//! nobody sees: calls wait in it while the API server is idle. Ours have none, and no limit of
//! connections; the API server says when it has too much to do (429, with a pause that is kept), and
//! serves our accounts by a `FlowSchema` of the chart. What is sent at once is bounded where it is
//! asked for, each time by a constant with a reason: writes of a stage and passes of the controller
//! ([`crate::controller`]), one write a pool, releases and endpoints of an agent
//! ([`crate::agent`]). Nothing polls: changes come by watches.

use kube::{Client, Config};

use super::retry;

/// The two clients of a role: reads are repeated by the client, writes never.
#[derive(Clone)]
pub struct Clients {
    /// For lists, watches, gets and Events: see [`retry::read_client`].
    pub read: Client,
    /// For everything that must not happen twice unseen: see [`retry::write_client`].
    pub write: Client,
}

impl Clients {
    /// Both clients for the API server of `config`.
    ///
    /// Errors: certificates or keys that can't be used. Nothing is sent.
    pub fn new(config: Config) -> Result<Self, kube::Error> {
        Ok(Self {
            read: retry::read_client(config.clone())?,
            write: retry::write_client(config)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use axum::Router;
    use axum::http::StatusCode;
    use futures::future::join_all;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use tokio::net::TcpListener;
    use tokio::sync::Barrier;

    use super::*;

    /// More than either role ever has under way: the controller's passes times the writes of each.
    const AT_ONCE: usize = 300;

    /// Nobody is answered before all have asked: a client that let fewer through would wait for ever.
    #[tokio::test]
    async fn the_clients_hold_no_request_back() {
        let all_here = Arc::new(Barrier::new(AT_ONCE));
        let answer = move || {
            let all_here = all_here.clone();
            async move {
                all_here.wait().await;
                (StatusCode::OK, r#"{"metadata": {"name": "a"}}"#)
            }
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = axum::serve(listener, Router::new().fallback(answer));
        let server = tokio::spawn(server.into_future());
        let clients = Clients::new(Config::new(url.parse().unwrap())).unwrap();
        for client in [clients.read, clients.write] {
            let api: Api<ConfigMap> = Api::namespaced(client, "default");
            let asked = join_all((0..AT_ONCE).map(|_| api.get("a"))).await;
            assert!(asked.iter().all(Result::is_ok), "{:?}", asked.first());
        }
        server.abort();
    }
}
