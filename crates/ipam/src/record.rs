//! Who holds which address of a pool: the text of `status.allocatedIPs`, read and written.
//!
//! The text is JSON: an object keyed by the bare address, each value with the keys `pod` and
//! `podUid` of the original and our optional `nic`, `node`, `sandbox`, `owner`, `machine`,
//! `instance`, `next`, `kept` and `quarantine`. Keys we do not know are carried along. A text that
//! does not parse is never overwritten: the pool is left alone until a person mends it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::addr::{AddrCount, AddrSet};
use crate::keep::{Lineage, Machine, Next};
use crate::name::{Nic, NodeName, PodName, Sandbox, Uid};
use crate::once::Once;
use crate::quarantine::{self, Quarantine};

/// One address's owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `namespace/name` of the Pod.
    pub pod: PodName,
    /// Uid of the Pod: the owner's identity.
    #[serde(rename = "podUid")]
    pub uid: Uid,
    /// The Pod's interface; absent in records of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<Nic>,
    /// The node whose agent must acknowledge the release; absent in records of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The sandbox that last asked for this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// Uid of the StatefulSet or virtual machine whose Pods keep their addresses
    /// ([`crate::keep`]); absent for Pods that don't, and in records of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Uid>,
    /// The owner, where it is a virtual machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Uid of the run of the machine that the Pod is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Uid>,
    /// The Pod that the machine is being moved to, which holds the address as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// The Pod has let go, and the address is kept for the next one of its name and owner. Never
    /// true where a sandbox may still have the address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// Nobody holds the address, and nobody gets it ([`crate::quarantine`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
    /// Keys of others, kept as they are.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Record {
    /// The uids of the Pods that have the address: one, or a machine's two.
    pub fn holders(&self) -> impl Iterator<Item = &Uid> {
        let next = self.next.iter().map(|next| &next.uid);
        std::iter::once(&self.uid).chain(next)
    }

    /// True where `uid` is one of the Pods that have the address.
    pub fn is_held_by(&self, uid: &Uid) -> bool {
        self.holders().any(|holder| holder == uid)
    }

    /// True where this record is of `uid` and may be of `nic`: a record without a nic may be of any.
    pub fn is_of(&self, uid: &Uid, nic: &Nic) -> bool {
        self.is_held_by(uid) && self.nic.as_ref().is_none_or(|n| n == nic)
    }

    /// True where the address was recorded before its Pod's interface had a sandbox
    /// ([`crate::early`]), and no later sandbox has asked for it.
    pub fn is_bound_early(&self) -> bool {
        let names_interface = self.nic.is_some() && self.node.is_some();
        names_interface && self.sandbox.is_none() && !self.kept && self.next.is_none()
    }

    /// Whose Pods keep the address.
    pub fn lineage(&self) -> Option<Lineage> {
        Some(Lineage {
            owner: self.owner.clone()?,
            machine: self.machine.clone(),
        })
    }

    /// The record once its holder has let go: its next's, else kept for a lineage that wants it;
    /// `None` where the address is free.
    #[must_use]
    pub fn let_go(&self, wanted_by: Option<&Lineage>) -> Option<Self> {
        match (&self.next, wanted_by) {
            (Some(next), _) => Some(Self {
                pod: next.pod.clone(),
                uid: next.uid.clone(),
                node: Some(next.node.clone()),
                sandbox: Some(next.sandbox.clone()),
                next: None,
                ..self.clone()
            }),
            (None, Some(lineage)) => Some(self.keep_for(lineage)),
            (None, None) => None,
        }
    }

    /// The record once its next has let go.
    #[must_use]
    pub fn without_next(&self) -> Self {
        Self {
            next: None,
            ..self.clone()
        }
    }

    /// The record once nobody has the address and `lineage` wants it kept. Node and sandbox are
    /// gone: nobody has to acknowledge anything any more.
    #[must_use]
    pub fn keep_for(&self, lineage: &Lineage) -> Self {
        Self {
            node: None,
            sandbox: None,
            owner: Some(lineage.owner.clone()),
            machine: lineage.machine.clone(),
            next: None,
            kept: true,
            ..self.clone()
        }
    }
}

/// Why the text of `allocatedIPs` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The text is not the JSON object it should be.
    #[error("allocatedIPs is not a JSON object of records")]
    Json(#[source] serde_json::Error),
    /// A key is no address.
    #[error("allocatedIPs has the key '{0}', which is no IP address")]
    Address(String),
    /// Two keys are two spellings of one address.
    #[error("allocatedIPs has address {0} twice")]
    Twice(IpAddr),
}

/// The records of one pool, by address.
///
/// ```
/// use ipam::record::Records;
///
/// let text = r#"{"10.0.0.2":{"pod":"shop/web-0","podUid":"1","theirs":true}}"#;
/// let records = Records::parse(Some(text))?;
/// let (address, record) = records.find(&"1".into(), &"eth0".into()).expect("it may be of any nic");
/// assert_eq!((address.to_string().as_str(), record.pod.as_str()), ("10.0.0.2", "shop/web-0"));
/// // What is not ours is written back as it was.
/// assert_eq!(records.to_text().as_deref(), Some(text));
/// # Ok::<(), ipam::record::RecordsError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Records {
    by_address: BTreeMap<IpAddr, Record>,
    /// The keys, as a set: every pass asks for them, of every pool.
    addresses: AddrSet,
}

impl Records {
    /// Reads the text of `status.allocatedIPs`; an absent or empty one holds no record.
    ///
    /// Errors: [`RecordsError`]. Cost: O(n log n).
    pub fn parse(text: Option<&str>) -> Result<Self, RecordsError> {
        let Some(text) = text.filter(|t| !t.trim().is_empty()) else {
            return Ok(Self::default());
        };
        let raw: Option<Once<String, Record>> =
            serde_json::from_str(text).map_err(RecordsError::Json)?;
        let mut records = BTreeMap::new();
        for (key, record) in raw.map(|Once(all)| all).unwrap_or_default() {
            let Ok(address) = key.parse::<IpAddr>() else {
                return Err(RecordsError::Address(key));
            };
            if records.insert(address, record).is_some() {
                return Err(RecordsError::Twice(address));
            }
        }
        Ok(Self {
            addresses: records.keys().copied().collect(),
            by_address: records,
        })
    }

    /// The text to write: no white space, keys sorted as text; `None` where there is no record.
    ///
    /// Cost: O(n log n).
    pub fn to_text(&self) -> Option<String> {
        if self.by_address.is_empty() {
            return None;
        }
        let by_text: BTreeMap<String, &Record> = self
            .by_address
            .iter()
            .map(|(address, record)| (address.to_string(), record))
            .collect();
        // Records are plain data: writing them as JSON cannot fail.
        serde_json::to_string(&by_text).ok()
    }

    /// True where no address is recorded.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// How many addresses are recorded.
    pub fn count(&self) -> AddrCount {
        AddrCount::new(u128::try_from(self.by_address.len()).unwrap_or(u128::MAX))
    }

    /// The record of `address`.
    pub fn get(&self, address: IpAddr) -> Option<&Record> {
        self.by_address.get(&address)
    }

    /// All records in ascending order of address.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Record)> {
        self.by_address
            .iter()
            .map(|(address, record)| (*address, record))
    }

    /// The recorded addresses.
    pub fn addresses(&self) -> &AddrSet {
        &self.addresses
    }

    /// The addresses that nobody holds and nobody gets. Cost: O(n).
    pub fn quarantined(&self) -> AddrSet {
        let nobodys = self.iter().filter(|(_, r)| quarantine::is_quarantined(r));
        nobodys.map(|(address, _)| address).collect()
    }

    /// True where no Pod has an address: none is recorded but such as are in quarantine. Cost: O(n).
    pub fn is_unused(&self) -> bool {
        self.by_address.values().all(quarantine::is_quarantined)
    }

    /// The address that `uid` holds on `nic`: one recorded for just this nic before one that names
    /// none. Cost: O(n).
    pub fn find(&self, uid: &Uid, nic: &Nic) -> Option<(IpAddr, &Record)> {
        let mut unnamed = None;
        for (address, record) in self.iter().filter(|(_, r)| r.is_of(uid, nic)) {
            if record.nic.is_some() {
                return Some((address, record));
            }
            unnamed = unnamed.or(Some((address, record)));
        }
        unnamed
    }

    /// Records `record` as the owner of `address`; the former one, if any, is given back.
    pub fn insert(&mut self, address: IpAddr, record: Record) -> Option<Record> {
        self.addresses.insert(address);
        self.by_address.insert(address, record)
    }

    /// Drops the record of `address`.
    pub fn remove(&mut self, address: IpAddr) -> Option<Record> {
        self.addresses.remove(address);
        self.by_address.remove(&address)
    }
}

/// What can be read of a text that can't be read as a whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Salvage {
    /// Records that can.
    pub records: Records,
    /// Other addresses that it names: they may have a record, which can't be read.
    pub unknown: AddrSet,
    /// It ends in its midst: nobody knows what else it recorded.
    pub cut: bool,
}

impl Salvage {
    /// Reads what can be read of `text`, member by member where it is no JSON object.
    ///
    /// Where two keys are spellings of one address the first counts. Cost: O(n log n), and O(n) for
    /// each level at which a broken text is nested, of which [`serde_json`] reads 128.
    pub fn of(text: &str) -> Self {
        let whole: Result<BTreeMap<String, serde_json::Value>, _> = serde_json::from_str(text);
        let Ok(members) = whole else {
            return Self::of_broken(text);
        };
        let mut salvage = Self::default();
        for (key, value) in members {
            let Ok(address) = key.parse::<IpAddr>() else {
                continue;
            };
            match serde_json::from_value::<Record>(value) {
                Ok(record) => salvage.keep(address, record),
                Err(_) => drop(salvage.unknown.insert(address)),
            }
        }
        salvage
    }

    /// Whole members are kept; of everything between them it counts which addresses it names.
    fn of_broken(text: &str) -> Self {
        let mut salvage = Self::default();
        let mut named = AddrSet::new();
        // From `between` to `rest` is no member.
        let (mut between, mut rest) = (text, text);
        while let Some((_, from)) = rest.find('"').and_then(|at| rest.split_at_checked(at)) {
            let Some((key, then)) = next_value::<String>(from) else {
                rest = from.get(1..).unwrap_or_default();
                continue;
            };
            let value = then.trim_start().strip_prefix(':');
            let member = value.and_then(next_value::<Record>);
            let (Ok(address), Some((record, then_after))) = (key.parse::<IpAddr>(), member) else {
                rest = then;
                continue;
            };
            let length = between.len().saturating_sub(from.len());
            named = named.union(&named_in(between.get(..length).unwrap_or_default()));
            salvage.keep(address, record);
            (between, rest) = (then_after, then_after);
        }
        named = named.union(&named_in(between));
        salvage.unknown = named.difference(salvage.records.addresses());
        // What is no member any more closes the object, beside what it opened itself.
        let count = |brace| between.matches(brace).count();
        salvage.cut = count('}') <= count('{');
        salvage
    }

    fn keep(&mut self, address: IpAddr, record: Record) {
        if self.records.get(address).is_none() {
            drop(self.records.insert(address, record));
        }
    }

    /// Every address that the text names.
    pub fn addresses(&self) -> AddrSet {
        self.records.addresses().union(&self.unknown)
    }
}

/// The JSON value with which `text` begins, and what follows it.
fn next_value<T: DeserializeOwned>(text: &str) -> Option<(T, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

/// The addresses that stand in `text`, as words.
fn named_in(text: &str) -> AddrSet {
    let words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '.' && c != ':');
    let mut named = AddrSet::new();
    for address in words.filter_map(|word| word.trim_end_matches(':').parse::<IpAddr>().ok()) {
        named.insert(address);
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::MachineKind;
    use crate::testing::{ips, record};

    const RECORDED: &str = r#"{"10.0.0.10":{"pod":"shop/b","podUid":"2"},"10.0.0.2":{"pod":"shop/a","podUid":"1","nic":"eth0","node":"n1","sandbox":"s","later":{"x":1}}}"#;

    #[test]
    fn what_is_read_is_written_back_byte_for_byte() {
        let records = Records::parse(Some(RECORDED)).unwrap();
        assert_eq!(records.to_text().unwrap(), RECORDED);
        assert_eq!(records.count(), AddrCount::new(2));
    }

    #[test]
    fn what_is_kept_is_of_its_lineage_and_of_nobody_s_sandbox() {
        let held = Record {
            nic: Some(Nic::from("eth0")),
            node: Some(NodeName::from("n1")),
            sandbox: Some(Sandbox::from("s")),
            next: Some(Next {
                pod: PodName::new("shop", "next"),
                uid: Uid::from("2"),
                node: NodeName::from("n2"),
                sandbox: Sandbox::from("t"),
            }),
            ..record("db")
        };
        let machine = Machine {
            kind: MachineKind::VirtualMachine,
            name: "db".to_owned(),
        };
        let lineage = Lineage {
            owner: Uid::from("vm"),
            machine: Some(machine.clone()),
        };
        let kept = Record {
            nic: held.nic.clone(),
            owner: Some(lineage.owner.clone()),
            machine: Some(machine),
            kept: true,
            ..record("db")
        };
        assert_eq!(held.keep_for(&lineage), kept);
    }

    #[test]
    fn no_text_no_record_and_back() {
        assert!(!Records::parse(Some(RECORDED)).unwrap().is_empty());
        for text in [None, Some(""), Some("null"), Some("{}")] {
            let records = Records::parse(text).unwrap();
            assert!(records.is_empty());
            assert_eq!(records.to_text(), None);
        }
    }

    #[test]
    fn texts_that_are_no_records_are_refused() {
        for text in ["[]", "{\"x\":{}}", "{\"10.0.0.1\":{\"pod\":1}}", "{"] {
            Records::parse(Some(text)).unwrap_err();
        }
        let list = Records::parse(Some("[]")).unwrap_err();
        let why = std::error::Error::source(&list).unwrap().to_string();
        assert!(why.contains("expected a map"), "{why}");
        let twice =
            r#"{"fd00::1":{"pod":"a/b","podUid":"1"},"fd00:0::1":{"pod":"a/b","podUid":"1"}}"#;
        assert!(matches!(
            Records::parse(Some(twice)),
            Err(RecordsError::Twice(_))
        ));
    }

    #[test]
    fn a_record_of_just_this_nic_is_found_before_one_that_names_none() {
        let text = r#"{"10.0.0.1":{"pod":"a/b","podUid":"1"},"10.0.0.2":{"pod":"a/b","podUid":"1","nic":"net1"}}"#;
        let records = Records::parse(Some(text)).unwrap();
        let at = |nic: &str| {
            records
                .find(&Uid::from("1"), &Nic::from(nic))
                .unwrap()
                .0
                .to_string()
        };
        assert_eq!(at("net1"), "10.0.0.2");
        assert_eq!(at("eth0"), "10.0.0.1");
    }

    #[test]
    fn what_can_be_read_of_a_broken_text_is_saved_and_the_rest_is_named() {
        let text = r#"{"10.0.0.1":{"pod":"a/b","podUid":"1"},"10.0.0.2":{"pod":7},"x":{"pod":"a/c","podUid":"2"}}"#;
        Records::parse(Some(text)).unwrap_err();
        let salvage = Salvage::of(text);
        assert_eq!(salvage.records.count(), AddrCount::new(1));
        assert_eq!(salvage.unknown.to_texts(), ["10.0.0.2"]);
        assert_eq!(salvage.addresses().count(), AddrCount::new(2));
        // The first of two spellings of one address counts.
        let twice =
            r#"{"fd00:0::1":{"pod":"a/b","podUid":"1"},"fd00::1":{"pod":"a/c","podUid":"2"}}"#;
        let saved = Salvage::of(twice);
        assert_eq!(
            saved.records.get("fd00::1".parse().unwrap()).unwrap().uid,
            Uid::from("1")
        );
    }

    #[test]
    fn a_broken_text_loses_no_whole_record_and_no_address_that_it_names() {
        let whole =
            |n: u8| format!(r#""10.0.0.{n}":{{"pod":"a/b","podUid":"{n}","node":"10.9.9.9"}}"#);
        let [a, b, c] = [1, 2, 3].map(whole);
        let table = [
            // A comma too many, and one too few.
            (format!("{{{a},,{b},{c}}}"), "1 2 3", "", false),
            (format!("{{{a}{b},{c},}}"), "1 2 3", "", false),
            // In the midst of a record, of a key, and before a value.
            (
                format!(r#"{{{a},"10.0.0.2":{{"pod":"a/b" "podUid":"2"}},{c}}}"#),
                "1 3",
                "2",
                false,
            ),
            (format!(r#"{{{a},"10.0.0.2":}},{c}}}"#), "1 3", "2", false),
            (
                format!(r#"{{{a},"10.0.0.2{{"pod":"a/b","podUid":"2"}},{c}}}"#),
                "1",
                "2 3",
                false,
            ),
            // The end is gone.
            (format!("{{{a},{b}"), "1 2", "", true),
            (format!(r#"{{{a},"10.0.0.2":{{"pod":"#), "1", "2", true),
            (format!(r#"{{{a},"10.0.0.2"#), "1", "2", true),
            (format!(r#"{{{a},"10.0.0.2":{{"pod":7}}"#), "1", "2", true),
            ("none".to_owned(), "", "", true),
            // Nothing but its end.
            (format!("{{{a},}}"), "1", "", false),
        ];
        for (text, records, unknown, cut) in table {
            Records::parse(Some(&text)).unwrap_err();
            let salvage = Salvage::of(&text);
            assert_eq!(salvage.records.addresses(), &ips(records), "{text}");
            let named = salvage
                .unknown
                .iter()
                .filter(|a| *a != IpAddr::from([10, 9, 9, 9]));
            assert_eq!(
                named.collect::<Vec<_>>(),
                ips(unknown).iter().collect::<Vec<_>>(),
                "{text}"
            );
            assert_eq!(salvage.cut, cut, "{text}");
        }
        let six = r#"{"fd00::1":{"pod":"a/b","podUid":"1"},"fd00::2":}"#;
        assert_eq!(Salvage::of(six).unknown.to_texts(), ["fd00::2"]);
    }
}
