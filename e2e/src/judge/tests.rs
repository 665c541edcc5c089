use super::*;

fn hold(address: &str, owner: &str, from: u64, until: Option<u64>) -> Hold {
    Hold {
        address: address.to_owned(),
        from: Duration::from_secs(from),
        until: until.map(Duration::from_secs),
        owner: owner.to_owned(),
    }
}

fn call(command: &str, sandbox: &str, uid: &str, at: u64, addresses: &[&str]) -> Call {
    Call {
        began: Duration::from_secs(at),
        ended: Duration::from_secs(at + 1),
        command: command.to_owned(),
        container: sandbox.to_owned(),
        interface: "eth0".to_owned(),
        pod: "ns/pod".to_owned(),
        uid: uid.to_owned(),
        succeeded: true,
        addresses: addresses
            .iter()
            .map(|address| (*address).to_owned())
            .collect(),
        error: String::new(),
    }
}

#[test]
fn a_planted_duplicate_is_found_among_honest_holds() {
    let mut holds: Vec<Hold> = (0..200)
        .map(|nth| {
            hold(
                &format!("10.0.0.{}", nth % 50),
                &format!("pod-{nth}"),
                nth,
                Some(nth + 50),
            )
        })
        .collect();
    assert_eq!(overlaps(holds.clone()), []);
    holds.push(hold("10.0.0.7", "thief", 120, Some(121)));
    let found = overlaps(holds);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "address 10.0.0.7 was held by pod-107 from 107.000 to 157.000 and by thief from \
         120.000 on"
    );
}

#[test]
fn a_hold_without_end_meets_every_later_one_of_others() {
    let holds = vec![
        hold("10.0.0.1", "a", 1, None),
        hold("10.0.0.1", "a", 5, None),
        hold("10.0.0.1", "b", 9, Some(10)),
        hold("10.0.0.2", "c", 9, Some(10)),
    ];
    assert_eq!(overlaps(holds).len(), 2);
}

#[test]
fn an_address_given_back_and_given_again_is_no_violation() {
    let holds = vec![
        hold("fd00::1", "a", 1, Some(5)),
        hold("fd00::1", "b", 5, None),
    ];
    assert_eq!(overlaps(holds), []);
}

#[test]
fn calls_become_holds_by_sandbox() {
    let calls = [
        call("ADD", "old", "pod", 0, &["10.0.0.1", "fd00::1"]),
        call("ADD", "new", "pod", 20, &["10.0.0.1"]),
        call("DEL", "old", "pod", 10, &[]),
        Call {
            succeeded: false,
            ..call("ADD", "refused", "other", 5, &["10.0.0.1"])
        },
        Call {
            succeeded: false,
            ..call("DEL", "new", "pod", 30, &[])
        },
    ];
    assert_eq!(
        holds_of_calls(&calls, &[]),
        [
            hold("10.0.0.1", "pod", 1, Some(10)),
            hold("fd00::1", "pod", 1, Some(10)),
            hold("10.0.0.1", "pod", 21, None),
        ]
    );
}

#[test]
fn an_add_that_its_del_overtakes_is_no_hold() {
    let late = Call {
        ended: Duration::from_secs(11),
        ..call("ADD", "one", "a", 0, &["10.0.0.1"])
    };
    let calls = [
        call("DEL", "one", "a", 9, &[]),
        late,
        call("ADD", "two", "b", 20, &["10.0.0.1"]),
    ];
    assert_eq!(overlaps(holds_of_calls(&calls, &[])), []);
}

#[test]
fn after_a_del_whose_end_is_unknown_the_calls_tell_of_no_hold() {
    let calls = [
        call("ADD", "one", "a", 0, &["10.0.0.1"]),
        call("ADD", "two", "b", 0, &["10.0.0.2"]),
    ];
    let begun = Begun {
        begun: Duration::from_secs(7),
        container: "one".to_owned(),
        interface: "eth0".to_owned(),
    };
    assert_eq!(
        holds_of_calls(&calls, &[begun]),
        [
            hold("10.0.0.1", "a", 1, Some(7)),
            hold("10.0.0.2", "b", 1, None),
        ]
    );
}

#[test]
fn two_pods_with_one_address_by_their_calls_are_a_violation() {
    let calls = [
        call("ADD", "one", "a", 0, &["10.0.0.1"]),
        call("ADD", "two", "b", 5, &["10.0.0.1"]),
        call("DEL", "one", "a", 9, &[]),
    ];
    assert_eq!(overlaps(holds_of_calls(&calls, &[])).len(), 1);
}

#[test]
fn an_address_seen_once_is_not_surely_held() {
    let second = Duration::from_secs;
    let sight = |owner: &str| vec![(owner.to_owned(), "10.0.0.1".to_owned())];
    let mut sightings = Sightings::default();
    sightings.add(second(1), second(2), sight("node/a"));
    sightings.add(second(3), second(4), sight("node/b"));
    assert_eq!(overlaps(sightings.into_holds().collect()), []);
    let mut sightings = Sightings::default();
    for at in [1, 3, 5] {
        let both = [sight("node/a"), sight("node/b")].concat();
        sightings.add(second(at), second(at + 1), both);
    }
    assert_eq!(overlaps(sightings.into_holds().collect()).len(), 1);
}

#[test]
fn a_walk_is_read_by_namespace() {
    let text = "\nnetns: cni-1\n[{},{\"addr_info\":[{\"local\":\"10.0.0.1\"}]}]\n\n\
                netns: cni-2\n[]\n\nnetns: cni-3\n\
                [{\"addr_info\":[{\"local\":\"10.0.0.3\"},{\"local\":\"fd00::3\"}]}]\n";
    let seen = parse_walk("node", text);
    let seen: Vec<_> = seen
        .iter()
        .map(|(ns, ip)| (ns.as_str(), ip.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("node/cni-1", "10.0.0.1"),
            ("node/cni-3", "10.0.0.3"),
            ("node/cni-3", "fd00::3")
        ]
    );
}
