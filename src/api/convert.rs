//! Wire to core: every text of an object is parsed here, once, and nowhere else.
//!
//! Owns: the reading of pools, subnets, reservations and selectors, and the writing back of what
//! the core decides about them. Never does: decide. Invariant: a value that leaves this module as a
//! core type can't be wrong; one that can't be parsed leaves as a reason that names field, value
//! and what is wrong with it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::addr::{AddrSet, Family, Range, net_of_label, parse_list};
use ipam::admit;
use ipam::affinity::{Requirement, Selector, SelectorError};
use ipam::annotation::{self, SizeRule};
use ipam::keep::{Keeper, Machine, MachineKind, Ordinals};
use ipam::name::{Nic, PoolName, SubnetName, Uid, Version};
use ipam::pool::{Affinity, Owner, Pool, Restrictions};
use ipam::record::Records;
use ipam::select::PoolFault;
use ipam::subnet::{Subnet, SubnetLedger};
use ipnet::IpNet;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta};
use kube::{Resource, ResourceExt};

use super::names::{self, label};
use super::{
    LabelSelector, LabelSelectorRequirement, Route, SpiderEndpoint, SpiderIPPool, SpiderReservedIP,
    SpiderSubnet,
};

/// A field that can't be read. The text names field, value and reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} '{value}': {reason}")]
pub struct FieldError {
    /// Path of the field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong.
    pub reason: String,
}

impl FieldError {
    fn new(field: &'static str, value: &str, reason: impl std::fmt::Display) -> Self {
        let value: String = value.chars().take(200).collect();
        Self {
            field,
            value,
            reason: reason.to_string(),
        }
    }
}

/// A `StatefulSet` as the rules of fixed addresses look at it. Absent fields have the API's
/// defaults; numbers below zero, which the API server refuses, count as none.
pub fn keeper(set: &StatefulSet) -> Keeper {
    let spec = set.spec.as_ref();
    let count = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let start = spec.and_then(|spec| spec.ordinals.as_ref()?.start);
    Keeper {
        uid: Uid::new(set.uid().unwrap_or_default()),
        terminating: set.metadata.deletion_timestamp.is_some(),
        ordinals: Some(Ordinals {
            start: u32::try_from(start.unwrap_or(0)).unwrap_or(0),
            count: u32::try_from(count).unwrap_or(0),
        }),
    }
}

/// A virtual machine as the same rules look at it.
pub fn machine_keeper(machine: &ObjectMeta) -> Keeper {
    Keeper {
        uid: Uid::from(machine.uid.as_deref().unwrap_or_default()),
        terminating: machine.deletion_timestamp.is_some(),
        ordinals: None,
    }
}

/// The machines that may have had the address which an endpoint of the original tells of, what is
/// started and stopped before a run of it; none where it tells of something else.
pub fn machines_of(endpoint: &SpiderEndpoint) -> Vec<Machine> {
    let run = MachineKind::VirtualMachineInstance;
    let status = endpoint.status.as_ref();
    let told = status.filter(|status| status.owner_controller_type == run.as_str());
    let Some(told) = told else {
        return Vec::new();
    };
    let named = |kind| Machine {
        kind,
        name: told.owner_controller_name.clone(),
    };
    [MachineKind::VirtualMachine, run].map(named).into()
}

/// Reads a pool.
///
/// Errors: [`PoolFault::NoFamily`] where neither `ipVersion` nor `subnet` says the family, else
/// [`PoolFault::Unreadable`] with field and value. Cost: O(object).
pub fn pool(object: &SpiderIPPool) -> Result<Pool, PoolFault> {
    let name = PoolName::new(object.name_any());
    let unreadable = |e: FieldError| PoolFault::Unreadable {
        pool: name.clone(),
        reason: e.to_string(),
    };
    if object.spec.ip_version.is_none() && object.spec.subnet.parse::<IpNet>().is_err() {
        return Err(PoolFault::NoFamily);
    }
    let cidr = cidr(&object.spec.subnet, object.spec.ip_version).map_err(unreadable)?;
    read_pool(object, name.clone(), cidr).map_err(unreadable)
}

/// What a pool of this CIDR that can't be read as a whole has given out, and what it may give as soon
/// as it is mended, which is nothing if it is not admitted. All of the CIDR where that can't be told.
pub fn claimed_unread(object: &SpiderIPPool, cidr: &IpNet) -> AddrSet {
    let whole = || Range::of_net(cidr).into();
    let status = object.status.as_ref();
    let recorded = Records::parse(status.and_then(|s| s.allocated_ips.as_deref()));
    let recorded = recorded.map_or_else(|_| whole(), |records| records.addresses().clone());
    if !object
        .annotations()
        .contains_key(names::annotation::ADMITTED)
    {
        return recorded;
    }
    let own = inside("spec.ips", object.spec.ips.as_deref(), cidr);
    own.unwrap_or_else(|_| whole()).union(&recorded)
}

/// As [`claimed_unread`], of a pool of which only the metadata can be read: all of the CIDR, unless it
/// was never admitted, which is when it gets our finalizer.
pub fn claimed_unknown(meta: &ObjectMeta, cidr: &IpNet) -> AddrSet {
    if has_finalizer(meta) {
        Range::of_net(cidr).into()
    } else {
        AddrSet::new()
    }
}

/// The CIDR that a pool's label names.
pub fn labelled_cidr(meta: &ObjectMeta) -> Option<IpNet> {
    net_of_label(meta.labels.as_ref()?.get(label::POOL_CIDR)?)
}

fn read_pool(object: &SpiderIPPool, name: PoolName, cidr: IpNet) -> Result<Pool, FieldError> {
    let spec = &object.spec;
    let family = Family::of(cidr.addr());
    let allocated = object
        .status
        .as_ref()
        .and_then(|s| s.allocated_ips.as_deref());
    let records = Records::parse(allocated).map_err(|e| {
        let reason = format!("{e}; `orbweaver ipam check --repair` restores it");
        FieldError::new("status.allocatedIPs", allocated.unwrap_or_default(), reason)
    })?;
    Ok(Pool {
        name,
        uid: Uid::new(object.uid().unwrap_or_default()),
        version: Version::new(object.resource_version().unwrap_or_default()),
        created: object
            .meta()
            .creation_timestamp
            .as_ref()
            .map(super::time::from_wire),
        cidr,
        ips: inside("spec.ips", spec.ips.as_deref(), &cidr)?,
        excluded: ranges("spec.excludeIPs", spec.exclude_ips.as_deref(), family)?,
        gateway: address("spec.gateway", spec.gateway.as_deref(), family)?,
        routes: core_routes(spec.routes.as_deref()),
        restrictions: Restrictions {
            node_names: spec.node_name.clone().unwrap_or_default(),
            node_affinity: affinity(spec.node_affinity.as_ref()),
            namespace_names: spec.namespace_name.clone().unwrap_or_default(),
            namespace_affinity: affinity(spec.namespace_affinity.as_ref()),
            pod_affinity: affinity(spec.pod_affinity.as_ref()),
            networks: spec.multus_name.clone().unwrap_or_default(),
        },
        default: spec.default.unwrap_or_default(),
        disabled: spec.disable.unwrap_or_default(),
        terminating: object.meta().deletion_timestamp.is_some(),
        finalizer: has_finalizer(object.meta()),
        owner: owner(object),
        adopted_by: adopted_by(object),
        admitted: object
            .annotations()
            .get(names::annotation::ADMITTED)
            .cloned(),
        rule: told_rule(object.annotations()),
        epoch: object
            .annotations()
            .get(names::annotation::EPOCH)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        records,
    })
}

/// Reads a subnet.
///
/// Errors: field and value. Cost: O(object).
pub fn subnet(object: &SpiderSubnet) -> Result<Subnet, FieldError> {
    let spec = &object.spec;
    let cidr = cidr(&spec.subnet, spec.ip_version)?;
    let family = Family::of(cidr.addr());
    let status = object.status.as_ref();
    let epoch = status.and_then(|s| s.ledger_epoch).unwrap_or_default();
    let ledger = status
        .and_then(|s| s.controlled_ip_pools.as_deref())
        .map(|text| {
            let ledger =
                SubnetLedger::parse(text, family, u64::try_from(epoch).unwrap_or_default());
            ledger.map_err(|e| {
                let reason = format!("{e}; `orbweaver ipam check --repair` rebuilds it");
                FieldError::new("status.controlledIPPools", text, reason)
            })
        })
        .transpose()?;
    Ok(Subnet {
        name: SubnetName::new(object.name_any()),
        uid: Uid::new(object.uid().unwrap_or_default()),
        version: Version::new(object.resource_version().unwrap_or_default()),
        cidr,
        ips: inside("spec.ips", spec.ips.as_deref(), &cidr)?,
        excluded: ranges("spec.excludeIPs", spec.exclude_ips.as_deref(), family)?,
        gateway: address("spec.gateway", spec.gateway.as_deref(), family)?,
        routes: core_routes(spec.routes.as_deref()),
        terminating: object.meta().deletion_timestamp.is_some(),
        finalizer: has_finalizer(object.meta()),
        ledger,
    })
}

/// The addresses of a reservation; one that is being deleted reserves nothing.
///
/// A range that can't be read is reported and reserves nothing; the others hold.
pub fn reserved(object: &SpiderReservedIP) -> (AddrSet, Vec<FieldError>) {
    let mut set = AddrSet::new();
    let mut errors = vec![];
    if object.meta().deletion_timestamp.is_some() {
        return (set, errors);
    }
    for text in object.spec.ips.iter().flatten() {
        let family = if text.contains(':') {
            Family::V6
        } else {
            Family::V4
        };
        match ipam::addr::parse_range(text, family) {
            Ok(range) => set.extend_range(range),
            Err(e) => errors.push(FieldError::new("spec.ips", text, e)),
        }
    }
    (set, errors)
}

/// The CIDR of a pool or subnet, its host bits cut off.
///
/// Errors: no CIDR, or one of another family than `ipVersion` says.
pub fn cidr(text: &str, ip_version: Option<i64>) -> Result<IpNet, FieldError> {
    let net: IpNet = text
        .parse()
        .map_err(|_| FieldError::new("spec.subnet", text, "no CIDR, such as 10.6.0.0/16"))?;
    let family = Family::of(net.addr());
    match ip_version {
        Some(version) if Family::from_version(version) != Some(family) => Err(FieldError::new(
            "spec.ipVersion",
            &version.to_string(),
            "not the family of spec.subnet",
        )),
        Some(_) | None => Ok(net.trunc()),
    }
}

fn ranges(
    field: &'static str,
    texts: Option<&[String]>,
    family: Family,
) -> Result<AddrSet, FieldError> {
    let texts = texts.unwrap_or_default();
    parse_list(texts, family).map_err(|e| FieldError::new(field, &texts.join(","), e))
}

/// Addresses that lie in the CIDR: one outside would be looked for where nobody looks.
fn inside(
    field: &'static str,
    texts: Option<&[String]>,
    cidr: &IpNet,
) -> Result<AddrSet, FieldError> {
    let set = ranges(field, texts, Family::of(cidr.addr()))?;
    let outside = admit::outside(&set, cidr);
    if outside.is_empty() {
        return Ok(set);
    }
    let reason =
        format!("not inside spec.subnet {cidr}: take it out, or use another object for it");
    Err(FieldError::new(
        field,
        &outside.to_texts().join(","),
        reason,
    ))
}

fn address(
    field: &'static str,
    text: Option<&str>,
    family: Family,
) -> Result<Option<IpAddr>, FieldError> {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    admit::address(text, family)
        .map(Some)
        .ok_or_else(|| FieldError::new(field, text, format!("no {family} address")))
}

/// A selector of a pool, or why it can't be used, which the core says to each Pod that asks.
pub fn affinity(wire: Option<&LabelSelector>) -> Affinity {
    wire.map(|s| {
        let expressions = s.match_expressions.iter().flatten();
        selector(
            s.match_labels.as_ref(),
            expressions.map(|r| (r.key.as_str(), r.operator.as_str(), r.values.as_deref())),
        )
    })
}

/// The selector of a workload.
///
/// Errors: an operator or value list that Kubernetes would not take either.
pub fn workload_selector(wire: &meta::LabelSelector) -> Result<Selector, SelectorError> {
    let expressions = wire.match_expressions.iter().flatten();
    selector(
        wire.match_labels.as_ref(),
        expressions.map(|r| (r.key.as_str(), r.operator.as_str(), r.values.as_deref())),
    )
}

fn selector<'w>(
    labels: Option<&BTreeMap<String, String>>,
    expressions: impl Iterator<Item = (&'w str, &'w str, Option<&'w [String]>)>,
) -> Result<Selector, SelectorError> {
    let match_expressions = expressions
        .map(|(key, operator, values)| {
            Selector::requirement(key, operator, values.unwrap_or_default())
        })
        .collect::<Result<Vec<Requirement>, SelectorError>>()?;
    Ok(Selector {
        match_labels: labels.cloned().unwrap_or_default(),
        match_expressions,
    })
}

/// A core selector as a pool's spec has it.
pub fn wire_selector(selector: &Selector) -> LabelSelector {
    use ipam::affinity::Operator;
    let expressions: Vec<LabelSelectorRequirement> = selector
        .match_expressions
        .iter()
        .map(|r| LabelSelectorRequirement {
            key: r.key.clone(),
            operator: match r.operator {
                Operator::In => "In",
                Operator::NotIn => "NotIn",
                Operator::Exists => "Exists",
                Operator::DoesNotExist => "DoesNotExist",
            }
            .to_owned(),
            values: (!r.values.is_empty()).then(|| r.values.iter().cloned().collect()),
            ..LabelSelectorRequirement::default()
        })
        .collect();
    LabelSelector {
        match_labels: (!selector.match_labels.is_empty()).then(|| selector.match_labels.clone()),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
        ..LabelSelector::default()
    }
}

/// Routes, unread.
pub fn core_routes(wire: Option<&[Route]>) -> Vec<ipam::pool::Route> {
    let routes = wire.unwrap_or_default().iter();
    routes
        .map(|r| ipam::pool::Route {
            dst: r.dst.clone(),
            gw: r.gw.clone(),
        })
        .collect()
}

/// Routes as a pool's spec has them; absent where there are none.
pub fn wire_routes(routes: &[ipam::pool::Route]) -> Option<Vec<Route>> {
    let wire = routes
        .iter()
        .map(|r| Route {
            dst: r.dst.clone(),
            gw: r.gw.clone(),
            ..Route::default()
        })
        .collect::<Vec<_>>();
    (!wire.is_empty()).then_some(wire)
}

fn has_finalizer(meta: &ObjectMeta) -> bool {
    meta.finalizers
        .iter()
        .flatten()
        .any(|f| f == names::FINALIZER)
}

fn told_rule(annotations: &BTreeMap<String, String>) -> Option<SizeRule> {
    let text = annotations.get(names::annotation::IP_NUMBER)?;
    let get = |_: &str| Some(text.as_str());
    annotation::size_rule(&get, SizeRule::Flexible(0)).ok()
}

fn owner(object: &SpiderIPPool) -> Option<Owner> {
    let labels = object.labels();
    let get = |key: &str| labels.get(key).cloned();
    Some(Owner {
        name: get(label::OWNER_NAME)?,
        gv: get(label::OWNER_GV).unwrap_or_default(),
        kind: get(label::OWNER_KIND).unwrap_or_default(),
        namespace: get(label::OWNER_NAMESPACE).unwrap_or_default(),
        uid: Uid::new(get(label::OWNER_UID).unwrap_or_default()),
        nic: Nic::new(get(label::INTERFACE).unwrap_or_default()),
        subnet: SubnetName::new(get(label::OWNER_SUBNET).unwrap_or_default()),
        reclaim: get(label::RECLAIM).as_deref() != Some("false"),
    })
}

/// The labels of an auto pool of `owner`; the CIDR's is not among them.
pub fn owner_labels(owner: &Owner, family: Family) -> BTreeMap<String, String> {
    let ip_version = match family {
        Family::V4 => label::FAMILY_V4,
        Family::V6 => label::FAMILY_V6,
    };
    [
        (label::OWNER_SUBNET, owner.subnet.as_str()),
        (label::OWNER_GV, &owner.gv),
        (label::OWNER_KIND, &owner.kind),
        (label::OWNER_NAMESPACE, &owner.namespace),
        (label::OWNER_NAME, &owner.name),
        (label::OWNER_UID, owner.uid.as_str()),
        (label::INTERFACE, owner.nic.as_str()),
        (label::RECLAIM, if owner.reclaim { "true" } else { "false" }),
        (label::IP_VERSION, ip_version),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The labels by which a workload's pool is looked for: those of [`owner_labels`] that stay, and no
/// others.
pub fn looked_for_by(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const STAY: [&str; 8] = [
        label::OWNER_SUBNET,
        label::OWNER_GV,
        label::OWNER_KIND,
        label::OWNER_NAMESPACE,
        label::OWNER_NAME,
        label::OWNER_UID,
        label::INTERFACE,
        label::IP_VERSION,
    ];
    let stay = labels.iter().filter(|(key, _)| STAY.contains(&&***key));
    stay.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The subnet that adopted the pool: its label and an owner reference say the same. The reference
/// is no controlling one where another program controls the pool.
fn adopted_by(object: &SpiderIPPool) -> Option<(SubnetName, Uid)> {
    let mut references = object.owner_references().iter();
    let reference =
        references.find(|r| r.kind == names::KIND_SUBNET && r.api_version == names::API_VERSION)?;
    let label = object.labels().get(label::OWNER_SUBNET)?;
    (*label == ipam::name::label_value(&reference.name)).then(|| {
        let uid = Uid::from(reference.uid.as_str());
        (SubnetName::new(&reference.name), uid)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_is_looked_for_by_all_of_its_labels_but_the_one_that_may_change() {
        let owner = Owner {
            gv: "apps_v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: Uid::from("w"),
            nic: Nic::from("eth0"),
            subnet: SubnetName::new("net"),
            reclaim: true,
        };
        let mut labels = owner_labels(&owner, Family::V4);
        let asked = looked_for_by(&labels);
        labels.remove(label::RECLAIM);
        assert_eq!(asked, labels);
    }

    fn read<T: serde::de::DeserializeOwned>(spec: &serde_json::Value) -> T {
        let object = json!({
            "apiVersion": names::API_VERSION, "kind": "any",
            "metadata": {"name": "p"}, "spec": spec
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn addresses_outside_of_the_cidr_are_refused_by_name() {
        let spec = json!({"subnet": "10.6.0.0/24", "ips": ["10.6.0.250-10.6.1.3"]});
        let PoolFault::Unreadable { reason, .. } = pool(&read(&spec)).unwrap_err() else {
            panic!("another fault")
        };
        assert!(
            reason.starts_with("spec.ips '10.6.1.0-10.6.1.3': not inside"),
            "{reason}"
        );
        let error = subnet(&read(&spec)).unwrap_err();
        assert_eq!(
            (error.field, error.value.as_str()),
            ("spec.ips", "10.6.1.0-10.6.1.3")
        );
    }

    #[test]
    fn a_pool_without_any_family_says_so_and_one_without_a_version_has_its_subnet_s() {
        assert_eq!(
            pool(&read(&json!({"subnet": "?"}))),
            Err(PoolFault::NoFamily)
        );
        let v6 = pool(&read(&json!({"subnet": "fd00::/64"}))).unwrap();
        assert_eq!(v6.family(), Family::V6);
        let wrong = pool(&read(&json!({"subnet": "fd00::/64", "ipVersion": 4}))).unwrap_err();
        assert!(wrong.to_string().contains("spec.ipVersion '4'"), "{wrong}");
    }

    #[test]
    fn a_reservation_that_is_partly_unreadable_still_reserves_the_rest() {
        let (set, errors) = reserved(&read(
            &json!({"ips": ["10.6.0.1", "oops", "fd00::1-fd00::3"]}),
        ));
        assert_eq!(set.count().get(), 4);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn a_selector_goes_to_the_wire_and_back() {
        let wire: LabelSelector = serde_json::from_value(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]
        }))
        .unwrap();
        let selector = affinity(Some(&wire)).unwrap().unwrap();
        assert_eq!(wire_selector(&selector), wire);
    }

    #[test]
    fn a_reservation_that_is_being_deleted_reserves_nothing() {
        let mut object: SpiderReservedIP = read(&json!({"ips": ["10.6.0.4"]}));
        assert_eq!(reserved(&object).0.to_string(), "[10.6.0.4]");
        let going = super::super::time::to_wire(super::super::time::now());
        object.meta_mut().deletion_timestamp = Some(going);
        assert!(reserved(&object).0.is_empty());
    }
}
