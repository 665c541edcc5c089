//! What the harness needs of this machine: rights, kernel features, Debian packages, settings.
//!
//! Packages are the one thing it installs, aloud, and only as root. Kernel settings that a kubelet
//! changes for the whole machine are put back afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::command::{program, run, succeeds};
use crate::progress::{long, say};

/// A Debian package, and a file that shows that what it brings is there.
const PACKAGES: [(&str, &str); 9] = [
    ("containerd", "usr/bin/containerd"),
    ("runc", "usr/sbin/runc"),
    ("containernetworking-plugins", "usr/lib/cni/macvlan"),
    ("busybox-static", "bin/busybox"),
    ("iproute2", "sbin/ip"),
    ("iptables", "usr/sbin/iptables"),
    ("conntrack", "usr/sbin/conntrack"),
    ("procps", "bin/ps"),
    ("openssl", "usr/bin/openssl"),
];

/// Settings of the whole machine that a kubelet changes when it starts.
const KERNEL_SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Why no cluster can run on this machine at all; `None` if one can.
pub fn missing_capability() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root: a node needs namespaces, mounts and cgroups".to_owned());
    }
    // In a network namespace that ends with the command.
    let try_it =
        "ip link add name br type bridge && ip link add link br name mac type macvlan mode bridge";
    if !Path::new("/sbin/ip").exists() {
        return None; // Known after the packages are installed, which needs root only.
    }
    let tried = run(&mut program(
        "unshare",
        ["--net", "--mount", "sh", "-c", try_it],
    ));
    tried
        .err()
        .map(|error| format!("no namespaces or no macvlan in this kernel: {error:#}"))
}

/// Installs the Debian packages that are missing, saying so.
pub fn ensure_packages() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, file)| !Path::new("/").join(file).exists())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return ensure_busybox_is_static();
    }
    let names = missing.join(" ");
    if !succeeds(&mut program("apt-get", ["--version"])) {
        bail!("missing on this machine, and there is no apt-get to install it: {names}");
    }
    say(format_args!("installing Debian packages: {names}"));
    let apt = |args: &[&str]| {
        let mut command = program("apt-get", args.iter().copied());
        run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    long("apt-get", || {
        apt(&["update", "-qq"])?;
        apt(&[
            &["install", "-y", "-qq", "--no-install-recommends"],
            missing.as_slice(),
        ]
        .concat())
    })
    .with_context(|| format!("cannot install {names}"))?;
    ensure_busybox_is_static()
}

/// In an image of its own a dynamically linked busybox would not start.
fn ensure_busybox_is_static() -> Result<()> {
    let busybox = fs::read("/bin/busybox").context("cannot read /bin/busybox")?;
    match wants_interpreter(&busybox) {
        Some(false) => Ok(()),
        Some(true) => bail!("/bin/busybox is dynamically linked: install busybox-static"),
        None => bail!("/bin/busybox is not a 64-bit ELF file: install busybox-static"),
    }
}

/// Whether a 64-bit little-endian ELF file names an interpreter (a dynamic linker).
fn wants_interpreter(elf: &[u8]) -> Option<bool> {
    /// The type of a program header that names the interpreter.
    const INTERPRETER: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    // The table's offset has eight bytes; a file of 4 GiB is none of ours.
    let table = usize::try_from(word(0x20)?).ok()?;
    let (size, count) = (usize::from(half(0x36)?), usize::from(half(0x38)?));
    let types = (0..count).map(|nth| word(table + nth * size));
    types
        .collect::<Option<Vec<_>>>()
        .map(|types| types.contains(&INTERPRETER))
}

/// Values of the machine's settings that kubelets change, to be put back later.
pub fn kernel_settings() -> BTreeMap<String, String> {
    let read = |name: &str| Some((name.to_owned(), fs::read_to_string(setting(name)).ok()?));
    KERNEL_SETTINGS
        .iter()
        .filter_map(|name| read(name))
        .collect()
}

/// Puts settings back; those that can't be written stay as they are.
pub fn restore_kernel_settings(settings: &BTreeMap<String, String>) {
    for (name, value) in settings {
        let is = fs::read_to_string(setting(name));
        if is.is_ok_and(|is| is != *value)
            && let Err(error) = fs::write(setting(name), value)
        {
            say(format_args!(
                "cannot put kernel setting {name} back to {}: {error}",
                value.trim()
            ));
        }
    }
}

fn setting(name: &str) -> std::path::PathBuf {
    Path::new("/proc/sys").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamically_linked_program_is_told_from_other_files() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(wants_interpreter(&own), Some(true));
        assert_eq!(wants_interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(wants_interpreter(own.get(..0x39).unwrap()), None);
    }
}
