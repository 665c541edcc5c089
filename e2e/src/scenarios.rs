//! The scenarios, a file each.

use crate::scenario::Scenario;

pub mod bare;
pub mod planted;
pub mod walkthrough;

/// Every scenario, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "bare",
        about: "the cluster itself, without the product: Pods on both nodes run and reach each other",
        needs_product: false,
        run: bare::run,
    },
    Scenario {
        name: "planted",
        about: "the judge itself: a plugin that gives one address to every Pod is found out",
        needs_product: false,
        run: planted::run,
    },
    Scenario {
        name: "walkthrough",
        about: "a static pool: the right Deployment runs with its addresses, the wrong one is refused with the reason",
        needs_product: true,
        run: walkthrough::run,
    },
];
