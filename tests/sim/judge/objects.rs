//! What may be stored: pools, ledgers and records, looked at whenever one is written.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::audit::{World, audit};
use ipam::name::NodeName;
use ipam::pool::Pool;
use ipam::record::Record;
use kubesim::{Change, Commit};
use orbweaver::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, convert};
use serde_json::Value;

use super::{FOREIGN, HOLD_OFF, KNOWN_AFTER, NAMESPACE_MAX, PodSeen, Sight, State, is_foreign};

impl State {
    pub(super) fn pod(&mut self, commit: &Commit) {
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

    pub(super) fn reserve(&mut self, commit: &Commit) {
        let name = commit.key.name.clone();
        match serde_json::from_value::<SpiderReservedIP>((*commit.new).clone()) {
            Ok(object) if commit.change != Change::Deleted => {
                self.reserved.insert(name, convert::reserved(&object).0);
            }
            _ => drop(self.reserved.remove(&name)),
        }
    }

    pub(super) fn subnet(&mut self, commit: &Commit) {
        let name = commit.key.name.clone();
        if commit.change == Change::Deleted {
            self.subnets.remove(&name);
            let label = |pool: &Pool| Some(pool.owner.as_ref()?.subnet.as_str().to_owned());
            let held = |pool: &&Pool| label(pool).as_deref() == Some(&*name);
            if let Some(pool) = self.pools.values().find(held)
                && !is_foreign(&commit.actor)
            {
                let what = format!("{} let subnet {name} go before {}", commit.actor, pool.name);
                self.blame("S15", &what);
            }
            return;
        }
        let object = serde_json::from_value::<SpiderSubnet>((*commit.new).clone());
        match object.map(|object| convert::subnet(&object)) {
            Ok(Ok(subnet)) => drop(self.subnets.insert(name, subnet)),
            wrong => self.blame("S11", &format!("subnet {name} can't be read: {wrong:?}")),
        }
    }

    pub(super) fn pool(&mut self, commit: &Commit) {
        let name = commit.key.name.clone();
        let old = self.pools.get(&name).cloned();
        self.kept_of_others(commit);
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
        // Until it is put right what stood there before counts: nobody has lost anything.
        let Ok(new) = convert::pool(&object) else {
            return self.garbled(commit);
        };
        self.garbled.remove(&*name);
        if is_foreign(&commit.actor) {
            self.freed_by_others(old.as_ref(), &new);
        } else {
            self.records(commit, old.as_ref(), &new);
            self.counters(commit, &object, &new);
            self.shrunk(commit, old.as_ref(), &new);
        }
        self.pools.insert(name, new);
    }

    /// S11: what others noted on a pool, or in a record of it, is there as long as that; what they wrote
    /// in place of records stays until they put it right.
    fn kept_of_others(&mut self, commit: &Commit) {
        let (Some(old), new) = (&commit.old, &*commit.new) else {
            return;
        };
        if is_foreign(&commit.actor) || commit.change == Change::Deleted {
            return;
        }
        let mut lost = Vec::new();
        let notes = |pool: &Value| pool["metadata"]["annotations"][FOREIGN].clone();
        if notes(old) != notes(new) {
            lost.push("the pool".to_owned());
        }
        let (was, now) = (raw_records(old), raw_records(new));
        if was.is_none() && text_of_records(old) != text_of_records(new) {
            lost.push("records that can't be read".to_owned());
        }
        let now = now.unwrap_or_default();
        for (address, was) in was.unwrap_or_default() {
            let same = now
                .get(&address)
                .filter(|now| now["podUid"] == was["podUid"]);
            if same.is_some_and(|now| now[FOREIGN] != was[FOREIGN]) {
                lost.push(format!("the record of {address}"));
            }
        }
        for of in lost {
            let (actor, name) = (&commit.actor, &commit.key.name);
            self.blame(
                "S11",
                &format!("{actor} lost what others wrote: {of} in {name}"),
            );
        }
    }

    /// S11: nobody but who garbled them writes records that can't be read.
    fn garbled(&mut self, commit: &Commit) {
        let (name, text) = (&commit.key.name, text_of_records(&commit.new));
        let was = self.garbled.insert(name.clone(), text.clone());
        if !is_foreign(&commit.actor) && was.as_ref() != Some(&text) {
            let what = format!("{} wrote {name}, which can't be read", commit.actor);
            self.blame("S11", &what);
        }
        self.saw(Sight::Garbled);
    }

    /// What somebody else takes out of a pool is free, whoever has it still.
    fn freed_by_others(&mut self, old: Option<&Pool>, new: &Pool) {
        for (address, was) in old.into_iter().flat_map(|pool| pool.records.iter()) {
            if new
                .records
                .get(address)
                .is_none_or(|now| now.uid != was.uid)
            {
                self.users.remove(&address);
                self.let_go.remove(&address);
            }
        }
    }

    /// O1: a workload's only pool does not fall below what that has asked for all along, unless
    /// somebody deleted the pool.
    fn shrunk(&mut self, commit: &Commit, old: Option<&Pool>, new: &Pool) {
        let owner = |pool: &Pool| Some(pool.owner.as_ref()?.uid.clone());
        let Some((old, uid)) = old.zip(owner(new)).filter(|_| !new.terminating) else {
            return;
        };
        let only = self
            .pools
            .values()
            .filter(|pool| owner(pool).as_ref() == Some(&uid));
        let Some(wish) = self.wishes.get(uid.as_str()) else {
            return;
        };
        if wish.goes || only.count() != 1 {
            return;
        }
        let wanted = u128::try_from(wish.replicas.saturating_add(1)).unwrap_or_default();
        let (before, now) = (old.total().count().get(), new.total().count().get());
        if wish.since.elapsed() > KNOWN_AFTER && before >= wanted && now < wanted {
            let (name, actor) = (&new.name, &commit.actor);
            let what =
                format!("{actor} left {now} addresses to {name} of {before}, wanted are {wanted}");
            self.blame("O1", &what);
        }
    }

    /// S12.
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
            if old.is_some_and(|old| old.total().contains(address))
                && !new.total().contains(address)
            {
                let (actor, name, pod) = (&commit.actor, &new.name, &record.pod);
                let what = format!("{actor} took {address} out of {name}, which {pod} has");
                self.blame("S4", &what);
            }
            if was.is_none_or(|was| was.uid != record.uid) {
                // A fixed address goes on to the next Pod whatever became of the pool meanwhile.
                let is_inherited =
                    was.is_some_and(|was| was.owner.is_some() && was.owner == record.owner);
                self.recorded(commit, new, address, record);
                if !is_inherited {
                    self.given_anew(commit, new, address, record);
                }
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

    fn given_anew(&mut self, commit: &Commit, pool: &Pool, address: IpAddr, record: &Record) {
        let what = |why: &str| {
            format!(
                "{} gave {address} of {} to {} ({}): {why}",
                commit.actor, pool.name, record.pod, record.uid
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
    }

    fn recorded(&mut self, commit: &Commit, pool: &Pool, address: IpAddr, record: &Record) {
        let uid = record.uid.as_str();
        let what = |why: &str| {
            format!(
                "{} gave {address} of {} to {} ({uid}): {why}",
                commit.actor, pool.name, record.pod
            )
        };
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
    pub(super) fn audit(&mut self, commit: &Commit) {
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
}

fn text_of_records(pool: &Value) -> String {
    let text = pool.pointer("/status/allocatedIPs").and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The records, read without the product's help; none where they can't be.
fn raw_records(pool: &Value) -> Option<BTreeMap<String, Value>> {
    match &*text_of_records(pool) {
        "" => Some(BTreeMap::new()),
        text => serde_json::from_str(text).ok(),
    }
}
