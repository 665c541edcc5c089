//! How large each set of a Deployment should be: arithmetic, nothing else.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{DESIRED, MAXIMUM, Rollout, annotation, available, size};

/// What both limits of a rolling update are where nobody says.
const DEFAULT: &str = "25%";

/// Which way a percentage is rounded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Up,
    Down,
}

/// A number, or a percentage of `total`.
pub(crate) fn resolve(value: &IntOrString, total: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text
                .trim_end_matches('%')
                .parse::<i32>()
                .unwrap_or_default();
            let hundredths = total * percent;
            match round {
                Round::Up => (hundredths + 99) / 100,
                Round::Down => hundredths / 100,
            }
        }
    }
}

impl Rollout<'_> {
    /// `maxSurge` and `maxUnavailable` as numbers, not both zero.
    fn limits(&self) -> (i32, i32) {
        if self.recreates() {
            return (0, 0);
        }
        let strategy = self
            .deployment
            .spec
            .as_ref()
            .and_then(|s| s.strategy.as_ref());
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let default = IntOrString::String(DEFAULT.into());
        let surge = rolling
            .and_then(|r| r.max_surge.as_ref())
            .unwrap_or(&default);
        let gone = rolling
            .and_then(|r| r.max_unavailable.as_ref())
            .unwrap_or(&default);
        let surge = resolve(surge, self.wanted(), Round::Up);
        let gone = resolve(gone, self.wanted(), Round::Down);
        if surge == 0 && gone == 0 {
            return (0, 1);
        }
        (surge, gone)
    }

    /// Pods beyond `replicas` that a roll-out may have.
    pub(super) fn surge(&self) -> i32 {
        self.limits().0
    }

    /// Pods that may be missing.
    pub(super) fn may_miss(&self) -> i32 {
        self.limits().1.min(self.wanted())
    }
}

/// The size that the present set may have now; it has `size_now`.
pub(super) fn of_new(rollout: &Rollout<'_>, size_now: i32) -> i32 {
    let wanted = rollout.wanted();
    if size_now >= wanted {
        return wanted;
    }
    let all: i32 = rollout.all().map(size).sum();
    let room = wanted + rollout.surge() - all;
    size_now + room.clamp(0, wanted - size_now)
}

/// The other sets that may be smaller now, with their new sizes: first the Pods that don't serve,
/// then as many of those that do as `maxUnavailable` lets go.
pub(super) fn of_old(
    rollout: &Rollout<'_>,
    new_size: i32,
    new_available: i32,
) -> Vec<(ReplicaSet, i32)> {
    let old: i32 = rollout.old.iter().map(size).sum();
    let least = rollout.wanted() - rollout.may_miss();
    let mut surplus = old + new_size - least - (new_size - new_available);
    if old == 0 || surplus <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = rollout.old.iter().map(size).collect();
    for (set, size) in rollout.old.iter().zip(&mut sizes) {
        let idle = (*size - available(set)).clamp(0, surplus);
        *size -= idle;
        surplus -= idle;
    }
    let serving: i32 = rollout.old.iter().map(available).sum::<i32>() + new_available;
    let mut surplus = serving - least;
    for size in &mut sizes {
        let fewer = (*size).min(surplus).max(0);
        *size -= fewer;
        surplus -= fewer;
    }
    let both = rollout.old.iter().cloned().zip(sizes);
    both.filter(|(set, now)| size(set) != *now).collect()
}

/// The sizes of all sets after the Deployment's own size changed.
///
/// One set that has Pods takes the change; a roll-out that is done takes the other sets to zero;
/// in the middle of one each set takes its share, and the largest what is left over.
pub(super) fn shares(rollout: &Rollout<'_>) -> Vec<(ReplicaSet, i32)> {
    let wanted = rollout.wanted();
    let active: Vec<&ReplicaSet> = rollout.all().filter(|set| size(set) > 0).collect();
    if let [only] = active.as_slice() {
        return vec![((*only).clone(), wanted)];
    }
    if active.is_empty() {
        let newest = rollout.new.as_ref().or(rollout.old.last());
        return newest
            .map(|set| (set.clone(), wanted))
            .into_iter()
            .collect();
    }
    if rollout
        .new
        .as_ref()
        .is_some_and(|new| saturated(new, wanted))
    {
        let old = rollout.old.iter().filter(|set| size(set) > 0);
        return old.map(|set| (set.clone(), 0)).collect();
    }
    if rollout.recreates() {
        return Vec::new();
    }
    let allowed = if wanted > 0 {
        wanted + rollout.surge()
    } else {
        0
    };
    let change = allowed - active.iter().map(|set| size(set)).sum::<i32>();
    let mut sets: Vec<ReplicaSet> = active.into_iter().cloned().collect();
    // Largest first; of equal ones the newer grows first, the older shrinks first.
    if change > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|set| std::cmp::Reverse(size(set)));
    let mut left = change;
    let mut sizes = Vec::new();
    for set in &sets {
        let share = share(rollout, set, change, left);
        left -= share;
        sizes.push(size(set) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + left).max(0);
    }
    sets.into_iter().zip(sizes).collect()
}

fn saturated(set: &ReplicaSet, wanted: i32) -> bool {
    let desired = annotation(&set.metadata, DESIRED);
    let desired = desired.and_then(|d| d.parse().ok());
    size(set) == wanted && desired == Some(wanted) && available(set) == wanted
}

/// What `set` takes of `change`, in proportion to its size, at most what is `left`.
fn share(rollout: &Rollout<'_>, set: &ReplicaSet, change: i32, left: i32) -> i32 {
    if change == 0 || left == 0 || size(set) == 0 {
        return 0;
    }
    let whole = if rollout.wanted() == 0 {
        -size(set)
    } else {
        let before = annotation(&set.metadata, MAXIMUM).and_then(|m| m.parse().ok());
        let status = rollout.deployment.status.as_ref();
        let before: i32 = before
            .or(status.and_then(|s| s.replicas))
            .unwrap_or(1)
            .max(1);
        let scaled = i64::from(size(set)) * i64::from(rollout.wanted() + rollout.surge());
        let before = i64::from(before);
        i32::try_from((2 * scaled + before) / (2 * before)).unwrap_or(i32::MAX) - size(set)
    };
    if change > 0 {
        whole.clamp(0, left)
    } else {
        whole.clamp(left, 0)
    }
}
