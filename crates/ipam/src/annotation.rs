//! What users ask for in annotations, parsed once.
//!
//! Owns: the reading of every annotation of Pods, workloads and Namespaces, and what is said of one
//! that can't be read. Never does: look anything up. Object keys are matched whatever their case and
//! unknown keys are ignored, as the original's decoder does. Error texts begin as the original's
//! do; their tails say what is wrong in words of serde, and how the value should look.

mod json;
mod pools;
mod routes;
mod subnets;

pub use self::pools::{PoolItem, PoolItems, PoolNames, ippool, ippools, namespace_pools};
pub use self::routes::routes;
pub use self::subnets::{SubnetItem, subnets};

use crate::addr::Family;
use crate::listed::{self, ListError};
use crate::name::Nic;

/// Annotation: auto pools for several interfaces.
pub const SUBNETS: &str = "ipam.spidernet.io/subnets";
/// Annotation: auto pool for one interface.
pub const SUBNET: &str = "ipam.spidernet.io/subnet";
/// Annotation: size of the auto pool.
pub const IP_NUMBER: &str = "ipam.spidernet.io/ippool-ip-number";
/// Annotation: whether the auto pool goes with its workload.
pub const RECLAIM: &str = "ipam.spidernet.io/ippool-reclaim";
/// Annotation: pools by name, for the interface being added.
pub const IPPOOL: &str = "ipam.spidernet.io/ippool";
/// Annotation: pools by name, for several interfaces.
pub const IPPOOLS: &str = "ipam.spidernet.io/ippools";
/// Annotation: further routes, a JSON array of `{"dst", "gw"}`.
pub const ROUTES: &str = "ipam.spidernet.io/routes";
/// Namespace annotation: default IPv4 pools.
pub const NAMESPACE_IPV4: &str = "ipam.spidernet.io/default-ipv4-ippool";
/// Namespace annotation: default IPv6 pools.
pub const NAMESPACE_IPV6: &str = "ipam.spidernet.io/default-ipv6-ippool";

/// The interface of annotation `subnet` where it names none, and the first of nameless `ippools`.
const DEFAULT_NIC: &str = "eth0";

/// Most characters of a value that an error repeats: the text ends up in Events, which take 1,024
/// bytes.
const SHOWN_MAX: usize = 200;

/// Why an annotation cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// `subnet` or `subnets` is not the JSON it should be.
    #[error("failed to parse anntation '{key}' value '{value}', error: {reason}; write it like {}", form(.key))]
    Subnet {
        /// Annotation key.
        key: &'static str,
        /// Its value, or the beginning of a long one.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// `ippool`, `ippools` or `routes` is not what it should be.
    #[error("wrong input, invalid format of Pod annotation '{key}': {reason}; its value is '{value}', write it like {}", form(.key))]
    Pool {
        /// Annotation key.
        key: &'static str,
        /// Its value, or the beginning of a long one.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// A Namespace's annotation is not a JSON array of pool names.
    #[error("wrong input, invalid format of Namespace annotation '{key}' value '{value}': {reason}; write it like {}", form(.key))]
    Namespace {
        /// Annotation key.
        key: &'static str,
        /// Its value, or the beginning of a long one.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// A subnet's name is empty.
    #[error(
        "annotation '{key}': it's invalid to set an empty {family} subnet for interface {nic}: name a SpiderSubnet, or leave the family out"
    )]
    EmptySubnet {
        /// Annotation key.
        key: &'static str,
        /// Family of the empty name.
        family: Family,
        /// Interface.
        nic: Nic,
    },
    /// Neither family names a subnet.
    #[error(
        "annotation '{key}': interface {nic} names no subnet, set \"ipv4\" or \"ipv6\" to a SpiderSubnet"
    )]
    NoSubnet {
        /// Annotation key.
        key: &'static str,
        /// Interface.
        nic: Nic,
    },
    /// An interface is listed twice.
    #[error(
        "annotation '{key}': it's invalid to use the same interface {nic} twice: give each item an \"interface\" of its own"
    )]
    TwiceNic {
        /// Annotation key.
        key: &'static str,
        /// Interface.
        nic: Nic,
    },
    /// An interface's name is none that Linux takes.
    #[error(
        "annotation '{key}': '{nic}' is no interface name: use 1 to 15 letters, digits, '-', '_' or '.', first and last a letter or digit"
    )]
    BadNic {
        /// Annotation key.
        key: &'static str,
        /// What it names.
        nic: Nic,
    },
    /// `subnets` is empty.
    #[error("annotation '{key}': no subnets specified; write it like {}", form(.key))]
    NoItem {
        /// Annotation key.
        key: &'static str,
    },
    /// The size is below zero.
    #[error("subnet '{IP_NUMBER}' value must equal or greater than 0, and it is '{0}'")]
    NegativeNumber(String),
    /// The size is no number.
    #[error("invalid input '{0}': annotation '{IP_NUMBER}' takes N or +N")]
    Number(String),
    /// The kind has no number of Pods to follow.
    #[error(
        "{0} only supports fixed auto-created IPPool IP Number: its kind has no subresource scale, so set annotation '{IP_NUMBER}' to a number without '+'"
    )]
    NotScalable(String),
    /// The reclaim switch is no boolean.
    #[error(
        "failed to parse spider subnet '{RECLAIM}', error: invalid value \"{0}\", use \"true\" or \"false\""
    )]
    Reclaim(String),
}

impl AnnotationError {
    fn subnet(key: &'static str, value: &str, reason: String) -> Self {
        let value = shown(value);
        Self::Subnet { key, value, reason }
    }

    fn pool(key: &'static str, value: &str, reason: String) -> Self {
        let value = shown(value);
        Self::Pool { key, value, reason }
    }

    fn namespace(key: &'static str, value: &str, reason: String) -> Self {
        let value = shown(value);
        Self::Namespace { key, value, reason }
    }
}

/// A value as an error repeats it.
pub fn shown(value: &str) -> String {
    if value.chars().count() <= SHOWN_MAX {
        return value.to_owned();
    }
    value.chars().take(SHOWN_MAX).chain(['…']).collect()
}

/// A right value of an annotation.
fn form(key: &str) -> &'static str {
    match key {
        SUBNETS => {
            r#"[{"interface":"eth0","ipv4":["SUBNET"]},{"interface":"net1","ipv4":["SUBNET"]}]"#
        }
        SUBNET => r#"{"ipv4":["SUBNET"],"ipv6":["SUBNET"]}"#,
        IPPOOLS => r#"[{"interface":"eth0","ipv4":["POOL"]},{"interface":"net1","ipv4":["POOL"]}]"#,
        IPPOOL => r#"{"ipv4":["POOL"],"ipv6":["POOL"]}"#,
        ROUTES => r#"[{"dst":"10.0.0.0/16","gw":"192.168.1.1"}]"#,
        _ => r#"["POOL"]"#,
    }
}

/// How large an auto pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeRule {
    /// Always this many addresses.
    Fixed(u32),
    /// As many as the workload has Pods, and this many more.
    Flexible(u32),
}

impl std::fmt::Display for SizeRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(number) => write!(f, "{number}"),
            Self::Flexible(spare) => write!(f, "+{spare}"),
        }
    }
}

/// The value of annotation `key` for reading with a `get` function; Pods, templates, workloads and
/// Namespaces all carry such maps.
pub type Get<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// The key by which addresses of subnets are asked for; of both, the one that counts.
pub fn subnet_key(get: Get<'_>) -> Option<&'static str> {
    [SUBNETS, SUBNET].into_iter().find(|key| get(key).is_some())
}

/// True where a Pod names its pools itself: then an annotation `subnet` on its workload, which is
/// further away, means nothing to it.
pub fn names_pools(get: Get<'_>) -> bool {
    get(IPPOOLS).or(get(IPPOOL)).is_some()
}

/// Which interfaces ask for pools of their own, by the annotations of one object; `None` where they
/// say nothing of it.
///
/// Errors: one of the annotations that such a pool is made by can't be followed, so there is none.
/// Cost: O(length).
pub fn asked_of_subnets(get: Get<'_>) -> Result<Option<Vec<SubnetItem>>, AnnotationError> {
    let Some(items) = subnets(get)? else {
        return Ok(None);
    };
    size_rule(get, SizeRule::Flexible(0))?;
    reclaim(get)?;
    Ok(Some(items))
}

/// Why the annotations of a Pod to come can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// One can't be read.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A list of pools in one can't be meant.
    #[error("annotation '{key}': {error}")]
    List {
        /// Annotation key.
        key: &'static str,
        /// What is wrong.
        error: ListError,
    },
    /// One that should name pools names none.
    #[error("annotation '{key}' names no IPPool{}: list some under \"ipv4\" or \"ipv6\", write it like {}", of(.nic.as_ref()), form(.key))]
    NoPool {
        /// Annotation key.
        key: &'static str,
        /// The interface, where an item names one.
        nic: Option<Nic>,
    },
    /// One is on the workload itself, where nobody follows it.
    #[error(
        "annotation '{0}' counts on Pods alone: move it from the workload's own metadata to that of \
         the Pod template in its spec"
    )]
    Misplaced(&'static str),
}

fn of(nic: Option<&Nic>) -> String {
    nic.map(|nic| format!(" for interface {nic}"))
        .unwrap_or_default()
}

/// The first annotation that a workload has itself, and its template, on which alone it counts, has
/// not. Cost: O(1) look-ups of each.
pub fn misplaced(own: Get<'_>, of_pods: Get<'_>) -> Option<Fault> {
    let is_misplaced = |key: &&str| own(key).is_some() && of_pods(key).is_none();
    [IPPOOLS, IPPOOL, ROUTES]
        .into_iter()
        .find(is_misplaced)
        .map(Fault::Misplaced)
}

/// The first thing wrong with any of the annotations that Pods of a template will have.
///
/// Errors: what a Pod's call will be answered with. Cost: O(length).
pub fn check(get: Get<'_>) -> Result<(), Fault> {
    subnets(get)?;
    size_rule(get, SizeRule::Flexible(0))?;
    reclaim(get)?;
    check_pools(get)
}

/// The first thing wrong with those of them that an agent alone follows: which routes, which pools.
/// Of pools it reads what comes first, and nothing where `subnets` or `subnet` comes before them.
///
/// Errors and cost: as [`check`].
pub fn check_pools(get: Get<'_>) -> Result<(), Fault> {
    routes(get)?;
    if subnet_key(get).is_some() {
        return Ok(());
    }
    if let Some(items) = ippools(get)? {
        let mut items = items.iter();
        return items.try_for_each(|(nic, item)| check_names(IPPOOLS, nic, &item.pools));
    }
    match ippool(get)? {
        Some(pools) => check_names(IPPOOL, None, &pools),
        None => Ok(()),
    }
}

fn check_names(key: &'static str, nic: Option<&Nic>, pools: &PoolNames) -> Result<(), Fault> {
    let unnamed = Nic::from(DEFAULT_NIC);
    for family in [Family::V4, Family::V6] {
        listed::read(pools.of(family), family, nic.unwrap_or(&unnamed))
            .map_err(|error| Fault::List { key, error })?;
    }
    if pools.is_empty() {
        let nic = nic.cloned();
        return Err(Fault::NoPool { key, nic });
    }
    Ok(())
}

/// `ippool-ip-number`: the size of the auto pool; `default` where it is absent.
///
/// Errors: [`AnnotationError::Number`] and [`AnnotationError::NegativeNumber`].
pub fn size_rule(get: Get<'_>, default: SizeRule) -> Result<SizeRule, AnnotationError> {
    let Some(text) = get(IP_NUMBER) else {
        return Ok(default);
    };
    let wrong = || AnnotationError::Number(text.to_owned());
    let (number, flexible) = match text.split_once('+') {
        None => (text, false),
        Some(("", rest)) if !rest.contains('+') => (rest, true),
        Some(_) => return Err(wrong()),
    };
    let value: i64 = number.parse().map_err(|_| wrong())?;
    if value < 0 {
        return Err(AnnotationError::NegativeNumber(text.to_owned()));
    }
    let value = u32::try_from(value).map_err(|_| wrong())?;
    Ok(if flexible {
        SizeRule::Flexible(value)
    } else {
        SizeRule::Fixed(value)
    })
}

/// `ippool-reclaim`: whether the auto pool goes with its workload; true where it is absent.
///
/// Errors: [`AnnotationError::Reclaim`].
pub fn reclaim(get: Get<'_>) -> Result<bool, AnnotationError> {
    match get(RECLAIM) {
        None | Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some(other) => Err(AnnotationError::Reclaim(other.to_owned())),
    }
}

#[cfg(test)]
mod tests;
