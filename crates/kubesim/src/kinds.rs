//! Which kinds are served: the built-in table, and what `CustomResourceDefinition`s add.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use crate::builtin::{BUILTINS, Builtin, Deletion};
use crate::custom::Custom;

/// Where the numbers of a scale subresource stand in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub(crate) spec: String,
    pub(crate) status: String,
    pub(crate) selector: Option<String>,
}

/// One kind in one version, as it is served.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "Kubernetes' own names")]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) has_status: bool,
    pub(crate) scale: Option<ScalePaths>,
    /// Under which name its objects are stored; kinds that are two views of one share it.
    pub(crate) storage: Arc<str>,
    pub(crate) form: Form,
}

/// What decides how its objects are read and written.
#[derive(Debug)]
pub(crate) enum Form {
    /// A row of the table.
    Builtin(&'static Builtin),
    /// A version of a `CustomResourceDefinition`.
    Custom(Box<Custom>),
}

impl Kind {
    fn of(row: &'static Builtin) -> Self {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let plain = qualified(row.plural, row.group);
        let scale = row.scaled.then(|| ScalePaths {
            spec: "/spec/replicas".to_owned(),
            status: "/status/replicas".to_owned(),
            selector: None,
        });
        Self {
            group: row.group.to_owned(),
            version: row.version.to_owned(),
            kind: row.kind.to_owned(),
            list_kind: format!("{}List", row.kind),
            plural: row.plural.to_owned(),
            singular: row.kind.to_lowercase(),
            short_names: words(row.short),
            categories: words(row.categories),
            namespaced: row.namespaced,
            has_status: row.has_status,
            scale,
            storage: Arc::from(row.storage.unwrap_or(&plain)),
            form: Form::Builtin(row),
        }
    }

    /// `pods`, `deployments.apps`.
    pub(crate) fn resource(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The `details` of a Status about one of its objects.
    pub(crate) fn details(&self, name: &str, kind: &str) -> Value {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".to_owned(), json!(name));
        }
        if !self.group.is_empty() {
            details.insert("group".to_owned(), json!(self.group));
        }
        details.insert("kind".to_owned(), json!(kind));
        Value::Object(details)
    }

    /// The row of a built-in kind.
    pub(crate) fn builtin(&self) -> Option<&'static Builtin> {
        match &self.form {
            Form::Builtin(row) => Some(row),
            Form::Custom(_) => None,
        }
    }

    /// The definition of a custom kind.
    pub(crate) fn custom(&self) -> Option<&Custom> {
        match &self.form {
            Form::Builtin(_) => None,
            Form::Custom(custom) => Some(custom),
        }
    }

    /// Whether it is this built-in kind of the core group.
    pub(crate) fn is_core(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// Whether its objects count changes of what they ask for.
    pub(crate) fn has_generation(&self) -> bool {
        self.builtin().is_none_or(|row| row.generation)
    }

    /// What happens to dependents if a DELETE does not say.
    pub(crate) fn deletion(&self) -> Deletion {
        self.builtin()
            .map_or(Deletion::Background, |row| row.deletion)
    }

    /// The folder of its objects in etcd, as some messages name it.
    pub(crate) fn storage_folder(&self) -> String {
        match self.plural.as_str() {
            "nodes" if self.group.is_empty() => "minions".to_owned(),
            "services" if self.group.is_empty() => "services/specs".to_owned(),
            "endpoints" if self.group.is_empty() => "services/endpoints".to_owned(),
            _ if self.custom().is_some() => format!("{}/{}", self.group, self.plural),
            _ => self.plural.clone(),
        }
    }

    /// Whether a PUT must name the version it replaces.
    pub(crate) fn needs_version(&self) -> bool {
        matches!(
            self.group.as_str(),
            "policy"
                | "coordination.k8s.io"
                | "admissionregistration.k8s.io"
                | "apiextensions.k8s.io"
        )
    }

    /// Whether a DELETE answers with the object.
    pub(crate) fn returns_deleted(&self) -> bool {
        self.group.is_empty()
            && matches!(
                self.plural.as_str(),
                "pods" | "namespaces" | "services" | "serviceaccounts"
            )
    }

    /// The verbs of the collection and its objects, in the order of discovery.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        if self.custom().is_some() {
            &[
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "create",
                "update",
                "watch",
            ]
        } else if self.is_core("namespaces") {
            &[
                "create", "delete", "get", "list", "patch", "update", "watch",
            ]
        } else {
            &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ]
        }
    }
}

/// `plural` or `plural.group`.
pub(crate) fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}

/// All kinds that are served now.
#[derive(Clone, Debug)]
pub(crate) struct Kinds {
    builtin: &'static [Arc<Kind>],
    custom: Vec<Arc<Kind>>,
}

impl Default for Kinds {
    fn default() -> Self {
        static TABLE: OnceLock<Vec<Arc<Kind>>> = OnceLock::new();
        let table =
            TABLE.get_or_init(|| BUILTINS.iter().map(|row| Arc::new(Kind::of(row))).collect());
        Self {
            builtin: table,
            custom: Vec::new(),
        }
    }
}

impl Kinds {
    /// Every kind, the built-in ones first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.builtin.iter().chain(&self.custom)
    }

    /// The kind that a path names.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.all()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// Takes the kinds of a `CustomResourceDefinition` instead of those it had before.
    pub(crate) fn replace_custom(&mut self, group: &str, plural: &str, with: Vec<Kind>) {
        self.custom
            .retain(|kind| kind.group != group || kind.plural != plural);
        self.custom.extend(with.into_iter().map(Arc::new));
        self.custom.sort_by(|a, b| {
            (&a.group, &a.plural, &a.version).cmp(&(&b.group, &b.plural, &b.version))
        });
    }
}
