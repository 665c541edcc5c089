//! etcd, API server, controller manager and scheduler, on the cluster's own network.
//!
//! In a network namespace of its own every port is free, so they keep their usual ones.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::access::Access;
use super::kubectl::Kubectl;
use super::lab::Lab;
use super::network::{API_ADDRESS, API_PORT};
use crate::process::Process;
use crate::product;
use crate::tools::Tools;
use crate::wait::eventually_some;

const ETCD: &str = "http://127.0.0.1:2379";

/// What starting the control plane needs.
#[derive(Debug)]
pub struct ControlPlane<'a> {
    /// The cluster's namespaces.
    pub lab: Lab,
    /// The cluster's folder.
    pub run: &'a Path,
    /// Binaries.
    pub tools: &'a Tools,
    /// Certificates and kubeconfigs.
    pub access: &'a Access,
    /// The admin's way in.
    pub kubectl: &'a Kubectl,
}

impl ControlPlane<'_> {
    /// Starts all four; the API server answers when this returns.
    pub fn start(&self) -> Result<()> {
        let etcd = [
            format!("--data-dir={}", self.run.join("etcd").display()),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        ];
        self.component("etcd", &etcd)?;
        let api_server = self.component("kube-apiserver", &self.api_server_args()?)?;
        let answered = eventually_some(Duration::from_secs(60), "the API server answers", || {
            if !api_server.is_alive() {
                return Ok(Some(false));
            }
            self.kubectl
                .run(&["get", "--raw", "/readyz"])
                .map(|_| Some(true))
        })?;
        ensure!(answered, "kube-apiserver ended; see its log");
        self.component("kube-controller-manager", &self.controller_manager_args())?;
        self.component("kube-scheduler", &self.client_args("system:kube-scheduler"))?;
        Ok(())
    }

    fn component(&self, name: &str, args: &[String]) -> Result<Process> {
        let log = self.run.join("log").join(format!("{name}.log"));
        let started = self.lab.start(&self.tools.path(name), args, &log);
        started.with_context(|| format!("cannot start {name}"))
    }

    fn api_server_args(&self) -> Result<Vec<String>> {
        let policy = self.run.join("audit-policy.json");
        fs::write(&policy, audit_policy().to_string()).context("cannot write the audit policy")?;
        let file = |name: &str| self.access.file(name).display().to_string();
        Ok(vec![
            format!("--etcd-servers={ETCD}"),
            format!("--bind-address={API_ADDRESS}"),
            format!("--advertise-address={API_ADDRESS}"),
            format!("--secure-port={API_PORT}"),
            format!("--tls-cert-file={}", file("api.crt")),
            format!("--tls-private-key-file={}", file("api.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!(
                "--service-account-signing-key-file={}",
                file("accounts.key")
            ),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            // A webhook that names a Service is called at its endpoints; no kube-proxy needed.
            "--enable-aggregator-routing=true".to_owned(),
            // Whoever makes an object that blocks its owner's deletion needs a right to do so.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
            format!("--audit-policy-file={}", policy.display()),
            // In one file, in which marks stay where they are.
            "--audit-log-maxsize=8192".to_owned(),
            format!(
                "--audit-log-path={}",
                crate::audit::log_of(self.run).display()
            ),
        ])
    }

    fn controller_manager_args(&self) -> Vec<String> {
        let mut args = self.client_args("system:kube-controller-manager");
        let file = |name: &str| self.access.file(name).display().to_string();
        args.extend([
            format!(
                "--service-account-private-key-file={}",
                file("accounts.key")
            ),
            format!("--root-ca-file={}", file("ca.crt")),
            "--use-service-account-credentials=true".to_owned(),
            // Nodes that are only objects have nobody to renew their leases.
            "--node-monitor-grace-period=24h".to_owned(),
        ]);
        args
    }

    fn client_args(&self, user: &str) -> Vec<String> {
        let config = self.access.kubeconfig(user).display().to_string();
        vec![
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
        ]
    }
}

/// Every call of clients that are not Kubernetes' own, once, with its outcome and no bodies. The
/// product's accounts are in a namespace of Kubernetes' own.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            { "level": "Metadata", "users": product::accounts() },
            { "level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"] },
            { "level": "None", "users": [
                "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler",
            ] },
            { "level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"] },
            { "level": "Metadata" },
        ],
    })
}
