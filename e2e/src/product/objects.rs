//! Pools, subnets and Pods as `kubectl` shows them, read into plain types.
//!
//! Reads the objects' JSON by the names on the wire and nothing else of the product.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::addresses::{Addresses, addresses};
use crate::cluster::kubectl::Kubectl;

/// A SpiderIPPool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its CIDR.
    pub cidr: String,
    /// `spec.ips` without `spec.excludeIPs`.
    pub addresses: Addresses,
    /// Who has which address.
    pub records: BTreeMap<IpAddr, Record>,
    /// Counts as its status tells them.
    pub counts: Counts,
    /// What its status says of it.
    pub conditions: Vec<Condition>,
    /// `spec.podAffinity.matchLabels`.
    pub affinity: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// A SpiderSubnet.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// Its name.
    pub name: String,
    /// Its CIDR.
    pub cidr: String,
    /// `spec.ips` without `spec.excludeIPs`.
    pub addresses: Addresses,
    /// Which pool has which addresses of it.
    pub ledger: BTreeMap<String, Addresses>,
    /// Counts as its status tells them.
    pub counts: Counts,
    /// What its status says of it.
    pub conditions: Vec<Condition>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// Namespace and name of the Pod.
    pub pod: String,
    /// Which of the Pods that had this name.
    #[serde(rename = "podUid")]
    pub uid: String,
    /// The sandbox that asked for it; none where it was recorded before one did.
    #[serde(default)]
    pub sandbox: Option<String>,
}

/// Counts that a status tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `allocatedIPCount`.
    pub allocated: usize,
    /// `totalIPCount`.
    pub total: usize,
}

/// A condition of an object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Condition {
    /// What about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, for programs.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which of the Pods that had this name.
    pub uid: String,
    /// Its node, once it has one.
    pub node: String,
    /// Its addresses, as its status tells them.
    pub ips: Vec<IpAddr>,
    /// Whether it runs and is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it is on its node's own network, where nobody gives addresses.
    pub on_host: bool,
}

impl Pool {
    /// All pools.
    pub fn all(kubectl: &Kubectl) -> Result<Vec<Self>> {
        parse_all(kubectl, &["spiderippools"], Self::parse)
    }

    /// Pools made for a workload.
    pub fn of_workload(
        kubectl: &Kubectl,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Vec<Self>> {
        let key = "ipam.spidernet.io/owner-application";
        let selector = format!("{key}-kind={kind},{key}-namespace={namespace},{key}-name={name}");
        parse_all(
            kubectl,
            &["spiderippools", "--selector", &selector],
            Self::parse,
        )
    }

    /// The one pool made for a Deployment.
    ///
    /// Errors: there is none, or more than one.
    pub fn of_deployment(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<Self> {
        let mut pools = Self::of_workload(kubectl, "Deployment", namespace, name)?;
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        ensure!(
            pools.len() == 1,
            "Deployment {name} has {} pools: {}",
            pools.len(),
            names.join(" ")
        );
        pools.pop().context("no pool")
    }

    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Result<&Condition> {
        find_condition(&self.conditions, kind).with_context(|| format!("pool {}", self.name))
    }

    fn parse(object: &Value) -> Result<Self> {
        let records = text(object, "/status/allocatedIPs");
        let records = if records.is_empty() { "{}" } else { records };
        Ok(Self {
            name: text(object, "/metadata/name").to_owned(),
            cidr: text(object, "/spec/subnet").to_owned(),
            addresses: usable(object)?,
            records: serde_json::from_str(records).context("status.allocatedIPs")?,
            counts: counts(object)?,
            conditions: conditions(object)?,
            affinity: field(object, "/spec/podAffinity/matchLabels")?,
            terminating: object.pointer("/metadata/deletionTimestamp").is_some(),
        })
    }
}

impl Subnet {
    /// All subnets.
    pub fn all(kubectl: &Kubectl) -> Result<Vec<Self>> {
        parse_all(kubectl, &["spidersubnets"], Self::parse)
    }

    /// The subnet of this name.
    pub fn named(kubectl: &Kubectl, name: &str) -> Result<Self> {
        Self::parse(&kubectl.json(&["get", "spidersubnet", name])?)
    }

    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Result<&Condition> {
        find_condition(&self.conditions, kind).with_context(|| format!("subnet {}", self.name))
    }

    fn parse(object: &Value) -> Result<Self> {
        #[derive(Deserialize)]
        struct Entry {
            ips: Vec<String>,
        }
        let ledger = text(object, "/status/controlledIPPools");
        let ledger = if ledger.is_empty() { "{}" } else { ledger };
        let ledger: BTreeMap<String, Entry> =
            serde_json::from_str(ledger).context("status.controlledIPPools")?;
        let open = |(pool, entry): (String, Entry)| {
            Ok((pool, addresses(entry.ips.iter().map(String::as_str))?))
        };
        Ok(Self {
            name: text(object, "/metadata/name").to_owned(),
            cidr: text(object, "/spec/subnet").to_owned(),
            addresses: usable(object)?,
            ledger: ledger.into_iter().map(open).collect::<Result<_>>()?,
            counts: counts(object)?,
            conditions: conditions(object)?,
        })
    }
}

impl Pod {
    /// All Pods of the cluster.
    pub fn all(kubectl: &Kubectl) -> Result<Vec<Self>> {
        parse_all(kubectl, &["pods", "--all-namespaces"], Self::parse)
    }

    /// Pods with this `app` label.
    pub fn of_app(kubectl: &Kubectl, namespace: &str, app: &str) -> Result<Vec<Self>> {
        let selector = format!("app={app}");
        let which = ["pods", "--namespace", namespace, "--selector", &selector];
        parse_all(kubectl, &which, Self::parse)
    }

    /// Its one address.
    ///
    /// Errors: it has none yet, or several.
    pub fn ip(&self) -> Result<IpAddr> {
        let [ip] = self.ips.as_slice() else {
            anyhow::bail!("Pod {} has {} addresses", self.name, self.ips.len());
        };
        Ok(*ip)
    }

    fn parse(object: &Value) -> Result<Self> {
        #[derive(Deserialize)]
        struct Address {
            ip: IpAddr,
        }
        let ips: Vec<Address> = field(object, "/status/podIPs")?;
        let conditions: Vec<Condition> = field(object, "/status/conditions")?;
        Ok(Self {
            namespace: text(object, "/metadata/namespace").to_owned(),
            name: text(object, "/metadata/name").to_owned(),
            uid: text(object, "/metadata/uid").to_owned(),
            node: text(object, "/spec/nodeName").to_owned(),
            ips: ips.into_iter().map(|address| address.ip).collect(),
            ready: conditions
                .iter()
                .any(|it| it.kind == "Ready" && it.status == "True"),
            terminating: object.pointer("/metadata/deletionTimestamp").is_some(),
            on_host: object.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)),
        })
    }
}

/// Texts of the Events about an object that have this reason.
pub fn events(
    kubectl: &Kubectl,
    namespace: &str,
    object: &str,
    reason: &str,
) -> Result<Vec<String>> {
    let selector = format!("involvedObject.name={object},reason={reason}");
    let list = kubectl.list(&[
        "events",
        "--namespace",
        namespace,
        "--field-selector",
        &selector,
    ])?;
    Ok(list
        .iter()
        .map(|event| text(event, "/message").to_owned())
        .collect())
}

/// Names of all objects of a kind, with their namespaces.
pub fn names(kubectl: &Kubectl, kinds: &str) -> Result<Vec<String>> {
    let full = |object: &Value| {
        let (namespace, name) = (
            text(object, "/metadata/namespace"),
            text(object, "/metadata/name"),
        );
        Ok(format!("{namespace}/{name}"))
    };
    parse_all(kubectl, &[kinds, "--all-namespaces"], full)
}

fn parse_all<T>(
    kubectl: &Kubectl,
    which: &[&str],
    parse: impl Fn(&Value) -> Result<T>,
) -> Result<Vec<T>> {
    let objects = kubectl.list(which)?;
    let parsed = objects.iter().map(|object| {
        let name = text(object, "/metadata/name");
        parse(object).with_context(|| format!("unreadable: {} {name}", text(object, "/kind")))
    });
    parsed.collect()
}

fn text<'a>(object: &'a Value, at: &str) -> &'a str {
    object
        .pointer(at)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A field that may be absent.
fn field<T: serde::de::DeserializeOwned + Default>(object: &Value, at: &str) -> Result<T> {
    let found = object.pointer(at).map(T::deserialize);
    Ok(found
        .transpose()
        .with_context(|| at.to_owned())?
        .unwrap_or_default())
}

fn usable(object: &Value) -> Result<Addresses> {
    let read = |at: &str| {
        let texts: Vec<String> = field(object, at)?;
        addresses(texts.iter().map(String::as_str))
    };
    Ok(&read("/spec/ips")? - &read("/spec/excludeIPs")?)
}

fn counts(object: &Value) -> Result<Counts> {
    Ok(Counts {
        allocated: field(object, "/status/allocatedIPCount")?,
        total: field(object, "/status/totalIPCount")?,
    })
}

fn conditions(object: &Value) -> Result<Vec<Condition>> {
    field(object, "/status/conditions")
}

fn find_condition<'a>(conditions: &'a [Condition], kind: &str) -> Result<&'a Condition> {
    let found = conditions.iter().find(|condition| condition.kind == kind);
    found.with_context(|| format!("no condition {kind} yet"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_is_read_with_its_records_and_without_what_it_excludes() {
        let pool = Pool::parse(&json!({
            "metadata": { "name": "p" },
            "spec": {
                "subnet": "10.0.0.0/24",
                "ips": ["10.0.0.1-10.0.0.3"],
                "excludeIPs": ["10.0.0.2"],
                "podAffinity": { "matchLabels": { "app": "web" } },
            },
            "status": {
                "allocatedIPs": r#"{"10.0.0.3":{"pod":"ns/web-1","podUid":"u","nic":"eth0"}}"#,
                "allocatedIPCount": 1,
                "totalIPCount": 2,
            },
        }));
        let pool = pool.unwrap();
        assert_eq!(pool.addresses, addresses(["10.0.0.1", "10.0.0.3"]).unwrap());
        assert_eq!(
            pool.counts,
            Counts {
                allocated: 1,
                total: 2
            }
        );
        let held = &pool.records[&"10.0.0.3".parse::<IpAddr>().unwrap()];
        assert_eq!((held.pod.as_str(), held.uid.as_str()), ("ns/web-1", "u"));
        assert_eq!(pool.affinity["app"], "web");
    }

    #[test]
    fn an_empty_subnet_has_an_empty_ledger() {
        let subnet = Subnet::parse(&json!({ "spec": { "ips": ["fd00::1"] } })).unwrap();
        assert!(subnet.ledger.is_empty());
        assert_eq!(subnet.addresses.len(), 1);
    }
}
