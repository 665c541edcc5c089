//! A reservation that a person makes or changes.
//!
//! It may name addresses that are in use: those stay in use, and are not given again.

use super::fields::{enabled, joined, range, unsupported};
use super::{Families, REFUSALS_MAX, Refusal, immutable, made_worse};
use crate::addr::{Family, parse_range};

/// A reservation as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft<'w> {
    /// `spec.ipVersion`.
    pub ip_version: Option<i64>,
    /// `spec.ips`.
    pub ips: &'w [String],
}

/// What was left out of a draft and follows from the rest of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// `spec.ipVersion`.
    pub ip_version: i64,
    /// `spec.ips`, sorted and joined, where that is another text.
    pub ips: Option<Vec<String>>,
}

/// The defaults of `draft`; `None` where its family is unknown.
pub fn defaults(draft: Draft<'_>) -> Option<Defaults> {
    let family = match draft.ip_version {
        Some(version) => Family::from_version(version)?,
        None => first_family(draft.ips)?,
    };
    Some(Defaults {
        ip_version: family.version().into(),
        ips: joined(draft.ips, family),
    })
}

/// The family of the first range.
fn first_family(ips: &[String]) -> Option<Family> {
    let first = ips.first()?;
    let mut both = [Family::V4, Family::V6].into_iter();
    both.find(|family| parse_range(first, *family).is_ok())
}

/// Judges `draft`, and what it was.
///
/// Errors: all that is wrong, at most [`REFUSALS_MAX`]. Cost: O(k log k) in ranges.
pub fn judge(
    draft: Draft<'_>,
    before: Option<Draft<'_>>,
    families: Families,
) -> Result<(), Vec<Refusal>> {
    let mut refused = said(draft, families);
    if let Some(old) = before {
        refused = made_worse(refused, &said(old, families));
        if old.ip_version.is_some() {
            refused.extend(immutable(
                "spec.ipVersion",
                &old.ip_version,
                &draft.ip_version,
            ));
        }
    }
    refused.truncate(REFUSALS_MAX);
    if refused.is_empty() {
        Ok(())
    } else {
        Err(refused)
    }
}

fn said(draft: Draft<'_>, families: Families) -> Vec<Refusal> {
    let family = match draft.ip_version {
        Some(version) => Family::from_version(version).ok_or_else(|| unsupported(version)),
        None => first_family(draft.ips).ok_or_else(|| {
            let detail = "is not generated correctly, 'spec.ips' is empty or 'spec.ips[0]' may be \
                          invalid";
            Refusal::invalid("spec.ipVersion", "null", detail)
        }),
    };
    let family = family.and_then(|family| enabled(family, families).map(|()| family));
    match family {
        Err(refusal) => vec![refusal],
        Ok(family) => {
            let ips = draft.ips.iter().enumerate();
            ips.filter_map(|(place, text)| range(&format!("spec.ips[{place}]"), text, family).err())
                .collect()
        }
    }
}
