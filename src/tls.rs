//! This product's own certificates: made, shared by the replicas, replaced while they are in use.
//!
//! Owns: one Secret, the certificate that this replica serves with, and the word what clients must
//! trust ([`Tls::trust`]). Never does: tell the clients; whoever serves them publishes the bundle.
//! Invariants: every service of a replica has the one certificate, exchanged between two
//! handshakes; what must be trusted is published [`Lifetimes::overlap`] before it is used (what others
//! made, a look before); the Secret is written at the version that was read, so replicas that act at
//! once make one authority.
//!
//! Read next: `authority.rs` for when what is replaced, `given.rs` for what others replace, [`serve()`]
//! for connections.

mod authority;
mod given;
mod serve;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::error::ErrorChain;
use crate::kube_io::clients::Clients;
use crate::kube_io::put::{self, Part, PutError, Reply};
use crate::kube_io::retry::{Backoff, Outcome};
use crate::kube_io::time;

use authority::{Authority, Leaf};
pub use authority::{AuthorityError, Lifetimes};
use given::Handover;
pub use serve::{ServeError, serve};

/// The Secret is looked at this often, for what another replica or a person changed.
const LOOK: Duration = Duration::from_secs(60);
/// First and longest cap of the pause after a look that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Keys of a Secret that others keep (`kubernetes.io/tls`, as cert-manager writes them).
const GIVEN: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Who makes the certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This process: the Secret holds the authority that the replicas share.
    SelfMade(Lifetimes),
    /// A person or cert-manager: the Secret holds `tls.crt`, `tls.key` and `ca.crt`.
    Given,
}

/// What the certificates are for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret, which the chart makes.
    pub secret: String,
    /// DNS names and addresses by which clients know the services.
    pub names: Vec<String>,
    /// Who makes them.
    pub source: Source,
}

/// What clients must trust, in PEM form; empty where the certificate is one of a public authority.
pub type Bundle = String;

/// The certificate of this process, kept current by [`Tls::run`]. Clones share it.
#[derive(Clone)]
pub struct Tls {
    settings: Arc<Settings>,
    clients: Clients,
    current: Arc<Current>,
    trust: watch::Sender<Option<Bundle>>,
}

/// What a handshake takes.
#[derive(Default)]
struct Current(RwLock<Option<Arc<CertifiedKey>>>);

/// What looks before this one left.
#[derive(Default)]
struct Seen {
    /// The certificate that this process made.
    leaf: Option<Leaf>,
    /// The authorities of others.
    given: Handover,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("Secret {0} can't be read: the chart makes it, and the right to read it")]
    Read(String, #[source] kube::Error),
    #[error("Secret {0}")]
    Authority(String, #[source] AuthorityError),
    #[error("Secret {0} could not be written")]
    Write(String, #[source] Box<PutError>),
    #[error("Secret {0} has no usable {1} yet")]
    Given(String, &'static str),
    #[error("Secret {0}: certificate and key can't be used")]
    Unusable(String, #[source] rustls::Error),
}

impl TlsError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Write(_, error) => error.outcome(),
            Self::Read(..) | Self::Authority(..) | Self::Given(..) | Self::Unusable(..) => {
                Outcome::Unknown
            }
        }
    }
}

impl Tls {
    /// Without a certificate until [`Self::run`] has one; until then handshakes fail.
    pub fn new(clients: Clients, settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            clients,
            current: Arc::default(),
            trust: watch::channel(None).0,
        }
    }

    /// What a server of this process needs: HTTP/1.1 over TLS 1.2 or 1.3, with whatever certificate
    /// is current at each handshake.
    ///
    /// Errors: never in practice; the library's defaults would have to exclude each other.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider());
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// What clients must trust, as soon as it is known, and whenever it changes.
    pub fn trust(&self) -> watch::Receiver<Option<Bundle>> {
        self.trust.subscribe()
    }

    /// Keeps the certificate current, for ever. What fails is logged and tried again, and the last
    /// certificate serves on.
    pub async fn run(self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut seen = Seen::default();
        loop {
            let pause = match self.look(&mut seen, time::now()).await {
                Ok(due) => {
                    backoff.reset();
                    let due = due.map(|at| (at - time::now()).to_std().unwrap_or_default());
                    due.unwrap_or(LOOK).min(LOOK)
                }
                Err(error) => {
                    if error.outcome() == Outcome::Conflict {
                        tracing::debug!("another replica wrote the authority; reading it again");
                    } else {
                        tracing::warn!(error = %ErrorChain(&error), "no new certificate; trying again");
                    }
                    backoff.next_delay_for(error.outcome())
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One look at the Secret, and what follows from it; when the next thing is due.
    async fn look(
        &self,
        seen: &mut Seen,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, TlsError> {
        let name = || format!("{}/{}", self.settings.namespace, self.settings.secret);
        let api: Api<Secret> = Api::namespaced(self.clients.read.clone(), &self.settings.namespace);
        let secret = api.get(&self.settings.secret).await;
        let secret = secret.map_err(|error| TlsError::Read(name(), error))?;
        let lifetimes = match &self.settings.source {
            Source::SelfMade(lifetimes) => lifetimes,
            Source::Given => {
                let data = secret.data.unwrap_or_default();
                return self.given(&mut seen.given, &data, now);
            }
        };
        let wrong = |error| TlsError::Authority(name(), error);
        let stored = Authority::read(&secret.data.clone().unwrap_or_default()).map_err(wrong)?;
        let authority = Authority::step(stored.as_ref(), now, lifetimes).map_err(wrong)?;
        if stored.as_ref() != Some(&authority) {
            self.write(secret, &authority).await?;
        }
        self.publish(authority.bundle());
        let leaf = &mut seen.leaf;
        let kept = if let Some(kept) = leaf.take_if(|leaf| authority.stands_by(leaf, now)) {
            kept
        } else {
            let new = authority
                .issue(&self.settings.names, now, lifetimes)
                .map_err(wrong)?;
            self.exchange(new.chain.clone(), new.key.clone_key(), &name())?;
            tracing::info!(renew = %new.renew(), "serving with a new certificate");
            new
        };
        let due = authority.due(lifetimes).min(kept.renew());
        *leaf = Some(kept);
        Ok(Some(due))
    }

    async fn write(&self, mut secret: Secret, authority: &Authority) -> Result<(), TlsError> {
        secret.data = Some(authority.write());
        put::replace(
            &self.clients.write,
            Part::Main,
            &mut secret,
            Reply::MetadataOnly,
        )
        .await
        .map_err(|error| {
            let Settings {
                namespace, secret, ..
            } = &*self.settings;
            TlsError::Write(format!("{namespace}/{secret}"), error.into())
        })?;
        tracing::info!("the certificate authority was made or moved on by a step");
        Ok(())
    }

    /// Takes what others put there; when the next thing is due.
    fn given(
        &self,
        handover: &mut Handover,
        data: &BTreeMap<String, ByteString>,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, TlsError> {
        let name = format!("{}/{}", self.settings.namespace, self.settings.secret);
        let [certificate, key, authority] = GIVEN;
        let bytes = |key| data.get(key).map(|value| value.0.as_slice());
        let missing = |key| TlsError::Given(name.clone(), key);
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(bytes(certificate).unwrap_or_default()).collect();
        let chain = chain.map_err(|_| missing(certificate))?;
        if chain.is_empty() {
            return Err(missing(certificate));
        }
        let key = PrivateKeyDer::from_pem_slice(bytes(key).unwrap_or_default())
            .map_err(|_| missing(key))?;
        let trusted = String::from_utf8_lossy(bytes(authority).unwrap_or_default()).into_owned();
        let step = handover.step(&trusted, now);
        self.publish(step.bundle);
        if step.exchange {
            self.exchange(chain, key, &name)?;
        }
        Ok(step.due)
    }

    fn publish(&self, bundle: Bundle) {
        self.trust.send_if_modified(|known| {
            let changes = known.as_ref() != Some(&bundle);
            *known = Some(bundle);
            changes
        });
    }

    fn exchange(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        name: &str,
    ) -> Result<(), TlsError> {
        let certified = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| TlsError::Unusable(name.to_owned(), error))?;
        let mut current = self
            .current
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Some(Arc::new(certified));
        Ok(())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the current certificate")
    }
}

#[cfg(test)]
mod tests;
