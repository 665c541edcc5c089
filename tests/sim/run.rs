//! One run: a scenario, a seed, and what goes wrong, in a thread of its own.
//!
//! Owns: the order of a run, and its limits in virtual time. Invariant: a recipe has one history.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use orbweaver::api::names;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::Cluster;
use crate::fault::{Cast, Fault, Kind};
use crate::goal::{Gaze, Goal};
use crate::judge::Sight;
use crate::scenario::Scenario;
use crate::user::User;
use crate::{goal, nemesis, scenario};

/// Whether who dies after a write heard its answer.
const HEARD: &str = "heard";
const LOST: &str = "lost";
/// Longest script.
const SCRIPT_MAX: Duration = Duration::from_secs(900);
/// Faults come within this, from the script's begin.
const FAULTS_OVER: Duration = Duration::from_secs(75);
/// After faults. A Lease that its holder left behind runs out, and one try; a runtime's pause between
/// two tries, a hold-off and a resize, some of them twice; then what is left.
const DISTURBED: Limits = Limits {
    led: Duration::from_secs(30),
    served: Duration::from_secs(45),
    released: Duration::from_secs(60),
    settled: Duration::from_secs(180),
};
/// Where nothing went wrong at all, and people waited already.
const UNDISTURBED: Limits = Limits {
    led: Duration::from_secs(16),
    served: Duration::from_secs(2),
    released: Duration::from_secs(10),
    settled: Duration::from_secs(30),
};
/// L9, L3, L1 and L4 where DELs were lost with a disk, or with the original's agent: the controller's
/// look, and two of the agent's. Until then a pool may be full of what nobody has, and Pods wait.
const LEAK_MAX: Duration = Duration::from_secs(6_000);
/// Until what a look of the controller's found is over, by the next one: ten minutes, and some more.
const LOOK_MAX: Duration = Duration::from_secs(700);
/// In a cluster at rest nothing is written for this long (L1).
const QUIET: Duration = Duration::from_secs(600);
/// Who begins anew has read everything and leads; looks for what leaked come later.
const READ_ANEW: Duration = Duration::from_secs(120);
/// What was decided before the cluster came to rest is carried out within this.
const CALM_DOWN: Duration = Duration::from_secs(120);

/// How long each may take, from the end of the faults on.
#[derive(Clone, Copy)]
struct Limits {
    /// L6.
    led: Duration,
    /// L9.
    served: Duration,
    /// L3.
    released: Duration,
    /// L1, and L4 once all is deleted.
    settled: Duration,
}

/// What is to be run. Its text, which a violation leaves behind and `--recipe` reads, is a line for
/// each: `scenario NAME`, `seed N`, `crash-at WRITE heard|lost`, `fault AT KIND TARGET LASTS`; and
/// words of people after `#`.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) scenario: &'static Scenario,
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    /// The process that makes this write dies after it; `true`: before it hears the answer.
    pub(crate) crash_at: Option<(usize, bool)>,
    pub(crate) trace: bool,
    /// Whether it is none of a hunt's seeds, but was kept from an earlier one.
    pub(crate) kept: bool,
}

/// What came of it.
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) happened: BTreeMap<Kind, u64>,
    pub(crate) seen: BTreeMap<Sight, u64>,
    pub(crate) requests: u64,
    /// Writes of the product up to the script's end.
    pub(crate) writes: usize,
}

impl Recipe {
    /// The scenario and the faults of a seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let all = scenario::ALL;
        let at = usize::try_from(seed).unwrap_or(0) % all.len();
        Self::of(&all[at], seed)
    }

    /// The faults of a seed in a scenario.
    pub(crate) fn of(scenario: &'static Scenario, seed: u64) -> Self {
        let size = scenario::size(scenario, seed);
        let nodes: Vec<String> = (1..=size.nodes)
            .map(|number| format!("n{number}"))
            .collect();
        let cast = Cast {
            controllers: size.controllers,
            nodes: &nodes,
        };
        let mut rng = crate::stream(seed, "faults");
        let faults = crate::fault::make(&mut rng, &cast, FAULTS_OVER, Kind::ALL);
        Self {
            faults,
            ..Self::undisturbed(scenario, seed)
        }
    }

    /// The scenario without any fault.
    pub(crate) fn undisturbed(scenario: &'static Scenario, seed: u64) -> Self {
        Self {
            scenario,
            seed,
            faults: Vec::new(),
            crash_at: None,
            trace: false,
            kept: false,
        }
    }

    /// Runs it in a thread of its own.
    pub(crate) fn run(&self) -> Report {
        let recipe = self.clone();
        let thread = std::thread::Builder::new().spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(play(&recipe))
        });
        match thread.unwrap().join() {
            Ok(report) => report,
            Err(_) => Report {
                hash: 0,
                violations: vec!["the simulation itself panicked".to_owned()],
                happened: BTreeMap::new(),
                seen: BTreeMap::new(),
                requests: 0,
                writes: 0,
            },
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario {}\nseed {}", self.scenario.name, self.seed)?;
        if let Some((write, lost)) = self.crash_at {
            let answer = if lost { LOST } else { HEARD };
            writeln!(f, "crash-at {write} {answer}")?;
        }
        self.faults
            .iter()
            .try_for_each(|fault| writeln!(f, "fault {fault}"))
    }
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut scenario, mut seed, mut crash_at, mut faults) = (None, None, None, Vec::new());
        let number = |text: &str| format!("'{text}' is no number");
        for line in text.lines().map(str::trim) {
            match line.split_once(' ') {
                _ if line.is_empty() || line.starts_with('#') => {}
                Some(("scenario", name)) => scenario = Some(scenario::named(name)?),
                Some(("seed", of)) => seed = Some(of.parse().map_err(|_| number(of))?),
                Some(("fault", of)) => faults.push(of.parse()?),
                Some(("crash-at", of)) => match of.split_once(' ') {
                    Some((write, answer @ (HEARD | LOST))) => {
                        let write = write.parse().map_err(|_| number(write))?;
                        crash_at = Some((write, answer == LOST));
                    }
                    _ => return Err(format!("'{of}' is not: WRITE {HEARD}|{LOST}")),
                },
                _ => return Err(format!("'{line}' is no line of a recipe")),
            }
        }
        let scenario = scenario.ok_or("no line names the scenario")?;
        Ok(Self {
            faults,
            crash_at,
            ..Self::undisturbed(scenario, seed.ok_or("no line has the seed")?)
        })
    }
}

async fn play(recipe: &Recipe) -> Report {
    crate::panics();
    let size = scenario::size(recipe.scenario, recipe.seed);
    let cluster = Arc::new(Cluster::start(size, recipe.seed, recipe.trace).await);
    if let Some((write, answer_lost)) = recipe.crash_at {
        cluster.net.crash_at(write, answer_lost);
    }
    let whole = async {
        let writes = script(&cluster, recipe).await;
        rest(&cluster, recipe).await;
        writes
    };
    let writes = tokio::select! {
        biased;
        writes = whole => writes,
        () = cluster.carry_out_dooms() => unreachable!("it goes on for ever"),
    };
    for panic in crate::panics() {
        cluster.judge.violation("panic", &panic);
    }
    Report {
        hash: cluster.judge.hash(),
        violations: cluster.judge.violations(),
        happened: cluster.judge.counts(),
        seen: cluster.judge.sights(),
        requests: cluster.judge.requests(),
        writes,
    }
}

/// What people do while things go wrong; how many writes of the product that made.
async fn script(cluster: &Arc<Cluster>, recipe: &Recipe) -> usize {
    let user = User::new(cluster);
    let script = timeout(SCRIPT_MAX, (recipe.scenario.script)(user.clone()));
    let (script, ()) = tokio::join!(script, nemesis::run(&user, &recipe.faults));
    if script.is_err() {
        cluster
            .judge
            .violation("L1", "the script does not come to its end");
    }
    let writes = cluster.judge.writes();
    nemesis::heal(&user);
    writes
}

/// What a run is held to.
fn limits(cluster: &Cluster, recipe: &Recipe) -> Limits {
    let loses_dels = |fault: &Fault| matches!(fault.kind, Kind::CrashWiped | Kind::PowerOff);
    // An agent that was down, or did not hear that a Pod came and went, doesn't know whether it ever
    // gave that what was bound early: then it is for the looks.
    let forgets = |fault: &Fault| match fault.kind {
        Kind::Crash => fault.target.starts_with("agent"),
        Kind::Compact
        | Kind::WatchClose
        | Kind::WatchStall
        | Kind::Cut
        | Kind::NodeCut
        | Kind::Outage => true,
        _ => false,
    };
    let is_slow = recipe.scenario.name == "node_lost"
        || recipe.scenario.has_original()
        || recipe.faults.iter().any(loses_dels)
        || (cluster.size.early && recipe.faults.iter().any(forgets));
    if is_slow {
        Limits {
            served: LEAK_MAX,
            released: LEAK_MAX,
            settled: LEAK_MAX,
            ..DISTURBED
        }
    } else if recipe.faults.is_empty() && recipe.crash_at.is_none() {
        UNDISTURBED
    } else {
        DISTURBED
    }
}

/// After the faults: all comes to rest, stays at rest, and leaves nothing behind.
async fn rest(cluster: &Arc<Cluster>, recipe: &Recipe) {
    let (limits, healed) = (limits(cluster, recipe), Instant::now());
    if !is_led(cluster, healed + limits.led).await {
        return;
    }
    let steps: [(&str, Duration, Goal); 3] = [
        ("L9", limits.served, goal::unserved),
        ("L3", limits.released, goal::unreleased),
        ("L1", limits.settled, goal::lacks),
    ];
    for (rule, within, goal) in steps {
        if !comes(cluster, healed, within, rule, goal).await {
            return;
        }
    }
    sleep(CALM_DOWN).await;
    if !comes(cluster, Instant::now(), LOOK_MAX, "L1", goal::asked_about).await {
        return;
    }
    is_quiet(cluster, QUIET, "L1", "at rest").await;
    for process in cluster.product() {
        cluster.kill(&process);
        cluster.begin(&process);
    }
    is_quiet(cluster, READ_ANEW, "L7", "of who read everything anew").await;
    clear_away(cluster).await;
    let cleared = Instant::now();
    comes(cluster, cleared, limits.settled, "L4", goal::left_over).await;
}

/// Waits, and blames any write of the product meanwhile.
async fn is_quiet(cluster: &Cluster, how_long: Duration, rule: &str, whose: &str) {
    let before = cluster.judge.writes();
    sleep(how_long).await;
    let written = cluster.judge.writes_since(before);
    if let Some(first) = written.first() {
        let what = format!("{} writes {whose}: {first}", written.len());
        cluster.judge.violation(rule, &what);
    }
}

/// Waits until a controller renews the Lease. False if that takes too long (L6).
async fn is_led(cluster: &Cluster, until: Instant) -> bool {
    let lease = || {
        let leases = cluster.server.objects("leases.coordination.k8s.io");
        let ours = |lease: &&Arc<Value>| lease["metadata"]["name"] == names::CONTROLLER_LEASE;
        leases.iter().find(ours).map(|lease| {
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            (
                holder.to_owned(),
                lease["metadata"]["resourceVersion"].clone(),
            )
        })
    };
    let before = lease();
    loop {
        let now = lease();
        if let Some((holder, _)) = &now
            && holder.starts_with("controller")
            && now != before
        {
            return true;
        }
        if Instant::now() > until {
            let what = format!("no controller leads; the Lease is {now:?}");
            cluster.judge.violation("L6", &what);
            return false;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until nothing lacks. False if that takes too long, or a rule was broken meanwhile.
async fn comes(
    cluster: &Cluster,
    since: Instant,
    patience: Duration,
    rule: &str,
    goal: Goal,
) -> bool {
    let end = since + patience;
    let mut gaze = Gaze::at(goal);
    loop {
        if !cluster.judge.violations().is_empty() {
            return false;
        }
        let lacking = gaze.lacking(cluster);
        if lacking.is_empty() {
            return true;
        }
        if Instant::now() > end {
            let what = format!("after {} s: {}", patience.as_secs(), lacking.join("; "));
            cluster.judge.violation(rule, &what);
            return false;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Deletes every workload.
async fn clear_away(cluster: &Arc<Cluster>) {
    use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
    let user = User::new(cluster);
    let client = cluster.client("user");
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    for found in deployments.list(&ListParams::default()).await.unwrap() {
        user.delete(&found.name_any()).await;
    }
    let sets: Api<StatefulSet> = Api::default_namespaced(client);
    for found in sets.list(&ListParams::default()).await.unwrap() {
        user.delete_set(&found.name_any()).await;
    }
}
