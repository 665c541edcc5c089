//! Orbweaver's functional core: what an address is, who may have it, and what to do next.
//!
//! Every decision of the controller and the agent is a function here; nothing here reads a clock,
//! an environment, a file or a socket, and every collection iterates in a fixed order, so equal
//! inputs give equal outputs.
//!
//! | module | answers |
//! |---|---|
//! | [`addr`] | which addresses: sets of intervals of both families, and their texts |
//! | [`name`] | names, uids and versions, each a type |
//! | [`record`] | who holds which address of a pool (`status.allocatedIPs`) |
//! | [`pool`], [`subnet`] | what a pool and a subnet own, and what is free |
//! | [`affinity`] | label selectors, and the tie between a pool and its workload |
//! | [`annotation`] | what a user asked for on a Pod, a workload or a Namespace |
//! | [`attachment`] | which Multus network stands behind an interface |
//! | [`pattern`], [`listed`] | names with wildcards, and lists of them: which pools are meant |
//! | [`demand`] | how many addresses a workload needs |
//! | [`select`] | which pools may serve this Pod, in order, and why no other may |
//! | [`route`] | the routes of an interface |
//! | [`early`] | whether a Pod's addresses can be recorded before its sandbox asks, and in which pools |
//! | [`ledger`] | a pool's batch: claims in, what to persist, replies only once it is durable |
//! | [`keep`] | fixed addresses: who keeps one, who takes it over, when it goes |
//! | [`quarantine`] | which addresses nobody gets, because a host outside of the pools uses them |
//! | [`release`] | when an address may leave its record |
//! | [`leak`] | which records of a node no DEL will ever release |
//! | [`collect`] | which records no agent will ever release |
//! | [`looks`] | when looks agree, and when they are too many |
//! | [`admit`] | whether what a person wrote may stand, and what follows from it |
//! | [`plan`] | what the controller does next for one CIDR |
//! | [`overlap`] | which of many sets share addresses, and which |
//! | [`audit`] | what is inconsistent in a world of pools and subnets |
//! | [`census`] | how much is free and used, and whose one address is |
//!
//! Invariants that all modules keep:
//! 1. An address belongs to the Pod that its pool's records name, and to one pool only.
//! 2. An address leaves a subnet's ledger only after it has left its pool; it enters a pool only
//!    after the ledger has it.
//! 3. A failed call changes nothing.

pub mod addr;
pub mod admit;
pub mod affinity;
pub mod annotation;
pub mod attachment;
pub mod audit;
pub mod census;
pub mod collect;
pub mod demand;
pub mod early;
pub mod keep;
pub mod kind;
pub mod leak;
pub mod ledger;
pub mod listed;
pub mod looks;
pub mod name;
mod once;
pub mod overlap;
pub mod pattern;
pub mod plan;
pub mod pool;
pub mod quarantine;
pub mod record;
pub mod release;
pub mod repair;
pub mod route;
pub mod select;
pub mod subnet;
#[cfg(test)]
mod testing;
