//! The role as a process runs it: a real socket, a start and a stop.

use std::os::unix::fs::PermissionsExt;

use http::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

use super::super::{AgentError, State, run};
use super::*;

/// A running role: its socket, its probes, and the way to stop it.
struct Role {
    socket: PathBuf,
    started: watch::Receiver<bool>,
    ready: watch::Receiver<bool>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), AgentError>>,
}

fn start(world: &World, dir: &Path) -> Role {
    let alive = Arc::new(AtomicBool::new(true));
    let clients = Clients {
        read: world.client(&alive),
        write: world.client(&alive),
    };
    let (started, has_started) = watch::channel(false);
    let (ready, is_ready) = watch::channel(false);
    let (stop, stopping) = oneshot::channel();
    let settings = settings(dir);
    let socket = settings.socket.clone();
    let shutdown = async {
        let _ = stopping.await;
    };
    let metrics = Metrics::register(&mut Registry::default());
    let role = run(
        settings,
        clients,
        metrics,
        State { started, ready },
        shutdown,
    );
    Role {
        socket,
        started: has_started,
        ready: is_ready,
        stop,
        task: tokio::spawn(role),
    }
}

async fn get(socket: &Path, path: &str) -> StatusCode {
    let stream = TokioIo::new(UnixStream::connect(socket).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header(HOST, "").body(Body::empty());
    sender
        .send_request(request.unwrap())
        .await
        .unwrap()
        .status()
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_only_root_may_call() {
    let (world, dir) = (World::with_shop(), temp());
    std::fs::write(dir.path().join("agent.sock"), "stale").unwrap();
    std::fs::write(dir.path().join("agent.sock.new"), "cut short").unwrap();
    let mut role = start(&world, dir.path());
    role.started.wait_for(|started| *started).await.unwrap();
    role.ready.wait_for(|ready| *ready).await.unwrap();
    let mode = std::fs::metadata(&role.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.path().join("agent.sock.new").exists());
    assert_eq!(get(&role.socket, "/v1/ipam/healthy").await, StatusCode::OK);
    role.stop.send(()).unwrap();
    role.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_had_is_named() {
    let (world, dir) = (World::with_shop(), temp());
    std::fs::write(dir.path().join("file"), "").unwrap();
    let role = start(&world, &dir.path().join("file"));
    let error = role.task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("file/agent.sock"), "{error}");
}

#[tokio::test]
async fn a_role_that_is_stopped_before_the_api_server_answers_stops() {
    let (world, dir) = (World::with_shop(), temp());
    let role = start(&world, dir.path());
    role.stop.send(()).unwrap();
    role.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_gone_ends_the_watch_over_it() {
    let dir = temp();
    let (ready, is_ready) = watch::channel(true);
    super::super::health::watch_over(&dir.path().join("none"), &ready).await;
    assert!(!*is_ready.borrow());
}
