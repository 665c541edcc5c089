//! How the API server is asked to serve us when it is busy.

use serde_json::json;

use crate::chart::{at, refusal, render};

#[test]
fn the_api_server_serves_both_roles_by_account_and_their_leases_apart() {
    let namespace = "flowSchema.priorityLevel=workload-low";
    for (values, level) in [(&[][..], "workload-high"), (&[namespace], "workload-low")] {
        let Some(chart) = render(values) else { return };
        let expected = [
            ("orbweaver-leases", "leader-election"),
            ("orbweaver", level),
        ];
        for (name, level) in expected {
            let schema = chart.named("FlowSchema", name);
            assert_eq!(at(schema, "/spec/priorityLevelConfiguration/name"), level);
            assert_eq!(at(schema, "/spec/distinguisherMethod/type"), "ByUser");
            let account = |name| {
                let account = json!({"name": name, "namespace": "net-system"});
                json!({"kind": "ServiceAccount", "serviceAccount": account})
            };
            let accounts = json!([account("orbweaver-agent"), account("orbweaver-controller")]);
            assert_eq!(*at(schema, "/spec/rules/0/subjects"), accounts);
        }
        // The smaller number is asked first, and before those that every cluster has.
        let precedence = |name| {
            let schema = chart.named("FlowSchema", name);
            at(schema, "/spec/matchingPrecedence").as_u64().unwrap()
        };
        assert!(precedence("orbweaver-leases") < 200);
        assert!(precedence("orbweaver") < 900);
    }
}

#[test]
fn no_flow_schema_is_made_where_it_is_switched_off() {
    let Some(chart) = render(&["flowSchema.install=false"]) else {
        return;
    };
    assert!(chart.kind("FlowSchema").is_empty());
}

#[test]
fn a_misspelt_flag_of_the_flow_schema_is_refused() {
    let Some(why) = refusal(&["flowSchema.instal=true"]) else {
        return;
    };
    assert!(why.contains("instal"), "{why}");
}
