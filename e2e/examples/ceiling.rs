//! What the machine can do at most: creates and updates of small objects in a second, through the
//! API server into its store, by clients that wait for nothing but its answers.
//!
//! The objects are endpoints of Pods that do not exist, so nobody else writes them; each is as
//! large as a pool with ten records. Prints its figures as JSON and takes the objects away again.

use std::io::{self, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::json;

/// What the objects carry, in bytes: ten records of a pool.
const CARGO: usize = 1_500;
/// A label of all of them.
const LABEL: &str = "e2e.orbweaver.io/ceiling=true";

#[derive(Debug, Parser)]
struct Arguments {
    /// Where the objects are.
    #[arg(long)]
    namespace: String,
    /// How many there are.
    #[arg(long, default_value_t = 1_000)]
    objects: usize,
    /// Calls in flight.
    #[arg(long, default_value_t = 40)]
    in_flight: usize,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let Arguments {
        namespace,
        objects,
        in_flight,
    } = Arguments::parse();
    let client = Client::try_default().await;
    let client = client.context("no API server is configured")?;
    let kind = ApiResource {
        group: "spiderpool.spidernet.io".to_owned(),
        version: "v2beta1".to_owned(),
        api_version: "spiderpool.spidernet.io/v2beta1".to_owned(),
        kind: "SpiderEndpoint".to_owned(),
        plural: "spiderendpoints".to_owned(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
    let params = PostParams::default();

    let began = Instant::now();
    let created: Vec<DynamicObject> = stream::iter(0..objects)
        .map(|index| {
            let (api, params, object) = (&api, &params, object(&kind, index));
            async move { api.create(params, &object).await }
        })
        .buffer_unordered(in_flight)
        .try_collect()
        .await
        .context("cannot create")?;
    let creates_per_s = per_second(objects, began);

    let began = Instant::now();
    stream::iter(created)
        .map(|mut object| {
            let (api, params) = (&api, &params);
            object.data["status"]["current"]["node"] = "another".into();
            let name = object.metadata.name.clone().unwrap_or_default();
            async move { api.replace(&name, params, &object).await.map(drop) }
        })
        .buffer_unordered(in_flight)
        .try_collect::<()>()
        .await
        .context("cannot replace")?;
    let updates_per_s = per_second(objects, began);

    let all = ListParams::default().labels(LABEL);
    let deleted = api.delete_collection(&DeleteParams::default(), &all).await;
    deleted.context("cannot delete")?;
    let figures = json!({ "creates_per_s": creates_per_s, "updates_per_s": updates_per_s });
    writeln!(io::stdout(), "{figures}").context("nobody reads the figures")
}

fn object(kind: &ApiResource, index: usize) -> DynamicObject {
    let mut object = DynamicObject::new(&format!("ceiling-{index}"), kind);
    let label = LABEL
        .split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    object.metadata.labels = Some(label.into_iter().collect());
    object.data = json!({ "status": {
        "current": { "uid": "x".repeat(CARGO), "node": "one", "ips": [] },
        "ownerControllerType": "Pod",
        "ownerControllerName": "none",
    } });
    object
}

fn per_second(count: usize, since: Instant) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / since.elapsed().as_secs_f64()
}
