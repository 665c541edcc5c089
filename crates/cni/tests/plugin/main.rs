//! The plugin from outside.
//!
//! * `recorded`: the exchanges of the original's plugin and agent, replayed.
//! * `exec`: the real binary against an agent on a real socket.
//! * `errors`: every text and code a runtime may be told.
//! * `patience`: an agent that is away, on a clock that is made up.
//! * `detect`: addresses that others have, gateways that are silent, on a made-up network.
//! * `arbitrary`: input nobody thought of.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail by a missing value, and its helpers with it"
)]

mod arbitrary;
mod detect;
mod errors;
mod exec;
mod network;
mod patience;
mod recorded;
mod support;
