//! Who has an address, asked on the interface's own network.
//!
//! Owns: how often is asked and how long is listened. Never does: decide what
//! an answer means for the call, or open anything; [`Segment`] is the wire.
//!
//! ```text
//! ask all  ── listen ROUND ── ask those without an answer ── listen ROUND ── …  ROUNDS times
//!                 └ all answered: done at once
//! ```

mod frame;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use self::frame::Claim;
use super::Host;

/// How often a question is asked.
pub(super) const ROUNDS: u32 = 3;

/// How long is listened after each time.
const ROUND: Duration = Duration::from_millis(100);

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

/// An Ethernet interface, as the frames that pass it.
pub trait Segment {
    /// Its hardware address.
    fn mac(&self) -> Mac;

    /// Sends a whole frame.
    ///
    /// # Errors
    /// The system's.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;

    /// The next frame that comes within `limit`; `None` if none does.
    ///
    /// # Errors
    /// The system's.
    fn receive(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>>;
}

/// Who else has, or is about to take, each of `addresses`. Nobody's neighbour
/// table changes by it.
pub(super) fn holders(
    host: &dyn Host,
    segment: &mut dyn Segment,
    addresses: &[IpAddr],
) -> io::Result<BTreeMap<IpAddr, Mac>> {
    let questions: Vec<Question> = addresses.iter().map(|a| (*a, None)).collect();
    ask(host, segment, &questions, &[Claim::Has, Claim::Wants])
}

/// The hardware address of each gateway that answers the address which is to
/// use it.
pub(super) fn gateways(
    host: &dyn Host,
    segment: &mut dyn Segment,
    users: &[(IpAddr, IpAddr)],
) -> io::Result<BTreeMap<IpAddr, Mac>> {
    let questions: Vec<Question> = users
        .iter()
        .map(|(gateway, user)| (*gateway, Some(*user)))
        .collect();
    ask(host, segment, &questions, &[Claim::Has])
}

/// Tells the network that `addresses` are here.
pub(super) fn announce(segment: &mut dyn Segment, addresses: &[IpAddr]) -> io::Result<()> {
    let own = segment.mac();
    addresses
        .iter()
        .try_for_each(|address| segment.send(&frame::announcement(own, *address)))
}

/// An address, and who asks for it: nobody, in a probe.
type Question = (IpAddr, Option<IpAddr>);

fn ask(
    host: &dyn Host,
    segment: &mut dyn Segment,
    questions: &[Question],
    counted: &[Claim],
) -> io::Result<BTreeMap<IpAddr, Mac>> {
    let own = segment.mac();
    let mut answered = BTreeMap::new();
    for _ in 0..ROUNDS {
        let open = || questions.iter().map(|(target, _)| target);
        for (target, asker) in questions {
            if !answered.contains_key(target) {
                segment.send(&frame::question(own, *target, *asker))?;
            }
        }
        let until = host.now() + ROUND;
        loop {
            if open().all(|target| answered.contains_key(target)) {
                return Ok(answered);
            }
            let left = until.saturating_sub(host.now());
            if left.is_zero() {
                break;
            }
            let Some(heard) = segment.receive(left)?.and_then(|f| frame::heard(&f)) else {
                continue;
            };
            let foreign = heard.from != own && counted.contains(&heard.claim);
            if foreign && open().any(|target| *target == heard.address) {
                answered.entry(heard.address).or_insert(heard.from);
            }
        }
    }
    Ok(answered)
}
