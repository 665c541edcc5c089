//! Who is asked: the two webhook configurations, written by the leader.
//!
//! The leader writes them, not the chart: they appear only once somebody serves, with the
//! authority to trust, so a chart may make pools in the release that installs the webhooks. They
//! are owned by the `ClusterRole` that allows to write them. When helm takes that away (the release
//! is uninstalled, or the webhooks are switched off), Kubernetes' garbage collector takes them along,
//! with no process of ours: nothing that blocks stays behind.
//!
//! Owns: the two objects. Never does: match a status, a Pod, an endpoint, a deletion, a change
//! of metadata alone, or a write of this very controller. Invariant: what is as it should be is not
//! written.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
    ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::review::{Kind, Task};
use crate::api::names;
use crate::error::ErrorChain;
use crate::kube_io::lease::Leadership;
use crate::kube_io::retry::{Backoff, Outcome};
use crate::tls::Bundle;

/// The API server waits this long for an answer; ours comes earlier.
pub const TIMEOUT_SECONDS: i32 = 5;
/// Who writes the fields.
const MANAGER: &str = "orbweaver-controller";
/// The objects are looked at this often, for what somebody changed.
const LOOK: Duration = Duration::from_secs(300);
/// First and longest cap of the pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What the API server does with a request that nobody judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// It is stored.
    Ignore,
    /// It is refused.
    Fail,
}

impl FailurePolicy {
    const fn name(self) -> &'static str {
        match self {
            Self::Ignore => "Ignore",
            Self::Fail => "Fail",
        }
    }
}

/// What the configurations say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of both objects.
    pub name: String,
    /// The `ClusterRole` that owns them.
    pub owner: String,
    /// Namespace and name of the Service in front of the replicas.
    pub service: (String, String),
    /// Port of the Service.
    pub port: u16,
    /// What happens to a request that nobody judged.
    pub failure_policy: FailurePolicy,
    /// The user that this controller is to the API server, whose writes are not judged.
    pub user: String,
}

/// Keeps both objects as they should be while this replica leads, for ever.
pub async fn run(
    client: Client,
    settings: Settings,
    mut trust: watch::Receiver<Option<Bundle>>,
    mut leadership: watch::Receiver<Leadership>,
) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let leads = leadership
            .wait_for(|l| *l == Leadership::Leader)
            .await
            .is_ok();
        let Ok(bundle) = trust
            .wait_for(Option::is_some)
            .await
            .map(|bundle| bundle.clone())
        else {
            return;
        };
        if !leads {
            return;
        }
        let written = write(&client, &settings, &bundle.unwrap_or_default()).await;
        let pause = match written {
            Ok(()) => {
                backoff.reset();
                LOOK
            }
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "webhook configurations are not as they should be; trying again");
                backoff.next_delay_for(Outcome::Unknown)
            }
        };
        tokio::select! {
            biased;
            changed = trust.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Why the objects could not be written.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(
        "ClusterRole {0}, which owns the webhook configurations, can't be read: the chart makes it"
    )]
    Owner(String, #[source] kube::Error),
    #[error("{kind} {name} could not be {what}")]
    Configuration {
        kind: String,
        name: String,
        what: &'static str,
        source: kube::Error,
    },
}

async fn write(client: &Client, settings: &Settings, bundle: &str) -> Result<(), PublishError> {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let owner = roles.get(&settings.owner).await;
    let owner = owner.map_err(|error| PublishError::Owner(settings.owner.clone(), error))?;
    write_owned(client, settings, bundle, &owner.uid().unwrap_or_default()).await
}

async fn write_owned(
    client: &Client,
    settings: &Settings,
    bundle: &str,
    owner: &str,
) -> Result<(), PublishError> {
    // The judge first: what is filled in by one that is not judged by the other harms nobody.
    ensure(client, validating(settings, bundle, owner)).await?;
    ensure(client, mutating(settings, bundle, owner)).await
}

/// Writes `wanted` where the cluster's differs.
async fn ensure<K>(client: &Client, wanted: K) -> Result<(), PublishError>
where
    K: Resource<DynamicType = ()> + Webhooks + Serialize + DeserializeOwned + Clone,
    K: std::fmt::Debug,
{
    let name = wanted.name_any();
    let failed = |what| {
        let name = name.clone();
        move |source| PublishError::Configuration {
            kind: K::kind(&()).into_owned(),
            name,
            what,
            source,
        }
    };
    let api: Api<K> = Api::all(client.clone());
    let known = api.get_opt(&name).await.map_err(failed("read"))?;
    let same = |known: &K| {
        known.has_webhooks_of(&wanted) && known.owner_references() == wanted.owner_references()
    };
    if known.as_ref().is_some_and(same) {
        return Ok(());
    }
    let params = PatchParams::apply(MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(&wanted)).await;
    applied.map_err(failed("written"))?;
    tracing::info!(kind = %K::kind(&()), %name, "webhook configuration written");
    Ok(())
}

/// The part of a configuration that matters. Every field that the API server would fill in is
/// given, so that equal means equal.
trait Webhooks {
    fn has_webhooks_of(&self, other: &Self) -> bool;
}

impl Webhooks for ValidatingWebhookConfiguration {
    fn has_webhooks_of(&self, other: &Self) -> bool {
        self.webhooks == other.webhooks
    }
}

impl Webhooks for MutatingWebhookConfiguration {
    fn has_webhooks_of(&self, other: &Self) -> bool {
        self.webhooks == other.webhooks
    }
}

fn validating(settings: &Settings, bundle: &str, owner: &str) -> ValidatingWebhookConfiguration {
    let webhook = |kind: Kind| ValidatingWebhook {
        name: name_of(kind),
        client_config: client_config(settings, bundle, Task::Judge, kind),
        rules: Some(vec![rule(kind)]),
        match_conditions: Some(conditions(settings)),
        failure_policy: Some(settings.failure_policy.name().to_owned()),
        side_effects: "None".to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        timeout_seconds: Some(TIMEOUT_SECONDS),
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: Some(LabelSelector::default()),
        object_selector: Some(LabelSelector::default()),
    };
    ValidatingWebhookConfiguration {
        metadata: metadata(settings, owner),
        webhooks: Some(Kind::ALL.map(webhook).to_vec()),
    }
}

fn mutating(settings: &Settings, bundle: &str, owner: &str) -> MutatingWebhookConfiguration {
    let webhook = |kind: Kind| MutatingWebhook {
        name: name_of(kind),
        client_config: client_config(settings, bundle, Task::Fill, kind),
        rules: Some(vec![rule(kind)]),
        match_conditions: Some(conditions(settings)),
        failure_policy: Some(settings.failure_policy.name().to_owned()),
        side_effects: "None".to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        timeout_seconds: Some(TIMEOUT_SECONDS),
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: Some(LabelSelector::default()),
        object_selector: Some(LabelSelector::default()),
        reinvocation_policy: Some("Never".to_owned()),
    };
    MutatingWebhookConfiguration {
        metadata: metadata(settings, owner),
        webhooks: Some(Kind::ALL.map(webhook).to_vec()),
    }
}

fn metadata(settings: &Settings, owner: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(settings.name.clone()),
        owner_references: Some(vec![OwnerReference {
            api_version: ClusterRole::api_version(&()).into_owned(),
            kind: ClusterRole::kind(&()).into_owned(),
            name: settings.owner.clone(),
            uid: owner.to_owned(),
            ..OwnerReference::default()
        }]),
        ..ObjectMeta::default()
    }
}

/// As clients see it in a refusal.
fn name_of(kind: Kind) -> String {
    format!("{}.{}", kind.singular(), names::GROUP)
}

fn client_config(settings: &Settings, bundle: &str, task: Task, kind: Kind) -> WebhookClientConfig {
    let (namespace, name) = settings.service.clone();
    WebhookClientConfig {
        // Without one the API server trusts what its machine trusts.
        ca_bundle: (!bundle.is_empty()).then(|| ByteString(bundle.as_bytes().to_vec())),
        service: Some(ServiceReference {
            name,
            namespace,
            path: Some(task.path(kind)),
            port: Some(settings.port.into()),
        }),
        url: None,
    }
}

/// The objects themselves; a status is a resource of its own, and never matched.
fn rule(kind: Kind) -> RuleWithOperations {
    let one = |text: &str| Some(vec![text.to_owned()]);
    RuleWithOperations {
        api_groups: one(names::GROUP),
        api_versions: one(names::VERSION),
        operations: Some(vec!["CREATE".to_owned(), "UPDATE".to_owned()]),
        resources: one(&format!("{}s", kind.singular())),
        scope: Some("*".to_owned()),
    }
}

/// Which requests are not asked about.
fn conditions(settings: &Settings) -> Vec<MatchCondition> {
    let condition = |name: &str, expression: String| MatchCondition {
        name: name.to_owned(),
        expression,
    };
    vec![
        condition(
            "not-the-controller-itself",
            format!("request.userInfo.username != '{}'", settings.user),
        ),
        // A finalizer that goes, an owner that is set: no rule is about them.
        condition(
            "the-spec-changes",
            "oldObject == null || object.spec != oldObject.spec".to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests;
