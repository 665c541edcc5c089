//! What a pool or subnet says of itself: its family, CIDR, addresses, gateway and routes.
//!
//! Both kinds have these fields, and the same rules for them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Families, Refusal, address, outside};
use crate::addr::{AddrSet, Family, Range, parse_list, parse_range};
use crate::pool::Route;

/// Which kind of object a draft is of, as texts name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A SpiderIPPool.
    Pool,
    /// A SpiderSubnet.
    Subnet,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Pool => "IPPool",
            Self::Subnet => "Subnet",
        }
    }
}

/// A pool or subnet as it was written, unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft<'w> {
    /// Of which kind.
    pub kind: Kind,
    /// `spec.ipVersion`.
    pub ip_version: Option<i64>,
    /// `spec.subnet`.
    pub subnet: &'w str,
    /// `spec.ips`.
    pub ips: &'w [String],
    /// `spec.excludeIPs`.
    pub excluded: &'w [String],
    /// `spec.gateway`.
    pub gateway: Option<&'w str>,
    /// `spec.routes`.
    pub routes: Vec<Route>,
}

/// What a draft says, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The CIDR; its family is the object's.
    pub cidr: IpNet,
    /// `ips` − `excludeIPs`, as far as they could be read.
    pub total: AddrSet,
}

/// What was left out of a draft and follows from the rest of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// `spec.ipVersion`.
    pub ip_version: i64,
    /// The CIDR that the object's label names.
    pub cidr: IpNet,
    /// `spec.ips`, sorted and joined, where that is another text.
    pub ips: Option<Vec<String>>,
    /// `spec.excludeIPs`, likewise.
    pub excluded: Option<Vec<String>>,
}

/// The defaults of `draft`; `None` where its family is unknown.
///
/// Ranges that can't be read stay as they are, for [`read`] to refuse. Cost: O(k log k).
pub fn defaults(draft: &Draft<'_>) -> Option<Defaults> {
    let cidr: IpNet = draft.subnet.parse().ok()?;
    let family = Family::of(cidr.addr());
    Some(Defaults {
        ip_version: draft.ip_version.unwrap_or(family.version().into()),
        cidr: cidr.trunc(),
        ips: joined(draft.ips, family),
        excluded: joined(draft.excluded, family),
    })
}

/// Several ranges in canonical form; `None` where they are so already or can't be read.
pub(super) fn joined(texts: &[String], family: Family) -> Option<Vec<String>> {
    if texts.len() < 2 {
        return None;
    }
    let joined = parse_list(texts, family).ok()?.to_texts();
    (joined != texts).then_some(joined)
}

/// Reads `draft`, and says all that is wrong with it alone.
///
/// Without a family or a CIDR nothing else can be read: then there is one refusal and no
/// [`Fields`]. Cost: O(k log k) in ranges and routes.
pub fn read(draft: &Draft<'_>, families: Families) -> (Option<Fields>, Vec<Refusal>) {
    let cidr = match family(draft, families).and_then(|family| cidr(draft.subnet, family)) {
        Ok(cidr) => cidr,
        Err(refusal) => return (None, vec![refusal]),
    };
    let mut refused = vec![];
    let ips = ranges("spec.ips", draft.ips, &cidr, draft.kind, &mut refused);
    let excluded = ranges(
        "spec.excludeIPs",
        draft.excluded,
        &cidr,
        draft.kind,
        &mut refused,
    );
    let total = ips.difference(&excluded);
    gateway(draft, &cidr, &excluded, &mut refused);
    routes(draft, &cidr, &mut refused);
    (Some(Fields { cidr, total }), refused)
}

/// The family that `spec.ipVersion` names, or `spec.subnet` shows.
fn family(draft: &Draft<'_>, families: Families) -> Result<Family, Refusal> {
    let field = "spec.ipVersion";
    let shown = || draft.subnet.parse::<IpNet>().ok();
    let family = match draft.ip_version {
        Some(version) => Family::from_version(version).ok_or_else(|| unsupported(version))?,
        None => Family::of(
            shown()
                .ok_or_else(|| {
                    let detail = "is not generated correctly, 'spec.subnet' may be invalid";
                    Refusal::invalid(field, "null", detail)
                })?
                .addr(),
        ),
    };
    enabled(family, families)?;
    Ok(family)
}

pub(super) fn unsupported(version: i64) -> Refusal {
    Refusal {
        field: "spec.ipVersion".to_owned(),
        fault: super::Fault::Unsupported {
            shown: version.to_string(),
            supported: "\"4\", \"6\"",
        },
    }
}

pub(super) fn enabled(family: Family, families: Families) -> Result<(), Refusal> {
    if families.serve(family) {
        return Ok(());
    }
    let detail = format!("{family} is disabled");
    Err(Refusal::forbidden("spec.ipVersion", detail))
}

fn cidr(text: &str, family: Family) -> Result<IpNet, Refusal> {
    let parsed: Option<IpNet> = text.parse().ok();
    let Some(cidr) = parsed.filter(|net| Family::of(net.addr()) == family) else {
        let detail = format!("invalid CIDR format in {family} '{text}'");
        return Err(Refusal::invalid("spec.subnet", text, detail));
    };
    let canonical = cidr.trunc().to_string();
    if canonical != text {
        let detail = format!("unformatted subnet {text}, please change it to {canonical}");
        return Err(Refusal::invalid("spec.subnet", text, detail));
    }
    Ok(cidr)
}

/// The ranges that can be read; the others, and those outside of the CIDR, are refused one by one.
fn ranges(
    field: &str,
    texts: &[String],
    cidr: &IpNet,
    kind: Kind,
    refused: &mut Vec<Refusal>,
) -> AddrSet {
    let family = Family::of(cidr.addr());
    let mut read: Vec<Range> = vec![];
    for (place, text) in texts.iter().enumerate() {
        match range(&format!("{field}[{place}]"), text, family) {
            Err(refusal) => refused.push(refusal),
            Ok(range) => {
                let stray = outside(&AddrSet::from(range), cidr);
                if !stray.is_empty() {
                    let detail = pertains(cidr, kind);
                    let detail = format!("{detail}: take {stray} out");
                    refused.push(Refusal::invalid(format!("{field}[{place}]"), text, detail));
                }
                read.push(range);
            }
        }
    }
    read.into_iter().collect()
}

/// One range of `family`, refused in the original's words and ours.
pub(super) fn range(field: &str, text: &str, family: Family) -> Result<Range, Refusal> {
    parse_range(text, family)
        .map_err(|error| Refusal::invalid(field, text, format!("{error}: {}", error.fault())))
}

fn pertains(cidr: &IpNet, kind: Kind) -> String {
    format!(
        "not pertains to the 'spec.subnet' {cidr} of {}",
        kind.word()
    )
}

fn gateway(draft: &Draft<'_>, cidr: &IpNet, excluded: &AddrSet, refused: &mut Vec<Refusal>) {
    let Some(text) = draft.gateway.filter(|text| !text.is_empty()) else {
        return;
    };
    let Some(gateway) = next_hop("spec.gateway", text, (cidr, draft.kind), refused) else {
        return;
    };
    if excluded.contains(gateway) {
        return;
    }
    let family = Family::of(gateway);
    let holds = |text: &str| parse_range(text, family).is_ok_and(|range| range.contains(gateway));
    if let Some((place, range)) = draft.ips.iter().enumerate().find(|(_, text)| holds(text)) {
        let detail = format!(
            "conflicts with 'spec.gateway' {gateway}, add the gateway IP address to \
             'spec.excludeIPs' or remove it from 'spec.ips'"
        );
        refused.push(Refusal::invalid(
            format!("spec.ips[{place}]"),
            range,
            detail,
        ));
    }
}

/// An address of the CIDR's own.
fn next_hop(
    field: &str,
    text: &str,
    (cidr, kind): (&IpNet, Kind),
    refused: &mut Vec<Refusal>,
) -> Option<IpAddr> {
    let family = Family::of(cidr.addr());
    let found = address(text, family);
    let detail = match found {
        Some(hop) if cidr.contains(&hop) => return Some(hop),
        Some(_) => format!(
            "{}: a next hop must be reached directly",
            pertains(cidr, kind)
        ),
        None => format!("invalid IP format in {family} '{text}'"),
    };
    refused.push(Refusal::invalid(field, text, detail));
    None
}

fn routes(draft: &Draft<'_>, cidr: &IpNet, refused: &mut Vec<Refusal>) {
    let family = Family::of(cidr.addr());
    let mut seen = BTreeSet::new();
    for (place, Route { dst, gw }) in draft.routes.iter().enumerate() {
        let field = format!("spec.routes[{place}].dst");
        let net: Option<IpNet> = dst.parse().ok();
        let net = net.filter(|net| Family::of(net.addr()) == family);
        let detail = match net.map(|net| net.trunc()) {
            None => Some(format!("invalid CIDR format in {family} '{dst}'")),
            Some(net) if net.prefix_len() == 0 => {
                Some("please specify 'spec.gateway' to configure the default route".to_owned())
            }
            Some(net) if !seen.insert(net) => {
                Some("duplicate route with the same dst: keep one of them".to_owned())
            }
            Some(_) => None,
        };
        refused.extend(detail.map(|detail| Refusal::invalid(field, dst, detail)));
        let field = format!("spec.routes[{place}].gw");
        next_hop(&field, gw, (cidr, draft.kind), refused);
    }
}
