use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use crate::api::{SpiderEndpoint, names};
use crate::controller::testing::{Stage, forbidding, options};

/// An address kept for Pod `shop/<pod>` of this StatefulSet.
fn kept(pod: &str, owner: &str) -> Value {
    json!({
        "pod": format!("shop/{pod}"), "podUid": format!("former-{pod}"), "nic": "eth0",
        "owner": owner, "kept": true,
    })
}

/// StatefulSet `db` of two, and addresses kept for three ordinals of it and one of a namesake.
async fn stage() -> (Stage, String) {
    let stage = Stage::new().await;
    let set = stage.stateful_set("db", 2).await;
    let records = json!({
        "10.6.0.10": kept("db-0", &set),
        "10.6.0.11": kept("db-1", &set),
        "10.6.0.12": kept("db-2", &set),
        "10.6.0.13": kept("db-0", "a-former-set"),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    (stage, set)
}

#[tokio::test(start_paused = true)]
async fn only_what_this_very_set_wants_stays_kept() {
    let (mut stage, _) = stage().await;
    stage.start(options()).await;
    stage.comes_to("net", &[-10, -11]).await;
    assert_eq!(stage.stays("net").await, [-10, -11]);
    stage.stateful_set("db", 1).await;
    stage.comes_to("net", &[-10]).await;
    let sets: Api<StatefulSet> = Api::namespaced(stage.client.clone(), "shop");
    sets.delete("db", &DeleteParams::default()).await.unwrap();
    stage.comes_to("net", &[]).await;
    stage.stays("net").await;
    let told = stage.events("AddressesReleased").await.join("\n");
    for says in [
        "since its StatefulSet or virtual machine was made anew under its name: 10.6.0.13 (Pod shop/db-0)",
        "since its StatefulSet wants 2 Pods from ordinal 0 on: 10.6.0.12 (Pod shop/db-2)",
        "since its StatefulSet wants 1 Pods from ordinal 0 on: 10.6.0.11 (Pod shop/db-1)",
        "since its StatefulSet or virtual machine is gone: 10.6.0.10 (Pod shop/db-0)",
    ] {
        assert!(told.contains(says), "{says}\n{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn switched_off_nothing_is_kept_once_it_has_been_so_for_long() {
    let (mut stage, _) = stage().await;
    let mut off = options();
    off.keeps.stateful_sets = false;
    stage.start(off).await;
    // What is not wanted anyway goes at once.
    stage.comes_to("net", &[-10, -11]).await;
    tokio::time::sleep(super::SWITCHED_OFF_FOR / 2).await;
    assert_eq!(stage.recorded("net").await, [-10, -11]);
    tokio::time::sleep(super::SWITCHED_OFF_FOR / 2).await;
    stage.comes_to("net", &[]).await;
    let told = stage.events("AddressesReleased").await.join("\n");
    assert!(
        told.contains("addresses of its kind are not kept any more: 10.6.0.10"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_goes_once_the_next_pod_has_one_of_another_pool() {
    let (mut stage, set) = stage().await;
    stage.pool("next", "10.6.0.20-10.6.0.29", &json!({})).await;
    stage.start(options()).await;
    stage.comes_to("net", &[-10, -11]).await;
    let uid = stage.pod("db-0").await;
    let moved = json!({
        "pod": "shop/db-0", "podUid": uid, "nic": "eth0", "node": "n1", "sandbox": "s", "owner": set,
    });
    // Another interface's address supersedes nothing.
    let mut other = moved.clone();
    other["nic"] = json!("net1");
    stage
        .pool("next", "10.6.0.20-10.6.0.29", &json!({"10.6.0.21": other}))
        .await;
    assert_eq!(stage.stays("net").await, [-10, -11]);
    let both = json!({"10.6.0.20": moved, "10.6.0.21": other});
    stage.pool("next", "10.6.0.20-10.6.0.29", &both).await;
    stage.comes_to("net", &[-11]).await;
    assert_eq!(stage.recorded("next").await, [20, 21]);
}

#[tokio::test(start_paused = true)]
async fn the_former_pod_s_endpoint_goes_with_its_address_and_the_next_one_s_stays() {
    let (mut stage, _) = stage().await;
    let next = stage.pod("db-1").await;
    for (pod, uid) in [("db-1", next.as_str()), ("db-2", "former-db-2")] {
        let owner = ["StatefulSet", "db"];
        stage
            .endpoint(pod, [uid, "n1"], owner, &[names::FINALIZER])
            .await;
    }
    stage.stateful_set("db", 1).await;
    stage.start(options()).await;
    stage.comes_to("net", &[-10]).await;
    let endpoints: Api<SpiderEndpoint> = Api::namespaced(stage.client.clone(), "shop");
    assert!(stage.get(endpoints.clone(), "db-2").await.is_none());
    assert!(stage.get(endpoints, "db-1").await.is_some());
}

/// An address kept for virtual machine `shop/<name>` of this uid.
fn of_machine(name: &str, uid: &str) -> Value {
    let mut record = kept(&format!("virt-launcher-{name}-x2x9k"), uid);
    record["machine"] = json!({"kind": "VirtualMachine", "name": name});
    record["instance"] = json!("former-run");
    record
}

#[tokio::test(start_paused = true)]
async fn a_stopped_machine_s_address_stays_until_the_machine_is_deleted() {
    let mut stage = Stage::new().await;
    let (db, web) = (stage.machine("db").await, stage.machine("web").await);
    let records = json!({
        "10.6.0.10": of_machine("db", &db),
        "10.6.0.11": of_machine("web", &web),
        "10.6.0.12": of_machine("db", "a-former-machine"),
        "10.6.0.13": of_machine("gone", "gone"),
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    stage.start(options()).await;
    stage.comes_to("net", &[-10, -11]).await;
    assert_eq!(stage.stays("net").await, [-10, -11]);
    let gvk = kube::core::GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachine");
    let resource = kube::api::ApiResource::from_gvk(&gvk);
    let machines: Api<kube::api::DynamicObject> =
        Api::namespaced_with(stage.client.clone(), "shop", &resource);
    machines
        .delete("db", &DeleteParams::default())
        .await
        .unwrap();
    stage.comes_to("net", &[-11]).await;
    // It runs again, with an address of another pool.
    let mut moved = of_machine("web", &web);
    moved["pod"] = json!("shop/virt-launcher-web-other");
    moved["node"] = json!("n1");
    moved["sandbox"] = json!("s");
    moved.as_object_mut().unwrap().remove("kept");
    let uid = stage.pod("virt-launcher-web-other").await;
    moved["podUid"] = json!(uid);
    let moved = json!({"10.6.0.20": moved});
    stage.pool("next", "10.6.0.20-10.6.0.29", &moved).await;
    stage.comes_to("net", &[]).await;
    assert_eq!(stage.recorded("next").await, [20]);
}

#[tokio::test(start_paused = true)]
async fn machines_and_sets_are_switched_off_each_for_itself() {
    for machines in [true, false] {
        let (mut stage, _) = stage().await;
        let db = stage.machine("db").await;
        let of_machine = json!({"10.6.0.20": of_machine("db", &db)});
        stage.pool("vms", "10.6.0.20-10.6.0.29", &of_machine).await;
        let mut off = options();
        off.keeps.machines = machines;
        off.keeps.stateful_sets = !machines;
        // As the chart has it: the right to read machines goes with their switch.
        let client = forbidding(&stage.server, move |request| {
            !machines && request.uri().path().contains("/kubevirt.io/")
        });
        stage.start_with(&client, off).await;
        tokio::time::sleep(super::SWITCHED_OFF_FOR).await;
        let (sets, vms): (&[i16], &[i16]) = if machines {
            (&[], &[-20])
        } else {
            (&[-10, -11], &[])
        };
        stage.comes_to("net", sets).await;
        stage.comes_to("vms", vms).await;
        assert_eq!(stage.stays("vms").await, vms);
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_can_t_be_read_holds_up_its_own_address_and_nothing_else_of_the_pool() {
    let mut stage = Stage::new().await;
    let set = stage.stateful_set("db", 1).await;
    let db = stage.machine("db").await;
    let records = json!({
        "10.6.0.10": kept("db-0", &set),
        "10.6.0.11": of_machine("gone", "gone"),
        "10.6.0.12": kept("db-2", &set),
        "10.6.0.13": of_machine("db", &db),
        "10.6.0.14": of_machine("db", "a-former-machine"),
        "10.6.0.15": {
            "pod": "shop/web", "podUid": "quarantined", "nic": "eth0",
            "quarantine": {"mac": "02:00:00:00:00:01", "until": "2020-01-01T00:00:00Z"},
        },
    });
    stage.pool("net", "10.6.0.10-10.6.0.19", &records).await;
    let client = forbidding(&stage.server, |request| {
        request.uri().path().ends_with("/virtualmachines/gone")
    });
    stage.start_with(&client, options()).await;
    stage.comes_to("net", &[-10, -11, -13]).await;
    assert_eq!(stage.stays("net").await, [-10, -11, -13]);
}
