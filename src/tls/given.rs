//! How a change of the authority is got over that others keep in the Secret.
//!
//! Owns: when the new certificate is served, and for how long the former authority stays trusted.
//! Never does: read the Secret. Replicas see a change within a [`LOOK`] of each other, and one of
//! them publishes whom to trust:
//!
//! ```text
//! Secret      A | B
//! trusted     A     | B A                            | B       the leader's look, and KEEP later
//! served      A A A   A A A A A A | B                          each replica's look, and HOLD later
//! ```
//!
//! Invariant: among replicas that saw the former one, whatever is served is trusted. One that starts in
//! between knows only what is in the Secret.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Bundle, LOOK};

/// How long the former certificate is served after the change was seen: by then the leader has seen
/// it too, and the API server what that published.
const HOLD: TimeDelta = TimeDelta::seconds(LOOK.as_secs().cast_signed() * 3 / 2);
/// How long the former authority stays trusted: by then each replica has seen the change and was
/// done with [`HOLD`], also if a look of it failed.
const KEEP: TimeDelta = TimeDelta::seconds(LOOK.as_secs().cast_signed() * 3);
/// Most former authorities that are trusted: one of them changes at each look, at worst.
const FORMERS_MAX: usize = 3;

/// What was seen of the authority so far.
#[derive(Debug, Default)]
pub(super) struct Handover {
    current: Option<Bundle>,
    formers: Vec<Bundle>,
    changed: DateTime<Utc>,
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What clients must trust.
    pub(super) bundle: Bundle,
    /// Whether the certificate that was found is served now, and not the former one.
    pub(super) exchange: bool,
    /// When another look is due.
    pub(super) due: Option<DateTime<Utc>>,
}

impl Handover {
    /// After a look that found `authority`.
    pub(super) fn step(&mut self, authority: &str, now: DateTime<Utc>) -> Step {
        let former = self.current.replace(authority.to_owned());
        if let Some(former) = former.filter(|former| former != authority) {
            self.formers.retain(|known| known != authority);
            self.formers.insert(0, former);
            self.formers.truncate(FORMERS_MAX);
            self.changed = now;
        }
        // A public authority is no part of a bundle, so nothing can be trusted beside it.
        let apart = authority.is_empty() || self.formers.iter().any(String::is_empty);
        if apart || now >= self.changed + KEEP {
            self.formers.clear();
        }
        let held = !self.formers.is_empty();
        let exchange = !held || now >= self.changed + HOLD;
        let wait = if exchange { KEEP } else { HOLD };
        let trusted = std::iter::once(authority);
        let trusted = trusted.chain(self.formers.iter().map(String::as_str));
        let trusted: Vec<&str> = trusted.map(str::trim_end).collect();
        Step {
            bundle: if held {
                trusted.join("\n") + "\n"
            } else {
                authority.to_owned()
            },
            exchange,
            due: held.then(|| self.changed + wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn step(bundle: &str, exchange: bool, due: Option<i64>) -> Step {
        Step {
            bundle: bundle.to_owned(),
            exchange,
            due: due.map(at),
        }
    }

    #[test]
    fn a_new_authority_is_trusted_first_served_later_and_the_former_one_forgotten_last() {
        let mut seen = Handover::default();
        assert_eq!(seen.step("a\n", at(0)), step("a\n", true, None));
        assert_eq!(seen.step("a\n", at(60)), step("a\n", true, None));
        let held = step("b\na\n", false, Some(1090));
        assert_eq!(seen.step("b\n", at(1000)), held);
        assert_eq!(seen.step("b\n", at(1060)), held);
        let both = step("b\na\n", true, Some(1180));
        assert_eq!(seen.step("b\n", at(1090)), both);
        assert_eq!(seen.step("b\n", at(1150)), both);
        assert_eq!(seen.step("b\n", at(1180)), step("b\n", true, None));
    }

    #[test]
    fn an_authority_that_changes_again_and_again_is_held_and_the_list_is_bounded() {
        let mut seen = Handover::default();
        seen.step("a", at(0));
        seen.step("b", at(100));
        assert_eq!(seen.step("c", at(160)), step("c\nb\na\n", false, Some(250)));
        for n in 0..9 {
            seen.step(&n.to_string(), at(200 + n));
        }
        let last = seen.step("8", at(210));
        assert_eq!(last, step("8\n7\n6\n5\n", false, Some(298)));
    }

    #[test]
    fn a_public_authority_is_trusted_alone_so_its_certificate_is_served_at_once() {
        let mut seen = Handover::default();
        seen.step("a", at(0));
        assert_eq!(seen.step("", at(9)), step("", true, None));
        assert_eq!(seen.step("b", at(99)), step("b", true, None));
    }
}
