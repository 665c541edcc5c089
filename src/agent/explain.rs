//! Why a Pod may use each pool, or may not: what an ADD would find, and nothing given.
//!
//! Owns: the questions that people at a terminal ask of what an agent would do. Never does:
//! write, wait, or know a rule: the pools come from `candidates` and the verdicts from
//! [`ipam::select`], as those of an ADD do.

use std::sync::Arc;

use cni::IpamAddArgs;
use ipam::addr::Family;
use ipam::name::{Nic, PoolName, WorkloadId};
use ipam::pool::Pool;
use ipam::select::{self, Refusal};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};

use super::Settings;
use super::candidates::{self, Asker, FIRST_AGE, Found};
use super::error::{Failure, StandardError};
use super::former;
use super::pods;
use super::reads::Reads;
use super::wishes::{self, Wishes};
use crate::kube_io::memo::Age;

/// One who explains; what is read is kept for a moment, as an agent keeps it.
pub struct Explainer {
    settings: Settings,
    reads: Reads,
}

/// A Pod's interface whose pools are asked for.
#[derive(Debug, Clone)]
pub struct Question {
    /// The Pod; it need not exist.
    pub pod: Arc<Pod>,
    /// Its top controller; looked up where it is not given.
    pub workload: Option<WorkloadId>,
    /// The interface.
    pub nic: Nic,
}

/// What an ADD would find.
#[derive(Debug)]
pub struct Explanation {
    /// The Pod's top controller, or the Pod itself.
    pub workload: WorkloadId,
    /// The families that are asked for.
    pub families: Vec<Ranking>,
}

/// The candidates of one family.
#[derive(Debug)]
pub struct Ranking {
    /// Of which family an address is wanted.
    pub family: Family,
    /// Who says which pools: an annotation, the Namespace, the CNI configuration, or nobody.
    pub rule: String,
    /// Those that may serve in the order in which they are tried, then the others.
    pub candidates: Vec<Verdict>,
}

impl Ranking {
    /// The pools that may serve, in the order in which they are tried.
    pub fn serving(&self) -> impl Iterator<Item = &Pool> {
        self.candidates
            .iter()
            .filter_map(|c| c.verdict.as_deref().ok())
    }
}

/// What is said of one candidate.
#[derive(Debug)]
pub struct Verdict {
    /// Its name.
    pub name: PoolName,
    /// The pool that may serve, or why it may not.
    pub verdict: Result<Box<Pool>, Refusal>,
}

/// There is no candidate at all.
#[derive(Debug, thiserror::Error)]
pub enum Unserved {
    /// Nobody says which pools to use, and no pool is for those who say nothing.
    #[error("{0}")]
    NoRule(String),
    /// The rule that holds cannot be followed.
    #[error("{0}")]
    Failed(String),
}

impl From<Failure> for Unserved {
    fn from(failure: Failure) -> Self {
        let text = failure.error.to_string();
        match failure.error {
            StandardError::NoRule => Self::NoRule(text),
            _ => Self::Failed(text),
        }
    }
}

impl Explainer {
    /// One for an agent with these settings, of which only the switches count.
    pub fn new(settings: Settings, client: Client) -> Self {
        let reads = Reads::new(client, settings.kinds.clone());
        Self { settings, reads }
    }

    /// What an ADD for this interface would find now.
    ///
    /// Errors: [`Unserved`], with the text that the CNI call would fail with.
    pub async fn explain(&self, question: Question) -> Result<Explanation, Unserved> {
        let Question { pod, workload, nic } = question;
        let workload = match workload {
            Some(workload) => workload,
            None => pods::workload(&self.reads, &pod)
                .await
                .map_err(Unserved::Failed)?,
        };
        let args = call(&pod, &nic);
        let asker = Asker { pod, workload, nic };
        let (settings, reads) = (&self.settings, &self.reads);
        let mut found = vec![];
        let wishes = self.wishes(&asker).await?;
        let age = FIRST_AGE;
        for asked in candidates::asked(settings, reads, &asker, &wishes, &args, age).await? {
            let pools = candidates::find(reads, &asked, FIRST_AGE).await?;
            // As in an ADD: a family without a default pool is not served.
            if !pools.readings.is_empty() {
                found.push((asked.rule, pools));
            }
        }
        if found.is_empty() {
            return Err(Failure::from(StandardError::NoRule).into());
        }
        let (rules, found): (Vec<String>, Vec<Found>) = found.into_iter().unzip();
        let facts = candidates::facts(settings, reads, &asker, &found, FIRST_AGE).await;
        let ranked = rules.into_iter().zip(&found).map(|(rule, found)| Ranking {
            family: found.family,
            rule,
            candidates: verdicts(found, &asker.nic, &facts),
        });
        Ok(Explanation {
            families: ranked.collect(),
            workload: asker.workload,
        })
    }
}

impl Explainer {
    /// What the Pod's annotations say of the interface, its others as an earlier call left them.
    async fn wishes(&self, asker: &Asker) -> Result<Wishes, Failure> {
        let (pod, uid) = (&asker.pod, pods::uid(&asker.pod));
        let mut called = vec![];
        if wishes::counts_interfaces(pod) {
            let (name, networks) = (pods::name(pod), wishes::networks(&self.settings, pod));
            let of = (&name, &uid);
            called = former::interfaces(&self.reads, of, &networks, Age::live()).await?;
        }
        let wishes = wishes::read(&self.settings, pod, &asker.nic, &called, false)?;
        Ok(wishes)
    }
}

/// The verdict of each candidate: those that serve first, as the core orders them.
fn verdicts(found: &Found, nic: &Nic, facts: &select::PodFacts) -> Vec<Verdict> {
    let candidates = found.candidates();
    let serving = select::select(&candidates, nic, found.family, facts, found.order);
    let mut verdicts: Vec<Verdict> = serving
        .into_iter()
        .flatten()
        .map(|pool| Verdict {
            name: pool.name.clone(),
            verdict: Ok(Box::new(pool.clone())),
        })
        .collect();
    for candidate in &candidates {
        if let Err(refusal) = select::judge(candidate, found.family, facts) {
            verdicts.push(Verdict {
                name: candidate.name.clone(),
                verdict: Err(refusal),
            });
        }
    }
    verdicts
}

/// The call of a plugin whose CNI configuration names no pools.
fn call(pod: &Pod, nic: &Nic) -> IpamAddArgs {
    IpamAddArgs {
        clean_gateway: false,
        container_id: String::new(),
        default_ipv4_ip_pool: None,
        default_ipv6_ip_pool: None,
        if_name: nic.to_string(),
        match_master_subnet: false,
        net_namespace: String::new(),
        pod_name: pod.name_any(),
        pod_namespace: pod.namespace().unwrap_or_default(),
        pod_uid: pods::uid(pod).to_string(),
    }
}
