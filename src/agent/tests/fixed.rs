//! Pods of a StatefulSet: the next one of a name has the address of the one before it, and never
//! before that one has let go.

use super::*;

const RANGE: &str = "172.18.41.40-172.18.41.49";

/// A world with pool `p`, StatefulSet `web` of three and nodes n1 and n2; and the set's uid.
fn cluster() -> (World, String) {
    let world = World::with_shop();
    world.put("nodes", json!({"metadata": {"name": "n2"}}));
    world.pool("p", RANGE);
    let set = world.stateful_set(3);
    (world, set)
}

impl World {
    /// StatefulSet `web`; its uid.
    fn stateful_set(&self, replicas: u32) -> String {
        let meta = json!({"name": "web", "namespace": "shop", "creationTimestamp": "2026-11-22T10:00:00Z"});
        self.put(
            "statefulsets",
            json!({"metadata": meta, "spec": {"replicas": replicas}}),
        )
    }

    fn scale(&self, replicas: u32) {
        self.edit("statefulsets", "shop", "web", |set| {
            set["spec"]["replicas"] = json!(replicas);
        });
    }

    /// Pod `web-<n>` of the set on `node`, which uses these pools; its uid.
    fn web(&self, n: u32, set: &str, node: &str, pools: &[&str]) -> String {
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web",
            "uid": set, "controller": true});
        let name = format!("web-{n}");
        let meta = json!({"name": name, "namespace": "shop", "labels": {"app": "web"},
            "annotations": uses(pools), "ownerReferences": [owner],
            "creationTimestamp": "2026-11-22T12:00:00Z"});
        let spec = json!({"nodeName": node, "containers": []});
        self.put("pods", json!({"metadata": meta, "spec": spec}))
    }

    fn endpoint(&self, pod: &str) -> Option<Value> {
        self.get("spiderendpoints", "shop", pod)
    }

    fn set_node(&self, node: &str, taint: Option<&str>, ready: &str) {
        let taints: Vec<Value> = taint
            .iter()
            .map(|key| json!({"key": key, "effect": "NoExecute"}))
            .collect();
        self.edit("nodes", "", node, |node| {
            node["spec"] = json!({"taints": taints});
            node["status"] = json!({"conditions": [{"type": "Ready", "status": ready}]});
        });
    }
}

async fn second_node(world: &World, dir: &TempDir) -> Node {
    Node::start_with(world, dir.path(), |settings| {
        settings.node = "n2".to_owned();
    })
    .await
}

/// The Pod ends as kubelets end Pods: DEL while it is terminating, then the object goes.
async fn end(world: &World, node: &Node, pod: &str, uid: &str, sandbox: &str) {
    world.terminate(pod);
    node.del(pod, uid, sandbox).await;
    world.delete("pods", "shop", pod);
}

#[tokio::test(start_paused = true)]
async fn the_next_pod_of_a_name_has_the_address_and_nobody_else_gets_it_meanwhile() {
    let ((world, set), dir) = (cluster(), temp());
    let node = Node::start(&world, dir.path()).await;
    let old = world.web(0, &set, "n1", &["p"]);
    let address = node.address("web-0", &old, "s1").await;
    let held = json!({"pod": "shop/web-0", "podUid": old, "nic": "eth0", "node": "n1", "sandbox": "s1", "owner": set});
    assert_eq!(world.records("p"), json!({"172.18.41.40": held}));
    end(&world, &node, "web-0", &old, "s1").await;
    pass(3).await;
    let kept =
        json!({"pod": "shop/web-0", "podUid": old, "nic": "eth0", "owner": set, "kept": true});
    assert_eq!(world.records("p"), json!({"172.18.41.40": kept}));
    let other = world.pod("other", &uses(&["p"]));
    assert_ne!(node.address("other", &other, "o").await, address);
    let new = world.web(0, &set, "n1", &["p"]);
    assert_eq!(node.address("web-0", &new, "s2").await, address);
    let records = world.records("p");
    assert_eq!(records["172.18.41.40"]["podUid"], json!(new));
    assert_eq!(records["172.18.41.40"]["kept"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn on_another_node_a_pod_waits_until_the_former_one_has_let_go() {
    let ((world, set), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = (
        Node::start(&world, dir.path()).await,
        second_node(&world, &dir2).await,
    );
    let old = world.web(0, &set, "n1", &["p"]);
    let address = n1.address("web-0", &old, "s1").await;
    // Deleted by force: the object is gone, the sandbox is not.
    world.delete("pods", "shop", "web-0");
    let new = world.web(0, &set, "n2", &["p"]);
    let (given, ()) = tokio::join!(n2.address("web-0", &new, "s2"), async {
        pass(4).await;
        assert_eq!(world.records("p")["172.18.41.40"]["podUid"], json!(old));
        n1.del("web-0", &old, "s1").await;
    });
    assert_eq!(given, address);
    assert_eq!(world.records("p").as_object().unwrap().len(), 1);
    let told = world.all("events");
    assert!(
        told[0]["note"]
            .as_str()
            .unwrap()
            .contains("has not let go on node n1"),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_former_one_never_lets_go_is_refused_and_given_no_other_address() {
    let ((world, set), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = (
        Node::start(&world, dir.path()).await,
        second_node(&world, &dir2).await,
    );
    let old = world.web(0, &set, "n1", &["p"]);
    n1.address("web-0", &old, "s1").await;
    world.delete("pods", "shop", "web-0");
    let new = world.web(0, &set, "n2", &["p"]);
    let text = n2.refusal("web-0", &new).await;
    assert!(
        text.contains("address 172.18.41.40 of IPPool p is kept for Pod shop/web-0"),
        "{text}"
    );
    assert!(
        text.contains("delete Node n1 or taint it node.kubernetes.io/out-of-service"),
        "{text}"
    );
    assert_eq!(world.records("p").as_object().unwrap().len(), 1);
    // A taint on a node that works proves nothing.
    world.set_node("n1", Some("node.kubernetes.io/out-of-service"), "True");
    n2.refusal("web-0", &new).await;
    world.set_node("n1", Some("node.kubernetes.io/out-of-service"), "Unknown");
    assert_eq!(n2.address("web-0", &new, "s2").await, "172.18.41.40/24");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_deleted_has_let_go() {
    let ((world, set), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = (
        Node::start(&world, dir.path()).await,
        second_node(&world, &dir2).await,
    );
    let old = world.web(0, &set, "n1", &["p"]);
    let address = n1.address("web-0", &old, "s1").await;
    n1.kill();
    world.delete("pods", "shop", "web-0");
    world.delete("nodes", "", "n1");
    let new = world.web(0, &set, "n2", &["p"]);
    assert_eq!(n2.address("web-0", &new, "s2").await, address);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_restarted_after_the_del_keeps_the_address() {
    let ((world, set), dir) = (cluster(), temp());
    let node = Node::start(&world, dir.path()).await;
    let old = world.web(1, &set, "n1", &["p"]);
    let address = node.address("web-1", &old, "s1").await;
    end(&world, &node, "web-1", &old, "s1").await;
    node.kill();
    let node = Node::start(&world, dir.path()).await;
    pass(3).await;
    assert_eq!(world.records("p")["172.18.41.40"]["kept"], json!(true));
    // A DEL that is repeated after that changes nothing.
    node.del("web-1", &old, "s1").await;
    pass(3).await;
    let new = world.web(1, &set, "n1", &["p"]);
    assert_eq!(node.address("web-1", &new, "s2").await, address);
}

#[tokio::test(start_paused = true)]
async fn an_ordinal_that_is_no_longer_wanted_frees_its_address_and_its_endpoint() {
    let ((world, set), dir) = (cluster(), temp());
    let node = Node::start(&world, dir.path()).await;
    let (zero, two) = (
        world.web(0, &set, "n1", &["p"]),
        world.web(2, &set, "n1", &["p"]),
    );
    node.address("web-0", &zero, "a").await;
    node.address("web-2", &two, "b").await;
    pass(1).await;
    assert!(world.endpoint("web-2").is_some());
    world.scale(1);
    end(&world, &node, "web-2", &two, "b").await;
    pass(3).await;
    assert_eq!(world.records("p").as_object().unwrap().len(), 1);
    assert!(world.endpoint("web-2").is_none());
    assert!(world.endpoint("web-0").is_some());
}

/// So it does where an agent died between a record and its endpoint.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_tells_of_a_former_pod_goes_with_the_last_one_s_address() {
    let ((world, set), dir) = (cluster(), temp());
    let node = Node::start(&world, dir.path()).await;
    let last = world.web(2, &set, "n1", &["p"]);
    node.address("web-2", &last, "b").await;
    pass(1).await;
    world.edit("spiderendpoints", "shop", "web-2", |endpoint| {
        endpoint["status"]["current"]["uid"] = json!("former");
    });
    world.scale(1);
    end(&world, &node, "web-2", &last, "b").await;
    pass(3).await;
    assert!(world.endpoint("web-2").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_set_made_anew_under_the_same_name_inherits_nothing() {
    let ((world, set), dir) = (cluster(), temp());
    let node = Node::start(&world, dir.path()).await;
    let old = world.web(0, &set, "n1", &["p"]);
    node.address("web-0", &old, "s1").await;
    world.delete("statefulsets", "shop", "web");
    let again = world.stateful_set(3);
    world.terminate("web-0");
    world.delete("pods", "shop", "web-0");
    let new = world.web(0, &again, "n1", &["p"]);
    assert_eq!(
        node.address("web-0", &new, "s2").await,
        "172.18.41.41/24",
        "the old one has not let go"
    );
    node.del("web-0", &old, "s1").await;
    pass(3).await;
    let records = world.records("p");
    assert_eq!(records.as_object().unwrap().len(), 1);
    assert_eq!(records["172.18.41.41"]["owner"], json!(again));
}

#[tokio::test(start_paused = true)]
async fn a_set_that_adopts_running_pods_keeps_their_addresses() {
    let ((world, set), dir) = (cluster(), temp());
    let node = Node::start(&world, dir.path()).await;
    let old = world.web(0, &set, "n1", &["p"]);
    let address = node.address("web-0", &old, "s1").await;
    // kubectl delete statefulset --cascade=orphan, and apply again.
    world.delete("statefulsets", "shop", "web");
    let again = world.stateful_set(3);
    world.edit("pods", "shop", "web-0", |pod| {
        pod["metadata"]["ownerReferences"][0]["uid"] = json!(again);
    });
    pass(1).await;
    end(&world, &node, "web-0", &old, "s1").await;
    pass(3).await;
    let new = world.web(0, &again, "n1", &["p"]);
    assert_eq!(node.address("web-0", &new, "s2").await, address);
}

#[tokio::test(start_paused = true)]
async fn switched_off_a_stateful_set_is_as_any_workload() {
    let ((world, set), dir) = (cluster(), temp());
    let node = Node::start_with(&world, dir.path(), |settings| {
        settings.keeps.stateful_sets = false;
    })
    .await;
    let old = world.web(0, &set, "n1", &["p"]);
    node.address("web-0", &old, "s1").await;
    pass(1).await;
    assert_eq!(world.records("p")["172.18.41.40"]["owner"], Value::Null);
    let endpoint = world.endpoint("web-0").unwrap();
    assert_eq!(
        endpoint["metadata"]["ownerReferences"][0]["uid"],
        json!(old)
    );
    assert_eq!(endpoint["metadata"]["finalizers"], Value::Null);
    end(&world, &node, "web-0", &old, "s1").await;
    pass(3).await;
    assert_eq!(world.records("p"), json!({}));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_another_pool_has_the_new_address_before_the_old_one_goes() {
    let ((world, set), dir) = (cluster(), temp());
    world.pool("q", "172.18.41.60");
    let node = Node::start(&world, dir.path()).await;
    let old = world.web(0, &set, "n1", &["p"]);
    node.address("web-0", &old, "s1").await;
    end(&world, &node, "web-0", &old, "s1").await;
    pass(3).await;
    let taken = world.pod("other", &uses(&["q"]));
    node.address("other", &taken, "o").await;
    let new = world.web(0, &set, "n1", &["q"]);
    node.refusal("web-0", &new).await;
    assert_eq!(
        world.records("p")["172.18.41.40"]["kept"],
        json!(true),
        "q is full"
    );
    end(&world, &node, "other", &taken, "o").await;
    pass(3).await;
    assert_eq!(node.address("web-0", &new, "s2").await, "172.18.41.60/24");
    pass(1).await;
    let nic = &world.endpoint("web-0").unwrap()["status"]["current"]["ips"][0];
    assert_eq!(nic["ipv4Pool"], json!("q"));
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_outlives_the_pod_and_follows_the_next_one() {
    let ((world, set), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = (
        Node::start(&world, dir.path()).await,
        second_node(&world, &dir2).await,
    );
    let old = world.web(0, &set, "n1", &["p"]);
    n1.address("web-0", &old, "s1").await;
    pass(1).await;
    let first = world.endpoint("web-0").unwrap();
    assert_eq!(first["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(
        first["metadata"]["finalizers"],
        json!(["spiderpool.spidernet.io"])
    );
    end(&world, &n1, "web-0", &old, "s1").await;
    pass(3).await;
    let new = world.web(0, &set, "n2", &["p"]);
    n2.address("web-0", &new, "s2").await;
    pass(1).await;
    let then = world.endpoint("web-0").unwrap();
    assert_eq!(then["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(then["status"]["current"]["uid"], json!(new));
    assert_eq!(then["status"]["current"]["node"], json!("n2"));
    assert_eq!(
        then["status"]["current"]["ips"],
        first["status"]["current"]["ips"]
    );
}

#[tokio::test(start_paused = true)]
async fn of_the_endpoints_only_those_of_statefulsets_pods_are_written_where_that_is_set() {
    let ((world, set), dir) = (cluster(), temp());
    let node = Node::writing(EndpointMode::Stateful, &world, dir.path()).await;
    let (plain, stateful) = (
        world.pod("a", &uses(&["p"])),
        world.web(0, &set, "n1", &["p"]),
    );
    node.address("a", &plain, "s1").await;
    node.address("web-0", &stateful, "s2").await;
    pass(1).await;
    assert!(world.endpoint("a").is_none());
    assert!(world.endpoint("web-0").is_some());
}

/// As the original leaves it: a record of two keys, an endpoint of StatefulSet `web`.
fn of_original(world: &World, made: &str) {
    let records = json!({"172.18.41.47": {"pod": "shop/web-0", "podUid": "before"}});
    world.edit("spiderippools", "", "p", |pool| {
        pool["status"] = json!({"allocatedIPs": records.to_string(), "allocatedIPCount": 1});
    });
    let nic = json!({"interface": "eth0", "ipv4": "172.18.41.47/24", "ipv4Pool": "p", "vlan": 0});
    let status = json!({"current": {"uid": "before", "node": "n2", "ips": [nic]},
        "ownerControllerType": "StatefulSet", "ownerControllerName": "web"});
    let meta = json!({"name": "web-0", "namespace": "shop", "creationTimestamp": made,
        "finalizers": ["spiderpool.spidernet.io"]});
    world.put(
        "spiderendpoints",
        json!({"metadata": meta, "status": status}),
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_that_the_original_kept_is_taken_over_by_its_endpoint() {
    let ((world, set), dir) = (cluster(), temp());
    of_original(&world, "2026-11-22T11:00:00Z");
    let new = world.web(0, &set, "n1", &["p"]);
    let node = Node::start(&world, dir.path()).await;
    world.set_node("n2", None, "Unknown");
    node.refusal("web-0", &new).await;
    world.set_node("n2", None, "True");
    // Its kubelet grants the former Pod as much, however it was deleted.
    let grace = |seconds: i64| {
        world.edit("pods", "shop", "web-0", |pod| {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(seconds);
        });
    };
    for seconds in [1_000_000_000, i64::MAX] {
        grace(seconds);
        pass(1).await;
        node.refusal("web-0", &new).await;
    }
    grace(30);
    pass(1).await;
    assert_eq!(node.address("web-0", &new, "s1").await, "172.18.41.47/24");
    assert_eq!(world.records("p")["172.18.41.47"]["owner"], json!(set));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_older_than_the_set_is_of_another_set_of_that_name() {
    let ((world, set), dir) = (cluster(), temp());
    of_original(&world, "2026-11-22T09:00:00Z");
    world.set_node("n2", None, "True");
    let new = world.web(0, &set, "n1", &["p"]);
    let node = Node::start(&world, dir.path()).await;
    assert_eq!(node.address("web-0", &new, "s1").await, "172.18.41.40/24");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_original_served_keeps_its_address_when_it_ends() {
    let ((world, set), dir) = (cluster(), temp());
    of_original(&world, "2026-11-22T11:00:00Z");
    let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web",
        "uid": set, "controller": true}]);
    let meta = json!({"name": "web-0", "namespace": "shop", "uid": "before", "annotations": uses(&["p"]),
        "ownerReferences": owner});
    world.put(
        "pods",
        json!({"metadata": meta, "spec": {"nodeName": "n1", "containers": []}}),
    );
    let node = Node::start(&world, dir.path()).await;
    // Even if the Pod is gone when its DEL comes.
    world.delete("pods", "shop", "web-0");
    pass(1).await;
    node.del("web-0", "before", "s0").await;
    pass(3).await;
    let kept = &world.records("p")["172.18.41.47"];
    assert_eq!((&kept["kept"], &kept["owner"]), (&json!(true), &json!(set)));
    let new = world.web(0, &set, "n1", &["p"]);
    assert_eq!(node.address("web-0", &new, "s1").await, "172.18.41.47/24");
}

#[tokio::test(start_paused = true)]
async fn a_broken_annotation_does_not_take_a_fixed_address() {
    for mode in EACH_MODE {
        let ((world, set), dir) = (cluster(), temp());
        let node = Node::writing(mode, &world, dir.path()).await;
        let old = world.web(0, &set, "n1", &["p"]);
        let first = node.address("web-0", &old, "s1").await;
        end(&world, &node, "web-0", &old, "s1").await;
        pass(3).await;
        let broken = |pod: &mut Value| {
            pod["metadata"]["annotations"]["ipam.spidernet.io/ippool"] = json!("{");
        };
        let new = world.web(0, &set, "n1", &["p"]);
        world.edit("pods", "shop", "web-0", broken);
        pass(1).await;
        assert_eq!(node.address("web-0", &new, "s2").await, first);
        // Whom nothing was left to is told what is wrong, and given nothing.
        let other = world.web(1, &set, "n1", &["p"]);
        world.edit("pods", "shop", "web-1", broken);
        pass(1).await;
        let text = node.refusal("web-1", &other).await;
        let says = "invalid format of Pod annotation 'ipam.spidernet.io/ippool'";
        assert!(text.contains(says), "{text}");
        assert_eq!(world.records("p").as_object().unwrap().len(), 1);
    }
}

/// Kinds of others may have the name of Kubernetes' own, and their objects those of its objects.
#[tokio::test(start_paused = true)]
async fn a_pod_of_another_kind_called_statefulset_inherits_nothing() {
    for mode in EACH_MODE {
        let ((world, _), dir) = (cluster(), temp());
        let owner = json!({"apiVersion": "apps.kruise.io/v1beta1", "kind": "StatefulSet",
            "name": "web", "uid": "k-1", "controller": true});
        let node = Node::writing(mode, &world, dir.path()).await;
        let uid = world.pod_of("web-0", &uses(&["p"]), &owner);
        node.address("web-0", &uid, "s1").await;
        pass(1).await;
        if world.endpoint("web-0").is_some() {
            world.edit("spiderendpoints", "shop", "web-0", |endpoint| {
                endpoint["metadata"]["creationTimestamp"] = json!("2026-11-22T12:00:01Z");
            });
        }
        end(&world, &node, "web-0", &uid, "s1").await;
        pass(5).await;
        assert_eq!(world.records("p"), json!({}), "{mode:?}");
    }
}

/// The original may have lost a record whose endpoint it still has.
#[tokio::test(start_paused = true)]
async fn an_address_that_no_pool_records_is_not_used() {
    let ((world, set), dir) = (cluster(), temp());
    of_original(&world, "2026-11-22T11:00:00Z");
    let others = json!({"172.18.41.47": {"pod": "shop/other", "podUid": "other"}});
    for records in [json!({}), others] {
        world.edit("spiderippools", "", "p", |pool| {
            pool["status"] = json!({"allocatedIPs": records.to_string()});
        });
        let node = Node::start(&world, dir.path()).await;
        let new = world.web(0, &set, "n1", &["p"]);
        let given = node.address("web-0", &new, "s1").await;
        let address = given.split('/').next().unwrap();
        assert_eq!(world.records("p")[address]["podUid"], json!(new));
        assert_eq!(
            world.records("p").get("172.18.41.47"),
            records.get("172.18.41.47")
        );
        node.kill();
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_interfaces_the_one_whose_pool_changed_moves_and_the_other_stays() {
    let ((world, set), dir) = (cluster(), temp());
    world.pool("q", "172.18.41.60");
    world.pool("r", "172.18.41.70-172.18.41.71");
    let node = Node::start(&world, dir.path()).await;
    let call = async |operation, uid: &str, nic: &str, sandbox: &str| {
        let args = args("web-0", uid, nic, sandbox);
        let (status, reply) = node.call(operation, &args).await;
        assert_eq!(status, StatusCode::OK, "{nic}: {reply}");
        reply["ips"][0]["address"].clone()
    };
    // A Pod whose `eth0` asks for this pool, and its addresses.
    let served = async |pool: &str, sandbox: &str| {
        let uid = world.web(0, &set, "n1", &[]);
        let items =
            json!([{"interface": "eth0", "ipv4": [pool]}, {"interface": "net1", "ipv4": ["r"]}]);
        world.edit("pods", "shop", "web-0", |pod| {
            pod["metadata"]["annotations"] =
                json!({"ipam.spidernet.io/ippools": items.to_string()});
        });
        pass(1).await;
        let eth0 = call(Operation::PostIpamIp, &uid, "eth0", sandbox).await;
        let net1 = call(Operation::PostIpamIp, &uid, "net1", sandbox).await;
        (uid, [eth0, net1])
    };
    let (old, first) = served("p", "s1").await;
    assert_eq!(first, ["172.18.41.40/24", "172.18.41.70/24"]);
    world.terminate("web-0");
    for nic in ["net1", "eth0"] {
        call(Operation::DeleteIpamIp, &old, nic, "s1").await;
    }
    world.delete("pods", "shop", "web-0");
    pass(3).await;
    let (new, then) = served("q", "s2").await;
    assert_eq!(then, ["172.18.41.60/24", "172.18.41.70/24"]);
    pass(1).await;
    let current = &world.endpoint("web-0").unwrap()["status"]["current"];
    assert_eq!(current["uid"], json!(new));
    let nics = current["ips"].as_array().unwrap().iter();
    let mut told: Vec<_> = nics
        .map(|nic| (nic["interface"].as_str(), nic["ipv4Pool"].as_str()))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(Some("eth0"), Some("q")), (Some("net1"), Some("r"))]);
}
