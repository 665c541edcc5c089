//! The kinds of workloads whose pools the controller makes: six of Kubernetes' own, and those that
//! an operator names.
//!
//! Owns: which kinds, and whose pool serves the Pods of an object that another one controls. Never
//! does: ask whether the API server serves a kind. Invariant: controller and agents that are told
//! the same kinds take a Pod for the same workload's.

use crate::name::{WorkloadId, label_value};

/// A kind of Kubernetes' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadKind {
    /// API group and version.
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Its name in paths.
    pub resource: &'static str,
    /// The kind, of the same group and version, whose pool serves the Pods of one that it controls.
    pub above: Option<&'static str>,
}

/// Every kind of Kubernetes' own whose pools the controller makes.
pub const WORKLOAD_KINDS: [WorkloadKind; 6] = [
    WorkloadKind::new("apps/v1", "Deployment", "deployments", None),
    WorkloadKind::new("apps/v1", "ReplicaSet", "replicasets", Some("Deployment")),
    WorkloadKind::new("apps/v1", "StatefulSet", "statefulsets", None),
    WorkloadKind::new("apps/v1", "DaemonSet", "daemonsets", None),
    WorkloadKind::new("batch/v1", "Job", "jobs", Some("CronJob")),
    WorkloadKind::new("batch/v1", "CronJob", "cronjobs", None),
];

impl WorkloadKind {
    const fn new(
        api_version: &'static str,
        kind: &'static str,
        resource: &'static str,
        above: Option<&'static str>,
    ) -> Self {
        Self {
            api_version,
            kind,
            resource,
            above,
        }
    }

    /// The kind of `workload`, if it is one of these.
    pub fn of(workload: &WorkloadId) -> Option<&'static Self> {
        let api_version = workload.api_version();
        let mut all = WORKLOAD_KINDS.iter();
        all.find(|k| k.api_version == api_version && k.kind == workload.kind)
    }
}

/// A kind that an operator names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherKind {
    /// API group, empty for the core group.
    pub group: String,
    /// The version in which the controller reads it, and which its pools name.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Its name in paths: the plural, in lower case.
    pub resource: String,
}

impl OtherKind {
    /// `group/version`, or `version` for the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `resource.group`: the name of its `CustomResourceDefinition`, if it has one.
    pub fn definition(&self) -> String {
        format!("{}.{}", self.resource, self.group)
    }

    /// The workload of this kind with this name.
    pub fn workload(&self, namespace: &str, name: &str, uid: crate::name::Uid) -> WorkloadId {
        WorkloadId {
            group: self.group.clone(),
            version: self.version.clone(),
            kind: self.kind.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid,
        }
    }

    /// True for this kind, in whichever version.
    fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

/// `group/version`, or `version` for the core group, as manifests have it.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Group and version of an `apiVersion`.
pub fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// All kinds whose pools the controller makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kinds {
    others: Vec<OtherKind>,
}

impl Kinds {
    /// Kubernetes' own, and `others`.
    pub fn with(others: Vec<OtherKind>) -> Self {
        Self { others }
    }

    /// Those that an operator names.
    pub fn others(&self) -> &[OtherKind] {
        &self.others
    }

    /// True where the controller makes the pools of such a workload.
    pub fn serve(&self, workload: &WorkloadId) -> bool {
        self.resource(workload).is_some()
    }

    /// The name of the workload's kind in paths, if the controller makes the pools of such.
    pub fn resource(&self, workload: &WorkloadId) -> Option<&str> {
        let own = WorkloadKind::of(workload).map(|kind| kind.resource);
        own.or_else(|| Some(&*self.other(&workload.group, &workload.kind)?.resource))
    }

    /// True where the pool of a controlling owner of this kind serves the Pods of `workload`.
    ///
    /// A ReplicaSet serves its own Pods unless a Deployment controls it, or a kind that an operator
    /// names, such as a Rollout; likewise a Job. No other chain is followed.
    pub fn is_below(&self, workload: &WorkloadId, owner_version: &str, owner_kind: &str) -> bool {
        let Some((own, above)) = WorkloadKind::of(workload).and_then(|k| Some((k, k.above?)))
        else {
            return false;
        };
        let (group, _) = group_version(owner_version);
        (own.api_version, above) == (owner_version, owner_kind)
            || self.other(group, owner_kind).is_some()
    }

    /// True where an owner may control `workload` whose pool serves instead.
    pub fn may_be_below(&self, workload: &WorkloadId) -> bool {
        WorkloadKind::of(workload).is_some_and(|kind| kind.above.is_some())
    }

    /// `workload` as its pool names it: a reference to it may name another version of its kind.
    #[must_use]
    pub fn as_pools_name(&self, workload: WorkloadId) -> WorkloadId {
        match self.other(&workload.group, &workload.kind) {
            Some(other) => WorkloadId {
                version: other.version.clone(),
                ..workload
            },
            None => workload,
        }
    }

    /// The operator's kind that a pool's labels `owner-application-gv` and `-kind` name.
    pub fn other_of_labels(&self, gv: &str, kind: &str) -> Option<&OtherKind> {
        let mut others = self.others.iter();
        others.find(|other| {
            let id = other.workload("", "", crate::name::Uid::default());
            other.kind == kind && label_value(&id.gv()) == gv
        })
    }

    /// The operator's kind of this group and name, in whichever version.
    pub fn other(&self, group: &str, kind: &str) -> Option<&OtherKind> {
        self.others.iter().find(|other| other.is(group, kind))
    }
}

/// True where a pool's labels `owner-application-gv` and `-kind` name a kind of Kubernetes' own.
pub fn is_own_of_labels(gv: &str, kind: &str) -> bool {
    let mut all = WORKLOAD_KINDS.iter();
    all.any(|own| own.kind == kind && own.api_version.replace('/', "_") == gv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Uid;

    fn rollout() -> OtherKind {
        OtherKind {
            group: "argoproj.io".to_owned(),
            version: "v1alpha1".to_owned(),
            kind: "Rollout".to_owned(),
            resource: "rollouts".to_owned(),
        }
    }

    fn id(api_version: &str, kind: &str) -> WorkloadId {
        let (group, version) = group_version(api_version);
        WorkloadId {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: Uid::from("u"),
        }
    }

    #[test]
    fn a_replica_set_is_served_by_its_deployment_and_by_an_owner_that_an_operator_names() {
        let (own, with) = (Kinds::default(), Kinds::with(vec![rollout()]));
        let set = id("apps/v1", "ReplicaSet");
        let table = [
            ("apps/v1", "Deployment", true, true),
            ("argoproj.io/v1alpha1", "Rollout", false, true),
            ("argoproj.io/v1", "Rollout", false, true),
            ("argoproj.io/v1alpha1", "Workflow", false, false),
            ("batch/v1", "Deployment", false, false),
            ("apps.example/v1", "Rollout", false, false),
        ];
        for (version, kind, alone, named) in table {
            assert_eq!(own.is_below(&set, version, kind), alone, "{kind}");
            assert_eq!(with.is_below(&set, version, kind), named, "{kind}");
        }
        let deployment = id("apps/v1", "Deployment");
        assert!(!with.is_below(&deployment, "argoproj.io/v1alpha1", "Rollout"));
        let job = id("batch/v1", "Job");
        assert!(own.is_below(&job, "batch/v1", "CronJob"));
        assert!(!own.is_below(&job, "apps/v1", "Deployment"));
    }

    #[test]
    fn a_kind_has_pools_only_if_kubernetes_or_the_operator_has_it() {
        let with = Kinds::with(vec![rollout()]);
        let resource = |api_version, kind| with.resource(&id(api_version, kind)).map(str::to_owned);
        assert_eq!(resource("apps/v1", "Deployment").unwrap(), "deployments");
        assert_eq!(
            resource("argoproj.io/v1alpha1", "Rollout").unwrap(),
            "rollouts"
        );
        assert_eq!(resource("v1", "Pod"), None);
        assert_eq!(resource("apps.kruise.io/v1beta1", "StatefulSet"), None);
        for kinds in [with, Kinds::default()] {
            let serves = |api_version, kind| kinds.serve(&id(api_version, kind));
            assert!(serves("apps/v1", "StatefulSet") && !serves("v1", "Pod"));
            let named = !kinds.others().is_empty();
            assert_eq!(serves("argoproj.io/v1alpha1", "Rollout"), named);
        }
    }

    #[test]
    fn a_kind_that_an_operator_names_is_found_by_its_path_and_its_definition() {
        assert_eq!(rollout().api_version(), "argoproj.io/v1alpha1");
        assert_eq!(rollout().definition(), "rollouts.argoproj.io");
        let of_core = OtherKind {
            group: String::new(),
            ..rollout()
        };
        assert_eq!(of_core.api_version(), "v1alpha1");
        assert_eq!(Kinds::with(vec![rollout()]).others(), [rollout()]);
    }

    #[test]
    fn only_replica_sets_and_jobs_may_have_their_pool_above_them() {
        let kinds = Kinds::with(vec![rollout()]);
        for own in &WORKLOAD_KINDS {
            let may = kinds.may_be_below(&id(own.api_version, own.kind));
            assert_eq!(may, ["ReplicaSet", "Job"].contains(&own.kind), "{own:?}");
        }
        assert!(!kinds.may_be_below(&id("argoproj.io/v1alpha1", "Rollout")));
    }

    #[test]
    fn whichever_version_a_reference_names_the_pool_is_the_same() {
        let with = Kinds::with(vec![rollout()]);
        let named = with.as_pools_name(id("argoproj.io/v1", "Rollout"));
        assert_eq!(named, id("argoproj.io/v1alpha1", "Rollout"));
        let other = id("argoproj.io/v1", "Workflow");
        assert_eq!(with.as_pools_name(other.clone()), other);
    }

    #[test]
    fn labels_lead_back_to_the_kind() {
        let long = OtherKind {
            group: format!("{}.example", "g".repeat(70)),
            ..rollout()
        };
        let with = Kinds::with(vec![rollout(), long.clone()]);
        let found = with.other_of_labels("argoproj.io_v1alpha1", "Rollout");
        assert_eq!(found, Some(&rollout()));
        let gv = long.workload("", "", Uid::default()).gv();
        let label = label_value(&gv);
        assert_eq!(with.other_of_labels(&label, "Rollout"), Some(&long));
        assert_eq!(
            with.other_of_labels("argoproj.io_v1alpha1", "Workflow"),
            None
        );
        assert!(is_own_of_labels("apps_v1", "Deployment"));
        assert!(!is_own_of_labels("apps_v1", "Job"));
        assert!(!is_own_of_labels("apps.kruise.io_v1beta1", "StatefulSet"));
    }
}
