use ipam::addr::{AddrSet, Range, parse_list};
use ipam::annotation::SizeRule;
use ipam::name::SubnetName;
use ipam::plan::SubnetSeen;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use serde_json::{Value, json};

use super::*;
use crate::controller::workload::{self, other};

fn features() -> Features {
    Features {
        ipv4: true,
        ipv6: true,
        subnets: Switch::On,
        auto_pools: Switch::On,
    }
}

fn read<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

fn net4() -> Arc<SpiderSubnet> {
    Arc::new(read(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": "net4", "uid": "s", "resourceVersion": "1"},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.19"]}
    })))
}

fn web(replicas: u32) -> Seen {
    let deployment: Deployment = read(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "d"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"annotations": {"ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#}},
            "spec": {"containers": []}}}
    }));
    workload::seen(&deployment, SizeRule::Flexible(1))
}

fn web_set() -> Seen {
    let set: ReplicaSet = read(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "r", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"annotations": {"ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#}},
            "spec": {"containers": []}}}
    }));
    workload::seen(&set, SizeRule::Flexible(1))
}

fn pod(uid: &str, phase: &str, ip: Option<&str>) -> Arc<Pod> {
    let ips: Vec<_> = ip.iter().map(|ip| json!({"ip": ip})).collect();
    Arc::new(read(json!({
        "metadata": {"name": uid, "namespace": "shop", "uid": uid, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "r", "controller": true}]},
        "status": {"phase": phase, "podIPs": ips}
    })))
}

fn cidr() -> IpNet {
    "10.6.0.0/24".parse().unwrap()
}

fn with_web() -> Index {
    let index = Index::new(features());
    index.subnet("net4", Some(&net4()));
    index.workload(&Uid::from("d"), Some(web(2)));
    index.workload(&Uid::from("r"), Some(web_set()));
    index
}

#[test]
fn a_surplus_is_never_remembered_since_a_time_to_come() {
    let index = with_web();
    let surplus = BTreeSet::from([PoolName::from("web")]);
    let at = |second| DateTime::from_timestamp(second, 0).unwrap();
    // The clock is set back between the second and the third.
    for (now, since) in [(100, 100), (105, 100), (40, 40), (45, 40)] {
        index.remember_surplus(&cidr(), &surplus, at(now));
        let known = index.observe(&cidr()).snapshot.surplus_since;
        assert_eq!(known, [(PoolName::from("web"), at(since))].into());
    }
}

#[test]
fn a_deployment_is_served_and_its_replica_set_is_not() {
    let seen = with_web().observe(&cidr());
    let names: Vec<String> = seen
        .snapshot
        .demands
        .iter()
        .map(|d| d.workload.to_string())
        .collect();
    assert_eq!(names, ["Deployment shop/web"]);
}

#[test]
fn pods_of_the_replica_set_count_for_the_deployment_while_they_live() {
    let index = with_web();
    assert_eq!(
        index.pod(
            &Uid::from("p"),
            Some(&pod("p", "Running", Some("10.6.0.10")))
        ),
        [cidr()].into()
    );
    let seen = index.observe(&cidr());
    assert_eq!(
        seen.snapshot.demands[0].pods.living,
        [Uid::from("p")].into()
    );
    assert!(seen.snapshot.on_pods.contains("10.6.0.10".parse().unwrap()));
    index.pod(
        &Uid::from("p"),
        Some(&pod("p", "Succeeded", Some("10.6.0.10"))),
    );
    let seen = index.observe(&cidr());
    assert!(seen.snapshot.demands[0].pods.living.is_empty());
    assert!(seen.snapshot.on_pods.is_empty());
}

#[test]
fn a_change_that_alters_no_plan_wakes_nobody() {
    let index = with_web();
    assert!(index.workload(&Uid::from("d"), Some(web(2))).is_empty());
    assert_eq!(
        index.workload(&Uid::from("d"), Some(web(3))),
        [cidr()].into()
    );
    let running = pod("p", "Running", None);
    index.pod(&Uid::from("p"), Some(&running));
    assert!(index.pod(&Uid::from("p"), Some(&running)).is_empty());
}

#[test]
fn a_subnet_that_is_not_there_is_named_until_it_is() {
    let index = Index::new(features());
    index.workload(&Uid::from("d"), Some(web(2)));
    index.workload(&Uid::from("r"), Some(web_set()));
    let complaints = index.complaints();
    assert_eq!(complaints.len(), 1);
    assert_eq!(complaints[0].1, "SubnetNotFound");
    assert!(complaints[0].2.contains("net4"));
    index.subnet("net4", Some(&net4()));
    assert!(index.complaints().is_empty());
    assert_eq!(index.observe(&cidr()).snapshot.demands.len(), 1);
}

fn subnet(name: &str, cidr: &str, ips: &str, created: &str) -> Arc<SpiderSubnet> {
    Arc::new(read(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "creationTimestamp": created},
        "spec": {"subnet": cidr, "ips": [ips]}
    })))
}

#[test]
fn of_two_subnets_with_one_cidr_the_elder_serves_and_the_other_is_told() {
    let index = Index::new(features());
    let ips = "10.6.0.10-10.6.0.19";
    index.subnet(
        "net4",
        Some(&subnet("net4", "10.6.0.0/24", ips, "2026-01-02T00:00:00Z")),
    );
    index.subnet(
        "a",
        Some(&subnet("a", "10.6.0.0/24", ips, "2026-01-03T00:00:00Z")),
    );
    let seen = index.observe(&cidr());
    assert_eq!(seen.subnet.unwrap().name_any(), "net4");
    assert_eq!(seen.twins[0].name_any(), "a");
    index.subnet(
        "0",
        Some(&subnet("0", "10.6.0.0/24", ips, "2026-01-01T00:00:00Z")),
    );
    index.workload(&Uid::from("d"), Some(web(2)));
    assert_eq!(index.complaint(&web(2)).unwrap().0, "SubnetConflicting");
}

#[test]
fn of_two_subnets_that_overlap_the_elder_has_its_addresses_for_itself() {
    let index = Index::new(features());
    let wide = subnet(
        "wide",
        "10.6.0.0/16",
        "10.6.0.10-10.6.0.30",
        "2026-01-01T00:00:00Z",
    );
    let narrow = subnet(
        "narrow",
        "10.6.0.0/24",
        "10.6.0.20-10.6.0.40",
        "2026-01-02T00:00:00Z",
    );
    index.subnet("wide", Some(&wide));
    let both = [cidr(), "10.6.0.0/16".parse().unwrap()].into();
    assert_eq!(index.subnet("narrow", Some(&narrow)), both);
    let younger = index.observe(&cidr());
    assert_eq!(younger.elders, [SubnetName::from("wide")]);
    assert_eq!(
        younger.snapshot.elsewhere.to_string(),
        "[10.6.0.10-10.6.0.30]"
    );
    let elder = index.observe(&"10.6.0.0/16".parse().unwrap());
    assert!(elder.elders.is_empty() && elder.snapshot.elsewhere.is_empty());
}

#[test]
fn an_annotation_that_cannot_be_read_leaves_the_pool_as_it_is() {
    let index = with_web();
    let pool: SpiderIPPool = read(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
        "metadata": {"name": "p", "uid": "u", "labels": {
            "ipam.spidernet.io/owner-application-name": "web",
            "ipam.spidernet.io/owner-application-uid": "d",
            "ipam.spidernet.io/ippool-reclaim": "true"}},
        "spec": {"subnet": "10.6.0.0/24"}
    }));
    index.pool("p", Some(&Arc::new(pool)));
    let goes = |index: &Index| {
        index.observe(&cidr()).snapshot.pools[&"p".into()]
            .owner
            .as_ref()
            .unwrap()
            .reclaim
    };
    assert!(goes(&index));
    let mut broken = web(2);
    broken.wish = Some(Err(ipam::annotation::AnnotationError::NegativeNumber(
        "-1".to_owned(),
    )));
    assert_eq!(index.complaint(&broken).unwrap().0, "InvalidAnnotation");
    index.workload(&Uid::from("d"), Some(broken));
    assert!(!goes(&index));
}

#[test]
fn everything_is_forgotten_again() {
    let index = with_web();
    index.pod(
        &Uid::from("p"),
        Some(&pod("p", "Running", Some("10.6.0.10"))),
    );
    assert_eq!(index.pod(&Uid::from("p"), None), [cidr()].into());
    assert_eq!(index.workload(&Uid::from("d"), None), [cidr()].into());
    index.workload(&Uid::from("r"), None);
    assert_eq!(index.subnet("net4", None), [cidr()].into());
    let state = index.state();
    assert!(state.asking.is_empty() && state.children.is_empty() && state.pods_of_owner.is_empty());
    assert!(state.on_pods.is_empty() && state.pods.is_empty() && state.workloads.is_empty());
}

#[test]
fn a_replica_set_of_a_kind_that_the_operator_names_is_below_it() {
    let mut set = web_set();
    let owner = set.controller.as_mut().unwrap();
    owner.api_version = "argoproj.io/v1alpha1".to_owned();
    owner.kind = "Rollout".to_owned();
    for (kinds, demands) in [(Kinds::default(), 1), (Kinds::with(vec![rollout()]), 0)] {
        let index = Index::of_kinds(features(), kinds);
        index.subnet("net4", Some(&net4()));
        index.workload(&Uid::from("r"), Some(set.clone()));
        let seen = index.observe(&cidr());
        assert_eq!(seen.snapshot.demands.len(), demands);
    }
}

/// A Rollout whose Pods have the template of a Deployment that it names.
fn rollout_by_reference(replicas: u32) -> Seen {
    let object: kube::api::DynamicObject = read(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "d"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        },
    }));
    let other = other::Other::read(&object, &other::Layout::conventional());
    let id = other::id(&object, &rollout());
    workload::seen_as(id, &object.metadata, &other, SizeRule::Flexible(1))
}

/// A ReplicaSet of it, with a template that asks for `subnet`.
fn set_of_rollout(uid: &str, second: u32, replicas: u32, subnet: &str) -> Seen {
    let labels = json!({"app": "web", "rollouts-pod-template-hash": uid});
    let asks = json!({"ipam.spidernet.io/subnet": format!(r#"{{"ipv4":["{subnet}"]}}"#)});
    let set: ReplicaSet = read(json!({
        "metadata": {
            "name": format!("web-{uid}"), "namespace": "shop", "uid": uid,
            "creationTimestamp": format!("2026-01-01T00:00:0{second}Z"),
            "ownerReferences": [{
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "d",
                "controller": true,
            }],
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels, "annotations": asks}, "spec": {"containers": []}}},
    }));
    workload::seen(&set, SizeRule::Flexible(1))
}

#[test]
fn a_workload_whose_template_is_elsewhere_asks_for_what_its_replica_set_s_template_does() {
    let tell = |index: &Index, is_first: bool| {
        if is_first {
            index.workload(&Uid::from("d"), Some(rollout_by_reference(3)));
        }
    };
    for is_first in [true, false] {
        let index = Index::of_kinds(features(), Kinds::with(vec![rollout()]));
        index.subnet("net4", Some(&net4()));
        tell(&index, is_first);
        index.workload(&"r".into(), Some(set_of_rollout("r", 1, 3, "net4")));
        tell(&index, !is_first);
        let woken = index.pod(&Uid::from("p"), Some(&pod("p", "Running", None)));
        assert_eq!(woken, [cidr()].into());
        let demands = index.observe(&cidr()).snapshot.demands;
        let [demand] = demands.as_slice() else {
            panic!("{demands:?}");
        };
        assert_eq!(demand.workload.to_string(), "Rollout shop/web");
        let labels = demand.selector.match_labels.keys().collect::<Vec<_>>();
        assert_eq!(labels, ["app"]);
        assert_eq!((demand.pods.replicas, demand.pods.living.len()), (3, 1));
        let served = index.served(&Uid::from("r")).unwrap();
        assert_eq!(
            (served.workload.kind.as_str(), served.own),
            ("Rollout", None)
        );
        // How many it wants is its own to say.
        let woken = index.workload(&Uid::from("d"), Some(rollout_by_reference(5)));
        assert_eq!(woken, [cidr()].into());
        assert_eq!(index.observe(&cidr()).snapshot.demands[0].pods.replicas, 5);
        assert_eq!(index.workload(&Uid::from("r"), None), [cidr()].into());
        assert!(index.observe(&cidr()).snapshot.demands.is_empty());
    }
}

#[test]
fn of_two_templates_elsewhere_the_one_counts_whose_pods_are_wanted_and_of_such_the_newer_one() {
    let mut net5 = (*net4()).clone();
    net5.metadata.name = Some("net5".to_owned());
    net5.spec.subnet = "10.7.0.0/24".to_owned();
    net5.spec.ips = Some(vec!["10.7.0.10-10.7.0.19".to_owned()]);
    let other_cidr: IpNet = "10.7.0.0/24".parse().unwrap();
    let index = Index::of_kinds(features(), Kinds::with(vec![rollout()]));
    index.subnet("net4", Some(&net4()));
    index.subnet("net5", Some(&Arc::new(net5)));
    index.workload(&Uid::from("d"), Some(rollout_by_reference(3)));
    let steps = [
        ("b", 1, 3, "net4", (1, 0)),
        ("a", 2, 0, "net5", (1, 0)), // made, and nothing wanted of it yet
        ("a", 2, 1, "net5", (0, 1)),
        ("b", 1, 0, "net4", (0, 1)),
        ("a", 2, 0, "net5", (0, 1)), // scaled to zero
        ("b", 1, 3, "net4", (1, 0)), // gone back
    ];
    for (uid, second, replicas, subnet, demands) in steps {
        let before = [&cidr(), &other_cidr].map(|cidr| index.observe(cidr).snapshot.demands);
        let set = set_of_rollout(uid, second, replicas, subnet);
        let woken = index.workload(&Uid::from(uid), Some(set));
        let after = [&cidr(), &other_cidr].map(|cidr| index.observe(cidr).snapshot.demands);
        assert_eq!(
            (after[0].len(), after[1].len()),
            demands,
            "{uid} {replicas}"
        );
        for (nth, cidr) in [cidr(), other_cidr].iter().enumerate() {
            assert!(before[nth] == after[nth] || woken.contains(cidr), "{uid}");
        }
    }
}

#[test]
fn a_pool_of_a_kind_whose_workloads_are_not_all_known_is_kept() {
    let pool = |gv: &str, kind: &str| -> Arc<SpiderIPPool> {
        Arc::new(read(json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": "p", "labels": {
                "ipam.spidernet.io/interface": "eth0",
                "ipam.spidernet.io/owner-application-gv": gv,
                "ipam.spidernet.io/owner-application-kind": kind,
                "ipam.spidernet.io/owner-application-namespace": "shop",
                "ipam.spidernet.io/owner-application-name": "web",
                "ipam.spidernet.io/owner-application-uid": "u",
                "ipam.spidernet.io/owner-spider-subnet": "net4",
                "ipam.spidernet.io/ippool-reclaim": "true"}},
            "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10"]}
        })))
    };
    let index = Index::of_kinds(features(), Kinds::with(vec![rollout()]));
    index.subnet("net4", Some(&net4()));
    let goes = |gv: &str, kind: &str| {
        index.pool("p", Some(&pool(gv, kind)));
        let seen = index.observe(&cidr());
        let owner = seen.snapshot.pools[&PoolName::from("p")].owner.clone();
        owner.unwrap().reclaim
    };
    assert!(goes("apps_v1", "Deployment"));
    assert!(!goes("a.example_v1", "Box"), "nobody watches such");
    assert!(!goes("argoproj.io_v1alpha1", "Rollout"));
    assert_eq!(index.listed(&rollout()), [cidr()].into());
    assert!(index.listed(&rollout()).is_empty(), "told once");
    assert!(goes("argoproj.io_v1alpha1", "Rollout"));
}

fn rollout() -> OtherKind {
    OtherKind {
        group: "argoproj.io".to_owned(),
        version: "v1alpha1".to_owned(),
        kind: "Rollout".to_owned(),
        resource: "rollouts".to_owned(),
    }
}

#[test]
fn switched_off_features_ask_for_nothing() {
    let off = Features {
        auto_pools: Switch::Off,
        ..features()
    };
    let index = Index::new(off);
    index.subnet("net4", Some(&net4()));
    index.workload(&Uid::from("d"), Some(web(2)));
    assert!(index.observe(&cidr()).snapshot.demands.is_empty());
    let index = Index::new(Features {
        subnets: Switch::Off,
        ..features()
    });
    index.subnet("net4", Some(&net4()));
    assert_eq!(index.observe(&cidr()).snapshot.subnet, SubnetSeen::None);
}

#[test]
fn an_address_that_comes_or_goes_wakes_its_cidr_whoever_has_it() {
    let index = with_web();
    let bare = |ip| -> Arc<Pod> {
        Arc::new(read(json!({
            "metadata": {"name": "bare", "namespace": "shop", "uid": "b"},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]}
        })))
    };
    let uid = Uid::from("b");
    assert!(index.pod(&uid, Some(&bare("10.7.0.1"))).is_empty());
    assert_eq!(
        index.pod(&uid, Some(&bare("10.6.0.1"))),
        [cidr()].into(),
        "comes"
    );
    assert!(index.pod(&uid, Some(&bare("10.6.0.1"))).is_empty());
    assert_eq!(index.pod(&uid, None), [cidr()].into(), "goes");
}

#[test]
fn a_subnet_of_the_other_family_is_complained_of() {
    let index = with_web();
    let deployment: Deployment = read(json!({
        "metadata": {"name": "six", "namespace": "shop", "uid": "x"},
        "spec": {"selector": {}, "template": {
            "metadata": {"annotations": {"ipam.spidernet.io/subnet": r#"{"ipv6":["net4"]}"#}},
            "spec": {"containers": []}}}
    }));
    let six = workload::seen(&deployment, SizeRule::Flexible(1));
    let (reason, note) = index.complaint(&six).unwrap();
    assert_eq!(reason, "SubnetWrongFamily");
    assert_eq!(
        note,
        "SpiderSubnet net4 has IPv4 addresses, and the annotation asks it for IPv6 ones: name it \
         under ipv4, or another one here"
    );
    assert_eq!(index.complaint(&web(2)), None);
}

#[test]
fn a_pool_knows_that_its_workload_lives_though_it_no_longer_asks() {
    let index = with_web();
    let pool: SpiderIPPool = read(pool_of_web(&json!({"subnet": "10.6.0.0/24"})));
    index.pool("auto4-web", Some(&Arc::new(pool)));
    let living = |index: &Index| index.observe(&cidr()).snapshot.living;
    assert_eq!(living(&index), [Uid::from("d")].into());
    index.workload(&Uid::from("d"), None);
    assert!(living(&index).is_empty());
}

fn pool_of_web(spec: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
        "metadata": {"name": "auto4-web", "uid": "p", "resourceVersion": "1", "labels": {
            "ipam.spidernet.io/ippool-cidr": "10-6-0-0-24",
            "ipam.spidernet.io/owner-application-gv": "apps_v1",
            "ipam.spidernet.io/owner-application-kind": "Deployment",
            "ipam.spidernet.io/owner-application-namespace": "shop",
            "ipam.spidernet.io/owner-application-name": "web",
            "ipam.spidernet.io/owner-application-uid": "d",
            "ipam.spidernet.io/owner-spider-subnet": "net4",
            "ipam.spidernet.io/interface": "eth0",
            "ipam.spidernet.io/ippool-reclaim": "true"}},
        "spec": spec
    })
}

#[test]
fn a_pool_of_an_unreadable_workload_is_kept() {
    let index = Index::new(features());
    index.subnet("net4", Some(&net4()));
    let pool: SpiderIPPool = read(pool_of_web(&json!({"subnet": "10.6.0.0/24"})));
    index.pool("auto4-web", Some(&Arc::new(pool)));
    let reclaims = |index: &Index| {
        let pools = index.observe(&cidr()).snapshot.pools;
        pools.values().all(|p| p.owner.as_ref().unwrap().reclaim)
    };
    assert!(reclaims(&index), "a workload that is gone");
    // Known from the first list on only as something that can't be read.
    index.unreadable_workload(&Uid::from("d"));
    assert!(!reclaims(&index));
    assert_eq!(index.workload(&Uid::from("d"), None), [cidr()].into());
    assert!(reclaims(&index), "gone now");
}

#[test]
fn an_unreadable_workload_asks_for_what_it_asked_for_before() {
    let index = with_web();
    assert_eq!(index.unreadable_workload(&Uid::from("d")), [cidr()].into());
    assert_eq!(index.observe(&cidr()).snapshot.demands.len(), 1);
    // Readable again as it was: what was kept for it is looked at.
    assert!(!index.workload(&Uid::from("d"), Some(web(2))).is_empty());
}

#[test]
fn a_pool_that_cannot_be_read_counts_for_the_cidr_it_was_in_or_is_labelled_with() {
    let object: SpiderIPPool = read(pool_of_web(&json!({"subnet": "10.6.0.0/24"})));
    let unreadable = Arc::new(Unreadable {
        meta: object.metadata.clone(),
        reason: "missing field spec".to_owned(),
    });
    let known = |index: &Index| {
        let seen = index.observe(&cidr()).snapshot;
        (seen.pools.len(), seen.unreadable.len())
    };
    let index = with_web();
    assert_eq!(index.unreadable_pool(&unreadable), [cidr()].into());
    assert_eq!(known(&index), (0, 1), "by its label");
    index.pool("auto4-web", Some(&Arc::new(object)));
    assert_eq!(known(&index), (1, 0), "mended");
    let unlabelled = Arc::new(Unreadable {
        meta: read(json!({"name": "auto4-web", "uid": "p"})),
        reason: String::new(),
    });
    assert_eq!(index.unreadable_pool(&unlabelled), [cidr()].into());
    assert_eq!(known(&index), (0, 1), "by what it was");
    assert_eq!(index.pool("auto4-web", None), [cidr()].into());
    assert_eq!(known(&index), (0, 0), "gone");
}

/// It serves again as soon as it is mended, by the mark that it has.
#[test]
fn an_admitted_pool_of_an_overlapping_cidr_claims_its_addresses_while_it_cannot_be_read() {
    let recorded = json!({"10.6.0.9": {"pod": "shop/x", "podUid": "x", "nic": "eth0"}}).to_string();
    let wide = |spec: &serde_json::Value, annotations: &serde_json::Value| -> SpiderIPPool {
        let mut spec = spec.clone();
        spec["subnet"] = json!("10.6.0.0/16");
        let label = json!({"ipam.spidernet.io/ippool-cidr": "10-6-0-0-16"});
        read(json!({
            "metadata": {"name": "wide", "uid": "w", "annotations": annotations, "labels": label,
                "finalizers": ["spiderpool.spidernet.io"]},
            "spec": spec, "status": {"allocatedIPs": recorded},
        }))
    };
    let typo = json!({"ips": ["10.6.0.7"], "gateway": "10.6.0"});
    let garbled = json!({"ips": ["10.6.0"]});
    let admitted = json!({"orbweaver.io/admitted": "x"});
    let whole: AddrSet = Range::of_net(&"10.6.0.0/16".parse().unwrap()).into();
    for (object, expected) in [
        (
            wide(&typo, &admitted),
            parse_list(&["10.6.0.7", "10.6.0.9"], Family::V4).unwrap(),
        ),
        (wide(&garbled, &admitted), whole.clone()),
        (
            wide(&typo, &json!({})),
            parse_list(&["10.6.0.9"], Family::V4).unwrap(),
        ),
    ] {
        let index = Index::new(features());
        index.subnet("net4", Some(&net4()));
        index.pool("wide", Some(&Arc::new(object.clone())));
        assert_eq!(index.observe(&cidr()).snapshot.elsewhere, expected);
        let live = DeserializeGuard(Ok(object));
        assert_eq!(
            index.observe_live(&cidr(), vec![live]).snapshot.elsewhere,
            expected
        );
    }
    // Not even its spec can be read any more, and maybe never could since this controller began.
    let object = wide(&json!({"ips": ["10.6.0.7"]}), &admitted);
    let unreadable = Arc::new(Unreadable {
        meta: object.metadata.clone(),
        reason: "missing field spec".to_owned(),
    });
    for is_known in [true, false] {
        let index = Index::new(features());
        index.subnet("net4", Some(&net4()));
        if is_known {
            index.pool("wide", Some(&Arc::new(object.clone())));
        }
        assert!(index.unreadable_pool(&unreadable).contains(&cidr()));
        assert_eq!(index.observe(&cidr()).snapshot.elsewhere, whole);
        // Gone, it leaves room, and who waits for it is woken.
        assert!(index.pool("wide", None).contains(&cidr()));
        assert_eq!(index.observe(&cidr()).snapshot.elsewhere, AddrSet::new());
    }
}

#[test]
fn a_pool_or_subnet_without_a_cidr_is_a_stray() {
    let index = with_web();
    assert!(index.strays().is_empty());
    let pool: SpiderIPPool = read(pool_of_web(&json!({"subnet": "10.6.0.300/24"})));
    index.pool("auto4-web", Some(&Arc::new(pool)));
    let mut subnet = (*net4()).clone();
    subnet.spec.subnet = "10.6.0.0/64".to_owned();
    index.subnet("net4", Some(&Arc::new(subnet)));
    let strays = index.strays();
    let [Stray::Pool(_, pool), Stray::Subnet(_, subnet)] = &strays[..] else {
        panic!("{strays:?}");
    };
    assert!(pool.contains("10.6.0.300/24"), "{pool}");
    assert!(subnet.contains("10.6.0.0/64"), "{subnet}");
    let (reason, note) = index.complaint(&web(2)).unwrap();
    assert_eq!(reason, "SubnetNotReady");
    assert!(note.contains("10.6.0.0/64"), "{note}");
}

#[test]
fn an_annotation_that_agents_alone_follow_is_complained_of_whether_or_not_there_are_auto_pools() {
    let mut broken: Deployment = read(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "d"},
        "spec": {"selector": {}, "template": {
            "metadata": {"annotations": {"ipam.spidernet.io/routes": r#"[{"dst":"10.0.0.0/8","gw":"fd00::1"}]"#}},
            "spec": {"containers": []}}}
    }));
    for auto_pools in [Switch::On, Switch::Off] {
        let index = Index::new(Features {
            auto_pools,
            ..features()
        });
        let seen = workload::seen(&broken, SizeRule::Flexible(1));
        let (reason, note) = index.complaint(&seen).unwrap();
        assert_eq!(reason, "InvalidAnnotation");
        let says = "Pod annotation 'ipam.spidernet.io/routes': invalid route format";
        assert!(note.contains(says), "{note}");
        index.workload(&Uid::from("d"), Some(seen));
        assert_eq!(index.complaints().len(), 1);
    }
    let spec = broken.spec.as_mut().unwrap().template.spec.as_mut();
    spec.unwrap().host_network = Some(true);
    let seen = workload::seen(&broken, SizeRule::Flexible(1));
    assert_eq!(Index::new(features()).complaint(&seen), None);
}

#[test]
fn an_annotation_that_counts_on_pods_alone_is_complained_of_on_a_workload_without_it_in_the_template()
 {
    let deployment = |own: Value, template: Value| -> Deployment {
        read(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "d", "annotations": own},
            "spec": {"selector": {}, "template": {"metadata": {"annotations": template}, "spec": {"containers": []}}}
        }))
    };
    let index = Index::new(features());
    for key in ["ippool", "ippools", "routes"] {
        let key = format!("ipam.spidernet.io/{key}");
        let annotation = json!({ key.as_str(): "[]" });
        let seen = workload::seen(&deployment(annotation, json!({})), SizeRule::Flexible(1));
        let (reason, note) = index.complaint(&seen).unwrap();
        assert_eq!(reason, "InvalidAnnotation");
        assert!(
            note.contains(&key) && note.contains("Pod template"),
            "{note}"
        );
    }
    let pools = json!({"ipam.spidernet.io/ippool": r#"{"ipv4":["a"]}"#});
    let there_too = workload::seen(&deployment(pools.clone(), pools), SizeRule::Flexible(1));
    assert_eq!(index.complaint(&there_too), None);
    let other = json!({"ipam.spidernet.io/ippool-reclaim": "false", "a/ippool": "x"});
    let other = workload::seen(&deployment(other, json!({})), SizeRule::Flexible(1));
    assert_eq!(index.complaint(&other), None);
}

#[test]
fn a_pod_is_known_as_the_holder_of_its_addresses_but_not_of_its_node_s() {
    let index = with_web();
    let told = r#"[{"interface":"net1","ips":["10.6.0.12"]}]"#;
    let own = json!({"metadata": {"name": "p", "namespace": "shop", "uid": "p",
            "annotations": {"k8s.v1.cni.cncf.io/network-status": told, "other": "x"}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.6.0.10"}]}});
    let on_host = json!({"metadata": {"name": "h", "namespace": "shop", "uid": "h"},
        "spec": {"nodeName": "n1", "hostNetwork": true, "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.6.0.11"}]}});
    for (uid, object) in [("p", own), ("h", on_host)] {
        let mut pod: Pod = serde_json::from_value(object).unwrap();
        trim_pod(&mut pod);
        index.pod(&Uid::from(uid), Some(&Arc::new(pod)));
    }
    let seen = index.observe(&cidr());
    assert_eq!(seen.snapshot.on_pods.to_texts(), ["10.6.0.10-10.6.0.12"]);
    let holders = seen.snapshot.holders.iter().map(|(address, holder)| {
        let node = holder.node.as_ref().unwrap();
        (
            address.to_string(),
            holder.pod.to_string(),
            node.to_string(),
            holder.nic.is_some(),
        )
    });
    assert_eq!(
        holders.collect::<Vec<_>>(),
        [
            ("10.6.0.10".into(), "shop/p".into(), "n1".into(), false),
            ("10.6.0.12".into(), "shop/p".into(), "n1".into(), true)
        ]
    );
}
