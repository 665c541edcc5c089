//! Where the harness keeps things: the cache of binaries, the cluster's state, the logs of failures.
//!
//! Everything lives below one cache folder, but for the logs of failed scenarios, which go into
//! the source tree (ignored by git) so that a person finds them beside the code.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Folders that every node has a version of its own of; the cache may not be inside one of them.
pub const NODE_OWN: [&str; 4] = ["etc", "opt", "run", "var"];

/// The folders the harness works in.
#[derive(Clone, Debug)]
pub struct Paths {
    cache: PathBuf,
    source: PathBuf,
}

impl Paths {
    /// Finds the folders from the environment: `$XDG_CACHE_HOME`, else `$HOME/.cache`.
    ///
    /// Errors: neither variable is set, or the cache would be hidden from the nodes.
    pub fn find() -> Result<Self> {
        let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let base = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(home)
            .context("no cache folder: set XDG_CACHE_HOME or HOME")?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let paths = Self {
            cache: base.join("orbweaver"),
            source: source.context("the harness has no source tree")?.to_owned(),
        };
        paths.ensure_visible_to_nodes()?;
        Ok(paths)
    }

    /// A node mounts its own `/etc`, `/opt`, `/run` and `/var`; below them it would not find us.
    fn ensure_visible_to_nodes(&self) -> Result<()> {
        for hidden in NODE_OWN {
            let hidden = Path::new("/").join(hidden);
            ensure!(
                !self.cache.starts_with(&hidden),
                "cache {} lies in {}, which each node has its own of: set XDG_CACHE_HOME to a \
                 folder elsewhere",
                self.cache.display(),
                hidden.display(),
            );
        }
        Ok(())
    }

    /// The cache folder itself.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The project's source tree.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Binaries of Kubernetes, etcd and helm.
    pub fn tools_bin(&self) -> PathBuf {
        self.cache.join("tools/bin")
    }

    /// What each set of binaries was built from.
    pub fn tools_stamps(&self) -> PathBuf {
        self.cache.join("tools/stamps")
    }

    /// State of the one cluster; there is nothing in it once the cluster is down.
    pub fn cluster(&self) -> PathBuf {
        self.cache.join("cluster")
    }

    /// Held by whoever uses the cluster.
    pub fn lock(&self) -> PathBuf {
        self.cache.join("cluster.lock")
    }

    /// What the guardian of the cluster had to say; it outlives the cluster's own folder.
    pub fn guard_log(&self) -> PathBuf {
        self.cache.join("cluster.guard.log")
    }

    /// Logs kept of a failed scenario.
    pub fn failure(&self, scenario: &str) -> PathBuf {
        self.source.join("e2e/.run").join(scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(cache: &str) -> Paths {
        Paths {
            cache: cache.into(),
            source: "/src".into(),
        }
    }

    #[test]
    fn a_cache_that_nodes_cannot_see_is_refused() {
        let error = paths("/var/lib/ci/orbweaver")
            .ensure_visible_to_nodes()
            .unwrap_err();
        assert!(error.to_string().contains("set XDG_CACHE_HOME"), "{error}");
        assert!(
            paths("/variable/orbweaver")
                .ensure_visible_to_nodes()
                .is_ok()
        );
    }
}
