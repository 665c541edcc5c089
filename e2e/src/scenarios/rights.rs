//! What the product's accounts may do: exactly what is written down in `e2e/golden`. A run of all
//! scenarios fails on a right that none of them made use of, by the API server's audit logs of the
//! clusters they ran on, unless it is said here what it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::paths::Paths;
use crate::product::{self, ACCOUNTS, NAMESPACE};

/// What Kubernetes lets every account ask about itself.
const OF_EVERYBODY: [&str; 4] = [
    "selfsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectreviews.authentication.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
    "subjectaccessreviews",
];
/// Rights that are needed without a call of their own, or by one that no scenario brings about for
/// sure.
const WITHOUT_CALL: [(&str, &str); 8] = [
    (
        "update spidersubnets.spiderpool.spidernet.io/finalizers",
        "asked for by the API server's plugin OwnerReferencesPermissionEnforcement, which runs here",
    ),
    (
        "create validatingwebhookconfigurations.admissionregistration.k8s.io",
        "asked for where a server-side apply, which is logged as a patch, makes the object",
    ),
    (
        "create mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "the same",
    ),
    (
        "get spidersubnets.spiderpool.spidernet.io",
        "after a write that lost a race of which the watch has not told yet",
    ),
    (
        "list nodes",
        "for a record of the original's whose Pod is gone and whose endpoint is lost",
    ),
    (
        "patch events.events.k8s.io",
        "where an Event is told again within minutes; whether one is depends on the runtime's tries",
    ),
    (
        "list virtualmachines.kubevirt.io",
        "once a minute while a machine that has addresses is stopped: it may not be for as long here",
    ),
    ("list virtualmachineinstances.kubevirt.io", "the same"),
];

/// Rights by account, as `verb resource.group/subresource`.
pub type Rights = BTreeMap<String, BTreeSet<String>>;

/// Compares what each account may do with what is written down.
pub fn run(cluster: &Cluster) -> Result<()> {
    let mut other = Vec::new();
    for (name, user) in ACCOUNTS.into_iter().zip(product::accounts()) {
        let account = format!("--as={user}");
        let args = [
            "auth",
            "can-i",
            "--list",
            &account,
            "--namespace",
            NAMESPACE,
        ];
        let may = sorted(&cluster.kubectl().run(&args)?);
        let file = golden(cluster.paths(), name);
        let known = fs::read_to_string(&file).unwrap_or_default();
        if may != known {
            other.push(write_down(cluster.paths(), name, &may)?);
        }
    }
    ensure!(
        other.is_empty(),
        "accounts may do other things than is written down: if that is meant, {}",
        other.join("; ")
    );
    Ok(())
}

/// Fails if an account may do what no call made use of.
pub fn ensure_used(paths: &Paths, used: &Rights) -> Result<()> {
    let mut idle = Vec::new();
    for (name, user) in ACCOUNTS.into_iter().zip(product::accounts()) {
        let file = golden(paths, name);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let made = used.get(&user).cloned().unwrap_or_default();
        let left = idle_of(&text, &made);
        idle.extend(left.iter().map(|right| format!("{name}: {right}")));
    }
    ensure!(
        idle.is_empty(),
        "granted, and no scenario made use of it: {}; take it from the chart, or say in \
         e2e/src/scenarios/rights.rs what it is for",
        idle.join("; ")
    );
    Ok(())
}

/// What of a list by `kubectl` no call made use of, but for what is needed without one.
fn idle_of(list: &str, used: &BTreeSet<String>) -> Vec<String> {
    let granted = granted(list);
    let idle = granted.difference(used);
    let idle = idle.filter(|right| WITHOUT_CALL.iter().all(|(known, _)| known != right));
    idle.cloned().collect()
}

/// Puts what an account may do beside the logs; how to have that from now on.
fn write_down(paths: &Paths, account: &str, may: &str) -> Result<String> {
    let now = paths.failure(&format!("{account}.rights"));
    if let Some(folder) = now.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(&now, may).with_context(|| format!("cannot write {}", now.display()))?;
    let (now, file) = (now.display(), golden(paths, account));
    Ok(format!("copy {now} to {}", file.display()))
}

fn golden(paths: &Paths, account: &str) -> PathBuf {
    paths.source().join(format!("e2e/golden/{account}.rights"))
}

/// The lines in an order that does not depend on the roles'.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    if let Some((_, rest)) = lines.split_first_mut() {
        rest.sort_unstable();
    }
    lines.join("\n") + "\n"
}

/// The rights that `kubectl auth can-i --list` tells of, but for those that everybody has.
fn granted(text: &str) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    for line in text.lines().skip(1) {
        let resource = line.split_whitespace().next().unwrap_or_default();
        let verbs = line
            .rsplit_once('[')
            .map(|(_, verbs)| verbs.trim_end_matches(']'));
        // Without a resource it is about URLs, and begins with a bracket.
        if resource.starts_with('[') || OF_EVERYBODY.contains(&resource) {
            continue;
        }
        let verbs = verbs.unwrap_or_default().split_whitespace();
        rights.extend(verbs.map(|verb| format!("{verb} {}", as_logged(resource))));
    }
    rights
}

/// `kubectl` has a subresource before the group, we after it.
fn as_logged(resource: &str) -> String {
    match resource.split_once('.') {
        Some((name, group)) => match name.split_once('/') {
            Some((name, sub)) => format!("{name}.{group}/{sub}"),
            None => resource.to_owned(),
        },
        None => resource.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
Resources                  Non-Resource URLs   Resource Names   Verbs
pools.a.example/status     []                  []               [update]
pods                       []                  []               [get list]
selfsubjectreviews.authentication.k8s.io   []  []               [create]
                           [/healthz]          []               [get]
leases.b.example           []                  [mine]           [get update]
";

    #[test]
    fn rights_are_read_from_what_kubectl_lists_without_urls_and_what_everybody_has() {
        let expected = [
            "get leases.b.example",
            "get pods",
            "list pods",
            "update leases.b.example",
            "update pools.a.example/status",
        ];
        assert_eq!(Vec::from_iter(granted(LIST)), expected);
    }

    #[test]
    fn what_no_call_made_use_of_is_idle_unless_it_is_needed_without_one() {
        let list = format!("{LIST}nodes   []   []   [get list]\n");
        let used = ["get leases.b.example", "get pods", "list pods", "get nodes"];
        let used = used.map(str::to_owned).into();
        let idle = ["update leases.b.example", "update pools.a.example/status"];
        assert_eq!(idle_of(&list, &used), idle);
    }

    #[test]
    fn lines_are_sorted_below_their_head() {
        let text = "Head\nb  \na\n";
        assert_eq!(sorted(text), "Head\na\nb\n");
    }
}
