//! Which pools may serve a Pod, in which order, and why each other one may not.
//!
//! The texts are the ones users of Spiderpool know, typing errors included: people and scripts
//! match them. The rules need no webhook to have run: a pool that is
//! half written or unreadable refuses with its reason like any other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::addr::Family;
use crate::affinity::Labels;
use crate::attachment::{Attachment, DEFAULT_NETWORK, NoNetwork};
use crate::name::{Nic, NodeName, PodName, PoolName, WorkloadId};
use crate::pool::{Affinity, Pool};

/// What is known of the Pod that asks. Label maps are `None` where the object was not looked up
/// because no candidate needs it; `Err` carries why a look-up failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodFacts {
    /// `namespace/name`.
    pub pod: PodName,
    /// The Pod's labels.
    pub labels: Labels,
    /// The node it runs on.
    pub node: NodeName,
    /// The node's labels.
    pub node_labels: Result<Labels, String>,
    /// The Namespace's labels.
    pub namespace_labels: Result<Labels, String>,
    /// The Pod's top controller, or the Pod itself.
    pub workload: WorkloadId,
    /// The interface, and the Multus network behind it.
    pub attachment: Attachment,
}

/// A pool as the agent found it: readable, or the reason why not.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Name.
    pub name: PoolName,
    /// The pool, or what is wrong with it (one line).
    pub pool: Result<Pool, PoolFault>,
}

/// Why a pool's object cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PoolFault {
    /// Neither `ipVersion` nor a CIDR says the family.
    #[error("nil ippool ipVersion")]
    NoFamily,
    /// Some field does not parse; the text names field and value.
    #[error("unreadable IPPool {pool}: {reason}")]
    Unreadable {
        /// Name.
        pool: PoolName,
        /// Field, value and what is wrong.
        reason: String,
    },
}

/// Why a pool does not serve this Pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The object is unusable.
    #[error(transparent)]
    Fault(#[from] PoolFault),
    /// It is being deleted.
    #[error("terminating IPPool {0}")]
    Terminating(PoolName),
    /// It is being deleted, and its workload is given another in its place.
    #[error("terminating IPPool {0}")]
    Remade(PoolName),
    /// A person disabled it.
    #[error("disabled IPPool {0}")]
    Disabled(PoolName),
    /// It has addresses of the other family.
    #[error("expect an {asked} IPPool, but the version of the IPPool {pool} is {found}")]
    Family {
        /// Family asked for.
        asked: Family,
        /// Name.
        pool: PoolName,
        /// Family of the pool.
        found: Family,
    },
    /// `nodeName` lists other nodes.
    #[error("unmatched Node name of IPPool {0}")]
    NodeName(PoolName),
    /// `nodeAffinity` does not match.
    #[error("unmatched Node affinity of IPPool {0}")]
    NodeAffinity(PoolName),
    /// `namespaceName` lists other Namespaces.
    #[error("unmatched Namespace name of IPPool {0}")]
    NamespaceName(PoolName),
    /// `namespaceAffinity` does not match.
    #[error("unmatched Namespace affinity of IPPool {0}")]
    NamespaceAffinity(PoolName),
    /// It was made for another workload.
    #[error("unmatched Pod annifity of auto-created IPool {0}")]
    Workload(PoolName),
    /// `podAffinity` does not match.
    #[error("unmatched Pod affinity of IPPool {0}")]
    PodAffinity(PoolName),
    /// `multusName` lists other networks than the interface's, or the interface's can't be told.
    #[error("{}", .0.text())]
    Network(Box<OtherNetwork>),
    /// A selector is invalid or an object that it needs could not be read.
    #[error("{0}")]
    Raw(String),
    /// The controller has not admitted the pool as it now stands.
    #[error(
        "IPPool {0} is not admitted yet: its ips or excludeIPs are new or overlap another IPPool's, see its conditions"
    )]
    NotAdmitted(PoolName),
}

/// What `multusName` of a pool asks for, and what there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherNetwork {
    /// Name.
    pub pool: PoolName,
    /// What it lists.
    pub wanted: Vec<String>,
    /// What there is.
    pub attachment: Attachment,
}

impl OtherNetwork {
    fn text(&self) -> String {
        let (pool, wanted, nic) = (&self.pool, self.wanted.join(" "), &self.attachment.nic);
        match &self.attachment.network {
            Ok(network) => format!(
                "the spec.multusName [{wanted}] in the IPPool {pool} used by the Pod interface {nic} is not matched with the multusCR {network} specified by the Pod"
            ),
            Err(why @ NoNetwork::NoneForFirst) => format!(
                "{why}, the IPPool {pool} specified multusName [{wanted}] unmatched: name a network by annotation '{DEFAULT_NETWORK}'"
            ),
            Err(
                why @ (NoNetwork::Default { .. }
                | NoNetwork::Others(_)
                | NoNetwork::NotListed { .. }),
            ) => {
                format!("{why}; the IPPool {pool} specified multusName [{wanted}]")
            }
        }
    }
}

impl Refusal {
    /// True where the controller will lift the refusal by itself in a moment.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NotAdmitted(_) | Self::Remade(_))
    }
}

/// May `pool` serve the Pod with an address of `family`? First refusal in the order of the rules.
///
/// Whether an address is free is not asked here. Cost: O(restrictions + labels).
pub fn admit(pool: &Pool, family: Family, pod: &PodFacts) -> Result<(), Refusal> {
    let name = || pool.name.clone();
    if pool.terminating {
        return Err(if pool.owner.is_some() {
            Refusal::Remade(name())
        } else {
            Refusal::Terminating(name())
        });
    }
    if pool.disabled {
        return Err(Refusal::Disabled(name()));
    }
    if pool.family() != family {
        return Err(Refusal::Family {
            asked: family,
            pool: name(),
            found: pool.family(),
        });
    }
    let limits = &pool.restrictions;
    if !limits.node_names.is_empty() {
        if !limits.node_names.iter().any(|n| n == pod.node.as_str()) {
            return Err(Refusal::NodeName(name()));
        }
    } else if !matches(&limits.node_affinity, &pod.node_labels)? {
        return Err(Refusal::NodeAffinity(name()));
    }
    let (namespace, _) = pod.pod.parts();
    if !limits.namespace_names.is_empty() {
        if !limits.namespace_names.iter().any(|n| n == namespace) {
            return Err(Refusal::NamespaceName(name()));
        }
    } else if !matches(&limits.namespace_affinity, &pod.namespace_labels)? {
        return Err(Refusal::NamespaceAffinity(name()));
    }
    admit_pod(pool, pod)?;
    let other =
        !limits.networks.is_empty() && !limits.networks.iter().any(|n| pod.attachment.is(n));
    // What was made for a workload's interface is its own, whatever stands behind it.
    if other && pool.owner.is_none() {
        return Err(Refusal::Network(Box::new(OtherNetwork {
            pool: name(),
            wanted: limits.networks.clone(),
            attachment: pod.attachment.clone(),
        })));
    }
    if pool.is_admitted() {
        Ok(())
    } else {
        Err(Refusal::NotAdmitted(name()))
    }
}

fn admit_pod(pool: &Pool, pod: &PodFacts) -> Result<(), Refusal> {
    let selector = match &pool.restrictions.pod_affinity {
        None => return Ok(()),
        Some(Err(error)) => return Err(Refusal::Raw(error.to_string())),
        Some(Ok(selector)) => selector,
    };
    if pool.owner.is_none() {
        return if selector.matches(&pod.labels) {
            Ok(())
        } else {
            Err(Refusal::PodAffinity(pool.name.clone()))
        };
    }
    if !selector.names_workload(&pod.workload) {
        return Err(Refusal::Workload(pool.name.clone()));
    }
    if selector.without_workload().matches(&pod.labels) {
        Ok(())
    } else {
        Err(Refusal::PodAffinity(pool.name.clone()))
    }
}

fn matches(affinity: &Affinity, labels: &Result<Labels, String>) -> Result<bool, Refusal> {
    match (affinity, labels) {
        (None, _) => Ok(true),
        (Some(Err(error)), _) => Err(Refusal::Raw(error.to_string())),
        (Some(Ok(_)), Err(reason)) => Err(Refusal::Raw(reason.clone())),
        (Some(Ok(selector)), Ok(labels)) => Ok(selector.matches(labels)),
    }
}

/// The pool of `candidate` if it may serve the Pod with an address of `family`: see [`admit`].
pub fn judge<'c>(
    candidate: &'c Candidate,
    family: Family,
    pod: &PodFacts,
) -> Result<&'c Pool, Refusal> {
    match &candidate.pool {
        Ok(pool) => admit(pool, family, pod).map(|()| pool),
        Err(fault) => Err(Refusal::Fault(fault.clone())),
    }
}

/// In which order the pools that may serve are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As listed by the user: later ones are the backup of earlier ones.
    Listed,
    /// The most restricted first, then by name: for pools that nobody listed.
    MostSpecific,
}

/// The pools that may serve the Pod on `nic`, in the order to try them; never empty.
///
/// Errors: [`NoPool`], with the refusal of each candidate. Cost: O(candidates · labels).
pub fn select<'c>(
    candidates: &'c [Candidate],
    nic: &Nic,
    family: Family,
    pod: &PodFacts,
    order: Order,
) -> Result<Vec<&'c Pool>, NoPool> {
    let mut serving = Vec::new();
    let mut refusals = Vec::new();
    for candidate in candidates {
        match judge(candidate, family, pod) {
            Ok(pool) => serving.push(pool),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if serving.is_empty() {
        let pools = candidates.iter().map(|c| c.name.clone()).collect();
        return Err(NoPool {
            family,
            nic: nic.clone(),
            pools,
            refusals,
        });
    }
    if order == Order::MostSpecific {
        serving.sort_by(|a, b| {
            specificity(a)
                .cmp(&specificity(b))
                .then(a.name.cmp(&b.name))
        });
    }
    Ok(serving)
}

/// Sort key of the original: "has it" before "has not", kind by kind.
fn specificity(pool: &Pool) -> [bool; 6] {
    let limits = &pool.restrictions;
    [
        limits.pod_affinity.is_none(),
        limits.node_names.is_empty(),
        limits.node_affinity.is_none(),
        limits.namespace_names.is_empty(),
        limits.namespace_affinity.is_none(),
        limits.networks.is_empty(),
    ]
}

/// Every candidate was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPool {
    /// Family asked for.
    pub family: Family,
    /// Interface.
    pub nic: Nic,
    /// The candidates in order.
    pub pools: Vec<PoolName>,
    /// The refusal of each.
    pub refusals: Vec<Refusal>,
}

impl NoPool {
    /// True where some refusal will be lifted by the controller, so that waiting may help.
    pub fn may_pass(&self) -> bool {
        self.refusals.iter().any(Refusal::may_pass)
    }
}

impl fmt::Display for NoPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no IPPool available, all {} IPPools {} of {} filtered out: {}",
            self.family,
            Names(&self.pools),
            self.nic,
            aggregate(&self.refusals)
        )
    }
}

impl std::error::Error for NoPool {}

/// Pools may serve, but none had an address to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAddress {
    /// Family asked for.
    pub family: Family,
    /// Interface.
    pub nic: Nic,
    /// The pools that were tried, in order.
    pub pools: Vec<PoolName>,
    /// What each said.
    pub refusals: Vec<Miss>,
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "failed to allocate any {} IP address to NIC {} from IPPools {}: {}",
            self.family,
            self.nic,
            Names(&self.pools),
            aggregate(&self.refusals)
        )
    }
}

impl std::error::Error for NoAddress {}

/// Why a pool that may serve gives no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Exhausted {
    /// Every address is in use, reserved, excluded or the gateway.
    #[error("all IP addresses used out")]
    UsedOut,
    /// The object would pass the byte guard.
    #[error(
        "all IP addresses used out, the record of IPPool {pool} would pass {limit} bytes: use several IPPools"
    )]
    TooLarge {
        /// Name.
        pool: PoolName,
        /// The guard.
        limit: usize,
    },
}

/// Why a pool that was tried gave no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// It has none.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// It may no longer serve the Pod.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was deleted.
    #[error("IPPool {0} is gone")]
    Gone(PoolName),
}

/// Every pool that was tried gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// None may serve any more.
    #[error(transparent)]
    NoPool(#[from] NoPool),
    /// Some may, and have no address.
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
}

/// What the Pod is told when each pool in turn gave nothing; every one has its say.
pub fn deny(family: Family, nic: &Nic, tried: Vec<(PoolName, Miss)>) -> Denied {
    let nic = nic.clone();
    let is_any_empty = tried
        .iter()
        .any(|(_, miss)| matches!(miss, Miss::Exhausted(_)));
    let (pools, misses): (Vec<PoolName>, Vec<Miss>) = tried.into_iter().unzip();
    if is_any_empty {
        return Denied::NoAddress(NoAddress {
            family,
            nic,
            pools,
            refusals: misses,
        });
    }
    let refusals = misses.into_iter().map(|miss| match miss {
        Miss::Refused(refusal) => refusal,
        Miss::Exhausted(_) | Miss::Gone(_) => Refusal::Raw(miss.to_string()),
    });
    Denied::NoPool(NoPool {
        family,
        nic,
        pools,
        refusals: refusals.collect(),
    })
}

/// The pools to try, in order: one that holds an address for the interface already, whatever
/// became of it, then those that may serve.
///
/// Errors: none may serve, and none holds anything.
pub fn with_home(
    home: Option<&PoolName>,
    selected: Result<Vec<&Pool>, NoPool>,
) -> Result<Vec<PoolName>, NoPool> {
    let serving = match (selected, home) {
        (Ok(serving), _) => serving,
        (Err(refused), None) => return Err(refused),
        (Err(_), Some(_)) => vec![],
    };
    let others = serving.into_iter().map(|pool| &pool.name);
    let others = others.filter(|pool| Some(*pool) != home);
    Ok(home.into_iter().chain(others).cloned().collect())
}

/// Several reasons as one text: itself where all are equal, else `[a, b]` in order of appearance.
pub fn aggregate<T: fmt::Display>(reasons: &[T]) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for reason in reasons.iter().map(ToString::to_string) {
        if !distinct.contains(&reason) {
            distinct.push(reason);
        }
    }
    match distinct.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// `[a b]`, as the original prints pool names.
struct Names<'a>(&'a [PoolName]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(PoolName::as_str).collect();
        write!(f, "[{}]", names.join(" "))
    }
}

#[cfg(test)]
mod tests;
