//! A pool: which addresses it owns, whom it serves, and who holds which of them.
//!
//! Invariants, whoever wrote the object: an address is given out only if it is in `ips`, in no
//! exclusion, not reserved, not the gateway and not recorded; a failed call changes nothing.

use std::borrow::Cow;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipnet::IpNet;

use serde::{Deserialize, Serialize};

use crate::addr::{AddrCount, AddrSet, Family};
use crate::affinity::{Selector, SelectorError};
use crate::annotation::SizeRule;
use crate::name::{Nic, PoolName, SubnetName, Uid, Version, WorkloadId, label_value, stable_hash};
use crate::record::Records;
use crate::subnet::Subnet;

/// A static route handed to Pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination, as the user wrote it.
    pub dst: String,
    /// Next hop.
    pub gw: String,
}

/// A selector of the pool's spec: usable, or the reason why not, said to each Pod that asks.
pub type Affinity = Option<Result<Selector, SelectorError>>;

/// Which Pods a pool may serve; an empty field restricts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restrictions {
    /// Nodes by name.
    pub node_names: Vec<String>,
    /// Nodes by label; looked at only where `node_names` is empty.
    pub node_affinity: Affinity,
    /// Namespaces by name.
    pub namespace_names: Vec<String>,
    /// Namespaces by label; looked at only where `namespace_names` is empty.
    pub namespace_affinity: Affinity,
    /// Pods by label, and for an auto pool the workload by the five keys.
    pub pod_affinity: Affinity,
    /// Multus networks by name, `name` or `namespace/name`, behind the interface.
    pub networks: Vec<String>,
}

/// For whom an auto pool was made, as its labels say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Label `owner-application-gv`.
    pub gv: String,
    /// Label `owner-application-kind`.
    pub kind: String,
    /// Label `owner-application-namespace`.
    pub namespace: String,
    /// Label `owner-application-name`, cut as [`label_value`] does.
    pub name: String,
    /// Label `owner-application-uid`.
    pub uid: Uid,
    /// Label `interface`.
    pub nic: Nic,
    /// Label `owner-spider-subnet`.
    pub subnet: SubnetName,
    /// Label `ippool-reclaim`: the pool goes with its workload.
    pub reclaim: bool,
}

impl Owner {
    /// The labels' view of `workload` on `nic` in `subnet`.
    pub fn of(workload: &WorkloadId, nic: &Nic, subnet: &SubnetName, reclaim: bool) -> Self {
        Self {
            gv: label_value(&workload.gv()).into_owned(),
            kind: workload.kind.clone(),
            namespace: label_value(&workload.namespace).into_owned(),
            name: label_value(&workload.name).into_owned(),
            uid: workload.uid.clone(),
            nic: nic.clone(),
            subnet: SubnetName::new(label_value(subnet.as_str())),
            reclaim,
        }
    }

    /// True where this is [`Self::of`] the same, whatever reclaim says.
    pub fn is(&self, workload: &WorkloadId, nic: &Nic, subnet: &SubnetName) -> bool {
        self.uid == workload.uid && self.is_of_namesake(workload, nic, subnet)
    }

    /// True where this is of a workload of the same kind, namespace and name on the same nic and
    /// subnet, whatever uid and reclaim say.
    pub fn is_of_namesake(&self, workload: &WorkloadId, nic: &Nic, subnet: &SubnetName) -> bool {
        // Every field but uid and reclaim; the name first, since it differs most.
        let Self {
            gv,
            kind,
            namespace,
            name,
            uid: _,
            nic: own_nic,
            subnet: own_subnet,
            reclaim: _,
        } = self;
        *name == label_value(&workload.name)
            && *namespace == label_value(&workload.namespace)
            && *kind == workload.kind
            && *gv == label_value(&workload.gv())
            && own_nic == nic
            && own_subnet.as_str() == label_value(subnet.as_str())
    }
}

/// A SpiderIPPool that parsed.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of the object, independent of the others"
)]
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Name.
    pub name: PoolName,
    /// Uid of this very object.
    pub uid: Uid,
    /// Version that was read: the fence of the next write.
    pub version: Version,
    /// When it was made: of two pools that overlap, the older one is admitted.
    pub created: Option<DateTime<Utc>>,
    /// The pool's CIDR; its family is the pool's.
    pub cidr: IpNet,
    /// `spec.ips`.
    pub ips: AddrSet,
    /// `spec.excludeIPs`.
    pub excluded: AddrSet,
    /// `spec.gateway`.
    pub gateway: Option<IpAddr>,
    /// `spec.routes`.
    pub routes: Vec<Route>,
    /// Whom it may serve.
    pub restrictions: Restrictions,
    /// `spec.default`.
    pub default: bool,
    /// `spec.disable`.
    pub disabled: bool,
    /// A deletion timestamp is set.
    pub terminating: bool,
    /// Our finalizer is set.
    pub finalizer: bool,
    /// Made for a workload; `None` for a pool made by hand.
    pub owner: Option<Owner>,
    /// The very subnet that adopted it: label `owner-spider-subnet` and owner reference agree. One
    /// of the same name made later has another uid, and must adopt the pool anew: Kubernetes
    /// deletes what refers to an owner that is gone.
    pub adopted_by: Option<(SubnetName, Uid)>,
    /// Annotation `admitted`: the hash the controller last admitted.
    pub admitted: Option<String>,
    /// Annotation `ippool-ip-number`: the size rule last told.
    pub rule: Option<SizeRule>,
    /// Annotation `epoch`: raised by each write that takes addresses away.
    pub epoch: u64,
    /// `status.allocatedIPs`.
    pub records: Records,
}

impl Pool {
    /// True where this very `subnet` adopted the pool.
    pub fn is_adopted_by(&self, subnet: &Subnet) -> bool {
        let by = self.adopted_by.as_ref();
        by.is_some_and(|(name, uid)| *name == subnet.name && *uid == subnet.uid)
    }

    /// The pool's family.
    pub fn family(&self) -> Family {
        Family::of(self.cidr.addr())
    }

    /// `ips` − `excludeIPs`: what the pool owns.
    pub fn total(&self) -> Cow<'_, AddrSet> {
        if self.excluded.is_empty() {
            Cow::Borrowed(&self.ips)
        } else {
            Cow::Owned(self.ips.difference(&self.excluded))
        }
    }

    /// What the subnet's ledger must show for this pool: what it owns and what is in use; only the
    /// latter once it is being deleted, since it gives out nothing more.
    ///
    /// An address that a person took out of the pool while a Pod holds it thus stays taken.
    pub fn claimed(&self) -> Cow<'_, AddrSet> {
        let in_use = self.records.addresses();
        if self.terminating {
            return Cow::Borrowed(in_use);
        }
        let total = self.total();
        if in_use.is_subset(&total) {
            total
        } else {
            Cow::Owned(total.union(in_use))
        }
    }

    /// What could be given to some Pod if nobody held anything: neither reserved nor the gateway.
    pub fn usable(&self, reserved: &AddrSet) -> AddrSet {
        let mut usable = self.total().difference(reserved);
        if let Some(gateway) = self.gateway {
            usable.remove(gateway);
        }
        usable
    }

    /// What can be given out now.
    pub fn free(&self, reserved: &AddrSet) -> AddrSet {
        self.usable(reserved).difference(self.records.addresses())
    }

    /// How many of the pool's addresses Pods have.
    pub fn used(&self) -> AddrCount {
        let quarantined = self.records.quarantined().count();
        self.records.count().saturating_sub(quarantined)
    }

    /// The hash of uid, `ips` and `excludeIPs` that annotation `admitted` must carry before an agent
    /// allocates: a pool edited since it was admitted is not, nor is a copy of an admitted one.
    pub fn admission_hash(&self) -> String {
        admission_hash(&self.uid, &self.ips, &self.excluded)
    }

    /// True where the controller admitted the pool as it stands.
    pub fn is_admitted(&self) -> bool {
        self.admitted.as_deref() == Some(self.admission_hash().as_str())
    }
}

/// See [`Pool::admission_hash`].
pub fn admission_hash(uid: &Uid, ips: &AddrSet, excluded: &AddrSet) -> String {
    stable_hash(&format!(
        "{uid}|{}|{}",
        ips.to_texts().join(","),
        excluded.to_texts().join(",")
    ))
}

#[cfg(test)]
mod tests {
    use crate::subnet::Subnet;
    use crate::testing::{pool, subnet};

    #[test]
    fn a_pool_is_adopted_by_a_subnet_and_not_by_its_namesake_made_later() {
        let adopted = pool("a", "1-9");
        let net4 = subnet("1-9", &[]);
        assert!(adopted.is_adopted_by(&net4));
        let later = Subnet {
            uid: "later".into(),
            ..net4.clone()
        };
        let renamed = Subnet {
            name: "other".into(),
            ..net4
        };
        assert!(!adopted.is_adopted_by(&later) && !adopted.is_adopted_by(&renamed));
    }
}
