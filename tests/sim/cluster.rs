//! A cluster in one thread: the API server, the cluster's own programs, and the product.
//!
//! Owns: every process, and its death and new start. Never does: choose when; that is `nemesis`.
//! Invariant: what a process leaves behind at its death is what is stored, on disk, or on its way.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipam::annotation::SizeRule;
use ipam::keep::Keeps;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ApiResource, PostParams};
use kubesim::actors::{self, Kubelet, Machine, NodeSettings, Timings};
use kubesim::{Clock as _, Server, TokioClock};
use orbweaver::agent::Settings;
use orbweaver::api::time::{self, Wall};
use orbweaver::api::{self, SpiderEndpoint, SpiderIPPool, names};
use orbweaver::config::{Config, EndpointMode};
use orbweaver::controller::index::{Features, Switch};
use orbweaver::controller::{self, Endpoint, Metrics, Options, Signals, gc};
use orbweaver::kube_io::chance;
use orbweaver::kube_io::lease::{Durations, LeaderElector, Leadership};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fault::Kind;
use crate::judge::Judge;
use crate::lines::{AGENTS, Lines};
use crate::net::Net;
use crate::node::{self, MemoryDisk, Plugin, Socket};
use crate::original;

/// The day on which every history begins.
const EPOCH: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// A node's, with a runtime that does not wait long.
const TIMINGS: Timings = Timings {
    start: Duration::from_millis(200),
    stop: Duration::from_millis(100),
    retry: Duration::from_secs(3),
    collect: Duration::from_secs(20),
    restart: Duration::from_secs(10),
};

/// How large a cluster is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) controllers: usize,
    pub(crate) nodes: usize,
    /// Whether agents ask the leader's allocator before they write themselves.
    pub(crate) allocator: bool,
    /// Whether it binds addresses before sandboxes ask for them.
    pub(crate) early: bool,
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) net: Net,
    pub(crate) judge: Judge,
    pub(crate) lines: Lines,
    pub(crate) size: Size,
    clock: TokioClock,
    seed: u64,
    nodes: BTreeMap<String, Node>,
    processes: Mutex<BTreeMap<String, JoinSet<()>>>,
    /// Whether a replica believes that it leads, whatever the election says; one for each of them,
    /// since tokio wakes the receivers of one in an order drawn anew in each process.
    forced: Vec<watch::Sender<bool>>,
    /// How far the wall clock of a process's machine is set off.
    skews: Arc<Mutex<BTreeMap<String, SignedDuration>>>,
    _control: JoinSet<()>,
}

struct Node {
    number: u8,
    plugin: Arc<Plugin>,
    /// What runs on it; another one after it was off.
    machine: Mutex<Machine>,
    /// Whether the original's agent runs there, and not ours.
    is_original: AtomicBool,
}

impl Node {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Brings everything up.
    pub(crate) async fn start(size: Size, seed: u64, trace: bool) -> Self {
        chance::seed(seed);
        let clock = TokioClock::starting_at(EPOCH);
        let server = Server::with_clock(seed, clock);
        let judge = Judge::new(trace);
        define(&server.client("admin")).await;
        let witness = judge.clone();
        server.observe(move |commit| witness.commit(commit));
        let net = Net::new(server.clone(), judge.clone(), seed);
        let mut control = JoinSet::new();
        let owned = [
            ApiResource::erase::<SpiderEndpoint>(&()),
            ApiResource::erase::<SpiderIPPool>(&()),
        ];
        let manager = net.client("kube-controller-manager");
        actors::control_plane(&manager, clock, seed, &owned, &mut control);
        let cluster = Self {
            nodes: nodes(size, &judge),
            server,
            net,
            lines: Lines::new(judge.clone(), seed),
            judge,
            size,
            clock,
            seed,
            processes: Mutex::default(),
            forced: (0..size.controllers)
                .map(|_| watch::Sender::new(false))
                .collect(),
            skews: Arc::default(),
            _control: control,
        };
        for process in cluster.all() {
            cluster.begin(&process);
        }
        cluster
    }

    /// The names of all processes.
    pub(crate) fn all(&self) -> Vec<String> {
        let controllers = (0..self.size.controllers).map(|n| format!("controller-{n}"));
        let nodes = self.nodes.keys();
        let of_nodes = nodes.flat_map(|node| [format!("kubelet-{node}"), format!("agent-{node}")]);
        controllers.chain(of_nodes).collect()
    }

    /// The names of those that are the product's.
    pub(crate) fn product(&self) -> Vec<String> {
        let mut all = self.all();
        all.retain(|process| !process.starts_with("kubelet"));
        all
    }

    /// The names of the nodes.
    pub(crate) fn node_names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// What the runtime of a node calls.
    pub(crate) fn plugin(&self, node: &str) -> Option<&Plugin> {
        Some(&*self.nodes.get(node)?.plugin)
    }

    /// A client of somebody's whose requests no fault meets.
    pub(crate) fn client(&self, name: &str) -> Client {
        self.server.client(name)
    }

    /// Has every replica believe that it leads, or each what the election says.
    pub(crate) fn all_lead(&self, lead: bool) {
        for replica in &self.forced {
            replica.send_replace(lead);
        }
        self.lines.divide(lead);
    }

    /// Sets the wall clock of a process's machine so far off the others'.
    pub(crate) fn set_clock(&self, process: &str, off: SignedDuration) {
        let mut skews = self.skews.lock().unwrap_or_else(PoisonError::into_inner);
        skews.insert(process.to_owned(), off);
    }

    /// The wall clock of a process's machine.
    fn wall(&self, process: &str) -> Wall {
        let (clock, skews, process) = (self.clock, Arc::clone(&self.skews), process.to_owned());
        Arc::new(move || {
            let skews = skews.lock().unwrap_or_else(PoisonError::into_inner);
            clock.now() + skews.get(&process).copied().unwrap_or_default()
        })
    }

    /// Kills a process, at whatever it waits for.
    pub(crate) fn kill(&self, process: &str) {
        self.processes().remove(process);
    }

    /// Ends all that runs on a node; its disk stays, without what is in memory.
    pub(crate) fn power_off(&self, node: &str) {
        for process in [format!("kubelet-{node}"), format!("agent-{node}")] {
            self.kill(&process);
        }
        if let Some(of) = self.nodes.get(node) {
            *of.machine() = Machine::default();
            of.plugin.disk.reboot();
        }
        self.judge.powered_off(node);
    }

    /// Puts the original's agent on a node in place of ours, or ours in its place.
    pub(crate) fn change_over(&self, node: &str, to_original: bool) {
        let agent = format!("agent-{node}");
        self.kill(&agent);
        if let Some(of) = self.nodes.get(node) {
            of.is_original.store(to_original, Ordering::SeqCst);
        }
        self.begin(&agent);
    }

    /// Starts a process, unless it runs.
    pub(crate) fn begin(&self, process: &str) {
        if self.processes().contains_key(process) {
            return;
        }
        let mut tasks = JoinSet::new();
        match process.split_once('-') {
            Some(("controller", number)) => self.controller(process, number, &mut tasks),
            Some(("agent", node)) => self.agent(process, node, &mut tasks),
            Some(("kubelet", node)) => self.kubelet(process, node, &mut tasks),
            _ => return,
        }
        self.processes().insert(process.to_owned(), tasks);
    }

    /// Kills, and starts again, whom the network dooms; for ever.
    pub(crate) async fn carry_out_dooms(&self) {
        let mut dooms = self.net.dooms();
        loop {
            match dooms.recv().await {
                Some(process) => {
                    self.judge.note(&format!("{process} dies after its write"));
                    self.judge.happened(Kind::Crash);
                    self.kill(&process);
                    sleep(Duration::from_secs(1)).await;
                    self.begin(&process);
                }
                None => std::future::pending().await,
            }
        }
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<String, JoinSet<()>>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn controller(&self, process: &str, number: &str, tasks: &mut JoinSet<()>) {
        let Some(forced) = number.parse().ok().and_then(|n: usize| self.forced.get(n)) else {
            return;
        };
        let clients = self.net.clients(process);
        let elector = LeaderElector::new(
            clients.write.clone(),
            "kube-system",
            names::CONTROLLER_LEASE,
            process,
            Durations::default(),
        );
        let (elected, forced) = (elector.leadership(), forced.subscribe());
        let (tell, leadership) = watch::channel(Leadership::Follower);
        tasks.spawn(believe(elected, forced, tell));
        let wall = self.wall(process);
        tasks.spawn(time::on_machine(Arc::clone(&wall), async move {
            let (_stop, stopped) = watch::channel(false);
            elector.run(stopped).await;
        }));
        let options = Options {
            features: Features {
                ipv4: true,
                ipv6: true,
                subnets: Switch::On,
                auto_pools: Switch::On,
            },
            default_rule: SizeRule::Flexible(1),
            keeps: Keeps::ALL,
            gc: gc::Options {
                // They are on no network.
                ask: gc::survey::Ask::Nobody,
                ..gc::Options::default()
            },
            kinds: Config::default().kinds(),
            early_binding: self.size.early.into(),
            pod_name: Some(process.to_owned()),
        };
        let allocator = self.size.allocator.then(|| Endpoint {
            serve: self.lines.listener(process),
            agents: AGENTS.to_owned(),
        });
        let judge = self.judge.clone();
        let name = process.to_owned();
        tasks.spawn(time::on_machine(wall, async move {
            let (ready, _ready) = watch::channel(false);
            let (_stop, stopped) = watch::channel(false);
            let metrics = Metrics::register(&mut Registry::default(), false);
            let signals = Signals {
                leadership,
                ready,
                stop: stopped,
            };
            controller::run(options, clients, metrics, signals, allocator).await;
            judge.violation("run", &format!("{name} ended by itself"));
        }));
    }

    fn agent(&self, process: &str, node: &str, tasks: &mut JoinSet<()>) {
        let Some(of) = self.nodes.get(node) else {
            return;
        };
        let (disk, socket) = (of.plugin.disk.clone(), of.plugin.socket.clone());
        if of.is_original.load(Ordering::SeqCst) {
            let client = self.net.client(&format!("original-{node}"));
            tasks.spawn(original::agent(client, node.to_owned(), socket));
            return;
        }
        let settings = Settings {
            node: node.to_owned(),
            namespace: "kube-system".to_owned(),
            cluster_network: None,
            instance: process.to_owned(),
            socket: PathBuf::new(),
            ipv4: true,
            ipv6: true,
            subnets: true,
            auto_pools: true,
            keeps: Keeps::ALL,
            endpoints: EndpointMode::Always,
            conflict_detection: false,
            gateway_detection: false,
            early_binding: self.size.early,
            kinds: Config::default().kinds(),
            allocator_token: None,
            direct_writes: true,
        };
        let clients = self.net.clients(process);
        let lines = || self.lines.dial(process, clients.read.clone());
        let allocator = self.size.allocator.then(lines);
        let agent = node::agent(settings, clients, disk, socket, allocator);
        tasks.spawn(time::on_machine(self.wall(process), agent));
    }

    fn kubelet(&self, process: &str, node: &str, tasks: &mut JoinSet<()>) {
        let Some(of) = self.nodes.get(node) else {
            return;
        };
        let settings = NodeSettings {
            name: node.to_owned(),
            addresses: vec![Ipv4Addr::new(192, 168, 0, of.number).into()],
            labels: BTreeMap::new(),
            timings: TIMINGS,
        };
        let kubelet = Kubelet::new(
            self.net.client(process),
            self.clock,
            settings,
            of.machine().clone(),
            of.plugin.clone(),
            // Another one at each start: no sandbox has the id of one before.
            crate::seed_of(self.seed, &format!("{process} {:?}", self.clock.now())),
        );
        tasks.spawn(kubelet.run());
    }
}

fn nodes(size: Size, judge: &Judge) -> BTreeMap<String, Node> {
    let numbers = (1..=size.nodes).filter_map(|number| u8::try_from(number).ok());
    let node = |number| {
        let name = format!("n{number}");
        let plugin = Plugin {
            node: name.clone(),
            socket: Socket::default(),
            disk: MemoryDisk::default(),
            judge: judge.clone(),
            armed: Mutex::default(),
        };
        let plugin = Arc::new(plugin);
        let node = Node {
            number,
            plugin,
            machine: Mutex::default(),
            is_original: AtomicBool::default(),
        };
        (name, node)
    };
    numbers.map(node).collect()
}

/// What a replica believes: what the election says, or what a fault does.
async fn believe(
    mut elected: watch::Receiver<Leadership>,
    mut forced: watch::Receiver<bool>,
    tell: watch::Sender<Leadership>,
) {
    loop {
        let leads = if *forced.borrow_and_update() {
            Leadership::Leader
        } else {
            *elected.borrow_and_update()
        };
        tell.send_if_modified(|known| std::mem::replace(known, leads) != leads);
        let changed = tokio::select! {
            biased;
            changed = elected.changed() => changed,
            changed = forced.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn define(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in api::crd::definitions().unwrap() {
        api.create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
}
