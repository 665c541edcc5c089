//! The real [`Transport`]: HTTP/1.1 over a unix socket, a connection a call.
//!
//! Owns framing and time limits. It never interprets a body.
//!
//! A whole HTTP client would be most of the plugin: with one the binary is
//! half as large again, for redirects, pools and URLs a unix socket has no use
//! for. `httparse` does the parsing; what is left is written here.
//!
//! Invariants: no call outlasts its limit, connecting included; a reply has at
//! most [`HEAD_LIMIT`] + [`BODY_LIMIT`] bytes.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::contract::MEDIA_TYPE;
use crate::transport::{CallError, Errno, Malformed, Reply, Request, Retry, Transport};

/// Most bytes of a status line and headers.
pub const HEAD_LIMIT: usize = 16 << 10;

/// Most bytes of a reply's body; the longest refusals name every pool of a Pod.
pub const BODY_LIMIT: usize = 4 << 20;

/// Most headers of a reply.
const HEADERS: usize = 64;

/// Bytes asked of the kernel at once.
const READ_SIZE: usize = 16 << 10;

/// Calls the agent over its unix socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketTransport;

impl Transport for SocketTransport {
    fn call(&self, socket: &Path, request: &Request, limit: Duration) -> Result<Reply, CallError> {
        let deadline = Deadline(Instant::now() + limit);
        let stream = connect(socket, deadline)?;
        let mut exchange = Exchange {
            stream,
            socket,
            deadline,
        };
        match exchange.send(&render(request)) {
            Ok(()) => exchange.receive(),
            // An agent that refuses a request unread still says why.
            Err(error @ CallError::Write { .. }) => exchange.receive().map_err(|_| error),
            Err(error) => Err(error),
        }
    }
}

/// The instant a call must be over.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    /// What is left, never zero: a zero timeout means "none" to a socket.
    fn left(self) -> Result<Duration, CallError> {
        match self.0.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(CallError::Timeout),
            left => Ok(left),
        }
    }
}

/// Connects within the deadline.
///
/// The kernel lets a connect to a full queue wait for as long as the socket's
/// write timeout. The standard library cannot set that before connecting.
fn connect(socket: &Path, deadline: Deadline) -> Result<UnixStream, CallError> {
    let dial = |source: io::Error| {
        if timed_out(&source) {
            return CallError::Timeout;
        }
        let retry = match source.kind() {
            io::ErrorKind::ConnectionRefused => Retry::Soon,
            io::ErrorKind::NotFound if socket.parent().is_some_and(Path::is_dir) => Retry::Soon,
            _ => Retry::Never,
        };
        CallError::Dial {
            socket: socket.to_owned(),
            source: Errno::from(source),
            retry,
        }
    };
    let address = socket2::SockAddr::unix(socket).map_err(dial)?;
    let stream =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).map_err(dial)?;
    stream
        .set_write_timeout(Some(deadline.left()?))
        .map_err(dial)?;
    stream.connect(&address).map_err(dial)?;
    Ok(OwnedFd::from(stream).into())
}

fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// The bytes of a request.
fn render(request: &Request) -> Vec<u8> {
    let Request {
        method,
        target,
        body,
    } = request;
    let content = body.as_ref().map_or_else(String::new, |body| {
        format!(
            "Content-Type: {MEDIA_TYPE}\r\nContent-Length: {}\r\n",
            body.len()
        )
    });
    let mut bytes = format!(
        "{method} {target} HTTP/1.1\r\n\
         Host: localhost\r\n\
         User-Agent: orbweaver-cni/{}\r\n\
         Accept: {MEDIA_TYPE}\r\n\
         Connection: close\r\n\
         {content}\r\n",
        env!("CARGO_PKG_VERSION"),
    )
    .into_bytes();
    bytes.extend_from_slice(body.as_deref().unwrap_or_default());
    bytes
}

/// A connection in use.
struct Exchange<'a> {
    stream: UnixStream,
    socket: &'a Path,
    deadline: Deadline,
}

impl Exchange<'_> {
    fn write_error(&self, source: io::Error) -> CallError {
        if timed_out(&source) {
            return CallError::Timeout;
        }
        CallError::Write {
            socket: self.socket.to_owned(),
            source: Errno::from(source),
        }
    }

    fn read_error(&self, source: io::Error) -> CallError {
        if timed_out(&source) {
            return CallError::Timeout;
        }
        CallError::Read {
            socket: self.socket.to_owned(),
            source: Errno::from(source),
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), CallError> {
        while !bytes.is_empty() {
            let left = self.deadline.left()?;
            self.stream
                .set_write_timeout(Some(left))
                .map_err(|e| self.write_error(e))?;
            match self.stream.write(bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.write_error(e)),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Reply, CallError> {
        let mut seen = Vec::new();
        let mut chunk = [0; READ_SIZE];
        loop {
            let left = self.deadline.left()?;
            self.stream
                .set_read_timeout(Some(left))
                .map_err(|e| self.read_error(e))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return parse(&seen, Input::Ended)?.ok_or(CallError::CutShort),
                Ok(n) => seen.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.read_error(e)),
            }
            if let Some(reply) = parse(&seen, Input::Open)? {
                return Ok(reply);
            }
        }
    }
}

/// Whether more bytes may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

/// How the end of a body is known.
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads a reply from the bytes so far; `None` when more are needed.
fn parse(seen: &[u8], input: Input) -> Result<Option<Reply>, CallError> {
    if seen.is_empty() && input == Input::Ended {
        return Err(CallError::Closed);
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let malformed = |what| Err(CallError::Malformed(what));
    let body_at = match head.parse(seen) {
        Ok(httparse::Status::Complete(at)) => at,
        Ok(httparse::Status::Partial) if seen.len() > HEAD_LIMIT => {
            return malformed(Malformed::LongHead { limit: HEAD_LIMIT });
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return malformed(Malformed::Head(error)),
    };
    let status = head.code.unwrap_or_default();
    let framing = framing(status, head.headers).map_err(CallError::Malformed)?;
    let rest = seen.get(body_at..).unwrap_or_default();
    let body = match framing {
        Framing::Length(length) if length > BODY_LIMIT => {
            return malformed(Malformed::LongBody { limit: BODY_LIMIT });
        }
        Framing::Length(length) => rest.get(..length).map(<[u8]>::to_vec),
        Framing::Chunked => unchunk(rest).map_err(CallError::Malformed)?,
        Framing::UntilClose => (input == Input::Ended).then(|| rest.to_vec()),
    };
    // Chunk sizes have a share in `rest`, so this holds every framing.
    if body.is_none() && rest.len() > 2 * BODY_LIMIT {
        return malformed(Malformed::LongBody { limit: BODY_LIMIT });
    }
    Ok(body.map(|body| Reply { status, body }))
}

fn framing(status: u16, headers: &[httparse::Header<'_>]) -> Result<Framing, Malformed> {
    let value = |name: &str| {
        headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name))
            .map(|h| h.value.trim_ascii())
    };
    // RFC 9112 §6.3: these have no body, whatever the headers say.
    if status < 200 || status == 204 || status == 304 {
        return Ok(Framing::Length(0));
    }
    if let Some(coding) = value("Transfer-Encoding")
        && coding.to_ascii_lowercase().ends_with(b"chunked")
    {
        return Ok(Framing::Chunked);
    }
    let Some(length) = value("Content-Length") else {
        return Ok(Framing::UntilClose);
    };
    let digits = std::str::from_utf8(length).map_err(|_| Malformed::Length)?;
    digits
        .parse()
        .map(Framing::Length)
        .map_err(|_| Malformed::Length)
}

/// Joins the chunks of RFC 9112 §7.1; `None` when more bytes are needed.
/// What follows the last chunk says nothing to us.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut body = Vec::new();
    loop {
        let (at, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed::Chunk),
        };
        if size == 0 {
            return Ok(Some(body));
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|s| body.len().saturating_add(*s) <= BODY_LIMIT);
        let size = size.ok_or(Malformed::LongBody { limit: BODY_LIMIT })?;
        let after = rest.get(at..).unwrap_or_default();
        let (Some(chunk), Some(next)) = (after.get(..size), after.get(size + 2..)) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        rest = next;
    }
}

#[cfg(test)]
mod tests;
