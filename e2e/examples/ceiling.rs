//! What the machine can do at most: creates of small objects and updates of pools in a second, through
//! the API server into its store, by clients that wait for nothing but its answers.
//!
//! The small objects are endpoints of Pods that do not exist. The pools have ten records each, which
//! change; they are made and taken away here, and should be nobody else's to look at. Prints its
//! figures as JSON.

use std::io::{self, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::{Map, Value, json};

/// What the small objects carry, in bytes: as much as ten records of a pool.
const CARGO: usize = 1_500;
/// Records of a pool.
const RECORDS: usize = 10;
/// How often every pool is written.
const ROUNDS: usize = 10;
/// A label of all objects.
const LABEL: &str = "e2e.orbweaver.io/ceiling=true";

#[derive(Debug, Parser)]
struct Arguments {
    /// Where the small objects are.
    #[arg(long)]
    namespace: String,
    /// How many there are.
    #[arg(long, default_value_t = 1_000)]
    objects: usize,
    /// How many pools there are.
    #[arg(long, default_value_t = 100)]
    pools: usize,
    /// Calls in flight.
    #[arg(long, default_value_t = 40)]
    in_flight: usize,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let client = Client::try_default().await;
    let client = client.context("no API server is configured")?;
    let endpoints = Api::namespaced_with(
        client.clone(),
        &arguments.namespace,
        &kind("SpiderEndpoint", "spiderendpoints"),
    );
    let creates_per_s = creates(&endpoints, arguments.objects, arguments.in_flight).await?;
    take_away(&endpoints).await?;
    let pools = Api::all_with(client, &kind("SpiderIPPool", "spiderippools"));
    let updates_per_s = updates(&pools, arguments.pools, arguments.in_flight).await;
    take_away(&pools).await?;
    let figures = json!({ "creates_per_s": creates_per_s, "updates_per_s": updates_per_s? });
    writeln!(io::stdout(), "{figures}").context("nobody reads the figures")
}

async fn creates(api: &Api<DynamicObject>, count: usize, in_flight: usize) -> Result<f64> {
    let began = Instant::now();
    make(api, (0..count).map(endpoint), in_flight).await?;
    Ok(per_second(count, began))
}

/// Ten rounds: in each every pool is written once.
async fn updates(api: &Api<DynamicObject>, count: usize, in_flight: usize) -> Result<f64> {
    let mut pools = make(api, (0..count).map(pool), in_flight).await?;
    let began = Instant::now();
    for round in 0..ROUNDS {
        pools = write_all(api, pools, in_flight, |index| status(index, round)).await?;
    }
    let updates_per_s = per_second(count * ROUNDS, began);
    // None of them may go while it has records.
    let empty = json!({ "allocatedIPs": "{}", "totalIPCount": 0, "allocatedIPCount": 0 });
    write_all(api, pools, in_flight, |_| empty.clone()).await?;
    Ok(updates_per_s)
}

async fn write_all(
    api: &Api<DynamicObject>,
    mut pools: Vec<DynamicObject>,
    in_flight: usize,
    status: impl Fn(usize) -> Value,
) -> Result<Vec<DynamicObject>> {
    for (index, pool) in pools.iter_mut().enumerate() {
        pool.data["status"] = status(index);
    }
    let params = PostParams::default();
    stream::iter(pools)
        .map(|pool| {
            let params = &params;
            let name = pool.metadata.name.clone().unwrap_or_default();
            async move { api.replace_status(&name, params, &pool).await }
        })
        .buffer_unordered(in_flight)
        .try_collect()
        .await
        .context("cannot replace")
}

async fn make(
    api: &Api<DynamicObject>,
    objects: impl Iterator<Item = DynamicObject>,
    in_flight: usize,
) -> Result<Vec<DynamicObject>> {
    let params = PostParams::default();
    stream::iter(objects)
        .map(|object| {
            let params = &params;
            async move { api.create(params, &object).await }
        })
        .buffer_unordered(in_flight)
        .try_collect()
        .await
        .context("cannot create")
}

async fn take_away(api: &Api<DynamicObject>) -> Result<()> {
    let all = ListParams::default().labels(LABEL);
    let deleted = api.delete_collection(&DeleteParams::default(), &all).await;
    deleted.map(drop).context("cannot delete")
}

fn kind(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "spiderpool.spidernet.io".to_owned(),
        version: "v2beta1".to_owned(),
        api_version: "spiderpool.spidernet.io/v2beta1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn object(kind: &ApiResource, index: usize, data: Value) -> DynamicObject {
    let mut object = DynamicObject::new(&format!("ceiling-{index}"), kind);
    let label = LABEL
        .split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    object.metadata.labels = Some(label.into_iter().collect());
    object.data = data;
    object
}

fn endpoint(index: usize) -> DynamicObject {
    let data = json!({ "status": {
        "current": { "uid": "x".repeat(CARGO), "node": "one", "ips": [] },
        "ownerControllerType": "Pod",
        "ownerControllerName": "none",
    } });
    object(&kind("SpiderEndpoint", "spiderendpoints"), index, data)
}

/// As a pool that was made for a Deployment.
fn pool(index: usize) -> DynamicObject {
    let range = format!("10.200.{index}.1-10.200.{index}.11");
    let data = json!({ "spec": {
        "ipVersion": 4,
        "subnet": "10.200.0.0/16",
        "ips": [range],
        "podAffinity": { "matchLabels": {
            "app": "none",
            "ipam.spidernet.io/app-api-group": "apps",
            "ipam.spidernet.io/app-api-version": "v1",
            "ipam.spidernet.io/app-kind": "Deployment",
            "ipam.spidernet.io/app-name": "none",
            "ipam.spidernet.io/app-namespace": "default",
        } },
    } });
    object(&kind("SpiderIPPool", "spiderippools"), index, data)
}

fn status(index: usize, round: usize) -> Value {
    let records: Map<String, Value> = (1..=RECORDS)
        .map(|number| {
            let record = json!({
                "pod": format!("default/none-{round}-{number}"),
                "podUid": "00000000-0000-4000-8000-000000000000",
                "nic": "eth0",
                "node": "one",
                "sandbox": "0".repeat(64),
            });
            (format!("10.200.{index}.{number}"), record)
        })
        .collect();
    json!({
        "allocatedIPs": Value::Object(records).to_string(),
        "totalIPCount": RECORDS + 1,
        "allocatedIPCount": RECORDS,
    })
}

fn per_second(count: usize, since: Instant) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / since.elapsed().as_secs_f64()
}
