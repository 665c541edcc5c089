//! Who may talk to the API server: certificates, tokens and kubeconfigs, made anew for a cluster.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::network::{API_ADDRESS, API_PORT};
use crate::command::{program, run};
use crate::digest::hex;

/// Users with a token, and their groups. Nodes come on top.
const USERS: [(&str, &str); 3] = [
    ("admin", "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
];

/// The files that let components in.
#[derive(Clone, Debug)]
pub struct Access {
    folder: PathBuf,
}

impl Access {
    /// The files in the cluster's folder, whether they are there yet or not.
    pub fn of(run_folder: &Path) -> Self {
        Self {
            folder: run_folder.join("access"),
        }
    }

    /// Makes everything; `port` is the host's way to the API server.
    pub fn make(&self, port: u16, nodes: &[&str]) -> Result<()> {
        fs::create_dir_all(&self.folder).context("cannot make the folder of certificates")?;
        self.make_certificates()
            .context("cannot make certificates with openssl")?;
        let nodes = nodes.iter().map(|node| (node_user(node), "system:nodes"));
        let users = USERS
            .iter()
            .map(|(user, group)| ((*user).to_owned(), *group));
        let mut tokens = String::new();
        for (user, group) in users.chain(nodes) {
            let token = random_token()?;
            let _ = writeln!(tokens, "{token},{user},{user},\"{group}\"");
            let inside = format!("https://{API_ADDRESS}:{API_PORT}");
            self.write_kubeconfig(&user, &inside, &token, &self.kubeconfig(&user))?;
            if user == "admin" {
                let outside = format!("https://127.0.0.1:{port}");
                self.write_kubeconfig(&user, &outside, &token, &self.host_kubeconfig())?;
            }
        }
        fs::write(self.file("tokens.csv"), tokens).context("cannot write the tokens")
    }

    /// A user's way in, from inside the cluster's network.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.file(&format!("{}.kubeconfig", user.replace(':', "-")))
    }

    /// The admin's way in, from the host.
    pub fn host_kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// A file by its name.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// An authority, the API server's certificate, and a key that signs service account tokens.
    fn make_certificates(&self) -> Result<()> {
        let alt_names = format!(
            "subjectAltName=IP:{API_ADDRESS},IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,\
             DNS:kubernetes.default.svc"
        );
        fs::write(self.file("api.ext"), alt_names).context("cannot write the names")?;
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for line in [
            format!("req -x509 {key} -keyout ca.key -out ca.crt -days 365 -subj /CN=e2e-ca"),
            format!("req {key} -keyout api.key -out api.csr -subj /CN=kube-apiserver"),
            "x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out api.crt \
             -days 365 -extfile api.ext"
                .to_owned(),
            "genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out accounts.key".to_owned(),
            "pkey -in accounts.key -pubout -out accounts.pub".to_owned(),
        ] {
            run(program("openssl", line.split_whitespace()).current_dir(&self.folder))?;
        }
        Ok(())
    }

    fn write_kubeconfig(&self, user: &str, server: &str, token: &str, to: &Path) -> Result<()> {
        let authority = self.file("ca.crt");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "e2e",
                "cluster": { "server": server, "certificate-authority": authority },
            }],
            "users": [{ "name": user, "user": { "token": token } }],
            "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": user } }],
            "current-context": "e2e",
        });
        fs::write(to, config.to_string()).with_context(|| format!("cannot write {}", to.display()))
    }
}

/// The name a kubelet goes by.
pub fn node_user(node: &str) -> String {
    format!("system:node:{node}")
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("no random numbers")?;
    Ok(hex(&bytes))
}
