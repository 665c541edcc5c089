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
/// below the mapped block and end above it.
fn has_mapped(range: &Range) -> bool {
    let (low, high) = MAPPED;
    range.family() == Family::V6
        && range.first() <= IpAddr::V6(high)
        && IpAddr::V6(low) <= range.last()
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

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn fault(text: &str, family: Family) -> RangeTextFault {
        parse_range(text, family).unwrap_err().fault
    }

    fn label(net: &str) -> String {
        cidr_label(&net.parse().unwrap())
    }

    #[test]
    fn an_address_or_two_make_a_range() {
        for (text, family, first, last) in [
            ("10.0.0.1", Family::V4, "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1-10.0.0.9", Family::V4, "10.0.0.1", "10.0.0.9"),
            ("10.0.0.1-10.0.0.1", Family::V4, "10.0.0.1", "10.0.0.1"),
            (
                "0.0.0.0-255.255.255.255",
                Family::V4,
                "0.0.0.0",
                "255.255.255.255",
            ),
            ("FD00::00AB-fd00::1:0", Family::V6, "fd00::ab", "fd00::1:0"),
            (
                "64:ff9b::10.0.0.1",
                Family::V6,
                "64:ff9b::a00:1",
                "64:ff9b::a00:1",
            ),
        ] {
            let ends = Range::new(first.parse().unwrap(), last.parse().unwrap()).unwrap();
            assert_eq!(parse_range(text, family), Ok(ends), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_of_the_family_is_refused() {
        for (text, family, end) in [
            ("", Family::V4, ""),
            ("-", Family::V4, ""),
            ("10.0.0.1-", Family::V4, ""),
            ("-10.0.0.1", Family::V4, ""),
            (" 10.0.0.1", Family::V4, " 10.0.0.1"),
            ("10.0.0.1 - 10.0.0.2", Family::V4, "10.0.0.1 "),
            ("10.0.0.1-10.0.0.2\n", Family::V4, "10.0.0.2\n"),
            (
                "10.0.0.1-10.0.0.2-10.0.0.3",
                Family::V4,
                "10.0.0.2-10.0.0.3",
            ),
            ("10.0.0.0/24", Family::V4, "10.0.0.0/24"),
            ("10.0.0.01", Family::V4, "10.0.0.01"),
            ("10.0.1", Family::V4, "10.0.1"),
            ("10.0.0.256", Family::V4, "10.0.0.256"),
            ("0x0a.0.0.1", Family::V4, "0x0a.0.0.1"),
            ("fd00::1", Family::V4, "fd00::1"),
            ("10.0.0.1", Family::V6, "10.0.0.1"),
            ("10.0.0.1-fd00::1", Family::V6, "10.0.0.1"),
            ("fe80::1%eth0", Family::V6, "fe80::1%eth0"),
            ("[fd00::1]", Family::V6, "[fd00::1]"),
            ("fd00::1-10", Family::V6, "10"),
            ("64:ff9b::10.0.0.01", Family::V6, "64:ff9b::10.0.0.01"),
        ] {
            let wanted = RangeTextFault::NotAnAddress {
                end: end.to_owned(),
                family,
            };
            assert_eq!(fault(text, family), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_reversed_range_is_refused_not_swapped() {
        let reversed = fault("10.0.0.9-10.0.0.1", Family::V4);
        assert!(matches!(
            reversed,
            RangeTextFault::Ends(RangeError::Reversed { .. })
        ));
    }

    #[test]
    fn no_range_has_an_ipv4_mapped_address() {
        for text in [
            "::ffff:10.0.0.1",
            "::ffff:a00:1",
            "::ffff:0:0",
            "::ffff:ffff:ffff",
            "::fffe:ffff:ffff-::ffff:0:0",
            "::ffff:ffff:ffff-::1:0:0:0",
            "::-ffff::",
        ] {
            assert!(
                matches!(fault(text, Family::V6), RangeTextFault::Mapped { .. }),
                "{text}"
            );
        }
        for text in ["::-::fffe:ffff:ffff", "::1:0:0:0-ffff::"] {
            assert!(parse_range(text, Family::V6).is_ok(), "{text}");
        }
        // The same numbers in IPv4 are just IPv4 addresses.
        assert!(parse_range("0.0.0.0-255.255.255.255", Family::V4).is_ok());
    }

    #[test]
    fn an_error_prints_the_known_message_and_keeps_the_cause_apart() {
        let v4 = parse_range("10.0.0.9-10.0.0.1", Family::V4).unwrap_err();
        assert_eq!(
            v4.to_string(),
            "invalid IP range format in IPv4 '10.0.0.9-10.0.0.1'"
        );
        assert_eq!(
            v4.source().unwrap().to_string(),
            "range 10.0.0.9-10.0.0.1 ends below its start: swap the ends"
        );
        let v6 = parse_list(&["fd00::1", "fd00::/64", "x"], Family::V6).unwrap_err();
        assert_eq!((v6.text(), v6.family()), ("fd00::/64", Family::V6));
        assert_eq!(
            v6.to_string(),
            "invalid IP range format in IPv6 'fd00::/64'"
        );
        assert_eq!(
            v6.fault().to_string(),
            "'fd00::/64' is not an IPv6 address: write one address, or two joined by '-'"
        );
    }

    #[test]
    fn a_list_is_written_in_one_way_only() {
        let texts = [
            "10.0.0.3",
            "10.0.0.1-10.0.0.2",
            "10.0.0.10",
            "10.0.0.9-10.0.0.9",
        ];
        let set = parse_list(&texts, Family::V4).unwrap();
        assert_eq!(set.to_texts(), ["10.0.0.1-10.0.0.3", "10.0.0.9-10.0.0.10"]);
        let set = parse_list(&["FD00:0:0::1".to_owned()], Family::V6).unwrap();
        assert_eq!(set.to_texts(), ["fd00::1"]);
        assert_eq!(parse_list::<&str>(&[], Family::V6), Ok(AddrSet::new()));
    }

    #[test]
    fn a_cidr_label_has_no_separator_that_a_label_refuses() {
        assert_eq!(label("172.18.41.0/24"), "172-18-41-0-24");
        assert_eq!(label("fd00:6::/64"), "fd00-6---64");
        assert_eq!(
            label("2001:db8:1:2:3:4:5:0/112"),
            "2001-db8-1-2-3-4-5-0-112"
        );
    }

    #[test]
    fn a_cidr_label_starts_with_a_letter_or_a_digit() {
        assert_eq!(label("::/0"), "0---0");
        assert_eq!(label("::/64"), "0---64");
        assert_eq!(label("::1:0/112"), "0--1-0-112");
        assert_eq!(label("0.0.0.0/0"), "0-0-0-0-0");
    }
}
