use super::*;
use crate::affinity::Selector;
use crate::name::{NodeName, SubnetName};
use crate::pool::Restrictions;
use crate::record::Record;
use crate::testing::{admitted, ip, of_workload, pod, pool, record, workload};

fn newcomer() -> Newcomer {
    Newcomer {
        facts: pod("web-1"),
        uid: Uid::from("u-1"),
        life: Life::Alive,
        network: Network::Own,
    }
}

fn items() -> Vec<SubnetItem> {
    vec![SubnetItem {
        nic: Nic::from("eth0"),
        ipv4: Some(SubnetName::from("net4")),
        ipv6: Some(SubnetName::from("net6")),
    }]
}

fn own(name: &str) -> Pool {
    of_workload(&workload("web"), pool(name, "1-9"))
}

fn chosen(pod: &Newcomer, pools: &[Pool]) -> Result<PoolName, Unbound> {
    let pools: Vec<&Pool> = pools.iter().collect();
    let mut choices = choose(pod, &items(), &[Family::V4], &pools)?;
    assert_eq!(choices.len(), 1);
    choices.remove(0).pool
}

#[test]
fn a_pod_with_a_node_is_bound_in_the_pool_of_its_workload() {
    let others = of_workload(&workload("db"), pool("b", "1-9"));
    let by_hand = pool("a", "1-9");
    let pools = [by_hand, others, own("c")];
    assert_eq!(chosen(&newcomer(), &pools), Ok(PoolName::from("c")));
    let without = chosen(&newcomer(), &pools[..2]);
    assert_eq!(without, Err(Unbound::NoPool(Nic::from("eth0"))));
}

#[test]
fn each_interface_and_family_has_a_choice_of_its_own() {
    let second = SubnetItem {
        nic: Nic::from("net1"),
        ipv4: Some(SubnetName::from("net4")),
        ipv6: None,
    };
    let items = [items(), vec![second]].concat();
    let pool = own("a");
    let both = [Family::V4, Family::V6];
    let choices = choose(&newcomer(), &items, &both, &[&pool]).unwrap();
    let said: Vec<_> = choices
        .iter()
        .map(|choice| (choice.nic.as_str(), choice.family, choice.pool.is_ok()))
        .collect();
    let expected = [
        ("eth0", Family::V4, true),
        ("eth0", Family::V6, false),
        ("net1", Family::V4, false),
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_refusal_would_name_the_interface_that_asks() {
    let nic = Nic::from("net1");
    let facts = facts_of(&newcomer(), &nic);
    assert_eq!(facts.attachment.nic, nic);
    assert_eq!(facts.pod, newcomer().facts.pod);
}

#[test]
fn who_ends_needs_no_address_or_keeps_one_is_left_to_its_agent() {
    let with = |change: fn(&mut Newcomer)| {
        let mut pod = newcomer();
        change(&mut pod);
        chosen(&pod, &[own("a")])
    };
    assert_eq!(with(|pod| pod.life = Life::Ending), Err(Unbound::Ends));
    assert_eq!(with(|pod| pod.life = Life::Gone), Err(Unbound::Ends));
    assert_eq!(
        with(|pod| pod.network = Network::Node),
        Err(Unbound::OnHost)
    );
    let of_set = with(|pod| pod.facts.workload.kind = "StatefulSet".into());
    assert!(matches!(of_set, Err(Unbound::Keeps(_))), "{of_set:?}");
    let of_machine =
        with(|pod| pod.facts.pod = crate::name::PodName::new("shop", "virt-launcher-db-x"));
    assert!(
        matches!(of_machine, Err(Unbound::Keeps(_))),
        "{of_machine:?}"
    );
}

#[test]
fn who_is_recorded_is_not_bound_again_even_in_another_pool() {
    let mut first = own("b");
    let its = Record {
        nic: Some(Nic::from("eth0")),
        node: Some(NodeName::from("n1")),
        ..record("u-1")
    };
    first.records.insert(ip(3), its);
    let found = chosen(&newcomer(), &[own("a"), first]);
    assert_eq!(found, Err(Unbound::Recorded(PoolName::from("b"))));
}

#[test]
fn a_pool_that_asks_for_what_its_node_knows_is_left_to_it() {
    let any = Some(Ok(Selector::default()));
    let table: [fn(&mut Restrictions, crate::pool::Affinity); 4] = [
        |limits, _| limits.node_names = vec!["n1".into()],
        |limits, any| limits.node_affinity = any,
        |limits, any| limits.namespace_affinity = any,
        |limits, _| limits.networks = vec!["net".into()],
    ];
    for restrict in table {
        let mut pool = own("a");
        restrict(&mut pool.restrictions, any.clone());
        let found = chosen(&newcomer(), &[pool, own("b")]);
        assert_eq!(found, Err(Unbound::Restricted(PoolName::from("a"))));
    }
}

#[test]
fn a_pool_that_may_not_serve_gives_way_to_the_next_as_it_does_at_an_agent() {
    let terminating = Pool {
        terminating: true,
        ..own("a")
    };
    let new = Pool {
        admitted: None,
        ..own("b")
    };
    let pools = [terminating, new];
    let found = chosen(&newcomer(), &pools);
    let refusal = Refusal::NotAdmitted(PoolName::from("b"));
    assert_eq!(found, Err(Unbound::Refused(refusal)));
    let [terminating, new] = pools;
    let found = chosen(&newcomer(), &[terminating, admitted(new)]);
    assert_eq!(found, Ok(PoolName::from("b")));
    let mut other = newcomer();
    other.facts.labels.clear();
    assert!(matches!(
        chosen(&other, &[own("a")]),
        Err(Unbound::Refused(_))
    ));
}
