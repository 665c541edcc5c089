//! Builders for unit tests: the plainest object of each kind, to be changed by struct update.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};

use crate::addr::{AddrSet, Family, parse_list};
use crate::affinity::{Labels, Selector};
use crate::attachment::{Attachment, Networks};
use crate::audit::{Life, Resident};
use crate::name::{Nic, NodeName, PodName, PoolName, SubnetName, Uid, Version, WorkloadId};
use crate::pool::{Owner, Pool, Restrictions};
use crate::quarantine::HOLDER;
use crate::record::{Record, Records};
use crate::select::PodFacts;
use crate::subnet::{Entry, Subnet, SubnetLedger};

/// `10.0.0.<n>`.
pub(crate) fn ip(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

/// Ranges within 10.0.0.0/24 by their last bytes, blank-separated: `1-4 9`.
pub(crate) fn ips(text: &str) -> AddrSet {
    let range = |text: &str| {
        text.split('-')
            .map(|n| format!("10.0.0.{n}"))
            .collect::<Vec<_>>()
            .join("-")
    };
    let ranges: Vec<String> = text.split_whitespace().map(range).collect();
    parse_list(&ranges, Family::V4).unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

pub(crate) fn selector(pairs: &[(&str, &str)]) -> Selector {
    Selector {
        match_labels: labels(pairs),
        ..Selector::default()
    }
}

/// Deployment `shop/<name>`, whose uid is `u-<name>`.
pub(crate) fn workload(name: &str) -> WorkloadId {
    WorkloadId {
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: name.into(),
        uid: Uid::new(format!("u-{name}")),
    }
}

/// Pod `shop/<name>` of Deployment `shop/web`, with label `app: web`, on node n1.
pub(crate) fn pod(name: &str) -> PodFacts {
    PodFacts {
        pod: PodName::new("shop", name),
        labels: labels(&[("app", "web")]),
        node: NodeName::from("n1"),
        node_labels: Ok(BTreeMap::new()),
        namespace_labels: Ok(BTreeMap::new()),
        workload: workload("web"),
        attachment: Attachment::of(&"eth0".into(), &Networks::default()),
    }
}

/// An admitted pool of 10.0.0.0/24 made by hand, without records.
pub(crate) fn pool(name: &str, own: &str) -> Pool {
    admitted(Pool {
        name: PoolName::from(name),
        uid: Uid::new(format!("uid-{name}")),
        version: Version::from("1"),
        created: Some(DateTime::UNIX_EPOCH),
        cidr: "10.0.0.0/24".parse().unwrap(),
        ips: ips(own),
        excluded: AddrSet::new(),
        gateway: None,
        routes: vec![],
        restrictions: Restrictions::default(),
        default: false,
        disabled: false,
        terminating: false,
        finalizer: true,
        owner: None,
        adopted_by: Some((SubnetName::from("net4"), Uid::from("uid-net4"))),
        admitted: None,
        rule: None,
        epoch: 0,
        records: Records::default(),
    })
}

/// The pool admitted as it stands.
pub(crate) fn admitted(pool: Pool) -> Pool {
    Pool {
        admitted: Some(pool.admission_hash()),
        ..pool
    }
}

/// The pool of `workload` on eth0.
pub(crate) fn of_workload(workload: &WorkloadId, pool: Pool) -> Pool {
    let affinity = selector(&[("app", &workload.name)]).for_workload(workload);
    Pool {
        owner: Some(Owner::of(
            workload,
            &Nic::from("eth0"),
            &SubnetName::from("net4"),
            true,
        )),
        restrictions: Restrictions {
            pod_affinity: Some(Ok(affinity)),
            ..pool.restrictions.clone()
        },
        ..pool
    }
}

/// The pool with records of Pods `p<n>` for the addresses `10.0.0.<n>`.
pub(crate) fn in_use(addresses: &str, mut pool: Pool) -> Pool {
    for address in ips(addresses).iter() {
        let number = address.to_string().replace("10.0.0.", "");
        pool.records.insert(address, record(&format!("p{number}")));
    }
    pool
}

/// The pool with these of its addresses in quarantine.
pub(crate) fn in_quarantine(addresses: &str, mut pool: Pool) -> Pool {
    for address in ips(addresses).iter() {
        let nobodys = Record {
            uid: Uid::from(HOLDER),
            ..record("found-out")
        };
        pool.records.insert(address, nobodys);
    }
    pool
}

/// A record of Pod `shop/<pod>`, uid `<pod>`, without the optional keys.
pub(crate) fn record(pod: &str) -> Record {
    Record {
        pod: PodName::new("shop", pod),
        uid: Uid::from(pod),
        nic: None,
        node: None,
        sandbox: None,
        owner: None,
        machine: None,
        instance: None,
        next: None,
        kept: false,
        quarantine: None,
        other: BTreeMap::new(),
    }
}

/// Pod `shop/<name>` with uid `<name>` on n1, whose eth0 has `10.0.0.<n>`.
pub(crate) fn resident(name: &str, life: Life, n: u8) -> Resident {
    Resident {
        pod: PodName::new("shop", name),
        uid: Uid::from(name),
        node: Some(NodeName::from("n1")),
        life,
        addresses: [(ip(n), Some(Nic::from("eth0")))].into(),
    }
}

pub(crate) fn running(name: &str, n: u8) -> Resident {
    resident(name, Life::Running, n)
}

/// Subnet net4 of 10.0.0.0/24 with a finalizer and this ledger.
pub(crate) fn subnet(own: &str, entries: &[(&str, &str)]) -> Subnet {
    let mut ledger = SubnetLedger::default();
    for (pool, own) in entries {
        ledger.set(
            &PoolName::from(*pool),
            Entry {
                ips: ips(own),
                application: None,
            },
        );
    }
    Subnet {
        name: SubnetName::from("net4"),
        uid: Uid::from("uid-net4"),
        version: Version::from("1"),
        cidr: "10.0.0.0/24".parse().unwrap(),
        ips: ips(own),
        excluded: AddrSet::new(),
        gateway: None,
        routes: vec![],
        terminating: false,
        finalizer: true,
        ledger: Some(ledger),
    }
}

/// Some time.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
        .checked_add_signed(TimeDelta::days(20_000))
        .unwrap()
}
