//! What is known of a running cluster, on disk, so that a later run can use it or remove it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// The record of a cluster. It is written before what it names can need removal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The process that removes everything once nobody wants the cluster any more.
    pub guard: Process,
    /// The parent of all: with it every process, mount and link of the cluster goes.
    pub holder: Process,
    /// The first process of the cluster's namespaces, a child of the holder.
    pub init: Process,
    /// Port on the host's loopback address that leads to the API server.
    pub port: u16,
    /// The machine's settings as they were.
    pub kernel_settings: BTreeMap<String, String>,
    /// The nodes that were booted, by name.
    pub nodes: BTreeMap<String, NodeState>,
    /// Whether the cluster came up whole and outlives the run that started it.
    pub kept: bool,
}

/// The record of a node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NodeState {
    /// The last part of its addresses.
    pub index: u8,
    /// The first process of its namespaces.
    pub init: Process,
}

impl State {
    /// Reads the record of the cluster in `run`; `None` if there is none.
    pub fn load(run: &Path) -> Result<Option<Self>> {
        let file = Self::file(run);
        if !file.exists() {
            return Ok(None);
        }
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let state = serde_json::from_slice(&text);
        state
            .with_context(|| format!("{} is not a cluster's state", file.display()))
            .map(Some)
    }

    /// Writes the record, whole or not at all.
    pub fn save(&self, run: &Path) -> Result<()> {
        let (file, part) = (Self::file(run), run.join("state.part"));
        let text = serde_json::to_vec_pretty(self).context("cannot encode the cluster's state")?;
        fs::write(&part, text)
            .and_then(|()| fs::rename(&part, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn file(run: &Path) -> PathBuf {
        run.join("state.json")
    }
}
