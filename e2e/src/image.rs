//! Container images without a builder: one layer, as a docker archive.
//!
//! The same files give the same bytes (no times, no owners), so an image can be told by a digest.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::command::{program, run};
use crate::digest::sha256;

/// The image for Pods of scenarios. Its tag is no `latest`, which a kubelet would want to pull.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";
/// The same under the name that the examples use.
const BUSYBOX_LATEST: &str = "docker.io/library/busybox:latest";
/// The image that holds a Pod's namespaces.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";

/// An image to be: a name and what is in it.
#[derive(Clone, Debug)]
pub struct Image {
    names: Vec<String>,
    entries: Vec<Entry>,
    command: Vec<String>,
    entrypoint: Vec<String>,
}

#[derive(Clone, Debug)]
enum Entry {
    Folder { path: String, mode: u32 },
    File { path: String, source: PathBuf },
    Link { path: String, to: String },
}

impl Image {
    /// An empty image.
    pub fn new(name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            entries: Vec::new(),
            command: Vec::new(),
            entrypoint: Vec::new(),
        }
    }

    /// With one more name.
    #[must_use]
    pub fn also_named(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// With a folder; parents come first.
    #[must_use]
    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        self.entries.push(Entry::Folder {
            path: path.to_owned(),
            mode,
        });
        self
    }

    /// With a program, copied from the host.
    #[must_use]
    pub fn program(mut self, path: &str, source: &Path) -> Self {
        self.entries.push(Entry::File {
            path: path.to_owned(),
            source: source.to_owned(),
        });
        self
    }

    /// With a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, to: &str) -> Self {
        self.entries.push(Entry::Link {
            path: path.to_owned(),
            to: to.to_owned(),
        });
        self
    }

    /// With arguments that a Pod's own replace.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// With a program that a Pod's arguments go to.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Writes the archive and returns the image's digest.
    pub fn write(&self, out: &Path) -> Result<String> {
        let layer = self.layer()?;
        let digest = sha256([layer.as_slice()]);
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Cmd": self.command, "Entrypoint": self.entrypoint, "Env": ["PATH=/usr/bin:/bin"],
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
            "history": [{}],
        })
        .to_string();
        let id = sha256([config.as_bytes()]);
        let manifest = json!([{
            "Config": format!("{id}.json"),
            "RepoTags": self.names,
            "Layers": [format!("{digest}/layer.tar")],
        }])
        .to_string();
        let file = File::create(out);
        let file = file.with_context(|| format!("cannot write image {}", out.display()))?;
        let mut archive = Builder::new(file);
        let parts: [(String, &[u8]); 3] = [
            (format!("{id}.json"), config.as_bytes()),
            (format!("{digest}/layer.tar"), &layer),
            ("manifest.json".to_owned(), manifest.as_bytes()),
        ];
        for (path, bytes) in parts {
            append(&mut archive, &path, EntryType::Regular, 0o644, bytes)?;
        }
        archive
            .into_inner()
            .context("cannot finish the image's archive")?;
        Ok(format!("sha256:{id}"))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        for entry in &self.entries {
            match entry {
                Entry::Folder { path, mode } => {
                    append(&mut layer, path, EntryType::Directory, *mode, &[])?;
                }
                Entry::File { path, source } => {
                    let bytes = fs::read(source);
                    let bytes = bytes.with_context(|| format!("no {}", source.display()))?;
                    append(&mut layer, path, EntryType::Regular, 0o755, &bytes)?;
                }
                Entry::Link { path, to } => {
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    layer
                        .append_link(&mut header, path, to)
                        .with_context(|| format!("cannot put link {path} into the image"))?;
                }
            }
        }
        layer
            .into_inner()
            .context("cannot finish the image's layer")
    }
}

/// Debian's static busybox with a link for each of its programs.
pub fn busybox() -> Result<Image> {
    let busybox = Path::new("/bin/busybox");
    let mut image = Image::new(BUSYBOX)
        .folder("bin", 0o755)
        .folder("etc", 0o755);
    image = image
        .also_named(BUSYBOX_LATEST)
        .folder("tmp", 0o1777)
        .program("bin/busybox", busybox)
        .command(&["sh"]);
    let names = run(&mut program(busybox, ["--list"]))?;
    for name in names.lines().filter(|name| *name != "busybox") {
        image = image.link(&format!("bin/{name}"), "busybox");
    }
    Ok(image)
}

/// An image that does nothing, for ever.
pub fn pause() -> Image {
    Image::new(PAUSE)
        .folder("bin", 0o755)
        .program("bin/sleep", Path::new("/bin/busybox"))
        .command(&["/bin/sleep", "infinity"])
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, bytes.len());
    archive
        .append_data(&mut header, path, bytes)
        .with_context(|| format!("cannot put {path} into the image"))
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(size).unwrap_or(u64::MAX));
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_image_and_its_layer_holds_them() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("tool");
        fs::write(&source, "binary").unwrap();
        let image = Image::new("docker.io/x/y:1")
            .folder("usr", 0o755)
            .program("usr/tool", &source)
            .link("usr/t", "tool");
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        assert_eq!(image.write(&a).unwrap(), image.write(&b).unwrap());
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
        let layer = image.layer().unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let paths: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().into_owned())
            .collect();
        assert_eq!(paths, ["usr/", "usr/tool", "usr/t"].map(PathBuf::from));
    }
}
