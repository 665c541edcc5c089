//! Addresses that a Pod was given and that another host has: the plugin asked the network.
//!
//! Owns: what is told of them, and the write that keeps all Pods from them. Never does: believe a
//! sandbox about an address that it does not hold ([`ipam::quarantine`] judges, on the record that
//! is written), or take a fixed one from its Pod. A repeated call finds nothing left to do.

use std::net::IpAddr;
use std::sync::Arc;

use cni::{AddressConflict, IpamBatchDelArgs};
use ipam::name::{Nic, PodName, PoolName, Sandbox, Uid};
use ipam::quarantine::{Conflict, PERIOD, Quarantine, Ruling};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::Agent;
use super::batch::BatchError;
use super::pods;
use super::release::WRITE_MAX;
use crate::api::time;
use crate::pool_writer::Attachment;

/// Reason of the Event on the Pod.
const ADDRESS_IN_USE: &str = "AddressInUse";

impl Agent {
    /// Puts the addresses that `args` names into quarantine, as far as its sandbox holds them.
    ///
    /// Errors: [`BatchError`]; what was put there before stays there.
    pub(super) async fn in_conflict(&self, args: &IpamBatchDelArgs) -> Result<(), BatchError> {
        let name = PodName::new(&args.pod_namespace, &args.pod_name);
        let pod = if let Some(pod) = self.pods.get(&name) {
            Some(pod)
        } else {
            let found = self.reads.pod(&name).await;
            let read = found.map_err(|error| BatchError::Read {
                pod: name.clone(),
                reason: error.said(),
            })?;
            read.map(Arc::new)
        };
        let uid = match (args.pod_uid.as_str(), &pod) {
            ("", None) => return Ok(()),
            ("", Some(pod)) => pods::uid(pod),
            (uid, _) => Uid::from(uid),
        };
        let pod = pod.filter(|pod| pods::uid(pod) == uid);
        for said in &args.conflicts {
            let held = Held::read(said, &uid, &args.container_id)?;
            self.one_in_conflict(&name, pod.as_deref(), held).await?;
        }
        Ok(())
    }

    async fn one_in_conflict(
        &self,
        name: &PodName,
        pod: Option<&Pod>,
        held: Held,
    ) -> Result<(), BatchError> {
        let Held { pool, conflict } = held;
        let (address, mac) = (conflict.address, conflict.quarantine.mac.clone());
        let of = Attachment {
            uid: conflict.uid.clone(),
            nic: conflict.nic.clone(),
        };
        let _turn = self.turns.wait(&of).await;
        let deadline = Instant::now() + WRITE_MAX;
        let ruling = self.paths.quarantine(&pool, conflict, deadline).await?;
        let note = match ruling {
            Ruling::NotIts => {
                tracing::info!(%pool, %address, mac, "another host is said to have an address that the sandbox does not hold");
                return Ok(());
            }
            Ruling::Quarantined => {
                self.memory.lost(&of, address);
                format!(
                    "{address} of IPPool {pool} is used by the host at {mac}: no Pod gets it for {} min",
                    PERIOD.num_minutes()
                )
            }
            Ruling::Fixed => format!(
                "{address} of IPPool {pool} is used by the host at {mac} and stays this Pod's: take it from \
                 that host"
            ),
        };
        tracing::warn!(%pool, %address, mac, ?ruling, "address in conflict");
        self.metrics.in_conflict();
        if let Some(pod) = pod {
            self.waits.warn(pod, ADDRESS_IN_USE, &note);
        }
        match ruling {
            Ruling::Fixed => Err(BatchError::Fixed {
                address,
                pool,
                of: name.clone(),
                mac,
            }),
            Ruling::Quarantined | Ruling::NotIts => Ok(()),
        }
    }
}

/// An address in conflict as the sandbox says that it holds it.
struct Held {
    pool: PoolName,
    conflict: Conflict,
}

impl Held {
    fn read(said: &AddressConflict, uid: &Uid, sandbox: &str) -> Result<Self, BatchError> {
        let unreadable = || BatchError::Unreadable {
            address: said.address.clone(),
        };
        let address: IpAddr = said.address.parse().map_err(|_| unreadable())?;
        if said.ip_pool.is_empty() {
            return Err(unreadable());
        }
        Ok(Self {
            pool: PoolName::from(said.ip_pool.as_str()),
            conflict: Conflict {
                address,
                uid: uid.clone(),
                nic: Nic::from(said.if_name.as_str()),
                sandbox: Sandbox::from(sandbox),
                quarantine: Quarantine {
                    mac: said.mac.clone(),
                    until: time::now() + PERIOD,
                },
            },
        })
    }
}
