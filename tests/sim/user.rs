//! A person at the cluster: what scenarios are written with.
//!
//! Owns: the objects that people apply, and waiting for what they see. Never does: judge; a
//! scenario's end is looked at by `goal`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use orbweaver::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, names};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::fault::{Fault, Kind};
use crate::goal::{self, Gaze};
use crate::nemesis;
use crate::net::REVIEWED;

/// Who people are to the network.
pub(crate) const PERSON: &str = "user";
/// How soon a person tries again what a webhook turned away.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Everything is in this Namespace.
const NAMESPACE: &str = "default";

/// A person. Clones are the same one.
#[derive(Clone)]
pub(crate) struct User {
    client: Client,
    cluster: Arc<Cluster>,
}

/// What a workload asks of its subnet.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) subnet: &'static str,
    pub(crate) replicas: i32,
    /// Whether the pool goes with the workload.
    pub(crate) reclaim: bool,
}

/// So many replicas with a pool out of `net`, which goes with them.
pub(crate) fn replicas(replicas: i32) -> Wish {
    Wish {
        subnet: "net",
        replicas,
        reclaim: true,
    }
}

impl User {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        Self {
            client: cluster.client(PERSON),
            cluster: Arc::clone(cluster),
        }
    }

    /// What this person works at.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Makes a subnet of 10.0.`third`.0/24 with these last numbers.
    pub(crate) async fn subnet(&self, name: &str, third: u8, from: u8, to: u8) {
        let object = json!({
            "metadata": {"name": name},
            "spec": {
                "subnet": format!("10.0.{third}.0/24"),
                "gateway": format!("10.0.{third}.1"),
                "ips": [format!("10.0.{third}.{from}-10.0.{third}.{to}")],
                "routes": [{"dst": format!("172.16.{third}.0/24"), "gw": format!("10.0.{third}.2")}],
            },
        });
        self.create::<SpiderSubnet>(&Api::all(self.client.clone()), &object)
            .await;
    }

    /// Makes a pool by hand, in 10.0.`third`.0/24.
    pub(crate) async fn pool(&self, name: &str, third: u8, from: u8, to: u8) {
        let object = json!({
            "metadata": {"name": name},
            "spec": {
                "subnet": format!("10.0.{third}.0/24"),
                "gateway": format!("10.0.{third}.1"),
                "ips": [format!("10.0.{third}.{from}-10.0.{third}.{to}")],
                "routes": [{"dst": format!("172.16.{third}.0/24"), "gw": format!("10.0.{third}.2")}],
            },
        });
        self.create::<SpiderIPPool>(&self.pools(), &object).await;
    }

    /// Reserves an address.
    pub(crate) async fn reserve(&self, name: &str, ip: &str) {
        let object = json!({"metadata": {"name": name}, "spec": {"ips": [ip]}});
        self.create::<SpiderReservedIP>(&Api::all(self.client.clone()), &object)
            .await;
    }

    /// Makes a Deployment.
    pub(crate) async fn deployment(&self, name: &str, wish: Wish) {
        let object = workload(name, wish.replicas, &wish.annotations());
        self.create::<Deployment>(&self.api(), &object).await;
    }

    /// Makes a Deployment that names its pools.
    pub(crate) async fn deployment_in(&self, name: &str, replicas: i32, pools: &[&str]) {
        let pools = json!({ "ipv4": pools }).to_string();
        let object = workload(name, replicas, &json!({names::annotation::IPPOOL: pools}));
        self.create::<Deployment>(&self.api(), &object).await;
    }

    /// Makes a StatefulSet.
    pub(crate) async fn stateful_set(&self, name: &str, wish: Wish) {
        let mut object = workload(name, wish.replicas, &wish.annotations());
        object["spec"]["serviceName"] = json!(name);
        object["spec"]["podManagementPolicy"] = json!("Parallel");
        self.create::<StatefulSet>(&self.api(), &object).await;
    }

    /// Sets the replicas of a Deployment.
    pub(crate) async fn scale(&self, name: &str, replicas: i32) {
        let patch = json!({"spec": {"replicas": replicas}});
        self.patch::<Deployment>(&self.api(), name, &patch).await;
    }

    /// Sets the replicas of a StatefulSet.
    pub(crate) async fn scale_set(&self, name: &str, replicas: i32) {
        let patch = json!({"spec": {"replicas": replicas}});
        self.patch::<StatefulSet>(&self.api(), name, &patch).await;
    }

    /// Rolls a Deployment out anew.
    pub(crate) async fn roll_out(&self, name: &str, mark: u32) {
        let annotations = json!({"example.org/restarted": mark.to_string()});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        self.patch::<Deployment>(&self.api(), name, &patch).await;
    }

    /// Moves a Deployment to another subnet, or to none.
    pub(crate) async fn annotate_away(&self, name: &str, subnet: Option<&str>) {
        let subnet = subnet.map(|subnet| json!({"ipv4": [subnet]}).to_string());
        let annotations = json!({names::annotation::SUBNET: subnet});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        self.patch::<Deployment>(&self.api(), name, &patch).await;
    }

    /// Gives a subnet other addresses.
    pub(crate) async fn resize_subnet(&self, name: &str, ips: &[&str]) {
        let api: Api<SpiderSubnet> = Api::all(self.client.clone());
        self.patch(&api, name, &json!({"spec": {"ips": ips}})).await;
    }

    /// Gives a pool other addresses.
    pub(crate) async fn resize_pool(&self, name: &str, ips: &[&str]) {
        self.patch(&self.pools(), name, &json!({"spec": {"ips": ips}}))
            .await;
    }

    /// Notes something on every pool that is none of the product's business.
    pub(crate) async fn mark_pools(&self) {
        for pool in self.list_pools().await {
            let patch = json!({"metadata": {"annotations": {crate::judge::FOREIGN: "yes"}}});
            self.patch(&self.pools(), &pool.name_any(), &patch).await;
        }
    }

    /// Notes something in every record that is none of the product's business.
    pub(crate) async fn mark_records(&self) {
        for pool in self.list_pools().await {
            let marked = |text: &str| {
                let mut records: BTreeMap<String, Value> = serde_json::from_str(text).unwrap();
                for record in records.values_mut() {
                    record[crate::judge::FOREIGN] = json!("yes");
                }
                json!(records).to_string()
            };
            self.rewrite_records(&pool.name_any(), marked).await;
        }
    }

    /// Writes the text of a pool's records anew, and tells what it was.
    pub(crate) async fn rewrite_records(
        &self,
        pool: &str,
        change: impl Fn(&str) -> String,
    ) -> String {
        loop {
            let mut object = self.pools().get(pool).await.unwrap();
            let status = object.status.get_or_insert_default();
            let was = status
                .allocated_ips
                .clone()
                .unwrap_or_else(|| "{}".to_owned());
            status.allocated_ips = Some(change(&was));
            let params = PostParams::default();
            match self.pools().replace_status(pool, &params, &object).await {
                Err(kube::Error::Api(said)) if said.code == 409 => {}
                answer => {
                    answer.unwrap();
                    return was;
                }
            }
        }
    }

    /// Deletes a Deployment.
    pub(crate) async fn delete(&self, name: &str) {
        self.remove::<Deployment>(&self.api(), name, None).await;
    }

    /// Deletes a StatefulSet.
    pub(crate) async fn delete_set(&self, name: &str) {
        self.remove::<StatefulSet>(&self.api(), name, None).await;
    }

    /// Deletes a pool.
    pub(crate) async fn delete_pool(&self, name: &str) {
        self.remove(&self.pools(), name, None).await;
    }

    /// Deletes the n-th Pod there is, counted round; by force, its object goes at once.
    pub(crate) async fn delete_pod(&self, nth: usize, force: bool) -> Option<String> {
        let pods = self.pods().await;
        let pod = pods.get(nth.checked_rem(pods.len())?)?;
        let grace = force.then_some(0);
        self.remove::<Pod>(&self.api(), &pod.name_any(), grace)
            .await;
        Some(pod.name_any())
    }

    /// Says that a node is down for good, or takes it back.
    pub(crate) async fn out_of_service(&self, node: &str, is: bool) {
        let taint = json!({"key": "node.kubernetes.io/out-of-service", "value": "x", "effect": "NoExecute"});
        let taints = if is { json!([taint]) } else { json!([]) };
        let api: Api<Node> = Api::all(self.client.clone());
        self.patch(&api, node, &json!({"spec": {"taints": taints}}))
            .await;
    }

    /// Has the scheduler leave a node out, or not.
    pub(crate) async fn cordon(&self, node: &str, is: bool) {
        let api: Api<Node> = Api::all(self.client.clone());
        self.patch(&api, node, &json!({"spec": {"unschedulable": is}}))
            .await;
    }

    /// Every Pod.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        self.api().list(&ListParams::default()).await.unwrap().items
    }

    /// Every pool.
    pub(crate) async fn list_pools(&self) -> Vec<SpiderIPPool> {
        self.pools()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
    }

    /// Waits until all is as it should be, or a rule is broken, or so many seconds have passed.
    pub(crate) async fn settled(&self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut gaze = Gaze::at(goal::lacks);
        while Instant::now() < end
            && self.cluster.judge.violations().is_empty()
            && !gaze.lacking(&self.cluster).is_empty()
        {
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Lets time pass.
    pub(crate) async fn wait(&self, millis: u64) {
        sleep(Duration::from_millis(millis)).await;
    }

    /// Has a fault meet every process whose name begins so, or every node: `n`.
    pub(crate) async fn meet(&self, who: &str, kind: Kind, lasts: u64) {
        let all = self
            .cluster
            .all()
            .into_iter()
            .chain(self.cluster.node_names());
        for target in all.filter(|name| name.starts_with(who)) {
            let fault = Fault {
                at: 0,
                kind,
                target,
                lasts,
            };
            nemesis::strike(self, &fault).await;
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The pools.
    pub(crate) fn pools(&self) -> Api<SpiderIPPool> {
        Api::all(self.client.clone())
    }

    /// Tries again until the webhook that reviews changes of this kind, if any does, is up.
    async fn reviewed<K: Resource<DynamicType = ()>>(&self) {
        let is_reviewed = REVIEWED.contains(&&*K::plural(&()));
        while is_reviewed && self.cluster.net.turns_away(PERSON) {
            sleep(TRY_AGAIN).await;
        }
    }

    async fn create<K>(&self, api: &Api<K>, object: &Value)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object.clone()).unwrap();
        self.reviewed::<K>().await;
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    /// What is not there can't be changed, which is no matter.
    async fn patch<K>(&self, api: &Api<K>, name: &str, patch: &Value)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.reviewed::<K>().await;
        let patched = api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        is_answered(patched);
    }

    async fn remove<K>(&self, api: &Api<K>, name: &str, grace: Option<u32>)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let params = DeleteParams {
            grace_period_seconds: grace,
            ..DeleteParams::default()
        };
        is_answered(api.delete(name, &params).await);
    }
}

fn is_answered<T>(answer: kube::Result<T>) {
    match answer {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => panic!("a person's request was refused: {error}"),
    }
}

impl Wish {
    fn annotations(self) -> Value {
        json!({
            names::annotation::SUBNET: json!({"ipv4": [self.subnet]}).to_string(),
            names::annotation::RECLAIM: self.reclaim.to_string(),
        })
    }
}

fn workload(name: &str, replicas: i32, annotations: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "main", "image": "busybox"}],
                },
            },
        },
    })
}
