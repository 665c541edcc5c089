//! What a person is told of a Pod's pools is what the Pod's ADD then says and does.

use super::super::explain::{Explainer, Question, Unserved};
use ipam::name::Nic;

use super::*;

fn explainer(world: &World, dir: &Path) -> Explainer {
    let alive = Arc::new(AtomicBool::new(true));
    Explainer::new(settings(dir), world.client(&alive))
}

fn question(world: &World, pod: &str) -> Question {
    let mut object = world.get("pods", "shop", pod).unwrap();
    object["apiVersion"] = json!("v1");
    Question {
        pod: Arc::new(serde_json::from_value(object).unwrap()),
        workload: None,
        nic: Nic::from("eth0"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_pool_explained_first_is_the_one_that_gives() {
    let (world, dir) = (World::with_shop(), temp());
    world.pool("p", "172.18.41.40-172.18.41.43");
    world.pool("q", "172.18.41.50-172.18.41.53");
    world.edit("spiderippools", "", "p", |pool| {
        pool["spec"]["disable"] = json!(true);
    });
    let uid = world.pod("a", &uses(&["p", "q"]));
    let explained = explainer(&world, dir.path())
        .explain(question(&world, "a"))
        .await
        .unwrap();
    let family = &explained.families[0];
    assert_eq!(family.rule, "Pod annotation 'ipam.spidernet.io/ippool'");
    let said: Vec<(&str, Option<String>)> = family
        .candidates
        .iter()
        .map(|c| {
            (
                c.name.as_str(),
                c.verdict.as_ref().err().map(ToString::to_string),
            )
        })
        .collect();
    assert_eq!(
        said,
        [("q", None), ("p", Some("disabled IPPool p".to_owned()))]
    );
    assert_eq!(world.records("q"), json!({}), "explaining gives nothing");
    let node = Node::start(&world, dir.path()).await;
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.50/24");
}

#[tokio::test(start_paused = true)]
async fn a_pod_for_which_nobody_names_a_pool_is_told_apart_from_one_whose_pool_is_missing() {
    let (world, dir) = (World::with_shop(), temp());
    world.pod("silent", &json!({}));
    let uid = world.pod("asks", &uses(&["gone"]));
    let explainer = explainer(&world, dir.path());
    let silent = explainer.explain(question(&world, "silent")).await;
    assert!(matches!(silent.unwrap_err(), Unserved::NoRule(_)));
    let asks = explainer.explain(question(&world, "asks")).await;
    let told = asks.unwrap_err().to_string();
    let node = Node::start(&world, dir.path()).await;
    let refusal = node.refusal("asks", &uid).await;
    assert!(refusal.ends_with(&told), "{refusal}: {told}");
}
