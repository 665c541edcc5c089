//! The sandboxes that let go of their addresses, on disk: a DEL that was answered is not forgotten
//! when the agent restarts before the addresses could be released.
//!
//! Owns: one small file an interface. Never does: decide what an entry means. Invariant: a file is
//! there, whole and synced, before [`Journal::write`] returns. A reboot of the node may take the
//! files with it: then `super::leaks` finds what is recorded for Pods that are gone.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ipam::name::{Nic, PodName, PoolName, Sandbox, Uid, stable_hash};
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use crate::pool_writer::Attachment;

/// End of an entry's name; what has another is not one.
const SUFFIX: &str = ".json";

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

/// The entries that are kept.
#[derive(Clone)]
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
}

impl Journal {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// All entries, for an agent that starts. One that cannot be read is reported and left where it
    /// is.
    ///
    /// Errors: the disk cannot be read.
    pub(super) fn entries(&self) -> io::Result<Vec<Entry>> {
        disk::kept(&*self.disk, SUFFIX, |name, error| {
            tracing::error!(name, %error, "entry of the journal can't be read; its addresses stay recorded");
        })
    }

    /// Keeps `entry` in place of what was kept for its interface.
    ///
    /// Errors: it is not kept.
    pub(super) async fn write(&self, entry: Entry) -> io::Result<()> {
        let content = serde_json::to_vec(&entry)?;
        self.disk.write(name(&entry.attachment()), content).await
    }

    /// Drops what is kept for an interface; nothing kept is no error.
    ///
    /// Errors: it may still be there.
    pub(super) async fn remove(&self, of: &Attachment) -> io::Result<()> {
        self.disk.remove(name(of)).await
    }
}

fn name(of: &Attachment) -> String {
    name_of(of, SUFFIX)
}

/// The name of an interface's file. A uid or an interface's name may have characters that no file
/// name has.
pub(super) fn name_of(of: &Attachment, suffix: &str) -> String {
    stable_hash(&format!("{} {}", of.uid, of.nic)) + suffix
}

#[cfg(test)]
mod tests {
    use super::super::disk::Folder;
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
        let folder = || Arc::new(Folder::beside(&dir.path().join("agent.sock")).unwrap());
        let journal = Journal::new(folder());
        journal.write(entry("a", &["s1"])).await.unwrap();
        journal.write(entry("a", &["s1", "s2"])).await.unwrap();
        let again = Journal::new(folder());
        assert_eq!(again.entries().unwrap(), [entry("a", &["s1", "s2"])]);
        again.remove(&entry("a", &[]).attachment()).await.unwrap();
        again.remove(&entry("a", &[]).attachment()).await.unwrap();
        assert!(again.entries().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_no_entry_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::beside(&dir.path().join("s")).unwrap());
        let journal = Journal::new(folder.clone());
        journal.write(entry("a", &["s1"])).await.unwrap();
        for name in ["y.json", "README"] {
            folder.write(name.to_owned(), b"{".to_vec()).await.unwrap();
        }
        assert_eq!(journal.entries().unwrap(), [entry("a", &["s1"])]);
        assert_eq!(folder.files("").unwrap().len(), 3, "nothing is removed");
    }
}
