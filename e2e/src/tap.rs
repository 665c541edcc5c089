//! What the runtime asked and what the product answered, written down between the two.
//!
//! In the place of the product's plugin, a node's CNI configuration names `e2e-tap`: this program
//! under another name. It runs the product's plugin with the very same input and passes on the very
//! same output; a line a call goes into a file of the node. So calls are seen from outside the
//! product, with the time of each reply.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::node::Node;
use crate::cni::PRODUCT;

/// The name under which this program is the tap.
pub const NAME: &str = "e2e-tap";

/// The file of calls, in a node.
pub const FILE: &str = "/var/lib/e2e-tap.jsonl";

/// One call of the plugin, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When the runtime called, as time since 1970.
    pub began: Duration,
    /// When the plugin had answered.
    pub ended: Duration,
    /// `ADD` or `DEL`.
    pub command: String,
    /// The sandbox.
    pub container: String,
    /// The interface in it.
    pub interface: String,
    /// The Pod, as `namespace/name`.
    pub pod: String,
    /// The Pod's UID.
    pub uid: String,
    /// Whether the plugin ended well.
    pub succeeded: bool,
    /// Addresses given, without prefix lengths.
    pub addresses: Vec<String>,
    /// What the plugin said if it failed.
    pub error: String,
}

/// A DEL that was begun. Who kills the plugin may kill the tap with it, and then there is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// When the runtime called, as time since 1970.
    pub begun: Duration,
    /// The sandbox.
    pub container: String,
    /// The interface in it.
    pub interface: String,
}

/// Installs the tap on a node.
pub fn install(node: &Node, exe: &Path) -> Result<()> {
    let to = node.path("opt/cni/bin").join(NAME);
    if to.exists() {
        return Ok(());
    }
    fs::copy(exe, &to).with_context(|| format!("cannot install {}", to.display()))?;
    Ok(())
}

/// The calls on a node that began after `since`.
pub fn calls(node: &Node, since: Duration) -> Result<Vec<Call>> {
    let mut calls = lines::<Call>(node)?;
    calls.retain(|call| call.began >= since);
    Ok(calls)
}

/// The DELs on a node that began after `since`, and whose end is none of its `calls`.
pub fn unanswered(node: &Node, since: Duration, calls: &[Call]) -> Result<Vec<Begun>> {
    let mut begun = lines::<Begun>(node)?;
    begun.retain(|del| {
        let is_its = |call: &Call| call.began == del.begun && call.container == del.container;
        del.begun >= since && !calls.iter().any(is_its)
    });
    Ok(begun)
}

/// Lines of one form; one that is being written is not whole yet.
fn lines<T: DeserializeOwned>(node: &Node) -> Result<Vec<T>> {
    let file = node.path(FILE);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    let lines = text.lines();
    Ok(lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// Notes that every sandbox of a node is gone though nobody called DEL: it lost its power.
pub fn note_power_cut(node: &Node) -> Result<()> {
    let mut open = BTreeMap::new();
    for call in calls(node, Duration::ZERO)?
        .into_iter()
        .filter(|call| call.succeeded)
    {
        let sandbox = (call.container.clone(), call.interface.clone());
        match call.command.as_str() {
            "DEL" => drop(open.remove(&sandbox)),
            _ => drop(open.insert(sandbox, call)),
        }
    }
    for call in open.into_values() {
        let end = Call {
            began: now(),
            ended: now(),
            command: "DEL".to_owned(),
            addresses: Vec::new(),
            ..call
        };
        write_down(&end, &node.path(FILE))?;
    }
    Ok(())
}

/// The time now, as time since 1970.
pub fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Acts as the plugin.
pub fn live() -> ExitCode {
    match pass_on() {
        Ok(code) => code,
        Err(error) => {
            let said =
                json!({ "cniVersion": "0.4.0", "code": 999, "msg": format!("tap: {error:#}") });
            let _ = writeln!(std::io::stdout(), "{said}");
            ExitCode::FAILURE
        }
    }
}

fn pass_on() -> Result<ExitCode> {
    let mut input = String::new();
    std::io::stdin()
        .read_to_string(&mut input)
        .context("cannot read the configuration")?;
    let began = now();
    let variable = |name: &str| env::var(name).unwrap_or_default();
    if variable("CNI_COMMAND") == "DEL" {
        let del = Begun {
            begun: began,
            container: variable("CNI_CONTAINERID"),
            interface: variable("CNI_IFNAME"),
        };
        write_down(&del, Path::new(FILE))?;
    }
    let output = run_product(&as_for_product(&input))?;
    let call = call_of(began, &output);
    if matches!(call.command.as_str(), "ADD" | "DEL") {
        write_down(&call, Path::new(FILE))?;
    }
    std::io::stdout()
        .write_all(&output.stdout)
        .context("nobody reads the result")?;
    std::io::stderr()
        .write_all(&output.stderr)
        .context("nobody reads the messages")?;
    let code = output
        .status
        .code()
        .and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The configuration with the product's name in the place of ours.
fn as_for_product(input: &str) -> String {
    let Ok(mut config) = serde_json::from_str::<Value>(input) else {
        return input.to_owned();
    };
    if let Some(kind) = config.pointer_mut("/ipam/type") {
        *kind = json!(PRODUCT);
    }
    config.to_string()
}

fn run_product(input: &str) -> Result<Output> {
    let folders = env::var_os("CNI_PATH").context("no CNI_PATH")?;
    let plugin = env::split_paths(&folders)
        .map(|folder| folder.join(PRODUCT))
        .find(|path| path.is_file())
        .with_context(|| format!("failed to find plugin {PRODUCT} in {}", folders.display()))?;
    let mut child = Command::new(plugin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the plugin")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .context("the plugin reads no configuration")?;
    }
    child
        .wait_with_output()
        .context("cannot wait for the plugin")
}

fn call_of(began: Duration, output: &Output) -> Call {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let args = variable("CNI_ARGS");
    let arg = |name: &str| {
        let mut pairs = args.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default()
    };
    let succeeded = output.status.success();
    let said = String::from_utf8_lossy(&output.stdout);
    Call {
        began,
        ended: now(),
        command: variable("CNI_COMMAND"),
        container: variable("CNI_CONTAINERID"),
        interface: variable("CNI_IFNAME"),
        pod: format!("{}/{}", arg("K8S_POD_NAMESPACE"), arg("K8S_POD_NAME")),
        uid: arg("K8S_POD_UID"),
        succeeded,
        addresses: addresses_of(&said),
        error: if succeeded {
            String::new()
        } else {
            said.into_owned()
        },
    }
}

fn addresses_of(result: &str) -> Vec<String> {
    let result: Value = serde_json::from_str(result).unwrap_or_default();
    let ips = result
        .get("ips")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let texts = ips.iter().filter_map(|ip| ip.get("address")?.as_str());
    texts
        .map(|text| text.split('/').next().unwrap_or(text).to_owned())
        .collect()
}

/// One write a line, so that calls at the same time don't mix.
fn write_down(line: &impl Serialize, to: &Path) -> Result<()> {
    let line = serde_json::to_string(line).context("cannot encode a call")? + "\n";
    let file = OpenOptions::new().create(true).append(true).open(to);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_sees_its_own_name() {
        let input = r#"{"cniVersion":"0.4.0","ipam":{"type":"e2e-tap"},"type":"macvlan"}"#;
        let seen: Value = serde_json::from_str(&as_for_product(input)).unwrap();
        assert_eq!(seen["ipam"]["type"], PRODUCT);
        assert_eq!(as_for_product("no json"), "no json");
    }

    #[test]
    fn addresses_are_read_from_a_result_and_from_nothing_else() {
        let result = r#"{"ips":[{"address":"10.0.0.7/24"},{"address":"fd00::7/64"}]}"#;
        assert_eq!(addresses_of(result), ["10.0.0.7", "fd00::7"]);
        assert_eq!(
            addresses_of(r#"{"code":999,"msg":"no"}"#),
            Vec::<String>::new()
        );
    }
}
