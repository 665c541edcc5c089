//! `orbweaver crds`: the definitions of our kinds as files.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::api::crd;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folders to write a file a kind into; may be given more than once. Printed without it.
    #[arg(long = "dir")]
    dirs: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { dirs } = arguments;
    let files = files()?;
    if dirs.is_empty() {
        for (_, text) in &files {
            print(text)?;
        }
    }
    for dir in dirs {
        write(dir, &files)?;
    }
    Ok(())
}

/// Name and text of each file. Equal at every call.
fn files() -> anyhow::Result<Vec<(String, String)>> {
    crd::definitions()?
        .into_iter()
        .map(|definition| {
            let names = &definition.spec.names;
            let name = format!("{}_{}.yaml", definition.spec.group, names.plural);
            Ok((name, serde_saphyr::to_string(&definition)?))
        })
        .collect()
}

fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    write!(std::io::stdout(), "---\n{text}").context("standard output can't be written")
}

fn write(dir: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("folder {} can't be made", dir.display()))?;
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text)
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(())
}
