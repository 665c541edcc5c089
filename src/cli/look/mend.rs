//! A repair, carried out: a PUT a step, at the version that it was decided on.
//!
//! Never does: decide, or go on after a step that failed; what was done until then is safe, and the
//! next look plans the rest.

use std::collections::BTreeMap;

use anyhow::Context as _;
use ipam::name::PoolName;
use ipam::plan::{Fence, PoolEdit};
use ipam::repair::Step;
use kube::{Api, Client, Resource, ResourceExt};

use crate::api::{SpiderIPPool, SpiderSubnet, convert};
use crate::controller::edit;
use crate::kube_io::put::{self, Part, Reply};

/// Carries out `steps` in order.
///
/// Errors: the step that was not carried out, and why; those before it were.
pub(super) async fn carry_out(client: &Client, steps: &[Step]) -> anyhow::Result<()> {
    let mut revoked: BTreeMap<PoolName, SpiderIPPool> = BTreeMap::new();
    for step in steps {
        let done = one(client, step, &mut revoked).await;
        done.with_context(|| format!("{step}: not done; look again"))?;
    }
    Ok(())
}

async fn one(
    client: &Client,
    step: &Step,
    revoked: &mut BTreeMap<PoolName, SpiderIPPool>,
) -> anyhow::Result<()> {
    let pools: Api<SpiderIPPool> = Api::all(client.clone());
    match step {
        Step::Revoke { pool, fence } => {
            let raw = at(pools.get(pool.as_str()).await?, fence)?;
            let mut rest = raw.clone();
            // Its records may be what can't be read; a write of the main part leaves them alone.
            rest.status = None;
            let parsed = convert::pool(&rest)?;
            let revoke = PoolEdit {
                raise_epoch: true,
                ..PoolEdit::default()
            };
            let mut object = edit::edited_pool(&raw, &parsed, &revoke, None);
            put::replace(client, Part::Main, &mut object, Reply::Full).await?;
            revoked.insert(pool.clone(), object);
        }
        Step::Records {
            pool,
            fence,
            records,
            what: _,
        } => {
            let raw = match (fence, revoked.remove(pool)) {
                (None, Some(written)) => written,
                (Some(fence), _) => at(pools.get(pool.as_str()).await?, fence)?,
                (None, None) => anyhow::bail!("it was not revoked before"),
            };
            let mut object = edit::recorded(&raw, records);
            put::replace(client, Part::Status, &mut object, Reply::MetadataOnly).await?;
        }
        Step::Ledger {
            subnet,
            fence,
            ledger,
            what: _,
        } => {
            let subnets: Api<SpiderSubnet> = Api::all(client.clone());
            let raw = at(subnets.get(subnet.as_str()).await?, fence)?;
            let mut object = edit::ledger_replaced(&raw, ledger.as_ref());
            put::replace(client, Part::Status, &mut object, Reply::MetadataOnly).await?;
        }
    }
    Ok(())
}

/// The object, if it is the one that was judged.
fn at<K: Resource>(object: K, fence: &Fence) -> anyhow::Result<K> {
    let is_same = object.uid().as_deref() == Some(fence.uid.as_str())
        && object.resource_version().as_deref() == Some(fence.version.as_str());
    anyhow::ensure!(is_same, "it has changed since it was read");
    Ok(object)
}
