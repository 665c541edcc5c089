//! Addresses that the leader recorded before there was a sandbox: who finds them, who gives them back.

use super::adds::{make_web_pool, web};
use super::paths::beside_leader;
use super::*;

const POOL: &str = "auto4-web-eth0-1";

/// A Deployment with a pool of three addresses; the owner of its Pods.
fn shop() -> (World, TempDir, Value) {
    let world = World::with_shop();
    let owner = web(&world, &json!({}));
    make_web_pool(&world, &json!(["172.18.41.60-172.18.41.62"]));
    (world, temp(), owner)
}

fn new_pod(world: &World, owner: &Value) -> String {
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    world.pod_of("web-1-x", &subnet, owner)
}

fn bound(uid: &str) -> Value {
    json!({"172.18.41.61": {"pod": "shop/web-1-x", "podUid": uid, "nic": "eth0", "node": "n1"}})
}

/// The leader records the Pod, and writes no sandbox.
fn bind(world: &World, uid: &str) {
    world.edit("spiderippools", "", POOL, |pool| {
        pool["status"] = json!({"allocatedIPs": bound(uid).to_string(), "allocatedIPCount": 1});
    });
}

async fn start(world: &World, dir: &Path) -> Node {
    Node::start_with(world, dir, |settings| settings.early_binding = true).await
}

/// Longer than the last look for what is recorded for a Pod that never started.
const LOOKED: u64 = 90;

#[tokio::test(start_paused = true)]
async fn the_first_sandbox_finds_what_was_bound_and_nothing_is_written_until_the_second() {
    for leader_answers in [false, true] {
        let (world, dir, owner) = shop();
        let node = if leader_answers {
            beside_leader(&world, dir.path(), |s| s.early_binding = true).await
        } else {
            start(&world, dir.path()).await
        };
        let uid = new_pod(&world, &owner);
        bind(&world, &uid);
        for _ in 0..2 {
            let address = node.address("web-1-x", &uid, "s1").await;
            assert_eq!(address, "172.18.41.61/24");
            assert_eq!((world.puts(POOL), world.records(POOL)), (0, bound(&uid)));
        }
        let address = node.address("web-1-x", &uid, "s2").await;
        assert_eq!((address.as_str(), world.puts(POOL)), ("172.18.41.61/24", 1));
        let named = world.records(POOL)["172.18.41.61"]["sandbox"].clone();
        assert_eq!(named, "s2");
        // A DEL of the first, whose Pod's object is taken away while the second runs.
        node.del("web-1-x", &uid, "s1").await;
        world.delete("pods", "shop", "web-1-x");
        pass(LOOKED).await;
        assert_eq!(world.records(POOL)["172.18.41.61"]["podUid"], uid);
        node.del("web-1-x", &uid, "s2").await;
        pass(10).await;
        assert_eq!(world.records(POOL), json!({}));
    }
}

#[tokio::test(start_paused = true)]
async fn the_sandbox_is_recorded_where_an_earlier_one_may_have_been_or_it_is_off() {
    for (on, was_here) in [(true, true), (false, false)] {
        let (world, dir, owner) = shop();
        let mut uid = String::new();
        if was_here {
            uid = new_pod(&world, &owner);
        }
        let node = Node::start_with(&world, dir.path(), |s| s.early_binding = on).await;
        if !was_here {
            uid = new_pod(&world, &owner);
        }
        bind(&world, &uid);
        let address = node.address("web-1-x", &uid, "s1").await;
        assert_eq!((address.as_str(), world.puts(POOL)), ("172.18.41.61/24", 1));
        assert_eq!(world.records(POOL)["172.18.41.61"]["sandbox"], "s1");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_bound_stays_until_its_pod_is_gone_and_its_sandbox_let_go() {
    let (world, dir, owner) = shop();
    let node = start(&world, dir.path()).await;
    let uid = new_pod(&world, &owner);
    bind(&world, &uid);
    node.address("web-1-x", &uid, "s1").await;
    world.terminate("web-1-x");
    node.del("web-1-x", &uid, "s1").await;
    pass(LOOKED).await;
    assert_eq!(
        world.records(POOL),
        bound(&uid),
        "the Pod's object is there"
    );
    world.delete("pods", "shop", "web-1-x");
    pass(5).await;
    assert_eq!(world.records(POOL), json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_a_running_sandbox_has_stays_though_its_pod_s_object_is_gone() {
    let (world, dir, owner) = shop();
    let node = start(&world, dir.path()).await;
    let uid = new_pod(&world, &owner);
    bind(&world, &uid);
    node.address("web-1-x", &uid, "s1").await;
    world.delete("pods", "shop", "web-1-x");
    pass(LOOKED).await;
    assert_eq!(world.records(POOL), bound(&uid));
    node.del("web-1-x", &uid, "s1").await;
    pass(10).await;
    assert_eq!(world.records(POOL), json!({}));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_before_it_starts_gives_back_what_was_bound_before_or_after_its_end() {
    for (finishes, binds_late, is_called) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (false, true, true),
    ] {
        let (world, dir, owner) = shop();
        let node = start(&world, dir.path()).await;
        let uid = new_pod(&world, &owner);
        if is_called {
            // A call that is refused: its Pod is served by nobody yet.
            world.edit("spiderippools", "", POOL, |pool| {
                pool["spec"]["disable"] = json!(true);
            });
            node.refusal("web-1-x", &uid).await;
            node.del("web-1-x", &uid, "s1").await;
        }
        if !binds_late {
            bind(&world, &uid);
        }
        pass(1).await;
        if finishes {
            world.edit("pods", "shop", "web-1-x", |pod| {
                pod["status"] = json!({"phase": "Failed"});
            });
        } else {
            world.delete("pods", "shop", "web-1-x");
        }
        pass(5).await;
        if binds_late {
            bind(&world, &uid);
        }
        pass(LOOKED).await;
        assert_eq!(
            world.records(POOL),
            json!({}),
            "{finishes} {binds_late} {is_called}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_interfaces_the_one_that_started_keeps_its_address_until_its_sandbox_lets_go() {
    let (world, dir, owner) = shop();
    let node = start(&world, dir.path()).await;
    let items =
        json!([{"interface": "eth0", "ipv4": ["net4"]}, {"interface": "net1", "ipv4": ["net4"]}]);
    let both = json!({"ipam.spidernet.io/subnets": items.to_string()});
    let uid = world.pod_of("web-1-x", &both, &owner);
    let mut records = bound(&uid);
    records["172.18.41.62"] = records["172.18.41.61"].clone();
    records["172.18.41.62"]["nic"] = json!("net1");
    world.edit("spiderippools", "", POOL, |pool| {
        pool["status"] = json!({"allocatedIPs": records.to_string(), "allocatedIPCount": 2});
    });
    node.address("web-1-x", &uid, "s1").await;
    world.delete("pods", "shop", "web-1-x");
    pass(LOOKED).await;
    assert_eq!(world.records(POOL), bound(&uid), "net1 never started");
    node.del("web-1-x", &uid, "s1").await;
    pass(10).await;
    assert_eq!(world.records(POOL), json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_a_restarted_agent_can_t_know_is_left_to_the_looks() {
    let (world, dir, owner) = shop();
    world.edit("nodes", "", "n1", |node| {
        node["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    });
    start(&world, dir.path()).await.kill();
    let uid = new_pod(&world, &owner);
    bind(&world, &uid);
    let _node = start(&world, dir.path()).await;
    pass(1).await;
    world.delete("pods", "shop", "web-1-x");
    pass(LOOKED).await;
    assert_eq!(world.records(POOL), bound(&uid), "it may have started");
    world.mark(POOL);
    pass(60 * 60).await;
    assert_eq!(world.records(POOL), json!({}));
}
