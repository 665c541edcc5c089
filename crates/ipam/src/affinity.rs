//! Label selectors, and the podAffinity that ties a pool to its workload.
//!
//! A workload's pool carries the workload's own selector and five further keys that name the
//! workload itself: `app-api-group`, `app-api-version`, `app-kind`, `app-namespace`, `app-name`.
//! The five are judged against a Pod's top controller, the rest against the Pod's labels, so two
//! workloads with one selector never share a pool.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::WorkloadId;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// podAffinity key: API group of the workload.
pub const APP_GROUP: &str = "ipam.spidernet.io/app-api-group";
/// podAffinity key: API version of the workload.
pub const APP_VERSION: &str = "ipam.spidernet.io/app-api-version";
/// podAffinity key: kind of the workload.
pub const APP_KIND: &str = "ipam.spidernet.io/app-kind";
/// podAffinity key: namespace of the workload.
pub const APP_NAMESPACE: &str = "ipam.spidernet.io/app-namespace";
/// podAffinity key: name of the workload.
pub const APP_NAME: &str = "ipam.spidernet.io/app-name";

/// The five keys, in the order in which the original writes them.
pub const APP_KEYS: [&str; 5] = [APP_GROUP, APP_VERSION, APP_KIND, APP_NAMESPACE, APP_NAME];

/// Most characters of the name in a label's key, and of a label's value.
const LABEL_NAME_MAX: usize = 63;
/// Most characters of the prefix in a label's key.
const LABEL_PREFIX_MAX: usize = 253;

/// How a requirement compares the value of its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label is there and its value is one of the requirement's.
    In,
    /// The label is absent, or its value is none of the requirement's.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// One expression of a selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values of `In` and `NotIn`; empty for the others.
    pub values: BTreeSet<String>,
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// A label selector that has been checked (`metav1.LabelSelector`). An empty one matches everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector {
    /// Labels that must be there with just this value.
    pub match_labels: Labels,
    /// Expressions that must all hold.
    pub match_expressions: Vec<Requirement>,
}

/// Why a selector of the API cannot be used. The text is what Kubernetes itself says of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The operator is none of the four.
    #[error("\"{0}\" is not a valid label selector operator")]
    Operator(String),
    /// `In` and `NotIn` need values.
    #[error("for 'in', 'notin' operators, values set can't be empty: key {0}")]
    NoValues(String),
    /// `Exists` and `DoesNotExist` take none.
    #[error("values set must be empty for exists and does not exist: key {0}")]
    Values(String),
    /// A part of a selector's text is none of the forms.
    #[error(
        "\"{0}\" is no label selector: write KEY=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY"
    )]
    Text(String),
    /// No label can have this key.
    #[error(
        "\"{0}\" can be no label's key: write NAME or PREFIX/NAME, the name of at most 63 letters, digits, '-', '_' and '.', the prefix a DNS name, each with a letter or digit at both ends"
    )]
    Key(String),
    /// No label can have this value.
    #[error(
        "\"{value}\" can be no value of label {key}: write at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends, or nothing"
    )]
    Value {
        /// Key.
        key: String,
        /// Value.
        value: String,
    },
}

impl Selector {
    /// Builds a requirement from its wire parts.
    ///
    /// Errors: [`SelectorError`], each naming operator or key.
    pub fn requirement(
        key: &str,
        operator: &str,
        values: &[String],
    ) -> Result<Requirement, SelectorError> {
        let operator = match operator {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(SelectorError::Operator(other.to_owned())),
        };
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Err(SelectorError::NoValues(key.to_owned()))
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Err(SelectorError::Values(key.to_owned()))
            }
            Operator::In | Operator::NotIn | Operator::Exists | Operator::DoesNotExist => {
                Ok(Requirement {
                    key: key.to_owned(),
                    operator,
                    values: values.iter().cloned().collect(),
                })
            }
        }
    }

    /// Reads the text form, in which `status` of a scalable object has its selector: `app=web,env in
    /// (a,b),!old`. Cost: O(length).
    ///
    /// Errors: [`SelectorError::Text`] and those of [`Selector::requirement`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut selector = Self::default();
        for part in parts(text) {
            let part = part.trim();
            match equality(part) {
                Some((key, value)) if is_word(key) && (value.is_empty() || is_word(value)) => {
                    selector.match_labels.insert(key.into(), value.into());
                }
                Some(_) => return Err(SelectorError::Text(part.to_owned())),
                None => selector.match_expressions.push(expression(part)?),
            }
        }
        Ok(selector)
    }

    /// Checks that there can be labels of these keys and values (Kubernetes, "Labels and Selectors").
    /// The values of the five keys are no labels' and may be any.
    ///
    /// Errors: [`SelectorError::Key`], [`SelectorError::Value`], the first of them.
    pub fn check(&self) -> Result<(), SelectorError> {
        let labels = self.match_labels.iter();
        let labels = labels.map(|(key, value)| (key, std::slice::from_ref(value).iter().collect()));
        let expressions = self.match_expressions.iter();
        let expressions = expressions.map(|of| (&of.key, of.values.iter().collect()));
        let all: Vec<(&String, Vec<&String>)> = labels.chain(expressions).collect();
        for (key, values) in all {
            if !is_label_key(key) {
                return Err(SelectorError::Key(key.clone()));
            }
            let mut values = values.into_iter();
            let wrong = values.find(|value| !value.is_empty() && !is_label_name(value));
            if let Some(value) = wrong.filter(|_| !APP_KEYS.contains(&key.as_str())) {
                let (key, value) = (key.clone(), value.clone());
                return Err(SelectorError::Value { key, value });
            }
        }
        Ok(())
    }

    /// True where every label and expression holds for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels
            .iter()
            .all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(|r| r.matches(labels))
    }

    /// True where nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// This selector narrowed to `workload` by the five keys: the podAffinity of its pool.
    #[must_use]
    pub fn for_workload(&self, workload: &WorkloadId) -> Self {
        let mut own = self.clone();
        let app = app_labels(workload).into_iter();
        let app = app.map(|(key, value)| (key.to_owned(), value.clone()));
        own.match_labels.extend(app);
        own
    }

    /// True where this is `own`, narrowed to `workload`; as building and comparing it, without
    /// building it.
    pub fn is_narrowed(&self, own: &Self, workload: &WorkloadId) -> bool {
        let mut rest = own.match_labels.iter();
        let rest_holds = rest.all(|(key, value)| {
            APP_KEYS.contains(&key.as_str()) || self.match_labels.get(key) == Some(value)
        });
        let is_own = |key: &&String| own.match_labels.contains_key(*key);
        let mut others = self.match_labels.keys().filter(|key| !is_own(key));
        rest_holds
            && self.names_workload(workload)
            && others.all(|key| APP_KEYS.contains(&key.as_str()))
            && self.match_expressions == own.match_expressions
    }

    /// True where the five keys are those of `workload`; absent keys are not.
    pub fn names_workload(&self, workload: &WorkloadId) -> bool {
        app_labels(workload)
            .into_iter()
            .all(|(key, value)| self.match_labels.get(key) == Some(value))
    }

    /// The selector without the five keys: what a Pod's own labels must answer.
    #[must_use]
    pub fn without_workload(&self) -> Self {
        let mut rest = self.clone();
        rest.match_labels
            .retain(|key, _| !APP_KEYS.contains(&key.as_str()));
        rest
    }
}

/// The parts of a selector's text: its commas, but those between brackets.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    let parts = text.split(move |c| {
        match c {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter(|_| !text.trim().is_empty())
}

/// Key and value of `KEY=VALUE` or `KEY==VALUE`.
fn equality(part: &str) -> Option<(&str, &str)> {
    let (key, value) = part
        .split_once('=')
        .filter(|(key, _)| !key.ends_with('!'))?;
    Some((key.trim(), value.trim_start_matches('=').trim()))
}

/// A part that is no equality.
fn expression(part: &str) -> Result<Requirement, SelectorError> {
    let wrong = || SelectorError::Text(part.to_owned());
    let (key, operator, values) = if let Some((key, value)) = part.split_once("!=") {
        (key, "NotIn", vec![value.trim().to_owned()])
    } else if let Some((head, list)) = part.split_once('(') {
        let (key, operator) = head.trim().split_once(' ').ok_or_else(wrong)?;
        let operator = match operator.trim() {
            "in" => "In",
            "notin" => "NotIn",
            _ => return Err(wrong()),
        };
        let values = list.strip_suffix(')').ok_or_else(wrong)?.split(',');
        (key, operator, values.map(|v| v.trim().to_owned()).collect())
    } else if let Some(key) = part.strip_prefix('!') {
        (key, "DoesNotExist", vec![])
    } else {
        (part, "Exists", vec![])
    };
    let key = key.trim();
    if !is_word(key) || values.iter().any(|v| !v.is_empty() && !is_word(v)) {
        return Err(wrong());
    }
    Selector::requirement(key, operator, &values)
}

/// True for a label's key: a name, and before it perhaps a prefix, which is a DNS name.
fn is_label_key(key: &str) -> bool {
    let Some((prefix, name)) = key.split_once('/') else {
        return is_label_name(key);
    };
    let is_part = |part: &str| {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        is_enclosed(part) && part.chars().all(legal)
    };
    prefix.len() <= LABEL_PREFIX_MAX && prefix.split('.').all(is_part) && is_label_name(name)
}

/// True for the name in a label's key, and for a value of a label that is not empty.
fn is_label_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= LABEL_NAME_MAX && is_enclosed(text) && text.chars().all(legal)
}

/// True where letters or digits are at both ends.
fn is_enclosed(text: &str) -> bool {
    let ends = [text.chars().next(), text.chars().next_back()];
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends.into_iter().all(is_end)
}

/// True for what may be a key or a value, as far as characters go.
fn is_word(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    !text.is_empty() && text.chars().all(legal)
}

/// The five keys of `workload` with their values.
fn app_labels(workload: &WorkloadId) -> [(&'static str, &String); 5] {
    [
        (APP_GROUP, &workload.group),
        (APP_VERSION, &workload.version),
        (APP_KIND, &workload.kind),
        (APP_NAMESPACE, &workload.namespace),
        (APP_NAME, &workload.name),
    ]
}

#[cfg(test)]
mod tests;
