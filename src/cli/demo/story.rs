//! The story that the README tells, played and checked.
//!
//! Owns: what is done, in which order, and what has to come of it. Every line that begins with a `$`
//! is a command that does the same on any cluster; here the request is sent without kubectl.
//! Invariant: a step ends when what it promises is there, or the demo ends with what was missing.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, TypeMeta};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::examples::{
    AUTO, DUAL, Example, NARROW, REFUSED, ROUTES, SEVERAL, STATEFUL, STATIC, SUBNETS, list, objects,
};
use super::lab::{Lab, NODES};
use super::screen::Screen;
use super::seen::Seen;

/// Longest wait for anything that is expected.
const EXPECT_MAX: Duration = Duration::from_secs(60);
/// How often the cluster is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What is not as it should be yet.
type Missing = String;

/// The story on its stage.
pub(super) struct Story {
    client: Client,
    screen: Screen,
    told: BTreeSet<(String, i32)>,
}

/// An error with `missing` where `holds` doesn't.
fn ensure(holds: bool, missing: impl FnOnce() -> Missing) -> Result<(), Missing> {
    if holds { Ok(()) } else { Err(missing()) }
}

/// `count` Pods of `app`, all serving.
fn running(seen: &Seen, app: &str, count: usize) -> Result<(), Missing> {
    let all = seen.of_app(app).count();
    let ready = seen
        .of_app(app)
        .filter(|(_, pod)| pod.ready && !pod.going)
        .count();
    ensure((ready, all) == (count, count), || {
        format!("{ready} of {all} run")
    })
}

/// A pool whose name begins so, of this size, with so many addresses in use.
fn pool(seen: &Seen, prefix: &str, used: i64, size: i64) -> Result<(), Missing> {
    let Some((name, pool)) = seen.pool(prefix) else {
        return Err(format!("no pool {prefix}… is there"));
    };
    ensure((pool.used, pool.size) == (used, size), || {
        format!(
            "{} of {} addresses of {name} are in use",
            pool.used, pool.size
        )
    })
}

impl Story {
    /// A story that is played through `client` and shown on `screen`.
    pub(super) fn new(client: Client, screen: Screen) -> Self {
        Self {
            client,
            screen,
            told: BTreeSet::new(),
        }
    }

    /// Plays it all but the end.
    ///
    /// Errors: what was expected and did not happen.
    pub(super) async fn play(&mut self, lab: &Lab) -> anyhow::Result<()> {
        self.screen.print(&format!(
            "A Kubernetes in memory at {}, nodes {}.\nReal are Orbweaver's controller, an agent for \
             each node, and the CNI plugin's code.",
            lab.url,
            NODES.join(" and ")
        ))?;
        self.pool_by_hand().await?;
        self.refusal().await?;
        self.pool_of_its_own().await?;
        self.following().await?;
        self.rolling().await?;
        self.other_shapes().await?;
        self.no_room().await
    }

    async fn pool_by_hand(&mut self) -> anyhow::Result<()> {
        self.screen
            .title("A pool made by hand: four addresses for Pods with the label app=static")?;
        self.apply(&[&STATIC]).await?;
        self.expect("both Pods run with addresses of the pool", |seen| {
            running(seen, "static", 2)?;
            pool(seen, "static-ipv4-ippool", 2, 4)?;
            holders_agree(seen)
        })
        .await
    }

    async fn refusal(&mut self) -> anyhow::Result<()> {
        self.screen
            .title("A Deployment that names this pool and is not the one it is for")?;
        self.apply(&[&REFUSED]).await?;
        let why = "unmatched Pod affinity of IPPool static-ipv4-ippool";
        self.expect("both its Pods are told why they get no address", |seen| {
            let refused = |name: &str| {
                seen.events.iter().any(|event| {
                    let is_it = event.about == format!("pod/{name}");
                    is_it && event.reason == "FailedCreatePodSandBox" && event.message.contains(why)
                })
            };
            let told = seen
                .of_app("wrong")
                .filter(|(name, _)| refused(name))
                .count();
            ensure(told == 2, || format!("{told} of 2 are told"))?;
            let none = seen
                .of_app("wrong")
                .all(|(_, pod)| pod.addresses.is_empty());
            ensure(none, || "one of them has an address".to_owned())?;
            pool(seen, "static-ipv4-ippool", 2, 4)
        })
        .await?;
        self.delete(&[&STATIC, &REFUSED]).await?;
        self.expect("the Pods and the pool are gone", |seen| {
            ensure(seen.pods.is_empty(), || {
                format!("{} Pods are there", seen.pods.len())
            })?;
            ensure(seen.pools.is_empty(), || "the pool is there".to_owned())
        })
        .await
    }

    async fn pool_of_its_own(&mut self) -> anyhow::Result<()> {
        self.screen
            .title("A Deployment annotated with a SpiderSubnet gets a pool of its own")?;
        self.apply(&[&SUBNETS, &AUTO]).await?;
        self.expect("a pool of 3 is made, 2 Pods run", |seen| {
            running(seen, "web", 2)?;
            pool(seen, "auto4-web-eth0", 2, 3)?;
            holders_agree(seen)
        })
        .await
    }

    async fn following(&mut self) -> anyhow::Result<()> {
        self.screen
            .title("The pool follows the Deployment: always one address more than replicas")?;
        for (replicas, size) in [(10, 11), (3, 4)] {
            self.scale("web", replicas).await?;
            let what = format!("{replicas} Pods run, the pool has {size} addresses");
            self.expect(&what, |seen| {
                running(seen, "web", replicas)?;
                pool(seen, "auto4-web-eth0", size - 1, size)?;
                holders_agree(seen)
            })
            .await?;
        }
        Ok(())
    }

    async fn rolling(&mut self) -> anyhow::Result<()> {
        self.screen
            .title("A rolling update: the pool has room for both while every Pod is replaced")?;
        let before: BTreeSet<String> = self.names("web").await?;
        let at = jiff::Timestamp::now().to_string();
        let restart = json!({"spec": {"template": {"metadata": {"annotations": {
            "kubectl.kubernetes.io/restartedAt": at}}}}});
        self.command("kubectl rollout restart deployment web")?;
        self.patch("apps/v1", "Deployment", "web", restart).await?;
        self.expect("3 new Pods run, the pool has 4 addresses again", |seen| {
            running(seen, "web", 3)?;
            let old = seen
                .of_app("web")
                .filter(|(name, _)| before.contains(*name))
                .count();
            ensure(old == 0, || format!("{old} old Pods are there"))?;
            pool(seen, "auto4-web-eth0", 3, 4)?;
            holders_agree(seen)
        })
        .await
    }

    async fn other_shapes(&mut self) -> anyhow::Result<()> {
        self.screen.title(
            "Two families a Pod, a StatefulSet with a pool of a fixed size, a Pod with a route of its own, \
             Pods with two interfaces",
        )?;
        self.apply(&[&DUAL, &STATEFUL, &ROUTES, &SEVERAL]).await?;
        self.expect(
            "7 Pods run, the dual ones with an address of each family, others with one on each interface",
            |seen| {
                running(seen, "dual", 2)?;
                running(seen, "db", 2)?;
                let both = seen.of_app("dual").all(|(_, pod)| {
                    let families: Vec<bool> = pod.addresses.iter().map(IpAddr::is_ipv4).collect();
                    families == [true, false] || families == [false, true]
                });
                ensure(both, || {
                    "a Pod of dual has not one address of each family".to_owned()
                })?;
                pool(seen, "auto4-dual-eth0", 2, 4)?;
                pool(seen, "auto6-dual-eth0", 2, 4)?;
                pool(seen, "auto4-db-eth0", 2, 4)?;
                running(seen, "routed", 1)?;
                pool(seen, "auto4-routed-eth0", 1, 2)?;
                running(seen, "twoface", 2)?;
                pool(seen, "auto4-twoface-eth0", 2, 3)?;
                pool(seen, "auto4-twoface-net1", 2, 3)?;
                holders_agree(seen)
            },
        )
        .await
    }

    async fn no_room(&mut self) -> anyhow::Result<()> {
        self.screen
            .title("A subnet of four addresses, and a Deployment that needs seven")?;
        self.apply(&[&NARROW]).await?;
        self.expect("2 Pods run, the pool has 3 addresses", |seen| {
            running(seen, "shop", 2)?;
            pool(seen, "auto4-shop-eth0", 2, 3)
        })
        .await?;
        self.scale("shop", 6).await?;
        self.expect(
            "4 Pods run, 2 wait, the Deployment is told what is missing",
            |seen| {
                pool(seen, "auto4-shop-eth0", 4, 4)?;
                let ready = seen.of_app("shop").filter(|(_, pod)| pod.ready).count();
                let all = seen.of_app("shop").count();
                ensure((ready, all) == (4, 6), || format!("{ready} of {all} run"))?;
                let mut told = seen.events.iter().filter(|e| e.about == "deployment/shop");
                let told = told.any(|event| {
                    event.reason == "InsufficientAddresses" && event.message.contains("3 missing")
                });
                ensure(told, || "the Deployment is not told".to_owned())?;
                holders_agree(seen)
            },
        )
        .await?;
        let wider = json!({"spec": {"ips": ["172.18.43.10-172.18.43.19"]}});
        self.command(&format!(
            "kubectl patch spidersubnet narrow --type=merge --patch '{wider}'"
        ))?;
        let version = "spiderpool.spidernet.io/v2beta1";
        self.patch(version, "SpiderSubnet", "narrow", wider).await?;
        self.expect("all 6 Pods run, the pool has 7 addresses", |seen| {
            running(seen, "shop", 6)?;
            pool(seen, "auto4-shop-eth0", 6, 7)?;
            holders_agree(seen)
        })
        .await
    }

    /// Takes everything away and says how it was.
    ///
    /// Errors: something stays.
    pub(super) async fn end(&mut self, start: Instant) -> anyhow::Result<()> {
        self.screen
            .title("The pools go with their workloads, and every address returns")?;
        self.delete(&[&AUTO, &DUAL, &STATEFUL, &ROUTES, &SEVERAL])
            .await?;
        self.delete_one("apps/v1", "Deployment", "shop").await?;
        self.expect("no Pod and no pool is left, no address in use", |seen| {
            ensure(seen.pods.is_empty(), || {
                format!("{} Pods are there", seen.pods.len())
            })?;
            ensure(seen.pools.is_empty(), || {
                format!("{} pools are there", seen.pools.len())
            })?;
            let used: i64 = seen.subnets.values().map(|(used, _)| used).sum();
            ensure(used == 0, || format!("{used} addresses are in use"))
        })
        .await?;
        self.screen.print(&format!(
            "\nDone in {:.0} s.",
            start.elapsed().as_secs_f32()
        ))?;
        Ok(())
    }

    /// Stays up until the demo is interrupted.
    pub(super) async fn stay(&mut self, lab: &Lab) -> anyhow::Result<()> {
        self.screen
            .title("It stays up until you press Ctrl-C. Look in:")?;
        self.screen.print(&format!(
            "kubectl --server {0} get spiderippool,pods -o wide\norbweaver ipam show --server {0}",
            lab.url
        ))?;
        loop {
            self.look().await?;
            sleep(LOOK).await;
        }
    }

    /// Waits until `holds` is content, telling Events and keeping the table current meanwhile.
    async fn expect(
        &mut self,
        what: &str,
        holds: impl Fn(&Seen) -> Result<(), Missing>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let seen = self.look().await?;
            match holds(&seen) {
                Ok(()) => {
                    self.screen.line(&format!("✓ {what}"))?;
                    self.screen.keep(&seen.table())?;
                    return Ok(());
                }
                Err(missing) if start.elapsed() > EXPECT_MAX => {
                    bail!(
                        "expected within {} s: {what}; but {missing}",
                        EXPECT_MAX.as_secs()
                    );
                }
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<Seen> {
        let seen = Seen::now(&self.client)
            .await
            .context("the cluster could not be looked at")?;
        for event in &seen.events {
            if self.told.insert(event.id.clone()) {
                let text = event
                    .message
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ");
                let line = format!(
                    "{} {} {}: {text}",
                    event.severity, event.reason, event.about
                );
                self.screen.line(&line)?;
            }
        }
        self.screen.show(seen.table())?;
        Ok(seen)
    }

    async fn names(&mut self, app: &str) -> anyhow::Result<BTreeSet<String>> {
        let seen = self.look().await?;
        Ok(seen.of_app(app).map(|(name, _)| name.to_owned()).collect())
    }

    fn command(&mut self, words: &str) -> io::Result<()> {
        self.screen.line(&format!("$ {words}"))
    }

    async fn apply(&mut self, files: &[&Example]) -> anyhow::Result<()> {
        self.command(&format!("kubectl apply{}", list(files)))?;
        for object in objects(files)? {
            let params = PatchParams::apply("orbweaver-demo").force();
            let (api, name) = (self.api_of(&object)?, object.name_any());
            let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
            applied.with_context(|| format!("{name} could not be applied"))?;
        }
        Ok(())
    }

    async fn delete(&mut self, files: &[&Example]) -> anyhow::Result<()> {
        self.command(&format!("kubectl delete{}", list(files)))?;
        for object in objects(files)? {
            let (api, name) = (self.api_of(&object)?, object.name_any());
            let deleted = api.delete(&name, &DeleteParams::background()).await;
            deleted.with_context(|| format!("{name} could not be deleted"))?;
        }
        Ok(())
    }

    async fn delete_one(&mut self, version: &str, kind: &str, name: &str) -> anyhow::Result<()> {
        self.command(&format!("kubectl delete {} {name}", kind.to_lowercase()))?;
        let deleted = self
            .api(version, kind)
            .delete(name, &DeleteParams::background())
            .await;
        deleted.with_context(|| format!("{name} could not be deleted"))?;
        Ok(())
    }

    async fn scale(&mut self, name: &str, replicas: usize) -> anyhow::Result<()> {
        self.command(&format!(
            "kubectl scale deployment {name} --replicas={replicas}"
        ))?;
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let api: Api<k8s_openapi::api::apps::v1::Deployment> =
            Api::default_namespaced(self.client.clone());
        let scaled = api.patch_scale(name, &PatchParams::default(), &patch).await;
        scaled.with_context(|| format!("{name} could not be scaled"))?;
        Ok(())
    }

    async fn patch(
        &self,
        version: &str,
        kind: &str,
        name: &str,
        body: Value,
    ) -> anyhow::Result<()> {
        let patch = Patch::Merge(body);
        let api = self.api(version, kind);
        let patched = api.patch(name, &PatchParams::default(), &patch).await;
        patched.with_context(|| format!("{name} could not be patched"))?;
        Ok(())
    }

    fn api_of(&self, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
        let types = object
            .types
            .as_ref()
            .ok_or_else(|| anyhow!("an example without a kind"))?;
        let TypeMeta { api_version, kind } = types;
        Ok(self.api(api_version, kind))
    }

    fn api(&self, version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        // Ours are cluster-wide, workloads are in a namespace.
        if kind.starts_with("Spider") {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::default_namespaced_with(self.client.clone(), &resource)
        }
    }
}

/// Every Pod that serves holds its addresses in the pools, and no address is held twice.
fn holders_agree(seen: &Seen) -> Result<(), Missing> {
    let mut held = BTreeSet::new();
    for (pool, all) in &seen.pools {
        for ip in all.holders.keys() {
            ensure(held.insert(*ip), || {
                format!("{ip} is held twice, once in {pool}")
            })?;
        }
    }
    let mut used = BTreeSet::new();
    for (name, pod) in seen.pods.iter().filter(|(_, pod)| pod.ready) {
        for ip in &pod.addresses {
            ensure(used.insert(*ip), || {
                format!("{ip} of {name} is another Pod's too")
            })?;
            ensure(held.contains(ip), || {
                format!("{ip} of {name} is in no pool's record")
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_named_with_what_is_there_instead() {
        let server = kubesim::Server::new(1);
        super::super::lab::define(&server.client("test"))
            .await
            .unwrap();
        let mut story = Story::new(server.client("test"), Screen::new(Instant::now()));
        let never = |seen: &Seen| running(seen, "web", 2);
        let error = story
            .expect("2 Pods run", never)
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(error, "expected within 60 s: 2 Pods run; but 0 of 0 run");
    }
}
