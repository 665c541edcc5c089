//! What a call leaves in the log.
//!
//! Owns levels and the context every line carries. Where lines go is a
//! [`LogSink`]; [`super::file_log`] is the one that writes files.

use std::cell::RefCell;
use std::fmt::Display;

use super::config::LogLevel;

/// Takes log lines.
pub trait LogSink {
    /// Writes one line. Must neither fail nor wait for long.
    fn write(&mut self, level: LogLevel, text: &str);
}

/// A sink that drops everything.
impl LogSink for () {
    fn write(&mut self, _: LogLevel, _: &str) {}
}

/// The log of one call.
pub(super) struct Log {
    level: LogLevel,
    /// What the call is about; stands before every message.
    context: String,
    sink: RefCell<Box<dyn LogSink>>,
}

impl Log {
    pub(super) fn new(level: LogLevel, context: String, sink: Box<dyn LogSink>) -> Self {
        Self {
            level,
            context,
            sink: RefCell::new(sink),
        }
    }

    pub(super) fn error(&self, message: impl Display) {
        self.write(LogLevel::Error, message);
    }

    pub(super) fn warn(&self, message: impl Display) {
        self.write(LogLevel::Warn, message);
    }

    pub(super) fn info(&self, message: impl Display) {
        self.write(LogLevel::Info, message);
    }

    pub(super) fn debug(&self, message: impl Display) {
        self.write(LogLevel::Debug, message);
    }

    fn write(&self, level: LogLevel, message: impl Display) {
        if level <= self.level {
            self.sink
                .borrow_mut()
                .write(level, &format!("{}: {message}", self.context));
        }
    }
}
