//! The work: 100 Deployments of ten Pods each or one of 2,000, and where their addresses come from.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::round::delete_all;
use super::stage::{NAMESPACE, NODE_LABEL, Stage, list};
use super::{DEPLOYMENTS, REPLICAS};
use crate::cluster::kubectl::Kubectl;
use crate::image::BUSYBOX;
use crate::product::objects::Pool;
use crate::wait::eventually;
use crate::workload::{POOL, SUBNET, scale};

/// Name of the subnet, or of the one pool.
const NAME: &str = "load";
/// Where all addresses are from.
const CIDR: &str = "10.64.0.0/20";
/// 2,304 of them: nine times 256.
const RANGE: &str = "10.64.1.0-10.64.9.255";
/// How long pools may take to be there, or to be gone.
const LIMIT: Duration = Duration::from_secs(240);
/// The key by which an auto pool names its workload.
const APP_NAME: &str = "ipam.spidernet.io/app-name";

/// Pods of the one Deployment that is scaled.
const SCALED: usize = 2_000;

/// How Pods and pools belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each Deployment has a pool of its own, made for it.
    AutoPools,
    /// All have their addresses from one pool that a person made.
    OnePool,
    /// There is one Deployment with a pool made for it, scaled from nothing, and to nothing.
    Scaled,
}

/// Which pool a Deployment's Pods have their addresses from.
pub type PoolOf = BTreeMap<String, String>;

impl Shape {
    /// How many Pods there are.
    pub fn pods(self) -> usize {
        self.deployments() * self.replicas()
    }

    fn deployments(self) -> usize {
        match self {
            Self::AutoPools | Self::OnePool => DEPLOYMENTS,
            Self::Scaled => 1,
        }
    }

    fn replicas(self) -> usize {
        match self {
            Self::AutoPools | Self::OnePool => REPLICAS,
            Self::Scaled => SCALED,
        }
    }

    /// Makes what the person makes before the Deployments: a subnet or a pool, ready for use.
    pub fn prepare(self, stage: &Stage<'_>) -> Result<()> {
        stage.ensure_clear()?;
        let kind = self.kind();
        let object = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": kind,
            "metadata": { "name": NAME },
            "spec": { "subnet": CIDR, "ips": [RANGE] },
        });
        stage.kubectl().create(&object.to_string(), &[])?;
        let args = ["wait", kind, NAME, "--for=condition=Ready", "--timeout=60s"];
        stage.kubectl().run(&args)?;
        match self {
            Self::AutoPools | Self::OnePool => Ok(()),
            Self::Scaled => self.create(stage.kubectl(), 0),
        }
    }

    /// Does what makes the Pods appear.
    pub fn fill(self, kubectl: &Kubectl) -> Result<()> {
        match self {
            Self::AutoPools | Self::OnePool => self.create(kubectl, REPLICAS),
            Self::Scaled => scale(kubectl, NAMESPACE, &app(0), SCALED),
        }
    }

    /// Does what makes the Pods go.
    pub fn empty(self, kubectl: &Kubectl) -> Result<()> {
        match self {
            Self::AutoPools | Self::OnePool => delete_deployments(kubectl),
            Self::Scaled => scale(kubectl, NAMESPACE, &app(0), 0),
        }
    }

    fn create(self, kubectl: &Kubectl, replicas: usize) -> Result<()> {
        let all = (0..self.deployments()).map(|index| self.deployment(index, replicas));
        let all = list(&all.collect::<Vec<_>>());
        kubectl.create(&all, &[]).map(drop)
    }

    /// Waits until every pool is there with room for its Pods, and tells whose is which.
    pub fn pools(self, stage: &Stage<'_>) -> Result<PoolOf> {
        let one = |index| (app(index), NAME.to_owned());
        match self {
            Self::OnePool => Ok((0..DEPLOYMENTS).map(one).collect()),
            Self::AutoPools | Self::Scaled => {
                eventually(LIMIT, "every Deployment has its pool", || {
                    let pools = Pool::all(stage.kubectl())?;
                    let ready = pools
                        .into_iter()
                        .filter(|pool| pool.addresses.len() >= self.replicas());
                    let named = ready.map(|mut pool| {
                        let app = pool.affinity.remove(APP_NAME);
                        Ok((
                            app.with_context(|| format!("whose is {}?", pool.name))?,
                            pool.name,
                        ))
                    });
                    let named: PoolOf = named.collect::<Result<_>>()?;
                    ensure!(
                        named.len() == self.deployments(),
                        "{} of {} do",
                        named.len(),
                        self.deployments()
                    );
                    Ok(named)
                })
            }
        }
    }

    /// Waits until no address is held, then takes away what [`Shape::prepare`] made.
    pub fn remove(self, stage: &Stage<'_>) -> Result<()> {
        eventually(LIMIT, "every address is given back", || {
            let pools = Pool::all(stage.kubectl())?;
            let held: usize = pools.iter().map(|pool| pool.records.len()).sum();
            ensure!(held == 0, "{held} are held");
            Ok(())
        })?;
        delete_deployments(stage.kubectl())?;
        eventually(LIMIT, "no workload has a pool", || {
            let pools = Pool::all(stage.kubectl())?;
            let auto = pools
                .iter()
                .filter(|pool| pool.affinity.contains_key(APP_NAME))
                .count();
            ensure!(auto == 0, "{auto} pools of workloads that are gone");
            Ok(())
        })?;
        stage
            .kubectl()
            .run(&["delete", self.kind(), NAME, "--timeout=60s"])?;
        eventually(LIMIT, "nothing is left over", || stage.ensure_clear())
    }

    fn kind(self) -> &'static str {
        match self {
            Self::AutoPools | Self::Scaled => "SpiderSubnet",
            Self::OnePool => "SpiderIPPool",
        }
    }

    fn deployment(self, index: usize, replicas: usize) -> Value {
        let annotation = match self {
            Self::AutoPools | Self::Scaled => SUBNET,
            Self::OnePool => POOL,
        };
        let (name, wanted) = (app(index), json!({ "ipv4": [NAME] }).to_string());
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": { "app": name } },
                "template": {
                    "metadata": { "labels": { "app": name }, "annotations": { annotation: wanted } },
                    "spec": {
                        "nodeSelector": { NODE_LABEL: "true" },
                        "automountServiceAccountToken": false,
                        "containers": [{ "name": "c", "image": BUSYBOX }],
                    },
                },
            },
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AutoPools => "100 Deployments × 10, a pool made for each",
            Self::OnePool => "100 Deployments × 10, one pool of 2,304",
            Self::Scaled => "one Deployment 0 → 2,000 → 0, a pool made for it",
        })
    }
}

fn delete_deployments(kubectl: &Kubectl) -> Result<()> {
    delete_all(
        kubectl,
        "/apis/apps/v1",
        "deployments?propagationPolicy=Background",
    )
}

/// The name of a Deployment, and its Pods' label.
fn app(index: usize) -> String {
    format!("app-{index:03}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::addresses::addresses;

    #[test]
    fn the_one_pool_has_2304_addresses() {
        assert_eq!(addresses([RANGE]).unwrap().len(), 2304);
    }
}
