//! A pool's writer with a host in memory: what goes into one write, and what does not.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use ipam::attachment::{Attachment as Network, NoNetwork};
use ipam::name::{Nic, NodeName, PodName, Sandbox, Uid, WorkloadId};
use ipam::select::PodFacts;
use serde_json::json;

use super::*;
use crate::api::{convert, names};

/// How long a write takes.
const PUT: Duration = Duration::from_millis(20);

/// Pools, and the only process that writes them.
#[derive(Default)]
struct Alone {
    stored: Mutex<BTreeMap<String, SpiderIPPool>>,
    /// How many are written now, and how many were at most.
    under_way: Mutex<usize>,
    most: Mutex<usize>,
    writes: Mutex<Vec<usize>>,
    conflicts: Mutex<usize>,
    reads: Mutex<usize>,
    ended: Mutex<Vec<PodName>>,
}

fn pool(name: &str) -> SpiderIPPool {
    let pool = json!({
        "apiVersion": names::API_VERSION, "kind": names::KIND_POOL,
        "metadata": {"name": name, "uid": "p1", "resourceVersion": "1"},
        "spec": {"subnet": "10.0.0.0/16", "ips": ["10.0.0.1-10.0.3.255"], "ipVersion": 4},
    });
    let mut pool: SpiderIPPool = serde_json::from_value(pool).unwrap();
    let hash = convert::pool(&pool).unwrap().admission_hash();
    let admitted = (names::annotation::ADMITTED.to_owned(), hash);
    pool.metadata.annotations = Some(BTreeMap::from([admitted]));
    pool
}

impl Alone {
    /// What is stored of a pool, which is there as soon as somebody asks.
    fn stored<T>(&self, name: &str, look: impl FnOnce(&mut SpiderIPPool) -> T) -> T {
        let mut stored = locked(&self.stored);
        look(stored.entry(name.to_owned()).or_insert_with(|| pool(name)))
    }

    /// Another part of this process writes.
    fn touch(pool: &mut SpiderIPPool) {
        let version = pool.metadata.resource_version.take().unwrap();
        let next = version.parse::<u64>().unwrap() + 1;
        pool.metadata.resource_version = Some(next.to_string());
    }
}

struct Shared(Arc<Alone>);

impl Host for Shared {
    const RIVALS: Rivals = Rivals::None;

    async fn read(&self, name: &PoolName) -> Result<Option<Arc<Reading>>, String> {
        *locked(&self.0.reads) += 1;
        let object = self.0.stored(name.as_str(), |pool| pool.clone());
        Ok(Some(Arc::new(Reading::new(object, Instant::now()))))
    }

    fn known(&self, name: &PoolName, than: Option<&SpiderIPPool>) -> Option<Arc<Reading>> {
        let object = self.0.stored(name.as_str(), |pool| pool.clone());
        let is_news = than.is_none_or(|than| crate::kube_io::serial::is_newer(&object, than));
        is_news.then(|| Arc::new(Reading::new(object, Instant::now())))
    }

    async fn reserved(&self) -> Result<Arc<AddrSet>, String> {
        Ok(Arc::new(AddrSet::new()))
    }

    async fn write(&self, pool: &mut SpiderIPPool) -> Result<(), PutError> {
        let name = pool.metadata.name.clone().unwrap();
        let known = self
            .0
            .stored(&name, |pool| pool.metadata.resource_version.clone());
        if known != pool.metadata.resource_version {
            return Err(PutError::Behind {
                kind: names::KIND_POOL.to_owned(),
                name,
                known: known.unwrap_or_default(),
            });
        }
        let now = *locked(&self.0.under_way) + 1;
        *locked(&self.0.under_way) = now;
        let most = now.max(*locked(&self.0.most));
        *locked(&self.0.most) = most;
        tokio::time::sleep(PUT).await;
        *locked(&self.0.under_way) -= 1;
        Alone::touch(pool);
        self.0.stored(&name, |stored| *stored = pool.clone());
        Ok(())
    }

    fn ended(&self, pod: &PodName, _: &Uid) -> bool {
        locked(&self.0.ended).contains(pod)
    }

    fn granted(&self, _: &Attachment, _: &Granted) {}

    fn untaken(&self, _: &Attachment) {}

    fn written(&self, asks: usize) {
        locked(&self.0.writes).push(asks);
    }

    fn not_written(&self, _: Outcome, _: bool) {
        *locked(&self.0.conflicts) += 1;
    }
}

fn writers() -> (Arc<Alone>, Arc<Writers<Shared>>) {
    let alone = Arc::new(Alone::default());
    (
        Arc::clone(&alone),
        Arc::new(Writers::new(Shared(alone), Tasks::default())),
    )
}

fn claim(uid: &str) -> Claim {
    let nic = Nic::from("eth0");
    Claim {
        pod: PodFacts {
            pod: PodName::new("shop", uid),
            labels: BTreeMap::new(),
            node: NodeName::new("n1"),
            node_labels: Ok(BTreeMap::new()),
            namespace_labels: Ok(BTreeMap::new()),
            workload: WorkloadId {
                group: String::new(),
                version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                namespace: "shop".to_owned(),
                name: uid.to_owned(),
                uid: Uid::from(uid),
            },
            attachment: Network {
                nic: nic.clone(),
                own_namespace: "kube-system".to_owned(),
                network: Err(NoNetwork::NoneForFirst),
            },
        },
        uid: Uid::from(uid),
        nic,
        sandbox: Some(Sandbox::from("s1")),
        first: false,
        heritage: None,
    }
}

fn text(alone: &Alone) -> String {
    let status = alone.stored("p", |pool| pool.status.clone());
    status
        .and_then(|status| status.allocated_ips)
        .unwrap_or_default()
}

fn within(limit: Duration) -> Instant {
    Instant::now() + limit
}

#[tokio::test(start_paused = true)]
async fn claims_that_come_together_share_a_write_and_need_no_read() {
    let (alone, writers) = writers();
    let pool = PoolName::new("p");
    let asks = (0..200).map(|n: u64| {
        let (writers, pool) = (&writers, &pool);
        async move {
            tokio::time::sleep(Duration::from_micros(n * 20)).await;
            let deadline = within(Duration::from_secs(10));
            writers
                .claim(pool, claim(&format!("u{n}")), None, deadline)
                .await
        }
    });
    let granted: Vec<_> = join_all(asks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let addresses: std::collections::BTreeSet<_> = granted.iter().map(|g| g.address).collect();
    assert_eq!(addresses.len(), 200);
    assert_eq!(*locked(&alone.writes), [200], "they came within the linger");
    assert_eq!(*locked(&alone.reads), 0);
}

#[tokio::test(start_paused = true)]
async fn few_pools_are_written_at_once_and_those_that_wait_for_their_turn_take_in_what_is_asked() {
    let (alone, writers) = writers();
    let pools = 10 * WRITES_AT_ONCE;
    let asks = (0..pools).flat_map(|pool| [0, 1].map(|round| (pool, round)));
    let asks = asks.map(|(pool, round)| {
        let writers = &writers;
        async move {
            tokio::time::sleep(PUT * 5 * round).await;
            let (pool, of) = (
                PoolName::new(format!("p{pool}")),
                claim(&format!("u{round}")),
            );
            writers
                .claim(&pool, of, None, within(Duration::from_secs(10)))
                .await
        }
    });
    let granted = join_all(asks).await;
    assert!(granted.iter().all(Result::is_ok));
    assert_eq!(*locked(&alone.most), WRITES_AT_ONCE + WRITES_AGAIN);
    let carried = locked(&alone.writes);
    let both = carried.iter().filter(|asks| **asks == 2).count();
    assert!(both >= pools / 3, "{both} of {pools} pools: {carried:?}");
}

#[tokio::test(start_paused = true)]
async fn where_many_pools_are_asked_of_at_once_none_is_written_before_its_company_is_there() {
    let (alone, writers) = writers();
    let asks = (0..WRITES_AT_ONCE).flat_map(|pool| ["first", "second"].map(|uid| (pool, uid)));
    let asks = asks.map(|(pool, uid)| {
        let writers = &writers;
        async move {
            if uid == "second" {
                tokio::time::sleep(PUT).await;
            }
            let pool = PoolName::new(format!("p{pool}"));
            let deadline = within(Duration::from_secs(10));
            writers.claim(&pool, claim(uid), None, deadline).await
        }
    });
    let granted = join_all(asks).await;
    assert!(granted.iter().all(Result::is_ok));
    assert_eq!(*locked(&alone.writes), [2; WRITES_AT_ONCE]);
    // And who asks alone waits for a moment only.
    let began = Instant::now();
    let deadline = within(Duration::from_secs(10));
    let pool = PoolName::new("alone");
    let granted = writers.claim(&pool, claim("u"), None, deadline).await;
    assert!(granted.is_ok());
    assert!(began.elapsed() < 2 * PUT, "{:?}", began.elapsed());
}

/// Else it would wait behind all pools twice.
#[tokio::test(start_paused = true)]
async fn who_waited_for_a_write_to_end_does_not_wait_for_a_turn_behind_all_other_pools() {
    let (_, writers) = writers();
    let ask = |pool: usize, uid: &'static str| {
        let writers = Arc::clone(&writers);
        tokio::spawn(async move {
            let began = Instant::now();
            let pool = PoolName::new(format!("p{pool}"));
            let deadline = within(Duration::from_secs(10));
            let granted = writers.claim(&pool, claim(uid), None, deadline).await;
            assert!(granted.is_ok());
            began.elapsed()
        })
    };
    let first = ask(0, "first");
    tokio::time::sleep(PUT / 2).await;
    let late = ask(0, "late");
    let others: Vec<_> = (1..20 * WRITES_AT_ONCE)
        .map(|pool| ask(pool, "other"))
        .collect();
    assert!(first.await.unwrap() < 2 * PUT);
    let (late, others) = (late.await.unwrap(), join_all(others).await);
    let others = others.into_iter().map(|took| took.unwrap());
    assert!(others.max().unwrap() > 18 * PUT);
    assert!(late < 4 * PUT, "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_caller_has_gone_or_waited_long_enough_is_not_written() {
    let (alone, writers) = writers();
    let pool = PoolName::new("p");
    let ask = |uid: &'static str, limit| {
        let (writers, pool) = (Arc::clone(&writers), pool.clone());
        tokio::spawn(async move {
            let deadline = within(limit);
            writers.claim(&pool, claim(uid), None, deadline).await
        })
    };
    let first = ask("first", Duration::from_secs(10));
    tokio::time::sleep(PUT / 2).await;
    // They wait for the write under way.
    let gone = ask("gone", Duration::from_secs(10));
    let late = ask("late", PUT / 4);
    let stays = ask("stays", Duration::from_secs(10));
    tokio::time::sleep(PUT / 4).await;
    gone.abort();
    assert!(first.await.unwrap().is_ok());
    assert!(stays.await.unwrap().is_ok());
    assert!(late.await.unwrap().is_err());
    let text = text(&alone);
    assert!(text.contains("first") && text.contains("stays"), "{text}");
    assert!(!text.contains("gone") && !text.contains("late"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_write_of_another_part_of_the_process_is_caught_up_with_and_is_no_conflict() {
    let (alone, writers) = writers();
    let pool = PoolName::new("p");
    for uid in ["a", "b", "c"] {
        let deadline = within(Duration::from_secs(10));
        writers
            .claim(&pool, claim(uid), None, deadline)
            .await
            .unwrap();
        alone.stored("p", Alone::touch);
    }
    assert_eq!(*locked(&alone.writes), [1, 1, 1]);
    assert_eq!((*locked(&alone.conflicts), *locked(&alone.reads)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_checked_by_a_live_read() {
    let (alone, writers) = writers();
    alone.stored("p", |pool| pool.spec.disable = Some(true));
    let deadline = within(Duration::from_secs(10));
    let refused = writers
        .claim(&PoolName::new("p"), claim("a"), None, deadline)
        .await;
    assert!(
        matches!(refused, Err(CommitError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(*locked(&alone.reads), 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_sandbox_and_has_ended_is_left_out_and_who_has_one_is_not() {
    let (alone, writers) = writers();
    let until = Instant::now() + Duration::from_secs(5);
    locked(&alone.ended).extend(["a", "b"].map(|pod| PodName::new("shop", pod)));
    let early = |pod: &str| Claim {
        sandbox: None,
        ..claim(pod)
    };
    let pool = PoolName::new("p");
    let (ended, lives, asks) = tokio::join!(
        writers.claim(&pool, early("a"), None, until),
        writers.claim(&pool, early("c"), None, until),
        writers.claim(&pool, claim("b"), None, until),
    );
    assert!(ended.is_err(), "{ended:?}");
    assert!(lives.is_ok() && asks.is_ok(), "{lives:?} {asks:?}");
    assert_eq!(*locked(&alone.writes), [2]);
}
