//! The clients of a role.
//!
//! Owns: that there are two, and how they differ. Never does: find the API server; that is the
//! command line's.

use kube::{Client, Config};

use super::retry;

/// The two clients of a role: reads are repeated by the client, writes never.
#[derive(Clone)]
pub struct Clients {
    /// For lists, watches, gets and Events.
    pub read: Client,
    /// For everything that must not happen twice unseen: see [`retry::write_client`].
    pub write: Client,
}

impl Clients {
    /// Both clients for the API server of `config`.
    ///
    /// Errors: certificates or keys that can't be used. Nothing is sent.
    pub fn new(config: Config) -> Result<Self, kube::Error> {
        Ok(Self {
            read: Client::try_from(config.clone())?,
            write: retry::write_client(config)?,
        })
    }
}
