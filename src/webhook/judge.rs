//! What is asked of the core, and what has to be read for it.
//!
//! Owns: the live lists. Never does: have an opinion.

use ipam::admit::{self, reserved};
use ipam::name::{PoolName, SubnetName};
use ipam::pool::Pool;
use ipam::subnet::Subnet;
use ipnet::IpNet;
use kube::core::DeserializeGuard;
use kube::core::admission::{AdmissionResponse, SerializePatchError};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::review::{Asked, Object};
use super::{Rules, fill};
use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet, convert, draft};
use crate::kube_io::page;

/// Judges requests by the core's rules.
pub(super) struct Judge {
    client: Client,
    rules: Rules,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum JudgeError {
    #[error("{0} can't be listed")]
    List(&'static str, #[source] kube::Error),
    #[error("the defaults have no JSON form")]
    Patch(#[source] SerializePatchError),
    #[error("the object has no JSON form")]
    Json(#[source] serde_json::Error),
}

impl Judge {
    pub(super) fn new(client: Client, rules: Rules) -> Self {
        Self { client, rules }
    }

    /// The defaults of what was asked about, as a patch. What can't be read is left to the judge.
    pub(super) async fn fill(&self, asked: &Asked) -> Result<AdmissionResponse, JudgeError> {
        let (before, after) = match &asked.object {
            Err(_) => return Ok(asked.allow()),
            Ok(Object::Subnet(object)) => filled(&**object, fill::subnet)?,
            Ok(Object::Pool(object)) => {
                let spec = &object.spec;
                let heir = spec.gateway.is_none() || spec.routes.is_none();
                let subnet = if heir && !asked.is_update() {
                    self.around(object).await?
                } else {
                    None
                };
                filled(&**object, |pool| fill::pool(pool, subnet.as_ref()))?
            }
            Ok(Object::Reserved(object)) => filled(&**object, fill::reserved)?,
        };
        let patch = json_patch::diff(&before, &after);
        if patch.0.is_empty() {
            return Ok(asked.allow());
        }
        asked.allow().with_patch(patch).map_err(JudgeError::Patch)
    }

    /// Yes or no.
    pub(super) async fn judge(&self, asked: &Asked) -> Result<AdmissionResponse, JudgeError> {
        // What can't be read is let go by nobody, until somebody has mended it.
        if asked.holds_on_to_what_goes() && asked.old.as_ref().is_some_and(is_readable) {
            return Ok(asked.refuse_terminating());
        }
        let judged = match (&asked.object, &asked.old) {
            (Err(error), _) => {
                let told = format!("the object can't be read: {error}");
                return Ok(asked.refuse_with(&[told]));
            }
            (Ok(Object::Subnet(new)), Some(Object::Subnet(old))) => {
                self.subnet(asked, new, Some(old)).await?
            }
            (Ok(Object::Subnet(new)), _) => self.subnet(asked, new, None).await?,
            (Ok(Object::Pool(new)), Some(Object::Pool(old))) => {
                self.pool(asked, new, Some(old)).await?
            }
            (Ok(Object::Pool(new)), _) => self.pool(asked, new, None).await?,
            (Ok(Object::Reserved(new)), Some(Object::Reserved(old))) => {
                self.reserved(new, Some(old))
            }
            (Ok(Object::Reserved(new)), _) => self.reserved(new, None),
        };
        Ok(match judged {
            Ok(()) => asked.allow(),
            // Nobody can say what it owns, and it is none the worse for that.
            Err(refused) if refused.is_empty() => asked.allow(),
            Err(refused) => asked.refuse(&refused),
        })
    }

    async fn pool(
        &self,
        asked: &Asked,
        new: &SpiderIPPool,
        old: Option<&SpiderIPPool>,
    ) -> Result<Judged, JudgeError> {
        let before = old.map(|old| admit::pool::Before {
            draft: draft::pool(old),
            pool: convert::pool(old).ok(),
        });
        let families = self.rules.families;
        let draft = draft::pool(new);
        let claim = match admit::pool::alone(&draft, before.as_ref(), families) {
            Ok(claim) if claim.concerns_others() => claim,
            Ok(_) => return Ok(Ok(())),
            Err(refused) => return Ok(Err(refused)),
        };
        let (pools, subnets) = (self.pools().await?, self.subnets().await?);
        let name = PoolName::from(asked.name());
        Ok(admit::pool::among(&name, &claim, &pools, &subnets))
    }

    async fn subnet(
        &self,
        asked: &Asked,
        new: &SpiderSubnet,
        old: Option<&SpiderSubnet>,
    ) -> Result<Judged, JudgeError> {
        let before = old.map(|old| admit::subnet::Before {
            draft: draft::subnet(old),
            subnet: convert::subnet(old).ok(),
        });
        let draft = draft::subnet(new);
        let claim = match admit::subnet::alone(&draft, before.as_ref(), self.rules.families) {
            Ok(claim) if claim.concerns_others() => claim,
            Ok(_) => return Ok(Ok(())),
            Err(refused) => return Ok(Err(refused)),
        };
        let (pools, subnets) = (self.pools().await?, self.subnets().await?);
        let name = SubnetName::from(asked.name());
        Ok(admit::subnet::among(&name, &claim, &pools, &subnets))
    }

    fn reserved(&self, new: &SpiderReservedIP, old: Option<&SpiderReservedIP>) -> Judged {
        let before = old.map(draft::reserved);
        reserved::judge(draft::reserved(new), before, self.rules.families)
    }

    /// The subnet with the pool's CIDR, where subnets are on.
    async fn around(&self, pool: &SpiderIPPool) -> Result<Option<SpiderSubnet>, JudgeError> {
        let Ok(cidr) = pool.spec.subnet.parse::<IpNet>() else {
            return Ok(None);
        };
        if !self.rules.subnets {
            return Ok(None);
        }
        let same = |subnet: &SpiderSubnet| subnet.spec.subnet.parse() == Ok(cidr);
        let all: Vec<SpiderSubnet> = self.list("subnets").await?;
        Ok(all.into_iter().find(same))
    }

    /// All pools that can be read: what the others own nobody knows.
    async fn pools(&self) -> Result<Vec<Pool>, JudgeError> {
        let all: Vec<SpiderIPPool> = self.list("pools").await?;
        Ok(all
            .iter()
            .filter_map(|pool| convert::pool(pool).ok())
            .collect())
    }

    /// All subnets that can be read; none where they are off.
    async fn subnets(&self) -> Result<Vec<Subnet>, JudgeError> {
        if !self.rules.subnets {
            return Ok(vec![]);
        }
        let all: Vec<SpiderSubnet> = self.list("subnets").await?;
        let read = all.iter().filter_map(|subnet| convert::subnet(subnet).ok());
        Ok(read.collect())
    }

    /// Everything of a kind that the API server has now.
    async fn list<K>(&self, what: &'static str) -> Result<Vec<K>, JudgeError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + 'static,
    {
        let api: Api<DeserializeGuard<K>> = Api::all(self.client.clone());
        let mut all = vec![];
        let mut next = Some(page::first());
        while let Some(params) = next {
            let some = api.list(&params).await;
            let some = some.map_err(|error| JudgeError::List(what, error))?;
            next = page::after(&some.metadata);
            all.extend(some.items.into_iter().filter_map(|item| item.0.ok()));
        }
        Ok(all)
    }
}

/// Whether the controller can read the object, and so let it go.
fn is_readable(object: &Object) -> bool {
    match object {
        Object::Subnet(subnet) => convert::subnet(subnet).is_ok(),
        Object::Pool(pool) => convert::pool(pool).is_ok(),
        Object::Reserved(reserved) => convert::reserved(reserved).1.is_empty(),
    }
}

/// A verdict of the core.
type Judged = Result<(), Vec<admit::Refusal>>;

/// The object before and after `fill`.
fn filled<K: Serialize + Clone>(
    object: &K,
    fill: impl FnOnce(&mut K),
) -> Result<(Value, Value), JudgeError> {
    let mut after = object.clone();
    fill(&mut after);
    Ok((json(object)?, json(&after)?))
}

/// The object without its status, which no default touches.
fn json(object: &impl Serialize) -> Result<Value, JudgeError> {
    let mut value = serde_json::to_value(object).map_err(JudgeError::Json)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    Ok(value)
}
