//! `helm uninstall` takes the programs and nothing else; a new installation carries on.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::product;
use crate::product::books::Books;
use crate::product::objects::{Pod, Pool, names};
use crate::wait::eventually;
use crate::workload::{
    Deployment, SETTLE, delete, leaving_nothing, ping_each_other, pool, retire, running, scale,
    subnet,
};

/// Kinds that the chart makes objects of.
const CHARTED: &str = "daemonsets,deployments,pods,serviceaccounts,configmaps,clusterroles,\
                       clusterrolebindings,roles,rolebindings";

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "uninstall", |namespace| {
        let kubectl = cluster.kubectl();
        subnet(kubectl, "lasting", &["172.18.41.100-172.18.41.119"])?;
        pool(
            kubectl,
            "idle",
            &json!({ "ips": ["172.18.41.118-172.18.41.119"] }),
        )?;
        Deployment::new("web", 2)
            .with_subnet("lasting")
            .create(kubectl, namespace)?;
        let pods = running(kubectl, namespace, "web", 2)?;
        eventually(SETTLE, "the books agree", || {
            Books::read(kubectl)?.ensure_agree()
        })?;
        let pool = Pool::of_deployment(kubectl, namespace, "web")?;

        product::uninstall(cluster)?;
        only_the_programs_are_gone(cluster, namespace, &pods, &pool)?;
        // Its finalizer waits for a controller, as the chart's notes say.
        kubectl.run(&["delete", "spiderippool", "idle", "--wait=false"])?;
        let waits = Pool::all(kubectl)?
            .iter()
            .any(|pool| pool.name == "idle" && pool.terminating);
        ensure!(waits, "pool idle is not waiting for its finalizer");

        product::install(cluster)?;
        delete(kubectl, &["spiderippool", "idle"])?;
        everything_goes_on(cluster, namespace, &pods, &pool)?;

        retire(kubectl, namespace, "web")?;
        delete(kubectl, &["spidersubnet", "lasting"])
    })
}

/// Nothing of the chart is left, the Pods run and talk, their addresses are recorded as before,
/// and no object of theirs is on its way out.
fn only_the_programs_are_gone(
    cluster: &Cluster,
    namespace: &str,
    pods: &[Pod],
    pool: &Pool,
) -> Result<()> {
    let kubectl = cluster.kubectl();
    eventually(SETTLE, "nothing of the chart is left", || {
        let mut left = names(kubectl, CHARTED)?;
        left.retain(|name| name.contains("orbweaver") || name.contains("spiderpool"));
        ensure!(left.is_empty(), "there is {}", left.join(" "));
        Ok(())
    })?;
    let (same, now) = (Pod::of_app(kubectl, namespace, "web")?, Pool::all(kubectl)?);
    ensure!(same == pods, "the Pods were {pods:?} and are {same:?}");
    let is = now.iter().find(|other| other.name == pool.name);
    let kept = is.is_some_and(|is| is.records == pool.records && is.addresses == pool.addresses);
    ensure!(kept, "the pool was {pool:?} and is {is:?}");
    ensure!(
        now.iter().all(|pool| !pool.terminating),
        "a pool is being deleted"
    );
    ping_each_other(kubectl, pods)
}

/// The Pods are the ones that ran before, with the same addresses, and their pool follows again.
fn everything_goes_on(cluster: &Cluster, namespace: &str, pods: &[Pod], pool: &Pool) -> Result<()> {
    let kubectl = cluster.kubectl();
    scale(kubectl, namespace, "web", 4)?;
    let more = running(kubectl, namespace, "web", 4)?;
    ensure!(
        pods.iter().all(|pod| more.contains(pod)),
        "{more:?} lacks one of {pods:?}"
    );
    eventually(
        SETTLE,
        "the pool of before has one more than four addresses",
        || {
            let now = Pool::of_deployment(kubectl, namespace, "web")?;
            ensure!(now.name == pool.name, "it is another pool: {}", now.name);
            ensure!(now.addresses.len() == 5, "it has {}", now.addresses.len());
            Books::read(kubectl)?.ensure_agree()
        },
    )
}
