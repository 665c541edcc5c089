//! Virtual machines: one has the same address over restarts and moves, in one Pod at a time or in
//! the two of a move, and nobody else gets it.

use super::*;

const RANGE: &str = "172.18.41.40-172.18.41.49";
const FIRST: &str = "172.18.41.40";

/// A world with pool `p`, nodes n1 and n2, and machine `db`; and the machine's uid.
fn cluster() -> (World, String) {
    let world = World::with_shop();
    world.put("nodes", json!({"metadata": {"name": "n2"}}));
    world.pool("p", RANGE);
    let machine = world.machine();
    (world, machine)
}

impl World {
    /// Machine `db`; its uid.
    fn machine(&self) -> String {
        let meta =
            json!({"name": "db", "namespace": "shop", "creationTimestamp": "2026-11-22T10:00:00Z"});
        self.put("virtualmachines", json!({"metadata": meta}))
    }

    /// An instance `db`, of this machine if there is one; its uid.
    fn instance(&self, machine: Option<&str>) -> String {
        let owner = machine.map(|uid| {
            json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "db",
            "uid": uid, "controller": true})
        });
        let owners: Vec<Value> = owner.into_iter().collect();
        let meta = json!({"name": "db", "namespace": "shop", "ownerReferences": owners,
            "creationTimestamp": "2026-11-22T10:00:00Z"});
        self.put("virtualmachineinstances", json!({"metadata": meta}))
    }

    /// The machine is stopped: its instance goes.
    fn stop(&self) {
        self.delete("virtualmachineinstances", "shop", "db");
    }

    /// Pod `virt-launcher-db-<n>` of the instance on `node`, which uses pool `p`; its name and uid.
    fn launcher(&self, n: &str, instance: &str, node: &str) -> (String, String) {
        self.launcher_with(n, instance, node, &json!({}))
    }

    /// The Pod that the instance is moved to.
    fn target(&self, n: &str, instance: &str, node: &str) -> (String, String) {
        let job = json!({"kubevirt.io/migrationJobName": "move-1"});
        self.launcher_with(n, instance, node, &job)
    }

    fn launcher_with(&self, n: &str, instance: &str, node: &str, more: &Value) -> (String, String) {
        let owner = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "name": "db", "uid": instance, "controller": true});
        let mut annotations = uses(&["p"]);
        let all = annotations.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        let name = format!("virt-launcher-db-{n}");
        let meta = json!({"name": name, "namespace": "shop", "annotations": annotations,
            "labels": {"kubevirt.io": "virt-launcher"}, "ownerReferences": [owner],
            "creationTimestamp": "2026-11-22T12:00:00Z"});
        let spec = json!({"nodeName": node, "containers": []});
        let uid = self.put("pods", json!({"metadata": meta, "spec": spec}));
        (name, uid)
    }
}

async fn two_nodes(world: &World, dirs: [&TempDir; 2]) -> (Node, Node) {
    let [first, second] = dirs;
    let second = Node::start_with(world, second.path(), |settings| {
        settings.node = "n2".to_owned();
    });
    (Node::start(world, first.path()).await, second.await)
}

impl Node {
    async fn gives(&self, (name, uid): &(String, String), sandbox: &str) -> String {
        self.address(name, uid, sandbox).await
    }

    /// The Pod ends as kubelets end Pods: DEL while it is terminating, then the object goes.
    async fn ends(&self, (name, uid): &(String, String), sandbox: &str) {
        self.world.terminate(name);
        self.del(name, uid, sandbox).await;
        pass(3).await;
        self.world.delete("pods", "shop", name);
        pass(3).await;
    }
}

/// The record of a Pod that runs the machine.
fn held(pod: &(String, String), node: &str, sandbox: &str, machine: &str, run: &str) -> Value {
    json!({"pod": format!("shop/{}", pod.0), "podUid": pod.1, "nic": "eth0", "node": node,
        "sandbox": sandbox, "owner": machine,
        "machine": {"kind": "VirtualMachine", "name": "db"}, "instance": run})
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_stopped_and_started_has_its_address_again() {
    let ((world, machine), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = two_nodes(&world, [&dir, &dir2]).await;
    let run = world.instance(Some(&machine));
    let old = world.launcher("aaaaa", &run, "n1");
    let address = n1.gives(&old, "s1").await;
    let record = held(&old, "n1", "s1", &machine, &run);
    assert_eq!(world.records("p"), json!({FIRST: record}));
    world.stop();
    n1.ends(&old, "s1").await;
    let kept = json!({"pod": format!("shop/{}", old.0), "podUid": old.1, "nic": "eth0",
        "owner": machine, "machine": {"kind": "VirtualMachine", "name": "db"}, "instance": run,
        "kept": true});
    assert_eq!(world.records("p"), json!({FIRST: kept}));
    let other = world.pod("other", &uses(&["p"]));
    assert_ne!(n1.address("other", &other, "o").await, address);
    let run = world.instance(Some(&machine));
    let new = world.launcher("bbbbb", &run, "n2");
    assert_eq!(n2.gives(&new, "s2").await, address);
    assert_eq!(
        world.records("p")[FIRST],
        held(&new, "n2", "s2", &machine, &run)
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_asks_for_a_pool_of_its_own_is_told_what_keeps_its_addresses() {
    let (world, machine) = cluster();
    let dir = temp();
    let instance = world.instance(Some(&machine));
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let (name, uid) = world.launcher_with("aaaaa", &instance, "n1", &subnet);
    let node = Node::start(&world, dir.path()).await;
    let told = node.refusal(&name, &uid).await;
    for says in ["virtual machines", "'ipam.spidernet.io/ippool'"] {
        assert!(told.contains(says), "{says} is not in {told}");
    }
    assert!(!told.contains("thirdPartyControllers"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_started_elsewhere_waits_until_the_former_pod_has_let_go() {
    let ((world, machine), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = two_nodes(&world, [&dir, &dir2]).await;
    let run = world.instance(Some(&machine));
    let old = world.launcher("aaaaa", &run, "n1");
    let address = n1.gives(&old, "s1").await;
    // Deleted by force: the object is gone, the sandbox is not.
    world.stop();
    world.delete("pods", "shop", &old.0);
    let run = world.instance(Some(&machine));
    // Even one that says it is the target of a move: the move is of another run.
    let new = world.target("bbbbb", &run, "n2");
    let (given, ()) = tokio::join!(n2.gives(&new, "s2"), async {
        pass(4).await;
        assert_eq!(world.records("p")[FIRST]["podUid"], json!(old.1));
        assert_eq!(world.records("p")[FIRST]["next"], Value::Null);
        n1.del(&old.0, &old.1, "s1").await;
    });
    assert_eq!(given, address);
    assert_eq!(world.records("p").as_object().unwrap().len(), 1);
}

/// A machine that runs on n1 and is being moved to n2, both Pods with its address.
async fn moving(
    world: &World,
    machine: &str,
    (n1, n2): (&Node, &Node),
) -> (String, (String, String), (String, String)) {
    let run = world.instance(Some(machine));
    let source = world.launcher("aaaaa", &run, "n1");
    let address = n1.gives(&source, "s1").await;
    let target = world.target("bbbbb", &run, "n2");
    assert_eq!(n2.gives(&target, "t1").await, address);
    let mut record = held(&source, "n1", "s1", machine, &run);
    record["next"] = json!({"pod": format!("shop/{}", target.0), "podUid": target.1,
        "node": "n2", "sandbox": "t1"});
    assert_eq!(world.records("p"), json!({FIRST: record}));
    (run, source, target)
}

#[tokio::test(start_paused = true)]
async fn a_move_that_succeeds_leaves_the_address_to_the_target() {
    let ((world, machine), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = two_nodes(&world, [&dir, &dir2]).await;
    let (run, source, target) = moving(&world, &machine, (&n1, &n2)).await;
    n1.ends(&source, "s1").await;
    let record = held(&target, "n2", "t1", &machine, &run);
    assert_eq!(world.records("p"), json!({FIRST: record}));
    // The source's late DEL, once more, is nobody's.
    n1.del(&source.0, &source.1, "s1").await;
    pass(3).await;
    assert_eq!(world.records("p"), json!({FIRST: record}));
    // And the next move is as the first one.
    let back = world.target("ccccc", &run, "n1");
    n1.gives(&back, "t2").await;
    n2.ends(&target, "t1").await;
    world.stop();
    n1.ends(&back, "t2").await;
    assert_eq!(world.records("p")[FIRST]["kept"], json!(true));
}

#[tokio::test(start_paused = true)]
async fn a_move_that_fails_leaves_the_source_as_it_was() {
    let ((world, machine), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = two_nodes(&world, [&dir, &dir2]).await;
    let (run, source, target) = moving(&world, &machine, (&n1, &n2)).await;
    // A sandbox that is made anew in between is the one whose DEL counts, on an agent made anew too.
    n2.kill();
    let n2 = Node::start_with(&world, dir2.path(), |settings| {
        settings.node = "n2".to_owned();
    })
    .await;
    n2.gives(&target, "t2").await;
    n2.del(&target.0, &target.1, "t1").await;
    pass(3).await;
    assert_eq!(world.records("p")[FIRST]["next"]["sandbox"], json!("t2"));
    n2.ends(&target, "t2").await;
    let record = held(&source, "n1", "s1", &machine, &run);
    assert_eq!(world.records("p"), json!({FIRST: record}));
    // The source's own sandbox may be made anew while it is moved.
    let again = world.target("ccccc", &run, "n2");
    n2.gives(&again, "t3").await;
    n1.gives(&source, "s2").await;
    let record = &world.records("p")[FIRST];
    assert_eq!(record["sandbox"], json!("s2"));
    assert_eq!(record["next"]["podUid"], json!(again.1));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_deleted_gives_its_address_back_and_a_namesake_has_nothing_of_it() {
    let ((world, machine), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = two_nodes(&world, [&dir, &dir2]).await;
    let run = world.instance(Some(&machine));
    let old = world.launcher("aaaaa", &run, "n1");
    n1.gives(&old, "s1").await;
    world.delete("virtualmachines", "shop", "db");
    world.stop();
    // Made anew before the old Pod has let go.
    let machine = world.machine();
    let run = world.instance(Some(&machine));
    let new = world.launcher("bbbbb", &run, "n2");
    assert_eq!(n2.gives(&new, "s2").await, "172.18.41.41/24");
    n1.ends(&old, "s1").await;
    let record = held(&new, "n2", "s2", &machine, &run);
    assert_eq!(world.records("p"), json!({"172.18.41.41": record}));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_nothing_starts_again_keeps_its_address_while_it_is_there() {
    let ((world, _), dir, dir2) = (cluster(), temp(), temp());
    let (n1, n2) = two_nodes(&world, [&dir, &dir2]).await;
    let run = world.instance(None);
    let source = world.launcher("aaaaa", &run, "n1");
    let address = n1.gives(&source, "s1").await;
    let record = &world.records("p")[FIRST];
    assert_eq!(record["machine"]["kind"], json!("VirtualMachineInstance"));
    let target = world.target("bbbbb", &run, "n2");
    assert_eq!(n2.gives(&target, "t1").await, address);
    n1.ends(&source, "s1").await;
    assert_eq!(world.records("p")[FIRST]["podUid"], json!(target.1));
    world.stop();
    n2.ends(&target, "t1").await;
    assert_eq!(world.records("p"), json!({}));
}

#[tokio::test(start_paused = true)]
async fn switched_off_a_machine_is_as_any_workload() {
    let ((world, machine), dir) = (cluster(), temp());
    let node = Node::start_with(&world, dir.path(), |settings| {
        settings.keeps.machines = false;
    })
    .await;
    let run = world.instance(Some(&machine));
    let old = world.launcher("aaaaa", &run, "n1");
    node.gives(&old, "s1").await;
    assert_eq!(world.records("p")[FIRST]["owner"], Value::Null);
    node.ends(&old, "s1").await;
    assert_eq!(world.records("p"), json!({}));
    assert!(world.calls("kubevirt.io").is_empty());
}

/// As the original leaves it: a record and an endpoint that name the machine, not the Pod.
fn of_original(world: &World, uid: &str) {
    let records = json!({"172.18.41.47": {"pod": "shop/db", "podUid": uid}});
    world.edit("spiderippools", "", "p", |pool| {
        pool["status"] = json!({"allocatedIPs": records.to_string(), "allocatedIPCount": 1});
    });
    let nic = json!({"interface": "eth0", "ipv4": "172.18.41.47/24", "ipv4Pool": "p", "vlan": 0});
    let status = json!({"current": {"uid": uid, "node": "n1", "ips": [nic]},
        "ownerControllerType": "VirtualMachineInstance", "ownerControllerName": "db"});
    let meta = json!({"name": "db", "namespace": "shop", "creationTimestamp": "2026-11-22T11:00:00Z",
        "finalizers": ["spiderpool.spidernet.io"]});
    world.put(
        "spiderendpoints",
        json!({"metadata": meta, "status": status}),
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_the_original_served_keeps_its_address_when_it_is_started_again() {
    let ((world, machine), dir) = (cluster(), temp());
    let run = world.instance(Some(&machine));
    let old = world.launcher("aaaaa", &run, "n1");
    of_original(&world, &old.1);
    let node = Node::start(&world, dir.path()).await;
    world.stop();
    node.ends(&old, "s0").await;
    let kept = &world.records("p")["172.18.41.47"];
    assert_eq!(
        (&kept["kept"], &kept["owner"]),
        (&json!(true), &json!(machine))
    );
    let run = world.instance(Some(&machine));
    let new = world.launcher("bbbbb", &run, "n1");
    assert_eq!(node.gives(&new, "s1").await, "172.18.41.47/24");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_the_original_served_is_moved_live() {
    let ((world, machine), dir, dir2) = (cluster(), temp(), temp());
    let run = world.instance(Some(&machine));
    let source = world.launcher("aaaaa", &run, "n1");
    of_original(&world, &source.1);
    let (n1, n2) = two_nodes(&world, [&dir, &dir2]).await;
    let target = world.target("bbbbb", &run, "n2");
    // Nobody knows yet that the source is of this very run.
    let text = n2.refusal(&target.0, &target.1).await;
    assert!(text.contains("has not let go"), "{text}");
    world.edit("virtualmachineinstances", "shop", "db", |instance| {
        instance["status"] = json!({"activePods": {source.1.clone(): "n1"}});
    });
    assert_eq!(n2.gives(&target, "t1").await, "172.18.41.47/24");
    let shared = &world.records("p")["172.18.41.47"];
    assert_eq!(shared["podUid"], json!(source.1));
    assert_eq!(shared["next"]["podUid"], json!(target.1));
    n1.ends(&source, "s0").await;
    let record = held(&target, "n2", "t1", &machine, &run);
    assert_eq!(world.records("p"), json!({"172.18.41.47": record}));
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_of_a_machine_s_pod_is_found_by_the_pod_s_name() {
    let ((world, machine), dir) = (cluster(), temp());
    let node = Node::start(&world, dir.path()).await;
    let run = world.instance(Some(&machine));
    let (name, uid) = world.launcher("aaaaa", &run, "n1");
    node.address(&name, &uid, "s1").await;
    let query = format!("/v1/workloadendpoint?podNamespace=shop&podName={name}");
    let request = Request::get(query).body(Body::empty()).unwrap();
    let (status, told) = node.send(request).await;
    assert_eq!((status, &told["podUID"]), (StatusCode::OK, &json!(uid)));
    assert_eq!(told["interfaces"][0]["ipv4"], format!("{FIRST}/24"));
}

#[tokio::test(start_paused = true)]
async fn a_machine_s_address_stays_its_pod_s_where_another_host_has_it() {
    let ((world, machine), dir) = (cluster(), temp());
    let node = Node::start_with(&world, dir.path(), |settings| {
        settings.conflict_detection = true;
    });
    let node = node.await;
    let run = world.instance(Some(&machine));
    let (name, uid) = world.launcher("aaaaa", &run, "n1");
    node.address(&name, &uid, "s1").await;
    let said = super::conflict::conflict(&name, &uid, "s1", FIRST, "p");
    let (status, _) = node.call(Operation::DeleteIpamIps, &said).await;
    assert_eq!(status.as_u16(), 522);
    assert_eq!(world.records("p")[FIRST]["podUid"], uid);
}
