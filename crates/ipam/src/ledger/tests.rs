//! One pool's batches, rule by rule; `tests/ledger_model.rs` has the random ones.

use std::collections::BTreeMap;

use super::draft::bytes_of;
use super::*;
use crate::keep::{Former, Instance, Lineage, Machine, MachineKind, Role};
use crate::name::PodName;
use crate::pool::Restrictions;
use crate::quarantine::{self, Quarantine};
use crate::record::Record;
use crate::release::Owner;
use crate::testing::{admitted, in_use, ip, ips, now, pod, pool, record, selector};

fn claim_on(pod_name: &str, nic: &str, sandbox: &str) -> Ask {
    Ask::Claim(Box::new(Claim {
        pod: pod(pod_name),
        uid: Uid::from(pod_name),
        nic: Nic::from(nic),
        sandbox: Some(Sandbox::from(sandbox)),
        first: false,
        heritage: None,
    }))
}

fn claim(pod_name: &str) -> Ask {
    claim_on(pod_name, "eth0", "s1")
}

/// The Pod is being deleted, and this sandbox of its interface let go.
fn release(uid: &str, sandbox: &str) -> Ask {
    release_of(uid, &[sandbox], Owner::Ending)
}

/// The Pod is gone.
fn gone(uid: &str) -> Ask {
    release_of(uid, &["s1"], Owner::Gone)
}

fn release_of(uid: &str, sandboxes: &[&str], owner: Owner) -> Ask {
    Ask::Release(Release {
        node: None,
        uid: Uid::from(uid),
        nic: Nic::from("eth0"),
        owner,
        sandboxes: sandboxes.iter().map(|s| Sandbox::from(*s)).collect(),
        keep_for: None,
    })
}

/// This sandbox of the Pod's eth0 heard another host answer for 10.0.0.`address`.
fn conflict(address: u8, uid: &str, sandbox: &str) -> Ask {
    Ask::Quarantine(Box::new(Conflict {
        address: ip(address),
        uid: Uid::from(uid),
        nic: Nic::from("eth0"),
        sandbox: Sandbox::from(sandbox),
        quarantine: Quarantine {
            mac: "02:00:00:00:00:01".to_owned(),
            until: now(),
        },
    }))
}

/// Queues the asks, commits their batch and gives the answers; granted addresses by their last byte.
fn answers(ledger: &mut PoolLedger, asks: Vec<Ask>) -> Vec<String> {
    for (id, ask) in (0..).zip(asks) {
        ledger.queue(id, ask);
    }
    let batch = ledger.batch(&AddrSet::new()).unwrap();
    let mut answers = ledger.committed(batch, Version::from("2"));
    answers.sort_by_key(|(id, _)| *id);
    answers.into_iter().map(|(_, answer)| say(answer)).collect()
}

fn say(answer: Answer) -> String {
    match answer {
        Answer::Claim(Ok(grant)) => grant.address.to_string().replace("10.0.0.", ""),
        Answer::Claim(Err(error)) => error.to_string(),
        Answer::Quarantine(ruling) => format!("{ruling:?}"),
        Answer::Release(released) => {
            let freed = released
                .freed
                .iter()
                .map(|a| a.to_string().replace("10.0.0.", ""));
            let freed = freed.collect::<Vec<_>>().join(" ");
            format!("-{freed} {}/{}", released.in_use, released.until_gone)
        }
    }
}

fn held(ledger: &PoolLedger) -> AddrSet {
    ledger.pool().records.addresses().clone()
}

#[test]
fn an_empty_queue_has_no_batch() {
    assert!(
        PoolLedger::new(pool("a", "1-9"))
            .batch(&AddrSet::new())
            .is_none()
    );
}

#[test]
fn all_claims_queued_cost_one_batch() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    assert_eq!(
        answers(&mut ledger, vec![claim("x"), claim("y"), claim("z")]),
        ["1", "2", "3"]
    );
    assert_eq!(ledger.waiting(), 0);
    assert_eq!(ledger.pool().version, Version::from("2"));
    let written = ledger.pool().records.get(ip(1)).unwrap();
    assert_eq!(written.pod.as_str(), "shop/x");
    assert_eq!(written.nic, Some(Nic::from("eth0")));
    assert_eq!(written.node, Some(NodeName::from("n1")));
    assert_eq!(written.sandbox, Some(Sandbox::from("s1")));
}

#[test]
fn nothing_is_promised_before_the_batch_is_stored() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    ledger.queue(1, claim("x"));
    let first = ledger.batch(&AddrSet::new()).unwrap();
    assert!(first.changed() && held(&ledger).is_empty());
    assert_eq!(ledger.waiting(), 1);
    // It was not stored: somebody else had the address first.
    ledger.refresh(Pool {
        version: Version::from("5"),
        ..in_use("1", pool("a", "1-9"))
    });
    drop(first);
    let again = ledger.batch(&AddrSet::new()).unwrap();
    let answers = ledger.committed(again, Version::from("6"));
    assert_eq!(
        answers.into_iter().map(|(_, a)| say(a)).collect::<Vec<_>>(),
        ["2"]
    );
}

#[test]
fn a_batch_that_was_stored_although_the_reply_was_lost_gives_the_same_again() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    ledger.queue(1, claim("x"));
    let stored = ledger.batch(&AddrSet::new()).unwrap().records().clone();
    ledger.refresh(Pool {
        records: stored,
        version: Version::from("5"),
        ..pool("a", "1-9")
    });
    let again = ledger.batch(&AddrSet::new()).unwrap();
    assert!(!again.changed());
    let answers = ledger.committed(again, Version::from("5"));
    assert_eq!(
        answers.into_iter().map(|(_, a)| say(a)).collect::<Vec<_>>(),
        ["1"]
    );
}

#[test]
fn asking_again_gives_the_same_address_and_writes_nothing() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    assert_eq!(answers(&mut ledger, vec![claim("x")]), ["1"]);
    ledger.queue(1, claim("x"));
    assert!(!ledger.batch(&AddrSet::new()).unwrap().changed());
}

#[test]
fn what_is_released_and_had_again_within_a_batch_is_not_written() {
    let mut ledger = PoolLedger::new(pool("a", "1"));
    assert_eq!(answers(&mut ledger, vec![claim("x")]), ["1"]);
    ledger.queue(1, release("x", "s1"));
    ledger.queue(2, claim("x"));
    let batch = ledger.batch(&AddrSet::new()).unwrap();
    assert!(!batch.changed());
    let answers = ledger.committed(batch, Version::from("2"));
    let said: Vec<_> = answers.into_iter().map(|(_, answer)| say(answer)).collect();
    assert_eq!(said, ["-1 0/0", "1"]);
}

#[test]
fn a_new_sandbox_of_the_same_pod_takes_the_record_over() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    answers(&mut ledger, vec![claim("x")]);
    assert_eq!(
        answers(&mut ledger, vec![claim_on("x", "eth0", "s2")]),
        ["1"]
    );
    assert_eq!(
        ledger.pool().records.get(ip(1)).unwrap().sandbox,
        Some(Sandbox::from("s2"))
    );
}

#[test]
fn two_claims_of_one_interface_in_a_batch_get_one_address() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    assert_eq!(
        answers(&mut ledger, vec![claim("x"), claim("x")]),
        ["1", "1"]
    );
    assert_eq!(held(&ledger), ips("1"));
}

#[test]
fn two_interfaces_of_a_pod_get_two_addresses() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    let both = vec![claim_on("x", "eth0", "s1"), claim_on("x", "net1", "s1")];
    assert_eq!(answers(&mut ledger, both), ["1", "2"]);
}

#[test]
fn a_record_without_nic_is_taken_by_the_interface_that_asks_first() {
    let mut ledger = PoolLedger::new(in_use("4", pool("a", "1-9")));
    let both = vec![claim_on("p4", "net1", "s1"), claim_on("p4", "eth0", "s1")];
    assert_eq!(answers(&mut ledger, both), ["4", "1"]);
    assert_eq!(
        ledger.pool().records.get(ip(4)).unwrap().nic,
        Some(Nic::from("net1"))
    );
}

#[test]
fn a_record_of_just_this_interface_comes_before_one_without_nic() {
    let mut old = in_use("4", pool("a", "1-9"));
    old.records.insert(
        ip(7),
        Record {
            nic: Some(Nic::from("eth0")),
            ..record("p4")
        },
    );
    let mut ledger = PoolLedger::new(old);
    assert_eq!(answers(&mut ledger, vec![claim("p4")]), ["7"]);
}

#[test]
fn keys_of_others_stay_in_a_record_that_is_taken_over() {
    let mut old = pool("a", "1-9");
    let other = [("extra".to_owned(), serde_json::json!({"x": 1}))];
    old.records.insert(
        ip(4),
        Record {
            other: other.clone().into(),
            ..record("x")
        },
    );
    let mut ledger = PoolLedger::new(old);
    assert_eq!(answers(&mut ledger, vec![claim("x")]), ["4"]);
    let kept = ledger.pool().records.get(ip(4)).unwrap();
    assert_eq!(kept.other, other.into());
    assert_eq!(kept.node, Some(NodeName::from("n1")));
}

#[test]
fn a_pod_keeps_its_address_whatever_became_of_the_pool() {
    let gone = Pool {
        ips: ips("1-3"),
        disabled: true,
        ..in_use("4", pool("a", "1-9"))
    };
    let mut ledger = PoolLedger::new(gone);
    assert_eq!(
        answers(&mut ledger, vec![claim("p4"), claim("x")]),
        ["4", "disabled IPPool a"]
    );
}

#[test]
fn the_rules_are_asked_on_the_very_object_that_is_written() {
    let limits = Restrictions {
        pod_affinity: Some(Ok(selector(&[("app", "db")]))),
        ..Restrictions::default()
    };
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    ledger.queue(1, claim("x"));
    ledger.refresh(Pool {
        restrictions: limits,
        ..pool("a", "1-9")
    });
    let batch = ledger.batch(&AddrSet::new()).unwrap();
    assert!(!batch.changed());
    let answers = ledger.committed(batch, Version::from("2"));
    let said: Vec<String> = answers.into_iter().map(|(_, a)| say(a)).collect();
    assert_eq!(said, ["unmatched Pod affinity of IPPool a"]);
}

#[test]
fn a_pool_that_was_not_admitted_gives_nothing() {
    let new = Pool {
        admitted: None,
        ..pool("a", "1-9")
    };
    let said = answers(&mut PoolLedger::new(new), vec![claim("x")]);
    assert!(
        said[0].starts_with("IPPool a is not admitted yet"),
        "{said:?}"
    );
}

#[test]
fn excluded_reserved_and_gateway_addresses_are_never_given() {
    let narrow = Pool {
        excluded: ips("2"),
        gateway: Some(ip(1)),
        ..pool("a", "1-4")
    };
    let mut ledger = PoolLedger::new(admitted(narrow));
    for (id, name) in ["x", "y"].into_iter().enumerate() {
        ledger.queue(u64::try_from(id).unwrap(), claim(name));
    }
    let batch = ledger.batch(&ips("3")).unwrap();
    let answers = ledger.committed(batch, Version::from("2"));
    let said: Vec<String> = answers.into_iter().map(|(_, a)| say(a)).collect();
    assert_eq!(said, ["4", "all IP addresses used out"]);
}

#[test]
fn an_address_reserved_while_in_use_is_not_given_again_by_the_batch_that_frees_it() {
    let mut ledger = PoolLedger::new(in_use("1", pool("a", "1")));
    ledger.queue(1, gone("p1"));
    ledger.queue(2, claim("x"));
    let batch = ledger.batch(&ips("1")).unwrap();
    let answers = ledger.committed(batch, Version::from("2"));
    let said: Vec<String> = answers.into_iter().map(|(_, a)| say(a)).collect();
    assert_eq!(said, ["-1 0/0", "all IP addresses used out"]);
}

#[test]
fn a_release_frees_what_its_owner_has_and_nothing_else() {
    let mut ledger = PoolLedger::new(in_use("1-2", pool("a", "1-9")));
    let asks = vec![gone("p3"), gone("p1")];
    assert_eq!(answers(&mut ledger, asks), ["- 0/0", "-1 0/0"]);
    assert_eq!(held(&ledger), ips("2"));
}

#[test]
fn a_release_that_comes_twice_frees_once() {
    let mut ledger = PoolLedger::new(in_use("1", pool("a", "1-9")));
    let twice = vec![gone("p1"), gone("p1")];
    assert_eq!(answers(&mut ledger, twice), ["-1 0/0", "- 0/0"]);
    ledger.queue(1, gone("p1"));
    assert!(!ledger.batch(&AddrSet::new()).unwrap().changed());
}

#[test]
fn the_end_of_an_older_sandbox_frees_nothing() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    answers(&mut ledger, vec![claim_on("x", "eth0", "s1")]);
    answers(&mut ledger, vec![claim_on("x", "eth0", "s2")]);
    for (ask, said) in [
        (release("x", "s1"), "- 1/0"),
        (gone("x"), "- 1/0"),
        (release("x", "s2"), "-1 0/0"),
    ] {
        assert_eq!(answers(&mut ledger, vec![ask]), [said]);
    }
}

#[test]
fn a_record_that_names_no_sandbox_stays_until_its_pod_is_gone() {
    let mut ledger = PoolLedger::new(in_use("1", pool("a", "1-9")));
    assert_eq!(answers(&mut ledger, vec![release("p1", "s1")]), ["- 0/1"]);
    assert_eq!(answers(&mut ledger, vec![gone("p1")]), ["-1 0/0"]);
}

#[test]
fn a_release_finds_every_record_of_its_interface_and_none_of_another() {
    let mut old = pool("a", "1-9");
    for (n, nic, sandbox) in [(1, "eth0", "s1"), (2, "eth0", "s2"), (3, "net1", "s1")] {
        let (nic, sandbox) = (Some(Nic::from(nic)), Some(Sandbox::from(sandbox)));
        old.records.insert(
            ip(n),
            Record {
                nic,
                sandbox,
                ..record("x")
            },
        );
    }
    let mut ledger = PoolLedger::new(old);
    let both = release_of("x", &["s2", "s1"], Owner::Ending);
    assert_eq!(answers(&mut ledger, vec![both]), ["-1 2 0/0"]);
    assert_eq!(held(&ledger), ips("3"));
}

#[test]
fn fresh_addresses_come_first_then_the_one_released_longest_ago() {
    let mut ledger = PoolLedger::new(pool("a", "1-4"));
    answers(&mut ledger, vec![claim("x"), claim("y"), claim("z")]);
    answers(&mut ledger, vec![gone("y")]);
    answers(&mut ledger, vec![gone("x")]);
    let four = ["a", "b", "c", "d"].map(claim).to_vec();
    assert_eq!(
        answers(&mut ledger, four),
        ["4", "2", "1", "all IP addresses used out"]
    );
}

#[test]
fn an_address_freed_by_the_batch_serves_it_only_if_nothing_else_is_free() {
    let mut ledger = PoolLedger::new(in_use("1", pool("a", "1-2")));
    let asks = vec![claim("x"), claim("y"), gone("p1")];
    assert_eq!(answers(&mut ledger, asks), ["2", "1", "-1 0/0"]);
}

#[test]
fn what_others_released_cools_down_too() {
    let mut ledger = PoolLedger::new(in_use("1", pool("a", "1-2")));
    ledger.refresh(pool("a", "1-2"));
    assert_eq!(
        answers(&mut ledger, vec![claim("x"), claim("y")]),
        ["2", "1"]
    );
}

#[test]
fn an_address_that_cooled_down_and_left_the_pool_is_forgotten() {
    let mut ledger = PoolLedger::new(in_use("1", pool("a", "1-2")));
    answers(&mut ledger, vec![gone("p1")]);
    ledger.refresh(pool("a", "2"));
    ledger.refresh(pool("a", "1-2"));
    // Back again it is as new as any other.
    assert_eq!(
        answers(&mut ledger, vec![claim("x"), claim("y")]),
        ["1", "2"]
    );
}

#[test]
fn an_ask_that_nobody_waits_for_leaves_the_queue() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    ledger.queue(1, claim("x"));
    ledger.queue(2, claim("y"));
    ledger.forget(1);
    assert_eq!(ledger.waiting(), 1);
    let batch = ledger.batch(&AddrSet::new()).unwrap();
    assert_eq!(*batch.records().addresses(), ips("1"));
    assert_eq!(batch.records().get(ip(1)).unwrap().uid, Uid::from("y"));
}

#[test]
fn an_ask_queued_while_a_batch_is_written_waits_for_the_next() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    ledger.queue(1, claim("x"));
    let batch = ledger.batch(&AddrSet::new()).unwrap();
    ledger.queue(2, claim("y"));
    assert_eq!(ledger.committed(batch, Version::from("2")).len(), 1);
    assert_eq!(ledger.waiting(), 1);
}

/// A pool with room for exactly one record more.
fn nearly_full() -> PoolLedger {
    let mut full = pool("a", "1");
    full.ips = crate::addr::parse_list(&["10.0.0.0-10.0.15.255"], crate::addr::Family::V4).unwrap();
    let mut full = admitted(full);
    let Ask::Claim(one) = claim("one") else {
        unreachable!("a claim")
    };
    let room = RECORD_BYTES_MAX - bytes_of(&one.record(BTreeMap::new()));
    let length = |pool: &Pool| pool.records.to_text().map_or(0, |text| text.len());
    let (mut used, last) = (2_000, full.ips.last().unwrap());
    for address in full.ips.iter() {
        let filler = record(&format!("{address}-{}", "x".repeat(200)));
        used += bytes_of(&filler);
        if used > room {
            break;
        }
        full.records.insert(address, filler);
    }
    full.records.insert(last, record("pad"));
    // A record has the name twice, as Pod and as uid; one byte may stay over.
    let pad = "pad".to_owned() + &"x".repeat((room - length(&full)) / 2);
    full.records.insert(last, record(&pad));
    assert!(room - length(&full) < 2);
    PoolLedger::new(full)
}

#[test]
fn the_record_stops_growing_at_the_byte_guard() {
    let mut ledger = nearly_full();
    let said = answers(&mut ledger, vec![claim("one"), claim("two")]);
    assert!(said[0].starts_with("10.0."), "{said:?}");
    assert_eq!(
        said[1],
        "all IP addresses used out, the record of IPPool a would pass 1000000 bytes: use several \
         IPPools"
    );
    let text = ledger.pool().records.to_text().unwrap();
    assert!(text.len() <= RECORD_BYTES_MAX);
    // Who has an address keeps it, and what is released makes room in the same batch.
    let (_, old) = ledger.pool().records.iter().next().unwrap();
    let text = serde_json::to_string(old).unwrap();
    let member = format!("\"{}\":{text},", "f".repeat(39));
    let named = Record {
        sandbox: Some(Sandbox::from("s")),
        ..old.clone()
    };
    let grown = serde_json::to_string(&named).unwrap().len() - text.len();
    assert_eq!(bytes_of(&named), member.len() + grown);
    let asks = vec![claim("one"), gone(old.uid.as_str()), claim("two")];
    let said = answers(&mut ledger, asks);
    assert!(
        said[0].starts_with("10.0.") && said[2].starts_with("10.0."),
        "{said:?}"
    );
}

/// A record of Pod `shop/web-0` of StatefulSet `set`, held by `uid`.
fn of_set(uid: &str, kept: bool) -> Record {
    Record {
        pod: PodName::new("shop", "web-0"),
        nic: Some(Nic::from("eth0")),
        node: (!kept).then(|| NodeName::from("n2")),
        sandbox: (!kept).then(|| Sandbox::from("old")),
        owner: Some(Uid::from("set")),
        kept,
        ..record(uid)
    }
}

/// The claim of a new Pod `shop/web-0` of the same StatefulSet.
fn heir(uid: &str, lost: &[&str]) -> Ask {
    let heritage = Heritage {
        lineage: Lineage::of_set(Uid::from("set")),
        instance: None,
        former: None,
        let_go: lost.iter().map(|uid| Uid::from(*uid)).collect(),
    };
    Ask::Claim(Box::new(Claim {
        pod: pod("web-0"),
        uid: Uid::from(uid),
        nic: Nic::from("eth0"),
        sandbox: Some(Sandbox::from("new")),
        first: false,
        heritage: Some(heritage),
    }))
}

fn with(record: Record, at: u8) -> PoolLedger {
    let mut pool = pool("a", "1-9");
    pool.records.insert(ip(at), record);
    PoolLedger::new(pool)
}

#[test]
fn a_kept_address_goes_to_the_next_pod_of_its_identity_and_to_nobody_else() {
    let mut ledger = with(of_set("old", true), 2);
    let said = answers(&mut ledger, vec![claim("x"), heir("new", &[]), claim("y")]);
    assert_eq!(said, ["1", "2", "3"]);
    let taken = ledger.pool().records.get(ip(2)).unwrap();
    assert_eq!(taken.uid, Uid::from("new"));
    assert_eq!(taken.sandbox, Some(Sandbox::from("new")));
    assert_eq!(
        (taken.owner.clone(), taken.kept),
        (Some(Uid::from("set")), false)
    );
}

#[test]
fn an_address_that_the_former_pod_still_has_is_waited_for_and_no_other_is_given() {
    let mut ledger = with(of_set("old", false), 2);
    let said = answers(&mut ledger, vec![heir("new", &["older"])]);
    assert_eq!(
        said,
        [
            "address 10.0.0.2 of IPPool a is kept for Pod shop/web-0, and its former Pod old has not let go \
             on node n2: it is given again once the agent there has seen the old sandbox removed; \
             if the node is lost for good, delete Node n2 or taint it node.kubernetes.io/out-of-service"
        ]
    );
    assert_eq!(
        ledger.pool().records.get(ip(2)),
        Some(&of_set("old", false))
    );
    // The node is lost.
    assert_eq!(answers(&mut ledger, vec![heir("new", &["old"])]), ["2"]);
}

#[test]
fn an_address_taken_over_is_kept_where_the_pool_s_rules_changed() {
    let mut pool = pool("a", "3-9");
    pool.disabled = true;
    pool.records.insert(ip(2), of_set("old", true));
    let mut ledger = PoolLedger::new(pool);
    assert_eq!(answers(&mut ledger, vec![heir("new", &[])]), ["2"]);
}

/// The claim of Pod `uid`, in which machine `vm` runs as `run`.
fn launcher(uid: &str, run: &str, role: Role) -> Ask {
    let name = format!("virt-launcher-db-{uid}");
    let machine = Machine {
        kind: MachineKind::VirtualMachine,
        name: "db".to_owned(),
    };
    Ask::Claim(Box::new(Claim {
        pod: pod(&name),
        uid: Uid::from(uid),
        nic: Nic::from("eth0"),
        sandbox: Some(Sandbox::new(format!("s-{uid}"))),
        first: false,
        heritage: Some(Heritage {
            lineage: Lineage {
                owner: Uid::from("vm"),
                machine: Some(machine),
            },
            instance: Some(Instance {
                uid: Uid::from(run),
                role,
            }),
            former: None,
            let_go: BTreeSet::new(),
        }),
    }))
}

/// The same claim for the Pod's next sandbox.
fn restarted(ask: Ask) -> Ask {
    let Ask::Claim(mut claim) = ask else {
        unreachable!("a claim")
    };
    claim.sandbox = Some(Sandbox::from("later"));
    Ask::Claim(claim)
}

#[test]
fn the_record_of_a_machine_that_the_original_served_learns_whose_it_is_when_it_moves() {
    let mut served = pool("a", "1-9");
    let of_original = Record {
        pod: PodName::new("shop", "db"),
        ..record("a")
    };
    served.records.insert(ip(1), of_original);
    let mut ledger = PoolLedger::new(served);
    let Ask::Claim(mut target) = launcher("b", "run-1", Role::MigrationTarget) else {
        unreachable!("a claim")
    };
    target.heritage.as_mut().unwrap().former = Some(Former {
        uid: Uid::from("a"),
        addresses: [ip(1)].into(),
        instance: Some(Uid::from("run-1")),
    });
    assert_eq!(
        answers(&mut ledger, vec![Ask::Claim(target.clone())]),
        ["1"]
    );
    let found = ledger.pool().records.get(ip(1)).unwrap();
    let heritage = target.heritage.as_ref().unwrap();
    let lineage = found.lineage().unwrap();
    assert_eq!(lineage, heritage.lineage);
    assert_eq!(found.instance, Some(Uid::from("run-1")));
    assert_eq!(found.nic, Some(Nic::from("eth0")));
    let holders: Vec<_> = found.holders().map(Uid::as_str).collect();
    assert_eq!(holders, ["a", "b"]);
}

/// The end of Pod `uid` of machine `vm`.
fn ended(uid: &str, keep_for: Option<&Lineage>) -> Ask {
    Ask::Release(Release {
        uid: Uid::from(uid),
        nic: Nic::from("eth0"),
        node: None,
        owner: Owner::Gone,
        sandboxes: [Sandbox::new(format!("s-{uid}"))].into(),
        keep_for: keep_for.cloned(),
    })
}

#[test]
fn a_machine_has_one_address_over_restarts_and_moves_and_no_other_machine_gets_it() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    let (start, target) = (Role::Start, Role::MigrationTarget);
    // Even if both ask before the first is written.
    let asks = vec![
        launcher("a", "run-1", start),
        launcher("b", "run-1", target),
    ];
    assert_eq!(answers(&mut ledger, asks), ["1", "1"]);
    let wanted = ledger.pool().records.get(ip(1)).unwrap().lineage();
    let at = |ledger: &PoolLedger| {
        let record = ledger.pool().records.get(ip(1))?;
        let uids: Vec<String> = record.holders().map(ToString::to_string).collect();
        Some((uids.join(" "), record.kept))
    };
    let is = |uids: &str, kept| Some((uids.to_owned(), kept));
    assert_eq!(at(&ledger), is("a b", false));
    // Who asks again is what it was; a second target waits.
    let asks = vec![
        launcher("a", "run-1", start),
        launcher("b", "run-1", target),
    ];
    assert_eq!(answers(&mut ledger, asks), ["1", "1"]);
    assert_eq!(at(&ledger), is("a b", false));
    let again = restarted(launcher("a", "run-1", start));
    assert_eq!(answers(&mut ledger, vec![again]), ["1"]);
    assert_eq!(at(&ledger), is("a b", false));
    assert_eq!(sandbox_of(&ledger), Some(Sandbox::from("later")));
    answers(&mut ledger, vec![launcher("a", "run-1", start)]);
    let said = answers(&mut ledger, vec![launcher("c", "run-1", target)]);
    assert!(said[0].contains("former Pod a has not let go"), "{said:?}");
    // The move fails; the next one succeeds, and the former source is not heard any more.
    answers(&mut ledger, vec![ended("b", wanted.as_ref())]);
    assert_eq!(at(&ledger), is("a", false));
    let asks = vec![launcher("c", "run-1", target)];
    assert_eq!(answers(&mut ledger, asks), ["1"]);
    answers(&mut ledger, vec![ended("a", None)]);
    assert_eq!(at(&ledger), is("c", false));
    answers(&mut ledger, vec![ended("a", None), ended("b", None)]);
    assert_eq!(at(&ledger), is("c", false));
    // Stopped, and started as another run.
    let said = answers(&mut ledger, vec![launcher("d", "run-2", start)]);
    assert!(said[0].contains("former Pod c has not let go"), "{said:?}");
    answers(&mut ledger, vec![ended("c", wanted.as_ref())]);
    assert_eq!(at(&ledger), is("c", true));
    assert_eq!(answers(&mut ledger, vec![claim("x")]), ["2"]);
    let asks = vec![launcher("d", "run-2", start)];
    assert_eq!(answers(&mut ledger, asks), ["1"]);
    answers(&mut ledger, vec![ended("d", None)]);
    assert_eq!(at(&ledger), None);
}

#[test]
fn an_address_in_conflict_is_given_to_nobody_and_its_pod_gets_another() {
    let mut ledger = PoolLedger::new(pool("a", "1-3"));
    assert_eq!(answers(&mut ledger, vec![claim("x")]), ["1"]);
    // One write: the address goes into quarantine, and the Pod's next claim gets the next one.
    let asks = vec![claim("x"), conflict(1, "x", "s1"), claim("y")];
    assert_eq!(answers(&mut ledger, asks), ["2", "Quarantined", "3"]);
    assert_eq!(
        answers(&mut ledger, vec![claim("z")]),
        ["all IP addresses used out"]
    );
    let records = &ledger.pool().records;
    assert_eq!(records.quarantined(), ips("1"));
    assert_eq!(ledger.pool().used().get(), 2);
    let quarantined = records.get(ip(1)).unwrap();
    assert_eq!(quarantined.pod, PodName::new("shop", "x"));
    // Neither the Pod's end nor a claim touches it.
    answers(&mut ledger, vec![gone("x"), gone(quarantine::HOLDER)]);
    assert_eq!(ledger.pool().records.quarantined(), ips("1"));
}

#[test]
fn only_who_holds_an_address_puts_it_into_quarantine_and_never_a_fixed_one() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    assert_eq!(answers(&mut ledger, vec![claim("x")]), ["1"]);
    let others = vec![
        conflict(1, "y", "s1"),
        conflict(1, "x", "s2"),
        conflict(2, "x", "s1"),
    ];
    assert_eq!(answers(&mut ledger, others), ["NotIts"; 3]);
    assert_eq!(ledger.pool().used().get(), 1);
    let mut fixed = pool("a", "1-9");
    let held = Record {
        nic: Some(Nic::from("eth0")),
        sandbox: Some(Sandbox::from("s1")),
        owner: Some(Uid::from("set")),
        ..record("x")
    };
    fixed.records.insert(ip(1), held.clone());
    let mut ledger = PoolLedger::new(fixed);
    assert_eq!(
        answers(&mut ledger, vec![conflict(1, "x", "s1")]),
        ["Fixed"]
    );
    assert_eq!(ledger.pool().records.get(ip(1)), Some(&held));
}

#[test]
fn a_quarantine_that_a_foreign_writer_stripped_still_keeps_the_address_from_pods() {
    let mut ledger = PoolLedger::new(pool("a", "1-2"));
    answers(&mut ledger, vec![claim("x")]);
    answers(&mut ledger, vec![conflict(1, "x", "s1")]);
    let mut stripped = ledger.pool().clone();
    let quarantined = stripped.records.get(ip(1)).unwrap().clone();
    let foreign = Record {
        quarantine: None,
        ..quarantined
    };
    stripped.records.insert(ip(1), foreign);
    ledger.refresh(stripped);
    assert_eq!(
        answers(&mut ledger, vec![claim("x"), claim("y")]),
        ["2", "all IP addresses used out"]
    );
}

/// The claim for a Pod that has a node and no sandbox yet.
fn early(pod_name: &str) -> Ask {
    Ask::Claim(Box::new(Claim {
        pod: pod(pod_name),
        uid: Uid::from(pod_name),
        nic: Nic::from("eth0"),
        sandbox: None,
        first: false,
        heritage: None,
    }))
}

/// The claim of a sandbox that its agent knows to be the first.
fn first(pod_name: &str, sandbox: &str) -> Ask {
    let Ask::Claim(claim) = claim_on(pod_name, "eth0", sandbox) else {
        unreachable!("a claim")
    };
    Ask::Claim(Box::new(Claim {
        first: true,
        ..*claim
    }))
}

fn sandbox_of(ledger: &PoolLedger) -> Option<Sandbox> {
    let record = ledger.pool().records.get(ip(1)).unwrap();
    record.sandbox.clone()
}

#[test]
fn the_first_sandbox_finds_what_was_bound_early_and_nothing_is_written() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    assert_eq!(answers(&mut ledger, vec![early("x")]), ["1"]);
    assert_eq!(sandbox_of(&ledger), None);
    ledger.queue(1, first("x", "s1"));
    let batch = ledger.batch(&AddrSet::new()).unwrap();
    assert!(!batch.changed());
    let answers = ledger.committed(batch, Version::from("3"));
    let grants = answers.into_iter().map(|(_, answer)| answer);
    let grant = Grant {
        address: ip(1),
        node: NodeName::from("n1"),
        early: true,
    };
    assert_eq!(grants.collect::<Vec<_>>(), [Answer::Claim(Ok(grant))]);
}

#[test]
fn a_sandbox_that_may_be_a_later_one_is_recorded_and_stays_whoever_comes_late() {
    let mut ledger = PoolLedger::new(pool("a", "1-9"));
    let asks = vec![early("x"), claim_on("x", "eth0", "s2")];
    assert_eq!(answers(&mut ledger, asks), ["1", "1"]);
    assert_eq!(sandbox_of(&ledger), Some(Sandbox::from("s2")));
    // The leader asks late, and an older sandbox lets go.
    let asks = vec![early("x"), release("x", "s1")];
    assert_eq!(answers(&mut ledger, asks), ["1", "- 1/0"]);
    assert_eq!(sandbox_of(&ledger), Some(Sandbox::from("s2")));
}

#[test]
fn what_was_bound_early_is_of_its_node_and_its_interface() {
    let bound = |change: fn(&mut Record)| {
        let mut pool = pool("a", "1-9");
        let mut own = Record {
            nic: Some(Nic::from("eth0")),
            node: Some(NodeName::from("n1")),
            ..record("x")
        };
        change(&mut own);
        pool.records.insert(ip(1), own);
        let mut ledger = PoolLedger::new(pool);
        assert_eq!(answers(&mut ledger, vec![first("x", "s1")]), ["1"]);
        sandbox_of(&ledger).is_none()
    };
    assert!(bound(|_| {}));
    assert!(!bound(|own| own.node = Some(NodeName::from("n2"))));
    // As the original writes it, and as its typed writers leave ours behind.
    assert!(!bound(|own| own.node = None));
    assert!(!bound(|own| own.nic = None));
    assert!(!bound(|own| own.kept = true));
}

#[test]
fn what_is_bound_early_has_room_for_the_sandbox_that_it_may_name() {
    let mut ledger = nearly_full();
    let Ask::Claim(one) = early("one") else {
        unreachable!("a claim")
    };
    let record = one.record(BTreeMap::new());
    let named = Record {
        sandbox: Some(Sandbox::new("0".repeat(64))),
        ..record.clone()
    };
    assert_eq!(bytes_of(&record), bytes_of(&named));
    assert!(answers(&mut ledger, vec![early("one")])[0].contains("1000000 bytes"));
}
