//! Scenarios: what people do to a cluster while things go wrong.
//!
//! To write one: an `async fn(User)` below, and its line in [`ALL`]. Every run of it is judged at
//! every revision, must come to rest once its faults are over, and must leave nothing behind.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::cluster::Size;
use crate::fault::Kind;
use crate::user::{User, Wish, replicas};

/// A scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) script: fn(User) -> BoxFuture<'static, ()>,
    /// Whether every write of it is a place to crash at.
    pub(crate) exhaustive: bool,
}

impl Scenario {
    /// Whether the original's agents are at work in it.
    pub(crate) fn has_original(&self) -> bool {
        matches!(self.name, "adopted" | "changed_over")
    }
}

macro_rules! scenarios {
    ($($script:ident $exhaustive:literal,)*) => {
        &[$(Scenario {
            name: stringify!($script),
            script: |user| $script(user).boxed(),
            exhaustive: $exhaustive,
        },)*]
    };
}

/// All of them.
pub(crate) const ALL: &[Scenario] = scenarios! {
    create true,
    grow true,
    shrink true,
    roll_out true,
    reclaim true,
    no_reclaim true,
    reschedule true,
    take_over true,
    adopted true,
    crowd false,
    two_workloads false,
    narrow false,
    two_hands false,
    persons_shrink false,
    same_name false,
    moved false,
    node_lost false,
    flapping false,
    abandoned_pass false,
    late_creation false,
    repeated_add false,
    link_stays false,
    late_rollback false,
    changed_over false,
    unstarted false,
    listed_anew false,
    garbled false,
};

/// Errors: none has this name.
pub(crate) fn named(name: &str) -> Result<&'static Scenario, String> {
    let found = ALL.iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| format!("there is no scenario '{name}'"))
}

/// The usual cluster; now and then a large one, by the seed.
pub(crate) fn size(scenario: &Scenario, seed: u64) -> Size {
    // Drawn, and not by remainders of the seed, which go with its scenario's.
    let draw = |of: &str| crate::seed_of(seed, of);
    let nodes = match draw("nodes") % 50 {
        _ if scenario.exhaustive && seed == 0 => 3,
        49 => 50,
        17 | 31 => 12,
        other => 3 + usize::try_from(other % 3).unwrap_or(0),
    };
    let controllers = if draw("controllers").is_multiple_of(3) {
        1
    } else {
        2
    };
    // The original's agents don't find what is bound early: it is not for them.
    let early = seed != 0 && !scenario.has_original() && draw("early").is_multiple_of(4);
    Size {
        controllers,
        nodes,
        allocator: early || draw("allocator") % 2 == 1,
        early,
    }
}

/// A Deployment gets a pool of its own.
async fn create(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.deployment("web", replicas(4)).await;
    user.settled(40).await;
}

async fn grow(user: User) {
    create(user.clone()).await;
    user.mark_pools().await;
    user.scale("web", 9).await;
    user.settled(40).await;
}

async fn shrink(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.deployment("web", replicas(8)).await;
    user.settled(40).await;
    user.scale("web", 3).await;
    user.settled(60).await;
}

async fn roll_out(user: User) {
    create(user.clone()).await;
    user.roll_out("web", 1).await;
    user.settled(60).await;
}

/// A pool goes with its workload.
async fn reclaim(user: User) {
    create(user.clone()).await;
    user.delete("web").await;
    user.settled(60).await;
}

/// A pool stays, and serves the next workload of its name.
async fn no_reclaim(user: User) {
    let wish = Wish {
        reclaim: false,
        ..replicas(4)
    };
    user.subnet("net", 1, 10, 40).await;
    user.deployment("web", wish).await;
    user.settled(40).await;
    user.delete("web").await;
    user.settled(40).await;
    user.deployment("web", wish).await;
    user.settled(40).await;
}

/// Pods of a StatefulSet come back elsewhere, with their addresses.
async fn reschedule(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.stateful_set("db", replicas(3)).await;
    user.settled(40).await;
    user.cordon("n1", true).await;
    for nth in 0..3 {
        user.delete_pod(nth, false).await;
        user.wait(1_500).await;
    }
    user.cordon("n1", false).await;
    user.settled(60).await;
}

/// A Deployment is deleted and made again before its Pods are gone.
async fn take_over(user: User) {
    create(user.clone()).await;
    user.delete("web").await;
    user.deployment("web", replicas(5)).await;
    user.settled(60).await;
}

/// The original's agents gave addresses; ours take over what they left.
async fn adopted(user: User) {
    for node in user.cluster().node_names() {
        user.cluster().change_over(&node, true);
    }
    create(user.clone()).await;
    for node in user.cluster().node_names() {
        user.cluster().change_over(&node, false);
    }
    user.roll_out("web", 1).await;
    user.settled(60).await;
}

/// Many Pods of one pool start at once on all nodes.
async fn crowd(user: User) {
    user.subnet("net", 1, 10, 200).await;
    user.deployment("web", replicas(24)).await;
    user.wait(4_000).await;
    user.scale("web", 40).await;
    user.settled(60).await;
}

/// Two workloads share a subnet and take turns.
async fn two_workloads(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.reserve("not-these", "10.0.1.12").await;
    user.deployment("web", replicas(3)).await;
    user.deployment("shop", replicas(5)).await;
    user.settled(30).await;
    user.scale("web", 9).await;
    user.scale("shop", 2).await;
    user.wait(7_000).await;
    user.scale("shop", 8).await;
    user.settled(60).await;
}

/// A subnet is full, and then widened.
async fn narrow(user: User) {
    user.subnet("net", 1, 10, 15).await;
    user.deployment("web", replicas(3)).await;
    user.settled(30).await;
    user.scale("web", 9).await;
    user.wait(15_000).await;
    user.resize_subnet("net", &["10.0.1.10-10.0.1.30"]).await;
    user.settled(60).await;
}

/// Two people make pools with the same addresses: one of them is served.
async fn two_hands(user: User) {
    user.subnet("net", 1, 10, 60).await;
    tokio::join!(user.pool("one", 1, 30, 39), user.pool("two", 1, 35, 44));
    user.deployment_in("left", 3, &["one", "two"]).await;
    user.deployment_in("right", 3, &["two", "one"]).await;
    user.deployment("web", replicas(4)).await;
    user.settled(40).await;
}

/// A person takes addresses in use out of a pool made by hand, and gives them to another.
async fn persons_shrink(user: User) {
    user.subnet("net", 1, 10, 60).await;
    user.pool("one", 1, 30, 37).await;
    user.pool("two", 1, 50, 52).await;
    user.deployment_in("left", 6, &["one"]).await;
    user.settled(40).await;
    tokio::join!(
        user.resize_pool("one", &["10.0.1.34-10.0.1.39"]),
        user.resize_pool("two", &["10.0.1.30-10.0.1.33", "10.0.1.50-10.0.1.52"]),
    );
    user.deployment_in("right", 4, &["two"]).await;
    user.roll_out("left", 1).await;
    user.settled(60).await;
}

/// Pods go by force while they run, and others of their names come at once.
async fn same_name(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.stateful_set("db", replicas(4)).await;
    user.deployment("web", replicas(3)).await;
    user.settled(40).await;
    for nth in 0..4 {
        user.delete_pod(nth, true).await;
        user.wait(700).await;
    }
    user.settled(40).await;
    user.scale_set("db", 2).await;
    user.wait(5_000).await;
    user.scale_set("db", 5).await;
    user.settled(60).await;
}

/// A workload asks for another subnet.
async fn moved(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.subnet("other", 2, 10, 40).await;
    user.deployment("web", replicas(4)).await;
    user.settled(40).await;
    user.annotate_away("web", Some("other")).await;
    user.wait(6_000).await;
    user.annotate_away("web", Some("net")).await;
    user.settled(80).await;
}

/// A node is off for good, a person says so, and it comes back long after.
async fn node_lost(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.stateful_set("db", replicas(3)).await;
    user.deployment("web", replicas(4)).await;
    user.settled(40).await;
    user.cluster().power_off("n1");
    user.wait(60_000).await;
    user.out_of_service("n1", true).await;
    user.wait(60_000).await;
    for process in ["kubelet-n1", "agent-n1"] {
        user.cluster().begin(process);
    }
    user.out_of_service("n1", false).await;
    user.settled(60).await;
}

/// An autoscaler that can't make up its mind, and a roll-out in the midst of it.
async fn flapping(user: User) {
    user.subnet("net", 1, 10, 60).await;
    user.deployment("web", replicas(2)).await;
    for round in 0..5 {
        user.scale("web", if round % 2 == 0 { 12 } else { 1 }).await;
        user.wait(2_500).await;
        if round == 2 {
            user.roll_out("web", 1).await;
        }
    }
    user.scale("web", 4).await;
    user.settled(60).await;
}

/// A pass is given up with a write on its way, which arrives when others have taken addresses back.
async fn abandoned_pass(user: User) {
    create(user.clone()).await;
    user.meet("controller", Kind::Late, 6_000).await;
    user.scale("web", 9).await;
    user.wait(1_500).await;
    user.scale("web", 2).await;
    user.deployment("shop", replicas(12)).await;
    user.settled(60).await;
}

/// What a pool begins with arrives when its workload is gone, and another has its name.
async fn late_creation(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.wait(2_000).await;
    for _ in 0..3 {
        user.meet("controller", Kind::Late, 8_000).await;
    }
    user.deployment("web", replicas(4)).await;
    user.wait(1_500).await;
    user.delete("web").await;
    user.deployment("web", replicas(5)).await;
    user.settled(60).await;
}

/// ADDs are done, not heard of, and called again while their Pods go.
async fn repeated_add(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.meet("n", Kind::AddReplyLost, 0).await;
    user.deployment("web", replicas(6)).await;
    user.wait(800).await;
    user.meet("n", Kind::AddGivenUp, 0).await;
    for nth in 0..6 {
        user.delete_pod(nth, nth % 2 == 0).await;
        user.wait(300).await;
    }
    user.settled(60).await;
}

/// Plugins call IPAM before a link is gone, and others want its address.
async fn link_stays(user: User) {
    user.subnet("net", 1, 10, 15).await;
    user.deployment("web", replicas(4)).await;
    user.settled(40).await;
    user.meet("n", Kind::LinkStays, 15_000).await;
    user.roll_out("web", 1).await;
    user.settled(80).await;
}

/// A runtime gives an ADD up and calls again, while what the first did is still under way.
async fn late_rollback(user: User) {
    user.subnet("net", 1, 10, 40).await;
    user.meet("agent", Kind::Slow, 8_000).await;
    for _ in 0..2 {
        user.meet("n", Kind::AddGivenUp, 0).await;
    }
    user.deployment("web", replicas(5)).await;
    user.wait(4_000).await;
    user.meet("agent", Kind::Late, 5_000).await;
    user.roll_out("web", 1).await;
    user.settled(60).await;
}

/// The original's agents are replaced by ours, node by node, while Pods come and go.
async fn changed_over(user: User) {
    let nodes = user.cluster().node_names();
    for node in &nodes {
        user.cluster().change_over(node, true);
    }
    user.subnet("net", 1, 10, 60).await;
    user.pool("one", 1, 50, 57).await;
    user.deployment("web", replicas(6)).await;
    user.deployment_in("left", 3, &["one"]).await;
    user.settled(60).await;
    for (nth, node) in nodes.iter().enumerate() {
        user.delete_pod(nth, nth % 2 == 0).await;
        user.cluster().change_over(node, false);
        let round = u32::try_from(nth).unwrap_or_default();
        user.roll_out(if nth % 2 == 0 { "web" } else { "left" }, round)
            .await;
        user.wait(4_000).await;
        user.scale("web", if nth % 2 == 0 { 3 } else { 8 }).await;
        user.wait(2_000).await;
    }
    user.settled(60).await;
}

/// Pods are given a node and go before they start, one way or another.
async fn unstarted(user: User) {
    create(user.clone()).await;
    for round in 0..6 {
        user.scale("web", 10).await;
        user.wait(40 + 70 * round).await;
        if round % 2 == 0 {
            user.scale("web", 4).await;
        }
        for nth in 0..10 {
            user.delete_pod(nth, true).await;
        }
        user.wait(500 * round).await;
    }
    user.delete("web").await;
    user.deployment("web", replicas(6)).await;
    user.settled(60).await;
}

/// History is forgotten while answers are slow: everything is listed anew, page after page.
async fn listed_anew(user: User) {
    user.subnet("net", 1, 10, 60).await;
    user.deployment("web", replicas(6)).await;
    user.deployment("shop", replicas(3)).await;
    user.wait(65_000).await;
    for round in 0..3 {
        user.meet("controller", Kind::Slow, 12_000).await;
        user.meet("controller-0", Kind::Compact, 0).await;
        user.wait(500).await;
        user.scale("web", 8 - 2 * round).await;
        user.delete_pod(0, false).await;
        user.wait(12_000).await;
    }
    user.settled(60).await;
}

/// A person garbles the records of a pool, and puts them right a while later; in others they note
/// something.
async fn garbled(user: User) {
    user.subnet("net", 1, 10, 60).await;
    user.pool("one", 1, 50, 57).await;
    user.deployment("web", replicas(4)).await;
    user.deployment_in("left", 3, &["one"]).await;
    user.settled(40).await;
    user.mark_records().await;
    let before = user.rewrite_records("one", |text| format!("{text},")).await;
    user.roll_out("web", 1).await;
    user.delete_pod(0, false).await;
    user.scale("left", 5).await;
    user.wait(15_000).await;
    user.rewrite_records("one", |_| before.clone()).await;
    user.roll_out("left", 1).await;
    user.settled(60).await;
}
