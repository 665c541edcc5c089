//! Who is admitted, who waits and who continues: the halves of conditions that single stories leave
//! out.

use super::*;
use crate::subnet::SubnetLedger;

const NOTHING: [&str; 0] = [];

fn with(pool: Pool, change: impl FnOnce(&mut Pool)) -> Pool {
    let mut pool = pool;
    change(&mut pool);
    pool
}

fn new(pool: Pool) -> Pool {
    with(pool, |pool| pool.admitted = None)
}

/// Edited since it was admitted.
fn stale(pool: Pool) -> Pool {
    with(pool, |pool| pool.admitted = Some("before".to_owned()))
}

fn bare(pool: Pool) -> Pool {
    with(pool, |pool| pool.finalizer = false)
}

fn alone(pools: Vec<Pool>) -> Snapshot {
    Snapshot {
        subnet: SubnetSeen::None,
        ..seen(subnet("", &[]), pools, vec![])
    }
}

fn cached(snapshot: Snapshot) -> Plan {
    plan_of(&Snapshot {
        live: false,
        ..snapshot
    })
}

#[test]
fn a_pool_that_stands_alone_and_serves_is_given_its_finalizer_and_nothing_else() {
    let served = pool("a", "1-3");
    assert_eq!(
        steps(&alone(vec![bare(served.clone())])),
        ["before a: finalizer true"]
    );
    assert_eq!(steps(&alone(vec![served])), NOTHING);
}

#[test]
fn of_pools_that_wait_alone_those_with_an_older_mark_lose_it_first() {
    let both = alone(vec![stale(pool("a", "1-3")), new(pool("b", "5"))]);
    assert_eq!(
        steps(&both),
        ["before a: epoch", "barrier", "after b: admit"]
    );
    // The only one that is to be admitted harms nobody by its own.
    let one = alone(vec![stale(pool("a", "1-3"))]);
    assert_eq!(steps(&one), ["after a: admit"]);
}

#[test]
fn who_is_refused_alone_is_fenced_only_where_another_is_admitted() {
    let loser = || new(pool("b", "3-5"));
    assert_eq!(steps(&alone(vec![pool("a", "1-3"), loser()])), NOTHING);
    let stale_ones = vec![stale(pool("a", "1-3")), loser(), stale(pool("c", "7"))];
    let fenced = [
        "before a: epoch",
        "before c: epoch",
        "before b: epoch",
        "barrier",
    ];
    assert_eq!(steps(&alone(stale_ones)), fenced);
}

#[test]
fn a_pool_by_hand_beyond_its_subnet_loses_its_admission_and_says_what_is_beyond() {
    let entries = || subnet("1-5", &[("a", "1-7")]);
    let snapshot = seen(entries(), vec![pool("a", "1-7")], vec![]);
    assert_eq!(steps(&snapshot), ["before a: epoch"]);
    let told = condition(&plan_of(&snapshot), "a", ConditionKind::Ready);
    assert_eq!((told.holds, told.reason), (false, "OutsideSubnet"));
    assert!(
        told.message.contains("10.0.0.6-10.0.0.7"),
        "{}",
        told.message
    );
    let before = seen(entries(), vec![new(pool("a", "1-7"))], vec![]);
    let told = condition(&plan_of(&before), "a", ConditionKind::Ready);
    assert_eq!((told.holds, told.reason), (false, "OutsideSubnet"));
    assert!(!steps(&before).contains(&"before a: epoch".to_owned()));
}

#[test]
fn a_pool_that_is_refused_is_protected_all_the_same() {
    let pools = || vec![pool("a", "1-3"), bare(new(pool("b", "3-5")))];
    let snapshot = seen(subnet("1-9", &[("a", "1-3")]), pools(), vec![]);
    assert_eq!(steps(&snapshot), ["after b: finalizer true"]);
}

#[test]
fn what_pods_have_of_a_pool_that_serves_goes_or_is_another_s_is_not_recorded() {
    let of = |pools: Vec<Pool>, entries: &[(&str, &str)]| {
        let snapshot = Snapshot {
            on_pods: ips("3"),
            holders: holders("3"),
            ..seen(subnet("1-9", entries), pools, vec![])
        };
        let steps = steps(&snapshot).into_iter();
        steps
            .filter(|step| step.starts_with("record"))
            .collect::<Vec<_>>()
    };
    let a = || pool("a", "1-3");
    assert_eq!(of(vec![new(a())], &[]), ["record a [3]"]);
    assert_eq!(of(vec![a()], &[("a", "1-3")]), NOTHING);
    let ends = with(a(), |pool| pool.terminating = true);
    assert_eq!(of(vec![new(ends.clone())], &[("a", "1-3")]), NOTHING);
    assert_eq!(of(vec![ends], &[("a", "1-3")]), NOTHING);
    let contested = vec![new(a()), pool("b", "3-5")];
    assert_eq!(of(contested, &[("b", "3-5")]), NOTHING);
}

#[test]
fn a_workload_s_pool_that_waits_to_know_its_pods_is_not_served_meanwhile() {
    let snapshot = Snapshot {
        on_pods: ips("3"),
        holders: holders("3"),
        unreadable: [("torn".into(), "no JSON".to_owned())].into(),
        ..seen(
            subnet("1-9", &[("web", "1-3")]),
            vec![new(web("1-3"))],
            vec![demand("web", 5)],
        )
    };
    assert_eq!(steps(&snapshot), NOTHING);
    let told = condition(&plan_of(&snapshot), "web", ConditionKind::Ready);
    assert_eq!(told.reason, "PoolUnreadable");
}

#[test]
fn only_who_admits_what_a_cache_showed_looks_at_all_pools_live() {
    let found = || seen(subnet("1-9", &[]), vec![new(pool("a", "1-3"))], vec![]);
    let plan = cached(found());
    assert!(plan.needs_live && plan.steps.is_empty(), "{plan:?}");
    assert!(!plan_of(&found()).needs_live);
    // What is carved is nobody's, as the ledger's version proves.
    let empty = || with(new(web("")), |pool| pool.finalizer = true);
    let carved = seen(
        subnet("1-9", &[("web", "")]),
        vec![empty()],
        vec![demand("web", 2)],
    );
    let plan = cached(carved);
    assert!(!plan.needs_live && !plan.steps.is_empty(), "{plan:?}");
    let grown = seen(
        subnet("1-9", &[("web", "1-2")]),
        vec![web("1-2")],
        vec![demand("web", 3)],
    );
    let plan = cached(grown);
    assert!(!plan.needs_live && !plan.steps.is_empty(), "{plan:?}");
    // Nothing is admitted.
    let shown = seen(
        subnet("1-9", &[("a", "1-3")]),
        vec![bare(pool("a", "1-3"))],
        vec![],
    );
    assert!(!cached(shown).needs_live);
}

#[test]
fn an_entry_names_the_workload_of_its_pool() {
    let snapshot = seen(
        subnet("1-9", &[("web", "1-2")]),
        vec![web("1-2"), new(pool("hand", "8"))],
        vec![demand("web", 3)],
    );
    let plan = plan_of(&snapshot);
    let edits = plan.steps.iter().find_map(|step| match step {
        Step::Ledger { edits, .. } => Some(edits),
        Step::ProtectSubnet { .. }
        | Step::Record { .. }
        | Step::Create(_)
        | Step::Before(_)
        | Step::Barrier
        | Step::After(_)
        | Step::Delete { .. } => None,
    });
    let named: Vec<_> = edits
        .unwrap()
        .iter()
        .map(|edit| (edit.pool.as_str(), edit.entry.application.as_deref()))
        .collect();
    let web = ("web", Some("apps_v1_Deployment_shop_web"));
    assert_eq!(named, [("hand", None), web]);
}

/// Each range is counted at its longest, which those of IPv4 are far from.
#[test]
fn a_ledger_is_full_by_its_text_and_not_by_what_it_could_be() {
    let scattered: AddrSet = (0_u32..7_000)
        .map(|n| IpAddr::from((0x0a00_0000_u32 + 4 * n).to_be_bytes()))
        .chain((0_u32..7_000).map(|n| IpAddr::from((0x0a10_0000_u32 + 4 * n).to_be_bytes())))
        .collect();
    let cidr: ipnet::IpNet = "10.0.0.0/8".parse().unwrap();
    let mut large = subnet("", &[]);
    large.cidr = cidr;
    large.ips = AddrSet::from(crate::addr::Range::of_net(&cidr));
    let mut ledger = SubnetLedger::default();
    let entry = Entry {
        ips: scattered.clone(),
        application: None,
    };
    ledger.set(&"large".into(), entry);
    assert!(ledger.bytes_at_most() > crate::subnet::LEDGER_BYTES_MAX);
    large.ledger = Some(ledger);
    let owner = crate::testing::admitted(with(pool("large", ""), |pool| {
        pool.cidr = cidr;
        pool.ips = scattered;
    }));
    let made = steps(&seen(large, vec![owner], vec![demand("web", 1)]));
    assert!(
        made.iter().any(|step| step.starts_with("create")),
        "{made:?}"
    );
}

#[test]
fn where_a_ledger_is_rebuilt_who_has_what_is_another_s_stops_unless_it_goes_anyway() {
    let lost = Subnet {
        ledger: None,
        ..subnet("1-9", &[])
    };
    let of = |loser: Pool| steps(&seen(lost.clone(), vec![pool("a", "1-3"), loser], vec![]));
    let waiting = new(pool("b", "3-5"));
    let said = of(waiting.clone());
    assert!(said.contains(&"before b: epoch".to_owned()), "{said:?}");
    let ends = with(waiting, |pool| pool.terminating = true);
    let both = |loser: Pool| {
        let winner = in_use("3", pool("a", "1-3"));
        steps(&seen(
            lost.clone(),
            vec![winner, in_use("3", loser)],
            vec![],
        ))
    };
    let said = both(new(pool("b", "3-5")));
    assert!(said.contains(&"before b: epoch".to_owned()), "{said:?}");
    let said = both(ends);
    assert!(said.contains(&"ledger a [1-3]".to_owned()), "{said:?}");
    assert!(!said.contains(&"before b: epoch".to_owned()), "{said:?}");
}

/// A pool that `web` left behind, with this owner's uid.
fn kept(uid: &str, reclaim: bool) -> Pool {
    with(web("1-2"), |pool| {
        pool.owner = pool.owner.take().map(|owner| Owner {
            uid: Uid::from(uid),
            reclaim,
            ..owner
        });
    })
}

#[test]
fn a_kept_pool_continues_only_for_a_namesake_whose_former_is_gone_and_if_it_can_serve() {
    let entries = || subnet("1-9", &[("web", "1-2")]);
    let continues = |pool: Pool, demands: Vec<Demand>| {
        let steps = steps(&seen(entries(), vec![pool], demands));
        steps.iter().any(|step| step.contains("web: owner u-web"))
    };
    let web = || vec![demand("web", 2)];
    assert!(continues(kept("before", false), web()));
    assert!(
        !continues(kept("before", true), web()),
        "it goes with its own"
    );
    let former = Demand {
        workload: WorkloadId {
            uid: Uid::from("before"),
            namespace: "other".to_owned(),
            ..workload("web")
        },
        ..demand("web", 2)
    };
    assert!(
        !continues(kept("before", false), vec![demand("web", 2), former]),
        "it lives"
    );
    let elsewhere = with(kept("before", false), |pool| {
        pool.owner = pool.owner.take().map(|owner| Owner {
            nic: Nic::from("net1"),
            ..owner
        });
    });
    assert!(!continues(elsewhere, web()));
    // One that may not serve, since another has what it claims.
    let contested = seen(
        subnet("1-9", &[("other", "1-2")]),
        vec![new(kept("before", false)), pool("other", "1-2")],
        web(),
    );
    let steps = steps(&contested);
    assert!(
        !steps.iter().any(|step| step.contains("owner u-web")),
        "{steps:?}"
    );
    // Two workloads never have one pool.
    let second = Demand {
        rule: SizeRule::Flexible(1),
        ..demand("web", 2)
    };
    let steps = self::steps(&seen(
        entries(),
        vec![kept("u-web", true)],
        vec![demand("web", 2), second],
    ));
    assert!(
        steps.iter().any(|step| step.starts_with("create")),
        "{steps:?}"
    );
}

#[test]
fn a_workload_s_own_pool_serves_it_before_one_that_was_kept() {
    let former = with(kept("before", false), |pool| pool.name = "earlier".into());
    let former = crate::testing::admitted(with(former, |pool| pool.ips = ips("5-6")));
    let snapshot = seen(
        subnet("1-9", &[("web", "1-2"), ("earlier", "5-6")]),
        vec![former, web("1-2")],
        vec![demand("web", 2)],
    );
    assert_eq!(steps(&snapshot), NOTHING);
}

#[test]
fn a_new_pool_has_another_name_where_one_that_can_t_be_read_has_the_usual_one() {
    let snapshot = Snapshot {
        unreadable: [("auto4-web-eth0-web".into(), "no JSON".to_owned())].into(),
        ..seen(subnet("1-9", &[]), vec![], vec![demand("web", 1)])
    };
    let made = steps(&snapshot);
    let created = made.iter().find(|step| step.starts_with("create")).unwrap();
    assert!(
        created.starts_with("create auto4-web-eth0-web-"),
        "{made:?}"
    );
}

#[test]
fn only_a_pool_with_more_than_it_needs_and_something_free_has_a_surplus() {
    let of = |pool: Pool, replicas| {
        let plan = plan_of(&seen(
            subnet("1-9", &[("web", "1-3")]),
            vec![pool],
            vec![demand("web", replicas)],
        ));
        let surplus: Vec<_> = plan.surplus.iter().map(PoolName::as_str).collect();
        (surplus.join(" "), plan.wake_at.is_some())
    };
    assert_eq!(of(web("1-3"), 2), ("web".to_owned(), true));
    assert_eq!(of(web("1-3"), 3), (String::new(), false));
    // Reserved meanwhile, an address in use counts, and can't be given up.
    let busy = in_use("1-3", web("1-3"));
    let quarantined = in_quarantine("3", in_use("1-2", web("1-3")));
    assert_eq!(of(busy, 1), (String::new(), false));
    assert_eq!(of(quarantined, 2), (String::new(), false));
}

#[test]
fn a_pool_of_a_workload_is_admitted_when_it_has_its_size_and_told_what_changes() {
    let of = |pool: Pool, demand: Demand| {
        steps(&seen(
            subnet("1-9", &[("web", "1-2")]),
            vec![pool],
            vec![demand],
        ))
    };
    assert_eq!(
        of(new(web("1-2")), demand("web", 2)),
        ["ledger web [1-2]", "after web: admit"]
    );
    let keeps = Demand {
        reclaim: false,
        ..demand("web", 2)
    };
    assert_eq!(of(web("1-2"), keeps), ["after web: owner u-web"]);
}

#[test]
fn a_second_pool_of_a_workload_goes_even_if_it_would_be_kept() {
    let second = with(kept("u-web", false), |pool| {
        pool.name = "web-2".into();
        pool.ips = ips("5-6");
    });
    let second = crate::testing::admitted(second);
    let own = with(web("1-2"), |pool| {
        pool.owner = pool.owner.take().map(|owner| Owner {
            reclaim: false,
            ..owner
        });
    });
    let keeps = Demand {
        reclaim: false,
        ..demand("web", 2)
    };
    let entries = || subnet("1-9", &[("web", "1-2"), ("web-2", "5-6")]);
    let both = seen(entries(), vec![own.clone(), second.clone()], vec![keeps]);
    let told = condition(&plan_of(&both), "web-2", ConditionKind::Ready);
    assert_eq!(told.reason, "Retiring");
    let neither = seen(entries(), vec![own, second], vec![]);
    assert_eq!(steps(&neither), NOTHING);
}

#[test]
fn a_pool_that_was_deleted_keeps_its_entry_only_if_its_workload_has_it_anew_at_once() {
    let ends = |pool: Pool| with(pool, |pool| pool.terminating = true);
    let of =
        |pool: Pool, demands| steps(&seen(subnet("1-9", &[("web", "1-2")]), vec![pool], demands));
    let asked = || vec![demand("web", 2)];
    assert_eq!(
        of(ends(web("1-2")), asked()),
        ["before web: finalizer false"]
    );
    let drained = [
        "before web: ips [], admit, epoch",
        "ledger web [] if written",
    ];
    assert_eq!(of(ends(web("1-2")), vec![]), drained);
    let held_by_others = of(bare(ends(web("1-2"))), asked());
    assert!(
        held_by_others.iter().any(|step| *step == drained[0]),
        "{held_by_others:?}"
    );
    let busy = of(ends(in_use("1", web("1-2"))), asked());
    let busy: Vec<_> = busy.iter().filter(|step| step.contains(" web")).collect();
    assert_eq!(busy[0], "before web: ips [1], admit, epoch");
    assert!(
        !busy.iter().any(|step| step.contains("finalizer false")),
        "{busy:?}"
    );
}

#[test]
fn a_pool_that_goes_gives_back_what_only_its_entry_has() {
    let left = seen(
        subnet("1-9", &[("web", "2-3")]),
        vec![in_use("2", web("2"))],
        vec![],
    );
    assert_eq!(
        steps(&left),
        [
            "before web: ips [2], admit, epoch",
            "ledger web [2] if written"
        ]
    );
}

/// Which of pools a and b is refused, and over whom.
fn refused(pools: Vec<Pool>, entries: &[(&str, &str)]) -> Vec<String> {
    let plan = plan_of(&seen(subnet("1-9", entries), pools, vec![]));
    let said = ["a", "b"].map(|name| {
        let said = plan.pools.get(&PoolName::from(name))?.iter();
        let mut conflicts = said.filter(|c| c.kind == ConditionKind::Conflicting && c.holds);
        let conflict = conflicts.next()?;
        Some(format!("{name}: {}", conflict.message))
    });
    said.into_iter().flatten().collect()
}

#[test]
fn of_two_that_recorded_one_address_the_first_is_not_refused_over_it() {
    let pools = ["a", "b"].map(|name| new(in_use("3", pool(name, "3"))));
    let said = refused(pools.to_vec(), &[]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("b: ") && said[0].contains("IPPool a"),
        "{said:?}"
    );
}

#[test]
fn what_another_pool_s_pod_has_of_an_entry_keeps_its_pool_from_being_admitted_and_not_from_serving()
{
    let other = || in_use("2", new(pool("b", "5")));
    let entries = [("a", "1-3"), ("b", "5")];
    let is_refused = |pool| {
        let said = refused(vec![pool, other()], &entries);
        said.iter().any(|line| line.starts_with("a: "))
    };
    assert!(is_refused(new(pool("a", "1-3"))));
    assert!(!is_refused(pool("a", "1-3")));
}

#[test]
fn who_has_what_a_pool_wants_is_named() {
    let said = refused(
        vec![pool("a", "1-3"), new(pool("b", "3-5"))],
        &[("a", "1-3")],
    );
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("IPPool a"), "{said:?}");
    let vanished = refused(
        vec![new(pool("a", "3-5")), pool("b", "9")],
        &[("gone", "3"), ("b", "9")],
    );
    assert!(vanished[0].contains("IPPool gone"), "{vanished:?}");
}
