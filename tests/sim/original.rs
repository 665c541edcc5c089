//! The original's agent, as a model: what it writes into the pools and endpoints that ours write too,
//! for as long as nodes are changed over one by one.
//!
//! Owns: its ADD and DEL for Pods of Deployments with one NIC and IPv4, as they were observed: the
//! lowest free address, records of `pod` and `podUid` alone, whatever else stood there dropped, no
//! patience with conflicts, release at the first DEL of a Pod that ends. Never does: what its
//! controller did; that one is uninstalled first. What it frees is not ours to answer for, and
//! `judge` takes it so; what it writes over, ours must stand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Json, State};
use axum::routing::post;
use axum::{Router, http::StatusCode};
use cni::{IpamAddArgs, IpamDelArgs, Operation};
use ipam::addr::AddrSet;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use orbweaver::api::names::{self, annotation, label};
use orbweaver::api::{SpiderEndpoint, SpiderIPPool, SpiderReservedIP, convert};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::node::{self, Socket};

/// How often it writes a pool before it gives up.
const TRIES: i32 = 5;
/// Its pause after the first conflict; half as long again after each.
const PAUSE: Duration = Duration::from_millis(10);

/// The agent's process: drop the future and nothing of it goes on.
pub(crate) async fn agent(client: Client, node: String, socket: Socket) {
    let original = Arc::new(Original { client, node });
    let calls = post(add).delete(del);
    let calls = Router::new().route(Operation::PostIpamIp.full_path(), calls);
    node::answer(calls.with_state(original), socket).await;
}

struct Original {
    client: Client,
    node: String,
}

/// All that it knows of a record.
#[derive(Serialize, Deserialize)]
struct Record {
    pod: String,
    #[serde(rename = "podUid")]
    uid: String,
}

type Records = BTreeMap<IpAddr, Record>;
type Failure = (StatusCode, String);

async fn add(
    State(original): State<Arc<Original>>,
    Json(args): Json<IpamAddArgs>,
) -> Result<Json<Value>, Failure> {
    original.add(&args).await.map(Json).map_err(failure)
}

async fn del(
    State(original): State<Arc<Original>>,
    Json(args): Json<IpamDelArgs>,
) -> Result<(), Failure> {
    original.del(&args).await.map_err(failure)
}

fn failure(text: String) -> Failure {
    (StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Original {
    async fn add(&self, args: &IpamAddArgs) -> Result<Value, String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &args.pod_namespace);
        let pod = pods.get(&args.pod_name).await.map_err(text)?;
        let uid = pod.uid().unwrap_or_default();
        if !is_alive(&pod) {
            return Err(format!("dead Pod {}", args.pod_name));
        }
        let endpoints = self.endpoints(&args.pod_namespace);
        let there = endpoints.get_opt(&args.pod_name).await.map_err(text)?;
        match there.and_then(|endpoint| endpoint.status) {
            Some(status) if status.current.uid == uid => return Ok(reply(&json!(status))),
            // What the former Pod of this name had stays recorded.
            Some(_) => self.forget(&args.pod_namespace, &args.pod_name).await?,
            None => {}
        }
        let mut failed = vec!["no IPPool available".to_owned()];
        for pool in self.candidates(&pod).await? {
            match self.take(&pool, &pod).await {
                Ok(address) => return self.tell(&pod, &pool, address).await,
                Err(why) => failed.push(why),
            }
        }
        Err(failed.join(", "))
    }

    async fn del(&self, args: &IpamDelArgs) -> Result<(), String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &args.pod_namespace);
        let pod = pods.get_opt(&args.pod_name).await.map_err(text)?;
        if pod.as_ref().is_some_and(is_alive) {
            return Ok(());
        }
        let uid = pod
            .and_then(|pod| pod.uid())
            .unwrap_or(args.pod_uid.clone());
        let endpoints = self.endpoints(&args.pod_namespace);
        let endpoint = endpoints.get_opt(&args.pod_name).await.map_err(text)?;
        let Some(current) = endpoint.and_then(|endpoint| Some(endpoint.status?.current)) else {
            return Ok(());
        };
        if current.uid != uid {
            return Ok(());
        }
        let pools: BTreeSet<String> = current
            .ips
            .into_iter()
            .filter_map(|ip| ip.ipv4_pool)
            .collect();
        for pool in pools {
            self.commit(&pool, |_, records| {
                records.retain(|_, record| record.uid != uid);
                Ok(())
            })
            .await?;
        }
        self.forget(&args.pod_namespace, &args.pod_name).await
    }

    /// The pools that may serve a Pod: those that it names, or its workload's own.
    async fn candidates(&self, pod: &Pod) -> Result<Vec<String>, String> {
        if let Some(named) = pod.annotations().get(annotation::IPPOOL) {
            let named: Value = serde_json::from_str(named).map_err(text)?;
            let named = named["ipv4"].as_array().cloned().unwrap_or_default();
            return Ok(named
                .iter()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect());
        }
        let sets: Api<ReplicaSet> = Api::default_namespaced(self.client.clone());
        let of_pod = pod
            .owner_references()
            .first()
            .map_or("", |owner| &owner.name);
        let set = sets.get(of_pod).await.map_err(text)?;
        let owner = set
            .owner_references()
            .first()
            .map(|owner| owner.uid.clone());
        let owner = owner.ok_or("a ReplicaSet of nobody's")?;
        let own = ListParams::default().labels(&format!("{}={owner}", label::OWNER_UID));
        let pools: Api<SpiderIPPool> = Api::all(self.client.clone());
        let pools = pools.list(&own).await.map_err(text)?;
        let serving = pools
            .items
            .iter()
            .filter(|pool| pool.metadata.deletion_timestamp.is_none());
        Ok(serving.map(ResourceExt::name_any).collect())
    }

    /// Takes the lowest free address of a pool, or what the Pod has there already.
    async fn take(&self, pool: &str, pod: &Pod) -> Result<IpAddr, String> {
        let reserved: Api<SpiderReservedIP> = Api::all(self.client.clone());
        let reserved = reserved.list(&ListParams::default()).await.map_err(text)?;
        let mut not_these = AddrSet::default();
        for reservation in reserved {
            let listed = convert::reserved(&reservation).0;
            not_these = not_these.union(&listed);
        }
        let uid = pod.uid().unwrap_or_default();
        self.commit(pool, |pool, records| {
            if let Some((address, _)) = records.iter().find(|(_, record)| record.uid == uid) {
                return Ok(*address);
            }
            let pool = convert::pool(pool).map_err(|fault| format!("{fault:?}"))?;
            let total = pool.total().difference(&not_these);
            let free = total.iter().find(|address| !records.contains_key(address));
            let address = free.ok_or("all IP addresses used out")?;
            let of = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
            records.insert(
                address,
                Record {
                    pod: of,
                    uid: uid.clone(),
                },
            );
            Ok(address)
        })
        .await
    }

    /// Reads a pool, changes its records and writes its status, a few times.
    async fn commit<T>(
        &self,
        pool: &str,
        change: impl Fn(&SpiderIPPool, &mut Records) -> Result<T, String>,
    ) -> Result<T, String> {
        let pools: Api<SpiderIPPool> = Api::all(self.client.clone());
        for nth in 0..TRIES {
            let mut object = pools.get(pool).await.map_err(text)?;
            let mut status = object.status.clone().unwrap_or_default();
            let known = status.allocated_ips.as_deref().unwrap_or("{}");
            let mut records: Records = serde_json::from_str(known).map_err(text)?;
            let done = change(&object, &mut records)?;
            status.allocated_ip_count = i64::try_from(records.len()).ok();
            status.allocated_ips = Some(serde_json::to_string(&records).map_err(text)?);
            // It knows neither conditions nor what comes after it.
            status.conditions.clear();
            status.unknown.clear();
            object.status = Some(status);
            match pools
                .replace_status(pool, &PostParams::default(), &object)
                .await
            {
                Err(kube::Error::Api(said)) if said.code == 409 => {
                    sleep(PAUSE.mul_f64(1.5_f64.powi(nth))).await;
                }
                answer => return answer.map(|_| done).map_err(text),
            }
        }
        Err(format!(
            "exhaust all retries ({TRIES} times), failed to write IPPool {pool}"
        ))
    }

    /// Writes the endpoint, and answers.
    async fn tell(&self, pod: &Pod, pool: &str, address: IpAddr) -> Result<Value, String> {
        let pools: Api<SpiderIPPool> = Api::all(self.client.clone());
        let spec = pools.get(pool).await.map_err(text)?.spec;
        let prefix = spec
            .subnet
            .split_once('/')
            .map_or("32", |(_, prefix)| prefix);
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let namespace = pod.namespace().unwrap_or_default();
        let status = json!({
            "current": {"uid": uid, "node": self.node, "ips": [{
                "interface": "eth0", "vlan": 0, "cleanGateway": false,
                "ipv4": format!("{address}/{prefix}"), "ipv4Pool": pool, "ipv4Gateway": spec.gateway,
                "routes": spec.routes,
            }]},
            "ownerControllerType": "Deployment",
            "ownerControllerName": pod.labels().get("app"),
        });
        let answer = reply(&status);
        let endpoint = json!({
            "metadata": {
                "name": name, "namespace": namespace, "finalizers": [names::FINALIZER],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}],
            },
            "status": status,
        });
        let endpoint: SpiderEndpoint = serde_json::from_value(endpoint).map_err(text)?;
        let endpoints = self.endpoints(&namespace);
        endpoints
            .create(&PostParams::default(), &endpoint)
            .await
            .map_err(text)?;
        Ok(answer)
    }

    /// Takes its finalizer off an endpoint, which then goes with its Pod, or at once.
    async fn forget(&self, namespace: &str, name: &str) -> Result<(), String> {
        let endpoints = self.endpoints(namespace);
        let Some(mut endpoint) = endpoints.get_opt(name).await.map_err(text)? else {
            return Ok(());
        };
        endpoint.finalizers_mut().clear();
        endpoints
            .replace(name, &PostParams::default(), &endpoint)
            .await
            .map_err(text)?;
        match endpoints.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(said)) if said.code == 404 => Ok(()),
            answer => answer.map(drop).map_err(text),
        }
    }

    fn endpoints(&self, namespace: &str) -> Api<SpiderEndpoint> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn is_alive(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// An answer by what an endpoint says.
fn reply(status: &Value) -> Value {
    let nic = &status["current"]["ips"][0];
    let own = nic["routes"].as_array().into_iter().flatten();
    let routes = own
        .map(|route| (route["dst"].clone(), route["gw"].clone()))
        .chain([(json!("0.0.0.0/0"), nic["ipv4Gateway"].clone())])
        .map(|(dst, gw)| json!({"dst": dst, "gw": gw, "ifName": "eth0"}));
    json!({
        "ips": [{
            "address": nic["ipv4"], "gateway": nic["ipv4Gateway"], "ipPool": nic["ipv4Pool"],
            "nic": "eth0", "version": 4,
        }],
        "routes": routes.collect::<Vec<_>>(),
    })
}
