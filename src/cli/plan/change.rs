//! What if: a workload scaled, a node drained, a subnet made smaller.
//!
//! Owns: reading such questions, and the objects as they would be. Never does: say what comes of it.

use std::collections::BTreeSet;
use std::str::FromStr;

use anyhow::bail;
use ipam::addr::{Family, parse_list};
use ipam::name::Uid;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::objects::Objects;
use super::pods;
use crate::api::convert;
use crate::cli::named::Named;
use crate::cli::render::counted;

/// `--scale [NAMESPACE/]KIND/NAME=REPLICAS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scale {
    workload: Named,
    replicas: u32,
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (workload, replicas) = text
            .rsplit_once('=')
            .ok_or_else(|| format!("'{text}' has no '=': write KIND/NAME=REPLICAS"))?;
        let count = replicas
            .parse::<u32>()
            .ok()
            .filter(|n| i32::try_from(*n).is_ok());
        Ok(Self {
            workload: workload.parse::<Named>().map_err(|e| e.to_string())?,
            replicas: count.ok_or_else(|| format!("'{replicas}' is no number of replicas"))?,
        })
    }
}

/// `--shrink SUBNET=RANGE[,RANGE…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shrink {
    subnet: String,
    ips: Vec<String>,
}

impl FromStr for Shrink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (subnet, ips) = text
            .split_once('=')
            .ok_or_else(|| format!("'{text}' has no '=': write SUBNET=FIRST-LAST"))?;
        let ips: Vec<String> = ips.split(',').map(str::to_owned).collect();
        let family = if text.contains(':') {
            Family::V6
        } else {
            Family::V4
        };
        parse_list(&ips, family).map_err(|e| e.to_string())?;
        Ok(Self {
            subnet: subnet.to_owned(),
            ips,
        })
    }
}

/// The questions.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    pub(super) scale: Vec<Scale>,
    pub(super) drain: Vec<String>,
    pub(super) shrink: Vec<Shrink>,
}

/// What the changes do beyond the objects.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Pods that go, and hold their addresses until they are gone.
    pub(super) leaving: BTreeSet<Uid>,
    /// Sentences for people.
    pub(super) notes: Vec<String>,
}

impl Changes {
    /// Changes the objects.
    ///
    /// Errors: something named does not exist, or can't be changed so.
    pub(super) fn apply(&self, objects: &mut Objects, namespace: &str) -> anyhow::Result<Effects> {
        let mut effects = Effects::default();
        for scale in &self.scale {
            effects.leaving.extend(scale.apply(objects, namespace)?);
        }
        for node in &self.drain {
            effects.drain(objects, node)?;
        }
        for shrink in &self.shrink {
            effects.notes.push(shrink.apply(objects)?);
        }
        Ok(effects)
    }
}

impl Scale {
    /// The Pods that go.
    fn apply(&self, objects: &mut Objects, namespace: &str) -> anyhow::Result<Vec<Uid>> {
        let named = self.workload.clone().within(namespace);
        if named.kind == "DaemonSet" {
            bail!("{named} can't be scaled: a DaemonSet has a Pod on each node");
        }
        let found = objects
            .workloads
            .iter_mut()
            .find(|load| named.is(&load.seen.id));
        let Some(load) = found else {
            bail!("--scale: there is no {named}");
        };
        load.seen.replicas = self.replicas;
        load.pods = self.replicas;
        let family = pods::families(&objects.workloads);
        let uid = load_uid(objects, &named);
        let mut own: Vec<&Pod> = objects
            .pods
            .iter()
            .filter(|pod| pods::is_living(pod) && family.top(pod).as_ref() == uid.as_ref())
            .collect();
        // The youngest go first, as they mostly do.
        own.sort_by_key(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (made, pod.name_any())
        });
        let stay = usize::try_from(self.replicas).unwrap_or(usize::MAX);
        Ok(own.into_iter().skip(stay).map(pods::uid).collect())
    }
}

fn load_uid(objects: &Objects, named: &Named) -> Option<Uid> {
    let load = objects
        .workloads
        .iter()
        .find(|load| named.is(&load.seen.id))?;
    Some(load.seen.id.uid.clone())
}

impl Effects {
    /// As `kubectl drain --ignore-daemonsets`: Pods of `DaemonSets` and static Pods stay, the node
    /// gets no new one.
    fn drain(&mut self, objects: &mut Objects, node: &str) -> anyhow::Result<()> {
        if !objects.nodes.iter().any(|n| n.name_any() == node) {
            bail!("--drain: there is no Node {node}");
        }
        let on_node = |pod: &&Pod| {
            let spec = pod.spec.as_ref();
            spec.and_then(|s| s.node_name.as_deref()) == Some(node) && pods::is_living(pod)
        };
        let (mut leave, mut bare) = (0_usize, vec![]);
        for pod in objects.pods.iter().filter(on_node) {
            let owner = pod
                .owner_references()
                .iter()
                .find(|o| o.controller == Some(true));
            match owner.map(|o| o.kind.as_str()) {
                Some("DaemonSet" | "Node") => continue,
                Some(_) => {}
                None => bare.push(pods::name(pod)),
            }
            leave += 1;
            self.leaving.insert(pods::uid(pod));
        }
        objects.nodes.retain(|n| n.name_any() != node);
        let pods = counted(leave, "Pod");
        self.notes.push(format!(
            "leaving node {node}: {pods}, started again elsewhere by their workloads"
        ));
        if !bare.is_empty() {
            let bare = bare.join(", ");
            self.notes.push(format!(
                "nobody makes these Pods of node {node} again: {bare}"
            ));
        }
        Ok(())
    }
}

impl Shrink {
    fn apply(&self, objects: &mut Objects) -> anyhow::Result<String> {
        let Self { subnet: name, ips } = self;
        let Some(raw) = objects.subnets.iter_mut().find(|s| s.name_any() == *name) else {
            bail!("--shrink: there is no SpiderSubnet {name}");
        };
        let before = convert::subnet(raw)?;
        raw.spec.ips = Some(ips.clone());
        let after = convert::subnet(raw)?;
        let new = after.ips.difference(&before.ips);
        if !new.is_empty() {
            bail!(
                "--shrink: SpiderSubnet {name} does not have {new}: name what is to be left of it"
            );
        }
        Ok(format!(
            "SpiderSubnet {name} is left with {} of {} addresses",
            after.total().count(),
            before.total().count()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_and_what_is_wrong_with_one_is_told() {
        let scale = |text: &str| text.parse::<Scale>();
        let scaled = scale("shop/deploy/web=50").unwrap();
        assert_eq!(
            (scaled.workload.to_string().as_str(), scaled.replicas),
            ("Deployment shop/web", 50)
        );
        for text in [
            "deploy/web",
            "deploy/web=",
            "deploy/web=-1",
            "web=3",
            "deploy/web=3000000000",
        ] {
            assert!(scale(text).is_err(), "{text}");
        }
        let shrink = |text: &str| text.parse::<Shrink>();
        assert_eq!(
            shrink("net4=10.6.0.10-10.6.0.12,10.6.0.20")
                .unwrap()
                .ips
                .len(),
            2
        );
        assert_eq!(shrink("net6=fd00::10-fd00::12").unwrap().subnet, "net6");
        for text in ["net4", "net4=", "net4=10.6.0.12-10.6.0.10", "net4=x"] {
            assert!(shrink(text).is_err(), "{text}");
        }
    }
}
