//! What would be: the controller rehearsed, and every Pod that would ask for an address served.
//!
//! Owns: which Pods still need an address, and what their pools can give. Never does: size a pool
//! or judge one: the first is the controller's own plan ([`crate::controller::rehearsal`]), the
//! second the agent's own search ([`crate::agent::explain`]). Nothing here reads a cluster.
//!
//! Pods that go (`--drain`, `--scale` down) are looked at twice: while they still hold their
//! addresses, and when they have let go. The second is the answer; what only the first lacks is
//! told as a wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ipam::addr::AddrSet;
use ipam::audit::World;
use ipam::census;
use ipam::name::{Nic, PoolName, Uid};
use ipam::plan::Reason;
use ipam::pool::Pool;
use ipam::record::Records;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde_json::json;

use super::change::Effects;
use super::objects::{Load, Objects};
use super::pods::{self, Families};
use super::room::{Found, Room, Served};
use super::shelf::Shelf;
use super::trouble::{outside, problems, told, waits};
use crate::agent::Settings;
use crate::agent::explain::{Explainer, Question, Ranking, Unserved};
use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, convert, time};
use crate::cli::render::counted;
use crate::controller::Options;
use crate::controller::rehearsal::Rehearsal;

/// Nodes that are tried for a Pod whose pools are for some nodes only.
const NODES_TRIED: usize = 16;
/// Most successors of one workload's Pods that are looked at while those leave: a node has not
/// nearly as many Pods.
const SUCCESSORS_MAX: usize = 10_000;
/// The interface of Pods that name none.
const FIRST_NIC: &str = "eth0";

/// What would be, before it is put into words.
pub(super) struct Outlook {
    /// Subnets and pools before and after.
    pub(super) was: World,
    pub(super) will: World,
    pub(super) reserved: AddrSet,
    /// Writes of pools, in order, and why.
    pub(super) deeds: Vec<(PoolName, Reason)>,
    /// Every workload whose Pods ask for addresses.
    pub(super) served: Vec<Served>,
    /// What does not fit, beside Pods that would not start.
    pub(super) problems: Vec<String>,
    /// Other sentences for people.
    pub(super) notes: Vec<String>,
}

/// What `objects`, which were `before` until somebody asked "what if", would come to at `now`.
///
/// Errors: an object can't be written as JSON, or the plan does not come to rest.
pub(super) async fn foresee(
    before: &Objects,
    mut objects: Objects,
    effects: Effects,
    options: &Options,
    settings: &Settings,
    now: DateTime<Utc>,
) -> anyhow::Result<Outlook> {
    let was = world(&before.subnets, &before.pools);
    let mut notes = std::mem::take(&mut objects.notes);
    notes.extend(effects.notes);
    let reserved = reserved(&objects.reserved);
    let mut stage = Rehearsal::new(options.features, &options.kinds, now);
    fill(&mut stage, &objects, &effects.leaving);
    let mut crowd = Crowd::new(&objects, &effects.leaving, settings, &reserved);
    crowd.succeed(&mut stage, &effects.leaving);
    stage.settle()?;
    let meanwhile = crowd.served(&stage).await?;
    let served = if effects.leaving.is_empty() {
        meanwhile
    } else {
        leave(&mut stage, &effects.leaving);
        stage.settle()?;
        let after = crowd.served(&stage).await?;
        notes.extend(waits(&meanwhile, &after));
        after
    };
    let raw: (Vec<_>, Vec<_>) = (
        stage.subnets().cloned().collect(),
        stage.pools().cloned().collect(),
    );
    let will = world(&raw.0, &raw.1);
    let mut problems = problems(&stage, &raw.0, &raw.1);
    problems.extend(outside(&was, &will));
    let failing = served.iter().filter(|s| s.start < s.pods);
    let failing: BTreeSet<&Uid> = failing.map(|s| &s.workload.uid).collect();
    let others = told(&stage)
        .into_iter()
        .filter(|(uid, _)| !failing.contains(uid));
    problems.extend(others.flat_map(|(_, texts)| texts));
    problems.dedup();
    if crowd.strangers > 0 {
        notes.push(format!(
            "left out, as they name neither subnet nor pool and there is no default pool: {}",
            counted(crowd.strangers, "workload")
        ));
    }
    Ok(Outlook {
        was,
        will,
        reserved,
        deeds: stage.deeds().to_vec(),
        served,
        problems,
        notes,
    })
}

fn world(subnets: &[SpiderSubnet], pools: &[SpiderIPPool]) -> World {
    World {
        subnets: subnets
            .iter()
            .filter_map(|s| convert::subnet(s).ok())
            .collect(),
        pools: pools.iter().filter_map(|p| convert::pool(p).ok()).collect(),
        residents: None,
    }
}

fn reserved(objects: &[SpiderReservedIP]) -> AddrSet {
    let sets = objects.iter().map(|object| convert::reserved(object).0);
    sets.fold(AddrSet::new(), |all, set| all.union(&set))
}

/// Puts everything on the stage; Pods that leave are being deleted there.
fn fill(stage: &mut Rehearsal, objects: &Objects, leaving: &BTreeSet<Uid>) {
    for subnet in &objects.subnets {
        stage.subnet(subnet.clone());
    }
    for pool in &objects.pools {
        stage.pool(pool.clone());
    }
    for reservation in &objects.reserved {
        stage.reserved(reservation.clone());
    }
    for load in &objects.workloads {
        stage.workload(load.seen.clone());
    }
    stage.listed_but(&objects.unlisted);
    for pod in &objects.pods {
        let uid = pods::uid(pod);
        let mut pod = pod.clone();
        if leaving.contains(&uid) {
            let now = time::to_wire(stage.now());
            pod.metadata.deletion_timestamp.get_or_insert(now);
        }
        stage.pod(&uid, Some(&Arc::new(pod)));
    }
}

/// The Pods that leave are gone, and their addresses released.
fn leave(stage: &mut Rehearsal, leaving: &BTreeSet<Uid>) {
    for uid in leaving {
        stage.pod(uid, None);
    }
    let pools: Vec<SpiderIPPool> = stage.pools().cloned().collect();
    for mut pool in pools {
        let Ok(parsed) = convert::pool(&pool) else {
            continue;
        };
        let mut records = Records::default();
        let stay = parsed
            .records
            .iter()
            .filter(|(_, r)| !leaving.contains(&r.uid));
        for (address, record) in stay {
            records.insert(address, record.clone());
        }
        if records != parsed.records {
            pool.status.get_or_insert_default().allocated_ips = records.to_text();
            stage.pool(pool);
        }
    }
}

/// The Pods of a cluster, and who of them needs an address.
struct Crowd<'a> {
    objects: &'a Objects,
    settings: &'a Settings,
    reserved: &'a AddrSet,
    families: Families,
    /// The Pods of each workload that live and stay.
    pods_of: BTreeMap<Uid, Vec<&'a Pod>>,
    /// Workloads that ask nobody for an address, at the last look.
    strangers: usize,
}

impl<'a> Crowd<'a> {
    fn new(
        objects: &'a Objects,
        leaving: &'a BTreeSet<Uid>,
        settings: &'a Settings,
        reserved: &'a AddrSet,
    ) -> Self {
        let families = pods::families(&objects.workloads);
        let mut pods_of: BTreeMap<Uid, Vec<&Pod>> = BTreeMap::new();
        let stay = |pod: &&Pod| pods::is_living(pod) && !leaving.contains(&pods::uid(pod));
        for pod in objects.pods.iter().filter(stay) {
            if let Some(top) = families.top(pod) {
                pods_of.entry(top).or_default().push(pod);
            }
        }
        Self {
            objects,
            settings,
            reserved,
            families,
            pods_of,
            strangers: 0,
        }
    }

    /// Workloads make successors of Pods that leave at once, and both want an address for a while.
    fn succeed(&self, stage: &mut Rehearsal, leaving: &BTreeSet<Uid>) {
        let gone = self
            .objects
            .pods
            .iter()
            .filter(|pod| leaving.contains(&pods::uid(pod)));
        let tops: BTreeSet<Uid> = gone.filter_map(|pod| self.families.top(pod)).collect();
        for load in self
            .objects
            .workloads
            .iter()
            .filter(|load| tops.contains(&load.seen.id.uid))
        {
            let uid = &load.seen.id.uid;
            let stay = self.pods_of.get(uid).map_or(0, Vec::len);
            let missing = usize::try_from(load.pods)
                .unwrap_or(usize::MAX)
                .saturating_sub(stay);
            for number in 0..missing.min(SUCCESSORS_MAX) {
                let pod = Arc::new(successor(load));
                stage.pod(&Uid::new(format!("{uid}-{number}")), Some(&pod));
            }
        }
    }

    /// What each workload's Pods get, in the order of namespaces and names.
    async fn served(&mut self, stage: &Rehearsal) -> anyhow::Result<Vec<Served>> {
        self.strangers = 0;
        let mut settings = self.settings.clone();
        settings.node = String::new();
        let explainer = Explainer::new(settings, self.shelf(stage)?.client());
        let pools: Vec<Pool> = stage
            .pools()
            .filter_map(|p| convert::pool(p).ok())
            .collect();
        let records = pools.iter().flat_map(|pool| pool.records.iter());
        let holders: BTreeSet<&Uid> = records.flat_map(|(_, record)| record.holders()).collect();
        let mut room = Room::new(&pools, self.reserved);
        let told = told(stage);
        let mut loads: Vec<&Load> = self.objects.workloads.iter().collect();
        loads.retain(|load| load.asks && self.families.is_top(load));
        loads.sort_by_key(|load| {
            let id = &load.seen.id;
            (&id.namespace, &id.kind, &id.name)
        });
        let mut served = vec![];
        for load in loads {
            let own = self
                .pods_of
                .get(&load.seen.id.uid)
                .map_or(&[][..], Vec::as_slice);
            let holding = own
                .iter()
                .filter(|pod| holders.contains(&pods::uid(pod)))
                .count();
            // Addresses that are not ours: the next ones will not be either.
            let elsewhere = holding == 0 && own.iter().any(|pod| pods::has_address(pod));
            match self.search(&explainer, load).await {
                Some(found) if !elsewhere => {
                    let holding = u32::try_from(holding).unwrap_or(u32::MAX);
                    let told = told.get(&load.seen.id.uid).and_then(|texts| texts.first());
                    served.push(room.serve(load, holding, found, told));
                }
                Some(_) | None => self.strangers += 1,
            }
        }
        let free = free(stage, self.reserved);
        for served in &mut served {
            served.more = room.more(served, &free);
        }
        Ok(served)
    }

    /// The pools that a new Pod of `load` would have on each interface, by the agent's own search;
    /// `None` where nobody names any.
    async fn search(&self, explainer: &Explainer, load: &Load) -> Option<Vec<Found>> {
        let items = load.seen.wish.iter().flatten().flat_map(|wish| &wish.items);
        let mut nics: Vec<Nic> = items.map(|item| item.nic.clone()).collect();
        nics.sort();
        nics.dedup();
        if nics.is_empty() {
            nics.push(Nic::from(FIRST_NIC));
        }
        let mut all = vec![];
        for nic in nics {
            match self.search_on(explainer, load, &nic).await {
                Err(Unserved::NoRule(_)) => {}
                found => all.push((nic, found.map_err(|unserved| unserved.to_string()))),
            }
        }
        (!all.is_empty()).then_some(all)
    }

    /// The same on the first node that gives every family a pool, else on the first.
    async fn search_on(
        &self,
        explainer: &Explainer,
        load: &Load,
        nic: &Nic,
    ) -> Result<Vec<Ranking>, Unserved> {
        let open = self.objects.nodes.iter().filter(|node| {
            let spec = node.spec.as_ref();
            spec.and_then(|s| s.unschedulable) != Some(true)
        });
        let mut nodes: Vec<Option<String>> = open
            .take(NODES_TRIED)
            .map(|node| Some(node.name_any()))
            .collect();
        if nodes.is_empty() {
            nodes.push(None);
        }
        let mut first = None;
        for node in nodes {
            let question = Question {
                pod: Arc::new(new_pod(load, node)),
                workload: Some(load.seen.id.clone()),
                nic: nic.clone(),
            };
            let found = explainer
                .explain(question)
                .await
                .map(|found| found.families);
            let whole =
                |families: &Vec<Ranking>| families.iter().all(|f| f.serving().next().is_some());
            if found.as_ref().is_ok_and(whole) {
                return found;
            }
            first.get_or_insert(found);
        }
        first.unwrap_or_else(|| Ok(vec![]))
    }

    fn shelf(&self, stage: &Rehearsal) -> anyhow::Result<Shelf> {
        let mut objects = Shelf::default();
        for pool in stage.pools() {
            objects.put(pool)?;
        }
        for namespace in &self.objects.namespaces {
            objects.put(namespace)?;
        }
        for node in &self.objects.nodes {
            objects.put(node)?;
        }
        for load in &self.objects.workloads {
            let id = &load.seen.id;
            let version = if id.group.is_empty() {
                id.version.clone()
            } else {
                format!("{}/{}", id.group, id.version)
            };
            let object = json!({"apiVersion": version, "kind": id.kind, "metadata": load.meta});
            objects.put_at(load.path.clone(), object);
        }
        Ok(objects)
    }
}

/// A Pod of `load` that was just made.
fn successor(load: &Load) -> Pod {
    let id = &load.seen.id;
    let owner = OwnerReference {
        kind: id.kind.clone(),
        name: id.name.clone(),
        uid: id.uid.to_string(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let mut pod = new_pod(load, None);
    pod.metadata.owner_references = Some(vec![owner]);
    pod
}

/// A Pod that `load` would make.
fn new_pod(load: &Load, node: Option<String>) -> Pod {
    let id = &load.seen.id;
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{}-new", id.name)),
            namespace: Some(id.namespace.clone()),
            labels: load.template.labels.clone(),
            annotations: load.template.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: node,
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// What each subnet may still give to pools.
fn free(stage: &Rehearsal, reserved: &AddrSet) -> BTreeMap<IpNet, u128> {
    let subnets: Vec<SpiderSubnet> = stage.subnets().cloned().collect();
    let pools: Vec<SpiderIPPool> = stage.pools().cloned().collect();
    let world = world(&subnets, &pools);
    let each = world.subnets.iter().map(|subnet| {
        let figures = census::of_subnet(subnet, &world, reserved);
        (subnet.cidr, figures.free.get())
    });
    each.collect()
}
