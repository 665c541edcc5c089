//! When a pool's writer may write again, so that writers of other nodes get their turn.
//!
//! Owns: the pauses between one writer's attempts at one pool. Never does: wait; the writer does.
//!
//! Of all that write a pool at the same version one wins. The winner knows the newest version and
//! needs no read before its next write, while the others read again first: left alone it would win
//! for as long as its node asks for addresses, and calls on other nodes would run out of time. So
//!
//! ```text
//! lost                    a pause of at most an attempt's time; there may be twice as many others
//! won against some        a rest of about an attempt's time for each of them, for these to win
//! won, more is asked      a rest of twice the time, in which an attempt of one not seen yet fits
//! won, nothing is asked   none: who asks one after the other is not held up
//! ```
//!
//! Where the claims of all nodes meet there are no others to make room for, unless they are seen:
//! then a write waits for more to carry, as long as it is likely to last itself, before the first
//! and between two. Before the first also longer, the more pools are asked of at the same time: what
//! many nodes ask at once is on its way for as long as the machine is busy with the rest of it.
//!
//! An attempt is a read and a write; its time is measured, since it grows with the pool and with
//! what the API server has to do. A lost attempt is another's success, so who stays while winners
//! rest wins before long. What is asked during a rest goes out in one write.

use std::time::Duration;

use tokio::time::Instant;

use super::Rivals;
use crate::kube_io::chance::up_to;
use crate::kube_io::retry::{Backoff, Outcome};

/// Bounds of what an attempt is taken to last.
const ATTEMPT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// Longest wait for more claims where all nodes' meet; the shortest is the shortest attempt.
const LINGER_MAX: Duration = Duration::from_millis(50);
/// Most others that room is made for.
const CROWD_MAX: u32 = 8;
/// First and longest cap of the pause after a failure that is no rival's doing.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(400));

/// What goes on around a write that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    /// Nobody else was seen to write since our last, and nothing is asked.
    Quiet,
    /// Nobody else was seen, and more is asked already.
    Busy,
    /// The pool moved without us.
    Contested,
}

/// The pauses of one writer.
#[derive(Debug)]
pub(super) struct Pace {
    rivals: Rivals,
    /// What an attempt lasts, smoothed.
    attempt: Duration,
    /// How many others there seem to be.
    crowd: u32,
    /// Whether an attempt was lost since the last success.
    has_lost: bool,
    backoff: Backoff,
    next: Instant,
}

impl Pace {
    /// Of a writer that has not written yet: it may at once.
    pub(super) fn new(rivals: Rivals) -> Self {
        Self {
            rivals,
            attempt: ATTEMPT.0,
            crowd: 1,
            has_lost: false,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            next: Instant::now(),
        }
    }

    /// When the next attempt may begin.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// When the first write may begin for who claimed at `since`, after a while without: more may
    /// follow. `busy` pools are asked of now, this one among them.
    pub(super) fn gathered(&self, since: Instant, busy: u32) -> Instant {
        let linger = match self.rivals {
            Rivals::None => self.attempt.max(ATTEMPT.0 * busy).min(LINGER_MAX),
            Rivals::Others => Duration::ZERO,
        };
        self.next.max(since + linger)
    }

    /// How long a write waits for more to carry: as long as it is likely to last itself.
    fn linger(&self) -> Duration {
        self.attempt.min(LINGER_MAX)
    }

    /// An attempt that lasted so long was carried out.
    pub(super) fn won(&mut self, took: Duration, scene: Scene) {
        self.measure(took);
        let rest = match scene {
            Scene::Quiet => Duration::ZERO,
            Scene::Busy => match self.rivals {
                Rivals::Others => self.attempt * 2,
                Rivals::None => self.linger(),
            },
            // Evenly around the time for all of them, so that winners come back one by one.
            Scene::Contested => self.attempt * self.crowd / 2 + up_to(self.attempt * self.crowd),
        };
        if !std::mem::take(&mut self.has_lost) {
            self.crowd = (self.crowd / 2).max(1);
        }
        self.backoff.reset();
        self.next = Instant::now() + rest;
    }

    /// An attempt that lasted so long came to nothing.
    pub(super) fn lost(&mut self, took: Duration, outcome: Outcome) {
        let pause = if outcome == Outcome::Conflict {
            self.measure(took);
            self.crowd = (self.crowd * 2).min(CROWD_MAX);
            self.has_lost = true;
            up_to(self.attempt)
        } else {
            self.backoff.next_delay_for(outcome)
        };
        self.next = Instant::now() + pause;
    }

    fn measure(&mut self, took: Duration) {
        self.attempt = ((self.attempt + took) / 2).clamp(ATTEMPT.0, ATTEMPT.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(100);

    type Step<'a> = &'a dyn Fn(&mut Pace);

    /// The shortest and longest of many pauses that the last of `steps` makes.
    fn pauses(steps: &[Step<'_>]) -> (Duration, Duration) {
        let pauses = (0..1_000).map(|_| {
            let mut pace = Pace::new(Rivals::Others);
            pace.attempt = TOOK;
            for step in steps {
                step(&mut pace);
            }
            pace.next().duration_since(Instant::now())
        });
        let pauses: Vec<_> = pauses.collect();
        (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap())
    }

    #[track_caller]
    fn assert_fill(pauses: (Duration, Duration), from: Duration, to: Duration) {
        let tenth = to.saturating_sub(from) / 10;
        let near = |is: Duration, end| is.abs_diff(end) <= tenth;
        let inside = from <= pauses.0 && pauses.1 <= to;
        assert!(
            inside && near(pauses.0, from) && near(pauses.1, to),
            "{pauses:?}"
        );
    }

    fn lose(times: u32) -> impl Fn(&mut Pace) {
        move |pace| (0..times).for_each(|_| pace.lost(TOOK, Outcome::Conflict))
    }

    fn win(scene: Scene) -> impl Fn(&mut Pace) {
        move |pace| pace.won(TOOK, scene)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_attempt_is_not_held_up() {
        assert_eq!(Pace::new(Rivals::Others).next(), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_write_waits_the_longer_the_more_pools_are_asked_of_and_never_for_rivals() {
        let now = Instant::now();
        let waits = |rivals, busy| Pace::new(rivals).gathered(now, busy) - now;
        let each = [1, 2, 9, 10, 11, 1_000].map(|busy| waits(Rivals::None, busy));
        assert_eq!(each.map(|wait| wait.as_millis()), [5, 10, 45, 50, 50, 50]);
        assert_eq!(waits(Rivals::Others, 9), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_seems_alone_rests_for_two_attempts_if_more_is_asked_and_else_not_at_all() {
        assert_fill(pauses(&[&win(Scene::Busy)]), 2 * TOOK, 2 * TOOK);
        assert_fill(
            pauses(&[&win(Scene::Quiet)]),
            Duration::ZERO,
            Duration::ZERO,
        );
    }

    #[tokio::test(start_paused = true)]
    async fn losers_come_back_sooner_than_winners() {
        assert_fill(pauses(&[&lose(9)]), Duration::ZERO, TOOK);
        let won = pauses(&[&lose(9), &win(Scene::Contested)]);
        assert_fill(won, TOOK * CROWD_MAX / 2, TOOK * CROWD_MAX * 3 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_made_for_as_many_as_won_before() {
        let won = pauses(&[&lose(1), &win(Scene::Contested)]);
        assert_fill(won, TOOK, TOOK * 3);
        let won = pauses(&[&lose(2), &win(Scene::Contested)]);
        assert_fill(won, TOOK * 2, TOOK * 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_at_the_first_attempt_halves_the_crowd() {
        let won = pauses(&[&lose(2), &win(Scene::Contested), &win(Scene::Contested)]);
        assert_fill(won, TOOK * 2, TOOK * 6);
        let at_once = win(Scene::Contested);
        let won = pauses(&[&lose(2), &at_once, &at_once, &at_once]);
        assert_fill(won, TOOK, TOOK * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_measured_within_bounds() {
        let slow: Step<'_> = &|pace| pace.won(Duration::from_secs(9), Scene::Busy);
        assert_fill(pauses(&[slow]), ATTEMPT.1 * 2, ATTEMPT.1 * 2);
        let quick: Step<'_> = &|pace| {
            for _ in 0..9 {
                pace.won(Duration::ZERO, Scene::Busy);
            }
        };
        assert_fill(pauses(&[quick]), ATTEMPT.0 * 2, ATTEMPT.0 * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_asks_for_a_pause_gets_it() {
        let mut pace = Pace::new(Rivals::Others);
        let after = Some(Duration::from_secs(2));
        pace.lost(TOOK, Outcome::Retryable { after });
        assert!(pace.next() >= Instant::now() + Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_claims_meet_a_write_waits_for_more_as_long_as_one_lasts_up_to_a_bound() {
        let mut pace = Pace::new(Rivals::None);
        let lingers = |pace: &Pace| pace.next().duration_since(Instant::now());
        let first = pace.gathered(Instant::now(), 1);
        assert_eq!(first - Instant::now(), ATTEMPT.0, "before the first");
        for (took, wanted) in [(20, 20), (400, 50)] {
            let took = Duration::from_millis(took);
            (0..20).for_each(|_| pace.won(took, Scene::Busy));
            assert!(
                lingers(&pace).abs_diff(Duration::from_millis(wanted)) < Duration::from_millis(1)
            );
        }
        pace.won(TOOK, Scene::Quiet);
        assert_eq!(lingers(&pace), Duration::ZERO, "nobody waits");
    }
}
