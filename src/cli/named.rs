//! A workload as a person names it: `deploy/web`, `shop/sts/db`.

use std::fmt;
use std::str::FromStr;

use ipam::name::{WorkloadId, label_value};
use ipam::pool::Owner;

/// Kinds that have Pods, and the words for each that `kubectl` knows, the kind's own lowered first.
const KINDS: [(&str, &[&str]); 6] = [
    ("Deployment", &["deployment", "deployments", "deploy"]),
    ("ReplicaSet", &["replicaset", "replicasets", "rs"]),
    ("StatefulSet", &["statefulset", "statefulsets", "sts"]),
    ("DaemonSet", &["daemonset", "daemonsets", "ds"]),
    ("Job", &["job", "jobs"]),
    ("CronJob", &["cronjob", "cronjobs", "cj"]),
];

/// `[NAMESPACE/]KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// Where; the connection's namespace without it.
    pub(super) namespace: Option<String>,
    /// As objects spell it.
    pub(super) kind: &'static str,
    /// Its name.
    pub(super) name: String,
}

/// Why a text names no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' names no workload: write KIND/NAME or NAMESPACE/KIND/NAME, with deploy, rs, sts, ds, job or cronjob for KIND"
)]
pub(super) struct NamedError(String);

impl FromStr for Named {
    type Err = NamedError;

    fn from_str(text: &str) -> Result<Self, NamedError> {
        let wrong = || NamedError(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, kind, name) = match parts.as_slice() {
            [kind, name] => (None, kind, name),
            [namespace, kind, name] if !namespace.is_empty() => (Some(*namespace), kind, name),
            _ => return Err(wrong()),
        };
        // `deployments.apps` is how kubectl prints it.
        let word = kind.split('.').next().unwrap_or_default().to_lowercase();
        let known = KINDS
            .iter()
            .find(|(_, words)| words.contains(&word.as_str()));
        let (kind, _) = known.filter(|_| !name.is_empty()).ok_or_else(wrong)?;
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            kind,
            name: (*name).to_owned(),
        })
    }
}

impl Named {
    /// The same with a namespace.
    pub(super) fn within(mut self, namespace: &str) -> Self {
        self.namespace.get_or_insert_with(|| namespace.to_owned());
        self
    }

    /// True for the workload meant.
    pub(super) fn is(&self, workload: &WorkloadId) -> bool {
        self.kind == workload.kind
            && self.name == workload.name
            && self
                .namespace
                .as_ref()
                .is_none_or(|n| *n == workload.namespace)
    }

    /// True for the owner, as a pool's labels have it, of a pool of the workload meant.
    pub(super) fn owns(&self, owner: &Owner) -> bool {
        let namespace = self.namespace.as_deref().map(label_value);
        self.kind == owner.kind
            && label_value(&self.name) == owner.name
            && namespace.is_none_or(|n| n == owner.namespace)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            kind,
            name,
        } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_kubectl_has_are_read() {
        let said = |text: &str| text.parse::<Named>().unwrap().to_string();
        assert_eq!(said("deploy/web"), "Deployment web");
        assert_eq!(said("shop/deployment/web"), "Deployment shop/web");
        assert_eq!(said("Deployments.apps/web"), "Deployment web");
        assert_eq!(said("sts/db"), "StatefulSet db");
        for text in ["web", "deploy/", "pods/web", "a/b/c/d", "/deploy/web", ""] {
            let error = text.parse::<Named>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }

    #[test]
    fn a_name_without_a_namespace_gets_one_and_keeps_its_own() {
        let named = |text: &str| text.parse::<Named>().unwrap().within("default");
        assert_eq!(named("deploy/web").to_string(), "Deployment default/web");
        assert_eq!(named("shop/deploy/web").to_string(), "Deployment shop/web");
    }
}
