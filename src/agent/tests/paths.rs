//! The two ways to write a pool: the allocator's answers, its silence, and what follows from each.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use futures::future::{BoxFuture, pending};
use kube::ResourceExt;

use super::super::allocator::{Link, LinkError};
use super::super::host::Host;
use super::super::memory::Memory;
use super::super::reads::Reads;
use super::*;
use crate::allocator::wire::{Ask, Look, Reply, Seen, What};
use crate::api::SpiderIPPool;
use crate::api::names::label;
use crate::kube_io::locked;
use crate::kube_io::tasks::Tasks;
use crate::pool_writer::Writers;

/// What the allocator does with the next requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// It carries them out and says so.
    Serves,
    /// It carries them out, so much later, and is there all the while.
    Slow(Duration),
    /// It hears nothing.
    Silent,
    /// It carries them out, so much later, and nobody hears of it.
    CarriesOut(Duration),
    /// Another replica leads.
    NotLeading,
    /// None leads, though all are there.
    NobodyLeads,
    /// It has too much to do.
    Busy,
    /// It is nowhere.
    Away,
}

/// An allocator that writes as the product's own does, and says how often it was asked.
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    mood: Mutex<Mood>,
    connected: AtomicUsize,
    asked: AtomicUsize,
    looked: AtomicUsize,
    writers: Writers<Host>,
    sight: Sight,
}

/// What the leader knows: the world as it is, or as it was.
enum Sight {
    Now(World),
    Then(Vec<SpiderIPPool>),
    /// It never says.
    Unsaid,
}

impl Sight {
    fn look(&self, look: &Look) -> Reply {
        let pools = || match self {
            Self::Now(world) => {
                let all = world.all("spiderippools").into_iter();
                all.map(|pool| serde_json::from_value(pool).unwrap())
                    .collect()
            }
            Self::Then(pools) => pools.clone(),
            Self::Unsaid => vec![],
        };
        let wanted = |pool: &SpiderIPPool| match look {
            Look::Pool(name) => pool.name_any() == name.as_str(),
            Look::Pools(labels) => labels.iter().all(|(k, v)| pool.labels().get(k) == Some(v)),
            Look::Owner(_) => false,
        };
        if let (Look::Owner(of), Self::Now(world)) = (look, self) {
            let found = world.get("replicasets", &of.namespace, &of.name);
            return found.map_or(Reply::Unseen, |mut found| {
                let meta = found["metadata"].take();
                let top = meta["ownerReferences"][0]["uid"]
                    .as_str()
                    .map(str::to_owned);
                let all: Vec<SpiderIPPool> = pools();
                let own = all
                    .into_iter()
                    .filter(|pool| pool.labels().get(label::OWNER_UID) == top.as_ref());
                Reply::Seen(Seen::OwnerAndPools {
                    pools: own.map(Arc::new).collect(),
                    meta: serde_json::from_value(meta).unwrap(),
                })
            });
        }
        let found: Vec<SpiderIPPool> = pools();
        let found = found.into_iter().filter(wanted).map(Arc::new);
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            return Reply::Unseen;
        }
        Reply::Seen(Seen::Pools(found))
    }
}

impl Fake {
    fn new(world: &World, mood: Mood) -> Self {
        Self::seeing(world, mood, Sight::Now(world.clone()))
    }

    fn seeing(world: &World, mood: Mood, sight: Sight) -> Self {
        let client = world.client(&Arc::new(AtomicBool::new(true)));
        let (wakes, _) = tokio::sync::mpsc::unbounded_channel();
        let host = Host {
            reads: Reads::new(client.clone(), ipam::kind::Kinds::default()),
            writes: client,
            memory: Arc::new(Memory::default()),
            wakes,
            metrics: Metrics::register(&mut Registry::default()),
        };
        Self(Arc::new(Inner {
            mood: Mutex::new(mood),
            connected: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            looked: AtomicUsize::new(0),
            writers: Writers::new(host, Tasks::default()),
            sight,
        }))
    }

    /// How often it was asked what it knows.
    fn looked(&self) -> usize {
        self.0.looked.load(Ordering::SeqCst)
    }

    fn turn(&self, mood: Mood) {
        *locked(&self.0.mood) = mood;
    }

    fn mood(&self) -> Mood {
        *locked(&self.0.mood)
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    fn connected(&self) -> usize {
        self.0.connected.load(Ordering::SeqCst)
    }

    async fn carry_out(&self, ask: Ask) -> Reply {
        let deadline = Instant::now() + ask.wait();
        let writers = &self.0.writers;
        match ask.what {
            What::Claim(claim) => {
                let granted = writers.claim(&ask.pool, *claim, None, deadline).await;
                granted.map_or_else(Reply::Failed, Reply::Granted)
            }
            What::Release { release, .. } => {
                let released = writers.release(&ask.pool, release, deadline).await;
                released.map_or_else(Reply::Failed, Reply::Released)
            }
        }
    }

    async fn node(&self, world: &World, dir: &Path) -> Node {
        let allocator: Box<dyn Connect> = Box::new(self.clone());
        Node::start_beside(world, dir, |_| {}, Some(allocator)).await
    }

    /// One that may not write pools itself.
    async fn node_without_writes(&self, world: &World, dir: &Path) -> Node {
        let allocator: Box<dyn Connect> = Box::new(self.clone());
        let set = |settings: &mut Settings| settings.direct_writes = false;
        Node::start_beside(world, dir, set, Some(allocator)).await
    }
}

/// An agent whose leader carries out what it asks.
pub(super) async fn beside_leader(
    world: &World,
    dir: &Path,
    set: impl FnOnce(&mut Settings),
) -> Node {
    let allocator: Box<dyn Connect> = Box::new(Fake::new(world, Mood::Serves));
    Node::start_beside(world, dir, set, Some(allocator)).await
}

impl Connect for Fake {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, LinkError>> {
        Box::pin(async {
            self.0.connected.fetch_add(1, Ordering::SeqCst);
            match self.mood() {
                Mood::Away => Err(LinkError("nobody is there".to_owned())),
                Mood::Silent => pending().await,
                _ => Ok(Arc::new(self.clone()) as Arc<dyn Link>),
            }
        })
    }
}

impl Link for Fake {
    fn look(&self, look: Look) -> BoxFuture<'_, Result<Reply, LinkError>> {
        Box::pin(async move {
            self.0.looked.fetch_add(1, Ordering::SeqCst);
            match (self.mood(), &self.0.sight) {
                (Mood::Silent | Mood::CarriesOut(_), _) | (_, Sight::Unsaid) => pending().await,
                (Mood::Away, _) => Err(LinkError("connection reset".to_owned())),
                (_, sight) => Ok(sight.look(&look)),
            }
        })
    }

    fn ask(&self, ask: Ask) -> BoxFuture<'_, Result<Reply, LinkError>> {
        Box::pin(async move {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            match self.mood() {
                Mood::Serves => Ok(self.carry_out(ask).await),
                Mood::Slow(later) => {
                    tokio::time::sleep(later).await;
                    Ok(self.carry_out(ask).await)
                }
                Mood::NotLeading => {
                    self.turn(Mood::Serves); // the next connection leads to the one that acts
                    Ok(Reply::NotLeading)
                }
                Mood::NobodyLeads => Ok(Reply::NotLeading),
                Mood::Busy => {
                    self.turn(Mood::Serves);
                    Ok(Reply::Busy { after_ms: 3000 })
                }
                Mood::CarriesOut(later) => {
                    let this = self.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(later).await;
                        let ask = Ask {
                            wait_ms: 60_000,
                            ..ask
                        };
                        this.carry_out(ask).await
                    });
                    pending().await
                }
                Mood::Silent => pending().await,
                Mood::Away => Err(LinkError("connection reset".to_owned())),
            }
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            match self.mood() {
                Mood::Silent | Mood::CarriesOut(_) => pending().await,
                Mood::Serves
                | Mood::Slow(_)
                | Mood::NotLeading
                | Mood::NobodyLeads
                | Mood::Busy => true,
                Mood::Away => false,
            }
        })
    }

    fn is_open(&self) -> bool {
        true
    }
}

fn shop() -> (World, TempDir) {
    let world = World::with_shop();
    world.pool("p", "172.18.41.40-172.18.41.49");
    (world, temp())
}

#[tokio::test(start_paused = true)]
async fn claims_and_releases_go_to_the_allocator_and_it_alone_writes() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::Serves);
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.40/24");
    assert_eq!((fake.asked(), world.puts("p")), (1, 1));
    assert_eq!(world.records("p")["172.18.41.40"]["node"], "n1");
    world.terminate("a");
    node.del("a", &uid, "s1").await;
    pass(5).await;
    assert_eq!(world.records("p"), json!({}));
    assert_eq!((fake.asked(), world.puts("p")), (2, 2));
    assert_eq!(fake.connected(), 1, "one connection for all");
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_knows_is_not_asked_of_the_api_server() {
    let (world, dir) = (World::with_shop(), temp());
    let owner = adds::web(&world, &json!({}));
    adds::make_web_pool(&world, &json!(["172.18.41.60-172.18.41.62"]));
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let fake = Fake::new(&world, Mood::Serves);
    let node = fake.node(&world, dir.path()).await;
    pass(5).await;
    let reads = || {
        let pools = "GET /apis/spiderpool.spidernet.io/v2beta1/spiderippools?";
        (world.calls("GET /apis/apps"), world.calls(pools))
    };
    let before = reads();
    let uid = world.pod_of("web-1-x", &subnet, &owner);
    assert_eq!(node.address("web-1-x", &uid, "s1").await, "172.18.41.60/24");
    assert_eq!(reads(), before);
    assert_eq!(fake.looked(), 1, "a workload's pools come with its owner");
    // Without a leader it is, once what it said is old.
    fake.turn(Mood::Away);
    pass(35).await;
    let uid = world.pod_of("web-1-y", &subnet, &owner);
    assert_eq!(node.address("web-1-y", &uid, "s1").await, "172.18.41.61/24");
    assert_ne!(reads(), before);
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_knows_of_a_pod_is_asked_when_it_comes_and_not_when_its_sandbox_calls() {
    let (world, dir) = (World::with_shop(), temp());
    let owner = adds::web(&world, &json!({}));
    adds::make_web_pool(&world, &json!(["172.18.41.60-172.18.41.62"]));
    let subnet = json!({"ipam.spidernet.io/subnet": "{\"ipv4\":[\"net4\"]}"});
    let fake = Fake::new(&world, Mood::Serves);
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod_of("web-1-x", &subnet, &owner);
    pass(5).await;
    assert_eq!((fake.looked(), fake.asked()), (1, 0));
    assert_eq!(node.address("web-1-x", &uid, "s1").await, "172.18.41.60/24");
    assert_eq!((fake.looked(), fake.asked()), (1, 1));
    // The pool is another meanwhile: who finds that out looks again, live.
    let mut next = world.get("spiderippools", "", "auto4-web-eth0-1").unwrap();
    world.delete("spiderippools", "", "auto4-web-eth0-1");
    next["metadata"] =
        json!({"name": "auto4-web-eth0-2", "labels": next["metadata"]["labels"].take()});
    next["status"].take();
    world.put("spiderippools", next);
    let uid = world.pod_of("web-1-y", &subnet, &owner);
    assert_eq!(node.address("web-1-y", &uid, "s1").await, "172.18.41.60/24");
    assert_eq!(world.puts("auto4-web-eth0-2"), 1);
    // A Pod without a network of its own never calls.
    let looked = fake.looked();
    let meta = json!({"name": "web-2-x", "namespace": "shop", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-2", "uid": "r-2", "controller": true}]});
    let spec = json!({"nodeName": "n1", "hostNetwork": true, "containers": []});
    world.put("pods", json!({"metadata": meta, "spec": spec}));
    pass(5).await;
    assert_eq!(fake.looked(), looked);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_behind_refuses_nobody() {
    let (world, dir) = shop();
    let mut full: SpiderIPPool =
        serde_json::from_value(world.get("spiderippools", "", "p").unwrap()).unwrap();
    full.spec.ips = Some(vec![]);
    let fake = Fake::seeing(&world, Mood::Serves, Sight::Then(vec![full]));
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.40/24");
}

#[tokio::test(start_paused = true)]
async fn many_calls_wait_together_for_a_leader_that_does_not_say_what_it_knows() {
    let (world, dir) = shop();
    let fake = Fake::seeing(&world, Mood::Serves, Sight::Unsaid);
    let node = fake.node(&world, dir.path()).await;
    let pods = (0..8).map(|n| format!("a{n}"));
    let pods: Vec<_> = pods
        .map(|name| (world.pod(&name, &uses(&["p"])), name))
        .collect();
    let began = Instant::now();
    join_all(pods.iter().map(|(uid, name)| node.address(name, uid, "s"))).await;
    let took = began.elapsed().as_secs_f64();
    assert!((0.5..1.0).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn after_a_second_of_silence_the_agent_writes_itself_and_later_comes_back() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::Serves);
    let node = fake.node(&world, dir.path()).await;
    let uids: Vec<_> = (0..5)
        .map(|n| world.pod(&format!("a{n}"), &uses(&["p"])))
        .collect();
    node.address("a0", &uids[0], "s").await;
    fake.turn(Mood::Silent);
    let began = Instant::now();
    node.address("a1", &uids[1], "s").await;
    let took = began.elapsed();
    assert!((1.0..2.0).contains(&took.as_secs_f64()), "{took:?}");
    assert_eq!(fake.asked(), 2);
    // No other call waits for it: not during the pause, and not while it is looked for again.
    for (name, uid) in [("a2", &uids[2]), ("a3", &uids[3])] {
        let began = Instant::now();
        node.address(name, uid, "s").await;
        assert!(began.elapsed() < Duration::from_millis(500));
        assert_eq!(fake.asked(), 2);
        pass(5).await;
    }
    assert!(fake.connected() > 1, "it was looked for");
    fake.turn(Mood::Serves);
    pass(60).await;
    node.address("a4", &uids[4], "s").await;
    pass(1).await;
    node.address("a0", &uids[0], "s2").await;
    assert_eq!(fake.asked(), 4, "path 1 again, for both");
    assert_eq!(world.records("p").as_object().unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_slow_and_lives_is_waited_for_and_nobody_writes_beside_it_for_a_while() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::Slow(Duration::from_secs(5)));
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    node.address("a", &uid, "s1").await;
    assert_eq!((fake.asked(), world.puts("p")), (1, 1));
    // But not for ever.
    fake.turn(Mood::Slow(Duration::from_secs(60)));
    let uid = world.pod("b", &uses(&["p"]));
    let began = Instant::now();
    node.address("b", &uid, "s1").await;
    let took = began.elapsed().as_secs_f64();
    assert!((10.0..11.0).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_reply_is_lost_is_found_again_and_makes_no_second_record() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::CarriesOut(Duration::ZERO));
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    assert_eq!(node.address("a", &uid, "s1").await, "172.18.41.40/24");
    pass(10).await;
    let records = world.records("p");
    assert_eq!(records.as_object().unwrap().len(), 1, "{records}");
}

#[tokio::test(start_paused = true)]
async fn two_that_carry_out_one_claim_give_one_address() {
    let (world, dir) = shop();
    // The allocator's write goes out while the agent has begun its own.
    let fake = Fake::new(&world, Mood::CarriesOut(Duration::from_millis(1003)));
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    let address = node.address("a", &uid, "s1").await;
    pass(10).await;
    let records = world.records("p");
    let all: Vec<_> = records.as_object().unwrap().keys().collect();
    assert_eq!(all, [address.trim_end_matches("/24")]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leads_no_longer_is_left_for_the_one_that_does() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::NotLeading);
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    let began = Instant::now();
    node.address("a", &uid, "s1").await;
    assert!(began.elapsed() < Duration::from_millis(500));
    assert_eq!((fake.connected(), fake.asked(), world.puts("p")), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn who_is_told_to_come_later_does_and_does_not_write_himself() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::Busy);
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    let began = Instant::now();
    node.address("a", &uid, "s1").await;
    let took = began.elapsed().as_secs_f64();
    assert!((3.0..6.5).contains(&took), "{took}");
    assert_eq!((fake.asked(), world.puts("p")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_recorded_is_not_said_while_an_abandoned_claim_may_still_arrive() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::CarriesOut(Duration::from_secs(30)));
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    // The runtime gives up before the allocator has answered.
    let call = node.add("a", &uid, "s1");
    let given_up = tokio::time::timeout(Duration::from_millis(900), call).await;
    assert!(given_up.is_err());
    assert_eq!(fake.asked(), 1);
    world.delete("pods", "shop", "a");
    node.del("a", &uid, "s1").await;
    pass(25).await;
    fake.turn(Mood::Serves);
    assert_eq!(world.records("p"), json!({}), "it has not arrived yet");
    pass(60).await;
    // The allocator and the agent may both take it back at one moment; who comes second is refused.
    let puts = world.puts("p");
    assert!(
        (2..=3).contains(&puts),
        "it arrived, and was taken back: {puts} writes"
    );
    assert_eq!(world.records("p"), json!({}));
}

/// The claim went the agent's own way, its release goes by the allocator.
#[tokio::test(start_paused = true)]
async fn nothing_recorded_is_not_said_while_a_write_of_the_agent_s_own_may_still_arrive() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::Away);
    let node = fake.node(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    let late = std::iter::once(Fault::Late(Duration::from_secs(40)));
    world.fail_next(late.chain(std::iter::repeat_n((), 50).map(|()| Fault::LoseRequest)));
    let call = node.add("a", &uid, "s1");
    let given_up = tokio::time::timeout(Duration::from_millis(100), call).await;
    assert!(given_up.is_err());
    world.delete("pods", "shop", "a");
    fake.turn(Mood::Serves);
    node.del("a", &uid, "s1").await;
    pass(30).await;
    assert_eq!(world.records("p"), json!({}), "it has not arrived yet");
    pass(90).await;
    assert_eq!(world.records("p"), json!({}));
    assert!(world.puts("p") >= 2, "it arrived, and was taken back");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_leads_a_call_without_another_way_does_not_ask_without_a_pause() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::NobodyLeads);
    let node = fake.node_without_writes(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    let (answer, ()) = tokio::join!(node.address("a", &uid, "s1"), async {
        pass(10).await;
        let asked = fake.asked();
        assert!((2..=20).contains(&asked), "asked {asked} times in 10 s");
        fake.turn(Mood::Serves);
    });
    assert_eq!(answer, "172.18.41.40/24");
}

#[tokio::test(start_paused = true)]
async fn without_writes_of_its_own_a_call_waits_for_a_leader() {
    let (world, dir) = shop();
    let fake = Fake::new(&world, Mood::Away);
    let node = fake.node_without_writes(&world, dir.path()).await;
    let uid = world.pod("a", &uses(&["p"]));
    let (answer, ()) = tokio::join!(node.address("a", &uid, "s1"), async {
        pass(15).await;
        assert_eq!(world.puts("p"), 0);
        fake.turn(Mood::Serves);
    });
    assert_eq!(answer, "172.18.41.40/24");
    // And where none comes it says so, for the runtime to call again.
    fake.turn(Mood::Away);
    let uid = world.pod("b", &uses(&["p"]));
    let refusal = node.refusal("b", &uid).await;
    assert!(refusal.contains("the allocator"), "{refusal}");
    assert_eq!(world.puts("p"), 1);
}
