//! conf.yml, and the default pools that values can ask for.

use std::path::Path;

use orbweaver::config::Config;
use serde_json::{Value, json};

use crate::chart::{Chart, at, env, refusal, render};

/// Values that make a default IPv4 pool complete.
const DEFAULT_POOL: [&str; 3] = [
    "clusterDefaultPool.installIPv4IPPool=true",
    "clusterDefaultPool.ipv4Subnet=172.18.41.0/24",
    "clusterDefaultPool.ipv4IPRanges={172.18.41.40-172.18.41.49}",
];

#[test]
fn the_configuration_has_exactly_the_keys_that_the_program_knows() {
    let Some(chart) = render(&[]) else { return };
    assert_eq!(chart.conf(), default_conf());
}

#[test]
fn the_charts_defaults_are_the_programs() {
    let Some(chart) = render(&[]) else { return };
    assert_eq!(program(&chart), Config::default());
}

#[test]
fn each_flag_of_ipam_changes_its_own_key_and_no_other() {
    let auto_pool = "ipam.spiderSubnet.autoPool";
    let redundant = format!("{auto_pool}.defaultRedundantIPNumber");
    let cases = [
        ("ipam.enableIPv4", "enableIPv4", ["true", "false"]),
        ("ipam.enableIPv6", "enableIPv6", ["true", "false"]),
        (
            "ipam.enableStatefulSet",
            "enableStatefulSet",
            ["true", "false"],
        ),
        (
            "ipam.enableKubevirtStaticIP",
            "enableKubevirtStaticIP",
            ["true", "false"],
        ),
        (
            "ipam.spiderEndpoint.mode",
            "spiderEndpoints",
            ["always", "never"],
        ),
        (
            "ipam.spiderEndpoint.mode",
            "spiderEndpoints",
            ["always", "stateful"],
        ),
        (
            "ipam.enableIPConflictDetection",
            "enableIPConflictDetection",
            ["true", "false"],
        ),
        (
            "ipam.enableGatewayDetection",
            "enableGatewayDetection",
            ["true", "false"],
        ),
        (
            "ipam.allocator.earlyBinding",
            "earlyBinding",
            ["true", "false"],
        ),
        (
            "ipam.spiderSubnet.enable",
            "enableSpiderSubnet",
            ["true", "false"],
        ),
        (
            &format!("{auto_pool}.enable"),
            "enableAutoPoolForApplication",
            ["true", "false"],
        ),
        (
            &redundant,
            "clusterSubnetAutoPoolDefaultRedundantIPNumber",
            ["0", "2500"],
        ),
    ];
    for (flag, key, settings) in cases {
        for setting in settings {
            let Some(chart) = render(&[&format!("{flag}={setting}")]) else {
                return;
            };
            let mut expected = default_conf();
            expected[key] = serde_json::from_str(setting).unwrap_or_else(|_| json!(setting));
            assert_eq!(chart.conf(), expected, "{flag}={setting}");
            assert_eq!(
                program(&chart) == Config::default(),
                expected == default_conf(),
                "{flag}={setting}"
            );
        }
    }
}

#[test]
fn nothing_is_bound_early_without_an_allocator() {
    let flags = [
        "ipam.allocator.enable=false",
        "ipam.allocator.earlyBinding=true",
    ];
    let Some(chart) = render(&flags) else { return };
    assert_eq!(chart.conf()["earlyBinding"], json!(false));
}

#[test]
fn both_families_off_is_refused_with_the_names_of_the_flags() {
    let Some(why) = refusal(&["ipam.enableIPv4=false", "ipam.enableIPv6=false"]) else {
        return;
    };
    assert!(
        why.contains("ipam.enableIPv4 and ipam.enableIPv6 are both false"),
        "{why}"
    );
}

#[test]
fn a_changed_configuration_replaces_the_pods_of_both_roles_and_a_changed_label_does_not() {
    let Some(before) = render(&[]) else { return };
    let Some(flag) = render(&["ipam.enableIPv6=false"]) else {
        return;
    };
    let Some(label) = render(&["spiderpoolController.replicas=3"]) else {
        return;
    };
    for role in ["DaemonSet", "Deployment"] {
        let sum = |chart: &Chart| {
            at(
                chart.one(role),
                "/spec/template/metadata/annotations/checksum~1config",
            )
            .clone()
        };
        assert_ne!(sum(&before), sum(&flag), "{role}");
        assert_eq!(sum(&before), sum(&label), "{role}");
    }
}

#[test]
fn no_default_pool_is_made_unless_asked_for() {
    let Some(chart) = render(&[]) else { return };
    assert!(chart.kind("SpiderIPPool").is_empty());
    assert!(chart.kind("SpiderSubnet").is_empty());
}

#[test]
fn a_default_pool_comes_with_its_subnet_and_both_outlive_the_release() {
    let gateway = "clusterDefaultPool.ipv4Gateway=172.18.41.1";
    let Some(chart) = render(&[&DEFAULT_POOL[..], &[gateway]].concat()) else {
        return;
    };
    let spec = json!({
        "ipVersion": 4,
        "subnet": "172.18.41.0/24",
        "ips": ["172.18.41.40-172.18.41.49"],
        "gateway": "172.18.41.1",
    });
    let subnet = chart.one("SpiderSubnet");
    assert_eq!(at(subnet, "/metadata/name"), "default-v4-subnet");
    assert_eq!(subnet["spec"], spec);
    let pool = chart.one("SpiderIPPool");
    assert_eq!(at(pool, "/metadata/name"), "default-v4-ippool");
    let mut of_pool = spec;
    of_pool["default"] = json!(true);
    assert_eq!(pool["spec"], of_pool);
    for object in [subnet, pool] {
        assert_eq!(
            at(object, "/metadata/annotations/helm.sh~1resource-policy"),
            "keep"
        );
    }
}

#[test]
fn an_ipv6_default_pool_has_values_of_its_own() {
    let Some(chart) = render(&[
        "clusterDefaultPool.installIPv6IPPool=true",
        "clusterDefaultPool.ipv6Subnet=fd00:172:18::/64",
        "clusterDefaultPool.ipv6IPRanges={fd00:172:18::40-fd00:172:18::49}",
        "clusterDefaultPool.ipv6IPPoolName=p6",
        "clusterDefaultPool.ipv6SubnetName=s6",
    ]) else {
        return;
    };
    assert_eq!(at(chart.one("SpiderSubnet"), "/metadata/name"), "s6");
    assert_eq!(at(chart.one("SpiderIPPool"), "/metadata/name"), "p6");
    assert_eq!(at(chart.one("SpiderIPPool"), "/spec/ipVersion"), 6);
}

#[test]
fn without_subnets_a_default_pool_stands_alone() {
    let off = "ipam.spiderSubnet.enable=false";
    let Some(chart) = render(&[&DEFAULT_POOL[..], &[off]].concat()) else {
        return;
    };
    assert!(chart.kind("SpiderSubnet").is_empty());
    assert_eq!(chart.kind("SpiderIPPool").len(), 1);
}

#[test]
fn a_default_pool_that_could_serve_nobody_is_refused_with_what_is_missing() {
    let cases: [(&[&str], &str); 3] = [
        (&DEFAULT_POOL[..1], "clusterDefaultPool.ipv4Subnet is empty"),
        (
            &DEFAULT_POOL[..2],
            "clusterDefaultPool.ipv4IPRanges is empty",
        ),
        (
            &[&DEFAULT_POOL[..], &["ipam.enableIPv4=false"]].concat(),
            "ipam.enableIPv4 is false",
        ),
    ];
    for (values, expected) in cases {
        let Some(why) = refusal(values) else { return };
        assert!(why.contains(expected), "{values:?}: {why}");
    }
}

fn default_conf() -> Value {
    json!({
        "ipamUnixSocketPath": "/var/run/spidernet/spiderpool.sock",
        "enableIPv4": true,
        "enableIPv6": true,
        "enableStatefulSet": true,
        "enableKubevirtStaticIP": true,
        "spiderEndpoints": "always",
        "enableIPConflictDetection": false,
        "enableGatewayDetection": false,
        "earlyBinding": false,
        "enableSpiderSubnet": true,
        "enableAutoPoolForApplication": true,
        "clusterSubnetAutoPoolDefaultRedundantIPNumber": 1,
        "thirdPartyControllers": [
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "resource": "rollouts"},
            {"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet", "resource": "clonesets"},
            {"apiVersion": "apps.kruise.io/v1beta1", "kind": "StatefulSet", "resource": "statefulsets"},
        ],
    })
}

/// The configuration as the program reads it, which refuses what it doesn't know.
fn program(chart: &Chart) -> Config {
    Config::parse(
        &chart.data("spiderpool-conf", "conf.yml"),
        Path::new("conf.yml"),
    )
    .unwrap()
}

#[test]
fn collection_is_the_controller_s_and_as_the_values_say() {
    let switches = [
        "ipam.gc.enabled=false",
        "ipam.gc.gcAll.intervalInSecond=5",
        "ipam.gc.gcDeletingTimeOutPodDelay=30",
        "ipam.gc.statelessPod.zombieOnNotReadyNode=false",
    ];
    let (Some(plain), Some(set)) = (render(&[]), render(&switches)) else {
        return;
    };
    let told = [
        ("SPIDERPOOL_GC_IP_ENABLED", "true", "false"),
        ("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "600", "5"),
        ("SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY", "0", "30"),
        (
            "SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_NOT_READY_NODE_ENABLED",
            "true",
            "false",
        ),
    ];
    for (name, by_default, when_set) in told {
        assert_eq!(env(plain.pod("Deployment"), name), Some(by_default));
        assert_eq!(env(set.pod("Deployment"), name), Some(when_set));
        assert_eq!(env(set.pod("DaemonSet"), name), None);
    }
}

#[test]
fn what_collection_does_not_do_is_refused() {
    for value in [
        "ipam.gc.gcAll.intervalInSecond=0",
        "ipam.gc.statelessPod.zombieOnReadyNode=true",
        "ipam.enableCleanOutdatedEndpoint=true",
    ] {
        let Some(why) = refusal(&[value]) else { return };
        let (key, _) = value.rsplit_once('=').unwrap();
        let name = key.rsplit('.').next().unwrap();
        assert!(why.contains(name), "{why}");
    }
}
