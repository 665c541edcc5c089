//! Running other programs: their output on success, all one needs to know on failure.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};

/// How much of a failed program's output an error carries.
const TOLD_OF_OUTPUT: usize = 4_000;

/// Runs a program to its end and returns what it wrote to standard output.
///
/// Errors carry the command line, the exit status and what it wrote to standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command_output(command.stdin(Stdio::null()), None)?;
    text_of(command, output)
}

/// [`run`], with `input` on the program's standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let output = command_output(command.stdin(Stdio::piped()), Some(input))?;
    text_of(command, output)
}

/// Whether a program ends well; why not is of no interest.
pub fn succeeds(command: &mut Command) -> bool {
    run(command).is_ok()
}

/// Opens a log file to append to.
pub fn append(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open log {}", log.display()))
}

/// A program with arguments, as one writes it in one expression.
pub fn program<'a>(name: impl AsRef<Path>, args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(name.as_ref());
    command.args(args);
    command
}

/// The command line, for a person.
pub fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn command_output(command: &mut Command, input: Option<&[u8]>) -> Result<Output> {
    let failed = |what: &str, command: &Command| format!("cannot {what} {}", line_of(command));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| failed("start", command))?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // A program that ends without reading its input says why by its status.
        scope.spawn(|| {
            stdin
                .zip(input)
                .map(|(mut stdin, input)| stdin.write_all(input))
        });
        child.wait_with_output()
    });
    output.with_context(|| failed("wait for", command))
}

fn text_of(command: &Command, output: Output) -> Result<String> {
    if !output.status.success() {
        bail!("{}: {}: {}", line_of(command), output.status, told(&output));
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} wrote something that is not UTF-8", line_of(command)))
}

/// The end of what a failed program wrote: standard error, or else standard output.
fn told(output: &Output) -> String {
    let spoken = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let text = String::from_utf8_lossy(spoken);
    let text = text.trim_end();
    let cut = text.len().saturating_sub(TOLD_OF_OUTPUT);
    let cut = (cut..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(cut);
    text.get(cut..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_command_and_its_last_words() {
        let error = run(&mut program("sh", ["-c", "echo out; echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("sh -c "), "{text}");
        assert!(text.ends_with("exit status: 3: why"), "{text}");
    }

    #[test]
    fn input_reaches_the_program_and_its_output_comes_back() {
        let big = vec![b'x'; 300_000];
        let out = run_with_input(&mut program("cat", []), &big).unwrap();
        assert_eq!(out.len(), big.len());
    }
}
