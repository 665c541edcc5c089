//! [`AddrSet`]: any set of addresses, as few ranges as can be.
//!
//! Owns set arithmetic and taking addresses from either end. Never expands a range, except in
//! [`AddrSet::iter`], one address at a time. Text is in `addr/text.rs`; which two ranges overlap
//! or touch is in `addr/range.rs`.
//!
//! Costs, `n` and `m` being numbers of *ranges*: lookups O(log n), operations on two sets one walk
//! of O(n + m), and of those that only look or cut, no farther than both sets reach: what a pool
//! shares with all of a cluster's addresses costs O(log n). A single insertion or removal is
//! O(log n) to find and O(n) to shift.

use std::fmt;
use std::iter::Peekable;
use std::net::IpAddr;
use std::slice;

use super::range::{Pieces, Point, address, point};
use super::{AddrCount, Family, Range};

/// A set of addresses of either family or both.
///
/// Made of what is at hand by `collect` (ranges or addresses, in any order, overlapping or not) or
/// of text by [`parse_list`](super::parse_list).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrSet {
    /// Sorted (IPv4 before IPv6), disjoint, and no two [`meet`](Range::meets): between two ranges
    /// of a family lies at least one address that is not in the set.
    ///
    /// ```text
    /// in    |---|  |-|    |-----|
    /// never |---||-|      touching: would be one range
    /// ```
    ranges: Vec<Range>,
}

/// Fewer addresses were left than were wanted; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted {wanted} addresses, but only {left} are left")]
pub struct Shortage {
    /// How many were asked for.
    pub wanted: AddrCount,
    /// How many the set has.
    pub left: AddrCount,
}

/// Reading.
impl AddrSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Whether the set has no address.
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many addresses the set has, saturating at 2^128 - 1. Cost: O(n).
    pub fn count(&self) -> AddrCount {
        self.ranges.iter().map(Range::count).sum()
    }

    /// Whether `addr` is in the set. Cost: O(log n).
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.reaching(point(addr))
            .is_some_and(|(_, range)| range.contains(addr))
    }

    /// The ranges, ascending (IPv4 first), disjoint and not touching.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The addresses, ascending (IPv4 first), each made when it is asked for.
    ///
    /// An IPv6 set may have more addresses than there is time to visit: callers bound the walk.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges.iter().flat_map(|range| range.addresses())
    }

    /// The lowest address; an IPv4 one if there is any.
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges.first().map(Range::first)
    }

    /// The highest address; an IPv6 one if there is any.
    pub fn last(&self) -> Option<IpAddr> {
        self.ranges.last().map(Range::last)
    }

    /// The smallest member that is `addr` or above and of the same family. Cost: O(log n).
    pub fn next_from(&self, addr: IpAddr) -> Option<IpAddr> {
        let from = point(addr);
        let (_, range) = self.reaching(from)?;
        (range.family() == Family::of(addr)).then(|| address(range.start().max(from)))
    }

    /// The members of one family. Cost: O(n).
    #[must_use]
    pub fn only(&self, family: Family) -> Self {
        let ranges = self.ranges.iter().filter(|range| range.family() == family);
        Self {
            ranges: ranges.copied().collect(),
        }
    }

    /// The `n` lowest addresses, or all if there are fewer. Cost: O(n) ranges.
    #[must_use]
    pub fn lowest(&self, n: AddrCount) -> Self {
        self.split_lowest(n).0
    }

    /// The `n` highest addresses, or all if there are fewer. Cost: O(n) ranges.
    #[must_use]
    pub fn highest(&self, n: AddrCount) -> Self {
        self.split_highest(n).0
    }

    /// The first range that ends at `from` or above, and its place. Cost: O(log n).
    ///
    /// ```text
    /// ranges  |---|    |----|    |--|
    /// from      ^          found: the first
    /// from          ^      found: the second
    /// from                          ^ found: none
    /// ```
    fn reaching(&self, from: Point) -> Option<(usize, &Range)> {
        let at = self.ranges.partition_point(|range| range.end() < from);
        self.ranges.get(at).map(|range| (at, range))
    }

    /// The ranges that reach into the hull of `other`, found without a walk.
    ///
    /// ```text
    /// self    |--| |--|  |---|    |-|   |--|
    /// other            |-|   |--|
    /// gives              |---|
    /// ```
    fn near(&self, other: &Self) -> &[Range] {
        let (Some(first), Some(last)) = (other.ranges.first(), other.ranges.last()) else {
            return &[];
        };
        let from = self.ranges.partition_point(|r| r.end() < first.start());
        let to = self.ranges.partition_point(|r| r.start() <= last.end());
        self.ranges.get(from..to).unwrap_or_default()
    }

    /// The `n` lowest addresses, and the others.
    fn split_lowest(&self, n: AddrCount) -> (Self, Self) {
        let (taken, rest) = split(self.ranges.iter(), n, Range::cut_lowest);
        (Self { ranges: taken }, Self { ranges: rest })
    }

    /// The `n` highest addresses, and the others.
    fn split_highest(&self, n: AddrCount) -> (Self, Self) {
        let (mut taken, mut rest) = split(self.ranges.iter().rev(), n, Range::cut_highest);
        // The walk went down; the sets go up.
        taken.reverse();
        rest.reverse();
        (Self { ranges: taken }, Self { ranges: rest })
    }
}

/// Two sets, each in one walk over both: O(n + m).
impl AddrSet {
    /// The addresses in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (mut left, mut right) = (
            self.ranges.iter().peekable(),
            other.ranges.iter().peekable(),
        );
        let mut joined = Self::new();
        while let Some(range) = lower(&mut left, &mut right) {
            joined.push(*range);
        }
        joined
    }

    /// The addresses in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.near(other).iter(), other.near(self).iter());
        let mut heads = (left.next(), right.next());
        let mut ranges = Vec::new();
        while let (Some(a), Some(b)) = heads {
            ranges.extend(a.overlap(b));
            // The one that ends first can overlap nothing more of the other set.
            heads = if a.end() <= b.end() {
                (left.next(), Some(b))
            } else {
                (Some(a), right.next())
            };
        }
        Self { ranges }
    }

    /// The addresses of `self` that are not in `other`.
    ///
    /// ```text
    /// self    |--------------|   |---|
    /// other  |--|   |--|    |------|
    /// gives      |-|    |--|        |-|
    /// ```
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut cuts = other.near(self).iter().peekable();
        let mut ranges = Vec::new();
        for whole in &self.ranges {
            // What of `whole` no cut has been held against yet.
            let mut open = Some(*whole);
            while let Some(rest) = open
                && let Some(cut) = skip_below(&mut cuts, &rest)
                && cut.start() <= rest.end()
            {
                ranges.extend(rest.below(cut));
                open = rest.above(cut);
            }
            ranges.extend(open);
        }
        Self { ranges }
    }

    /// Whether every address of `self` is in `other`.
    ///
    /// A range of `self` lies in one range of `other` or not at all in it, since no two of those
    /// touch.
    pub fn is_subset(&self, other: &Self) -> bool {
        let mut outer = other.near(self).iter().peekable();
        self.ranges.iter().all(|inner| {
            skip_below(&mut outer, inner).is_some_and(|candidate| candidate.covers(inner))
        })
    }

    /// Whether no address is in both sets.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        let mut others = other.near(self).iter().peekable();
        self.near(other).iter().all(|range| {
            skip_below(&mut others, range).is_none_or(|next| range.end() < next.start())
        })
    }
}

/// Changing.
impl AddrSet {
    /// Adds `addr`; `false` if it was there.
    pub fn insert(&mut self, addr: IpAddr) -> bool {
        let new = !self.contains(addr);
        if new {
            self.extend_range(Range::single(addr));
        }
        new
    }

    /// Takes `addr` out; `false` if it was not there.
    pub fn remove(&mut self, addr: IpAddr) -> bool {
        let found = self
            .reaching(point(addr))
            .filter(|(_, range)| range.contains(addr));
        let Some((at, whole)) = found.map(|(at, range)| (at, *range)) else {
            return false;
        };
        let hole = Range::single(addr);
        let pieces = [whole.below(&hole), whole.above(&hole)];
        self.ranges.splice(at..=at, pieces.into_iter().flatten());
        true
    }

    /// Adds every address of `range`.
    ///
    /// ```text
    /// before  |--| |--|   |-|    |--|
    /// range         |----|
    /// after   |--| |--------|    |--|
    ///              ^ from     ^ to
    /// ```
    pub fn extend_range(&mut self, range: Range) {
        let from = self
            .ranges
            .partition_point(|r| r.end() < range.start() && !r.meets(&range));
        let to = self
            .ranges
            .partition_point(|r| r.start() <= range.end() || r.meets(&range));
        let hull = self.ranges.drain(from..to).fold(range, Range::hull);
        self.ranges.insert(from, hull);
    }

    /// Takes the `n` lowest addresses out; all of them or none.
    ///
    /// Lowest first keeps what is left, and what was taken, to few ranges. IPv4 addresses count as
    /// lower than IPv6 ones: of a set with both families take [`only`](Self::only) one.
    ///
    /// # Errors
    /// [`Shortage`] if there are fewer than `n`; the set is as it was. Cost: O(n) ranges.
    pub fn take_lowest(&mut self, n: AddrCount) -> Result<Self, Shortage> {
        let split = self.split_lowest(n);
        self.keep_rest(n, split)
    }

    /// Takes the `n` highest addresses out; all of them or none. The mirror of
    /// [`take_lowest`](Self::take_lowest).
    ///
    /// # Errors
    /// [`Shortage`] if there are fewer than `n`; the set is as it was. Cost: O(n) ranges.
    pub fn take_highest(&mut self, n: AddrCount) -> Result<Self, Shortage> {
        let split = self.split_highest(n);
        self.keep_rest(n, split)
    }

    /// Commits a split of `self` if `wanted` addresses were taken.
    fn keep_rest(
        &mut self,
        wanted: AddrCount,
        (taken, rest): (Self, Self),
    ) -> Result<Self, Shortage> {
        let left = taken.count();
        if left < wanted {
            // Not even everything was enough, so what was taken is all there is.
            return Err(Shortage { wanted, left });
        }
        *self = rest;
        Ok(taken)
    }

    /// Appends a range that starts no lower than the last one, joining it to that if they meet.
    fn push(&mut self, range: Range) {
        match self.ranges.last_mut() {
            Some(last) if last.meets(&range) => *last = last.hull(range),
            Some(_) | None => self.ranges.push(range),
        }
    }
}

/// Sorted ranges being walked, one ahead.
type Walk<'a> = Peekable<slice::Iter<'a, Range>>;

/// Steps the walk whose next range starts first.
fn lower<'a>(left: &mut Walk<'a>, right: &mut Walk<'a>) -> Option<&'a Range> {
    match (left.peek(), right.peek()) {
        (Some(a), Some(b)) if b < a => right.next(),
        (Some(_), _) => left.next(),
        (None, _) => right.next(),
    }
}

/// Steps over the ranges that end below `range` and shows the next.
///
/// That one overlaps `range` or lies above it. It is not consumed, for it may reach into the range
/// that comes after `range`, too.
fn skip_below<'a>(walk: &mut Walk<'a>, range: &Range) -> Option<&'a Range> {
    while walk
        .next_if(|candidate| candidate.end() < range.start())
        .is_some()
    {}
    walk.peek().copied()
}

/// Walks `ranges` and cuts off `n` addresses with `cut`: what was cut off, and what stays, both in
/// the order of the walk.
fn split<'a>(
    ranges: impl Iterator<Item = &'a Range>,
    n: AddrCount,
    cut: fn(Range, AddrCount) -> Pieces,
) -> (Vec<Range>, Vec<Range>) {
    let (mut taken, mut rest, mut wanted) = (Vec::new(), Vec::new(), n);
    for range in ranges {
        let (off, stays) = cut(*range, wanted);
        wanted = wanted.saturating_sub(range.count());
        taken.extend(off);
        rest.extend(stays);
    }
    (taken, rest)
}

impl From<Range> for AddrSet {
    fn from(range: Range) -> Self {
        Self {
            ranges: vec![range],
        }
    }
}

/// From ranges in any order, overlapping or not. Cost: O(n log n).
impl FromIterator<Range> for AddrSet {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let mut sorted: Vec<Range> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut set = Self::new();
        for range in sorted {
            set.push(range);
        }
        set
    }
}

/// From addresses in any order, repeated or not. Cost: O(n log n).
impl FromIterator<IpAddr> for AddrSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addrs: I) -> Self {
        addrs.into_iter().map(Range::single).collect()
    }
}

/// As [`Display`](fmt::Display): a failed test should show addresses, not numbers.
impl fmt::Debug for AddrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
