//! The take-over of an installation of the original, and the way back: `docs/takeover.md` executed,
//! command by command, on a cluster as the original left it.
//!
//! Its objects are in the state in which a crash leaves them, too: a resize that got as far as the
//! ledger, a record whose Pod is gone, a Pod without its endpoint, objects that wait for a finalizer,
//! a ledger that is no JSON. Its webhooks refuse every write, and its hook would delete everything.
//! Through all of it every Pod runs on with the addresses it has.

mod original;
mod page;
mod served;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;

use crate::product::books::Books;
use crate::product::build::{Profile, Programs};
use crate::product::objects::{Pod, Pool, names};
use crate::product::{self, NAMESPACE};
use crate::progress::say;
use crate::wait::eventually;
use crate::workload::{SETTLE, delete, gone, leaving_nothing, running, scale};
use original::{APPS, CONFIG, Original, RELEASE};
use page::Page;

/// The kinds whose objects hold addresses.
const HOLDING: &str = "spidersubnets,spiderippools,spiderendpoints";
/// A pool that is no workload's, on its way out.
const LEAVING: &str = "hand-made";
/// An endpoint on its way out, of a Pod that is gone.
const STUCK: &str = "cron-29922823-6sjhb";
/// Pools that outlive their workload, and those that are nobody's.
const STAYING: [&str; 3] = [
    "auto4-db-eth0-e059e",
    "auto6-db-eth0-99136",
    "static-ipv4-ippool",
];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "takeover", |namespace| {
        let kubectl = cluster.kubectl();
        let programs = Programs::build(cluster.paths(), Profile::Checked)?;
        product::uninstall(cluster)?;
        let original = Original::of(cluster, namespace)?;
        original.apply_definitions()?;
        let pods = original.run_workloads()?;
        original.store_objects(&pods, |objects| spoil(objects, &pods))?;
        for what in [["spiderippool", LEAVING], ["spiderendpoint", STUCK]] {
            let args = ["delete", what[0], what[1], "--wait=false"];
            kubectl.run(&[&args[..], &["--namespace", namespace]].concat())?;
        }
        original.install_release()?;
        let mut stage = Stage {
            cluster,
            kubectl,
            namespace,
            page: Page::open(cluster, &programs.orbweaver, &values(cluster)?)?,
            pods,
        };
        stage.looks()?;
        stage.takes_the_original_away()?;
        stage.is_installed()?;
        stage.is_mended()?;
        stage.works()?;
        stage.gives_back()?;
        original.apply_definitions()?;
        let Stage { page, .. } = stage;
        page.ensure_ran()?;
        product::apply_crds(cluster)?;
        product::install(cluster)?;
        removed(kubectl, namespace)
    })
}

/// The values that the harness installs with, and a controller that looks for what nobody has often.
fn values(cluster: &Cluster) -> Result<Value> {
    let file = product::values_file(cluster);
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let mut values: Value = serde_json::from_str(&text).context(file)?;
    values["ipam"]["gc"] = json!({ "gcAll": { "intervalInSecond": 1 } });
    Ok(values)
}

/// What crashes of the original leave. Of `cron` there is nothing but a record in each pool, and the
/// endpoint that says on which node its Pod was, which is gone, too.
fn spoil(objects: &mut Vec<Value>, pods: &[Pod]) -> Result<()> {
    let without = pods.iter().find(|pod| pod.name.starts_with("web-"));
    let without = without.context("no Pod of web")?.name.as_str();
    objects.retain(|it| it["kind"] != "SpiderEndpoint" || it["metadata"]["name"] != without);
    for object in objects {
        if object["status"]["ownerControllerName"] == "cron" {
            object["status"]["current"]["node"] = json!("gone");
        }
        match object["metadata"]["name"].as_str() {
            Some("auto4-web-eth0-d5597") => {
                object["spec"]["ips"] = json!(["172.18.41.44-172.18.41.46"]);
                object["status"]["totalIPCount"] = json!(3);
            }
            Some("net6") => {
                let ledger = object["status"]["controlledIPPools"]
                    .as_str()
                    .unwrap_or_default();
                let half = ledger.get(..ledger.len() / 2).context("an empty ledger")?;
                object["status"]["controlledIPPools"] = json!(half);
            }
            _ => {}
        }
    }
    Ok(())
}

struct Stage<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
    page: Page<'a>,
    /// The Pods as they ran before.
    pods: Vec<Pod>,
}

impl Stage<'_> {
    /// Step 1: a copy, and what is wrong is told.
    fn looks(&mut self) -> Result<()> {
        let said = self.page.run("kubectl get spidersubnets,")?;
        said[0].ensure_code(0)?;
        let copy = self.page.file("before.yaml")?;
        ensure!(
            copy.contains("auto6-web-eth0-d5597"),
            "the copy lacks a pool"
        );
        let checked = said[1].ensure_code(2)?;
        for part in [
            "status.controlledIPPools",
            "--repair forgets",
            "auto4-cron-eth0-476d9",
        ] {
            ensure!(
                checked.text.contains(part),
                "nothing of {part}: {}",
                checked.text
            );
        }
        let planned = said[2].ensure_code(2)?;
        ensure!(planned.text.contains("net6"), "{}", planned.text);
        Ok(())
    }

    /// Step 2: its programs and webhooks go, and nothing else.
    fn takes_the_original_away(&mut self) -> Result<()> {
        let before = self.uids()?;
        let label = ["label", "spiderippool", LEAVING, "looked-at=yes"];
        let refused = self.kubectl.run(&label);
        let refused = refused
            .err()
            .context("the original's webhooks refuse nothing")?;
        ensure!(
            format!("{refused:#}").contains("failed calling webhook"),
            "{refused:#}"
        );
        self.page.succeeds("helm uninstall spiderpool ")?;
        self.kubectl.run(&label)?;
        let after = self.uids()?;
        ensure!(before == after, "there was {before:?} and is {after:?}");
        let args = ["list", "--namespace", NAMESPACE, "--short", "--all"];
        let releases = self.cluster.helm().run(&args)?;
        let left = releases.lines().any(|release| release == RELEASE);
        ensure!(!left, "helm still knows {RELEASE}");
        self.run_on()
    }

    /// Steps 3 and 4, beside a `ConfigMap` that the original's manifests left.
    fn is_installed(&mut self) -> Result<()> {
        self.page.succeeds("orbweaver crds ")?;
        let config = ["create", "configmap", CONFIG, "--namespace", NAMESPACE];
        self.kubectl.run(&config)?;
        let said = self.page.run("helm install orbweaver ")?;
        let refused = said.first().context("nothing was run")?.ensure_code(1)?;
        ensure!(
            refused.text.contains("invalid ownership metadata") && refused.text.contains(CONFIG),
            "{}",
            refused.text
        );
        delete(
            self.kubectl,
            &["configmap", CONFIG, "--namespace", NAMESPACE],
        )?;
        self.page.one(refused.line.clone())?.ensure_code(0)?;
        product::ensure_working(self.cluster)?;
        say("one family is taken over, the other waits for its ledger");
        eventually(2 * SETTLE, "what can be read is as it should be", || {
            let books = Books::read(self.kubectl);
            let waits = books.err().context("the ledger can be read")?;
            ensure!(format!("{waits:#}").contains("net6"), "{waits:#}");
            let pools = Pool::all(self.kubectl)?;
            pool_has(&pools, "auto4-web-eth0-d5597", Some(5))?;
            pool_has(&pools, "auto4-cron-eth0-476d9", None)?;
            let waits = pools
                .iter()
                .find(|pool| pool.name == "auto6-cron-eth0-476d9");
            let waits = waits.context("no pool of the subnet that can't be read")?;
            ensure!(waits.records.is_empty(), "{:?} is recorded", waits.records);
            pool_has(&pools, LEAVING, None)?;
            let served = pools.iter().find(|pool| pool.name == STAYING[2]);
            let ready = served.context("no pool")?.condition("Ready")?;
            ensure!(ready.status == "True", "{ready:?}");
            Ok(())
        })?;
        self.run_on()
    }

    /// Step 5: the ledger is mended, and everything agrees.
    fn is_mended(&mut self) -> Result<()> {
        let said = self.page.run("orbweaver ipam check --repair")?;
        let [shown, done, checked, told] = said.as_slice() else {
            anyhow::bail!("step 5 has {} commands", said.len());
        };
        let shown = shown.ensure_code(2)?;
        ensure!(shown.text.contains("net6"), "{}", shown.text);
        done.ensure_code(0)?;
        checked.ensure_code(0)?;
        let told = told.ensure_code(0)?;
        ensure!(told.text.contains("net6"), "{}", told.text);
        eventually(SETTLE, "everything is taken over", || {
            Books::read(self.kubectl)?.ensure_agree()?;
            pool_has(&Pool::all(self.kubectl)?, "auto6-cron-eth0-476d9", None)?;
            let endpoints = names(self.kubectl, "spiderendpoints")?;
            let stuck = endpoints.iter().any(|name| name.ends_with(STUCK));
            ensure!(!stuck, "the endpoint of a Pod that is gone is there");
            Ok(())
        })?;
        self.run_on()
    }

    /// Workloads that the original served are served as any other.
    fn works(&self) -> Result<()> {
        say("a Deployment scaled, a StatefulSet's Pod and one of a pool made by hand deleted");
        scale(self.kubectl, self.namespace, "web", 4)?;
        let web = running(self.kubectl, self.namespace, "web", 4)?;
        let had = self.of("web");
        ensure!(
            had.iter().all(|pod| web.contains(pod)),
            "{web:?} lacks one of {had:?}"
        );
        for app in ["db", "static"] {
            let pods = self.of(app);
            let pod = pods.first().context("no Pod")?;
            let args = ["delete", "pod", &pod.name, "--namespace", self.namespace];
            self.kubectl.run(&args)?;
            let now = running(self.kubectl, self.namespace, app, pods.len())?;
            ensure!(
                now.iter().all(|one| one.uid != pod.uid),
                "{} is there",
                pod.name
            );
            let kept = now.iter().find(|one| one.name == pod.name);
            let same = kept.is_none_or(|kept| kept.ips == pod.ips);
            ensure!(same, "{pod:?} came back as {kept:?}");
            ensure!(
                kept.is_some() == (app == "db"),
                "{} did not come back",
                pod.name
            );
        }
        eventually(SETTLE, "the books agree", || {
            Books::read(self.kubectl)?.ensure_agree()
        })
    }

    /// The way back: the objects are as the original's rules want them, with every record.
    fn gives_back(&mut self) -> Result<()> {
        let before = held(&Pool::all(self.kubectl)?);
        self.page.succeeds("helm uninstall orbweaver ")?;
        let said = self.page.run("orbweaver ipam give-back")?;
        let [shown, done] = said.as_slice() else {
            anyhow::bail!("going back has {} commands", said.len());
        };
        shown.ensure_code(2)?;
        done.ensure_code(0)?;
        let after = held(&Pool::all(self.kubectl)?);
        ensure!(before == after, "there was {before:?} and is {after:?}");
        for object in self.kubectl.list(&[HOLDING, "--all-namespaces"])? {
            let name = &object["metadata"]["name"];
            is_the_originals(&object).with_context(|| format!("{} {name}", object["kind"]))?;
        }
        Ok(())
    }

    /// Errors: a Pod is not as it was before.
    fn run_on(&self) -> Result<()> {
        for (app, count) in APPS {
            let now = running(self.kubectl, self.namespace, app, count)?;
            let had = self.of(app);
            ensure!(had == now, "Pods of {app} were {had:?} and are {now:?}");
        }
        Ok(())
    }

    fn of(&self, app: &str) -> Vec<Pod> {
        let prefix = format!("{app}-");
        let of_app = |pod: &&Pod| pod.name.starts_with(&prefix);
        self.pods.iter().filter(of_app).cloned().collect()
    }

    /// What holds addresses, with its uid and whether it is on its way out.
    fn uids(&self) -> Result<Vec<Value>> {
        let objects = self.kubectl.list(&[HOLDING, "--all-namespaces"])?;
        let told = objects.into_iter().map(|object| {
            let metadata = &object["metadata"];
            json!([
                metadata["name"],
                metadata["uid"],
                metadata["deletionTimestamp"]
            ])
        });
        Ok(told.collect())
    }
}

/// Errors: the pool has another number of addresses; `None`: there is one.
fn pool_has(pools: &[Pool], name: &str, addresses: Option<usize>) -> Result<()> {
    let pool = pools.iter().find(|pool| pool.name == name);
    let size = pool.map(|pool| pool.addresses.len());
    ensure!(size == addresses, "pool {name} has {size:?} addresses");
    Ok(())
}

/// Who has which address.
fn held(pools: &[Pool]) -> BTreeMap<IpAddr, String> {
    let records = pools.iter().flat_map(|pool| &pool.records);
    records
        .map(|(ip, record)| (*ip, record.uid.clone()))
        .collect()
}

/// What the original insists on, as an outsider states it.
fn is_the_originals(object: &Value) -> Result<()> {
    let finalizers = &object["metadata"]["finalizers"];
    ensure!(
        *finalizers == json!(["spiderpool.spidernet.io"]),
        "finalizers {finalizers}"
    );
    let annotations = object["metadata"]["annotations"].as_object();
    let mut keys = annotations.into_iter().flat_map(|all| all.keys());
    let ours = keys.find(|key| key.starts_with("orbweaver.io/"));
    ensure!(ours.is_none(), "annotation {ours:?}");
    let status = &object["status"];
    for field in ["conditions", "ledgerEpoch"] {
        ensure!(status[field].is_null(), "{field} is {}", status[field]);
    }
    let records: Value = match status["allocatedIPs"].as_str() {
        Some(text) => serde_json::from_str(text)?,
        None => json!({}),
    };
    for (address, record) in records.as_object().into_iter().flatten() {
        let keys = record.as_object().map(|it| it.keys().map(String::as_str));
        let keys: Vec<&str> = keys.into_iter().flatten().collect();
        ensure!(keys == ["pod", "podUid"], "{address} has keys {keys:?}");
    }
    let owned = &object["metadata"]["labels"]["ipam.spidernet.io/owner-application-uid"];
    if owned.is_string() {
        let selector = object["spec"]["podAffinity"]["matchLabels"].as_object();
        let keys: Vec<&String> = selector.into_iter().flat_map(|it| it.keys()).collect();
        let five = keys
            .iter()
            .all(|key| key.starts_with("ipam.spidernet.io/app-"));
        ensure!(five && keys.len() == 5, "its selector has {keys:?}");
    }
    Ok(())
}

/// What the scenario made goes, with the product in charge again.
fn removed(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    eventually(SETTLE, "taken over again, the books agree", || {
        Books::read(kubectl)?.ensure_agree()
    })?;
    let all = "deployments,statefulsets,daemonsets,replicasets,jobs";
    delete(kubectl, &[all, "--all", "--namespace", namespace])?;
    for (app, _) in APPS {
        gone(kubectl, namespace, app)?;
    }
    eventually(SETTLE, "pools are gone or empty", || {
        let pools = Pool::all(kubectl)?;
        let left: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        ensure!(left == STAYING, "there are {left:?}");
        ensure!(held(&pools).is_empty(), "addresses are held");
        Ok(())
    })?;
    delete(kubectl, &[&["spiderippool"][..], &STAYING].concat())?;
    delete(kubectl, &["spidersubnet", "net4", "net6"])?;
    delete(kubectl, &["spiderreservedip", "keep"])
}
