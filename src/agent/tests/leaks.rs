//! The look for records of the node that no DEL will ever release.

use super::*;
use crate::api::names::label;

/// A record of Pod `shop/<pod>` on node n1.
fn record(pod: &str, uid: &str) -> Value {
    json!({"pod": format!("shop/{pod}"), "podUid": uid, "nic": "eth0", "node": "n1", "sandbox": "s1"})
}

impl World {
    /// Marks the pool as the controller does.
    pub(super) fn mark(&self, pool: &str) {
        self.edit("spiderippools", "", pool, |pool| {
            pool["metadata"]["labels"] = json!({ label::LEAK: label::SUSPECTED });
        });
    }

    fn hold(&self, pool: &str, records: &Value) {
        self.edit("spiderippools", "", pool, |pool| {
            pool["status"] = json!({"allocatedIPs": records.to_string()});
        });
    }

    fn is_ready(&self, status: &str) {
        self.edit("nodes", "", "n1", |node| {
            node["status"] = json!({"conditions": [{"type": "Ready", "status": status}]});
        });
    }
}

/// Longer than three looks, the first of which is put off.
const LOOKS: u64 = 60 * 60;

#[tokio::test(start_paused = true)]
async fn what_leaked_is_freed_in_pools_that_the_controller_marked_and_no_other_is_read() {
    let (world, dir) = (World::with_shop(), temp());
    world.is_ready("True");
    let living = world.pod("a", &uses(&["p"]));
    let leaked = json!({
        "172.18.41.40": record("a", &living),
        "172.18.41.41": record("b", "gone-b"),
    });
    for (pool, ips) in [
        ("p", "172.18.41.40-172.18.41.49"),
        ("q", "172.18.41.50-172.18.41.59"),
    ] {
        world.pool(pool, ips);
        world.hold(pool, &leaked);
    }
    world.mark("p");
    let _node = Node::start(&world, dir.path()).await;
    pass(LOOKS).await;
    assert_eq!(
        world.records("p"),
        json!({"172.18.41.40": record("a", &living)})
    );
    assert_eq!(world.records("q"), leaked);
    let lists = world.calls("GET /apis/spiderpool.spidernet.io/v2beta1/spiderippools?");
    assert!(!lists.is_empty());
    for list in lists {
        assert!(list.contains("labelSelector"), "{list}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_while_the_kubelet_is_not_well_or_a_sandbox_is_known() {
    let (world, dir) = (World::with_shop(), temp());
    world.is_ready("Unknown");
    world.pool("p", "172.18.41.40-172.18.41.49");
    world.hold("p", &json!({"172.18.41.40": record("b", "gone-b")}));
    world.mark("p");
    let node = Node::start(&world, dir.path()).await;
    pass(LOOKS).await;
    assert_eq!(
        world.records("p"),
        json!({"172.18.41.40": record("b", "gone-b")})
    );
    // One that this agent served, and whose DEL is to come.
    let uid = world.pod("c", &uses(&["p"]));
    node.address("c", &uid, "s9").await;
    world.delete("pods", "shop", "c");
    world.is_ready("True");
    pass(LOOKS).await;
    let left = world.records("p");
    let left: Vec<&Value> = left.as_object().unwrap().values().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["podUid"], uid);
}

/// A container that ends slowly, or can't be killed, of a Pod that was deleted by force.
#[tokio::test(start_paused = true)]
async fn an_address_stays_while_the_namespace_stands_in_which_an_earlier_agent_gave_it() {
    let (world, dir) = (World::with_shop(), temp());
    world.is_ready("True");
    world.pool("p", "172.18.41.40-172.18.41.49");
    let uid = world.pod("a", &uses(&["p"]));
    let namespace = dir.path().join("cni-1");
    std::fs::write(&namespace, "").unwrap();
    let node = Node::start(&world, dir.path()).await;
    let mut args = args("a", &uid, "eth0", "s1");
    args["netNamespace"] = json!(namespace);
    let (status, _) = node.call(Operation::PostIpamIp, &args).await;
    assert_eq!(status, StatusCode::OK);
    pass(60).await;
    node.kill();
    world.delete("pods", "shop", "a");
    world.mark("p");
    let _node = Node::start(&world, dir.path()).await;
    pass(LOOKS).await;
    assert_eq!(world.records("p")["172.18.41.40"]["podUid"], uid);
    std::fs::remove_file(&namespace).unwrap();
    pass(LOOKS).await;
    assert_eq!(world.records("p"), json!({}));
}
