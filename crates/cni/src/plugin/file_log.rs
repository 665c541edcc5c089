//! A log file of bounded size that many processes append to at once.
//!
//! Owns the file and its one predecessor, `<file>.1`. It never fails a call: a
//! line that cannot be written is lost.
//!
//! Invariants: a line is one `write` to a file opened for appending, so lines
//! of different processes do not mix; both files together stay below twice the
//! limit, but for the lines of the calls under way.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

use super::config::{LogConfig, LogLevel};
use super::log::LogSink;

/// Longest line in bytes; a reply with thousands of pools is cut.
const LINE_MAX: usize = 8 << 10;

/// Appends to a file.
#[derive(Debug)]
pub(super) struct FileLog {
    /// `None` when it could not be opened.
    file: Option<File>,
}

impl FileLog {
    /// Opens the file, after putting one that is full aside. Makes its
    /// directory if need be.
    pub(super) fn open(config: &LogConfig) -> Self {
        Self {
            file: open_rotated(&config.path, config.max_bytes),
        }
    }
}

fn open(path: &Path) -> Option<File> {
    // Pool names and addresses are nobody's business but the operator's.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .ok()
}

fn open_rotated(path: &Path, max_bytes: u64) -> Option<File> {
    let file = open(path).or_else(|| {
        fs::create_dir_all(path.parent()?).ok()?;
        open(path)
    })?;
    let seen = file.metadata().ok()?;
    // The log may be pointed at a device, which must not be renamed.
    if !seen.is_file() || seen.len() < max_bytes {
        return Some(file);
    }
    // One process puts the file aside. Whoever comes second no longer holds the
    // file that has the name, and leaves the new one alone.
    if file.try_lock().is_err() {
        return Some(file);
    }
    let named = fs::metadata(path).ok()?;
    if (named.dev(), named.ino()) == (seen.dev(), seen.ino()) {
        fs::rename(path, predecessor(path)).ok()?;
    }
    open(path)
}

fn predecessor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

impl LogSink for FileLog {
    fn write(&mut self, level: LogLevel, text: &str) {
        if let Some(file) = &mut self.file {
            let now = DateTime::<Utc>::from(SystemTime::now());
            // A log that cannot be written must not fail the call.
            let _ = file.write_all(line(now, level, text).as_bytes());
        }
    }
}

/// One line: control characters escaped, too long a text cut.
fn line(now: DateTime<Utc>, level: LogLevel, text: &str) -> String {
    let now = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut line = format!("{now} {} ", level.as_str());
    for c in text.chars() {
        if line.len() > LINE_MAX {
            line += " ...";
            break;
        }
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, max_bytes: u64) -> LogConfig {
        LogConfig {
            path: dir.join("deep/a.log"),
            level: LogLevel::Info,
            max_bytes,
        }
    }

    #[test]
    fn a_line_has_time_and_level_and_stays_a_line() {
        let now = DateTime::<Utc>::from_timestamp_millis(1_795_368_215_123).unwrap();
        assert_eq!(
            line(now, LogLevel::Warn, "one\ntwo"),
            "2026-11-22T17:23:35.123Z WARN one\\ntwo\n"
        );
        assert!(line(now, LogLevel::Info, &"x".repeat(1 << 20)).len() < LINE_MAX + 100);
    }

    #[test]
    fn a_full_file_is_put_aside_once_and_nothing_grows_beyond_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 200);
        for n in 0..100 {
            FileLog::open(&config).write(LogLevel::Info, &format!("line {n}"));
        }
        let mut sizes: Vec<_> = fs::read_dir(config.path.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| {
                (
                    e.file_name().into_string().unwrap(),
                    e.metadata().unwrap().len(),
                )
            })
            .collect();
        sizes.sort();
        assert_eq!(
            sizes.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(),
            ["a.log", "a.log.1"]
        );
        assert!(sizes.iter().all(|s| s.1 < 300), "{sizes:?}");
        assert!(
            fs::read_to_string(&config.path)
                .unwrap()
                .contains("line 99")
        );
    }

    #[test]
    fn a_file_another_process_is_putting_aside_is_still_written() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 1);
        FileLog::open(&config).write(LogLevel::Info, "first");
        let other = File::open(&config.path).unwrap();
        other.lock().unwrap();
        FileLog::open(&config).write(LogLevel::Info, "second");
        let text = fs::read_to_string(&config.path).unwrap();
        assert!(text.contains("first") && text.contains("second"), "{text}");
    }

    #[test]
    fn a_path_that_cannot_be_written_drops_lines() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        let config = LogConfig {
            path: blocked.join("a.log"),
            ..config(dir.path(), 1)
        };
        let mut log = FileLog::open(&config);
        assert!(log.file.is_none());
        log.write(LogLevel::Error, "lost");
        let device = LogConfig {
            path: "/dev/null".into(),
            ..config
        };
        FileLog::open(&device).write(LogLevel::Error, "lost, too");
    }
}
