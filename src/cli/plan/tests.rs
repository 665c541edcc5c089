//! Plans of the examples, and of clusters that are in the middle of something.

use std::path::Path;

use insta::assert_snapshot;
use ipam::addr::AddrSet;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use crate::api::convert;
use crate::cli::render::{Format, Report as _, formatted};

/// The objects of these files of `examples/`, and of `more`.
fn examples(files: &[&str], more: &str) -> Objects {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut read: Vec<(String, String)> = files
        .iter()
        .flat_map(|file| objects::texts(&folder.join(file)).unwrap())
        .collect();
    read.push(("more".to_owned(), more.to_owned()));
    let defaults = Defaults {
        namespace: "default",
        rule: crate::cli::controller::options(&Config::default(), None).default_rule,
        kinds: &Config::default().kinds(),
    };
    Objects::of_manifests(&read, defaults)
        .unwrap()
        .with_namespaces()
}

fn changes(scale: &[&str], drain: &[&str], shrink: &[&str]) -> Changes {
    Changes {
        scale: scale.iter().map(|text| text.parse().unwrap()).collect(),
        drain: drain.iter().map(|text| (*text).to_owned()).collect(),
        shrink: shrink.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

async fn planned(objects: Objects, changes: &Changes) -> PlanView {
    foreseen(objects, changes, &Config::default(), "default")
        .await
        .unwrap()
}

async fn text(objects: Objects, changes: &Changes) -> String {
    planned(objects, changes).await.text(Some(100))
}

#[tokio::test]
async fn a_rollout_is_planned_as_a_deployment_is_and_its_replica_sets_have_no_pools() {
    let subnet = r#"'{"ipv4": ["net4"]}'"#;
    let template = format!(
        "{{metadata: {{labels: {{app: front}}, annotations: {{ipam.spidernet.io/subnet: {subnet}}}}}, spec: {{containers: []}}}}"
    );
    let spec =
        format!("{{replicas: 2, selector: {{matchLabels: {{app: front}}}}, template: {template}}}");
    let objects = format!(
        "{{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {{name: front, uid: r}}, spec: {spec}}}\n---\n\
         {{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: front-1, ownerReferences: [\
         {{apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: front, uid: r, controller: true}}]}}, spec: {spec}}}"
    );
    let told = text(examples(&["subnets.yaml"], &objects), &Changes::default()).await;
    assert_snapshot!(told, @r"
    ACTION   POOL                 SIZE   ADDRESSES                    WHY
    create   auto4-front-eth0-r   0→3    +172.18.41.40-172.18.41.42   Rollout default/front wants a pool

    WORKLOAD                PODS   START   MORE   POOLS
    Rollout default/front   2      2       198    auto4-front-eth0-r

    SUBNET   CIDR                  TOTAL   TAKEN   FREE
    net4     172.18.41.0/24        200     0→3     197
    net6     fd00:172:18:41::/64   506     0       506

    fits: 1 workload, 2 Pods, all start
    ");
}

#[tokio::test]
async fn the_first_example_fits() {
    let objects = examples(&["subnets.yaml", "auto-pool.yaml"], "");
    assert_snapshot!(text(objects, &Changes::default()).await, @r#"
        ACTION   POOL                   SIZE   ADDRESSES                    WHY
        create   auto4-web-eth0-xxxxx   0→3    +172.18.41.40-172.18.41.42   Deployment default/web wants a
                                                                            pool

        WORKLOAD                 PODS   START   MORE   POOLS
        Deployment default/web   2      2       198    auto4-web-eth0-xxxxx

        SUBNET   CIDR                  TOTAL   TAKEN   FREE
        net4     172.18.41.0/24        200     0→3     197
        net6     fd00:172:18:41::/64   506     0       506

        fits: 1 workload, 2 Pods, all start
        "#);
}

#[tokio::test]
async fn a_workload_that_names_a_pool_made_for_another_is_told_why_it_would_not_start() {
    let files = [
        "subnets.yaml",
        "auto-pool.yaml",
        "static-pool.yaml",
        "static-pool-refused.yaml",
    ];
    assert_snapshot!(text(examples(&files, ""), &Changes::default()).await, @r#"
        ACTION   POOL                   SIZE   ADDRESSES                    WHY
        create   auto4-web-eth0-xxxxx   0→3    +172.18.41.44-172.18.41.46   Deployment default/web wants a
                                                                            pool
        admit    static-ipv4-ippool     4      -                            admitted as it stands

        WORKLOAD                                        PODS   START   MORE   POOLS
        Deployment default/static-ippool-deploy         2      2       2      static-ipv4-ippool
        Deployment default/web                          2      2       194    auto4-web-eth0-xxxxx
        Deployment default/wrong-static-ippool-deploy   2      0       0      -

        SUBNET   CIDR                  TOTAL   TAKEN   FREE
        net4     172.18.41.0/24        200     4→7     193
        net6     fd00:172:18:41::/64   506     0       506

        ! Deployment default/wrong-static-ippool-deploy: 2 of 2 Pods would not start: no IPPool available,
          all IPv4 IPPools [static-ipv4-ippool] of eth0 filtered out: unmatched Pod affinity of IPPool
          static-ipv4-ippool

        does not fit: 2 of 6 Pods would not start (1 of 3 workloads)
        "#);
}

#[tokio::test]
async fn a_workload_scaled_beyond_its_subnet_does_not_fit_and_says_what_lacks() {
    let objects = examples(&["subnets.yaml", "auto-pool.yaml"], "");
    let view = planned(objects.clone(), &changes(&["deploy/web=199"], &[], &[])).await;
    assert!(view.fits, "{}", view.text(None));
    let view = planned(objects.clone(), &changes(&["deploy/web=200"], &[], &[])).await;
    assert!(
        !view.fits,
        "200 Pods start, and the one address more is missing"
    );
    assert_snapshot!(text(objects, &changes(&["default/deploy/web=250"], &[], &[])).await, @r#"
        ACTION   POOL                   SIZE    ADDRESSES                     WHY
        create   auto4-web-eth0-xxxxx   0→200   +172.18.41.40-172.18.41.239   Deployment default/web wants a
                                                                              pool

        WORKLOAD                 PODS   START   MORE   POOLS
        Deployment default/web   250    200     0      auto4-web-eth0-xxxxx

        SUBNET   CIDR                  TOTAL   TAKEN   FREE
        net4     172.18.41.0/24        200     0→200   0
        net6     fd00:172:18:41::/64   506     0       506

        ! Deployment default/web: 50 of 250 Pods would not start: Deployment default/web wants 251
          addresses, IPPool auto4-web-eth0-xxxxx has 200: SpiderSubnet net4 has no more to give, 51 missing;
          add 51 addresses to spec.ips of SpiderSubnet net4

        does not fit: 50 of 250 Pods would not start (1 of 1 workload)
        "#);
}

#[tokio::test]
async fn a_pool_of_a_fixed_size_does_not_grow_with_its_workload() {
    let objects = examples(&["subnets.yaml", "statefulset.yaml"], "");
    assert_snapshot!(text(objects, &changes(&["sts/db=6"], &[], &[])).await, @r#"
        ACTION   POOL                  SIZE   ADDRESSES                    WHY
        create   auto4-db-eth0-xxxxx   0→4    +172.18.41.40-172.18.41.43   StatefulSet default/db wants a
                                                                           pool

        WORKLOAD                 PODS   START   MORE   POOLS
        StatefulSet default/db   6      4       0      auto4-db-eth0-xxxxx

        SUBNET   CIDR                  TOTAL   TAKEN   FREE
        net4     172.18.41.0/24        200     0→4     196
        net6     fd00:172:18:41::/64   506     0       506

        ! StatefulSet default/db: 2 of 6 Pods would not start: failed to allocate any IPv4 IP address to NIC
          eth0 from IPPools [auto4-db-eth0-xxxxx]: all IP addresses used out; annotation
          ipam.spidernet.io/ippool-ip-number fixes the pool's size at 4

        does not fit: 2 of 6 Pods would not start (1 of 1 workload)
        "#);
}

#[tokio::test]
async fn a_subnet_that_does_not_exist_is_named() {
    let objects = examples(&["auto-pool.yaml"], "");
    assert_snapshot!(text(objects, &Changes::default()).await, @r#"
        no pool would change

        WORKLOAD                 PODS   START   MORE   POOLS
        Deployment default/web   2      0       0      -

        ! Deployment default/web: 2 of 2 Pods would not start: SpiderSubnet net4 does not exist: create it,
          or name another one in the annotation

        does not fit: 2 of 2 Pods would not start (1 of 1 workload)
        "#);
}

#[tokio::test]
async fn the_readme_shows_what_is_printed() {
    let objects = examples(&["subnets.yaml", "auto-pool.yaml"], "");
    let printed = text(objects, &changes(&["deploy/web=250"], &[], &[])).await;
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    assert!(
        readme.contains(&printed),
        "put this into README.md:\n{printed}"
    );
}

#[tokio::test]
async fn a_program_gets_the_same_as_data() {
    let objects = examples(&["subnets.yaml", "dual-stack.yaml"], "");
    let view = planned(objects, &Changes::default()).await;
    for format in [Format::Json, Format::Yaml] {
        let text = formatted(&view, format, None).unwrap();
        let data: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(data["fits"], json!(true));
        assert_eq!(data["changes"][0]["after"]["addresses"], json!(4));
        assert_eq!(data["workloads"][0]["pools"].as_array().unwrap().len(), 2);
        assert_eq!(data["subnets"].as_array().unwrap().len(), 2);
    }
}

/// The first example as it runs: two Pods on two nodes, their pool and its records.
fn running() -> Objects {
    let nodes = "
{kind: Node, apiVersion: v1, metadata: {name: n1}}
---
{kind: Node, apiVersion: v1, metadata: {name: n2}}
";
    let mut objects = examples(&["subnets.yaml", "auto-pool.yaml"], nodes);
    let options = crate::cli::controller::options(&Config::default(), None);
    let mut stage =
        crate::controller::rehearsal::Rehearsal::new(options.features, &options.kinds, time::now());
    for subnet in &objects.subnets {
        stage.subnet(subnet.clone());
    }
    for load in &objects.workloads {
        stage.workload(load.seen.clone());
    }
    stage.settle().unwrap();
    objects.subnets = stage.subnets().cloned().collect();
    objects.pools = stage.pools().cloned().collect();
    let owner = objects.workloads[0].seen.id.uid.to_string();
    let records = json!({
        "172.18.41.40": {"pod": "default/web-a", "podUid": "a", "nic": "eth0", "node": "n1"},
        "172.18.41.41": {"pod": "default/web-b", "podUid": "b", "nic": "eth0", "node": "n2"}
    });
    let status = objects.pools[0].status.get_or_insert_default();
    status.allocated_ips = Some(records.to_string());
    for (uid, node, ip) in [("a", "n1", "172.18.41.40"), ("b", "n2", "172.18.41.41")] {
        let pod = json!({
            "metadata": {"name": format!("web-{uid}"), "namespace": "default", "uid": uid,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web",
                    "uid": owner, "controller": true}]},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]}
        });
        objects.pods.push(serde_json::from_value(pod).unwrap());
    }
    objects
}

#[tokio::test]
async fn a_cluster_at_rest_has_nothing_to_do() {
    assert_snapshot!(text(running(), &Changes::default()).await, @r#"
        no pool would change

        WORKLOAD                 PODS   START   MORE   POOLS
        Deployment default/web   2      2       198    auto4-web-eth0-xxxxx

        SUBNET   CIDR                  TOTAL   TAKEN   FREE
        net4     172.18.41.0/24        200     3       197
        net6     fd00:172:18:41::/64   506     0       506

        fits: 1 workload, 2 Pods, all start
        "#);
}

#[tokio::test]
async fn a_workload_scaled_down_gives_its_addresses_back_when_its_pods_are_gone() {
    assert_snapshot!(text(running(), &changes(&["deploy/web=1"], &[], &[])).await, @r#"
        ACTION   POOL                   SIZE   ADDRESSES       WHY
        shrink   auto4-web-eth0-xxxxx   3→2    -172.18.41.42   shrunk by 1 to 2 addresses

        WORKLOAD                 PODS   START   MORE   POOLS
        Deployment default/web   1      1       199    auto4-web-eth0-xxxxx

        SUBNET   CIDR                  TOTAL   TAKEN   FREE
        net4     172.18.41.0/24        200     3→2     198
        net6     fd00:172:18:41::/64   506     0       506

        fits: 1 workload, 1 Pod, all start
        "#);
}

#[tokio::test]
async fn a_drained_node_s_pods_start_elsewhere() {
    assert_snapshot!(text(running(), &changes(&[], &["n1"], &[])).await, @r#"
        no pool would change

        WORKLOAD                 PODS   START   MORE   POOLS
        Deployment default/web   2      2       198    auto4-web-eth0-xxxxx

        SUBNET   CIDR                  TOTAL   TAKEN   FREE
        net4     172.18.41.0/24        200     3       197
        net6     fd00:172:18:41::/64   506     0       506

        note: leaving node n1: 1 Pod, started again elsewhere by their workloads

        fits: 1 workload, 2 Pods, all start
        "#);
}

#[tokio::test]
async fn a_pool_grows_for_as_long_as_drained_pods_and_their_successors_want_addresses() {
    let view = planned(running(), &changes(&[], &["n1", "n2"], &[])).await;
    assert!(view.fits, "{}", view.text(None));
    assert!(
        !view.text(None).contains("only when"),
        "{}",
        view.text(None)
    );
}

#[tokio::test]
async fn where_the_subnet_is_full_a_drained_pod_s_successor_waits_for_its_address() {
    let shrink = "net4=172.18.41.40-172.18.41.42";
    let view = planned(running(), &changes(&[], &["n1", "n2"], &[shrink])).await;
    assert!(view.fits, "{}", view.text(None));
    assert!(
        view.text(None).contains("1 Pod starts only when"),
        "{}",
        view.text(None)
    );
}

#[tokio::test]
async fn addresses_in_use_outside_of_a_smaller_subnet_are_named() {
    let shrink = "net4=172.18.41.41-172.18.41.99";
    assert_snapshot!(text(running(), &changes(&[], &[], &[shrink])).await, @r#"
        no pool would change

        WORKLOAD                 PODS   START   MORE   POOLS
        Deployment default/web   2      2       58     auto4-web-eth0-xxxxx

        SUBNET   CIDR                  TOTAL   TAKEN   FREE
        net4     172.18.41.0/24        59      3       57
        net6     fd00:172:18:41::/64   506     0       506

        ! [172.18.41.40] of IPPool auto4-web-eth0-xxxxx are in use and lie outside of what is left of
          SpiderSubnet net4: they stay taken until their Pods are gone

        note: SpiderSubnet net4 is left with 59 of 200 addresses

        does not fit, though all start (1 workload, 2 Pods): see above
        "#);
}

#[tokio::test]
async fn the_plan_of_the_examples_leaves_nothing_inconsistent() {
    let objects = examples(&["."], "");
    let options = crate::cli::controller::options(&Config::default(), None);
    let settings = crate::cli::agent::settings(Config::default(), String::new(), None);
    let effects = change::Effects::default();
    let before = objects.clone();
    let outlook = outlook::foresee(&before, objects, effects, &options, &settings, time::now());
    let outlook = outlook.await.unwrap();
    assert_eq!(ipam::audit::audit(&outlook.will), []);
    assert_eq!(outlook.reserved, AddrSet::new());
}

#[tokio::test]
async fn what_is_named_and_not_there_is_an_error() {
    let refused = |scale: &[&str], drain: &[&str], shrink: &[&str]| {
        let changes = changes(scale, drain, shrink);
        let mut objects = examples(&["subnets.yaml", "auto-pool.yaml"], "");
        changes
            .apply(&mut objects, "default")
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(&["deploy/api=3"], &[], &[]),
        "--scale: there is no Deployment default/api"
    );
    assert_eq!(refused(&[], &["n9"], &[]), "--drain: there is no Node n9");
    assert_eq!(
        refused(&[], &[], &["net9=10.0.0.1"]),
        "--shrink: there is no SpiderSubnet net9"
    );
    let wider = refused(&[], &[], &["net4=172.18.41.30-172.18.41.50"]);
    assert!(
        wider.contains("does not have [172.18.41.30-172.18.41.39]"),
        "{wider}"
    );
}

#[tokio::test]
async fn a_manifest_that_can_t_be_meant_is_a_problem_and_not_a_crash() {
    let more = "
{kind: SpiderIPPool, apiVersion: spiderpool.spidernet.io/v2beta1, metadata: {name: typo},
 spec: {subnet: 10.6.0.0/24, ips: [10.6.0.300]}}
";
    let view = planned(examples(&["subnets.yaml"], more), &Changes::default()).await;
    assert!(!view.fits);
    assert!(
        view.text(None).contains("10.6.0.300"),
        "{}",
        view.text(None)
    );
    let names: Vec<String> = examples(&["subnets.yaml"], more)
        .pools
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(names, ["typo"]);
    assert!(convert::pool(&examples(&["subnets.yaml"], more).pools[0]).is_err());
}

/// A cluster without Argo and Kruise, whose kinds the configuration names.
#[cfg(feature = "demo")]
#[tokio::test(start_paused = true)]
async fn kinds_that_are_not_installed_are_no_reason_not_to_plan_a_cluster() {
    let client = kubesim::Server::new(1).client("test");
    let definitions = kube::Api::all(client.clone());
    for definition in crate::api::crd::definitions().unwrap() {
        let params = kube::api::PostParams::default();
        definitions.create(&params, &definition).await.unwrap();
    }
    let subnet = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": "net4"},
        "spec": {"subnet": "172.18.41.0/24", "ips": ["172.18.41.40-172.18.41.50"]},
    });
    let subnets: kube::Api<crate::api::SpiderSubnet> = kube::Api::all(client.clone());
    let subnet = serde_json::from_value(subnet).unwrap();
    let params = kube::api::PostParams::default();
    subnets.create(&params, &subnet).await.unwrap();
    let (connection, config) = (
        super::super::connection::Connection::to(client),
        Config::default(),
    );
    let rule = crate::cli::controller::options(&config, None).default_rule;
    let objects = Objects::of_cluster(&connection, rule, &config.kinds()).await;
    let objects = objects.unwrap_or_else(|error| panic!("{error}"));
    assert!(!config.kinds().others().is_empty() && !objects.is_empty());
    assert_eq!(objects.notes, Vec::<String>::new());
    assert!(planned(objects, &changes(&[], &[], &[])).await.fits);
}
