//! Stories of plans, as text to be read: `tests/scenarios/*.txt`.
//!
//! A line that begins with `>` is something that happens, one that begins with `#` says why; the
//! indented lines are what the controller then does, write by write, until it rests, and how the
//! world looks afterwards. `SCENARIOS=write cargo test -p orbweaver-ipam --test scenarios` writes
//! all of the latter anew: read the difference before it is committed.
//!
//! ```text
//! > cidr NET                                begins a new world
//! > subnet NAME IPS [gateway IP]            makes or edits the subnet
//! > workload NAME replicas N [size RULE] [surge N] [kept]
//! > remove NAME | moved NAME                a workload goes, or asks elsewhere
//! > pod WORKLOAD A | bare POOL A            Pod A starts and asks for an address
//! > stop A | end A                          it is deleted; it is gone and has let go
//! > pool NAME IPS | edit NAME IPS | exclude NAME IPS | delete NAME | force NAME
//! > reserve IPS | elsewhere NAME | wait SECONDS | crash after N
//! > delete subnet | lose ledger
//! > old NAME IPS IPS                        a pool as the original left it, and Pods that have the latter
//! > ledger NAME IPS                         what the original's ledger gives a pool
//! > of NAME WORKLOAD                        a pool that the original made for a workload
//! > orphan NAME IP | unrecord NAME IP       a record without its Pod, a Pod without its record
//! > break NAME | mend NAME                  the pool's records can't be read; they can again
//! > look                                    the next controller starts
//! ```
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail by panic"
)]

mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use ipam::addr::{AddrSet, Family, parse_list};
use ipam::affinity::Selector;
use ipam::annotation::SizeRule;
use ipam::name::{PoolName, SubnetName, Uid};
use ipam::plan::{Needs, Plan, PoolWrite, Step};
use ipam::pool::Owner;
use ipam::subnet::Entry;

use world::{Lag, Pass, Workload, World};

#[test]
fn every_story_goes_as_told() {
    #[expect(
        clippy::disallowed_methods,
        reason = "one variable rewrites all; no part of the core"
    )]
    let write = std::env::var("SCENARIOS").is_ok_and(|v| v == "write");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(files.len() >= 27, "stories are missing");
    let mut changed = vec![];
    for file in files {
        let told = std::fs::read_to_string(&file).unwrap();
        let goes = tell(&told);
        if told != goes {
            if write {
                std::fs::write(&file, &goes).unwrap();
            }
            changed.push(format!("{}\n{goes}", file.display()));
        }
    }
    assert!(
        write || changed.is_empty(),
        "other than told:\n{}",
        changed.join("\n")
    );
}

/// The story with what really happens.
fn tell(told: &str) -> String {
    let mut teller = Teller::new("10.6.0.0/24");
    let mut story = String::new();
    let mut lines = told
        .lines()
        .filter(|l| l.starts_with('>') || l.starts_with('#'))
        .peekable();
    while let Some(line) = lines.next() {
        writeln!(story, "{line}").unwrap();
        let Some(event) = line.strip_prefix("> ") else {
            continue;
        };
        let said = teller.happen(&event.split_whitespace().collect::<Vec<_>>());
        story.extend(said.map(|said| format!("    {said}\n")));
        if lines.peek().is_none_or(|next| next.starts_with('#')) {
            teller.controller(&mut story);
            teller.state(&mut story);
            story.push('\n');
        }
    }
    story.truncate(story.trim_end().len());
    story.push('\n');
    story
}

struct Teller {
    world: World,
    /// Pods by the names that the story gives them.
    pods: BTreeMap<String, Uid>,
    /// How often a workload of this name was made.
    made: BTreeMap<String, u32>,
    surplus: BTreeMap<PoolName, DateTime<Utc>>,
    crash_after: Option<usize>,
}

impl Teller {
    fn new(cidr: &str) -> Self {
        Self {
            world: World::new(cidr),
            pods: BTreeMap::new(),
            made: BTreeMap::new(),
            surplus: BTreeMap::new(),
            crash_after: None,
        }
    }

    fn ips(&self, text: &str) -> AddrSet {
        let ranges: Vec<&str> = text.split(',').filter(|range| *range != "none").collect();
        parse_list(&ranges, Family::of(self.world.cidr.addr())).unwrap()
    }

    fn happen(&mut self, event: &[&str]) -> Option<String> {
        match event {
            ["cidr", cidr] => *self = Self::new(cidr),
            ["subnet", name, ips] => self.subnet(name, ips, None),
            ["subnet", name, ips, "gateway", gateway] => self.subnet(name, ips, Some(gateway)),
            ["old", name, ips, in_use] => self.old(name, ips, in_use),
            ["ledger", name, ips] => {
                let ips = self.ips(ips);
                self.world.edit_subnet(|s| {
                    let ledger = s.ledger.get_or_insert_default();
                    let application = None;
                    ledger.set(&PoolName::from(*name), Entry { ips, application });
                });
            }
            ["of", name, workload] => {
                let wanting = &self.world.workloads[*workload];
                let (id, nic) = (&wanting.id, &wanting.nic);
                let owner = Owner::of(id, nic, &SubnetName::from("net4"), wanting.reclaim);
                let five = Selector::default().for_workload(id);
                self.world.edit_pool(&PoolName::from(*name), |pool| {
                    pool.owner = Some(owner);
                    pool.restrictions.pod_affinity = Some(Ok(five));
                });
            }
            ["orphan", name, address] => {
                let at = self.world.start_pod(None);
                let record = self.world.old_record(at);
                self.world.pods.remove(at);
                self.world.edit_pool(&PoolName::from(*name), |pool| {
                    pool.records.insert(address.parse().unwrap(), record);
                });
            }
            ["unrecord", name, address] => {
                self.world.edit_pool(&PoolName::from(*name), |pool| {
                    pool.records.remove(address.parse().unwrap());
                });
            }
            ["break", name] => self.world.set_broken(&PoolName::from(*name), true),
            ["mend", name] => self.world.set_broken(&PoolName::from(*name), false),
            ["delete", "subnet"] => self.world.edit_subnet(|s| s.terminating = true),
            ["lose", "ledger"] => self.world.edit_subnet(|s| s.ledger = None),
            ["workload", name, wishes @ ..] => self.workload(name, wishes),
            ["remove", name] => {
                self.world.workloads.remove(*name);
            }
            ["moved", name] => self.world.workloads.get_mut(*name).unwrap().asks = false,
            ["pod", workload, pod] => {
                let id = self.world.workloads[*workload].id.clone();
                let at = self.pods.get(*pod).and_then(|uid| self.at(uid));
                let at = at.unwrap_or_else(|| self.world.start_pod(Some(&id)));
                self.pods
                    .insert((*pod).to_owned(), self.world.pods[at].uid.clone());
                let pools = self.world.pools_of(&id);
                let got = pools.iter().any(|pool| self.world.ask(at, pool));
                return Some(self.outcome(pod, at, got));
            }
            ["bare", pool, pod] => {
                let at = self.world.start_pod(None);
                self.pods
                    .insert((*pod).to_owned(), self.world.pods[at].uid.clone());
                let got = self.world.ask(at, &PoolName::from(*pool));
                return Some(self.outcome(pod, at, got));
            }
            ["stop", pod] => {
                let at = self.at(&self.pods[*pod]).unwrap();
                self.world.stop_pod(at);
            }
            ["end", pod] => {
                let at = self.at(&self.pods[*pod]).unwrap();
                assert!(self.world.end_pod(at));
            }
            ["pool", name, ips] => {
                let pool = self.world.new_pool(&PoolName::from(*name), &self.ips(ips));
                assert!(self.world.create_pool(pool));
            }
            ["edit", name, ips] => {
                let ips = self.ips(ips);
                self.world
                    .edit_pool(&PoolName::from(*name), |pool| pool.ips = ips);
            }
            ["exclude", name, ips] => {
                let ips = self.ips(ips);
                self.world
                    .edit_pool(&PoolName::from(*name), |pool| pool.excluded = ips);
            }
            ["delete", name] => self.world.delete_pool(&PoolName::from(*name)),
            ["force", name] => self.world.force_pool_away(&PoolName::from(*name)),
            ["reserve", ips] => self.world.reserved = self.ips(ips),
            ["elsewhere", name] => {
                self.world.names_elsewhere.insert(PoolName::from(*name));
            }
            ["wait", seconds] => {
                self.world.now += TimeDelta::seconds(seconds.parse().unwrap());
            }
            ["look"] => {}
            ["crash", "after", steps] => self.crash_after = Some(steps.parse().unwrap()),
            _ => panic!("nobody knows what {event:?} means"),
        }
        self.world.revision();
        None
    }

    fn old(&mut self, name: &str, ips: &str, in_use: &str) {
        let (ips, in_use) = (self.ips(ips), self.ips(in_use));
        let mut pool = self.world.new_pool(&PoolName::from(name), &ips);
        pool.finalizer = true;
        for address in in_use.iter() {
            let at = self.world.start_pod(None);
            self.world.pods[at].address = Some(address);
            pool.records.insert(address, self.world.old_record(at));
            let uid = self.world.pods[at].uid.clone();
            self.pods.insert(address.to_string(), uid);
        }
        assert!(self.world.create_pool(pool));
    }

    fn subnet(&mut self, name: &str, ips: &str, gateway: Option<&str>) {
        let (ips, gateway) = (self.ips(ips), gateway.map(|ip| ip.parse().unwrap()));
        if self.world.subnet.is_none() {
            self.world.create_subnet(name, &ips, gateway);
        } else {
            self.world.edit_subnet(|s| s.ips = ips);
        }
    }

    fn workload(&mut self, name: &str, wishes: &[&str]) {
        if !self.world.workloads.contains_key(name) {
            let number = self.made.entry(name.to_owned()).or_default();
            *number += 1;
            let new = Workload::new(name, &format!("{name}-{number:05}"));
            self.world.workloads.insert(name.to_owned(), new);
        }
        let workload = self.world.workloads.get_mut(name).unwrap();
        let mut wishes = wishes.iter();
        while let Some(wish) = wishes.next() {
            let mut value = || *wishes.next().unwrap();
            match *wish {
                "replicas" => workload.replicas = value().parse().unwrap(),
                "surge" => workload.surge = value().parse().unwrap(),
                "size" => {
                    let text = value();
                    workload.rule = match text.strip_prefix('+') {
                        Some(spare) => SizeRule::Flexible(spare.parse().unwrap()),
                        None => SizeRule::Fixed(text.parse().unwrap()),
                    };
                }
                "kept" => workload.reclaim = false,
                other => panic!("nobody knows what {other} means"),
            }
        }
    }

    fn at(&self, uid: &Uid) -> Option<usize> {
        self.world.pods.iter().position(|pod| pod.uid == *uid)
    }

    fn outcome(&self, pod: &str, at: usize, got: bool) -> String {
        match self.world.pods[at].address {
            Some(address) if got => format!("{pod} has {address}"),
            _ => format!("{pod} waits"),
        }
    }

    /// Lets the controller work until it rests, or waits for time to pass.
    fn controller(&mut self, story: &mut String) {
        for number in 1..20 {
            let mut pass = Pass::begin(&mut self.world, 0, Lag::default(), &mut self.surplus);
            if pass.is_done() {
                match pass.plan.wake_at {
                    Some(at) => {
                        let rest = (at - self.world.now).num_seconds();
                        writeln!(story, "    waits for {rest} s").unwrap();
                    }
                    None if number == 1 => story.push_str("    nothing to do\n"),
                    None => {}
                }
                return;
            }
            writeln!(story, "    pass {number}").unwrap();
            let limit = self.crash_after.take().unwrap_or(usize::MAX);
            for done in 0.. {
                if done == limit {
                    story.push_str("      crash\n");
                    self.surplus.clear();
                    return;
                }
                let Some((step, landed)) = pass.step(&mut self.world, 0) else {
                    break;
                };
                assert!(landed, "{step:?} fails");
                say(story, &step);
            }
        }
        panic!("the controller never rests");
    }

    fn state(&mut self, story: &mut String) {
        let world = &self.world;
        story.push_str("    then\n");
        if let Some(subnet) = &world.subnet {
            let taken = world.ledger().count();
            let going = if subnet.terminating {
                ", being deleted"
            } else {
                ""
            };
            let total = subnet.total().count();
            writeln!(
                story,
                "      subnet {}: {taken} of {total} taken{going}",
                subnet.name
            )
            .unwrap();
        }
        let gone: Vec<_> = world
            .ledger()
            .iter()
            .map(|(name, e)| (name.clone(), e.ips.clone()))
            .collect();
        for (name, ips) in gone
            .iter()
            .filter(|(name, _)| !world.pools.contains_key(name))
        {
            writeln!(story, "      ledger keeps {} for {name}", list(ips)).unwrap();
        }
        for pool in world.pools.values() {
            let in_use = pool.records.addresses();
            let mut parts = vec![list(&pool.ips)];
            parts.extend(
                (!pool.excluded.is_empty()).then(|| format!("without {}", list(&pool.excluded))),
            );
            parts.extend((!in_use.is_empty()).then(|| format!("in use {}", list(in_use))));
            parts.extend((!pool.is_admitted()).then(|| "not admitted".to_owned()));
            parts.extend(pool.terminating.then(|| "being deleted".to_owned()));
            writeln!(story, "      pool {}: {}", pool.name, parts.join(", ")).unwrap();
        }
        let plan = Pass::begin(&mut self.world, 0, Lag::default(), &mut self.surplus).plan;
        complaints(story, &plan);
    }
}

/// Conditions that are not as one would wish them.
fn complaints(story: &mut String, plan: &Plan) {
    for (pool, conditions) in &plan.pools {
        for bad in conditions
            .iter()
            .filter(|c| c.kind.as_str() == "Ready" && !c.holds)
        {
            writeln!(story, "      {pool} says: {}: {}", bad.reason, bad.message).unwrap();
        }
    }
    for bad in plan
        .subnet
        .iter()
        .filter(|c| c.kind.as_str() == "Ready" && !c.holds)
    {
        writeln!(story, "      subnet says: {}: {}", bad.reason, bad.message).unwrap();
    }
}

fn list(ips: &AddrSet) -> String {
    if ips.is_empty() {
        "nothing".to_owned()
    } else {
        ips.to_texts().join(" ")
    }
}

fn say(story: &mut String, step: &Step) {
    let write = |w: &PoolWrite| {
        let edit = &w.edit;
        let parts = [
            edit.ips.as_ref().map(list),
            edit.admit.then(|| "admitted".to_owned()),
            (edit.raise_epoch && !edit.admit).then(|| "no longer admitted".to_owned()),
            edit.adopt.as_ref().map(|_| "adopted".to_owned()),
            edit.owner
                .as_ref()
                .map(|(o, _)| format!("of workload uid {}", o.uid)),
            edit.rule.map(|rule| format!("size {rule}")),
            edit.finalizer
                .map(|on| format!("finalizer {}", if on { "on" } else { "off" })),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{}: {} ({})", w.pool, parts.join(", "), w.because)
    };
    let line = match step {
        Step::ProtectSubnet { finalizer, .. } => {
            format!(
                "subnet  finalizer {}",
                if *finalizer { "on" } else { "off" }
            )
        }
        Step::Record { pool, found, .. } => {
            let found = found
                .iter()
                .map(|(ip, holder)| format!("{ip} of {}", holder.pod));
            format!("record  {pool}: {}", found.collect::<Vec<_>>().join(", "))
        }
        Step::Create(new) => format!("create  {}, empty", new.name),
        Step::Before(w) => format!("before  {}", write(w)),
        Step::Barrier => "barrier".to_owned(),
        Step::Ledger { edits, .. } => {
            for edit in edits {
                let needs = match edit.needs {
                    Needs::Nothing => "",
                    Needs::Written => ", if the pool was written",
                    Needs::Absent => ", if there is no such pool",
                };
                writeln!(
                    story,
                    "      ledger  {}: {}{needs}",
                    edit.pool,
                    list(&edit.entry.ips)
                )
                .unwrap();
            }
            return;
        }
        Step::After(w) => format!("after   {}", write(w)),
        Step::Delete { pool, because, .. } => format!("delete  {pool} ({because})"),
    };
    writeln!(story, "      {line}").unwrap();
}
