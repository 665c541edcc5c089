//! Every refusal with its text, and the order of pools.

use super::*;
use crate::affinity::Selector;
use crate::affinity::SelectorError;
use crate::attachment::Networks;
use crate::pool::Restrictions;
use crate::testing::{admitted, ips, labels, of_workload, pod, pool, selector, workload};

fn limited(name: &str, restrictions: Restrictions) -> Pool {
    Pool {
        restrictions,
        ..pool(name, "1-9")
    }
}

fn refusal(pool: &Pool, pod: &PodFacts) -> String {
    admit(pool, Family::V4, pod).unwrap_err().to_string()
}

fn candidate(pool: Pool) -> Candidate {
    Candidate {
        name: pool.name.clone(),
        pool: Ok(pool),
    }
}

fn names(pools: &[&Pool]) -> Vec<String> {
    pools.iter().map(|p| p.name.to_string()).collect()
}

fn bad_selector() -> Result<Selector, SelectorError> {
    Err(SelectorError::Operator("Like".to_owned()))
}

#[test]
fn an_admitted_pool_without_restrictions_serves_everybody() {
    assert_eq!(admit(&pool("a", "1-9"), Family::V4, &pod("p")), Ok(()));
}

#[test]
fn a_pool_in_the_wrong_state_is_refused_by_name() {
    let plain = || pool("a", "1-9");
    let refused = |pool: Pool| refusal(&pool, &pod("p"));
    assert_eq!(
        refused(Pool {
            terminating: true,
            ..plain()
        }),
        "terminating IPPool a"
    );
    assert_eq!(
        refused(Pool {
            disabled: true,
            ..plain()
        }),
        "disabled IPPool a"
    );
    assert_eq!(
        admit(&plain(), Family::V6, &pod("p"))
            .unwrap_err()
            .to_string(),
        "expect an IPv6 IPPool, but the version of the IPPool a is IPv4"
    );
    assert_eq!(
        refused(Pool {
            admitted: None,
            ..plain()
        }),
        "IPPool a is not admitted yet: its ips or excludeIPs are new or overlap another IPPool's, \
         see its conditions"
    );
}

#[test]
fn nodes_are_matched_by_name_before_labels() {
    let by_name = Restrictions {
        node_names: vec!["n2".to_owned()],
        ..Restrictions::default()
    };
    assert_eq!(
        refusal(&limited("a", by_name.clone()), &pod("p")),
        "unmatched Node name of IPPool a"
    );
    let by_label = Restrictions {
        node_affinity: Some(Ok(selector(&[("zone", "z1")]))),
        ..Restrictions::default()
    };
    assert_eq!(
        refusal(&limited("a", by_label.clone()), &pod("p")),
        "unmatched Node affinity of IPPool a"
    );
    // A name that matches makes the labels not count.
    let both = Restrictions {
        node_names: vec!["n1".to_owned()],
        ..by_label.clone()
    };
    assert_eq!(admit(&limited("a", both), Family::V4, &pod("p")), Ok(()));
    let there = PodFacts {
        node_labels: Ok(labels(&[("zone", "z1")])),
        ..pod("p")
    };
    assert_eq!(admit(&limited("a", by_label), Family::V4, &there), Ok(()));
}

#[test]
fn namespaces_are_matched_by_name_before_labels() {
    let by_name = Restrictions {
        namespace_names: vec!["bank".to_owned()],
        ..Restrictions::default()
    };
    assert_eq!(
        refusal(&limited("a", by_name), &pod("p")),
        "unmatched Namespace name of IPPool a"
    );
    let by_label = Restrictions {
        namespace_affinity: Some(Ok(selector(&[("team", "red")]))),
        ..Restrictions::default()
    };
    assert_eq!(
        refusal(&limited("a", by_label.clone()), &pod("p")),
        "unmatched Namespace affinity of IPPool a"
    );
    let both = Restrictions {
        namespace_names: vec!["shop".to_owned()],
        ..by_label
    };
    assert_eq!(admit(&limited("a", both), Family::V4, &pod("p")), Ok(()));
}

#[test]
fn pods_are_matched_by_label_in_a_pool_made_by_hand() {
    let limits = Restrictions {
        pod_affinity: Some(Ok(selector(&[("app", "db")]))),
        ..Restrictions::default()
    };
    assert_eq!(
        refusal(&limited("a", limits.clone()), &pod("p")),
        "unmatched Pod affinity of IPPool a"
    );
    let db = PodFacts {
        labels: labels(&[("app", "db")]),
        ..pod("p")
    };
    assert_eq!(admit(&limited("a", limits), Family::V4, &db), Ok(()));
}

#[test]
fn an_auto_pool_serves_its_workload_alone() {
    let own = of_workload(&workload("web"), pool("a", "1-9"));
    assert_eq!(admit(&own, Family::V4, &pod("p")), Ok(()));
    let other = PodFacts {
        workload: workload("db"),
        ..pod("p")
    };
    assert_eq!(
        refusal(&own, &other),
        "unmatched Pod annifity of auto-created IPool a"
    );
    // Same workload, but a Pod that its selector does not choose.
    let stray = PodFacts {
        labels: labels(&[("app", "canary")]),
        ..pod("p")
    };
    assert_eq!(refusal(&own, &stray), "unmatched Pod affinity of IPPool a");
}

#[test]
fn a_workload_made_anew_under_the_same_name_keeps_its_pool() {
    let own = of_workload(&workload("web"), pool("a", "1-9"));
    let again = WorkloadId {
        uid: crate::name::Uid::from("later"),
        ..workload("web")
    };
    let heir = PodFacts {
        workload: again,
        ..pod("p")
    };
    assert_eq!(admit(&own, Family::V4, &heir), Ok(()));
}

#[test]
fn selectors_and_look_ups_that_fail_are_told_as_they_are() {
    let operator = "\"Like\" is not a valid label selector operator";
    let nodes = Restrictions {
        node_affinity: Some(bad_selector()),
        ..Restrictions::default()
    };
    let spaces = Restrictions {
        namespace_affinity: Some(bad_selector()),
        ..Restrictions::default()
    };
    let pods = Restrictions {
        pod_affinity: Some(bad_selector()),
        ..Restrictions::default()
    };
    for limits in [nodes, spaces, pods] {
        assert_eq!(refusal(&limited("a", limits), &pod("p")), operator);
    }
    let some = Some(Ok(selector(&[("zone", "z1")])));
    let limits = Restrictions {
        node_affinity: some.clone(),
        ..Restrictions::default()
    };
    let unknown = PodFacts {
        node_labels: Err("Node \"n1\" not found".to_owned()),
        ..pod("p")
    };
    assert_eq!(
        refusal(&limited("a", limits), &unknown),
        "Node \"n1\" not found"
    );
    let limits = Restrictions {
        namespace_affinity: some,
        ..Restrictions::default()
    };
    let unknown = PodFacts {
        namespace_labels: Err("gone".to_owned()),
        ..pod("p")
    };
    assert_eq!(refusal(&limited("a", limits), &unknown), "gone");
}

#[test]
fn a_look_up_that_failed_does_not_matter_where_nobody_needs_it() {
    let blind = PodFacts {
        node_labels: Err("no".to_owned()),
        namespace_labels: Err("no".to_owned()),
        ..pod("p")
    };
    assert_eq!(admit(&pool("a", "1-9"), Family::V4, &blind), Ok(()));
}

/// Each pool breaks this rule and all that come later; the first one is told.
#[test]
fn the_rules_are_asked_in_order() {
    let worst = Pool {
        terminating: true,
        disabled: true,
        admitted: None,
        restrictions: Restrictions {
            node_names: vec!["n9".to_owned()],
            node_affinity: None,
            namespace_names: vec!["bank".to_owned()],
            namespace_affinity: None,
            pod_affinity: Some(Ok(selector(&[("app", "db")]))),
            networks: vec!["other".to_owned()],
        },
        ..pool("a", "1-9")
    };
    let family = Family::V6;
    let mut told = vec![];
    let mut ask = |pool: &Pool, family| {
        told.push(admit(pool, family, &pod("p")).unwrap_err().to_string());
    };
    ask(&worst, family);
    let mut better = Pool {
        terminating: false,
        ..worst
    };
    ask(&better, family);
    better.disabled = false;
    ask(&better, family);
    ask(&better, Family::V4);
    better.restrictions.node_names.clear();
    ask(&better, Family::V4);
    better.restrictions.namespace_names.clear();
    ask(&better, Family::V4);
    better.restrictions.pod_affinity = None;
    ask(&better, Family::V4);
    better.restrictions.networks.clear();
    ask(&better, Family::V4);
    let heads: Vec<&str> = told
        .iter()
        .map(|t| t.split(" IPPool").next().unwrap())
        .collect();
    assert_eq!(
        heads,
        [
            "terminating",
            "disabled",
            "expect an IPv6",
            "unmatched Node name of",
            "unmatched Namespace name of",
            "unmatched Pod affinity of",
            "cluster-network multus isn't set, the",
            "IPPool a is not admitted yet: its ips or excludeIPs are new or overlap another",
        ]
    );
}

#[test]
fn a_pool_edited_since_it_was_admitted_serves_nobody() {
    let edited = Pool {
        ips: ips("1-10"),
        ..pool("a", "1-9")
    };
    assert!(
        admit(&edited, Family::V4, &pod("p"))
            .unwrap_err()
            .may_pass()
    );
    assert_eq!(admit(&admitted(edited), Family::V4, &pod("p")), Ok(()));
    let excluded = Pool {
        excluded: ips("5"),
        ..pool("a", "1-9")
    };
    assert!(
        admit(&excluded, Family::V4, &pod("p"))
            .unwrap_err()
            .may_pass()
    );
}

#[test]
fn a_copy_of_an_admitted_pool_serves_nobody() {
    let copy = Pool {
        uid: crate::name::Uid::from("another"),
        ..pool("a", "1-9")
    };
    assert!(admit(&copy, Family::V4, &pod("p")).unwrap_err().may_pass());
}

#[test]
fn pools_that_a_user_listed_are_tried_in_that_order() {
    let strict = Restrictions {
        node_names: vec!["n1".to_owned()],
        ..Restrictions::default()
    };
    let listed = [
        candidate(pool("z", "1")),
        candidate(limited("y", strict)),
        candidate(pool("a", "2")),
    ];
    let nic = Nic::from("eth0");
    let found = select(&listed, &nic, Family::V4, &pod("p"), Order::Listed).unwrap();
    assert_eq!(names(&found), ["z", "y", "a"]);
}

#[test]
fn pools_that_nobody_listed_are_tried_most_specific_first_then_by_name() {
    let any = Restrictions::default;
    let all = || Some(Ok(Selector::default()));
    let pools = [
        ("plain-b", any()),
        ("plain-a", any()),
        (
            "space-labels",
            Restrictions {
                namespace_affinity: all(),
                ..any()
            },
        ),
        (
            "space-name",
            Restrictions {
                namespace_names: vec!["shop".to_owned()],
                ..any()
            },
        ),
        (
            "node-labels",
            Restrictions {
                node_affinity: all(),
                ..any()
            },
        ),
        (
            "node-name",
            Restrictions {
                node_names: vec!["n1".to_owned()],
                ..any()
            },
        ),
        (
            "pod-labels",
            Restrictions {
                pod_affinity: all(),
                ..any()
            },
        ),
    ];
    let candidates: Vec<Candidate> = pools
        .into_iter()
        .map(|(name, limits)| candidate(limited(name, limits)))
        .collect();
    let nic = Nic::from("eth0");
    let found = select(
        &candidates,
        &nic,
        Family::V4,
        &pod("p"),
        Order::MostSpecific,
    )
    .unwrap();
    assert_eq!(
        names(&found),
        [
            "pod-labels",
            "node-name",
            "node-labels",
            "space-name",
            "space-labels",
            "plain-a",
            "plain-b"
        ]
    );
}

#[test]
fn those_that_may_serve_are_given_without_those_that_may_not() {
    let off = Pool {
        disabled: true,
        ..pool("off", "1")
    };
    let candidates = [candidate(off), candidate(pool("on", "2"))];
    let nic = Nic::from("eth0");
    let found = select(&candidates, &nic, Family::V4, &pod("p"), Order::Listed).unwrap();
    assert_eq!(names(&found), ["on"]);
}

fn no_pool(candidates: &[Candidate]) -> NoPool {
    select(
        candidates,
        &Nic::from("eth0"),
        Family::V4,
        &pod("p"),
        Order::Listed,
    )
    .unwrap_err()
}

/// The complete example of spec/allocation §5.2, behind the agent's own head.
#[test]
fn the_error_names_each_pool_and_each_reason() {
    let a = limited(
        "a",
        Restrictions {
            pod_affinity: Some(Ok(selector(&[("app", "db")]))),
            ..Restrictions::default()
        },
    );
    let b = limited(
        "b",
        Restrictions {
            namespace_names: vec!["bank".to_owned()],
            ..Restrictions::default()
        },
    );
    let error = no_pool(&[candidate(a), candidate(b)]);
    assert_eq!(
        format!("failed to allocate IP addresses in standard mode: {error}"),
        "failed to allocate IP addresses in standard mode: no IPPool available, all IPv4 IPPools \
         [a b] of eth0 filtered out: [unmatched Pod affinity of IPPool a, unmatched Namespace name \
         of IPPool b]"
    );
    assert!(!error.may_pass());
}

#[test]
fn a_single_reason_stands_without_brackets() {
    let off = Pool {
        disabled: true,
        ..pool("a", "1")
    };
    assert_eq!(
        no_pool(&[candidate(off)]).to_string(),
        "no IPPool available, all IPv4 IPPools [a] of eth0 filtered out: disabled IPPool a"
    );
}

#[test]
fn an_unusable_object_is_a_refusal_like_any_other() {
    let broken = |name: &str, fault| Candidate {
        name: name.into(),
        pool: Err(fault),
    };
    let reason = "spec.ips: invalid IP range format in IPv4 'x'".to_owned();
    let unreadable = PoolFault::Unreadable {
        pool: "b".into(),
        reason,
    };
    let error = no_pool(&[broken("a", PoolFault::NoFamily), broken("b", unreadable)]);
    assert_eq!(
        error.to_string(),
        "no IPPool available, all IPv4 IPPools [a b] of eth0 filtered out: [nil ippool ipVersion, \
         unreadable IPPool b: spec.ips: invalid IP range format in IPv4 'x']"
    );
}

#[test]
fn waiting_helps_where_some_pool_is_about_to_be_admitted() {
    let new = Pool {
        admitted: None,
        ..pool("a", "1")
    };
    let off = Pool {
        disabled: true,
        ..pool("b", "2")
    };
    assert!(no_pool(&[candidate(off), candidate(new)]).may_pass());
}

#[test]
fn equal_reasons_are_told_once_in_order_of_appearance() {
    assert_eq!(aggregate(&["x"]), "x");
    assert_eq!(aggregate(&["x", "x"]), "x");
    assert_eq!(aggregate(&["y", "x", "y"]), "[y, x]");
}

/// The complete example of spec/allocation §5.4, behind the agent's own head.
#[test]
fn two_families_that_find_nothing_are_told_together() {
    let none = |family, pool: &str| NoAddress {
        family,
        nic: Nic::from("eth0"),
        pools: vec![pool.into()],
        refusals: vec![Exhausted::UsedOut.into()],
    };
    let both = [none(Family::V4, "a"), none(Family::V6, "b")];
    assert_eq!(
        format!(
            "failed to allocate IP addresses in standard mode: {}",
            aggregate(&both)
        ),
        "failed to allocate IP addresses in standard mode: [failed to allocate any IPv4 IP address \
         to NIC eth0 from IPPools [a]: all IP addresses used out, failed to allocate any IPv6 IP \
         address to NIC eth0 from IPPools [b]: all IP addresses used out]"
    );
}

#[test]
fn pools_that_gave_nothing_are_named_in_order() {
    let error = NoAddress {
        family: Family::V4,
        nic: Nic::from("net1"),
        pools: vec!["a".into(), "b".into()],
        refusals: vec![
            Exhausted::UsedOut.into(),
            Miss::Exhausted(Exhausted::TooLarge {
                pool: "b".into(),
                limit: 1_000_000,
            }),
        ],
    };
    assert_eq!(
        error.to_string(),
        "failed to allocate any IPv4 IP address to NIC net1 from IPPools [a b]: [all IP addresses \
         used out, all IP addresses used out, the record of IPPool b would pass 1000000 bytes: use \
         several IPPools]"
    );
}

/// Facts of a Pod whose first interface has this Multus network, named in its annotation.
fn behind(network: Option<&str>) -> PodFacts {
    let networks = Networks {
        default: network,
        own_namespace: "kube-system",
        ..Networks::default()
    };
    PodFacts {
        attachment: Attachment::of(&Nic::from("eth0"), &networks),
        ..pod("web-1")
    }
}

#[test]
fn a_pool_for_some_networks_serves_interfaces_on_these_alone() {
    let limits = Restrictions {
        networks: vec!["macvlan".into(), "net/data".into()],
        ..Restrictions::default()
    };
    let limited = Pool {
        restrictions: limits,
        ..pool("p", "1-9")
    };
    let verdict =
        |network| admit(&limited, Family::V4, &behind(network)).map_err(|e| e.to_string());
    assert_eq!(verdict(Some("macvlan")), Ok(()));
    assert_eq!(verdict(Some("net/data")), Ok(()));
    let other = "the spec.multusName [macvlan net/data] in the IPPool p used by the Pod interface eth0 is not matched with the multusCR net/macvlan specified by the Pod";
    assert_eq!(verdict(Some("net/macvlan")), Err(other.to_owned()));
    let none = "cluster-network multus isn't set, the IPPool p specified multusName [macvlan net/data] unmatched: name a network by annotation 'v1.multus-cni.io/default-network'";
    assert_eq!(verdict(None), Err(none.to_owned()));
    let broken = "failed to parse Annotation 'v1.multus-cni.io/default-network' value '[]', error: empty result; the IPPool p specified multusName [macvlan net/data]";
    assert_eq!(verdict(Some("[]")), Err(broken.to_owned()));
}

#[test]
fn networks_are_of_no_concern_to_a_pool_that_names_none_nor_to_an_auto_pool() {
    let (plain, mut auto) = (
        pool("p", "1"),
        of_workload(&workload("web"), pool("a", "2")),
    );
    auto.restrictions.networks = vec!["other".into()];
    for pool in [plain, auto] {
        assert_eq!(admit(&pool, Family::V4, &behind(Some("net/x"))), Ok(()));
        assert_eq!(admit(&pool, Family::V4, &behind(None)), Ok(()));
    }
}

#[test]
fn every_pool_that_was_tried_has_its_say() {
    let nic = Nic::from("eth0");
    let (full, gone) = (Miss::from(Exhausted::UsedOut), Miss::Gone("c".into()));
    let off = Miss::from(Refusal::Disabled("b".into()));
    let said = |tried: &[(&str, &Miss)]| {
        let tried = tried.iter();
        let tried = tried.map(|(pool, miss)| (PoolName::from(*pool), Miss::clone(miss)));
        deny(Family::V4, &nic, tried.collect()).to_string()
    };
    assert_eq!(
        said(&[("a", &full), ("b", &off), ("c", &gone)]),
        "failed to allocate any IPv4 IP address to NIC eth0 from IPPools [a b c]: [all IP \
         addresses used out, disabled IPPool b, IPPool c is gone]"
    );
    assert_eq!(
        said(&[("b", &off), ("c", &gone)]),
        "no IPPool available, all IPv4 IPPools [b c] of eth0 filtered out: [disabled IPPool b, \
         IPPool c is gone]"
    );
}

#[test]
fn the_pool_that_holds_an_address_comes_first_whatever_became_of_it() {
    let (a, b) = (pool("a", "1-2"), pool("b", "3-4"));
    let refused = || NoPool {
        family: Family::V4,
        nic: Nic::from("eth0"),
        pools: vec![],
        refusals: vec![],
    };
    let names = |home: Option<&str>, selected| {
        let order = with_home(home.map(PoolName::from).as_ref(), selected)?;
        Ok::<_, NoPool>(
            order
                .iter()
                .map(PoolName::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    assert_eq!(names(None, Ok(vec![&a, &b])), Ok("a b".to_owned()));
    assert_eq!(names(Some("b"), Ok(vec![&a, &b])), Ok("b a".to_owned()));
    assert_eq!(names(Some("off"), Ok(vec![&a])), Ok("off a".to_owned()));
    assert_eq!(names(Some("off"), Err(refused())), Ok("off".to_owned()));
    assert_eq!(names(None, Err(refused())), Err(refused()));
}
