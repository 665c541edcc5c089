//! Serves an empty cluster on loopback: `cargo run -p orbweaver-kubesim --example serve -- 8001`,
//! then `kubectl --server http://127.0.0.1:8001 …`.

use kubesim::Server;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port = std::env::args()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .unwrap_or(8001_u16);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    Server::new(0).serve(listener).await
}
