//! `kubectl` and `helm` as a person would use them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::{run, run_with_input};

/// The command-line client with its configuration.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    config: PathBuf,
}

impl Kubectl {
    /// A client that uses this binary and this kubeconfig.
    pub fn new(binary: PathBuf, config: PathBuf) -> Self {
        Self { binary, config }
    }

    /// The kubeconfig.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Runs it and returns its output.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        run(&mut self.command(args))
    }

    /// Runs it with `-o json`.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {} -o json", args.join(" ")))
    }

    /// Reads one object; `None` if it is not there.
    pub fn find(&self, args: &[&str]) -> Result<Option<Value>> {
        let all = [&["get", "--ignore-not-found", "-o", "json"], args].concat();
        let text = self.run(&all)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text)
            .context("kubectl wrote no JSON")
            .map(Some)
    }

    /// The items of a list.
    pub fn list(&self, args: &[&str]) -> Result<Vec<Value>> {
        let mut list = self.json(&[&["get"], args].concat())?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => anyhow::bail!("kubectl get {} gave no list", args.join(" ")),
        }
    }

    /// Applies objects, given as YAML or JSON.
    pub fn apply(&self, objects: &str, args: &[&str]) -> Result<String> {
        let all = [&["apply", "-f", "-"], args].concat();
        run_with_input(&mut self.command(&all), objects.as_bytes())
    }

    /// Creates objects, given as YAML or JSON.
    pub fn create(&self, objects: &str, args: &[&str]) -> Result<String> {
        let all = [&["create", "-f", "-"], args].concat();
        run_with_input(&mut self.command(&all), objects.as_bytes())
    }

    /// The command itself, for what is to run in the background.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--kubeconfig").arg(&self.config).args(args);
        command
    }
}

/// The chart installer, with folders of its own so that the person's settings play no part.
#[derive(Clone, Debug)]
pub struct Helm {
    binary: PathBuf,
    config: PathBuf,
    home: PathBuf,
}

impl Helm {
    /// A helm that uses this binary and this kubeconfig, and keeps its files in `home`.
    pub fn new(binary: PathBuf, config: PathBuf, home: PathBuf) -> Self {
        Self {
            binary,
            config,
            home,
        }
    }

    /// Runs it and returns its output.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.envs(self.folders());
        run(command.arg("--kubeconfig").arg(&self.config).args(args))
    }

    /// The variables that tell it its folders.
    pub fn folders(&self) -> [(String, PathBuf); 3] {
        ["CACHE", "CONFIG", "DATA"].map(|part| {
            let folder = self.home.join(part.to_lowercase());
            (format!("HELM_{part}_HOME"), folder)
        })
    }
}
