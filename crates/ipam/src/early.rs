//! Early binding: an address for a Pod that has a node and no sandbox yet, so that its sandbox finds
//! it recorded.
//!
//! Owns: which Pods, and which pool for each of their interfaces. Never does: choose an address, or
//! know a rule of its own: [`select::admit`] says who may serve, as it does when the sandbox asks.
//! Invariants: only pools that the controller made for the Pod's workload are chosen, and no answer
//! rests on what only the node knows; where one would, the node's agent gives the address, as it
//! does for every Pod that is left out here. So an error is no news to anybody: the agent says it.

use crate::addr::Family;
use crate::annotation::SubnetItem;
use crate::attachment::{Attachment, Networks};
use crate::keep;
use crate::name::{Nic, PoolName, Uid};
use crate::pool::Pool;
use crate::release::Life;
use crate::select::{self, PodFacts, Refusal};

/// Which network a Pod is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// One of its own.
    Own,
    /// Its node's.
    Node,
}

/// A Pod that was given a node.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// What pools ask of it; their labels of node and Namespace are not read.
    pub facts: PodFacts,
    /// Its uid.
    pub uid: Uid,
    /// How near its end it is.
    pub life: Life,
    /// Which network it is on.
    pub network: Network,
}

/// Why nothing is bound early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbound {
    /// It needs no address any more.
    #[error("the Pod ends")]
    Ends,
    /// It needs none at all.
    #[error("the Pod is on its node's network")]
    OnHost,
    /// What its former Pod had is its own, and whether that one let go is its node's to say.
    #[error("the addresses of the Pods of {0} are fixed")]
    Keeps(String),
    /// There is no pool of its workload for the interface yet.
    #[error("there is no pool of the workload for {0}")]
    NoPool(Nic),
    /// It has an address already.
    #[error("IPPool {0} has a record of it")]
    Recorded(PoolName),
    /// The pool asks for what is not known here.
    #[error("IPPool {0} asks for labels of nodes or Namespaces, or for Multus networks")]
    Restricted(PoolName),
    /// No pool may serve it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What becomes of one interface and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The interface.
    pub nic: Nic,
    /// The family.
    pub family: Family,
    /// The pool that is asked for an address, or why none is.
    pub pool: Result<PoolName, Unbound>,
}

/// The pools in which `pod` is to be recorded, whose workload asks for `items` and has `pools`; of
/// `families` only.
///
/// Errors: the Pod is none for which anything is bound early. Cost: O(items · pools + records).
pub fn choose(
    pod: &Newcomer,
    items: &[SubnetItem],
    families: &[Family],
    pools: &[&Pool],
) -> Result<Vec<Choice>, Unbound> {
    may_be_bound(pod)?;
    let mut choices = Vec::new();
    for item in items {
        for family in families {
            if let Some(subnet) = item.subnet(*family) {
                let is_its = |pool: &&&Pool| {
                    let owner = pool.owner.as_ref();
                    let workload = &pod.facts.workload;
                    pool.family() == *family
                        && owner.is_some_and(|owner| owner.is(workload, &item.nic, subnet))
                };
                let its = pools.iter().filter(is_its).copied().collect();
                choices.push(Choice {
                    nic: item.nic.clone(),
                    family: *family,
                    pool: choose_pool(pod, &item.nic, *family, its),
                });
            }
        }
    }
    Ok(choices)
}

fn may_be_bound(pod: &Newcomer) -> Result<(), Unbound> {
    let workload = &pod.facts.workload;
    if pod.life != Life::Alive {
        return Err(Unbound::Ends);
    }
    if pod.network == Network::Node {
        return Err(Unbound::OnHost);
    }
    if keep::may_keep(workload) || keep::is_launcher(&pod.facts.pod) {
        return Err(Unbound::Keeps(workload.to_string()));
    }
    Ok(())
}

/// The first of the interface's own pools that may serve; an agent tries them in this order.
fn choose_pool(
    pod: &Newcomer,
    nic: &Nic,
    family: Family,
    mut pools: Vec<&Pool>,
) -> Result<PoolName, Unbound> {
    let recorded = |pool: &&&Pool| pool.records.find(&pod.uid, nic).is_some();
    if let Some(pool) = pools.iter().find(recorded) {
        return Err(Unbound::Recorded(pool.name.clone()));
    }
    pools.sort_by_key(|pool| (pool.terminating, &pool.name));
    let mut unbound = Unbound::NoPool(nic.clone());
    let facts = facts_of(pod, nic);
    for (nth, pool) in pools.into_iter().enumerate() {
        if asks_for_more(pool) {
            // Whether it or the next one serves, its agent finds out.
            return Err(Unbound::Restricted(pool.name.clone()));
        }
        match select::admit(pool, family, &facts) {
            Ok(()) => return Ok(pool.name.clone()),
            Err(refusal) if nth == 0 => unbound = refusal.into(),
            Err(_) => {}
        }
    }
    Err(unbound)
}

/// The Pod's facts for one interface. A pool of its workload's own asks for no network behind it.
pub fn facts_of(pod: &Newcomer, nic: &Nic) -> PodFacts {
    PodFacts {
        attachment: Attachment::of(nic, &Networks::default()),
        ..pod.facts.clone()
    }
}

/// True where a pool asks for what is known on a node, or is not kept here.
fn asks_for_more(pool: &Pool) -> bool {
    let limits = &pool.restrictions;
    limits.node_affinity.is_some()
        || !limits.node_names.is_empty()
        || limits.namespace_affinity.is_some()
        || !limits.networks.is_empty()
}

#[cfg(test)]
mod tests {
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
}
