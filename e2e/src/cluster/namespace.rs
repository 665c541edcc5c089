//! A namespace for one scenario, gone afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Cluster;
use crate::wait::eventually;

impl Cluster {
    /// Runs `work` in a fresh namespace of this name and deletes the namespace afterwards.
    ///
    /// A namespace of a failed scenario stays, so that its logs can be kept; it is deleted by the
    /// next use of its name. Errors: those of `work`, or the namespace does not end.
    pub fn with_namespace<T>(&self, name: &str, work: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        self.delete_namespace(name)?;
        self.kubectl().run(&["create", "namespace", name])?;
        // Without its account no Pod is admitted.
        eventually(
            Duration::from_secs(30),
            &format!("namespace {name} has its account"),
            || {
                self.kubectl()
                    .run(&["-n", name, "get", "serviceaccount", "default"])
            },
        )?;
        let value = work(name)?;
        self.delete_namespace(name).map(|()| value)
    }

    fn delete_namespace(&self, name: &str) -> Result<()> {
        let delete = [
            "delete",
            "namespace",
            name,
            "--ignore-not-found",
            "--timeout=300s",
        ];
        self.kubectl()
            .run(&delete)
            .with_context(|| format!("namespace {name} does not end"))?;
        Ok(())
    }
}
