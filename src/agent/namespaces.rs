//! The network namespaces in which interfaces were given addresses, on disk: an agent that starts anew
//! knows, too, that the sandbox of a Pod which is gone may still stand.
//!
//! Owns: one small file an interface, as long as one of its namespaces is there. Never does: release
//! anything, or matter to a DEL. A Pod that is deleted by force is gone at once, and its containers
//! run as long as its grace period, or for ever where they can't be killed; their DEL comes after
//! that. Until then nobody else may have the address, whatever the Pod's absence seems to say.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ipam::name::{Nic, Uid};
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use super::{journal, locked};
use crate::pool_writer::Attachment;

/// End of a note's name; what has another is none.
const SUFFIX: &str = ".netns";

/// What is kept of an interface.
#[derive(Serialize, Deserialize)]
struct Note {
    uid: Uid,
    nic: Nic,
    paths: BTreeSet<PathBuf>,
}

/// The namespaces that are noted.
pub(super) struct Namespaces {
    disk: Arc<dyn Disk>,
    noted: Mutex<BTreeMap<Attachment, BTreeSet<PathBuf>>>,
    /// Files are changed one after the other, so that the last change is of what is noted then.
    order: tokio::sync::Mutex<()>,
}

impl Namespaces {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            noted: Mutex::default(),
            order: tokio::sync::Mutex::default(),
        }
    }

    /// Takes up what an earlier agent noted.
    ///
    /// Errors: the disk cannot be read.
    pub(super) fn replay(&self) -> io::Result<()> {
        // One that can't be read was being written, and its call was not answered.
        let notes: Vec<Note> = disk::kept(&*self.disk, SUFFIX, |name, error| {
            tracing::warn!(name, %error, "note of a network namespace can't be read");
        })?;
        let mut known = locked(&self.noted);
        for Note { uid, nic, paths } in notes {
            known
                .entry(Attachment { uid, nic })
                .or_default()
                .extend(paths);
        }
        Ok(())
    }

    /// Notes that the interface is given addresses in this namespace.
    pub(super) async fn note(&self, of: &Attachment, path: &Path) {
        if !is_visible(path) {
            return;
        }
        let is_new = {
            let mut noted = locked(&self.noted);
            let paths = noted.entry(of.clone()).or_default();
            paths.insert(path.to_owned())
        };
        if is_new && let Err(error) = self.write(of).await {
            tracing::warn!(uid = %of.uid, nic = %of.nic, %error, "network namespace not noted: after a restart the agent will not know of it");
        }
    }

    /// Whether a namespace of such an interface is there.
    pub(super) async fn is_any_there(&self, wanted: impl Fn(&Attachment) -> bool) -> bool {
        let paths = self.paths(wanted);
        !paths.is_empty() && !self.disk.present(paths).await.is_empty()
    }

    /// Forgets those that are gone.
    pub(super) async fn prune(&self) {
        let all = self.paths(|_| true);
        if all.is_empty() {
            return;
        }
        let there = self.disk.present(all.clone()).await;
        let gone: BTreeSet<PathBuf> = all.difference(&there).cloned().collect();
        for of in self.forget(&gone) {
            if let Err(error) = self.write(&of).await {
                tracing::warn!(uid = %of.uid, nic = %of.nic, %error, "note of a network namespace stays");
            }
        }
    }

    /// Forgets these paths; the interfaces that have none left.
    fn forget(&self, gone: &BTreeSet<PathBuf>) -> Vec<Attachment> {
        let mut without = Vec::new();
        locked(&self.noted).retain(|of, paths| {
            paths.retain(|path| !gone.contains(path));
            if paths.is_empty() {
                without.push(of.clone());
            }
            !paths.is_empty()
        });
        without
    }

    fn paths(&self, wanted: impl Fn(&Attachment) -> bool) -> BTreeSet<PathBuf> {
        let noted = locked(&self.noted);
        let of_wanted = noted.iter().filter(|(of, _)| wanted(of));
        of_wanted.flat_map(|(_, paths)| paths).cloned().collect()
    }

    /// Makes the interface's file say what is noted.
    async fn write(&self, of: &Attachment) -> io::Result<()> {
        let _turn = self.order.lock().await;
        let name = journal::name_of(of, SUFFIX);
        let Some(paths) = locked(&self.noted).get(of).cloned() else {
            return self.disk.remove(name).await;
        };
        let note = Note {
            uid: of.uid.clone(),
            nic: of.nic.clone(),
            paths,
        };
        self.disk.note(name, serde_json::to_vec(&note)?).await
    }
}

/// False for a path below `/proc`, which says nothing: the agent sees processes of its own.
pub(super) fn is_visible(path: &Path) -> bool {
    path.is_absolute() && !path.starts_with("/proc")
}

#[cfg(test)]
mod tests {
    use super::super::disk::Folder;
    use super::*;

    #[tokio::test]
    async fn what_was_noted_is_known_after_a_restart_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::beside(&dir.path().join("agent.sock")).unwrap());
        let of = Attachment {
            uid: Uid::from("u"),
            nic: Nic::from("eth0"),
        };
        let is_it = |other: &Attachment| *other == of;
        let [first, second] = ["a", "b"].map(|name| dir.path().join(name));
        let namespaces = Namespaces::new(folder.clone());
        for path in [&first, &second] {
            std::fs::write(path, "").unwrap();
            namespaces.note(&of, path).await;
        }
        namespaces.note(&of, Path::new("/proc/1/ns/net")).await;
        namespaces.note(&of, Path::new("")).await;
        assert_eq!(folder.files("").unwrap().len(), 1);
        let again = Namespaces::new(folder.clone());
        again.replay().unwrap();
        assert!(again.is_any_there(is_it).await && !again.is_any_there(|_| false).await);
        std::fs::remove_file(&first).unwrap();
        again.prune().await;
        assert!(again.is_any_there(is_it).await, "one is left");
        std::fs::remove_file(&second).unwrap();
        assert!(!again.is_any_there(is_it).await);
        again.prune().await;
        assert!(folder.files("").unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_note_that_was_cut_short_stops_no_agent() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::beside(&dir.path().join("agent.sock")).unwrap());
        folder
            .note("x.netns".to_owned(), b"{".to_vec())
            .await
            .unwrap();
        let namespaces = Namespaces::new(folder);
        namespaces.replay().unwrap();
        assert!(!namespaces.is_any_there(|_| true).await);
    }
}
