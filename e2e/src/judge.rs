//! "No address twice", judged from outside the product.
//!
//! Two witnesses, one rule. The [`crate::tap`] tells from when to when each Pod held an address:
//! from the plugin's reply until the call that gave it back. A walk through the network namespaces
//! of each node tells which of them carried an address, whatever anybody said. Two holders of one
//! address at one time are a violation.
//!
//! Both err on the side of the product: a hold is taken to begin when it surely had begun, and to
//! end when it surely had not ended. So a violation is never a matter of timing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::node::Node;
use crate::command::run;
use crate::progress::say;
use crate::tap::{self, Begun, Call, now};
use crate::{cni, wait};

/// Least and longest pause between two walks through a node.
const WALK_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// From when to when somebody held an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// The address.
    pub address: String,
    /// When it was surely held already, as time since 1970.
    pub from: Duration,
    /// When it was surely still held; `None` if to this day.
    pub until: Option<Duration>,
    /// Who held it: a Pod's UID, or a network namespace.
    pub owner: String,
}

/// Two holders of one address at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    first: Hold,
    second: Hold,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second } = self;
        write!(f, "address {} was held by {}", first.address, first.owner)?;
        let until = |hold: &Hold| hold.until.map(|until| until.as_secs_f64());
        match until(first) {
            Some(until) => write!(f, " from {:.3} to {until:.3}", first.from.as_secs_f64())?,
            None => write!(f, " from {:.3} on", first.from.as_secs_f64())?,
        }
        write!(
            f,
            " and by {} from {:.3} on",
            second.owner,
            second.from.as_secs_f64()
        )
    }
}

/// Every pair of different owners that held one address at one time.
///
/// Touching is not overlapping: an address given the moment another gave it back is fine. Cost:
/// O(n log n) and the number of holds that last at one time.
pub fn overlaps(mut holds: Vec<Hold>) -> Vec<Overlap> {
    // Never surely held for any time.
    holds.retain(|hold| hold.until.is_none_or(|until| until > hold.from));
    holds.sort();
    let mut found = Vec::new();
    let mut lasting: Vec<Hold> = Vec::new();
    for hold in holds {
        lasting.retain(|earlier| {
            earlier.address == hold.address && earlier.until.is_none_or(|until| until > hold.from)
        });
        let others = lasting.iter().filter(|earlier| earlier.owner != hold.owner);
        found.extend(others.map(|first| Overlap {
            first: first.clone(),
            second: hold.clone(),
        }));
        lasting.push(hold);
    }
    found
}

/// The holds that calls of the plugin amount to: from the reply to ADD to the call of the DEL that
/// was accepted for the same sandbox and interface. Where the last DEL is one of `unanswered` nobody
/// knows, and the calls tell of no hold after it: the walks do.
pub fn holds_of_calls(calls: &[Call], unanswered: &[Begun]) -> Vec<Hold> {
    let mut calls: Vec<&Call> = calls.iter().filter(|call| call.succeeded).collect();
    // A DEL ends an ADD that it overtakes: the runtime had given that one up.
    calls.sort_by_key(|call| call.began);
    let mut holds = Vec::<Hold>::new();
    let mut open = BTreeMap::<(&str, &str), Vec<usize>>::new();
    for call in calls {
        let sandbox = (call.container.as_str(), call.interface.as_str());
        if call.command == "DEL" {
            for nth in open.remove(&sandbox).unwrap_or_default() {
                holds[nth].until = Some(call.began);
            }
            continue;
        }
        for address in &call.addresses {
            open.entry(sandbox).or_default().push(holds.len());
            holds.push(Hold {
                address: address.clone(),
                from: call.ended,
                until: None,
                owner: call.uid.clone(),
            });
        }
    }
    for del in unanswered {
        let sandbox = (del.container.as_str(), del.interface.as_str());
        for nth in open.remove(&sandbox).unwrap_or_default() {
            holds[nth].until = Some(del.begun);
        }
    }
    holds
}

/// Watches a cluster until it is ended.
#[derive(Debug)]
pub struct Judge {
    nodes: Vec<Node>,
    since: Duration,
    stop: Arc<AtomicBool>,
    walkers: Vec<JoinHandle<Sightings>>,
    walks: Vec<Arc<AtomicU32>>,
}

impl Judge {
    /// Puts the tap before the product's plugin and starts walking through the nodes.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let since = now();
        for node in cluster.nodes() {
            tap::install(node, &cluster.exe())?;
        }
        cluster.install_conflist(&cni::macvlan(&cni::product(tap::NAME)))?;
        let mut judge = Self {
            nodes: cluster.nodes().to_vec(),
            since,
            stop: Arc::default(),
            walkers: Vec::new(),
            walks: Vec::new(),
        };
        for node in cluster.nodes() {
            let node = node.clone();
            let (stop, walks) = (Arc::clone(&judge.stop), Arc::<AtomicU32>::default());
            judge.walks.push(Arc::clone(&walks));
            judge
                .walkers
                .push(thread::spawn(move || walk_until(&node, &stop, &walks)));
        }
        Ok(judge)
    }

    /// How often each node was walked through so far.
    pub fn walks(&self) -> Vec<u32> {
        self.walks
            .iter()
            .map(|walks| walks.load(Ordering::Relaxed))
            .collect()
    }

    /// Stops watching. Errors: an address was held twice at one time, and is not one of `shared`.
    pub fn end(mut self, shared: &[&str]) -> Result<()> {
        let mut holds = Vec::new();
        for walker in self.stop_walkers() {
            let seen = walker.map_err(|_| anyhow!("a walk through a node failed"))?;
            holds.extend(seen.into_holds());
        }
        let (mut calls, mut unanswered) = (Vec::new(), Vec::new());
        for node in &self.nodes {
            let of_node = tap::calls(node, self.since)?;
            unanswered.extend(tap::unanswered(node, self.since, &of_node)?);
            calls.extend(of_node);
        }
        let walks: u32 = self.walks().iter().sum();
        let (sighted, called) = (holds.len(), holds_of_calls(&calls, &unanswered));
        say(format_args!(
            "judged: {} calls gave {} addresses; {walks} walks saw {sighted} on interfaces",
            calls.len(),
            called.len()
        ));
        let mut twice = overlaps(holds);
        twice.extend(overlaps(called));
        twice.retain(|overlap| !shared.contains(&overlap.first.address.as_str()));
        let lines: Vec<String> = twice.iter().map(Overlap::to_string).collect();
        ensure!(
            lines.is_empty(),
            "no address twice is violated: {}",
            lines.join("; ")
        );
        Ok(())
    }

    fn stop_walkers(&mut self) -> Vec<thread::Result<Sightings>> {
        self.stop.store(true, Ordering::Relaxed);
        self.walkers.drain(..).map(JoinHandle::join).collect()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.stop_walkers();
        let own = cni::macvlan(&cni::product(cni::PRODUCT));
        for node in &self.nodes {
            if let Err(error) = node.install_conflist(&own) {
                say(format_args!("cannot take the tap away: {error:#}"));
            }
        }
    }
}

/// What walks through one node saw: the first and the last time of each address on each namespace.
#[derive(Debug, Default)]
struct Sightings {
    seen: BTreeMap<(String, String), (Duration, Duration)>,
}

impl Sightings {
    /// Takes in a walk that began and ended at these times.
    fn add(&mut self, began: Duration, ended: Duration, seen: Vec<(String, String)>) {
        for sight in seen {
            // Seen somewhen within the walk: surely there after its end, and before its begin.
            self.seen
                .entry(sight)
                .and_modify(|(_, last)| *last = began)
                .or_insert((ended, began));
        }
    }

    fn into_holds(self) -> impl Iterator<Item = Hold> {
        self.seen
            .into_iter()
            .map(|((owner, address), (from, until))| Hold {
                address,
                from,
                until: Some(until),
                owner,
            })
    }
}

fn walk_until(node: &Node, stop: &AtomicBool, walks: &AtomicU32) -> Sightings {
    let mut sightings = Sightings::default();
    while !stop.load(Ordering::Relaxed) && !wait::interrupted() {
        let began = now();
        if let Ok(seen) = walk(node) {
            sightings.add(began, now(), seen);
            walks.fetch_add(1, Ordering::Relaxed);
        }
        // Looking must not take the machine from those who are looked at.
        let took = now().saturating_sub(began);
        thread::sleep((took * 3).clamp(WALK_PAUSE.0, WALK_PAUSE.1));
    }
    sightings
}

/// Prints the addresses of each network namespace below its name; one that goes meanwhile is passed
/// over. (`ip -all netns exec` forks for ever deeper where namespaces come and go.)
const WALK: &str = "for file in /run/netns/*; do
    echo \"netns: ${file##*/}\"
    ip -netns \"${file##*/}\" -json address show scope global 2>/dev/null
done
true";

/// Addresses on the interfaces of each Pod's network namespace, with the namespace's name.
fn walk(node: &Node) -> Result<Vec<(String, String)>> {
    let text = run(node.lab().enter("sh").args(["-c", WALK]));
    let text = text.context("cannot walk through the network namespaces")?;
    Ok(parse_walk(node.name(), &text))
}

fn parse_walk(node: &str, text: &str) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    let mut namespace = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("netns: ") {
            namespace = format!("{node}/{}", name.trim());
        }
        let Ok(Value::Array(links)) = serde_json::from_str(line) else {
            continue;
        };
        let infos = links
            .iter()
            .filter_map(|link| link.get("addr_info")?.as_array())
            .flatten();
        let addresses = infos.filter_map(|info| info.get("local")?.as_str());
        seen.extend(addresses.map(|address| (namespace.clone(), address.to_owned())));
    }
    seen
}

#[cfg(test)]
mod tests;
