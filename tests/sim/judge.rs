//! The judge: looks at every revision, every request and every CNI call, and says what may not be.
//!
//! Owns: the history (its hash, its trace), what is in use on the nodes, and the rules below. Never
//! does: change anything; what it hears it hears in the server's commit hook, or from the network.
//! `ipam::audit` is asked where it has the rule; who really uses an address is noted here, from the
//! calls of the runtimes alone.
//!
//! | rule | at every revision, request and reply |
//! |---|---|
//! | S1 | an address has one record in all pools, and one sandbox uses it |
//! | S2 | what a reply gives is recorded, and for that Pod |
//! | S3 | a record goes only once its Pod is over and no sandbox has the address |
//! | S4 | what is recorded is the pool's and not reserved, and the pool is admitted |
//! | S5, S6 | pools of a subnet are disjoint and within their entries of the ledger, which frees nothing that a pool still has |
//! | S7 | a Pod that asks again is given the same |
//! | S8 | a write carries the version and uid it was computed from, a deletion the uid |
//! | S9 | a Pod of a StatefulSet is given what its name had before |
//! | S10 | a pool made for a workload serves no other, and its workload has addresses from no other pool |
//! | S11 | what others noted on a pool or in a record stays, and records that can't be read are never written |
//! | S12 | the count of records is that of the same write, and at rest the count of addresses is right |
//! | S13 | a record is of a Pod that was there, on the node that asked |
//! | S14 | no object of ours grows larger than etcd takes |
//! | S15 | nothing that holds addresses is gone before they are |
//! | S17 | address, prefix, gateway and routes of a reply are the pool's |
//! | hold-off | an address rests after the DEL of its last sandbox, and while its network namespace is there |
//! | O1 | a workload's only pool is not made smaller than the workload has wanted for a minute |
//! | O2 | the controller asks for no list older than it knows |
//! | L2 | an agent that lives answers before the plugin gives up |
//! | L5 | no ADD fails since somebody else was faster, and nobody loses hundreds of writes in a row |
//! | L1 | once nothing goes wrong any more all is as wanted, and nothing is written |
//! | L3, L6, L9 | by then the addresses of Pods that are gone are free, a controller leads, and no Pod waits: each within a limit of its own |
//! | L7 | processes that begin anew, and so read everything again, find nothing to write: what the old ones held was as good |
//! | L4 | when all workloads are gone, so is all that was theirs |
//!
//! Not judged here: that no two network namespaces have one address (S16), which needs a kernel and
//! is for `e2e`; bounds of queues (L8), which unit tests have.

mod objects;
mod replies;
mod sight;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use http::request::Parts;
use ipam::pool::{Pool, Route};
use kubesim::{Change, Commit};
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use self::sight::Sight;
use crate::fault::Kind;

/// An address rests so long after the DEL of its sandbox.
const HOLD_OFF: Duration = Duration::from_secs(2);
/// The agent waits so long at most for the end of a network namespace whose DEL came.
const NAMESPACE_MAX: Duration = Duration::from_secs(60);
/// What a workload asks for is known to every controller by then, whatever its watches and lists met.
const KNOWN_AFTER: Duration = Duration::from_secs(60);
/// Most bytes of an object: etcd's limit of a request, with room for what goes with it.
const BYTES_MAX: usize = 1_400_000;
/// What an error says where a pool has no address left.
const USED_OUT: &str = "all IP addresses used out";
/// Two controllers that write pools within this time both lead: a Lease that is left behind runs
/// longer.
const MOMENT: Duration = Duration::from_secs(2);
/// What an error says that only means that somebody else was faster.
const CONFLICT: &str = "409 Conflict";
/// An annotation, or a key of a record, of others that nobody of ours may lose.
pub(crate) const FOREIGN: &str = "example.org/keep";

/// The judge. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Judge(Arc<Mutex<State>>);

struct State {
    start: Instant,
    trace: bool,
    hash: DefaultHasher,
    violations: Vec<String>,
    happened: BTreeMap<Kind, u64>,
    seen: BTreeMap<Sight, u64>,
    requests: u64,
    /// Revisions of what a goal looks at.
    moves: u64,
    /// Writes of the product but for Leases, in order: the places where it may crash.
    writes: Vec<String>,
    pools: BTreeMap<String, Pool>,
    /// The records of pools that can't be read, as they stand there.
    garbled: BTreeMap<String, String>,
    subnets: BTreeMap<String, ipam::subnet::Subnet>,
    reserved: BTreeMap<String, ipam::addr::AddrSet>,
    /// Every Pod that ever was.
    pods: BTreeMap<String, PodSeen>,
    /// The controller of each object that has one.
    owners: BTreeMap<String, String>,
    replicas: BTreeMap<String, i64>,
    /// What each workload asks for that wants a subnet, also after its end.
    wishes: BTreeMap<String, Wish>,
    /// Who uses an address.
    users: BTreeMap<IpAddr, User>,
    /// When the last sandbox of an address was first told to let go.
    let_go: BTreeMap<IpAddr, Instant>,
    /// What each Pod was given.
    given: BTreeMap<String, BTreeSet<IpAddr>>,
    /// What each name of a StatefulSet was given.
    fixed: BTreeMap<(String, String), BTreeSet<IpAddr>>,
    /// The controller that wrote a pool last.
    led: Option<(String, Instant)>,
}

/// A Pod as stored last.
#[derive(Clone, Default)]
struct PodSeen {
    name: String,
    node: String,
    /// Terminating, finished or gone: it never comes back.
    over: bool,
}

/// What a workload asks for.
struct Wish {
    replicas: i64,
    /// Its annotation.
    subnet: Value,
    /// Since when it asks for that.
    since: Instant,
    /// Whether it is being deleted, or was.
    goes: bool,
}

/// A sandbox that has an address.
struct User {
    uid: String,
    sandbox: String,
    node: String,
    first_del: Option<Instant>,
}

/// What a runtime was told by its plugin.
pub(crate) struct Told {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<IpAddr>,
    /// All of the interface: it has one address.
    pub(crate) routes: Vec<Route>,
    pub(crate) pool: String,
}

impl Judge {
    /// Must be called in a tokio runtime: history begins now.
    pub(crate) fn new(trace: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            start: Instant::now(),
            trace,
            hash: DefaultHasher::new(),
            violations: Vec::new(),
            happened: BTreeMap::new(),
            seen: BTreeMap::new(),
            requests: 0,
            moves: 0,
            writes: Vec::new(),
            pools: BTreeMap::new(),
            garbled: BTreeMap::new(),
            subnets: BTreeMap::new(),
            reserved: BTreeMap::new(),
            pods: BTreeMap::new(),
            owners: BTreeMap::new(),
            replicas: BTreeMap::new(),
            wishes: BTreeMap::new(),
            users: BTreeMap::new(),
            let_go: BTreeMap::new(),
            given: BTreeMap::new(),
            fixed: BTreeMap::new(),
            led: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A rule is broken.
    pub(crate) fn violation(&self, rule: &str, what: &str) {
        self.state().blame(rule, what);
    }

    /// What was broken so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// A fault met something.
    pub(crate) fn happened(&self, kind: Kind) {
        *self.state().happened.entry(kind).or_default() += 1;
    }

    /// Which faults met something, and how often.
    pub(crate) fn counts(&self) -> BTreeMap<Kind, u64> {
        self.state().happened.clone()
    }

    /// Something came of what happens.
    pub(crate) fn saw(&self, sight: Sight) {
        self.state().saw(sight);
    }

    /// What came of it, and how often.
    pub(crate) fn sights(&self) -> BTreeMap<Sight, u64> {
        self.state().seen.clone()
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.state().requests
    }

    /// How often something moved that a goal looks at.
    pub(crate) fn moves(&self) -> u64 {
        self.state().moves
    }

    /// A number for the whole history: every request with its time, every note.
    pub(crate) fn hash(&self) -> u64 {
        self.state().hash.finish()
    }

    /// Writes of the product so far, but for Leases and Events.
    pub(crate) fn writes(&self) -> usize {
        self.state().writes.len()
    }

    /// The writes since a number of them.
    pub(crate) fn writes_since(&self, count: usize) -> Vec<String> {
        let state = self.state();
        state.writes.iter().skip(count).cloned().collect()
    }

    /// Something that is part of the history and no request.
    pub(crate) fn note(&self, what: &str) {
        self.state().enter(what);
    }

    /// A request leaves its process. True of a write of the product, but for Leases and Events.
    pub(crate) fn request(&self, process: &str, head: &Parts, body: &[u8]) -> bool {
        let mut state = self.state();
        state.requests += 1;
        let uri = head.uri.to_string();
        if uri.contains("/events") {
            // The recorder of kube names Events by a clock of its own.
            state.enter(&format!("{process} {} Event", head.method));
            return false;
        }
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let of_body = hasher.finish();
        state.enter(&format!("{process} {} {uri} {of_body:016x}", head.method));
        let wrote = !is_foreign(process)
            && head.method != Method::GET
            && !uri.contains("/leases")
            && !uri.ends_with("/tokenreviews");
        if wrote {
            state
                .writes
                .push(format!("{process} {} {uri}", head.method));
        }
        wrote
    }

    /// A revision. Called while the server is locked.
    pub(crate) fn commit(&self, commit: &Commit) {
        let mut state = self.state();
        let resource = commit.key.resource.split('.').next().unwrap_or_default();
        if matches!(resource, "leases" | "events") {
            return; // heartbeats, and what is told to people
        }
        state.moves += 1;
        state.follow(commit);
        state.weigh(commit);
        match resource {
            "spiderippools" => {
                state.note_writer(&commit.actor);
                state.pool(commit);
            }
            "spidersubnets" => state.subnet(commit),
            "spiderreservedips" => state.reserve(commit),
            "pods" => state.pod(commit),
            _ => return,
        }
        if matches!(resource, "spiderippools" | "spidersubnets") {
            state.audit(commit);
        }
    }

    /// A runtime got addresses for a sandbox.
    pub(crate) fn given(&self, node: &str, uid: &str, sandbox: &str, told: &[Told]) {
        self.state().given(node, uid, sandbox, told);
    }

    /// A runtime was told that there is no address for a sandbox (L5).
    pub(crate) fn refused(&self, node: &str, uid: &str, why: &str) {
        let mut state = self.state();
        state.enter(&format!("{node} refused {uid}: {why}"));
        state.saw(Sight::Refused);
        if why.contains(USED_OUT) {
            state.saw(Sight::UsedOut);
        }
        if why.contains(CONFLICT) {
            let what = format!("{uid} on {node} got no address since others wrote: {why}");
            state.blame("L5", &what);
        }
    }

    /// A runtime tells the plugin that a sandbox goes.
    pub(crate) fn going(&self, sandbox: &str) {
        let mut state = self.state();
        let now = Instant::now();
        let mut left = Vec::new();
        for (address, user) in &mut state.users {
            if user.sandbox == sandbox && user.first_del.is_none() {
                user.first_del = Some(now);
                left.push(*address);
            }
        }
        for address in left {
            state.let_go.insert(address, now);
        }
    }

    /// A sandbox is no more.
    pub(crate) fn gone(&self, sandbox: &str) {
        self.state().users.retain(|_, user| user.sandbox != sandbox);
    }

    /// All sandboxes of a node are no more.
    pub(crate) fn powered_off(&self, node: &str) {
        self.state().users.retain(|_, user| user.node != node);
    }
}

impl State {
    fn enter(&mut self, what: &str) {
        let at = self.start.elapsed();
        (at.as_nanos(), what).hash(&mut self.hash);
        if self.trace {
            crate::say(&format!("{:>12.6} {what}", at.as_secs_f64()));
        }
    }

    fn blame(&mut self, rule: &str, what: &str) {
        let at = self.start.elapsed().as_secs_f64();
        let text = format!("{rule} at {at:.3} s: {what}");
        self.enter(&text);
        self.violations.push(text);
    }

    fn saw(&mut self, sight: Sight) {
        *self.seen.entry(sight).or_default() += 1;
    }

    /// Sees who writes a pool.
    fn note_writer(&mut self, actor: &str) {
        if actor.starts_with("original") {
            self.saw(Sight::OriginalWrote);
        } else if actor.starts_with("controller") {
            let before = self.led.replace((actor.to_owned(), Instant::now()));
            if before.is_some_and(|(other, at)| other != actor && at.elapsed() < MOMENT) {
                self.saw(Sight::TwoLed);
            }
        }
    }

    /// S14.
    fn weigh(&mut self, commit: &Commit) {
        if is_foreign(&commit.actor) {
            return;
        }
        let bytes = commit.new.to_string().len();
        if bytes > BYTES_MAX {
            let what = format!("{} made {} {bytes} bytes", commit.actor, commit.key.name);
            self.blame("S14", &what);
        }
    }

    /// Who controls whom, and what workloads want.
    fn follow(&mut self, commit: &Commit) {
        let object = &*commit.new;
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        let Some(uid) = text("/metadata/uid").map(str::to_owned) else {
            return;
        };
        let references = object.pointer("/metadata/ownerReferences");
        let references = references.and_then(Value::as_array).into_iter().flatten();
        for reference in references {
            if reference["controller"] == true
                && let Some(owner) = reference["uid"].as_str()
            {
                self.owners.insert(uid.clone(), owner.to_owned());
            }
        }
        self.wish(&uid, commit);
        if &*commit.key.resource == "statefulsets.apps" {
            let replicas = object.pointer("/spec/replicas").and_then(Value::as_i64);
            let (replicas, gone) = (replicas.unwrap_or(1), commit.change == Change::Deleted);
            self.replicas.insert(uid.clone(), replicas);
            self.fixed.retain(|(set, pod), _| {
                let ordinal = pod.rsplit('-').next().and_then(|n| n.parse().ok());
                *set != uid || (!gone && ordinal.is_some_and(|n: i64| n < replicas))
            });
        }
    }

    /// What the template of a workload asks for, and since when.
    fn wish(&mut self, uid: &str, commit: &Commit) {
        let object = &*commit.new;
        let Some(template) = object.pointer("/spec/template") else {
            return;
        };
        let annotations = template.pointer("/metadata/annotations");
        let Some(subnet) = annotations.and_then(|all| all.get(ipam::annotation::SUBNET)) else {
            self.wishes.remove(uid);
            return;
        };
        let replicas = object.pointer("/spec/replicas").and_then(Value::as_i64);
        let (replicas, goes) = (
            replicas.unwrap_or(1),
            object.pointer("/metadata/deletionTimestamp"),
        );
        let same = |known: &Wish| known.replicas == replicas && known.subnet == *subnet;
        let since = self.wishes.get(uid).filter(|known| same(known));
        let wish = Wish {
            replicas,
            subnet: subnet.clone(),
            since: since.map_or_else(Instant::now, |known| known.since),
            goes: goes.is_some() || commit.change == Change::Deleted,
        };
        self.wishes.insert(uid.to_owned(), wish);
    }
}

/// People, and the cluster's own programs.
pub(crate) fn is_foreign(actor: &str) -> bool {
    !(actor.starts_with("controller") || actor.starts_with("agent"))
}
