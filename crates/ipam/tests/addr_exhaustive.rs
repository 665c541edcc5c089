//! Every set of a small universe, every operation, every argument.
//!
//! A subset of a universe of 16 addresses is a bit mask; what an operation must give is bit
//! arithmetic on masks, which shares nothing with the code under test. Unary operations see all
//! 2^16 subsets, binary ones all 2^16 pairs of subsets of 8 addresses.
//!
//! The universes lie where arithmetic can go wrong: at both ends of each family's numbers, and
//! across the seam between the last IPv4 address and the first IPv6 one, which sort side by side
//! but must never be joined.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may fail by an overflow, a wrong index or a missing value"
)]

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipam::addr::{AddrCount, AddrSet, Family, Range, Shortage, parse_list};

/// Consecutive addresses, ascending; bit `i` of a mask stands for the `i`th.
struct Universe(Vec<IpAddr>);

impl Universe {
    /// `size` addresses from `first` on; after the last IPv4 address comes `::`.
    fn new(first: &str, size: usize) -> Self {
        let mut next: IpAddr = first.parse().unwrap();
        let mut addrs = vec![next];
        while addrs.len() < size {
            next = match next {
                IpAddr::V4(v4) => v4
                    .to_bits()
                    .checked_add(1)
                    .map_or_else(|| IpAddr::V6(0.into()), |bits| IpAddr::V4(bits.into())),
                IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
            };
            addrs.push(next);
        }
        Self(addrs)
    }

    fn masks(&self) -> RangeInclusive<usize> {
        0..=((1 << self.0.len()) - 1)
    }

    /// The positions whose bits are set.
    fn bits(&self, mask: usize) -> impl Iterator<Item = usize> {
        (0..self.0.len()).filter(move |bit| mask & (1 << bit) != 0)
    }

    fn addrs(&self, mask: usize) -> impl Iterator<Item = IpAddr> {
        self.bits(mask).map(|bit| self.0[bit])
    }

    /// The bits of all addresses of a family.
    fn family(&self, family: Family) -> usize {
        let bits = (0..self.0.len()).filter(|bit| Family::of(self.0[*bit]) == family);
        bits.map(|bit| 1 << bit).sum()
    }

    /// The set of every mask, by mask. Each is checked address by address here, once, so that
    /// elsewhere `==` is proof enough.
    fn sets(&self) -> Vec<AddrSet> {
        self.masks().map(|mask| self.checked_set(mask)).collect()
    }

    fn checked_set(&self, mask: usize) -> AddrSet {
        let set: AddrSet = self.addrs(mask).collect();
        assert!(set.iter().eq(self.addrs(mask)), "{mask:#b} became {set}");
        // A gap in the mask, or the seam, ends a run; nothing else may.
        let runs = self.bits(mask).filter(|bit| {
            let joined = *bit > 0
                && mask & (1 << (bit - 1)) != 0
                && Family::of(self.0[bit - 1]) == Family::of(self.0[*bit]);
            !joined
        });
        assert_eq!(set.ranges().len(), runs.count(), "{set} is not canonical");
        set
    }
}

/// The `n` lowest bits of `mask`.
fn low_bits(mask: usize, n: u32) -> usize {
    let mut rest = mask;
    for _ in 0..n {
        rest &= rest.saturating_sub(1);
    }
    mask ^ rest
}

/// The `n` highest bits of `mask`.
fn high_bits(mask: usize, n: u32) -> usize {
    mask ^ low_bits(mask, mask.count_ones().saturating_sub(n))
}

fn every_unary_operation_is_right(universe: &Universe) {
    let sets = universe.sets();
    for mask in universe.masks() {
        let set = &sets[mask];
        reads_are_right(universe, mask, set);
        edits_are_right(universe, mask, &sets);
        splits_are_right(mask, &sets);
        for family in [Family::V4, Family::V6] {
            let of_family = &sets[mask & universe.family(family)];
            assert_eq!(&set.only(family), of_family, "{set} only {family}");
            assert_eq!(
                &parse_list(&of_family.to_texts(), family).unwrap(),
                of_family
            );
        }
    }
}

fn reads_are_right(universe: &Universe, mask: usize, set: &AddrSet) {
    assert_eq!(set.count(), AddrCount::from(mask.count_ones()));
    assert_eq!(set.is_empty(), mask == 0);
    assert_eq!(set.first(), universe.addrs(mask).next());
    assert_eq!(set.last(), universe.addrs(mask).last());
    let mut next = None;
    for (bit, addr) in universe.0.iter().enumerate().rev() {
        // Downwards, the next member is the last one seen, until the seam is passed.
        next = next.filter(|seen| Family::of(*seen) == Family::of(*addr));
        if mask & (1 << bit) != 0 {
            next = Some(*addr);
        }
        assert_eq!(
            set.contains(*addr),
            mask & (1 << bit) != 0,
            "{set} contains {addr}"
        );
        assert_eq!(set.next_from(*addr), next, "{set} from {addr}");
    }
}

fn edits_are_right(universe: &Universe, mask: usize, sets: &[AddrSet]) {
    let set = &sets[mask];
    for (bit, addr) in universe.0.iter().enumerate() {
        let member = mask & (1 << bit) != 0;
        let mut edited = set.clone();
        assert_eq!(edited.insert(*addr), !member, "{set} + {addr}");
        assert_eq!(edited, sets[mask | 1 << bit], "{set} + {addr}");
        assert!(edited.remove(*addr), "{set} - {addr}");
        assert_eq!(edited, sets[mask & !(1 << bit)], "{set} - {addr}");
        assert!(!edited.remove(*addr), "{set} - {addr}, twice");
    }
}

fn splits_are_right(mask: usize, sets: &[AddrSet]) {
    let set = &sets[mask];
    let left = mask.count_ones();
    for n in 0..=left {
        let (low, high) = (low_bits(mask, n), high_bits(mask, n));
        let mut rest = set.clone();
        assert_eq!(
            rest.take_lowest(n.into()).unwrap(),
            sets[low],
            "{n} of {set}"
        );
        assert_eq!(rest, sets[mask ^ low], "{n} of {set}");
        let mut rest = set.clone();
        assert_eq!(
            rest.take_highest(n.into()).unwrap(),
            sets[high],
            "{n} of {set}"
        );
        assert_eq!(rest, sets[mask ^ high], "{n} of {set}");
    }
    let (wanted, mut same) = (AddrCount::from(left + 1), set.clone());
    let shortage = Shortage {
        wanted,
        left: left.into(),
    };
    assert_eq!(same.take_lowest(wanted), Err(shortage));
    assert_eq!(same.take_highest(wanted), Err(shortage));
    assert_eq!([&same, &set.lowest(wanted), &set.highest(wanted)], [set; 3]);
}

fn every_binary_operation_is_right(universe: &Universe) {
    let sets = universe.sets();
    for left in universe.masks() {
        for right in universe.masks() {
            let (a, b) = (&sets[left], &sets[right]);
            let expected = |mask: usize| &sets[mask];
            assert_eq!(&a.union(b), expected(left | right), "{a} union {b}");
            assert_eq!(
                &a.intersection(b),
                expected(left & right),
                "{a} intersection {b}"
            );
            assert_eq!(
                &a.difference(b),
                expected(left & !right),
                "{a} difference {b}"
            );
            assert_eq!(a.is_subset(b), left & !right == 0, "{a} subset of {b}");
            assert_eq!(a.is_disjoint(b), left & right == 0, "{a} disjoint from {b}");
        }
    }
}

/// Each set with each range of one family added, and each set made of unsorted ranges.
fn every_extension_is_right(universe: &Universe) {
    let sets = universe.sets();
    let addrs = &universe.0;
    for first in 0..addrs.len() {
        for last in first..addrs.len() {
            let Ok(range) = Range::new(addrs[first], addrs[last]) else {
                assert_ne!(Family::of(addrs[first]), Family::of(addrs[last]));
                continue;
            };
            let added: usize = (first..=last).map(|bit| 1 << bit).sum();
            for mask in universe.masks() {
                let (set, expected) = (&sets[mask], &sets[mask | added]);
                let mut extended = set.clone();
                extended.extend_range(range);
                assert_eq!(&extended, expected, "{set} + {range}");
                let unsorted = set.ranges().iter().rev().copied().chain([range]);
                assert_eq!(
                    &unsorted.collect::<AddrSet>(),
                    expected,
                    "{set} and {range}"
                );
            }
        }
    }
}

#[test]
fn unary_at_the_bottom_of_ipv4() {
    every_unary_operation_is_right(&Universe::new("0.0.0.0", 16));
}

#[test]
fn unary_across_the_seam_of_the_families() {
    every_unary_operation_is_right(&Universe::new("255.255.255.248", 16));
}

#[test]
fn unary_at_the_top_of_ipv6() {
    every_unary_operation_is_right(&Universe::new(
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0",
        16,
    ));
}

#[test]
fn binary_at_the_bottom_of_ipv4() {
    every_binary_operation_is_right(&Universe::new("0.0.0.0", 8));
}

#[test]
fn binary_across_the_seam_of_the_families() {
    every_binary_operation_is_right(&Universe::new("255.255.255.252", 8));
}

#[test]
fn binary_at_the_top_of_ipv6() {
    every_binary_operation_is_right(&Universe::new("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8", 8));
}

#[test]
fn extensions_across_the_seam_of_the_families() {
    every_extension_is_right(&Universe::new("255.255.255.251", 10));
}

#[test]
fn extensions_at_the_top_of_ipv6() {
    every_extension_is_right(&Universe::new(
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff6",
        10,
    ));
}
