//! ADD: who gets what, once, and what happens when writes go wrong.

use std::collections::BTreeSet;

use super::*;
use crate::agent::add::ADD_MAX;

#[tokio::test(start_paused = true)]
async fn a_repeated_add_gets_the_same_address_and_the_new_sandbox_is_recorded() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    let first = node.address("a", &uid, "s1").await;
    assert_eq!(node.address("a", &uid, "s1").await, first);
    assert_eq!(world.puts("p"), 1, "the same call again writes nothing");
    assert_eq!(node.address("a", &uid, "s2").await, first);
    let expected = json!({"172.18.41.40": {"pod": "shop/a", "podUid": uid, "nic": "eth0", "node": "n1", "sandbox": "s2"}});
    assert_eq!(world.records("p"), expected);
    let status = &world.get("spiderippools", "", "p").unwrap()["status"];
    assert_eq!(
        (&status["allocatedIPCount"], &status["totalIPCount"]),
        (&json!(1), &json!(4))
    );
}

#[tokio::test(start_paused = true)]
async fn two_calls_at_once_for_one_interface_are_one_allocation() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    let (a, b) = tokio::join!(node.address("a", &uid, "s1"), node.address("a", &uid, "s1"));
    assert_eq!(a, b);
    assert_eq!(world.records("p").as_object().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_restarted_gives_the_same_address_even_from_a_pool_switched_off() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    let first = node.address("a", &uid, "s1").await;
    node.kill();
    world.edit("spiderippools", "", "p", |pool| {
        pool["spec"]["disable"] = json!(true);
    });
    let node = Node::start(&world, dir.path()).await;
    assert_eq!(node.address("a", &uid, "s2").await, first);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_pod_is_found_in_a_pool_that_is_no_longer_asked_for() {
    for mode in EACH_MODE {
        let (world, dir) = (World::with_shop(), temp());
        world.pool("p", "172.18.41.40-172.18.41.43");
        world.pool("q", "172.18.41.50-172.18.41.53");
        let uid = world.pod("a", &uses(&["p"]));
        let node = Node::writing(mode, &world, dir.path()).await;
        let first = node.address("a", &uid, "s1").await;
        pass(1).await;
        let is_written = world.get("spiderendpoints", "shop", "a").is_some();
        assert_eq!(is_written, mode == EndpointMode::Always, "{mode:?}");
        node.kill();
        world.edit("pods", "shop", "a", |pod| {
            pod["metadata"]["annotations"] = uses(&["q"]);
        });
        let node = Node::writing(mode, &world, dir.path()).await;
        assert_eq!(node.address("a", &uid, "s2").await, first, "{mode:?}");
        assert_eq!(world.records("q"), json!({}), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_adds_at_once_take_few_writes_and_no_address_twice() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.10-172.18.41.99");
    let pods: Vec<(String, String)> = (0..50)
        .map(|i| format!("a{i}"))
        .map(|name| (name.clone(), world.pod(&name, &uses(&["p"]))))
        .collect();
    let node = Node::start(&world, dir.path()).await;
    let calls = pods.iter().map(|(name, uid)| node.address(name, uid, "s"));
    let given: BTreeSet<String> = join_all(calls).await.into_iter().collect();
    assert_eq!(given.len(), 50);
    assert_eq!(world.records("p").as_object().unwrap().len(), 50);
    assert!(world.puts("p") <= 3, "{} writes", world.puts("p"));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_written_behind_the_claims_that_are_under_way_but_not_for_ever() {
    for (takes, written_after) in [(3, 4), (20, 7)] {
        let (world, dir) = (World::with_shop(), temp());
        world.pool("p", "172.18.41.40-172.18.41.43");
        world.pool("q", "172.18.41.50-172.18.41.53");
        let slow = world.pod("slow", &uses(&["q"]));
        let quick = world.pod("quick", &uses(&["p"]));
        let node = Node::start(&world, dir.path()).await;
        world.fail_next([Fault::Slow(Duration::from_secs(takes))]);
        tokio::join!(node.address("slow", &slow, "s1"), async {
            pass(1).await;
            node.address("quick", &quick, "s2").await;
            let is_written = || world.get("spiderendpoints", "shop", "quick").is_some();
            pass(1).await;
            assert!(!is_written(), "a claim is under way");
            pass(written_after - 2).await;
            assert!(is_written());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_write_in_between_costs_a_second_write_and_keeps_what_it_wrote() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    let foreign = r#"{"172.18.41.40":{"pod":"shop/x","podUid":"x","later":{"z":[1]}}}"#;
    world.fail_next([Fault::WriteFirst(Box::new(move |pool| {
        pool["status"]["allocatedIPs"] = json!(foreign);
        pool["status"]["whoWrote"] = json!("a later version");
    }))]);
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.41/24");
    let foreign: Value = serde_json::from_str(foreign).unwrap();
    assert_eq!(world.records("p")["172.18.41.40"], foreign["172.18.41.40"]);
    let status = &world.get("spiderippools", "", "p").unwrap()["status"];
    assert_eq!(status["whoWrote"], "a later version");
    assert_eq!(world.puts("p"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_one_record() {
    for fault in [Fault::LoseAnswer, Fault::LoseRequest] {
        let (world, dir) = (World::with_shop(), temp());
        world.pool("p", "172.18.41.40-172.18.41.43");
        let uid = world.pod("a", &uses(&["p"]));
        let node = Node::start(&world, dir.path()).await;
        world.fail_next([fault]);
        assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.40/24");
        assert_eq!(world.records("p").as_object().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_free_address_is_recorded_also_where_that_takes_longer_than_waiting_for_one_may() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    world.fail_next(std::iter::repeat_with(|| Fault::LoseRequest).take(75));
    let began = tokio::time::Instant::now();
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.40/24");
    assert!(began.elapsed().as_secs() > 10, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_others_free_or_add_is_seen_at_once_by_an_agent_that_knew_the_pool_as_full() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    let (a, b) = (world.pod("a", &uses(&["p"])), world.pod("b", &uses(&["p"])));
    let node = Node::start(&world, dir.path()).await;
    node.address("a", &a, "s1").await;
    world.edit("spiderippools", "", "p", |pool| pool["status"] = json!({}));
    let began = tokio::time::Instant::now();
    assert_eq!(node.address("b", &b, "s1").await, "172.18.41.40/24");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_others_took_back_is_not_answered_from_memory() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    node.address("a", &uid, "s1").await;
    world.edit("spiderippools", "", "p", |pool| {
        pool["status"]["allocatedIPs"] = json!(r#"{"172.18.41.40":{"pod":"shop/b","podUid":"b"}}"#);
    });
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.41/24");
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_records_cannot_be_read_is_named_and_never_written() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    world.edit("spiderippools", "", "p", |pool| {
        pool["status"] = json!({"allocatedIPs": "{"});
    });
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    let text = node.refusal("a", &uid).await;
    assert!(
        text.contains("unreadable IPPool p: status.allocatedIPs '{'"),
        "{text}"
    );
    assert_eq!(world.puts("p"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_breaks_while_an_add_is_under_way_is_not_overwritten() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    world.fail_next([Fault::WriteFirst(Box::new(|pool| {
        pool["status"] = json!({"allocatedIPs": "{"});
    }))]);
    node.refusal("a", &uid).await;
    let pool = world.get("spiderippools", "", "p").unwrap();
    assert_eq!(pool["status"]["allocatedIPs"], "{");
}

#[tokio::test(start_paused = true)]
async fn pools_are_tried_in_the_listed_order_and_each_refusal_is_named() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("first", "172.18.41.40");
    world.pool("backup", "172.18.41.50");
    world.edit("spiderippools", "", "first", |pool| {
        pool["spec"]["namespaceName"] = json!(["else"]);
    });
    let uid = world.pod("a", &uses(&["first", "backup"]));
    let other = world.pod("b", &uses(&["first"]));
    let node = Node::start(&world, dir.path()).await;
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.50/24");
    assert_eq!(
        node.refusal("b", &other).await,
        "failed to allocate IP addresses in standard mode: no IPPool available, all IPv4 IPPools [first] of eth0 filtered out: unmatched Namespace name of IPPool first"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_an_address_is_freed_and_the_pod_is_told() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    let (a, b) = (world.pod("a", &uses(&["p"])), world.pod("b", &uses(&["p"])));
    let node = Node::start(&world, dir.path()).await;
    node.address("a", &a, "s1").await;
    let free = async {
        pass(3).await;
        world.terminate("a");
        node.del("a", &a, "s1").await;
    };
    let began = tokio::time::Instant::now();
    let (given, ()) = tokio::join!(node.address("b", &b, "s1"), free);
    assert_eq!(given, "172.18.41.40/24");
    let waited = began.elapsed();
    assert!(
        (5..6).contains(&waited.as_secs()),
        "the hold-off and no more: {waited:?}"
    );
    assert_eq!(world.calls("POST /apis/events.k8s.io").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_pool_is_about_to_be_made_is_not_told_that_it_waits() {
    let (world, dir) = (World::with_shop(), temp());
    let owner = web(&world, &json!({}));
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let uid = world.pod_of("web-1-x", &subnet, &owner);
    let node = Node::start(&world, dir.path()).await;
    tokio::join!(node.address("web-1-x", &uid, "s1"), async {
        pass(1).await;
        make_web_pool(&world, &json!(["172.18.41.60-172.18.41.62"]));
    });
    pass(5).await;
    assert!(world.all("events").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_longer_than_a_wait_for_room_fails_no_call() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    node.alive.store(false, Ordering::SeqCst);
    let back = async {
        pass(20).await;
        node.alive.store(true, Ordering::SeqCst);
    };
    let (given, ()) = tokio::join!(node.address("a", &uid, "s1"), back);
    assert_eq!(given, "172.18.41.40/24");
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_vain_ends_after_ten_seconds_with_the_reason() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    let (a, b) = (world.pod("a", &uses(&["p"])), world.pod("b", &uses(&["p"])));
    let node = Node::start(&world, dir.path()).await;
    node.address("a", &a, "s1").await;
    let began = tokio::time::Instant::now();
    assert_eq!(
        node.refusal("b", &b).await,
        "failed to allocate IP addresses in standard mode: failed to allocate any IPv4 IP address to NIC eth0 from IPPools [p]: all IP addresses used out"
    );
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_is_told_what_the_subnet_lacks() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    world.edit("spiderippools", "", "p", |pool| {
        pool["status"]["conditions"] = json!([{
            "type": "Exhausted", "status": "True", "reason": "SubnetExhausted",
            "message": "1 missing; add 1 address to spec.ips of SpiderSubnet net4",
            "lastTransitionTime": "2026-11-22T17:41:24Z",
        }]);
    });
    let (a, b) = (world.pod("a", &uses(&["p"])), world.pod("b", &uses(&["p"])));
    let node = Node::start(&world, dir.path()).await;
    node.address("a", &a, "s1").await;
    node.refusal("b", &b).await;
    let told = &world.all("events")[0];
    assert_eq!(
        told["note"],
        "waiting up to 10 s for an address: failed to allocate any IPv4 IP address to NIC eth0 from IPPools [p]: all IP addresses used out; 1 missing; add 1 address to spec.ips of SpiderSubnet net4"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_controller_admits_the_pool() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    let admitted = world.get("spiderippools", "", "p").unwrap()["metadata"]["annotations"].clone();
    world.edit("spiderippools", "", "p", |pool| {
        pool["metadata"]["annotations"] = json!({});
    });
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    let admit = async {
        pass(1).await;
        world.edit("spiderippools", "", "p", |pool| {
            pool["metadata"]["annotations"] = admitted;
        });
    };
    let (given, ()) = tokio::join!(node.address("a", &uid, "s1"), admit);
    assert_eq!(given, "172.18.41.40/24");
}

#[tokio::test(start_paused = true)]
async fn what_one_family_got_is_kept_for_the_call_that_gets_both() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p4", "172.18.41.40-172.18.41.43");
    let spec = json!({"subnet": "fd00::/64", "ips": ["fd00::5"], "excludeIPs": ["fd00::5"]});
    world.put(
        "spiderippools",
        json!({"metadata": {"name": "p6"}, "spec": spec}),
    );
    let both = json!({"ipv4": ["p4"], "ipv6": ["p6"]}).to_string();
    let uid = world.pod("a", &json!({"ipam.spidernet.io/ippool": both}));
    let node = Node::start(&world, dir.path()).await;
    node.refusal("a", &uid).await;
    assert_eq!(world.records("p4")["172.18.41.40"]["podUid"], json!(uid));
    let spec = json!({"subnet": "fd00::/64", "ips": ["fd00::5"]});
    world.delete("spiderippools", "", "p6");
    world.put(
        "spiderippools",
        json!({"metadata": {"name": "p6"}, "spec": spec}),
    );
    let (status, reply) = node.add("a", &uid, "s2").await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    let addresses = [&reply["ips"][0]["address"], &reply["ips"][1]["address"]];
    assert_eq!(addresses, ["172.18.41.40/24", "fd00::5/64"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_a_missing_and_a_replaced_pod_are_refused() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    let text = node.refusal("a", "another").await;
    assert!(
        text.starts_with(&format!("Pod shop/a now has the uid {uid}")),
        "{text}"
    );
    world.terminate("a");
    pass(1).await;
    assert_eq!(
        node.refusal("a", &uid).await,
        "dead Pod shop/a, we cannot allocate IP addresees to it"
    );
    assert_eq!(
        node.refusal("b", "u").await,
        "failed to get Pod shop/b: Pod \"b\" not found"
    );
    assert_eq!(world.records("p"), json!({}));
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_another_node_is_refused_with_and_without_a_uid() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    world.edit("pods", "shop", "a", |pod| {
        pod["spec"]["nodeName"] = json!("n2");
    });
    let node = Node::start(&world, dir.path()).await;
    for asked in ["", uid.as_str()] {
        assert_eq!(
            node.refusal("a", asked).await,
            "Pod shop/a is on node n2, and this is the agent of node n1"
        );
    }
    assert_eq!(world.records("p"), json!({}));
}

#[tokio::test(start_paused = true)]
async fn rules_that_give_no_pool_say_what_to_do() {
    let (world, dir) = (World::with_shop(), temp());
    let table = [
        (
            json!({}),
            "no IPPool available, no pool selection rules of any type are specified: name an IPPool by annotation 'ipam.spidernet.io/ippool' of the Pod, by 'ipam.spidernet.io/default-ipv4-ippool' or 'ipam.spidernet.io/default-ipv6-ippool' of its Namespace, or in the CNI configuration, or set spec.default of one",
        ),
        (
            json!({"ipam.spidernet.io/ippool": "{}"}),
            "no IPPool available, Pod annotation 'ipam.spidernet.io/ippool' names none for interface eth0 in an IP family that is enabled: its value is '{}', name one there, or remove it",
        ),
        (
            uses(&["p", "p"]),
            "wrong input, duplicate IPPool p specified for NIC eth0: mend Pod annotation 'ipam.spidernet.io/ippool'",
        ),
        (
            uses(&["ghost"]),
            "failed to get original IPPool ghost: SpiderIPPool.spiderpool.spidernet.io \"ghost\" not found: make it, or correct Pod annotation 'ipam.spidernet.io/ippool'",
        ),
        (
            uses(&[""]),
            "wrong input, an empty IPv4 IPPool name specified for NIC eth0: mend Pod annotation 'ipam.spidernet.io/ippool'",
        ),
        (
            json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}", "ipam.spidernet.io/ippool-ip-number": "abc"}),
            "failed to get IPPool candidates from Subnet: invalid input 'abc': annotation 'ipam.spidernet.io/ippool-ip-number' takes N or +N",
        ),
        (
            json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}", "ipam.spidernet.io/ippool-reclaim": "yes"}),
            "failed to get IPPool candidates from Subnet: failed to parse spider subnet 'ipam.spidernet.io/ippool-reclaim', error: invalid value \"yes\", use \"true\" or \"false\"",
        ),
        (
            json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"}),
            "failed to get IPPool candidates from Subnet: SpiderSubnet feature doesn't support no-controller pod: annotation 'ipam.spidernet.io/subnet' is '{\"ipv4\":[\"net4\"]}', remove it and name an IPPool by annotation 'ipam.spidernet.io/ippool', or run the Pod by a workload, as a Deployment",
        ),
    ];
    let node = Node::start(&world, dir.path()).await;
    for (number, (annotations, text)) in table.into_iter().enumerate() {
        let name = format!("a{number}");
        let uid = world.pod(&name, &annotations);
        let expected = format!("failed to allocate IP addresses in standard mode: {text}");
        assert_eq!(node.refusal(&name, &uid).await, expected);
    }
    pass(30).await;
    let endpoints = world.all("spiderendpoints");
    assert!(endpoints.is_empty(), "nothing was given: {endpoints:?}");
}

#[tokio::test(start_paused = true)]
async fn namespace_then_cni_configuration_then_default_pools_serve_who_names_none() {
    let (world, dir) = (World::with_shop(), temp());
    for (name, ip) in [
        ("ns", "172.18.41.10"),
        ("cni", "172.18.41.20"),
        ("any", "172.18.41.30"),
    ] {
        world.pool(name, ip);
    }
    world.edit("spiderippools", "", "any", |pool| {
        pool["spec"]["default"] = json!(true);
    });
    world.edit("namespaces", "", "shop", |ns| {
        ns["metadata"]["annotations"] =
            json!({"ipam.spidernet.io/default-ipv4-ippool": "[\"ns\"]"});
    });
    let node = Node::start(&world, dir.path()).await;
    let uid = world.pod("a", &json!({}));
    assert_eq!(node.address("a", &uid, "s").await, "172.18.41.10/24");
    world.edit("namespaces", "", "shop", |ns| {
        ns["metadata"]["annotations"] = json!({});
    });
    pass(5).await;
    let uid = world.pod("b", &json!({}));
    let mut with_cni = args("b", &uid, "eth0", "s");
    with_cni["defaultIPv4IPPool"] = json!(["cni"]);
    let (_, reply) = node.call(Operation::PostIpamIp, &with_cni).await;
    assert_eq!(reply["ips"][0]["address"], "172.18.41.20/24");
    let uid = world.pod("c", &json!({}));
    assert_eq!(node.address("c", &uid, "s").await, "172.18.41.30/24");
}

/// A Deployment `web` with its ReplicaSet; the owner reference of its Pods.
pub(super) fn web(world: &World, annotations: &Value) -> Value {
    let meta =
        json!({"name": "web", "namespace": "shop", "uid": "d-1", "annotations": annotations});
    world.put("deployments", json!({"metadata": meta}));
    let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d-1", "controller": true}]);
    let meta =
        json!({"name": "web-1", "namespace": "shop", "uid": "r-1", "ownerReferences": owner});
    world.put("replicasets", json!({"metadata": meta}));
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "r-1", "controller": true})
}

/// The pool the controller makes for Deployment `web` in subnet `net4`.
pub(super) fn make_web_pool(world: &World, ips: &Value) {
    make_pool_of(world, ["apps", "v1", "Deployment"], ips);
}

/// The pool the controller makes for a workload `web` of this group, version and kind.
fn make_pool_of(world: &World, [group, version, kind]: [&str; 3], ips: &Value) {
    let labels = json!({
        "ipam.spidernet.io/interface": "eth0",
        "ipam.spidernet.io/ip-version": "IPv4",
        "ipam.spidernet.io/owner-application-gv": format!("{group}_{version}"),
        "ipam.spidernet.io/owner-application-kind": kind,
        "ipam.spidernet.io/owner-application-name": "web",
        "ipam.spidernet.io/owner-application-namespace": "shop",
        "ipam.spidernet.io/owner-application-uid": "d-1",
        "ipam.spidernet.io/owner-spider-subnet": "net4",
        "ipam.spidernet.io/ippool-reclaim": "true",
    });
    let affinity = json!({"matchLabels": {
        "ipam.spidernet.io/app-api-group": group, "ipam.spidernet.io/app-api-version": version,
        "ipam.spidernet.io/app-kind": kind, "ipam.spidernet.io/app-namespace": "shop",
        "ipam.spidernet.io/app-name": "web"}});
    let meta = json!({"name": "auto4-web-eth0-1", "labels": labels});
    let spec = json!({"subnet": "172.18.41.0/24", "ips": ips, "podAffinity": affinity});
    world.put("spiderippools", json!({"metadata": meta, "spec": spec}));
}

/// `kubectl delete deployment web --cascade=orphan`, and applied again: its ReplicaSet runs on.
#[tokio::test(start_paused = true)]
async fn a_replica_set_that_another_deployment_takes_up_is_served_by_that_one_s_pool() {
    let (world, dir) = (World::with_shop(), temp());
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let set = web(&world, &json!({}));
    make_web_pool(&world, &json!(["172.18.41.60-172.18.41.62"]));
    let node = Node::start(&world, dir.path()).await;
    let uid = world.pod_of("web-a", &subnet, &set);
    assert_eq!(node.address("web-a", &uid, "a").await, "172.18.41.60/24");
    world.edit("replicasets", "shop", "web-1", |set| {
        set["metadata"]["ownerReferences"][0]["uid"] = json!("d-2");
    });
    world.edit("spiderippools", "", "auto4-web-eth0-1", |pool| {
        pool["metadata"]["labels"]["ipam.spidernet.io/owner-application-uid"] = json!("d-2");
    });
    pass(60).await;
    let uid = world.pod_of("web-b", &subnet, &set);
    assert_eq!(node.address("web-b", &uid, "b").await, "172.18.41.61/24");
}

/// Rollout `web` with these annotations.
fn rollout(world: &World, annotations: &Value) -> Value {
    let meta =
        json!({"name": "web", "namespace": "shop", "uid": "d-1", "annotations": annotations});
    world.put("rollouts", json!({"metadata": meta}));
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "d-1", "controller": true})
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_kind_that_the_operator_names_are_served_by_its_pool_directly_or_through_a_set() {
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    for (on_pod, on_workload) in [(subnet.clone(), json!({})), (json!({}), subnet)] {
        let (world, dir) = (World::with_shop(), temp());
        let top = rollout(&world, &on_workload);
        make_pool_of(
            &world,
            ["argoproj.io", "v1alpha1", "Rollout"],
            &json!(["172.18.41.60-172.18.41.62"]),
        );
        let meta =
            json!({"name": "web-1", "namespace": "shop", "uid": "r-1", "ownerReferences": [top]});
        world.put("replicasets", json!({"metadata": meta}));
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "r-1", "controller": true});
        // A reference may name another version than the operator does.
        let mut newer = top.clone();
        newer["apiVersion"] = json!("argoproj.io/v1");
        let node = Node::start(&world, dir.path()).await;
        for (pod, owner, address) in [
            ("web-a", &top, "172.18.41.60/24"),
            ("web-b", &set, "172.18.41.61/24"),
            ("web-c", &newer, "172.18.41.62/24"),
        ] {
            let uid = world.pod_of(pod, &on_pod, owner);
            assert_eq!(node.address(pod, &uid, pod).await, address, "{pod}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_kind_that_nobody_named_is_told_where_to_name_it() {
    let (world, dir) = (World::with_shop(), temp());
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let owner = json!({"apiVersion": "a.example/v1", "kind": "Box", "name": "web", "uid": "d-1", "controller": true});
    let uid = world.pod_of("web-a", &subnet, &owner);
    let node = Node::start(&world, dir.path()).await;
    let told = node.refusal("web-a", &uid).await;
    assert!(
        told.contains("Box shop/web") && told.contains("thirdPartyControllers"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_auto_pool_serves_its_workload_also_if_made_and_grown_while_the_pod_waits() {
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    for (on_pod, on_workload) in [(subnet.clone(), json!({})), (json!({}), subnet)] {
        let (world, dir) = (World::with_shop(), temp());
        let owner = web(&world, &on_workload);
        let uid = world.pod_of("web-1-x", &on_pod, &owner);
        let node = Node::start(&world, dir.path()).await;
        let make = async {
            pass(1).await;
            make_web_pool(&world, &json!([]));
            pass(1).await;
            world.delete("spiderippools", "", "auto4-web-eth0-1");
            make_web_pool(&world, &json!(["172.18.41.60-172.18.41.62"]));
        };
        let (given, ()) = tokio::join!(node.address("web-1-x", &uid, "s1"), make);
        assert_eq!(given, "172.18.41.60/24");
        let endpoints = || world.get("spiderendpoints", "shop", "web-1-x");
        pass(1).await;
        assert_eq!(
            endpoints().unwrap()["status"]["ownerControllerType"],
            "Deployment"
        );
    }
}

/// Nobody makes it one: the subnet's name is wrong, or the workload can't be followed.
#[tokio::test(start_paused = true)]
async fn who_has_no_pool_of_its_own_is_told_which_is_missing_and_where_to_look() {
    let (world, dir) = (World::with_shop(), temp());
    let asks = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"nett4\"]}"});
    let owner = web(&world, &json!({}));
    let uid = world.pod_of("web-1-x", &asks, &owner);
    let node = Node::start(&world, dir.path()).await;
    let text = node.refusal("web-1-x", &uid).await;
    let begins = "failed to allocate IP addresses in standard mode: failed to get IPPool candidates from Subnet: \
        no matching auto-created IPPool candidate with matchLables 'map[ipam.spidernet.io/interface:eth0 ";
    let ends = "]': annotation 'ipam.spidernet.io/subnet' asks for an IPPool of SpiderSubnet nett4 for \
        Deployment shop/web, and there is none yet: look at the Events of Deployment shop/web, and whether \
        there is a SpiderSubnet of this name";
    assert!(text.starts_with(begins) && text.ends_with(ends), "{text}");
}

/// What the Namespace or the CNI configuration says is of a family that is off.
#[tokio::test(start_paused = true)]
async fn whoever_names_no_pool_of_a_family_that_is_on_has_its_value_repeated() {
    let (world, dir) = (World::with_shop(), temp());
    let uid = world.pod("a", &json!({}));
    let node = Node::start_with(&world, dir.path(), |s| s.ipv6 = false).await;
    let mut asked = args("a", &uid, "eth0", "s1");
    asked["defaultIPv6IPPool"] = json!(["six", "sixth"]);
    let (_, text) = node.call(Operation::PostIpamIp, &asked).await;
    let says = "the CNI configuration names none for interface eth0 in an IP family that is enabled: \
        its value is 'IPv4 [], IPv6 [six sixth]'";
    assert!(text.as_str().unwrap().contains(says), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_being_made_anew_is_waited_for() {
    let (world, dir) = (World::with_shop(), temp());
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let owner = web(&world, &json!({}));
    let uid = world.pod_of("web-1-x", &subnet, &owner);
    make_web_pool(&world, &json!(["172.18.41.60-172.18.41.62"]));
    world.edit("spiderippools", "", "auto4-web-eth0-1", |pool| {
        pool["metadata"]["deletionTimestamp"] = json!("2026-11-22T17:41:24Z");
    });
    let node = Node::start(&world, dir.path()).await;
    let make = async {
        pass(2).await;
        world.delete("spiderippools", "", "auto4-web-eth0-1");
        pass(2).await;
        make_web_pool(&world, &json!(["172.18.41.60-172.18.41.62"]));
    };
    let (given, ()) = tokio::join!(node.address("web-1-x", &uid, "s1"), make);
    assert_eq!(given, "172.18.41.60/24");
    // A person's pool does not come back.
    world.pool("p", "172.18.41.40");
    world.edit("spiderippools", "", "p", |pool| {
        pool["metadata"]["deletionTimestamp"] = json!("2026-11-22T17:41:24Z");
    });
    let uid = world.pod("a", &uses(&["p"]));
    let before = Instant::now();
    assert!(
        node.refusal("a", &uid)
            .await
            .contains("terminating IPPool p")
    );
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_add_ends_in_time_however_slow_the_api_server_is() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    world.edit("spiderippools", "", "p", |pool| {
        pool["spec"]["default"] = json!(true);
    });
    let uid = world.pod("a", &json!({}));
    let node = Node::start(&world, dir.path()).await;
    world.lose("spiderreservedips");
    world.slow_down(Duration::from_millis(4_900));
    let before = Instant::now();
    let text = node.refusal("a", &uid).await;
    let limit = ADD_MAX + Duration::from_millis(100);
    assert!(before.elapsed() <= limit, "{:?} {text}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_one_pool_share_a_watch() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.41");
    let pods: Vec<(String, String)> = (0..20)
        .map(|i| format!("a{i}"))
        .map(|name| (name.clone(), world.pod(&name, &uses(&["p"]))))
        .collect();
    let node = Node::start(&world, dir.path()).await;
    let before = world.calls("WATCH").len();
    let calls = join_all(pods.iter().map(|(name, uid)| node.add(name, uid, "s"))).await;
    let served = calls.iter().filter(|(status, _)| *status == StatusCode::OK);
    assert_eq!(served.count(), 2);
    let watches = world.calls("WATCH").len() - before;
    assert!((1..=3).contains(&watches), "{watches} watches");
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_cannot_be_read_stops_nobody() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.42");
    for (name, ips) in [("bad", json!(7)), ("good", json!(["172.18.41.40"]))] {
        let spec = json!({"ipVersion": 4, "ips": ips});
        world.put(
            "spiderreservedips",
            json!({"metadata": {"name": name}, "spec": spec}),
        );
    }
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.41/24");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_annotated_just_before_its_pod_is_made_is_obeyed() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("any", "172.18.41.30-172.18.41.39");
    world.pool("own", "172.18.41.40-172.18.41.49");
    world.edit("spiderippools", "", "any", |pool| {
        pool["spec"]["default"] = json!(true);
    });
    let node = Node::start(&world, dir.path()).await;
    let uid = world.pod("a", &json!({}));
    assert_eq!(node.address("a", &uid, "s").await, "172.18.41.30/24");
    world.edit("namespaces", "", "shop", |ns| {
        ns["metadata"]["annotations"] =
            json!({"ipam.spidernet.io/default-ipv4-ippool": "[\"own\"]"});
    });
    let uid = world.pod("b", &json!({}));
    world.edit("pods", "shop", "b", |pod| {
        let now = crate::api::time::to_wire(crate::api::time::now());
        pod["metadata"]["creationTimestamp"] = json!(now);
    });
    assert_eq!(node.address("b", &uid, "s").await, "172.18.41.40/24");
}

#[tokio::test(start_paused = true)]
async fn switches_decide_what_subnet_annotations_mean() {
    let world = World::with_shop();
    world.pool("any", "172.18.41.30");
    world.edit("spiderippools", "", "any", |pool| {
        pool["spec"]["default"] = json!(true);
    });
    let owner = web(&world, &json!({}));
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let uid = world.pod_of("web-1-x", &subnet, &owner);
    let dir = temp();
    let node = Node::start_with(&world, dir.path(), |s| s.auto_pools = false).await;
    assert_eq!(
        node.refusal("web-1-x", &uid).await,
        "failed to allocate IP addresses in standard mode: it's invalid to use 'ipam.spidernet.io/subnets' or 'ipam.spidernet.io/subnet' annotation when Auto-Pool feature is disabled: 'ipam.spidernet.io/subnet' is '{\"ipv4\":[\"net4\"]}', remove it and name an IPPool by annotation 'ipam.spidernet.io/ippool', or set ipam.spiderSubnet.autoPool.enable"
    );
    node.kill();
    let dir = temp();
    let node = Node::start_with(&world, dir.path(), |s| s.subnets = false).await;
    assert_eq!(node.address("web-1-x", &uid, "s").await, "172.18.41.30/24");
    node.kill();
    let dir = temp();
    let node = Node::start_with(&world, dir.path(), |s| s.ipv4 = false).await;
    let uid = world.pod("v4", &uses(&["any"]));
    let text = node.refusal("v4", &uid).await;
    assert!(text.contains("in an IP family that is enabled"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn only_pods_of_this_node_are_watched() {
    let (world, dir) = (World::with_shop(), temp());
    let _node = Node::start(&world, dir.path()).await;
    pass(60).await;
    let watched = world.calls("WATCH");
    assert!(
        watched
            .iter()
            .all(|call| call.contains("/pods?") && call.contains("spec.nodeName%3Dn1")),
        "{watched:?}"
    );
}

/// As the endpoint tells it.
#[tokio::test(start_paused = true)]
async fn the_controller_of_a_set_or_job_is_the_workload_and_none_is_looked_for_above_it() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.49");
    let by = |version: &str, kind: &str, name: &str| {
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": format!("{kind}-{name}"),
            "controller": true})
    };
    let put = |plural: &str, (kind, name): (&str, &str), owner: Value| {
        let owners: Vec<&Value> = std::iter::once(&owner).filter(|o| !o.is_null()).collect();
        let meta = json!({"name": name, "namespace": "shop", "uid": format!("{kind}-{name}"),
            "ownerReferences": owners});
        world.put(plural, json!({"metadata": meta}));
    };
    let set = ("ReplicaSet", "web-1");
    put("replicasets", set, by("apps/v1", "Deployment", "web"));
    let app = by("a.example/v1", "App", "shop");
    put("deployments", ("Deployment", "web"), app.clone());
    put("replicasets", ("ReplicaSet", "own-1"), app.clone());
    put("replicasets", ("ReplicaSet", "lone"), Value::Null);
    put("jobs", ("Job", "tick-1"), by("batch/v1", "CronJob", "tick"));
    put("statefulsets", ("StatefulSet", "db"), app);
    let node = Node::start(&world, dir.path()).await;
    for (version, kind, name, workload) in [
        ("apps/v1", "ReplicaSet", "web-1", ["Deployment", "web"]),
        ("apps/v1", "ReplicaSet", "own-1", ["ReplicaSet", "own-1"]),
        ("apps/v1", "ReplicaSet", "lone", ["ReplicaSet", "lone"]),
        ("batch/v1", "Job", "tick-1", ["CronJob", "tick"]),
        ("apps/v1", "StatefulSet", "db", ["StatefulSet", "db"]),
    ] {
        let pod = format!("{name}-x");
        let uid = world.pod_of(&pod, &uses(&["p"]), &by(version, kind, name));
        node.address(&pod, &uid, "s1").await;
        pass(1).await;
        let told = world.get("spiderendpoints", "shop", &pod).unwrap();
        let told =
            ["Type", "Name"].map(|what| told["status"][format!("ownerController{what}")].clone());
        assert_eq!(told, workload.map(Value::from), "{pod}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_cannot_be_read_is_told_in_known_words() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "ghost", "uid": "g", "controller": true});
    let uid = world.pod_of("a", &uses(&["p"]), &owner);
    let node = Node::start(&world, dir.path()).await;
    let text = node.refusal("a", &uid).await;
    let begins =
        "failed to get the top controller of the Pod shop/a: failed to get pod 'shop/a' owner: ";
    let ends = "\"ghost\" not found";
    assert!(text.starts_with(begins) && text.ends_with(ends), "{text}");
    assert_eq!(world.records("p"), json!({}));
}

#[tokio::test(start_paused = true)]
async fn a_filter_by_the_master_s_network_is_refused_and_not_ignored() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    let mut asked = args("a", &uid, "eth0", "s1");
    asked["matchMasterSubnet"] = json!(true);
    let (status, text) = node.call(Operation::PostIpamIp, &asked).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let text = text.as_str().unwrap();
    assert!(
        text.contains("match_master_subnet") && text.ends_with("remove it"),
        "{text}"
    );
    assert_eq!(world.records("p"), json!({}));
}

/// Pool `six` of `fd00:41::/112`.
fn pool_of_ipv6(world: &World) {
    let spec =
        json!({"subnet": "fd00:41::/112", "ips": ["fd00:41::5"], "ipVersion": 6, "default": true});
    let meta = json!({"name": "six"});
    world.put("spiderippools", json!({"metadata": meta, "spec": spec}));
}

#[tokio::test(start_paused = true)]
async fn the_first_source_that_speaks_supplies_both_families() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("ns", "172.18.41.10");
    world.pool("own", "172.18.41.20");
    pool_of_ipv6(&world);
    world.edit("namespaces", "", "shop", |ns| {
        ns["metadata"]["annotations"] =
            json!({"ipam.spidernet.io/default-ipv4-ippool": "[\"ns\"]"});
    });
    let node = Node::start(&world, dir.path()).await;
    for (pod, annotations, address) in [
        ("a", json!({}), "172.18.41.10/24"),
        ("b", uses(&["own"]), "172.18.41.20/24"),
    ] {
        let uid = world.pod(pod, &annotations);
        let (_, reply) = node.add(pod, &uid, "s1").await;
        let given = reply["ips"].as_array().unwrap().iter();
        let given: Vec<&Value> = given.map(|ip| &ip["address"]).collect();
        assert_eq!(given, [&json!(address)], "{pod}");
    }
}

#[tokio::test(start_paused = true)]
async fn wildcards_count_in_a_namespace_and_in_the_cni_configuration() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("web-1", "172.18.41.10-172.18.41.19");
    world.pool("db-1", "172.18.41.20-172.18.41.29");
    pool_of_ipv6(&world);
    let node = Node::start(&world, dir.path()).await;
    let uid = world.pod("a", &json!({}));
    let mut asked = args("a", &uid, "eth0", "s1");
    asked["defaultIPv4IPPool"] = json!(["w*-?"]);
    asked["defaultIPv6IPPool"] = json!(["s[a-i]x"]);
    let (_, reply) = node.call(Operation::PostIpamIp, &asked).await;
    assert_eq!(reply["ips"][0]["address"], "172.18.41.10/24", "{reply}");
    assert_eq!(reply["ips"][1]["address"], "fd00:41::5/112");
    world.edit("namespaces", "", "shop", |ns| {
        ns["metadata"]["annotations"] =
            json!({"ipam.spidernet.io/default-ipv4-ippool": "[\"d*\"]"});
    });
    pass(5).await;
    let uid = world.pod("b", &json!({}));
    assert_eq!(node.address("b", &uid, "s1").await, "172.18.41.20/24");
}
