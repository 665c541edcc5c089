use insta::assert_snapshot;
use ipam::audit::{Life, Resident};
use ipam::name::{PodName, Uid};
use serde_json::json;

use super::*;
use crate::cli::look::testing::{admitted, pools, pools_in_conflict, sight, subnets};

fn look(sight: &Sight) -> Checked {
    check(sight, &repair::plan(&sight.world, &sight.unread))
}

#[test]
fn a_consistent_cluster_is_one_line() {
    let checked = look(&sight(&subnets(), &pools()));
    assert!(checked.consistent);
    assert_snapshot!(checked.text(None), @"consistent: 1 subnet, 2 pools");
}

#[test]
fn an_address_in_quarantine_is_told_and_no_inconsistency() {
    let checked = look(&sight(&subnets(), &pools_in_conflict()));
    assert!(checked.consistent);
    assert_snapshot!(checked.text(None), @"consistent: 1 subnet, 2 pools; 1 address in quarantine");
}

/// A cluster before its take-over: the names of all its pools would say nothing.
#[test]
fn where_no_pool_is_admitted_that_is_said_and_none_is_named() {
    let bare = |mut pool: serde_json::Value| {
        pool["metadata"]["annotations"] = json!({});
        pool["status"]["conditions"] = json!([]);
        pool
    };
    let mut pools = pools();
    pools[1] = bare(pools[1].clone());
    let some = look(&sight(&subnets(), &pools));
    assert_snapshot!(some.text(None), @"consistent: 1 subnet, 2 pools; not admitted, so without use: shop (`ipam show` says why)");
    pools[0] = bare(pools[0].clone());
    let none = look(&sight(&subnets(), &pools));
    assert_snapshot!(none.text(None), @"consistent: 1 subnet, 2 pools; none is admitted yet: the controller has not looked at them");
    assert_eq!(none.not_admitted, ["auto4-web-eth0-c0ffe", "shop"]);
    // Refused is not the same as not looked at.
    pools[1]["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "Overlap",
        "message": "", "lastTransitionTime": "2026-11-22T17:41:24Z"}]);
    let refused = look(&sight(&subnets(), &pools)).text(None);
    assert!(
        refused.contains("not admitted, so without use: auto4-web-eth0-c0ffe, shop"),
        "{refused}"
    );
}

#[test]
fn what_the_core_s_audit_finds_and_what_can_t_be_read_is_told() {
    let mut pools = pools();
    pools.push(admitted(json!({
        "metadata": {"name": "thief", "uid": "t"},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.11-10.6.0.13"]},
        "status": {"allocatedIPs": r#"{"10.6.0.11":{"pod":"shop/x","podUid":"x"}}"#}
    })));
    pools.push(json!({
        "metadata": {"name": "typo"}, "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.300"]}
    }));
    let checked = look(&sight(&subnets(), &pools));
    assert!(!checked.consistent);
    assert_snapshot!(checked.text(None), @r#"
        FINDING        WHAT, AND WHAT TO DO
        HeldTwice      address 10.6.0.11 is recorded in IPPool auto4-web-eth0-c0ffe and in IPPool thief. delete Pod shop/web-b or Pod shop/x: the next one gets another address
        NotInLedger    IPPool thief has [10.6.0.11-10.6.0.13], which the ledger of SpiderSubnet net4 does not give it. the controller completes the ledger: does it run?
        PoolsOverlap   IPPools auto4-web-eth0-c0ffe and thief both own [10.6.0.11-10.6.0.12]. the controller lets one of them serve: does it run?
        Unreadable     SpiderIPPool typo can't be read and is left alone: spec.ips '10.6.0.300': invalid IP range format in IPv4 '10.6.0.300'. mend the field: `kubectl edit spiderippool typo`

        4 findings in 1 subnet, 4 pools
        "#);
}

#[test]
fn what_a_second_look_does_not_find_was_a_write_under_way() {
    let mut torn = pools();
    torn[0]["spec"]["ips"] = json!(["10.6.0.10-10.6.0.13"]);
    torn[0] = admitted(torn[0].clone());
    let (torn, whole) = (sight(&subnets(), &torn), sight(&subnets(), &pools()));
    let first = repair::plan(&torn.world, &torn.unread);
    assert_eq!(first.findings.len(), 1);
    let again = |now: &Sight| repair::plan_again(&now.world, &now.unread, &first.findings);
    assert_eq!(again(&whole).findings, []);
    assert_eq!(again(&torn).findings.len(), 1);
}

#[test]
fn what_only_a_second_look_finds_is_not_mended() {
    let running = |n: &str| Resident {
        pod: PodName::new("shop", n),
        uid: Uid::from(n),
        node: None,
        life: Life::Running,
        addresses: [("10.6.0.12".parse().unwrap(), None)].into(),
    };
    let (first, mut second) = (sight(&subnets(), &pools()), sight(&subnets(), &pools()));
    second.world.residents = Some(vec![running("new")]);
    let plan = |before: &Sight| {
        let before = repair::plan(&before.world, &before.unread).findings;
        repair::plan_again(&second.world, &second.unread, &before)
    };
    let fresh = plan(&first);
    assert_eq!((fresh.findings, fresh.steps), (vec![], vec![]));
    let known = plan(&second);
    // The other one, of a record whose Pod is gone, is the collector's.
    assert_eq!((known.findings.len(), known.steps.len()), (2, 1));
}

#[test]
fn what_a_repair_writes_is_shown_before_it_is_done() {
    let mut subnets = subnets();
    subnets[0]["status"]["controlledIPPools"] = json!("{\"shop\":");
    let mut pools = pools();
    let half =
        r#"{"10.6.0.10":{"pod":"shop/web-a","podUid":"a"},"10.6.0.11":{"pod":"shop/web-b"}}"#;
    pools[0]["status"]["allocatedIPs"] = json!(half);
    let mut sight = sight(&subnets, &pools);
    let told = Resident {
        pod: PodName::new("shop", "web-b"),
        uid: Uid::from("b"),
        node: None,
        life: Life::Running,
        addresses: [("10.6.0.11".parse().unwrap(), None)].into(),
    };
    sight.world.residents = Some(vec![told.clone()]);
    let plan = repair::plan(&sight.world, &sight.unread);
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "IPPool auto4-web-eth0-c0ffe: gives out nothing until it is admitted anew",
            "IPPool auto4-web-eth0-c0ffe: records 2 addresses by what is left of the text, Pods and SpiderEndpoints",
            "SpiderSubnet net4: forgets the ledger, which the controller rebuilds from all pools",
        ]
    );
    // While a Pod may have an address that it has not told, nobody knows; and the ledger stays, too.
    let silent = Resident {
        life: Life::Silent,
        addresses: [].into(),
        ..told
    };
    sight.world.residents = Some(vec![silent]);
    let plan = repair::plan(&sight.world, &sight.unread);
    assert_eq!(plan.steps, []);
    let checked = check(&sight, &plan);
    assert!(
        checked.findings.iter().all(|f| f.by == "person"),
        "{checked:?}"
    );
}
