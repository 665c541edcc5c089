//! One line for a whole chain of causes.
//!
//! Owns: how an error is printed at the place that handles it. Never does: handle it. Our errors
//! never repeat their cause in their text; those of other crates often do, and then a plain walk
//! along the causes says everything twice.

use std::error::Error;
use std::fmt;

/// An error and its causes, joined by `: `, without those that the text so far says already.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !text.is_empty() && !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        Ok(())
    }
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

    #[test]
    fn an_error_without_a_cause_is_itself() {
        assert_eq!(ErrorChain(&Disk).to_string(), "disk full");
    }
}
