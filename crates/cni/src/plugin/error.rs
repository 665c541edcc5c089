//! Every way a command can fail, in the words the runtime is told.
//!
//! Owns texts and CNI error codes. The text of an error never repeats its
//! source's; the message that leaves the process is the chain of them, joined
//! by `: ` ([`PluginError::message`]).

use std::path::PathBuf;

use serde::Serialize;

use super::config::CniVersion;
use super::result::pretty;
use crate::client::ClientError;
use crate::transport::{Errno, chain};

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The environment is not what the CNI specification asks for.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The network configuration cannot be used.
    #[error("failed to load CNI network configuration")]
    Config {
        /// Why.
        source: ConfigError,
    },
    /// The log settings cannot be used.
    #[error("failed to setup file logging")]
    Logging {
        /// Why.
        source: ConfigError,
    },
    /// There is no such network namespace.
    #[error("failed to GetNS \"{}\" for pod", path.display())]
    Netns {
        /// What `CNI_NETNS` says.
        path: PathBuf,
        /// Why.
        source: NetnsError,
    },
    /// The agent does not answer, or says it cannot serve.
    #[error("unhealthy spiderpool-agent backend, failed to check")]
    Unhealthy {
        /// Why.
        source: ClientError,
    },
    /// As `Unhealthy`, asked by STATUS.
    #[error("unhealthy spiderpool-agent backend, failed to check")]
    Unavailable {
        /// Why.
        source: ClientError,
    },
    /// ADD got no addresses.
    #[error("spiderpool IP allocation error")]
    Allocate {
        /// Why.
        source: AllocateError,
    },
    /// Another host has the address.
    #[error(
        "ip conflict: pod's interface {nic} with an conflicting ip {address}, {address} is located at {mac}{}",
        also(refused.as_deref())
    )]
    Conflict {
        /// The interface.
        nic: String,
        /// The address.
        address: String,
        /// Hardware address of the host that has it.
        mac: String,
        /// What the agent said to it, if it did not take the address back.
        refused: Option<Box<ClientError>>,
    },
    /// The gateway does not answer.
    #[error(
        "gateway {gateway} is unreachable: nothing answered for it on the network of interface {nic}; \
         mend the gateway of IPPool {pool}, or the network between"
    )]
    Unreachable {
        /// The gateway.
        gateway: String,
        /// The interface.
        nic: String,
        /// Where the gateway stands.
        pool: String,
    },
    /// DEL must be repeated.
    #[error("spiderpool IP release error")]
    Release {
        /// Why.
        source: ClientError,
    },
    /// CHECK found something amiss.
    #[error("spiderpool IP check error")]
    Check {
        /// What.
        source: CheckError,
    },
}

/// What is wrong with the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// Variables are absent or empty.
    #[error("required env variables [{}] missing", names.join(","))]
    Missing {
        /// All of them.
        names: Vec<&'static str>,
    },
    /// A variable is not UTF-8.
    #[error("env variable {name} is not valid UTF-8")]
    NotText {
        /// Which.
        name: &'static str,
    },
    /// No CNI command is called so.
    #[error("unknown CNI_COMMAND: {command}")]
    UnknownCommand {
        /// What was asked for.
        command: String,
    },
    /// The sandbox's id has characters it may not have.
    #[error(
        "CNI_CONTAINERID {id:?} must be letters, digits, '_', '.' and '-', the first a letter or digit"
    )]
    BadContainerId {
        /// The id.
        id: String,
    },
    /// The kernel would refuse an interface of that name.
    #[error("CNI_IFNAME {name:?} must have at most 15 bytes, none of them '/', ':' or a blank")]
    BadIfName {
        /// The name.
        name: String,
    },
    /// A part of `CNI_ARGS` has no value.
    #[error("CNI_ARGS: {pair:?} is not KEY=VALUE")]
    BadPair {
        /// The part.
        pair: String,
    },
    /// A key of `CNI_ARGS` means nothing here.
    #[error("CNI_ARGS: unknown key {key:?}, set IgnoreUnknown=1 to pass it over")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// `CNI_ARGS` does not say which Pod the call is for.
    #[error(
        "CNI_ARGS must have K8S_POD_NAMESPACE and K8S_POD_NAME: addresses are given to Pods only"
    )]
    NoPod,
}

/// What is wrong with the network configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not the JSON it should be.
    #[error("failed to parse CNI network configuration")]
    Json {
        /// Where and why.
        source: serde_json::Error,
    },
    /// It is of a protocol version that is not spoken here.
    #[error(
        "unsupported specified CNI version {version}, the CNI versions supported by Spiderpool: [{}]",
        CniVersion::ALL.map(CniVersion::as_str).join(" ")
    )]
    Version {
        /// The version.
        version: String,
    },
    /// There is no such log level.
    #[error("unsupported log level {level}")]
    LogLevel {
        /// The level.
        level: String,
    },
}

/// Why a path is no network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It cannot be looked at.
    #[error("failed to Statfs \"{}\"", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// It is something else.
    #[error("\"{}\" is not a network namespace", path.display())]
    NotNetns {
        /// The path.
        path: PathBuf,
    },
}

/// Why nobody can be asked on an interface.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// It is not there: its main plugin makes it after IPAM.
    #[error("there is no interface {nic} yet: the main plugin makes it after IPAM")]
    Absent {
        /// The interface.
        nic: String,
    },
    /// It carries no frames of its own.
    #[error(
        "interface {nic} is no Ethernet interface with a hardware address of its own (kind {kind:?})"
    )]
    Unsuitable {
        /// The interface.
        nic: String,
        /// What the kernel calls it.
        kind: String,
    },
    /// The system refused something.
    #[error("failed to {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: Errno,
    },
}

impl SegmentError {
    pub(super) fn system(what: &'static str, error: std::io::Error) -> Self {
        Self::System {
            what,
            source: Errno::from(error),
        }
    }
}

/// A second failure, after the first.
fn also(refused: Option<&ClientError>) -> String {
    refused.map_or_else(String::new, |error| format!("; {}", chain(error)))
}

/// Why ADD has no result.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The agent refused, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The reply has no list of addresses.
    #[error("validation failure list:\nips in body is required")]
    NoList,
    /// The reply has addresses, but none for the interface.
    #[error("no Interface {nic} IP allocation found")]
    NoAddress {
        /// The interface.
        nic: String,
    },
    /// An address of the reply is no address with a prefix length, or of the
    /// other family than it says.
    #[error(
        "address {address:?} of the agent's reply is not an IPv{family} address with a prefix length"
    )]
    BadAddress {
        /// The address.
        address: String,
        /// The family it is said to be of.
        family: u8,
    },
}

/// What CHECK found.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The agent has no record of the Pod, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The record is that of an earlier Pod of the same name.
    #[error("the addresses of Pod {pod} belong to UID {recorded}, not to {asked}")]
    OtherPod {
        /// Namespace and name.
        pod: String,
        /// UID in the record.
        recorded: String,
        /// UID of the call.
        asked: String,
    },
    /// An address in use is not recorded.
    #[error("address {address} of the previous result is not recorded for Pod {pod}")]
    NotRecorded {
        /// The address.
        address: String,
        /// Namespace and name.
        pod: String,
    },
}

impl PluginError {
    /// The CNI error code: those of the specification where one fits, else
    /// 999, which is what the original answers for everything of its own.
    pub fn code(&self) -> u16 {
        match self {
            Self::Env(_) => 4,
            Self::Config {
                source: ConfigError::Version { .. },
            } => 1,
            Self::Config {
                source: ConfigError::Json { .. },
            } => 6,
            Self::Config {
                source: ConfigError::LogLevel { .. },
            }
            | Self::Logging { .. } => 7,
            Self::Unavailable { .. } => 50,
            Self::Netns { .. }
            | Self::Unhealthy { .. }
            | Self::Allocate { .. }
            | Self::Conflict { .. }
            | Self::Unreachable { .. }
            | Self::Release { .. }
            | Self::Check { .. } => 999,
        }
    }

    /// The text with those of all sources.
    pub fn message(&self) -> String {
        chain(self)
    }

    /// What the text has no place for, because its form is fixed.
    fn details(&self) -> Option<&str> {
        if let ClientError::Undeclared { message, .. } = self.client()?
            && !message.is_empty()
        {
            return Some(message);
        }
        None
    }

    /// The agent's part in it.
    fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Unhealthy { source }
            | Self::Unavailable { source }
            | Self::Release { source }
            | Self::Allocate {
                source: AllocateError::Client(source),
            }
            | Self::Check {
                source: CheckError::Client(source),
            } => Some(source),
            Self::Env(_)
            | Self::Config { .. }
            | Self::Logging { .. }
            | Self::Netns { .. }
            | Self::Allocate { .. }
            | Self::Conflict { .. }
            | Self::Unreachable { .. }
            | Self::Check { .. } => None,
        }
    }

    /// The error object for standard output. `version` is left out when the
    /// runtime did not name one that is spoken here.
    pub(super) fn to_json(&self, version: Option<CniVersion>) -> String {
        #[derive(Serialize)]
        struct Wire<'a> {
            #[serde(rename = "cniVersion", skip_serializing_if = "Option::is_none")]
            version: Option<CniVersion>,
            code: u16,
            msg: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a str>,
        }
        pretty(&Wire {
            version,
            code: self.code(),
            msg: self.message(),
            details: self.details(),
        })
    }
}
