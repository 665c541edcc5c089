//! From what the original wrote to us and back, judged by the original's own rules as an outsider
//! states them: over the objects' text, with sets of addresses counted one by one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::DateTime;
use ipam::annotation::SizeRule;
use ipam::name::Uid;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::controller::index::{Features, Switch};
use crate::controller::rehearsal::Rehearsal;
use crate::controller::workload;

const FIVE: [&str; 5] = [
    "ipam.spidernet.io/app-api-group",
    "ipam.spidernet.io/app-api-version",
    "ipam.spidernet.io/app-kind",
    "ipam.spidernet.io/app-name",
    "ipam.spidernet.io/app-namespace",
];
const FINALIZER: &str = "spiderpool.spidernet.io";

fn golden() -> Vec<Value> {
    let text = include_str!("../../../../tests/golden/objects.yaml");
    serde_saphyr::from_multiple(text).unwrap()
}

fn all<K: serde::de::DeserializeOwned>(objects: &[Value], kind: &str) -> Vec<K> {
    let of_kind = objects.iter().filter(|o| o["kind"] == kind);
    of_kind
        .map(|o| serde_json::from_value(o.clone()).unwrap())
        .collect()
}

/// What pools have recorded: address, Pod, uid.
fn recorded(pools: &[SpiderIPPool]) -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    for pool in pools {
        let text = pool.status.as_ref().and_then(|s| s.allocated_ips.clone());
        let records: Value = serde_json::from_str(&text.unwrap_or("{}".into())).unwrap();
        for (address, record) in records.as_object().unwrap() {
            let part = |key: &str| record[key].as_str().unwrap().to_owned();
            found.insert((address.clone(), part("pod"), part("podUid")));
        }
    }
    found
}

/// Our controller at work on these objects until it rests, with a Pod for each record, and Deployment
/// `web` with so many replicas; the other workloads are gone.
fn taken_over(
    subnets: &[SpiderSubnet],
    pools: &[SpiderIPPool],
    replicas: u32,
) -> (Vec<SpiderSubnet>, Vec<SpiderIPPool>) {
    let features = Features {
        ipv4: true,
        ipv6: true,
        subnets: Switch::On,
        auto_pools: Switch::On,
    };
    let mut stage = Rehearsal::new(
        features,
        &ipam::kind::Kinds::default(),
        DateTime::UNIX_EPOCH,
    );
    for (address, pod, uid) in recorded(pools) {
        let (namespace, name) = pod.split_once('/').unwrap();
        let object: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]}
        }))
        .unwrap();
        stage.pod(&Uid::new(uid), Some(&Arc::new(object)));
    }
    let of_web = |p: &&SpiderIPPool| p.name_any() == "auto4-web-eth0-d5597";
    let uid =
        &pools.iter().find(of_web).unwrap().labels()["ipam.spidernet.io/owner-application-uid"];
    let web: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": uid},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {
            "annotations": {"ipam.spidernet.io/subnet": r#"{"ipv4":["net4"],"ipv6":["net6"]}"#,
                "ipam.spidernet.io/ippool-ip-number": "+2"},
            "labels": {"app": "web"}}}}
    }))
    .unwrap();
    stage.workload(workload::seen(&web, SizeRule::Flexible(1)));
    for subnet in subnets {
        stage.subnet(subnet.clone());
    }
    for pool in pools {
        stage.pool(pool.clone());
    }
    stage.settle().unwrap();
    (
        stage.subnets().cloned().collect(),
        stage.pools().cloned().collect(),
    )
}

/// Each object as `--yes` leaves it.
fn given_back(
    subnets: &[SpiderSubnet],
    pools: &[SpiderIPPool],
) -> (Vec<SpiderSubnet>, Vec<SpiderIPPool>) {
    let work = Work::of(subnets, pools, &[], &[]);
    assert_eq!(work.obstacles, Vec::<String>::new());
    let mut new_pools = pools.to_vec();
    for (main, parsed) in &work.pools {
        let pool = original::pool_status(main, parsed);
        let at = new_pools
            .iter_mut()
            .find(|p| p.name_any() == pool.name_any());
        *at.unwrap() = pool;
    }
    let mut new_subnets = subnets.to_vec();
    for subnet in work.subnets {
        let at = new_subnets
            .iter_mut()
            .find(|s| s.name_any() == subnet.name_any());
        *at.unwrap() = subnet;
    }
    (new_subnets, new_pools)
}

/// The addresses of ranges, one by one.
fn expanded(ranges: &Value) -> BTreeSet<IpAddr> {
    let number = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(ip) => (true, u128::from(u32::from(ip))),
        IpAddr::V6(ip) => (false, u128::from(ip)),
    };
    let mut found = BTreeSet::new();
    for range in ranges.as_array().into_iter().flatten() {
        let text = range.as_str().unwrap();
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ((is_v4, first), (_, last)) = (number(first), number(last));
        for n in first..=last {
            found.insert(if is_v4 {
                IpAddr::V4(u32::try_from(n).unwrap().into())
            } else {
                IpAddr::V6(n.into())
            });
        }
    }
    found
}

fn owned(object: &Value) -> BTreeSet<IpAddr> {
    let excluded = expanded(&object["spec"]["excludeIPs"]);
    &expanded(&object["spec"]["ips"]) - &excluded
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn parsed(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap_or("{}")).unwrap()
}

/// What the original's webhooks and controller would say of these objects, one line each.
fn refusals(subnets: &[SpiderSubnet], pools: &[SpiderIPPool]) -> Vec<String> {
    let json = |object| serde_json::to_value(object).unwrap();
    let pools: Vec<Value> = pools.iter().map(json).collect();
    let mut found = vec![];
    for (at, pool) in pools.iter().enumerate() {
        let others = pools.iter().skip(at + 1);
        let apart = others
            .map(owned)
            .all(|other| other.is_disjoint(&owned(pool)));
        let name = pool["metadata"]["name"].as_str().unwrap();
        note(&mut found, apart, "W5: has addresses of another", name);
    }
    for subnet in subnets {
        let subnet = serde_json::to_value(subnet).unwrap();
        refusals_of_subnet(&subnet, &mut found);
        let its = pools
            .iter()
            .filter(|pool| pool["spec"]["subnet"] == subnet["spec"]["subnet"]);
        for pool in its {
            refusals_of_pool(pool, &subnet, &mut found);
        }
    }
    found
}

/// Takes down what does not hold of an object.
fn note(found: &mut Vec<String>, holds: bool, what: &str, of: &str) {
    if !holds {
        found.push(format!("{of}: {what}"));
    }
}

fn refusals_of_subnet(subnet: &Value, found: &mut Vec<String>) {
    let ledger = parsed(&subnet["status"]["controlledIPPools"]);
    let name = subnet["metadata"]["name"].as_str().unwrap();
    let known = ["allocatedIPCount", "controlledIPPools", "totalIPCount"].into();
    let plain = keys(&subnet["status"]).is_subset(&known);
    let version = subnet["spec"]["ipVersion"].is_number();
    note(found, version, "W1: version", name);
    note(found, plain, "status has more", name);
    let entries = ledger.as_object().unwrap();
    let sum: usize = entries.values().map(|e| expanded(&e["ips"]).len()).sum();
    let counted = subnet["status"]["allocatedIPCount"] == json!(sum);
    note(found, counted, "count", name);
    for (pool, entry) in entries {
        let plain = keys(entry).is_subset(&["ips", "application"].into());
        note(found, plain, "entry has more", pool);
        let parts = entry["application"].as_str().map(|a| a.split('_').count());
        note(
            found,
            matches!(parts, None | Some(4 | 5)),
            "application",
            pool,
        );
    }
}

fn refusals_of_pool(pool: &Value, subnet: &Value, found: &mut Vec<String>) {
    let name = pool["metadata"]["name"].as_str().unwrap();
    let (labels, status) = (&pool["metadata"]["labels"], &pool["status"]);
    let is_auto = labels["ipam.spidernet.io/owner-application-name"].is_string();
    let total = owned(pool);
    let version = pool["spec"]["ipVersion"].is_number();
    note(found, version, "W1: version", name);
    let within = total.is_subset(&owned(subnet));
    note(found, within, "W9: beyond its subnet", name);
    let entry = expanded(&parsed(&subnet["status"]["controlledIPPools"])[name]["ips"]);
    let agrees = !is_auto || total.is_empty() || total == entry;
    note(found, agrees, "W10: not its entry", name);
    let affinity = &pool["spec"]["podAffinity"];
    let five = affinity["matchExpressions"].is_null()
        && (!affinity["matchLabels"].is_object() || keys(&affinity["matchLabels"]) == FIVE.into());
    note(found, !is_auto || five, "W8': affinity", name);
    let records = parsed(&status["allocatedIPs"]);
    let records = records.as_object().unwrap();
    let two = ["pod", "podUid"].into();
    let plain = records.values().all(|record| keys(record) == two);
    note(found, plain, "record has more", name);
    let in_use: BTreeSet<IpAddr> = records.keys().map(|a| a.parse().unwrap()).collect();
    note(
        found,
        in_use.is_subset(&total),
        "U4: uses what it lacks",
        name,
    );
    let counted = status["allocatedIPCount"] == json!(records.len());
    note(found, counted, "count", name);
    let counted = status["totalIPCount"] == json!(total.len());
    note(found, counted, "total", name);
    let known = ["allocatedIPCount", "allocatedIPs", "totalIPCount"].into();
    note(
        found,
        keys(status).is_subset(&known),
        "status has more",
        name,
    );
    let finalizers = &pool["metadata"]["finalizers"];
    note(found, *finalizers == json!([FINALIZER]), "finalizer", name);
    let annotations = pool["metadata"]["annotations"].as_object();
    let plain = annotations.is_none_or(|a| !a.keys().any(|key| key.contains("orbweaver")));
    note(found, plain, "annotation", name);
    let labels = labels.as_object();
    let plain = labels.is_none_or(|all| !all.keys().any(|key| key.contains("orbweaver")));
    note(found, plain, "label", name);
}

#[test]
fn what_the_original_wrote_is_as_it_should_be_and_what_we_write_is_not() {
    let (subnets, pools) = (
        all(&golden(), "SpiderSubnet"),
        all(&golden(), "SpiderIPPool"),
    );
    assert_eq!(refusals(&subnets, &pools), Vec::<String>::new());
    let work = Work::of(&subnets, &pools, &[], &[]);
    assert!(work.told().done, "{:?}", work.told());
    let (subnets, pools) = taken_over(&subnets, &pools, 3);
    let ours = refusals(&subnets, &pools);
    for rule in ["W8': affinity", "annotation", "status has more"] {
        assert!(
            ours.iter().any(|said| said.ends_with(rule)),
            "{rule}: {ours:?}"
        );
    }
}

#[test]
fn taken_over_scaled_given_back_and_taken_over_again_every_pod_keeps_its_address() {
    let (subnets, pools) = (
        all(&golden(), "SpiderSubnet"),
        all(&golden(), "SpiderIPPool"),
    );
    let before = recorded(&pools);
    let (subnets, mut pools) = taken_over(&subnets, &pools, 6);
    assert_eq!(recorded(&pools), before);
    // The controller had agents look there.
    let mark = (names::label::LEAK.to_owned(), "suspected".to_owned());
    pools[0].labels_mut().extend([mark]);
    let (subnets, pools) = given_back(&subnets, &pools);
    assert_eq!(recorded(&pools), before);
    assert_eq!(refusals(&subnets, &pools), Vec::<String>::new());
    // Once is enough.
    assert!(Work::of(&subnets, &pools, &[], &[]).told().done);
    let (_, pools) = taken_over(&subnets, &pools, 2);
    assert_eq!(recorded(&pools), before);
    for name in [
        "auto4-web-eth0-d5597",
        "auto4-db-eth0-e059e",
        "static-ipv4-ippool",
        "hand-made",
    ] {
        let pool = pools.iter().find(|p| p.name_any() == name).unwrap();
        assert!(convert::pool(pool).unwrap().is_admitted(), "{name}");
    }
}

#[test]
fn an_address_in_use_that_its_pool_lacks_returns_to_it() {
    let (subnets, pools): (Vec<SpiderSubnet>, Vec<SpiderIPPool>) = (
        all(&golden(), "SpiderSubnet"),
        all(&golden(), "SpiderIPPool"),
    );
    let (subnets, mut pools) = taken_over(&subnets, &pools, 3);
    let of_static = |p: &&mut SpiderIPPool| p.name_any() == "static-ipv4-ippool";
    let pool = pools.iter_mut().find(of_static).unwrap();
    pool.spec.exclude_ips = Some(vec!["172.18.41.40".to_owned()]);
    let (subnets, pools) = given_back(&subnets, &pools);
    assert_eq!(refusals(&subnets, &pools), Vec::<String>::new());
}

#[test]
fn a_pool_beyond_its_subnet_stands_in_the_way_and_nothing_is_written() {
    let (mut subnets, pools): (Vec<SpiderSubnet>, Vec<SpiderIPPool>) = (
        all(&golden(), "SpiderSubnet"),
        all(&golden(), "SpiderIPPool"),
    );
    subnets[0].spec.exclude_ips = Some(vec!["172.18.41.44".to_owned()]);
    let given = Work::of(&subnets, &pools, &[], &[]).told();
    assert!(!given.done);
    assert!(
        given.obstacles[0].contains("auto4-web-eth0-d5597"),
        "{given:?}"
    );
}

#[test]
fn pods_without_an_endpoint_are_told_of_and_stand_in_no_way() {
    let pools: Vec<SpiderIPPool> = all(&golden(), "SpiderIPPool");
    let endpoints: Vec<SpiderEndpoint> = all(&golden(), "SpiderEndpoint");
    let notes = |endpoints: &[SpiderEndpoint]| Work::of(&[], &pools, &[], endpoints).told().notes;
    assert_eq!(notes(&endpoints), Vec::<String>::new());
    let (_, others): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(|e| e.name_any() == "db-0");
    let told = notes(&others);
    assert!(told[0].starts_with("1 Pod with"), "{told:?}");
    assert!(told[0].contains("default/db-0"), "{told:?}");
}

/// A pool made by hand with these addresses and records, as Orbweaver lets it serve.
fn by_hand(name: &str, cidr: &str, ips: &str, records: &Value) -> SpiderIPPool {
    serde_json::from_value(json!({
        "apiVersion": names::API_VERSION, "kind": "SpiderIPPool",
        "metadata": {"name": name, "uid": name},
        "spec": {"subnet": cidr, "ips": [ips]},
        "status": {"allocatedIPs": records.to_string()}
    }))
    .unwrap()
}

fn obstacles(pools: &[SpiderIPPool]) -> Vec<String> {
    let given = Work::of(&[], pools, &[], &[]).told();
    assert!(given.obstacles.is_empty() || !given.done);
    given.obstacles
}

#[test]
fn pools_that_share_addresses_stand_in_the_way_whatever_their_cidrs() {
    let (small, wide) = ("10.6.0.0/24", "10.6.0.0/16");
    let in_use = json!({"10.6.0.15": {"pod": "shop/b", "podUid": "b"}});
    let pools = [
        by_hand("a", small, "10.6.0.10-10.6.0.20", &json!({})),
        by_hand("b", small, "10.6.0.19-10.6.0.30", &in_use),
        by_hand("c", wide, "10.6.0.30-10.6.1.9", &json!({})),
        by_hand("d", small, "10.6.0.40", &json!({})),
    ];
    let rest = "under the original both serve, so that one address goes to two Pods, and it refuses \
                every later change of either. Take it out of the one whose Pods have none of it \
                (spec.ips, spec.excludeIPs)";
    let wanted = [
        ("a and b", "[10.6.0.15 10.6.0.19-10.6.0.20]"),
        ("b and c", "[10.6.0.30]"),
        ("c and d", "[10.6.0.40]"),
    ];
    let wanted = wanted.map(|(pair, both)| format!("IPPools {pair} both have {both}: {rest}"));
    assert_eq!(obstacles(&pools), wanted);
    assert!(refusals(&[], &pools)[0].starts_with("a: W5"));
    assert_eq!(obstacles(&pools[1..2]), Vec::<String>::new());
}

#[test]
fn an_address_of_a_machine_that_moves_stands_in_the_way() {
    let record = json!({"pod": "shop/vm-1", "podUid": "1", "nic": "eth0", "node": "n1", "sandbox": "s1",
        "owner": "vm", "instance": "i",
        "next": {"pod": "shop/vm-2", "podUid": "2", "node": "n2", "sandbox": "s2"}});
    let pools = [by_hand(
        "p",
        "10.6.0.0/24",
        "10.6.0.10",
        &json!({"10.6.0.10": record}),
    )];
    let told = obstacles(&pools).concat();
    for part in [
        "10.6.0.10 of IPPool p is that of Pod shop/vm-1 and of Pod shop/vm-2",
        "Let Orbweaver run until the move is over",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn an_address_in_quarantine_that_its_pool_lacks_stays_out_of_it() {
    let records = json!({
        "10.6.0.9": {"pod": "shop/a", "podUid": "quarantined",
            "quarantine": {"mac": "02:00:00:00:00:09", "until": "2026-11-22T18:41:24Z"}},
        "10.6.0.11": {"pod": "shop/b", "podUid": "b"}
    });
    let pools = [by_hand("p", "10.6.0.0/24", "10.6.0.10", &records)];
    let (_, pools) = given_back(&[], &pools);
    let pool = serde_json::to_value(&pools[0]).unwrap();
    assert_eq!(pool["spec"]["ips"], json!(["10.6.0.10-10.6.0.11"]));
    assert_eq!(pool["spec"]["ipVersion"], 4);
    let records = r#"{"10.6.0.11":{"pod":"shop/b","podUid":"b"}}"#;
    assert_eq!(pool["status"]["allocatedIPs"], records);
    assert_eq!(refusals(&[], &pools), Vec::<String>::new());
}

#[test]
fn a_reservation_gets_its_family_and_one_that_the_original_cannot_read_stands_in_the_way() {
    let of = |spec: Value| -> SpiderReservedIP {
        serde_json::from_value(json!({
            "apiVersion": names::API_VERSION, "kind": "SpiderReservedIP",
            "metadata": {"name": "r"}, "spec": spec
        }))
        .unwrap()
    };
    let work = |spec: Value| Work::of(&[], &[], &[of(spec)], &[]);
    for (ips, version) in [
        (json!(["10.6.0.9", "10.6.0.8"]), 4),
        (json!(["fd00::1"]), 6),
    ] {
        let given = work(json!({"ips": ips}));
        assert!(!given.told().done && given.told().obstacles.is_empty());
        let whole = json!({"ips": ips, "ipVersion": version});
        assert_eq!(given.reservations, [of(whole.clone())]);
        assert!(work(whole).told().done, "once is enough");
    }
    for spec in [
        json!({}),
        json!({"ips": ["10.6.0.300"]}),
        json!({"ips": ["10.6.0.9", "fd00::1"]}),
        json!({"ips": ["10.6.0.9"], "ipVersion": 6}),
    ] {
        let told = work(spec.clone()).told();
        assert!(!told.done && !told.obstacles.is_empty(), "{spec}: {told:?}");
        assert!(
            told.obstacles[0].starts_with("SpiderReservedIP r "),
            "{told:?}"
        );
    }
}
