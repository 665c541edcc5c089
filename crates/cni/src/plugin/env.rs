//! What the runtime passes: environment variables, `CNI_ARGS`, standard input.
//!
//! Owns the checks the CNI specification asks for. It never reads the process
//! environment itself; `main` does.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::error::EnvError;

/// Longest name of a Linux interface (`IFNAMSIZ` less its NUL).
const IF_NAME_MAX: usize = 15;

/// Everything one execution is given.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// The environment; others than the `CNI_*` variables are not looked at.
    pub env: BTreeMap<OsString, OsString>,
    /// Standard input.
    pub stdin: Vec<u8>,
}

/// A CNI command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Answered from what is compiled in; needs no configuration.
    Version,
    Task(Task),
}

/// A command that works on a network, with what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    Add(Attachment),
    Del(Attachment),
    Check(Attachment),
    Status,
    Gc,
}

impl Task {
    /// What the call is about, for the log.
    pub(super) fn context(&self) -> String {
        let (name, attachment) = match self {
            Self::Add(attachment) => ("ADD", attachment),
            Self::Del(attachment) => ("DEL", attachment),
            Self::Check(attachment) => ("CHECK", attachment),
            Self::Status => return "STATUS".into(),
            Self::Gc => return "GC".into(),
        };
        let Attachment {
            container_id,
            if_name,
            netns: _,
            pod,
        } = attachment;
        let PodArgs {
            name: pod_name,
            namespace,
            uid: _,
        } = pod;
        format!("{name} pod={namespace}/{pod_name} nic={if_name} sandbox={container_id}")
    }
}

/// Whether a command can do without a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Netns {
    Required,
    Optional,
}

/// The attachment a command is about: one interface of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) container_id: String,
    pub(super) if_name: String,
    /// Empty when the namespace is gone already, at DEL.
    pub(super) netns: String,
    pub(super) pod: PodArgs,
}

/// The keys of `CNI_ARGS` that are looked at; empty when absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PodArgs {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
}

impl Invocation {
    fn var(&self, name: &'static str) -> Result<Option<&str>, EnvError> {
        match self.env.get(std::ffi::OsStr::new(name)) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text)),
                None => Err(EnvError::NotText { name }),
            },
        }
    }

    /// The command, with all it needs from the environment.
    pub(super) fn command(&self) -> Result<Command, EnvError> {
        let task = match self.var("CNI_COMMAND")? {
            None => {
                return Err(EnvError::Missing {
                    names: vec!["CNI_COMMAND"],
                });
            }
            Some("VERSION") => return Ok(Command::Version),
            Some("ADD") => Task::Add(self.attachment(Netns::Required)?),
            Some("DEL") => Task::Del(self.attachment(Netns::Optional)?),
            Some("CHECK") => Task::Check(self.attachment(Netns::Required)?),
            Some("STATUS") => Task::Status,
            Some("GC") => Task::Gc,
            Some(other) => {
                return Err(EnvError::UnknownCommand {
                    command: other.to_owned(),
                });
            }
        };
        Ok(Command::Task(task))
    }

    fn attachment(&self, need: Netns) -> Result<Attachment, EnvError> {
        let container_id = self.var("CNI_CONTAINERID")?.unwrap_or_default();
        let netns = self.var("CNI_NETNS")?.unwrap_or_default();
        let if_name = self.var("CNI_IFNAME")?.unwrap_or_default();
        let mut names = Vec::new();
        if container_id.is_empty() {
            names.push("CNI_CONTAINERID");
        }
        if netns.is_empty() && need == Netns::Required {
            names.push("CNI_NETNS");
        }
        if if_name.is_empty() {
            names.push("CNI_IFNAME");
        }
        if !names.is_empty() {
            return Err(EnvError::Missing { names });
        }
        check_container_id(container_id)?;
        check_if_name(if_name)?;
        Ok(Attachment {
            container_id: container_id.to_owned(),
            if_name: if_name.to_owned(),
            netns: netns.to_owned(),
            pod: PodArgs::parse(self.var("CNI_ARGS")?.unwrap_or_default())?,
        })
    }
}

/// CNI specification, section 2: begins with a letter or digit, goes on with
/// those and `_`, `.`, `-`.
fn check_container_id(id: &str) -> Result<(), EnvError> {
    let first = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = id
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if first && rest {
        Ok(())
    } else {
        Err(EnvError::BadContainerId { id: id.to_owned() })
    }
}

/// What the kernel refuses as the name of an interface.
fn check_if_name(name: &str) -> Result<(), EnvError> {
    let bad_char = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if name.len() > IF_NAME_MAX || matches!(name, "." | "..") || name.contains(bad_char) {
        return Err(EnvError::BadIfName {
            name: name.to_owned(),
        });
    }
    Ok(())
}

impl PodArgs {
    /// Reads `KEY=VALUE;KEY=VALUE`. A key nobody knows is an error unless
    /// `IgnoreUnknown` is set, as the runtimes do.
    fn parse(text: &str) -> Result<Self, EnvError> {
        let mut pod = Self::default();
        let mut unknown = None;
        let mut ignore_unknown = false;
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(EnvError::BadPair {
                    pair: pair.to_owned(),
                });
            };
            match key {
                "K8S_POD_NAME" => value.clone_into(&mut pod.name),
                "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
                "K8S_POD_UID" => value.clone_into(&mut pod.uid),
                // The sandbox is CNI_CONTAINERID; an address is asked for by annotation.
                "K8S_POD_INFRA_CONTAINER_ID" | "IP" => {}
                "IgnoreUnknown" => {
                    ignore_unknown = value == "1" || value.eq_ignore_ascii_case("true");
                }
                _ => unknown = unknown.or(Some(key)),
            }
        }
        match unknown {
            Some(key) if !ignore_unknown => Err(EnvError::UnknownKey {
                key: key.to_owned(),
            }),
            _ => Ok(pod),
        }
    }

    /// Whether the Pod is named.
    pub(super) fn is_named(&self) -> bool {
        !self.name.is_empty() && !self.namespace.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(vars: &[(&str, &str)]) -> Invocation {
        let env = vars.iter().map(|(k, v)| (k.into(), v.into())).collect();
        Invocation {
            env,
            stdin: Vec::new(),
        }
    }

    const WHOLE: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "c-1"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_UID=u;X=y;K8S_POD_INFRA_CONTAINER_ID=c;IP=",
        ),
    ];

    #[test]
    fn an_attachment_is_read_whole() {
        let seen = invocation(&WHOLE).attachment(Netns::Required).unwrap();
        assert_eq!(
            seen,
            Attachment {
                container_id: "c-1".into(),
                if_name: "eth0".into(),
                netns: "/run/netns/a".into(),
                pod: PodArgs {
                    name: "web-0".into(),
                    namespace: "ns".into(),
                    uid: "u".into()
                },
            }
        );
        assert!(seen.pod.is_named());
    }

    #[test]
    fn all_missing_variables_are_named_and_del_needs_no_namespace() {
        let error = invocation(&[]).attachment(Netns::Required).unwrap_err();
        assert_eq!(
            error.to_string(),
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"
        );
        let no_netns = invocation(&[WHOLE[0], WHOLE[2], WHOLE[3]]);
        assert_eq!(no_netns.attachment(Netns::Optional).unwrap().netns, "");
        assert!(no_netns.attachment(Netns::Required).is_err());
    }

    #[test]
    fn names_the_kernel_or_the_specification_refuse_are_refused() {
        for id in ["", "-a", "a/b", "a b", "ä"] {
            assert!(check_container_id(id).is_err(), "{id:?}");
        }
        for name in [".", "..", "a/b", "a b", "a:1", "sixteen-letters-"] {
            assert!(check_if_name(name).is_err(), "{name:?}");
        }
        assert!(check_if_name("fifteen-letters").is_ok());
    }

    #[test]
    fn an_unknown_key_is_refused_unless_it_is_to_be_ignored() {
        let parse = PodArgs::parse;
        assert!(matches!(parse("X=1"), Err(EnvError::UnknownKey { key }) if key == "X"));
        assert!(parse("X=1;IgnoreUnknown=TRUE").is_ok());
        assert!(parse("X=1;IgnoreUnknown=0").is_err());
        assert!(matches!(parse("nonsense"), Err(EnvError::BadPair { .. })));
        assert_eq!(parse("").unwrap(), PodArgs::default());
        assert_eq!(parse("K8S_POD_NAME=a=b;").unwrap().name, "a=b");
    }
}
