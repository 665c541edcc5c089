//! Annotations that can't be followed: the workload is told first, the Pod is told the same by its
//! node, and putting it right is all that it takes.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::product::objects::{Pod, events};
use crate::wait::eventually;
use crate::workload::{Deployment, SETTLE, delete, leaving_nothing, pool, retire, running};

const IPPOOLS: &str = "ipam.spidernet.io/ippools";

/// A wrong value, and what must be said of it: key, fault, value, and a right form.
const WRONG: &str = r#"[{"interface":"eth0","ipv4":["some"]},{"ipv4":["some"]}]"#;
const SAID: [&str; 4] = [
    "wrong input, invalid format of Pod annotation 'ipam.spidernet.io/ippools'",
    "NIC should be either all specified or all unspecified",
    WRONG,
    "write it like [{",
];

/// Runs it.
pub fn run(cluster: &Cluster) -> Result<()> {
    leaving_nothing(cluster, "annotations", |namespace| {
        let kubectl = cluster.kubectl();
        pool(
            kubectl,
            "some",
            &json!({ "ips": ["172.18.41.160-172.18.41.163"] }),
        )?;
        let web = Deployment::new("web", 1).annotated(IPPOOLS, WRONG);
        web.create(kubectl, namespace)?;
        is_told(cluster, namespace, "web", "InvalidAnnotation")?;
        let pods = Pod::of_app(kubectl, namespace, "web")?;
        let pod = pods.first().context("no Pod")?;
        is_told(cluster, namespace, &pod.name, "FailedCreatePodSandBox")?;

        let right = Deployment::new("web", 1).annotated(IPPOOLS, r#"[{"ipv4":["so*"]}]"#);
        right.create(kubectl, namespace)?;
        running(kubectl, namespace, "web", 1)?;

        retire(kubectl, namespace, "web")?;
        delete(kubectl, &["spiderippool", "some"])
    })
}

/// An Event of this reason says all of [`SAID`].
fn is_told(cluster: &Cluster, namespace: &str, object: &str, reason: &str) -> Result<()> {
    eventually(SETTLE, &format!("{object} is told"), || {
        let told = events(cluster.kubectl(), namespace, object, reason)?;
        let all = |text: &String| {
            // kubelet quotes what a plugin says.
            let text = text.replace("\\\"", "\"");
            SAID.iter().all(|said| text.contains(said))
        };
        ensure!(told.iter().any(all), "{reason}: {told:?}");
        Ok(())
    })
}
