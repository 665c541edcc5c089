//! What the leader's caches say to agents, so that a Pod's start costs the API server no read.
//!
//! Owns: which caches are looked at. Never does: ask anybody, or claim to be up to date: agents use
//! it to choose, and what they choose is settled by a fenced write.

use std::collections::BTreeMap;

use ipam::name::WorkloadId;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::core::ObjectMeta;

use crate::allocator::wire::{self, Look, Seen};
use crate::api::SpiderIPPool;
use crate::kube_io::cache::{Cache, Key};

/// Most bytes of records in one answer, of all its pools together: quoted, and with all else, they
/// stay below what may be sent.
const RECORDS_MAX: usize = wire::BODY_MAX / 2;

/// The caches.
#[derive(Clone)]
pub(crate) struct Sight {
    pub(crate) pools: Cache<SpiderIPPool>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) jobs: Cache<Job>,
}

impl Sight {
    /// What is known; none where the API server had better be asked.
    ///
    /// Costs a pass over all pools for [`Look::Pools`].
    pub(super) fn look(&self, look: &Look) -> Option<Seen> {
        match look {
            Look::Pool(name) => self.pool(&Key::cluster(name.as_str())).and_then(pools),
            Look::Pools(labels) => pools(self.labelled(labels)),
            Look::Owner(id) => self.owner(id).map(Box::new).map(Seen::Owner),
        }
    }

    fn pool(&self, key: &Key) -> Option<Vec<SpiderIPPool>> {
        let known = self.pools.get(key)?;
        Some(vec![(*known).clone()])
    }

    fn labelled(&self, labels: &BTreeMap<String, String>) -> Vec<SpiderIPPool> {
        let has_all = |pool: &SpiderIPPool| {
            let own = pool.labels();
            labels
                .iter()
                .all(|(key, value)| own.get(key) == Some(value))
        };
        self.pools.look(|all| {
            let found = all.values().filter(|pool| has_all(pool));
            found.map(|pool| (**pool).clone()).collect()
        })
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

fn pools(found: Vec<SpiderIPPool>) -> Option<Seen> {
    let statuses = found.iter().filter_map(|pool| pool.status.as_ref());
    let records = statuses.filter_map(|status| status.allocated_ips.as_ref());
    let fits = records.map(String::len).sum::<usize>() <= RECORDS_MAX;
    (fits && !found.is_empty()).then_some(Seen::Pools(found))
}

#[cfg(test)]
mod tests {
    use ipam::name::{PoolName, Uid};
    use serde_json::json;

    use super::*;

    fn pool(name: &str, app: &str, records: usize) -> SpiderIPPool {
        let meta = json!({"name": name, "uid": name, "resourceVersion": "1", "labels": {"app": app, "nic": "eth0"}});
        let object = json!({"apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": meta,
            "spec": {"subnet": "172.18.41.0/24"}, "status": {"allocatedIPs": "x".repeat(records)}});
        serde_json::from_value(object).unwrap()
    }

    fn sight() -> Sight {
        let sight = Sight {
            pools: Cache::new(),
            replica_sets: Cache::new(),
            jobs: Cache::new(),
        };
        for (name, app, records) in [
            ("a", "web", 1),
            ("b", "web", 2),
            ("c", "db", RECORDS_MAX + 1),
        ] {
            sight.pools.apply_written(pool(name, app, records));
        }
        let meta =
            json!({"name": "web-1", "namespace": "shop", "uid": "r-1", "resourceVersion": "1"});
        let set = json!({"metadata": meta, "spec": {"selector": {}}});
        sight
            .replica_sets
            .apply_written(serde_json::from_value(set).unwrap());
        sight
    }

    fn names(seen: Option<Seen>) -> Vec<String> {
        match seen {
            Some(Seen::Pools(pools)) => pools.iter().map(ResourceExt::name_any).collect(),
            Some(Seen::Owner(meta)) => vec![meta.name.unwrap()],
            None => vec![],
        }
    }

    #[test]
    fn pools_are_found_by_name_and_by_all_of_some_labels_if_they_are_not_too_much_to_send() {
        let by_name = |name| Look::Pool(PoolName::new(name));
        let labels = |app: &str, nic: &str| {
            let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            Look::Pools([pair("app", app), pair("nic", nic)].into())
        };
        let table: [(Look, &[&str]); 6] = [
            (by_name("a"), &["a"]),
            (by_name("c"), &[]),
            (by_name("none"), &[]),
            (labels("web", "eth0"), &["a", "b"]),
            (labels("web", "eth1"), &[]),
            (labels("db", "eth0"), &[]),
        ];
        for (look, wanted) in table {
            assert_eq!(names(sight().look(&look)), wanted, "{look:?}");
        }
    }

    #[test]
    fn an_owner_is_told_of_if_it_is_the_very_one() {
        let owner = |kind: &str, uid: &str| {
            Look::Owner(WorkloadId {
                group: "apps".to_owned(),
                version: "v1".to_owned(),
                kind: kind.to_owned(),
                namespace: "shop".to_owned(),
                name: "web-1".to_owned(),
                uid: Uid::from(uid),
            })
        };
        assert_eq!(names(sight().look(&owner("ReplicaSet", "r-1"))), ["web-1"]);
        for other in [owner("ReplicaSet", "r-0"), owner("Deployment", "r-1")] {
            assert!(sight().look(&other).is_none(), "{other:?}");
        }
    }
}
