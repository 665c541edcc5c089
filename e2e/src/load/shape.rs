//! The work: 100 Deployments of ten Pods each, and where their addresses come from.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::stage::{NAMESPACE, NODE_LABEL, Stage, list};
use super::{DEPLOYMENTS, REPLICAS};
use crate::image::BUSYBOX;
use crate::product::objects::Pool;
use crate::wait::eventually;

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

/// How Pods and pools belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Each Deployment has a pool of its own, made for it
    #[value(name = "a")]
    AutoPools,
    /// All have their addresses from one pool that a person made
    #[value(name = "b")]
    OnePool,
}

/// Which pool a Deployment's Pods have their addresses from.
pub type PoolOf = BTreeMap<String, String>;

impl Shape {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::AutoPools, Self::OnePool];

    /// Its key in a file of figures.
    pub fn key(self) -> &'static str {
        match self {
            Self::AutoPools => "a",
            Self::OnePool => "b",
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
        stage.kubectl().run(&args).map(drop)
    }

    /// The Deployments, in one text.
    pub fn deployments(self) -> String {
        let all = (0..DEPLOYMENTS).map(|index| self.deployment(index));
        list(&all.collect::<Vec<_>>())
    }

    /// Waits until every pool is there with room for its Pods, and tells whose is which.
    pub fn pools(self, stage: &Stage<'_>) -> Result<PoolOf> {
        let one = |index| (app(index), NAME.to_owned());
        match self {
            Self::OnePool => Ok((0..DEPLOYMENTS).map(one).collect()),
            Self::AutoPools => eventually(LIMIT, "every Deployment has its pool", || {
                let pools = Pool::all(stage.kubectl())?;
                let ready = pools
                    .into_iter()
                    .filter(|pool| pool.addresses.len() >= REPLICAS);
                let named = ready.map(|mut pool| {
                    let app = pool.affinity.remove(APP_NAME);
                    Ok((
                        app.with_context(|| format!("whose is {}?", pool.name))?,
                        pool.name,
                    ))
                });
                let named: PoolOf = named.collect::<Result<_>>()?;
                ensure!(
                    named.len() == DEPLOYMENTS,
                    "{} of {DEPLOYMENTS} do",
                    named.len()
                );
                Ok(named)
            }),
        }
    }

    /// Waits until no address is held, then takes away what [`Shape::prepare`] made.
    pub fn remove(self, stage: &Stage<'_>) -> Result<()> {
        eventually(LIMIT, "every address is given back", || {
            let pools = Pool::all(stage.kubectl())?;
            let held: usize = pools.iter().map(|pool| pool.records.len()).sum();
            ensure!(held == 0, "{held} are held");
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
            Self::AutoPools => "SpiderSubnet",
            Self::OnePool => "SpiderIPPool",
        }
    }

    fn deployment(self, index: usize) -> Value {
        let annotation = match self {
            Self::AutoPools => "ipam.spidernet.io/subnet",
            Self::OnePool => "ipam.spidernet.io/ippool",
        };
        let (name, wanted) = (app(index), json!({ "ipv4": [NAME] }).to_string());
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "replicas": REPLICAS,
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
        })
    }
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
