//! What of a subnet nobody has, and taking from it.

use std::collections::VecDeque;

use crate::addr::{AddrCount, AddrSet, Range};

/// Free addresses, given out lowest first. Cost of all calls together: O(ranges +
/// ranges given out + ranges avoided), since what is gone is not looked at again.
pub(super) struct Carve(VecDeque<Range>);

impl Carve {
    pub(super) fn new(free: &AddrSet) -> Self {
        Self(free.ranges().iter().copied().collect())
    }

    /// Takes up to `n` addresses, none of them in `avoid`, which stay for others.
    pub(super) fn lowest(&mut self, n: AddrCount, avoid: &AddrSet) -> AddrSet {
        let (mut found, mut aside, mut lack) = (AddrSet::new(), vec![], n);
        while lack > AddrCount::ZERO
            && let Some(range) = self.0.pop_front()
        {
            let range = AddrSet::from(range);
            let good = range.difference(avoid).lowest(lack);
            lack = lack.saturating_sub(good.count());
            // What is left over keeps its order and comes before what was not looked at.
            aside.extend_from_slice(range.difference(&good).ranges());
            found = found.union(&good);
        }
        for range in aside.into_iter().rev() {
            self.0.push_front(range);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ips;

    #[test]
    fn what_is_given_out_is_gone_and_what_is_avoided_stays() {
        let mut carve = Carve::new(&ips("1-3 5 7-9"));
        let take =
            |carve: &mut Carve, n: u32, avoid: &str| carve.lowest(AddrCount::from(n), &ips(avoid));
        assert_eq!(take(&mut carve, 3, "2 5"), ips("1 3 7"));
        assert_eq!(take(&mut carve, 2, ""), ips("2 5"));
        assert_eq!(take(&mut carve, 0, ""), AddrSet::new());
        assert_eq!(take(&mut carve, 9, "9"), ips("8"));
        assert_eq!(take(&mut carve, 9, ""), ips("9"));
        assert_eq!(take(&mut carve, 1, ""), AddrSet::new());
    }
}
