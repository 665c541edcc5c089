//! What is kept of a failure: logs of components and Pods, and the objects as they are.
//!
//! Keeping logs must not hide the failure itself, so nothing here returns an error; what can't be
//! kept is said.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::progress::say;

/// Copies the components' logs of the cluster in `run` into the folder `to`, replacing it.
pub fn copy(run: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    if let Err(error) = copy_folder(&run.join("log"), to) {
        say(format_args!("cannot keep all logs: {error:#}"));
    }
}

/// Copies a folder and what is below it, links followed.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make folder {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("no folder {}", from.display()))?;
    for entry in entries.flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &to)?;
        } else {
            fs::copy(&path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
