//! Which Pod the scheduler put on which node, as it happens: `kubectl get --watch`, read line by
//! line.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::stage::{NAMESPACE, node_index};
use crate::cluster::kubectl::Kubectl;
use crate::wait::ensure_going_on;

/// One line a change: name, uid, `app` label and the node, `<none>` as long as there is none.
const COLUMNS: &str = "custom-columns=NAME:.metadata.name,UID:.metadata.uid,\
                       APP:.metadata.labels.app,NODE:.spec.nodeName";
/// How long to wait for the next Pod.
const PATIENCE: Duration = Duration::from_secs(90);

/// A Pod on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its Deployment.
    pub app: String,
    /// Its node's number.
    pub node: usize,
}

/// Pods in the order in which they got a node, without an end.
///
/// Errors: for a long time none did, kubectl failed, or a person asked us to stop.
#[derive(Debug)]
pub struct Bindings {
    kubectl: Kubectl,
    watch: Watch,
    seen: BTreeSet<String>,
}

impl Bindings {
    /// Begins to watch for Pods that are not among those known.
    pub fn watch<'p>(kubectl: &Kubectl, known: impl IntoIterator<Item = &'p Pod>) -> Result<Self> {
        Ok(Self {
            kubectl: kubectl.clone(),
            watch: Watch::start(kubectl)?,
            seen: known.into_iter().map(|pod| pod.uid.clone()).collect(),
        })
    }

    fn wait(&mut self) -> Result<Pod> {
        let end = Instant::now() + PATIENCE;
        loop {
            ensure_going_on()?;
            match self.watch.lines.recv_timeout(Duration::from_millis(500)) {
                Ok(line) => {
                    if let Some(pod) = parse(&line)
                        && self.seen.insert(pod.uid.clone())
                    {
                        return Ok(pod);
                    }
                }
                Err(_) if Instant::now() >= end => bail!(
                    "{} Pods have a node; no other got one for {} s",
                    self.seen.len(),
                    PATIENCE.as_secs()
                ),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // The API server ends watches that do not keep up; the next begins with a list.
                    self.watch.ensure_ended_well()?;
                    self.watch = Watch::start(&self.kubectl)?;
                }
            }
        }
    }
}

impl Iterator for Bindings {
    type Item = Result<Pod>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.wait())
    }
}

/// A `kubectl` that lists Pods and watches them from there on.
#[derive(Debug)]
struct Watch {
    process: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(kubectl: &Kubectl) -> Result<Self> {
        let args = [
            "get",
            "pods",
            "--namespace",
            NAMESPACE,
            "--watch",
            "--no-headers",
            "--output",
            COLUMNS,
        ];
        let mut process = kubectl
            .command(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        let out = process.stdout.take().context("kubectl has no output")?;
        let (line, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut all = BufReader::new(out).lines().map_while(Result::ok);
            all.try_for_each(|text| line.send(text))
        });
        Ok(Self { process, lines })
    }

    fn ensure_ended_well(&mut self) -> Result<()> {
        let status = self.process.wait().context("cannot wait for kubectl")?;
        ensure!(status.success(), "kubectl cannot watch Pods: {status}");
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A Pod without a node, or on one of others, is none of ours.
fn parse(line: &str) -> Option<Pod> {
    let mut words = line.split_whitespace().map(str::to_owned);
    let (name, uid, app) = (words.next()?, words.next()?, words.next()?);
    let node = node_index(&words.next()?)?;
    Some(Pod {
        name,
        uid,
        app,
        node,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_counts_once_it_has_a_node() {
        assert_eq!(parse("app-007-x   u   app-007   <none>"), None);
        let pod = parse("app-007-x   u   app-007   load-3").unwrap();
        assert_eq!((pod.app.as_str(), pod.node), ("app-007", 3));
    }
}
