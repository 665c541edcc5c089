//! Another host has an address that a Pod was given: nobody gets it for a while, and the Pod
//! another, but for an address that is kept for it.

use super::*;

const CONFLICT: Operation = Operation::DeleteIpamIps;

async fn node(world: &World, dir: &Path) -> Node {
    let flags = |settings: &mut Settings| {
        settings.conflict_detection = true;
        settings.gateway_detection = true;
    };
    Node::start_with(world, dir, flags).await
}

/// What the plugin says of `address` in `sandbox`.
pub(super) fn conflict(pod: &str, uid: &str, sandbox: &str, address: &str, pool: &str) -> Value {
    json!({"containerID": sandbox, "podName": pod, "podNamespace": "shop", "podUID": uid,
        "isReleaseConflictIPs": true,
        "conflicts": [{"address": address, "ifName": "eth0", "ipPool": pool, "mac": "02:00:00:00:00:09"}]})
}

fn bare(address: &str) -> &str {
    address.split('/').next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_address_in_conflict_goes_into_quarantine_and_its_pod_gets_the_next() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.42");
    let uid = world.pod("a", &uses(&["p"]));
    let node = node(&world, dir.path()).await;
    let first = node.address("a", &uid, "s").await;
    let said = conflict("a", &uid, "s", bare(&first), "p");
    assert_eq!(
        node.call(CONFLICT, &said).await,
        (StatusCode::OK, Value::Null)
    );
    let record = &world.records("p")[bare(&first)];
    assert_eq!(record["podUid"], "quarantined");
    assert_eq!(record["pod"], "shop/a");
    assert_eq!(record["quarantine"]["mac"], "02:00:00:00:00:09");
    // The plugin asks again, and may have lost the answer before.
    assert_eq!(node.call(CONFLICT, &said).await.0, StatusCode::OK);
    let second = node.address("a", &uid, "s").await;
    assert_eq!(second, "172.18.41.41/24");
    // Neither the Pod's end nor another Pod, nor a new agent, gets it back.
    let other = world.pod("b", &uses(&["p"]));
    assert_eq!(node.address("b", &other, "t").await, "172.18.41.42/24");
    world.delete("pods", "shop", "a");
    let del = args("a", &uid, "eth0", "s");
    node.call(Operation::DeleteIpamIp, &del).await;
    pass(300).await;
    let records = world.records("p");
    assert_eq!(records[bare(&second)], Value::Null);
    assert_eq!(records[bare(&first)]["podUid"], "quarantined");
    let told = world.all("events");
    let told = told.iter().find(|e| e["reason"] == "AddressInUse").unwrap();
    assert_eq!(
        told["note"],
        "172.18.41.40 of IPPool p is used by the host at 02:00:00:00:00:09: no Pod gets it for 60 min"
    );
}

#[tokio::test(start_paused = true)]
async fn of_two_families_only_the_one_in_conflict_is_given_anew() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.42");
    let spec = json!({"subnet": "fd00::/64", "ips": ["fd00::5-fd00::7"], "ipVersion": 6});
    world.put(
        "spiderippools",
        json!({"metadata": {"name": "p6"}, "spec": spec}),
    );
    let wish = json!({"ipam.spidernet.io/ippool": r#"{"ipv4":["p"],"ipv6":["p6"]}"#});
    let uid = world.pod("a", &wish);
    let node = node(&world, dir.path()).await;
    let both =
        |reply: &Value| [0, 1].map(|n| reply["ips"][n]["address"].as_str().unwrap().to_owned());
    let first = both(&node.add("a", &uid, "s").await.1);
    assert_eq!(first, ["172.18.41.40/24", "fd00::5/64"]);
    let said = conflict("a", &uid, "s", "172.18.41.40", "p");
    assert_eq!(node.call(CONFLICT, &said).await.0, StatusCode::OK);
    let second = both(&node.add("a", &uid, "s").await.1);
    assert_eq!(second, ["172.18.41.41/24", "fd00::5/64"]);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_address_stays_its_pod_s_and_the_refusal_says_why() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.49");
    let set = world.put(
        "statefulsets",
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 1}}),
    );
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web",
        "uid": set, "controller": true});
    let uid = world.pod_of("web-0", &uses(&["p"]), &owner);
    let node = node(&world, dir.path()).await;
    let address = node.address("web-0", &uid, "s").await;
    let said = conflict("web-0", &uid, "s", bare(&address), "p");
    let (status, text) = node.call(CONFLICT, &said).await;
    assert_eq!(status.as_u16(), 522);
    let text = text.as_str().unwrap();
    assert!(
        text.starts_with(
            "forbid releasing IPs for stateful workload : 172.18.41.40 of IPPool p is kept for shop/web-0"
        ),
        "{text}"
    );
    assert_eq!(world.records("p")[bare(&address)]["podUid"], uid);
    assert_eq!(node.address("web-0", &uid, "s").await, address);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_says_nothing_about_addresses_that_are_not_its_own() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.49");
    let (a, b) = (world.pod("a", &uses(&["p"])), world.pod("b", &uses(&["p"])));
    let node = node(&world, dir.path()).await;
    let held = node.address("a", &a, "s").await;
    for said in [
        conflict("b", &b, "t", bare(&held), "p"),
        conflict("a", &a, "older", bare(&held), "p"),
        conflict("a", &a, "s", "172.18.41.49", "p"),
    ] {
        assert_eq!(node.call(CONFLICT, &said).await.0, StatusCode::OK);
    }
    let records = world.records("p");
    assert_eq!(records.as_object().unwrap().len(), 1);
    assert_eq!(records[bare(&held)]["podUid"], a);
    for (address, pool) in [("172.18.41", "p"), ("172.18.41.40", "")] {
        let said = conflict("a", &a, "s", address, pool);
        let (status, text) = node.call(CONFLICT, &said).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text.as_str().unwrap().contains(address), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_flags_tell_the_plugin_what_to_look_into() {
    let (world, dir) = (World::with_shop(), temp());
    let spec = json!({"subnet": "172.18.41.0/24", "ips": ["172.18.41.40-172.18.41.49"],
        "gateway": "172.18.41.1"});
    world.put(
        "spiderippools",
        json!({"metadata": {"name": "gw"}, "spec": spec}),
    );
    world.pool("p", "172.18.41.50-172.18.41.59");
    let node = node(&world, dir.path()).await;
    let migrated = |pool| {
        let mut wish = uses(&[pool]);
        wish["kubevirt.io/migrationJobName"] = json!("move-1");
        wish
    };
    for (name, wish, conflict, gateway) in [
        ("a", uses(&["gw"]), true, true),
        ("b", uses(&["p"]), true, false),
        // The address is the source's until the virtual machine has moved.
        ("c", migrated("gw"), false, true),
    ] {
        let uid = world.pod(name, &wish);
        let (_, reply) = node.add(name, &uid, name).await;
        let flag = |key: &str| reply["ips"][0][key] == true;
        assert_eq!(flag("enableIPConflictDetection"), conflict, "{name}");
        assert_eq!(flag("enableGatewayDetection"), gateway, "{name}");
    }
}
