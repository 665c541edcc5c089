//! The judge: looks at every revision, every request and every CNI call, and says what may not be.
//!
//! Owns: the history (its hash, its trace), what is in use on the nodes, and the rules S1 to S17 as
//! far as they can be seen from outside. Never does: change anything; what it hears it hears in the
//! server's commit hook, or from the network. `ipam::audit` is asked where it has the rule; who
//! really uses an address is noted here, from the calls of the runtimes alone.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use http::request::Parts;
use ipam::audit::{World, audit};
use ipam::name::NodeName;
use ipam::pool::Pool;
use ipam::record::Record;
use kubesim::{Change, Commit};
use orbweaver::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, convert};
use serde_json::Value;
use tokio::time::Instant;

use crate::fault::Kind;

/// An address rests so long after the DEL of its sandbox.
const HOLD_OFF: Duration = Duration::from_secs(2);
/// The agent waits so long at most for the end of a network namespace whose DEL came.
const NAMESPACE_MAX: Duration = Duration::from_secs(60);
/// Most bytes that the records of a pool may take.
const BYTES_MAX: usize = 1_000_000;
/// What an error says that only means that somebody else was faster.
const CONFLICT: &str = "409 Conflict";
/// An annotation of others that nobody of ours may lose.
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
    requests: u64,
    /// Revisions of what a goal looks at.
    moves: u64,
    /// Writes of the product but for Leases, in order: the places where it may crash.
    writes: Vec<String>,
    pools: BTreeMap<String, Pool>,
    subnets: BTreeMap<String, ipam::subnet::Subnet>,
    reserved: BTreeMap<String, ipam::addr::AddrSet>,
    /// Every Pod that ever was.
    pods: BTreeMap<String, PodSeen>,
    /// The controller of each object that has one.
    owners: BTreeMap<String, String>,
    /// Kind and wish of each workload that asks for a subnet.
    wants_subnet: BTreeSet<String>,
    replicas: BTreeMap<String, i64>,
    /// Who uses an address.
    users: BTreeMap<IpAddr, User>,
    /// When the last sandbox of an address was first told to let go.
    let_go: BTreeMap<IpAddr, Instant>,
    /// What each Pod was given.
    given: BTreeMap<String, BTreeSet<IpAddr>>,
    /// What each name of a StatefulSet was given.
    fixed: BTreeMap<(String, String), BTreeSet<IpAddr>>,
}

/// A Pod as stored last.
#[derive(Clone, Default)]
struct PodSeen {
    name: String,
    node: String,
    /// Terminating, finished or gone: it never comes back.
    over: bool,
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
            requests: 0,
            moves: 0,
            writes: Vec::new(),
            pools: BTreeMap::new(),
            subnets: BTreeMap::new(),
            reserved: BTreeMap::new(),
            pods: BTreeMap::new(),
            owners: BTreeMap::new(),
            wants_subnet: BTreeSet::new(),
            replicas: BTreeMap::new(),
            users: BTreeMap::new(),
            let_go: BTreeMap::new(),
            given: BTreeMap::new(),
            fixed: BTreeMap::new(),
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
        match resource {
            "spiderippools" => state.pool(commit),
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
        let template = object.pointer("/spec/template/metadata/annotations");
        let subnet = ipam::annotation::SUBNET;
        if template.is_some_and(|annotations| annotations.get(subnet).is_some()) {
            self.wants_subnet.insert(uid.clone());
        } else if template.is_some() || object.pointer("/spec/template").is_some() {
            self.wants_subnet.remove(&uid);
        }
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

    fn pod(&mut self, commit: &Commit) {
        let object = &*commit.new;
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let finished = matches!(text("/status/phase"), "Succeeded" | "Failed");
        let terminating = object.pointer("/metadata/deletionTimestamp").is_some();
        let seen = PodSeen {
            name: format!("{}/{}", commit.key.namespace, commit.key.name),
            node: text("/spec/nodeName").to_owned(),
            over: finished || terminating || commit.change == Change::Deleted,
        };
        self.pods.insert(text("/metadata/uid").to_owned(), seen);
    }

    fn reserve(&mut self, commit: &Commit) {
        let name = commit.key.name.clone();
        match serde_json::from_value::<SpiderReservedIP>((*commit.new).clone()) {
            Ok(object) if commit.change != Change::Deleted => {
                self.reserved.insert(name, convert::reserved(&object).0);
            }
            _ => drop(self.reserved.remove(&name)),
        }
    }

    fn subnet(&mut self, commit: &Commit) {
        let name = commit.key.name.clone();
        if commit.change == Change::Deleted {
            self.subnets.remove(&name);
            return;
        }
        let object = serde_json::from_value::<SpiderSubnet>((*commit.new).clone());
        match object.map(|object| convert::subnet(&object)) {
            Ok(Ok(subnet)) => drop(self.subnets.insert(name, subnet)),
            wrong => self.blame("S11", &format!("subnet {name} can't be read: {wrong:?}")),
        }
    }

    fn pool(&mut self, commit: &Commit) {
        let name = commit.key.name.clone();
        let old = self.pools.get(&name).cloned();
        if is_foreign(&commit.actor) {
            // A person may do what they like.
        } else if let Some(was) = &commit.old
            && was
                .pointer("/metadata/annotations")
                .is_some_and(|a| a.get(FOREIGN).is_some())
            && commit.change != Change::Deleted
            && commit
                .new
                .pointer("/metadata/annotations")
                .is_none_or(|a| a.get(FOREIGN).is_none())
        {
            self.blame(
                "S11",
                &format!("{} lost a foreign annotation of {name}", commit.actor),
            );
        }
        if commit.change == Change::Deleted {
            self.pools.remove(&name);
            if let Some(old) = old.filter(|old| old.used().get() > 0)
                && !is_foreign(&commit.actor)
            {
                let what = format!(
                    "{} let pool {name} go with {} records",
                    commit.actor,
                    old.used()
                );
                self.blame("S15", &what);
            }
            return;
        }
        let Ok(object) = serde_json::from_value::<SpiderIPPool>((*commit.new).clone()) else {
            return self.blame("S11", &format!("pool {name} can't be read"));
        };
        let new = match convert::pool(&object) {
            Ok(new) => new,
            Err(fault) => return self.blame("S11", &format!("pool {name}: {fault:?}")),
        };
        if !is_foreign(&commit.actor) {
            self.records(commit, old.as_ref(), &new);
            self.counters(commit, &object, &new);
        }
        self.pools.insert(name, new);
    }

    /// S12, S14.
    fn counters(&mut self, commit: &Commit, object: &SpiderIPPool, pool: &Pool) {
        let Some(status) = &object.status else { return };
        let was = commit
            .old
            .as_ref()
            .and_then(|old| old.pointer("/status/allocatedIPs"));
        let text = status.allocated_ips.as_deref().unwrap_or_default();
        if was.and_then(Value::as_str).unwrap_or_default() != text
            && status.allocated_ip_count != i64::try_from(pool.used().get()).ok()
        {
            let what = format!(
                "{}: {:?} for {} records",
                pool.name,
                status.allocated_ip_count,
                pool.used()
            );
            self.blame("S12", &what);
        }
        if text.len() > BYTES_MAX {
            self.blame(
                "S14",
                &format!("{} has {} bytes of records", pool.name, text.len()),
            );
        }
    }

    /// S3, S4, S7, S13 and the hold-off: what went, and what came.
    fn records(&mut self, commit: &Commit, old: Option<&Pool>, new: &Pool) {
        let before: BTreeMap<IpAddr, &Record> = old
            .into_iter()
            .flat_map(|pool| pool.records.iter())
            .collect();
        for (address, was) in &before {
            let now = new.records.get(*address);
            if now.is_none_or(|now| now.uid != was.uid || (now.kept && !was.kept)) {
                self.released(commit, new, *address, was);
            }
        }
        for (address, record) in new.records.iter() {
            let was = before.get(&address);
            if was.is_none_or(|was| was.uid != record.uid) {
                self.recorded(commit, new, address, record);
            }
        }
    }

    fn released(&mut self, commit: &Commit, pool: &Pool, address: IpAddr, was: &Record) {
        if was.kept {
            return; // nobody has it
        }
        let uid = was.uid.as_str();
        let what = |why: &str| {
            format!(
                "{} took {address} of {} from {} ({uid}): {why}",
                commit.actor, pool.name, was.pod
            )
        };
        let elsewhere = self
            .users
            .iter()
            .any(|(other, user)| user.uid == uid && *other != address);
        if self.pods.get(uid).is_some_and(|pod| !pod.over) && !elsewhere {
            self.blame("S3", &what("the Pod lives"));
        }
        if let Some(user) = self.users.get(&address)
            && user.uid == uid
            && user.first_del.is_none_or(|at| at.elapsed() < NAMESPACE_MAX)
        {
            self.blame("S3", &what("its sandbox has it still"));
        }
    }

    fn recorded(&mut self, commit: &Commit, pool: &Pool, address: IpAddr, record: &Record) {
        let uid = record.uid.as_str();
        let what = |why: &str| {
            format!(
                "{} gave {address} of {} to {} ({uid}): {why}",
                commit.actor, pool.name, record.pod
            )
        };
        if !pool.is_admitted() {
            self.blame("S4", &what("the pool is not admitted"));
        }
        if !pool.total().contains(address) {
            self.blame("S4", &what("the pool does not have it"));
        }
        if self.reserved.values().any(|set| set.contains(address)) {
            self.blame("S4", &what("it is reserved"));
        }
        match self.pods.get(uid) {
            None => self.blame("S13", &what("there never was such a Pod")),
            Some(pod) if Some(pod.node.as_str()) != record.node.as_ref().map(NodeName::as_str) => {
                self.blame("S13", &what("the Pod is on another node"));
            }
            Some(_) => {}
        }
        if self
            .let_go
            .get(&address)
            .is_some_and(|at| at.elapsed() < HOLD_OFF)
        {
            self.blame("hold-off", &what("its last sandbox goes only now"));
        }
        if let Some(user) = self.users.get(&address)
            && user.uid != uid
            && user.first_del.is_none_or(|at| at.elapsed() < NAMESPACE_MAX)
        {
            let other = what(&format!("{} on {} has it", user.uid, user.node));
            self.blame("S1", &other);
        }
    }

    /// S1, S5, S6 by the core's own checker.
    fn audit(&mut self, commit: &Commit) {
        let world = World {
            subnets: self.subnets.values().cloned().collect(),
            pools: self.pools.values().cloned().collect(),
            residents: None, // who has what is looked at call by call
        };
        for found in audit(&world) {
            let what = format!(
                "{} ({}) after {} by {}",
                found,
                found.reason(),
                commit.key.name,
                commit.actor
            );
            self.blame("S1/S5/S6", &what);
        }
    }

    /// S1, S2, S7, S9, S10, S17: what a runtime was told.
    fn given(&mut self, node: &str, uid: &str, sandbox: &str, told: &[Told]) {
        let addresses: BTreeSet<IpAddr> = told.iter().map(|told| told.address).collect();
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        self.enter(&format!(
            "{node} gave {} to {uid} {sandbox:.8}",
            texts.join(",")
        ));
        for told in told {
            self.check_reply(uid, told);
            let user = User {
                uid: uid.to_owned(),
                sandbox: sandbox.to_owned(),
                node: node.to_owned(),
                first_del: None,
            };
            if let Some(other) = self.users.insert(told.address, user)
                && other.uid != uid
            {
                let (address, pod) = (told.address, &other.uid);
                self.blame(
                    "S1",
                    &format!(
                        "{uid} was handed {address}, which {pod} on {} has",
                        other.node
                    ),
                );
            }
        }
        if let Some(before) = self.given.insert(uid.to_owned(), addresses.clone())
            && before != addresses
        {
            self.blame(
                "S7",
                &format!("{uid} was given {before:?} before, and now {addresses:?}"),
            );
        }
        self.check_fixed(uid, &addresses);
    }

    fn check_reply(&mut self, uid: &str, told: &Told) {
        let Told {
            address,
            prefix,
            gateway,
            pool,
        } = told;
        let what = |why: &str| format!("{uid} was handed {address} of {pool}: {why}");
        let Some(found) = self.pools.get(pool) else {
            return self.blame("S2", &what("there is no such pool"));
        };
        let recorded = found
            .records
            .get(*address)
            .is_some_and(|r| r.uid.as_str() == uid);
        let fits = found.cidr.prefix_len() == *prefix && found.gateway == *gateway;
        let owner = found
            .owner
            .as_ref()
            .map(|owner| owner.uid.as_str().to_owned());
        if !recorded {
            self.blame("S2", &what("it is not recorded"));
        }
        if !fits {
            self.blame("S17", &what("prefix or gateway is not the pool's"));
        }
        let workload = self.top(uid);
        match owner {
            Some(owner) if owner != workload => {
                self.blame(
                    "S10",
                    &what(&format!("the pool is {owner}'s, the Pod {workload}'s")),
                );
            }
            None if self.wants_subnet.contains(&workload) => {
                self.blame("S10", &what("its workload has a pool of its own"));
            }
            _ => {}
        }
    }

    fn check_fixed(&mut self, uid: &str, addresses: &BTreeSet<IpAddr>) {
        let Some(set) = self.owners.get(uid).cloned() else {
            return;
        };
        let Some(pod) = self
            .pods
            .get(uid)
            .filter(|_| self.replicas.contains_key(&set))
        else {
            return;
        };
        let key = (set, pod.name.clone());
        if let Some(before) = self.fixed.insert(key.clone(), addresses.clone())
            && before != *addresses
        {
            self.blame(
                "S9",
                &format!("{} had {before:?}, and now {addresses:?}", key.1),
            );
        }
    }

    fn top<'s>(&'s self, uid: &'s str) -> String {
        let mut top = uid;
        while let Some(owner) = self.owners.get(top) {
            top = owner;
        }
        top.to_owned()
    }
}

/// People, and the cluster's own programs.
pub(crate) fn is_foreign(actor: &str) -> bool {
    !(actor.starts_with("controller") || actor.starts_with("agent"))
}
