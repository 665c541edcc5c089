//! What a person sees: lines that stay, and below them, on a terminal, a table that lives.
//!
//! Owns: the bytes that go to standard output. In a pipe there are lines only.

use std::io::{self, IsTerminal as _, Write as _};

use tokio::time::Instant;

/// Columns of a terminal that doesn't say.
const COLUMNS: usize = 100;
/// Most lines of the table: the story above must stay in sight.
const TABLE_MAX: usize = 16;

/// Standard output.
pub(super) struct Screen {
    live: bool,
    start: Instant,
    table: Vec<String>,
}

impl Screen {
    /// Standard output, with times since `start`.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            live: io::stdout().is_terminal(),
            start,
            table: Vec::new(),
        }
    }

    /// A heading.
    pub(super) fn title(&mut self, text: &str) -> io::Result<()> {
        let text = if self.live {
            format!("\n\x1b[1m{text}\x1b[0m")
        } else {
            format!("\n{text}")
        };
        self.print(&text)
    }

    /// A line with the time before it.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        let seconds = self.start.elapsed().as_secs_f32();
        self.print(&format!("{seconds:5.1} s  {text}"))
    }

    /// Text as it is.
    pub(super) fn print(&mut self, text: &str) -> io::Result<()> {
        let mut bytes = self.erased();
        bytes.push_str(text);
        bytes.push('\n');
        self.draw(&mut bytes);
        write(&bytes)
    }

    /// Puts `rows` in the place of the table.
    pub(super) fn show(&mut self, mut rows: Vec<String>) -> io::Result<()> {
        if !self.live || rows == self.table {
            return Ok(());
        }
        if rows.len() > TABLE_MAX {
            rows.truncate(TABLE_MAX - 1);
            rows.push("…".to_owned());
        }
        let mut bytes = self.erased();
        self.table = rows;
        self.draw(&mut bytes);
        write(&bytes)
    }

    /// Prints `rows` as lines that stay: in a pipe, where no table lives.
    pub(super) fn keep(&mut self, rows: &[String]) -> io::Result<()> {
        if self.live {
            return Ok(());
        }
        for row in rows {
            self.print(&format!("         {row}"))?;
        }
        Ok(())
    }

    /// What takes the table off a terminal: to its first line, and everything below away.
    fn erased(&self) -> String {
        match self.table.len() {
            0 => String::new(),
            lines => format!("\x1b[{}A\r\x1b[J", lines + 1),
        }
    }

    fn draw(&self, bytes: &mut String) {
        if self.table.is_empty() {
            return;
        }
        // A row that wraps would make two lines, and the next table would begin too low.
        let width = columns();
        bytes.push('\n');
        for row in &self.table {
            bytes.extend(row.chars().take(width.saturating_sub(1)));
            bytes.push('\n');
        }
    }
}

fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { COLUMNS } else { columns }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
