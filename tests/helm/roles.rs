//! The agent's and the controller's Pods.

use serde_json::{Value, json};

use crate::chart::{at, env, host_path_at, refusal, render};

#[test]
fn the_agent_installs_the_plugin_into_the_directory_that_the_values_name() {
    for dir in ["/opt/cni/bin", "/usr/libexec/cni"] {
        let Some(chart) = render(&[&format!("global.cniBinHostPath={dir}")]) else {
            return;
        };
        let pod = chart.pod("DaemonSet");
        let install = at(pod, "/initContainers/0");
        let args = json!([
            "install-cni",
            "--from",
            "/usr/bin/spiderpool",
            "--to",
            "/host/cni/bin"
        ]);
        assert_eq!(install["args"], args);
        assert_eq!(host_path_at(pod, install, "/host/cni/bin"), dir);
    }
}

#[test]
fn the_socket_path_moves_the_mount_and_the_configuration_together() {
    for socket in [
        "/var/run/spidernet/spiderpool.sock",
        "/run/orbweaver/agent.sock",
    ] {
        let value = format!("global.ipamUNIXSocketHostPath={socket}");
        let Some(chart) = render(&[&value]) else {
            return;
        };
        let dir = socket.rsplit_once('/').unwrap().0;
        let pod = chart.pod("DaemonSet");
        assert_eq!(host_path_at(pod, at(pod, "/containers/0"), dir), dir);
        assert_eq!(chart.conf()["ipamUnixSocketPath"], socket);
    }
}

#[test]
fn the_agent_sees_the_network_namespaces_come_and_go_and_cannot_touch_them() {
    let Some(chart) = render(&[]) else {
        return;
    };
    let pod = chart.pod("DaemonSet");
    let agent = at(pod, "/containers/0");
    let dir = "/var/run/netns";
    assert_eq!(host_path_at(pod, agent, dir), dir);
    let mounts = at(agent, "/volumeMounts").as_array().unwrap();
    let mount = mounts
        .iter()
        .find(|mount| mount["mountPath"] == dir)
        .unwrap();
    assert_eq!(mount["readOnly"], true);
    assert_eq!(mount["mountPropagation"], "HostToContainer");
}

#[test]
fn no_network_configuration_is_written_to_nodes_unless_asked_for() {
    let Some(chart) = render(&["global.cniConfHostPath=/etc/elsewhere"]) else {
        return;
    };
    assert_eq!(chart.kind("ConfigMap").len(), 1);
    assert_eq!(
        at(chart.pod("DaemonSet"), "/initContainers")
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert!(!chart.text.contains("/etc/elsewhere"));
}

#[test]
fn a_conflist_is_installed_where_the_runtime_reads_it() {
    let Some(chart) = render(&[
        "conflist.install=true",
        "conflist.fileName=05-net.conflist",
        "conflist.plugins[0].type=bridge",
        "conflist.plugins[0].ipam.type=spiderpool",
        "conflist.plugins[1].type=tuning",
        "global.cniConfHostPath=/etc/elsewhere",
    ]) else {
        return;
    };
    let list: Value =
        serde_json::from_str(&chart.data("orbweaver-conflist", "05-net.conflist")).unwrap();
    let expected = json!({
        "cniVersion": "1.0.0",
        "name": "orbweaver",
        "plugins": [{"type": "bridge", "ipam": {"type": "spiderpool"}}, {"type": "tuning"}],
    });
    assert_eq!(list, expected);
    let pod = chart.pod("DaemonSet");
    let install = at(pod, "/initContainers/1");
    assert_eq!(
        install["args"][2],
        "/etc/orbweaver/conflist/05-net.conflist"
    );
    assert_eq!(install["args"][4], "/host/cni/net.d");
    assert_eq!(
        host_path_at(pod, install, "/host/cni/net.d"),
        "/etc/elsewhere"
    );
}

#[test]
fn a_conflist_names_the_socket_where_it_is_not_the_one_the_plugin_assumes() {
    let moved = "global.ipamUNIXSocketHostPath=/run/orbweaver/agent.sock";
    let Some(chart) = render(&["conflist.install=true", moved]) else {
        return;
    };
    let list = chart.data("orbweaver-conflist", "00-orbweaver.conflist");
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        at(&list, "/plugins/0/ipam/ipam_unix_socket_path"),
        "/run/orbweaver/agent.sock"
    );
}

#[test]
fn the_agent_runs_on_every_linux_node_unless_a_selector_says_otherwise() {
    let Some(chart) = render(&["spiderpoolAgent.nodeSelector.real=yes"]) else {
        return;
    };
    let pod = chart.pod("DaemonSet");
    assert_eq!(
        pod["nodeSelector"],
        json!({"kubernetes.io/os": "linux", "real": "yes"})
    );
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
}

#[test]
fn on_the_hosts_network_an_upgrade_frees_the_port_before_it_needs_it() {
    let Some(chart) = render(&["spiderpoolController.hostnetwork=true"]) else {
        return;
    };
    let pod = chart.pod("Deployment");
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["dnsPolicy"], "Default");
    let strategy = at(chart.one("Deployment"), "/spec/strategy/rollingUpdate");
    assert_eq!(*strategy, json!({"maxSurge": 0, "maxUnavailable": 1}));
}

#[test]
fn on_the_pods_network_an_upgrade_never_goes_below_the_replicas() {
    let Some(chart) = render(&["spiderpoolController.hostnetwork=false"]) else {
        return;
    };
    let pod = chart.pod("Deployment");
    assert!(pod.get("hostNetwork").is_none());
    assert!(pod.get("dnsPolicy").is_none());
    let strategy = at(chart.one("Deployment"), "/spec/strategy/rollingUpdate");
    assert_eq!(*strategy, json!({"maxSurge": 1, "maxUnavailable": 0}));
}

#[test]
fn replicas_prefer_different_nodes_and_never_insist() {
    let Some(chart) = render(&["spiderpoolController.replicas=2"]) else {
        return;
    };
    assert_eq!(at(chart.one("Deployment"), "/spec/replicas"), 2);
    let affinity = at(chart.pod("Deployment"), "/affinity/podAntiAffinity");
    assert!(
        affinity
            .get("preferredDuringSchedulingIgnoredDuringExecution")
            .is_some()
    );
    assert!(
        affinity
            .get("requiredDuringSchedulingIgnoredDuringExecution")
            .is_none()
    );
}

#[test]
fn the_controller_leaves_a_lost_node() {
    let Some(chart) = render(&["spiderpoolController.nodeSelector.real=yes"]) else {
        return;
    };
    let pod = chart.pod("Deployment");
    assert_eq!(
        pod["nodeSelector"],
        json!({"kubernetes.io/os": "linux", "real": "yes"})
    );
    for toleration in pod["tolerations"].as_array().unwrap() {
        let stays =
            toleration["effect"] != "NoSchedule" && toleration["tolerationSeconds"].is_null();
        assert!(!stays, "{toleration} keeps the Pod on a lost node for ever");
    }
}

#[test]
fn a_disruption_budget_is_there_only_if_asked_for() {
    let flag = "spiderpoolController.podDisruptionBudget";
    let Some(off) = render(&[]) else { return };
    assert!(off.kind("PodDisruptionBudget").is_empty());
    let Some(on) = render(&[
        &format!("{flag}.enabled=true"),
        &format!("{flag}.minAvailable=2"),
        "spiderpoolController.replicas=3",
    ]) else {
        return;
    };
    assert_eq!(at(on.one("PodDisruptionBudget"), "/spec/minAvailable"), 2);
}

#[test]
fn a_disruption_budget_that_lets_no_node_be_drained_is_refused() {
    let flag = "spiderpoolController.podDisruptionBudget";
    let Some(why) = refusal(&[&format!("{flag}.enabled=true")]) else {
        return;
    };
    assert!(why.contains("minAvailable is 1 of 1 replicas"), "{why}");
}

#[test]
fn the_api_server_is_found_through_its_service_unless_an_address_is_given() {
    let Some(off) = render(&[]) else { return };
    let Some(on) = render(&["apiServer.host=192.168.137.1", "apiServer.port=6443"]) else {
        return;
    };
    for role in ["DaemonSet", "Deployment"] {
        assert_eq!(env(off.pod(role), "KUBERNETES_SERVICE_HOST"), None);
        assert_eq!(env(off.pod(role), "KUBERNETES_SERVICE_PORT"), None);
        assert_eq!(
            env(on.pod(role), "KUBERNETES_SERVICE_HOST").unwrap(),
            "192.168.137.1"
        );
        assert_eq!(
            env(on.pod(role), "KUBERNETES_SERVICE_PORT").unwrap(),
            "6443"
        );
    }
}

#[test]
fn the_agent_is_told_the_multus_network_of_first_interfaces() {
    const NETWORK: &str = "MULTUS_CLUSTER_NETWORK";
    let name = "multus.multusCNI.defaultCniCRName=kube-system/macvlan";
    let (Some(off), Some(on)) = (render(&[]), render(&[name])) else {
        return;
    };
    assert_eq!(env(off.pod("DaemonSet"), NETWORK), None);
    assert_eq!(
        env(on.pod("DaemonSet"), NETWORK).unwrap(),
        "kube-system/macvlan"
    );
    assert_eq!(env(on.pod("Deployment"), NETWORK), None);
}

#[test]
fn half_an_api_server_address_is_refused() {
    for half in ["apiServer.host=192.168.137.1", "apiServer.port=6443"] {
        let Some(why) = refusal(&[half]) else { return };
        assert!(why.contains("set both"), "{why}");
    }
}

#[test]
fn the_health_port_reaches_the_program_and_the_probes() {
    for (role, values, default) in [
        ("DaemonSet", "spiderpoolAgent", "5710"),
        ("Deployment", "spiderpoolController", "5720"),
    ] {
        for (set, port) in [
            (None, default),
            (Some(format!("{values}.httpPort=6001")), "6001"),
        ] {
            let set: Vec<&str> = set.iter().map(String::as_str).collect();
            let Some(chart) = render(&set) else { return };
            let pod = chart.pod(role);
            let container = at(pod, "/containers/0");
            assert_eq!(env(pod, "SPIDERPOOL_HEALTH_PORT").unwrap(), port);
            assert_eq!(at(container, "/ports/0/containerPort").to_string(), port);
            for probe in ["startup", "liveness", "readiness"] {
                let get = at(container, &format!("/{probe}Probe/httpGet"));
                assert_eq!(
                    *get,
                    json!({"path": format!("/v1/runtime/{probe}"), "port": "health"})
                );
            }
        }
    }
}

#[test]
fn one_image_serves_every_container() {
    let digest = format!("image.digest=sha256:{}", "a".repeat(64));
    let pinned = format!("docker.io/orbweaver/orbweaver@sha256:{}", "a".repeat(64));
    let version = env!("CARGO_PKG_VERSION");
    let cases: [(&[&str], String); 5] = [
        (&[], format!("docker.io/orbweaver/orbweaver:{version}")),
        (
            &["image.tag=dev"],
            "docker.io/orbweaver/orbweaver:dev".into(),
        ),
        (
            &["image.repository=r.example:5000/x/y", "image.tag=v1"],
            "r.example:5000/x/y:v1".into(),
        ),
        (
            &["global.imageRegistryOverride=m.example", "image.tag=v1"],
            "m.example/orbweaver/orbweaver:v1".into(),
        ),
        (&[&digest], pinned),
    ];
    for (values, expected) in cases {
        let values = [values, &["conflist.install=true", "image.pullPolicy=Never"]].concat();
        let Some(chart) = render(&values) else { return };
        for container in chart.containers() {
            assert_eq!(container["image"], *expected);
            assert_eq!(container["imagePullPolicy"], "Never");
        }
    }
}

#[test]
fn a_role_takes_its_pods_settings_from_its_own_values() {
    for (role, values, other) in [
        ("DaemonSet", "spiderpoolAgent", "Deployment"),
        ("Deployment", "spiderpoolController", "DaemonSet"),
    ] {
        let sets = [
            "debug.logLevel=debug",
            "priorityClassName=mine",
            "podAnnotations.a=b",
            "podLabels.c=d",
            "resources.requests.cpu=7m",
            "extraEnv[0].name=RUST_BACKTRACE",
            "extraEnv[0].value=full",
            "affinity.nodeAffinity.mine=yes",
            "securityContext.seLinuxOptions.type=spc_t",
            "healthChecking.livenessProbe.periodSeconds=77",
        ]
        .map(|set| format!("{values}.{set}"));
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let Some(chart) = render(&sets) else { return };
        let template = at(chart.one(role), "/spec/template");
        let pod = chart.pod(role);
        assert_eq!(env(pod, "SPIDERPOOL_LOG_LEVEL").unwrap(), "debug");
        assert_eq!(
            env(chart.pod(other), "SPIDERPOOL_LOG_LEVEL").unwrap(),
            "info"
        );
        assert_eq!(env(pod, "RUST_BACKTRACE").unwrap(), "full");
        assert_eq!(pod["priorityClassName"], "mine");
        assert_eq!(at(template, "/metadata/annotations/a"), "b");
        assert_eq!(at(template, "/metadata/labels/c"), "d");
        assert_eq!(at(pod, "/affinity/nodeAffinity/mine"), "yes");
        let container = at(pod, "/containers/0");
        assert_eq!(at(container, "/resources/requests/cpu"), "7m");
        assert_eq!(
            at(container, "/securityContext/seLinuxOptions/type"),
            "spc_t"
        );
        assert_eq!(
            at(container, "/securityContext/capabilities/drop"),
            &json!(["ALL"])
        );
        assert_eq!(at(container, "/livenessProbe/periodSeconds"), 77);
    }
}

#[test]
fn names_labels_and_annotations_can_be_given_for_every_object() {
    let Some(chart) = render(&[
        "global.nameOverride=net",
        "global.configName=net-conf",
        "spiderpoolController.tls.secretName=net-tls",
        "global.commonLabels.team=a",
        "global.commonAnnotations.note=b",
    ]) else {
        return;
    };
    for object in &chart.objects {
        let name = at(object, "/metadata/name").as_str().unwrap();
        assert!(name == "net" || name.starts_with("net-"), "{object}");
        assert_eq!(at(object, "/metadata/labels/team"), "a");
        assert_eq!(
            at(object, "/metadata/labels/app.kubernetes.io~1name"),
            "orbweaver"
        );
        assert_eq!(at(object, "/metadata/annotations/note"), "b");
    }
    for role in ["DaemonSet", "Deployment"] {
        assert_eq!(at(chart.pod(role), "/volumes/0/configMap/name"), "net-conf");
    }
}
