//! Which replica acts: leader election on a Lease, by the rules of `client-go`.
//!
//! Owns: one Lease, its renewal, and the word whether this process leads. Never does: guard
//! anything. Two processes can believe that they lead (one was suspended and doesn't know yet);
//! what keeps an address from being given twice is the fence of every write, not this. A leader
//! only saves the others the work. The Lease has the original's name and form, so a controller of
//! either kind keeps the other from acting.
//!
//! # Rules
//!
//! * The holder renews every [`Durations`]`::retry`, and steps down by itself once it could not for
//!   `renew`, well before others may take over.
//! * Another takes a Lease that nobody holds at once, and one that it has *seen unchanged* for the
//!   time written on it. The times written on it are never compared with a clock: clocks differ.
//! * Whoever stops in order leaves the Lease without a holder, so the next need not wait.
//!
//! ```text
//! 0 s  last renewal          10 s  its holder has stepped down     15 s  another may take it
//! |--------------------------|-------------------------------------|----------------------->
//! ```

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::put::{self, Part, PutError, Reply};
#[cfg(doc)]
use super::retry::write_client;
use super::retry::{Backoff, Outcome};
use super::time;
use crate::error::ErrorChain;

/// Whether this process acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It does.
    Leader,
    /// It waits: another does, or nobody is known to.
    Follower,
}

/// The three times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations {
    lease: Duration,
    renew: Duration,
    retry: Duration,
}

/// Times that could make two leaders, or none.
#[derive(Debug, thiserror::Error)]
#[error(
    "a lease of {lease:?}, renewed within {renew:?} by a try every {retry:?}: each must be well longer than the next, such as 15 s, 10 s and 2 s"
)]
pub struct DurationsError {
    lease: Duration,
    renew: Duration,
    retry: Duration,
}

impl Durations {
    /// A lease lasts `lease` unrenewed, its holder steps down after `renew` unrenewed, and all try
    /// every `retry`.
    ///
    /// # Errors
    ///
    /// [`DurationsError`] unless `lease` > `renew` > 2 × `retry` > 0, and `lease` is whole seconds
    /// that fit the field.
    pub fn new(lease: Duration, renew: Duration, retry: Duration) -> Result<Self, DurationsError> {
        let whole = lease.subsec_nanos() == 0 && i32::try_from(lease.as_secs()).is_ok();
        if whole && lease > renew && renew > retry * 2 && !retry.is_zero() {
            Ok(Self {
                lease,
                renew,
                retry,
            })
        } else {
            Err(DurationsError {
                lease,
                renew,
                retry,
            })
        }
    }
}

impl Default for Durations {
    /// 15 s, 10 s and 2 s, as every controller of Kubernetes has them.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Annotations of a Lease: those that its holder sets, and those that it takes away.
pub type Announced = BTreeMap<&'static str, Option<String>>;

/// One process's part in the election for one Lease.
pub struct LeaderElector {
    client: Client,
    namespace: String,
    name: String,
    identity: String,
    durations: Durations,
    announced: Announced,
    leadership: watch::Sender<Leadership>,
    /// The Lease as last read or written, and when it was first seen so.
    seen: Option<Seen>,
    /// When the last renewal that succeeded was sent; none while following.
    renewed: Option<Instant>,
}

struct Seen {
    lease: Lease,
    since: Instant,
}

/// Why one try came to nothing.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error("the lease could not be read")]
    Read(#[source] kube::Error),
    #[error("the lease could not be made")]
    Create(#[source] kube::Error),
    #[error("the lease could not be written")]
    Write(#[source] PutError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl LeaderElector {
    /// An elector that follows until [`LeaderElector::run`] wins.
    ///
    /// `client` should be a [`write_client`]: a renewal that `kube` repeats for minutes is
    /// one that comes too late. `identity` must differ between replicas; the Pod's name does.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        durations: Durations,
    ) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            durations,
            announced: Announced::new(),
            leadership: watch::Sender::new(Leadership::Follower),
            seen: None,
            renewed: None,
        }
    }

    /// Has the Lease carry these annotations while this process holds it, and not those without a
    /// value.
    #[must_use]
    pub fn announcing(self, announced: Announced) -> Self {
        Self { announced, ..self }
    }

    /// Whether this process leads, now and after every change.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Takes part until `stop` turns true, or nobody is left to turn it; then gives the Lease back
    /// if this process holds it. Stop the work first: the next leader may start at once.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        {
            let stopped = pin!(stop.wait_for(|stop| *stop));
            tokio::select! {
                biased;
                _ = stopped => {}
                () = self.take_part() => {}
            }
        }
        let led = self.renewed.is_some();
        self.follow("stopping");
        if led {
            self.release().await;
        }
    }

    async fn take_part(&mut self) {
        let mut jitter = Backoff::new(self.durations.retry, self.durations.retry);
        loop {
            let sent = Instant::now();
            let limit = self.patience(sent);
            let tried = match timeout(limit, self.try_once()).await {
                Ok(tried) => tried,
                Err(_) => Err(TryError::Timeout(limit)),
            };
            match tried {
                Ok(Leadership::Leader) => self.lead(sent),
                Ok(Leadership::Follower) => self.follow("another holds the lease"),
                Err(error) => {
                    tracing::warn!(lease = self.name, error = %ErrorChain(&error), "election");
                    // What is stored now is not known: read before the next write.
                    self.forget_version();
                    if self.patience(Instant::now()).is_zero() {
                        self.follow("the lease could not be renewed in time");
                    }
                }
            }
            // Followers are spread out, so that they don't all try when a lease runs out.
            let pause = match self.renewed {
                Some(_) => self.durations.retry.min(self.patience(Instant::now())),
                None => self.durations.retry + jitter.next_delay(),
            };
            sleep(pause).await;
        }
    }

    /// How long this process may still wait for a renewal, or a follower for an answer.
    fn patience(&self, now: Instant) -> Duration {
        match self.renewed {
            Some(renewed) => (renewed + self.durations.renew).saturating_duration_since(now),
            None => self.durations.renew,
        }
    }

    /// One try to hold the Lease, or to go on holding it.
    async fn try_once(&mut self) -> Result<Leadership, TryError> {
        // The holder writes what it last wrote, without reading it first.
        if self.renewed.is_some()
            && let Some(seen) = &self.seen
            && seen.lease.metadata.resource_version.is_some()
        {
            let lease = seen.lease.clone();
            match self.write(lease).await {
                Err(TryError::Write(error)) if has_moved(error.outcome()) => {}
                done => return done.map(|()| Leadership::Leader),
            }
        }
        let found = self.read().await?;
        let unchanged_for = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |seen| seen.since.elapsed());
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        match (decide(spec, &self.identity, unchanged_for), found) {
            (Decision::Wait, _) => return Ok(Leadership::Follower),
            (Decision::Take, Some(lease)) => self.write(lease).await?,
            (Decision::Take, None) => self.create().await?,
        }
        Ok(Leadership::Leader)
    }

    /// Reads the Lease, and notes since when it is as it is.
    async fn read(&mut self) -> Result<Option<Lease>, TryError> {
        let found = self
            .api()
            .get_opt(&self.name)
            .await
            .map_err(TryError::Read)?;
        match &found {
            Some(lease) => self.note(lease.clone()),
            None => self.seen = None,
        }
        Ok(found)
    }

    async fn create(&mut self) -> Result<(), TryError> {
        let mut lease = Lease {
            metadata: ObjectMeta {
                namespace: Some(self.namespace.clone()),
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.claim(None)),
        };
        self.announce(&mut lease);
        let made = self
            .api()
            .create(&PostParams::default(), &lease)
            .await
            .map_err(TryError::Create)?;
        self.note(made);
        Ok(())
    }

    async fn write(&mut self, mut lease: Lease) -> Result<(), TryError> {
        lease.spec = Some(self.claim(lease.spec.as_ref()));
        self.announce(&mut lease);
        put::replace(&self.client, Part::Main, &mut lease, Reply::MetadataOnly)
            .await
            .map_err(TryError::Write)?;
        self.note(lease);
        Ok(())
    }

    fn announce(&self, lease: &mut Lease) {
        for (key, value) in &self.announced {
            let annotations = lease.metadata.annotations.get_or_insert_default();
            match value {
                Some(value) => annotations.insert((*key).to_owned(), value.clone()),
                None => annotations.remove(*key),
            };
        }
    }

    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = time::to_micro(time::now());
        claim(before, &self.identity, self.durations.lease, now)
    }

    /// Leaves the Lease to whoever comes first, if it is still this process's.
    ///
    /// A renewal may have been under way when the order to stop came; so it is read first, and
    /// tried again until it is certain, at most as long as a renewal may take.
    async fn release(&mut self) {
        let limit = self.durations.renew;
        let mut backoff = Backoff::new(Duration::from_millis(100), self.durations.retry);
        let released = timeout(limit, async {
            loop {
                match self.release_once().await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(lease = self.name, error = %ErrorChain(&error), "release");
                        sleep(backoff.next_delay()).await;
                    }
                }
            }
        });
        if released.await.is_err() {
            tracing::warn!(
                lease = self.name,
                "not released; it runs out in {:?}",
                self.durations.lease
            );
        }
    }

    async fn release_once(&mut self) -> Result<(), TryError> {
        let Some(mut lease) = self.read().await? else {
            return Ok(());
        };
        match &mut lease.spec {
            Some(spec) if spec.holder_identity.as_deref() == Some(self.identity.as_str()) => {
                release(spec, time::to_micro(time::now()));
            }
            _ => return Ok(()),
        }
        put::replace(&self.client, Part::Main, &mut lease, Reply::MetadataOnly)
            .await
            .map_err(TryError::Write)?;
        tracing::info!(lease = self.name, "released");
        Ok(())
    }

    fn lead(&mut self, since: Instant) {
        self.renewed = Some(since);
        self.tell(Leadership::Leader, "holds the lease");
    }

    fn follow(&mut self, because: &str) {
        self.renewed = None;
        self.tell(Leadership::Follower, because);
    }

    fn tell(&self, news: Leadership, because: &str) {
        let changed = self.leadership.send_if_modified(|known| {
            let changed = *known != news;
            *known = news;
            changed
        });
        if changed {
            tracing::info!(
                lease = self.name,
                identity = self.identity,
                because,
                "{news:?}"
            );
        }
    }

    fn note(&mut self, lease: Lease) {
        let same = self.seen.as_ref().is_some_and(|seen| {
            seen.lease.metadata.uid == lease.metadata.uid && seen.lease.spec == lease.spec
        });
        match &mut self.seen {
            Some(seen) if same => seen.lease = lease,
            seen => {
                *seen = Some(Seen {
                    lease,
                    since: Instant::now(),
                });
            }
        }
    }

    fn forget_version(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.lease.metadata.resource_version = None;
        }
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// What may be done with a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Write this process's name on it.
    Take,
    /// Leave it to its holder.
    Wait,
}

/// Whether the Lease may be taken by `identity`, which has seen it unchanged for `unchanged_for`.
fn decide(found: Option<&LeaseSpec>, identity: &str, unchanged_for: Duration) -> Decision {
    let holder = found.and_then(|spec| spec.holder_identity.as_deref());
    match (holder, found) {
        (None | Some(""), _) | (_, None) => Decision::Take,
        (Some(holder), _) if holder == identity => Decision::Take,
        (Some(_), Some(spec)) => {
            // A Lease that states no time can't be waited out; the usual one is.
            let seconds = spec
                .lease_duration_seconds
                .and_then(|s| u64::try_from(s).ok());
            let lasts = seconds.map_or(Durations::default().lease, Duration::from_secs);
            if unchanged_for < lasts {
                Decision::Wait
            } else {
                Decision::Take
            }
        }
    }
}

/// The Lease as `identity` holds it. What others put on it stays.
fn claim(before: Option<&LeaseSpec>, identity: &str, lease: Duration, now: MicroTime) -> LeaseSpec {
    let mut spec = before.cloned().unwrap_or_default();
    let renewal = spec.holder_identity.as_deref() == Some(identity);
    if !renewal || spec.acquire_time.is_none() {
        spec.acquire_time = Some(now.clone());
    }
    let transitions = spec.lease_transitions.unwrap_or(0);
    spec.lease_transitions = Some(match before {
        Some(_) if !renewal => transitions.saturating_add(1),
        _ => transitions,
    });
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = i32::try_from(lease.as_secs()).ok();
    spec.renew_time = Some(now);
    spec
}

/// The Lease as its holder leaves it. One second, for those who don't know the empty name.
fn release(spec: &mut LeaseSpec, now: MicroTime) {
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.acquire_time = Some(now.clone());
    spec.renew_time = Some(now);
}

/// Whether a write failed because the Lease is not what it was; reading it tells what it is.
fn has_moved(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Conflict | Outcome::Gone | Outcome::AlreadyExists => true,
        Outcome::Unknown | Outcome::Retryable { .. } | Outcome::Fatal => false,
    }
}

#[cfg(test)]
mod tests;
