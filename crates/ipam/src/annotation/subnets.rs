//! `subnets` and `subnet`: which interface wants a pool of its own out of which subnets.

use serde_json::Value;

use super::json;
use super::{AnnotationError, DEFAULT_NIC, Get, SUBNET, SUBNETS};
use crate::addr::Family;
use crate::name::{Nic, SubnetName};

/// Most characters of an interface's name (Linux, `IFNAMSIZ` without the final zero).
const NIC_MAX: usize = 15;

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

/// `subnets`, else `subnet`: what the workload asks; `None` where it has neither annotation.
///
/// Errors: each names the annotation and the value. Cost: O(length).
pub fn subnets(get: Get<'_>) -> Result<Option<Vec<SubnetItem>>, AnnotationError> {
    if let Some(text) = get(SUBNETS) {
        let bad = |reason| AnnotationError::subnet(SUBNETS, text, reason);
        let items: Vec<SubnetItem> = json::array(&json::parse(text).map_err(bad)?)
            .map_err(bad)?
            .iter()
            .map(|item| subnet_item(SUBNETS, item, &bad))
            .collect::<Result<_, _>>()?;
        return check_items(items).map(Some);
    }
    let Some(text) = get(SUBNET) else {
        return Ok(None);
    };
    let bad = |reason| AnnotationError::subnet(SUBNET, text, reason);
    subnet_item(SUBNET, &json::parse(text).map_err(bad)?, &bad).map(|item| Some(vec![item]))
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
    let nic = json::text(item, "interface").map_err(bad)?;
    let nic = nic.filter(|nic| !nic.is_empty());
    let nic = nic.map_or_else(|| Nic::from(DEFAULT_NIC), Nic::new);
    if !is_nic(nic.as_str()) {
        return Err(AnnotationError::BadNic { key, nic });
    }
    let first = |name: &str, family: Family| -> Result<Option<SubnetName>, AnnotationError> {
        match json::strings(item, name).map_err(bad)?.into_iter().next() {
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
