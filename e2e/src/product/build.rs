//! The product's container image: both programs, linked statically, in one layer.
//!
//! Needs the Rust that is there anyway, no container builder and no network. The same sources give
//! the same programs and the same image.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::run;
use crate::image::Image;
use crate::paths::Paths;
use crate::progress::long;

/// The image's name; the chart's default with the chart's default tag.
pub const IMAGE: &str = concat!("docker.io/orbweaver/orbweaver:", env!("CARGO_PKG_VERSION"));

/// What the programs are built for: the one platform that Debian's Rust and ours have in common.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// A program that needs no library of the image, nor of a node's root file system.
const STATIC: &str =
    "target.x86_64-unknown-linux-gnu.rustflags=[\"-C\", \"target-feature=+crt-static\"]";

/// How programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Optimised, with checks of arithmetic and assertions: for scenarios.
    Checked,
    /// As shipped: for measurements and for everybody's cluster.
    Release,
}

impl Profile {
    /// Cargo's name for it, which is its folder's too.
    fn name(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Release => "release",
        }
    }
}

/// The product's programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Controller, agent and tools.
    pub orbweaver: PathBuf,
    /// The CNI plugin.
    pub spiderpool: PathBuf,
}

impl Programs {
    /// Builds both; quick where nothing changed.
    pub fn build(paths: &Paths, profile: Profile) -> Result<Self> {
        // Without the demo, which no cluster runs: it would bring a Kubernetes of its own along.
        let what = "--bins --package orbweaver --package orbweaver-cni --no-default-features";
        let folder = long("building the product's programs", || {
            cargo_build(paths, profile, what)
        })?;
        let built = |name: &str| {
            let program = folder.join(name);
            ensure!(program.exists(), "cargo made no {}", program.display());
            Ok(program)
        };
        Ok(Self {
            orbweaver: built("orbweaver")?,
            spiderpool: built("spiderpool")?,
        })
    }

    /// Packs them into an image archive and returns the image's digest.
    pub fn pack(&self, out: &Path) -> Result<String> {
        let image = Image::new(IMAGE)
            .folder("usr", 0o755)
            .folder("usr/bin", 0o755)
            .program("usr/bin/orbweaver", &self.orbweaver)
            .program("usr/bin/spiderpool", &self.spiderpool)
            .entrypoint(&["/usr/bin/orbweaver"]);
        image
            .write(out)
            .with_context(|| format!("cannot pack image {}", out.display()))
    }
}

/// Makes the image as shipped, as the archive `out`, and returns its digest.
pub fn build_image(paths: &Paths, out: &Path) -> Result<String> {
    Programs::build(paths, Profile::Release)?.pack(out)
}

/// Builds `what`, cargo's words for it, with the flags of the product; returns the folder it is in.
pub fn cargo_build(paths: &Paths, profile: Profile, what: &str) -> Result<PathBuf> {
    let profile = profile.name();
    let folder = target_folder(paths);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(paths.source())
        .env("CARGO_TARGET_DIR", &folder);
    // Flags meant for the harness itself would take the place of ours.
    cargo
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
        .args(["build", "--locked", "--profile", profile])
        .args(["--target", TARGET, "--config", STATIC])
        .args(what.split(' '));
    run(&mut cargo)?;
    Ok(folder.join(TARGET).join(profile))
}

/// A folder beside the ordinary builds: theirs have other flags, and would be built anew each time.
fn target_folder(paths: &Paths) -> PathBuf {
    let own = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    own.unwrap_or_else(|| paths.cache().join("target-static"))
}
