//! `ippools`, `ippool` and the keys of Namespaces: pools by name.

use serde_json::Value;

use super::json;
use super::{AnnotationError, DEFAULT_NIC, Get, IPPOOL, IPPOOLS, NAMESPACE_IPV4, NAMESPACE_IPV6};
use crate::addr::Family;
use crate::name::{Nic, PoolName};

/// Pools by name for one interface, in the order in which they are tried. A name may be a
/// [`Pattern`](crate::pattern::Pattern).
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

/// What `ippools` says of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolItem {
    /// Its pools.
    pub pools: PoolNames,
    /// Whether it gets no default route.
    pub clean_gateway: bool,
}

/// `ippools`: pools for each of a Pod's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolItems {
    /// With the interface where the items name theirs: then all do, each another one.
    items: Vec<(Option<Nic>, PoolItem)>,
}

impl PoolItems {
    /// True where the items name no interface, and so serve them in the order of their coming.
    pub fn is_nameless(&self) -> bool {
        self.items.iter().any(|(nic, _)| nic.is_none())
    }

    /// The items in order, with the interface of those that name one.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&Nic>, &PoolItem)> {
        self.items.iter().map(|(nic, item)| (nic.as_ref(), item))
    }

    /// How many interfaces are served.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Never true: an annotation without items does not parse.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The item that serves `nic`. `called` are the interfaces of the Pod that asked so far, in the
    /// order in which each asked first: of nameless items the first is that of `eth0`, and the
    /// others follow that order.
    ///
    /// Errors: [`AnnotationError::Pool`] where no item does.
    pub fn serving(&self, nic: &Nic, called: &[Nic]) -> Result<&PoolItem, AnnotationError> {
        let place = if self.is_nameless() {
            Some(place_of(nic, called))
        } else {
            let mut named = self.items.iter();
            named.position(|(name, _)| name.as_ref() == Some(nic))
        };
        let item = place.and_then(|place| self.items.get(place));
        item.map(|(_, item)| item).ok_or_else(|| {
            let reason = match place {
                Some(place) => format!(
                    "interface {nic} must be specified: it is number {} of the Pod, and {} are listed",
                    place.saturating_add(1),
                    self.items.len()
                ),
                None => format!("interface {nic} must be specified"),
            };
            AnnotationError::pool(IPPOOLS, &self.to_string(), reason)
        })
    }
}

/// As JSON, for texts.
impl std::fmt::Display for PoolItems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let items = self.items.iter().map(|(nic, item)| {
            let mut object = serde_json::Map::new();
            if let Some(nic) = nic {
                object.insert("interface".to_owned(), nic.as_str().into());
            }
            for (key, names) in [("ipv4", &item.pools.ipv4), ("ipv6", &item.pools.ipv6)] {
                if !names.is_empty() {
                    let names = names.iter().map(PoolName::as_str);
                    object.insert(key.to_owned(), names.collect());
                }
            }
            if item.clean_gateway {
                object.insert("cleangateway".to_owned(), true.into());
            }
            Value::Object(object)
        });
        write!(f, "{}", Value::Array(items.collect()))
    }
}

/// Where an interface comes among those of its Pod.
fn place_of(nic: &Nic, called: &[Nic]) -> usize {
    if nic.as_str() == DEFAULT_NIC {
        return 0;
    }
    let mut others = called.iter().filter(|n| n.as_str() != DEFAULT_NIC);
    let count = others.clone().count();
    let place = others.position(|other| other == nic).unwrap_or(count);
    place.saturating_add(1)
}

/// `ippools`: the pools a Pod names for each interface; `None` where it has no such annotation.
///
/// Errors: [`AnnotationError::Pool`]; the first item that is wrong is named. Cost: O(items²).
pub fn ippools(get: Get<'_>) -> Result<Option<PoolItems>, AnnotationError> {
    let Some(text) = get(IPPOOLS) else {
        return Ok(None);
    };
    let bad = |reason| AnnotationError::pool(IPPOOLS, text, reason);
    let list = json::parse(text).map_err(bad)?;
    let mut items: Vec<(Option<Nic>, PoolItem)> = Vec::new();
    for item in json::array(&list).map_err(bad)? {
        let item = pool_item(item).map_err(bad)?;
        if let Some((first, _)) = items.first() {
            if first.is_some() != item.0.is_some() {
                let reason = "NIC should be either all specified or all unspecified";
                return Err(bad(reason.to_owned()));
            }
            if let Some(nic) = item.0.as_ref()
                && items.iter().any(|(other, _)| other.as_ref() == Some(nic))
            {
                return Err(bad(format!("duplicate interface {nic}")));
            }
        }
        items.push(item);
    }
    if items.is_empty() {
        return Err(bad("value requires at least one item".to_owned()));
    }
    Ok(Some(PoolItems { items }))
}

fn pool_item(item: &Value) -> Result<(Option<Nic>, PoolItem), String> {
    let nic = json::text(item, "interface")?.filter(|nic| !nic.is_empty());
    let clean_gateway = json::boolean(item, "cleangateway")?.unwrap_or_default();
    let pools = pool_names(item)?;
    let item = PoolItem {
        pools,
        clean_gateway,
    };
    Ok((nic.map(Nic::new), item))
}

fn pool_names(object: &Value) -> Result<PoolNames, String> {
    let names = |key: &str| -> Result<Vec<PoolName>, String> {
        let names = json::strings(object, key)?;
        Ok(names.into_iter().map(PoolName::new).collect())
    };
    Ok(PoolNames {
        ipv4: names("ipv4")?,
        ipv6: names("ipv6")?,
    })
}

/// `ippool`: the pools a Pod names for whichever interface is added; `None` where it has no such
/// annotation.
///
/// Errors: [`AnnotationError::Pool`].
pub fn ippool(get: Get<'_>) -> Result<Option<PoolNames>, AnnotationError> {
    let Some(text) = get(IPPOOL) else {
        return Ok(None);
    };
    let names = json::parse(text).and_then(|value| pool_names(&value));
    let names = names.map_err(|reason| AnnotationError::pool(IPPOOL, text, reason))?;
    Ok(Some(names))
}

/// The default pools of a Namespace; empty where it names none.
///
/// Errors: [`AnnotationError::Namespace`].
pub fn namespace_pools(get: Get<'_>) -> Result<PoolNames, AnnotationError> {
    let names = |key: &'static str| -> Result<Vec<PoolName>, AnnotationError> {
        let Some(text) = get(key) else {
            return Ok(Vec::new());
        };
        let list = json::parse(text).and_then(|value| json::string_list(&value));
        let list = list.map_err(|reason| AnnotationError::namespace(key, text, reason))?;
        Ok(list.into_iter().map(PoolName::new).collect())
    };
    Ok(PoolNames {
        ipv4: names(NAMESPACE_IPV4)?,
        ipv6: names(NAMESPACE_IPV6)?,
    })
}
