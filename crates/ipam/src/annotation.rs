//! What users ask for in annotations, parsed once.
//!
//! Object keys are matched whatever their case and unknown keys are ignored, as the original's
//! decoder does. Error texts begin as the original's do; their tails say what is wrong in words
//! of serde.

use serde_json::Value;

use crate::addr::Family;
use crate::name::{Nic, PoolName, SubnetName};

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
/// Namespace annotation: default IPv4 pools.
pub const NAMESPACE_IPV4: &str = "ipam.spidernet.io/default-ipv4-ippool";
/// Namespace annotation: default IPv6 pools.
pub const NAMESPACE_IPV6: &str = "ipam.spidernet.io/default-ipv6-ippool";

/// The interface of annotation `subnet` where it names none.
const DEFAULT_NIC: &str = "eth0";

/// Most characters of an interface's name (Linux, `IFNAMSIZ` without the final zero).
const NIC_MAX: usize = 15;

/// Why an annotation cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// `subnet` or `subnets` is not the JSON it should be.
    #[error("failed to parse anntation '{key}' value '{value}', error: {reason}")]
    Subnet {
        /// Annotation key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// `ippool` or `ippools` is not the JSON it should be.
    #[error("wrong input, invalid format of Pod annotation '{key}': {reason}")]
    Pool {
        /// Annotation key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A Namespace's annotation is not a JSON array of pool names.
    #[error(
        "wrong input, invalid format of Namespace annotation '{key}' value '{value}': {reason}"
    )]
    Namespace {
        /// Annotation key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// A subnet's name is empty.
    #[error("annotation '{key}': it's invalid to set an empty {family} subnet for interface {nic}")]
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
    #[error("annotation '{key}': it's invalid to use the same interface {nic} twice")]
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
    #[error("annotation '{key}': no subnets specified")]
    NoItem {
        /// Annotation key.
        key: &'static str,
    },
    /// The size is below zero.
    #[error("subnet '{IP_NUMBER}' value must equal or greater than 0")]
    NegativeNumber,
    /// The size is no number.
    #[error("invalid input '{0}': annotation '{IP_NUMBER}' takes N or +N")]
    Number(String),
    /// The reclaim switch is no boolean.
    #[error(
        "failed to parse spider subnet '{RECLAIM}', error: invalid value \"{0}\", use \"true\" or \"false\""
    )]
    Reclaim(String),
}

/// What one interface of a workload asks of which subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetItem {
    /// Interface.
    pub nic: Nic,
    /// IPv4 subnet.
    pub ipv4: Option<SubnetName>,
    /// IPv6 subnet.
    pub ipv6: Option<SubnetName>,
}

impl SubnetItem {
    /// The subnet of `family`, if one is named.
    pub fn subnet(&self, family: Family) -> Option<&SubnetName> {
        match family {
            Family::V4 => self.ipv4.as_ref(),
            Family::V6 => self.ipv6.as_ref(),
        }
    }
}

/// Pools by name for one interface, in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolNames {
    /// IPv4 pools.
    pub ipv4: Vec<PoolName>,
    /// IPv6 pools.
    pub ipv6: Vec<PoolName>,
}

impl PoolNames {
    /// The pools of `family`.
    pub fn of(&self, family: Family) -> &[PoolName] {
        match family {
            Family::V4 => &self.ipv4,
            Family::V6 => &self.ipv6,
        }
    }

    /// True where neither family names a pool.
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
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

/// `subnets`, else `subnet`: what the workload asks; `None` where it has neither annotation.
///
/// Errors: each names the annotation and the value. Cost: O(length).
pub fn subnets(get: Get<'_>) -> Result<Option<Vec<SubnetItem>>, AnnotationError> {
    if let Some(text) = get(SUBNETS) {
        let bad = |reason: String| AnnotationError::Subnet {
            key: SUBNETS,
            value: text.to_owned(),
            reason,
        };
        let items: Vec<SubnetItem> = array(&parse_json(text).map_err(bad)?)
            .map_err(bad)?
            .iter()
            .map(|item| subnet_item(SUBNETS, item, &bad))
            .collect::<Result<_, _>>()?;
        return check_items(items).map(Some);
    }
    let Some(text) = get(SUBNET) else {
        return Ok(None);
    };
    let bad = |reason: String| AnnotationError::Subnet {
        key: SUBNET,
        value: text.to_owned(),
        reason,
    };
    subnet_item(SUBNET, &parse_json(text).map_err(bad)?, &bad).map(|item| Some(vec![item]))
}

fn check_items(items: Vec<SubnetItem>) -> Result<Vec<SubnetItem>, AnnotationError> {
    if items.is_empty() {
        return Err(AnnotationError::NoItem { key: SUBNETS });
    }
    for (index, item) in items.iter().enumerate() {
        if items
            .iter()
            .skip(index.saturating_add(1))
            .any(|other| other.nic == item.nic)
        {
            return Err(AnnotationError::TwiceNic {
                key: SUBNETS,
                nic: item.nic.clone(),
            });
        }
    }
    Ok(items)
}

fn subnet_item(
    key: &'static str,
    item: &Value,
    bad: &dyn Fn(String) -> AnnotationError,
) -> Result<SubnetItem, AnnotationError> {
    let nic = match field(item, "interface")
        .map_err(bad)?
        .filter(|v| !v.is_null())
    {
        None => Nic::from(DEFAULT_NIC),
        Some(value) => match value.as_str() {
            Some("") => Nic::from(DEFAULT_NIC),
            Some(nic) => Nic::from(nic),
            None => return Err(bad(format!("interface: {}", unexpected("a string", value)))),
        },
    };
    if !is_nic(nic.as_str()) {
        return Err(AnnotationError::BadNic { key, nic });
    }
    let first = |name: &str, family: Family| -> Result<Option<SubnetName>, AnnotationError> {
        match strings(item, name).map_err(bad)?.into_iter().next() {
            Some(name) if name.is_empty() => Err(AnnotationError::EmptySubnet {
                key,
                family,
                nic: nic.clone(),
            }),
            name => Ok(name.map(SubnetName::new)),
        }
    };
    let (ipv4, ipv6) = (first("ipv4", Family::V4)?, first("ipv6", Family::V6)?);
    if ipv4.is_none() && ipv6.is_none() {
        return Err(AnnotationError::NoSubnet { key, nic });
    }
    Ok(SubnetItem { nic, ipv4, ipv6 })
}

/// A name that Linux takes for an interface and Kubernetes for the value of a label.
fn is_nic(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= NIC_MAX
        && name.chars().all(inner)
        && outer(name.chars().next())
        && outer(name.chars().last())
}

/// `ippool`: the pools a Pod names; `None` where it has no such annotation.
///
/// Errors: [`AnnotationError::Pool`].
pub fn ippool(get: Get<'_>) -> Result<Option<PoolNames>, AnnotationError> {
    let Some(text) = get(IPPOOL) else {
        return Ok(None);
    };
    let bad = |reason: String| AnnotationError::Pool {
        key: IPPOOL,
        reason,
    };
    let value = parse_json(text).map_err(bad)?;
    let names = |name: &str| -> Result<Vec<PoolName>, AnnotationError> {
        Ok(strings(&value, name)
            .map_err(bad)?
            .into_iter()
            .map(PoolName::new)
            .collect())
    };
    Ok(Some(PoolNames {
        ipv4: names("ipv4")?,
        ipv6: names("ipv6")?,
    }))
}

/// The default pools of a Namespace; empty where it names none.
///
/// Errors: [`AnnotationError::Namespace`].
pub fn namespace_pools(get: Get<'_>) -> Result<PoolNames, AnnotationError> {
    let names = |key: &'static str| -> Result<Vec<PoolName>, AnnotationError> {
        let Some(text) = get(key) else {
            return Ok(Vec::new());
        };
        let bad = |reason| AnnotationError::Namespace {
            key,
            value: text.to_owned(),
            reason,
        };
        let list = string_list(&parse_json(text).map_err(bad)?).map_err(bad)?;
        Ok(list.into_iter().map(PoolName::new).collect())
    };
    Ok(PoolNames {
        ipv4: names(NAMESPACE_IPV4)?,
        ipv6: names(NAMESPACE_IPV6)?,
    })
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
        return Err(AnnotationError::NegativeNumber);
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

fn parse_json(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Err("unexpected end of JSON input".to_owned());
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// The value of `name` in an object, whatever the case of its key; the last one wins.
fn field<'v>(object: &'v Value, name: &str) -> Result<Option<&'v Value>, String> {
    if object.is_null() {
        return Ok(None);
    }
    let map = object
        .as_object()
        .ok_or_else(|| unexpected("an object", object))?;
    let named = map.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    Ok(named.map(|(_, value)| value).next_back())
}

fn strings(object: &Value, name: &str) -> Result<Vec<String>, String> {
    match field(object, name)? {
        None => Ok(Vec::new()),
        Some(list) => string_list(list).map_err(|reason| format!("{name}: {reason}")),
    }
}

fn string_list(list: &Value) -> Result<Vec<String>, String> {
    let text = |item: &Value| {
        item.as_str()
            .map(str::to_owned)
            .ok_or_else(|| unexpected("a string", item))
    };
    array(list)?.iter().map(text).collect()
}

/// The items of an array; none for `null`.
fn array(value: &Value) -> Result<&[Value], String> {
    if value.is_null() {
        return Ok(&[]);
    }
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| unexpected("an array", value))
}

fn unexpected(wanted: &str, found: &Value) -> String {
    format!("expected {wanted}, found {}", kind(found))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(
        key: &str,
        value: &str,
        parse: impl Fn(Get<'_>) -> Result<T, AnnotationError>,
    ) -> Result<T, AnnotationError> {
        let get = |k: &str| (k == key).then_some(value);
        parse(&get)
    }

    #[test]
    fn a_subnet_is_read_whatever_the_case_of_its_keys() {
        let items = with(
            SUBNET,
            r#"{"IPV4":["net4","spare"],"ipv6":["net6"]}"#,
            subnets,
        );
        let expected = SubnetItem {
            nic: Nic::from("eth0"),
            ipv4: Some(SubnetName::from("net4")),
            ipv6: Some(SubnetName::from("net6")),
        };
        assert_eq!(items.unwrap().unwrap(), vec![expected]);
    }

    #[test]
    fn bad_subnet_annotations_name_key_and_value() {
        for (key, value) in [
            (SUBNET, "{}"),
            (SUBNET, "null"),
            (SUBNET, ""),
            (SUBNET, r#"{"ipv4":"net4"}"#),
            (SUBNET, r#"{"ipv4":[""]}"#),
            (SUBNET, r#"{"interface":"net:1","ipv4":["a"]}"#),
            (SUBNET, r#"{"interface":"sixteen-letters-","ipv4":["a"]}"#),
            (SUBNETS, "[]"),
            (SUBNETS, r#"[{"ipv4":["a"]},{"ipv4":["b"]}]"#),
            (SUBNETS, r#"{"ipv4":["a"]}"#),
        ] {
            let error = with(key, value, subnets).unwrap_err().to_string();
            assert!(error.contains(key), "{value}: {error}");
        }
    }

    #[test]
    fn sizes_are_fixed_flexible_or_refused() {
        let size = |text| with(IP_NUMBER, text, |get| size_rule(get, SizeRule::Flexible(1)));
        assert_eq!(size("3"), Ok(SizeRule::Fixed(3)));
        assert_eq!(size("+0"), Ok(SizeRule::Flexible(0)));
        assert_eq!(size("-1"), Err(AnnotationError::NegativeNumber));
        assert_eq!(size("+-1"), Err(AnnotationError::NegativeNumber));
        for text in ["abc", "1+1+1", "5+3", "", "+", "99999999999"] {
            assert_eq!(size(text), Err(AnnotationError::Number(text.to_owned())));
        }
        assert_eq!(
            size_rule(&|_| None, SizeRule::Flexible(1)),
            Ok(SizeRule::Flexible(1))
        );
    }

    #[test]
    fn reclaim_is_true_unless_told_otherwise() {
        assert_eq!(reclaim(&|_| None), Ok(true));
        assert_eq!(with(RECLAIM, "F", reclaim), Ok(false));
        with(RECLAIM, "yes", reclaim).unwrap_err();
    }

    #[test]
    fn pools_are_read_and_their_errors_begin_as_the_original_s() {
        let names = with(IPPOOL, r#"{"interface":"eth0","ipv4":["a","b"]}"#, ippool);
        assert_eq!(names.unwrap().unwrap().of(Family::V4).len(), 2);
        let error = with(IPPOOL, "", ippool).unwrap_err().to_string();
        assert_eq!(
            error,
            "wrong input, invalid format of Pod annotation 'ipam.spidernet.io/ippool': unexpected end of JSON input"
        );
        let error = with(NAMESPACE_IPV4, "a", namespace_pools)
            .unwrap_err()
            .to_string();
        assert!(error.contains(NAMESPACE_IPV4));
    }
}
