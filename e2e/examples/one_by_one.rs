//! An agent that records one address at a time: what the product is measured against.
//!
//! It serves the plugin's two operations on a socket like the product's, and writes the same pools
//! the way that comes to mind first: read the pool, add one record, write it back at the version
//! read, try again when somebody else was faster. Five tries, 10 ms × 1.5 apart with a jitter of
//! a tenth; calls for the same pool wait for each other; the endpoint is created before the
//! answer. Spiderpool v1.2 works like this.
//!
//! It is told the pool by the request (`defaultIPv4IPPool`) and checks nothing. It never watches,
//! knows no family but IPv4, and forgets on restart what it gave.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::{Client, Error};
use serde_json::{Map, Value, json};
use tokio::net::UnixListener;
use tokio::sync::Mutex;

/// Tries of one write before the call fails.
const TRIES: i32 = 5;
/// Pause before the second try.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// What a pause is longer than the one before.
const GROWTH: f64 = 1.5;
/// The share of a pause that chance adds.
const JITTER: f64 = 0.1;

#[derive(Debug, Parser)]
struct Arguments {
    /// Socket to serve on.
    #[arg(long)]
    socket: PathBuf,
    /// Name of the node, for endpoints.
    #[arg(long)]
    node: String,
}

struct Agent {
    client: Client,
    node: String,
    /// Whoever holds a pool's lock is the one that writes it for this node; the queue is fair.
    turns: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// The pool that each Pod has its address from.
    held: Mutex<HashMap<String, String>>,
}

type Answer = Result<Json<Value>, (StatusCode, Json<String>)>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let Arguments { socket, node } = Arguments::parse();
    let agent = Agent {
        client: Client::try_default()
            .await
            .context("no API server is configured")?,
        node,
        turns: Mutex::default(),
        held: Mutex::default(),
    };
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    let routes = Router::new()
        .route("/v1/ipam/healthy", get(async || StatusCode::OK))
        .route("/v1/ipam/ip", post(add).delete(del))
        .with_state(Arc::new(agent));
    axum::serve(listener, routes)
        .await
        .context("the socket is closed")
}

async fn add(State(agent): State<Arc<Agent>>, Json(wanted): Json<Value>) -> Answer {
    agent.add(&wanted).await.map(Json).map_err(|e| failed(&e))
}

async fn del(State(agent): State<Arc<Agent>>, Json(gone): Json<Value>) -> Answer {
    agent
        .del(&gone)
        .await
        .map(|()| Json(Value::Null))
        .map_err(|e| failed(&e))
}

fn failed(error: &anyhow::Error) -> (StatusCode, Json<String>) {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        Json(format!("{error:#}")),
    )
}

impl Agent {
    async fn add(&self, wanted: &Value) -> Result<Value> {
        let uid = text(wanted, "/podUID")?;
        let name = text(wanted, "/defaultIPv4IPPool/0")?;
        let pod = format!(
            "{}/{}",
            text(wanted, "/podNamespace")?,
            text(wanted, "/podName")?
        );
        let address = self
            .change(name, |pool, records| record(pool, records, &pod, uid))
            .await?;
        self.held
            .lock()
            .await
            .insert(uid.to_owned(), name.to_owned());
        let nic = text(wanted, "/ifName")?;
        self.create_endpoint(wanted, name, nic, &address).await?;
        let ip = json!({ "address": address, "ipPool": name, "nic": nic, "version": 4 });
        Ok(json!({ "ips": [ip], "routes": null }))
    }

    async fn del(&self, gone: &Value) -> Result<()> {
        let uid = text(gone, "/podUID")?;
        let Some(name) = self.held.lock().await.get(uid).cloned() else {
            return Ok(());
        };
        self.change(&name, |_, records| {
            records.retain(|_, record| record["podUid"] != uid);
            Ok(())
        })
        .await?;
        self.held.lock().await.remove(uid);
        Ok(())
    }

    /// Reads a pool, has its records changed, and writes them back; from the start on a conflict.
    async fn change<T>(
        &self,
        name: &str,
        change: impl Fn(&Value, &mut Map<String, Value>) -> Result<T>,
    ) -> Result<T> {
        let turn = Arc::clone(self.turns.lock().await.entry(name.to_owned()).or_default());
        let _turn = turn.lock().await;
        let pools: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind("SpiderIPPool"));
        for next in 1..=TRIES {
            let mut pool = pools
                .get(name)
                .await
                .with_context(|| cannot("read", name))?;
            let mut records = match pool.data.pointer("/status/allocatedIPs") {
                Some(Value::String(records)) => serde_json::from_str(records)?,
                _ => Map::new(),
            };
            let changed = change(&pool.data, &mut records)?;
            pool.data["status"]["allocatedIPCount"] = records.len().into();
            pool.data["status"]["allocatedIPs"] = Value::Object(records).to_string().into();
            match pools
                .replace_status(name, &PostParams::default(), &pool)
                .await
            {
                Ok(_) => return Ok(changed),
                Err(Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error).with_context(|| cannot("write", name)),
            }
            if next < TRIES {
                tokio::time::sleep(pause(next)).await;
            }
        }
        bail!("exhaust all retries ({TRIES} times), failed to write IPPool {name}")
    }

    async fn create_endpoint(
        &self,
        wanted: &Value,
        pool: &str,
        nic: &str,
        address: &str,
    ) -> Result<()> {
        let (namespace, pod) = (text(wanted, "/podNamespace")?, text(wanted, "/podName")?);
        let uid = text(wanted, "/podUID")?;
        let endpoint = serde_json::from_value(json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderEndpoint",
            "metadata": { "name": pod, "ownerReferences": [
                { "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid },
            ] },
            "status": {
                "ownerControllerType": "Pod",
                "ownerControllerName": pod,
                "current": { "uid": uid, "node": self.node, "ips": [
                    { "interface": nic, "ipv4": address, "ipv4Pool": pool, "vlan": 0 },
                ] },
            },
        }))?;
        let kind = kind("SpiderEndpoint");
        let endpoints: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &kind);
        match endpoints.create(&PostParams::default(), &endpoint).await {
            Err(Error::Api(status)) if status.code == 409 => Ok(()),
            created => created
                .map(drop)
                .with_context(|| format!("cannot create SpiderEndpoint {namespace}/{pod}")),
        }
    }
}

/// Records the lowest free address for a Pod, or finds the one it has; with its prefix length.
fn record(pool: &Value, records: &mut Map<String, Value>, pod: &str, uid: &str) -> Result<String> {
    let own = records.iter().find(|(_, record)| record["podUid"] == uid);
    let address = match own {
        Some((address, _)) => address.clone(),
        None => addresses(pool)?
            .map(|address| Ipv4Addr::from(address).to_string())
            .find(|address| !records.contains_key(address))
            .context("all IP addresses used out")?,
    };
    records.insert(address.clone(), json!({ "pod": pod, "podUid": uid }));
    let subnet = text(pool, "/spec/subnet")?;
    let (_, length) = subnet.split_once('/').context("a subnet without length")?;
    Ok(format!("{address}/{length}"))
}

/// The addresses of a pool in order, as numbers.
fn addresses(pool: &Value) -> Result<impl Iterator<Item = u32>> {
    let ranges = pool.pointer("/spec/ips").and_then(Value::as_array);
    let ranges = ranges.into_iter().flatten().filter_map(Value::as_str);
    let ends = ranges.map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Ok((first.parse::<Ipv4Addr>()?, last.parse::<Ipv4Addr>()?))
    });
    let ends = ends.collect::<Result<Vec<_>>>()?.into_iter();
    Ok(ends.flat_map(|(first, last)| u32::from(first)..=u32::from(last)))
}

fn pause(after_try: i32) -> Duration {
    FIRST_PAUSE.mul_f64(GROWTH.powi(after_try - 1) * (1.0 + JITTER * rand::random::<f64>()))
}

fn kind(name: &str) -> ApiResource {
    ApiResource {
        group: "spiderpool.spidernet.io".to_owned(),
        version: "v2beta1".to_owned(),
        api_version: "spiderpool.spidernet.io/v2beta1".to_owned(),
        kind: name.to_owned(),
        plural: format!("{}s", name.to_lowercase()),
    }
}

fn cannot(what: &str, pool: impl Display) -> String {
    format!("cannot {what} SpiderIPPool {pool}")
}

fn text<'a>(of: &'a Value, at: &str) -> Result<&'a str> {
    let text = of.pointer(at).and_then(Value::as_str);
    text.with_context(|| format!("no text at {at}"))
}
