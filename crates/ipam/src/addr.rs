//! Addresses: one family or two, one address or 2^128, always as intervals.
//!
//! Owns what every other module says about addresses: [`Family`], [`AddrCount`], [`Range`],
//! [`AddrSet`] and their one written form (`a` or `a-b`). Never knows what an address is *for*:
//! pools, reservations and gateways are meanings that other modules give to sets.
//!
//! Invariants, held by construction and by the exhaustive tests in `tests/addr_exhaustive.rs`:
//!
//! * a [`Range`] has one family and its first address is not above its last;
//! * an [`AddrSet`] is canonical: sorted, disjoint, neighbours joined. Hence two sets with the same
//!   members are equal, hash alike and print the same text;
//! * nothing is expanded unless an address is asked for: the cost is in ranges, not addresses, so
//!   a /8 or an IPv6 /64 costs what a /28 costs.
//!
//! Where to read next: [`AddrSet`] for the operations, `addr/text.rs` for the grammar.

mod range;
mod set;
mod text;

use std::fmt;
use std::iter::Sum;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use range::{Range, RangeError};
pub use set::{AddrSet, Shortage};
pub use text::{RangeTextError, RangeTextFault, cidr_label, net_of_label, parse_list, parse_range};

/// The IP version of an address, a range or a pool.
///
/// IPv4 sorts before IPv6, as it does in [`IpAddr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IP version 4, 32 bits.
    V4,
    /// IP version 6, 128 bits.
    V6,
}

impl Family {
    /// The family of `addr`. An IPv4-mapped IPv6 address is IPv6.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The number an object's `ipVersion` field holds: 4 or 6.
    pub const fn version(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// The family an `ipVersion` field names; `None` for every number but 4 and 6.
    pub const fn from_version(version: i64) -> Option<Self> {
        match version {
            4 => Some(Self::V4),
            6 => Some(Self::V6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// How many addresses.
///
/// Wide enough for every count but one: `::/0` has 2^128 addresses, which saturates to 2^128 - 1.
/// All arithmetic saturates, so a count can be off only where no cluster can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrCount(u128);

impl AddrCount {
    /// No address.
    pub const ZERO: Self = Self(0);

    /// A count of `addresses`.
    pub const fn new(addresses: u128) -> Self {
        Self(addresses)
    }

    /// The count as a number.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// `self + other`, at most 2^128 - 1.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self - other`, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `1 address`, `2 addresses`.
    pub fn in_words(self) -> String {
        let noun = if self.0 == 1 { "address" } else { "addresses" };
        format!("{self} {noun}")
    }

    /// The count as the `int64` of a status field, clamped at [`i64::MAX`].
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl From<u32> for AddrCount {
    fn from(addresses: u32) -> Self {
        Self(u128::from(addresses))
    }
}

impl Sum for AddrCount {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for AddrCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_4_and_6_are_versions() {
        for family in [Family::V4, Family::V6] {
            assert_eq!(Family::from_version(family.version().into()), Some(family));
        }
        for version in [i64::MIN, -4, 0, 5, 46, i64::MAX] {
            assert_eq!(Family::from_version(version), None, "{version}");
        }
    }

    #[test]
    fn a_family_prints_its_name_and_keeps_to_a_width() {
        assert_eq!(format!("{} {:>6}|", Family::V4, Family::V6), "IPv4   IPv6|");
    }

    #[test]
    fn counts_saturate_instead_of_wrapping() {
        let (max, one) = (AddrCount::new(u128::MAX), AddrCount::from(1));
        assert_eq!(max.saturating_add(one), max);
        assert_eq!(AddrCount::ZERO.saturating_sub(one), AddrCount::ZERO);
        assert_eq!([max, one, one].into_iter().sum::<AddrCount>(), max);
        assert_eq!([one, one].into_iter().sum::<AddrCount>().get(), 2);
    }

    #[test]
    fn a_status_field_shows_at_most_the_largest_int64() {
        let largest = 9_223_372_036_854_775_807_u128;
        let wire = |count| AddrCount::new(count).to_wire();
        assert_eq!(
            [wire(0), wire(largest - 1), wire(largest)],
            [0, i64::MAX - 1, i64::MAX]
        );
        assert_eq!([wire(largest + 1), wire(u128::MAX)], [i64::MAX, i64::MAX]);
    }
}
