use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::UnixTime;

use super::*;

const NAMES: [&str; 2] = ["a.kube-system.svc", "10.0.0.7"];

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn lifetimes() -> Lifetimes {
    Lifetimes {
        authority: TimeDelta::seconds(12_000),
        certificate: TimeDelta::seconds(900),
    }
}

fn names() -> Vec<String> {
    NAMES.map(str::to_owned).to_vec()
}

/// Whether a client that trusts `bundle` takes `leaf` at `now`.
fn is_trusted(bundle: &str, leaf: &Leaf, now: DateTime<Utc>) -> bool {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        now.timestamp().try_into().unwrap(),
    ));
    let takes = |name: &str| {
        let name = name.to_owned().try_into().unwrap();
        verifier
            .verify_server_cert(&leaf.chain[0], &[], &name, &[], now)
            .is_ok()
    };
    NAMES.into_iter().all(takes)
}

/// Two and a half generations, a look every ten seconds: a client that read the bundle up to one
/// overlap ago takes every certificate of every replica that looked up to a minute ago.
#[test]
fn nobody_ever_meets_a_certificate_that_it_cannot_verify() {
    let lifetimes = lifetimes();
    let overlap = lifetimes.overlap().num_seconds();
    let mut stored: Option<Authority> = None;
    let mut bundles: Vec<(i64, String)> = vec![];
    let mut leaf: Option<Leaf> = None;
    let (mut authorities, mut most) = (std::collections::BTreeSet::new(), 0);
    for now in (0..30_000).step_by(10) {
        let authority = Authority::step(stored.as_ref(), at(now), &lifetimes).unwrap();
        let written = authority.write();
        assert!(
            Authority::read(&written).unwrap().as_ref() == Some(&authority),
            "written and read are the same"
        );
        let bundle = authority.bundle();
        most = most.max(bundle.matches("BEGIN CERTIFICATE").count());
        authorities.insert(authority.signing.anchor.pem.clone());
        if bundles.last().is_none_or(|(_, known)| *known != bundle) {
            bundles.push((now, bundle));
        }
        // This replica looks once a minute only.
        let stale = leaf
            .as_ref()
            .is_none_or(|l| !authority.stands_by(l, at(now)));
        if now == 0 || (now % 60 == 0 && stale) {
            leaf = Some(authority.issue(&names(), at(now), &lifetimes).unwrap());
        }
        for (told, bundle) in &bundles {
            let next = bundles.iter().find(|(later, _)| later > told);
            let in_use = next.is_none_or(|(replaced, _)| now < replaced + overlap);
            if in_use {
                assert!(
                    is_trusted(bundle, leaf.as_ref().unwrap(), at(now)),
                    "{told} {now}"
                );
            }
        }
        stored = Some(authority);
    }
    assert_eq!((authorities.len(), most), (4, 2));
}

#[test]
fn a_step_is_due_when_it_is_said_to_be_and_not_before() {
    let lifetimes = lifetimes();
    let mut authority = Authority::step(None, at(0), &lifetimes).unwrap();
    for _ in 0..8 {
        let due = authority.due(&lifetimes);
        let before = due - TimeDelta::seconds(1);
        let still = Authority::step(Some(&authority), before, &lifetimes).unwrap();
        assert!(still == authority, "nothing to do before {due}");
        let next = Authority::step(Some(&authority), due, &lifetimes).unwrap();
        assert!(next != authority, "something to do at {due}");
        authority = next;
    }
}

#[test]
fn an_authority_that_expired_while_nobody_ran_is_replaced_at_once() {
    let lifetimes = lifetimes();
    let first = Authority::step(None, at(0), &lifetimes).unwrap();
    let next = Authority::step(Some(&first), at(12_000), &lifetimes).unwrap();
    assert!(next.signing != first.signing && next.old.is_none());
    let leaf = next.issue(&names(), at(12_000), &lifetimes).unwrap();
    assert!(is_trusted(&next.bundle(), &leaf, at(12_001)));
    assert!(!is_trusted(&first.bundle(), &leaf, at(11_999)));
}

#[test]
fn a_certificate_never_outlives_its_authority() {
    let lifetimes = lifetimes();
    let authority = Authority::step(None, at(0), &lifetimes).unwrap();
    let leaf = authority.issue(&names(), at(11_700), &lifetimes).unwrap();
    assert!(is_trusted(&authority.bundle(), &leaf, at(11_999)));
    assert!(!is_trusted(&authority.bundle(), &leaf, at(12_001)));
    assert_eq!(leaf.renew(), at(11_900));
}

#[test]
fn a_secret_that_was_tampered_with_is_told_by_key_and_never_overwritten() {
    let authority = Authority::step(None, at(0), &lifetimes()).unwrap();
    let mut data = authority.write();
    data.insert("ca.crt".into(), ByteString(b"oops".to_vec()));
    let told = Authority::read(&data).err().unwrap().to_string();
    assert!(told.starts_with("ca.crt is unreadable"), "{told}");
    let mut data = authority.write();
    data.remove("ca.key");
    let told = Authority::read(&data).err().unwrap().to_string();
    assert!(told.starts_with("ca.key is missing"), "{told}");
    assert!(Authority::read(&BTreeMap::new()).unwrap().is_none());
}

#[test]
fn what_is_made_lasts_ten_years_and_ninety_days_with_a_day_between() {
    let lifetimes = Lifetimes::default();
    let authority = Authority::step(None, at(0), &lifetimes).unwrap();
    assert_eq!(authority.signing.anchor.until, at(3650 * 86_400));
    assert_eq!(lifetimes.overlap(), TimeDelta::days(1));
    let leaf = authority.issue(&names(), at(0), &lifetimes).unwrap();
    assert_eq!(leaf.renew(), at(60 * 86_400));
}
