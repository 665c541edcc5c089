//! Control groups: each node's containers live below one of our own, so that nothing else is
//! touched and the removal is complete.
//!
//! A node sees its group as the root of each hierarchy: its first process joins the group, takes a
//! control group namespace there, and mounts it over the host's. Both versions are served.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::{program, run};
use crate::wait::patiently;

/// The group that holds all others.
pub const GROUP: &str = "orbweaver-e2e";

/// The group below a node's own in which containerd puts its containers.
const CONTAINERS: &str = "k8s.io";

/// How the weight of a group for processors is called, and the most that a group may have, in both
/// versions. A process that is in no group weighs 1024 or 100.
const WEIGHTS: [(&str, &str); 2] = [("cpu.shares", "262144"), ("cpu.weight", "10000")];

/// Settings of a cpuset; as long as they are empty, no process may enter the group.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Names a group's controllers; only the second version has it.
const CONTROLLERS: &str = "cgroup.controllers";

/// Makes a node's group in every hierarchy; one that is there is made anew, as after a power cut.
pub fn make(node: &str) -> Result<()> {
    remove(node)?;
    for hierarchy in hierarchies() {
        let group = hierarchy.join(GROUP);
        let mut folders = vec![group.clone(), group.join(node)];
        // In the second version the node's processes could not join a group that has one below it;
        // there the containers weigh as much as all of those together.
        if !hierarchy.join(CONTROLLERS).exists() {
            folders.push(group.join(node).join(CONTAINERS));
        }
        for folder in &folders {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make control group {}", folder.display()))?;
            inherit_cpuset(folder)?;
            inherit_controllers(folder)?;
            outweigh(folder)?;
        }
    }
    Ok(())
}

/// Puts the calling process into a node's group, for the namespace that it takes next.
pub fn join(node: &str) -> Result<()> {
    hierarchies()
        .iter()
        .try_for_each(|hierarchy| move_into(&hierarchy.join(GROUP).join(node)))
}

/// Inside a node that joined: mounts its group over the root of each hierarchy.
pub fn enter(node: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(GROUP).join(node);
        let (group, root) = (group.to_string_lossy(), hierarchy.to_string_lossy());
        run(&mut program("mount", ["--bind", &group, &root]))?;
        // In the second version a group with processes may not hand controllers on.
        if hierarchy.join(CONTROLLERS).exists() {
            let own = hierarchy.join("init");
            fs::create_dir_all(&own).context("cannot make the first process' control group")?;
            move_into(&own)?;
        }
    }
    Ok(())
}

/// Removes a node's group in every hierarchy.
pub fn remove(node: &str) -> Result<()> {
    let groups = hierarchies()
        .into_iter()
        .map(|hierarchy| hierarchy.join(GROUP).join(node));
    groups
        .filter(|group| group.is_dir())
        .try_for_each(|group| remove_below(&group))
}

/// Removes the groups of all nodes, and the one that holds them.
pub fn remove_all() -> Result<()> {
    left().iter().try_for_each(|group| remove_below(group))
}

/// The group that holds all others, in each hierarchy that has it.
pub fn left() -> Vec<PathBuf> {
    let groups = hierarchies()
        .into_iter()
        .map(|hierarchy| hierarchy.join(GROUP));
    groups.filter(|group| group.is_dir()).collect()
}

/// Where hierarchies are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<PathBuf> = mounts.lines().filter_map(hierarchy).collect();
    found.sort();
    found.dedup();
    found
}

fn hierarchy(mount: &str) -> Option<PathBuf> {
    let mut fields = mount.split(' ').skip(1);
    let (at, kind) = (fields.next()?, fields.next()?);
    let ours = matches!(kind, "cgroup" | "cgroup2") && at.starts_with("/sys/fs/cgroup");
    ours.then(|| PathBuf::from(at))
}

/// In the first version, a new cpuset has no processors until told so.
fn inherit_cpuset(folder: &Path) -> Result<()> {
    let Some(parent) = folder
        .parent()
        .filter(|_| folder.join("cgroup.clone_children").exists())
    else {
        return Ok(());
    };
    for name in CPUSET.iter().filter(|name| folder.join(name).exists()) {
        let (from, to) = (parent.join(name), folder.join(name));
        let value = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        fs::write(&to, value).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

/// Gives a group as large a weight as there is. A group competes as one with each process beside it:
/// the control plane's many, which are in no group, would leave a node next to nothing, and so would
/// containerd its containers.
fn outweigh(group: &Path) -> Result<()> {
    let settings = WEIGHTS.iter().map(|(name, most)| (group.join(name), most));
    for (setting, most) in settings.filter(|(setting, _)| setting.exists()) {
        fs::write(&setting, most).with_context(|| format!("cannot write {}", setting.display()))?;
    }
    Ok(())
}

/// In the second version, a group has the controllers that its parent hands on.
fn inherit_controllers(folder: &Path) -> Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    let controllers = fs::read_to_string(parent.join(CONTROLLERS)).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let handed_on = parent.join("cgroup.subtree_control");
        fs::write(&handed_on, format!("+{controller}"))
            .with_context(|| format!("cannot add {controller} to {}", handed_on.display()))?;
    }
    Ok(())
}

fn move_into(group: &Path) -> Result<()> {
    let members = group.join("cgroup.procs");
    fs::write(&members, "0").with_context(|| format!("cannot join {}", members.display()))
}

/// An emptied group may take a moment to let go.
fn remove_below(group: &Path) -> Result<()> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for below in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&below.path())?;
    }
    patiently(|| fs::remove_dir(group))
        .with_context(|| format!("cannot remove control group {}", group.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_by_their_mounts() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0";
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0";
        let other = "tmpfs /sys/fs/cgroup tmpfs rw 0 0";
        assert_eq!(hierarchy(v1), Some("/sys/fs/cgroup/cpu".into()));
        assert_eq!(hierarchy(v2), Some("/sys/fs/cgroup".into()));
        assert_eq!(hierarchy(other), None);
    }
    #[test]
    fn a_group_gets_the_largest_weight_that_its_version_knows() {
        let group = tempfile::tempdir().unwrap();
        for (name, most) in WEIGHTS {
            let setting = group.path().join(name);
            fs::write(&setting, "1").unwrap();
            outweigh(group.path()).unwrap();
            assert_eq!(fs::read_to_string(&setting).unwrap(), most);
            fs::remove_file(setting).unwrap();
        }
        outweigh(group.path()).unwrap();
        assert_eq!(fs::read_dir(group.path()).unwrap().count(), 0);
    }
}
