//! The cluster: a real control plane and two real nodes in namespaces of their own.
//!
//! One at a time, told by a lock and a folder. Nothing of it is visible on the host but processes,
//! one port on loopback, one folder in the cache and one control group; the [`guard`] removes them
//! all, even after a run that was killed. There is no route from the cluster's networks to any
//! other.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

pub mod access;
pub mod cgroups;
pub mod control_plane;
pub mod guard;
pub mod inside;
pub mod kubectl;
pub mod lab;
pub mod namespace;
pub mod network;
pub mod node;
pub mod state;

use access::Access;
use control_plane::ControlPlane;
use guard::Guard;
use kubectl::{Helm, Kubectl};
use lab::Lab;
use node::{NODES, Node, Yard};
use state::State;

use crate::audit::{AuditLog, log_of};
use crate::paths::Paths;
use crate::process::{Process, command_line};
use crate::progress::{long, say};
use crate::tools::Tools;
use crate::wait::{eventually, see_machine};
use crate::{cni, host, image, logs};

/// A label that only nodes with a kubelet have.
pub const REAL_NODE: &str = "e2e.orbweaver.io/real";

/// A cluster that is up, in the hands of this run alone.
#[derive(Debug)]
pub struct Cluster {
    paths: Paths,
    tools: Tools,
    kubectl: Kubectl,
    lab: Lab,
    nodes: Vec<Node>,
    /// Present if this run started the cluster and has to see to its end.
    guard: Option<Guard>,
    _lock: File,
}

impl Cluster {
    /// The cluster that an earlier run kept, or else a new one.
    ///
    /// What a killed run left is removed first. Errors: another run has the cluster, a capability
    /// or tool is missing, or a component does not come up (the error names its log).
    pub fn open(paths: &Paths) -> Result<Self> {
        let lock = lock(paths)?;
        let tools = Tools::ensure(paths)?;
        host::ensure_packages()?;
        match State::load(&paths.cluster())? {
            Some(state) if state.kept && state.init.is_alive() => {
                say("using the cluster that is up (`e2e down` ends it)");
                Ok(Self::attach(paths, tools, &state, lock))
            }
            _ => {
                remove(paths)?;
                see_machine();
                long("starting a cluster", || Self::start(paths, tools, lock))
            }
        }
    }

    /// Removes whatever cluster there is. Returns whether there was one.
    pub fn down(paths: &Paths) -> Result<bool> {
        let _lock = lock(paths)?;
        remove(paths)
    }

    /// Removes this cluster, if this run started it and nobody asked to keep it.
    pub fn end(mut self) -> Result<()> {
        match self.guard.take() {
            Some(guard) => long("removing the cluster", || guard.end()),
            None => Ok(()),
        }
    }

    /// Leaves the cluster up for later runs and for a person's `kubectl`.
    pub fn keep(mut self) -> Result<()> {
        if let Some(guard) = self.guard.take() {
            let run = self.paths.cluster();
            let mut state = State::load(&run)?.context("the cluster's state is gone")?;
            state.kept = true;
            state.save(&run)?;
            guard.keep()?;
        }
        Ok(())
    }

    /// Whether an earlier run started it, so that this one leaves it up.
    pub fn is_kept(&self) -> bool {
        self.guard.is_none()
    }

    /// The admin's client.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The chart installer.
    pub fn helm(&self) -> Helm {
        let config = self.kubectl.config().to_owned();
        Helm::new(
            self.tools.path("helm"),
            config,
            self.paths.cluster().join("helm"),
        )
    }

    /// A tool's binary.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools.path(name)
    }

    /// The nodes with a kubelet.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The namespaces that control plane and nodes are in.
    pub fn lab(&self) -> Lab {
        self.lab
    }

    /// A program of the control plane, by its name.
    pub fn component(&self, name: &str) -> Result<Process> {
        let found = self.lab.init().descendants_running(&[name]);
        let mut found = found.into_iter().filter(|process| {
            let words = command_line(process.pid());
            words.first().is_some_and(|word| word.ends_with(name))
        });
        found.next().with_context(|| format!("no {name} runs"))
    }

    /// Certificates and kubeconfigs.
    pub fn access(&self) -> Access {
        Access::of(&self.paths.cluster())
    }

    /// The folders of the harness.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// A file of the cluster's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.paths.cluster().join(name)
    }

    /// Our own binary, at a path that nodes see too.
    pub fn exe(&self) -> PathBuf {
        exe_of(&self.paths.cluster())
    }

    /// What the API server logs of calls.
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(log_of(&self.paths.cluster()))
    }

    /// Makes this the CNI configuration of every node.
    pub fn install_conflist(&self, conflist: &Value) -> Result<()> {
        self.nodes
            .iter()
            .try_for_each(|node| node.install_conflist(conflist))
    }

    /// Brings an image's archive into every node.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        self.nodes
            .iter()
            .try_for_each(|node| node.import_image(archive))
    }

    fn start(paths: &Paths, tools: Tools, lock: File) -> Result<Self> {
        let run = paths.cluster();
        for folder in ["log", "images"] {
            fs::create_dir_all(run.join(folder)).context("cannot make the cluster's folder")?;
        }
        // A copy: the binary under `target` may be built anew while the cluster is up.
        let exe = exe_of(&run);
        std::env::current_exe()
            .and_then(|own| fs::copy(own, &exe))
            .context("cannot copy our own binary")?;
        let guard = Guard::start(paths, &exe)?;
        let state = State::load(&run)?.context("the guard left no state")?;
        let mut cluster = Self::attach(paths, tools, &state, lock);
        cluster.guard = Some(guard);
        if let Err(error) = cluster.bring_up(state) {
            let kept = paths.failure("start");
            logs::copy(&run, &kept);
            return Err(error.context(format!("logs are in {}", kept.display())));
        }
        Ok(cluster)
    }

    fn attach(paths: &Paths, tools: Tools, state: &State, lock: File) -> Self {
        let run = paths.cluster();
        let config = Access::of(&run).host_kubeconfig();
        let nodes = state
            .nodes
            .iter()
            .map(|(name, node)| Node::attach(&run, name, *node));
        Self {
            paths: paths.clone(),
            kubectl: Kubectl::new(tools.path("kubectl"), config),
            tools,
            lab: Lab::of(state.init),
            nodes: nodes.collect(),
            guard: None,
            _lock: lock,
        }
    }

    fn bring_up(&mut self, mut state: State) -> Result<()> {
        let run = self.paths.cluster();
        let access = Access::of(&run);
        access.make(state.port, &NODES)?;
        network::make_bridges(self.lab)?;
        let plane = ControlPlane {
            lab: self.lab,
            run: &run,
            tools: &self.tools,
            access: &access,
            kubectl: &self.kubectl,
        };
        plane.start()?;
        let images = self.base_images()?;
        let exe = self.exe();
        let yard = Yard {
            lab: self.lab,
            run: &run,
            exe: &exe,
            tools: &self.tools,
            access: &access,
            images: &images,
        };
        let booted = thread::scope(|scope| {
            let boots = (network::FIRST_NODE..).zip(NODES).map(|(index, name)| {
                scope.spawn(move || {
                    yard.boot(name, index)
                        .context(format!("booting node {name}"))
                })
            });
            let boots: Vec<_> = boots.collect();
            let join = |boot: thread::ScopedJoinHandle<'_, Result<_>>| {
                boot.join()
                    .unwrap_or_else(|_| Err(anyhow!("booting a node failed")))
            };
            boots.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        for (node, node_state) in booted {
            state.nodes.insert(node.name().to_owned(), node_state);
            self.nodes.push(node);
        }
        state.save(&run)?;
        self.install_conflist(&cni::macvlan(&cni::product(cni::PRODUCT)))?;
        eventually(Duration::from_secs(60), "every node is Ready", || {
            self.ensure_nodes_ready()
        })
    }

    fn base_images(&self) -> Result<Vec<PathBuf>> {
        let (busybox, pause) = (
            self.file("images/busybox.tar"),
            self.file("images/pause.tar"),
        );
        image::busybox()?.write(&busybox)?;
        image::pause().write(&pause)?;
        Ok(vec![busybox, pause])
    }

    fn ensure_nodes_ready(&self) -> Result<()> {
        let nodes = self.kubectl.list(&["nodes"])?;
        let ready: BTreeMap<&str, &str> = nodes.iter().filter_map(readiness).collect();
        for node in &self.nodes {
            match ready.get(node.name()) {
                Some(&"True") => {}
                is => bail!(
                    "node {}: Ready is {}",
                    node.name(),
                    is.unwrap_or(&"not known")
                ),
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take()
            && let Err(error) = long("removing the cluster", || guard.end())
        {
            say(format_args!("{error:#}"));
        }
    }
}

/// Takes the lock; it is let go when the file is closed.
fn lock(paths: &Paths) -> Result<File> {
    fs::create_dir_all(paths.cache()).context("cannot make the cache folder")?;
    let path = paths.lock();
    let mut options = OpenOptions::new();
    let opened = options
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path);
    let mut file = opened.with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        bail!(
            "the cluster of this machine is in use by process {}: wait for it, or end it \
             (lock: {})",
            holder.trim(),
            path.display()
        );
    }
    let written = file
        .set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// Removes the cluster of an earlier run, by its guard if that still lives.
fn remove(paths: &Paths) -> Result<bool> {
    let run = paths.cluster();
    let there = run.exists();
    if there {
        say("removing the cluster of an earlier run");
    }
    if let Some(state) = State::load(&run)?
        && state.guard.is_alive()
    {
        guard::ask_to_end(state.guard)?;
    }
    guard::destroy(&run)?;
    ensure!(!run.exists(), "{} is still there", run.display());
    Ok(there)
}

fn exe_of(run: &Path) -> PathBuf {
    run.join("e2e")
}

fn readiness(node: &Value) -> Option<(&str, &str)> {
    let conditions = node.pointer("/status/conditions")?.as_array()?;
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == "Ready")?;
    Some((
        node.pointer("/metadata/name")?.as_str()?,
        ready.get("status")?.as_str()?,
    ))
}
