//! What the leader's caches say to agents, so that a Pod's start costs the API server no read.
//!
//! Owns: which caches are looked at. Never does: ask anybody, or claim to be up to date: agents use
//! it to choose, and what they choose is settled by a fenced write.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipam::name::{PoolName, Uid, WorkloadId};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::core::ObjectMeta;

use super::super::index::Index;
use crate::allocator::wire::{self, Look, Seen};
use crate::api::SpiderIPPool;
use crate::api::names::label;
use crate::api::pod::controller_of;
use crate::kube_io::cache::{Cache, Key};

/// Most bytes of records in one answer, of all its pools together: quoted, and with all else, they
/// stay below what may be sent.
const RECORDS_MAX: usize = wire::BODY_MAX / 2;

/// The caches.
#[derive(Clone)]
pub(crate) struct Sight {
    pub(crate) index: Arc<Index>,
    pub(crate) pools: Cache<SpiderIPPool>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) jobs: Cache<Job>,
}

impl Sight {
    /// What is known; none where the API server had better be asked. Cost: O(pools told of · log).
    pub(super) fn look(&self, look: &Look) -> Option<Seen> {
        let found = match look {
            Look::Pool(name) => self
                .pools
                .get(&Key::cluster(name.as_str()))
                .into_iter()
                .collect(),
            Look::Pools(labels) => self.labelled(labels),
            Look::Owner(id) => {
                let meta = Box::new(self.owner(id)?);
                let top = controller_of(meta.owner_references.as_deref());
                let top = top.map_or(id.uid.as_str(), |top| &top.uid);
                let pools = sendable(self.made_for(top)).unwrap_or_default();
                return Some(Seen::OwnerAndPools { meta, pools });
            }
        };
        sendable(found)
            .filter(|found| !found.is_empty())
            .map(Seen::Pools)
    }

    fn labelled(&self, labels: &BTreeMap<String, String>) -> Vec<Arc<SpiderIPPool>> {
        let Some(workload) = labels.get(label::OWNER_UID) else {
            return Vec::new();
        };
        let has_all = |pool: &Arc<SpiderIPPool>| {
            let own = pool.labels();
            labels
                .iter()
                .all(|(key, value)| own.get(key) == Some(value))
        };
        let mut pools = self.made_for(workload);
        pools.retain(has_all);
        pools
    }

    fn made_for(&self, workload: &str) -> Vec<Arc<SpiderIPPool>> {
        let names = self.index.made_for(&Uid::from(workload));
        let known = |name: &PoolName| self.pools.get(&Key::cluster(name.as_str()));
        names.iter().filter_map(known).collect()
    }

    fn owner(&self, id: &WorkloadId) -> Option<ObjectMeta> {
        let key = Key::namespaced(&id.namespace, &id.name);
        let known = match (id.group.as_str(), id.kind.as_str()) {
            ("apps", "ReplicaSet") => self.replica_sets.get(&key).map(|it| it.metadata.clone()),
            ("batch", "Job") => self.jobs.get(&key).map(|it| it.metadata.clone()),
            _ => None,
        };
        known.filter(|meta| meta.uid.as_deref() == Some(id.uid.as_str()))
    }
}

/// The pools, unless they are too much to send.
fn sendable(pools: Vec<Arc<SpiderIPPool>>) -> Option<Vec<Arc<SpiderIPPool>>> {
    let statuses = pools.iter().filter_map(|pool| pool.status.as_ref());
    let records = statuses.filter_map(|status| status.allocated_ips.as_ref());
    let fits = records.map(String::len).sum::<usize>() <= RECORDS_MAX;
    fits.then_some(pools)
}

#[cfg(test)]
mod tests {
    use ipam::addr::Family;
    use ipam::name::{Nic, SubnetName};
    use ipam::pool::Owner;
    use serde_json::json;

    use super::super::super::index::{Features, Switch};
    use super::*;
    use crate::api::convert;

    fn deployment(name: &str) -> WorkloadId {
        id("Deployment", name, &format!("uid-{name}"))
    }

    fn id(kind: &str, name: &str, uid: &str) -> WorkloadId {
        WorkloadId {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: Uid::from(uid),
        }
    }

    fn labels(of: &str, nic: &str) -> BTreeMap<String, String> {
        let (nic, subnet) = (Nic::from(nic), SubnetName::new("net"));
        let owner = Owner::of(&deployment(of), &nic, &subnet, true);
        convert::owner_labels(&owner, Family::V4)
    }

    fn pool(name: &str, of: &str, bytes: usize) -> SpiderIPPool {
        let records = format!("{{}}{}", " ".repeat(bytes));
        let meta = json!({"name": name, "uid": name, "resourceVersion": "1", "labels": labels(of, "eth0")});
        let object = json!({"apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": meta,
            "spec": {"subnet": "172.18.41.0/24"}, "status": {"allocatedIPs": records}});
        serde_json::from_value(object).unwrap()
    }

    /// ReplicaSet `NAME-1` of each Deployment, with the pools of that.
    fn sight() -> Sight {
        let features = Features {
            ipv4: true,
            ipv6: false,
            subnets: Switch::On,
            auto_pools: Switch::On,
        };
        let sight = Sight {
            index: Arc::new(Index::new(features)),
            pools: Cache::new(),
            replica_sets: Cache::new(),
            jobs: Cache::new(),
        };
        for (name, of, bytes) in [("a", "web", 1), ("b", "web", 2), ("c", "db", RECORDS_MAX)] {
            let pool = pool(name, of, bytes);
            sight.index.pool(name, Some(&Arc::new(pool.clone())));
            sight.pools.apply_written(pool);
        }
        for of in ["web", "db", "none"] {
            let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": of,
                "uid": deployment(of).uid, "controller": true});
            let meta = json!({"name": format!("{of}-1"), "namespace": "shop", "uid": format!("r-{of}"),
                "resourceVersion": "1", "ownerReferences": [owner]});
            let set = json!({"metadata": meta, "spec": {"selector": {}}});
            let set = serde_json::from_value(set).unwrap();
            sight.replica_sets.apply_written(set);
        }
        sight
    }

    fn names(pools: &[Arc<SpiderIPPool>]) -> Vec<String> {
        pools.iter().map(|pool| pool.name_any()).collect()
    }

    #[test]
    fn pools_are_found_by_name_and_by_all_of_some_labels_if_they_are_not_too_much_to_send() {
        let by_name = |name| Look::Pool(PoolName::new(name));
        let by_labels = |of, nic| Look::Pools(labels(of, nic));
        let of_nobody = Look::Pools([(label::INTERFACE.to_owned(), "eth0".to_owned())].into());
        let table: [(Look, &[&str]); 8] = [
            (by_name("a"), &["a"]),
            (by_name("c"), &[]),
            (by_name("none"), &[]),
            (by_labels("web", "eth0"), &["a", "b"]),
            (by_labels("web", "eth1"), &[]),
            (by_labels("db", "eth0"), &[]),
            (by_labels("none", "eth0"), &[]),
            (of_nobody, &[]),
        ];
        for (look, wanted) in table {
            match sight().look(&look) {
                Some(Seen::Pools(found)) => assert_eq!(names(&found), wanted, "{look:?}"),
                other => assert!(other.is_none() && wanted.is_empty(), "{look:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_owner_is_told_of_if_it_is_the_very_one_and_with_it_what_there_is_room_for() {
        let told = |kind: &str, name: &str, uid: &str| {
            let seen = sight().look(&Look::Owner(id(kind, name, uid)))?;
            let Seen::OwnerAndPools { meta, pools } = seen else {
                panic!("{seen:?}");
            };
            Some((meta.name.unwrap(), names(&pools)))
        };
        let table: [(&str, &[&str]); 3] = [("web", &["a", "b"]), ("db", &[]), ("none", &[])];
        for (of, pools) in table {
            let (name, uid) = (format!("{of}-1"), format!("r-{of}"));
            let (found, with) = told("ReplicaSet", &name, &uid).unwrap();
            assert_eq!(
                (found, with),
                (name, pools.iter().map(ToString::to_string).collect())
            );
        }
        assert_eq!(told("ReplicaSet", "web-1", "r-0"), None);
        assert_eq!(told("Deployment", "web-1", "r-web"), None);
    }
}
