//! A label selector that keeps what it doesn't know.
//!
//! Owns: the wire form of `podAffinity`, `namespaceAffinity`, `nodeAffinity`. Never does: match;
//! that is the core's. Why not the type of `k8s-openapi`: it drops unknown keys, so a read and
//! write of a pool would widen a selector that a newer version wrote.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Unknown;

/// A query over labels: all of `matchLabels` and all of `matchExpressions` must hold.
///
/// An empty selector matches everything; an absent one doesn't restrict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelector {
    /// Requirements, all of which must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_expressions: Option<Vec<LabelSelectorRequirement>>,
    /// Labels that must be there with exactly these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// One requirement on one label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelectorRequirement {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Values for `In` and `NotIn`; absent or empty for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}
