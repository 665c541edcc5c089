use insta::assert_snapshot;

use super::*;
use crate::cli::look::testing::{pools, pools_in_conflict, sight, subnets};
use crate::cli::render::{Format, formatted};

fn text(what: Option<&str>) -> String {
    let sight = sight(&subnets(), &pools());
    show(&sight, what, "shop").unwrap().text(Some(100))
}

#[test]
fn everything_in_two_tables_with_what_is_wrong_below() {
    assert_snapshot!(text(None), @r#"
        SUBNET   CIDR          TOTAL   POOLS   TAKEN   USED   FREE
        net4     10.6.0.0/24   20      2       5       2      14

        POOL                   SUBNET   WORKLOAD              TOTAL   USED   FREE   STATE
        auto4-web-eth0-c0ffe   net4     Deployment shop/web   3       2      1      Ready
        shop                   net4     -                     2       0      2      Disabled

        ! SpiderIPPool auto4-web-eth0-c0ffe: SubnetExhausted: Deployment shop/web wants 9 addresses, IPPool
          auto4-web-eth0-c0ffe has 3
        "#);
}

#[test]
fn a_subnet_with_its_pools() {
    assert_snapshot!(text(Some("net4")), @r#"
        Subnet:      net4
        CIDR:        10.6.0.0/24
        Gateway:     10.6.0.1
        Ranges:      10.6.0.10-10.6.0.29
        Addresses:   20 in all, 5 with 2 pools, 2 in use, 14 free

        POOL                   SUBNET   WORKLOAD              TOTAL   USED   FREE   STATE
        auto4-web-eth0-c0ffe   net4     Deployment shop/web   3       2      1      Ready
        shop                   net4     -                     2       0      2      Disabled
        "#);
    assert_eq!(text(Some("subnet/net4")), text(Some("net4")));
}

#[test]
fn a_pool_with_its_pods() {
    assert_snapshot!(text(Some("pool/auto4-web-eth0-c0ffe")), @r#"
        Pool:        auto4-web-eth0-c0ffe
        Subnet:      net4 (10.6.0.0/24)
        Workload:    Deployment shop/web
        Interface:   eth0
        Gateway:     10.6.0.1
        Ranges:      10.6.0.10-10.6.0.12
        Addresses:   3 in all, 2 in use, 1 free
        State:       Ready

        ADDRESS     POD          NIC    NODE
        10.6.0.10   shop/web-a   eth0   n1
        10.6.0.11   shop/web-b   -      -

        ! SpiderIPPool auto4-web-eth0-c0ffe: SubnetExhausted: Deployment shop/web wants 9 addresses, IPPool
          auto4-web-eth0-c0ffe has 3
        "#);
}

#[test]
fn what_is_in_quarantine_is_counted_and_named() {
    let sight = sight(&subnets(), &pools_in_conflict());
    let shown = show(&sight, Some("deploy/web"), "shop").unwrap();
    assert_snapshot!(shown.text(Some(100)).split('!').next().unwrap(), @r#"
        POOL                   SUBNET   WORKLOAD              TOTAL   USED   FREE   STATE
        auto4-web-eth0-c0ffe   net4     Deployment shop/web   3       2      0      Full

        ADDRESS     POD                                          NIC    NODE
        10.6.0.10   shop/web-a                                   eth0   n1
        10.6.0.11   shop/web-b                                   -      -
        10.6.0.12   (in quarantine, 02:00:00:00:00:09 uses it)   -      -

        "#);
    let shown = show(&sight, Some("pool/auto4-web-eth0-c0ffe"), "shop").unwrap();
    let text = shown.text(Some(100));
    assert!(
        text.contains("3 in all, 2 in use, 1 in quarantine, 0 free"),
        "{text}"
    );
}

#[test]
fn a_workload_with_its_pools() {
    assert_snapshot!(text(Some("deploy/web")), @r#"
        POOL                   SUBNET   WORKLOAD              TOTAL   USED   FREE   STATE
        auto4-web-eth0-c0ffe   net4     Deployment shop/web   3       2      1      Ready

        ADDRESS     POD          NIC    NODE
        10.6.0.10   shop/web-a   eth0   n1
        10.6.0.11   shop/web-b   -      -

        ! SpiderIPPool auto4-web-eth0-c0ffe: SubnetExhausted: Deployment shop/web wants 9 addresses, IPPool
          auto4-web-eth0-c0ffe has 3
        "#);
    assert_eq!(text(Some("shop/deploy/web")), text(Some("deploy/web")));
}

#[test]
fn what_does_not_exist_is_refused_with_the_ways_to_name_things() {
    let sight = sight(&subnets(), &pools());
    let refused = |what| show(&sight, Some(what), "default").unwrap_err().to_string();
    assert_snapshot!(refused("net5"), @"no SpiderSubnet and no SpiderIPPool is called 'net5', and a workload is named [NAMESPACE/]KIND/NAME, such as deploy/web");
    assert_snapshot!(refused("deploy/web"), @"Deployment default/web has no pool of its own: see its events, or `orbweaver ipam explain` one of its Pods");
    assert_snapshot!(refused("pool/net4"), @"no SpiderSubnet and no SpiderIPPool is called 'net4', and a workload is named [NAMESPACE/]KIND/NAME, such as deploy/web");
}

#[test]
fn a_program_gets_numbers_and_the_allocations_of_what_it_named() {
    let sight = sight(&subnets(), &pools());
    let shown = show(&sight, Some("shop/deploy/web"), "default").unwrap();
    let json = formatted(&shown, Format::Json, None).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let pool = &json["pools"][0];
    assert_eq!(
        (&pool["used"], &pool["free"], &pool["total"]),
        (&2.into(), &1.into(), &3.into())
    );
    assert_eq!(pool["allocations"][1]["pod"], "shop/web-b");
}

#[test]
fn an_empty_cluster_says_so() {
    let sight = sight(&[], &[]);
    let shown = show(&sight, None, "default").unwrap();
    assert_eq!(shown.text(None), "no SpiderSubnet and no SpiderIPPool\n");
}
