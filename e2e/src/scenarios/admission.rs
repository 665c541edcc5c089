//! Admission on a real API server: what `kubectl` prints, what is filled in, what happens while
//! certificates change, while no controller runs, and once the chart is gone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::kubectl::Kubectl;
use crate::product::objects::{Pool, names};
use crate::product::{self, CONTROLLERS};
use crate::progress::say;
use crate::wait::{ensure_going_on, eventually};
use crate::workload::{
    Deployment, SETTLE, delete, leaving_nothing, pool, retire, running, scale, subnet,
    underlay_object,
};

const KINDS: &str = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
const CONFIGURATION: &str = "orbweaver-controller";
const SECRET: &str = "orbweaver-controller-tls";
/// So short-lived that the authority is replaced while the scenario looks on.
const SHORT: &str = "spiderpoolController.tls.auto.caExpiration=90s,\
                     spiderpoolController.tls.auto.certExpiration=30s";
/// Longest wait for a new authority: two thirds of its life, the overlap, and some patience.
const ROTATION: Duration = Duration::from_mins(3);
/// How many requests must pass once the authority is another.
const AFTERWARDS: u32 = 20;
/// The API server asks, and stores nothing.
const DRY: [&str; 1] = ["--dry-run=server"];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "admission", |namespace| {
        let stage = Stage {
            cluster,
            kubectl: cluster.kubectl(),
            namespace,
        };
        stage.with_policy("Ignore")?;
        subnet(stage.kubectl, "net", &["172.18.41.40-172.18.41.79"])?;
        stage.defaults_appear()?;
        stage.without_a_controller_ignore_stores_and_nobody_is_served()?;
        stage.with_policy("Fail")?;
        stage.mistakes_are_refused_in_known_words()?;
        stage.what_is_in_use_is_not_deleted()?;
        stage.certificates_change_and_nobody_notices()?;
        stage.without_a_controller_fail_refuses_and_pods_start()?;
        stage.remove()?;
        stage.uninstalling_leaves_nothing_that_blocks()
    })
}

struct Stage<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
}

impl Stage<'_> {
    /// Turns everything on, and waits until the API server asks with this failure policy.
    fn with_policy(&self, policy: &str) -> Result<()> {
        let flags = format!(
            "spiderpoolController.webhook.enabled=true,\
             spiderpoolController.webhook.failurePolicy={policy},\
             spiderpoolController.enableValidatingResourcesDeletedWebhook=true,{SHORT}"
        );
        product::upgrade(self.cluster, &["--reuse-values", "--set", &flags])?;
        eventually(SETTLE, &format!("webhooks with policy {policy}"), || {
            let found = self.kubectl.list(&[KINDS])?;
            let ours = found
                .iter()
                .filter(|one| one.pointer("/metadata/name") == Some(&json!(CONFIGURATION)));
            let asked = ours.clone().all(|one| {
                let hooks = one["webhooks"].as_array();
                hooks.is_some_and(|all| all.iter().all(|hook| hook["failurePolicy"] == policy))
            });
            ensure!(ours.count() == 2 && asked, "{found:?}");
            // Served and trusted: a mistake is refused.
            let refused = self.refused("probe", &json!({ "ips": ["172.18.40.1"] }), &DRY)?;
            ensure!(refused.contains("denied the request"), "{refused}");
            Ok(())
        })
    }

    fn defaults_appear(&self) -> Result<()> {
        let bare = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": { "name": "a" },
            "spec": {
                "subnet": "172.18.41.0/24",
                "ips": ["172.18.41.42-172.18.41.43", "172.18.41.40-172.18.41.41"],
            },
        });
        let made = self.kubectl.create(&bare.to_string(), &["-o", "json"])?;
        let made: Value = serde_json::from_str(&made).context("kubectl wrote no JSON")?;
        let spec = json!({
            "ipVersion": 4, "subnet": "172.18.41.0/24", "gateway": "172.18.41.1",
            "ips": ["172.18.41.40-172.18.41.43"], "default": false, "disable": false,
        });
        ensure!(made["spec"] == spec, "it was filled in as {}", made["spec"]);
        let label = made.pointer("/metadata/labels/ipam.spidernet.io~1ippool-cidr");
        ensure!(
            label == Some(&json!("172-18-41-0-24")),
            "its label is {label:?}"
        );
        Ok(())
    }

    fn mistakes_are_refused_in_known_words(&self) -> Result<()> {
        let hook = "admission webhook \"spiderippool.spiderpool.spidernet.io\" denied the request: \
                    SpiderIPPool.spiderpool.spidernet.io \"b\" is invalid: ";
        for (spec, wanted) in [
            (
                json!({ "ips": ["172.18.41.60-172.18.41.50"] }),
                "spec.ips[0]: Invalid value: \"172.18.41.60-172.18.41.50\": invalid IP range format in IPv4 '172.18.41.60-172.18.41.50'",
            ),
            (
                json!({ "ips": ["172.18.41.43-172.18.41.50"] }),
                "spec.ips: Forbidden: overlap with IPPool a in IP ranges [172.18.41.43], total IP addresses of an IPPool are jointly determined by 'spec.ips' and 'spec.excludeIPs'",
            ),
            (
                json!({ "ips": ["172.18.41.79-172.18.41.80"] }),
                "spec.ips: Forbidden: add some IP ranges [172.18.41.80] that are not contained in controller Subnet net",
            ),
            (
                json!({ "gateway": "172.18.40.1" }),
                "spec.gateway: Invalid value: \"172.18.40.1\": not pertains to the 'spec.subnet' 172.18.41.0/24 of IPPool",
            ),
        ] {
            let told = self.refused("b", &spec, &[])?;
            ensure!(told.contains(&format!("{hook}{wanted}")), "{spec}: {told}");
        }
        let moved = ["patch", "spiderippool", "a", "--type=merge", "--patch"];
        let told =
            self.fails(&[&moved[..], &[r#"{"spec":{"subnet":"172.18.40.0/24"}}"#]].concat())?;
        ensure!(
            told.contains("spec.subnet") && told.contains("is not changeable"),
            "{told}"
        );
        Ok(())
    }

    fn what_is_in_use_is_not_deleted(&self) -> Result<()> {
        self.web("a")?;
        for (kind, name, wanted) in [
            (
                "spiderippool",
                "a",
                "cannot delete an IPPool with allocated IPs(1)",
            ),
            (
                "spidersubnet",
                "net",
                "cannot delete an Subnet with allocated IPs(4)",
            ),
        ] {
            let told = self.fails(&["delete", kind, name, "--wait=false"])?;
            ensure!(
                told.contains("(Forbidden)") && told.contains(wanted),
                "{told}"
            );
        }
        let shrunk = r#"{"spec":{"ips":[]}}"#;
        let told = self.fails(&[
            "patch",
            "spiderippool",
            "a",
            "--type=merge",
            "--patch",
            shrunk,
        ])?;
        ensure!(
            told.contains("that is being used by Pod admission/web-"),
            "{told}"
        );
        Ok(())
    }

    /// Makes and deletes an object all the time until the authority is another, the former one is
    /// still trusted, and more have passed: every single request does, though none would without a
    /// webhook (`Fail`).
    fn certificates_change_and_nobody_notices(&self) -> Result<()> {
        let (before, end) = (self.authority()?.0, Instant::now() + ROTATION);
        let (mut passed, mut after) = (0, 0);
        while after < AFTERWARDS {
            ensure_going_on()?;
            let object = json!({
                "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderReservedIP",
                "metadata": { "name": "spin" }, "spec": { "ips": ["172.18.41.9"] },
            });
            let made = self.kubectl.create(&object.to_string(), &[]);
            made.with_context(|| format!("request {passed} while certificates change"))?;
            self.kubectl.run(&["delete", "spiderreservedip", "spin"])?;
            passed += 1;
            let (now, old) = self.authority()?;
            if now != before && old.is_some() {
                after += 1;
            }
            let in_time = Instant::now() < end;
            ensure!(in_time, "no other authority after {passed} requests");
        }
        ensure!(passed > 2 * AFTERWARDS, "only {passed} requests");
        say(format_args!(
            "{passed} requests passed while certificates changed"
        ));
        self.bundle_has_both()
    }

    /// The authority that signs, and the one before it.
    fn authority(&self) -> Result<(Value, Option<Value>)> {
        let secret = ["get", "secret", SECRET, "--namespace", product::NAMESPACE];
        let secret = self.kubectl.json(&secret)?;
        let key = |name: &str| secret.pointer(&format!("/data/{name}")).cloned();
        Ok((key("ca.crt").context("no authority")?, key("old-ca.crt")))
    }

    fn bundle_has_both(&self) -> Result<()> {
        let get = ["get", "validatingwebhookconfiguration", CONFIGURATION];
        let found = self.kubectl.json(&get)?;
        let bundle = found.pointer("/webhooks/0/clientConfig/caBundle");
        let bundle = bundle.and_then(Value::as_str).unwrap_or_default();
        let one = self.authority()?.0;
        let one = one.as_str().unwrap_or_default().len();
        ensure!(bundle.len() > one * 3 / 2, "the bundle has one authority");
        Ok(())
    }

    /// With `Fail` and no controller, specs wait; what the product itself needs goes on.
    fn without_a_controller_fail_refuses_and_pods_start(&self) -> Result<()> {
        product::scale_controllers(self.cluster, 0)?;
        let told = self.refused("b", &json!({ "ips": ["172.18.41.50"] }), &[])?;
        ensure!(told.contains("failed calling webhook"), "{told}");
        let label = ["label", "spiderippool", "a", "looked-at=yes"];
        self.kubectl.run(&label)?;
        scale(self.kubectl, self.namespace, "web", 2)?;
        running(self.kubectl, self.namespace, "web", 2)?;
        product::scale_controllers(self.cluster, CONTROLLERS)
    }

    /// With `Ignore` and no controller, an overlap is stored; no Pod ever gets an address of it.
    fn without_a_controller_ignore_stores_and_nobody_is_served(&self) -> Result<()> {
        product::scale_controllers(self.cluster, 0)?;
        pool(
            self.kubectl,
            "late",
            &json!({ "ips": ["172.18.41.40-172.18.41.43"] }),
        )?;
        product::scale_controllers(self.cluster, CONTROLLERS)?;
        eventually(SETTLE, "pool late conflicts", || {
            let pools = Pool::all(self.kubectl)?;
            let late = pools.iter().find(|pool| pool.name == "late");
            let late = late.context("it is gone")?;
            let mut said = late.conditions.iter();
            let conflicts = said.any(|one| one.kind == "Conflicting" && one.status == "True");
            ensure!(conflicts, "it says {:?}", late.conditions);
            ensure!(late.records.is_empty(), "it serves");
            Ok(())
        })?;
        delete(self.kubectl, &["spiderippool", "late"])
    }

    /// What is in use no longer is deleted as anything else.
    fn remove(&self) -> Result<()> {
        retire(self.kubectl, self.namespace, "web")?;
        for what in [["spiderippool", "a"], ["spidersubnet", "net"]] {
            eventually(SETTLE, &format!("{} is deleted", what[0]), || {
                delete(self.kubectl, &what)
            })?;
        }
        Ok(())
    }

    fn uninstalling_leaves_nothing_that_blocks(&self) -> Result<()> {
        product::uninstall(self.cluster)?;
        eventually(SETTLE, "no webhook and no policy is left", || {
            let kinds = format!("{KINDS},validatingadmissionpolicies,secrets");
            let mut left = names(self.kubectl, &kinds)?;
            left.retain(|name| name.contains("orbweaver") && !name.contains("helm.release"));
            ensure!(left.is_empty(), "there is {}", left.join(" "));
            Ok(())
        })?;
        pool(self.kubectl, "free", &json!({ "ips": ["172.18.41.50"] }))?;
        delete(self.kubectl, &["spiderippool", "free"])?;
        product::install(self.cluster)
    }

    /// A Deployment of one Pod with an address of the pool.
    fn web(&self, pool: &str) -> Result<()> {
        Deployment::new("web", 1)
            .with_pool(pool)
            .create(self.kubectl, self.namespace)?;
        running(self.kubectl, self.namespace, "web", 1).map(|_| ())
    }

    /// What `kubectl` says when this pool of the underlay is applied, which it must refuse.
    fn refused(&self, name: &str, more: &Value, args: &[&str]) -> Result<String> {
        let object = underlay_object("SpiderIPPool", name, more);
        match self.kubectl.apply(&object.to_string(), args) {
            Ok(_) => bail!("pool {name} was taken: {more}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// What `kubectl` says when it fails, as it must.
    fn fails(&self, args: &[&str]) -> Result<String> {
        match self.kubectl.run(args) {
            Ok(said) => bail!("kubectl {} passed: {said}", args.join(" ")),
            Err(error) => Ok(format!("{error:#}")),
        }
    }
}
