//! What can happen in the world, and how likely: random histories for `plan_world.rs`.

use std::net::{IpAddr, Ipv4Addr};

use ipam::addr::AddrSet;
use proptest::prelude::*;

/// Bits 0 to 15 stand for 10.0.0.0 to 10.0.0.15.
pub type Mask = u16;

/// What users of workloads do.
#[derive(Debug, Clone)]
pub enum User {
    Deploy {
        slot: u8,
        replicas: u8,
        rule: Rule,
        reclaim: bool,
    },
    Roll {
        slot: u8,
        surge: u8,
    },
    Annotate {
        slot: u8,
        asks: bool,
    },
    Remove {
        slot: u8,
    },
}

/// What kubelets and agents do.
#[derive(Debug, Clone)]
pub enum Node {
    Start { slot: u8 },
    StartBare { pool: u8 },
    Ask { pod: u8 },
    Stop { pod: u8 },
    End { pod: u8 },
}

/// What people do to pools, with or without knowing what they do.
#[derive(Debug, Clone)]
pub enum Person {
    Pool { slot: u8, ips: Mask, excluded: Mask },
    Edit { pool: u8, add: Mask, remove: Mask },
    Exclude { pool: u8, excluded: Mask },
    Revert { pool: u8, ago: u8 },
    Copy { pool: u8, to: u8 },
    Delete { pool: u8 },
    Force { pool: u8 },
    Break { pool: u8, broken: bool },
}

/// What administrators do to the subnet.
#[derive(Debug, Clone)]
pub enum Admin {
    Subnet { ips: Mask, gateway: Option<u8> },
    Narrow { excluded: Mask },
    DeleteSubnet,
    Wipe,
    Reserve { ips: Mask },
}

/// What controllers do.
#[derive(Debug, Clone)]
pub enum Controller {
    Wait {
        seconds: u8,
    },
    Look {
        who: u8,
        pools: u8,
        subnet: u8,
        workloads: u8,
    },
    Write {
        who: u8,
        pick: u8,
        times: u8,
    },
    Crash {
        who: u8,
    },
}

/// Something that happens.
#[derive(Debug, Clone)]
pub enum Event {
    User(User),
    Node(Node),
    Person(Person),
    Admin(Admin),
    Controller(Controller),
}

#[derive(Debug, Clone, Copy)]
pub enum Rule {
    Fixed(u8),
    Flexible(u8),
}

/// What a history is mostly about. Each mix reaches corners that a history of everything at once
/// comes to once in a million.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mix {
    /// Everything at once.
    All,
    /// Pools made by hand, which people edit and agents use; no subnet for most of the time.
    Alone,
    /// Subnets come and go, ledgers are lost, over pools that are in use.
    Begin,
    /// Workloads that scale and roll, in a subnet that is too small.
    Auto,
    /// Pools of workloads that people edit, delete and force away.
    Meddled,
}

/// Where a history starts.
#[derive(Debug, Clone)]
pub struct Start {
    pub subnet: Option<(Mask, Option<u8>)>,
    /// Pools as another program left them, with addresses in use and no admission.
    pub taken_over: Vec<(Mask, Mask)>,
    pub ledger_too: bool,
}

/// How many addresses there are to quarrel about.
fn width(mix: Mix) -> u32 {
    match mix {
        Mix::All => 16,
        Mix::Auto => 8,
        Mix::Alone | Mix::Begin | Mix::Meddled => 5,
    }
}

/// A start and what happens after it.
pub fn starts() -> impl Strategy<Value = (Start, Vec<Event>)> {
    let mixes = [Mix::All, Mix::Alone, Mix::Begin, Mix::Auto, Mix::Meddled];
    prop::sample::select(mixes.to_vec()).prop_flat_map(|mix| {
        let with_subnet = match mix {
            Mix::Alone => 0.05,
            Mix::Begin => 0.3,
            Mix::All => 0.85,
            Mix::Auto | Mix::Meddled => 0.95,
        };
        let subnet = (
            prop_oneof![2 => Just(0x7ffe), 1 => masks(mix)],
            prop::option::of(0_u8..16),
        );
        let taken_over = prop::collection::vec((masks(mix), masks(mix)), 0..3);
        let taken_over = (prop::bool::weighted(0.3), taken_over)
            .prop_map(|(some, pools)| if some { pools } else { vec![] });
        let start = (
            prop::option::weighted(with_subnet, subnet),
            taken_over,
            any::<bool>(),
        );
        let start = start.prop_map(move |(subnet, taken_over, ledger_too)| Start {
            subnet,
            taken_over,
            ledger_too,
        });
        (start, prop::collection::vec(events(mix), 1..130))
    })
}

fn masks(mix: Mix) -> BoxedStrategy<Mask> {
    let bits = (1_u32 << width(mix)) - 1;
    let run = (0..width(mix), 1_u32..7).prop_map(move |(first, len)| {
        Mask::try_from((((1_u32 << len) - 1) << first) & bits).unwrap()
    });
    prop_oneof![
        4 => run.clone(),
        1 => (run.clone(), run).prop_map(|(a, b)| a | b),
        1 => any::<Mask>().prop_map(move |m| m & Mask::try_from(bits).unwrap()),
    ]
    .boxed()
}

fn some_or_none(mix: Mix) -> BoxedStrategy<Mask> {
    prop_oneof![Just(0), masks(mix)].boxed()
}

fn rules() -> impl Strategy<Value = Rule> {
    prop_oneof![3 => (0_u8..3).prop_map(Rule::Flexible), 1 => (0_u8..4).prop_map(Rule::Fixed)]
}

fn user_events() -> BoxedStrategy<Event> {
    let slot = 0_u8..3;
    prop_oneof![
        6 => (slot.clone(), 0_u8..5, rules(), prop::bool::weighted(0.8))
            .prop_map(|(slot, replicas, rule, reclaim)| User::Deploy { slot, replicas, rule, reclaim }),
        2 => (slot.clone(), 0_u8..3).prop_map(|(slot, surge)| User::Roll { slot, surge }),
        1 => (slot.clone(), any::<bool>()).prop_map(|(slot, asks)| User::Annotate { slot, asks }),
        2 => slot.prop_map(|slot| User::Remove { slot }),
    ]
    .prop_map(Event::User)
    .boxed()
}

fn node_events() -> BoxedStrategy<Event> {
    prop_oneof![
        4 => (0_u8..3).prop_map(|slot| Node::Start { slot }),
        3 => any::<u8>().prop_map(|pool| Node::StartBare { pool }),
        3 => any::<u8>().prop_map(|pod| Node::Ask { pod }),
        1 => any::<u8>().prop_map(|pod| Node::Stop { pod }),
        3 => any::<u8>().prop_map(|pod| Node::End { pod }),
    ]
    .prop_map(Event::Node)
    .boxed()
}

fn pool_events(mix: Mix) -> BoxedStrategy<Event> {
    let pool = any::<u8>;
    let forced = if mix == Mix::Meddled { 4 } else { 1 };
    prop_oneof![
        4 => (0_u8..4, masks(mix), prop_oneof![3 => Just(0), 1 => masks(mix)])
            .prop_map(|(slot, ips, excluded)| Person::Pool { slot, ips, excluded }),
        5 => (pool(), some_or_none(mix), some_or_none(mix))
            .prop_map(|(pool, add, remove)| Person::Edit { pool, add, remove }),
        1 => (pool(), some_or_none(mix)).prop_map(|(pool, excluded)| Person::Exclude { pool, excluded }),
        4 => (pool(), 0_u8..20).prop_map(|(pool, ago)| Person::Revert { pool, ago }),
        1 => (pool(), 0_u8..4).prop_map(|(pool, to)| Person::Copy { pool, to }),
        2 => pool().prop_map(|pool| Person::Delete { pool }),
        forced => pool().prop_map(|pool| Person::Force { pool }),
        1 => (pool(), any::<bool>()).prop_map(|(pool, broken)| Person::Break { pool, broken }),
    ]
    .prop_map(Event::Person)
    .boxed()
}

fn subnet_events(mix: Mix) -> BoxedStrategy<Event> {
    prop_oneof![
        4 => (masks(mix), prop::option::of(0_u8..16))
            .prop_map(|(ips, gateway)| Admin::Subnet { ips, gateway }),
        1 => some_or_none(mix).prop_map(|excluded| Admin::Narrow { excluded }),
        2 => Just(Admin::DeleteSubnet),
        2 => Just(Admin::Wipe),
        1 => some_or_none(mix).prop_map(|ips| Admin::Reserve { ips }),
    ]
    .prop_map(Event::Admin)
    .boxed()
}

fn controller_events() -> BoxedStrategy<Event> {
    let lag = || prop_oneof![2 => Just(0_u8), 1 => 0_u8..6, 1 => 0_u8..15];
    prop_oneof![
        7 => (0_u8..2, lag(), lag(), lag())
            .prop_map(|(who, pools, subnet, workloads)| Controller::Look { who, pools, subnet, workloads }),
        6 => (0_u8..2, any::<u8>()).prop_map(|(who, pick)| Controller::Write { who, pick, times: 1 }),
        3 => (0_u8..2, any::<u8>(), 2_u8..30)
            .prop_map(|(who, pick, times)| Controller::Write { who, pick, times }),
        1 => (0_u8..2).prop_map(|who| Controller::Crash { who }),
        1 => (0_u8..8).prop_map(|seconds| Controller::Wait { seconds }),
    ]
    .prop_map(Event::Controller)
    .boxed()
}

fn events(mix: Mix) -> BoxedStrategy<Event> {
    let [users, nodes, pools, subnets] = match mix {
        Mix::All => [2, 4, 3, 1],
        Mix::Alone => [0, 3, 5, 0],
        Mix::Begin => [1, 3, 4, 2],
        Mix::Auto => [3, 5, 0, 1],
        Mix::Meddled => [2, 4, 5, 0],
    };
    let kinds = vec![
        (users, user_events()),
        (nodes, node_events()),
        (pools, pool_events(mix)),
        (subnets, subnet_events(mix)),
        (8, controller_events()),
    ];
    let kinds = kinds
        .into_iter()
        .filter(|(weight, _)| *weight > 0)
        .collect();
    prop::strategy::Union::new_weighted(kinds).boxed()
}

/// The addresses of a mask.
pub fn set(mask: Mask) -> AddrSet {
    (0..16_u8)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(address)
        .collect()
}

/// The address of a bit.
pub fn address(bit: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, bit % 16).into()
}
