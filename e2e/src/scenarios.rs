//! The scenarios, a file each.

use crate::scenario::Scenario;

pub mod bare;

/// Every scenario, in the order in which they run.
pub const ALL: &[Scenario] = &[Scenario {
    name: "bare",
    about: "the cluster itself, without the product: Pods on both nodes run and reach each other",
    needs_product: false,
    run: bare::run,
}];
