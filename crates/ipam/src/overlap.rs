//! Which of many sets share addresses, found by one sweep over all their ranges.
//!
//! ```text
//! a  |------|      |--|
//! b      |-----|
//! c                |--|
//!        ^^^ shared ^^^^
//! ```
//!
//! Comparing every set with every other one would cost the square of the number of pools.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::addr::{AddrSet, Range};

/// The addresses that more than one of `sets` has. Cost: O(n log n) over all ranges.
pub(crate) fn shared<'a>(sets: impl IntoIterator<Item = &'a AddrSet>) -> AddrSet {
    let ranges = sets.into_iter().flat_map(AddrSet::ranges);
    let mut sorted: Vec<Range> = ranges.copied().collect();
    sorted.sort_unstable();
    let mut found = vec![];
    // Of what was passed, the range that reaches furthest: it alone can reach the next one.
    let mut reach: Option<Range> = None;
    for range in sorted {
        found.extend(reach.and_then(|r| common(&r, &range)));
        reach = reach
            .filter(|r| r.family() == range.family() && r.last() >= range.last())
            .or(Some(range));
    }
    found.into_iter().collect()
}

/// Each pair of `sets` that share addresses, by their places, with what they share.
///
/// Cost: O(n log n) over all ranges, and the number of ranges that overlap.
pub fn pairs<'a>(sets: impl IntoIterator<Item = &'a AddrSet>) -> BTreeMap<(usize, usize), AddrSet> {
    let numbered = sets.into_iter().enumerate();
    let mut sorted: Vec<(Range, usize)> = numbered
        .flat_map(|(place, set)| set.ranges().iter().map(move |range| (*range, place)))
        .collect();
    sorted.sort_unstable();
    let mut found: BTreeMap<(usize, usize), Vec<Range>> = BTreeMap::new();
    // Ranges passed that may still reach the next one, the one that ends first on top.
    let mut open = BinaryHeap::new();
    for (range, place) in sorted {
        while let Some(Reverse((last, _, _))) = open.peek()
            && *last < range.first()
        {
            open.pop();
        }
        for Reverse((_, earlier, other)) in &open {
            if let Some(both) = common(earlier, &range) {
                let pair = (place.min(*other), place.max(*other));
                found.entry(pair).or_default().push(both);
            }
        }
        open.push(Reverse((range.last(), range, place)));
    }
    let sets = found.into_iter();
    sets.map(|(pair, ranges)| (pair, ranges.into_iter().collect()))
        .collect()
}

/// What both ranges have.
fn common(a: &Range, b: &Range) -> Option<Range> {
    let (first, last) = (a.first().max(b.first()), a.last().min(b.last()));
    // Ends of two families make no range.
    if a.family() == b.family() {
        Range::new(first, last).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Family, parse_list};

    fn set(texts: &[&str]) -> AddrSet {
        parse_list(texts, Family::V4).unwrap()
    }

    #[test]
    fn what_two_sets_share_is_found_whatever_lies_between() {
        let sets = [
            set(&["10.0.0.1-10.0.0.20"]),
            set(&["10.0.0.2", "10.0.0.19-10.0.0.30"]),
            set(&["10.0.0.4-10.0.0.5"]),
            set(&["10.0.0.30"]),
        ];
        let wanted = set(&[
            "10.0.0.2",
            "10.0.0.4-10.0.0.5",
            "10.0.0.19-10.0.0.20",
            "10.0.0.30",
        ]);
        assert_eq!(shared(&sets), wanted);
        let found = pairs(&sets);
        assert_eq!(
            found.get(&(0, 1)),
            Some(&set(&["10.0.0.2", "10.0.0.19-10.0.0.20"]))
        );
        assert_eq!(found.get(&(0, 2)), Some(&set(&["10.0.0.4-10.0.0.5"])));
        assert_eq!(found.get(&(1, 3)), Some(&set(&["10.0.0.30"])));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn the_two_families_share_nothing() {
        let all4 = set(&["0.0.0.0-255.255.255.255"]);
        let all6 = parse_list(&["::-::ffff"], Family::V6).unwrap();
        assert_eq!(shared([&all4, &all6]), AddrSet::new());
        assert!(pairs([&all4, &all6]).is_empty());
    }

    #[test]
    fn neighbours_share_nothing() {
        let sets = [set(&["10.0.0.1"]), set(&["10.0.0.2"])];
        assert!(shared(&sets).is_empty() && pairs(&sets).is_empty());
    }

    /// Every pair and triple of subsets of five addresses, against counting.
    #[test]
    fn the_sweep_agrees_with_counting() {
        let universe: Vec<std::net::IpAddr> = (0_u8..5)
            .map(|n| std::net::Ipv4Addr::new(10, 0, 0, n).into())
            .collect();
        let subset = |mask: usize| -> AddrSet {
            universe
                .iter()
                .enumerate()
                .filter(|(at, _)| mask & (1 << at) != 0)
                .map(|(_, a)| *a)
                .collect()
        };
        let sets: Vec<AddrSet> = (0..32).map(subset).collect();
        for a in &sets {
            for b in &sets {
                for c in &sets {
                    let three = [a, b, c];
                    let twice = |addr: &&std::net::IpAddr| {
                        three.iter().filter(|s| s.contains(**addr)).count() > 1
                    };
                    let wanted: AddrSet = universe.iter().filter(twice).copied().collect();
                    assert_eq!(shared(three), wanted, "{a} {b} {c}");
                    let found = pairs(three);
                    for (pair, x, y) in [((0, 1), a, b), ((0, 2), a, c), ((1, 2), b, c)] {
                        let both = found.get(&pair).cloned().unwrap_or_default();
                        assert_eq!(both, x.intersection(y), "{a} {b} {c}");
                    }
                }
            }
        }
    }
}
