use super::*;
use crate::testing::{ip, record};

fn web(n: &str) -> PodName {
    PodName::new("shop", n)
}

#[test]
fn ordinals_are_read_as_the_statefulset_writes_them() {
    let table = [
        ("web-0", Some(("web", 0))),
        ("web-10", Some(("web", 10))),
        ("a-b-3", Some(("a-b", 3))),
        ("web-03", None),
        ("web-+3", None),
        ("web", None),
        ("-3", None),
        ("web-99999999999", None),
        ("web-x2x9k", None),
    ];
    for (name, expected) in table {
        assert_eq!(ordinal(&web(name)), expected, "{name}");
    }
}

#[test]
fn an_address_is_wanted_while_just_this_set_wants_the_ordinal() {
    let set = |uid: &str, start, count| Keeper {
        uid: Uid::from(uid),
        terminating: false,
        ordinals: Some(Ordinals { start, count }),
    };
    let machine = |uid: &str| Keeper {
        ordinals: None,
        ..set(uid, 0, 0)
    };
    let owner = Uid::from("set");
    let beyond = |start, count| Some(Unwanted::OrdinalBeyond(Ordinals { start, count }));
    let table = [
        ("web-0", Some(set("set", 0, 3)), None),
        ("web-2", Some(set("set", 0, 3)), None),
        ("web-3", Some(set("set", 0, 3)), beyond(0, 3)),
        ("web-0", Some(set("set", 0, 0)), beyond(0, 0)),
        ("web-4", Some(set("set", 5, 2)), beyond(5, 2)),
        ("web-5", Some(set("set", 5, 2)), None),
        ("web-7", Some(set("set", 5, 2)), beyond(5, 2)),
        ("web", Some(set("set", 0, 3)), beyond(0, 3)),
        ("virt-launcher-db-x2x9k", Some(machine("set")), None),
        (
            "virt-launcher-db-x2x9k",
            Some(machine("new")),
            Some(Unwanted::OwnerReplaced),
        ),
        (
            "web-0",
            Some(set("new", 0, 3)),
            Some(Unwanted::OwnerReplaced),
        ),
        ("web-0", None, Some(Unwanted::OwnerGone)),
    ];
    for (pod, set, expected) in table {
        assert_eq!(unwanted(&web(pod), &owner, set.as_ref()), expected, "{pod}");
    }
    let ends = Keeper {
        terminating: true,
        ..set("set", 0, 3)
    };
    let verdict = unwanted(&web("web-0"), &owner, Some(&ends));
    assert_eq!(verdict, Some(Unwanted::OwnerEnds));
}

/// What a Pod of StatefulSet or machine `set` inherits.
fn of_lineage(machine: Option<Machine>) -> Heritage {
    Heritage {
        lineage: Lineage {
            owner: Uid::from("set"),
            machine,
        },
        instance: None,
        former: None,
        let_go: BTreeSet::new(),
    }
}

fn vm() -> Machine {
    Machine {
        kind: MachineKind::VirtualMachine,
        name: "db".to_owned(),
    }
}

fn of_set(owner: Option<&str>, kept: bool) -> Record {
    Record {
        pod: web("web-0"),
        nic: Some(Nic::from("eth0")),
        owner: owner.map(Uid::from),
        kept,
        ..record("old")
    }
}

#[test]
fn a_record_passes_on_within_its_identity_and_only_when_let_go() {
    let (eth0, name) = (Nic::from("eth0"), web("web-0"));
    let heritage = of_lineage(None);
    let heir = |record: &Record| heritage.heir(ip(1), record, &name, &eth0);
    assert_eq!(heir(&of_set(Some("set"), true)), Heir::Takes);
    assert_eq!(heir(&of_set(Some("set"), false)), Heir::Waits);
    assert_eq!(heir(&of_set(Some("other"), true)), Heir::Stranger);
    assert_eq!(heir(&of_set(None, true)), Heir::Stranger);
    let other_pod = Record {
        pod: web("web-1"),
        ..of_set(Some("set"), true)
    };
    assert_eq!(heir(&other_pod), Heir::Stranger);
    let other_nic = Record {
        nic: Some(Nic::from("net1")),
        ..of_set(Some("set"), true)
    };
    assert_eq!(heir(&other_nic), Heir::Stranger);
    let lost = Heritage {
        let_go: [Uid::from("old")].into(),
        ..heritage.clone()
    };
    let held = of_set(Some("set"), false);
    assert_eq!(lost.heir(ip(1), &held, &name, &eth0), Heir::Takes);
}

#[test]
fn a_record_without_owner_passes_on_by_what_the_endpoint_says() {
    let (eth0, name) = (Nic::from("eth0"), web("web-0"));
    let of_original = Record {
        nic: None,
        ..of_set(None, false)
    };
    let known = |uid: &str, address| Heritage {
        former: Some(Former {
            uid: Uid::from(uid),
            addresses: [ip(address)].into(),
            instance: None,
        }),
        let_go: [Uid::from("old")].into(),
        ..of_lineage(None)
    };
    let heir = |of: &Heritage| of.heir(ip(1), &of_original, &name, &eth0);
    assert_eq!(heir(&known("old", 1)), Heir::Takes);
    assert_eq!(heir(&known("older", 1)), Heir::Stranger);
    assert_eq!(heir(&known("old", 2)), Heir::Stranger);
    let waiting = Heritage {
        let_go: BTreeSet::new(),
        ..known("old", 1)
    };
    assert_eq!(heir(&waiting), Heir::Waits);
}

/// Of machine `set`, which runs as instance `run` in Pod `old`, and moves to Pod `next`.
fn of_machine(kept: bool, next: Option<&str>) -> Record {
    Record {
        pod: web("virt-launcher-db-aaaaa"),
        machine: Some(vm()),
        instance: Some(Uid::from("run")),
        next: next.map(|uid| Next {
            pod: web("virt-launcher-db-ccccc"),
            uid: Uid::from(uid),
            node: NodeName::from("n3"),
            sandbox: Sandbox::from("s"),
        }),
        ..of_set(Some("set"), kept)
    }
}

#[test]
fn a_machine_s_record_passes_on_whatever_its_pods_are_called_and_is_shared_only_in_one_run() {
    let (eth0, name) = (Nic::from("eth0"), web("virt-launcher-db-bbbbb"));
    let heir = |run: &str, role: Role, let_go: &[&str], record: &Record| {
        let heritage = Heritage {
            instance: Some(Instance {
                uid: Uid::from(run),
                role,
            }),
            let_go: let_go.iter().map(|uid| Uid::from(*uid)).collect(),
            ..of_lineage(Some(vm()))
        };
        heritage.heir(ip(1), record, &name, &eth0)
    };
    let (kept, held) = (of_machine(true, None), of_machine(false, None));
    let moving = of_machine(false, Some("next"));
    let (start, target) = (Role::Start, Role::MigrationTarget);
    let table: [(&str, Role, &[&str], &Record, Heir); 13] = [
        // Stopped and started.
        ("other", start, &[], &kept, Heir::Takes),
        ("other", start, &[], &held, Heir::Waits),
        ("other", start, &["old"], &held, Heir::Takes),
        // Moved: only within one run, only by a target, and by one at a time.
        ("run", target, &[], &held, Heir::Joins),
        ("run", start, &[], &held, Heir::Waits),
        ("other", target, &[], &held, Heir::Waits),
        ("run", target, &[], &moving, Heir::Waits),
        ("run", target, &["next"], &moving, Heir::Joins),
        // Whoever has it must have let go.
        ("other", start, &["old"], &moving, Heir::Waits),
        ("run", target, &["old"], &moving, Heir::Waits),
        ("other", start, &["old", "next"], &moving, Heir::Takes),
        // The run of a machine that was deleted without it, and adopted by another one.
        (
            "run",
            target,
            &[],
            &Record {
                owner: Some(Uid::from("former")),
                ..held.clone()
            },
            Heir::Joins,
        ),
        (
            "other",
            start,
            &[],
            &Record {
                owner: Some(Uid::from("former")),
                ..kept.clone()
            },
            Heir::Stranger,
        ),
    ];
    for (n, (run, role, let_go, record, expected)) in table.into_iter().enumerate() {
        assert_eq!(heir(run, role, let_go, record), expected, "row {n}");
    }
    let other_nic = Record {
        nic: Some(Nic::from("net1")),
        ..kept
    };
    assert_eq!(heir("run", start, &[], &other_nic), Heir::Stranger);
}

#[test]
fn a_machine_s_record_that_was_let_go_is_its_next_s_before_it_is_kept() {
    let wanted = of_lineage(Some(vm())).lineage;
    let moving = of_machine(false, Some("next"));
    for wanted_by in [None, Some(&wanted)] {
        let then = moving.let_go(wanted_by).unwrap();
        assert_eq!((then.uid.as_str(), then.next.as_ref()), ("next", None));
        assert_eq!(then.pod, web("virt-launcher-db-ccccc"));
        assert_eq!(then.node, Some(NodeName::from("n3")));
        assert_eq!(then.instance, moving.instance);
    }
    let held = moving.without_next();
    assert_eq!(held, of_machine(false, None));
    assert_eq!(held.let_go(None), None);
    let kept = held.let_go(Some(&wanted)).unwrap();
    assert!(kept.kept && kept.sandbox.is_none());
    assert_eq!(kept.lineage(), Some(wanted));
}

#[test]
fn a_machine_s_kept_record_is_superseded_by_one_of_another_pod_of_it() {
    let kept = of_machine(true, None);
    let elsewhere = Record {
        pod: web("virt-launcher-db-bbbbb"),
        ..of_machine(false, None)
    };
    assert!(is_superseded((ip(1), &kept), (ip(2), &elsewhere)));
    let of_set = |record: Record| Record {
        machine: None,
        ..record
    };
    let (kept, elsewhere) = (of_set(kept), of_set(elsewhere));
    assert!(!is_superseded((ip(1), &kept), (ip(2), &elsewhere)));
}

#[test]
fn only_a_record_in_use_of_the_same_identity_supersedes_a_kept_one() {
    let kept = of_set(Some("set"), true);
    let held = of_set(Some("set"), false);
    let superseded = |kept: &Record, other: &Record| is_superseded((ip(1), kept), (ip(2), other));
    assert!(superseded(&kept, &held));
    assert!(!superseded(&kept, &kept));
    assert!(!superseded(&held, &held));
    assert!(!superseded(&kept, &of_set(Some("other"), false)));
    // The other half of a Pod with both families.
    let six: IpAddr = "fd00::1".parse().unwrap();
    assert!(!is_superseded((ip(1), &kept), (six, &held)));
    let other_pod = Record {
        pod: web("web-1"),
        ..held.clone()
    };
    let other_nic = Record {
        nic: Some(Nic::from("net1")),
        ..held.clone()
    };
    let nobodys = (of_set(None, true), of_set(None, false));
    assert!(!superseded(&kept, &other_pod) && !superseded(&kept, &other_nic));
    assert!(!superseded(&nobodys.0, &nobodys.1));
    let unnamed = Record { nic: None, ..kept };
    let both_unnamed = Record {
        nic: None,
        ..held.clone()
    };
    assert!(!superseded(&unnamed, &held) && !superseded(&unnamed, &both_unnamed));
}

#[test]
fn why_an_address_goes_or_is_waited_for_is_told() {
    let reasons = [
        Unwanted::OwnerGone,
        Unwanted::OwnerReplaced,
        Unwanted::OwnerEnds,
        Unwanted::OrdinalBeyond(Ordinals { start: 5, count: 2 }),
        Unwanted::Moved(PoolName::from("q")),
        Unwanted::SwitchedOff,
    ];
    assert_eq!(
        reasons.map(|reason| reason.to_string()),
        [
            "its StatefulSet or virtual machine is gone",
            "its StatefulSet or virtual machine was made anew under its name",
            "its StatefulSet or virtual machine is being deleted",
            "its StatefulSet wants 2 Pods from ordinal 5 on",
            "its Pod has an address of IPPool q now",
            "addresses of its kind are not kept any more",
        ]
    );
    let mut held = Held {
        address: ip(1),
        pool: PoolName::from("p"),
        pod: web("web-0"),
        uid: Uid::from("old"),
        node: Some(NodeName::from("n1")),
    };
    let told = held.to_string();
    let begins = "address 10.0.0.1 of IPPool p is kept for Pod shop/web-0, and its former Pod old has not let go";
    assert!(told.starts_with(begins), "{told}");
    assert!(told.contains("on node n1") && told.ends_with("out-of-service"));
    held.node = None;
    let told = held.to_string();
    assert!(told.starts_with(begins) && told.ends_with("removed by a person"));
}

#[test]
fn machines_are_named_as_owner_references_name_them() {
    assert_eq!(MachineKind::VirtualMachine.as_str(), "VirtualMachine");
    let instance = MachineKind::VirtualMachineInstance;
    assert_eq!(instance.as_str(), "VirtualMachineInstance");
}

#[test]
fn an_operator_chooses_whose_addresses_are_kept() {
    let set = of_lineage(None).lineage;
    let machine = of_lineage(Some(vm())).lineage;
    for (stateful_sets, machines) in [(true, false), (false, true)] {
        let keeps = Keeps {
            stateful_sets,
            machines,
        };
        assert_eq!(keeps.includes(&set), stateful_sets);
        assert_eq!(keeps.includes(&machine), machines);
    }
}

#[test]
fn an_address_is_blocked_by_its_holder_and_then_by_the_pod_it_moves_to() {
    let blocker = |record: &Record, let_go: &[&str]| {
        let heritage = Heritage {
            let_go: let_go.iter().map(|uid| Uid::from(*uid)).collect(),
            ..of_lineage(Some(vm()))
        };
        let blocker = heritage.blocker(record);
        blocker.map(|(uid, node)| (uid.to_string(), node.map(ToString::to_string)))
    };
    let (old, next) = (
        Some(("old".to_owned(), None)),
        Some(("next".to_owned(), Some("n3".to_owned()))),
    );
    let moving = of_machine(false, Some("next"));
    assert_eq!(blocker(&moving, &[]), old);
    assert_eq!(blocker(&moving, &["old"]), next);
    assert_eq!(blocker(&moving, &["old", "next"]), None);
    assert_eq!(blocker(&of_machine(true, None), &[]), None);
}
