//! What is written to a cluster, on an API server in memory.

use chrono::TimeDelta;
use ipam::collect::{LostNodes, Policy};
use ipam::keep::Keeps;
use ipam::repair::Repair;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::{check, gc, give_back, mend};
use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, convert, crd};
use crate::cli::connection::Connection;
use crate::kube_io::put::{self, Part, Reply};

fn read<T: serde::de::DeserializeOwned>(mut object: Value, kind: &str) -> T {
    object["apiVersion"] = json!("spiderpool.spidernet.io/v2beta1");
    object["kind"] = json!(kind);
    serde_json::from_value(object).unwrap()
}

async fn server() -> Client {
    let client = kubesim::Server::new(1).client("test");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crd::definitions().unwrap() {
        definitions
            .create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    let shop = json!({"metadata": {"name": "shop"}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let shop = serde_json::from_value(shop).unwrap();
    namespaces
        .create(&PostParams::default(), &shop)
        .await
        .unwrap();
    client
}

/// Makes a cluster-scoped object with its status.
async fn make<K>(client: &Client, object: K, status: impl FnOnce(&mut K))
where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let mut made = api.create(&PostParams::default(), &object).await.unwrap();
    status(&mut made);
    put::replace(client, Part::Status, &mut made, Reply::MetadataOnly)
        .await
        .unwrap();
}

/// Makes a Pod that says it has this address; its uid.
async fn pod(client: &Client, name: &str, ip: &str) -> String {
    let api: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let object = json!({"metadata": {"name": name, "namespace": "shop"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let object: Pod = serde_json::from_value(object).unwrap();
    let mut made = api.create(&PostParams::default(), &object).await.unwrap();
    let status = json!({"phase": "Running", "podIPs": [{"ip": ip}]});
    made.status = serde_json::from_value(status).unwrap();
    put::replace(client, Part::Status, &mut made, Reply::MetadataOnly)
        .await
        .unwrap();
    made.uid().unwrap()
}

async fn plan(connection: &Connection) -> Repair {
    check::look(connection, None).await.unwrap().1
}

#[tokio::test(start_paused = true)]
async fn a_repair_is_written_and_then_nothing_is_left_to_mend() {
    let client = server().await;
    let connection = Connection::to(client.clone());
    let uid = pod(&client, "b", "10.6.0.11").await;
    let subnet = json!({"metadata": {"name": "net4"},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.29"]}});
    make(&client, read::<SpiderSubnet>(subnet, "SpiderSubnet"), |s| {
        s.status.get_or_insert_default().controlled_ip_pools = Some("{\"a\":".to_owned());
    })
    .await;
    let spec = json!({"metadata": {"name": "a"},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.12"]}});
    make(&client, read::<SpiderIPPool>(spec, "SpiderIPPool"), |p| {
        let text =
            r#"{"10.6.0.10":{"pod":"shop/a","podUid":"1","node":"n1"},"10.6.0.11":{"pod":}}"#;
        p.status.get_or_insert_default().allocated_ips = Some(text.to_owned());
    })
    .await;
    let repair = plan(&connection).await;
    assert_eq!(repair.steps.len(), 2, "{repair:?}");
    mend::carry_out(&client, &repair.steps).await.unwrap();
    // What was decided on an older version is not written.
    mend::carry_out(&client, &repair.steps).await.unwrap_err();
    let pools: Api<SpiderIPPool> = Api::all(client.clone());
    let pool = convert::pool(&pools.get("a").await.unwrap()).unwrap();
    let records: Vec<_> = pool
        .records
        .iter()
        .map(|(a, r)| (a.to_string(), r.uid.to_string()))
        .collect();
    let expected = [
        ("10.6.0.10".to_owned(), "1".to_owned()),
        ("10.6.0.11".to_owned(), uid),
    ];
    assert_eq!(records, expected);
    let subnets: Api<SpiderSubnet> = Api::all(client.clone());
    let subnet = subnets.get("net4").await.unwrap().status.unwrap();
    assert_eq!(
        (subnet.controlled_ip_pools, subnet.ledger_epoch),
        (None, Some(1))
    );
    assert_eq!(plan(&connection).await, Repair::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_as_the_original_has_it() {
    let client = server().await;
    let connection = Connection::to(client.clone());
    let spec = json!({"metadata": {"name": "a",
            "annotations": {"orbweaver.io/admitted": "x", "team": "net"}},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.11"]}});
    make(&client, read::<SpiderIPPool>(spec, "SpiderIPPool"), |p| {
        let text = r#"{"10.6.0.12":{"pod":"shop/a","podUid":"1","nic":"eth0","node":"n1"}}"#;
        p.status.get_or_insert_default().allocated_ips = Some(text.to_owned());
    })
    .await;
    let subnet = json!({"metadata": {"name": "net4"},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.29"]}});
    make(&client, read::<SpiderSubnet>(subnet, "SpiderSubnet"), |s| {
        let status = s.status.get_or_insert_default();
        status.controlled_ip_pools = Some(r#"{"a":{"ips":["10.6.0.10-10.6.0.12"]}}"#.to_owned());
        status.ledger_epoch = Some(7);
    })
    .await;
    let reservations: Api<SpiderReservedIP> = Api::all(client.clone());
    let printer = json!({"metadata": {"name": "printer"}, "spec": {"ips": ["10.6.0.29"]}});
    let printer: SpiderReservedIP = read(printer, "SpiderReservedIP");
    reservations
        .create(&PostParams::default(), &printer)
        .await
        .unwrap();
    assert!(give_back::write(&connection).await.unwrap().done);
    let printer = reservations.get("printer").await.unwrap();
    assert_eq!(printer.spec.ip_version, Some(4));
    // Once is enough.
    assert!(give_back::write(&connection).await.unwrap().done);
    let pools: Api<SpiderIPPool> = Api::all(client.clone());
    let pool = pools.get("a").await.unwrap();
    assert_eq!(
        pool.spec.ips.as_deref(),
        Some(&["10.6.0.10-10.6.0.12".to_owned()][..])
    );
    assert_eq!(pool.annotations().keys().collect::<Vec<_>>(), ["team"]);
    assert_eq!(
        pool.status.unwrap().allocated_ips.unwrap(),
        r#"{"10.6.0.12":{"pod":"shop/a","podUid":"1"}}"#
    );
    let subnets: Api<SpiderSubnet> = Api::all(client.clone());
    assert_eq!(
        subnets
            .get("net4")
            .await
            .unwrap()
            .status
            .unwrap()
            .ledger_epoch,
        None
    );
}

/// What a dry run says of each address: `last byte: verdict, why`.
async fn collectable(connection: &Connection, keeps: Keeps) -> Vec<String> {
    let policy = Policy {
        lost_nodes: LostNodes::ByTime,
        delay: TimeDelta::zero(),
    };
    let found = gc::look(connection, &policy, keeps).await.unwrap();
    let found = serde_json::to_value(found).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let mut told: Vec<String> = findings
        .iter()
        .map(|finding| {
            let text = |field: &str| finding[field].as_str().unwrap().to_owned();
            let (address, why) = (text("address"), text("why"));
            format!("{address}: {}, {why}", text("verdict"))
        })
        .collect();
    told.sort();
    told.push(format!(
        "{} records, {} kept",
        found["records"], found["kept"]
    ));
    told
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_which_kept_addresses_nobody_wants() {
    let client = server().await;
    let connection = Connection::to(client.clone());
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), "shop");
    let set = json!({"metadata": {"name": "db"}, "spec": {
        "replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let set: StatefulSet = serde_json::from_value(set).unwrap();
    let set = sets.create(&PostParams::default(), &set).await.unwrap();
    let owner = set.uid().unwrap();
    let kept = |pod: &str, owner: &str| json!({"pod": pod, "podUid": "u", "nic": "eth0", "node": "n1", "owner": owner, "kept": true});
    // db-1 is elsewhere by now, and lives.
    let lives = pod(&client, "db-1", "10.6.0.20").await;
    let moved = json!({"pod": "shop/db-1", "podUid": lives, "nic": "eth0", "node": "n1",
        "owner": owner, "sandbox": "s"});
    for (name, records) in [
        (
            "a",
            json!({
                "10.6.0.10": kept("shop/db-0", &owner),
                "10.6.0.11": kept("shop/db-1", &owner),
                "10.6.0.12": kept("shop/db-2", &owner),
                "10.6.0.13": kept("shop/db-0", "an older one"),
                "10.6.0.14": kept("shop/gone-0", "gone"),
            }),
        ),
        ("b", json!({"10.6.0.20": moved})),
    ] {
        let spec = json!({"metadata": {"name": name},
            "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.29"]}});
        make(&client, read::<SpiderIPPool>(spec, "SpiderIPPool"), |p| {
            p.status.get_or_insert_default().allocated_ips = Some(records.to_string());
        })
        .await;
    }
    let unwanted = [
        "10.6.0.11: Release, no longer kept, since its Pod has an address of IPPool b now",
        "10.6.0.12: Release, no longer kept, since its StatefulSet wants 2 Pods from ordinal 0 on",
        "10.6.0.13: Release, no longer kept, since its StatefulSet or virtual machine was made anew under its name",
        "10.6.0.14: Release, no longer kept, since its StatefulSet or virtual machine is gone",
    ];
    let mut told = unwanted.to_vec();
    told.push("6 records, 1 kept");
    assert_eq!(collectable(&connection, Keeps::ALL).await, told);
    let off = Keeps {
        stateful_sets: false,
        ..Keeps::ALL
    };
    let also =
        "10.6.0.10: Release, no longer kept, since addresses of its kind are not kept any more";
    let mut told = [&[also][..], &unwanted].concat();
    told.push("6 records, 0 kept");
    assert_eq!(collectable(&connection, off).await, told);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_of_a_static_pod_s_address_once_its_node_is_deleted() {
    let client = server().await;
    let connection = Connection::to(client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    make(&client, node, |_| {}).await;
    let of_static = |node: &str| json!({"pod": "kube-system/static", "podUid": format!("0a1b2c{node}"), "nic": "eth0", "node": node});
    let records = json!({"10.6.0.10": of_static("n1"), "10.6.0.11": of_static("gone")});
    let spec = json!({"metadata": {"name": "a"},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.29"]}});
    make(&client, read::<SpiderIPPool>(spec, "SpiderIPPool"), |p| {
        p.status.get_or_insert_default().allocated_ips = Some(records.to_string());
    })
    .await;
    let told = [
        "10.6.0.11: Release, its Pod is gone or ends, and Node gone is deleted",
        "2 records, 0 kept",
    ];
    assert_eq!(collectable(&connection, Keeps::ALL).await, told);
}
