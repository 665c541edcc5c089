//! `SpiderEndpoint`: which addresses a Pod has, NIC by NIC.
//!
//! Owns: the wire form, its schema and its printer columns. Never does: decide anything; the
//! object is derived from pool records. Written by hand, since it has no `spec` and its `status`
//! is plain body data without the subresource, which the derive of `kube` can't say. Invariant: an
//! object read and written back is the same object, unknown keys included.

use std::borrow::Cow;

use ipam::keep::MachineKind;
use k8s_openapi::Resource as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceValidation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{NamespaceResourceScope, Resource};
use schemars::JsonSchema;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::crd::{SchemaError, schema_of};
use super::{Route, Unknown, names, rules};

/// The addresses of one Pod. Name and namespace are the Pod's (the original's for a virtual machine
/// with static addresses: those of the machine).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct SpiderEndpoint {
    /// Standard object metadata.
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// The addresses, and whose they are.
    #[serde(default)]
    pub status: Option<SpiderEndpointStatus>,
}

/// The current addresses of a Pod, and the workload it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpiderEndpointStatus {
    /// The Pod and its addresses.
    pub current: EndpointCurrent,
    /// Kind of the Pod's top controller, `Pod` for a Pod without one.
    pub owner_controller_type: String,
    /// Name of the Pod's top controller.
    pub owner_controller_name: String,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The Pod that holds the addresses now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCurrent {
    /// The Pod's uid.
    pub uid: String,
    /// The Pod's node.
    pub node: String,
    /// The addresses, one element a NIC.
    pub ips: Vec<EndpointNic>,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The addresses of one NIC: at most one of each family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointNic {
    /// The NIC's name; empty until its own ADD, where annotations don't name NICs.
    pub interface: String,
    /// IPv4 address with the prefix length of its pool's subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// Name of the pool of the IPv4 address.
    #[serde(rename = "ipv4Pool", default, skip_serializing_if = "Option::is_none")]
    pub ipv4_pool: Option<String>,
    /// IPv4 gateway, as the pool said when the address was given.
    #[serde(
        rename = "ipv4Gateway",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_gateway: Option<String>,
    /// IPv6 address with the prefix length of its pool's subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// Name of the pool of the IPv6 address.
    #[serde(rename = "ipv6Pool", default, skip_serializing_if = "Option::is_none")]
    pub ipv6_pool: Option<String>,
    /// IPv6 gateway, as the pool said when the address was given.
    #[serde(
        rename = "ipv6Gateway",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_gateway: Option<String>,
    /// VLAN of the NIC, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4094), extend("default" = 0))]
    pub vlan: Option<i64>,
    /// Whether the NIC gets no default route. Set only where there is a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_gateway: Option<bool>,
    /// Routes of the pools and of the Pod's annotation; the default route isn't among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_ROUTES))]
    pub routes: Option<Vec<Route>>,
    /// MAC address, where a provider assigned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Keys this version doesn't know, kept as they are.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl SpiderEndpoint {
    /// An endpoint with neither owner nor finalizer; both depend on the Pod.
    pub fn new(namespace: &str, name: &str, status: SpiderEndpointStatus) -> Self {
        Self {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            status: Some(status),
        }
    }

    /// True where it was written for a Pod of this very StatefulSet: of its name, and not of a
    /// former one's, whose endpoints are older than the set.
    pub fn tells_of(&self, set: &StatefulSet) -> bool {
        self.tells_of_a(StatefulSet::KIND, &set.metadata)
    }

    /// The same of a virtual machine, whose instances have its name; the original says "instance"
    /// of both.
    pub fn tells_of_machine(&self, machine: &ObjectMeta) -> bool {
        self.tells_of_a(MachineKind::VirtualMachineInstance.as_str(), machine)
    }

    fn tells_of_a(&self, kind: &str, owner: &ObjectMeta) -> bool {
        let is_named = self.status.as_ref().is_some_and(|status| {
            status.owner_controller_type == kind
                && owner.name.as_ref() == Some(&status.owner_controller_name)
        });
        let made = owner.creation_timestamp.as_ref();
        let told = self.metadata.creation_timestamp.as_ref();
        is_named && made.zip(told).is_some_and(|(made, told)| made.0 <= told.0)
    }
}

impl Serialize for SpiderEndpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = 3 + usize::from(self.status.is_some());
        let mut object = serializer.serialize_struct(names::KIND_ENDPOINT, fields)?;
        object.serialize_field("apiVersion", names::API_VERSION)?;
        object.serialize_field("kind", names::KIND_ENDPOINT)?;
        object.serialize_field("metadata", &self.metadata)?;
        if let Some(status) = &self.status {
            object.serialize_field("status", status)?;
        }
        object.end()
    }
}

impl Resource for SpiderEndpoint {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        names::KIND_ENDPOINT.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        names::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        names::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "spiderendpoints".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The definition of the kind, as the derive would write it.
pub(super) fn definition() -> Result<CustomResourceDefinition, SchemaError> {
    let schema = schema_of::<SpiderEndpoint>()?;
    let plural = SpiderEndpoint::plural(&());
    Ok(CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{plural}.{}", names::GROUP)),
            ..ObjectMeta::default()
        },
        spec: CustomResourceDefinitionSpec {
            group: names::GROUP.to_owned(),
            names: CustomResourceDefinitionNames {
                categories: Some(vec!["spiderpool".to_owned()]),
                kind: names::KIND_ENDPOINT.to_owned(),
                plural: plural.into_owned(),
                short_names: Some(vec!["se".to_owned()]),
                singular: Some("spiderendpoint".to_owned()),
                ..CustomResourceDefinitionNames::default()
            },
            scope: "Namespaced".to_owned(),
            versions: vec![CustomResourceDefinitionVersion {
                name: names::VERSION.to_owned(),
                served: true,
                storage: true,
                additional_printer_columns: Some(columns()),
                schema: Some(CustomResourceValidation {
                    open_api_v3_schema: Some(schema),
                }),
                ..CustomResourceDefinitionVersion::default()
            }],
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    })
}

fn columns() -> Vec<CustomResourceColumnDefinition> {
    [
        ("INTERFACE", ".status.current.ips[0].interface", "interface"),
        ("IPV4POOL", ".status.current.ips[0].ipv4Pool", "ipv4Pool"),
        ("IPV4", ".status.current.ips[0].ipv4", "ipv4"),
        ("IPV6POOL", ".status.current.ips[0].ipv6Pool", "ipv6Pool"),
        ("IPV6", ".status.current.ips[0].ipv6", "ipv6"),
        ("NODE", ".status.current.node", "node"),
    ]
    .map(|(name, path, description)| CustomResourceColumnDefinition {
        name: name.to_owned(),
        json_path: path.to_owned(),
        type_: "string".to_owned(),
        description: Some(description.to_owned()),
        ..CustomResourceColumnDefinition::default()
    })
    .into()
}
