//! The controller's services over TLS: their arguments, and how they are wired.
//!
//! Owns: names, ports and certificates as arguments. Never does: judge a request, make a certificate.

use std::time::Duration;

use anyhow::ensure;
use chrono::TimeDelta;
use clap::{Args, ValueEnum};
use ipam::admit::Families;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::names::env;
use crate::config::Config;
use crate::error::ErrorChain;
use crate::kube_io::clients::Clients;
use crate::kube_io::lease::Leadership;
use crate::ports;
use crate::tls::{self, Lifetimes, ServeError, Source, Tls};
use crate::webhook::publish::{self, FailurePolicy};
use crate::webhook::{self, Rules};

/// The Service's port; its target is the replicas' own.
const SERVICE_PORT: u16 = 443;

/// Longest wait for the requests under way, once no more are taken. Each is judged within
/// four seconds, or answered that it could not be.
const REQUESTS_END: Duration = Duration::from_secs(5);

/// Whether and how webhooks are served.
#[derive(Debug, Clone, Args)]
pub(super) struct AdmissionArguments {
    /// Port of the webhooks; none are served without it.
    #[arg(long, env = env::WEBHOOK_PORT)]
    webhook_port: Option<u16>,
    /// Name of the Service in front of the webhooks, and of the webhook configurations.
    #[arg(long, env = env::WEBHOOK_SERVICE, default_value = "orbweaver-controller")]
    webhook_service: String,
    /// Name of the `ClusterRole` that owns the webhook configurations: they go when it goes.
    #[arg(long, env = env::WEBHOOK_OWNER, default_value = "orbweaver-controller-webhook")]
    webhook_owner: String,
    /// What becomes of a request that no webhook judged.
    #[arg(long, env = env::WEBHOOK_FAILURE_POLICY, value_enum, default_value = "Ignore")]
    webhook_failure_policy: Policy,
    /// Name of this Pod's ServiceAccount: its own writes are not judged.
    #[arg(long, env = env::SERVICE_ACCOUNT, default_value = "orbweaver-controller")]
    service_account: String,
}

/// Where certificates come from.
#[derive(Debug, Clone, Args)]
pub(super) struct TlsArguments {
    /// Name of the Secret with certificates, in the namespace of this Pod.
    #[arg(long, env = env::TLS_SECRET, default_value = "orbweaver-controller-tls")]
    tls_secret: String,
    /// Who makes what it holds: this program, or somebody else (`tls.crt`, `tls.key`, `ca.crt`).
    #[arg(long, env = env::TLS_METHOD, value_enum, default_value_t = Method::Auto)]
    tls_method: Method,
    /// Further DNS names and addresses of the certificate.
    #[arg(long, env = env::TLS_EXTRA_NAMES, value_delimiter = ',')]
    tls_extra_names: Vec<String>,
    /// How long a certificate authority lasts: a number and s, m, h or d.
    #[arg(long, env = env::CA_LIFETIME, value_parser = lifetime, default_value = "3650d")]
    ca_lifetime: TimeDelta,
    /// How long a certificate lasts: a number and s, m, h or d.
    #[arg(long, env = env::CERTIFICATE_LIFETIME, value_parser = lifetime, default_value = "90d")]
    certificate_lifetime: TimeDelta,
}

/// Reads a number with a unit.
///
/// Errors: anything else, nothing at all, and a century.
fn lifetime(text: &str) -> Result<TimeDelta, String> {
    const CENTURY: u64 = 36_500 * 86_400;
    let unit = text.char_indices().next_back();
    let seconds = unit.and_then(|(end, unit)| {
        let each = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        text.get(..end)?.parse::<u64>().ok()?.checked_mul(each)
    });
    let seconds = seconds.filter(|seconds| (1..=CENTURY).contains(seconds));
    let delta = seconds.and_then(|seconds| TimeDelta::try_seconds(seconds.try_into().ok()?));
    delta.ok_or_else(|| "a number and its unit, such as 12h or 90d".to_owned())
}

/// What Kubernetes does with a request that nobody judged, by its own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// Let it pass.
    #[value(name = "Ignore")]
    Ignore,
    /// Refuse it.
    #[value(name = "Fail")]
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    Auto,
    Provided,
}

impl TlsArguments {
    /// The certificate of this process, for a Service's names.
    ///
    /// Errors: lifetimes that can't be meant.
    fn tls(self, clients: &Clients, namespace: &str, service: &str) -> anyhow::Result<Tls> {
        let Self {
            tls_secret,
            tls_method,
            tls_extra_names,
            ca_lifetime,
            certificate_lifetime,
        } = self;
        let lifetimes = Lifetimes {
            authority: ca_lifetime,
            certificate: certificate_lifetime,
        };
        ensure!(
            certificate_lifetime <= ca_lifetime / 3,
            "certificates of {} s under an authority of {} s: give the authority at least three \
             times as long",
            certificate_lifetime.num_seconds(),
            ca_lifetime.num_seconds()
        );
        let mut names = vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}"),
        ];
        names.extend(tls_extra_names.into_iter().filter(|name| !name.is_empty()));
        let settings = tls::Settings {
            namespace: namespace.to_owned(),
            secret: tls_secret,
            names,
            source: match tls_method {
                Method::Auto => Source::SelfMade(lifetimes),
                Method::Provided => Source::Given,
            },
        };
        Ok(Tls::new(clients.clone(), settings))
    }
}

/// What the services have to do with the rest of the controller.
pub(super) struct Part<'c> {
    pub(super) clients: &'c Clients,
    pub(super) namespace: &'c str,
    pub(super) leadership: &'c watch::Receiver<Leadership>,
    pub(super) stop: &'c watch::Receiver<bool>,
}

impl Part<'_> {
    /// Serves the webhooks in `tasks`, if they are wanted; when they are served no more.
    ///
    /// Errors: the port is taken or forbidden, or an argument can't be meant.
    pub(super) async fn start(
        self,
        admission: AdmissionArguments,
        tls: TlsArguments,
        config: &Config,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Serving> {
        let AdmissionArguments {
            webhook_port,
            webhook_service,
            webhook_owner,
            webhook_failure_policy,
            service_account,
        } = admission;
        let Some(port) = webhook_port else {
            return Ok(Serving::nothing());
        };
        let tls = tls.tls(self.clients, self.namespace, &webhook_service)?;
        let rules = Rules {
            families: Families {
                ipv4: config.enable_ipv4,
                ipv6: config.enable_ipv6,
            },
            subnets: config.enable_spider_subnet,
        };
        let settings = publish::Settings {
            name: webhook_service.clone(),
            owner: webhook_owner,
            service: (self.namespace.to_owned(), webhook_service),
            port: SERVICE_PORT,
            failure_policy: match webhook_failure_policy {
                Policy::Ignore => FailurePolicy::Ignore,
                Policy::Fail => FailurePolicy::Fail,
            },
            user: format!("system:serviceaccount:{}:{service_account}", self.namespace),
        };
        let listener = ports::bind(port, "the webhooks").await?;
        let router = webhook::router(self.clients.read.clone(), rules);
        let (served, stop) = (tls.server_config()?, self.stop.clone());
        let service = tls::serve(listener, served, router, stop.clone());
        let (service, serving) = watched(service, stop);
        tasks.spawn(service);
        let (client, leadership) = (self.clients.write.clone(), self.leadership.clone());
        tasks.spawn(publish::run(client, settings, tls.trust(), leadership));
        tasks.spawn(tls.run());
        Ok(serving)
    }
}

/// Ends with the last request.
pub(super) struct Serving(oneshot::Receiver<()>);

impl Serving {
    /// Of what is not served at all.
    fn nothing() -> Self {
        Self(oneshot::channel().1)
    }

    /// Waits for the requests under way of a service that was told to stop, and not for ever.
    pub(super) async fn ended(self) {
        // Nothing is ever sent: the service drops its end.
        if timeout(REQUESTS_END, self.0).await.is_err() {
            tracing::warn!("requests to the webhooks are cut off: they did not end in time");
        }
    }
}

/// `service` as a task of the controller. Told to stop, a service ends before the controller does,
/// which is not to be taken for a failure.
pub(super) fn watched(
    service: impl Future<Output = Result<(), ServeError>>,
    stop: watch::Receiver<bool>,
) -> (impl Future<Output = ()>, Serving) {
    let (serves, over) = oneshot::channel::<()>();
    let task = async move {
        if let Err(error) = service.await {
            tracing::error!(error = %ErrorChain(&error), "webhooks are no longer served");
        }
        drop(serves);
        if *stop.borrow() {
            std::future::pending::<()>().await;
        }
    };
    (task, Serving(over))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_number_with_its_unit() {
        let read = |text: &str| lifetime(text).ok().map(|time| time.num_seconds());
        assert_eq!(read("90d"), Some(7_776_000));
        assert_eq!(
            [read("2h"), read("3m"), read("4s")],
            [Some(7200), Some(180), Some(4)]
        );
        for wrong in [
            "",
            "d",
            "90",
            "0d",
            "-1d",
            "1.5h",
            "9µ",
            "36501d",
            "99999999999999999999d",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
