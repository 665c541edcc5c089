//! Whether what a person wrote of a pool, a subnet or a reservation may stand.
//!
//! Owns: the rules and texts of admission, and the defaults of what was left out. Never does: keep
//! anything safe. A pool is given addresses by [`crate::plan`] alone, which orders pools
//! by the ledger; what is refused here would there be told in a condition. So the parts are the same
//! functions that the controller and the agents use: [`parse_range`], [`outside`], [`address`],
//! [`Pool::claimed`](crate::pool::Pool::claimed), [`Subnet::lacks`](crate::subnet::Subnet::lacks).
//!
//! Invariants: a refusal names field, value and remedy, in the words that clients of the original
//! know where it had any; an update is refused only for what it makes worse, so that an object
//! which broke a rule before the rule was there can still be changed; the cost is in ranges, not in
//! addresses, and the text of an answer is bounded.
//!
//! Where to read next: [`fields`] for what an object says alone, [`pool`] and [`subnet`] for what it
//! says beside others.

pub mod fields;
pub mod pool;
pub mod reserved;
pub mod subnet;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

#[cfg(doc)]
use crate::addr::parse_range;
use crate::addr::{AddrSet, Family, Range};

/// Most refusals of one object that are told; more of them help nobody.
pub const REFUSALS_MAX: usize = 16;
/// Most characters of a value that are repeated.
const VALUE_MAX: usize = 200;
/// Most characters of what is said about it: it may list ranges.
const DETAIL_MAX: usize = 1000;
/// What total addresses are, said with every refusal about them.
const JOINTLY: &str = "jointly determined by 'spec.ips' and 'spec.excludeIPs'";

/// Which families are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4 is on.
    pub ipv4: bool,
    /// IPv6 is on.
    pub ipv6: bool,
}

impl Families {
    fn serve(self, family: Family) -> bool {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

/// One thing that is wrong. Prints as Kubernetes prints an error of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the field, such as `spec.ips[2]`.
    pub field: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The value can't be meant.
    Invalid {
        /// The value as it is shown: a quoted text or a list.
        shown: String,
        /// Why, and what would be right.
        detail: String,
    },
    /// The value could be meant, but not here, or not now.
    Forbidden(String),
    /// The value is none of those that there are.
    Unsupported {
        /// The value.
        shown: String,
        /// Those that there are.
        supported: &'static str,
    },
}

impl Refusal {
    fn invalid(field: impl Into<String>, value: &str, detail: impl fmt::Display) -> Self {
        Self::shown(field, format!("{:?}", clipped(value, VALUE_MAX)), detail)
    }

    fn shown(field: impl Into<String>, shown: String, detail: impl fmt::Display) -> Self {
        let fault = Fault::Invalid {
            shown,
            detail: clipped(&detail.to_string(), DETAIL_MAX),
        };
        let field = field.into();
        Self { field, fault }
    }

    fn forbidden(field: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self {
            field: field.into(),
            fault: Fault::Forbidden(clipped(&detail.to_string(), DETAIL_MAX)),
        }
    }
}

/// `text`, or as much of it as is told.
fn clipped(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, fault } = self;
        match fault {
            Fault::Invalid { shown, detail } => {
                write!(f, "{field}: Invalid value: {shown}: {detail}")
            }
            Fault::Forbidden(detail) => write!(f, "{field}: Forbidden: {detail}"),
            Fault::Unsupported { shown, supported } => {
                write!(
                    f,
                    "{field}: Unsupported value: {shown}: supported values: {supported}"
                )
            }
        }
    }
}

/// The addresses of `set` that do not lie in `net`: nobody would look for them there.
pub fn outside(set: &AddrSet, net: &IpNet) -> AddrSet {
    set.difference(&AddrSet::from(Range::of_net(net)))
}

/// Reads one address of `family`; `None` for any other text.
pub fn address(text: &str, family: Family) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    (Family::of(address) == family).then_some(address)
}

/// The refusals of `new` that `old` did not deserve already, and of those the first ones.
fn made_worse(new: Vec<Refusal>, old: &[Refusal]) -> Vec<Refusal> {
    let new = new.into_iter().filter(|refusal| !old.contains(refusal));
    new.take(REFUSALS_MAX).collect()
}

/// `field` can't be changed: refused where it was something, and is something else.
fn immutable<T: PartialEq>(field: &str, old: &T, new: &T) -> Option<Refusal> {
    let detail = "is not changeable: make a new object instead";
    (old != new).then(|| Refusal::forbidden(field, detail))
}

#[cfg(test)]
mod tests;
