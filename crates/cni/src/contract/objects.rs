//! The objects of requests and replies.
//!
//! Fields stand in the order of their JSON keys, which is the order they are
//! written in.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::FrameworkError;

/// `None` for an absent key, `null` and `""`: the peers write all three for
/// "not set".
fn none_if_empty<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(d)?.filter(|s| !s.is_empty()))
}

/// A required value that some peers send as `null`, read as the empty one.
fn null_as_empty<'de, T, D>(d: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// For `skip_serializing_if`, which passes a reference.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out a reference"
)]
const fn is_zero(n: &u16) -> bool {
    *n == 0
}

/// For `skip_serializing_if`, which passes a reference.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out a reference"
)]
const fn is_false(b: &bool) -> bool {
    !*b
}

/// A request body: what it is called in error texts and what it must hold.
pub trait Body: DeserializeOwned {
    /// Name of the body parameter, as error texts give it.
    const NAME: &'static str;
    /// Keys that must be there and not `null`; an empty string is accepted.
    const REQUIRED: &'static [&'static str];
}

/// Reads a request body.
///
/// # Errors
/// 400 when `bytes` is not the JSON of a `B`, 422 when required keys
/// are missing, all of them named.
pub fn parse_body<B: Body>(bytes: &[u8]) -> Result<B, FrameworkError> {
    let unparsable = |e: serde_json::Error| FrameworkError::unparsable_body(B::NAME, &e);
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes).map_err(unparsable)?;
    let missing: Vec<&str> = B::REQUIRED
        .iter()
        .copied()
        .filter(|key| object.get(*key).is_none_or(serde_json::Value::is_null))
        .collect();
    if let Some(error) = FrameworkError::missing_fields(&missing) {
        return Err(error);
    }
    serde_json::from_value(object.into()).map_err(unparsable)
}

/// Body of `POST /ipam/ip`: addresses are wanted for one interface of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamAddArgs {
    /// No default route for this interface. Left out when false.
    #[serde(rename = "cleanGateway", default, skip_serializing_if = "is_false")]
    pub clean_gateway: bool,
    /// The Pod's sandbox.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Pools of the CNI configuration, in order; wildcards allowed. `null` when unset.
    #[serde(rename = "defaultIPv4IPPool", default)]
    pub default_ipv4_ip_pool: Option<Vec<String>>,
    /// As `default_ipv4_ip_pool`, for IPv6.
    #[serde(rename = "defaultIPv6IPPool", default)]
    pub default_ipv6_ip_pool: Option<Vec<String>>,
    /// The interface's name in the Pod.
    #[serde(rename = "ifName")]
    pub if_name: String,
    /// Only pools of the master interface's subnet. Left out when false.
    #[serde(
        rename = "matchMasterSubnet",
        default,
        skip_serializing_if = "is_false"
    )]
    pub match_master_subnet: bool,
    /// Path of the Pod's network namespace.
    #[serde(rename = "netNamespace")]
    pub net_namespace: String,
    /// The Pod's name.
    #[serde(rename = "podName")]
    pub pod_name: String,
    /// The Pod's namespace.
    #[serde(rename = "podNamespace")]
    pub pod_namespace: String,
    /// The Pod's UID; empty when the runtime does not say.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
}

impl Body for IpamAddArgs {
    const NAME: &'static str = "ipamAddArgs";
    const REQUIRED: &'static [&'static str] = &[
        "containerID",
        "ifName",
        "netNamespace",
        "podName",
        "podNamespace",
        "podUID",
    ];
}

/// Reply of `POST /ipam/ip`: everything the Pod holds, all interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamAddResponse {
    /// Never set by an agent so far. Left out when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// The addresses; `null` when the Pod gets none.
    #[serde(default)]
    pub ips: Option<Vec<IpConfig>>,
    /// The routes; `null` when there are none.
    #[serde(default)]
    pub routes: Option<Vec<Route>>,
}

/// An address of a Pod's interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The address with its prefix length, as `10.6.0.4/16`.
    pub address: String,
    /// Find out whether the gateway answers before the address is used. Left out when false.
    #[serde(
        rename = "enableGatewayDetection",
        default,
        skip_serializing_if = "is_false"
    )]
    pub enable_gateway_detection: bool,
    /// Find out whether another host has the address. Left out when false.
    #[serde(
        rename = "enableIPConflictDetection",
        default,
        skip_serializing_if = "is_false"
    )]
    pub enable_ip_conflict_detection: bool,
    /// The pool's gateway, sent even when no default route is wanted.
    #[serde(
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub gateway: Option<String>,
    /// The pool the address is from.
    #[serde(
        rename = "ipPool",
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub ip_pool: Option<String>,
    /// Hardware address wanted with it, as `0a:1b:2c:3d:4e:5f`.
    #[serde(
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub mac: Option<String>,
    /// The interface's name in the Pod.
    pub nic: String,
    /// The address's family.
    pub version: IpVersion,
    /// VLAN of the pool. 0, none, is left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vlan: u16,
}

/// An address family as the wire writes it: the number 4 or 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<IpVersion> for u8 {
    fn from(version: IpVersion) -> Self {
        match version {
            IpVersion::V4 => 4,
            IpVersion::V6 => 6,
        }
    }
}

/// A number that is no IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("IP version {0} is neither 4 nor 6")]
pub struct BadIpVersion(u8);

impl TryFrom<u8> for IpVersion {
    type Error = BadIpVersion;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            other => Err(BadIpVersion(other)),
        }
    }
}

/// A route of a Pod's interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination, a CIDR.
    pub dst: String,
    /// Next hop.
    pub gw: String,
    /// The interface. Empty inside an endpoint, where the original sends `null`.
    #[serde(rename = "ifName", default, deserialize_with = "null_as_empty")]
    pub if_name: String,
}

/// Resolver settings, as in a CNI result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Local domain of short host names.
    #[serde(
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub domain: Option<String>,
    /// Name servers in order.
    #[serde(
        default,
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub nameservers: Vec<String>,
    /// Options for the resolver.
    #[serde(
        default,
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub options: Vec<String>,
    /// Search domains in order.
    #[serde(
        default,
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub search: Vec<String>,
}

/// Body of `DELETE /ipam/ip`: a Pod's interface is being removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamDelArgs {
    /// The Pod's sandbox.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface's name in the Pod.
    #[serde(rename = "ifName")]
    pub if_name: String,
    /// Path of the network namespace, when it still exists.
    #[serde(
        rename = "netNamespace",
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub net_namespace: Option<String>,
    /// The Pod's name.
    #[serde(rename = "podName")]
    pub pod_name: String,
    /// The Pod's namespace.
    #[serde(rename = "podNamespace")]
    pub pod_namespace: String,
    /// The Pod's UID; empty when the runtime does not say.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
}

impl Body for IpamDelArgs {
    const NAME: &'static str = "ipamDelArgs";
    const REQUIRED: &'static [&'static str] =
        &["containerID", "ifName", "podName", "podNamespace", "podUID"];
}

/// An address that a Pod was given, and which another host has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConflict {
    /// The address, without a prefix length.
    pub address: String,
    /// The interface it was for.
    #[serde(rename = "ifName")]
    pub if_name: String,
    /// The pool it is from.
    #[serde(rename = "ipPool")]
    pub ip_pool: String,
    /// Hardware address of the other host.
    pub mac: String,
}

/// Body of `DELETE /ipam/ips`: a Pod cannot use the addresses it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamBatchDelArgs {
    /// Which of them, and why: ours alone, so that they can be kept from others.
    /// Left out when empty.
    #[serde(
        default,
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub conflicts: Vec<AddressConflict>,
    /// The Pod's sandbox.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Ask for the checks that refuse this. Left out when false.
    #[serde(
        rename = "isReleaseConflictIPs",
        default,
        skip_serializing_if = "is_false"
    )]
    pub is_release_conflict_ips: bool,
    /// Path of the Pod's network namespace.
    #[serde(
        rename = "netNamespace",
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub net_namespace: Option<String>,
    /// The Pod's name.
    #[serde(rename = "podName")]
    pub pod_name: String,
    /// The Pod's namespace.
    #[serde(rename = "podNamespace")]
    pub pod_namespace: String,
    /// The Pod's UID; empty when unknown.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
}

impl Body for IpamBatchDelArgs {
    const NAME: &'static str = "ipamBatchDelArgs";
    const REQUIRED: &'static [&'static str] = &["containerID", "podName", "podNamespace", "podUID"];
}

/// Query of `GET /workloadendpoint`; both are required.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointQuery {
    /// The Pod's name.
    #[serde(rename = "podName")]
    pub pod_name: String,
    /// The Pod's namespace.
    #[serde(rename = "podNamespace")]
    pub pod_namespace: String,
}

/// Reply of `GET /workloadendpoint`: what a Pod holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadEndpointStatus {
    /// Its interfaces.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub interfaces: Vec<EndpointInterface>,
    /// The node it runs on.
    pub node: String,
    /// The Pod's name.
    #[serde(rename = "podName")]
    pub pod_name: String,
    /// The Pod's namespace.
    #[serde(rename = "podNamespace")]
    pub pod_namespace: String,
    /// The Pod's UID.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
}

/// An interface inside [`WorkloadEndpointStatus`]; what is not set is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInterface {
    /// The interface's name in the Pod.
    pub interface: String,
    /// IPv4 address with prefix length.
    #[serde(
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4: Option<String>,
    /// IPv4 gateway.
    #[serde(
        rename = "ipv4Gateway",
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_gateway: Option<String>,
    /// Pool of the IPv4 address.
    #[serde(
        rename = "ipv4Pool",
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv4_pool: Option<String>,
    /// IPv6 address with prefix length.
    #[serde(
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6: Option<String>,
    /// IPv6 gateway.
    #[serde(
        rename = "ipv6Gateway",
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_gateway: Option<String>,
    /// Pool of the IPv6 address.
    #[serde(
        rename = "ipv6Pool",
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub ipv6_pool: Option<String>,
    /// Hardware address.
    #[serde(
        default,
        deserialize_with = "none_if_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub mac: Option<String>,
    /// Routes.
    #[serde(
        default,
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub routes: Vec<Route>,
    /// VLAN; 0 is left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vlan: u16,
}

#[cfg(test)]
mod tests;
