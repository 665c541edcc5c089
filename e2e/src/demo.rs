//! `make demo-cluster`: the product at work, as a person at a terminal sees it.
//!
//! Every line after a `$` is a command one can type, and what follows is what it printed. In
//! between nothing is done but waiting, which is said. It fails where something did not happen.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::paths::Paths;
use crate::product::addresses::told;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, events};
use crate::product::{self, Admission};
use crate::progress::{say, show};
use crate::wait::eventually;
use crate::workload::{SETTLE, gone, running};
use crate::{host, logs};

/// Where the demo's objects are, so that its commands are short.
const NAMESPACE: &str = "default";

/// Brings a cluster up, shows the product on it, and takes the cluster down.
///
/// A cluster that was kept is used and stays. Errors: this machine can't have one, or something did
/// not happen; then logs are kept.
pub fn run(paths: &Paths) -> Result<()> {
    let start = Instant::now();
    if let Some(why) = host::missing_capability() {
        anyhow::bail!("no cluster on this machine: {why}");
    }
    let cluster = Cluster::open(paths)?;
    let shown = product::ensure(&cluster, Admission::On)
        .and_then(|()| Demo { cluster: &cluster }.show_all());
    if let Err(error) = shown {
        let kept = paths.failure("demo");
        logs::keep(&cluster, &kept);
        return Err(error.context(format!("logs are in {}", kept.display())));
    }
    cluster.end()?;
    say(format_args!(
        "shown in {} s: a pool made by hand, a refusal with its reason, a pool that followed its \
         Deployment from 3 addresses to 11, to 4, and out",
        start.elapsed().as_secs()
    ));
    Ok(())
}

struct Demo<'a> {
    cluster: &'a Cluster,
}

impl Demo<'_> {
    fn show_all(&self) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        Books::read(kubectl)?
            .ensure_empty()
            .context("something was here before: `e2e down` ends a cluster that was kept")?;
        self.cluster_and_product()?;
        self.pool_by_hand()?;
        self.refusal()?;
        self.pool_of_its_own()?;
        self.following()?;
        self.the_end()
    }

    fn cluster_and_product(&self) -> Result<()> {
        title("A real Kubernetes of two nodes, with Orbweaver installed by helm");
        self.kubectl(&["get", "nodes"])?;
        self.kubectl(&["get", "pods", "--namespace", product::NAMESPACE])
    }

    fn pool_by_hand(&self) -> Result<()> {
        title("A pool made by hand: four addresses for Pods with the label app=static");
        self.kubectl(&["apply", "-f", "examples/static-pool.yaml"])?;
        self.wait_for_pods("static", 2)?;
        self.kubectl(&["get", "pods", "-l", "app=static", "-o", "wide"])?;
        self.kubectl(&["get", "spiderippool"])
    }

    fn refusal(&self) -> Result<()> {
        title("A Deployment that names this pool and is not the one it is for");
        self.kubectl(&["apply", "-f", "examples/static-pool-refused.yaml"])?;
        waiting("one of its Pods is told why it has no address");
        let refused = eventually(SETTLE, "a Pod is refused", || self.refused_pod())?;
        self.kubectl(&["get", "pods", "-l", "app=wrong"])?;
        self.kubectl(&[
            "events",
            "--for",
            &format!("pod/{refused}"),
            "--types",
            "Warning",
        ])?;
        let files = [
            "-f",
            "examples/static-pool.yaml",
            "-f",
            "examples/static-pool-refused.yaml",
        ];
        self.kubectl(&[&["delete"][..], &files].concat())
    }

    fn pool_of_its_own(&self) -> Result<()> {
        title("A Deployment annotated with a SpiderSubnet gets a pool of its own");
        self.kubectl(&[
            "apply",
            "-f",
            "examples/subnets.yaml",
            "-f",
            "examples/auto-pool.yaml",
        ])?;
        let pods = self.wait_for_pods("web", 2)?;
        self.wait_for_pool(3)?;
        self.kubectl(&["get", "spiderippool"])?;
        let pool = Pool::of_deployment(self.cluster.kubectl(), NAMESPACE, "web")?.name;
        self.kubectl(&["get", "spiderippool", &pool, "-o", "jsonpath={.spec.ips}"])?;
        let selector = "jsonpath={.spec.podAffinity.matchLabels}";
        self.kubectl(&["get", "spiderippool", &pool, "-o", selector])?;
        self.kubectl(&["get", "pods", "-l", "app=web", "-o", "wide"])?;
        let [from, to] = pods.as_slice() else {
            anyhow::bail!("{} Pods", pods.len());
        };
        ensure!(from.node != to.node, "both Pods are on {}", from.node);
        self.kubectl(&[
            "exec",
            &from.name,
            "--",
            "ping",
            "-c",
            "2",
            &to.ip()?.to_string(),
        ])
    }

    fn following(&self) -> Result<()> {
        title("The pool follows the Deployment: always one address more than replicas");
        for (replicas, size) in [(10, 11), (3, 4)] {
            let wanted = format!("--replicas={replicas}");
            self.kubectl(&["scale", "deployment", "web", &wanted])?;
            self.wait_for_pods("web", replicas)?;
            self.wait_for_pool(size)?;
            self.kubectl(&["get", "spiderippool"])?;
        }
        self.kubectl(&["get", "pods", "-l", "app=web", "-o", "wide"])?;
        self.kubectl(&["events", "--for", "deployment/web"])
    }

    fn the_end(&self) -> Result<()> {
        title("The pool goes with the Deployment, and its addresses return to the subnet");
        self.kubectl(&["delete", "deployment", "web"])?;
        waiting("its Pods and its pool are gone");
        let kubectl = self.cluster.kubectl();
        gone(kubectl, NAMESPACE, "web")?;
        eventually(SETTLE, "no pool", || {
            let pools = Pool::all(kubectl)?;
            ensure!(pools.is_empty(), "{} pools", pools.len());
            Books::read(kubectl)?.ensure_agree()
        })?;
        self.kubectl(&["get", "spiderippool"])?;
        self.kubectl(&["get", "spidersubnet"])?;
        self.kubectl(&["delete", "-f", "examples/subnets.yaml"])?;
        eventually(SETTLE, "nothing is left", || {
            Books::read(kubectl)?.ensure_empty()
        })?;
        show("");
        Ok(())
    }

    /// Runs `kubectl` in the source tree, and shows the command and all that it prints.
    fn kubectl(&self, words: &[&str]) -> Result<()> {
        let line = line(words);
        show(format_args!("\n$ {line}"));
        let mut command = self.cluster.kubectl().command(words);
        command
            .current_dir(self.cluster.paths().source())
            .stdin(Stdio::null());
        let output = command
            .output()
            .with_context(|| format!("cannot run {line}"))?;
        for printed in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(printed);
            if !text.trim().is_empty() {
                show(text.trim_end());
            }
        }
        ensure!(output.status.success(), "{line}: {}", output.status);
        Ok(())
    }

    fn wait_for_pods(&self, app: &str, count: usize) -> Result<Vec<Pod>> {
        waiting(&format!("{count} Pods of {app} run"));
        running(self.cluster.kubectl(), NAMESPACE, app, count)
    }

    fn wait_for_pool(&self, size: usize) -> Result<()> {
        waiting(&format!("the pool has {size} addresses"));
        eventually(SETTLE, &format!("a pool of {size}"), || {
            let pool = Pool::of_deployment(self.cluster.kubectl(), NAMESPACE, "web")?;
            ensure!(
                pool.addresses.len() == size,
                "it has {}",
                told(&pool.addresses)
            );
            Books::read(self.cluster.kubectl())?.ensure_agree()
        })
    }

    /// The name of a Pod that was told why it gets no address.
    fn refused_pod(&self) -> Result<String> {
        let kubectl = self.cluster.kubectl();
        for pod in Pod::of_app(kubectl, NAMESPACE, "wrong")? {
            if !events(kubectl, NAMESPACE, &pod.name, "FailedCreatePodSandBox")?.is_empty() {
                return Ok(pod.name);
            }
        }
        anyhow::bail!("no Pod is told yet")
    }
}

fn title(text: &str) {
    show(format_args!(
        "\n{text}\n{}",
        "=".repeat(text.chars().count())
    ));
}

fn waiting(until: &str) {
    show(format_args!("\n# … until {until}"));
}

/// The command as one types it.
fn line(words: &[&str]) -> String {
    let plain = |word: &str| {
        word.chars()
            .all(|c| c.is_alphanumeric() || "-_./=,:".contains(c))
    };
    let quoted = |word: &&str| {
        if plain(word) {
            (*word).to_owned()
        } else {
            format!("'{word}'")
        }
    };
    let words: Vec<String> = words.iter().map(quoted).collect();
    format!("kubectl {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed() {
        let words = ["get", "sp", "-o", "jsonpath={.spec.ips}", "-l", "app=web"];
        assert_eq!(
            line(&words),
            "kubectl get sp -o 'jsonpath={.spec.ips}' -l app=web"
        );
    }
}
