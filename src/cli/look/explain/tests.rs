use insta::assert_snapshot;
use ipam::addr::Family as AddrFamily;
use ipam::name::{PoolName, Uid, WorkloadId};
use ipam::select::Refusal;
use serde_json::json;

use super::*;
use crate::agent::explain::{Ranking, Verdict};
use crate::cli::look::testing::{pools, sight, subnets};

fn pod(uid: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-c", "namespace": "shop", "uid": uid},
        "spec": {"nodeName": "n1", "containers": []}
    }))
    .unwrap()
}

fn explanation(serving: &[&str], refused: &[&str]) -> Explanation {
    let sight = sight(&subnets(), &pools());
    let pool = |name: &str| {
        let found = sight.world.pools.iter().find(|p| p.name.as_str() == name);
        Box::new(found.unwrap().clone())
    };
    let yes = serving.iter().map(|name| Verdict {
        name: PoolName::from(*name),
        verdict: Ok(pool(name)),
    });
    let no = refused.iter().map(|name| Verdict {
        name: PoolName::from(*name),
        verdict: Err(Refusal::PodAffinity(PoolName::from(*name))),
    });
    Explanation {
        workload: WorkloadId {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: "web".into(),
            uid: Uid::from("w"),
        },
        families: vec![Ranking {
            family: AddrFamily::V4,
            rule: "Pod annotation 'ipam.spidernet.io/ippool'".into(),
            candidates: yes.chain(no).collect(),
        }],
    }
}

fn explained(uid: &str, found: Result<Explanation, Unserved>) -> Explained {
    explained_of(uid, "eth0", found)
}

fn explained_of(uid: &str, nic: &str, found: Result<Explanation, Unserved>) -> Explained {
    answer(&pod(uid), nic, &sight(&subnets(), &pools()), found, vec![])
}

#[test]
fn each_candidate_has_its_verdict_and_the_pod_is_served_by_one_with_an_address() {
    let found = explanation(&["auto4-web-eth0-c0ffe"], &["shop"]);
    let explained = explained("c", Ok(found));
    assert!(explained.is_served);
    assert_snapshot!(explained.text(Some(100)), @r#"
        Pod:         shop/web-c
        Workload:    Deployment shop/web
        Node:        n1
        Interface:   eth0

        IPv4 by Pod annotation 'ipam.spidernet.io/ippool':
        POOL                   SERVES   FREE   WHY NOT
        auto4-web-eth0-c0ffe   yes      1      -
        shop                   no       -      unmatched Pod affinity of IPPool shop
        "#);
}

#[test]
fn a_pod_whose_every_candidate_refuses_is_not_served() {
    assert!(!explained("c", Ok(explanation(&[], &["shop"]))).is_served);
    assert!(
        explained("a", Ok(explanation(&[], &["shop"]))).is_served,
        "it has 10.6.0.10"
    );
}

#[test]
fn what_another_interface_or_family_has_serves_no_one() {
    assert!(!explained_of("a", "net1", Ok(explanation(&[], &["shop"]))).is_served);
    let mut both = explanation(&["auto4-web-eth0-c0ffe"], &[]);
    both.families.push(Ranking {
        family: AddrFamily::V6,
        rule: "Pod annotation 'ipam.spidernet.io/ippool'".into(),
        candidates: vec![],
    });
    assert!(!explained("a", Ok(both)).is_served);
}

#[test]
fn a_pod_without_candidates_is_told_what_its_cni_call_says() {
    let failure = "no IPPool available, no pool selection rules of any type are specified";
    let explained = explained("c", Err(Unserved::NoRule(failure.to_owned())));
    assert!(!explained.is_served);
    assert_snapshot!(explained.text(Some(100)), @r#"
        Pod:         shop/web-c
        Node:        n1
        Interface:   eth0
        Refused:     no IPPool available, no pool selection rules of any type are specified

        note: the node's CNI configuration may name pools too (default_ipv4_ippool, default_ipv6_ippool); it
              can't be seen from here
        "#);
}

#[test]
fn a_pod_is_named_as_kubectl_names_it() {
    let said = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        named(&words).map(|(namespace, name)| (namespace.map(str::to_owned), name.to_owned()))
    };
    let web = |namespace: Option<&str>| Some((namespace.map(str::to_owned), "web".to_owned()));
    assert_eq!(said(&["pod", "web"]), web(None));
    assert_eq!(said(&["po/web"]), web(None));
    assert_eq!(said(&["pods", "shop/web"]), web(Some("shop")));
    assert_eq!(said(&["shop/pod/web"]), web(Some("shop")));
    for wrong in [
        &["web"][..],
        &["deploy/web"],
        &["pod/"],
        &["/pod/web"],
        &["a/b/c/d"],
    ] {
        assert_eq!(said(wrong), None, "{wrong:?}");
    }
}
