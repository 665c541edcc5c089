//! The machine as the plugin sees it in production.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::config::LogConfig;
use super::error::{NetnsError, SegmentError};
use super::file_log::FileLog;
use super::link;
use super::{Host, LogSink, Segment};
use crate::transport::Errno;

/// A path that leads to a network namespace whenever `/proc` is mounted.
const OWN_NETNS: &str = "/proc/self/ns/net";

/// The real clock, namespaces and files.
#[derive(Debug, Clone, Copy)]
pub struct System {
    started: Instant,
}

impl System {
    /// Begins to count time.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for System {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, pause: Duration) {
        std::thread::sleep(pause);
    }

    /// The kernel keeps all namespaces in one internal file system, so
    /// whatever is on the device of our own namespace is one, too. (That it is
    /// one of the network kind shows when the delegating plugin enters it.)
    fn check_netns(&self, path: &Path) -> Result<(), NetnsError> {
        let seen = fs::metadata(path).map_err(|error| NetnsError::Unreadable {
            path: path.to_owned(),
            source: Errno::from(error),
        })?;
        match fs::metadata(OWN_NETNS) {
            Ok(own) if own.dev() != seen.dev() => Err(NetnsError::NotNetns {
                path: path.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn open_segment(&self, netns: &Path, nic: &str) -> Result<Box<dyn Segment>, SegmentError> {
        link::open(netns, nic)
    }

    fn open_log(&self, config: &LogConfig) -> Box<dyn LogSink> {
        Box::new(FileLog::open(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_passes_and_a_plain_file_does_not() {
        let system = System::new();
        system.check_netns(Path::new(OWN_NETNS)).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = system.check_netns(file.path()).unwrap_err();
        assert!(matches!(error, NetnsError::NotNetns { .. }), "{error:?}");
        let error = system.check_netns(Path::new("/none")).unwrap_err();
        assert!(matches!(error, NetnsError::Unreadable { .. }), "{error:?}");
    }
}
