//! What the models of one pool begin with.

use ipam::addr::AddrSet;
use ipam::name::{PoolName, Uid, Version};
use ipam::pool::{Pool, Restrictions};
use ipam::record::Records;

/// Pool `a` of 10.0.0.0/24 with these addresses: made by hand, admitted, without records.
pub(crate) fn pool(ips: AddrSet) -> Pool {
    admitted(Pool {
        name: PoolName::from("a"),
        uid: Uid::from("u"),
        version: Version::from("0"),
        created: None,
        cidr: "10.0.0.0/24".parse().unwrap(),
        ips,
        excluded: AddrSet::new(),
        gateway: None,
        routes: vec![],
        restrictions: Restrictions::default(),
        default: false,
        disabled: false,
        terminating: false,
        finalizer: true,
        owner: None,
        adopted_by: None,
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
