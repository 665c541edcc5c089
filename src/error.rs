//! One line for a whole chain of causes.
//!
//! Owns: how an error is printed at the place that handles it. Never does: handle it. Our errors
//! never repeat their cause in their text; those of other crates often do, and then a plain walk
//! along the causes says everything twice. An answer of the API server is told in its own words:
//! the form that the client library prints has them twice and every empty field besides.

use std::error::Error;
use std::fmt;

use kube::core::Status;

/// An error and its causes, joined by `: `, without those that the text so far says already.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = text(self.0);
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = text(error);
            if !text.is_empty() && !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

/// What `error` says itself, with a cause that it repeats in that cause's own short form.
fn text(error: &(dyn Error + 'static)) -> String {
    if let Some(status) = status_of(error) {
        return format!("{} ({} {})", status.message, status.code, status.reason);
    }
    let said = error.to_string();
    match error.source() {
        Some(cause) => said.replace(&cause.to_string(), &text(cause)),
        None => said,
    }
}

/// What the API server answered, where `error` is no more than that.
fn status_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Status> {
    let boxed = error.downcast_ref::<Box<kube::Error>>().map(|e| &**e);
    if let Some(kube::Error::Api(status)) = error.downcast_ref().or(boxed) {
        return Some(status);
    }
    let boxed = error.downcast_ref::<Box<Status>>().map(|s| &**s);
    error.downcast_ref().or(boxed)
}

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("disk full")]
    struct Disk;

    #[derive(Debug, thiserror::Error)]
    #[error("write failed: {0}")]
    struct Repeats(#[source] Disk);

    #[derive(Debug, thiserror::Error)]
    #[error("could not persist 3 claims of pool a")]
    struct Ours(#[source] Repeats);

    #[test]
    fn a_cause_that_its_parent_prints_is_printed_once() {
        assert_eq!(
            ErrorChain(&Ours(Repeats(Disk))).to_string(),
            "could not persist 3 claims of pool a: write failed: disk full"
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("watch failed: {0}")]
    struct Watch(#[source] Box<kube::Error>);

    #[test]
    fn the_api_server_is_quoted_once_and_without_its_empty_fields() {
        let status = Status {
            message: "pods is forbidden".to_owned(),
            reason: "Forbidden".to_owned(),
            code: 403,
            ..Status::default()
        };
        let refused = || Box::new(kube::Error::Api(Box::new(status.clone())));
        let quoted = "pods is forbidden (403 Forbidden)";
        assert_eq!(ErrorChain(&*refused()).to_string(), quoted);
        let watch = Watch(refused());
        assert!(
            watch.to_string().contains("Status"),
            "else there is no need"
        );
        assert_eq!(
            ErrorChain(&watch).to_string(),
            format!("watch failed: {quoted}")
        );
    }

    #[test]
    fn an_error_without_a_cause_is_itself() {
        assert_eq!(ErrorChain(&Disk).to_string(), "disk full");
    }
}
