//! Runs `helm` on the chart and finds one's way in what it rendered.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

pub(super) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/orbweaver");

/// The chart as rendered.
pub(super) struct Chart {
    pub(super) text: String,
    pub(super) objects: Vec<Value>,
}

impl Chart {
    pub(super) fn kind(&self, kind: &str) -> Vec<&Value> {
        self.objects
            .iter()
            .filter(|object| object["kind"] == kind)
            .collect()
    }

    pub(super) fn one(&self, kind: &str) -> &Value {
        let found = self.kind(kind);
        assert_eq!(found.len(), 1, "objects of kind {kind}");
        found[0]
    }

    pub(super) fn named(&self, kind: &str, name: &str) -> &Value {
        let mut found = self.kind(kind).into_iter();
        found
            .find(|object| at(object, "/metadata/name") == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    pub(super) fn pod(&self, kind: &str) -> &Value {
        at(self.one(kind), "/spec/template/spec")
    }

    pub(super) fn data(&self, config_map: &str, key: &str) -> String {
        self.named("ConfigMap", config_map)["data"][key]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(super) fn conf(&self) -> Value {
        serde_saphyr::from_str(&self.data("spiderpool-conf", "conf.yml")).unwrap()
    }

    pub(super) fn containers(&self) -> Vec<&Value> {
        let pods = ["DaemonSet", "Deployment"].map(|kind| self.pod(kind));
        let lists = pods
            .iter()
            .flat_map(|pod| [pod.get("initContainers"), pod.get("containers")]);
        lists
            .flatten()
            .flat_map(|list| list.as_array().unwrap())
            .collect()
    }
}

/// Runs `helm`; `None`, said aloud, where there is none and none is required.
pub(super) fn helm(args: &[&str]) -> Option<Output> {
    tool("helm", args)
}

/// Runs a tool of the cache, else of `PATH`; `None`, said aloud, where there is none and none is required.
pub(super) fn tool(name: &str, args: &[&str]) -> Option<Output> {
    let program = cached(name)
        .filter(|path| path.exists())
        .unwrap_or_else(|| name.into());
    match Command::new(&program).args(args).output() {
        Ok(output) => Some(output),
        Err(error) => {
            let what = format!("cannot run {name} ({error}); `make tools` gets it");
            assert!(
                std::env::var_os("ORBWEAVER_REQUIRE_TOOLS").is_none(),
                "{what}"
            );
            // Not eprintln!: the test runner would hide it.
            writeln!(std::io::stderr(), "SKIPPED a test of the chart: {what}").unwrap();
            None
        }
    }
}

fn cached(tool: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("orbweaver/tools/bin").join(tool))
}

pub(super) fn template(values: &[&str]) -> Option<Output> {
    // A helm built by hand believes in a very old Kubernetes until it talks to one.
    template_for("1.34.0", values)
}

/// For a cluster of this version of Kubernetes.
pub(super) fn template_for(kubernetes: &str, values: &[&str]) -> Option<Output> {
    let mut args = vec!["template", "orbweaver", CHART, "--namespace", "net-system"];
    args.extend(["--kube-version", kubernetes]);
    args.extend(values.iter().flat_map(|value| ["--set", value]));
    helm(&args)
}

pub(super) fn render(values: &[&str]) -> Option<Chart> {
    let output = template(values)?;
    assert!(
        output.status.success(),
        "{values:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    objects.retain(|object| !object.is_null());
    Some(Chart { text, objects })
}

/// Why `helm` refuses these values.
pub(super) fn refusal(values: &[&str]) -> Option<String> {
    let output = template(values)?;
    assert!(!output.status.success(), "{values:?} was not refused");
    Some(String::from_utf8(output.stderr).unwrap())
}

pub(super) fn read(file: &str) -> String {
    std::fs::read_to_string(format!("{CHART}/{file}")).unwrap()
}

pub(super) fn at<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object
        .pointer(pointer)
        .unwrap_or_else(|| panic!("no {pointer} in {object:#}"))
}

pub(super) fn env<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let variables = at(pod, "/containers/0/env").as_array().unwrap();
    variables.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

/// The node's path that a container sees at `mount`.
pub(super) fn host_path_at<'a>(pod: &'a Value, container: &Value, mount: &str) -> &'a Value {
    let mounts = container["volumeMounts"].as_array().unwrap();
    let name = &mounts
        .iter()
        .find(|seen| seen["mountPath"] == mount)
        .unwrap()["name"];
    let volumes = pod["volumes"].as_array().unwrap();
    at(
        volumes
            .iter()
            .find(|volume| volume["name"] == *name)
            .unwrap(),
        "/hostPath/path",
    )
}
