//! Endpoints that a killed agent did not get to write.

use serde_json::{Value, json};

use super::{Node, World, pass, temp, uses};
use crate::config::EndpointMode;

/// By then an agent has looked.
const LOOKED: u64 = 30;

/// How many calls there were about objects of a kind.
fn calls(world: &World, plural: &str) -> usize {
    let calls = world.calls("");
    calls.iter().filter(|call| call.contains(plural)).count()
}

/// Where each interface of `x` is served, as its endpoint tells it.
fn told(world: &World) -> Vec<(String, String, Value)> {
    let endpoint = world.get("spiderendpoints", "shop", "x");
    let endpoint = endpoint.unwrap_or_default();
    let nics = endpoint["status"]["current"]["ips"].as_array().cloned();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = |nic: &Value| {
        (
            text(&nic["interface"]),
            text(&nic["ipv4"]),
            nic["routes"].clone(),
        )
    };
    nics.iter().flatten().map(told).collect()
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_writes_the_endpoint_that_a_killed_one_did_not() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("a", "172.18.41.10-172.18.41.19");
    let mut annotations = uses(&["a"]);
    annotations["ipam.spidernet.io/routes"] = json!(r#"[{"dst":"10.0.0.0/8","gw":"172.18.41.1"}]"#);
    let node = Node::start(&world, dir.path()).await;
    let uid = world.pod("x", &annotations);
    pass(1).await;
    world.lose("spiderendpoints");
    let address = node.address("x", &uid, "s1").await;
    world.runs("x");
    node.kill();
    world.heal();
    let node = Node::start(&world, dir.path()).await;
    assert_eq!(told(&world), vec![]);
    pass(LOOKED).await;
    let routes = json!([{"dst": "10.0.0.0/8", "gw": "172.18.41.1"}]);
    assert_eq!(told(&world), [("eth0".to_owned(), address.clone(), routes)]);
    let endpoint = world.get("spiderendpoints", "shop", "x").unwrap();
    assert_eq!(endpoint["status"]["current"]["uid"], json!(uid));
    assert_eq!(
        endpoint["metadata"]["ownerReferences"][0]["uid"],
        json!(uid)
    );
    // It is found, and nothing is written again.
    assert_eq!(node.address("x", &uid, "s1").await, address);
    assert_eq!(world.puts("a"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_an_endpoint_lacks_is_entered_and_the_others_stay() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("a", "172.18.41.10-172.18.41.19");
    world.pool("b", "172.18.41.20-172.18.41.29");
    let node = Node::start(&world, dir.path()).await;
    let uid = world.pod(
        "x",
        &json!({"ipam.spidernet.io/ippools":
            r#"[{"interface":"eth0","ipv4":["a"]},{"interface":"net1","ipv4":["b"]}]"#}),
    );
    pass(1).await;
    node.address_of("x", &uid, "eth0", "s1").await;
    pass(1).await;
    world.lose("spiderendpoints");
    node.address_of("x", &uid, "net1", "s1").await;
    world.runs("x");
    node.kill();
    world.heal();
    let before = told(&world);
    assert_eq!(before.len(), 1);
    let _node = Node::start(&world, dir.path()).await;
    pass(LOOKED).await;
    let now = told(&world);
    assert_eq!(now[0], before[0]);
    assert_eq!(
        (now.len(), &*now[1].0, &*now[1].1),
        (2, "net1", "172.18.41.20/24")
    );
}

/// The record of the one family is not all that the Pod gets: told now, it would be taken as that.
#[tokio::test(start_paused = true)]
async fn a_pod_that_got_one_family_of_two_is_not_told_of_before_it_has_both() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p4", "172.18.41.40-172.18.41.43");
    let spec = json!({"subnet": "fd00::/64", "ips": ["fd00::5"]});
    let p6 = |spec: &Value| {
        world.put(
            "spiderippools",
            json!({"metadata": {"name": "p6"}, "spec": spec}),
        );
    };
    let mut empty = spec.clone();
    empty["excludeIPs"] = spec["ips"].clone();
    p6(&empty);
    let both = json!({"ipv4": ["p4"], "ipv6": ["p6"]}).to_string();
    let uid = world.pod("x", &json!({"ipam.spidernet.io/ippool": both}));
    let node = Node::start(&world, dir.path()).await;
    node.refusal("x", &uid).await;
    node.kill();
    let node = Node::start(&world, dir.path()).await;
    pass(LOOKED).await;
    assert_eq!(told(&world), vec![]);
    world.delete("spiderippools", "", "p6");
    p6(&spec);
    let (_, reply) = node.add("x", &uid, "s2").await;
    assert_eq!(reply["ips"].as_array().map(Vec::len), Some(2), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_cannot_be_read_keeps_no_other_pod_from_its() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("a", "172.18.41.10-172.18.41.19");
    let node = Node::start(&world, dir.path()).await;
    let uids = ["broken", "x"].map(|name| (name, world.pod(name, &uses(&["a"]))));
    pass(1).await;
    world.lose("spiderendpoints");
    for (name, uid) in &uids {
        node.address(name, uid, "s1").await;
        world.runs(name);
    }
    node.kill();
    world.heal();
    let broken = json!({"metadata": {"name": "broken", "namespace": "shop"}, "status": 7});
    world.put("spiderendpoints", broken);
    let _node = Node::start(&world, dir.path()).await;
    pass(LOOKED).await;
    assert_eq!(told(&world).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_look_reads_no_pool_where_nothing_lacks_and_says_nothing_of_pods_without_addresses() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("a", "172.18.41.10-172.18.41.19");
    let uid = world.pod("x", &uses(&["a"]));
    let node = Node::start(&world, dir.path()).await;
    node.address("x", &uid, "s1").await;
    pass(1).await;
    world.runs("x");
    node.kill();
    let before = calls(&world, "/spiderippools");
    let node = Node::start(&world, dir.path()).await;
    pass(LOOKED).await;
    assert_eq!(calls(&world, "/spiderippools"), before);
    node.kill();
    world.pod("waits", &uses(&["a"]));
    world.runs("waits");
    let _node = Node::start(&world, dir.path()).await;
    pass(LOOKED).await;
    assert!(world.get("spiderendpoints", "shop", "waits").is_none());
}

#[tokio::test(start_paused = true)]
async fn none_is_written_where_none_is_wanted() {
    for mode in [EndpointMode::Stateful, EndpointMode::Never] {
        let (world, dir) = (World::with_shop(), temp());
        world.pool("a", "172.18.41.10-172.18.41.19");
        let node = Node::writing(mode, &world, dir.path()).await;
        let uid = world.pod("x", &uses(&["a"]));
        pass(1).await;
        node.address("x", &uid, "s1").await;
        world.runs("x");
        node.kill();
        let _node = Node::writing(mode, &world, dir.path()).await;
        pass(LOOKED).await;
        assert_eq!(told(&world), vec![], "{mode:?}");
        assert_eq!(calls(&world, "/spiderendpoints"), 0, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_wanted_is_written_once_it_is() {
    for before in [EndpointMode::Stateful, EndpointMode::Never] {
        let (world, dir) = (World::with_shop(), temp());
        world.pool("a", "172.18.41.10-172.18.41.19");
        let node = Node::writing(before, &world, dir.path()).await;
        let uid = world.pod("x", &uses(&["a"]));
        pass(1).await;
        let address = node.address("x", &uid, "s1").await;
        world.runs("x");
        node.kill();
        let _node = Node::writing(EndpointMode::Always, &world, dir.path()).await;
        pass(LOOKED).await;
        let told: Vec<_> = told(&world).into_iter().map(|nic| nic.1).collect();
        assert_eq!(told, [address], "{before:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_workload_that_is_gone_keeps_no_other_from_its_endpoint() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("a", "172.18.41.10-172.18.41.19");
    let node = Node::start(&world, dir.path()).await;
    let set = world.put(
        "replicasets",
        json!({"metadata": {"name": "set", "namespace": "shop"}}),
    );
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "set", "uid": set, "controller": true});
    let orphan = world.pod_of("orphan", &uses(&["a"]), &owner);
    let uid = world.pod("x", &uses(&["a"]));
    pass(1).await;
    world.lose("spiderendpoints");
    node.address("orphan", &orphan, "s1").await;
    node.address("x", &uid, "s1").await;
    for name in ["orphan", "x"] {
        world.runs(name);
    }
    node.kill();
    world.heal();
    world.delete("replicasets", "shop", "set");
    let _node = Node::start(&world, dir.path()).await;
    pass(LOOKED).await;
    assert_eq!(told(&world).len(), 1);
    let of_orphan = || world.get("spiderendpoints", "shop", "orphan");
    assert!(of_orphan().is_none());
    // It is not looked for without end.
    pass(3600).await;
    let looked = calls(&world, "/replicasets/set");
    pass(3600).await;
    assert_eq!(calls(&world, "/replicasets/set"), looked);
}
