//! What becomes of the steps that come after one which the API server refused.

use http::Method;
use ipam::addr::AddrSet;
use ipam::annotation::SizeRule;
use ipam::name::Uid;
use ipam::plan::{Needs, SubnetSeen};
use ipam::subnet::Entry;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::super::index::Index;
use super::super::testing::{self, Stage};
use super::super::workload;
use super::*;
use crate::api::names;

/// A client that gets 403 for every call of this method on pools.
fn refused(stage: &Stage, method: Method) -> Client {
    testing::forbidding(&stage.server, move |request| {
        request.method() == method && request.uri().path().contains("spiderippools")
    })
}

/// Subnet `net4`, and a Deployment of two that asks for addresses of it.
async fn observed(stage: &Stage) -> Observed {
    let subnet = json!({
        "apiVersion": names::API_VERSION, "kind": names::KIND_SUBNET, "metadata": {"name": "net4", "finalizers": [names::FINALIZER]},
        "spec": {"subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.19"]},
    });
    stage.put(subnet).await;
    let subnet: Option<SpiderSubnet> = stage.get(Api::all(stage.client.clone()), "net4").await;
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"annotations": {"ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#}},
            "spec": {"containers": []}}}
    }))
    .unwrap();
    let index = Index::new(testing::options().features);
    index.subnet("net4", subnet.map(Arc::new).as_ref());
    let web = workload::seen(&deployment, SizeRule::Flexible(0));
    index.workload(&Uid::from("d"), Some(web));
    index.observe(&"10.6.0.0/24".parse().unwrap())
}

async fn ledger(stage: &Stage) -> Option<String> {
    let subnet: Option<SpiderSubnet> = stage.get(Api::all(stage.client.clone()), "net4").await;
    subnet?.status?.controlled_ip_pools
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_refused_step_has_its_outcome_and_hides_it_from_nobody() {
    let stage = Stage::new().await;
    let mut seen = observed(&stage).await;
    seen.snapshot.live = true;
    let plan = plan::plan(&seen.snapshot, chrono::DateTime::UNIX_EPOCH);
    let after = |step: &Step| matches!(step, Step::After(_));
    assert!(plan.steps.iter().any(after), "{:?}", plan.steps);
    let done = apply(&Writer::new(refused(&stage, Method::POST)), &seen, &plan).await;
    let left_out = |error: &ApplyError| matches!(error, ApplyError::LeftOut { .. });
    assert!(done.errors.iter().any(left_out), "{:?}", done.errors);
    for error in &done.errors {
        // One that looks passing would have the CIDR come back without a rest.
        assert_eq!(error.outcome(), Outcome::Fatal, "{error}");
    }
    let why: Vec<_> = done.unwritten.values().collect();
    assert!(
        why[0].is_lasting() && why[0].message.contains("is forbidden"),
        "{why:?}"
    );
    assert_eq!(
        ledger(&stage).await,
        None,
        "it would name a pool that is not there"
    );
}

#[tokio::test(start_paused = true)]
async fn an_entry_stays_while_nobody_can_tell_whether_its_pool_is_gone() {
    for (method, is_written) in [(Method::GET, false), (Method::PUT, true)] {
        let stage = Stage::new().await;
        let seen = observed(&stage).await;
        let SubnetSeen::Readable(subnet) = &seen.snapshot.subnet else {
            panic!("{:?}", seen.snapshot.subnet);
        };
        let fence = Fence {
            uid: subnet.uid.clone(),
            version: subnet.version.clone(),
        };
        let entry = Entry {
            ips: AddrSet::default(),
            application: None,
        };
        let edit = LedgerEdit {
            pool: "gone".into(),
            entry,
            needs: Needs::Absent,
        };
        let plan = Plan {
            steps: vec![Step::Ledger {
                fence,
                edits: vec![edit],
            }],
            ..Plan::default()
        };
        let done = apply(&Writer::new(refused(&stage, method)), &seen, &plan).await;
        assert_eq!(done.ledger_written, is_written);
        let said: Vec<_> = done.errors.iter().map(ToString::to_string).collect();
        let expected = "look whether IPPool gone is gone failed";
        assert_eq!(said.contains(&expected.to_owned()), !is_written, "{said:?}");
        assert_eq!(
            done.unwritten.contains_key(&PoolName::from("gone")),
            !is_written
        );
    }
}
