//! The way to the API server: of a role in its Pod, and of a person at a terminal.
//!
//! Owns: where the API server is, and what is said where it can't be reached or asked. Never does:
//! change anything.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectList};
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::{DeserializeGuard, Status};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::api::names;
use crate::config;
use crate::kube_io::clients::Clients;
use crate::kube_io::page;

/// Longest wait of a person for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait of a person for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The clients of a role: the Pod's service account, or a kubeconfig where there is one.
pub(super) async fn of_role() -> anyhow::Result<Clients> {
    let config = Config::infer()
        .await
        .context("no API server is configured")?;
    Ok(Clients::new(config)?)
}

/// Which cluster a person means.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Target {
    /// Context of the kubeconfig; its current one without it.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig; KUBECONFIG or ~/.kube/config without it.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// API server that asks for no credentials, as that of `orbweaver demo --keep`; in place of a
    /// kubeconfig.
    #[arg(long, global = true, value_name = "URL", conflicts_with_all = ["context", "kubeconfig"])]
    server: Option<http::Uri>,
    /// Namespace of what is named without one; the context's without it.
    #[arg(long, short, global = true)]
    pub(super) namespace: Option<String>,
}

/// Why a cluster can't be looked at, and what would help.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    /// Nothing says where the API server is.
    #[error("no cluster is configured: pass --kubeconfig FILE, or set KUBECONFIG")]
    NoConfig(#[source] Box<KubeconfigError>),
    /// The kubeconfig has no such context.
    #[error("the kubeconfig has no usable context '{0}': see `kubectl config get-contexts`")]
    Context(String, #[source] Box<KubeconfigError>),
    /// Its certificates, keys or tokens can't be used.
    #[error("the credentials for {server} can't be used: see `kubectl config view`")]
    Credentials {
        /// Where.
        server: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// There is no answer.
    #[error("the API server {server} can't be reached: does `kubectl version` reach it?")]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The kind does not exist there.
    #[error("the cluster at {server} has no {kind}{}", where_from(kind))]
    NoKind {
        /// Where.
        server: String,
        /// Plural and group.
        kind: String,
    },
    /// The person may not.
    #[error("{said}: ask for a role that may get and list {kind}")]
    Forbidden {
        /// What the API server said, which names the user and the right.
        said: String,
        /// Plural and group.
        kind: String,
    },
    /// The API server did not recognise the person.
    #[error("the API server {server} does not accept these credentials: log in again")]
    Unauthorized {
        /// Where.
        server: String,
    },
    /// Anything else.
    #[error("{kind} could not be read")]
    Other {
        /// Plural and group.
        kind: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Target {
    /// A connection.
    ///
    /// Errors: what is wrong with the kubeconfig. Nothing is sent yet.
    pub(super) async fn open(&self) -> Result<Connection, ClusterError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(ANSWER_TIMEOUT);
        let server = config.cluster_url.to_string();
        let namespace = self.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let clients = Clients::new(config).map_err(|source| ClusterError::Credentials {
            server: server.clone(),
            source: Box::new(source),
        })?;
        Ok(Connection {
            client: clients.read,
            writer: clients.write,
            namespace,
            server,
        })
    }

    async fn config(&self) -> Result<Config, ClusterError> {
        let wrong = |source| {
            let source = Box::new(source);
            match &self.context {
                Some(context) => ClusterError::Context(context.clone(), source),
                None => ClusterError::NoConfig(source),
            }
        };
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        if let Some(server) = &self.server {
            return Ok(Config::new(server.clone()));
        }
        match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path);
                let file = file.map_err(|e| ClusterError::NoConfig(Box::new(e)))?;
                let config = Config::from_custom_kubeconfig(file, &options).await;
                config.map_err(wrong)
            }
            None => match Config::from_kubeconfig(&options).await {
                Ok(config) => Ok(config),
                // In a Pod there is a service account and no file.
                Err(error) if self.context.is_none() => {
                    Config::incluster().map_err(|_| wrong(error))
                }
                Err(error) => Err(wrong(error)),
            },
        }
    }
}

/// A cluster to look at.
#[derive(Clone)]
pub(super) struct Connection {
    /// For reads only.
    pub(super) client: Client,
    /// For what a person told to be written.
    pub(super) writer: Client,
    /// Of what is named without a namespace.
    pub(super) namespace: String,
    server: String,
}

/// The objects of a kind, and those of them that are not of its form.
pub(super) struct Listing<K> {
    /// As read.
    pub(super) objects: Vec<K>,
    /// Name and what is wrong.
    pub(super) malformed: Vec<(String, String)>,
}

impl Connection {
    /// To an API server in memory.
    #[cfg(all(test, feature = "demo"))]
    pub(super) fn to(client: Client) -> Self {
        Self {
            writer: client.clone(),
            client,
            namespace: "default".to_owned(),
            server: "memory".to_owned(),
        }
    }

    /// Every object of a kind, in pages.
    pub(super) async fn list<K>(&self) -> Result<Listing<K>, ClusterError>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.list_of(&()).await
    }

    /// The same for a kind that only `kind` tells.
    pub(super) async fn list_of<K>(&self, kind: &K::DynamicType) -> Result<Listing<K>, ClusterError>
    where
        K: Resource + Clone + Debug + DeserializeOwned,
    {
        let api: Api<DeserializeGuard<K>> = Api::all_with(self.client.clone(), kind);
        let mut listing = Listing {
            objects: vec![],
            malformed: vec![],
        };
        let mut next = Some(page::first());
        while let Some(params) = next {
            let page: ObjectList<_> = self.answer_of::<K, _>(kind, api.list(&params).await)?;
            next = page::after(&page.metadata);
            for guard in page.items {
                match guard.0 {
                    Ok(object) => listing.objects.push(object),
                    Err(invalid) => {
                        let name = invalid.metadata.name.unwrap_or_default();
                        listing.malformed.push((name, invalid.error));
                    }
                }
            }
        }
        Ok(listing)
    }

    /// The configuration of the cluster's Orbweaver: the file at `path` where one is given, else
    /// its ConfigMap, else the defaults and a sentence that says so.
    ///
    /// Errors: a file that can't be read or meant.
    pub(super) async fn config(
        &self,
        path: Option<&Path>,
    ) -> Result<(config::Config, Option<String>), config::ConfigError> {
        if path.is_some() {
            return Ok((config::Config::load(path)?, None));
        }
        let api: Api<ConfigMap> = Api::all(self.client.clone());
        let named = ListParams::default().fields(&format!("metadata.name={}", names::CONFIG_MAP));
        let found = api.list(&named).await.map(|maps| maps.items);
        Ok(config_of(&found.unwrap_or_default()))
    }

    /// The answer, or what its error means to a person.
    pub(super) fn answer<K: Resource<DynamicType = ()>, T>(
        &self,
        answer: Result<T, kube::Error>,
    ) -> Result<T, ClusterError> {
        self.answer_of::<K, T>(&(), answer)
    }

    fn answer_of<K: Resource, T>(
        &self,
        kind: &K::DynamicType,
        answer: Result<T, kube::Error>,
    ) -> Result<T, ClusterError> {
        let kind = || {
            let (group, plural) = (K::group(kind), K::plural(kind));
            if group.is_empty() {
                plural.into_owned()
            } else {
                format!("{plural}.{group}")
            }
        };
        answer.map_err(|error| meaning(error, &self.server, kind()))
    }
}

/// The configuration that the `ConfigMaps` of this name hold; with a sentence where none is to be had.
fn config_of(maps: &[ConfigMap]) -> (config::Config, Option<String>) {
    let name = names::CONFIG_MAP;
    let texts: Vec<&String> = maps
        .iter()
        .filter_map(|map| map.data.as_ref()?.get(names::CONFIG_KEY))
        .collect();
    let why = match texts.as_slice() {
        [text] => match config::Config::parse(text, Path::new(name)) {
            Ok(config) => return (config, None),
            Err(error) => error.to_string(),
        },
        [] => format!("no ConfigMap {name} can be read"),
        _ => format!("several Namespaces have a ConfigMap {name}"),
    };
    let note =
        format!("{why}: the default configuration is assumed (--config-path FILE names another)");
    (config::Config::default(), Some(note))
}

/// What an error says to a person. Pure.
fn meaning(error: kube::Error, server: &str, kind: String) -> ClusterError {
    let server = server.to_owned();
    match error {
        kube::Error::Api(status) if status.code == 403 => ClusterError::Forbidden {
            said: status.message.clone(),
            kind,
        },
        kube::Error::Api(status) if status.code == 401 => ClusterError::Unauthorized { server },
        kube::Error::Api(status) if status.code == 404 && !names_an_object(&status) => {
            ClusterError::NoKind { server, kind }
        }
        error @ (kube::Error::HyperError(_) | kube::Error::Service(_)) => {
            ClusterError::Unreachable {
                server,
                source: Box::new(error),
            }
        }
        error => ClusterError::Other {
            kind,
            source: Box::new(error),
        },
    }
}

/// Whether what is missing is an object, and not its kind.
fn names_an_object(status: &Status) -> bool {
    let details = status.details.as_ref();
    details.is_some_and(|details| !details.name.is_empty())
}

/// How a cluster comes by a kind, if it is one of ours.
fn where_from(kind: &str) -> &'static str {
    if kind.ends_with(names::GROUP) {
        ": install the definitions first (`orbweaver crds | kubectl apply --server-side -f -`)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    const SERVER: &str = "https://api:6443/";

    fn said(code: u16, message: &str, kind: &str) -> String {
        let status = Status::failure(message, "any").with_code(code);
        let error = kube::Error::Api(Box::new(status));
        meaning(error, SERVER, kind.to_owned()).to_string()
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        let pools = "spiderippools.spiderpool.spidernet.io";
        assert_eq!(
            said(
                404,
                "the server could not find the requested resource",
                pools
            ),
            format!(
                "the cluster at {SERVER} has no {pools}: install the definitions first \
                 (`orbweaver crds | kubectl apply --server-side -f -`)"
            )
        );
        let refused = "User \"ann\" cannot list resource \"pods\"";
        assert_eq!(
            said(403, refused, "pods"),
            format!("{refused}: ask for a role that may get and list pods")
        );
        assert!(said(401, "Unauthorized", "pods").ends_with("log in again"));
        assert_eq!(said(500, "etcd is slow", "pods"), "pods could not be read");
        let not_found = "the server could not find the requested resource";
        assert_eq!(
            said(404, not_found, "rollouts.argoproj.io"),
            format!("the cluster at {SERVER} has no rollouts.argoproj.io")
        );
    }

    #[test]
    fn an_object_that_is_missing_is_not_a_kind_that_is() {
        let details: StatusDetails =
            serde_json::from_value(serde_json::json!({"name": "web"})).unwrap();
        let status = Status::failure("pods \"web\" not found", "NotFound")
            .with_code(404)
            .with_details(details);
        let error = kube::Error::Api(Box::new(status));
        let error = meaning(error, SERVER, "pods".to_owned());
        assert!(matches!(error, ClusterError::Other { .. }), "{error}");
    }

    fn map(text: &str) -> ConfigMap {
        let data = [(names::CONFIG_KEY.to_owned(), text.to_owned())];
        ConfigMap {
            data: Some(data.into()),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn the_cluster_s_configuration_is_used_where_there_is_just_one_that_is_understood() {
        let (config, note) = config_of(&[map("enableIPv6: false")]);
        assert!(!config.enable_ipv6 && note.is_none());
        let wrong = [
            vec![],
            vec![map("enableIPv5: true")],
            vec![map(""), map("")],
        ];
        for maps in wrong {
            let (config, note) = config_of(&maps);
            assert_eq!(config, config::Config::default());
            assert!(note.is_some_and(|n| n.contains("--config-path")));
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "
            apiVersion: v1
            kind: Config
            current-context: here
            clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]
            users: [{name: u, user: {}}]
            contexts: [{name: here, context: {cluster: c, user: u, namespace: shop}}]
        ";
        std::fs::write(&path, text).unwrap();
        let target = |context: &str| Target {
            context: Some(context.to_owned()),
            kubeconfig: Some(path.clone()),
            server: None,
            namespace: None,
        };
        let connection = target("here").open().await.unwrap();
        assert_eq!(connection.namespace, "shop");
        let error = connection.list::<ConfigMap>().await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "the API server http://127.0.0.1:1/ can't be reached: does `kubectl version` reach it?"
        );
        let error = target("there").open().await.err().unwrap();
        assert!(
            error.to_string().contains("no usable context 'there'"),
            "{error}"
        );
    }
}
