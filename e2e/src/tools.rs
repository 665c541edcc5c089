//! The cluster's own binaries: built once from the Go modules of `e2e/tools`, then cached.
//!
//! A stamp beside the binaries holds a digest of what they were built from (`go.mod`, `go.sum`,
//! the build's flags); while it matches, nothing is built and the Go toolchain is not needed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{program, run, succeeds};
use crate::digest::sha256;
use crate::paths::Paths;
use crate::progress::{long, say};

/// The Kubernetes that scenarios run on.
pub const KUBERNETES: &str = "v1.34.4";

/// Version data that the Kubernetes binaries report; without it kubelet and API server disagree
/// about who is newer.
const KUBERNETES_LDFLAGS: &str = "-s -w \
    -X k8s.io/component-base/version.gitVersion=v1.34.4 \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=34";

/// A Go module of ours whose only purpose is to pin the tools it names.
struct Module {
    folder: &'static str,
    ldflags: &'static str,
    /// Name of a binary, and the package it is built from.
    binaries: &'static [(&'static str, &'static str)],
    /// What to expect of a first build on two cores, for the person who waits.
    takes: &'static str,
}

const MODULES: [Module; 3] = [
    Module {
        folder: "kubernetes",
        ldflags: KUBERNETES_LDFLAGS,
        binaries: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            (
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
        takes: "6 minutes",
    },
    Module {
        folder: "etcd",
        ldflags: "-s -w",
        binaries: &[("etcd", "go.etcd.io/etcd/server/v3")],
        takes: "1 minute",
    },
    Module {
        folder: "helm",
        ldflags: "-s -w",
        binaries: &[("helm", "helm.sh/helm/v3/cmd/helm")],
        takes: "1 minute",
    },
];

/// Binaries that are there and match the modules.
#[derive(Clone, Debug)]
pub struct Tools {
    bin: PathBuf,
}

impl Tools {
    /// Builds what is missing or out of date; one builder at a time.
    ///
    /// Errors: no Go toolchain although something must be built, or a failed build.
    pub fn ensure(paths: &Paths) -> Result<Self> {
        let tools = Self {
            bin: paths.tools_bin(),
        };
        for folder in [tools.bin.clone(), paths.tools_stamps()] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make folder {}", folder.display()))?;
        }
        let lock = File::create(paths.tools_stamps().join("lock"));
        lock.and_then(|lock| lock.lock().map(|()| lock))
            .context("cannot lock the tools' folder")?;
        for module in &MODULES {
            module.ensure(&tools.bin, paths)?;
        }
        Ok(tools)
    }

    /// The path of a binary.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

impl Module {
    fn ensure(&self, bin: &Path, paths: &Paths) -> Result<()> {
        let source = paths.source().join("e2e/tools").join(self.folder);
        let stamp = paths.tools_stamps().join(self.folder);
        let wanted = self.digest(&source)?;
        let have_all = self
            .binaries
            .iter()
            .all(|(name, _)| bin.join(name).is_file());
        if have_all && fs::read_to_string(&stamp).is_ok_and(|have| have.trim() == wanted) {
            return Ok(());
        }
        self.build(&source, bin)?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
    }

    /// What the binaries depend on, in 64 hexadecimal digits.
    fn digest(&self, source: &Path) -> Result<String> {
        let read = |name: &str| {
            let file = source.join(name);
            fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        let (module, sums) = (read("go.mod")?, read("go.sum")?);
        Ok(sha256([
            module.as_slice(),
            sums.as_slice(),
            self.ldflags.as_bytes(),
        ]))
    }

    fn build(&self, source: &Path, bin: &Path) -> Result<()> {
        if !succeeds(&mut program("go", ["version"])) {
            anyhow::bail!(
                "the cluster's {} must be built, and there is no Go toolchain: install Go 1.26 or \
                 newer (https://go.dev/dl)",
                self.folder
            );
        }
        say(format_args!(
            "building {} from its Go module, once; the first time takes about {} on two cores",
            self.folder, self.takes
        ));
        for (name, package) in self.binaries {
            let part = bin.join(format!("{name}.part"));
            let mut go = Command::new("go");
            go.current_dir(source).env("CGO_ENABLED", "0");
            go.args(["build", "-ldflags", self.ldflags, "-o"])
                .arg(&part)
                .arg(package);
            long(&format!("building {name}"), || run(&mut go))?;
            fs::rename(&part, bin.join(name)).with_context(|| format!("cannot install {name}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_changes_with_the_sums_and_the_flags_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("go.mod"), "module m").unwrap();
        fs::write(folder.path().join("go.sum"), "a").unwrap();
        let [kubernetes, etcd, helm] = &MODULES;
        let before = etcd.digest(folder.path()).unwrap();
        assert_eq!(before, helm.digest(folder.path()).unwrap());
        assert_ne!(before, kubernetes.digest(folder.path()).unwrap());
        fs::write(folder.path().join("go.sum"), "b").unwrap();
        assert_ne!(before, etcd.digest(folder.path()).unwrap());
    }

    #[test]
    fn the_version_that_binaries_report_is_the_one_of_the_module() {
        let module = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/kubernetes/go.mod");
        let text = fs::read_to_string(module).unwrap();
        assert!(text.contains(&format!("k8s.io/kubernetes {KUBERNETES}")));
        assert!(KUBERNETES_LDFLAGS.contains(&format!("gitVersion={KUBERNETES} ")));
    }
}
