//! What the leader says it knows, which costs the API server nothing.
//!
//! Owns: which questions may be answered so. Never does: serve where an answer must be current: the
//! leader's caches may be behind, for as long as it likes. Who finds nothing here asks the API
//! server.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use ipam::name::WorkloadId;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use tokio::time::Instant;

use super::super::allocator::Allocator;
use super::OWN_POOL_AGE;
use crate::allocator::wire::{Look, Seen};
use crate::api::{SpiderIPPool, convert};
use crate::kube_io::memo::{Age, Memo};
use crate::pool_writer::Reading;

/// Pools that somebody chooses from.
pub(super) type Pools = Arc<Vec<Arc<Reading>>>;

/// The leader's word.
pub(super) struct Leader {
    allocator: Allocator,
    /// No pool that it tells of was read later than this, for all that is known.
    began: Instant,
    /// What it said, also that it said nothing: of those who ask at one moment one waits for it.
    pools: Memo<Look, Option<Pools>>,
}

impl Leader {
    pub(super) fn new(allocator: Allocator) -> Self {
        Self {
            allocator,
            began: Instant::now(),
            pools: Memo::default(),
        }
    }

    /// Pools to choose from; none where the leader says nothing, or a live reading is asked for.
    pub(super) async fn pools(&self, look: Look, age: Age) -> Option<Pools> {
        if matches!(age, Age::Since(_)) {
            return None;
        }
        let is_own = matches!(look, Look::Pools(_));
        let (allows, allows_own) = (age.rule(), OWN_POOL_AGE.rule());
        let serves = |began, told: &Option<Pools>| {
            // That there are none is not believed for as long.
            allows(began) || (is_own && told.is_some() && allows_own(began))
        };
        let read = async { Ok::<_, Infallible>(self.ask_for_pools(&look).await) };
        let Ok(pools) = self.pools.get_if(&look, serves, read).await;
        pools
    }

    async fn ask_for_pools(&self, look: &Look) -> Option<Pools> {
        let Seen::Pools(pools) = self.allocator.look(look).await? else {
            return None;
        };
        let readings = pools.into_iter().map(|pool| self.reading(pool));
        Some(Arc::new(readings.collect()))
    }

    fn reading(&self, pool: Arc<SpiderIPPool>) -> Arc<Reading> {
        Arc::new(Reading::new(Arc::unwrap_or_clone(pool), self.began))
    }

    /// Metadata of this very ReplicaSet or Job. The pools that came along are there for a moment.
    pub(super) async fn owner(&self, of: &WorkloadId) -> Option<ObjectMeta> {
        let asked = Instant::now();
        let seen = self.allocator.look(&Look::Owner(of.clone())).await?;
        let Seen::OwnerAndPools { meta, pools } = seen else {
            return None;
        };
        if meta.uid.as_deref() != Some(of.uid.as_str()) {
            return None;
        }
        let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for pool in pools {
            let labels = convert::looked_for_by(pool.labels());
            told.entry(labels).or_default().push(self.reading(pool));
        }
        for (labels, pools) in told {
            let look = Look::Pools(labels);
            self.pools.keep(&look, asked, Some(Arc::new(pools)));
        }
        Some(*meta)
    }

    /// Forgets what nobody asked for lately.
    pub(super) fn prune(&self, recent: Age) {
        self.pools.prune(recent);
    }
}
