//! Pools as a user lists them: names and patterns, in the order in which they are tried.
//!
//! Invariants: a pool is tried once, at its first place in the list; within a pattern pools come by
//! name, so that two agents try them in one order.

use std::collections::BTreeSet;

use crate::addr::Family;
use crate::name::{Nic, PoolName};
use crate::pattern::{Pattern, PatternError};

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The pool of this name.
    Pool(PoolName),
    /// Every pool of the family that the pattern takes.
    Matching(Pattern),
}

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A pool is named twice.
    #[error("wrong input, duplicate IPPool {pool} specified for NIC {nic}")]
    Duplicate {
        /// Name.
        pool: PoolName,
        /// Interface.
        nic: Nic,
    },
    /// A name is empty.
    #[error("wrong input, an empty {family} IPPool name specified for NIC {nic}")]
    Empty {
        /// Family of the list.
        family: Family,
        /// Interface.
        nic: Nic,
    },
    /// A pattern is malformed.
    #[error("failed to match wildcard: {family} PoolName pattern '{pattern}', error: {reason}")]
    Pattern {
        /// Family of the list.
        family: Family,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: PatternError,
    },
}

/// Reads the list of `nic` for one family.
///
/// Errors: [`ListError`]. Cost: O(n log n).
pub fn read(names: &[PoolName], family: Family, nic: &Nic) -> Result<Vec<Entry>, ListError> {
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    for pool in names {
        let name = pool.as_str();
        if name.is_empty() {
            let nic = nic.clone();
            return Err(ListError::Empty { family, nic });
        }
        if Pattern::is_meant(name) {
            let pattern = Pattern::parse(name).map_err(|reason| ListError::Pattern {
                family,
                pattern: name.to_owned(),
                reason,
            })?;
            list.push(Entry::Matching(pattern));
            continue;
        }
        if !seen.insert(pool) {
            let (pool, nic) = (pool.clone(), nic.clone());
            return Err(ListError::Duplicate { pool, nic });
        }
        list.push(Entry::Pool(pool.clone()));
    }
    Ok(list)
}

/// The names that a list means, given the names of `all` pools of its family.
///
/// A name without wildcards is in the answer whether or not there is such a pool. Cost:
/// O(patterns · pools · length).
pub fn expand<'p>(list: &[Entry], all: impl IntoIterator<Item = &'p PoolName>) -> Vec<PoolName> {
    let all: BTreeSet<&PoolName> = all.into_iter().collect();
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for entry in list {
        let here: Vec<&PoolName> = match entry {
            Entry::Pool(pool) => vec![pool],
            Entry::Matching(pattern) => {
                let taken = all.iter().filter(|name| pattern.matches(name.as_str()));
                taken.copied().collect()
            }
        };
        names.extend(
            here.into_iter()
                .filter(|name| seen.insert((*name).clone()))
                .cloned(),
        );
    }
    names
}

/// True where the list cannot be told without knowing all pools.
pub fn has_patterns(list: &[Entry]) -> bool {
    list.iter().any(|entry| matches!(entry, Entry::Matching(_)))
}

/// The entries as the user wrote them.
impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pool(pool) => pool.fmt(f),
            Self::Matching(pattern) => pattern.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<PoolName> {
        names.iter().map(|name| PoolName::from(*name)).collect()
    }

    fn listed(list: &[&str]) -> Result<Vec<String>, String> {
        let all = names(&["web-b", "web-a", "db-1", "spare"]);
        let list = read(&names(list), Family::V4, &Nic::from("net1")).map_err(|e| e.to_string())?;
        let expanded = expand(&list, &all);
        Ok(expanded.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_pattern_stands_for_its_pools_by_name_at_its_place() {
        assert_eq!(
            listed(&["spare", "web-*"]).unwrap(),
            ["spare", "web-a", "web-b"]
        );
        assert_eq!(
            listed(&["web-?", "ghost"]).unwrap(),
            ["web-a", "web-b", "ghost"]
        );
        assert!(listed(&["none-*"]).unwrap().is_empty());
    }

    #[test]
    fn only_a_pattern_makes_a_list_depend_on_what_pools_there_are() {
        for (list, expected) in [
            (&["spare", "web-*"][..], true),
            (&["spare", "web-a"], false),
            (&[], false),
        ] {
            let read = read(&names(list), Family::V4, &Nic::from("net1")).unwrap();
            assert_eq!(has_patterns(&read), expected, "{list:?}");
            let told: Vec<String> = read.iter().map(ToString::to_string).collect();
            assert_eq!(told, list);
        }
    }

    #[test]
    fn a_pool_that_several_entries_mean_is_tried_once_at_the_first() {
        assert_eq!(
            listed(&["web-b", "*"]).unwrap(),
            ["web-b", "db-1", "spare", "web-a"]
        );
        assert_eq!(
            listed(&["web-*", "web-b", "*"]).unwrap(),
            ["web-a", "web-b", "db-1", "spare"]
        );
    }

    #[test]
    fn a_list_that_cannot_be_meant_says_why() {
        let error = listed(&["p4", "p4"]).unwrap_err();
        assert_eq!(
            error,
            "wrong input, duplicate IPPool p4 specified for NIC net1"
        );
        let error = listed(&["a", ""]).unwrap_err();
        assert!(error.starts_with("wrong input, an empty IPv4 IPPool name specified for NIC net1"));
        let error = listed(&["a[]b"]).unwrap_err();
        let begins = "failed to match wildcard: IPv4 PoolName pattern 'a[]b', error: syntax error in pattern";
        assert!(error.starts_with(begins), "{error}");
    }
}
