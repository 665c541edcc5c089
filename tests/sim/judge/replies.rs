//! What a runtime may be told, and what of it holds for a Pod's life.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipam::pool::{Pool, Route};
use ipam::record::Record;

use super::{Sight, State, Told, User};

impl State {
    /// S1, S2, S7, S9, S10, S17: what a runtime was told.
    pub(super) fn given(&mut self, node: &str, uid: &str, sandbox: &str, told: &[Told]) {
        let addresses: BTreeSet<IpAddr> = told.iter().map(|told| told.address).collect();
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        self.enter(&format!(
            "{node} gave {} to {uid} {sandbox:.8}",
            texts.join(",")
        ));
        for told in told {
            self.check_reply(uid, told);
            let user = User {
                uid: uid.to_owned(),
                sandbox: sandbox.to_owned(),
                node: node.to_owned(),
                first_del: None,
            };
            if let Some(other) = self.users.insert(told.address, user)
                && other.uid != uid
            {
                let (address, pod) = (told.address, &other.uid);
                self.blame(
                    "S1",
                    &format!(
                        "{uid} was handed {address}, which {pod} on {} has",
                        other.node
                    ),
                );
            }
        }
        if let Some(before) = self.given.insert(uid.to_owned(), addresses.clone())
            && before != addresses
        {
            self.blame(
                "S7",
                &format!("{uid} was given {before:?} before, and now {addresses:?}"),
            );
        }
        self.check_fixed(uid, &addresses);
    }

    fn check_reply(&mut self, uid: &str, told: &Told) {
        let Told {
            address,
            prefix,
            gateway,
            routes,
            pool,
        } = told;
        let what = |why: &str| format!("{uid} was handed {address} of {pool}: {why}");
        let Some(found) = self.pools.get(pool) else {
            return self.blame("S2", &what("there is no such pool"));
        };
        let record = found.records.get(*address);
        let recorded = record.is_some_and(|r| r.uid.as_str() == uid);
        let early = record.is_some_and(Record::is_bound_early);
        let fits = found.cidr.prefix_len() == *prefix && found.gateway == *gateway;
        let leads = *routes == routes_of(found);
        let owner = found
            .owner
            .as_ref()
            .map(|owner| owner.uid.as_str().to_owned());
        if early {
            self.saw(Sight::BoundEarly);
        }
        if !recorded {
            self.blame("S2", &what("it is not recorded"));
        }
        if !fits {
            self.blame("S17", &what("prefix or gateway is not the pool's"));
        }
        if !leads {
            self.blame("S17", &what(&format!("its routes are {routes:?}")));
        }
        let workload = self.top(uid);
        match owner {
            Some(owner) if owner != workload => {
                self.blame(
                    "S10",
                    &what(&format!("the pool is {owner}'s, the Pod {workload}'s")),
                );
            }
            None if self.wishes.contains_key(&workload) => {
                self.blame("S10", &what("its workload has a pool of its own"));
            }
            _ => {}
        }
    }

    fn check_fixed(&mut self, uid: &str, addresses: &BTreeSet<IpAddr>) {
        let Some(set) = self.owners.get(uid).cloned() else {
            return;
        };
        let Some(pod) = self
            .pods
            .get(uid)
            .filter(|_| self.replicas.contains_key(&set))
        else {
            return;
        };
        let key = (set, pod.name.clone());
        if let Some(before) = self.fixed.insert(key.clone(), addresses.clone())
            && before != *addresses
        {
            self.blame(
                "S9",
                &format!("{} had {before:?}, and now {addresses:?}", key.1),
            );
        }
    }

    fn top<'s>(&'s self, uid: &'s str) -> String {
        let mut top = uid;
        while let Some(owner) = self.owners.get(top) {
            top = owner;
        }
        top.to_owned()
    }
}

/// The routes of an interface with an address of this pool.
fn routes_of(pool: &Pool) -> Vec<Route> {
    let default = pool.gateway.map(|gateway| Route {
        dst: "0.0.0.0/0".to_owned(),
        gw: gateway.to_string(),
    });
    pool.routes.iter().cloned().chain(default).collect()
}
