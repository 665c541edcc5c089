//! From the agent's reply to the result of ADD, and the answer to VERSION.
//!
//! Owns the differences between the protocol versions. An IPAM plugin makes
//! no interfaces, so a result names none.

use std::net::IpAddr;

use serde::Serialize;

use super::config::CniVersion;
use super::error::AllocateError;
use crate::contract::{Dns, IpConfig, IpVersion, IpamAddResponse};

/// The result of ADD.
#[derive(Debug, Serialize)]
pub(super) struct AddResult {
    #[serde(rename = "cniVersion")]
    version: CniVersion,
    ips: Vec<ResultIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<ResultRoute>,
    dns: Dns,
}

#[derive(Debug, Serialize)]
struct ResultIp {
    /// "4" or "6", up to 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
}

#[derive(Debug, Serialize)]
struct ResultRoute {
    dst: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    gw: String,
}

impl AddResult {
    /// What of `reply` is for the interface `nic`, in the agent's order.
    pub(super) fn new(
        version: CniVersion,
        nic: &str,
        reply: IpamAddResponse,
    ) -> Result<Self, AllocateError> {
        let IpamAddResponse { dns, ips, routes } = reply;
        let ips = ips
            .ok_or(AllocateError::NoList)?
            .into_iter()
            .filter(|ip| ip.nic == nic)
            .map(|ip| ResultIp::new(version, ip))
            .collect::<Result<Vec<_>, _>>()?;
        if ips.is_empty() {
            return Err(AllocateError::NoAddress {
                nic: nic.to_owned(),
            });
        }
        let routes = routes
            .unwrap_or_default()
            .into_iter()
            .filter(|route| route.if_name == nic)
            .map(|route| ResultRoute {
                dst: route.dst,
                gw: route.gw,
            })
            .collect();
        Ok(Self {
            version,
            ips,
            routes,
            dns: dns.unwrap_or_default(),
        })
    }

    /// The addresses, for the log.
    pub(super) fn addresses(&self) -> String {
        let addresses: Vec<_> = self.ips.iter().map(|ip| ip.address.as_str()).collect();
        addresses.join(",")
    }
}

impl ResultIp {
    fn new(version: CniVersion, ip: IpConfig) -> Result<Self, AllocateError> {
        if !is_interface_address(&ip.address, ip.version) {
            let family = ip.version.into();
            return Err(AllocateError::BadAddress {
                address: ip.address,
                family,
            });
        }
        let family = match ip.version {
            IpVersion::V4 => "4",
            IpVersion::V6 => "6",
        };
        Ok(Self {
            version: version.names_family().then_some(family),
            address: ip.address,
            gateway: ip.gateway,
        })
    }
}

/// Whether `text` is an address of that family with a prefix length. The
/// delegating plugin parses the result with a strict parser whose errors name
/// neither the Pod nor the agent, so a bad one is caught here.
fn is_interface_address(text: &str, version: IpVersion) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let longest = match (address.parse(), version) {
        (Ok(IpAddr::V4(_)), IpVersion::V4) => 32,
        (Ok(IpAddr::V6(_)), IpVersion::V6) => 128,
        _ => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= longest)
}

/// The answer to VERSION, in the version that was asked in.
pub(super) fn version_json(asked: Option<CniVersion>) -> String {
    #[derive(Serialize)]
    struct Wire {
        #[serde(rename = "cniVersion")]
        version: CniVersion,
        #[serde(rename = "supportedVersions")]
        supported: [CniVersion; CniVersion::ALL.len()],
    }
    let wire = Wire {
        version: asked.unwrap_or(CniVersion::LATEST),
        supported: CniVersion::ALL,
    };
    let mut text = serde_json::to_string(&wire).unwrap_or_default();
    text.push('\n');
    text
}

/// JSON as the original prints it: indented by four blanks, no line feed at the end.
pub(super) fn pretty<T: Serialize>(value: &T) -> String {
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    // Plain structs with string keys, written to memory: nothing can fail.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes, format,
    ));
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_a_prefix_length_of_their_family_pass() {
        for (text, version, good) in [
            ("10.0.0.4/24", IpVersion::V4, true),
            ("10.0.0.4/32", IpVersion::V4, true),
            ("fd00::4/128", IpVersion::V6, true),
            ("fd00::4/128", IpVersion::V4, false),
            ("10.0.0.4/24", IpVersion::V6, false),
            ("10.0.0.4", IpVersion::V4, false),
            ("10.0.0.4/33", IpVersion::V4, false),
            ("10.0.0.4/", IpVersion::V4, false),
            ("fd00::4/129", IpVersion::V6, false),
            ("", IpVersion::V6, false),
        ] {
            assert_eq!(is_interface_address(text, version), good, "{text}");
        }
    }

    #[test]
    fn a_version_is_answered_in_the_version_asked_in() {
        assert_eq!(
            version_json(Some(CniVersion::V0_4_0)),
            "{\"cniVersion\":\"0.4.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
        );
        assert!(version_json(None).starts_with("{\"cniVersion\":\"1.1.0\","));
    }
}
