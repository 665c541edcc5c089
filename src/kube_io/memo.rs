//! Answers of the API server, kept for a moment and asked for once at a time.
//!
//! Owns: the age of what was read. Never does: read by itself, or keep a failure. Invariant: an
//! answer is handed out only if the reading *began* within the age asked for, counted from when the
//! caller came, however long it then waits. So `Age::Since(now)` is a live read, and callers that come
//! while one is under way share it, also one that takes longer than the age.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::locked;

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Read at this moment or later.
    Since(Instant),
    /// Read no longer ago than this.
    Within(Duration),
}

impl Age {
    /// A reading that begins now or later.
    pub fn live() -> Self {
        Self::Since(Instant::now())
    }

    /// Whether an answer may serve whose reading began at a moment, for somebody who asks now.
    pub fn rule(self) -> impl Fn(Instant) -> bool + use<> {
        let oldest = match self {
            Self::Since(moment) => Some(moment),
            // Without a moment so long ago: none is too old.
            Self::Within(longest) => Instant::now().checked_sub(longest),
        };
        move |began| oldest.is_none_or(|oldest| began >= oldest)
    }
}

/// When the reading began, and what it found.
type Answer<T> = Option<(Instant, T)>;

/// Kept answers, by question.
#[derive(Debug)]
pub struct Memo<K, T> {
    answers: Mutex<BTreeMap<K, Arc<tokio::sync::Mutex<Answer<T>>>>>,
}

impl<K, T> Default for Memo<K, T> {
    fn default() -> Self {
        Self {
            answers: Mutex::new(BTreeMap::new()),
        }
    }
}

impl<K: Ord + Clone, T: Clone> Memo<K, T> {
    /// The kept answer if it is young enough, else what `read` finds.
    pub fn get<E>(
        &self,
        key: &K,
        age: Age,
        read: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>> {
        let allows = age.rule();
        self.get_if(key, move |began, _| allows(began), read)
    }

    /// The kept answer if `serves` says so of when its reading began and of what it is, else what
    /// `read` finds. `serves` may be asked much later.
    pub async fn get_if<E>(
        &self,
        key: &K,
        serves: impl FnOnce(Instant, &T) -> bool,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let answer = Arc::clone(locked(&self.answers).entry(key.clone()).or_default());
        let mut answer = answer.lock().await;
        if let Some((began, known)) = &*answer
            && serves(*began, known)
        {
            return Ok(known.clone());
        }
        let began = Instant::now();
        let found = read.await?;
        *answer = Some((began, found.clone()));
        Ok(found)
    }

    /// Keeps what a reading that began then found, unless a later one is kept or under way.
    pub fn keep(&self, key: &K, began: Instant, found: T) {
        let answer = Arc::clone(locked(&self.answers).entry(key.clone()).or_default());
        if let Ok(mut answer) = answer.try_lock()
            && answer.as_ref().is_none_or(|(known, _)| *known < began)
        {
            *answer = Some((began, found));
        }
    }

    /// Forgets answers older than `age`, and questions that were never answered.
    pub fn prune(&self, age: Age) {
        let allows = age.rule();
        locked(&self.answers).retain(|_, answer| {
            // One that is locked is being read.
            answer.try_lock().map_or(true, |answer| {
                answer.as_ref().is_some_and(|(began, _)| allows(*began))
            })
        });
    }

    /// Forgets the questions that `keep` does not name.
    pub fn retain(&self, keep: impl Fn(&K) -> bool) {
        locked(&self.answers).retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Counter(AtomicU32, Memo<&'static str, u32>);

    impl Counter {
        async fn get(&self, age: Age) -> u32 {
            self.get_in(Duration::from_millis(10), age).await
        }

        async fn get_in(&self, time: Duration, age: Age) -> u32 {
            let read = async {
                tokio::time::sleep(time).await;
                Ok::<_, Infallible>(self.0.fetch_add(1, Ordering::SeqCst))
            };
            self.1.get(&"key", age, read).await.unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_of_one_moment_share_a_reading_and_later_ones_ask_again() {
        let counter = Counter(AtomicU32::new(0), Memo::default());
        let age = Age::Within(Duration::from_secs(1));
        let (a, b) = tokio::join!(counter.get(age), counter.get(age));
        assert_eq!((a, b), (0, 0));
        assert_eq!(counter.get(Age::live()).await, 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(counter.get(age).await, 2);
    }

    /// Else each of those who wait for a slow answer would ask anew, one after the other.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_longer_than_its_age_serves_all_who_waited_for_it() {
        let counter = Counter(AtomicU32::new(0), Memo::default());
        let get = || counter.get_in(Duration::from_secs(2), Age::Within(Duration::from_secs(1)));
        let began = Instant::now();
        assert_eq!(tokio::join!(get(), get(), get()), (0, 0, 0));
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        assert_eq!(get().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_read_does_not_join_one_that_began_before_it() {
        let counter = Counter(AtomicU32::new(0), Memo::default());
        let mut first = Box::pin(counter.get(Age::live()));
        assert!(futures::poll!(&mut first).is_pending());
        tokio::time::advance(Duration::from_millis(5)).await;
        let second = counter.get(Age::live());
        assert_eq!(tokio::join!(first, second), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_along_is_kept_for_its_age_and_replaces_nothing_newer() {
        let (counter, age) = (
            Counter(AtomicU32::new(0), Memo::default()),
            Age::Within(Duration::from_secs(1)),
        );
        let before = Instant::now();
        counter.1.keep(&"key", before, 7);
        assert_eq!(counter.get(age).await, 7);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(counter.get(age).await, 0);
        counter.1.keep(&"key", before, 7);
        assert_eq!(counter.get(age).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn old_answers_are_forgotten() {
        let counter = Counter(AtomicU32::new(0), Memo::default());
        counter.get(Age::live()).await;
        counter.1.prune(Age::Within(Duration::from_secs(1)));
        assert_eq!(locked(&counter.1.answers).len(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        counter.1.prune(Age::Within(Duration::from_secs(1)));
        assert!(locked(&counter.1.answers).is_empty());
    }
}
