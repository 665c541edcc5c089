//! The node's disk, as far as the agent needs it: small files that outlive it, and whether a path
//! is there.
//!
//! Owns: that a file which is written is whole or not there. Never does: know what is in one; that is
//! [`super::journal`]'s and [`super::namespaces`]'. A trait, since a simulation has no disk, and a
//! crash of it loses no file.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

/// Suffix of a file that is being written.
const UNFINISHED: &str = "new";

/// A disk.
pub trait Disk: Send + Sync {
    /// Every file whose name ends so: its name, and its content unless that can't be read.
    ///
    /// Errors: nobody can tell what there is.
    fn files(&self, ending: &str) -> io::Result<Vec<(String, io::Result<Vec<u8>>)>>;

    /// Keeps `content` under `name`, whole and synced, in place of what was there.
    ///
    /// Errors: it is not kept.
    fn write(&self, name: String, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>>;

    /// Keeps `content` under `name` until the node reboots; a crash in the midst leaves a part of it.
    ///
    /// Errors: it may not be kept.
    fn note(&self, name: String, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>>;

    /// Drops a file; none of that name is no error.
    ///
    /// Errors: it may still be there.
    fn remove(&self, name: String) -> BoxFuture<'_, io::Result<()>>;

    /// Those of `paths` that are there, or of which that can't be told.
    fn present(&self, paths: BTreeSet<PathBuf>) -> BoxFuture<'_, BTreeSet<PathBuf>>;
}

/// What files whose names end so have kept, as JSON; one that can't be read is left where it is, and
/// `lost` is told of it.
///
/// Errors: nobody can tell what there is.
pub(super) fn kept<T: DeserializeOwned>(
    disk: &dyn Disk,
    ending: &str,
    lost: impl Fn(&str, &io::Error),
) -> io::Result<Vec<T>> {
    let mut all = Vec::new();
    for (name, content) in disk.files(ending)? {
        match content.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(one) => all.push(one),
            Err(error) => lost(&name, &error),
        }
    }
    Ok(all)
}

/// A folder of the real disk. Paths are those of its root.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// The folder of the agent that listens on `socket`, made if it is not there.
    ///
    /// Errors: it cannot be made.
    pub(super) fn beside(socket: &Path) -> io::Result<Self> {
        let mut dir = socket.as_os_str().to_owned();
        dir.push(".released");
        let dir = PathBuf::from(dir);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }
}

impl Disk for Folder {
    fn files(&self, ending: &str) -> io::Result<Vec<(String, io::Result<Vec<u8>>)>> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            let (path, name) = (file.path(), file.file_name().to_string_lossy().into_owned());
            if path.extension().is_some_and(|it| it == UNFINISHED) {
                fs::remove_file(&path)?; // cut short
            } else if name.ends_with(ending) {
                files.push((name, fs::read(&path)));
            }
        }
        Ok(files)
    }

    fn write(&self, name: String, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        let (dir, path) = (self.dir.clone(), self.dir.join(name));
        let work = move || {
            let whole = path.with_extension(UNFINISHED);
            let mut file = File::create(&whole)?;
            file.write_all(&content)?;
            file.sync_all()?;
            fs::rename(&whole, &path)?;
            File::open(&dir)?.sync_all()
        };
        blocking(work).boxed()
    }

    fn note(&self, name: String, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        let path = self.dir.join(name);
        blocking(move || fs::write(path, content)).boxed()
    }

    fn remove(&self, name: String) -> BoxFuture<'_, io::Result<()>> {
        let path = self.dir.join(name);
        let work = move || match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        blocking(work).boxed()
    }

    fn present(&self, paths: BTreeSet<PathBuf>) -> BoxFuture<'_, BTreeSet<PathBuf>> {
        let all = paths.clone();
        let is_there = |path: &PathBuf| path.try_exists().unwrap_or(true);
        let work = move || Ok(paths.into_iter().filter(is_there).collect());
        // Fails only while the agent stops.
        let present = async move { blocking(work).await.unwrap_or(all) };
        present.boxed()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_that_was_cut_short_goes_and_other_files_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::beside(&temp.path().join("s")).unwrap();
        fs::write(folder.dir.join("x.new"), "{").unwrap();
        fs::write(folder.dir.join("README"), "x").unwrap();
        folder.write("a.json".to_owned(), vec![1]).await.unwrap();
        folder.write("a.json".to_owned(), vec![2]).await.unwrap();
        let mut files: Vec<_> = folder.files("").unwrap().into_iter().collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let files = files.into_iter().map(|(name, file)| (name, file.unwrap()));
        let expected = [
            ("README".to_owned(), b"x".to_vec()),
            ("a.json".to_owned(), vec![2]),
        ];
        assert!(files.eq(expected));
        assert_eq!(fs::read_dir(&folder.dir).unwrap().count(), 2);
        for _ in 0..2 {
            folder.remove("a.json".to_owned()).await.unwrap();
        }
        assert_eq!(folder.files("").unwrap().len(), 1);
    }

    #[tokio::test]
    async fn paths_that_are_there_are_told_from_those_that_are_not() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::beside(&temp.path().join("s")).unwrap();
        let (here, gone) = (temp.path().to_owned(), temp.path().join("gone"));
        let present = folder.present([here.clone(), gone].into()).await;
        assert_eq!(present, [here].into());
    }
}
