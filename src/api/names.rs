//! The one dictionary of names on the wire: API group, finalizer, labels, annotations, podAffinity
//! keys, environment.
//!
//! Owns: every string that a foreign program reads or writes; those that the core itself speaks
//! are the core's constants under this roof. Never does: anything; there is no code here.
//! Invariant: a name is spelled once in the whole project, so a search for its constant finds every
//! reader and writer. `ipam.spidernet.io/…` and `spiderpool.spidernet.io` are the original's names
//! and can't be changed; `orbweaver.io/…` are ours.

/// API group of the four kinds; also the text of [`FINALIZER`].
pub const GROUP: &str = "spiderpool.spidernet.io";

/// The only version served and stored.
pub const VERSION: &str = "v2beta1";

/// `apiVersion` of the four kinds: [`GROUP`]`/`[`VERSION`].
pub const API_VERSION: &str = "spiderpool.spidernet.io/v2beta1";

/// Finalizer on pools, subnets, and the endpoints that must outlive their Pod.
pub const FINALIZER: &str = "spiderpool.spidernet.io";

/// Kind of a pool.
pub const KIND_POOL: &str = "SpiderIPPool";

/// Kind of a subnet.
pub const KIND_SUBNET: &str = "SpiderSubnet";

/// Kind of an endpoint.
pub const KIND_ENDPOINT: &str = "SpiderEndpoint";

/// Kind of a reservation.
pub const KIND_RESERVED_IP: &str = "SpiderReservedIP";

/// Labels of pools and subnets: what one selects by.
pub mod label {
    /// On a subnet: its CIDR as a label value (`172-18-41-0-24`).
    pub const SUBNET_CIDR: &str = "ipam.spidernet.io/subnet-cidr";
    /// On a pool: its CIDR as a label value.
    pub const POOL_CIDR: &str = "ipam.spidernet.io/ippool-cidr";
    /// On a pool: name of the subnet with the same CIDR.
    pub const OWNER_SUBNET: &str = "ipam.spidernet.io/owner-spider-subnet";
    /// On an auto pool: the workload's apiVersion with `/` written `_` (`apps_v1`, `v1`).
    pub const OWNER_GV: &str = "ipam.spidernet.io/owner-application-gv";
    /// On an auto pool: the workload's kind.
    pub const OWNER_KIND: &str = "ipam.spidernet.io/owner-application-kind";
    /// On an auto pool: the workload's namespace.
    pub const OWNER_NAMESPACE: &str = "ipam.spidernet.io/owner-application-namespace";
    /// On an auto pool: the workload's name. A pool with this key is an auto pool.
    pub const OWNER_NAME: &str = "ipam.spidernet.io/owner-application-name";
    /// On an auto pool: the workload's uid.
    pub const OWNER_UID: &str = "ipam.spidernet.io/owner-application-uid";
    /// On an auto pool: the NIC it serves (`eth0`).
    pub const INTERFACE: &str = "ipam.spidernet.io/interface";
    /// On an auto pool: [`FAMILY_V4`] or [`FAMILY_V6`].
    pub const IP_VERSION: &str = "ipam.spidernet.io/ip-version";
    /// On an auto pool: `true` if it goes with its workload, else `false`.
    pub const RECLAIM: &str = "ipam.spidernet.io/ippool-reclaim";

    /// On a pool, set by the controller: some agent should have released a record of it by now, and
    /// is to look.
    pub const LEAK: &str = "orbweaver.io/leak";
    /// The value of [`LEAK`].
    pub const SUSPECTED: &str = "suspected";

    /// Value of [`IP_VERSION`] for IPv4.
    pub const FAMILY_V4: &str = "IPv4";
    /// Value of [`IP_VERSION`] for IPv6.
    pub const FAMILY_V6: &str = "IPv6";
}

/// The virtual machines of KubeVirt.
pub mod kubevirt {
    /// API group.
    pub const GROUP: &str = "kubevirt.io";
    /// The version in which they are read.
    pub const VERSION: &str = "v1";
    /// Label of the Pods that run them, and its value.
    pub const LAUNCHERS: &str = "kubevirt.io=virt-launcher";
}

/// Annotations: what one tells; on Pods, workloads, Namespaces and pools.
pub mod annotation {
    pub use ipam::annotation::{
        IP_NUMBER, IPPOOL, IPPOOLS, NAMESPACE_IPV4, NAMESPACE_IPV6, RECLAIM, ROUTES, SUBNET,
        SUBNETS,
    };

    pub use ipam::attachment::{DEFAULT_NETWORK, NETWORK_STATUS, NETWORKS};

    /// On a Pod, set by KubeVirt: the live migration whose target it is.
    pub const MIGRATION_JOB: &str = "kubevirt.io/migrationJobName";

    /// On a pool, set by the controller alone: hash of the `ips` and `excludeIPs` it admitted. An
    /// agent allocates only where it equals the hash of the spec it reads.
    pub const ADMITTED: &str = "orbweaver.io/admitted";
    /// On the controllers' Lease: where the holder's allocator listens, `address:port`.
    pub const ALLOCATOR: &str = "orbweaver.io/allocator";
    /// On the controllers' Lease: the certificate, in PEM form, that the allocator's is signed by.
    pub const ALLOCATOR_CA: &str = "orbweaver.io/allocator-ca";
    /// On a pool: decimal counter, raised by every write that takes addresses away, so that a
    /// delayed write of an abandoned pass fails.
    pub const EPOCH: &str = "orbweaver.io/epoch";
}

/// Keys in an auto pool's `podAffinity.matchLabels` that name the workload it serves. They match
/// no label of the Pod: they are compared with the Pod's top controller.
pub use ipam::affinity::APP_KEYS;

/// Environment of the controller and the agent.
pub mod env {
    /// Path of the configuration file (also `--config-path`).
    pub const CONFIG: &str = "ORBWEAVER_CONFIG";
    /// Name of the node this process runs on, by the downward API.
    pub const NODE_NAME: &str = "SPIDERPOOL_NODE_NAME";
    /// Namespace of this process's Pod, by the downward API.
    pub const POD_NAMESPACE: &str = "SPIDERPOOL_POD_NAMESPACE";
    /// Name of this process's Pod, by the downward API.
    pub const POD_NAME: &str = "SPIDERPOOL_POD_NAME";
    /// The `NetworkAttachmentDefinition` behind the first NIC of Pods that name none.
    pub const CLUSTER_NETWORK: &str = "MULTUS_CLUSTER_NETWORK";
    /// TCP port of the probes.
    pub const HEALTH_PORT: &str = "SPIDERPOOL_HEALTH_PORT";
    /// `true` if metrics are served.
    pub const ENABLED_METRIC: &str = "SPIDERPOOL_ENABLED_METRIC";
    /// `true` if there are metrics of each pool too: as many series as pools.
    pub const ENABLED_DEBUG_METRIC: &str = "SPIDERPOOL_ENABLED_DEBUG_METRIC";
    /// TCP port of the metrics.
    pub const METRIC_PORT: &str = "SPIDERPOOL_METRIC_HTTP_PORT";
    /// TCP port of the webhooks; none are served without it.
    pub const WEBHOOK_PORT: &str = "SPIDERPOOL_WEBHOOK_PORT";
    /// Name of the Service in front of the webhooks, and of the webhook configurations.
    pub const WEBHOOK_SERVICE: &str = "ORBWEAVER_WEBHOOK_SERVICE";
    /// Name of the `ClusterRole` that owns the webhook configurations.
    pub const WEBHOOK_OWNER: &str = "ORBWEAVER_WEBHOOK_OWNER";
    /// `Ignore` or `Fail`: what becomes of a request that no webhook judged.
    pub const WEBHOOK_FAILURE_POLICY: &str = "ORBWEAVER_WEBHOOK_FAILURE_POLICY";
    /// Name of this process's ServiceAccount, by the downward API.
    pub const SERVICE_ACCOUNT: &str = "ORBWEAVER_SERVICE_ACCOUNT";
    /// Name of the Secret with certificates.
    pub const TLS_SECRET: &str = "ORBWEAVER_TLS_SECRET";
    /// `auto` or `provided`: who makes what the Secret holds.
    pub const TLS_METHOD: &str = "ORBWEAVER_TLS_METHOD";
    /// Further names of the certificate, comma-separated.
    pub const TLS_EXTRA_NAMES: &str = "ORBWEAVER_TLS_EXTRA_NAMES";
    /// How long a certificate authority lasts, such as `3650d`.
    pub const CA_LIFETIME: &str = "ORBWEAVER_CA_LIFETIME";
    /// How long a certificate lasts, such as `90d`.
    pub const CERTIFICATE_LIFETIME: &str = "ORBWEAVER_CERTIFICATE_LIFETIME";
    /// Level of the log, or a filter of `target=level` pairs.
    pub const LOG_LEVEL: &str = "SPIDERPOOL_LOG_LEVEL";
    /// `text` (default) or `json`.
    pub const LOG_FORMAT: &str = "ORBWEAVER_LOG_FORMAT";
    /// Address at which agents reach this controller's allocator, by the downward API; none: there
    /// is no allocator.
    pub const ALLOCATOR_ADDRESS: &str = "ORBWEAVER_ALLOCATOR_ADDRESS";
    /// TCP port of the allocator.
    pub const ALLOCATOR_PORT: &str = "ORBWEAVER_ALLOCATOR_PORT";
    /// Name of the account, `system:serviceaccount:<namespace>:<name>`, that agents run under.
    pub const AGENT_ACCOUNT: &str = "ORBWEAVER_AGENT_ACCOUNT";
    /// File with the token that an agent shows the allocator; none: it does not ask it.
    pub const ALLOCATOR_TOKEN: &str = "ORBWEAVER_ALLOCATOR_TOKEN";
    /// `true` if an agent writes pools itself where the allocator does not answer.
    pub const DIRECT_WRITES: &str = "ORBWEAVER_DIRECT_WRITES";
    /// `false` if records without a living owner are left alone.
    pub const GC_ENABLED: &str = "SPIDERPOOL_GC_IP_ENABLED";
    /// Seconds from one look for such records to the next.
    pub const GC_INTERVAL: &str = "SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION";
    /// Seconds added to every grace period of Pods and nodes.
    pub const GC_DELAY: &str = "SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY";
    /// `false` if addresses on lost nodes wait until a person says that the node is lost.
    pub const GC_LOST_NODES: &str =
        "SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_NOT_READY_NODE_ENABLED";
    /// Seconds a lease lasts without renewal.
    pub const LEADER_DURATION: &str = "SPIDERPOOL_LEADER_DURATION";
    /// Seconds after which a leader that could not renew steps down.
    pub const LEADER_RENEW_DEADLINE: &str = "SPIDERPOOL_LEADER_RENEW_DEADLINE";
    /// Seconds between two tries to take or renew the lease.
    pub const LEADER_RETRY_PERIOD: &str = "SPIDERPOOL_LEADER_RETRY_PERIOD";
}

/// Name of the ConfigMap with the configuration file, as charts name it unless told otherwise.
pub const CONFIG_MAP: &str = "spiderpool-conf";

/// Key of [`CONFIG_MAP`] with the text of the file.
pub const CONFIG_KEY: &str = "conf.yml";

/// Name of the Lease in the controller's namespace; the original's, so that a leader of either
/// kind keeps the other out.
pub const CONTROLLER_LEASE: &str = "spiderpool-controller-leases";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_version_is_group_and_version() {
        assert_eq!(API_VERSION, format!("{GROUP}/{VERSION}"));
    }
}
