//! What is read of the cluster to judge records: their Pods' endpoints, their nodes, and their
//! `StatefulSet`s and virtual machines, each once.
//!
//! Owns: the reads of one look, of the controller's and of a person's at a terminal. Never does:
//! judge ([`ipam::collect`]), or keep an answer for another look. Invariant: what can't be read is
//! an error, never a "gone".

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use ipam::collect::{Fate, Home, Seen, Sign, Standing};
use ipam::keep::{self, Keeper, Keeps, Lineage, Machine, Unwanted};
use ipam::leak::Holding;
use ipam::name::{NodeName, PodName, Uid};
use ipam::record::Records;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::core::ObjectMeta;
use kube::{Client, ResourceExt};
use tokio::net::TcpStream;

use crate::api::names::kubevirt;
use crate::api::{SpiderEndpoint, SpiderIPPool, convert, node, pod};
use crate::kube_io::{endpoint, machine};

/// How long a machine may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Whether machines are asked for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Those of nodes that are not ready.
    Machines,
    /// None: who looks is on another network.
    Nobody,
}

/// The reads of one look.
pub struct Survey {
    client: Client,
    ask: Ask,
    /// Machines whose addresses are not kept are not read: the right to goes with the switch.
    keeps: Keeps,
    nodes: BTreeMap<NodeName, Standing>,
    all_nodes: Option<BTreeMap<NodeName, Standing>>,
    sets: BTreeMap<(String, String), Option<StatefulSet>>,
    machines: BTreeMap<(String, Machine), Option<ObjectMeta>>,
}

/// True for a record that may be of a virtual machine, and of the original: such a one names the
/// machine, not the Pod that runs it.
pub fn may_be_machine_s(holding: &Holding) -> bool {
    holding.node.is_none() && holding.sandbox.is_none() && holding.lineage.is_none()
}

/// The records of a pool that somebody holds; none of one that can't be read, which is left alone.
pub fn holdings(pool: &SpiderIPPool) -> Vec<Holding> {
    let name = pool.name_any().as_str().into();
    let records = records(pool);
    let held = records.iter();
    held.flat_map(|(address, record)| Holding::of(&name, address, record))
        .collect()
}

/// The records of a pool; none of one that can't be read.
pub fn records(pool: &SpiderIPPool) -> Records {
    let status = pool.status.as_ref();
    Records::parse(status.and_then(|s| s.allocated_ips.as_deref())).unwrap_or_default()
}

impl Survey {
    /// A look that has read nothing yet.
    pub fn new(client: Client, ask: Ask, keeps: Keeps) -> Self {
        Self {
            client,
            ask,
            keeps,
            nodes: BTreeMap::new(),
            all_nodes: None,
            sets: BTreeMap::new(),
            machines: BTreeMap::new(),
        }
    }

    /// All that is known about a record whose Pod has this fate.
    ///
    /// Errors: something could not be read.
    pub async fn see(&mut self, holding: Holding, fate: Fate) -> Result<Seen, kube::Error> {
        // Who records a sandbox records the owner too, if the Pod has one; other kinds may have a
        // StatefulSet's name.
        let is_silent = holding.lineage.is_none() && holding.sandbox.is_none();
        let may_be_fixed = is_silent && keep::ordinal(&holding.pod).is_some();
        let endpoint = if holding.node.is_none() || may_be_fixed {
            self.endpoint(&holding).await?
        } else {
            None
        };
        let told = endpoint.as_ref().and_then(|endpoint| {
            let node = &endpoint.status.as_ref()?.current.node;
            (!node.is_empty()).then(|| NodeName::from(node.as_str()))
        });
        let home = match (&holding.node, told) {
            (Some(node), _) => Home::Recorded(node.clone(), self.node(node).await?),
            (None, Some(node)) => {
                let standing = self.node(&node).await?;
                Home::Told(node, standing)
            }
            (None, None) => Home::Any(self.every_node().await?),
        };
        let lineage = match endpoint.filter(|_| is_silent) {
            Some(endpoint) => self.told(&holding.pod, &endpoint).await?,
            None => holding.lineage.clone(),
        };
        Ok(Seen {
            holding,
            fate,
            home,
            lineage,
        })
    }

    /// What became of a record's Pod, by a live read.
    ///
    /// Errors: it could not be read.
    pub async fn fate(&self, holding: &Holding) -> Result<Fate, kube::Error> {
        let (namespace, name) = holding.pod.parts();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = pods.get_opt(name).await?;
        let fate = pod::fate(found.as_ref(), &holding.uid);
        if fate != Fate::Gone || !may_be_machine_s(holding) {
            return Ok(fate);
        }
        let launchers = ListParams::default().labels(kubevirt::LAUNCHERS);
        let mut all = pods.list(&launchers).await?.into_iter();
        let found = all.find(|found| pod::uid(found) == holding.uid);
        Ok(pod::fate(found.as_ref(), &holding.uid))
    }

    /// Who wants the address kept for the next Pod of its identity; nobody whose addresses are not
    /// kept.
    ///
    /// Errors: it could not be read.
    pub async fn keeper(&mut self, seen: &Seen) -> Result<Option<Lineage>, kube::Error> {
        let lineage = seen.lineage.as_ref();
        let Some(lineage) = lineage.filter(|of| self.keeps.includes(of)) else {
            return Ok(None);
        };
        let unwanted = self.unwanted(&seen.holding.pod, lineage).await?;
        Ok(unwanted.is_none().then(|| lineage.clone()))
    }

    /// Why the StatefulSet or machine of a Pod no longer wants an address kept for the next one;
    /// `None` where it does, or is a machine and those keep none.
    ///
    /// Errors: it could not be read.
    pub async fn unwanted(
        &mut self,
        pod: &PodName,
        lineage: &Lineage,
    ) -> Result<Option<Unwanted>, kube::Error> {
        let keeper: Option<Keeper> = match &lineage.machine {
            Some(_) if !self.keeps.machines => return Ok(None),
            Some(machine) => {
                let found = self.machine(pod, machine).await?;
                found.map(convert::machine_keeper)
            }
            None => self.set(pod).await?.map(convert::keeper),
        };
        Ok(keep::unwanted(pod, &lineage.owner, keeper.as_ref()))
    }

    /// Whose address it is, as an endpoint says of a record that does not: the original's for a
    /// virtual machine bear its name, and so do their records. Nobody's where it is of a machine, and
    /// those keep none.
    async fn told(
        &mut self,
        pod: &PodName,
        endpoint: &SpiderEndpoint,
    ) -> Result<Option<Lineage>, kube::Error> {
        let set = self.set(pod).await?.filter(|set| endpoint.tells_of(set));
        if let Some(uid) = set.and_then(ResourceExt::uid) {
            return Ok(Some(Lineage::of_set(Uid::new(uid))));
        }
        if !self.keeps.machines {
            return Ok(None);
        }
        for machine in convert::machines_of(endpoint) {
            let found = self.machine(pod, &machine).await?;
            let found = found.filter(|found| endpoint.tells_of_machine(found));
            if let Some(found) = found {
                let owner = convert::machine_keeper(found).uid;
                let machine = Some(machine);
                return Ok(Some(Lineage { owner, machine }));
            }
        }
        Ok(None)
    }

    async fn machine(
        &mut self,
        pod: &PodName,
        machine: &Machine,
    ) -> Result<Option<&ObjectMeta>, kube::Error> {
        let (namespace, _) = pod.parts();
        let key = (namespace.to_owned(), machine.clone());
        if !self.machines.contains_key(&key) {
            let found = machine::metadata(&self.client, namespace, machine).await?;
            self.machines.insert(key.clone(), found);
        }
        Ok(self.machines.get(&key).and_then(Option::as_ref))
    }

    /// The endpoint of the record's Pod; that of a namesake is not it.
    async fn endpoint(&self, holding: &Holding) -> Result<Option<SpiderEndpoint>, kube::Error> {
        let (namespace, name) = holding.pod.parts();
        let api: Api<SpiderEndpoint> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await?;
        Ok(found.filter(|found| endpoint::pod_uid(found) == Some(holding.uid.as_str())))
    }

    async fn node(&mut self, name: &NodeName) -> Result<Standing, kube::Error> {
        if let Some(known) = self.nodes.get(name) {
            return Ok(known.clone());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let found = api.get_opt(name.as_str()).await?;
        let standing = self.standing(found.as_ref()).await;
        self.nodes.insert(name.clone(), standing.clone());
        Ok(standing)
    }

    async fn every_node(&mut self) -> Result<BTreeMap<NodeName, Standing>, kube::Error> {
        if let Some(known) = &self.all_nodes {
            return Ok(known.clone());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let mut all = BTreeMap::new();
        for found in api.list(&ListParams::default()).await? {
            let name = NodeName::new(found.name_any());
            all.insert(name, self.standing(Some(&found)).await);
        }
        self.all_nodes = Some(all.clone());
        Ok(all)
    }

    async fn standing(&self, found: Option<&Node>) -> Standing {
        match (
            node::standing(found),
            found.and_then(node::kubelet),
            self.ask,
        ) {
            (Standing::Unready { since, .. }, Some(address), Ask::Machines) => {
                let sign = sign_of(address).await;
                Standing::Unready { since, sign }
            }
            // One that says nowhere where it is can't be asked: it stays in doubt.
            (standing, ..) => standing,
        }
    }

    async fn set(&mut self, of: &PodName) -> Result<Option<&StatefulSet>, kube::Error> {
        let Some((name, _)) = keep::ordinal(of) else {
            return Ok(None);
        };
        let (namespace, _) = of.parts();
        let key = (namespace.to_owned(), name.to_owned());
        if !self.sets.contains_key(&key) {
            let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
            let found = api.get_opt(name).await?;
            self.sets.insert(key.clone(), found);
        }
        Ok(self.sets.get(&key).and_then(Option::as_ref))
    }
}

/// Whether the machine answers there. To be turned away is an answer: it takes a machine that runs.
async fn sign_of(address: SocketAddr) -> Sign {
    match tokio::time::timeout(ANSWERS_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Sign::Answers,
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Sign::Answers,
            _ => Sign::Silent,
        },
        Err(_) => Sign::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_that_takes_or_refuses_a_connection_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(sign_of(address).await, Sign::Answers);
        drop(listener);
        assert_eq!(sign_of(address).await, Sign::Answers);
    }
}
