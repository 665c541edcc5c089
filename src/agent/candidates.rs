//! Which pools a Pod asks for, and what those pools are now.
//!
//! Owns: the order of the sources: an auto pool by `subnets` or `subnet`,
//! then `ippool`, the Namespace, the CNI configuration, the default pools. The first source that
//! speaks supplies both families. Never does: judge a pool; that is [`ipam::select`].

use std::sync::Arc;
use std::time::Duration;

use cni::IpamAddArgs;
use futures::future::try_join_all;
use ipam::addr::Family;
use ipam::affinity::Labels;
use ipam::annotation::{self, PoolNames, SubnetItem};
use ipam::attachment::Attachment;
use ipam::listed::{self, Entry};
use ipam::name::{Nic, NodeName, PoolName, Version, WorkloadId};
use ipam::pool::Owner;
use ipam::select::{Candidate, Order, PodFacts};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Settings;
use super::error::{AutoPool, Failure, LabelMap, StandardError, SubnetError};
use super::pods;
use super::reads::{OBJECT_AGE, POOL_AGE, ReadError, Reads, not_found};
use super::wait::Wait;
use super::wishes::{self, Wishes};
use crate::api::names::kubevirt;
use crate::api::{SpiderIPPool, convert, time};
use crate::kube_io::memo::Age;
use crate::pool_writer::Reading;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) pod: Arc<Pod>,
    pub(super) workload: WorkloadId,
    pub(super) nic: Nic,
}

/// The pools of one family that a Pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) family: Family,
    /// Who says so.
    pub(super) rule: String,
    pub(super) pools: Pools,
}

/// How the pools are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pools {
    /// By name or pattern, in the order to try them.
    Listed(Vec<Entry>),
    /// The workload's own, by its labels.
    Auto(Box<AutoPool>),
    /// Those with `spec.default`.
    Default,
}

/// The pools as they are.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) family: Family,
    pub(super) order: Order,
    pub(super) readings: Vec<Arc<Reading>>,
}

impl Found {
    /// As the core looks at them.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        self.readings.iter().map(|r| r.candidate.clone()).collect()
    }

    /// The reading of a pool.
    pub(super) fn reading(&self, pool: &PoolName) -> Option<&Arc<Reading>> {
        self.readings.iter().find(|r| r.candidate.name == *pool)
    }
}

/// The pools that `asker` asks for, a family each; never empty.
///
/// Errors: the source that speaks cannot be read, or names nothing.
pub(super) async fn asked(
    settings: &Settings,
    reads: &Reads,
    asker: &Asker,
    wishes: &Wishes,
    args: &IpamAddArgs,
    age: Age,
) -> Result<Vec<Asked>, Failure> {
    let age = age_of_objects(&asker.pod, age);
    if args.match_master_subnet {
        return Err(StandardError::MasterSubnet.into());
    }
    if settings.subnets
        && let Some(subnets) = subnets(settings, reads, asker, age).await?
    {
        return Ok(auto(settings, asker, &subnets)?);
    }
    if let Some((key, names)) = &wishes.pools {
        let rule = Rule {
            text: format!("Pod annotation '{key}'"),
            value: value(
                &|key| asker.pod.annotations().get(key).map(String::as_str),
                key,
            ),
        };
        return Ok(named(settings, &asker.nic, names, &rule)?);
    }
    let namespace = asker.workload.namespace.as_str();
    let names = namespace_pools(reads, namespace, age).await?;
    if !names.is_empty() {
        let rule = Rule {
            text: format!("the default IPPools of Namespace {namespace}"),
            value: listed_text(&names),
        };
        return Ok(named(settings, &asker.nic, &names, &rule)?);
    }
    let listed = |list: &Option<Vec<String>>| -> Vec<PoolName> {
        list.iter().flatten().map(PoolName::new).collect()
    };
    let names = PoolNames {
        ipv4: listed(&args.default_ipv4_ip_pool),
        ipv6: listed(&args.default_ipv6_ip_pool),
    };
    if !names.is_empty() {
        let rule = Rule {
            text: "the CNI configuration".to_owned(),
            value: listed_text(&names),
        };
        return Ok(named(settings, &asker.nic, &names, &rule)?);
    }
    let families = settings.families().map(|family| Asked {
        family,
        rule: "spec.default of the IPPools".to_owned(),
        pools: Pools::Default,
    });
    Ok(families.collect())
}

/// Who names pools, and what it says, for errors.
struct Rule {
    text: String,
    value: String,
}

/// What an annotation asks of subnets.
struct Subnets {
    key: &'static str,
    value: String,
    items: Vec<SubnetItem>,
}

/// The value of an annotation that is there, as an error repeats it.
fn value(get: annotation::Get<'_>, key: &str) -> String {
    annotation::shown(get(key).unwrap_or_default())
}

/// Names as an error repeats them.
fn listed_text(names: &PoolNames) -> String {
    let of = |family| {
        let names: Vec<&str> = names.of(family).iter().map(PoolName::as_str).collect();
        format!("{family} [{}]", names.join(" "))
    };
    annotation::shown(&format!("{}, {}", of(Family::V4), of(Family::V6)))
}

/// What the Pod asks of subnets: its own annotation, else its workload's, which does not count
/// where the Pod names pools.
async fn subnets(
    settings: &Settings,
    reads: &Reads,
    asker: &Asker,
    age: Age,
) -> Result<Option<Subnets>, Failure> {
    let own = asker.pod.annotations();
    let get = |key: &str| own.get(key).map(String::as_str);
    if let Some(key) = annotation::subnet_key(&get) {
        if !settings.auto_pools {
            let value = value(&get, key);
            return Err(StandardError::AutoPoolOff { key, value }.into());
        }
        return Ok(read_subnets(&get)?);
    }
    let is_told = annotation::names_pools(&get);
    if is_told || !settings.auto_pools || !settings.kinds.serve(&asker.workload) {
        return Ok(None);
    }
    let workload = reads.annotations(&asker.workload, age).await?;
    Ok(read_subnets(&|key| workload.get(key).map(String::as_str))?)
}

/// The pool that they are about is made only if all of them can be read, so all are looked at here.
fn read_subnets(get: annotation::Get<'_>) -> Result<Option<Subnets>, SubnetError> {
    let Some(key) = annotation::subnet_key(get) else {
        return Ok(None);
    };
    let items = annotation::asked_of_subnets(get)?;
    Ok(items.map(|items| Subnets {
        key,
        value: value(get, key),
        items,
    }))
}

fn auto(
    settings: &Settings,
    asker: &Asker,
    subnets: &Subnets,
) -> Result<Vec<Asked>, StandardError> {
    let workload = &asker.workload;
    let (key, value) = (subnets.key, subnets.value.clone());
    if workload.group.is_empty() && workload.kind == "Pod" {
        return Err(SubnetError::NoController { key, value }.into());
    }
    if !settings.kinds.serve(workload) {
        let of = workload.to_string();
        return Err(if workload.group == kubevirt::GROUP {
            SubnetError::Machine(of).into()
        } else {
            SubnetError::OtherKind(of).into()
        });
    }
    let item = subnets.items.iter().find(|item| item.nic == asker.nic);
    let wanted: Vec<Asked> = settings
        .families()
        .filter_map(|family| {
            let subnet = item?.subnet(family)?;
            let owner = Owner::of(workload, &asker.nic, subnet, true);
            let labels = convert::looked_for_by(&convert::owner_labels(&owner, family));
            let of = AutoPool {
                labels: LabelMap(labels),
                subnet: subnet.clone(),
                workload: workload.clone(),
            };
            Some(Asked {
                family,
                rule: format!("annotation '{key}'"),
                pools: Pools::Auto(Box::new(of)),
            })
        })
        .collect();
    if wanted.is_empty() {
        let (rule, nic) = (format!("annotation '{key}'"), asker.nic.clone());
        return Err(StandardError::Empty { rule, value, nic });
    }
    Ok(wanted)
}

fn named(
    settings: &Settings,
    nic: &Nic,
    names: &PoolNames,
    rule: &Rule,
) -> Result<Vec<Asked>, StandardError> {
    let mut asked = Vec::new();
    for family in settings.families() {
        let pools = listed::read(names.of(family), family, nic);
        let pools = pools.map_err(|error| StandardError::List {
            error,
            rule: rule.text.clone(),
        })?;
        if !pools.is_empty() {
            asked.push(Asked {
                family,
                rule: rule.text.clone(),
                pools: Pools::Listed(pools),
            });
        }
    }
    if asked.is_empty() {
        return Err(StandardError::Empty {
            rule: rule.text.clone(),
            value: rule.value.clone(),
            nic: nic.clone(),
        });
    }
    Ok(asked)
}

async fn namespace_pools(reads: &Reads, namespace: &str, age: Age) -> Result<PoolNames, Failure> {
    let Some(object) = reads.namespace(namespace, age).await? else {
        return Err(StandardError::Read(not_found("Namespace", namespace)).into());
    };
    let get = |key: &str| object.annotations().get(key).map(String::as_str);
    Ok(annotation::namespace_pools(&get)?)
}

/// The pools that are asked for, as they are; none only for [`Pools::Default`].
///
/// Errors: a named pool is missing, no pool matches, the workload has none yet, or the API server gives no answer.
pub(super) async fn find(reads: &Reads, asked: &Asked, age: Age) -> Result<Found, Failure> {
    let (order, readings) = match &asked.pools {
        Pools::Listed(list) => {
            let names = names_of(reads, asked, list, age).await?;
            let each = names.iter().map(|name| by_name(reads, name, asked, age));
            (Order::Listed, try_join_all(each).await?)
        }
        Pools::Auto(of) => (
            Order::Listed,
            auto_pools(reads, of, &asked.rule, age).await?,
        ),
        Pools::Default => {
            let all = reads.pools("", age).await?;
            let defaults = all.pools.iter().filter(|reading| {
                let pool = &reading.object;
                pool.spec.default == Some(true) && family_of(pool) == Some(asked.family)
            });
            (Order::MostSpecific, defaults.cloned().collect())
        }
    };
    Ok(Found {
        family: asked.family,
        order,
        readings,
    })
}

/// Every pool there is, by family.
pub(super) async fn everywhere(
    settings: &Settings,
    reads: &Reads,
    age: Age,
) -> Result<Vec<Found>, ReadError> {
    let all = reads.pools("", age).await?;
    let found = settings.families().map(|family| {
        let pools = all.pools.iter();
        let readings = pools.filter(|reading| family_of(&reading.object) == Some(family));
        Found {
            family,
            order: Order::Listed,
            readings: readings.cloned().collect(),
        }
    });
    Ok(found.collect())
}

/// The names that a list means now.
async fn names_of(
    reads: &Reads,
    asked: &Asked,
    list: &[Entry],
    age: Age,
) -> Result<Vec<PoolName>, Failure> {
    if !listed::has_patterns(list) {
        return Ok(listed::expand(list, []));
    }
    let (family, all) = (asked.family, reads.pools("", age).await?);
    let of_family = all
        .pools
        .iter()
        .filter(|r| family_of(&r.object) == Some(family));
    let names = listed::expand(list, of_family.map(|reading| &reading.candidate.name));
    if names.is_empty() {
        let list = list.iter().map(ToString::to_string).collect();
        let rule = asked.rule.clone();
        return Err(StandardError::NoMatch { family, list, rule }.into());
    }
    Ok(names)
}

async fn by_name(
    reads: &Reads,
    name: &PoolName,
    asked: &Asked,
    age: Age,
) -> Result<Arc<Reading>, Failure> {
    let found = reads.pool_to_try(name, age).await?;
    found.ok_or_else(|| {
        let kind = "SpiderIPPool.spiderpool.spidernet.io";
        let pool = name.clone();
        let reason = not_found(kind, name.as_str());
        let rule = asked.rule.clone();
        StandardError::Pool { pool, reason, rule }.into()
    })
}

async fn auto_pools(
    reads: &Reads,
    of: &AutoPool,
    rule: &str,
    age: Age,
) -> Result<Vec<Arc<Reading>>, Failure> {
    let listing = reads.pools_to_try(&of.labels, age).await?;
    if listing.pools.is_empty() {
        return Err(Failure {
            error: SubnetError::NoPool {
                of: Box::new(of.clone()),
                rule: rule.to_owned(),
            }
            .into(),
            waits: vec![Wait::Pools {
                selector: of.labels.selector(),
                version: listing.version.clone(),
            }],
        });
    }
    let mut pools = listing.pools.clone();
    pools.sort_by_key(|reading| {
        let terminating = reading.object.metadata.deletion_timestamp.is_some();
        (terminating, reading.candidate.name.clone())
    });
    Ok(pools)
}

/// The family of a pool, also of one that cannot be read otherwise.
fn family_of(pool: &SpiderIPPool) -> Option<Family> {
    let cidr = convert::cidr(&pool.spec.subnet, None).ok();
    cidr.map(|cidr| Family::of(cidr.addr()))
        .or_else(|| Family::from_version(pool.spec.ip_version?))
}

/// How old labels and annotations of other objects may be: never older than the Pod, since who
/// annotates a Namespace and then makes a Pod means that Pod too.
fn age_of_objects(pod: &Pod, age: Age) -> Age {
    let Age::Within(_) = age else {
        return age;
    };
    let created = pod.metadata.creation_timestamp.as_ref();
    let since = created.map_or(OBJECT_AGE, |created| {
        let since = time::now() - time::from_wire(created);
        since.to_std().unwrap_or_default()
    });
    // The timestamp is cut to whole seconds.
    let since = since.saturating_sub(Duration::from_secs(1));
    Age::Within(OBJECT_AGE.min(since))
}

/// The version of each pool as read: where a wait for it begins.
pub(super) fn version(reading: &Reading) -> Version {
    Version::new(reading.object.resource_version().unwrap_or_default())
}

/// What the core wants to know of the Pod. Node and Namespace are looked up only if one of the
/// pools asks for their labels.
pub(super) async fn facts(
    settings: &Settings,
    reads: &Reads,
    asker: &Asker,
    found: &[Found],
    age: Age,
) -> PodFacts {
    let pod = &asker.pod;
    let age = age_of_objects(pod, age);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let node = node.unwrap_or_else(|| settings.node.clone());
    let pools = || {
        let readings = found.iter().flat_map(|found| &found.readings);
        readings.filter_map(|reading| reading.candidate.pool.as_ref().ok())
    };
    let node_labels = if pools().any(|pool| pool.restrictions.node_affinity.is_some()) {
        let found = reads.node(&node, age).await.map_err(|e| e.said());
        labels_of(found, || not_found("Node", &node))
    } else {
        Err(not_asked("Node", &node))
    };
    let namespace = pod.namespace().unwrap_or_default();
    let wants = pools().any(|pool| pool.restrictions.namespace_affinity.is_some());
    let namespace_labels = if wants {
        let found = reads.namespace(&namespace, age).await.map_err(|e| e.said());
        labels_of(found, || not_found("Namespace", &namespace))
    } else {
        Err(not_asked("Namespace", &namespace))
    };
    PodFacts {
        pod: pods::name(pod),
        labels: pod.labels().clone(),
        node: NodeName::new(node),
        node_labels,
        namespace_labels,
        workload: asker.workload.clone(),
        attachment: Attachment::of(&asker.nic, &wishes::networks(settings, pod)),
    }
}

fn labels_of<K: ResourceExt>(
    found: Result<Option<Arc<K>>, String>,
    missing: impl FnOnce() -> String,
) -> Result<Labels, String> {
    let object = found?.ok_or_else(missing)?;
    Ok(object.labels().clone())
}

/// Said only where a pool begins to ask for labels between being read and being written; the call
/// then looks again.
fn not_asked(kind: &str, name: &str) -> String {
    format!("the labels of {kind} {name} were not asked for when the IPPool was read")
}

/// How old the pools may be at the first try.
pub(super) const FIRST_AGE: Age = Age::Within(POOL_AGE);
