//! Workloads of all kinds, seen the same way: who, which Pods, which annotations, how many.
//!
//! Owns: the one trait that tells the kinds apart, and [`seen`], which reads any of them. Never
//! does: IO, or sizing (the core's `demand`). To add a kind of Kubernetes' own: a row in the core's
//! table ([`ipam::kind::WORKLOAD_KINDS`]), [`Workload`] for it here, and its watch in `controller`.
//! Kinds that an operator names are all read by [`other`].

pub mod other;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ipam::affinity::Selector;
use ipam::annotation::{self, AnnotationError, Fault, SizeRule, SubnetItem};
use ipam::demand::surge_of_percent;
use ipam::keep::Ordinals;
use ipam::name::{Uid, WorkloadId};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

use crate::api::{convert, time};

/// A kind whose Pods can have a pool of their own.
pub trait Workload {
    /// The template of its Pods.
    fn template(&self) -> Option<&PodTemplateSpec>;

    /// The template of its Pods, to take out what is not needed.
    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec>;

    /// The selector of its Pods; `None` for a kind that has none.
    fn selector(&self) -> Option<&LabelSelector>;

    /// The selector as it is used.
    fn pods(&self) -> Option<Selector> {
        // The API server takes no workload with a selector that can't be used.
        convert::workload_selector(self.selector()?).ok()
    }

    /// How many Pods it wants when nothing changes.
    fn replicas(&self) -> u32;

    /// False for a kind of which nobody can say how many Pods it wants.
    fn is_scalable(&self) -> bool {
        true
    }

    /// It will never start a Pod again, so it wants no address, whatever its annotations say.
    fn has_ended(&self) -> bool {
        false
    }

    /// Which Pods a kind wants whose Pods keep their names and addresses.
    fn ordinals(&self) -> Option<Ordinals> {
        None
    }

    /// How many Pods a roll-out that runs now may start beyond that; 0 where none runs.
    fn surge(&self) -> u32 {
        0
    }
}

impl Workload for Deployment {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|s| &s.template)
    }

    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec> {
        self.spec.as_mut().map(|s| &mut s.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|s| &s.selector)
    }

    fn replicas(&self) -> u32 {
        count(self.spec.as_ref().map(|s| s.replicas.unwrap_or(1)))
    }

    fn surge(&self) -> u32 {
        let strategy = self.spec.as_ref().and_then(|s| s.strategy.as_ref());
        if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
            return 0;
        }
        let Some(status) = &self.status else { return 0 };
        // Pods of an older template are left: the roll-out is not over.
        if count(status.replicas) <= count(status.updated_replicas) {
            return 0;
        }
        let surge = strategy
            .and_then(|s| s.rolling_update.as_ref())
            .and_then(|r| r.max_surge.as_ref());
        surge_count(surge, "25%", self.replicas())
    }
}

impl Workload for ReplicaSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().and_then(|s| s.template.as_ref())
    }

    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec> {
        self.spec.as_mut().and_then(|s| s.template.as_mut())
    }

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|s| &s.selector)
    }

    fn replicas(&self) -> u32 {
        count(self.spec.as_ref().map(|s| s.replicas.unwrap_or(1)))
    }
}

impl Workload for StatefulSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|s| &s.template)
    }

    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec> {
        self.spec.as_mut().map(|s| &mut s.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|s| &s.selector)
    }

    fn replicas(&self) -> u32 {
        count(self.spec.as_ref().map(|s| s.replicas.unwrap_or(1)))
    }

    fn ordinals(&self) -> Option<Ordinals> {
        convert::keeper(self).ordinals
    }
}

impl Workload for DaemonSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|s| &s.template)
    }

    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec> {
        self.spec.as_mut().map(|s| &mut s.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|s| &s.selector)
    }

    fn replicas(&self) -> u32 {
        count(self.status.as_ref().map(|s| s.desired_number_scheduled))
    }

    fn surge(&self) -> u32 {
        let Some(status) = &self.status else { return 0 };
        if count(status.updated_number_scheduled) >= count(Some(status.desired_number_scheduled)) {
            return 0;
        }
        let strategy = self.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let surge = strategy
            .and_then(|s| s.rolling_update.as_ref())
            .and_then(|r| r.max_surge.as_ref());
        surge_count(surge, "0", self.replicas())
    }
}

impl Workload for Job {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|s| &s.template)
    }

    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec> {
        self.spec.as_mut().map(|s| &mut s.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().and_then(|s| s.selector.as_ref())
    }

    fn replicas(&self) -> u32 {
        self.spec.as_ref().map_or(0, job_pods)
    }

    fn has_ended(&self) -> bool {
        let conditions = self
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|c| c.status == "True" && (c.type_ == "Complete" || c.type_ == "Failed"))
    }
}

impl Workload for CronJob {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.job().map(|j| &j.template)
    }

    fn template_mut(&mut self) -> Option<&mut PodTemplateSpec> {
        let job = self.spec.as_mut()?.job_template.spec.as_mut()?;
        Some(&mut job.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        None
    }

    fn replicas(&self) -> u32 {
        self.job().map_or(0, job_pods)
    }
}

/// The Job of a CronJob's runs.
trait JobOf {
    fn job(&self) -> Option<&JobSpec>;
}

impl JobOf for CronJob {
    fn job(&self) -> Option<&JobSpec> {
        self.spec
            .as_ref()
            .and_then(|s| s.job_template.spec.as_ref())
    }
}

/// Pods of a Job that may run at once: not all it will ever complete, since a Pod that finished
/// gives its address back.
fn job_pods(job: &JobSpec) -> u32 {
    let parallel = count(Some(job.parallelism.unwrap_or(1)));
    job.completions
        .map_or(parallel, |c| parallel.min(count(Some(c))))
        .max(1)
}

fn count(number: Option<i32>) -> u32 {
    u32::try_from(number.unwrap_or_default()).unwrap_or_default()
}

fn surge_count(surge: Option<&IntOrString>, default: &str, replicas: u32) -> u32 {
    let percent = |text: &str| {
        let number = text.trim_end_matches('%').parse().unwrap_or_default();
        if text.ends_with('%') {
            surge_of_percent(replicas, number)
        } else {
            number
        }
    };
    match surge {
        None => percent(default),
        Some(IntOrString::Int(number)) => count(Some(*number)),
        Some(IntOrString::String(text)) => percent(text),
    }
}

/// Leaves of a workload what [`seen`] reads: containers, volumes and what kubectl last applied are
/// most of it.
pub fn trim<W: Workload + ResourceExt>(workload: &mut W) {
    workload.annotations_mut().remove(LAST_APPLIED);
    if let Some(spec) = workload.template_mut().and_then(|t| t.spec.as_mut()) {
        *spec = PodSpec {
            host_network: spec.host_network,
            ..PodSpec::default()
        };
    }
}

/// The whole object as text.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A workload as the controller keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Who.
    pub id: WorkloadId,
    /// Its controlling owner, if it has one.
    pub controller: Option<OwnerReference>,
    /// What it asks for; `None` where it asks for nothing.
    pub wish: Option<Result<Wish, AnnotationError>>,
    /// Why its Pods will be refused, or served otherwise than its annotations mean, whatever they ask
    /// of subnets.
    pub fault: Option<Fault>,
    /// How many Pods it wants.
    pub replicas: u32,
    /// How many a roll-out that runs may add.
    pub surge: u32,
    /// For a `StatefulSet`: which Pods it wants.
    pub ordinals: Option<Ordinals>,
    /// When it was made.
    pub created: Option<DateTime<Utc>>,
    /// What it has of its own where the template of its Pods is elsewhere; `None` where it has one.
    pub elsewhere: Option<Elsewhere>,
}

/// What a workload says of its Pods without a template of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Elsewhere {
    /// Which Pods are its.
    pub selector: Option<Selector>,
    /// Whether it says how many it wants.
    pub is_scalable: bool,
}

/// What the annotations of a workload ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Interfaces and subnets.
    pub items: Vec<SubnetItem>,
    /// Size rule.
    pub rule: SizeRule,
    /// Whether the pools go with the workload.
    pub reclaim: bool,
    /// Selector of its Pods.
    pub selector: Selector,
    /// True where the template of its Pods says which subnets, so that each of them does.
    pub is_of_pods: bool,
}

/// Reads a workload of a kind of Kubernetes' own. `default` is the size rule of one that has no
/// annotation for it.
pub fn seen<W>(workload: &W, default: SizeRule) -> Seen
where
    W: Workload + Resource<DynamicType = ()>,
{
    let id = WorkloadId {
        group: W::group(&()).into_owned(),
        version: W::version(&()).into_owned(),
        kind: W::kind(&()).into_owned(),
        namespace: workload.namespace().unwrap_or_default(),
        name: workload.name_any(),
        uid: Uid::new(workload.uid().unwrap_or_default()),
    };
    seen_as(id, workload.meta(), workload, default)
}

/// Reads a workload of any kind, whose metadata is `meta`.
///
/// An annotation on the Pod template wins over the same one on the workload itself; those of subnets
/// are one.
pub fn seen_as<W: Workload>(
    id: WorkloadId,
    meta: &ObjectMeta,
    workload: &W,
    default: SizeRule,
) -> Seen {
    let wish = has_pods_to_serve(workload)
        .then(|| wish(&id, meta, workload, default))
        .flatten();
    let controllers = meta.owner_references.iter().flatten();
    Seen {
        id,
        controller: controllers
            .into_iter()
            .find(|r| r.controller == Some(true))
            .cloned(),
        wish,
        fault: fault(meta, workload),
        replicas: workload.replicas(),
        surge: workload.surge(),
        ordinals: workload.ordinals(),
        created: meta.creation_timestamp.as_ref().map(time::from_wire),
        elsewhere: workload.template().is_none().then(|| Elsewhere {
            selector: workload.pods(),
            is_scalable: workload.is_scalable(),
        }),
    }
}

fn fault<W: Workload>(meta: &ObjectMeta, workload: &W) -> Option<Fault> {
    if !has_pods_to_serve(workload) || workload.template().is_none() {
        return None;
    }
    let (own, of_pods) = (meta.annotations.as_ref(), annotations_of_pods(workload));
    let own = |key: &str| own.and_then(|a| a.get(key)).map(String::as_str);
    let of_pods = |key: &str| of_pods.and_then(|a| a.get(key)).map(String::as_str);
    let wrong = annotation::check_pools(&of_pods).err();
    wrong.or_else(|| annotation::misplaced(&own, &of_pods))
}

/// True for a workload whose Pods may still start, and have a network that is not their node's.
fn has_pods_to_serve<W: Workload>(workload: &W) -> bool {
    let spec = workload.template().and_then(|t| t.spec.as_ref());
    !workload.has_ended() && spec.and_then(|spec| spec.host_network) != Some(true)
}

fn annotations_of_pods<W: Workload>(workload: &W) -> Option<&BTreeMap<String, String>> {
    workload.template()?.metadata.as_ref()?.annotations.as_ref()
}

fn wish<W: Workload>(
    id: &WorkloadId,
    meta: &ObjectMeta,
    workload: &W,
    default: SizeRule,
) -> Option<Result<Wish, AnnotationError>> {
    let of_template = annotations_of_pods(workload);
    let own = meta.annotations.as_ref();
    let get = |key: &str| {
        of_template
            .and_then(|a| a.get(key))
            .or_else(|| own.and_then(|a| a.get(key)))
            .map(String::as_str)
    };
    let of_pods = |key: &str| of_template.and_then(|a| a.get(key)).map(String::as_str);
    let is_of_pods = annotation::subnet_key(&of_pods).is_some();
    if annotation::names_pools(&of_pods) && !is_of_pods {
        return None; // the Pods name pools, and that is nearer to them
    }
    // With either key the template comes before all that the workload itself says of subnets, as a
    // Pod does for its agent, which would look for another pool otherwise.
    let asked = if is_of_pods {
        annotation::subnets(&of_pods)
    } else {
        annotation::subnets(&get)
    };
    let items = match asked {
        Ok(items) => items?,
        Err(error) => return Some(Err(error)),
    };
    let rule = annotation::size_rule(&get, default).and_then(|rule| match rule {
        SizeRule::Flexible(_) if !workload.is_scalable() => {
            Err(AnnotationError::NotScalable(id.to_string()))
        }
        SizeRule::Flexible(_) | SizeRule::Fixed(_) => Ok(rule),
    });
    let parts = rule.and_then(|rule| annotation::reclaim(&get).map(|reclaim| (rule, reclaim)));
    Some(parts.map(|(rule, reclaim)| Wish {
        items,
        rule,
        reclaim,
        selector: workload.pods().unwrap_or_else(|| template_labels(workload)),
        is_of_pods,
    }))
}

fn template_labels<W: Workload>(workload: &W) -> Selector {
    let meta = workload.template().and_then(|t| t.metadata.as_ref());
    let labels = meta.and_then(|m| m.labels.clone());
    Selector {
        match_labels: labels.unwrap_or_default(),
        ..Selector::default()
    }
}

#[cfg(test)]
mod tests {
    use ipam::kind::WORKLOAD_KINDS;

    use super::*;

    fn deployment(json: serde_json::Value) -> Deployment {
        serde_json::from_value(json).unwrap()
    }

    fn web(status: &serde_json::Value) -> Deployment {
        deployment(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "annotations": {
                "ipam.spidernet.io/subnet": r#"{"ipv4":["own"]}"#,
                "ipam.spidernet.io/ippool-ip-number": "+2"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {
                    "ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#}},
                "spec": {"containers": []}}},
            "status": status
        }))
    }

    #[test]
    fn the_template_s_annotation_wins_and_the_workload_s_own_fills_the_rest() {
        let seen = seen(&web(&serde_json::json!({})), SizeRule::Flexible(1));
        let wish = seen.wish.unwrap().unwrap();
        assert_eq!(wish.items[0].ipv4.as_ref().unwrap().as_str(), "net4");
        assert_eq!(wish.rule, SizeRule::Flexible(2));
        assert_eq!(wish.selector.match_labels["app"], "web");
        assert_eq!((seen.replicas, seen.surge), (3, 0));
    }

    #[test]
    fn a_template_that_says_which_subnets_with_either_key_says_all_of_it() {
        let either = |of_pods: (&str, &str), own: (&str, &str)| {
            let web = deployment(serde_json::json!({
                "metadata": {"name": "web", "namespace": "shop", "annotations": {
                    own.0: own.1, annotation::IP_NUMBER: "7"}},
                "spec": {"selector": {}, "template": {
                    "metadata": {"annotations": {of_pods.0: of_pods.1}},
                    "spec": {"containers": []}}},
            }));
            let wish = seen(&web, SizeRule::Flexible(1)).wish.unwrap().unwrap();
            assert_eq!(wish.rule, SizeRule::Fixed(7));
            wish.items[0].ipv4.as_ref().unwrap().as_str().to_owned()
        };
        let (one, many) = (
            (annotation::SUBNET, r#"{"ipv4":["a"]}"#),
            (
                annotation::SUBNETS,
                r#"[{"interface":"eth0","ipv4":["b"]}]"#,
            ),
        );
        assert_eq!(either(one, many), "a");
        assert_eq!(either(many, one), "b");
    }

    #[test]
    fn a_template_that_names_pools_wants_none_of_its_workload_s_subnet() {
        let mut web = web(&serde_json::json!({}));
        let template = &mut web.spec.as_mut().unwrap().template;
        let annotations = template.metadata.as_mut().unwrap().annotations.as_mut();
        let annotations = annotations.unwrap();
        annotations.insert(
            annotation::IPPOOL.to_owned(),
            r#"{"ipv4":["p"]}"#.to_owned(),
        );
        let wishes = |web: &Deployment| seen(web, SizeRule::Flexible(1)).wish.is_some();
        assert!(wishes(&web), "the template's own subnet counts first");
        let template = &mut web.spec.as_mut().unwrap().template;
        let annotations = template.metadata.as_mut().unwrap().annotations.as_mut();
        annotations.unwrap().remove(annotation::SUBNET);
        assert!(!wishes(&web));
    }

    #[test]
    fn a_deployment_surges_while_pods_of_the_old_template_are_left() {
        let surge = |replicas, updated| {
            web(&serde_json::json!({"replicas": replicas, "updatedReplicas": updated})).surge()
        };
        assert_eq!(surge(3, 0), 1);
        assert_eq!(surge(4, 3), 1);
        assert_eq!(surge(3, 3), 0);
        assert_eq!(surge(1, 1), 0);
    }

    #[test]
    fn a_job_wants_as_many_as_run_at_once_and_nothing_when_it_ended() {
        let job = |completions: i32, parallelism: i32, conditions: &serde_json::Value| -> Seen {
            let job: Job = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "j"},
                "spec": {"completions": completions, "parallelism": parallelism, "template": {
                    "metadata": {"annotations": {"ipam.spidernet.io/subnet": r#"{"ipv4":["net4"]}"#}},
                    "spec": {"containers": []}}},
                "status": {"conditions": conditions}
            }))
            .unwrap();
            seen(&job, SizeRule::Flexible(1))
        };
        let running = serde_json::json!([]);
        assert_eq!(job(1000, 4, &running).replicas, 4);
        assert_eq!(job(2, 4, &running).replicas, 2);
        assert!(job(2, 4, &running).wish.is_some());
        let ended = serde_json::json!([{"type": "Complete", "status": "True"}]);
        assert_eq!(job(2, 4, &ended).wish, None);
    }

    #[test]
    fn every_kind_of_the_core_s_table_is_watched_here() {
        fn named<W: Workload + Resource<DynamicType = ()>>() -> (String, String) {
            (W::api_version(&()).into(), W::kind(&()).into())
        }
        let mut watched = [
            named::<Deployment>(),
            named::<ReplicaSet>(),
            named::<StatefulSet>(),
            named::<DaemonSet>(),
            named::<Job>(),
            named::<CronJob>(),
        ];
        let mut told = WORKLOAD_KINDS.map(|k| (k.api_version.to_owned(), k.kind.to_owned()));
        watched.sort();
        told.sort();
        assert_eq!(watched, told);
    }

    #[test]
    fn a_workload_on_the_host_network_asks_for_nothing() {
        let mut web = web(&serde_json::json!({}));
        web.spec
            .as_mut()
            .unwrap()
            .template
            .spec
            .as_mut()
            .unwrap()
            .host_network = Some(true);
        assert_eq!(seen(&web, SizeRule::Flexible(1)).wish, None);
    }
}
