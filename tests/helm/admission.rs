//! Webhooks, their certificates and the deletion policy, on and off.

use serde_json::json;

use crate::chart::{at, env, refusal, render};

const OFF: &str = "spiderpoolController.webhook.enabled=false";
const WEBHOOK: &str = "orbweaver-controller-webhook";

#[test]
fn webhooks_come_with_a_service_a_secret_and_rights_for_just_these_names() {
    let Some(chart) = render(&[]) else { return };
    let service = chart.named("Service", "orbweaver-controller");
    let port =
        json!([{"name": "webhook", "port": 443, "targetPort": "webhook", "protocol": "TCP"}]);
    assert_eq!(service["spec"]["ports"], port);
    let labels = at(chart.one("Deployment"), "/spec/selector/matchLabels");
    assert_eq!(at(service, "/spec/selector"), labels);
    let secret = chart.named("Secret", "orbweaver-controller-tls");
    assert!(secret["data"].is_null(), "an upgrade would empty it");
    let rules = json!([
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            "resourceNames": ["orbweaver-controller"], "verbs": ["get", "create", "patch"],
        },
        {
            "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
            "resourceNames": [WEBHOOK], "verbs": ["get"],
        },
    ]);
    assert_eq!(chart.named("ClusterRole", WEBHOOK)["rules"], rules);
    let rules = json!([{
        "apiGroups": [""], "resources": ["secrets"],
        "resourceNames": ["orbweaver-controller-tls"], "verbs": ["get", "update"],
    }]);
    assert_eq!(chart.named("Role", WEBHOOK)["rules"], rules);
    // The controller writes the configurations; helm must not know them.
    for kind in [
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
    ] {
        assert!(chart.kind(kind).is_empty(), "{kind}");
    }
    let pod = chart.pod("Deployment");
    for (name, value) in [
        ("SPIDERPOOL_WEBHOOK_PORT", "5722"),
        ("ORBWEAVER_WEBHOOK_SERVICE", "orbweaver-controller"),
        ("ORBWEAVER_WEBHOOK_OWNER", WEBHOOK),
        ("ORBWEAVER_WEBHOOK_FAILURE_POLICY", "Ignore"),
        ("ORBWEAVER_TLS_SECRET", "orbweaver-controller-tls"),
        ("ORBWEAVER_TLS_METHOD", "auto"),
        ("ORBWEAVER_CA_LIFETIME", "3650d"),
        ("ORBWEAVER_CERTIFICATE_LIFETIME", "90d"),
    ] {
        assert_eq!(env(pod, name), Some(value), "{name}");
    }
    let ports = at(pod, "/containers/0/ports").as_array().unwrap();
    assert!(
        ports
            .iter()
            .any(|port| port["name"] == "webhook" && port["containerPort"] == 5722)
    );
    let sleep = at(pod, "/containers/0/lifecycle/preStop/sleep/seconds");
    assert_eq!(sleep, 3);
}

#[test]
fn without_webhooks_nothing_of_them_is_there() {
    let Some(chart) = render(&[OFF]) else { return };
    for kind in ["Service", "Secret"] {
        assert!(chart.kind(kind).is_empty(), "{kind}");
    }
    let pod = chart.pod("Deployment");
    assert_eq!(env(pod, "SPIDERPOOL_WEBHOOK_PORT"), None);
    assert!(at(pod, "/containers/0").get("lifecycle").is_none());
    assert!(!chart.text.contains("admissionregistration.k8s.io\n"));
    assert!(!chart.text.contains(WEBHOOK) && !chart.text.contains("[secrets]"));
}

#[test]
fn failure_policy_port_and_lifetimes_are_what_the_values_say() {
    let Some(chart) = render(&[
        "spiderpoolController.webhook.failurePolicy=Fail",
        "spiderpoolController.webhookPort=6000",
        "spiderpoolController.tls.auto.caExpiration=12h",
        "spiderpoolController.tls.auto.certExpiration=1",
        "spiderpoolController.tls.auto.extraDnsNames={a.example,b.example}",
        "spiderpoolController.tls.auto.extraIpAddresses={10.0.0.7}",
        "spiderpoolController.tls.secretName=mine",
    ]) else {
        return;
    };
    let pod = chart.pod("Deployment");
    for (name, value) in [
        ("ORBWEAVER_WEBHOOK_FAILURE_POLICY", "Fail"),
        ("SPIDERPOOL_WEBHOOK_PORT", "6000"),
        ("ORBWEAVER_CA_LIFETIME", "12h"),
        ("ORBWEAVER_CERTIFICATE_LIFETIME", "1d"),
        ("ORBWEAVER_TLS_EXTRA_NAMES", "a.example,b.example,10.0.0.7"),
        ("ORBWEAVER_TLS_SECRET", "mine"),
    ] {
        assert_eq!(env(pod, name), Some(value), "{name}");
    }
    let rule = at(chart.named("Role", WEBHOOK), "/rules/0/resourceNames/0");
    assert_eq!(rule, "mine");
    for (wrong, place) in [
        ("webhook.failurePolicy=Maybe", "/webhook/failurePolicy"),
        ("tls.method=self", "/tls/method"),
        ("tls.auto.caExpiration=10y", "/tls/auto/caExpiration"),
    ] {
        let why = refusal(&[&format!("spiderpoolController.{wrong}")]).unwrap();
        assert!(why.contains(place), "{wrong}: {why}");
    }
}

#[test]
fn certificates_of_others_are_only_read() {
    let provided = "spiderpoolController.tls.method=provided";
    let manager = "spiderpoolController.tls.method=certmanager";
    let issuer = "spiderpoolController.tls.certmanager.issuerName=ca";
    for values in [&[provided][..], &[manager, issuer]] {
        let Some(chart) = render(values) else { return };
        assert!(chart.kind("Secret").is_empty());
        assert_eq!(
            at(chart.named("Role", WEBHOOK), "/rules/0/verbs"),
            &json!(["get"])
        );
        assert_eq!(
            env(chart.pod("Deployment"), "ORBWEAVER_TLS_METHOD"),
            Some("provided")
        );
    }
    let chart = render(&[manager, issuer]).unwrap();
    let certificate = &chart.one("Certificate")["spec"];
    assert_eq!(certificate["secretName"], "orbweaver-controller-tls");
    let names = json!([
        "orbweaver-controller.net-system.svc",
        "orbweaver-controller.net-system"
    ]);
    assert_eq!(certificate["dnsNames"], names);
    assert_eq!(
        certificate["issuerRef"],
        json!({"kind": "Issuer", "name": "ca"})
    );
    assert_eq!(
        (&certificate["duration"], &certificate["renewBefore"]),
        (&json!("2160h"), &json!("720h"))
    );
    let why = refusal(&[manager]).unwrap();
    assert!(why.contains("tls.certmanager.issuerName is empty"), "{why}");
}

#[test]
fn the_deletion_policy_is_for_others_than_the_controller_and_can_be_switched_off() {
    let Some(chart) = render(&[]) else { return };
    let policy = &chart.one("ValidatingAdmissionPolicy")["spec"];
    let rule = at(policy, "/matchConstraints/resourceRules/0");
    assert_eq!(rule["operations"], json!(["DELETE"]));
    assert_eq!(rule["resources"], json!(["spiderippools", "spidersubnets"]));
    let account = "system:serviceaccount:net-system:orbweaver-controller";
    let condition = at(policy, "/matchConditions/0/expression")
        .as_str()
        .unwrap();
    assert_eq!(
        condition,
        format!("request.userInfo.username != '{account}'")
    );
    let told = at(policy, "/validations/0/messageExpression");
    let told = told.as_str().unwrap();
    for part in [
        "delete the Pods",
        "orbweaver ipam gc --dry-run",
        "quarantine",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let binding = chart.one("ValidatingAdmissionPolicyBinding");
    assert_eq!(binding["spec"]["policyName"], "orbweaver-deletion");
    let off = "spiderpoolController.enableValidatingResourcesDeletedWebhook=false";
    let chart = render(&[off]).unwrap();
    assert!(chart.kind("ValidatingAdmissionPolicy").is_empty());
    assert!(chart.kind("ValidatingAdmissionPolicyBinding").is_empty());
}
