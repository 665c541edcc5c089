//! What goes into a pool's writer and comes out of it: whom an address is for, the pool as somebody
//! read it, and what was given.

use std::net::IpAddr;

use ipam::addr::Family;
use ipam::ledger::Grant;
use ipam::name::{Nic, PoolName, Uid};
use ipam::pool::{Pool, Route};
use ipam::select::Candidate;
use ipnet::IpNet;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::api::{SpiderIPPool, convert};

/// An interface of a Pod: what addresses are given to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The Pod.
    pub uid: Uid,
    /// Its interface.
    pub nic: Nic,
}

/// A pool as it was at one moment.
#[derive(Debug)]
pub struct Reading {
    /// The object, without `managedFields`.
    pub object: SpiderIPPool,
    /// What the core sees in it.
    pub candidate: Candidate,
    /// When the reading began.
    pub began: Instant,
}

impl Reading {
    /// Of the object that the API server answered to a call which began then.
    pub fn new(mut object: SpiderIPPool, began: Instant) -> Self {
        object.managed_fields_mut().clear();
        let candidate = Candidate {
            name: PoolName::new(object.name_any()),
            pool: convert::pool(&object),
        };
        Self {
            object,
            candidate,
            began,
        }
    }
}

/// An address that is durably recorded, and what its pool says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The pool.
    pub pool: PoolName,
    /// The address.
    pub address: IpAddr,
    /// The pool's CIDR.
    pub cidr: IpNet,
    /// The pool's gateway.
    pub gateway: Option<IpAddr>,
    /// The pool's routes.
    pub routes: Vec<Route>,
    /// True where it was recorded before there was a sandbox, and is still recorded so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
}

impl Granted {
    /// What `grant` gives of `pool`.
    pub fn new(pool: &Pool, grant: &Grant) -> Self {
        Self {
            early: grant.early,
            ..Self::of(pool, grant.address)
        }
    }

    /// `address` of `pool`, recorded for a sandbox.
    pub fn of(pool: &Pool, address: IpAddr) -> Self {
        Self {
            pool: pool.name.clone(),
            address,
            cidr: pool.cidr,
            gateway: pool.gateway,
            routes: pool.routes.clone(),
            early: false,
        }
    }

    /// The address's family.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// `address/prefix length`.
    pub fn text(&self) -> String {
        format!("{}/{}", self.address, self.cidr.prefix_len())
    }
}
