//! Names, uids and versions, each a type of its own so that none is taken for another.
//!
//! The text inside is the API server's and is never changed; only [`label_value`] and
//! [`pool_name`] make new names, within the limits of RFC 1123 and of label values.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::addr::Family;

macro_rules! newtype {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps `text` as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text as the API server has it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    )*};
}

newtype! {
    /// Name of a SpiderIPPool.
    PoolName;
    /// Name of a SpiderSubnet.
    SubnetName;
    /// Uid of an object: it tells namesakes apart.
    Uid;
    /// `metadata.resourceVersion`: opaque here, a fence for writes.
    Version;
    /// Name of a Pod's interface, such as `eth0`.
    Nic;
    /// Name of a node.
    NodeName;
    /// Container id of a Pod sandbox, as the CNI call carries it.
    Sandbox;
}

/// `namespace/name` of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodName(String);

impl PodName {
    /// The name of Pod `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}"))
    }

    /// `namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Namespace and name; a text without `/` is a name in no namespace.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or(("", &self.0))
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload: the top controller of its Pods, or a bare Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadId {
    /// API group, empty for the core group.
    pub group: String,
    /// API version inside the group.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid of this very object, which a namesake made later does not share.
    pub uid: Uid,
}

impl WorkloadId {
    /// `group/version`, or `version` for the core group, as manifests have it.
    pub fn api_version(&self) -> String {
        crate::kind::api_version(&self.group, &self.version)
    }

    /// `group_version`, or `version` for the core group: the value of label `owner-application-gv`.
    pub fn gv(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}_{}", self.group, self.version)
        }
    }

    /// `Kind.group`, or `Kind` for the core group, as Kubernetes names kinds in its errors.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// `group_version_Kind_namespace_name`: `application` in a subnet's ledger.
    pub fn application(&self) -> String {
        format!(
            "{}_{}_{}_{}",
            self.gv(),
            self.kind,
            self.namespace,
            self.name
        )
    }

    /// True for `other` of the same kind, namespace and name, whatever its uid.
    pub fn is_namesake(&self, other: &Self) -> bool {
        let key = |w: &Self| {
            (
                w.group.clone(),
                w.kind.clone(),
                w.namespace.clone(),
                w.name.clone(),
            )
        };
        key(self) == key(other)
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Most characters of a label value (Kubernetes, "Labels and Selectors").
const LABEL_VALUE_MAX: usize = 63;
/// Most characters of an object's name (RFC 1123 subdomain, as Kubernetes bounds it).
const OBJECT_NAME_MAX: usize = 253;

/// A stable 64-bit hash of `text`, in 16 hexadecimal digits: the same on every machine and version.
pub fn stable_hash(text: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    format!("{:016x}", hasher.finish())
}

/// `text` as a label value: itself where it fits, else its head and a hash of the whole.
///
/// Two texts that differ give two values (up to the hash). Cost: O(length).
pub fn label_value(text: &str) -> Cow<'_, str> {
    if text.len() <= LABEL_VALUE_MAX {
        return Cow::Borrowed(text);
    }
    let hash: String = stable_hash(text).chars().take(8).collect();
    let head: String = text
        .chars()
        .take(LABEL_VALUE_MAX.saturating_sub(9))
        .collect();
    Cow::Owned(format!("{}-{hash}", head.trim_end_matches(['-', '.', '_'])))
}

/// The name of a workload's pool: `auto4-<workload>-<nic>-<uid5>`, as the original names it.
///
/// Upper case is lowered, what is illegal in an object's name becomes `-`, and a workload's name
/// that would pass 253 characters is cut. `salt` makes another name where that one is taken.
pub fn pool_name(family: Family, workload: &WorkloadId, nic: &Nic, salt: Option<&str>) -> PoolName {
    let uid5: String = workload
        .uid
        .as_str()
        .rsplit('-')
        .next()
        .unwrap_or_default()
        .chars()
        .take(5)
        .collect();
    let mut tail = format!("-{}-{}", legal(nic.as_str()), legal(&uid5));
    if let Some(salt) = salt {
        let short: String = stable_hash(salt).chars().take(5).collect();
        tail = format!("{tail}-{short}");
    }
    let head = format!("auto{}-", family.version());
    let room = OBJECT_NAME_MAX
        .saturating_sub(head.len())
        .saturating_sub(tail.len());
    let name: String = legal(&workload.name).chars().take(room).collect();
    PoolName::new(format!("{head}{}{tail}", name.trim_end_matches(['-', '.'])))
}

/// Text for the name of an object (RFC 1123): a dot stays between letters and digits only, as the
/// parts that it divides must begin and end with such.
fn legal(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let text = text.to_lowercase();
    let mut before = None;
    let mut rest = text.chars().peekable();
    let mut legal = String::new();
    while let Some(c) = rest.next() {
        let divides =
            c == '.' && before.is_some_and(is_plain) && rest.peek().is_some_and(|c| is_plain(*c));
        legal.push(if is_plain(c) || divides { c } else { '-' });
        before = Some(c);
    }
    legal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(name: &str) -> WorkloadId {
        WorkloadId {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: name.into(),
            uid: Uid::from("0f6e-a5bd31c0ffee"),
        }
    }

    #[test]
    fn a_pool_is_named_after_its_workload_nic_and_uid() {
        let name = pool_name(Family::V4, &web("web"), &Nic::from("eth0"), None);
        assert_eq!(name.as_str(), "auto4-web-eth0-a5bd3");
    }

    #[test]
    fn illegal_characters_of_a_nic_are_mapped() {
        let name = pool_name(Family::V6, &web("web"), &Nic::from("Net_1"), None);
        assert_eq!(name.as_str(), "auto6-web-net-1-a5bd3");
    }

    /// Whatever an annotation calls an interface, the API server takes its pool.
    #[test]
    fn dots_that_divide_nothing_are_mapped() {
        for (nic, expected) in [
            ("eth0.100", "eth0.100"),
            ("a..b", "a--b"),
            ("a.-b_.c", "a--b--c"),
        ] {
            let name = pool_name(Family::V4, &web("web"), &Nic::from(nic), None);
            assert_eq!(name.as_str(), format!("auto4-web-{expected}-a5bd3"));
        }
    }

    #[test]
    fn the_longest_workload_name_gives_a_legal_pool_name() {
        let name = pool_name(
            Family::V4,
            &web(&"w".repeat(253)),
            &Nic::from("eth0"),
            Some("net4"),
        );
        assert_eq!(name.as_str().len(), OBJECT_NAME_MAX);
    }

    #[test]
    fn long_label_values_are_cut_but_stay_distinct() {
        let (long, longer) = ("a".repeat(100), "a".repeat(101));
        let (a, b) = (label_value(&long), label_value(&longer));
        assert!(a.len() <= LABEL_VALUE_MAX && b.len() <= LABEL_VALUE_MAX);
        assert_ne!(a, b);
        assert_eq!(label_value("web"), "web");
    }

    #[test]
    fn a_kind_is_named_with_its_group_where_it_has_one() {
        assert_eq!(web("web").group_kind(), "Deployment.apps");
        let of_core = WorkloadId {
            group: String::new(),
            kind: "Pod".into(),
            ..web("web")
        };
        assert_eq!(of_core.group_kind(), "Pod");
    }

    #[test]
    fn a_namesake_may_be_of_another_version_and_another_time_and_of_nothing_else() {
        let own = web("web");
        let with = |change: fn(&mut WorkloadId)| {
            let mut other = own.clone();
            change(&mut other);
            own.is_namesake(&other)
        };
        assert!(with(|other| other.uid = Uid::from("later")));
        assert!(with(|other| other.version = "v2".into()));
        assert!(!with(|other| other.name = "db".into()));
        assert!(!with(|other| other.namespace = "test".into()));
        assert!(!with(|other| other.kind = "StatefulSet".into()));
        assert!(!with(|other| other.group = "apps.kruise.io".into()));
    }

    #[test]
    fn application_is_written_as_the_ledger_has_it() {
        assert_eq!(web("web").application(), "apps_v1_Deployment_shop_web");
    }
}
