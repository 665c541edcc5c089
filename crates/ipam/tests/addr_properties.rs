//! Random sets of any size, random edits, random text.
//!
//! Where a set is small it is held against a `BTreeSet`; where it is too large to list, against
//! the meaning of each operation for single addresses, asked at every end of every range.
#![expect(clippy::unwrap_used, reason = "a test may fail by a missing value")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipam::addr::{AddrCount, AddrSet, Family, Range, Shortage, parse_list, parse_range};
use proptest::prelude::*;

/// One edit of a set.
#[derive(Clone, Debug)]
enum Edit {
    Insert(IpAddr),
    Remove(IpAddr),
    Extend(Range),
    TakeLowest(u32),
    TakeHighest(u32),
    Only(Family),
    Union(Vec<IpAddr>),
    Intersect(Vec<IpAddr>),
    Subtract(Vec<IpAddr>),
}

/// Numbers near either end of the address space, where arithmetic is at its limits.
fn edge_numbers() -> impl Strategy<Value = u32> {
    (0_u32..16, any::<bool>()).prop_map(|(low, at_top)| if at_top { !low } else { low })
}

/// One of 64 addresses: few, so that edits meet.
fn few_addrs() -> impl Strategy<Value = IpAddr> {
    (families(), edge_numbers()).prop_map(|(family, number)| match family {
        Family::V4 => v4(number),
        // The top half of the IPv6 numbers ends where the family ends.
        Family::V6 if number > 16 => v6(!u128::from(!number)),
        Family::V6 => v6(number.into()),
    })
}

/// A range of at most 16 addresses between two of [`few_addrs`].
fn few_ranges() -> impl Strategy<Value = Range> {
    (few_addrs(), 0_u32..16).prop_map(|(first, more)| {
        let last = (0..more)
            .try_fold(first, |addr, _| after(addr))
            .unwrap_or(first);
        between(first, last)
    })
}

fn edits() -> impl Strategy<Value = Edit> {
    let some = || prop::collection::vec(few_addrs(), 0..24);
    prop_oneof![
        4 => few_addrs().prop_map(Edit::Insert),
        4 => few_addrs().prop_map(Edit::Remove),
        4 => few_ranges().prop_map(Edit::Extend),
        2 => (0_u32..6).prop_map(Edit::TakeLowest),
        2 => (0_u32..6).prop_map(Edit::TakeHighest),
        1 => families().prop_map(Edit::Only),
        3 => some().prop_map(Edit::Union),
        1 => some().prop_map(Edit::Intersect),
        2 => some().prop_map(Edit::Subtract),
    ]
}

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

/// Any range of the family, from one address to all.
fn ranges(family: Family) -> BoxedStrategy<Range> {
    // Spreads of all sizes: two plain random ends would nearly always make a huge range.
    match family {
        Family::V4 => (any::<u32>(), any::<u32>(), 0_u32..32)
            .prop_map(|(end, noise, spread)| between(v4(end), v4(end ^ (noise >> spread))))
            .boxed(),
        Family::V6 => (any::<u128>(), any::<u128>(), 0_u32..128)
            .prop_map(|(end, noise, spread)| between(v6(end), v6(end ^ (noise >> spread))))
            .boxed(),
    }
}

/// Sets of up to 12 ranges of any size in both families.
fn sets() -> impl Strategy<Value = AddrSet> {
    let any_range = families().prop_flat_map(ranges);
    prop::collection::vec(any_range, 0..12).prop_map(AddrSet::from_iter)
}

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(bits.into())
}

fn v6(bits: u128) -> IpAddr {
    IpAddr::V6(bits.into())
}

/// The range with these ends, whichever is lower.
fn between(a: IpAddr, b: IpAddr) -> Range {
    Range::new(a.min(b), a.max(b)).unwrap()
}

/// Does `edit` to the set and to the model, and holds what it answers against each other.
fn apply(edit: Edit, set: &mut AddrSet, model: &mut BTreeSet<IpAddr>) {
    match edit {
        Edit::Insert(addr) => assert_eq!(set.insert(addr), model.insert(addr)),
        Edit::Remove(addr) => assert_eq!(set.remove(addr), model.remove(&addr)),
        Edit::Extend(range) => {
            set.extend_range(range);
            model.extend(AddrSet::from(range).iter());
        }
        Edit::TakeLowest(n) => {
            let low: Vec<_> = model.iter().take(size(n)).copied().collect();
            take(set.take_lowest(n.into()), &low, n, model);
        }
        Edit::TakeHighest(n) => {
            let high: Vec<_> = model.iter().rev().take(size(n)).copied().collect();
            take(set.take_highest(n.into()), &high, n, model);
        }
        Edit::Only(family) => {
            *set = set.only(family);
            model.retain(|addr| Family::of(*addr) == family);
        }
        Edit::Union(addrs) => {
            *set = set.union(&addrs.iter().copied().collect());
            model.extend(addrs);
        }
        Edit::Intersect(addrs) => {
            *set = set.intersection(&addrs.iter().copied().collect());
            model.retain(|addr| addrs.contains(addr));
        }
        Edit::Subtract(addrs) => {
            *set = set.difference(&addrs.iter().copied().collect());
            model.retain(|addr| !addrs.contains(addr));
        }
    }
}

/// The model's half of a `take`: `taken` leaves it if there were enough.
fn take(
    answer: Result<AddrSet, Shortage>,
    taken: &[IpAddr],
    wanted: u32,
    model: &mut BTreeSet<IpAddr>,
) {
    if taken.len() < size(wanted) {
        let shortage = answer.unwrap_err();
        assert_eq!(shortage.wanted, AddrCount::from(wanted));
        assert_eq!(shortage.left.get(), u128::try_from(model.len()).unwrap());
    } else {
        assert_eq!(answer.unwrap(), taken.iter().copied().collect());
        model.retain(|addr| !taken.contains(addr));
    }
}

fn size(n: u32) -> usize {
    usize::try_from(n).unwrap()
}

/// Sorted, disjoint, neighbours joined; found by means of the ranges' ends only.
fn assert_canonical(set: &AddrSet) {
    for pair in set.ranges().windows(2) {
        let [left, right] = pair else {
            unreachable!("windows of two")
        };
        assert!(
            left.last() < right.first(),
            "{set} is not sorted and disjoint"
        );
        assert_ne!(
            after(left.last()),
            Some(right.first()),
            "{set} has ranges that touch"
        );
    }
}

/// The next address of the family.
fn after(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_add(1).map(v4),
        IpAddr::V6(addr) => addr.to_bits().checked_add(1).map(v6),
    }
}

fn before(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_sub(1).map(v4),
        IpAddr::V6(addr) => addr.to_bits().checked_sub(1).map(v6),
    }
}

/// Every end of every range of the sets, and its neighbours: where membership changes, and so the
/// only places where an operation on intervals can be wrong.
fn telling(sets: [&AddrSet; 2]) -> Vec<IpAddr> {
    let ends = sets
        .into_iter()
        .flat_map(AddrSet::ranges)
        .flat_map(|r| [r.first(), r.last()]);
    ends.flat_map(|end| [before(end), Some(end), after(end)])
        .flatten()
        .collect()
}

proptest! {
    #[test]
    fn a_set_is_what_a_naive_set_is_after_any_edits(
        edits in prop::collection::vec(edits(), 0..40),
    ) {
        let (mut set, mut model) = (AddrSet::new(), BTreeSet::new());
        for edit in edits {
            apply(edit, &mut set, &mut model);
            assert_canonical(&set);
            prop_assert!(set.iter().eq(model.iter().copied()), "{} is not {:?}", set, model);
        }
    }

    #[test]
    fn operations_on_large_sets_are_right_at_every_end(a in sets(), b in sets()) {
        let (union, both, rest) = (a.union(&b), a.intersection(&b), a.difference(&b));
        for result in [&union, &both, &rest] {
            assert_canonical(result);
        }
        for addr in telling([&a, &b]) {
            let (in_a, in_b) = (a.contains(addr), b.contains(addr));
            prop_assert_eq!(union.contains(addr), in_a || in_b, "{}", addr);
            prop_assert_eq!(both.contains(addr), in_a && in_b, "{}", addr);
            prop_assert_eq!(rest.contains(addr), in_a && !in_b, "{}", addr);
        }
        prop_assert_eq!(both.union(&rest), a.clone());
        prop_assert!(both.is_subset(&a) && both.is_subset(&b) && a.is_subset(&union));
        prop_assert!(rest.is_disjoint(&b));
        prop_assert_eq!(a.is_disjoint(&b), both.is_empty());
        prop_assert_eq!(a.is_subset(&b), rest.is_empty());
    }

    #[test]
    fn a_large_set_splits_into_two_that_make_it_up(set in sets(), n in any::<u128>(), shift in 0_u32..128) {
        let n = AddrCount::new(n >> shift);
        for (part, is_low) in [(set.lowest(n), true), (set.highest(n), false)] {
            let rest = set.difference(&part);
            assert_canonical(&part);
            prop_assert_eq!(part.count(), n.min(set.count()));
            prop_assert_eq!(rest.union(&part), set.clone());
            let (low, high) = if is_low { (&part, &rest) } else { (&rest, &part) };
            prop_assert!(low.is_empty() || high.is_empty() || low.last() < high.first());
        }
    }

    #[test]
    fn next_from_skips_no_member(set in sets()) {
        for addr in telling([&set, &AddrSet::new()]) {
            match set.next_from(addr) {
                Some(next) => {
                    prop_assert!(addr <= next && set.contains(next));
                    let gap = before(next).filter(|end| addr <= *end).map(|end| between(addr, end));
                    prop_assert!(gap.is_none_or(|gap| set.is_disjoint(&gap.into())));
                }
                None => prop_assert!(set.only(Family::of(addr)).last().is_none_or(|l| l < addr)),
            }
        }
    }

    #[test]
    fn a_set_read_back_from_its_text_is_the_same((family, set) in families().prop_flat_map(|family| {
        let texts = prop::collection::vec(ranges(family), 0..12);
        (Just(family), texts.prop_map(AddrSet::from_iter))
    })) {
        // No text has an IPv4-mapped address, so no set from text has one.
        let mapped = Range::of_net(&"::ffff:0:0/96".parse().unwrap());
        let set = set.difference(&mapped.into());
        let texts = set.to_texts();
        prop_assert_eq!(parse_list(&texts, family), Ok(set));
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        prop_assert!(texts.iter().all(|text| parse_range(text, other).is_err()));
    }

    #[test]
    fn a_text_is_read_exactly_if_its_ends_are_in_order(
        text in "[0-9a-f.:/% -]{0,24}|(1?[0-9]{1,2}\\.){3}1?[0-9](-(1?[0-9]{1,2}\\.){3}[0-9]{1,2})?",
        family in families(),
    ) {
        let ends: Result<Vec<IpAddr>, _> = text.split('-').map(str::parse).collect();
        let in_order = match ends.as_deref() {
            Ok([first, .., last]) => first <= last && Family::of(*last) == family,
            Ok(ends) => ends.iter().all(|end| Family::of(*end) == family),
            Err(_) => false,
        };
        match parse_range(&text, family) {
            Ok(range) => {
                let ends = ends.unwrap();
                prop_assert!(in_order && ends.len() <= 2, "{}", text);
                prop_assert_eq!(ends.first(), Some(&range.first()));
                prop_assert_eq!(ends.last(), Some(&range.last()));
            }
            Err(error) => {
                // An IPv6 text may be refused for what it stands for: unit tests say when.
                prop_assert!(family == Family::V6 || !in_order || ends.unwrap().len() > 2);
                let known = format!("invalid IP range format in {family} '{text}'");
                prop_assert_eq!(error.to_string(), known);
            }
        }
    }
}
