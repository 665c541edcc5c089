//! The scenarios, a file each; the largest, `load`, is a module of its own beside this one.

use crate::load;
use crate::product::Admission;
use crate::scenario::Scenario;

pub mod admission;
pub mod annotations;
pub mod auto_pool;
pub mod availability;
pub mod bare;
pub mod churn;
pub mod conflict;
pub mod crash;
pub mod flags;
pub mod golden_objects;
pub mod lost_node;
pub mod metrics;
pub mod multi_nic;
pub mod no_room;
pub mod planted;
pub mod rights;
pub mod rolling_update;
pub mod stateful;
pub mod takeover;
pub mod third_party;
pub mod uninstall;
pub mod virtual_machine;
pub mod walkthrough;

/// Every scenario that gates a change, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "bare",
        about: "the cluster itself, without the product: Pods on both nodes run and reach each other",
        product: None,
        shared: &[],
        run: bare::run,
    },
    Scenario {
        name: "planted",
        about: "the judge itself: a plugin that gives one address to every Pod is found out",
        product: None,
        shared: &[],
        run: planted::run,
    },
    Scenario {
        name: "golden-objects",
        about: "every object that the original wrote is taken by the API server and given back as it was",
        product: None,
        shared: &[],
        run: golden_objects::run,
    },
    Scenario {
        name: "walkthrough",
        about: "a static pool: the right Deployment runs with its addresses, the wrong one is refused with the reason",
        product: Some(Admission::Off),
        shared: &[],
        run: walkthrough::run,
    },
    Scenario {
        name: "auto-pool",
        about: "an annotated Deployment gets a pool of its own, which follows kubectl scale and goes with it",
        product: Some(Admission::Off),
        shared: &[],
        run: auto_pool::run,
    },
    Scenario {
        name: "rolling-update",
        about: "a rolling update with no address to spare ends, and the pool is as before",
        product: Some(Admission::Off),
        shared: &[],
        run: rolling_update::run,
    },
    Scenario {
        name: "multi-nic",
        about: "two interfaces a Pod: a pool and routes for each, by name and in their order, an address each of one pool",
        product: Some(Admission::Off),
        shared: &[],
        run: multi_nic::run,
    },
    Scenario {
        name: "annotations",
        about: "an annotation that cannot be followed: workload and Pod are told what, and how to write it",
        product: Some(Admission::Off),
        shared: &[],
        run: annotations::run,
    },
    Scenario {
        name: "no-room",
        about: "a subnet too small: everybody concerned is told what is missing; widened, all run by themselves",
        product: Some(Admission::Off),
        shared: &[],
        run: no_room::run,
    },
    Scenario {
        name: "crash",
        about: "controller or agent killed at ten points of a scale-up: all run, no address twice, the books agree",
        product: Some(Admission::Off),
        shared: &[],
        run: crash::run,
    },
    Scenario {
        name: "load",
        about: "1,000 Pods through ten agents: each call succeeds at its first try, no address twice; figures beside a simple agent's",
        product: Some(Admission::Off),
        shared: &[],
        run: load::run,
    },
    Scenario {
        name: "stateful",
        about: "a StatefulSet's Pods keep their addresses over deletion, moves and kills; scaled, made anew, moved to another subnet",
        product: Some(Admission::Off),
        shared: &[],
        run: stateful::run,
    },
    Scenario {
        name: "lost-node",
        about: "a node stops, is tainted out of service, is deleted: addresses stay while they may be used, then come back, fixed ones to their Pods",
        product: Some(Admission::Off),
        shared: &[],
        run: lost_node::run,
    },
    Scenario {
        name: "availability",
        about: "the acting controller killed and stopped, no controller at all, both roles upgraded: Pods come and go, and no call fails",
        product: Some(Admission::On),
        shared: &[],
        run: availability::run,
    },
    Scenario {
        name: "third-party",
        about: "a Rollout and a CloneSet: pools made, sized, followed, retired; without the right to read one, the others go on",
        product: Some(Admission::Off),
        shared: &[],
        run: third_party::run,
    },
    Scenario {
        name: "virtual-machine",
        about: "a KubeVirt machine's Pods: stopped and started, moved live with and without success, deleted: one address, in no other Pods",
        product: Some(Admission::Off),
        shared: &[virtual_machine::ADDRESS],
        run: virtual_machine::run,
    },
    Scenario {
        name: "flags",
        about: "the chart's flags, changed by helm upgrade while Pods run: each has its effect, no Pod loses an address",
        product: Some(Admission::Off),
        shared: &[],
        run: flags::run,
    },
    Scenario {
        name: "metrics",
        about: "a real Prometheus scrapes both roles; the dashboard's queries and the alerts see what happens",
        product: Some(Admission::Off),
        shared: &[],
        run: metrics::run,
    },
    Scenario {
        name: "conflict",
        about: "another host has an address of a pool: the Pod gets the next, people are told; a silent gateway, a fixed address",
        product: Some(Admission::Off),
        shared: &[],
        run: conflict::run,
    },
    Scenario {
        name: "admission",
        about: "webhooks and the deletion policy: what kubectl prints, certificates replaced under load, no controller, uninstalled",
        product: Some(Admission::Off),
        shared: &[],
        run: admission::run,
    },
    Scenario {
        name: "takeover",
        about: "docs/takeover.md executed on what the original left, crashes included: every Pod keeps its addresses, there and back",
        product: Some(Admission::On),
        shared: &[],
        run: takeover::run,
    },
    Scenario {
        name: "uninstall",
        about: "helm uninstall takes the programs and nothing else; a new installation carries on",
        product: Some(Admission::On),
        shared: &[],
        run: uninstall::run,
    },
    Scenario {
        name: "churn",
        about: "60 Pods come and go while controller, agents, kubelets, API server and etcd are killed and paused: nothing lost, none twice",
        product: Some(Admission::On),
        shared: &[],
        run: churn::run,
    },
    Scenario {
        name: "rights",
        about: "what the product's accounts may do is what is written down",
        product: Some(Admission::On),
        shared: &[],
        run: rights::run,
    },
];
