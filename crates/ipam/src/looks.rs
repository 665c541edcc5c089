//! Findings that count only once looks running agree, and never too many of them at once.
//!
//! Owns: the two nets below every release that nobody asked for. A single look can be wrong: caches
//! are behind, an API server restored from a backup has forgotten Pods that run. What one look found
//! and the next did not, starts anew. Never does: look, or release.

use std::collections::BTreeMap;

/// Looks running that must agree.
pub const LOOKS: u32 = 2;

/// What holds a release of many back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brake {
    /// So many at one look, or more than half of all, wait for a further look: that is what a
    /// mistake looks like.
    pub many: usize,
    /// At most so many go at one look; the rest waits for the next.
    pub most: usize,
}

/// What a look lets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due<K> {
    /// These may go now, in their order.
    pub now: Vec<K>,
    /// So many are agreed on and wait, because they are many.
    pub braked: usize,
}

/// What the looks so far found.
#[derive(Debug, Clone)]
pub struct Looks<K> {
    brake: Brake,
    seen: BTreeMap<K, u32>,
}

impl<K: Ord + Clone> Looks<K> {
    /// No look so far.
    pub fn new(brake: Brake) -> Self {
        Self {
            brake,
            seen: BTreeMap::new(),
        }
    }

    /// Takes in a look that found these among `total`. Cost: O(n log n).
    pub fn look(&mut self, found: impl IntoIterator<Item = K>, total: usize) -> Due<K> {
        let counted = found.into_iter().map(|key| {
            let before = self.seen.get(&key).copied().unwrap_or_default();
            (key, before.saturating_add(1))
        });
        self.seen = counted.collect();
        let due = self.agreed(LOOKS);
        let are_many = due.len() >= self.brake.many || due.len().saturating_mul(2) > total;
        let mut now = if are_many {
            self.agreed(LOOKS.saturating_add(1))
        } else {
            due.clone()
        };
        now.truncate(self.brake.most);
        Due {
            braked: due.len().saturating_sub(now.len()),
            now,
        }
    }

    fn agreed(&self, least: u32) -> Vec<K> {
        let enough = self.seen.iter().filter(|(_, looks)| **looks >= least);
        enough.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRAKE: Brake = Brake { many: 4, most: 6 };

    #[test]
    fn the_second_look_lets_go_and_a_doubt_between_starts_anew() {
        let mut looks = Looks::new(BRAKE);
        for (found, now) in [(vec![1], vec![]), (vec![], vec![]), (vec![1], vec![])] {
            assert_eq!(looks.look(found, 9), Due { now, braked: 0 });
        }
        let due = looks.look([1, 2], 9);
        assert_eq!(
            due,
            Due {
                now: vec![1],
                braked: 0
            }
        );
    }

    #[test]
    fn many_or_more_than_half_wait_for_a_third_look() {
        for (found, total) in [(4, 100), (3, 5), (1, 1)] {
            let mut looks = Looks::new(BRAKE);
            looks.look(0..found, total);
            let second = looks.look(0..found, total);
            assert_eq!((second.now.len(), second.braked), (0, found));
            let third = looks.look(0..found, total);
            assert_eq!((third.now.len(), third.braked), (found, 0));
        }
        let mut looks = Looks::new(BRAKE);
        looks.look(0..3, 6);
        assert_eq!(looks.look(0..3, 6).now, [0, 1, 2]);
    }

    #[test]
    fn no_look_lets_go_of_more_than_the_brake_allows_and_the_next_goes_on() {
        let mut looks = Looks::new(BRAKE);
        looks.look(0..8, 100);
        looks.look(0..8, 100);
        let third = looks.look(0..8, 100);
        assert_eq!((third.now, third.braked), ((0..6).collect(), 2));
        assert_eq!(looks.look(6..8, 100).now, [6, 7]);
    }
}
