//! What Pods have, beside what is recorded: finding by finding.

use super::*;
use crate::audit::{World, audit};
use crate::keep::Next;
use crate::testing::{in_quarantine, in_use, ip, pool, record, resident, running, subnet};

/// What is wrong, each as its reason and its pool or Pods.
fn told(pools: Vec<Pool>, residents: Vec<Resident>) -> Vec<String> {
    let world = World {
        subnets: vec![subnet("1-99", &[("a", "1-9"), ("b", "10-19")])],
        pools,
        residents: Some(residents),
    };
    let found = audit(&world);
    let all = found.iter().map(|violation| match violation {
        Violation::NotRecorded { pool, pod, .. } => format!("NotRecorded {pool} {pod}"),
        Violation::HeldForAnother { recorded, pod, .. } => {
            format!("HeldForAnother {pod} {recorded}")
        }
        Violation::OnTwoPods { first, second, .. } => format!("OnTwoPods {first} {second}"),
        Violation::Orphan { pod, .. } => format!("Orphan {pod}"),
        other @ (Violation::HeldTwice { .. }
        | Violation::PoolsOverlap { .. }
        | Violation::EntriesOverlap { .. }
        | Violation::NotInLedger { .. }
        | Violation::TwoForOneNic { .. }) => other.reason().to_owned(),
    });
    all.collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_pod_has_what_is_recorded_for_it_and_what_is_no_pool_s() {
    let a = in_use("3", pool("a", "1-9"));
    assert_eq!(
        told(vec![a.clone()], vec![running("p3", 3), running("far", 200)]),
        NOTHING
    );
    // Two Pods say so of an address that is no pool's: not ours to tell.
    assert_eq!(
        told(vec![], vec![running("x", 200), running("y", 200)]),
        NOTHING
    );
}

#[test]
fn what_a_running_pod_has_is_recorded_and_for_it() {
    let a = || pool("a", "1-9");
    assert_eq!(
        told(vec![a()], vec![running("x", 3)]),
        ["NotRecorded a shop/x"]
    );
    let other = in_use("3", a());
    let of_both = vec![running("x", 3), running("p3", 4)];
    assert_eq!(
        told(vec![other], of_both),
        ["NotRecorded a shop/p3", "HeldForAnother shop/x shop/p3"]
    );
    for life in [Life::Silent, Life::Leaving, Life::Gone] {
        assert_eq!(
            told(vec![a()], vec![resident("x", life, 3)]),
            NOTHING,
            "{life:?}"
        );
    }
}

#[test]
fn the_pool_that_could_give_an_address_away_is_the_one_to_record_it() {
    let x = || vec![running("x", 3)];
    let with = |change: fn(&mut Pool)| {
        let mut changed = pool("a", "1-9");
        change(&mut changed);
        changed
    };
    let waiting = with(|pool| pool.admitted = None);
    let excluding = with(|pool| pool.excluded = crate::testing::ips("3"));
    let ending = with(|pool| pool.terminating = true);
    let other = with(|pool| {
        pool.name = "b".into();
        pool.admitted = None;
    });
    assert_eq!(told(vec![waiting.clone()], x()), ["NotRecorded a shop/x"]);
    assert_eq!(told(vec![excluding], x()), NOTHING);
    assert_eq!(told(vec![ending], x()), NOTHING);
    // One that is admitted comes before others, whatever they are called.
    let admitted = Pool {
        name: "c".into(),
        ..pool("a", "1-9")
    };
    let told = told(vec![other, waiting, admitted], x());
    assert!(
        told.contains(&"NotRecorded c shop/x".to_owned()),
        "{told:?}"
    );
}

#[test]
fn two_pods_with_one_address_are_told_unless_they_are_the_two_ends_of_a_move() {
    let both = || vec![running("source", 3), running("target", 3)];
    let mut moved = pool("a", "1-9");
    let held = Record {
        next: Some(Next {
            pod: PodName::new("shop", "target"),
            uid: "target".into(),
            node: "n2".into(),
            sandbox: "s".into(),
        }),
        ..record("source")
    };
    moved.records.insert(ip(3), held.clone());
    assert_eq!(told(vec![moved.clone()], both()), NOTHING);
    for (source, target) in [("source", "x"), ("x", "target"), ("x", "y")] {
        let residents = vec![running(source, 3), running(target, 3)];
        let told = told(vec![moved.clone()], residents);
        assert!(
            told.iter().any(|line| line.starts_with("OnTwoPods")),
            "{told:?}"
        );
    }
}

#[test]
fn a_record_without_a_pod_and_a_node_is_an_orphan_unless_it_is_kept_or_in_quarantine() {
    let held = |change: fn(&mut Record)| {
        let mut own = pool("a", "1-9");
        let mut held = record("x");
        change(&mut held);
        own.records.insert(ip(3), held);
        vec![own]
    };
    assert_eq!(told(held(|_| {}), vec![]), ["Orphan shop/x"]);
    assert_eq!(
        told(held(|_| {}), vec![resident("x", Life::Gone, 3)]),
        ["Orphan shop/x"]
    );
    for life in [Life::Running, Life::Silent, Life::Leaving] {
        assert_eq!(
            told(held(|_| {}), vec![resident("x", life, 3)]),
            NOTHING,
            "{life:?}"
        );
    }
    // Its agent frees it.
    assert_eq!(
        told(held(|record| record.node = Some("n1".into())), vec![]),
        NOTHING
    );
    assert_eq!(told(held(|record| record.kept = true), vec![]), NOTHING);
    assert_eq!(
        told(vec![in_quarantine("3", pool("a", "1-9"))], vec![]),
        NOTHING
    );
}
