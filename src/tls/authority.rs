//! The authority that signs this product's own certificates, and when it is replaced.
//!
//! Owns: what the shared Secret holds, and what becomes of it at a given time. Never does: IO, or
//! read a clock. Invariants:
//!
//! * a key signs only after its certificate has been in the trusted [`bundle`](Authority::bundle)
//!   for [`Lifetimes::overlap`], so whoever reads the bundle once in that time never meets a
//!   certificate that it can't verify;
//! * what signed before stays trusted until it expires, so the bundle has two authorities at most.
//!
//! ```text
//!            made         2/3: next made    + overlap: next signs   end of life
//! first      |---- signs ------------------------------|--- trusted --|
//! next                         |---- trusted ----------|---- signs --------------- …
//! ```

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use yasna::BERReader;

/// The subject of every authority: they are told apart by their keys' identifiers.
const SUBJECT: &str = "orbweaver";
/// Certificates begin this long before they are made, for clocks that are behind.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);
/// Longest time between an authority's publication and its first signature.
const OVERLAP_MAX: TimeDelta = TimeDelta::days(1);

/// Keys of the Secret.
mod key {
    pub(super) const CERTIFICATE: &str = "ca.crt";
    pub(super) const KEY: &str = "ca.key";
    pub(super) const NEXT_CERTIFICATE: &str = "next-ca.crt";
    pub(super) const NEXT_KEY: &str = "next-ca.key";
    pub(super) const OLD_CERTIFICATE: &str = "old-ca.crt";
}

/// How long what is made is valid. Each is replaced when two thirds of it are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority.
    pub authority: TimeDelta,
    /// Of a replica's own certificate.
    pub certificate: TimeDelta,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            authority: TimeDelta::days(3650),
            certificate: TimeDelta::days(90),
        }
    }
}

impl Lifetimes {
    /// How long an authority is trusted before it signs: a day, or less for short-lived ones.
    pub fn overlap(&self) -> TimeDelta {
        (self.authority / 12).min(OVERLAP_MAX)
    }
}

/// Why the authority can't be read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A value of the Secret is no certificate or key.
    #[error("{0} is unreadable: empty the Secret, and a new authority is made")]
    Unreadable(
        &'static str,
        #[source] Box<dyn std::error::Error + Send + Sync>,
    ),
    /// The Secret has a certificate without its key, or the reverse.
    #[error("{0} is missing: empty the Secret, and a new authority is made")]
    Missing(&'static str),
    /// A certificate could not be made.
    #[error("no certificate could be made for {0}")]
    Make(String, #[source] rcgen::Error),
}

/// One authority's certificate in PEM form, and from when until when it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Anchor {
    pem: String,
    made: DateTime<Utc>,
    until: DateTime<Utc>,
}

/// An authority that can sign. Its key is never printed.
#[derive(Clone, PartialEq, Eq)]
struct Signer {
    anchor: Anchor,
    key: String,
}

/// Who signs, who will, and who did.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authority {
    signing: Signer,
    next: Option<Signer>,
    old: Option<Anchor>,
}

/// A certificate of this replica with its key.
pub(super) struct Leaf {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    signed_by: String,
    renew: DateTime<Utc>,
}

impl Authority {
    /// Reads the data of the Secret; `None` where it has none yet.
    ///
    /// Errors: [`AuthorityError`]; such a Secret is left alone.
    pub(super) fn read(
        data: &BTreeMap<String, ByteString>,
    ) -> Result<Option<Self>, AuthorityError> {
        let Some(signing) = signer(data, key::CERTIFICATE, key::KEY)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            signing,
            next: signer(data, key::NEXT_CERTIFICATE, key::NEXT_KEY)?,
            old: anchor(data, key::OLD_CERTIFICATE)?,
        }))
    }

    /// The data of the Secret.
    pub(super) fn write(&self) -> BTreeMap<String, ByteString> {
        let texts = [
            (key::CERTIFICATE, Some(&self.signing.anchor.pem)),
            (key::KEY, Some(&self.signing.key)),
            (
                key::NEXT_CERTIFICATE,
                self.next.as_ref().map(|next| &next.anchor.pem),
            ),
            (key::NEXT_KEY, self.next.as_ref().map(|next| &next.key)),
            (key::OLD_CERTIFICATE, self.old.as_ref().map(|old| &old.pem)),
        ];
        let given = texts.into_iter();
        given
            .filter_map(|(key, text)| {
                Some((key.to_owned(), ByteString(text?.clone().into_bytes())))
            })
            .collect()
    }

    /// What should be there at `now`, from what is.
    ///
    /// Errors: [`AuthorityError::Make`].
    pub(super) fn step(
        stored: Option<&Self>,
        now: DateTime<Utc>,
        lifetimes: &Lifetimes,
    ) -> Result<Self, AuthorityError> {
        let Some(stored) = stored else {
            return Ok(Self {
                signing: Signer::make(now, lifetimes)?,
                next: None,
                old: None,
            });
        };
        let mut authority = stored.clone();
        authority.old.take_if(|old| old.until <= now);
        let expired = authority.signing.anchor.until <= now;
        let trusted = |next: &mut Signer| next.anchor.made + lifetimes.overlap() <= now;
        if let Some(next) = authority.next.take_if(|next| expired || trusted(next)) {
            authority.old = Some(authority.signing.anchor).filter(|_| !expired);
            authority.signing = next;
        } else if expired {
            // Nobody trusts it any more, so there is nothing to be gentle to.
            authority.signing = Signer::make(now, lifetimes)?;
        } else if authority.next.is_none() && authority.signing.anchor.renew() <= now {
            authority.next = Some(Signer::make(now, lifetimes)?);
        }
        Ok(authority)
    }

    /// When [`Self::step`] next has something to do.
    pub(super) fn due(&self, lifetimes: &Lifetimes) -> DateTime<Utc> {
        let next = match &self.next {
            Some(next) => next.anchor.made + lifetimes.overlap(),
            None => self.signing.anchor.renew(),
        };
        let old = self.old.as_ref().map_or(next, |old| old.until);
        next.min(old)
    }

    /// All that clients must trust, in PEM form.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| &next.anchor);
        let all = [Some(&self.signing.anchor), next, self.old.as_ref()];
        all.into_iter()
            .flatten()
            .map(|anchor| anchor.pem.as_str())
            .collect()
    }

    /// A certificate for `names`, DNS names and addresses, by the authority that signs now.
    ///
    /// Errors: a name that can't be in a certificate.
    pub(super) fn issue(
        &self,
        names: &[String],
        now: DateTime<Utc>,
        lifetimes: &Lifetimes,
    ) -> Result<Leaf, AuthorityError> {
        let failed = |error| AuthorityError::Make(names.join(", "), error);
        let Signer { anchor, key } = &self.signing;
        let authority_key = KeyPair::from_pem(key)
            .map_err(|error| AuthorityError::Unreadable(key::KEY, error.into()))?;
        let issuer = Issuer::new(authority_params(), authority_key);
        let certificate_key = KeyPair::generate().map_err(failed)?;
        let until = (now + lifetimes.certificate).min(anchor.until);
        let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
        params.distinguished_name = subject();
        params.not_before = into(now - CLOCKS_DIFFER);
        params.not_after = into(until);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&certificate_key, &issuer)
            .map_err(failed)?;
        Ok(Leaf {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(certificate_key.serialize_der()).into(),
            signed_by: anchor.pem.clone(),
            renew: now + (until - now) * 2 / 3,
        })
    }

    /// Whether `leaf` need not be replaced yet.
    pub(super) fn stands_by(&self, leaf: &Leaf, now: DateTime<Utc>) -> bool {
        leaf.signed_by == self.signing.anchor.pem && now < leaf.renew
    }
}

impl Leaf {
    /// When it should be replaced.
    pub(super) fn renew(&self) -> DateTime<Utc> {
        self.renew
    }
}

impl Signer {
    fn make(now: DateTime<Utc>, lifetimes: &Lifetimes) -> Result<Self, AuthorityError> {
        let failed = |error| AuthorityError::Make(SUBJECT.to_owned(), error);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = authority_params();
        params.not_before = into(now - CLOCKS_DIFFER);
        params.not_after = into(now + lifetimes.authority);
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self {
            anchor: Anchor::read(key::CERTIFICATE, pem)?,
            key: key.serialize_pem(),
        })
    }
}

impl Anchor {
    fn read(key: &'static str, pem: String) -> Result<Self, AuthorityError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| AuthorityError::Unreadable(key, error.into()))?;
        let (from, until) =
            validity(&der).map_err(|error| AuthorityError::Unreadable(key, error.into()))?;
        Ok(Self {
            pem,
            made: from + CLOCKS_DIFFER,
            until,
        })
    }

    /// When it should be replaced.
    fn renew(&self) -> DateTime<Utc> {
        self.made + (self.until - self.made) * 2 / 3
    }
}

fn subject() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, SUBJECT);
    name
}

/// What all authorities have in common, and what their signatures say of them.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn text(
    data: &BTreeMap<String, ByteString>,
    key: &'static str,
) -> Result<Option<String>, AuthorityError> {
    let Some(ByteString(bytes)) = data.get(key).filter(|value| !value.0.is_empty()) else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes.clone());
    text.map(Some)
        .map_err(|error| AuthorityError::Unreadable(key, error.into()))
}

fn anchor(
    data: &BTreeMap<String, ByteString>,
    key: &'static str,
) -> Result<Option<Anchor>, AuthorityError> {
    let pem = text(data, key)?;
    pem.map(|pem| Anchor::read(key, pem)).transpose()
}

fn signer(
    data: &BTreeMap<String, ByteString>,
    certificate: &'static str,
    key: &'static str,
) -> Result<Option<Signer>, AuthorityError> {
    match (anchor(data, certificate)?, text(data, key)?) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(AuthorityError::Missing(key)),
        (None, Some(_)) => Err(AuthorityError::Missing(certificate)),
        (Some(anchor), Some(pem)) => {
            KeyPair::from_pem(&pem)
                .map_err(|error| AuthorityError::Unreadable(key, error.into()))?;
            Ok(Some(Signer { anchor, key: pem }))
        }
    }
}

/// From when until when a certificate holds ([RFC 5280] 4.1).
///
/// [RFC 5280]: https://www.rfc-editor.org/rfc/rfc5280#section-4.1
fn validity(der: &[u8]) -> yasna::ASN1Result<(DateTime<Utc>, DateTime<Utc>)> {
    let fields = |der: &[u8]| yasna::parse_der(der, |r| r.collect_sequence_of(element));
    let certificate = fields(der)?;
    let missing = || yasna::ASN1Error::new(yasna::ASN1ErrorKind::Eof);
    // Version, serial number, algorithm, issuer, validity, …
    let signed = fields(certificate.first().ok_or_else(missing)?)?;
    let times = fields(signed.get(4).ok_or_else(missing)?)?;
    let [from, until] = times.as_slice() else {
        return Err(missing());
    };
    Ok((time(from)?, time(until)?))
}

fn element(of: BERReader<'_, '_>) -> yasna::ASN1Result<Vec<u8>> {
    of.read_der()
}

fn time(der: &[u8]) -> yasna::ASN1Result<DateTime<Utc>> {
    let seconds = yasna::parse_der(der, |r| match r.lookahead_tag()? {
        yasna::tags::TAG_UTCTIME => Ok(r.read_utctime()?.datetime().unix_timestamp()),
        _ => Ok(r.read_generalized_time()?.datetime().unix_timestamp()),
    })?;
    DateTime::from_timestamp(seconds, 0)
        .ok_or_else(|| yasna::ASN1Error::new(yasna::ASN1ErrorKind::Invalid))
}

/// The time as `rcgen` takes it.
fn into<T: From<std::time::SystemTime>>(time: DateTime<Utc>) -> T {
    std::time::SystemTime::from(time).into()
}

#[cfg(test)]
mod tests;
