//! How each pool stands beside the others: what of its claims is its own, and what is another's.
//!
//! An address that several claim goes to
//!
//! 1. the pool whose entry in the ledger has it, unless it is not admitted and another pool has
//!    recorded the address: then to neither, until a person decides,
//! 2. else the pool that recorded it for a Pod,
//! 3. else the pool that stands first: an admitted one before others, then the older, then by
//!    name. A pool that loses an address to 1 or 2 is not admitted, so it keeps nobody waiting.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Condition, ConditionKind, Snapshot};
use crate::addr::AddrSet;
use crate::name::PoolName;
use crate::overlap;
use crate::pool::Pool;
use crate::subnet::SubnetLedger;

/// The entry of a pool that has none.
static NO_ENTRY: AddrSet = AddrSet::new();

/// What the ledger shows for `pool`; empty where it shows nothing.
pub(super) fn entry_of<'s>(ledger: &'s SubnetLedger, pool: &PoolName) -> &'s AddrSet {
    ledger.get(pool).map_or(&NO_ENTRY, |entry| &entry.ips)
}

/// One pool beside the others.
#[derive(Debug)]
pub(super) struct Standing<'s> {
    /// What the ledger must show for it.
    pub(super) claimed: Cow<'s, AddrSet>,
    /// What the ledger shows.
    pub(super) entry: &'s AddrSet,
    /// Whether the controller admitted it as it stands.
    pub(super) admitted: bool,
    /// What it claims although it is another's. Nothing that it has in use and in its entry.
    pub(super) foreign: AddrSet,
    /// Whose the first of that is.
    whose: String,
}

impl<'s> Standing<'s> {
    fn alone(pool: &'s Pool, ledger: &'s SubnetLedger) -> Self {
        Self {
            claimed: pool.claimed(),
            entry: entry_of(ledger, &pool.name),
            admitted: pool.is_admitted(),
            foreign: AddrSet::new(),
            whose: String::new(),
        }
    }

    /// True where nothing that the pool claims is another's.
    pub(super) fn is_clear(&self) -> bool {
        self.foreign.is_empty()
    }

    /// True where the ledger shows all that the pool claims.
    pub(super) fn is_entered(&self) -> bool {
        self.claimed.is_subset(self.entry)
    }

    fn lose(&mut self, addresses: &AddrSet, to: impl FnOnce() -> String) {
        if addresses.is_empty() {
            return;
        }
        if self.foreign.is_empty() {
            self.whose = format!("{addresses} belongs to {}", to());
        }
        self.foreign = self.foreign.union(addresses);
    }

    /// What the pool's conditions say where it is not clear.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let message = format!(
            "{}: no address is given out until spec.ips or spec.excludeIPs of one of them leaves \
             it out",
            self.whose
        );
        [
            (ConditionKind::Ready, false),
            (ConditionKind::Conflicting, true),
        ]
        .into_iter()
        .map(|(kind, holds)| Condition {
            kind,
            holds,
            reason: "Overlap",
            message: message.clone(),
        })
        .collect()
    }
}

/// How each pool of a snapshot stands, by name.
pub(super) type Standings<'s> = BTreeMap<&'s PoolName, Standing<'s>>;

/// The standing of each pool. Cost: O(n log n) over all ranges; a pool that claims what another
/// one claims is compared with all of those.
pub(super) fn judge<'s>(
    pools: &'s BTreeMap<PoolName, Arc<Pool>>,
    ledger: &'s SubnetLedger,
    elsewhere: &AddrSet,
) -> Standings<'s> {
    let mut standings: Standings<'s> = pools
        .iter()
        .map(|(name, pool)| (name, Standing::alone(pool, ledger)))
        .collect();
    // What a pool does not have by the ledger stands for itself: nothing in it is its own entry's.
    let new: Vec<AddrSet> = standings
        .values()
        .filter(|s| !s.is_entered())
        .map(|s| s.claimed.difference(s.entry))
        .collect();
    let entries = ledger.iter().map(|(_, entry)| &entry.ips);
    let contested = overlap::shared(entries.chain(&new)).union(elsewhere);
    let mut suspects: Vec<&Pool> = pools
        .values()
        .map(Arc::as_ref)
        .filter(|pool| {
            standings.get(&pool.name).is_some_and(|s| {
                let quarrel = s.claimed.intersection(&contested);
                !(quarrel.is_empty() || (s.admitted && quarrel.is_subset(s.entry)))
            })
        })
        .collect();
    if suspects.is_empty() {
        return standings;
    }
    // Hardly any pool has a quarrel: what follows is about few.
    suspects.sort_by_cached_key(|pool| rank(pool));
    let mut court = Court::new(pools, ledger, elsewhere, &contested);
    for pool in suspects {
        if let Some(standing) = standings.get_mut(&pool.name) {
            court.judge(pool, standing);
        }
    }
    standings
}

/// Each pool and how it stands. Both maps have the same names.
pub(super) fn beside<'a, 's>(
    snapshot: &'s Snapshot,
    standings: &'a Standings<'s>,
) -> impl Iterator<Item = (&'s Pool, &'a Standing<'s>)> {
    let pools = snapshot.pools.values().map(Arc::as_ref);
    pools.zip(standings.values())
}

/// Who comes first where both want an address that nobody has.
fn rank(pool: &Pool) -> impl Ord + use<> {
    (!pool.is_admitted(), pool.created, pool.name.clone())
}

/// What is known about contested addresses while pools are judged in order.
struct Court<'a> {
    ledger: &'a SubnetLedger,
    taken: AddrSet,
    elsewhere: &'a AddrSet,
    in_use: Vec<(&'a Pool, AddrSet)>,
    /// What pools judged before have won.
    won: Vec<(&'a PoolName, AddrSet)>,
}

impl<'a> Court<'a> {
    fn new(
        pools: &'a BTreeMap<PoolName, Arc<Pool>>,
        ledger: &'a SubnetLedger,
        elsewhere: &'a AddrSet,
        contested: &AddrSet,
    ) -> Self {
        let in_use = pools
            .values()
            .map(|pool| (&**pool, pool.records.addresses().intersection(contested)))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect();
        Self {
            ledger,
            taken: ledger.taken(),
            elsewhere,
            in_use,
            won: vec![],
        }
    }

    fn judge(&mut self, pool: &'a Pool, standing: &mut Standing<'_>) {
        let new = standing.claimed.difference(standing.entry);
        standing.lose(&self.taken.intersection(&new), || self.holder(pool, &new));
        let (recorded, admitted) = (pool.records.addresses(), standing.admitted);
        let unused = standing.claimed.difference(recorded);
        for (other, addresses) in &self.in_use {
            if other.name != pool.name {
                let mut theirs = addresses.intersection(&new);
                if rank(pool) < rank(other) {
                    theirs = theirs.difference(recorded);
                }
                // Another program's ledger may give away what a Pod of another pool has.
                if !admitted {
                    theirs = theirs.union(&addresses.intersection(&unused));
                }
                standing.lose(&theirs, || format!("IPPool {}", other.name));
            }
        }
        for (other, addresses) in &self.won {
            standing.lose(&addresses.intersection(&new), || format!("IPPool {other}"));
        }
        // A pool that serves already does not stop because another one appeared elsewhere.
        if !admitted {
            let theirs = self.elsewhere.intersection(&new);
            standing.lose(&theirs, || "an object with another CIDR".to_owned());
        }
        if standing.is_clear() {
            self.won.push((&pool.name, new));
        }
    }

    /// Whose entry has something of `new`.
    fn holder(&self, pool: &Pool, new: &AddrSet) -> String {
        let mut others = self.ledger.iter().filter(|(name, _)| **name != pool.name);
        let holder = others.find(|(_, entry)| !entry.ips.is_disjoint(new));
        holder.map_or_else(
            || "the ledger".to_owned(),
            |(name, _)| format!("IPPool {name}"),
        )
    }
}
