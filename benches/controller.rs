//! What a large cluster costs the controller: `cargo bench -p orbweaver --bench controller`.
//!
//! 10,000 Deployments of ten Pods each, every one with its pool, are put into the index as the
//! watches put them: trimmed. Told are the memory that this takes, and how long a pass takes of
//! which nothing comes, and one after a Deployment was scaled.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may fail by panic, and prints"
)]

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipam::annotation::SizeRule;
use ipam::name::Uid;
use ipam::plan::{Step, plan};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use orbweaver::api::{SpiderIPPool, SpiderSubnet, convert};
use orbweaver::controller::index::{Features, Index, Observed, Switch, trim_pod};
use orbweaver::controller::workload::{self, Workload};
use orbweaver::kube_io::time;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

const WORKLOADS: u32 = 10_000;
const PODS: u32 = 10;
/// Addresses of each pool: one to spare.
const SIZE: u32 = PODS + 1;
/// How often a pass is repeated; the median counts.
const PASSES: usize = 15;

fn read<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

fn address(workload: u32, number: u32) -> String {
    let first = u32::from(Ipv4Addr::new(10, 0, 1, 0)) + workload * SIZE;
    Ipv4Addr::from(first + number).to_string()
}

fn range(workload: u32) -> String {
    format!("{}-{}", address(workload, 0), address(workload, SIZE - 1))
}

fn template(name: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}, "annotations": {
            "ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/shop/web:1.2.3",
            "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "100m"}}}]}
    })
}

fn deployment(number: u32, replicas: u32) -> Deployment {
    let name = format!("web-{number}");
    read(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("d-{number:032}"),
            "resourceVersion": "1"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": template(&name)},
        "status": {"replicas": PODS, "updatedReplicas": PODS, "readyReplicas": PODS}
    }))
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
}

fn replica_set(number: u32) -> ReplicaSet {
    let name = format!("web-{number}");
    read(json!({
        "metadata": {"name": format!("{name}-5c9f8d7b6"), "namespace": "shop",
            "uid": format!("r-{number:032}"), "resourceVersion": "1",
            "ownerReferences": owner("Deployment", &name, &format!("d-{number:032}"))},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": name}},
            "template": template(&name)}
    }))
}

fn pod_uid(workload: u32, number: u32) -> String {
    format!("p-{workload:030}-{number}")
}

fn pod(workload: u32, number: u32) -> Pod {
    let set = format!("web-{workload}-5c9f8d7b6");
    read(json!({
        "metadata": {"name": format!("{set}-{number:05}"), "namespace": "shop",
            "uid": pod_uid(workload, number), "resourceVersion": "1",
            "labels": {"app": format!("web-{workload}"), "pod-template-hash": "5c9f8d7b6"},
            "ownerReferences": owner("ReplicaSet", &set, &format!("r-{workload:032}"))},
        "spec": template("web")["spec"],
        "status": {"phase": "Running", "podIPs": [{"ip": address(workload, number)}]}
    }))
}

/// The pool of a Deployment as its first passes left it: what a pass writes is what it makes.
fn pool(number: u32) -> SpiderIPPool {
    let name = format!("web-{number}");
    let mut records = Map::new();
    for pod in 0..PODS {
        let (name, uid) = (
            format!("shop/{name}-5c9f8d7b6-{pod:05}"),
            pod_uid(number, pod),
        );
        let sandbox = format!("{number:032}{pod:032}");
        let record = json!({"pod": name, "podUid": uid, "nic": "eth0", "node": "node-1", "sandbox": sandbox});
        records.insert(address(number, pod), record);
    }
    let uid = format!("d-{number:032}");
    let mut pool: SpiderIPPool = read(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
        "metadata": {
            "name": format!("auto4-{name}-eth0-{number:05}"), "uid": format!("i-{number:032}"), "resourceVersion": "1",
            "finalizers": ["spiderpool.spidernet.io"],
            "annotations": {"ipam.spidernet.io/ippool-ip-number": "+1"},
            "ownerReferences": [{"apiVersion": "spiderpool.spidernet.io/v2beta1",
                "kind": "SpiderSubnet", "name": "net4", "uid": "s"}],
            "labels": {
                "ipam.spidernet.io/owner-spider-subnet": "net4",
                "ipam.spidernet.io/owner-application-gv": "apps_v1",
                "ipam.spidernet.io/owner-application-kind": "Deployment",
                "ipam.spidernet.io/owner-application-namespace": "shop",
                "ipam.spidernet.io/owner-application-name": name,
                "ipam.spidernet.io/owner-application-uid": uid,
                "ipam.spidernet.io/interface": "eth0",
                "ipam.spidernet.io/ippool-reclaim": "true"}},
        "spec": {"ipVersion": 4, "subnet": "10.0.0.0/8", "ips": [range(number)], "podAffinity": {"matchLabels": {
            "app": name,
            "ipam.spidernet.io/app-api-group": "apps",
            "ipam.spidernet.io/app-api-version": "v1",
            "ipam.spidernet.io/app-kind": "Deployment",
            "ipam.spidernet.io/app-namespace": "shop",
            "ipam.spidernet.io/app-name": name}}},
        "status": {"allocatedIPs": Value::Object(records).to_string(),
            "totalIPCount": SIZE, "allocatedIPCount": PODS}
    }));
    let hash = convert::pool(&pool).unwrap().admission_hash();
    let annotations = pool.metadata.annotations.get_or_insert_default();
    annotations.insert("orbweaver.io/admitted".to_owned(), hash);
    pool
}

fn subnet() -> SpiderSubnet {
    let mut ledger = Map::new();
    for number in 0..WORKLOADS {
        let name = format!("auto4-web-{number}-eth0-{number:05}");
        let application = format!("apps_v1_Deployment_shop_web-{number}");
        ledger.insert(
            name,
            json!({"ips": [range(number)], "application": application}),
        );
    }
    read(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": "net4", "uid": "s", "resourceVersion": "1",
            "finalizers": ["spiderpool.spidernet.io"]},
        "spec": {"ipVersion": 4, "subnet": "10.0.0.0/8", "ips": ["10.0.1.0-10.255.255.254"]},
        "status": {"controlledIPPools": Value::Object(ledger).to_string()}
    }))
}

/// Resident memory, in MiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap()
        >> 10
}

/// What the caches hold beside the index.
#[derive(Default)]
struct Held {
    workloads: Vec<Arc<Deployment>>,
    sets: Vec<Arc<ReplicaSet>>,
    pods: Vec<Arc<Pod>>,
}

fn take<W: Workload + Resource<DynamicType = ()>>(index: &Index, mut object: W) -> Arc<W> {
    workload::trim(&mut object);
    let seen = workload::seen(&object, SizeRule::Flexible(1));
    let uid = seen.id.uid.clone();
    index.workload(&uid, Some(seen));
    Arc::new(object)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A pass until its steps are known, after `change`.
fn passes(what: &str, index: &Index, steps: usize, mut change: impl FnMut(usize)) {
    let cidr = "10.0.0.0/8".parse().unwrap();
    let (mut seeing, mut planning) = (vec![], vec![]);
    for turn in 0..PASSES {
        change(turn);
        let began = Instant::now();
        let Observed { snapshot, .. } = index.observe(&cidr);
        seeing.push(began.elapsed());
        let began = Instant::now();
        let plan = plan(&snapshot, time::now());
        planning.push(began.elapsed());
        let written = |step: &&Step| !matches!(step, Step::Barrier);
        let found = plan.steps.iter().filter(written).count();
        assert_eq!(found, steps, "{what}: {:?}", plan.steps.first());
    }
    let ms = |times| median(times).as_secs_f64() * 1_000.0;
    println!(
        "{what:40}{:>7.1} ms to look, {:>7.1} ms to plan",
        ms(seeing),
        ms(planning)
    );
}

fn main() {
    let index = Index::new(Features {
        ipv4: true,
        ipv6: true,
        subnets: Switch::On,
        auto_pools: Switch::On,
    });
    let before = resident();
    let mut held = Held::default();
    index.subnet("net4", Some(&Arc::new(subnet())));
    for number in 0..WORKLOADS {
        held.workloads.push(take(&index, deployment(number, PODS)));
        held.sets.push(take(&index, replica_set(number)));
        for pod_number in 0..PODS {
            let mut pod = pod(number, pod_number);
            trim_pod(&mut pod);
            let pod = Arc::new(pod);
            index.pod(&Uid::new(pod_uid(number, pod_number)), Some(&pod));
            held.pods.push(pod);
        }
        let pool = Arc::new(pool(number));
        index.pool(&pool.metadata.name.clone().unwrap(), Some(&pool));
    }
    println!(
        "{WORKLOADS} Deployments with a pool each, {} Pods: {} MiB",
        held.pods.len(),
        resident() - before
    );
    passes("nothing changed", &index, 0, |_| {});
    passes("a Pod's status changed", &index, 0, |turn| {
        let number = u32::try_from(turn).unwrap();
        let mut changed = pod(number, 0);
        changed.status.as_mut().unwrap().pod_ips = None;
        index.pod(&Uid::new(pod_uid(number, 0)), Some(&Arc::new(changed)));
    });
    passes("a Deployment was scaled up by one", &index, 2, |turn| {
        let replicas = PODS + 1 + u32::try_from(turn).unwrap();
        take(&index, deployment(0, replicas));
    });
    println!("with all this at hand: {} MiB", resident() - before);
}
