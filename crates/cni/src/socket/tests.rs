use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::contract::Method;

fn whole(bytes: &[u8]) -> Result<Option<Reply>, CallError> {
    parse(bytes, Input::Ended)
}

fn reply(status: u16, body: &str) -> Reply {
    Reply {
        status,
        body: body.into(),
    }
}

fn get() -> Request {
    Request {
        method: Method::Get,
        target: "/v1/ipam/healthy".into(),
        body: None,
    }
}

#[test]
fn a_request_is_rendered_with_and_without_a_body() {
    let text = |request| String::from_utf8(render(&request)).unwrap();
    let agent = concat!("User-Agent: orbweaver-cni/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        text(get()),
        format!(
            "GET /v1/ipam/healthy HTTP/1.1\r\nHost: localhost\r\n{agent}\r\n\
             Accept: application/json\r\nConnection: close\r\n\r\n"
        )
    );
    let post = Request {
        method: Method::Post,
        target: "/v1/ipam/ip".into(),
        body: Some(b"{}".into()),
    };
    assert!(text(post).ends_with(
        "Connection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    ));
}

#[test]
fn every_framing_gives_the_same_body() {
    for head_and_body in [
        "Content-Length: 4\r\n\r\nbody",
        "content-length:  4 \r\n\r\nbody and more",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n3;x=y\r\nody\r\n0\r\n\r\n",
        "Connection: close\r\n\r\nbody",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{head_and_body}");
        assert_eq!(
            whole(text.as_bytes()).unwrap(),
            Some(reply(200, "body")),
            "{head_and_body}"
        );
    }
    let none = b"HTTP/1.1 204 No Content\r\n\r\nleft over";
    assert_eq!(parse(none, Input::Open).unwrap(), Some(reply(204, "")));
}

#[test]
fn a_reply_is_complete_at_its_last_byte_and_not_before() {
    for text in [
        "HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n",
    ] {
        let bytes = text.as_bytes();
        for end in 0..bytes.len() {
            assert_eq!(
                parse(&bytes[..end], Input::Open).unwrap(),
                None,
                "{end} of {text:?}"
            );
        }
        assert_eq!(parse(bytes, Input::Open).unwrap(), Some(reply(500, "body")));
    }
}

#[test]
fn what_is_no_reply_is_called_by_its_name() {
    let text = |bytes: &[u8]| whole(bytes).unwrap_err().to_string();
    let malformed = "net/http: HTTP/1.x transport connection broken: malformed HTTP response: ";
    assert_eq!(text(b""), "EOF");
    assert_eq!(
        text(b"nonsense\r\n\r\n"),
        format!("{malformed}invalid HTTP version")
    );
    assert_eq!(
        text(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        format!("{malformed}Content-Length is not a number")
    );
    assert_eq!(
        text(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
        format!("{malformed}the body is longer than 4194304 bytes")
    );
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        text(format!("{chunked}z\r\n").as_bytes()),
        format!("{malformed}invalid chunk size")
    );
    assert_eq!(
        text(format!("{chunked}ffffffff\r\n").as_bytes()),
        format!("{malformed}the body is longer than 4194304 bytes")
    );
}

#[test]
fn an_endless_reply_is_cut_off() {
    let head = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; HEAD_LIMIT]].concat();
    let error = parse(&head, Input::Open).unwrap_err().to_string();
    assert!(
        error.ends_with("the head is longer than 16384 bytes"),
        "{error}"
    );
    let body = [
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        vec![b'x'; 2 * BODY_LIMIT + 1],
    ]
    .concat();
    let error = parse(&body, Input::Open).unwrap_err().to_string();
    assert!(
        error.ends_with("the body is longer than 4194304 bytes"),
        "{error}"
    );
}

#[test]
fn only_a_socket_somebody_may_come_back_to_is_worth_another_try() {
    let dir = tempfile::tempdir().unwrap();
    let dial = |socket: &Path| {
        let error = SocketTransport
            .call(socket, &get(), Duration::from_secs(5))
            .unwrap_err();
        assert!(matches!(error, CallError::Dial { .. }), "{error:?}");
        error.retry()
    };
    let socket = dir.path().join("agent.sock");
    assert_eq!(dial(&socket), Retry::Soon, "not there yet");
    assert_eq!(
        dial(&dir.path().join("none/agent.sock")),
        Retry::Never,
        "no directory"
    );
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(
        dial(&socket),
        Retry::Soon,
        "left behind by an agent that is gone"
    );
    let long = dir.path().join("x".repeat(200));
    assert_eq!(
        dial(&long),
        Retry::Never,
        "longer than a socket's name may be"
    );
}

#[test]
fn a_silent_agent_and_a_full_queue_end_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    // The kernel completes the connection although nobody accepts it.
    let _listener = UnixListener::bind(&socket).unwrap();
    let call = || {
        SocketTransport
            .call(&socket, &get(), Duration::from_millis(30))
            .unwrap_err()
    };
    assert!(matches!(call(), CallError::Timeout));

    let full = dir.path().join("full.sock");
    let listener =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&socket2::SockAddr::unix(&full).unwrap())
        .unwrap();
    listener.listen(0).unwrap();
    let _waiting = UnixStream::connect(&full).unwrap();
    let error = SocketTransport
        .call(&full, &get(), Duration::from_millis(30))
        .unwrap_err();
    assert!(matches!(error, CallError::Timeout), "{error:?}");
    let error = SocketTransport
        .call(&full, &get(), Duration::ZERO)
        .unwrap_err();
    assert!(matches!(error, CallError::Timeout), "{error:?}");
}

#[test]
fn an_agent_that_refuses_a_request_unread_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (done, until_done) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        stream.shutdown(std::net::Shutdown::Read).unwrap();
        // Open until the caller has its answer.
        let _ = until_done.recv();
    });
    let request = Request {
        method: Method::Post,
        target: "/v1/ipam/ip".into(),
        body: Some(vec![b' '; 8 << 20]),
    };
    let answer = SocketTransport.call(&socket, &request, Duration::from_secs(10));
    drop(done);
    server.join().unwrap();
    assert_eq!(answer.unwrap().status, 413);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, Input::Open);
        let _ = parse(&bytes, Input::Ended);
    }

    #[test]
    fn no_body_makes_the_parser_panic(
        framing in prop::sample::select(vec![
            "Transfer-Encoding: chunked", "Content-Length: 20", "X: y",
        ]),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[0-9a-f\r\n;]{0,40}".prop_map(String::into_bytes),
        ],
    ) {
        let bytes = [format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").into_bytes(), body].concat();
        let open = parse(&bytes, Input::Open);
        if let Ok(Some(reply)) = open {
            // More bytes never change a reply that is complete.
            prop_assert_eq!(parse(&bytes, Input::Ended).unwrap(), Some(reply));
        }
    }
}
