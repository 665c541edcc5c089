//! Ranges and sets as text, both ways; the CIDR label value.
//!
//! ```text
//! range := ip | ip "-" ip
//! ```
//!
//! Owns the grammar of the fields `ips` and `excludeIPs`, and the canonical form in which sets are
//! stored. Never guesses: no blanks, no CIDR, no swapping of reversed ends, no IPv4 address
//! disguised as an IPv6 one.
//!
//! Invariant: what is printed here parses here to the same value, as long as the value came from
//! text: such a set has no IPv4-mapped address, whose text is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{AddrSet, Family, Range, RangeError};

/// A text that is not a range of the family it should be of.
///
/// Prints the one message clients of the API know; why the text was refused is the
/// [`fault`](Self::fault), also given as `source()`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid IP range format in {family} '{text}'")]
pub struct RangeTextError {
    family: Family,
    text: String,
    #[source]
    fault: RangeTextFault,
}

impl RangeTextError {
    /// The family the text was read as.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The whole text, as given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why it was refused.
    pub const fn fault(&self) -> &RangeTextFault {
        &self.fault
    }
}

/// What is wrong with the text of a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeTextFault {
    /// An end is no address of the family: wrong family, a leading zero in an octet, a zone, a
    /// blank, a prefix length, a third end.
    #[error("'{end}' is not an {family} address: write one address, or two joined by '-'")]
    NotAnAddress {
        /// The end, as given.
        end: String,
        /// The family it should be of.
        family: Family,
    },
    /// The range has addresses of `::ffff:0:0/96` ([RFC 4291] 2.5.5.2), which stand for IPv4
    /// addresses and are never on the wire as IPv6.
    ///
    /// [RFC 4291]: https://www.rfc-editor.org/rfc/rfc4291#section-2.5.5.2
    #[error("{range} has IPv4-mapped addresses: list IPv4 addresses as IPv4")]
    Mapped {
        /// The range, as understood.
        range: Range,
    },
    /// The ends do not make a range.
    #[error(transparent)]
    Ends(#[from] RangeError),
}

/// The first and the last IPv4-mapped IPv6 address.
const MAPPED: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xffff, 0xffff),
);

/// Reads `text` as one address or as two joined by `-`, both of `family`.
///
/// # Errors
/// [`RangeTextError`] for anything else, the reversed range and the IPv4-mapped one included.
pub fn parse_range(text: &str, family: Family) -> Result<Range, RangeTextError> {
    read(text, family).map_err(|fault| RangeTextError {
        family,
        text: text.to_owned(),
        fault,
    })
}

/// Reads every text as a range of `family` and joins them; order and overlap do not matter.
///
/// # Errors
/// The [`RangeTextError`] of the first text that is not a range. Cost: O(k log k) for `k` texts.
pub fn parse_list<S: AsRef<str>>(texts: &[S], family: Family) -> Result<AddrSet, RangeTextError> {
    texts
        .iter()
        .map(|text| parse_range(text.as_ref(), family))
        .collect()
}

/// [`parse_range`], whose errors say only why.
fn read(text: &str, family: Family) -> Result<Range, RangeTextFault> {
    // A second '-' stays in `last`, where it is part of no address.
    let range = match text.split_once('-') {
        None => Range::single(read_address(text, family)?),
        Some((first, last)) => {
            Range::new(read_address(first, family)?, read_address(last, family)?)?
        }
    };
    if has_mapped(&range) {
        Err(RangeTextFault::Mapped { range })
    } else {
        Ok(range)
    }
}

/// One end. The standard library's parser refuses leading zeros in octets, zones and blanks.
fn read_address(text: &str, family: Family) -> Result<IpAddr, RangeTextFault> {
    let addr = match family {
        Family::V4 => text.parse().map(Ipv4Addr::into),
        Family::V6 => text.parse().map(Ipv6Addr::into),
    };
    addr.map_err(|_| RangeTextFault::NotAnAddress {
        end: text.to_owned(),
        family,
    })
}

/// Whether any address of `range` is IPv4-mapped. The ends alone do not tell: a range may start
/// below the mapped block and end above it. All of IPv4 sorts below that block.
fn has_mapped(range: &Range) -> bool {
    let (low, high) = MAPPED;
    range.first() <= IpAddr::V6(high) && IpAddr::V6(low) <= range.last()
}

/// `a` for one address, `a-b` for more; IPv6 as [RFC 5952] wants it.
///
/// [RFC 5952]: https://www.rfc-editor.org/rfc/rfc5952
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first(), self.last());
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

impl AddrSet {
    /// The canonical list: as few ranges as can be, ascending.
    ///
    /// [`parse_list`] gives back a set of one family.
    pub fn to_texts(&self) -> Vec<String> {
        self.ranges().iter().map(Range::to_string).collect()
    }
}

/// `[a-b c]`: the ranges, ascending, between brackets. For people; [`AddrSet::to_texts`] is for
/// objects.
impl fmt::Display for AddrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, range) in self.ranges().iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(f, "{blank}{range}")?;
        }
        f.write_str("]")
    }
}

/// `net` as a label value: its text with every `.`, `:` and `/` turned into `-`.
///
/// A label value must [start with a letter or a digit][syntax], so a network written with a
/// leading `::` gets a `0` in front: `::/64` gives `0---64`. That is the label of no other network,
/// since no network is written `0::`.
///
/// [syntax]: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
pub fn cidr_label(net: &IpNet) -> String {
    let label = net.to_string().replace(['.', ':', '/'], "-");
    if label.starts_with('-') {
        format!("0{label}")
    } else {
        label
    }
}

/// The network that [`cidr_label`] made this of.
pub fn net_of_label(label: &str) -> Option<IpNet> {
    let (address, length) = label.rsplit_once('-')?;
    let length = length.parse().ok()?;
    let v4 = address.replace('-', ".").parse::<Ipv4Addr>();
    let v6 = || address.replace('-', ":").parse::<Ipv6Addr>();
    let address = v4.map(IpAddr::V4).or_else(|_| v6().map(IpAddr::V6));
    let net = IpNet::new(address.ok()?, length).ok()?;
    (cidr_label(&net) == label).then_some(net)
}

#[cfg(test)]
mod tests;
