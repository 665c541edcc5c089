//! The life of one interface whose address may be bound before its first sandbox asks.
//!
//! Sandboxes follow each other, their DELs come in any order and late, the agent is restarted, the
//! Pod is deleted or taken away by force. Held against what happened, told by counters alone: the
//! address of a sandbox that is up is recorded as long as it is up, and in the end nothing is.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a test may fail by panic"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipam::addr::{AddrSet, Family, parse_list};
use ipam::attachment::{Attachment, Networks};
use ipam::ledger::{Answer, Ask, Claim, PoolLedger};
use ipam::name::{Nic, NodeName, PodName, Sandbox, Uid, Version, WorkloadId};
use ipam::pool::Pool;
use ipam::release::{Owner, Release};
use ipam::select::PodFacts;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    /// The leader binds, however late.
    Early,
    /// The runtime makes a new sandbox; its call is answered or not.
    Add { heard: bool },
    /// The runtime calls again for the sandbox that there is.
    AddAgain,
    /// The runtime tore down one of the sandboxes that there were, or does so once more.
    Del { which: usize },
    /// The agent is another process now.
    Restart,
    /// The Pod is being deleted; it goes once its sandboxes did.
    Delete,
    /// The Pod's object is gone, and its sandbox runs.
    Force,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => Just(Op::Early),
        4 => prop::bool::weighted(0.7).prop_map(|heard| Op::Add { heard }),
        1 => Just(Op::AddAgain),
        4 => any::<usize>().prop_map(|which| Op::Del { which }),
        1 => Just(Op::Restart),
        1 => Just(Op::Delete),
        1 => Just(Op::Force),
    ];
    prop::collection::vec(op, 1..24)
}

fn start() -> Pool {
    common::pool(parse_list(&["10.0.0.1-10.0.0.9".to_owned()], Family::V4).unwrap())
}

fn claim(sandbox: Option<usize>, first: bool) -> Ask {
    let workload = WorkloadId {
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: "web".into(),
        uid: Uid::from("w"),
    };
    Ask::Claim(Box::new(Claim {
        pod: PodFacts {
            pod: PodName::new("shop", "web-1"),
            labels: BTreeMap::new(),
            node: NodeName::from("n1"),
            node_labels: Ok(BTreeMap::new()),
            namespace_labels: Ok(BTreeMap::new()),
            workload,
            attachment: Attachment::of(&"eth0".into(), &Networks::default()),
        },
        uid: Uid::from("p"),
        nic: Nic::from("eth0"),
        sandbox: sandbox.map(name),
        first,
        heritage: None,
    }))
}

fn name(sandbox: usize) -> Sandbox {
    Sandbox::new(format!("s{sandbox}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pod {
    Lives,
    Ends,
    Gone,
}

struct Life {
    ledger: PoolLedger,
    pod: Pod,
    sandboxes: usize,
    /// The sandbox that was given the address, and which.
    up: Option<(usize, IpAddr)>,
    /// Those whose DEL came, as the agent's journal has them.
    let_go: BTreeSet<Sandbox>,
    /// What this agent knows: that it saw every sandbox, and that it gave one an address.
    whole: bool,
    gave: bool,
}

impl Life {
    fn new() -> Self {
        Self {
            ledger: PoolLedger::new(start()),
            pod: Pod::Lives,
            sandboxes: 0,
            up: None,
            let_go: BTreeSet::new(),
            whole: true,
            gave: false,
        }
    }

    fn ask(&mut self, ask: Ask) -> Option<Answer> {
        self.ledger.queue(1, ask);
        let batch = self.ledger.batch(&AddrSet::new())?;
        let mut answers = self.ledger.committed(batch, Version::from("1"));
        answers.pop().map(|(_, answer)| answer)
    }

    fn add(&mut self, sandbox: usize, heard: bool) {
        let first = self.whole && sandbox == 1;
        let answer = self.ask(claim(Some(sandbox), first));
        let Some(Answer::Claim(Ok(grant))) = answer else {
            return;
        };
        self.gave = true;
        self.up = heard.then_some((sandbox, grant.address));
    }

    /// What the agent does once it was told of a DEL, or sees the Pod end.
    fn release(&mut self) {
        let owner = match self.pod {
            Pod::Lives => return,
            Pod::Ends => Owner::Ending,
            Pod::Gone => Owner::Gone,
        };
        let never_started = self.pod == Pod::Gone && self.whole && !self.gave;
        if self.let_go.is_empty() && !never_started {
            return;
        }
        self.ask(Ask::Release(Release {
            uid: Uid::from("p"),
            nic: Nic::from("eth0"),
            node: Some(NodeName::from("n1")),
            owner,
            sandboxes: self.let_go.clone(),
            keep_for: None,
        }));
    }

    fn happen(&mut self, op: &Op) {
        match *op {
            // Nobody is bound who is not alive.
            Op::Early if self.pod == Pod::Lives => drop(self.ask(claim(None, false))),
            Op::Add { heard } if self.pod == Pod::Lives && self.up.is_none() => {
                self.sandboxes += 1;
                self.add(self.sandboxes, heard);
            }
            Op::AddAgain if self.pod == Pod::Lives => {
                if let Some((sandbox, _)) = self.up {
                    self.add(sandbox, true);
                }
            }
            Op::Del { which } if self.sandboxes > 0 => {
                let which = which % self.sandboxes + 1;
                self.up = self.up.filter(|(up, _)| *up != which);
                self.let_go.insert(name(which));
                self.release();
            }
            Op::Restart => {
                self.whole = false;
                self.gave = false;
            }
            Op::Delete if self.pod == Pod::Lives => {
                self.pod = Pod::Ends;
                self.release();
            }
            Op::Force if self.pod != Pod::Gone => {
                self.pod = Pod::Gone;
                self.release();
            }
            Op::Early | Op::Add { .. } | Op::AddAgain | Op::Del { .. } | Op::Delete | Op::Force => {
            }
        }
        self.check();
    }

    fn check(&self) {
        if let Some((sandbox, address)) = self.up {
            let record = self.ledger.pool().records.get(address);
            assert!(
                record.is_some_and(|record| record.uid == Uid::from("p")),
                "sandbox {sandbox} uses {address}, which is free"
            );
        }
        assert!(self.ledger.pool().records.iter().count() <= 1);
    }

    /// Every sandbox is torn down, and then the Pod goes.
    fn end(&mut self) {
        if self.pod == Pod::Lives {
            self.happen(&Op::Delete);
        }
        for which in 0..self.sandboxes {
            self.happen(&Op::Del { which });
        }
        self.pod = Pod::Gone;
        self.release();
    }
}

proptest! {
    #[test]
    fn a_sandbox_that_is_up_has_its_address_and_in_the_end_nobody_has(ops in ops()) {
        let mut life = Life::new();
        for op in &ops {
            life.happen(op);
        }
        life.end();
        // Who restarted before the first sandbox leaves that to the looks (`ipam::leak`).
        if life.whole || life.sandboxes > 0 {
            prop_assert_eq!(life.ledger.pool().records.iter().count(), 0);
        }
    }
}
