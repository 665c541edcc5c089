use insta::assert_snapshot;
use serde_json::json;

use super::*;
use crate::cli::look::testing::{admitted, pools, sight, subnets};

#[test]
fn a_consistent_cluster_is_one_line() {
    let checked = check(&sight(&subnets(), &pools()));
    assert!(checked.consistent);
    assert_snapshot!(checked.text(None), @"consistent: 1 subnet, 2 pools");
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
    let checked = check(&sight(&subnets(), &pools));
    assert!(!checked.consistent);
    assert_snapshot!(checked.text(Some(100)), @r#"
        FINDING        WHAT
        HeldTwice      address 10.6.0.11 is recorded in IPPool auto4-web-eth0-c0ffe and in IPPool thief
        PoolsOverlap   IPPools auto4-web-eth0-c0ffe and thief both own [10.6.0.11-10.6.0.12]
        NotInLedger    IPPool thief has [10.6.0.11-10.6.0.13], which the ledger of SpiderSubnet net4 does
                       not give it
        Unreadable     SpiderIPPool typo can't be read and is left alone: spec.ips '10.6.0.300': invalid IP
                       range format in IPv4 '10.6.0.300'

        4 findings in 1 subnet, 4 pools
        "#);
}

#[test]
fn what_a_second_look_does_not_find_was_a_write_under_way() {
    let mut torn = pools();
    torn[0]["spec"]["ips"] = json!(["10.6.0.10-10.6.0.13"]);
    torn[0] = admitted(torn[0].clone());
    let (first, second) = (
        check(&sight(&subnets(), &torn)),
        check(&sight(&subnets(), &pools())),
    );
    assert!(!first.consistent);
    assert!(first.again(second).consistent);
    let (first, second) = (
        check(&sight(&subnets(), &torn)),
        check(&sight(&subnets(), &torn)),
    );
    assert_eq!(first.again(second).findings.len(), 1);
}
