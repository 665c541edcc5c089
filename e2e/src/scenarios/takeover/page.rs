//! `docs/takeover.md` as a script: its commands, taken from the page and run as they stand there.
//!
//! So the page can't tell of commands that nobody ran. Its folder has what the page speaks of: the
//! tools by their names, the chart, a file of values.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::command;
use crate::progress::say;

const PAGE: &str = "docs/takeover.md";
/// What begins and ends a block of commands.
const FENCE: &str = "```";

/// The page's blocks that were not run yet, and where they are run.
pub(super) struct Page<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    blocks: std::vec::IntoIter<Vec<String>>,
}

/// A command of the page, and what became of it.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) line: String,
    /// Its exit code.
    pub(super) code: i32,
    /// What it wrote, errors included.
    pub(super) text: String,
}

impl Said {
    /// Errors: it ended otherwise.
    pub(super) fn ensure_code(&self, code: i32) -> Result<&Self> {
        let Self {
            line,
            code: ended,
            text,
        } = self;
        ensure!(*ended == code, "{line}: ended with {ended}: {text}");
        Ok(self)
    }
}

impl<'a> Page<'a> {
    /// The page, and a new folder to run it in.
    pub(super) fn open(cluster: &'a Cluster, orbweaver: &Path, values: &Value) -> Result<Self> {
        let source = cluster.paths().source();
        let text = fs::read_to_string(source.join(PAGE)).context(PAGE)?;
        let folder = cluster.file("takeover");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).context("cannot make the page's folder")?;
        let links = [
            (cluster.tool("kubectl"), "bin/kubectl"),
            (cluster.tool("helm"), "bin/helm"),
            (orbweaver.to_owned(), "bin/orbweaver"),
            (source.join("helm"), "helm"),
        ];
        for (to, name) in links {
            symlink(to, folder.join(name)).with_context(|| format!("cannot link {name}"))?;
        }
        fs::write(folder.join("values.yaml"), values.to_string()).context("values.yaml")?;
        Ok(Self {
            cluster,
            folder,
            blocks: blocks(&text).into_iter(),
        })
    }

    /// Runs the page's next block, command by command. `starting` is how it begins, so that page and
    /// scenario can't run apart.
    pub(super) fn run(&mut self, starting: &str) -> Result<Vec<Said>> {
        let block = self.blocks.next().context("the page has no more blocks")?;
        let begins = block.first().is_some_and(|line| line.starts_with(starting));
        ensure!(begins, "the page has {block:?} and not {starting}");
        block.into_iter().map(|line| self.one(line)).collect()
    }

    /// Runs the page's next block, of which each command ends well.
    pub(super) fn succeeds(&mut self, starting: &str) -> Result<Vec<Said>> {
        let said = self.run(starting)?;
        said.iter()
            .try_for_each(|one| one.ensure_code(0).map(drop))?;
        Ok(said)
    }

    /// Runs a command of the page, or of its text.
    pub(super) fn one(&self, line: String) -> Result<Said> {
        say(format_args!("{line}"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .current_dir(&self.folder)
            .args(["-c", &format!("exec 2>&1; {line}")])
            .env(
                "PATH",
                format!("{}:{path}", self.folder.join("bin").display()),
            )
            .env("KUBECONFIG", self.cluster.kubectl().config())
            .envs(self.cluster.helm().folders());
        let output = shell.output();
        let output = output.with_context(|| format!("cannot run {}", command::line_of(&shell)))?;
        Ok(Said {
            line,
            code: output.status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
        })
    }

    /// A file that a command wrote.
    pub(super) fn file(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.folder.join(name)).with_context(|| name.to_owned())
    }

    /// Errors: there is a block that nobody ran.
    pub(super) fn ensure_ran(mut self) -> Result<()> {
        let left = self.blocks.next();
        ensure!(left.is_none(), "nobody ran {left:?}");
        Ok(())
    }
}

/// The commands of each block, a line each.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<String>> = None;
    for line in text.lines().map(str::trim) {
        match (&mut open, line.strip_prefix(FENCE)) {
            (None, Some(_)) => open = Some(Vec::new()),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.push(line.to_owned()),
            (None, None) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_their_indentation_taken_away() {
        let text = "1. a\n\n   ```sh\n   one --x\n   two\n   ```\n\n`no`\n```sh\nthree\n```\n";
        assert_eq!(blocks(text), [vec!["one --x", "two"], vec!["three"]]);
    }
}
