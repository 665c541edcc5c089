//! The real thing: etcd and kube-apiserver on loopback, and nothing else.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use kube::config::AuthInfo;
use serde_json::json;
use tempfile::TempDir;

/// How long the API server may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Both processes, ended when this is dropped.
pub(crate) struct RealServer {
    processes: Vec<Child>,
    folder: TempDir,
    port: u16,
    etcd: u16,
}

/// Where the binaries are; `None` if one is missing.
pub(crate) fn tools() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let bin = cache.join("orbweaver/tools/bin");
    ["etcd", "kube-apiserver", "kubectl"]
        .iter()
        .all(|name| bin.join(name).is_file())
        .then_some(bin)
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl RealServer {
    /// Starts both; the API server need not answer yet.
    pub(crate) fn start(bin: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let key = Command::new("openssl")
            .args(["genrsa", "-out", &at("accounts.key"), "2048"])
            .stderr(Stdio::null())
            .status();
        assert!(key.unwrap().success(), "openssl makes a key");
        fs::write(
            folder.path().join("tokens.csv"),
            "secret,admin,admin,\"system:masters\"\n",
        )
        .unwrap();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let log = |name: &str| File::create(folder.path().join(name)).unwrap();
        let start = |name: &str, args: &[String]| {
            Command::new(bin.join(name))
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log(&format!("{name}.log")))
                .spawn()
                .unwrap()
        };
        let etcd = start(
            "etcd",
            &[
                format!("--data-dir={}", at("etcd")),
                format!("--listen-client-urls={}", url(client)),
                format!("--advertise-client-urls={}", url(client)),
                format!("--listen-peer-urls={}", url(peer)),
                format!("--initial-advertise-peer-urls={}", url(peer)),
                format!("--initial-cluster=default={}", url(peer)),
                "--unsafe-no-fsync=true".to_owned(),
            ],
        );
        let api = start(
            "kube-apiserver",
            &[
                format!("--etcd-servers={}", url(client)),
                format!("--secure-port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                format!("--cert-dir={}", at("certs")),
                format!("--token-auth-file={}", at("tokens.csv")),
                format!("--service-account-key-file={}", at("accounts.key")),
                format!("--service-account-signing-key-file={}", at("accounts.key")),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--authorization-mode=RBAC".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                // What other processes of a cluster would have to answer for.
                "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
            ],
        );
        Self {
            processes: vec![etcd, api],
            folder,
            port,
            etcd: client,
        }
    }

    /// Has etcd forget what was before a revision, and tells the API server of it as another API
    /// server that compacts would.
    pub(crate) async fn compact(&self, revision: &str) {
        let url = format!("http://127.0.0.1:{}", self.etcd);
        let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let put = json!({ "key": encoded("compact_rev_key"), "value": encoded(revision) });
        let compaction = json!({ "revision": revision });
        for (path, body) in [("/v3/kv/put", put), ("/v3/kv/compaction", compaction)] {
            let request = http::Request::post(path).body(body.to_string().into_bytes());
            client.request_text(request.unwrap()).await.unwrap();
        }
    }

    /// A client, once the API server is ready.
    pub(crate) async fn client(&self) -> kube::Client {
        let mut config =
            kube::Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        config.accept_invalid_certs = true;
        // Each request is one request, whatever is answered.
        config.default_retry = false;
        config.auth_info = AuthInfo {
            token: Some("secret".to_owned().into()),
            ..AuthInfo::default()
        };
        let client = kube::Client::try_from(config).unwrap();
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        loop {
            let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
            if client.request_text(ready).await.is_ok() {
                return client;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "kube-apiserver is not ready: {}",
                fs::read_to_string(self.folder.path().join("kube-apiserver.log"))
                    .unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}
