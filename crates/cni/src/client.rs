//! The agent's operations as functions, one try each.
//!
//! Owns the wording of failures. It never retries and never waits beyond the
//! limit it is given; that is the caller's decision, with [`ClientError::retry`].
//!
//! Invariant: a [`ClientError`] and its sources, joined by `: `, read as the
//! generated client of the original prints the same failure. Pod events carry
//! these texts.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::contract::{
    FrameworkError, IpamAddArgs, IpamAddResponse, IpamBatchDelArgs, IpamDelArgs, Method, Operation,
    WorkloadEndpointStatus,
};
use crate::transport::{CallError, Reply, Request, Retry, Transport};

/// Most characters shown to a person of a reply that is not the JSON it should be.
const EXCERPT: usize = 500;

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no reply.
    #[error("{verb} \"{url}\"", verb = capitalised(*method))]
    Call {
        /// Method of the request.
        method: Method,
        /// The socket as the host, and the target.
        url: String,
        /// What happened.
        source: CallError,
    },
    /// The agent carried the operation out and it failed, with a status the
    /// contract declares.
    #[error(
        "[{} {}][{status}] {}{name} {}",
        operation.method(), operation.path(), operation.id(), spaced(payload.as_deref())
    )]
    Failed {
        /// What was asked for.
        operation: Operation,
        /// HTTP status.
        status: u16,
        /// The status as the contract names it.
        name: &'static str,
        /// The agent's words; `None` for an empty body.
        payload: Option<String>,
    },
    /// The agent answered with a status the contract does not declare.
    #[error(
        "response status code does not match any response statuses defined for this endpoint \
         in the swagger spec (status {status}): {{}}"
    )]
    Undeclared {
        /// HTTP status.
        status: u16,
        /// What the agent says about it, which the text above has no place for.
        message: String,
    },
    /// The reply's body is not what the operation promises.
    #[error("malformed reply to {} {}", operation.method(), operation.path())]
    Malformed {
        /// What was asked for.
        operation: Operation,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether the agent may be back, or ready, in a moment.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Call { source, .. } => source.retry(),
            // An agent that is up but not ready yet.
            Self::Failed {
                operation: Operation::GetIpamHealthy,
                ..
            } => Retry::Soon,
            Self::Failed { .. } | Self::Undeclared { .. } | Self::Malformed { .. } => Retry::Never,
        }
    }

    /// HTTP status, when there was a reply.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Failed { status, .. } | Self::Undeclared { status, .. } => Some(*status),
            Self::Call { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// The method as Go's URL errors begin.
const fn capitalised(method: Method) -> &'static str {
    match method {
        Method::Get => "Get",
        Method::Post => "Post",
        Method::Delete => "Delete",
    }
}

fn spaced(payload: Option<&str>) -> String {
    payload.map_or_else(String::new, |text| format!(" {text}"))
}

/// The agent at one socket.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    transport: &'a dyn Transport,
    socket: &'a Path,
}

impl<'a> Client<'a> {
    /// The agent that listens at `socket`. Connects to nothing yet.
    pub fn new(transport: &'a dyn Transport, socket: &'a Path) -> Self {
        Self { transport, socket }
    }

    /// Is the agent able to serve?
    ///
    /// # Errors
    /// [`ClientError`]; `Failed` when it runs but cannot serve.
    pub fn healthy(&self, limit: Duration) -> Result<(), ClientError> {
        self.call(Operation::GetIpamHealthy, None, None, limit)
            .map(drop)
    }

    /// Allocates addresses for one interface of a Pod.
    ///
    /// # Errors
    /// [`ClientError`]; `Failed` with the reason when the agent refuses.
    pub fn allocate(
        &self,
        args: &IpamAddArgs,
        limit: Duration,
    ) -> Result<IpamAddResponse, ClientError> {
        let reply = self.call(Operation::PostIpamIp, None, Some(to_json(args)), limit)?;
        from_json(Operation::PostIpamIp, &reply)
    }

    /// Tells that an interface of a Pod is gone.
    ///
    /// # Errors
    /// [`ClientError`]; `Failed` with the reason when the agent cannot release.
    pub fn release(&self, args: &IpamDelArgs, limit: Duration) -> Result<(), ClientError> {
        self.call(Operation::DeleteIpamIp, None, Some(to_json(args)), limit)
            .map(drop)
    }

    /// Tells that other hosts have addresses that a Pod was given.
    ///
    /// # Errors
    /// [`ClientError`]; `Failed` with the reason when they stay the Pod's.
    pub fn release_conflicts(
        &self,
        args: &IpamBatchDelArgs,
        limit: Duration,
    ) -> Result<(), ClientError> {
        self.call(Operation::DeleteIpamIps, None, Some(to_json(args)), limit)
            .map(drop)
    }

    /// Reads what a Pod holds.
    ///
    /// # Errors
    /// [`ClientError`]; `Failed` with status 404 when it holds nothing.
    pub fn endpoint(
        &self,
        namespace: &str,
        name: &str,
        limit: Duration,
    ) -> Result<WorkloadEndpointStatus, ClientError> {
        let query = format!(
            "?podName={}&podNamespace={}",
            escaped(name, b""),
            escaped(namespace, b"")
        );
        let reply = self.call(Operation::GetWorkloadendpoint, Some(&query), None, limit)?;
        from_json(Operation::GetWorkloadendpoint, &reply)
    }

    /// One exchange; the reply is one of success.
    fn call(
        &self,
        operation: Operation,
        query: Option<&str>,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Reply, ClientError> {
        let target = format!("{}{}", operation.full_path(), query.unwrap_or_default());
        let request = Request {
            method: operation.method(),
            target,
            body,
        };
        let reply = self
            .transport
            .call(self.socket, &request, limit)
            .map_err(|source| ClientError::Call {
                method: request.method,
                url: self.url(&request.target),
                source,
            })?;
        if reply.status == 200 {
            Ok(reply)
        } else {
            Err(failure(operation, &reply))
        }
    }

    /// The URL of a request: the socket's path stands for the host.
    fn url(&self, target: &str) -> String {
        let host = self.socket.to_string_lossy();
        format!("http://{}{target}", escaped(&host, HOST_BYTES))
    }
}

/// What a URL's host may hold unescaped besides letters, digits and `-_.~`.
const HOST_BYTES: &[u8] = b"!$&'()*+,;=:[]<>\"";

/// Percent-encodes `text` but for unreserved bytes and those of `also`.
fn escaped(text: &str, also: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A request body, ending in a line feed as those of the original do.
fn to_json<T: Serialize>(args: &T) -> Vec<u8> {
    // Plain structs with string keys: there is nothing that could fail.
    let mut bytes = serde_json::to_vec(args).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn from_json<T: DeserializeOwned>(operation: Operation, reply: &Reply) -> Result<T, ClientError> {
    serde_json::from_slice(&reply.body)
        .map_err(|source| ClientError::Malformed { operation, source })
}

fn failure(operation: Operation, reply: &Reply) -> ClientError {
    let status = reply.status;
    let Some(name) = operation.failure_name(status) else {
        let message = serde_json::from_slice::<FrameworkError>(&reply.body)
            .map_or_else(|_| words(&reply.body), |error| error.message);
        return ClientError::Undeclared { status, message };
    };
    let payload = (!reply.body.is_empty()).then(|| words(&reply.body));
    ClientError::Failed {
        operation,
        status,
        name,
        payload,
    }
}

/// The text of an error body: a JSON string, or else what there is.
fn words(body: &[u8]) -> String {
    serde_json::from_slice::<String>(body).unwrap_or_else(|_| {
        String::from_utf8_lossy(body)
            .trim()
            .chars()
            .take(EXCERPT)
            .collect()
    })
}

#[cfg(test)]
mod tests;
