//! What a large hunt must have met: faults and work that were drawn and never happened prove nothing.

use std::fmt;

/// What comes of faults and of much work, and must be seen somewhere in a large hunt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sight {
    /// A write lost against another.
    Conflict,
    /// Someone asked for history that is forgotten.
    Forgotten,
    /// An agent wrote a pool itself.
    AgentWrote,
    /// The leader's allocator did what an agent asked.
    AllocatorGave,
    /// A Pod's first sandbox got an address that was bound before, and nothing was written for it.
    BoundEarly,
    /// A Pod got no address for the time being.
    Refused,
    /// There was none left.
    UsedOut,
    /// The original's agent wrote a pool.
    OriginalWrote,
    /// Two controllers wrote pools within a moment.
    TwoLed,
    /// The records of a pool can't be read.
    Garbled,
}

impl Sight {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[
        Self::Conflict,
        Self::Forgotten,
        Self::AgentWrote,
        Self::AllocatorGave,
        Self::BoundEarly,
        Self::Refused,
        Self::UsedOut,
        Self::OriginalWrote,
        Self::TwoLed,
        Self::Garbled,
    ];
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conflict => "(a write conflicts)",
            Self::Forgotten => "(410 is answered)",
            Self::AgentWrote => "(an agent writes a pool)",
            Self::AllocatorGave => "(the allocator is asked)",
            Self::BoundEarly => "(an ADD finds what was bound early)",
            Self::Refused => "(an ADD is refused)",
            Self::UsedOut => "(no address is left)",
            Self::OriginalWrote => "(the original's agent writes a pool)",
            Self::TwoLed => "(two controllers write pools within a moment)",
            Self::Garbled => "(records can't be read)",
        })
    }
}
