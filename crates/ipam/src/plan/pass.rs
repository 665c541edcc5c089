//! One pass over a subnet: the working state that the rules of sizes, admission and retirement
//! share, and the order in which their steps come out.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::{
    Condition, ConditionKind, Demand, Fence, LedgerEdit, Needs, Plan, PoolEdit, PoolWrite, Reason,
    Shortfall, Snapshot, Step, admit, resize, retire,
};
use crate::addr::AddrSet;
use crate::name::PoolName;
use crate::pool::{Owner, Pool};
use crate::subnet::{Entry, Subnet, SubnetLedger};

/// Plans for a readable subnet.
pub(super) fn run(snapshot: &Snapshot, subnet: &Subnet, now: DateTime<Utc>) -> Plan {
    if subnet.ledger.is_none() && !snapshot.live {
        return Plan {
            needs_live: true,
            ..Plan::default()
        };
    }
    let mut pass = Pass::new(snapshot, subnet, now);
    let served = resize::match_pools(snapshot, subnet);
    for pool in snapshot.pools.values().filter(|p| p.owner.is_none()) {
        admit::pool_made_by_hand(&mut pass, pool);
    }
    for (name, pool) in snapshot.pools.iter().filter(|(_, p)| p.owner.is_some()) {
        match served.get(name) {
            Some(demand) => resize::serve(&mut pass, pool, demand),
            None => retire::without_demand(&mut pass, pool),
        }
    }
    let with_pool: BTreeSet<_> = served.values().map(|d| (&d.workload.uid, &d.nic)).collect();
    for demand in &snapshot.demands {
        if !with_pool.contains(&(&demand.workload.uid, &demand.nic)) {
            resize::create(&mut pass, demand);
        }
    }
    retire::vanished(&mut pass);
    pass.finish()
}

/// The working state of a pass.
pub(super) struct Pass<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) subnet: &'s Subnet,
    pub(super) now: DateTime<Utc>,
    /// The ledger as read, or as rebuilt from the pools.
    pub(super) ledger: SubnetLedger,
    /// Everything that some pool has, may have, or gets in this pass.
    pub(super) taken: AddrSet,
    creates: Vec<Step>,
    before: Vec<PoolWrite>,
    edits: BTreeMap<PoolName, LedgerEdit>,
    after: Vec<PoolWrite>,
    deletes: Vec<Step>,
    pub(super) said: Plan,
}

impl<'s> Pass<'s> {
    fn new(snapshot: &'s Snapshot, subnet: &'s Subnet, now: DateTime<Utc>) -> Self {
        let ledger = subnet.ledger.clone().unwrap_or_default();
        let claimed = snapshot
            .pools
            .values()
            .flat_map(|pool| pool.claimed().ranges().to_vec())
            .collect::<AddrSet>();
        let taken = ledger
            .taken()
            .union(&claimed)
            .union(&snapshot.elsewhere)
            .union(&snapshot.on_pods);
        Self {
            snapshot,
            subnet,
            now,
            ledger,
            taken,
            creates: vec![],
            before: vec![],
            edits: BTreeMap::new(),
            after: vec![],
            deletes: vec![],
            said: Plan::default(),
        }
    }

    /// The pool's entry in the ledger; empty where it has none.
    pub(super) fn entry(&self, pool: &PoolName) -> AddrSet {
        self.ledger
            .get(pool)
            .map(|e| e.ips.clone())
            .unwrap_or_default()
    }

    pub(super) fn create(&mut self, step: Step) {
        self.creates.push(step);
    }

    pub(super) fn delete(&mut self, pool: &Pool, because: Reason) {
        self.deletes.push(Step::Delete {
            pool: pool.name.clone(),
            fence: fence(pool),
            because,
        });
    }

    pub(super) fn before(&mut self, pool: &Pool, edit: PoolEdit, because: Reason) {
        let fence = Some(fence(pool));
        self.before.push(PoolWrite {
            pool: pool.name.clone(),
            fence,
            edit,
            because,
        });
    }

    pub(super) fn after(
        &mut self,
        pool: &PoolName,
        fence: Option<Fence>,
        edit: PoolEdit,
        because: Reason,
    ) {
        self.after.push(PoolWrite {
            pool: pool.clone(),
            fence,
            edit,
            because,
        });
    }

    pub(super) fn edit(
        &mut self,
        pool: &PoolName,
        ips: AddrSet,
        application: Option<String>,
        needs: Needs,
    ) {
        let entry = Entry { ips, application };
        self.edits.insert(
            pool.clone(),
            LedgerEdit {
                pool: pool.clone(),
                entry,
                needs,
            },
        );
    }

    /// True where this pass writes the entry of `pool` already.
    pub(super) fn edits(&self, pool: &PoolName) -> bool {
        self.edits.contains_key(pool)
    }

    /// Gives back to the subnet what the ledger shows for a pool beyond `keep`, fenced by `edit`.
    pub(super) fn take_back(
        &mut self,
        pool: &Pool,
        keep: AddrSet,
        mut edit: PoolEdit,
        because: Reason,
    ) {
        edit.raise_epoch = true;
        self.before(pool, edit, because);
        self.edit(
            &pool.name,
            keep,
            application(pool.owner.as_ref()),
            Needs::Written,
        );
    }

    pub(super) fn say(&mut self, pool: &PoolName, conditions: Vec<Condition>) {
        self.said.pools.insert(pool.clone(), conditions);
    }

    pub(super) fn short(&mut self, demand: &Demand, pool: &PoolName, message: String) {
        self.said.shortfalls.push(Shortfall {
            workload: demand.workload.clone(),
            pool: pool.clone(),
            message,
        });
    }

    pub(super) fn wake_at(&mut self, at: DateTime<Utc>) {
        self.said.wake_at = Some(self.said.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn finish(mut self) -> Plan {
        let subnet = self.subnet;
        let subnet_fence = Fence {
            uid: subnet.uid.clone(),
            version: subnet.version.clone(),
        };
        let mut steps = self.creates;
        steps.extend(
            self.before
                .into_iter()
                .map(|write| Step::Before(Box::new(write))),
        );
        let empty = self.ledger.iter().next().is_none();
        if !self.edits.is_empty() {
            let edits = self.edits.into_values().collect();
            steps.push(Step::Ledger {
                fence: subnet_fence,
                edits,
            });
        } else if subnet.terminating && subnet.finalizer && empty {
            steps.push(Step::ProtectSubnet {
                fence: subnet_fence,
                finalizer: false,
            });
        } else if !subnet.terminating && !subnet.finalizer {
            steps.push(Step::ProtectSubnet {
                fence: subnet_fence,
                finalizer: true,
            });
        }
        steps.extend(
            self.after
                .into_iter()
                .map(|write| Step::After(Box::new(write))),
        );
        steps.extend(self.deletes);
        self.said.subnet = subnet_conditions(subnet, &self.said.shortfalls);
        Plan { steps, ..self.said }
    }
}

fn subnet_conditions(subnet: &Subnet, shortfalls: &[Shortfall]) -> Vec<Condition> {
    let ready = if subnet.terminating {
        Condition {
            kind: ConditionKind::Ready,
            holds: false,
            reason: "Terminating",
            message: "being deleted: no pool gets more addresses".to_owned(),
        }
    } else {
        Condition {
            kind: ConditionKind::Ready,
            holds: true,
            reason: "Serving",
            message: "pools are carved from this subnet".to_owned(),
        }
    };
    let exhausted = match shortfalls {
        [] => Condition {
            kind: ConditionKind::Exhausted,
            holds: false,
            reason: "Sufficient",
            message: "every workload has what it wants".to_owned(),
        },
        [first, rest @ ..] => Condition {
            kind: ConditionKind::Exhausted,
            holds: true,
            reason: "SubnetExhausted",
            message: if rest.is_empty() {
                first.message.clone()
            } else {
                format!("{} (and {} more workloads)", first.message, rest.len())
            },
        },
    };
    vec![ready, exhausted]
}

/// The fence of `pool` as read.
pub(super) fn fence(pool: &Pool) -> Fence {
    Fence {
        uid: pool.uid.clone(),
        version: pool.version.clone(),
    }
}

/// `application` of the ledger entry of a pool with this owner.
pub(super) fn application(owner: Option<&Owner>) -> Option<String> {
    owner.map(|o| format!("{}_{}_{}_{}", o.gv, o.kind, o.namespace, o.name))
}

/// Conditions of a pool that is in order.
pub(super) fn in_order(reason: &'static str, message: &str) -> Vec<Condition> {
    vec![
        Condition {
            kind: ConditionKind::Ready,
            holds: true,
            reason,
            message: message.to_owned(),
        },
        Condition {
            kind: ConditionKind::Conflicting,
            holds: false,
            reason: "NoOverlap",
            message: "no other pool has these addresses".to_owned(),
        },
    ]
}
