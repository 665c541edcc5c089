//! The built-in kinds as a table; code of their own is only where a row cannot say it.

/// What happens to dependents when an object is deleted and the request does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// They are collected afterwards.
    Background,
    /// They lose their owner.
    Orphan,
}

/// A row: one kind in one version.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a row of yes and no, each by its name"
)]
pub(crate) struct Builtin {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    /// Short names, with blanks between.
    pub(crate) short: &'static str,
    /// Categories, with blanks between.
    pub(crate) categories: &'static str,
    pub(crate) namespaced: bool,
    /// It has a status subresource, and its main endpoint leaves the status alone.
    pub(crate) has_status: bool,
    /// It has a scale subresource.
    pub(crate) scaled: bool,
    /// `metadata.generation` counts its changes.
    pub(crate) generation: bool,
    /// A PUT of what is not there creates it.
    pub(crate) put_creates: bool,
    pub(crate) deletion: Deletion,
    /// The name of its type in `types.json`.
    pub(crate) schema: &'static str,
    /// Fields that a field selector may name beside `metadata.name` and `metadata.namespace`.
    pub(crate) selectable: &'static [&'static str],
    /// The resource it is a view of, if it has no store of its own.
    pub(crate) storage: Option<&'static str>,
}

const ROW: Builtin = Builtin {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    short: "",
    categories: "",
    namespaced: true,
    has_status: false,
    scaled: false,
    generation: false,
    put_creates: false,
    deletion: Deletion::Background,
    schema: "",
    selectable: &[],
    storage: None,
};

/// Names of types are long; a row gives the last word.
macro_rules! schema {
    ($package:literal, $kind:literal) => {
        concat!("io.k8s.api.", $package, ".", $kind)
    };
}

/// Every built-in kind, in the order of discovery.
pub(crate) const BUILTINS: &[Builtin] = &[
    Builtin {
        kind: "ConfigMap",
        plural: "configmaps",
        short: "cm",
        schema: schema!("core.v1", "ConfigMap"),
        ..ROW
    },
    Builtin {
        kind: "Endpoints",
        plural: "endpoints",
        short: "ep",
        put_creates: true,
        schema: schema!("core.v1", "Endpoints"),
        ..ROW
    },
    Builtin {
        kind: "Event",
        plural: "events",
        short: "ev",
        put_creates: true,
        schema: schema!("core.v1", "Event"),
        selectable: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ..ROW
    },
    Builtin {
        kind: "Namespace",
        plural: "namespaces",
        short: "ns",
        namespaced: false,
        has_status: true,
        schema: schema!("core.v1", "Namespace"),
        selectable: &["status.phase"],
        ..ROW
    },
    Builtin {
        kind: "Node",
        plural: "nodes",
        short: "no",
        namespaced: false,
        has_status: true,
        schema: schema!("core.v1", "Node"),
        selectable: &["spec.unschedulable"],
        ..ROW
    },
    Builtin {
        kind: "Pod",
        plural: "pods",
        short: "po",
        categories: "all",
        has_status: true,
        generation: true,
        schema: schema!("core.v1", "Pod"),
        selectable: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ..ROW
    },
    Builtin {
        kind: "Secret",
        plural: "secrets",
        schema: schema!("core.v1", "Secret"),
        selectable: &["type"],
        ..ROW
    },
    Builtin {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short: "sa",
        schema: schema!("core.v1", "ServiceAccount"),
        ..ROW
    },
    Builtin {
        kind: "Service",
        plural: "services",
        short: "svc",
        categories: "all",
        has_status: true,
        schema: schema!("core.v1", "Service"),
        selectable: &["spec.clusterIP", "spec.type"],
        ..ROW
    },
    Builtin {
        group: "apps",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        schema: schema!("apps.v1", "ControllerRevision"),
        ..ROW
    },
    Builtin {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        short: "ds",
        categories: "all",
        has_status: true,
        generation: true,
        schema: schema!("apps.v1", "DaemonSet"),
        ..ROW
    },
    Builtin {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        short: "deploy",
        categories: "all",
        has_status: true,
        scaled: true,
        generation: true,
        schema: schema!("apps.v1", "Deployment"),
        ..ROW
    },
    Builtin {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        short: "rs",
        categories: "all",
        has_status: true,
        scaled: true,
        generation: true,
        schema: schema!("apps.v1", "ReplicaSet"),
        ..ROW
    },
    Builtin {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        short: "sts",
        categories: "all",
        has_status: true,
        scaled: true,
        generation: true,
        schema: schema!("apps.v1", "StatefulSet"),
        ..ROW
    },
    Builtin {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short: "ev",
        put_creates: true,
        schema: schema!("events.v1", "Event"),
        storage: Some("events"),
        selectable: &[
            "reason",
            "reportingController",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "type",
        ],
        ..ROW
    },
    Builtin {
        group: "batch",
        kind: "CronJob",
        plural: "cronjobs",
        short: "cj",
        categories: "all",
        has_status: true,
        generation: true,
        schema: schema!("batch.v1", "CronJob"),
        ..ROW
    },
    Builtin {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        categories: "all",
        has_status: true,
        generation: true,
        deletion: Deletion::Orphan,
        schema: schema!("batch.v1", "Job"),
        selectable: &["status.successful"],
        ..ROW
    },
    Builtin {
        group: "policy",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        short: "pdb",
        has_status: true,
        generation: true,
        schema: schema!("policy.v1", "PodDisruptionBudget"),
        ..ROW
    },
    Builtin {
        group: "admissionregistration.k8s.io",
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        categories: "api-extensions",
        namespaced: false,
        generation: true,
        schema: schema!("admissionregistration.v1", "MutatingWebhookConfiguration"),
        ..ROW
    },
    Builtin {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        categories: "api-extensions",
        namespaced: false,
        has_status: true,
        generation: true,
        schema: schema!("admissionregistration.v1", "ValidatingAdmissionPolicy"),
        ..ROW
    },
    Builtin {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        categories: "api-extensions",
        namespaced: false,
        generation: true,
        schema: schema!(
            "admissionregistration.v1",
            "ValidatingAdmissionPolicyBinding"
        ),
        ..ROW
    },
    Builtin {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        categories: "api-extensions",
        namespaced: false,
        generation: true,
        schema: schema!("admissionregistration.v1", "ValidatingWebhookConfiguration"),
        ..ROW
    },
    Builtin {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short: "crd crds",
        categories: "api-extensions",
        namespaced: false,
        has_status: true,
        generation: true,
        schema: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        ..ROW
    },
    Builtin {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        plural: "priorityclasses",
        short: "pc",
        namespaced: false,
        generation: true,
        schema: schema!("scheduling.v1", "PriorityClass"),
        ..ROW
    },
    Builtin {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        put_creates: true,
        schema: schema!("coordination.v1", "Lease"),
        ..ROW
    },
    Builtin {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        generation: true,
        schema: schema!("discovery.v1", "EndpointSlice"),
        ..ROW
    },
];
