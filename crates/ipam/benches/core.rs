//! What the core costs: `cargo bench -p orbweaver-ipam`, with a name after `--` for a part of it.
//!
//! A pass over 10,000 pools is the controller's longest await-free moment, and a batch of a pool
//! with 5,000 records the agent's; choosing an address must cost the same in a /28 as in a /8.
//! Each world is checked before it is measured, so that no figure is of a refusal.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark may fail by panic"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipam::addr::{AddrSet, Family, Range, parse_list};
use ipam::affinity::Selector;
use ipam::annotation::SizeRule;
use ipam::demand::PodCount;
use ipam::ledger::{Answer, Ask, Claim, PoolLedger};
use ipam::name::{Nic, NodeName, PodName, PoolName, Sandbox, Uid, Version, WorkloadId, pool_name};
use ipam::plan::{Demand, Snapshot, Step, SubnetSeen, plan};
use ipam::pool::{Owner, Pool, Restrictions};
use ipam::record::{Record, Records};
use ipam::release::{self, Release};
use ipam::select::PodFacts;
use ipam::subnet::{Entry, Subnet, SubnetLedger};
use ipnet::IpNet;

/// Addresses of each workload's pool: as many Pods, and one spare.
const SIZE: u32 = 11;

fn nic() -> Nic {
    Nic::from("eth0")
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn workload(number: u32) -> WorkloadId {
    WorkloadId {
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        namespace: format!("team-{}", number % 100),
        name: format!("web-{number}"),
        uid: Uid::new(format!("0f6e4ab1-{number:05}-{number:05}")),
    }
}

fn pod_uid(number: u32, pod: u32) -> Uid {
    Uid::new(format!("{number:08}-{pod:04}"))
}

fn record(number: u32, pod: u32) -> Record {
    Record {
        pod: PodName::new("shop", &format!("web-{number}-5c9f8d7b6-{pod:05}")),
        uid: pod_uid(number, pod),
        nic: Some(nic()),
        node: Some(NodeName::new(format!("node-{}", pod % 50))),
        sandbox: Some(Sandbox::new(format!("{number:032}{pod:032}"))),
        owner: None,
        machine: None,
        instance: None,
        next: None,
        kept: false,
        quarantine: None,
        other: BTreeMap::new(),
    }
}

fn demand(number: u32, replicas: u32) -> Demand {
    Demand {
        workload: workload(number),
        nic: nic(),
        selector: Selector {
            match_labels: [("app".to_owned(), format!("web-{number}"))].into(),
            ..Selector::default()
        },
        rule: SizeRule::Flexible(1),
        pods: PodCount {
            replicas,
            surge: 0,
            living: (0..replicas).map(|pod| pod_uid(number, pod)).collect(),
            ordinals: None,
        },
        reclaim: true,
    }
}

fn empty_pool(name: PoolName, cidr: IpNet) -> Pool {
    Pool {
        uid: Uid::new(format!("uid-{name}")),
        name,
        version: Version::from("1"),
        created: Some(DateTime::UNIX_EPOCH),
        cidr,
        ips: AddrSet::new(),
        excluded: AddrSet::new(),
        gateway: None,
        routes: vec![],
        restrictions: Restrictions::default(),
        default: false,
        disabled: false,
        terminating: false,
        finalizer: true,
        owner: None,
        adopted_by: None,
        admitted: None,
        rule: None,
        epoch: 0,
        records: Records::default(),
    }
}

/// Everybody has what they want: `pools` workloads of 10 Pods, a pool of 11 addresses each.
fn at_rest(pools: u32) -> Snapshot {
    let cidr = net("10.0.0.0/8");
    let mut ledger = SubnetLedger::default();
    let (mut seen, mut on_pods) = (Snapshot::default(), vec![]);
    for number in 0..pools {
        let demand = demand(number, SIZE - 1);
        let first = u32::from(Ipv4Addr::new(10, 0, 1, 0)) + number * SIZE;
        let address = |n: u32| IpAddr::from(Ipv4Addr::from(first + n));
        let subnet = "net4".into();
        let mut pool = Pool {
            ips: (0..SIZE).map(address).collect(),
            owner: Some(Owner::of(&demand.workload, &demand.nic, &subnet, true)),
            restrictions: Restrictions {
                pod_affinity: Some(Ok(demand.selector.for_workload(&demand.workload))),
                ..Restrictions::default()
            },
            rule: Some(demand.rule),
            adopted_by: Some((subnet, "uid-net4".into())),
            ..empty_pool(pool_name(Family::V4, &demand.workload, &nic(), None), cidr)
        };
        pool.admitted = Some(pool.admission_hash());
        for pod in 0..SIZE - 1 {
            pool.records.insert(address(pod), record(number, pod));
            on_pods.push(address(pod));
        }
        let entry = Entry {
            ips: pool.ips.clone(),
            application: Some(demand.workload.application()),
        };
        ledger.set(&pool.name, entry);
        seen.pools.insert(pool.name.clone(), Arc::new(pool));
        seen.demands.push(Arc::new(demand));
    }
    seen.on_pods = on_pods.into_iter().collect();
    seen.subnet = SubnetSeen::Readable(Arc::new(Subnet {
        name: "net4".into(),
        uid: "uid-net4".into(),
        version: Version::from("1"),
        cidr,
        ips: Range::of_net(&cidr).into(),
        excluded: AddrSet::new(),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1).into()),
        routes: vec![],
        terminating: false,
        finalizer: true,
        ledger: Some(ledger),
    }));
    seen
}

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

/// A pass of the controller, by what happened before it.
fn plans(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    for pools in [100, 10_000] {
        let rest = at_rest(pools);
        let mut scaled = rest.clone();
        Arc::make_mut(&mut scaled.demands[0]).pods.replicas = SIZE + 9;
        let mut new = rest.clone();
        new.demands.push(Arc::new(demand(pools, SIZE - 1)));
        for (what, steps, seen) in [("rest", 0, rest), ("grow", 2, scaled), ("create", 3, new)] {
            assert_eq!(plan(&seen, now()).steps.len(), steps, "{what}");
            group.bench_with_input(BenchmarkId::new(what, pools), &seen, |b, seen| {
                b.iter(|| plan(black_box(seen), now()));
            });
        }
    }
    let demands = (0..1_000).map(|n| Arc::new(demand(n, SIZE - 1)));
    let demands = demands.collect();
    let all_new = Snapshot {
        demands,
        ..at_rest(0)
    };
    let created = |step: &&Step| matches!(step, Step::Create(_));
    assert_eq!(
        plan(&all_new, now()).steps.iter().filter(created).count(),
        1_000
    );
    group.bench_function("create 1,000 at once", |b| {
        b.iter(|| plan(black_box(&all_new), now()));
    });
    group.finish();
}

fn claim(pod: u32) -> Ask {
    Ask::Claim(Box::new(Claim {
        pod: PodFacts {
            pod: PodName::new("shop", &format!("new-{pod}")),
            labels: BTreeMap::new(),
            node: NodeName::from("node-1"),
            node_labels: Ok(BTreeMap::new()),
            namespace_labels: Ok(BTreeMap::new()),
            workload: workload(0),
            attachment: ipam::attachment::Attachment::of(
                &"eth0".into(),
                &ipam::attachment::Networks::default(),
            ),
        },
        uid: Uid::new(format!("new-{pod}")),
        nic: nic(),
        sandbox: Some(Sandbox::new(format!("{pod:064}"))),
        first: false,
        heritage: None,
    }))
}

/// An admitted pool of all of `cidr`, with the records of this many Pods.
fn pool_of(cidr: &str, in_use: u32) -> Pool {
    let cidr = net(cidr);
    let mut pool = empty_pool(PoolName::from("wide"), cidr);
    pool.ips = Range::of_net(&cidr).into();
    pool.admitted = Some(pool.admission_hash());
    for (pod, address) in (0..in_use).zip(pool.ips.clone().iter()) {
        pool.records.insert(address, record(0, pod));
    }
    pool
}

/// One address out of a pool: what it costs must not follow the pool's size.
fn choice(c: &mut Criterion) {
    let mut group = c.benchmark_group("choose one address");
    for cidr in ["10.0.0.0/28", "10.0.0.0/16", "10.0.0.0/8", "fd00:6::/64"] {
        let mut ledger = PoolLedger::new(pool_of(cidr, 8));
        ledger.queue(1, claim(1));
        let answers = ledger.clone();
        let batch = answers.batch(&AddrSet::new()).unwrap();
        assert!(matches!(
            ledger.clone().committed(batch, Version::from("2"))[0].1,
            Answer::Claim(Ok(_))
        ));
        group.bench_function(cidr, |b| {
            b.iter(|| ledger.batch(black_box(&AddrSet::new())));
        });
    }
    group.finish();
}

/// What an agent does between two writes of a large pool: 1, then 64 claims at once.
fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch, 5,000 records");
    for claims in [1, 64] {
        let mut ledger = PoolLedger::new(pool_of("10.0.0.0/16", 5_000));
        for pod in 0..claims {
            ledger.queue(pod.into(), claim(pod));
        }
        ledger.queue(
            1_000,
            Ask::Release(Release {
                node: None,
                uid: pod_uid(0, 7),
                nic: nic(),
                owner: release::Owner::Gone,
                sandboxes: record(0, 7).sandbox.into_iter().collect(),
                keep_for: None,
            }),
        );
        let batch = ledger.batch(&AddrSet::new()).unwrap();
        assert!(batch.changed());
        group.throughput(Throughput::Elements(claims.into()));
        group.bench_function(BenchmarkId::new("claims", claims), |b| {
            b.iter(|| ledger.batch(black_box(&AddrSet::new())));
        });
        group.bench_function(BenchmarkId::new("committed", claims), |b| {
            b.iter_batched(
                || (ledger.clone(), batch.clone()),
                |(mut ledger, batch)| ledger.committed(batch, Version::from("2")),
                BatchSize::LargeInput,
            );
        });
    }
    let records = pool_of("10.0.0.0/16", 5_000).records;
    let text = records.to_text().unwrap();
    group.throughput(Throughput::Bytes(text.len().try_into().unwrap()));
    group.bench_function("write as text", |b| {
        b.iter(|| black_box(&records).to_text());
    });
    group.bench_function("read from text", |b| {
        b.iter(|| Records::parse(Some(black_box(&text))).unwrap());
    });
    group.finish();
}

/// Ranges and their texts: 1,000 of them, and a whole /64.
fn texts(c: &mut Criterion) {
    let mut group = c.benchmark_group("ranges");
    let ranges = |n: u32| {
        format!(
            "10.{}.{}.10-10.{}.{}.99",
            n / 256,
            n % 256,
            n / 256,
            n % 256
        )
    };
    let many: Vec<String> = (0..1_000).map(ranges).collect();
    let wide = vec!["fd00:6::-fd00:6::ffff:ffff:ffff:ffff".to_owned()];
    for (what, family, texts) in [
        ("1,000 of IPv4", Family::V4, many),
        ("a /64", Family::V6, wide),
    ] {
        let set = parse_list(&texts, family).unwrap();
        assert_eq!(set.to_texts(), texts);
        group.bench_function(BenchmarkId::new("parse", what), |b| {
            b.iter(|| parse_list(black_box(&texts), family).unwrap());
        });
        group.bench_function(BenchmarkId::new("print", what), |b| {
            b.iter(|| black_box(&set).to_texts());
        });
    }
    group.finish();
}

criterion_group!(benches, plans, choice, batches, texts);
criterion_main!(benches);
