//! The rules of a plan one by one; `tests/scenarios` has whole stories, `tests/plan_world.rs` the
//! random ones.

#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod standing;

use super::*;
use crate::demand::PodCount;
use crate::name::NodeName;
use crate::testing::{
    admitted, in_quarantine, in_use, ip, ips, now, of_workload, pool, selector, subnet, workload,
};

/// Deployment `shop/<name>` wants `replicas` addresses and none to spare.
fn demand(name: &str, replicas: u32) -> Demand {
    Demand {
        workload: workload(name),
        nic: Nic::from("eth0"),
        selector: selector(&[("app", name)]),
        rule: SizeRule::Flexible(0),
        pods: PodCount {
            replicas,
            ..PodCount::default()
        },
        reclaim: true,
    }
}

/// The pool of Deployment `web`, told its rule.
fn web(own: &str) -> Pool {
    Pool {
        rule: Some(SizeRule::Flexible(0)),
        ..of_workload(&workload("web"), pool("web", own))
    }
}

fn seen(subnet: Subnet, pools: Vec<Pool>, demands: Vec<Demand>) -> Snapshot {
    Snapshot {
        subnet: SubnetSeen::Readable(Arc::new(subnet)),
        pools: pools
            .into_iter()
            .map(|pool| (pool.name.clone(), Arc::new(pool)))
            .collect(),
        live: true,
        demands: demands.into_iter().map(Arc::new).collect(),
        ..Snapshot::default()
    }
}

/// What has been too large since long ago.
fn long_since(pool: &str) -> BTreeMap<PoolName, DateTime<Utc>> {
    [(PoolName::from(pool), DateTime::UNIX_EPOCH)].into()
}

fn plan_of(snapshot: &Snapshot) -> Plan {
    plan(snapshot, now())
}

fn steps(snapshot: &Snapshot) -> Vec<String> {
    plan_of(snapshot).steps.iter().map(say).collect()
}

fn short(set: &AddrSet) -> String {
    set.to_string().replace("10.0.0.", "")
}

fn say(step: &Step) -> String {
    let write = |stage: &str, w: &PoolWrite| {
        let edit = &w.edit;
        let parts = [
            edit.ips.as_ref().map(|ips| format!("ips {}", short(ips))),
            edit.admit.then(|| "admit".to_owned()),
            edit.raise_epoch.then(|| "epoch".to_owned()),
            edit.adopt.as_ref().map(|_| "adopt".to_owned()),
            edit.owner.as_ref().map(|(o, _)| format!("owner {}", o.uid)),
            edit.rule.map(|rule| format!("rule {rule}")),
            edit.finalizer.map(|f| format!("finalizer {f}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{stage} {}: {}", w.pool, parts.join(", "))
    };
    match step {
        Step::ProtectSubnet { finalizer, .. } => format!("protect {finalizer}"),
        Step::Record { pool, found, .. } => {
            let addresses: AddrSet = found.keys().copied().collect();
            format!("record {pool} {}", short(&addresses))
        }
        Step::Create(new) => format!("create {}", new.name),
        Step::Before(w) => write("before", w),
        Step::Barrier => "barrier".to_owned(),
        Step::Ledger { edits, .. } => {
            let edits = edits.iter().map(|e| {
                let needs = match e.needs {
                    Needs::Nothing => "",
                    Needs::Written => " if written",
                    Needs::Absent => " if absent",
                };
                format!("{} {}{needs}", e.pool, short(&e.entry.ips))
            });
            format!("ledger {}", edits.collect::<Vec<_>>().join("; "))
        }
        Step::After(w) => write("after", w),
        Step::Delete { pool, .. } => format!("delete {pool}"),
    }
}

fn condition(plan: &Plan, pool: &str, kind: ConditionKind) -> Condition {
    let mut of_pool = plan.pools.get(&PoolName::from(pool)).into_iter().flatten();
    of_pool.rfind(|c| c.kind == kind).unwrap().clone()
}

#[test]
fn a_pool_that_has_what_it_needs_is_left_alone() {
    let snapshot = seen(
        subnet("1-9", &[("web", "1-3")]),
        vec![web("1-3")],
        vec![demand("web", 3)],
    );
    assert_eq!(steps(&snapshot), Vec::<String>::new());
    assert_eq!(
        condition(&plan_of(&snapshot), "web", ConditionKind::Ready).reason,
        "Sized"
    );
    assert!(!condition(&plan_of(&snapshot), "web", ConditionKind::Exhausted).holds);
}

#[test]
fn every_write_carries_uid_and_version_as_read() {
    let old = Pool {
        version: Version::from("77"),
        ..web("1-2")
    };
    let snapshot = seen(
        subnet("1-9", &[("web", "1-2")]),
        vec![old],
        vec![demand("web", 3)],
    );
    let plan = plan_of(&snapshot);
    let [Step::Ledger { fence, .. }, Step::After(write)] = plan.steps.as_slice() else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(
        (fence.uid.as_str(), fence.version.as_str()),
        ("uid-net4", "1")
    );
    let fence = write.fence.clone().unwrap();
    assert_eq!(
        (fence.uid.as_str(), fence.version.as_str()),
        ("uid-web", "77")
    );
}

#[test]
fn a_subnet_is_protected_before_anything_is_carved() {
    let bare = Subnet {
        finalizer: false,
        ..subnet("1-9", &[])
    };
    assert_eq!(
        steps(&seen(bare, vec![], vec![demand("web", 2)])),
        ["protect true"]
    );
}

#[test]
fn a_pool_is_made_empty_and_gets_its_addresses_behind_the_ledger() {
    let snapshot = seen(subnet("1-9", &[]), vec![], vec![demand("web", 2)]);
    assert_eq!(
        steps(&snapshot),
        [
            "create auto4-web-eth0-web",
            "ledger auto4-web-eth0-web [1-2]",
            "after auto4-web-eth0-web: ips [1-2], admit",
        ]
    );
    let Some(Step::Create(new)) = plan_of(&snapshot).steps.first().cloned() else {
        panic!()
    };
    assert!(new.pod_affinity.names_workload(&workload("web")));
    assert_eq!(new.subnet.0.as_str(), "net4");
}

#[test]
fn a_workload_that_wants_nothing_gets_a_pool_without_a_ledger_write() {
    let snapshot = seen(subnet("1-9", &[]), vec![], vec![demand("web", 0)]);
    assert_eq!(
        steps(&snapshot),
        [
            "create auto4-web-eth0-web",
            "after auto4-web-eth0-web: ips [], admit"
        ]
    );
    let made = Pool {
        rule: Some(SizeRule::Flexible(0)),
        ..web("")
    };
    let snapshot = seen(subnet("1-9", &[]), vec![made], vec![demand("web", 0)]);
    assert_eq!(steps(&snapshot), Vec::<String>::new());
}

#[test]
fn two_pools_that_grow_in_one_pass_get_different_addresses() {
    let db = Pool {
        rule: Some(SizeRule::Flexible(0)),
        ..of_workload(&workload("db"), pool("db", "2"))
    };
    let entries = subnet("1-9", &[("db", "2"), ("web", "1")]);
    let snapshot = seen(
        entries,
        vec![db, web("1")],
        vec![demand("web", 3), demand("db", 3)],
    );
    assert_eq!(
        steps(&snapshot),
        [
            "ledger db [2 5-6]; web [1 3-4]",
            "after web: ips [1 3-4], admit",
            "after db: ips [2 5-6], admit",
        ]
    );
}

#[test]
fn what_is_not_the_subnet_s_to_give_is_never_carved() {
    let narrow = Subnet {
        excluded: ips("2"),
        gateway: Some(ip(1)),
        ..subnet("1-20", &[("gone", "3")])
    };
    let by_hand = Pool {
        admitted: None,
        ..pool("hand", "4")
    };
    let snapshot = Snapshot {
        reserved: ips("5"),
        elsewhere: ips("6"),
        on_pods: ips("3 7"),
        ..seen(narrow, vec![by_hand], vec![demand("web", 2)])
    };
    assert_eq!(
        steps(&snapshot),
        [
            "create auto4-web-eth0-web",
            "ledger auto4-web-eth0-web [8-9]; hand [4]",
            "after hand: admit",
            "after auto4-web-eth0-web: ips [8-9], admit",
        ]
    );
}

#[test]
fn an_address_that_the_pool_excludes_or_has_as_gateway_does_not_make_it_grow() {
    let odd = Pool {
        excluded: ips("2-3"),
        gateway: Some(ip(4)),
        ..web("1-2")
    };
    let snapshot = seen(
        subnet("1-9", &[("web", "1")]),
        vec![admitted(odd)],
        vec![demand("web", 2)],
    );
    assert_eq!(
        steps(&snapshot),
        ["ledger web [1 5]", "after web: ips [1-2 5], admit"]
    );
}

#[test]
fn addresses_that_a_pass_left_in_the_ledger_come_first() {
    let snapshot = seen(
        subnet("1-9", &[("web", "1-2 8")]),
        vec![web("1")],
        vec![demand("web", 2)],
    );
    assert_eq!(
        steps(&snapshot),
        ["ledger web [1-2 8]", "after web: ips [1-2], admit"]
    );
    // The rest returns with the next pass, behind a write that fences the pool.
    let snapshot = seen(
        subnet("1-9", &[("web", "1-2 8")]),
        vec![web("1-2")],
        vec![demand("web", 2)],
    );
    assert_eq!(
        steps(&snapshot),
        ["before web: admit, epoch", "ledger web [1-2] if written"]
    );
}

#[test]
fn a_leftover_that_is_in_use_or_no_longer_the_subnet_s_is_not_taken_again() {
    let entries = subnet("1-9", &[("web", "1 20 7-9")]);
    let other = Pool {
        admitted: None,
        ..in_use("9", pool("old", "30"))
    };
    let snapshot = Snapshot {
        on_pods: ips("7"),
        reserved: ips("8"),
        ..seen(entries, vec![web("1"), other], vec![demand("web", 2)])
    };
    let written = steps(&snapshot)
        .into_iter()
        .find(|s| s.starts_with("after web"))
        .unwrap();
    assert_eq!(written, "after web: ips [1-2], admit");
}

#[test]
fn what_the_subnet_lacks_is_told_with_numbers_and_remedy() {
    let snapshot = seen(
        subnet("1-3", &[("web", "1")]),
        vec![web("1")],
        vec![demand("web", 5)],
    );
    let plan = plan_of(&snapshot);
    let text = "Deployment shop/web wants 5 addresses, IPPool web has 3: SpiderSubnet net4 has no \
                more to give, 2 missing; add 2 addresses to spec.ips of SpiderSubnet net4";
    assert_eq!(plan.shortfalls.len(), 1);
    assert_eq!(plan.shortfalls.first().unwrap().message, text);
    for kind in [ConditionKind::Exhausted, ConditionKind::Ready] {
        let told = condition(&plan, "web", kind);
        assert_eq!(
            (told.reason, told.message.as_str()),
            ("SubnetExhausted", text)
        );
        assert_eq!(told.holds, kind == ConditionKind::Exhausted);
    }
    assert!(
        plan.subnet
            .iter()
            .any(|c| c.kind == ConditionKind::Exhausted && c.message == text)
    );
}

#[test]
fn a_pool_that_cannot_grow_still_returns_what_it_does_not_need() {
    // Address 2 was excluded by hand; there is nothing left to replace it.
    let odd = Pool {
        excluded: ips("2"),
        ..web("1-2")
    };
    let snapshot = seen(
        subnet("1-2", &[("web", "1-2")]),
        vec![admitted(odd)],
        vec![demand("web", 2)],
    );
    assert_eq!(
        steps(&snapshot),
        ["before web: admit, epoch", "ledger web [1] if written"]
    );
}

#[test]
fn a_pool_shrinks_highest_first_and_only_after_a_while() {
    let big = || web("1-5");
    let waits = seen(
        subnet("1-9", &[("web", "1-5")]),
        vec![big()],
        vec![demand("web", 2)],
    );
    let plan = plan_of(&waits);
    assert_eq!(plan.steps, vec![]);
    assert_eq!(plan.wake_at, now().checked_add_signed(SHRINK_AFTER));
    assert!(plan.surplus.contains(&PoolName::from("web")));
    let due = Snapshot {
        surplus_since: long_since("web"),
        ..waits
    };
    assert_eq!(
        steps(&due),
        [
            "before web: ips [1-2], admit, epoch",
            "ledger web [1-2] if written"
        ]
    );
}

#[test]
fn a_clock_that_was_set_back_holds_no_shrink_up() {
    let to_come = now().checked_add_signed(SHRINK_AFTER * 100).unwrap();
    let snapshot = Snapshot {
        surplus_since: BTreeMap::from([(PoolName::from("web"), to_come)]),
        ..seen(
            subnet("1-9", &[("web", "1-5")]),
            vec![web("1-5")],
            vec![demand("web", 2)],
        )
    };
    let waits = plan_of(&snapshot).wake_at;
    assert_eq!(waits, now().checked_add_signed(SHRINK_AFTER));
}

#[test]
fn a_pool_never_gives_up_what_is_in_use() {
    let big = in_use("4-5", web("1-5"));
    let snapshot = seen(
        subnet("1-9", &[("web", "1-5")]),
        vec![big],
        vec![demand("web", 1)],
    );
    let due = Snapshot {
        surplus_since: long_since("web"),
        ..snapshot
    };
    assert_eq!(
        steps(&due),
        [
            "before web: ips [4-5], admit, epoch",
            "ledger web [4-5] if written"
        ]
    );
    let full = in_use("1-5", web("1-5"));
    let snapshot = seen(
        subnet("1-9", &[("web", "1-5")]),
        vec![full],
        vec![demand("web", 1)],
    );
    assert_eq!(
        steps(&Snapshot {
            surplus_since: long_since("web"),
            ..snapshot
        }),
        Vec::<String>::new()
    );
}

#[test]
fn addresses_that_nobody_may_have_from_the_pool_are_given_back_at_once() {
    // 2 was reserved, 4 was cut from the subnet, 3 became the gateway.
    let cut = Subnet {
        excluded: ips("4"),
        gateway: Some(ip(3)),
        ..subnet("1-9", &[("web", "1-4")])
    };
    let snapshot = Snapshot {
        reserved: ips("2"),
        ..seen(cut, vec![web("1-4")], vec![demand("web", 4)])
    };
    assert_eq!(
        steps(&snapshot),
        [
            "before web: ips [1], admit, epoch",
            "ledger web [1] if written"
        ]
    );
}

#[test]
fn a_fixed_number_is_followed_and_told() {
    let fixed = Demand {
        rule: SizeRule::Fixed(4),
        ..demand("web", 2)
    };
    let snapshot = seen(
        subnet("1-9", &[("web", "1-2")]),
        vec![web("1-2")],
        vec![fixed],
    );
    assert_eq!(
        steps(&snapshot),
        ["ledger web [1-4]", "after web: ips [1-4], admit, rule 4"]
    );
}

#[test]
fn what_is_due_beside_the_size_needs_no_ledger_write() {
    let bare = Pool {
        finalizer: false,
        adopted_by: None,
        rule: None,
        ..web("1-2")
    };
    let snapshot = seen(
        subnet("1-9", &[("web", "1-2")]),
        vec![bare],
        vec![demand("web", 2)],
    );
    assert_eq!(
        steps(&snapshot),
        ["after web: adopt, rule +0, finalizer true"]
    );
}

#[test]
fn a_kept_pool_goes_on_with_the_next_workload_of_the_name() {
    let mut kept = web("1-2");
    kept.owner = kept.owner.map(|o| Owner {
        uid: Uid::from("before"),
        reclaim: false,
        ..o
    });
    let entries = || subnet("1-9", &[("web", "1-2")]);
    let again = seen(entries(), vec![kept.clone()], vec![demand("web", 2)]);
    assert_eq!(steps(&again), ["after web: owner u-web"]);
    // Without a workload it stays as it is.
    assert_eq!(
        steps(&seen(entries(), vec![kept], vec![])),
        Vec::<String>::new()
    );
}

#[test]
fn a_pool_goes_in_two_steps_once_nobody_holds_an_address() {
    let entries = |own| subnet("1-9", &[("web", own)]);
    let busy = seen(entries("1-3"), vec![in_use("2", web("1-3"))], vec![]);
    assert_eq!(
        steps(&busy),
        [
            "before web: ips [2], admit, epoch",
            "ledger web [2] if written"
        ]
    );
    let drained = seen(entries("2"), vec![in_use("2", web("2"))], vec![]);
    assert_eq!(steps(&drained), Vec::<String>::new());
    let idle = seen(entries("2"), vec![web("2")], vec![]);
    assert_eq!(
        steps(&idle),
        [
            "before web: ips [], admit, epoch",
            "ledger web [] if written"
        ]
    );
    let empty = seen(subnet("1-9", &[]), vec![web("")], vec![]);
    assert_eq!(steps(&empty), ["delete web"]);
}

#[test]
fn what_is_in_quarantine_is_no_room_and_keeps_no_pool() {
    let entries = |own| subnet("1-9", &[("web", own)]);
    let full = in_use("2", in_quarantine("1", web("1-2")));
    let snapshot = seen(entries("1-2"), vec![full.clone()], vec![demand("web", 2)]);
    let grown = steps(&snapshot);
    assert_eq!(grown.first().map(String::as_str), Some("ledger web [1-3]"));
    // It stays where it is until its time is over, and the pool goes with its last Pod.
    let going = in_quarantine("1", web("1"));
    let snapshot = seen(entries("1"), vec![going], vec![]);
    assert_eq!(steps(&snapshot), ["delete web"]);
    let deleted = Pool {
        terminating: true,
        ..in_quarantine("1", pool("hand", "1"))
    };
    let snapshot = seen(subnet("1-9", &[("hand", "1")]), vec![deleted], vec![]);
    assert_eq!(steps(&snapshot), ["before hand: finalizer false"]);
}

#[test]
fn a_deleted_pool_is_let_go_when_the_last_pod_is() {
    let going = |own: &str| Pool {
        terminating: true,
        ..pool("hand", own)
    };
    let entries = |own| subnet("1-9", &[("hand", own)]);
    let busy = seen(entries("1-3"), vec![in_use("2", going("1-3"))], vec![]);
    assert_eq!(
        steps(&busy),
        [
            "before hand: ips [2], admit, epoch",
            "ledger hand [2] if written"
        ]
    );
    let last = seen(subnet("1-9", &[]), vec![going("")], vec![]);
    assert_eq!(steps(&last), ["before hand: finalizer false"]);
}

#[test]
fn a_deleted_pool_whose_workload_lives_comes_back_with_its_addresses() {
    let going = Pool {
        terminating: true,
        name: "auto4-web-eth0-web".into(),
        ..web("5-6")
    };
    let entries = || subnet("1-9", &[("auto4-web-eth0-web", "5-6")]);
    let snapshot = seen(entries(), vec![going], vec![demand("web", 2)]);
    assert_eq!(
        steps(&snapshot),
        ["before auto4-web-eth0-web: finalizer false"]
    );
    let snapshot = seen(entries(), vec![], vec![demand("web", 2)]);
    assert_eq!(
        steps(&snapshot),
        [
            "create auto4-web-eth0-web",
            "ledger auto4-web-eth0-web [5-6]",
            "after auto4-web-eth0-web: ips [5-6], admit",
        ]
    );
}

#[test]
fn an_entry_without_a_pool_returns_but_for_what_a_pod_still_has() {
    let entries = subnet("1-9", &[("gone", "1-3"), ("lost", "4")]);
    let snapshot = Snapshot {
        on_pods: ips("2"),
        ..seen(entries, vec![], vec![])
    };
    assert_eq!(
        steps(&snapshot),
        ["ledger gone [2] if absent; lost [] if absent"]
    );
}

#[test]
fn a_pool_that_nobody_can_read_keeps_its_entry() {
    let snapshot = Snapshot {
        unreadable: [(PoolName::from("odd"), "spec.ips: 'x'".to_owned())].into(),
        ..seen(
            subnet("1-3", &[("odd", "1-2")]),
            vec![],
            vec![demand("web", 1)],
        )
    };
    assert_eq!(
        steps(&snapshot),
        [
            "create auto4-web-eth0-web",
            "ledger auto4-web-eth0-web [3]",
            "after auto4-web-eth0-web: ips [3], admit",
        ]
    );
}

#[test]
fn a_pool_made_by_hand_is_admitted_behind_a_ledger_write() {
    let new = Pool {
        admitted: None,
        adopted_by: None,
        finalizer: false,
        ..pool("hand", "1-3")
    };
    let snapshot = seen(subnet("1-9", &[]), vec![new.clone()], vec![]);
    let wanted = [
        "ledger hand [1-3]",
        "after hand: admit, adopt, finalizer true",
    ];
    assert_eq!(steps(&snapshot), wanted);
    // The ledger may show the addresses already, yet somebody may be about to take them back.
    let snapshot = seen(subnet("1-9", &[("hand", "1-3")]), vec![new], vec![]);
    assert_eq!(steps(&snapshot), wanted);
}

#[test]
fn a_pool_edited_by_hand_gives_back_first_and_is_admitted_by_the_next_pass() {
    let edited = Pool {
        ips: ips("3-4"),
        ..pool("hand", "1-3")
    };
    let snapshot = seen(
        subnet("1-9", &[("hand", "1-3")]),
        vec![edited.clone()],
        vec![],
    );
    assert_eq!(
        steps(&snapshot),
        ["before hand: epoch", "ledger hand [3-4] if written"]
    );
    let written = Pool {
        admitted: None,
        ..edited
    };
    let snapshot = seen(subnet("1-9", &[("hand", "3-4")]), vec![written], vec![]);
    assert_eq!(steps(&snapshot), ["ledger hand [3-4]", "after hand: admit"]);
}

#[test]
fn a_write_that_takes_back_never_admits_what_was_not_admitted() {
    // The ledger may have been read long before the pool: that it shows 1 and 2 proves nothing.
    let new = Pool {
        admitted: None,
        ..pool("hand", "1-2")
    };
    let snapshot = seen(subnet("1-9", &[("hand", "1-3")]), vec![new], vec![]);
    assert_eq!(
        steps(&snapshot),
        ["before hand: epoch", "ledger hand [1-2] if written"]
    );
}

#[test]
fn a_pool_that_goes_does_not_enter_what_is_another_s() {
    // A ledger taken over gives 3 to b, which a recorded for a Pod.
    let going = Pool {
        terminating: true,
        admitted: None,
        ..in_use("2-3", pool("a", "2-3"))
    };
    let entries = subnet("1-9", &[("b", "3")]);
    let snapshot = seen(entries, vec![going, pool("b", "3")], vec![]);
    assert_eq!(steps(&snapshot), ["ledger a [2]"]);
}

#[test]
fn what_is_in_use_stays_taken_when_a_person_cuts_it_from_the_pool() {
    let cut = in_use(
        "3",
        Pool {
            ips: ips("1-2"),
            ..pool("hand", "1-3")
        },
    );
    let snapshot = seen(subnet("1-9", &[("hand", "1-3")]), vec![cut], vec![]);
    assert_eq!(steps(&snapshot), ["ledger hand [1-3]", "after hand: admit"]);
}

#[test]
fn of_two_pools_that_overlap_the_older_serves_and_the_other_says_why_not() {
    let older = Pool {
        admitted: None,
        ..pool("b", "1-3")
    };
    let later = DateTime::UNIX_EPOCH.checked_add_signed(TimeDelta::seconds(1));
    let newer = Pool {
        admitted: None,
        created: later,
        ..pool("a", "3-5")
    };
    let snapshot = seen(subnet("1-9", &[]), vec![newer, older], vec![]);
    assert_eq!(steps(&snapshot), ["ledger b [1-3]", "after b: admit"]);
    let told = condition(&plan_of(&snapshot), "a", ConditionKind::Conflicting);
    assert!(told.holds);
    assert_eq!(
        told.message,
        "[10.0.0.3] belongs to IPPool b: no address is given out until spec.ips or spec.excludeIPs \
         of one of them leaves it out"
    );
}

#[test]
fn what_is_in_use_counts_more_than_age() {
    let older = Pool {
        admitted: None,
        ..pool("a", "1-3")
    };
    let later = DateTime::UNIX_EPOCH.checked_add_signed(TimeDelta::seconds(1));
    let newer = in_use(
        "3",
        Pool {
            admitted: None,
            created: later,
            ..pool("b", "3-5")
        },
    );
    let snapshot = seen(subnet("1-9", &[]), vec![older, newer], vec![]);
    assert_eq!(steps(&snapshot), ["ledger b [3-5]", "after b: admit"]);
    assert!(condition(&plan_of(&snapshot), "a", ConditionKind::Conflicting).holds);
}

#[test]
fn a_pool_that_conflicts_gives_back_what_it_no_longer_claims() {
    // Each would wait for the other for ever, did not b let go of 5.
    let a = Pool {
        admitted: None,
        ..pool("a", "5-6")
    };
    let b = Pool {
        ips: ips("6-7"),
        ..pool("b", "5")
    };
    let snapshot = seen(subnet("1-9", &[("a", "6"), ("b", "5")]), vec![a, b], vec![]);
    assert_eq!(
        steps(&snapshot),
        ["before b: epoch", "ledger b [] if written"]
    );
}

#[test]
fn a_pool_that_overlaps_another_cidr_is_not_admitted() {
    let new = Pool {
        admitted: None,
        ..pool("hand", "1-3")
    };
    let snapshot = Snapshot {
        elsewhere: ips("3-4"),
        ..seen(subnet("1-9", &[]), vec![new], vec![])
    };
    let told = condition(&plan_of(&snapshot), "hand", ConditionKind::Conflicting);
    assert!(
        told.message
            .starts_with("[10.0.0.3] belongs to an object with another CIDR")
    );
}

#[test]
fn an_absent_ledger_is_rebuilt_from_a_live_list_before_anything_else() {
    let lost = Subnet {
        ledger: None,
        ..subnet("1-9", &[])
    };
    let pools = vec![in_use("8", web("1-2")), pool("hand", "5")];
    let live = seen(lost, pools, vec![demand("web", 5)]);
    let cached = Snapshot {
        live: false,
        ..live.clone()
    };
    assert!(plan_of(&cached).needs_live && plan_of(&cached).steps.is_empty());
    assert_eq!(steps(&live), ["ledger hand [5]; web [1-2 8]"]);
}

#[test]
fn for_an_absent_ledger_that_nobody_needs_no_pools_are_listed() {
    let idle = Snapshot {
        live: false,
        ..seen(
            Subnet {
                ledger: None,
                ..subnet("1-9", &[])
            },
            vec![],
            vec![],
        )
    };
    let plan = plan_of(&idle);
    assert!(!plan.needs_live && plan.steps.is_empty());
    let asked = Snapshot {
        demands: vec![Arc::new(demand("web", 1))],
        ..idle.clone()
    };
    assert!(plan_of(&asked).needs_live);
    // One that goes must be known to have nothing.
    let SubnetSeen::Readable(subnet) = idle.subnet.clone() else {
        panic!("{idle:?}")
    };
    let going = Snapshot {
        subnet: SubnetSeen::Readable(Arc::new(Subnet {
            terminating: true,
            ..(*subnet).clone()
        })),
        ..idle
    };
    assert!(plan_of(&going).needs_live);
}

#[test]
fn a_ledger_that_does_not_know_a_serving_pool_is_completed_first() {
    let partly = seen(
        subnet("1-9", &[("web", "1")]),
        vec![web("1-2")],
        vec![demand("web", 5)],
    );
    assert!(
        plan_of(&Snapshot {
            live: false,
            ..partly.clone()
        })
        .needs_live
    );
    assert_eq!(steps(&partly), ["ledger web [1-2]"]);
}

#[test]
fn a_rebuilt_ledger_fences_what_loses() {
    let lost = || Subnet {
        ledger: None,
        ..subnet("1-9", &[])
    };
    let later = DateTime::UNIX_EPOCH.checked_add_signed(TimeDelta::seconds(1));
    let loser = Pool {
        admitted: None,
        created: later,
        ..pool("b", "2-3")
    };
    let snapshot = seen(lost(), vec![pool("a", "1-2"), loser], vec![]);
    assert_eq!(
        steps(&snapshot),
        ["before b: epoch", "barrier", "ledger a [1-2]"]
    );
    // A mark of another time could come to life again.
    let edited = Pool {
        ips: ips("6"),
        ..pool("a", "1-2")
    };
    assert_eq!(
        steps(&seen(lost(), vec![edited], vec![])),
        ["before a: epoch"]
    );
}

#[test]
fn an_absent_ledger_waits_for_a_pool_that_nobody_can_read() {
    let lost = Subnet {
        ledger: None,
        ..subnet("1-9", &[])
    };
    let snapshot = Snapshot {
        unreadable: [(PoolName::from("odd"), "spec.ips: 'x'".to_owned())].into(),
        ..seen(lost, vec![pool("hand", "5")], vec![])
    };
    let cached = Snapshot {
        live: false,
        ..snapshot.clone()
    };
    assert!(!plan_of(&cached).needs_live);
    let plan = plan_of(&snapshot);
    assert_eq!(plan.steps, vec![]);
    assert_eq!(
        plan.subnet.first().unwrap().message,
        "status.controlledIPPools is absent and cannot be rebuilt, since nobody knows what IPPool \
         odd has until it is mended: spec.ips: 'x'"
    );
}

#[test]
fn a_ledger_that_contradicts_itself_stops_everything() {
    let snapshot = seen(
        subnet("1-9", &[("a", "1-3"), ("b", "3-4")]),
        vec![],
        vec![demand("web", 1)],
    );
    let plan = plan_of(&snapshot);
    assert_eq!(plan.steps, vec![]);
    let ready = plan.subnet.first().unwrap();
    assert_eq!((ready.reason, ready.holds), ("LedgerOverlap", false));
}

#[test]
fn a_ledger_that_is_full_takes_no_pool_more_but_those_in_it_still_move() {
    let mut full = subnet("1-9", &[("web", "1")]);
    let mut ledger = full.ledger.take().unwrap();
    // Entries of other ranges, with names as long as names may be.
    let (long, mut other) = ("x".repeat(240), crate::addr::AddrSet::new());
    for n in 0..3_900_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 | n.saturating_mul(2));
        other.insert(address.into());
        let entry = Entry {
            ips: [IpAddr::from(address)].into_iter().collect(),
            application: None,
        };
        ledger.set(&PoolName::new(format!("{long}-{n}")), entry);
    }
    assert!(ledger.to_text().unwrap().len() > crate::subnet::LEDGER_BYTES_MAX);
    full.ledger = Some(ledger);
    // They are in use, so none of them returns.
    let snapshot = Snapshot {
        on_pods: other,
        ..seen(
            full,
            vec![web("1")],
            vec![demand("web", 2), demand("db", 1)],
        )
    };
    assert_eq!(
        steps(&snapshot),
        ["ledger web [1-2]", "after web: ips [1-2], admit"]
    );
    let ready = plan_of(&snapshot)
        .subnet
        .into_iter()
        .find(|c| c.kind == ConditionKind::Ready);
    assert_eq!(ready.unwrap().reason, "LedgerFull");
}

#[test]
fn an_unreadable_subnet_is_left_alone_and_says_so() {
    let snapshot = Snapshot {
        subnet: SubnetSeen::Unreadable {
            name: SubnetName::from("net4"),
            reason: "spec.ips: 'x'".to_owned(),
        },
        pools: [(PoolName::from("web"), Arc::new(web("1-2")))].into(),
        ..Snapshot::default()
    };
    let plan = plan_of(&snapshot);
    assert_eq!(plan.steps, vec![]);
    assert_eq!(
        plan.subnet.first().unwrap().message,
        "SpiderSubnet net4 is left alone until it is mended: spec.ips: 'x'"
    );
}

#[test]
fn a_subnet_that_goes_gives_nothing_and_goes_last() {
    let going = |entries| Subnet {
        terminating: true,
        ..subnet("1-9", entries)
    };
    let snapshot = seen(
        going(&[("web", "1")]),
        vec![web("1")],
        vec![demand("web", 2), demand("db", 1)],
    );
    let plan = plan_of(&snapshot);
    assert_eq!(plan.steps, vec![]);
    let told: Vec<&str> = plan.shortfalls.iter().map(|s| s.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "Deployment shop/web wants 2 addresses, IPPool web has 1: SpiderSubnet net4 is being \
             deleted: name another one",
            "Deployment shop/db wants 1 addresses, IPPool auto4-db-eth0-db has 0: SpiderSubnet net4 \
             is being deleted: name another one",
        ]
    );
    assert_eq!(
        steps(&seen(going(&[]), vec![pool("hand", "")], vec![])),
        Vec::<String>::new()
    );
    assert_eq!(steps(&seen(going(&[]), vec![], vec![])), ["protect false"]);
}

#[test]
fn names_that_are_taken_are_salted_and_stay_apart() {
    let plain = PoolName::from("auto4-web-eth0-web");
    let taken = Snapshot {
        names_elsewhere: [plain.clone()].into(),
        ..seen(subnet("1-9", &[]), vec![], vec![demand("web", 1)])
    };
    let first = steps(&taken).first().unwrap().clone();
    assert!(first.starts_with("create auto4-web-eth0-web-"), "{first}");
    // Two interfaces whose names differ only in what a name cannot hold.
    let nic = |nic: &str| Demand {
        nic: Nic::from(nic),
        ..demand("web", 1)
    };
    let twins = seen(subnet("1-9", &[]), vec![], vec![nic("net_1"), nic("net-1")]);
    let made = plan_of(&twins).steps.into_iter().filter_map(|step| {
        if let Step::Create(new) = step {
            Some(new.name)
        } else {
            None
        }
    });
    assert_eq!(made.collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn without_a_subnet_the_older_of_two_serves_behind_a_fence() {
    let later = DateTime::UNIX_EPOCH.checked_add_signed(TimeDelta::seconds(1));
    let older = Pool {
        admitted: None,
        finalizer: false,
        ..pool("b", "1-3")
    };
    let newer = Pool {
        admitted: None,
        created: later,
        ..pool("a", "3-5")
    };
    let alone = |pools: Vec<Pool>| Snapshot {
        subnet: SubnetSeen::None,
        ..seen(subnet("", &[]), pools, vec![])
    };
    let snapshot = alone(vec![older.clone(), newer]);
    assert!(
        plan_of(&Snapshot {
            live: false,
            ..snapshot.clone()
        })
        .needs_live
    );
    assert_eq!(
        steps(&snapshot),
        [
            "before a: epoch",
            "barrier",
            "after b: admit, finalizer true"
        ]
    );
    assert!(condition(&plan_of(&snapshot), "a", ConditionKind::Conflicting).holds);
    let unreadable = [(PoolName::from("odd"), "x".to_owned())].into();
    let waiting = Snapshot {
        unreadable,
        ..alone(vec![older])
    };
    assert_eq!(plan_of(&waiting).steps, vec![]);
    let cached = Snapshot {
        live: false,
        ..waiting.clone()
    };
    assert!(!plan_of(&cached).needs_live, "it would tell no more");
    assert_eq!(
        condition(&plan_of(&waiting), "b", ConditionKind::Ready).reason,
        "PoolUnreadable"
    );
}

#[test]
fn without_a_subnet_old_marks_go_before_another_pool_is_admitted() {
    let edited = Pool {
        ips: ips("7"),
        ..pool("a", "1-2")
    };
    let new = Pool {
        admitted: None,
        ..pool("b", "1")
    };
    let alone = |pools: Vec<Pool>| Snapshot {
        subnet: SubnetSeen::None,
        ..seen(subnet("", &[]), pools, vec![])
    };
    let both = alone(vec![edited.clone(), new]);
    assert_eq!(
        steps(&both),
        ["before a: epoch", "barrier", "after b: admit"]
    );
    // Where it is the only one to be admitted, its own old mark is just replaced.
    assert_eq!(steps(&alone(vec![edited])), ["after a: admit"]);
}

#[test]
fn without_a_subnet_a_deleted_pool_goes_with_its_last_pod() {
    let going = Pool {
        terminating: true,
        ..pool("a", "1-2")
    };
    let alone = |pools: Vec<Pool>| Snapshot {
        subnet: SubnetSeen::None,
        ..seen(subnet("", &[]), pools, vec![])
    };
    assert_eq!(
        steps(&alone(vec![in_use("1", going.clone())])),
        Vec::<String>::new()
    );
    assert_eq!(steps(&alone(vec![going])), ["before a: finalizer false"]);
}

#[test]
fn the_mark_of_an_edit_is_the_hash_of_its_result_or_nothing() {
    let old = pool("a", "1-2");
    let edit = PoolEdit {
        ips: Some(ips("1-3")),
        admit: true,
        ..PoolEdit::default()
    };
    let grown = Pool {
        ips: ips("1-3"),
        ..old.clone()
    };
    assert_eq!(edit.mark(&old), Mark::Set(grown.admission_hash()));
    let taken = PoolEdit {
        raise_epoch: true,
        ..PoolEdit::default()
    };
    assert_eq!(taken.mark(&old), Mark::Remove);
    let told = PoolEdit {
        rule: Some(SizeRule::Fixed(1)),
        ..PoolEdit::default()
    };
    assert_eq!(told.mark(&old), Mark::Keep);
}

#[test]
fn only_allocations_let_a_late_write_through() {
    let read = pool("a", "1-3");
    let later = Pool {
        version: Version::from("9"),
        ..in_use("1", read.clone())
    };
    assert!(only_allocations_between(&read, &later));
    let changes = [
        Pool {
            uid: Uid::from("x"),
            ..later.clone()
        },
        Pool {
            epoch: 1,
            ..later.clone()
        },
        Pool {
            ips: ips("1-2"),
            ..later.clone()
        },
        Pool {
            excluded: ips("1"),
            ..later.clone()
        },
        Pool {
            terminating: true,
            ..later
        },
    ];
    assert!(
        changes
            .iter()
            .all(|changed| !only_allocations_between(&read, changed))
    );
}

#[test]
fn the_reasons_read_as_the_end_of_a_sentence() {
    let (added, removed, size) = (AddrCount::new(2), AddrCount::new(1), AddrCount::new(5));
    let told = [
        (Reason::Grow { added, size }, "grown by 2 to 5 addresses"),
        (
            Reason::Shrink { removed, size },
            "shrunk by 1 to 5 addresses",
        ),
        (Reason::Admit, "admitted as it stands"),
        (
            Reason::Retire(Unwanted::NotAsked),
            "its workload no longer asks for it",
        ),
        (
            Reason::Continue {
                workload: workload("web"),
            },
            "Deployment shop/web continues with this pool",
        ),
    ];
    for (reason, text) in told {
        assert_eq!(reason.to_string(), text);
    }
}

#[test]
fn a_record_of_an_unknown_pod_counts_as_one_that_is_leaving() {
    // Two replicas live and hold, a third Pod is still stopping: three are wanted.
    let mut full = in_use("1-3", web("1-3"));
    for (address, uid) in [(1, "a"), (2, "b")] {
        let record = full.records.get(ip(address)).unwrap().clone();
        full.records.insert(
            ip(address),
            crate::record::Record {
                uid: Uid::from(uid),
                node: Some(NodeName::from("n1")),
                ..record
            },
        );
    }
    let mut wish = demand("web", 2);
    wish.pods.living = ["a", "b"].map(Uid::from).into();
    let snapshot = seen(subnet("1-9", &[("web", "1-3")]), vec![full], vec![wish]);
    assert_eq!(steps(&snapshot), Vec::<String>::new());
    assert!(plan_of(&snapshot).surplus.is_empty());
}

#[test]
fn what_is_lacking_is_summed_up_for_the_subnet_and_workloads_are_counted_once() {
    let second = Demand {
        nic: Nic::from("eth1"),
        ..demand("web", 5)
    };
    let exhausted = |demands| {
        let plan = plan_of(&seen(subnet("1-3", &[]), vec![], demands));
        let said = plan.subnet.into_iter();
        let mut said = said.filter(|c| c.kind == ConditionKind::Exhausted && c.holds);
        said.next().unwrap().message
    };
    assert_eq!(
        exhausted(vec![demand("web", 5), second]),
        "Deployment shop/web lacks 7 addresses of SpiderSubnet net4: add 7 addresses to its spec.ips"
    );
    assert_eq!(
        exhausted(vec![demand("web", 5), demand("db", 5), demand("mq", 1)]),
        "Deployment shop/web and 2 other workloads lack 8 addresses of SpiderSubnet net4: add 8 \
         addresses to its spec.ips"
    );
}

#[test]
fn a_pool_that_nobody_asks_for_is_not_ready_and_says_why() {
    let old = of_workload(&workload("web"), in_use("1", pool("web", "1")));
    let said = |living: &[&str], demands| {
        let mut snapshot = seen(subnet("1-9", &[("web", "1")]), vec![old.clone()], demands);
        snapshot.living = living.iter().map(|uid| Uid::from(*uid)).collect();
        let plan = plan_of(&snapshot);
        let ready = condition(&plan, "web", ConditionKind::Ready);
        assert_eq!((ready.reason, ready.holds), ("Retiring", false));
        ready.message.split(':').next().unwrap().to_owned()
    };
    assert_eq!(said(&[], vec![]), "its workload is gone");
    assert_eq!(
        said(&["u-web"], vec![]),
        "its workload no longer asks for it"
    );
    let elsewhere = Demand {
        nic: Nic::from("eth1"),
        ..demand("web", 1)
    };
    assert_eq!(
        said(&["u-web"], vec![elsewhere]),
        "its workload no longer asks for it"
    );
}

/// Pods `shop/p<n>` that say they have these addresses.
fn holders(addresses: &str) -> BTreeMap<IpAddr, Holder> {
    let holder = |address: IpAddr| Holder {
        pod: crate::name::PodName::new("shop", "p"),
        uid: Uid::new(format!("u-{address}")),
        node: None,
        nic: None,
    };
    ips(addresses).iter().map(|a| (a, holder(a))).collect()
}

/// Its entry still has them: nobody else has had them from there.
#[test]
fn a_pool_that_was_forced_away_gets_back_what_pods_have_and_gives_nothing_before_it_knows_them() {
    let entries = || subnet("1-9", &[("auto4-web-eth0-web", "2-3 7")]);
    let of_pods = |pools: Vec<Pool>| Snapshot {
        on_pods: ips("2-3 9"),
        holders: holders("2-3 9"),
        ..seen(entries(), pools, vec![demand("web", 3)])
    };
    let made = steps(&of_pods(vec![])).join("; ");
    let ledger = "ledger auto4-web-eth0-web [2-3 7]";
    assert!(made.contains(ledger), "{made}");
    assert!(
        made.ends_with("after auto4-web-eth0-web: ips [2-3 7]"),
        "{made}"
    );
    // The same if the pool was made, and nothing after.
    let empty = Pool {
        admitted: None,
        name: "auto4-web-eth0-web".into(),
        ..web("")
    };
    assert_eq!(
        steps(&of_pods(vec![empty])),
        [ledger, "after auto4-web-eth0-web: ips [2-3 7]"]
    );
}

#[test]
fn pods_of_a_pool_that_forgot_them_are_recorded_before_it_is_admitted() {
    let new = Pool {
        admitted: None,
        ..in_use("2", pool("shop", "1-4"))
    };
    let snapshot = Snapshot {
        on_pods: ips("2-3 9"),
        holders: holders("2-3 9"),
        ..seen(subnet("1-9", &[("shop", "1-4")]), vec![new.clone()], vec![])
    };
    assert_eq!(steps(&snapshot), ["record shop [3]"]);
    // The first write is decided on a live list: another pool may have recorded it.
    let cached = Snapshot {
        live: false,
        ..snapshot.clone()
    };
    assert!(plan_of(&cached).needs_live);
    let other = in_use("3", pool("other", "8"));
    let recorded = Snapshot {
        pools: [new.clone(), other]
            .map(|pool| (pool.name.clone(), Arc::new(pool)))
            .into(),
        ..snapshot.clone()
    };
    assert!(!steps(&recorded).iter().any(|s| s.starts_with("record")));
    // While a pool can't be read nobody knows whether it has recorded it.
    let unreadable = Snapshot {
        unreadable: [(PoolName::from("bad"), "x".to_owned())].into(),
        ..snapshot
    };
    assert_eq!(steps(&unreadable), Vec::<String>::new());
    let ready = condition(&plan_of(&unreadable), "shop", ConditionKind::Ready);
    assert_eq!((ready.holds, ready.reason), (false, "PoolUnreadable"));
}

#[test]
fn pods_of_a_pool_that_stands_alone_are_recorded_before_it_is_admitted() {
    let new = Pool {
        admitted: None,
        ..pool("shop", "1-4")
    };
    let snapshot = Snapshot {
        pools: [(new.name.clone(), Arc::new(new))].into(),
        on_pods: ips("3"),
        holders: holders("3"),
        live: true,
        ..Snapshot::default()
    };
    assert_eq!(steps(&snapshot), ["record shop [3]"]);
}

/// The names of the pools that a plan makes.
fn made(plan: &Plan) -> Vec<PoolName> {
    created(plan).map(|new| new.name.clone()).collect()
}

fn created(plan: &Plan) -> impl Iterator<Item = &NewPool> {
    plan.steps.iter().filter_map(|step| {
        if let Step::Create(new) = step {
            Some(&**new)
        } else {
            None
        }
    })
}

/// The pools that a step is about.
fn touches(step: &Step) -> Vec<&PoolName> {
    match step {
        Step::ProtectSubnet { .. } | Step::Barrier => vec![],
        Step::Create(new) => vec![&new.name],
        Step::Before(write) | Step::After(write) => vec![&write.pool],
        Step::Ledger { edits, .. } => edits.iter().map(|edit| &edit.pool).collect(),
        Step::Record { pool, .. } | Step::Delete { pool, .. } => vec![pool],
    }
}

/// Demands of workloads that differ in nothing but what `ids` says.
fn of_ids(ids: &[WorkloadId]) -> Vec<Demand> {
    let demands = ids.iter().map(|id| Demand {
        workload: id.clone(),
        ..demand(&id.name, 1)
    });
    demands.collect()
}

/// Each demand gets a pool of its own, and keeps that one and no other.
fn assert_apart(ids: &[WorkloadId]) {
    let demands = of_ids(ids);
    let plan = plan_of(&seen(subnet("1-9", &[]), vec![], demands.clone()));
    let names = made(&plan);
    let apart: BTreeSet<&PoolName> = names.iter().collect();
    assert_eq!(apart.len(), ids.len(), "{names:?}");
    assert!(names.iter().all(|name| name.as_str().len() <= 253));
    let entries = ["1", "2", "3"];
    let pools = ids.iter().zip(&names).zip(entries);
    let pools: Vec<Pool> = pools
        .map(|((id, name), own)| Pool {
            rule: Some(SizeRule::Flexible(0)),
            ..of_workload(id, pool(name.as_str(), own))
        })
        .collect();
    let ledger: Vec<(&str, &str)> = names.iter().map(PoolName::as_str).zip(entries).collect();
    for (gone, name) in names.iter().enumerate() {
        let mut left = demands.clone();
        left.remove(gone);
        let snapshot = seen(subnet("1-9", &ledger), pools.clone(), left);
        let plan = plan_of(&snapshot);
        let touched: BTreeSet<&PoolName> = plan.steps.iter().flat_map(touches).collect();
        assert_eq!(touched, [name].into(), "{:?}", steps(&snapshot));
    }
    assert!(steps(&seen(subnet("1-9", &ledger), pools, demands)).is_empty());
}

#[test]
fn namesakes_of_other_namespaces_and_kinds_have_pools_of_their_own() {
    let web = |namespace: &str, kind: &str, uid: &str| WorkloadId {
        namespace: namespace.to_owned(),
        kind: kind.to_owned(),
        // What a pool's name has of a uid is the same of all.
        uid: Uid::new(format!("{uid}-abcde")),
        ..workload("web")
    };
    assert_apart(&[
        web("shop", "Deployment", "1"),
        web("shop", "StatefulSet", "2"),
        web("bank", "Deployment", "3"),
    ]);
}

#[test]
fn workloads_whose_long_names_begin_alike_have_pools_of_their_own() {
    let long = |length: usize, end: &str| WorkloadId {
        name: format!("{}{end}", "w".repeat(length)),
        uid: Uid::new(format!("{end}-abcde")),
        ..workload("web")
    };
    for length in [62, 63, 239, 252] {
        assert_apart(&[long(length, "a"), long(length, "b"), long(length, "c")]);
    }
}

#[test]
fn another_interface_has_another_pool_and_the_former_one_goes_with_its_last_pod() {
    let other_nic = Demand {
        nic: Nic::from("net1"),
        ..demand("web", 1)
    };
    let held = in_use("1", web("1-2"));
    let entries = [("web", "1-2")];
    let snapshot = Snapshot {
        living: [workload("web").uid].into(),
        ..seen(subnet("1-9", &entries), vec![held], vec![other_nic.clone()])
    };
    let plan = plan_of(&snapshot);
    assert_eq!(made(&plan), [PoolName::from("auto4-web-net1-web")]);
    let kept = plan
        .steps
        .iter()
        .map(say)
        .find(|step| step.contains(" web: ips"));
    assert_eq!(kept.unwrap(), "before web: ips [1], admit, epoch");
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::Delete { .. }))
    );
    let empty = Snapshot {
        living: [workload("web").uid].into(),
        ..seen(subnet("1-9", &[]), vec![web("")], vec![other_nic])
    };
    assert!(steps(&empty).contains(&"delete web".to_owned()));
}

#[test]
fn a_pool_is_born_with_its_subnet_s_gateway_and_does_not_follow_another() {
    let with_gateway = Subnet {
        gateway: Some(ip(254)),
        ..subnet("1-9", &[])
    };
    let new = plan_of(&seen(with_gateway, vec![], vec![demand("web", 1)]));
    let gateways = created(&new).map(|new| new.gateway);
    assert_eq!(gateways.collect::<Vec<_>>(), [Some(ip(254))]);
    let changed = seen(
        Subnet {
            gateway: Some(ip(253)),
            ..subnet("1-9", &[("web", "1")])
        },
        vec![Pool {
            gateway: Some(ip(254)),
            ..web("1")
        }],
        vec![demand("web", 1)],
    );
    assert_eq!(steps(&changed), Vec::<String>::new());
}

#[test]
fn conditions_have_the_types_that_are_documented() {
    use ConditionKind::{Conflicting, Exhausted, Ready};
    let types = [Ready, Exhausted, Conflicting].map(ConditionKind::as_str);
    assert_eq!(types, ["Ready", "Exhausted", "Conflicting"]);
}
