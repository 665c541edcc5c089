//! All interfaces of a sandbox at once: the release that a plugin asks for when a Pod cannot use what
//! it was given.
//!
//! Owns: which interfaces those are, and when the call is refused. Never does: free anything; each
//! interface is released as by a DEL of its own, with the same proof. Invariants: a Pod that has not
//! ended loses nothing here, whoever asks; what one interface's release came to stays if another's
//! fails, and the call may be repeated.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use cni::IpamBatchDelArgs;
use ipam::attachment::Networks;
use ipam::name::{Nic, PodName, PoolName, Sandbox, Uid};
use ipam::release::Life;

use super::Agent;
use super::former;
use super::pods;
use super::reads::ReadError;
use super::release::TornDown;
use crate::kube_io::memo::Age;
use crate::pool_writer::Attachment;
use crate::pool_writer::CommitError;

/// Why the addresses of a sandbox are not released.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    /// As the original says it where releasing addresses in conflict is switched off.
    #[error("forbid releasing IPs for stateless workload")]
    Stateless,
    /// As the original says it; its blank at the end too.
    #[error("forbid releasing IPs for stateful workload ")]
    Stateful,
    /// As the original says it, and why.
    #[error(
        "forbid releasing IPs for stateful workload : {address} of IPPool {pool} is kept for {of} and stays its own; \
         take it from the host at {mac}, or give it up by scaling the StatefulSet below the Pod, or deleting the virtual machine"
    )]
    Fixed {
        /// The address.
        address: IpAddr,
        /// Its pool.
        pool: PoolName,
        /// Whose it is.
        of: PodName,
        /// Hardware address of the host that uses it.
        mac: String,
    },
    /// The plugin names something that is no address.
    #[error(
        "address '{address}' in conflict is no IP address, or has no pool: call again with what the agent gave"
    )]
    Unreadable {
        /// As written.
        address: String,
    },
    /// A pool could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The Pod has not ended, so its addresses may be in use.
    #[error(
        "Pod {0} has not ended, so its addresses stay: they go with it, once its sandbox is torn down"
    )]
    Lives(PodName),
    /// What is to be released could not be read.
    #[error("the addresses of {pod} could not be told, the call may be repeated: {reason}")]
    Read {
        /// Which.
        pod: PodName,
        /// What the API server said.
        reason: String,
    },
    /// A release was not kept.
    #[error(
        "the release of {pod} could not be kept on disk for [{}], the call may be repeated: {source}",
        .nics.join(" ")
    )]
    Kept {
        /// Which.
        pod: PodName,
        /// The interfaces; those of the others are kept.
        nics: Vec<String>,
        /// Why the last of them was not.
        source: io::Error,
    },
}

impl Agent {
    /// Carries out the call: addresses that others have, where the plugin names them, else all.
    ///
    /// Errors: [`BatchError`].
    pub(super) async fn del_batch(&self, args: &IpamBatchDelArgs) -> Result<(), BatchError> {
        if args.conflicts.is_empty() {
            self.del_all(args).await
        } else {
            self.in_conflict(args).await
        }
    }

    /// Releases every interface of a sandbox whose Pod is gone or finished; nothing known is no error.
    ///
    /// Errors: [`BatchError`].
    async fn del_all(&self, args: &IpamBatchDelArgs) -> Result<(), BatchError> {
        let pod = PodName::new(&args.pod_namespace, &args.pod_name);
        let failed = |error: ReadError| BatchError::Read {
            pod: pod.clone(),
            reason: error.said(),
        };
        let there = self.reads.pod(&pod).await.map_err(failed)?;
        let uid = match (args.pod_uid.as_str(), &there) {
            ("", None) => return Ok(()),
            ("", Some(there)) => pods::uid(there),
            (uid, _) => Uid::from(uid),
        };
        let there = there.filter(|there| pods::uid(there) == uid);
        if let Some(there) = there
            .as_ref()
            .filter(|there| pods::life(there) != Life::Gone)
        {
            let is_stateful = pods::is_fixed(there);
            return Err(match (args.is_release_conflict_ips, is_stateful) {
                (true, true) => BatchError::Stateful,
                (true, false) => BatchError::Stateless,
                (false, _) => BatchError::Lives(pod),
            });
        }
        let mut nics = self.memory.interfaces(&uid);
        let (of, any_order) = ((&pod, &uid), Networks::default());
        let former = former::interfaces(&self.reads, of, &any_order, Age::live()).await;
        nics.extend(former.map_err(failed)?);
        nics.sort();
        nics.dedup();
        let owner = there.as_ref().and_then(pods::stateful_set);
        self.del_each(args, pod, &uid, owner, nics).await
    }

    async fn del_each(
        &self,
        args: &IpamBatchDelArgs,
        pod: PodName,
        uid: &Uid,
        owner: Option<Uid>,
        nics: Vec<Nic>,
    ) -> Result<(), BatchError> {
        let (mut unkept, mut last) = (Vec::new(), None);
        for nic in nics {
            let of = Attachment {
                uid: uid.clone(),
                nic: nic.clone(),
            };
            let torn_down = TornDown {
                pod: pod.clone(),
                sandbox: Sandbox::from(args.container_id.as_str()),
                owner: owner.clone(),
                namespace: args.net_namespace.as_ref().map(PathBuf::from),
            };
            if let Err(error) = self.releases.acknowledge(of, torn_down).await {
                unkept.push(nic.to_string());
                last = Some(error);
            }
        }
        match last {
            None => Ok(()),
            Some(source) => Err(BatchError::Kept {
                pod,
                nics: unkept,
                source,
            }),
        }
    }
}
