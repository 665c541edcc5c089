//! `orbweaver install-cni`: a file on the host, replaced in one step.
//!
//! The runtime may execute the plugin at any moment, so the new file is complete before it takes
//! the old one's name; a plugin that runs keeps the file it was started from.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to install; links are followed.
    #[arg(long)]
    from: PathBuf,
    /// The folder on the host; made if it is missing.
    #[arg(long)]
    to: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { from, to } = arguments;
    let name = from
        .file_name()
        .with_context(|| format!("--from {} names no file", from.display()))?;
    let unreadable = || format!("{} can't be read", from.display());
    let content = fs::read(from).with_context(unreadable)?;
    let mode = mode_of(&fs::metadata(from).with_context(unreadable)?);
    let target = to.join(name);
    if is_installed(&target, &content, mode) {
        tracing::info!(file = %target.display(), "already installed");
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("folder {} can't be made", to.display()))?;
    // Hidden and without an ending, so that no runtime takes it for a configuration.
    let part = to.join(format!(".{}.part", name.to_string_lossy()));
    replace(&part, &target, &content, mode).with_context(|| {
        format!(
            "{} can't be installed: is the folder mounted read-only?",
            target.display()
        )
    })?;
    tracing::info!(file = %target.display(), bytes = content.len(), "installed");
    Ok(())
}

/// A program stays one that all may run; anything else is for reading.
fn mode_of(source: &Metadata) -> u32 {
    if source.permissions().mode() & 0o111 == 0 {
        0o644
    } else {
        0o755
    }
}

fn is_installed(target: &Path, content: &[u8], mode: u32) -> bool {
    let same_mode = fs::metadata(target).is_ok_and(|m| m.permissions().mode() & 0o777 == mode);
    same_mode && fs::read(target).is_ok_and(|old| old == content)
}

fn replace(part: &Path, target: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::create(part)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(part, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("plugin"), dir.path().join("bin"));
        for content in ["one", "two", "two"] {
            fs::write(&from, content).unwrap();
            run(&Arguments {
                from: from.clone(),
                to: to.clone(),
            })
            .unwrap();
            assert_eq!(fs::read_to_string(to.join("plugin")).unwrap(), content);
        }
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }

    #[test]
    fn a_program_can_be_run_and_a_configuration_is_only_read() {
        let dir = tempfile::tempdir().unwrap();
        for (name, given, kept) in [("plugin", 0o700, 0o755), ("10-net.conflist", 0o600, 0o644)] {
            let (from, to) = (dir.path().join(name), dir.path().join("host"));
            fs::write(&from, name).unwrap();
            fs::set_permissions(&from, Permissions::from_mode(given)).unwrap();
            run(&Arguments {
                from,
                to: to.clone(),
            })
            .unwrap();
            assert_eq!(
                fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777,
                kept
            );
        }
    }

    #[test]
    fn a_missing_source_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = Arguments {
            from: dir.path().join("none"),
            to: dir.path().to_owned(),
        };
        assert!(run(&arguments).unwrap_err().to_string().contains("none"));
    }
}
