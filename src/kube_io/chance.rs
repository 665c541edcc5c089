//! Chance: the one source of random numbers of the roles.
//!
//! Owns: a stream a thread, seeded by the operating system. Never does: secrets, or anything that
//! must be unique; what is drawn here only spreads callers out. Invariant: no role draws elsewhere,
//! so a simulation that [`seed`]s its thread knows every draw.

use std::cell::RefCell;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng as _};

thread_local! {
    static STREAM: RefCell<StdRng> = RefCell::new(StdRng::from_os_rng());
}

/// Drawn evenly from zero to `cap`.
pub fn up_to(cap: Duration) -> Duration {
    cap.mul_f64(STREAM.with_borrow_mut(Rng::random))
}

/// Begins this thread's stream anew: the same seed, the same draws.
pub fn seed(seed: u64) {
    STREAM.set(StdRng::seed_from_u64(seed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_alike() {
        let draws = |of| {
            seed(of);
            [0; 4].map(|_| up_to(Duration::from_secs(1)))
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
