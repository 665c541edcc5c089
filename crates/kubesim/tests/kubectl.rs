//! The real `kubectl` against this server, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use kubesim::actors::{self, Kubelet, Machine, Network, NodeSettings, PodId, Timings};
use kubesim::{Server, TokioClock};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

/// `kubectl` and a server to call.
struct Stage {
    kubectl: PathBuf,
    home: TempDir,
    url: String,
}

fn kubectl() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let found = cache.join("orbweaver/tools/bin/kubectl");
    found.is_file().then_some(found)
}

impl Stage {
    /// A server on a free port, served for as long as the test runs; `None` without `kubectl`.
    async fn set() -> Option<Self> {
        Self::set_for(Server::new(1)).await
    }

    async fn set_for(server: Server) -> Option<Self> {
        let Some(kubectl) = kubectl() else {
            assert!(
                std::env::var_os("ORBWEAVER_REQUIRE_TOOLS").is_none(),
                "kubectl is missing: make tools"
            );
            eprintln!("SKIPPED: kubectl is not there; `make tools` builds it");
            return None;
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { server.serve(listener).await });
        let home = TempDir::new().unwrap();
        Some(Self { kubectl, home, url })
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env_clear()
            .env("HOME", self.home.path())
            .arg("--server")
            .arg(&self.url)
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn output(&self, line: &str, input: &str) -> Output {
        let mut child = self.command(line).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    /// What `kubectl` prints. It must succeed.
    async fn run(&self, line: &str) -> String {
        self.run_with(line, "").await
    }

    async fn run_with(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {line}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `kubectl` complains of. It must fail.
    async fn refused(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        assert!(!output.status.success(), "kubectl {line} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }
}

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: c, image: "busybox:1" }] }
"#;

#[tokio::test]
async fn a_deployment_is_applied_scaled_marked_restarted_described_and_deleted() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    assert_eq!(
        stage.run_with("apply -f -", WEB).await,
        "deployment.apps/web created\n"
    );
    assert_eq!(
        stage.run_with("apply -f -", WEB).await,
        "deployment.apps/web unchanged\n"
    );
    let wider = WEB.replace("replicas: 2", "replicas: 3");
    assert_eq!(
        stage.run_with("apply -f -", &wider).await,
        "deployment.apps/web configured\n"
    );
    let table = stage.run("get deployments").await;
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row.get(..4).unwrap(), ["web", "0/3", "0", "0"]);
    stage.run("scale deployment/web --replicas=5").await;
    stage.run("annotate deployment web a.io/b=c").await;
    stage.run("label deployment web tier=x").await;
    stage.run("rollout restart deployment/web").await;
    let template = stage.run("get deployment web -o jsonpath={.spec.replicas}/{.metadata.labels.tier}/{.spec.template.metadata.annotations}").await;
    assert!(
        template.starts_with("5/x/{\"kubectl.kubernetes.io/restartedAt\""),
        "{template}"
    );
    let text = stage.run("describe deployment web").await;
    assert!(
        text.contains("5 desired") && text.contains("a.io/b: c"),
        "{text}"
    );
    let waits = stage
        .refused("rollout status deployment/web --timeout=1s", "")
        .await;
    assert!(waits.contains("timed out"), "{waits}");
    assert_eq!(
        stage.run("delete deployment web").await,
        "deployment.apps \"web\" deleted from default namespace\n"
    );
    let gone = stage.refused("get deployment web", "").await;
    assert_eq!(
        gone,
        "Error from server (NotFound): deployments.apps \"web\" not found\n"
    );
}

/// Gives every sandbox the same address.
struct OneAddress;

impl Network for OneAddress {
    fn add<'a>(&'a self, _: &'a PodId, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async { Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into()]) })
    }

    fn del<'a>(&'a self, _: &'a PodId, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn kubectl_waits_for_what_controllers_and_a_kubelet_do() {
    let clock = TokioClock::starting_at(Timestamp::now());
    let server = Server::with_clock(1, clock);
    let client = server.client("actors");
    let mut cluster = JoinSet::new();
    actors::control_plane(&client, clock, 1, &[], &mut cluster);
    let short = Duration::from_millis(50);
    let node = NodeSettings {
        name: "n1".to_owned(),
        addresses: vec![Ipv4Addr::new(192, 168, 0, 1).into()],
        labels: BTreeMap::new(),
        timings: Timings {
            start: short,
            stop: short,
            retry: short,
            collect: short,
            restart: short,
        },
    };
    let network = Arc::new(OneAddress);
    let kubelet = Kubelet::new(client, clock, node, Machine::default(), network, 1);
    cluster.spawn(kubelet.run());
    let Some(stage) = Stage::set_for(server).await else {
        return;
    };
    stage.run_with("apply -f -", WEB).await;
    let rolled_out = "rollout status deployment/web --timeout=60s";
    assert!(
        stage
            .run(rolled_out)
            .await
            .contains("successfully rolled out")
    );
    let before = stage.run("get pods -o name").await;
    stage.run("rollout restart deployment/web").await;
    assert!(
        stage
            .run(rolled_out)
            .await
            .contains("successfully rolled out")
    );
    // A roll-out is complete while the last Pod it replaced still stops.
    let replaced = before.split_whitespace().collect::<Vec<_>>().join(" ");
    stage
        .run(&format!("wait {replaced} --for=delete --timeout=60s"))
        .await;
    stage
        .run("wait pods --all --for=condition=Ready --timeout=60s")
        .await;
    let after = stage.run("get pods -o name").await;
    assert!(before.lines().all(|pod| !after.contains(pod)), "{after}");
    stage
        .run("delete deployment web --cascade=foreground --timeout=60s")
        .await;
    assert_eq!(stage.run("get pods -o name").await, "");
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_told() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let wrong = WEB.replace("replicas:", "replcas:");
    let told = stage.refused("apply -f -", &wrong).await;
    assert!(told.contains("unknown field \"spec.replcas\""), "{told}");
}

#[tokio::test]
async fn the_products_kinds_have_columns_short_names_rules_and_explanations() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds");
    assert_eq!(
        stage.run(&format!("apply -f {crds}")).await.lines().count(),
        4
    );
    let pool = "{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderIPPool, metadata: {name: a}, spec: {subnet: 10.6.0.0/16, ipVersion: 4}}";
    stage.run_with("apply -f -", pool).await;
    let table = stage.run("get sp").await;
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        head,
        [
            "NAME",
            "VERSION",
            "SUBNET",
            "ALLOCATED-IP-COUNT",
            "TOTAL-IP-COUNT",
            "DEFAULT"
        ]
    );
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["a", "4", "10.6.0.0/16", "false"]);
    let told = stage
        .refused("apply -f -", &pool.replace("10.6.0.0/16", "10.7.0.0/16"))
        .await;
    assert!(
        told.contains(
            "spec.subnet: Invalid value: \"string\": is not changeable: make a new object instead"
        ),
        "{told}"
    );
    let text = stage.run("explain spiderippool.spec.gateway").await;
    assert!(text.contains("FIELD: gateway <string>"), "{text}");
}

#[tokio::test]
async fn a_watch_prints_rows_as_they_come() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let mut watch = stage
        .command("get configmaps --watch --no-headers")
        .spawn()
        .unwrap();
    let mut rows = BufReader::new(watch.stdout.take().unwrap()).lines();
    let map = |data: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m}}, data: {{{data}}}}}")
    };
    stage.run_with("apply -f -", &map("a: b")).await;
    stage.run_with("apply -f -", &map("a: b, c: d")).await;
    for size in ["1", "2"] {
        let row = rows.next_line().await.unwrap().unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells.get(..2).unwrap(), ["m", size]);
    }
    watch.kill().await.unwrap();
}
