//! How the leader's allocator is found and known: two annotations on the Lease it holds anyway.
//!
//! Owns: the certificate that a replica serves with, made by itself, and what agents verify it by.
//! The private keys never leave the process: each has an authority of its own, whose certificate
//! stands on the Lease beside the address. Both are written by whoever may write the Lease, which is
//! the controller alone, and they change together, so an agent never tries one leader's address
//! with another's certificate. Agents verify a fixed name, not the address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::api::names::annotation::{ALLOCATOR, ALLOCATOR_CA};
use crate::kube_io::lease;

/// The name in the certificate.
const SERVER: &str = "allocator.orbweaver.io";
/// The protocol of both sides.
const ALPN: &[u8] = b"h2";
/// The audience of the tokens that agents show.
pub const AUDIENCE: &str = "allocator.orbweaver.io";

/// Why there is no certificate, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// It could not be made.
    #[error("the allocator's certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// It could not be used.
    #[error("the allocator's certificate can't be used")]
    Use(#[from] rustls::Error),
    /// The key could not be read back.
    #[error("the allocator's key can't be used: {0}")]
    Key(&'static str),
}

/// Why the Lease does not lead to an allocator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unannounced {
    /// Nobody holds it.
    #[error("no controller holds the Lease")]
    NoLeader,
    /// Its holder has no allocator.
    #[error("the controller that holds the Lease announces no allocator")]
    NoAllocator,
    /// What is announced can't be used.
    #[error("annotation {key} of the Lease: {reason}")]
    Unusable {
        /// Which annotation.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a replica serves with, and what it puts on the Lease.
pub struct Identity {
    /// For the listener.
    pub server: Arc<ServerConfig>,
    authority: String,
}

impl Identity {
    /// A new one; nobody else has its keys.
    ///
    /// Errors: [`AnnounceError`].
    pub fn new() -> Result<Self, AnnounceError> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "orbweaver allocator authority");
        let authority_key = KeyPair::generate()?;
        let pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![SERVER.to_owned()])?.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(AnnounceError::Key)?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            server: Arc::new(server),
            authority: pem,
        })
    }

    /// The annotations of a Lease whose holder serves at `address`.
    pub fn annotations(&self, address: SocketAddr) -> lease::Announced {
        BTreeMap::from([
            (ALLOCATOR, Some(address.to_string())),
            (ALLOCATOR_CA, Some(self.authority.clone())),
        ])
    }
}

/// The annotations of a Lease whose holder serves nowhere.
pub fn no_annotations() -> lease::Announced {
    BTreeMap::from([(ALLOCATOR, None), (ALLOCATOR_CA, None)])
}

/// Where the leader's allocator is, and how it is known.
#[derive(Debug, Clone)]
pub struct Announced {
    /// Its address.
    pub address: SocketAddr,
    /// For the handshake.
    pub client: Arc<ClientConfig>,
    /// The name to verify.
    pub name: ServerName<'static>,
}

impl Announced {
    /// What a Lease says.
    ///
    /// Errors: [`Unannounced`].
    pub fn read(lease: &Lease) -> Result<Self, Unannounced> {
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.as_ref());
        if holder.is_none_or(String::is_empty) {
            return Err(Unannounced::NoLeader);
        }
        let told = |key| {
            let all = lease.metadata.annotations.as_ref();
            all.and_then(|all| all.get(key))
                .ok_or(Unannounced::NoAllocator)
        };
        let unusable = |key, reason: String| Unannounced::Unusable { key, reason };
        let address = told(ALLOCATOR)?
            .parse()
            .map_err(|error: std::net::AddrParseError| unusable(ALLOCATOR, error.to_string()))?;
        let wrong = |reason| unusable(ALLOCATOR_CA, reason);
        let authority = CertificateDer::from_pem_slice(told(ALLOCATOR_CA)?.as_bytes())
            .map_err(|error| wrong(error.to_string()))?;
        let mut trusted = RootCertStore::empty();
        trusted
            .add(authority)
            .map_err(|error| wrong(error.to_string()))?;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        let name = ServerName::try_from(SERVER).map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            address,
            client: Arc::new(client),
            name,
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn lease(holder: &str, announced: lease::Announced) -> Lease {
        let annotations = announced.into_iter();
        let mut lease = Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        lease.metadata.annotations = Some(
            annotations
                .filter_map(|(key, value)| Some((key.to_owned(), value?)))
                .collect(),
        );
        lease
    }

    fn address() -> SocketAddr {
        "10.0.0.1:5723".parse().unwrap()
    }

    /// Whether a handshake with `served` succeeds for who believes `announced`.
    async fn shakes(served: &Identity, announced: &Announced) -> bool {
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(Arc::clone(&served.server));
        let connector = TlsConnector::from(Arc::clone(&announced.client));
        let name = announced.name.clone();
        let (accepted, connected) =
            tokio::join!(acceptor.accept(far), connector.connect(name, near));
        let alpn = connected
            .as_ref()
            .ok()
            .and_then(|stream| stream.get_ref().1.alpn_protocol());
        accepted.is_ok() && alpn == Some(ALPN)
    }

    #[tokio::test]
    async fn the_one_that_the_lease_names_is_believed_and_no_other() {
        let (leader, other) = (Identity::new().unwrap(), Identity::new().unwrap());
        let announced = Announced::read(&lease("a", leader.annotations(address()))).unwrap();
        assert_eq!(announced.address, address());
        assert!(shakes(&leader, &announced).await);
        assert!(!shakes(&other, &announced).await);
    }

    #[test]
    fn a_lease_without_holder_or_allocator_leads_nowhere_and_a_spoilt_one_says_what_is_wrong() {
        let identity = Identity::new().unwrap();
        let read = |lease| Announced::read(&lease).unwrap_err();
        let nobody = lease("", identity.annotations(address()));
        assert_eq!(read(nobody), Unannounced::NoLeader);
        assert_eq!(read(lease("a", no_annotations())), Unannounced::NoAllocator);
        let mut spoilt = identity.annotations(address());
        spoilt.insert(ALLOCATOR_CA, Some("no certificate".to_owned()));
        let error = read(lease("a", spoilt)).to_string();
        assert!(error.contains(ALLOCATOR_CA), "{error}");
    }
}
