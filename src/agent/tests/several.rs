//! Pods with several interfaces, lists with wildcards, routes: what each interface is given and told.

use super::*;

impl Node {
    async fn add_nic(&self, pod: &str, uid: &str, nic: &str, sandbox: &str) -> (StatusCode, Value) {
        let args = args(pod, uid, nic, sandbox);
        self.call(Operation::PostIpamIp, &args).await
    }

    /// The address given to `nic`.
    pub(super) async fn address_of(
        &self,
        pod: &str,
        uid: &str,
        nic: &str,
        sandbox: &str,
    ) -> String {
        let (status, reply) = self.add_nic(pod, uid, nic, sandbox).await;
        assert_eq!(status, StatusCode::OK, "{nic}: {reply}");
        assert_eq!(reply["ips"].as_array().unwrap().len(), 1, "{reply}");
        assert_eq!(reply["ips"][0]["nic"], nic);
        reply["ips"][0]["address"].as_str().unwrap().to_owned()
    }

    async fn refusal_of(&self, pod: &str, uid: &str, nic: &str) -> String {
        let (status, text) = self.add_nic(pod, uid, nic, "s1").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{text}");
        text.as_str().unwrap().to_owned()
    }
}

fn ippools(items: &Value) -> Value {
    json!({"ipam.spidernet.io/ippools": items.to_string()})
}

/// Pools `a`, `b` and `c` of four addresses, with the gateway `172.18.41.1`.
fn three_pools(world: &World) {
    for (name, first) in [("a", 10), ("b", 20), ("c", 30)] {
        world.pool(name, &format!("172.18.41.{first}-172.18.41.{}", first + 3));
        world.edit("spiderippools", "", name, |pool| {
            pool["spec"]["gateway"] = json!("172.18.41.1");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn each_named_interface_has_its_item_and_the_item_says_who_gets_a_default_route() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let items = json!([{"interface": "net1", "ipv4": ["b"], "cleangateway": true},
        {"interface": "eth0", "ipv4": ["a"]}]);
    let uid = world.pod("x", &ippools(&items));
    let node = Node::start(&world, dir.path()).await;
    let (_, eth0) = node.add_nic("x", &uid, "eth0", "s1").await;
    let (_, net1) = node.add_nic("x", &uid, "net1", "s1").await;
    let way = json!([{"dst": "0.0.0.0/0", "gw": "172.18.41.1", "ifName": "eth0"}]);
    let ip = |address: &str, nic: &str, pool: &str| json!([{"address": address, "gateway": "172.18.41.1", "ipPool": pool, "nic": nic, "version": 4}]);
    assert_eq!(
        eth0,
        json!({"ips": ip("172.18.41.10/24", "eth0", "a"), "routes": way})
    );
    assert_eq!(
        net1,
        json!({"ips": ip("172.18.41.20/24", "net1", "b"), "routes": null})
    );
    let text = node.refusal_of("x", &uid, "net2").await;
    assert!(text.contains("interface net2 must be specified"), "{text}");

    pass(1).await;
    let endpoint = world.get("spiderendpoints", "shop", "x").unwrap();
    let told = |nic: &Value| (nic["interface"].clone(), nic["cleanGateway"].clone());
    let ips = endpoint["status"]["current"]["ips"].as_array().unwrap();
    let expected = [(json!("eth0"), json!(false)), (json!("net1"), json!(true))];
    assert_eq!(ips.iter().map(told).collect::<Vec<_>>(), expected);
    let request = Request::get("/v1/workloadendpoint?podNamespace=shop&podName=x");
    let (_, told) = node.send(request.body(Body::empty()).unwrap()).await;
    let nics = told["interfaces"].as_array().unwrap();
    let nics: Vec<_> = nics
        .iter()
        .map(|n| (&n["interface"], &n["ipv4Pool"]))
        .collect();
    assert_eq!(
        nics,
        [(&json!("eth0"), &json!("a")), (&json!("net1"), &json!("b"))]
    );
}

#[tokio::test(start_paused = true)]
async fn nameless_items_serve_interfaces_in_their_order_also_after_a_restart() {
    for mode in EACH_MODE {
        nameless_items_serve_in_order(mode).await;
    }
}

async fn nameless_items_serve_in_order(mode: EndpointMode) {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let items = json!([{"ipv4": ["a"]}, {"ipv4": ["b"]}, {"ipv4": ["c"]}]);
    let mut annotations = ippools(&items);
    annotations["k8s.v1.cni.cncf.io/networks"] = json!("b@zero,c@any");
    let uid = world.pod("x", &annotations);
    let node = Node::writing(mode, &world, dir.path()).await;
    assert_eq!(
        node.address_of("x", &uid, "eth0", "s1").await,
        "172.18.41.10/24"
    );
    assert_eq!(
        node.address_of("x", &uid, "zero", "s1").await,
        "172.18.41.20/24"
    );
    pass(1).await;
    node.kill();
    let node = Node::writing(mode, &world, dir.path()).await;
    // `any` comes before `zero` by name, and after it in the Pod.
    assert_eq!(
        node.address_of("x", &uid, "any", "s1").await,
        "172.18.41.30/24"
    );
    assert_eq!(
        node.address_of("x", &uid, "zero", "s2").await,
        "172.18.41.20/24"
    );
    let text = node.refusal_of("x", &uid, "more").await;
    let says = "interface more must be specified: it is number 4 of the Pod, and 3 are listed";
    assert!(text.contains(says), "{text}");
}

/// The original notes all of a Pod's addresses at once and names their interfaces as calls come.
#[tokio::test(start_paused = true)]
async fn an_interface_takes_over_what_the_original_kept_for_it() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let items = json!([{"ipv4": ["a"]}, {"ipv4": ["b"]}]);
    let uid = world.pod("x", &ippools(&items));
    for (pool, address) in [("a", "172.18.41.12"), ("b", "172.18.41.22")] {
        let records = json!({address: {"pod": "shop/x", "podUid": uid}}).to_string();
        world.edit("spiderippools", "", pool, |pool| {
            pool["status"] = json!({"allocatedIPs": records});
        });
    }
    let ips = json!([{"interface": "eth0", "ipv4": "172.18.41.12/24", "ipv4Pool": "a"},
        {"interface": "", "ipv4": "172.18.41.22/24", "ipv4Pool": "b"}]);
    let status = json!({"current": {"uid": uid, "node": "n1", "ips": ips},
        "ownerControllerType": "Pod", "ownerControllerName": "x"});
    let meta = json!({"name": "x", "namespace": "shop"});
    world.put(
        "spiderendpoints",
        json!({"metadata": meta, "status": status}),
    );
    let node = Node::start(&world, dir.path()).await;
    assert_eq!(
        node.address_of("x", &uid, "net1", "s2").await,
        "172.18.41.22/24"
    );
    assert_eq!(
        node.address_of("x", &uid, "eth0", "s2").await,
        "172.18.41.12/24"
    );
    pass(1).await;
    let endpoint = world.get("spiderendpoints", "shop", "x").unwrap();
    let ips = endpoint["status"]["current"]["ips"].as_array().unwrap();
    let nics: Vec<_> = ips.iter().map(|nic| &nic["interface"]).collect();
    assert_eq!(nics, ["eth0", "net1"]);
}

#[tokio::test(start_paused = true)]
async fn two_interfaces_on_one_pool_have_an_address_each() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let one_for_all = uses(&["a"]);
    let named = json!([{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["a"]}]);
    for (pod, annotations) in [("x", one_for_all), ("y", ippools(&named))] {
        let uid = world.pod(pod, &annotations);
        let node = Node::start(&world, dir.path()).await;
        let eth0 = node.address_of(pod, &uid, "eth0", "s1").await;
        let net1 = node.address_of(pod, &uid, "net1", "s1").await;
        assert_ne!(eth0, net1);
        assert_eq!(node.address_of(pod, &uid, "eth0", "s2").await, eth0);
        assert_eq!(node.address_of(pod, &uid, "net1", "s2").await, net1);
    }
    assert_eq!(world.records("a").as_object().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_one_interface_got_stays_while_another_waits_and_is_had_again_by_the_retry() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let items =
        json!([{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["ghost"]}]);
    let uid = world.pod("x", &ippools(&items));
    let node = Node::start(&world, dir.path()).await;
    let first = node.address_of("x", &uid, "eth0", "s1").await;
    let text = node.refusal_of("x", &uid, "net1").await;
    assert!(
        text.contains("failed to get original IPPool ghost"),
        "{text}"
    );
    // The runtime tears the sandbox down and tries again with another.
    for nic in ["net1", "eth0"] {
        let args = args("x", &uid, nic, "s1");
        assert_eq!(
            node.call(Operation::DeleteIpamIp, &args).await.0,
            StatusCode::OK
        );
    }
    pass(5).await;
    world.pool("ghost", "172.18.41.90");
    assert_eq!(node.address_of("x", &uid, "eth0", "s2").await, first);
    assert_eq!(
        node.address_of("x", &uid, "net1", "s2").await,
        "172.18.41.90/24"
    );
}

#[tokio::test(start_paused = true)]
async fn patterns_name_pools_of_their_family_in_the_order_of_names() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("web-2", "172.18.41.20");
    world.pool("web-1", "172.18.41.10");
    world.pool("spare", "172.18.41.30");
    let spec = json!({"subnet": "fd00:41::/112", "ips": ["fd00:41::5"], "ipVersion": 6});
    world.put(
        "spiderippools",
        json!({"metadata": {"name": "web-0"}, "spec": spec}),
    );
    let node = Node::start(&world, dir.path()).await;
    let mut given = Vec::new();
    for pod in ["a", "b", "c"] {
        let uid = world.pod(pod, &uses(&["web-[0-9]", "s*"]));
        given.push(node.address(pod, &uid, "s1").await);
    }
    assert_eq!(
        given,
        ["172.18.41.10/24", "172.18.41.20/24", "172.18.41.30/24"]
    );
    let uid = world.pod("d", &uses(&["none-*", "x?"]));
    let says = "failed to allocate IP addresses in standard mode: no IPPool available, no IPv4 IPPool matches [none-* x?] of Pod annotation 'ipam.spidernet.io/ippool': ";
    let text = node.refusal("d", &uid).await;
    assert!(text.starts_with(says), "{text}");
    let uid = world.pod("e", &uses(&["a[]b"]));
    let text = node.refusal("e", &uid).await;
    assert!(
        text.contains("failed to match wildcard: IPv4 PoolName pattern 'a[]b'"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn pools_that_the_pod_names_count_before_a_subnet_that_its_workload_names() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let owner = super::adds::web(&world, &subnet);
    let uid = world.pod_of("web-1-x", &uses(&["b"]), &owner);
    let node = Node::start(&world, dir.path()).await;
    assert_eq!(node.address("web-1-x", &uid, "s1").await, "172.18.41.20/24");
}

#[tokio::test(start_paused = true)]
async fn asked_routes_go_to_the_interface_that_reaches_them_and_the_rest_is_told() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    world.edit("spiderippools", "", "a", |pool| {
        pool["spec"]["routes"] = json!([{"dst": "10.50.0.0/16", "gw": "172.18.41.2"}]);
    });
    let spec = json!({"subnet": "10.9.0.0/24", "ips": ["10.9.0.5"], "ipVersion": 4});
    world.put(
        "spiderippools",
        json!({"metadata": {"name": "other"}, "spec": spec}),
    );
    let items =
        json!([{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["other"]}]);
    let mut annotations = ippools(&items);
    annotations["ipam.spidernet.io/routes"] = json!([{"dst": "10.8.7.6/16", "gw": "10.9.0.1"},
        {"dst": "10.7.0.0/16", "gw": "172.18.41.3"}, {"dst": "10.6.0.0/16", "gw": "192.168.9.9"}])
    .to_string()
    .into();
    let uid = world.pod("x", &annotations);
    let node = Node::start(&world, dir.path()).await;
    let (_, eth0) = node.add_nic("x", &uid, "eth0", "s1").await;
    let route = |dst: &str, gw: &str, nic: &str| json!({"dst": dst, "gw": gw, "ifName": nic});
    let expected = json!([
        route("10.50.0.0/16", "172.18.41.2", "eth0"),
        route("10.7.0.0/16", "172.18.41.3", "eth0"),
        route("0.0.0.0/0", "172.18.41.1", "eth0"),
    ]);
    assert_eq!(eth0["routes"], expected);
    pass(6).await;
    let (_, net1) = node.add_nic("x", &uid, "net1", "s1").await;
    assert_eq!(
        net1["routes"],
        json!([route("10.8.0.0/16", "10.9.0.1", "net1")])
    );
    pass(6).await;
    let events = world.all("events");
    assert!(events.is_empty(), "one more may come: {events:?}");
    pass(6).await;
    let events = world.all("events");
    assert_eq!(events.len(), 1, "told once: {events:?}");
    let told = events[0]["note"].as_str().unwrap();
    assert_eq!(events[0]["reason"], "RouteIgnored");
    let says = "no interface takes the routes [10.6.0.0/16 via 192.168.9.9], whose next hops are in none of the Pod's networks [10.9.0.0/24 172.18.41.0/24]";
    assert!(told.contains(says), "{told}");
    let endpoint = world.get("spiderendpoints", "shop", "x").unwrap();
    let kept = &endpoint["status"]["current"]["ips"][0]["routes"];
    assert_eq!(kept.as_array().unwrap().len(), 2, "{kept}");
}

/// Multus has the first interface from another plugin, whose call never comes here.
#[tokio::test(start_paused = true)]
async fn a_route_that_no_interface_takes_is_told_also_where_another_plugin_serves_the_first() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let mut annotations = uses(&["a"]);
    annotations["k8s.v1.cni.cncf.io/networks"] = json!("macvlan");
    annotations["ipam.spidernet.io/routes"] =
        json!(r#"[{"dst":"10.6.0.0/16","gw":"192.168.9.9"}]"#);
    let uid = world.pod("x", &annotations);
    let node = Node::start(&world, dir.path()).await;
    node.address_of("x", &uid, "net1", "s1").await;
    pass(11).await;
    let events = world.all("events");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["reason"], "RouteIgnored");
}

/// It has its address long after the first one, and takes the route.
#[tokio::test(start_paused = true)]
async fn nothing_is_told_of_routes_while_an_interface_still_waits_for_its_address() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let spec = json!({"subnet": "10.9.0.0/24", "ips": ["10.9.0.5"], "ipVersion": 4});
    let other = json!({"metadata": {"name": "other"}, "spec": spec});
    let items =
        json!([{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["other"]}]);
    let mut annotations = ippools(&items);
    annotations["ipam.spidernet.io/routes"] = json!(r#"[{"dst":"10.8.0.0/16","gw":"10.9.0.1"}]"#);
    let uid = world.pod("x", &annotations);
    let node = Node::start(&world, dir.path()).await;
    node.address_of("x", &uid, "eth0", "s1").await;
    pass(5).await;
    node.refusal_of("x", &uid, "net1").await;
    pass(30).await;
    let ignored = |event: &Value| event["reason"] == "RouteIgnored";
    assert!(!world.all("events").iter().any(ignored));
    world.put("spiderippools", other);
    node.address_of("x", &uid, "net1", "s1").await;
    pass(30).await;
    assert!(!world.all("events").iter().any(ignored));
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_is_broken_later_does_not_take_an_interface_s_address() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let uid = world.pod("x", &uses(&["a"]));
    let node = Node::start(&world, dir.path()).await;
    let first = node.address("x", &uid, "s1").await;
    let broken = json!({"ipam.spidernet.io/ippools": "[", "ipam.spidernet.io/routes": "{"});
    world.edit("pods", "shop", "x", |pod| {
        pod["metadata"]["annotations"] = broken.clone();
    });
    let other = world.pod("y", &broken);
    let text = node.refusal("y", &other).await;
    assert!(
        text.contains("Pod annotation 'ipam.spidernet.io/routes'"),
        "{text}"
    );
    assert_eq!(node.address("x", &uid, "s2").await, first);
}

#[tokio::test(start_paused = true)]
async fn a_pool_for_one_network_serves_the_interface_on_it_and_no_other() {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    world.edit("spiderippools", "", "a", |pool| {
        pool["spec"]["multusName"] = json!(["data"]);
    });
    let mut annotations = uses(&["a"]);
    annotations["k8s.v1.cni.cncf.io/networks"] = json!("kube-system/data,other");
    let uid = world.pod("x", &annotations);
    let node = Node::start_with(&world, dir.path(), |s| {
        s.cluster_network = Some("kube-system/macvlan".to_owned());
    })
    .await;
    assert_eq!(
        node.address_of("x", &uid, "net1", "s1").await,
        "172.18.41.10/24"
    );
    for (nic, network) in [("eth0", "kube-system/macvlan"), ("net2", "shop/other")] {
        let text = node.refusal_of("x", &uid, nic).await;
        let says = format!(
            "no IPPool available, all IPv4 IPPools [a] of {nic} filtered out: the spec.multusName [data] in the IPPool a used by the Pod interface {nic} is not matched with the multusCR {network} specified by the Pod"
        );
        assert!(text.ends_with(&says), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_interfaces_of_a_sandbox_are_released_in_one_call_once_the_pod_is_gone() {
    for mode in EACH_MODE {
        all_interfaces_are_released(mode).await;
    }
}

async fn all_interfaces_are_released(mode: EndpointMode) {
    let (world, dir) = (World::with_shop(), temp());
    three_pools(&world);
    let uid = world.pod("x", &uses(&["a"]));
    let node = Node::writing(mode, &world, dir.path()).await;
    for nic in ["eth0", "net1"] {
        node.address_of("x", &uid, nic, "s1").await;
    }
    pass(1).await;
    node.kill();
    let node = Node::writing(mode, &world, dir.path()).await;
    let mut all =
        json!({"containerID": "s1", "podNamespace": "shop", "podName": "x", "podUID": uid});
    let (status, text) = node.call(Operation::DeleteIpamIps, &all).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        text.as_str()
            .unwrap()
            .starts_with("Pod shop/x has not ended"),
        "{text}"
    );
    all["isReleaseConflictIPs"] = json!(true);
    let answer = node.call(Operation::DeleteIpamIps, &all).await;
    let forbidden = json!("forbid releasing IPs for stateless workload");
    assert_eq!((answer.0.as_u16(), answer.1), (521, forbidden));
    pass(5).await;
    assert_eq!(world.records("a").as_object().unwrap().len(), 2, "it lives");
    world.delete("pods", "shop", "x");
    let answer = node.call(Operation::DeleteIpamIps, &all).await;
    assert_eq!(answer, (StatusCode::OK, Value::Null));
    pass(5).await;
    assert_eq!(world.records("a"), json!({}));
    let answer = node.call(Operation::DeleteIpamIps, &all).await;
    assert_eq!(answer, (StatusCode::OK, Value::Null), "again is no error");
}

#[tokio::test(start_paused = true)]
async fn addresses_of_a_living_statefulset_s_pod_are_refused_with_the_contract_s_code() {
    let (world, dir) = (World::with_shop(), temp());
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "d", "controller": true});
    let uid = world.pod_of("db-0", &json!({}), &owner);
    let node = Node::start(&world, dir.path()).await;
    let all = json!({"containerID": "s1", "podNamespace": "shop", "podName": "db-0", "podUID": uid,
        "isReleaseConflictIPs": true});
    let answer = node.call(Operation::DeleteIpamIps, &all).await;
    let forbidden = json!("forbid releasing IPs for stateful workload ");
    assert_eq!((answer.0.as_u16(), answer.1), (522, forbidden));
}

#[tokio::test(start_paused = true)]
async fn an_interface_for_which_no_subnet_is_named_is_told_so_at_once() {
    let (world, dir) = (World::with_shop(), temp());
    let owner = super::adds::web(&world, &json!({}));
    let node = Node::start(&world, dir.path()).await;
    let item = json!({"interface": "eth0", "ipv4": ["net4"]});
    let of = |key: &str| format!("ipam.spidernet.io/{key}");
    for (key, value) in [("subnets", json!([item])), ("subnet", item.clone())] {
        let annotations = json!({of(key): value.to_string()});
        let uid = world.pod_of(key, &annotations, &owner);
        let before = Instant::now();
        let text = node.refusal_of(key, &uid, "net1").await;
        let says = format!("annotation '{}' names none for interface net1", of(key));
        assert!(text.contains(&says), "{text}");
        let repeats = format!("its value is '{value}'");
        assert!(text.contains(&repeats), "{text}");
        assert!(before.elapsed() < Duration::from_secs(1));
    }
}
