//! What an operator sets: the ConfigMap's file and the environment of the Pod.
//!
//! Owns: the keys, their defaults and the refusal of what can't be meant. Never does: read anything
//! twice; a change needs a restart, as with the original. Keys and variables are the original's;
//! one that this version doesn't honour is refused, not ignored.

use std::path::{Path, PathBuf};

use ipam::keep::Keeps;
use ipam::kind::{Kinds, OtherKind, WorkloadKind, group_version};
use ipam::name::Uid;
use serde::Deserialize;

/// Where the agent listens and the plugin calls.
pub const DEFAULT_SOCKET: &str = cni::DEFAULT_SOCKET;

/// The file `conf.yml` of the ConfigMap.
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Config {
    /// Socket of the agent.
    pub ipam_unix_socket_path: PathBuf,
    /// Hand out IPv4 addresses.
    #[serde(rename = "enableIPv4")]
    pub enable_ipv4: bool,
    /// Hand out IPv6 addresses.
    #[serde(rename = "enableIPv6")]
    pub enable_ipv6: bool,
    /// Subnets control pools.
    pub enable_spider_subnet: bool,
    /// Workloads get pools of their own.
    pub enable_auto_pool_for_application: bool,
    /// Pods of a `StatefulSet` keep their addresses.
    pub enable_stateful_set: bool,
    /// Virtual machines of `KubeVirt` keep their addresses.
    #[serde(rename = "enableKubevirtStaticIP")]
    pub enable_kubevirt_static_ip: bool,
    /// Whose `SpiderEndpoint`s are written.
    pub spider_endpoints: EndpointMode,
    /// Ask the network whether another host has an address before a Pod uses it.
    #[serde(rename = "enableIPConflictDetection")]
    pub enable_ip_conflict_detection: bool,
    /// Ask the network whether the gateway answers before a Pod uses an address.
    pub enable_gateway_detection: bool,
    /// Record addresses for Pods that have a node and no sandbox yet.
    pub early_binding: bool,
    /// Addresses beyond the replicas of a workload that doesn't say how many.
    #[serde(rename = "clusterSubnetAutoPoolDefaultRedundantIPNumber")]
    pub default_redundant_ip_number: u32,
    /// Kinds beside Kubernetes' own whose workloads get pools.
    pub third_party_controllers: Vec<ThirdParty>,
}

/// A kind of workloads that is not Kubernetes' own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ThirdParty {
    /// API group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Its name in paths: the plural.
    pub resource: String,
}

impl ThirdParty {
    fn new(api_version: &str, kind: &str, resource: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            resource: resource.to_owned(),
        }
    }

    fn other(&self) -> OtherKind {
        let (group, version) = group_version(&self.api_version);
        OtherKind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: self.kind.clone(),
            resource: self.resource.clone(),
        }
    }
}

/// Whose `SpiderEndpoint`s are written. No address depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// Every Pod's.
    Always,
    /// Those of `StatefulSet`s' Pods.
    Stateful,
    /// Nobody's.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ipam_unix_socket_path: PathBuf::from(DEFAULT_SOCKET),
            enable_ipv4: true,
            enable_ipv6: true,
            enable_spider_subnet: true,
            enable_auto_pool_for_application: true,
            enable_stateful_set: true,
            enable_kubevirt_static_ip: true,
            spider_endpoints: EndpointMode::Always,
            enable_ip_conflict_detection: false,
            enable_gateway_detection: false,
            early_binding: false,
            default_redundant_ip_number: 1,
            third_party_controllers: vec![
                ThirdParty::new("argoproj.io/v1alpha1", "Rollout", "rollouts"),
                ThirdParty::new("apps.kruise.io/v1alpha1", "CloneSet", "clonesets"),
                ThirdParty::new("apps.kruise.io/v1beta1", "StatefulSet", "statefulsets"),
            ],
        }
    }
}

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error(
        "configuration file {path} can't be read: mount the ConfigMap there, or pass --config-path"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key is unknown or its value of another type.
    #[error("configuration file {path} is not understood: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Key, line and what is wrong.
        reason: String,
    },
    /// Neither family is on: no Pod could get an address.
    #[error("configuration file {path}: enableIPv4 and enableIPv6 are both false, set one to true")]
    NoFamily {
        /// The file.
        path: PathBuf,
    },
    /// A kind is named that can't be one of these.
    #[error("configuration file {path}: thirdPartyControllers: {kind} {fault}")]
    Kind {
        /// The file.
        path: PathBuf,
        /// `apiVersion/kind`.
        kind: String,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl Config {
    /// Reads the file at `path`; without a path every key has its default.
    ///
    /// Errors: [`ConfigError`], which names the file and the key.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of the file; `path` is for messages.
    ///
    /// Errors: [`ConfigError::Parse`] and [`ConfigError::NoFamily`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = if text.trim().is_empty() {
            Self::default()
        } else {
            serde_saphyr::from_str(text).map_err(|e| ConfigError::Parse {
                path: path.to_owned(),
                reason: e.to_string(),
            })?
        };
        if !config.enable_ipv4 && !config.enable_ipv6 {
            return Err(ConfigError::NoFamily {
                path: path.to_owned(),
            });
        }
        if let Some((kind, fault)) = config.misnamed() {
            let (path, kind) = (path.to_owned(), kind.clone());
            let kind = format!("{}/{}", kind.api_version, kind.kind);
            return Err(ConfigError::Kind { path, kind, fault });
        }
        Ok(config)
    }

    /// Whether addresses are bound early: not where the network is asked for them, since only a
    /// sandbox that a record names can say that another host has its address.
    pub fn binds_early(&self) -> bool {
        self.early_binding && !self.enable_ip_conflict_detection
    }

    /// Whose Pods keep their addresses.
    pub fn keeps(&self) -> Keeps {
        Keeps {
            stateful_sets: self.enable_stateful_set,
            machines: self.enable_kubevirt_static_ip,
        }
    }

    /// All kinds whose workloads get pools.
    pub fn kinds(&self) -> Kinds {
        let others = self.third_party_controllers.iter();
        Kinds::with(others.map(ThirdParty::other).collect())
    }

    /// The first third-party kind that can't be meant, and why.
    fn misnamed(&self) -> Option<(&ThirdParty, &'static str)> {
        let mut seen = std::collections::BTreeSet::new();
        self.third_party_controllers.iter().find_map(|named| {
            let other = named.other();
            let is_own = WorkloadKind::of(&other.workload("", "", Uid::default())).is_some();
            let parts = [&other.version, &other.kind, &other.resource];
            let fault = if parts.iter().any(|part| part.is_empty()) {
                "needs apiVersion, kind and resource: leave none empty"
            } else if is_own || (named.api_version.as_str(), named.kind.as_str()) == ("v1", "Pod") {
                "is Kubernetes' own: take it out of the list"
            } else if !seen.insert((other.group, other.kind)) {
                "is there twice: name one version of it"
            } else {
                return None;
            };
            Some((named, fault))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("conf.yml"))
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            "ipamUnixSocketPath: /tmp/s.sock\nenableIPv4: true\nenableIPv6: false\n\
             enableSpiderSubnet: false\nenableAutoPoolForApplication: false\n\
             enableStatefulSet: false\nenableKubevirtStaticIP: false\nspiderEndpoints: stateful\nenableIPConflictDetection: true\nenableGatewayDetection: true\n\
             earlyBinding: true\nclusterSubnetAutoPoolDefaultRedundantIPNumber: 3\n\
             thirdPartyControllers: [{apiVersion: v1, kind: ReplicationController, resource: replicationcontrollers}]\n",
        )
        .unwrap();
        let expected = Config {
            ipam_unix_socket_path: PathBuf::from("/tmp/s.sock"),
            enable_ipv4: true,
            enable_ipv6: false,
            enable_spider_subnet: false,
            enable_auto_pool_for_application: false,
            enable_stateful_set: false,
            enable_kubevirt_static_ip: false,
            spider_endpoints: EndpointMode::Stateful,
            enable_ip_conflict_detection: true,
            enable_gateway_detection: true,
            early_binding: true,
            default_redundant_ip_number: 3,
            third_party_controllers: vec![ThirdParty::new(
                "v1",
                "ReplicationController",
                "replicationcontrollers",
            )],
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn nothing_is_bound_early_where_addresses_in_conflict_are_looked_for() {
        let with = |detection| Config {
            early_binding: true,
            enable_ip_conflict_detection: detection,
            ..Config::default()
        };
        assert!(with(false).binds_early());
        assert!(!with(true).binds_early());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = parse("enableIPv5: true").unwrap_err().to_string();
        assert!(
            error.contains("enableIPv5") && error.contains("conf.yml"),
            "{error}"
        );
    }

    #[test]
    fn a_kind_that_is_kubernetes_own_incomplete_or_there_twice_is_refused_by_name() {
        let table = [
            ("apps/v1, kind: Deployment, resource: deployments", "own"),
            ("v1, kind: Pod, resource: pods", "own"),
            ("a.b/v1, kind: C, resource: ''", "needs"),
            ("a.b/, kind: C, resource: cs", "needs"),
            (
                "a.b/v1, kind: C, resource: cs}, {apiVersion: a.b/v2, kind: C, resource: cs",
                "twice",
            ),
        ];
        for (kinds, expected) in table {
            let text = format!("thirdPartyControllers: [{{apiVersion: {kinds}}}]");
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{kinds}: {error}");
        }
        let own = "thirdPartyControllers: [{apiVersion: apps.kruise.io/v1beta1, kind: StatefulSet, resource: statefulsets}]";
        assert_eq!(parse(own).unwrap().kinds().others().len(), 1);
    }

    #[test]
    fn no_family_at_all_is_refused() {
        let error = parse("enableIPv4: false\nenableIPv6: false").unwrap_err();
        assert!(matches!(error, ConfigError::NoFamily { .. }));
    }
}
