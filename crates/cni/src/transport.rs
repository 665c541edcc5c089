//! One request to the agent and its reply, as bytes.
//!
//! Owns the [`Transport`] trait and [`CallError`], the ways an exchange can
//! end without a reply. It does no IO and knows no JSON.
//!
//! Invariant: the text of a [`CallError`] and of its sources, joined by `: `,
//! reads as Go's HTTP client words the same failure. Operators search for
//! these texts, and tools match them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::contract::Method;

/// A request to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, as they stand on the request line.
    pub target: String,
    /// A JSON body, if there is one.
    pub body: Option<Vec<u8>>,
}

/// The agent's reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
}

/// Carries a request to the agent that listens on a socket.
pub trait Transport {
    /// Sends `request` to the agent at `socket` and waits for its reply, for
    /// `limit` in all.
    ///
    /// # Errors
    /// [`CallError`] when there is no whole reply. The request may have been
    /// carried out all the same.
    fn call(&self, socket: &Path, request: &Request, limit: Duration) -> Result<Reply, CallError>;
}

/// Whether it makes sense to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The agent is starting or restarting: the same request may succeed shortly.
    Soon,
    /// The same request will fail in the same way.
    Never,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody accepts connections at the socket.
    #[error("dial unix {}: connect", socket.display())]
    Dial {
        /// The agent's socket.
        socket: PathBuf,
        /// What connecting gave.
        source: Errno,
        /// [`Retry::Never`] when there is not even the socket's directory:
        /// then no agent has been on this node since it booted.
        retry: Retry,
    },
    /// The connection broke while the request was sent.
    #[error("write unix @->{}: write", socket.display())]
    Write {
        /// The agent's socket.
        socket: PathBuf,
        /// What writing gave.
        source: Errno,
    },
    /// The connection broke while the reply was awaited.
    #[error("read unix @->{}: read", socket.display())]
    Read {
        /// The agent's socket.
        socket: PathBuf,
        /// What reading gave.
        source: Errno,
    },
    /// The agent closed the connection before it replied.
    #[error("EOF")]
    Closed,
    /// The agent closed the connection within its reply.
    #[error("unexpected EOF")]
    CutShort,
    /// No whole reply within the limit.
    #[error("context deadline exceeded")]
    Timeout,
    /// What came is not HTTP, or more than a reply may have.
    #[error("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {0}")]
    Malformed(Malformed),
}

/// What is wrong with a reply that is not HTTP as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The status line or a header.
    #[error("{0}")]
    Head(httparse::Error),
    /// More headers, or a longer head, than is accepted.
    #[error("the head is longer than {limit} bytes")]
    LongHead {
        /// Most bytes accepted.
        limit: usize,
    },
    /// The body's announced length is not a number.
    #[error("Content-Length is not a number")]
    Length,
    /// A chunk's size line.
    #[error("invalid chunk size")]
    Chunk,
    /// The body is too long.
    #[error("the body is longer than {limit} bytes")]
    LongBody {
        /// Most bytes accepted.
        limit: usize,
    },
}

impl CallError {
    /// Whether the agent may be back in a moment.
    ///
    /// A connection that was refused or cut is how an agent's restart looks
    /// from here. Every operation may be sent twice: allocation gives the same
    /// Pod the same addresses, and releasing twice releases nothing more.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Dial { retry, .. } => *retry,
            Self::Write { source, .. } | Self::Read { source, .. } => match source.kind() {
                io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected => Retry::Soon,
                _ => Retry::Never,
            },
            Self::Closed | Self::CutShort => Retry::Soon,
            Self::Timeout | Self::Malformed(_) => Retry::Never,
        }
    }
}

/// An error of the operating system in its own words, beginning in lower case
/// and without its number.
#[derive(Debug)]
pub struct Errno(io::Error);

impl Errno {
    /// What kind of error it is.
    pub fn kind(&self) -> io::ErrorKind {
        self.0.kind()
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let words = text.split(" (os error ").next().unwrap_or(&text);
        let mut chars = words.chars();
        if let Some(first) = chars.next() {
            write!(f, "{}{}", first.to_lowercase(), chars.as_str())?;
        }
        Ok(())
    }
}

impl std::error::Error for Errno {}

/// An error and its sources, joined by `: `.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += ": ";
        text += &cause.to_string();
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_reads_as_go_writes_it() {
        let text = |number| Errno::from(io::Error::from_raw_os_error(number)).to_string();
        assert_eq!(text(2), "no such file or directory");
        assert_eq!(text(111), "connection refused");
        assert_eq!(text(104), "connection reset by peer");
        assert_eq!(Errno::from(io::Error::other("Odd")).to_string(), "odd");
    }
}
