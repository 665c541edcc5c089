//! The sandboxes that let go of their addresses, on disk: a DEL that was answered is not forgotten
//! when the agent restarts before the addresses could be released.
//!
//! Owns: a directory beside the socket with one small file an interface. Never does: decide what an
//! entry means. Invariant: a file is there, whole and synced, before [`Journal::write`] returns.
//! A reboot of the node may take the directory with it: then `super::leaks` finds what is recorded
//! for Pods that are gone.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ipam::name::{Nic, PodName, PoolName, Sandbox, Uid, stable_hash};
use serde::{Deserialize, Serialize};

use super::turn::Attachment;

/// Suffix of an entry; what has another is not one.
const SUFFIX: &str = "json";
/// Suffix of an entry that is being written.
const UNFINISHED: &str = "new";

/// The sandboxes of one interface that let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) pod: PodName,
    pub(super) uid: Uid,
    pub(super) nic: Nic,
    /// The Pod's `StatefulSet`, where the Pod was there to tell at the DEL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<Uid>,
    /// In the order of their DELs.
    pub(super) sandboxes: Vec<Sandbox>,
    /// Their network namespaces that were there at the last DEL.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) namespaces: BTreeSet<PathBuf>,
    /// The pools that may hold a record, where that was known at the DEL: then no other can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pools: Option<BTreeSet<PoolName>>,
}

impl Entry {
    /// An interface of which no sandbox let go yet.
    pub(super) fn new(pod: &PodName, of: &Attachment) -> Self {
        Self {
            pod: pod.clone(),
            uid: of.uid.clone(),
            nic: of.nic.clone(),
            owner: None,
            sandboxes: Vec::new(),
            namespaces: BTreeSet::new(),
            pools: None,
        }
    }

    /// The interface.
    pub(super) fn attachment(&self) -> Attachment {
        Attachment {
            uid: self.uid.clone(),
            nic: self.nic.clone(),
        }
    }
}

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    dir: PathBuf,
}

impl Journal {
    /// The journal of the agent that listens on `socket`, made if it is not there.
    ///
    /// Errors: the directory cannot be made.
    pub(super) fn beside(socket: &Path) -> io::Result<Self> {
        let mut dir = socket.as_os_str().to_owned();
        dir.push(".released");
        let dir = PathBuf::from(dir);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    /// All entries, for an agent that starts. One that cannot be read is reported and left where it
    /// is; writes that were cut short are removed.
    ///
    /// Errors: the directory cannot be read.
    pub(super) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            let suffix = path.extension().and_then(OsStr::to_str);
            if suffix == Some(UNFINISHED) {
                fs::remove_file(&path)?;
            }
            if suffix != Some(SUFFIX) {
                continue;
            }
            let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
            match read {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    let path = path.display();
                    tracing::error!(%path, %error, "entry of the journal can't be read; its addresses stay recorded");
                }
            }
        }
        Ok(entries)
    }

    /// Keeps `entry` in place of what was kept for its interface.
    ///
    /// Errors: it is not kept.
    pub(super) async fn write(&self, entry: Entry) -> io::Result<()> {
        let (dir, path) = (self.dir.clone(), self.path(&entry.attachment()));
        blocking(move || {
            let whole = path.with_extension(UNFINISHED);
            let mut file = File::create(&whole)?;
            file.write_all(&serde_json::to_vec(&entry)?)?;
            file.sync_all()?;
            fs::rename(&whole, &path)?;
            File::open(&dir)?.sync_all()
        })
        .await
    }

    /// Drops what is kept for an interface; nothing kept is no error.
    ///
    /// Errors: it may still be there.
    pub(super) async fn remove(&self, of: &Attachment) -> io::Result<()> {
        let path = self.path(of);
        blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
        .await
    }

    /// A uid or an interface's name may have characters that no file name has.
    fn path(&self, of: &Attachment) -> PathBuf {
        let name = stable_hash(&format!("{} {}", of.uid, of.nic));
        self.dir.join(name).with_extension(SUFFIX)
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uid: &str, sandboxes: &[&str]) -> Entry {
        let of = Attachment {
            uid: Uid::from(uid),
            nic: Nic::from("eth0/../x"),
        };
        Entry {
            owner: None,
            sandboxes: sandboxes.iter().map(|s| Sandbox::from(*s)).collect(),
            ..Entry::new(&PodName::new("shop", "web-0"), &of)
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read_after_a_restart_and_removed_once() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let journal = Journal::beside(&socket).unwrap();
        journal.write(entry("a", &["s1"])).await.unwrap();
        journal.write(entry("a", &["s1", "s2"])).await.unwrap();
        let again = Journal::beside(&socket).unwrap();
        assert_eq!(again.entries().unwrap(), [entry("a", &["s1", "s2"])]);
        again.remove(&entry("a", &[]).attachment()).await.unwrap();
        again.remove(&entry("a", &[]).attachment()).await.unwrap();
        assert!(again.entries().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_write_that_was_cut_short_goes_and_foreign_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::beside(&dir.path().join("s")).unwrap();
        fs::write(journal.dir.join("x.new"), "{").unwrap();
        fs::write(journal.dir.join("y.json"), "{").unwrap();
        journal.write(entry("a", &["s1"])).await.unwrap();
        fs::write(journal.dir.join("README"), "x").unwrap();
        assert_eq!(journal.entries().unwrap(), [entry("a", &["s1"])]);
        let left = fs::read_dir(&journal.dir).unwrap();
        assert_eq!(
            left.count(),
            3,
            "the entry, the unreadable one and the README"
        );
    }
}
