//! Addresses that can be used: ADD asks the network before it hands them on.
//!
//! Owns: what a conflict or a silent gateway means for the call. Never does:
//! release anything; the agent keeps an address in conflict from all Pods, and
//! may refuse to.
//!
//! ```text
//! ask the agent ─▶ nothing to look into ───────────────────────────▶ use them
//!      ▲                │ flags set
//!      │           probe the addresses ─ nobody has them ─ gateways ─▶ announce, use them
//!      │                │ somebody has one              │ silent
//!      └─ agreed ── tell the agent ── refused ─▶ fail   └─▶ fail
//! ```
//!
//! Main plugins that make the interface before they call IPAM (`macvlan`,
//! `bridge`, `vlan`, `host-device`, `sriov`) have one to ask on; with `ptp` it
//! comes later, and an `ipvlan` hears no answer before it has the address. Then
//! the addresses are used as they are, and the log says so.

use std::net::IpAddr;
use std::path::Path;

use super::command::Call;
use super::env::Attachment;
use super::error::PluginError;
use super::probe::{self, Segment};
use crate::client::ClientError;
use crate::contract::{AddressConflict, IpConfig, IpamAddArgs, IpamAddResponse, IpamBatchDelArgs};
use crate::transport::chain;

/// So many addresses of others are passed over in one call; the runtime's next
/// one goes on from there.
const CONFLICTS_MAX: usize = 5;

impl Call<'_> {
    /// Addresses for the interface that, as far as can be asked, nobody else has.
    pub(super) fn usable_addresses(
        &self,
        attachment: &Attachment,
        args: &IpamAddArgs,
    ) -> Result<IpamAddResponse, PluginError> {
        let mut known: Vec<AddressConflict> = Vec::new();
        loop {
            let reply = self.allocate(args)?;
            let conflicts = self.examine(attachment, &reply)?;
            let Some(first) = conflicts.first() else {
                return Ok(reply);
            };
            self.log().error(format_args!(
                "{} of {} is used by {}",
                first.address, first.ip_pool, first.mac
            ));
            let refused = self.report(attachment, &conflicts).err();
            // An agent that knows no quarantine gives the same address again.
            let again = known.contains(first) || known.len() >= CONFLICTS_MAX;
            if again || refused.is_some() {
                return Err(PluginError::Conflict {
                    nic: attachment.if_name.clone(),
                    address: first.address.clone(),
                    mac: first.mac.clone(),
                    refused: refused.map(Box::new),
                });
            }
            known.extend(conflicts);
        }
    }

    fn allocate(&self, args: &IpamAddArgs) -> Result<IpamAddResponse, PluginError> {
        let allocated = self
            .agent
            .insist(|client, limit| client.allocate(args, limit));
        let reply = allocated.map_err(|e| PluginError::Allocate { source: e.into() })?;
        self.log()
            .debug(format_args!("asked {args:?}, got {reply:?}"));
        Ok(reply)
    }

    /// The addresses of `reply` that others have; an error for a gateway that
    /// does not answer.
    fn examine(
        &self,
        attachment: &Attachment,
        reply: &IpamAddResponse,
    ) -> Result<Vec<AddressConflict>, PluginError> {
        let own = reply.ips.iter().flatten();
        let wishes: Vec<Wish<'_>> = own
            .filter(|ip| ip.nic == attachment.if_name)
            .filter_map(Wish::of)
            .collect();
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let netns = Path::new(&attachment.netns);
        let opened = self.agent.host.open_segment(netns, &attachment.if_name);
        let mut segment = match opened {
            Ok(segment) => segment,
            Err(why) => {
                self.unchecked(&wishes, &chain(&why));
                return Ok(Vec::new());
            }
        };
        match self.look_around(segment.as_mut(), attachment, &wishes) {
            Ok(found) => found,
            Err(why) => {
                self.unchecked(&wishes, &why.to_string());
                Ok(Vec::new())
            }
        }
    }

    fn look_around(
        &self,
        segment: &mut dyn Segment,
        attachment: &Attachment,
        wishes: &[Wish<'_>],
    ) -> std::io::Result<Result<Vec<AddressConflict>, PluginError>> {
        let host = self.agent.host;
        let probed: Vec<IpAddr> = wishes
            .iter()
            .filter(|wish| wish.ip.enable_ip_conflict_detection)
            .map(|wish| wish.address)
            .collect();
        let holders = probe::holders(host, segment, &probed)?;
        if !holders.is_empty() {
            let named = wishes.iter().filter_map(|wish| {
                let mac = holders.get(&wish.address)?;
                Some(wish.in_conflict(&attachment.if_name, *mac))
            });
            return Ok(Ok(named.collect()));
        }
        let users: Vec<(IpAddr, IpAddr)> = wishes
            .iter()
            .filter_map(|wish| Some((wish.gateway?, wish.address)))
            .collect();
        let answered = probe::gateways(host, segment, &users)?;
        let silent = wishes
            .iter()
            .find(|wish| wish.gateway.is_some_and(|g| !answered.contains_key(&g)));
        if let Some(wish) = silent {
            return Ok(Err(wish.unreachable(&attachment.if_name)));
        }
        let all: Vec<IpAddr> = wishes.iter().map(|wish| wish.address).collect();
        if let Err(error) = probe::announce(segment, &all) {
            self.log().warn(format_args!("not announced: {error}"));
        }
        Ok(Ok(Vec::new()))
    }

    /// A wish of the agent is not fulfilled.
    fn unchecked(&self, wishes: &[Wish<'_>], why: &str) {
        let addresses: Vec<String> = wishes.iter().map(|w| w.address.to_string()).collect();
        self.log().warn(format_args!(
            "conflict and gateway detection are asked for, but not done for {}: {why}",
            addresses.join(",")
        ));
    }

    /// Tells the agent which addresses others have.
    fn report(
        &self,
        attachment: &Attachment,
        conflicts: &[AddressConflict],
    ) -> Result<(), ClientError> {
        let Attachment {
            container_id,
            if_name: _,
            netns,
            pod,
        } = attachment.clone();
        let args = IpamBatchDelArgs {
            conflicts: conflicts.to_vec(),
            container_id,
            is_release_conflict_ips: true,
            net_namespace: (!netns.is_empty()).then_some(netns),
            pod_name: pod.name,
            pod_namespace: pod.namespace,
            pod_uid: pod.uid,
        };
        self.agent
            .insist(|client, limit| client.release_conflicts(&args, limit))
    }
}

/// An address that the agent wants looked into.
struct Wish<'a> {
    ip: &'a IpConfig,
    address: IpAddr,
    /// Where the agent wants it asked for.
    gateway: Option<IpAddr>,
}

impl<'a> Wish<'a> {
    /// `None` where nothing is asked for; what cannot be read is found out when
    /// the result is made.
    fn of(ip: &'a IpConfig) -> Option<Self> {
        let address = ip.address.split('/').next()?.parse().ok()?;
        let wanted = ip
            .gateway
            .as_deref()
            .filter(|_| ip.enable_gateway_detection);
        let gateway = wanted.and_then(|gateway| gateway.parse().ok());
        (ip.enable_ip_conflict_detection || gateway.is_some()).then_some(Self {
            ip,
            address,
            gateway,
        })
    }

    fn in_conflict(&self, nic: &str, mac: probe::Mac) -> AddressConflict {
        AddressConflict {
            address: self.address.to_string(),
            if_name: nic.to_owned(),
            ip_pool: self.ip.ip_pool.clone().unwrap_or_default(),
            mac: mac.to_string(),
        }
    }

    fn unreachable(&self, nic: &str) -> PluginError {
        PluginError::Unreachable {
            gateway: self.gateway.map(|g| g.to_string()).unwrap_or_default(),
            nic: nic.to_owned(),
            pool: self.ip.ip_pool.clone().unwrap_or_default(),
        }
    }
}
