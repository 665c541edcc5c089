//! What each role may do in the cluster, and its containers on a node.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use orbweaver::allocator::announce::AUDIENCE;

use crate::chart::{Chart, at, env, refusal, render, template_for};

/// Agents ask nobody.
const NO_ALLOCATOR: &str = "ipam.allocator.enable=false";

#[test]
fn no_right_is_a_wildcard() {
    let Some(chart) = render(&[]) else { return };
    for role in [chart.kind("ClusterRole"), chart.kind("Role")].concat() {
        for right in rights(role) {
            assert!(!right.contains('*'), "{right}");
        }
    }
}

#[test]
fn an_agent_writes_pool_status_endpoints_and_events_and_nothing_else() {
    let Some(chart) = render(&[]) else { return };
    let expected = [
        "create events.events.k8s.io",
        "create spiderendpoints.spiderpool.spidernet.io",
        "delete spiderendpoints.spiderpool.spidernet.io",
        "patch events.events.k8s.io",
        "update spiderendpoints.spiderpool.spidernet.io",
        "update spiderippools.spiderpool.spidernet.io/status",
    ];
    assert_eq!(
        writes(chart.named("ClusterRole", "orbweaver-agent")),
        set(&expected)
    );
}

#[test]
fn without_direct_writes_an_agent_changes_no_pool() {
    let Some(chart) = render(&["ipam.allocator.directWrites=false"]) else {
        return;
    };
    let rights = writes(chart.named("ClusterRole", "orbweaver-agent"));
    let on_pools: Vec<_> = rights.iter().filter(|r| r.contains("ippools")).collect();
    assert_eq!(on_pools, [] as [&String; 0]);
    let told = env(chart.pod("DaemonSet"), "ORBWEAVER_DIRECT_WRITES");
    assert_eq!(told, Some("false"));
}

#[test]
fn direct_writes_stay_where_the_allocator_cannot_know_an_agents_node() {
    let Some(old) = template_for("1.29.9", &["ipam.allocator.directWrites=false"]) else {
        return;
    };
    let why = String::from_utf8_lossy(&old.stderr);
    assert!(
        !old.status.success() && why.contains("v1.29.9 binds no token to a node"),
        "{why}"
    );
    let old = template_for("1.29.9", &[]).unwrap();
    assert!(old.status.success(), "{old:?}");
}

#[test]
fn without_the_allocator_nobody_asks_or_is_asked_for_addresses() {
    let Some(chart) = render(&[NO_ALLOCATOR]) else {
        return;
    };
    assert!(!chart.text.contains("ALLOCATOR") && !chart.text.contains("tokenreviews"));
    assert!(!chart.text.contains("allocator-token"));
    let why = refusal(&[NO_ALLOCATOR, "ipam.allocator.directWrites=false"]).unwrap();
    assert!(why.contains("nobody could record an address"), "{why}");
}

#[test]
fn conflict_detection_needs_agents_that_write() {
    let values = [
        "ipam.allocator.directWrites=false",
        "ipam.enableIPConflictDetection=true",
    ];
    let Some(why) = refusal(&values) else { return };
    assert!(why.contains("enableIPConflictDetection needs"), "{why}");
}

#[test]
fn an_agent_finds_the_allocator_by_the_lease_and_shows_a_token_of_its_own_for_it() {
    let values = ["spiderpoolController.allocatorPort=6000"];
    let Some(chart) = render(&values) else { return };
    let lease = set(&["get leases.coordination.k8s.io"]);
    let role = chart.named("Role", "orbweaver-agent");
    assert_eq!(rights(role), lease);
    let name = json!(["spiderpool-controller-leases"]);
    assert_eq!(*at(role, "/rules/0/resourceNames"), name);
    let volumes = chart.pod("DaemonSet")["volumes"].as_array().unwrap();
    let token = volumes
        .iter()
        .find(|v| v["name"] == "allocator-token")
        .unwrap();
    let source = at(token, "/projected/sources/0/serviceAccountToken");
    assert_eq!(source["audience"], AUDIENCE);
    for (name, value) in [
        ("ORBWEAVER_ALLOCATOR_PORT", "6000"),
        (
            "ORBWEAVER_AGENT_ACCOUNT",
            "system:serviceaccount:net-system:orbweaver-agent",
        ),
    ] {
        assert_eq!(env(chart.pod("Deployment"), name), Some(value));
    }
}

#[test]
fn the_controller_writes_pools_subnets_events_and_its_lease_takes_endpoints_away_and_nothing_else()
{
    let Some(chart) = render(&[NO_ALLOCATOR]) else {
        return;
    };
    let expected = [
        "create events.events.k8s.io",
        "create spiderippools.spiderpool.spidernet.io",
        "delete spiderendpoints.spiderpool.spidernet.io",
        "delete spiderippools.spiderpool.spidernet.io",
        "update spiderendpoints.spiderpool.spidernet.io",
        "update spiderippools.spiderpool.spidernet.io",
        "update spiderippools.spiderpool.spidernet.io/status",
        "update spidersubnets.spiderpool.spidernet.io",
        "update spidersubnets.spiderpool.spidernet.io/finalizers",
        "update spidersubnets.spiderpool.spidernet.io/status",
    ];
    let rights = writes(chart.named("ClusterRole", "orbweaver-controller"));
    assert_eq!(rights, set(&expected));
    let Some(asked) = render(&[]) else { return };
    let more = writes(asked.named("ClusterRole", "orbweaver-controller"));
    let tokens = "create tokenreviews.authentication.k8s.io".to_owned();
    assert_eq!(more.difference(&rights).collect::<Vec<_>>(), [&tokens]);
    let lease = [
        "create leases.coordination.k8s.io",
        "update leases.coordination.k8s.io",
    ];
    assert_eq!(
        writes(chart.named("Role", "orbweaver-controller")),
        set(&lease)
    );
}

/// A port or a host's path that SECURITY.md does not name is one that nobody weighed.
#[test]
fn the_security_page_names_each_port_that_is_listened_on_and_each_path_of_the_host() {
    let Some(chart) = render(&[
        "conflist.install=true",
        "spiderpoolAgent.prometheus.enabled=true",
        "spiderpoolController.prometheus.enabled=true",
    ]) else {
        return;
    };
    let page = include_str!("../../SECURITY.md");
    let (rights, listens) = page.split_once("## What listens").unwrap();
    let rows: Vec<_> = listens
        .lines()
        .filter(|line| line.starts_with("| 5"))
        .collect();
    for kind in ["DaemonSet", "Deployment"] {
        let ports = at(chart.pod(kind), "/containers/0/ports")
            .as_array()
            .unwrap();
        for port in ports {
            let port = port["containerPort"].to_string();
            assert!(rows.iter().any(|row| row.contains(&port)), "{kind}: {port}");
        }
        for volume in chart.pod(kind)["volumes"].as_array().unwrap() {
            if let Some(path) = volume["hostPath"]["path"].as_str() {
                assert!(rights.contains(&format!("`{path}`")), "{kind}: {path}");
            }
        }
    }
}

#[test]
fn each_third_party_kind_gives_the_roles_the_rights_to_read_it_and_no_other_does() {
    let list = "ipam.spiderSubnet.autoPool.thirdPartyControllers";
    let parts = [
        "[0].apiVersion=a.example/v1",
        "[0].kind=Box",
        "[0].resource=boxes",
        "[1].apiVersion=v1",
        "[1].kind=ReplicationController",
        "[1].resource=replicationcontrollers",
    ];
    let values = parts.map(|part| format!("{list}{part}"));
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let Some(with) = render(&values) else { return };
    let of_others = |name: &str| -> BTreeSet<String> {
        let mut all = rights(with.named("ClusterRole", name));
        let others = ["boxes", "replicationcontrollers", "definitions", "rollouts"];
        all.retain(|right| others.iter().any(|other| right.contains(other)));
        all
    };
    let expected = ["get boxes.a.example", "get replicationcontrollers"];
    assert_eq!(of_others("orbweaver-agent"), set(&expected));
    let expected = [
        "list boxes.a.example",
        "list customresourcedefinitions.apiextensions.k8s.io",
        "list replicationcontrollers",
        "watch boxes.a.example",
        "watch customresourcedefinitions.apiextensions.k8s.io",
        "watch replicationcontrollers",
    ];
    assert_eq!(of_others("orbweaver-controller"), set(&expected));
    let role = with.named("ClusterRole", "orbweaver-controller");
    let rules = role["rules"].as_array().unwrap();
    let definitions = rules
        .iter()
        .find(|rule| rule["resources"] == json!(["customresourcedefinitions"]));
    assert_eq!(
        definitions.unwrap()["resourceNames"],
        json!(["boxes.a.example", "replicationcontrollers."])
    );
}

#[test]
fn virtual_machines_are_read_where_they_keep_addresses_and_nowhere_else() {
    let of_machines = |chart: &Chart, name: &str| -> BTreeSet<String> {
        let mut all = rights(chart.named("ClusterRole", name));
        all.retain(|right| right.contains("kubevirt.io"));
        all
    };
    let Some(on) = render(&[]) else { return };
    let Some(off) = render(&["ipam.enableKubevirtStaticIP=false"]) else {
        return;
    };
    let kinds = ["virtualmachineinstances", "virtualmachines"];
    let all = |verbs: &[&str]| -> BTreeSet<String> {
        let each = verbs
            .iter()
            .flat_map(|verb| kinds.map(|kind| format!("{verb} {kind}.kubevirt.io")));
        each.collect()
    };
    assert_eq!(of_machines(&on, "orbweaver-agent"), all(&["get"]));
    assert_eq!(
        of_machines(&on, "orbweaver-controller"),
        all(&["get", "list"])
    );
    for name in ["orbweaver-agent", "orbweaver-controller"] {
        assert!(of_machines(&off, name).is_empty());
    }
}

#[test]
fn each_role_has_an_account_of_its_own_and_the_rights_are_bound_to_it() {
    let Some(chart) = render(&[]) else { return };
    for (role, name) in [
        ("DaemonSet", "orbweaver-agent"),
        ("Deployment", "orbweaver-controller"),
    ] {
        chart.named("ServiceAccount", name);
        assert_eq!(chart.pod(role)["serviceAccountName"], name);
        let binding = chart.named("ClusterRoleBinding", name);
        assert_eq!(at(binding, "/roleRef/name"), name);
        let account = json!([{"kind": "ServiceAccount", "name": name, "namespace": "net-system"}]);
        assert_eq!(binding["subjects"], account);
    }
}

#[test]
fn no_container_is_privileged_or_may_write_to_its_own_file_system() {
    let Some(chart) = render(&["conflist.install=true"]) else {
        return;
    };
    assert!(!chart.text.contains("Bidirectional"));
    let least = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    for container in chart.containers() {
        assert_eq!(container["securityContext"], least, "{}", container["name"]);
    }
    for role in ["DaemonSet", "Deployment"] {
        let profile = at(chart.pod(role), "/securityContext/seccompProfile/type");
        assert_eq!(profile, "RuntimeDefault");
    }
    assert_eq!(
        at(chart.pod("Deployment"), "/securityContext/runAsNonRoot"),
        true
    );
}

fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(ToString::to_string).collect()
}

/// A role's rights as `verb resource.group/subresource`.
fn rights(role: &Value) -> BTreeSet<String> {
    let strings = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                let full = match (group.as_str(), resource.split_once('/')) {
                    ("", _) => resource,
                    (group, None) => format!("{resource}.{group}"),
                    (group, Some((main, sub))) => format!("{main}.{group}/{sub}"),
                };
                rights.extend(
                    strings(&rule["verbs"])
                        .iter()
                        .map(|verb| format!("{verb} {full}")),
                );
            }
        }
    }
    rights
}

fn writes(role: &Value) -> BTreeSet<String> {
    let reads = ["get ", "list ", "watch "];
    let mut rights = rights(role);
    rights.retain(|right| !reads.iter().any(|read| right.starts_with(read)));
    rights
}
