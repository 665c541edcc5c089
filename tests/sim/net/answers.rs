//! Answers of the network itself, and of a server that has too much to do.

use axum::body::Body as StreamBody;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tower::BoxError;

use super::Reply;

pub(super) fn broken(why: &str) -> BoxError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, why).into()
}

pub(super) fn overload(code: u16) -> Reply {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "message": "simulated", "reason": match code {
            429 => "TooManyRequests",
            504 => "Timeout",
            _ => "InternalError",
        },
    });
    let mut response = json_reply(StatusCode::from_u16(code).unwrap(), &status);
    if code == 429 {
        let second = http::HeaderValue::from_static("1");
        response.headers_mut().insert("retry-after", second);
    }
    response
}

pub(super) fn json_reply(code: StatusCode, body: &Value) -> Reply {
    let mut response = Response::new(StreamBody::from(body.to_string()));
    *response.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}
