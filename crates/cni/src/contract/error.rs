//! Error bodies: the bare JSON string of an operation's own failure, and the
//! object the HTTP framework answers with before an operation is reached.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Method;

/// The body of an operation's failure: `text` as a JSON string and a line feed.
pub fn error_body(text: &str) -> String {
    format!("{}\n", serde_json::Value::from(text))
}

/// The answer to a request that reaches no operation: an unknown path, a body
/// that does not parse, a missing field.
///
/// `code` is the HTTP status but for validation errors, whose codes begin at
/// 600; [`status`](Self::status) is what goes on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkError {
    /// HTTP status, or the number of a validation rule from 600 on.
    pub code: u16,
    /// What is wrong, for a person.
    pub message: String,
}

impl FrameworkError {
    /// Code of "a required value is missing".
    const REQUIRED: u16 = 602;

    /// HTTP status this error is sent with.
    pub const fn status(&self) -> u16 {
        if self.code >= 600 { 422 } else { self.code }
    }

    /// 404: no operation has this path.
    pub fn path_not_found(path: &str) -> Self {
        Self {
            code: 404,
            message: format!("path {path} was not found"),
        }
    }

    /// 405: the path is known, but not with this method. The `Allow` header
    /// carries the same methods, joined by commas.
    pub fn method_not_allowed(method: &str, allowed: &[Method]) -> Self {
        let mut names: Vec<_> = allowed.iter().map(|m| m.as_str()).collect();
        names.sort_unstable();
        let allowed = names.join(",");
        Self {
            code: 405,
            message: format!("method {method} is not allowed, but [{allowed}] are"),
        }
    }

    /// 415: the body is not announced as JSON.
    pub fn unsupported_media_type(media_type: &str) -> Self {
        let message = format!(
            "unsupported media type {media_type:?}, only [{}] are allowed",
            super::MEDIA_TYPE
        );
        Self { code: 415, message }
    }

    /// 400: the body of the parameter called `name` is not the JSON it should be.
    pub fn unparsable_body(name: &str, cause: &serde_json::Error) -> Self {
        Self {
            code: 400,
            message: format!("parsing {name} body from \"\" failed, because {cause}"),
        }
    }

    /// 422: these query parameters are required. `None` when `missing` is empty.
    pub fn missing_query(missing: &[&str]) -> Option<Self> {
        Self::missing(missing, "query")
    }

    /// 422: these fields of the body are required. `None` when `missing` is empty.
    pub fn missing_fields(missing: &[&str]) -> Option<Self> {
        Self::missing(missing, "body")
    }

    fn missing(names: &[&str], place: &str) -> Option<Self> {
        match names {
            [] => None,
            [name] => Some(Self {
                code: Self::REQUIRED,
                message: format!("{name} in {place} is required"),
            }),
            several => {
                let mut message = String::from("validation failure list:");
                for name in several {
                    // Writing to a String cannot fail.
                    let _ = write!(message, "\n{name} in {place} is required");
                }
                Some(Self { code: 422, message })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_is_a_json_string_and_a_line_feed() {
        assert_eq!(
            error_body("Pod \"a\" <b> & c"),
            "\"Pod \\\"a\\\" <b> & c\"\n"
        );
    }

    #[test]
    fn framework_errors_read_as_the_original_words_them() {
        let json = |e: FrameworkError| (e.status(), serde_json::to_string(&e).unwrap());
        assert_eq!(
            json(FrameworkError::path_not_found("/v1/x")),
            (
                404,
                r#"{"code":404,"message":"path /v1/x was not found"}"#.into()
            )
        );
        assert_eq!(
            json(FrameworkError::method_not_allowed(
                "PUT",
                &[Method::Post, Method::Delete]
            )),
            (
                405,
                r#"{"code":405,"message":"method PUT is not allowed, but [DELETE,POST] are"}"#
                    .into()
            )
        );
        assert_eq!(
            json(FrameworkError::unsupported_media_type("text/plain")),
            (
                415,
                r#"{"code":415,"message":"unsupported media type \"text/plain\", only [application/json] are allowed"}"#
                    .into()
            )
        );
        assert_eq!(
            json(FrameworkError::missing_fields(&["podUID"]).unwrap()),
            (
                422,
                r#"{"code":602,"message":"podUID in body is required"}"#.into()
            )
        );
        assert_eq!(
            json(FrameworkError::missing_query(&["podName", "podNamespace"]).unwrap()),
            (
                422,
                r#"{"code":422,"message":"validation failure list:\npodName in query is required\npodNamespace in query is required"}"#
                    .into()
            )
        );
        assert_eq!(FrameworkError::missing_fields(&[]), None);
    }
}
