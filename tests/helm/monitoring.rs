//! Metrics, and what the chart brings to watch them: ports, monitors, alerts, the dashboard.

use serde_json::Value;

use crate::chart::{CHART, at, env, read, refusal, render, tool};

/// Values that switch everything of a role on.
const AGENT: [&str; 3] = [
    "spiderpoolAgent.prometheus.enabled=true",
    "spiderpoolAgent.prometheus.serviceMonitor.install=true",
    "spiderpoolAgent.prometheus.prometheusRule.install=true",
];

#[test]
fn metrics_are_served_only_on_request() {
    let (Some(off), Some(on)) = (render(&[]), render(&AGENT)) else {
        return;
    };
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        assert!(off.kind(kind).is_empty(), "{kind}");
    }
    let served = off.kind("Service").into_iter();
    let served: Vec<_> = served.map(|of| at(of, "/metadata/name")).collect();
    assert_eq!(served, ["orbweaver-controller"], "the webhooks' alone");
    for name in ["SPIDERPOOL_ENABLED_METRIC", "SPIDERPOOL_METRIC_HTTP_PORT"] {
        assert_eq!(env(off.pod("DaemonSet"), name), None);
        assert_eq!(env(on.pod("Deployment"), name), None);
    }
    let agent = on.pod("DaemonSet");
    assert_eq!(env(agent, "SPIDERPOOL_ENABLED_METRIC"), Some("true"));
    assert_eq!(env(agent, "SPIDERPOOL_METRIC_HTTP_PORT"), Some("5711"));
}

#[test]
fn a_monitor_finds_the_port_through_its_service() {
    let Some(chart) = render(&AGENT) else { return };
    let service = chart.named("Service", "orbweaver-agent-metrics");
    let monitor = chart.one("ServiceMonitor");
    let labels = at(monitor, "/spec/selector/matchLabels")
        .as_object()
        .unwrap();
    for (key, value) in labels {
        assert_eq!(service["metadata"]["labels"][key], *value, "{key}");
        let pod = at(chart.one("DaemonSet"), "/spec/template/metadata/labels");
        assert_eq!(pod[key], *value, "{key}");
    }
    let port = at(monitor, "/spec/endpoints/0/port");
    assert_eq!(at(service, "/spec/ports/0/name"), port);
    let ports = at(chart.pod("DaemonSet"), "/containers/0/ports");
    let named = ports.as_array().unwrap().iter();
    assert_eq!(named.filter(|one| one["name"] == *port).count(), 1);
}

#[test]
fn metrics_of_each_pool_are_a_switch_of_their_own() {
    let switches = [
        "spiderpoolController.prometheus.enabled=true",
        "spiderpoolController.prometheus.enabledDebugMetric=true",
    ];
    let (Some(few), Some(all)) = (render(&switches[..1]), render(&switches)) else {
        return;
    };
    let name = "SPIDERPOOL_ENABLED_DEBUG_METRIC";
    assert_eq!(env(few.pod("Deployment"), name), None);
    assert_eq!(env(all.pod("Deployment"), name), Some("true"));
}

#[test]
fn monitors_and_alerts_without_metrics_are_refused() {
    for (flag, what) in [(AGENT[1], "serviceMonitor"), (AGENT[2], "prometheusRule")] {
        let Some(why) = refusal(&[flag]) else { return };
        let expected = format!("{what}.install needs prometheus.enabled");
        assert!(why.contains(&expected), "{why}");
    }
}

#[test]
fn the_dashboard_is_a_config_map_that_grafana_finds() {
    let Some(chart) = render(&["grafanaDashboard.install=true"]) else {
        return;
    };
    let map = chart.named("ConfigMap", "orbweaver-dashboard");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let inside: Value =
        serde_json::from_str(map["data"]["orbweaver.json"].as_str().unwrap()).unwrap();
    let file: Value = serde_json::from_str(&read("files/dashboard.json")).unwrap();
    assert_eq!(inside, file);
}

#[test]
fn rendered_alerts_are_those_of_the_files() {
    let Some(chart) = render(&AGENT) else { return };
    let file: Value = serde_saphyr::from_str(&read("files/agent-rules.yaml")).unwrap();
    assert_eq!(chart.one("PrometheusRule")["spec"], file);
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let told = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/helm/alerts.yaml");
    let tests: Value = serde_saphyr::from_str(&std::fs::read_to_string(told).unwrap()).unwrap();
    let tests = tests.to_string();
    let runbook = include_str!("../../docs/operations.md");
    for role in ["agent", "controller"] {
        let rules = format!("{CHART}/files/{role}-rules.yaml");
        let Some(checked) = tool("promtool", &["check", "rules", &rules]) else {
            return;
        };
        assert!(checked.status.success(), "{checked:?}");
        let rules: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(rules).unwrap()).unwrap();
        for rule in at(&rules, "/groups/0/rules").as_array().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            let firing = format!("\"alertname\":\"{name}\"");
            assert!(tests.contains(&firing), "no test of alert {name}");
            let heading = format!("\n### {name}\n");
            assert!(runbook.contains(&heading), "no runbook for {name}");
            let anchor = format!("docs/operations.md#{}", name.to_lowercase());
            let url = at(rule, "/annotations/runbook_url").as_str().unwrap();
            assert!(url.ends_with(&anchor), "{url} of {name}");
        }
    }
    let Some(tried) = tool("promtool", &["test", "rules", told]) else {
        return;
    };
    let said = String::from_utf8_lossy(&tried.stderr);
    assert!(tried.status.success(), "{said}");
}
