//! The writes of a pass to its subnet: the ledger, after what an edit needs, and the finalizer.

use std::sync::Arc;

use ipam::name::PoolName;
use ipam::plan::{Fence, LedgerEdit, Needs, SubnetSeen};
use ipam::subnet::Subnet;
use kube::ResourceExt;
use kube::api::Api;

use super::outcome::{ApplyError, Unwritten};
use super::{Pass, together};
use crate::api::{SpiderIPPool, SpiderSubnet, convert};
use crate::controller::edit;
use crate::kube_io::cache::Key;
use crate::kube_io::put::{self, Part, Reply};
use crate::kube_io::serial::is_gone;

impl Pass<'_> {
    pub(super) async fn ledger(&mut self, fence: &Fence, edits: &[LedgerEdit]) {
        let this = &*self;
        let work: Vec<_> = edits
            .iter()
            .map(|edit| async move { (edit, this.is_due(edit).await) })
            .collect();
        let (mut due, mut left_out) = (vec![], vec![]);
        for (edit, is_due) in together(work).await {
            match is_due {
                Ok(true) => due.push(edit),
                Ok(false) => left_out.push(edit),
                Err(error) => self.refuse(&edit.pool, error),
            }
        }
        for edit in left_out {
            self.miss(&edit.pool, Unwritten::left_out());
        }
        if due.is_empty() {
            return;
        }
        match self.put_ledger(fence, &due).await {
            Ok(()) => self.done.ledger_written = true,
            Err(error) => {
                let why = Unwritten::of(&error);
                for edit in due {
                    self.miss(&edit.pool, why.clone());
                }
                self.done.subnet_unwritten = Some(why);
                self.done.errors.push(error);
            }
        }
    }

    async fn is_due(&self, edit: &LedgerEdit) -> Result<bool, ApplyError> {
        match edit.needs {
            Needs::Nothing => Ok(!self.done.unwritten.contains_key(&edit.pool)),
            Needs::Written => Ok(self.written.contains(&edit.pool)),
            Needs::Absent => self.is_absent(&edit.pool).await,
        }
    }

    async fn put_ledger(&mut self, fence: &Fence, due: &[&LedgerEdit]) -> Result<(), ApplyError> {
        let (raw, parsed) = self.subnet_at(fence)?;
        let mut subnet = edit::with_ledger(&raw, &parsed, due.iter().copied());
        let step = format!(
            "ledger of SpiderSubnet {} ({} pools)",
            parsed.name,
            due.len()
        );
        self.put_subnet(Part::Status, &mut subnet, step).await
    }

    pub(super) async fn protect(&mut self, fence: &Fence, finalizer: bool) {
        let result = match self.subnet_at(fence) {
            Err(error) => Err(error),
            Ok((raw, parsed)) => {
                let mut subnet = edit::protected_subnet(&raw, &parsed.cidr, finalizer);
                let step = format!("finalizer of SpiderSubnet {}", parsed.name);
                self.put_subnet(Part::Main, &mut subnet, step).await
            }
        };
        if let Err(error) = result {
            let why = Unwritten::of(&error);
            self.done.subnet_unwritten.get_or_insert(why);
            self.done.errors.push(error);
        }
    }

    fn subnet_at(&self, fence: &Fence) -> Result<(Arc<SpiderSubnet>, Subnet), ApplyError> {
        match (&self.done.subnet, &self.seen.snapshot.subnet) {
            (Some(raw), SubnetSeen::Readable(parsed)) if parsed.version == fence.version => {
                Ok((raw.clone(), (**parsed).clone()))
            }
            _ => Err(ApplyError::Moved {
                step: "ledger".to_owned(),
            }),
        }
    }

    async fn put_subnet(
        &mut self,
        part: Part,
        subnet: &mut SpiderSubnet,
        step: String,
    ) -> Result<(), ApplyError> {
        put::replace(&self.writer.client, part, subnet, Reply::Full)
            .await
            .map_err(|e| ApplyError::put(step, e))?;
        if is_gone(subnet) {
            let key = Key::cluster(&subnet.name_any());
            self.writer
                .subnets
                .apply_gone(&key, &subnet.uid().unwrap_or_default());
            self.done.subnet = None;
        } else {
            self.writer.subnets.apply_written(subnet.clone());
            self.done.subnet = Some(Arc::new(subnet.clone()));
        }
        Ok(())
    }

    /// A live read: only the API server knows that there is no pool of this name and CIDR.
    async fn is_absent(&self, pool: &PoolName) -> Result<bool, ApplyError> {
        let SubnetSeen::Readable(subnet) = &self.seen.snapshot.subnet else {
            return Ok(false);
        };
        let api: Api<SpiderIPPool> = Api::all(self.writer.client.clone());
        let live = api.get_opt(pool.as_str()).await;
        let live = live.map_err(|error| {
            ApplyError::call(format!("look whether IPPool {pool} is gone"), error)
        })?;
        Ok(live.is_none_or(|live| {
            let cidr = convert::cidr(&live.spec.subnet, live.spec.ip_version);
            cidr.is_ok_and(|cidr| cidr != subnet.cidr)
        }))
    }
}
