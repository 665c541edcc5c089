//! Repairs, finding by finding; `tests/repair_worlds.rs` has random worlds.

use super::*;
use crate::audit::{Life, Resident};
use crate::testing::{in_use, ip, ips, pool, record, resident, running, subnet};

fn world(pools: Vec<Pool>, entries: &[(&str, &str)], residents: Vec<Resident>) -> World {
    World {
        subnets: vec![subnet("1-99", entries)],
        pools,
        residents: Some(residents),
    }
}

/// Each finding with its remedy, and each step.
fn told(repair: &Repair) -> Vec<String> {
    let findings = repair.findings.iter();
    let findings = findings.map(|found| format!("{}: {}", found.reason, found.remedy));
    let steps = repair.steps.iter().map(|step| format!("- {step}"));
    findings.chain(steps).collect()
}

fn mended(world: &World) -> Vec<String> {
    told(&plan(world, &[]))
}

/// Pools a and b that both have records of these Pods for 10.0.0.3.
fn doubled(of_a: &str, of_b: &str, residents: Vec<Resident>) -> Vec<String> {
    let mut pools = [pool("a", "1-4"), pool("b", "5-9")];
    for (pool, name) in pools.iter_mut().zip([of_a, of_b]) {
        pool.records.insert(ip(3), record(name));
    }
    mended(&world(
        pools.to_vec(),
        &[("a", "1-4"), ("b", "5-9")],
        residents,
    ))
}

#[test]
fn of_two_records_of_one_address_that_goes_which_nobody_can_need() {
    let repaired = |keeper: &str, loser: &str| {
        [
            format!("HeldTwice: --repair leaves the record in IPPool {keeper} alone"),
            format!("- IPPool {loser}: gives out nothing until it is admitted anew"),
            format!("- IPPool {loser}: drops the record of 10.0.0.3, which IPPool {keeper} keeps"),
        ]
    };
    let without = |told: Vec<String>| -> Vec<String> {
        let of_others = |line: &String| {
            ["NotInLedger", "PoolsOverlap", "Orphan", "EntriesOverlap"]
                .iter()
                .any(|reason| line.starts_with(reason))
        };
        told.into_iter().filter(|line| !of_others(line)).collect()
    };
    // Whose Pod lives keeps it, whichever pool that is.
    assert_eq!(
        without(doubled("x", "y", vec![running("x", 3)])),
        repaired("a", "b")
    );
    assert_eq!(
        without(doubled("x", "y", vec![running("y", 3)])),
        repaired("b", "a")
    );
    // Of one Pod, or of none that lives, the pool whose entry has the address keeps it.
    assert_eq!(
        without(doubled("x", "x", vec![running("x", 3)])),
        repaired("a", "b")
    );
    assert_eq!(without(doubled("x", "y", vec![])), repaired("a", "b"));
    // Between two that live nobody can choose.
    let both = doubled("x", "y", vec![running("x", 3), running("y", 3)]);
    let person = "HeldTwice: delete Pod shop/x or Pod shop/y: the next one gets another address";
    assert!(both.iter().any(|line| line == person), "{both:?}");
    assert!(!both.iter().any(|line| line.starts_with("- ")), "{both:?}");
}

#[test]
fn who_has_an_address_that_no_pool_recorded_is_recorded() {
    let one = world(
        vec![pool("a", "1-4")],
        &[("a", "1-4")],
        vec![running("x", 3)],
    );
    let what = "records 10.0.0.3 for Pod shop/x";
    assert_eq!(
        mended(&one),
        [
            format!("NotRecorded: --repair {what}"),
            format!("- IPPool a: {what}")
        ]
    );
    let repair = plan(&one, &[]);
    let Some(Step::Records { fence, records, .. }) = repair.steps.first() else {
        panic!("{repair:?}");
    };
    assert_eq!(fence.as_ref().unwrap().uid, "uid-a".into());
    let written = records.get(ip(3)).unwrap();
    assert_eq!(
        (written.uid.as_str(), written.sandbox.as_ref()),
        ("x", None)
    );
}

#[test]
fn an_address_that_is_recorded_for_another_pod_is_its_own_once_that_one_is_gone() {
    let of = |residents| {
        mended(&world(
            vec![in_use("3", pool("a", "1-4"))],
            &[("a", "1-4")],
            residents,
        ))
    };
    let what = "records 10.0.0.3 for Pod shop/x, not for shop/p3";
    assert_eq!(
        of(vec![running("x", 3)]),
        [
            format!("HeldForAnother: --repair {what}"),
            "Orphan: the controller frees it once that is proven, or keeps it for the next Pod of \
             its identity (`ipam gc --dry-run` says what it waits for): does it run?"
                .to_owned(),
            format!("- IPPool a: {what}"),
        ]
    );
    for life in [Life::Leaving, Life::Silent, Life::Running] {
        let told = of(vec![running("x", 3), resident("p3", life, 4)]);
        let person =
            "HeldForAnother: delete Pod shop/x or Pod shop/p3: the next one gets another address";
        assert!(told.iter().any(|line| line == person), "{told:?}");
        assert!(
            !told.iter().any(|line| line.contains("not for")),
            "{told:?}"
        );
    }
}

#[test]
fn who_runs_is_recorded_and_not_who_leaves_with_the_same_address() {
    // A Pod of the same name, which ends.
    let former = Resident {
        uid: "former".into(),
        ..resident("x", Life::Leaving, 3)
    };
    let residents = vec![former, running("x", 3)];
    let one = world(vec![pool("a", "1-4")], &[("a", "1-4")], residents);
    let told = mended(&one);
    assert!(
        told.contains(&"- IPPool a: records 10.0.0.3 for Pod shop/x".to_owned()),
        "{told:?}"
    );
    let repair = plan(&one, &[]);
    let Some(Step::Records { records, .. }) = repair.steps.first() else {
        unreachable!("{repair:?}")
    };
    assert_eq!(records.get(ip(3)).unwrap().uid, "x".into());
}

#[test]
fn of_records_that_nobody_needs_the_one_stays_whose_entry_has_the_address() {
    let mut pools = [pool("a", "5-9"), pool("b", "1-4")];
    for (pool, name) in pools.iter_mut().zip(["x", "y"]) {
        pool.records.insert(ip(3), record(name));
    }
    let told = mended(&world(
        pools.to_vec(),
        &[("a", "5-9"), ("b", "1-4")],
        vec![],
    ));
    let dropped = "- IPPool a: drops the record of 10.0.0.3, which IPPool b keeps";
    assert!(told.contains(&dropped.to_owned()), "{told:?}");
}

/// Two entries that both have 3 and 4.
fn overlapping(pools: Vec<Pool>) -> Vec<String> {
    let told = mended(&world(pools, &[("a", "1-4"), ("b", "3-9")], vec![]));
    let of_entries = |line: &String| line.starts_with("EntriesOverlap") || line.starts_with("- ");
    told.into_iter().filter(of_entries).collect()
}

#[test]
fn an_address_of_two_entries_stays_where_it_is_recorded_else_where_it_is_owned() {
    let b = || pool("b", "5-9");
    assert_eq!(
        overlapping(vec![in_use("3 4", pool("a", "1-4")), b()]),
        [
            "EntriesOverlap: --repair leaves [10.0.0.3-10.0.0.4] to a and [] to b",
            "- SpiderSubnet net4: takes [10.0.0.3-10.0.0.4] from the entry of b",
        ]
    );
    assert_eq!(
        overlapping(vec![
            in_use("4", pool("a", "1-2")),
            in_use("3", pool("b", "3 5-9"))
        ]),
        [
            "EntriesOverlap: --repair leaves [10.0.0.4] to a and [10.0.0.3] to b",
            "- SpiderSubnet net4: takes [10.0.0.3] from the entry of a, takes [10.0.0.4] from the entry of b",
        ]
    );
    // Both own both: the elder, or the first by name, has them, and the other is ordered anew.
    let told = overlapping(vec![pool("a", "1-4"), pool("b", "3-9")]);
    assert!(
        told.contains(&"- IPPool b: gives out nothing until it is admitted anew".to_owned()),
        "{told:?}"
    );
    let elder = Pool {
        created: pool("a", "1")
            .created
            .map(|at| at - chrono::TimeDelta::days(1)),
        ..pool("b", "3-9")
    };
    let told = overlapping(vec![pool("a", "1-4"), elder]);
    assert!(
        told.contains(&"- IPPool a: gives out nothing until it is admitted anew".to_owned()),
        "{told:?}"
    );
    let waiting = Pool {
        admitted: None,
        ..pool("a", "1-4")
    };
    let told = overlapping(vec![waiting, pool("b", "3-9")]);
    assert!(
        told.iter()
            .any(|line| line.contains("leaves [] to a and [10.0.0.3-10.0.0.4] to b")),
        "{told:?}"
    );
    assert!(
        !told.iter().any(|line| line.contains("admitted anew")),
        "{told:?}"
    );
}

#[test]
fn entries_are_judged_by_what_becomes_of_the_records() {
    let pools = vec![in_use("3", pool("a", "1-4")), in_use("3", pool("b", "5-9"))];
    let entries = [("a", "1-4"), ("b", "3 5-9")];
    let repair = plan(&world(pools, &entries, vec![running("p3", 3)]), &[]);
    let ledgers = repair.steps.iter().filter_map(|step| match step {
        Step::Ledger { ledger, .. } => ledger.as_ref(),
        Step::Revoke { .. } | Step::Records { .. } => None,
    });
    let left = ledgers.map(|ledger| ledger.get(&"b".into()).unwrap().ips.clone());
    assert_eq!(left.collect::<Vec<_>>(), [ips("5-9")]);
    let told = told(&repair);
    let wanted = [
        "EntriesOverlap: --repair leaves [10.0.0.3] to a and [] to b",
        "- IPPool b: drops the record of 10.0.0.3, which IPPool a keeps",
        "- SpiderSubnet net4: takes [10.0.0.3] from the entry of b",
    ];
    for wanted in wanted {
        assert!(told.iter().any(|line| line == wanted), "{wanted}: {told:?}");
    }
}

#[test]
fn what_cannot_be_read_is_told_with_its_reason() {
    let ledger = Unread::Ledger {
        subnet: Box::new(subnet("1-99", &[])),
        reason: "no JSON".to_owned(),
    };
    let object = Unread::Object {
        kind: POOL,
        name: "typo".to_owned(),
        reason: "no range".to_owned(),
    };
    let unread = [broken(saved("3", "")), ledger, object];
    let repair = plan(&world(vec![], &[], vec![]), &unread);
    let messages: Vec<_> = repair
        .findings
        .iter()
        .map(|found| &*found.message)
        .collect();
    assert_eq!(
        messages,
        [
            "SpiderSubnet net4 can't be read: no JSON",
            "IPPool a can't be read: no JSON",
            "SpiderIPPool typo can't be read and is left alone: no range",
        ]
    );
}

/// Pool a, of whose records only this much can be read.
fn broken(salvage: Salvage) -> Unread {
    Unread::Records {
        pool: Box::new(pool("a", "1-9")),
        salvage,
        reason: "no JSON".to_owned(),
    }
}

fn saved(addresses: &str, unknown: &str) -> Salvage {
    Salvage {
        records: in_use(addresses, pool("a", "1-9")).records,
        unknown: ips(unknown),
        cut: false,
    }
}

fn restored(salvage: Salvage, residents: Vec<Resident>) -> Vec<String> {
    told(&plan(
        &world(vec![], &[("a", "1-9")], residents),
        &[broken(salvage)],
    ))
}

#[test]
fn broken_records_are_those_of_the_text_and_of_all_who_say_that_they_have_one() {
    let gone = resident("y", Life::Gone, 5);
    let told = restored(saved("3", "4"), vec![running("x", 4), gone]);
    let what = "records 3 addresses by what is left of the text, Pods and SpiderEndpoints";
    assert_eq!(
        told,
        [
            format!("RecordsUnreadable: --repair {what}"),
            "- IPPool a: gives out nothing until it is admitted anew".to_owned(),
            format!("- IPPool a: {what}"),
        ]
    );
    // What only an endpoint remembers does not replace a record of the text.
    let other = resident("y", Life::Gone, 3);
    let told = restored(saved("3", ""), vec![other]);
    assert!(told[0].contains("records 1 addresses"), "{told:?}");
}

/// Of which Pod each address of pool a is, once it is restored.
fn owners(salvage: Salvage, entry: &str, others: Vec<Pool>, residents: Vec<Resident>) -> String {
    let world = world(others, &[("a", entry)], residents);
    let repair = plan(&world, &[broken(salvage)]);
    let records = repair.steps.iter().find_map(|step| match step {
        Step::Records { records, .. } => Some(records),
        Step::Revoke { .. } | Step::Ledger { .. } => None,
    });
    let each = records.unwrap().iter();
    let each = each.map(|(address, record)| format!("{address} {}", record.uid));
    each.collect::<Vec<_>>().join(", ").replace("10.0.0.", "")
}

#[test]
fn a_broken_record_gives_way_to_who_runs_and_to_nobody_who_is_gone() {
    let of = |life| owners(saved("3", ""), "1-9", vec![], vec![resident("x", life, 3)]);
    assert_eq!(of(Life::Running), "3 x");
    assert_eq!(of(Life::Leaving), "3 x");
    assert_eq!(of(Life::Gone), "3 p3");
    let own = owners(saved("3", ""), "1-9", vec![], vec![running("p3", 3)]);
    assert_eq!(own, "3 p3");
    // Who only leaves takes it from nobody who may live.
    let both = vec![resident("x", Life::Leaving, 3), running("p3", 4)];
    assert_eq!(owners(saved("3", ""), "1-9", vec![], both), "3 p3, 4 p3");
}

#[test]
fn what_another_pool_recorded_is_not_restored_and_what_the_ledger_gives_is() {
    let other = in_use("4", pool("b", "10-19"));
    let has = |n| vec![running("p4", n)];
    assert_eq!(
        owners(saved("3", ""), "1-9", vec![other.clone()], has(4)),
        "3 p3"
    );
    assert_eq!(
        owners(saved("3", ""), "1-9", vec![other], has(5)),
        "3 p3, 5 p4"
    );
    assert_eq!(
        owners(saved("3", ""), "1-9 30", vec![], has(30)),
        "3 p3, 30 p4"
    );
    assert_eq!(owners(saved("3", ""), "1-9", vec![], has(30)), "3 p3");
}

#[test]
fn a_person_says_what_nobody_can_know_of_broken_records() {
    let cases: [(Salvage, Vec<Resident>, &str); 4] = [
        (saved("3", "4"), vec![], "say for whom 10.0.0.4 is recorded"),
        (
            saved("3", ""),
            vec![resident("x", Life::Silent, 5)],
            "run this again once Pod shop/x runs or is gone",
        ),
        (
            saved("3", ""),
            vec![running("p3", 4), running("x", 3)],
            "delete Pod shop/p3 or Pod shop/x",
        ),
        (
            Salvage {
                cut: true,
                ..saved("3", "")
            },
            vec![],
            "end the text after its last whole record",
        ),
    ];
    for (salvage, residents, says) in cases {
        let told = restored(salvage, residents);
        assert!(
            told[0].starts_with(&format!("RecordsUnreadable: {says}")),
            "{told:?}"
        );
        assert_eq!(told.len(), 1, "{told:?}");
    }
    let unseen = World {
        residents: None,
        ..world(vec![], &[("a", "1-9")], vec![])
    };
    let told = told(&plan(&unseen, &[broken(saved("3", ""))]));
    assert_eq!(told, ["RecordsUnreadable: look at the Pods as well"]);
}

#[test]
fn a_ledger_is_forgotten_once_all_of_its_pools_can_be_read() {
    let ledger = || Unread::Ledger {
        subnet: Box::new(subnet("1-99", &[])),
        reason: "no JSON".to_owned(),
    };
    let empty = world(vec![], &[], vec![]);
    let of = |unread: &[Unread]| {
        told(&plan(
            &World {
                subnets: vec![],
                ..empty.clone()
            },
            unread,
        ))
    };
    let what = "forgets the ledger, which the controller rebuilds from all pools";
    assert_eq!(
        of(&[ledger()]),
        [
            format!("LedgerUnreadable: --repair {what}"),
            format!("- SpiderSubnet net4: {what}")
        ]
    );
    // One that this repair restores can be.
    assert!(
        of(&[ledger(), broken(saved("3", ""))]).contains(&format!("- SpiderSubnet net4: {what}"))
    );
    let typo = |kind| Unread::Object {
        kind,
        name: "typo".to_owned(),
        reason: "no range".to_owned(),
    };
    assert!(
        of(&[ledger(), typo("SpiderReservedIP")]).contains(&format!("- SpiderSubnet net4: {what}"))
    );
    for (other, name) in [(broken(saved("", "4")), "a"), (typo(POOL), "typo")] {
        let told = of(&[ledger(), other]);
        let person = format!(
            "LedgerUnreadable: mend IPPool {name} first: it may have what only this ledger names"
        );
        assert!(told.contains(&person), "{told:?}");
        assert!(!told.iter().any(|line| line.starts_with("- ")), "{told:?}");
    }
    let told = of(&[typo(POOL)]);
    assert_eq!(
        told,
        ["Unreadable: mend the field: `kubectl edit spiderippool typo`"]
    );
}

#[test]
fn only_what_was_found_before_is_mended() {
    let now = world(
        vec![pool("a", "1-4")],
        &[("a", "1-4")],
        vec![running("x", 3), running("y", 4)],
    );
    let before = world(
        vec![pool("a", "1-4")],
        &[("a", "1-4")],
        vec![running("x", 3)],
    );
    let first = plan(&before, &[]);
    let again = plan_again(&now, &[], &first.findings);
    assert_eq!(
        (&again.findings, told(&again)),
        (&first.findings, told(&first))
    );
    assert_eq!(plan_again(&now, &[], &[]), Repair::default());
}
