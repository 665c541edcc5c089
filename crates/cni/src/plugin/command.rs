//! The commands, one function each.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::agent::{Agent, STATUS_LIMIT};
use super::config::{Config, peek_version};
use super::env::{Attachment, Command, Invocation, Task};
use super::error::{CheckError, EnvError, PluginError};
use super::log::Log;
use super::result::{AddResult, pretty, version_json};
use super::{Host, Outcome};
use crate::client::{Client, ClientError};
use crate::contract::{IpamAddArgs, IpamDelArgs, WorkloadEndpointStatus};
use crate::transport::Transport;

/// Carries out one CNI command.
///
/// Reads nothing but `invocation`; everything else goes through `host` and
/// `transport`. Whatever fails ends as an error object in the [`Outcome`].
pub fn run(invocation: &Invocation, host: &dyn Host, transport: &dyn Transport) -> Outcome {
    let started = host.now();
    match execute(invocation, host, transport, started) {
        Ok(stdout) => Outcome {
            stdout,
            succeeded: true,
        },
        Err(error) => {
            let stdout = error.to_json(peek_version(&invocation.stdin));
            Outcome {
                stdout,
                succeeded: false,
            }
        }
    }
}

fn execute(
    invocation: &Invocation,
    host: &dyn Host,
    transport: &dyn Transport,
    started: Duration,
) -> Result<String, PluginError> {
    let task = match invocation.command()? {
        Command::Version => return Ok(version_json(peek_version(&invocation.stdin))),
        Command::Task(task) => task,
    };
    let config =
        Config::parse(&invocation.stdin).map_err(|source| PluginError::Config { source })?;
    let settings = config
        .ipam
        .log()
        .map_err(|source| PluginError::Logging { source })?;
    let log = Log::new(settings.level, task.context(), host.open_log(&settings));
    let socket = config.ipam.socket();
    let client = Client::new(transport, &socket);
    let call = Call {
        config: &config,
        agent: Agent {
            host,
            log: &log,
            client,
            started,
        },
    };
    let done = call.carry_out(&task);
    let spent = host.now().saturating_sub(started).as_millis();
    match &done {
        Ok(_) => log.debug(format_args!("done in {spent} ms")),
        Err(error) => log.error(format_args!("failed in {spent} ms: {}", error.message())),
    }
    done
}

/// A command under way.
pub(super) struct Call<'a> {
    config: &'a Config,
    pub(super) agent: Agent<'a>,
}

impl Call<'_> {
    /// Gives what goes to standard output: only ADD has something to say.
    fn carry_out(&self, task: &Task) -> Result<String, PluginError> {
        match task {
            Task::Add(attachment) => return self.add(attachment),
            Task::Del(attachment) => self.del(attachment)?,
            Task::Check(attachment) => self.check(attachment)?,
            Task::Status => self.status()?,
            Task::Gc => self.gc(),
        }
        Ok(String::new())
    }

    pub(super) fn log(&self) -> &Log {
        self.agent.log
    }

    /// Addresses for one interface.
    fn add(&self, attachment: &Attachment) -> Result<String, PluginError> {
        if !attachment.pod.is_named() {
            return Err(EnvError::NoPod.into());
        }
        let netns = Path::new(&attachment.netns);
        self.agent
            .host
            .check_netns(netns)
            .map_err(|source| PluginError::Netns {
                path: netns.to_owned(),
                source,
            })?;
        self.wait_until_healthy()?;
        let args = self.add_args(attachment);
        let reply = self.usable_addresses(attachment, &args)?;
        let result = AddResult::new(self.config.version, &attachment.if_name, reply)
            .map_err(|source| PluginError::Allocate { source })?;
        self.log()
            .info(format_args!("allocated {}", result.addresses()));
        Ok(pretty(&result))
    }

    fn add_args(&self, attachment: &Attachment) -> IpamAddArgs {
        let Attachment {
            container_id,
            if_name,
            netns,
            pod,
        } = attachment.clone();
        let ipam = &self.config.ipam;
        IpamAddArgs {
            clean_gateway: ipam.clean_gateway(),
            container_id,
            default_ipv4_ip_pool: ipam.default_ipv4_ippool.clone(),
            default_ipv6_ip_pool: ipam.default_ipv6_ippool.clone(),
            if_name,
            match_master_subnet: ipam.match_master_subnet(),
            net_namespace: netns,
            pod_name: pod.name,
            pod_namespace: pod.namespace,
            pod_uid: pod.uid,
        }
    }

    /// Tells the agent that an interface is gone.
    ///
    /// An error makes the runtime call again, so there is one exactly when a
    /// repetition can help: the agent is away, or failed to release.
    fn del(&self, attachment: &Attachment) -> Result<(), PluginError> {
        let Attachment {
            container_id,
            if_name,
            netns,
            pod,
        } = attachment.clone();
        if !pod.is_named() {
            // ADD gives nothing to what is no Pod.
            self.log().warn("CNI_ARGS names no Pod: nothing to release");
            return Ok(());
        }
        self.wait_until_healthy()?;
        let args = IpamDelArgs {
            container_id,
            if_name,
            net_namespace: (!netns.is_empty()).then_some(netns),
            pod_name: pod.name,
            pod_namespace: pod.namespace,
            pod_uid: pod.uid,
        };
        let released = self
            .agent
            .insist(|client, limit| client.release(&args, limit));
        let Err(source) = released else {
            self.log().info("released what was to be released");
            return Ok(());
        };
        let repeat = may_heal(&source);
        let error = PluginError::Release { source };
        if repeat {
            return Err(error);
        }
        self.log()
            .error(format_args!("not repeated: {}", error.message()));
        Ok(())
    }

    /// Makes sure that the addresses in use are the Pod's.
    fn check(&self, attachment: &Attachment) -> Result<(), PluginError> {
        let Some(in_use) = self
            .config
            .previous
            .as_deref()
            .filter(|ips| !ips.is_empty())
        else {
            return Ok(());
        };
        let pod = &attachment.pod;
        if !pod.is_named() {
            return Err(EnvError::NoPod.into());
        }
        let endpoint = self
            .agent
            .insist(|client, limit| client.endpoint(&pod.namespace, &pod.name, limit))
            .map_err(|e| PluginError::Check { source: e.into() })?;
        compare(in_use, &pod.uid, &endpoint).map_err(|source| PluginError::Check { source })
    }

    /// Could an ADD be served now?
    fn status(&self) -> Result<(), PluginError> {
        let healthy = self.agent.client.healthy(STATUS_LIMIT);
        healthy.map_err(|source| PluginError::Unavailable { source })
    }

    /// The runtime says which attachments of one network it still knows.
    /// Nothing is released for it: a record does not name its network, so what
    /// is missing in the list may be another's. The agent finds leaked records
    /// of its node by itself: by the end of their Pods, in two looks.
    fn gc(&self) {
        let known = self.config.valid_attachments.unwrap_or_default();
        self.log().debug(format_args!(
            "{known} valid attachments; the agent looks for leaked addresses by itself"
        ));
    }

    fn wait_until_healthy(&self) -> Result<(), PluginError> {
        self.agent
            .insist(Client::healthy)
            .map_err(|source| PluginError::Unhealthy { source })
    }
}

/// Whether a repeated release can succeed: not after the agent said that the
/// request itself is wrong.
fn may_heal(error: &ClientError) -> bool {
    error.status().is_none_or(|status| status >= 500)
}

/// Whether all addresses in use are recorded for the Pod.
fn compare(
    in_use: &[String],
    uid: &str,
    endpoint: &WorkloadEndpointStatus,
) -> Result<(), CheckError> {
    let pod = || format!("{}/{}", endpoint.pod_namespace, endpoint.pod_name);
    if !uid.is_empty() && !endpoint.pod_uid.is_empty() && uid != endpoint.pod_uid {
        return Err(CheckError::OtherPod {
            pod: pod(),
            recorded: endpoint.pod_uid.clone(),
            asked: uid.to_owned(),
        });
    }
    let recorded: Vec<IpAddr> = endpoint
        .interfaces
        .iter()
        .flat_map(|nic| [nic.ipv4.as_deref(), nic.ipv6.as_deref()])
        .flatten()
        .filter_map(address_of)
        .collect();
    for address in in_use {
        if !address_of(address).is_some_and(|ip| recorded.contains(&ip)) {
            return Err(CheckError::NotRecorded {
                address: address.clone(),
                pod: pod(),
            });
        }
    }
    Ok(())
}

/// The address of `a/len` or `a`. The length is the network's, not the Pod's.
fn address_of(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}
