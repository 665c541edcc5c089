//! [`Range`]: an interval of addresses of one family.
//!
//! Owns the two conversions between an [`IpAddr`] and its number, so that IPv4 and IPv6 share one
//! body everywhere above: an address is a family and a `u128`. Also owns the ways two ranges can
//! lie to each other (`meets`, `overlap`, `below`, `above`), which [`AddrSet`](super::AddrSet)
//! builds on. Never allocates, never knows of more than two ranges.
//!
//! Invariant: `first <= last`; an IPv4 number fits in 32 bits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{AddrCount, Family};

/// An address as a family and a number: compares as [`IpAddr`] does, but can be computed with.
pub(super) type Point = (Family, u128);

/// What a cut leaves: the part cut off and the part that stays. Never both `None`.
pub(super) type Pieces = (Option<Range>, Option<Range>);

/// The addresses from `first` to `last`, both included, all of one family.
///
/// Never empty. Sorts by family, then first address, then last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    family: Family,
    first: u128,
    last: u128,
}

/// Two addresses that are not the ends of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// One end is IPv4, the other IPv6.
    #[error("range {first}-{last} mixes IPv4 and IPv6: give both ends in one family")]
    MixedFamilies {
        /// The lower end, as given.
        first: IpAddr,
        /// The upper end, as given.
        last: IpAddr,
    },
    /// The first address is above the last.
    #[error("range {first}-{last} ends below its start: swap the ends")]
    Reversed {
        /// The lower end, as given.
        first: IpAddr,
        /// The upper end, as given.
        last: IpAddr,
    },
}

impl Range {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`RangeError::MixedFamilies`] if the ends differ in family, [`RangeError::Reversed`] if
    /// `first` is above `last`. The ends are never swapped: a reversed range is most often a typing
    /// error in one of its ends, and guessing which would hand out somebody else's addresses.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        let (family, low) = point(first);
        let (last_family, high) = point(last);
        if family != last_family {
            return Err(RangeError::MixedFamilies { first, last });
        }
        let range = Self {
            family,
            first: low,
            last: high,
        };
        if low > high {
            Err(RangeError::Reversed { first, last })
        } else {
            Ok(range)
        }
    }

    /// The range that holds `addr` and nothing else.
    pub fn single(addr: IpAddr) -> Self {
        let (family, number) = point(addr);
        Self {
            family,
            first: number,
            last: number,
        }
    }

    /// Every address of `net`, network and broadcast address included.
    ///
    /// Host bits in `net` are ignored: `10.0.0.7/24` gives `10.0.0.0-10.0.0.255`.
    pub fn of_net(net: &IpNet) -> Self {
        let (family, first) = point(net.network());
        let (_, last) = point(net.broadcast());
        Self {
            family,
            first,
            last,
        }
    }

    /// The family of every address in the range.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        address((self.family, self.first))
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        address((self.family, self.last))
    }

    /// Whether `addr` lies in the range. An address of the other family never does.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let (family, number) = point(addr);
        family == self.family && (self.first..=self.last).contains(&number)
    }

    /// How many addresses the range has: at least one; `::/0` saturates to 2^128 - 1.
    pub const fn count(&self) -> AddrCount {
        // The invariant makes the subtraction exact; only the addition can saturate.
        AddrCount::new(self.last.saturating_sub(self.first).saturating_add(1))
    }

    /// The addresses in ascending order, made one at a time.
    pub(super) fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (self.first..=self.last).map(move |number| address((self.family, number)))
    }

    /// Where the range starts, for comparing.
    pub(super) const fn start(&self) -> Point {
        (self.family, self.first)
    }

    /// Where the range ends, for comparing.
    pub(super) const fn end(&self) -> Point {
        (self.family, self.last)
    }

    /// Whether every address of `inner` is in `self`.
    pub(super) fn covers(&self, inner: &Self) -> bool {
        self.start() <= inner.start() && inner.end() <= self.end()
    }

    /// Whether the union of both is one range: they overlap, or one starts where the other stops.
    ///
    /// ```text
    /// self        |------|
    /// meets     |---|  |---|  |--|   overlap, inside
    /// meets  |---|        |---|      neighbours: not one address lies between
    /// apart |--|            |---|
    /// ```
    ///
    /// Families never meet, though the last IPv4 address sorts right before `::`.
    pub(super) fn meets(&self, other: &Self) -> bool {
        // Saturation is exact here: nothing starts above the highest number.
        self.family == other.family
            && self.first <= other.last.saturating_add(1)
            && other.first <= self.last.saturating_add(1)
    }

    /// The smallest range that holds both. Only for ranges that [`meet`](Self::meets).
    pub(super) fn hull(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            ..self
        }
    }

    /// The addresses in both.
    pub(super) fn overlap(self, other: &Self) -> Option<Self> {
        if self.family != other.family {
            return None;
        }
        self.clip(self.first.max(other.first), self.last.min(other.last))
    }

    /// The part of `self` under `cut`, which overlaps it.
    ///
    /// ```text
    /// self    |----------|
    /// cut         |---|
    /// below   |--|
    /// above            |-|
    /// ```
    pub(super) fn below(self, cut: &Self) -> Option<Self> {
        cut.first
            .checked_sub(1)
            .and_then(|last| self.clip(self.first, last))
    }

    /// The part of `self` over `cut`, which overlaps it; drawn at [`below`](Self::below).
    pub(super) fn above(self, cut: &Self) -> Option<Self> {
        cut.last
            .checked_add(1)
            .and_then(|first| self.clip(first, self.last))
    }

    /// The `n` lowest addresses (all, if there are fewer) and the others.
    pub(super) fn cut_lowest(self, n: AddrCount) -> Pieces {
        let Some(offset) = n.get().checked_sub(1) else {
            return (None, Some(self));
        };
        let last = self.first.saturating_add(offset).min(self.last);
        let taken = Self { last, ..self };
        (Some(taken), self.above(&taken))
    }

    /// The `n` highest addresses (all, if there are fewer) and the others.
    pub(super) fn cut_highest(self, n: AddrCount) -> Pieces {
        let Some(offset) = n.get().checked_sub(1) else {
            return (None, Some(self));
        };
        let first = self.last.saturating_sub(offset).max(self.first);
        let taken = Self { first, ..self };
        (Some(taken), self.below(&taken))
    }

    /// The range of the same family from `first` to `last`; `None` if that is empty.
    fn clip(self, first: u128, last: u128) -> Option<Self> {
        (first <= last).then_some(Self {
            first,
            last,
            ..self
        })
    }
}

/// As [`Display`](fmt::Display): the numbers inside tell a reader nothing.
impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `addr` as a family and a number.
pub(super) fn point(addr: IpAddr) -> Point {
    match addr {
        IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
    }
}

/// The address at `point`; the inverse of [`point`].
pub(super) fn address((family, number): Point) -> IpAddr {
    match family {
        Family::V4 => {
            // An IPv4 number has its 32 bits in the last four bytes; the others are zero.
            let [.., a, b, c, d] = number.to_be_bytes();
            Ipv4Addr::new(a, b, c, d).into()
        }
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(first: &str, last: &str) -> Range {
        Range::new(ip(first), ip(last)).unwrap()
    }

    #[test]
    fn the_ends_are_what_was_given() {
        for (first, last) in [
            ("10.0.0.1", "10.0.0.9"),
            ("0.0.0.0", "255.255.255.255"),
            ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fd00::1", "fd00::1"),
        ] {
            let made = range(first, last);
            assert_eq!((made.first(), made.last()), (ip(first), ip(last)));
        }
    }

    #[test]
    fn reversed_and_mixed_ends_are_refused_by_name() {
        let (low, high, other) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("::1"));
        let reversed = Range::new(high, low).unwrap_err();
        assert_eq!(
            reversed,
            RangeError::Reversed {
                first: high,
                last: low
            }
        );
        assert_eq!(
            reversed.to_string(),
            "range 10.0.0.2-10.0.0.1 ends below its start: swap the ends"
        );
        // IPv6 numbers are compared with IPv4 ones nowhere, in neither order.
        for (first, last) in [(low, other), (other, low)] {
            let mixed = Range::new(first, last).unwrap_err();
            assert_eq!(mixed, RangeError::MixedFamilies { first, last });
        }
    }

    #[test]
    fn a_network_has_all_its_addresses() {
        let of = |net: &str| Range::of_net(&net.parse().unwrap());
        assert_eq!(of("10.0.0.7/24"), range("10.0.0.0", "10.0.0.255"));
        assert_eq!(of("10.0.0.6/31"), range("10.0.0.6", "10.0.0.7"));
        assert_eq!(of("10.0.0.7/32"), Range::single(ip("10.0.0.7")));
        assert_eq!(of("0.0.0.0/0"), range("0.0.0.0", "255.255.255.255"));
        assert_eq!(
            of("fd00::/64"),
            range("fd00::", "fd00::ffff:ffff:ffff:ffff")
        );
        assert_eq!(of("fd00::1/128"), Range::single(ip("fd00::1")));
    }

    #[test]
    fn counts_are_exact_until_the_last_one_saturates() {
        let count = |net: &str| Range::of_net(&net.parse().unwrap()).count().get();
        assert_eq!(count("10.0.0.0/28"), 16);
        assert_eq!(count("0.0.0.0/0"), 1 << 32);
        assert_eq!(count("fd00::/64"), 1 << 64);
        assert_eq!(count("::/1"), 1 << 127);
        assert_eq!(count("::/0"), u128::MAX);
    }

    #[test]
    fn an_address_of_the_other_family_is_never_inside() {
        let (v4, v6) = (
            range("0.0.0.0", "255.255.255.255"),
            range("::", "::ffff:ffff"),
        );
        assert!(v4.contains(ip("0.0.0.5")) && !v4.contains(ip("::5")));
        assert!(v6.contains(ip("::5")) && !v6.contains(ip("0.0.0.5")));
        assert_eq!(v4.overlap(&v6), None);
        assert!(!v4.covers(&v6) && !v6.covers(&v4));
    }

    #[test]
    fn the_last_ipv4_address_does_not_meet_the_first_ipv6_one() {
        let (v4, v6) = (
            Range::single(ip("255.255.255.255")),
            Range::single(ip("::")),
        );
        assert!(v4 < v6);
        assert!(!v4.meets(&v6) && !v6.meets(&v4));
        // Nor does an IPv6 range where IPv4's numbers would go on.
        assert!(!v4.meets(&Range::single(ip("::1:0:0"))));
    }

    #[test]
    fn cuts_at_the_ends_of_the_address_space_do_not_wrap() {
        let all = Range::of_net(&"::/0".parse().unwrap());
        let (top, bottom) = (all.last(), all.first());
        let most = AddrCount::new(u128::MAX);
        assert_eq!(all.cut_lowest(most).1, Some(Range::single(top)));
        assert_eq!(all.cut_highest(most).1, Some(Range::single(bottom)));
        assert_eq!(
            Range::single(top).cut_lowest(most),
            (Some(Range::single(top)), None)
        );
        assert_eq!(
            Range::single(bottom).cut_highest(most),
            (Some(Range::single(bottom)), None)
        );
        assert_eq!(all.cut_lowest(AddrCount::ZERO), (None, Some(all)));
        assert_eq!(all.cut_highest(AddrCount::ZERO), (None, Some(all)));
    }
}
