//! DEL: an address is freed with both halves of the proof, and with one of them never.

use super::super::disk::Disk as _;
use super::*;

const ADDRESS: &str = "172.18.41.40";
const POOL_READS: &str = "GET /apis/spiderpool.spidernet.io/v2beta1/spiderippools";

/// A node with one Pod that has [`ADDRESS`] in sandbox `s1`; its uid.
async fn served(world: &World, dir: &Path) -> (Node, String) {
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(world, dir).await;
    node.address("a", &uid, "s1").await;
    pass(1).await;
    (node, uid)
}

fn is_recorded(world: &World) -> bool {
    !world.records("p")[ADDRESS].is_null()
}

fn journal(dir: &Path) -> usize {
    let folder = Folder::beside(&dir.join("agent.sock")).unwrap();
    folder.files(".json").unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_dead_pod_s_address_is_freed_after_the_hold_off_and_not_before() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    world.terminate("a");
    node.del("a", &uid, "s1").await;
    assert_eq!(journal(dir.path()), 1);
    pass(1).await;
    assert!(is_recorded(&world), "the link may still be there");
    pass(2).await;
    assert!(!is_recorded(&world));
    assert_eq!(journal(dir.path()), 0);
    node.del("a", &uid, "s1").await;
    pass(5).await;
}

#[tokio::test(start_paused = true)]
async fn a_living_pod_keeps_its_address_until_it_ends() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    node.del("a", &uid, "s1").await;
    pass(60).await;
    assert!(is_recorded(&world));
    assert_eq!(journal(dir.path()), 1);
    world.delete("pods", "shop", "a");
    pass(1).await;
    assert!(!is_recorded(&world), "the watch told of its end");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_lived_at_its_del_is_freed_when_it_begins_to_go() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    node.del("a", &uid, "s1").await;
    pass(10).await;
    world.terminate("a");
    pass(1).await;
    assert!(!is_recorded(&world));
}

#[tokio::test(start_paused = true)]
async fn a_del_of_an_older_sandbox_frees_nothing() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    node.address("a", &uid, "s2").await;
    world.terminate("a");
    node.del("a", &uid, "s1").await;
    pass(60).await;
    assert!(is_recorded(&world));
    node.del("a", &uid, "s2").await;
    pass(5).await;
    assert!(!is_recorded(&world));
}

#[tokio::test(start_paused = true)]
async fn a_late_del_of_an_older_sandbox_does_not_hide_that_of_the_last() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    node.address("a", &uid, "s2").await;
    node.del("a", &uid, "s2").await;
    node.del("a", &uid, "s1").await;
    world.terminate("a");
    pass(5).await;
    assert!(!is_recorded(&world));
}

#[tokio::test(start_paused = true)]
async fn many_refused_sandboxes_do_not_hide_the_one_that_was_served() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    for sandbox in 1..40 {
        node.del("a", &uid, &format!("s{sandbox}")).await;
    }
    let before = world.calls(POOL_READS).len();
    world.terminate("a");
    pass(5).await;
    assert!(!is_recorded(&world));
    assert!(world.calls(POOL_READS).len() - before <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_sandbox_takes_back_what_a_del_acknowledged() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    node.del("a", &uid, "s1").await;
    pass(5).await;
    node.address("a", &uid, "s1").await;
    assert_eq!(journal(dir.path()), 0);
    world.terminate("a");
    pass(60).await;
    assert!(
        is_recorded(&world),
        "the sandbox of the last ADD has not let go"
    );
}

#[tokio::test(start_paused = true)]
async fn a_del_that_was_answered_survives_a_restart() {
    for endpoint_is_there in [true, false] {
        let (world, dir) = (World::with_shop(), temp());
        let (node, uid) = served(&world, dir.path()).await;
        node.del("a", &uid, "s1").await;
        node.kill();
        world.delete("pods", "shop", "a");
        if !endpoint_is_there {
            world.delete("spiderendpoints", "shop", "a");
        }
        pass(60).await;
        assert!(is_recorded(&world), "nobody is there to free it");
        let _node = Node::start(&world, dir.path()).await;
        pass(1).await;
        assert!(is_recorded(&world), "the hold-off is not shortened");
        pass(3).await;
        assert!(!is_recorded(&world));
        assert_eq!(journal(dir.path()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_del_and_one_after_a_restart_look_into_no_other_pool() {
    let lists = |world: &World| {
        let lists = world.calls(&format!("{POOL_READS}?"));
        // The look for leaks is not a DEL's.
        let of_dels = lists
            .iter()
            .filter(|call| !call.contains("resourceVersion=0"));
        of_dels.count()
    };
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    // The first ADD of a Pod that is older than the agent may look for what an earlier one gave.
    let before = lists(&world);
    world.delete("pods", "shop", "a");
    for _ in 0..3 {
        node.del("a", &uid, "s1").await;
        pass(40).await;
    }
    assert!(!is_recorded(&world));
    let b = world.pod("b", &uses(&["p"]));
    node.address("b", &b, "s1").await;
    pass(1).await;
    node.kill();
    let node = Node::start(&world, dir.path()).await;
    world.terminate("b");
    node.del("b", &b, "s1").await;
    world.delete("spiderendpoints", "shop", "b");
    pass(5).await;
    assert_eq!(world.records("p"), json!({}));
    assert_eq!(lists(&world), before);
}

#[tokio::test(start_paused = true)]
async fn without_a_uid_or_a_record_a_del_succeeds_and_changes_nothing() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, _) = served(&world, dir.path()).await;
    node.del("nosuch", "", "s9").await;
    node.del("nosuch", "u9", "s9").await;
    pass(60).await;
    assert!(is_recorded(&world));
    assert_eq!((world.puts("p"), journal(dir.path())), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_never_given_anything_leaves_no_trace() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, _) = served(&world, dir.path()).await;
    let uid = world.pod("b", &uses(&["ghost"]));
    node.refusal("b", &uid).await;
    node.del("b", &uid, "s1").await;
    assert_eq!(journal(dir.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_gone_counts_as_released() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    world.delete("spiderippools", "", "p");
    world.terminate("a");
    node.del("a", &uid, "s1").await;
    pass(5).await;
    assert_eq!(journal(dir.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_went_to_another_pod_is_not_touched() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    world.edit("spiderippools", "", "p", |pool| {
        pool["status"]["allocatedIPs"] = json!(r#"{"172.18.41.40":{"pod":"shop/b","podUid":"b"}}"#);
    });
    world.terminate("a");
    node.del("a", &uid, "s1").await;
    pass(5).await;
    assert_eq!(world.records("p")[ADDRESS]["pod"], "shop/b");
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_is_lost_or_that_conflicts_happens_once() {
    for fault in [
        Fault::LoseAnswer,
        Fault::LoseRequest,
        Fault::WriteFirst(Box::new(|pool| {
            pool["metadata"]["labels"] = json!({"x": "y"});
        })),
    ] {
        let (world, dir) = (World::with_shop(), temp());
        let (node, uid) = served(&world, dir.path()).await;
        world.fail_next([fault]);
        world.terminate("a");
        node.del("a", &uid, "s1").await;
        pass(10).await;
        assert!(!is_recorded(&world));
        assert_eq!(journal(dir.path()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_is_counted_by_its_reason_and_told_of_until_it_succeeds() {
    let told = |node: &Node| {
        let names = ["pending", "failing"].map(|what| format!("orbweaver_agent_{what}_releases"));
        names.map(|name| node.series(&name))
    };
    for (lost, reason, other) in [
        ("pods", "internal", "retries_exhausted"),
        ("spiderippools", "retries_exhausted", "internal"),
    ] {
        let (world, dir) = (World::with_shop(), temp());
        let (node, uid) = served(&world, dir.path()).await;
        let count = |what: &str| node.series(&format!("spiderpool_ipam_release_{what}_total"));
        let oldest = || node.series("orbweaver_agent_oldest_failing_release_seconds");
        world.terminate("a");
        world.lose(lost);
        node.del("a", &uid, "s1").await;
        assert_eq!(count("failure_counts"), 0, "the DEL itself did not fail");
        pass(600).await;
        assert_eq!(told(&node), [1, 1], "{lost}");
        assert!(oldest() > 400, "{lost}: {}", oldest());
        let failed = count(&format!("err_{reason}_counts"));
        assert!(failed > 5, "{lost}: {failed}");
        assert_eq!(count("failure_counts"), failed);
        assert_eq!(count(&format!("err_{other}_counts")), 0);
        world.heal();
        pass(120).await;
        assert!(!is_recorded(&world));
        assert_eq!((told(&node), oldest()), ([0, 0], 0));
        assert_eq!(count("counts"), 1, "one DEL came");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_waits_for_its_pod_s_end_is_pending_and_does_not_fail() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    node.del("a", &uid, "s1").await;
    pass(3600).await;
    assert_eq!(node.series("orbweaver_agent_pending_releases"), 1);
    assert_eq!(node.series("orbweaver_agent_failing_releases"), 0);
    assert_eq!(
        node.series("spiderpool_ipam_release_failure_counts_total"),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn many_releases_share_a_write() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.10-172.18.41.99");
    let pods: Vec<(String, String)> = (0..30)
        .map(|i| format!("a{i}"))
        .map(|name| (name.clone(), world.pod(&name, &uses(&["p"]))))
        .collect();
    let node = Node::start(&world, dir.path()).await;
    join_all(pods.iter().map(|(name, uid)| node.address(name, uid, "s"))).await;
    let before = world.puts("p");
    for (name, _) in &pods {
        world.delete("pods", "shop", name);
    }
    join_all(pods.iter().map(|(name, uid)| node.del(name, uid, "s"))).await;
    pass(5).await;
    assert_eq!(world.records("p"), json!({}));
    assert!(
        world.puts("p") - before <= 3,
        "{} writes",
        world.puts("p") - before
    );
}

/// An agent that was started anew looks into every pool, and into that one in vain.
#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_be_read_keeps_no_address_of_another_pool() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("z", "172.18.41.10-172.18.41.19");
    let node = Node::writing(EndpointMode::Never, &world, dir.path()).await;
    let uid = world.pod("x", &uses(&["z"]));
    pass(1).await;
    node.address("x", &uid, "s1").await;
    node.kill();
    world.pool("a", "172.18.41.20-172.18.41.29");
    let garble = |pool: &mut Value| pool["status"]["allocatedIPs"] = json!("{");
    world.edit("spiderippools", "", "a", garble);
    let node = Node::writing(EndpointMode::Never, &world, dir.path()).await;
    world.delete("pods", "shop", "x");
    node.del("x", &uid, "s1").await;
    pass(60).await;
    assert_eq!(world.records("z"), json!({}));
    assert_eq!(journal(dir.path()), 1, "nobody knows what the other has");
    world.edit("spiderippools", "", "a", |pool| {
        pool["status"]["allocatedIPs"] = json!("{}");
    });
    pass(60).await;
    assert_eq!(journal(dir.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_arrives_after_its_pod_is_gone_is_freed() {
    let slow = Fault::Slow(Duration::from_secs(50));
    // Its sender gives up hope long before.
    let late = std::iter::once(Fault::Late(Duration::from_secs(55)))
        .chain(std::iter::repeat_with(|| Fault::LoseRequest).take(500));
    for faults in [vec![slow], late.collect()] {
        let (world, dir) = (World::with_shop(), temp());
        world.pool("p", "172.18.41.40-172.18.41.43");
        let uid = world.pod("a", &uses(&["p"]));
        let node = Node::start(&world, dir.path()).await;
        world.fail_next(faults);
        node.refusal("a", &uid).await;
        // A try that is under way now would be carried out, and the late one refused.
        pass(1).await;
        world.heal();
        world.delete("pods", "shop", "a");
        node.del("a", &uid, "s1").await;
        pass(3).await;
        assert_eq!(world.records("p"), json!({}));
        assert_eq!(journal(dir.path()), 1, "a write may be on its way");
        pass(40).await;
        assert_eq!(world.records("p"), json!({}));
        assert!(world.puts("p") >= 2, "it was recorded and released");
        pass(60).await;
        assert_eq!(journal(dir.path()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_without_a_sandbox_waits_for_the_end_of_its_pod() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    world.edit("spiderippools", "", "p", |pool| {
        let record = json!({ADDRESS: {"pod": "shop/a", "podUid": uid}});
        pool["status"]["allocatedIPs"] = json!(record.to_string());
    });
    world.terminate("a");
    node.del("a", &uid, "some-older-sandbox").await;
    pass(60).await;
    assert!(is_recorded(&world), "the last sandbox may still run");
    world.delete("pods", "shop", "a");
    pass(1).await;
    assert!(!is_recorded(&world));
    assert_eq!(journal(dir.path()), 0);
}

/// Each of forty calls waits for a free address, and its interface has a DEL that waits for the call.
#[tokio::test(start_paused = true)]
async fn releases_that_wait_for_calls_keep_no_other_from_what_the_calls_wait_for() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40");
    let had = world.pod("had", &uses(&["p"]));
    let (former, waiting) = (Node::start(&world, dir.path()).await, 0..40);
    former.address("had", &had, "s1").await;
    let pods = waiting.map(|n| format!("waits-{n}"));
    let pods: Vec<_> = pods
        .map(|pod| (world.pod(&pod, &uses(&["p"])), pod))
        .collect();
    former.kill();
    // One that does not know what the Pods were given before it takes their DELs seriously.
    let node = Node::start(&world, dir.path()).await;
    for (uid, pod) in &pods {
        node.del(pod, uid, "s0").await;
    }
    assert_eq!(journal(dir.path()), pods.len());
    let calls = pods.iter().map(|(uid, pod)| node.add(pod, uid, "s1"));
    let ends = async {
        pass(3).await; // the hold-off is over, and each DEL waits for its turn
        world.terminate("had");
        node.del("had", &had, "s1").await;
        pass(4).await;
        world.records("p")
    };
    let (answers, records) = tokio::join!(join_all(calls), ends);
    assert_ne!(records[ADDRESS]["podUid"], json!(had));
    let served = answers
        .iter()
        .filter(|(status, _)| *status == StatusCode::OK);
    assert_eq!(served.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_new_sandbox_did_not_take_over_is_freed_while_the_pod_lives() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    world.pool("q", "172.18.41.50-172.18.41.53");
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    world.fail_next([Fault::Slow(Duration::from_secs(50))]);
    node.refusal("a", &uid).await;
    node.del("a", &uid, "s1").await;
    world.edit("pods", "shop", "a", |pod| {
        pod["metadata"]["annotations"] = uses(&["q"]);
    });
    pass(1).await;
    assert_eq!(node.address("a", &uid, "s2").await, "172.18.41.50/24");
    pass(10).await;
    assert!(!is_recorded(&world));
    assert_eq!(world.puts("p"), 2, "it was recorded for s1, and released");
    assert_eq!(world.records("q")["172.18.41.50"]["sandbox"], "s2");
    assert_eq!(journal(dir.path()), 0);
    world.terminate("a");
    node.del("a", &uid, "s2").await;
    pass(5).await;
    assert_eq!(world.records("q"), json!({}));
}

/// A Pod whose DEL was answered while its sandbox's namespace is still there.
async fn let_go_in_its_namespace(end: fn(&World)) -> (World, TempDir, Node, PathBuf) {
    let (world, dir) = (World::with_shop(), temp());
    let (node, uid) = served(&world, dir.path()).await;
    let namespace = dir.path().join("netns");
    std::fs::write(&namespace, "").unwrap();
    end(&world);
    let mut args = args("a", &uid, "eth0", "s1");
    args["netNamespace"] = json!(namespace);
    let (status, _) = node.call(Operation::DeleteIpamIp, &args).await;
    assert_eq!(status, StatusCode::OK);
    pass(50).await;
    assert!(is_recorded(&world), "the link may still be there");
    (world, dir, node, namespace)
}

const ENDS: fn(&World) = |world| world.terminate("a");
const IS_GONE: fn(&World) = |world| world.delete("pods", "shop", "a");

#[tokio::test(start_paused = true)]
async fn the_hold_off_lasts_while_the_sandbox_s_namespace_is_there() {
    for end in [ENDS, IS_GONE] {
        let (world, _dir, _node, namespace) = let_go_in_its_namespace(end).await;
        std::fs::remove_file(&namespace).unwrap();
        pass(1).await;
        assert!(!is_recorded(&world));
    }
}

#[tokio::test(start_paused = true)]
async fn the_namespace_of_a_pod_that_is_gone_is_waited_for_a_minute() {
    let (world, _dir, _node, _namespace) = let_go_in_its_namespace(IS_GONE).await;
    pass(12).await;
    assert!(!is_recorded(&world));
}

#[tokio::test(start_paused = true)]
async fn that_of_a_pod_whose_kubelet_is_not_done_with_it_is_waited_for_as_long_as_it_takes() {
    let (world, _dir, _node, namespace) = let_go_in_its_namespace(ENDS).await;
    pass(3600).await;
    assert!(is_recorded(&world), "its interface may still answer");
    std::fs::remove_file(&namespace).unwrap();
    pass(6).await;
    assert!(!is_recorded(&world));
}

#[tokio::test(start_paused = true)]
async fn once_that_pod_is_gone_its_namespace_is_waited_for_no_longer() {
    let (world, _dir, _node, _namespace) = let_go_in_its_namespace(ENDS).await;
    pass(3600).await;
    IS_GONE(&world);
    pass(6).await;
    assert!(!is_recorded(&world));
}

#[tokio::test(start_paused = true)]
async fn a_del_without_a_uid_is_that_of_the_sandbox() {
    let (world, dir) = (World::with_shop(), temp());
    let (node, _) = served(&world, dir.path()).await;
    world.delete("pods", "shop", "a");
    world.pod("a", &uses(&["p"]));
    pass(1).await;
    node.del("a", "", "s1").await;
    pass(5).await;
    assert!(!is_recorded(&world));
}

/// An agent started beside a record of this node that nobody knows of, and half a dozen that
/// living Pods have, in a pool that the controller marked.
async fn leaky(world: &World, dir: &Path, record: Value) -> Node {
    world.pool("p", "172.18.41.40-172.18.41.43");
    world.edit("nodes", "", "n1", |node| {
        node["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    });
    let mut records = json!({ADDRESS: record});
    for n in 41..47 {
        let uid = world.pod(&format!("b{n}"), &json!({}));
        records[format!("172.18.41.{n}")] = json!({"pod": format!("shop/b{n}"), "podUid": uid,
            "nic": "eth0", "node": "n1", "sandbox": "s"});
    }
    world.edit("spiderippools", "", "p", |pool| {
        pool["status"]["allocatedIPs"] = json!(records.to_string());
    });
    world.mark("p");
    Node::start(world, dir).await
}

fn left_behind() -> Value {
    json!({"pod": "shop/a", "podUid": "uid-a", "nic": "eth0", "node": "n1", "sandbox": "s1"})
}

#[tokio::test(start_paused = true)]
async fn what_no_del_will_release_goes_after_two_looks() {
    let (world, dir) = (World::with_shop(), temp());
    let _node = leaky(&world, dir.path(), left_behind()).await;
    pass(20 * 60).await;
    assert!(is_recorded(&world), "one look is not enough");
    pass(10 * 60).await;
    assert!(!is_recorded(&world));
    assert_eq!(world.records("p").as_object().unwrap().len(), 6);
    assert_eq!(world.puts("p"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_frees_nothing_of_others_of_the_living_or_while_the_kubelet_is_silent() {
    let other = |key: &str, value: Value| {
        let mut record = left_behind();
        record[key] = value;
        record
    };
    let pod: fn(&World) = |world| {
        world.pod("a", &json!({}));
        world.edit("pods", "shop", "a", |pod| {
            pod["metadata"]["uid"] = json!("uid-a");
        });
    };
    let silent: fn(&World) = |world| {
        world.edit("nodes", "", "n1", |node| {
            node["status"]["conditions"][0]["status"] = json!("Unknown");
        });
    };
    let cases = [
        (left_behind(), pod),
        (left_behind(), silent),
        (other("node", json!("n2")), |_| {}),
        (other("node", Value::Null), |_| {}),
    ];
    for (record, change) in cases {
        let (world, dir) = (World::with_shop(), temp());
        let _node = leaky(&world, dir.path(), record).await;
        change(&world);
        pass(3 * 60 * 60).await;
        assert!(is_recorded(&world));
        assert_eq!(world.puts("p"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_this_agent_served_is_released_by_its_del_only() {
    let (world, dir) = (World::with_shop(), temp());
    let node = leaky(&world, dir.path(), left_behind()).await;
    let uid = world.pod("c", &uses(&["q"]));
    world.pool("q", "172.18.41.50");
    world.mark("q");
    pass(1).await;
    node.address("c", &uid, "s1").await;
    world.delete("pods", "shop", "c");
    pass(60 * 60).await;
    assert!(!is_recorded(&world));
    assert!(!world.records("q")["172.18.41.50"].is_null());
    node.del("c", &uid, "s1").await;
    pass(5).await;
    assert_eq!(world.records("q"), json!({}));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_an_earlier_pod_of_the_name_is_replaced() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    let old = json!({"metadata": {"name": "a", "namespace": "shop", "finalizers": ["spiderpool.spidernet.io"]},
        "status": {"current": {"uid": "old", "node": "n9", "ips": []}, "ownerControllerType": "Pod", "ownerControllerName": "a"}});
    world.put("spiderendpoints", old);
    let uid = world.pod("a", &uses(&["p"]));
    let node = Node::start(&world, dir.path()).await;
    node.address("a", &uid, "s1").await;
    pass(1).await;
    let endpoint = world.get("spiderendpoints", "shop", "a").unwrap();
    assert_eq!(endpoint["status"]["current"]["uid"], json!(uid));
    assert_eq!(endpoint["metadata"]["finalizers"], Value::Null);
    assert_eq!(
        endpoint["metadata"]["ownerReferences"][0]["uid"],
        json!(uid)
    );
}
