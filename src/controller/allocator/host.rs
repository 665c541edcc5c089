//! What the controller brings to the writers of pools ([`crate::pool_writer`]): its caches, and the
//! one way in which this process writes pools.

use std::sync::Arc;

use ipam::addr::AddrSet;
use ipam::name::{PodName, PoolName, Uid};
use ipam::release::Life;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::super::index::Index;
use crate::api::{SpiderIPPool, pod};
use crate::error::ErrorChain;
use crate::kube_io::cache::{Cache, Key};
use crate::kube_io::put::{Part, PutError, Reply};
use crate::kube_io::retry::{Outcome, WRITE_ANSWER_TIMEOUT};
use crate::kube_io::serial::{Serial, is_newer};
use crate::pool_writer::{self, Attachment, Granted, Reading, Rivals, Tally};

/// The controller, as the writers of pools see it.
pub(crate) struct Host {
    pub(crate) client: Client,
    pub(crate) pools: Serial<SpiderIPPool>,
    pub(crate) index: Arc<Index>,
    pub(crate) pods: Cache<Pod>,
    pub(crate) tally: Tally,
}

impl pool_writer::Host for Host {
    const RIVALS: Rivals = Rivals::None;

    async fn read(&self, pool: &PoolName) -> Result<Option<Arc<Reading>>, String> {
        let began = Instant::now();
        let api: Api<SpiderIPPool> = Api::all(self.client.clone());
        let found = timeout(WRITE_ANSWER_TIMEOUT, api.get_opt(pool.as_str())).await;
        let found = found
            .map_err(|_| "the API server did not answer".to_owned())?
            .map_err(|error| ErrorChain(&error).to_string())?;
        Ok(found.map(|object| Arc::new(Reading::new(object, began))))
    }

    fn known(&self, pool: &PoolName, than: Option<&SpiderIPPool>) -> Option<Arc<Reading>> {
        let known = self.pools.cache().get(&Key::cluster(pool.as_str()))?;
        let is_news = than.is_none_or(|than| is_newer(&*known, than));
        is_news.then(|| Arc::new(Reading::new((*known).clone(), Instant::now())))
    }

    async fn reserved(&self) -> Result<Arc<AddrSet>, String> {
        Ok(self.index.all_reserved())
    }

    async fn write(&self, pool: &mut SpiderIPPool) -> Result<(), PutError> {
        let replaced = self.pools.replace(Part::Status, pool, Reply::MetadataOnly);
        replaced.await
    }

    /// By what is known here, which may be behind: then its agent gives back what is recorded.
    fn ended(&self, pod: &PodName, uid: &Uid) -> bool {
        let (namespace, name) = pod.parts();
        let known = self.pods.get(&Key::namespaced(namespace, name));
        let same = known.filter(|known| pod::uid(known) == *uid);
        same.is_none_or(|known| pod::life(&known) != Life::Alive)
    }

    fn granted(&self, _: &Attachment, _: &Granted) {}

    /// Its agent asks again, or releases what it may have been given.
    fn untaken(&self, _: &Attachment) {}

    fn written(&self, asks: usize) {
        self.tally.written(asks);
    }

    fn not_written(&self, outcome: Outcome, _: bool) {
        self.tally.not_written(outcome);
    }
}
