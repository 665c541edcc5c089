//! What would be, in words: tables for people, the same as data for programs.

use std::collections::BTreeMap;

use ipam::addr::AddrSet;
use ipam::audit::World;
use ipam::census;
use ipam::name::PoolName;
use ipam::plan::Reason;
use ipam::pool::Pool;
use serde::Serialize;

use super::outlook::Outlook;
use super::room::Served;
use crate::cli::render::{Report, Table, counted, paragraph};

/// Ranges of a pool that a table shows; the rest is counted.
const RANGES_SHOWN: usize = 2;

/// The answer of `orbweaver plan`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanView {
    /// True where every Pod would start and every workload gets what it wants.
    pub(super) fits: bool,
    changes: Vec<Change>,
    workloads: Vec<LoadView>,
    subnets: Vec<SubnetView>,
    /// Why it does not fit.
    problems: Vec<String>,
    notes: Vec<String>,
}

/// What would become of a pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    action: &'static str,
    pool: String,
    before: Size,
    after: Size,
    added: Vec<String>,
    removed: Vec<String>,
    because: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Size {
    addresses: u128,
    ips: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadView {
    workload: String,
    pods: u32,
    start: u32,
    /// How many more Pods could start, were there no others.
    more: u128,
    pools: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SubnetView {
    subnet: String,
    cidr: String,
    total: u128,
    taken_before: u128,
    taken: u128,
    free: u128,
}

impl PlanView {
    pub(super) fn of(outlook: &Outlook) -> Self {
        let failing = outlook
            .served
            .iter()
            .filter(|served| served.start < served.pods);
        let mut problems: Vec<String> = failing.map(problem).collect();
        problems.extend(outlook.problems.iter().cloned());
        Self {
            fits: problems.is_empty(),
            changes: changes(outlook),
            workloads: outlook.served.iter().map(workload).collect(),
            subnets: subnets(outlook),
            problems,
            notes: outlook.notes.clone(),
        }
    }
}

fn problem(served: &Served) -> String {
    let Served {
        workload,
        pods,
        start,
        because,
        ..
    } = served;
    let who = workload.to_string();
    let why = because
        .as_deref()
        .unwrap_or("its pools have no address left");
    // Many reasons begin with who they are about.
    let why = why.strip_prefix(&format!("{who}: ")).unwrap_or(why);
    format!(
        "{who}: {} of {pods} Pods would not start: {why}",
        pods - start
    )
}

fn workload(served: &Served) -> LoadView {
    let mut pools: Vec<String> = served
        .choices
        .iter()
        .flatten()
        .map(PoolName::to_string)
        .collect();
    pools.dedup();
    LoadView {
        workload: served.workload.to_string(),
        pods: served.pods,
        start: served.start,
        more: served.more.get(),
        pools,
        because: served.because.clone(),
    }
}

/// What the deeds come to, pool by pool.
fn changes<'o>(outlook: &'o Outlook) -> Vec<Change> {
    let by_name = |world: &'o World| -> BTreeMap<&'o PoolName, &'o Pool> {
        world.pools.iter().map(|pool| (&pool.name, pool)).collect()
    };
    let (before, after) = (by_name(&outlook.was), by_name(&outlook.will));
    let mut reasons: BTreeMap<&PoolName, Vec<&Reason>> = BTreeMap::new();
    for (name, reason) in &outlook.deeds {
        reasons.entry(name).or_default().push(reason);
    }
    let each = reasons.into_iter().filter_map(|(name, reasons)| {
        let (before, after) = (before.get(name).copied(), after.get(name).copied());
        change(name, before, after, &reasons)
    });
    each.collect()
}

/// `None` where nothing that a person sees has changed in the end.
fn change(
    name: &PoolName,
    before: Option<&Pool>,
    after: Option<&Pool>,
    reasons: &[&Reason],
) -> Option<Change> {
    let (old, new) = (before.map(Pool::total), after.map(Pool::total));
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let (added, removed) = (new.difference(&old), old.difference(&new));
    let admitted = |pool: Option<&Pool>| pool.is_some_and(Pool::is_admitted);
    let action = match (before, after) {
        (None, Some(_)) => "create",
        (Some(_), None) => "delete",
        (Some(_), Some(_)) if !added.is_empty() && !removed.is_empty() => "move",
        (Some(_), Some(_)) if !added.is_empty() => "grow",
        (Some(_), Some(_)) if !removed.is_empty() => "shrink",
        (Some(_), Some(_)) if !admitted(before) && admitted(after) => "admit",
        (None, None) | (Some(_), Some(_)) => return None,
    };
    let mut because: Vec<String> = vec![];
    for reason in reasons
        .iter()
        .filter(|reason| !matches!(reason, Reason::Protect))
    {
        let text = reason.to_string();
        if !because.contains(&text) {
            because.push(text);
        }
    }
    Some(Change {
        action,
        pool: name.to_string(),
        before: size(&old),
        after: size(&new),
        added: added.to_texts(),
        removed: removed.to_texts(),
        because,
    })
}

fn size(ips: &AddrSet) -> Size {
    Size {
        addresses: ips.count().get(),
        ips: ips.to_texts(),
    }
}

fn subnets(outlook: &Outlook) -> Vec<SubnetView> {
    let Outlook {
        was,
        will,
        reserved,
        ..
    } = outlook;
    let each = will.subnets.iter().map(|subnet| {
        let before = was.subnets.iter().find(|old| old.name == subnet.name);
        let before = before.map(|old| census::of_subnet(old, was, reserved).taken.get());
        let figures = census::of_subnet(subnet, will, reserved);
        SubnetView {
            subnet: subnet.name.to_string(),
            cidr: subnet.cidr.to_string(),
            total: figures.total.get(),
            taken_before: before.unwrap_or(0),
            taken: figures.taken.get(),
            free: figures.free.get(),
        }
    });
    each.collect()
}

/// `3`, or `0→3`.
fn arrow(before: u128, after: u128) -> String {
    if before == after {
        after.to_string()
    } else {
        format!("{before}→{after}")
    }
}

/// The first few ranges, with a sign.
fn ranges(sign: char, ranges: &[String]) -> Vec<String> {
    let shown = ranges
        .iter()
        .take(RANGES_SHOWN)
        .map(|range| format!("{sign}{range}"));
    let mut shown: Vec<String> = shown.collect();
    if ranges.len() > RANGES_SHOWN {
        shown.push(format!("{sign}{} ranges", ranges.len() - RANGES_SHOWN));
    }
    shown
}

impl Change {
    /// A new pool is there for its workload; of any other all that was done to it is told.
    fn why(&self) -> String {
        match (self.action, self.because.first()) {
            ("create", Some(first)) => first.clone(),
            _ => self.because.join("; "),
        }
    }
}

impl Report for PlanView {
    fn text(&self, width: Option<usize>) -> String {
        let mut parts = vec![self.changes_text(width), self.workloads_text(width)];
        parts.push(self.subnets_text(width));
        let problems = self
            .problems
            .iter()
            .map(|text| paragraph("! ", text, width));
        parts.push(problems.collect());
        let notes = self
            .notes
            .iter()
            .map(|text| paragraph("note: ", text, width));
        parts.push(notes.collect());
        parts.push(self.verdict());
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }
}

impl PlanView {
    fn changes_text(&self, width: Option<usize>) -> String {
        if self.changes.is_empty() {
            return "no pool would change\n".to_owned();
        }
        let mut table = Table::new(&["ACTION", "POOL", "SIZE", "ADDRESSES", "WHY"]);
        for change in &self.changes {
            let mut addresses = ranges('+', &change.added);
            addresses.extend(ranges('-', &change.removed));
            table.row([
                change.action.to_owned(),
                change.pool.clone(),
                arrow(change.before.addresses, change.after.addresses),
                addresses.join(" "),
                change.why(),
            ]);
        }
        table.text(width)
    }

    fn workloads_text(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["WORKLOAD", "PODS", "START", "MORE", "POOLS"]);
        for load in &self.workloads {
            table.row([
                load.workload.clone(),
                load.pods.to_string(),
                load.start.to_string(),
                load.more.to_string(),
                load.pools.join(" "),
            ]);
        }
        if table.is_empty() {
            String::new()
        } else {
            table.text(width)
        }
    }

    fn subnets_text(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["SUBNET", "CIDR", "TOTAL", "TAKEN", "FREE"]);
        for subnet in &self.subnets {
            table.row([
                subnet.subnet.clone(),
                subnet.cidr.clone(),
                subnet.total.to_string(),
                arrow(subnet.taken_before, subnet.taken),
                subnet.free.to_string(),
            ]);
        }
        if table.is_empty() {
            String::new()
        } else {
            table.text(width)
        }
    }

    fn verdict(&self) -> String {
        let workloads = counted(self.workloads.len(), "workload");
        let pods: u64 = self.workloads.iter().map(|w| u64::from(w.pods)).sum();
        let start: u64 = self.workloads.iter().map(|w| u64::from(w.start)).sum();
        let waiting = self.workloads.iter().filter(|w| w.start < w.pods).count();
        let all = format!("{workloads}, {}", counted(pods, "Pod"));
        match waiting {
            0 if self.fits => format!("fits: {all}, all start\n"),
            0 => format!("does not fit, though all start ({all}): see above\n"),
            _ => format!(
                "does not fit: {} of {} would not start ({waiting} of {workloads})\n",
                pods - start,
                counted(pods, "Pod")
            ),
        }
    }
}
