//! How an answer is printed: tables for people, JSON and YAML for programs.
//!
//! Owns: columns, widths and the formats. Never does: decide what is said. Invariants: text in a
//! pipe has one line a row, for `grep` and `awk`; only a terminal's is wrapped; what a program reads
//! has the same shape whatever a person asked for.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

/// Columns of text on a terminal.
const WIDTH: usize = 100;
/// Blanks between two columns of a table.
const GAP: usize = 3;
/// A last column narrower than this is not wrapped: it would be a word a line.
const WRAP_MIN: usize = 12;

/// What an answer is printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Tables and sentences.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// The flag for it.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Output {
    /// What to print.
    #[arg(
        long = "output",
        short = 'o',
        value_enum,
        default_value = "table",
        global = true
    )]
    format: Format,
}

/// An answer: data for programs, text for people.
pub(super) trait Report: Serialize {
    /// The text, wrapped to `width` columns where there is one; it ends with a line feed.
    fn text(&self, width: Option<usize>) -> String;
}

impl Output {
    /// Prints `report` to standard output. A reader that has gone is no error: it had enough.
    ///
    /// Errors: standard output can't be written.
    pub(super) fn print(self, report: &impl Report) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        let width = out.is_terminal().then_some(WIDTH);
        let text = formatted(report, self.format, width)?;
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result.context("standard output can't be written"),
        }
    }
}

/// The text of `report`.
pub(super) fn formatted(
    report: &impl Report,
    format: Format,
    width: Option<usize>,
) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table => report.text(width),
        Format::Json => serde_json::to_string_pretty(report)? + "\n",
        Format::Yaml => serde_saphyr::to_string(report)?,
    })
}

/// Rows of cells under a head of upper-case names, as `kubectl get` prints them.
#[derive(Debug)]
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|name| (*name).to_owned()).collect(),
            rows: vec![],
        }
    }

    /// Adds a row; an empty cell is printed as `-`, so that every row has as many words as cells.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = cells.into_iter().map(|cell| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        });
        self.rows.push(shown.collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table; only its last column is wrapped.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let last = self.head.len().saturating_sub(1);
        let wide = |column: usize| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..last).map(wide).collect();
        let start: usize = widths.iter().map(|width| width + GAP).sum();
        let room = width.map(|width| width.saturating_sub(start));
        let room = room.filter(|room| *room >= WRAP_MIN);
        let mut text = String::new();
        for line in lines() {
            for (cell, width) in line.iter().zip(&widths) {
                // Writing to a String cannot fail.
                let _ = write!(text, "{cell:<width$}{:GAP$}", "");
            }
            let end = line.get(last).map_or("", String::as_str);
            text.push_str(&wrapped(end, room, start));
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// Lines `NAME:  value`, the values under each other, as `kubectl describe` prints them.
pub(super) fn fields(fields: &[(&str, String)], width: Option<usize>) -> String {
    let shown = || fields.iter().filter(|(_, value)| !value.is_empty());
    let names = shown().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
    let start = names + GAP;
    let room = width.map(|width| width.saturating_sub(start));
    let mut text = String::new();
    for (name, value) in shown() {
        let value = wrapped(value, room, start);
        let _ = writeln!(text, "{:<start$}{value}", format!("{name}:"));
    }
    text
}

/// `sentence` as a paragraph that begins with `mark`.
pub(super) fn paragraph(mark: &str, sentence: &str, width: Option<usize>) -> String {
    let start = mark.chars().count();
    let room = width.map(|width| width.saturating_sub(start));
    format!("{mark}{}\n", wrapped(sentence, room, start))
}

/// `1 pool`, `2 pools`.
pub(super) fn counted(number: impl std::fmt::Display, noun: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `text` in lines of at most `room` characters, those after the first indented by `start`.
fn wrapped(text: &str, room: Option<usize>, start: usize) -> String {
    let Some(room) = room else {
        return text.to_owned();
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let used = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(line) if used == 0 => line.push_str(word),
            Some(line) if used + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{:start$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "USED", "WHY"]);
        let why = "one two three four five six seven eight nine ten";
        table.row(["web".into(), "3".into(), why.into()]);
        table.row(["a-longer-name".into(), String::new(), String::new()]);
        table
    }

    #[test]
    fn a_pipe_gets_a_line_a_row_and_a_terminal_a_wrapped_last_column() {
        let plain = "\
NAME            USED   WHY
web             3      one two three four five six seven eight nine ten
a-longer-name   -      -
";
        assert_eq!(table().text(None), plain);
        let narrow = "\
NAME            USED   WHY
web             3      one two three four five six
                       seven eight nine ten
a-longer-name   -      -
";
        assert_eq!(table().text(Some(50)), narrow);
        assert_eq!(
            table().text(Some(30)),
            plain,
            "too narrow to wrap: 7 columns are left"
        );
    }

    #[test]
    fn fields_without_a_value_are_left_out_and_the_others_stand_under_each_other() {
        let shown = [
            ("Pod", "shop/web-0".to_owned()),
            ("Node", String::new()),
            ("Sandbox", "3f".to_owned()),
        ];
        assert_eq!(
            fields(&shown, None),
            "Pod:       shop/web-0\nSandbox:   3f\n"
        );
    }

    #[test]
    fn a_word_longer_than_the_line_stays_whole() {
        assert_eq!(
            paragraph("- ", "a bbbbbbbbbb c", Some(6)),
            "- a\n  bbbbbbbbbb\n  c\n"
        );
    }
}
