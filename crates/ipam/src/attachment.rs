//! Which Multus network stands behind an interface, as the Pod's annotations tell.
//!
//! Owns: the reading of Multus' network selections, and of what it tells of addresses. Never does: look an attachment up: a pool
//! compares its name with `multusName`, and where no pool does, nothing here matters. Invariant: an
//! interface whose network can't be told is served by no pool that asks for one, and says why.

use std::net::IpAddr;

use serde_json::Value;

use serde::{Deserialize, Serialize};

use crate::name::Nic;

/// Annotation on a Pod: which `NetworkAttachmentDefinition` serves its first NIC.
pub const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// Annotation on a Pod: which `NetworkAttachmentDefinition`s serve its other interfaces.
pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// On a Pod, written by Multus: what each of its interfaces has.
pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

#[derive(Deserialize)]
struct WireStatus {
    #[serde(default)]
    interface: String,
    #[serde(default)]
    ips: Vec<String>,
}

/// The addresses that the text of [`NETWORK_STATUS`] names, and on which interface; what can't be
/// read of it names none. Cost: O(length of the text).
pub fn addresses_told(text: &str) -> Vec<(IpAddr, Option<Nic>)> {
    let networks: Vec<WireStatus> = serde_json::from_str(text).unwrap_or_default();
    let of = |network: WireStatus| {
        let nic = (!network.interface.is_empty()).then(|| Nic::new(network.interface));
        let addresses = network.ips.into_iter().filter_map(|ip| ip.parse().ok());
        addresses
            .map(|address| (address, nic.clone()))
            .collect::<Vec<_>>()
    };
    networks.into_iter().flat_map(of).collect()
}

/// The first interface of a Pod.
const FIRST: &str = "eth0";
/// Most bytes of an interface's name.
const NIC_MAX: usize = 15;

/// The network behind an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The interface.
    pub nic: Nic,
    /// Namespace of the agent: that of entries of `multusName` that have none.
    pub own_namespace: String,
    /// `namespace/name`, or why it can't be told.
    pub network: Result<String, NoNetwork>,
}

/// What is known where a Pod's networks are told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Networks<'a> {
    /// Annotation [`DEFAULT_NETWORK`].
    pub default: Option<&'a str>,
    /// Annotation [`NETWORKS`].
    pub others: Option<&'a str>,
    /// The cluster's network of first interfaces, `namespace/name`.
    pub cluster: Option<&'a str>,
    /// The Pod's namespace.
    pub pod_namespace: &'a str,
    /// The agent's.
    pub own_namespace: &'a str,
}

/// Why the network behind an interface can't be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NoNetwork {
    /// Neither the Pod nor the cluster names one for first interfaces.
    #[error("cluster-network multus isn't set")]
    NoneForFirst,
    /// The text for the first interface is no selection.
    #[error("failed to parse Annotation '{DEFAULT_NETWORK}' value '{value}', error: {reason}")]
    Default {
        /// The text.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// The text for the other interfaces is absent, or no selection.
    #[error("failed to parse pod network annotation: {0}")]
    Others(String),
    /// It names no network for this interface.
    #[error(
        "unknown: no matched multus object for NIC '{nic}'. The multus network-attachments: {networks}"
    )]
    NotListed {
        /// The interface.
        nic: Nic,
        /// The text.
        networks: String,
    },
}

impl Attachment {
    /// The network behind `nic`. Cost: O(length of the annotation).
    pub fn of(nic: &Nic, networks: &Networks<'_>) -> Self {
        Self {
            nic: nic.clone(),
            own_namespace: networks.own_namespace.to_owned(),
            network: networks.behind(nic),
        }
    }

    /// True where `wanted`, an entry of a pool's `multusName`, is this network.
    pub fn is(&self, wanted: &str) -> bool {
        let (own, name) = (&self.own_namespace, self.network.as_ref());
        name.is_ok_and(|name| {
            if wanted.contains('/') {
                wanted == name
            } else {
                name.split_once('/') == Some((own, wanted))
            }
        })
    }
}

impl Networks<'_> {
    /// How many interfaces the Pod asks Multus for, beside the first.
    pub fn more(&self) -> usize {
        let listed = self.others.map(|text| selection(text, self.pod_namespace));
        listed.and_then(Result::ok).map_or(0, |list| list.len())
    }

    /// Where `nic` stands among the Pod's interfaces: the first is 0, and the others are added in the
    /// order of the annotation. `None` for one that it does not name.
    pub fn place(&self, nic: &Nic) -> Option<usize> {
        if nic.as_str() == FIRST {
            return Some(0);
        }
        let list = selection(self.others?, self.pod_namespace).ok()?;
        let at = list.iter().enumerate().position(|one| serves(nic, one))?;
        at.checked_add(1)
    }

    fn behind(&self, nic: &Nic) -> Result<String, NoNetwork> {
        if nic.as_str() == FIRST {
            let value = self
                .default
                .or(self.cluster.filter(|text| !text.is_empty()));
            let value = value.ok_or(NoNetwork::NoneForFirst)?;
            let wrong = |reason| NoNetwork::Default {
                value: value.to_owned(),
                reason,
            };
            let list = selection(value, self.own_namespace).map_err(wrong)?;
            let first = list.into_iter().next();
            return first
                .map(|one| one.network)
                .ok_or_else(|| wrong("empty result".to_owned()));
        }
        let text = self.others.unwrap_or_default();
        let list = selection(text, self.pod_namespace).map_err(NoNetwork::Others)?;
        let found = list.iter().enumerate().find(|one| serves(nic, *one));
        found
            .map(|(_, one)| one.network.clone())
            .ok_or_else(|| NoNetwork::NotListed {
                nic: nic.clone(),
                networks: text.to_owned(),
            })
    }
}

/// One network of a selection.
struct Selected {
    /// `namespace/name`.
    network: String,
    /// The interface that it asks for.
    nic: Option<String>,
}

/// True where `nic` is of the network that stands at this place of a selection.
fn serves(nic: &Nic, (place, one): (usize, &Selected)) -> bool {
    match &one.nic {
        Some(name) => name == nic.as_str(),
        None => nic.as_str() == format!("net{}", place.saturating_add(1)),
    }
}

/// Reads a selection: a JSON array of objects, or `[namespace/]name[@interface]`, comma-separated.
fn selection(text: &str, namespace: &str) -> Result<Vec<Selected>, String> {
    if text.is_empty() {
        return Err(format!("parsePodNetworkAnnotation: , {namespace}"));
    }
    if text.contains(['[', '{', '"']) {
        return of_json(text, namespace).map_err(|reason| {
            format!("parsePodNetworkAnnotation: failed to parse pod Network Attachment Selection Annotation JSON format: {reason}")
        });
    }
    let items = text.split(',').map(|item| of_item(item.trim(), namespace));
    let items: Result<Vec<_>, _> = items.collect();
    items
        .map_err(|reason| format!("parsePodNetworkAnnotation: parsePodNetworkObjectName: {reason}"))
}

fn of_json(text: &str, namespace: &str) -> Result<Vec<Selected>, String> {
    let list: Vec<Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let item = |item: &Value| {
        let text = |key: &str| match item.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(other) => Err(format!("{key}: expected a string, found {other}")),
        };
        let name = text("name")?.ok_or("name: missing")?;
        let namespace = text("namespace")?.unwrap_or_else(|| namespace.to_owned());
        Ok(Selected {
            network: format!("{namespace}/{name}"),
            nic: text("interface")?,
        })
    };
    list.iter().map(item).collect()
}

fn of_item(item: &str, namespace: &str) -> Result<Selected, String> {
    let (namespace, rest) = match item.split('/').collect::<Vec<_>>().as_slice() {
        [rest] => (namespace, *rest),
        [namespace, rest] => (namespace.trim(), *rest),
        _ => return Err("Invalid network object (failed at '/')".to_owned()),
    };
    let (name, nic) = match rest.split('@').collect::<Vec<_>>().as_slice() {
        [name] => (name.trim(), None),
        [name, nic] => (name.trim(), Some(nic.trim())),
        _ => return Err("Invalid network object (failed at '@')".to_owned()),
    };
    if !is_name(namespace) || !is_name(name) {
        return Err(format!(
            "Failed to parse: one or more items did not match comma-delimited format (must consist of lower case alphanumeric characters). Must start and end with an alphanumeric character), mismatch @ '{item}'"
        ));
    }
    if let Some(nic) = nic
        && (nic.len() > NIC_MAX || nic.contains(['/', ' ']))
    {
        return Err(format!(
            "Failed to parse interface name: must be less than 15 chars and not contain '/' or spaces. interface name '{nic}'"
        ));
    }
    Ok(Selected {
        network: format!("{namespace}/{name}"),
        nic: nic.filter(|nic| !nic.is_empty()).map(str::to_owned),
    })
}

/// True for what names an object of Kubernetes. With dots, which the original refuses here and
/// names of attachments may have.
fn is_name(text: &str) -> bool {
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    outer(text.chars().next()) && outer(text.chars().last()) && text.chars().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_stands_where_the_annotation_lists_its_network() {
        let networks = Networks {
            others: Some("macvlan@zero,ipvlan,other/vlan@any"),
            pod_namespace: "shop",
            ..Networks::default()
        };
        let places = ["eth0", "zero", "net2", "any", "net1"].map(|nic| networks.place(&nic.into()));
        assert_eq!(places, [Some(0), Some(1), Some(2), Some(3), None]);
    }

    #[test]
    fn the_first_interface_is_none_of_those_that_multus_adds() {
        for (others, count) in [
            (None, 0),
            (Some("macvlan@zero,ipvlan,other/vlan@any"), 3),
            (Some("a/b/c"), 0),
        ] {
            let networks = Networks {
                others,
                pod_namespace: "shop",
                ..Networks::default()
            };
            assert_eq!(networks.more(), count);
        }
    }

    fn of(nic: &str, default: Option<&str>, others: Option<&str>) -> Attachment {
        let networks = Networks {
            default,
            others,
            cluster: None,
            pod_namespace: "shop",
            own_namespace: "kube-system",
        };
        Attachment::of(&Nic::from(nic), &networks)
    }

    fn told(nic: &str, default: Option<&str>, others: Option<&str>) -> String {
        match of(nic, default, others).network {
            Ok(network) => network,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_first_interface_has_the_pod_s_default_network_else_the_cluster_s() {
        assert_eq!(told("eth0", Some("macvlan"), None), "kube-system/macvlan");
        assert_eq!(told("eth0", Some("net/a"), Some("b")), "net/a");
        assert_eq!(
            told("eth0", None, Some("b")),
            "cluster-network multus isn't set"
        );
        let networks = Networks {
            default: None,
            others: None,
            cluster: Some("net/cluster"),
            pod_namespace: "shop",
            own_namespace: "kube-system",
        };
        let nic = Nic::from("eth0");
        assert_eq!(
            Attachment::of(&nic, &networks).network.unwrap(),
            "net/cluster"
        );
        let empty = told("eth0", Some("[]"), None);
        let says = "failed to parse Annotation 'v1.multus-cni.io/default-network' value '[]', error: empty result";
        assert_eq!(empty, says);
    }

    #[test]
    fn the_others_have_theirs_by_place_or_by_the_name_that_is_asked_for() {
        let list = Some(" a , net/b@data,c");
        assert_eq!(told("net1", None, list), "shop/a");
        assert_eq!(told("data", None, list), "net/b");
        assert_eq!(told("net3", None, list), "shop/c");
        let longest = Some("a@fifteen-letters");
        assert_eq!(told("fifteen-letters", None, longest), "shop/a");
        let json = Some(
            r#"[{"name":"a"},{"name":"b","namespace":"net","interface":"data","ips":["10.0.0.1/8"]}]"#,
        );
        assert_eq!(told("net1", None, json), "shop/a");
        assert_eq!(told("data", None, json), "net/b");
        let says = "unknown: no matched multus object for NIC 'net2'. The multus network-attachments:  a , net/b@data,c";
        assert_eq!(told("net2", None, list), says);
    }

    #[test]
    fn what_is_no_selection_says_why() {
        let table = [
            (None, "parsePodNetworkAnnotation: , shop"),
            (Some("a/b/c"), "Invalid network object (failed at '/')"),
            (Some("a@b@c"), "Invalid network object (failed at '@')"),
            (Some("a,"), "mismatch @ ''"),
            (Some("A"), "mismatch @ 'A'"),
            (Some("-a"), "mismatch @ '-a'"),
            (Some("a-"), "mismatch @ 'a-'"),
            (Some("a_b"), "mismatch @ 'a_b'"),
            (Some("a@sixteen-letters-"), "Failed to parse interface name"),
            (Some("a@net 1"), "Failed to parse interface name"),
            (
                Some("[{]"),
                "Selection Annotation JSON format: key must be a string",
            ),
            (Some(r#"[{"name":1}]"#), "name: expected a string, found 1"),
            (Some("[{}]"), "name: missing"),
        ];
        for (text, says) in table {
            let error = told("net1", None, text);
            assert!(
                error.starts_with("failed to parse pod network annotation: "),
                "{error}"
            );
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_entry_of_a_pool_without_namespace_is_of_the_agent_s() {
        let own = of("eth0", Some("kube-system/macvlan.vlan7"), None);
        assert!(own.is("macvlan.vlan7") && own.is("kube-system/macvlan.vlan7"));
        assert!(!own.is("shop/macvlan.vlan7") && !own.is("other"));
        assert!(!of("eth0", None, None).is("macvlan"));
        assert!(!of("eth0", Some("net/a"), None).is("a"));
    }

    #[test]
    fn what_multus_tells_is_read_as_far_as_it_can_be() {
        let text = r#"[{"name":"macvlan","interface":"eth0","ips":["10.0.0.1","fd00::1"],"default":true},
            {"name":"b","ips":["10.0.1.1","none"]}, {"name":"c"}]"#;
        let told: Vec<String> = addresses_told(text)
            .iter()
            .map(|(ip, nic)| format!("{ip} {:?}", nic.as_ref().map(Nic::as_str)))
            .collect();
        assert_eq!(
            told,
            [
                "10.0.0.1 Some(\"eth0\")",
                "fd00::1 Some(\"eth0\")",
                "10.0.1.1 None"
            ]
        );
        assert!(addresses_told("{}").is_empty() && addresses_told("").is_empty());
    }
}
