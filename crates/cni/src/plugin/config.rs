//! The network configuration on standard input.
//!
//! Owns its keys and their defaults. Unknown keys are ignored: the
//! configuration is that of the plugin which delegates to this one.

use std::path::PathBuf;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use crate::contract::DEFAULT_SOCKET;

/// Where the log goes unless `log_file_path` says otherwise.
const DEFAULT_LOG: &str = "/var/log/spidernet/spiderpool.log";

/// Size in MiB at which a log file is put aside unless `log_file_max_size` says otherwise.
const DEFAULT_LOG_MIB: u64 = 10;

/// What a configuration without a version means, by the CNI specification.
const UNSTATED_VERSION: &str = "0.1.0";

/// A version of the CNI protocol that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "&'static str")]
pub enum CniVersion {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0, brought CHECK.
    V0_4_0,
    /// 1.0.0, took `ips[].version` away.
    V1_0_0,
    /// 1.1.0, brought STATUS and GC.
    V1_1_0,
}

impl CniVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest version.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as configurations write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether a result says of each address which family it is of.
    pub(super) fn names_family(self) -> bool {
        self < Self::V1_0_0
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }
}

impl From<CniVersion> for &'static str {
    fn from(version: CniVersion) -> Self {
        version.as_str()
    }
}

/// How much is logged; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Calls that failed.
    Error,
    /// Odd, but healed.
    Warn,
    /// A line a call.
    Info,
    /// Requests and replies.
    Debug,
}

impl LogLevel {
    /// The level as the log writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }

    /// Reads a level. The original's levels above "error" mean that one here.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Ok(Self::Debug),
            "" | "info" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            "error" | "dpanic" | "panic" | "fatal" => Ok(Self::Error),
            _ => Err(ConfigError::LogLevel {
                level: text.to_owned(),
            }),
        }
    }
}

/// Where and how much to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The file.
    pub path: PathBuf,
    /// The most detailed level that is written.
    pub level: LogLevel,
    /// Size in bytes at which the file is put aside.
    pub max_bytes: u64,
}

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) version: CniVersion,
    pub(super) ipam: Ipam,
    /// Addresses of the result an earlier ADD gave; `None` without a `prevResult`.
    pub(super) previous: Option<Vec<String>>,
    /// How many attachments the runtime still knows; `None` but for GC.
    pub(super) valid_attachments: Option<usize>,
}

/// The `ipam` object, with defaults filled in but for the log's level, whose
/// errors have a text of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Ipam {
    log_level: Option<String>,
    log_file_path: Option<PathBuf>,
    log_file_max_size: Count,
    /// Accepted and checked, but without effect: the log's size is bounded
    /// by `log_file_max_size` alone.
    log_file_max_age: Count,
    /// As `log_file_max_age`.
    log_file_max_count: Count,
    pub(super) default_ipv4_ippool: Option<Vec<String>>,
    pub(super) default_ipv6_ippool: Option<Vec<String>>,
    clean_gateway: Option<bool>,
    match_master_subnet: Option<bool>,
    #[serde(rename = "ipam_unix_socket_path")]
    socket_path: Option<PathBuf>,
}

impl Ipam {
    pub(super) fn clean_gateway(&self) -> bool {
        self.clean_gateway.unwrap_or_default()
    }

    pub(super) fn match_master_subnet(&self) -> bool {
        self.match_master_subnet.unwrap_or_default()
    }

    pub(super) fn socket(&self) -> PathBuf {
        set(self.socket_path.as_ref(), DEFAULT_SOCKET)
    }

    /// The log's settings, 0 and an empty path being the default.
    pub(super) fn log(&self) -> Result<LogConfig, ConfigError> {
        let mib = match self.log_file_max_size.0 {
            0 => DEFAULT_LOG_MIB,
            set => set,
        };
        Ok(LogConfig {
            path: set(self.log_file_path.as_ref(), DEFAULT_LOG),
            level: LogLevel::parse(self.log_level.as_deref().unwrap_or_default())?,
            max_bytes: mib.saturating_mul(1 << 20),
        })
    }
}

fn set(path: Option<&PathBuf>, default: &str) -> PathBuf {
    path.filter(|p| !p.as_os_str().is_empty())
        .cloned()
        .unwrap_or_else(|| default.into())
}

/// A count, as a JSON number or as its digits in a string: the original's
/// documentation shows one and its code takes the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct CountVisitor;

        impl Visitor<'_> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a count, as a number or its digits in a string")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Count, E> {
                Ok(Count(n))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
                let digits = text.trim();
                if digits.is_empty() {
                    return Ok(Count(0));
                }
                let bad = || E::invalid_value(de::Unexpected::Str(text), &self);
                digits.parse().map(Count).map_err(|_| bad())
            }
        }

        d.deserialize_any(CountVisitor)
    }
}

/// The whole object as it is written.
#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "cniVersion", default)]
    version: Option<String>,
    #[serde(default)]
    ipam: Option<Ipam>,
    #[serde(rename = "prevResult", default)]
    previous: Option<WirePrevious>,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    valid_attachments: Option<Vec<serde_json::Value>>,
}

/// A result of any version from 0.3.0 on, as far as it is looked at.
#[derive(Deserialize)]
struct WirePrevious {
    #[serde(default)]
    ips: Option<Vec<WirePreviousIp>>,
}

#[derive(Deserialize)]
struct WirePreviousIp {
    address: String,
}

impl Config {
    /// Reads standard input.
    pub(super) fn parse(stdin: &[u8]) -> Result<Self, ConfigError> {
        let Wire {
            version,
            ipam,
            previous,
            valid_attachments,
        } = serde_json::from_slice(stdin).map_err(|source| ConfigError::Json { source })?;
        let stated = version
            .as_deref()
            .filter(|v| !v.is_empty())
            .unwrap_or(UNSTATED_VERSION);
        let version = CniVersion::parse(stated).ok_or_else(|| ConfigError::Version {
            version: stated.to_owned(),
        })?;
        let addresses = |p: WirePrevious| {
            p.ips
                .unwrap_or_default()
                .into_iter()
                .map(|ip| ip.address)
                .collect()
        };
        Ok(Self {
            version,
            ipam: ipam.unwrap_or_default(),
            previous: previous.map(addresses),
            valid_attachments: valid_attachments.map(|list| list.len()),
        })
    }
}

/// The protocol version alone, for answers that must go out even when the
/// rest makes no sense; `None` when it is not one that is spoken here.
pub(super) fn peek_version(stdin: &[u8]) -> Option<CniVersion> {
    #[derive(Deserialize)]
    struct Peek {
        #[serde(rename = "cniVersion")]
        version: String,
    }
    let peek: Peek = serde_json::from_slice(stdin).ok()?;
    CniVersion::parse(&peek.version)
}

#[cfg(test)]
mod tests;
