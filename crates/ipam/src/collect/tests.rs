use super::*;
use crate::keep::Lineage;
use crate::name::{Nic, Uid};
use crate::testing::{ip, record};

fn at(minutes: i64) -> DateTime<Utc> {
    let seconds = TimeDelta::minutes(minutes).num_seconds();
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn held(n: u8) -> Holding {
    let mut record = record("u-1");
    record.nic = Some(Nic::from("eth0"));
    Holding::of(&PoolName::from("a"), ip(n), &record).remove(0)
}

fn n1() -> NodeName {
    NodeName::from("n1")
}

fn unready(minutes: i64, sign: Sign) -> Standing {
    Standing::Unready {
        since: Some(at(minutes)),
        sign,
    }
}

fn seen(fate: Fate, home: Home) -> Seen {
    Seen {
        holding: held(1),
        fate,
        home,
        lineage: None,
    }
}

const READY: Standing = Standing::Ready {
    since: Some(DateTime::UNIX_EPOCH),
};
const POLICY: Policy = Policy {
    lost_nodes: LostNodes::ByTime,
    delay: TimeDelta::zero(),
};

/// At minute 60.
fn verdict(seen: &Seen) -> Verdict {
    judge(seen, &POLICY, at(60))
}

fn recorded(fate: Fate, standing: Standing) -> Verdict {
    verdict(&seen(fate, Home::Recorded(n1(), standing)))
}

#[test]
fn each_verdict_has_a_word_for_programs() {
    let gone = Proof::Deleted(n1());
    for (verdict, word) in [
        (Verdict::InUse, "InUse"),
        (Verdict::Agent(n1()), "Agent"),
        (Verdict::Goes(gone), "Goes"),
    ] {
        assert_eq!(verdict.word(), word);
    }
}

/// Its grace period is over by then.
const ENDS: Fate = Fate::Ends {
    by: DateTime::UNIX_EPOCH,
};

#[test]
fn a_pod_that_ends_loses_its_address_with_its_node_and_not_before() {
    let agents = Verdict::Agent(n1());
    assert_eq!(recorded(Fate::Gone, READY), agents);
    assert_eq!(recorded(ENDS, READY), Verdict::Waits(Doubt::Ending));
    let not_overdue = Fate::Ends { by: at(61) };
    let silent = unready(0, Sign::Silent);
    let waits = Verdict::Waits(Doubt::Ending);
    assert_eq!(recorded(not_overdue, silent), waits);
    for fate in [Fate::Gone, ENDS, not_overdue] {
        let deleted = Verdict::Goes(Proof::Deleted(n1()));
        assert_eq!(recorded(fate, Standing::Gone), deleted);
        let tainted = Verdict::Goes(Proof::OutOfService(n1()));
        assert_eq!(recorded(fate, Standing::OutOfService), tainted);
    }
}

#[test]
fn a_node_is_lost_after_six_minutes_without_any_sign_of_life() {
    let lost = Verdict::Goes(Proof::Lost(n1(), at(54)));
    for fate in [Fate::Gone, ENDS] {
        assert_eq!(recorded(fate, unready(54, Sign::Silent)), lost);
    }
    let doubts = [
        (unready(55, Sign::Silent), Doubt::Recent(n1())),
        (unready(55, Sign::NotAsked), Doubt::Recent(n1())),
        (unready(0, Sign::Answers), Doubt::Answers(n1())),
        (unready(0, Sign::NotAsked), Doubt::NotAsked(n1())),
        (
            Standing::Unready {
                since: None,
                sign: Sign::Silent,
            },
            Doubt::Recent(n1()),
        ),
    ];
    for (standing, doubt) in doubts {
        assert_eq!(recorded(Fate::Gone, standing), Verdict::Waits(doubt));
    }
}

#[test]
fn a_pod_that_lives_keeps_its_address_whatever_its_node() {
    let standings = [
        READY,
        Standing::Gone,
        Standing::OutOfService,
        unready(0, Sign::Silent),
        unready(0, Sign::Answers),
    ];
    for standing in standings {
        assert_eq!(recorded(Fate::Lives, standing), Verdict::InUse);
    }
}

#[test]
fn a_delay_is_added_to_every_grace_period() {
    let policy = Policy {
        delay: TimeDelta::minutes(10),
        ..POLICY
    };
    let lost = |since, fate| seen(fate, Home::Recorded(n1(), unready(since, Sign::Silent)));
    let goes = |since, fate| {
        let verdict = judge(&lost(since, fate), &policy, at(60));
        verdict == Verdict::Goes(Proof::Lost(n1(), at(since)))
    };
    assert!(goes(44, Fate::Gone) && !goes(45, Fate::Gone));
    let ends = |by| Fate::Ends { by: at(by) };
    assert!(goes(0, ends(50)) && !goes(0, ends(51)));
}

#[test]
fn a_lost_node_is_not_enough_for_a_fixed_address_or_a_careful_operator() {
    let lost = seen(Fate::Gone, Home::Recorded(n1(), unready(0, Sign::Silent)));
    let careful = Policy {
        lost_nodes: LostNodes::ByWord,
        ..POLICY
    };
    let waits = judge(&lost, &careful, at(60));
    assert_eq!(waits, Verdict::Waits(Doubt::ByWord(n1())));
    let fixed = Seen {
        lineage: Some(Lineage::of_set(Uid::from("set"))),
        ..lost
    };
    assert_eq!(verdict(&fixed), Verdict::Waits(Doubt::Fixed(n1())));
    // A person's word is, for both.
    let word = Seen {
        home: Home::Recorded(n1(), Standing::OutOfService),
        ..fixed
    };
    let goes = judge(&word, &careful, at(60));
    assert_eq!(goes, Verdict::Goes(Proof::OutOfService(n1())));
}

#[test]
fn a_record_without_a_node_needs_the_word_of_each_that_it_may_be_of() {
    let any = |standings: &[Standing]| {
        let names = ["n1", "n2", "n3"].map(NodeName::from).into_iter();
        seen(
            Fate::Gone,
            Home::Any(names.zip(standings.iter().cloned()).collect()),
        )
    };
    let settled = Verdict::Goes(Proof::Settled);
    let told = |standing| seen(Fate::Gone, Home::Told(n1(), standing));
    assert_eq!(verdict(&told(READY)), settled);
    assert_eq!(
        verdict(&told(Standing::Gone)),
        Verdict::Goes(Proof::Deleted(n1()))
    );
    let good = [READY, Standing::OutOfService, unready(0, Sign::Silent)];
    assert_eq!(verdict(&any(&good)), settled);
    let doubtful = [READY, unready(0, Sign::Answers)];
    let waits = Verdict::Waits(Doubt::Answers(NodeName::from("n2")));
    assert_eq!(verdict(&any(&doubtful)), waits);
    // One that only ends may be on a node that nobody thought of.
    let ends = Seen {
        fate: ENDS,
        ..any(&[Standing::Gone])
    };
    assert_eq!(verdict(&ends), Verdict::Waits(Doubt::Ending));
    let fresh = told(Standing::Ready {
        since: Some(at(51)),
    });
    assert_eq!(verdict(&fresh), Verdict::Waits(Doubt::Settling(n1())));
    // While the Pod ends, its sandbox may still be there.
    for mut ending in [any(&good), told(READY)] {
        ending.fate = Fate::Ends { by: at(0) };
        assert_eq!(verdict(&ending), Verdict::Waits(Doubt::Ending));
    }
}

#[test]
fn a_static_pod_s_record_stays_until_its_node_is_deleted() {
    let of_static = |home| {
        let mut seen = seen(Fate::Gone, home);
        seen.holding.uid = Uid::from("0a1b2c3d");
        verdict(&seen)
    };
    let silent = || unready(0, Sign::Silent);
    let none = || Home::Any([].into());
    for standing in [READY, silent(), Standing::OutOfService] {
        let told = Home::Told(n1(), standing.clone());
        assert_eq!(of_static(told), Verdict::InUse, "{standing:?}");
        let recorded = Home::Recorded(n1(), standing);
        assert_eq!(of_static(recorded), Verdict::InUse);
    }
    assert_eq!(of_static(none()), Verdict::InUse);
    let gone = Verdict::Goes(Proof::Deleted(n1()));
    assert_eq!(of_static(Home::Recorded(n1(), Standing::Gone)), gone);
    assert_eq!(of_static(Home::Told(n1(), Standing::Gone)), gone);
}

fn look(suspects: &mut Suspects, verdict: &Verdict, minute: i64) -> Found {
    suspects.look(&[(held(1), verdict.clone())], 9, at(minute))
}

/// How many looks at these minutes free, each of which finds a Pod without node gone.
fn freed<const N: usize>(suspects: &mut Suspects, minutes: [i64; N]) -> [usize; N] {
    let settled = Verdict::Goes(Proof::Settled);
    minutes.map(|minute| look(suspects, &settled, minute).free.now.len())
}

#[test]
fn a_record_goes_at_the_second_look_and_one_without_node_when_its_pod_is_long_gone() {
    let mut suspects = Suspects::default();
    let deleted = Verdict::Goes(Proof::Deleted(n1()));
    assert_eq!(look(&mut suspects, &deleted, 0).free.now, []);
    assert_eq!(look(&mut suspects, &deleted, 1).free.now, [held(1)]);

    let mut suspects = Suspects::default();
    // It is sure of the Pod's end at 5, and so of ten minutes at 15.
    let found = freed(&mut suspects, [0, 1, 5, 14, 15, 16]);
    assert_eq!(found, [0, 0, 0, 0, 0, 1]);
    // A doubt between starts anew.
    look(&mut suspects, &Verdict::Waits(Doubt::Ending), 17);
    let found = freed(&mut suspects, [18, 19, 20, 29, 30, 31]);
    assert_eq!(found, [0, 0, 0, 0, 0, 1]);
}

#[test]
fn the_time_between_a_look_that_was_behind_and_the_next_proves_nothing() {
    let mut suspects = Suspects::default();
    // The first did not know the Pod yet; it goes at 30, and its containers stop a while later.
    assert_eq!(freed(&mut suspects, [0, 1, 30, 31]), [0; 4]);
}

#[test]
fn an_agent_is_asked_to_look_when_two_looks_found_that_it_should_have_released() {
    let mut suspects = Suspects::default();
    let agents = Verdict::Agent(n1());
    let pools = |found: Found| found.for_agents.into_iter().collect::<Vec<_>>();
    assert_eq!(pools(look(&mut suspects, &agents, 0)), []);
    let second = look(&mut suspects, &agents, 1);
    assert_eq!(second.free.now, []);
    assert_eq!(pools(second), [PoolName::from("a")]);
    assert_eq!(pools(look(&mut suspects, &Verdict::InUse, 2)), []);
}

#[test]
fn every_doubt_names_its_node_and_what_would_end_it() {
    let node = NodeName::from("worker-7");
    let doubts = [
        Doubt::Fixed(node.clone()),
        Doubt::ByWord(node.clone()),
        Doubt::Recent(node.clone()),
        Doubt::Answers(node),
    ];
    for doubt in doubts {
        let text = doubt.to_string();
        assert!(
            text.contains("delete Node worker-7 or taint it node.kubernetes.io/out-of-service"),
            "{text}"
        );
    }
    let lost = Verdict::Goes(Proof::Lost(n1(), at(0)));
    assert_eq!(
        lost.to_string(),
        "its Pod is gone or ends, and Node n1 has not been ready since 1970-01-01T00:00:00Z and \
         gives no sign of life"
    );
}
